package raftlog

import (
	"errors"
	"io"
	iofs "io/fs"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	readySpares  = 2       // spares prepared ahead: one to go on with, one held back for Drain
	keptSpares   = 4       // freed files kept for reuse; the rest are deleted
	zeroChunk    = 1 << 20 // bytes written at once while a file is prepared
	zeroSync     = 8 << 20 // bytes between two syncs meanwhile, so that no flood of dirty pages delays the log's own
	moveRunBytes = 256 << 10
)

// spaceState remembers why there is no space, and what OnFull was last told.
type spaceState struct {
	mu     sync.Mutex
	writer error // a writer found no space
	told   bool
}

// writerSpace notes that a write found no space (or, with nil, that it does again).
func (l *Log) writerSpace(err error) {
	l.space.mu.Lock()
	changed := (l.space.writer == nil) != (err == nil)
	l.space.writer = err
	l.space.mu.Unlock()
	if changed {
		poke(l.wakeSpares)
	}
}

// full says whether OnFull(true) was the last call.
func (l *Log) full() bool {
	l.space.mu.Lock()
	defer l.space.mu.Unlock()
	return l.space.told
}

// tellFull calls OnFull when the answer changed.
func (l *Log) tellFull() {
	_, _, err := l.pool.state()
	l.space.mu.Lock()
	if l.space.writer != nil {
		err = l.space.writer
	}
	changed := l.space.told != (err != nil)
	l.space.told = err != nil
	l.space.mu.Unlock()
	if !changed {
		return
	}
	if err != nil {
		l.opts.Logger.Error("raft log cannot get space for another file", "err", err)
	} else {
		l.opts.Logger.Info("raft log has space again")
	}
	l.opts.OnFull(err != nil, err)
}

// runSpares frees files nobody needs and keeps a spare ready. It never takes the write mutex: a writer that holds it may
// be waiting for the spare.
func (l *Log) runSpares() {
	defer l.background.Done()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	var refused time.Time // when the last attempt to prepare a spare failed
	for {
		if err := l.reclaim(); err != nil {
			l.opts.Logger.Error("raft log cannot free a file", "err", err)
		}
		n, _, err := l.pool.state()
		if n < readySpares && l.failure() == nil && (err == nil || time.Since(refused) >= l.opts.SpaceRetry) {
			if sp, err := l.prepare(); err == nil {
				l.pool.add(sp)
			} else if !errors.Is(err, ErrClosed) {
				refused = time.Now()
				l.pool.fail(err)
			}
		}
		l.tellFull()
		timer.Reset(time.Hour)
		if _, _, err := l.pool.state(); err != nil {
			timer.Reset(l.opts.SpaceRetry)
		}
		select {
		case <-l.closing:
			return
		case <-timer.C:
		case <-l.wakeSpares:
		}
	}
}

// reclaim turns the oldest files without live entries into spares, or deletes them. A file leaves the directory before
// the next younger one does, and durably so: after a crash the numbers still have no gap.
func (l *Log) reclaim() error {
	for {
		f := l.files.retire()
		if f == nil {
			return nil
		}
		// The records that made the file's entries superfluous must outlive it.
		if err := l.syncTo(l.writtenNumber()); err != nil {
			return err
		}
		n, _, _ := l.pool.state()
		keep := n < keptSpares && f.size >= l.opts.FileBytes && f.size <= 2*l.opts.FileBytes
		name := spareName(l.spareNumber.Add(1))
		var err error
		if keep {
			err = l.fs.Rename(l.path(f.name()), l.path(name))
		} else {
			err = l.fs.Remove(l.path(f.name()))
		}
		if err != nil {
			return err
		}
		if err := l.dir.Sync(); err != nil {
			return l.fail("sync the directory", err)
		}
		l.files.removeFront()
		poke(l.wakeMover)
		if keep {
			l.pool.add(&spare{name: name, h: f.h, size: f.size})
			l.counters.recycled.Add(1)
		} else if err := f.h.Close(); err != nil {
			return err
		}
	}
}

// prepare makes a spare: a file of FileBytes zeros, all of it on disk, so that later writes into it change no metadata
// and need no space.
func (l *Log) prepare() (*spare, error) {
	path := l.path(prepareName)
	if err := l.fs.Remove(path); err != nil && !errors.Is(err, iofs.ErrNotExist) {
		return nil, err
	}
	h, err := l.fs.OpenReadWrite(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, err
	}
	if err := l.fillSpare(h); err != nil {
		err = errors.Join(err, h.Close(), l.fs.Remove(path))
		return nil, err
	}
	sp := &spare{name: spareName(l.spareNumber.Add(1)), h: h, size: l.opts.FileBytes}
	if err := l.fs.Rename(path, l.path(sp.name)); err != nil {
		return nil, errors.Join(err, h.Close(), l.fs.Remove(path))
	}
	return sp, nil
}

