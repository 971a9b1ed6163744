package tdx

import (
	"context"
	"crypto/sha256"
	"fmt"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
)

// Subject is who presents a ticket, as the caller knows it from the connection and
// not from the ticket.
type Subject struct {
	Peer    identity.PeerID // the TLS identity
	Network identity.ID

	// For v2 tickets: the group to be admitted to, the challenge that was put, which
	// may be zero where none was, and the digest of the peer's further keys.
	Group     identity.ID
	Challenge identity.ID
	Keys      identity.ID
}

// Validator validates TDX tickets by a policy.
type Validator struct {
	policy  Policy
	checker *Checker
	v2      bool
}

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

// V2 returns a validator by the same policy of v2 tickets alone.
func (v *Validator) V2() *Validator {
	return &Validator{policy: v.policy, checker: v.checker, v2: true}
}

// Class is the class of the tickets that v validates.
func (v *Validator) Class() identity.ID {
	if v.v2 {
		return TicketClassV2()
	}
	return TicketClass()
}

// Signature identifies the validator in a group's id: [Policy.Signature] for v1, and
// for v2 the v2 class with the policy's id derived.
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

// Validate tells whether a ticket admits a subject now. A ticket that it knows takes
// a few microseconds, a new one about 2 ms, and one from a kind of platform that it
// has no collateral for the time to fetch it. The error is a [*Rejection] with all
// reasons, or wraps [ErrTicket], [ErrQuote], [ErrBusy], or what [Verify] returns.
func (v *Validator) Validate(ctx context.Context, data []byte, subject Subject) (*Admission, error) {
	if len(data) > MaxTicketSize { // before hashing it
		return nil, fmt.Errorf("%w: %d bytes, the limit is %d", ErrTicket, len(data), MaxTicketSize)
	}
	now, id := time.Now(), ticketKey{v.v2, sha256.Sum256(data)}
	found := v.checker.known(id, now)
	if found == nil {
		var err error
		if found, err = v.verify(ctx, data, subject, now); err != nil {
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
func (v *Validator) verify(ctx context.Context, data []byte, subject Subject, now time.Time) (*verdict, error) {
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
	evidence, err := v.checker.Verify(ctx, t.Quote)
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
		if t.Group != subject.Group {
			add("group", t.Group.Short(), subject.Group.Short())
		}
		if !subject.Challenge.IsZero() && t.Challenge != subject.Challenge {
			add("challenge", t.Challenge.Short(), subject.Challenge.Short())
		}
		if t.Keys != subject.Keys {
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
