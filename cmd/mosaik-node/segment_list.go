package main

import (
	"context"
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/mosaik-engine/mosaik/engine"
	"github.com/mosaik-engine/mosaik/log"
)

// groupFlags say which group of which store's directory a verb works on.
type groupFlags struct {
	storeFlags
	group string
}

// addTo adds the flags to a verb.
func (f *groupFlags) addTo(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.dir, "dir", "", "directory of the store, which this process opens (MOSAIK_DIR)")
	cmd.Flags().StringVar(&f.group, "group", defaultGroup, "group, by name or ID")
}

// on opens the directory and lets do work on the group.
func (f *groupFlags) on(cmd *cobra.Command, g *globals, do func(ctx context.Context, group *engine.Group) error) error {
	return f.with(cmd, g, func(ctx context.Context, s store) error {
		d, ok := s.(*dirStore)
		if !ok {
			return usage(cmd, errors.New("--dir DIR is missing: this verb works on a directory, not on a running node"))
		}
		for _, group := range d.engine.Groups() {
			if group.Name() == f.group || group.ID().String() == f.group {
				return do(ctx, group)
			}
		}
		return fmt.Errorf("%w: there is no group %q here", log.ErrNotFound, f.group)
	})
}

// newSegmentListCmd returns the verb that lists sealed segments.
func newSegmentListCmd(g *globals) *cobra.Command {
	var of groupFlags
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the sealed segments of a group",
		Long: `Lists the segments that the group has sealed and agreed on: their commits and sizes,
into how many shards they are coded and how many of those restore them, how many
members hold their shard, and where this node has the commits: in its store, or only
in the archive. With --json it prints one object a line.`,
		Example: `  mosaik-node segment list --dir data --group g0`,
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return of.on(cmd, g, func(_ context.Context, group *engine.Group) error { return printSegments(g, group.Segments()) })
		},
	}
	of.addTo(cmd)
	return cmd
}

// segmentInfo is a sealed segment as JSON.
type segmentInfo struct {
	Segment  uint64     `json:"segment"`
	First    uint64     `json:"first"`
	Last     uint64     `json:"last"`
	Time     time.Time  `json:"time"` // of the last commit
	Records  uint64     `json:"records"`
	Bytes    uint64     `json:"bytes"`
	Hash     log.Digest `json:"hash"`
	K        int        `json:"k"`
	M        int        `json:"m"`
	State    uint64     `json:"state,omitempty"` // bytes of the state captured with it
	Held     int        `json:"held"`            // members that have their shard
	Archived bool       `json:"archived"`        // its commits are not in this node's store any more
}

func printSegments(g *globals, s engine.Segments) error {
	table := tabwriter.NewWriter(g.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "SEGMENT\tCOMMITS\tRECORDS\tBYTES\tSHARDS\tHELD\tSTATE\tWHERE\tHASH")
	for _, m := range s.Manifests {
		info := segmentInfo{
			Segment: m.Number, First: m.First, Last: m.Last, Time: time.Unix(0, m.Time).UTC(), Records: m.Records, Bytes: m.Commits.Size,
			Hash: m.Commits.Hash, K: m.Commits.K, M: m.Commits.M, State: m.State.Size, Archived: m.Number <= s.Archived,
		}
		for _, h := range s.Held {
			if h >= m.Number {
				info.Held++
			}
		}
		if g.json {
			if err := printLine(g.out, info); err != nil {
				return err
			}
			continue
		}
		where := "store"
		if info.Archived {
			where = "archive"
		}
		fmt.Fprintf(table, "%d\t%d-%d\t%d\t%d\t%d+%d\t%d of %d\t%d\t%s\t%s\n", info.Segment, info.First, info.Last, info.Records, info.Bytes,
			info.K, info.M, info.Held, len(s.Held), info.State, where, info.Hash)
	}
	if g.json {
		return nil
	}
	return table.Flush()
}