func (l *Log) fillSpare(h vfs.File) error {
	if err := h.Preallocate(0, l.opts.FileBytes); isNoSpace(err) {
		return err // any other refusal only means that the file system cannot; the zeros will do
	}
	zeros := make([]byte, min(zeroChunk, l.opts.FileBytes))
	for off := int64(0); off < l.opts.FileBytes; off += int64(len(zeros)) {
		select {
		case <-l.closing:
			return ErrClosed
		default:
		}
		if _, err := h.WriteAt(zeros[:min(int64(len(zeros)), l.opts.FileBytes-off)], off); err != nil {
			return err
		}
		if off%zeroSync == 0 && off > 0 {
			if err := h.SyncData(); err != nil {
				return err
			}
		}
	}
	return h.Sync()
}

// runMover writes the live entries of the oldest file again when too many files hold too few of them.
func (l *Log) runMover() {
	defer l.background.Done()
	for {
		select {
		case <-l.closing:
			return
		case <-l.wakeMover:
		}
		if f := l.moveCandidate(); f != nil {
			err := l.moveEntries(f)
			f.release()
			if err == nil {
				poke(l.wakeSpares)
			} else if !errors.Is(err, ErrClosed) {
				l.opts.Logger.Error("raft log cannot move entries", "file", f.name(), "err", err)
			}
		}
	}
}

// moveCandidate returns the oldest file, with a reference, if its live entries should move. The bound makes the cost
// harmless: before all live bytes were moved once, at least as many bytes were written anew.
func (l *Log) moveCandidate() *file {
	if l.full() || l.failure() != nil {
		return nil
	}
	l.files.mu.RLock()
	defer l.files.mu.RUnlock()
	var live int64
	for _, f := range l.files.list {
		live += f.liveBytes.Load()
	}
	needed := int((live + l.opts.FileBytes - 1) / l.opts.FileBytes)
	if len(l.files.list) <= l.opts.MaxDeadFiles+2*needed {
		return nil
	}
	f := l.files.list[0]
	if f.retired || f.liveEntries.Load() == 0 {
		return nil
	}
	f.refs.Add(1)
	return f
}

// moveEntries appends copies of all live entries of f at the tail.
func (l *Log) moveEntries(f *file) error {
	var e encoder
	var moved int64
	for _, r := range l.replicas.all() {
		for from := uint64(0); ; {
			select {
			case <-l.closing:
				return ErrClosed
			default:
			}
			index, run := r.runIn(f.number, from, int(min(moveRunBytes, l.opts.FileBytes/4)))
			if len(run) == 0 {
				break
			}
			from = index + uint64(len(run))
			n, err := l.moveRun(&e, f, r, index, run)
			if err != nil {
				return err
			}
			moved += n
		}
	}
	l.counters.moved.Add(moved)
	l.opts.Logger.Info("raft log moved entries", "file", f.name(), "bytes", moved)
	return nil
}

// runIn returns the positions of consecutive entries that lie in one file, about limit bytes of them, starting at or
// after index from.
func (r *replica) runIn(number uint32, from uint64, limit int) (index uint64, run []position) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	at := 0
	if from > r.first {
		at = int(min(from-r.first, uint64(len(r.pos))))
	}
	for at < len(r.pos) && r.pos[at].file != number {
		at++
	}
	index = r.first + uint64(at)
	for size := 0; at < len(r.pos) && r.pos[at].file == number && size < limit; at++ {
		run = append(run, r.pos[at])
		size += int(r.pos[at].length)
	}
	return index, run
}

// moveRun copies one run. Entries dropped or replaced since the run was looked up are left out by leaving out the run;
// what is still live of it is found again by the next look.
func (l *Log) moveRun(e *encoder, f *file, r *replica, index uint64, run []position) (int64, error) {
	items := make([][]byte, len(run))
	var size int64
	for i, p := range run {
		item, err := readItem(f, p)
		if err != nil {
			return 0, err
		}
		items[i] = item
		size += int64(len(item))
	}
	e.reset()
	c := change{flags: flagMoved, shardID: r.id.ShardID, replicaID: r.id.ReplicaID, index: index}
	if !e.update(c, nil, items) {
		return 0, ErrTooLarge
	}
	l.wmu.Lock()
	defer l.wmu.Unlock()
	r.mu.RLock()
	same := index >= r.first && index+uint64(len(run)) <= r.next()
	for i := 0; same && i < len(run); i++ {
		same = r.pos[index-r.first+uint64(i)] == run[i]
	}
	r.mu.RUnlock()
	if !same {
		return 0, nil
	}
	_, err := l.write(e)
	return size, err
}

// readItem reads and checks one item of f and returns it with its header, unmasked.
func readItem(f *file, p position) ([]byte, error) {
	item := make([]byte, itemHeaderBytes+int(p.length))
	if _, err := f.h.ReadAt(item, int64(p.off)); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if err := unmaskItem(f, item, p); err != nil {
		return nil, err
	}
	return item, nil
}
