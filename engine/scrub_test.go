package engine_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/mosaik-engine/mosaik/engine"
	"github.com/mosaik-engine/mosaik/engine/cluster"
	"github.com/mosaik-engine/mosaik/engine/inproc"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/replay"
	"github.com/mosaik-engine/mosaik/snapshot"
)

// TestScrub: rotten and missing shards are found by Check, and a scrub makes them
// anew: while the commits are in the store from those, else from the others'
// shards, if there are enough.
func TestScrub(t *testing.T) {
	ctx := testContext(t)
	disks := []vfs.FS{vfs.NewMem(), vfs.NewMem(), vfs.NewMem()}
	keep := engine.Retention{}
	c, err := cluster.Open(cluster.Options{Nodes: 3, Dir: "cluster", Configure: func(i int, o *engine.Options) {
		segmented(o).FS = disks[i]
		o.Retention = keep
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	fill(t, ctx, c.Node(0), 1, 300)
	held(t, ctx, c, 8)
	settled(t, ctx, c)
	g := c.Node(0).Groups()[0]
	scrub := func(want uint64) {
		t.Helper()
		r, err := c.Node(0).Groups()[0].Scrub(ctx)
		if err != nil || r.Mended != want || r.Shards < 8 {
			t.Fatalf("%+v, %v", r, err)
		}
		if _, err := c.Node(0).Check(ctx, nil); err != nil {
			t.Fatal(err)
		}
	}
	scrub(0)
	shards, err := g.Scrub(ctx)
	if err != nil || shards.Bytes == 0 {
		t.Fatalf("%+v, %v", shards, err)
	}
	rot := func() {
		t.Helper()
		damage(t, disks[0], "cluster/node1/archive")
		var corrupt *log.CorruptionError
		if _, err := c.Node(0).Check(ctx, nil); !errors.As(err, &corrupt) || !strings.Contains(corrupt.File, "archive") {
			t.Fatalf("check: %v", err)
		}
	}
	rot()
	if r, err := g.Scrub(ctx); err != nil || r.Mended < 8 { // from the store
		t.Fatalf("%+v, %v", r, err)
	}
	scrub(0)
	for _, name := range []string{"1.commits", "2.commits"} {
		dir := "cluster/node1/archive/"
		names, err := disks[0].List(dir)
		if err != nil || len(names) != 1 {
			t.Fatal(names, err)
		}
		if err := disks[0].Remove(dir + names[0] + "/" + name); err != nil {
			t.Fatal(err)
		}
	}
	if r, err := c.Node(0).Check(ctx, nil); err != nil || r.Missing != 2 {
		t.Fatalf("%+v, %v", r, err)
	}
	scrub(2)

	keep = engine.Retention{Segments: 1}
	for i := range 3 {
		if err := errors.Join(c.Stop(i), c.Start(i), c.Node(i).Ready(ctx)); err != nil {
			t.Fatal(err)
		}
	}
	fill(t, ctx, c.Node(2), 3, 100)
	var archived uint64
	eventually(t, ctx, "the first segments are archived", func() bool {
		archived = c.Node(0).Groups()[0].Segments().Archived
		return archived >= 8
	})
	g = c.Node(0).Groups()[0]
	rot()
	// With one other there are not enough: what is archived stays as it is, and is told.
	if err := c.Stop(2); err != nil {
		t.Fatal(err)
	}
	if r, err := g.Scrub(ctx); !errors.Is(err, snapshot.ErrShards) || !strings.Contains(err.Error(), "segment 1:") || r.Mended == r.Shards {
		t.Fatalf("%+v, %v", r, err)
	}
	if err := errors.Join(c.Start(2), c.Ready(ctx)); err != nil {
		t.Fatal(err)
	}
	r, err := g.Scrub(ctx)
	if err != nil || r.Mended < archived {
		t.Fatalf("%+v, %v", r, err)
	}
	scrub(0)
	// They are the shards they were: without node 2 the archive is read with them.
	if err := c.Stop(2); err != nil {
		t.Fatal(err)
	}
	if _, err := replay.Audit(ctx, c.Node(1).Groups()[0], replay.AuditOptions{}); err != nil {
		t.Fatal(err)
	}
}

// TestScrubByItself: nobody has to ask.
func TestScrubByItself(t *testing.T) {
	ctx := testContext(t)
	disk := vfs.NewMem()
	var mended atomic.Int32
	c, err := cluster.Open(cluster.Options{Nodes: 1, Dir: "cluster", Network: inproc.New(inproc.Options{}), Configure: func(i int, o *engine.Options) {
		segmented(o).FS = disk
		o.ScrubInterval = 200 * time.Millisecond
		o.Events.ShardMended = func(string, uint64, error) { mended.Add(1) }
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	fill(t, ctx, c.Node(0), 1, 300)
	held(t, ctx, c, 8)
	damage(t, disk, "cluster/node1/archive")
	eventually(t, ctx, "the shards are mended", func() bool { return mended.Load() >= 8 })
	eventually(t, ctx, "all are good", func() bool { _, err := c.Node(0).Check(ctx, nil); return err == nil })
}

// TestCheckWithoutPeers: a member of several whose node is opened alone, as the
// command line does to check it, reads what can be read there, and says what it
// has not.
func TestCheckWithoutPeers(t *testing.T) {
	ctx := testContext(t)
	disks := []vfs.FS{vfs.NewMem(), vfs.NewMem(), vfs.NewMem()}
	var options engine.Options
	c, err := cluster.Open(cluster.Options{Nodes: 3, Dir: "cluster", Configure: func(i int, o *engine.Options) {
		segmented(o).FS = disks[i]
		o.Retention = engine.Retention{Segments: 1}
		if i == 0 {
			options = *o
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	fill(t, ctx, c.Node(0), 1, 400)
	eventually(t, ctx, "the first segments are archived", func() bool { return c.Node(0).Groups()[0].Segments().Archived >= 4 })
	dir := c.Dir(0)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	options.Peers, options.Transport = nil, inproc.New(inproc.Options{}).Transport(options.Peer.String())
	e, err := engine.Open(dir, &options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	report, err := e.Check(ctx, nil)
	g := e.Groups()[0]
	if err != nil || report.Archived == 0 || report.Shards < 4 || g.ReadableFrom() != report.Archived+1 || report.Commits != g.Head().Number-report.Archived {
		t.Fatalf("%+v, %v; readable from %d of %d", report, err, g.ReadableFrom(), g.Head().Number)
	}
	damage(t, disks[0], "cluster/node1/archive")
	if _, err := e.Check(context.Background(), nil); err == nil {
		t.Fatal("rotten shards are not found")
	}
}
