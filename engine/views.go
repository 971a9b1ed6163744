package engine

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"

	"github.com/cockroachdb/pebble/v2"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

// Views on the store. The newest version of a row stands in the view space,
// where a read of the present finds it with one lookup. The commit that replaces
// or removes it moves it to the history space, under the commit that wrote it,
// so a read of the past finds it there; a removal leaves a mark. A row that is
// written once costs one row of the store, and time travel costs the same however
// far back it goes.
//
//	view     view 4 | generation 4 | key           -> commit uvarint | value
//	history  view 4 | generation 4 | key' | commit 8 -> 0: removed by it | 1, value
//
// key' is the key as log.AppendOrdered writes it, so that keys of any length sort
// as they do in the view space and none is a prefix of another.

const (
	historyRemoved = 0
	historyValue   = 1
)

func appendViewKey(dst []byte, shard uint64, view, generation uint32, key []byte) []byte {
	dst = binary.BigEndian.AppendUint32(appendSpace(dst, shard, spaceView), view)
	dst = binary.BigEndian.AppendUint32(dst, generation)
	return append(dst, key...)
}

const viewPrefixSize = spaceSize + 4 + 4

// appendHistoryPrefix appends the history key of a row up to the commit.
func appendHistoryPrefix(dst []byte, shard uint64, view, generation uint32, key []byte) []byte {
	dst = binary.BigEndian.AppendUint32(appendSpace(dst, shard, spaceHistory), view)
	dst = binary.BigEndian.AppendUint32(dst, generation)
	return log.AppendOrdered(dst, key)
}

var errHistoryKey = errors.New("history row with a malformed key")

// decodeHistoryKey returns the row's key and its commit. rest is what follows
// view and generation.
func decodeHistoryKey(rest []byte) (key []byte, commit uint64, err error) {
	key, rest, ok := log.CutOrdered(rest)
	if !ok || len(rest) != 8 {
		return nil, 0, errHistoryKey
	}
	return key, binary.BigEndian.Uint64(rest), nil
}

var errViewRow = errors.New("view row without a commit")

// decodeViewRow splits a row of the view space.
func decodeViewRow(b []byte) (commit uint64, value []byte, err error) {
	commit, n := binary.Uvarint(b)
	if n <= 0 || commit == 0 {
		return 0, nil, errViewRow
	}
	return commit, b[n:], nil
}

// writeEffect puts what commit number does to a row into the batch.
func (r *replica) writeEffect(e *log.RowEffect, number uint64) error {
	if e.Existed {
		r.scratch = appendHistoryPrefix(r.scratch[:0], r.shard, e.View, e.Generation, e.Key)
		r.scratch = binary.BigEndian.AppendUint64(r.scratch, e.Before)
		n := len(r.scratch)
		r.scratch = append(append(r.scratch, historyValue), e.Old...)
		if err := r.batch.Set(r.scratch[:n], r.scratch[n:], nil); err != nil {
			return err
		}
	}
	r.scratch = appendViewKey(r.scratch[:0], r.shard, e.View, e.Generation, e.Key)
	if e.Exists {
		n := len(r.scratch)
		r.scratch = append(binary.AppendUvarint(r.scratch, number), e.New...)
		return r.batch.Set(r.scratch[:n], r.scratch[n:], nil)
	}
	r.lastRemoved.Store(number) // before the row goes: see rowsAt.Get
	if err := r.batch.Delete(r.scratch, nil); err != nil {
		return err
	}
	r.scratch = appendHistoryPrefix(r.scratch[:0], r.shard, e.View, e.Generation, e.Key)
	r.scratch = binary.BigEndian.AppendUint64(r.scratch, number)
	return r.batch.Set(r.scratch, []byte{historyRemoved}, nil)
}

// storedRows is the Base of the applier: the rows as the store has them.
type storedRows struct{ r *replica }

// Rows implements log.Base.
func (s storedRows) Rows(view, generation uint32) log.View {
	return rowsAt{r: s.r, view: view, generation: generation, commit: s.r.state.number, newest: true}
}

// rowsAsOf is a Base as of any commit the store has applied.
type rowsAsOf struct {
	r      *replica
	g      *Group // whose Close waits for each access; nil inside the engine
	commit uint64
}

