package engine

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"lukechampine.com/blake3"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/snapshot"
)

// Sealed segments. Every replica seals the same segments by itself (seal.go), keeps
// one shard of each, and moves the commits out of the store when all members
// hold theirs (archive.go). What they have to agree on goes through the group's
// own log of segments, whose records are
//
//	1 | manifest                      the next segment (snapshot.Manifest)
//	2 | replica 8 | segment 8         this member holds its shards up to this segment
//
// and what a replica has made of them is in its store:
//
//	segment space   number 8                     -> manifest
//	meta 4          read 8 | archived 8 | held 8 of each member
//	meta 5          pinned commits, 8 each
//
// Integers of records and values are little-endian. The rows are written beside the
// apply path; after a crash the log of segments is read again from where they
// stand.
const (
	recordManifest = 1
	recordHeld     = 2
)

// sealed is what a replica knows of its group's sealed segments.
type sealed struct {
	mu struct {
		sync.RWMutex
		manifests []*snapshot.Manifest // committed; segment i+1 at i
		read      uint64               // seq of the last record of the log of segments that is in here
		archived  uint64               // segments whose commits are not in the store any more
		held      []uint64             // by member: segments of which it has its shards
		pins      []uint64             // commits that are not to be archived, ascending
	}
}

// manifest returns that of segment n, nil if it is not committed.
func (s *sealed) manifest(n uint64) *snapshot.Manifest {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if n == 0 || n > uint64(len(s.mu.manifests)) {
		return nil
	}
	return s.mu.manifests[n-1]
}

// known returns the committed manifests. They are not to be changed.
func (s *sealed) known() []*snapshot.Manifest {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.mu.manifests
}

// holding returns the manifest of the segment that has a commit, nil if it is in
// none.
func (s *sealed) holding(commit uint64) *snapshot.Manifest {
	s.mu.RLock()
	defer s.mu.RUnlock()
	i, _ := slices.BinarySearchFunc(s.mu.manifests, commit, func(m *snapshot.Manifest, n uint64) int {
		if m.Last < n {
			return -1
		}
		return 1
	})
	if i == len(s.mu.manifests) {
		return nil
	}
	return s.mu.manifests[i]
}

func appendSegmentKey(dst []byte, shard, number uint64) []byte {
	return binary.BigEndian.AppendUint64(appendSpace(dst, shard, spaceSegment), number)
}

// loadSealed reads what the store has of the segments.
func (r *replica) loadSealed(members int) error {
	s := &r.sealed
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.manifests, s.mu.read, s.mu.archived, s.mu.pins = nil, 0, 0, nil
	s.mu.held = make([]uint64, members)
	r.archivedTo.Store(0)
	bad := func(err error) error { return &log.CorruptionError{Group: r.group, Err: err} }
	progress, err := r.metaRow(metaSegments)
	if err != nil {
		return err
	}
	if progress != nil {
		if len(progress) != 16+8*members {
			return bad(fmt.Errorf("the row of segments has %d bytes of %d", len(progress), 16+8*members))
		}
		s.mu.read, s.mu.archived = binary.LittleEndian.Uint64(progress), binary.LittleEndian.Uint64(progress[8:])
		for i := range s.mu.held {
			s.mu.held[i] = binary.LittleEndian.Uint64(progress[16+8*i:])
		}
	}
	pins, err := r.metaRow(metaPins)
	if err != nil {
		return err
	}
	for ; len(pins) >= 8; pins = pins[8:] {
		s.mu.pins = append(s.mu.pins, binary.LittleEndian.Uint64(pins))
	}
	it, err := r.db.NewIter(&pebble.IterOptions{LowerBound: appendSpace(nil, r.shard, spaceSegment), UpperBound: appendSpace(nil, r.shard, spaceSegment+1)})
	if err != nil {
		return r.corrupt(0, err)
	}
	defer it.Close()
	var last *snapshot.Manifest
	for it.First(); it.Valid(); it.Next() {
		v, err := it.ValueAndErr()
		if err != nil {
			return r.corrupt(0, err)
		}
		m, err := snapshot.DecodeManifest(v)
		if err == nil {
			err = m.Follows(r.group, last)
		}
		if err != nil {
			return bad(fmt.Errorf("segment %d: %w", len(s.mu.manifests)+1, err))
		}
		s.mu.manifests, last = append(s.mu.manifests, m), m
	}
	if err := it.Error(); err != nil {
		return r.corrupt(0, err)
	}
	if s.mu.archived > uint64(len(s.mu.manifests)) {
		return bad(fmt.Errorf("%d segments are archived, %d are known", s.mu.archived, len(s.mu.manifests)))
	}
	if s.mu.archived > 0 {
		r.archivedTo.Store(s.mu.manifests[s.mu.archived-1].Last)
	}
	return nil
}

