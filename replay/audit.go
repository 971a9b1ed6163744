package replay

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

// AuditOptions say what to audit. The zero value is the whole log.
type AuditOptions struct {
	// From and To bound the range; 0 means commit 1 and the head.
	From, To uint64
	// Progress, if not nil, is called now and then on the goroutine of Audit, and at
	// the end of a clean audit, with the number of commits checked and to check.
	Progress func(done, total uint64)
}

// Report is what an audit has checked. Of one that found something it covers
// the commits before the bad one, which are good.
type Report struct {
	Group   identity.ID
	From    uint64 // first commit of the range
	To      uint64 // last commit of the range; From-1 if it is empty
	Commits uint64 // checked
	Records uint64 // in them
	Bytes   uint64 // of them, headers and bodies
	Keys    uint64 // logs that have records in them
	// First and Last are the times of the first and the last commit checked; zero
	// if there is none.
	First, Last time.Time
	// Digest is the range digest of the commits checked (package comment).
	Digest log.Digest
	// States says that the state in every header was compared with what folding the
	// commits comes to. It takes a Folded source and a range that begins with the
	// first commit.
	States bool
	// Head is the head the source served when the audit started.
	Head log.Head
}

// progressEvery is how many commits lie between two calls of Progress.
const progressEvery = 256

// Audit checks every commit of the range, as the package comment lists, against
// itself, its neighbours and the source's head. It returns nil if all is well;
// a *log.CorruptionError that names the first bad commit, with its file where
// the source knows it; or what else kept it from reading on, such as ctx's error.
//
// The log may grow meanwhile; what is appended after the call is not part of it.
// Memory grows with the number of keys in the range, by some 100 bytes each, and
// not with its length.
func Audit(ctx context.Context, src Source, opts AuditOptions) (Report, error) {
	s, err := spanOf(src, opts.From, opts.To)
	a := auditor{
		src:    src,
		span:   s,
		chain:  chain{group: src.ID(), next: s.first},
		seqs:   make(map[identity.ID]uint64),
		digest: newRangeDigest(),
		report: Report{Group: src.ID(), From: s.first, To: s.last, Head: s.head},
	}
	if folded, ok := src.(Folded); ok && err == nil && s.first == 1 {
		a.folded = folded
		_, a.fold = folded.Views(0)
		a.known = make(map[identity.ID]*log.ViewInfo)
		a.report.States = a.fold != nil
	}
	if err == nil {
		err = a.run(ctx, opts.Progress)
	}
	a.report.Keys = uint64(len(a.seqs))
	a.report.Digest = a.digest.sum()
	return a.report, err
}

// auditor is one audit under way.
type auditor struct {
	src    Source
	span   span
	chain  chain
	seqs   map[identity.ID]uint64 // next seq of every key seen
	digest rangeDigest
	report Report
	// Of an audit that folds, else nil.
	folded Folded
	fold   *log.Fold
	known  map[identity.ID]*log.ViewInfo // how keys are folded
	// held is the last commit that was followed. It is not in the report before
	// its successor, or the head, has confirmed its digest.
	held struct {
		bytes, records uint64
		time           int64
		digest         log.Digest
	}
}

func (a *auditor) run(ctx context.Context, progress func(done, total uint64)) error {
	if err := a.start(); err != nil {
		return err
	}
	total := a.span.commits()
	reported := uint64(0)
	report := func() {
		if progress != nil && a.report.Commits > reported {
			reported = a.report.Commits
			progress(reported, total)
		}
	}
	var err error
	a.span.walk(ctx, a.src, &a.chain, func(c *log.Commit, walkErr error) bool {
		if err = walkErr; err != nil {
			err = a.blame(err)
			return false
		}
		a.confirmed()
		if err = a.checkSeqs(c); err != nil {
			return false
		}
		if err = a.checkState(c); err != nil {
			return false
		}
		a.hold(c)
		if a.report.Commits-reported >= progressEvery {
			report()
		}
		return true
	})
	if err != nil {
		return err
	}
	if err := a.checkEnd(); err != nil {
		return err
	}
	a.confirmed()
	report()
	return nil
}

