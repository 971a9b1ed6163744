package organisms

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

// Evidence is what a commit was made from: a commit of another organism, or something
// outside. Exactly one of the two is set.
type Evidence struct {
	// Pointer is at the commit, or at a record in it.
	Pointer log.Pointer
	// Class says what is outside: the body of an HTTP answer, a block. Digest is its hash.
	Class, Digest identity.ID
}

// At returns evidence inside: a pointer.
func At(p log.Pointer) Evidence { return Evidence{Pointer: p} }

// Outside returns evidence outside, of a class and with a digest.
func Outside(class, digest identity.ID) Evidence { return Evidence{Class: class, Digest: digest} }

// MaxEvidence bounds the evidence of one commit.
const MaxEvidence = 1024

const (
	evidenceInside  = 1
	evidenceOutside = 2

	insideSize  = 1 + identity.Size + 8 + identity.Size + identity.Size + 8
	outsideSize = 1 + 2*identity.Size
)

// ErrEvidence says that evidence cannot be, or does not hold.
var ErrEvidence = errors.New("mosaik: bad evidence")

// Validate reports evidence that is neither inside nor outside. The error wraps
// ErrEvidence.
func (e *Evidence) Validate() error {
	inside, outside := !e.Pointer.IsZero(), !e.Class.IsZero() || !e.Digest.IsZero()
	switch p := &e.Pointer; {
	case inside == outside:
		return fmt.Errorf("%w: it is a pointer, or a class with a digest", ErrEvidence)
	case outside && e.Class.IsZero():
		return fmt.Errorf("%w: class: it is zero", ErrEvidence)
	case inside && (p.Commit == 0 || p.Group.IsZero() || p.Key.IsZero() != (p.Seq == 0)):
		return fmt.Errorf("%w: pointer: %s points nowhere", ErrEvidence, p)
	}
	return nil
}

// String returns the pointer's text form, or CLASS:DIGEST in hex.
func (e Evidence) String() string {
	if !e.Pointer.IsZero() {
		return e.Pointer.String()
	}
	return e.Class.String() + ":" + e.Digest.String()
}

func (e *Evidence) appendTo(b []byte) []byte {
	if e.Pointer.IsZero() {
		b = append(append(b, evidenceOutside), e.Class[:]...)
		return append(b, e.Digest[:]...)
	}
	p := &e.Pointer
	b = append(append(b, evidenceInside), p.Group[:]...)
	b = binary.LittleEndian.AppendUint64(b, p.Commit)
	b = append(b, p.Digest[:]...)
	b = append(b, p.Key[:]...)
	return binary.LittleEndian.AppendUint64(b, p.Seq)
}

// AppendEvidence appends pieces of evidence that are valid, in their encoding (package
// comment).
func AppendEvidence(dst []byte, evidence []Evidence) []byte {
	for i := range evidence {
		dst = evidence[i].appendTo(dst)
	}
	return dst
}

// cutEvidence decodes one piece from the front of b.
func cutEvidence(b []byte) (e Evidence, rest []byte, err error) {
	switch {
	case len(b) >= insideSize && b[0] == evidenceInside:
		p := &e.Pointer
		p.Group, p.Commit, p.Digest = identity.ID(b[1:33]), binary.LittleEndian.Uint64(b[33:]), log.Digest(b[41:73])
		p.Key, p.Seq = identity.ID(b[73:105]), binary.LittleEndian.Uint64(b[105:])
		rest = b[insideSize:]
	case len(b) >= outsideSize && b[0] == evidenceOutside:
		e.Class, e.Digest = identity.ID(b[1:33]), identity.ID(b[33:65])
		rest = b[outsideSize:]
	default:
		return e, nil, fmt.Errorf("%w: malformed", ErrEvidence)
	}
	return e, rest, e.Validate()
}
