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

// walk yields what src has of the span, in order, after f has followed it. A
// commit and its body are good until yield returns.
//
// Reading and hashing take about the same time. Reading ahead on a goroutine of
// its own was tried and is no faster on two cores: a body has to be copied to
// outlive the source's step, and both sides then miss the cache.
func (s span) walk(ctx context.Context, src Source, f *chain, yield func(*log.Commit, error) bool) {
	if s.commits() == 0 {
		return
	}
	var current log.Commit // one for all: what is yielded by address moves to the heap
	for c, err := range src.Commits(ctx, s.first, s.last) {
		current = c
		if err != nil {
			err = located(err, f.group, f.next)
		} else {
			err = f.follow(&current)
		}
		if err != nil {
			yield(nil, err)
			return
		}
		if !yield(&current, nil) || f.next > s.last {
			return
		}
	}
	yield(nil, f.bad(0, errEndsEarly))
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
