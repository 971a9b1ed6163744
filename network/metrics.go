package network

import (
	"maps"
	"sync"
	"sync/atomic"
)

// Metrics are the counters of an endpoint since it was opened. They are read one
// by one, not as one instant.
type Metrics struct {
	// Conns is the number of connections now, Handshakes of those that are being
	// accepted.
	Conns, Handshakes int
	// Accepted and Dialled count the connections that were made.
	Accepted, Dialled uint64
	// Refused counts what this node has refused, RefusedBy what others have refused it:
	// connections, and single groups of connections, by reason.
	Refused, RefusedBy map[Reason]uint64
	// Closed counts the connections that were made and have ended, by reason.
	Closed map[Reason]uint64
	// DialErrors counts addresses where nobody could be reached.
	DialErrors uint64
	// MessagesIn, MessagesOut, BytesIn and BytesOut count what the connections carried,
	// in payload.
	MessagesIn, MessagesOut, BytesIn, BytesOut uint64
	// Raft is what the Raft transport left out.
	Raft RaftDrops
}

// RaftDrops counts Raft messages and snapshot chunks that were not passed on.
type RaftDrops struct {
	// UnprovenOut and UnprovenIn: of a group whose key the connection has not proven.
	UnprovenOut, UnprovenIn uint64
	// Foreign: not from the member, or not to the member, that they name.
	Foreign uint64
	// Local: of a kind that no host sends to another.
	Local uint64
}

// counters is Metrics while they are counted.
type counters struct {
	accepted, dialled, dialErrors                           atomic.Uint64
	messagesIn, messagesOut, bytesIn, bytesOut              atomic.Uint64
	raftUnprovenOut, raftUnprovenIn, raftForeign, raftLocal atomic.Uint64

	mu struct {
		sync.Mutex
		refused, refusedBy, closed map[Reason]uint64
	}
}

func newCounters() *counters {
	c := new(counters)
	c.mu.refused, c.mu.refusedBy, c.mu.closed = make(map[Reason]uint64), make(map[Reason]uint64), make(map[Reason]uint64)
	return c
}

func (c *counters) refuse(err *CloseError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err.Remote {
		c.mu.refusedBy[err.Reason]++
	} else {
		c.mu.refused[err.Reason]++
	}
}

func (c *counters) close(r Reason) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.closed[r]++
}

func (c *counters) read() Metrics {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Metrics{
		Accepted: c.accepted.Load(), Dialled: c.dialled.Load(), DialErrors: c.dialErrors.Load(),
		MessagesIn: c.messagesIn.Load(), MessagesOut: c.messagesOut.Load(), BytesIn: c.bytesIn.Load(), BytesOut: c.bytesOut.Load(),
		Refused: maps.Clone(c.mu.refused), RefusedBy: maps.Clone(c.mu.refusedBy), Closed: maps.Clone(c.mu.closed),
		Raft: RaftDrops{
			UnprovenOut: c.raftUnprovenOut.Load(), UnprovenIn: c.raftUnprovenIn.Load(),
			Foreign: c.raftForeign.Load(), Local: c.raftLocal.Load(),
		},
	}
}
