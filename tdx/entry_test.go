package tdx_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/tdx"
)

// TestEntries: the validator as a clause on peer entries, where the best ticket counts.
func TestEntries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, tdx.CheckerOptions{})
		td := sample()
		wrong := td
		wrong.MRTD[0] ^= 1
		entry := func(tickets ...[]byte) *identity.PeerEntry {
			e := &identity.PeerEntry{Peer: r.subject.Peer, Network: r.subject.Network}
			for _, data := range tickets {
				e.Tickets = append(e.Tickets, identity.Ticket{Class: tdx.TicketClass(), Data: data})
			}
			return e
		}
		v := r.validator(t, tdx.Policy{Baseline: tdx.Exactly(td.Measurements)})
		clause, now := identity.Require(v), time.Now()
		long := r.ticket(t, td, false, func(t *tdx.Ticket) { t.Expires = t.Expires.Add(time.Hour) })
		until, err := clause.Admit(entry(r.ticket(t, wrong, false, nil), long, r.ticket(t, td, false, nil)), now)
		if at, limited := until.Time(); err != nil || !limited || !at.Equal(now.Add(2*time.Hour)) {
			t.Errorf("until %v, %v", until, err)
		}
		for want, data := range map[identity.Reason][]byte{
			identity.ReasonMeasurements: r.ticket(t, wrong, false, nil),
			identity.ReasonSubject:      r.ticket(t, td, false, func(t *tdx.Ticket) { t.Peer[0] ^= 1 }),
			identity.ReasonAudience:     r.ticket(t, td, false, func(t *tdx.Ticket) { t.Network[0] ^= 1 }),
			identity.ReasonExpired:      r.ticket(t, td, false, func(t *tdx.Ticket) { t.Expires = now.Add(-time.Second) }),
			identity.ReasonMalformed:    {1, 2, 3},
		} {
			if _, err := clause.Admit(entry(data), now); !errors.Is(err, want) {
				t.Errorf("%s: %v", want, err)
			}
		}
		if _, err := clause.Admit(entry(), now); !errors.Is(err, identity.ReasonAbsent) {
			t.Errorf("no ticket: %v", err)
		}
		limits := r.validator(t, tdx.Policy{MaxAge: time.Minute, MaxLifetime: time.Minute})
		if _, err := limits.Validate(long, entry(), now); !errors.Is(err, identity.ReasonLifetime) {
			t.Errorf("a long life: %v", err)
		}
		if _, err := limits.Validate(long, entry(), now.Add(time.Hour)); !errors.Is(err, identity.ReasonAge) {
			t.Errorf("an old quote: %v", err)
		}
		strict := r.validator(t, tdx.Policy{MinEvaluation: 99})
		if _, err := strict.Validate(long, entry(), now); !errors.Is(err, identity.ReasonUntrusted) || !errors.Is(err, tdx.ErrRejected) {
			t.Errorf("an old evaluation: %v", err)
		}
		if _, err := v.Validate(long, entry(), now.AddDate(1, 0, 0)); !errors.Is(err, identity.ReasonExpired) {
			t.Errorf("next year: %v", err)
		}
	})
}

// TestValidateDoesNotWait: without collateral a ticket is refused, and the collateral
// fetched meanwhile.
func TestValidateDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService(t)
		cache := open(t, tdx.CacheOptions{Root: s.authority.Root(), Fetch: s.fetch})
		defer func() { _ = cache.Close() }()
		v, err := tdx.NewValidator(tdx.Policy{Root: s.authority.Root()}, tdx.NewChecker(cache, tdx.CheckerOptions{}))
		if err != nil {
			t.Fatal(err)
		}
		ticket := tdx.Ticket{Peer: identity.PeerID{1}, Network: identity.ID{2}, StartedAt: time.Now(), QuotedAt: time.Now(), Expires: time.Now().Add(time.Hour)}
		_, data := ticketOf(t, s.authority.Quoter(sample()), ticket)
		e := &identity.PeerEntry{Peer: ticket.Peer, Network: ticket.Network}
		if _, err := v.Validate(data, e, time.Now()); !errors.Is(err, tdx.ErrCollateral) || !errors.Is(err, identity.ReasonUntrusted) {
			t.Errorf("without collateral: %v", err)
		}
		synctest.Wait()
		if _, err := v.Validate(data, e, time.Now()); err != nil || s.count() != 4 {
			t.Errorf("after %d fetches: %v", s.count(), err)
		}
	})
}
