package raftlog

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	pb "github.com/lni/dragonboat/v4/raftpb"
)

// smallDisk is a file system with room for so many bytes, and with errors on demand.
type smallDisk struct {
	vfs.FS
	room     atomic.Int64
	writeErr atomic.Pointer[error]
	syncErr  atomic.Pointer[error]
}

type smallDiskFile struct {
	vfs.File
	disk *smallDisk
	mu   sync.Mutex
	size int64
}

func (d *smallDisk) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	f, err := d.FS.OpenReadWrite(name, c, o...)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return &smallDiskFile{File: f, disk: d, size: info.Size()}, nil
}

func (d *smallDisk) Remove(name string) error {
	info, err := d.FS.Stat(name)
	if err != nil {
		return err
	}
	d.room.Add(info.Size())
	return d.FS.Remove(name)
}

func (f *smallDiskFile) WriteAt(b []byte, off int64) (int, error) {
	if err := f.disk.writeErr.Load(); err != nil {
		return 0, *err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if grow := off + int64(len(b)) - f.size; grow > 0 {
		if f.disk.room.Add(-grow) < 0 {
			f.disk.room.Add(grow)
			return 0, syscall.ENOSPC
		}
		f.size += grow
	}
	return f.File.WriteAt(b, off)
}

func (f *smallDiskFile) Sync() error { return f.SyncData() }

func (f *smallDiskFile) SyncData() error {
	if err := f.disk.syncErr.Load(); err != nil {
		return *err
	}
	return f.File.SyncData()
}

// TestFullDisk: without space OnFull is called while saves still succeed; then a save waits, never fails, and goes on
// when there is space, which OnFull tells too.
func TestFullDisk(t *testing.T) {
	const fileBytes = 1 << 15
	disk := &smallDisk{FS: vfs.NewMem()}
	disk.room.Store(3 * fileBytes)
	calls := make(chan bool, 10)
	o := Options{FileBytes: fileBytes, SpaceRetry: time.Millisecond, OnFull: func(full bool, err error) {
		if full != isNoSpace(err) {
			t.Errorf("OnFull(%v, %v)", full, err)
		}
		calls <- full
	}}
	l := mustOpen(t, disk, o)
	const last = 200
	var saved atomic.Uint64
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := uint64(1); n <= last; n++ {
			u := pb.Update{ShardID: 1, ReplicaID: testReplica, State: pb.State{Term: 1, Vote: 1, Commit: n - 1},
				EntriesToSave: []pb.Entry{{Term: 1, Index: n, Cmd: make([]byte, 1000)}}}
			if err := l.SaveRaftState([]pb.Update{u}, 1); err != nil {
				t.Errorf("save %d: %v", n, err)
			}
			saved.Store(n)
		}
	}()
	if full := <-calls; !full {
		t.Fatal("OnFull(false) came first")
	}
	for !l.Metrics().BlockedOnSpace {
		runtime.Gosched()
	}
	// What fits into the files there were has been saved; the next save waits.
	if n := saved.Load(); n < 50 || n >= 100 {
		t.Errorf("%d entries were saved in three files of %d bytes", n, fileBytes)
	}
	if !l.Metrics().Full {
		t.Error("Metrics do not say that the disk is full")
	}
	if ents, _, err := l.IterateEntries(nil, 0, 1, testReplica, 1, 5, math.MaxUint64); len(ents) != 4 || err != nil {
		t.Errorf("reads on a full disk: %d %v", len(ents), err)
	}
	disk.room.Store(1 << 30)
	<-done
	if full := <-calls; full {
		t.Error("OnFull(true) twice")
	}
	mustClose(t, l)
	l = mustOpen(t, disk, o)
	if rs, err := l.ReadRaftState(1, testReplica, 0); err != nil || rs.EntryCount != last {
		t.Errorf("%+v %v, want %d entries", rs, err, last)
	}
	mustClose(t, l)
}

