package engine

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/cockroachdb/pebble/v2/vfs"
	hostvfs "github.com/lni/vfs"
)

// hostFS shows one pebble file system to the Raft host. The Raft library has
// its own file system interface (github.com/lni/vfs, an early copy of pebble's)
// and keeps a lock file, flag files and received snapshots through it. Putting
// those on the engine's own vfs.FS means that one crash clone, one injected
// error or one full disk covers everything a node has on disk.
//
// Where the two interfaces disagree:
//
//   - The host's files have a position that Read, Write and Seek share; pebble's
//     cannot seek. A hostFile keeps the position itself and reaches the pebble
//     file only through ReadAt and WriteAt. That also keeps the io.Writer rule
//     that the caller's bytes stay as they are, which pebble's Write may break.
//   - Pebble promises WriteAt only on files opened by OpenReadWrite, so Create
//     opens the fresh file a second time that way.
//   - Pebble's Create gives the name a new inode instead of truncating the old
//     one: a handle that was open before keeps the old bytes.
//   - Pebble returns errors wrapped with a stack, which os.IsNotExist does not
//     look through. hostError takes the wrapping off.
//
// A hostFile does not show its file descriptor. Code that finds one calls the
// kernel behind the file system's back, where no fault can be injected.
//
// The library's built-in log store accepts only the file systems it knows and
// panics on others; to run it here, hand it hostvfs.Wrap(newHostFS(fs), inj).
// Log stores given by factory need no such thing.
type hostFS struct {
	fs vfs.FS
}

var _ hostvfs.FS = (*hostFS)(nil)

// newHostFS returns a view of base for the Raft host. It holds no state of its
// own: any number of views over one base are equal.
func newHostFS(base vfs.FS) *hostFS {
	return &hostFS{fs: base}
}

// Create makes the named file, empty, for reading and writing.
func (h *hostFS) Create(name string) (hostvfs.File, error) {
	created, err := h.fs.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, hostError(err)
	}
	if err := created.Close(); err != nil {
		return nil, hostError(err)
	}
	return h.openReadWrite(name)
}

// Link gives the file oldname the further name newname, which must be free.
func (h *hostFS) Link(oldname, newname string) error {
	return hostError(h.fs.Link(oldname, newname))
}

// Open opens the named file for reading.
func (h *hostFS) Open(name string, opts ...hostvfs.OpenOption) (hostvfs.File, error) {
	f, err := h.fs.Open(name)
	if err != nil {
		return nil, hostError(err)
	}
	file := &hostFile{f: f}
	for _, opt := range opts {
		opt.Apply(file)
	}
	return file, nil
}

// OpenDir opens the named directory, to be synced.
func (h *hostFS) OpenDir(name string) (hostvfs.File, error) {
	f, err := h.fs.OpenDir(name)
	if err != nil {
		return nil, hostError(err)
	}
	return &hostFile{f: f}, nil
}

// OpenForAppend opens an existing file so that every Write lands at its end.
func (h *hostFS) OpenForAppend(name string) (hostvfs.File, error) {
	// OpenReadWrite would create a file that is not there, and an appender
	// that has lost its file must hear of it.
	if _, err := h.fs.Stat(name); err != nil {
		return nil, hostError(err)
	}
	f, err := h.openReadWrite(name)
	if err != nil {
		return nil, err
	}
	f.appends = true
	return f, nil
}

// Remove removes the named file or empty directory.
func (h *hostFS) Remove(name string) error {
	return hostError(h.fs.Remove(name))
}

// RemoveAll removes name and all below it; a name that is not there is no error.
func (h *hostFS) RemoveAll(name string) error {
	return hostError(h.fs.RemoveAll(name))
}

// Rename moves oldname to newname, replacing a file of that name.
func (h *hostFS) Rename(oldname, newname string) error {
	return hostError(h.fs.Rename(oldname, newname))
}

// ReuseForWrite renames oldname to newname and opens it for writing from its
// start without cutting off what it holds.
func (h *hostFS) ReuseForWrite(oldname, newname string) (hostvfs.File, error) {
	// Not the ReuseForWrite below: its file has no WriteAt.
	if err := h.Rename(oldname, newname); err != nil {
		return nil, err
	}
	return h.openReadWrite(newname)
}

// MkdirAll makes dir and the parents that are missing.
func (h *hostFS) MkdirAll(dir string, perm os.FileMode) error {
	return hostError(h.fs.MkdirAll(dir, perm))
}

// Lock takes the lock file name; closing the result releases it.
func (h *hostFS) Lock(name string) (io.Closer, error) {
	lock, err := h.fs.Lock(name)
	if err != nil {
		return nil, hostError(err)
	}
	return lock, nil
}

// List returns the names in dir, in no order.
func (h *hostFS) List(dir string) ([]string, error) {
	names, err := h.fs.List(dir)
	return names, hostError(err)
}

