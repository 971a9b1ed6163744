package log

import (
	"bytes"
	"errors"
	"fmt"
	"iter"

	"github.com/tidwall/btree"

	"github.com/mosaik-engine/mosaik/identity"
)

// Machine folds the log of a key into a view. It is code without state: all it
// knows is in the view and the command.
//
// Every replica runs it over the same commands, so it must be deterministic: no
// clock (Command.Time is the commit's), no randomness, no iteration over a Go
// map, no floating-point arithmetic whose order or rounding could differ, no
// look at anything outside the view. Two versions of a program whose machines
// differ in any result must have different signatures.
type Machine interface {
	// Signature names the machine and its version, such as "mosaik.map.v1". It is
	// the kind that the directory registers a key with, and follows the rules of a
	// name. Machines a program brings are folded into the ids of the groups that
	// have them.
	Signature() string
	// Apply folds one command into the view and returns its result, which the
	// proposer gets. A command that the machine does not take must leave the view
	// as it was; that, too, is a result. The error is one that tx returned, and
	// stops the replica; a machine makes no errors of its own, and must not panic
	// whatever the command's bytes are. It keeps neither tx nor c.Payload.
	Apply(tx *Tx, c Command) (result []byte, err error)
}

// Command is one record of a key that a machine folds.
type Command struct {
	Payload []byte // must not be changed or kept
	Seq     uint64 // of the record
	Commit  uint64
	Time    int64 // of the commit, Unix nanoseconds
}

// Tx is a view while a commit is folded into it: the rows as the commands of the
// commit so far have left them. It implements View.
type Tx struct {
	env  *Fold
	info *ViewInfo

	generation uint32 // before the commit
	since      uint64 // commit that began it
	base       View   // rows the commit found; none once it has cleared the view
	rows       btree.Map[string, txRow]
	cleared    bool
	ends       queueEnds // of the queue's machine
}

// txRow is what a Tx knows of a row.
type txRow struct {
	old     []byte // in the base
	version uint64 // of old
	existed bool
	value   []byte // as the commit leaves it
	exists  bool
	written bool // else it has only been read
}

// Limits that a Tx reports. A machine checks what it is about to write, so that
// it never meets them.
var (
	errRowKey   = fmt.Errorf("mosaik: a machine wrote a row whose key is above %d bytes", MaxRowKey)
	errRowValue = fmt.Errorf("mosaik: a machine wrote a row whose value is above %d bytes", MaxRowValue)
)

// Commit returns the number of the commit that is being folded.
func (tx *Tx) Commit() uint64 { return tx.env.number }

// Get returns the row as it is now. The bytes may be kept, and must not be
// changed.
func (tx *Tx) Get(key []byte) (Row, bool, error) {
	r, err := tx.row(key)
	if err != nil || !r.exists {
		return Row{}, false, err
	}
	return tx.current(key, r), true, nil
}

func (tx *Tx) current(key []byte, r txRow) Row {
	if r.written {
		return Row{Key: key, Value: r.value, Commit: tx.env.number}
	}
	return Row{Key: key, Value: r.old, Commit: r.version}
}

// row returns what is known of a row, reading it at the first touch.
func (tx *Tx) row(key []byte) (txRow, error) {
	if r, ok := tx.rows.Get(string(key)); ok {
		return r, nil
	}
	var r txRow
	old, ok, err := tx.base.Get(key)
	if err != nil {
		return r, err
	}
	if ok {
		r = txRow{old: old.Value, version: old.Commit, existed: true, exists: true}
	}
	tx.rows.Set(string(key), r)
	return r, nil
}

// Set writes a row. It copies the value.
func (tx *Tx) Set(key, value []byte) error {
	switch {
	case len(key) > MaxRowKey:
		return errRowKey
	case len(value) > MaxRowValue:
		return errRowValue
	}
	r, err := tx.row(key)
	if err != nil {
		return err
	}
	r.value, r.exists, r.written = bytes.Clone(value), true, true
	tx.rows.Set(string(key), r)
	return nil
}

// Delete removes a row, if it is there.
func (tx *Tx) Delete(key []byte) error {
	r, err := tx.row(key)
	if err != nil {
		return err
	}
	if r.exists {
		r.value, r.exists, r.written = nil, false, true
		tx.rows.Set(string(key), r)
	}
	return nil
}

