package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mosaik-engine/mosaik/log"
)

type (
	textQueue = log.Queue[string, string, string]
	textEntry = log.QueueEntry[string, string, string]
)

// newQueueCmd returns the verbs of priority queues.
func newQueueCmd(g *globals) *cobra.Command {
	return newNounCmd("queue", "Read and write priority queues", `A queue holds values under unique keys, in the order of their priorities. It is made
by the first put, with the types that --key-type, --priority-type, --codec and
--capacity give; after that they are known.`,
		newQueueGetCmd(g), newQueueListCmd(g), newQueuePutCmd(g), newQueuePopCmd(g), newQueueRemoveCmd(g), newQueueClearCmd(g), newQueueWatchCmd(g))
}

// queueFlags are the flags of a verb of queues.
type queueFlags struct {
	collectionFlags
	capacity string // as in the directory's entry
}

func newQueueFlags() *queueFlags {
	f := new(queueFlags)
	f.kinds = []*string{&f.key, &f.prio, &f.value, &f.capacity}
	return f
}

func (f *queueFlags) def(cmd *cobra.Command, name string) (d log.QueueDef[string, string, string], err error) {
	d.Name = name
	if d.Keys, err = keyCodec(cmd, f.key); err != nil {
		return d, err
	}
	if d.Priorities, err = keyCodec(cmd, f.prio); err != nil {
		return d, err
	}
	if d.Values, err = valueCodec(cmd, f.value); err != nil {
		return d, err
	}
	if f.capacity != "" {
		text := strings.TrimPrefix(f.capacity, "capacity=")
		if d.Capacity, err = strconv.ParseUint(text, 10, 64); err != nil {
			return d, usage(cmd, fmt.Errorf("--capacity: %q is not a number", text))
		}
	}
	return d, nil
}

// verb returns the RunE of a verb that writes.
func (f *queueFlags) verb(g *globals, do func(ctx context.Context, q *textQueue, args []string) (written, error)) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		return f.on(cmd, g, args[0], func(ctx context.Context, s log.Store) error {
			d, err := f.def(cmd, args[0])
			if err != nil {
				return err
			}
			q, err := d.Open(ctx, s)
			if err != nil {
				return err
			}
			w, err := do(ctx, q, args)
			if err != nil {
				return err
			}
			return w.print(g)
		})
	}
}

func (f *queueFlags) onView(cmd *cobra.Command, g *globals, name string, do func(*log.QueueView[string, string, string]) error) error {
	return f.on(cmd, g, name, func(ctx context.Context, s log.Store) error {
		at, err := f.consistency(cmd)
		if err != nil {
			return err
		}
		d, err := f.def(cmd, name)
		if err != nil {
			return err
		}
		r, err := d.Reader(s)
		if err != nil {
			return err
		}
		v, err := r.View(ctx, at)
		if err != nil {
			return err
		}
		return do(v)
	})
}

func (f *queueFlags) shown(e *textEntry) shown {
	return shown{Key: &e.Key, Priority: &e.Priority, Value: shownValue(f.value, e.Value)}
}

// taken is what a write prints that takes an entry out of the queue.
func (f *queueFlags) taken(p log.Pointer, e *textEntry) written {
	ok := e != nil
	w := written{Pointer: p, Taken: &ok}
	if ok {
		w.Key, w.Prio, w.Old = &e.Key, &e.Priority, shownValue(f.value, e.Value)
	}
	return w
}

func newQueueGetCmd(g *globals) *cobra.Command {
	f := newQueueFlags()
	cmd := &cobra.Command{
		Use: "get NAME KEY", Short: "Print the entry of a key",
		Long:    `Prints key, priority and value. Exit code 1 if there is no such entry.`,
		Example: `  mosaik-node queue get jobs job-7 --dir data`,
		Args:    exactly("NAME", "KEY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.onView(cmd, g, args[0], func(v *log.QueueView[string, string, string]) error {
				e, ok, err := v.Get(args[1])
				if err != nil {
					return err
				}
				if !ok {
					return absentError(fmt.Sprintf("%q has no key %q as of commit %d", args[0], args[1], v.Commit()))
				}
				return f.shown(&e).print(g)
			})
		},
	}
	f.reading(cmd, true)
	return cmd
}

func newQueueListCmd(g *globals) *cobra.Command {
	f := newQueueFlags()
	var span spanFlags
	cmd := &cobra.Command{
		Use: "list NAME", Short: "List the entries by priority",
		Long: `Lists key, priority and value from the lowest priority to the highest, all as of one
commit. With --json it prints one object a line.`,
		Example: `  mosaik-node queue list jobs --dir data --reverse --limit 1`,
		Args:    exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.onView(cmd, g, args[0], func(v *log.QueueView[string, string, string]) error {
				n := uint64(0)
				for e, err := range v.Range(span.span(cmd)) {
					if err != nil {
						return err
					}
					if err := f.shown(&e).print(g); err != nil {
						return err
					}
					if n++; n == f.limit {
						break
					}
				}
				return nil
			})
		},
	}
	f.reading(cmd, true)
	fs := cmd.Flags()
	fs.StringVar(&span.from, "from", "", "first priority")
	fs.StringVar(&span.to, "to", "", "priority to stop before")
	fs.BoolVar(&span.reverse, "reverse", false, "from the highest priority to the lowest")
	fs.Uint64Var(&f.limit, "limit", 0, "print this many at most; 0 for all")
	return cmd
}

