package main

import (
	"context"
	"fmt"
	"io"
	"iter"

	"github.com/spf13/cobra"

	"github.com/mosaik-engine/mosaik/cmd/mosaik-node/internal/api"
)

// newStreamAppendCmd returns the verb that writes records.
func newStreamAppendCmd(g *globals) *cobra.Command {
	to := storeFlags{make: true}
	var (
		ref    api.Ref
		codec  string
		values []string
	)
	cmd := &cobra.Command{
		Use:   "append NAME",
		Short: "Append records to a stream",
		Long: `Appends every line of standard input as one record, or every --value, and prints
the pointer of each as soon as it is durable. Many records are under way at once;
they are appended in their order.

The first append gives a stream its codec: raw, which is bytes, or json, for which
lines are checked to be JSON and written without needless white space. Later ones
have to agree with it.

If a record is refused, what came before it is in the stream and its pointers have
been printed; nothing behind it is read. The exit code is then 3.`,
		Example: `  mosaik-node stream append notes --dir data --value "first entry"
  mosaik-node stream append oracle.price --codec json --node http://127.0.0.1:7070 < prices.ndjson`,
		Args: exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ref.Name = args[0]
			if codec != "" && codec != "raw" && codec != "json" {
				return usage(cmd, fmt.Errorf("--codec %s: want raw or json", codec))
			}
			payloads := func(ctx context.Context) iter.Seq2[[]byte, error] { return linesOf(ctx, g.in, codec == "json") }
			if cmd.Flags().Changed("value") {
				payloads = func(context.Context) iter.Seq2[[]byte, error] { return given(values) }
			}
			return to.with(cmd, g, func(ctx context.Context, s store) error {
				return appendRecords(g, s.Append(ctx, ref, codec, payloads), ref)
			})
		},
	}
	to.addTo(cmd)
	cmd.Flags().StringVar(&ref.Group, "group", "", "group to put the stream in (default: the one its key belongs to)")
	cmd.Flags().StringVar(&codec, "codec", "", "raw or json (default: the stream's own, raw for a new one)")
	cmd.Flags().StringArrayVar(&values, "value", nil, "append this instead of standard input; may be repeated")
	return cmd
}

// appendRecords prints outcomes as they come. Pointers are not buffered: whoever
// reads them may wait for one before it sends the next record.
func appendRecords(g *globals, outcomes iter.Seq[api.Outcome], ref api.Ref) error {
	var first error
	done, failed := 0, 0
	for o := range outcomes {
		switch {
		case o.Err != nil:
			failed++
			if first == nil {
				first = o.Err
			}
			continue
		case g.json:
			if err := printLine(g.out, api.Answer{Seq: o.Pointer.Seq, Commit: o.Pointer.Commit, Pointer: &o.Pointer}); err != nil {
				return err
			}
		default:
			if _, err := fmt.Fprintln(g.out, o.Pointer); err != nil {
				return err
			}
		}
		done++
	}
	switch {
	case first != nil && done > 0:
		return &partialError{fmt.Errorf("appended %d records to %s, then: %w", done, ref, first)}
	case first != nil:
		return fmt.Errorf("nothing was acknowledged of %s: %w", ref, first)
	}
	fmt.Fprintf(g.err, "appended %d records to %s\n", done, ref)
	return nil
}

// given yields the values.
func given(values []string) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for _, v := range values {
			if !yield([]byte(v), nil) {
				return
			}
		}
	}
}

// linesOf yields the lines of in until ctx ends.
func linesOf(ctx context.Context, in io.Reader, json bool) iter.Seq2[[]byte, error] {
	lines := api.Lines
	if json {
		lines = api.JSONLines
	}
	return lines(newInbox(ctx, in))
}

// inbox is a reader that a context can end, over one that it cannot: a read of a
// terminal or a pipe sits there until something comes.
type inbox struct {
	ctx    context.Context
	in     io.Reader
	chunks chan chunk  // read, in order
	spent  chan []byte // buffers to read into
	rest   []byte      // of the chunk in use
	buf    []byte      // of that chunk
}

type chunk struct {
	b   []byte // in a buffer from spent
	err error
}

// newInbox starts reading. The goroutine ends with in; when ctx ends first it may
// stay in a read, which is the end of this process anyway.
func newInbox(ctx context.Context, in io.Reader) *inbox {
	x := &inbox{ctx: ctx, in: in, chunks: make(chan chunk, 2), spent: make(chan []byte, 2)}
	for range cap(x.spent) {
		x.spent <- make([]byte, 64<<10)
	}
	go x.runRead()
	return x
}

// runRead reads ahead.
func (x *inbox) runRead() {
	for {
		select {
		case <-x.ctx.Done():
			return
		case buf := <-x.spent:
			n, err := x.in.Read(buf)
			x.chunks <- chunk{buf[:n], err} // as many chunks fit as there are buffers
			if err != nil {
				return
			}
		}
	}
}

// Read is that of io.Reader.
func (x *inbox) Read(p []byte) (int, error) {
	for len(x.rest) == 0 {
		if x.buf != nil {
			x.spent <- x.buf[:cap(x.buf)]
			x.buf = nil
		}
		select {
		case <-x.ctx.Done():
			return 0, x.ctx.Err()
		case c := <-x.chunks:
			x.rest, x.buf = c.b, c.b
			if len(c.b) == 0 && c.err != nil {
				x.buf = nil
				return 0, c.err
			}
			if c.err != nil { // comes again when the rest has been read
				x.chunks <- chunk{nil, c.err}
			}
		}
	}
	n := copy(p, x.rest)
	x.rest = x.rest[n:]
	return n, nil
}
