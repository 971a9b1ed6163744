package log

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"

	"github.com/mosaik-engine/mosaik/identity"
)

// RunHeaderSize is the encoded size in bytes of what precedes a run's records:
// key, first seq, count, size.
const RunHeaderSize = 32 + 8 + 4 + 4

// Byte offsets in a run's header.
const (
	runKey   = 0
	runFirst = 32
	runCount = 40
	runSize  = 44
)

// Run is the consecutive records of one key inside one commit, which is the
// unit in which logs are scanned: a reader pays for a commit once, not for
// each record.
type Run struct {
	Group    identity.ID
	Commit   uint64      // commit number
	Time     int64       // the commit's time, Unix nanoseconds
	Digest   Digest      // the commit's digest
	Key      identity.ID // the log the records belong to
	FirstSeq uint64      // seq of the first record
	Count    int         // number of records, at least 1

	records []byte // Count times: uvarint length, payload
	offset  int    // of the run in its body, for error messages
}

// AppendRun appends an encoded run to a body. Records must be the
// concatenation of AppendRecord results, count of them.
func AppendRun(body []byte, key identity.ID, firstSeq uint64, count int, records []byte) []byte {
	body = append(body, key[:]...)
	body = binary.LittleEndian.AppendUint64(body, firstSeq)
	body = binary.LittleEndian.AppendUint32(body, uint32(count))
	body = binary.LittleEndian.AppendUint32(body, uint32(len(records)))
	return append(body, records...)
}

// AppendRecord appends one record to a run's records: its length as a uvarint,
// then its payload.
func AppendRecord(records, payload []byte) []byte {
	records = binary.AppendUvarint(records, uint64(len(payload)))
	return append(records, payload...)
}

// SetFirstSeq writes the first seq into the run that starts at body[offset].
// A proposal carries its runs with first seq 0; the apply path, which alone
// knows the seq, fills it in without moving a byte.
func SetFirstSeq(body []byte, offset int, seq uint64) {
	binary.LittleEndian.PutUint64(body[offset+runFirst:], seq)
}

var errRunTruncated = errors.New("run is cut short")

// NextRun decodes the run at body[offset:], without its commit's fields, and
// returns the offset of the one after it. It looks at the run's header only,
// not at its records.
func NextRun(body []byte, offset int) (run Run, next int, err error) {
	b := body[offset:]
	if len(b) < RunHeaderSize {
		return Run{}, 0, errRunTruncated
	}
	size := int64(binary.LittleEndian.Uint32(b[runSize:]))
	count := binary.LittleEndian.Uint32(b[runCount:])
	if int64(len(b)-RunHeaderSize) < size {
		return Run{}, 0, errRunTruncated
	}
	if count == 0 || int64(count) > size {
		// Every record has at least its length byte.
		return Run{}, 0, fmt.Errorf("run of %d records in %d bytes", count, size)
	}
	run = Run{
		Key:      identity.ID(b[runKey:runFirst]),
		FirstSeq: binary.LittleEndian.Uint64(b[runFirst:]),
		Count:    int(count),
		records:  b[RunHeaderSize : RunHeaderSize+size],
		offset:   offset,
	}
	return run, offset + RunHeaderSize + int(size), nil
}

// Runs yields the runs of the commit in order. A structural error ends it with
// a *CorruptionError; the records inside the runs are not looked at.
func (c *Commit) Runs() iter.Seq2[Run, error] {
	return func(yield func(Run, error) bool) {
		for offset := 0; offset < len(c.Body); {
			run, next, err := NextRun(c.Body, offset)
			if err != nil {
				yield(Run{}, &CorruptionError{Group: c.Header.Group, Commit: c.Header.Number, Offset: int64(HeaderSize + offset), Err: err})
				return
			}
			if !yield(c.of(run), nil) {
				return
			}
			offset = next
		}
	}
}

