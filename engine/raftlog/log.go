package raftlog

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/raftio"
	pb "github.com/lni/dragonboat/v4/raftpb"
)

const (
	storeName    = "mosaik-raftlog"
	binaryFormat = 1
	maxReserve   = 64 << 10
)

// Log is the Raft log of all replicas of one node. It implements raftio.ILogDB; all methods may be called concurrently
// as that interface allows.
type Log struct {
	opts    Options
	fs      vfs.FS
	dirPath string
	reserve int64
	dir     vfs.File
	lock    io.Closer

	life    sync.RWMutex // held for reading by every call, for writing by Close
	closed  bool
	closing chan struct{}
	once    sync.Once

	background  sync.WaitGroup
	wakeSpares  chan struct{}
	wakeMover   chan struct{}
	trimmed     chan struct{} // an entry was dropped while somebody may wait for space
	pool        sparePool
	space       spaceState
	spareNumber atomic.Uint64

	wmu  sync.Mutex // serialises writes; held while a file is begun and while a writer waits for space
	tail tail

	sync     syncState
	files    fileTable
	replicas replicaTable
	encoders sync.Pool
	counters counters
}

var _ raftio.ILogDB = (*Log)(nil)

// counters are the numbers behind Metrics.
type counters struct {
	bytesWritten, moved, recycled, deferred atomic.Int64
	syncs, syncNanos, syncMax               atomic.Int64
	blocked                                 atomic.Bool
}

func (c *counters) synced(d time.Duration) {
	c.syncs.Add(1)
	c.syncNanos.Add(int64(d))
	for old := c.syncMax.Load(); int64(d) > old && !c.syncMax.CompareAndSwap(old, int64(d)); old = c.syncMax.Load() {
	}
}

// Open opens the log in dir, which is created if need be, and recovers it. It returns ErrLocked, ErrNewerFormat or a
// *CorruptionError among others. It writes nothing yet: the first save begins a new file.
func Open(dir string, opts Options) (*Log, error) {
	opts.ensureDefaults()
	if err := opts.validate(); err != nil {
		return nil, err
	}
	l := &Log{
		opts: opts, fs: opts.FS, dirPath: dir,
		reserve:    min(maxReserve, opts.FileBytes/16),
		closing:    make(chan struct{}),
		wakeSpares: make(chan struct{}, 1),
		wakeMover:  make(chan struct{}, 1),
		trimmed:    make(chan struct{}, 1),
	}
	l.sync.done.L = &l.sync.mu
	l.pool.ready = make(chan struct{}, 1)
	l.replicas.m = make(map[raftio.NodeInfo]*replica)
	l.encoders.New = func() any { return new(encoder) }
	if err := l.start(); err != nil {
		return nil, errors.Join(fmt.Errorf("mosaik: open raft log %s: %w", dir, err), l.closeFiles())
	}
	l.background.Add(2)
	go l.runSpares()
	go l.runMover()
	return l, nil
}

func (l *Log) start() error {
	if err := makeDir(l.fs, l.dirPath); err != nil {
		return err
	}
	lock, err := l.fs.Lock(l.path(lockName))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrLocked, err)
	}
	l.lock = lock
	if l.dir, err = l.fs.OpenDir(l.dirPath); err != nil {
		return err
	}
	return l.openDir()
}

// makeDir creates dir and syncs every directory that got a new child.
func makeDir(fs vfs.FS, dir string) error {
	var parents []string
	for p := dir; ; {
		if _, err := fs.Stat(p); err == nil || !errors.Is(err, iofs.ErrNotExist) {
			break
		}
		parent := fs.PathDir(p)
		if parent == p {
			break
		}
		parents = append(parents, parent)
		p = parent
	}
	if err := fs.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, p := range parents {
		d, err := fs.OpenDir(p)
		if err != nil {
			return err
		}
		if err := errors.Join(d.Sync(), d.Close()); err != nil {
			return err
		}
	}
	return nil
}

func (l *Log) path(name string) string { return l.fs.PathJoin(l.dirPath, name) }

