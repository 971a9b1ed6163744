package replay

import (
	"context"
	"sync"

	"github.com/mosaik-engine/mosaik/log"
)

// Sizes of what is read ahead. Three blocks are under way at most: one being
// filled, one waiting, one being checked.
const (
	blockBytes   = 64 << 10 // of bodies, or one body that is larger
	blockCommits = 256
	// shortRange is how many commits are not worth a goroutine.
	shortRange = 8
)

// walk yields what src has of the span, in order, after f has followed it. A
// commit and its body are good until yield returns.
//
// About half of the time goes into reading and half into hashing, so a longer
// range is read by a goroutine of its own, which is 1.6 times as fast on two
// cores (BenchmarkReplay).
func (s span) walk(ctx context.Context, src Source, f *chain, yield func(*log.Commit, error) bool) {
	switch n := s.commits(); {
	case n == 0:
		return
	case n <= shortRange:
		var current log.Commit
		for c, err := range src.Commits(ctx, s.first, s.last) {
			current = c
			if err == nil {
				err = f.follow(&current)
			} else {
				err = located(err, f.group, f.next)
			}
			if !pass(&current, err, yield) || f.next > s.last {
				return
			}
		}
	default:
		r := newReader(src, s)
		defer r.close()
		go r.runRead(ctx)
		for b := range r.full {
			for i := range b.commits {
				if c := &b.commits[i]; !pass(c, f.follow(c), yield) {
					return
				}
			}
			if b.err != nil {
				yield(nil, located(b.err, f.group, f.next))
				return
			}
			r.free <- b
		}
		if f.next > s.last {
			return
		}
	}
	yield(nil, f.bad(0, errEndsEarly))
}

// pass yields a commit, or the error in its place, and reports whether to go on.
func pass(c *log.Commit, err error, yield func(*log.Commit, error) bool) bool {
	if err != nil {
		yield(nil, err)
		return false
	}
	return yield(c, nil)
}

// reader reads a span ahead of those who check it.
type reader struct {
	src  Source
	span span
	full chan *block   // to be checked; closed at the end
	free chan *block   // to be filled again
	stop chan struct{} // closed when nobody checks any more
	wg   sync.WaitGroup
}

// block is some commits with bodies of their own.
type block struct {
	commits []log.Commit
	bodies  []byte
	err     error // what was met behind them
}

func newReader(src Source, s span) *reader {
	r := &reader{src: src, span: s, full: make(chan *block, 1), free: make(chan *block, 3), stop: make(chan struct{})}
	for range cap(r.free) {
		r.free <- &block{}
	}
	r.wg.Add(1)
	return r
}

// close ends the reading and waits for that.
func (r *reader) close() {
	close(r.stop)
	r.wg.Wait()
}

// runRead fills blocks until the span has been read, reading fails, or the
// reader is closed.
func (r *reader) runRead(ctx context.Context) {
	defer r.wg.Done()
	defer close(r.full)
	b := r.next()
	n := r.span.first
	for c, err := range r.src.Commits(ctx, r.span.first, r.span.last) {
		if b == nil {
			return
		}
		if err != nil {
			b.err = err
			break
		}
		if !b.takes(len(c.Body)) {
			if !r.hand(b) {
				return
			}
			if b = r.next(); b == nil {
				return
			}
		}
		b.add(c)
		if n++; n > r.span.last {
			break
		}
	}
	if b != nil {
		r.hand(b)
	}
}

// next returns a block to fill, nil once the reader is closed.
func (r *reader) next() *block {
	select {
	case b := <-r.free:
		b.commits, b.bodies, b.err = b.commits[:0], b.bodies[:0], nil
		return b
	case <-r.stop:
		return nil
	}
}

// hand gives a block to be checked and reports whether anybody wants it.
func (r *reader) hand(b *block) bool {
	select {
	case r.full <- b:
		return true
	case <-r.stop:
		return false
	}
}

// takes reports whether there is room for one more commit, as there always is
// in an empty block.
func (b *block) takes(body int) bool {
	return len(b.commits) == 0 || len(b.commits) < blockCommits && body <= cap(b.bodies)-len(b.bodies)
}

// add copies c, whose body is not ours, into the block.
func (b *block) add(c log.Commit) {
	if cap(b.bodies)-len(b.bodies) < len(c.Body) { // empty: see takes
		b.bodies = make([]byte, 0, max(blockBytes, len(c.Body)))
	}
	start := len(b.bodies)
	b.bodies = append(b.bodies, c.Body...)
	c.Body = b.bodies[start:len(b.bodies):len(b.bodies)]
	b.commits = append(b.commits, c)
}
