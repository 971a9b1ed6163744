package engine_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/mosaik-engine/mosaik/engine"
	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

// openMembers is openSynced with room for nodes that join.
func openMembers(t *testing.T, ctx context.Context) *synced {
	s := openSynced(t, ctx, engine.Retention{Segments: 1}, nil)
	for range 3 {
		s.disks = append(s.disks, vfs.NewCrashableMem())
	}
	return s
}

// seats are the peers in the seats of a node's group, as it knows them.
func seats(e *engine.Engine) []identity.PeerID { return e.Groups()[0].Status().Members }

// TestReplaceMember: a founder is evicted and another peer takes its seat, with archived
// history, and its vote counts; over restarts, and with the founders gone one by one.
func TestReplaceMember(t *testing.T) {
	ctx := testContext(t)
	s := openMembers(t, ctx)
	fill(t, ctx, s.Node(0), 1, 60)
	s.leave(t, ctx)
	for _, n := range s.Running() {
		eventually(t, ctx, "segments are archived", func() bool { return n.Groups()[0].Segments().Archived > 0 })
	}
	last := 2
	for round, gone := range []int{2, 0} {
		out := s.Node(gone)
		by := s.Node(1)
		if err := by.Evict(ctx, out.Peer()); err != nil {
			t.Fatal(err)
		}
		eventually(t, ctx, "it knows that it is out, or is cut off", func() bool {
			st := out.Groups()[0].Status()
			return st.Evicted || st.Leader.IsZero()
		})
		if err := s.Stop(gone); err != nil {
			t.Fatal(err)
		}
		i, err := s.Join(ctx, 1, log.Verdict{})
		if err != nil {
			t.Fatal(err)
		}
		if want := 3 + round; i != want {
			t.Fatalf("node %d, want %d", i, want)
		}
		joined := s.Node(i)
		eventually(t, ctx, "it has a vote", func() bool { return !joined.Groups()[0].Status().Reader })
		fill(t, ctx, joined, 10+round, 30)
		for _, n := range s.Running() {
			eventually(t, ctx, "all know who has the seats", func() bool {
				m := seats(n)
				return slices.Contains(m, joined.Peer()) && !slices.Contains(m, out.Peer())
			})
		}
		sameContents(t, ctx, s.Cluster, joined.Groups()[0].Head().Number)
		eventually(t, ctx, "it has the shards of its seat", func() bool {
			r, err := joined.Check(ctx, nil)
			return err == nil && r.Missing == 0
		})
		// Its vote is needed: one of the others stops.
		other := last
		if round == 0 {
			other = 0
		}
		if err := s.Stop(other); err != nil {
			t.Fatal(err)
		}
		fill(t, ctx, joined, 20+round, 20)
		if err := errors.Join(s.Stop(i), s.Start(other), s.Ready(ctx)); err != nil {
			t.Fatal(err)
		}
		fill(t, ctx, s.Node(1), 30+round, 20)
		if err := errors.Join(s.Start(i), s.Ready(ctx)); err != nil {
			t.Fatal(err)
		}
		sameContents(t, ctx, s.Cluster, s.Node(i).Groups()[0].Head().Number)
		last = i
	}
	// One founder, two others: the lead can be with any of them.
	for _, i := range []int{3, 4, 1} {
		g := s.Node(1).Groups()[0]
		if err := g.TransferLeadership(ctx, s.Peer(i)); err != nil {
			t.Fatal(err)
		}
	}
	held(t, ctx, s.Cluster, len(s.Node(1).Groups()[0].Segments().Manifests))
}

// TestReader: with all seats taken, one more is let in only if the policy has room; it
// keeps everything, votes on nothing, and gets a seat that becomes vacant.
func TestReader(t *testing.T) {
	ctx := testContext(t)
	s := openMembers(t, ctx)
	n := s.Node(0)
	fill(t, ctx, n, 1, 40)
	if _, err := n.Admit(ctx, identity.PeerID{9}, log.Verdict{}); !errors.Is(err, log.ErrMembership) {
		t.Fatalf("without room: %v", err)
	}
	if err := n.SetMembershipPolicy(ctx, log.MembershipPolicy{Readers: log.MaxReaders + 1}); !errors.Is(err, log.ErrMembership) {
		t.Fatalf("a policy beyond the limits: %v", err)
	}
	if err := n.SetMembershipPolicy(ctx, log.MembershipPolicy{Readers: 1, Promote: true}); err != nil {
		t.Fatal(err)
	}
	i, err := s.Join(ctx, 1, log.Verdict{})
	if err != nil {
		t.Fatal(err)
	}
	reader := s.Node(i)
	if err := reader.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	fill(t, ctx, reader, 2, 40) // what it appends goes to the leader like everything
	head := settled(t, ctx, s.Cluster)
	sameContents(t, ctx, s.Cluster, head.Number)
	if st := reader.Groups()[0].Status(); !st.Reader || slices.Contains(st.Members, reader.Peer()) {
		t.Fatalf("it has a seat: %+v", st)
	}
	if err := errors.Join(s.Stop(i), s.Start(i), s.Ready(ctx)); err != nil {
		t.Fatal(err)
	}
	reader = s.Node(i)
	// One founder goes for good, and the seat is the reader's.
	if err := n.Evict(ctx, s.Peer(2)); err != nil {
		t.Fatal(err)
	}
	if err := s.Stop(2); err != nil {
		t.Fatal(err)
	}
	eventually(t, ctx, "the reader has a vote", func() bool { return !reader.Groups()[0].Status().Reader })
	if err := s.Stop(0); err != nil {
		t.Fatal(err)
	}
	fill(t, ctx, reader, 3, 20)
}

