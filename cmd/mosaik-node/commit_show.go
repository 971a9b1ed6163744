package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/mosaik-engine/mosaik/cmd/mosaik-node/internal/api"
	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

// defaultGroup is the group that a range of commits is taken from unless it is
// said.
const defaultGroup = "g0"

// newCommitShowCmd returns the verb that shows one commit.
func newCommitShowCmd(g *globals) *cobra.Command {
	var (
		of    storeFlags
		group string
		raw   bool
	)
	cmd := &cobra.Command{
		Use:   "show N",
		Short: "Show a commit: its header, and which records it holds",
		Long: `Shows commit N of a group, or the last one for "head", after checking it against
itself. With --raw it writes the commit's bytes, header and body, which is what
"pointer verify --commit FILE" takes as evidence.`,
		Example: `  mosaik-node commit show 1 --dir data
  mosaik-node commit show head --node http://127.0.0.1:7070 --json
  mosaik-node commit show 7 --dir data --raw > commit-7`,
		Args: exactly("N"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var n uint64
			if args[0] != "head" {
				var err error
				if n, err = strconv.ParseUint(args[0], 10, 64); err != nil || n == 0 {
					return usage(cmd, fmt.Errorf("%q is neither the number of a commit nor head", args[0]))
				}
			}
			return of.with(cmd, g, func(ctx context.Context, s store) error {
				return showCommit(ctx, g, s, group, n, raw)
			})
		},
	}
	of.addTo(cmd)
	cmd.Flags().StringVar(&group, "group", defaultGroup, "group of the commit, by name or ID")
	cmd.Flags().BoolVar(&raw, "raw", false, "write the commit's bytes")
	return cmd
}

// showCommit prints commit n, or the head for 0.
func showCommit(ctx context.Context, g *globals, s store, group string, n uint64, raw bool) error {
	source, err := s.Source(ctx, group)
	if err != nil {
		return err
	}
	if n == 0 {
		if n = source.Head().Number; n == 0 {
			return fmt.Errorf("%w: group %s has no commit yet", log.ErrNotFound, group)
		}
	}
	c, err := source.Commit(n)
	if err != nil {
		return err
	}
	if err := c.Verify(); err != nil {
		return err
	}
	if raw {
		_, err := g.out.Write(c.AppendTo(nil))
		return err
	}
	logs, err := logsOf(ctx, s)
	if err != nil {
		return err
	}
	info, err := api.CommitOf(&c, func(key identity.ID) string { return logs.of(key).Name })
	if err != nil {
		return err
	}
	if g.json {
		return printJSON(g.out, info)
	}
	fmt.Fprintf(g.out, "commit   %d of group %s\n", info.Commit, info.Group)
	fmt.Fprintf(g.out, "time     %s\n", info.Time.Format(time.RFC3339Nano))
	fmt.Fprintf(g.out, "digest   %s\n", info.Digest)
	fmt.Fprintf(g.out, "prev     %s\n", info.Prev)
	fmt.Fprintf(g.out, "body     %s\n", info.Body)
	fmt.Fprintf(g.out, "state    %s\n", info.State)
	fmt.Fprintf(g.out, "records  %d in %d bytes\n", info.Records, info.Bytes)
	for _, run := range info.Runs {
		fmt.Fprintf(g.out, "         %d to %d of %s\n", run.FirstSeq, run.FirstSeq+uint64(run.Count)-1, logs.of(run.Key).title())
	}
	_, err = fmt.Fprintf(g.out, "pointer  %s\n", info.Pointer)
	return err
}

// logIndex is what is known of the logs of a store, by key.
type logIndex map[identity.ID]api.Stream

func logsOf(ctx context.Context, s store) (logIndex, error) {
	streams, err := s.Streams(ctx)
	if err != nil {
		return nil, err
	}
	index := make(logIndex, len(streams)+1)
	for _, stream := range streams {
		index[stream.Key] = stream
	}
	// The directory is a log as well. It describes the others, so not itself.
	index[log.DirectoryKey()] = api.Stream{Name: "mosaik.directory", Codec: "cbor", Key: log.DirectoryKey()}
	return index, nil
}

// of returns what is known of a key, if only the key.
func (x logIndex) of(key identity.ID) knownLog {
	s, ok := x[key]
	if !ok {
		s.Key = key
	}
	return knownLog{s}
}

// knownLog is one log of the index.
type knownLog struct{ api.Stream }

// title returns the log's name, or its key, which can be used in its place.
func (l knownLog) title() string {
	if l.Name != "" {
		return l.Name
	}
	return l.Key.String()
}
