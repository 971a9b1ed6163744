package mosaik_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/mosaik-engine/mosaik"
	"github.com/mosaik-engine/mosaik/engine"
	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/network"
	"github.com/mosaik-engine/mosaik/replay"
)

// trio is three nodes of one network, each with a port of its own, and one more that is
// no founder.
type trio struct {
	t         *testing.T
	dir       string
	keys      []identity.Key
	mu        sync.Mutex
	addresses map[identity.PeerID][]string
	nodes     [4]*mosaik.Peer
}

func newTrio(t *testing.T) *trio {
	c := &trio{t: t, dir: t.TempDir(), addresses: make(map[identity.PeerID][]string)}
	for i := range c.nodes {
		c.keys = append(c.keys, identity.KeyFromSeed([identity.Size]byte{byte(i + 1)}))
	}
	t.Cleanup(func() {
		for _, n := range c.nodes {
			if n != nil {
				n.Close()
			}
		}
	})
	return c
}

func (c *trio) options(i int) *mosaik.PeerOptions {
	o := &mosaik.PeerOptions{Key: c.keys[i], Network: "trio", Addresses: func(p identity.PeerID) []string {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.addresses[p]
	}}
	for _, k := range c.keys[:3] {
		o.Store.Members = append(o.Store.Members, k.PeerID())
	}
	o.Store.Secret = identity.NewID("what the three know")
	o.Store.SegmentBytes = engine.MinSegmentBytes
	return o
}

func (c *trio) open(i int, o *mosaik.PeerOptions) {
	c.t.Helper()
	n, err := mosaik.OpenPeer(filepath.Join(c.dir, c.keys[i].PeerID().Short()), o)
	if err != nil {
		c.t.Fatal(err)
	}
	c.nodes[i] = n
	c.mu.Lock()
	c.addresses[c.keys[i].PeerID()] = []string{n.Endpoint.Addr().String()}
	c.mu.Unlock()
}

func (c *trio) close(i int) {
	c.t.Helper()
	if err := c.nodes[i].Close(); err != nil {
		c.t.Fatal(err)
	}
	c.nodes[i] = nil
}

func (c *trio) ready(ctx context.Context) {
	c.t.Helper()
	for _, n := range c.nodes {
		if n == nil {
			continue
		}
		if err := n.Ready(ctx); err != nil {
			c.t.Fatal(err)
		}
	}
}

// desk issues tickets for the trio, which asks for them.
func desk(t *testing.T) (*identity.JWTSigner, identity.Clause) {
	t.Helper()
	signer, err := identity.NewJWTKeySigner(identity.KeyFromSeed([identity.Size]byte{77}))
	if err != nil {
		t.Fatal(err)
	}
	validator, err := identity.NewJWT(identity.JWTOptions{Keys: []identity.JWTKey{signer.Key()}})
	if err != nil {
		t.Fatal(err)
	}
	return signer, identity.Require(validator)
}

// TestPeerTickets: a member whose ticket runs out is cut off by the others and takes
// no part any more; with a fresh one it catches up, and no record is lost or there
// twice.
func TestPeerTickets(t *testing.T) {
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
	for i := range 3 {
		o := c.options(i)
		o.Clauses, o.Tickets = []identity.Clause{clause}, ticket(i, time.Hour)
		c.open(i, o)
	}
	c.ready(ctx)
	key, sent := identity.NewID("key"), 0
	send := func(i int) {
		t.Helper()
		if _, err := c.nodes[i].Append(ctx, key, fmt.Appendf(nil, "record %d", sent)); err != nil {
			t.Fatal(err)
		}
		sent++
	}
	for range 20 {
		send(sent % 3)
	}
	between := func(i int) (conns int) {
		for _, n := range c.nodes[:3] {
			for _, info := range n.Endpoint.Conns() {
				if n.Peer() == c.keys[i].PeerID() || info.Peer == c.keys[i].PeerID() {
					conns++
				}
			}
		}
		return conns
	}
	if err := c.nodes[2].SetTickets(ticket(2, 2*time.Second)); err != nil {
		t.Fatal(err)
	}
	for between(2) > 0 {
		send(0) // or the connections would be idle when the time comes
		if ctx.Err() != nil {
			t.Fatal("the third is not cut off")
		}
	}
	for range 20 {
		send(sent % 2)
	}
	if n := between(2); n > 0 {
		t.Errorf("%d connections with the third", n)
	}
	var cut, told uint64
	for i, n := range c.nodes[:3] {
		switch m := n.Endpoint.Metrics(); i {
		case 2:
			told = m.Closed[network.TicketExpired] + m.RefusedBy[network.TicketExpired]
		default:
			cut += m.Closed[network.TicketExpired] + m.Refused[network.TicketExpired]
		}
	}
	if cut == 0 || told == 0 {
		t.Errorf("the others count %d, the third %d", cut, told)
	}
	if err := c.nodes[2].SetTickets(ticket(2, time.Hour)); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		send(sent % 3)
	}
	for i, n := range c.nodes[:3] {
		g := n.Groups()[0]
		if _, err := g.Sync(ctx); err != nil {
			t.Fatal(err)
		}
		next := 0
		for run, err := range g.Scan(ctx, log.Query{Key: key}) {
			if err != nil {
				t.Fatal(err)
			}
			for _, payload := range run.Records() {
				if want := fmt.Sprintf("record %d", next); string(payload) != want {
					t.Fatalf("node %d has %q, want %q", i, payload, want)
				}
				next++
			}
		}
		if next != sent {
			t.Errorf("node %d has %d records, %d were sent", i, next, sent)
		}
	}
}

