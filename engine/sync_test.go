package engine_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/mosaik-engine/mosaik/engine"
	"github.com/mosaik-engine/mosaik/engine/cluster"
	"github.com/mosaik-engine/mosaik/engine/inproc"
	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/replay"
	"github.com/mosaik-engine/mosaik/snapshot"
)

// synced is a cluster of three with small segments and short Raft logs, whose third
// node has to sync.
type synced struct {
	*cluster.Cluster
	disks   []*vfs.MemFS
	reports chan engine.SyncReport // of node 2
	bad     atomic.Int32           // members blamed by node 2
	trimmed atomic.Int32
}

// peersFunc is snapshot.Peers.
type peersFunc func(ctx context.Context, peer identity.PeerID, r snapshot.Request) ([]byte, error)

func (f peersFunc) Fetch(ctx context.Context, peer identity.PeerID, r snapshot.Request) ([]byte, error) {
	return f(ctx, peer, r)
}

// openSynced starts the cluster. wrap, if not nil, stands between node 2 and the
// members it asks.
func openSynced(t *testing.T, ctx context.Context, keep engine.Retention, wrap func(snapshot.Peers) snapshot.Peers) *synced {
	t.Helper()
	s := &synced{reports: make(chan engine.SyncReport, 16)}
	for range 3 {
		s.disks = append(s.disks, vfs.NewCrashableMem())
	}
	var err error
	s.Cluster, err = cluster.Open(cluster.Options{Nodes: 3, Dir: "cluster", Network: inproc.New(inproc.Options{}), Configure: func(i int, o *engine.Options) {
		segmented(o).FS = s.disks[i]
		o.RaftLogBytes = 256 << 10
		o.Retention = keep
		o.Events.Trimmed = func(string, uint64) { s.trimmed.Add(1) }
		if i == 2 {
			o.Events.StateFetched = func(_ string, r engine.SyncReport) { s.reports <- r }
			o.Events.BadShard = func(string, uint64, identity.PeerID, error) { s.bad.Add(1) }
			if wrap != nil {
				o.Peers = wrap(o.Peers)
			}
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if err := s.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	return s
}

// leave writes until the Raft logs of the two nodes that run do not reach back to
// where node 2 was stopped.
func (s *synced) leave(t *testing.T, ctx context.Context) {
	t.Helper()
	before := s.trimmed.Load()
	for i := 0; s.trimmed.Load() < before+8; i++ {
		fill(t, ctx, s.Node(0), 100+i, 60)
	}
	for _, n := range s.Running() {
		eventually(t, ctx, "segments are sealed", func() bool {
			g := n.Groups()[0]
			m := g.Segments().Manifests
			return len(m) > 0 && g.Head().Number-m[len(m)-1].Last < 200
		})
	}
}

// TestSync: a node that was away for long takes over sealed segments from both
// others, and agrees with them in everything; views as of commits of before are
// still there.
func TestSync(t *testing.T) {
	ctx := testContext(t)
	s := openSynced(t, ctx, engine.Retention{}, nil)
	fill(t, ctx, s.Node(0), 1, 60)
	settled(t, ctx, s.Cluster)
	early := s.Node(2).Groups()[0].Head().Number
	if err := s.Stop(2); err != nil {
		t.Fatal(err)
	}
	s.leave(t, ctx)
	if err := errors.Join(s.Start(2), s.Ready(ctx)); err != nil {
		t.Fatal(err)
	}
	r := <-s.reports
	if r.Anew || r.Fetched == 0 || len(r.Sent) != 2 {
		t.Fatalf("%+v", r)
	}
	settled(t, ctx, s.Cluster)
	if _, err := s.Node(2).Check(ctx, nil); err != nil {
		t.Fatal(err)
	}
	sameContents(t, ctx, s.Cluster, early)
	fill(t, ctx, s.Node(2), 9, 30) // goes on
	segments := s.Node(0).Groups()[0].Segments()
	held(t, ctx, s.Cluster, len(segments.Manifests))
	if err := errors.Join(s.Stop(2), s.Start(2), s.Ready(ctx)); err != nil {
		t.Fatal(err)
	}
	sameContents(t, ctx, s.Cluster, early)
}

// settled waits until all nodes stand at the same commit: they may be telling each
// other what they hold.
func settled(t *testing.T, ctx context.Context, c *cluster.Cluster) (head log.Head) {
	t.Helper()
	eventually(t, ctx, "all nodes stand at the same commit", func() bool {
		heads := make(map[log.Head]bool)
		for _, n := range c.Running() {
			var err error
			if head, err = n.Groups()[0].Sync(ctx); err != nil {
				t.Fatal(err)
			}
			heads[head] = true
		}
		return len(heads) == 1
	})
	return head
}

// sameContents compares what all nodes have: audits, and the map as of some
// commits.
func sameContents(t *testing.T, ctx context.Context, c *cluster.Cluster, commits ...uint64) {
	t.Helper()
	head := settled(t, ctx, c)
	var first string
	for i, n := range c.Running() {
		g := n.Groups()[0]
		report, err := replay.Audit(ctx, g, replay.AuditOptions{To: head.Number})
		if err != nil || report.States != (g.Status().ViewsFrom == 0) {
			t.Fatalf("node %d: %+v, %v", i, report, err)
		}
		content := report.Digest.String()
		reader, err := accounts.Reader(g)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range append(commits, head.Number) {
			view, err := reader.View(ctx, log.AsOf(n))
			if err != nil {
				t.Fatal(err)
			}
			content += fmt.Sprintln(list(t, view.All()))
		}
		if i == 0 {
			first = content
		} else if content != first {
			t.Fatalf("node %d has\n%s\nnode 0\n%s", i, content, first)
		}
	}
}

// TestSyncAnew: a node whose replica has diverged takes over everything, also
// what the others have archived and hold a shard each of. Its views are known from
// the captured state on, and as of every commit after a refold.
func TestSyncAnew(t *testing.T) {
	ctx := testContext(t)
	s := openSynced(t, ctx, engine.Retention{Segments: 1}, nil)
	fill(t, ctx, s.Node(0), 1, 400)
	early := s.Node(0).Groups()[0].Head().Number
	eventually(t, ctx, "the first segments are archived", func() bool {
		fill(t, ctx, s.Node(0), 2, 10)
		for _, n := range s.Running() {
			if n.Groups()[0].Segments().Archived < 5 {
				return false
			}
		}
		return true
	})
	if err := s.Node(2).Groups()[0].MarkDiverged(); err != nil {
		t.Fatal(err)
	}
	if err := s.Stop(2); err != nil {
		t.Fatal(err)
	}
	s.leave(t, ctx)
	if err := errors.Join(s.Start(2), s.Ready(ctx)); err != nil {
		t.Fatal(err)
	}
	r := <-s.reports
	if !r.Anew || r.Fetched < 5 {
		t.Fatalf("%+v", r)
	}
	g := s.Node(2).Groups()[0]
	reader, err := accounts.Reader(g)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := reader.View(ctx, log.AsOf(early)); !errors.Is(err, log.ErrNotFound) {
		t.Fatalf("the views as of commit %d: %v", early, err)
	}
	if report, err := replay.Audit(ctx, g, replay.AuditOptions{}); err != nil || report.States {
		t.Fatalf("%+v, %v", report, err)
	}
	if _, err := s.Node(2).Check(ctx, nil); err != nil {
		t.Fatal(err)
	}
	if report, err := g.Refold(ctx, nil); err != nil || report.Differs != 0 {
		t.Fatalf("%+v, %v", report, err)
	}
	sameContents(t, ctx, s.Cluster, early)
}

// TestSyncWithLiar: of two members one sends wrong cells. It is blamed, and with
// the other one alone, which makes every shard, the sync ends in the right state.
func TestSyncWithLiar(t *testing.T) {
	ctx := testContext(t)
	var liar atomic.Pointer[identity.PeerID]
	s := openSynced(t, ctx, engine.Retention{}, func(honest snapshot.Peers) snapshot.Peers {
		return peersFunc(func(ctx context.Context, peer identity.PeerID, r snapshot.Request) ([]byte, error) {
			b, err := honest.Fetch(ctx, peer, r)
			if l := liar.Load(); err == nil && l != nil && peer == *l {
				b[len(b)/3] ^= 1
			}
			return b, err
		})
	})
	fill(t, ctx, s.Node(0), 1, 60)
	if err := s.Stop(2); err != nil {
		t.Fatal(err)
	}
	s.leave(t, ctx)
	peer := s.Node(0).Peer()
	liar.Store(&peer)
	if err := errors.Join(s.Start(2), s.Ready(ctx)); err != nil {
		t.Fatal(err)
	}
	r := <-s.reports
	if s.bad.Load() == 0 || r.Sent[s.Node(1).Peer()] == 0 {
		t.Fatalf("%d are blamed, %+v", s.bad.Load(), r)
	}
	sameContents(t, ctx, s.Cluster)
}

// TestSyncKilled kills the syncing node again and again, at every request it makes;
// each time it goes on, and in the end it agrees.
func TestSyncKilled(t *testing.T) {
	ctx := testContext(t)
	var requests, limit atomic.Int64
	limit.Store(1 << 40)
	held := make(chan struct{}, 1024)
	s := openSynced(t, ctx, engine.Retention{}, func(honest snapshot.Peers) snapshot.Peers {
		return peersFunc(func(ctx context.Context, peer identity.PeerID, r snapshot.Request) ([]byte, error) {
			if requests.Add(1) > limit.Load() {
				held <- struct{}{}
				<-ctx.Done() // the node is killed here
				return nil, ctx.Err()
			}
			return honest.Fetch(ctx, peer, r)
		})
	})
	fill(t, ctx, s.Node(0), 1, 60)
	if err := s.Stop(2); err != nil {
		t.Fatal(err)
	}
	s.leave(t, ctx)
	for kills := range int64(6) {
		requests.Store(0)
		limit.Store(3 * kills)
		if err := s.Start(2); err != nil {
			t.Fatal(err)
		}
		select {
		case <-held:
		case <-s.reports:
			t.Fatalf("done before kill %d", kills)
		case <-ctx.Done():
			t.Fatal("no sync")
		}
		s.Network().Isolate(s.Address(2)) // what it says after the clone was made, it has not said
		clone := s.disks[2].CrashClone(vfs.CrashCloneCfg{})
		if err := s.Stop(2); err != nil {
			t.Fatal(err)
		}
		s.Network().Heal()
		s.disks[2] = clone
		for len(held) > 0 {
			<-held
		}
	}
	limit.Store(1 << 40)
	if err := errors.Join(s.Start(2), s.Ready(ctx)); err != nil {
		t.Fatal(err)
	}
	<-s.reports
	sameContents(t, ctx, s.Cluster)
	if _, err := s.Node(2).Check(ctx, nil); err != nil {
		t.Fatal(err)
	}
}
