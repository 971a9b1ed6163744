package log_test

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

// The collections against models that are simple enough to be seen to be right:
// every result of every command, the whole content now and then, and the content
// as of commits past.

// listOf returns the elements of an iteration.
func listOf[T any](t testing.TB, seq iter.Seq2[T, error]) []T {
	t.Helper()
	list := []T{}
	for v, err := range seq {
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, v)
	}
	return list
}

// must fails the test on an error.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantEqual compares what a command or a read returned with what the model says.
func wantEqual(t testing.TB, what string, got, want any) {
	t.Helper()
	if g, w := fmt.Sprint(got), fmt.Sprint(want); g != w {
		t.Fatalf("%s: got %.300s, want %.300s", what, g, w)
	}
}

// past remembers contents by commit.
type past struct {
	commits  []uint64
	contents []string
}

func (p *past) remember(commit uint64, content any) {
	p.commits, p.contents = append(p.commits, commit), append(p.contents, fmt.Sprint(content))
}

// check compares some of what is remembered with what read returns now.
func (p *past) check(t testing.TB, rng *rand.Rand, read func(at log.Consistency) any) {
	t.Helper()
	for range min(20, len(p.commits)) {
		i := rng.IntN(len(p.commits))
		wantEqual(t, fmt.Sprintf("as of commit %d", p.commits[i]), read(log.AsOf(p.commits[i])), p.contents[i])
	}
}

func optional[V any](v V, ok bool) string {
	if !ok {
		return "none"
	}
	return fmt.Sprint(v)
}

func pointer[V any](v *V) string {
	if v == nil {
		return "none"
	}
	return fmt.Sprint(*v)
}

func TestMapModel(t *testing.T) {
	for seed := range uint64(5) {
		rng := rand.New(rand.NewPCG(seed, 1))
		mem := log.NewMemory(testGroup)
		m, err := prices.Open(t.Context(), mem)
		must(t, err)
		model := map[string]int{}
		var history past
		content := func(at log.Consistency) any {
			view, err := m.View(t.Context(), at)
			must(t, err)
			var list []string
			for _, e := range listOf(t, view.All()) {
				list = append(list, fmt.Sprint(e.Key, "=", e.Value))
			}
			n, err := view.Len()
			must(t, err)
			wantEqual(t, "length", n, len(list))
			return list
		}
		modelContent := func() any {
			var list []string
			for _, k := range slices.Sorted(maps.Keys(model)) {
				list = append(list, fmt.Sprint(k, "=", model[k]))
			}
			return list
		}
		for i := range 600 {
			k := strings.Repeat(string(rune('a'+rng.IntN(3))), rng.IntN(4)) + string(rune(rng.IntN(3)))
			old, existed := model[k]
			switch op := rng.IntN(20); {
			case op < 8:
				_, got, ok, err := m.Insert(t.Context(), k, i)
				must(t, err)
				wantEqual(t, "insert", optional(got, ok), optional(old, existed))
				model[k] = i
			case op < 12:
				_, got, ok, err := m.Remove(t.Context(), k)
				must(t, err)
				wantEqual(t, "remove", optional(got, ok), optional(old, existed))
				delete(model, k)
			case op < 14:
				more := map[string]int{k: i, "x": i, "y": i}
				before := len(model)
				maps.Copy(model, more)
				_, n, err := m.Extend(t.Context(), maps.All(more))
				must(t, err)
				wantEqual(t, "extend", n, len(model)-before)
			case op < 18:
				var before, after *int
				if guess := old; existed && rng.IntN(3) > 0 || rng.IntN(3) == 0 {
					before = &guess
				}
				if rng.IntN(3) > 0 {
					after = &i
				}
				_, swapped, current, err := m.CompareExchange(t.Context(), k, before, after)
				must(t, err)
				want := existed == (before != nil) && (!existed || *before == old)
				wantEqual(t, "swapped", swapped, want)
				switch {
				case !want:
					wantEqual(t, "current", pointer(current), optional(old, existed))
				case after != nil:
					model[k] = i
				default:
					delete(model, k)
				}
			case op < 19:
				_, n, err := m.Clear(t.Context())
				must(t, err)
				wantEqual(t, "clear", n, len(model))
				clear(model)
			default:
				view, err := m.View(t.Context(), log.Stale())
				must(t, err)
				var want []string
				for _, key := range slices.Sorted(maps.Keys(model)) {
					if strings.HasPrefix(key, "a") {
						want = append(want, key)
					}
				}
				var got []string
				for _, e := range listOf(t, view.Prefix("a")) {
					got = append(got, e.Key)
				}
				wantEqual(t, "prefix", got, want)
				from, to := "aa", "c"
				got, want = nil, nil
				for _, e := range listOf(t, view.Range(log.Span[string]{From: &from, To: &to, Reverse: true})) {
					got = append(got, e.Key)
				}
				for _, key := range slices.Backward(slices.Sorted(maps.Keys(model))) {
					if key >= from && key < to {
						want = append(want, key)
					}
				}
				wantEqual(t, "range", got, want)
			}
			if i%7 == 0 {
				wantEqual(t, "content", content(log.Linearizable()), modelContent())
				history.remember(mem.Head().Number, modelContent())
			}
		}
		history.check(t, rng, content)
	}
}

