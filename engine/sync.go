package engine

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/snapshot"
)

// State sync: a member that has got an offer (transfer.go) brings itself to where
// the offer stands.
//
//  1. mark      the store says that a sync is under way; the group is not read meanwhile
//  2. start     from what the member has, if the offer goes on from there; else from
//     nothing, but for commits it has whole
//  3. segments  each is fetched, its commits checked against the manifest and each
//     against the one before, and ingested as a table
//  4. views     folded on from what the member has; or taken from the last captured
//     state, compared with the header of its commit, and folded on from there
//  5. tail      the commits of the offer itself
//  6. end       the state row of the offer, which must agree with all that; the mark goes
//
// A node that stops in between finds the mark when it is opened again, and the
// Raft library makes the offer again before it does anything else with the group;
// commits that are there by then are not fetched twice.

// What the mark says: whether the views are as of the state row, or are missing.
const (
	syncOn   = 1 // from what the member has
	syncAnew = 2 // from nothing
)

// SyncReport says what a sync has done.
type SyncReport struct {
	Commit   uint64                     // last commit
	Segments uint64                     // that were taken over
	Fetched  uint64                     // of those, from other members
	Anew     bool                       // the member had nothing to go on from
	Sent     map[identity.PeerID]uint64 // bytes, by member
	Took     time.Duration
}

// syncing is a sync under way.
type syncing struct {
	g      *Group
	r      *replica
	o      *offer
	f      *snapshot.Fetcher
	from   uint64 // views are folded from the commit after this one on
	report SyncReport
	batch  int // bytes of commits since the last write
	ahead  *ahead
}

// ahead is the next segment, which is on its way while one is taken over.
type ahead struct {
	m      *snapshot.Manifest
	object []byte
	here   bool // the store had its commits
	err    error
	done   chan struct{}
}

