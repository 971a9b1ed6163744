package raftlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	pb "github.com/lni/dragonboat/v4/raftpb"
)

const (
	readBytes = 1 << 20 // of entries read at once
	readGap   = 4 << 10 // bytes between two entries that are cheaper to read than to skip
)

// run is a range of entries of one file that is read with one call.
type run struct {
	file *file // with a reference
	pos  []position
}

// readable returns the positions of entries from low on, below high, that lie in one file close to each other and hold
// about budget bytes; an empty run says that there is no entry low. It takes a reference to the file.
func (r *replica) readable(t *fileTable, low, high, budget uint64, buf []position) run {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if low < r.low() || low >= r.next() {
		return run{}
	}
	pos := r.pos[low-r.first : min(high, r.next())-r.first]
	n, size := 1, uint64(pos[0].length)
	for ; n < len(pos) && size <= min(budget, readBytes); n++ {
		last, p := pos[n-1], pos[n]
		end := last.off + itemHeaderBytes + last.length
		if p.file != last.file || p.off < end || p.off-end > readGap {
			break
		}
		size += uint64(p.length)
	}
	return run{file: t.acquire(pos[0].file), pos: append(buf[:0], pos[:n]...)}
}

// unmaskItem verifies the item read from position p of f and replaces its checksum by the unmasked one.
func unmaskItem(f *file, item []byte, p position) error {
	sum := binary.LittleEndian.Uint32(item[4:]) ^ mask(f.seed, int64(p.off))
	if binary.LittleEndian.Uint32(item) != p.length || sum != itemSum(item) {
		return f.corrupt(int64(p.off), fmt.Errorf("%w: an entry fails its checksum", errInvalid))
	}
	binary.LittleEndian.PutUint32(item[4:], sum)
	return nil
}

// read appends the run's entries to ents until their size exceeds maxSize. The commands share one new buffer that
// nobody writes again.
func (r run) read(ents []pb.Entry, size, index, maxSize uint64) ([]pb.Entry, uint64, error) {
	first, last := r.pos[0], r.pos[len(r.pos)-1]
	buf := make([]byte, int(last.off-first.off)+itemHeaderBytes+int(last.length))
	if n, err := r.file.h.ReadAt(buf, int64(first.off)); err != nil && !(errors.Is(err, io.EOF) && n == len(buf)) {
		return nil, 0, fmt.Errorf("mosaik: raft log cannot read %s at %d: %w", r.file.name(), first.off, err)
	}
	for i, p := range r.pos {
		item := buf[p.off-first.off:][:itemHeaderBytes+int(p.length)]
		if err := unmaskItem(r.file, item, p); err != nil {
			return nil, 0, err
		}
		e, err := decodeEntry(item[itemHeaderBytes:])
		if err != nil || e.Index != index+uint64(i) {
			return nil, 0, r.file.corrupt(int64(p.off), fmt.Errorf("%w: not entry %d", errInvalid, index+uint64(i)))
		}
		ents = append(ents, e)
		if size += uint64(e.SizeUpperLimit()); size > maxSize {
			break
		}
	}
	return ents, size, nil
}

// IterateEntries implements raftio.ILogDB: it appends the entries [low, high) to ents as far as they are there, stopping
// after the one that lifts size above maxSize, so that at least one entry is returned if low is there. The commands of
// the entries belong to the caller.
func (l *Log) IterateEntries(ents []pb.Entry, size, shardID, replicaID, low, high, maxSize uint64) ([]pb.Entry, uint64, error) {
	if err := l.enter(); err != nil {
		return nil, 0, err
	}
	defer l.leave()
	r := l.replicas.get(shardID, replicaID)
	if r == nil {
		return ents, size, nil
	}
	var positions []position
	for low < high {
		var budget uint64
		if maxSize > size {
			budget = maxSize - size
		}
		run := r.readable(&l.files, low, high, budget, positions)
		if run.file == nil {
			break
		}
		positions = run.pos
		n := len(ents)
		var err error
		ents, size, err = run.read(ents, size, low, maxSize)
		run.file.release()
		if err != nil {
			return nil, 0, err
		}
		low += uint64(len(ents) - n)
		if size > maxSize {
			break
		}
	}
	return ents, size, nil
}
