package engine

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/snapshot"
)

// The archive. Of a sealed segment each member keeps one shard in a file. When
// all have theirs and the retention allows it, the commits leave the store, and
// whoever reads them restores them from the shards of K members: the cursor of
// read.go does so where the store ends, so scans, replays, audits and reads of the
// past do not notice.
//
//	archive/<shard number, 16 hex digits>/<segment>.commits    a shard of the segment
//	archive/<shard number, 16 hex digits>/<segment>.state      a shard of its state
//
// A file is what package snapshot calls a shard, nothing more; the manifest says
// what it has to hash to.

// Retention says how much of a group's history stays in the store of each node.
// What is beyond it is archived once it is sealed and every member has its shard.
// A segment stays while any of the limits that are set wants it to; if none is
// set, everything stays.
type Retention struct {
	// Segments is how many of the newest sealed segments stay.
	Segments int
	// Bytes is how much sealed history stays, newest first.
	Bytes int64
	// Age is how old the last commit of a segment may be.
	Age time.Duration
}

func (r Retention) none() bool { return r == Retention{} }

// keeps reports whether a segment is to stay, given the segments that came after
// it.
func (r Retention) keeps(m *snapshot.Manifest, after []*snapshot.Manifest, now time.Time) bool {
	var bytes uint64
	for _, a := range after {
		bytes += a.Commits.Size
	}
	switch {
	case r.none():
		return true
	case r.Segments > 0 && len(after) < r.Segments:
		return true
	case r.Bytes > 0 && bytes+m.Commits.Size <= uint64(r.Bytes):
		return true
	}
	return r.Age > 0 && now.Sub(time.Unix(0, m.Time)) < r.Age
}

// archiveDirName is the directory of the shards in that of the store.
const archiveDirName = "archive"

func (g *Group) shardDir() string {
	fs := g.engine.opts.FS
	return fs.PathJoin(g.engine.dir, archiveDirName, fmt.Sprintf("%016x", g.shard))
}

// shardPath returns where this member keeps its shard of a segment.
func (g *Group) shardPath(segment uint64, state bool) string {
	kind := ".commits"
	if state {
		kind = ".state"
	}
	return g.engine.opts.FS.PathJoin(g.shardDir(), strconv.FormatUint(segment, 10)+kind)
}

// shardTemp is what the name of a shard ends with while it is not agreed on.
const shardTemp = ".new"

// shardFile is a shard that is being written.
type shardFile struct {
	*bufio.Writer
	f vfs.File
}

// createShard begins a shard, under its temporary name.
func (g *Group) createShard(segment uint64, state bool) (*shardFile, error) {
	fs := g.engine.opts.FS
	if err := makeDir(fs, g.shardDir()); err != nil {
		return nil, err
	}
	f, err := fs.Create(g.shardPath(segment, state)+shardTemp, vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, err
	}
	f = smooth(f)
	return &shardFile{bufio.NewWriterSize(f, 1<<20), f}, nil
}

// smooth has the file written to the disk while it grows. Else its sync at the end is
// one of many megabytes, which the syncs of the Raft log wait behind.
func smooth(f vfs.File) vfs.File {
	return vfs.NewSyncingFile(f, vfs.SyncingFileOptions{BytesPerSync: 512 << 10})
}

// finish makes the shard durable and closes it.
func (s *shardFile) finish() error {
	return errors.Join(s.Flush(), s.f.Sync(), s.f.Close())
}

// keepShards gives the shards of a segment that is agreed on their names.
func (g *Group) keepShards(m *snapshot.Manifest) error {
	fs := g.engine.opts.FS
	for _, state := range []bool{false, true} {
		if state && m.State.Size == 0 {
			continue
		}
		path := g.shardPath(m.Number, state)
		if err := fs.Rename(path+shardTemp, path); err != nil && (!state || !errors.Is(err, os.ErrNotExist)) {
			return err
		}
	}
	if err := syncDir(fs, g.shardDir()); err != nil || m.State.Size == 0 {
		return err
	}
	return g.forgetStates(m.Number)
}

// keptStates is how many captured states a member keeps its shards of. The last
// one is what a sync takes, and the one before while others do not have that yet.
const keptStates = 2

