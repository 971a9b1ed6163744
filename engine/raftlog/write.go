package raftlog

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// The way of a write, in order: commit -> write -> (rotate) -> place -> writeAt -> apply -> syncTo.

// tail is the file being written, guarded by the write mutex Log.wmu.
type tail struct {
	*file
	last uint32 // number of the newest file, also when file is nil
	end  int64  // length of the newest file, also when file is nil
}

// syncState is the group commit. Invariants, under mu: synced <= written; everything up to written lies in file below
// off or in an older file that was synced before file was begun; busy means that one goroutine is inside SyncData.
type syncState struct {
	mu      sync.Mutex
	done    sync.Cond
	written uint64 // writes made so far
	synced  uint64 // writes known to be durable
	file    *file
	off     int64
	busy    bool
	err     error // sticky: after a failed write or sync nothing is acknowledged any more
}

// fail makes err the fate of every later write and returns what callers get.
func (l *Log) fail(op string, err error) error {
	l.sync.mu.Lock()
	defer l.sync.mu.Unlock()
	if l.sync.err == nil {
		l.sync.err = fmt.Errorf("mosaik: raft log cannot %s, nothing more is written: %w", op, err)
		l.opts.Logger.Error("raft log failed", "op", op, "err", err)
	}
	l.sync.done.Broadcast()
	return l.sync.err
}

func (l *Log) failure() error {
	l.sync.mu.Lock()
	defer l.sync.mu.Unlock()
	return l.sync.err
}

// commit writes the records of e and, if durable is set, waits until they are on disk.
func (l *Log) commit(e *encoder, durable bool) error {
	if len(e.recs) == 0 {
		return nil
	}
	l.wmu.Lock()
	number, err := l.write(e)
	l.wmu.Unlock()
	if err != nil || !durable {
		return err
	}
	return l.syncTo(number)
}

// write places the records of e, as many in one file write as fit, and applies them. It returns the number of the last
// write. REQUIRES: wmu.
func (l *Log) write(e *encoder) (uint64, error) {
	if err := l.failure(); err != nil {
		return 0, err
	}
	var number uint64
	for i := 0; i < len(e.recs); {
		base, room, j := e.recs[i].start, l.room(), i
		for j < len(e.recs) && int64(e.recs[j].end-base) <= room {
			j++
		}
		if j == i {
			if l.tail.file == nil || l.tail.off.Load() != l.tail.openBytes {
				if err := l.rotate(); err != nil {
					return 0, err
				}
				continue
			}
			j = i + 1 // larger than any file: it gets this one for itself
		}
		var err error
		if number, err = l.writeRecords(e, i, j); err != nil {
			return 0, err
		}
		i = j
	}
	return number, nil
}

// room returns how many bytes ordinary records may still take of the current file; the rest is kept for trims and the
// closed record, so that compaction can go on when no further file can be had. REQUIRES: wmu.
func (l *Log) room() int64 {
	if l.tail.file == nil {
		return 0
	}
	return l.opts.FileBytes - l.reserve - l.tail.off.Load()
}

// writeRecords writes the records [i, j) of e at the tail and applies them. REQUIRES: wmu.
func (l *Log) writeRecords(e *encoder, i, j int) (uint64, error) {
	f := l.tail.file
	off, synced := f.off.Load(), f.synced.Load()
	base := e.recs[i].start
	for k := i; k < j; k++ {
		rec := &e.recs[k]
		place(e.buf[rec.start:rec.end], f.seed, off+int64(rec.start-base), synced)
	}
	buf := e.buf[base:e.recs[j-1].end]
	if err := l.writeAt(f.h, buf, off); err != nil {
		return 0, err
	}
	end := off + int64(len(buf))
	f.off.Store(end)
	l.tail.end = end
	l.counters.bytesWritten.Add(int64(len(buf)))

	// The number is given before the records are applied: who sees an entry gone and then reads written gets a number
	// that covers the record which dropped it. reclaim relies on that.
	l.sync.mu.Lock()
	l.sync.written++
	number := l.sync.written
	l.sync.file, l.sync.off = f, end
	l.sync.mu.Unlock()

	for k := i; k < j; k++ {
		rec := &e.recs[k]
		if !rec.update {
			continue
		}
		rec.change.entries = e.spans[rec.spans[0]:rec.spans[1]]
		for s := range rec.change.entries {
			rec.change.entries[s].off += int(off) - base
		}
		l.applyChange(&rec.change, f.number)
	}
	return number, nil
}

// writeAt writes buf at off. Without space it waits for space or for Close: the caller of SaveRaftState would take an
// error for the end of the process. Any other error is final. REQUIRES: wmu.
func (l *Log) writeAt(h vfs.File, buf []byte, off int64) error {
	for {
		_, err := h.WriteAt(buf, off)
		if err == nil {
			l.writerSpace(nil)
			return nil
		}
		if !isNoSpace(err) {
			return l.fail("write", err)
		}
		l.writerSpace(err)
		if err := l.pause(); err != nil {
			return err
		}
	}
}

// pause waits until space is worth another try.
func (l *Log) pause() error {
	l.counters.blocked.Store(true)
	defer l.counters.blocked.Store(false)
	timer := time.NewTimer(l.opts.SpaceRetry)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-l.closing:
		return ErrClosed
	}
}

