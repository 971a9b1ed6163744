package remote

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"slices"
	"testing"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/network"
)

// TestCollections: what package log has over stores works on a group of others, and
// shows what a member sees.
func TestCollections(t *testing.T) {
	m, w := newMemory(t), newTown(t)
	guest := w.open(3, Options{})
	g := guest.guest(t, GroupOptions{Window: MinWindow}, w.open(1, serve(everybody(), m)), w.open(2, serve(everybody(), m)))
	ctx := testContext(t)
	def := log.MapDef[string, []byte]{Name: "files"}
	files, err := def.Open(ctx, g)
	if err != nil {
		t.Fatal(err)
	}
	// More rows than a window, and the largest there can be.
	const n, size = 60, 100 << 10
	for i := range n {
		if _, _, _, err := files.Insert(ctx, fmt.Sprintf("%02d", i), bytes.Repeat([]byte{byte(i)}, size)); err != nil {
			t.Fatal(err)
		}
	}
	huge := bytes.Repeat([]byte("x"), log.MaxPayload-5000)
	for range 2 {
		if _, _, _, err := files.Insert(ctx, "huge", huge); err != nil {
			t.Fatal(err)
		}
	}
	reader, err := def.Reader(g)
	if err != nil {
		t.Fatal(err)
	}
	local, err := def.Reader(m)
	if err != nil {
		t.Fatal(err)
	}
	for name, r := range map[string]log.Range{"all": {}, "reversed": {Reverse: true}} {
		want, err := m.View(ctx, def.Key(), log.Linearizable())
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []log.Consistency{log.Linearizable(), log.Stale(), log.AsOf(want.Commit())} {
			got, err := g.View(ctx, def.Key(), c)
			if err != nil || got.Commit() != want.Commit() {
				t.Fatalf("%v: %v", c, err)
			}
			if a, b := rowsOf(t, want, r), rowsOf(t, got, r); !slices.Equal(a, b) || len(a) < n+1 {
				t.Errorf("%s, %v: %d rows, want %d", name, c, len(b), len(a))
			}
		}
	}
	if v, ok, err := reader.Get(ctx, "huge"); err != nil || !ok || !bytes.Equal(v, huge) {
		t.Errorf("%v, %v", ok, err)
	}
	if _, ok, err := reader.Get(ctx, "none"); err != nil || ok {
		t.Errorf("%v, %v", ok, err)
	}
	if _, err := g.View(ctx, def.Key(), log.AsOf(1_000_000)); !errors.Is(err, log.ErrNotFound) {
		t.Errorf("%v", err)
	}
	// Changes, of which one has a row with two of the largest values.
	want, got := changesOf(t, m.Changes(ctx, def.Key(), 0, false)), changesOf(t, g.Changes(ctx, def.Key(), 0, false))
	if !slices.Equal(want, got) || len(got) < n+2 {
		t.Errorf("%d changes, want %d", len(got), len(want))
	}
	// A transaction, one that holds and one that does not.
	for i, err := range []error{nil, log.ErrConflict} {
		txn := log.NewTxn(g)
		part := def.In(txn)
		part.ExpectAbsent("new")
		old := part.Insert("new", []byte{byte(i)})
		if _, got := txn.Commit(ctx); !errors.Is(got, err) {
			t.Errorf("%v, want %v", got, err)
		}
		if v, ok := old.Value(); ok != (err == nil) || v != nil {
			t.Errorf("%v, %v", v, ok)
		}
	}
	if v, ok, err := local.Get(ctx, "new"); err != nil || !ok || !bytes.Equal(v, []byte{0}) {
		t.Errorf("%v %v %v", v, ok, err)
	}
	if _, err := g.Submit(ctx, &log.Transaction{}); !errors.Is(err, log.ErrTransaction) {
		t.Errorf("%v", err)
	}
	if results, err := g.AppendAsync(ctx, identity.NewID("plain"), []byte("a"), nil).Results(); err != nil || results != nil {
		t.Errorf("a key that is not folded: %v, %v", results, err)
	}
	// Results of one write that are larger than a window.
	txn := log.NewTxn(g)
	var removed []*log.Pending[*[]byte]
	for i := range n {
		removed = append(removed, def.In(txn).Remove(fmt.Sprintf("%02d", i)))
	}
	if _, err := txn.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	for i, p := range removed {
		if v, ok := p.Value(); !ok || v == nil || !bytes.Equal(*v, bytes.Repeat([]byte{byte(i)}, size)) {
			t.Fatalf("the result of removal %d is lost", i)
		}
	}
}

