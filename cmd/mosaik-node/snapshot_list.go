package main

import (
	"context"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/mosaik-engine/mosaik/cmd/mosaik-node/internal/api"
)

// newSnapshotListCmd returns the verb that lists captured states.
func newSnapshotListCmd(g *globals) *cobra.Command {
	var of groupFlags
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the states that were captured with segments",
		Long: `Now and then a group captures its views as of the end of a segment, so that a member
that joins need not fold the whole history. Lists these states: the segment and the
commit they are of, their size and hash, and whether this node has its shard; the
shards of older states are not kept. With --json it prints one object a line.`,
		Example: `  mosaik-node snapshot list --node http://127.0.0.1:7070`,
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return of.with(cmd, g, func(ctx context.Context, s store) error {
				list, err := s.Segments(ctx, of.group)
				if err != nil {
					return err
				}
				table := tabwriter.NewWriter(g.out, 0, 0, 2, ' ', 0)
				fmt.Fprintln(table, "SEGMENT\tCOMMIT\tBYTES\tHERE\tHASH")
				for i := range list.Segments {
					s := &list.Segments[i]
					switch {
					case s.StateHash == nil:
						continue
					case g.json:
						if err := printLine(g.out, stateInfo{s.Segment, s.Last, s.State, s.StateHash.String(), s.StateHere}); err != nil {
							return err
						}
						continue
					}
					fmt.Fprintf(table, "%d\t%d\t%d\t%v\t%s\n", s.Segment, s.Last, s.State, s.StateHere, s.StateHash)
				}
				if g.json {
					return nil
				}
				return table.Flush()
			})
		},
	}
	of.addTo(cmd)
	return cmd
}

// stateInfo is a captured state as JSON.
type stateInfo struct {
	Segment uint64 `json:"segment"`
	Commit  uint64 `json:"commit"`
	Bytes   uint64 `json:"bytes"`
	Hash    string `json:"hash"`
	Here    bool   `json:"here"` // this node has its shard
}

// newSnapshotStatusCmd returns the verb that sums up a group's history.
func newSnapshotStatusCmd(g *globals) *cobra.Command {
	var of groupFlags
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show how a group's history is kept: sealed, archived, pinned",
		Long: `Sums up where a group's history is: how much is sealed and how much is not yet, how
much of it this node has only in the archive, what is pinned, the last captured
state, and whether the node's shards are there.`,
		Example: `  mosaik-node snapshot status --node http://127.0.0.1:7070`,
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return of.with(cmd, g, func(ctx context.Context, s store) error {
				list, err := s.Segments(ctx, of.group)
				if err != nil {
					return err
				}
				info := historyOf(&list)
				if g.json {
					return printLine(g.out, info)
				}
				return info.print(g)
			})
		},
	}
	of.addTo(cmd)
	return cmd
}

// historyInfo is how a group's history is kept, as JSON.
type historyInfo struct {
	Group         string     `json:"group"`
	Head          uint64     `json:"head"`
	Segments      uint64     `json:"segments"`
	Sealed        uint64     `json:"sealed"` // last commit of them
	SealedBytes   uint64     `json:"sealed_bytes"`
	Archived      uint64     `json:"archived"` // last commit that is only in the archive
	ArchivedBytes uint64     `json:"archived_bytes"`
	Pins          []uint64   `json:"pins"`
	State         *stateInfo `json:"state,omitempty"` // the last one
	Missing       uint64     `json:"missing"`         // shards that the node should have and has not
}

func historyOf(list *api.Segments) *historyInfo {
	info := &historyInfo{Group: list.Name, Head: list.Head, Segments: uint64(len(list.Segments)), Pins: list.Pins, Missing: list.Missing}
	for i := range list.Segments {
		s := &list.Segments[i]
		info.Sealed = s.Last
		info.SealedBytes += s.Bytes
		if s.Archived {
			info.Archived = s.Last
			info.ArchivedBytes += s.Bytes
		}
		if s.StateHash != nil {
			info.State = &stateInfo{s.Segment, s.Last, s.State, s.StateHash.String(), s.StateHere}
		}
	}
	return info
}

func (i *historyInfo) print(g *globals) error {
	t := tabwriter.NewWriter(g.out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "group\t%s, %s\n", i.Group, plural(i.Head, "commit"))
	if i.Segments == 0 {
		fmt.Fprintln(t, "sealed\tnothing yet")
	} else {
		fmt.Fprintf(t, "sealed\tup to commit %d, %s of %s; %s since\n", i.Sealed, plural(i.Segments, "segment"), kilobytes(i.SealedBytes), plural(i.Head-i.Sealed, "commit"))
	}
	if i.Archived > 0 {
		fmt.Fprintf(t, "archived\tup to commit %d, %s; later ones are in the store too\n", i.Archived, kilobytes(i.ArchivedBytes))
	}
	if len(i.Pins) > 0 {
		fmt.Fprintf(t, "pinned\tfrom commit %d on, by %s\n", i.Pins[0], plural(len(i.Pins), "pin"))
	}
	if i.State != nil {
		fmt.Fprintf(t, "state\tas of commit %d, %s\n", i.State.Commit, kilobytes(i.State.Bytes))
	}
	if i.Missing > 0 {
		fmt.Fprintf(t, "missing\t%s: the node makes them anew; segment scrub does it now\n", plural(i.Missing, "shard"))
	}
	return t.Flush()
}
