package oracle

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
)

// Source is where a price comes from. It is asked by one goroutine at a time.
type Source interface {
	// ID returns the id of the source (SourceID).
	ID() identity.ID
	// Observe asks for the price at a time, that of the round. It returns soon after ctx ends.
	// All that goes wrong is a reason: it returns an observation with a price and Available,
	// or without and the reason. The feeder fills in Source.
	Observe(ctx context.Context, at time.Time) Observation
	// Close gives back what the source holds. It is not asked again.
	Close() error
}

// ErrClock says that the time of a round is not after that of the round before. There was no
// round, and the next one has its seq.
var ErrClock = errors.New("mosaik: the clock of the oracle has gone back")

// Feeder collects the rounds of one pair. It is for one goroutine.
type Feeder struct {
	rules   *rules
	sources []Source
	history history
}

// NewFeeder returns a feeder of a pair. It keeps p, which must not be changed, and sources,
// which must be those of the parameters, in their order; it closes them when it is closed.
// The error is a *FieldError or wraps ErrRound; the sources are the caller's still.
func NewFeeder(p *Parameters, pair Pair, sources []Source) (*Feeder, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	u, err := newRules(p, pair)
	if err != nil {
		return nil, err
	}
	if len(sources) != len(u.feed.Sources) {
		return nil, fmt.Errorf("%w: %d sources for %v, the parameters have %d", ErrRound, len(sources), pair, len(u.feed.Sources))
	}
	for i, s := range sources {
		if s.ID() != u.feed.Sources[i].Source {
			return nil, fmt.Errorf("%w: source %d for %v is %s, not %s", ErrRound, i, pair, s.ID().Short(), u.feed.Sources[i].Source.Short())
		}
	}
	return &Feeder{rules: u, sources: sources, history: history{sources: make([]seen, len(sources))}}, nil
}

// Resume tells the feeder of a round that was committed, before the first Collect; the last
// one it is told of gives the seq that is next. Those of the last MaxAge and MaxAhead are
// enough. Of a round under other parameters, from before a rotation, only its seq and time
// count: its sources are others. The error wraps ErrRound, and leaves all as it was.
func (f *Feeder) Resume(r *Round) error {
	if r.Pair.sorted() == f.rules.feed.Pair.sorted() && r.Parameters != f.rules.digest && r.Seq > f.history.seq {
		f.history.begin(f.rules, r)
		return nil
	}
	if err := f.rules.check(r); err != nil {
		return err
	}
	if err := f.history.check(f.rules, r); err != nil {
		return err
	}
	f.history.add(f.rules, r)
	return nil
}

// Collect asks all sources at once, as of at, and returns what they answered within
// Parameters.Deadline. It waits for all of them. The round's seq is used up, whatever
// becomes of the round: Recompute gives its tick, or ErrSkipped, and then the seq is a gap.
// The round is to be committed in either case. Should that fail, the feeder has a round that
// the log has not: go on with a new one, after Resume. An error is ErrClock, or ctx's; then
// there was no round.
func (f *Feeder) Collect(ctx context.Context, at time.Time) (*Round, error) {
	ms := at.UnixMilli()
	if ms <= 0 || ms > maxTimestamp || f.history.seq != 0 && uint64(ms) <= f.history.timestampMs {
		return nil, fmt.Errorf("%w: %v is not after %v", ErrClock, at, time.UnixMilli(int64(f.history.timestampMs)))
	}
	at = time.UnixMilli(ms) // what is committed is what sources are asked for
	r := &Round{
		TimestampMs: uint64(ms), Pair: f.rules.feed.Pair, Seq: f.history.seq + 1, Parameters: f.rules.digest,
		Observations: make([]Observation, len(f.sources)),
	}
	within, cancel := context.WithTimeout(ctx, f.rules.p.Deadline)
	defer cancel()
	var waiting sync.WaitGroup
	waiting.Add(len(f.sources))
	for i := range f.sources {
		go f.runSource(within, at, i, &r.Observations[i], &waiting)
	}
	waiting.Wait()
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("mosaik: collect %v: %w", r.Pair, err)
	}
	for i := range r.Observations {
		if o := &r.Observations[i]; o.Reason == Available {
			o.Reason = f.history.judge(f.rules, r.TimestampMs, i, o)
		}
	}
	f.history.add(f.rules, r)
	return r, nil
}

// runSource asks one source. What it answers is held against the form of observations here,
// so that no source can spoil a round.
func (f *Feeder) runSource(ctx context.Context, at time.Time, i int, out *Observation, waiting *sync.WaitGroup) {
	defer waiting.Done()
	o := f.sources[i].Observe(ctx, at)
	o.Detail = cutDetail(o.Detail)
	err := o.validate()
	if err == nil && o.Reason.judged() {
		err = fmt.Errorf("it calls itself %v", o.Reason)
	}
	if err != nil {
		o = unavailable(Malformed, o.Response, "no observation: %v", err)
	}
	o.Source = f.rules.feed.Sources[i].Source
	*out = o
}

// Close closes the sources. No Collect may be running.
func (f *Feeder) Close() error {
	var all []error
	for _, s := range f.sources {
		all = append(all, s.Close())
	}
	return errors.Join(all...)
}
