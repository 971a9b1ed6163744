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

// testContext ends what hangs.
func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// TestDefaults opens nodes on the disk without an option: one alone, and three.
// What is written on any of them is in the order of the writes, is there when
// the pointer says so on every other, and after they were opened again.
func TestDefaults(t *testing.T) {
	for _, nodes := range []int{1, 3} {
		t.Run(fmt.Sprint("nodes=", nodes), func(t *testing.T) {
			ctx := testContext(t)
			dir := t.TempDir()
			key := identity.NewID("k")
			const each = 50
			lives := map[int]uint64{1: 2, 3: 1}[nodes] // to open three again takes an election's time
			for life := range lives {
				c := openDefaults(t, nodes, dir)
				if err := c.Ready(ctx); err != nil {
					t.Fatal(err)
				}
				var last log.Pointer
				for i := range each {
					var err error
					last, err = c.Node(i%nodes).Append(ctx, key, fmt.Append(nil, life*each+uint64(i)))
					if err != nil {
						t.Fatal(err)
					}
					if want := life*each + uint64(i) + 1; last.Seq != want {
						t.Fatalf("append %d of life %d has seq %d, want %d", i, life, last.Seq, want)
					}
				}
				for i := range nodes {
					g := c.Node(i).Groups()[0]
					if err := g.WaitFor(ctx, last); err != nil {
						t.Fatal(err)
					}
					n := uint64(0)
					for run, err := range c.Node(i).Scan(ctx, log.Query{Key: key}) {
						if err != nil {
							t.Fatal(err)
						}
						for seq, p := range run.Records() {
							if n++; seq != n || string(p) != fmt.Sprint(n-1) {
								t.Fatalf("node %d: seq %d is %q, want record %d", i+1, seq, p, n)
							}
						}
					}
					if n != last.Seq {
						t.Fatalf("node %d has %d records of %d", i+1, n, last.Seq)
					}
					s := g.Status()
					if s.Head.Number < last.Commit || s.Records != last.Seq || s.Keys != 1 || s.ID != last.Group || len(s.Members) != nodes || s.Leader.IsZero() || s.Self != c.Node(i).Peer() {
						t.Errorf("node %d: status %+v", i+1, s)
					}
				}
				if err := c.Close(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// openDefaults opens nodes whose options say nothing but who they are.
func openDefaults(t *testing.T, nodes int, dir string) *cluster.Cluster {
	t.Helper()
	c, err := cluster.Open(cluster.Options{Nodes: nodes, Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// TestNilOptions: no option at all is a node alone with a name of its own, which
// it keeps.
func TestNilOptions(t *testing.T) {
	dir := t.TempDir()
	e, err := engine.Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	peer := e.Peer()
	if g := e.Groups(); peer.IsZero() || len(g) != 1 || g[0].Name() != "g0" || e.Dir() != dir {
		t.Errorf("peer %v, groups %v, dir %s", peer, g, e.Dir())
	}
	mustClose(t, e)
	e = mustOpen(t, dir, nil)
	defer mustClose(t, e)
	if e.Peer() != peer {
		t.Errorf("the node was %v and is %v", peer, e.Peer())
	}
}
