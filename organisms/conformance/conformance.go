// Package conformance is the test that every organism passes: what the frame promises of
// organisms, tried on one of them in three replicas. The test of an organism calls [Test]
// with what the organism is and some commits that it takes.
//
// The package starts goroutines only inside its tests, which wait for them.
package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/mosaik-engine/mosaik/engine"
	"github.com/mosaik-engine/mosaik/engine/cluster"
	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/organisms"
	"github.com/mosaik-engine/mosaik/replay"
)

// Step is a commit of an organism.
type Step struct {
	// Primitive is where it goes.
	Primitive string
	// Body is the commit.
	Body []byte
}

// Suite is an organism to try.
type Suite struct {
	// Definition is what it is made of, Config one that it is opened with.
	Definition organisms.Definition
	Config     organisms.Config
	// Others are configs with the same instance name that differ from Config in one thing
	// each: a parameter, a member, the ACL.
	Others []organisms.Config
	// Commits are taken by the machines, in this order, and again and again.
	Commits []Step
	// MaxRows bounds the rows of all views, however often Commits are repeated.
	MaxRows int
}

// Test tries everything.
func Test(t *testing.T, s Suite) {
	t.Run("determinism", s.determinism)
	t.Run("fingerprint", s.fingerprint)
	t.Run("invariant 22: evidence", s.evidence)
	t.Run("invariant 20: retirement", s.retirement)
	t.Run("invariant 21: revision", s.revision)
	t.Run("surface", s.surface)
	t.Run("garbage", s.garbage)
}

