package engine

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lni/dragonboat/v4/client"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/snapshot"
)

// The life of a write, in the order of the functions of this file and then of
// apply.go:
//
//  1. Append joins the group's open batch (join). The caller gets a future.
//  2. One of the group's Options.InFlight slots takes the batch (runSlot, take):
//     at once when the group is idle, so a lone write waits for nobody. While a
//     batch is under way the next one grows until that is done, or until it is
//     worth a proposal of its own (pipelineBytes), so load makes batches big by
//     itself and big batches overlap. There is no timer.
//  3. The batch becomes one proposal, which is one Raft entry (encode, submit).
//     Raft makes it durable on a majority: an fsync of the Raft log on each.
//  4. Every replica applies the entry (apply.go): commit, index, head, in one
//     batch of the store.
//  5. The slot that proposed it learns the commit's number and digest and the
//     seqs, and completes the futures (settle).
//
// Order. Appends of one node to one group are committed in the order in which
// they joined: batches are numbered when they are taken, submitted under a lock
// in that order, and a replica refuses a proposal whose predecessor it has not
// applied (replica.admit). The same numbers make proposing again after an
// unknown outcome safe: what was applied is recognised and not applied twice.
type writer struct {
	group   *Group
	slots   int
	timeout time.Duration
	submit  chan struct{} // one place, held from take to Propose, so that proposals leave in order
	session *client.Session

	mu struct {
		sync.Mutex
		open    *batch
		free    *batch        // one spent batch, to reuse its memory
		taken   *sync.Cond    // there is something to take, or closed is set
		room    chan struct{} // closed when the open batch is taken; nil if nobody waits
		closed  bool
		epoch   uint64
		nextSeq uint64
		flying  []uint64 // per slot: the proposal under way, 0 for none
	}
	wg sync.WaitGroup

	metrics struct {
		appends, batches, retries, failed atomic.Uint64
	}
}

// Limits of an open batch. A batch that would pass one of them makes its
// appenders wait until it is taken; a single append may be as large as
// log.MaxPayload allows.
const (
	// pipelineBytes is the size from which a batch does not wait for the one under
	// way. Below it, waiting is the better deal: callers that wait for each other's
	// fsync anyway share one instead of queueing for several.
	pipelineBytes   = 64 << 10
	maxBatchBytes   = 512 << 10
	maxBatchRecords = 1 << 14
)

// batch is the records that will become one commit, grouped by key.
type batch struct {
	runs    []batchRun
	index   map[identity.ID]int // key -> position in runs
	waiters []waiter
	records int
	bytes   int // of the body

	epoch, seq uint64
	deadline   time.Time
	cmd        []byte // encoded proposal, reused
}

type batchRun struct {
	key     identity.ID
	count   int
	records []byte // encoded as log.AppendRecord does
}

// waiter is one append, or transaction, in a batch.
type waiter struct {
	future *log.Future
	run    int // in batch.runs
	first  int // position of its first record in the run
	count  int // records
	runs   int // of a transaction, behind the one of its guard
}

func newWriter(g *Group, slots int, timeout time.Duration, session *client.Session, epoch uint64) *writer {
	w := &writer{group: g, slots: slots, timeout: timeout, session: session, submit: make(chan struct{}, 1)}
	w.mu.taken = sync.NewCond(&w.mu.Mutex)
	w.mu.open = newBatch()
	w.mu.epoch = epoch
	w.mu.nextSeq = 1
	w.mu.flying = make([]uint64, slots)
	return w
}

func newBatch() *batch { return &batch{index: make(map[identity.ID]int)} }

// start runs the slots.
func (w *writer) start() {
	w.wg.Add(w.slots)
	for slot := range w.slots {
		go w.runSlot(slot)
	}
}

// Append writes payloads under key, all in one commit and in order, and returns
// a pointer at the first when they are durable on a majority of the group's
// members. Payloads are copied before it returns.
//
// When ctx ends first, the error wraps ErrNoQuorum and ctx's error, and the
// records may or may not become part of the log; when it ends before the records
// could join a batch, the error wraps ErrBusy and nothing was written.
func (g *Group) Append(ctx context.Context, key identity.ID, payloads ...[]byte) (log.Pointer, error) {
	f, err := g.joinAppend(ctx, key, payloads)
	if err != nil {
		return log.Pointer{}, fmt.Errorf("append to group %s: %w", g.name, err)
	}
	p, err := await(ctx, f)
	if err != nil {
		return log.Pointer{}, fmt.Errorf("append to group %s: %w", g.name, err)
	}
	return p, nil
}

