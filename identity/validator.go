package identity

import (
	"errors"
	"time"
)

// Validator says whether a ticket of its class admits its holder. Its methods may be
// called from any goroutine. They do no I/O, and ask no clock but the one they are
// given: the same ticket, entry and instant give the same answer everywhere.
type Validator interface {
	// Class is the class of the tickets it can read.
	Class() ID
	// Signature folds the class and everything that the answer depends on. It becomes part
	// of the ids of groups that ask for it, so members that would answer differently are of
	// different groups.
	Signature() ID
	// Validate returns until when a ticket is good for the peer of the entry. The error is
	// a *TicketError, or is made one by whoever calls.
	Validate(data []byte, e *PeerEntry, now time.Time) (Expiration, error)
}

// Clause is a condition on a peer's entry: a validator of its tickets, or several of
// them combined ([All], [Any]). Group.Admission and the like are Clauses.
type Clause interface {
	// Signature is as Validator.Signature.
	Signature() ID
	// Admit returns until when the entry fulfils the condition.
	Admit(e *PeerEntry, now time.Time) (Expiration, error)
}

// Require returns the clause that a peer has a ticket which the validator accepts. Of
// several the best counts: the one that is valid for longest.
func Require(v Validator) Clause { return required{v} }

type required struct{ v Validator }

// Signature implements Clause.
func (r required) Signature() ID { return r.v.Signature() }

// Admit implements Clause.
func (r required) Admit(e *PeerEntry, now time.Time) (Expiration, error) {
	class := r.v.Class()
	var best Expiration
	var found, admitted bool
	var errs []error
	for i := range e.Tickets {
		t := &e.Tickets[i]
		if t.Class != class {
			continue
		}
		found = true
		until, err := r.validate(t, e, now)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if !admitted || until.Compare(best) > 0 {
			best, admitted = until, true
		}
	}
	switch {
	case admitted:
		return best, nil
	case !found:
		return Expiration{}, &TicketError{Reason: ReasonAbsent, Class: class}
	}
	return Expiration{}, errors.Join(errs...)
}

// validate asks about one ticket, and says whose the error is.
func (r required) validate(t *Ticket, e *PeerEntry, now time.Time) (Expiration, error) {
	var until Expiration
	err := error(&TicketError{Reason: ReasonOversize})
	if len(t.Data) <= MaxTicket {
		until, err = r.v.Validate(t.Data, e, now)
	}
	if err == nil && until.Expired(now) {
		err = reject(ReasonExpired, "at %s", until)
	}
	if err == nil {
		return until, nil
	}
	var bad *TicketError
	if !errors.As(err, &bad) {
		bad = &TicketError{Reason: ReasonMalformed, Err: err}
	}
	return Expiration{}, &TicketError{Reason: bad.Reason, Ticket: t.ID(), Class: t.Class, Err: bad.Err}
}

// All returns the clause that every one of the clauses holds; it holds until the first
// of them ends to. Of none it always holds.
//
//	Signature = NewID("mosaik.clause.all.v1"), .DeriveID of each clause's in order
func All(clauses ...Clause) Clause { return all(clauses) }

type all []Clause

// Signature implements Clause.
func (a all) Signature() ID { return fold("mosaik.clause.all.v1", a) }

// Admit implements Clause.
func (a all) Admit(e *PeerEntry, now time.Time) (Expiration, error) {
	until := Never()
	for _, c := range a {
		u, err := c.Admit(e, now)
		if err != nil {
			return Expiration{}, err
		}
		until = until.Earliest(u)
	}
	return until, nil
}

// Any returns the clause that at least one of the clauses holds; it holds until the last
// of them ends to. Of none it never holds.
//
//	Signature = NewID("mosaik.clause.any.v1"), .DeriveID of each clause's in order
func Any(clauses ...Clause) Clause { return anyOf(clauses) }

type anyOf []Clause

// Signature implements Clause.
func (a anyOf) Signature() ID { return fold("mosaik.clause.any.v1", a) }

// Admit implements Clause.
func (a anyOf) Admit(e *PeerEntry, now time.Time) (Expiration, error) {
	var best Expiration
	admitted := false
	errs := []error{ReasonAbsent}
	for _, c := range a {
		u, err := c.Admit(e, now)
		switch {
		case err != nil:
			errs = append(errs, err)
		case !admitted || u.Compare(best) > 0:
			best, admitted = u, true
		}
	}
	if admitted {
		return best, nil
	}
	if len(a) > 0 {
		errs = errs[1:]
	}
	return Expiration{}, errors.Join(errs...)
}

func fold(name string, clauses []Clause) ID {
	id := NewID(name)
	for _, c := range clauses {
		id = id.DeriveID(c.Signature())
	}
	return id
}
