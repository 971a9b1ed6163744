package organisms

import (
	"context"
	"errors"
	"fmt"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

// Errors of an organism.
var (
	// ErrRetired says that the organism has ended: nothing is taken any more. errors.As
	// finds a *RetiredError with its marker.
	ErrRetired = errors.New("mosaik: organism retired")
	// ErrRevision says that another revision of the organism is in force than the one that
	// is wanted.
	ErrRevision = errors.New("mosaik: another revision is in force")
	// ErrRefused says that a commit was not taken.
	ErrRefused = errors.New("mosaik: commit refused")
)

// RetiredError is the end of an organism. It wraps ErrRetired.
type RetiredError struct {
	// Marker is its last commit.
	Marker RetirementMarker
}

// Error implements error.
func (e *RetiredError) Error() string {
	text := fmt.Sprintf("%v: %s at commit %d (%s)", ErrRetired, e.Marker.Component.Short(), e.Marker.Instant.Commit, e.Marker.Reason)
	if r := e.Marker.Replacement; r != nil {
		text += ", " + r.StableID.Short() + " goes on in its place"
	}
	return text
}

// Unwrap returns ErrRetired.
func (e *RetiredError) Unwrap() error { return ErrRetired }

// RevisionError is a revision that is not the wanted one. It wraps ErrRevision.
type RevisionError struct {
	// Organism is the stable id.
	Organism identity.ID
	// Want is the content hash that was asked for, or pinned; InForce the one that is there.
	Want, InForce identity.ID
}

// Error implements error.
func (e *RevisionError) Error() string {
	return fmt.Sprintf("%v: of %s it is %s, wanted is %s", ErrRevision, e.Organism.Short(), e.InForce, e.Want)
}

// Unwrap returns ErrRevision.
func (e *RevisionError) Unwrap() error { return ErrRevision }

// Organism is an organism as those see it who may write to it. It is safe for concurrent
// use.
type Organism struct {
	*Surface
	group log.GroupStore
}

// Open opens an organism in its group, publishing its config there if nothing is yet. The
// group's nodes must have the Definition's machines, and it is the group of
// Config.GroupName, if others are to find it.
//
// Errors: ErrConfig for a config that cannot be, or is of another role; ErrRevision if
// the group has committed another revision: Revise publishes this one; ErrRetired.
func Open(ctx context.Context, group log.GroupStore, c Config, d Definition) (*Organism, error) {
	o, err := bind(group, c, d)
	if err != nil {
		return nil, err
	}
	for _, p := range d.primitives() {
		entry := o.entry(&p)
		if err := log.Register(ctx, group, entry); err != nil {
			return nil, fmt.Errorf("organism %q: %w", c.InstanceName, err)
		}
	}
	now, err := o.revision(ctx, log.Linearizable())
	if errors.Is(err, log.ErrNotFound) {
		return o, o.publish(ctx, &c)
	}
	if err != nil {
		return nil, err
	}
	if want := c.ContentHash(); now != want {
		return nil, &RevisionError{Organism: c.StableID(), Want: want, InForce: now}
	}
	return o, o.ended(ctx)
}

// Revise publishes another revision of an organism: the same role and instance name, with
// other members, parameters, measurements or ACL. Readers that pin the content are
// refused from then on; those that do not go on. Machines apply what comes after it by the
// new parameters.
func Revise(ctx context.Context, group log.GroupStore, c Config, d Definition) (*Organism, error) {
	o, err := bind(group, c, d)
	if err == nil {
		_, err = o.revision(ctx, log.Linearizable())
	}
	if err == nil {
		err = o.publish(ctx, &c)
	}
	if err != nil {
		return nil, err
	}
	return o, nil
}

func bind(group log.GroupStore, c Config, d Definition) (*Organism, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	switch size := len(c.preimage([]byte(c.InstanceName))); {
	case c.Role != d.Role:
		return nil, fmt.Errorf("%w: role: %q, the definition is of %q", ErrConfig, c.Role, d.Role)
	case len(d.Surface) == 0:
		return nil, fmt.Errorf("%w: the definition of %q has no surface", ErrConfig, d.Role)
	case size >= log.MaxPayload:
		return nil, fmt.Errorf("%w: %d bytes of members and parameters, the limit is %d", ErrConfig, size, log.MaxPayload-1)
	}
	return &Organism{Surface: &Surface{store: group, ref: c.Ref(false), definition: d}, group: group}, nil
}

// publish makes a config the revision in force, in all primitives at once.
func (o *Organism) publish(ctx context.Context, c *Config) error {
	record := append([]byte{recordRevision}, c.preimage([]byte(c.InstanceName))...)
	return o.everywhere(ctx, record, nil)
}

// everywhere commits a record to all primitives, in one commit.
func (o *Organism) everywhere(ctx context.Context, record []byte, conditions []log.Condition) error {
	t := log.Transaction{Conditions: conditions}
	for _, p := range o.definition.primitives() {
		t.Commands = append(t.Commands, log.KeyedCommand{Key: p.key(o.ref.StableID), Payload: record})
	}
	out, err := o.group.Submit(ctx, &t)
	if err != nil {
		return err
	}
	for _, result := range out.Results {
		if err := o.taken(ctx, result); err != nil {
			return err
		}
	}
	if !out.Held {
		return o.ended(ctx)
	}
	return nil
}

// taken reports what a result of the frame says.
func (o *Organism) taken(ctx context.Context, result []byte) error {
	switch {
	case len(result) > 0 && result[0] == taken:
		return nil
	case len(result) == 2 && result[1] == refusedRetired:
		if err := o.ended(ctx); err != nil {
			return err
		}
		return ErrRetired
	case len(result) == 2 && result[1] == refusedUnopened:
		return fmt.Errorf("%w: the organism was not opened", ErrRefused)
	case len(result) == 2 && result[1] == refusedOther:
		return fmt.Errorf("%w: it is about another organism", ErrRefused)
	}
	return fmt.Errorf("%w: malformed", ErrRefused)
}

// Commit commits a body to a primitive, with the evidence that it was made from, and
// returns what the machine has made of it. It may be a primitive that is not on the surface.
// The error wraps ErrRetired, ErrEvidence or ErrRefused, or is that of an append.
func (o *Organism) Commit(ctx context.Context, primitive string, body []byte, evidence ...Evidence) (log.Pointer, []byte, error) {
	return o.Begin(ctx, primitive, body, evidence...).Wait(ctx)
}

// Pending is a commit under way.
type Pending struct {
	o      *Organism
	future *log.Future
	err    error
}

// Begin is Commit without the wait. Commits of one goroutine are taken in order.
func (o *Organism) Begin(ctx context.Context, primitive string, body []byte, evidence ...Evidence) *Pending {
	to := o.definition.primitive(primitive)
	if to == nil {
		return &Pending{err: fmt.Errorf("%w: %q is no primitive of a %s", ErrOffSurface, primitive, o.definition.Role)}
	}
	record, err := appendCommit(nil, body, evidence)
	if err != nil {
		return &Pending{err: err}
	}
	return &Pending{o: o, future: o.group.AppendAsync(ctx, to.key(o.ref.StableID), record)}
}

// Wait returns what became of the commit, as Commit does.
func (p *Pending) Wait(ctx context.Context) (log.Pointer, []byte, error) {
	if p.err != nil {
		return log.Pointer{}, nil, p.err
	}
	at, err := p.future.Wait(ctx)
	if err != nil {
		return log.Pointer{}, nil, err
	}
	results, err := p.future.Results()
	if err != nil {
		return log.Pointer{}, nil, err
	}
	if err := p.o.taken(ctx, results[0]); err != nil {
		return log.Pointer{}, nil, err
	}
	return at, results[0][1:], nil
}

// Retire ends the organism: its last commit, in all primitives at once, is a marker, after
// which nothing is taken. replacement is who goes on in its place; nil: nobody does. If it
// has ended before, the error is a *RetiredError with the marker that counts.
func (o *Organism) Retire(ctx context.Context, reason RetirementReason, replacement *Ref) (RetirementMarker, error) {
	m := RetirementMarker{Component: o.ref.StableID, Reason: reason, Replacement: replacement}
	if err := m.Validate(); err != nil {
		return m, err
	}
	if replacement != nil && replacement.Role != o.ref.Role {
		return m, fmt.Errorf("%w: replacement: it is a %s, not a %s", ErrRetirement, replacement.Role, o.ref.Role)
	}
	first := o.definition.Surface[0].key(o.ref.StableID)
	if err := o.everywhere(ctx, appendMarker(nil, &m), []log.Condition{{Key: first, Kind: log.RowAbsent, Row: markerRow}}); err != nil {
		return m, err
	}
	var retired *RetiredError
	if err := o.ended(ctx); !errors.As(err, &retired) {
		return m, errors.Join(err, errors.New("mosaik: the marker is committed and cannot be read"))
	}
	return retired.Marker, nil
}
