package organisms

import (
	"context"
	"errors"
	"fmt"

	"github.com/mosaik-engine/mosaik/identity"
)

// RetirementReason is why an organism ends.
type RetirementReason string

// The reasons.
const (
	Rotation     RetirementReason = "rotation"      // its keys or its image are replaced
	Superseded   RetirementReason = "superseded"    // another one does its work
	Compromised  RetirementReason = "compromised"   // its commits are not to be trusted any more
	Abandoned    RetirementReason = "abandoned"     // nobody has read it for its declared window
	OperatorExit RetirementReason = "operator-exit" // who runs it stops
)

// RetirementInstant is when an organism ends: after which of its commits, and the time
// of that.
type RetirementInstant struct {
	Commit uint64 `cbor:"1,keyasint"` // number of the commit
	UnixMs uint64 `cbor:"2,keyasint"` // its time, in milliseconds
}

// RetirementMarker is the last commit of an organism.
type RetirementMarker struct {
	// Component is the organism that ends, by its stable id.
	Component identity.ID `cbor:"1,keyasint"`
	// Instant is when.
	Instant RetirementInstant `cbor:"2,keyasint"`
	// Reason is why.
	Reason RetirementReason `cbor:"3,keyasint"`
	// Replacement is who goes on in its place; nil: nobody does.
	Replacement *Ref `cbor:"4,keyasint,omitempty"`
}

// ErrRetirement says that a marker cannot be, or that a chain of them does not lead
// anywhere.
var ErrRetirement = errors.New("mosaik: bad retirement")

// Validate checks a marker. The error wraps ErrRetirement and names the field.
func (m *RetirementMarker) Validate() error {
	switch m.Reason {
	case Rotation, Superseded, Compromised, Abandoned, OperatorExit:
	default:
		return fmt.Errorf("%w: reason: %q is none", ErrRetirement, string(m.Reason))
	}
	if m.Component.IsZero() {
		return fmt.Errorf("%w: component: it is zero", ErrRetirement)
	}
	if m.Replacement == nil {
		return nil
	}
	if err := m.Replacement.Validate(); err != nil {
		return fmt.Errorf("%w: replacement: %w", ErrRetirement, err)
	}
	if m.Replacement.StableID == m.Component {
		return fmt.Errorf("%w: replacement: it is the organism itself", ErrRetirement)
	}
	return nil
}

// MaxHops bounds a chain of retirements.
const MaxHops = 64

// Resolution is where a reference leads.
type Resolution struct {
	// Ref is the organism that is there now.
	Ref Ref
	// Hops are the retirements on the way, in order; none: the reference is to it.
	Hops []RetirementMarker
	// Ended is set if the last of the hops names no replacement: then nobody is there, and
	// Ref is the organism that was last.
	Ended bool
}

// Resolve follows the retirements that begin at a reference. markers returns those that
// an organism has committed: none while it goes on. A reference that is pinned leads to
// that one revision, so it is followed only to tell that it has ended.
//
// It is an error, that wraps ErrRetirement, if the chain comes back to where it was, if an
// organism has two different markers, if the successor has another role, or if there
// are more than MaxHops; the resolution then holds the hops so far.
func Resolve(ctx context.Context, ref Ref, markers func(context.Context, identity.ID) ([]RetirementMarker, error)) (Resolution, error) {
	r := Resolution{Ref: ref}
	seen := map[identity.ID]bool{ref.StableID: true}
	for {
		found, err := markers(ctx, r.Ref.StableID)
		if err != nil {
			return r, fmt.Errorf("mosaik: resolve %s: %w", r.Ref.StableID.Short(), err)
		}
		if len(found) == 0 {
			return r, nil
		}
		m := found[0]
		if err := m.Validate(); err != nil {
			return r, err
		}
		switch {
		case m.Component != r.Ref.StableID:
			return r, fmt.Errorf("%w: the marker of %s is about %s", ErrRetirement, r.Ref.StableID.Short(), m.Component.Short())
		case len(r.Hops) == MaxHops:
			return r, fmt.Errorf("%w: more than %d hops from %s", ErrRetirement, MaxHops, ref.StableID.Short())
		case len(found) > 1:
			return r, fmt.Errorf("%w: a fork: %s has %d markers, the last commit can be only one", ErrRetirement, m.Component.Short(), len(found))
		}
		r.Hops = append(r.Hops, m)
		next := m.Replacement
		switch {
		case next == nil:
			r.Ended = true
			return r, nil
		case seen[next.StableID]:
			return r, fmt.Errorf("%w: a cycle: %s leads back to %s", ErrRetirement, m.Component.Short(), next.StableID.Short())
		case next.Role != ref.Role:
			return r, fmt.Errorf("%w: the successor of %s has the role %q, not %q", ErrRetirement, m.Component.Short(), next.Role, ref.Role)
		}
		seen[next.StableID] = true
		r.Ref = *next
	}
}
