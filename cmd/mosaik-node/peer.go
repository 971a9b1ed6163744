package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/mosaik-engine/mosaik/cmd/mosaik-node/internal/api"
	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

// newPeerListCmd returns the verb that lists the peers a node knows of.
func newPeerListCmd(g *globals) *cobra.Command {
	var node string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the peers that a node knows of",
		Long: `Asks a running node for the peers of its network: those in its catalog, if it finds
others (serve --discover), and those it is connected with. One line for each: the peer,
where it says it is, its groups and tickets, the connections with it, and when it last
changed its entry, by its own clock. With --json it prints one object a line.`,
		Example: `  mosaik-node peer list --node http://127.0.0.1:7070`,
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return onNode(cmd, node, func(c *api.Client) error {
				peers, err := c.Peers(cmd.Context())
				if err != nil {
					return err
				}
				return printPeers(g, peers)
			})
		},
	}
	cmd.Flags().StringVar(&node, "node", "", nodeFlagHelp)
	return cmd
}

func printPeers(g *globals, peers []api.Peer) error {
	t := tabwriter.NewWriter(g.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "PEER\tADDRESS\tGROUPS\tTICKETS\tCONNECTIONS\tUPDATED")
	for _, p := range peers {
		if g.json {
			if err := printLine(g.out, p); err != nil {
				return err
			}
			continue
		}
		address, updated := "-", "-"
		if len(p.Addresses) > 0 {
			address = p.Addresses[0]
		}
		if !p.Updated.IsZero() {
			updated = p.Updated.Format(time.RFC3339)
		}
		conns := fmt.Sprint(len(p.Conns))
		if p.Self {
			conns = "itself"
		}
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%s\t%s\n", p.Peer, address, len(p.Groups), len(p.Tickets), conns, updated)
	}
	if g.json {
		return nil
	}
	return t.Flush()
}

// newPeerShowCmd returns the verb that shows what a node knows of a peer.
func newPeerShowCmd(g *globals) *cobra.Command {
	var node string
	cmd := &cobra.Command{
		Use:   "show PEER",
		Short: "Show what a node knows of a peer",
		Long: `Asks a running node for one peer of its network: what the peer says of itself in its
entry, which it has signed, and the connections with it. The first digits of the peer
are enough if no other begins with them.`,
		Example: `  mosaik-node peer show 2369f85d --node http://127.0.0.1:7070`,
		Args:    exactly("PEER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return onNode(cmd, node, func(c *api.Client) error {
				p, err := peerOf(cmd, c, args[0])
				if err != nil {
					return err
				}
				if g.json {
					return printLine(g.out, p)
				}
				return printPeer(g, p)
			})
		},
	}
	cmd.Flags().StringVar(&node, "node", "", nodeFlagHelp)
	return cmd
}

// peerOf finds the one peer that begins with the given digits.
func peerOf(cmd *cobra.Command, c *api.Client, digits string) (api.Peer, error) {
	peers, err := c.Peers(cmd.Context())
	if err != nil {
		return api.Peer{}, err
	}
	var found []api.Peer
	for _, p := range peers {
		if strings.HasPrefix(p.Peer.String(), digits) {
			found = append(found, p)
		}
	}
	switch {
	case digits == "" || len(found) > 1:
		return api.Peer{}, usage(cmd, fmt.Errorf("PEER: %q is the beginning of %d peers; give more digits", digits, len(found)))
	case len(found) == 0:
		return api.Peer{}, fmt.Errorf("%w: the node knows no peer that begins with %s; see: mosaik-node peer list", log.ErrNotFound, digits)
	}
	return found[0], nil
}

func printPeer(g *globals, p api.Peer) error {
	t := tabwriter.NewWriter(g.out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "peer\t%s\n", p.Peer)
	if p.Protocol == "" {
		fmt.Fprintf(t, "entry\tnone is known\n")
	} else {
		fmt.Fprintf(t, "protocol\t%s\nstarted\t%s\nupdated\t%s\n", p.Protocol, p.Started.Format(time.RFC3339), p.Updated.Format(time.RFC3339Nano))
	}
	for _, a := range p.Addresses {
		fmt.Fprintf(t, "address\t%s\n", a)
	}
	for _, list := range []struct {
		name string
		ids  []identity.ID
	}{{"tag", p.Tags}, {"stream", p.Streams}, {"group", p.Groups}} {
		for _, id := range list.ids {
			fmt.Fprintf(t, "%s\t%s\n", list.name, id)
		}
	}
	for _, ticket := range p.Tickets {
		class := ticket.Class.String()
		if ticket.Class == identity.JWTClass() {
			class = "JSON Web Token"
		}
		fmt.Fprintf(t, "ticket\t%s, %s, %d bytes\n", ticket.ID, class, ticket.Bytes)
	}
	slices.SortFunc(p.Conns, func(a, b api.Conn) int {
		return cmp.Or(strings.Compare(a.Protocol, b.Protocol), a.Since.Compare(b.Since))
	})
	for _, c := range p.Conns {
		by := "made by the peer"
		if c.Dialled {
			by = "made by the node"
		}
		until := ""
		if !c.Until.IsZero() {
			until = ", allowed until " + c.Until.UTC().Format(time.RFC3339)
		}
		fmt.Fprintf(t, "connection\t%s, %s, %s, since %s%s\n", c.Protocol, c.Address, by, c.Since.Format(time.RFC3339), until)
	}
	return t.Flush()
}

// newPeerPingCmd returns the verb that measures the way to a peer.
func newPeerPingCmd(g *globals) *cobra.Command {
	var node string
	var count int
	cmd := &cobra.Command{
		Use:   "ping PEER",
		Short: "Measure how long a message from a node to a peer and back takes",
		Long: `Has a running node that finds others (serve --discover) send a message to a peer and
wait for the answer, over an authenticated connection that is made for it. The first
digits of the peer are enough if no other begins with them.`,
		Example: `  mosaik-node peer ping 2369f85d --node http://127.0.0.1:7070`,
		Args:    exactly("PEER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if count < 1 || count > 1000 {
				return usage(cmd, fmt.Errorf("--count %d: 1 to 1000 are possible", count))
			}
			return onNode(cmd, node, func(c *api.Client) error {
				p, err := peerOf(cmd, c, args[0])
				if err != nil {
					return err
				}
				for range count {
					d, err := c.Ping(cmd.Context(), p.Peer)
					if err != nil {
						return err
					}
					if g.json {
						err = printLine(g.out, pingInfo{p.Peer, d.Microseconds()})
					} else {
						_, err = fmt.Fprintf(g.out, "%s answered after %v\n", p.Peer.Short(), d)
					}
					if err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&node, "node", "", nodeFlagHelp)
	cmd.Flags().IntVar(&count, "count", 1, "how often")
	return cmd
}

// pingInfo is a ping as JSON.
type pingInfo struct {
	Peer         identity.PeerID `json:"peer"`
	Microseconds int64           `json:"microseconds"`
}
