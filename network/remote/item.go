package remote

import (
	"encoding/binary"
	"errors"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

// The answer to a request is a stream of bytes, which the data messages of its channel
// carry, and the stream is made of items: kind 1 | size 4 | content.

// itemKind is what an item is. The numbers are on the wire.
type itemKind byte

const (
	itemStart   itemKind = 1 // what the answer is as of; the first item of every answer but to a write
	itemRun     itemKind = 2 // records
	itemRow     itemKind = 3 // a row of a view
	itemChange  itemKind = 4 // what a commit did to a view, but for the rows
	itemRowWas  itemKind = 5 // what it did to one row
	itemWritten itemKind = 6 // what became of an append or a transaction, but for the results
	itemResult  itemKind = 7 // of one record or command
	itemPeers   itemKind = 8 // who follows a key
)

const (
	itemHeader = 1 + 4
	runPrefix  = 8 + 8 + len(log.Digest{})
	// maxItem bounds an item: the largest run, or change of a row, and what is around it.
	maxItem = log.MaxBody + 4096
	// maxPeers bounds the peers of one item.
	maxPeers = 16384
)

var errItem = errors.New("malformed answer of a remote")

// beginItem appends the header of an item, whose size endItem fills in.
func beginItem(dst []byte, kind itemKind) []byte { return append(dst, byte(kind), 0, 0, 0, 0) }

// endItem ends the item that begins at start.
func endItem(dst []byte, start int) []byte {
	binary.LittleEndian.PutUint32(dst[start+1:], uint32(len(dst)-start-itemHeader))
	return dst
}

// start is the first item of an answer.
type start struct {
	head   log.Head // of the replica, when it began to answer or later
	commit uint64   // of rows: that the view reflects
	from   uint64   // of a scan from the latest record: the seq that means; else 0
	until  uint64   // of a scan that does not follow: its last seq, 0 if there is none
}

func (s *start) appendTo(dst []byte) []byte {
	at := len(dst)
	dst = binary.LittleEndian.AppendUint64(beginItem(dst, itemStart), s.head.Number)
	dst = append(dst, s.head.Digest[:]...)
	for _, n := range []uint64{uint64(s.head.Time), s.commit, s.from, s.until} {
		dst = binary.LittleEndian.AppendUint64(dst, n)
	}
	return endItem(dst, at)
}

func decodeStart(content []byte) (s start, err error) {
	in := parts{rest: content}
	s.head.Number, s.head.Digest, s.head.Time = in.uint64(), log.Digest(in.id()), int64(in.uint64())
	s.commit, s.from, s.until = in.uint64(), in.uint64(), in.uint64()
	if !in.end() || s.commit > s.head.Number {
		return s, errItem
	}
	return s, nil
}

func appendRun(dst []byte, r *log.Run) []byte {
	at := len(dst)
	dst = binary.LittleEndian.AppendUint64(beginItem(dst, itemRun), r.Commit)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(r.Time))
	dst = append(dst, r.Digest[:]...)
	return endItem(r.AppendTo(dst), at)
}

// decodeRun decodes a run, which shares the content's bytes. Every record in it is
// there.
func decodeRun(group identity.ID, content []byte) (log.Run, error) {
	if len(content) < runPrefix {
		return log.Run{}, errItem
	}
	run, end, err := log.NextRun(content[runPrefix:], 0)
	if err != nil || end != len(content)-runPrefix || run.Check() != nil || run.FirstSeq == 0 || run.LastSeq() < run.FirstSeq {
		return log.Run{}, errItem
	}
	run.Group = group
	run.Commit = binary.LittleEndian.Uint64(content)
	run.Time = int64(binary.LittleEndian.Uint64(content[8:]))
	run.Digest = log.Digest(content[16:runPrefix])
	return run, nil
}

func appendRow(dst []byte, r *log.Row) []byte {
	at := len(dst)
	dst = binary.LittleEndian.AppendUint64(beginItem(dst, itemRow), r.Commit)
	return endItem(append(appendBytes(dst, r.Key), r.Value...), at)
}

// decodeRow decodes a row, which shares the content's bytes.
func decodeRow(content []byte) (r log.Row, err error) {
	in := parts{rest: content}
	r.Commit, r.Key, r.Value = in.uint64(), in.bytes(log.MaxRowKey), in.all(log.MaxRowValue)
	if !in.end() {
		return r, errItem
	}
	return r, nil
}

