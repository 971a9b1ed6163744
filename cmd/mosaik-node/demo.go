package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mosaik-engine/mosaik/engine"
	"github.com/mosaik-engine/mosaik/engine/cluster"
	"github.com/mosaik-engine/mosaik/log"
)

// The demo is a rehearsal of what mosaik is for, in the order of its functions:
//
//	openTicks   the head of the input is checked before anything else happens
//	start       some nodes in this process, with directories of their own
//	feed        every tick becomes a record of its pair's stream; halfway a node is
//	            stopped, and later started again           (demo_feed.go)
//	verify      every node is audited, read back, and replayed from the middle
//	            of its log; all must agree                 (demo_verify.go)
//	print       what came out, and what to try next        (demo_report.go)
//
// What happens is told on standard error as it happens (demo_screen.go); the
// report, and nothing else, goes to standard output.

// Defaults of the demo: enough to watch, and over in a quarter of a minute.
const (
	demoCount = 200_000
	demoRate  = 15_000
	// demoMarket is the seed of the market that is fed when nobody asks for another,
	// so that everyone sees the same ticks.
	demoMarket = 1
	// patience is how long a tick may take. A machine that is busy with other things
	// makes the demo slow, not wrong.
	patience = time.Minute
	// Of the nodes of the demo.
	demoSegmentBytes = 256 << 10
	demoRaftLogBytes = 1 << 20
)

// demoOptions are the flags of the demo.
type demoOptions struct {
	ticks     string // path, "-", or "" for the generated market
	nodes     int
	dir       string // "": a temporary one
	keep      bool
	lose      bool   // the node that is stopped loses its directory
	processes bool   // each node is a process
	rate      uint64 // ticks a second; 0: as fast as they are acknowledged
	count     uint64 // 0: all there are
	seed      uint64
	market    uint64
}

// newDemoCmd returns the verb that shows the whole thing at work.
func newDemoCmd(g *globals) *cobra.Command {
	opts := demoOptions{}
	rate := strconv.Itoa(demoRate)
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Feed prices to three nodes, stop one on the way, and prove that they agree",
		Long: `demo starts some nodes in this process, each with a directory of its own, and feeds
them market data: one stream for each pair, named oracle.price/PAIR, one record
for each tick. Halfway it stops a node, goes on with the others, starts it again
and lets it catch up, by sealed segments in shards from both others if it was away
for longer than their Raft logs reach back. In the end it audits every node, reads every tick back from
each of them, and replays each from one commit in the middle of the log: all of
them must come to the same digest. It exits with 0 only if they do.

With --lose-disk the directory of the node that is stopped is removed. The others
take it back as another replica, which has promised nothing to anybody; it brings
everything from them, and then gets its vote (node rebuild).

With --processes each node is a process of its own, with a key and a port, as it would be
on a machine of its own: the ticks go in through its HTTP API, and a node that is
stopped is killed without a warning.

The ticks are generated, the same ones on every machine, or come from a file:

  time_ns,pair,venue,bid,ask,size
  1577898000065000000,EUR-USD,histdata,1.121200,1.121720,
  1762795433971744000,BTC-USDT,kraken,105433.60000,105433.60000,0.00027625

with Unix nanoseconds, exact decimal numbers, and a size that may be empty. The
file is read as it is fed: a line that is wrong ends the demo with its number.`,
		Example: `  mosaik-node demo
  mosaik-node demo --ticks ticks.csv --dir trial
  mosaik-node demo --rate max --count 1000000
  mosaik-node demo --lose-disk
  mosaik-node demo --processes`,
		Args: exactly(),
	}
	f := cmd.Flags()
	f.StringVar(&opts.ticks, "ticks", "", "feed the ticks of this `FILE`, - for standard input (default: generated ones)")
	f.IntVar(&opts.nodes, "nodes", 3, "how many nodes to start, 1 to "+strconv.Itoa(engine.MaxMembers))
	f.StringVar(&opts.dir, "dir", "", "keep the nodes' directories in this `DIR`, which must be new or empty")
	f.BoolVar(&opts.processes, "processes", false, "let each node be a process, with a key and a port of its own; it is killed where it else is stopped")
	f.BoolVar(&opts.lose, "lose-disk", false, "remove the directory of the node that is stopped: it comes back with nothing (3 nodes or more)")
	f.BoolVar(&opts.keep, "keep", false, "keep the temporary directory that is used without --dir")
	f.StringVar(&rate, "rate", rate, "ticks a second, or max for as fast as they are acknowledged")
	f.Uint64Var(&opts.count, "count", 0, fmt.Sprintf("feed at most this many ticks (default: the whole file, or %d generated ones)", demoCount))
	f.Uint64Var(&opts.seed, "seed", 0, "fixes where replay starts, and the generated market (default: the usual market, any commit)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		switch n, err := strconv.ParseUint(rate, 10, 32); {
		case rate == "max":
		case err != nil || n == 0:
			return usage(cmd, fmt.Errorf("--rate %s: want max or a number of ticks a second, 1 or more", rate))
		default:
			opts.rate = n
		}
		if opts.nodes < 1 || opts.nodes > engine.MaxMembers {
			return usage(cmd, fmt.Errorf("--nodes %d: 1 to %d are possible", opts.nodes, engine.MaxMembers))
		}
		if opts.lose && opts.nodes < 3 {
			return usage(cmd, fmt.Errorf("--lose-disk: of %d nodes none can be stopped on the way, use 3 or more", opts.nodes))
		}
		opts.market = opts.seed
		if !cmd.Flags().Changed("seed") {
			opts.seed, opts.market = rand.Uint64N(10_000), demoMarket
		}
		if opts.ticks == "" {
			opts.count = cmp.Or(opts.count, demoCount)
		}
		source, err := openTicks(cmd.Context(), &opts, g.in)
		if err != nil {
			return badTicks(cmd, err)
		}
		d := &demo{opts: opts, source: source, screen: newScreen(g.err)}
		err = d.run(cmd.Context(), func(r *demoReport) error {
			if g.json {
				return printJSON(g.out, r)
			}
			return r.print(g.out)
		})
		return badTicks(cmd, errors.Join(err, source.close()))
	}
	return cmd
}

