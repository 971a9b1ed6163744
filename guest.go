package mosaik

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/network"
	"github.com/mosaik-engine/mosaik/network/catalog"
	"github.com/mosaik-engine/mosaik/network/remote"
)

// GuestOptions say how to take part in a network without a store. Key and Network are
// required.
type GuestOptions struct {
	// Key is the node's identity.
	Key identity.Key
	// Network is the name of the network. Nodes of another one are refused.
	Network string
	// Listen is the TCP address to listen at (network.Options.Listen).
	Listen string
	// Addresses returns where a peer may be (network.Options.Addresses). With Discovery it
	// need not know all of them.
	Addresses func(identity.PeerID) []string
	// Advertise is where others can reach this node, each host:port, the best first. It
	// stands in the node's entry. Default: the address it listens at, if that is a single
	// one.
	Advertise []string
	// Discovery has the node keep a catalog of the network's peers, and be in that of the
	// others; it then finds the replicas of a group by itself. Nil: it does not.
	Discovery *catalog.Options
	// Tickets are what this node's own entry holds at first (Guest.SetTickets).
	Tickets []identity.Ticket
	// Authorize decides about connections (network.Options.Authorize). Nil: others may
	// take part in the catalog with this node, and nothing else.
	Authorize network.Authorizer
	// Limits bound what others can make this node do.
	Limits network.Limits
	// Events are called on what happens to connections.
	Events network.Events
	// Logger receives what an operator should know. Default: nothing is logged.
	Logger *slog.Logger
}

// Guest is a node of a network that uses groups it is no member of. Every Peer is one,
// too.
type Guest struct {
	// Endpoint is the node's place in its network.
	Endpoint *network.Endpoint
	// Catalog is what it knows of its network; nil without Discovery.
	Catalog *catalog.Catalog
	// Remotes are its channels with nodes that have groups it has not, and of those with
	// it.
	Remotes *remote.Service
}

// OpenGuest takes part in a network without a store.
func OpenGuest(o *GuestOptions) (*Guest, error) {
	c := *o
	if c.Authorize == nil {
		c.Authorize = guestsOnly(nil)
	}
	return joinNetwork(&c, remote.Options{})
}

// guestsOnly lets everybody take part in the catalog, if there is one, and use groups
// from outside as the policy says.
func guestsOnly(policy *remote.Policy) network.Authorizer {
	return func(ctx context.Context, r network.Request) (time.Time, error) {
		switch r.Protocol {
		case catalog.Protocol:
			return time.Time{}, nil
		case remote.Protocol:
			return policy.Authorize(ctx, r)
		}
		return time.Time{}, fmt.Errorf("%w: this node has no groups", network.NotAllowed)
	}
}

// joinNetwork opens what every node of a network has. o.Authorize is there.
func joinNetwork(o *GuestOptions, remotes remote.Options) (_ *Guest, err error) {
	// The endpoint asks before there is a catalog, and goes on when there is none any more.
	var found atomic.Pointer[catalog.Catalog]
	addresses := func(id identity.PeerID) (all []string) {
		if o.Addresses != nil {
			all = o.Addresses(id)
		}
		if c := found.Load(); c != nil {
			all = append(slices.Clone(all), c.Addresses(id)...)
		}
		return all
	}
	events := o.Events
	events.Entry = func(s *identity.SignedEntry) {
		if c := found.Load(); c != nil {
			c.Hear(s)
		}
		if o.Events.Entry != nil {
			o.Events.Entry(s)
		}
	}
	g := new(Guest)
	g.Endpoint, err = network.Open(network.Options{
		Key: o.Key, Network: identity.NewID(o.Network), Listen: o.Listen, Addresses: addresses,
		Authorize: o.Authorize, Limits: o.Limits, Logger: o.Logger, Events: events,
	})
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, g.Close())
		}
	}()
	err = g.Endpoint.ChangeEntry(func(e *identity.PeerEntry) {
		e.Tickets, e.Addresses = o.Tickets, o.Advertise
		if a, ok := g.Endpoint.Addr().(*net.TCPAddr); ok && e.Addresses == nil && !a.IP.IsUnspecified() {
			e.Addresses = []string{a.String()}
		}
	})
	if err != nil {
		return nil, err
	}
	if g.Remotes, err = remote.Open(g.Endpoint, remotes); err != nil {
		return nil, err
	}
	if o.Discovery == nil {
		return g, nil
	}
	discovery := *o.Discovery
	if discovery.Logger == nil {
		discovery.Logger = o.Logger
	}
	if g.Catalog, err = catalog.Open(g.Endpoint, discovery); err != nil {
		return nil, err
	}
	found.Store(g.Catalog)
	return g, nil
}

// Remote returns a handle on a group of other nodes: those given, and with a catalog all
// that say they have it. It asks nobody yet. Remotes.Group takes options.
func (g *Guest) Remote(group identity.ID, replicas ...identity.PeerID) (*remote.Group, error) {
	return g.Remotes.Group(group, remote.GroupOptions{Replicas: replicas, Find: g.Replicas(group)})
}

// Replicas returns what remote.GroupOptions.Find is for a group: it finds the peers that
// say they have it in the catalog, and nobody without one.
func (g *Guest) Replicas(group identity.ID) func() []identity.PeerID {
	return func() (replicas []identity.PeerID) {
		if g.Catalog == nil {
			return nil
		}
		for _, s := range g.Catalog.Peers() {
			if _, has := slices.BinarySearchFunc(s.Entry.Groups, group, identity.ID.Compare); has {
				replicas = append(replicas, s.Entry.Peer)
			}
		}
		return replicas
	}
}

// SetTickets replaces the tickets of this node's entry, which every connection is shown
// at once. Whoever lets them run out is cut off by those who ask for them, and let in
// again when it has fresh ones. The error wraps identity.ErrEntry, and nothing has
// changed then.
func (g *Guest) SetTickets(tickets []identity.Ticket) error {
	return g.change(func(e *identity.PeerEntry) { e.Tickets = tickets })
}

// change changes this node's entry.
func (g *Guest) change(change func(*identity.PeerEntry)) error {
	if g.Catalog != nil {
		return g.Catalog.Change(change)
	}
	return g.Endpoint.ChangeEntry(change)
}

// Close leaves the network.
func (g *Guest) Close() (err error) {
	if g.Remotes != nil {
		err = g.Remotes.Close()
	}
	if g.Catalog != nil {
		err = errors.Join(err, g.Catalog.Close())
	}
	return errors.Join(err, g.Endpoint.Close())
}
