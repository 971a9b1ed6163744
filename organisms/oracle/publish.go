package oracle

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/organisms"
)

// Outcome is what became of a round.
type Outcome struct {
	// Round is what was asked and answered.
	Round *Round
	// Tick is what follows from it, signed; nil: it was skipped, for too few sources.
	Tick *PriceTick
	// Pointer is evidence of the tick, or of the round if there is none.
	Pointer log.Pointer
}

// Publisher publishes the rounds and ticks of one pair. It is for one goroutine.
type Publisher struct {
	organism   *organisms.Organism
	parameters *Parameters
	feeder     *Feeder
	pair       Pair
	key        identity.Key
}

// NewPublisher returns what publishes a pair of an oracle, signing with an enclave's key. It
// goes on after the rounds that are committed. The parameters are those of the revision in
// force, else the error wraps organisms.ErrRevision. The sources are those of the
// parameters, in their order; the publisher closes them, also when this fails.
func NewPublisher(ctx context.Context, o *organisms.Organism, p *Parameters, pair Pair, sources []Source, key identity.Key) (_ *Publisher, err error) {
	f, err := NewFeeder(p, pair, sources)
	if err != nil {
		for _, s := range sources {
			err = errors.Join(err, s.Close())
		}
		return nil, err
	}
	u := &Publisher{organism: o, parameters: p, feeder: f, pair: pair, key: key}
	if err := u.resume(ctx); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return u, nil
}

// resume tells the feeder of the rounds that still matter.
func (u *Publisher) resume(ctx context.Context) error {
	inForce, err := u.organism.Parameters(ctx, log.Linearizable())
	if err == nil && !bytes.Equal(inForce, u.parameters.Append(nil)) {
		err = fmt.Errorf("%w: its parameters are not those to publish by", organisms.ErrRevision)
	}
	if err != nil {
		return err
	}
	v, err := u.organism.View(ctx, roundsOf(u.pair), log.Linearizable())
	if err != nil {
		return err
	}
	row, ok, err := v.Get(lastRow)
	if err != nil || !ok {
		return err
	}
	last, err := DecodeRound(row.Value)
	if err != nil {
		return err
	}
	// The log's times are those of commits; a round is committed after it was made.
	since := last.Time().Add(-u.parameters.MaxAge - u.parameters.MaxAhead)
	for e, err := range u.organism.Commits(ctx, roundsOf(u.pair), log.Since(since), false) {
		if err != nil {
			return err
		}
		r, err := DecodeRound(e.Body)
		if err != nil || r.Seq+resumeRounds <= last.Seq {
			continue
		}
		if err := u.feeder.Resume(&r); err != nil && r.Seq == last.Seq {
			return err
		}
	}
	return nil
}

// resumeRounds bounds the rounds that a publisher goes back to: those before it are
// older than MaxAge at any cadence that is worth the name.
const resumeRounds = 100_000

// Publish collects the round as of a time, and commits it and the tick that follows from it.
// It returns when both are durable. The error is that of Feeder.Collect or of the commit; after
// one of a commit the publisher is of no use any more: whether the round is committed is open,
// and another publisher goes on from what is.
func (u *Publisher) Publish(ctx context.Context, at time.Time) (Outcome, error) {
	p, err := u.Begin(ctx, at)
	if err != nil {
		return Outcome{}, err
	}
	return p.Wait(ctx)
}

// Pending is an outcome on its way.
type Pending struct {
	outcome     Outcome
	round, tick *organisms.Pending
}

// Begin is Publish without the wait for what is committed, so that the next round can be
// collected meanwhile. Rounds are committed in their order.
func (u *Publisher) Begin(ctx context.Context, at time.Time) (*Pending, error) {
	r, err := u.feeder.Collect(ctx, at)
	if err != nil {
		return nil, err
	}
	p := &Pending{outcome: Outcome{Round: r}}
	tick, err := Recompute(u.parameters, r)
	if err != nil && !errors.Is(err, ErrSkipped) {
		return nil, err
	}
	body := r.Append(nil)
	p.round = u.organism.Begin(ctx, roundsOf(u.pair), body)
	if err == nil {
		tick.Sign(u.organism.Ref().StableID, u.key)
		p.outcome.Tick = &tick
		p.tick = u.organism.Begin(ctx, ticksOf(u.pair), tick.Append(nil), organisms.Outside(RoundClass(), identity.ID(r.Digest())))
	}
	return p, nil
}

// RoundClass is the class of the evidence of a tick: the digest is that of its round, which
// stands under the same seq in the oracle's rounds of the pair.
func RoundClass() identity.ID { return identity.NewID("mosaik.oracle.round.v1") }

// Wait returns what became of the round, as Publish does.
func (p *Pending) Wait(ctx context.Context) (Outcome, error) {
	for _, c := range []*organisms.Pending{p.round, p.tick} {
		if c == nil {
			continue
		}
		at, result, err := c.Wait(ctx)
		if err == nil && (len(result) != 1 || result[0] != resultTaken) {
			err = fmt.Errorf("%w: round %d of %v: another publisher is at work", organisms.ErrRefused, p.outcome.Round.Seq, p.outcome.Round.Pair)
		}
		if err != nil {
			return p.outcome, err
		}
		p.outcome.Pointer = at
	}
	return p.outcome, nil
}

// Close closes the sources.
func (u *Publisher) Close() error { return u.feeder.Close() }

// Run publishes pairs at the parameters' cadence until ctx ends or one of them fails; each
// goes at its own pace. report, if not nil, is told every outcome, from several goroutines.
// A clock that goes back is waited for. It returns nil when ctx has ended, and
// organisms.ErrRetired when the oracle has.
func Run(ctx context.Context, publishers []*Publisher, report func(Outcome)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var running sync.WaitGroup
	for _, u := range publishers {
		running.Add(1)
		go u.runPair(ctx, cancel, report, running.Done)
	}
	running.Wait()
	if err := context.Cause(ctx); err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

// runPair publishes one pair.
func (u *Publisher) runPair(ctx context.Context, cancel context.CancelCauseFunc, report func(Outcome), done func()) {
	defer done()
	tick := time.NewTicker(u.parameters.Cadence)
	defer tick.Stop()
	for {
		out, err := u.Publish(ctx, time.Now())
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, ErrClock):
		case err != nil:
			cancel(fmt.Errorf("mosaik: oracle: %v: %w", u.pair, err))
			return
		case report != nil:
			report(out)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
