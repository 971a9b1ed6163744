package tdx

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
)

// MaxPolicyEntries is the largest number of entries in each list of a [Policy].
const MaxPolicyEntries = 256

// ErrPolicy reports a policy that makes no sense. The error names the field.
var ErrPolicy = errors.New("tdx: invalid policy")

// ErrRejected reports evidence or a ticket that a policy does not accept; errors.As
// with a [*Rejection] gives the reasons.
var ErrRejected = errors.New("tdx: not acceptable")

// Policy says which TDs are acceptable. Its zero value with a root accepts every TD
// that is genuine and up to date, which is hardly ever wanted: name at least an MRTD.
// A Policy is a value; change none that is in use.
type Policy struct {
	// Root is the root of trust that quotes must have been verified with.
	Root Root

	// Baseline must fit, and, where there are any, at least one of Variants too. A
	// register that may hold one of several values is a variant each: this is how old
	// and new images are admitted together while a rotation lasts.
	Baseline Criteria
	Variants []Criteria

	MRSEAM     []Measurement // TDX modules; empty: any that Intel signed
	Attributes Bits          // of the TD; debug is refused in any case
	XFAM       Bits          // extended CPU features the TD may use

	// WorstTCB is the worst status of the platform that is accepted; StatusUnknown
	// means UpToDate. [Verify] itself refuses a module or a quoting enclave that is
	// not up to date.
	WorstTCB Status

	// MinEvaluation is the lowest tcbEvaluationDataNumber of the collateral.
	MinEvaluation uint32

	BannedFMSPC []string      // kinds of platform, 12 lower-case hex digits
	BannedPCK   []identity.ID // platforms, by [Evidence.PCK]

	// The limits on tickets, each 0 for none: how long ago the quote may have been
	// made, the earliest time it may have been made at, and how long after that the
	// ticket may last. Whole seconds. A ticket never lasts longer than the collateral
	// that it was verified with.
	MaxAge      time.Duration
	NotBefore   time.Time
	MaxLifetime time.Duration
}

// Bits restricts a set of flags.
type Bits struct {
	Set   uint64 // bits that must be set
	Clear uint64 // bits that must not
}

func (b Bits) fit(n uint64) bool { return n&b.Set == b.Set && n&b.Clear == 0 }

// Claims are the proven facts that a policy looks at: those of [Evidence], or of an
// admission record made from it, so that a later policy can judge a member again
// without its quote.
type Claims struct {
	Root         identity.ID // fingerprint of the root that the quote was verified with
	Simulated    bool
	Measurements Measurements
	MRSEAM       Measurement
	Attributes   uint64
	XFAM         uint64
	TCB          TCB
	FMSPC        string
	PCK          identity.ID
}

// Claims returns what a policy looks at. The advisories are shared.
func (e *Evidence) Claims() Claims {
	return Claims{
		Root: e.Root, Simulated: e.Simulated, Measurements: e.Quote.Measurements, MRSEAM: e.Quote.MRSEAM,
		Attributes: e.Quote.TDAttributes, XFAM: e.Quote.XFAM, TCB: e.TCB, FMSPC: e.FMSPC, PCK: e.PCK,
	}
}

// Reason is one field that is not as a policy wants it.
type Reason struct {
	Field string // its name, in lower case with underscores
	Got   string
	Want  string
}

// String is "field is got, want want".
func (r Reason) String() string { return fmt.Sprintf("%s is %s, want %s", r.Field, r.Got, r.Want) }

// Rejection is the error of what a policy does not accept. It matches [ErrRejected].
type Rejection struct {
	Reasons []Reason // at least one
}

// Error lists the reasons.
func (r *Rejection) Error() string {
	texts := make([]string, len(r.Reasons))
	for i, reason := range r.Reasons {
		texts[i] = reason.String()
	}
	return ErrRejected.Error() + ": " + strings.Join(texts, "; ")
}

// Is makes errors.Is(err, ErrRejected) true.
func (r *Rejection) Is(target error) bool { return target == ErrRejected }

