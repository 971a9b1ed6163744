package engine_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/mosaik-engine/mosaik/engine"
	"github.com/mosaik-engine/mosaik/engine/cluster"
	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/replay"
	"github.com/mosaik-engine/mosaik/snapshot"
)

// segmented are options with small segments.
func segmented(o *engine.Options) *engine.Options {
	o.SegmentBytes = 64 << 10
	o.MemTableBytes = 1 << 20
	return o
}

// eventually waits until ok.
func eventually(t testing.TB, ctx context.Context, what string, ok func() bool) {
	t.Helper()
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatalf("not in time: %s", what)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// fill appends so many records, of which each has a commit of its own, and
// changes a map now and then.
func fill(t testing.TB, ctx context.Context, e *engine.Engine, seed, n int) {
	t.Helper()
	rng := rand.New(rand.NewPCG(uint64(seed), 1))
	m, err := accounts.Open(ctx, e)
	if err != nil {
		t.Fatal(err)
	}
	payload := make([]byte, 4000)
	for i := range payload {
		payload[i] = byte(rng.Uint32())
	}
	for i := range n {
		if i%5 == 0 {
			_, _, _, err = m.Insert(ctx, fmt.Sprint(rng.IntN(20)), i)
		} else {
			_, err = e.Append(ctx, identity.NewID(fmt.Sprint("stream ", i%3)), payload[:1000+rng.IntN(3000)])
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// held waits until every member of a group holds its shards of so many segments.
func held(t testing.TB, ctx context.Context, c *cluster.Cluster, segments int) {
	t.Helper()
	eventually(t, ctx, fmt.Sprint(segments, " segments are held by all"), func() bool {
		for _, n := range c.Running() {
			s := n.Groups()[0].Segments()
			if len(s.Manifests) < segments {
				return false
			}
			for _, h := range s.Held {
				if h < uint64(segments) {
					return false
				}
			}
		}
		return true
	})
}

// TestSegments: three nodes seal the same segments, archive them, and everything
// that reads commits goes on as before: with one node down, after a restart, and
// with another node's disk damaged.
func TestSegments(t *testing.T) {
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
	segments := g.Segments()
	var before *snapshot.Manifest
	captured := 0
	for _, m := range segments.Manifests {
		if err := m.Follows(g.ID(), before); err != nil {
			t.Fatal(err)
		}
		if m.State.Size > 0 {
			captured++
		}
		before = m
	}
	if captured == 0 {
		t.Fatal("no state was captured")
	}
	type reads struct {
		digest  log.Digest
		content string
	}
	look := func(g *engine.Group) (r reads) {
		t.Helper()
		report, err := replay.Audit(ctx, g, replay.AuditOptions{To: before.Last})
		if err != nil || !report.States {
			t.Fatalf("audit: %+v, %v", report, err)
		}
		r.digest = report.Digest
		var b strings.Builder
		for i := range 3 {
			for run, err := range g.Scan(ctx, log.Query{Key: identity.NewID(fmt.Sprint("stream ", i)), From: log.CommitNumber(3)}) {
				if err != nil {
					t.Fatal(err)
				}
				if run.Commit > before.Last {
					break
				}
				for seq, p := range run.Records() {
					fmt.Fprintln(&b, run.Commit, seq, len(p), log.Sum(p))
				}
			}
		}
		reader, err := accounts.Reader(g)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range []uint64{5, 50, before.Last} {
			view, err := reader.View(ctx, log.AsOf(n))
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintln(&b, list(t, view.All()))
		}
		for change, err := range reader.Watch(ctx, 0, false) {
			if err != nil {
				t.Fatal(err)
			}
			if change.Pointer.Commit > before.Last {
				break
			}
			fmt.Fprintln(&b, change)
		}
		for _, n := range []uint64{1, 2, 70, before.Last} {
			commit, err := g.Commit(n)
			if err != nil || commit.Verify() != nil {
				t.Fatal(err)
			}
			at := log.Since(time.Unix(0, commit.Header.Time))
			for run, err := range g.Scan(ctx, log.Query{Key: identity.NewID("stream 1"), From: at}) {
				if err != nil {
					t.Fatal(err)
				}
				fmt.Fprintln(&b, n, run.Commit)
				break
			}
		}
		r.content = b.String()
		return r
	}
	want := look(g)

	keep = engine.Retention{Segments: 1}
	restart := func(i int) {
		t.Helper()
		if err := errors.Join(c.Stop(i), c.Start(i), c.Node(i).Ready(ctx)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 3 {
		restart(i)
	}
	fill(t, ctx, c.Node(2), 3, 100) // what the index is behind stays in the store
	eventually(t, ctx, "the first segments are archived", func() bool {
		for _, n := range c.Running() {
			if s := n.Groups()[0].Segments(); s.Archived < before.Number {
				return false
			}
		}
		return true
	})
	same := func(when string, g *engine.Group) {
		t.Helper()
		if got := look(g); got != want {
			t.Fatalf("%s: digest %s, want %s; contents are the same: %v", when, got.digest, want.digest, got.content == want.content)
		}
	}
	for i := range 3 {
		same(fmt.Sprint("archived, node ", i), c.Node(i).Groups()[0])
		if _, err := c.Node(i).Check(ctx, nil); err != nil {
			t.Fatalf("node %d: %v", i, err)
		}
	}
	fill(t, ctx, c.Node(1), 2, 50) // goes on
	if err := c.Stop(2); err != nil {
		t.Fatal(err)
	}
	same("one node down", c.Node(0).Groups()[0])
	// Without two of three the archive cannot be read, and says so. The rest can.
	if err := c.Stop(1); err != nil {
		t.Fatal(err)
	}
	alone := c.Node(0).Groups()[0]
	if _, err := alone.Commit(2); !errors.Is(err, snapshot.ErrShards) || !strings.Contains(err.Error(), "segment 1 ") {
		t.Fatalf("two nodes down: %v", err)
	}
	if _, err := alone.Commit(alone.Head().Number); err != nil {
		t.Fatalf("two nodes down, the newest commit: %v", err)
	}
	if err := errors.Join(c.Start(1), c.Start(2), c.Ready(ctx)); err != nil {
		t.Fatal(err)
	}
	// A damaged shard is made good by the others, and the damage is told.
	if err := c.Stop(0); err != nil {
		t.Fatal(err)
	}
	damage(t, disks[0], "cluster/node1/archive")
	if err := errors.Join(c.Start(0), c.Ready(ctx)); err != nil {
		t.Fatal(err)
	}
	same("damaged shards", c.Node(0).Groups()[0])
	same("beside damaged shards", c.Node(1).Groups()[0])
}

// damage flips a bit in every file below a directory.
func damage(t testing.TB, fs vfs.FS, dir string) {
	t.Helper()
	names, err := fs.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, ".new") || strings.HasSuffix(name, ".mend") {
			continue // it is being written
		}
		path := fs.PathJoin(dir, name)
		if info, err := fs.Stat(path); errors.Is(err, os.ErrNotExist) {
			continue // it has been given its name meanwhile
		} else if err != nil {
			t.Fatal(err)
		} else if info.IsDir() {
			damage(t, fs, path)
			continue
		}
		f, err := fs.Open(path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		} else if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if _, err := b.ReadFrom(f); err != nil {
			t.Fatal(err)
		}
		content := b.Bytes()
		content[len(content)/2] ^= 4
		out, err := fs.Create(path, vfs.WriteCategoryUnspecified)
		if err == nil {
			_, err = out.Write(content)
		}
		if err := errors.Join(err, f.Close(), out.Sync(), out.Close()); err != nil {
			t.Fatal(err)
		}
	}
}
