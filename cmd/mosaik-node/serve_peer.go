package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/mosaik-engine/mosaik"
	"github.com/mosaik-engine/mosaik/cmd/mosaik-node/internal/api"
	"github.com/mosaik-engine/mosaik/cmd/mosaik-node/internal/conf"
	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/network"
	"github.com/mosaik-engine/mosaik/network/catalog"
	"github.com/mosaik-engine/mosaik/network/remote"
)

// The part of the settings that makes a node one of a network. A node without
// "network" is alone.

// memberAddress is one of the members, and where it listens if that is known.
type memberAddress struct {
	peer    identity.PeerID
	address string
}

// parseMembers reads PEER or PEER@HOST:PORT, one for each member.
func parseMembers(list []string) ([]memberAddress, error) {
	var members []memberAddress
	for i, text := range list {
		id, address, named := strings.Cut(text, "@")
		peer, err := identity.ParsePeerID(id)
		if err != nil {
			return nil, fmt.Errorf("number %d: %q is not PEER@HOST:PORT, with the 64 hex digits that init prints: %w", i+1, text, err)
		}
		if named {
			if _, _, err := net.SplitHostPort(address); err != nil {
				return nil, fmt.Errorf("number %d: %q is not HOST:PORT", i+1, address)
			}
		}
		if slices.ContainsFunc(members, func(m memberAddress) bool { return m.peer == peer }) {
			return nil, fmt.Errorf("number %d: %s is listed twice", i+1, peer.Short())
		}
		members = append(members, memberAddress{peer, address})
	}
	return members, nil
}

// checkPeer says what is wrong with the settings of a network.
func (s *settings) checkPeer(bad func(name string, err error) error) error {
	if s.network == "" {
		switch {
		case len(s.members) > 0:
			return bad("members", errors.New("they are those of a network; it has to be named with network"))
		case s.discover || len(s.bootstrap) > 0 || s.bootstrapDNS != "" || len(s.advertise) > 0:
			return bad("discover", errors.New("there are peers to find in a network; it has to be named with network"))
		case s.secretFile != "":
			return bad("secret-file", errors.New("it is shared by the members of a network; it has to be named with network"))
		case len(s.ticketKeys) > 0:
			return bad("ticket-key", errors.New("the members of a network ask for tickets; it has to be named with network"))
		case s.tdxPolicy != "" || s.simulateTDX:
			return bad("tdx-policy", errors.New("the members of a network ask for quotes; it has to be named with network"))
		case s.guests != guestsNone:
			return bad("guests", errors.New("they are peers of a network; it has to be named with network"))
		case s.ticketFile != "":
			return bad("ticket-file", errors.New("tickets are shown to the members of a network; it has to be named with network"))
		}
		return nil
	}
	if err := identity.ValidateName(s.network); err != nil {
		return bad("network", err)
	}
	if _, _, err := net.SplitHostPort(s.peerListen); err != nil {
		return bad("peer-listen", fmt.Errorf("%q is not HOST:PORT", s.peerListen))
	}
	if _, err := parseMembers(s.members); err != nil {
		return bad("members", err)
	}
	if !slices.Contains([]string{guestsNone, guestsRead, guestsWrite}, s.guests) {
		return bad("guests", fmt.Errorf("%q is none of none, read and write", s.guests))
	}
	if !s.discover && (len(s.bootstrap) > 0 || s.bootstrapDNS != "") {
		return bad("bootstrap", errors.New("it is where finding peers begins; that needs discover"))
	}
	if seeds, err := parseMembers(s.bootstrap); err != nil {
		return bad("bootstrap", err)
	} else if i := slices.IndexFunc(seeds, func(m memberAddress) bool { return m.address == "" }); i >= 0 {
		return bad("bootstrap", fmt.Errorf("number %d has no address: PEER@HOST:PORT is wanted", i+1))
	}
	for _, a := range s.advertise {
		if err := identity.CheckAddress(a); err != nil {
			return bad("advertise", err)
		}
	}
	if err := s.checkTDX(bad); err != nil {
		return err
	}
	return s.checkTickets(bad)
}