// Rows implements log.Base.
func (b rowsAsOf) Rows(view, generation uint32) log.View {
	return rowsAt{r: b.r, g: b.g, view: view, generation: generation, commit: b.commit}
}

// rowsAt is one generation of one view, as of a commit. It pins nothing: rows
// that a later commit replaces are found in the history.
type rowsAt struct {
	r                *replica
	g                *Group
	view, generation uint32
	commit           uint64
	newest           bool // nothing is applied meanwhile: what the store has is as of commit
}

// Commit implements log.View.
func (v rowsAt) Commit() uint64 { return v.commit }

// enter begins an access to the store; leave ends it.
func (v rowsAt) enter() error {
	if v.g == nil {
		return nil
	}
	if err := v.g.engine.checkOpen(); err != nil {
		return err
	}
	_, err := v.r.steady()
	if err != nil {
		v.g.engine.release()
	}
	return err
}

func (v rowsAt) leave() {
	if v.g != nil {
		v.g.engine.release()
	}
}

// Get implements log.View.
func (v rowsAt) Get(key []byte) (log.Row, bool, error) {
	if err := v.enter(); err != nil {
		return log.Row{}, false, err
	}
	defer v.leave()
	var buf [viewPrefixSize + 128]byte
	stored, closer, err := v.r.db.Get(appendViewKey(buf[:0], v.r.shard, v.view, v.generation, key))
	switch {
	case errors.Is(err, pebble.ErrNotFound):
		// Removals announce themselves before they happen: one that made the row
		// disappear has been announced.
		if v.newest || v.r.lastRemoved.Load() <= v.commit {
			return log.Row{}, false, nil
		}
	case err != nil:
		return log.Row{}, false, v.r.corrupt(0, err)
	default:
		commit, value, err := decodeViewRow(stored)
		if err != nil {
			return log.Row{}, false, errors.Join(v.bad(key, err), closer.Close())
		}
		if commit <= v.commit {
			row := log.Row{Key: key, Value: bytes.Clone(value), Commit: commit}
			return row, true, closer.Close()
		}
		if err := closer.Close(); err != nil {
			return log.Row{}, false, err
		}
	}
	h, err := v.openHistory(log.Range{})
	if err != nil {
		return log.Row{}, false, err
	}
	defer h.it.Close()
	return h.version(key)
}

func (v rowsAt) bad(key []byte, err error) error {
	return &log.CorruptionError{Group: v.r.group, Err: fmt.Errorf("row %x of view %d: %w", key, v.view, err)}
}

// Scan implements log.View.
func (v rowsAt) Scan(r log.Range) iter.Seq2[log.Row, error] {
	return func(yield func(log.Row, error) bool) {
		if err := v.enter(); err != nil {
			yield(log.Row{}, err)
			return
		}
		defer v.leave()
		if err := v.scan(r, yield); err != nil {
			yield(log.Row{}, err)
		}
	}
}

