package catalog

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/network"
)

// Protocol is the ALPN name of links.
const Protocol = "mosaik/catalog/1"

// Departed is the tag in the last entry of a peer that leaves.
func Departed() identity.ID { return identity.NewID("mosaik.departed") }

// Options say how a catalog is kept. The zero value of every field means its default.
type Options struct {
	// Bootstrap returns peers to begin with, and where they are. They are asked for again
	// and again, so that a network that was cut in two finds together. It may take its time,
	// to ask a name server for instance, and ends with ctx. Nil: the node waits for others.
	Bootstrap func(ctx context.Context) []Seed
	// Links is how many links the node makes (default 6), MaxLinks how many it has with
	// those that others make; the oldest of these gives way to a newer one (default 64).
	Links, MaxLinks int
	// MaxPeers and MaxBytes bound the catalog: peers (default 16,384), and bytes of their
	// entries (default 64 MiB).
	MaxPeers, MaxBytes int
	// Round is how often the catalog is compared with another (default 1 s), Redraw how
	// often a link is given up for another (default 1 min).
	Round, Redraw time.Duration
	// Refresh is how often this node signs its entry anew (default 5 min), Silence after
	// which time without that a peer is forgotten (default 15 min, at least two of Refresh).
	// All nodes should have the same.
	Refresh, Silence time.Duration
	// Logger receives what an operator should know. Default: nothing is logged.
	Logger *slog.Logger
}

// Seed is a peer to begin with.
type Seed struct {
	Peer      identity.PeerID
	Addresses []string // each host:port
}

func (o Options) withDefaults() (Options, error) {
	o.Links, o.MaxLinks = cmp.Or(o.Links, 6), cmp.Or(o.MaxLinks, 64)
	o.MaxPeers, o.MaxBytes = cmp.Or(o.MaxPeers, 16384), cmp.Or(o.MaxBytes, 64<<20)
	o.Round, o.Redraw = cmp.Or(o.Round, time.Second), cmp.Or(o.Redraw, time.Minute)
	o.Refresh, o.Silence = cmp.Or(o.Refresh, 5*time.Minute), cmp.Or(o.Silence, 15*time.Minute)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Bootstrap == nil {
		o.Bootstrap = func(context.Context) []Seed { return nil }
	}
	switch {
	case o.Links < 0 || o.MaxLinks < o.Links || o.MaxPeers < 0 || o.MaxBytes < 0:
		return o, fmt.Errorf("mosaik: catalog: Links %d, MaxLinks %d, MaxPeers %d, MaxBytes %d: none may be negative, nor MaxLinks below Links", o.Links, o.MaxLinks, o.MaxPeers, o.MaxBytes)
	case o.Round < 0 || o.Redraw < 0 || o.Refresh < 0 || o.Silence < 2*o.Refresh:
		return o, fmt.Errorf("mosaik: catalog: Round %v, Redraw %v, Refresh %v, Silence %v: none may be negative, and Silence is at least twice Refresh", o.Round, o.Redraw, o.Refresh, o.Silence)
	}
	return o, nil
}

// EventKind says what happened to a peer.
type EventKind int

// What happens to peers.
const (
	PeerDiscovered EventKind = iota + 1 // it was not known before
	PeerUpdated                         // it has another entry
	PeerDeparted                        // it has left, or was silent for too long
)

// String returns "discovered", "updated" or "departed".
func (k EventKind) String() string {
	switch k {
	case PeerDiscovered:
		return "discovered"
	case PeerUpdated:
		return "updated"
	case PeerDeparted:
		return "departed"
	}
	return fmt.Sprintf("EventKind(%d)", int(k))
}

// Event is something that happened to a peer.
type Event struct {
	Kind EventKind
	// Entry is the peer's newest, of one that departed its last.
	Entry *identity.SignedEntry
	// Silent says of a peer that departed that it did so without a word.
	Silent bool
}

