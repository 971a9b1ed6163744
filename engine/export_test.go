package engine

import (
	"encoding/binary"

	"github.com/cockroachdb/pebble/v2"

	"github.com/mosaik-engine/mosaik/identity"
)

// PlantRow changes a row of a view behind the replica's back, as a damaged disk
// or a bug would.
func (g *Group) PlantRow(key identity.ID, row, value []byte) error {
	r := g.replica
	r.applying.Lock()
	defer r.applying.Unlock()
	l := r.mu.logs[key]
	at := appendViewKey(nil, r.shard, l.view.Number, l.viewGeneration, row)
	stored, closer, err := r.db.Get(at)
	if err != nil {
		return err
	}
	_, n := binary.Uvarint(stored)
	value = append(append([]byte(nil), stored[:n]...), value...)
	if err := closer.Close(); err != nil {
		return err
	}
	return r.db.Set(at, value, pebble.NoSync)
}

// MarkDiverged has the group diverged when the node is opened again.
func (g *Group) MarkDiverged() error {
	mark := binary.LittleEndian.AppendUint64(nil, 1)
	return g.replica.db.Set(appendMetaKey(nil, g.shard, metaDiverged), append(mark, make([]byte, 32)...), pebble.NoSync)
}

// RawRow looks a row of a view up in the store, and nothing more.
func (g *Group) RawRow(key identity.ID, row []byte) error {
	r := g.replica
	l := r.mu.logs[key]
	_, closer, err := r.db.Get(appendViewKey(nil, r.shard, l.view.Number, l.viewGeneration, row))
	if err != nil {
		return err
	}
	return closer.Close()
}
