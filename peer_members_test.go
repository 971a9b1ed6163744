package mosaik_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mosaik-engine/mosaik"
	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/network"
)

// until waits for what a test expects to come about.
func until(t *testing.T, ctx context.Context, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s: %v", what, ctx.Err())
		}
	}
}

// TestPeerReplaced: a founder is evicted while it runs and is cut off; a machine that was
// never one holds a ticket, is let in because the policy is open, takes the seat and has a
// vote. With another ticket its verdict is renewed. Appends go on all the time, and every
// record is there once.
func TestPeerReplaced(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	signer, clause := desk(t)
	c := newTrio(t)
	ticket := func(i int, life time.Duration) []identity.Ticket {
		now := time.Now()
		one, err := signer.Issue(identity.JWTClaims{Subject: c.keys[i].PeerID().String(), IssuedAt: now, Expires: now.Add(life)})
		if err != nil {
			t.Fatal(err)
		}
		return []identity.Ticket{one}
	}
	options := func(i int, life time.Duration) *mosaik.PeerOptions {
		o := c.options(i)
		o.Clauses = []identity.Clause{clause}
		o.Tickets = ticket(i, life)
		return o
	}
	for i := range 3 {
		c.open(i, options(i, time.Hour))
	}
	c.ready(ctx)
	key := identity.NewID("k")
	appended := uint64(0)
	add := func(i int) {
		t.Helper()
		if _, err := c.nodes[i].Append(ctx, key, []byte("v")); err != nil {
			t.Fatal(err)
		}
		appended++
	}
	add(0)

	// Not yet let in, it is refused by name on its side, and nothing is left behind.
	o := options(3, time.Hour)
	if n, err := mosaik.OpenPeer(t.TempDir(), o); err == nil || !strings.Contains(err.Error(), string(network.NotAllowed)) {
		if n != nil {
			n.Close()
		}
		t.Fatalf("a stranger: %v", err)
	}
	if err := c.nodes[0].SetMembershipPolicy(ctx, log.MembershipPolicy{Open: true, Promote: true}); err != nil {
		t.Fatal(err)
	}
	known := func(i int) log.Membership { return c.nodes[i].Groups()[0].KnownMembers() }
	for i := range 3 {
		until(t, ctx, "all know the policy", func() bool { return known(i).Policy.Open })
	}
	if _, err := mosaik.OpenPeer(t.TempDir(), o); !errors.Is(err, log.ErrMembership) && (err == nil || !strings.Contains(err.Error(), "no seat is vacant")) {
		t.Fatalf("no seat and no room for readers: %v", err)
	}

	out := c.keys[2].PeerID()
	if err := c.nodes[0].Evict(ctx, out); err != nil {
		t.Fatal(err)
	}
	cut, enough := context.WithTimeout(ctx, 5*time.Second)
	for _, i := range []int{0, 1} {
		until(t, cut, "the connections with it are cut", func() bool {
			return !slices.ContainsFunc(c.nodes[i].Endpoint.Conns(), func(x network.Info) bool { return x.Peer == out })
		})
	}
	enough()
	add(1)
	c.close(2)

	c.open(3, options(3, 30*time.Second))
	until(t, ctx, "it has a vote", func() bool { return !c.nodes[3].Groups()[0].Status().Reader })
	add(3)
	verdict := func(i int) time.Time {
		m := known(i)
		x, _ := m.Of(c.keys[3].PeerID())
		return x.Verdict.Expires
	}
	// Until it has read the log of members it knows its seat alone.
	until(t, ctx, "its verdict ends, as its ticket does", func() bool { return !verdict(3).IsZero() })
	first := verdict(3)
	// Its vote is needed.
	c.close(0)
	add(3)
	c.open(0, options(0, time.Hour))
	if err := c.nodes[3].SetTickets(ticket(3, time.Hour)); err != nil {
		t.Fatal(err)
	}
	until(t, ctx, "its verdict is renewed", func() bool { return verdict(1).After(first) })
	add(3)
	if err := c.nodes[0].Evict(ctx, c.keys[3].PeerID()); err != nil {
		t.Fatal(err)
	}
	until(t, ctx, "it is out", func() bool { m := known(1); _, in := m.Of(c.keys[3].PeerID()); return !in })
	add(0)
	c.close(3)
	g := c.nodes[1].Groups()[0]
	if err := g.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	n := uint64(0)
	for run, err := range g.Scan(ctx, log.Query{Key: key}) {
		if err != nil {
			t.Fatal(err)
		}
		n += uint64(run.Count)
	}
	if n != appended {
		t.Errorf("%d records of %d", n, appended)
	}
}
