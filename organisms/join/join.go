// Package join is the composite organism: it folds commits of several members, event by
// event, into commits of its own, and does what it has said it would when a member does
// not deliver.
//
// # Parameters
//
// One [Mode] a member, in the order of Config.Members, one byte each. So the statement of
// what happens when a member stalls is part of the content hash, like the members.
//
// # Commits
//
// The one primitive of the surface is [Primitive]. Integers are little-endian.
//
//	offer  1 | member 2 | event 8 | digest 32    what a member has for an event of its own
//	                                             clock; the one piece of evidence points at
//	                                             the member's commit
//	due    2 | event 8                           the event's time has come
//
// The result is one byte, a [Status]. An event is joined when all members have delivered,
// or when it is due and every member that has not is one of those that can be missing. A member
// that must not be missing stalls the event until it delivers.
//
// # Rows
//
//	0x01, event 8    -> status 1 | due 1 | n 2 | for each member: 0, or 1 | digest 32
//	0x02             -> number of events in the view 8 | oldest event that may be offered 8
//
// Keys are big-endian. A joined event stays in the view until [MaxEvents] later ones are
// there; then it is in the log only, and can be offered no more.
//
// The package starts no goroutine and takes no lock.
package join

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/organisms"
)

// Role is the role of the organism.
const Role = "join"

// Primitive is the name of its surface: the events, and what they have come to.
const Primitive = "joined"

// Limits.
const (
	// MaxMembers bounds the members of a join.
	MaxMembers = 256
	// MaxEvents bounds the events in the view. The oldest goes for the next, joined or not.
	MaxEvents = 1024
)

// Mode says what happens to an event when a member has not delivered in time.
type Mode uint8

// The modes. Numbers are part of the format.
const (
	// Stall waits for the member.
	Stall Mode = 1
	// Partial goes on without it, and says so.
	Partial Mode = 2
)

// Status says what an event has come to. Numbers are part of the format.
type Status uint8

// The statuses.
const (
	Open     Status = 1 // some have not delivered, and it is not due
	Complete Status = 2 // joined: all have delivered
	Missing  Status = 3 // joined without members that can be missing
	Stalled  Status = 4 // due, and a member that must not be missing has not delivered
	Refused  Status = 5 // the commit was not taken: malformed, late, or not the first of its member
)

// Joined reports whether an event of this status will not change any more.
func (s Status) Joined() bool { return s == Complete || s == Missing }

// Definition returns what a join is made of.
func Definition() organisms.Definition {
	return organisms.Definition{Role: Role, Surface: []organisms.Primitive{{Name: Primitive, Machine: machine{}}}}
}

// Config returns the config of a join of members, each with its mode.
func Config(instanceName string, members []organisms.Ref, modes []Mode) (organisms.Config, error) {
	c := organisms.Config{Role: Role, InstanceName: instanceName, Members: members}
	for _, m := range modes {
		c.Parameters = append(c.Parameters, byte(m))
	}
	switch {
	case len(members) > MaxMembers:
		return c, fmt.Errorf("%w: members: %d, the limit of a join is %d", organisms.ErrConfig, len(members), MaxMembers)
	case len(modes) != len(members):
		return c, fmt.Errorf("%w: modes: %d of %d members", organisms.ErrConfig, len(modes), len(members))
	}
	if _, ok := modesOf(c.Parameters); !ok {
		return c, fmt.Errorf("%w: modes: each is Stall or Partial", organisms.ErrConfig)
	}
	return c, c.Validate()
}

func modesOf(parameters []byte) ([]byte, bool) {
	for _, m := range parameters {
		if Mode(m) != Stall && Mode(m) != Partial {
			return nil, false
		}
	}
	return parameters, len(parameters) >= 2 && len(parameters) <= MaxMembers
}

const (
	commitOffer = 1
	commitDue   = 2
)

// Offer returns the commit that a member has delivered for an event. Its evidence is a
// pointer at the member's commit.
func Offer(member int, event uint64, digest identity.ID) []byte {
	b := binary.LittleEndian.AppendUint16([]byte{commitOffer}, uint16(member))
	return append(binary.LittleEndian.AppendUint64(b, event), digest[:]...)
}

// Due returns the commit that an event's time has come.
func Due(event uint64) []byte { return binary.LittleEndian.AppendUint64([]byte{commitDue}, event) }

// Event is an event in the view.
type Event struct {
	// Status is what it has come to.
	Status Status
	// Due says that its time has come.
	Due bool
	// Digests are what the members have delivered, in their order; zero: nothing.
	Digests []identity.ID
}

// Read returns an event, and whether the view has it.
func Read(v log.View, event uint64) (Event, bool, error) {
	row, ok, err := v.Get(eventRow(event))
	if err != nil || !ok {
		return Event{}, false, err
	}
	e, err := decodeEvent(row.Value)
	return e, err == nil, err
}

