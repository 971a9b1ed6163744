package oracle

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/organisms"
)

// MaxBacklog bounds the ticks of another oracle that are read for one observation.
const MaxBacklog = 10_000

// Upstream is the source that an Organism says: the last tick of another oracle, if it is
// signed by somebody who is admitted.
type Upstream struct {
	config     Organism
	id         identity.ID
	decimals   uint8
	maxAge     time.Duration
	reader     *Reader
	parameters *identity.ID // that its ticks must have been computed under; nil: any
}

// NewUpstream returns the source of a pair. reader is of the other oracle's pair, anywhere,
// and says whose ticks count there. upstream is the config of the other oracle: if the
// reference is pinned it must be that revision, and only ticks under its parameters count; if
// it is not, it may be nil. p are the parameters of the oracle that asks. The error is a
// *FieldError.
func NewUpstream(pair Pair, config *Organism, p *Parameters, reader *Reader, upstream *organisms.Config) (*Upstream, error) {
	if err := config.validate(); err != nil {
		return nil, err
	}
	if have := reader.surface.Ref().StableID; have != config.Ref.StableID || reader.pair.sorted() != config.Pair.sorted() {
		return nil, fieldError("organism", "the reader is of %v of %s, not of %v of %s", reader.pair, have.Short(), config.Pair, config.Ref.StableID.Short())
	}
	u := &Upstream{config: *config, id: SourceID(pair, config), decimals: p.Decimals, maxAge: p.MaxAge, reader: reader}
	pin := config.Ref.ContentHash
	if pin == nil {
		return u, nil
	}
	if upstream == nil || upstream.StableID() != config.Ref.StableID || upstream.ContentHash() != *pin {
		return nil, fieldError("organism", "the reference is pinned to %s, and that config is not given", pin.Short())
	}
	digest := identity.FromParts(upstream.Parameters)
	u.parameters = &digest
	return u, nil
}

// ID implements Source.
func (u *Upstream) ID() identity.ID { return u.id }

// Close implements Source. The reader stays open: it is the caller's.
func (u *Upstream) Close() error { return nil }

// Observe implements Source. It reads the ticks that were committed within MaxAge of at, and
// takes the last. Those of an oracle that has retired count until they are too old.
func (u *Upstream) Observe(ctx context.Context, at time.Time) Observation {
	var last PriceTick
	var pointer log.Pointer
	n := 0
	for e, err := range u.reader.surface.Commits(ctx, ticksOf(u.reader.pair), log.Since(at.Add(-u.maxAge)), false) {
		switch {
		case err == nil:
		case errors.Is(err, organisms.ErrRetired):
			continue // the end
		case ctx.Err() != nil:
			return unavailable(Timeout, log.Digest{}, "%v", err)
		case errors.Is(err, organisms.ErrRevision):
			return unavailable(OtherPolicy, log.Digest{}, "%v", err)
		default:
			return unavailable(Unreachable, log.Digest{}, "%v", err)
		}
		if n++; n > MaxBacklog {
			return unavailable(TooLarge, log.Digest{}, "more than %d ticks within %v", MaxBacklog, u.maxAge)
		}
		if t, err := DecodeTick(e.Body); err == nil && t.Seq > last.Seq { // else its machine has refused it
			last, pointer = t, e.Pointer
		}
	}
	if last.Seq == 0 {
		return unavailable(NoData, log.Digest{}, "no tick within %v", u.maxAge)
	}
	return u.accept(&last, pointer)
}

// accept makes an observation of a tick.
func (u *Upstream) accept(t *PriceTick, at log.Pointer) Observation {
	digest := log.Sum(t.Append(nil))
	no := func(reason Reason, format string, args ...any) Observation {
		return unavailable(reason, digest, "record %d: "+format, append([]any{at.Seq}, args...)...)
	}
	if err := t.Verify(u.config.Ref.StableID, u.reader.admitted); errors.Is(err, ErrSigner) {
		return no(NotAdmitted, "%v", err)
	} else if err != nil {
		return no(BadSignature, "%v", err)
	}
	switch {
	case t.Pair != u.config.Pair:
		return no(Malformed, "it is of %v, not of %v", t.Pair, u.config.Pair)
	case u.parameters != nil && t.Parameters != *u.parameters:
		return no(OtherPolicy, "its parameters are %s, not %s", t.Parameters.Short(), u.parameters.Short())
	case t.Stale || t.Disagreement:
		return no(Doubtful, "stale %t, disagreement %t", t.Stale, t.Disagreement)
	}
	price, err := t.Price.Rescale(t.Decimals, u.decimals)
	if err != nil {
		return no(BadPrice, "%v", err)
	}
	return Observation{Reason: Available, Price: price, ObservedAt: int64(t.TimestampMs) * int64(time.Millisecond), Response: digest,
		Detail: fmt.Sprintf("record %d, commit %d", at.Seq, at.Commit)}
}
