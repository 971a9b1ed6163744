package raftlog

import (
	"encoding/binary"
	"errors"
	"hash/crc32"

	pb "github.com/lni/dragonboat/v4/raftpb"
)

// The numbers of the format. They may only grow; docs/format/raftlog.md repeats them and a test compares the two.
const (
	formatVersion   = 1
	magic           = "mosaikrl"
	headerBytes     = 16
	itemHeaderBytes = 8
	openMetaBytes   = 36
	maxMetaBytes    = 512
	maxRecordBytes  = 1 << 30
	maxFileBytes    = 1 << 30
	minFileBytes    = 1 << 14
)

// recordType says what a record is. The numbers are on disk and are never used again for anything else.
type recordType uint8

const (
	recordOpen   recordType = 1 // first record of a file: identity of the file and the state of every replica
	recordUpdate recordType = 2 // a change of one replica
	recordClosed recordType = 3 // the log was closed in order; no bytes follow
)

// String returns the name of the type used in docs/format/raftlog.md.
func (t recordType) String() string {
	switch t {
	case recordOpen:
		return "open"
	case recordUpdate:
		return "update"
	case recordClosed:
		return "closed"
	}
	return "unknown"
}

// The flags of an update record, applied in the order reset, clear, state, bootstrap, snapshot, first, entries.
const (
	flagState     uint8 = 1 << 0 // meta holds term, vote and commit
	flagBootstrap uint8 = 1 << 1 // an item holds the bootstrap
	flagSnapshot  uint8 = 1 << 2 // an item holds the snapshot's metadata
	flagReset     uint8 = 1 << 3 // everything known of the replica is forgotten first
	flagClear     uint8 = 1 << 4 // all entries are dropped first
	flagFirst     uint8 = 1 << 5 // meta holds the first index kept; entries below it are dropped
	flagMoved     uint8 = 1 << 6 // the entries are copies of live ones, which now live here
)

// errInvalid says that the bytes looked at are not a record of this file at this offset. Whether that is the end of the
// log or damage is for the caller to decide.
var errInvalid = errors.New("mosaik: not a valid raft log record")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// fileSeed folds what makes one incarnation of a file different from every other: its number and its random salt.
func fileSeed(number uint32, salt uint64) uint64 {
	return salt ^ uint64(number)*0x9E3779B97F4A7C15
}

// mask returns the value every checksum stored at offset off of the file is XORed with. A checksum is so tied to its
// file and its place, yet can be computed before the place is known.
func mask(seed uint64, off int64) uint32 {
	x := seed + uint64(off)*0x9E3779B97F4A7C15
	x ^= x >> 32
	x *= 0xD6E8FEB86659FD93
	x ^= x >> 32
	return uint32(x)
}

// span is one item inside a buffer of records: the offset of its header and the length of its data.
type span struct {
	off    int
	length int
}

// change is what one update record does to its replica. The same value is built when a record is written and when it is
// recovered, so that both go through replica.apply.
type change struct {
	flags     uint8
	shardID   uint64
	replicaID uint64
	state     pb.State
	first     uint64
	bootstrap []byte // encoded pb.Bootstrap
	snapshot  []byte // encoded pb.Snapshot
	snapIndex uint64
	index     uint64 // index of the first entry
	entries   []span // offsets of the entries, relative to the record's buffer or file
}

// pendingRecord is a record in an encoder's buffer, not yet placed in a file.
type pendingRecord struct {
	start, end int
	update     bool
	spans      [2]int // range in encoder.spans
	change     change
}

// encoder collects records in one buffer. It is reused; nothing in it survives reset.
type encoder struct {
	buf   []byte
	recs  []pendingRecord
	spans []span
}

// maxKeptEncoderBytes bounds the buffer an idle encoder holds on to.
const maxKeptEncoderBytes = 4 << 20

func (e *encoder) reset() {
	if cap(e.buf) > maxKeptEncoderBytes {
		e.buf = nil
	}
	e.buf = e.buf[:0]
	clear(e.recs)
	e.recs = e.recs[:0]
	e.spans = e.spans[:0]
}

