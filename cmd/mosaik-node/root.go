package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

// globals is what every verb gets: the standard streams and the flags that mean
// the same everywhere.
type globals struct {
	in       io.Reader
	out, err io.Writer
	json     bool // print data as JSON
}

// run runs one command line and returns its exit code. Errors are printed here
// and nowhere else.
func run(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer) int {
	g := &globals{in: in, out: out, err: errOut}
	root := newRootCmd(g)
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errOut)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	code := exitCode(ctx, err)
	var partial *partialError
	if code != exitInterrupted || errors.As(err, &partial) {
		printError(errOut, err)
	}
	return code
}

// printError prints an error and, if there is one, the next step to take.
func printError(w io.Writer, err error) {
	fmt.Fprintf(w, "mosaik-node: %s\n", plain(err))
	if hint := hintFor(err); hint != "" {
		fmt.Fprintf(w, "  %s\n", hint)
	}
}

// newRootCmd returns the whole command line.
func newRootCmd(g *globals) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "mosaik-node",
		Short: "A replicated, replayable log",
		Long: `mosaik-node keeps logs: any number of streams of records, agreed on by a group of
nodes, durable before they are acknowledged, and chained by hash so that everyone
can check afterwards what was written and in which order. Maps, sets, vecs, cells
and queues are folded from such logs, and can be read as of any commit.

The verbs that read and write work on a store's directory (--dir), which they
open themselves, or on a running node (--node URL). MOSAIK_DIR and MOSAIK_NODE
stand in for the two.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 partly done, 10 no store here,
11 store locked, 12 corrupt, 13 not accepted, 14 no quorum or node unreachable,
130 interrupted.`,
		Example: `  mosaik-node demo
  mosaik-node serve --dir data
  mosaik-node stream append oracle.price --node http://127.0.0.1:7070 < lines
  mosaik-node stream tail oracle.price --node http://127.0.0.1:7070 --follow
  mosaik-node replay audit --dir data`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs, // needsVerb refuses them
		RunE:          needsVerb,
	}
	cmd.CompletionOptions.HiddenDefaultCmd = true
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return usage(cmd, err) })
	cmd.PersistentFlags().BoolVar(&g.json, "json", false, "print data as JSON")
	cmd.AddCommand(
		newBenchCmd(g),
		newCheckCmd(g),
		newCellCmd(g),
		newNounCmd("coalition", "Name organisms together", `A coalition is a name for organisms and lattices, with up to five basic services. It is
compiled into the programs that use it, is no authority over anybody, and its members have
not been asked (docs/coalition.md).`,
			newCoalitionDeriveCmd(g), newCoalitionDiffCmd(g),
			newNounCmd("handshake", "Publish a coalition, and check what was published", `The handshake is the page by which an integrator comes to know a coalition.`,
				newHandshakeRenderCmd(g), newHandshakeVerifyCmd(g)),
			newCoalitionInitCmd(g),
			newNounCmd("member", "Name members", `A member is referred to by the stable id that its operator has published.`,
				newCoalitionAddCmd(g)),
			newCoalitionShowCmd(g)),
		newNounCmd("commit", "Look at single commits", `A commit is what a group agrees on at once: records of one or more streams,
numbered from 1, chained to the commit before it by hash.`,
			newCommitShowCmd(g)),
		newNounCmd("config", "Look at the configuration of serve", `The settings of serve come from its flags, then from MOSAIK_* variables, then from
one TOML file, all under the same names.`,
			newConfigCheckCmd(g)),
		newDemoCmd(g),
		newNounCmd("group", "Look at groups", `A group is a set of nodes that agree on one sequence of commits.`,
			newGroupListCmd(g), newGroupStatusCmd(g), newGroupTransferCmd(g), newGroupRefoldCmd(g),
			newGroupMembersCmd(g), newGroupAdmitCmd(g), newGroupEvictCmd(g), newGroupPolicyCmd(g)),
		newIDCmd(g),
		newInitCmd(g),
		newMapCmd(g),
		newNounCmd("network", "Look at the network a node is one of", `Nodes of one network, and of no other, make connections with each other.`,
			newNetworkStatusCmd(g)),
		newNounCmd("node", "Look after nodes", `A node is one process with one store; a member is a node that votes in groups.`,
			newNodeRebuildCmd(g)),
		newOnceCmd(g),
		newNounCmd("oracle", "Run price oracles, and check them", `An oracle asks sources for prices and publishes what follows from the answers, so that
anybody can compute it again.`,
			newOracleAuditCmd(g), newOracleRetireCmd(g), newOracleReviseCmd(g), newOracleRunCmd(g), newOracleShowCmd(g), newOracleTailCmd(g)),
		newNounCmd("organism", "Look at organisms", `An organism is a deterministic machine with one config and a narrow public surface.`,
			newOrganismDeriveCmd(g)),
		newNounCmd("peer", "Look at other nodes", `A peer is another node of the network, by its key.`,
			newPeerListCmd(g), newPeerPingCmd(g), newPeerShowCmd(g)),
		newNounCmd("pointer", "Check evidence", `A pointer is evidence: it names a commit by its number and its hash, and perhaps a
record in it. Every write returns one.`,
			newPointerVerifyCmd(g)),
		newNounCmd("replay", "Read history again", `Replaying goes through the commits of a group in their order, checks each against
itself and the one before, and gives what they hold.`,
			newReplayAuditCmd(g), newReplayFoldCmd(g), newReplayRunCmd(g)),
		newQueueCmd(g),
		newNounCmd("segment", "Look at sealed segments", `A segment is a run of commits that no longer changes. Every member keeps one shard of
each; what the retention does not keep in the store is read from the shards.`,
			newSegmentFetchCmd(g), newSegmentListCmd(g), newSegmentPinCmd(g), newSegmentScrubCmd(g), newSegmentShowCmd(g), newSegmentUnpinCmd(g)),
		newServeCmd(g),
		newSetCmd(g),
		newNounCmd("snapshot", "Carry a group's history elsewhere", `An export is the whole history of a group in one file that proves itself.`,
			newSnapshotExportCmd(g), newSnapshotImportCmd(g), newSnapshotListCmd(g), newSnapshotStatusCmd(g), newSnapshotVerifyCmd(g)),
		newNounCmd("stream", "Read and write streams", `A stream is the log of one name: records, numbered from 1, that are appended and
never change.`,
			newStreamAppendCmd(g), newStreamListCmd(g), newStreamTailCmd(g)),
		newNounCmd("tdx", "Attest machines", `Intel TDX proves to others which image a machine runs (docs/attestation.md).`,
			newNounCmd("collateral", "Keep what Intel says about platforms", `Collateral is what quotes are verified with: signed by Intel, for one kind of platform, with an end.`,
				newTDXCollateralFetchCmd(g), newTDXCollateralShowCmd(g)),
			newTDXInspectCmd(g), newTDXPolicyCmd(g), newTDXQuoteCmd(g), newTDXVerifyCmd(g)),
		newNounCmd("ticket", "Issue and check tickets", `A ticket is a credential that a peer carries for everybody to see. Nodes that ask for one
let its holder in as long as it is valid.`,
			newTicketInspectCmd(g), newTicketIssueCmd(g), newTicketVerifyCmd(g)),
		newVecCmd(g),
		newVersionCmd(g),
	)
	return cmd
}

// newNounCmd returns a command that only groups verbs.
func newNounCmd(name, short, long string, verbs ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: name, Short: short, Long: long, Args: cobra.ArbitraryArgs, RunE: needsVerb}
	cmd.AddCommand(verbs...)
	return cmd
}

// needsVerb is what a command does that cannot do anything alone.
func needsVerb(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usage(cmd, fmt.Errorf("there is no %q in %q", args[0], cmd.CommandPath()))
	}
	return usage(cmd, errors.New("a verb is missing"))
}

// exactly returns a check that there are as many arguments as names.
func exactly(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < len(names):
			return usage(cmd, fmt.Errorf("%s is missing", names[len(args)]))
		case len(args) > len(names):
			return usage(cmd, fmt.Errorf("unexpected argument %q", args[len(names)]))
		}
		return nil
	}
}
