package main

import (
	"context"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

// newGroupListCmd returns the verb that lists groups.
func newGroupListCmd(g *globals) *cobra.Command {
	var from storeFlags
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the groups of a node, and how far they are",
		Long: `Lists the node's groups: the last commit it has of each, what is in them, who
leads. With --json it prints one object a line.`,
		Example: `  mosaik-node group list --node http://127.0.0.1:7070`,
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return from.with(cmd, g, func(ctx context.Context, s store) error {
				groups, err := s.Groups(ctx)
				if err != nil {
					return err
				}
				table := tabwriter.NewWriter(g.out, 0, 0, 2, ' ', 0)
				fmt.Fprintln(table, "GROUP\tCOMMIT\tRECORDS\tSTREAMS\tBYTES\tMEMBERS\tLEADER\tDIGEST")
				for _, group := range groups {
					if g.json {
						if err := printLine(g.out, group); err != nil {
							return err
						}
						continue
					}
					leader := "-"
					if group.Leader != nil {
						leader = group.Leader.Short()
					}
					fmt.Fprintf(table, "%s\t%d\t%d\t%d\t%d\t%d\t%s\t%s\n", group.Name, group.Head.Commit, group.Records, group.Keys, group.Bytes, len(group.Members), leader, group.Head.Digest)
				}
				if g.json {
					return nil
				}
				return table.Flush()
			})
		},
	}
	from.addTo(cmd)
	return cmd
}