// Clear removes all rows, at a cost that does not depend on how many there are:
// the view goes on in a new generation, and the rows of the old one stay where
// reads of earlier commits find them.
func (tx *Tx) Clear() {
	tx.cleared = true
	tx.rows = btree.Map[string, txRow]{}
	tx.base = noRows{}
	tx.ends = queueEnds{}
}

// Scan yields the rows of a range as they are now. Writing to the Tx ends the
// validity of the iteration: collect first, then write.
func (tx *Tx) Scan(r Range) iter.Seq2[Row, error] {
	return func(yield func(Row, error) bool) {
		if r.empty() {
			return
		}
		before := func(a, b []byte) bool {
			if r.Reverse {
				return bytes.Compare(a, b) > 0
			}
			return bytes.Compare(a, b) < 0
		}
		own, stop := iter.Pull2(tx.touched(r))
		defer stop()
		key, row, more := own()
		for b, err := range tx.base.Scan(r) {
			if err != nil {
				yield(Row{}, err)
				return
			}
			for more && before(key, b.Key) {
				if row.exists && !yield(tx.current(key, row), nil) {
					return
				}
				key, row, more = own()
			}
			if more && bytes.Equal(key, b.Key) {
				if row.exists && !yield(tx.current(key, row), nil) {
					return
				}
				key, row, more = own()
				continue
			}
			if !yield(b, nil) {
				return
			}
		}
		for more {
			if row.exists && !yield(tx.current(key, row), nil) {
				return
			}
			key, row, more = own()
		}
	}
}

// touched yields the rows of a range that the Tx knows, in its order.
func (tx *Tx) touched(r Range) iter.Seq2[[]byte, txRow] {
	return func(yield func([]byte, txRow) bool) {
		it := tx.rows.Iter()
		var ok bool
		switch {
		case !r.Reverse:
			ok = it.Seek(string(r.From))
		case len(r.To) == 0:
			ok = it.Last()
		default:
			// The last row below To.
			if it.Seek(string(r.To)) {
				ok = it.Prev()
			} else {
				ok = it.Last()
			}
		}
		for ok {
			key := []byte(it.Key())
			if r.Reverse && bytes.Compare(key, r.From) < 0 || !r.Reverse && len(r.To) > 0 && bytes.Compare(key, r.To) >= 0 {
				return
			}
			if !yield(key, it.Value()) {
				return
			}
			if r.Reverse {
				ok = it.Prev()
			} else {
				ok = it.Next()
			}
		}
	}
}

// firstKey returns the key of the first row of a range, and whether there is one.
// The key is the caller's, unlike a row's, which is only good until the next step.
func firstKey(v View, r Range) (key []byte, ok bool, err error) {
	for row, err := range v.Scan(r) {
		return bytes.Clone(row.Key), err == nil, err
	}
	return nil, false, nil
}

// noRows is an empty view.
type noRows struct{ commit uint64 }

func (v noRows) Commit() uint64                 { return v.commit }
func (noRows) Get([]byte) (Row, bool, error)    { return Row{}, false, nil }
func (noRows) Scan(Range) iter.Seq2[Row, error] { return func(func(Row, error) bool) {} }

// EmptyView returns the view of a key that nothing is folded from.
func EmptyView(commit uint64) View { return noRows{commit} }

// ViewInfo says how a key's log is folded.
type ViewInfo struct {
	Key     identity.ID
	Number  uint32 // dense per group: the seq of its record in the directory; 0 is the directory itself
	Machine Machine
	Since   uint64 // commit that registered the key; records before it are not commands
}

// ErrKind says that a key is registered with a machine that this program does
// not have.
var ErrKind = errors.New("mosaik: unknown kind of log")

// NoOp returns the machine that folds nothing: its commands are kept in the log
// like all others and change no view. A key of this kind orders events, or only
// gives its group a reason to have a leader.
func NoOp() Machine { return noOp{} }

type noOp struct{}

func (noOp) Signature() string                  { return "mosaik.noop.v1" }
func (noOp) Apply(*Tx, Command) ([]byte, error) { return nil, nil }