// beginRecord appends a header and returns the offset where the record starts.
func (e *encoder) beginRecord(t recordType, flags uint8) int {
	start := len(e.buf)
	e.buf = append(e.buf, make([]byte, headerBytes)...)
	e.buf[start+4] = byte(t)
	e.buf[start+5] = flags
	return start
}

// endMeta notes that the bytes since the header are the meta of the record at start.
func (e *encoder) endMeta(start int) {
	binary.LittleEndian.PutUint16(e.buf[start+6:], uint16(len(e.buf)-start-headerBytes))
}

// endRecord fixes the record's length. False means that the record is too large for the format.
func (e *encoder) endRecord(start int) bool {
	n := len(e.buf) - start - headerBytes
	if n > maxRecordBytes {
		return false
	}
	binary.LittleEndian.PutUint32(e.buf[start:], uint32(n))
	return true
}

func (e *encoder) beginItem() int {
	start := len(e.buf)
	e.buf = append(e.buf, make([]byte, itemHeaderBytes)...)
	return start
}

// endItem fixes length and checksum of the item at start. The checksum lacks its mask until place.
func (e *encoder) endItem(start int) {
	item := e.buf[start:]
	binary.LittleEndian.PutUint32(item, uint32(len(item)-itemHeaderBytes))
	binary.LittleEndian.PutUint32(item[4:], itemSum(item))
}

// itemSum is the unmasked checksum of an item, over its length and its data.
func itemSum(item []byte) uint32 {
	sum := crc32.Update(0, castagnoli, item[:4])
	return crc32.Update(sum, castagnoli, item[itemHeaderBytes:])
}

func (e *encoder) appendItem(data []byte) {
	start := e.beginItem()
	e.buf = append(e.buf, data...)
	e.endItem(start)
}

// update appends one update record: c describes everything but the entries, which come from ents (encoded here) or from
// raw (items already encoded, header included and unmasked). False means that the record is too large.
func (e *encoder) update(c change, ents []pb.Entry, raw [][]byte) bool {
	start := e.beginRecord(recordUpdate, c.flags)
	e.buf = binary.AppendUvarint(e.buf, c.shardID)
	e.buf = binary.AppendUvarint(e.buf, c.replicaID)
	if c.flags&flagState != 0 {
		e.buf = appendState(e.buf, c.state)
	}
	if c.flags&flagFirst != 0 {
		e.buf = binary.AppendUvarint(e.buf, c.first)
	}
	e.buf = binary.AppendUvarint(e.buf, uint64(len(ents)+len(raw)))
	if len(ents)+len(raw) > 0 {
		e.buf = binary.AppendUvarint(e.buf, c.index)
	}
	e.endMeta(start)
	if c.flags&flagBootstrap != 0 {
		e.appendItem(c.bootstrap)
	}
	if c.flags&flagSnapshot != 0 {
		e.appendItem(c.snapshot)
	}
	from := len(e.spans)
	for i := range ents {
		at := e.beginItem()
		e.buf = appendEntry(e.buf, &ents[i])
		e.endItem(at)
		e.spans = append(e.spans, span{at, len(e.buf) - at - itemHeaderBytes})
	}
	for _, item := range raw {
		at := len(e.buf)
		e.buf = append(e.buf, item...)
		e.spans = append(e.spans, span{at, len(item) - itemHeaderBytes})
	}
	if !e.endRecord(start) {
		return false
	}
	e.recs = append(e.recs, pendingRecord{
		start: start, end: len(e.buf), update: true, spans: [2]int{from, len(e.spans)}, change: c,
	})
	return true
}

// closed appends the record that ends a log closed in order.
func (e *encoder) closed() {
	start := e.beginRecord(recordClosed, 0)
	e.endMeta(start)
	e.endRecord(start)
	e.recs = append(e.recs, pendingRecord{start: start, end: len(e.buf)})
}

