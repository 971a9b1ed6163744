package log

import (
	"context"
	"fmt"
	"iter"

	"github.com/mosaik-engine/mosaik/identity"
)

// A once's view has one row, under 0x01, from the first write on. Its one
// command:
//
//	write  1 | value  -> present (it is the first) | absent, and the value that is
//
// value is a uvarint size and the bytes.
const onceWrite = 1

// OnceDef defines a value that is written once: its name, the type of the value
// and how it is encoded. It is a plain value, usually in a package variable that
// writers and readers share.
type OnceDef[V any] struct {
	Name  string   // see identity.ValidateName
	Value Codec[V] // nil means CBOR[V]()
}

// Key returns the key of the log.
func (d OnceDef[V]) Key() identity.ID { return identity.NewID(d.Name) }

// Reader returns a reader of the value as s holds it. It reads nothing yet. It
// fails on an invalid name, with identity.ErrName.
func (d OnceDef[V]) Reader(s Store) (*OnceReader[V], error) {
	if d.Value == nil {
		d.Value = CBOR[V]()
	}
	c, err := newCollection(s, d.Name, onceMachine{}, d.Value.Name())
	if err != nil {
		return nil, fmt.Errorf("once: %w", err)
	}
	return &OnceReader[V]{CollectionReader: c, def: d}, nil
}

// Open returns the value for reading and writing. The first Open anywhere
// registers it; each later one compares and fails with ErrCodec if the
// definitions differ.
func (d OnceDef[V]) Open(ctx context.Context, s Store) (*Once[V], error) {
	r, err := d.Reader(s)
	if err != nil {
		return nil, err
	}
	if err := r.open(ctx); err != nil {
		return nil, err
	}
	return &Once[V]{OnceReader: r}, nil
}

// OnceReader reads a value that is written once. It is safe for concurrent use.
type OnceReader[V any] struct {
	*CollectionReader
	def OnceDef[V]
}

// Read returns the value. The read is linearizable.
func (r *OnceReader[V]) Read(ctx context.Context) (Content[V], error) {
	return r.ReadAt(ctx, Linearizable())
}

// ReadAt is Read with another consistency. A value that is found is the value for
// ever, however stale the read.
func (r *OnceReader[V]) ReadAt(ctx context.Context, at Consistency) (Content[V], error) {
	return readContent(ctx, r.CollectionReader, r.def.Value, at)
}

// Watch yields the write, if it stands in a commit after the given one, and with
// follow waits for it, and then for the end of ctx.
func (r *OnceReader[V]) Watch(ctx context.Context, after uint64, follow bool) iter.Seq2[CellChange[V], error] {
	return watchContent(ctx, r.CollectionReader, after, follow, r.def.Value)
}

// Once is a OnceReader that can also write. It is safe for concurrent use.
type Once[V any] struct{ *OnceReader[V] }

// Write sets the value if nobody has yet. It reports whether this write is the
// one that counts, and the value that does. What an error leaves open is as
// Writer.Append says; ErrCodec and ErrOversize mean that nothing was written.
func (o *Once[V]) Write(ctx context.Context, v V) (p Pointer, first bool, value V, err error) {
	encoded, err := encodeValue(o.def.Value, v)
	if err != nil {
		return p, false, value, o.wrap(err)
	}
	p, result, err := o.submit(ctx, appendBytes([]byte{onceWrite}, encoded))
	switch {
	case err != nil:
		return p, false, value, err
	case result[0] == resultPresent:
		return p, true, v, nil
	}
	if value, err = o.def.Value.Decode(result[1:]); err != nil {
		err = o.wrap(err)
	}
	return p, false, value, err
}

// onceMachine folds values that are written once.
type onceMachine struct{}

func (onceMachine) Signature() string { return "mosaik.once.v1" }

func (onceMachine) Apply(tx *Tx, c Command) ([]byte, error) {
	if len(c.Payload) == 0 || c.Payload[0] != onceWrite {
		return nil, nil
	}
	in := wire{rest: c.Payload[1:]}
	value := in.value()
	if !in.end() {
		return nil, nil
	}
	first, existed, err := tx.Get(cellRow)
	if err != nil {
		return nil, err
	}
	if existed {
		return append(absent(), first.Value...), nil
	}
	return taken(true), tx.Set(cellRow, value)
}

// OnceTxn is a value that is written once, inside a transaction.
type OnceTxn[V any] struct {
	part txnPart
	def  OnceDef[V]
}

// In gives the value inside a transaction, in whose group it is.
func (d OnceDef[V]) In(t *Txn) *OnceTxn[V] {
	r, err := d.Reader(t.group)
	if err != nil {
		return &OnceTxn[V]{part: t.part(nil, err), def: d}
	}
	return &OnceTxn[V]{part: t.part(r.CollectionReader, nil), def: r.def}
}

// ExpectAbsent demands that nobody has written it yet.
func (o *OnceTxn[V]) ExpectAbsent() { o.part.expect(Condition{Kind: RowAbsent, Row: cellRow}, nil) }

// Write sets the value if nobody has yet; its result is whether this write is the
// one that counts.
func (o *OnceTxn[V]) Write(v V) *Pending[bool] {
	if o.part.failed() {
		return new(Pending[bool])
	}
	value, err := encodeValue(o.def.Value, v)
	return o.part.doTaken(appendBytes([]byte{onceWrite}, value), err)
}
