package engine

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"golang.org/x/time/rate"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/snapshot"
)

// CheckReport says what Check has read.
type CheckReport struct {
	Groups   int
	Commits  uint64
	Records  uint64
	Keys     int
	Postings uint64
	Bytes    uint64 // of commits
	Archived uint64 // commits that are in the archive and were not read, since no other member can be asked for its shards
	Shards   uint64 // of this member's, read
	Missing  uint64 // shards that this member should have and has not; while the node runs it makes them anew
	Rows     uint64 // of views, as of now
	Versions uint64 // older ones of rows, and removals
	RaftLog  int64  // bytes of Raft log entries
}

// Check reads everything the node has on disk and holds it against itself:
// every block's checksum, every commit against its digests (log.Commit.Verify),
// every run against the index and the index against the runs, the rows of the
// views against the state digest of the last commit, the state rows against the
// logs' ends, this member's shards of sealed segments against their manifests, and
// every record of the Raft log. It reads one view of
// each group, so the node may go on working meanwhile. progress, if not nil, is
// called now and then with the commits done and to do. Archived commits are read too
// where there is whom to ask for them (Options.Peers).
//
// What is wrong comes back as a *log.CorruptionError that names the place. That
// each commit follows from the one before is replay.Audit's to check.
func (e *Engine) Check(ctx context.Context, progress func(done, total uint64)) (CheckReport, error) {
	var report CheckReport
	if err := e.checkOpen(); err != nil {
		return report, err
	}
	defer e.release()
	if progress == nil {
		progress = func(uint64, uint64) {}
	}
	var total uint64
	for _, g := range e.groups {
		total += g.Head().Number
	}
	for _, g := range e.groups {
		c := groupCheck{g: g, report: &report, total: total, progress: progress}
		if err := c.run(ctx); err != nil {
			return report, err
		}
		report.Groups++
	}
	if err := e.rlog.Check(ctx); err != nil {
		return report, raftLogError(err)
	}
	report.RaftLog = e.rlog.Metrics().LiveBytes
	return report, nil
}

// groupCheck is Check for one group.
type groupCheck struct {
	g        *Group
	report   *CheckReport
	total    uint64
	progress func(done, total uint64)

	head log.Head
	from uint64                 // first commit that can be read here
	next map[identity.ID]uint64 // next seq per key, as the commits have it
}

func (c *groupCheck) run(ctx context.Context) error {
	c.head = c.g.Head()
	c.from = c.g.ReadableFrom()
	c.report.Archived += c.from - 1
	c.next = make(map[identity.ID]uint64)
	if err := c.commits(ctx); err != nil {
		return err
	}
	c.report.Keys += len(c.next)
	for key, next := range c.next {
		if err := c.index(ctx, key, next); err != nil {
			return err
		}
	}
	if err := c.rows(); err != nil {
		return err
	}
	if err := c.shards(ctx); err != nil {
		return err
	}
	return c.views(ctx)
}

func (c *groupCheck) bad(commit uint64, format string, args ...any) error {
	return &log.CorruptionError{Group: c.g.id, Commit: commit, Err: fmt.Errorf(format, args...)}
}

// commits verifies every commit and learns the keys' seqs from them.
func (c *groupCheck) commits(ctx context.Context) error {
	var last log.Digest
	for commit, err := range c.g.Commits(ctx, c.from, c.head.Number) {
		if err != nil {
			return err
		}
		if err := commit.Verify(); err != nil {
			return err
		}
		for run, err := range commit.Runs() {
			if err != nil {
				return err
			}
			if want, seen := c.next[run.Key]; run.FirstSeq != max(want, 1) && (seen || c.from == 1) {
				return c.bad(run.Commit, "key %s continues with seq %d, expected %d", run.Key.Short(), run.FirstSeq, want)
			}
			c.next[run.Key] = run.LastSeq() + 1
		}
		last = commit.Digest
		c.report.Commits++
		c.report.Records += uint64(commit.Header.Records)
		c.report.Bytes += uint64(log.HeaderSize + len(commit.Body))
		if c.report.Commits%4096 == 0 {
			c.progress(c.report.Commits, c.total)
		}
	}
	if c.head.Number > 0 && last != c.head.Digest {
		return c.bad(c.head.Number, "its digest is %s, the state row says %s", last, c.head.Digest)
	}
	c.progress(c.report.Commits, c.total)
	return nil
}

