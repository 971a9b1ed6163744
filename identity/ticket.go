package identity

import (
	"cmp"
	"fmt"
	"time"
)

// MaxTicket is the largest ticket, in bytes of its data.
const MaxTicket = 8 << 10

// Ticket is a credential: it stands in its holder's entry for everybody to see, and a
// [Validator] of its class says what it is worth. To all others it is bytes.
type Ticket struct {
	// Class says what kind of credential it is, and so who can read it.
	Class ID
	Data  []byte
}

// ID returns Class.Derive(Data): a ticket that is put into an entry twice is there
// once.
func (t Ticket) ID() ID { return t.Class.Derive(string(t.Data)) }

// Expiration is when something ends to be valid. The zero value is never.
type Expiration struct {
	at time.Time // zero: never
}

// Never returns the expiration of what does not expire.
func Never() Expiration { return Expiration{} }

// ExpiresAt returns the expiration at an instant, which must not be the zero time.
func ExpiresAt(t time.Time) Expiration { return Expiration{at: t} }

// Time returns the instant, and false if there is none: it never expires.
func (e Expiration) Time() (at time.Time, limited bool) { return e.at, !e.at.IsZero() }

// IsNever reports whether it never expires.
func (e Expiration) IsNever() bool { return e.at.IsZero() }

// Expired reports whether the instant lies before now. At the instant itself it does
// not: whoever bounds that otherwise (a JWT) says so.
func (e Expiration) Expired(now time.Time) bool { return !e.IsNever() && e.at.Before(now) }

// Remaining returns how long it is valid yet: not above zero if it has expired. Without
// limit it is false, which no duration can say.
func (e Expiration) Remaining(now time.Time) (left time.Duration, limited bool) {
	if e.IsNever() {
		return 0, false
	}
	return e.at.Sub(now), true
}

// Compare orders expirations: earlier ones first, never last.
func (e Expiration) Compare(other Expiration) int {
	switch {
	case e.IsNever() || other.IsNever():
		return cmp.Compare(truth(e.IsNever()), truth(other.IsNever()))
	default:
		return e.at.Compare(other.at)
	}
}

func truth(b bool) int {
	if b {
		return 1
	}
	return 0
}

// Earliest returns the earlier of two.
func (e Expiration) Earliest(other Expiration) Expiration {
	if other.Compare(e) < 0 {
		return other
	}
	return e
}

// String returns "never" or the instant, RFC 3339 in UTC.
func (e Expiration) String() string {
	if e.IsNever() {
		return "never"
	}
	return e.at.UTC().Format(time.RFC3339)
}

// Reason is why a ticket was not accepted, in a word that programs may compare and
// that does not change. It is an error: errors.Is(err, ReasonExpired).
type Reason string

// The reasons.
const (
	ReasonAbsent       Reason = "absent"        // there is no ticket of the class
	ReasonMalformed    Reason = "malformed"     // it cannot be read
	ReasonOversize     Reason = "oversize"      // it is larger than MaxTicket
	ReasonAlgorithm    Reason = "algorithm"     // signed by a method that no key is for
	ReasonSignature    Reason = "signature"     // no key verifies its signature
	ReasonIssuer       Reason = "issuer"        // of an issuer that is not allowed
	ReasonSubject      Reason = "subject"       // for another holder
	ReasonAudience     Reason = "audience"      // for another use
	ReasonClaim        Reason = "claim"         // it lacks something that is required
	ReasonNotYetValid  Reason = "not-yet-valid" // from a later time on
	ReasonExpired      Reason = "expired"       // until an earlier time
	ReasonNonExpiring  Reason = "non-expiring"  // it must expire, and does not
	ReasonLifetime     Reason = "lifetime"      // valid for longer than is allowed
	ReasonAge          Reason = "age"           // issued too long ago, or it does not say when
	ReasonMeasurements Reason = "measurements"  // of a machine that runs something else
	ReasonUntrusted    Reason = "untrusted"     // by an authority that is not trusted
)

// Error returns the reason as a sentence.
func (r Reason) Error() string { return "mosaik: ticket not accepted: " + string(r) }

// TicketError says why a ticket was not accepted.
type TicketError struct {
	Reason Reason
	Ticket ID    // zero: there is none
	Class  ID    // of the validator
	Err    error // more about it; may be nil
}

// Error implements error.
func (e *TicketError) Error() string {
	text := "mosaik: ticket"
	if !e.Ticket.IsZero() {
		text += " " + e.Ticket.Short()
	}
	text = fmt.Sprintf("%s of class %s not accepted: %s", text, e.Class.Short(), string(e.Reason))
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

// Unwrap returns the reason and what more there is.
func (e *TicketError) Unwrap() []error {
	if e.Err == nil {
		return []error{e.Reason}
	}
	return []error{e.Reason, e.Err}
}

// reject is a TicketError that does not know yet whose it is.
func reject(r Reason, format string, args ...any) error {
	return &TicketError{Reason: r, Err: fmt.Errorf(format, args...)}
}
