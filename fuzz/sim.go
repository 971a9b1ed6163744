package fuzz

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/mosaik-engine/mosaik/engine"
	"github.com/mosaik-engine/mosaik/engine/cluster"
	"github.com/mosaik-engine/mosaik/engine/inproc"
	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/replay"
	"github.com/mosaik-engine/mosaik/snapshot"
)

// Simulation is one run of a group of three nodes. See the package comment.
type Simulation struct {
	Seed    uint64
	Steps   int // things that happen to the cluster; default 20
	Clients int // default: 2 to 6, as the seed says
	Keys    int // default: 1 to 4, likewise
	Viewers int // clients of a map and a cell, beside the others; default: none

	lazyReads bool // reads do not ask the group: a mistake for the judge to find
	lazyViews bool // likewise those of the map and the cell
}

// Outcome says what a run consisted of, so that a test can tell a run in which
// nothing happened.
type Outcome struct {
	Appends, Acked, Unknown, Refused int // calls that append
	Reads, StaleReads, Waits         int
	Writes, Open, Swaps, Looks       int // of the map and the cell: writes, those with an unknown outcome, exchanges that took place, reads
	Commits, Records                 uint64
	Starts, Stops, Cuts, Splits      int // of nodes, of power, of the network
	FullDisks                        int
	Trimmed, StateFetched            int           // Raft logs shortened, and members too far behind for them
	Sealed, Archived                 int           // segments, on each node
	LostDisks                        int           // of nodes that came back from the others
	Replaced                         int           // of these, by new members
	Simulated                        time.Duration // on the clock of the run
	Network                          inproc.Stats
	Story                            []string // what happened to the cluster, and when
}

// Add sums up runs. The story is not kept.
func (o *Outcome) Add(p Outcome) {
	o.Appends, o.Acked, o.Unknown, o.Refused = o.Appends+p.Appends, o.Acked+p.Acked, o.Unknown+p.Unknown, o.Refused+p.Refused
	o.Reads, o.StaleReads, o.Waits = o.Reads+p.Reads, o.StaleReads+p.StaleReads, o.Waits+p.Waits
	o.Writes, o.Open, o.Swaps, o.Looks = o.Writes+p.Writes, o.Open+p.Open, o.Swaps+p.Swaps, o.Looks+p.Looks
	o.Commits, o.Records = o.Commits+p.Commits, o.Records+p.Records
	o.Starts, o.Stops, o.Cuts, o.Splits = o.Starts+p.Starts, o.Stops+p.Stops, o.Cuts+p.Cuts, o.Splits+p.Splits
	o.FullDisks += p.FullDisks
	o.Trimmed, o.StateFetched = o.Trimmed+p.Trimmed, o.StateFetched+p.StateFetched
	o.Sealed, o.Archived = o.Sealed+p.Sealed, o.Archived+p.Archived
	o.LostDisks, o.Replaced = o.LostDisks+p.LostDisks, o.Replaced+p.Replaced
	o.Simulated += p.Simulated
	o.Network.Messages += p.Network.Messages
	o.Network.Chunks += p.Network.Chunks
	o.Network.Dropped += p.Network.Dropped
	o.Network.Cut += p.Network.Cut
	o.Network.Duplicated += p.Network.Duplicated
	o.Network.Reordered += p.Network.Reordered
}

// String says it in one line.
func (o Outcome) String() string {
	return fmt.Sprintf("%v: %d appends (%d acknowledged, %d unknown, %d refused), %d reads, %d stale, %d waits; "+
		"%d writes (%d unknown, %d swaps), %d looks; %d commits, %d records; "+
		"%d starts, %d stops, %d power cuts, %d splits, %d full disks, %d lost, %d replaced; %d trims, %d states fetched, %d segments sealed, %d archived; %d messages, %d dropped, %d cut, %d repeated, %d reordered",
		o.Simulated, o.Appends, o.Acked, o.Unknown, o.Refused, o.Reads, o.StaleReads, o.Waits,
		o.Writes, o.Open, o.Swaps, o.Looks, o.Commits, o.Records,
		o.Starts, o.Stops, o.Cuts, o.Splits, o.FullDisks, o.LostDisks, o.Replaced, o.Trimmed, o.StateFetched, o.Sealed, o.Archived,
		o.Network.Messages, o.Network.Dropped, o.Network.Cut, o.Network.Duplicated, o.Network.Reordered)
}