// keyPath returns where the node's key is.
func (s *settings) keyPath() string {
	if s.key != "" {
		return s.key
	}
	return filepath.Join(s.dir, keyFile)
}

// keyFile is the name of the key in a node's directory.
const keyFile = "node.key"

// peerOptions returns what a node of a network is opened with.
func (s *settings) peerOptions(logger *slog.Logger) (*mosaik.PeerOptions, error) {
	key, err := identity.LoadKey(s.keyPath())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: key: there is no file %s; a key is made by: mosaik-node init --dir %s", conf.ErrConfig, s.keyPath(), s.dir)
	}
	if err != nil {
		return nil, err
	}
	members, err := parseMembers(s.members)
	if err != nil {
		return nil, err
	}
	o := &mosaik.PeerOptions{Store: *s.options(logger), Key: key, Network: s.network, Listen: s.peerListen}
	at := make(map[identity.PeerID][]string)
	for _, m := range members {
		o.Store.Members = append(o.Store.Members, m.peer)
		if m.address != "" {
			at[m.peer] = []string{m.address}
		}
	}
	o.Addresses = func(p identity.PeerID) []string { return at[p] }
	if s.secretFile != "" {
		if o.Store.Secret, err = readSecret(s.secretFile); err != nil {
			return nil, err
		}
	}
	o.Advertise = s.advertise
	if s.discover {
		if o.Discovery, err = s.discovery(logger, key.PeerID(), members); err != nil {
			return nil, err
		}
	}
	if o.Clauses, err = s.ticketClauses(); err != nil {
		return nil, err
	}
	o.Remote = s.guestPolicy(o.Clauses)
	if s.ticketFile != "" {
		if o.Tickets, err = readTickets(s.ticketFile); err != nil {
			return nil, err
		}
	}
	return o, nil
}

// What guests may do.
const (
	guestsNone  = "none"
	guestsRead  = "read"
	guestsWrite = "write"
)

// guestPolicy returns what peers that are no members may do.
func (s *settings) guestPolicy(clauses []identity.Clause) *remote.Policy {
	if s.guests == guestsNone {
		return nil
	}
	rule := &remote.Rule{Clause: identity.All(clauses...)}
	p := &remote.Policy{Consume: rule, MaxLag: s.guestMaxLag}
	if s.guests == guestsWrite {
		p.Produce = rule
	}
	return p
}

// discovery returns how the node finds others: it begins with the members, with the
// peers of bootstrap and with those a name server has.
func (s *settings) discovery(logger *slog.Logger, self identity.PeerID, members []memberAddress) (*catalog.Options, error) {
	others, err := parseMembers(s.bootstrap)
	if err != nil {
		return nil, err
	}
	var seeds []catalog.Seed
	for _, m := range slices.Concat(members, others) {
		if m.address != "" && m.peer != self {
			seeds = append(seeds, catalog.Seed{Peer: m.peer, Addresses: []string{m.address}})
		}
	}
	begin := catalog.Static(seeds...)
	if s.bootstrapDNS != "" {
		begin = catalog.Together(begin, catalog.DNS(net.DefaultResolver, s.bootstrapDNS, func(err error) {
			logger.Warn("no seeds from the name server", "err", err)
		}))
	}
	return &catalog.Options{Bootstrap: begin, Logger: logger}, nil
}

// minSecret is how long a secret is at least, in bytes.
const minSecret = 32

