package engine

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

// replica is one group on this node: the deterministic state machine that turns
// the agreed Raft entries into commits, and the index over them.
//
// One goroutine of Raft calls update, never two at once; it is "the applier".
// Everything it works with but does not share is in the first block of fields.
// Scanners see only what publish has handed over under mu, after the store has it.
type replica struct {
	db    *pebble.DB
	shard uint64
	group identity.ID
	self  uint64 // this node's number among the members

	// applying is held by the applier while it works, and by refold.
	applying sync.Mutex

	state       state              // of the applier; published as head
	fold        *log.Fold          // folds the entries' commands into the views
	views       map[uint32]*keyLog // logs that are folded, by the number of the view
	touched     bool               // the batch changes views
	stateDigest log.Digest         // of the views after state.number
	results     [][][]byte         // of the entry in progress: what machines returned, per run
	run         log.Run            // in progress
	stored      uint64             // last commit that is in the store
	recent      [recentDigests]recentDigest
	witness     witness
	onDiverged  func(error)           // nil, or called by the applier when the replica diverges
	batch       *pebble.Batch         // reused
	pending     []pendingRun          // runs of the update in progress
	dirty       []dirtyLog            // queue of open chunks, oldest first; entries go stale when a chunk is closed
	full        []*keyLog             // logs whose open chunk has all its postings
	closing     []*keyLog             // logs whose open chunk the update in progress writes
	scratch     []byte                // reused for keys and rows
	encoded     []byte                // reused for the commit being built: header || body
	unflushed   atomic.Bool           // something was applied since the store was last flushed
	lastRemoved atomic.Uint64         // newest commit that may have removed a row of a view
	diverged    atomic.Pointer[error] // why the replica serves nothing; nil: it does

	sealed       sealed
	archivedTo   atomic.Uint64                          // last commit that is in the archive instead of the store
	syncing      bool                                   // a state sync was begun and has not come to its end
	viewsFrom    atomic.Uint64                          // the views are not known as of earlier commits
	openArchived func(commit uint64) (*archived, error) // opens the segment that has a commit
	indexLag     uint64                                 // bytes of bodies that an open chunk may lag behind

	mu struct {
		sync.RWMutex
		head    log.Head   // as of the last completed update
		state   log.Digest // of the views, likewise
		total   totals     // likewise
		epoch   uint64     // likewise: latest of this node's own proposals
		logs    map[identity.ID]*keyLog
		changed chan struct{} // closed at the next publish; nil if nobody waits
		// fetching is set while the group's rows are being replaced by those of another
		// member, and generation counts how often that has happened. What is published
		// means nothing then, and a reader that met either change starts anew.
		fetching   bool
		generation uint64
	}

	metrics struct {
		updates, commits, records, bytes, refused atomic.Uint64
	}
}

// pendingRun is a run that is in the batch but not yet published.
type pendingRun struct {
	log *keyLog
	posting
}

// update applies entries in order, as one batch of the store, and returns per
// entry what came of it. It is a function of the state and the entries alone:
// it reads no clock, no random source and iterates no map.
//
// The error is one of the store's and means that this replica cannot go on.
func (r *replica) update(entries []entry) error {
	r.applying.Lock()
	defer r.applying.Unlock()
	if r.syncing {
		return fmt.Errorf("mosaik: group %s: entries came before the state sync was done", r.group.Short())
	}
	r.batch.Reset()
	r.pending = r.pending[:0]
	r.closing = r.closing[:0]
	if err := r.closeChunks(); err != nil {
		return err
	}
	before := r.state
	for i := range entries {
		if err := r.apply(&entries[i]); err != nil {
			return err
		}
		if r.touched { // machines read the store: the next entry has to find this one's rows there
			if err := r.write(); err != nil {
				return err
			}
		}
	}
	if err := r.write(); err != nil {
		return err
	}
	r.publish()
	r.metrics.updates.Add(1)
	r.metrics.commits.Add(r.state.number - before.number)
	r.metrics.records.Add(r.state.records - before.records)
	r.metrics.bytes.Add(r.state.bytes - before.bytes)
	return nil
}

// write writes the batch, with the state row, to the store.
//
// The store has no log of its own: the Raft log is the log, and state.applied, in
// each batch, tells Raft after a crash from where to play it again.
func (r *replica) write() error {
	r.state.horizon = r.horizon()
	r.scratch = appendSpace(r.scratch[:0], r.shard, spaceMeta)
	n := len(r.scratch)
	r.scratch = r.state.appendTo(r.scratch)
	if err := r.batch.Set(r.scratch[:n], r.scratch[n:], nil); err != nil {
		return err
	}
	r.unflushed.Store(true)
	if err := r.batch.Commit(pebble.NoSync); err != nil {
		return fmt.Errorf("mosaik: apply: %w", err)
	}
	r.batch.Reset()
	r.touched = false
	r.stored = r.state.number
	return nil
}

