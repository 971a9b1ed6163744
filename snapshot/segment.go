package snapshot

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

// SegmentBytes and SegmentCommits are where a segment ends: with the commit that
// brings it to so many bytes, headers and bodies, or to so many commits,
// whichever comes first. So the boundaries are a function of the log alone.
const (
	SegmentBytes   = 16 << 20
	SegmentCommits = 1 << 16
)

// Boundary finds where segments end.
type Boundary struct {
	Commits uint64 // in the open segment
	Bytes   uint64 // of them
	limit   uint64
}

// NewBoundary returns a Boundary before the first commit of a segment, of which
// segments end at so many bytes, 0 for SegmentBytes.
func NewBoundary(bytes uint64) Boundary {
	if bytes == 0 {
		bytes = SegmentBytes
	}
	return Boundary{limit: bytes}
}

// Add adds the next commit, by the size of its header and body, and reports
// whether it is the segment's last; then the next one begins.
func (b *Boundary) Add(size int) (last bool) {
	b.Commits++
	b.Bytes += uint64(size)
	if b.Bytes >= b.limit || b.Commits >= SegmentCommits {
		*b = Boundary{limit: b.limit}
		return true
	}
	return false
}

// Range is the commits of one segment.
type Range struct {
	Group  identity.ID
	Number uint64     // of the segment in its group, from 1
	First  uint64     // first commit
	Last   uint64     // last commit
	Prev   log.Digest // digest of the commit before First; zero for commit 1
}

const (
	segmentMagic      = "mosaik.segment.1"
	segmentHeaderSize = len(segmentMagic) + 32 + 8 + 8 + 8 + 32
	indexEntrySize    = 8
)

func (r *Range) appendTo(dst []byte) []byte {
	dst = append(dst, r.Group[:]...)
	dst = binary.LittleEndian.AppendUint64(dst, r.Number)
	dst = binary.LittleEndian.AppendUint64(dst, r.First)
	dst = binary.LittleEndian.AppendUint64(dst, r.Last)
	return append(dst, r.Prev[:]...)
}

const rangeSize = 32 + 8 + 8 + 8 + 32

var errRange = errors.New("malformed range of commits")

func decodeRange(b []byte) (r Range, rest []byte, err error) {
	if len(b) < rangeSize {
		return r, nil, errRange
	}
	r.Group = identity.ID(b)
	r.Number = binary.LittleEndian.Uint64(b[32:])
	r.First = binary.LittleEndian.Uint64(b[40:])
	r.Last = binary.LittleEndian.Uint64(b[48:])
	r.Prev = log.Digest(b[56:])
	if r.Number == 0 || r.First == 0 || r.Last < r.First || r.Last-r.First >= SegmentCommits {
		return r, nil, errRange
	}
	return r, b[rangeSize:], nil
}

// Commits returns how many commits there are.
func (r *Range) Commits() uint64 { return r.Last - r.First + 1 }

// SegmentWriter writes the canonical bytes of a segment (docs/format/segment.md).
type SegmentWriter struct {
	w       io.Writer
	r       Range
	next    uint64
	prev    log.Digest
	offset  uint64
	offsets []byte
	buf     []byte
	time    int64
	records uint64
}

// NewSegmentWriter begins the segment of a range.
func NewSegmentWriter(w io.Writer, r Range) (*SegmentWriter, error) {
	s := &SegmentWriter{w: w, r: r, next: r.First, prev: r.Prev}
	return s, s.write(r.appendTo([]byte(segmentMagic)))
}

func (s *SegmentWriter) write(b []byte) error {
	s.offset += uint64(len(b))
	if _, err := s.w.Write(b); err != nil {
		return fmt.Errorf("mosaik: write segment %d: %w", s.r.Number, err)
	}
	return nil
}

// Add writes the next commit, which must follow the one before. The commit has
// been checked.
func (s *SegmentWriter) Add(c *log.Commit) error {
	h := &c.Header
	if h.Group != s.r.Group || h.Number != s.next || h.Prev != s.prev || s.next > s.r.Last {
		return &log.CorruptionError{Group: s.r.Group, Commit: h.Number,
			Err: fmt.Errorf("it does not follow commit %d in segment %d", s.next-1, s.r.Number)}
	}
	s.offsets = binary.LittleEndian.AppendUint64(s.offsets, s.offset)
	s.next, s.prev, s.time = s.next+1, c.Digest, h.Time
	s.records += uint64(h.Records)
	s.buf = h.AppendTo(s.buf[:0])
	if err := s.write(s.buf); err != nil {
		return err
	}
	return s.write(c.Body)
}

// Close writes the index and returns what a manifest says of the commits.
func (s *SegmentWriter) Close() (Summary, error) {
	if s.next != s.r.Last+1 {
		return Summary{}, fmt.Errorf("mosaik: segment %d ends with commit %d of %d", s.r.Number, s.next-1, s.r.Last)
	}
	return Summary{Range: s.r, Digest: s.prev, Time: s.time, Records: s.records}, s.write(s.offsets)
}

// Summary is what a segment's commits come to.
type Summary struct {
	Range
	Digest  log.Digest // of the last commit
	Time    int64      // of the last commit, Unix nanoseconds
	Records uint64
}

// Segment reads a sealed segment. It is for one goroutine.
type Segment struct {
	m      *Manifest
	object *Object
	index  []byte
	stripe int // that data holds; -1: none
	data   []byte
	buf    []byte
}

