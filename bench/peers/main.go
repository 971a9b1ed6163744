package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/mosaik-engine/mosaik/bench/peers/etcdpeer"
	"github.com/mosaik-engine/mosaik/bench/peers/measure"
	"github.com/mosaik-engine/mosaik/bench/peers/natspeer"
	"github.com/mosaik-engine/mosaik/bench/peers/payload"
	"github.com/mosaik-engine/mosaik/bench/peers/pebblepeer"
)

// Exit codes, the same as mosaik-node's.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitPartial     = 3
	exitInterrupted = 130
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// options are the parsed flags.
type options struct {
	dir       string
	limits    measure.Limits
	runs      int
	json      bool
	subjects  []subject
	workloads map[string]bool // nil means all
}

// subject is a peer in one configuration.
type subject struct {
	peer, config string
	durable      bool
	workloads    []measure.Workload
	open         func(ctx context.Context, dir string) (measure.Session, error)
}

func jetstreamSubject(sync natspeer.Sync) subject {
	return subject{
		peer: natspeer.Name, config: string(sync), durable: sync.Durable(), workloads: natspeer.Workloads(),
		open: func(ctx context.Context, dir string) (measure.Session, error) { return natspeer.Open(ctx, dir, sync) },
	}
}

func etcdSubject() subject {
	return subject{
		peer: etcdpeer.Name, config: etcdpeer.Config, durable: true, workloads: etcdpeer.Workloads(),
		open: func(ctx context.Context, dir string) (measure.Session, error) { return etcdpeer.Open(ctx, dir) },
	}
}

func pebbleSubject() subject {
	return subject{
		peer: pebblepeer.Name, config: pebblepeer.Config, durable: true, workloads: pebblepeer.Workloads(),
		open: func(_ context.Context, dir string) (measure.Session, error) { return pebblepeer.Open(dir) },
	}
}

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	var sync, workloads, peers string
	var seconds float64
	flags := flag.NewFlagSet("peers", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.dir, "dir", os.TempDir(), "directory on the disk to measure; a temporary one is made below it and removed")
	flags.IntVar(&o.limits.Records, "records", 1_000_000, "most records a workload writes or reads")
	flags.IntVar(&o.limits.Size, "size", 128, "bytes of payload in a record, a multiple of 8")
	flags.Float64Var(&seconds, "seconds", 5, "longest time a workload is measured")
	flags.StringVar(&sync, "sync", "both", "JetStream's sync_interval: default (two minutes, not durable), always or both")
	flags.IntVar(&o.runs, "runs", 3, "times everything is measured; the median is reported")
	flags.StringVar(&peers, "peers", strings.Join([]string{natspeer.Name, etcdpeer.Name, pebblepeer.Name}, ","), "peers to measure, comma-separated")
	flags.StringVar(&workloads, "workloads", "all", "workloads to measure, comma-separated, or all; PEER/NAME restricts one to a peer")
	flags.BoolVar(&o.json, "json", false, "print one JSON document instead of the table")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	o.limits.Time = time.Duration(seconds * float64(time.Second))
	switch {
	case flags.NArg() > 0:
		return o, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case o.limits.Records < 1 || o.limits.Time <= 0 || o.runs < 1:
		return o, errors.New("--records, --seconds and --runs must be positive")
	case !payload.ValidSize(o.limits.Size):
		return o, fmt.Errorf("--size %d: must be a multiple of 8 and at least %d", o.limits.Size, payload.MinSize)
	}

	var syncs []natspeer.Sync
	switch sync {
	case string(natspeer.SyncDefault), string(natspeer.SyncAlways):
		syncs = []natspeer.Sync{natspeer.Sync(sync)}
	case "both":
		syncs = []natspeer.Sync{natspeer.SyncDefault, natspeer.SyncAlways}
	default:
		return o, fmt.Errorf("--sync %q: must be default, always or both", sync)
	}
	for peer := range strings.SplitSeq(peers, ",") {
		switch peer {
		case natspeer.Name:
			for _, s := range syncs {
				o.subjects = append(o.subjects, jetstreamSubject(s))
			}
		case etcdpeer.Name:
			o.subjects = append(o.subjects, etcdSubject())
		case pebblepeer.Name:
			o.subjects = append(o.subjects, pebbleSubject())
		default:
			return o, fmt.Errorf("--peers: no peer %q", peer)
		}
	}
	if workloads != "all" {
		o.workloads = make(map[string]bool)
		for name := range strings.SplitSeq(workloads, ",") {
			if !o.known(name) {
				return o, fmt.Errorf("--workloads: no workload %q for the chosen peers", name)
			}
			o.workloads[name] = true
		}
	}
	return o, nil
}

func (o options) known(name string) bool {
	return slices.ContainsFunc(o.subjects, func(s subject) bool {
		return slices.ContainsFunc(s.workloads, func(w measure.Workload) bool { return w.Name == name || s.peer+"/"+w.Name == name })
	})
}

