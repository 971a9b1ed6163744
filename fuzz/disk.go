package fuzz

import (
	"math/rand/v2"
	"os"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// disk is the file system of one life of a node: memory that knows what was
// synced. It counts the changes made to it and calls cut right before a certain
// one, so that a power cut can hit between any two.
type disk struct {
	vfs.FS // mem
	mem    *vfs.MemFS
	left   atomic.Int64 // changes to go until the cut; not positive: none is due
	cut    func()
}

// diskBytes is the size a disk claims to have. The engine scales its buffers and
// the files of its Raft log to it.
const diskBytes = 64 << 20

func newDisk(mem *vfs.MemFS) *disk {
	d := &disk{FS: mem, mem: mem}
	d.fill(false)
	return d
}

// fill makes the disk claim to be full, or to be empty.
func (d *disk) fill(full bool) {
	usage := vfs.DiskUsage{TotalBytes: diskBytes, AvailBytes: diskBytes}
	if full {
		usage.AvailBytes = 0
	}
	d.mem.TestingSetDiskUsage(usage)
}

// after returns a disk with what would be left of this one if the power failed
// now: all that was synced, and each other block with a chance of percent.
func (d *disk) after(rng *rand.Rand, percent int) *disk {
	return newDisk(d.mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rng}))
}

// change is called before every change.
func (d *disk) change() {
	if d.left.Load() > 0 && d.left.Add(-1) == 0 {
		d.cut()
	}
}

func (d *disk) file(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &diskFile{File: f, disk: d}, nil
}

// Create implements vfs.FS.
func (d *disk) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	d.change()
	return d.file(d.FS.Create(name, category))
}

// Link implements vfs.FS.
func (d *disk) Link(oldname, newname string) error {
	d.change()
	return d.FS.Link(oldname, newname)
}

// OpenReadWrite implements vfs.FS.
func (d *disk) OpenReadWrite(name string, category vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	d.change()
	return d.file(d.FS.OpenReadWrite(name, category, opts...))
}

// OpenDir implements vfs.FS.
func (d *disk) OpenDir(name string) (vfs.File, error) { return d.file(d.FS.OpenDir(name)) }

// Remove implements vfs.FS.
func (d *disk) Remove(name string) error {
	d.change()
	return d.FS.Remove(name)
}

// RemoveAll implements vfs.FS.
func (d *disk) RemoveAll(name string) error {
	d.change()
	return d.FS.RemoveAll(name)
}

// Rename implements vfs.FS.
func (d *disk) Rename(oldname, newname string) error {
	d.change()
	return d.FS.Rename(oldname, newname)
}

// ReuseForWrite implements vfs.FS.
func (d *disk) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (vfs.File, error) {
	d.change()
	return d.file(d.FS.ReuseForWrite(oldname, newname, category))
}

// MkdirAll implements vfs.FS.
func (d *disk) MkdirAll(dir string, perm os.FileMode) error {
	d.change()
	return d.FS.MkdirAll(dir, perm)
}

// Unwrap implements vfs.FS.
func (d *disk) Unwrap() vfs.FS { return d.FS }

// diskFile is an open file or directory of a disk.
type diskFile struct {
	vfs.File
	disk *disk
}

// Write implements vfs.File.
func (f *diskFile) Write(p []byte) (int, error) {
	f.disk.change()
	return f.File.Write(p)
}

// WriteAt implements vfs.File.
func (f *diskFile) WriteAt(p []byte, offset int64) (int, error) {
	f.disk.change()
	return f.File.WriteAt(p, offset)
}

// Sync implements vfs.File.
func (f *diskFile) Sync() error {
	f.disk.change()
	return f.File.Sync()
}

// SyncTo implements vfs.File.
func (f *diskFile) SyncTo(length int64) (bool, error) {
	f.disk.change()
	return f.File.SyncTo(length)
}

// SyncData implements vfs.File.
func (f *diskFile) SyncData() error {
	f.disk.change()
	return f.File.SyncData()
}
