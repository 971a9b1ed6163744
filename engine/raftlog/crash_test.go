package raftlog

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	pb "github.com/lni/dragonboat/v4/raftpb"
)

// history is what one saver did to one replica: the model it began with and every operation, the last of which may not
// have returned.
type history struct {
	shard uint64
	mu    sync.Mutex
	base  *model
	ops   []op
	acked int // operations that returned
}

// match finds how many operations a recovered replica reflects: at least the acknowledged ones, at most the begun ones.
func (h *history) match(got *model, acked, begun int) (*model, error) {
	m := h.base.clone()
	var errs []error
	for k := 0; k <= begun; k++ {
		if k > 0 {
			h.ops[k-1].effect(m)
		}
		if k < acked {
			continue
		}
		err := got.differs(m, true)
		if err == nil {
			return m, nil
		}
		errs = append(errs, fmt.Errorf("after %d: %w", k, err))
	}
	return nil, fmt.Errorf("shard %d, %d operations acknowledged, %d begun: %w", h.shard, acked, begun, errors.Join(errs...))
}

// runSaver does random operations on the history's replica until stop is closed.
func (h *history) runSaver(l *Log, rng *rand.Rand, total *atomic.Int64, stop chan struct{}) error {
	m := h.base.clone()
	for {
		select {
		case <-stop:
			return nil
		default:
		}
		o := nextOp(rng, h.shard, m, sizes{1500, 90000})
		h.mu.Lock()
		h.ops = append(h.ops, o)
		h.mu.Unlock()
		if err := o.log(l); err != nil {
			return fmt.Errorf("%s: %w", o.name, err)
		}
		o.effect(m)
		h.mu.Lock()
		h.acked++
		h.mu.Unlock()
		total.Add(1)
	}
}

// runReader reads whatever is there until stop is closed; what it gets must be consecutive.
func runReader(l *Log, rng *rand.Rand, shards uint64, stop chan struct{}) error {
	for {
		select {
		case <-stop:
			return nil
		default:
		}
		shard := 1 + rng.Uint64N(shards)
		rs, err := l.ReadRaftState(shard, testReplica, 0)
		if err != nil {
			continue
		}
		ents, _, err := l.IterateEntries(nil, 0, shard, testReplica, rs.FirstIndex, rs.FirstIndex+rs.EntryCount, math.MaxUint64)
		if err != nil {
			return err
		}
		for i, e := range ents {
			if e.Index != rs.FirstIndex+uint64(i) {
				return fmt.Errorf("entry %d where %d belongs", e.Index, rs.FirstIndex+uint64(i))
			}
		}
		if rng.IntN(50) == 0 {
			if err := l.Check(context.Background()); err != nil {
				return err
			}
		}
	}
}

// TestCrash kills the power at random moments while several savers, a reader and a snapshot saver work on tiny files, so
// that file switches, recycling and moves happen all the time. Of what was not synced a random part of the pages and
// names survives. After each crash every replica must be in a state between what was acknowledged and what was begun,
// and the log must go on from there, through the next crash.
func TestCrash(t *testing.T) {
	seeds := uint64(4)
	for seed := uint64(1); seed <= seeds; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 2))
			fs := vfs.NewCrashableMem()
			const shards = 4
			bases := make([]*model, shards)
			for i := range bases {
				bases[i] = &model{}
			}
			for range 10 {
				fs, bases = crashOnce(t, rng, fs, bases)
			}
		})
	}
}

func crashOnce(t *testing.T, rng *rand.Rand, fs *vfs.MemFS, bases []*model) (*vfs.MemFS, []*model) {
	t.Helper()
	l := mustOpen(t, fs, Options{FileBytes: 1 << (14 + rng.IntN(3)), MaxDeadFiles: 1 + rng.IntN(3)})
	hs := make([]*history, len(bases))
	for i, base := range bases {
		got, err := readBack(l, uint64(i+1))
		if err == nil {
			err = got.differs(base, true)
		}
		if err != nil {
			t.Fatalf("shard %d right after opening: %v", i+1, err)
		}
		got.state.Commit = max(got.state.Commit, base.state.Commit) // a leader tells it again
		if len(got.ents) == 0 {
			got.first = max(got.first, base.first)
		}
		hs[i] = &history{shard: uint64(i + 1), base: got}
	}
	if err := l.Check(context.Background()); err != nil {
		t.Fatalf("check after opening: %v", err)
	}
	const side = 99 // a shard of which snapshots are saved beside everything else
	ss, err := l.GetSnapshot(side, testReplica)
	if err != nil {
		t.Fatal(err)
	}
	var sideAcked, total atomic.Int64
	sideAcked.Store(int64(ss.Index))
	sideBase := int64(ss.Index)

	stop := make(chan struct{})
	var wg sync.WaitGroup
	errc := make(chan error, len(hs)+2)
	start := func(f func() error) { wg.Go(func() { errc <- f() }) }
	for _, h := range hs {
		r := rand.New(rand.NewPCG(rng.Uint64(), h.shard))
		start(func() error { return h.runSaver(l, r, &total, stop) })
	}
	readerRand := rand.New(rand.NewPCG(rng.Uint64(), 0))
	start(func() error { return runReader(l, readerRand, uint64(len(hs)), stop) })
	start(func() error {
		for index := uint64(sideBase) + 1; ; index++ {
			select {
			case <-stop:
				return nil
			default:
			}
			err := l.SaveSnapshots([]pb.Update{{ShardID: side, ReplicaID: testReplica, Snapshot: testSnapshot(side, index, 1)}})
			if err != nil {
				return err
			}
			sideAcked.Store(int64(index))
		}
	})

	target := int64(rng.IntN(400))
	for total.Load() < target && len(errc) == 0 {
		runtime.Gosched()
	}
	acked := make([]int, len(hs))
	for i, h := range hs {
		h.mu.Lock()
		acked[i] = h.acked
		h.mu.Unlock()
	}
	sideMin := sideAcked.Load()
	crashed := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
	begun := make([]int, len(hs))
	for i, h := range hs {
		h.mu.Lock()
		begun[i] = len(h.ops)
		h.mu.Unlock()
	}
	sideMax := sideAcked.Load() + 1
	close(stop)
	wg.Wait()
	close(errc)
	for err := range errc {
		if err != nil {
			t.Fatal(err)
		}
	}
	mustClose(t, l)

	l = mustOpen(t, crashed, Options{})
	next := make([]*model, len(hs))
	for i, h := range hs {
		got, err := readBack(l, h.shard)
		if err != nil {
			t.Fatal(err)
		}
		if next[i], err = h.match(got, acked[i], begun[i]); err != nil {
			t.Fatal(err)
		}
	}
	if ss, err := l.GetSnapshot(side, testReplica); err != nil || int64(ss.Index) < sideMin || int64(ss.Index) > sideMax {
		t.Fatalf("snapshot %d of the side shard is not in [%d, %d]: %v", ss.Index, sideMin, sideMax, err)
	}
	if rng.IntN(2) == 0 {
		mustClose(t, l)
		return crashed, next
	}
	// The power fails again before anything is written: what was recovered counts as durable.
	again := crashed.CrashClone(vfs.CrashCloneCfg{})
	mustClose(t, l)
	return again, next
}
