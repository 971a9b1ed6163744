package remote

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mosaik-engine/mosaik/engine"
	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/network"
)

// serving is a connection that another node has made, and what it has asked for on it.
type serving struct {
	s    *Service
	link *link

	running sync.WaitGroup
	writes  chan write // in the order in which they came
	mu      struct {
		sync.Mutex
		channels map[uint32]*channel
		last     uint32 // the id of the newest channel; they ascend
		writing  int    // bytes of writes
	}
}

// write is a request to write that its group has not taken yet.
type write struct {
	c    *channel
	size int
}

// channel is one request and its answer, at the side that serves.
type channel struct {
	sv     *serving
	id     uint32
	ctx    context.Context // ends, with a reason as its cause, when the channel has to
	cancel context.CancelCauseFunc
	r      *request
	since  time.Time
	source Source // nil while it is not known

	window  int    // the first credit, and so the most that there ever is at once
	out     []byte // items that are to be sent
	frame   []byte // the message that is being sent
	records atomic.Uint64
	bytes   atomic.Uint64
	seq     atomic.Uint64 // of a scan: the last that was sent or left out; 0: none was
	caught  atomic.Bool   // of a scan: it has once come to the end of the log

	mu struct {
		sync.Mutex
		credit int
		more   chan struct{} // closed when there is more; nil if nobody waits
		// admitted is by which entry, until when and by which rule the channel is.
		admitted bool
		entry    *identity.SignedEntry
		until    identity.Expiration
		rule     *Rule
	}
}

// serveConn serves what a peer asks for until its connection ends. It reads all the time:
// nothing that it does waits for a group, or for the peer to take something.
func (s *Service) serveConn(conn *network.Conn) {
	sv := &serving{s: s, writes: make(chan write, maxChannels)}
	sv.mu.channels = make(map[uint32]*channel)
	sv.link = newLink(conn, s.opts.Pulse, sv.check)
	s.mu.Lock()
	s.mu.serving[sv] = struct{}{}
	s.mu.Unlock()
	sv.running.Add(2)
	go sv.link.runPulse(sv.running.Done)
	go sv.runWrites()
	err := sv.read()
	if errors.Is(err, errMessage) || errors.Is(err, errRequest) {
		conn.CloseFor(network.Malformed, err)
	}
	gone := network.Lost
	if cause := (*network.CloseError)(nil); errors.As(conn.Err(), &cause) {
		gone = cause.Reason
	}
	for _, c := range sv.list() {
		c.cancel(gone)
	}
	close(sv.writes)
	sv.running.Wait()
	s.mu.Lock()
	delete(s.mu.serving, sv)
	s.mu.Unlock()
}

// list returns the open channels.
func (sv *serving) list() []*channel {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	var all []*channel
	for _, c := range sv.mu.channels {
		all = append(all, c)
	}
	return all
}

// read takes messages until the connection ends, or one comes that nobody sends.
func (sv *serving) read() error {
	for {
		b, err := sv.link.conn.ReadMessage()
		if err != nil {
			return err
		}
		m, err := decodeMessage(b)
		if err != nil {
			return err
		}
		switch m.kind {
		case kindPing:
			sv.link.pinged(m.nonce)
		case kindPong:
			sv.link.ponged(m.nonce)
		case kindOpen:
			err = sv.open(&m)
		case kindCredit, kindCancel:
			sv.mu.Lock()
			c, known := sv.mu.channels[m.channel], m.channel <= sv.mu.last
			sv.mu.Unlock()
			switch {
			case c == nil && known: // it has ended meanwhile
			case c == nil:
				err = errMessage
			case m.kind == kindCancel:
				c.cancel(&cancelled{toldReason(m.reason)})
			default:
				err = c.grant(int(m.credit))
			}
		default:
			err = errMessage
		}
		if err != nil {
			return err
		}
	}
}

// cancelled is the reason of the side that asked: it is counted, and not told back.
type cancelled struct{ reason network.Reason }

func (c *cancelled) Error() string { return c.reason.Error() }
func (c *cancelled) Unwrap() error { return c.reason }

