package engine

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"golang.org/x/time/rate"

	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/snapshot"
)

// The life of a segment, on each replica by itself and beside the write path:
//
//  1. boundary: the segment ends with the commit that brings it to its size
//  2. encode: its canonical bytes are hashed and coded; the replica's own shard is
//     written to a file
//  3. agree: the leader commits its manifest; every replica compares its own
//  4. hold: the replica says, in the log, that it has its shard for good
//  5. archive: when all members hold theirs and the retention allows it, the
//     commits leave the store (archive.go)

// sealInterval is how often a group looks whether there is something to seal.
const sealInterval = 250 * time.Millisecond

// systemTimeout bounds one attempt to commit a record to a log of the engine's own.
const systemTimeout = 10 * time.Second

// sealer is the work of one group. It belongs to runSeal.
type sealer struct {
	g     *Group
	seat  uint64     // this member's, whose shards it writes
	next  uint64     // segment that is sealed next; the ones before are held
	first uint64     // its first commit
	prev  log.Digest // digest of the commit before
	base  uint64     // bytes of the bodies of all commits before first
	// Of the states: bytes of segments since the last one was captured, and its size.
	since, state uint64
}

// runSeal seals the group's segments, one after the other.
func (g *Group) runSeal(ctx context.Context, done func()) {
	defer done()
	tick := time.NewTicker(sealInterval)
	defer tick.Stop()
	var s *sealer
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if _, err := g.replica.steady(); err != nil {
			s = nil // what is known may be replaced
			continue
		}
		err := g.readSegmentLog(ctx)
		seat := g.seat()
		if err == nil && seat == 0 {
			s = nil
			continue // a reader has no shards to write, and keeps its commits
		}
		if err == nil && (s == nil || s.seat != seat) {
			s, err = g.newSealer(ctx, seat)
		}
		if err == nil {
			err = s.step(ctx)
		}
		if err == nil {
			err = g.archive(ctx)
		}
		if err != nil {
			s = nil // start anew from what is committed
			if ctx.Err() == nil && !errors.Is(err, log.ErrClosed) && !errors.Is(err, ErrFetching) && !errors.Is(err, ErrNoQuorum) && !errors.Is(err, ErrDiskFull) && !errors.Is(err, ErrBusy) {
				g.engine.opts.Logger.Warn("sealing failed and will be tried again", "group", g.name, "err", err)
				g.engine.opts.Events.BackgroundError(err)
			}
		}
	}
}

// newSealer finds out where to go on: after the segments this member holds.
func (g *Group) newSealer(ctx context.Context, seat uint64) (*sealer, error) {
	known := &g.replica.sealed
	known.mu.RLock()
	held := known.mu.held[seat-1]
	manifests := known.mu.manifests[:held]
	known.mu.RUnlock()
	s := &sealer{g: g, seat: seat, next: held + 1, first: 1}
	for _, m := range manifests {
		s.sealed(m)
	}
	if err := s.skip(ctx); err != nil {
		return nil, err
	}
	// A state sync brings the segments, but one state only; and a member that has come
	// back without its disk is said to hold what it has not.
	if _, err := g.scrub(ctx, false, rate.NewLimiter(rate.Inf, 1)); err != nil {
		g.engine.opts.Logger.Warn("some shards are missing and cannot be made anew yet", "group", g.name, "err", err)
	}
	// What the bodies before the segment come to is known of the head.
	r := g.replica
	r.mu.RLock()
	head, total := r.mu.head.Number, r.mu.total.bytes
	r.mu.RUnlock()
	for c, err := range g.Commits(ctx, s.first, head) {
		if err != nil {
			return nil, fmt.Errorf("seal segment %d of group %s: %w", s.next, g.name, err)
		}
		total -= uint64(len(c.Body))
	}
	s.base = total
	return s, nil
}

// skip passes over the segments whose shards this member has, but has not told the
// group of: a state sync has brought them, or a stop came in between.
func (s *sealer) skip(ctx context.Context) error {
	var last *snapshot.Manifest
	for {
		m := s.g.replica.sealed.manifest(s.next)
		if m == nil || !s.g.hasShard(m, false) {
			break
		}
		last = m
		s.sealed(m)
	}
	if last == nil {
		return nil
	}
	return s.tell(ctx, last)
}

// sealed notes that a segment is done.
func (s *sealer) sealed(m *snapshot.Manifest) {
	s.next, s.first, s.prev = m.Number+1, m.Last+1, m.Digest
	s.since += m.Commits.Size
	if m.State.Size > 0 {
		s.since, s.state = 0, m.State.Size
	}
}

