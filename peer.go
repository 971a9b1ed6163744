package mosaik

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mosaik-engine/mosaik/engine"
	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/network"
	"github.com/mosaik-engine/mosaik/network/catalog"
	"github.com/mosaik-engine/mosaik/network/remote"
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
	// Remote says what peers that are no members may do with the groups of this node, under
	// the default Authorize. Nil: nothing.
	Remote *remote.Policy
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
	// Guest is its place in its network, and in groups that it is no member of.
	*Guest
	shards *network.Shards
	stop   func()

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
	for _, c := range o.Clauses {
		store.Validators = append(store.Validators, c.Signature())
	}
	members := newRoster(store.Members, identity.All(o.Clauses...), o.Remote)
	p := &Peer{stop: func() {}, roster: members, logger: cmp.Or(store.Logger, slog.New(slog.DiscardHandler))}
	p.background, p.cancel = context.WithCancel(context.Background())
	// Others may ask before the store is open.
	var open atomic.Pointer[Node]
	node := func() (*Node, error) {
		if n := open.Load(); n != nil {
			return n, nil
		}
		return nil, fmt.Errorf("%w: the store is not open yet", log.ErrNotFound)
	}
	p.Guest, err = joinNetwork(o.guest(&store, members), remote.Options{Policy: o.Remote, Groups: func(id identity.ID) remote.Source {
		if n := open.Load(); n != nil {
			for _, g := range n.Groups() {
				if g.ID() == id {
					return g
				}
			}
		}
		return nil
	}})
	if err != nil {
		p.cancel()
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Close())
		}
	}()
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

// guest returns how a peer takes part in its network.
func (o *PeerOptions) guest(store *Options, members *roster) *GuestOptions {
	g := &GuestOptions{
		Key: o.Key, Network: o.Network, Listen: o.Listen, Advertise: o.Advertise, Tickets: o.Tickets,
		Authorize: o.Authorize, Limits: o.Limits, Events: o.Events, Logger: store.Logger,
	}
	if g.Authorize == nil {
		g.Authorize = members.authorize
	}
	g.Addresses = func(id identity.PeerID) (all []string) {
		if o.Addresses != nil {
			all = o.Addresses(id)
		}
		return append(slices.Clone(all), members.addresses(id)...)
	}
	g.Events.Entry = func(s *identity.SignedEntry) {
		members.learn(s, false)
		members.announce() // its verdict may be renewed
		if o.Events.Entry != nil {
			o.Events.Entry(s)
		}
	}
	if o.Discovery != nil {
		discovery := *o.Discovery
		if discovery.Bootstrap == nil {
			discovery.Bootstrap = membersAt(store.Members, o.Addresses)
		}
		g.Discovery = &discovery
	}
	return g
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

// Close closes the store and leaves the network.
func (p *Peer) Close() (err error) {
	if err = p.Remotes.Close(); p.Node != nil {
		err = errors.Join(err, p.Node.Close())
	}
	p.cancel()
	p.running.Wait()
	p.stop()
	if p.shards != nil {
		err = errors.Join(err, p.shards.Close())
	}
	return errors.Join(err, p.Guest.Close())
}
