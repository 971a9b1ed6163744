package network

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
)

// Endpoint is a node's place in its network: one TCP port, at which others make
// connections with it, and from which it makes connections with others. Its methods
// may be called from any goroutine.
type Endpoint struct {
	opts        Options
	limits      Limits
	logger      *slog.Logger
	peer        identity.PeerID
	network     identity.ID
	certificate tls.Certificate
	listener    net.Listener
	groups      atomic.Pointer[groupTable]
	entry       atomic.Pointer[identity.SignedEntry] // of this node
	changing    sync.Mutex                           // held by ChangeEntry
	counters    *counters

	ctx     context.Context // of all dials; ends with Close
	cancel  context.CancelFunc
	running sync.WaitGroup // the goroutines of doc.go

	mu struct {
		sync.Mutex
		closed     bool
		protocols  map[string]*protocol
		conns      map[*Conn]struct{}
		count      int // of conns, and of those that are being made
		perPeer    map[identity.PeerID]int
		handshakes handshakes
		backoffs   map[identity.PeerID]*backoff
	}
}

// protocol is a registered Protocol.
type protocol struct {
	Protocol
	serving sync.WaitGroup // calls of Serve
	gone    bool           // under the endpoint's mu: no longer registered
}

// Open opens an endpoint. It listens when Open returns, and refuses every protocol
// until Handle has registered it.
func Open(o Options) (*Endpoint, error) {
	o.Limits = o.Limits.withDefaults()
	o.Events.ensureDefaults()
	if o.Key.IsZero() || o.Network.IsZero() {
		return nil, errors.New("mosaik: network: Options.Key and Options.Network are required")
	}
	if err := o.Limits.validate(); err != nil {
		return nil, err
	}
	if o.Listen == "" {
		o.Listen = "127.0.0.1:0"
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Addresses == nil {
		o.Addresses = func(identity.PeerID) []string { return nil }
	}
	if err := checkEntry(o.Entry, o.Key.PeerID(), o.Network); err != nil {
		return nil, fmt.Errorf("mosaik: network: Options.Entry: %w", err)
	}
	certificate, err := certificateFor(o.Key)
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", o.Listen)
	if err != nil {
		return nil, fmt.Errorf("mosaik: network: %w", err)
	}
	e := &Endpoint{
		opts: o, limits: o.Limits, logger: o.Logger, peer: o.Key.PeerID(), network: o.Network,
		certificate: certificate, listener: listener, counters: newCounters(),
	}
	e.groups.Store(&groupTable{})
	e.entry.Store(o.Entry)
	e.ctx, e.cancel = context.WithCancel(context.Background())
	e.mu.protocols = make(map[string]*protocol)
	e.mu.conns = make(map[*Conn]struct{})
	e.mu.perPeer = make(map[identity.PeerID]int)
	e.mu.backoffs = make(map[identity.PeerID]*backoff)
	e.running.Add(1)
	go e.runAccept()
	return e, nil
}

// Peer returns the node's own name.
func (e *Endpoint) Peer() identity.PeerID { return e.peer }

// Addr returns the address the endpoint listens at.
func (e *Endpoint) Addr() net.Addr { return e.listener.Addr() }

// Metrics returns the endpoint's counters.
func (e *Endpoint) Metrics() Metrics {
	m := e.counters.read()
	e.mu.Lock()
	defer e.mu.Unlock()
	m.Conns, m.Handshakes = len(e.mu.conns), len(e.mu.handshakes)
	return m
}

// Conns describes the connections there are, the oldest first.
func (e *Endpoint) Conns() []Info {
	var infos []Info
	for _, c := range e.connsOf(func(*Conn) bool { return true }) {
		infos = append(infos, c.Info())
	}
	slices.SortFunc(infos, func(a, b Info) int { return a.Since.Compare(b.Since) })
	return infos
}

// connsOf returns the connections that are chosen.
func (e *Endpoint) connsOf(chosen func(*Conn) bool) []*Conn {
	e.mu.Lock()
	defer e.mu.Unlock()
	var conns []*Conn
	for c := range e.mu.conns {
		if chosen(c) {
			conns = append(conns, c)
		}
	}
	return conns
}

// Handle registers a protocol. stop ends that: it ends the protocol's connections,
// which the other sides read GoingAway from, and returns when no Serve of it runs any
// more; it must not be called by one. Afterwards the name is free again.
func (e *Endpoint) Handle(p Protocol) (stop func(), err error) {
	if p.Name == "" || len(p.Name) > 255 || p.MaxMessage <= 0 || p.Idle < 0 {
		return nil, fmt.Errorf("%w: Name %q of 1 to 255 bytes, MaxMessage %d above 0, Idle %v not negative", ErrProtocol, p.Name, p.MaxMessage, p.Idle)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.mu.closed {
		return nil, ErrClosed
	}
	if e.mu.protocols[p.Name] != nil {
		return nil, fmt.Errorf("%w: %q is registered already", ErrProtocol, p.Name)
	}
	registered := &protocol{Protocol: p}
	e.mu.protocols[p.Name] = registered
	return func() { e.unregister(registered) }, nil
}

func (e *Endpoint) unregister(p *protocol) {
	e.mu.Lock()
	if !p.gone {
		p.gone = true
		delete(e.mu.protocols, p.Name)
	}
	e.mu.Unlock()
	for _, c := range e.connsOf(func(c *Conn) bool { return c.protocol == p }) {
		c.CloseFor(GoingAway, nil)
	}
	p.serving.Wait()
}

func (e *Endpoint) protocol(name string) *protocol {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.mu.protocols[name]
}

// protocolNames returns the protocols that are served.
func (e *Endpoint) protocolNames() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var names []string
	for name, p := range e.mu.protocols {
		if p.Serve != nil {
			names = append(names, name)
		}
	}
	if names == nil {
		names = []string{"mosaik/none"} // TLS would take none to mean any
	}
	return names
}

// SetGroups replaces the groups whose traffic is carried. If a group comes, goes or
// gets another key, connections of protocols with groups end with GroupsChanged, to
// be made anew; a change of members alone takes effect with the next message.
func (e *Endpoint) SetGroups(groups []Group) error {
	table, err := newGroupTable(groups)
	if err != nil {
		return err
	}
	if before := e.groups.Swap(table); before.sameKeys(table) {
		return nil
	}
	for _, c := range e.connsOf(func(c *Conn) bool { return c.protocol.Groups }) {
		c.CloseFor(GroupsChanged, nil)
	}
	return nil
}

// Recheck asks Authorize about every connection with a peer again, because what is
// known about the peer has changed. A connection that is no longer allowed ends
// before Recheck returns. A peer that could not be reached is dialled without a
// pause the next time.
func (e *Endpoint) Recheck(peer identity.PeerID) {
	e.forgetBackoff(peer)
	for _, c := range e.connsOf(func(c *Conn) bool { return c.peer == peer }) {
		c.recheck()
	}
}

// Disconnect ends every connection with a peer, for a reason that it is told.
func (e *Endpoint) Disconnect(peer identity.PeerID, r Reason, cause error) {
	for _, c := range e.connsOf(func(c *Conn) bool { return c.peer == peer }) {
		c.CloseFor(r, cause)
	}
}

// Close leaves the network: it tells all peers GoingAway, gives them as long as
// Limits.Farewell to take it, and returns when every goroutine of the endpoint has
// ended. Calls of Serve have to end when their connections do.
func (e *Endpoint) Close() error {
	e.mu.Lock()
	closed := e.mu.closed
	e.mu.closed = true
	for _, h := range e.mu.handshakes {
		_ = h.raw.Close() // nobody has been promised anything
	}
	e.mu.Unlock()
	var err error
	if !closed {
		e.cancel()
		err = e.listener.Close()
	}
	for _, c := range e.connsOf(func(*Conn) bool { return true }) {
		c.CloseFor(GoingAway, nil)
	}
	e.running.Wait()
	return err
}

// reserve takes a place for a connection with a peer. Every nil needs a release, or
// a start, whose end releases it.
func (e *Endpoint) reserve(peer identity.PeerID) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.mu.closed:
		return ErrClosed
	case e.mu.count >= e.limits.Conns:
		return refusal(TooManyConnections, "%d connections, the limit is %d", e.mu.count, e.limits.Conns)
	case e.mu.perPeer[peer] >= e.limits.ConnsPerPeer:
		return refusal(TooManyConnections, "%d connections with the peer, the limit is %d", e.mu.perPeer[peer], e.limits.ConnsPerPeer)
	}
	e.mu.count++
	e.mu.perPeer[peer]++
	return nil
}

