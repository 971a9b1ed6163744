package replay

import (
	"context"
	"iter"

	"lukechampine.com/blake3"

	"github.com/mosaik-engine/mosaik/log"
)

// Commits yields the commits from..to of src in order, each checked against
// itself and the one before. A body is good until the next step. An error is the
// last pair: a *log.CorruptionError for the first bad or absent commit, else what
// reading met.
func Commits(ctx context.Context, src Source, from, to uint64) iter.Seq2[log.Commit, error] {
	return func(yield func(log.Commit, error) bool) {
		s, err := spanOf(src, from, to)
		if err != nil {
			yield(log.Commit{}, err)
			return
		}
		s.walk(ctx, src, &chain{group: src.ID(), next: s.first}, func(c *log.Commit, err error) bool {
			if err != nil {
				return yield(log.Commit{}, err)
			}
			return yield(*c, nil)
		})
	}
}

// rangeDigest adds up the digest of a range.
type rangeDigest struct{ h *blake3.Hasher }

func newRangeDigest() rangeDigest { return rangeDigest{blake3.New(len(log.Digest{}), nil)} }

func (d rangeDigest) add(commit log.Digest) { d.h.Write(commit[:]) } // never fails

func (d rangeDigest) sum() log.Digest { return log.Digest(d.h.Sum(nil)) }

// Digest returns the range digest of the commits from..to, which it checks as
// Commits does: two replicas that return the same have the same bytes there.
func Digest(ctx context.Context, src Source, from, to uint64) (log.Digest, error) {
	d := newRangeDigest()
	for c, err := range Commits(ctx, src, from, to) {
		if err != nil {
			return log.Digest{}, err
		}
		d.add(c.Digest)
	}
	return d.sum(), nil
}
