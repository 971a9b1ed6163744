package fuzz

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mosaik-engine/mosaik/engine"
	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/snapshot"
)

// outcome is what the caller of an append knows of it.
type outcome uint8

const (
	unknown outcome = iota // it may be in the log, or not, or come to be
	acked                  // it is in the log, under its pointer
	refused                // it is not and never will be
)

// call is one call as its caller saw it. Times are ticks of the history's own
// clock, on which no two events are at once.
type call struct {
	client     int
	node       int
	key        int
	start, end int64

	values  []value // appended together; nil for a read
	outcome outcome
	pointer log.Pointer // if acked
	err     error       // if not, where the caller heard of one
	life    int         // of the node
	order   uint64      // of the client's appends: those of one life joined one after the other

	length uint64 // read: seq of the last record, 0 if there is none
	last   value  // read: that record
}

// value is what a payload holds: a number no other payload has, and how long the
// payload is.
type value struct {
	number uint64
	size   int
}

// valueSize is the size of the smallest payload.
const valueSize = 8

// payload returns the bytes of the value, all of which its number decides.
func (v value) payload() []byte {
	b := binary.LittleEndian.AppendUint64(make([]byte, 0, v.size), v.number)
	for len(b) < v.size {
		b = append(b, byte(v.number)+byte(len(b)))
	}
	return b
}

// valueOf is the inverse of payload.
func valueOf(payload []byte) (value, error) {
	if len(payload) < valueSize {
		return value{}, fmt.Errorf("a payload of %d bytes was never appended", len(payload))
	}
	v := value{number: binary.LittleEndian.Uint64(payload), size: len(payload)}
	for i := valueSize; i < len(payload); i++ {
		if payload[i] != byte(v.number)+byte(i) {
			return v, fmt.Errorf("payload %d was never appended like this: byte %d of %d differs", v.number, i, len(payload))
		}
	}
	return v, nil
}

// place is where a record stands.
type place struct {
	key int
	seq uint64
}

// history is all that the clients did and saw.
type history struct {
	clock atomic.Int64

	mu struct {
		sync.Mutex
		calls   []call
		records map[place]value       // seen by anybody, at any time
		commits map[uint64]log.Digest // likewise
		uses    []use                 // calls on objects that have ended
		sights  map[sight]content     // of objects, by anybody, at any time
		wrong   error                 // the first contradiction among what was seen
	}
}

func newHistory() *history {
	h := &history{}
	h.mu.records = make(map[place]value)
	h.mu.commits = make(map[uint64]log.Digest)
	h.mu.sights = make(map[sight]content)
	return h
}

func (h *history) tick() int64 { return h.clock.Add(1) }

// done adds a call that has ended.
func (h *history) done(c call) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mu.calls = append(h.mu.calls, c)
}

// fail notes a contradiction.
func (h *history) fail(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.mu.wrong == nil {
		h.mu.wrong = fmt.Errorf(format, args...)
	}
}

// sawCommit notes the digest of a commit that a living node has shown.
func (h *history) sawCommit(node int, n uint64, digest log.Digest) {
	if n == 0 {
		return
	}
	h.mu.Lock()
	before, seen := h.mu.commits[n]
	h.mu.commits[n] = digest
	h.mu.Unlock()
	if seen && before != digest {
		h.fail("commit %d was shown as %s, then by node %d as %s", n, before, node+1, digest)
	}
}

// sawRecord notes a record that a living node has shown.
func (h *history) sawRecord(node int, at place, v value) {
	h.mu.Lock()
	before, seen := h.mu.records[at]
	h.mu.records[at] = v
	h.mu.Unlock()
	if seen && before != v {
		h.fail("key %d seq %d was shown as %v, then by node %d as %v", at.key, at.seq, before, node+1, v)
	}
}

// client makes one call after the other.
type client struct {
	w      *world
	id     int
	rng    *rand.Rand
	next   uint64 // value number
	order  uint64 // appends that joined
	length []uint64
	wg     *sync.WaitGroup

	lazyReads         bool
	staleReads, waits int
}

// runClient makes calls until stop is closed.
func (c *client) runClient(stop <-chan struct{}) {
	defer c.wg.Done()
	c.w.visit(c.rng, stop, c.call)
}

