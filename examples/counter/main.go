// Command counter brings a machine of its own to mosaik: a counter that many
// programs may add to and that never goes below zero, whatever they do at the same
// time. Its log says who added what, and its value can be read as of any commit.
//
//	go run ./examples/counter DIR 5      adds 5
//	go run ./examples/counter DIR -- -3  takes 3 away, if there are as many
package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/mosaik-engine/mosaik"
	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

// counterMachine folds additions into a sum. A command is a signed number, 8
// bytes; its result is 1 and the sum, or 0 and the sum if it was refused.
type counterMachine struct{}

var sumRow = []byte("sum")

// Signature implements log.Machine. A machine that gives other results gets
// another one.
func (counterMachine) Signature() string { return "example.counter.v1" }

// Apply implements log.Machine. It knows nothing but the view and the command, so
// every replica comes to the same.
func (counterMachine) Apply(tx *log.Tx, c log.Command) ([]byte, error) {
	if len(c.Payload) != 8 {
		return nil, nil
	}
	sum, err := sumOf(tx)
	if err != nil {
		return nil, err
	}
	add := int64(binary.BigEndian.Uint64(c.Payload))
	next := sum + add
	if next < 0 || add > 0 && next < sum {
		return binary.BigEndian.AppendUint64([]byte{0}, uint64(sum)), nil
	}
	return binary.BigEndian.AppendUint64([]byte{1}, uint64(next)), tx.Set(sumRow, binary.BigEndian.AppendUint64(nil, uint64(next)))
}

// sumOf reads the sum from a view, or from a Tx, which is one.
func sumOf(v log.View) (int64, error) {
	row, ok, err := v.Get(sumRow)
	if err != nil || !ok {
		return 0, err
	}
	return int64(binary.BigEndian.Uint64(row.Value)), nil
}

// Counter is a counter on a store.
type Counter struct {
	store log.Store
	key   identity.ID
}

// ErrRefused says that the counter would have left its range.
var ErrRefused = errors.New("refused")

// Open registers the counter, once, and returns it.
func Open(ctx context.Context, s log.Store, name string) (*Counter, error) {
	err := log.Register(ctx, s, log.DirectoryEntry{Name: name, Kind: counterMachine{}.Signature(), Codec: "int64"})
	return &Counter{store: s, key: identity.NewID(name)}, err
}

// Add adds n and returns the sum and the evidence for it.
func (c *Counter) Add(ctx context.Context, n int64) (int64, log.Pointer, error) {
	f := c.store.AppendAsync(ctx, c.key, binary.BigEndian.AppendUint64(nil, uint64(n)))
	p, err := f.Wait(ctx)
	if err != nil {
		return 0, p, err
	}
	results, err := f.Results()
	if err != nil {
		return 0, p, err
	}
	sum := int64(binary.BigEndian.Uint64(results[0][1:]))
	if results[0][0] == 0 {
		return sum, p, fmt.Errorf("%w: adding %d to %d", ErrRefused, n, sum)
	}
	return sum, p, nil
}

// Sum returns the sum as c says.
func (c *Counter) Sum(ctx context.Context, at log.Consistency) (int64, error) {
	v, err := c.store.View(ctx, c.key, at)
	if err != nil {
		return 0, err
	}
	return sumOf(v)
}

func main() {
	if err := run(context.Background(), os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "counter:", err)
		os.Exit(1)
	}
}

// run adds the number in args to the counter in the directory in args.
func run(ctx context.Context, args []string, out io.Writer) (err error) {
	if len(args) == 3 && args[1] == "--" {
		args = []string{args[0], args[2]}
	}
	if len(args) != 2 {
		return errors.New("usage: counter DIR NUMBER")
	}
	n, err := strconv.ParseInt(args[1], 10, 64)
	if err != nil {
		return err
	}
	node, err := mosaik.Open(args[0], &mosaik.Options{Machines: []log.Machine{counterMachine{}}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, node.Close()) }()
	counter, err := Open(ctx, node, "visits")
	if err != nil {
		return err
	}
	sum, pointer, err := counter.Add(ctx, n)
	if err != nil {
		return err
	}
	fmt.Fprintln(out, sum, pointer)
	return nil
}
