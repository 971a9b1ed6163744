package log

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"iter"
	"slices"

	"github.com/mosaik-engine/mosaik/identity"
)

// Base is what Fold reads: the rows of a group's views as the commit before
// left them.
type Base interface {
	// Rows returns the rows of one generation of a view.
	Rows(view, generation uint32) View
}

// Generations of a view's rows. Clear begins the next one. The rows of
// generation 0 are the engine's own, of which there is one: under the empty key
// the current generation, 4 bytes little-endian, once a view has been cleared.
const (
	metaGeneration  = 0
	firstGeneration = 1
)

// RowEffect is what a commit does to one row, as a store has to write it down.
type RowEffect struct {
	View, Generation uint32
	Key              []byte
	Old, New         []byte
	Before           uint64 // commit that wrote Old
	Existed, Exists  bool
}

// AppendRowElement appends the bytes that stand for a row in the StateHash:
//
//	view 4 | generation 4 | key size uvarint | key | commit uvarint | value
//
// View and generation are big-endian.
func AppendRowElement(dst []byte, view, generation uint32, key []byte, commit uint64, value []byte) []byte {
	dst = appendRowPrefix(dst, view, generation)
	dst = binary.AppendUvarint(dst, uint64(len(key)))
	dst = append(dst, key...)
	dst = binary.AppendUvarint(dst, commit)
	return append(dst, value...)
}

func appendRowPrefix(dst []byte, view, generation uint32) []byte {
	dst = binary.BigEndian.AppendUint32(dst, view)
	return binary.BigEndian.AppendUint32(dst, generation)
}

// Fold folds commits into the views of a group, one after the other. It is the
// same code wherever a log is folded: when a replica applies an entry, when a
// view is built again, when an auditor replays. What it does depends on the
// machines, the base and the commits alone.
//
// For each commit: Begin, Run for every run of the body in order, then End.
type Fold struct {
	// Hash is that of the rows in the base. End brings it up to date.
	Hash StateHash

	base      Base
	machines  map[string]Machine
	directory ViewInfo

	number uint64
	time   int64
	txs    []*Tx // that the commit has touched
	byView map[uint32]*Tx
	guard  guardScope
	seen   []*ViewInfo // registered by this commit
	state  Digest      // of Hash, as State returned it last
	buf    []byte
	lanes  stretched
	keys   [][]byte // of readAhead
}

// guardScope is the part of a body that a guard decides about.
type guardScope struct {
	runs   int // runs that are still to come
	failed bool
}

// NewFold returns a Fold over base that knows the built-in machines and those
// given, which must have signatures of their own.
func NewFold(base Base, machines ...Machine) (*Fold, error) {
	f := &Fold{base: base, machines: make(map[string]Machine), byView: make(map[uint32]*Tx)}
	for _, m := range append(builtins(), machines...) {
		signature := m.Signature()
		if err := identity.ValidateName(signature); err != nil {
			return nil, fmt.Errorf("machine: %w", err)
		}
		if _, taken := f.machines[signature]; taken || signature == KindStream {
			return nil, fmt.Errorf("%w: two machines have the signature %q", ErrKind, signature)
		}
		f.machines[signature] = m
	}
	f.directory = ViewInfo{Key: DirectoryKey(), Machine: directoryMachine{}}
	return f, nil
}

// CheckRegistration reports, as ErrKind, a record for the directory that
// registers a key with a machine that f does not know: every replica would stop
// at it. Records that register nothing are an ErrCodec. It may be called while f
// folds.
func (f *Fold) CheckRegistration(payload []byte) (DirectoryEntry, error) {
	e, err := CBOR[DirectoryEntry]().Decode(payload)
	if err == nil {
		err = e.Validate()
	}
	if err != nil {
		return DirectoryEntry{}, fmt.Errorf("register a log: %w", err)
	}
	if f.machines[e.Kind] == nil && e.Kind != KindStream {
		return DirectoryEntry{}, fmt.Errorf("%w: register the log %q: this program has no machine %q", ErrKind, e.Name, e.Kind)
	}
	return e, nil
}

