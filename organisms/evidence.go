package organisms

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/organisms/wire"
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

// CutEvidence takes the encodings of n pieces, and checks them. A piece that cannot be fails
// the cutter.
func CutEvidence(c *wire.Cutter, n int) (evidence []Evidence) {
	for range n {
		var e Evidence
		switch kind := c.U8("evidence"); kind {
		case evidenceInside:
			e.Pointer = log.Pointer{
				Group: c.ID("group"), Commit: c.U64("commit"), Digest: log.Digest(c.ID("digest")), Key: c.ID("key"), Seq: c.U64("seq"),
			}
		case evidenceOutside:
			e.Class, e.Digest = c.ID("class"), c.ID("digest")
		default:
			c.Fail("evidence", "%d is no kind of it", kind)
		}
		if c.Failed() {
			return nil
		}
		if err := e.Validate(); err != nil {
			c.Fail("evidence", "%w", err)
			return nil
		}
		evidence = append(evidence, e)
	}
	return evidence
}
