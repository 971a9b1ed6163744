package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/mosaik-engine/mosaik/coalition"
	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/organisms"
)

// readCoalition reads a config, JSON if its first character is a brace. - is standard
// input.
func readCoalition(g *globals, path string) (*coalition.Config, error) {
	b, err := readBounded(g, path, coalition.MaxFile)
	if err != nil {
		return nil, err
	}
	parse := coalition.ParseTOML
	if bytes.HasPrefix(bytes.TrimSpace(b), []byte("{")) {
		parse = coalition.ParseJSON
	}
	p, err := parse(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	for _, name := range p.Unknown {
		fmt.Fprintf(g.err, "%s: %s is not known to this program; it is part of no id\n", path, name)
	}
	return p.Config, nil
}

// newCoalitionInitCmd returns the verb that begins a coalition.
func newCoalitionInitCmd(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "init NAME FILE",
		Short: "Begin a coalition: a file with a name and no members",
		Long: `Writes a file for a coalition of that name, to which members are added. The name is
folded into every id that is derived from the coalition, so choose it for good: short,
and with a namespace, such as signals.euro-fx.`,
		Example: `  mosaik-node coalition init signals.euro-fx coalition.toml`,
		Args:    exactly("NAME", "FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c := &coalition.Config{Name: args[0]}
			if err := c.Validate(); err != nil {
				return usage(cmd, err)
			}
			text, err := c.AppendTOML(nil)
			if err != nil {
				return err
			}
			f, err := os.OpenFile(args[1], os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
			if err != nil {
				return err
			}
			_, err = f.Write(text)
			return errors.Join(err, f.Close())
		},
	}
}

// newCoalitionAddCmd returns the verb that adds a member.
func newCoalitionAddCmd(g *globals) *cobra.Command {
	var role, pin string
	cmd := &cobra.Command{
		Use:   "add STABLE-ID FILE --role ROLE",
		Short: "Name a further member",
		Long: `Adds a reference to a member at the end of the file's lattices, if the role is lattice, or
of its organisms. The stable id is what the member's operator has published; it is not
computed here. With --pin the coalition is bound to one revision of the member: then it
has to be published again whenever the member's content changes.

The member is not asked. It gets nothing by being named, and owes nothing for it.`,
		Example: `  mosaik-node coalition member add addb18d585fe9aa3f5b5b18196afb4be85b2b8e9e38e80cc938635947a028249 coalition.toml --role oracle`,
		Args:    exactly("STABLE-ID", "FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if role == "" {
				return usage(cmd, errors.New("--role ROLE is needed"))
			}
			r := organisms.Ref{Role: role}
			var err error
			if r.StableID, err = identity.ParseID(args[0]); err != nil {
				return usage(cmd, fmt.Errorf("STABLE-ID: %w", err))
			}
			if pin != "" {
				hash, err := identity.ParseID(pin)
				if err != nil {
					return usage(cmd, fmt.Errorf("--pin: %w", err))
				}
				r.ContentHash = &hash
			}
			c, err := readCoalition(g, args[1])
			if err != nil {
				return err
			}
			if role == coalition.LatticeRole {
				c.Lattices = append(c.Lattices, r)
			} else {
				c.Organisms = append(c.Organisms, r)
			}
			if err := c.Validate(); err != nil {
				return err
			}
			text, err := c.AppendTOML(nil)
			if err != nil {
				return err
			}
			// A complete file takes the place of the other, or none does.
			beside := args[1] + ".new"
			if err := os.WriteFile(beside, text, 0o666); err != nil {
				return err
			}
			return os.Rename(beside, args[1])
		},
	}
	cmd.Flags().StringVar(&role, "role", "", "what the member is: lattice, oracle, reputation, ...")
	cmd.Flags().StringVar(&pin, "pin", "", "content hash of the one revision that is meant (default: rotations are followed)")
	return cmd
}

// derivedID is an id of a coalition and what it is.
type derivedID struct {
	Name string      `json:"name"`
	ID   identity.ID `json:"id"`
}

// derived returns all ids that follow from a coalition.
func derived(c *coalition.Config) []derivedID {
	ids := []derivedID{{"coalition id", c.ID()}, {"root", c.Root()}}
	for _, kind := range coalition.ModuleKinds() {
		if m, err := c.Module(kind); err == nil {
			ids = append(ids, derivedID{string(kind), m.StableID}, derivedID{string(kind) + " content", *m.ContentHash})
		}
	}
	if tickets, err := c.TicketsRoot(); err == nil {
		ids = append(ids, derivedID{"tickets", tickets})
	}
	return ids
}

// printDerived prints ids, one a line.
func printDerived(g *globals, ids []derivedID) error {
	t := tabwriter.NewWriter(g.out, 0, 0, 2, ' ', 0)
	for _, d := range ids {
		if g.json {
			if err := printLine(g.out, d); err != nil {
				return err
			}
			continue
		}
		fmt.Fprintf(t, "%s\t%s\n", d.Name, d.ID)
	}
	return t.Flush()
}