func rowsOf(t *testing.T, v log.View, r log.Range) (all []string) {
	t.Helper()
	for row, err := range v.Scan(r) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, fmt.Sprintf("%x %x %d", row.Key, log.Sum(row.Value), row.Commit))
	}
	return all
}

func changesOf(t *testing.T, changes iter.Seq2[log.Changes, error]) (all []string) {
	t.Helper()
	for c, err := range changes {
		if err != nil {
			t.Fatal(err)
		}
		line := fmt.Sprint(c.Pointer, c.Time, c.Cleared)
		for _, row := range c.Rows {
			line += fmt.Sprintf(" %x %x %x %v %v %d", row.Key, log.Sum(row.Old), log.Sum(row.New), row.Existed, row.Exists, row.Before)
		}
		all = append(all, line)
	}
	return all
}

// TestChangesResume: changes that are followed go on at another replica, each once.
func TestChangesResume(t *testing.T) {
	m, w := newMemory(t), newTown(t)
	replicas := []*house{w.open(1, serve(everybody(), m)), w.open(2, serve(everybody(), m))}
	guest := w.open(3, Options{})
	g := guest.guest(t, GroupOptions{Window: MinWindow}, replicas...)
	ctx := testContext(t)
	def := log.MapDef[int, []byte]{Name: "numbers"}
	numbers, err := def.Open(ctx, m)
	if err != nil {
		t.Fatal(err)
	}
	const n = 100
	written := make(chan error, 1)
	go func() {
		var err error
		for i := range n {
			if _, _, _, err = numbers.Insert(ctx, i, make([]byte, 100<<10)); err != nil {
				break
			}
		}
		written <- err
	}()
	seen, last := 0, uint64(0)
	for c, err := range g.Changes(ctx, def.Key(), 0, true) {
		if err != nil {
			t.Fatal(err)
		}
		if c.Pointer.Commit <= last {
			t.Fatalf("commit %d after %d", c.Pointer.Commit, last)
		}
		last = c.Pointer.Commit
		if seen++; seen == n {
			break
		}
		if seen%10 == 0 {
			for _, r := range replicas {
				r.e.Disconnect(guest.e.Peer(), network.Lost, nil)
			}
		}
	}
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	want := changesOf(t, m.Changes(ctx, def.Key(), 0, false))
	if len(want) != n || last != m.Head().Number {
		t.Errorf("%d changes, the last of commit %d", seen, last)
	}
}

// TestRowsResume: a view is read on at another replica, as of the same commit.
func TestRowsResume(t *testing.T) {
	m, w := newMemory(t), newTown(t)
	replicas := []*house{w.open(1, serve(everybody(), m)), w.open(2, serve(everybody(), m))}
	guest := w.open(3, Options{})
	g := guest.guest(t, GroupOptions{Window: MinWindow}, replicas...)
	ctx := testContext(t)
	def := log.MapDef[int, []byte]{Name: "numbers"}
	numbers, err := def.Open(ctx, m)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 60 {
		if _, _, _, err := numbers.Insert(ctx, i, make([]byte, 100<<10)); err != nil {
			t.Fatal(err)
		}
	}
	for _, reverse := range []bool{false, true} {
		view, err := g.View(ctx, def.Key(), log.Linearizable())
		if err != nil {
			t.Fatal(err)
		}
		same, err := m.View(ctx, def.Key(), log.AsOf(view.Commit()))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for row, err := range view.Scan(log.Range{Reverse: reverse}) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, fmt.Sprintf("%x %x %d", row.Key, log.Sum(row.Value), row.Commit))
			if len(got)%20 == 0 {
				for _, r := range replicas {
					r.e.Disconnect(guest.e.Peer(), network.Lost, nil)
				}
				if _, _, _, err := numbers.Insert(ctx, 1000, []byte("later")); err != nil {
					t.Fatal(err)
				}
			}
		}
		if want := rowsOf(t, same, log.Range{Reverse: reverse}); !slices.Equal(want, got) {
			t.Errorf("reverse %v: %d rows, want %d", reverse, len(got), len(want))
		}
	}
}
