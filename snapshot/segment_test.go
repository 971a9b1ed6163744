package snapshot

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

var testGroup = identity.NewID("group")

// history returns a log with n commits and one map.
func history(t testing.TB, n int) *log.Memory {
	t.Helper()
	mem := log.NewMemory(testGroup)
	prices, err := log.MapDef[string, int]{Name: "prices"}.Open(t.Context(), mem)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(3, 4))
	for i := range n - 1 { // one registered the map
		if i%3 == 0 {
			_, _, _, err = prices.Insert(t.Context(), string(rune('a'+i%7)), i)
		} else {
			_, err = mem.Append(t.Context(), identity.NewID("stream"), random(rng.IntN(30_000)), []byte{1})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return mem
}

// seal seals the commits from..to of a log.
func seal(t testing.TB, mem *log.Memory, g Geometry, number, from, to uint64) (*Manifest, [][]byte) {
	t.Helper()
	r := Range{Group: testGroup, Number: number, First: from, Last: to}
	if from > 1 {
		before, err := mem.Commit(from - 1)
		if err != nil {
			t.Fatal(err)
		}
		r.Prev = before.Digest
	}
	var object bytes.Buffer
	w, err := NewSegmentWriter(&object, r)
	if err != nil {
		t.Fatal(err)
	}
	for c, err := range mem.Commits(context.Background(), from, to) {
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Add(&c); err != nil {
			t.Fatal(err)
		}
	}
	m := new(Manifest)
	if m.Summary, err = w.Close(); err != nil {
		t.Fatal(err)
	}
	o := code(t, g, object.Bytes())
	m.Commits = o.c
	return m, o.shards
}

func TestSegment(t *testing.T) {
	mem := history(t, 100)
	m, shards := seal(t, mem, GeometryFor(3), 2, 20, 90)
	b := m.AppendTo(nil)
	again, err := DecodeManifest(b)
	if err != nil || again.Differs(m) != nil || !bytes.Equal(again.AppendTo(nil), b) {
		t.Fatalf("%+v, %v", again, err)
	}
	for i := range b {
		if _, err := DecodeManifest(b[:i]); err == nil {
			t.Fatalf("%d bytes of %d are a manifest", i, len(b))
		}
	}
	for lost := range 3 {
		readers := make([]io.ReaderAt, 3)
		for i := range readers {
			if i != lost {
				readers[i] = bytes.NewReader(shards[i])
			}
		}
		s, err := OpenSegment(m, readers, nil)
		if err != nil {
			t.Fatal(err)
		}
		rng := rand.New(rand.NewPCG(1, uint64(lost)))
		for range 200 {
			n := 20 + rng.Uint64N(71)
			got, err := s.Commit(n)
			if err != nil {
				t.Fatal(err)
			}
			want, err := mem.Commit(n)
			if err != nil || got.Digest != want.Digest || !bytes.Equal(got.Body, want.Body) {
				t.Fatalf("commit %d differs, %v", n, err)
			}
		}
		for _, n := range []uint64{0, 19, 91} {
			if _, err := s.Commit(n); !errors.Is(err, log.ErrNotFound) {
				t.Errorf("commit %d: %v", n, err)
			}
		}
	}
	s, err := OpenSegment(m, []io.ReaderAt{bytes.NewReader(shards[0]), nil, nil}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Commit(50); !errors.Is(err, ErrShards) {
		t.Errorf("with one shard of three: %v", err)
	}
	first, _ := seal(t, mem, GeometryFor(3), 1, 1, 19)
	if err := errors.Join(first.Follows(testGroup, nil), m.Follows(testGroup, first)); err != nil {
		t.Error(err)
	}
	for _, err := range []error{m.Follows(testGroup, nil), first.Follows(testGroup, first), m.Follows(testGroup, m), first.Follows(identity.NewID("other"), nil)} {
		if err == nil {
			t.Error("a manifest follows what it does not")
		}
	}
}

// TestSegmentRefusesOthers: only the commits of its range go into a segment, each
// after the one before.
func TestSegmentRefusesOthers(t *testing.T) {
	mem := history(t, 10)
	commit := func(n uint64) log.Commit {
		c, err := mem.Commit(n)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	r := Range{Group: testGroup, Number: 1, First: 1, Last: 3}
	w, err := NewSegmentWriter(io.Discard, r)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		n  uint64
		ok bool
	}{{2, false}, {1, true}, {1, false}, {3, false}, {2, true}} {
		c := commit(step.n)
		if err := w.Add(&c); (err == nil) != step.ok {
			t.Fatalf("commit %d: %v", step.n, err)
		}
	}
	if _, err := w.Close(); err == nil {
		t.Error("a segment was closed before its last commit")
	}
	c := commit(3)
	c.Header.Prev[0]++
	if err := w.Add(&c); err == nil {
		t.Error("a commit of another chain was taken")
	}
}

func TestBoundary(t *testing.T) {
	b := NewBoundary(1000)
	var ends []int
	for i, size := range []int{400, 599, 1, 1000, 5000, 999, 1, 10} {
		if b.Add(size) {
			ends = append(ends, i)
		}
	}
	if want := []int{2, 3, 4, 6}; len(ends) != len(want) || ends[0] != 2 || ends[3] != 6 || b.Commits != 1 || b.Bytes != 10 {
		t.Errorf("segments end at %v, want %v; %+v", ends, want, b)
	}
	b = NewBoundary(0)
	for i := range SegmentCommits {
		if last := b.Add(1); last != (i == SegmentCommits-1) {
			t.Fatalf("after %d commits: %v", i+1, last)
		}
	}
}

// stateOf writes the state of a log as of its head.
func stateOf(t testing.TB, mem *log.Memory) ([]byte, uint64, log.Digest) {
	t.Helper()
	head := mem.Head().Number
	views, err := log.NewViews()
	if err != nil {
		t.Fatal(err)
	}
	for c, err := range mem.Commits(context.Background(), 1, head) {
		if err != nil {
			t.Fatal(err)
		}
		if _, err := views.Fold(&c); err != nil {
			t.Fatal(err)
		}
	}
	base, _ := mem.Views(head)
	var b bytes.Buffer
	w, err := NewStateWriter(&b, testGroup, head)
	if err != nil {
		t.Fatal(err)
	}
	for view := range uint32(2) {
		for generation := range uint32(2) {
			for row, err := range base.Rows(view, generation).Scan(log.Range{}) {
				if err != nil {
					t.Fatal(err)
				}
				if err := w.Add(StateRow{view, generation, row.Key, row.Commit, row.Value}); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), head, views.State()
}

func TestState(t *testing.T) {
	b, head, want := stateOf(t, history(t, 50))
	var rows []StateRow
	hash, err := ReadState(bytes.NewReader(b), testGroup, head, func(r StateRow) error { rows = append(rows, r); return nil })
	if err != nil || hash.Digest() != want || len(rows) < 8 {
		t.Fatalf("%d rows, digest %s of %s, %v", len(rows), hash.Digest(), want, err)
	}
	none := func(StateRow) error { return nil }
	for i := range b {
		if _, err := ReadState(bytes.NewReader(b[:i]), testGroup, head, none); err == nil {
			t.Fatalf("%d bytes of %d are a state", i, len(b))
		}
		changed := bytes.Clone(b)
		changed[i] ^= 1
		if hash, err := ReadState(bytes.NewReader(changed), testGroup, head, none); err == nil && hash.Digest() == want {
			t.Fatalf("byte %d changed: the state is the same", i)
		}
	}
	if _, err := ReadState(bytes.NewReader(append(b, 0)), testGroup, head, none); err == nil {
		t.Error("a byte more is a state")
	}
	if _, err := ReadState(bytes.NewReader(b), identity.NewID("other"), head, none); err == nil {
		t.Error("it is the state of another group")
	}
}

func FuzzManifest(f *testing.F) {
	m, _ := seal(f, history(f, 5), GeometryFor(3), 1, 1, 5)
	f.Add(m.AppendTo(nil))
	m.State = m.Commits
	f.Add(m.AppendTo(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := DecodeManifest(b)
		if err != nil {
			return
		}
		if !bytes.Equal(m.AppendTo(nil), b) {
			t.Fatal("decodes to what encodes differently")
		}
		if m.Commits.ShardSize() < 0 || m.Commits.Stripes() < 0 {
			t.Fatal("sizes overflow")
		}
	})
}
