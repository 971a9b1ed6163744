package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

// newMarket returns a market on the in-memory model of a group.
func newMarket(t *testing.T) (*log.Memory, *Market) {
	t.Helper()
	s := log.NewMemory(identity.NewID("orderbook"), bookMachine{})
	m, err := Open(t.Context(), s, "test")
	if err != nil {
		t.Fatal(err)
	}
	return s, m
}

// content returns all rows of the book's view, with the commits that wrote them.
func content(t *testing.T, m *Market) string {
	t.Helper()
	v, err := m.store.View(t.Context(), m.book, log.Linearizable())
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	for row, err := range v.Scan(log.Range{}) {
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%x=%x@%d\n", row.Key, row.Value, row.Commit)
	}
	return b.String()
}

func equal(t *testing.T, what string, got, want any) {
	t.Helper()
	if g, w := fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", want); g != w {
		t.Fatalf("%s:\ngot  %s\nwant %s", what, g, w)
	}
}

func TestMatching(t *testing.T) {
	buy := func(quantity, price uint64) Order { return Order{Side: Buy, Price: price, Quantity: quantity} }
	sell := func(quantity, price uint64) Order { return Order{Side: Sell, Price: price, Quantity: quantity} }
	taken := func(quantity uint64, fills ...Fill) Result { return Result{Taken, quantity, fills} }
	const top = 1<<64 - 1
	for _, test := range []struct {
		name   string
		before []Order // with the seqs from 1
		order  Order
		seq    uint64 // 0: the next one
		want   Result
		book   Book
	}{
		{
			name:  "rests on an empty book",
			order: buy(5, 100),
			want:  taken(5),
			book:  Book{Buys: []Resting{{1, 100, 5}}},
		},
		{
			name:   "does not cross",
			before: []Order{sell(5, 101)},
			order:  buy(5, 100),
			want:   taken(5),
			book:   Book{Buys: []Resting{{2, 100, 5}}, Sells: []Resting{{1, 101, 5}}},
		},
		{
			name:   "whole on both sides",
			before: []Order{sell(5, 100)},
			order:  buy(5, 100),
			want:   taken(0, Fill{1, 2, 1, 100, 5}),
		},
		{
			name:   "part of the maker",
			before: []Order{sell(5, 100)},
			order:  buy(2, 100),
			want:   taken(0, Fill{1, 2, 1, 100, 2}),
			book:   Book{Sells: []Resting{{1, 100, 3}}},
		},
		{
			name:   "part of the taker, at the price of the maker",
			before: []Order{buy(5, 100)},
			order:  sell(7, 90),
			want:   taken(2, Fill{1, 2, 1, 100, 5}),
			book:   Book{Sells: []Resting{{2, 90, 2}}},
		},
		{
			name:   "a buy sweeps levels up to its limit",
			before: []Order{sell(1, 103), sell(2, 101), sell(3, 102), sell(4, 100)},
			order:  buy(20, 102),
			want:   taken(11, Fill{1, 5, 4, 100, 4}, Fill{2, 5, 2, 101, 2}, Fill{3, 5, 3, 102, 3}),
			book:   Book{Buys: []Resting{{5, 102, 11}}, Sells: []Resting{{1, 103, 1}}},
		},
		{
			name:   "a sell sweeps levels down to its limit",
			before: []Order{buy(1, 98), buy(2, 100), buy(3, 99)},
			order:  sell(4, 99),
			want:   taken(0, Fill{1, 4, 2, 100, 2}, Fill{2, 4, 3, 99, 2}),
			book:   Book{Buys: []Resting{{3, 99, 1}, {1, 98, 1}}},
		},
		{
			name:   "the older first at one price, the better price before the older",
			before: []Order{sell(5, 101), sell(5, 101), sell(5, 100)},
			order:  buy(12, 101),
			want:   taken(0, Fill{1, 4, 3, 100, 5}, Fill{2, 4, 1, 101, 5}, Fill{3, 4, 2, 101, 2}),
			book:   Book{Sells: []Resting{{2, 101, 3}}},
		},
		{
			name:   "a maker filled in part keeps its place",
			before: []Order{buy(5, 100), buy(5, 100), sell(2, 100)},
			order:  sell(4, 100),
			want:   taken(0, Fill{2, 4, 1, 100, 3}, Fill{3, 4, 2, 100, 1}),
			book:   Book{Buys: []Resting{{2, 100, 4}}},
		},
		{
			name:   "the ends of the range of prices",
			before: []Order{buy(1, 1), buy(1, top-1), sell(top, top)},
			order:  buy(top, top),
			want:   taken(0, Fill{1, 4, 3, top, top}),
			book:   Book{Buys: []Resting{{2, top - 1, 1}, {1, 1, 1}}},
		},
		{
			name:   "cancel",
			before: []Order{buy(5, 100), buy(6, 100)},
			order:  Order{Cancel: 1},
			want:   taken(5),
			book:   Book{Buys: []Resting{{2, 100, 6}}},
		},
		{
			name:   "cancel what is left of an order",
			before: []Order{sell(5, 100), buy(2, 100)},
			order:  Order{Cancel: 1},
			want:   taken(3),
		},
		{
			name:   "cancel of an unknown order",
			before: []Order{sell(5, 100)},
			order:  Order{Cancel: 7},
			want:   Result{Status: Refused},
			book:   Book{Sells: []Resting{{1, 100, 5}}},
		},
		{
			name:   "cancel of a filled order",
			before: []Order{sell(5, 100), buy(5, 100)},
			order:  Order{Cancel: 1},
			want:   Result{Status: Refused},
		},
		{
			name:   "cancel twice",
			before: []Order{sell(5, 100), {Cancel: 1}},
			order:  Order{Cancel: 1},
			want:   Result{Status: Refused},
		},
		{
			name:   "the last seq again",
			before: []Order{sell(5, 100), buy(2, 100)},
			order:  buy(2, 100),
			seq:    2,
			want:   Result{Status: Repeated},
			book:   Book{Sells: []Resting{{1, 100, 3}}},
		},
		{
			name:   "an earlier seq again",
			before: []Order{sell(5, 100), buy(2, 100)},
			order:  sell(5, 100),
			seq:    1,
			want:   Result{Status: Repeated},
			book:   Book{Sells: []Resting{{1, 100, 3}}},
		},
		{
			name:   "a cancel with an earlier seq",
			before: []Order{sell(5, 100), sell(2, 101)},
			order:  Order{Cancel: 1},
			seq:    2,
			want:   Result{Status: Repeated},
			book:   Book{Sells: []Resting{{1, 100, 5}, {2, 101, 2}}},
		},
		{
			name:   "no quantity",
			before: []Order{sell(5, 100)},
			order:  buy(0, 100),
			want:   Result{Status: Refused},
			book:   Book{Sells: []Resting{{1, 100, 5}}},
		},
		{
			name:   "no price",
			before: []Order{buy(5, 100)},
			order:  sell(5, 0),
			want:   Result{Status: Refused},
			book:   Book{Buys: []Resting{{1, 100, 5}}},
		},
		{
			name:   "no side",
			before: []Order{buy(5, 100)},
			order:  Order{Side: 3, Price: 100, Quantity: 5},
			want:   Result{Status: Refused},
			book:   Book{Buys: []Resting{{1, 100, 5}}},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, m := newMarket(t)
			for i, o := range test.before {
				if r, err := m.submit(t.Context(), o.command(uint64(i)+1)); err != nil || r.Status != Taken {
					t.Fatalf("order %d: %+v, %v", i+1, r, err)
				}
			}
			seq := cmp.Or(test.seq, uint64(len(test.before))+1)
			rows := content(t, m)
			got, err := m.submit(t.Context(), test.order.command(seq))
			if err != nil {
				t.Fatal(err)
			}
			equal(t, "result", got, test.want)
			book, _, err := m.Book(t.Context(), log.Linearizable())
			if err != nil {
				t.Fatal(err)
			}
			equal(t, "book", book, test.book)
			if same := content(t, m) == rows; same != (test.want.Status != Taken) {
				t.Errorf("%v, and the rows are the same: %v", test.want.Status, same)
			}
		})
	}
}

