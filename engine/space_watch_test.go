package engine

import (
	"errors"
	"runtime"
	"sync"
	"testing"
)

// TestSpaceWatchEvents: two findings come and go at the same time, from two
// goroutines. The listener hears "full" and "not full" in turns, and last what
// is true.
func TestSpaceWatchEvents(t *testing.T) {
	var mu sync.Mutex
	var heard []bool
	events := EventListener{DiskFull: func(full bool, cause error) {
		if full != (cause != nil) {
			t.Errorf("full %v because of %v", full, cause)
		}
		runtime.Gosched() // a listener may take its time
		mu.Lock()
		heard = append(heard, full)
		mu.Unlock()
	}}
	s := spaceWatch{events: &events}
	cause := errors.New("no room")
	var wg sync.WaitGroup
	const rounds = 100000
	begin := make(chan struct{})
	wg.Go(func() {
		<-begin
		for range rounds {
			s.set(&s.low, cause)
			runtime.Gosched()
			s.set(&s.low, nil)
		}
	})
	wg.Go(func() {
		close(begin)
		for range rounds {
			s.raftLogFull(true, cause)
			runtime.Gosched()
			s.raftLogFull(false, nil)
		}
		s.raftLogFull(true, cause)
	})
	wg.Wait()
	for i, full := range heard {
		if full != (i%2 == 0) {
			t.Fatalf("event %d of %d says full: %v", i, len(heard), full)
		}
	}
	if len(heard)%2 == 0 || s.full() == nil {
		t.Errorf("%d events, and at the end %v", len(heard), s.full())
	}
}
