package oracle

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

// MaxDetail bounds the detail of an observation, in bytes of UTF-8.
const MaxDetail = 200

// Reason is what became of asking a source. Its numbers are part of the encoding; there
// are only more.
type Reason uint8

// The reasons. Those from TooOld to Contradiction are given by whoever collects the round,
// to observations that have a price.
const (
	Available     Reason = 1  // it has a price
	Unreachable   Reason = 2  // no connection, or none that lasted
	Timeout       Reason = 3  // no answer in time
	BadPin        Reason = 4  // the server has another key than the one that is pinned
	Redirected    Reason = 5  // the answer is to look elsewhere
	BadStatus     Reason = 6  // an HTTP status other than 200
	TooLarge      Reason = 7  // the answer is larger than its limit
	Malformed     Reason = 8  // the answer is not in its form
	BadPrice      Reason = 9  // what stands for the price is none (ErrPrice)
	NoData        Reason = 10 // the source has nothing yet, or nothing any more
	NotAdmitted   Reason = 11 // another oracle's tick has a signer that is not admitted
	BadSignature  Reason = 12 // another oracle's tick is not signed
	OtherPolicy   Reason = 13 // another oracle's tick is not of the pinned revision
	Doubtful      Reason = 14 // another oracle says itself that its price is stale or disputed
	Unordered     Reason = 15 // within the source's own data time goes backwards
	TooOld        Reason = 16 // observed more than MaxAge before the round
	TooNew        Reason = 17 // observed more than MaxAhead after the round
	Backwards     Reason = 18 // observed before what the source has said already
	Contradiction Reason = 19 // another price for the very time that the source has given one for
)

// String returns what operators and auditors read.
func (r Reason) String() string {
	names := [...]string{
		Available: "available", Unreachable: "unreachable", Timeout: "timeout", BadPin: "bad pin", Redirected: "redirected",
		BadStatus: "bad status", TooLarge: "too large", Malformed: "malformed", BadPrice: "bad price", NoData: "no data",
		NotAdmitted: "not admitted", BadSignature: "bad signature", OtherPolicy: "other policy", Doubtful: "doubtful",
		Unordered: "unordered", TooOld: "too old", TooNew: "too new", Backwards: "backwards", Contradiction: "contradiction",
	}
	if int(r) >= len(names) || names[r] == "" {
		return fmt.Sprintf("reason %d", uint8(r))
	}
	return names[r]
}

// judged reports whether it is a reason that time gives, to an observation with a price.
func (r Reason) judged() bool { return r >= TooOld && r <= Contradiction }

// Observation is what one source said, or why it said nothing.
type Observation struct {
	// Source is the id of the source (SourceID).
	Source identity.ID
	// Reason is Available, or why the price does not count.
	Reason Reason
	// Price is what it said, in units of the oracle's decimals; 0 if it said none.
	Price Price
	// ObservedAt is when the price was right, in nanoseconds since 1970; 0 without a price.
	ObservedAt int64
	// Response is the digest of the whole answer, as it came; zero if there was none.
	Response log.Digest
	// Detail is for people, such as the error; at most MaxDetail bytes of UTF-8.
	Detail string
}

// unavailable makes an observation without a price. The detail is cut to what fits.
func unavailable(reason Reason, response log.Digest, format string, args ...any) Observation {
	return Observation{Reason: reason, Response: response, Detail: cutDetail(fmt.Sprintf(format, args...))}
}

func cutDetail(s string) string {
	s = strings.ToValidUTF8(s, "�")
	if len(s) <= MaxDetail {
		return s
	}
	return strings.ToValidUTF8(s[:MaxDetail], "") // a character may have been cut in two
}

// Round is what was asked and answered for one tick: all that the price follows from.
type Round struct {
	// TimestampMs is when the sources were asked, in milliseconds since 1970.
	TimestampMs uint64
	// Pair is what they were asked for.
	Pair Pair
	// Seq numbers the rounds of a pair, from 1, without gaps.
	Seq uint64
	// Parameters is the digest of the parameters.
	Parameters identity.ID
	// Observations are of all sources of the pair, in the parameters' order.
	Observations []Observation
}

