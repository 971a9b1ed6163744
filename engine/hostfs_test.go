package engine

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/lni/dragonboat/v4"
	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/logger"
	"github.com/lni/dragonboat/v4/raftio"
	"github.com/lni/dragonboat/v4/statemachine"
	hostvfs "github.com/lni/vfs"

	"github.com/mosaik-engine/mosaik/engine/inproc"
)

// TestHostFSConformance holds the adapter to what the Raft host expects of a
// file system, over the disk and over both memory file systems. The first row
// is the host's own disk file system: it proves that the expectations are the
// host's and not ours.
func TestHostFSConformance(t *testing.T) {
	systems := []struct {
		name string
		open func(t *testing.T) (hostvfs.FS, string)
	}{
		{"reference", func(t *testing.T) (hostvfs.FS, string) { return hostvfs.Default, t.TempDir() }},
		{"disk", func(t *testing.T) (hostvfs.FS, string) { return newHostFS(vfs.Default), t.TempDir() }},
		{"memory", func(t *testing.T) (hostvfs.FS, string) { return newHostFS(vfs.NewMem()), "/" }},
		{"crashable", func(t *testing.T) (hostvfs.FS, string) { return newHostFS(vfs.NewCrashableMem()), "/" }},
		{"wrapped", func(t *testing.T) (hostvfs.FS, string) {
			// Its files are not the memory file system's, as under any layer between.
			return newHostFS(vfs.WithLogging(vfs.NewMem(), func(string, ...any) {})), "/"
		}},
	}
	rules := []struct {
		name  string
		check func(t *testing.T, fs hostvfs.FS, dir string)
	}{
		{"create", checkHostCreate},
		{"position", checkHostPosition},
		{"append", checkHostAppend},
		{"rename", checkHostRename},
		{"reuse", checkHostReuse},
		{"link", checkHostLink},
		{"directories", checkHostDirectories},
		{"missing", checkHostMissing},
		{"lock", checkHostLock},
		{"callers bytes", checkHostKeepsBytes},
	}
	for _, system := range systems {
		for _, rule := range rules {
			t.Run(system.name+"/"+rule.name, func(t *testing.T) {
				fs, base := system.open(t)
				dir := fs.PathJoin(base, "d")
				hostOK(t, fs.MkdirAll(dir, 0o755))
				rule.check(t, fs, dir)
			})
		}
	}
}

func checkHostCreate(t *testing.T, fs hostvfs.FS, dir string) {
	name := fs.PathJoin(dir, "f")
	writeHostFile(t, fs, name, "first and long")
	writeHostFile(t, fs, name, "second") // created again: nothing of the first is left
	wantHostFile(t, fs, name, "second")

	info, err := fs.Stat(name)
	hostOK(t, err)
	if info.Size() != 6 || info.IsDir() || info.Name() != "f" {
		t.Fatalf("stat: name %q size %d dir %v", info.Name(), info.Size(), info.IsDir())
	}
	f, err := fs.Create(name)
	hostOK(t, err)
	_, err = f.Write([]byte("0123456789"))
	hostOK(t, err)
	// A snapshot's header is written last, over the room left for it.
	_, err = f.WriteAt([]byte("HEAD"), 0)
	hostOK(t, err)
	_, err = f.Write([]byte("ab"))
	hostOK(t, err)
	hostOK(t, f.Sync())
	info, err = f.Stat()
	hostOK(t, err)
	if info.Size() != 12 {
		t.Fatalf("size of open file is %d, want 12", info.Size())
	}
	hostOK(t, f.Close())
	if err := f.Close(); err == nil {
		t.Fatal("closing twice went unnoticed")
	}
	wantHostFile(t, fs, name, "HEAD456789ab")
	if fs.PathBase(name) != "f" || fs.PathDir(name) != dir {
		t.Fatalf("path of %q splits into %q and %q", name, fs.PathDir(name), fs.PathBase(name))
	}
}