// ReadableFrom returns the first commit that this node can read: 1, unless some are
// archived and there is nobody to ask for the other shards of them
// (Options.Peers).
func (g *Group) ReadableFrom() uint64 {
	archived := g.replica.archivedTo.Load()
	if archived == 0 || g.engine.opts.Peers != nil || snapshot.GeometryFor(len(g.engine.opts.Members)).K == 1 {
		return 1
	}
	return archived + 1
}

// shards reads this member's shards.
func (c *groupCheck) shards(ctx context.Context) error {
	var read uint64
	for _, s := range c.g.ownShards() {
		if err := c.g.interrupted(ctx); err != nil {
			return err
		}
		if !c.g.hasShard(s.m, s.state) {
			c.report.Missing++
			continue
		}
		if err := c.g.checkShard(ctx, s, rate.NewLimiter(rate.Inf, 1), &read); err != nil {
			return err
		}
		c.report.Shards++
	}
	return nil
}

// index walks the postings of a key and follows each to its run.
func (c *groupCheck) index(ctx context.Context, key identity.ID, next uint64) error {
	cur, err := c.g.openCursor()
	if err != nil {
		return err
	}
	defer cur.close()
	var chunk []posting
	for seq := uint64(1); seq < next; {
		if err := c.g.interrupted(ctx); err != nil {
			return err
		}
		if chunk, err = c.g.replica.postings(chunk[:0], key, seq); err != nil {
			return err
		}
		for _, p := range chunk {
			if p.firstSeq >= next {
				return nil // appended since
			}
			if p.commit < c.from {
				seq += uint64(p.count)
				continue
			}
			if p.firstSeq != seq {
				return c.bad(p.commit, "index of key %s has seq %d where %d is expected", key.Short(), p.firstSeq, seq)
			}
			run, err := cur.run(p.commit, p.offset)
			if err != nil {
				return err
			}
			if run.Key != key || run.FirstSeq != p.firstSeq || run.Count != p.count {
				return c.bad(p.commit, "index of key %s says seq %d stands at %d, there is seq %d of key %s", key.Short(), p.firstSeq, p.offset, run.FirstSeq, run.Key.Short())
			}
			c.report.Postings++
			seq += uint64(p.count)
		}
	}
	return nil
}

// rows reads the key and index spaces for rows that no commit accounts for.
func (c *groupCheck) rows() error {
	it, err := c.g.replica.db.NewIter(&pebble.IterOptions{
		LowerBound: appendSpace(nil, c.g.shard, spaceKey),
		UpperBound: appendSpace(nil, c.g.shard, spaceCommit),
	})
	if err != nil {
		return c.g.replica.corrupt(0, err)
	}
	defer it.Close()
	numbers := make(map[uint32]identity.ID)
	for it.First(); it.Valid(); it.Next() {
		key := it.Key()
		value, err := it.ValueAndErr()
		if err != nil {
			return c.g.replica.corrupt(0, err)
		}
		if key[8] == spaceKey {
			row, err := decodeLogRow(value)
			if err != nil || len(key) != spaceSize+identity.Size {
				return c.bad(0, "key row %x: %w", key, errors.Join(err))
			}
			id := identity.ID(key[spaceSize:])
			if other, taken := numbers[row.number]; taken {
				return c.bad(0, "keys %s and %s have the same log number %d", other.Short(), id.Short(), row.number)
			}
			if next, known := c.next[id]; known && row.next > next && row.commit <= c.head.Number {
				return c.bad(row.commit, "key row of %s ends with seq %d, the commits with %d", id.Short(), row.next-1, next-1)
			}
			numbers[row.number] = id
			continue
		}
		if len(key) != indexKeySize {
			return c.bad(0, "index row with a key of %d bytes", len(key))
		}
		if number := binary.BigEndian.Uint32(key[spaceSize:]); numbers[number] == (identity.ID{}) {
			return c.bad(0, "index row of log number %d, which no key has", number)
		}
		if _, err := decodePostings(nil, 0, value); err != nil {
			return c.bad(0, "index row %x: %w", key, err)
		}
	}
	if err := it.Error(); err != nil {
		return c.g.replica.corrupt(0, err)
	}
	return nil
}

