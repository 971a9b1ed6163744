package inproc

import (
	"math/rand/v2"
	"sync/atomic"
	"time"

	pb "github.com/lni/dragonboat/v4/raftpb"
)

// snapshotConn carries the chunks of one snapshot. One goroutine at a time sends.
// A chunk that does not arrive breaks the connection, since the next one would
// arrive out of order.
type snapshotConn struct {
	net      *Network
	from, to *transport
	rng      *rand.Rand
	closed   atomic.Bool
}

func newSnapshotConn(from, to *transport) *snapshotConn {
	return &snapshotConn{net: from.net, from: from, to: to, rng: from.net.generator(from.address, to.address)}
}

// Close ends the connection. Every chunk sent before has been handled.
func (c *snapshotConn) Close() { c.closed.Store(true) }

// SendChunk calls the target's handler with a copy of chunk, delayed as faults
// demand, and returns when the handler has. It fails with ErrRejected when the
// handler refuses the chunk, with ErrLost when a fault or a partition takes it,
// and with ErrClosed when either end is closed or an earlier chunk failed.
func (c *snapshotConn) SendChunk(chunk pb.Chunk) error {
	if c.closed.Load() {
		return ErrClosed
	}
	err := c.send(chunk)
	if err != nil {
		c.closed.Store(true)
	}
	return err
}

func (c *snapshotConn) send(chunk pb.Chunk) error {
	if r := c.net.rules.Load(); r != nil {
		dropped := c.rng.Float64() < r.fault.Drop
		delay := r.fault.delay(c.rng.Float64())
		if dropped {
			c.net.stats.dropped.Add(1)
			return ErrLost
		}
		if err := c.wait(delay); err != nil {
			return err
		}
	}
	// The rules of now, not of before the delay.
	if c.net.rules.Load().cut(c.from.address, c.to.address) {
		c.net.stats.cut.Add(1)
		return ErrLost
	}
	if !c.to.enter() {
		return ErrClosed
	}
	defer c.to.calls.Done()
	if !c.to.chunks(copyChunk(chunk)) {
		return ErrRejected
	}
	c.net.stats.chunks.Add(1)
	return nil
}

// wait lets delay pass unless an end closes first.
func (c *snapshotConn) wait(delay time.Duration) error {
	if delay <= 0 {
		return nil
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-c.to.done:
		return ErrClosed
	case <-c.from.done:
		return ErrClosed
	}
}
