package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/snapshot"
)

// newSnapshotVerifyCmd returns the verb that checks an export offline.
func newSnapshotVerifyCmd(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "verify FILE",
		Short: "Check an export, without a store",
		Long: `Checks every byte of an export: its own hash, each segment against its manifest, each
commit against itself and the one before, and the state in every header against
what folding the log comes to. FILE is - for standard input.

It ends with exit code 12 if the export is damaged or not whole.`,
		Example: `  mosaik-node snapshot verify g0.mosaik --json`,
		Args:    exactly("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			in, err := openInput(g, args[0])
			if err != nil {
				return err
			}
			views, err := log.NewViews()
			if err != nil {
				return errors.Join(err, in.Close())
			}
			found, err := snapshot.ReadExport(in, nil, nil, func(c *log.Commit) error {
				if err := cmd.Context().Err(); err != nil {
					return err
				}
				state, err := views.Fold(c)
				if err == nil && state != c.Header.State {
					err = &log.CorruptionError{Group: c.Header.Group, Commit: c.Header.Number,
						Err: fmt.Errorf("the header has the state %s, folding the log comes to %s", c.Header.State, state)}
				}
				return err
			})
			if err = errors.Join(err, in.Close()); err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			info := exportInfo{Group: found.Group, Commits: found.Head.Number, Segments: found.Segments, Records: found.Records,
				Bytes: found.Bytes, Head: found.Head.Digest, State: views.State(), Time: time.Unix(0, found.Head.Time).UTC()}
			if g.json {
				return printLine(g.out, info)
			}
			_, err = fmt.Fprintf(g.out, "ok: group %s, commits 1 to %d in %d segments and after, %d records, %d bytes, head %s, state %s\n",
				info.Group, info.Commits, info.Segments, info.Records, info.Bytes, info.Head, info.State)
			return err
		},
	}
}

// exportInfo is what an export holds, as JSON.
type exportInfo struct {
	Group    identity.ID `json:"group"`
	Commits  uint64      `json:"commits"`
	Segments uint64      `json:"segments"`
	Records  uint64      `json:"records"`
	Bytes    uint64      `json:"bytes"`
	Head     log.Digest  `json:"head"`
	State    log.Digest  `json:"state"`
	Time     time.Time   `json:"time"` // of the last commit
}

// openInput opens a file, or standard input for -.
func openInput(g *globals, path string) (io.ReadCloser, error) {
	if path == "-" {
		return io.NopCloser(g.in), nil
	}
	return os.Open(path)
}
