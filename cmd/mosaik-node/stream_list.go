package main

import (
	"cmp"
	"context"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

// newStreamListCmd returns the verb that lists streams.
func newStreamListCmd(g *globals) *cobra.Command {
	var from storeFlags
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the streams",
		Long: `Lists the named logs in the order of their names, with the codec of their values and
the number of their records. Logs that nobody has given a name come last, with a
dash for it; their key can be used in its place.

With --json it prints one object a line.`,
		Example: `  mosaik-node stream list --dir data`,
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return from.with(cmd, g, func(ctx context.Context, s store) error {
				streams, err := s.Streams(ctx)
				if err != nil {
					return err
				}
				table := tabwriter.NewWriter(g.out, 0, 0, 2, ' ', 0)
				fmt.Fprintln(table, "NAME\tCODEC\tRECORDS\tCOMMIT\tGROUP\tKEY")
				for _, stream := range streams {
					if g.json {
						if err := printLine(g.out, stream); err != nil {
							return err
						}
						continue
					}
					fmt.Fprintf(table, "%s\t%s\t%d\t%d\t%s\t%s\n", cmp.Or(stream.Name, "-"), cmp.Or(stream.Codec, "-"), stream.Records, stream.Commit, stream.Group, stream.Key)
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
