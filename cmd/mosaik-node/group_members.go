package main

import (
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/mosaik-engine/mosaik/cmd/mosaik-node/internal/api"
	"github.com/mosaik-engine/mosaik/identity"
)

// newGroupMembersCmd returns the verb that lists the members of a group.
func newGroupMembersCmd(g *globals) *cobra.Command {
	var node string
	cmd := &cobra.Command{
		Use: "members NAME", Short: "List the members of a group",
		Long: `Lists who the members of a group are: the seat of each, its number, until when it may
take part, and who let it in. Members with a seat vote; the others read along, and get a
seat that becomes vacant. All of it stands in the group's log mosaik.members, so what it
was at any commit can be replayed.`,
		Example: `  mosaik-node group members g0 --node http://127.0.0.1:7070`,
		Args:    exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return onNode(cmd, node, func(c *api.Client) error {
				m, err := c.Members(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				if g.json {
					return printLine(g.out, m)
				}
				t := tabwriter.NewWriter(g.out, 0, 0, 2, ' ', 0)
				fmt.Fprintln(t, "SEAT\tPEER\tNUMBER\tUNTIL\tLET IN BY\tEVIDENCE")
				for _, x := range m.Members {
					seat, until, by, evidence := "reader", "-", "founder", "-"
					if x.Seat != 0 {
						seat = fmt.Sprint(x.Seat)
					}
					if !x.Expires.IsZero() {
						until = x.Expires.Format(time.RFC3339)
					}
					if x.By != nil {
						by, evidence = x.By.Short(), "an operator's word"
					}
					if x.Evidence != nil {
						evidence = x.Evidence.Short()
					}
					fmt.Fprintf(t, "%s\t%s\t%d\t%s\t%s\t%s\n", seat, x.Peer, x.Number, until, by, evidence)
				}
				return t.Flush()
			})
		},
	}
	cmd.Flags().StringVar(&node, "node", "", nodeFlagHelp)
	return cmd
}

// newGroupAdmitCmd returns the verb that lets a peer in.
func newGroupAdmitCmd(g *globals) *cobra.Command {
	var node string
	var lifetime time.Duration
	cmd := &cobra.Command{
		Use: "admit PEER", Short: "Let a peer into the groups of a node",
		Long: `Commits that a peer, which is no founder, may take part in all groups of the node. It
gets a vacant seat; without one it reads along, if the policy has room for it. Then it is
started with the settings of the others, "members" naming the founders: it joins, fetches
what there is, and has its vote when it has caught up.

Of a peer that is a member the admission is renewed: --lifetime counts from now.`,
		Example: `  mosaik-node group admit PEER --node http://127.0.0.1:7070
  mosaik-node group admit PEER --lifetime 720h --node http://127.0.0.1:7070`,
		Args: exactly("PEER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			peer, err := identity.ParsePeerID(args[0])
			if err != nil {
				return usage(cmd, fmt.Errorf("PEER: %w", err))
			}
			var expires time.Time
			if cmd.Flags().Changed("lifetime") {
				if lifetime <= 0 {
					return usage(cmd, errors.New("--lifetime: it has to be above 0"))
				}
				expires = time.Now().Add(lifetime)
			}
			return onNode(cmd, node, func(c *api.Client) error {
				number, err := c.Admit(cmd.Context(), peer, expires)
				if err != nil {
					return err
				}
				if g.json {
					return printLine(g.out, map[string]any{"peer": peer, "number": number})
				}
				_, err = fmt.Fprintf(g.out, "%s is member %d\n", peer, number)
				return err
			})
		},
	}
	cmd.Flags().StringVar(&node, "node", "", nodeFlagHelp)
	cmd.Flags().DurationVar(&lifetime, "lifetime", 0, "take it out again after this time; without it, it stays")
	return cmd
}

// newGroupEvictCmd returns the verb that takes a peer out.
func newGroupEvictCmd(g *globals) *cobra.Command {
	var node string
	cmd := &cobra.Command{
		Use: "evict PEER", Short: "Take a peer out of the groups of a node",
		Long: `Commits that a peer is no member of the node's groups any more. The others cut it off,
its replicas leave and its seat becomes vacant, for a reader if the policy promotes one or
for whoever is admitted next. A founder can be evicted as well; the last member of a
committee cannot.

Evict a machine that is lost before another one is admitted in its place: only that makes
its vote void.`,
		Example: `  mosaik-node group evict PEER --node http://127.0.0.1:7070`,
		Args:    exactly("PEER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			peer, err := identity.ParsePeerID(args[0])
			if err != nil {
				return usage(cmd, fmt.Errorf("PEER: %w", err))
			}
			return onNode(cmd, node, func(c *api.Client) error {
				if err := c.Evict(cmd.Context(), peer); err != nil {
					return err
				}
				if g.json {
					return printLine(g.out, map[string]any{"peer": peer, "evicted": true})
				}
				_, err := fmt.Fprintf(g.out, "%s is no member any more\n", peer)
				return err
			})
		},
	}
	cmd.Flags().StringVar(&node, "node", "", nodeFlagHelp)
	return cmd
}

// newGroupPolicyCmd returns the verb that shows and changes the policy of membership.
func newGroupPolicyCmd(g *globals) *cobra.Command {
	var node string
	var want struct {
		open, promote bool
		readers       int
		grace         time.Duration
		since         string
	}
	cmd := &cobra.Command{
		Use: "policy NAME", Short: "Show or change how the membership of groups changes by itself",
		Long: `Prints the policy of a group. With one of the flags it is changed in what they say, for
all groups of the node. What holds without a policy is that only an operator changes the
membership.`,
		Example: `  mosaik-node group policy g0 --node http://127.0.0.1:7070
  mosaik-node group policy g0 --open --promote --readers 2 --grace 1h --node http://127.0.0.1:7070`,
		Args: exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			changed := cmd.Flags().Changed
			var since time.Time
			if want.since != "" {
				var err error
				if since, err = time.Parse(time.RFC3339, want.since); err != nil {
					return usage(cmd, fmt.Errorf("--since: %w", err))
				}
			}
			return onNode(cmd, node, func(c *api.Client) error {
				m, err := c.Members(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				p := m.Policy
				before := p
				if changed("open") {
					p.Open = want.open
				}
				if changed("promote") {
					p.Promote = want.promote
				}
				if changed("readers") {
					p.Readers = want.readers
				}
				if changed("grace") {
					p.Grace = want.grace.String()
				}
				if changed("since") {
					p.Since = since
				}
				if p != before {
					if err := c.SetMembershipPolicy(cmd.Context(), p); err != nil {
						return err
					}
				}
				if g.json {
					return printLine(g.out, p)
				}
				since := "any time"
				if !p.Since.IsZero() {
					since = p.Since.Format(time.RFC3339)
				}
				_, err = fmt.Fprintf(g.out, "open     %t\npromote  %t\nreaders  %d\ngrace    %s\nsince    %s\n", p.Open, p.Promote, p.Readers, p.Grace, since)
				return err
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&node, "node", "", nodeFlagHelp)
	flags.BoolVar(&want.open, "open", false, "let in every peer that asks and fulfils what is asked of members (--ticket-key, --tdx-policy)")
	flags.BoolVar(&want.promote, "promote", false, "give a vacant seat to the member that has read along for longest")
	flags.IntVar(&want.readers, "readers", 0, "how many members may be without a seat, at most 32")
	flags.DurationVar(&want.grace, "grace", 0, "take out who was let in and is away for longer; 0: nobody")
	flags.StringVar(&want.since, "since", "", "take out who was let in before this time, and accept later admissions only: RFC 3339")
	return cmd
}
