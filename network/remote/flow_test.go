package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/network"
)

// large appends n records of so many bytes, each in a commit of its own.
func large(t testing.TB, w log.Writer, n, size int) {
	t.Helper()
	for i := range n {
		if _, err := w.Append(testContext(t), testKey, bytes.Repeat([]byte{byte(i)}, size)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSlowConsumer: a consumer that takes nothing gets no more than its window and holds
// up neither another on the same connection, nor a write; nothing of the group's is held
// for it; and when it goes on it has everything.
func TestSlowConsumer(t *testing.T) {
	const records, size = 40, 400 << 10
	m, w := &watched{memory: newMemory(t)}, newTown(t)
	large(t, m, records, size)
	a, guest := w.open(1, serve(everybody(), m)), w.open(2, Options{})
	g := guest.guest(t, GroupOptions{Window: MinWindow}, a)
	next, stop := iter.Pull2(g.Scan(testContext(t), log.Query{Key: testKey, Follow: true}))
	defer stop()
	if run, err, _ := next(); err != nil || run.FirstSeq != 1 {
		t.Fatalf("%+v, %v", run, err)
	}
	slow := func() Channel {
		for _, c := range a.Channels() {
			if c.Follows {
				return c
			}
		}
		t.Fatal("no channel")
		return Channel{}
	}
	eventually(t, "it has sent what it may, and lets the scan go", func() bool {
		c := slow()
		return c.Credit < size && m.open() == 0 && c.RTT > 0
	})
	if c := slow(); c.Bytes > MinWindow+size+itemHeader+1000 || c.Lag < records-10 || c.Records > 10 || c.Peer != guest.e.Peer() || c.Group != testGroup || c.Key != testKey {
		t.Errorf("%+v", c)
	}
	got := 0
	for run, err := range g.Scan(testContext(t), log.Query{Key: testKey}) {
		if err != nil {
			t.Fatal(err)
		}
		got += run.Count
	}
	if got != records {
		t.Errorf("the other consumer has %d records", got)
	}
	if _, err := g.Append(testContext(t), testKey, []byte("written meanwhile")); err != nil {
		t.Fatal(err)
	}
	for want := uint64(2); want <= records+1; want++ {
		run, err, _ := next()
		if err != nil || run.FirstSeq != want || run.Count != 1 {
			t.Fatalf("want %d: %d, %v", want, run.FirstSeq, err)
		}
	}
}

// watched counts the scans of a group that are under way.
type watched struct {
	*memory
	mu    sync.Mutex
	scans int
}

func (m *watched) open() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.scans
}

func (m *watched) add(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.scans += n
}

func (m *watched) Scan(ctx context.Context, q log.Query) iter.Seq2[log.Run, error] {
	return func(yield func(log.Run, error) bool) {
		m.add(1)
		defer m.add(-1)
		for run, err := range m.memory.Scan(ctx, q) {
			if !yield(run, err) {
				return
			}
		}
	}
}

// TestLargeRuns: a run that is larger than the window comes in parts, with the largest
// record there can be.
func TestLargeRuns(t *testing.T) {
	m, w := newMemory(t), newTown(t)
	a, guest := w.open(1, serve(everybody(), m)), w.open(2, Options{})
	g := guest.guest(t, GroupOptions{Window: MinWindow}, a)
	var want []string
	for i := range 4 {
		payloads := [][]byte{bytes.Repeat([]byte{byte(i)}, log.MaxPayload)}
		if i%2 == 1 {
			payloads = slices.Repeat([][]byte{bytes.Repeat([]byte{byte(i)}, log.MaxPayload/100)}, 100)
		}
		p, err := g.Append(testContext(t), testKey, payloads...)
		if err != nil {
			t.Fatal(err)
		}
		for j, payload := range payloads {
			at := p
			at.Seq += uint64(j)
			want = append(want, fmt.Sprint(at, len(payload), payload[0]))
		}
	}
	for _, from := range []uint64{1, 50, 102, 103} {
		var got []string
		for run, err := range g.Scan(testContext(t), log.Query{Key: testKey, From: log.Seq(from)}) {
			if err != nil {
				t.Fatal(err)
			}
			for seq, payload := range run.Records() {
				got = append(got, fmt.Sprint(run.Pointer(seq), len(payload), payload[0]))
			}
		}
		if !slices.Equal(got, want[from-1:]) {
			t.Errorf("from %d: %d records, want %d", from, len(got), len(want)-int(from)+1)
		}
	}
}

// TestFirstOf: a part of a run fits, is as large as it can be, and the rest fits into what
// it is said to need.
func TestFirstOf(t *testing.T) {
	var body, records []byte
	sizes := []int{0, 1, 127, 128, 5000, 16384, 3}
	for _, n := range sizes {
		records = log.AppendRecord(records, make([]byte, n))
	}
	body = log.AppendRun(nil, testKey, 11, len(sizes), records)
	run, _, err := log.NextRun(body, 0)
	if err != nil {
		t.Fatal(err)
	}
	whole := len(appendRun(nil, &run))
	for room := range whole + 1 {
		part, need := firstOf(&run, room)
		switch {
		case part.Count == len(sizes):
			if room != whole || need != 0 {
				t.Fatalf("all of %d bytes fits into %d, and needs %d", whole, room, need)
			}
			continue
		case part.Count > 0 && len(appendRun(nil, &part)) > room:
			t.Fatalf("%d records do not fit into %d", part.Count, room)
		}
		rest := run.From(11 + uint64(part.Count))
		next, _ := firstOf(&rest, need)
		if less, _ := firstOf(&rest, need-1); next.Count != 1 || less.Count != 0 {
			t.Fatalf("with %d bytes, %d records: the next is said to need %d", room, part.Count, need)
		}
		if more := uint64(part.Count + 1); more <= uint64(len(sizes)) {
			upTo := log.Query{Until: 10 + more}
			if one, _ := upTo.Clip(run, 11); len(appendRun(nil, &one)) <= room {
				t.Fatalf("with %d bytes: only %d records", room, part.Count)
			}
		}
	}
}

// TestLaggard: a consumer that was at the end of the log and falls too far behind is
// told so, by a word that both sides count; one that has not come to the end yet is left
// alone, however far it is to go.
func TestLaggard(t *testing.T) {
	m, w := newMemory(t), newTown(t)
	policy := everybody()
	policy.MaxLag = 5
	a, guest := w.open(1, serve(policy, m)), w.open(2, Options{})
	g := guest.guest(t, GroupOptions{Window: MinWindow}, a)
	large(t, m, 20, 400<<10)
	early, stopEarly := iter.Pull2(g.Scan(testContext(t), log.Query{Key: testKey, Follow: true}))
	defer stopEarly()
	late, stopLate := iter.Pull2(g.Scan(testContext(t), log.Query{Key: testKey, From: log.Seq(20), Follow: true}))
	defer stopLate()
	if _, err, _ := early(); err != nil {
		t.Fatal(err)
	}
	if run, err, _ := late(); err != nil || run.FirstSeq != 20 {
		t.Fatal(run, err)
	}
	large(t, m, 20, 400<<10)
	eventually(t, "the laggard is cut off", func() bool { return a.Metrics().Served[network.TooSlow] == 1 })
	var err error
	last := uint64(20)
	for run, e := range pulled(late) {
		if err = e; err == nil {
			last = run.LastSeq()
		}
	}
	if told := (*Error)(nil); !errors.Is(err, network.TooSlow) || !errors.As(err, &told) || told.Peer != a.e.Peer() || last == 20 || last >= 35 {
		t.Errorf("at %d: %v", last, err)
	}
	if got := guest.Metrics().Asked; got[network.TooSlow] != 1 {
		t.Errorf("%v", got)
	}
	for want := uint64(2); want <= 40; want++ { // it may come to the end, and is not behind then
		if run, err, _ := early(); err != nil || run.FirstSeq != want {
			t.Fatalf("want %d: %d, %v", want, run.FirstSeq, err)
		}
	}
	// Who was cut off goes on where it was.
	for run, err := range g.Scan(testContext(t), log.Query{Key: testKey, From: log.Seq(last + 1), Follow: true}) {
		if err != nil || run.FirstSeq != last+1 {
			t.Fatal(run.FirstSeq, err)
		}
		break
	}
}

// pulled ranges over what iter.Pull2 gave.
func pulled(next func() (log.Run, error, bool)) iter.Seq2[log.Run, error] {
	return func(yield func(log.Run, error) bool) {
		for {
			if run, err, ok := next(); !ok || !yield(run, err) {
				return
			}
		}
	}
}

// TestDeadConsumer: a consumer whose node vanishes gives its place back.
func TestDeadConsumer(t *testing.T) {
	m, w := newMemory(t), newTown(t)
	policy := everybody()
	policy.MaxConsumers = 1
	a, first, second := w.open(1, serve(policy, m)), w.open(2, Options{}), w.open(3, Options{})
	fill(t, m, 0, 1)
	follow := func(h *house) (func() (log.Run, error, bool), func()) {
		return iter.Pull2(h.guest(t, GroupOptions{}, a).Scan(testContext(t), log.Query{Key: testKey, Follow: true}))
	}
	next, stop := follow(first)
	defer stop()
	if _, err, _ := next(); err != nil {
		t.Fatal(err)
	}
	refusedNext, refusedStop := follow(second)
	if _, err, _ := refusedNext(); !errors.Is(err, NoCapacity) {
		t.Fatalf("%v", err)
	}
	refusedStop()
	if got, other := a.Metrics().Served[NoCapacity], second.Metrics().Asked[NoCapacity]; got != 1 || other != 1 {
		t.Errorf("%d, %d", got, other)
	}
	first.e.Close() // without a word of the service
	eventually(t, "its place is free", func() bool { return len(a.Channels()) == 0 })
	next, stop2 := follow(second)
	defer stop2()
	if _, err, _ := next(); err != nil {
		t.Fatal(err)
	}
}

// TestOnline: a producer is online when enough peers with the tags follow the key, at
// whichever replicas.
func TestOnline(t *testing.T) {
	m, w := newMemory(t), newTown(t)
	fill(t, m, 0, 1)
	a, b := w.open(1, serve(everybody(), m)), w.open(2, serve(everybody(), m))
	tag := identity.NewID("miner")
	tagged := func(e *identity.PeerEntry) { e.Tags = []identity.ID{tag, identity.NewID("other")} }
	one, two, producer := w.open(3, Options{}, tagged), w.open(4, Options{}), w.open(5, Options{})
	follow := func(h *house, at *house, key identity.ID) func() {
		next, stop := iter.Pull2(h.guest(t, GroupOptions{}, at).Scan(testContext(t), log.Query{Key: key, Follow: true}))
		if _, err, _ := next(); err != nil {
			t.Fatal(err)
		}
		return stop
	}
	g := producer.guest(t, GroupOptions{}, a, b)
	online := func(when OnlineWhen) error {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		return g.Online(ctx, testKey, when)
	}
	if err := online(OnlineWhen{}); err != nil {
		t.Error(err)
	}
	if err := online(OnlineWhen{Consumers: 1}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("nobody is there: %v", err)
	}
	waited := make(chan error, 2)
	go func() { waited <- g.Online(testContext(t), testKey, OnlineWhen{Consumers: 2}) }()
	go func() {
		waited <- b.Online(testContext(t), testGroup, testKey, OnlineWhen{Consumers: 1})
	}()
	defer follow(one, a, testKey)()
	if err := online(OnlineWhen{Consumers: 2}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("one is there: %v", err)
	}
	defer follow(two, b, testKey)()
	for range 2 {
		if err := <-waited; err != nil {
			t.Error(err)
		}
	}
	if err := g.Online(testContext(t), testKey, OnlineWhen{Consumers: 1, Tags: []identity.ID{tag}}); err != nil {
		t.Error(err)
	}
	if err := online(OnlineWhen{Consumers: 2, Tags: []identity.ID{tag}}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("one has the tag: %v", err)
	}
	go func() {
		waited <- b.Online(testContext(t), testGroup, testKey, OnlineWhen{Consumers: 1, Tags: []identity.ID{tag}})
	}()
	if err := two.e.ChangeEntry(tagged); err != nil {
		t.Fatal(err)
	}
	if err := <-waited; err != nil {
		t.Error(err)
	}
	if err := g.Online(testContext(t), testKey, OnlineWhen{Consumers: 2, Tags: []identity.ID{tag}}); err != nil {
		t.Error(err)
	}
}
