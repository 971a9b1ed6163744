package log

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"sync/atomic"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
)

// ErrCommand says that the machine of a key did not understand a command: the
// program that wrote it and the machine are of different versions. Nothing was
// changed.
var ErrCommand = errors.New("mosaik: the machine does not know the command")

// builtins are the machines that every group has.
func builtins() []Machine {
	return []Machine{NoOp(), membersMachine{}, mapMachine{}, setMachine{}, cellMachine{}, onceMachine{}, vecMachine{}, queueMachine{}}
}

// CollectionReader is what the readers of all collections have in common.
type CollectionReader struct {
	store  Store
	key    identity.ID
	entry  DirectoryEntry // what the definition says the collection is
	agreed atomic.Bool    // the directory has said the same; it cannot change its mind
}

// newCollection checks a definition. codecs are those that its values depend on.
func newCollection(s Store, name string, m Machine, codecs ...string) (*CollectionReader, error) {
	entry := DirectoryEntry{Name: name, Kind: m.Signature()}
	for i, c := range codecs {
		if i > 0 {
			entry.Codec += ","
		}
		entry.Codec += c
	}
	if err := entry.Validate(); err != nil {
		return nil, err
	}
	return &CollectionReader{store: s, key: entry.Key(), entry: entry}, nil
}

// Key returns the key of the collection's log.
func (c *CollectionReader) Key() identity.ID { return c.key }

// Name returns the collection's name.
func (c *CollectionReader) Name() string { return c.entry.Name }

// WaitFor returns when reads here reflect the write that returned p.
func (c *CollectionReader) WaitFor(ctx context.Context, p Pointer) error {
	return c.store.Home(c.key).WaitFor(ctx, p)
}

// readyPause is how long Ready waits between two attempts.
const readyPause = 50 * time.Millisecond

// Ready returns when the collection can be read linearizably here: the group has
// a leader and a quorum, and this store reflects what was acknowledged before. It
// tries until ctx ends; ErrClosed, and a collection that is not what the
// definition says (ErrCodec, ErrKind), end it at once.
func (c *CollectionReader) Ready(ctx context.Context) error {
	for {
		_, err := c.view(ctx, Linearizable())
		if err == nil || errors.Is(err, ErrClosed) || errors.Is(err, ErrCodec) || errors.Is(err, ErrKind) {
			return err
		}
		select {
		case <-time.After(readyPause):
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		}
	}
}

// open registers the collection.
func (c *CollectionReader) open(ctx context.Context) error {
	if err := Register(ctx, c.store, c.entry); err != nil {
		return fmt.Errorf("open %q: %w", c.entry.Name, err)
	}
	c.agreed.Store(true)
	return nil
}

// view returns the view to read from, after a look whether the collection is
// what the definition says. One that nobody has opened is empty.
func (c *CollectionReader) view(ctx context.Context, at Consistency) (View, error) {
	v, err := c.store.View(ctx, c.key, at)
	if err == nil && !c.agreed.Load() {
		err = c.agree(ctx)
	}
	if err != nil {
		return nil, c.wrap(err)
	}
	return v, nil
}

func (c *CollectionReader) agree(ctx context.Context) error {
	e, err := LookUp(ctx, c.store, c.key)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err == nil {
		err = e.agrees(c.entry)
	}
	if err == nil {
		c.agreed.Store(true)
	}
	return err
}

func (c *CollectionReader) wrap(err error) error { return fmt.Errorf("%q: %w", c.entry.Name, err) }

// changes yields what commits after the given one did to the collection.
func (c *CollectionReader) changes(ctx context.Context, after uint64, follow bool) iter.Seq2[Changes, error] {
	return func(yield func(Changes, error) bool) {
		if err := c.agree(ctx); err != nil {
			yield(Changes{}, c.wrap(err))
			return
		}
		for changes, err := range c.store.Changes(ctx, c.key, after, follow) {
			if err != nil {
				err = c.wrap(err)
			}
			if !yield(changes, err) {
				return
			}
		}
	}
}

// watch yields what commits after the given one did to the rows whose keys begin
// with prefix, and with follow waits for more. cleared makes the change that says that all
// rows went; decode that of a row, and whether there is one.
func watch[C any](ctx context.Context, c *CollectionReader, after uint64, follow bool, prefix byte,
	cleared func(Pointer) C, decode func(Pointer, *Change) (change C, some bool, err error)) iter.Seq2[C, error] {
	return func(yield func(C, error) bool) {
		fail := func(err error) {
			var zero C
			yield(zero, err)
		}
		for changes, err := range c.changes(ctx, after, follow) {
			if err != nil {
				fail(err)
				return
			}
			if changes.Cleared && !yield(cleared(changes.Pointer), nil) {
				return
			}
			for i := range changes.Rows {
				row := &changes.Rows[i]
				if row.Key[0] != prefix {
					continue
				}
				change, some, err := decode(changes.Pointer, row)
				if err != nil {
					fail(c.wrap(err))
					return
				}
				if some && !yield(change, nil) {
					return
				}
			}
		}
	}
}

