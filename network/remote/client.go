package remote

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/network"
)

const (
	// dialTimeout bounds the making of a connection with one replica.
	dialTimeout = 5 * time.Second
	// maxSending bounds the bytes of requests whose answers have not begun, on one
	// connection: less than the other side takes at once. Who asks waits for its turn.
	maxSending = maxWriting / 2
	// minSending is what a small one counts as, so that writes alone do not take all of
	// the channels of a connection.
	minSending = 2 * maxSending / maxChannels
)

// client is the way to one peer.
type client struct {
	s    *Service
	peer identity.PeerID
	// turn holds one token while somebody looks at dialled, or makes it. It is no mutex
	// because who waits for it must be able to give up.
	turn    chan struct{}
	dialled atomic.Pointer[dialled] // the present connection, maybe ended; nil before the first
}

// dialled is a connection on which this node asks.
type dialled struct {
	s      *Service
	link   *link
	budget *semaphore.Weighted

	sending sync.Mutex // held to take a number and to send the request with it, and before mu
	mu      struct {
		sync.Mutex
		next  uint32
		calls map[uint32]*call // nil when the connection has ended
	}
}

// call is one request and its answer, at the side that asks. Its methods but for those
// that say so are for one goroutine.
type call struct {
	d       *dialled
	id      uint32
	r       *request
	size    int // what the request counts as
	window  int
	since   time.Time
	records atomic.Uint64
	bytes   atomic.Uint64

	owed   int // bytes that were taken since the last grant
	header [itemHeader]byte
	item   []byte

	mu struct {
		sync.Mutex
		chunks [][]byte // what has come and was not taken
		credit int      // what may come
		end    *message // the other side has ended it
	}
	wake chan struct{} // one token: something has come, or the connection has ended
}

// client returns the way to a peer.
func (s *Service) client(peer identity.PeerID) (*client, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.closed {
		return nil, network.ErrClosed
	}
	c := s.mu.clients[peer]
	if c == nil {
		c = &client{s: s, peer: peer, turn: make(chan struct{}, 1)}
		s.mu.clients[peer] = c
	}
	return c, nil
}

// connect returns the connection with a peer, and makes it if there is none.
func (s *Service) connect(ctx context.Context, peer identity.PeerID) (*dialled, error) {
	c, err := s.client(peer)
	if err != nil {
		return nil, err
	}
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if d := c.dialled.Load(); d != nil && d.link.conn.Err() == nil {
		return d, nil
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	conn, err := s.e.Dial(ctx, peer, Protocol)
	if err != nil {
		return nil, err
	}
	d := &dialled{s: s, budget: semaphore.NewWeighted(maxSending)}
	d.mu.calls = make(map[uint32]*call)
	d.link = newLink(conn, s.opts.Pulse, d.busy)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.closed {
		conn.CloseFor(network.GoingAway, nil)
		return nil, network.ErrClosed
	}
	s.running.Add(2)
	go d.link.runPulse(s.running.Done)
	go d.runRead()
	c.dialled.Store(d)
	return d, nil
}

// busy reports whether there are calls.
func (d *dialled) busy(time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.mu.calls) > 0
}

// runRead takes what comes on a connection until it ends. It never waits for a call.
func (d *dialled) runRead() {
	defer d.s.running.Done()
	err := d.read()
	if errors.Is(err, errMessage) {
		d.link.conn.CloseFor(network.Malformed, err)
	}
	d.mu.Lock()
	calls := d.mu.calls
	d.mu.calls = nil
	d.mu.Unlock()
	for _, c := range calls {
		c.signal()
	}
}

func (d *dialled) read() error {
	for {
		b, err := d.link.conn.ReadMessage()
		if err != nil {
			return err
		}
		m, err := decodeMessage(b)
		if err != nil {
			return err
		}
		switch m.kind {
		case kindPing:
			d.link.pinged(m.nonce)
		case kindPong:
			d.link.ponged(m.nonce)
		case kindData, kindEnd:
			d.mu.Lock()
			c, known := d.mu.calls[m.channel], m.channel != 0 && m.channel <= d.mu.next
			d.mu.Unlock()
			switch {
			case c == nil && known: // it was given up
			case c == nil:
				return errMessage
			default:
				err = c.receive(&m)
			}
		default:
			err = errMessage
		}
		if err != nil {
			return err
		}
	}
}

// receive takes a message of a call. It is for the goroutine that reads.
func (c *call) receive(m *message) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.mu.end != nil || len(m.content) > c.mu.credit:
		return fmt.Errorf("%w: more than it may send", errMessage)
	case m.kind == kindEnd:
		end := *m
		c.mu.end = &end
	default:
		c.mu.credit -= len(m.content)
		c.mu.chunks = append(c.mu.chunks, append([]byte(nil), m.content...))
		c.bytes.Add(uint64(len(m.content)))
	}
	c.signal()
	return nil
}

// signal wakes who waits for the call. It is for any goroutine.
func (c *call) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// ask sends a request. An error says that it was not sent; lost says that it may have
// been. The call is to be closed.
func (d *dialled) ask(ctx context.Context, r *request, window int) (c *call, lost bool, err error) {
	encoded := r.appendTo(nil)
	if len(encoded) > maxRequest {
		return nil, false, fmt.Errorf("%w: a request of %d bytes, at most %d are possible", network.Oversize, len(encoded), maxRequest)
	}
	if r.op.writes() {
		if err := d.budget.Acquire(ctx, int64(max(len(encoded), minSending))); err != nil {
			return nil, false, err
		}
	}
	c = &call{d: d, r: r, size: max(len(encoded), minSending), window: window, since: time.Now(), wake: make(chan struct{}, 1)}
	c.mu.credit = window
	d.sending.Lock()
	defer d.sending.Unlock()
	d.mu.Lock()
	if d.mu.calls == nil || ctx.Err() != nil {
		d.mu.Unlock()
		c.release()
		if err := ctx.Err(); err != nil {
			return nil, false, err
		}
		return nil, false, d.link.conn.Err()
	}
	d.mu.next++
	c.id = d.mu.next
	d.mu.calls[c.id] = c
	d.mu.Unlock()
	if err := d.link.write(&message{kind: kindOpen, channel: c.id, credit: uint32(window), content: encoded}); err != nil {
		c.close(network.Lost)
		return nil, true, err
	}
	return c, false, nil
}