// enter begins a call; leave ends it.
func (l *Log) enter() error {
	l.life.RLock()
	if l.closed {
		l.life.RUnlock()
		return ErrClosed
	}
	return nil
}

func (l *Log) leave() { l.life.RUnlock() }

// Close ends the log: calls that wait for space are interrupted, calls under way are waited for, then the goroutines;
// deferred commit indexes are written, the closed record is written and synced, and the files are closed. A second
// Close returns nil.
func (l *Log) Close() error {
	l.once.Do(func() { close(l.closing) })
	l.life.Lock()
	defer l.life.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	l.background.Wait()
	return errors.Join(l.finish(), l.closeFiles())
}

// finish writes what ends a log in order. Without a file or space for it the log is left as a crash would leave it,
// which loses nothing that was acknowledged.
func (l *Log) finish() error {
	if l.failure() != nil {
		return nil
	}
	l.wmu.Lock()
	defer l.wmu.Unlock()
	var e encoder
	for _, r := range l.replicas.all() {
		if c := r.deferred(); c.flags != 0 {
			e.update(c, nil, nil)
		}
	}
	if l.tail.file == nil {
		if len(e.recs) == 0 {
			return nil
		}
		if err := l.rotate(); err != nil {
			return ignoreClosed(err)
		}
	}
	if len(e.recs) > 0 {
		if _, err := l.writeRecords(&e, 0, len(e.recs)); err != nil {
			return ignoreClosed(err)
		}
	}
	if err := l.syncTo(l.writtenNumber()); err != nil {
		return err
	}
	e.reset()
	e.closed()
	number, err := l.writeRecords(&e, 0, 1)
	if err != nil {
		return ignoreClosed(err)
	}
	return l.syncTo(number)
}

func ignoreClosed(err error) error {
	if errors.Is(err, ErrClosed) {
		return nil
	}
	return err
}

func (l *Log) closeFiles() error {
	var errs []error
	for _, f := range l.files.list {
		errs = append(errs, f.h.Close())
	}
	for _, s := range l.pool.list {
		errs = append(errs, s.h.Close())
	}
	if l.dir != nil {
		errs = append(errs, l.dir.Close())
	}
	if l.lock != nil {
		errs = append(errs, l.lock.Close())
	}
	return errors.Join(errs...)
}

// Metrics returns the counters.
func (l *Log) Metrics() Metrics {
	m := Metrics{
		BytesWritten:    l.counters.bytesWritten.Load(),
		BytesMoved:      l.counters.moved.Load(),
		Syncs:           l.counters.syncs.Load(),
		SyncTime:        time.Duration(l.counters.syncNanos.Load()),
		SyncTimeMax:     time.Duration(l.counters.syncMax.Load()),
		FilesRecycled:   l.counters.recycled.Load(),
		CommitsDeferred: l.counters.deferred.Load(),
		BlockedOnSpace:  l.counters.blocked.Load(),
		Full:            l.full(),
	}
	m.SpareFiles, _, _ = l.pool.state()
	l.replicas.mu.RLock()
	m.Replicas = len(l.replicas.m)
	l.replicas.mu.RUnlock()
	l.files.mu.RLock()
	defer l.files.mu.RUnlock()
	m.Files = len(l.files.list)
	for i, f := range l.files.list {
		m.FileBytes += f.size
		m.LiveBytes += f.liveBytes.Load()
		m.Entries += f.liveEntries.Load()
		if i == len(l.files.list)-1 {
			m.TailFree = max(0, l.opts.FileBytes-l.reserve-f.off.Load())
		}
	}
	return m
}

// Drain lets a writer that waits for room take the file held back for this. A
// Raft host that is to be closed waits for its writers first, so call it before.
func (l *Log) Drain() { l.pool.release() }

// Factory returns what config.NodeHostConfig.Expert.LogDBFactory wants.
func (l *Log) Factory() config.LogDBFactory { return factory{l} }

type factory struct{ log *Log }

// Create returns the log; configuration and directories were given to Open.
func (f factory) Create(config.NodeHostConfig, config.LogDBCallback, []string, []string) (raftio.ILogDB, error) {
	return f.log, nil
}