// checkHostPosition runs random reads, writes and seeks beside a byte slice.
func checkHostPosition(t *testing.T, fs hostvfs.FS, dir string) {
	f, err := fs.Create(fs.PathJoin(dir, "f"))
	hostOK(t, err)
	defer f.Close()
	rng := rand.New(rand.NewPCG(1, 2))
	var model []byte
	pos := 0
	for step := range 400 {
		switch rng.IntN(6) {
		case 0, 1:
			p := bytes.Repeat([]byte{byte(step)}, rng.IntN(40)+1)
			n, err := f.Write(p)
			hostOK(t, err)
			if n != len(p) {
				t.Fatalf("step %d: wrote %d of %d", step, n, len(p))
			}
			if grow := pos + len(p) - len(model); grow > 0 {
				model = append(model, make([]byte, grow)...)
			}
			copy(model[pos:], p)
			pos += len(p)
		case 2:
			p := make([]byte, rng.IntN(40)+1)
			n, err := f.Read(p)
			want := []byte(nil)
			if pos < len(model) {
				want = model[pos:min(pos+len(p), len(model))]
			}
			if len(want) == 0 && !errors.Is(err, io.EOF) || len(want) > 0 && err != nil {
				t.Fatalf("step %d: read at %d of %d: %v", step, pos, len(model), err)
			}
			if !bytes.Equal(p[:n], want) {
				t.Fatalf("step %d: read %x at %d, want %x", step, p[:n], pos, want)
			}
			pos += n
		case 3:
			offset, whence, want := int64(0), io.SeekStart, 0
			switch rng.IntN(3) {
			case 0:
				want = rng.IntN(len(model) + 10)
				offset = int64(want)
			case 1:
				want = rng.IntN(len(model) + 10)
				offset, whence = int64(want-pos), io.SeekCurrent
			case 2:
				offset, whence, want = int64(-rng.IntN(len(model)+1)), io.SeekEnd, len(model)
				want += int(offset)
			}
			got, err := f.Seek(offset, whence)
			hostOK(t, err)
			if got != int64(want) {
				t.Fatalf("step %d: seek gives %d, want %d", step, got, want)
			}
			pos = want
		case 4:
			off := rng.IntN(len(model) + 1)
			_, err := f.WriteAt([]byte("at"), int64(off))
			hostOK(t, err)
			if grow := off + 2 - len(model); grow > 0 {
				model = append(model, make([]byte, grow)...)
			}
			copy(model[off:], "at")
		case 5:
			if len(model) == 0 {
				continue
			}
			off := rng.IntN(len(model))
			p := make([]byte, rng.IntN(20)+1)
			n, err := f.ReadAt(p, int64(off))
			want := model[off:min(off+len(p), len(model))]
			if !bytes.Equal(p[:n], want) || n < len(p) != errors.Is(err, io.EOF) {
				t.Fatalf("step %d: read %x (%v) at %d, want %x", step, p[:n], err, off, want)
			}
		}
	}
	if _, err := f.Seek(-1, io.SeekStart); err == nil {
		t.Fatal("seek before the start was accepted")
	}
	if _, err := f.Seek(0, 7); err == nil {
		t.Fatal("seek from nowhere was accepted")
	}
}

func checkHostAppend(t *testing.T, fs hostvfs.FS, dir string) {
	name := fs.PathJoin(dir, "f")
	if _, err := fs.OpenForAppend(name); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("append to a missing file: %v", err)
	}
	if _, err := fs.Stat(name); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("the refused append left a file behind: %v", err)
	}
	writeHostFile(t, fs, name, "one ")
	for _, text := range []string{"two ", "three"} {
		f, err := fs.OpenForAppend(name)
		hostOK(t, err)
		_, err = f.Write([]byte(text[:1]))
		hostOK(t, err)
		_, err = f.Seek(0, io.SeekStart) // an appender's position does not matter
		hostOK(t, err)
		_, err = f.Write([]byte(text[1:]))
		hostOK(t, err)
		hostOK(t, f.Sync())
		hostOK(t, f.Close())
	}
	wantHostFile(t, fs, name, "one two three")
}

func checkHostRename(t *testing.T, fs hostvfs.FS, dir string) {
	a, b := fs.PathJoin(dir, "a"), fs.PathJoin(dir, "b")
	writeHostFile(t, fs, a, "new")
	writeHostFile(t, fs, b, "old")
	hostOK(t, fs.Rename(a, b))
	wantHostFile(t, fs, b, "new")
	if _, err := fs.Stat(a); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("the old name is still there: %v", err)
	}
	if err := fs.Rename(a, b); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("renaming a missing file: %v", err)
	}
}

