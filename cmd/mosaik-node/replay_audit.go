package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/mosaik-engine/mosaik/engine"
	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/replay"
)

// newReplayAuditCmd returns the verb that audits.
func newReplayAuditCmd(g *globals) *cobra.Command {
	var (
		of       storeFlags
		group    string
		from, to uint64
	)
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Check everything that can be checked in a log",
		Long: `Goes through the commits of every group, or of one group's range, and computes
everything anew: each commit hashes to what it says and follows from the one
before, bodies decode to their last byte, the seqs of every stream are dense, the
clock does not run backwards, and the end is the head the node serves.

Where the store is at hand (--dir), it also folds the log from the first commit on
and compares the collections with every header; of a node, replay fold does. One
member of several cannot read alone what is archived: the audit of its directory
begins after that, and says so.

The range digest it prints is equal on two nodes if and only if their bytes are.
The first bad commit ends it with exit code 12 and a message that says where.

With --json it prints one object a line.`,
		Example: `  mosaik-node replay audit --dir data
  mosaik-node replay audit --node http://127.0.0.1:7070 --group g0 --from 1000 --to 2000`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkRange(from, to); err != nil {
				return usage(cmd, err)
			}
			return of.with(cmd, g, func(ctx context.Context, s store) error {
				names := []string{group}
				if group == "" && from == 0 && to == 0 {
					groups, err := s.Groups(ctx)
					if err != nil {
						return err
					}
					names = names[:0]
					for _, one := range groups {
						names = append(names, one.Name)
					}
				} else if group == "" {
					names = []string{defaultGroup}
				}
				for _, name := range names {
					if err := audit(ctx, g, s, name, from, to); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
	of.addTo(cmd)
	cmd.Flags().StringVar(&group, "group", "", "group to audit, by name or ID (default: all, or g0 with --from or --to)")
	cmd.Flags().Uint64Var(&from, "from", 0, "first commit (default: 1)")
	cmd.Flags().Uint64Var(&to, "to", 0, "last commit (default: the head)")
	return cmd
}

// checkRange refuses a range that ends before it starts.
func checkRange(from, to uint64) error {
	if to != 0 && to < from {
		return fmt.Errorf("--to %d lies before --from %d", to, from)
	}
	return nil
}

// audit audits one group and prints what was found.
func audit(ctx context.Context, g *globals, s store, group string, from, to uint64) error {
	source, err := s.Source(ctx, group)
	if err != nil {
		return err
	}
	if g, ok := source.(*engine.Group); ok && from == 0 {
		from = g.ReadableFrom() // what is archived takes the shards of other members
	}
	screen := newScreen(g.err)
	report, err := replay.Audit(ctx, source, replay.AuditOptions{From: from, To: to, Progress: screen.progress("commits of group " + group)})
	screen.clear()
	var corrupt *log.CorruptionError
	if err != nil && !errors.As(err, &corrupt) {
		return fmt.Errorf("audit group %s: %w", group, err)
	}
	return errors.Join(printAudit(g.out, g.json, group, report, err), err)
}

// auditInfo is an audit's report as JSON.
type auditInfo struct {
	Name    string      `json:"name"`
	Group   identity.ID `json:"group"`
	OK      bool        `json:"ok"`
	From    uint64      `json:"from"`
	To      uint64      `json:"to"`
	Commits uint64      `json:"commits"`
	Records uint64      `json:"records"`
	Bytes   uint64      `json:"bytes"`
	Streams uint64      `json:"streams"`
	First   time.Time   `json:"first,omitzero"`
	Last    time.Time   `json:"last,omitzero"`
	Digest  log.Digest  `json:"digest"`
	Head    uint64      `json:"head"`
	States  bool        `json:"states"` // the views' digest was compared at every commit
	Error   string      `json:"error,omitempty"`
}

// printAudit prints the report of an audit that found nothing wrong, or of the
// good part before what it found.
func printAudit(w io.Writer, asJSON bool, name string, r replay.Report, found error) error {
	if asJSON {
		info := auditInfo{
			Name: name, Group: r.Group, OK: found == nil, From: r.From, To: r.To, Commits: r.Commits, Records: r.Records,
			Bytes: r.Bytes, Streams: r.Keys, First: r.First, Last: r.Last, Digest: r.Digest, Head: r.Head.Number, States: r.States,
		}
		if found != nil {
			info.Error = plain(found)
		}
		return printLine(w, info)
	}
	verdict := "ok"
	if found != nil {
		verdict = fmt.Sprintf("BAD after commit %d", r.From+r.Commits-1)
	}
	_, err := fmt.Fprintf(w, "group %s: %s: commits %d to %d, %d checked, %d records of %d streams, %d bytes, digest %s\n",
		name, verdict, r.From, r.To, r.Commits, r.Records, r.Keys, r.Bytes, r.Digest)
	return err
}
