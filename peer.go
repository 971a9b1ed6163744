package mosaik

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mosaik-engine/mosaik/engine"
	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/network"
	"github.com/mosaik-engine/mosaik/network/catalog"
	"github.com/mosaik-engine/mosaik/snapshot"
)

// PeerOptions say how to open a Peer. Key and Network are required.
type PeerOptions struct {
	// Store is how to open the node's store. Members are the founders of its groups, in
	// the one order all of them agree on; they may be left out for a store that exists.
	// Peer, Transport, Peers, Rejoin, LastSeen and Events.MembersChanged are filled in.
	Store Options
	// Key is the node's identity: its PeerID is its name among the members.
	Key identity.Key
	// Network is the name of the network. Nodes of another one are refused.
	Network string
	// Listen is the TCP address to listen at (network.Options.Listen).
	Listen string
	// Addresses returns where a member may be (network.Options.Addresses). With Discovery
	// it need not know all of them.
	Addresses func(identity.PeerID) []string
	// Advertise is where others can reach this node, each host:port, the best first. It
	// stands in the node's entry. Default: the address it listens at, if that is a single
	// one.
	Advertise []string
	// Discovery has the node keep a catalog of the network's peers, and be in that of the
	// others. Without a Bootstrap of its own it begins with the members whose Addresses are
	// known. Nil: the node knows of nobody but the members.
	Discovery *catalog.Options
	// Clauses are what the entry of a member has to fulfil, each of them, to take part in
	// the groups: as a rule, that it holds a ticket which a validator accepts
	// (identity.Require). They are part of the groups' ids, so all members must ask for the
	// same. A connection ends when what was fulfilled no longer is, at the end of a ticket
	// as well as when a member shows another entry.
	Clauses []identity.Clause
	// Tickets are what this node's own entry holds at first (SetTickets).
	Tickets []identity.Ticket
	// Authorize decides about connections (network.Options.Authorize). Nil lets in
	// members whose entries fulfil the Clauses, and nobody else. Who is a member can change
	// (Engine.Admit).
	Authorize network.Authorizer
	// Rejoin is for a member that has lost its disk: a directory without a store is
	// filled from the other members, instead of founding the groups with them
	// (engine.Options.Rejoin). A node that is no founder always does this: a member has to
	// have let it in (Engine.Admit), or their policy has to be open.
	Rejoin bool
	// Limits bound what others can make this node do.
	Limits network.Limits
	// Events are called on what happens to connections.
	Events network.Events
}

// Peer is a node of a network: a Node whose groups' other members are other
// processes, on other machines or not.
type Peer struct {
	*Node
	// Endpoint is the node's place in its network.
	Endpoint *network.Endpoint
	// Catalog is what it knows of its network; nil without PeerOptions.Discovery.
	Catalog *catalog.Catalog
	shards  *network.Shards
	stop    func()

	roster     *roster
	groups     []*Group
	logger     *slog.Logger
	background context.Context // ends with the Peer
	cancel     context.CancelFunc
	running    sync.WaitGroup
}

