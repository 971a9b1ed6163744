package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/mosaik-engine/mosaik/log"
)

// newVecCmd returns the verbs of vecs.
func newVecCmd(g *globals) *cobra.Command {
	return newNounCmd("vec", "Read and write vecs", `A vec holds values in a sequence, by their positions from 0. It is made by the first
push, with the codec that --codec gives; after that it is known.`,
		newVecGetCmd(g), newVecListCmd(g), newVecPushCmd(g), newVecPutCmd(g), newVecRemoveCmd(g), newVecTruncateCmd(g), newVecClearCmd(g), newVecWatchCmd(g))
}

func (f *collectionFlags) onVec(cmd *cobra.Command, g *globals, name string, do func(context.Context, log.VecDef[string], log.Store) error) error {
	return f.on(cmd, g, name, func(ctx context.Context, s log.Store) error {
		codec, err := valueCodec(cmd, f.value)
		if err != nil {
			return err
		}
		return do(ctx, log.VecDef[string]{Name: name, Values: codec}, s)
	})
}

// vecVerb returns the RunE of a verb that writes.
func (f *collectionFlags) vecVerb(g *globals, do func(ctx context.Context, v *log.Vec[string], args []string) (written, error)) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		return f.onVec(cmd, g, args[0], func(ctx context.Context, d log.VecDef[string], s log.Store) error {
			v, err := d.Open(ctx, s)
			if err != nil {
				return err
			}
			w, err := do(ctx, v, args)
			if err != nil {
				return err
			}
			return w.print(g)
		})
	}
}

