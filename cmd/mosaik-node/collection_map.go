package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/mosaik-engine/mosaik/log"
)

// newMapCmd returns the verbs of maps.
func newMapCmd(g *globals) *cobra.Command {
	return newNounCmd("map", "Read and write maps", `A map holds values under keys, in the order of the keys. It is made by the first
put, with the types that --key-type and --codec give; after that they are known.`,
		newMapGetCmd(g), newMapListCmd(g), newMapPutCmd(g), newMapRemoveCmd(g), newMapCASCmd(g), newMapClearCmd(g), newMapWatchCmd(g))
}

// mapFlags are the flags of a verb of maps.
func mapFlags() *collectionFlags {
	f := new(collectionFlags)
	f.kinds = []*string{&f.key, &f.value}
	return f
}

// mapDef returns the definition of the map.
func (f *collectionFlags) mapDef(cmd *cobra.Command, name string) (d log.MapDef[string, string], err error) {
	d.Name = name
	if d.Keys, err = keyCodec(cmd, f.key); err != nil {
		return d, err
	}
	d.Values, err = valueCodec(cmd, f.value)
	return d, err
}

// onMap opens a map for writing.
func (f *collectionFlags) onMap(cmd *cobra.Command, g *globals, name string, do func(context.Context, *log.Map[string, string]) error) error {
	return f.on(cmd, g, name, func(ctx context.Context, s log.Store) error {
		d, err := f.mapDef(cmd, name)
		if err != nil {
			return err
		}
		m, err := d.Open(ctx, s)
		if err != nil {
			return err
		}
		return do(ctx, m)
	})
}

