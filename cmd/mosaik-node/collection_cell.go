package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/mosaik-engine/mosaik/log"
)

// newCellCmd returns the verbs of cells.
func newCellCmd(g *globals) *cobra.Command {
	return newNounCmd("cell", "Read and write cells", `A cell holds one value. It is made by the first put, with the codec that --codec
gives; after that it is known.`,
		newCellGetCmd(g), newCellPutCmd(g), newCellCASCmd(g), newCellClearCmd(g), newCellWatchCmd(g))
}

// newOnceCmd returns the verbs of values that are written once.
func newOnceCmd(g *globals) *cobra.Command {
	return newNounCmd("once", "Read and write values that are written once", `The first write wins for ever; later ones are told so, and what it was.`,
		newOnceGetCmd(g), newOncePutCmd(g), newOnceWatchCmd(g))
}

func cellFlags() *collectionFlags {
	f := new(collectionFlags)
	f.kinds = []*string{&f.value}
	return f
}

func (f *collectionFlags) onCell(cmd *cobra.Command, g *globals, name string, do func(context.Context, log.CellDef[string], log.Store) error) error {
	return f.on(cmd, g, name, func(ctx context.Context, s log.Store) error {
		codec, err := valueCodec(cmd, f.value)
		if err != nil {
			return err
		}
		return do(ctx, log.CellDef[string]{Name: name, Value: codec}, s)
	})
}

func (f *collectionFlags) onOnce(cmd *cobra.Command, g *globals, name string, do func(context.Context, log.OnceDef[string], log.Store) error) error {
	return f.on(cmd, g, name, func(ctx context.Context, s log.Store) error {
		codec, err := valueCodec(cmd, f.value)
		if err != nil {
			return err
		}
		return do(ctx, log.OnceDef[string]{Name: name, Value: codec}, s)
	})
}

// printContent prints what a cell or a once holds.
func (f *collectionFlags) printContent(g *globals, name string, c log.Content[string]) error {
	if !c.Found {
		return absentError(fmt.Sprintf("%q has no value as of commit %d", name, c.Commit))
	}
	s := shown{Value: shownValue(f.value, c.Value)}
	if g.json {
		s.Commit, s.Version = c.Commit, c.Version
	}
	return s.print(g)
}

// cellChange is a change as a watch prints it.
func (f *collectionFlags) cellChange(c log.CellChange[string]) changed {
	out := changed{Commit: c.Pointer.Commit, Pointer: c.Pointer}
	if c.Existed {
		out.Old = shownValue(f.value, c.Old)
	}
	if c.Exists {
		out.New = shownValue(f.value, c.New)
	}
	return out
}

func newCellGetCmd(g *globals) *cobra.Command {
	f := cellFlags()
	cmd := &cobra.Command{
		Use: "get NAME", Short: "Print the value",
		Long:    `Prints the value. Exit code 1 if there is none.`,
		Example: `  mosaik-node cell get leader --dir data`,
		Args:    exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.onCell(cmd, g, args[0], func(ctx context.Context, d log.CellDef[string], s log.Store) error {
				at, err := f.consistency(cmd)
				if err != nil {
					return err
				}
				r, err := d.Reader(s)
				if err != nil {
					return err
				}
				c, err := r.ReadAt(ctx, at)
				if err != nil {
					return err
				}
				return f.printContent(g, args[0], c)
			})
		},
	}
	f.reading(cmd, true)
	return cmd
}

func newCellPutCmd(g *globals) *cobra.Command {
	f := cellFlags()
	cmd := &cobra.Command{
		Use: "put NAME VALUE", Short: "Set the value",
		Long:    `Sets the value and prints the pointer at the command, and what was there before.`,
		Example: `  mosaik-node cell put leader '"alice"' --dir data`,
		Args:    exactly("NAME", "VALUE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.onCell(cmd, g, args[0], func(ctx context.Context, d log.CellDef[string], s log.Store) error {
				c, err := d.Open(ctx, s)
				if err != nil {
					return err
				}
				p, old, existed, err := c.Write(ctx, args[1])
				if err != nil {
					return err
				}
				return f.replaced(p, old, existed).print(g)
			})
		},
	}
	f.writing(cmd)
	return cmd
}

