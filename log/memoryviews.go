package log

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/tidwall/btree"

	"github.com/mosaik-engine/mosaik/identity"
)

// memoryRows holds every version of every row of every view. It is a Base as of
// its newest commit.
type memoryRows struct {
	rows   *btree.Map[string, []memoryVersion] // by view, generation, key
	commit uint64
}

// memoryVersion is a row as a commit left it.
type memoryVersion struct {
	commit uint64
	value  []byte
	exists bool
}

func newMemoryRows() memoryRows {
	return memoryRows{rows: new(btree.Map[string, []memoryVersion])}
}

// add takes over what a commit has changed, and keeps what was there before.
func (m *memoryRows) add(e *RowEffect, commit uint64) {
	key := string(appendRowPrefix(nil, e.View, e.Generation)) + string(e.Key)
	versions, _ := m.rows.Get(key)
	m.rows.Set(key, append(slices.Clip(versions), memoryVersion{commit, e.New, e.Exists}))
}

// replace takes over what a commit has changed, in place of what was there
// before. Rows of a generation that has ended stay: the state covers them.
func (m *memoryRows) replace(e *RowEffect, commit uint64) {
	key := string(appendRowPrefix(nil, e.View, e.Generation)) + string(e.Key)
	if e.Exists {
		m.rows.Set(key, []memoryVersion{{commit, e.New, true}})
	} else {
		m.rows.Delete(key)
	}
}

// Rows implements Base.
func (m *memoryRows) Rows(view, generation uint32) View {
	return memoryView{m.rows, string(appendRowPrefix(nil, view, generation)), m.commit}
}

// at returns the rows as of a commit.
func (m *memoryRows) at(commit uint64) *memoryRows {
	return &memoryRows{rows: m.rows.Copy(), commit: commit}
}

// memoryView is one generation of one view as of a commit.
type memoryView struct {
	rows   *btree.Map[string, []memoryVersion]
	prefix string
	commit uint64
}

// Commit implements View.
func (v memoryView) Commit() uint64 { return v.commit }

// Get implements View.
func (v memoryView) Get(key []byte) (Row, bool, error) {
	versions, _ := v.rows.Get(v.prefix + string(key))
	row, ok := v.version(key, versions)
	return row, ok, nil
}

// version returns the row as it was at the view's commit.
func (v memoryView) version(key []byte, versions []memoryVersion) (Row, bool) {
	for _, old := range slices.Backward(versions) {
		if old.commit <= v.commit {
			return Row{Key: key, Value: old.value, Commit: old.commit}, old.exists
		}
	}
	return Row{}, false
}

// Scan implements View.
func (v memoryView) Scan(r Range) iter.Seq2[Row, error] {
	return func(yield func(Row, error) bool) {
		if r.empty() {
			return
		}
		var rows []Row
		v.rows.Ascend(v.prefix+string(r.From), func(key string, versions []memoryVersion) bool {
			key, ours := strings.CutPrefix(key, v.prefix)
			if !ours || len(r.To) > 0 && key >= string(r.To) {
				return false
			}
			if row, ok := v.version([]byte(key), versions); ok {
				rows = append(rows, row)
			}
			return true
		})
		if r.Reverse {
			slices.Reverse(rows)
		}
		// Rows are borrowed: whoever keeps one beyond the step has to see that it is
		// not good any more, as with a store's.
		for _, row := range rows {
			more := yield(row, nil)
			for i := range row.Key {
				row.Key[i] = 0xee
			}
			if !more {
				return
			}
		}
	}
}

// Home implements Store.
func (m *Memory) Home(identity.ID) GroupStore { return m }

// View implements Store.
func (m *Memory) View(ctx context.Context, key identity.ID, c Consistency) (View, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.closed {
		return nil, ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	commit, exact := c.Commit()
	if !exact {
		commit = m.mu.head.Number
	}
	if commit > m.mu.head.Number {
		return nil, fmt.Errorf("%w: commit %d, the head is %d", ErrNotFound, commit, m.mu.head.Number)
	}
	return m.mu.views.fold.After(m.mu.views.rows.at(commit), commit).ViewOf(key)
}

// Views returns the views as of a commit and, to fold the commits from the first
// on over them, a Fold that has folded nothing yet (replay.Folded).
func (m *Memory) Views(commit uint64) (Base, *Fold) {
	m.mu.Lock()
	defer m.mu.Unlock()
	base := m.mu.views.rows.at(commit)
	return base, m.mu.views.fold.After(base, commit)
}

// WaitFor implements Store. It does not wait: what was acknowledged is here.
func (m *Memory) WaitFor(_ context.Context, p Pointer) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p.Group != m.group {
		return p.Check(&Commit{Header: Header{Group: m.group}})
	}
	c, err := m.commit(p.Commit)
	if err != nil {
		return err
	}
	return p.Check(&c)
}

// Changes implements Store.
func (m *Memory) Changes(ctx context.Context, key identity.ID, after uint64, follow bool) iter.Seq2[Changes, error] {
	return func(yield func(Changes, error) bool) {
		for n := after + 1; ; n++ {
			changes, touched, changed, err := m.changes(key, n)
			for err == nil && changed != nil {
				if !follow {
					return
				}
				select {
				case <-changed:
				case <-ctx.Done():
					err = ctx.Err()
				}
				if err == nil {
					changes, touched, changed, err = m.changes(key, n)
				}
			}
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				yield(Changes{}, err)
				return
			}
			if touched && !yield(changes, nil) {
				return
			}
		}
	}
}

// changes returns what commit n did to the view of the key, or the channel that
// closes when there may be such a commit.
func (m *Memory) changes(key identity.ID, n uint64) (_ Changes, touched bool, changed chan struct{}, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.closed {
		return Changes{}, false, nil, ErrClosed
	}
	if n > m.mu.head.Number {
		return Changes{}, false, m.mu.changed, nil
	}
	c, err := m.commit(n)
	if err != nil {
		return Changes{}, false, nil, err
	}
	changes, touched, err := m.mu.views.fold.After(m.mu.views.rows.at(n-1), n-1).Replay(&c, key)
	return changes, touched, nil, err
}