// TestFullDiskFreedByCompaction: a writer blocked for want of space goes on when entries are compacted, although no
// other byte of space comes.
func TestFullDiskFreedByCompaction(t *testing.T) {
	const fileBytes = 1 << 15
	disk := &smallDisk{FS: vfs.NewMem()}
	disk.room.Store(3 * fileBytes)
	l := mustOpen(t, disk, Options{FileBytes: fileBytes, SpaceRetry: time.Millisecond})
	var saved atomic.Uint64
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := uint64(1); n <= 1000; n++ {
			u := pb.Update{ShardID: 1, ReplicaID: testReplica, State: pb.State{Term: 1, Vote: 1},
				EntriesToSave: []pb.Entry{{Term: 1, Index: n, Cmd: make([]byte, 1000)}}}
			if err := l.SaveRaftState([]pb.Update{u}, 1); err != nil {
				t.Errorf("save %d: %v", n, err)
				return
			}
			saved.Store(n)
		}
	}()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		if l.Metrics().BlockedOnSpace {
			if err := l.RemoveEntriesTo(1, testReplica, saved.Load()-5); err != nil {
				t.Fatal(err)
			}
		}
	}
	if l.Metrics().FilesRecycled == 0 {
		t.Error("nothing was recycled")
	}
	mustClose(t, l)
}

// TestCloseInterruptsWait: Close ends a save that waits for space.
func TestCloseInterruptsWait(t *testing.T) {
	disk := &smallDisk{FS: vfs.NewMem()}
	l := mustOpen(t, disk, Options{SpaceRetry: time.Millisecond})
	done := make(chan error)
	go func() { done <- l.SaveBootstrapInfo(1, 1, pb.Bootstrap{Join: true}) }()
	for !l.Metrics().BlockedOnSpace {
		runtime.Gosched()
	}
	mustClose(t, l)
	if err := <-done; !errors.Is(err, ErrClosed) {
		t.Fatalf("the save that waited: %v", err)
	}
}

// TestErrorsStick: after a failed write or sync nothing is acknowledged, and the error names its cause.
func TestErrorsStick(t *testing.T) {
	for _, kind := range []string{"write", "sync"} {
		t.Run(kind, func(t *testing.T) {
			disk := &smallDisk{FS: vfs.NewMem()}
			disk.room.Store(1 << 30)
			l := mustOpen(t, disk, Options{})
			save(t, l, 1, 1, 1, 10, 100)
			injected := error(syscall.EIO)
			at := &disk.writeErr
			if kind == "sync" {
				at = &disk.syncErr
			}
			at.Store(&injected)
			u := pb.Update{ShardID: 1, ReplicaID: testReplica, EntriesToSave: []pb.Entry{{Term: 1, Index: 11}}}
			if err := l.SaveRaftState([]pb.Update{u}, 1); !errors.Is(err, syscall.EIO) {
				t.Fatalf("injected error: %v", err)
			}
			at.Store(nil)
			if err := l.SaveRaftState([]pb.Update{u}, 1); !errors.Is(err, syscall.EIO) {
				t.Fatalf("the next save: %v", err)
			}
			mustClose(t, l)
			l = mustOpen(t, disk, Options{})
			if rs, err := l.ReadRaftState(1, testReplica, 0); err != nil || rs.EntryCount < 10 {
				t.Fatalf("%+v %v", rs, err)
			}
			mustClose(t, l)
		})
	}
}

// smallLog writes a small log of two files, with every kind of record, and closes it.
func smallLog(t *testing.T) (*vfs.MemFS, map[uint64]*model) {
	t.Helper()
	rng := rand.New(rand.NewPCG(5, 5))
	fs := vfs.NewMem()
	models := map[uint64]*model{1: {}, 2: {}}
	for range 2 {
		l := mustOpen(t, fs, Options{FileBytes: minFileBytes})
		for i := range 12 {
			shard := 1 + uint64(i%2)
			o := nextOp(rng, shard, models[shard], sizes{60, 120})
			if err := o.log(l); err != nil {
				t.Fatal(err)
			}
			o.effect(models[shard])
		}
		mustClose(t, l)
	}
	return fs, models
}

func readFile(t *testing.T, fs vfs.FS, path string) []byte {
	t.Helper()
	f, err := fs.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, info.Size())
	if _, err := f.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return b
}