// Validate checks what can be wrong in a round by itself. The error wraps ErrEncoding and
// names the field.
func (r *Round) Validate() error {
	bad := func(field, format string, args ...any) error {
		return fmt.Errorf("%w: round: %s: "+format, append([]any{ErrEncoding, field}, args...)...)
	}
	if err := r.Pair.Validate(); err != nil {
		return bad("pair", "%w", err)
	}
	switch n := len(r.Observations); {
	case r.TimestampMs > maxTimestamp:
		return bad("timestamp", "%d, the limit is %d", r.TimestampMs, uint64(maxTimestamp))
	case r.Seq == 0:
		return bad("seq", "it is 0; the first is 1")
	case n == 0 || n > MaxSources:
		return bad("observations", "%d, there are 1 to %d", n, MaxSources)
	}
	for i := range r.Observations {
		if err := r.Observations[i].validate(); err != nil {
			return bad(fmt.Sprintf("observation %d", i), "%w", err)
		}
	}
	return nil
}

func (o *Observation) validate() error {
	switch {
	case o.Reason < Available || o.Reason > Contradiction:
		return fmt.Errorf("its reason is %d", o.Reason)
	case o.Price > MaxPrice:
		return fmt.Errorf("its price is %d, the limit is %d", o.Price, MaxPrice)
	case (o.Price != 0) != (o.Reason == Available || o.Reason.judged()):
		return fmt.Errorf("it is %v, and its price is %d", o.Reason, o.Price)
	case o.ObservedAt < 0 || o.Price == 0 && o.ObservedAt != 0:
		return fmt.Errorf("its price is %d, and it was observed at %d", o.Price, o.ObservedAt)
	case len(o.Detail) > MaxDetail:
		return fmt.Errorf("its detail has %d bytes, the limit is %d", len(o.Detail), MaxDetail)
	case !utf8.ValidString(o.Detail):
		return errors.New("its detail is not UTF-8")
	}
	return nil
}

// Append appends the one encoding of a round that Validate accepts.
func (r *Round) Append(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint64(append(dst, version), r.TimestampMs)
	dst = appendSymbol(appendSymbol(dst, r.Pair.Base), r.Pair.Quote)
	dst = binary.LittleEndian.AppendUint64(dst, r.Seq)
	dst = append(append(dst, r.Parameters[:]...), uint8(len(r.Observations)))
	for i := range r.Observations {
		o := &r.Observations[i]
		dst = append(append(dst, o.Source[:]...), uint8(o.Reason))
		dst = binary.LittleEndian.AppendUint64(dst, uint64(o.Price))
		dst = binary.LittleEndian.AppendUint64(dst, uint64(o.ObservedAt))
		dst = append(append(dst, o.Response[:]...), uint8(len(o.Detail)))
		dst = append(dst, o.Detail...)
	}
	return dst
}

// DecodeRound decodes exactly what Append appended. The error wraps ErrEncoding.
func DecodeRound(b []byte) (Round, error) {
	c := newCutter(b)
	if v := c.U8("version"); v != version {
		c.Fail("version", "%d, this program knows %d", v, version)
	}
	r := Round{
		TimestampMs: c.U64("timestamp"),
		Pair:        Pair{c.symbol("base"), c.symbol("quote")},
		Seq:         c.U64("seq"),
		Parameters:  c.ID("parameters"),
	}
	n := c.U8("observations")
	for i := uint8(0); i < n && !c.Failed(); i++ {
		r.Observations = append(r.Observations, Observation{
			Source:     c.ID("source"),
			Reason:     Reason(c.U8("reason")),
			Price:      Price(c.U64("price")),
			ObservedAt: int64(c.U64("observed at")),
			Response:   log.Digest(c.ID("response")),
			Detail:     string(c.Take("detail", int(c.U8("detail")))),
		})
	}
	if err := c.End(); err != nil {
		return Round{}, fmt.Errorf("round: %w", err)
	}
	if err := r.Validate(); err != nil {
		return Round{}, err
	}
	return r, nil
}

// Digest returns the hash of the encoding, which the tick carries.
func (r *Round) Digest() log.Digest { return log.Sum(r.Append(nil)) }

// Time returns the timestamp, in UTC.
func (r *Round) Time() time.Time { return time.UnixMilli(int64(r.TimestampMs)).UTC() }