// Begin starts a commit.
func (f *Fold) Begin(number uint64, time int64) {
	f.number, f.time = number, time
	f.txs, f.guard, f.seen = f.txs[:0], guardScope{}, f.seen[:0]
	clear(f.byView)
}

// Resolve says how the key's log is folded, as far as commits before this one and
// the runs so far tell; nil: it is not. The answer holds until the key is
// registered (Registered).
func (f *Fold) Resolve(key identity.ID) (*ViewInfo, error) {
	if key == f.directory.Key {
		return &f.directory, nil
	}
	directory, err := f.tx(&f.directory)
	if err != nil {
		return nil, err
	}
	row, ok, err := directory.Get(key[:])
	if err != nil || !ok {
		return nil, err
	}
	return f.info(key, row)
}

// info decodes a row of the directory's view.
func (f *Fold) info(key identity.ID, row Row) (*ViewInfo, error) {
	number, entry, err := decodeDirectoryRow(row.Value)
	if err != nil {
		return nil, err
	}
	if entry.Kind == KindStream {
		return nil, nil
	}
	m := f.machines[entry.Kind]
	if m == nil {
		return nil, fmt.Errorf("%w: %q is folded by %q", ErrKind, entry.Name, entry.Kind)
	}
	return &ViewInfo{Key: key, Number: number, Machine: m, Since: row.Commit}, nil
}

// Registered returns the views whose keys this commit has registered so far.
func (f *Fold) Registered() []*ViewInfo { return f.seen }

// Run folds one run; v is what Resolve says of its key. Every run of the body
// must come by, also one that is not folded. The results are those of the run's
// commands in order, nil for a run that is not folded or that its transaction
// did not let through. They are valid until the next Begin.
func (f *Fold) Run(v *ViewInfo, run *Run) (results [][]byte, err error) {
	covered := f.guard.runs > 0
	if covered {
		f.guard.runs--
		if f.guard.failed {
			return nil, nil
		}
	}
	if run.Key == GuardKey() {
		if covered || run.Count != 1 {
			return nil, nil // never proposed by this program
		}
		return f.openGuard(run)
	}
	if v == nil {
		return nil, nil
	}
	tx, err := f.tx(v)
	if err != nil {
		return nil, err
	}
	if m, ok := v.Machine.(rowNamer); ok {
		if err := f.readAhead(tx, m, run); err != nil {
			return nil, fmt.Errorf("fold records of key %s: %w", run.Key.Short(), err)
		}
	}
	results = make([][]byte, 0, run.Count)
	for seq, payload := range run.Records() {
		result, err := v.Machine.Apply(tx, Command{Payload: payload, Seq: seq, Commit: f.number, Time: f.time})
		if err != nil {
			return nil, fmt.Errorf("fold record %d of key %s: %w", seq, run.Key.Short(), err)
		}
		results = append(results, result)
		if v == &f.directory && registered(result) {
			if err := f.register(tx, payload); err != nil {
				return nil, err
			}
		}
	}
	return results, nil
}

// rowNamer is a Machine whose commands name the rows that they set.
type rowNamer interface {
	// appendRows appends the keys of the rows that the command sets. It may leave
	// some out, and a command that is not well-formed may have any.
	appendRows(keys [][]byte, command []byte) [][]byte
}

// readAhead reads the rows that the commands of a run set, in the order of their
// keys. A store that is sorted finds neighbours in what the lookup before has
// brought into the processor's caches; in the order of the commands most of the
// time of a fold is spent waiting for memory (docs/decisions/0007-map-writes.md).
// What the rows are does not depend on the order, so the fold's results do not.
func (f *Fold) readAhead(tx *Tx, m rowNamer, run *Run) error {
	f.keys = f.keys[:0]
	for _, payload := range run.Records() {
		f.keys = m.appendRows(f.keys, payload)
	}
	defer clear(f.keys)
	if len(f.keys) < 2 {
		return nil
	}
	slices.SortFunc(f.keys, bytes.Compare)
	for _, key := range f.keys {
		if _, err := tx.row(key); err != nil {
			return err
		}
	}
	return nil
}

