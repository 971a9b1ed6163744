package fuzz

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/mosaik-engine/mosaik/engine"
	"github.com/mosaik-engine/mosaik/engine/inproc"
	"github.com/mosaik-engine/mosaik/log"
)

// step lets some time pass, then something happen. What it is depends on the
// seed and on what is up.
func (w *world) step(ctx context.Context) error {
	most := []time.Duration{20 * time.Millisecond, time.Second, 4 * time.Second}[w.rng.IntN(3)]
	pause(time.Duration(w.rng.Int64N(int64(most))), ctx.Done())
	if err := ctx.Err(); err != nil {
		return err
	}
	up, down := w.upAndDown()
	// A group that is mostly down shows little.
	if len(down) > 0 && w.rng.IntN(4) < len(down) {
		return w.start(ctx, down[w.rng.IntN(len(down))])
	}
	switch n := w.rng.IntN(16); {
	case n < 5 && len(up) > 0:
		i := up[w.rng.IntN(len(up))]
		changes := w.changes()
		w.tell("the power of node %d fails %d changes from now", i+1, changes)
		return w.cutPower(ctx, []int{i}, changes)
	case n < 6 && len(up) > 0:
		changes := w.changes()
		w.tell("the power fails everywhere, %d changes of node %d from now", changes, up[0]+1)
		return w.cutPower(ctx, up, changes)
	case n < 8 && len(up) > 0:
		return w.stop(up[w.rng.IntN(len(up))])
	case n < 11:
		i := w.rng.IntN(nodes)
		w.tell("node %d is cut off", i+1)
		w.cutOff = i
		w.connect()
		w.outcome.Splits++
	case n < 13:
		w.tell("the network is whole")
		w.cutOff = -1
		w.connect()
	case n < 14:
		w.tell("the wire is perfect")
		w.net.SetFault(inproc.Fault{})
	case n < 15 && len(up) > 0:
		i := up[w.rng.IntN(len(up))]
		full := w.rng.IntN(3) > 0
		w.tell("the disk of node %d is full: %v", i+1, full)
		w.nodes[i].disk.fill(full)
		if full {
			w.outcome.FullDisks++
		}
	default:
		f := inproc.Fault{
			Drop:      w.rng.Float64() * 0.2,
			Reorder:   w.rng.Float64() * 0.3,
			Duplicate: w.rng.Float64() * 0.3,
			DelayMax:  time.Duration(w.rng.IntN(60)) * time.Millisecond,
		}
		if w.rng.IntN(5) == 0 {
			f.DelayMax *= 20 // longer than an election
		}
		w.tell("the wire drops %.2f, reorders %.2f, repeats %.2f, delays up to %v", f.Drop, f.Reorder, f.Duplicate, f.DelayMax)
		w.net.SetFault(f)
	}
	return nil
}

func (w *world) upAndDown() (up, down []int) {
	for i, n := range w.nodes {
		if n.now != nil {
			up = append(up, i)
		} else {
			down = append(down, i)
		}
	}
	return up, down
}

// changes draws after how many changes of a disk its power fails.
func (w *world) changes() int64 {
	return 1 + w.rng.Int64N([]int64{5, 50, 500}[w.rng.IntN(3)])
}

// start starts node i, now and then with its power about to fail.
func (w *world) start(ctx context.Context, i int) error {
	pause(time.Millisecond, ctx.Done()) // no machine is back at once
	if w.rng.IntN(3) == 0 && w.mayLose(i) {
		w.tell("the disk of node %d is lost", i+1)
		w.outcome.LostDisks++
		w.nodes[i].disk, w.nodes[i].lost, w.nodes[i].replace = newDisk(vfs.NewCrashableMem()), true, w.rng.IntN(2) == 0
	}
	if w.nodes[i].lost {
		return w.rejoin(i)
	}
	l := w.newLife()
	if w.rng.IntN(4) == 0 {
		changes := w.changes()
		w.tell("node %d starts; its power fails %d changes from now", i+1, changes)
		failed := w.arm([]int{i}, []*life{l}, changes)
		if err := w.cluster.Start(i); err != nil {
			return err
		}
		w.begin(i, l)
		return w.await(ctx, []int{i}, failed)
	}
	w.tell("node %d starts", i+1)
	if err := w.cluster.Start(i); err != nil {
		return err
	}
	w.begin(i, l)
	return nil
}

