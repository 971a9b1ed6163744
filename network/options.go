package network

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
)

// ErrClosed says that the endpoint, or what was made on it, has been closed.
var ErrClosed = errors.New("mosaik: network endpoint is closed")

// ErrNoAddress says that nobody knows where the peer is.
var ErrNoAddress = errors.New("mosaik: no address of the peer is known")

// ErrProtocol says that a protocol is not registered on this endpoint, or that it
// cannot be.
var ErrProtocol = errors.New("mosaik: unusable protocol")

// Options say how to open an Endpoint. Key and Network are required.
type Options struct {
	// Key is the node's identity. Connections are made under its PeerID.
	Key identity.Key
	// Network names the network; only nodes of the same one talk to each other.
	Network identity.ID
	// Listen is the TCP address to listen at, host:port. Default "127.0.0.1:0": a free
	// port, for this machine alone.
	Listen string
	// Addresses returns where a peer may be, each host:port, the best first. It is
	// asked on every dial, so a peer may move. Nil: nobody can be dialled. It must
	// not block.
	Addresses func(identity.PeerID) []string
	// Entry is what the node says of itself on every connection, its tickets among it
	// (Endpoint.SetEntry). Nil: nothing, until SetEntry is called.
	Entry *identity.SignedEntry
	// Authorize decides about each connection, once the other side has proved who it
	// is, and which groups' keys it has. Nil allows everything. It must return soon,
	// and by the end of its context.
	Authorize Authorizer
	// Limits bound what others can make this node do. Zero fields mean the defaults.
	Limits Limits
	// Logger receives what an operator should know. Default: nothing is logged.
	Logger *slog.Logger
	// Events are called on what happens to connections.
	Events Events
}

// Request is what an Authorizer decides about.
type Request struct {
	Peer     identity.PeerID
	Protocol string
	// Group is the group whose traffic is wanted; zero for protocols without groups.
	// A connection for several groups is asked for once for each.
	Group   identity.ID
	Dialled bool // this node has dialled
	// Entry is the newest that the peer has shown on this connection, or that Learn was
	// given; it is the peer's own, and of this network. Nil: it has shown none.
	Entry *identity.SignedEntry
}

// Authorizer returns until when a connection is allowed, the zero time for as long
// as it lasts; or why it is not: an error that wraps a Reason, or that of a ticket
// (identity.Reason), is told to the other side by that word, any other as NotAllowed.
// A time that has passed means
// TicketExpired. When the time comes it is asked once more: a connection goes on
// if it gets a later one, and is cut otherwise.
type Authorizer func(ctx context.Context, r Request) (until time.Time, err error)

// Limits bound the work and the memory that others cost. Zero means the default.
type Limits struct {
	// Conns is the number of connections (default 4096), ConnsPerPeer of those with one
	// peer (default 64). They count in both directions, after authorization.
	Conns, ConnsPerPeer int
	// Handshakes is the number of accepted connections that have not finished their
	// handshake (default 256). A further one takes the place of the oldest from the host
	// that has the most, so that whoever stalls is the first to go.
	Handshakes int
	// HandshakeTimeout bounds a handshake on either side (default 5 s), DialTimeout the
	// time to reach one address (default 3 s).
	HandshakeTimeout, DialTimeout time.Duration
	// Heartbeat is how long a connection stays without a frame before one is sent
	// (default 3 s); Silence is how long the other side may be silent before it counts as
	// dead (default 10 s, at least two heartbeats).
	Heartbeat, Silence time.Duration
	// WriteTimeout bounds how long the other side may take for a piece of a message, 256
	// KiB (default 5 s).
	WriteTimeout time.Duration
	// Farewell bounds how long the end of a connection waits for the other side to take
	// the reason (default 1 s).
	Farewell time.Duration
	// BackoffMin and BackoffMax bound the pause before a peer that could not be reached
	// is dialled again (defaults 50 ms and 1 s). It doubles each time, and each is drawn
	// from half to one and a half of that.
	BackoffMin, BackoffMax time.Duration
}

