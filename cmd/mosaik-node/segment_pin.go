package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/mosaik-engine/mosaik/engine"
)

// newSegmentPinCmd returns the verb that keeps commits out of the archive.
func newSegmentPinCmd(g *globals) *cobra.Command {
	return newPinCmd(g, "pin", "Keep a commit, and all after it, in this node's store", `Whatever the retention says, the commit and all after it stay in the store of this
node until segment unpin. What is archived already is read from the archive.`, (*engine.Group).Pin)
}

// newSegmentUnpinCmd returns the verb that ends a pin.
func newSegmentUnpinCmd(g *globals) *cobra.Command {
	return newPinCmd(g, "unpin", "End what segment pin has begun", "The retention decides again about the commit.", (*engine.Group).Unpin)
}

func newPinCmd(g *globals, verb, short, long string, change func(*engine.Group, uint64) error) *cobra.Command {
	var of groupFlags
	cmd := &cobra.Command{
		Use: verb + " COMMIT", Short: short, Long: long,
		Example: "  mosaik-node segment " + verb + " 1000 --dir data",
		Args:    exactly("COMMIT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := strconv.ParseUint(args[0], 10, 64)
			if err != nil {
				return usage(cmd, fmt.Errorf("COMMIT: %q is no number of a commit", args[0]))
			}
			return of.on(cmd, g, func(_ context.Context, group *engine.Group) error {
				if err := change(group, n); err != nil {
					return err
				}
				for _, pinned := range group.Segments().Pins {
					fmt.Fprintln(g.out, pinned)
				}
				return nil
			})
		},
	}
	of.addTo(cmd)
	return cmd
}