// views reads every row of the group's views and their history, and computes the
// state digest anew from the rows. Views change while they are read, so the
// digest is computed over one snapshot of the store, with the commit it is of.
func (c *groupCheck) views(ctx context.Context) error {
	r := c.g.replica
	if err := c.g.interrupted(ctx); err != nil {
		return err
	}
	snapshot := r.db.NewSnapshot()
	defer snapshot.Close()
	stateRow, closer, err := snapshot.Get(appendSpace(nil, r.shard, spaceMeta))
	if errors.Is(err, pebble.ErrNotFound) {
		return nil // nothing was ever applied
	}
	if err != nil {
		return r.corrupt(0, err)
	}
	s, err := decodeState(stateRow)
	if err := errors.Join(err, closer.Close()); err != nil {
		return c.bad(0, "state row: %w", err)
	}
	it, err := snapshot.NewIter(&pebble.IterOptions{
		LowerBound: appendSpace(nil, r.shard, spaceView),
		UpperBound: appendSpace(nil, r.shard, spaceHistory+1),
	})
	if err != nil {
		return r.corrupt(0, err)
	}
	defer it.Close()
	var hash log.StateHash
	var element []byte
	for it.First(); it.Valid(); it.Next() {
		value, err := it.ValueAndErr()
		if err != nil {
			return r.corrupt(0, err)
		}
		if (c.report.Rows+c.report.Versions)%4096 == 0 {
			if err := c.g.interrupted(ctx); err != nil {
				return err
			}
		}
		key := it.Key()
		if len(key) < viewPrefixSize {
			return c.bad(0, "row of a view with a key of %d bytes", len(key))
		}
		view, generation := binary.BigEndian.Uint32(key[spaceSize:]), binary.BigEndian.Uint32(key[spaceSize+4:])
		if key[spaceSize-1] == spaceHistory {
			if err := c.version(key[viewPrefixSize:], value, s.number); err != nil {
				return c.bad(0, "history of view %d: %w", view, err)
			}
			c.report.Versions++
			continue
		}
		commit, stored, err := decodeViewRow(value)
		if err == nil && commit > s.number {
			err = fmt.Errorf("commit %d wrote it, the head is %d", commit, s.number)
		}
		if err != nil {
			return c.bad(0, "row %x of view %d: %w", key[viewPrefixSize:], view, err)
		}
		element = log.AppendRowElement(element[:0], view, generation, key[viewPrefixSize:], commit, stored)
		hash.Add(element)
		c.report.Rows++
	}
	if err := it.Error(); err != nil {
		return r.corrupt(0, err)
	}
	if s.number == 0 {
		return nil
	}
	h, err := r.header(s.number)
	if err != nil {
		return err
	}
	if digest := hash.Digest(); digest != h.State {
		return c.bad(s.number, "its views have the state digest %s, its header says %s", digest, h.State)
	}
	return nil
}

var errHistoryRow = errors.New("malformed history row")

// version checks a history row; key is what follows view and generation.
func (c *groupCheck) version(key, value []byte, head uint64) error {
	_, commit, err := decodeHistoryKey(key)
	switch {
	case err != nil:
		return err
	case commit == 0 || commit > head:
		return fmt.Errorf("row of commit %d, the head is %d", commit, head)
	case len(value) == 0 || value[0] > historyValue || value[0] == historyRemoved && len(value) != 1:
		return errHistoryRow
	}
	return nil
}
