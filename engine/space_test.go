package engine_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/mosaik-engine/mosaik/engine"
	"github.com/mosaik-engine/mosaik/engine/cluster"
	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

// fullDisk is a file system that says how much is free and refuses to let files
// grow, both as told.
type fullDisk struct {
	vfs.FS
	free  atomic.Uint64          // what GetDiskUsage reports
	mute  atomic.Bool            // GetDiskUsage reports nothing
	grows atomic.Pointer[string] // files with this in their path do not grow; nil: all do

	finite  atomic.Bool  // growing uses up what is free
	refused atomic.Int64 // writes that found no room
}

const plenty = 1 << 40

func newFullDisk() *fullDisk {
	d := &fullDisk{FS: vfs.NewMem()}
	d.free.Store(plenty)
	return d
}

// refuse makes files with part in their path fail to grow; "" stops that.
func (d *fullDisk) refuse(part string) {
	if part == "" {
		d.grows.Store(nil)
		return
	}
	d.grows.Store(&part)
}

func (d *fullDisk) GetDiskUsage(string) (vfs.DiskUsage, error) {
	if d.mute.Load() {
		return vfs.DiskUsage{}, vfs.ErrUnsupported
	}
	free := d.free.Load()
	return vfs.DiskUsage{AvailBytes: free, TotalBytes: plenty, UsedBytes: plenty - free}, nil
}

func (d *fullDisk) file(name string, f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &fullDiskFile{File: f, disk: d, name: name}, nil
}

func (d *fullDisk) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := d.FS.Create(name, category)
	return d.file(name, f, err)
}

func (d *fullDisk) OpenReadWrite(name string, category vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := d.FS.OpenReadWrite(name, category, opts...)
	return d.file(name, f, err)
}

func (d *fullDisk) ReuseForWrite(from, to string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := d.FS.ReuseForWrite(from, to, category)
	return d.file(to, f, err)
}

func (d *fullDisk) Unwrap() vfs.FS { return d.FS }

type fullDiskFile struct {
	vfs.File
	disk *fullDisk
	name string
}

// check refuses to let the file grow to end if the disk is to.
func (f *fullDiskFile) check(end int64) error {
	part := f.disk.grows.Load()
	if part != nil && !strings.Contains(f.name, *part) {
		part = nil
	}
	if part == nil && !f.disk.finite.Load() {
		return nil
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	growth := end - info.Size()
	switch {
	case growth <= 0:
		return nil
	case part == nil && f.disk.free.Add(^uint64(growth-1)) < plenty:
		return nil
	case part == nil:
		f.disk.free.Add(uint64(growth))
	}
	f.disk.refused.Add(1)
	return syscall.ENOSPC
}

func (f *fullDiskFile) Write(p []byte) (int, error) {
	info, err := f.Stat()
	if err == nil {
		err = f.check(info.Size() + int64(len(p))) // all but opened-again files are written at their end
	}
	if err != nil {
		return 0, err
	}
	return f.File.Write(p)
}

func (f *fullDiskFile) WriteAt(p []byte, off int64) (int, error) {
	if err := f.check(off + int64(len(p))); err != nil {
		return 0, err
	}
	return f.File.WriteAt(p, off)
}

func (f *fullDiskFile) Preallocate(off, length int64) error {
	if err := f.check(off + length); err != nil {
		return err
	}
	return f.File.Preallocate(off, length)
}

// told is what Events.DiskFull was called with.
type told struct {
	full  bool
	cause error
}

func spaceOptions(d *fullDisk) (*engine.Options, chan told) {
	events := make(chan told, 100)
	o := smallBuffers(d)
	o.Events.DiskFull = func(full bool, cause error) { events <- told{full, cause} }
	return o, events
}

// holdsAcked is verifyAcked on a node that may have just been opened.
func holdsAcked(t *testing.T, ctx context.Context, e *engine.Engine, all []acked) {
	t.Helper()
	if err := e.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	verifyAcked(t, ctx, e, all)
}

// fillTo appends until an append fails, and returns what was acknowledged and
// the error.
func fillTo(ctx context.Context, e *engine.Engine, size int) (all []acked, err error) {
	for i := 0; ; i++ {
		a := acked{key: identity.NewID(fmt.Sprint(i % 3)), payload: append(fmt.Append(nil, i), make([]byte, size)...)}
		if a.pointer, err = e.Append(ctx, a.key, a.payload); err != nil {
			return all, err
		}
		all = append(all, a)
	}
}

// TestLowSpace: when little is free, appends are refused by name before anything
// has failed to be written, reads go on, and when there is room again appends
// are accepted without anybody doing anything.
func TestLowSpace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		d := newFullDisk()
		o, events := spaceOptions(d)
		e := mustOpen(t, "node", o)
		a := acked{key: identity.NewID("0"), payload: []byte("before")}
		var err error
		if a.pointer, err = e.Append(ctx, a.key, a.payload); err != nil {
			t.Fatal(err)
		}
		for round := range 3 {
			d.free.Store(1000)
			if got := <-events; !got.full || !errors.Is(got.cause, engine.ErrDiskFull) {
				t.Fatalf("round %d: %+v", round, got)
			}
			head := e.Groups()[0].Head()
			if _, err := e.Append(ctx, a.key, []byte("x")); !errors.Is(err, engine.ErrDiskFull) {
				t.Errorf("append: %v", err)
			}
			if _, err := e.AppendAsync(ctx, a.key, []byte("x")).Result(); !errors.Is(err, engine.ErrDiskFull) {
				t.Errorf("async append: %v", err)
			}
			// What can never be written is told apart from what cannot be now.
			if _, err := e.Append(ctx, a.key, make([]byte, log.MaxPayload+1)); !errors.Is(err, log.ErrOversize) {
				t.Errorf("oversize append: %v", err)
			}
			if !e.Metrics().Full {
				t.Error("the metrics do not say that the disk is full")
			}
			holdsAcked(t, ctx, e, []acked{a})
			if _, err := e.Check(ctx, nil); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Minute)
			if now := e.Groups()[0].Head(); now != head || len(events) != 0 {
				t.Errorf("the head went from %v to %v, %d events", head, now, len(events))
			}
			d.free.Store(plenty)
			if got := <-events; got.full || got.cause != nil {
				t.Fatalf("round %d: %+v", round, got)
			}
			if p, err := e.Append(ctx, a.key, []byte("after")); err != nil || p.Seq != uint64(round+2) {
				t.Errorf("round %d: %v, %v", round, p, err)
			}
			if e.Metrics().Full {
				t.Error("the metrics still say that the disk is full")
			}
		}
		// A file system that does not tell is not taken for a full one.
		d.mute.Store(true)
		time.Sleep(time.Minute)
		if _, err := e.Append(ctx, a.key, []byte("x")); err != nil || len(events) != 0 {
			t.Errorf("%v, %d events", err, len(events))
		}
		d.mute.Store(false)
		d.free.Store(0)
		<-events
		mustClose(t, e)
		if _, err := e.Append(ctx, a.key, []byte("x")); !errors.Is(err, log.ErrClosed) {
			t.Errorf("append to a closed node with a full disk: %v", err)
		}
		d.free.Store(plenty)
		e = mustOpen(t, "node", o)
		defer mustClose(t, e)
		holdsAcked(t, ctx, e, []acked{a})
	})
}