// Catalog knows the peers of a network. Its methods may be called from any goroutine.
type Catalog struct {
	e    *network.Endpoint
	opts Options
	stop func() // of the protocol

	ctx     context.Context // ends with Close
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu struct {
		sync.Mutex
		closed   bool
		gossip   *gossip
		links    map[int]*link
		lastLink int
		dialling map[identity.PeerID]bool
		seeds    map[identity.PeerID][]string
		watchers map[*watcher]struct{}
	}
}

// Open begins to keep a catalog on an endpoint and to spread its entry, which it must
// have (network.Endpoint.ChangeEntry).
func Open(e *network.Endpoint, o Options) (*Catalog, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	own := e.Entry()
	if own == nil {
		return nil, fmt.Errorf("%w: the endpoint has none to spread", identity.ErrEntry)
	}
	c := &Catalog{e: e, opts: o}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.mu.gossip = newGossip(e.Peer(), limits{network: own.Entry.Network, peers: o.MaxPeers, bytes: o.MaxBytes, silence: o.Silence})
	c.mu.gossip.hear(time.Now(), noLink, own)
	c.mu.gossip.take() // nobody is there yet to be told
	c.mu.links = make(map[int]*link)
	c.mu.dialling = make(map[identity.PeerID]bool)
	c.mu.seeds = make(map[identity.PeerID][]string)
	c.mu.watchers = make(map[*watcher]struct{})
	c.stop, err = e.Handle(network.Protocol{Name: Protocol, MaxMessage: maxMessage, Serve: c.serve})
	if err != nil {
		return nil, err
	}
	c.running.Add(1)
	go c.runRounds()
	return c, nil
}

// noLink is where an entry comes from that did not come over a link.
const noLink = -1

// Close tells the others that this node leaves, and ends its links.
func (c *Catalog) Close() error {
	c.mu.Lock()
	closed := c.mu.closed
	c.mu.Unlock()
	var err error
	if !closed {
		err = c.Change(func(e *identity.PeerEntry) {
			e.Addresses, e.Tickets, e.Streams, e.Groups, e.Tags = nil, nil, nil, nil, []identity.ID{Departed()}
		})
	}
	c.mu.Lock()
	c.mu.closed = true
	links := c.linksLocked()
	for w := range c.mu.watchers {
		w.end()
	}
	clear(c.mu.watchers)
	c.mu.Unlock()
	for _, l := range links {
		if err == nil && !closed {
			l.send(&message{kind: kindEntries, entries: [][]byte{c.e.Entry().Bytes()}})
		}
		l.drain() // what is sent is written when Close returns
	}
	c.cancel()
	c.stop()
	for _, l := range links {
		l.conn.CloseFor(network.GoingAway, nil)
	}
	c.running.Wait()
	return err
}

// Entry returns a peer's newest entry; nil: it is not known, or gone.
func (c *Catalog) Entry(p identity.PeerID) *identity.SignedEntry {
	c.mu.Lock()
	defer c.mu.Unlock()
	if k := c.mu.gossip.peers[p]; k != nil {
		return k.entry
	}
	return nil
}

// Peers returns the newest entries of all peers that are there, this node's among
// them, by peer.
func (c *Catalog) Peers() []*identity.SignedEntry {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []*identity.SignedEntry
	for _, k := range c.mu.gossip.peers {
		if k.entry != nil {
			all = append(all, k.entry)
		}
	}
	slices.SortFunc(all, func(a, b *identity.SignedEntry) int { return a.Entry.Peer.Compare(b.Entry.Peer) })
	return all
}

// Addresses returns where a peer says it is, and where a seed was said to be. It is for
// network.Options.Addresses.
func (c *Catalog) Addresses(p identity.PeerID) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []string
	if k := c.mu.gossip.peers[p]; k.present() {
		all = append(all, k.entry.Entry.Addresses...)
	}
	for _, a := range c.mu.seeds[p] {
		if !slices.Contains(all, a) {
			all = append(all, a)
		}
	}
	return all
}