// RunAt decodes the run at the given offset of the body, as an index names it.
func (c *Commit) RunAt(offset int) (Run, error) {
	if offset < 0 || offset >= len(c.Body) {
		return Run{}, &CorruptionError{Group: c.Header.Group, Commit: c.Header.Number, Offset: int64(HeaderSize + offset), Err: errRunTruncated}
	}
	run, _, err := NextRun(c.Body, offset)
	if err != nil {
		return Run{}, &CorruptionError{Group: c.Header.Group, Commit: c.Header.Number, Offset: int64(HeaderSize + offset), Err: err}
	}
	return c.of(run), nil
}

func (c *Commit) of(run Run) Run {
	run.Group = c.Header.Group
	run.Commit = c.Header.Number
	run.Time = c.Header.Time
	run.Digest = c.Digest
	return run
}

// AppendTo appends the run's encoded form to dst, as it stands in a body.
func (r *Run) AppendTo(dst []byte) []byte {
	return AppendRun(dst, r.Key, r.FirstSeq, r.Count, r.records)
}

// LastSeq returns the seq of the run's last record.
func (r *Run) LastSeq() uint64 { return r.FirstSeq + uint64(r.Count) - 1 }

// Offset returns where the run stands in its commit's body, in bytes.
func (r *Run) Offset() int { return r.offset }

// Pointer returns the evidence pointer at one record of the run.
func (r *Run) Pointer(seq uint64) Pointer {
	return Pointer{Group: r.Group, Commit: r.Commit, Digest: r.Digest, Key: r.Key, Seq: seq}
}

// Records yields seq and payload of every record. Payloads alias the commit's
// body. Damaged lengths end the iteration early: Verify, which every reader of
// stored bytes runs or has had run for it by the store's checksums, finds them.
func (r *Run) Records() iter.Seq2[uint64, []byte] {
	return func(yield func(uint64, []byte) bool) {
		b := r.records
		for seq, end := r.FirstSeq, r.FirstSeq+uint64(r.Count); seq != end; seq++ {
			payload, rest, ok := cutRecord(b)
			if !ok || !yield(seq, payload) {
				return
			}
			b = rest
		}
	}
}

// From returns the run without the records before seq, which must lie in it.
func (r *Run) From(seq uint64) Run {
	out := *r
	for out.FirstSeq < seq && out.Count > 1 {
		_, rest, ok := cutRecord(out.records)
		if !ok {
			break
		}
		out.records = rest
		out.FirstSeq++
		out.Count--
	}
	return out
}

// cutRecord splits the first record off b. A length in more bytes than it
// needs is refused, so that equal records have equal bytes.
func cutRecord(b []byte) (payload, rest []byte, ok bool) {
	if len(b) > 0 && b[0] < 0x80 { // the common case, inlined: lengths below 128
		n := 1 + int(b[0])
		if n > len(b) {
			return nil, nil, false
		}
		return b[1:n:n], b[n:], true
	}
	size, n := binary.Uvarint(b)
	if n <= 0 || size > uint64(len(b)-n) || (n > 1 && size>>(7*(n-1)) == 0) {
		return nil, nil, false
	}
	end := n + int(size)
	return b[n:end:end], b[end:], true
}

// Check walks the run's records and reports a length that does not fit, or a
// payload over MaxPayload. The apply path runs it before a run is committed, so
// that whatever is in a log decodes.
func (r *Run) Check() error {
	b := r.records
	for i := 0; i < r.Count; i++ {
		payload, rest, ok := cutRecord(b)
		if !ok {
			return fmt.Errorf("record %d of the run of key %s is cut short", i, r.Key.Short())
		}
		if len(payload) > MaxPayload {
			return fmt.Errorf("record %d of the run of key %s has %d bytes, the limit is %d", i, r.Key.Short(), len(payload), MaxPayload)
		}
		b = rest
	}
	if len(b) != 0 {
		return fmt.Errorf("%d bytes follow the records of the run of key %s", len(b), r.Key.Short())
	}
	return nil
}