var members = log.SetDef[int]{Name: "members"}

func TestSetModel(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	mem := log.NewMemory(testGroup)
	s, err := members.Open(t.Context(), mem)
	must(t, err)
	big, err := log.SetDef[int]{Name: "big"}.Open(t.Context(), mem)
	must(t, err)
	model := map[int]bool{}
	var history past
	content := func(at log.Consistency) any {
		view, err := s.View(t.Context(), at)
		must(t, err)
		return listOf(t, view.All())
	}
	for i := range 1000 {
		k := rng.IntN(40) - 20
		switch op := rng.IntN(20); {
		case op < 9:
			_, added, err := s.Insert(t.Context(), k)
			must(t, err)
			wantEqual(t, "insert", added, !model[k])
			model[k] = true
		case op < 16:
			_, removed, err := s.Remove(t.Context(), k)
			must(t, err)
			wantEqual(t, "remove", removed, model[k])
			delete(model, k)
		case op < 18:
			list := []int{k, k, k + 1}
			before := len(model)
			for _, k := range list {
				model[k] = true
			}
			_, n, err := s.Extend(t.Context(), slices.Values(list))
			must(t, err)
			wantEqual(t, "extend", n, len(model)-before)
		case op < 19 && i%5 == 0:
			_, n, err := s.Clear(t.Context())
			must(t, err)
			wantEqual(t, "clear", n, len(model))
			clear(model)
		default:
			_, _, err := big.Insert(t.Context(), k)
			must(t, err)
		}
		if i%20 != 0 {
			continue
		}
		sorted := slices.Sorted(maps.Keys(model))
		if sorted == nil {
			sorted = []int{}
		}
		wantEqual(t, "content", content(log.Linearizable()), sorted)
		history.remember(mem.Head().Number, sorted)
		a, err := s.View(t.Context(), log.Stale())
		must(t, err)
		b, err := big.View(t.Context(), log.Stale())
		must(t, err)
		all := listOf(t, b.All())
		subset, err := a.SubsetOf(b)
		must(t, err)
		wantEqual(t, "subset", subset, !slices.ContainsFunc(sorted, func(k int) bool { return !slices.Contains(all, k) }))
	}
	history.check(t, rng, content)
}