// TestTrimOnFullDisk: the Raft log is due to be trimmed at the moment in which
// the disk is full. Trimming waits for room.
func TestTrimOnFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		d := newFullDisk()
		o, events := spaceOptions(d)
		trims := make(chan struct{}, 100)
		o.Events.Trimmed = func(string, uint64) { trims <- struct{}{} }
		e := mustOpen(t, "node", o)
		defer mustClose(t, e)
		fill := func() {
			t.Helper()
			for i := range 60 { // more than RaftLogBytes
				if _, err := e.Append(ctx, identity.NewID(fmt.Sprint(i%3)), make([]byte, 10000)); err != nil {
					t.Fatal(err)
				}
			}
		}
		for range 2 { // the first time a group may only note where it is
			fill()
			time.Sleep(time.Second)
		}
		for range 3 {
			for len(trims) > 0 {
				<-trims
			}
			fill()
			d.refuse("/host/")
			d.free.Store(0)
			<-events
			time.Sleep(time.Minute)
			if len(trims) != 0 {
				t.Error("trimmed although there is no room for it")
			}
			d.refuse("")
			d.free.Store(plenty)
			<-events
			<-trims
		}
	})
}

// TestRaftLogFull: the file system gives the Raft log no further file and says
// nothing about free space before. Appends are refused while the file in use
// still takes what was accepted.
func TestRaftLogFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		d := newFullDisk()
		d.mute.Store(true)
		o, events := spaceOptions(d)
		e := mustOpen(t, "node", o)
		if err := e.Ready(ctx); err != nil {
			t.Fatal(err)
		}
		var all []acked
		for round := range 3 {
			d.refuse("/raft/")
			more, err := fillTo(ctx, e, 3000)
			if !errors.Is(err, engine.ErrDiskFull) || !errors.Is(err, syscall.ENOSPC) {
				t.Fatalf("round %d: %v", round, err)
			}
			all = append(all, more...)
			if got := <-events; !got.full || !errors.Is(got.cause, engine.ErrDiskFull) || !errors.Is(got.cause, syscall.ENOSPC) {
				t.Fatalf("round %d: %+v", round, got)
			}
			if m := e.Metrics(); !m.Full || m.RaftLog.BlockedOnSpace {
				t.Errorf("round %d: %+v", round, m)
			}
			verifyAcked(t, ctx, e, all)
			if round == 1 { // over a restart
				mustClose(t, e)
				d.refuse("")
				e = mustOpen(t, "node", o)
				holdsAcked(t, ctx, e, all)
			} else {
				d.refuse("")
				if got := <-events; got.full {
					t.Fatalf("round %d: %+v", round, got)
				}
			}
			if _, err := e.Append(ctx, identity.NewID("after"), []byte("x")); err != nil {
				t.Errorf("round %d: %v", round, err)
			}
		}
		mustClose(t, e)
	})
}

