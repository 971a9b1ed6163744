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
	// a *TicketError or wraps a Reason; of any other the reason is ReasonMalformed. What it
	// says of the ticket is bounded, since others are told.
	Validate(data []byte, e *PeerEntry, now time.Time) (Expiration, error)
}

// Clause is a condition on a peer's entry: that it has a ticket which a validator
// accepts ([Require]), several conditions combined ([All], [Any]), or one that is not
// about tickets. As a validator does, it answers from the entry and the instant alone.
type Clause interface {
	// Signature is as Validator.Signature.
	Signature() ID
	// Admit returns until when the entry fulfils the condition. The error says why it does
	// not: errors.Is(err, ReasonExpired) and the like.
	Admit(e *PeerEntry, now time.Time) (Expiration, error)
}

// Require returns the clause that a peer has a ticket which the validator accepts. Of
// several the best counts: the one that is valid for longest. If none is accepted, the
// error joins one *TicketError for each. Its signature is the validator's.
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
	var reason Reason
	switch {
	case errors.As(err, &bad):
		reason, err = bad.Reason, bad.Err
	case !errors.As(err, &reason):
		reason = ReasonMalformed
	}
	return Expiration{}, &TicketError{Reason: reason, Ticket: t.ID(), Class: t.Class, Err: err}
}
