package engine

import (
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// storeFS is the file system as pebble should see it.
//
// A write that finds no room waits for it. Pebble itself tries a failed flush
// again at once and for ever, stops the process when its manifest cannot be
// written, and, in v2.1.7, panics when a value file cannot. A failed sync is
// passed on: the kernel may have dropped what it could not write, and a second
// sync would not tell.
//
// And the directory of a marker is synced before the marker is made. Pebble makes
// a manifest and the marker that names it and syncs their directory once for both
// (cockroachdb/pebble issue 5825); after a power cut the marker could be there
// without the manifest.
type storeFS struct {
	vfs.FS
	waiters   atomic.Int64
	abandoned chan struct{}
	once      sync.Once
}

// roomInterval is how often a write that waits for room is tried again.
const roomInterval = 100 * time.Millisecond

func newStoreFS(fs vfs.FS) *storeFS { return &storeFS{FS: fs, abandoned: make(chan struct{})} }

// waiting reports whether a write waits for room.
func (s *storeFS) waiting() bool { return s.waiters.Load() > 0 }

// abandon makes every write wait for ever.
func (s *storeFS) abandon() { s.once.Do(func() { close(s.abandoned) }) }

// try runs op until it does not fail for want of room.
func (s *storeFS) try(op func() error) error {
	for waited := false; ; {
		select {
		case <-s.abandoned:
			select {} // nobody is there to take an answer
		default:
		}
		err := op()
		if !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT) {
			if waited {
				s.waiters.Add(-1)
			}
			return err
		}
		if !waited {
			waited = true
			s.waiters.Add(1)
		}
		t := time.NewTimer(roomInterval)
		select {
		case <-t.C:
		case <-s.abandoned:
		}
		t.Stop()
	}
}

// Create makes a file whose writes wait for room.
func (s *storeFS) Create(name string, category vfs.DiskWriteCategory) (f vfs.File, err error) {
	if strings.HasPrefix(s.PathBase(name), "marker.") {
		if err := syncDir(s.FS, s.PathDir(name)); err != nil {
			return nil, err
		}
	}
	err = s.try(func() error {
		f, err = s.FS.Create(name, category)
		return err
	})
	return s.wrap(f), err
}

// OpenReadWrite opens a file whose writes wait for room.
func (s *storeFS) OpenReadWrite(name string, category vfs.DiskWriteCategory, opts ...vfs.OpenOption) (f vfs.File, err error) {
	err = s.try(func() error {
		f, err = s.FS.OpenReadWrite(name, category, opts...)
		return err
	})
	return s.wrap(f), err
}

// ReuseForWrite opens a file whose writes wait for room.
func (s *storeFS) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (f vfs.File, err error) {
	err = s.try(func() error {
		f, err = s.FS.ReuseForWrite(oldname, newname, category)
		return err
	})
	return s.wrap(f), err
}

// Rename waits for room, which a longer directory may need.
func (s *storeFS) Rename(oldname, newname string) error {
	return s.try(func() error { return s.FS.Rename(oldname, newname) })
}

// Unwrap returns the file system below.
func (s *storeFS) Unwrap() vfs.FS { return s.FS }

func (s *storeFS) wrap(f vfs.File) vfs.File {
	if f == nil {
		return nil
	}
	return &roomFile{File: f, fs: s}
}

// roomFile is a file whose writes wait for room.
type roomFile struct {
	vfs.File
	fs *storeFS
}

// Write goes on where a write that found no room stopped.
func (f *roomFile) Write(p []byte) (n int, err error) {
	err = f.fs.try(func() error {
		m, err := f.File.Write(p[n:])
		n += m
		return err
	})
	return n, err
}

// WriteAt goes on where a write that found no room stopped.
func (f *roomFile) WriteAt(p []byte, offset int64) (n int, err error) {
	err = f.fs.try(func() error {
		m, err := f.File.WriteAt(p[n:], offset+int64(n))
		n += m
		return err
	})
	return n, err
}
