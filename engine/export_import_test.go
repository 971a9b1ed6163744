package engine_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/mosaik-engine/mosaik/engine"
	"github.com/mosaik-engine/mosaik/engine/cluster"
	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/replay"
	"github.com/mosaik-engine/mosaik/snapshot"
)

// TestExportImport: three nodes, of which one's history is exported after the first
// segments were archived; new nodes are restored from it, agree with it and go on.
func TestExportImport(t *testing.T) {
	ctx := testContext(t)
	s := openSynced(t, ctx, engine.Retention{Segments: 1}, nil)
	fill(t, ctx, s.Node(0), 1, 200)
	eventually(t, ctx, "segments are archived", func() bool {
		fill(t, ctx, s.Node(0), 2, 10)
		return s.Node(0).Groups()[0].Segments().Archived >= 3
	})
	g := s.Node(0).Groups()[0]
	var b bytes.Buffer
	head, err := g.Export(ctx, &b, nil)
	if err != nil {
		t.Fatal(err)
	}
	want, err := replay.Audit(ctx, g, replay.AuditOptions{To: head.Number})
	if err != nil {
		t.Fatal(err)
	}
	found, err := snapshot.ReadExport(bytes.NewReader(b.Bytes()), nil, nil, nil)
	if err != nil || found.Head != head || found.Segments < 3 || found.Records != want.Records {
		t.Fatalf("%+v, %v", found, err)
	}

	disks := []vfs.FS{vfs.NewMem(), vfs.NewMem(), vfs.NewMem()}
	members := g.Status().Members
	options := func(i int) *engine.Options {
		return segmented(&engine.Options{FS: disks[i], Peer: members[i], Members: members})
	}
	for i := range disks {
		dir := []string{"cluster/node1", "cluster/node2", "cluster/node3"}[i]
		if _, err := engine.Import(ctx, dir, options(i), "g0", bytes.NewReader(b.Bytes()[:b.Len()-1])); !errors.Is(err, snapshot.ErrExport) {
			t.Fatalf("cut short: %v", err)
		}
		if got, err := engine.Import(ctx, dir, options(i), "g0", bytes.NewReader(b.Bytes())); err != nil || got != head {
			t.Fatalf("%+v, %v", got, err)
		}
		if _, err := engine.Import(ctx, dir, options(i), "g0", bytes.NewReader(b.Bytes())); !errors.Is(err, engine.ErrMismatch) {
			t.Fatalf("a second time: %v", err)
		}
	}
	if _, err := engine.Import(ctx, "foreign", &engine.Options{FS: vfs.NewMem()}, "g0", bytes.NewReader(b.Bytes())); !errors.Is(err, engine.ErrForeign) {
		t.Fatalf("a foreign group: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	c, err := cluster.Open(cluster.Options{Nodes: 3, Dir: "cluster", Configure: func(i int, o *engine.Options) {
		segmented(o).FS = disks[i]
		o.Retention = engine.Retention{Segments: 1}
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		g := c.Node(i).Groups()[0]
		got, err := replay.Audit(ctx, g, replay.AuditOptions{To: head.Number})
		if err != nil || !got.States || got.Digest != want.Digest {
			t.Fatalf("node %d: %+v, %v, want %+v", i, got, err, want)
		}
		if _, err := c.Node(i).Check(ctx, nil); err != nil {
			t.Fatalf("node %d: %v", i, err)
		}
	}
	if _, err := c.Node(1).Append(ctx, identity.NewID("stream 1"), []byte("after")); err != nil {
		t.Fatal(err)
	}
	fill(t, ctx, c.Node(2), 3, 60)
	sameContents(t, ctx, c, head.Number)
	for run, err := range c.Node(0).Groups()[0].Scan(ctx, log.Query{Key: identity.NewID("stream 2")}) {
		if err != nil {
			t.Fatal(err)
		}
		_ = run
	}
}
