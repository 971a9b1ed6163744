package tdx

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
)

// Subject is who presents a ticket, as the caller knows it from the connection and
// not from the ticket.
type Subject struct {
	Peer    identity.PeerID // the TLS identity
	Network identity.ID

	// For v2 tickets: the challenge that was put, and the digest of the peer's further
	// keys; each may be zero where none is asked for.
	Challenge identity.ID
	Keys      identity.ID
}

// Validator validates TDX tickets by a policy.
type Validator struct {
	policy  Policy
	checker *Checker
	v2      bool
	group   identity.ID // of v2
}

var _ identity.Validator = (*Validator)(nil)

// NewValidator returns a validator of v1 tickets, those of the Rust runtime. The error
// wraps [ErrPolicy]; a policy for another root than the checker's is one.
func NewValidator(policy Policy, checker *Checker) (*Validator, error) {
	if err := policy.Validate(); err != nil {
		return nil, err
	}
	if policy.Root.Fingerprint() != checker.Root().Fingerprint() {
		return nil, fmt.Errorf("%w: root is %v, quotes are verified under %v", ErrPolicy, policy.Root, checker.Root())
	}
	return &Validator{policy: policy, checker: checker}, nil
}

// V2 returns a validator by the same policy of v2 tickets alone, for a group.
func (v *Validator) V2(group identity.ID) *Validator {
	return &Validator{policy: v.policy, checker: v.checker, v2: true, group: group}
}

// Class is the class of the tickets that v validates.
func (v *Validator) Class() identity.ID {
	if v.v2 {
		return TicketClassV2()
	}
	return TicketClass()
}

// Signature identifies the validator in a group's id: [Policy.Signature] for v1, and
// for v2 the v2 class with the policy's id derived. The group is not in it: the group's
// id is made from it.
func (v *Validator) Signature() identity.ID {
	if v.v2 {
		return TicketClassV2().DeriveID(v.policy.ID())
	}
	return v.policy.Signature()
}

// Policy is the policy that v validates by.
func (v *Validator) Policy() Policy { return v.policy }

// Admission is what a valid ticket proves, until Expires: the earliest of the ticket's
// own expiry and the evidence's.
type Admission struct {
	Ticket   *Ticket   // shared; not to be changed
	Evidence *Evidence // shared; not to be changed
	Expires  time.Time
}

// Admit tells whether a ticket admits a subject at a time. A ticket that it knows takes
// a few microseconds, a new one about 2 ms, and one from a kind of platform that it
// has no collateral for the time to fetch it. The error is a [*Rejection] with all
// reasons, or wraps [ErrTicket], [ErrQuote], [ErrBusy], or what [Verify] returns.
func (v *Validator) Admit(ctx context.Context, data []byte, subject Subject, now time.Time) (*Admission, error) {
	return v.admit(ctx, data, subject, now, v.checker.cache.Collateral)
}

// Validate implements identity.Validator: Admit for the peer of an entry, without I/O.
// Where collateral is missing, the ticket is refused and the collateral is fetched in the
// background, for the next time. The answer depends on the collateral at hand, so it is
// for the edge and never for a state machine. The error is a *identity.TicketError; it
// also matches what Admit's would.
func (v *Validator) Validate(data []byte, e *identity.PeerEntry, now time.Time) (identity.Expiration, error) {
	admission, err := v.admit(context.Background(), data, Subject{Peer: e.Peer, Network: e.Network}, now, v.checker.atHand)
	if err != nil {
		return identity.Expiration{}, &identity.TicketError{Reason: reasonOf(err), Class: v.Class(), Err: err}
	}
	return identity.ExpiresAt(admission.Expires), nil
}

// reasonOf puts an error of admit into a word of identity's: that of the first reason, for
// a rejection with several.
func reasonOf(err error) identity.Reason {
	var rejected *Rejection
	switch {
	case errors.As(err, &rejected):
		switch rejected.Reasons[0].Field {
		case "peer", "keys":
			return identity.ReasonSubject
		case "network", "group":
			return identity.ReasonAudience
		case "max_age", "not_before", "challenge":
			return identity.ReasonAge
		case "max_lifetime":
			return identity.ReasonLifetime
		case "expires":
			return identity.ReasonExpired
		case "report_data":
			return identity.ReasonSignature
		case "root", "fmspc", "pck", "tcb_platform", "tcb_module", "tcb_qe", "tcb_evaluation":
			return identity.ReasonUntrusted
		}
		return identity.ReasonMeasurements
	case errors.Is(err, ErrTicket), errors.Is(err, ErrQuote):
		return identity.ReasonMalformed
	case errors.Is(err, ErrForged):
		return identity.ReasonSignature
	}
	return identity.ReasonUntrusted
}