// mayLose reports whether the disk of node i, which is stopped, can be lost without
// loss of what was acknowledged: the others are up, reach each other, and have all
// that they ever had.
func (w *world) mayLose(i int) bool {
	for j, n := range w.nodes {
		if j != i && (n.lost || n.now == nil || n.now.group.Status().Reader) {
			return false
		}
	}
	return w.cutOff < 0
}

// rejoin starts node i, whose disk is lost. While the others cannot agree on it, it
// stays stopped.
func (w *world) rejoin(i int) error {
	l := w.newLife()
	err := w.takeBack(i)
	if errors.Is(err, engine.ErrNoQuorum) || errors.Is(err, engine.ErrBusy) || errors.Is(err, engine.ErrDiskFull) {
		w.tell("node %d is not taken back: %v", i+1, err)
		return nil
	} else if err != nil {
		return err
	}
	w.tell("node %d is taken back", i+1)
	w.nodes[i].lost = false
	w.begin(i, l)
	return nil
}

// takeBack has the others take node i back, as the member that it was, or as a new one in
// its place.
func (w *world) takeBack(i int) error {
	n := w.nodes[i]
	if !n.replace {
		return w.cluster.Rejoin(i)
	}
	up, _ := w.upAndDown()
	if len(up) == 0 {
		return engine.ErrNoQuorum
	}
	ctx, cancel := context.WithTimeout(w.ctx, replaceTimeout)
	defer cancel()
	before := w.cluster.Peer(i)
	err := w.cluster.Replace(ctx, i, up[w.rng.IntN(len(up))])
	if w.cluster.Peer(i) != before {
		w.tell("node %d is another one now", i+1)
		w.outcome.Replaced++
		n.replace = false
		w.connect() // it has another address
	}
	return err
}

// replaceTimeout bounds an attempt to put a new member in the place of one that is lost.
const replaceTimeout = 10 * time.Second

// stop closes node i, as its operator would.
func (w *world) stop(i int) error {
	w.tell("node %d stops", i+1)
	w.outcome.Stops++
	return w.close(i)
}

func (w *world) close(i int) error {
	n := w.nodes[i]
	n.life.Store(nil)
	n.now = nil
	if err := w.cluster.Stop(i); err != nil {
		return fmt.Errorf("stop node %d: %w", i+1, err)
	}
	return nil
}

// failure is a power cut that is about to come.
type failure struct {
	done    chan struct{} // closed when it has come
	now     func()        // lets it come at once
	after   []*disk       // what is left of each victim's disk; set before done is closed
	percent int           // of what was not synced
}

// arm lets the power of the victims fail right before the given change of the
// first one's disk.
func (w *world) arm(victims []int, lives []*life, changes int64) *failure {
	w.outcome.Cuts++
	f := &failure{done: make(chan struct{}), after: make([]*disk, len(victims))}
	f.percent = []int{0, 50, 100, w.rng.IntN(101)}[w.rng.IntN(4)]
	rng := rand.New(rand.NewPCG(w.rng.Uint64(), 0))
	trigger := w.nodes[victims[0]].disk
	cut := func() {
		// From here on nobody hears what the victims say: their clients see the
		// flag, the others are out of reach. Then their disks stop.
		for _, l := range lives {
			l.dead.Store(true)
		}
		for _, i := range victims {
			w.net.Isolate(w.cluster.Address(i))
		}
		for n, i := range victims {
			f.after[n] = w.nodes[i].disk.after(rng, f.percent)
		}
		close(f.done)
	}
	trigger.cut = cut
	f.now = func() {
		if trigger.left.Swap(0) > 0 {
			cut()
		}
	}
	trigger.left.Store(changes)
	return f
}

