package oracle

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
)

// Errors of a round that is in its form.
var (
	// ErrSkipped says that a round has fewer prices than the quorum, so there is no tick of
	// its seq. Nothing is wrong with it.
	ErrSkipped = errors.New("mosaik: the round is below its quorum")
	// ErrRound says that a round cannot be one of the oracle's. The error that wraps it names
	// the field.
	ErrRound = errors.New("mosaik: not a round of the oracle")
)

// Recompute computes the tick of a round, without its signer and signature. It depends on
// its arguments and nothing else. ErrSkipped: there is none; ErrRound: the round is not one
// of an oracle with these parameters. p must be what Validate accepts.
//
// It computes the digest of the parameters each time; an Auditor does that once.
func Recompute(p *Parameters, r *Round) (PriceTick, error) {
	u, err := newRules(p, r.Pair)
	if err != nil {
		return PriceTick{}, err
	}
	if err := u.check(r); err != nil {
		return PriceTick{}, err
	}
	return u.compute(r)
}

// rules are what the parameters say of one pair.
type rules struct {
	p      *Parameters
	feed   *Feed
	digest identity.ID // of p
}

func newRules(p *Parameters, pair Pair) (*rules, error) {
	feed := p.Feed(pair)
	if feed == nil {
		return nil, fmt.Errorf("%w: pair: %v is not in the parameters in that direction", ErrRound, pair)
	}
	return &rules{p: p, feed: feed, digest: p.Digest()}, nil
}

// check holds a round against the rules: it has the observations that they ask for, and no
// price counts that is too old or too new, nor does one not count for it that is neither.
func (u *rules) check(r *Round) error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: seq %d: "+format, append([]any{ErrRound, r.Seq}, args...)...)
	}
	switch {
	case r.Pair != u.feed.Pair:
		return bad("pair: %v, not %v", r.Pair, u.feed.Pair)
	case r.Parameters != u.digest:
		return bad("parameters: %s, not %s", r.Parameters.Short(), u.digest.Short())
	case len(r.Observations) != len(u.feed.Sources):
		return bad("observations: %d of %d sources", len(r.Observations), len(u.feed.Sources))
	}
	if err := r.Validate(); err != nil {
		return bad("%w", err)
	}
	for i := range r.Observations {
		o := &r.Observations[i]
		if o.Source != u.feed.Sources[i].Source {
			return bad("observation %d: of source %s, not %s", i, o.Source.Short(), u.feed.Sources[i].Source.Short())
		}
		if o.Price == 0 {
			continue
		}
		byAge := u.age(r.TimestampMs, o.ObservedAt)
		if declared := o.Reason == TooOld || o.Reason == TooNew; declared && o.Reason != byAge || !declared && byAge != Available {
			return bad("observation %d: it is %v, by its time it is %v", i, o.Reason, byAge)
		}
	}
	return nil
}

// age says whether an observation of that time counts in a round of that time.
func (u *rules) age(timestampMs uint64, observedAt int64) Reason {
	at := time.Duration(timestampMs) * time.Millisecond // since 1970, which fits: maxTimestamp
	switch age := at - time.Duration(observedAt); {
	case age > u.p.MaxAge:
		return TooOld
	case -age > u.p.MaxAhead:
		return TooNew
	}
	return Available
}

// contribution is the price of a source that counts.
type contribution struct {
	price  Price
	weight uint64
	source identity.ID
}

// compute computes the tick of a round that has been checked. The only error is ErrSkipped.
func (u *rules) compute(r *Round) (PriceTick, error) {
	var array [MaxSources]contribution
	all := array[:0]
	for i := range r.Observations {
		if o := &r.Observations[i]; o.Reason == Available {
			all = append(all, contribution{o.Price, uint64(u.feed.Sources[i].Weight), o.Source})
		}
	}
	if len(all) < int(u.p.Quorum) {
		return PriceTick{}, fmt.Errorf("%w: seq %d of %v: %d prices, the quorum is %d", ErrSkipped, r.Seq, r.Pair, len(all), u.p.Quorum)
	}
	t := PriceTick{
		TimestampMs: r.TimestampMs,
		Pair:        r.Pair,
		SourceSet:   sourceSet(all),
		SourceCount: uint8(len(all)),
		Stale:       len(all) < int(u.p.Minimum),
		Seq:         r.Seq,
		Decimals:    u.p.Decimals,
		Parameters:  r.Parameters,
		Round:       r.Digest(),
	}
	t.Price = weightedMedian(all)
	outliers := 0
	for _, c := range all {
		t.Confidence = max(t.Confidence, t.Price.Distance(c.price))
		if t.Price.deviates(c.price, u.p.Tolerance) {
			outliers++
		}
	}
	t.Disagreement = outliers > int(u.p.Outliers)
	return t, nil
}

// sourceSet returns H of the ids, in their order.
func sourceSet(all []contribution) identity.ID {
	var array [MaxSources * identity.Size]byte
	b := array[:0]
	for i := range all {
		b = append(b, all[i].source[:]...)
	}
	return identity.FromParts(b)
}

// weightedMedian returns the price that half of the weight is not above and half of it not
// below. If the weight splits into two exact halves, it is halfway between the prices
// at the split, rounded down. It sorts all, of which there is one at least.
//
// Sources that hold less than half of the weight cannot move it out of the range of the
// others' prices: below the least of those lies less than half of the weight, and
// above the largest as well. The sums do not overflow: MaxSources * MaxWeight.
func weightedMedian(all []contribution) Price {
	slices.SortFunc(all, func(a, b contribution) int { return cmp.Compare(a.price, b.price) })
	total, below := uint64(0), uint64(0)
	for i := range all {
		total += all[i].weight
	}
	i := 0
	for below += all[i].weight; 2*below < total; below += all[i].weight {
		i++
	}
	if 2*below > total {
		return all[i].price
	}
	return all[i].price + all[i].price.Distance(all[i+1].price)/2
}