// Name returns the name dragonboat keeps in its flag file.
func (f factory) Name() string { return f.log.Name() }

// Name implements raftio.ILogDB.
func (l *Log) Name() string { return storeName }

// BinaryFormat implements raftio.ILogDB.
func (l *Log) BinaryFormat() uint32 { return binaryFormat }

// ListNodeInfo implements raftio.ILogDB: it lists the replicas that have a bootstrap, by shard and replica.
func (l *Log) ListNodeInfo() ([]raftio.NodeInfo, error) {
	if err := l.enter(); err != nil {
		return nil, err
	}
	defer l.leave()
	ids := []raftio.NodeInfo{}
	for _, r := range l.replicas.all() {
		r.mu.RLock()
		if r.bootstrap != nil {
			ids = append(ids, r.id)
		}
		r.mu.RUnlock()
	}
	slices.SortFunc(ids, func(a, b raftio.NodeInfo) int {
		return cmp.Or(cmp.Compare(a.ShardID, b.ShardID), cmp.Compare(a.ReplicaID, b.ReplicaID))
	})
	return ids, nil
}

// saveOne writes one durable record for a replica.
func (l *Log) saveOne(c change) error {
	if err := l.enter(); err != nil {
		return err
	}
	defer l.leave()
	var e encoder
	if !e.update(c, nil, nil) {
		return ErrTooLarge
	}
	return l.commit(&e, true)
}

// SaveBootstrapInfo implements raftio.ILogDB.
func (l *Log) SaveBootstrapInfo(shardID, replicaID uint64, bootstrap pb.Bootstrap) error {
	b, err := bootstrap.Marshal()
	if err != nil {
		return fmt.Errorf("mosaik: encode bootstrap: %w", err)
	}
	return l.saveOne(change{flags: flagBootstrap, shardID: shardID, replicaID: replicaID, bootstrap: b})
}

// GetBootstrapInfo implements raftio.ILogDB. It returns raftio.ErrNoBootstrapInfo if none was saved.
func (l *Log) GetBootstrapInfo(shardID, replicaID uint64) (pb.Bootstrap, error) {
	if err := l.enter(); err != nil {
		return pb.Bootstrap{}, err
	}
	defer l.leave()
	r := l.replicas.get(shardID, replicaID)
	if r == nil {
		return pb.Bootstrap{}, raftio.ErrNoBootstrapInfo
	}
	r.mu.RLock()
	b := r.bootstrap
	r.mu.RUnlock()
	if b == nil {
		return pb.Bootstrap{}, raftio.ErrNoBootstrapInfo
	}
	var bs pb.Bootstrap
	if err := bs.Unmarshal(b); err != nil {
		return pb.Bootstrap{}, fmt.Errorf("mosaik: decode bootstrap of %d.%d: %w", shardID, replicaID, err)
	}
	return bs, nil
}

// SaveRaftState implements raftio.ILogDB. It returns when everything in updates is durable. Each update is one record
// and takes effect as a whole or not at all; an update that changes only the commit index is kept in memory and written
// with the next record of its replica, which is safe as doc.go explains. It never fails for want of space: it waits.
func (l *Log) SaveRaftState(updates []pb.Update, _ uint64) error {
	if err := l.enter(); err != nil {
		return err
	}
	defer l.leave()
	e := l.encoders.Get().(*encoder)
	defer func() {
		e.reset()
		l.encoders.Put(e)
	}()
	for i := range updates {
		if err := l.encodeUpdate(e, &updates[i]); err != nil {
			return err
		}
	}
	return l.commit(e, true)
}