func TestCellAndOnce(t *testing.T) {
	mem := log.NewMemory(testGroup)
	c, err := log.CellDef[string]{Name: "cell"}.Open(t.Context(), mem)
	must(t, err)
	read := func() string {
		content, err := c.Read(t.Context())
		must(t, err)
		return optional(content.Value, content.Found)
	}
	wantEqual(t, "an empty cell", read(), "none")
	_, old, existed, err := c.Write(t.Context(), "a")
	must(t, err)
	wantEqual(t, "first write", optional(old, existed), "none")
	at := mem.Head().Number
	a, b := "a", "b"
	_, swapped, current, err := c.CompareExchange(t.Context(), &b, &a)
	must(t, err)
	wantEqual(t, "swap with another value", fmt.Sprint(swapped, pointer(current)), "falsea")
	_, swapped, _, err = c.CompareExchange(t.Context(), &a, &b)
	must(t, err)
	wantEqual(t, "swap", fmt.Sprint(swapped, read()), "trueb")
	_, old, existed, err = c.Clear(t.Context())
	must(t, err)
	wantEqual(t, "clear", optional(old, existed)+read(), "bnone")
	_, swapped, current, err = c.CompareExchange(t.Context(), &a, nil)
	must(t, err)
	wantEqual(t, "swap in an empty cell", fmt.Sprint(swapped, pointer(current)), "falsenone")
	_, swapped, _, err = c.CompareExchange(t.Context(), nil, &a)
	must(t, err)
	wantEqual(t, "swap of absent", fmt.Sprint(swapped, read()), "truea")
	content, err := c.ReadAt(t.Context(), log.AsOf(at))
	must(t, err)
	wantEqual(t, "as of the first write", fmt.Sprint(content), fmt.Sprint(log.Content[string]{Value: "a", Found: true, Version: at, Commit: at}))

	o, err := log.OnceDef[int]{Name: "once"}.Open(t.Context(), mem)
	must(t, err)
	for i := 1; i <= 3; i++ {
		_, first, value, err := o.Write(t.Context(), i)
		must(t, err)
		wantEqual(t, "write", fmt.Sprint(first, value), fmt.Sprint(i == 1, 1))
	}
	once, err := o.Read(t.Context())
	must(t, err)
	wantEqual(t, "read", once.Value, 1)
}

func TestVecModel(t *testing.T) {
	for seed := range uint64(3) {
		rng := rand.New(rand.NewPCG(seed, 3))
		mem := log.NewMemory(testGroup)
		v, err := log.VecDef[int]{Name: "vec"}.Open(t.Context(), mem)
		must(t, err)
		var model []int
		var history past
		content := func(at log.Consistency) any {
			view, err := v.View(t.Context(), at)
			must(t, err)
			n, err := view.Len()
			must(t, err)
			list := listOf(t, view.All())
			wantEqual(t, "length", n, len(list))
			return list
		}
		// grow is how often elements are added: it goes up and down, so that the tree
		// becomes several levels high and low again.
		for i := range 3000 {
			grow := 14
			if i%1000 > 600 {
				grow = 5
			}
			at := uint64(0)
			if len(model) > 0 {
				at = uint64(rng.IntN(len(model)))
			}
			switch op := rng.IntN(20); {
			case op < grow/3:
				_, index, err := v.PushBack(t.Context(), i)
				must(t, err)
				wantEqual(t, "push back", index, len(model))
				model = append(model, i)
			case op < 2*grow/3:
				_, err := v.PushFront(t.Context(), i)
				must(t, err)
				model = slices.Insert(model, 0, i)
			case op < grow:
				_, err := v.Insert(t.Context(), at, i)
				must(t, err)
				model = slices.Insert(model, int(at), i)
				if i%50 == 0 {
					list := []int{i, i + 1, i + 2}
					for range 5 {
						list = append(list, list...)
					}
					_, first, err := v.Extend(t.Context(), slices.Values(list))
					must(t, err)
					wantEqual(t, "extend", first, len(model))
					model = append(model, list...)
				}
			case len(model) == 0:
				_, _, ok, err := v.PopBack(t.Context())
				must(t, err)
				wantEqual(t, "pop of nothing", ok, false)
				if _, _, err := v.Remove(t.Context(), 0); !errors.Is(err, log.ErrIndex) {
					t.Fatalf("remove from nothing: %v", err)
				}
			case op < grow+1:
				_, got, ok, err := v.PopBack(t.Context())
				must(t, err)
				wantEqual(t, "pop back", optional(got, ok), model[len(model)-1])
				model = model[:len(model)-1]
			case op < grow+2:
				_, got, ok, err := v.PopFront(t.Context())
				must(t, err)
				wantEqual(t, "pop front", optional(got, ok), model[0])
				model = slices.Delete(model, 0, 1)
			case op < grow+3:
				_, got, err := v.Set(t.Context(), at, -i)
				must(t, err)
				wantEqual(t, "set", got, model[at])
				model[at] = -i
			case op < grow+4:
				other := uint64(rng.IntN(len(model)))
				_, err := v.Swap(t.Context(), at, other)
				must(t, err)
				model[at], model[other] = model[other], model[at]
			case op == 19 && i%40 == 0:
				_, n, err := v.Truncate(t.Context(), at)
				must(t, err)
				wantEqual(t, "truncate", n, len(model)-int(at))
				model = model[:at]
			default:
				_, got, err := v.Remove(t.Context(), at)
				must(t, err)
				wantEqual(t, "remove", got, model[at])
				model = slices.Delete(model, int(at), int(at)+1)
			}
			if i%100 != 0 {
				continue
			}
			if model == nil {
				model = []int{}
			}
			wantEqual(t, "content", content(log.Linearizable()), model)
			history.remember(mem.Head().Number, model)
			view, err := v.View(t.Context(), log.Stale())
			must(t, err)
			if len(model) > 3 {
				from, to := uint64(len(model)/3), uint64(len(model)/2)
				back := slices.Clone(model[from:to])
				slices.Reverse(back)
				wantEqual(t, "range", listOf(t, view.Range(from, to, true)), back)
				index, ok, err := view.IndexOf(model[at%uint64(len(model))])
				must(t, err)
				wantEqual(t, "index of", fmt.Sprint(index, ok), fmt.Sprint(slices.Index(model, model[at%uint64(len(model))]), true))
			}
		}
		history.check(t, rng, content)
	}
}