var errRow = errors.New("mosaik: a row of a join is malformed")

func eventRow(event uint64) []byte { return binary.BigEndian.AppendUint64([]byte{1}, event) }

var countRow = []byte{2}

func (e *Event) append() []byte {
	b := []byte{byte(e.Status), 0}
	if e.Due {
		b[1] = 1
	}
	b = binary.LittleEndian.AppendUint16(b, uint16(len(e.Digests)))
	for i := range e.Digests {
		b = organisms.AppendPin(b, pin(&e.Digests[i]))
	}
	return b
}

// pin returns nil for a member that has not delivered.
func pin(digest *identity.ID) *identity.ID {
	if digest.IsZero() {
		return nil
	}
	return digest
}

func decodeEvent(b []byte) (e Event, err error) {
	if len(b) < 4 {
		return e, errRow
	}
	e.Status, e.Due = Status(b[0]), b[1] == 1
	e.Digests = make([]identity.ID, binary.LittleEndian.Uint16(b[2:]))
	b = b[4:]
	for i := range e.Digests {
		switch {
		case len(b) >= 33 && b[0] == 1:
			e.Digests[i], b = identity.ID(b[1:33]), b[33:]
		case len(b) >= 1 && b[0] == 0:
			b = b[1:]
		default:
			return e, errRow
		}
	}
	if len(b) > 0 {
		return e, errRow
	}
	return e, nil
}

// judge says what the event comes to.
func (e *Event) judge(modes []byte) Status {
	missing, stalled := false, false
	for i := range e.Digests {
		if e.Digests[i].IsZero() {
			missing = true
			stalled = stalled || Mode(modes[i]) == Stall
		}
	}
	switch {
	case !missing:
		return Complete
	case !e.Due:
		return Open
	case stalled:
		return Stalled
	}
	return Missing
}

// machine folds a join.
type machine struct{}

// Signature implements organisms.Machine.
func (machine) Signature() string { return "mosaik.join.v1" }

// Apply implements organisms.Machine.
func (machine) Apply(tx *log.Tx, c *organisms.Commit) ([]byte, error) {
	status, err := apply(tx, c)
	return []byte{byte(status)}, err
}

func apply(tx *log.Tx, c *organisms.Commit) (Status, error) {
	modes, ok := modesOf(c.Parameters)
	if !ok {
		return Refused, nil
	}
	b := c.Body
	var member int
	var event uint64
	var digest identity.ID
	switch {
	case len(b) == 1+2+8+identity.Size && b[0] == commitOffer:
		member, event = int(binary.LittleEndian.Uint16(b[1:])), binary.LittleEndian.Uint64(b[3:])
		digest = identity.ID(b[11:])
		if member >= len(modes) || digest.IsZero() || len(c.Evidence) != 1 || c.Evidence[0].Pointer.IsZero() {
			return Refused, nil
		}
	case len(b) == 1+8 && b[0] == commitDue:
		member, event = -1, binary.LittleEndian.Uint64(b[1:])
	default:
		return Refused, nil
	}
	e, known, err := Read(tx, event)
	if err != nil {
		return Refused, err
	}
	if !known {
		if ok, err := begin(tx, event); err != nil || !ok {
			return Refused, err
		}
		e.Digests = make([]identity.ID, len(modes))
	}
	switch {
	case e.Status.Joined(), len(e.Digests) != len(modes), member >= 0 && !e.Digests[member].IsZero():
		return Refused, nil // it is as it was, or members have changed under it
	case member >= 0:
		e.Digests[member] = digest
	default:
		e.Due = true
	}
	e.Status = e.judge(modes)
	return e.Status, tx.Set(eventRow(event), e.append())
}

// begin makes room for an event; false: it is older than what may be offered.
func begin(tx *log.Tx, event uint64) (bool, error) {
	row, ok, err := tx.Get(countRow)
	if err != nil {
		return false, err
	}
	var count, oldest uint64
	if ok && len(row.Value) == 16 {
		count, oldest = binary.LittleEndian.Uint64(row.Value), binary.LittleEndian.Uint64(row.Value[8:])
	}
	if event < oldest {
		return false, nil
	}
	if count == MaxEvents {
		var first []byte
		for row, err := range tx.Scan(log.Range{From: []byte{1}, To: []byte{2}}) {
			if err != nil {
				return false, err
			}
			first = append(first, row.Key...)
			break
		}
		if len(first) != 9 {
			return false, errRow
		}
		if oldest = binary.BigEndian.Uint64(first[1:]) + 1; event < oldest {
			return false, nil
		}
		if err := tx.Delete(first); err != nil {
			return false, err
		}
		count--
	}
	value := binary.LittleEndian.AppendUint64(nil, count+1)
	return true, tx.Set(countRow, binary.LittleEndian.AppendUint64(value, oldest))
}
