package raftlog

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"
	pb "github.com/lni/dragonboat/v4/raftpb"
)

// window reads a file in large pieces and hands out slices of it, good until the next call.
type window struct {
	h    io.ReaderAt
	size int64
	buf  []byte
	off  int64
	n    int
}

const windowBytes = 1 << 20

// at returns the n bytes at off, or errInvalid if the file ends before.
func (w *window) at(off int64, n int) ([]byte, error) {
	if off+int64(n) > w.size {
		return nil, errInvalid
	}
	if off < w.off || off+int64(n) > w.off+int64(w.n) {
		want := int(min(int64(max(n, windowBytes)), w.size-off))
		if cap(w.buf) < want {
			w.buf = make([]byte, want)
		}
		got, err := w.h.ReadAt(w.buf[:want], off)
		if err != nil && !(errors.Is(err, io.EOF) && got == want) {
			w.n = 0
			return nil, fmt.Errorf("mosaik: raft log cannot read: %w", err)
		}
		w.off, w.n = off, want
	}
	return w.buf[off-w.off:][:n], nil
}

// record is a record found in a file, all its checksums verified.
type record struct {
	header
	off  int64
	info []byte // meta, a copy
	item []span // absolute offsets of the item headers
}

func (r *record) end() int64 { return r.off + headerBytes + int64(r.length) }

// readRecord reads and verifies the record at off. rec is reused. errInvalid means that there is none.
func (w *window) readRecord(rec *record, seed uint64, off, limit int64) error {
	if err := w.readHeader(rec, seed, off); err != nil {
		return err
	}
	if rec.end() > limit {
		return errInvalid
	}
	rec.item = rec.item[:0]
	for at := off + headerBytes + int64(rec.meta); at < rec.end(); {
		if rec.end()-at < itemHeaderBytes {
			return errInvalid
		}
		head, err := w.at(at, itemHeaderBytes)
		if err != nil {
			return err
		}
		length := int64(binary.LittleEndian.Uint32(head))
		if at+itemHeaderBytes+length > rec.end() {
			return errInvalid
		}
		item, err := w.at(at, itemHeaderBytes+int(length))
		if err != nil {
			return err
		}
		if itemSum(item)^mask(seed, at) != binary.LittleEndian.Uint32(item[4:]) {
			return errInvalid
		}
		rec.item = append(rec.item, span{int(at), int(length)})
		at += itemHeaderBytes + length
	}
	return nil
}

// readHeader reads and verifies header and meta of the record at off.
func (w *window) readHeader(rec *record, seed uint64, off int64) error {
	b, err := w.at(off, headerBytes)
	if err != nil {
		return err
	}
	h, ok := decodeHeader(b)
	if !ok || h.synced > off {
		return errInvalid
	}
	b, err = w.at(off, headerBytes+h.meta)
	if err != nil {
		return err
	}
	if headerSum(b)^mask(seed, off) != binary.LittleEndian.Uint32(b[12:]) {
		return errInvalid
	}
	rec.header, rec.off = h, off
	rec.info = append(rec.info[:0], b[headerBytes:]...)
	return nil
}

// readOpen reads the open record of a file and what it says of the replicas.
func (w *window) readOpen(rec *record, number uint32) (openInfo, []replicaState, error) {
	b, err := w.at(0, headerBytes+openMetaBytes)
	if err != nil {
		return openInfo{}, nil, err
	}
	o, err := decodeOpen(b[headerBytes:])
	if err != nil {
		return openInfo{}, nil, err
	}
	if o.version > formatVersion {
		return o, nil, fmt.Errorf("%w: version %d, this is %d", ErrNewerFormat, o.version, formatVersion)
	}
	if err := w.readRecord(rec, fileSeed(o.number, o.salt), 0, w.size); err != nil {
		return o, nil, err
	}
	if rec.typ != recordOpen || o.version == 0 || o.number != number || int(o.replicas) != len(rec.item) {
		return o, nil, errInvalid
	}
	states := make([]replicaState, len(rec.item))
	for i, s := range rec.item {
		b, err := w.at(int64(s.off)+itemHeaderBytes, s.length)
		if err != nil {
			return o, nil, err
		}
		if states[i], err = decodeReplicaState(b); err != nil {
			return o, nil, err
		}
	}
	return o, states, nil
}

// readChange decodes an update record: flags, meta and the bootstrap and snapshot among its items.
func (w *window) readChange(rec *record) (change, error) {
	c, entries, err := decodeUpdate(rec.flags, rec.info)
	if err != nil {
		return c, err
	}
	items := rec.item
	next := func() ([]byte, error) {
		if len(items) == 0 {
			return nil, errInvalid
		}
		b, err := w.at(int64(items[0].off)+itemHeaderBytes, items[0].length)
		items = items[1:]
		return append([]byte(nil), b...), err
	}
	if c.flags&flagBootstrap != 0 {
		if c.bootstrap, err = next(); err != nil {
			return c, err
		}
	}
	if c.flags&flagSnapshot != 0 {
		if c.snapshot, err = next(); err != nil {
			return c, err
		}
		if c.snapIndex, err = snapshotIndex(c.snapshot); err != nil {
			return c, err
		}
	}
	if uint64(len(items)) != entries {
		return c, errInvalid
	}
	c.entries = items
	return c, nil
}

