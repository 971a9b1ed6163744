package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/mosaik-engine/mosaik/cmd/mosaik-node/internal/api"
	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

// newGroupStatusCmd returns the verb that describes a group.
func newGroupStatusCmd(g *globals) *cobra.Command {
	var of storeFlags
	cmd := &cobra.Command{
		Use: "status NAME", Short: "Say who leads a group, and how far this node is",
		Long: `Prints what the node knows of one of its groups: members, leader and term, the last
commit with its digest and that of the views, and whether this node has come to
other bytes than the majority and therefore serves nothing of the group.`,
		Example: `  mosaik-node group status g0 --node http://127.0.0.1:7070`,
		Args:    exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return of.with(cmd, g, func(ctx context.Context, s store) error {
				group, err := groupNamed(ctx, s, args[0])
				if err != nil {
					return err
				}
				if g.json {
					return printLine(g.out, group)
				}
				leader := "none known"
				if group.Leader != nil {
					leader = group.Leader.String()
				}
				fmt.Fprintf(g.out, "group    %s  %s\nleader   %s\nterm     %d\ncommit   %d  %s\nviews    %s\napplied  %d\n",
					group.Name, group.ID, leader, group.Term, group.Head.Commit, group.Head.Digest, group.State, group.Applied)
				for _, m := range group.Members {
					who := m.String()
					switch {
					case m.IsZero():
						who = "-  (the seat is vacant)"
					case m == group.Self:
						who += "  (this node)"
					}
					fmt.Fprintf(g.out, "member   %s\n", who)
				}
				switch {
				case group.Evicted:
					fmt.Fprintln(g.out, "vote     none: this node was evicted")
				case group.Reader:
					fmt.Fprintln(g.out, "vote     none: this node has no seat, or has not caught up")
				}
				if group.Diverged != "" {
					fmt.Fprintf(g.out, "diverged %s\n", group.Diverged)
				}
				return nil
			})
		},
	}
	of.addTo(cmd)
	return cmd
}

// groupNamed returns the group of a name or ID.
func groupNamed(ctx context.Context, s store, name string) (api.Group, error) {
	groups, err := s.Groups(ctx)
	if err != nil {
		return api.Group{}, err
	}
	for _, g := range groups {
		if g.Name == name || g.ID.String() == name {
			return g, nil
		}
	}
	return api.Group{}, fmt.Errorf("%w: there is no group %q here", log.ErrNotFound, name)
}

// newGroupTransferCmd returns the verb that moves the lead.
func newGroupTransferCmd(g *globals) *cobra.Command {
	var of storeFlags
	var to string
	cmd := &cobra.Command{
		Use: "transfer NAME", Short: "Make another member lead a group",
		Long: `Asks the group to follow another member and waits until it does. One that is down or
behind does not get the lead; then the exit code is 14.`,
		Example: `  mosaik-node group transfer g0 --to PEER --node http://127.0.0.1:7070`,
		Args:    exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			peer, err := identity.ParsePeerID(to)
			if err != nil {
				return usage(cmd, fmt.Errorf("--to: %w", err))
			}
			return of.with(cmd, g, func(ctx context.Context, s store) error {
				if err := s.Transfer(ctx, args[0], peer); err != nil {
					return err
				}
				group, err := groupNamed(ctx, s, args[0])
				if err != nil {
					return err
				}
				if g.json {
					return printLine(g.out, group)
				}
				_, err = fmt.Fprintf(g.out, "%s leads group %s in term %d\n", peer, group.Name, group.Term)
				return err
			})
		},
	}
	of.addTo(cmd)
	cmd.Flags().StringVar(&to, "to", "", "the member, 64 hex digits")
	return cmd
}

// newGroupRefoldCmd returns the verb that builds views anew.
func newGroupRefoldCmd(g *globals) *cobra.Command {
	var of storeFlags
	cmd := &cobra.Command{
		Use: "refold NAME", Short: "Build the views of a group anew from its log",
		Long: `Drops what this node has folded from the group's log (maps, sets and the like) and
folds it again. A node that has come to other bytes than the majority serves the
group again afterwards. The group cannot be read on this node meanwhile.

"differs" names the first commit whose header does not have the state that folding
comes to: from there on this node's views were wrong.`,
		Example: `  mosaik-node group refold g0 --dir data`,
		Args:    exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return of.with(cmd, g, func(ctx context.Context, s store) error {
				r, err := s.Refold(ctx, args[0])
				if err != nil {
					return err
				}
				if g.json {
					return printLine(g.out, r)
				}
				_, err = fmt.Fprintf(g.out, "group %s: %d commits folded, %d rows written\n", args[0], r.Commits, r.Rows)
				if err == nil && r.Differs != 0 {
					_, err = fmt.Fprintf(g.out, "  commit %d was the first whose header has another state; %d headers were mended\n", r.Differs, r.Rewritten)
				}
				return err
			})
		},
	}
	of.addTo(cmd)
	return cmd
}