// encodeUpdate adds what u changes to e.
func (l *Log) encodeUpdate(e *encoder, u *pb.Update) error {
	hasSnapshot := !pb.IsEmptySnapshot(u.Snapshot)
	if pb.IsEmptyState(u.State) && !hasSnapshot && len(u.EntriesToSave) == 0 {
		return nil
	}
	r := l.replicas.ensure(u.ShardID, u.ReplicaID)
	r.mu.Lock()
	old, unsaved, trim, first, snapIndex := r.state, r.unsaved, r.trim, r.first, r.snapIndex
	changed := !pb.IsEmptyState(u.State) && u.State != old
	voted := changed && (u.State.Term != old.Term || u.State.Vote != old.Vote || pb.IsEmptyState(old))
	hasSnapshot = hasSnapshot && u.Snapshot.Index > snapIndex
	if !voted && !hasSnapshot && len(u.EntriesToSave) == 0 {
		if changed {
			r.state.Commit, r.unsaved = u.State.Commit, true
			l.counters.deferred.Add(1)
		}
		r.mu.Unlock()
		return nil
	}
	r.mu.Unlock()

	c := change{shardID: u.ShardID, replicaID: u.ReplicaID}
	switch {
	case changed:
		c.flags |= flagState
		c.state = u.State
	case unsaved:
		c.flags |= flagState
		c.state = old
	}
	if hasSnapshot {
		// A snapshot that comes with a Raft update was sent by the leader: it takes the place of the whole log.
		b, err := u.Snapshot.Marshal()
		if err != nil {
			return fmt.Errorf("mosaik: encode snapshot: %w", err)
		}
		c.flags |= flagSnapshot | flagClear | flagFirst
		c.snapshot, c.snapIndex, c.first = b, u.Snapshot.Index, u.Snapshot.Index+1
	} else if trim > first {
		c.flags |= flagFirst
		c.first = trim
	}
	if n := len(u.EntriesToSave); n > 0 {
		c.index = u.EntriesToSave[0].Index
		if c.first > c.index {
			c.first = c.index
		}
		for i := range u.EntriesToSave {
			if u.EntriesToSave[i].Index != c.index+uint64(i) {
				return fmt.Errorf("mosaik: entries of %d.%d have a gap: %d follows %d", u.ShardID, u.ReplicaID,
					u.EntriesToSave[i].Index, c.index+uint64(i)-1)
			}
		}
	}
	if !e.update(c, u.EntriesToSave, nil) {
		return fmt.Errorf("%w: update of %d.%d", ErrTooLarge, u.ShardID, u.ReplicaID)
	}
	return nil
}

