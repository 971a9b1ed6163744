package log

import (
	"fmt"
	"time"
)

// Filter thins out a scan. The zero Filter lets everything pass. A filter never
// changes a seq: what it leaves out shows as a gap.
//
// The work is divided. A [Scanner] looks at whole runs: it leaves out those that
// Skips reports and ends at the first that Ends reports, and so never touches
// bytes nobody wants. Whoever reads the records of the runs applies Keeps to
// each; the typed readers of this package do.
type Filter struct {
	// Since and Until bound the time of the record's commit: Since is inclusive,
	// Until exclusive. The zero time is no bound. Commit times never decrease, so a
	// scan with an Until ends, even one that follows, at the first run past it.
	Since, Until time.Time
	// Every samples: only records whose seq is a multiple of it pass. 0 and 1 let
	// all pass. Which records pass does not depend on where the scan starts.
	Every uint64
	// Match, if not nil, decides by the payload, which it must neither change nor
	// keep. It is called last, in the reader's own goroutine, and never sent to
	// another peer.
	Match func(payload []byte) bool
}

// Validate reports a window that no time lies in. The error wraps ErrQuery.
func (f *Filter) Validate() error {
	if !f.Since.IsZero() && !f.Until.IsZero() && !f.Since.Before(f.Until) {
		return fmt.Errorf("%w: the filter's Until %s is not after its Since %s", ErrQuery,
			f.Until.Format(time.RFC3339Nano), f.Since.Format(time.RFC3339Nano))
	}
	return nil
}

// Skips reports that no record of r can pass: its commit lies outside the
// window, or none of its seqs is a multiple of Every.
func (f *Filter) Skips(r *Run) bool {
	if !f.Since.IsZero() && r.Time < unixNano(f.Since) {
		return true
	}
	if f.Every > 1 {
		if past := r.FirstSeq % f.Every; past != 0 && f.Every-past > uint64(r.Count)-1 {
			return true
		}
	}
	return f.Ends(r)
}

// Ends reports that neither r nor any run of a later commit can pass.
func (f *Filter) Ends(r *Run) bool {
	return !f.Until.IsZero() && r.Time >= unixNano(f.Until)
}

// Keeps reports whether a record passes whose run was not skipped.
func (f *Filter) Keeps(seq uint64, payload []byte) bool {
	return (f.Every <= 1 || seq%f.Every == 0) && (f.Match == nil || f.Match(payload))
}
