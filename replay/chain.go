package replay

import (
	"errors"
	"fmt"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

// Byte offsets in the header and in a run of what the rules are about
// (docs/format/log.md).
const (
	offGroup    = 1
	offNumber   = 33
	offTime     = 41
	offPrev     = 49
	offRunFirst = 32
)

// errChain marks the one finding that alone does not tell which of two commits
// is the bad one: see auditor.blame.
var errChain = errors.New("the chain is broken")

// chain holds the commits of a range against each other and against themselves,
// in the order of their numbers. It is a function of the commits alone.
type chain struct {
	group identity.ID
	next  uint64     // number of the commit to come
	prev  log.Digest // of the commit before it
	time  int64      // of the commit before it
	known bool       // prev and time are known
}

// follow checks c as the next commit and moves on. The error is a
// *log.CorruptionError.
func (f *chain) follow(c *log.Commit) error {
	h := &c.Header
	switch {
	case h.Group != f.group:
		return f.bad(offGroup, fmt.Errorf("it is one of group %s", h.Group))
	case h.Number != f.next:
		return f.bad(offNumber, fmt.Errorf("its header has number %d", h.Number))
	case f.known && h.Prev != f.prev:
		return f.broken(h.Prev)
	}
	if err := c.Verify(); err != nil {
		return located(err, f.group, f.next)
	}
	if f.known && h.Time < f.time {
		return f.bad(offTime, fmt.Errorf("the clock runs backwards: its time is %d, that of commit %d is %d", h.Time, f.next-1, f.time))
	}
	f.next, f.prev, f.time, f.known = f.next+1, c.Digest, h.Time, true
	return nil
}

// broken says that the commit to come has another Prev than it must.
func (f *chain) broken(prev log.Digest) error {
	if f.next == 1 {
		return f.bad(offPrev, fmt.Errorf("%w: it is the first, yet it follows %s", errChain, prev))
	}
	return f.bad(offPrev, fmt.Errorf("%w: it follows %s, commit %d is %s", errChain, prev, f.next-1, f.prev))
}

// bad blames the commit to come.
func (f *chain) bad(offset int64, err error) error {
	return &log.CorruptionError{Group: f.group, Commit: f.next, Offset: offset, Err: err}
}

// located makes an error that reading or checking commit n met name the group
// and the commit, if it is about corruption. An absent commit that must be there
// is that, too. Other errors say what was being done.
func located(err error, group identity.ID, n uint64) error {
	var c *log.CorruptionError
	switch {
	case errors.As(err, &c):
		out := *c
		out.Group, out.Commit = group, n
		return &out
	case errors.Is(err, log.ErrNotFound):
		return &log.CorruptionError{Group: group, Commit: n, Err: fmt.Errorf("it is missing: %w", err)}
	}
	return fmt.Errorf("read commit %d of group %s: %w", n, group.Short(), err)
}

var errEndsEarly = errors.New("it is missing: the log ends before it")
