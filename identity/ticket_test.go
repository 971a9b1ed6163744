package identity

import (
	"errors"
	"strings"
	"testing"
	"time"
)

var testNow = time.Date(2026, 11, 27, 8, 0, 0, 500, time.UTC)

func TestExpiration(t *testing.T) {
	at := ExpiresAt(testNow)
	if at.Expired(testNow) || !at.Expired(testNow.Add(1)) || Never().Expired(testNow.AddDate(1000, 0, 0)) {
		t.Error("expired is strictly before now")
	}
	if left, limited := at.Remaining(testNow.Add(-time.Second)); left != time.Second || !limited {
		t.Error(left, limited)
	}
	if left, limited := at.Remaining(testNow.Add(time.Second)); left != -time.Second || !limited {
		t.Error("expired and never must be told apart", left, limited)
	}
	if _, limited := Never().Remaining(testNow); limited {
		t.Error("never has a limit")
	}
	if Never().Compare(at) <= 0 || at.Compare(Never()) >= 0 || Never().Compare(Never()) != 0 || at.Compare(ExpiresAt(testNow.Add(1))) >= 0 {
		t.Error("order")
	}
	if got := Never().Earliest(at); got != at || at.Earliest(Never()) != at {
		t.Error(got)
	}
	if Never().String() != "never" || at.String() != "2026-11-27T08:00:00Z" {
		t.Error(at)
	}
}

// until is a validator whose tickets say for how many seconds they are valid, or
// why they are not.
type until struct{ name string }

func (u until) Class() ID     { return NewID(u.name) }
func (u until) Signature() ID { return u.Class().Derive("signature") }
func (u until) Validate(data []byte, _ *PeerEntry, now time.Time) (Expiration, error) {
	switch text := string(data); {
	case text == "never":
		return Never(), nil
	case text == "odd":
		return Expiration{}, errors.New("an error of another kind")
	case strings.HasPrefix(text, "no "):
		return Expiration{}, reject(Reason(text[3:]), "as it says")
	default:
		d, err := time.ParseDuration(text)
		return ExpiresAt(now.Add(d)), err
	}
}

func TestClauses(t *testing.T) {
	a, b := Require(until{"a"}), Require(until{"b"})
	entry := func(tickets ...string) *PeerEntry {
		e := &PeerEntry{}
		for _, text := range tickets {
			class, data, _ := strings.Cut(text, ":")
			e.Tickets = append(e.Tickets, Ticket{NewID(class), []byte(data)})
		}
		return e
	}
	for _, c := range []struct {
		name    string
		clause  Clause
		tickets []string
		want    string // how long, or the reasons
	}{
		{"none asked", All(), nil, "never"},
		{"none is enough", Any(), nil, "absent"},
		{"absent", a, []string{"b:1h"}, "absent"},
		{"there", a, []string{"a:1h"}, "1h0m0s"},
		{"the best", a, []string{"a:1h", "a:3h", "a:2h", "a:no signature"}, "3h0m0s"},
		{"never is best", a, []string{"a:1h", "a:never"}, "never"},
		{"all are bad", a, []string{"a:no signature", "a:no subject"}, "signature subject"},
		{"expired", a, []string{"a:-1s"}, "expired"},
		{"oversize", a, []string{"a:" + strings.Repeat("x", MaxTicket+1)}, "oversize"},
		{"an odd error", a, []string{"a:odd"}, "malformed"},
		{"both", All(a, b), []string{"a:1h", "b:2h"}, "1h0m0s"},
		{"one of both", All(a, b), []string{"a:1h"}, "absent"},
		{"either", Any(a, b), []string{"b:2h"}, "2h0m0s"},
		{"the longer", Any(a, b), []string{"a:3h", "b:2h"}, "3h0m0s"},
		{"neither", Any(a, b), []string{"a:no subject"}, "subject absent"},
		{"nested", All(Any(a, b), b), []string{"a:never", "b:1m"}, "1m0s"},
	} {
		got, err := c.clause.Admit(entry(c.tickets...), testNow)
		if err != nil {
			for _, r := range strings.Fields(c.want) {
				if !errors.Is(err, Reason(r)) {
					t.Errorf("%s: %v, want %s", c.name, err, c.want)
				}
			}
			continue
		}
		text := got.String()
		if left, limited := got.Remaining(testNow); limited {
			text = left.String()
		}
		if text != c.want {
			t.Errorf("%s: %s, want %s", c.name, text, c.want)
		}
	}
	var bad *TicketError
	_, err := a.Admit(entry("a:no subject"), testNow)
	if !errors.As(err, &bad) || bad.Ticket != (Ticket{NewID("a"), []byte("no subject")}).ID() || bad.Class != NewID("a") {
		t.Errorf("the error does not say whose it is: %+v", bad)
	}
	seen := map[ID]string{}
	for name, c := range map[string]Clause{
		"a": a, "b": b, "all": All(), "any": Any(), "all a": All(a), "any a": Any(a), "all a b": All(a, b), "all b a": All(b, a), "any a b": Any(a, b), "nested": All(All(a), b), "nested otherwise": All(All(a, b)),
	} {
		if other, twice := seen[c.Signature()]; twice {
			t.Errorf("%s and %s have one signature", name, other)
		}
		seen[c.Signature()] = name
	}
}
