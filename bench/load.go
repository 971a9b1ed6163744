package bench

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lni/dragonboat/v4"

	"github.com/mosaik-engine/mosaik/log"
)

// target is something that takes appends: our engine, the Raft library alone,
// or pebble.
type target interface {
	// append hands over one append of payloads, which are the caller's again when it
	// returns, for the key with the given number. errBusy in the ticket means that
	// nothing was taken and the caller should wait for an earlier append first.
	append(ctx context.Context, key int, payloads payloads) ticket
	// counters are what the target has counted since it was opened; load.run turns
	// their growth into a Sample's.
	counters() counters
	// Close stops the target and waits for all of it.
	Close() error
}

// ticket stands for an append under way. At most one field is set; none is an
// append that is durable already.
type ticket struct {
	future  *log.Future
	request *dragonboat.RequestState
	err     error
}

var errBusy = errors.New("mosaik: bench: the queue is full")

// wait returns when the append is durable or has failed.
func (t *ticket) wait() error {
	switch {
	case t.future != nil:
		_, err := t.future.Result()
		return err
	case t.request != nil:
		return waitRequest(t.request)
	}
	return t.err
}

// load is one way of appending.
type load struct {
	callers int // goroutines that append
	window  int // appends each of them has under way; 1 is synchronous
	batch   int // records of an append
	keys    int // that each caller takes in turn
	size    int // bytes of a payload
	time    time.Duration
	records int // most records, of all callers
}

// run puts the load on t and returns what was acknowledged per second. first is
// the number of the first payload; numbers of several callers are far apart.
func (l load) run(ctx context.Context, t target, first uint64) (Sample, error) {
	before, began := t.counters(), usage()
	r := &loadRun{load: l, target: t, start: time.Now()}
	r.left.Store(int64(l.records))
	r.done.Add(l.callers)
	for i := range l.callers {
		go r.runCaller(ctx, first+uint64(i)<<40)
	}
	r.done.Wait()
	elapsed := time.Since(r.start)
	if err := errors.Join(r.mu.err, ctx.Err()); err != nil {
		return Sample{}, err
	}
	s := Sample{
		Value:   float64(r.mu.records) / elapsed.Seconds(),
		P50:     r.mu.latencies.micros(50),
		P99:     r.mu.latencies.micros(99),
		Records: r.mu.records,
	}
	s.Counters = t.counters().since(before).rates(elapsed, r.mu.records)
	used := usage() - began
	s.Counters["cpu_us_per_record"] = float64(used) / 1e3 / float64(max(r.mu.records, 1))
	s.Counters["cores"] = used.Seconds() / elapsed.Seconds()
	return s, nil
}

// loadRun is what the callers of one run share.
type loadRun struct {
	load
	target target
	start  time.Time
	left   atomic.Int64 // records that may still be appended
	done   sync.WaitGroup

	mu struct {
		sync.Mutex
		records   int
		latencies histogram
		err       error
	}
}

// inFlight is an append under way and when it began.
type inFlight struct {
	ticket ticket
	start  time.Time
	busy   bool
}

// runCaller appends until the time is up or no record is left, though at least
// once, keeping the window full, and then waits for what is under way.
func (r *loadRun) runCaller(ctx context.Context, number uint64) {
	defer r.done.Done()
	c := caller{r: r, ring: make([]inFlight, r.window)}
	err := c.appendAll(ctx, number)
	for range c.ring {
		c.oldest++
		err = errors.Join(err, c.settle(&c.ring[c.oldest%len(c.ring)]))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.records += c.records
	r.mu.latencies.merge(&c.latencies)
	if r.mu.err == nil { // one is enough: the others say the same
		r.mu.err = err
	}
}

// caller is one goroutine's part of a load.
type caller struct {
	r         *loadRun
	ring      []inFlight
	oldest    int // the append that was waited for last, modulo the window
	records   int
	latencies histogram
}

func (c *caller) appendAll(ctx context.Context, number uint64) error {
	r := c.r
	payloads := newPayloads(r.batch, r.size)
	for n := 0; ; n++ {
		slot := &c.ring[n%len(c.ring)]
		c.oldest = n
		if err := c.settle(slot); err != nil {
			return err
		}
		// The time of one append's acknowledgement is that of the next one's start.
		now := time.Now()
		if n > 0 && now.Sub(r.start) >= r.time || ctx.Err() != nil || r.left.Add(-int64(r.batch)) < 0 {
			return nil
		}
		payloads.fill(number)
		number += uint64(r.batch)
		slot.start, slot.busy = now, true
		for slot.ticket = r.target.append(ctx, n%r.keys, payloads); slot.ticket.err == errBusy; slot.ticket = r.target.append(ctx, n%r.keys, payloads) {
			if err := c.makeRoom(n); err != nil {
				slot.busy = false
				return err
			}
		}
	}
}

// makeRoom waits for the oldest append under way, or a moment if there is none.
func (c *caller) makeRoom(n int) error {
	for c.oldest < n+len(c.ring)-1 {
		c.oldest++
		if slot := &c.ring[c.oldest%len(c.ring)]; slot.busy {
			return c.settle(slot)
		}
	}
	time.Sleep(50 * time.Microsecond)
	return nil
}

// settle waits for the append in the slot, if there is one, and counts it.
func (c *caller) settle(slot *inFlight) error {
	if !slot.busy {
		return nil
	}
	slot.busy = false
	if err := slot.ticket.wait(); err != nil {
		return err
	}
	c.latencies.add(time.Since(slot.start))
	c.records += c.r.batch
	return nil
}

// warmBytes are written before a load of much data is timed. By then log files
// are used again that had to be laid out first, and the store flushes as often
// as it will.
const warmBytes = 384 << 20

// warm is what to run before the load: as much as warmBytes for a load with many
// records under way, though no longer than the load itself, and a tenth of the
// load for the others.
func (l load) warm() load {
	if l.callers*l.window*l.batch >= 1000 {
		l.records = min(l.records, max(warmBytes/l.size, l.batch))
		return l
	}
	l.time /= 10
	l.records = max(l.records/10, l.batch*l.callers)
	return l
}
