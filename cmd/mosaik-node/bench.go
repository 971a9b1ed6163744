package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mosaik-engine/mosaik/bench"
	"github.com/mosaik-engine/mosaik/cmd/mosaik-node/internal/api"
	"github.com/mosaik-engine/mosaik/engine"
	"github.com/mosaik-engine/mosaik/log"
)

// benchFlags are the flags of bench that are not fields of bench.Config.
type benchFlags struct {
	seconds float64
	peers   []string // reports of bench/peers
	merge   []string // reports of this verb
	open    string   // directory of a store to open, for the row "open"
}

// newBenchCmd returns the verb that measures mosaik.
func newBenchCmd(g *globals) *cobra.Command {
	var c bench.Config
	var f benchFlags
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure mosaik against the machine and against others",
		Long: `bench measures, in one session and in turn, mosaik, the disk, the Raft library alone
with a state machine that does nothing, and pebble alone, and prints a table of
ratios with what each of them must reach. Everything lies below --dir while it
runs, and is removed.

The figures of other servers come from bench/peers, a program of its own, with
--peers. The script bench/peers-run.sh runs both in turn and prints the joint table.

Rows: ` + strings.Join(bench.Rows(), ", ") + `.
docs/bench/README.md explains them.`,
		Example: `  mosaik-node bench
  mosaik-node bench --rows batch,writer --runs 3 --cpuprofile profiles
  mosaik-node bench --rows open --dir /data/tmp
  mosaik-node bench --peers peers.json --json > ours.json
  mosaik-node bench --merge ours1.json --merge ours2.json --peers peers1.json --peers peers2.json`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c.Time = time.Duration(f.seconds * float64(time.Second))
			if cmd.Flags().Changed("seconds") && c.Time <= 0 {
				return usage(cmd, fmt.Errorf("--seconds %g: must be positive", f.seconds))
			}
			if err := c.Validate(); err != nil {
				return usage(cmd, err)
			}
			c.Progress = g.err
			return runBench(cmd, g, c, f)
		},
	}
	flags := cmd.Flags()
	flags.IntVar(&c.Size, "size", 128, "bytes of a record, a multiple of 8")
	flags.IntVar(&c.Batch, "batch", 100, "records of one append in the rows about batches")
	flags.IntVar(&c.Keys, "keys", 1, "keys that appends go to in turn")
	flags.IntVar(&c.Groups, "groups", 1, "Raft groups that keys are spread over")
	flags.IntVar(&c.Replicas, "replicas", 3, "replicas of a group, all in this process")
	flags.StringVar(&c.Transport, "transport", bench.InProcess, "of Raft messages: "+bench.InProcess+" or "+bench.TCP+" over loopback")
	flags.Float64Var(&f.seconds, "seconds", 3, "longest time of one timed run")
	flags.IntVar(&c.Runs, "runs", 5, "times everything is measured; medians are reported")
	flags.IntVar(&c.Records, "records", 2_000_000, "records written before reads are timed")
	flags.IntVar(&c.KeyCount, "key-count", 10_000, "keys in the row key")
	flags.IntVar(&c.OpenKeys, "open-keys", 0, "keys in the row open (default 10,000, or 100,000 if --rows names it)")
	flags.IntVar(&c.OpenRecords, "open-records", 0, "records in the row open (default --records, or 100,000,000 if --rows names it)")
	flags.IntVar(&c.OpenEntries, "open-entries", 0, "entries of the map in the row map-open (default --records, or 10,000,000 if --rows names it)")
	flags.StringSliceVar(&c.Rows, "rows", nil, "what to measure, comma-separated (default all)")
	flags.StringVar(&c.Dir, "dir", "", "directory on the disk to measure (default the system's temporary directory)")
	flags.StringVar(&c.ProfileDir, "cpuprofile", "", "directory that gets a CPU profile of each timed run")
	flags.StringArrayVar(&f.peers, "peers", nil, "report of bench/peers --json to compare with; may be repeated")
	flags.StringArrayVar(&f.merge, "merge", nil, "report of bench --json to take instead of measuring; may be repeated")
	flags.StringVar(&f.open, "open-store", "", "open the store in this directory and say what that took")
	if err := flags.MarkHidden("open-store"); err != nil {
		panic(err) // invariant: the flag has just been defined
	}
	return cmd
}

