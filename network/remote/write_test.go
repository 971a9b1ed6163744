package remote

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/mosaik-engine/mosaik/engine"
	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/network"
)

// held is a group that takes appends and answers when it is let.
type held struct {
	*memory
	taken chan struct{}     // one for each append
	let   chan struct{}     // closed: answer
	fail  func(n int) error // of the n-th append, from 1; before anything is written
	mu    sync.Mutex
	n     int
}

func newHeld(t *testing.T) *held {
	return &held{memory: newMemory(t), taken: make(chan struct{}, 100), let: make(chan struct{}), fail: func(int) error { return nil }}
}

func (h *held) AppendAsync(ctx context.Context, key identity.ID, payloads ...[]byte) *log.Future {
	h.mu.Lock()
	h.n++
	err := h.fail(h.n)
	h.mu.Unlock()
	if err != nil {
		f := log.NewFuture()
		f.Complete(log.Pointer{}, err)
		return f
	}
	done := h.memory.AppendAsync(ctx, key, payloads...)
	h.taken <- struct{}{}
	f := log.NewFuture()
	go func() {
		<-h.let
		p, err := done.Result()
		f.Complete(p, err)
	}()
	return f
}

// TestUnknownOutcome: a write whose connection breaks after it has left is not sent
// again, and the error says that nobody knows.
func TestUnknownOutcome(t *testing.T) {
	h, w := newHeld(t), newTown(t)
	defer close(h.let)
	a, b, guest := w.open(1, serve(everybody(), h)), w.open(2, serve(everybody(), h)), w.open(3, Options{})
	g := guest.guest(t, GroupOptions{}, a, b)
	failed := make(chan error, 2)
	go func() {
		_, err := g.Append(testContext(t), testKey, []byte("one"))
		failed <- err
	}()
	<-h.taken
	async := g.AppendAsync(testContext(t), testKey, []byte("two"))
	<-h.taken
	for _, r := range []*house{a, b} {
		r.e.Disconnect(guest.e.Peer(), network.Lost, errors.New("a test"))
	}
	if err := <-failed; !errors.Is(err, ErrUnknown) || !errors.As(err, new(*network.CloseError)) {
		t.Errorf("%v", err)
	}
	if _, err := async.Result(); !errors.Is(err, ErrUnknown) {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancel(testContext(t))
	go func() {
		_, err := g.Append(ctx, testKey, []byte("three"))
		failed <- err
	}()
	<-h.taken
	cancel()
	if err := <-failed; !errors.Is(err, ErrUnknown) || !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if _, err := g.Append(ctx, testKey, nil); !errors.Is(err, context.Canceled) || errors.Is(err, ErrUnknown) {
		t.Errorf("it was not sent, and says %v", err)
	}
	if n := h.Head().Number; n != 3 {
		t.Errorf("%d commits of 3 writes", n)
	}
}

// TestUnwritten: a write that a replica says it has not written goes to another; one
// that nobody can answer for does not.
func TestUnwritten(t *testing.T) {
	for name, test := range map[string]struct {
		err   error
		want  error
		total int // of attempts
	}{
		"closed":    {log.ErrClosed, nil, 2},
		"no quorum": {fmt.Errorf("%w: it may still be committed", engine.ErrNoQuorum), engine.ErrNoQuorum, 1},
		"busy":      {engine.ErrBusy, engine.ErrBusy, 1},
		"disk full": {engine.ErrDiskFull, engine.ErrDiskFull, 1},
		"codec":     {log.ErrCodec, log.ErrCodec, 1},
		"other":     {errors.New("what nobody has heard of"), Failed, 1},
		"corrupt":   {&log.CorruptionError{Commit: 1, Err: errors.New("bits")}, Corrupt, 1},
	} {
		t.Run(name, func(t *testing.T) {
			h, w := newHeld(t), newTown(t)
			close(h.let)
			h.fail = func(n int) error {
				if n == 1 {
					return test.err
				}
				return nil
			}
			guest := w.open(3, Options{})
			g := guest.guest(t, GroupOptions{}, w.open(1, serve(everybody(), h)), w.open(2, serve(everybody(), h)))
			_, err := g.Append(testContext(t), testKey, []byte("record"))
			if !errors.Is(err, test.want) || (err == nil) != (test.want == nil) {
				t.Errorf("%v, want %v", err, test.want)
			}
			if h.n != test.total || int(h.Head().Number) != test.total-1 {
				t.Errorf("%d attempts, %d commits", h.n, h.Head().Number)
			}
		})
	}
}

// TestAppendOrder: appends of one goroutine that are not waited for stand in the order of
// their calls, and a scan afterwards has them all, at whichever replica.
func TestAppendOrder(t *testing.T) {
	m, w := newMemory(t), newTown(t)
	a, b, guest := w.open(1, serve(everybody(), m)), w.open(2, serve(everybody(), m)), w.open(3, Options{})
	g := guest.guest(t, GroupOptions{}, a, b)
	var futures []*log.Future
	const n = 2 * maxChannels
	for i := range n {
		futures = append(futures, g.AppendAsync(testContext(t), testKey, fmt.Appendf(nil, "%04d", i)))
	}
	for i, f := range futures {
		if p, err := f.Result(); err != nil || p.Seq != uint64(i+1) {
			t.Fatal(p, err)
		}
	}
	var got []string
	for run, err := range g.Scan(testContext(t), log.Query{Key: testKey}) {
		if err != nil {
			t.Fatal(err)
		}
		for _, payload := range run.Records() {
			got = append(got, string(payload))
		}
	}
	if len(got) != n || !slices.IsSorted(got) {
		t.Errorf("%d records, sorted: %v", len(got), slices.IsSorted(got))
	}
	for name, bad := range map[string]struct {
		key      identity.ID
		payloads [][]byte
		want     error
	}{
		"no record": {testKey, nil, log.ErrEmpty}, "too large": {testKey, [][]byte{make([]byte, log.MaxPayload+1)}, log.ErrOversize}, "no key": {identity.ID{}, [][]byte{nil}, log.ErrQuery},
	} {
		if _, err := g.Append(t.Context(), bad.key, bad.payloads...); !errors.Is(err, bad.want) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := g.AppendAsync(t.Context(), bad.key, bad.payloads...).Result(); !errors.Is(err, bad.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// behind is a replica that has only the first commits of a group.
type behind struct {
	*memory
	commits uint64
}

func (b behind) WaitFor(ctx context.Context, p log.Pointer) error {
	if p.Commit > b.commits {
		<-ctx.Done()
		return ctx.Err()
	}
	return b.memory.WaitFor(ctx, p)
}

// TestReadsReflectWrites: a replica that has not got as far as the handle has seen is
// not believed; another is asked, or nobody answers.
func TestReadsReflectWrites(t *testing.T) {
	m, w := newMemory(t), newTown(t)
	a := w.open(1, serve(everybody(), m))
	late := w.open(2, serve(everybody(), behind{m, 1}))
	guest := w.open(3, Options{})
	fill(t, m, 0, 3)
	g := guest.guest(t, GroupOptions{}, late, a)
	head, err := g.Sync(t.Context())
	if err != nil || head != m.Head() {
		t.Fatalf("%+v, %v", head, err)
	}
	alone := guest.guest(t, GroupOptions{}, late)
	alone.seen(head.Number, head.Digest)
	for _, err = range alone.Scan(testContext(t), log.Query{Key: testKey}) {
	}
	if !errors.Is(err, Behind) {
		t.Errorf("%v", err)
	}
	n := 0
	for run, err := range g.Scan(testContext(t), log.Query{Key: testKey}) {
		if err != nil {
			t.Fatal(err)
		}
		n += run.Count
	}
	if n != 3 {
		t.Errorf("%d records", n)
	}
	// A replica with another chain is found out.
	g.seen(head.Number+1, log.Digest{1})
	fill(t, m, 3, 4)
	for _, err = range g.Scan(testContext(t), log.Query{Key: testKey}) {
	}
	if !errors.Is(err, log.ErrPointer) {
		t.Errorf("%v", err)
	}
}

// TestWaitFor: it returns when the commit is there, and not before; a commit that is
// another one is told.
func TestWaitFor(t *testing.T) {
	// The same appends at the same times make the same commits.
	m, twin, w := newMemory(t), newMemory(t), newTown(t)
	clock := func() time.Time { return time.Unix(0, 1) }
	twin.SetClock(clock)
	m.SetClock(clock)
	fill(t, m, 0, 1)
	a, guest := w.open(1, serve(everybody(), m)), w.open(2, Options{})
	g := guest.guest(t, GroupOptions{}, a)
	fill(t, twin, 0, 2)
	c, err := twin.Commit(2)
	if err != nil {
		t.Fatal(err)
	}
	waited := make(chan error, 1)
	go func() { waited <- g.WaitFor(testContext(t), c.Pointer()) }()
	eventually(t, "it waits", func() bool { return len(a.Channels()) == 1 })
	a.e.Disconnect(guest.e.Peer(), network.Lost, nil) // and goes on waiting
	fill(t, m, 1, 2)
	if err := <-waited; err != nil {
		t.Error(err)
	}
	if err := g.WaitFor(testContext(t), log.Pointer{Group: testGroup, Commit: 1, Digest: log.Digest{1}}); !errors.Is(err, log.ErrPointer) {
		t.Errorf("%v", err)
	}
	if err := g.WaitFor(testContext(t), log.Pointer{Group: testKey, Commit: 1}); !errors.Is(err, log.ErrPointer) {
		t.Errorf("%v", err)
	}
	if _, err := guest.guest(t, GroupOptions{}).Sync(t.Context()); !errors.Is(err, ErrNoReplica) {
		t.Errorf("%v", err)
	}
}