// await waits for the outcome of what has joined a batch.
func await(ctx context.Context, f *log.Future) (log.Pointer, error) {
	p, err := f.Wait(ctx)
	if err != nil && ctx.Err() != nil && !errors.Is(err, ErrNoQuorum) {
		err = fmt.Errorf("%w: not acknowledged in time, it may still be committed: %w", ErrNoQuorum, err)
	}
	return p, err
}

// AppendAsync is Append without the wait: the future completes when the records
// are durable, or with an error. It blocks only while the open batch is full,
// and no longer than ctx. Appends of one goroutine are committed in order.
func (g *Group) AppendAsync(ctx context.Context, key identity.ID, payloads ...[]byte) *log.Future {
	f, err := g.joinAppend(ctx, key, payloads)
	if err != nil {
		f = log.NewFuture()
		f.Complete(log.Pointer{}, fmt.Errorf("append to group %s: %w", g.name, err))
	}
	return f
}

// Submit commits a transaction (log.GroupStore). Errors are those of Append.
func (g *Group) Submit(ctx context.Context, t *log.Transaction) (log.Outcome, error) {
	fail := func(err error) (log.Outcome, error) {
		return log.Outcome{}, fmt.Errorf("transaction in group %s: %w", g.name, err)
	}
	if err := g.checkTransaction(t); err != nil {
		return fail(err)
	}
	guard := t.AppendGuard(nil)
	size := (1+t.Runs())*log.RunHeaderSize + binary.MaxVarintLen32*(1+len(t.Commands)) + len(guard)
	for i := range t.Commands {
		size += len(t.Commands[i].Payload)
	}
	f, err := g.writer.join(ctx, 1+len(t.Commands), size, func(b *batch, f *log.Future) { b.addTransaction(f, guard, t) })
	if err != nil {
		return fail(err)
	}
	p, err := await(ctx, f)
	if err != nil {
		return fail(err)
	}
	results, err := f.Results()
	if err != nil {
		return fail(err)
	}
	return log.OutcomeOf(p, results)
}

// checkTransaction refuses a transaction with commands to keys that no machine
// folds: their records would be in the log whether or not its conditions hold.
func (g *Group) checkTransaction(t *log.Transaction) error {
	if err := g.replica.divergence(); err != nil {
		return err
	}
	if err := t.Validate(); err != nil {
		return err
	}
	for i := range t.Commands {
		key := t.Commands[i].Key
		if i > 0 && key == t.Commands[i-1].Key {
			continue
		}
		folded, err := g.folds(key)
		if err != nil {
			return err
		}
		if !folded || key == log.DirectoryKey() || key == log.MembersKey() {
			return fmt.Errorf("%w: command %d: key %s is not registered with a machine in group %s", log.ErrTransaction, i, key.Short(), g.name)
		}
	}
	return nil
}

// joinAppend checks an append and joins it to the open batch.
func (g *Group) joinAppend(ctx context.Context, key identity.ID, payloads [][]byte) (*log.Future, error) {
	if err := g.replica.divergence(); err != nil {
		return nil, err
	}
	if err := log.CheckAppend(key, payloads); err != nil {
		return nil, err
	}
	switch key {
	case witnessKey, snapshot.SegmentsKey(), log.MembersKey():
		return nil, fmt.Errorf("%w: append: the log %s is the engine's own", log.ErrQuery, SystemName(key))
	case log.DirectoryKey():
		for _, p := range payloads {
			if err := g.checkRegistration(p); err != nil {
				return nil, err
			}
		}
	}
	return g.writer.join(ctx, len(payloads), bound(payloads), func(b *batch, f *log.Future) { b.add(f, key, payloads) })
}

