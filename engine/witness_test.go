package engine_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mosaik-engine/mosaik/engine"
	"github.com/mosaik-engine/mosaik/engine/cluster"
	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

var balances = log.MapDef[string, int]{Name: "balances"}

// mapRow is the row of a key in the view of a map (docs/format/views.md).
func mapRow(key string) []byte { return append([]byte{1}, key...) }

// TestDivergence changes a row of one replica's view behind its back. The commit
// after the next one that touches the row has to expose it, on whichever node it
// was, whoever proposes; the others go on, and refolding mends it.
func TestDivergence(t *testing.T) {
	for _, victim := range []string{"leader", "follower"} {
		t.Run(victim, func(t *testing.T) { synctest.Test(t, func(t *testing.T) { divergence(t, victim == "leader") }) })
	}
}

func divergence(t *testing.T, leader bool) {
	ctx := testContext(t)
	diverged := make(chan string, 3)
	o := &engine.Options{}
	o.Events.Diverged = func(_ string, err error) { diverged <- err.Error() }
	c := openCluster(t, o)
	maps := make([]*log.Map[string, int], c.Nodes())
	for i := range maps {
		m, err := balances.Open(ctx, c.Node(i))
		if err != nil {
			t.Fatal(err)
		}
		maps[i] = m
	}
	if _, _, _, err := maps[0].Insert(ctx, "alice", 5); err != nil {
		t.Fatal(err)
	}
	sameHeads(t, ctx, c)
	victim := leaderOf(t, c)
	if !leader {
		victim = (victim + 1) % c.Nodes()
	}
	bad := c.Node(victim).Groups()[0]
	if err := bad.PlantRow(balances.Key(), mapRow("alice"), []byte{0x18, 99}); err != nil {
		t.Fatal(err)
	}
	healthy := (victim + 1) % c.Nodes()
	// The first commit makes the difference, a second one shows it.
	_, old, _, err := maps[healthy].Insert(ctx, "alice", 6)
	if err != nil || old != 5 {
		t.Fatalf("insert on a healthy node: %d, %v", old, err)
	}
	wrong := c.Node(healthy).Groups()[0].Head().Number
	if _, _, _, err := maps[healthy].Insert(ctx, "bob", 1); err != nil {
		t.Fatal(err)
	}
	why := <-diverged
	if !strings.Contains(why, balances.Key().Short()) {
		t.Errorf("the report does not name the key: %s", why)
	}
	if err := bad.Status().Diverged; !errors.Is(err, log.ErrDiverged) {
		t.Fatalf("status of the node that diverged: %v", err)
	}
	if _, _, err := maps[victim].GetStale(ctx, "alice"); !errors.Is(err, log.ErrDiverged) {
		t.Fatalf("it still serves reads: %v", err)
	}
	if _, _, _, err := maps[victim].Insert(ctx, "carol", 1); !errors.Is(err, log.ErrDiverged) {
		t.Fatalf("it still takes writes: %v", err)
	}
	// It knows after a restart as well.
	if err := c.Stop(victim); err != nil {
		t.Fatal(err)
	}
	if err := c.Start(victim); err != nil {
		t.Fatal(err)
	}
	bad = c.Node(victim).Groups()[0]
	if err := bad.Status().Diverged; !errors.Is(err, log.ErrDiverged) {
		t.Fatalf("after a restart: %v", err)
	}
	// The others never noticed.
	for i := range maps {
		if i == victim {
			continue
		}
		if v, ok, err := maps[i].Get(ctx, "alice"); v != 6 || !ok || err != nil {
			t.Fatalf("node %d: %d, %v, %v", i, v, ok, err)
		}
		if err := c.Node(i).Groups()[0].Status().Diverged; err != nil {
			t.Fatalf("node %d stopped, too: %v", i, err)
		}
	}
	report, err := bad.Refold(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	if report.Differs != wrong || report.Rewritten == 0 {
		t.Errorf("refolding reports %+v, the first wrong commit is %d", report, wrong)
	}
	mended, err := balances.Open(ctx, c.Node(victim))
	if err != nil {
		t.Fatal(err)
	}
	if v, ok, err := mended.Get(ctx, "alice"); v != 6 || !ok || err != nil {
		t.Fatalf("after refolding: %d, %v, %v", v, ok, err)
	}
	if _, _, _, err := mended.Insert(ctx, "carol", 1); err != nil {
		t.Fatal(err)
	}
	head := sameHeads(t, ctx, c)
	for n := uint64(1); n <= head.Number; n++ {
		a, errA := bad.Commit(n)
		b, errB := c.Node(healthy).Groups()[0].Commit(n)
		if errA != nil || errB != nil || a.Digest != b.Digest {
			t.Fatalf("commit %d differs after refolding: %v, %v", n, errA, errB)
		}
	}
	if len(diverged) != 0 {
		t.Errorf("another divergence: %s", <-diverged)
	}
}

// leaderOf returns the number of the node that leads.
func leaderOf(t *testing.T, c *cluster.Cluster) int {
	t.Helper()
	for {
		for i := range c.Nodes() {
			if s := c.Node(i).Groups()[0].Status(); s.Leader == s.Self && s.Leader != (identity.PeerID{}) {
				return i
			}
		}
		<-time.After(10 * time.Millisecond) // of the bubble's clock
	}
}

// TestTransferLeadership moves the lead to each member in turn.
func TestTransferLeadership(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := testContext(t)
		c := openCluster(t, &engine.Options{})
		for i := range c.Nodes() {
			if err := c.Node(0).Groups()[0].TransferLeadership(ctx, c.Node(i).Peer()); err != nil {
				t.Fatal(err)
			}
			if leader := leaderOf(t, c); leader != i {
				t.Fatalf("node %d leads, want %d", leader, i)
			}
			if _, err := c.Node(i).Append(ctx, identity.NewID("k"), []byte("x")); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.Node(0).Groups()[0].TransferLeadership(ctx, identity.PeerID{1}); !errors.Is(err, engine.ErrMismatch) {
			t.Errorf("to a stranger: %v", err)
		}
	})
}