// OpenPeer opens the store in dir and takes part in its groups over the network. The
// groups elect leaders after it returns: call Ready to wait for that.
func OpenPeer(dir string, o *PeerOptions) (_ *Peer, err error) {
	store := o.Store
	store.Peer = o.Key.PeerID()
	if store.Members == nil {
		if store.Members, err = engine.MembersOf(store.FS, dir); err != nil {
			return nil, fmt.Errorf("mosaik: neither the options nor a store name the members: %w", err)
		}
	}
	members := newRoster(store.Members, identity.All(o.Clauses...))
	authorize := o.Authorize
	if authorize == nil {
		authorize = members.authorize
	}
	for _, c := range o.Clauses {
		store.Validators = append(store.Validators, c.Signature())
	}
	p := &Peer{stop: func() {}, roster: members, logger: cmp.Or(store.Logger, slog.New(slog.DiscardHandler))}
	p.background, p.cancel = context.WithCancel(context.Background())
	// The endpoint asks before there is a catalog, and goes on when there is none any more.
	var found atomic.Pointer[catalog.Catalog]
	addresses := func(id identity.PeerID) (all []string) {
		if o.Addresses != nil {
			all = o.Addresses(id)
		}
		if c := found.Load(); c != nil {
			all = append(slices.Clone(all), c.Addresses(id)...)
		}
		return append(slices.Clone(all), members.addresses(id)...)
	}
	events := o.Events
	events.Entry = func(s *identity.SignedEntry) {
		if c := found.Load(); c != nil {
			c.Hear(s)
		}
		members.learn(s, false)
		members.announce() // its verdict may be renewed
		if o.Events.Entry != nil {
			o.Events.Entry(s)
		}
	}
	p.Endpoint, err = network.Open(network.Options{
		Key: o.Key, Network: identity.NewID(o.Network), Listen: o.Listen, Addresses: addresses,
		Authorize: authorize, Limits: o.Limits, Logger: store.Logger, Events: events,
	})
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Close())
		}
	}()
	err = p.Endpoint.ChangeEntry(func(e *identity.PeerEntry) {
		e.Tickets, e.Addresses = o.Tickets, o.Advertise
		if a, ok := p.Endpoint.Addr().(*net.TCPAddr); ok && e.Addresses == nil && !a.IP.IsUnspecified() {
			e.Addresses = []string{a.String()}
		}
	})
	if err != nil {
		return nil, err
	}
	if o.Discovery != nil {
		discovery := *o.Discovery
		if discovery.Bootstrap == nil {
			discovery.Bootstrap = membersAt(store.Members, o.Addresses)
		}
		if discovery.Logger == nil {
			discovery.Logger = store.Logger
		}
		if p.Catalog, err = catalog.Open(p.Endpoint, discovery); err != nil {
			return nil, err
		}
		found.Store(p.Catalog)
	}
	// Others may ask before the store is open.
	var open atomic.Pointer[Node]
	node := func() (*Node, error) {
		if n := open.Load(); n != nil {
			return n, nil
		}
		return nil, fmt.Errorf("%w: the store is not open yet", log.ErrNotFound)
	}
	p.shards, err = network.OpenShards(p.Endpoint, func(ctx context.Context, r snapshot.Request) ([]byte, error) {
		n, err := node()
		if err != nil {
			return nil, err
		}
		return n.ServeShard(ctx, r)
	})
	if err != nil {
		return nil, err
	}
	p.stop, err = network.HandleReadmit(p.Endpoint, func(ctx context.Context, q network.ReadmitRequest) (*network.Readmitted, error) {
		n, err := node()
		if err != nil {
			return nil, err
		}
		return members.readmit(ctx, n, q)
	})
	if err != nil {
		return nil, err
	}
	// Of a new store, so that it can rejoin; that of one that exists may know better.
	members.know(store.FoundingGroups())
	if err := p.carry(); err != nil {
		return nil, err
	}
	store.Transport, store.Peers = network.Raft(p.Endpoint), p.shards
	if o.Rejoin || !slices.Contains(store.Members, store.Peer) {
		store.Rejoin = members.rejoin(p.Endpoint)
	}
	store.LastSeen = func(peer identity.PeerID) time.Time { return members.lastSeen(p.Endpoint, peer) }
	store.Events.MembersChanged = func(group string, m log.Membership) {
		members.set(group, m)
		if told := o.Store.Events.MembersChanged; told != nil {
			told(group, m)
		}
	}
	if p.Node, err = engine.Open(dir, &store); err != nil {
		return nil, err
	}
	open.Store(p.Node)
	p.groups = p.Groups()
	var keys []engine.GroupKey
	for _, g := range p.groups {
		keys = append(keys, engine.GroupKey{Name: g.Name(), ID: g.ID(), Key: g.BondKey()})
		members.begin(g.Name(), g.KnownMembers())
	}
	members.know(keys)
	if err := p.carry(); err != nil {
		return nil, err
	}
	p.running.Add(1)
	go p.runMembers(p.running.Done)
	return p, p.change(func(e *identity.PeerEntry) {
		e.Groups = nil
		for _, g := range keys[:min(len(keys), identity.MaxEntryIDs)] { // more do not fit
			e.Groups = append(e.Groups, g.ID)
		}
	})
}

// membersAt returns a bootstrap of the members whose addresses are known.
func membersAt(members []identity.PeerID, addresses func(identity.PeerID) []string) func(context.Context) []catalog.Seed {
	return func(context.Context) (seeds []catalog.Seed) {
		if addresses == nil {
			return nil
		}
		for _, m := range members {
			if at := addresses(m); len(at) > 0 {
				seeds = append(seeds, catalog.Seed{Peer: m, Addresses: at})
			}
		}
		return seeds
	}
}

// SetTickets replaces the tickets of this node's entry, which every connection is shown
// at once. Whoever lets them run out is cut off by those who ask for them, and let in
// again when it has fresh ones. The error wraps identity.ErrEntry, and nothing has
// changed then.
func (p *Peer) SetTickets(tickets []identity.Ticket) error {
	return p.change(func(e *identity.PeerEntry) { e.Tickets = tickets })
}

// change changes this node's entry.
func (p *Peer) change(change func(*identity.PeerEntry)) error {
	if p.Catalog != nil {
		return p.Catalog.Change(change)
	}
	return p.Endpoint.ChangeEntry(change)
}

// Close closes the store and leaves the network.
func (p *Peer) Close() (err error) {
	if p.Node != nil {
		err = p.Node.Close()
	}
	p.cancel()
	p.running.Wait()
	p.stop()
	if p.shards != nil {
		err = errors.Join(err, p.shards.Close())
	}
	if p.Catalog != nil {
		err = errors.Join(err, p.Catalog.Close())
	}
	return errors.Join(err, p.Endpoint.Close())
}