func newCellCASCmd(g *globals) *cobra.Command {
	f := cellFlags()
	var cas casFlags
	cmd := &cobra.Command{
		Use: "cas NAME", Short: "Set or remove the value if it is what you expect",
		Long: `Compares the value and replaces it in one step. If something else is there nothing
is changed, it is printed, and the exit code is 1.`,
		Example: `  mosaik-node cell cas leader --if '"alice"' --set '"bob"' --dir data`,
		Args:    exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			before, after, err := cas.sides(cmd)
			if err != nil {
				return err
			}
			return f.onCell(cmd, g, args[0], func(ctx context.Context, d log.CellDef[string], s log.Store) error {
				c, err := d.Open(ctx, s)
				if err != nil {
					return err
				}
				p, taken, current, err := c.CompareExchange(ctx, before, after)
				if err != nil {
					return err
				}
				return f.swapped(p, taken, current).print(g)
			})
		},
	}
	f.writing(cmd)
	cas.addTo(cmd)
	return cmd
}

func newCellClearCmd(g *globals) *cobra.Command {
	f := cellFlags()
	cmd := &cobra.Command{
		Use: "clear NAME", Short: "Remove the value",
		Long:    `Removes the value and prints the pointer at the command, and what was there.`,
		Example: `  mosaik-node cell clear leader --dir data`,
		Args:    exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.onCell(cmd, g, args[0], func(ctx context.Context, d log.CellDef[string], s log.Store) error {
				c, err := d.Open(ctx, s)
				if err != nil {
					return err
				}
				p, old, existed, err := c.Clear(ctx)
				if err != nil {
					return err
				}
				return f.replaced(p, old, existed).print(g)
			})
		},
	}
	f.writing(cmd)
	return cmd
}

func newCellWatchCmd(g *globals) *cobra.Command {
	f := cellFlags()
	cmd := &cobra.Command{
		Use: "watch NAME", Short: "Print what changes", Long: watchLong,
		Example: `  mosaik-node cell watch leader --node http://127.0.0.1:7070 --follow`,
		Args:    exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.onCell(cmd, g, args[0], func(ctx context.Context, d log.CellDef[string], s log.Store) error {
				r, err := d.Reader(s)
				if err != nil {
					return err
				}
				return printWatch(ctx, g, f, r.Watch, f.cellChange)
			})
		},
	}
	f.watching(cmd)
	return cmd
}

func newOnceGetCmd(g *globals) *cobra.Command {
	f := cellFlags()
	cmd := &cobra.Command{
		Use: "get NAME", Short: "Print the value",
		Long:    `Prints the value. Exit code 1 if nobody has written it yet.`,
		Example: `  mosaik-node once get genesis --dir data`,
		Args:    exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.onOnce(cmd, g, args[0], func(ctx context.Context, d log.OnceDef[string], s log.Store) error {
				at, err := f.consistency(cmd)
				if err != nil {
					return err
				}
				r, err := d.Reader(s)
				if err != nil {
					return err
				}
				c, err := r.ReadAt(ctx, at)
				if err != nil {
					return err
				}
				return f.printContent(g, args[0], c)
			})
		},
	}
	f.reading(cmd, true)
	return cmd
}

func newOncePutCmd(g *globals) *cobra.Command {
	f := cellFlags()
	cmd := &cobra.Command{
		Use: "put NAME VALUE", Short: "Set the value if nobody has yet",
		Long: `Sets the value if nobody has yet, and prints the pointer at the command. If somebody
was first, it prints what they wrote, and the exit code is 1.`,
		Example: `  mosaik-node once put genesis '{"chain":7}' --dir data`,
		Args:    exactly("NAME", "VALUE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.onOnce(cmd, g, args[0], func(ctx context.Context, d log.OnceDef[string], s log.Store) error {
				o, err := d.Open(ctx, s)
				if err != nil {
					return err
				}
				p, first, value, err := o.Write(ctx, args[1])
				if err != nil {
					return err
				}
				w := written{Pointer: p, Taken: &first}
				if !first {
					w.Old = shownValue(f.value, value)
				}
				return w.print(g)
			})
		},
	}
	f.writing(cmd)
	return cmd
}

func newOnceWatchCmd(g *globals) *cobra.Command {
	f := cellFlags()
	cmd := &cobra.Command{
		Use: "watch NAME", Short: "Print the write, or wait for it", Long: watchLong,
		Example: `  mosaik-node once watch genesis --node http://127.0.0.1:7070 --follow`,
		Args:    exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.onOnce(cmd, g, args[0], func(ctx context.Context, d log.OnceDef[string], s log.Store) error {
				r, err := d.Reader(s)
				if err != nil {
					return err
				}
				return printWatch(ctx, g, f, r.Watch, f.cellChange)
			})
		},
	}
	f.watching(cmd)
	return cmd
}
