package inproc

import (
	"container/heap"
	"math/rand/v2"
	"sync"
	"time"

	pb "github.com/lni/dragonboat/v4/raftpb"
)

// reorderHold is the least time a reordered message is held back: long enough
// for a busy connection's next messages to overtake it.
const reorderHold = 5 * time.Millisecond

// conn carries message batches from one transport to another. SendMessageBatch
// and Close are the sender's side, runDelivery is the target's.
//
// Invariants, under mu:
//   - what is in fifo was sent before what is in delayed: fifo takes nothing
//     while delayed holds something;
//   - count and size cover fifo, delayed and what runDelivery has taken and not
//     yet handled.
type conn struct {
	net      *Network
	from, to *transport

	// wake tells runDelivery to look again, room tells a waiting sender to. Both
	// hold one token, which says nothing more than that.
	wake, room chan struct{}

	mu struct {
		sync.Mutex
		fifo    []parcel
		delayed parcelHeap
		count   int       // parcels under way
		size    int       // bytes under way
		lastDue time.Time // parcels that keep the order are not due before
		seq     uint64    // of the last parcel in delayed
		rng     *rand.Rand
		closed  bool // by the sender
	}
}

// parcel is a batch under way. Its memory is the connection's, then the handler's.
type parcel struct {
	batch pb.MessageBatch
	size  int       // bytes
	due   time.Time // set in delayed only
	seq   uint64    // breaks ties between equal due times
}

func newConn(from, to *transport) *conn {
	c := &conn{
		net:  from.net,
		from: from,
		to:   to,
		wake: make(chan struct{}, 1),
		room: make(chan struct{}, 1),
	}
	c.mu.rng = from.net.generator(from.address, to.address)
	return c
}

// Close ends the sender's side. What is under way still arrives.
func (c *conn) Close() {
	c.mu.Lock()
	c.mu.closed = true
	c.mu.Unlock()
	signal(c.wake)
	signal(c.room)
}

// SendMessageBatch queues a copy of batch for the target. It waits for room in a
// full queue, at most Options.SendTimeout (ErrBusy), and fails with ErrClosed
// when either end is closed. Nil says nothing about arrival.
func (c *conn) SendMessageBatch(batch pb.MessageBatch) error {
	p := parcel{batch: copyBatch(batch), size: batchSize(&batch)}
	var timeout <-chan time.Time
	for {
		accepted, err := c.accept(p)
		if err != nil {
			return err
		}
		if accepted {
			signal(c.wake)
			return nil
		}
		if timeout == nil {
			timer := time.NewTimer(c.net.opts.SendTimeout)
			defer timer.Stop()
			timeout = timer.C
		}
		select {
		case <-c.room:
		case <-timeout:
			return ErrBusy
		case <-c.to.done:
			return ErrClosed
		case <-c.from.done:
			return ErrClosed
		}
	}
}

