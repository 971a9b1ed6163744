package engine_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/mosaik-engine/mosaik/engine"
	"github.com/mosaik-engine/mosaik/engine/cluster"
	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestAloneSmoke(t *testing.T) {
	ctx := testContext(t)
	dir := t.TempDir()
	e, err := engine.Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	key := identity.NewID("k")
	for i := range 1000 {
		p, err := e.Append(ctx, key, []byte(fmt.Sprint(i)))
		if err != nil {
			t.Fatal(err)
		}
		if p.Seq != uint64(i+1) {
			t.Fatalf("seq %d", p.Seq)
		}
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	e, err = engine.Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	n := 0
	for run, err := range e.Scan(ctx, log.Query{Key: key}) {
		if err != nil {
			t.Fatal(err)
		}
		for seq, p := range run.Records() {
			if string(p) != fmt.Sprint(seq-1) {
				t.Fatalf("seq %d is %q", seq, p)
			}
			n++
		}
	}
	if n != 1000 {
		t.Fatal(n)
	}
}

func TestClusterSmoke(t *testing.T) {
	ctx := testContext(t)
	c, err := cluster.Open(cluster.Options{Nodes: 3, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	key := identity.NewID("k")
	start := time.Now()
	for i := range 300 {
		if _, err := c.Node(i%3).Append(ctx, key, []byte(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	t.Log(time.Since(start) / 300)
	for i := range 3 {
		g := c.Node(i).Groups()[0]
		if _, err := g.Sync(ctx); err != nil {
			t.Fatal(err)
		}
		t.Log(g.Head(), g.Status())
	}
}
