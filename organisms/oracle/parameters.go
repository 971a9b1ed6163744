package oracle

import (
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/organisms/wire"
)

// Role is the role of an oracle in its organisms.Config, whose Parameters are what
// Parameters.Append appends.
const Role = "oracle"

// Limits of Parameters.
const (
	MaxPairs     = 256       // pairs of an oracle
	MaxSources   = 64        // sources of a pair
	MaxWeight    = 1_000_000 // of a source
	MaxTolerance = millionths
	MaxDuration  = 24 * time.Hour // of each of the durations
)

// Policy names how a price is computed. There is a small catalog of them, this one, and
// another one in it is another program.
type Policy uint16

// WeightedMedian is the weighted median of package comment, "Aggregation".
const WeightedMedian Policy = 1

// String returns the name that files have.
func (p Policy) String() string {
	if p == WeightedMedian {
		return "weighted-median"
	}
	return fmt.Sprintf("policy %d", uint16(p))
}

// Weighted is a source of a pair with its weight.
type Weighted struct {
	Source identity.ID // SourceID of it
	Weight uint32      // 1 to MaxWeight; only ratios count
}

// Feed is a pair with its sources.
type Feed struct {
	// Pair is the pair, in the direction of its prices.
	Pair Pair
	// Sources are asked for it. Their order is that of a round's observations.
	Sources []Weighted
}

// Parameters are all that an oracle's prices depend on, beside what its sources say. Their
// encoding is the Parameters of its organisms.Config, so whoever has the content hash of an
// oracle has agreed to every one of them. Durations are whole milliseconds.
type Parameters struct {
	// Feeds are the pairs, in order. A pair stands there once, in one direction.
	Feeds []Feed
	// Catalog is the digest of the sources (Catalog.Digest).
	Catalog identity.ID
	// Policy is how a price is computed.
	Policy Policy
	// Cadence is how often a price of each pair is published.
	Cadence time.Duration
	// Deadline is how long sources may take to answer, at most Cadence.
	Deadline time.Duration
	// MaxAge is how old an observation may be at the time of its round.
	MaxAge time.Duration
	// MaxAhead is how far behind the time of its round an observation may lie. Sources
	// answer after the round has begun, so it is Deadline at least.
	MaxAhead time.Duration
	// Minimum is the number of sources below which a tick is marked as stale.
	Minimum uint8
	// Quorum is the number of sources below which there is no tick: 1 to Minimum.
	Quorum uint8
	// Outliers is how many sources may deviate from the price by more than Tolerance
	// without the tick telling so; less than half of Minimum.
	Outliers uint8
	// Decimals are those of all prices, at most MaxDecimals.
	Decimals uint8
	// Tolerance is in millionths of the price, at most MaxTolerance.
	Tolerance uint32
}

// FieldError says which field of parameters, of a catalog or of a file cannot be, and why.
type FieldError struct {
	Field string // such as "source[2].weight"
	Line  int    // of the file it was read from; 0: it was not, or the field has none
	Err   error
}

// Error names the line and the field.
func (e *FieldError) Error() string {
	where := e.Field
	if e.Line > 0 {
		where = fmt.Sprintf("line %d: %s", e.Line, e.Field)
	}
	return fmt.Sprintf("mosaik: bad oracle config: %s: %v", where, e.Err)
}

// Unwrap returns the cause.
func (e *FieldError) Unwrap() error { return e.Err }

func fieldError(field, format string, args ...any) error {
	return &FieldError{Field: field, Err: fmt.Errorf(format, args...)}
}

// Validate checks the parameters. The error is a *FieldError.
func (p *Parameters) Validate() error {
	for _, d := range [...]struct {
		field string
		value time.Duration
	}{{"cadence", p.Cadence}, {"deadline", p.Deadline}, {"max-age", p.MaxAge}, {"max-ahead", p.MaxAhead}} {
		if d.value <= 0 || d.value > MaxDuration || d.value%time.Millisecond != 0 {
			return fieldError(d.field, "%v is not from 1ms to %v in whole milliseconds", d.value, MaxDuration)
		}
	}
	switch {
	case p.Policy != WeightedMedian:
		return fieldError("aggregation", "%v is not known; this program knows %v", p.Policy, WeightedMedian)
	case p.Deadline > p.Cadence:
		return fieldError("deadline", "%v is more than the cadence, %v", p.Deadline, p.Cadence)
	case p.MaxAhead < p.Deadline:
		return fieldError("max-ahead", "%v is less than the deadline, %v: a source may answer that late", p.MaxAhead, p.Deadline)
	case p.Quorum < 1 || p.Quorum > p.Minimum:
		return fieldError("quorum", "%d is not from 1 to the minimum, %d", p.Quorum, p.Minimum)
	case 2*int(p.Outliers) >= int(p.Minimum):
		return fieldError("outliers", "%d is not less than half of the minimum, %d", p.Outliers, p.Minimum)
	case p.Decimals > MaxDecimals:
		return fieldError("decimals", "%d, the limit is %d", p.Decimals, MaxDecimals)
	case p.Tolerance > MaxTolerance:
		return fieldError("tolerance", "%d millionths, the limit is %d", p.Tolerance, MaxTolerance)
	case p.Catalog.IsZero():
		return fieldError("catalog", "its digest is zero")
	case len(p.Feeds) == 0 || len(p.Feeds) > MaxPairs:
		return fieldError("pairs", "%d, there are 1 to %d", len(p.Feeds), MaxPairs)
	}
	return p.validateFeeds()
}

