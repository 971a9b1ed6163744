package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/mosaik-engine/mosaik/log"
)

// newSetCmd returns the verbs of sets.
func newSetCmd(g *globals) *cobra.Command {
	return newNounCmd("set", "Read and write sets", `A set holds members in their order, each once. It is made by the first insert, with
the type that --key-type gives; after that it is known.`,
		newSetGetCmd(g), newSetListCmd(g), newSetInsertCmd(g), newSetRemoveCmd(g), newSetClearCmd(g), newSetWatchCmd(g))
}

func setFlags() *collectionFlags {
	f := new(collectionFlags)
	f.kinds = []*string{&f.key}
	return f
}

func (f *collectionFlags) setDef(cmd *cobra.Command, name string) (d log.SetDef[string], err error) {
	d.Name = name
	d.Members, err = keyCodec(cmd, f.key)
	return d, err
}

func (f *collectionFlags) onSet(cmd *cobra.Command, g *globals, name string, do func(context.Context, *log.Set[string]) error) error {
	return f.on(cmd, g, name, func(ctx context.Context, s log.Store) error {
		d, err := f.setDef(cmd, name)
		if err != nil {
			return err
		}
		set, err := d.Open(ctx, s)
		if err != nil {
			return err
		}
		return do(ctx, set)
	})
}

func (f *collectionFlags) onSetView(cmd *cobra.Command, g *globals, name string, do func(*log.SetView[string]) error) error {
	return f.on(cmd, g, name, func(ctx context.Context, s log.Store) error {
		at, err := f.consistency(cmd)
		if err != nil {
			return err
		}
		d, err := f.setDef(cmd, name)
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

func newSetGetCmd(g *globals) *cobra.Command {
	f := setFlags()
	cmd := &cobra.Command{
		Use:     "get NAME MEMBER",
		Short:   "Say whether something is a member",
		Long:    `Prints the member if it is one. Exit code 1 if it is not.`,
		Example: `  mosaik-node set get peers alice --dir data`,
		Args:    exactly("NAME", "MEMBER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.onSetView(cmd, g, args[0], func(v *log.SetView[string]) error {
				ok, err := v.Contains(args[1])
				if err != nil {
					return err
				}
				if !ok {
					return absentError(fmt.Sprintf("%q has no member %q as of commit %d", args[0], args[1], v.Commit()))
				}
				return shown{Key: &args[1]}.print(g)
			})
		},
	}
	f.reading(cmd, true)
	return cmd
}

func newSetListCmd(g *globals) *cobra.Command {
	f := setFlags()
	var span spanFlags
	cmd := &cobra.Command{
		Use:     "list NAME",
		Short:   "List the members in their order",
		Long:    `Lists the members, all as of one commit. With --json it prints one object a line.`,
		Example: `  mosaik-node set list peers --dir data --prefix a`,
		Args:    exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.onSetView(cmd, g, args[0], func(v *log.SetView[string]) error {
				members, err := selected(&span, cmd, v.Prefix, v.Range)
				if err != nil {
					return err
				}
				n := uint64(0)
				for member, err := range members {
					if err != nil {
						return err
					}
					if err := (shown{Key: &member}).print(g); err != nil {
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

// newSetMemberCmd returns a verb that adds or removes a member.
func newSetMemberCmd(g *globals, verb, short string, do func(*log.Set[string], context.Context, string) (log.Pointer, bool, error)) *cobra.Command {
	f := setFlags()
	cmd := &cobra.Command{
		Use:   verb + " NAME MEMBER",
		Short: short,
		Long: short + `, and print the pointer at the command. If nothing had to be
changed it says so, and the exit code is 1.`,
		Example: `  mosaik-node set ` + verb + ` peers alice --dir data`,
		Args:    exactly("NAME", "MEMBER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.onSet(cmd, g, args[0], func(ctx context.Context, s *log.Set[string]) error {
				p, taken, err := do(s, ctx, args[1])
				if err != nil {
					return err
				}
				w := written{Pointer: p, Taken: &taken}
				if verb == "insert" && !taken {
					w.Old = shownValue("raw", args[1])
				}
				return w.print(g)
			})
		},
	}
	f.writing(cmd)
	return cmd
}

func newSetInsertCmd(g *globals) *cobra.Command {
	return newSetMemberCmd(g, "insert", "Add a member", (*log.Set[string]).Insert)
}

func newSetRemoveCmd(g *globals) *cobra.Command {
	return newSetMemberCmd(g, "remove", "Remove a member", (*log.Set[string]).Remove)
}

func newSetClearCmd(g *globals) *cobra.Command {
	f := setFlags()
	cmd := &cobra.Command{
		Use:     "clear NAME",
		Short:   "Remove all members",
		Long:    `Removes all members at once, and prints the pointer at the command and their number.`,
		Example: `  mosaik-node set clear peers --dir data`,
		Args:    exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.onSet(cmd, g, args[0], func(ctx context.Context, s *log.Set[string]) error {
				p, n, err := s.Clear(ctx)
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

func newSetWatchCmd(g *globals) *cobra.Command {
	f := setFlags()
	cmd := &cobra.Command{
		Use: "watch NAME", Short: "Print what changes", Long: watchLong,
		Example: `  mosaik-node set watch peers --dir data`,
		Args:    exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.on(cmd, g, args[0], func(ctx context.Context, s log.Store) error {
				d, err := f.setDef(cmd, args[0])
				if err != nil {
					return err
				}
				r, err := d.Reader(s)
				if err != nil {
					return err
				}
				return printWatch(ctx, g, f, r.Watch, func(c log.SetChange[string]) changed {
					out := changed{Commit: c.Pointer.Commit, Pointer: c.Pointer, Cleared: c.Cleared}
					if c.Cleared {
						return out
					}
					out.Key = &c.Member
					if c.Added {
						out.New = []byte("true")
					} else {
						out.Old = []byte("true")
					}
					return out
				})
			})
		},
	}
	f.watching(cmd)
	return cmd
}