// metaRow returns a copy of a row of the meta space, nil if there is none.
func (r *replica) metaRow(row byte) ([]byte, error) {
	v, closer, err := r.db.Get(appendMetaKey(nil, r.shard, row))
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, r.corrupt(0, err)
	}
	return slices.Clone(v), closer.Close()
}

// setProgress puts the row of segments into a batch. REQUIRES: sealed.mu.
func (r *replica) setProgress(b *pebble.Batch) error {
	s := &r.sealed
	v := binary.LittleEndian.AppendUint64(nil, s.mu.read)
	v = binary.LittleEndian.AppendUint64(v, s.mu.archived)
	for _, n := range s.mu.held {
		v = binary.LittleEndian.AppendUint64(v, n)
	}
	return b.Set(appendMetaKey(nil, r.shard, metaSegments), v, nil)
}

// readSegmentLog takes in what the log of segments has that is new. One goroutine
// calls it.
func (g *Group) readSegmentLog(ctx context.Context) error {
	r := g.replica
	s := &r.sealed
	s.mu.RLock()
	read := s.mu.read
	s.mu.RUnlock()
	if r.nextSeq(snapshot.SegmentsKey()) <= read+1 {
		return nil
	}
	batch := r.db.NewBatch()
	defer batch.Close()
	for run, err := range g.Scan(ctx, log.Query{Key: snapshot.SegmentsKey(), From: log.Seq(read + 1)}) {
		if err != nil {
			return err
		}
		for seq, payload := range run.Records() {
			if err := r.takeRecord(batch, seq, payload); err != nil {
				return fmt.Errorf("record %d of the log of segments of group %s: %w", seq, g.name, err)
			}
		}
	}
	s.mu.RLock()
	err := r.setProgress(batch)
	s.mu.RUnlock()
	if err != nil {
		return err
	}
	r.unflushed.Store(true)
	return batch.Commit(pebble.NoSync)
}

// takeRecord takes in one record. One that says nothing new, or nothing that can
// be, is passed over: the same manifest is proposed twice when the lead changes.
func (r *replica) takeRecord(batch *pebble.Batch, seq uint64, payload []byte) error {
	s := &r.sealed
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.read = seq
	switch {
	case len(payload) > 0 && payload[0] == recordManifest:
		m, err := snapshot.DecodeManifest(payload[1:])
		if errors.Is(err, log.ErrNewerFormat) {
			return err
		}
		var last *snapshot.Manifest
		if n := len(s.mu.manifests); n > 0 {
			last = s.mu.manifests[n-1]
		}
		if err != nil || m.Follows(r.group, last) != nil {
			return nil
		}
		s.mu.manifests = append(s.mu.manifests, m)
		return batch.Set(appendSegmentKey(nil, r.shard, m.Number), payload[1:], nil)
	case len(payload) == 17 && payload[0] == recordHeld:
		replica, segment := binary.LittleEndian.Uint64(payload[1:]), binary.LittleEndian.Uint64(payload[9:])
		if replica > 0 && replica <= uint64(len(s.mu.held)) && segment <= uint64(len(s.mu.manifests)) {
			s.mu.held[replica-1] = max(s.mu.held[replica-1], segment)
		}
	}
	return nil
}

// appendSystem commits a record to one of the engine's own logs.
func (g *Group) appendSystem(ctx context.Context, key identity.ID, payload []byte) error {
	payloads := [][]byte{payload}
	f, err := g.writer.join(ctx, 1, bound(payloads), func(b *batch, f *log.Future) { b.add(f, key, payloads) })
	if err != nil {
		return err
	}
	_, err = await(ctx, f)
	return err
}

// Segments is what a node knows of a group's sealed segments.
type Segments struct {
	Manifests []*snapshot.Manifest // committed, in order; not to be changed
	Held      []uint64             // by member, in their order: segments of which it has its shards
	Archived  uint64               // segments whose commits are not in this node's store any more
	Pins      []uint64             // commits that are kept in this node's store, ascending
	// StatesHere says of each segment whether this node has its shard of the state that was
	// captured with it; only those of the last states are kept.
	StatesHere []bool
	Missing    uint64 // shards that this node should have and has not
}