// checkRegistration refuses what every replica would stop at, and a log that the
// rule by which keys are spread puts into another group.
func (g *Group) checkRegistration(payload []byte) error {
	e, err := g.replica.fold.CheckRegistration(payload)
	if err != nil {
		return err
	}
	if SystemName(e.Key()) != "" {
		return fmt.Errorf("%w: append: the log %q is the engine's own", log.ErrQuery, e.Name)
	}
	if home := g.engine.GroupFor(e.Key()); home != g && isSpreadName(g.name) {
		return fmt.Errorf("%w: the log %q belongs to group %s", ErrMismatch, e.Name, home.name)
	}
	return nil
}

// join adds so many records of at most size bytes to the open batch, waiting for
// the next one while it is full.
func (w *writer) join(ctx context.Context, records, size int, add func(*batch, *log.Future)) (*log.Future, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f := log.NewFuture()
	w.mu.Lock()
	for {
		if w.mu.closed {
			w.mu.Unlock()
			return nil, log.ErrClosed
		}
		if full := w.group.engine.space.full(); full != nil {
			w.mu.Unlock()
			return nil, full
		}
		b := w.mu.open
		if b.records == 0 || (b.bytes+size <= maxBatchBytes && b.records+records <= maxBatchRecords) {
			before := b.bytes
			add(b, f)
			if before == 0 || before < pipelineBytes && b.bytes >= pipelineBytes {
				w.mu.taken.Signal()
			}
			w.mu.Unlock()
			w.metrics.appends.Add(1)
			return f, nil
		}
		if w.mu.room == nil {
			w.mu.room = make(chan struct{})
		}
		room := w.mu.room
		w.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: the write path is full: %w", ErrBusy, ctx.Err())
		}
		w.mu.Lock()
	}
}

// bound returns an upper bound of what the payloads add to a body.
func bound(payloads [][]byte) int {
	size := log.RunHeaderSize
	for _, p := range payloads {
		size += binary.MaxVarintLen32 + len(p)
	}
	return size
}

// add appends the payloads to the key's run.
func (b *batch) add(f *log.Future, key identity.ID, payloads [][]byte) {
	i, ok := b.index[key]
	if !ok {
		i = b.newRun(key)
		b.index[key] = i
	}
	b.waiters = append(b.waiters, waiter{future: f, run: i, first: b.runs[i].count, count: len(payloads)})
	for _, p := range payloads {
		b.addRecord(i, p)
	}
}

// addTransaction appends the transaction's runs. Nothing may come to lie between
// or behind them in the same runs, so whatever follows begins new ones.
func (b *batch) addTransaction(f *log.Future, guard []byte, t *log.Transaction) {
	i := b.newRun(log.GuardKey())
	b.addRecord(i, guard)
	b.waiters = append(b.waiters, waiter{future: f, run: i, count: 1, runs: t.Runs()})
	for c := range t.Commands {
		if key := t.Commands[c].Key; c == 0 || key != t.Commands[c-1].Key {
			i = b.newRun(key)
		}
		b.addRecord(i, t.Commands[c].Payload)
	}
	clear(b.index)
}

// newRun begins a run of the key and returns its position.
func (b *batch) newRun(key identity.ID) int {
	i := len(b.runs)
	if i < cap(b.runs) { // take over the records buffer of a batch past
		b.runs = b.runs[:i+1]
		b.runs[i].key, b.runs[i].count, b.runs[i].records = key, 0, b.runs[i].records[:0]
	} else {
		b.runs = append(b.runs, batchRun{key: key})
	}
	b.bytes += log.RunHeaderSize
	return i
}

func (b *batch) addRecord(run int, payload []byte) {
	r := &b.runs[run]
	before := len(r.records)
	r.records = log.AppendRecord(r.records, payload)
	r.count++
	b.records++
	b.bytes += len(r.records) - before
}

// counts returns the number of records of each run.
func (b *batch) counts() []int {
	counts := make([]int, len(b.runs))
	for i := range b.runs {
		counts[i] = b.runs[i].count
	}
	return counts
}

