package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/mosaik-engine/mosaik/cmd/mosaik-node/internal/api"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/replay"
)

// newPointerVerifyCmd returns the verb that checks evidence.
func newPointerVerifyCmd(g *globals) *cobra.Command {
	var (
		of   storeFlags
		file string
	)
	cmd := &cobra.Command{
		Use:   "verify POINTER",
		Short: "Check a pointer against a store, a node or a commit's bytes",
		Long: `Fetches the commit that the pointer names and checks that it is the one: its bytes
hash to the pointer's digest, and the record is in it. Whoever delivers the bytes
need not be trusted.

With --commit it asks nobody: FILE holds the commit's bytes, as "commit show --raw"
writes them; "-" is standard input.

Exit code 0: it holds. 1: it does not, or the commit is not there. 12: the bytes
are damaged.`,
		Example: `  mosaik-node pointer verify mosaik:... --dir data
  mosaik-node pointer verify mosaik:... --commit commit-7`,
		Args: exactly("POINTER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := log.ParsePointer(args[0])
			if err != nil {
				return usage(cmd, err)
			}
			if file != "" {
				if of.dir != "" || of.node != "" {
					return usage(cmd, errors.New("--commit asks nobody; it does not go with --dir or --node"))
				}
				b, err := readCommit(g.in, file)
				if err != nil {
					return err
				}
				return verifyPointer(g, p, b, api.Stream{})
			}
			return of.with(cmd, g, func(ctx context.Context, s store) error {
				source, err := s.Source(ctx, p.Group.String())
				if err != nil {
					return err
				}
				c, err := source.Commit(p.Commit)
				if err != nil {
					return err
				}
				var stream api.Stream
				if p.Seq != 0 {
					logs, err := logsOf(ctx, s)
					if err != nil {
						return err
					}
					stream = logs.of(p.Key).Stream
				}
				return verifyPointer(g, p, c.AppendTo(nil), stream)
			})
		},
	}
	of.addTo(cmd)
	cmd.Flags().StringVar(&file, "commit", "", "file with the commit's bytes, instead of a store")
	return cmd
}

// readCommit reads the bytes of a commit.
func readCommit(in io.Reader, file string) ([]byte, error) {
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	// What is longer is no commit, which verifying finds out.
	return io.ReadAll(io.LimitReader(in, log.HeaderSize+log.MaxBody+1))
}

// verified is a pointer that holds, as JSON.
type verified struct {
	Pointer log.Pointer `json:"pointer"`
	Holds   bool        `json:"holds"`
	Commit  uint64      `json:"commit"`
	Time    time.Time   `json:"time"`
	Stream  string      `json:"stream,omitempty"`
	Seq     uint64      `json:"seq,omitempty"`
	Payload []byte      `json:"payload,omitempty"` // base64
}

// verifyPointer checks p against the bytes and prints what it points at. The
// stream is what is known of the log, if it is known.
func verifyPointer(g *globals, p log.Pointer, b []byte, stream api.Stream) error {
	if err := replay.VerifyPointer(p, b); err != nil {
		return err
	}
	header, err := log.DecodeHeader(b)
	if err != nil {
		return err
	}
	info := verified{Pointer: p, Holds: true, Commit: p.Commit, Time: time.Unix(0, header.Time).UTC(), Stream: stream.Name, Seq: p.Seq}
	text := ""
	if p.Seq != 0 {
		record, err := replay.Extract(p, b)
		if err != nil {
			return err
		}
		info.Payload = record.Payload
		text = api.NewRenderer(stream.Codec, false).Text(record.Payload)
	}
	if g.json {
		return printJSON(g.out, info)
	}
	what := fmt.Sprintf("commit %d", p.Commit)
	if p.Seq != 0 {
		stream.Key = p.Key
		what = fmt.Sprintf("record %d of %s in commit %d", p.Seq, knownLog{stream}.title(), p.Commit)
	}
	fmt.Fprintf(g.out, "holds: %s of group %s, %s\n", what, p.Group.Short(), info.Time.Format(time.RFC3339Nano))
	if p.Seq != 0 {
		fmt.Fprintln(g.out, text)
	}
	return nil
}