// Segments returns what this node knows of the group's sealed segments.
func (g *Group) Segments() Segments {
	known := g.knownSegments()
	known.StatesHere = make([]bool, len(known.Manifests))
	for _, s := range known.ownShards(g.seat()) {
		switch here := g.hasShard(s.m, s.state); {
		case !here:
			known.Missing++
		case s.state:
			known.StatesHere[s.m.Number-1] = true
		}
	}
	return known
}

// knownSegments is Segments without a look at the disk.
func (g *Group) knownSegments() Segments {
	s := &g.replica.sealed
	s.mu.RLock()
	defer s.mu.RUnlock()
	return Segments{
		Manifests: slices.Clone(s.mu.manifests),
		Held:      slices.Clone(s.mu.held),
		Archived:  s.mu.archived,
		Pins:      slices.Clone(s.mu.pins),
	}
}

// WriteSegment writes the canonical bytes of a sealed segment (docs/format/segment.md),
// from the store or from the archive. They have been compared with the manifest when
// it returns without an error; log.ErrNotFound if there is no such segment.
func (g *Group) WriteSegment(ctx context.Context, segment uint64, w io.Writer) error {
	if err := g.engine.checkOpen(); err != nil {
		return err
	}
	defer g.engine.release()
	m := g.replica.sealed.manifest(segment)
	if m == nil {
		return fmt.Errorf("%w: segment %d of group %s", log.ErrNotFound, segment, g.name)
	}
	hash := blake3.New(len(log.Digest{}), nil)
	if _, err := g.writeSegment(ctx, io.MultiWriter(w, hash), m.Range, true); err != nil {
		return err
	}
	if log.Digest(hash.Sum(nil)) != m.Commits.Hash {
		return &log.CorruptionError{Group: g.id, Commit: m.First, Err: fmt.Errorf("segment %d does not hash to what its manifest says", segment)}
	}
	return nil
}

// MaxPins is how many commits of a group can be pinned on a node at a time.
const MaxPins = 1024

// ErrPins says that too many commits are pinned.
var ErrPins = errors.New("mosaik: too many pins")

// Pin keeps a commit, and all after it, in this node's store, whatever its
// retention says, until Unpin. A commit that is archived already can be read all
// the same and stays where it is.
func (g *Group) Pin(commit uint64) error {
	return g.changePins(func(pins []uint64) ([]uint64, error) {
		i, found := slices.BinarySearch(pins, commit)
		switch {
		case found:
			return pins, nil
		case commit == 0 || commit > g.Head().Number:
			return nil, fmt.Errorf("%w: commit %d, the head is %d", log.ErrNotFound, commit, g.Head().Number)
		case len(pins) == MaxPins:
			return nil, fmt.Errorf("%w: %d of group %s", ErrPins, MaxPins, g.name)
		}
		return slices.Insert(pins, i, commit), nil
	})
}

// Unpin ends what Pin has begun; log.ErrNotFound if the commit is not pinned.
func (g *Group) Unpin(commit uint64) error {
	return g.changePins(func(pins []uint64) ([]uint64, error) {
		i, found := slices.BinarySearch(pins, commit)
		if !found {
			return nil, fmt.Errorf("%w: commit %d is not pinned", log.ErrNotFound, commit)
		}
		return slices.Delete(pins, i, i+1), nil
	})
}

func (g *Group) changePins(change func([]uint64) ([]uint64, error)) error {
	if err := g.engine.checkOpen(); err != nil {
		return err
	}
	defer g.engine.release()
	r := g.replica
	r.sealed.mu.Lock()
	pins, err := change(slices.Clone(r.sealed.mu.pins))
	if err == nil {
		var row []byte
		for _, n := range pins {
			row = binary.LittleEndian.AppendUint64(row, n)
		}
		err = r.db.Set(appendMetaKey(nil, r.shard, metaPins), row, pebble.NoSync)
	}
	if err == nil {
		r.sealed.mu.pins = pins
	}
	r.sealed.mu.Unlock()
	if err != nil {
		return err
	}
	r.unflushed.Store(true)
	return r.flush() // a pin holds when this returns
}
