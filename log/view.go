package log

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/mosaik-engine/mosaik/identity"
)

// Limits of a view's rows. They are part of the format, as those of records are.
const (
	// MaxRowKey is the largest key of a row in bytes.
	MaxRowKey = 1 << 10
	// MaxRowValue is the largest value of a row in bytes.
	MaxRowValue = MaxPayload
)

// ErrDiverged says that this replica has come to other bytes than the majority
// of its group. It serves nothing of the group until it has been refolded.
var ErrDiverged = errors.New("mosaik: this replica has diverged from its group")

// Row is one row of a view: a sorted map from byte strings to byte strings.
type Row struct {
	Key    []byte
	Value  []byte
	Commit uint64 // number of the commit that wrote the row: its version
}

// Range is the rows whose keys lie between From, included, and To, excluded. An
// empty To is no bound. Rows come in the order of their keys, or with Reverse
// against it.
type Range struct {
	From, To []byte
	Reverse  bool
}

// empty reports that no key lies in the range.
func (r *Range) empty() bool { return len(r.To) > 0 && bytes.Compare(r.From, r.To) >= 0 }

// View is what has been folded from one key's log, as of one commit: it never
// changes, however much is written meanwhile. It holds no resource, so there is
// nothing to close.
type View interface {
	// Commit returns the number of the commit the view reflects.
	Commit() uint64
	// Get returns a row, and whether it is there. The bytes may be kept, and must
	// not be changed.
	Get(key []byte) (Row, bool, error)
	// Scan yields the rows of a range. A row may be read until the next step. An
	// error is the last pair.
	Scan(r Range) iter.Seq2[Row, error]
}

// Consistency says which commit a read reflects.
type Consistency struct {
	kind   consistencyKind
	commit uint64
}

type consistencyKind uint8

const (
	linearizable consistencyKind = iota
	stale
	asOf
)

// Linearizable reads reflect everything that was acknowledged anywhere before
// the read began. They need a majority of the group. The zero Consistency is
// this one.
func Linearizable() Consistency { return Consistency{} }

// Stale reads reflect what the node that answers has; no other is asked.
func Stale() Consistency { return Consistency{kind: stale} }

// AsOf reads reflect exactly the commit with the number, which must have been
// applied where the read is answered: ErrNotFound if not.
func AsOf(commit uint64) Consistency { return Consistency{kind: asOf, commit: commit} }

// Commit returns the commit that AsOf was given, and whether this is such a read.
func (c Consistency) Commit() (number uint64, ok bool) { return c.commit, c.kind == asOf }

// IsStale reports whether the read may reflect less than what was acknowledged.
func (c Consistency) IsStale() bool { return c.kind == stale }

// String returns "linearizable", "stale" or "as of N".
func (c Consistency) String() string {
	switch c.kind {
	case stale:
		return "stale"
	case asOf:
		return fmt.Sprintf("as of %d", c.commit)
	}
	return "linearizable"
}

// Change is what a commit did to one row of a view.
type Change struct {
	Key      []byte
	Old, New []byte
	Existed  bool   // there was a row before, Old
	Exists   bool   // there is one afterwards, New
	Before   uint64 // commit that wrote the old row
}

// Changes is what one commit did to the view of one key.
type Changes struct {
	Pointer Pointer // at the commit
	Time    int64   // of the commit, Unix nanoseconds
	// Cleared says that the view was emptied first; the rows it had are not listed.
	Cleared bool
	Rows    []Change // in the order of their keys
}

// Store is a Writer that also keeps views of its logs: an engine, one of its
// groups, the in-memory model, a remote node. The typed collections need no more
// than this.
type Store interface {
	Writer

	// Home returns the store of the one group that holds the key. Of a group that
	// is itself.
	Home(key identity.ID) GroupStore
	// View returns the view of the key's log. A key that is not registered in the
	// directory with a machine has an empty one. ctx bounds the call and, for a view
	// that is not in this process, its use.
	View(ctx context.Context, key identity.ID, c Consistency) (View, error)
	// Changes yields what each commit after the given one did to the view of the
	// key, in order, and only of commits that changed it. With follow it waits for
	// more at the end. Who goes on with the last commit it has seen misses nothing
	// and sees nothing twice.
	Changes(ctx context.Context, key identity.ID, after uint64, follow bool) iter.Seq2[Changes, error]
	// WaitFor returns when reads here reflect the commit p points at, after checking
	// that it is the same commit: ErrPointer if not.
	WaitFor(ctx context.Context, p Pointer) error
}

// GroupStore is a Store of one group only. Within it, commands to several keys
// can be one atomic commit; across groups there is no such thing.
type GroupStore interface {
	Store

	// Submit commits the transaction: if all of its conditions hold, all of its
	// commands are applied, with nothing between them; else none is. See Outcome.
	Submit(ctx context.Context, t *Transaction) (Outcome, error)
}
