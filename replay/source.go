package replay

import (
	"context"
	"fmt"
	"iter"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

// Source is a group's log as somebody has it. *engine.Group and *log.Memory are
// Sources.
type Source interface {
	// ID returns the group.
	ID() identity.ID
	// Head returns the newest commit the source has; zero if there is none.
	Head() log.Head
	// Commit returns commit n, or an error that wraps log.ErrNotFound.
	Commit(n uint64) (log.Commit, error)
	// Commits yields the commits from..to in order, each with a body that is good
	// until the next step. An error is the last pair.
	Commits(ctx context.Context, from, to uint64) iter.Seq2[log.Commit, error]
}

// Folded is a Source that also has the views that are folded from its log.
// *engine.Group and *log.Memory are.
type Folded interface {
	Source
	// Views returns the views as of a commit, and a Fold that has folded nothing yet;
	// a nil Fold if they are not known as of that commit.
	Views(commit uint64) (log.Base, *log.Fold)
}

// span is a range of commits with its zeros filled in; empty when last is
// first-1.
type span struct {
	first, last uint64
	head        log.Head // of the source when the range was asked for
}

func (s span) commits() uint64 { return s.last - s.first + 1 }

// spanOf fills in what from and to leave open and refuses what src does not have.
func spanOf(src Source, from, to uint64) (span, error) {
	s := span{first: max(from, 1), last: to, head: src.Head()}
	if to == 0 {
		s.last = s.head.Number
		if s.first <= s.last+1 {
			return s, nil
		}
	}
	switch {
	case to != 0 && to < s.first:
		return s, fmt.Errorf("%w: the range %d..%d ends before it starts", log.ErrPosition, s.first, to)
	case max(s.first, s.last) > s.head.Number:
		return s, fmt.Errorf("%w: commit %d of group %s, which has %d", log.ErrNotFound, max(s.first, s.last), src.ID().Short(), s.head.Number)
	}
	return s, nil
}
