package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/mosaik-engine/mosaik/cmd/mosaik-node/internal/api"
	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/replay"
)

// newReplayRunCmd returns the verb that replays a range of commits.
func newReplayRunCmd(g *globals) *cobra.Command {
	var (
		of       storeFlags
		group    string
		from, to uint64
		digest   bool
	)
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Replay a range of commits, or print its digest",
		Long: `Prints every record of a range of commits in the order in which the group agreed
on them, checking each commit on the way: commit, stream, seq, time, value. With
--json a line is an object, as stream tail prints it, and says which stream.

With --digest it prints one number instead: the digest of the range, by which two
nodes, or a node and last year's copy of it, can be compared.`,
		Example: `  mosaik-node replay run --dir data --from 10 --to 20
  mosaik-node replay run --dir data --digest`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkRange(from, to); err != nil {
				return usage(cmd, err)
			}
			return of.with(cmd, g, func(ctx context.Context, s store) error {
				source, err := s.Source(ctx, group)
				if err != nil {
					return err
				}
				if head := source.Head().Number; to == 0 && from <= head {
					to = head
				}
				if digest {
					return printDigest(ctx, g, source, max(from, 1), to)
				}
				return replayRecords(ctx, g, s, source, from, to)
			})
		},
	}
	of.addTo(cmd)
	cmd.Flags().StringVar(&group, "group", defaultGroup, "group to replay, by name or ID")
	cmd.Flags().Uint64Var(&from, "from", 0, "first commit (default: 1)")
	cmd.Flags().Uint64Var(&to, "to", 0, "last commit (default: the head)")
	cmd.Flags().BoolVar(&digest, "digest", false, "print the digest of the range instead of its records")
	return cmd
}

type digestInfo struct {
	Group  identity.ID `json:"group"`
	From   uint64      `json:"from"`
	To     uint64      `json:"to"`
	Digest log.Digest  `json:"digest"`
}

func printDigest(ctx context.Context, g *globals, source replay.Source, from, to uint64) error {
	d, err := replay.Digest(ctx, source, from, to)
	if err != nil {
		return err
	}
	if g.json {
		return printJSON(g.out, digestInfo{Group: source.ID(), From: from, To: to, Digest: d})
	}
	_, err = fmt.Fprintln(g.out, d)
	return err
}

// replayRecords prints the records of a range.
func replayRecords(ctx context.Context, g *globals, s store, source replay.Source, from, to uint64) error {
	logs, err := logsOf(ctx, s)
	if err != nil {
		return err
	}
	out := bufio.NewWriterSize(g.out, 64<<10)
	renderers := make(map[identity.ID]*api.Renderer)
	var line []byte
	for c, err := range replay.Commits(ctx, source, from, to) {
		if err != nil {
			return errors.Join(out.Flush(), err)
		}
		for run, err := range c.Runs() {
			if err != nil {
				return errors.Join(out.Flush(), err)
			}
			render := renderers[run.Key]
			if render == nil {
				known := logs.of(run.Key)
				render = api.NewRenderer(known.Codec, false)
				render.Stream = known.title()
				renderers[run.Key] = render
			}
			for seq, payload := range run.Records() {
				if g.json {
					line = render.Append(line[:0], &run, seq, payload)
				} else {
					line = strconv.AppendUint(line[:0], run.Commit, 10)
					line = fmt.Appendf(line, "\t%s\t%d\t%s\t%s", render.Stream, seq, time.Unix(0, run.Time).UTC().Format(time.RFC3339Nano), render.Text(payload))
				}
				if _, err := out.Write(append(line, '\n')); err != nil {
					return err
				}
			}
		}
	}
	return out.Flush()
}