func checkHostReuse(t *testing.T, fs hostvfs.FS, dir string) {
	a, b := fs.PathJoin(dir, "a"), fs.PathJoin(dir, "b")
	writeHostFile(t, fs, a, "0123456789")
	f, err := fs.ReuseForWrite(a, b)
	hostOK(t, err)
	_, err = f.Write([]byte("abc"))
	hostOK(t, err)
	hostOK(t, f.Close())
	wantHostFile(t, fs, b, "abc3456789")
	if _, err := fs.ReuseForWrite(a, b); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("reusing a missing file: %v", err)
	}
}

func checkHostLink(t *testing.T, fs hostvfs.FS, dir string) {
	a, b := fs.PathJoin(dir, "a"), fs.PathJoin(dir, "b")
	writeHostFile(t, fs, a, "shared")
	hostOK(t, fs.Link(a, b))
	hostOK(t, fs.Remove(a))
	wantHostFile(t, fs, b, "shared")
	if err := fs.Link(a, fs.PathJoin(dir, "c")); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("link to a missing file: %v", err)
	}
	writeHostFile(t, fs, a, "other")
	if err := fs.Link(a, b); !errors.Is(err, os.ErrExist) {
		t.Fatalf("link over an existing file: %v", err)
	}
}

func checkHostDirectories(t *testing.T, fs hostvfs.FS, dir string) {
	deep := fs.PathJoin(dir, "x", "y", "z")
	hostOK(t, fs.MkdirAll(deep, 0o755))
	hostOK(t, fs.MkdirAll(deep, 0o755))
	writeHostFile(t, fs, fs.PathJoin(deep, "f"), "f")
	writeHostFile(t, fs, fs.PathJoin(deep, "g"), "g")
	names, err := fs.List(deep)
	hostOK(t, err)
	slices.Sort(names)
	if !slices.Equal(names, []string{"f", "g"}) {
		t.Fatalf("listed %q", names)
	}
	d, err := fs.OpenDir(deep)
	hostOK(t, err)
	info, err := d.Stat()
	hostOK(t, err)
	if !info.IsDir() {
		t.Fatal("an opened directory says it is none")
	}
	hostOK(t, d.Sync())
	hostOK(t, d.Close())

	if err := fs.Remove(deep); err == nil {
		t.Fatal("a directory that holds files was removed")
	}
	hostOK(t, fs.RemoveAll(fs.PathJoin(dir, "x")))
	if _, err := fs.Stat(deep); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("the removed directory is there: %v", err)
	}
	hostOK(t, fs.RemoveAll(fs.PathJoin(dir, "x")))
	hostOK(t, fs.RemoveAll(fs.PathJoin(dir, "no", "such", "parent")))
}

func checkHostMissing(t *testing.T, fs hostvfs.FS, dir string) {
	name := fs.PathJoin(dir, "none")
	below := fs.PathJoin(dir, "none", "f")
	_, ours := fs.(*hostFS)
	for what, call := range map[string]func() error{
		"open":         func() error { _, err := fs.Open(name); return err },
		"open below":   func() error { _, err := fs.Open(below); return err },
		"open dir":     func() error { _, err := fs.OpenDir(name); return err },
		"append":       func() error { _, err := fs.OpenForAppend(name); return err },
		"reuse":        func() error { _, err := fs.ReuseForWrite(name, name+"2"); return err },
		"create below": func() error { _, err := fs.Create(below); return err },
		"lock below":   func() error { _, err := fs.Lock(below); return err },
		"remove":       func() error { return fs.Remove(name) },
		"rename":       func() error { return fs.Rename(name, name+"2") },
		"link":         func() error { return fs.Link(name, name+"2") },
		"stat":         func() error { _, err := fs.Stat(name); return err },
		"list":         func() error { _, err := fs.List(name); return err },
	} {
		err := call()
		if !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: errors.Is does not know %v", what, err)
		}
		// The host's own file system wraps here and misses this one.
		if ours && !os.IsNotExist(err) {
			t.Errorf("%s: os.IsNotExist does not know %#v", what, err)
		}
	}
	writeHostFile(t, fs, name, "there")
	writeHostFile(t, fs, name+"2", "too")
	if err := fs.Link(name, name+"2"); ours && !os.IsExist(err) {
		t.Errorf("os.IsExist does not know %#v", err)
	}
}