// TestVecCost counts the rows that a command on a large vec touches.
func TestVecCost(t *testing.T) {
	mem := log.NewMemory(testGroup)
	v, err := log.VecDef[int]{Name: "vec"}.Open(t.Context(), mem)
	must(t, err)
	const size = 60_000
	for i := 0; i < size; i += 1000 {
		_, _, err := v.Extend(t.Context(), func(yield func(int) bool) {
			for k := range 1000 {
				if !yield(i + k) {
					return
				}
			}
		})
		must(t, err)
	}
	cost := func(what string, limit int, do func() error) {
		t.Helper()
		before := mem.Head().Number
		must(t, do())
		rows := 0
		for c, err := range mem.Changes(t.Context(), v.Key(), before, false) {
			must(t, err)
			rows += len(c.Rows)
		}
		if rows == 0 || rows > limit {
			t.Errorf("%s touches %d rows of a vec of %d elements, want at most %d", what, rows, size, limit)
		}
	}
	// A path of four nodes, some of them split, the item, the count and the root.
	cost("insert in the middle", 12, func() error { _, err := v.Insert(t.Context(), size/2, -1); return err })
	cost("push front", 12, func() error { _, err := v.PushFront(t.Context(), -1); return err })
	cost("remove in the middle", 16, func() error { _, _, err := v.Remove(t.Context(), size/2); return err })
	cost("swap", 4, func() error { _, err := v.Swap(t.Context(), 5, size-5); return err })
	cost("truncate", 4*64, func() error { _, _, err := v.Truncate(t.Context(), 10); return err })
	for range size / 16 {
		cost("set, and what was cut off", 64+8, func() error { _, _, err := v.Set(t.Context(), 3, 1); return err })
	}
	cost("set, when nothing is left to take apart", 4, func() error { _, _, err := v.Set(t.Context(), 3, 2); return err })
	view, err := v.View(t.Context(), log.Stale())
	must(t, err)
	wantEqual(t, "content", listOf(t, view.All())[3], 2)
}

type job struct {
	key      string
	priority int
	value    int
}

