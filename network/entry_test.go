package network

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
)

// office issues tickets and says who has one.
type office struct {
	signer *identity.JWTSigner
	clause identity.Clause
}

func newOffice(t testing.TB) *office {
	t.Helper()
	signer, err := identity.NewJWTKeySigner(keyOf(100))
	if err != nil {
		t.Fatal(err)
	}
	validator, err := identity.NewJWT(identity.JWTOptions{
		Keys: []identity.JWTKey{signer.Key()}, Issuers: []string{"office"}, Audiences: []string{"bonds"}, MaxLifetime: 2 * time.Hour,
	})
	if err != nil {
		t.Fatal(err)
	}
	return &office{signer, identity.Require(validator)}
}

// ticket issues one for a peer, good for a minute, or as change has it.
func (o *office) ticket(t testing.TB, peer identity.PeerID, change func(*identity.JWTClaims)) identity.Ticket {
	t.Helper()
	now := time.Now()
	claims := identity.JWTClaims{Issuer: "office", Subject: peer.String(), Audience: "bonds", IssuedAt: now, Expires: now.Add(time.Minute)}
	if change != nil {
		change(&claims)
	}
	ticket, err := o.signer.Issue(claims)
	if err != nil {
		t.Fatal(err)
	}
	return ticket
}

// authorize lets in whose entry fulfils the clause, for as long as it does.
func (o *office) authorize(_ context.Context, r Request) (time.Time, error) {
	if r.Entry == nil {
		return time.Time{}, identity.ReasonAbsent
	}
	until, err := o.clause.Admit(&r.Entry.Entry, time.Now())
	if err != nil {
		return time.Time{}, err
	}
	at, _ := until.Time()
	return at, nil
}

// entryOf signs an entry of node i with the tickets. Each is newer than the ones before.
func entryOf(t testing.TB, i int, tickets ...identity.Ticket) *identity.SignedEntry {
	t.Helper()
	version++
	e := identity.PeerEntry{Protocol: [3]uint16{0, 1, 0}, Network: testNetwork, Peer: keyOf(i).PeerID(),
		Version: identity.EntryVersion{Started: 1, Updated: version}, Tickets: tickets}
	s, err := identity.SignEntry(e, keyOf(i))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

var version uint64 = 1

// TestTickets: who has which ticket is refused for which reason, that both sides give
// and count, and gets nothing of the traffic of a group.
func TestTickets(t *testing.T) {
	o := newOffice(t)
	me := keyOf(1).PeerID()
	stranger, err := identity.NewJWTKeySigner(keyOf(101))
	if err != nil {
		t.Fatal(err)
	}
	forged := &office{stranger, o.clause}
	hour := func(c *identity.JWTClaims) {
		c.IssuedAt = c.IssuedAt.Add(-2 * time.Hour)
		c.Expires = c.Expires.Add(-time.Hour)
	}
	for _, test := range []struct {
		name    string
		tickets []identity.Ticket
		reason  Reason // empty: it is let in
	}{
		{"good", []identity.Ticket{o.ticket(t, me, nil)}, ""},
		{"one good of three", []identity.Ticket{forged.ticket(t, me, nil), o.ticket(t, me, nil), o.ticket(t, me, hour)}, ""},
		{"none", nil, "ticket-absent"},
		{"of another class", []identity.Ticket{{Class: identity.NewID("a library card"), Data: o.ticket(t, me, nil).Data}}, "ticket-absent"},
		{"expired", []identity.Ticket{o.ticket(t, me, hour)}, "ticket-expired"},
		{"not yet valid", []identity.Ticket{o.ticket(t, me, func(c *identity.JWTClaims) { c.NotBefore = c.Expires.Add(-10 * time.Second) })}, "ticket-not-yet-valid"},
		{"of somebody else", []identity.Ticket{o.ticket(t, keyOf(7).PeerID(), nil)}, "ticket-subject"},
		{"for something else", []identity.Ticket{o.ticket(t, me, func(c *identity.JWTClaims) { c.Audience = "trees" })}, "ticket-audience"},
		{"of another issuer", []identity.Ticket{o.ticket(t, me, func(c *identity.JWTClaims) { c.Issuer = "orifice" })}, "ticket-issuer"},
		{"signed by another", []identity.Ticket{forged.ticket(t, me, nil)}, "ticket-signature"},
		{"for too long", []identity.Ticket{o.ticket(t, me, func(c *identity.JWTClaims) { c.Expires = c.IssuedAt.Add(3 * time.Hour) })}, "ticket-lifetime"},
		{"no token", []identity.Ticket{{Class: identity.JWTClass(), Data: []byte("let me in")}}, "ticket-malformed"},
	} {
		for _, byDialler := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, asked by the dialler %t", test.name, byDialler), func(t *testing.T) {
				book := new(phonebook)
				group := testGroup("g", 3)
				asks := func(o2 *Options) { o2.Authorize = o.authorize }
				shows := func(o2 *Options) { o2.Entry = entryOf(t, 1, test.tickets...) }
				holder, asker := openNode(t, book, 1, shows), openNode(t, book, 2, asks)
				for _, n := range []*node{holder, asker} {
					n.echoes(t)
					if err := n.SetGroups([]Group{group}); err != nil {
						t.Fatal(err)
					}
				}
				dialler, acceptor := holder, asker
				if byDialler {
					dialler, acceptor = asker, holder
				}
				c, err := dialler.Dial(testContext(t), acceptor.Peer(), groupProtocol)
				if test.reason == "" {
					if err != nil {
						t.Fatal(err)
					}
					said(t, c, "let in")
					if got := c.Info().Until; byDialler == got.IsZero() {
						t.Errorf("until %v", got)
					}
					return
				}
				if err == nil {
					t.Fatal("let in")
				}
				if err := next(t, asker.refused); err.Reason != test.reason || err.Remote {
					t.Errorf("who asks: %v", err)
				}
				if err := next(t, holder.refused); err.Reason != test.reason || !err.Remote {
					t.Errorf("who holds it: %v", err)
				}
				if asker.Metrics().Refused[test.reason] == 0 || holder.Metrics().RefusedBy[test.reason] == 0 {
					t.Error("not counted")
				}
				if m := asker.Metrics(); m.MessagesIn+m.MessagesOut > 0 {
					t.Error("there was traffic")
				}
			})
		}
	}
}

