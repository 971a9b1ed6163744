package identity

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// All returns the clause that every one of the clauses holds; it holds until the first
// of them ends to. Of none it always holds.
//
//	Signature = NewID("mosaik.clause.all.v1"), .DeriveID of each clause's in order
func All(clauses ...Clause) Clause { return all(slices.Clone(clauses)) }

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
func Any(clauses ...Clause) Clause { return anyOf(slices.Clone(clauses)) }

type anyOf []Clause

// Signature implements Clause.
func (a anyOf) Signature() ID { return fold("mosaik.clause.any.v1", a) }

// Admit implements Clause. If no clause holds, the error joins theirs.
func (a anyOf) Admit(e *PeerEntry, now time.Time) (Expiration, error) {
	if len(a) == 0 {
		return Expiration{}, ReasonAbsent
	}
	var best Expiration
	var errs []error
	for _, c := range a {
		u, err := c.Admit(e, now)
		if err != nil {
			errs = append(errs, err)
		} else if u.Compare(best) > 0 {
			best = u
		}
	}
	if len(errs) == len(a) {
		return Expiration{}, errors.Join(errs...)
	}
	return best, nil
}

// RecogniseIssuer returns the clause that a peer has a token of the issuer with this
// root, such as the ticket root of a coalition (its "iss" is the root's text form). The
// options say all the rest, and have no issuers of their own: the keys with which
// that issuer signs stand in them, since a root alone verifies nothing.
//
//	Signature = NewID("mosaik.clause.issuer.v1"), .DeriveID(root), .DeriveID of the JWT's
func RecogniseIssuer(root ID, o JWTOptions) (Clause, error) {
	switch {
	case root.IsZero():
		return nil, errors.New("mosaik: recognise issuer: the zero root is nobody's")
	case len(o.Issuers) > 0:
		return nil, fmt.Errorf("mosaik: recognise issuer: Issuers holds %d, but the root is the one issuer; leave it empty", len(o.Issuers))
	}
	o.Issuers = []string{root.String()}
	j, err := NewJWT(o)
	if err != nil {
		return nil, fmt.Errorf("mosaik: recognise issuer %s: %w", root.Short(), err)
	}
	return issuer{required{j}, root}, nil
}

// issuer asks what the validator of its tokens asks, under a signature of its own.
type issuer struct {
	required
	root ID
}

// Signature implements Clause.
func (i issuer) Signature() ID {
	return NewID("mosaik.clause.issuer.v1").DeriveID(i.root).DeriveID(i.required.Signature())
}

// fold chains the signatures of clauses in order. Each step hashes, so no list is a
// prefix or a regrouping of another.
func fold(name string, clauses []Clause) ID {
	id := NewID(name)
	for _, c := range clauses {
		id = id.DeriveID(c.Signature())
	}
	return id
}