func writeFile(t *testing.T, fs vfs.FS, path string, b []byte) {
	t.Helper()
	f, err := fs.OpenReadWrite(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt(b, 0)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestEveryByte flips every byte of a log that was closed in order. Either the log does not open and says where it is
// damaged, or what it holds is exactly what was saved.
func TestEveryByte(t *testing.T) {
	fs, models := smallLog(t)
	names, err := fs.List("/node/raft")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if !strings.HasSuffix(name, logSuffix) {
			continue
		}
		path := "/node/raft/" + name
		data := readFile(t, fs, path)
		detected, harmless := 0, 0
		for i := range data {
			if i > 4096 && i%61 != 0 {
				continue // zeros after the end
			}
			data[i] ^= 1 << (i % 8)
			writeFile(t, fs, path, data)
			data[i] ^= 1 << (i % 8)
			l, err := Open("/node/raft", Options{FS: fs, FileBytes: minFileBytes})
			var corruption *CorruptionError
			switch {
			case errors.As(err, &corruption):
				if corruption.File != name || corruption.Offset > int64(i) {
					t.Fatalf("byte %d of %s: %v", i, name, err)
				}
				detected++
				continue
			case errors.Is(err, ErrNewerFormat):
				detected++
				continue
			case err != nil:
				t.Fatalf("byte %d of %s: %v", i, name, err)
			}
			for shard, m := range models {
				got, err := readBack(l, shard)
				if err == nil {
					err = got.differs(m, false)
				}
				if err != nil {
					t.Fatalf("byte %d of %s was flipped and not noticed: %v", i, name, err)
				}
			}
			harmless++
			mustClose(t, l)
		}
		writeFile(t, fs, path, data)
		t.Logf("%s: %d detected, %d harmless", name, detected, harmless)
		if detected < 500 {
			t.Errorf("only %d flips of %s were detected", detected, name)
		}
	}
}

// TestMissingFile: a log file that is gone is noticed if anything after it shows that it was there.
func TestMissingFile(t *testing.T) {
	fs := vfs.NewMem()
	l := mustOpen(t, fs, Options{FileBytes: minFileBytes, MaxDeadFiles: 100})
	save(t, l, 1, 1, 1, 200, 300)
	mustClose(t, l)
	for _, name := range []string{logName(1), logName(2)} {
		path := "/node/raft/" + name
		data := readFile(t, fs, path)
		if err := fs.Remove(path); err != nil {
			t.Fatal(err)
		}
		_, err := Open("/node/raft", Options{FS: fs, FileBytes: minFileBytes})
		var corruption *CorruptionError
		if !errors.As(err, &corruption) {
			t.Errorf("without %s: %v", name, err)
		}
		writeFile(t, fs, path, data)
	}
	l = mustOpen(t, fs, Options{FileBytes: minFileBytes})
	if rs, err := l.ReadRaftState(1, testReplica, 0); err != nil || rs.EntryCount != 200 {
		t.Errorf("%+v %v", rs, err)
	}
	mustClose(t, l)
}

// TestCheckFindsDamage: Check notices a byte that changed under an open log, and a read of it does.
func TestCheckFindsDamage(t *testing.T) {
	fs := vfs.NewMem()
	l := mustOpen(t, fs, Options{})
	save(t, l, 1, 1, 1, 50, 300)
	if err := l.Check(context.Background()); err != nil {
		t.Fatal(err)
	}
	path := "/node/raft/" + logName(1)
	data := readFile(t, fs, path)
	data[l.tail.off.Load()/2] ^= 4
	writeFile(t, fs, path, data)
	var corruption *CorruptionError
	if err := l.Check(context.Background()); !errors.As(err, &corruption) || corruption.File != logName(1) {
		t.Errorf("Check: %v", err)
	}
	if _, _, err := l.IterateEntries(nil, 0, 1, testReplica, 1, 51, math.MaxUint64); !errors.As(err, &corruption) {
		t.Errorf("read: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := l.Check(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled Check: %v", err)
	}
	mustClose(t, l)
}
