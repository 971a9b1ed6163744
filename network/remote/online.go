package remote

import (
	"context"
	"slices"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/network"
)

// OnlineWhen is what a producer waits for before it writes.
type OnlineWhen struct {
	// Consumers is how many different peers have to follow the key. 0: none, so the
	// producer is online at once.
	Consumers int
	// Tags are what the entry of a peer must have, all of them, for it to count.
	Tags []identity.ID
}

// Online returns when the condition holds for the consumers that follow the key at this
// node; Group.Online counts those at all replicas. Consumers may leave at any time, also
// before Online has returned.
func (s *Service) Online(ctx context.Context, group, key identity.ID, when OnlineWhen) error {
	for {
		s.mu.Lock()
		if s.mu.closed {
			s.mu.Unlock()
			return network.ErrClosed
		}
		if s.mu.changed == nil {
			s.mu.changed = make(chan struct{})
		}
		changed := s.mu.changed
		s.mu.Unlock()
		if len(s.consumers(place{group, key}, when.Tags)) >= when.Consumers {
			return nil
		}
		select {
		case <-changed:
		case <-s.ctx.Done():
			return network.ErrClosed
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// consumers returns the peers that follow a key at this node and have the tags, in
// order.
func (s *Service) consumers(at place, tags []identity.ID) (peers []identity.PeerID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.mu.tails[at] {
		conn := c.sv.link.conn
		if hasTags(entryOf(conn.Remote(), conn.Entry()), tags) {
			peers = append(peers, conn.Remote())
		}
	}
	slices.SortFunc(peers, identity.PeerID.Compare)
	return slices.Compact(peers)
}

// hasTags reports whether a peer says that it has all of the tags.
func hasTags(e *identity.PeerEntry, tags []identity.ID) bool {
	return !slices.ContainsFunc(tags, func(tag identity.ID) bool {
		_, has := slices.BinarySearchFunc(e.Tags, tag, identity.ID.Compare)
		return !has
	})
}