func checkHostLock(t *testing.T, fs hostvfs.FS, dir string) {
	name := fs.PathJoin(dir, "LOCK")
	lock, err := fs.Lock(name)
	hostOK(t, err)
	if _, err := fs.Stat(name); err != nil {
		t.Fatalf("the lock is not listed: %v", err)
	}
	if _, ours := fs.(*hostFS); ours {
		if second, err := fs.Lock(name); err == nil || second != nil {
			t.Fatalf("locked twice: %v, %v", second, err)
		}
	}
	hostOK(t, lock.Close())
	lock, err = fs.Lock(name)
	hostOK(t, err)
	hostOK(t, lock.Close())
}

func checkHostKeepsBytes(t *testing.T, fs hostvfs.FS, dir string) {
	f, err := fs.Create(fs.PathJoin(dir, "f"))
	hostOK(t, err)
	defer f.Close()
	p := []byte("the caller's")
	_, err = f.Write(p)
	hostOK(t, err)
	_, err = f.WriteAt(p, 3)
	hostOK(t, err)
	if string(p) != "the caller's" {
		t.Fatalf("writing changed the bytes to %q", p)
	}
}

// TestHostFSDiskUsage compares with the host's own answer for the same disk.
func TestHostFSDiskUsage(t *testing.T) {
	dir := t.TempDir()
	want, err := hostvfs.Default.GetDiskUsage(dir)
	hostOK(t, err)
	got, err := newHostFS(vfs.Default).GetDiskUsage(dir)
	hostOK(t, err)
	if got.TotalBytes != want.TotalBytes || got.TotalBytes == 0 {
		t.Fatalf("disk of %d bytes, want %d", got.TotalBytes, want.TotalBytes)
	}
	if _, err := newHostFS(vfs.NewMem()).GetDiskUsage("/"); !errors.Is(err, vfs.ErrUnsupported) {
		t.Fatalf("memory has no disk usage, got %v", err)
	}
}

// TestHostFSCrash pins what a crash keeps: what was synced, under names whose
// directory was synced, and nothing else.
func TestHostFSCrash(t *testing.T) {
	base := vfs.NewCrashableMem()
	fs := newHostFS(base)
	writeHostFile(t, fs, "/kept", "kept")
	writeHostFile(t, fs, "/nameless", "its directory entry is not synced")
	hostOK(t, fs.Remove("/nameless"))
	root, err := fs.OpenDir("/")
	hostOK(t, err)
	hostOK(t, root.Sync())
	hostOK(t, root.Close())
	writeHostFile(t, fs, "/nameless", "its directory entry is not synced")
	f, err := fs.OpenForAppend("/kept")
	hostOK(t, err)
	_, err = f.Write([]byte(", but not this"))
	hostOK(t, err)
	hostOK(t, f.Close())

	after := newHostFS(base.CrashClone(vfs.CrashCloneCfg{}))
	wantHostFile(t, after, "/kept", "kept")
	if _, err := after.Stat("/nameless"); !os.IsNotExist(err) {
		t.Fatalf("an unsynced name came through the crash: %v", err)
	}
}

// TestHostFSInjectedErrors: an injected fault reaches the caller as it is.
func TestHostFSInjectedErrors(t *testing.T) {
	fault := errors.New("injected")
	armed := false
	base := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if armed && op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
			return fault
		}
		return nil
	}))
	fs := newHostFS(base)
	f, err := fs.Create("/f")
	hostOK(t, err)
	armed = true
	if _, err := f.Write([]byte("x")); !errors.Is(err, fault) {
		t.Fatalf("write: %v", err)
	}
	if err := f.Sync(); !errors.Is(err, fault) {
		t.Fatalf("sync: %v", err)
	}
	if _, err := fs.Create("/g"); !errors.Is(err, fault) {
		t.Fatalf("create: %v", err)
	}
	if err := fs.Rename("/f", "/g"); !errors.Is(err, fault) {
		t.Fatalf("rename: %v", err)
	}
}

