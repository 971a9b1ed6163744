package raftlog

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	pb "github.com/lni/dragonboat/v4/raftpb"
)

// stepFS calls step before and after everything that changes the file system or its durability.
type stepFS struct {
	vfs.FS
	step func(what string)
}

type stepFile struct {
	vfs.File
	fs *stepFS
}

func (s *stepFS) around(what string, f func() error) error {
	s.step("before " + what)
	err := f()
	s.step("after " + what)
	return err
}

func (s *stepFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (f vfs.File, err error) {
	err = s.around("open "+name, func() error {
		f, err = s.FS.OpenReadWrite(name, c, o...)
		return err
	})
	return &stepFile{f, s}, err
}

func (s *stepFS) OpenDir(name string) (vfs.File, error) {
	f, err := s.FS.OpenDir(name)
	return &stepFile{f, s}, err
}

func (s *stepFS) Rename(from, to string) error {
	return s.around("rename "+from+" "+to, func() error { return s.FS.Rename(from, to) })
}

func (s *stepFS) Remove(name string) error {
	return s.around("remove "+name, func() error { return s.FS.Remove(name) })
}

func (f *stepFile) WriteAt(b []byte, off int64) (n int, err error) {
	err = f.fs.around("write", func() error {
		n, err = f.File.WriteAt(b, off)
		return err
	})
	return n, err
}

func (f *stepFile) Sync() error { return f.fs.around("sync", f.File.Sync) }

func (f *stepFile) SyncData() error { return f.fs.around("sync data", f.File.SyncData) }

// TestCrashAtEveryStep loses power before and after each operation on the file system while one replica is worked on.
// Recovery from each must give the state after all acknowledged operations, or after one more.
func TestCrashAtEveryStep(t *testing.T) {
	for seed := uint64(1); seed <= 4; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			crashAtEveryStep(t, seed)
		})
	}
}

func crashAtEveryStep(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 3))
	mem := vfs.NewCrashableMem()
	h := &history{shard: 1, base: &model{}}
	crashRand := rand.New(rand.NewPCG(seed, 4))
	var mu sync.Mutex
	steps := 0
	step := func(what string) {
		mu.Lock()
		defer mu.Unlock()
		steps++
		percent := []int{0, 50, 100}[crashRand.IntN(3)]
		h.mu.Lock()
		acked, begun := h.acked, len(h.ops)
		now := &history{shard: h.shard, base: h.base, ops: h.ops[:begun]}
		clone := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: crashRand})
		h.mu.Unlock()
		if t.Failed() {
			return
		}
		if err := now.recovers(clone, acked, begun); err != nil {
			t.Errorf("step %d, %s, %d%% of the unsynced survive: %v", steps, what, percent, err)
		}
	}
	fs := &stepFS{mem, step}
	l := mustOpen(t, fs, Options{FileBytes: minFileBytes, MaxDeadFiles: 1})
	m := &model{}
	for i := 0; i < 150 && !t.Failed(); i++ {
		o := nextOp(rng, 1, m, sizes{1500, 9000})
		h.mu.Lock()
		h.ops = append(h.ops, o)
		h.mu.Unlock()
		if err := o.log(l); err != nil {
			t.Fatal(err)
		}
		o.effect(m)
		h.mu.Lock()
		h.acked++
		if h.acked >= 10 { // keep the replay of the history short
			h.base, h.ops, h.acked = m.clone(), nil, 0
		}
		h.mu.Unlock()
	}
	recycled := l.Metrics().FilesRecycled
	mustClose(t, l)
	t.Logf("%d crashes, %d files recycled", steps, recycled)
	if recycled == 0 {
		t.Error("no file was recycled")
	}
}

// recovers opens a crashed file system, looks for what must be there, writes to it, and looks again.
func (h *history) recovers(fs vfs.FS, acked, begun int) error {
	var m *model
	for range 2 {
		l, err := Open("/node/raft", Options{FS: fs, FileBytes: minFileBytes, MaxDeadFiles: 1})
		if err != nil {
			return err
		}
		got, err := readBack(l, h.shard)
		if err == nil {
			if m == nil {
				m, err = h.match(got, acked, begun)
			} else {
				err = got.differs(m, true)
			}
		}
		if err == nil {
			err = l.Check(context.Background())
		}
		if err == nil {
			o := saveOp("vote", h.shard, pb.Update{State: pb.State{Term: m.state.Term + 1, Vote: 1, Commit: got.state.Commit}})
			err = o.log(l)
			o.effect(m)
		}
		if closeErr := l.Close(); err == nil {
			err = closeErr
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// TestReadIsDurable: a process dies after a write and before its sync, the next one finds the entry and serves it, and
// then the power fails. The entry must still be there.
func TestReadIsDurable(t *testing.T) {
	mem := vfs.NewCrashableMem()
	disk := &smallDisk{FS: mem}
	disk.room.Store(1 << 30)
	l := mustOpen(t, disk, Options{})
	save(t, l, 1, 1, 1, 3, 100)
	injected := error(syscall.EIO)
	disk.syncErr.Store(&injected)
	u := pb.Update{ShardID: 1, ReplicaID: testReplica, EntriesToSave: []pb.Entry{{Term: 1, Index: 4}}}
	if err := l.SaveRaftState([]pb.Update{u}, 1); err == nil {
		t.Fatal("a save without a sync was acknowledged")
	}
	mustClose(t, l)

	l = mustOpen(t, mem, Options{})
	rs, err := l.ReadRaftState(1, testReplica, 0)
	if err != nil || rs.EntryCount != 4 {
		t.Fatalf("%+v %v", rs, err)
	}
	crashed := mem.CrashClone(vfs.CrashCloneCfg{})
	mustClose(t, l)
	l = mustOpen(t, crashed, Options{})
	if rs, err := l.ReadRaftState(1, testReplica, 0); err != nil || rs.EntryCount != 4 {
		t.Fatalf("after the power failed: %+v %v", rs, err)
	}
	mustClose(t, l)
}

// TestFilesDiffer: the same offset of the same file number of two logs has different sums, so that bytes of one cannot
// be taken for records of the other.
func TestFilesDiffer(t *testing.T) {
	seeds := map[uint64]bool{}
	for range 20 {
		l := mustOpen(t, vfs.NewMem(), Options{})
		save(t, l, 1, 1, 1, 1, 10)
		seeds[l.tail.seed] = true
		mustClose(t, l)
	}
	if len(seeds) != 20 {
		t.Errorf("20 logs have %d seeds", len(seeds))
	}
}
