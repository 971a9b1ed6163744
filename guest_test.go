package mosaik_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/mosaik-engine/mosaik"
	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/network"
	"github.com/mosaik-engine/mosaik/network/catalog"
	"github.com/mosaik-engine/mosaik/network/remote"
)

// openGuest opens a node without a store that knows where the trio is.
func (c *trio) openGuest(seed byte, change func(*mosaik.GuestOptions)) *mosaik.Guest {
	c.t.Helper()
	o := &mosaik.GuestOptions{Key: identity.KeyFromSeed([identity.Size]byte{seed}), Network: "trio", Addresses: c.options(0).Addresses}
	if change != nil {
		change(o)
	}
	g, err := mosaik.OpenGuest(o)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { g.Close() })
	return g
}

// TestGuest: a node that is no member writes and reads a stream and a map of a group, and
// follows the stream while its leader moves and members stop and come back: it gets each
// record once, in order. What the policy does not let it do it is told, and it gets no
// part in anything else.
func TestGuest(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	signer, clause := desk(t)
	c := newTrio(t)
	options := func(i int) *mosaik.PeerOptions {
		o := c.options(i)
		o.Remote = &remote.Policy{Consume: new(remote.Rule), Produce: &remote.Rule{Clause: clause}}
		o.Discovery = &catalog.Options{Round: 20 * time.Millisecond}
		return o
	}
	for i := range 3 {
		c.open(i, options(i))
	}
	c.ready(ctx)
	group := c.nodes[0].Groups()[0].ID()
	members := c.options(0).Store.Members

	key := identity.KeyFromSeed([identity.Size]byte{8})
	ticket, err := signer.Issue(identity.JWTClaims{Subject: key.PeerID().String(), IssuedAt: time.Now(), Expires: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	producer := c.openGuest(8, func(o *mosaik.GuestOptions) { o.Tickets = []identity.Ticket{ticket} })
	consumer := c.openGuest(9, func(o *mosaik.GuestOptions) {
		o.Discovery = &catalog.Options{Round: 20 * time.Millisecond, Bootstrap: func(context.Context) []catalog.Seed {
			return []catalog.Seed{{Peer: members[0], Addresses: o.Addresses(members[0])}}
		}}
	})
	write, err := producer.Remote(group, members...)
	if err != nil {
		t.Fatal(err)
	}
	read, err := consumer.Remote(group) // found through the catalog
	if err != nil {
		t.Fatal(err)
	}
	for len(consumer.Replicas(group)()) < 3 {
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			t.Fatal("the catalog does not tell who has the group")
		}
	}

	numbers := log.StreamDef[int]{Name: "numbers"}
	stream, err := numbers.Open(ctx, write)
	if err != nil {
		t.Fatal(err)
	}
	names := log.MapDef[int, string]{Name: "names"}
	writer, err := names.Open(ctx, write)
	if err != nil {
		t.Fatal(err)
	}
	const calm, total = 50, 400
	for i := range calm {
		if _, err := stream.Append(ctx, i); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, _, err := writer.Insert(ctx, 7, "seven"); err != nil {
		t.Fatal(err)
	}
	reader, err := names.Reader(read)
	if err != nil {
		t.Fatal(err)
	}
	if v, ok, err := reader.Get(ctx, 7); err != nil || !ok || v != "seven" {
		t.Errorf("%q, %v, %v", v, ok, err)
	}

	tail, err := numbers.Reader(read)
	if err != nil {
		t.Fatal(err)
	}
	more := make(chan int, total) // what members write meanwhile
	written := make(chan error, 1)
	go func() {
		s, err := numbers.Open(ctx, c.nodes[0])
		for i := range more {
			if err == nil {
				_, err = s.Append(ctx, i)
			}
		}
		written <- err
	}()
	next := 0
	for record, err := range tail.Tail(ctx, log.Earliest()) {
		if err != nil {
			t.Fatalf("at %d: %v", next, err)
		}
		if record.Value != next || record.Seq != uint64(next+1) {
			t.Fatalf("record %d has %d, want %d", record.Seq, record.Value, next)
		}
		if next++; next == total {
			break
		}
		if next < calm {
			continue
		}
		more <- next
		switch {
		case next%100 == 60:
			if err := c.nodes[0].Groups()[0].TransferLeadership(ctx, members[next/100%2]); err != nil {
				t.Fatal(err)
			}
		case next%100 == 80: // whoever serves it, and maybe leads
			for _, info := range consumer.Endpoint.Conns() {
				if info.Protocol != remote.Protocol {
					continue
				}
				for i := 1; i < 3; i++ {
					if info.Peer == members[i] && c.nodes[i] != nil {
						c.close(i)
						c.open(i, options(i))
					}
				}
			}
			consumer.Endpoint.Disconnect(members[0], network.Lost, nil)
		}
	}
	close(more)
	if err := <-written; err != nil || next != total {
		t.Fatalf("%d records, %v", next, err)
	}
	if asked := consumer.Remotes.Metrics().Asked; asked[network.GoingAway]+asked[network.Lost] == 0 {
		t.Errorf("nothing was cut: %v", asked)
	}

	if _, err := read.Append(ctx, numbers.Key(), nil); !errors.Is(err, network.TicketReason(identity.ReasonAbsent)) {
		t.Errorf("without a ticket: %v", err)
	}
	head, err := write.Sync(ctx)
	if err != nil || head.Number < total {
		t.Errorf("%+v, %v", head, err)
	}
	shards, err := network.OpenShards(producer.Endpoint, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer shards.Close()
	if err := producer.Endpoint.SetGroups([]network.Group{{ID: group, Key: c.nodes[0].Groups()[0].BondKey(), Members: members}}); err != nil {
		t.Fatal(err)
	}
	if conn, err := producer.Endpoint.Dial(ctx, members[0], network.ShardProtocol); !errors.Is(err, network.NotAllowed) {
		t.Errorf("a guest has a part in more: %v, %v", conn, err)
	}
}

// TestGuestWithoutPolicy: members that say nothing of guests have none.
func TestGuestWithoutPolicy(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c := newTrio(t)
	for i := range 2 {
		c.open(i, c.options(i))
	}
	c.ready(ctx)
	guest := c.openGuest(8, func(*mosaik.GuestOptions) {})
	g, err := guest.Remote(c.nodes[0].Groups()[0].ID(), c.nodes[0].Peer(), c.nodes[1].Peer())
	if err != nil {
		t.Fatal(err)
	}
	for _, follow := range []bool{false, true} {
		for _, err = range g.Scan(ctx, log.Query{Key: identity.NewID("key"), Follow: follow}) {
		}
		if !errors.Is(err, network.UnknownProtocol) {
			t.Errorf("%v", err)
		}
	}
	// A member may be a guest of another one.
	if _, err := c.nodes[0].Remote(c.nodes[1].Groups()[0].ID(), c.nodes[1].Peer()); err != nil {
		t.Error(err)
	}
	if got := fmt.Sprint(guest.Remotes.Metrics()); got != "{map[] map[]}" {
		t.Errorf("%s", got)
	}
}