// Change changes this node's entry (network.Endpoint.ChangeEntry) and spreads it.
func (c *Catalog) Change(change func(*identity.PeerEntry)) error {
	if err := c.e.ChangeEntry(change); err != nil {
		return err
	}
	c.Hear(c.e.Entry()) // or a newer one, if another Change has come between
	return nil
}

// Hear takes an entry that came another way than over a link, such as with a bond
// (network.Events.Entry).
func (c *Catalog) Hear(s *identity.SignedEntry) {
	c.do(func(g *gossip) { g.hear(time.Now(), noLink, s) })
}

// do changes what the catalog knows and passes on what comes of it.
func (c *Catalog) do(change func(*gossip)) {
	c.mu.Lock()
	if c.mu.closed {
		c.mu.Unlock()
		return
	}
	change(c.mu.gossip)
	events := c.passOn()
	c.mu.Unlock()
	c.tellEndpoint(events)
}

// passOn hands messages to the links and events to the watchers. REQUIRES: mu.
func (c *Catalog) passOn() []Event {
	out, events := c.mu.gossip.take()
	for _, o := range out {
		if l := c.mu.links[o.link]; l != nil {
			l.send(o.message)
		}
	}
	for w := range c.mu.watchers {
		w.add(events)
	}
	return events
}

// tellEndpoint tells the endpoint of entries, since what it has allowed may depend on
// them.
func (c *Catalog) tellEndpoint(events []Event) {
	for _, ev := range events {
		if ev.Kind != PeerDeparted && ev.Entry.Entry.Peer != c.e.Peer() {
			c.e.Learn(ev.Entry)
		}
	}
}

// runRounds keeps the catalog.
func (c *Catalog) runRounds() {
	defer c.running.Done()
	ticker := time.NewTicker(c.opts.Round)
	defer ticker.Stop()
	now := time.Now()
	refreshed, redrawn := now, now
	asked := time.Time{} // for seeds
	for {
		seeded := c.draw(now.Sub(redrawn) >= c.opts.Redraw)
		if now.Sub(redrawn) >= c.opts.Redraw {
			redrawn = now
		}
		if !seeded && now.Sub(asked) >= 2*c.opts.Round || now.Sub(asked) >= c.opts.Redraw {
			asked = now
			c.bootstrap()
		}
		if now.Sub(refreshed) >= c.opts.Refresh {
			refreshed = now
			if err := c.Change(func(*identity.PeerEntry) {}); err != nil {
				c.opts.Logger.Error("the node's entry cannot be made anew", "err", err)
			}
		}
		c.round(now)
		select {
		case <-ticker.C:
		case <-c.ctx.Done():
			return
		}
		now = time.Now()
	}
}

// round compares with one link, drawn at random, and forgets who is gone.
func (c *Catalog) round(now time.Time) {
	var stalled []*link
	c.do(func(g *gossip) {
		g.expire(now)
		for _, id := range g.stalled(now) {
			if l := c.mu.links[id]; l != nil {
				stalled = append(stalled, l)
			}
		}
		if ids := c.linkIDs(); len(ids) > 0 {
			g.compare(ids[rand.IntN(len(ids))])
		}
	})
	for _, l := range stalled {
		l.conn.CloseFor(network.TooSlow, errors.New("no answer"))
	}
}