// decodeChange decodes the values before and after a change.
func decodeChange[V any](codec Codec[V], row *Change, before, after *V) (err error) {
	if row.Existed {
		if *before, err = codec.Decode(row.Old); err != nil {
			return err
		}
	}
	if row.Exists {
		*after, err = codec.Decode(row.New)
	}
	return err
}

// submit has a command applied and returns its result.
func (c *CollectionReader) submit(ctx context.Context, command []byte) (Pointer, []byte, error) {
	f := c.store.AppendAsync(ctx, c.key, command)
	p, err := f.Wait(ctx)
	if err != nil {
		return Pointer{}, nil, c.wrap(err)
	}
	results, err := f.Results()
	switch {
	case err != nil:
		return Pointer{}, nil, c.wrap(err)
	case len(results) != 1 || len(results[0]) == 0:
		return Pointer{}, nil, c.wrap(ErrCommand)
	}
	return p, results[0], nil
}

// count submits a command whose result is a number.
func (c *CollectionReader) count(ctx context.Context, command []byte) (p Pointer, n uint64, err error) {
	p, result, err := c.submit(ctx, command)
	if err != nil {
		return p, 0, err
	}
	if n, err = decodeNumber(result); err != nil {
		err = c.wrap(err)
	}
	return p, n, err
}

// submitOptional submits a command whose result is a value or its absence.
func submitOptional[V any](ctx context.Context, c *CollectionReader, codec Codec[V], command []byte) (p Pointer, v V, ok bool, err error) {
	p, result, err := c.submit(ctx, command)
	if err != nil {
		return p, v, false, err
	}
	if v, ok, err = decodeOptional(codec, result); err != nil {
		err = c.wrap(err)
	}
	return p, v, ok, err
}

// submitSwap submits a compare-exchange.
func submitSwap[V any](ctx context.Context, c *CollectionReader, codec Codec[V], command []byte) (p Pointer, swapped bool, current *V, err error) {
	p, result, err := c.submit(ctx, command)
	if err != nil {
		return p, false, nil, err
	}
	if swapped, current, err = decodeSwap(codec, result); err != nil {
		err = c.wrap(err)
	}
	return p, swapped, current, err
}

// tooMany says that a command does not hold so many elements.
func tooMany(count uint64) error {
	return fmt.Errorf("%w: the first %d elements are above the %d bytes of one command", ErrOversize, count, MaxPayload)
}

// A result begins with a byte that says how the command went. An empty result
// means that the machine did not understand it.
const (
	resultAbsent  = 0 // nothing was there, or the command was not taken
	resultPresent = 1 // what was there follows, or the command was taken
)

// absent is the result of a command that found nothing.
func absent() []byte { return []byte{resultAbsent} }

// present is the result of a command that found a value.
func present(value []byte) []byte {
	return append(append(make([]byte, 0, 1+len(value)), resultPresent), value...)
}

// taken is the result of a command that only may be taken or not.
func taken(ok bool) []byte {
	if ok {
		return []byte{resultPresent}
	}
	return []byte{resultAbsent}
}

// number is the result of a command that counts.
func number(n uint64) []byte { return binary.AppendUvarint([]byte{resultPresent}, n) }

// decodeNumber decodes a counting result.
func decodeNumber(result []byte) (uint64, error) {
	in := wire{rest: result[1:]}
	n := in.uvarint()
	if !in.end() {
		return 0, ErrCommand
	}
	return n, nil
}

// decodeOptional decodes a result that is a value or its absence.
func decodeOptional[V any](codec Codec[V], result []byte) (v V, ok bool, err error) {
	if result[0] != resultPresent {
		return v, false, nil
	}
	v, err = codec.Decode(result[1:])
	return v, err == nil, err
}

// countRow is the key of the row in which a machine counts what its view holds.
var countRow = []byte{0}

// readCount returns what the count row says.
func readCount(v View) (uint64, error) {
	row, ok, err := v.Get(countRow)
	if err != nil || !ok {
		return 0, err
	}
	n, size := binary.Uvarint(row.Value)
	if size != len(row.Value) {
		return 0, errors.New("mosaik: a view's count row is malformed")
	}
	return n, nil
}

// addCount changes the count row by delta.
func addCount(tx *Tx, delta int) error {
	if delta == 0 {
		return nil
	}
	n, err := readCount(tx)
	if err != nil {
		return err
	}
	if n += uint64(delta); n == 0 {
		return tx.Delete(countRow) // an empty collection has no rows
	}
	return tx.Set(countRow, binary.AppendUvarint(nil, n))
}