// TestNothingGrows: from one moment to the next no file of the node grows any
// more, in the middle of a load of appends. Each of them is acknowledged or
// refused by name, and all is well again with the disk.
func TestNothingGrows(t *testing.T) {
	ctx := testContext(t)
	d := newFullDisk()
	o, events := spaceOptions(d)
	e := mustOpen(t, "node", o)
	if err := e.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	const appenders = 4
	var all []acked
	for range 2 {
		type filled struct {
			all []acked
			err error
		}
		results := make(chan filled, appenders)
		begun := make(chan struct{}, appenders)
		for w := range appenders {
			go func() {
				var f filled
				for i := 0; f.err == nil; i++ {
					a := acked{key: identity.NewID(fmt.Sprint(w)), payload: fmt.Appendf(nil, "%d %d %s", w, i, strings.Repeat("x", i%3000))}
					if a.pointer, f.err = e.Append(ctx, a.key, a.payload); f.err == nil {
						f.all = append(f.all, a)
					}
					if i == 50 {
						begun <- struct{}{}
					}
				}
				results <- f
			}()
		}
		for range appenders {
			<-begun
		}
		d.refuse("/")
		d.free.Store(0)
		for range appenders {
			f := <-results
			if !errors.Is(f.err, engine.ErrDiskFull) {
				t.Errorf("an append failed with %v", f.err)
			}
			all = append(all, f.all...)
		}
		if got := <-events; !got.full {
			t.Fatalf("%+v", got)
		}
		verifyAcked(t, ctx, e, all)
		d.refuse("")
		d.free.Store(plenty)
		if got := <-events; got.full {
			t.Fatalf("%+v", got)
		}
		if _, err := e.Append(ctx, identity.NewID("after"), []byte("x")); err != nil {
			t.Error(err)
		}
	}
	mustClose(t, e)
	e = mustOpen(t, "node", o)
	defer mustClose(t, e)
	holdsAcked(t, ctx, e, all)
	if _, err := e.Check(ctx, nil); err != nil {
		t.Error(err)
	}
}

// TestFullMember: a member whose disk is full refuses appends made on it and
// holds nobody else up. With room it catches up.
func TestFullMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		disks := []*fullDisk{newFullDisk(), newFullDisk(), newFullDisk()}
		o, events := spaceOptions(nil)
		c, err := cluster.Open(cluster.Options{Nodes: 3, Dir: "cluster", Engine: o,
			Configure: func(i int, o *engine.Options) { o.FS = disks[i] }})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.Ready(ctx); err != nil {
			t.Fatal(err)
		}
		key := identity.NewID("k")
		disks[2].refuse("/raft/")
		disks[2].free.Store(0)
		<-events
		for i := range 300 { // far more than its Raft log takes without another file
			if _, err := c.Node(i%2).Append(ctx, key, make([]byte, 5000)); err != nil {
				t.Fatalf("append %d: %v", i, err)
			}
		}
		if _, err := c.Node(2).Append(ctx, key, []byte("x")); !errors.Is(err, engine.ErrDiskFull) {
			t.Errorf("append on the member with the full disk: %v", err)
		}
		if !c.Node(2).Metrics().RaftLog.BlockedOnSpace {
			t.Error("the full member's Raft log is not blocked: the test does not reach what it is for")
		}
		disks[2].refuse("")
		disks[2].free.Store(plenty)
		for got := range events {
			if !got.full && !c.Node(2).Metrics().Full {
				break
			}
		}
		if err := c.Ready(ctx); err != nil {
			t.Fatal(err)
		}
		sameHeads(t, ctx, c)
		if _, err := c.Node(2).Append(ctx, key, []byte("x")); err != nil {
			t.Errorf("append with room again: %v", err)
		}
	})
}

// TestCloseFullMember closes a member whose Raft log waits for room.
func TestCloseFullMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		disks := []*fullDisk{newFullDisk(), newFullDisk(), newFullDisk()}
		c, err := cluster.Open(cluster.Options{Nodes: 3, Dir: "cluster", Engine: smallBuffers(nil),
			Configure: func(i int, o *engine.Options) { o.FS = disks[i] }})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.Ready(ctx); err != nil {
			t.Fatal(err)
		}
		disks[2].refuse("/raft/")
		for i := 0; !c.Node(2).Metrics().RaftLog.BlockedOnSpace; i++ {
			if _, err := c.Node(i%2).Append(ctx, identity.NewID("k"), make([]byte, 5000)); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		closed := make(chan error, 1)
		go func() { closed <- c.Stop(2) }()
		select {
		case err := <-closed:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(time.Hour): // of the bubble's time
			t.Error("Close waits for room")
			disks[2].refuse("")
			<-closed
		}
		disks[2].refuse("")
		if err := c.Start(2); err != nil {
			t.Fatal(err)
		}
		if err := c.Ready(ctx); err != nil {
			t.Fatal(err)
		}
		sameHeads(t, ctx, c)
	})
}