// start learns what the first commit of the range must follow.
func (a *auditor) start() error {
	if a.span.first == 1 {
		a.chain.known, a.chain.time = true, math.MinInt64
		return nil
	}
	a.chain.next--
	before, err := a.src.Commit(a.chain.next)
	if err != nil {
		return located(err, a.chain.group, a.chain.next)
	}
	return a.chain.follow(&before)
}

// checkSeqs holds the commit's runs against the seqs of their keys so far.
func (a *auditor) checkSeqs(c *log.Commit) error {
	for run, err := range c.Runs() {
		if err != nil {
			return err
		}
		want, seen := a.seqs[run.Key]
		if !seen {
			want = 1
			if a.span.first > 1 {
				want = run.FirstSeq
			}
		}
		if run.FirstSeq != want || run.LastSeq() < run.FirstSeq {
			return seqError(&run, want)
		}
		a.seqs[run.Key] = run.LastSeq() + 1
	}
	return nil
}

// checkState folds the commit over the views as they were before it, and holds
// the state in its header against what that comes to.
func (a *auditor) checkState(c *log.Commit) error {
	if a.fold == nil {
		return nil
	}
	before, _ := a.folded.Views(c.Header.Number - 1)
	state, err := a.fold.State(c, before, a.known)
	if err != nil {
		return located(err, a.chain.group, c.Header.Number)
	}
	if state != c.Header.State {
		return stateError(c, state)
	}
	return nil
}

var errState = errors.New("the state of the views differs")

// checkEnd looks for what confirms the digest of the last commit: the one after
// it, or the head.
func (a *auditor) checkEnd() error {
	f, head := &a.chain, a.span.head
	last := f.next - 1
	switch {
	case last < head.Number:
		after, err := a.src.Commit(f.next)
		if err != nil {
			return located(err, f.group, f.next)
		}
		if after.Header.Prev != f.prev {
			return a.blame(f.broken(after.Header.Prev))
		}
	case last == 0 && head != log.Head{}:
		return f.bad(0, fmt.Errorf("it is missing: the log is empty, but its head is %s at %d", head.Digest, head.Time))
	case last > 0 && (head.Digest != f.prev || head.Time != f.time):
		return &log.CorruptionError{Group: f.group, Commit: last,
			Err: fmt.Errorf("it is %s at %d, but the head is %s at %d", f.prev, f.time, head.Digest, head.Time)}
	}
	return nil
}

// blame turns a break of the chain between two commits into one that names the
// bad one of them. If the later one is what its own successor, or the head, says
// it is, it is as it was written, and the earlier one is not what it follows.
func (a *auditor) blame(err error) error {
	if !errors.Is(err, errChain) || a.chain.next == 1 {
		return err
	}
	later := a.chain.next
	c, readErr := a.src.Commit(later)
	if readErr != nil {
		return err
	}
	confirmed := a.span.head.Digest
	if later < a.span.head.Number {
		after, readErr := a.src.Commit(later + 1)
		if readErr != nil {
			return err
		}
		confirmed = after.Header.Prev
	}
	if c.Header.Digest() != confirmed {
		return err
	}
	return &log.CorruptionError{Group: a.chain.group, Commit: later - 1,
		Err: fmt.Errorf("%w: it is %s, commit %d follows %s", errChain, a.chain.prev, later, c.Header.Prev)}
}

// hold keeps what the report will say of c.
func (a *auditor) hold(c *log.Commit) {
	a.held.bytes = uint64(log.HeaderSize + len(c.Body))
	a.held.records = uint64(c.Header.Records)
	a.held.time = c.Header.Time
	a.held.digest = c.Digest
}

// confirmed adds the held commit, if there is one, to the report.
func (a *auditor) confirmed() {
	h, r := &a.held, &a.report
	if h.bytes == 0 {
		return
	}
	r.Last = time.Unix(0, h.time).UTC()
	if r.Commits == 0 {
		r.First = r.Last
	}
	r.Commits++
	r.Records += h.records
	r.Bytes += h.bytes
	a.digest.add(h.digest)
	h.bytes = 0
}