func TestQueueModel(t *testing.T) {
	for seed := range uint64(4) {
		rng := rand.New(rand.NewPCG(seed, 5))
		mem := log.NewMemory(testGroup)
		def := log.QueueDef[string, int, int]{Name: "jobs"}
		if seed%2 == 1 {
			def.Capacity = 8
		}
		q, err := def.Open(t.Context(), mem)
		must(t, err)
		var model []job // sorted
		sortModel := func() {
			slices.SortFunc(model, func(a, b job) int {
				return cmp.Or(cmp.Compare(a.priority, b.priority), cmp.Compare(a.key, b.key))
			})
		}
		find := func(k string) int { return slices.IndexFunc(model, func(j job) bool { return j.key == k }) }
		show := func(e *log.QueueEntry[string, int, int]) string {
			if e == nil {
				return "none"
			}
			return fmt.Sprint(job{e.Key, e.Priority, e.Value})
		}
		shown := func(i int) string {
			if i < 0 || i >= len(model) {
				return "none"
			}
			return fmt.Sprint(model[i])
		}
		var history past
		content := func(at log.Consistency) any {
			view, err := q.View(t.Context(), at)
			must(t, err)
			var list []job
			for _, e := range listOf(t, view.All()) {
				list = append(list, job{e.Key, e.Priority, e.Value})
			}
			n, err := view.Len()
			must(t, err)
			wantEqual(t, "length", n, len(list))
			return list
		}
		for i := range 1500 {
			k, p := string(rune('a'+rng.IntN(20))), rng.IntN(10)-5
			at := find(k)
			switch op := rng.IntN(20); {
			case op < 8:
				_, old, evicted, err := q.Insert(t.Context(), k, p, i)
				must(t, err)
				wantEqual(t, "insert", show(old), shown(at))
				if at >= 0 {
					model = slices.Delete(model, at, at+1)
				}
				model = append(model, job{k, p, i})
				sortModel()
				want := "none"
				if def.Capacity > 0 && len(model) > int(def.Capacity) {
					want, model = shown(0), model[1:]
				}
				wantEqual(t, "evicted", show(evicted), want)
			case op < 10:
				_, e, err := q.Remove(t.Context(), k)
				must(t, err)
				wantEqual(t, "remove", show(e), shown(at))
				if at >= 0 {
					model = slices.Delete(model, at, at+1)
				}
			case op < 12:
				_, e, err := q.PopMin(t.Context())
				must(t, err)
				wantEqual(t, "pop min", show(e), shown(0))
				if len(model) > 0 {
					model = model[1:]
				}
			case op < 13:
				_, e, err := q.PopMax(t.Context())
				must(t, err)
				wantEqual(t, "pop max", show(e), shown(len(model)-1))
				if len(model) > 0 {
					model = model[:len(model)-1]
				}
			case op < 15:
				_, old, ok, err := q.UpdatePriority(t.Context(), k, p)
				must(t, err)
				wantEqual(t, "update priority", ok, at >= 0)
				if at >= 0 {
					wantEqual(t, "priority before", old, model[at].priority)
					model[at].priority = p
					sortModel()
				}
			case op < 16:
				_, old, ok, err := q.UpdateValue(t.Context(), k, i)
				must(t, err)
				wantEqual(t, "update value", ok, at >= 0)
				if at >= 0 {
					wantEqual(t, "value before", old, model[at].value)
					model[at].value = i
				}
			case op < 18:
				guess := i
				if at >= 0 && rng.IntN(3) > 0 {
					guess = model[at].value
				}
				_, swapped, current, err := q.CompareExchange(t.Context(), k, guess, &i)
				must(t, err)
				want := at >= 0 && model[at].value == guess
				wantEqual(t, "swapped", swapped, want)
				if want {
					model[at].value = i
				} else if at >= 0 {
					wantEqual(t, "current", pointer(current), model[at].value)
				}
			case op < 19 && i%3 == 0:
				from, to := p, p+2
				_, n, more, err := q.RemoveRange(t.Context(), log.Span[int]{From: &from, To: &to})
				must(t, err)
				before := len(model)
				model = slices.DeleteFunc(model, func(j job) bool { return j.priority >= from && j.priority < to })
				wantEqual(t, "remove range", fmt.Sprint(n, more), fmt.Sprint(before-len(model), false))
			case i%50 == 0:
				_, n, err := q.Clear(t.Context())
				must(t, err)
				wantEqual(t, "clear", n, len(model))
				model = nil
			}
			if i%25 == 0 {
				wantEqual(t, "content", content(log.Linearizable()), model)
				history.remember(mem.Head().Number, model)
				view, err := q.View(t.Context(), log.Stale())
				must(t, err)
				e, ok, err := view.Max()
				must(t, err)
				if ok {
					wantEqual(t, "max", show(&e), shown(len(model)-1))
				}
			}
		}
		history.check(t, rng, content)
	}
}