// entry is one agreed Raft entry on its way through update.
type entry struct {
	index uint64
	cmd   []byte // read-only, valid during update

	outcome outcome
	receipt []byte // for the proposer: see appendReceipt
}

// apply turns one entry into a commit in the batch, or refuses it.
func (r *replica) apply(e *entry) error {
	r.state.applied = e.index
	p, err := decodeProposal(e.cmd)
	if errors.Is(err, log.ErrNewerFormat) {
		// Refusing it would make this replica differ from those that know it.
		return fmt.Errorf("group %s, Raft index %d: %w", r.group.Short(), e.index, err)
	}
	if err != nil {
		return r.refuse(e, refusedMalformed)
	}
	records, runs, err := checkBody(p.body)
	if err != nil {
		return r.refuse(e, refusedMalformed)
	}
	from, refusal := r.admit(&p)
	if refusal != 0 {
		return r.refuse(e, refusal)
	}
	if p.seq <= from.seq { // sent again after it was applied
		e.outcome = outcome(from.commits[p.seq%proposerWindow])
		return nil
	}

	if err := r.compareHead(&p); err != nil {
		return err
	}

	s := &r.state
	number := s.number + 1
	r.encoded = append(r.encoded[:0], zeroHeader[:]...)
	r.encoded = append(r.encoded, p.body...)
	body := r.encoded[log.HeaderSize:]

	own := p.proposer == r.self // only the proposer's own replica can tell it what came of it
	if own {
		e.receipt = make([]byte, receiptHeaderSize, receiptSize(runs))
	}
	time := max(p.time, s.time)
	r.fold.Begin(number, time)
	r.results = r.results[:0]
	for offset := 0; offset < len(body); {
		run, next, err := log.NextRun(body, offset)
		if err != nil {
			return fmt.Errorf("mosaik: apply: %w", err) // checkBody has just walked it
		}
		l := r.logOf(run.Key)
		log.SetFirstSeq(body, offset, l.nextApply)
		run.FirstSeq = l.nextApply
		if own {
			e.receipt = binary.LittleEndian.AppendUint64(e.receipt, l.nextApply)
		}
		r.run = run // a field, so that passing its address on costs no allocation
		if err := r.foldRun(l, &r.run); err != nil {
			return err
		}
		if run.Key == witnessKey {
			if err := r.countVotes(p.proposer, &r.run); err != nil {
				return err
			}
		}
		r.pending = append(r.pending, pendingRun{l, posting{number, l.nextApply, run.Count, offset}})
		l.nextApply += uint64(run.Count)
		offset = next
	}

	state, err := r.endFold(number)
	if err != nil {
		return err
	}
	header := log.Header{
		Version: log.HeaderVersion,
		Group:   r.group,
		Number:  number,
		Time:    time,
		Prev:    s.digest,
		Body:    log.Sum(body),
		State:   state,
		Records: uint32(records),
	}
	header.AppendTo(r.encoded[:0])
	s.digest = log.Sum(r.encoded[:log.HeaderSize])
	s.number = number
	r.recent[number%recentDigests] = recentDigest{number, s.digest}
	s.time = header.Time
	s.records += uint64(records)
	s.bytes += uint64(len(body))
	from.seq = p.seq
	from.commits[p.seq%proposerWindow] = number
	e.outcome = outcome(number)
	if own {
		putReceiptHeader(e.receipt, s.digest, s.time)
		e.receipt = appendResults(e.receipt, r.results)
	}
	for piece, rest := 0, r.encoded; len(rest) > 0; piece++ {
		n := min(len(rest), pieceBytes)
		r.scratch = appendCommitKey(r.scratch[:0], r.shard, number, piece)
		if err := r.batch.Set(r.scratch, rest[:n], nil); err != nil {
			return err
		}
		rest = rest[n:]
	}
	return nil
}

// foldRun folds a run into the view of its key, if it has one.
func (r *replica) foldRun(l *keyLog, run *log.Run) error {
	v, err := r.viewOf(l)
	if err != nil {
		return fmt.Errorf("mosaik: apply: %w", err)
	}
	results, err := r.fold.Run(v, run)
	if err != nil {
		return fmt.Errorf("mosaik: apply: %w", err)
	}
	r.results = append(r.results, results)
	if run.Key == log.DirectoryKey() {
		r.registerViews()
	}
	return nil
}

// zeroHeader keeps the header's place until the body is complete.
var zeroHeader [log.HeaderSize]byte

func (r *replica) refuse(e *entry, o outcome) error {
	r.metrics.refused.Add(1)
	e.outcome = o
	return nil
}

var errEmptyBody = errors.New("body without runs")

// checkBody walks a proposed body to its last byte.
func checkBody(body []byte) (records, runs int, err error) {
	for offset := 0; offset < len(body); {
		run, next, err := log.NextRun(body, offset)
		if err != nil {
			return 0, 0, err
		}
		if err := run.Check(); err != nil {
			return 0, 0, err
		}
		records += run.Count
		runs++
		offset = next
	}
	if runs == 0 {
		return 0, 0, errEmptyBody
	}
	return records, runs, nil
}