// TestEntries: an entry that is forged, of another peer or network is refused, by
// either side, and the endpoint that is asked to show one refuses it too.
func TestEntries(t *testing.T) {
	elsewhere := entryOf(t, 1).Entry
	elsewhere.Network = identity.NewID("elsewhere")
	foreign, err := identity.SignEntry(elsewhere, keyOf(1))
	if err != nil {
		t.Fatal(err)
	}
	tampered := append([]byte(nil), entryOf(t, 1).Bytes()...)
	tampered[len(tampered)-1] ^= 1
	for name, bytes := range map[string][]byte{
		"forged": tampered, "of another peer": entryOf(t, 7).Bytes(), "of another network": foreign.Bytes(), "no entry": []byte("entry"),
	} {
		t.Run(name, func(t *testing.T) {
			a := openNode(t, new(phonebook), 2, nil)
			a.echoes(t)
			s, err := approach(t, a, keyOf(1), nil, echoProtocol)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.writeControl(kindHello, (&hello{network: testNetwork, entry: bytes}).appendTo(nil)); err != nil {
				t.Fatal(err)
			}
			s.refusedWith(t, a, BadEntry)
		})
	}
	for name, entry := range map[string]*identity.SignedEntry{"of another peer": entryOf(t, 7), "of another network": foreign} {
		if e, err := Open(Options{Key: keyOf(1), Network: testNetwork, Entry: entry}); !errors.Is(err, identity.ErrEntry) {
			t.Errorf("Open with an entry %s: %v, %v", name, e, err)
		}
	}
	n := openNode(t, new(phonebook), 1, nil)
	older, newer := entryOf(t, 1), entryOf(t, 1)
	for name, entry := range map[string]*identity.SignedEntry{"of another peer": entryOf(t, 7), "of another network": foreign, "none": nil} {
		if err := n.SetEntry(entry); !errors.Is(err, identity.ErrEntry) || n.Entry() != nil {
			t.Errorf("SetEntry, %s: %v", name, err)
		}
	}
	if err := n.SetEntry(newer); err != nil {
		t.Fatal(err)
	}
	for _, entry := range []*identity.SignedEntry{older, newer} {
		if err := n.SetEntry(entry); !errors.Is(err, identity.ErrEntry) || !strings.Contains(err.Error(), "newer") || n.Entry() != newer {
			t.Errorf("SetEntry of an older one: %v", err)
		}
	}
}

// ticketed opens node 1, which holds tickets, and node 2, which asks for them, and
// connects them.
func ticketed(t *testing.T, o *office, tickets ...identity.Ticket) (holder, asker *node, c *Conn) {
	t.Helper()
	book := new(phonebook)
	holder = openNode(t, book, 1, func(o *Options) { o.Entry = entryOf(t, 1, tickets...) })
	asker = openNode(t, book, 2, func(opts *Options) { opts.Authorize = o.authorize })
	holder.echoes(t)
	asker.echoes(t)
	c, err := holder.Dial(testContext(t), asker.Peer(), echoProtocol)
	if err != nil {
		t.Fatal(err)
	}
	said(t, c, "hello")
	return holder, asker, c
}