// newCoalitionDeriveCmd returns the verb that derives a coalition's ids.
func newCoalitionDeriveCmd(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "derive FILE",
		Short: "Derive the ids of a coalition",
		Long: `Computes what follows from a coalition's config: its id, which everybody who has
compiled it in compares; the root from which ids are derived; those of its modules and
of its tickets, if it has any. Nobody is asked, and nothing is looked up. With --json
it prints one object a line.`,
		Example: `  mosaik-node coalition derive coalition.toml`,
		Args:    exactly("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := readCoalition(g, args[0])
			if err != nil {
				return err
			}
			return printDerived(g, derived(c))
		},
	}
}

// newCoalitionShowCmd returns the verb that shows a coalition's members and modules.
func newCoalitionShowCmd(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "show FILE",
		Short: "Show whom and what a coalition names",
		Long: `Lists the members in their order, with their roles and pins, says for each of the five
basic services whether there is one, and for tickets whether they are issued. With
--json it prints the config in its canonical form.`,
		Example: `  mosaik-node coalition show coalition.toml`,
		Args:    exactly("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := readCoalition(g, args[0])
			if err != nil {
				return err
			}
			if g.json {
				return printLine(g.out, c)
			}
			t := tabwriter.NewWriter(g.out, 0, 0, 2, ' ', 0)
			fmt.Fprintf(t, "name\t%s\n", c.Name)
			for _, list := range [][]organisms.Ref{c.Lattices, c.Organisms} {
				for _, r := range list {
					pin := "follows its rotations"
					if r.ContentHash != nil {
						pin = "pinned to " + r.ContentHash.String()
					}
					fmt.Fprintf(t, "%s\t%s\t%s\n", r.Role, r.StableID, pin)
				}
			}
			for _, kind := range coalition.ModuleKinds() {
				state := "not shipped"
				if m, err := c.Module(kind); err == nil {
					state = m.StableID.String()
				}
				fmt.Fprintf(t, "%s\t%s\n", kind, state)
			}
			issuer := "not issued"
			if c.TicketIssuer != nil {
				issuer = "issued by " + c.TicketIssuer.Name
			}
			fmt.Fprintf(t, "tickets\t%s\n", issuer)
			return t.Flush()
		},
	}
}

// differenceInfo is a difference as JSON.
type differenceInfo struct {
	Trigger int    `json:"trigger"`
	Field   string `json:"field"`
	Change  string `json:"change"`
	Do      string `json:"do"`
}

// newCoalitionDiffCmd returns the verb that compares two configs.
func newCoalitionDiffCmd(g *globals) *cobra.Command {
	var same bool
	cmd := &cobra.Command{
		Use:   "diff OLD NEW",
		Short: "Say what has changed in a coalition, and what integrators must do",
		Long: `Compares two configs and prints what changes the coalition's id, by the nine triggers
that the coalition's rules number, and the retirement policy, which is a tenth: for each
the field, what has become of it, and what whoever has compiled the old config in has to
do. With --json it prints one object a line. With --same it fails if the two have not the
same id.`,
		Example: `  mosaik-node coalition diff published.toml coalition.toml`,
		Args:    exactly("OLD", "NEW"),
		RunE: func(cmd *cobra.Command, args []string) error {
			before, err := readCoalition(g, args[0])
			if err != nil {
				return err
			}
			after, err := readCoalition(g, args[1])
			if err != nil {
				return err
			}
			differences := coalition.Diff(before, after)
			for _, d := range differences {
				if g.json {
					err = printLine(g.out, differenceInfo{int(d.Trigger), d.Field, d.Change, d.Do})
				} else {
					_, err = fmt.Fprintf(g.out, "%d  %s: %s\n   %s\n", d.Trigger, d.Field, d.Change, d.Do)
				}
				if err != nil {
					return err
				}
			}
			if same && before.ID() != after.ID() {
				return fmt.Errorf("the coalition id is %s now, it was %s", after.ID(), before.ID())
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&same, "same", false, "fail if they have not the same id")
	return cmd
}

// newOrganismDeriveCmd returns the verb that derives an organism's stable id.
func newOrganismDeriveCmd(g *globals) *cobra.Command {
	var streams []string
	cmd := &cobra.Command{
		Use:   "derive NAME",
		Short: "Derive the stable id of an organism or a lattice from its name",
		Long: `Computes the id that names an organism or a lattice through all its rotations, and those of
its streams and collections. It is for its operator, who publishes it: others take the
published one, and may compare.`,
		Example: `  mosaik-node organism derive oracle-γ.oracle --stream ticks`,
		Args:    exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := identity.ValidateName(args[0]); err != nil {
				return usage(cmd, err)
			}
			c := organisms.Config{InstanceName: args[0]}
			ids := []derivedID{{"stable id", c.StableID()}}
			for _, s := range streams {
				if err := identity.ValidateName(s); err != nil {
					return usage(cmd, fmt.Errorf("--stream: %w", err))
				}
				ids = append(ids, derivedID{s, c.StreamID(s)})
			}
			return printDerived(g, ids)
		},
	}
	cmd.Flags().StringArrayVar(&streams, "stream", nil, "a stream or collection of it; may be repeated")
	return cmd
}