// What is no command changes nothing and has no result.
func TestMalformed(t *testing.T) {
	_, m := newMarket(t)
	place := Order{Side: Buy, Price: 100, Quantity: 5}.command(1)
	if _, err := m.submit(t.Context(), place); err != nil {
		t.Fatal(err)
	}
	rows := content(t, m)
	for _, whole := range [][]byte{
		Order{Side: Sell, Price: 100, Quantity: 5}.command(2),
		Order{Cancel: 1}.command(2),
		numbers([]byte{publishedCommand}, 1),
		numbers([]byte{99}, 1, 2),
	} {
		bad := [][]byte{append(slices.Clone(whole), 0), append([]byte{0}, whole[1:]...)}
		for n := range whole {
			bad = append(bad, whole[:n])
		}
		for _, command := range bad {
			if r, err := m.submit(t.Context(), command); !errors.Is(err, log.ErrCommand) {
				t.Fatalf("command %x: %+v, %v", command, r, err)
			}
		}
	}
	equal(t, "rows", content(t, m), rows)
}

// model matches as one would on paper: it looks at every order for the best one.
type model struct {
	resting map[Side][]Resting
	last    uint64
	fills   uint64
}

// better reports whether a is matched before b.
func better(side Side, a, b Resting) bool {
	if a.Price != b.Price {
		return (a.Price > b.Price) == (side == Buy)
	}
	return a.Seq < b.Seq
}

