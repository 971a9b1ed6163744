package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/spf13/cobra"

	"github.com/mosaik-engine/mosaik/cmd/mosaik-node/internal/ticks"
	"github.com/mosaik-engine/mosaik/log"
)

// tickSource is where the ticks come from.
type tickSource struct {
	name   string
	file   *os.File      // to close; nil if there is none
	reader *ticks.Reader // nil for the generated market
	market *ticks.Market
	size   int64       // of the file, 0 if unknown
	limit  uint64      // ticks to take at most, 0 for all
	taken  uint64      // ticks
	first  *ticks.Tick // read ahead to see whether there is one
}

// openTicks opens the input and reads it up to the first tick. It gives up when
// ctx ends, even if nothing comes in.
func openTicks(ctx context.Context, opts *demoOptions, stdin io.Reader) (*tickSource, error) {
	s := &tickSource{limit: opts.count}
	if opts.ticks == "" {
		s.name, s.market = "generated", ticks.NewMarket(opts.market)
		return s, nil
	}
	s.name = opts.ticks
	in := stdin
	if opts.ticks == "-" {
		s.name = "stdin"
	} else {
		f, err := os.Open(opts.ticks)
		if err != nil {
			return nil, err
		}
		s.file, in = f, f
	}
	if f, ok := in.(*os.File); ok {
		if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
			s.size = info.Size()
		}
	}
	opened := make(chan error, 1)
	go s.runOpen(in, opened)
	var err error
	select {
	case err = <-opened:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// runOpen checks the head of the input. It ends with the first tick, which a
// terminal or a pipe may never send.
func (s *tickSource) runOpen(in io.Reader, opened chan<- error) {
	reader, err := ticks.NewReader(s.name, in)
	if err != nil {
		opened <- err
		return
	}
	first, err := reader.Next()
	if errors.Is(err, io.EOF) {
		err = &ticks.Error{File: s.name, Line: 2, Column: 1, Err: errors.New("there is no tick after the header")}
	}
	s.reader, s.first = reader, &first
	opened <- err
}

// next returns the next tick, or io.EOF.
func (s *tickSource) next() (ticks.Tick, error) {
	if s.limit != 0 && s.taken == s.limit {
		return ticks.Tick{}, io.EOF
	}
	var t ticks.Tick
	var err error
	switch {
	case s.market != nil:
		t = s.market.Next()
	case s.first != nil:
		t, s.first = *s.first, nil
	default:
		t, err = s.reader.Next()
	}
	if err == nil {
		s.taken++
	}
	return t, err
}

// share returns how much of the input has been taken, 0 to 1, or -1 when nobody
// can know.
func (s *tickSource) share() float64 {
	share := -1.0
	if s.limit != 0 {
		share = float64(s.taken) / float64(s.limit)
	}
	if s.size != 0 {
		share = max(share, float64(s.reader.Offset())/float64(s.size))
	}
	return min(share, 1)
}

func (s *tickSource) close() error {
	if s.file == nil {
		return nil
	}
	return s.file.Close()
}

// badTicks marks an error in a file of ticks as malformed input.
func badTicks(cmd *cobra.Command, err error) error {
	var bad *ticks.Error
	if errors.As(err, &bad) {
		return usage(cmd, err)
	}
	return err
}

// streamPrefix and a pair make the name of the pair's stream.
const streamPrefix = "oracle.price/"

// pairStream returns the definition of a pair's stream.
func (d *demo) pairStream(pair string) log.StreamDef[ticks.Tick] {
	if d.opts.processes { // what the HTTP API writes
		return log.StreamDef[ticks.Tick]{Name: streamPrefix + pair, Codec: log.JSON[ticks.Tick]()}
	}
	return log.StreamDef[ticks.Tick]{Name: streamPrefix + pair}
}

// pairFeed is one pair's stream while it is fed.
type pairFeed struct {
	pair   string
	stream *log.Stream[ticks.Tick]
	fed    uint64    // by the feeder
	sum    hash.Hash // of the fed ticks as lines of CSV, by the feeder
	acked  uint64    // by the collector
}

// maxInFlight bounds the ticks that are not acknowledged yet: at full speed it is
// what keeps the write path busy, below it only a group without a leader makes so
// many of them wait.
const maxInFlight = 4096

// Marks of the way at which a node is stopped and started again: shares of the
// input, or, where its length is unknown, numbers of ticks.
var (
	markShares = [...]float64{0.5, 0.75}
	markTicks  = [...]uint64{10_000, 20_000}
)

// feeder brings the ticks into the log. Three goroutines take part, which share
// only what mu guards and the channels:
//
//	runFeed     takes a tick, waits until it is due, appends it to its stream
//	            without waiting for the outcome, and puts the future into pending
//	runCollect  waits for the futures in their order and counts
//	demo.feed   draws the progress, and stops and starts a node when runFeed asks
//	            for it at the marks; only it touches the cluster
type feeder struct {
	source *tickSource
	writer log.Writer
	stream func(pair string) log.StreamDef[ticks.Tick]
	rate   uint64
	marks  int // how many of the marks are still ahead

	pending chan pendingTick
	mark    chan int // runFeed has come to a mark, and waits for resume
	resume  chan struct{}

	// These are runFeed's, and anybody's after it has closed pending.
	pairs  []*pairFeed // in the order of their first ticks
	byPair map[string]*pairFeed
	line   []byte // reused
	failed error  // why the feed ended early

	mu    sync.Mutex
	stats feedStats
}

type pendingTick struct {
	pair   *pairFeed
	future *log.Future
	at     time.Time // of the append
}

// feedStats say how far the feed is.
type feedStats struct {
	fed     uint64
	share   float64 // of the input, -1 if unknown
	acked   uint64
	last    log.Pointer
	latency *hdrhistogram.Histogram // microseconds from the append to the acknowledgement
	max     time.Duration
}

// feed feeds all ticks, and returns when all are acknowledged and on every node.
func (d *demo) feed(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	writer := d.chooseWriter()
	f := &feeder{
		source: d.source, writer: d.cluster.Writer(writer), stream: d.pairStream, rate: d.opts.rate,
		pending: make(chan pendingTick, maxInFlight), mark: make(chan int), resume: make(chan struct{}, 1),
		byPair: make(map[string]*pairFeed),
	}
	f.stats.latency = hdrhistogram.New(1, int64(10*time.Minute/time.Microsecond), 3)
	if d.opts.nodes >= 3 {
		f.marks = len(markShares)
	}
	d.announce(writer)
	began := time.Now()
	collected := make(chan error, 1)
	// When the feed ends badly nobody waits for these two. They end upon ctx and
	// touch nothing of the demo's; only, runFeed may be reading a silent pipe.
	go f.runFeed(ctx)
	go f.runCollect(ctx, collected)

	o := &outage{d: d, writer: writer, caughtUp: make(chan error, 1)}
	p := &progress{screen: d.screen, began: began}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			o.watch()
			p.draw(f, o.electing)
		case mark := <-f.mark:
			if err := o.at(ctx, mark, f); err != nil {
				return err
			}
			f.resume <- struct{}{}
		case err := <-o.caughtUp:
			if err != nil {
				return err
			}
			o.tellCaughtUp()
		case err := <-collected:
			if err != nil {
				return err
			}
			return d.finishFeed(ctx, f, o, time.Since(began))
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// chooseWriter returns the node that the ticks go through: not the one that
// leads, if there is a choice, because that is the one to be stopped.
func (d *demo) chooseWriter() int {
	leader, _ := d.cluster.Lead(0)
	return (max(leader, 0) + 1) % d.opts.nodes
}

// announce says what is going to be fed, and how.
func (d *demo) announce(writer int) {
	what := "the ticks in " + d.source.name
	switch {
	case d.source.market != nil:
		what = plural(d.opts.count, "generated tick")
	case d.opts.count != 0:
		what = fmt.Sprintf("the first %s in %s", plural(d.opts.count, "tick"), d.source.name)
	}
	speed := "as fast as they are acknowledged"
	if d.opts.rate != 0 {
		speed = grouped(d.opts.rate) + " a second"
	}
	d.screen.step("feed", "%s through %s, %s", what, nodeName(writer), speed)
	switch d.opts.nodes {
	case 1:
		d.screen.step("", "a node alone cannot be stopped on the way: there would be none to go on")
	case 2:
		d.screen.step("", "of two nodes none can be stopped on the way: one is no majority")
	}
}

// runFeed feeds ticks until there are no more. It closes pending at the end.
func (f *feeder) runFeed(ctx context.Context) {
	defer close(f.pending)
	began := time.Now()
	for n := uint64(0); ; n++ {
		t, err := f.source.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = f.pace(ctx, began, n)
		}
		if err == nil {
			err = f.append(ctx, t)
		}
		if err == nil && f.marks > 0 && f.passed(len(markShares)-f.marks) {
			err = f.stopAt(ctx)
		}
		if err != nil {
			f.failed = err
			return
		}
	}
	// A node that was stopped comes back, also where the end came as a surprise.
	if f.marks == 1 {
		f.failed = f.stopAt(ctx)
	}
}

// pace waits until tick n is due. Short waits are left out: timers are no finer,
// and a few ticks at a time come to the same rate.
func (f *feeder) pace(ctx context.Context, began time.Time, n uint64) error {
	if f.rate == 0 {
		return ctx.Err()
	}
	due := time.Duration(n/f.rate)*time.Second + time.Duration(n%f.rate)*time.Second/time.Duration(f.rate)
	wait := due - time.Since(began)
	if wait < time.Millisecond {
		return ctx.Err()
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// append appends one tick to its pair's stream.
func (f *feeder) append(ctx context.Context, t ticks.Tick) error {
	p := f.byPair[t.Pair]
	if p == nil {
		stream, err := f.stream(t.Pair).Open(ctx, f.writer)
		if err != nil {
			return err
		}
		p = &pairFeed{pair: t.Pair, stream: stream, sum: sha256.New()}
		f.byPair[t.Pair] = p
		f.pairs = append(f.pairs, p)
	}
	next := pendingTick{pair: p, at: time.Now()}
	next.future = p.stream.AppendAsync(ctx, t)
	select {
	case f.pending <- next:
	case <-ctx.Done():
		return ctx.Err()
	}
	p.fed++
	f.line = t.AppendTo(f.line[:0])
	p.sum.Write(f.line)
	f.mu.Lock()
	f.stats.fed = f.source.taken
	f.stats.share = f.source.share()
	f.mu.Unlock()
	return nil
}

// passed reports whether the feed has come to the given mark.
func (f *feeder) passed(mark int) bool {
	if share := f.source.share(); share >= 0 {
		return share >= markShares[mark]
	}
	return f.source.taken >= markTicks[mark]
}

// stopAt tells that the next mark is passed, and waits until what is to happen
// there has happened.
func (f *feeder) stopAt(ctx context.Context) error {
	mark := len(markShares) - f.marks
	f.marks--
	select {
	case f.mark <- mark:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-f.resume:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// runCollect counts acknowledgements, in the order of the appends. That each
// pair's records are numbered 1, 2, 3 in the order in which they were fed is
// what no loss, no repetition and no reordering mean.
func (f *feeder) runCollect(ctx context.Context, collected chan<- error) {
	for p := range f.pending {
		pointer, err := p.future.Wait(ctx)
		if err != nil {
			collected <- fmt.Errorf("tick %d of %s was not acknowledged: %w", p.pair.acked+1, p.pair.pair, err)
			return
		}
		took := time.Since(p.at)
		p.pair.acked++
		if pointer.Seq != p.pair.acked {
			collected <- fmt.Errorf("tick %d of %s was acknowledged as record %d", p.pair.acked, p.pair.pair, pointer.Seq)
			return
		}
		f.mu.Lock()
		f.stats.acked++
		f.stats.last = pointer
		f.stats.max = max(f.stats.max, took)
		// The error is about values beyond ten minutes, which max has.
		_ = f.stats.latency.RecordValue(took.Microseconds())
		f.mu.Unlock()
	}
	collected <- nil
}

// finishFeed waits until every node has every tick.
func (d *demo) finishFeed(ctx context.Context, f *feeder, o *outage, took time.Duration) error {
	s := &f.stats
	if f.failed != nil {
		if s.acked > 0 {
			d.screen.step("fed", "%s before that, all acknowledged", plural(s.acked, "tick"))
		}
		return f.failed
	}
	if o.waiting {
		if err := <-o.caughtUp; err != nil {
			return err
		}
		o.tellCaughtUp()
	}
	if s.acked != s.fed {
		return fmt.Errorf("%d ticks were fed and %d acknowledged", s.fed, s.acked)
	}
	if err := d.allAt(ctx, s.last); err != nil {
		return err
	}
	d.report.fed(d, f, took)
	durable := "on disk"
	switch {
	case d.opts.nodes == 2:
		durable = "on the disks of both nodes"
	case d.opts.nodes > 2:
		durable = fmt.Sprintf("on the disks of %d nodes or more", d.opts.nodes/2+1)
	}
	d.screen.step("fed", "%s in %s, each one acknowledged: %s", plural(s.acked, "tick"), seconds(took), durable)
	return nil
}

// allAt waits until every node has the commit that p points at, with its digest.
func (d *demo) allAt(ctx context.Context, p log.Pointer) error {
	for i := range d.opts.nodes {
		d.screen.note("waiting for " + nodeName(i))
		g, err := d.cluster.Group(i)
		if err == nil {
			err = waitFor(ctx, nodeName(i), g, p)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// waitFor is for a node that nothing keeps from coming to p.
func waitFor(ctx context.Context, name string, g demoGroup, p log.Pointer) error {
	limited, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	if err := g.WaitFor(limited, p); err != nil {
		return fmt.Errorf("%s has %d of %d commits: %w", name, g.Head().Number, p.Commit, err)
	}
	return nil
}

// outage is the stop of one node in mid-feed, and its return.
type outage struct {
	d        *demo
	writer   int
	node     int
	led      bool
	stopped  time.Time
	term     uint64 // of Raft, when it was stopped
	electing bool   // no leader of a later term seen yet
	restart  time.Time
	waiting  bool // a runCatchUp is under way
	caughtUp chan error
}

// at does what belongs to the mark.
func (o *outage) at(ctx context.Context, mark int, f *feeder) error {
	if mark == 0 {
		return o.stop(f.source.taken)
	}
	return o.start(ctx, f.source.taken)
}

// stop stops a node: not the one the ticks go through, and else the one that is
// hardest to lose.
func (o *outage) stop(taken uint64) error {
	d := o.d
	o.node, o.term = d.cluster.Lead(o.writer)
	o.led = o.node >= 0 && o.node != o.writer
	if !o.led {
		o.node = (o.writer + 1) % d.opts.nodes
	}
	d.screen.note("stopping " + nodeName(o.node))
	o.stopped = time.Now()
	if err := d.cluster.Stop(o.node); err != nil {
		return fmt.Errorf("stop %s: %w", nodeName(o.node), err)
	}
	name, why := nodeName(o.node), "the others are a majority and go on"
	if o.led {
		o.electing = true
		name, why = name+", the leader,", "the others must agree on a new one and go on"
	}
	d.screen.step("stop", "%s at tick %s: %s", name, grouped(taken), why)
	d.report.Outage = &outageReport{Node: nodeName(o.node), Led: o.led, StoppedAt: taken, LostDisk: d.opts.lose}
	if d.opts.lose {
		if err := os.RemoveAll(d.cluster.Dir(o.node)); err != nil {
			return err
		}
		d.screen.step("", "and its disk is gone")
	}
	return nil
}

// watch tells when there is a new leader.
func (o *outage) watch() {
	if !o.electing {
		return
	}
	leader, term := o.d.cluster.Lead(o.writer)
	if leader < 0 || term <= o.term {
		return
	}
	o.electing = false
	report, took := o.d.report.Outage, time.Since(o.stopped)
	report.NewLeader, report.LedAfter = nodeName(leader), took.Seconds()
	o.d.screen.step("", "%s leads, %s later", report.NewLeader, seconds(took))
}

// start starts the node again and has somebody wait until it has all that the
// group had at that moment.
func (o *outage) start(ctx context.Context, taken uint64) error {
	d := o.d
	d.screen.note("starting " + nodeName(o.node))
	o.restart = time.Now()
	group, err := d.cluster.Group(o.writer)
	if err != nil {
		return err
	}
	head := group.Head()
	last, err := group.Commit(head.Number)
	if err != nil {
		return err
	}
	start, how := d.cluster.Start, ""
	if d.opts.lose {
		start, how = d.cluster.Rejoin, ", without a disk,"
	}
	if err := start(ctx, o.node); err != nil {
		return err
	}
	own, err := d.cluster.Group(o.node)
	if err != nil {
		return err
	}
	behind := head.Number - min(own.Head().Number, head.Number)
	if d.opts.lose {
		behind = head.Number // whatever it has brought by now
	}
	d.screen.step("restart", "%s%s at tick %s, %s behind", nodeName(o.node), how, grouped(taken), plural(behind, "commit"))
	d.report.Outage.RestartedAt, d.report.Outage.Behind = taken, behind
	o.waiting = true
	go o.runCatchUp(ctx, own, last.Pointer())
	return nil
}

// runCatchUp waits until the started node has the commit p points at.
func (o *outage) runCatchUp(ctx context.Context, g demoGroup, p log.Pointer) {
	o.caughtUp <- waitFor(ctx, nodeName(o.node), g, p)
}

func (o *outage) tellCaughtUp() {
	took := time.Since(o.restart)
	o.waiting = false
	o.d.report.Outage.CaughtUp = took.Seconds()
	o.d.report.Outage.Segments, o.d.report.Outage.Sent = o.d.cluster.Synced(o.node)
	o.d.screen.step("", "it has caught up, %s after its start", seconds(took))
}

// progress draws how the feed goes.
type progress struct {
	screen  *screen
	began   time.Time
	samples []progressSample // of the last second or so
}

type progressSample struct {
	at    time.Time
	acked uint64
}

func (p *progress) draw(f *feeder, electing bool) {
	f.mu.Lock()
	share, fed, acked, commits := f.stats.share, f.stats.fed, f.stats.acked, f.stats.last.Commit
	p50, p99 := f.stats.quantile(50), f.stats.quantile(99)
	f.mu.Unlock()
	now := time.Now()
	for len(p.samples) > 1 && now.Sub(p.samples[1].at) >= time.Second {
		p.samples = p.samples[1:]
	}
	since := progressSample{at: p.began}
	if len(p.samples) > 0 {
		since = p.samples[0]
	}
	p.samples = append(p.samples, progressSample{now, acked})
	rate := float64(acked-since.acked) / now.Sub(since.at).Seconds()
	if share > 0 {
		share *= float64(acked) / float64(fed) // what is not acknowledged is not done
	}
	if electing {
		p.screen.live(share, fmt.Sprintf("%s  %s more wait for a leader", plural(acked, "tick"), grouped(fed-acked)))
		return
	}
	p.screen.live(share, fmt.Sprintf("%s  %s/s  %s  p50 %s  p99 %s",
		plural(acked, "tick"), grouped(uint64(rate)), plural(commits, "commit"), millis(p50), millis(p99)))
}

// quantile returns the latency that so many percent of the ticks stayed below.
func (s *feedStats) quantile(percent float64) time.Duration {
	return time.Duration(s.latency.ValueAtQuantile(percent)) * time.Microsecond
}
