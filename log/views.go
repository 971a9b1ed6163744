package log

import (
	"fmt"

	"github.com/mosaik-engine/mosaik/identity"
)

// Views are the views of one group in memory, folded from its commits by
// whoever has only those: an auditor who believes no stored view, a reader of a
// remote log. They hold the newest version of every row, so memory grows with
// what the views hold and not with the history.
//
// One goroutine at a time.
type Views struct {
	rows memoryRows
	fold *Fold
}

// NewViews returns the views before the first commit, to be folded by the
// built-in machines and those given.
func NewViews(machines ...Machine) (*Views, error) {
	v := &Views{rows: newMemoryRows()}
	f, err := NewFold(&v.rows, machines...)
	v.fold = f
	return v, err
}

// Commit returns the number of the last commit folded, 0 before the first.
func (v *Views) Commit() uint64 { return v.rows.commit }

// State returns the state digest of the views as they are.
func (v *Views) State() Digest { return v.fold.Hash.Digest() }

// Fold folds the next commit and returns the state digest of the views after it,
// which the commit's header should have. The commit has been checked (Commit.Verify).
// After an error the Views are good for nothing; ErrKind says that a log is
// folded by a machine they do not know.
func (v *Views) Fold(c *Commit) (state Digest, err error) {
	if c.Header.Number != v.rows.commit+1 {
		return Digest{}, fmt.Errorf("fold commit %d after commit %d", c.Header.Number, v.rows.commit)
	}
	if _, err := v.foldBody(c.Header.Number, c.Header.Time, c.Body, v.rows.replace); err != nil {
		return Digest{}, err
	}
	return v.State(), nil
}

// foldBody folds a body and hands each effect to apply.
func (v *Views) foldBody(number uint64, time int64, body []byte, apply func(*RowEffect, uint64)) (results [][][]byte, err error) {
	v.fold.Begin(number, time)
	if results, err = v.fold.body(body); err != nil {
		return nil, err
	}
	for e := range v.fold.End() {
		apply(e, number)
	}
	v.rows.commit = number
	return results, nil
}

// View returns the view of a key, empty if nothing is folded from it. It is good
// until the next Fold.
func (v *Views) View(key identity.ID) (View, error) {
	return v.fold.After(&v.rows, v.rows.commit).ViewOf(key)
}