// TestHostFSCarriesRaftHost runs a whole Raft host, its built-in log store
// included, on a crashable pebble file system, takes the power away and starts
// again from what a crash leaves: every acknowledged entry must be there.
func TestHostFSCarriesRaftHost(t *testing.T) {
	for _, name := range []string{"config", "dragonboat", "logdb", "pebblekv", "raft", "registry", "rsm", "server", "transport", "utils"} {
		logger.GetLogger(name).SetLevel(logger.CRITICAL)
	}
	const entries = 60
	base := vfs.NewCrashableMem()
	host := openHostOn(t, base)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	session := host.GetNoOPSession(hostShard)
	for i := range entries {
		_, err := host.SyncPropose(ctx, session, binary.LittleEndian.AppendUint64(nil, uint64(i)))
		hostOK(t, err)
	}
	rng := rand.New(rand.NewPCG(7, 7))
	crashed := base.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 30, RNG: rng})
	host.Close()

	host = openHostOn(t, crashed)
	defer host.Close()
	sum, err := host.SyncRead(ctx, hostShard, nil)
	hostOK(t, err)
	if want := uint64(entries * (entries + 1) / 2); sum.(uint64) != want { // entry i adds i+1
		t.Fatalf("after the crash the entries add up to %d, want %d", sum, want)
	}
}

const hostShard = 1

// openHostOn starts a one-replica Raft host with all its files on base.
func openHostOn(t *testing.T, base *vfs.MemFS) *dragonboat.NodeHost {
	t.Helper()
	const address = "only"
	base.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: 1 << 40, TotalBytes: 1 << 40}) // the log store asks
	nodeConfig := config.NodeHostConfig{
		NodeHostDir:    filepath.Join("/", "host"),
		RTTMillisecond: 5,
		RaftAddress:    address,
	}
	leader := make(leaderChan, 1)
	nodeConfig.RaftEventListener = leader
	nodeConfig.Expert.FS = hostvfs.Wrap(newHostFS(base), noHostFaults{})
	nodeConfig.Expert.LogDB = config.GetTinyMemLogDBConfig()
	nodeConfig.Expert.TransportFactory = inproc.New(inproc.Options{}).Transport(address)
	host, err := dragonboat.NewNodeHost(nodeConfig)
	hostOK(t, err)
	err = host.StartReplica(map[uint64]string{1: address}, false,
		func(uint64, uint64) statemachine.IStateMachine { return &sumMachine{} },
		config.Config{ShardID: hostShard, ReplicaID: 1, ElectionRTT: 10, HeartbeatRTT: 1, CheckQuorum: true})
	if err != nil {
		host.Close()
		t.Fatal(err)
	}
	<-leader
	return host
}

// leaderChan receives once as soon as the replica knows a leader.
type leaderChan chan struct{}

func (c leaderChan) LeaderUpdated(info raftio.LeaderInfo) {
	if info.LeaderID == raftio.NoLeader {
		return
	}
	select {
	case c <- struct{}{}:
	default:
	}
}

// noHostFaults injects nothing; see hostFS on the built-in log store.
type noHostFaults struct{}

func (noHostFaults) MaybeError(hostvfs.Op) error { return nil }

// sumMachine adds up its entries, each a number n counted as n+1.
type sumMachine struct{ sum uint64 }

func (m *sumMachine) Update(e statemachine.Entry) (statemachine.Result, error) {
	m.sum += binary.LittleEndian.Uint64(e.Cmd) + 1
	return statemachine.Result{Value: m.sum}, nil
}

func (m *sumMachine) Lookup(any) (any, error) { return m.sum, nil }

func (m *sumMachine) SaveSnapshot(w io.Writer, _ statemachine.ISnapshotFileCollection, _ <-chan struct{}) error {
	return binary.Write(w, binary.LittleEndian, m.sum)
}

func (m *sumMachine) RecoverFromSnapshot(r io.Reader, _ []statemachine.SnapshotFile, _ <-chan struct{}) error {
	return binary.Read(r, binary.LittleEndian, &m.sum)
}

func (m *sumMachine) Close() error { return nil }

func writeHostFile(t *testing.T, fs hostvfs.FS, name, text string) {
	t.Helper()
	f, err := fs.Create(name)
	hostOK(t, err)
	_, err = io.WriteString(f, text)
	hostOK(t, err)
	hostOK(t, f.Sync())
	hostOK(t, f.Close())
}

func wantHostFile(t *testing.T, fs hostvfs.FS, name, want string) {
	t.Helper()
	f, err := fs.Open(name)
	hostOK(t, err)
	defer f.Close()
	got, err := io.ReadAll(f)
	hostOK(t, err)
	if string(got) != want {
		t.Fatalf("%s holds %q, want %q", name, got, want)
	}
}

func hostOK(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
