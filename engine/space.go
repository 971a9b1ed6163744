package engine

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// spaceWatch keeps a node from running into a full disk. The libraries below
// stop the process when a write finds no room, so writes are refused while there
// is still enough for everything that has been accepted: the write buffers, a
// merge, and the Raft log's next file.
type spaceWatch struct {
	fs      vfs.FS
	dir     string
	reserve int64
	events  *EventListener

	mu      sync.Mutex            // around changes, so that events come in their order
	low     atomic.Pointer[error] // free space is below the reserve
	rlogLow atomic.Pointer[error] // the Raft log cannot prepare its next file
}

// spaceInterval is how often the file system is asked. At the highest rate a
// disk writes, what arrives in between is a fraction of the reserve.
const spaceInterval = 250 * time.Millisecond

// full returns the error for a write while there is no room, else nil.
func (s *spaceWatch) full() error {
	if e := s.low.Load(); e != nil {
		return *e
	}
	if e := s.rlogLow.Load(); e != nil {
		return *e
	}
	return nil
}

// runSpaceWatch polls until ctx ends.
func (s *spaceWatch) runSpaceWatch(ctx context.Context, done func()) {
	defer done()
	tick := time.NewTicker(spaceInterval)
	defer tick.Stop()
	for {
		s.poll()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// room asks the file system now and returns what full does.
func (s *spaceWatch) room() error {
	s.poll()
	return s.full()
}

func (s *spaceWatch) poll() {
	usage, err := s.fs.GetDiskUsage(s.dir)
	if err != nil {
		return // a file system that does not tell, such as one in memory
	}
	if free := int64(usage.AvailBytes); free < s.reserve {
		s.set(&s.low, fmt.Errorf("%w: %s has %d MiB free, writes need %d MiB: free some space and they go on by themselves",
			ErrDiskFull, s.dir, free>>20, s.reserve>>20))
		return
	}
	s.set(&s.low, nil)
}

// raftLogFull is called by the Raft log.
func (s *spaceWatch) raftLogFull(full bool, cause error) {
	if !full {
		s.set(&s.rlogLow, nil)
		return
	}
	s.set(&s.rlogLow, fmt.Errorf("%w: the Raft log in %s cannot grow: %w", ErrDiskFull, s.dir, cause))
}

// set stores err and reports the change, if it is one.
func (s *spaceWatch) set(p *atomic.Pointer[error], err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.full()
	if err == nil {
		p.Store(nil)
	} else {
		p.Store(&err)
	}
	if now := s.full(); (was == nil) != (now == nil) {
		s.events.DiskFull(now != nil, now)
	}
}
