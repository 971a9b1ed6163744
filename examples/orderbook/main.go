// Command orderbook matches limit orders by price and time, with a machine of
// its own. Traders append orders to a stream; a loop follows it and submits each
// to the book, whose view has the resting orders as rows; what trades is published
// to a second stream. Wherever the loop is stopped, it goes on without losing an
// order or a fill and without taking one twice.
//
//	go run ./examples/orderbook
//
// It works in a temporary directory and prints the book as it is, the fills, and
// the book as it was.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"slices"
	"time"

	"github.com/mosaik-engine/mosaik"
	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

// maxPublished is how many fills are published at once: far below what fits
// into one append, so that no order is too large to be published.
const maxPublished = 1024

// Market is the book of one market with its two streams, on a store.
type Market struct {
	store  log.Store
	book   identity.ID
	orders *log.Stream[Order]
	fills  *log.Stream[Fill]
}

// Open registers the logs of a market, once, and returns it.
func Open(ctx context.Context, s log.Store, name string) (*Market, error) {
	entry := log.DirectoryEntry{Name: "orderbook.book/" + name, Kind: bookMachine{}.Signature(), Codec: "orderbook.command"}
	if err := log.Register(ctx, s, entry); err != nil {
		return nil, err
	}
	orders, err := log.StreamDef[Order]{Name: "orderbook.orders/" + name}.Open(ctx, s)
	if err != nil {
		return nil, err
	}
	fills, err := log.StreamDef[Fill]{Name: "orderbook.fills/" + name}.Open(ctx, s)
	if err != nil {
		return nil, err
	}
	return &Market{store: s, book: entry.Key(), orders: orders, fills: fills}, nil
}

// Match follows the orders and submits them to the book, until it has come to
// the one with the seq until; with 0, until ctx ends. After an error, or in
// another process after a crash, Match again goes on where it stopped. One loop
// at a time is enough; a second one costs repetition only.
func (m *Market) Match(ctx context.Context, until uint64) error {
	v, err := m.store.View(ctx, m.book, log.Linearizable())
	if err != nil {
		return err
	}
	s, err := readState(v)
	if err != nil {
		return err
	}
	// An earlier loop may have ended between a trade and its publication.
	if err := m.publish(ctx); err != nil || until != 0 && s.last >= until {
		return err
	}
	for r, err := range m.orders.Tail(ctx, log.Seq(s.last+1)) {
		if err != nil {
			return err
		}
		result, err := m.submit(ctx, r.Value.command(r.Seq))
		if err != nil {
			return fmt.Errorf("order %d: %w", r.Seq, err)
		}
		// A repeated order has its fills from a submission whose answer got lost.
		if len(result.Fills) > 0 || result.Status == Repeated {
			if err := m.publish(ctx); err != nil {
				return err
			}
		}
		if r.Seq == until {
			return nil
		}
	}
	return nil
}

// submit has a command applied to the book.
func (m *Market) submit(ctx context.Context, command []byte) (Result, error) {
	f := m.store.AppendAsync(ctx, m.book, command)
	if _, err := f.Wait(ctx); err != nil {
		return Result{}, err
	}
	results, err := f.Results()
	if err != nil {
		return Result{}, err
	}
	if len(results) != 1 {
		return Result{}, log.ErrCommand
	}
	return decodeResult(results[0])
}

// publish appends to the stream of fills those that the book keeps for it, and
// then has the book forget them. If it is stopped in between, the next one finds
// in the stream how far it came.
func (m *Market) publish(ctx context.Context) error {
	for {
		fills, err := m.unpublished(ctx)
		if err != nil || len(fills) == 0 {
			return err
		}
		last, err := m.lastPublished(ctx, fills[0].Number)
		if err != nil {
			return err
		}
		fills = slices.DeleteFunc(fills, func(f Fill) bool { return f.Number <= last })
		if len(fills) > 0 {
			if _, err := m.fills.AppendBatch(ctx, fills...); err != nil {
				return err
			}
			last = fills[len(fills)-1].Number
		}
		if _, err := m.submit(ctx, numbers([]byte{publishedCommand}, last)); err != nil {
			return fmt.Errorf("fill %d is published: %w", last, err)
		}
	}
}

// unpublished returns the first of the fills that the book still keeps.
func (m *Market) unpublished(ctx context.Context) ([]Fill, error) {
	v, err := m.store.View(ctx, m.book, log.Linearizable())
	if err != nil {
		return nil, err
	}
	return collect(unpublished(v), maxPublished)
}

