package mosaik_test

import (
	"context"
	"errors"
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
	"github.com/mosaik-engine/mosaik/network"
	"github.com/mosaik-engine/mosaik/replay"
)

// trio is three nodes of one network, each with a port of its own.
type trio struct {
	t         *testing.T
	dir       string
	keys      []identity.Key
	mu        sync.Mutex
	addresses map[identity.PeerID][]string
	nodes     [3]*mosaik.Peer
}

func newTrio(t *testing.T) *trio {
	c := &trio{t: t, dir: t.TempDir(), addresses: make(map[identity.PeerID][]string)}
	for i := range 3 {
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
	for _, k := range c.keys {
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
			stop, err := network.HandleReadmit(e, func(context.Context, identity.PeerID, []identity.ID) (uint64, error) { return 0, nil })
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
