package coalition

import (
	"errors"
	"testing"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
)

// TestInvariant19: a ticket in the coalition's name lets its holder in where the
// coalition's tickets are recognised, and nowhere else; when the coalition changes so that
// TICKETS_ROOT moves, the old tickets are worth nothing where the new root is recognised.
func TestInvariant19(t *testing.T) {
	desk, err := identity.NewJWTKeySigner(identity.KeyFromSeed([identity.Size]byte{1}))
	if err != nil {
		t.Fatal(err)
	}
	other, err := identity.NewJWTKeySigner(identity.KeyFromSeed([identity.Size]byte{2}))
	if err != nil {
		t.Fatal(err)
	}
	root, err := example().TicketsRoot()
	if err != nil {
		t.Fatal(err)
	}
	moved := example()
	moved.TicketIssuer.Name = "counter"
	movedRoot, err := moved.TicketsRoot()
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	holder := identity.KeyFromSeed([identity.Size]byte{3}).PeerID()
	ticket, err := desk.Issue(identity.JWTClaims{Issuer: root.String(), Subject: holder.String(), IssuedAt: now, Expires: now.Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	recognise := func(root identity.ID, key identity.JWTKey) identity.Clause {
		c, err := identity.RecogniseIssuer(root, identity.JWTOptions{Keys: []identity.JWTKey{key}})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	own, err := identity.NewJWT(identity.JWTOptions{Keys: []identity.JWTKey{other.Key()}, Issuers: []string{"the member itself"}})
	if err != nil {
		t.Fatal(err)
	}
	entry := &identity.PeerEntry{Peer: holder, Tickets: []identity.Ticket{ticket}}
	for name, test := range map[string]struct {
		clause identity.Clause
		reason identity.Reason
	}{
		"recognises it":              {recognise(root, desk.Key()), ""},
		"or its own":                 {identity.Any(identity.Require(own), recognise(root, desk.Key())), ""},
		"its own and it":             {identity.All(identity.Require(own), recognise(root, desk.Key())), identity.ReasonSignature},
		"has not opted in":           {identity.Require(own), identity.ReasonSignature},
		"recognises the new root":    {recognise(movedRoot, desk.Key()), identity.ReasonIssuer},
		"recognises it by other key": {recognise(root, other.Key()), identity.ReasonSignature},
	} {
		_, err := test.clause.Admit(entry, now)
		if test.reason == "" && err != nil || test.reason != "" && !errors.Is(err, test.reason) {
			t.Errorf("who %s: %v", name, err)
		}
	}
	if recognise(root, desk.Key()).Signature() == recognise(movedRoot, desk.Key()).Signature() {
		t.Error("the root is not part of the signature")
	}
}