func (e *Endpoint) release(peer identity.PeerID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.releaseLocked(peer)
}

// REQUIRES: mu
func (e *Endpoint) releaseLocked(peer identity.PeerID) {
	e.mu.count--
	if e.mu.perPeer[peer]--; e.mu.perPeer[peer] == 0 {
		delete(e.mu.perPeer, peer)
	}
}

// start begins the life of a connection whose handshake is done and whose place is
// reserved. It fails if the endpoint is closed or the protocol gone by now, or if the
// groups have changed since the handshake began.
func (e *Endpoint) start(c *Conn) error {
	c.since = time.Now()
	_ = c.raw.SetDeadline(time.Time{}) // if it is broken, reading finds out
	e.mu.Lock()
	switch now := e.groups.Load(); {
	case e.mu.closed || c.protocol.gone:
		e.mu.Unlock()
		return &CloseError{Reason: GoingAway}
	case c.protocol.Groups && c.table != now && !c.table.sameKeys(now):
		e.mu.Unlock()
		return &CloseError{Reason: GroupsChanged}
	}
	e.mu.conns[c] = struct{}{}
	e.running.Add(1)
	if !c.dialled {
		c.protocol.serving.Add(1)
	}
	delete(e.mu.backoffs, c.peer) // it is there
	e.mu.Unlock()
	if c.dialled {
		e.counters.dialled.Add(1)
	} else {
		e.counters.accepted.Add(1)
	}
	e.opts.Events.Opened(c.Info())
	go c.runLife()
	return nil
}

