package network

import (
	"crypto/subtle"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/mosaik-engine/mosaik/identity"
)

// MaxGroups is the largest number of groups an endpoint has.
const MaxGroups = 1024

// Group is a group whose traffic an endpoint carries.
type Group struct {
	ID identity.ID
	// Key is the group's secret. Who has it may take part in the group as far as
	// Options.Authorize lets it; both sides of a connection prove that they have it.
	Key identity.ID
	// Members are the founders in their order. Replica number n is of member
	// (n-1) mod len(Members): a member that has lost its disk comes back under another
	// number (docs/format/store.md). A Raft message is handed up only if it comes from the
	// member it names.
	Members []identity.PeerID
	// Admitted are the members that are no founders, by their numbers. A replica number n
	// from 2^41 on is of the one of number n mod 2^20.
	Admitted map[uint64]identity.PeerID
}

// admittedReplica begins the replica numbers of members that are no founders.
const admittedReplica = 1 << 41

// member returns the peer behind a replica number; zero for none.
func (g *Group) member(replica uint64) identity.PeerID {
	switch {
	case replica >= admittedReplica:
		return g.Admitted[replica&(1<<20-1)]
	case replica == 0 || len(g.Members) == 0:
		return identity.PeerID{}
	}
	return g.Members[(replica-1)%uint64(len(g.Members))]
}

// shardOf returns the number under which the Raft library knows a group: the first
// 8 bytes of its ID, big-endian, or 1 should that be 0 (docs/format/store.md).
func shardOf(id identity.ID) uint64 { return max(1, binary.BigEndian.Uint64(id[:8])) }

// exporter derives key material from a TLS session (RFC 8446, 7.5).
type exporter func(label string, context []byte, length int) ([]byte, error)

// proofOf returns the proof that peer knows the key of a group, bound to one TLS
// session. It is the rule of the Rust runtime's bonds:
//
//	secret.Derive(exporter(label = group id, context = ALPN)).Derive(peer id)
//
// The exporter differs in every session, so a proof is worth nothing in another
// one; the peer id differs between the sides, so it cannot be sent back.
func proofOf(export exporter, protocol string, group, secret identity.ID, peer identity.PeerID) (identity.ID, error) {
	material, err := export(string(group[:]), []byte(protocol), identity.Size)
	if err != nil {
		return identity.ID{}, fmt.Errorf("mosaik: export key material: %w", err)
	}
	return secret.Derive(string(material)).DeriveID(identity.ID(peer)), nil
}

// sameProof compares in constant time.
func sameProof(a, b identity.ID) bool { return subtle.ConstantTimeCompare(a[:], b[:]) == 1 }

func exporterOf(conn *tls.Conn) exporter {
	state := conn.ConnectionState()
	return state.ExportKeyingMaterial
}

// groupTable is the groups of an endpoint. It is never changed, only replaced.
type groupTable struct {
	byID    map[identity.ID]*Group
	byShard map[uint64]*Group
	ids     []identity.ID // ascending
}

func newGroupTable(groups []Group) (*groupTable, error) {
	t := &groupTable{byID: make(map[identity.ID]*Group, len(groups)), byShard: make(map[uint64]*Group, len(groups))}
	if len(groups) > MaxGroups {
		return nil, fmt.Errorf("mosaik: network: %d groups, the limit is %d", len(groups), MaxGroups)
	}
	for _, g := range groups {
		if g.ID.IsZero() || g.Key.IsZero() {
			return nil, errors.New("mosaik: network: a group without an ID or without a key")
		}
		shard := shardOf(g.ID)
		if t.byShard[shard] != nil {
			return nil, fmt.Errorf("mosaik: network: group %s is listed twice, or shares its shard number %x with another", g.ID.Short(), shard)
		}
		t.byID[g.ID], t.byShard[shard] = &g, &g
		t.ids = append(t.ids, g.ID)
	}
	slices.SortFunc(t.ids, identity.ID.Compare)
	return t, nil
}

// sameKeys reports whether two tables have the same groups under the same keys.
func (t *groupTable) sameKeys(other *groupTable) bool {
	if !slices.Equal(t.ids, other.ids) {
		return false
	}
	for id, g := range t.byID {
		if !sameProof(g.Key, other.byID[id].Key) {
			return false
		}
	}
	return true
}
