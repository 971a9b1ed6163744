package replay

import (
	"context"
	"fmt"

	"github.com/mosaik-engine/mosaik/log"
)

// Views folds the commits 1..to of src, checked as Commits checks them, into
// views of its own in memory, and compares the state in every header with what
// that comes to. A difference is a *log.CorruptionError that names the commit. to
// is 0 for the head; progress, if not nil, is called now and then.
//
// Nothing that src has folded is believed or even asked for, so the answer is
// that of the log alone, also from a remote source. Memory grows with what the
// views hold. A machine that is neither built in nor given is log.ErrKind.
func Views(ctx context.Context, src Source, to uint64, progress func(done, total uint64), machines ...log.Machine) (*log.Views, error) {
	v, err := log.NewViews(machines...)
	if err != nil {
		return nil, err
	}
	s, err := spanOf(src, 1, to)
	if err != nil {
		return nil, err
	}
	for c, err := range Commits(ctx, src, s.first, s.last) {
		if err != nil {
			return nil, err
		}
		state, err := v.Fold(&c)
		if err != nil {
			return nil, located(err, src.ID(), c.Header.Number)
		}
		if state != c.Header.State {
			return nil, stateError(&c, state)
		}
		if n := c.Header.Number; progress != nil && (n%progressEvery == 0 || n == s.last) {
			progress(n, s.last)
		}
	}
	return v, nil
}

// stateError says that a header holds another state than its commit leads to.
func stateError(c *log.Commit, state log.Digest) error {
	return &log.CorruptionError{Group: c.Header.Group, Commit: c.Header.Number,
		Err: fmt.Errorf("%w: the header has %s, folding the log comes to %s", errState, c.Header.State, state)}
}
