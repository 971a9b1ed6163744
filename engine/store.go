package engine

import (
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/mosaik-engine/mosaik/log"
)

// Names in a store's directory besides the store file.
const (
	lockFileName = "LOCK"
	storeDirName = "store" // pebble: commits, index, state rows of all groups
	raftDirName  = "raft"  // the Raft log of all groups (package raftlog)
	hostDirName  = "host"  // the Raft library's own files
)

// storeFormatVersion pins pebble's on-disk format: raising it is a decision of
// ours, not a side effect of an upgrade.
const storeFormatVersion = pebble.FormatValueSeparation

// Pieces of commits lie in value files, so the blocks of tables hold rows of views,
// postings and the like: small blocks make a lookup cheap, and the filters spare
// most of the lookups of rows that are not there, which every new entry of a map
// begins with.
const (
	rowBlockBytes = 4 << 10
	filterBits    = 10 // a key: about 1 in 100 lookups of what is not there is not spared
)

// openStore opens pebble under dir/store.
//
// The store writes no log of its own, since the Raft log has every entry until
// the store has flushed it. Values are stored as they come, because payloads are
// the user's to compress and a body's bytes are what is hashed.
func openStore(dir string, o *Options, sizes sizes, cache *pebble.Cache) (_ *store, err error) {
	path := o.FS.PathJoin(dir, storeDirName)
	if err := checkManifest(o.FS, dir); err != nil {
		return nil, err
	}
	if err := makeDir(o.FS, path); err != nil {
		return nil, err
	}
	lock, err := pebble.LockDirectory(path, o.FS)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrLocked, path, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, lock.Close())
		}
	}()
	fs := newStoreFS(o.FS)
	var limit rateLimit
	opts := &pebble.Options{
		FS:                          fs,
		Lock:                        lock,
		Cache:                       cache,
		DisableWAL:                  true,
		FormatMajorVersion:          storeFormatVersion,
		MemTableSize:                uint64(sizes.memTable),
		MemTableStopWritesThreshold: 4,
		L0CompactionThreshold:       8,
		L0StopWritesThreshold:       1000,
		LBaseMaxBytes:               512 << 20,
		MaxOpenFiles:                1000,
		BytesPerSync:                1 << 20,
		Logger:                      storeLogger{o.Logger.With("component", "store")},
		EventListener: &pebble.EventListener{
			BackgroundError: func(err error) {
				if limit.allow(time.Now()) {
					o.Logger.Warn("store: background work failed and will be tried again", "err", err)
					o.Events.BackgroundError(err)
				}
			},
			// Without this pebble stops the process. The read that found the damage
			// returns it; the rest of the store can still be read.
			DataCorruption: func(info pebble.DataCorruptionInfo) {
				o.Logger.Error("store: damaged block", "file", info.Path, "err", info.Details)
				o.Events.BackgroundError(&log.CorruptionError{File: info.Path, Err: info.Details})
			},
		},
	}
	opts.CompactionConcurrencyRange = func() (int, int) { return 1, 2 }
	for i := range opts.Levels {
		opts.Levels[i].Compression = func() *sstable.CompressionProfile { return sstable.NoCompression }
		opts.Levels[i].BlockSize = rowBlockBytes
		opts.Levels[i].FilterPolicy = bloom.FilterPolicy(filterBits)
		if i == len(opts.Levels)-1 {
			opts.Levels[i].FilterPolicy = pebble.NoFilterPolicy
		}
		opts.Levels[i].IndexBlockSize = 256 << 10
	}
	for i := range opts.TargetFileSizes {
		opts.TargetFileSizes[i] = 64 << 20
	}
	opts.FlushSplitBytes = 64 << 20
	// Pieces of commits go to files of their own when they are flushed, and stay
	// there: merging tables then moves references, not bodies. Without this the
	// bodies were written 2.2 times instead of once (docs/decisions/0003-store.md).
	opts.Experimental.ValueSeparationPolicy = func() pebble.ValueSeparationPolicy {
		return pebble.ValueSeparationPolicy{
			Enabled:               true,
			MinimumSize:           1 << 10,
			MaxBlobReferenceDepth: 1 << 20,
			RewriteMinimumAge:     time.Hour,
			TargetGarbageRatio:    1,
		}
	}
	db, err := pebble.Open(path, opts)
	if err != nil {
		if pebble.IsCorruptionError(err) {
			e := &log.CorruptionError{File: path, Err: err}
			if info := pebble.ExtractDataCorruptionInfo(err); info != nil {
				e.File, e.Err = info.Path, info.Details
			}
			return nil, e
		}
		return nil, fmt.Errorf("mosaik: open store %s: %w", path, err)
	}
	return &store{DB: db, opts: opts, cache: cache, fs: fs, lock: lock, dir: dir}, nil
}

