package etcdpeer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/mosaik-engine/mosaik/bench/peers/measure"
	"github.com/mosaik-engine/mosaik/bench/peers/payload"
)

const (
	txnPuts   = 100 // of one transaction; the server allows 128
	valueSize = 64
	keySpace  = 1_000_000 // keys that are drawn from
	fewCalls  = 16
	manyCalls = 64
	mostFill  = 100_000 // entries that are written for get
	grace     = 2 * time.Minute
)

// Workloads lists what Run knows, in the order in which they are best run.
func Workloads() []measure.Workload {
	return []measure.Workload{
		{Name: "txn100-16", Axis: "transactions of 100 puts, 16 clients", Unit: measure.PerSecond, Replicas: replicas},
		{Name: "txn100-64", Axis: "transactions of 100 puts, 64 clients", Unit: measure.PerSecond, Replicas: replicas},
		{Name: "puts64", Axis: "single puts, 64 clients", Unit: measure.PerSecond, Replicas: replicas},
		{Name: "get", Axis: "get of one key, serializable", Unit: measure.Micros, Replicas: replicas},
	}
}

// Run implements measure.Session.
func (c *Cluster) Run(ctx context.Context, workload string, limits measure.Limits) (measure.Sample, error) {
	// The limits bound the measuring; this bounds a peer that stopped answering.
	ctx, cancel := context.WithTimeout(ctx, 2*limits.Time+grace)
	defer cancel()
	sample, err := c.run(ctx, workload, limits)
	if err != nil {
		return measure.Sample{}, fmt.Errorf("mosaik: etcd %s: %w", workload, err)
	}
	return sample, nil
}

func (c *Cluster) run(ctx context.Context, workload string, limits measure.Limits) (measure.Sample, error) {
	switch workload {
	case "txn100-16":
		return c.write(ctx, limits, &writers{prefix: "txn16/", puts: txnPuts}, fewCalls)
	case "txn100-64":
		return c.write(ctx, limits, &writers{prefix: "txn64/", puts: txnPuts}, manyCalls)
	case "puts64":
		return c.write(ctx, limits, &writers{prefix: "put64/", puts: 1}, manyCalls)
	case "get":
		return c.get(ctx, limits)
	}
	return measure.Sample{}, fmt.Errorf("mosaik: no workload %q", workload)
}

// key returns the key with a number: 16 bytes, as the prefix has 6.
func key(prefix string, number uint64) string { return fmt.Sprintf("%s%010d", prefix, number) }

// drawn is the number of the key that the value with the sequence number is put under: uniform over
// the key space, by the finalizer of the SplitMix64 generator.
func drawn(seq uint64) uint64 {
	z := seq + 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return (z ^ z>>31) % keySpace
}

// writers are clients that put keys side by side, each on a connection of its own.
type writers struct {
	prefix string
	puts   int // of one transaction; 1 is a put without one
	limits measure.Limits
	start  time.Time
	taken  atomic.Int64 // sequence numbers given out

	done sync.WaitGroup
	mu   struct {
		sync.Mutex
		records   int
		latencies []time.Duration
		keys      map[uint64]bool // that were put
		err       error
	}
}

// write has so many clients put keys below the prefix of w until the limits are reached.
func (c *Cluster) write(ctx context.Context, limits measure.Limits, w *writers, clients int) (_ measure.Sample, err error) {
	w.limits = limits
	w.mu.keys = make(map[uint64]bool)
	var open []*clientv3.Client
	defer func() {
		for _, client := range open {
			err = errors.Join(err, client.Close())
		}
	}()
	for range clients {
		client, err := c.connect()
		if err != nil {
			return measure.Sample{}, err
		}
		open = append(open, client)
		if _, err := client.Get(ctx, w.prefix); err != nil { // it connects at its first call
			return measure.Sample{}, err
		}
	}
	w.start = time.Now()
	w.done.Add(clients)
	for _, client := range open {
		go w.runWriter(ctx, client)
	}
	w.done.Wait()
	sample := measure.Sample{Records: w.mu.records, Elapsed: time.Since(w.start), Latencies: w.mu.latencies}
	if err := errors.Join(w.mu.err, ctx.Err()); err != nil {
		return measure.Sample{}, err
	}
	return sample, c.settle(ctx, w.prefix, len(w.mu.keys))
}