func snapshotIndex(b []byte) (uint64, error) {
	if len(b) == 0 {
		return 0, nil
	}
	var s pb.Snapshot
	if err := s.Unmarshal(b); err != nil {
		return 0, errInvalid
	}
	return s.Index, nil
}

// provenAfter looks for a valid record at or after off that was written when the file was known to be durable beyond
// bad. If there is one, the damage at bad is not the remains of a crash.
func (w *window) provenAfter(seed uint64, bad int64) (int64, bool, error) {
	var rec record
	for off := bad; off+headerBytes <= w.size; {
		b, err := w.at(off, int(min(w.size-off, windowBytes)))
		if err != nil {
			return 0, false, err
		}
		i := provenIn(b, off, bad)
		if i < 0 {
			off += int64(len(b)) - headerBytes + 1
			continue
		}
		off += int64(i)
		switch err := w.readHeader(&rec, seed, off); {
		case err == nil:
			return off, true, nil
		case !errors.Is(err, errInvalid):
			return 0, false, err
		}
		off++
	}
	return 0, false, nil
}

// provenIn returns where in b, which starts at offset off of a file, the first header lies that could prove bad durable.
func provenIn(b []byte, off, bad int64) int {
	for i := 0; i+headerBytes <= len(b); i++ {
		if t := recordType(b[i+4]); t < recordOpen || t > recordClosed {
			continue
		}
		if h, ok := decodeHeader(b[i:]); ok && h.synced > bad && h.synced <= off+int64(i) {
			return i
		}
	}
	return -1
}

// openDir brings the log's directory into memory: files, replicas and spares. Nothing in it is changed but the durability
// of what is there already, and spares that cannot be used are deleted.
func (l *Log) openDir() error {
	names, err := l.fs.List(l.dirPath)
	if err != nil {
		return err
	}
	var numbers []uint32
	for _, name := range names {
		if n, ok := parseName(name, logSuffix); ok {
			numbers = append(numbers, uint32(n))
		} else if n, ok := parseName(name, spareSuffix); ok {
			if n > l.spareNumber.Load() {
				l.spareNumber.Store(n)
			}
			if err := l.openSpare(name); err != nil {
				return err
			}
		}
	}
	slices.Sort(numbers)
	for i, n := range numbers {
		if n != numbers[0]+uint32(i) {
			return &CorruptionError{File: logName(numbers[0] + uint32(i)), Err: errors.New("file is missing")}
		}
		if err := l.openFile(n); err != nil {
			return err
		}
	}
	if err := l.recoverFiles(); err != nil {
		return err
	}
	// What a dead process left in the page cache counts as acknowledged from now on, so it must be durable. All but the
	// newest file were synced before their successor was made.
	if n := len(l.files.list); n > 0 {
		f := l.files.list[n-1]
		if err := f.h.Sync(); err != nil {
			return err
		}
		l.tail = tail{last: f.number, end: f.off.Load()}
	}
	return l.dir.Sync()
}

