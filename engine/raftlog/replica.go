package raftlog

import (
	"sync"

	"github.com/lni/dragonboat/v4/raftio"
	pb "github.com/lni/dragonboat/v4/raftpb"
)

// position is where one live entry lies. It holds no pointers, so that the garbage collector never walks an index.
// A zero file means: not found yet (only during recovery).
type position struct {
	file   uint32
	off    uint32 // of the item's header
	length uint32 // of the item's data
}

// replica is the part of the log that belongs to one replica of one Raft group.
//
// Invariants, under mu: pos[i] is the position of entry first+i; entries below trim are gone for readers although the
// drop is not logged yet; every position's file is in the file table and counts the entry as live.
type replica struct {
	id raftio.NodeInfo

	mu        sync.RWMutex
	state     pb.State
	unsaved   bool   // state.Commit is ahead of what was written
	bootstrap []byte // encoded pb.Bootstrap; nil if there is none. Never changed in place.
	snapshot  []byte // encoded pb.Snapshot; nil if there is none. Never changed in place.
	snapIndex uint64
	first     uint64
	pos       []position
	trim      uint64
}

// next returns the index after the last entry. REQUIRES: mu.
func (r *replica) next() uint64 { return r.first + uint64(len(r.pos)) }

// low returns the first index readers may see. REQUIRES: mu.
func (r *replica) low() uint64 { return max(r.first, r.trim) }

// apply makes the change c, whose entries lie in file at the given offsets. Both the write path (with the write mutex
// held) and recovery come here, so what is in memory is what recovery will find.
func (r *replica) apply(t *fileTable, c *change, file uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c.flags&flagReset != 0 {
		r.drop(t, 0, len(r.pos))
		r.state, r.unsaved = pb.State{}, false
		r.bootstrap, r.snapshot, r.snapIndex = nil, nil, 0
		r.first, r.trim = 0, 0
	}
	if c.flags&flagClear != 0 {
		r.drop(t, 0, len(r.pos))
		r.trim = 0
	}
	if c.flags&flagState != 0 {
		r.state, r.unsaved = c.state, false
	}
	if c.flags&flagBootstrap != 0 {
		r.bootstrap = c.bootstrap
	}
	if c.flags&flagSnapshot != 0 {
		r.snapshot, r.snapIndex = c.snapshot, c.snapIndex
	}
	if c.flags&flagFirst != 0 {
		r.trimTo(t, c.first)
	}
	switch {
	case len(c.entries) == 0:
	case c.flags&flagMoved != 0:
		r.move(t, c, file)
	default:
		r.save(t, c, file)
	}
}

// applyChange makes the change c of a record in file. A replica that is reset to nothing leaves the table.
func (l *Log) applyChange(c *change, file uint32) {
	r := l.replicas.ensure(c.shardID, c.replicaID)
	r.apply(&l.files, c, file)
	if c.flags == flagReset && len(c.entries) == 0 {
		l.replicas.remove(r)
	}
}

// save appends entries; an entry already there at or above the first of them is replaced, as Raft demands of a
// conflicting suffix. Entries that do not touch the ones before replace them all: that is a log restarted by a snapshot.
func (r *replica) save(t *fileTable, c *change, file uint32) {
	switch {
	case c.index < r.first || c.index > r.next():
		r.drop(t, 0, len(r.pos))
	case c.index < r.next():
		r.drop(t, int(c.index-r.first), len(r.pos))
	}
	if len(r.pos) == 0 {
		r.first = c.index
	}
	if c.index < r.trim {
		r.trim = 0
	}
	n := len(r.pos)
	for _, s := range c.entries {
		r.pos = append(r.pos, position{file, uint32(s.off), uint32(s.length)})
	}
	t.count(r.pos[n:], 1)
}

// move replaces the positions of live entries by those of their copies.
func (r *replica) move(t *fileTable, c *change, file uint32) {
	for i, s := range c.entries {
		index := c.index + uint64(i)
		if index < r.first || index >= r.next() {
			continue
		}
		at := r.pos[index-r.first : index-r.first+1]
		t.count(at, -1)
		at[0] = position{file, uint32(s.off), uint32(s.length)}
		t.count(at, 1)
	}
}

// trimTo drops the entries below index.
func (r *replica) trimTo(t *fileTable, index uint64) {
	if r.trim <= index {
		r.trim = 0
	}
	if index <= r.first {
		return
	}
	n := len(r.pos)
	if index < r.next() {
		n = int(index - r.first)
	}
	r.drop(t, 0, n)
	r.first = index
}

// drop forgets pos[from:to], which is a prefix or a suffix, and gives memory back when most of the index is unused.
func (r *replica) drop(t *fileTable, from, to int) {
	t.count(r.pos[from:to], -1)
	if from == 0 {
		r.pos = r.pos[to:]
	} else {
		r.pos = r.pos[:from]
	}
	if len(r.pos) == 0 {
		r.pos = nil
	} else if cap(r.pos) > 1024 && cap(r.pos) > 4*len(r.pos) {
		r.pos = append(make([]position, 0, 2*len(r.pos)), r.pos...)
	}
}

// replicaTable maps ids to replicas. A replica is in it from its first record until it is forgotten.
type replicaTable struct {
	mu sync.RWMutex
	m  map[raftio.NodeInfo]*replica
}

// get returns the replica or nil.
func (t *replicaTable) get(shardID, replicaID uint64) *replica {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.m[raftio.NodeInfo{ShardID: shardID, ReplicaID: replicaID}]
}

// ensure returns the replica, made empty if it is new.
func (t *replicaTable) ensure(shardID, replicaID uint64) *replica {
	if r := t.get(shardID, replicaID); r != nil {
		return r
	}
	id := raftio.NodeInfo{ShardID: shardID, ReplicaID: replicaID}
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.m[id]
	if r == nil {
		r = &replica{id: id}
		t.m[id] = r
	}
	return r
}

func (t *replicaTable) remove(r *replica) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.m, r.id)
}

// all returns the replicas in no order.
func (t *replicaTable) all() []*replica {
	t.mu.RLock()
	defer t.mu.RUnlock()
	rs := make([]*replica, 0, len(t.m))
	for _, r := range t.m {
		rs = append(rs, r)
	}
	return rs
}

// checkpoint returns what an open record says of r now, pending trim included.
func (r *replica) checkpoint() replicaState {
	r.mu.RLock()
	defer r.mu.RUnlock()
	s := replicaState{
		shardID: r.id.ShardID, replicaID: r.id.ReplicaID, state: r.state,
		first: r.first, count: uint64(len(r.pos)), bootstrap: r.bootstrap, snapshot: r.snapshot,
	}
	if low := r.low(); low > r.first {
		s.count -= min(s.count, low-r.first)
		s.first = low
	}
	return s
}

// deferred returns the change that writes what was kept in memory so far; its flags are zero if there is nothing.
func (r *replica) deferred() change {
	r.mu.RLock()
	defer r.mu.RUnlock()
	c := change{shardID: r.id.ShardID, replicaID: r.id.ReplicaID}
	if r.unsaved {
		c.flags |= flagState
		c.state = r.state
	}
	if r.trim > r.first {
		c.flags |= flagFirst
		c.first = r.trim
	}
	return c
}