// TestRefoldAlone refolds a node that nobody can compare with: the views come
// from the log again, and headers stay as they are.
func TestRefoldAlone(t *testing.T) {
	ctx := testContext(t)
	e := mustOpen(t, t.TempDir(), nil)
	defer mustClose(t, e)
	m, err := balances.Open(ctx, e)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		if _, _, _, err := m.Insert(ctx, "alice", i); err != nil {
			t.Fatal(err)
		}
	}
	g := e.Groups()[0]
	before := g.Head()
	if report, err := g.Refold(ctx, nil); err != nil || report.Differs != 0 || report.Commits != before.Number {
		t.Fatalf("refold of a sound group: %+v, %v", report, err)
	}
	if err := g.PlantRow(balances.Key(), mapRow("alice"), []byte{0x18, 99}); err != nil {
		t.Fatal(err)
	}
	if v, _, err := m.Get(ctx, "alice"); v != 99 || err != nil {
		t.Fatalf("the planted row: %d, %v", v, err)
	}
	var corrupt *log.CorruptionError
	if _, err := e.Check(ctx, nil); !errors.As(err, &corrupt) || corrupt.Commit != before.Number {
		t.Fatalf("check of a store with a planted row: %v", err)
	}
	if _, _, _, err := m.Insert(ctx, "bob", 1); err != nil {
		t.Fatal(err)
	}
	if report, err := g.Refold(ctx, nil); err != nil || report.Differs != 0 {
		t.Fatalf("a row that no commit has read since: %+v, %v", report, err)
	}
	if v, _, err := m.Get(ctx, "alice"); v != 9 || err != nil {
		t.Fatalf("after refolding: %d, %v", v, err)
	}
	if err := g.PlantRow(balances.Key(), mapRow("alice"), []byte{0x18, 99}); err != nil {
		t.Fatal(err)
	}
	if _, old, _, err := m.Insert(ctx, "alice", 10); old != 99 || err != nil {
		t.Fatalf("insert over the planted row: %d, %v", old, err)
	}
	head := g.Head()
	report, err := g.Refold(ctx, nil)
	if err != nil || report.Differs != head.Number || report.Rewritten != 0 || g.Head() != head {
		t.Fatalf("a header with a wrong state: %+v, %v", report, err)
	}
	if v, _, err := m.Get(ctx, "alice"); v != 10 || err != nil {
		t.Fatalf("after refolding: %d, %v", v, err)
	}
}