// connEnded is called once for each connection that was started.
func (e *Endpoint) connEnded(c *Conn, cause *CloseError) {
	e.mu.Lock()
	delete(e.mu.conns, c)
	e.releaseLocked(c.peer)
	e.mu.Unlock()
	e.counters.close(cause.Reason)
	e.logger.Debug("connection ended", "peer", c.peer.Short(), "protocol", c.protocol.Name, "dialled", c.dialled, "reason", string(cause.Reason), "remote", cause.Remote, "cause", cause.Cause)
	e.opts.Events.Closed(c.Info(), cause)
}

// refusedConn counts and tells that a connection was not made.
func (e *Endpoint) refusedConn(address string, err *CloseError) {
	e.counters.refuse(err)
	e.logger.Debug("connection refused", "address", address, "peer", err.Peer.Short(), "protocol", err.Protocol, "reason", string(err.Reason), "remote", err.Remote, "cause", err.Cause)
	e.opts.Events.Refused(address, err)
}

// groupRefused counts and tells that a connection is without a group.
func (e *Endpoint) groupRefused(c *Conn, r groupRefusal, remote bool) {
	err := &CloseError{Peer: c.peer, Protocol: c.protocol.Name, Reason: r.reason, Remote: remote}
	e.counters.refuse(err)
	e.logger.Debug("group refused", "group", r.group.Short(), "peer", c.peer.Short(), "reason", string(r.reason), "remote", remote)
	e.opts.Events.GroupRefused(c.Info(), r.group, err)
}
