package engine_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/mosaik-engine/mosaik/engine"
	"github.com/mosaik-engine/mosaik/engine/cluster"
	"github.com/mosaik-engine/mosaik/engine/inproc"
	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

// lose stops a node and takes its disk away.
func (s *synced) lose(t *testing.T, i int) {
	t.Helper()
	if err := s.Stop(i); err != nil {
		t.Fatal(err)
	}
	s.disks[i] = vfs.NewCrashableMem()
}

// TestRejoin: a member whose disk is gone comes back with everything, archived
// segments and its shards of them too, gets its vote, and keeps it over a restart. So it
// does when it happens again.
func TestRejoin(t *testing.T) {
	ctx := testContext(t)
	s := openSynced(t, ctx, engine.Retention{Segments: 1}, nil)
	fill(t, ctx, s.Node(0), 1, 60)
	s.leave(t, ctx)
	for _, n := range s.Running() {
		eventually(t, ctx, "segments are archived", func() bool { return n.Groups()[0].Segments().Archived > 0 })
	}
	for range rounds(2) {
		s.lose(t, 2)
		fill(t, ctx, s.Node(0), 2, 30)
		if err := errors.Join(s.Rejoin(2), s.Ready(ctx)); err != nil {
			t.Fatal(err)
		}
		if r := <-s.reports; !r.Anew || r.Fetched == 0 || len(r.Sent) != 2 {
			t.Fatalf("%+v", r)
		}
		eventually(t, ctx, "it has a vote", func() bool { return !s.Node(2).Groups()[0].Status().Reader })
		settled(t, ctx, s.Cluster)
		head := s.Node(0).Groups()[0].Head().Number
		sameContents(t, ctx, s.Cluster, head)
		eventually(t, ctx, "its shards are there again", func() bool {
			r, err := s.Node(2).Check(ctx, nil)
			return err == nil && r.Missing == 0
		})
		// Its vote is needed, before a restart and after one.
		for range 2 {
			if err := s.Stop(0); err != nil {
				t.Fatal(err)
			}
			fill(t, ctx, s.Node(2), 3, 30)
			if err := errors.Join(s.Stop(2), s.Start(0), s.Ready(ctx)); err != nil {
				t.Fatal(err)
			}
			fill(t, ctx, s.Node(1), 4, 30)
			if err := errors.Join(s.Start(2), s.Ready(ctx)); err != nil {
				t.Fatal(err)
			}
		}
		settled(t, ctx, s.Cluster)
		sameContents(t, ctx, s.Cluster, head)
	}
	n := len(s.Node(0).Groups()[0].Segments().Manifests)
	held(t, ctx, s.Cluster, n)
}

// TestRejoinAtOnce: one that rejoins before anything was trimmed gets the entries
// themselves.
func TestRejoinAtOnce(t *testing.T) {
	ctx := testContext(t)
	disks := []*vfs.MemFS{vfs.NewCrashableMem(), vfs.NewCrashableMem(), vfs.NewCrashableMem()}
	c, err := cluster.Open(cluster.Options{Nodes: 3, Dir: "cluster", Network: inproc.New(inproc.Options{}), Configure: func(i int, o *engine.Options) {
		o.FS, o.Spread, o.Named = disks[i], 2, []string{"orders"}
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	for _, g := range c.Node(0).Groups() {
		if _, err := g.Append(ctx, identity.NewID("k"), []byte("v")); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Stop(1); err != nil {
		t.Fatal(err)
	}
	disks[1] = vfs.NewCrashableMem()
	if err := errors.Join(c.Rejoin(1), c.Ready(ctx)); err != nil {
		t.Fatal(err)
	}
	for i, g := range c.Node(1).Groups() {
		eventually(t, ctx, "it has a vote", func() bool { return !g.Status().Reader })
		if _, err := g.Append(ctx, identity.NewID("k"), []byte("w")); err != nil {
			t.Fatal(err)
		}
		if have, want := g.Status().Records, uint64(2); have < want {
			t.Errorf("group %d: %d records", i, have)
		}
		// The lead finds its way to the new replica.
		if err := g.TransferLeadership(ctx, c.Node(1).Peer()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRejoinRefused: what Readmit does not do, and what it says.
func TestRejoinRefused(t *testing.T) {
	ctx := testContext(t)
	disks := []*vfs.MemFS{vfs.NewCrashableMem(), vfs.NewCrashableMem(), vfs.NewCrashableMem()}
	open := func(nodes int) *cluster.Cluster {
		c, err := cluster.Open(cluster.Options{Nodes: nodes, Dir: identity.NewID(t.Name()).Short() + string(rune('0'+nodes)), Network: inproc.New(inproc.Options{}), Configure: func(i int, o *engine.Options) {
			o.FS = disks[i]
		}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if err := c.Ready(ctx); err != nil {
			t.Fatal(err)
		}
		return c
	}
	c := open(3)
	n := c.Node(0)
	groups := []identity.ID{n.Groups()[0].ID()}
	other := c.Node(1).Peer()
	if _, err := n.Readmit(ctx, n.Peer(), groups); !errors.Is(err, engine.ErrMismatch) {
		t.Errorf("itself: %v", err)
	}
	if _, err := n.Readmit(ctx, identity.PeerID{1}, groups); !errors.Is(err, engine.ErrMismatch) {
		t.Errorf("a stranger: %v", err)
	}
	if _, err := n.Readmit(ctx, other, []identity.ID{identity.NewID("no group")}); !errors.Is(err, log.ErrNotFound) {
		t.Errorf("no group: %v", err)
	}
	if err := errors.Join(c.Stop(1), c.Stop(2)); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	if _, err := n.Readmit(short, other, groups); !errors.Is(err, engine.ErrNoQuorum) {
		t.Errorf("no quorum: %v", err)
	}
	two := open(2)
	if _, err := two.Node(0).Readmit(ctx, two.Node(1).Peer(), []identity.ID{two.Node(0).Groups()[0].ID()}); !errors.Is(err, engine.ErrNoQuorum) {
		t.Errorf("of two: %v", err)
	}
}