// runSlot carries one batch after the other through Raft.
func (w *writer) runSlot(slot int) {
	defer w.wg.Done()
	for {
		w.submit <- struct{}{}
		b := w.take(slot)
		if b == nil {
			<-w.submit
			return
		}
		b.encode(w.group.number, w.group.Head())
		p := w.propose(b, w.timeout)
		<-w.submit
		w.metrics.batches.Add(1)
		r, err := w.settle(b, p)
		if err != nil {
			w.fail(b, err)
		} else {
			w.complete(b, r)
		}
		w.land(slot)
		w.recycle(b)
	}
}

// take waits for a batch with something in it, numbers it and opens the next.
// It returns nil when the writer is closed and nothing is left.
//
// A group remembers the commits of a proposer's last proposerWindow proposals,
// to answer one that is sent again. So none is numbered that far ahead of the
// oldest whose outcome is not known.
func (w *writer) take(slot int) *batch {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.mu.open.records == 0 || w.mustWait() {
		if w.mu.closed && w.mu.open.records == 0 {
			return nil
		}
		w.mu.taken.Wait()
	}
	w.mu.flying[slot] = w.mu.nextSeq
	b := w.mu.open
	b.epoch, b.seq = w.mu.epoch, w.mu.nextSeq
	w.mu.nextSeq++
	b.deadline = time.Now().Add(w.timeout)
	if w.mu.open = w.mu.free; w.mu.open == nil {
		w.mu.open = newBatch()
	}
	w.mu.free = nil
	if w.mu.room != nil {
		close(w.mu.room)
		w.mu.room = nil
	}
	return b
}

// mustWait reports whether the open batch has to wait for an older one.
// REQUIRES: w.mu.
func (w *writer) mustWait() bool {
	for _, seq := range w.mu.flying {
		if seq != 0 && (w.mu.open.bytes < pipelineBytes || w.mu.nextSeq >= seq+proposerWindow) {
			return true
		}
	}
	return false
}

// land says that the slot's proposal has its outcome.
func (w *writer) land(slot int) {
	w.mu.Lock()
	w.mu.flying[slot] = 0
	w.mu.taken.Signal()
	w.mu.Unlock()
}

// encode writes the proposal into b.cmd.
func (b *batch) encode(self uint64, head log.Head) {
	p := proposal{time: time.Now().UnixNano(), proposer: self, epoch: b.epoch, seq: b.seq, head: head}
	b.cmd = p.appendHeader(b.cmd[:0])
	for i := range b.runs {
		run := &b.runs[i]
		b.cmd = log.AppendRun(b.cmd, run.key, 0, run.count, run.records)
	}
}

// propose makes one attempt, no longer than left.
func (w *writer) propose(b *batch, left time.Duration) pendingProposal {
	newLeader := w.group.leaders.changed()
	p := w.group.host.propose(w.session, b.cmd, max(min(left, w.group.host.attempt()), w.group.host.tick))
	p.newLeader = newLeader
	return p
}

// settle waits until the batch is applied, and proposes it again for as long as
// its outcome is "not in the log" or unknown, up to the batch's deadline. An
// outcome that stays unknown is ErrNoQuorum.
func (w *writer) settle(b *batch, p pendingProposal) (receipt, error) {
	unknown := func(why string) error { return fmt.Errorf("%w: %s, it may still be committed", ErrNoQuorum, why) }
	for attempt := 0; ; attempt++ {
		v, o, data := p.wait()
		switch {
		case v == verdictClosed:
			return receipt{}, unknown("the node stopped before the group answered")
		case v == verdictApplied && o == refusedMalformed:
			return receipt{}, errors.New("mosaik: the group refused the proposal as malformed")
		case v == verdictApplied && o == refusedEpoch && attempt == 0 && !w.stale(b):
			w.abandon(b)
			return receipt{}, fmt.Errorf("%w: another writer with this node's name has written to the group: nothing was written, later appends may succeed", ErrMismatch)
		case v == verdictApplied && (o == refusedEpoch || o == refusedForgotten):
			w.abandon(b)
			return receipt{}, unknown("the group has lost track of the proposal")
		case v == verdictApplied && !o.refused():
			return w.receipt(b, uint64(o), data)
		}
		left := time.Until(b.deadline)
		switch {
		case w.group.engine.drainExpired():
			return receipt{}, unknown("the node is closing and the group did not answer in time")
		case left <= 0 || w.stale(b):
			w.abandon(b)
			return receipt{}, unknown(fmt.Sprintf("not committed within %v", w.timeout))
		}
		// No leader, a new one, or a predecessor that got lost and is proposed again.
		w.metrics.retries.Add(1)
		w.group.pause(w.group.host.tick)
		p = w.propose(b, left)
	}
}