// scan yields the rows of a range. The history is looked at only if a row may
// have been there at the commit that is not in the view space any more, or is
// there in a later version.
func (v rowsAt) scan(r log.Range, yield func(log.Row, error) bool) error {
	if len(r.To) > 0 && bytes.Compare(r.From, r.To) >= 0 {
		return nil
	}
	prefix := appendViewKey(nil, v.r.shard, v.view, v.generation, nil)
	lower, upper := append(bytes.Clone(prefix), r.From...), append(bytes.Clone(prefix), r.To...)
	if len(r.To) == 0 {
		upper = binary.BigEndian.AppendUint32(appendSpace(nil, v.r.shard, spaceView), v.view)
		upper = binary.BigEndian.AppendUint32(upper, v.generation+1)
	}
	it, err := v.r.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return v.r.corrupt(0, err)
	}
	defer it.Close()
	// The iterator sees the store as it was when it was made. What was removed
	// before that has been announced by now.
	var h *history
	openHistory := func() (err error) {
		if h == nil {
			h, err = v.openHistory(r)
		}
		return err
	}
	defer func() {
		if h != nil {
			h.it.Close()
		}
	}()
	var old []byte // next key of the history, if it is merged in
	merging := !v.newest && v.r.lastRemoved.Load() > v.commit
	if merging {
		if err := openHistory(); err != nil {
			return err
		}
		if old, err = h.first(); err != nil {
			return err
		}
	}
	step, valid := it.Next, it.First
	if r.Reverse {
		step, valid = it.Prev, it.Last
	}
	for ok := valid(); ; {
		var key []byte
		if ok {
			key = it.Key()[len(prefix):]
		} else if err := it.Error(); err != nil {
			return v.r.corrupt(0, err)
		}
		order := 1 // of the row against the history's next key: negative is first
		switch {
		case !ok && old == nil:
			return nil
		case old == nil:
			order = -1
		case ok:
			if order = bytes.Compare(key, old); r.Reverse {
				order = -order
			}
		}
		var row log.Row
		exists := false
		if order <= 0 {
			stored, err := it.ValueAndErr()
			if err != nil {
				return v.r.corrupt(0, err)
			}
			row.Key = key
			if row.Commit, row.Value, err = decodeViewRow(stored); err != nil {
				return v.bad(key, err)
			}
			exists = row.Commit <= v.commit
		} else {
			key = old
		}
		if !exists && (order >= 0 || !merging) {
			if err := openHistory(); err != nil {
				return err
			}
			if row, exists, err = h.version(key); err != nil {
				return err
			}
		}
		if exists && !yield(row, nil) {
			return nil
		}
		if order >= 0 && merging {
			if old, err = h.after(old); err != nil {
				return err
			}
		}
		if order <= 0 {
			ok = step()
		}
	}
}

// history reads the older versions of the rows of one generation of a view.
type history struct {
	v       rowsAt
	reverse bool
	it      *pebble.Iterator
	prefix  int // bytes of a key before the row's key
	seek    []byte
}

func (v rowsAt) openHistory(r log.Range) (*history, error) {
	lower := binary.BigEndian.AppendUint32(appendSpace(nil, v.r.shard, spaceHistory), v.view)
	lower = binary.BigEndian.AppendUint32(lower, v.generation)
	upper := bytes.Clone(lower)
	prefix := len(lower)
	lower = log.AppendEscaped(lower, r.From)
	if len(r.To) == 0 {
		binary.BigEndian.PutUint32(upper[prefix-4:], v.generation+1)
	} else {
		// Keys below To stay below it with their end appended, and To with its end is
		// above it: 0x00 0x01 sorts before every continuation of a key.
		upper = log.AppendEscaped(upper, r.To)
	}
	it, err := v.r.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return nil, v.r.corrupt(0, err)
	}
	return &history{v: v, reverse: r.Reverse, it: it, prefix: prefix}, nil
}

// version returns the row as the commit of the view had it: the newest version
// that is not newer.
func (h *history) version(key []byte) (log.Row, bool, error) {
	h.seek = appendHistoryPrefix(h.seek[:0], h.v.r.shard, h.v.view, h.v.generation, key)
	n := len(h.seek)
	h.seek = binary.BigEndian.AppendUint64(h.seek, h.v.commit+1)
	if !h.it.SeekLT(h.seek) {
		return log.Row{}, false, h.err()
	}
	at := h.it.Key()
	if len(at) != n+8 || !bytes.Equal(at[:n], h.seek[:n]) {
		return log.Row{}, false, nil
	}
	value, err := h.it.ValueAndErr()
	switch {
	case err != nil:
		return log.Row{}, false, h.v.r.corrupt(0, err)
	case len(value) == 1 && value[0] == historyRemoved:
		return log.Row{}, false, nil
	case len(value) == 0 || value[0] != historyValue:
		return log.Row{}, false, h.v.bad(key, errors.New("malformed history"))
	}
	return log.Row{Key: key, Value: bytes.Clone(value[1:]), Commit: binary.BigEndian.Uint64(at[n:])}, true, nil
}

func (h *history) err() error {
	if err := h.it.Error(); err != nil {
		return h.v.r.corrupt(0, err)
	}
	return nil
}

// first returns the first key with a history, in the direction of the scan; nil:
// there is none.
func (h *history) first() ([]byte, error) {
	if h.reverse {
		return h.found(h.it.Last())
	}
	return h.found(h.it.First())
}