// openInfo is the meta of an open record.
type openInfo struct {
	version uint32
	number  uint32
	salt    uint64
	// prevEnd is the length of the valid part of the file before this one. It was synced before this file was created:
	// damage below it is corruption, bytes above it are the remains of a crash.
	prevEnd  int64
	replicas uint32
}

// open appends an open record without its replicas.
func (e *encoder) open(o openInfo) int {
	start := e.beginRecord(recordOpen, 0)
	e.buf = append(e.buf, magic...)
	e.buf = binary.LittleEndian.AppendUint32(e.buf, o.version)
	e.buf = binary.LittleEndian.AppendUint32(e.buf, o.number)
	e.buf = binary.LittleEndian.AppendUint64(e.buf, o.salt)
	e.buf = binary.LittleEndian.AppendUint64(e.buf, uint64(o.prevEnd))
	e.buf = binary.LittleEndian.AppendUint32(e.buf, o.replicas)
	e.endMeta(start)
	return start
}

func decodeOpen(meta []byte) (openInfo, error) {
	if len(meta) != openMetaBytes || string(meta[:8]) != magic {
		return openInfo{}, errInvalid
	}
	return openInfo{
		version:  binary.LittleEndian.Uint32(meta[8:]),
		number:   binary.LittleEndian.Uint32(meta[12:]),
		salt:     binary.LittleEndian.Uint64(meta[16:]),
		prevEnd:  int64(binary.LittleEndian.Uint64(meta[24:])),
		replicas: binary.LittleEndian.Uint32(meta[32:]),
	}, nil
}

// place gives a record its place in a file: synced is the offset below which the file is known to be durable, and all
// checksums get the mask of their offset. A record is placed exactly once.
func place(rec []byte, seed uint64, off int64, synced int64) {
	binary.LittleEndian.PutUint32(rec[8:], uint32(synced))
	meta := int(binary.LittleEndian.Uint16(rec[6:]))
	binary.LittleEndian.PutUint32(rec[12:], headerSum(rec[:headerBytes+meta])^mask(seed, off))
	for at := headerBytes + meta; at < len(rec); {
		sum := binary.LittleEndian.Uint32(rec[at+4:])
		binary.LittleEndian.PutUint32(rec[at+4:], sum^mask(seed, off+int64(at)))
		at += itemHeaderBytes + int(binary.LittleEndian.Uint32(rec[at:]))
	}
}

// headerSum is the unmasked checksum of a record's header and meta.
func headerSum(b []byte) uint32 {
	sum := crc32.Update(0, castagnoli, b[:12])
	return crc32.Update(sum, castagnoli, b[headerBytes:])
}

// header is the decoded fixed part of a record.
type header struct {
	length int
	typ    recordType
	flags  uint8
	meta   int
	synced int64
}

// decodeHeader decodes the fixed part; false means that no record starts with these bytes.
func decodeHeader(b []byte) (header, bool) {
	h := header{
		length: int(binary.LittleEndian.Uint32(b)),
		typ:    recordType(b[4]),
		flags:  b[5],
		meta:   int(binary.LittleEndian.Uint16(b[6:])),
		synced: int64(binary.LittleEndian.Uint32(b[8:])),
	}
	ok := h.typ >= recordOpen && h.typ <= recordClosed && h.meta <= maxMetaBytes && h.meta <= h.length &&
		h.length <= maxRecordBytes
	return h, ok
}

// cursor reads uvarints and byte strings; after a failed read bad is set and everything read is zero.
type cursor struct {
	b   []byte
	bad bool
}

func (c *cursor) uvarint() uint64 {
	v, n := binary.Uvarint(c.b)
	if n <= 0 {
		c.bad, c.b = true, nil
		return 0
	}
	c.b = c.b[n:]
	return v
}

func (c *cursor) bytes() []byte {
	n := c.uvarint()
	if n > uint64(len(c.b)) {
		c.bad, c.b = true, nil
		return nil
	}
	b := c.b[:n]
	c.b = c.b[n:]
	return b
}