// ReadRaftState implements raftio.ILogDB: the state of the replica and the range of its entries above lastIndex, which
// is the index of its snapshot. Without a saved state it returns raftio.ErrNoSavedLog.
func (l *Log) ReadRaftState(shardID, replicaID, lastIndex uint64) (raftio.RaftState, error) {
	if err := l.enter(); err != nil {
		return raftio.RaftState{}, err
	}
	defer l.leave()
	r := l.replicas.get(shardID, replicaID)
	if r == nil {
		return raftio.RaftState{}, raftio.ErrNoSavedLog
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	if pb.IsEmptyState(r.state) {
		return raftio.RaftState{}, raftio.ErrNoSavedLog
	}
	s := raftio.RaftState{State: r.state, FirstIndex: lastIndex}
	// A crash may have taken back a commit index that was not written yet. What is
	// in a snapshot was committed, and Raft refuses to start below it.
	s.State.Commit = max(s.State.Commit, r.snapIndex)
	if low := max(r.low(), lastIndex+1); low < r.next() {
		s.FirstIndex, s.EntryCount = low, r.next()-low
	}
	return s, nil
}

// RemoveEntriesTo implements raftio.ILogDB. The entries are gone for readers at once. That they are is written with the
// next record of the replica or with the next file: a crash before may bring them back, which Raft does not mind, and
// their space is not given away before.
func (l *Log) RemoveEntriesTo(shardID, replicaID, index uint64) error {
	if err := l.enter(); err != nil {
		return err
	}
	defer l.leave()
	r := l.replicas.get(shardID, replicaID)
	if r == nil {
		return nil
	}
	r.mu.Lock()
	if index >= r.next() {
		r.trim = r.next()
	} else {
		r.trim = max(r.trim, index+1)
	}
	r.mu.Unlock()
	poke(l.trimmed)
	return nil
}

// CompactEntriesTo implements raftio.ILogDB. Space is given back in the background anyway; the channel is closed.
func (l *Log) CompactEntriesTo(_, _, _ uint64) (<-chan struct{}, error) {
	if err := l.enter(); err != nil {
		return nil, err
	}
	defer l.leave()
	poke(l.wakeSpares)
	poke(l.wakeMover)
	done := make(chan struct{})
	close(done)
	return done, nil
}

// SaveSnapshots implements raftio.ILogDB: it saves the metadata of snapshots the replicas made themselves. One that is
// not newer than what is saved is ignored.
func (l *Log) SaveSnapshots(updates []pb.Update) error {
	if err := l.enter(); err != nil {
		return err
	}
	defer l.leave()
	var e encoder
	for i := range updates {
		u := &updates[i]
		if pb.IsEmptySnapshot(u.Snapshot) {
			continue
		}
		r := l.replicas.ensure(u.ShardID, u.ReplicaID)
		r.mu.RLock()
		old := r.snapIndex
		r.mu.RUnlock()
		if u.Snapshot.Index <= old {
			continue
		}
		b, err := u.Snapshot.Marshal()
		if err != nil {
			return fmt.Errorf("mosaik: encode snapshot: %w", err)
		}
		if !e.update(change{
			flags: flagSnapshot, shardID: u.ShardID, replicaID: u.ReplicaID, snapshot: b, snapIndex: u.Snapshot.Index,
		}, nil, nil) {
			return ErrTooLarge
		}
	}
	return l.commit(&e, true)
}

// GetSnapshot implements raftio.ILogDB: the newest snapshot saved, or an empty one.
func (l *Log) GetSnapshot(shardID, replicaID uint64) (pb.Snapshot, error) {
	if err := l.enter(); err != nil {
		return pb.Snapshot{}, err
	}
	defer l.leave()
	r := l.replicas.get(shardID, replicaID)
	if r == nil {
		return pb.Snapshot{}, nil
	}
	r.mu.RLock()
	b := r.snapshot
	r.mu.RUnlock()
	var s pb.Snapshot
	if b == nil {
		return s, nil
	}
	if err := s.Unmarshal(b); err != nil {
		return pb.Snapshot{}, fmt.Errorf("mosaik: decode snapshot of %d.%d: %w", shardID, replicaID, err)
	}
	return s, nil
}

// RemoveNodeData implements raftio.ILogDB: everything of the replica, its bootstrap included, is forgotten durably.
func (l *Log) RemoveNodeData(shardID, replicaID uint64) error {
	if err := l.enter(); err != nil {
		return err
	}
	defer l.leave()
	r := l.replicas.get(shardID, replicaID)
	if r == nil {
		return nil
	}
	var e encoder
	e.update(change{flags: flagReset, shardID: shardID, replicaID: replicaID}, nil, nil)
	if err := l.commit(&e, true); err != nil {
		return err
	}
	poke(l.wakeSpares)
	return nil
}

// ImportSnapshot implements raftio.ILogDB: in one record the replica becomes one that joined its group with snapshot.
func (l *Log) ImportSnapshot(snapshot pb.Snapshot, replicaID uint64) error {
	if snapshot.Type == pb.UnknownStateMachine {
		return errors.New("mosaik: the imported snapshot has no state machine type")
	}
	boot := pb.Bootstrap{Join: true, Type: snapshot.Type}
	bs, err := boot.Marshal()
	if err != nil {
		return fmt.Errorf("mosaik: encode bootstrap: %w", err)
	}
	ss, err := snapshot.Marshal()
	if err != nil {
		return fmt.Errorf("mosaik: encode snapshot: %w", err)
	}
	return l.saveOne(change{
		flags:   flagReset | flagState | flagBootstrap | flagSnapshot | flagFirst,
		shardID: snapshot.ShardID, replicaID: replicaID,
		state: pb.State{Term: snapshot.Term, Commit: snapshot.Index}, first: snapshot.Index + 1,
		bootstrap: bs, snapshot: ss, snapIndex: snapshot.Index,
	})
}