// after returns the next key with a history behind the given one.
func (h *history) after(key []byte) ([]byte, error) {
	h.seek = appendHistoryPrefix(h.seek[:0], h.v.r.shard, h.v.view, h.v.generation, key)
	if h.reverse {
		return h.found(h.it.SeekLT(h.seek))
	}
	h.seek[len(h.seek)-1]++ // behind all commits of the key
	return h.found(h.it.SeekGE(h.seek))
}

func (h *history) found(ok bool) ([]byte, error) {
	if !ok {
		return nil, h.err()
	}
	key, _, err := decodeHistoryKey(h.it.Key()[h.prefix:])
	if err != nil {
		return nil, h.v.bad(h.it.Key(), err)
	}
	if key == nil {
		key = []byte{} // the empty key is one
	}
	return key, nil
}

// viewOf says how the log is folded. REQUIRES: called by the applier.
func (r *replica) viewOf(l *keyLog) (*log.ViewInfo, error) {
	if l.resolved {
		return l.view, nil
	}
	v, err := r.fold.Resolve(l.key)
	if err != nil {
		return nil, err
	}
	r.setView(l, v)
	return v, nil
}

// setView notes how a log is folded. It is in its first generation, or it is not
// folded: load corrects that for those that were cleared.
func (r *replica) setView(l *keyLog, v *log.ViewInfo) {
	r.mu.Lock()
	l.view, l.resolved, l.viewGeneration, l.viewSince = v, true, 1, 0
	r.mu.Unlock()
	if v != nil {
		r.views[v.Number] = l
	}
}

// registerViews notes the keys that the commit has registered so far.
func (r *replica) registerViews() {
	for _, v := range r.fold.Registered() {
		if l := r.mu.logs[v.Key]; l != nil { // no lock: only the applier writes the map
			r.setView(l, v)
		}
	}
}

// endFold puts what the commit did to the views into the batch and returns the
// state digest.
func (r *replica) endFold(number uint64) (log.Digest, error) {
	before := r.touched
	for e := range r.fold.End() {
		if err := r.writeEffect(e, number); err != nil {
			return log.Digest{}, err
		}
		r.touched = true
		if e.Generation == 0 { // the view was cleared
			l := r.views[e.View]
			r.mu.Lock()
			l.viewGeneration, l.viewSince = binary.LittleEndian.Uint32(e.New), number
			r.mu.Unlock()
		}
	}
	if r.touched == before {
		return r.stateDigest, nil
	}
	r.scratch = appendMetaKey(r.scratch[:0], r.shard, metaStateHash)
	n := len(r.scratch)
	r.scratch = r.fold.Hash.AppendTo(r.scratch)
	r.stateDigest = r.fold.Hash.Digest()
	return r.stateDigest, r.batch.Set(r.scratch[:n], r.scratch[n:], nil)
}

// Views returns the views as of a commit and, to fold the commits from the first
// on over them, a Fold that has folded nothing yet (replay.Folded).
//
// A node that came by the views through a state sync does not know them as of
// earlier commits than that; then the Fold is nil.
func (g *Group) Views(commit uint64) (log.Base, *log.Fold) {
	if commit < g.replica.viewsFrom.Load() {
		return nil, nil
	}
	base := rowsAsOf{r: g.replica, g: g, commit: commit}
	return base, g.replica.fold.After(base, commit)
}

// Home implements log.Store.
func (g *Group) Home(identity.ID) log.GroupStore { return g }