// body folds all runs of a body and returns the results of each.
func (f *Fold) body(body []byte) (results [][][]byte, err error) {
	for offset := 0; offset < len(body); {
		run, next, err := NextRun(body, offset)
		if err != nil {
			return nil, err
		}
		v, err := f.Resolve(run.Key)
		if err != nil {
			return nil, err
		}
		of, err := f.Run(v, &run)
		if err != nil {
			return nil, err
		}
		results = append(results, of)
		offset = next
	}
	return results, nil
}

// register notes a key that the directory's machine has just taken.
func (f *Fold) register(directory *Tx, payload []byte) error {
	entry, err := CBOR[DirectoryEntry]().Decode(payload)
	if err != nil {
		return err
	}
	key := entry.Key()
	row, _, err := directory.Get(key[:])
	if err != nil {
		return err
	}
	v, err := f.info(key, row)
	if v != nil {
		f.seen = append(f.seen, v)
	}
	return err
}

// openGuard decides whether the transaction that begins here is applied.
func (f *Fold) openGuard(run *Run) ([][]byte, error) {
	var g guard
	for _, payload := range run.Records() {
		var err error
		if g, err = decodeGuard(payload); err != nil {
			return nil, nil // never proposed by this program
		}
	}
	f.guard = guardScope{runs: g.runs}
	for i := range g.conditions {
		c := &g.conditions[i]
		v, err := f.Resolve(c.Key)
		if err != nil {
			return nil, err
		}
		var view View = noRows{}
		if v != nil {
			if view, err = f.tx(v); err != nil {
				return nil, err
			}
		}
		holds, err := c.holds(view)
		if err != nil {
			return nil, err
		}
		if !holds {
			f.guard.failed = true
			return [][]byte{binary.AppendUvarint(nil, uint64(i)+1)}, nil
		}
	}
	return [][]byte{{0}}, nil
}

// tx returns the transaction of a view in this commit.
func (f *Fold) tx(v *ViewInfo) (*Tx, error) {
	if tx := f.byView[v.Number]; tx != nil {
		return tx, nil
	}
	generation, since, err := CurrentGeneration(f.base, v.Number)
	if err != nil {
		return nil, err
	}
	tx := &Tx{env: f, info: v, generation: generation, since: since, base: f.base.Rows(v.Number, generation)}
	f.txs = append(f.txs, tx)
	f.byView[v.Number] = tx
	return tx, nil
}

// CurrentGeneration returns the generation a view is in, and the commit that
// began it, 0 for the first.
func CurrentGeneration(b Base, view uint32) (generation uint32, since uint64, err error) {
	row, ok, err := b.Rows(view, metaGeneration).Get(nil)
	switch {
	case err != nil:
		return 0, 0, err
	case !ok:
		return firstGeneration, 0, nil
	case len(row.Value) != 4:
		return 0, 0, fmt.Errorf("the generation of view %d has %d bytes", view, len(row.Value))
	}
	return binary.LittleEndian.Uint32(row.Value), row.Commit, nil
}

// End ends the commit: it brings Hash up to date and yields what the commit has
// changed, by view, generation and key. A row that was written is yielded even
// if its bytes are what they were: it has a new version. The effects are valid
// until the next step.
func (f *Fold) End() iter.Seq[*RowEffect] {
	slices.SortFunc(f.txs, func(a, b *Tx) int { return cmp.Compare(a.info.Number, b.info.Number) })
	return func(yield func(*RowEffect) bool) {
		for _, tx := range f.txs {
			for e := range tx.effects() {
				f.count(e)
				if !yield(e) {
					return
				}
			}
		}
	}
}

// count brings Hash up to date.
func (f *Fold) count(e *RowEffect) {
	if e.Existed {
		f.buf = AppendRowElement(f.buf[:0], e.View, e.Generation, e.Key, e.Before, e.Old)
		f.Hash.remove(&f.lanes, f.buf)
	}
	if e.Exists {
		f.buf = AppendRowElement(f.buf[:0], e.View, e.Generation, e.Key, f.number, e.New)
		f.Hash.add(&f.lanes, f.buf)
	}
}

