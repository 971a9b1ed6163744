package log

import (
	"context"
	"errors"
	"fmt"
)

// ErrConflict says that a condition of a transaction did not hold. None of its
// commands was applied. Find out which with errors.As and *ConflictError.
var ErrConflict = errors.New("mosaik: conflict")

// ConflictError names the condition that did not hold; it wraps ErrConflict.
type ConflictError struct {
	Index   int     // of the condition, in the order in which they were added
	Name    string  // of the collection it is about
	Pointer Pointer // at the record that keeps the attempt in the log
}

// Error implements error.
func (e *ConflictError) Error() string {
	return fmt.Sprintf("%v: condition %d, about %q, does not hold", ErrConflict, e.Index, e.Name)
}

// Unwrap returns ErrConflict.
func (e *ConflictError) Unwrap() error { return ErrConflict }

// Txn gathers conditions and commands on collections of one group, for one
// atomic commit: MapDef.In and its siblings add to it. It is bound to a group
// from the start and takes definitions, not open collections, so there is no way
// to name a collection of another group: across groups there are no
// transactions.
//
// A Txn is for one goroutine and one Commit. Errors while adding are kept, and
// Commit returns the first.
type Txn struct {
	group   GroupStore
	t       Transaction
	entries []DirectoryEntry // of the collections used, each once
	about   []string         // name per condition
	results []func(result []byte) error
	err     error
}

// NewTxn returns an empty transaction on the group.
func NewTxn(group GroupStore) *Txn { return &Txn{group: group} }

// Pending is the result of a command of a transaction. It has a value once
// Commit has returned nil.
type Pending[T any] struct {
	value T
	done  bool
}

// Value returns the result, and whether there is one: false before Commit, and
// after a Commit that failed.
func (p *Pending[T]) Value() (T, bool) { return p.value, p.done }

// Commit submits the transaction and returns the pointer at its record. If a
// condition does not hold the error is a *ConflictError. Else errors are those
// of Writer.Append: after ErrCodec, ErrOversize, ErrTransaction and ErrKind
// nothing was written.
func (t *Txn) Commit(ctx context.Context) (Pointer, error) {
	if t.err != nil {
		return Pointer{}, t.err
	}
	for _, e := range t.entries {
		if err := Register(ctx, t.group, e); err != nil {
			return Pointer{}, fmt.Errorf("transaction: %w", err)
		}
	}
	o, err := t.group.Submit(ctx, &t.t)
	if err != nil {
		return Pointer{}, err
	}
	if !o.Held {
		return Pointer{}, &ConflictError{Index: o.Failed, Name: t.about[o.Failed], Pointer: o.Pointer}
	}
	if len(o.Results) != len(t.results) {
		return Pointer{}, errOutcome
	}
	for i, decode := range t.results {
		if len(o.Results[i]) == 0 {
			err = ErrCommand
		} else {
			err = decode(o.Results[i])
		}
		if err != nil {
			return Pointer{}, fmt.Errorf("command %d of a transaction: %w", i, err)
		}
	}
	return o.Pointer, nil
}

// txnPart is a collection inside a transaction.
type txnPart struct {
	txn   *Txn
	entry DirectoryEntry
}

// part adds a collection to the transaction. err is what was wrong with its
// definition.
func (t *Txn) part(c *CollectionReader, err error) txnPart {
	if err != nil {
		t.fail(err)
		return txnPart{txn: t}
	}
	for _, e := range t.entries {
		if e == c.entry {
			return txnPart{t, c.entry}
		}
	}
	t.entries = append(t.entries, c.entry)
	return txnPart{t, c.entry}
}

func (t *Txn) fail(err error) {
	if t.err == nil && err != nil {
		t.err = fmt.Errorf("transaction: %w", err)
	}
}

// failed reports that something added before was wrong: Commit will say so, and
// nothing more is looked at.
func (p *txnPart) failed() bool { return p.txn.err != nil }

// expect adds a condition.
func (p *txnPart) expect(c Condition, err error) {
	p.txn.fail(err)
	c.Key = p.entry.Key()
	p.txn.t.Conditions = append(p.txn.t.Conditions, c)
	p.txn.about = append(p.txn.about, p.entry.Name)
}