// store is an open pebble with what belongs to it.
type store struct {
	*pebble.DB
	opts  *pebble.Options
	cache *pebble.Cache
	fs    *storeFS
	lock  *pebble.Lock
	dir   string // of the node
}

// sizes are the buffer sizes of a store, by what its file system has.
type sizes struct {
	memTable int64
	raftFile int64
	reserve  int64 // free bytes below which writes are refused
}

// sizesFor scales the buffers down on small file systems, so that what is kept
// free for them does not eat the disk.
func sizesFor(o *Options, dir string) sizes {
	s := sizes{memTable: 64 << 20, raftFile: 64 << 20}
	if usage, err := o.FS.GetDiskUsage(dir); err == nil && usage.TotalBytes > 0 {
		share := max(int64(usage.TotalBytes/64), 1<<20)
		s.memTable = min(s.memTable, share)
		s.raftFile = min(s.raftFile, share)
	}
	// A file of the Raft log is given back when all of it has been trimmed, and
	// written with zeros before its first use: small ones make a new store cheap.
	s.raftFile = max(min(s.raftFile, o.RaftLogBytes/8), 256<<10)
	if o.MemTableBytes != 0 {
		s.memTable = max(o.MemTableBytes, 1<<20)
	}
	// What is in memory must still find room when it is flushed: up to four write
	// buffers, and a merge of a few tables.
	s.reserve = 5*s.memTable + s.raftFile
	return s
}

// lockDir takes the directory's lock.
func lockDir(fs vfs.FS, dir string) (unlock func() error, err error) {
	c, err := fs.Lock(fs.PathJoin(dir, lockFileName))
	if err != nil {
		return nil, fmt.Errorf("%w: %s is in use by another process, or by this one: %w", ErrLocked, dir, err)
	}
	return c.Close, nil
}

// storeLogger is a slog.Logger as pebble wants it.
type storeLogger struct{ l *slog.Logger }

func (s storeLogger) Infof(format string, args ...any) { s.l.Debug(fmt.Sprintf(format, args...)) }
func (s storeLogger) Errorf(format string, args ...any) {
	s.l.Error(fmt.Sprintf(format, args...))
}

// Fatalf is called where pebble cannot go on, such as a manifest it failed to
// write. It must not return.
func (s storeLogger) Fatalf(format string, args ...any) {
	s.l.Error(fmt.Sprintf(format, args...))
	panic(fmt.Sprintf("mosaik: store: "+format, args...)) // invariant: pebble does not expect this call to return
}

// closeTimeout bounds how long closing the store may take; only a full disk
// makes it take longer than a flush.
const closeTimeout = 30 * time.Second

// close flushes what is in memory if asked to, so that the next open has nothing
// to replay, closes the store, and seals its manifest. A store that waits for
// room on a full disk is abandoned: it holds its memory until the process ends,
// but touches no file any more. What it had not flushed is in the Raft log.
func (s *store) close(flush bool) error {
	ended := make(chan error, 1)
	go s.runClose(flush, ended)
	timeout := closeTimeout
	if s.fs.waiting() {
		timeout = time.Second
	}
	t := time.NewTimer(timeout)
	defer t.Stop()
	select {
	case err := <-ended:
		s.cache.Unref()
		if err == nil {
			err = sealManifest(s.fs.FS, s.dir)
		}
		return errors.Join(err, s.lock.Close())
	case <-t.C:
		s.fs.abandon()
		return errors.Join(fmt.Errorf("%w: the store was closed without writing what is in memory; the Raft log has it", ErrDiskFull), s.lock.Close())
	}
}

// runClose flushes and closes pebble.
func (s *store) runClose(flush bool, ended chan<- error) {
	var err error
	if flush {
		err = s.Flush()
	}
	ended <- errors.Join(err, s.DB.Close())
}

// rateLimit lets one report a second through: pebble tries a failed flush again
// at once, thousands of times a second.
type rateLimit struct{ last atomic.Int64 }

func (r *rateLimit) allow(now time.Time) bool {
	last := r.last.Load()
	return now.UnixNano()-last >= int64(time.Second) && r.last.CompareAndSwap(last, now.UnixNano())
}