const nodes = 3

// world is a run under way. Its fields without a note belong to the goroutine
// of Run.
type world struct {
	rng     *rand.Rand
	began   time.Time
	keys    []identity.ID
	history *history // of everybody
	net     *inproc.Network
	cluster *cluster.Cluster
	nodes   [nodes]*node
	clients []*client
	viewers []*viewer
	wg      sync.WaitGroup     // followers
	ctx     context.Context    // of followers
	end     context.CancelFunc // of ctx

	cutOff  int // node that the network is split from; -1: none
	lives   int // begun so far
	outcome Outcome

	trimmed, stateFetched atomic.Int64 // counted by the engines' events
	sealed, archived      atomic.Int64
}

// node is one of the nodes, through all its lives.
type node struct {
	disk *disk
	lost bool // its disk is gone, and the others have not taken it back yet
	// replace says that a new member is to take the place of the one that is lost.
	replace bool
	now     *life                // nil while stopped
	life    atomic.Pointer[life] // now, as clients may see it
}

// life is a node from a start to a stop.
type life struct {
	number int
	group  *engine.Group
	// dead is set right before the power is cut. Whoever sees it unset after
	// something was said can be sure that it was said by a node that lived.
	dead atomic.Bool
}

// Run plays the simulation. The error says what did not hold; with ctx's end it
// is that the run did not come to its own end.
func (s Simulation) Run(ctx context.Context) (Outcome, error) {
	w := &world{
		rng:     rand.New(rand.NewPCG(s.Seed, 0)),
		began:   time.Now(),
		history: newHistory(),
		net:     inproc.New(inproc.Options{Seed: int64(s.Seed)}),
		cutOff:  -1,
	}
	s.Steps = cmp.Or(s.Steps, 20)
	s.Clients = cmp.Or(s.Clients, 2+w.rng.IntN(5))
	s.Keys = cmp.Or(s.Keys, 1+w.rng.IntN(4))
	w.keys = keysNamed(s.Keys)
	w.ctx, w.end = context.WithCancel(ctx)
	defer w.end()
	err := w.run(ctx, s)
	w.outcome.Simulated = time.Since(w.began)
	w.outcome.Network = w.net.Stats()
	w.outcome.Trimmed = int(w.trimmed.Load())
	w.outcome.StateFetched = int(w.stateFetched.Load())
	w.outcome.Sealed, w.outcome.Archived = int(w.sealed.Load()), int(w.archived.Load())
	if err != nil {
		err = fmt.Errorf("simulation, seed %d: %w", s.Seed, err)
	}
	return w.outcome, err
}

func (w *world) run(ctx context.Context, s Simulation) (err error) {
	if err := w.open(); err != nil {
		return err
	}
	defer func() {
		w.end()
		err = errors.Join(err, w.cluster.Close())
		w.wg.Wait()
	}()
	stop := make(chan struct{})
	var clients sync.WaitGroup
	for i := range s.Clients {
		c := &client{w: w, id: i, wg: &clients, lazyReads: s.lazyReads, rng: rand.New(rand.NewPCG(s.Seed, uint64(i+1))), length: make([]uint64, s.Keys)}
		w.clients = append(w.clients, c)
		clients.Add(1)
		go c.runClient(stop)
	}
	for i := range s.Viewers {
		v := &viewer{w: w, id: s.Clients + i, wg: &clients, lazy: s.lazyViews, rng: rand.New(rand.NewPCG(s.Seed, uint64(s.Clients+i+1)))}
		w.viewers = append(w.viewers, v)
		clients.Add(1)
		go v.runViewer(stop)
	}
	for range s.Steps {
		if err = w.step(ctx); err != nil {
			break
		}
	}
	close(stop)
	clients.Wait()
	if err != nil {
		return err
	}
	if err := w.history.wrong(); err != nil {
		return err
	}
	if err := w.heal(); err != nil {
		return err
	}
	if err := w.settle(ctx); err != nil {
		return err
	}
	if err := w.judge(ctx); err != nil {
		return err
	}
	if len(w.viewers) > 0 {
		if err := w.clearObjects(ctx); err != nil {
			return err
		}
	}
	w.tell("once more, after the power has failed everywhere with nothing under way")
	if err := w.cutPower(ctx, []int{0, 1, 2}, 0); err != nil {
		return err
	}
	if err := w.heal(); err != nil {
		return err
	}
	if err := w.settle(ctx); err != nil {
		return err
	}
	return w.judge(ctx)
}