func appendState(dst []byte, s pb.State) []byte {
	dst = binary.AppendUvarint(dst, s.Term)
	dst = binary.AppendUvarint(dst, s.Vote)
	return binary.AppendUvarint(dst, s.Commit)
}

func (c *cursor) state() pb.State {
	return pb.State{Term: c.uvarint(), Vote: c.uvarint(), Commit: c.uvarint()}
}

// decodeUpdate decodes the meta of an update record; items are handled by the caller.
func decodeUpdate(flags uint8, meta []byte) (c change, entries uint64, err error) {
	cur := cursor{b: meta}
	c.flags = flags
	c.shardID = cur.uvarint()
	c.replicaID = cur.uvarint()
	if flags&flagState != 0 {
		c.state = cur.state()
	}
	if flags&flagFirst != 0 {
		c.first = cur.uvarint()
	}
	entries = cur.uvarint()
	if entries > 0 {
		c.index = cur.uvarint()
	}
	if cur.bad || len(cur.b) != 0 || flags&^(flagMoved<<1-1) != 0 {
		return change{}, 0, errInvalid
	}
	return c, entries, nil
}

// appendEntry appends the encoding of a Raft entry: seven uvarints and the command.
func appendEntry(dst []byte, e *pb.Entry) []byte {
	dst = binary.AppendUvarint(dst, e.Term)
	dst = binary.AppendUvarint(dst, e.Index)
	dst = binary.AppendUvarint(dst, uint64(uint32(e.Type)))
	dst = binary.AppendUvarint(dst, e.Key)
	dst = binary.AppendUvarint(dst, e.ClientID)
	dst = binary.AppendUvarint(dst, e.SeriesID)
	dst = binary.AppendUvarint(dst, e.RespondedTo)
	return append(dst, e.Cmd...)
}

// decodeEntry decodes an entry. Its Cmd is a slice of b with no spare capacity.
func decodeEntry(b []byte) (pb.Entry, error) {
	c := cursor{b: b}
	e := pb.Entry{Term: c.uvarint(), Index: c.uvarint()}
	typ := c.uvarint()
	e.Type = pb.EntryType(int32(uint32(typ)))
	e.Key = c.uvarint()
	e.ClientID = c.uvarint()
	e.SeriesID = c.uvarint()
	e.RespondedTo = c.uvarint()
	if c.bad || typ > 1<<32-1 {
		return pb.Entry{}, errInvalid
	}
	if len(c.b) > 0 {
		e.Cmd = c.b[:len(c.b):len(c.b)]
	}
	return e, nil
}

// replicaState is what an open record says of one replica.
type replicaState struct {
	shardID, replicaID  uint64
	state               pb.State
	first, count        uint64
	bootstrap, snapshot []byte
}

func appendReplicaState(dst []byte, s replicaState) []byte {
	dst = binary.AppendUvarint(dst, s.shardID)
	dst = binary.AppendUvarint(dst, s.replicaID)
	dst = appendState(dst, s.state)
	dst = binary.AppendUvarint(dst, s.first)
	dst = binary.AppendUvarint(dst, s.count)
	dst = binary.AppendUvarint(dst, uint64(len(s.bootstrap)))
	dst = append(dst, s.bootstrap...)
	dst = binary.AppendUvarint(dst, uint64(len(s.snapshot)))
	return append(dst, s.snapshot...)
}

// decodeReplicaState decodes s; its byte slices are copies.
func decodeReplicaState(b []byte) (replicaState, error) {
	c := cursor{b: b}
	s := replicaState{shardID: c.uvarint(), replicaID: c.uvarint(), state: c.state(), first: c.uvarint(), count: c.uvarint()}
	s.bootstrap = append([]byte(nil), c.bytes()...)
	s.snapshot = append([]byte(nil), c.bytes()...)
	if c.bad || len(c.b) != 0 || s.count > 1<<40 {
		return replicaState{}, errInvalid
	}
	return s, nil
}