// syncTo returns when write number is durable. Callers that wait at the same time share one SyncData: whoever finds
// none under way does the next one for all that was written until then.
func (l *Log) syncTo(number uint64) error {
	s := &l.sync
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.synced < number {
		if s.err != nil {
			return s.err
		}
		if s.busy {
			s.done.Wait()
			continue
		}
		s.busy = true
		f, off, upTo := s.file, s.off, s.written
		f.refs.Add(1)
		s.mu.Unlock()

		start := time.Now()
		err := f.h.SyncData()
		l.counters.synced(time.Since(start))
		f.release()
		if err != nil {
			err = l.fail("sync", err)
		} else {
			// Only moves up: the file may have been synced further meanwhile, when it was left for a new one.
			for old := f.synced.Load(); old < off && !f.synced.CompareAndSwap(old, off); old = f.synced.Load() {
			}
		}

		s.mu.Lock()
		s.busy = false
		if err == nil {
			s.synced = max(s.synced, upTo)
		}
		s.done.Broadcast()
	}
	return nil
}

// writtenNumber returns the number of the last write.
func (l *Log) writtenNumber() uint64 {
	l.sync.mu.Lock()
	defer l.sync.mu.Unlock()
	return l.sync.written
}

// rotate makes a new file the tail. Nothing unsynced is left behind, and the new file gets its name only when its open
// record is durable, so that a log file without a valid open record is always damage and never a crash. REQUIRES: wmu.
func (l *Log) rotate() error {
	if err := l.syncTo(l.writtenNumber()); err != nil {
		return err
	}
	sp, err := l.nextSpare()
	if err != nil {
		return err
	}
	// nextSpare may have written trims.
	if err := l.syncTo(l.writtenNumber()); err != nil {
		return err
	}
	salt := rand.Uint64()
	number := l.tail.last + 1
	f := &file{number: number, seed: fileSeed(number, salt), h: sp.h, size: sp.size, prevEnd: l.tail.end}
	rec, replicas, states := l.encodeOpen(openInfo{
		version: formatVersion, number: number, salt: salt, prevEnd: l.tail.end,
	})
	place(rec, f.seed, 0, 0)
	for {
		if err = l.publish(sp, f, rec); err == nil {
			break
		}
		if !isNoSpace(err) {
			return l.fail("begin a file", err)
		}
		l.writerSpace(err)
		if err := l.pause(); err != nil {
			l.pool.add(sp)
			return err
		}
	}
	l.writerSpace(nil)
	if err := l.dir.Sync(); err != nil {
		return l.fail("sync the directory", err)
	}
	f.openBytes = int64(len(rec))
	f.off.Store(f.openBytes)
	f.synced.Store(f.openBytes)
	f.refs.Store(1)
	f.size = max(f.size, f.openBytes)
	l.counters.bytesWritten.Add(f.openBytes)
	l.files.add(f)
	l.tail = tail{file: f, last: number, end: f.openBytes}
	l.sync.mu.Lock()
	l.sync.written++
	l.sync.synced = l.sync.written
	l.sync.file, l.sync.off = f, f.openBytes
	l.sync.mu.Unlock()
	// The pending trims are part of the open record now.
	for i, r := range replicas {
		r.apply(&l.files, &change{flags: flagFirst, first: states[i].first}, number)
	}
	poke(l.wakeSpares)
	poke(l.wakeMover)
	return nil
}

// publish writes the open record into the spare, makes it durable and gives the file its name.
func (l *Log) publish(sp *spare, f *file, rec []byte) error {
	if _, err := sp.h.WriteAt(rec, 0); err != nil {
		return err
	}
	if err := sp.h.Sync(); err != nil {
		return err
	}
	return l.fs.Rename(l.path(sp.name), l.path(f.name()))
}

// encodeOpen returns an unplaced open record with the state of every replica, and what it says of which.
func (l *Log) encodeOpen(o openInfo) ([]byte, []*replica, []replicaState) {
	replicas := l.replicas.all()
	states := make([]replicaState, len(replicas))
	o.replicas = uint32(len(replicas))
	var e encoder
	e.open(o)
	for i, r := range replicas {
		states[i] = r.checkpoint()
		at := e.beginItem()
		e.buf = appendReplicaState(e.buf, states[i])
		e.endItem(at)
	}
	binary.LittleEndian.PutUint32(e.buf, uint32(len(e.buf)-headerBytes))
	return e.buf, replicas, states
}

// nextSpare takes a prepared file, or waits for one. While it waits it logs pending trims in the reserve of the current
// file, so that compaction alone can free the space a writer waits for. REQUIRES: wmu.
func (l *Log) nextSpare() (*spare, error) {
	_, tries, _ := l.pool.state()
	for {
		if sp := l.pool.take(); sp != nil {
			poke(l.wakeSpares)
			return sp, nil
		}
		if _, now, err := l.pool.state(); err != nil && now > tries && !isNoSpace(err) {
			return nil, fmt.Errorf("mosaik: raft log cannot prepare a file: %w", err)
		}
		if err := l.flushTrims(); err != nil {
			return nil, err
		}
		poke(l.wakeSpares)
		l.counters.blocked.Store(true)
		select {
		case <-l.pool.ready:
		case <-l.trimmed:
		case <-l.closing:
			l.counters.blocked.Store(false)
			return nil, ErrClosed
		}
		l.counters.blocked.Store(false)
	}
}

// flushTrims logs pending trims as far as they fit into the current file. REQUIRES: wmu.
func (l *Log) flushTrims() error {
	if l.tail.file == nil {
		return nil
	}
	var e encoder
	room := l.opts.FileBytes - l.tail.off.Load()
	for _, r := range l.replicas.all() {
		c := r.deferred()
		if c.flags&flagFirst == 0 {
			continue
		}
		e.update(c, nil, nil)
		if int64(len(e.buf)) > room {
			e.recs = e.recs[:len(e.recs)-1]
			break
		}
	}
	if len(e.recs) == 0 {
		return nil
	}
	_, err := l.writeRecords(&e, 0, len(e.recs))
	return err
}