// After returns a Fold with the same machines over another base, ready for the
// commit after the one that base is as of. Its Hash is that of no rows: it is for
// finding out what a commit did, not for doing it.
func (f *Fold) After(base Base, commit uint64) *Fold {
	g := &Fold{base: base, machines: f.machines, directory: f.directory, byView: make(map[uint32]*Tx)}
	g.Begin(commit+1, 0)
	return g
}

// ViewOf returns the view of a key as the base has it: the current generation,
// or an empty view if nothing is folded from the key.
func (f *Fold) ViewOf(key identity.ID) (View, error) {
	v, err := f.Resolve(key)
	if err != nil {
		return nil, err
	}
	if v == nil {
		return EmptyView(f.number - 1), nil
	}
	generation, _, err := CurrentGeneration(f.base, v.Number)
	if err != nil {
		return nil, err
	}
	return f.base.Rows(v.Number, generation), nil
}

// Replay folds a commit again, over a base as of the commit before it, and
// returns what it did to the view of one key, if anything. It ends the commit
// without effects.
func (f *Fold) Replay(c *Commit, key identity.ID) (_ Changes, touched bool, err error) {
	f.Begin(c.Header.Number, c.Header.Time)
	if _, err := f.body(c.Body); err != nil {
		return Changes{}, false, err
	}
	changes := Changes{Pointer: c.Pointer(), Time: c.Header.Time}
	for _, tx := range f.txs {
		if tx.info.Key != key {
			continue
		}
		changes.Cleared = tx.cleared
		for e := range tx.effects() {
			if e.Generation != metaGeneration {
				changes.Rows = append(changes.Rows, Change{Key: slices.Clone(e.Key), Old: e.Old, New: e.New, Existed: e.Existed, Exists: e.Exists, Before: e.Before})
			}
		}
	}
	return changes, changes.Cleared || len(changes.Rows) > 0, nil
}

// State folds a commit over views as of the commit before it and returns the
// digest of the views afterwards, which its header must have. Hash is carried
// from one call to the next, so the first commit is number 1. known is kept by the
// caller between calls and holds how keys are folded.
func (f *Fold) State(c *Commit, before Base, known map[identity.ID]*ViewInfo) (Digest, error) {
	f.base = before
	f.Begin(c.Header.Number, c.Header.Time)
	for run, err := range c.Runs() {
		if err != nil {
			return Digest{}, err
		}
		v, resolved := known[run.Key]
		if !resolved {
			if v, err = f.Resolve(run.Key); err != nil {
				return Digest{}, err
			}
			known[run.Key] = v
		}
		if _, err := f.Run(v, &run); err != nil {
			return Digest{}, err
		}
		if run.Key == directoryKey {
			for _, v := range f.seen {
				known[v.Key] = v
			}
		}
	}
	touched := false
	for range f.End() {
		touched = true
	}
	if touched || f.state.IsZero() {
		f.state = f.Hash.Digest()
	}
	return f.state, nil
}

// Results folds a commit again, as Replay does, and returns the results of each
// of its runs.
func (f *Fold) Results(c *Commit) ([][][]byte, error) {
	f.Begin(c.Header.Number, c.Header.Time)
	return f.body(c.Body)
}

// effects yields what was written, by generation and key.
func (tx *Tx) effects() iter.Seq[*RowEffect] {
	return func(yield func(*RowEffect) bool) {
		e := RowEffect{View: tx.info.Number}
		generation := tx.generation
		if tx.cleared {
			if e.Existed = tx.since != 0; e.Existed {
				e.Old, e.Before = binary.LittleEndian.AppendUint32(nil, generation), tx.since
			}
			generation++
			e.Generation, e.Exists, e.New = metaGeneration, true, binary.LittleEndian.AppendUint32(nil, generation)
			if !yield(&e) {
				return
			}
		}
		e.Generation = generation
		tx.rows.Scan(func(key string, r txRow) bool {
			if !r.written || !r.existed && !r.exists {
				return true
			}
			e.Key = append(e.Key[:0], key...)
			e.Old, e.Before, e.Existed = r.old, r.version, r.existed
			e.New, e.Exists = r.value, r.exists
			return yield(&e)
		})
	}
}
