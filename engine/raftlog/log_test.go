package raftlog

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/raftio"
	pb "github.com/lni/dragonboat/v4/raftpb"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func mustOpen(t testing.TB, fs vfs.FS, o Options) *Log {
	t.Helper()
	o.FS = fs
	if o.FileBytes == 0 {
		o.FileBytes = 1 << 16
	}
	l, err := Open("/node/raft", o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func mustClose(t testing.TB, l *Log) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestAgainstModel runs random operations on several replicas and compares everything readable with a model, with
// reopening in between.
func TestAgainstModel(t *testing.T) {
	for seed := uint64(1); seed <= 12; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(seed, 1))
			fs := vfs.NewMem()
			o := Options{FileBytes: 1 << (14 + seed%3), MaxDeadFiles: 1 + int(seed%4)}
			l := mustOpen(t, fs, o)
			models := map[uint64]*model{1: {}, 2: {}, 3: {}, 4: {}}
			for i := 0; i < 3000; i++ {
				shard := 1 + rng.Uint64N(4)
				if i%1000 > 500 && shard == 4 {
					shard = 3 // shard 4 is idle half of the time: its entries must not hold all files back
				}
				m := models[shard]
				op := nextOp(rng, shard, m, sizes{600, 30000})
				if err := op.log(l); err != nil {
					t.Fatalf("op %d %s: %v", i, op.name, err)
				}
				op.effect(m)
				compareAll := i%100 == 99
				if rng.IntN(300) == 0 {
					// Something durable must have been written for Close to have a file to put deferred changes in.
					vote := saveOp("vote", 1, pb.Update{State: pb.State{Term: models[1].state.Term + 1, Commit: models[1].state.Commit}})
					if err := vote.log(l); err != nil {
						t.Fatal(err)
					}
					vote.effect(models[1])
					mustClose(t, l)
					l = mustOpen(t, fs, o)
					compareAll = true
				}
				for s, m := range models {
					if s != shard && !compareAll {
						continue
					}
					got, err := readBack(l, s)
					if err == nil {
						err = got.differs(m, false)
					}
					if err != nil {
						t.Fatalf("after op %d %s on %d, looking at %d: %v", i, op.name, shard, s, err)
					}
				}
				if compareAll {
					if err := l.Check(context.Background()); err != nil {
						t.Fatal(err)
					}
				}
				checkRead(t, rng, l, shard, m)
			}
			checkCounts(t, l)
			mustClose(t, l)
		})
	}
}

// checkRead compares one read of a random range and size limit.
func checkRead(t *testing.T, rng *rand.Rand, l *Log, shard uint64, m *model) {
	t.Helper()
	if len(m.ents) == 0 {
		return
	}
	low := m.first + rng.Uint64N(uint64(len(m.ents)))
	high := low + 1 + rng.Uint64N(m.next()-low+2)
	limit := rng.Uint64N(3000)
	got, size, err := l.IterateEntries(nil, 0, shard, testReplica, low, high, limit)
	if err != nil {
		t.Fatal(err)
	}
	var want, n uint64
	for i := low; i < min(high, m.next()); i++ {
		want += uint64(m.ents[i-m.first].SizeUpperLimit())
		n++
		if want > limit {
			break
		}
	}
	if size != want || uint64(len(got)) != n {
		t.Fatalf("read [%d, %d) limit %d: %d entries of %d bytes, want %d of %d", low, high, limit, len(got), size, n, want)
	}
}

// checkCounts verifies the live counters of the files against the indexes.
func checkCounts(t *testing.T, l *Log) {
	t.Helper()
	l.wmu.Lock()
	defer l.wmu.Unlock()
	entries, bytes := map[uint32]int64{}, map[uint32]int64{}
	for _, r := range l.replicas.all() {
		for _, p := range r.pos {
			entries[p.file]++
			bytes[p.file] += int64(p.length) + itemHeaderBytes
		}
	}
	l.files.mu.RLock()
	defer l.files.mu.RUnlock()
	for _, f := range l.files.list {
		if f.liveEntries.Load() != entries[f.number] || f.liveBytes.Load() != bytes[f.number] {
			t.Errorf("%s counts %d live entries of %d bytes, the indexes %d of %d", f.name(),
				f.liveEntries.Load(), f.liveBytes.Load(), entries[f.number], bytes[f.number])
		}
	}
}