// toldReason maps a word from the wire to one that is counted.
func toldReason(r network.Reason) network.Reason {
	if slices.Contains([]network.Reason{network.Done, network.NotAllowed, network.GoingAway, TooFar, Failed}, r) {
		return r
	}
	return network.Other
}

// open opens a channel. Its error is of the connection.
func (sv *serving) open(m *message) error {
	r, err := decodeRequest(append([]byte(nil), m.content...))
	if err != nil && (errors.Is(err, errRequest) || r.op == 0) {
		return errRequest
	}
	c := &channel{sv: sv, id: m.channel, r: &r, since: time.Now()}
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	c.window, c.mu.credit = int(m.credit), int(m.credit)
	sv.mu.Lock()
	if m.channel <= sv.mu.last {
		sv.mu.Unlock()
		c.cancel(nil)
		return errMessage
	}
	sv.mu.last = m.channel
	if len(sv.mu.channels) >= 2*maxChannels { // it does not even take the refusals
		sv.mu.Unlock()
		c.cancel(nil)
		return fmt.Errorf("%w: %d channels", errMessage, 2*maxChannels)
	}
	switch {
	case err != nil: // of a position or a pointer, which has a word
	case len(sv.mu.channels) >= maxChannels:
		err = fmt.Errorf("%w: %d channels on one connection", NoCapacity, maxChannels)
	case r.op.writes() && sv.mu.writing+len(m.content) > maxWriting:
		err = fmt.Errorf("%w: %d bytes of writes on one connection", engine.ErrBusy, maxWriting)
	}
	sv.mu.channels[c.id] = c
	if err == nil && r.op.writes() {
		sv.mu.writing += len(m.content)
	}
	sv.mu.Unlock()
	sv.running.Add(1)
	switch {
	case err != nil:
		go c.runRefusal(err)
	case r.op.writes():
		sv.writes <- write{c, len(m.content)} // there is room for as many as there are channels
	default:
		go c.runAnswer()
	}
	return nil
}

// runRefusal tells why there is no answer.
func (c *channel) runRefusal(err error) {
	defer c.sv.running.Done()
	c.end(err)
}

// runAnswer answers a request to read.
func (c *channel) runAnswer() {
	defer c.sv.running.Done()
	c.end(c.answer())
}

// runWrites hands writes to their groups, in the order in which they came.
func (sv *serving) runWrites() {
	defer sv.running.Done()
	for w := range sv.writes {
		future, err := w.c.join()
		sv.mu.Lock()
		sv.mu.writing -= w.size
		sv.mu.Unlock()
		go w.c.runWritten(future, err)
	}
}

// runWritten answers a request to write when its outcome is there.
func (c *channel) runWritten(f *log.Future, err error) {
	defer c.sv.running.Done()
	if err == nil {
		err = c.written(f)
	}
	c.end(err)
}

// end ends a channel, tells the other side why, and counts it.
func (c *channel) end(err error) {
	if c.ctx.Err() != nil {
		err = context.Cause(c.ctx)
	}
	c.cancel(nil)
	c.sv.mu.Lock()
	delete(c.sv.mu.channels, c.id)
	c.sv.mu.Unlock()
	m := message{kind: kindEnd, channel: c.id, reason: reasonOf(err)}
	c.sv.s.served.add(m.reason)
	if told := (*cancelled)(nil); errors.As(err, &told) {
		return
	}
	if err != nil {
		m.text = err.Error()
	}
	_ = c.sv.link.write(&m) // who reads finds out
}

// grant adds to what may be sent.
func (c *channel) grant(n int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.credit += n; c.mu.credit > c.window {
		return fmt.Errorf("%w: a credit of %d bytes, the window is %d", errMessage, c.mu.credit, c.window)
	}
	if c.mu.more != nil {
		close(c.mu.more)
		c.mu.more = nil
	}
	return nil
}

// covered returns how many bytes may be sent at once.
func (c *channel) covered() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.credit
}

