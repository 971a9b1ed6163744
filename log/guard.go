package log

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/mosaik-engine/mosaik/identity"
)

// A transaction lies in the body of a commit as runs behind each other: one of
// the guard key with a single record, then those of its commands. The record
// says how many runs follow and on which conditions they are applied. Runs are
// folded in the order in which they lie, so a transaction sees all that was
// before it and nothing comes between its commands.

// GuardKey returns the key of the log whose records are the conditions of
// transactions. Only Submit writes to it.
func GuardKey() identity.ID { return guardKey }

// guardKey is never changed. Every append is compared with it, so it is computed
// once.
var guardKey = identity.NewID("mosaik.guard")

// Limits of a transaction.
const (
	MaxConditions = 256
	MaxCommands   = 1024
)

// ErrTransaction says that a transaction is malformed or names a key it cannot
// be applied to. Nothing was written.
var ErrTransaction = errors.New("mosaik: bad transaction")

// ConditionKind says what a Condition demands of a row.
type ConditionKind uint8

// The conditions. Numbers are part of the format.
const (
	RowAbsent  ConditionKind = 1 // there is no such row
	RowPresent ConditionKind = 2 // there is one
	RowEquals  ConditionKind = 3 // there is one, and its value is Value
	RowVersion ConditionKind = 4 // there is one, and Commit wrote it
)

// Condition demands something of one row of the view of a key.
type Condition struct {
	Key    identity.ID
	Kind   ConditionKind
	Row    []byte
	Value  []byte // for RowEquals
	Commit uint64 // for RowVersion
}

func (c *Condition) holds(v View) (bool, error) {
	row, ok, err := v.Get(c.Row)
	if err != nil {
		return false, err
	}
	switch c.Kind {
	case RowAbsent:
		return !ok, nil
	case RowPresent:
		return ok, nil
	case RowEquals:
		return ok && bytes.Equal(row.Value, c.Value), nil
	case RowVersion:
		return ok && row.Commit == c.Commit, nil
	}
	return false, nil
}

// KeyedCommand is a command to the machine of a key.
type KeyedCommand struct {
	Key     identity.ID // of the log
	Payload []byte      // of the record
}

// Transaction is a set of commands to keys of one group that are applied
// together, in their order, if all conditions hold before the first of them.
// What a command comes to is its own result: one that is not taken, such as a
// compare-exchange that finds another value, does not undo the others.
type Transaction struct {
	Conditions []Condition    // at most MaxConditions
	Commands   []KeyedCommand // 1 to MaxCommands
}

// Outcome is what became of a Transaction.
type Outcome struct {
	// Pointer points at the record with the transaction's conditions.
	Pointer Pointer
	// Held says that all conditions held, so that the commands were applied. If not,
	// Failed is the index of the first that did not.
	Held   bool
	Failed int
	// Results are those of the commands, in their order; nil if they were not
	// applied.
	Results [][]byte
}

// What a guard record holds at most beside the rows and values of its
// conditions, and beside the conditions.
const (
	maxConditionOverhead = identity.Size + 1 + binary.MaxVarintLen32 + binary.MaxVarintLen64
	maxGuardOverhead     = 1 + 2*binary.MaxVarintLen32
)

// Validate reports what no group would take. The error wraps ErrTransaction or
// ErrOversize.
func (t *Transaction) Validate() error {
	switch {
	case len(t.Commands) == 0:
		return fmt.Errorf("%w: it has no commands", ErrTransaction)
	case len(t.Commands) > MaxCommands:
		return fmt.Errorf("%w: %d commands, at most %d are allowed", ErrTransaction, len(t.Commands), MaxCommands)
	case len(t.Conditions) > MaxConditions:
		return fmt.Errorf("%w: %d conditions, at most %d are allowed", ErrTransaction, len(t.Conditions), MaxConditions)
	}
	size := maxGuardOverhead
	for i := range t.Conditions {
		c := &t.Conditions[i]
		if c.Kind < RowAbsent || c.Kind > RowVersion {
			return fmt.Errorf("%w: condition %d is of kind %d", ErrTransaction, i, c.Kind)
		}
		if len(c.Row) > MaxRowKey {
			return fmt.Errorf("%w: the row of condition %d has %d bytes, at most %d are allowed", ErrOversize, i, len(c.Row), MaxRowKey)
		}
		size += maxConditionOverhead + len(c.Row) + len(c.Value)
	}
	for i := range t.Commands {
		if t.Commands[i].Key.IsZero() {
			return fmt.Errorf("%w: command %d has the zero key", ErrTransaction, i)
		}
		size += len(t.Commands[i].Payload)
	}
	if size > MaxPayload {
		return fmt.Errorf("%w: a transaction of %d bytes, at most %d are allowed", ErrOversize, size, MaxPayload)
	}
	return nil
}