// forgetStates removes this member's shards of states that were captured before
// the last ones.
func (g *Group) forgetStates(segment uint64) error {
	kept := 0
	for n := segment; n > 0; n-- {
		m := g.replica.sealed.manifest(n)
		if m == nil && n < segment || m != nil && m.State.Size == 0 {
			continue
		}
		if kept++; kept <= keptStates {
			continue
		}
		err := g.engine.opts.FS.Remove(g.shardPath(n, true))
		if errors.Is(err, os.ErrNotExist) {
			return nil // and so are those before
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// hasShard reports whether this member's shard of an object is there.
func (g *Group) hasShard(m *snapshot.Manifest, state bool) bool {
	_, err := g.engine.opts.FS.Stat(g.shardPath(m.Number, state))
	return err == nil
}

// archive takes commits out of the store that the retention does not keep there.
func (g *Group) archive(ctx context.Context) (err error) {
	keep, special := g.engine.opts.GroupRetention[g.name]
	if !special {
		keep = g.engine.opts.Retention
	}
	if keep.none() {
		return nil
	}
	stored, exists, err := g.replica.loadState()
	if err != nil || !exists {
		return err
	}
	s := &g.replica.sealed
	var first, last uint64 // commits that were dropped
	defer func() {
		if last > 0 {
			err = errors.Join(err, g.replica.reclaim(ctx, first, last))
		}
	}()
	for {
		s.mu.RLock()
		n := s.mu.archived
		manifests := s.mu.manifests[n:]
		held := slices.Min(s.mu.held)
		pinned := len(s.mu.pins) > 0 && len(manifests) > 0 && s.mu.pins[0] <= manifests[0].Last
		s.mu.RUnlock()
		if len(manifests) == 0 || held <= n || pinned || !g.hasShard(manifests[0], false) || keep.keeps(manifests[0], manifests[1:], time.Now()) {
			return nil
		}
		m := manifests[0]
		if m.Last >= stored.horizon {
			return nil // its postings are not all written yet
		}
		if err := g.replica.drop(m); err != nil {
			return fmt.Errorf("archive segment %d of group %s: %w", m.Number, g.name, err)
		}
		first, last = cmp.Or(first, m.First), m.Last
		g.engine.opts.Events.Archived(g.name, m)
	}
}

// drop takes a segment's commits out of the store. Readers that have looked go on
// with what they see; later ones turn to the archive before the commits are gone.
func (r *replica) drop(m *snapshot.Manifest) error {
	r.sealed.mu.Lock()
	defer r.sealed.mu.Unlock()
	r.sealed.mu.archived = m.Number
	r.archivedTo.Store(m.Last)
	b := r.db.NewBatch()
	defer b.Close()
	err := errors.Join(
		b.DeleteRange(appendCommitKey(nil, r.shard, m.First, 0), appendCommitKey(nil, r.shard, m.Last+1, 0), nil),
		r.setProgress(b),
	)
	if err != nil {
		return err
	}
	r.unflushed.Store(true)
	return b.Commit(pebble.NoSync)
}

// reclaim gives back the space of commits that are gone. Their values lie in files of
// their own, which go when no table names them any more; but a table names thousands
// of them and has other rows as well, so that it is not dropped as a whole. Without
// this it would be written anew some day, when enough has been written on top.
func (r *replica) reclaim(ctx context.Context, first, last uint64) error {
	if err := r.flush(); err != nil {
		return err
	}
	return r.db.Compact(ctx, appendCommitKey(nil, r.shard, first, 0), appendCommitKey(nil, r.shard, last+1, 0), false)
}

// openShards returns readers of all shards of an object: this member's from its
// file, the others' from the members that have them.
func (g *Group) openShards(m *snapshot.Manifest, state bool) (shards []io.ReaderAt, own io.Closer, err error) {
	e := g.engine
	c := &m.Commits
	if state {
		c = &m.State
	}
	shards = make([]io.ReaderAt, c.Geometry.Shards())
	members, seat := g.members.known(), g.seat()
	for i := range shards {
		if uint64(i+1) == seat {
			f, err := e.opts.FS.Open(g.shardPath(m.Number, state))
			if err == nil {
				shards[i], own = f, f
			} else if !errors.Is(err, os.ErrNotExist) {
				return nil, nil, err
			}
			continue
		}
		if holder, taken := members.Holder(uint64(i + 1)); e.opts.Peers != nil && taken {
			r := snapshot.Request{Group: g.id, Segment: m.Number, State: state, Shard: i}
			shards[i] = snapshot.RemoteShard(e.background, e.opts.Peers, holder.Peer, c, r)
		}
	}
	return shards, own, nil
}

// badShard tells of a shard that was asked for and is not good.
func (g *Group) badShard(m *snapshot.Manifest) func(*snapshot.ShardError) {
	return func(err *snapshot.ShardError) {
		e := g.engine
		holder, _ := g.members.known().Holder(uint64(err.Shard + 1))
		e.opts.Logger.Warn("bad shard", "group", g.name, "segment", m.Number, "member", holder.Peer.Short(), "err", err)
		e.opts.Events.BadShard(g.name, m.Number, holder.Peer, err)
	}
}

// openArchived opens the segment that has a commit.
func (g *Group) openArchived(commit uint64) (*archived, error) {
	m := g.replica.sealed.holding(commit)
	if m == nil {
		return nil, &log.CorruptionError{Group: g.id, Commit: commit, Err: errors.New("it is archived, but no segment has it")}
	}
	shards, own, err := g.openShards(m, false)
	if err != nil {
		return nil, err
	}
	s, err := snapshot.OpenSegment(m, shards, g.badShard(m))
	return &archived{Segment: s, m: m, own: own}, err
}

// archived is an open segment of the archive.
type archived struct {
	*snapshot.Segment
	m   *snapshot.Manifest
	own io.Closer // the file of this member's shard, nil if it is not there
}

func (a *archived) has(commit uint64) bool {
	return a != nil && a.m.First <= commit && commit <= a.m.Last
}

// close lets go of the segment's files; a may be nil.
func (a *archived) close() error {
	if a == nil || a.own == nil {
		return nil
	}
	return a.own.Close()
}

// ServeShard answers the request of another member for a part of a shard. Whose
// shard it is does not matter while the commits are in the store: any member makes
// any shard from them. Of archived segments a member has only its own.
func (e *Engine) ServeShard(ctx context.Context, r snapshot.Request) ([]byte, error) {
	if err := e.checkOpen(); err != nil {
		return nil, err
	}
	defer e.release()
	for _, g := range e.groups {
		if g.id == r.Group {
			b, err := g.serveShard(ctx, r)
			if err == nil {
				err = e.serving.WaitN(ctx, len(b))
			}
			return b, err
		}
	}
	return nil, fmt.Errorf("%w: group %s", log.ErrNotFound, r.Group.Short())
}

func (g *Group) serveShard(ctx context.Context, r snapshot.Request) ([]byte, error) {
	m := g.replica.sealed.manifest(r.Segment)
	if m == nil || r.State && m.State.Size == 0 {
		return nil, fmt.Errorf("%w: segment %d of group %s", log.ErrNotFound, r.Segment, g.name)
	}
	c := &m.Commits
	if r.State {
		c = &m.State
	}
	if uint64(r.Shard+1) == g.seat() {
		f, err := g.engine.opts.FS.Open(g.shardPath(r.Segment, r.State))
		if err == nil {
			b, err := r.Answer(c, f)
			return b, errors.Join(err, f.Close())
		}
		if !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	if r.State && m.Last < g.replica.viewsFrom.Load() {
		return nil, fmt.Errorf("%w: shard %d of the state with segment %d of group %s", log.ErrNotFound, r.Shard, r.Segment, g.name)
	}
	if !r.State && m.Last <= g.replica.archivedTo.Load() {
		return nil, fmt.Errorf("%w: shard %d of segment %d of group %s, which is archived", log.ErrNotFound, r.Shard, r.Segment, g.name)
	}
	object, err := g.served.object(ctx, g, m, r.State)
	if err != nil {
		return nil, err
	}
	return r.AnswerFrom(c, object)
}

// servedObjects is how many objects are kept in memory for members that ask.
const servedObjects = 3

// served holds the objects that other members asked for last.
type served struct {
	mu      sync.Mutex // held while an object is read, so that it is read once
	objects []servedObject
}

type servedObject struct {
	segment uint64
	state   bool
	bytes   []byte
}

// object returns the bytes of a segment or state. They are not compared with the
// manifest: who asked does that.
func (s *served) object(ctx context.Context, g *Group, m *snapshot.Manifest, state bool) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range s.objects {
		if o.segment == m.Number && o.state == state {
			return o.bytes, nil
		}
	}
	size := m.Commits.Size
	if state {
		size = m.State.Size
	}
	object := make(sliceWriter, 0, size)
	var err error
	if state {
		err = g.writeState(ctx, &object, m.Last)
	} else {
		_, err = g.writeSegment(ctx, &object, m.Range, false)
	}
	if err != nil {
		return nil, err
	}
	if len(s.objects) == servedObjects {
		s.objects = s.objects[1:]
	}
	s.objects = append(s.objects, servedObject{m.Number, state, object})
	return object, nil
}