// open starts the nodes for the first time.
func (w *world) open() error {
	for i := range w.nodes {
		w.nodes[i] = &node{disk: newDisk(vfs.NewCrashableMem())}
	}
	options := &engine.Options{
		ProposeTimeout: time.Duration(500+w.rng.IntN(3000)) * time.Millisecond,
		InFlight:       1 + w.rng.IntN(8),
		RaftLogBytes:   16 << 10 << w.rng.IntN(6),
		MemTableBytes:  1 << 20,
		CacheBytes:     1 << 20,
		SegmentBytes:   engine.MinSegmentBytes,
	}
	if options.RaftLogBytes <= 128<<10 { // reads reach into the archive, and members that lag take over segments
		options.Retention = engine.Retention{Segments: 1}
	}
	options.Events.Sealed = func(string, *snapshot.Manifest) { w.sealed.Add(1) }
	options.Events.Archived = func(string, *snapshot.Manifest) { w.archived.Add(1) }
	options.Events.Trimmed = func(string, uint64) { w.trimmed.Add(1) }
	options.Events.StateFetched = func(string, engine.SyncReport) { w.stateFetched.Add(1) }
	options.Events.BackgroundError = func(err error) { w.history.fail("a node's own work failed: %w", err) }
	w.tell("three nodes with %d batches in flight, timeout %v, %d bytes of Raft log", options.InFlight, options.ProposeTimeout, options.RaftLogBytes)
	var err error
	w.cluster, err = cluster.Open(cluster.Options{
		Nodes: nodes, Dir: "/simulation", Engine: options, Network: w.net,
		Configure: func(i int, o *engine.Options) { o.FS = w.nodes[i].disk },
	})
	if err != nil {
		return err
	}
	for i := range w.nodes {
		w.begin(i, w.newLife())
	}
	return nil
}

func (w *world) newLife() *life {
	w.lives++
	w.outcome.Starts++
	return &life{number: w.lives}
}

// begin lets the clients see a node that has started.
func (w *world) begin(i int, l *life) {
	l.group = w.cluster.Node(i).Groups()[0]
	w.nodes[i].now = l
	w.tell("node %d is up, its head is %d", i+1, l.group.Head().Number)
	w.nodes[i].life.Store(l)
	w.wg.Add(1)
	go w.runFollower(i, l, w.rng.IntN(len(w.keys)))
}

// tell adds to the story.
func (w *world) tell(format string, args ...any) {
	w.outcome.Story = append(w.outcome.Story, fmt.Sprintf("%8.3fs  ", time.Since(w.began).Seconds())+fmt.Sprintf(format, args...))
}

// pause waits for d, or less if stop is closed.
func pause(d time.Duration, stop <-chan struct{}) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-stop:
	}
}

// Limits of what a healthy group may take, on the clock of the run.
const (
	recoverWithin = 2 * time.Minute
	settleWithin  = time.Minute
	quietFor      = 10 * time.Second
)

// settle waits until every node writes and reads again and nothing that clients
// have given up on is still on its way into the log.
func (w *world) settle(ctx context.Context) error {
	ready, cancel := context.WithTimeout(ctx, recoverWithin)
	defer cancel()
	if err := w.cluster.Ready(ready); err != nil {
		return fmt.Errorf("the healed group is not ready within %v: %w", recoverWithin, err)
	}
	for i, n := range w.nodes {
		c := w.clients[i%len(w.clients)]
		for {
			k := c.finish(ready, n.now, c.append(ready, n.now, call{client: c.id, node: i, key: 0}))
			if k.outcome == acked {
				break
			}
			w.tell("node %d does not append: %v", i+1, k.err)
			if ready.Err() != nil {
				return fmt.Errorf("the healed group does not accept an append by node %d within %v, its leader is %s: %w",
					i+1, recoverWithin, n.now.group.Status().Leader.Short(), k.err)
			}
			pause(100*time.Millisecond, ready.Done())
		}
	}
	last, err := w.heads(ready)
	if err != nil {
		return err
	}
	deadline := time.Now().Add(settleWithin)
	for quietSince := time.Now(); time.Since(quietSince) < quietFor; {
		pause(time.Second, ctx.Done())
		now, err := w.heads(ready)
		if err != nil {
			return err
		}
		if now != last || now[0] != now[1] || now[1] != now[2] {
			last, quietSince = now, time.Now()
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the healed group's heads differ or move for %v: %v", settleWithin, now)
		}
	}
	return nil
}