// do adds a command with what decodes its result.
func (p *txnPart) do(command []byte, err error, decode func(result []byte) error) {
	p.txn.fail(err)
	p.txn.t.Commands = append(p.txn.t.Commands, KeyedCommand{Key: p.entry.Key(), Payload: command})
	p.txn.results = append(p.txn.results, decode)
}

// doOptional adds a command whose result is a value or its absence, nil.
func doOptional[V any](p *txnPart, codec Codec[V], command []byte, err error) *Pending[*V] {
	pending := new(Pending[*V])
	p.do(command, err, func(result []byte) error {
		v, ok, err := decodeOptional(codec, result)
		if ok {
			pending.value = &v
		}
		pending.done = err == nil
		return err
	})
	return pending
}

// doTaken adds a command that is taken or not.
func (p *txnPart) doTaken(command []byte, err error) *Pending[bool] {
	pending := new(Pending[bool])
	p.do(command, err, func(result []byte) error {
		pending.value, pending.done = result[0] == resultPresent, true
		return nil
	})
	return pending
}

// doNumber adds a command whose result is a number.
func (p *txnPart) doNumber(command []byte, err error) *Pending[uint64] {
	pending := new(Pending[uint64])
	p.do(command, err, func(result []byte) (err error) {
		pending.value, err = decodeNumber(result)
		pending.done = err == nil
		return err
	})
	return pending
}

// MapTxn is a map inside a transaction.
type MapTxn[K, V any] struct {
	part txnPart
	def  MapDef[K, V]
}

// In gives the map inside a transaction, in whose group it is.
func (d MapDef[K, V]) In(t *Txn) *MapTxn[K, V] {
	r, err := d.Reader(t.group)
	if err != nil {
		return &MapTxn[K, V]{part: t.part(nil, err), def: d}
	}
	return &MapTxn[K, V]{part: t.part(r.CollectionReader, nil), def: r.def}
}

// expect adds a condition on the row of a key.
func (m *MapTxn[K, V]) expect(k K, c Condition, err error) {
	if m.part.failed() {
		return
	}
	row, keyErr := encodeKey(mapEntry, m.def.Keys, k, MaxKey)
	c.Row = row
	m.part.expect(c, errors.Join(err, keyErr))
}

// ExpectAbsent demands that there is no entry with the key.
func (m *MapTxn[K, V]) ExpectAbsent(k K) { m.expect(k, Condition{Kind: RowAbsent}, nil) }

// ExpectPresent demands that there is one.
func (m *MapTxn[K, V]) ExpectPresent(k K) { m.expect(k, Condition{Kind: RowPresent}, nil) }

// ExpectVersion demands that commit version wrote the entry (Entry.Version).
func (m *MapTxn[K, V]) ExpectVersion(k K, version uint64) {
	m.expect(k, Condition{Kind: RowVersion, Commit: version}, nil)
}

// ExpectValue demands that the entry has this value.
func (m *MapTxn[K, V]) ExpectValue(k K, v V) {
	if m.part.failed() {
		return
	}
	value, err := encodeValue(m.def.Values, v)
	m.expect(k, Condition{Kind: RowEquals, Value: value}, err)
}

// Insert sets the value of a key; its result is what was there.
func (m *MapTxn[K, V]) Insert(k K, v V) *Pending[*V] {
	if m.part.failed() {
		return new(Pending[*V])
	}
	command, err := m.def.insert(k, v)
	return doOptional(&m.part, m.def.Values, command, err)
}

// Remove removes the entry of a key; its result is what was there.
func (m *MapTxn[K, V]) Remove(k K) *Pending[*V] {
	if m.part.failed() {
		return new(Pending[*V])
	}
	command, err := m.def.appendKey([]byte{mapRemove}, k)
	return doOptional(&m.part, m.def.Values, command, err)
}

// Clear removes all entries; its result is their number.
func (m *MapTxn[K, V]) Clear() *Pending[uint64] {
	if m.part.failed() {
		return new(Pending[uint64])
	}
	return m.part.doNumber([]byte{mapClear}, nil)
}