// runBench measures, or reads what was measured, and prints it.
func runBench(cmd *cobra.Command, g *globals, c bench.Config, f benchFlags) error {
	if f.open != "" {
		stats, err := bench.OpenStore(cmd.Context(), f.open)
		if err != nil {
			return err
		}
		return printLine(g.out, stats)
	}
	if c.ProfileDir != "" {
		if err := os.MkdirAll(c.ProfileDir, 0o755); err != nil {
			return err
		}
	}
	var peers []bench.PeerReport
	for _, name := range f.peers {
		p, err := readReport(name, bench.ReadPeers)
		if err != nil {
			return usage(cmd, err)
		}
		peers = append(peers, p)
	}
	report, err := measureOrMerge(cmd, c, f.merge)
	if len(report.Measurements) == 0 {
		return err
	}
	if err != nil && cmd.Context().Err() == nil && len(f.merge) == 0 {
		err = &partialError{err}
	}
	if len(peers) > 0 {
		if err := report.Compare(peers...); err != nil {
			return usage(cmd, err)
		}
	}
	write := report.WriteTable
	if g.json {
		write = report.WriteJSON
	}
	return errors.Join(err, write(g.out))
}

// measureOrMerge returns the report to print.
func measureOrMerge(cmd *cobra.Command, c bench.Config, merge []string) (bench.Report, error) {
	if len(merge) == 0 {
		c.OpenStore, c.Remote = openStoreApart, serveRemote
		return bench.Run(cmd.Context(), c)
	}
	var merged bench.Report
	for i, name := range merge {
		report, err := readReport(name, bench.ReadReport)
		if err == nil && i == 0 {
			merged = report
		} else if err == nil {
			err = merged.Merge(report)
		}
		if err != nil {
			return bench.Report{}, usage(cmd, fmt.Errorf("%s: %w", name, err))
		}
	}
	return merged, nil
}

// readReport reads the file with the given name.
func readReport[T any](name string, read func(io.Reader) (T, error)) (report T, err error) {
	f, err := os.Open(name)
	if err != nil {
		return report, err
	}
	report, err = read(f)
	if err != nil {
		err = fmt.Errorf("%s: %w", name, err)
	}
	return report, errors.Join(err, f.Close())
}

// openStoreApart has this program opened the store in a process of its own,
// whose memory holds nothing else.
func openStoreApart(ctx context.Context, dir string) (stats bench.OpenStats, err error) {
	program, err := os.Executable()
	if err != nil {
		return stats, err
	}
	cmd := exec.CommandContext(ctx, program, "bench", "--open-store", dir)
	cmd.Args[0] = os.Args[0]
	cmd.Stderr = os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	out, err := cmd.Output()
	if err != nil {
		return stats, fmt.Errorf("open the store in a process of its own: %w", err)
	}
	return stats, json.Unmarshal(out, &stats)
}

// serveRemote serves the engine's logs over HTTP on loopback and returns a
// client's view of them.
func serveRemote(ctx context.Context, e *engine.Engine) (bench.RemoteNode, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return bench.RemoteNode{}, err
	}
	r := &remoteBench{server: &http.Server{Handler: api.NewServer(e, api.Options{})}, ended: make(chan error, 1)}
	go r.runServer(listener)
	node := bench.RemoteNode{Scanner: r, Close: r.Close}
	r.client, err = api.NewClient("http://" + listener.Addr().String())
	if err == nil {
		node.Source, err = r.client.Source(ctx, e.Groups()[0].Name())
	}
	if err != nil {
		return node, errors.Join(err, r.server.Close(), <-r.ended)
	}
	return node, nil
}

// remoteBench is the server and the client of the row "remote".
type remoteBench struct {
	server *http.Server
	client *api.Client
	ended  chan error
}

func (r *remoteBench) runServer(listener net.Listener) {
	if err := r.server.Serve(listener); errors.Is(err, http.ErrServerClosed) {
		r.ended <- nil
	} else {
		r.ended <- err
	}
}

// Scan implements log.Scanner for keys that need no name.
func (r *remoteBench) Scan(ctx context.Context, q log.Query) iter.Seq2[log.Run, error] {
	return r.client.Scan(ctx, api.Ref{Name: q.Key.String()}, q)
}

// Close ends both sides.
func (r *remoteBench) Close() error {
	return errors.Join(r.client.Close(), r.server.Close(), <-r.ended)
}