// Runs groups the commands into the runs they become, of consecutive commands
// to one key each, and yields their number.
func (t *Transaction) Runs() int {
	n := 0
	for i := range t.Commands {
		if i == 0 || t.Commands[i].Key != t.Commands[i-1].Key {
			n++
		}
	}
	return n
}

// OutcomeOf puts together what became of a transaction from the pointer at its
// guard record and the results of its records, the guard's first.
func OutcomeOf(guard Pointer, results [][]byte) (Outcome, error) {
	if len(results) == 0 {
		return Outcome{}, errOutcome
	}
	failed, n := binary.Uvarint(results[0])
	if n <= 0 {
		return Outcome{}, errOutcome
	}
	if failed != 0 {
		return Outcome{Pointer: guard, Failed: int(failed) - 1}, nil
	}
	return Outcome{Pointer: guard, Held: true, Results: results[1:]}, nil
}

var errOutcome = errors.New("mosaik: the results of a transaction do not fit it")

// guard is the decoded record of a transaction.
type guard struct {
	runs       int
	conditions []Condition
}

const guardVersion = 1

// AppendGuard appends the guard record of the transaction:
//
//	version 1 | runs uvarint | conditions uvarint | condition ...
//
//	condition  key 32 | kind 1 | row size uvarint | row |
//	           RowEquals: value size uvarint | value; RowVersion: commit uvarint
func (t *Transaction) AppendGuard(dst []byte) []byte {
	dst = append(dst, guardVersion)
	dst = binary.AppendUvarint(dst, uint64(t.Runs()))
	dst = binary.AppendUvarint(dst, uint64(len(t.Conditions)))
	for i := range t.Conditions {
		c := &t.Conditions[i]
		dst = append(dst, c.Key[:]...)
		dst = append(dst, byte(c.Kind))
		dst = appendBytes(dst, c.Row)
		switch c.Kind {
		case RowEquals:
			dst = appendBytes(dst, c.Value)
		case RowVersion:
			dst = binary.AppendUvarint(dst, c.Commit)
		}
	}
	return dst
}

var errGuard = errors.New("malformed guard")

func decodeGuard(b []byte) (guard, error) {
	var g guard
	if len(b) == 0 || b[0] != guardVersion {
		return g, errGuard
	}
	in := wire{rest: b[1:]}
	g.runs = in.count(MaxCommands)
	g.conditions = make([]Condition, in.count(MaxConditions))
	for i := range g.conditions {
		c := &g.conditions[i]
		copy(c.Key[:], in.take(identity.Size))
		if kind := in.take(1); kind != nil {
			c.Kind = ConditionKind(kind[0])
		}
		c.Row = in.bytes()
		switch c.Kind {
		case RowAbsent, RowPresent:
		case RowEquals:
			c.Value = in.bytes()
		case RowVersion:
			c.Commit = in.uvarint()
		default:
			return guard{}, errGuard
		}
	}
	if !in.end() {
		return guard{}, errGuard
	}
	return g, nil
}

// appendBytes appends a byte string with its size in front, as a uvarint.
func appendBytes(dst, b []byte) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(b))), b...)
}

// wire reads the parts of a command or a result from its front. After the first
// part that is not there it gives zeros, and end reports false.
type wire struct {
	rest []byte
	bad  bool
}

// take returns the next n bytes, nil if there are fewer. They alias the input.
func (w *wire) take(n int) []byte {
	if w.bad || n > len(w.rest) {
		w.bad = true
		return nil
	}
	b := w.rest[:n:n]
	w.rest = w.rest[n:]
	return b
}

// uvarint returns the next number, which must be in its shortest form.
func (w *wire) uvarint() uint64 {
	x, n := binary.Uvarint(w.rest)
	if w.bad || n <= 0 || n > 1 && x>>(7*(n-1)) == 0 {
		w.bad = true
		return 0
	}
	w.rest = w.rest[n:]
	return x
}

// count returns the next number, which must not exceed limit.
func (w *wire) count(limit int) int {
	n := w.uvarint()
	if n > uint64(limit) {
		w.bad = true
		return 0
	}
	return int(n)
}

// bytes returns the next byte string. It aliases the input.
func (w *wire) bytes() []byte {
	n := w.uvarint()
	if n > uint64(len(w.rest)) {
		w.bad = true
		return nil
	}
	return w.take(int(n))
}

// end reports whether everything was there and nothing is left.
func (w *wire) end() bool { return !w.bad && len(w.rest) == 0 }