func save(t testing.TB, l *Log, shard, term, from, to uint64, size int) {
	t.Helper()
	for i := from; i <= to; i++ {
		u := pb.Update{ShardID: shard, ReplicaID: testReplica, State: pb.State{Term: term, Vote: 1, Commit: i - 1},
			EntriesToSave: []pb.Entry{{Term: term, Index: i, Cmd: make([]byte, size)}}}
		if err := l.SaveRaftState([]pb.Update{u}, 1); err != nil {
			t.Fatal(err)
		}
	}
}

func TestInterfaceDetails(t *testing.T) {
	fs := vfs.NewMem()
	l := mustOpen(t, fs, Options{})
	db, err := l.Factory().Create(config.NodeHostConfig{}, nil, nil, nil)
	if err != nil || db != raftio.ILogDB(l) || l.Factory().Name() != "mosaik-raftlog" || db.Name() != l.Factory().Name() {
		t.Fatalf("factory: %v %v", db, err)
	}
	if _, err := l.ReadRaftState(1, testReplica, 0); !errors.Is(err, raftio.ErrNoSavedLog) {
		t.Errorf("state of an unknown replica: %v", err)
	}
	if _, err := l.GetBootstrapInfo(1, testReplica); !errors.Is(err, raftio.ErrNoBootstrapInfo) {
		t.Errorf("bootstrap of an unknown replica: %v", err)
	}
	if ss, err := l.GetSnapshot(1, testReplica); err != nil || !pb.IsEmptySnapshot(ss) {
		t.Errorf("snapshot of an unknown replica: %v %v", ss, err)
	}
	if ents, n, err := l.IterateEntries(nil, 5, 1, testReplica, 1, 9, 100); len(ents) != 0 || n != 5 || err != nil {
		t.Errorf("entries of an unknown replica: %v %d %v", ents, n, err)
	}
	save(t, l, 1, 3, 1, 10, 10)
	if rs, _ := l.ReadRaftState(1, testReplica, 4); rs.FirstIndex != 5 || rs.EntryCount != 6 || rs.State.Term != 3 {
		t.Errorf("range above 4: %+v", rs)
	}
	if rs, _ := l.ReadRaftState(1, testReplica, 10); rs.FirstIndex != 10 || rs.EntryCount != 0 {
		t.Errorf("range above the last: %+v", rs)
	}
	if _, err := l.ReadRaftState(1, testReplica+1, 0); !errors.Is(err, raftio.ErrNoSavedLog) {
		t.Errorf("state of another replica of the shard: %v", err)
	}
	ents, n, err := l.IterateEntries([]pb.Entry{{Index: 1}}, 77, 1, testReplica, 2, 4, math.MaxUint64)
	if err != nil || len(ents) != 3 || ents[2].Index != 3 || n != 77+2*uint64(ents[2].SizeUpperLimit()) {
		t.Errorf("appending to given entries: %d entries, size %d, %v", len(ents), n, err)
	}
	if err := l.SaveRaftState([]pb.Update{{ShardID: 1, ReplicaID: testReplica,
		EntriesToSave: []pb.Entry{{Index: 11, Term: 3}, {Index: 13, Term: 3}}}}, 1); err == nil {
		t.Error("a gap between entries was saved")
	}
	if err := l.ImportSnapshot(pb.Snapshot{ShardID: 1, Index: 5}, testReplica); err == nil {
		t.Error("a snapshot of no type was imported")
	}
	for _, id := range []raftio.NodeInfo{{ShardID: 9, ReplicaID: 1}, {ShardID: 2, ReplicaID: 4}, {ShardID: 2, ReplicaID: 3}} {
		if err := l.SaveBootstrapInfo(id.ShardID, id.ReplicaID, pb.Bootstrap{Join: true}); err != nil {
			t.Fatal(err)
		}
	}
	ids, err := l.ListNodeInfo()
	if fmt.Sprint(ids) != "[{2 3} {2 4} {9 1}]" || err != nil {
		t.Errorf("ListNodeInfo: %v %v", ids, err)
	}
	done, err := l.CompactEntriesTo(1, testReplica, 5)
	if err != nil {
		t.Fatal(err)
	}
	<-done
	if _, err := Open("/node/raft", Options{FS: fs}); !errors.Is(err, ErrLocked) {
		t.Errorf("second Open: %v", err)
	}
	mustClose(t, l)
	mustClose(t, l)
	if err := l.SaveRaftState(nil, 1); !errors.Is(err, ErrClosed) {
		t.Errorf("save after Close: %v", err)
	}
	if _, err := l.ListNodeInfo(); !errors.Is(err, ErrClosed) {
		t.Errorf("list after Close: %v", err)
	}
}