// OpenSegment returns the segment that a manifest describes, over its shards, nil
// where there is none. onBad is told of bad shards (OpenObject). Nothing is read
// yet.
func OpenSegment(m *Manifest, shards []io.ReaderAt, onBad func(*ShardError)) (*Segment, error) {
	o, err := OpenObject(m.Commits, shards, onBad)
	if err != nil {
		return nil, err
	}
	return &Segment{m: m, object: o, stripe: -1}, nil
}

// located names the segment in an error.
func (s *Segment) located(err error) error {
	return fmt.Errorf("segment %d of group %s, commits %d to %d: %w", s.m.Number, s.m.Group.Short(), s.m.First, s.m.Last, err)
}

// read appends size bytes of the object from off to dst.
func (s *Segment) read(dst []byte, off, size uint64) ([]byte, error) {
	whole := uint64(s.m.Commits.K) * CellBytes
	for size > 0 {
		stripe := int(off / whole)
		if stripe != s.stripe {
			data, err := s.object.Stripe(stripe)
			if err != nil {
				s.stripe = -1
				return dst, err
			}
			s.stripe, s.data = stripe, data
		}
		at := off - uint64(stripe)*whole
		n := min(size, uint64(len(s.data))-at)
		dst = append(dst, s.data[at:at+n]...)
		off, size = off+n, size-n
	}
	return dst, nil
}

// bounds returns where a commit lies.
func (s *Segment) bounds(number uint64) (from, to uint64, err error) {
	n := s.m.Range.Commits()
	size := s.m.Commits.Size
	if size < uint64(segmentHeaderSize)+n*(indexEntrySize+log.HeaderSize) {
		return 0, 0, errIndex
	}
	body := size - n*indexEntrySize
	if s.index == nil {
		index, err := s.read(nil, body, n*indexEntrySize)
		if err != nil {
			return 0, 0, err
		}
		s.index = index
	}
	at := (number - s.m.First) * indexEntrySize
	from, to = binary.LittleEndian.Uint64(s.index[at:]), body
	if number < s.m.Last {
		to = binary.LittleEndian.Uint64(s.index[at+indexEntrySize:])
	}
	if from < uint64(segmentHeaderSize) || to > body || from > to || to-from < log.HeaderSize || to-from > log.HeaderSize+log.MaxBody {
		return 0, 0, errIndex
	}
	return from, to, nil
}

var errIndex = errors.New("its index is wrong")

// Commit returns a commit, checked against itself. The body is good until the
// next call.
func (s *Segment) Commit(number uint64) (log.Commit, error) {
	if number < s.m.First || number > s.m.Last {
		return log.Commit{}, s.located(fmt.Errorf("%w: commit %d", log.ErrNotFound, number))
	}
	from, to, err := s.bounds(number)
	if err != nil {
		return log.Commit{}, s.located(err)
	}
	if s.buf, err = s.read(s.buf[:0], from, to-from); err != nil {
		return log.Commit{}, s.located(err)
	}
	c, err := log.DecodeCommit(s.buf)
	if err == nil {
		err = c.Verify()
	}
	if err == nil && (c.Header.Number != number || c.Header.Group != s.m.Group) {
		err = &log.CorruptionError{Group: s.m.Group, Commit: number, Err: fmt.Errorf("commit %d of group %s is in its place", c.Header.Number, c.Header.Group.Short())}
	}
	if err != nil {
		return log.Commit{}, s.located(err)
	}
	return c, nil
}

// Commits yields the commits of a segment from its whole bytes, which are checked
// against the manifest: the hash of all, each commit against itself, each against
// the one before, the last against the manifest's digest. Bodies alias object. An
// error, a *log.CorruptionError, is the last pair.
func Commits(m *Manifest, object []byte) iter.Seq2[log.Commit, error] {
	return func(yield func(log.Commit, error) bool) {
		bad := func(commit uint64, err error) {
			yield(log.Commit{}, &log.CorruptionError{Group: m.Group, Commit: commit, Err: fmt.Errorf("segment %d: %w", m.Number, err)})
		}
		s := Segment{m: m}
		if log.Sum(object) != m.Commits.Hash || uint64(len(object)) != m.Commits.Size {
			bad(m.First, errors.New("it does not hash to what the manifest says"))
			return
		}
		if size := m.Range.Commits() * indexEntrySize; uint64(len(object)) < uint64(segmentHeaderSize)+size {
			bad(m.First, errIndex)
			return
		}
		s.index = object[uint64(len(object))-m.Range.Commits()*indexEntrySize:]
		prev := m.Prev
		for n := m.First; n <= m.Last; n++ {
			from, to, err := s.bounds(n)
			if err != nil {
				bad(n, err)
				return
			}
			c, err := log.DecodeCommit(object[from:to])
			if err == nil {
				err = c.Verify()
			}
			if err == nil && (c.Header.Group != m.Group || c.Header.Number != n || c.Header.Prev != prev) {
				err = fmt.Errorf("it does not follow commit %d", n-1)
			}
			if err == nil && n == m.Last && c.Digest != m.Digest {
				err = errors.New("its digest is not the manifest's")
			}
			if err != nil {
				bad(n, err)
				return
			}
			prev = c.Digest
			if !yield(c, nil) {
				return
			}
		}
	}
}