// TestQueueInOneCommit pops, pushes and pops in one transaction: what the machine
// remembers of the ends of a Tx must not hide an entry.
func TestQueueInOneCommit(t *testing.T) {
	mem := log.NewMemory(testGroup)
	def := log.QueueDef[string, int, int]{Name: "jobs"}
	q, err := def.Open(t.Context(), mem)
	must(t, err)
	for i, k := range []string{"a", "b", "c", "d"} {
		_, _, _, err := q.Insert(t.Context(), k, i, i)
		must(t, err)
	}
	txn := log.NewTxn(mem)
	in := def.In(txn)
	var order []*log.Pending[*log.QueueEntry[string, int, int]]
	pop := func(p *log.Pending[*log.QueueEntry[string, int, int]]) { order = append(order, p) }
	pop(in.PopMin()) // a
	pop(in.PopMin()) // b
	in.Insert("e", -1, 0)
	pop(in.PopMin()) // e
	pop(in.PopMax()) // d
	in.Insert("f", 9, 0)
	pop(in.PopMax()) // f
	pop(in.PopMax()) // c
	pop(in.PopMin()) // nothing
	_, err = txn.Commit(t.Context())
	must(t, err)
	got := ""
	for _, p := range order {
		e, done := p.Value()
		if !done {
			t.Fatal("a pop without a result")
		}
		if e != nil {
			got += e.Key
		}
	}
	wantEqual(t, "the order of pops", got, "abedfc")
}

// TestCollectionLimits: the largest allowed keys and values are taken, one byte
// more is refused by name and changes nothing.
func TestCollectionLimits(t *testing.T) {
	mem := log.NewMemory(testGroup)
	m, err := log.MapDef[[]byte, []byte]{Name: "m", Values: log.Raw()}.Open(t.Context(), mem)
	must(t, err)
	s, err := log.SetDef[[]byte]{Name: "s"}.Open(t.Context(), mem)
	must(t, err)
	c, err := log.CellDef[[]byte]{Name: "c", Value: log.Raw()}.Open(t.Context(), mem)
	must(t, err)
	o, err := log.OnceDef[[]byte]{Name: "o", Value: log.Raw()}.Open(t.Context(), mem)
	must(t, err)
	v, err := log.VecDef[[]byte]{Name: "v", Values: log.Raw()}.Open(t.Context(), mem)
	must(t, err)
	q, err := log.QueueDef[[]byte, []byte, []byte]{Name: "q", Values: log.Raw()}.Open(t.Context(), mem)
	must(t, err)
	for _, test := range []struct {
		what  string
		limit int
		do    func(b []byte) error
	}{
		{"map key", log.MaxKey, func(b []byte) error { _, _, _, err := m.Insert(t.Context(), b, nil); return err }},
		{"map value", log.MaxValue, func(b []byte) error { _, _, _, err := m.Insert(t.Context(), nil, b); return err }},
		{"map swap", log.MaxValue, func(b []byte) error {
			_, _, _, err := m.CompareExchange(t.Context(), []byte("k"), &b, &b)
			return err
		}},
		{"set member", log.MaxKey, func(b []byte) error { _, _, err := s.Insert(t.Context(), b); return err }},
		{"cell", log.MaxValue, func(b []byte) error { _, _, _, err := c.Write(t.Context(), b); return err }},
		{"once", log.MaxValue, func(b []byte) error { _, _, _, err := o.Write(t.Context(), b); return err }},
		{"vec", log.MaxValue, func(b []byte) error { _, _, err := v.PushBack(t.Context(), b); return err }},
		{"queue key", log.MaxKey, func(b []byte) error { _, _, _, err := q.Insert(t.Context(), b, nil, nil); return err }},
		{"queue priority", log.MaxPriority, func(b []byte) error { _, _, _, err := q.Insert(t.Context(), nil, b, nil); return err }},
		{"queue value", log.MaxValue, func(b []byte) error { _, _, _, err := q.Insert(t.Context(), nil, nil, b); return err }},
	} {
		b := make([]byte, test.limit+1)
		before := mem.Head()
		if err := test.do(b); !errors.Is(err, log.ErrOversize) || !strings.Contains(err.Error(), fmt.Sprint(test.limit)) {
			t.Errorf("%s of %d bytes: %v", test.what, len(b), err)
		}
		if mem.Head() != before {
			t.Errorf("%s: what was refused left a commit", test.what)
		}
		if err := test.do(b[1:]); err != nil {
			t.Errorf("%s of %d bytes: %v", test.what, test.limit, err)
		}
	}
	if _, err := (log.MapDef[tick, int]{Name: "x", Keys: log.CBORKey[tick]()}).Reader(mem); !errors.Is(err, log.ErrCodec) {
		t.Errorf("a map whose keys have no order: %v", err)
	}
	if _, err := (log.MapDef[tick, int]{Name: "x"}).Reader(mem); !errors.Is(err, log.ErrCodec) {
		t.Errorf("a map without a key codec: %v", err)
	}
}

