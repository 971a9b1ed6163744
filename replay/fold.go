package replay

import (
	"context"
	"fmt"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

// Fold replays the commits from..to of src, checked as Commits checks them, into
// a state: apply gets the state so far, init at first, and the next commit, whose
// body is good until apply returns. It returns the last state. An error of apply
// ends it and is returned as it is, with the state before.
func Fold[S any](ctx context.Context, src Source, from, to uint64, init S, apply func(S, log.Commit) (S, error)) (S, error) {
	state := init
	for c, err := range Commits(ctx, src, from, to) {
		if err != nil {
			return state, err
		}
		next, err := apply(state, c)
		if err != nil {
			return state, err
		}
		state = next
	}
	return state, nil
}

// Record is one record with the evidence for it.
type Record struct {
	Pointer log.Pointer // at the record
	Time    int64       // of its commit, Unix nanoseconds
	Payload []byte      // for how long, and whose, says what gave the record
}

// FoldKey is Fold over the records of one key in those commits, in the order of
// their seqs, which it checks to be dense. A payload is good until apply returns.
func FoldKey[S any](ctx context.Context, src Source, key identity.ID, from, to uint64, init S, apply func(S, Record) (S, error)) (S, error) {
	state := init
	var due uint64 // next seq; 0 before the first
	if from <= 1 {
		due = 1
	}
	for c, err := range Commits(ctx, src, from, to) {
		if err != nil {
			return state, err
		}
		for run, err := range c.Runs() {
			if err != nil {
				return state, err
			}
			if run.Key != key {
				continue
			}
			if due != 0 && run.FirstSeq != due {
				return state, seqError(&run, due)
			}
			due = run.LastSeq() + 1
			r := Record{Pointer: run.Pointer(0), Time: run.Time}
			for r.Pointer.Seq, r.Payload = range run.Records() {
				next, err := apply(state, r)
				if err != nil {
					return state, err
				}
				state = next
			}
		}
	}
	return state, nil
}

// seqError says that a run starts at another seq than is due, or counts past
// the last one there can be.
func seqError(run *log.Run, due uint64) error {
	return &log.CorruptionError{Group: run.Group, Commit: run.Commit, Offset: log.HeaderSize + int64(run.Offset()) + offRunFirst,
		Err: fmt.Errorf("key %s goes on with %d records from seq %d, where %d is due", run.Key, run.Count, run.FirstSeq, due)}
}