func (f *collectionFlags) onVecView(cmd *cobra.Command, g *globals, name string, do func(*log.VecView[string]) error) error {
	return f.onVec(cmd, g, name, func(ctx context.Context, d log.VecDef[string], s log.Store) error {
		at, err := f.consistency(cmd)
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

// index reads an argument that is an index.
func index(cmd *cobra.Command, text string) (uint64, error) {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil || n == math.MaxUint64 {
		return 0, usage(cmd, fmt.Errorf("INDEX: %q is not a number from 0", text))
	}
	return n, nil
}

func newVecGetCmd(g *globals) *cobra.Command {
	f := cellFlags()
	cmd := &cobra.Command{
		Use: "get NAME INDEX", Short: "Print the element at an index",
		Long:    `Prints the element at an index. Exit code 1 if there is none.`,
		Example: `  mosaik-node vec get steps 0 --dir data`,
		Args:    exactly("NAME", "INDEX"),
		RunE: func(cmd *cobra.Command, args []string) error {
			i, err := index(cmd, args[1])
			if err != nil {
				return err
			}
			return f.onVecView(cmd, g, args[0], func(v *log.VecView[string]) error {
				element, ok, err := v.Get(i)
				if err != nil {
					return err
				}
				if !ok {
					return absentError(fmt.Sprintf("%q has no element %d as of commit %d", args[0], i, v.Commit()))
				}
				s := shown{Value: shownValue(f.value, element)}
				if g.json {
					s.Commit, s.Index = v.Commit(), &i
				}
				return s.print(g)
			})
		},
	}
	f.reading(cmd, true)
	return cmd
}

func newVecListCmd(g *globals) *cobra.Command {
	f := cellFlags()
	var from, to uint64
	var reverse bool
	cmd := &cobra.Command{
		Use: "list NAME", Short: "List the elements in order",
		Long:    `Lists indexes and elements, all as of one commit. With --json it prints one object a line.`,
		Example: `  mosaik-node vec list steps --dir data --from 100 --limit 10`,
		Args:    exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.onVecView(cmd, g, args[0], func(v *log.VecView[string]) error {
				length, err := v.Len()
				if err != nil {
					return err
				}
				if to != 0 {
					length = min(length, to)
				}
				n := uint64(0)
				for element, err := range v.Range(from, length, reverse) {
					if err != nil {
						return err
					}
					i := from + n
					if reverse {
						i = length - 1 - n
					}
					if err := (shown{Index: &i, Value: shownValue(f.value, element)}).print(g); err != nil {
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
	cmd.Flags().Uint64Var(&from, "from", 0, "first index")
	cmd.Flags().Uint64Var(&to, "to", 0, "index to stop before; 0 for the end")
	cmd.Flags().BoolVar(&reverse, "reverse", false, "from the last to the first")
	cmd.Flags().Uint64Var(&f.limit, "limit", 0, "print this many at most; 0 for all")
	return cmd
}

func newVecPushCmd(g *globals) *cobra.Command {
	f := cellFlags()
	var front bool
	var at uint64
	cmd := &cobra.Command{
		Use: "push NAME VALUE", Short: "Add an element at the end, in front, or at an index",
		Long: `Adds an element behind the last one, in front of the first with --front, or at the
index --index, from where on the others move up.`,
		Example: `  mosaik-node vec push steps '"start"' --dir data
  mosaik-node vec push steps '"between"' --index 1 --dir data`,
		Args: exactly("NAME", "VALUE"),
	}
	cmd.RunE = f.vecVerb(g, func(ctx context.Context, v *log.Vec[string], args []string) (written, error) {
		inside := cmd.Flags().Changed("index")
		switch {
		case inside && front:
			return written{}, usage(cmd, errors.New("--front and --index do not go together"))
		case front, inside:
			p, err := v.Insert(ctx, at, args[1]) // at is 0 with --front
			return written{Pointer: p, Index: &at}, err
		}
		p, i, err := v.PushBack(ctx, args[1])
		return written{Pointer: p, Index: &i}, err
	})
	f.writing(cmd)
	cmd.Flags().BoolVar(&front, "front", false, "in front of the first")
	cmd.Flags().Uint64Var(&at, "index", 0, "at this index")
	return cmd
}

func newVecPutCmd(g *globals) *cobra.Command {
	f := cellFlags()
	cmd := &cobra.Command{
		Use: "put NAME INDEX VALUE", Short: "Replace the element at an index",
		Long:    `Replaces the element at an index and prints the one before.`,
		Example: `  mosaik-node vec put steps 0 '"begin"' --dir data`,
		Args:    exactly("NAME", "INDEX", "VALUE"),
	}
	cmd.RunE = f.vecVerb(g, func(ctx context.Context, v *log.Vec[string], args []string) (written, error) {
		i, err := index(cmd, args[1])
		if err != nil {
			return written{}, err
		}
		p, old, err := v.Set(ctx, i, args[2])
		return f.replaced(p, old, true), err
	})
	f.writing(cmd)
	return cmd
}

func newVecRemoveCmd(g *globals) *cobra.Command {
	f := cellFlags()
	cmd := &cobra.Command{
		Use: "remove NAME INDEX", Short: "Remove the element at an index",
		Long:    `Removes the element at an index and prints it; those behind it move down.`,
		Example: `  mosaik-node vec remove steps 0 --dir data`,
		Args:    exactly("NAME", "INDEX"),
	}
	cmd.RunE = f.vecVerb(g, func(ctx context.Context, v *log.Vec[string], args []string) (written, error) {
		i, err := index(cmd, args[1])
		if err != nil {
			return written{}, err
		}
		p, old, err := v.Remove(ctx, i)
		return f.replaced(p, old, true), err
	})
	f.writing(cmd)
	return cmd
}

func newVecTruncateCmd(g *globals) *cobra.Command {
	f := cellFlags()
	cmd := &cobra.Command{
		Use: "truncate NAME LENGTH", Short: "Remove the elements from an index on",
		Long:    `Removes the elements from index LENGTH on, and prints their number.`,
		Example: `  mosaik-node vec truncate steps 10 --dir data`,
		Args:    exactly("NAME", "LENGTH"),
	}
	cmd.RunE = f.vecVerb(g, func(ctx context.Context, v *log.Vec[string], args []string) (written, error) {
		n, err := index(cmd, args[1])
		if err != nil {
			return written{}, err
		}
		p, removed, err := v.Truncate(ctx, n)
		return written{Pointer: p, Count: &removed}, err
	})
	f.writing(cmd)
	return cmd
}

func newVecClearCmd(g *globals) *cobra.Command {
	f := cellFlags()
	cmd := &cobra.Command{
		Use: "clear NAME", Short: "Remove all elements",
		Long:    `Removes all elements at once, and prints the pointer at the command and their number.`,
		Example: `  mosaik-node vec clear steps --dir data`,
		Args:    exactly("NAME"),
	}
	cmd.RunE = f.vecVerb(g, func(ctx context.Context, v *log.Vec[string], _ []string) (written, error) {
		p, removed, err := v.Clear(ctx)
		return written{Pointer: p, Count: &removed}, err
	})
	f.writing(cmd)
	return cmd
}

func newVecWatchCmd(g *globals) *cobra.Command {
	f := cellFlags()
	cmd := &cobra.Command{
		Use: "watch NAME", Short: "Print the commits that change the vec",
		Long: `Prints each commit after --after that changed the vec, and its length since.
Positions shift, so what is new is best read with vec list --at COMMIT. With
--follow it waits for more until it is interrupted.`,
		Example: `  mosaik-node vec watch steps --dir data`,
		Args:    exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.onVec(cmd, g, args[0], func(ctx context.Context, d log.VecDef[string], s log.Store) error {
				r, err := d.Reader(s)
				if err != nil {
					return err
				}
				return printWatch(ctx, g, f, r.Watch, func(c log.VecChange) changed {
					return changed{Commit: c.Pointer.Commit, Pointer: c.Pointer, Len: &c.Len}
				})
			})
		},
	}
	f.watching(cmd)
	return cmd
}
