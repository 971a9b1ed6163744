package bench

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

// memory is a target without a disk. It has room for a few appends at a time
// and says so when it is full, as the Raft library does.
type memory struct {
	log  *log.Memory
	keys []identity.ID
	fail error // of every append from the failAt-th on, if it is set

	mu struct {
		sync.Mutex
		waiting []func() // appends that are not complete yet
		appends int
		busy    int
	}
	room, failAt int
}

func newMemory(keys, room int) *memory {
	m := &memory{log: log.NewMemory(identity.NewID("memory")), room: room}
	for i := range keys {
		m.keys = append(m.keys, identity.NewID(keyName(i)))
	}
	return m
}

func (m *memory) append(ctx context.Context, key int, payloads payloads) ticket {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.mu.waiting) >= m.room {
		// Full: whoever waits for his oldest append finds it done.
		m.mu.busy++
		m.completeLocked()
		return ticket{err: errBusy}
	}
	m.mu.appends++
	if m.fail != nil && m.mu.appends >= m.failAt {
		return ticket{err: m.fail}
	}
	done := m.log.AppendAsync(ctx, m.keys[key], payloads...)
	f := log.NewFuture()
	m.mu.waiting = append(m.mu.waiting, func() { f.Complete(done.Result()) })
	if m.room == 1 {
		m.completeLocked()
	}
	return ticket{future: f}
}

func (m *memory) completeLocked() {
	for _, complete := range m.mu.waiting {
		complete()
	}
	m.mu.waiting = nil
}

func (m *memory) counters() counters { return counters{nodes: 1, syncs: uint64(m.mu.appends)} }
func (m *memory) Close() error       { return nil }

// records counts what is under a key, and checks that one caller's payloads are
// in order.
func (m *memory) records(t *testing.T, key int) int {
	t.Helper()
	n := 0
	last := make(map[uint64]uint64) // by caller
	for run, err := range m.log.Scan(t.Context(), log.Query{Key: m.keys[key]}) {
		if err != nil {
			t.Fatal(err)
		}
		for _, payload := range run.Records() {
			number, err := checkPayload(payload)
			if err != nil {
				t.Fatal(err)
			}
			if before, seen := last[number>>40]; seen && number <= before {
				t.Fatalf("payload %d after %d", number, before)
			}
			last[number>>40] = number
			n++
		}
	}
	return n
}

func TestLoadAppendsWhatItCounts(t *testing.T) {
	m := newMemory(3, 1)
	l := load{callers: 4, window: 1, batch: 5, keys: 3, size: 16, time: time.Hour, records: 600}
	s, err := l.run(t.Context(), m, 0)
	if err != nil {
		t.Fatal(err)
	}
	total := m.records(t, 0) + m.records(t, 1) + m.records(t, 2)
	if s.Records != 600 || total != 600 {
		t.Errorf("%d records were counted, %d written, 600 asked for", s.Records, total)
	}
	if s.Value <= 0 || s.P99 < s.P50 || s.P50 == 0 {
		t.Errorf("sample %+v", s)
	}
	if got := s.Counters["syncs_per_s"] * float64(s.Records) / s.Value; got < 119 || got > 121 {
		t.Errorf("120 syncs were counted as %v", got)
	}
}

// TestLoadKeepsTheWindow: a target that is full before the window is makes the
// caller wait for its oldest append, and nothing gets lost or doubled.
func TestLoadKeepsTheWindow(t *testing.T) {
	m := newMemory(1, 7)
	l := load{callers: 1, window: 16, batch: 1, keys: 1, size: 16, time: time.Hour, records: 1000}
	done := make(chan error)
	go func() {
		s, err := l.run(t.Context(), m, 0)
		if s.Records != 1000 {
			err = errors.Join(err, errors.New("not all records were counted"))
		}
		done <- err
	}()
	for finished := false; !finished; {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			finished = true
		case <-time.After(time.Millisecond): // the last ones find the target not full
			m.mu.Lock()
			m.completeLocked()
			m.mu.Unlock()
		}
	}
	if got := m.records(t, 0); got != 1000 {
		t.Errorf("%d records of 1000", got)
	}
	if m.mu.busy == 0 {
		t.Error("the target was never full")
	}
}

func TestLoadReportsFailure(t *testing.T) {
	m := newMemory(1, 1)
	m.fail, m.failAt = errors.New("no more"), 10
	l := load{callers: 3, window: 4, batch: 1, keys: 1, size: 16, time: time.Hour, records: 1000}
	if _, err := l.run(t.Context(), m, 0); !errors.Is(err, m.fail) {
		t.Errorf("the failure came out as %v", err)
	}
}

func TestLoadEnds(t *testing.T) {
	m := newMemory(1, 1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	l := load{callers: 2, window: 2, batch: 1, keys: 1, size: 16, time: time.Hour, records: 1 << 40}
	if _, err := l.run(ctx, m, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("a canceled load ended with %v", err)
	}
	l.time = time.Nanosecond
	if _, err := l.run(t.Context(), m, 0); err != nil {
		t.Errorf("a load whose time was up ended with %v", err)
	}
}
