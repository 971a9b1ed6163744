package remote

import (
	"encoding/binary"
	"errors"
	"math"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

// op is what a request asks for. The numbers are on the wire.
type op byte

const (
	opScan      op = 1 // the records of a key
	opRows      op = 2 // rows of a view
	opChanges   op = 3 // what commits did to a view
	opAppend    op = 4 // to write records
	opSubmit    op = 5 // to write a transaction
	opWait      op = 6 // to be told when a commit is there
	opSync      op = 7 // the newest commit of the group, linearizably
	opConsumers op = 8 // who follows a key
)

// String returns the op's word.
func (o op) String() string {
	return [...]string{"", "scan", "rows", "changes", "append", "submit", "wait", "sync", "consumers"}[o]
}

// writes reports whether the op changes the group.
func (o op) writes() bool { return o == opAppend || o == opSubmit }

const (
	maxTags     = identity.MaxEntryIDs
	maxBound    = log.MaxRowKey + 1 // of a range: the first key after the largest there can be
	maxPosition = 512               // bytes of its text
)

// request is a request, decoded. Which fields count depends on the op.
type request struct {
	op    op
	group identity.ID
	// floor is a commit that the answer reflects, at least; zero: none. Its seq is 0.
	floor log.Pointer

	key         identity.ID
	query       log.Query // of scan, without its key
	consistency log.Consistency
	rows        log.Range
	after       uint64 // of changes
	follow      bool   // of changes
	payloads    [][]byte
	transaction log.Transaction
	pointer     log.Pointer // of wait
	tags        []identity.ID
}

// follows reports whether the answer has no end, so that who asks is a consumer.
func (r *request) follows() bool {
	return r.op == opScan && r.query.Follow || r.op == opChanges && r.follow
}

var errRequest = errors.New("malformed request of a remote")

// What the flags of a request say.
const (
	flagFollow  = 1 << iota // scan, changes
	flagSince               // scan: the filter has one
	flagUntil               // scan: the filter has one
	flagReverse             // rows
)

// The consistency of rows, on the wire.
const (
	readLinearizable = 0
	readStale        = 1
	readAsOf         = 2
)

func (r *request) appendTo(dst []byte) []byte {
	dst = append(dst, byte(r.op))
	dst = append(dst, r.group[:]...)
	dst = binary.LittleEndian.AppendUint64(dst, r.floor.Commit)
	dst = append(dst, r.floor.Digest[:]...)
	switch r.op {
	case opSubmit:
		return appendTransaction(dst, &r.transaction)
	case opWait:
		return append(dst, r.pointer.String()...)
	case opSync:
		return dst
	}
	dst = append(dst, r.key[:]...)
	switch r.op {
	case opScan:
		f := &r.query.Filter
		var flags byte
		var since, until int64
		if r.query.Follow {
			flags |= flagFollow
		}
		if !f.Since.IsZero() {
			flags, since = flags|flagSince, log.Since(f.Since).Time()
		}
		if !f.Until.IsZero() {
			flags, until = flags|flagUntil, log.Since(f.Until).Time()
		}
		dst = append(dst, flags)
		for _, n := range []uint64{r.query.Until, uint64(since), uint64(until), f.Every} {
			dst = binary.LittleEndian.AppendUint64(dst, n)
		}
		dst = append(dst, r.query.From.String()...)
	case opRows:
		kind, commit := byte(readLinearizable), uint64(0)
		if n, exact := r.consistency.Commit(); exact {
			kind, commit = readAsOf, n
		} else if r.consistency.IsStale() {
			kind = readStale
		}
		dst = append(dst, kind)
		dst = binary.LittleEndian.AppendUint64(dst, commit)
		var flags byte
		if r.rows.Reverse {
			flags = flagReverse
		}
		dst = append(dst, flags)
		dst = appendBytes(dst, r.rows.From)
		dst = appendBytes(dst, r.rows.To)
	case opChanges:
		var flags byte
		if r.follow {
			flags = flagFollow
		}
		dst = binary.LittleEndian.AppendUint64(append(dst, flags), r.after)
	case opAppend:
		dst = binary.AppendUvarint(dst, uint64(len(r.payloads)))
		for _, p := range r.payloads {
			dst = appendBytes(dst, p)
		}
	case opConsumers:
		dst = binary.AppendUvarint(dst, uint64(len(r.tags)))
		for i := range r.tags {
			dst = append(dst, r.tags[i][:]...)
		}
	}
	return dst
}

// decodeRequest decodes what appendTo wrote. Byte strings alias b. What the log itself
// checks, such as the position of a scan, is left to it.
func decodeRequest(b []byte) (r request, err error) {
	in := parts{rest: b}
	r.op = op(in.byte())
	r.group = in.id()
	r.floor.Commit = in.uint64()
	r.floor.Digest = log.Digest(in.id())
	if r.floor.Commit != 0 {
		r.floor.Group = r.group
	} else if !r.floor.Digest.IsZero() {
		in.bad = true
	}
	switch r.op {
	case opScan, opRows, opChanges, opAppend, opConsumers:
		r.key = in.id()
	}
	switch r.op {
	case opScan:
		flags := in.flags(flagFollow | flagSince | flagUntil)
		r.query.Key, r.query.Follow, r.query.Until = r.key, flags&flagFollow != 0, in.uint64()
		f := &r.query.Filter
		f.Since, f.Until = in.time(flags&flagSince != 0), in.time(flags&flagUntil != 0)
		f.Every = in.uint64()
		var text string
		if text = string(in.all(maxPosition)); !in.bad {
			r.query.From, err = log.ParsePosition(text)
		}
	case opRows:
		kind, commit := in.byte(), in.uint64()
		switch {
		case kind == readLinearizable && commit == 0:
			r.consistency = log.Linearizable()
		case kind == readStale && commit == 0:
			r.consistency = log.Stale()
		case kind == readAsOf:
			r.consistency = log.AsOf(commit)
		default:
			in.bad = true
		}
		r.rows.Reverse = in.flags(flagReverse) != 0
		r.rows.From, r.rows.To = in.bytes(maxBound), in.bytes(maxBound)
	case opChanges:
		r.follow = in.flags(flagFollow) != 0
		r.after = in.uint64()
	case opAppend:
		n := in.count(log.MaxRecords)
		for range n {
			r.payloads = append(r.payloads, in.bytes(log.MaxPayload))
		}
	case opSubmit:
		r.transaction = in.transaction()
	case opWait:
		var text string
		if text = string(in.all(maxPosition)); !in.bad {
			r.pointer, err = log.ParsePointer(text)
		}
	case opSync:
	case opConsumers:
		for range in.count(maxTags) {
			r.tags = append(r.tags, in.id())
		}
	default:
		in.bad = true
	}
	if err == nil && !in.end() {
		err = errRequest
	}
	return r, err
}

// appendTransaction appends
//
//	conditions uvarint | of each: key 32 | kind 1 | commit 8 | row | value
//	commands uvarint   | of each: key 32 | payload
//
// with the size of each byte string before it, as a uvarint.
func appendTransaction(dst []byte, t *log.Transaction) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(t.Conditions)))
	for i := range t.Conditions {
		c := &t.Conditions[i]
		dst = append(append(dst, c.Key[:]...), byte(c.Kind))
		dst = binary.LittleEndian.AppendUint64(dst, c.Commit)
		dst = appendBytes(appendBytes(dst, c.Row), c.Value)
	}
	dst = binary.AppendUvarint(dst, uint64(len(t.Commands)))
	for i := range t.Commands {
		dst = append(dst, t.Commands[i].Key[:]...)
		dst = appendBytes(dst, t.Commands[i].Payload)
	}
	return dst
}

