package log

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"sync/atomic"

	"github.com/mosaik-engine/mosaik/identity"
)

// ErrCommand says that the machine of a key did not understand a command: the
// program that wrote it and the machine are of different versions. Nothing was
// changed.
var ErrCommand = errors.New("mosaik: the machine does not know the command")

// builtins are the machines that every group has.
func builtins() []Machine { return []Machine{NoOp(), mapMachine{}} }

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

// open registers the collection.
func (c *CollectionReader) open(ctx context.Context) error {
	if err := register(ctx, c.store, c.entry); err != nil {
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
	return tx.Set(countRow, binary.AppendUvarint(nil, n+uint64(delta)))
}
