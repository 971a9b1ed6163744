package engine

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

// newReplica reads what the store has of a group: its state row, its logs, and
// the postings that were still in memory when the store was last written, which
// it finds again in the commits from the state's horizon on.
func newReplica(db *pebble.DB, shard uint64, group identity.ID, self uint64, voters int, machines []log.Machine) (*replica, error) {
	r := &replica{db: db, shard: shard, group: group, self: self, batch: db.NewBatch(), witness: newWitness(voters)}
	r.indexLag = indexLagBytes
	fold, err := log.NewFold(storedRows{r}, machines...)
	if err != nil {
		return nil, errors.Join(err, r.batch.Close())
	}
	r.fold = fold
	if err := r.load(); err != nil {
		return nil, errors.Join(err, r.batch.Close())
	}
	return r, nil
}

// load replaces all the replica holds in memory by what the store says.
func (r *replica) load() error {
	fail := func(err error) error { return fmt.Errorf("mosaik: open group %s: %w", r.group.Short(), err) }
	s, exists, err := r.loadState()
	if err != nil {
		return fail(err)
	}
	logs := make(map[identity.ID]*keyLog)
	if exists {
		if err := r.loadLogs(s, logs); err != nil {
			return fail(err)
		}
	}
	r.state, r.dirty, r.full = s, nil, nil
	r.views = make(map[uint32]*keyLog)
	if err := r.loadStateHash(); err != nil {
		return fail(err)
	}
	r.lastRemoved.Store(s.number) // not known any more
	mark, err := r.metaRow(metaSyncing)
	if err != nil {
		return fail(err)
	}
	r.syncing = mark != nil
	from, err := r.metaRow(metaViewsFrom)
	if err != nil {
		return fail(err)
	}
	r.viewsFrom.Store(0)
	if len(from) == 8 {
		r.viewsFrom.Store(binary.LittleEndian.Uint64(from))
	}
	r.stored, r.recent = s.number, [recentDigests]recentDigest{}
	if err := r.loadSealed(r.witness.voters); err != nil {
		return fail(err)
	}
	r.mu.Lock()
	r.mu.logs = logs
	r.mu.head, r.mu.state = s.head(), r.stateDigest
	r.mu.total = s.total()
	r.mu.epoch = s.epochOf(r.self)
	r.mu.fetching = r.mu.fetching || r.syncing // until the sync is done
	r.mu.Unlock()
	if !exists {
		// Rows without a state row are what a state transfer left that did not come
		// to its end; Raft has it sent again, and receive clears them first.
		return nil
	}
	if err := r.loadTail(); err != nil {
		return fail(err)
	}
	if err := r.loadViews(); err != nil {
		return fail(err)
	}
	if err := r.loadDivergence(); err != nil {
		return fail(err)
	}
	return nil
}

// loadViews resolves how the logs are folded. A log that this program has no
// machine for is an error now, not when the next command comes.
func (r *replica) loadViews() error {
	fold := r.foldAfter(r.state.number)
	for e, err := range log.Entries(storedRows{r}.Rows(0, 1)) {
		if err != nil {
			return err
		}
		key := e.Key()
		v, err := fold.Resolve(key)
		if err != nil {
			return err
		}
		l := r.mu.logs[key]
		if l == nil || v == nil {
			continue
		}
		r.setView(l, v)
		generation, since, err := log.CurrentGeneration(storedRows{r}, v.Number)
		if err != nil {
			return err
		}
		r.mu.Lock()
		l.viewGeneration, l.viewSince = generation, since
		r.mu.Unlock()
	}
	return nil
}

func (r *replica) loadState() (s state, exists bool, err error) {
	v, closer, err := r.db.Get(appendSpace(nil, r.shard, spaceMeta))
	if errors.Is(err, pebble.ErrNotFound) {
		return state{horizon: 1}, false, nil
	}
	if err != nil {
		return state{}, false, r.corrupt(0, err)
	}
	s, err = decodeState(v)
	if err != nil && !errors.Is(err, log.ErrNewerFormat) {
		err = &log.CorruptionError{Group: r.group, Err: err}
	}
	return s, true, errors.Join(err, closer.Close())
}

