package raftlog

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"

	"github.com/lni/dragonboat/v4/raftio"
	pb "github.com/lni/dragonboat/v4/raftpb"
)

const testReplica = 7

// model is what a replica's part of the log must hold.
type model struct {
	state     pb.State
	bootstrap *pb.Bootstrap
	snapshot  pb.Snapshot
	first     uint64
	ents      []pb.Entry
}

func (m *model) next() uint64 { return m.first + uint64(len(m.ents)) }

func (m *model) clone() *model {
	c := *m
	c.ents = append([]pb.Entry(nil), m.ents...)
	return &c
}

// op is one call on the log with its effect on the model.
type op struct {
	name   string
	log    func(l *Log) error
	effect func(m *model)
}

func (m *model) save(ents []pb.Entry) {
	if len(ents) == 0 {
		return
	}
	i := ents[0].Index
	switch {
	case i < m.first || i > m.next():
		m.ents = nil
	case i < m.next():
		m.ents = m.ents[:i-m.first]
	}
	if len(m.ents) == 0 {
		m.first = i
	}
	m.ents = append(append([]pb.Entry(nil), m.ents...), ents...)
}

// sizes gives the lengths of commands; now and then one that needs a file of its own.
type sizes struct{ usual, large int }

func randomEntries(rng *rand.Rand, from, term uint64, n int, z sizes) []pb.Entry {
	ents := make([]pb.Entry, n)
	for i := range ents {
		size := rng.IntN(z.usual)
		if rng.IntN(40) == 0 {
			size = rng.IntN(z.large)
		}
		e := pb.Entry{
			Term: term, Index: from + uint64(i), Type: pb.EntryType(rng.IntN(4)), Key: rng.Uint64(),
			ClientID: rng.Uint64N(3), SeriesID: rng.Uint64() >> rng.IntN(64), RespondedTo: rng.Uint64N(5),
		}
		if size > 0 {
			e.Cmd = make([]byte, size)
			for j := 0; j < size; j += 97 {
				e.Cmd[j] = byte(rng.Uint32())
			}
		}
		ents[i] = e
	}
	return ents
}

func testSnapshot(shard, index, term uint64) pb.Snapshot {
	return pb.Snapshot{
		Filepath: fmt.Sprintf("snapshot-%d-%d", shard, index), FileSize: index * 10, Index: index, Term: term,
		Membership: pb.Membership{ConfigChangeId: index, Addresses: map[uint64]string{1: "a1"}},
		ShardID:    shard, Type: pb.OnDiskStateMachine, Checksum: []byte{1, 2, 3}, OnDiskIndex: index,
	}
}

// saveOp is a SaveRaftState call.
func saveOp(name string, shard uint64, u pb.Update) op {
	u.ShardID, u.ReplicaID = shard, testReplica
	return op{
		name: name,
		log:  func(l *Log) error { return l.SaveRaftState([]pb.Update{u}, 1) },
		effect: func(m *model) {
			if !pb.IsEmptyState(u.State) {
				m.state = u.State
			}
			if u.Snapshot.Index > m.snapshot.Index {
				m.snapshot, m.ents, m.first = u.Snapshot, nil, u.Snapshot.Index+1
			}
			m.save(u.EntriesToSave)
		},
	}
}