func (p *parts) transaction() (t log.Transaction) {
	for range p.count(log.MaxConditions) {
		t.Conditions = append(t.Conditions, log.Condition{
			Key: p.id(), Kind: log.ConditionKind(p.byte()), Commit: p.uint64(), Row: p.bytes(log.MaxRowKey), Value: p.bytes(log.MaxPayload),
		})
	}
	for range p.count(log.MaxCommands) {
		t.Commands = append(t.Commands, log.KeyedCommand{Key: p.id(), Payload: p.bytes(log.MaxPayload)})
	}
	return t
}

// appendBytes appends a byte string with its size before it.
func appendBytes(dst, b []byte) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(b))), b...)
}

// parts reads the parts of a request or an item from its front. After the first part
// that is not there it gives zeros, and end reports false.
type parts struct {
	rest []byte
	bad  bool
}

// take returns the next n bytes, which alias the input; nil if there are fewer.
func (p *parts) take(n int) []byte {
	if p.bad || n > len(p.rest) {
		p.bad = true
		return nil
	}
	b := p.rest[:n:n]
	p.rest = p.rest[n:]
	return b
}

// all returns what is left, at most limit bytes.
func (p *parts) all(limit int) []byte {
	if len(p.rest) > limit {
		p.bad = true
	}
	return p.take(len(p.rest))
}

func (p *parts) byte() byte {
	if b := p.take(1); b != nil {
		return b[0]
	}
	return 0
}

// flags returns the next byte, of which only the known bits may be set.
func (p *parts) flags(known byte) byte {
	b := p.byte()
	if b&^known != 0 {
		p.bad = true
	}
	return b
}

func (p *parts) uint32() uint32 {
	if b := p.take(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (p *parts) uint64() uint64 {
	if b := p.take(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

func (p *parts) id() (id identity.ID) {
	copy(id[:], p.take(identity.Size))
	return id
}

// time returns the next 8 bytes as a time, Unix nanoseconds, or the zero time, as which
// they are 0.
func (p *parts) time(there bool) time.Time {
	n := p.uint64()
	if there {
		return time.Unix(0, int64(n)).UTC()
	}
	if n != 0 {
		p.bad = true
	}
	return time.Time{}
}

// count returns the next number, in its shortest form and not above limit.
func (p *parts) count(limit int) int {
	x, n := binary.Uvarint(p.rest)
	if p.bad || n <= 0 || n > 1 && x>>(7*(n-1)) == 0 || x > uint64(min(limit, math.MaxInt32)) {
		p.bad = true
		return 0
	}
	p.rest = p.rest[n:]
	return int(x)
}

// bytes returns the next byte string, which aliases the input.
func (p *parts) bytes(limit int) []byte {
	return p.take(p.count(limit))
}

// end reports whether everything was there and nothing is left.
func (p *parts) end() bool { return !p.bad && len(p.rest) == 0 }