// accept takes p over to the wire if there is room for it.
func (c *conn) accept(p parcel) (bool, error) {
	select {
	case <-c.to.done:
		return false, ErrClosed
	case <-c.from.done:
		return false, ErrClosed
	default:
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.closed {
		return false, ErrClosed
	}
	opts := &c.net.opts
	if c.mu.count > 0 && (c.mu.count >= opts.QueueBatches || c.mu.size+p.size > opts.QueueBytes) {
		return false, nil
	}
	if r := c.net.rules.Load(); r == nil {
		c.pushLocked(p, 0)
	} else if r.cut(c.from.address, c.to.address) {
		c.net.stats.cut.Add(uint64(len(p.batch.Requests)))
	} else {
		for i := range p.batch.Requests {
			c.pushFaultyLocked(&r.fault, &p.batch, i)
		}
	}
	if c.mu.count < opts.QueueBatches {
		signal(c.room) // the token may have been meant for another sender too
	}
	return true, nil
}

// pushFaultyLocked lets f decide about message i of batch. It draws the same
// number of random numbers whatever it decides, so that a change of one
// probability leaves the decisions about the others as they were.
//
// REQUIRES: mu
func (c *conn) pushFaultyLocked(f *Fault, batch *pb.MessageBatch, i int) {
	rng := c.mu.rng
	dropped := rng.Float64() < f.Drop
	duplicated := rng.Float64() < f.Duplicate
	reordered := rng.Float64() < f.Reorder
	delay, again, hold := f.delay(rng.Float64()), f.delay(rng.Float64()), f.delay(rng.Float64())
	if dropped {
		c.net.stats.dropped.Add(1)
		return
	}
	p := parcel{batch: *batch}
	p.batch.Requests = batch.Requests[i : i+1 : i+1]
	p.size = batchSize(&p.batch)
	if reordered {
		c.net.stats.reordered.Add(1)
		c.holdLocked(p, delay+max(hold, reorderHold))
	} else {
		c.pushLocked(p, delay)
	}
	if duplicated && p.batch.Requests[0].Type != pb.Propose {
		c.net.stats.duplicated.Add(1)
		p.batch = copyBatch(p.batch) // each arrival owns its memory
		c.pushLocked(p, again)
	}
}

// delay maps u in [0, 1) to a delay.
func (f *Fault) delay(u float64) time.Duration {
	return f.DelayMin + time.Duration(u*float64(max(0, f.DelayMax-f.DelayMin)))
}

// pushLocked sends p on its way, to arrive after delay and after all that was
// pushed before.
//
// REQUIRES: mu
func (c *conn) pushLocked(p parcel, delay time.Duration) {
	if delay <= 0 && len(c.mu.delayed) == 0 {
		c.mu.fifo = append(c.mu.fifo, p)
		c.mu.count++
		c.mu.size += p.size
		return
	}
	p.due = time.Now().Add(delay)
	if p.due.Before(c.mu.lastDue) {
		p.due = c.mu.lastDue
	}
	c.mu.lastDue = p.due
	c.delayLocked(p)
}

// holdLocked sends p on its way, to arrive after delay whatever is pushed before
// or after.
//
// REQUIRES: mu
func (c *conn) holdLocked(p parcel, delay time.Duration) {
	p.due = time.Now().Add(delay)
	c.delayLocked(p)
}

// REQUIRES: mu
func (c *conn) delayLocked(p parcel) {
	c.mu.seq++
	p.seq = c.mu.seq
	heap.Push(&c.mu.delayed, p)
	c.mu.count++
	c.mu.size += p.size
}

// runDelivery hands parcels to the target's handler until the target closes, or
// until the sender has closed and nothing is under way.
func (c *conn) runDelivery() {
	defer c.to.calls.Done()
	var (
		timer    *time.Timer // made when something is first delayed
		parcels  []parcel
		fromDone = c.from.done
	)
	for {
		var due time.Time
		var open bool
		parcels, due, open = c.take(parcels[:0])
		for i := range parcels {
			select {
			case <-c.to.done:
				return
			default:
			}
			c.deliver(&parcels[i])
			parcels[i] = parcel{} // memory is the handler's now
		}
		if len(parcels) > 0 {
			continue
		}
		var alarm <-chan time.Time
		if !due.IsZero() {
			if timer == nil {
				timer = time.NewTimer(time.Until(due))
				defer timer.Stop()
			} else {
				timer.Reset(time.Until(due))
			}
			alarm = timer.C
		} else if !open {
			return
		}
		select {
		case <-c.wake:
		case <-alarm:
		case <-fromDone:
			// The sender is gone and may never close the connection.
			fromDone = nil
			c.Close()
		case <-c.to.done:
			return
		}
	}
}

// take moves what has arrived to buf. With nothing to take it returns when the
// next parcel is due, zero if none is under way, and whether more may be sent.
func (c *conn) take(buf []parcel) (parcels []parcel, due time.Time, open bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.mu.fifo) > 0 {
		parcels, c.mu.fifo = c.mu.fifo, buf
		return parcels, due, true
	}
	if len(c.mu.delayed) == 0 {
		return buf, due, !c.mu.closed
	}
	now := time.Now()
	for len(c.mu.delayed) > 0 && !c.mu.delayed[0].due.After(now) {
		buf = append(buf, heap.Pop(&c.mu.delayed).(parcel))
	}
	if len(c.mu.delayed) > 0 {
		due = c.mu.delayed[0].due
	}
	return buf, due, true
}

// deliver calls the handler, unless the link has been cut meanwhile.
func (c *conn) deliver(p *parcel) {
	stats := &c.net.stats
	messages := uint64(len(p.batch.Requests))
	if c.net.rules.Load().cut(c.from.address, c.to.address) {
		stats.cut.Add(messages)
	} else {
		c.to.messages(p.batch)
		stats.batches.Add(1)
		stats.messages.Add(messages)
	}
	c.mu.Lock()
	c.mu.count--
	c.mu.size -= p.size
	c.mu.Unlock()
	signal(c.room)
}

// signal leaves a token in ch unless one is there.
func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// parcelHeap orders parcels by due time, then by the order of sending.
type parcelHeap []parcel

func (h parcelHeap) Len() int { return len(h) }

func (h parcelHeap) Less(i, j int) bool {
	if !h[i].due.Equal(h[j].due) {
		return h[i].due.Before(h[j].due)
	}
	return h[i].seq < h[j].seq
}

func (h parcelHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

func (h *parcelHeap) Push(x any) { *h = append(*h, x.(parcel)) }

func (h *parcelHeap) Pop() any {
	last := len(*h) - 1
	p := (*h)[last]
	(*h)[last] = parcel{}
	*h = (*h)[:last]
	return p
}
