package main

import (
	"context"
	"errors"
	"iter"

	"github.com/spf13/cobra"

	"github.com/mosaik-engine/mosaik/log"
)

// spanFlags select elements by their keys.
type spanFlags struct {
	prefix, from, to string
	reverse          bool
}

func (s *spanFlags) addTo(cmd *cobra.Command, f *collectionFlags) {
	fs := cmd.Flags()
	fs.StringVar(&s.prefix, "prefix", "", "only keys that begin with this")
	fs.StringVar(&s.from, "from", "", "first key")
	fs.StringVar(&s.to, "to", "", "key to stop before")
	fs.BoolVar(&s.reverse, "reverse", false, "from the last key to the first")
	fs.Uint64Var(&f.limit, "limit", 0, "print this many at most; 0 for all")
}

// span returns the bounds that were given.
func (s *spanFlags) span(cmd *cobra.Command) log.Span[string] {
	span := log.Span[string]{Reverse: s.reverse}
	if cmd.Flags().Changed("from") {
		span.From = &s.from
	}
	if cmd.Flags().Changed("to") {
		span.To = &s.to
	}
	return span
}

// selected returns the elements that the flags select.
func selected[T any](s *spanFlags, cmd *cobra.Command, prefix func(string) iter.Seq2[T, error], span func(log.Span[string]) iter.Seq2[T, error]) (iter.Seq2[T, error], error) {
	bounds := s.span(cmd)
	if !cmd.Flags().Changed("prefix") {
		return span(bounds), nil
	}
	if bounds.From != nil || bounds.To != nil || s.reverse {
		return nil, usage(cmd, errors.New("--prefix does not go with --from, --to and --reverse"))
	}
	return prefix(s.prefix), nil
}

// printWatch prints changes as they come.
func printWatch[C any](ctx context.Context, g *globals, f *collectionFlags,
	watch func(ctx context.Context, after uint64, follow bool) iter.Seq2[C, error], show func(C) changed) error {
	for c, err := range watch(ctx, f.after, f.follow) {
		if err != nil {
			return err
		}
		if err := show(c).print(g); err != nil {
			return err
		}
	}
	return nil
}
