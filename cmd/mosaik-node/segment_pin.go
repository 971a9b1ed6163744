package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
)

// newSegmentPinCmd returns the verb that keeps commits out of the archive.
func newSegmentPinCmd(g *globals) *cobra.Command {
	return newPinCmd(g, "pin", "Keep a commit, and all after it, in this node's store", `Whatever the retention says, the commit and all after it stay in the store of this
node until segment unpin. What is archived already is read from the archive.

It prints the commits that are pinned, one a line.`, false)
}

// newSegmentUnpinCmd returns the verb that ends a pin.
func newSegmentUnpinCmd(g *globals) *cobra.Command {
	return newPinCmd(g, "unpin", "End what segment pin has begun", `The retention decides again about the commit. It prints the commits that are still
pinned, one a line.`, true)
}

func newPinCmd(g *globals, verb, short, long string, off bool) *cobra.Command {
	var of groupFlags
	cmd := &cobra.Command{
		Use: verb + " COMMIT", Short: short, Long: long,
		Example: "  mosaik-node segment " + verb + " 1000 --node http://127.0.0.1:7070",
		Args:    exactly("COMMIT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := segmentNumber(cmd, "COMMIT", args[0])
			if err != nil {
				return err
			}
			return of.with(cmd, g, func(ctx context.Context, s store) error {
				pins, err := s.Pin(ctx, of.group, n, off)
				if err != nil {
					return err
				}
				for _, pinned := range pins {
					fmt.Fprintln(g.out, pinned)
				}
				return nil
			})
		},
	}
	of.addTo(cmd)
	return cmd
}