// close ends a call, unless it has ended, for a reason that the other side is told.
func (c *call) close(r network.Reason) {
	c.d.mu.Lock()
	_, open := c.d.mu.calls[c.id]
	delete(c.d.mu.calls, c.id)
	c.d.mu.Unlock()
	c.mu.Lock()
	end := c.mu.end
	c.mu.Unlock()
	var gone *network.CloseError
	switch {
	case end != nil:
		r = end.reason
	case errors.As(c.d.link.conn.Err(), &gone):
		r = gone.Reason
	case open:
		_ = c.d.link.write(&message{kind: kindCancel, channel: c.id, reason: r}) // who reads finds out
	}
	c.release()
	c.d.s.asked.add(r)
}

// release gives back what the request has taken of the budget.
func (c *call) release() {
	if c.r.op.writes() {
		c.d.budget.Release(int64(c.size))
	}
}

// next returns the next item, whose content is good until the following call. io.EOF is
// the end of an answer. An *Error is what the other side says, a *network.CloseError that
// there is no other side any more.
func (c *call) next(ctx context.Context) (itemKind, []byte, error) {
	if err := c.read(ctx, c.header[:]); err != nil {
		return 0, nil, err
	}
	size := binary.LittleEndian.Uint32(c.header[1:])
	if size > maxItem {
		return 0, nil, fmt.Errorf("%w: an item of %d bytes, the limit is %d", ErrAnswer, size, maxItem)
	}
	if cap(c.item) > keepBytes {
		c.item = nil
	}
	// It grows with what comes, not with what was announced.
	c.item = c.item[:0]
	for left := int(size); left > 0; {
		n := min(left, maxData)
		end := len(c.item)
		c.item = append(c.item, make([]byte, n)...)
		if err := c.read(ctx, c.item[end:]); err != nil {
			if err == io.EOF {
				err = fmt.Errorf("%w: it ends within an item", ErrAnswer)
			}
			return 0, nil, err
		}
		left -= n
	}
	return itemKind(c.header[0]), c.item, nil
}

// read fills p with what comes next. io.EOF is the end, with none of p filled.
func (c *call) read(ctx context.Context, p []byte) error {
	for n := 0; n < len(p); {
		c.mu.Lock()
		var took int
		for len(c.mu.chunks) > 0 && n < len(p) {
			first := c.mu.chunks[0]
			k := copy(p[n:], first)
			n, took = n+k, took+k
			if k < len(first) {
				c.mu.chunks[0] = first[k:]
			} else {
				c.mu.chunks[0] = nil
				c.mu.chunks = c.mu.chunks[1:]
			}
		}
		empty, end := len(c.mu.chunks) == 0, c.mu.end
		c.mu.Unlock()
		if err := c.took(took, empty && n < len(p) && end == nil); err != nil {
			return err
		}
		if n == len(p) {
			return nil
		}
		if end != nil {
			return c.ended(end, n > 0)
		}
		if err := c.wait(ctx); err != nil {
			return err
		}
	}
	return nil
}

// took grants the other side what was taken, in halves of the window, or everything
// when nothing is left to take.
func (c *call) took(n int, all bool) error {
	c.owed += n
	if c.owed == 0 || c.owed < c.window/2 && !all {
		return nil
	}
	c.mu.Lock()
	c.mu.credit += c.owed
	done := c.mu.end != nil
	c.mu.Unlock()
	owed := c.owed
	c.owed = 0
	if done {
		return nil
	}
	return c.d.link.write(&message{kind: kindCredit, channel: c.id, credit: uint32(owed)})
}

// ended returns what the end of an answer means.
func (c *call) ended(end *message, within bool) error {
	switch {
	case end.reason != network.Done:
		return &Error{Peer: c.d.link.conn.Remote(), Reason: end.reason, Text: end.text}
	case within:
		return fmt.Errorf("%w: it ends within an item", ErrAnswer)
	}
	return io.EOF
}

// wait waits until something has come.
func (c *call) wait(ctx context.Context) error {
	select {
	case <-c.wake:
	case <-c.d.link.conn.Done():
		// What came before the end is taken first.
		c.d.mu.Lock()
		read := c.d.mu.calls == nil
		c.d.mu.Unlock()
		c.mu.Lock()
		some := len(c.mu.chunks) > 0 || c.mu.end != nil
		c.mu.Unlock()
		if read && !some {
			return c.d.link.conn.Err()
		}
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// describe describes the calls of a client.
func (c *client) describe() (all []Channel) {
	d := c.dialled.Load()
	if d == nil {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, call := range d.mu.calls {
		call.mu.Lock()
		credit := call.mu.credit
		call.mu.Unlock()
		all = append(all, Channel{
			Peer: c.peer, Op: call.r.op.String(), Follows: call.r.follows(), Group: call.r.group, Key: call.r.key,
			Since: call.since, Records: call.records.Load(), Bytes: call.bytes.Load(), Credit: credit, RTT: d.link.rtt(),
		})
	}
	return all
}
