package remote

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/mosaik-engine/mosaik/engine"
	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/network"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	testNetwork = identity.NewID("mosaik.remote.test")
	testGroup   = identity.NewID("group")
	testKey     = identity.NewID("key")
)

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// memory is a group in memory, which all replicas of a test share.
type memory struct {
	*log.Memory

	mu   sync.Mutex
	keys map[identity.ID]engine.KeyInfo // as Key has last found them
}

func newMemory(t testing.TB) *memory {
	m := &memory{Memory: log.NewMemory(testGroup), keys: make(map[identity.ID]engine.KeyInfo)}
	t.Cleanup(func() { m.Close() })
	return m
}

func (m *memory) Sync(context.Context) (log.Head, error) { return m.Head(), nil }

// WaitFor waits, as an engine does, and then checks.
func (m *memory) WaitFor(ctx context.Context, p log.Pointer) error {
	for m.Head().Number < p.Commit {
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return m.Memory.WaitFor(ctx, p)
}

func (m *memory) Key(key identity.ID) (engine.KeyInfo, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	info := m.keys[key]
	for run, err := range m.Scan(context.Background(), log.Query{Key: key, From: log.Seq(info.Records + 1)}) {
		if err != nil {
			return info, false
		}
		info = engine.KeyInfo{Key: key, Records: run.LastSeq(), Commit: run.Commit}
	}
	m.keys[key] = info
	return info, info.Records > 0
}

// town is a network of a test.
type town struct {
	t         *testing.T
	mu        sync.Mutex
	addresses map[identity.PeerID][]string
}

func newTown(t *testing.T) *town {
	return &town{t: t, addresses: make(map[identity.PeerID][]string)}
}

func (w *town) at(p identity.PeerID) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.addresses[p]
}

// house is a node of a test.
type house struct {
	*Service
	e *network.Endpoint
}