// demo is one run.
type demo struct {
	opts    demoOptions
	source  *tickSource
	screen  *screen
	dir     string
	cluster demoNodes
	groups  []demoGroup // of the nodes, at the end
	report  demoReport
}

// run goes through the demo and hands what came out to print. The cluster is
// closed before that, and the directory removed after it, unless it is kept.
func (d *demo) run(ctx context.Context, print func(*demoReport) error) (err error) {
	if err := d.makeDir(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.removeDir(err)) }()
	if err := d.play(ctx); err != nil {
		return err
	}
	judgement := d.report.judge()
	if d.opts.keep || judgement != nil {
		d.report.Dir = d.dir
	}
	return errors.Join(print(&d.report), judgement)
}

// play is the part of run during which the nodes are up.
func (d *demo) play(ctx context.Context) (err error) {
	defer d.screen.clear()
	d.screen.title(d.promise())
	if err := d.start(ctx); err != nil {
		return err
	}
	defer func() {
		if ctx.Err() != nil {
			// What a node says that is closed in the middle of everything is no news.
			d.screen.step("closing", "interrupted")
			_ = d.cluster.Close()
			return
		}
		err = errors.Join(err, d.cluster.Close())
	}()
	if err := d.feed(ctx); err != nil {
		return err
	}
	return d.verify(ctx)
}

// promise says what is going to be shown.
func (d *demo) promise() string {
	switch d.opts.nodes {
	case 1:
		return "mosaik demo: one node keeps a log of prices.\n" +
			"In the end it is audited, read back, and replayed from the middle."
	case 2:
		return "mosaik demo: two nodes agree on one log of prices.\n" +
			"In the end both must prove that they hold the same history."
	}
	return fmt.Sprintf("mosaik demo: %d nodes agree on one log of prices, and lose one of them for a while.\n", d.opts.nodes) +
		"In the end each must prove that it holds the same history as the others."
}

// makeDir makes the directory that the nodes' directories are in.
func (d *demo) makeDir() error {
	if d.opts.dir == "" {
		dir, err := os.MkdirTemp("", "mosaik-demo-")
		d.dir = dir
		return err
	}
	d.dir, d.opts.keep = d.opts.dir, true
	if entries, err := os.ReadDir(d.dir); err == nil && len(entries) > 0 {
		return fmt.Errorf("--dir %s: there is something in it; the demo starts from nothing: name another directory", d.dir)
	}
	return os.MkdirAll(d.dir, 0o700)
}

// removeDir removes a temporary directory. Nodes that do not agree are kept, as
// what there is to find the reason with.
func (d *demo) removeDir(err error) error {
	var corrupt *log.CorruptionError
	if d.opts.keep || errors.Is(err, errDisagree) || errors.As(err, &corrupt) {
		if err != nil {
			d.screen.step("kept", "%s", d.dir)
		}
		return nil
	}
	return os.RemoveAll(d.dir)
}

// start starts the nodes and waits until they can be written to.
func (d *demo) start(ctx context.Context) error {
	d.screen.note("starting " + plural(d.opts.nodes, "node"))
	// Small segments and a short Raft log: the node that was away has to take over
	// segments from the others, which else it would only after hundreds of megabytes.
	c, err := d.open(ctx)
	if err != nil {
		return err
	}
	d.cluster = c
	if err := c.Ready(ctx); err != nil {
		return errors.Join(err, c.Close())
	}
	names := make([]string, d.opts.nodes)
	for i := range names {
		names[i] = nodeName(i)
	}
	where := "in a temporary directory"
	if d.opts.keep {
		where = "in " + d.dir
	}
	d.screen.step("start", "%s %s", strings.Join(names, ", "), where)
	return nil
}

// open starts the nodes, here or as processes.
func (d *demo) open(ctx context.Context) (demoNodes, error) {
	if d.opts.processes {
		return startChildren(ctx, d.dir, d.opts.nodes)
	}
	p := &inProcess{synced: make(chan engine.SyncReport, 1)}
	o := &engine.Options{ProposeTimeout: patience, SegmentBytes: demoSegmentBytes, RaftLogBytes: demoRaftLogBytes}
	o.Events.StateFetched = func(_ string, r engine.SyncReport) {
		select {
		case p.synced <- r:
		default: // one is told of
		}
	}
	var err error
	p.Cluster, err = cluster.Open(cluster.Options{Nodes: d.opts.nodes, Dir: d.dir, Engine: o})
	return p, err
}

// nodeName is the name of node i's directory, and what the demo calls it.
func nodeName(i int) string { return "node" + strconv.Itoa(i+1) }