// runWriter commits one transaction after the other.
func (w *writers) runWriter(ctx context.Context, client *clientv3.Client) {
	defer w.done.Done()
	var latencies []time.Duration
	var numbers []uint64
	var err error
	records := 0
	value := make([]byte, valueSize)
	for now := time.Now(); now.Sub(w.start) < w.limits.Time; {
		first := int(w.taken.Add(int64(w.puts))) - w.puts
		count := min(w.puts, w.limits.Records-first)
		if count <= 0 {
			break
		}
		var puts []clientv3.Op
		mine := len(numbers)
		for i := range count {
			seq := uint64(first + i)
			payload.Fill(value, seq)
			number := unused(drawn(seq), numbers[mine:])
			numbers = append(numbers, number)
			puts = append(puts, clientv3.OpPut(key(w.prefix, number), string(value)))
		}
		if w.puts == 1 {
			_, err = client.Do(ctx, puts[0])
		} else {
			_, err = client.Txn(ctx).Then(puts...).Commit()
		}
		if err != nil {
			break
		}
		records += count
		done := time.Now()
		latencies = append(latencies, done.Sub(now))
		now = done
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.records += records
	w.mu.latencies = append(w.mu.latencies, latencies...)
	w.mu.err = errors.Join(w.mu.err, err)
	for _, number := range numbers {
		w.mu.keys[number] = true
	}
}

// unused returns the first number from the given one on that is not in used: the server refuses a
// transaction that puts a key twice.
func unused(number uint64, used []uint64) uint64 {
	for i := 0; i < len(used); i++ {
		if used[i] == number {
			number, i = (number+1)%keySpace, -1
		}
	}
	return number
}

// get reads keys that are there, each time another one, from the member's own state.
func (c *Cluster) get(ctx context.Context, limits measure.Limits) (measure.Sample, error) {
	const prefix = "gets0/"
	if c.filled == 0 {
		if err := c.fill(ctx, prefix, min(limits.Records, mostFill)); err != nil {
			return measure.Sample{}, err
		}
	}
	var sample measure.Sample
	start := time.Now()
	for now := start; sample.Records < limits.Records && now.Sub(start) < limits.Time; sample.Records++ {
		number := measure.Spread(sample.Records, c.filled)
		found, err := c.admin.Get(ctx, key(prefix, number), clientv3.WithSerializable())
		if err != nil {
			return measure.Sample{}, err
		}
		if len(found.Kvs) != 1 {
			return measure.Sample{}, fmt.Errorf("mosaik: %d values of key %d", len(found.Kvs), number)
		}
		seq, err := payload.Check(found.Kvs[0].Value)
		if err != nil {
			return measure.Sample{}, err
		}
		if seq != number {
			return measure.Sample{}, fmt.Errorf("%w: key %d holds record %d", payload.ErrCorrupt, number, seq)
		}
		done := time.Now()
		sample.Latencies = append(sample.Latencies, done.Sub(now))
		now = done
	}
	sample.Elapsed = time.Since(start)
	return sample, ctx.Err()
}

// fill puts so many keys, in order.
func (c *Cluster) fill(ctx context.Context, prefix string, count int) error {
	value := make([]byte, valueSize)
	for first := 0; first < count; first += txnPuts {
		var puts []clientv3.Op
		for number := first; number < min(first+txnPuts, count); number++ {
			payload.Fill(value, uint64(number))
			puts = append(puts, clientv3.OpPut(key(prefix, uint64(number)), string(value)))
		}
		if _, err := c.admin.Txn(ctx).Then(puts...).Commit(); err != nil {
			return fmt.Errorf("mosaik: fill from key %d: %w", first, err)
		}
	}
	c.filled = count
	return c.settle(ctx, prefix, count)
}