// visit has calls made at nodes that rng picks, one after the other, until stop
// is closed.
func (w *world) visit(rng *rand.Rand, stop <-chan struct{}, call func(ctx context.Context, i int, l *life)) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		if w.history.wrong() != nil {
			return
		}
		if rng.IntN(3) == 0 {
			pause(time.Duration(rng.IntN(40))*time.Millisecond, stop)
		}
		i := rng.IntN(len(w.nodes))
		l := w.nodes[i].life.Load()
		if l == nil {
			pause(5*time.Millisecond, stop)
			continue
		}
		within := time.Duration(1+rng.IntN(3000)) * time.Millisecond
		if rng.IntN(10) == 0 {
			within = time.Hour // longer than the engine itself tries
		}
		ctx, cancel := context.WithTimeout(context.Background(), within)
		call(ctx, i, l)
		cancel()
	}
}

// call makes one call at a node.
func (c *client) call(ctx context.Context, i int, l *life) {
	key := c.rng.IntN(len(c.w.keys))
	switch c.rng.IntN(20) {
	case 0, 1, 2, 3, 4, 5, 6, 7, 8:
		c.finish(ctx, l, c.append(ctx, l, call{client: c.id, node: i, key: key}))
	case 9, 10:
		c.burst(ctx, i, l)
	case 11:
		c.follow(ctx, l, c.finish(ctx, l, c.append(ctx, l, call{client: c.id, node: i, key: key})))
	case 12:
		c.readStale(ctx, i, l, key)
	default:
		c.read(ctx, i, l, key)
	}
}

// values draws what to append: mostly one small record, now and then several,
// or large ones.
func (c *client) values() []value {
	n := 1
	if c.rng.IntN(4) == 0 {
		n = 1 + c.rng.IntN(5)
	}
	values := make([]value, n)
	for i := range values {
		size := valueSize
		switch c.rng.IntN(20) {
		case 0:
			size += c.rng.IntN(30 << 10)
		case 1, 2, 3, 4, 5:
			size += c.rng.IntN(2 << 10)
		default:
			size += c.rng.IntN(100)
		}
		c.next++
		values[i] = value{number: uint64(c.id+1)<<32 | c.next, size: size}
	}
	return values
}

// pending is an append whose outcome is still to come.
type pending struct {
	call
	future *log.Future
}

// append starts an append.
func (c *client) append(ctx context.Context, l *life, k call) pending {
	k.values = c.values()
	payloads := make([][]byte, len(k.values))
	for i, v := range k.values {
		payloads[i] = v.payload()
	}
	c.order++
	k.order, k.life = c.order, l.number
	k.start = c.w.history.tick()
	future := l.group.AppendAsync(ctx, c.w.keys[k.key], payloads...)
	for _, p := range payloads {
		clear(p) // they are the caller's again
	}
	return pending{k, future}
}

// finish waits for the outcome of an append, as long as ctx lets it, and notes
// it. What a node says that has lost its power nobody hears.
func (c *client) finish(ctx context.Context, l *life, p pending) call {
	pointer, err := p.future.Wait(ctx)
	outcome, expected := outcomeOf(ctx, err)
	switch {
	case l.dead.Load():
	case !expected:
		c.w.history.fail("client %d: node %d refused an append: %w", c.id, p.node+1, err)
	case outcome == acked:
		p.outcome, p.pointer = acked, pointer
		if pointer.Group != l.group.ID() || pointer.Key != c.w.keys[p.key] || pointer.Seq == 0 {
			c.w.history.fail("client %d: node %d answered an append to key %d with %s", c.id, p.node+1, p.key, pointer)
		}
		c.w.history.sawCommit(p.node, pointer.Commit, pointer.Digest)
		for i, v := range p.values {
			c.w.history.sawRecord(p.node, place{p.key, pointer.Seq + uint64(i)}, v)
		}
	default:
		p.outcome = outcome
	}
	p.err, p.end = err, c.w.history.tick()
	c.w.history.done(p.call)
	return p.call
}

// outcomeOf returns what err says about a write that was made with ctx, and
// whether a write may end like that at all.
func outcomeOf(ctx context.Context, err error) (o outcome, expected bool) {
	switch {
	case err == nil:
		return acked, true
	case errors.Is(err, engine.ErrBusy), errors.Is(err, engine.ErrDiskFull):
		return refused, true
	case errors.Is(err, engine.ErrNoQuorum), ctx.Err() != nil:
		return unknown, true
	case errors.Is(err, log.ErrClosed):
		return refused, true
	}
	return unknown, false
}

// mayFail reports whether a read that was made with ctx may end with err.
func mayFail(ctx context.Context, err error) bool {
	return errors.Is(err, engine.ErrNoQuorum) || errors.Is(err, engine.ErrFetching) || errors.Is(err, snapshot.ErrShards) || errors.Is(err, log.ErrClosed) || ctx.Err() != nil
}

