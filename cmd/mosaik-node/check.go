package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/mosaik-engine/mosaik/cmd/mosaik-node/internal/api"
)

// newCheckCmd returns the verb that checks a store.
func newCheckCmd(g *globals) *cobra.Command {
	var of storeFlags
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check everything that a node has on disk",
		Long: `Reads the whole store and holds it against itself: the checksum of every block,
every commit against its hashes, the index against the records, the node's shards of
sealed segments, the Raft log. Then it audits every group (replay audit). Nothing is
repaired; a node that runs makes missing and rotten shards anew by itself. What is
archived takes the shards of other members to read: its commits are counted, and
left out.

What is wrong ends it with exit code 12 and the place: file, offset, group, commit.`,
		Example: `  mosaik-node check --dir data`,
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return of.with(cmd, g, func(ctx context.Context, s store) error {
				screen := newScreen(g.err)
				report, err := s.Check(ctx, screen.progress("commits"))
				screen.clear()
				if err != nil {
					return err
				}
				if err := printCheck(g, report); err != nil {
					return err
				}
				groups, err := s.Groups(ctx)
				if err != nil {
					return err
				}
				for _, group := range groups {
					if err := audit(ctx, g, s, group.Name, 0, 0); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
	of.addTo(cmd)
	return cmd
}

// printCheck prints what a check has read.
func printCheck(g *globals, r api.CheckReport) error {
	if g.json {
		return printLine(g.out, r)
	}
	missing, archived := "", ""
	if r.Missing > 0 {
		missing = fmt.Sprintf(", %d are missing and will be made anew while the node runs", r.Missing)
	}
	if r.Archived > 0 {
		archived = fmt.Sprintf("; %d more commits are archived and were not read", r.Archived)
	}
	_, err := fmt.Fprintf(g.out, "store: ok: %d groups, %d commits, %d records of %d streams, %d index entries, %d bytes; %d shards of sealed segments%s; %d bytes in the Raft log%s\n",
		r.Groups, r.Commits, r.Records, r.Keys, r.Postings, r.Bytes, r.Shards, missing, r.RaftLogBytes, archived)
	return err
}