func (p *Parameters) validateFeeds() error {
	pairs := make(map[Pair]int, len(p.Feeds))
	sources := make(map[identity.ID]string)
	for i := range p.Feeds {
		f := &p.Feeds[i]
		at := fmt.Sprintf("pairs[%d]", i)
		if err := f.Pair.Validate(); err != nil {
			return fieldError(at, "%w", err)
		}
		if before, twice := pairs[f.Pair.sorted()]; twice {
			return fieldError(at, "%v is also pairs[%d], in this or the other direction", f.Pair, before)
		}
		pairs[f.Pair.sorted()] = i
		if n := len(f.Sources); n < int(p.Minimum) || n > MaxSources {
			return fieldError(at, "%v has %d sources, there are %d (the minimum) to %d", f.Pair, n, p.Minimum, MaxSources)
		}
		for j, s := range f.Sources {
			at := fmt.Sprintf("%s, source %d", at, j)
			if s.Source.IsZero() {
				return fieldError(at, "its id is zero")
			}
			if before, twice := sources[s.Source]; twice {
				return fieldError(at, "it is also %s", before)
			}
			sources[s.Source] = at
			if s.Weight < 1 || s.Weight > MaxWeight {
				return fieldError(at, "its weight is %d, not 1 to %d", s.Weight, MaxWeight)
			}
		}
	}
	return nil
}

// parametersDomain opens the encoding of parameters.
const parametersDomain = "oracle-parameters|\x01|"

// Append appends the one encoding of parameters that Validate accepts
// (docs/format/oracle.md): the preimage of Digest, and the Parameters of the oracle's
// organisms.Config.
func (p *Parameters) Append(dst []byte) []byte {
	dst = append(dst, parametersDomain...)
	dst = binary.LittleEndian.AppendUint16(dst, uint16(p.Policy))
	for _, d := range [...]time.Duration{p.Cadence, p.Deadline, p.MaxAge, p.MaxAhead} {
		dst = binary.LittleEndian.AppendUint32(dst, uint32(d.Milliseconds()))
	}
	dst = append(dst, p.Minimum, p.Quorum, p.Outliers, p.Decimals)
	dst = binary.LittleEndian.AppendUint32(dst, p.Tolerance)
	dst = append(dst, p.Catalog[:]...)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(p.Feeds)))
	for i := range p.Feeds {
		f := &p.Feeds[i]
		dst = wire.AppendText(wire.AppendText(dst, f.Pair.Base), f.Pair.Quote)
		dst = append(dst, uint8(len(f.Sources)))
		for _, s := range f.Sources {
			dst = binary.LittleEndian.AppendUint32(append(dst, s.Source[:]...), s.Weight)
		}
	}
	return dst
}

// DecodeParameters decodes what Append appended and nothing else. The error wraps
// ErrEncoding or is a *FieldError.
func DecodeParameters(b []byte) (*Parameters, error) {
	c := newCutter(b)
	p := new(Parameters)
	c.Literal("domain and version", parametersDomain)
	p.Policy = Policy(c.U16("aggregation"))
	for _, d := range [...]*time.Duration{&p.Cadence, &p.Deadline, &p.MaxAge, &p.MaxAhead} {
		*d = time.Duration(c.U32("durations")) * time.Millisecond
	}
	p.Minimum, p.Quorum, p.Outliers, p.Decimals = c.U8("minimum"), c.U8("quorum"), c.U8("outliers"), c.U8("decimals")
	p.Tolerance = c.U32("tolerance")
	p.Catalog = c.ID("catalog")
	n := c.U32("pairs")
	if n > MaxPairs {
		c.Fail("pairs", "%d, the limit is %d", n, MaxPairs)
	}
	for i := uint32(0); i < n && !c.Failed(); i++ {
		f := Feed{Pair: Pair{c.Text("base", MaxSymbol), c.Text("quote", MaxSymbol)}}
		for range c.U8("sources") {
			f.Sources = append(f.Sources, Weighted{c.ID("source"), c.U32("weight")})
		}
		p.Feeds = append(p.Feeds, f)
	}
	if err := c.End(); err != nil {
		return nil, fmt.Errorf("parameters: %w", err)
	}
	if err := p.Validate(); err != nil {
		return nil, err
	}
	return p, nil
}

// Digest returns the hash of the encoding. Another parameter, source or weight is another
// digest. It is defined for parameters that Validate accepts.
func (p *Parameters) Digest() identity.ID { return identity.FromParts(p.Append(nil)) }

// Feed returns the pair's feed, or nil if the oracle has no such pair in that direction.
// It is part of p.
func (p *Parameters) Feed(pair Pair) *Feed {
	i := slices.IndexFunc(p.Feeds, func(f Feed) bool { return f.Pair == pair })
	if i < 0 {
		return nil
	}
	return &p.Feeds[i]
}

// Matches checks that the catalog is the one that the parameters are about: its digest, and
// pair by pair its sources. The error is a *FieldError.
func (p *Parameters) Matches(c *Catalog) error {
	if digest := c.Digest(); digest != p.Catalog {
		return fieldError("catalog", "its digest is %s, the parameters are about %s", digest, p.Catalog)
	}
	same := slices.EqualFunc(p.Feeds, c.Pairs, func(f Feed, l Listing) bool {
		return f.Pair == l.Pair && slices.EqualFunc(f.Sources, l.Sources, func(w Weighted, s SourceConfig) bool {
			return w.Source == SourceID(l.Pair, s)
		})
	})
	if !same {
		return fieldError("pairs", "the pairs and sources of the parameters are not those of the catalog, in its order")
	}
	return nil
}
