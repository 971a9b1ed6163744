package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/mosaik-engine/mosaik/identity"
)

// newIDCmd returns the verb that computes IDs.
func newIDCmd(g *globals) *cobra.Command {
	var derive []string
	cmd := &cobra.Command{
		Use:   "id NAME [--derive X]...",
		Short: "Print the ID that a name stands for",
		Long: `Prints the 32-byte ID of a name as 64 hex digits: its BLAKE3 hash. Everything in
mosaik is named like this, so that whoever knows the name knows the ID. A NAME of
64 hex digits is an ID already and is taken as it is.

Each --derive goes one step down: the ID of "something of this".`,
		Example: `  mosaik-node id oracle.price
  mosaik-node id oracle.price --derive EUR-USD --derive 2026`,
		Args: exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := args[0]
			if err := identity.ValidateName(name); err != nil {
				return usage(cmd, err)
			}
			id := identity.NewID(name)
			for _, x := range derive {
				id = id.Derive(x)
			}
			if g.json {
				return printJSON(g.out, idInfo{Name: name, Derive: derive, ID: id})
			}
			_, err := fmt.Fprintln(g.out, id)
			return err
		},
	}
	cmd.Flags().StringArrayVar(&derive, "derive", nil, "derive the ID further by X; may be repeated")
	return cmd
}

type idInfo struct {
	Name   string      `json:"name"`
	Derive []string    `json:"derive,omitempty"`
	ID     identity.ID `json:"id"`
}