// TestVerdictExpires: who was let in until a moment is taken out then, unless the verdict
// is renewed.
func TestVerdictExpires(t *testing.T) {
	ctx := testContext(t)
	s := openMembers(t, ctx)
	n := s.Node(0)
	if err := n.Evict(ctx, s.Peer(2)); err != nil {
		t.Fatal(err)
	}
	if err := s.Stop(2); err != nil {
		t.Fatal(err)
	}
	i, err := s.Join(ctx, 0, log.Verdict{Expires: time.Now().Add(time.Hour), Evidence: identity.NewID("ticket")})
	if err != nil {
		t.Fatal(err)
	}
	joined := s.Node(i)
	eventually(t, ctx, "it has a vote", func() bool { return !joined.Groups()[0].Status().Reader })
	number, err := n.Admit(ctx, joined.Peer(), log.Verdict{Expires: time.Now().Add(time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	if number != 4 {
		t.Errorf("number %d, the founders have 1 to 3", number)
	}
	eventually(t, ctx, "it is out", func() bool {
		m, err := n.Groups()[0].Members(ctx)
		if err != nil {
			return false
		}
		_, in := m.Of(joined.Peer())
		return !in
	})
	if _, err := n.Readmit(ctx, joined.Peer(), []identity.ID{n.Groups()[0].ID()}); !errors.Is(err, engine.ErrMismatch) {
		t.Errorf("it is taken in again: %v", err)
	}
	fill(t, ctx, n, 1, 20)
	// The others go on, and the seat can be given anew; numbers are not.
	j, err := s.Join(ctx, 1, log.Verdict{})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, ctx, "the next one has a vote", func() bool { return !s.Node(j).Groups()[0].Status().Reader })
	m, err := s.Node(1).Groups()[0].Members(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if x, _ := m.Of(s.Peer(j)); x.Number != 5 || x.Seat != 3 {
		t.Errorf("%+v, want number 5 in seat 3", x)
	}
}

// TestMembersRefused: nobody else writes to the log of members, a stranger does not come
// in, and the last of the committee stays.
func TestMembersRefused(t *testing.T) {
	ctx := testContext(t)
	s := openMembers(t, ctx)
	n := s.Node(0)
	g := n.Groups()[0]
	if _, err := g.Append(ctx, log.MembersKey(), log.EvictCommand(1, log.Evicted)); !errors.Is(err, log.ErrQuery) {
		t.Errorf("append: %v", err)
	}
	entry := log.MembersEntry()
	entry.Kind = "mosaik.map.v1"
	if err := log.Register(ctx, g, entry); !errors.Is(err, log.ErrQuery) {
		t.Errorf("register: %v", err)
	}
	if _, err := g.Submit(ctx, &log.Transaction{Commands: []log.KeyedCommand{{Key: log.MembersKey(), Payload: log.EvictCommand(1, log.Evicted)}}}); !errors.Is(err, log.ErrTransaction) {
		t.Errorf("transaction: %v", err)
	}
	if _, err := n.Readmit(ctx, identity.PeerID{9}, []identity.ID{g.ID()}); !errors.Is(err, engine.ErrMismatch) {
		t.Errorf("a stranger: %v", err)
	}
	if err := n.Evict(ctx, identity.PeerID{9}); !errors.Is(err, log.ErrMembership) {
		t.Errorf("evict a stranger: %v", err)
	}
	alone := openDefaults(t, 1, t.TempDir()).Node(0)
	if _, err := alone.Admit(ctx, identity.PeerID{9}, log.Verdict{}); !errors.Is(err, engine.ErrMismatch) {
		t.Errorf("a node alone: %v", err)
	}
	_, err := engine.Open("stranger", &engine.Options{FS: vfs.NewMem(), Peer: identity.PeerID{9}, Members: []identity.PeerID{{1}, {2}, {3}}})
	if !errors.Is(err, engine.ErrMismatch) {
		t.Errorf("a peer that is no founder and does not ask: %v", err)
	}
}