// View returns the view of the key's log as c says (log.Store). It stays what it
// is however much is written later, and costs nothing to keep.
func (g *Group) View(ctx context.Context, key identity.ID, c log.Consistency) (log.View, error) {
	number, exact := c.Commit()
	switch head := g.Head().Number; {
	case exact && number > head:
		return nil, fmt.Errorf("%w: commit %d, the head is %d", log.ErrNotFound, number, head)
	case exact:
	case c.IsStale():
		number = head
	default:
		synced, err := g.Sync(ctx)
		if err != nil {
			return nil, err
		}
		number = synced.Number
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if _, err := g.replica.steady(); err != nil {
		return nil, err
	}
	if err := g.viewsKnown(number); err != nil {
		return nil, err
	}
	if v, ok := g.knownView(key, number); ok {
		return v, nil
	}
	return g.foldAfter(number).ViewOf(key)
}

// viewsKnown reports, as log.ErrNotFound, a commit that is before the state this
// node has got from others.
func (g *Group) viewsKnown(commit uint64) error {
	if from := g.replica.viewsFrom.Load(); commit < from {
		return fmt.Errorf("%w: the views of group %s as of commit %d: this node has them from commit %d on (group refold builds them from the first)", log.ErrNotFound, g.name, commit, from)
	}
	return nil
}

// knownView returns the view of a key whose generation is at hand.
func (g *Group) knownView(key identity.ID, number uint64) (log.View, bool) {
	r := g.replica
	r.mu.RLock()
	defer r.mu.RUnlock()
	l := r.mu.logs[key]
	switch {
	case l == nil || !l.resolved || l.view != nil && number < l.viewSince:
		return nil, false
	case l.view == nil || number < l.view.Since:
		return log.EmptyView(number), true
	}
	return rowsAt{r: r, g: g, view: l.view.Number, generation: l.viewGeneration, commit: number}, true
}

// folds reports whether a machine folds the key's log.
func (g *Group) folds(key identity.ID) (bool, error) {
	r := g.replica
	r.mu.RLock()
	l := r.mu.logs[key]
	known := l != nil && l.resolved
	folded := known && l.view != nil
	r.mu.RUnlock()
	if known {
		return folded, nil
	}
	v, err := g.foldAfter(g.Head().Number).Resolve(key)
	return v != nil, err
}

// foldAfter returns a fold over the views as of a commit, to find out what the
// next one did.
func (r *replica) foldAfter(number uint64) *log.Fold {
	return r.fold.After(rowsAsOf{r: r, commit: number}, number)
}

// foldAfter is replica.foldAfter for readers that Close waits for.
func (g *Group) foldAfter(number uint64) *log.Fold {
	return g.replica.fold.After(rowsAsOf{r: g.replica, g: g, commit: number}, number)
}

// Changes yields what each commit after the given one did to the view of the key
// (log.Store). The commits are folded again, each over the views as they were
// before it.
func (g *Group) Changes(ctx context.Context, key identity.ID, after uint64, follow bool) iter.Seq2[log.Changes, error] {
	return func(yield func(log.Changes, error) bool) {
		fail := func(err error) { yield(log.Changes{}, fmt.Errorf("changes of key %s: %w", key.Short(), err)) }
		q := log.Query{Key: key, From: log.CommitNumber(after + 1), Follow: follow}
		for run, err := range g.Scan(ctx, q) {
			if err != nil {
				fail(err)
				return
			}
			if run.Commit <= after {
				continue // a further run of the same commit
			}
			if err := g.viewsKnown(run.Commit - 1); err != nil {
				fail(err)
				return
			}
			after = run.Commit
			c, err := g.Commit(run.Commit)
			if err != nil {
				fail(err)
				return
			}
			changes, touched, err := g.foldAfter(run.Commit-1).Replay(&c, key)
			if err != nil {
				fail(err)
				return
			}
			if touched && !yield(changes, nil) {
				return
			}
		}
	}
}

// Home returns the key's group (log.Store).
func (e *Engine) Home(key identity.ID) log.GroupStore { return e.GroupFor(key) }

// View is Group.View on the key's group.
func (e *Engine) View(ctx context.Context, key identity.ID, c log.Consistency) (log.View, error) {
	return e.GroupFor(key).View(ctx, key, c)
}

// Changes is Group.Changes on the key's group.
func (e *Engine) Changes(ctx context.Context, key identity.ID, after uint64, follow bool) iter.Seq2[log.Changes, error] {
	return e.GroupFor(key).Changes(ctx, key, after, follow)
}

// WaitFor is Group.WaitFor on the group that the pointer names; log.ErrPointer
// if this node has none of that name.
func (e *Engine) WaitFor(ctx context.Context, p log.Pointer) error {
	for _, g := range e.groups {
		if g.id == p.Group {
			return g.WaitFor(ctx, p)
		}
	}
	return fmt.Errorf("%w: group: %s is not a group of this node", log.ErrPointer, p.Group.Short())
}
