package replay

import (
	"fmt"

	"github.com/mosaik-engine/mosaik/log"
)

// VerifyPointer reports whether p holds against the exported bytes of the commit
// it points at, header || body, as "commit show" and the HTTP API give them. It
// asks nobody: p's digest fixes the header, which fixes the body.
//
// The error wraps log.ErrPointer, and says which part of p does not hold, or is
// a *log.CorruptionError if the bytes are not those of a commit.
func VerifyPointer(p log.Pointer, commitBytes []byte) error {
	_, err := held(p, commitBytes)
	return err
}

// Extract is VerifyPointer that also returns the record p points at. The payload
// aliases commitBytes. A pointer at a whole commit is log.ErrPointer.
func Extract(p log.Pointer, commitBytes []byte) (Record, error) {
	c, err := held(p, commitBytes)
	if err != nil {
		return Record{}, err
	}
	if p.Seq == 0 {
		return Record{}, fmt.Errorf("%w: it points at commit %d as a whole, not at a record", log.ErrPointer, p.Commit)
	}
	for run, err := range c.Runs() {
		if err != nil {
			return Record{}, err
		}
		if run.Key != p.Key || p.Seq < run.FirstSeq || run.LastSeq() < p.Seq {
			continue
		}
		run = run.From(p.Seq)
		for _, payload := range run.Records() {
			return Record{Pointer: p, Time: c.Header.Time, Payload: payload}, nil
		}
	}
	return Record{}, fmt.Errorf("%w: commit %d holds no record %d of key %s", log.ErrPointer, p.Commit, p.Seq, p.Key.Short())
}

// held decodes the commit and checks the pointer against it, and the commit
// against itself.
func held(p log.Pointer, commitBytes []byte) (log.Commit, error) {
	position := log.At(p)
	if err := position.Validate(); err != nil {
		return log.Commit{}, err
	}
	c, err := log.DecodeCommit(commitBytes)
	if err != nil {
		return log.Commit{}, err
	}
	// The pointer first: of bytes that are another commit's it is more to the
	// point to say so than to find fault with them.
	if p.Group != c.Header.Group || p.Commit != c.Header.Number || p.Digest != c.Digest {
		return log.Commit{}, p.Check(&c)
	}
	if err := c.Verify(); err != nil {
		return log.Commit{}, err
	}
	return c, p.Check(&c)
}