// TestCommitAlone: an update of the commit index alone writes nothing, is visible at once and survives Close.
func TestCommitAlone(t *testing.T) {
	fs := vfs.NewMem()
	l := mustOpen(t, fs, Options{})
	save(t, l, 1, 3, 1, 10, 10)
	before := l.Metrics()
	u := pb.Update{ShardID: 1, ReplicaID: testReplica, State: pb.State{Term: 3, Vote: 1, Commit: 10}}
	if err := l.SaveRaftState([]pb.Update{u}, 1); err != nil {
		t.Fatal(err)
	}
	after := l.Metrics()
	if after.Syncs != before.Syncs || after.BytesWritten != before.BytesWritten || after.CommitsDeferred != 1 {
		t.Errorf("a commit alone cost %d syncs, %d bytes", after.Syncs-before.Syncs, after.BytesWritten-before.BytesWritten)
	}
	for range 2 {
		if rs, err := l.ReadRaftState(1, testReplica, 0); err != nil || rs.State != u.State {
			t.Errorf("state %+v %v", rs.State, err)
		}
		mustClose(t, l)
		l = mustOpen(t, fs, Options{})
	}
	mustClose(t, l)
}

// TestEntriesArePrivate: what a reader got stays as it is when its file is written over.
func TestEntriesArePrivate(t *testing.T) {
	l := mustOpen(t, vfs.NewMem(), Options{FileBytes: 1 << 14})
	save(t, l, 1, 1, 1, 20, 100)
	ents, _, err := l.IterateEntries(nil, 0, 1, testReplica, 1, 21, math.MaxUint64)
	if err != nil {
		t.Fatal(err)
	}
	for i := range ents {
		if len(ents[i].Cmd) != 100 || cap(ents[i].Cmd) != 100 {
			t.Fatalf("entry %d has a command of %d, room for %d", i, len(ents[i].Cmd), cap(ents[i].Cmd))
		}
		ents[i].Cmd[0] = 9
	}
	again, _, err := l.IterateEntries(nil, 0, 1, testReplica, 1, 21, math.MaxUint64)
	if err != nil || again[3].Cmd[0] != 0 {
		t.Fatalf("a reader's change reached the next reader: %v", err)
	}
	mustClose(t, l)
}

// TestSpaceIsBounded: with steady compaction the number of files stays small, also beside an idle replica whose few
// entries would hold every later file back.
func TestSpaceIsBounded(t *testing.T) {
	fs := vfs.NewMem()
	l := mustOpen(t, fs, Options{FileBytes: 1 << 14})
	save(t, l, 2, 1, 1, 5, 50)
	for i := uint64(1); i < 6000; i += 50 {
		save(t, l, 1, 1, i, i+49, 200)
		if err := l.RemoveEntriesTo(1, testReplica, i+30); err != nil {
			t.Fatal(err)
		}
	}
	// The mover and the recycler work beside the writer; another save makes them look again.
	for i := uint64(6001); ; i++ {
		m := l.Metrics()
		if m.Files <= 12 && m.BytesMoved > 0 && m.FilesRecycled > 0 {
			break
		}
		if i > 200000 {
			t.Fatalf("files do not go away: %+v", m)
		}
		save(t, l, 1, 1, i, i, 200)
		if err := l.RemoveEntriesTo(1, testReplica, i-20); err != nil {
			t.Fatal(err)
		}
	}
	checkCounts(t, l)
	ents, _, err := l.IterateEntries(nil, 0, 2, testReplica, 1, 6, math.MaxUint64)
	if err != nil || len(ents) != 5 {
		t.Fatalf("the idle replica has %d entries: %v", len(ents), err)
	}
	mustClose(t, l)
	l = mustOpen(t, fs, Options{FileBytes: 1 << 14})
	ents, _, err = l.IterateEntries(nil, 0, 2, testReplica, 1, 6, math.MaxUint64)
	if err != nil || len(ents) != 5 {
		t.Fatalf("the idle replica has %d entries after reopening: %v", len(ents), err)
	}
	mustClose(t, l)
}
