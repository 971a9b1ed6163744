package network

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
)

// Conn is a connection with a peer that has proved who it is, is of this network,
// and is allowed. It is a net.Conn, a stream of bytes, and carries messages as well:
// ReadMessage returns what one WriteMessage wrote, and may be mixed with Read and
// Write, which cut the stream into messages as they like.
//
// Somebody must always be reading: reasons and heartbeats are noticed by readers.
// Reads and writes fail with a *CloseError once the connection has ended. A write
// that a deadline interrupts ends the connection, as with TLS; a read may be
// repeated after its deadline.
type Conn struct {
	e        *Endpoint
	raw      net.Conn
	tls      *tls.Conn
	protocol *protocol
	peer     identity.PeerID
	dialled  bool
	since    time.Time
	groups   []identity.ID // proven by both sides and allowed; ascending
	refused  []identity.ID // groups that Authorize refused to this connection
	table    *groupTable   // with which the handshake began; nil without groups
	reserved bool          // has a place of its own among the endpoint's connections

	ended     chan struct{}         // closed with mu.cause set
	rearm     chan struct{}         // one token: for runLife, mu.until or one of the entries has changed
	unchecked atomic.Bool           // mu.entry has changed and Authorize was not asked since
	shown     *identity.SignedEntry // of this node's, the one the other side has; after the handshake runLife's
	framesIn  atomic.Uint64
	framesOut atomic.Uint64
	messages  atomic.Uint64 // in both directions
	waiting   atomic.Bool   // a reader waits for the other side

	read struct {
		sync.Mutex
		in      *bufio.Reader
		left    int    // bytes of the present message that are still to come
		message []byte // of ReadMessage, with what has come so far
		partial bool   // ReadMessage was interrupted within message
		entries allowance
	}
	write struct {
		sync.Mutex
		first []byte // a header and the beginning of its message
	}
	// mu is taken after read or write, and before the endpoint's.
	mu struct {
		sync.Mutex
		cause         *CloseError
		entry         *identity.SignedEntry // the newest of the peer; nil: it has shown none
		until         time.Time             // by that entry
		readDeadline  time.Time             // of the caller
		writeDeadline time.Time             // of the caller
	}
}

var _ net.Conn = (*Conn)(nil)

func (e *Endpoint) newConn(raw net.Conn, secure *tls.Conn, p *protocol, dialled bool) *Conn {
	c := &Conn{e: e, raw: raw, tls: secure, protocol: p, dialled: dialled,
		ended: make(chan struct{}), rearm: make(chan struct{}, 1)}
	c.read.in = bufio.NewReaderSize(secure, readBuffer)
	return c
}

// Remote returns the peer at the other side.
func (c *Conn) Remote() identity.PeerID { return c.peer }

// Protocol returns the name of the protocol.
func (c *Conn) Protocol() string { return c.protocol.Name }

// Dialled reports whether this node has made the connection.
func (c *Conn) Dialled() bool { return c.dialled }

// Groups returns the groups whose traffic the connection carries, ascending: those
// whose key both sides have proven, and neither has refused.
func (c *Conn) Groups() []identity.ID { return slices.Clone(c.groups) }

// Carries reports whether a group is among Groups.
func (c *Conn) Carries(group identity.ID) bool {
	_, ok := slices.BinarySearchFunc(c.groups, group, identity.ID.Compare)
	return ok
}

// Export derives key material from the TLS session (RFC 8446, 7.5), the same on
// both sides. The labels of group ids are taken by the proofs of their keys.
func (c *Conn) Export(label string, context []byte, length int) ([]byte, error) {
	return exporterOf(c.tls)(label, context, length)
}

// Info describes the connection.
func (c *Conn) Info() Info {
	c.mu.Lock()
	until := c.mu.until
	c.mu.Unlock()
	return Info{Peer: c.peer, Protocol: c.protocol.Name, Dialled: c.dialled, Address: c.raw.RemoteAddr().String(),
		Groups: slices.Clone(c.groups), Since: c.since, Until: until}
}

// LocalAddr returns this side's TCP address.
func (c *Conn) LocalAddr() net.Addr { return c.raw.LocalAddr() }

// RemoteAddr returns the other side's TCP address.
func (c *Conn) RemoteAddr() net.Addr { return c.raw.RemoteAddr() }

// Done is closed when the connection has ended.
func (c *Conn) Done() <-chan struct{} { return c.ended }

// Err returns how the connection ended, nil while it has not.
func (c *Conn) Err() error {
	if cause := c.cause(); cause != nil {
		return cause
	}
	return nil
}

func (c *Conn) cause() *CloseError {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.cause
}

// Close ends the connection. What was written before still arrives; the other side
// reads Done after it. It does not wait and never fails.
func (c *Conn) Close() error {
	c.end(&CloseError{Reason: Done})
	return nil
}

// CloseFor ends the connection for a reason that is told to the other side. cause,
// which may be nil, is not told.
func (c *Conn) CloseFor(r Reason, cause error) { c.end(&CloseError{Reason: r, Cause: cause}) }

// end ends the connection, unless that has happened. It wakes whoever reads or
// writes; the conn's goroutine tells the other side.
func (c *Conn) end(cause *CloseError) {
	cause = &CloseError{Peer: c.peer, Protocol: c.protocol.Name, Reason: cause.Reason, Remote: cause.Remote, Cause: cause.Cause}
	c.mu.Lock()
	if c.mu.cause != nil {
		c.mu.Unlock()
		return
	}
	c.mu.cause = cause
	// Whoever reads is woken; whoever writes gets as long as the farewell has.
	_ = c.raw.SetReadDeadline(past)
	_ = c.raw.SetWriteDeadline(time.Now().Add(c.e.limits.Farewell))
	close(c.ended)
	c.mu.Unlock()
	c.e.connEnded(c, cause)
}

// past is a deadline that has passed.
var past = time.Unix(1, 0)

// failed ends the connection after an error of reading or writing and returns what
// the caller is told.
func (c *Conn) failed(err error, timeout Reason) error {
	if !errors.As(err, new(*CloseError)) {
		reason := Lost
		if errors.Is(err, os.ErrDeadlineExceeded) {
			reason = timeout
		}
		err = &CloseError{Reason: reason, Cause: err}
	}
	c.end(closeErrorOf(err, Lost))
	return c.cause()
}

// SetDeadline sets the deadlines of reads and writes, as of net.Conn.
func (c *Conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline sets the deadline of reads, of one that waits too.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.cause != nil {
		return c.mu.cause
	}
	c.mu.readDeadline = t
	return c.raw.SetReadDeadline(t)
}

// SetWriteDeadline sets the deadline of writes that begin after it.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.cause != nil {
		return c.mu.cause
	}
	c.mu.writeDeadline = t
	return nil
}

// contextOf returns a context that ends with the connection.
func contextOf(c *Conn) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	go runCancel(ctx, c, cancel)
	return ctx, cancel
}

// runCancel cancels when the connection ends, and ends with ctx.
func runCancel(ctx context.Context, c *Conn, cancel context.CancelFunc) {
	select {
	case <-c.ended:
		cancel()
	case <-ctx.Done():
	}
}
