package engine_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/mosaik-engine/mosaik/engine"
	"github.com/mosaik-engine/mosaik/engine/cluster"
	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

// openCluster opens three nodes in memory.
func openCluster(t testing.TB, o *engine.Options) *cluster.Cluster {
	t.Helper()
	o.FS = vfs.NewMem()
	c, err := cluster.Open(cluster.Options{Nodes: 3, Dir: "cluster", Engine: o})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.Ready(testContext(t)); err != nil {
		t.Fatal(err)
	}
	return c
}

// sameHeads waits until all running nodes reflect everything committed and
// checks that their chains end alike.
func sameHeads(t testing.TB, ctx context.Context, c *cluster.Cluster) log.Head {
	t.Helper()
	var first log.Head
	for i, n := range c.Running() {
		head, err := n.Groups()[0].Sync(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = head
		} else if head != first {
			t.Fatalf("heads differ: %v and %v", first, head)
		}
	}
	return first
}

func TestNoQuorum(t *testing.T) { synctest.Test(t, noQuorum) }

func noQuorum(t *testing.T) {
	ctx := testContext(t)
	c := openCluster(t, &engine.Options{ProposeTimeout: 2 * time.Second})
	key := identity.NewID("k")
	if _, err := c.Node(0).Append(ctx, key, []byte("a")); err != nil {
		t.Fatal(err)
	}
	for _, i := range []int{1, 2} {
		if err := c.Stop(i); err != nil {
			t.Fatal(err)
		}
	}
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	_, err := c.Node(0).Append(short, key, []byte("b"))
	if !errors.Is(err, engine.ErrNoQuorum) || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("within a deadline: %v", err)
	}
	if _, err := c.Node(0).Append(ctx, key, []byte("c")); !errors.Is(err, engine.ErrNoQuorum) {
		t.Fatalf("without a deadline: %v", err)
	}
	if _, err := c.Node(0).Groups()[0].Sync(short); !errors.Is(err, engine.ErrNoQuorum) {
		t.Fatalf("sync: %v", err)
	}
	// Stale reads go on.
	n := 0
	for run, err := range c.Node(0).Scan(ctx, log.Query{Key: key}) {
		if err != nil {
			t.Fatal(err)
		}
		n += run.Count
	}
	if n != 1 {
		t.Fatalf("%d records", n)
	}
	if err := c.Start(1); err != nil {
		t.Fatal(err)
	}
	if err := c.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Node(0).Append(ctx, key, []byte("d")); err != nil {
		t.Fatalf("with a quorum again: %v", err)
	}
	if err := c.Start(2); err != nil {
		t.Fatal(err)
	}
	if err := c.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	sameHeads(t, ctx, c)
}

// TestLag stops a node for longer than the Raft log reaches back: it must take
// over the state of another one, and agree.
func TestLag(t *testing.T) { synctest.Test(t, lag) }

func lag(t *testing.T) {
	ctx := testContext(t)
	fetched := make(chan uint64, 16)
	o := &engine.Options{RaftLogBytes: 1 << 20, MemTableBytes: 1 << 20}
	o.Events.StateFetched = func(_ string, r engine.SyncReport) { fetched <- r.Commit }
	trimmed := make(chan struct{}, 1024)
	o.Events.BackgroundError = func(err error) { t.Error(err) }
	o.Events.Trimmed = func(string, uint64) { trimmed <- struct{}{} }
	c := openCluster(t, o)
	payload := make([]byte, 64<<10)
	write := func(n int) {
		t.Helper()
		for i := range n {
			if _, err := c.Node(0).Append(ctx, identity.NewID(fmt.Sprint(i%5)), payload); err != nil {
				t.Fatal(err)
			}
		}
	}
	write(5)
	if err := c.Stop(2); err != nil {
		t.Fatal(err)
	}
	for len(trimmed) < 8 { // until both nodes have trimmed well past where node 3 stopped
		write(5)
		time.Sleep(100 * time.Millisecond)
	}
	if err := c.Start(2); err != nil {
		t.Fatal(err)
	}
	if err := c.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	head := sameHeads(t, ctx, c)
	if _, err := c.Node(2).Check(ctx, nil); err != nil {
		t.Fatal(err)
	}
	if commit := <-fetched; commit == 0 || commit > head.Number {
		t.Fatalf("fetched up to %d", commit)
	}
	write(5)
	if err := c.Stop(2); err != nil {
		t.Fatal(err)
	}
	if err := c.Start(2); err != nil {
		t.Fatal(err)
	}
	if err := c.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	sameHeads(t, ctx, c)
}