// open starts three replicas of the organism's group, and opens it on the first.
func (s *Suite) open(t *testing.T) (context.Context, *cluster.Cluster, *organisms.Organism) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	c, err := cluster.Open(cluster.Options{Nodes: 3, Dir: t.TempDir(), Engine: &engine.Options{
		Named: []string{s.Config.GroupName()}, Machines: s.Definition.Machines(),
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	o, err := organisms.Open(ctx, s.group(c, 0), s.Config, s.Definition)
	if err != nil {
		t.Fatal(err)
	}
	return ctx, c, o
}

// group returns node i's replica of the organism's group.
func (s *Suite) group(c *cluster.Cluster, i int) *engine.Group {
	g, _ := c.Node(i).Group(s.Config.GroupName())
	return g
}

// bind returns the organism's surface as node i has it by now.
func (s *Suite) bind(t *testing.T, ctx context.Context, c *cluster.Cluster, i int, ref organisms.Ref) *organisms.Surface {
	t.Helper()
	g := s.group(c, i)
	if _, err := g.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	f, err := organisms.Bind(ctx, g, ref, s.Definition)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func (s *Suite) commit(t *testing.T, ctx context.Context, o *organisms.Organism) (pointers []log.Pointer) {
	t.Helper()
	for i, step := range s.Commits {
		p, _, err := o.Commit(ctx, step.Primitive, step.Body)
		if err != nil {
			t.Fatalf("commit %d: %v", i, err)
		}
		pointers = append(pointers, p)
	}
	return pointers
}

// determinism: three replicas come to the same bytes, so does who folds the log alone, and
// so does a replica that builds its views anew. The views stay within their bound.
func (s *Suite) determinism(t *testing.T) {
	ctx, c, o := s.open(t)
	for range 3 {
		s.commit(t, ctx, o)
	}
	g := s.group(c, 0)
	head, err := g.Sync(ctx)
	if err != nil {
		t.Fatal(err)
	}
	want := g.Status().State
	if want.IsZero() {
		t.Fatal("nothing was folded")
	}
	for i := 1; i < 3; i++ {
		other := s.group(c, i)
		for other.Head().Number < head.Number {
			if _, err := other.Sync(ctx); err != nil {
				t.Fatal(err)
			}
		}
		if have := other.Status().State; have != want {
			t.Errorf("node %d comes to the state %s, node 1 to %s", i+1, have, want)
		}
	}
	views, err := log.NewViews(s.Definition.Machines()...)
	if err != nil {
		t.Fatal(err)
	}
	for commit, err := range g.Commits(ctx, 1, head.Number) {
		if err != nil {
			t.Fatal(err)
		}
		state, err := views.Fold(&commit)
		if err != nil || state != commit.Header.State {
			t.Fatalf("folding commit %d comes to %s, %v; its header has %s", commit.Header.Number, state, err, commit.Header.State)
		}
	}
	if r, err := g.Refold(ctx, nil); err != nil || r.Differs != 0 || g.Status().State != want {
		t.Errorf("refold: %+v, %v; the state is %s", r, err, g.Status().State)
	}
	rows := 0
	for _, p := range append(append([]organisms.Primitive(nil), s.Definition.Surface...), s.Definition.Inner...) {
		v, err := views.View(key(&p, &s.Config))
		if err != nil {
			t.Fatal(err)
		}
		for row, err := range v.Scan(log.Range{}) {
			if err != nil {
				t.Fatal(err)
			}
			if len(row.Key) > 0 && row.Key[0] != 0 {
				rows++
			}
		}
	}
	if rows > s.MaxRows {
		t.Errorf("%d rows, the bound is %d", rows, s.MaxRows)
	}
}

// fingerprint: every other config has another content hash, and the same stable id.
func (s *Suite) fingerprint(t *testing.T) {
	seen := map[identity.ID]int{s.Config.ContentHash(): -1}
	for i, c := range s.Others {
		if err := c.Validate(); err != nil {
			t.Fatalf("config %d: %v", i, err)
		}
		if c.StableID() != s.Config.StableID() {
			t.Errorf("config %d has another stable id", i)
		}
		hash := c.ContentHash()
		if before, twice := seen[hash]; twice {
			t.Errorf("configs %d and %d have the same content hash", before, i)
		}
		seen[hash] = i
	}
	if len(s.Others) == 0 {
		t.Error("there is no other config to compare with")
	}
}

// evidence: pointers of commits can be followed from the bytes alone, and one that is
// altered is found and named.
func (s *Suite) evidence(t *testing.T) {
	ctx, c, o := s.open(t)
	g := s.group(c, 0)
	first := s.commit(t, ctx, o)
	step := s.Commits[0]
	if _, _, err := o.Commit(ctx, step.Primitive, step.Body, organisms.At(first[0]), organisms.Outside(identity.NewID("http"), identity.NewID("body"))); err != nil {
		t.Fatal(err)
	}
	resolve := func(_ context.Context, p log.Pointer) error {
		commit, err := g.Commit(p.Commit)
		if err != nil {
			return err
		}
		return replay.VerifyPointer(p, commit.AppendTo(nil))
	}
	if !public(&s.Definition, step.Primitive) {
		t.Fatalf("the first of the commits goes to %q, which nobody can audit", step.Primitive)
	}
	r, err := o.Audit(ctx, step.Primitive, log.Earliest(), resolve, nil)
	if err != nil || r.Inside != 1 || r.Outside != 1 || r.Commits < 2 {
		t.Fatalf("%+v, %v", r, err)
	}
	lie := first[0]
	lie.Digest[3] ^= 1
	if _, _, err := o.Commit(ctx, step.Primitive, step.Body, organisms.At(lie)); err != nil {
		t.Fatal(err)
	}
	if _, err := o.Audit(ctx, step.Primitive, log.Earliest(), resolve, nil); !errors.Is(err, organisms.ErrEvidence) || !bytes.Contains([]byte(err.Error()), []byte(lie.String())) {
		t.Errorf("an altered pointer: %v", err)
	}
	if _, _, err := o.Commit(ctx, step.Primitive, step.Body, organisms.Evidence{}); !errors.Is(err, organisms.ErrEvidence) {
		t.Errorf("evidence of nothing: %v", err)
	}
}

// keyOf returns the key of a primitive's log.
func (s *Suite) keyOf(name string) identity.ID {
	for _, p := range append(append([]organisms.Primitive(nil), s.Definition.Surface...), s.Definition.Inner...) {
		if p.Name == name {
			return key(&p, &s.Config)
		}
	}
	return identity.ID{}
}

func key(p *organisms.Primitive, c *organisms.Config) identity.ID {
	if p.Key == nil {
		return c.StreamID(p.Name)
	}
	return p.Key(c.StableID())
}

func public(d *organisms.Definition, name string) bool {
	for _, p := range d.Surface {
		if p.Name == name {
			return true
		}
	}
	return false
}

// retirement: while many commit, one retires the organism. What was acknowledged is before
// the marker, what comes after is refused, for ever and on every node, and the readers
// come to an end.
func (s *Suite) retirement(t *testing.T) {
	ctx, c, o := s.open(t)
	s.commit(t, ctx, o)
	step := s.Commits[0]
	var wg sync.WaitGroup
	acked := make([]int, 4)
	for i := range acked {
		other, err := organisms.Open(ctx, s.group(c, i%3), s.Config, s.Definition)
		if err != nil {
			t.Fatal(err)
		}
		wg.Add(1)
		go runCommits(ctx, other, step, &acked[i], t.Errorf, wg.Done)
	}
	next := s.Config
	next.InstanceName += ".next"
	ref := next.Ref(false)
	m, err := o.Retire(ctx, organisms.Rotation, &ref)
	if err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	if m.Component != s.Config.StableID() || m.Instant.Commit == 0 || m.Replacement == nil || m.Replacement.StableID != ref.StableID {
		t.Errorf("%+v", m)
	}
	var again *organisms.RetiredError
	if _, err := o.Retire(ctx, organisms.Abandoned, nil); !errors.As(err, &again) || again.Marker.Reason != organisms.Rotation {
		t.Errorf("retired twice: %v", err)
	}
	want := 0
	for _, n := range acked {
		want += n
	}
	for _, other := range s.Commits {
		if other.Primitive == step.Primitive {
			want++
		}
		if _, _, err := o.Commit(ctx, other.Primitive, other.Body); !errors.Is(err, organisms.ErrRetired) {
			t.Errorf("%s takes a commit after the marker: %v", other.Primitive, err)
		}
	}
	for i := range 3 {
		if _, err := organisms.Open(ctx, s.group(c, i), s.Config, s.Definition); !errors.Is(err, organisms.ErrRetired) {
			t.Errorf("node %d opens it: %v", i+1, err)
		}
		f := s.bind(t, ctx, c, i, s.Config.Ref(true))
		n := 0
		var end error
		for e, err := range f.Commits(ctx, step.Primitive, log.Earliest(), true) {
			if end = err; err == nil {
				n++
				if e.Pointer.Commit > m.Instant.Commit {
					t.Errorf("commit %d is behind the marker in %d", e.Pointer.Commit, m.Instant.Commit)
				}
			}
		}
		if !errors.As(end, &again) || again.Marker.Instant != m.Instant || n != want {
			t.Errorf("node %d: %d commits of %d, then %v", i+1, n, want, end)
		}
		r, err := organisms.Resolve(ctx, s.Config.Ref(false), organisms.Markers(func(ctx context.Context, id identity.ID) (*organisms.Surface, error) {
			return organisms.Bind(ctx, s.group(c, i), organisms.Ref{Role: s.Config.Role, StableID: id}, s.Definition)
		}))
		if err != nil || r.Ref.StableID != ref.StableID || len(r.Hops) != 1 {
			t.Errorf("node %d: %+v, %v", i+1, r, err)
		}
	}
}

// runCommits commits until the organism has retired, and counts what was acknowledged.
func runCommits(ctx context.Context, o *organisms.Organism, step Step, acked *int, fail func(string, ...any), done func()) {
	defer done()
	for {
		_, _, err := o.Commit(ctx, step.Primitive, step.Body)
		switch {
		case err == nil:
			*acked++
		case errors.Is(err, organisms.ErrRetired):
			return
		default:
			fail("commit: %v", err)
			return
		}
	}
}

// revision: another config is refused until it is published. Readers that pin the content
// are told then which is in force, and go on no further; others go on.
func (s *Suite) revision(t *testing.T) {
	ctx, c, o := s.open(t)
	s.commit(t, ctx, o)
	step, next := s.Commits[0], s.Others[0]
	pinned, following := s.bind(t, ctx, c, 1, s.Config.Ref(true)), s.bind(t, ctx, c, 1, s.Config.Ref(false))
	var told *organisms.RevisionError
	_, err := organisms.Open(ctx, s.group(c, 0), next, s.Definition)
	if !errors.As(err, &told) || told.Want != next.ContentHash() || told.InForce != s.Config.ContentHash() {
		t.Fatalf("another config: %v", err)
	}
	ref := next.Ref(true)
	if _, err := organisms.Bind(ctx, s.group(c, 0), ref, s.Definition); !errors.As(err, &told) {
		t.Errorf("a reference to another revision: %v", err)
	}
	revised, err := organisms.Revise(ctx, s.group(c, 0), next, s.Definition)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := revised.Commit(ctx, step.Primitive, step.Body); err != nil {
		t.Fatal(err)
	}
	if _, err := s.group(c, 1).Sync(ctx); err != nil {
		t.Fatal(err)
	}
	count := func(f *organisms.Surface) (n int, end error) {
		for _, err := range f.Commits(ctx, step.Primitive, log.Earliest(), false) {
			if end = err; err == nil {
				n++
			}
		}
		return n, end
	}
	before, err := count(pinned)
	if !errors.As(err, &told) || told.InForce != next.ContentHash() {
		t.Errorf("a reader of the old revision ends with %v", err)
	}
	if n, err := count(following); err != nil || n != before+1 {
		t.Errorf("a reader that follows has %d commits, the other had %d; %v", n, before, err)
	}
	if hash, err := following.ContentHash(ctx); err != nil || hash != next.ContentHash() {
		t.Errorf("in force is %s, %v", hash, err)
	}
	if p, err := following.Parameters(ctx, log.Stale()); err != nil || !bytes.Equal(p, next.Parameters) {
		t.Errorf("parameters %x, %v", p, err)
	}
	wrong := next
	wrong.Role = "another role"
	if _, err := organisms.Revise(ctx, s.group(c, 0), wrong, s.Definition); !errors.Is(err, organisms.ErrConfig) {
		t.Errorf("another role: %v", err)
	}
}

// surface: what is not public cannot be reached, and the error says what can.
func (s *Suite) surface(t *testing.T) {
	ctx, c, o := s.open(t)
	f := s.bind(t, ctx, c, 2, s.Config.Ref(false))
	names := []string{"no such thing", ""}
	for _, p := range s.Definition.Inner {
		names = append(names, p.Name)
	}
	for _, name := range names {
		if _, err := f.View(ctx, name, log.Stale()); !errors.Is(err, organisms.ErrOffSurface) {
			t.Errorf("view of %q: %v", name, err)
		}
		for _, err := range f.Commits(ctx, name, log.Earliest(), false) {
			if !errors.Is(err, organisms.ErrOffSurface) {
				t.Errorf("commits of %q: %v", name, err)
			}
		}
	}
	if _, _, err := o.Commit(ctx, "no such thing", nil); !errors.Is(err, organisms.ErrOffSurface) {
		t.Errorf("a commit to it: %v", err)
	}
	if _, err := organisms.Bind(ctx, s.group(c, 0), organisms.Ref{Role: s.Config.Role, StableID: identity.NewID("nobody")}, s.Definition); !errors.Is(err, log.ErrNotFound) {
		t.Errorf("an organism that is not there: %v", err)
	}
}

// garbage: whatever is committed, no replica stops, and all agree.
func (s *Suite) garbage(t *testing.T) {
	ctx, c, o := s.open(t)
	s.commit(t, ctx, o)
	rng := rand.New(rand.NewPCG(1, 2))
	g := s.group(c, 0)
	for i := range 200 {
		step := s.Commits[rng.IntN(len(s.Commits))]
		body := bytes.Clone(step.Body)
		switch i % 4 {
		case 0:
			body = body[:rng.IntN(len(body)+1)]
		case 1:
			if len(body) > 0 {
				body[rng.IntN(len(body))] ^= byte(1 + rng.IntN(255))
			}
		case 2:
			body = fmt.Append(body, rng.Uint64())
		default: // not even a record of an organism
			if _, err := g.Append(ctx, s.keyOf(step.Primitive), body); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if _, _, err := o.Commit(ctx, step.Primitive, body); err != nil && !errors.Is(err, organisms.ErrRefused) {
			t.Fatal(err)
		}
	}
	head, err := g.Sync(ctx)
	if err != nil {
		t.Fatal(err)
	}
	want := g.Status().State
	for i := 1; i < 3; i++ {
		other := s.group(c, i)
		for other.Head().Number < head.Number {
			if _, err := other.Sync(ctx); err != nil {
				t.Fatal(err)
			}
		}
		if st := other.Status(); st.State != want || st.Diverged != nil {
			t.Errorf("node %d: state %s, %v", i+1, st.State, st.Diverged)
		}
	}
}
