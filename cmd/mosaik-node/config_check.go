package main

import (
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

// newConfigCheckCmd returns the verb that checks a configuration.
func newConfigCheckCmd(g *globals) *cobra.Command {
	var s settings
	cmd := &cobra.Command{
		Use:   "check [FILE]",
		Short: "Check a configuration and show what is in effect",
		Long: `Reads the settings of serve as serve does, from its flags, MOSAIK_* variables and
a TOML file, and prints each with its value and where it comes from. It starts
nothing. A key that is no setting, or a value that does not parse, is an error that
names the line.`,
		Example: `  mosaik-node config check node.toml
  MOSAIK_LISTEN=127.0.0.1:8080 mosaik-node config check node.toml --json`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usage(cmd, fmt.Errorf("unexpected argument %q", args[1]))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				if s.config != "" && s.config != args[0] {
					return usage(cmd, fmt.Errorf("%s and --config %s are two files", args[0], s.config))
				}
				s.config = args[0]
			}
			list, err := s.load()
			if err != nil {
				return usage(cmd, err)
			}
			if g.json {
				for _, setting := range list {
					if err := printLine(g.out, setting); err != nil {
						return err
					}
				}
				return nil
			}
			table := tabwriter.NewWriter(g.out, 0, 0, 2, ' ', 0)
			for _, setting := range list {
				fmt.Fprintf(table, "%s\t%s\t%s\n", setting.Name, setting.Value, setting.From)
			}
			return table.Flush()
		},
	}
	s.addTo(cmd)
	return cmd
}