// nextOp draws an operation that dragonboat could make of a replica in state m.
func nextOp(rng *rand.Rand, shard uint64, m *model, z sizes) op {
	term := max(m.state.Term, 1)
	last := m.next() - 1
	if m.next() == 0 {
		last = 0
	}
	st := m.state
	st.Term = term
	switch k := rng.IntN(100); {
	case k < 50:
		ents := randomEntries(rng, last+1, term, 1+rng.IntN(5), z)
		if rng.IntN(2) == 0 {
			st.Commit = max(st.Commit, last)
		}
		return saveOp("append", shard, pb.Update{State: st, EntriesToSave: ents})
	case k < 58 && last > max(st.Commit, m.snapshot.Index) && len(m.ents) > 0:
		low := max(st.Commit+1, m.first, m.snapshot.Index+1)
		st.Term, st.Vote = st.Term+1, 0
		ents := randomEntries(rng, low+rng.Uint64N(last-low+1), st.Term, 1+rng.IntN(3), z)
		return saveOp("overwrite", shard, pb.Update{State: st, EntriesToSave: ents})
	case k < 70 && last > 0:
		st.Commit = max(st.Commit, last-rng.Uint64N(min(last, 3)+1))
		return saveOp("commit", shard, pb.Update{State: st})
	case k < 75:
		if st.Vote != 0 {
			st.Term++
		}
		st.Vote = rng.Uint64N(4)
		return saveOp("vote", shard, pb.Update{State: st})
	case k < 86 && len(m.ents) > 0:
		index := m.first + rng.Uint64N(uint64(len(m.ents)))
		if rng.IntN(20) == 0 {
			index = math.MaxUint64
		}
		return op{"trim", func(l *Log) error { return l.RemoveEntriesTo(shard, testReplica, index) }, func(m *model) {
			n := uint64(len(m.ents))
			if index < m.next() {
				n = index + 1 - m.first
			}
			m.first, m.ents = m.first+n, m.ents[n:]
		}}
	case k < 92 && m.state.Commit > m.snapshot.Index:
		ss := testSnapshot(shard, m.state.Commit, term)
		return op{"snapshot", func(l *Log) error {
			return l.SaveSnapshots([]pb.Update{{ShardID: shard, ReplicaID: testReplica, Snapshot: ss}})
		}, func(m *model) { m.snapshot = ss }}
	case k < 95:
		index := last + 1 + rng.Uint64N(20)
		st.Commit = index
		u := pb.Update{State: st, Snapshot: testSnapshot(shard, index, term)}
		if rng.IntN(2) == 0 {
			u.EntriesToSave = randomEntries(rng, index+1, term, 1+rng.IntN(3), z)
		}
		return saveOp("install", shard, u)
	case k < 98:
		bs := pb.Bootstrap{Addresses: map[uint64]string{rng.Uint64N(9): "addr"}, Type: pb.OnDiskStateMachine}
		return op{"bootstrap", func(l *Log) error { return l.SaveBootstrapInfo(shard, testReplica, bs) },
			func(m *model) { m.bootstrap = &bs }}
	case k < 99:
		ss := testSnapshot(shard, 1+rng.Uint64N(last+10), term)
		return op{"import", func(l *Log) error { return l.ImportSnapshot(ss, testReplica) }, func(m *model) {
			*m = model{
				state: pb.State{Term: ss.Term, Commit: ss.Index}, snapshot: ss, first: ss.Index + 1,
				bootstrap: &pb.Bootstrap{Join: true, Type: ss.Type},
			}
		}}
	default:
		return op{"remove", func(l *Log) error { return l.RemoveNodeData(shard, testReplica) },
			func(m *model) { *m = model{} }}
	}
}

// readBack reads a replica through the interface dragonboat uses.
func readBack(l *Log, shard uint64) (*model, error) {
	m := &model{}
	bs, err := l.GetBootstrapInfo(shard, testReplica)
	if err == nil {
		m.bootstrap = &bs
	} else if !errors.Is(err, raftio.ErrNoBootstrapInfo) {
		return nil, err
	}
	if m.snapshot, err = l.GetSnapshot(shard, testReplica); err != nil {
		return nil, err
	}
	rs, err := l.ReadRaftState(shard, testReplica, 0)
	if errors.Is(err, raftio.ErrNoSavedLog) {
		return m, nil
	}
	if err != nil {
		return nil, err
	}
	m.state, m.first = rs.State, rs.FirstIndex
	m.ents, _, err = l.IterateEntries(nil, 0, shard, testReplica, rs.FirstIndex, rs.FirstIndex+rs.EntryCount, math.MaxUint64)
	if err == nil && uint64(len(m.ents)) != rs.EntryCount {
		err = fmt.Errorf("%d entries announced, %d read", rs.EntryCount, len(m.ents))
	}
	return m, err
}

// differs compares what was read with what must be there. With crashed set, the commit index and dropped entries may be
// those of an earlier moment, as they are written late.
func (m *model) differs(want *model, crashed bool) error {
	got := m.clone()
	if crashed {
		if got.state.Commit > want.state.Commit {
			return fmt.Errorf("commit %d is ahead of %d", got.state.Commit, want.state.Commit)
		}
		if n := got.next(); len(got.ents) > 0 && got.state.Commit >= n {
			return fmt.Errorf("commit %d is beyond the last entry %d", got.state.Commit, n-1)
		}
		got.state.Commit = want.state.Commit
		if len(want.ents) == 0 && got.next() == want.first {
			got.ents = nil
		} else if got.first < want.first && len(want.ents) > 0 && got.next() >= want.first {
			got.ents = got.ents[want.first-got.first:]
			got.first = want.first
		}
	}
	if got.state != want.state {
		return fmt.Errorf("state %+v, want %+v", got.state, want.state)
	}
	if !reflect.DeepEqual(got.bootstrap, want.bootstrap) {
		return fmt.Errorf("bootstrap %+v, want %+v", got.bootstrap, want.bootstrap)
	}
	if !reflect.DeepEqual(got.snapshot, want.snapshot) {
		return fmt.Errorf("snapshot %+v, want %+v", got.snapshot, want.snapshot)
	}
	if len(got.ents) != len(want.ents) || len(want.ents) > 0 && got.first != want.first {
		return fmt.Errorf("entries [%d, %d), want [%d, %d)", got.first, got.next(), want.first, want.next())
	}
	for i := range want.ents {
		if !reflect.DeepEqual(got.ents[i], want.ents[i]) {
			return fmt.Errorf("entry %d differs", want.first+uint64(i))
		}
	}
	return nil
}
