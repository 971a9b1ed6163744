package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/mosaik-engine/mosaik/log"
)

// Refold. The log is the truth and the views are folded from it, so they can be
// dropped and built anew: after a replica has diverged, or because somebody wants
// to be sure. A mark in the store says that this is under way; a store that is
// opened with the mark finishes the work before anything else.
//
// Headers hold the digest of the views, so a replica whose views were wrong has
// written wrong headers from there on. When the majority's digest of the commit
// where it diverged is known, and folding comes to the same, the headers are
// written anew as well and the chain is the group's again. Without such a digest
// nothing proves which is right, and pointers to the commits have been given out:
// headers stay as they are, and the report names the first commit whose state is
// not what its header says.

// RefoldReport says what Refold has found.
type RefoldReport struct {
	Commits uint64 // folded
	Rows    uint64 // of the store that were written
	// Differs is the first commit whose header does not have the state that folding
	// the log comes to; 0: there is none.
	Differs uint64
	// Rewritten is the number of headers that were wrong and are the group's now.
	Rewritten uint64
}

// Refold drops the group's views on this node and builds them anew from its log.
// Nothing is applied meanwhile, and reads fail with ErrFetching. progress may be
// nil. When it ends without an error, a replica that had diverged serves again.
//
// The error wraps log.ErrDiverged if folding does not come to what the majority
// has either: then the log here, or this program, differs from theirs, and only
// the state of another member helps.
func (g *Group) Refold(ctx context.Context, progress func(done, total uint64)) (RefoldReport, error) {
	if err := g.engine.checkOpen(); err != nil {
		return RefoldReport{}, err
	}
	defer g.engine.release()
	report, err := g.replica.refold(ctx, progress)
	if err != nil {
		return report, fmt.Errorf("refold group %s: %w", g.name, err)
	}
	g.engine.opts.Logger.Info("views built anew", "group", g.name, "commits", report.Commits, "rows", report.Rows,
		"differs", report.Differs, "rewritten", report.Rewritten)
	return report, nil
}

// divergedNow tells of a divergence and gives the lead away. It is called by the
// applier.
func (g *Group) divergedNow(err error) {
	g.engine.opts.Logger.Error("this replica serves the group no more", "group", g.name, "err", err)
	g.engine.opts.Events.Diverged(g.name, err)
	g.host.handOver(g.shard, 0)
}

// finishRefold goes on with a refold that a stop of the node has interrupted.
func (r *replica) finishRefold() error {
	_, closer, err := r.db.Get(appendMetaKey(nil, r.shard, metaRefolding))
	if errors.Is(err, pebble.ErrNotFound) {
		return nil
	}
	if err != nil {
		return r.corrupt(0, err)
	}
	if err := closer.Close(); err != nil {
		return err
	}
	_, err = r.refold(context.Background(), nil)
	return err
}

// refold is Refold for the replica.
func (r *replica) refold(ctx context.Context, progress func(done, total uint64)) (RefoldReport, error) {
	if progress == nil {
		progress = func(uint64, uint64) {}
	}
	r.applying.Lock()
	defer r.applying.Unlock()
	mark, marked, err := r.loadMark()
	if err != nil {
		return RefoldReport{}, err
	}
	f := refolding{r: r, progress: progress}
	if marked && !mark.digest.IsZero() {
		f.majority = &mark
	}
	r.withhold()
	err = f.run(ctx)
	r.batch.Reset()
	if err == nil {
		err = r.load() // also clears what diverge has set
	}
	if err != nil {
		// The mark stays: the next Open, or another Refold, starts over.
		cause := fmt.Errorf("%w: group %s: its views are not complete: %w", log.ErrDiverged, r.group.Short(), err)
		r.diverged.Store(&cause)
	}
	r.offer()
	return f.report, err
}

// withhold makes readers wait, and those under way start anew, until offer.
func (r *replica) withhold() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.fetching = true
	r.mu.generation++
}

// offer lets readers see what load has published.
func (r *replica) offer() {
	r.mu.Lock()
	r.mu.fetching = false
	r.mu.generation++
	changed := r.mu.changed
	r.mu.changed = nil
	r.mu.Unlock()
	if changed != nil {
		close(changed)
	}
}

// refolding is a refold under way.
type refolding struct {
	r        *replica
	progress func(done, total uint64)
	majority *recentDigest // what the majority has for one commit; nil: not known
	report   RefoldReport

	prev    log.Digest   // of the commit before, as it should be
	waiting []log.Commit // with new headers, until the majority's digest has proved them right
}