// cutPower cuts the power of the victims, which are up, and leaves them stopped.
// With changes 0 that happens at once.
func (w *world) cutPower(ctx context.Context, victims []int, changes int64) error {
	var lives []*life
	for _, i := range victims {
		lives = append(lives, w.nodes[i].now)
	}
	f := w.arm(victims, lives, max(changes, 1))
	if changes == 0 {
		f.now()
	}
	return w.await(ctx, victims, f)
}

// patience is how long a power cut waits for the changes it is to come after.
const patience = 2 * time.Second

// await waits for the power cut, then clears away the victims and puts what is
// left of their disks in its place.
func (w *world) await(ctx context.Context, victims []int, f *failure) error {
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case <-f.done:
	case <-t.C:
		f.now()
		<-f.done
	case <-ctx.Done():
		return ctx.Err()
	}
	for n, i := range victims {
		w.tell("the power of node %d has failed; its head was %d, %d%% of what it had not synced is left", i+1, w.nodes[i].now.group.Head().Number, f.percent)
		if err := w.close(i); err != nil {
			return err
		}
		w.nodes[i].disk = f.after[n]
	}
	w.connect() // they come back to the network they left
	return nil
}

// connect makes the network as it is to be.
func (w *world) connect() {
	w.net.Heal()
	if w.cutOff >= 0 {
		w.net.Partition([]string{w.cluster.Address(w.cutOff)})
	}
}

// heal ends all faults and starts all nodes.
func (w *world) heal() error {
	w.tell("everything heals")
	w.net.SetFault(inproc.Fault{})
	w.cutOff = -1
	w.connect()
	for i, n := range w.nodes {
		n.disk.fill(false)
		if n.now != nil {
			continue
		}
		pause(time.Millisecond, nil)
		if n.lost {
			continue // after the others
		}
		l := w.newLife()
		if err := w.cluster.Start(i); err != nil {
			return err
		}
		w.begin(i, l)
	}
	for i, n := range w.nodes {
		if !n.lost {
			continue
		}
		// One whose disk was full looks for room now and then.
		for until := time.Now().Add(recoverWithin); n.lost; pause(time.Second, w.ctx.Done()) {
			if err := w.rejoin(i); err != nil {
				return err
			}
			if n.lost && time.Now().After(until) {
				return fmt.Errorf("the healed group does not take node %d back within %v", i+1, recoverWithin)
			}
		}
	}
	return nil
}

// heads returns all nodes' heads, after each has caught up. A single read may
// fail while leadership moves.
func (w *world) heads(ctx context.Context) (heads [nodes]log.Head, err error) {
	for i, n := range w.nodes {
		for heads[i], err = n.now.group.Sync(ctx); err != nil; heads[i], err = n.now.group.Sync(ctx) {
			w.tell("node %d does not read: %v", i+1, err)
			if ctx.Err() != nil {
				return heads, fmt.Errorf("the healed group does not let node %d read: %w", i+1, err)
			}
			pause(100*time.Millisecond, ctx.Done())
		}
	}
	return heads, nil
}

// runFollower follows one key at one node from its first record until the node
// stops.
func (w *world) runFollower(i int, l *life, key int) {
	defer w.wg.Done()
	due := uint64(1)
	for run, err := range l.group.Scan(w.ctx, log.Query{Key: w.keys[key], Follow: true}) {
		if err != nil {
			return // the node stops, or the run is over
		}
		for seq, payload := range run.Records() {
			v, err := valueOf(payload)
			if err == nil && seq != due {
				err = fmt.Errorf("%d is due", due)
			}
			if l.dead.Load() {
				return
			}
			if err != nil {
				w.history.fail("follower at node %d: key %d, seq %d: %w", i+1, key, seq, err)
				return
			}
			w.history.sawRecord(i, place{key, seq}, v)
			due = seq + 1
		}
		if !l.dead.Load() {
			w.history.sawCommit(i, run.Commit, run.Digest)
		}
	}
}
