package log

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/mosaik-engine/mosaik/identity"
)

// ErrQuery says that a Query contradicts itself or names no log. Nothing was
// read.
var ErrQuery = errors.New("mosaik: bad query")

// Query says which records of one key's log to scan.
type Query struct {
	Key    identity.ID // the log; not zero
	From   Position    // where to start; the zero Position is the first record
	Until  uint64      // last seq to yield, 0 for no limit
	Follow bool        // wait at the end of the log for more
	Filter Filter
}

// Validate reports a query that no log can answer. The error wraps ErrQuery,
// ErrPosition or ErrPointer.
func (q *Query) Validate() error {
	if q.Key.IsZero() {
		return fmt.Errorf("%w: the zero key names no log", ErrQuery)
	}
	if err := q.From.Validate(); err != nil {
		return err
	}
	if err := q.From.Pointer().checkKey(q.Key); err != nil {
		return err
	}
	return q.Filter.Validate()
}

// Clip cuts r to what the query and a scan that has come to seq from still want
// of it: the records numbered from or higher, up to q.Until. It reports false
// when nothing is left, and for runs that the position does not admit or the
// filter skips. The result shares r's bytes.
func (q *Query) Clip(r Run, from uint64) (Run, bool) {
	if r.LastSeq() < from || q.Until != 0 && max(r.FirstSeq, from) > q.Until || !q.From.Admits(&r) {
		return Run{}, false
	}
	if r.FirstSeq < from {
		r = r.From(from)
	}
	if q.Until != 0 {
		r = r.through(q.Until)
	}
	return r, !q.Filter.Skips(&r)
}

// through returns the run without the records after seq, which must lie in the
// run or behind it.
func (r *Run) through(seq uint64) Run {
	out := *r
	if seq >= r.LastSeq() {
		return out
	}
	out.Count = int(seq-r.FirstSeq) + 1
	rest := r.records
	for range out.Count {
		_, next, ok := cutRecord(rest)
		if !ok {
			return out
		}
		rest = next
	}
	out.records = r.records[:len(r.records)-len(rest)]
	return out
}

// Head is the end of a group's chain: its newest commit. The zero Head is that
// of a group without commits.
type Head struct {
	Number uint64 // of the newest commit, which is also how many there are
	Digest Digest // of its header
	Time   int64  // of it, Unix nanoseconds
}

// Scanner gives the records of logs. A live group, a replayed range, a sealed
// segment, a remote peer and the in-memory model are Scanners, so a typed
// reader works over each of them.
type Scanner interface {
	// Scan yields the runs of q.Key that q asks for, with seqs ascending. It does
	// nothing until it is ranged over, and every range starts anew: that is when
	// the query is validated and its position resolved.
	//
	// Without q.Follow it ends at the last record that was there when the iteration
	// started. With it, it then waits for more and yields them as they are
	// committed, until q.Until, the end of the filter's window, or the end of ctx.
	//
	// An error is the last pair, with the zero Run. An end of ctx is such an error,
	// ctx.Err(), in both modes. Breaking out of the loop stops the scan at once and
	// leaves nothing behind.
	//
	// A run's payloads may be read until the loop moves on to the next run; they
	// must not be changed. Of the filter, a scan applies what Filter says is its
	// part: single records that the filter does not keep are still in the runs.
	Scan(ctx context.Context, q Query) iter.Seq2[Run, error]
}

// Writer is a Scanner that can also append.
type Writer interface {
	Scanner

	// Append adds the payloads as consecutive records at the end of the key's log,
	// all in one commit, and returns the pointer at the first of them. When it
	// returns nil the records are agreed upon and durable, and a Scan that starts
	// afterwards on the same Writer yields them.
	//
	// ErrEmpty, ErrOversize, ErrQuery (the zero key) and ErrClosed mean that
	// nothing was written. After an end of ctx, or another error that says so, the
	// outcome is open: the records may be there, once, or may still come.
	//
	// The payloads are copied before Append returns; they stay the caller's.
	Append(ctx context.Context, key identity.ID, payloads ...[]byte) (Pointer, error)

	// AppendAsync is Append that does not wait for the outcome. Of the calls that
	// one goroutine makes for one key, those that succeed stand in the log in the
	// order of the calls. ctx bounds the work as it does in Append; the payloads
	// are copied before AppendAsync returns.
	AppendAsync(ctx context.Context, key identity.ID, payloads ...[]byte) *Future
}

// CheckAppend reports whether the format allows these payloads in one Append.
// Every Writer calls it first. The error wraps ErrQuery for the zero key,
// ErrEmpty or ErrOversize.
func CheckAppend(key identity.ID, payloads [][]byte) error {
	switch {
	case key.IsZero():
		return fmt.Errorf("%w: append: the zero key names no log", ErrQuery)
	case key == GuardKey():
		return fmt.Errorf("%w: append: the log of guards is written by transactions only", ErrQuery)
	case len(payloads) == 0:
		return fmt.Errorf("%w to key %s", ErrEmpty, key.Short())
	case len(payloads) > MaxRecords:
		return fmt.Errorf("%w: %d records in one append to key %s, at most %d are allowed", ErrOversize, len(payloads), key.Short(), MaxRecords)
	}
	total := 0
	for _, p := range payloads {
		total += len(p)
	}
	if total > MaxPayload {
		return fmt.Errorf("%w: %d bytes in one append to key %s, at most %d are allowed", ErrOversize, total, key.Short(), MaxPayload)
	}
	return nil
}