// FuzzMachines feeds the built-in machines with bytes: they neither panic nor
// fail, and a command that has no result has changed nothing.
func FuzzMachines(f *testing.F) {
	f.Add(uint8(0), []byte{1, 1, 'k', 1, 'v'}, []byte{3, 1, 'k'})
	f.Add(uint8(3), []byte{1, 0, 1, 'v'}, []byte{6, 0})
	f.Add(uint8(4), []byte{1, 2, 1, 'k', 1, 'p', 1, 'v'}, []byte{4})
	founders := []identity.PeerID{{1}, {2}}
	f.Add(uint8(5), log.FoundCommand(founders), log.EvictCommand(2, log.Evicted))
	f.Add(uint8(5), log.FoundCommand(founders), log.PolicyCommand(log.MembershipPolicy{Readers: 1, Open: true}))
	f.Add(uint8(4), []byte{2, 1, 2, 1, 'k', 1, 'p', 1, 'v', 1, 'l', 1, 'p', 0}, []byte{9, 0, 0})
	f.Fuzz(func(t *testing.T, kind uint8, a, b []byte) {
		mem := log.NewMemory(testGroup)
		var key identity.ID
		var err error
		switch kind % 7 {
		case 0:
			key = prices.Key()
			_, err = prices.Open(t.Context(), mem)
		case 1:
			key = members.Key()
			_, err = members.Open(t.Context(), mem)
		case 2:
			d := log.CellDef[int]{Name: "c"}
			key = d.Key()
			_, err = d.Open(t.Context(), mem)
		case 3:
			d := log.VecDef[int]{Name: "v"}
			key = d.Key()
			_, err = d.Open(t.Context(), mem)
		case 4:
			d := log.QueueDef[string, int, int]{Name: "q"}
			key = d.Key()
			_, err = d.Open(t.Context(), mem)
		case 5:
			key = log.MembersKey()
			err = log.Register(t.Context(), mem, log.MembersEntry())
		default:
			d := log.OnceDef[int]{Name: "o"}
			key = d.Key()
			_, err = d.Open(t.Context(), mem)
		}
		must(t, err)
		for _, command := range [][]byte{a, b, a} {
			before := mem.Head().Number
			results, err := mem.AppendAsync(t.Context(), key, command).Results()
			if err != nil || len(results) != 1 {
				t.Fatalf("command %x: %v, %v", command, results, err)
			}
			for c, err := range mem.Changes(t.Context(), key, before, false) {
				must(t, err)
				if results[0] == nil && (c.Cleared || len(c.Rows) > 0) {
					t.Fatalf("command %x was not understood and changed %v", command, c)
				}
			}
		}
	})
}