// receive brings the replica to where an offer stands. It returns when that is
// done, or errStopped when the library stops it: any other error ends the process,
// so what another member may still mend is tried again and again.
func (g *Group) receive(in io.Reader, stop <-chan struct{}) error {
	r := g.replica
	r.applying.Lock()
	defer r.applying.Unlock()
	o, err := readOffer(in)
	if err != nil {
		return fmt.Errorf("mosaik: receive state: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go runStop(ctx, stop, cancel)
	s := &syncing{g: g, r: r, o: o, f: &snapshot.Fetcher{Peers: g.engine.opts.Peers, Members: g.others(), Bad: g.badMember}}
	began := time.Now()
	r.withhold() // until load has published the new state
	if err := s.run(ctx); err != nil {
		if ctx.Err() != nil {
			return errStopped()
		}
		return fmt.Errorf("mosaik: state sync of group %s: %w", g.name, err)
	}
	s.report.Commit, s.report.Sent, s.report.Took = r.state.number, s.f.Sent(), time.Since(began)
	r.offer()
	g.synced(s.report)
	return nil
}

// runStop cancels when stop is closed, and ends with ctx.
func runStop(ctx context.Context, stop <-chan struct{}, cancel context.CancelFunc) {
	select {
	case <-stop:
		cancel()
	case <-ctx.Done():
	}
}

// others returns who has the seats, with this member and vacant ones left out.
func (g *Group) others() []identity.PeerID {
	members := g.members.known()
	others := make([]identity.PeerID, members.Seats)
	for i := range others {
		if holder, _ := members.Holder(uint64(i + 1)); holder.Peer != g.engine.opts.Peer {
			others[i] = holder.Peer
		}
	}
	return others
}

// badMember tells of a member that did not send what it should.
func (g *Group) badMember(m identity.PeerID, err error) {
	e := g.engine
	e.opts.Logger.Warn("a member does not send what it should", "group", g.name, "member", m.Short(), "err", err)
	e.opts.Events.BadShard(g.name, 0, m, err)
}

func (s *syncing) run(ctx context.Context) error {
	if err := s.start(); err != nil {
		return err
	}
	state := s.captured()
	defer func() {
		if s.ahead != nil { // of a sync that has failed; ctx ends with it
			<-s.ahead.done
		}
	}()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for i, m := range s.o.manifests {
		if m.Last <= s.r.state.number {
			continue
		}
		var next *snapshot.Manifest
		if i+1 < len(s.o.manifests) {
			next = s.o.manifests[i+1]
		}
		if err := s.segment(ctx, m, next, m == state); err != nil {
			return fmt.Errorf("segment %d: %w", m.Number, err)
		}
	}
	if err := s.tail(ctx); err != nil {
		return err
	}
	return s.end()
}

// start decides where to start from and marks that the sync is under way.
func (s *syncing) start() error {
	r := s.r
	mark, err := r.metaRow(metaSyncing)
	if err != nil {
		return err
	}
	anew := r.state.number == 0 || r.divergence() != nil || len(mark) == 1 && mark[0] == syncAnew || r.state.number > s.o.state.number
	for _, m := range s.o.manifests { // a chain that is not the group's is of no use
		anew = anew || m.Last == r.state.number && m.Digest != r.state.digest || m.First == r.state.number+1 && m.Prev != r.state.digest
	}
	r.batch.Reset()
	kind := byte(syncOn)
	if anew {
		kind = syncAnew
		if err := s.drop(); err != nil {
			return err
		}
	}
	s.report.Anew = anew
	s.from = r.state.number
	if err := errors.Join(
		r.batch.Set(appendMetaKey(nil, r.shard, metaSyncing), []byte{kind}, nil),
		r.batch.Delete(appendMetaKey(nil, r.shard, metaDiverged), nil),
	); err != nil {
		return err
	}
	r.unflushed.Store(true)
	if err := r.batch.Commit(pebble.NoSync); err != nil {
		return err
	}
	r.batch.Reset()
	// The mark must be on disk before a table is ingested beyond the head.
	return r.flush()
}

// drop removes all the replica has of the group but its commits, and what an
// operator has pinned.
func (s *syncing) drop() error {
	r := s.r
	pins, err := r.metaRow(metaPins)
	if err != nil {
		return err
	}
	applied, proposers := r.state.applied, r.state.proposers
	for _, space := range [][2]byte{{spaceMeta, spaceCommit}, {spaceView, spaceEnd}} {
		if err := r.batch.DeleteRange(appendSpace(nil, r.shard, space[0]), appendSpace(nil, r.shard, space[1]), nil); err != nil {
			return err
		}
	}
	if pins != nil {
		if err := r.batch.Set(appendMetaKey(nil, r.shard, metaPins), pins, nil); err != nil {
			return err
		}
	}
	r.state = state{horizon: 1, applied: applied, proposers: proposers}
	r.fold.Hash, r.stateDigest, r.touched = log.StateHash{}, log.Digest{}, false
	r.views, r.dirty, r.full = make(map[uint32]*keyLog), nil, nil
	r.lastRemoved.Store(0)
	r.archivedTo.Store(0)
	r.mu.Lock()
	r.mu.logs = make(map[identity.ID]*keyLog)
	r.mu.head, r.mu.state, r.mu.total = log.Head{}, log.Digest{}, totals{}
	r.mu.Unlock()
	return nil
}

// captured returns the last segment with a state, if the views are taken from
// there.
func (s *syncing) captured() *snapshot.Manifest {
	if !s.report.Anew {
		return nil
	}
	for i := len(s.o.manifests) - 1; i >= 0; i-- {
		if m := s.o.manifests[i]; m.State.Size > 0 {
			s.from = m.Last
			return m
		}
	}
	return nil
}

// segment takes over the commits of a segment that are not here yet, and with them
// the state that was captured, if the views are taken from there.
func (s *syncing) segment(ctx context.Context, m, next *snapshot.Manifest, state bool) error {
	got := s.ahead
	if got == nil {
		got = s.bring(ctx, m)
	}
	<-got.done
	s.ahead = nil
	if got.err != nil {
		return got.err
	}
	if next != nil && !state { // one object at a time
		s.ahead = s.bring(ctx, next)
	}
	object, here := got.object, got.here
	if !here {
		s.report.Fetched++
	}
	s.report.Segments++
	var commits []log.Commit // checked; bodies in object
	for c, err := range snapshot.Commits(m, object) {
		if err != nil {
			return err
		}
		commits = append(commits, c)
	}
	if !here {
		if err := s.ingestCommits(m, commits); err != nil {
			return err
		}
	}
	if err := s.keepShard(m, object, false); err != nil {
		return err
	}
	for i := range commits {
		if commits[i].Header.Number <= s.r.state.number {
			continue
		}
		if err := s.commit(&commits[i], true); err != nil {
			return err
		}
	}
	if err := s.write(); err != nil {
		return err
	}
	if !state {
		return nil
	}
	rows, err := s.fetch(ctx, m, true)
	if err != nil {
		return err
	}
	if err := s.keepShard(m, rows, true); err != nil {
		return err
	}
	return s.installState(m, rows)
}

// bring begins to bring a segment, from the store or from other members.
func (s *syncing) bring(ctx context.Context, m *snapshot.Manifest) *ahead {
	a := &ahead{m: m, done: make(chan struct{})}
	go s.runBring(ctx, a)
	return a
}

// runBring brings one segment.
func (s *syncing) runBring(ctx context.Context, a *ahead) {
	defer close(a.done)
	if a.object, a.here, a.err = s.local(ctx, a.m); a.err == nil && !a.here {
		a.object, a.err = s.fetch(ctx, a.m, false)
	}
}

// local returns the bytes of a segment whose commits the store has whole.
func (s *syncing) local(ctx context.Context, m *snapshot.Manifest) ([]byte, bool, error) {
	cur, err := s.r.newCursorOn(s.r.db, m.First)
	if err != nil {
		return nil, false, err
	}
	defer cur.close()
	object := make(sliceWriter, 0, m.Commits.Size)
	w, err := snapshot.NewSegmentWriter(&object, m.Range)
	if err != nil {
		return nil, false, err
	}
	for n := m.First; n <= m.Last; n++ {
		if err := ctx.Err(); err != nil {
			return nil, false, err
		}
		c, err := cur.commit(n)
		if err == nil {
			err = w.Add(&c)
		}
		if err != nil {
			return nil, false, nil // it is not here, or not as it should be
		}
	}
	if _, err := w.Close(); err != nil || log.Sum(object) != m.Commits.Hash {
		return nil, false, nil
	}
	return object, true, nil
}

// sliceWriter collects what is written.
type sliceWriter []byte

func (s *sliceWriter) Write(b []byte) (int, error) {
	*s = append(*s, b...)
	return len(b), nil
}

// fetchPause is how long a sync waits until it asks again for what no member
// could give.
const fetchPause = time.Second

// fetch brings an object from other members, however long it takes.
func (s *syncing) fetch(ctx context.Context, m *snapshot.Manifest, state bool) ([]byte, error) {
	c := &m.Commits
	if state {
		c = &m.State
	}
	for {
		r := snapshot.Request{Group: s.g.id, Segment: m.Number, State: state}
		b, err := s.f.Bytes(ctx, c, r)
		if err == nil || !errors.Is(err, snapshot.ErrShards) {
			return b, err
		}
		s.g.engine.opts.Logger.Warn("state sync waits for members that can give what is missing", "group", s.g.name, "segment", m.Number, "err", err)
		select {
		case <-time.After(fetchPause):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// keepShard writes this member's shard of an object. One that gets its seat later, of
// which the log of members tells, makes its shards then (newSealer).
func (s *syncing) keepShard(m *snapshot.Manifest, object []byte, state bool) error {
	seat := s.g.seat()
	if seat == 0 {
		return nil
	}
	fs := s.g.engine.opts.FS
	path := s.g.shardPath(m.Number, state)
	if _, err := fs.Stat(path); err == nil || !errors.Is(err, os.ErrNotExist) {
		return err
	}
	f, err := s.g.createShard(m.Number, state)
	if err != nil {
		return err
	}
	c := &m.Commits
	if state {
		c = &m.State
	}
	err = snapshot.WriteShard(f, c, object, int(seat)-1)
	if err = errors.Join(err, f.finish()); err != nil {
		return err
	}
	return errors.Join(fs.Rename(path+shardTemp, path), syncDir(fs, s.g.shardDir()))
}

// table is a table of the store that is being written.
type table struct {
	path string
	w    *sstable.Writer
}

// newTable begins a table beside the store, which ingest will make part of it.
func (s *syncing) newTable() (*table, error) {
	e := s.g.engine
	path := e.opts.FS.PathJoin(e.dir, storeDirName, fmt.Sprintf("sync-%016x.tmp", s.r.shard))
	f, err := e.db.fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, err
	}
	o := e.db.opts.MakeWriterOptions(len(e.db.opts.Levels)-1, e.db.TableFormat())
	return &table{path, sstable.NewWriter(objstorageprovider.NewFileWritable(smooth(f)), o)}, nil
}

// ingest makes the table part of the store, and durable.
func (s *syncing) ingest(ctx context.Context, t *table) error {
	if err := t.w.Close(); err != nil {
		return err
	}
	return s.r.db.Ingest(ctx, []string{t.path})
}

// ingestCommits puts the commits of a segment into the store, but for those up to the
// replica's head. These are there, and are needed should the node stop between the
// removal of what is in the way and the ingestion.
func (s *syncing) ingestCommits(m *snapshot.Manifest, commits []log.Commit) error {
	for len(commits) > 0 && commits[0].Header.Number <= s.r.state.number {
		commits = commits[1:]
	}
	lower, upper := appendCommitKey(nil, s.r.shard, max(m.First, s.r.state.number+1), 0), appendCommitKey(nil, s.r.shard, m.Last+1, 0)
	if err := s.clear(lower, upper); err != nil {
		return err
	}
	t, err := s.newTable()
	if err != nil {
		return err
	}
	var key, encoded []byte
	for i := range commits {
		c := &commits[i]
		encoded = c.AppendTo(encoded[:0])
		rest := encoded
		for piece := 0; len(rest) > 0; piece++ {
			n := min(len(rest), pieceBytes)
			key = appendCommitKey(key[:0], s.r.shard, c.Header.Number, piece)
			if err := t.w.Set(key, rest[:n]); err != nil {
				return errors.Join(err, t.w.Close())
			}
			rest = rest[n:]
		}
	}
	return s.ingest(context.Background(), t)
}

// clear removes the rows of a range, if there are any.
func (s *syncing) clear(lower, upper []byte) error {
	it, err := s.r.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return err
	}
	some := it.First()
	if err := errors.Join(it.Error(), it.Close()); err != nil || !some {
		return err
	}
	s.r.unflushed.Store(true)
	return s.r.db.DeleteRange(lower, upper, pebble.NoSync)
}

// installState makes the rows of a captured state the views.
func (s *syncing) installState(m *snapshot.Manifest, object []byte) error {
	r := s.r
	if err := s.clear(appendSpace(nil, r.shard, spaceView), appendSpace(nil, r.shard, spaceHistory+1)); err != nil {
		return err
	}
	t, err := s.newTable()
	if err != nil {
		return err
	}
	var key, value []byte
	hash, err := snapshot.ReadState(bytes.NewReader(object), s.g.id, m.Last, func(row snapshot.StateRow) error {
		key = appendViewKey(key[:0], r.shard, row.View, row.Generation, row.Key)
		value = append(binary.AppendUvarint(value[:0], row.Commit), row.Value...)
		return t.w.Set(key, value)
	})
	if err != nil {
		return errors.Join(err, t.w.Close())
	}
	h, err := r.header(m.Last)
	if err == nil && hash.Digest() != h.State {
		err = &log.CorruptionError{Group: s.g.id, Commit: m.Last,
			Err: fmt.Errorf("the captured state has the digest %s, the header %s: it is not what the group agreed on", hash.Digest(), h.State)}
	}
	if err != nil {
		return errors.Join(err, t.w.Close())
	}
	if err := s.ingest(context.Background(), t); err != nil {
		return err
	}
	r.fold.Hash, r.stateDigest = hash, hash.Digest()
	r.batch.Reset()
	if err := errors.Join(
		r.batch.Set(appendMetaKey(nil, r.shard, metaStateHash), hash.AppendTo(nil), nil),
		r.batch.Set(appendMetaKey(nil, r.shard, metaViewsFrom), binary.LittleEndian.AppendUint64(nil, m.Last), nil),
	); err != nil {
		return err
	}
	return s.write()
}

// commit takes over the next commit, which is checked against itself, and which
// the store has already or not.
func (s *syncing) commit(c *log.Commit, stored bool) error {
	r := s.r
	h := &c.Header
	bad := func(err error) error { return &log.CorruptionError{Group: s.g.id, Commit: h.Number, Err: err} }
	if !s.report.Anew && h.Number == s.from+1 && h.Number == r.state.number+1 && h.Prev != r.state.digest {
		return s.anewNextTime()
	}
	if h.Group != r.group || h.Number != r.state.number+1 || h.Prev != r.state.digest || h.Time < r.state.time {
		return bad(fmt.Errorf("it does not follow commit %d, which has the digest %s", r.state.number, r.state.digest))
	}
	if s.batch == 0 {
		r.batch.Reset()
		r.pending, r.closing = r.pending[:0], r.closing[:0]
		if err := r.closeChunks(); err != nil {
			return err
		}
	}
	folding := h.Number > s.from
	if folding {
		r.fold.Begin(h.Number, h.Time)
		r.results = r.results[:0]
	}
	for run, err := range c.Runs() {
		if err != nil {
			return err
		}
		l := r.logOf(run.Key)
		if run.FirstSeq != l.nextApply {
			return bad(fmt.Errorf("key %s continues with seq %d, expected %d", run.Key.Short(), run.FirstSeq, l.nextApply))
		}
		if folding {
			if err := r.foldRun(l, &run); err != nil {
				return err
			}
		}
		r.pending = append(r.pending, pendingRun{l, posting{h.Number, run.FirstSeq, run.Count, run.Offset()}})
		l.nextApply += uint64(run.Count)
	}
	if folding {
		state, err := r.endFold(h.Number)
		if err != nil {
			return err
		}
		if state != h.State {
			return bad(fmt.Errorf("folding the log comes to the state %s, the header has %s", state, h.State))
		}
	}
	if !stored {
		for piece, rest := 0, c.AppendTo(nil); len(rest) > 0; piece++ {
			n := min(len(rest), pieceBytes)
			if err := r.batch.Set(appendCommitKey(nil, r.shard, h.Number, piece), rest[:n], nil); err != nil {
				return err
			}
			rest = rest[n:]
		}
	}
	st := &r.state
	st.number, st.digest, st.time = h.Number, c.Digest, h.Time
	st.records += uint64(h.Records)
	st.bytes += uint64(len(c.Body))
	r.recent[h.Number%recentDigests] = recentDigest{h.Number, c.Digest}
	if s.batch += log.HeaderSize + len(c.Body); s.batch >= syncBatch || r.touched {
		return s.write()
	}
	return nil
}

// syncBatch bounds the commits whose rows are written at once.
const syncBatch = 1 << 20

// write writes what was taken over since the last time, with the state row.
func (s *syncing) write() error {
	s.batch = 0
	if err := s.r.write(); err != nil {
		return err
	}
	s.r.publish()
	s.r.pending, s.r.closing = s.r.pending[:0], s.r.closing[:0]
	return nil
}

// tail takes over the commits of the offer itself.
func (s *syncing) tail(ctx context.Context) error {
	count := uint64(0)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		row, err := s.o.row()
		if err != nil {
			return err
		}
		if len(row) == 0 {
			break
		}
		count++
		c, err := log.DecodeCommit(row)
		if err == nil {
			err = c.Verify()
		}
		if err == nil && c.Header.Number > s.r.state.number {
			err = s.commit(&c, false)
		}
		if err != nil {
			return err
		}
	}
	var n [8]byte
	if _, err := io.ReadFull(s.o.commits, n[:]); err != nil {
		return err
	}
	if want := binary.LittleEndian.Uint64(n[:]); want != count {
		return fmt.Errorf("%w: %d commits of %d", errOffer, count, want)
	}
	return s.write()
}

// anewNextTime gives up going on from what the member has, since that is not the
// group's chain.
func (s *syncing) anewNextTime() error {
	mark := []byte{syncAnew}
	err := errors.Join(s.r.db.Set(appendMetaKey(nil, s.r.shard, metaSyncing), mark, pebble.NoSync), s.r.db.Flush())
	return errors.Join(err, &log.CorruptionError{Group: s.g.id, Commit: s.r.state.number,
		Err: errors.New("its digest is not the group's; the next start takes over everything anew")})
}

// end compares what was taken over with the offer and makes it the group's state.
func (s *syncing) end() error {
	r, o := s.r, &s.o.state
	if r.state.number != o.number || r.state.digest != o.digest || r.state.records != o.records || r.state.bytes != o.bytes {
		return &log.CorruptionError{Group: s.g.id, Commit: r.state.number,
			Err: fmt.Errorf("the sync ends with commit %d, %s, the offer with %d, %s", r.state.number, r.state.digest, o.number, o.digest)}
	}
	r.state.applied, r.state.proposers = o.applied, o.proposers
	r.batch.Reset()
	err := r.batch.Delete(appendMetaKey(nil, r.shard, metaSyncing), nil)
	for _, m := range s.o.manifests {
		err = errors.Join(err, r.batch.Set(appendSegmentKey(nil, r.shard, m.Number), m.AppendTo(nil), nil))
	}
	if len(s.o.segments) > 0 {
		row := append([]byte(nil), s.o.segments...)
		// What the other member has archived does not matter here.
		binary.LittleEndian.PutUint64(row[8:], s.archived())
		err = errors.Join(err, r.batch.Set(appendMetaKey(nil, r.shard, metaSegments), row, nil))
	}
	if err = errors.Join(err, r.write()); err != nil {
		return err
	}
	// Raft takes the state for durable when this returns.
	if err := r.flush(); err != nil {
		return err
	}
	return r.load()
}

// archived returns how many segments this member has archived itself.
func (s *syncing) archived() uint64 {
	if s.report.Anew {
		return 0
	}
	known := &s.r.sealed
	known.mu.RLock()
	defer known.mu.RUnlock()
	return known.mu.archived
}

// synced tells that the replica has caught up by a sync.
func (g *Group) synced(r SyncReport) {
	e := g.engine
	e.opts.Logger.Info("state sync", "group", g.name, "commit", r.Commit, "segments", r.Segments, "fetched", r.Fetched, "anew", r.Anew, "took", r.Took)
	e.opts.Events.StateFetched(g.name, r)
}