// Stat describes the named file.
func (h *hostFS) Stat(name string) (os.FileInfo, error) {
	info, err := h.fs.Stat(name)
	if err != nil {
		return nil, hostError(err)
	}
	return info, nil
}

// PathBase returns the last element of path.
func (h *hostFS) PathBase(path string) string { return h.fs.PathBase(path) }

// PathJoin joins path elements with the separator of the file system below.
func (h *hostFS) PathJoin(elem ...string) string { return h.fs.PathJoin(elem...) }

// PathDir returns path without its last element.
func (h *hostFS) PathDir(path string) string { return h.fs.PathDir(path) }

// GetDiskUsage returns the space, in bytes, of the disk that holds path. Memory
// file systems answer vfs.ErrUnsupported.
func (h *hostFS) GetDiskUsage(path string) (hostvfs.DiskUsage, error) {
	usage, err := h.fs.GetDiskUsage(path)
	if err != nil {
		return hostvfs.DiskUsage{}, hostError(err)
	}
	return hostvfs.DiskUsage{
		AvailBytes: usage.AvailBytes,
		TotalBytes: usage.TotalBytes,
		UsedBytes:  usage.UsedBytes,
	}, nil
}

func (h *hostFS) openReadWrite(name string) (*hostFile, error) {
	f, err := h.fs.OpenReadWrite(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, hostError(err)
	}
	return &hostFile{f: f}, nil
}

// hostFile is a pebble file with a position. Read, Write, Seek and Close of one
// handle need a single caller at a time; ReadAt, WriteAt, Stat and Sync do not
// touch the position and may run beside them.
type hostFile struct {
	f       vfs.File
	pos     int64 // where the next Read or Write starts
	appends bool  // Write moves pos to the end of the file first
	closed  bool
}

var _ hostvfs.File = (*hostFile)(nil)

// Close releases the handle. A second Close returns os.ErrClosed.
func (f *hostFile) Close() error {
	if f.closed {
		return os.ErrClosed // pebble's memory files panic instead
	}
	f.closed = true
	return hostError(f.f.Close())
}

// Read fills p from the position on. At the end of the file it returns io.EOF.
func (f *hostFile) Read(p []byte) (int, error) {
	n, err := f.f.ReadAt(p, f.pos)
	f.pos += int64(n)
	if n > 0 && errors.Is(err, io.EOF) {
		// ReadAt says EOF with the last bytes, Read says it after them.
		return n, nil
	}
	return n, err
}

// ReadAt fills p from offset off.
func (f *hostFile) ReadAt(p []byte, off int64) (int, error) {
	return f.f.ReadAt(p, off)
}

// Write writes p at the position, or at the end of a file opened for append.
func (f *hostFile) Write(p []byte) (int, error) {
	if f.appends {
		if _, err := f.Seek(0, io.SeekEnd); err != nil {
			return 0, err
		}
	}
	n, err := f.f.WriteAt(p, f.pos)
	f.pos += int64(n)
	return n, err
}

// WriteAt writes p at offset off, also on a file opened for append.
func (f *hostFile) WriteAt(p []byte, off int64) (int, error) {
	return f.f.WriteAt(p, off)
}

// Seek moves the position and returns it. It may lie behind the end of the
// file; a Write there fills the gap with zero bytes.
func (f *hostFile) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekStart:
	case io.SeekCurrent:
		offset += f.pos
	case io.SeekEnd:
		info, err := f.f.Stat()
		if err != nil {
			return 0, hostError(err)
		}
		offset += info.Size()
	default:
		return 0, fmt.Errorf("mosaik: seek from unknown origin %d: %w", whence, os.ErrInvalid)
	}
	if offset < 0 {
		return 0, fmt.Errorf("mosaik: seek to %d: %w", offset, os.ErrInvalid)
	}
	f.pos = offset
	return offset, nil
}

// Stat describes the file.
func (f *hostFile) Stat() (os.FileInfo, error) {
	info, err := f.f.Stat()
	if err != nil {
		return nil, hostError(err)
	}
	return info, nil
}

// Sync makes what was written, or a directory's entries, survive a crash.
func (f *hostFile) Sync() error {
	return hostError(f.f.Sync())
}

// hostError makes an error about a name recognisable by os.IsNotExist,
// os.IsExist and os.IsPermission, as the host's own file system does not always
// manage: these look at the outermost error only, so what pebble wrapped around
// it (a stack trace) goes. Every other error passes unchanged.
func hostError(err error) error {
	for _, kind := range []error{fs.ErrNotExist, fs.ErrExist, fs.ErrPermission} {
		if !errors.Is(err, kind) {
			continue
		}
		var pathErr *fs.PathError
		if errors.As(err, &pathErr) {
			return pathErr
		}
		var linkErr *os.LinkError
		if errors.As(err, &linkErr) {
			return linkErr
		}
		return kind
	}
	return err
}