// burst makes several appends without waiting in between.
func (c *client) burst(ctx context.Context, i int, l *life) {
	key := c.rng.IntN(len(c.w.keys))
	appends := make([]pending, 2+c.rng.IntN(12))
	for n := range appends {
		if c.rng.IntN(8) == 0 {
			key = c.rng.IntN(len(c.w.keys))
		}
		appends[n] = c.append(ctx, l, call{client: c.id, node: i, key: key})
	}
	for _, p := range appends {
		c.finish(ctx, l, p)
	}
}

// read reads the end of a key's log, linearizably.
func (c *client) read(ctx context.Context, i int, l *life, key int) {
	k := call{client: c.id, node: i, key: key, start: c.w.history.tick()}
	var head log.Head
	var err error
	if !c.lazyReads {
		head, err = l.group.Sync(ctx)
	}
	if err == nil {
		k.length, k.last, err = c.scan(ctx, i, l, key)
	}
	if l.dead.Load() {
		return
	}
	if err != nil {
		if !mayFail(ctx, err) {
			c.w.history.fail("client %d: node %d refused a read: %w", c.id, i+1, err)
		}
		return
	}
	k.end = c.w.history.tick()
	c.w.history.sawCommit(i, head.Number, head.Digest)
	c.w.history.done(k)
}

// scan reads a key's log from where this client has known its end to be, or
// from its start.
func (c *client) scan(ctx context.Context, i int, l *life, key int) (length uint64, last value, err error) {
	q := log.Query{Key: c.w.keys[key]}
	from := max(c.length[key], 1)
	if c.rng.IntN(10) == 0 {
		from = 1
	}
	if from > 1 {
		q.From = log.Seq(from)
	}
	due := from
	for run, err := range l.group.Scan(ctx, q) {
		if err != nil {
			return 0, value{}, err
		}
		for seq, payload := range run.Records() {
			v, err := valueOf(payload)
			if seq != due && err == nil {
				err = fmt.Errorf("seq %d where %d is due", seq, due)
			}
			if err != nil {
				if !l.dead.Load() {
					c.w.history.fail("client %d: node %d, key %d, seq %d: %w", c.id, i+1, key, seq, err)
				}
				return 0, value{}, err
			}
			if !l.dead.Load() {
				c.w.history.sawRecord(i, place{key, seq}, v)
			}
			due, length, last = seq+1, seq, v
		}
	}
	if l.dead.Load() {
		return length, last, nil
	}
	if length == 0 && from > 1 {
		return 0, value{}, nil // shorter than this client has known it: the judge will say so, of a linearizable read
	}
	c.length[key] = max(c.length[key], length)
	return length, last, nil
}

// readStale reads without asking the group: old news, but never wrong ones.
func (c *client) readStale(ctx context.Context, i int, l *life, key int) {
	if _, _, err := c.scan(ctx, i, l, key); err == nil {
		c.staleReads++
	}
	n := l.group.Head()
	if !l.dead.Load() {
		c.w.history.sawCommit(i, n.Number, n.Digest)
	}
}

// follow waits at another node for what was just acknowledged, and reads it
// there.
func (c *client) follow(ctx context.Context, from *life, k call) {
	i := c.rng.IntN(len(c.w.nodes))
	l := c.w.nodes[i].life.Load()
	if k.outcome != acked || l == nil || l == from || ctx.Err() != nil {
		return
	}
	wait, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	err := l.group.WaitFor(wait, k.pointer)
	if l.dead.Load() || wait.Err() != nil || errors.Is(err, log.ErrClosed) || errors.Is(err, engine.ErrFetching) {
		return
	}
	if err != nil {
		c.w.history.fail("client %d: node %d does not have what node %d acknowledged as %s: %w", c.id, i+1, k.node+1, k.pointer, err)
		return
	}
	q := log.Query{Key: c.w.keys[k.key], From: log.At(k.pointer), Until: k.pointer.Seq}
	for run, err := range l.group.Scan(ctx, q) {
		if err != nil {
			return
		}
		for seq, payload := range run.Records() {
			if v, err := valueOf(payload); !l.dead.Load() && (err != nil || v != k.values[0] || seq != k.pointer.Seq) {
				c.w.history.fail("client %d: node %d has seq %d, %v (%v) at %s, appended was %v", c.id, i+1, seq, v, err, k.pointer, k.values[0])
			}
		}
	}
	c.waits++
}

// never is the end of a call that did not end.
const never = math.MaxInt64

// keysNamed returns n keys.
func keysNamed(n int) []identity.ID {
	keys := make([]identity.ID, n)
	for i := range keys {
		keys[i] = identity.NewID(fmt.Sprintf("mosaik.simulation.key.%d", i))
	}
	return keys
}