// judge holds the nodes against each other and the history against them.
func (w *world) judge(ctx context.Context) error {
	if err := w.history.wrong(); err != nil {
		return err
	}
	var reports [nodes]replay.Report
	for i, n := range w.nodes {
		var err error
		if reports[i], err = replay.Audit(ctx, n.now.group, replay.AuditOptions{}); err != nil {
			return fmt.Errorf("audit of node %d: %w", i+1, err)
		}
		if _, err := w.cluster.Node(i).Check(ctx, nil); err != nil {
			return fmt.Errorf("check of node %d: %w", i+1, err)
		}
	}
	head := reports[0].Head
	w.outcome.Commits, w.outcome.Records = head.Number, reports[0].Records
	first := w.nodes[0].now.group
	for i, n := range w.nodes[1:] {
		d, err := replay.Compare(ctx, first, n.now.group, 0, 0)
		if err != nil || d.Kind != replay.Same {
			return fmt.Errorf("nodes 1 and %d differ: %+v, %w", i+2, d, err)
		}
	}
	for range 8 {
		from := 1 + w.rng.Uint64N(head.Number)
		to := from + w.rng.Uint64N(head.Number-from+1)
		want, err := replay.Digest(ctx, first, from, to)
		if err != nil {
			return err
		}
		for i, n := range w.nodes[1:] {
			got, err := replay.Digest(ctx, n.now.group, from, to)
			if err != nil || got != want {
				return fmt.Errorf("replay of %d..%d is %s on node 1, %s on node %d: %w", from, to, want, got, i+2, err)
			}
		}
	}
	var folded []identity.ID
	if len(w.viewers) > 0 {
		folded = foldedKeys()
	}
	agreed, err := readLog(ctx, first, w.keys, folded)
	if err != nil {
		return err
	}
	for i, n := range w.nodes {
		for _, k := range w.history.calls() {
			if k.outcome != acked {
				continue
			}
			if err := n.holds(k.pointer); err != nil {
				return fmt.Errorf("an acknowledged pointer does not hold on node %d: %w", i+1, err)
			}
		}
	}
	if len(w.viewers) > 0 {
		if err := w.judgeViews(ctx, head.Number); err != nil {
			return err
		}
	}
	w.outcome.count(w.history, w.clients)
	return w.history.judge(agreed)
}

// holds checks a pointer against the log of the node.
func (n *node) holds(p log.Pointer) error {
	c, err := n.now.group.Commit(p.Commit)
	if err != nil {
		return err
	}
	return p.Check(&c)
}

// count fills in what the clients did.
func (o *Outcome) count(h *history, clients []*client) {
	o.Appends, o.Acked, o.Unknown, o.Refused, o.Reads, o.StaleReads, o.Waits = 0, 0, 0, 0, 0, 0, 0
	for _, k := range h.calls() {
		if k.values == nil {
			o.Reads++
			continue
		}
		o.Appends++
		switch k.outcome {
		case acked:
			o.Acked++
		case unknown:
			o.Unknown++
		case refused:
			o.Refused++
		}
	}
	o.Writes, o.Open, o.Swaps, o.Looks = 0, 0, 0, 0
	for _, k := range h.uses() {
		switch {
		case k.verb == look:
			o.Looks++
			continue
		case k.outcome == unknown:
			o.Open++
		case k.swapped:
			o.Swaps++
		}
		o.Writes++
	}
	for _, c := range clients {
		o.StaleReads += c.staleReads
		o.Waits += c.waits
	}
}