func (f *refolding) run(ctx context.Context) error {
	r := f.r
	if err := f.drop(); err != nil {
		return err
	}
	cur, err := r.newCursor(1)
	if err != nil {
		return err
	}
	defer cur.close()
	for n := uint64(1); n <= r.state.number; n++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		c, err := cur.commit(n)
		if err != nil {
			return err
		}
		if err := f.commit(&c); err != nil {
			return err
		}
		if n%4096 == 0 {
			f.progress(n, r.state.number)
		}
	}
	return f.finish()
}

// drop removes the views and marks that they are not complete.
func (f *refolding) drop() error {
	r := f.r
	r.batch.Reset()
	r.fold.Hash = log.StateHash{}
	r.stateDigest, r.touched = log.Digest{}, false
	r.views = make(map[uint32]*keyLog)
	r.mu.Lock()
	for _, l := range r.mu.logs {
		l.view, l.resolved = nil, false
	}
	r.mu.Unlock()
	return errors.Join(
		r.batch.Set(appendMetaKey(nil, r.shard, metaRefolding), nil, nil),
		r.batch.Delete(appendMetaKey(nil, r.shard, metaStateHash), nil),
		r.batch.Delete(appendMetaKey(nil, r.shard, metaViewsFrom), nil),
		r.batch.DeleteRange(appendSpace(nil, r.shard, spaceView), appendSpace(nil, r.shard, spaceHistory+1), nil),
		f.write(),
	)
}

// write writes the batch, without a state row: what was applied stays as it is.
func (f *refolding) write() error {
	f.r.unflushed.Store(true)
	if err := f.r.batch.Commit(pebble.NoSync); err != nil {
		return fmt.Errorf("mosaik: refold: %w", err)
	}
	f.r.batch.Reset()
	f.r.touched = false
	return nil
}

// commit folds one commit.
func (f *refolding) commit(c *log.Commit) error {
	r := f.r
	r.fold.Begin(c.Header.Number, c.Header.Time)
	r.results = r.results[:0]
	for run, err := range c.Runs() {
		if err != nil {
			return err
		}
		if err := r.foldRun(r.logOf(run.Key), &run); err != nil {
			return err
		}
	}
	state, err := r.endFold(c.Header.Number)
	if err != nil {
		return err
	}
	f.report.Commits++
	if r.touched {
		f.report.Rows += uint64(r.batch.Count())
		if err := f.write(); err != nil {
			return err
		}
	}
	return f.chain(c, state)
}

// chain compares the commit's header with what folding has come to, and writes
// it anew where that is known to be right.
func (f *refolding) chain(c *log.Commit, state log.Digest) error {
	if state != c.Header.State && f.report.Differs == 0 {
		f.report.Differs = c.Header.Number
	}
	if f.majority == nil {
		return nil
	}
	header := c.Header
	header.State, header.Prev = state, f.prev
	f.prev = header.Digest()
	if f.prev != c.Digest {
		first := bytes.Clone(c.Body[:min(len(c.Body), pieceBytes-log.HeaderSize)])
		f.waiting = append(f.waiting, log.Commit{Header: header, Digest: f.prev, Body: first})
	}
	switch {
	case header.Number < f.majority.number:
		return nil
	case header.Number == f.majority.number && f.prev != f.majority.digest:
		return fmt.Errorf("%w: folding commits 1 to %d comes to digest %s, the majority has %s",
			log.ErrDiverged, header.Number, f.prev, f.majority.digest)
	}
	return f.rewrite()
}

// rewrite replaces the first pieces of the commits whose headers were wrong.
func (f *refolding) rewrite() error {
	for i := range f.waiting {
		c := &f.waiting[i]
		f.report.Rewritten++
		if err := f.r.batch.Set(appendCommitKey(nil, f.r.shard, c.Header.Number, 0), c.AppendTo(nil), nil); err != nil {
			return err
		}
	}
	f.waiting = f.waiting[:0]
	if f.r.batch.Empty() {
		return nil
	}
	return f.write()
}

// finish makes the new views the group's.
func (f *refolding) finish() error {
	r := f.r
	if f.majority != nil {
		r.state.digest = f.prev
	}
	err := errors.Join(
		r.batch.Delete(appendMetaKey(nil, r.shard, metaRefolding), nil),
		r.batch.Delete(appendMetaKey(nil, r.shard, metaDiverged), nil),
		r.write(),
	)
	if err != nil {
		return err
	}
	f.progress(r.state.number, r.state.number)
	return r.flush()
}
