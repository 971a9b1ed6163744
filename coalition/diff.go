package coalition

import (
	"fmt"
	"slices"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/organisms"
)

// Trigger is one of the nine changes that make another coalition id, so that the config
// has to be published again and integrators compile it in anew.
type Trigger int

// The triggers, by their numbers.
const (
	LatticeRetired     Trigger = 1 // a lattice's stable id has changed
	OrganismRetired    Trigger = 2 // an organism's stable id has changed
	PinChanged         Trigger = 3 // the content of a member that is pinned has changed, or it is pinned now, or no longer
	ModuleChanged      Trigger = 4 // a module has another content
	LatticeSetChanged  Trigger = 5 // lattices have come, gone, or changed places
	OrganismSetChanged Trigger = 6 // organisms likewise
	ModuleSetChanged   Trigger = 7 // modules have come or gone
	IssuerChanged      Trigger = 8 // the ticket issuer has come, gone or changed
	NameChanged        Trigger = 9 // it is another coalition: the old one is retired
	// RetirementChanged is a tenth that the sources do not number: the retirement policy is
	// part of the coalition id.
	RetirementChanged Trigger = 10
)

// Difference is one thing in which two configs differ.
type Difference struct {
	Trigger Trigger
	Field   string // such as "organism[2]"
	Change  string // what has become of it
	Do      string // what an integrator has to do
}

// Diff returns what has changed from one config to another, by trigger; nil if nothing
// that counts has. Members are compared by their places: who stands where another stood
// and has the same role has taken its place.
func Diff(before, after *Config) []Difference {
	var d differences
	if before.Name != after.Name {
		d.add(NameChanged, "name", fmt.Sprintf("%q is now %q", before.Name, after.Name),
			"it is another coalition: every id derived from it is another; bind the new one and leave the old when you like")
	}
	d.members("lattice", before.Lattices, after.Lattices, LatticeRetired, LatticeSetChanged)
	d.members("organism", before.Organisms, after.Organisms, OrganismRetired, OrganismSetChanged)
	for _, kind := range ModuleKinds() {
		d.module(kind, before.module(kind), after.module(kind))
	}
	switch old, now := before.TicketIssuer, after.TicketIssuer; {
	case old == nil && now != nil:
		d.add(IssuerChanged, "ticket-issuer", fmt.Sprintf("it issues tickets now, as %q", now.Name), "COALITION_ROOT has moved, and the modules' ids with it: bind them anew")
	case old != nil && now == nil:
		d.add(IssuerChanged, "ticket-issuer", "it issues no tickets any more", "COALITION_ROOT has moved: bind the modules anew, and ask members for tickets of their own")
	case old != nil && old.Fingerprint() != now.Fingerprint():
		d.add(IssuerChanged, "ticket-issuer", "it has another name or other people", "TICKETS_ROOT has moved: recognise the new one, and bind the modules anew")
	}
	if old, now := before.retirement(), after.retirement(); old != now {
		d.add(RetirementChanged, "retirement", fmt.Sprintf("notice %v and grace %v, before %v and %v", now.Notice, now.Grace, old.Notice, old.Grace), "compile the new config in; nothing has to be bound anew")
	}
	slices.SortStableFunc(d, func(a, b Difference) int { return int(a.Trigger) - int(b.Trigger) })
	return d
}

type differences []Difference

func (d *differences) add(t Trigger, field, change, do string) {
	*d = append(*d, Difference{t, field, change, do})
}

// members compares a list of members.
func (d *differences) members(name string, before, after []organisms.Ref, retired, set Trigger) {
	was, is := places(before), places(after)
	for i := range before {
		old := &before[i]
		at := fmt.Sprintf("%s[%d]", name, i)
		j, stays := is[old.StableID]
		switch {
		case stays && j != i:
			d.add(set, at, fmt.Sprintf("%s is at place %d now", old.StableID.Short(), j), "COALITION_ROOT has moved: bind the modules anew")
		case stays:
			d.pin(at, old, &after[j])
		case i < len(after) && after[i].Role == old.Role && !known(was, after[i].StableID):
			d.add(retired, at, fmt.Sprintf("%s has given way to %s", old.StableID.Short(), after[i].StableID.Short()),
				"look for its retirement marker, check that it names the successor, and bind that; bind the modules anew")
		default:
			d.add(set, at, old.StableID.Short()+" is gone", "nothing of it depends on the coalition: keep or drop your handle on it; bind the modules anew")
		}
	}
	for i := range after {
		now := &after[i]
		if known(was, now.StableID) || i < len(before) && before[i].Role == now.Role && !known(is, before[i].StableID) {
			continue
		}
		d.add(set, fmt.Sprintf("%s[%d]", name, i), fmt.Sprintf("%s has come, a %s", now.StableID.Short(), now.Role), "bind it if you want it; bind the modules anew")
	}
}

func (d *differences) pin(at string, old, now *organisms.Ref) {
	switch {
	case old.Role != now.Role:
		d.add(PinChanged, at, fmt.Sprintf("it is referred to as %q, before as %q", now.Role, old.Role), "compile the new config in")
	case old.ContentHash == nil && now.ContentHash != nil:
		d.add(PinChanged, at, "it is pinned now", "compile the new config in: its rotations break the bond until it is published again")
	case old.ContentHash != nil && now.ContentHash == nil:
		d.add(PinChanged, at, "it is pinned no longer", "compile the new config in: its rotations are followed")
	case old.ContentHash != nil && *old.ContentHash != *now.ContentHash:
		d.add(PinChanged, at, "it is pinned to another revision", "read what its operator has changed, then compile the new config in")
	}
}

func (d *differences) module(kind ModuleKind, old, now *Content) {
	// Under one root, so that only the content is compared.
	same := identity.ID{}
	switch {
	case old == nil && now != nil:
		d.add(ModuleSetChanged, string(kind), "it has one now", "bind it if you want it")
	case old != nil && now == nil:
		d.add(ModuleSetChanged, string(kind), "it has none any more", "go on without it; nothing may depend on it")
	case old != nil && old.hash(string(kind), same) != now.hash(string(kind), same):
		d.add(ModuleChanged, string(kind), "it has other content", "read what has changed, then bind it anew")
	}
}

func places(refs []organisms.Ref) map[identity.ID]int {
	at := make(map[identity.ID]int, len(refs))
	for i := range refs {
		at[refs[i].StableID] = i
	}
	return at
}

func known(at map[identity.ID]int, id identity.ID) bool {
	_, ok := at[id]
	return ok
}