// open opens node i. Without a policy it is a guest.
func (w *town) open(i int, o Options, change ...func(*identity.PeerEntry)) *house {
	w.t.Helper()
	h := new(house)
	var err error
	h.e, err = network.Open(network.Options{
		Key: identity.KeyFromSeed([identity.Size]byte{byte(i), 7}), Network: testNetwork, Addresses: w.at, Authorize: o.Policy.Authorize,
		Limits: network.Limits{Heartbeat: 50 * time.Millisecond, Silence: 5 * time.Second, Farewell: 300 * time.Millisecond, BackoffMin: 5 * time.Millisecond, BackoffMax: 20 * time.Millisecond},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, c := range change {
		if err := h.e.ChangeEntry(c); err != nil {
			w.t.Fatal(err)
		}
	}
	if o.Pulse == 0 {
		o.Pulse = 20 * time.Millisecond
	}
	if h.Service, err = Open(h.e, o); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(h.close)
	w.mu.Lock()
	w.addresses[h.e.Peer()] = []string{h.e.Addr().String()}
	w.mu.Unlock()
	return h
}

func (h *house) close() {
	h.Service.Close()
	h.e.Close()
}

// everybody lets everybody do everything.
func everybody() *Policy { return &Policy{Consume: new(Rule), Produce: new(Rule)} }

// serve returns options that serve a group.
func serve(p *Policy, m Source) Options {
	return Options{Policy: p, Groups: func(id identity.ID) Source {
		if id == testGroup {
			return m
		}
		return nil
	}}
}

// guest returns a handle on the group of some replicas.
func (h *house) guest(t testing.TB, o GroupOptions, replicas ...*house) *Group {
	t.Helper()
	for _, r := range replicas {
		o.Replicas = append(o.Replicas, r.e.Peer())
	}
	if o.BackoffMin == 0 {
		o.BackoffMin, o.BackoffMax = 2*time.Millisecond, 20*time.Millisecond
	}
	g, err := h.Group(testGroup, o)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// fill appends records "from" to "to"-1, whose text is their number.
func fill(t testing.TB, w log.Writer, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		if _, err := w.Append(testContext(t), testKey, fmt.Appendf(nil, "%d", i)); err != nil {
			t.Fatal(err)
		}
	}
}

func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for ctx := testContext(t); !holds(); {
		select {
		case <-time.After(2 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("not so: %s", what)
		}
	}
}

// TestScanPositions: a scan from every kind of position yields over a connection what it
// yields without one.
func TestScanPositions(t *testing.T) {
	m, w := newMemory(t), newTown(t)
	a, guest := w.open(1, serve(everybody(), m)), w.open(2, Options{})
	g := guest.guest(t, GroupOptions{}, a)
	var pointers []log.Pointer
	for i := range 20 {
		p, err := g.Append(t.Context(), testKey, fmt.Appendf(nil, "%d", 2*i), fmt.Appendf(nil, "%d", 2*i+1))
		if err != nil {
			t.Fatal(err)
		}
		pointers = append(pointers, p)
		if _, err := g.Append(t.Context(), identity.NewID("another"), nil); err != nil {
			t.Fatal(err)
		}
	}
	tenth, err := m.Commit(pointers[10].Commit)
	if err != nil {
		t.Fatal(err)
	}
	whole := tenth.Pointer()
	record := pointers[10]
	record.Seq++
	for _, from := range []log.Position{
		log.Earliest(), log.Latest(), log.Seq(1), log.Seq(22), log.Seq(41), log.Seq(1000), log.CommitNumber(1), log.CommitNumber(whole.Commit), log.CommitNumber(10_000),
		log.Since(time.Unix(0, tenth.Header.Time)), log.Since(time.Unix(0, 0)), log.Since(time.Now().Add(time.Hour)), log.At(whole), log.At(record), log.At(pointers[3]),
	} {
		for _, q := range []log.Query{
			{Key: testKey, From: from}, {Key: testKey, From: from, Until: 30}, {Key: testKey, From: from, Filter: log.Filter{Every: 3}},
			{Key: testKey, From: from, Filter: log.Filter{Until: time.Unix(0, tenth.Header.Time)}}, {Key: identity.NewID("nobody"), From: from},
		} {
			if q.Key != testKey && from.Kind() == log.AtPointer {
				continue
			}
			if want, got := runs(t, m, q), runs(t, g, q); !slices.Equal(want, got) {
				t.Errorf("%v %+v: %v, want %v", from, q.Filter, got, want)
			}
		}
	}
	for name, bad := range map[string]struct {
		q    log.Query
		want error
	}{
		"digest": {log.Query{Key: testKey, From: log.At(log.Pointer{Group: testGroup, Commit: 1})}, log.ErrPointer},
		"later":  {log.Query{Key: testKey, From: log.At(log.Pointer{Group: testGroup, Commit: 1000})}, log.ErrNotFound},
		"key":    {log.Query{}, log.ErrQuery},
		"seq":    {log.Query{Key: testKey, From: log.Seq(0)}, log.ErrPosition},
	} {
		var got error
		for _, err := range g.Scan(t.Context(), bad.q) {
			got = err
		}
		if !errors.Is(got, bad.want) {
			t.Errorf("%s: %v", name, got)
		}
	}
	if got := a.Metrics().Served; got["bad-pointer"] != 1 || got["not-found"] != 1 || got[network.Done] == 0 {
		t.Errorf("%v", got)
	}
	eventually(t, "both sides count the same", func() bool {
		return fmt.Sprint(a.Metrics().Served) == fmt.Sprint(guest.Metrics().Asked)
	})
}

// runs reads a scan into text.
func runs(t testing.TB, s log.Scanner, q log.Query) (all []string) {
	t.Helper()
	for run, err := range s.Scan(testContext(t), q) {
		if err != nil {
			t.Fatal(err)
		}
		for seq, payload := range run.Records() {
			all = append(all, fmt.Sprintf("%d %s %d %s %q", seq, run.Pointer(seq), run.Time, run.Group, payload))
		}
	}
	return all
}
