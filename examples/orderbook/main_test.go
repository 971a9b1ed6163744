package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

func TestRun(t *testing.T) {
	const want = `the book
  sell 2 at 102, order 1
  sell 2 at 100, order 10
  buy  3 at 98, order 11
fills
  1: 5 at 101, order 6 from order 2
  2: 2 at 101, order 6 from order 3
  3: 2 at 101, order 9 from order 3
  4: 3 at 102, order 9 from order 1
  5: 6 at 100, order 10 from order 5
the book at noon
  sell 5 at 102, order 1
  sell 4 at 101, order 3
  sell 5 at 101, order 2
  buy  6 at 100, order 5
  buy  10 at 99, order 4
`
	t.Setenv("TMPDIR", t.TempDir())
	var out bytes.Buffer
	if err := runInTemp(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
	if out.String() != want {
		t.Errorf("printed\n%s\nwant\n%s", out.String(), want)
	}
	if left, err := os.ReadDir(os.Getenv("TMPDIR")); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// appendOrders appends orders to the market's stream and returns the seq of the last.
func appendOrders(t *testing.T, m *Market, orders ...Order) uint64 {
	t.Helper()
	p, err := m.orders.AppendBatch(t.Context(), orders...)
	if err != nil {
		t.Fatal(err)
	}
	return p.Seq + uint64(len(orders)) - 1
}

var errCrash = errors.New("crash")

// crashing is a store that fails at a write and from then on, either before the
// write is done or behind it, when only the answer is lost.
type crashing struct {
	*log.Memory
	left int // writes that still succeed
	lost bool
}

func (c *crashing) Home(identity.ID) log.GroupStore { return c }

func (c *crashing) Append(ctx context.Context, key identity.ID, payloads ...[]byte) (log.Pointer, error) {
	return c.AppendAsync(ctx, key, payloads...).Result()
}

func (c *crashing) AppendAsync(ctx context.Context, key identity.ID, payloads ...[]byte) *log.Future {
	if c.left--; c.left >= 0 {
		return c.Memory.AppendAsync(ctx, key, payloads...)
	}
	if c.left == -1 && c.lost {
		c.Memory.AppendAsync(ctx, key, payloads...)
	}
	f := log.NewFuture()
	f.Complete(log.Pointer{}, errCrash)
	return f
}

// randomOrders returns orders that the property test is made of, too.
func randomOrders(n int) []Order {
	rng := rand.New(rand.NewPCG(3, 4))
	orders := make([]Order, n)
	for i := range orders {
		orders[i] = randomOrder(rng, uint64(i)+1)
	}
	return orders
}

// outcome is what is left of the orders in the end.
type outcome struct {
	book    Book
	fills   []Fill // as readers see them
	records []Fill // as they lie in the stream
	rows    int    // of fills that are not published
}

func outcomeOf(t *testing.T, m *Market) (o outcome) {
	t.Helper()
	var err error
	if o.book, _, err = m.Book(t.Context(), log.Linearizable()); err != nil {
		t.Fatal(err)
	}
	if o.fills, err = collect(m.Fills(t.Context(), 0), 0); err != nil {
		t.Fatal(err)
	}
	for r, err := range m.fills.All(t.Context(), log.Earliest()) {
		if err != nil {
			t.Fatal(err)
		}
		o.records = append(o.records, r.Value)
	}
	waiting, err := m.unpublished(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	o.rows = len(waiting)
	return o
}

// expected returns what the model makes of the orders.
func expected(orders []Order) (o outcome) {
	m := &model{resting: map[Side][]Resting{}}
	for i, order := range orders {
		o.fills = append(o.fills, m.apply(uint64(i)+1, order).Fills...)
	}
	o.book, o.records = m.book(), o.fills
	return o
}

// The loop is stopped at each of its writes in turn, with the write done and
// without. What goes on then must come to the same as without a stop.
func TestMatchAfterCrash(t *testing.T) {
	orders := randomOrders(100)
	want := expected(orders)
	if len(want.fills) < 20 {
		t.Fatalf("only %d fills", len(want.fills))
	}
	for _, lost := range []bool{false, true} {
		crashes := 0
		for writes, done := 0, false; !done; writes++ {
			store, healthy := newMarket(t)
			until := appendOrders(t, healthy, orders...)
			m, err := Open(t.Context(), &crashing{Memory: store, left: writes, lost: lost}, "test")
			if err != nil {
				t.Fatal(err)
			}
			switch err := m.Match(t.Context(), until); {
			case err == nil:
				done = true
			case !errors.Is(err, errCrash):
				t.Fatal(err)
			default:
				crashes++
				if err := healthy.Match(t.Context(), until); err != nil {
					t.Fatal(err)
				}
			}
			equal(t, fmt.Sprintf("stopped at write %d, done %v", writes+1, lost), outcomeOf(t, healthy), want)
		}
		if crashes < len(orders) {
			t.Errorf("stopped only %d times", crashes)
		}
	}
}

// A loop that follows sees what comes later, and a second one doubles nothing for
// those who read.
func TestMatchFollows(t *testing.T) {
	_, m := newMarket(t)
	orders := randomOrders(200)
	const loops = 2
	ended := make(chan error, loops)
	for range loops {
		go func() { ended <- m.Match(t.Context(), uint64(len(orders))) }()
	}
	for i := range orders {
		appendOrders(t, m, orders[i])
	}
	for range loops {
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
	}
	got, want := outcomeOf(t, m), expected(orders)
	equal(t, "book", got.book, want.book)
	equal(t, "fills", got.fills, want.fills)
	equal(t, "fills that wait", got.rows, 0)
}

func TestMatchUntilCanceled(t *testing.T) {
	_, m := newMarket(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := m.Match(ctx, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
}

// More fills than are published at once, of one order.
func TestPublishInParts(t *testing.T) {
	_, m := newMarket(t)
	const makers = 2*maxPublished + 1
	var orders []Order
	for range makers {
		orders = append(orders, Order{Side: Sell, Price: 100, Quantity: 1})
	}
	orders = append(orders, Order{Side: Buy, Price: 100, Quantity: makers})
	if err := m.Match(t.Context(), appendOrders(t, m, orders...)); err != nil {
		t.Fatal(err)
	}
	equal(t, "outcome", outcomeOf(t, m), expected(orders))
}

// An append that was given up may get into the stream late, behind the same fills
// and newer ones.
func TestRepeatedFills(t *testing.T) {
	_, m := newMarket(t)
	orders := []Order{
		{Side: Sell, Price: 100, Quantity: 3},
		{Side: Buy, Price: 100, Quantity: 1},
		{Side: Buy, Price: 100, Quantity: 1},
		{Side: Buy, Price: 100, Quantity: 1},
	}
	if err := m.Match(t.Context(), appendOrders(t, m, orders[:3]...)); err != nil {
		t.Fatal(err)
	}
	late := outcomeOf(t, m).fills
	if _, err := m.fills.AppendBatch(t.Context(), late...); err != nil {
		t.Fatal(err)
	}
	if err := m.Match(t.Context(), appendOrders(t, m, orders[3:]...)); err != nil {
		t.Fatal(err)
	}
	want := expected(orders)
	equal(t, "fills", outcomeOf(t, m).fills, want.fills)
	for after := range want.fills {
		rest, err := collect(m.Fills(t.Context(), uint64(after)), 0)
		if err != nil {
			t.Fatal(err)
		}
		equal(t, fmt.Sprintf("fills after %d", after), rest, want.fills[after:])
	}
}

// late is a store where each command to one log arrives a moment after a copy of
// it, which an earlier loop had given up.
type late struct {
	*log.Memory
	key identity.ID
}

func (l late) Home(identity.ID) log.GroupStore { return l }

func (l late) AppendAsync(ctx context.Context, key identity.ID, payloads ...[]byte) *log.Future {
	if key == l.key {
		l.Memory.AppendAsync(ctx, key, payloads...)
	}
	return l.Memory.AppendAsync(ctx, key, payloads...)
}

// A trade whose answer nobody got is published by the loop that meets it as a
// repetition.
func TestMatchRepeated(t *testing.T) {
	store, m := newMarket(t)
	m, err := Open(t.Context(), late{store, m.book}, "test")
	if err != nil {
		t.Fatal(err)
	}
	orders := randomOrders(100)
	if err := m.Match(t.Context(), appendOrders(t, m, orders...)); err != nil {
		t.Fatal(err)
	}
	equal(t, "outcome", outcomeOf(t, m), expected(orders))
}