// TestLostTicket: who changes its entry to one without the ticket is cut off, whether
// it shows that itself or others do; an older entry that somebody plays back changes
// nothing.
func TestLostTicket(t *testing.T) {
	for name, tell := range map[string]func(holder, asker *node, without *identity.SignedEntry) error{
		"shown": func(holder, _ *node, without *identity.SignedEntry) error { return holder.SetEntry(without) },
		"told":  func(_, asker *node, without *identity.SignedEntry) error { asker.Learn(without); return nil },
		"both ways": func(holder, asker *node, without *identity.SignedEntry) error {
			asker.Learn(without)
			return holder.SetEntry(without)
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := newOffice(t)
			older := entryOf(t, 1)
			holder, asker, c := ticketed(t, o, o.ticket(t, keyOf(1).PeerID(), nil))
			asker.Learn(older)
			said(t, c, "an older entry is no news")
			if shown := asker.Entries(); len(shown) != 1 || shown[0].Digest() != holder.Entry().Digest() || len(holder.Entries()) > 0 {
				t.Errorf("shown are %v and %v", shown, holder.Entries())
			}
			if err := tell(holder, asker, entryOf(t, 1)); err != nil {
				t.Fatal(err)
			}
			if _, err := c.ReadMessage(); !errors.Is(err, TicketReason(identity.ReasonAbsent)) {
				t.Fatal(err)
			}
			if err := next(t, asker.closed); err.Reason != "ticket-absent" || err.Remote {
				t.Error(err)
			}
			if err := next(t, holder.closed); err.Reason != "ticket-absent" || !err.Remote {
				t.Error(err)
			}
		})
	}
}

// TestFreshTicket: a ticket that is replaced in time keeps the connection; one that is
// not is cut at its end, and a fresh one lets the peer in again.
func TestFreshTicket(t *testing.T) {
	o := newOffice(t)
	short := func(c *identity.JWTClaims) { c.Expires = c.IssuedAt.Add(2 * time.Second) } // JWT has seconds
	holder, asker, c := ticketed(t, o, o.ticket(t, keyOf(1).PeerID(), short))
	first := asker.Conns()[0].Until
	if err := holder.SetEntry(entryOf(t, 1, o.ticket(t, keyOf(1).PeerID(), nil))); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the connection is good for longer", func() bool { return asker.Conns()[0].Until.After(first.Add(30 * time.Second)) })
	said(t, c, "renewed")

	if err := holder.SetEntry(entryOf(t, 1, o.ticket(t, keyOf(1).PeerID(), short))); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the connection is good for less", func() bool { return asker.Conns()[0].Until.Before(first.Add(30 * time.Second)) })
	until := asker.Conns()[0].Until
	said(t, c, "still good")
	if _, err := c.ReadMessage(); !errors.Is(err, TicketExpired) || time.Now().Before(until) {
		t.Fatalf("%v, %v before the end", err, time.Until(until))
	}
	if _, err := holder.Dial(testContext(t), asker.Peer(), echoProtocol); !errors.Is(err, TicketExpired) {
		t.Fatal(err)
	}
	if err := holder.SetEntry(entryOf(t, 1, o.ticket(t, keyOf(1).PeerID(), nil))); err != nil {
		t.Fatal(err)
	}
	c, err := holder.Dial(testContext(t), asker.Peer(), echoProtocol)
	if err != nil {
		t.Fatal(err)
	}
	said(t, c, "a fresh ticket")
}

// TestTooManyEntries: a peer that does nothing but change its entry is cut off.
func TestTooManyEntries(t *testing.T) {
	o := newOffice(t)
	_, asker, c := ticketed(t, o, o.ticket(t, keyOf(1).PeerID(), nil))
	ticket := o.ticket(t, keyOf(1).PeerID(), nil)
	for i := 0; c.Err() == nil && i < 1000; i++ {
		b := entryOf(t, 1, ticket).Bytes()
		c.write.Lock()
		_ = c.writePieces(append(appendHeader(nil, kindEntry, len(b)), b...))
		c.write.Unlock()
	}
	if err := next(t, asker.closed); err.Reason != TooManyEntries || err.Remote {
		t.Error(err)
	}
}

// TestAllowance holds the bucket to its pace.
func TestAllowance(t *testing.T) {
	var a allowance
	now, taken := time.Unix(1000, 0), 0
	for range 1000 {
		if a.take(now) {
			taken++
		}
	}
	if taken != entryBurst {
		t.Errorf("%d at once, want %d", taken, entryBurst)
	}
	for range 10 * entryBurst {
		now = now.Add(entryPause / 2)
		if a.take(now) {
			taken++
		}
	}
	if taken != 6*entryBurst {
		t.Errorf("%d at twice the pace, want %d", taken, 6*entryBurst)
	}
}
