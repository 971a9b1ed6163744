package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/mosaik-engine/mosaik/engine"
	"github.com/mosaik-engine/mosaik/identity"
)

// newSnapshotImportCmd returns the verb that restores a group from an export.
func newSnapshotImportCmd(g *globals) *cobra.Command {
	var dir, group, peer string
	var members []string
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "Restore a group from an export",
		Long: `Restores all commits of a group from an export, each checked, and folds the
collections from them. The store is made if there is none; the group must have no
commits in it. FILE is - for standard input.

The members that founded the group are part of its id, so a new store needs their
names: --peer for the node's own, --members for all of several, in their order
(group status shows them). An export of another group is refused. Of several
members restore each one, from the same export, before you start any of them.`,
		Example: `  mosaik-node snapshot import g0.mosaik --dir restored --peer 5d4c...`,
		Args:    exactly("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if dir == "" {
				dir = os.Getenv("MOSAIK_DIR")
			}
			if dir == "" {
				return usage(cmd, errors.New("--dir DIR is missing"))
			}
			o := &engine.Options{Machines: organismMachines()}
			var err error
			if peer != "" {
				if o.Peer, err = identity.ParsePeerID(peer); err != nil {
					return usage(cmd, fmt.Errorf("--peer: %w", err))
				}
				o.Members = []identity.PeerID{o.Peer}
			}
			for i, text := range members {
				m, err := identity.ParsePeerID(text)
				if err != nil {
					return usage(cmd, fmt.Errorf("--members: %w", err))
				}
				o.Members = append(o.Members[:i], m)
			}
			in, err := openInput(g, args[0])
			if err != nil {
				return err
			}
			head, err := engine.Import(cmd.Context(), dir, o, group, in)
			if errors.Is(err, engine.ErrForeign) {
				err = fmt.Errorf("%w\n  a group is what its name and its members make it: --group, --peer, --members", err)
			}
			if err = errors.Join(err, in.Close()); err != nil {
				return err
			}
			_, err = fmt.Fprintf(g.out, "group %s: commits 1 to %d restored, head %s\n", group, head.Number, head.Digest)
			return err
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", "directory of the store (MOSAIK_DIR)")
	cmd.Flags().StringVar(&group, "group", defaultGroup, "name of the group")
	cmd.Flags().StringVar(&peer, "peer", "", "the node's own name among the members, of a new store")
	cmd.Flags().StringSliceVar(&members, "members", nil, "all members, in the order in which they founded the group (default: --peer alone)")
	return cmd
}