// readSecret derives the members' secret from a file, whose content is the same on
// all of them.
func readSecret(path string) (identity.ID, error) {
	info, err := os.Stat(path)
	if err != nil {
		return identity.ID{}, fmt.Errorf("%w: secret-file: %w", conf.ErrConfig, err)
	}
	if perm := info.Mode().Perm(); perm&0o077 != 0 {
		return identity.ID{}, fmt.Errorf("%w: secret-file: %s has mode %04o, so others than its owner can read it; set it to 0600", conf.ErrConfig, path, perm)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return identity.ID{}, fmt.Errorf("%w: secret-file: %w", conf.ErrConfig, err)
	}
	content = []byte(strings.TrimRight(string(content), "\r\n"))
	if len(content) < minSecret {
		return identity.ID{}, fmt.Errorf("%w: secret-file: %s has %d bytes, %d or more are wanted", conf.ErrConfig, path, len(content), minSecret)
	}
	return identity.FromParts([]byte("mosaik.secret.v1"), content), nil
}

// opened is the store that serve runs on: alone, or as one of a network.
type opened struct {
	*mosaik.Node
	peer        *mosaik.Peer // nil: alone
	tickets     *ticketWatch // nil: there is no file of tickets
	attestation *attestation // nil: no quotes are asked for
}

// open opens the store.
func (s *settings) open(logger *slog.Logger) (*opened, error) {
	if s.network == "" {
		n, err := mosaik.Open(s.dir, s.options(logger))
		if err != nil {
			return nil, err
		}
		return &opened{Node: n}, nil
	}
	o, err := s.peerOptions(logger)
	if err != nil {
		return nil, err
	}
	// What is shown are the tickets of the file and the one of the quote.
	shown := &wallet{file: o.Tickets}
	att, err := s.attest(logger, o, shown)
	if err != nil {
		return nil, err
	}
	o.Tickets = shown.tickets()
	p, err := mosaik.OpenPeer(s.dir, o)
	if err != nil {
		return nil, errors.Join(err, att.close())
	}
	if err := shown.open(p); err != nil {
		return nil, errors.Join(err, att.close(), p.Close())
	}
	logger.Info("one of a network", "network", s.network, "peer", p.Peer().String(), "listen", p.Endpoint.Addr().String(), "members", members(p.Node))
	node := &opened{Node: p.Node, peer: p, attestation: att}
	if s.ticketFile != "" {
		node.tickets = watchTickets(shown, s.ticketFile, logger)
	}
	return node, nil
}

// Close closes the store, and leaves the network.
func (o *opened) Close() error {
	if o.peer != nil {
		o.tickets.stop()
		return errors.Join(o.attestation.close(), o.peer.Close())
	}
	return o.Node.Close()
}

// endpoint returns the node's place in its network; nil: it is alone.
func (o *opened) endpoint() *network.Endpoint {
	if o.peer == nil {
		return nil
	}
	return o.peer.Endpoint
}

// network returns what describes the node's network to clients; nil: it is alone.
func (o *opened) network(name string) func() api.Network {
	if o.peer == nil {
		return nil
	}
	return func() api.Network { return api.NetworkOf(name, o.peer.Endpoint) }
}

// peers returns what describes the peers that the node knows of; nil: it is alone.
func (o *opened) peers() func() []api.Peer {
	if o.peer == nil {
		return nil
	}
	return func() []api.Peer {
		entries := append(o.peer.Endpoint.Entries(), o.peer.Endpoint.Entry())
		if o.peer.Catalog != nil {
			entries = o.peer.Catalog.Peers()
		}
		return api.PeersOf(o.peer.Endpoint, entries)
	}
}

// ping returns what measures the way to a peer; nil: the node keeps no catalog.
func (o *opened) ping() func(context.Context, identity.PeerID) (time.Duration, error) {
	if o.peer == nil || o.peer.Catalog == nil {
		return nil
	}
	return o.peer.Catalog.Ping
}

// settle waits until the node may be read from: it shows all that it has acknowledged,
// as far as its own Raft log tells (settle). One of a network need not wait for the
// others: what they have acknowledged without it comes with them.
func (o *opened) settle(ctx context.Context) error { return settle(ctx, o.Node) }
