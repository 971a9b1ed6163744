package engine

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

// Reads go straight to the store; Raft is asked only where a read must reflect
// everything committed before it (Sync). A scanner sees a log up to the head
// that was published when it looked; following, it waits for the next publish.

// Head returns the end of the group's log as this node has it, which may lag
// behind the group's.
func (g *Group) Head() log.Head { return g.replica.head() }

// Sync returns when this node reflects everything the group had committed when
// Sync was called, and the head at that moment: what is read afterwards, from
// this node, is linearizable. The error is ErrNoQuorum when that cannot be
// known; stale reads go on working.
func (g *Group) Sync(ctx context.Context) (log.Head, error) {
	if err := g.engine.checkOpen(); err != nil {
		return log.Head{}, err
	}
	defer g.engine.release()
	if err := g.host.readIndex(ctx, g.shard, g.engine.opts.ProposeTimeout); err != nil {
		return log.Head{}, fmt.Errorf("sync group %s: %w", g.name, err)
	}
	return g.Head(), nil
}

// WaitFor returns when this node has the commit p points at, after checking
// that it has p's digest: ErrPointer if not.
func (g *Group) WaitFor(ctx context.Context, p log.Pointer) error {
	if p.Group != g.id {
		return fmt.Errorf("%w: group: it points into %s, this is %s", log.ErrPointer, p.Group.Short(), g.id.Short())
	}
	for {
		changed, closed := g.replica.watch(), g.engine.done
		if g.Head().Number >= p.Commit {
			if err := g.checkPointer(p); !errors.Is(err, ErrFetching) {
				return err
			}
		}
		select {
		case <-changed:
		case <-closed:
			return log.ErrClosed
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (g *Group) checkPointer(p log.Pointer) error {
	if p.Group != g.id {
		return fmt.Errorf("%w: group: it points into %s, this is %s", log.ErrPointer, p.Group.Short(), g.id.Short())
	}
	c, err := g.Commit(p.Commit)
	if err != nil {
		return err
	}
	return p.Check(&c)
}

// Commit returns commit n as this node has it. The body is the caller's. It is
// ErrNotFound if the log does not reach that far here.
func (g *Group) Commit(n uint64) (log.Commit, error) {
	if err := g.engine.checkOpen(); err != nil {
		return log.Commit{}, err
	}
	defer g.engine.release()
	generation, err := g.replica.steady()
	if err != nil {
		return log.Commit{}, err
	}
	c, err := g.replica.commit(n)
	return c, g.replica.unlessReplaced(generation, err)
}

func (r *replica) commit(n uint64) (log.Commit, error) {
	if head := r.head().Number; n == 0 || n > head {
		return log.Commit{}, fmt.Errorf("%w: commit %d, the head is %d", log.ErrNotFound, n, head)
	}
	return r.storedCommit(n)
}

// storedCommit returns commit n as the store has it, published or not.
func (r *replica) storedCommit(n uint64) (log.Commit, error) {
	c, err := r.newCursor(n)
	if err != nil {
		return log.Commit{}, err
	}
	commit, err := c.commit(n) // the cursor's buffer goes to the caller with it
	return commit, errors.Join(err, c.close())
}

// Commits yields the group's commits from..to, both included and to 0 meaning
// the head when the loop starts, in order and without a gap; where the range
// leaves the log it ends with ErrNotFound. Bodies are
// valid until the next step. Commits are decoded but not verified
// (log.Commit.Verify, replay.Audit); damage that the store's checksums find ends
// the iteration with a *log.CorruptionError.
func (g *Group) Commits(ctx context.Context, from, to uint64) iter.Seq2[log.Commit, error] {
	return func(yield func(log.Commit, error) bool) {
		cur, err := g.openCursor()
		if err != nil {
			yield(log.Commit{}, err)
			return
		}
		defer cur.close()
		head := cur.head
		if to == 0 {
			to = head
		}
		for n := from; n <= to; n++ {
			if n == 0 || n > head {
				yield(log.Commit{}, fmt.Errorf("%w: commit %d, the head is %d", log.ErrNotFound, n, head))
				return
			}
			c, err := cur.commit(n)
			if err == nil {
				err = g.interrupted(ctx)
			}
			if err != nil {
				yield(log.Commit{}, g.replica.unlessReplaced(cur.generation, err))
				return
			}
			if !yield(c, nil) {
				return
			}
		}
	}
}

// cursor reads commits in ascending order from one view of the store.
type cursor struct {
	r   *replica
	it  *pebble.Iterator
	buf []byte // the commit read last, or its pieces up to what was asked for
	key []byte

	archive *archived // segment that a commit was read from last; nil: none

	number uint64     // commit in buf; 0: none
	next   int        // first piece that is not in buf
	header log.Commit // of number, without body
}

// openCursor takes a view of the store as it is now, which Close waits for.
func (g *Group) openCursor() (*groupCursor, error) {
	if err := g.engine.checkOpen(); err != nil {
		return nil, err
	}
	generation, err := g.replica.steady()
	if err != nil {
		g.engine.release()
		return nil, err
	}
	head := g.Head().Number
	c, err := g.replica.newCursor(1)
	if err != nil {
		g.engine.release()
		return nil, g.replica.unlessReplaced(generation, err)
	}
	return &groupCursor{cursor: c, g: g, generation: generation, head: head}, nil
}

// groupCursor is a cursor that Engine.Close waits for.
type groupCursor struct {
	*cursor
	g          *Group
	generation uint64 // of the state it looks at
	head       uint64 // last commit in it
}

func (c *groupCursor) close() {
	c.cursor.close() // its error is the one commit has returned
	c.g.engine.release()
}

// newCursor takes a view of the commits from number on.
func (r *replica) newCursor(number uint64) (*cursor, error) { return r.newCursorOn(r.db, number) }

// newCursorOn is newCursor on the store as it was, or is.
func (r *replica) newCursorOn(store pebble.Reader, number uint64) (*cursor, error) {
	it, err := store.NewIter(&pebble.IterOptions{
		LowerBound: appendCommitKey(nil, r.shard, number, 0),
		UpperBound: appendSpace(nil, r.shard, spaceCommit+1),
	})
	if err != nil {
		return nil, r.corrupt(number, err)
	}
	return &cursor{r: r, it: it}, nil
}

// close lets go of what the cursor reads.
func (c *cursor) close() error { return errors.Join(c.it.Close(), c.archive.close()) }

// steady returns the generation of what is published, ErrFetching while it is
// being replaced, or log.ErrDiverged if it is not what the group has.
func (r *replica) steady() (generation uint64, err error) {
	if err := r.divergence(); err != nil {
		return 0, err
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.mu.fetching {
		return 0, fmt.Errorf("%w: group %s", ErrFetching, r.group.Short())
	}
	return r.mu.generation, nil
}

// unlessReplaced returns err, or ErrFetching if the state has been replaced
// since the given generation: then err may only say that the old one is gone.
func (r *replica) unlessReplaced(generation uint64, err error) error {
	if err == nil {
		return nil
	}
	if now, busy := r.steady(); busy != nil {
		return busy
	} else if now != generation {
		return fmt.Errorf("%w: group %s: read again", ErrFetching, r.group.Short())
	}
	return err
}

// commit returns commit n whole. Commits must be asked for in ascending order.
// The body is valid until the next call.
func (c *cursor) commit(n uint64) (log.Commit, error) {
	if err := c.start(n); err != nil {
		return log.Commit{}, err
	}
	for {
		more, err := c.more()
		if err != nil {
			return log.Commit{}, err
		}
		if !more {
			commit := c.header
			commit.Body = c.buf[log.HeaderSize:]
			return commit, c.complete(&commit)
		}
	}
}

// complete checks that no piece is missing at the commit's end.
func (c *cursor) complete(commit *log.Commit) error {
	records := 0
	for offset := 0; offset < len(commit.Body); {
		run, next, err := log.NextRun(commit.Body, offset)
		if err != nil {
			return &log.CorruptionError{Group: c.r.group, Commit: c.number, Offset: int64(log.HeaderSize + offset), Err: err}
		}
		records += run.Count
		offset = next
	}
	if records != int(commit.Header.Records) {
		return &log.CorruptionError{Group: c.r.group, Commit: c.number, Offset: int64(len(c.buf)),
			Err: fmt.Errorf("%d of %d records are there", records, commit.Header.Records)}
	}
	return nil
}

// run returns the run that starts at the given offset of the body of commit n,
// reading only the pieces it needs. It is valid until the next call.
func (c *cursor) run(n uint64, offset int) (log.Run, error) {
	if n != c.number {
		if err := c.start(n); err != nil {
			return log.Run{}, err
		}
	}
	return c.runAt(offset)
}

func (c *cursor) runAt(offset int) (log.Run, error) {
	// Seek over the pieces before the run; the buffer keeps their place.
	if first := (log.HeaderSize + offset) / pieceBytes; first > c.next {
		c.buf = slices.Grow(c.buf, first*pieceBytes-len(c.buf))[:first*pieceBytes]
		c.next = first
		c.key = appendCommitKey(c.key[:0], c.r.shard, c.number, first)
		c.it.SeekGE(c.key)
	}
	commit := c.header
	for {
		if len(c.buf) > log.HeaderSize+offset {
			commit.Body = c.buf[log.HeaderSize:]
			if run, err := commit.RunAt(offset); err == nil {
				return run, nil
			}
		}
		more, err := c.more()
		if err != nil {
			return log.Run{}, err
		}
		if !more { // all of it is there: the error is real
			commit.Body = c.buf[log.HeaderSize:]
			return commit.RunAt(offset)
		}
	}
}

// start reads the first piece of commit n and leaves the iterator behind it.
func (c *cursor) start(n uint64) error {
	previous := c.number
	c.number, c.next, c.buf = 0, 0, c.buf[:0]
	if n <= c.r.archivedTo.Load() {
		return c.startArchived(n)
	}
	if valid := c.it.Valid(); !valid || previous == 0 || previous+1 != n || !c.at(n, 0) {
		c.key = appendCommitKey(c.key[:0], c.r.shard, n, 0)
		c.it.SeekGE(c.key)
	}
	if !c.at(n, 0) {
		if err := c.it.Error(); err != nil {
			return c.r.corrupt(n, err)
		}
		return &log.CorruptionError{Group: c.r.group, Commit: n, Err: errors.New("missing in the store")}
	}
	c.number = n
	if _, err := c.more(); err != nil {
		return err
	}
	header, err := log.DecodeCommit(c.buf)
	var damaged *log.CorruptionError
	if errors.As(err, &damaged) {
		return &log.CorruptionError{Group: c.r.group, Commit: n, Offset: damaged.Offset, Err: damaged.Err}
	}
	if err != nil {
		return fmt.Errorf("group %s, commit %d: %w", c.r.group.Short(), n, err)
	}
	if header.Header.Number != n || header.Header.Group != c.r.group {
		return &log.CorruptionError{Group: c.r.group, Commit: n,
			Err: fmt.Errorf("the store has commit %d of group %s in its place", header.Header.Number, header.Header.Group.Short())}
	}
	c.header = header
	return nil
}

// startArchived reads commit n, which is in the archive, whole.
func (c *cursor) startArchived(n uint64) error {
	if !c.archive.has(n) {
		err := c.archive.close()
		c.archive = nil
		if err == nil {
			c.archive, err = c.r.openArchived(n)
		}
		if err != nil {
			return err
		}
	}
	commit, err := c.archive.Commit(n)
	if err != nil {
		return err
	}
	c.buf = commit.AppendTo(c.buf)
	c.number, c.next, c.header = n, allPieces, commit
	c.header.Body = nil
	return nil
}

// allPieces says that a commit is in the buffer whole.
const allPieces = 1 << 16

// at reports whether the iterator stands on a piece of commit n.
func (c *cursor) at(n uint64, piece int) bool {
	if !c.it.Valid() {
		return false
	}
	number, have := decodeCommitKey(c.it.Key())
	return number == n && have == piece
}

// more appends the next piece of the commit to the buffer; false: there is none.
func (c *cursor) more() (bool, error) {
	if !c.at(c.number, c.next) {
		if err := c.it.Error(); err != nil {
			return false, c.r.corrupt(c.number, err)
		}
		return false, nil
	}
	v, err := c.it.ValueAndErr()
	if err != nil {
		return false, c.r.corrupt(c.number, err)
	}
	if len(c.buf) != c.next*pieceBytes {
		return false, &log.CorruptionError{Group: c.r.group, Commit: c.number, Err: fmt.Errorf("piece %d is cut short", c.next-1)}
	}
	c.buf = append(c.buf, v...)
	c.next++
	c.it.Next()
	return true, nil
}

// Scan yields the records of one key as q says, in order and each once. A run's
// payloads are valid until the next step. With q.Follow it waits for more at the
// end of the log, and ends with ctx's error or, after Close, log.ErrClosed.
//
// It reads what this node has; for a linearizable read call Sync first.
func (g *Group) Scan(ctx context.Context, q log.Query) iter.Seq2[log.Run, error] {
	return func(yield func(log.Run, error) bool) {
		if err := q.Validate(); err != nil {
			yield(log.Run{}, err)
			return
		}
		q := q // ranging over the iterator again starts anew
		seq, located := uint64(0), false
		for {
			changed := g.replica.watch()
			var more bool
			err := g.interrupted(ctx)
			if err == nil && !located {
				seq, err = g.start(&q)
				located = err == nil
			}
			if err == nil {
				seq, more, err = g.scanKnown(ctx, q, seq, yield)
			}
			fetching := errors.Is(err, ErrFetching)
			if err != nil && !fetching {
				yield(log.Run{}, err)
				return
			}
			if !fetching && (!more || !q.Follow || q.Until != 0 && seq > q.Until) {
				return
			}
			select {
			case <-changed:
			case <-g.engine.done:
			case <-ctx.Done():
			}
		}
	}
}

// start resolves where a scan starts, and for one that does not follow also
// where it ends: at the last record that is there now.
func (g *Group) start(q *log.Query) (uint64, error) {
	generation, err := g.replica.steady()
	if err != nil {
		return 0, err
	}
	seq, err := g.locate(q.Key, q.From)
	if err != nil {
		return 0, g.replica.unlessReplaced(generation, err)
	}
	if !q.Follow {
		end := g.replica.nextSeq(q.Key)
		if q.From.Kind() == log.AtLatest {
			end = seq // not what came since
		}
		if end == 1 {
			seq, end = 2, 2 // nothing, which an Until of 0 would not say
		}
		if last := end - 1; q.Until == 0 || q.Until > last {
			q.Until = last
		}
	}
	return seq, nil
}

// interrupted returns ctx's error, or log.ErrClosed when Close ends reads.
func (g *Group) interrupted(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return g.engine.checkDone()
}

// scanKnown yields what is known of the key from seq on. It returns the next
// seq, and whether the consumer wants more.
func (g *Group) scanKnown(ctx context.Context, q log.Query, seq uint64, yield func(log.Run, error) bool) (_ uint64, more bool, err error) {
	end := g.replica.nextSeq(q.Key)
	if q.Until != 0 {
		end = min(end, max(q.Until, q.Until+1)) // an Until of 2^64-1 is no bound
	}
	if seq >= end {
		_, err := g.replica.steady()
		return seq, true, err
	}
	cur, err := g.openCursor()
	if err != nil {
		return seq, false, err
	}
	defer cur.close()
	defer func() { err = g.replica.unlessReplaced(cur.generation, err) }()
	var postings []posting
	for seq < end {
		if postings, err = g.replica.postings(postings[:0], q.Key, seq); err != nil {
			return seq, false, err
		}
		for _, p := range postings {
			if p.firstSeq+uint64(p.count) <= seq {
				continue
			}
			if p.firstSeq >= end {
				return end, true, nil
			}
			if err := g.interrupted(ctx); err != nil {
				return seq, false, err
			}
			run, err := cur.run(p.commit, p.offset)
			if err != nil {
				return seq, false, err
			}
			if run.Key != q.Key || run.FirstSeq != p.firstSeq || run.Count != p.count {
				return seq, false, &log.CorruptionError{Group: g.id, Commit: p.commit,
					Err: fmt.Errorf("the index expects seq %d of key %s, the commit has seq %d of %s", p.firstSeq, q.Key.Short(), run.FirstSeq, run.Key.Short())}
			}
			from := seq
			seq = run.LastSeq() + 1
			if q.Filter.Ends(&run) {
				return seq, false, nil
			}
			if kept, ok := q.Clip(run, from); ok && !yield(kept, nil) {
				return seq, false, nil
			}
		}
	}
	return seq, true, nil
}

// locate turns a position into the seq a scan starts at.
func (g *Group) locate(key identity.ID, from log.Position) (uint64, error) {
	switch from.Kind() {
	case log.AtEarliest:
		return 1, nil
	case log.AtLatest:
		return g.replica.nextSeq(key), nil
	case log.AtSeq:
		return from.Seq(), nil
	case log.AtCommit:
		return g.seqAtCommit(key, from.Commit())
	case log.AtTime:
		n, err := g.commitAt(from.Time())
		if err != nil {
			return 0, err
		}
		return g.seqAtCommit(key, n)
	case log.AtPointer:
		p := from.Pointer()
		if err := g.checkPointer(p); err != nil {
			return 0, err
		}
		if p.Seq != 0 {
			return p.Seq, nil
		}
		return g.seqAtCommit(key, p.Commit)
	}
	return 0, fmt.Errorf("%w: %v", log.ErrPosition, from)
}

// commitAt returns the first commit at or after t (Unix nanoseconds), or head+1.
// Times never run backwards along the log, so it is a binary search.
func (g *Group) commitAt(t int64) (uint64, error) {
	if err := g.engine.checkOpen(); err != nil {
		return 0, err
	}
	defer g.engine.release()
	lo, hi := uint64(1), g.Head().Number+1
	for _, m := range g.replica.sealed.known() { // without opening what is archived
		if m.Time < t {
			lo = m.Last + 1
			continue
		}
		hi = m.Last
		break
	}
	for lo < hi {
		mid := lo + (hi-lo)/2
		h, err := g.replica.header(mid)
		if err != nil {
			return 0, err
		}
		if h.Time >= t {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	return lo, nil
}

// header decodes the header of a commit without copying its body.
func (r *replica) header(n uint64) (log.Header, error) {
	if n <= r.archivedTo.Load() {
		a, err := r.openArchived(n)
		if err != nil {
			return log.Header{}, err
		}
		c, err := a.Commit(n)
		return c.Header, errors.Join(err, a.close())
	}
	v, closer, err := r.db.Get(appendCommitKey(nil, r.shard, n, 0))
	if errors.Is(err, pebble.ErrNotFound) {
		return log.Header{}, &log.CorruptionError{Group: r.group, Commit: n, Err: errors.New("missing in the store")}
	}
	if err != nil {
		return log.Header{}, r.corrupt(n, err)
	}
	h, err := log.DecodeHeader(v)
	return h, errors.Join(err, closer.Close())
}

// seqAtCommit returns the first seq of the key in a commit >= n, or the key's
// next seq. Seqs grow with commits, so it is a binary search over seqs, each
// step of which reads one chunk of postings.
func (g *Group) seqAtCommit(key identity.ID, n uint64) (uint64, error) {
	if err := g.engine.checkOpen(); err != nil {
		return 0, err
	}
	defer g.engine.release()
	var chunk []posting
	lo, hi := uint64(1), g.replica.nextSeq(key)
	for lo < hi {
		mid := lo + (hi-lo)/2
		var err error
		if chunk, err = g.replica.postings(chunk[:0], key, mid); err != nil {
			return 0, err
		}
		first, last := chunk[0], chunk[len(chunk)-1]
		switch {
		case last.commit < n:
			lo = last.firstSeq + uint64(last.count)
		case first.commit >= n:
			hi = first.firstSeq
		default:
			i, _ := slices.BinarySearchFunc(chunk, n, func(p posting, n uint64) int {
				if p.commit < n {
					return -1
				}
				return 1
			})
			return chunk[i].firstSeq, nil
		}
	}
	return lo, nil
}

// postings appends the chunk of postings that holds seq of key, which must be
// below its next seq.
func (r *replica) postings(dst []posting, key identity.ID, seq uint64) ([]posting, error) {
	r.mu.RLock()
	l := r.mu.logs[key]
	if l == nil || seq >= l.next {
		r.mu.RUnlock()
		return dst, fmt.Errorf("%w: seq %d of key %s", log.ErrNotFound, seq, key.Short())
	}
	if l.chunkLen > 0 && seq >= l.chunkFirst {
		dst, err := decodePostings(dst, l.chunkFirst, l.postings)
		r.mu.RUnlock()
		return dst, err
	}
	number := l.number
	r.mu.RUnlock()

	bad := func(err error) error {
		return &log.CorruptionError{Group: r.group, Err: fmt.Errorf("index of key %s at seq %d: %w", key.Short(), seq, err)}
	}
	it, err := r.db.NewIter(&pebble.IterOptions{
		LowerBound: appendIndexKey(nil, r.shard, number, 0),
		UpperBound: appendIndexKey(nil, r.shard, number+1, 0),
	})
	if err != nil {
		return dst, r.corrupt(0, err)
	}
	defer it.Close()
	if !it.SeekLT(appendIndexKey(nil, r.shard, number, seq+1)) {
		if err := it.Error(); err != nil {
			return dst, r.corrupt(0, err)
		}
		return dst, bad(errors.New("no postings"))
	}
	chunk, err := it.ValueAndErr()
	if err != nil {
		return dst, r.corrupt(0, err)
	}
	dst, err = decodePostings(dst, binary.BigEndian.Uint64(it.Key()[spaceSize+4:]), chunk)
	if err != nil {
		return dst, bad(err)
	}
	if last := dst[len(dst)-1]; seq >= last.firstSeq+uint64(last.count) {
		return dst, bad(fmt.Errorf("postings end with seq %d", last.firstSeq+uint64(last.count)-1))
	}
	return dst, nil
}

// head returns the published head.
func (r *replica) head() log.Head {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.mu.head
}

// nextSeq returns the seq the key's next record will have.
func (r *replica) nextSeq(key identity.ID) uint64 {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if l := r.mu.logs[key]; l != nil {
		return l.next
	}
	return 1
}

// watch returns a channel that is closed at the next publish. Call it before
// looking at what is published, and nothing is missed.
func (r *replica) watch() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.changed == nil {
		r.mu.changed = make(chan struct{})
	}
	return r.mu.changed
}

// info describes the log. REQUIRES: replica.mu.
func (k *keyLog) info() KeyInfo {
	return KeyInfo{Key: k.key, Records: k.next - 1, Commit: k.commit}
}

// KeyInfo describes one log of a group.
type KeyInfo struct {
	Key     identity.ID
	Records uint64 // seqs 1..Records
	Commit  uint64 // commit that holds the last record
}

// Key returns what Keys tells of one log, and whether it has records.
func (g *Group) Key(key identity.ID) (KeyInfo, bool) {
	r := g.replica
	r.mu.RLock()
	defer r.mu.RUnlock()
	l := r.mu.logs[key]
	if l == nil || l.next == 1 {
		return KeyInfo{}, false
	}
	return l.info(), true
}

// Keys returns the logs of the group that have records, in the order of their
// keys, as this node has them.
func (g *Group) Keys() []KeyInfo {
	r := g.replica
	r.mu.RLock()
	keys := make([]KeyInfo, 0, len(r.mu.logs))
	for _, l := range r.mu.logs {
		if l.next > 1 {
			keys = append(keys, l.info())
		}
	}
	r.mu.RUnlock()
	slices.SortFunc(keys, func(a, b KeyInfo) int { return a.Key.Compare(b.Key) })
	return keys
}
