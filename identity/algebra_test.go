package identity

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// modelled is a clause, and beside it what it has to say of a list of tickets, in
// minutes: negative, it does not hold; math.MaxInt, for ever.
type modelled struct {
	clause Clause
	model  func(tickets []Ticket) int
	text   string
}

func minutesOf(t Ticket) int {
	if string(t.Data) == "never" {
		return math.MaxInt
	}
	var n int
	if _, err := fmt.Sscanf(string(t.Data), "%dm", &n); err != nil {
		return -1
	}
	return n
}

func drawClause(t *rapid.T, depth int) modelled {
	kind := rapid.SampledFrom([]string{"require", "all", "any"}).Draw(t, "kind")
	if depth == 0 || kind == "require" {
		v := until{rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "class")}
		return modelled{Require(v), func(tickets []Ticket) int {
			best := -1
			for _, ticket := range tickets {
				if ticket.Class == v.Class() {
					best = max(best, minutesOf(ticket))
				}
			}
			return best
		}, v.name}
	}
	var parts []modelled
	var clauses []Clause
	var texts []string
	for range rapid.IntRange(0, 3).Draw(t, "parts") {
		p := drawClause(t, depth-1)
		parts, clauses, texts = append(parts, p), append(clauses, p.clause), append(texts, p.text)
	}
	text := kind + "(" + strings.Join(texts, " ") + ")"
	if kind == "all" {
		return modelled{All(clauses...), func(tickets []Ticket) int {
			least := math.MaxInt
			for _, p := range parts {
				least = min(least, p.model(tickets))
			}
			return least
		}, text}
	}
	return modelled{Any(clauses...), func(tickets []Ticket) int {
		best := -1
		for _, p := range parts {
			best = max(best, p.model(tickets))
		}
		return best
	}, text}
}

func drawTicket(t *rapid.T) Ticket {
	class := rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(t, "ticket class")
	data := rapid.SampledFrom([]string{"0m", "1m", "2m", "3m", "-1m", "never", "no signature", "no subject"}).Draw(t, "data")
	return Ticket{NewID(class), []byte(data)}
}

// TestClausesAgreeWithTheModel: of a class the best ticket counts, of All the earliest
// end, of Any the latest, however they are nested.
func TestClausesAgreeWithTheModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := drawClause(t, 3)
		tickets := rapid.SliceOfN(rapid.Custom(drawTicket), 0, MaxTickets).Draw(t, "tickets")
		admit := func(tickets []Ticket) int {
			got, err := c.clause.Admit(&PeerEntry{Tickets: tickets}, testNow)
			if err != nil {
				var r Reason
				if !errors.As(err, &r) || got != (Expiration{}) {
					t.Fatalf("%s: %v, %v: no reason, or an end with an error", c.text, got, err)
				}
				return -1
			}
			left, limited := got.Remaining(testNow)
			if !limited {
				return math.MaxInt
			}
			return int(left / time.Minute)
		}
		want := c.model(tickets)
		if got := admit(tickets); got != want {
			t.Fatalf("%s of %s: %d minutes, want %d", c.text, tickets, got, want)
		}
		// The order of the tickets does not matter.
		reversed := slices.Clone(tickets)
		slices.Reverse(reversed)
		if got := admit(reversed); got != want {
			t.Fatalf("%s of %s: %d minutes in another order, want %d", c.text, reversed, got, want)
		}
		// Nobody loses by one more ticket.
		if got := admit(append(reversed, drawTicket(t))); got < want {
			t.Fatalf("%s of %s: %d minutes with a ticket more, before it %d", c.text, tickets, got, want)
		}
	})
}

// TestEveryRefusedTicketIsTold: if none of a class is accepted, the error has one part
// for each of them.
func TestEveryRefusedTicketIsTold(t *testing.T) {
	e := &PeerEntry{}
	want := map[ID]Reason{}
	for data, reason := range map[string]Reason{"no signature": ReasonSignature, "no age": ReasonAge, "-1s": ReasonExpired, "odd": ReasonMalformed} {
		ticket := Ticket{NewID("a"), []byte(data)}
		e.Tickets = append(e.Tickets, ticket)
		want[ticket.ID()] = reason
	}
	e.Tickets = append(e.Tickets, Ticket{NewID("b"), []byte("1h")})
	_, err := Require(until{"a"}).Admit(e, testNow)
	joined, is := err.(interface{ Unwrap() []error })
	if !is || len(joined.Unwrap()) != len(want) {
		t.Fatalf("%v: it is not about %d tickets", err, len(want))
	}
	for _, err := range joined.Unwrap() {
		var bad *TicketError
		if !errors.As(err, &bad) || want[bad.Ticket] != bad.Reason || !strings.Contains(err.Error(), bad.Ticket.Short()) || !strings.Contains(err.Error(), string(bad.Reason)) {
			t.Errorf("%v", err)
		}
	}
}

