package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mosaik-engine/mosaik/engine"
	"github.com/mosaik-engine/mosaik/log"
)

// The row about what one more key costs, in memory, on disk, when it is made
// and while nothing happens. All of it on one replica.
const (
	rowKey = "key"

	workKeyMemory = "key/memory"
	workKeyDisk   = "key/disk"
	workKeyFirst  = "key/first-append" // keys without a name
	workKeyCreate = "key/create"       // named streams, 64 callers
	workKeyReopen = "key/reopen"       // one that exists, one caller
	workKeyIdle   = "key/idle"         // many keys, above one
)

func (s *session) keyTrials() []trial {
	return []trial{
		{label: "many keys", run: s.manyKeys},
		{label: "named streams", run: s.namedStreams},
	}
}

// manyKeys writes as many records to one key and, in another store, to a key
// each, and compares the two.
func (s *session) manyKeys(ctx context.Context) ([]outcome, error) {
	one, err := s.keyed(ctx, 1)
	if err != nil {
		return nil, err
	}
	many, err := s.keyed(ctx, s.KeyCount)
	if err != nil {
		return nil, err
	}
	per := func(many, one float64) Sample {
		return Sample{Value: max(many-one, 0) / float64(s.KeyCount), Records: s.KeyCount}
	}
	return []outcome{
		{workKeyMemory, subjectMosaik, BytesPerKey, per(many.heap, one.heap)},
		{workKeyDisk, subjectMosaik, BytesPerKey, per(many.disk, one.disk)},
		{workKeyFirst, subjectMosaik, CreatedPerSec, Sample{Value: many.rate, Records: s.KeyCount}},
		{workKeyIdle, subjectMosaik, Cores, Sample{Value: max(many.idle-one.idle, 0),
			Counters: map[string]float64{"cores_many_keys": many.idle, "cores_one_key": one.idle}}},
	}, nil
}

// keyedStore is what a store with some number of keys was found to cost.
type keyedStore struct {
	heap float64 // bytes more than before it was opened
	disk float64 // bytes of its files, without the Raft log
	rate float64 // records per second while it was written
	idle float64 // cores used while nobody uses it
}

// keyed writes Config.KeyCount records to so many keys in turn.
func (s *session) keyed(ctx context.Context, keys int) (k keyedStore, err error) {
	dir := s.newDir("keyed")
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	before, _ := heapInUse()
	n, err := openNodes(ctx, nodeOptions{dir: dir, replicas: 1, groups: 1, keys: keys})
	if err != nil {
		return k, err
	}
	l := s.loadOf(rowPipelined)
	l.keys, l.records, l.time = keys, s.KeyCount, maxTime
	sample, err := n.fill(ctx, l)
	if err == nil {
		k.rate = sample.Value
		n.keys, n.home = nil, nil // the harness's, not the engine's
		after, _ := heapInUse()
		k.heap = float64(after) - float64(before)
		used, start := usage(), time.Now()
		err = pause(ctx, s.Time)
		k.idle = (usage() - used).Seconds() / time.Since(start).Seconds()
	}
	if err := errors.Join(err, n.Close()); err != nil {
		return k, err
	}
	size, err := treeSize(filepath.Join(dir, "store"))
	k.disk = float64(size)
	return k, err
}

// namedStreams opens streams that nobody has opened before, each of which is
// written to the directory of streams, and appends a first record to each.
func (s *session) namedStreams(ctx context.Context) (_ []outcome, err error) {
	dir := s.newDir("named")
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	n, err := openNodes(ctx, nodeOptions{dir: dir, replicas: 1, groups: 1, keys: 1})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, n.Close()) }()

	c := &creation{engine: n.engines[0], count: int64(s.KeyCount), size: s.Size, end: time.Now().Add(s.Time)}
	start := time.Now()
	err = s.profiled(workKeyCreate+"-"+subjectMosaik, func() error {
		c.done.Add(manyWriters)
		for range manyWriters {
			go c.runCreator(ctx)
		}
		c.done.Wait()
		return errors.Join(c.mu.err, ctx.Err())
	})
	if err != nil {
		return nil, err
	}
	elapsed := time.Since(start)
	created := min(c.next.Load(), c.count)

	var again histogram
	for i := int64(0); i < created && time.Since(start) < elapsed+s.Time/4 || again.count == 0; i++ {
		began := time.Now()
		if _, err := namedStream(i%created).Open(ctx, c.engine); err != nil {
			return nil, err
		}
		again.add(time.Since(began))
	}
	return []outcome{
		{workKeyCreate, subjectMosaik, CreatedPerSec, Sample{Value: float64(created) / elapsed.Seconds(), Records: int(created),
			P50: c.mu.latencies.micros(50), P99: c.mu.latencies.micros(99)}},
		{workKeyReopen, subjectMosaik, Micros, Sample{Value: again.micros(50), P50: again.micros(50), P99: again.micros(99), Records: int(created)}},
	}, nil
}

// creation is what the goroutines that create streams share.
type creation struct {
	engine *engine.Engine
	count  int64 // streams to create at most
	size   int
	end    time.Time
	next   atomic.Int64 // number of the next stream
	done   sync.WaitGroup

	mu struct {
		sync.Mutex
		latencies histogram
		err       error
	}
}

func namedStream(i int64) log.StreamDef[[]byte] {
	return log.StreamDef[[]byte]{Name: fmt.Sprintf("bench/named/%d", i), Codec: log.Raw()}
}

// runCreator creates one stream after the other, and at least one, until there
// are enough or the time is up. Every number that was taken is created.
func (c *creation) runCreator(ctx context.Context) {
	defer c.done.Done()
	var latencies histogram
	var err error
	payload := make([]byte, c.size)
	for first := true; err == nil && (first || time.Now().Before(c.end)); first = false {
		i := c.next.Add(1) - 1
		if i >= c.count {
			break
		}
		began := time.Now()
		fillPayload(payload, uint64(i))
		var stream *log.Stream[[]byte]
		if stream, err = namedStream(i).Open(ctx, c.engine); err == nil {
			_, err = stream.Append(ctx, payload)
		}
		latencies.add(time.Since(began))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.latencies.merge(&latencies)
	if c.mu.err == nil {
		c.mu.err = err
	}
}