// receipt decodes the applier's receipt; a batch recognised as applied at an
// earlier attempt has none, and gets it from its commit.
func (w *writer) receipt(b *batch, number uint64, data []byte) (receipt, error) {
	if len(data) > 0 {
		return decodeReceipt(number, data, b.counts())
	}
	c, err := w.group.replica.commit(number)
	if err != nil {
		return receipt{}, fmt.Errorf("%w: the records are in commit %d, which cannot be read: %w", ErrNoQuorum, number, err)
	}
	r, err := receiptOf(&c)
	if err == nil && len(r.seqs) != len(b.runs) {
		err = errReceipt
	}
	if err != nil {
		return r, err
	}
	// What the machines returned then is what they return now.
	r.results, err = w.group.replica.foldAfter(number - 1).Results(&c)
	return r, err
}

// abandon gives a batch up. Those after it can only be refused from now on, so
// a new epoch begins; they are given up in their turn.
func (w *writer) abandon(b *batch) {
	w.mu.Lock()
	if b.epoch == w.mu.epoch {
		w.mu.epoch = w.group.newEpoch(w.mu.epoch)
		w.mu.nextSeq = 1
	}
	w.mu.Unlock()
}

// newEpoch returns an epoch above after and above any this node has used. The
// clock makes it so across restarts, before the node has applied all that an
// earlier life of it proposed; what it has applied makes it so when the clock
// was set back.
func (g *Group) newEpoch(after uint64) uint64 {
	g.replica.mu.RLock()
	defer g.replica.mu.RUnlock()
	return max(uint64(time.Now().UnixNano()), after+1, g.replica.mu.epoch+1)
}

// stale reports whether the batch's epoch has been given up.
func (w *writer) stale(b *batch) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return b.epoch != w.mu.epoch
}

// complete tells every append of the batch where its records are.
func (w *writer) complete(b *batch, r receipt) {
	for i := range b.waiters {
		wt := &b.waiters[i]
		wt.future.CompleteWith(log.Pointer{
			Group:  w.group.id,
			Commit: r.number,
			Digest: r.digest,
			Key:    b.runs[wt.run].key,
			Seq:    r.seqs[wt.run] + uint64(wt.first),
		}, r.of(wt), nil)
	}
}

// of returns what the machines returned for the records of an append or a
// transaction.
func (r *receipt) of(wt *waiter) [][]byte {
	if r.results == nil || r.results[wt.run] == nil {
		return nil
	}
	results := r.results[wt.run][wt.first : wt.first+wt.count]
	for i := range wt.runs {
		results = append(results[:len(results):len(results)], r.results[wt.run+1+i]...)
	}
	return results
}

// fail tells every append of the batch what went wrong.
func (w *writer) fail(b *batch, err error) {
	w.metrics.failed.Add(uint64(len(b.waiters)))
	for i := range b.waiters {
		b.waiters[i].future.Complete(log.Pointer{}, err)
	}
}

// recycle keeps the memory of a spent batch for the next one.
func (w *writer) recycle(b *batch) {
	clear(b.index)
	clear(b.waiters)
	kept := 0
	for _, run := range b.runs[:cap(b.runs)] {
		kept += cap(run.records)
	}
	if kept > 4*maxBatchBytes {
		b.runs = nil
	}
	b.runs, b.waiters = b.runs[:0], b.waiters[:0]
	b.records, b.bytes = 0, 0
	w.mu.Lock()
	w.mu.free = b
	w.mu.Unlock()
}

// refuse makes every later append fail with ErrClosed. What has joined goes on;
// the slots end when nothing is left.
func (w *writer) refuse() {
	w.mu.Lock()
	w.mu.closed = true
	if w.mu.room != nil {
		close(w.mu.room)
		w.mu.room = nil
	}
	w.mu.taken.Broadcast()
	w.mu.Unlock()
}
