package log

import "context"

// Future is the outcome of an AppendAsync, which arrives later. Any number of
// goroutines may wait for it.
type Future struct {
	done    chan struct{}
	pointer Pointer // written before done is closed, read after
	results [][]byte
	err     error
}

// NewFuture returns a Future without an outcome. Whoever makes it owes it
// exactly one Complete, on every path.
func NewFuture() *Future { return &Future{done: make(chan struct{})} }

// Complete gives the outcome and wakes all who wait. A second call is a bug and
// panics.
func (f *Future) Complete(p Pointer, err error) { f.CompleteWith(p, nil, err) }

// CompleteWith is Complete with what the machine of the key returned for each of
// the payloads. It keeps results.
func (f *Future) CompleteWith(p Pointer, results [][]byte, err error) {
	f.pointer, f.results, f.err = p, results, err
	close(f.done)
}

// Done is closed when the outcome is there.
func (f *Future) Done() <-chan struct{} { return f.done }

// Result waits for the outcome and returns it, as Append would have.
func (f *Future) Result() (Pointer, error) {
	<-f.done
	return f.pointer, f.err
}

// Results waits for the outcome and returns what the machine of the key returned
// for each payload, in order; nil for a key that no machine folds.
func (f *Future) Results() ([][]byte, error) {
	<-f.done
	return f.results, f.err
}

// Wait is Result that gives up when ctx ends and returns ctx.Err(). Giving up
// changes nothing about the append.
func (f *Future) Wait(ctx context.Context) (Pointer, error) {
	// An outcome that is there is returned even when ctx has ended as well.
	select {
	case <-f.done:
		return f.pointer, f.err
	default:
	}
	select {
	case <-f.done:
		return f.pointer, f.err
	case <-ctx.Done():
		return Pointer{}, ctx.Err()
	}
}
