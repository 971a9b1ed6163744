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
	reader     *log.StreamReader[PriceTick]
	admitted   func(identity.PeerID) bool
	parameters *identity.ID // that its ticks must have been computed under; nil: any
}

// NewUpstream returns the source of a pair. reader is of the stream that Ticks defines for
// the other oracle, anywhere; admitted says whose ticks count there (PriceTick.Verify).
// upstream is the config of the other oracle: if the reference is pinned it must be that
// revision, and only ticks under its parameters count; if it is not, it may be nil. p are
// the parameters of the oracle that asks. The error is a *FieldError.
func NewUpstream(pair Pair, config *Organism, p *Parameters, reader *log.StreamReader[PriceTick], admitted func(identity.PeerID) bool, upstream *organisms.Config) (*Upstream, error) {
	if err := config.validate(); err != nil {
		return nil, err
	}
	if want := StreamID(config.Ref.StableID, config.Pair); reader.Key() != want {
		return nil, fieldError("organism", "the reader is of the stream %s, not of %s", reader.Key().Short(), want.Short())
	}
	u := &Upstream{config: *config, id: SourceID(pair, config), decimals: p.Decimals, maxAge: p.MaxAge, reader: reader, admitted: admitted}
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
// takes the last.
func (u *Upstream) Observe(ctx context.Context, at time.Time) Observation {
	var last log.Record[PriceTick]
	n := 0
	for record, err := range u.reader.All(ctx, log.Since(at.Add(-u.maxAge))) {
		switch {
		case err != nil && ctx.Err() != nil:
			return unavailable(Timeout, log.Digest{}, "%v", err)
		case errors.Is(err, log.ErrCodec):
			return unavailable(Malformed, log.Digest{}, "%v", err)
		case err != nil:
			return unavailable(Unreachable, log.Digest{}, "%v", err)
		}
		if n++; n > MaxBacklog {
			return unavailable(TooLarge, log.Digest{}, "more than %d ticks within %v", MaxBacklog, u.maxAge)
		}
		last = record
	}
	if n == 0 {
		return unavailable(NoData, log.Digest{}, "no tick within %v", u.maxAge)
	}
	return u.accept(&last)
}

// accept makes an observation of a tick.
func (u *Upstream) accept(record *log.Record[PriceTick]) Observation {
	t := &record.Value
	digest := log.Sum(t.Append(nil))
	no := func(reason Reason, format string, args ...any) Observation {
		return unavailable(reason, digest, "record %d: "+format, append([]any{record.Seq}, args...)...)
	}
	if err := t.Verify(u.config.Ref.StableID, u.admitted); errors.Is(err, ErrSigner) {
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
		Detail: fmt.Sprintf("record %d, commit %d", record.Seq, record.Commit)}
}