// TestClauseSignaturesGolden: ids of groups follow from them.
func TestClauseSignaturesGolden(t *testing.T) {
	a, b := Require(until{"a"}), Require(until{"b"})
	if a.Signature() != (until{"a"}).Signature() {
		t.Error("Require has a signature of its own, so groups would have other ids than the Rust runtime's")
	}
	sa, sb := a.Signature(), b.Signature()
	all, anyOf := NewID("mosaik.clause.all.v1"), NewID("mosaik.clause.any.v1")
	for _, c := range []struct {
		name      string
		got, want ID
		golden    string
	}{
		{"All()", All().Signature(), all, "cf0c5c62e7d67acd65ab0ca64e6ff259397671fae6a5b1c5224a41417d7ccf5c"},
		{"Any()", Any().Signature(), anyOf, "db6145ec19bd71d50d2e2f44cc157027f1d815982310eeea132b35120fcfa713"},
		{"All(a, b)", All(a, b).Signature(), FromParts(twoParts(all, sa), sb[:]), "08f3e983928cb6bfae08231934d5e522501dd85f8214b8f2e2fb51d9dab7b866"},
		{"Any(b, a)", Any(b, a).Signature(), FromParts(twoParts(anyOf, sb), sa[:]), "a256e3c2c7db0bcd6fa7acd0a3595fd717a1a35229f20a8a46ad5855dbd56f58"},
	} {
		if c.got != c.want || c.got.String() != c.golden {
			t.Errorf("%s: %s, by the rule %s, formerly %s", c.name, c.got, c.want, c.golden)
		}
	}
}

// twoParts is H(a || b).
func twoParts(a, b ID) []byte {
	id := FromParts(a[:], b[:])
	return id[:]
}

// TestClausesKeepTheirList: changing the caller's slice changes no clause.
func TestClausesKeepTheirList(t *testing.T) {
	list := []Clause{Require(until{"a"})}
	for name, c := range map[string]Clause{"All": All(list...), "Any": Any(list...)} {
		before := c.Signature()
		list[0] = Require(until{"b"})
		if c.Signature() != before {
			t.Errorf("%s shares the caller's slice", name)
		}
		list[0] = Require(until{"a"})
	}
}

func TestRecogniseIssuer(t *testing.T) {
	root, other := NewID("coalition").Derive("tickets"), NewID("another").Derive("tickets")
	signer, err := NewJWTKeySigner(testKey(7))
	if err != nil {
		t.Fatal(err)
	}
	o := JWTOptions{Keys: []JWTKey{signer.Key()}, Audiences: []string{"prices"}}
	clause, err := RecogniseIssuer(root, o)
	if err != nil {
		t.Fatal(err)
	}
	peer := testKey(1).PeerID()
	issue := func(s *JWTSigner, issuer string) *PeerEntry {
		ticket, err := s.Issue(JWTClaims{Issuer: issuer, Subject: peer.String(), Audience: "prices", IssuedAt: testNow, Expires: testNow.Add(time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		return &PeerEntry{Peer: peer, Tickets: []Ticket{ticket}}
	}
	if until, err := clause.Admit(issue(signer, root.String()), testNow); err != nil || until.IsNever() {
		t.Errorf("%v, %v", until, err)
	}
	impostor, err := NewJWTKeySigner(testKey(8))
	if err != nil {
		t.Fatal(err)
	}
	for want, e := range map[Reason]*PeerEntry{
		ReasonIssuer: issue(signer, other.String()), ReasonSignature: issue(impostor, root.String()), ReasonAbsent: {Peer: peer},
	} {
		if _, err := clause.Admit(e, testNow); !errors.Is(err, want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	withIssuer := o
	withIssuer.Issuers = []string{root.String()}
	j, err := NewJWT(withIssuer)
	if err != nil {
		t.Fatal(err)
	}
	if want := NewID("mosaik.clause.issuer.v1").DeriveID(root).DeriveID(j.Signature()); clause.Signature() != want {
		t.Errorf("signature %s, want %s", clause.Signature(), want)
	}
	if c, err := RecogniseIssuer(other, o); err != nil || c.Signature() == clause.Signature() {
		t.Errorf("two roots have one signature, or %v", err)
	}
	if _, err := RecogniseIssuer(ID{}, o); err == nil {
		t.Error("the zero root is recognised")
	}
	if _, err := RecogniseIssuer(root, withIssuer); err == nil {
		t.Error("issuers beside the root are accepted")
	}
	if _, err := RecogniseIssuer(root, JWTOptions{}); err == nil {
		t.Error("no key is accepted")
	}
}