func (v *Validator) admit(ctx context.Context, data []byte, subject Subject, now time.Time, missing source) (*Admission, error) {
	if len(data) > MaxTicketSize { // before hashing it
		return nil, fmt.Errorf("%w: %d bytes, the limit is %d", ErrTicket, len(data), MaxTicketSize)
	}
	id := ticketKey{v.v2, sha256.Sum256(data)}
	found := v.checker.known(id, now)
	if found == nil {
		var err error
		if found, err = v.verify(ctx, data, subject, now, missing); err != nil {
			return nil, err
		}
		v.checker.remember(id, found, now)
	}
	reasons := append(v.policy.Check(&found.claims), v.fits(found.ticket, subject, now)...)
	if len(reasons) > 0 {
		return nil, &Rejection{Reasons: reasons}
	}
	expires := found.evidence.NotAfter
	if at := found.ticket.Expires; !at.IsZero() && at.Before(expires) {
		expires = at
	}
	return &Admission{Ticket: found.ticket, Evidence: found.evidence, Expires: expires}, nil
}

// verify decodes a ticket, holds what it only claims against the policy, and verifies
// it if that is worth the time.
func (v *Validator) verify(ctx context.Context, data []byte, subject Subject, now time.Time, missing source) (*verdict, error) {
	t, err := DecodeTicket(v.Class(), data)
	if err != nil {
		return nil, err
	}
	q, err := ParseQuote(t.Quote)
	if err != nil {
		return nil, err
	}
	if t.V2 && q.Trailing > 0 {
		return nil, fmt.Errorf("%w: %d bytes after the quote", ErrTicket, q.Trailing)
	}
	var reasons []Reason
	if got, want := q.ReportData, t.ReportData(); got != want {
		reasons = append(reasons, Reason{"report_data", fmt.Sprintf("%x", got), fmt.Sprintf("%x", want)})
	}
	reasons = append(reasons, v.policy.Baseline.Match(&q.Measurements)...)
	reasons = append(reasons, v.policy.variants(&q.Measurements)...)
	reasons = append(reasons, v.fits(t, subject, now)...)
	if len(reasons) > 0 {
		return nil, &Rejection{Reasons: reasons}
	}
	evidence, err := v.checker.verify(ctx, t.Quote, now, missing)
	if err != nil {
		return nil, err
	}
	return &verdict{ticket: t, evidence: evidence, claims: evidence.Claims(), bound: evidence.Collateral.Digest()}, nil
}

// fits holds a ticket against its subject and the policy's limits, in the Rust
// runtime's order.
func (v *Validator) fits(t *Ticket, subject Subject, now time.Time) []Reason {
	var reasons []Reason
	add := func(field, got, want string) { reasons = append(reasons, Reason{field, got, want}) }
	stamp := func(at time.Time) string { return at.UTC().Format(time.RFC3339) }
	if t.Peer != subject.Peer {
		add("peer", t.Peer.Short(), subject.Peer.Short())
	}
	if t.Network != subject.Network {
		add("network", t.Network.Short(), subject.Network.Short())
	}
	if t.V2 {
		if t.Group != v.group {
			add("group", t.Group.Short(), v.group.Short())
		}
		if !subject.Challenge.IsZero() && t.Challenge != subject.Challenge {
			add("challenge", t.Challenge.Short(), subject.Challenge.Short())
		}
		if !subject.Keys.IsZero() && t.Keys != subject.Keys {
			add("keys", t.Keys.Short(), subject.Keys.Short())
		}
	}
	p := &v.policy
	if age := now.Sub(t.QuotedAt); p.MaxAge > 0 && (age < 0 || age > p.MaxAge) {
		add("max_age", "quoted at "+stamp(t.QuotedAt), fmt.Sprintf("at most %v before %s", p.MaxAge, stamp(now)))
	}
	if !p.NotBefore.IsZero() && t.QuotedAt.Before(p.NotBefore) {
		add("not_before", "quoted at "+stamp(t.QuotedAt), "at or after "+stamp(p.NotBefore))
	}
	if p.MaxLifetime > 0 {
		if lifetime := t.Expires.Sub(t.QuotedAt); t.Expires.IsZero() {
			add("max_lifetime", "for ever", "at most "+p.MaxLifetime.String())
		} else if lifetime < 0 || lifetime > p.MaxLifetime {
			add("max_lifetime", lifetime.String(), "at most "+p.MaxLifetime.String())
		}
	}
	if !t.Expires.IsZero() && t.Expires.Before(now) {
		add("expires", stamp(t.Expires), "at or after "+stamp(now))
	}
	return reasons
}