// admit finds the proposer's row and decides whether the proposal's turn has
// come. A proposal at or below the row's seq is a repetition.
func (r *replica) admit(p *proposal) (*proposer, outcome) {
	s := &r.state
	i, known := slices.BinarySearchFunc(s.proposers, p.proposer, func(x proposer, id uint64) int {
		return cmp.Compare(x.id, id)
	})
	switch {
	case !known:
		if p.seq != 1 {
			return nil, refusedOrder
		}
		if len(s.proposers) == maxProposers {
			i = s.forget(i)
		}
		s.proposers = slices.Insert(s.proposers, i, proposer{id: p.proposer, epoch: p.epoch})
	case p.epoch < s.proposers[i].epoch:
		return nil, refusedEpoch
	case p.epoch > s.proposers[i].epoch:
		if p.seq != 1 {
			return nil, refusedOrder
		}
		s.proposers[i] = proposer{id: p.proposer, epoch: p.epoch}
	}
	from := &s.proposers[i]
	switch {
	case p.seq > from.seq+1:
		return nil, refusedOrder
	case p.seq+proposerWindow <= from.seq:
		return nil, refusedForgotten
	}
	return from, 0
}

// forget makes room for a proposer that comes to place i, and returns its place then.
// Who has not been heard of for longest goes: a member that has left, of which there
// can be more than there are members.
func (s *state) forget(i int) int {
	oldest := 0
	for j := range s.proposers {
		if s.proposers[j].last() < s.proposers[oldest].last() {
			oldest = j
		}
	}
	s.proposers = slices.Delete(s.proposers, oldest, oldest+1)
	if oldest < i {
		i--
	}
	return i
}

// logOf returns the key's log, which begins here if the key is new.
func (r *replica) logOf(key identity.ID) *keyLog {
	if l := r.mu.logs[key]; l != nil { // no lock: only the applier writes the map
		return l
	}
	l := &keyLog{key: key, nextApply: 1, next: 1}
	r.mu.Lock()
	r.mu.logs[key] = l
	r.mu.Unlock()
	return l
}

// closeChunks puts the chunks that are full or have waited long enough into the
// batch. Chunks hold postings of earlier updates only, so the store has the
// commits they name.
func (r *replica) closeChunks() error {
	for _, l := range r.full {
		if err := r.writeChunk(l); err != nil {
			return err
		}
	}
	r.full = r.full[:0]
	for len(r.dirty) > 0 {
		d := r.dirty[0]
		if d.open() {
			if r.state.bytes-d.bytes < r.indexLag && r.state.number-d.base < indexLagCommits {
				break
			}
			if err := r.writeChunk(d.log); err != nil {
				return err
			}
		}
		r.dirty = r.dirty[1:]
	}
	return nil
}

// writeChunk puts the log's open chunk and its key row into the batch.
func (r *replica) writeChunk(l *keyLog) error {
	if l.number == 0 {
		r.state.logs++
		l.number = r.state.logs
	}
	r.scratch = appendIndexKey(r.scratch[:0], r.shard, l.number, l.chunkFirst)
	if err := r.batch.Set(r.scratch, l.postings, nil); err != nil {
		return err
	}
	r.scratch = appendLogKey(r.scratch[:0], r.shard, l.key)
	n := len(r.scratch)
	r.scratch = logRow{number: l.number, next: l.next, commit: l.commit}.appendTo(r.scratch)
	if err := r.batch.Set(r.scratch[:n], r.scratch[n:], nil); err != nil {
		return err
	}
	l.closing = true
	r.closing = append(r.closing, l)
	return nil
}

// horizon returns the first commit with a posting that is not in the store once
// the batch is.
func (r *replica) horizon() uint64 {
	for len(r.dirty) > 0 && !r.dirty[0].open() {
		r.dirty = r.dirty[1:]
	}
	if len(r.dirty) > 0 {
		return r.dirty[0].base
	}
	if len(r.pending) > 0 {
		return r.pending[0].commit
	}
	return r.state.number + 1
}

// publish makes what the store now has visible to scanners and wakes those who
// wait for more.
func (r *replica) publish() {
	r.mu.Lock()
	for _, l := range r.closing {
		l.closeChunk()
	}
	for i := range r.pending {
		p := &r.pending[i]
		l := p.log
		if l.chunkLen == 0 {
			r.dirty = append(r.dirty, dirtyLog{log: l, base: p.commit, bytes: r.mu.total.bytes})
		}
		l.add(p.posting)
		if l.chunkLen == chunkPostings {
			r.full = append(r.full, l)
		}
	}
	r.mu.head, r.mu.state = r.state.head(), r.stateDigest
	r.mu.total = r.state.total()
	r.mu.epoch = r.state.epochOf(r.self)
	changed := r.mu.changed
	r.mu.changed = nil
	r.mu.Unlock()
	if changed != nil {
		close(changed)
	}
}