// Validate reports a policy that cannot be meant. The error wraps [ErrPolicy].
func (p *Policy) Validate() error {
	bad := func(text string, args ...any) error {
		return fmt.Errorf("%w: "+text, append([]any{ErrPolicy}, args...)...)
	}
	switch {
	case p.Root.certificate == nil:
		return bad("no root of trust is set; use IntelRoot")
	case p.WorstTCB >= Revoked:
		return bad("worst_tcb is %v; a revoked platform is never accepted", p.WorstTCB)
	case p.Attributes.Set&p.Attributes.Clear != 0:
		return bad("attributes %#x must be both set and clear", p.Attributes.Set&p.Attributes.Clear)
	case p.XFAM.Set&p.XFAM.Clear != 0:
		return bad("xfam bits %#x must be both set and clear", p.XFAM.Set&p.XFAM.Clear)
	}
	for _, d := range []struct {
		name string
		d    time.Duration
	}{{"max_age", p.MaxAge}, {"max_lifetime", p.MaxLifetime}} {
		if d.d < 0 || d.d%time.Second != 0 {
			return bad("%s is %v, want whole seconds, 0 or more", d.name, d.d)
		}
	}
	for _, list := range []struct {
		name string
		n    int
	}{{"variants", len(p.Variants)}, {"mrseam", len(p.MRSEAM)}, {"banned_fmspc", len(p.BannedFMSPC)}, {"banned_pck", len(p.BannedPCK)}} {
		if list.n > MaxPolicyEntries {
			return bad("%s has %d entries, the limit is %d", list.name, list.n, MaxPolicyEntries)
		}
	}
	for _, fmspc := range p.BannedFMSPC {
		if len(fmspc) != 12 || strings.Trim(fmspc, "0123456789abcdef") != "" {
			return bad("banned_fmspc %q, want 12 lower-case hex digits", fmspc)
		}
	}
	return nil
}

// Check compares claims with the policy and returns a reason for every field that
// is not acceptable, in a fixed order; none: acceptable. It reads no clock and
// verifies nothing: a state machine may run it.
func (p *Policy) Check(c *Claims) []Reason {
	var reasons []Reason
	add := func(field string, got, want any) {
		reasons = append(reasons, Reason{field, fmt.Sprint(got), fmt.Sprint(want)})
	}
	if root := p.Root.Fingerprint(); c.Root != root || root.IsZero() || c.Simulated != p.Root.simulated {
		got := c.Root.Short()
		if c.Simulated {
			got = "SIMULATED " + got
		}
		add("root", got, p.Root)
	}
	reasons = append(reasons, p.Baseline.Match(&c.Measurements)...)
	reasons = append(reasons, p.variants(&c.Measurements)...)
	if len(p.MRSEAM) > 0 && !slices.Contains(p.MRSEAM, c.MRSEAM) {
		add("mrseam", c.MRSEAM, fmt.Sprintf("one of %d", len(p.MRSEAM)))
	}
	if c.Attributes&attributeTUD != 0 {
		add("debug", fmt.Sprintf("%#x", c.Attributes&attributeTUD), "0x0")
	}
	if !p.Attributes.fit(c.Attributes) {
		add("attributes", fmt.Sprintf("%#x", c.Attributes), fmt.Sprintf("%#x set and %#x clear", p.Attributes.Set, p.Attributes.Clear))
	}
	if !p.XFAM.fit(c.XFAM) {
		add("xfam", fmt.Sprintf("%#x", c.XFAM), fmt.Sprintf("%#x set and %#x clear", p.XFAM.Set, p.XFAM.Clear))
	}
	worst := max(p.WorstTCB, UpToDate)
	for _, part := range []struct {
		field string
		is    Status
	}{{"tcb_platform", c.TCB.Platform}, {"tcb_module", c.TCB.Module}, {"tcb_qe", c.TCB.QE}} {
		if part.is > worst || part.is == StatusUnknown {
			add(part.field, part.is, fmt.Sprintf("%v or better", worst))
		}
	}
	if c.TCB.EvaluationNumber < p.MinEvaluation {
		add("tcb_evaluation", c.TCB.EvaluationNumber, fmt.Sprintf("%d or more", p.MinEvaluation))
	}
	if slices.Contains(p.BannedFMSPC, c.FMSPC) {
		add("fmspc", c.FMSPC, "one that is not banned")
	}
	if slices.Contains(p.BannedPCK, c.PCK) {
		add("pck", c.PCK.Short(), "one that is not banned")
	}
	return reasons
}

