package main

import (
	"context"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/replay"
)

// newReplayFoldCmd returns the verb that folds a log anew.
func newReplayFoldCmd(g *globals) *cobra.Command {
	var (
		of    storeFlags
		group string
		to    uint64
	)
	cmd := &cobra.Command{
		Use:   "fold",
		Short: "Fold a log into its collections anew, up to a commit",
		Long: `Folds the commits of a group from the first one on into collections in memory,
checking each commit on the way, and compares the state that every header states
with what the folding comes to. It prints the collections as of the last commit,
and the digest of their state.

It takes nothing from the store but commits. A stored view that was changed
behind the log's back does not go into it, and a node that states a wrong state is
found out, also from afar: then it ends with exit code 12 and names the commit.

To read what one collection held at a commit, which is quick wherever that commit
lies, see map list --at and its like.`,
		Example: `  mosaik-node replay fold --dir data --to 1000
  mosaik-node replay fold --node http://127.0.0.1:7070 --json`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return of.with(cmd, g, func(ctx context.Context, s store) error {
				source, err := s.Source(ctx, group)
				if err != nil {
					return err
				}
				screen := newScreen(g.err)
				views, err := replay.Views(ctx, source, to, screen.progress("commits folded"), organismMachines()...)
				screen.clear()
				if err != nil {
					return fmt.Errorf("fold group %s: %w", group, err)
				}
				return printFold(g, source, views)
			})
		},
	}
	of.addTo(cmd)
	cmd.Flags().StringVar(&group, "group", defaultGroup, "group to fold, by name or ID")
	cmd.Flags().Uint64Var(&to, "to", 0, "last commit (default: the head)")
	return cmd
}

// foldInfo is what the folding comes to, as JSON.
type foldInfo struct {
	Group       identity.ID      `json:"group"`
	Commit      uint64           `json:"commit"`
	State       log.Digest       `json:"state"`
	Collections []collectionInfo `json:"collections"`
}

type collectionInfo struct {
	Name string `json:"name"`
	Kind string `json:"kind"`
	Rows uint64 `json:"rows"`
}

func printFold(g *globals, source replay.Source, views *log.Views) error {
	info := foldInfo{Group: source.ID(), Commit: views.Commit(), State: views.State(), Collections: []collectionInfo{}}
	directory, err := views.View(log.DirectoryKey())
	if err != nil {
		return err
	}
	for e, err := range log.Entries(directory) {
		if err != nil {
			return err
		}
		if e.Kind == log.KindStream {
			continue
		}
		one := collectionInfo{Name: e.Name, Kind: e.Kind}
		view, err := views.View(e.Key())
		if err != nil {
			return err
		}
		for _, err := range view.Scan(log.Range{}) {
			if err != nil {
				return err
			}
			one.Rows++
		}
		info.Collections = append(info.Collections, one)
	}
	if g.json {
		return printJSON(g.out, info)
	}
	fmt.Fprintf(g.out, "group %s as of commit %d: state %s, as every header says\n", info.Group.Short(), info.Commit, info.State)
	if len(info.Collections) == 0 {
		return nil
	}
	w := tabwriter.NewWriter(g.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tKIND\tROWS")
	for _, c := range info.Collections {
		fmt.Fprintf(w, "%s\t%s\t%d\n", c.Name, c.Kind, c.Rows)
	}
	return w.Flush()
}