// await waits until n bytes may be sent, which is at most the window, or half of the
// window if that is more: who takes everything grants all of it.
func (c *channel) await(n int) error {
	n = max(n, c.window/2)
	for {
		c.mu.Lock()
		if c.mu.credit >= n {
			c.mu.Unlock()
			return c.ctx.Err()
		}
		if c.mu.more == nil {
			c.mu.more = make(chan struct{})
		}
		more := c.mu.more
		c.mu.Unlock()
		select {
		case <-more:
		case <-c.ctx.Done():
			return c.ctx.Err()
		}
	}
}

// send sends the items that have been put together, which are covered.
func (c *channel) send() error {
	c.mu.Lock()
	c.mu.credit -= len(c.out)
	c.mu.Unlock()
	for rest := c.out; len(rest) > 0; {
		n := min(len(rest), maxData)
		m := message{kind: kindData, channel: c.id, content: rest[:n]}
		c.frame = m.appendTo(c.frame[:0])
		if err := c.ctx.Err(); err != nil {
			return err
		}
		if err := c.sv.link.conn.WriteMessage(c.frame); err != nil {
			return err
		}
		c.bytes.Add(uint64(n))
		rest = rest[n:]
	}
	if c.out = c.out[:0]; cap(c.out) > keepBytes {
		c.out = nil
	}
	return nil
}

// keepBytes is how large a buffer may be that is kept for what is sent next.
const keepBytes = 256 << 10

// admit asks the policy about the channel, again if the peer has shown another entry or
// the time is over that was granted. It returns the rule by which the channel may go on.
func (c *channel) admit(now time.Time) (*Rule, error) {
	entry := c.sv.link.conn.Entry()
	c.mu.Lock()
	fresh, rule := c.mu.admitted && entry == c.mu.entry && !c.mu.until.Expired(now), c.mu.rule
	c.mu.Unlock()
	if fresh {
		return rule, nil
	}
	until, rule, err := c.sv.s.opts.Policy.admit(c.sv.link.conn.Remote(), entry, c.r, now)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	again := c.mu.admitted
	c.mu.admitted, c.mu.entry, c.mu.until, c.mu.rule = true, entry, until, rule
	c.mu.Unlock()
	if again {
		c.sv.s.consumersChanged() // it may have other tags
	}
	return rule, nil
}

// lag is how many records there are that a scan has not sent.
func (c *channel) lag() uint64 {
	if c.r.op != opScan || c.source == nil || c.seq.Load() == 0 {
		return 0
	}
	info, _ := c.source.Key(c.r.key)
	return info.Records - min(info.Records, c.seq.Load())
}

// check looks whether channels may go on, and reports whether there are any.
func (sv *serving) check(now time.Time) bool {
	channels := sv.list()
	for _, c := range channels {
		c.mu.Lock()
		admitted := c.mu.admitted
		c.mu.Unlock()
		if !admitted {
			continue // it is being looked at
		}
		limit := sv.s.opts.Policy.MaxLag
		switch rule, err := c.admit(now); {
		case c.r.op.writes():
			// Its group has taken it: what becomes of it is not to be kept from who asks.
		case err != nil:
			c.cancel(err)
		case rule.MaxRTT > 0 && sv.link.rtt() > rule.MaxRTT:
			c.cancel(fmt.Errorf("%w: %v, the limit is %v", TooFar, sv.link.rtt(), rule.MaxRTT))
		case limit > 0 && c.r.follows() && c.caught.Load() && c.lag() > limit:
			c.cancel(fmt.Errorf("%w: %d records behind, the limit is %d", network.TooSlow, c.lag(), limit))
		}
	}
	return len(channels) > 0
}

// describe describes the channels of a connection.
func (sv *serving) describe() (all []Channel) {
	for _, c := range sv.list() {
		c.mu.Lock()
		credit, admitted := c.mu.credit, c.mu.admitted
		c.mu.Unlock()
		d := Channel{
			Peer: sv.link.conn.Remote(), Serving: true, Op: c.r.op.String(), Follows: c.r.follows(), Group: c.r.group, Key: c.r.key,
			Since: c.since, Records: c.records.Load(), Bytes: c.bytes.Load(), Credit: credit, RTT: sv.link.rtt(),
		}
		if admitted {
			d.Lag = c.lag()
		}
		all = append(all, d)
	}
	return all
}