func (l Limits) withDefaults() Limits {
	return Limits{
		Conns: cmp.Or(l.Conns, 4096), ConnsPerPeer: cmp.Or(l.ConnsPerPeer, 64), Handshakes: cmp.Or(l.Handshakes, 256),
		HandshakeTimeout: cmp.Or(l.HandshakeTimeout, 5*time.Second), DialTimeout: cmp.Or(l.DialTimeout, 3*time.Second),
		Heartbeat: cmp.Or(l.Heartbeat, 3*time.Second), Silence: cmp.Or(l.Silence, 10*time.Second),
		WriteTimeout: cmp.Or(l.WriteTimeout, 5*time.Second), Farewell: cmp.Or(l.Farewell, time.Second),
		BackoffMin: cmp.Or(l.BackoffMin, 50*time.Millisecond), BackoffMax: cmp.Or(l.BackoffMax, time.Second),
	}
}

func (l Limits) validate() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("mosaik: network: Limits: "+format, args...)
	}
	switch {
	case l.Conns < 0 || l.ConnsPerPeer < 0 || l.Handshakes < 0:
		return bad("Conns %d, ConnsPerPeer %d, Handshakes %d: none may be negative", l.Conns, l.ConnsPerPeer, l.Handshakes)
	case l.HandshakeTimeout < 0, l.DialTimeout < 0, l.WriteTimeout < 0, l.Farewell < 0, l.Heartbeat < 0, l.BackoffMin < 0:
		return bad("a time is negative")
	case l.Silence < 2*l.Heartbeat:
		return bad("Silence is %v, at least twice the Heartbeat of %v is wanted", l.Silence, l.Heartbeat)
	case l.BackoffMax < l.BackoffMin:
		return bad("BackoffMax %v is below BackoffMin %v", l.BackoffMax, l.BackoffMin)
	}
	return nil
}

// Events are called on what happens to connections, on the endpoint's goroutines:
// they must not block, and must not close the endpoint. Every field may be nil.
type Events struct {
	// Opened: a connection has been made.
	Opened func(Info)
	// Closed: a connection that had been made has ended.
	Closed func(Info, *CloseError)
	// Refused: a connection was not made. address is the other side's.
	Refused func(address string, err *CloseError)
	// GroupRefused: a connection was made without one of the groups that were asked
	// for.
	GroupRefused func(Info, identity.ID, *CloseError)
	// Entry: a peer has shown its entry, or a newer one.
	Entry func(*identity.SignedEntry)
}

func (v *Events) ensureDefaults() {
	if v.Opened == nil {
		v.Opened = func(Info) {}
	}
	if v.Closed == nil {
		v.Closed = func(Info, *CloseError) {}
	}
	if v.Refused == nil {
		v.Refused = func(string, *CloseError) {}
	}
	if v.GroupRefused == nil {
		v.GroupRefused = func(Info, identity.ID, *CloseError) {}
	}
	if v.Entry == nil {
		v.Entry = func(*identity.SignedEntry) {}
	}
}

// Protocol is something that is spoken over connections of an endpoint.
type Protocol struct {
	// Name is the ALPN name, such as "mosaik/raft/1": 1 to 255 bytes.
	Name string
	// Groups says that it carries the traffic of groups: both sides prove the keys of
	// those they share before anything else, and there is no connection if they share
	// none.
	Groups bool
	// MaxMessage bounds a message, in bytes. Required.
	MaxMessage int
	// Idle ends a connection after that long without a message in either direction,
	// though with heartbeats. 0: never.
	Idle time.Duration
	// Serve serves a connection that a peer has made, until reading from it fails; the
	// connection is closed when it returns. Nil: the protocol is only dialled.
	Serve func(*Conn)
}

// Info describes a connection.
type Info struct {
	Peer     identity.PeerID
	Protocol string
	Dialled  bool          // by this node
	Address  string        // of the other side
	Groups   []identity.ID // whose traffic it carries, ascending
	Since    time.Time
	Until    time.Time // when its authorization ends; zero: it does not
}
