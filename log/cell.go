package log

import (
	"context"
	"fmt"
	"iter"

	"github.com/mosaik-engine/mosaik/identity"
)

// A cell's view has one row, under 0x01, while it has a value. Commands:
//
//	write  1 | value           -> absent | present, the value before
//	clear  2                   -> absent | present, the value before
//	swap   3 | before | after  -> present (taken) | absent, and what is there
//
// value is a uvarint size and the bytes; before and after are as in swap.go.
const (
	cellWrite = 1
	cellClear = 2
	cellSwap  = 3
)

// cellRow is the key of the row with the value.
var cellRow = []byte{1}

// CellDef defines a cell: its name, the type of its value and how it is encoded.
// It is a plain value, usually in a package variable that writers and readers
// share.
type CellDef[V any] struct {
	Name  string   // see identity.ValidateName
	Value Codec[V] // nil means CBOR[V]()
}

// Key returns the key of the cell's log.
func (d CellDef[V]) Key() identity.ID { return identity.NewID(d.Name) }

// Reader returns a reader of the cell as s holds it. It reads nothing yet; a cell
// that nobody has opened is empty. It fails on an invalid name, with
// identity.ErrName.
func (d CellDef[V]) Reader(s Store) (*CellReader[V], error) {
	if d.Value == nil {
		d.Value = CBOR[V]()
	}
	c, err := newCollection(s, d.Name, cellMachine{}, d.Value.Name())
	if err != nil {
		return nil, fmt.Errorf("cell: %w", err)
	}
	return &CellReader[V]{CollectionReader: c, def: d}, nil
}

// Open returns the cell for reading and writing. The first Open anywhere
// registers it; each later one compares and fails with ErrCodec if the
// definitions differ.
func (d CellDef[V]) Open(ctx context.Context, s Store) (*Cell[V], error) {
	r, err := d.Reader(s)
	if err != nil {
		return nil, err
	}
	if err := r.open(ctx); err != nil {
		return nil, err
	}
	return &Cell[V]{CellReader: r}, nil
}

// CellReader reads a cell. It is safe for concurrent use.
type CellReader[V any] struct {
	*CollectionReader
	def CellDef[V]
}

// Content is the value of a Cell or a Once as of one commit.
type Content[V any] struct {
	Value   V
	Found   bool   // there is a value
	Version uint64 // number of the commit that wrote it
	Commit  uint64 // that the read reflects
}

// Read returns the value. The read is linearizable.
func (r *CellReader[V]) Read(ctx context.Context) (Content[V], error) {
	return r.ReadAt(ctx, Linearizable())
}

// ReadAt is Read with another consistency.
func (r *CellReader[V]) ReadAt(ctx context.Context, at Consistency) (Content[V], error) {
	return readContent(ctx, r.CollectionReader, r.def.Value, at)
}

// readContent reads the one row of a Cell or a Once.
func readContent[V any](ctx context.Context, c *CollectionReader, codec Codec[V], at Consistency) (Content[V], error) {
	v, err := c.view(ctx, at)
	if err != nil {
		return Content[V]{}, err
	}
	content := Content[V]{Commit: v.Commit()}
	row, ok, err := v.Get(cellRow)
	if err == nil && ok {
		content.Found, content.Version = true, row.Commit
		content.Value, err = codec.Decode(row.Value)
	}
	if err != nil {
		return Content[V]{}, c.wrap(err)
	}
	return content, nil
}

// CellChange is what a commit did to a cell or a once.
type CellChange[V any] struct {
	Pointer         Pointer // at the commit
	Old, New        V
	Existed, Exists bool // whether there was a value before and is one afterwards
}

// Watch yields the changes of all commits after the given one, in order, and with
// follow then waits for more until ctx ends. Commit 0 is before all. Who goes on after
// the commit of the last change misses nothing.
func (r *CellReader[V]) Watch(ctx context.Context, after uint64, follow bool) iter.Seq2[CellChange[V], error] {
	return watchContent(ctx, r.CollectionReader, after, follow, r.def.Value)
}

func watchContent[V any](ctx context.Context, c *CollectionReader, after uint64, follow bool, codec Codec[V]) iter.Seq2[CellChange[V], error] {
	return watch(ctx, c, after, follow, cellRow[0],
		func(p Pointer) CellChange[V] { return CellChange[V]{Pointer: p} },
		func(p Pointer, row *Change) (CellChange[V], bool, error) {
			change := CellChange[V]{Pointer: p, Existed: row.Existed, Exists: row.Exists}
			err := decodeChange(codec, row, &change.Old, &change.New)
			return change, true, err
		})
}