// lastPublished returns the number of the last fill in the stream, where the
// first that may be missing is given. All before that one are there, so it is not
// in an earlier record than that of its number.
func (m *Market) lastPublished(ctx context.Context, first uint64) (uint64, error) {
	// Scans reflect what this node has. A linearizable view, whatever is in it, has
	// the node catch up first.
	if _, err := m.store.View(ctx, m.fills.Key(), log.Linearizable()); err != nil {
		return 0, err
	}
	last := first - 1
	for r, err := range m.fills.All(ctx, log.Seq(first)) {
		if err != nil {
			return 0, err
		}
		last = max(last, r.Value.Number)
	}
	return last, nil
}

// Fills yields the fills behind the one numbered after, each once, up to the end
// of the stream. An append without an answer may still get into the stream behind
// one that repeats it, and a stream takes what it is given; but fills come in the
// order of their numbers, so a repeated one is known by its number.
func (m *Market) Fills(ctx context.Context, after uint64) iter.Seq2[Fill, error] {
	return func(yield func(Fill, error) bool) {
		for r, err := range m.fills.All(ctx, log.Seq(after+1)) {
			if err != nil {
				yield(Fill{}, err)
				return
			}
			if r.Value.Number <= after {
				continue
			}
			after = r.Value.Number
			if !yield(r.Value, nil) {
				return
			}
		}
	}
}

// Book returns the book as c says, and the commit it reflects.
func (m *Market) Book(ctx context.Context, c log.Consistency) (Book, uint64, error) {
	v, err := m.store.View(ctx, m.book, c)
	if err != nil {
		return Book{}, 0, err
	}
	b, err := readBook(v)
	return b, v.Commit(), err
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := runInTemp(ctx, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "orderbook:", err)
		os.Exit(1)
	}
}

// runInTemp is run in a directory that it removes.
func runInTemp(ctx context.Context, out io.Writer) (err error) {
	dir, err := os.MkdirTemp("", "orderbook")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	return run(ctx, dir, out)
}

// run trades a morning and an afternoon in the store in dir.
func run(ctx context.Context, dir string, out io.Writer) error {
	morning := []Order{
		{Side: Sell, Price: 102, Quantity: 5},
		{Side: Sell, Price: 101, Quantity: 5},
		{Side: Sell, Price: 101, Quantity: 4},
		{Side: Buy, Price: 99, Quantity: 10},
		{Side: Buy, Price: 100, Quantity: 6},
	}
	afternoon := []Order{
		{Side: Buy, Price: 101, Quantity: 7}, // takes order 2 and half of order 3
		{Cancel: 4},
		{Cancel: 4},                          // is not there any more: refused
		{Side: Buy, Price: 103, Quantity: 5}, // sweeps 101 and goes on at 102
		{Side: Sell, Price: 100, Quantity: 8},
		{Side: Buy, Price: 98, Quantity: 3},
	}
	var noon uint64
	err := session(ctx, dir, morning, func(m *Market) (err error) {
		_, noon, err = m.Book(ctx, log.Linearizable())
		return err
	})
	if err != nil {
		return err
	}
	return session(ctx, dir, afternoon, func(m *Market) error {
		now, _, err := m.Book(ctx, log.Linearizable())
		if err != nil {
			return err
		}
		printBook(out, "the book", now)
		fmt.Fprintln(out, "fills")
		for f, err := range m.Fills(ctx, 0) {
			if err != nil {
				return err
			}
			fmt.Fprintf(out, "  %d: %d at %d, order %d from order %d\n", f.Number, f.Quantity, f.Price, f.Taker, f.Maker)
		}
		then, _, err := m.Book(ctx, log.AsOf(noon))
		if err != nil {
			return err
		}
		printBook(out, "the book at noon", then)
		return nil
	})
}

// session opens the store, has the orders matched, and calls then.
func session(ctx context.Context, dir string, orders []Order, then func(*Market) error) (err error) {
	node, err := mosaik.Open(dir, &mosaik.Options{Machines: []log.Machine{bookMachine{}}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, node.Close()) }()
	m, err := Open(ctx, node, "demo")
	if err != nil {
		return err
	}
	first, err := m.orders.AppendBatch(ctx, orders...)
	if err != nil {
		return err
	}
	if err := m.Match(ctx, first.Seq+uint64(len(orders))-1); err != nil {
		return err
	}
	return then(m)
}

// printBook prints a book with the best prices in the middle.
func printBook(out io.Writer, title string, b Book) {
	fmt.Fprintln(out, title)
	for _, o := range slices.Backward(b.Sells) {
		printResting(out, Sell, o)
	}
	for _, o := range b.Buys {
		printResting(out, Buy, o)
	}
}

func printResting(out io.Writer, side Side, o Resting) {
	fmt.Fprintf(out, "  %-4s %d at %d, order %d\n", side, o.Quantity, o.Price, o.Seq)
}