// onMapView opens a map for reading.
func (f *collectionFlags) onMapView(cmd *cobra.Command, g *globals, name string, do func(*log.MapView[string, string]) error) error {
	return f.on(cmd, g, name, func(ctx context.Context, s log.Store) error {
		at, err := f.consistency(cmd)
		if err != nil {
			return err
		}
		d, err := f.mapDef(cmd, name)
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

func newMapGetCmd(g *globals) *cobra.Command {
	f := mapFlags()
	cmd := &cobra.Command{
		Use:   "get NAME KEY",
		Short: "Print the value of a key",
		Long: `Prints the value of a key. With --json also the commit that wrote it, and the
commit that the answer reflects. Exit code 1 if there is none.`,
		Example: `  mosaik-node map get prices BTC-USD --dir data
  mosaik-node map get prices BTC-USD --dir data --at 1000`,
		Args: exactly("NAME", "KEY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.onMapView(cmd, g, args[0], func(v *log.MapView[string, string]) error {
				e, ok, err := v.Entry(args[1])
				if err != nil {
					return err
				}
				if !ok {
					return absentError(fmt.Sprintf("%q has no key %q as of commit %d", args[0], args[1], v.Commit()))
				}
				s := shown{Value: shownValue(f.value, e.Value)}
				if g.json {
					s.Commit, s.Key, s.Version = v.Commit(), &e.Key, e.Version
				}
				return s.print(g)
			})
		},
	}
	f.reading(cmd, true)
	return cmd
}

func newMapListCmd(g *globals) *cobra.Command {
	f := mapFlags()
	var span spanFlags
	cmd := &cobra.Command{
		Use:   "list NAME",
		Short: "List the entries in the order of their keys",
		Long: `Lists keys and values in the order of the keys, all as of one commit however many
there are and whatever is written meanwhile. With --json it prints one object a line.`,
		Example: `  mosaik-node map list prices --dir data --prefix BTC-
  mosaik-node map list prices --dir data --from a --to b --reverse --limit 10`,
		Args: exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.onMapView(cmd, g, args[0], func(v *log.MapView[string, string]) error {
				entries, err := selected(&span, cmd, v.Prefix, v.Range)
				if err != nil {
					return err
				}
				n := uint64(0)
				for e, err := range entries {
					if err != nil {
						return err
					}
					if err := (shown{Key: &e.Key, Value: shownValue(f.value, e.Value), Version: e.Version}).print(g); err != nil {
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
	span.addTo(cmd, f)
	return cmd
}

func newMapPutCmd(g *globals) *cobra.Command {
	f := mapFlags()
	cmd := &cobra.Command{
		Use:   "put NAME KEY VALUE",
		Short: "Set the value of a key",
		Long: `Sets the value of a key and prints the pointer at the command, and what was there
before. A value is JSON unless the map's codec is raw.`,
		Example: `  mosaik-node map put prices BTC-USD '{"bid":"104312.50"}' --dir data
  mosaik-node map put names 7 seven --dir data --key-type int64 --codec raw`,
		Args: exactly("NAME", "KEY", "VALUE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.onMap(cmd, g, args[0], func(ctx context.Context, m *log.Map[string, string]) error {
				p, old, existed, err := m.Insert(ctx, args[1], args[2])
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

// replaced is what a write prints that replaces a value.
func (f *collectionFlags) replaced(p log.Pointer, old string, existed bool) written {
	w := written{Pointer: p}
	if existed {
		w.Old = shownValue(f.value, old)
	}
	return w
}

func newMapRemoveCmd(g *globals) *cobra.Command {
	f := mapFlags()
	cmd := &cobra.Command{
		Use:     "remove NAME KEY",
		Short:   "Remove the entry of a key",
		Long:    `Removes the entry of a key and prints the pointer at the command, and what was there.`,
		Example: `  mosaik-node map remove prices BTC-USD --dir data`,
		Args:    exactly("NAME", "KEY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.onMap(cmd, g, args[0], func(ctx context.Context, m *log.Map[string, string]) error {
				p, old, existed, err := m.Remove(ctx, args[1])
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

// casFlags say what a compare-exchange compares with and leaves there.
type casFlags struct {
	before, after     string
	ifAbsent, removes bool
}

func (c *casFlags) addTo(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVar(&c.before, "if", "", "value that must be there")
	fs.BoolVar(&c.ifAbsent, "if-absent", false, "nothing must be there")
	fs.StringVar(&c.after, "set", "", "value to leave there")
	fs.BoolVar(&c.removes, "remove", false, "leave nothing there")
}

// sides returns both sides; nil stands for nothing.
func (c *casFlags) sides(cmd *cobra.Command) (before, after *string, err error) {
	given := cmd.Flags().Changed
	if given("if") == c.ifAbsent || given("set") == c.removes {
		return nil, nil, usage(cmd, errors.New("one of --if and --if-absent, and one of --set and --remove is wanted"))
	}
	if given("if") {
		before = &c.before
	}
	if given("set") {
		after = &c.after
	}
	return before, after, nil
}

// swapped is what a compare-exchange prints.
func (f *collectionFlags) swapped(p log.Pointer, taken bool, current *string) written {
	w := written{Pointer: p, Taken: &taken}
	if current != nil {
		w.Old = shownValue(f.value, *current)
	}
	return w
}

func newMapCASCmd(g *globals) *cobra.Command {
	f := mapFlags()
	var cas casFlags
	cmd := &cobra.Command{
		Use:   "cas NAME KEY",
		Short: "Set or remove the value of a key if it is what you expect",
		Long: `Compares the value of a key and replaces it in one step. If something else is
there nothing is changed, it is printed, and the exit code is 1.`,
		Example: `  mosaik-node map cas locks job-7 --if-absent --set '"me"' --dir data
  mosaik-node map cas locks job-7 --if '"me"' --remove --dir data`,
		Args: exactly("NAME", "KEY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			before, after, err := cas.sides(cmd)
			if err != nil {
				return err
			}
			return f.onMap(cmd, g, args[0], func(ctx context.Context, m *log.Map[string, string]) error {
				p, taken, current, err := m.CompareExchange(ctx, args[1], before, after)
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

func newMapClearCmd(g *globals) *cobra.Command {
	f := mapFlags()
	cmd := &cobra.Command{
		Use:     "clear NAME",
		Short:   "Remove all entries",
		Long:    `Removes all entries at once, and prints the pointer at the command and their number.`,
		Example: `  mosaik-node map clear prices --dir data`,
		Args:    exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.onMap(cmd, g, args[0], func(ctx context.Context, m *log.Map[string, string]) error {
				p, n, err := m.Clear(ctx)
				if err != nil {
					return err
				}
				return written{Pointer: p, Count: &n}.print(g)
			})
		},
	}
	f.writing(cmd)
	return cmd
}

const watchLong = `Prints the changes of every commit after --after in order: the commit, the key, the
value before and the value after, with a dash for none. With --follow it waits for
more until it is interrupted. Who goes on after the last commit it has printed
misses nothing and sees nothing twice.`

func newMapWatchCmd(g *globals) *cobra.Command {
	f := mapFlags()
	cmd := &cobra.Command{
		Use: "watch NAME", Short: "Print what changes", Long: watchLong,
		Example: `  mosaik-node map watch prices --node http://127.0.0.1:7070 --after 1000 --follow`,
		Args:    exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.on(cmd, g, args[0], func(ctx context.Context, s log.Store) error {
				d, err := f.mapDef(cmd, args[0])
				if err != nil {
					return err
				}
				r, err := d.Reader(s)
				if err != nil {
					return err
				}
				return printWatch(ctx, g, f, r.Watch, func(c log.MapChange[string, string]) changed {
					out := changed{Commit: c.Pointer.Commit, Pointer: c.Pointer, Cleared: c.Cleared}
					if c.Cleared {
						return out
					}
					out.Key = &c.Key
					if c.Existed {
						out.Old = shownValue(f.value, c.Old)
					}
					if c.Exists {
						out.New = shownValue(f.value, c.New)
					}
					return out
				})
			})
		},
	}
	f.watching(cmd)
	return cmd
}
