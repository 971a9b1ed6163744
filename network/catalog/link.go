package catalog

import (
	"errors"
	"sync"
	"time"

	"github.com/mosaik-engine/mosaik/network"
)

// link is a connection over which catalogs are compared. Messages that are to be sent
// wait in a queue, so that a peer which takes its time holds up nobody; one that takes
// too much loses the link.
type link struct {
	id      int
	conn    *network.Conn
	dialled bool
	leaving bool // under the catalog's mu: it makes room for another

	mu struct {
		sync.Mutex
		queue  []*message
		bytes  int  // about
		closed bool // nothing more is put in
	}
	wake    chan struct{} // one token: there is something to write, or to end
	written chan struct{} // closed when runWrite has ended
}

// maxQueued bounds what waits for a link, in bytes: enough for the answer to any
// comparison.
const maxQueued = 4 << 20

func newLink(id int, conn *network.Conn) *link {
	return &link{id: id, conn: conn, dialled: conn.Dialled(), wake: make(chan struct{}, 1), written: make(chan struct{})}
}

// send puts a message into the queue. It does not wait.
func (l *link) send(m *message) {
	size := 64 + len(m.versions)*versionSize + len(m.peers)*32
	if m.kind == kindBuckets {
		size += buckets * sumSize
	}
	for _, e := range m.entries {
		size += len(e)
	}
	l.mu.Lock()
	full := l.mu.bytes+size > maxQueued
	if !full && !l.mu.closed {
		l.mu.queue = append(l.mu.queue, m)
		l.mu.bytes += size
	}
	l.mu.Unlock()
	if full {
		l.conn.CloseFor(network.TooSlow, errors.New("it does not take what it is sent"))
	}
	l.signal()
}

func (l *link) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// drain waits until what is in the queue is written, or the link has ended, and puts
// nothing more in.
func (l *link) drain() {
	l.mu.Lock()
	l.mu.closed = true
	l.mu.Unlock()
	l.signal()
	<-l.written
}

// runWrite writes what is put into a link's queue, until the link ends or is drained.
func (c *Catalog) runWrite(l *link) {
	defer c.running.Done()
	defer close(l.written)
	var buf []byte
	for {
		l.mu.Lock()
		queue, closed := l.mu.queue, l.mu.closed
		l.mu.queue, l.mu.bytes = nil, 0
		l.mu.Unlock()
		for _, m := range queue {
			buf = m.appendTo(buf[:0])
			if l.conn.WriteMessage(buf) != nil {
				return // who reads finds out why
			}
		}
		if closed {
			return
		}
		select {
		case <-l.wake:
		case <-l.conn.Done():
			return
		}
	}
}

// serve takes part in a link until it ends.
func (c *Catalog) serve(conn *network.Conn) {
	c.mu.Lock()
	if c.mu.closed {
		c.mu.Unlock()
		return
	}
	c.mu.lastLink++
	l := newLink(c.mu.lastLink, conn)
	crowded := c.crowded(l)
	c.mu.links[l.id] = l
	c.mu.gossip.connected(l.id, conn.Remote(), l.dialled)
	c.passOn()
	c.running.Add(1)
	c.mu.Unlock()
	if crowded != nil {
		crowded.conn.CloseFor(network.TooManyConnections, errors.New("it makes room for another"))
	}
	go c.runWrite(l)
	err := c.read(l)
	c.mu.Lock()
	delete(c.mu.links, l.id)
	c.mu.gossip.disconnected(l.id)
	c.mu.Unlock()
	var reason network.Reason
	if errors.As(err, &reason) && conn.Err() == nil {
		c.opts.Logger.Warn("a peer breaks the rules of the catalog", "peer", conn.Remote().Short(), "err", err)
		conn.CloseFor(reason, err)
	}
	<-l.written // conn has ended, or its writer finds out
}

// crowded returns the link that has to make room for l: the oldest that others have
// made, if there are too many. REQUIRES: mu.
func (c *Catalog) crowded(l *link) *link {
	var staying int
	var oldest *link
	for _, id := range c.linkIDs() {
		old := c.mu.links[id]
		if old.leaving {
			continue
		}
		staying++
		if oldest == nil && !old.dialled {
			oldest = old
		}
	}
	if l.dialled || staying < c.opts.MaxLinks || oldest == nil {
		return nil
	}
	oldest.leaving = true
	return oldest
}

// read takes messages until the link ends.
func (c *Catalog) read(l *link) error {
	for {
		b, err := l.conn.ReadMessage()
		if err != nil {
			return err
		}
		c.do(func(g *gossip) { err = g.receive(time.Now(), l.id, b) })
		if err != nil {
			return err
		}
	}
}