// appendChange appends a change without its rows, whose number it says.
func appendChange(dst []byte, c *log.Changes) []byte {
	at := len(dst)
	dst = binary.LittleEndian.AppendUint64(beginItem(dst, itemChange), c.Pointer.Commit)
	dst = append(dst, c.Pointer.Digest[:]...)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(c.Time))
	cleared := byte(0)
	if c.Cleared {
		cleared = 1
	}
	return endItem(binary.LittleEndian.AppendUint32(append(dst, cleared), uint32(len(c.Rows))), at)
}

// decodeChange decodes a change and the number of rows that follow.
func decodeChange(group identity.ID, content []byte) (c log.Changes, rows int, err error) {
	in := parts{rest: content}
	c.Pointer = log.Pointer{Group: group, Commit: in.uint64(), Digest: log.Digest(in.id())}
	c.Time, c.Cleared = int64(in.uint64()), in.flags(1) != 0
	n := in.uint32()
	if !in.end() || c.Pointer.Commit == 0 || n > maxChanged {
		return c, 0, errItem
	}
	return c, int(n), nil
}

// maxChanged bounds the rows that one commit can change: each takes a byte of its body.
const maxChanged = 8 * log.MaxBody

// What the flags of a changed row say.
const (
	rowExisted = 1
	rowExists  = 2
)

func appendRowWas(dst []byte, c *log.Change) []byte {
	at := len(dst)
	var flags byte
	if c.Existed {
		flags |= rowExisted
	}
	if c.Exists {
		flags |= rowExists
	}
	dst = binary.LittleEndian.AppendUint64(append(beginItem(dst, itemRowWas), flags), c.Before)
	dst = appendBytes(appendBytes(dst, c.Key), c.Old)
	return endItem(append(dst, c.New...), at)
}

// decodeRowWas decodes a changed row and copies its bytes.
func decodeRowWas(content []byte) (c log.Change, err error) {
	in := parts{rest: append([]byte(nil), content...)}
	flags := in.flags(rowExisted | rowExists)
	c.Existed, c.Exists, c.Before = flags&rowExisted != 0, flags&rowExists != 0, in.uint64()
	c.Key, c.Old, c.New = in.bytes(log.MaxRowKey), in.bytes(log.MaxRowValue), in.all(log.MaxRowValue)
	if !in.end() || !c.Existed && len(c.Old) > 0 || !c.Exists && len(c.New) > 0 {
		return c, errItem
	}
	return c, nil
}

// written is what became of an append or a transaction.
type written struct {
	pointer log.Pointer // of it the commit, the digest and the seq are sent
	held    bool        // of a transaction; true of an append
	failed  int         // of a transaction that did not hold
	results int         // how many follow
}

func (w *written) appendTo(dst []byte) []byte {
	at := len(dst)
	dst = binary.LittleEndian.AppendUint64(beginItem(dst, itemWritten), w.pointer.Commit)
	dst = append(dst, w.pointer.Digest[:]...)
	dst = binary.LittleEndian.AppendUint64(dst, w.pointer.Seq)
	held := byte(0)
	if w.held {
		held = 1
	}
	dst = binary.LittleEndian.AppendUint32(append(dst, held), uint32(w.failed))
	return endItem(binary.LittleEndian.AppendUint32(dst, uint32(w.results)), at)
}

func decodeWritten(content []byte) (w written, err error) {
	in := parts{rest: content}
	w.pointer = log.Pointer{Commit: in.uint64(), Digest: log.Digest(in.id()), Seq: in.uint64()}
	w.held = in.flags(1) != 0
	failed, results := in.uint32(), in.uint32()
	w.failed, w.results = int(failed), int(results)
	if !in.end() || w.pointer.Commit == 0 || w.pointer.Seq == 0 || failed >= log.MaxConditions || results > log.MaxRecords || w.held && failed > 0 {
		return w, errItem
	}
	return w, nil
}

func appendResult(dst, result []byte) []byte {
	at := len(dst)
	return endItem(append(beginItem(dst, itemResult), result...), at)
}

func appendPeers(dst []byte, peers []identity.PeerID) []byte {
	at := len(dst)
	dst = beginItem(dst, itemPeers)
	for i := range peers[:min(len(peers), maxPeers)] {
		dst = append(dst, peers[i][:]...)
	}
	return endItem(dst, at)
}

func decodePeers(content []byte) (peers []identity.PeerID, err error) {
	if len(content)%identity.Size != 0 || len(content) > maxPeers*identity.Size {
		return nil, errItem
	}
	for ; len(content) > 0; content = content[identity.Size:] {
		peers = append(peers, identity.PeerID(content[:identity.Size]))
	}
	return peers, nil
}