// variants gives the reasons against the nearest variant, the one with the fewest,
// so that one wrong register is told as one.
func (p *Policy) variants(m *Measurements) []Reason {
	var nearest []Reason
	for i := range p.Variants {
		reasons := p.Variants[i].Match(m)
		if len(reasons) == 0 {
			return nil
		}
		if nearest == nil || len(reasons) < len(nearest) {
			nearest = reasons
		}
	}
	if len(p.Variants) > 1 {
		for i := range nearest {
			nearest[i].Want += fmt.Sprintf(" or another of %d variants", len(p.Variants))
		}
	}
	return nearest
}

// ID identifies the policy: what differs in any field, the root among them, has
// another ID. It is
//
//	BLAKE3("mosaik/tdx/policy/1" || root || simulated 1 || signature of the baseline ||
//	  u32 n || signatures of the variants || u32 n || MRSEAMs || attributes set 8, clear 8 ||
//	  XFAM set 8, clear 8 || worst TCB 1 || evaluation number 4 || u32 n || FMSPCs ||
//	  u32 n || PCKs || max age 8 || not before 8 || max lifetime 8)
//
// with little-endian integers, times in seconds, and lists in their order.
func (p *Policy) ID() identity.ID {
	le := binary.LittleEndian
	b := []byte("mosaik/tdx/policy/1")
	id := func(id identity.ID) { b = append(b, id[:]...) }
	count := func(n int) { b = le.AppendUint32(b, uint32(n)) }
	id(p.Root.Fingerprint())
	if p.Root.simulated {
		b = append(b, 1)
	} else {
		b = append(b, 0)
	}
	id(p.Baseline.Signature())
	count(len(p.Variants))
	for i := range p.Variants {
		id(p.Variants[i].Signature())
	}
	count(len(p.MRSEAM))
	for _, m := range p.MRSEAM {
		b = append(b, m[:]...)
	}
	for _, bits := range []Bits{p.Attributes, p.XFAM} {
		b = le.AppendUint64(b, bits.Set)
		b = le.AppendUint64(b, bits.Clear)
	}
	b = append(b, byte(max(p.WorstTCB, UpToDate)))
	b = le.AppendUint32(b, p.MinEvaluation)
	count(len(p.BannedFMSPC))
	for _, fmspc := range p.BannedFMSPC {
		b = append(b, fmspc...) // of one length, see Validate
	}
	count(len(p.BannedPCK))
	for _, pck := range p.BannedPCK {
		id(pck)
	}
	b = append(b, p.limits()...)
	return identity.FromParts(b)
}

// limits are the limits on tickets as the Rust runtime folds them.
func (p *Policy) limits() []byte {
	le := binary.LittleEndian
	b := le.AppendUint64(nil, uint64(p.MaxAge/time.Second))
	if p.NotBefore.IsZero() {
		b = le.AppendUint64(b, 0)
	} else {
		b = le.AppendUint64(b, uint64(p.NotBefore.Unix()))
	}
	return le.AppendUint64(b, uint64(p.MaxLifetime/time.Second))
}

// Signature identifies the validator of v1 tickets that the policy makes, as a
// group's id folds it. Where the policy asks for nothing but what the Rust runtime
// can ask for, under Intel's root, it is the Rust runtime's signature; else the
// policy's ID is derived from that, so that a group with a simulated root, say, is
// another group.
func (p *Policy) Signature() identity.ID {
	id := TicketClass().DeriveID(p.Baseline.Signature())
	for i := range p.Variants {
		id = id.DeriveID(p.Variants[i].Signature())
	}
	limits := p.limits()
	for ; len(limits) > 0; limits = limits[8:] {
		id = id.Derive(string(limits[:8]))
	}
	plain := Policy{Root: IntelRoot(), Baseline: p.Baseline, Variants: p.Variants,
		MaxAge: p.MaxAge, NotBefore: p.NotBefore, MaxLifetime: p.MaxLifetime}
	if p.ID() != plain.ID() {
		id = id.DeriveID(p.ID())
	}
	return id
}