func (l *Log) openSpare(name string) error {
	h, err := l.fs.OpenReadWrite(l.path(name), vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	info, err := h.Stat()
	if err != nil {
		return errors.Join(err, h.Close())
	}
	n, _, _ := l.pool.state()
	if info.Size() < l.opts.FileBytes || info.Size() > 2*l.opts.FileBytes || n >= keptSpares {
		return errors.Join(h.Close(), l.fs.Remove(l.path(name)))
	}
	l.pool.add(&spare{name: name, h: h, size: info.Size()})
	return nil
}

func (l *Log) openFile(number uint32) error {
	h, err := l.fs.OpenReadWrite(l.path(logName(number)), vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	f := &file{number: number, h: h}
	f.refs.Store(1)
	l.files.add(f)
	info, err := h.Stat()
	if err != nil {
		return err
	}
	f.size = info.Size()
	return nil
}

// corrupt turns errInvalid into a CorruptionError and leaves other errors alone.
func (f *file) corrupt(off int64, err error) error {
	if errors.Is(err, errInvalid) {
		return &CorruptionError{File: f.name(), Offset: off, Err: err}
	}
	return err
}

// recoverFiles replays all files in order.
func (l *Log) recoverFiles() error {
	fs := l.files.list
	states := make([][]replicaState, len(fs))
	var rec record
	for i, f := range fs {
		w := &window{h: f.h, size: f.size}
		o, s, err := w.readOpen(&rec, f.number)
		if err != nil {
			return f.corrupt(0, err)
		}
		f.seed, f.openBytes, f.prevEnd, states[i] = fileSeed(o.number, o.salt), rec.end(), o.prevEnd, s
	}
	for i, f := range fs {
		if err := l.applyOpen(f, states[i], i == 0); err != nil {
			return err
		}
		newest := i+1 == len(fs)
		w := &window{h: f.h, size: f.size}
		if !newest {
			w.size = fs[i+1].prevEnd
		}
		end, closed, err := l.replay(w, f)
		if err != nil {
			return err
		}
		switch {
		case newest && !closed:
			err = l.cutTail(w, f, end)
		case !newest && end != w.size:
			err = f.corrupt(end, errInvalid)
		}
		if err != nil {
			return err
		}
		f.off.Store(end)
		f.synced.Store(end)
	}
	return l.checkComplete()
}

// replay applies the records of f after its open record until the bytes at hand end or are no record. closed says that
// the last one ended the log in order.
func (l *Log) replay(w *window, f *file) (end int64, closed bool, err error) {
	var rec record
	for end = f.openBytes; ; end = rec.end() {
		switch err := w.readRecord(&rec, f.seed, end, w.size); {
		case errors.Is(err, errInvalid):
			return end, closed, nil
		case err != nil:
			return end, closed, err
		}
		// Its checksums are right, so a record that makes no sense was written so: that is never a torn write.
		if err := l.replayRecord(w, f, &rec); err != nil {
			return end, closed, f.corrupt(end, err)
		}
		closed = rec.typ == recordClosed
	}
}

// replayRecord applies one record found in f.
func (l *Log) replayRecord(w *window, f *file, rec *record) error {
	switch rec.typ {
	case recordClosed:
		return nil
	case recordOpen:
		return errInvalid
	}
	c, err := w.readChange(rec)
	if err != nil {
		return err
	}
	l.applyChange(&c, f.number)
	return nil
}

// applyOpen brings the replicas to what an open record says. For the oldest file that is where they come from, their
// entries not found yet; for the others it must agree with what the records before it led to.
func (l *Log) applyOpen(f *file, states []replicaState, oldest bool) error {
	known := make(map[*replica]bool, len(states))
	for _, s := range states {
		r := l.replicas.ensure(s.shardID, s.replicaID)
		known[r] = true
		index, err := snapshotIndex(s.snapshot)
		if err != nil {
			return f.corrupt(0, err)
		}
		c := change{
			flags: flagState | flagBootstrap | flagSnapshot | flagFirst,
			state: s.state, first: s.first, bootstrap: nonEmpty(s.bootstrap), snapshot: nonEmpty(s.snapshot), snapIndex: index,
		}
		if oldest {
			r.first, r.pos = s.first, make([]position, s.count)
		}
		r.apply(&l.files, &c, f.number)
		if r.next() != s.first+s.count {
			return f.corrupt(0, fmt.Errorf("%w: %d.%d has entries up to %d here, up to %d by the records before",
				errInvalid, s.shardID, s.replicaID, s.first+s.count, r.next()))
		}
	}
	for _, r := range l.replicas.all() {
		if !known[r] {
			r.apply(&l.files, &change{flags: flagReset}, f.number)
			l.replicas.remove(r)
		}
	}
	return nil
}

func nonEmpty(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	return b
}

// cutTail decides about the bytes after the last valid record of the newest file: unsynced remains of a crash, which
// are left behind, or damage.
func (l *Log) cutTail(w *window, f *file, end int64) error {
	at, proven, err := w.provenAfter(f.seed, end)
	if err != nil {
		return err
	}
	if proven {
		return f.corrupt(end, fmt.Errorf("%w, but the record at %d was written after it was durable", errInvalid, at))
	}
	return nil
}

// checkComplete verifies that every live entry was found.
func (l *Log) checkComplete() error {
	for _, r := range l.replicas.all() {
		for i, p := range r.pos {
			if p.file == 0 {
				f := l.files.list[0]
				return f.corrupt(0, fmt.Errorf("%w: entry %d of %d.%d lies in an older file, which is missing",
					errInvalid, r.first+uint64(i), r.id.ShardID, r.id.ReplicaID))
			}
		}
	}
	return nil
}

// Check reads every file of the log again and verifies every checksum. It runs beside reads and writes. The error is a
// *CorruptionError if something is damaged.
func (l *Log) Check(ctx context.Context) error {
	if err := l.enter(); err != nil {
		return err
	}
	defer l.leave()
	files := l.files.acquireAll()
	defer func() {
		for _, f := range files {
			f.release()
		}
		poke(l.wakeSpares)
	}()
	for _, f := range files {
		if err := f.check(ctx, l.closing); err != nil {
			return err
		}
	}
	return nil
}

func (f *file) check(ctx context.Context, closing <-chan struct{}) error {
	w := &window{h: f.h, size: f.off.Load()}
	var rec record
	o, _, err := w.readOpen(&rec, f.number)
	if err == nil && fileSeed(o.number, o.salt) != f.seed {
		err = errInvalid
	}
	for off := rec.end(); err == nil && off < w.size; off = rec.end() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-closing:
			return ErrClosed
		default:
		}
		if err = w.readRecord(&rec, f.seed, off, w.size); err == nil && rec.typ == recordUpdate {
			_, err = w.readChange(&rec)
		}
		if err != nil {
			return f.corrupt(off, err)
		}
	}
	return f.corrupt(0, err)
}