func (o options) wanted(s subject, w measure.Workload) bool {
	return o.workloads == nil || o.workloads[w.Name] || o.workloads[s.peer+"/"+w.Name]
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parse(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return exitOK
	}
	if err != nil {
		fmt.Fprintln(stderr, "peers:", err)
		return exitUsage
	}
	report, err := o.measure(ctx, stderr)
	if ctx.Err() != nil {
		fmt.Fprintln(stderr, "peers: interrupted")
		return exitInterrupted
	}
	if err != nil {
		fmt.Fprintln(stderr, "peers:", err)
	}
	if len(report.Rows) == 0 {
		return exitFailed
	}
	write := report.WriteTable
	if o.json {
		write = report.WriteJSON
	}
	if werr := write(stdout); werr != nil {
		fmt.Fprintln(stderr, "peers:", werr)
		return exitFailed
	}
	if err != nil {
		return exitPartial
	}
	return exitOK
}

// measure runs everything and reports what could be measured, with the errors of what could not.
// One run visits all subjects before the next begins, so that a slow minute of a shared machine
// falls on all of them.
func (o options) measure(ctx context.Context, progress io.Writer) (report measure.Report, errs error) {
	root, err := os.MkdirTemp(o.dir, "mosaik-peers-")
	if err != nil {
		return report, fmt.Errorf("mosaik: temporary directory: %w", err)
	}
	defer func() { errs = errors.Join(errs, os.RemoveAll(root)) }()

	filesystem := filesystemOf(root)
	if filesystem == "tmpfs" {
		fmt.Fprintf(progress, "peers: %s is in memory: fsync costs nothing there and no row is durable\n", o.dir)
	}
	report = measure.Report{
		Format: measure.FormatVersion,
		Time:   time.Now().UTC().Truncate(time.Second),
		Machine: measure.Machine{
			Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH, CPUs: runtime.NumCPU(), Filesystem: filesystem,
		},
		Options: measure.Options{Records: o.limits.Records, Size: o.limits.Size, Seconds: o.limits.Time.Seconds(), Runs: o.runs},
		Modules: moduleVersions(),
	}
	samples := make([]map[string][]measure.Sample, len(o.subjects))
	for i := range samples {
		samples[i] = make(map[string][]measure.Sample)
	}
	for n := range o.runs {
		for i, s := range o.subjects {
			dir := filepath.Join(root, fmt.Sprintf("%s-%s-%d", s.peer, s.config, n))
			label := fmt.Sprintf("run %d/%d  %s %s", n+1, o.runs, s.peer, s.config)
			errs = errors.Join(errs, o.session(ctx, s, dir, samples[i], label, progress))
			if err := os.RemoveAll(dir); err != nil {
				return report, errors.Join(errs, err)
			}
			if ctx.Err() != nil {
				return report, errors.Join(errs, ctx.Err())
			}
		}
	}
	for i, s := range o.subjects {
		for _, w := range s.workloads {
			durable := s.durable && filesystem != "tmpfs"
			if row, ok := measure.Summarize(s.peer, s.config, durable, w, samples[i][w.Name]); ok {
				report.Rows = append(report.Rows, row)
			}
		}
	}
	measure.Compare(report.Rows)
	return report, errs
}

// session starts a peer, runs the wanted workloads on it and stops it. A workload that fails does
// not keep the following ones from being tried.
func (o options) session(ctx context.Context, s subject, dir string, into map[string][]measure.Sample, label string, progress io.Writer) (errs error) {
	wanted := slices.DeleteFunc(slices.Clone(s.workloads), func(w measure.Workload) bool { return !o.wanted(s, w) })
	if len(wanted) == 0 {
		return nil
	}
	peer, err := s.open(ctx, dir)
	if err != nil {
		return err
	}
	defer func() { errs = errors.Join(errs, peer.Close()) }()
	for _, w := range wanted {
		// What the workload before left in the page cache is written now, not during this one.
		flushDisks()
		began := time.Now()
		sample, err := peer.Run(ctx, w.Name, o.limits)
		if ctx.Err() != nil {
			return errors.Join(errs, ctx.Err())
		}
		if err != nil {
			fmt.Fprintf(progress, "%s  %-18s failed: %v\n", label, w.Name, err)
			errs = errors.Join(errs, err)
			continue
		}
		into[w.Name] = append(into[w.Name], sample)
		if row, ok := measure.Summarize(s.peer, s.config, s.durable, w, []measure.Sample{sample}); ok {
			fmt.Fprintf(progress, "%s  %-18s %14.1f %-12s %9d records in %.1fs\n",
				label, w.Name, row.Value, row.Unit, row.Records, time.Since(began).Seconds())
		}
	}
	return errs
}

// moduleVersions tells which versions of the peers were linked in.
func moduleVersions() map[string]string {
	versions := make(map[string]string)
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return versions
	}
	for _, dep := range info.Deps {
		switch dep.Path {
		case "github.com/nats-io/nats-server/v2", "github.com/nats-io/nats.go",
			"github.com/synadia-io/orbit.go/jetstreamext", "github.com/cockroachdb/pebble/v2",
			"go.etcd.io/etcd/server/v3", "go.etcd.io/etcd/client/v3":
			versions[dep.Path] = dep.Version
		}
	}
	return versions
}
