package log

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/mosaik-engine/mosaik/identity"
)

// HeaderVersion is the version of the header and body this program writes.
const HeaderVersion = 1

// HeaderSize is the encoded size of a Header in bytes.
const HeaderSize = 149

// Byte offsets of the header's fields (docs/format/log.md). Integers are
// little-endian.
const (
	offVersion = 0
	offGroup   = 1
	offNumber  = 33
	offTime    = 41
	offPrev    = 49
	offBody    = 81
	offState   = 113
	offRecords = 145
)

// Header is the fixed part of a commit. Its digest names the commit and,
// through Prev, every commit before it.
type Header struct {
	Version uint8       // HeaderVersion
	Group   identity.ID // the group that agreed on the commit
	Number  uint64      // dense from 1 within the group
	Time    int64       // Unix nanoseconds, from the proposal, never below the previous commit's
	Prev    Digest      // digest of commit Number-1; zero for the first
	Body    Digest      // Sum of the body
	State   Digest      // digest of the group's views after this commit; zero without views
	Records uint32      // records in the body
}

// AppendTo appends the header's HeaderSize bytes to dst.
func (h *Header) AppendTo(dst []byte) []byte {
	dst = append(dst, h.Version)
	dst = append(dst, h.Group[:]...)
	dst = binary.LittleEndian.AppendUint64(dst, h.Number)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(h.Time))
	dst = append(dst, h.Prev[:]...)
	dst = append(dst, h.Body[:]...)
	dst = append(dst, h.State[:]...)
	return binary.LittleEndian.AppendUint32(dst, h.Records)
}

// Digest returns BLAKE3 of the encoded header.
func (h *Header) Digest() Digest {
	var buf [HeaderSize]byte
	return Sum(h.AppendTo(buf[:0]))
}

// DecodeHeader decodes the first HeaderSize bytes of b. It returns
// ErrNewerFormat for a later version and a *CorruptionError for bytes that no
// header has.
func DecodeHeader(b []byte) (Header, error) {
	var h Header
	if len(b) < HeaderSize {
		return h, &CorruptionError{Offset: int64(len(b)), Err: fmt.Errorf("commit header has %d bytes of %d", len(b), HeaderSize)}
	}
	switch v := b[offVersion]; {
	case v > HeaderVersion:
		return h, fmt.Errorf("%w: commit header version %d, this program knows %d", ErrNewerFormat, v, HeaderVersion)
	case v < HeaderVersion:
		return h, &CorruptionError{Err: fmt.Errorf("commit header version %d", v)}
	}
	h.Version = b[offVersion]
	h.Group = identity.ID(b[offGroup:offNumber])
	h.Number = binary.LittleEndian.Uint64(b[offNumber:])
	h.Time = int64(binary.LittleEndian.Uint64(b[offTime:]))
	h.Prev = Digest(b[offPrev:offBody])
	h.Body = Digest(b[offBody:offState])
	h.State = Digest(b[offState:offRecords])
	h.Records = binary.LittleEndian.Uint32(b[offRecords:])
	return h, nil
}

// Commit is one commit as it is stored and shipped: header || body.
type Commit struct {
	Header Header
	Digest Digest // of the header
	Body   []byte // borrowed from whoever gave the commit; see there for how long
}

// DecodeCommit splits encoded into header and body and computes the header's
// digest. It does not hash or walk the body: call Verify for that. The body
// aliases encoded.
func DecodeCommit(encoded []byte) (Commit, error) {
	h, err := DecodeHeader(encoded)
	if err != nil {
		return Commit{}, err
	}
	if len(encoded)-HeaderSize > MaxBody {
		return Commit{}, &CorruptionError{Group: h.Group, Commit: h.Number, Offset: HeaderSize,
			Err: fmt.Errorf("body of %d bytes exceeds the limit of %d", len(encoded)-HeaderSize, MaxBody)}
	}
	return Commit{Header: h, Digest: Sum(encoded[:HeaderSize]), Body: encoded[HeaderSize:]}, nil
}

// AppendTo appends header || body to dst.
func (c *Commit) AppendTo(dst []byte) []byte {
	return append(c.Header.AppendTo(dst), c.Body...)
}

// Pointer returns the pointer at the commit as a whole.
func (c *Commit) Pointer() Pointer {
	return Pointer{Group: c.Header.Group, Commit: c.Header.Number, Digest: c.Digest}
}

var (
	errBodyDigest  = errors.New("body does not hash to the header's body digest")
	errRecordCount = errors.New("header's record count is not the body's")
)

// Verify checks the commit against itself: the header hashes to Digest, the
// body hashes to the header's body digest, its structure decodes to the last
// byte, and it holds as many records as the header says. What it cannot know,
// the chain to the commit before, replay.Audit checks. The error is a
// *CorruptionError.
func (c *Commit) Verify() error {
	bad := func(off int64, err error) error {
		return &CorruptionError{Group: c.Header.Group, Commit: c.Header.Number, Offset: off, Err: err}
	}
	if c.Header.Digest() != c.Digest {
		return bad(0, errors.New("header does not hash to the commit's digest"))
	}
	if Sum(c.Body) != c.Header.Body {
		return bad(offBody, errBodyDigest)
	}
	var records uint64
	for run, err := range c.Runs() {
		if err != nil {
			return err
		}
		if err := run.Check(); err != nil {
			return bad(HeaderSize+int64(run.offset), err)
		}
		if run.FirstSeq == 0 || run.LastSeq() < run.FirstSeq {
			return bad(HeaderSize+int64(run.offset), fmt.Errorf("run of key %s has %d records from seq %d", run.Key.Short(), run.Count, run.FirstSeq))
		}
		records += uint64(run.Count)
	}
	if records != uint64(c.Header.Records) {
		return bad(offRecords, fmt.Errorf("%w: %d, %d", errRecordCount, c.Header.Records, records))
	}
	return nil
}