// step seals the next segment if it is complete.
func (s *sealer) step(ctx context.Context) error {
	for {
		last, body, err := s.boundary(ctx)
		if err != nil || last == 0 {
			return err
		}
		base := s.base + body
		own, err := s.encode(ctx, last)
		if err != nil {
			return fmt.Errorf("seal segment %d of group %s: %w", s.next, s.g.name, err)
		}
		if err := s.agree(ctx, own); err != nil {
			return err
		}
		if err := s.hold(ctx, own); err != nil {
			return err
		}
		s.sealed(own)
		s.base = base
	}
}

// boundary returns the last commit of the segment, 0 if it is not there yet, and
// the bytes of its bodies.
func (s *sealer) boundary(ctx context.Context) (last, body uint64, err error) {
	r := s.g.replica
	r.mu.RLock()
	head, total := r.mu.head.Number, r.mu.total.bytes
	r.mu.RUnlock()
	limit := uint64(s.g.engine.opts.SegmentBytes)
	open := head + 1 - s.first
	if head < s.first || open < snapshot.SegmentCommits && total-s.base+open*log.HeaderSize < limit {
		return 0, 0, nil
	}
	b := snapshot.NewBoundary(limit)
	for c, err := range s.g.Commits(ctx, s.first, head) {
		if err != nil {
			return 0, 0, err
		}
		body += uint64(len(c.Body))
		if b.Add(log.HeaderSize + len(c.Body)) {
			return c.Header.Number, body, nil
		}
	}
	return 0, 0, nil
}

// encode seals commits first..last and writes this member's shards to their
// files, which do not have their names yet.
func (s *sealer) encode(ctx context.Context, last uint64) (*snapshot.Manifest, error) {
	g := s.g
	r := snapshot.Range{Group: g.id, Number: s.next, First: s.first, Last: last, Prev: s.prev}
	geometry := snapshot.GeometryFor(len(g.engine.opts.Members))
	m := new(snapshot.Manifest)
	shards := make([]io.Writer, geometry.Shards())
	own, err := g.createShard(s.next, false)
	if err != nil {
		return nil, err
	}
	shards[s.seat-1] = own
	m.Commits, err = encodeFrom(geometry, shards, func(w io.Writer) (err error) {
		m.Summary, err = g.writeSegment(ctx, w, r, true)
		return err
	})
	if err := errors.Join(err, own.finish()); err != nil {
		return nil, err
	}
	if s.since+m.Commits.Size < s.state {
		return m, nil // the last captured state is larger than what came since
	}
	h, err := g.replica.header(last)
	if err != nil || h.State.IsZero() {
		return m, err
	}
	if last < g.replica.viewsFrom.Load() {
		// A sync has brought this member past the commit. It cannot say what the views
		// were; others have captured them.
		if agreed := g.replica.sealed.manifest(s.next); agreed != nil {
			m.State = agreed.State
		}
		return m, nil
	}
	if own, err = g.createShard(s.next, true); err != nil {
		return nil, err
	}
	shards[s.seat-1] = own
	m.State, err = encodeFrom(geometry, shards, func(w io.Writer) error { return g.writeState(ctx, w, last) })
	return m, errors.Join(err, own.finish())
}

// encodeFrom codes what write writes.
func encodeFrom(g snapshot.Geometry, shards []io.Writer, write func(io.Writer) error) (snapshot.Coding, error) {
	e, err := snapshot.NewEncoder(g)
	if err != nil {
		return snapshot.Coding{}, err
	}
	in, out := io.Pipe()
	go runWrite(out, write)
	c, err := e.Encode(bufio.NewReaderSize(in, 1<<20), shards)
	in.CloseWithError(err) // ends runWrite
	return c, err
}

// runWrite writes into a pipe until all is written or the reader has gone.
func runWrite(out *io.PipeWriter, write func(io.Writer) error) {
	w := bufio.NewWriterSize(out, 1<<20)
	err := write(w)
	if err == nil {
		err = w.Flush()
	}
	out.CloseWithError(err)
}

// writeSegment writes the canonical bytes of a segment. What is damaged must not be
// sealed, so each commit is checked; who sends a segment leaves that to who gets it.
func (g *Group) writeSegment(ctx context.Context, w io.Writer, r snapshot.Range, check bool) (snapshot.Summary, error) {
	out, err := snapshot.NewSegmentWriter(w, r)
	if err != nil {
		return snapshot.Summary{}, err
	}
	for c, err := range g.Commits(ctx, r.First, r.Last) {
		if err == nil && check {
			err = c.Verify()
		}
		if err == nil {
			err = out.Add(&c)
		}
		if err != nil {
			return snapshot.Summary{}, err
		}
	}
	return out.Close()
}

