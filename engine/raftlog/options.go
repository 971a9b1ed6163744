package raftlog

import (
	"errors"
	"fmt"
	"log/slog"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Errors of this package; test for them with errors.Is.
var (
	// ErrClosed is returned by every method after Close, and by a call that Close interrupted.
	ErrClosed = errors.New("mosaik: raft log is closed")
	// ErrLocked says that another process, or another Log of this one, has the directory open.
	ErrLocked = errors.New("mosaik: raft log directory is locked")
	// ErrNewerFormat says that the directory was written by a newer version of this package.
	ErrNewerFormat = errors.New("mosaik: raft log has a newer format")
	// ErrTooLarge says that one update does not fit into a record (1 GiB).
	ErrTooLarge = errors.New("mosaik: raft log record too large")
)

// CorruptionError says that bytes which were durable once are damaged or gone. The log does not open over it.
type CorruptionError struct {
	File   string // name of the file inside the log's directory
	Offset int64  // where the damaged record starts
	Err    error  // what is wrong with it
}

// Error implements error.
func (e *CorruptionError) Error() string {
	return fmt.Sprintf("mosaik: raft log is corrupt: %s at offset %d: %v", e.File, e.Offset, e.Err)
}

// Unwrap returns Err.
func (e *CorruptionError) Unwrap() error { return e.Err }

// Options configures Open. The zero value is fit for use.
type Options struct {
	// FS is the file system; nil means vfs.Default.
	FS vfs.FS
	// FileBytes is the size of one log file; 0 means 64 MiB, the limits are 16 KiB and 1 GiB. A smaller file costs more
	// file switches, a larger one more space that cannot be given back yet. It may differ from one Open to the next.
	FileBytes int64
	// MaxDeadFiles is how many files may be held back beyond twice what the live entries need. When there are more, the
	// live entries of the oldest file are written again at the tail so that it can be recycled. 0 means 4.
	MaxDeadFiles int
	// SpaceRetry is the pause between two attempts to get disk space after the file system refused it; 0 means 1 s.
	SpaceRetry time.Duration
	// Logger receives the rare events (torn tail cut, disk full, file moved); nil discards them.
	Logger *slog.Logger
	// OnFull, if set, is called with true when no further file can be prepared (err says why, usually no space) and with
	// false when one could be again. What is open already still takes writes: a caller that refuses new work at true
	// keeps the log from ever blocking. It is called from a goroutine of the log, must not block and must not call Close.
	OnFull func(full bool, err error)
}

func (o *Options) ensureDefaults() {
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.FileBytes == 0 {
		o.FileBytes = 64 << 20
	}
	if o.MaxDeadFiles <= 0 {
		o.MaxDeadFiles = 4
	}
	if o.SpaceRetry <= 0 {
		o.SpaceRetry = time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.OnFull == nil {
		o.OnFull = func(bool, error) {}
	}
}

func (o *Options) validate() error {
	if o.FileBytes < minFileBytes || o.FileBytes > maxFileBytes {
		return fmt.Errorf("mosaik: raft log FileBytes %d is not in [%d, %d]", o.FileBytes, minFileBytes, maxFileBytes)
	}
	return nil
}

// Metrics is a snapshot of a Log's counters since Open (sizes are those of now).
type Metrics struct {
	BytesWritten    int64         // bytes of records written, moved ones included
	BytesMoved      int64         // bytes of live entries written again to free an old file
	Syncs           int64         // group commits that reached the disk
	SyncTime        time.Duration // time spent in them, in total
	SyncTimeMax     time.Duration // the slowest
	Files           int           // log files, the current one included
	FileBytes       int64         // their size on disk
	SpareFiles      int           // files prepared for the next switches
	LiveBytes       int64         // bytes of entries not compacted yet
	Entries         int64         // number of entries not compacted yet
	Replicas        int           // replicas known
	FilesRecycled   int64         // files reused for new records
	TailFree        int64         // bytes the current file still takes
	Full            bool          // OnFull(true) was the last call
	BlockedOnSpace  bool          // a writer waits for space right now
	CommitsDeferred int64         // updates kept in memory because only their commit index changed
}

// isNoSpace says whether err means that the file system has no room.
func isNoSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