// linkIDs returns the links in order. REQUIRES: mu.
func (c *Catalog) linkIDs() []int {
	ids := make([]int, 0, len(c.mu.links))
	for id := range c.mu.links {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// linksLocked returns the links in order. REQUIRES: mu.
func (c *Catalog) linksLocked() []*link {
	var links []*link
	for _, id := range c.linkIDs() {
		links = append(links, c.mu.links[id])
	}
	return links
}

// bootstrap asks for seeds.
func (c *Catalog) bootstrap() {
	seeds := c.opts.Bootstrap(c.ctx)
	c.mu.Lock()
	clear(c.mu.seeds)
	for _, s := range seeds {
		if s.Peer != c.e.Peer() && len(c.mu.seeds) < c.opts.MaxPeers {
			c.mu.seeds[s.Peer] = slices.Clone(s.Addresses)
		}
	}
	c.mu.Unlock()
	if len(seeds) > 0 {
		c.dialOne(true)
	}
}

// draw makes links until there are enough, and gives one up before if redraw. It
// reports whether there is any link.
func (c *Catalog) draw(redraw bool) (linked bool) {
	c.mu.Lock()
	var dialled []*link
	for _, l := range c.mu.links {
		if l.dialled {
			dialled = append(dialled, l)
		}
	}
	linked = len(c.mu.links) > 0
	missing := c.opts.Links - len(dialled) - len(c.mu.dialling)
	c.mu.Unlock()
	if redraw && missing <= 0 && len(dialled) > 0 && c.dialOne(false) {
		dialled[rand.IntN(len(dialled))].conn.CloseFor(network.Done, nil)
	}
	for range missing {
		if !c.dialOne(false) {
			break
		}
	}
	return linked
}

// dialOne begins to make a link with a peer drawn from the catalog, or from the seeds,
// with whom there is none. It reports whether there was such a peer.
func (c *Catalog) dialOne(seed bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.closed {
		return false
	}
	taken := map[identity.PeerID]bool{c.e.Peer(): true}
	for _, l := range c.mu.links {
		taken[l.conn.Remote()] = true
	}
	var free []identity.PeerID
	consider := func(p identity.PeerID) {
		if !taken[p] && !c.mu.dialling[p] {
			free = append(free, p)
		}
	}
	if seed {
		for p := range c.mu.seeds {
			consider(p)
		}
	} else {
		for p, k := range c.mu.gossip.peers {
			if k.present() && len(k.entry.Entry.Addresses) > 0 {
				consider(p)
			}
		}
	}
	if len(free) == 0 {
		return false
	}
	p := free[rand.IntN(len(free))]
	c.mu.dialling[p] = true
	c.running.Add(1)
	go c.runDial(p)
	return true
}

// dialTimeout bounds the making of a link.
const dialTimeout = 10 * time.Second

// runDial makes a link and serves it.
func (c *Catalog) runDial(p identity.PeerID) {
	defer c.running.Done()
	ctx, cancel := context.WithTimeout(c.ctx, dialTimeout)
	conn, err := c.e.Dial(ctx, p, Protocol)
	cancel()
	c.mu.Lock()
	delete(c.mu.dialling, p)
	c.mu.Unlock()
	if err != nil {
		c.opts.Logger.Debug("no link", "peer", p.Short(), "err", err)
		return
	}
	c.serve(conn)
	conn.Close()
}

// Ping measures how long a message to a peer and back takes, over a connection of its
// own.
func (c *Catalog) Ping(ctx context.Context, p identity.PeerID) (time.Duration, error) {
	conn, err := c.e.Dial(ctx, p, Protocol)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return 0, err
		}
	}
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	m := message{kind: kindPing}
	binary.LittleEndian.PutUint64(m.nonce[:], rand.Uint64())
	begun := time.Now()
	if err := conn.WriteMessage(m.appendTo(nil)); err != nil {
		return 0, err
	}
	for {
		b, err := conn.ReadMessage()
		if err != nil {
			return 0, err
		}
		if answer, err := decodeMessage(b); err == nil && answer.kind == kindPong && answer.nonce == m.nonce {
			return time.Since(begun), nil
		}
	}
}

// Stats are what a catalog counts.
type Stats struct {
	Peers   int    // that are there, this node among them
	Bytes   int    // of their entries
	Links   int    // now
	Refused uint64 // entries there was no room for
}

// Stats returns the counters.
func (c *Catalog) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	g := c.mu.gossip
	s := Stats{Bytes: g.bytes, Links: len(c.mu.links), Refused: g.refused}
	for _, k := range g.peers {
		if k.present() {
			s.Peers++
		}
	}
	return s
}
