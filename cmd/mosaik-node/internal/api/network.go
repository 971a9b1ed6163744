package api

import (
	"context"
	"net/http"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/network"
)

// Network is what a node knows of the network it is one of.
type Network struct {
	Name   string          `json:"name"`
	Peer   identity.PeerID `json:"peer"`   // the node itself
	Listen string          `json:"listen"` // where it listens for others
	Conns  []Conn          `json:"conns"`
	// Counts of connections since the start, by reason (docs/format/bond.md).
	Refused   map[network.Reason]uint64 `json:"refused"`    // by this node
	RefusedBy map[network.Reason]uint64 `json:"refused_by"` // by others
	Closed    map[network.Reason]uint64 `json:"closed"`
	Accepted  uint64                    `json:"accepted"`
	Dialled   uint64                    `json:"dialled"`
	Failed    uint64                    `json:"dial_errors"` // addresses where nobody could be reached
	BytesIn   uint64                    `json:"bytes_in"`
	BytesOut  uint64                    `json:"bytes_out"`
}

// Conn is a connection with another node.
type Conn struct {
	Peer     identity.PeerID `json:"peer"`
	Protocol string          `json:"protocol"`
	Dialled  bool            `json:"dialled"` // by this node
	Address  string          `json:"address"` // of the other one
	Groups   []identity.ID   `json:"groups"`  // whose traffic it carries
	Since    time.Time       `json:"since"`
	Until    time.Time       `json:"until,omitzero"` // when it will be asked for tickets again
}

// NetworkOf describes an endpoint.
func NetworkOf(name string, e *network.Endpoint) Network {
	m := e.Metrics()
	n := Network{
		Name: name, Peer: e.Peer(), Listen: e.Addr().String(), Conns: connsOf(e), Refused: m.Refused, RefusedBy: m.RefusedBy, Closed: m.Closed,
		Accepted: m.Accepted, Dialled: m.Dialled, Failed: m.DialErrors, BytesIn: m.BytesIn, BytesOut: m.BytesOut,
	}
	return n
}

// connsOf describes an endpoint's connections, the oldest first.
func connsOf(e *network.Endpoint) []Conn {
	conns := []Conn{}
	for _, c := range e.Conns() {
		conns = append(conns, Conn{Peer: c.Peer, Protocol: c.Protocol, Dialled: c.Dialled, Address: c.Address, Groups: c.Groups, Since: c.Since.UTC(), Until: c.Until})
	}
	return conns
}

// serveNetwork describes the network.
func (s *Server) serveNetwork(w http.ResponseWriter, r *http.Request) error {
	if err := newParams(r).done(); err != nil {
		return err
	}
	if s.opts.Network == nil {
		return errAlone
	}
	return sendJSON(w, s.opts.Network())
}

// Network describes the network that the node is one of; log.ErrNotFound: it is
// alone.
func (c *Client) Network(ctx context.Context) (Network, error) {
	var n Network
	err := c.get(ctx, "/network", nil, &n)
	return n, err
}
