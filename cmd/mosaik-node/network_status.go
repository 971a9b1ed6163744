package main

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/mosaik-engine/mosaik/cmd/mosaik-node/internal/api"
	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/network"
)

// onNode connects with a running node.
func onNode(cmd *cobra.Command, address string, do func(*api.Client) error) (err error) {
	address = cmp.Or(address, os.Getenv("MOSAIK_NODE"))
	if address == "" {
		return usage(cmd, errors.New("--node URL is missing"))
	}
	c, err := api.NewClient(address)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	return do(c)
}

const nodeFlagHelp = "address of a running node, such as http://127.0.0.1:7070 (MOSAIK_NODE)"

// newNetworkStatusCmd returns the verb that describes a node's place in its network.
func newNetworkStatusCmd(g *globals) *cobra.Command {
	var node string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show a node's place in its network, and who was refused why",
		Long: `Asks a running node about the network it is one of: who it is, where it listens,
with how many others it is connected, and how many connections were refused or ended,
by reason. The reasons are those of docs/format/bond.md; what this node has refused and
what others have refused it are told apart.`,
		Example: `  mosaik-node network status --node http://127.0.0.1:7070`,
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return onNode(cmd, node, func(c *api.Client) error {
				n, err := c.Network(cmd.Context())
				if err != nil {
					return err
				}
				if g.json {
					return printLine(g.out, n)
				}
				return printNetwork(g, n)
			})
		},
	}
	cmd.Flags().StringVar(&node, "node", "", nodeFlagHelp)
	return cmd
}

func printNetwork(g *globals, n api.Network) error {
	peers := make(map[identity.PeerID]bool)
	for _, c := range n.Conns {
		peers[c.Peer] = true
	}
	t := tabwriter.NewWriter(g.out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "network\t%s\n", n.Name)
	fmt.Fprintf(t, "peer\t%s\n", n.Peer)
	fmt.Fprintf(t, "listen\t%s\n", n.Listen)
	fmt.Fprintf(t, "connected\t%s, %s\n", plural(len(peers), "peer"), plural(len(n.Conns), "connection"))
	fmt.Fprintf(t, "made\t%d accepted, %d dialled, %d addresses did not answer\n", n.Accepted, n.Dialled, n.Failed)
	fmt.Fprintf(t, "carried\t%s in, %s out\n", kilobytes(n.BytesIn), kilobytes(n.BytesOut))
	for _, counts := range []struct {
		name string
		of   map[network.Reason]uint64
	}{{"refused", n.Refused}, {"refused by others", n.RefusedBy}, {"ended", n.Closed}} {
		for _, reason := range slices.Sorted(maps.Keys(counts.of)) {
			fmt.Fprintf(t, "%s\t%d %s\n", counts.name, counts.of[reason], string(reason))
		}
	}
	return t.Flush()
}
