package main

import (
	"context"
	"fmt"
	"strconv"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/mosaik-engine/mosaik/cmd/mosaik-node/internal/api"
	"github.com/mosaik-engine/mosaik/log"
)

// groupFlags say which group of which store a verb works on.
type groupFlags struct {
	storeFlags
	group string
}

// addTo adds the flags to a verb.
func (f *groupFlags) addTo(cmd *cobra.Command) {
	f.storeFlags.addTo(cmd)
	cmd.Flags().StringVar(&f.group, "group", defaultGroup, "group, by name or ID")
}

// segmentNumber reads the argument of a verb.
func segmentNumber(cmd *cobra.Command, what, text string) (uint64, error) {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil || n == 0 {
		return 0, usage(cmd, fmt.Errorf("%s: %q is no number of a %s", what, text, map[string]string{"COMMIT": "commit", "SEGMENT": "segment"}[what]))
	}
	return n, nil
}

// oneSegment returns a segment of a list.
func oneSegment(list *api.Segments, n uint64) (*api.Segment, error) {
	if n > uint64(len(list.Segments)) {
		return nil, fmt.Errorf("%w: segment %d of group %s, %d are sealed", log.ErrNotFound, n, list.Name, len(list.Segments))
	}
	return &list.Segments[n-1], nil
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
		Example: `  mosaik-node segment list --node http://127.0.0.1:7070
  mosaik-node segment list --dir data --group g0`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return of.with(cmd, g, func(ctx context.Context, s store) error {
				list, err := s.Segments(ctx, of.group)
				if err != nil {
					return err
				}
				return printSegments(g, &list)
			})
		},
	}
	of.addTo(cmd)
	return cmd
}

// where says where a node has a segment's commits.
func where(s *api.Segment) string {
	if s.Archived {
		return "archive"
	}
	return "store"
}

func printSegments(g *globals, list *api.Segments) error {
	table := tabwriter.NewWriter(g.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "SEGMENT\tCOMMITS\tRECORDS\tBYTES\tSHARDS\tHELD\tSTATE\tWHERE\tHASH")
	for i := range list.Segments {
		s := &list.Segments[i]
		if g.json {
			if err := printLine(g.out, s); err != nil {
				return err
			}
			continue
		}
		fmt.Fprintf(table, "%d\t%d-%d\t%d\t%d\t%d+%d\t%d of %d\t%d\t%s\t%s\n", s.Segment, s.First, s.Last, s.Records, s.Bytes,
			s.K, s.M, s.Held, s.K+s.M, s.State, where(s), s.Hash)
	}
	if g.json {
		return nil
	}
	return table.Flush()
}

// newSegmentShowCmd returns the verb that shows one segment.
func newSegmentShowCmd(g *globals) *cobra.Command {
	var of groupFlags
	cmd := &cobra.Command{
		Use:   "show SEGMENT",
		Short: "Show all there is to know of a sealed segment",
		Long: `Shows what the group has committed about one segment: its commits and how they are
chained, what its bytes hash to, the roots of its shards and who holds them, and the
state that was captured with it, if one was. Whoever has this can check every byte of
the segment, from whomever it comes (docs/format/segment.md).`,
		Example: `  mosaik-node segment show 3 --node http://127.0.0.1:7070`,
		Args:    exactly("SEGMENT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := segmentNumber(cmd, "SEGMENT", args[0])
			if err != nil {
				return err
			}
			return of.with(cmd, g, func(ctx context.Context, s store) error {
				list, err := s.Segments(ctx, of.group)
				if err != nil {
					return err
				}
				one, err := oneSegment(&list, n)
				if err != nil {
					return err
				}
				if g.json {
					return printLine(g.out, one)
				}
				return printSegment(g, &list, one)
			})
		},
	}
	of.addTo(cmd)
	return cmd
}

func printSegment(g *globals, list *api.Segments, s *api.Segment) error {
	t := tabwriter.NewWriter(g.out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "segment\t%d of group %s  %s\n", s.Segment, list.Name, list.Group)
	fmt.Fprintf(t, "commits\t%d to %d, %d records, until %s\n", s.First, s.Last, s.Records, s.Time.Format("2006-01-02T15:04:05.999999999Z"))
	fmt.Fprintf(t, "follows\t%s\n", s.Prev)
	fmt.Fprintf(t, "ends with\t%s\n", s.Digest)
	fmt.Fprintf(t, "bytes\t%d  %s\n", s.Bytes, s.Hash)
	fmt.Fprintf(t, "coded\t%d+%d: any %d shards restore it\n", s.K, s.M, s.K)
	for i, root := range s.Shards {
		fmt.Fprintf(t, "shard %d\t%s\n", i, root)
	}
	for _, peer := range s.HeldBy {
		fmt.Fprintf(t, "held by\t%s\n", peer)
	}
	fmt.Fprintf(t, "here\tin the %s\n", where(s))
	if s.StateHash != nil {
		here := "this node has no shard of it any more"
		if s.StateHere {
			here = "this node has its shard"
		}
		fmt.Fprintf(t, "state\t%d bytes  %s  %s\n", s.State, s.StateHash, here)
		for i, root := range s.StateShards {
			fmt.Fprintf(t, "state shard %d\t%s\n", i, root)
		}
	}
	return t.Flush()
}
