package raftlog

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Names inside the directory. A file is called .rlog only once its open record is durable, .spare once its space is.
const (
	lockName    = "LOCK"
	prepareName = "prepare.tmp"
	logSuffix   = ".rlog"
	spareSuffix = ".spare"
)

func logName(number uint32) string { return fmt.Sprintf("%08d%s", number, logSuffix) }

func spareName(number uint64) string { return fmt.Sprintf("%08d%s", number, spareSuffix) }

// parseName returns the number of a file called <number><suffix>.
func parseName(name, suffix string) (uint64, bool) {
	digits, ok := strings.CutSuffix(name, suffix)
	if !ok || len(digits) < 8 {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 32)
	return n, err == nil && n > 0
}

// file is one log file, open as long as it is in the file table.
type file struct {
	number    uint32
	seed      uint64
	h         vfs.File
	size      int64 // on disk
	openBytes int64 // length of the open record
	prevEnd   int64

	off    atomic.Int64 // end of the records; what lies below has been written
	synced atomic.Int64 // what lies below is durable

	liveBytes   atomic.Int64
	liveEntries atomic.Int64
	// refs counts the users of h: the table and every reader or sync under way. A file leaves the table only at 1 and
	// without a live entry. Nobody can take a new reference then: readers take theirs under the lock of a replica that
	// has an entry in the file, syncs take theirs on the current file only.
	refs    atomic.Int32
	retired bool // guarded by fileTable.mu
}

func (f *file) name() string { return logName(f.number) }

func (f *file) release() { f.refs.Add(-1) }

// fileTable holds the log files, oldest first; their numbers follow each other without a gap.
type fileTable struct {
	mu   sync.RWMutex
	list []*file
}

// getLocked returns the file with the number, or nil. REQUIRES: mu.
func (t *fileTable) getLocked(number uint32) *file {
	if len(t.list) == 0 || number < t.list[0].number {
		return nil
	}
	if i := int(number - t.list[0].number); i < len(t.list) {
		return t.list[i]
	}
	return nil
}

// acquire returns the file with the number and takes a reference to it. The caller holds the lock of a replica with an
// entry in that file.
func (t *fileTable) acquire(number uint32) *file {
	t.mu.RLock()
	defer t.mu.RUnlock()
	f := t.getLocked(number)
	if f != nil {
		f.refs.Add(1)
	}
	return f
}

// count adds sign times each position to the live counts of its file.
func (t *fileTable) count(ps []position, sign int64) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for i := 0; i < len(ps); {
		number, bytes, from := ps[i].file, int64(0), i
		for ; i < len(ps) && ps[i].file == number; i++ {
			bytes += int64(ps[i].length) + itemHeaderBytes
		}
		if f := t.getLocked(number); f != nil {
			f.liveBytes.Add(sign * bytes)
			f.liveEntries.Add(sign * int64(i-from))
		}
	}
}

func (t *fileTable) add(f *file) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.list = append(t.list, f)
}

// retire returns the oldest file if nobody needs it any more, and keeps it from being acquired again; else nil. The
// newest file is never retired: it holds the state of the replicas.
func (t *fileTable) retire() *file {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.list) < 2 {
		return nil
	}
	f := t.list[0]
	if !f.retired && (f.liveEntries.Load() != 0 || f.refs.Load() != 1) {
		return nil
	}
	f.retired = true
	return f
}

func (t *fileTable) removeFront() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.list = append([]*file(nil), t.list[1:]...)
}

// acquireAll returns all files but a retired one, each with a reference taken.
func (t *fileTable) acquireAll() []*file {
	t.mu.RLock()
	defer t.mu.RUnlock()
	fs := make([]*file, 0, len(t.list))
	for _, f := range t.list {
		if !f.retired {
			f.refs.Add(1)
			fs = append(fs, f)
		}
	}
	return fs
}

// spare is a file with its space on disk, waiting to become a log file.
type spare struct {
	name string
	h    vfs.File
	size int64
}

// sparePool holds the spares. ready gets a signal when the pool or err changed.
type sparePool struct {
	mu    sync.Mutex
	list  []*spare
	err   error // why the last attempt to prepare a spare failed, nil after a success
	tries int   // attempts finished
	drain bool  // the last spare may be taken although no other can be prepared
	ready chan struct{}
}

// take returns a spare, or nil. While no further one can be prepared the last is
// held back for Drain.
func (p *sparePool) take() *spare {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.list) == 0 || len(p.list) == 1 && p.err != nil && !p.drain {
		return nil
	}
	s := p.list[0]
	p.list = p.list[1:]
	return s
}

func (p *sparePool) add(s *spare) {
	p.mu.Lock()
	p.list = append(p.list, s)
	p.err = nil
	p.mu.Unlock()
	poke(p.ready)
}

// release gives the last spare away.
func (p *sparePool) release() {
	p.mu.Lock()
	p.drain = true
	p.mu.Unlock()
	poke(p.ready)
}

func (p *sparePool) fail(err error) {
	p.mu.Lock()
	p.err = err
	p.tries++
	p.mu.Unlock()
	poke(p.ready)
}

// state returns the number of spares, the failed attempts and the last error.
func (p *sparePool) state() (n, tries int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.list), p.tries, p.err
}

// poke wakes the receiver of a channel with room for one signal.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