func (m *model) apply(seq uint64, o Order) Result {
	if seq <= m.last {
		return Result{Status: Repeated}
	}
	if o.Cancel != 0 {
		for side, list := range m.resting {
			for i, r := range list {
				if r.Seq == o.Cancel {
					m.last = seq
					m.resting[side] = slices.Delete(list, i, i+1)
					return Result{Status: Taken, Quantity: r.Quantity}
				}
			}
		}
		return Result{Status: Refused}
	}
	if o.Price == 0 || o.Quantity == 0 {
		return Result{Status: Refused}
	}
	m.last = seq
	r := Result{Status: Taken}
	other := Sell
	if o.Side == Sell {
		other = Buy
	}
	for o.Quantity > 0 {
		best := -1
		for i, x := range m.resting[other] {
			trades := x.Price <= o.Price
			if o.Side == Sell {
				trades = x.Price >= o.Price
			}
			if trades && (best < 0 || better(other, x, m.resting[other][best])) {
				best = i
			}
		}
		if best < 0 {
			m.resting[o.Side] = append(m.resting[o.Side], Resting{seq, o.Price, o.Quantity})
			break
		}
		maker := &m.resting[other][best]
		n := min(maker.Quantity, o.Quantity)
		m.fills++
		r.Fills = append(r.Fills, Fill{m.fills, seq, maker.Seq, maker.Price, n})
		o.Quantity -= n
		if maker.Quantity -= n; maker.Quantity == 0 {
			m.resting[other] = slices.Delete(m.resting[other], best, best+1)
		}
	}
	r.Quantity = o.Quantity
	return r
}

func (m *model) book() Book {
	sorted := func(side Side) []Resting {
		list := slices.Clone(m.resting[side])
		slices.SortFunc(list, func(a, b Resting) int {
			if better(side, a, b) {
				return -1
			}
			return 1
		})
		return list
	}
	return Book{Buys: sorted(Buy), Sells: sorted(Sell)}
}

// randomOrder returns an order around a price of 100. Now and then it is one to be
// refused.
func randomOrder(rng *rand.Rand, seq uint64) Order {
	switch n := rng.IntN(100); {
	case n < 25: // mostly of what has gone, or is yet to come
		return Order{Cancel: max(1, seq+2-min(seq, rng.Uint64N(40)))}
	case n < 28:
		return Order{Side: Buy, Price: 100}
	case n < 30:
		return Order{Side: Sell, Quantity: 1}
	}
	o := Order{Side: Side(1 + rng.IntN(2)), Price: 92 + rng.Uint64N(12), Quantity: 1 + rng.Uint64N(20)}
	if o.Side == Sell {
		o.Price += 2
	}
	return o
}

func TestMatchingAgainstModel(t *testing.T) {
	const orders = 2000
	store, m := newMarket(t)
	rng := rand.New(rand.NewPCG(1, 2))
	want := &model{resting: map[Side][]Resting{}}
	var placed []Order
	past := map[uint64]Book{}
	seen := map[Status]int{}
	for seq := uint64(1); seq <= orders; seq++ {
		o := randomOrder(rng, seq)
		placed = append(placed, o)
		again := []uint64{seq}
		if rng.IntN(10) == 0 { // a loop that does not know how far it came
			again = append(again, 1+rng.Uint64N(seq), seq)
		}
		for _, seq := range again {
			o := placed[seq-1]
			got, err := m.submit(t.Context(), o.command(seq))
			if err != nil {
				t.Fatal(err)
			}
			equal(t, fmt.Sprintf("order %d, %+v", seq, o), got, want.apply(seq, o))
			seen[got.Status]++
		}
		if seq%20 == 0 {
			past[store.Head().Number] = want.book()
		}
	}
	if seen[Taken] < orders/2 || seen[Repeated] == 0 || seen[Refused] == 0 || want.fills < orders/4 {
		t.Errorf("the orders are too much alike: %v, %d fills", seen, want.fills)
	}
	for commit, want := range past {
		got, _, err := m.Book(t.Context(), log.AsOf(commit))
		if err != nil {
			t.Fatal(err)
		}
		equal(t, fmt.Sprintf("the book as of commit %d", commit), got, want)
	}
}