func (r *replica) loadStateHash() error {
	v, closer, err := r.db.Get(appendMetaKey(nil, r.shard, metaStateHash))
	if errors.Is(err, pebble.ErrNotFound) {
		r.fold.Hash, r.stateDigest = log.StateHash{}, log.Digest{}
		return nil
	}
	if err != nil {
		return r.corrupt(0, err)
	}
	hash, ok := log.DecodeStateHash(v)
	if err := closer.Close(); err != nil {
		return err
	}
	if !ok {
		return &log.CorruptionError{Group: r.group, Err: errors.New("the state hash has another size")}
	}
	r.fold.Hash, r.stateDigest = hash, hash.Digest()
	return nil
}

func (r *replica) loadLogs(s state, logs map[identity.ID]*keyLog) error {
	it, err := r.db.NewIter(&pebble.IterOptions{
		LowerBound: appendSpace(nil, r.shard, spaceKey),
		UpperBound: appendSpace(nil, r.shard, spaceKey+1),
	})
	if err != nil {
		return r.corrupt(0, err)
	}
	for it.First(); it.Valid(); it.Next() {
		v, err := it.ValueAndErr()
		if err != nil {
			break // it.Error has it too
		}
		row, err := decodeLogRow(v)
		if err == nil && (len(it.Key()) != spaceSize+identity.Size || row.number == 0 || row.number > s.logs) {
			err = fmt.Errorf("key row %x names log %d of %d", it.Key(), row.number, s.logs)
		}
		if err != nil {
			return errors.Join(&log.CorruptionError{Group: r.group, Err: err}, it.Close())
		}
		key := identity.ID(it.Key()[spaceSize:])
		logs[key] = &keyLog{key: key, number: row.number, nextApply: row.next, next: row.next, commit: row.commit}
	}
	if err := errors.Join(it.Error(), it.Close()); err != nil {
		return r.corrupt(0, err)
	}
	return nil
}

// loadTail adds the postings of the commits from the horizon on. A run whose
// seqs a written chunk already covers is skipped: chunks are written before the
// horizon passes them.
func (r *replica) loadTail() error {
	number := r.state.horizon
	c, err := r.newCursor(number)
	if err != nil {
		return err
	}
	defer c.close()
	for ; number <= r.state.number; number++ {
		commit, err := c.commit(number)
		if err != nil {
			return err
		}
		r.pending = r.pending[:0]
		for run, err := range commit.Runs() {
			if err != nil {
				return err
			}
			l := r.logOf(run.Key)
			if run.FirstSeq < l.nextApply {
				continue
			}
			if run.FirstSeq != l.nextApply {
				return &log.CorruptionError{Group: r.group, Commit: number,
					Err: fmt.Errorf("key %s continues with seq %d, expected %d", run.Key.Short(), run.FirstSeq, l.nextApply)}
			}
			l.nextApply += uint64(run.Count)
			r.pending = append(r.pending, pendingRun{l, posting{number, run.FirstSeq, run.Count, run.Offset()}})
		}
		r.publish()
	}
	r.pending = r.pending[:0]
	if c.it.Valid() && !r.syncing {
		beyond, _ := decodeCommitKey(c.it.Key())
		return &log.CorruptionError{Group: r.group, Commit: beyond, Err: fmt.Errorf("it is in the store, but the log's head is %d", r.state.number)}
	}
	return nil
}

// corrupt wraps an error of the store that reading commit number met: damage is
// marked with the place, anything else is passed on.
func (r *replica) corrupt(number uint64, err error) error {
	if errors.Is(err, pebble.ErrClosed) {
		return fmt.Errorf("%w: %w", log.ErrClosed, err)
	}
	if !pebble.IsCorruptionError(err) {
		return err
	}
	e := &log.CorruptionError{Group: r.group, Commit: number, Err: err}
	if info := pebble.ExtractDataCorruptionInfo(err); info != nil {
		e.File, e.Err = info.Path, info.Details
	}
	return e
}