// Cell is a CellReader that can also write. It is safe for concurrent use. Each
// write is one command, atomic, and returns the pointer at it. What an error
// leaves open is as Writer.Append says; ErrCodec and ErrOversize mean that
// nothing was written.
type Cell[V any] struct{ *CellReader[V] }

// Write sets the value and returns what was there.
func (c *Cell[V]) Write(ctx context.Context, v V) (p Pointer, old V, existed bool, err error) {
	value, err := encodeValue(c.def.Value, v)
	if err != nil {
		return p, old, false, c.wrap(err)
	}
	return submitOptional(ctx, c.CollectionReader, c.def.Value, appendBytes([]byte{cellWrite}, value))
}

// Clear removes the value and returns it.
func (c *Cell[V]) Clear(ctx context.Context) (p Pointer, old V, existed bool, err error) {
	return submitOptional(ctx, c.CollectionReader, c.def.Value, []byte{cellClear})
}

// CompareExchange sets the value to after if it is before; nil stands for none,
// on both sides. It returns whether that took place, and if not what is there
// instead, nil for nothing. Values are equal if their encodings are.
func (c *Cell[V]) CompareExchange(ctx context.Context, before, after *V) (p Pointer, swapped bool, current *V, err error) {
	command, err := appendSwap([]byte{cellSwap}, c.def.Value, before, after)
	if err != nil {
		return p, false, nil, c.wrap(err)
	}
	return submitSwap(ctx, c.CollectionReader, c.def.Value, command)
}

// cellMachine folds cells.
type cellMachine struct{}

func (cellMachine) Signature() string { return "mosaik.cell.v1" }

func (cellMachine) Apply(tx *Tx, c Command) ([]byte, error) {
	if len(c.Payload) == 0 {
		return nil, nil
	}
	in := wire{rest: c.Payload[1:]}
	switch c.Payload[0] {
	case cellWrite:
		if value := in.value(); in.end() {
			return exchange(tx, cellRow, value, true)
		}
	case cellClear:
		if in.end() {
			return exchange(tx, cellRow, nil, false)
		}
	case cellSwap:
		if s := in.swap(); in.end() {
			return swapRow(tx, cellRow, s, false)
		}
	}
	return nil, nil
}

// exchange writes or removes a row and returns what was there.
func exchange(tx *Tx, key, value []byte, exists bool) ([]byte, error) {
	old, existed, err := tx.Get(key)
	if err != nil {
		return nil, err
	}
	if exists {
		err = tx.Set(key, value)
	} else {
		err = tx.Delete(key)
	}
	if !existed {
		return absent(), err
	}
	return present(old.Value), err
}

// CellTxn is a cell inside a transaction.
type CellTxn[V any] struct {
	part txnPart
	def  CellDef[V]
}

// In gives the cell inside a transaction, in whose group it is.
func (d CellDef[V]) In(t *Txn) *CellTxn[V] {
	r, err := d.Reader(t.group)
	if err != nil {
		return &CellTxn[V]{part: t.part(nil, err), def: d}
	}
	return &CellTxn[V]{part: t.part(r.CollectionReader, nil), def: r.def}
}

// ExpectAbsent demands that the cell has no value.
func (c *CellTxn[V]) ExpectAbsent() { c.part.expect(Condition{Kind: RowAbsent, Row: cellRow}, nil) }

// ExpectVersion demands that commit version wrote the value (Content.Version).
func (c *CellTxn[V]) ExpectVersion(version uint64) {
	c.part.expect(Condition{Kind: RowVersion, Row: cellRow, Commit: version}, nil)
}

// ExpectValue demands that the cell has this value.
func (c *CellTxn[V]) ExpectValue(v V) {
	if !c.part.failed() {
		value, err := encodeValue(c.def.Value, v)
		c.part.expect(Condition{Kind: RowEquals, Row: cellRow, Value: value}, err)
	}
}

// Write sets the value; its result is what was there.
func (c *CellTxn[V]) Write(v V) *Pending[*V] {
	if c.part.failed() {
		return new(Pending[*V])
	}
	value, err := encodeValue(c.def.Value, v)
	return doOptional(&c.part, c.def.Value, appendBytes([]byte{cellWrite}, value), err)
}

// Clear removes the value; its result is what was there.
func (c *CellTxn[V]) Clear() *Pending[*V] {
	return doOptional(&c.part, c.def.Value, []byte{cellClear}, nil)
}