// TestPeerWithout: who holds no ticket gets no part in the groups; who does not ask for
// one is in other groups. Both are told.
func TestPeerWithout(t *testing.T) {
	signer, clause := desk(t)
	for name, test := range map[string]struct {
		change func(*mosaik.PeerOptions)
		reason network.Reason
	}{
		"no ticket":      {func(o *mosaik.PeerOptions) { o.Tickets = nil }, "ticket-absent"},
		"does not ask":   {func(o *mosaik.PeerOptions) { o.Clauses = nil }, network.NoCommonGroup},
		"asks for other": {func(o *mosaik.PeerOptions) { o.Clauses = append(o.Clauses, clause) }, network.NoCommonGroup},
	} {
		t.Run(name, func(t *testing.T) {
			c := newTrio(t)
			for i := range 2 {
				now := time.Now()
				ticket, err := signer.Issue(identity.JWTClaims{Subject: c.keys[i].PeerID().String(), IssuedAt: now, Expires: now.Add(time.Hour)})
				if err != nil {
					t.Fatal(err)
				}
				o := c.options(i)
				o.Clauses, o.Tickets = []identity.Clause{clause}, []identity.Ticket{ticket}
				if i == 1 {
					test.change(o)
				}
				c.open(i, o)
			}
			deadline, tick := time.After(20*time.Second), time.NewTicker(10*time.Millisecond)
			defer tick.Stop()
			for {
				m, other := c.nodes[0].Endpoint.Metrics(), c.nodes[1].Endpoint.Metrics()
				if (m.Refused[test.reason] > 0 || m.RefusedBy[test.reason] > 0) && (other.Refused[test.reason] > 0 || other.RefusedBy[test.reason] > 0) {
					break
				}
				select {
				case <-tick.C:
				case <-deadline:
					t.Fatalf("%+v\n%+v", m, other)
				}
			}
			if m := c.nodes[0].Endpoint.Metrics(); m.MessagesIn > 0 {
				t.Errorf("%d messages came", m.MessagesIn)
			}
		})
	}
}

// TestPeers: three processes' worth of nodes found a group over the network, go on
// without one, take it back at another port, and again when its disk is gone.
func TestPeers(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	c := newTrio(t)
	for i := range 3 {
		c.open(i, c.options(i))
	}
	c.ready(ctx)
	key := identity.NewID("key")
	append1 := func(i int) {
		t.Helper()
		for range 40 {
			if _, err := c.nodes[i].Append(ctx, key, make([]byte, 4000)); err != nil {
				t.Fatal(err)
			}
		}
	}
	append1(0)
	c.close(2)
	append1(1)
	c.open(2, &mosaik.PeerOptions{Key: c.keys[2], Network: "trio", Addresses: c.options(2).Addresses}) // the store knows the rest
	c.ready(ctx)
	append1(2)

	c.close(2)
	if err := os.RemoveAll(filepath.Join(c.dir, c.keys[2].PeerID().Short())); err != nil {
		t.Fatal(err)
	}
	append1(0)
	o := c.options(2)
	o.Rejoin = true
	c.open(2, o)
	c.ready(ctx)
	for g := c.nodes[2].Groups()[0]; g.Status().Reader; {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			t.Fatal("it gets no vote")
		}
	}
	c.close(0) // its vote is needed now
	append1(2)
	head := c.nodes[1].Groups()[0].Head().Number
	var digests []string
	for _, i := range []int{1, 2} {
		r, err := replay.Audit(ctx, c.nodes[i].Groups()[0], replay.AuditOptions{To: head})
		if err != nil || r.Records < 200 {
			t.Fatalf("%+v, %v", r, err)
		}
		digests = append(digests, r.Digest.String())
	}
	if digests[0] != digests[1] {
		t.Errorf("they have %v", digests)
	}
}

// TestPeersRefused: who is no member, of another network, or has another secret gets
// nowhere, and both sides can tell why.
func TestPeersRefused(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c := newTrio(t)
	for i := range 2 {
		c.open(i, c.options(i))
	}
	c.ready(ctx)
	for _, test := range []struct {
		name   string
		change func(o *mosaik.PeerOptions)
		want   network.Reason
	}{
		{"another network", func(o *mosaik.PeerOptions) { o.Network = "duo" }, network.WrongNetwork},
		{"another secret", func(o *mosaik.PeerOptions) { o.Store.Secret = identity.NewID("a guess") }, network.NoCommonGroup},
		{"no member", func(o *mosaik.PeerOptions) { o.Key = identity.KeyFromSeed([identity.Size]byte{9}) }, network.NotAllowed},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := c.options(2)
			test.change(o)
			e, err := network.Open(network.Options{Key: o.Key, Network: identity.NewID(o.Network), Addresses: o.Addresses})
			if err != nil {
				t.Fatal(err)
			}
			defer e.Close()
			stop, err := network.HandleReadmit(e, func(context.Context, network.ReadmitRequest) (*network.Readmitted, error) { return nil, nil })
			if err != nil {
				t.Fatal(err)
			}
			defer stop()
			var groups []network.Group
			for _, g := range o.Store.FoundingGroups() {
				groups = append(groups, network.Group{ID: g.ID, Key: g.Key, Members: o.Store.Members})
			}
			if err := e.SetGroups(groups); err != nil {
				t.Fatal(err)
			}
			before := c.nodes[0].Endpoint.Metrics().Refused[test.want]
			_, err = e.AskReadmit(ctx, o.Store.Members[:1], []identity.ID{groups[0].ID})
			if !errors.Is(err, test.want) || !strings.Contains(err.Error(), string(test.want)) {
				t.Errorf("%v, want %s", err, test.want)
			}
			for c.nodes[0].Endpoint.Metrics().Refused[test.want] == before {
				select {
				case <-time.After(time.Millisecond):
				case <-ctx.Done():
					t.Fatal("the other side has not counted it")
				}
			}
		})
	}
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
