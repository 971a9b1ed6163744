package replay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/mosaik-engine/mosaik/log"
)

// DifferenceKind says in what two sources differ.
type DifferenceKind uint8

// The kinds of a [Difference].
const (
	Same          DifferenceKind = iota // in nothing
	OtherDigest                         // the commit has another digest
	OtherBody                           // the digest is the same, the body is not
	MissingFirst                        // the first source does not have the commit
	MissingSecond                       // the second does not
)

// String returns a few words for a person to read.
func (k DifferenceKind) String() string {
	switch k {
	case Same:
		return "same"
	case OtherDigest:
		return "another digest"
	case OtherBody:
		return "another body"
	case MissingFirst:
		return "missing in the first"
	case MissingSecond:
		return "missing in the second"
	}
	return fmt.Sprintf("difference kind %d", uint8(k))
}

// MarshalText gives the form of String.
func (k DifferenceKind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// Difference is the first commit in which two sources differ.
type Difference struct {
	Kind          DifferenceKind
	Commit        uint64     // its number; 0 if there is no difference
	First, Second log.Digest // its digest in each source; zero where it is missing
}

// Diverge returns the first of the commits from..to that does not have the same
// digest in a and b; Same if they agree on all of them. A to of 0 is the higher
// of the two heads, and what lies behind the lower one is missing there.
//
// It believes both chains: each digest stands for all commits before it, so a
// binary search over the digests finds the place with some dozen reads, however
// long the logs are. Damage inside one of them is Compare's or Audit's to find.
func Diverge(ctx context.Context, a, b Source, from, to uint64) (Difference, error) {
	first, last, err := common(a, b, from, to)
	if err != nil {
		return Difference{}, err
	}
	return diverge(ctx, a, b, first, last)
}

// common fills in the zeros of a range over two sources.
func common(a, b Source, from, to uint64) (first, last uint64, err error) {
	if a.ID() != b.ID() {
		return 0, 0, fmt.Errorf("%w: compare a log of group %s with one of group %s", log.ErrQuery, a.ID(), b.ID())
	}
	s, err := spanOf(a, from, to)
	if higher := b.Head().Number; higher > s.head.Number {
		s, err = spanOf(b, from, to)
	}
	return s.first, s.last, err
}

func diverge(ctx context.Context, a, b Source, first, last uint64) (Difference, error) {
	if last < first {
		return Difference{}, nil
	}
	// The last one first: replicas mostly agree.
	d, err := differ(a, b, last)
	if err != nil || d.Kind == Same {
		return d, err
	}
	// Commits below lo agree, d is the difference at hi.
	for lo, hi := first, last; lo < hi; {
		if err := ctx.Err(); err != nil {
			return Difference{}, err
		}
		mid := lo + (hi-lo)/2
		at, err := differ(a, b, mid)
		switch {
		case err != nil:
			return Difference{}, err
		case at.Kind == Same:
			lo = mid + 1
		default:
			d, hi = at, mid
		}
	}
	return d, nil
}

// differ compares the digests of one commit.
func differ(a, b Source, n uint64) (Difference, error) {
	inA, err := digestAt(a, n)
	if err != nil {
		return Difference{}, err
	}
	inB, err := digestAt(b, n)
	if err != nil {
		return Difference{}, err
	}
	d := Difference{Commit: n, First: inA, Second: inB}
	switch {
	case inA == inB && !inA.IsZero():
		return Difference{}, nil
	case inA.IsZero():
		d.Kind = MissingFirst
	case inB.IsZero():
		d.Kind = MissingSecond
	default:
		d.Kind = OtherDigest
	}
	return d, nil
}

// digestAt returns the digest of commit n, zero if src does not have it.
func digestAt(src Source, n uint64) (log.Digest, error) {
	c, err := src.Commit(n)
	if errors.Is(err, log.ErrNotFound) {
		return log.Digest{}, nil
	}
	if err != nil {
		return log.Digest{}, located(err, src.ID(), n)
	}
	return c.Digest, nil
}

// Compare returns the first of the commits from..to that is not the same, byte
// for byte, in a and b; Same if all are. A to of 0 is as in Diverge.
//
// It first lets Diverge say where the digests part, then reads the commits
// before that in both sources and compares their bytes, so its cost is one
// reading of what they have in common.
func Compare(ctx context.Context, a, b Source, from, to uint64) (Difference, error) {
	first, last, err := common(a, b, from, to)
	if err != nil {
		return Difference{}, err
	}
	d, err := diverge(ctx, a, b, first, last)
	if err != nil {
		return Difference{}, err
	}
	if d.Kind != Same {
		last = d.Commit - 1
	}
	if last < first {
		return d, nil
	}
	damaged, err := compareBytes(ctx, a, b, first, last)
	if err != nil {
		return Difference{}, err
	}
	if damaged.Kind != Same {
		return damaged, nil
	}
	return d, nil
}

// compareBytes reads the commits first..last of both sources side by side.
func compareBytes(ctx context.Context, a, b Source, first, last uint64) (Difference, error) {
	nextB, stopB := iter.Pull2(b.Commits(ctx, first, last))
	defer stopB()
	n := first
	for inA, err := range a.Commits(ctx, first, last) {
		if err != nil {
			return Difference{}, located(err, a.ID(), n)
		}
		inB, err, ok := nextB()
		if !ok {
			err = log.ErrNotFound
		}
		if err != nil {
			return Difference{}, located(err, b.ID(), n)
		}
		d := Difference{Commit: n, First: inA.Digest, Second: inB.Digest}
		switch {
		case inA.Digest != inB.Digest || inA.Header != inB.Header:
			d.Kind = OtherDigest
			return d, nil
		case !bytes.Equal(inA.Body, inB.Body):
			d.Kind = OtherBody
			return d, nil
		}
		if n == last {
			return Difference{}, nil
		}
		n++
	}
	return Difference{}, located(log.ErrNotFound, a.ID(), n)
}