func newQueuePutCmd(g *globals) *cobra.Command {
	f := newQueueFlags()
	cmd := &cobra.Command{
		Use: "put NAME KEY PRIORITY VALUE", Short: "Set the entry of a key",
		Long: `Sets the entry of a key, and prints the pointer at the command and what was there. A
queue that is full gives up the entry of the lowest priority. What begins with a dash
stands behind two dashes: queue put --dir data -- jobs job-7 -10 1`,
		Example: `  mosaik-node queue put jobs job-7 10 '{"do":"sweep"}' --dir data`,
		Args:    exactly("NAME", "KEY", "PRIORITY", "VALUE"),
	}
	cmd.RunE = f.verb(g, func(ctx context.Context, q *textQueue, args []string) (written, error) {
		p, old, evicted, err := q.Insert(ctx, args[1], args[2], args[3])
		w := written{Pointer: p}
		if old != nil {
			w.Key, w.Prio, w.Old = &old.Key, &old.Priority, shownValue(f.value, old.Value)
		}
		if evicted != nil {
			w.Evicted = &evicted.Key
		}
		return w, err
	})
	f.writing(cmd)
	cmd.Flags().StringVar(&f.capacity, "capacity", "", "entries that a new queue holds at most (default no limit)")
	return cmd
}

func newQueuePopCmd(g *globals) *cobra.Command {
	f := newQueueFlags()
	var highest bool
	cmd := &cobra.Command{
		Use: "pop NAME", Short: "Take the entry of the lowest priority out",
		Long: `Takes the entry of the lowest priority out, or with --max that of the highest, and
prints it. Exit code 1 if the queue is empty.`,
		Example: `  mosaik-node queue pop jobs --max --dir data`,
		Args:    exactly("NAME"),
	}
	cmd.RunE = f.verb(g, func(ctx context.Context, q *textQueue, _ []string) (written, error) {
		pop := q.PopMin
		if highest {
			pop = q.PopMax
		}
		p, e, err := pop(ctx)
		return f.taken(p, e), err
	})
	f.writing(cmd)
	cmd.Flags().BoolVar(&highest, "max", false, "the one of the highest priority")
	return cmd
}

func newQueueRemoveCmd(g *globals) *cobra.Command {
	f := newQueueFlags()
	cmd := &cobra.Command{
		Use: "remove NAME KEY", Short: "Remove the entry of a key",
		Long:    `Removes the entry of a key and prints it. Exit code 1 if there is none.`,
		Example: `  mosaik-node queue remove jobs job-7 --dir data`,
		Args:    exactly("NAME", "KEY"),
	}
	cmd.RunE = f.verb(g, func(ctx context.Context, q *textQueue, args []string) (written, error) {
		p, e, err := q.Remove(ctx, args[1])
		return f.taken(p, e), err
	})
	f.writing(cmd)
	return cmd
}

func newQueueClearCmd(g *globals) *cobra.Command {
	f := newQueueFlags()
	cmd := &cobra.Command{
		Use: "clear NAME", Short: "Remove all entries",
		Long:    `Removes all entries at once, and prints the pointer at the command and their number.`,
		Example: `  mosaik-node queue clear jobs --dir data`,
		Args:    exactly("NAME"),
	}
	cmd.RunE = f.verb(g, func(ctx context.Context, q *textQueue, _ []string) (written, error) {
		p, n, err := q.Clear(ctx)
		return written{Pointer: p, Count: &n}, err
	})
	f.writing(cmd)
	return cmd
}

func newQueueWatchCmd(g *globals) *cobra.Command {
	f := newQueueFlags()
	cmd := &cobra.Command{
		Use: "watch NAME", Short: "Print what changes", Long: watchLong,
		Example: `  mosaik-node queue watch jobs --dir data`,
		Args:    exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.on(cmd, g, args[0], func(ctx context.Context, s log.Store) error {
				d, err := f.def(cmd, args[0])
				if err != nil {
					return err
				}
				r, err := d.Reader(s)
				if err != nil {
					return err
				}
				return printWatch(ctx, g, &f.collectionFlags, r.Watch, func(c log.QueueChange[string, string, string]) changed {
					out := changed{Commit: c.Pointer.Commit, Pointer: c.Pointer, Cleared: c.Cleared}
					if c.Cleared {
						return out
					}
					out.Key = &c.Key
					if c.Existed {
						out.Old = shownValue(f.value, c.Old.Value)
					}
					if c.Exists {
						out.New = shownValue(f.value, c.New.Value)
					}
					return out
				})
			})
		},
	}
	f.watching(cmd)
	return cmd
}
