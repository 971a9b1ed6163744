package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/network"
)

// Peer is what a node knows of a peer: what it says of itself, and how it is connected
// with this node. Of a peer that has shown no entry, only its connections are known.
type Peer struct {
	Peer      identity.PeerID `json:"peer"`
	Self      bool            `json:"self,omitempty"`     // it is the node itself
	Addresses []string        `json:"addresses"`          // where it says it is
	Tags      []identity.ID   `json:"tags"`               // what it says of itself
	Streams   []identity.ID   `json:"streams"`            // that it offers
	Groups    []identity.ID   `json:"groups"`             // that it takes part in
	Tickets   []Ticket        `json:"tickets"`            // that it holds
	Protocol  string          `json:"protocol,omitempty"` // version of what it speaks
	Started   time.Time       `json:"started,omitzero"`   // by its own clock
	Updated   time.Time       `json:"updated,omitzero"`   // its entry, likewise
	Conns     []Conn          `json:"conns"`              // with this node
}

// Ticket is a ticket in a peer's entry.
type Ticket struct {
	ID    identity.ID `json:"id"`    // by which it is told apart
	Class identity.ID `json:"class"` // says who can read it
	Bytes int         `json:"bytes"` // size of its data
}

// PeersOf describes the peers with the given entries, and those that an endpoint is
// connected with, by peer.
func PeersOf(e *network.Endpoint, entries []*identity.SignedEntry) []Peer {
	var peers []Peer
	places := make(map[identity.PeerID]int)
	at := func(id identity.PeerID) *Peer {
		i, known := places[id]
		if !known {
			i = len(peers)
			places[id] = i
			peers = append(peers, Peer{Peer: id, Self: id == e.Peer(), Addresses: []string{}, Tags: []identity.ID{}, Streams: []identity.ID{}, Groups: []identity.ID{}, Tickets: []Ticket{}, Conns: []Conn{}})
		}
		return &peers[i]
	}
	for _, s := range entries {
		p, entry := at(s.Entry.Peer), &s.Entry
		p.Addresses = append(p.Addresses, entry.Addresses...)
		p.Tags, p.Streams, p.Groups = append(p.Tags, entry.Tags...), append(p.Streams, entry.Streams...), append(p.Groups, entry.Groups...)
		for i := range entry.Tickets {
			t := &entry.Tickets[i]
			p.Tickets = append(p.Tickets, Ticket{t.ID(), t.Class, len(t.Data)})
		}
		p.Protocol = fmt.Sprintf("%d.%d.%d", entry.Protocol[0], entry.Protocol[1], entry.Protocol[2])
		p.Started, p.Updated = time.UnixMilli(int64(entry.Version.Started)).UTC(), time.UnixMilli(int64(entry.Version.Updated)).UTC()
	}
	for _, c := range connsOf(e) {
		p := at(c.Peer)
		p.Conns = append(p.Conns, c)
	}
	slices.SortFunc(peers, func(a, b Peer) int { return a.Peer.Compare(b.Peer) })
	return peers
}

// peerList is the answer about peers.
type peerList struct {
	Peers []Peer `json:"peers"`
}

// errAlone is what a node says about its network that has none.
var errAlone = fmt.Errorf("%w: this node is alone, it is of no network", log.ErrNotFound)

// servePeers describes the peers.
func (s *Server) servePeers(w http.ResponseWriter, r *http.Request) error {
	if err := newParams(r).done(); err != nil {
		return err
	}
	if s.opts.Peers == nil {
		return errAlone
	}
	return sendJSON(w, peerList{s.opts.Peers()})
}

// pingTimeout bounds a ping.
const pingTimeout = 10 * time.Second

// pingAnswer is how long it took.
type pingAnswer struct {
	Microseconds int64 `json:"microseconds"`
}

// servePing measures the way to a peer.
func (s *Server) servePing(w http.ResponseWriter, r *http.Request) error {
	if err := newParams(r).done(); err != nil {
		return err
	}
	peer, err := identity.ParsePeerID(r.PathValue("peer"))
	switch {
	case err != nil:
		return fmt.Errorf("%w: peer: %w", ErrRequest, err)
	case s.opts.Peers == nil:
		return errAlone
	case s.opts.Ping == nil:
		return fmt.Errorf("%w: this node keeps no catalog of its network", log.ErrNotFound)
	}
	ctx, cancel := context.WithTimeout(r.Context(), pingTimeout)
	defer cancel()
	d, err := s.opts.Ping(ctx, peer)
	if errors.Is(err, network.ErrNoAddress) {
		err = fmt.Errorf("%w: %w", log.ErrNotFound, err)
	}
	if err != nil {
		return err
	}
	return sendJSON(w, pingAnswer{d.Microseconds()})
}

// Peers describes the peers that the node knows of; log.ErrNotFound: it is alone.
func (c *Client) Peers(ctx context.Context) ([]Peer, error) {
	var list peerList
	err := c.get(ctx, "/peers", nil, &list)
	return list.Peers, err
}

// Ping has the node measure how long a message to a peer and back takes; log.ErrNotFound:
// it does not know where the peer is, or keeps no catalog.
func (c *Client) Ping(ctx context.Context, peer identity.PeerID) (time.Duration, error) {
	var a pingAnswer
	err := c.post(ctx, "/peers/"+peer.String()+"/ping", nil, "", nil, &a)
	return time.Duration(a.Microseconds) * time.Microsecond, err
}