// writeState writes the rows of all views as of a commit.
func (g *Group) writeState(ctx context.Context, w io.Writer, commit uint64) error {
	out, err := snapshot.NewStateWriter(w, g.id, commit)
	if err != nil {
		return err
	}
	var hash log.StateHash
	var element []byte
	view, generation, ok, err := g.replica.generationFrom(0, 0)
	for ; ok && err == nil; view, generation, ok, err = g.replica.generationFrom(view, uint64(generation)+1) {
		rows := rowsAt{r: g.replica, g: g, view: view, generation: generation, commit: commit}
		for row, err := range rows.Scan(log.Range{}) {
			if err == nil {
				err = g.interrupted(ctx)
			}
			if err == nil {
				err = out.Add(snapshot.StateRow{View: view, Generation: generation, Key: row.Key, Commit: row.Commit, Value: row.Value})
			}
			if err != nil {
				return err
			}
			element = log.AppendRowElement(element[:0], view, generation, row.Key, row.Commit, row.Value)
			hash.Add(element)
		}
	}
	if err != nil {
		return err
	}
	h, err := g.replica.header(commit)
	if err != nil {
		return err
	}
	if digest := hash.Digest(); digest != h.State { // what is damaged must not be sealed
		return &log.CorruptionError{Group: g.id, Commit: commit, Err: fmt.Errorf("the views as of it have the digest %s, its header %s", digest, h.State)}
	}
	return out.Close()
}

// generationFrom returns the first generation of a view, from the given one on,
// that has rows now or had some.
func (r *replica) generationFrom(view uint32, generation uint64) (_, _ uint32, ok bool, err error) {
	if generation > 1<<32-1 {
		view, generation = view+1, 0
	}
	at := uint64(view)<<32 | generation
	best := uint64(1<<64 - 1)
	for _, space := range []byte{spaceView, spaceHistory} {
		it, err := r.db.NewIter(&pebble.IterOptions{
			LowerBound: binary.BigEndian.AppendUint64(appendSpace(nil, r.shard, space), at),
			UpperBound: appendSpace(nil, r.shard, space+1),
		})
		if err != nil {
			return 0, 0, false, r.corrupt(0, err)
		}
		if it.First() {
			best, ok = min(best, binary.BigEndian.Uint64(it.Key()[spaceSize:])), true
		}
		if err := errors.Join(it.Error(), it.Close()); err != nil {
			return 0, 0, false, r.corrupt(0, err)
		}
	}
	return uint32(best >> 32), uint32(best), ok, nil
}

// agree has the group agree on a manifest and compares this member's own with it.
func (s *sealer) agree(ctx context.Context, own *snapshot.Manifest) error {
	g := s.g
	for {
		if err := g.readSegmentLog(ctx); err != nil {
			return err
		}
		if m := g.replica.sealed.manifest(own.Number); m != nil {
			if err := own.Differs(m); err != nil {
				// The chain of digests is the same on all, so one of the two was read or
				// coded wrong. This member keeps its commits and seals again.
				return &log.CorruptionError{Group: g.id, Commit: own.First,
					Err: fmt.Errorf("segment %d as sealed here is not what the group has committed: %w", own.Number, err)}
			}
			return nil
		}
		if leader, _ := g.host.leader(g.shard); leader == g.number {
			ctx, cancel := context.WithTimeout(ctx, systemTimeout)
			err := g.appendSystem(ctx, snapshot.SegmentsKey(), own.AppendTo([]byte{recordManifest}))
			cancel()
			if err != nil {
				return err
			}
			continue
		}
		select {
		case <-g.replica.watch():
		case <-time.After(sealInterval):
		case <-ctx.Done():
			return ctx.Err()
		}
		if _, err := g.replica.steady(); err != nil {
			return err
		}
	}
}

// hold gives this member's shards their names and tells the group.
func (s *sealer) hold(ctx context.Context, own *snapshot.Manifest) error {
	g := s.g
	if err := g.keepShards(own); err != nil {
		return err
	}
	return s.tell(ctx, own)
}

// tell says in the log that this member has its shards up to a segment.
func (s *sealer) tell(ctx context.Context, own *snapshot.Manifest) error {
	g := s.g
	record := binary.LittleEndian.AppendUint64([]byte{recordHeld}, s.seat)
	record = binary.LittleEndian.AppendUint64(record, own.Number)
	ctx, cancel := context.WithTimeout(ctx, systemTimeout)
	defer cancel()
	if err := g.appendSystem(ctx, snapshot.SegmentsKey(), record); err != nil {
		return err
	}
	g.engine.opts.Events.Sealed(g.name, own)
	return g.readSegmentLog(ctx)
}
