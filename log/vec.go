package log

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"math"

	"github.com/mosaik-engine/mosaik/identity"
)

// Commands of a vec; its rows are drawn in vectree.go:
//
//	insert    1 | index | value         -> present, index | absent, length
//	extend    2 | count | value ...     -> present, index of the first
//	remove    3 | index                 -> present, the element | absent, length
//	set       4 | index | value         -> present, the element before | absent, length
//	swap      5 | index | index         -> present | absent, length
//	truncate  6 | length                -> present, how many elements were removed
//	clear     7                         -> present, how many elements there were
//
// Numbers are uvarints, value a uvarint size and the bytes. The index 2^64-1
// stands for the end: behind the last element for insert, the last for the
// others. absent means that there is no such index, and nothing was changed.
const (
	vecInsert   = 1
	vecExtend   = 2
	vecRemove   = 3
	vecSet      = 4
	vecSwap     = 5
	vecTruncate = 6
	vecClear    = 7

	vecEnd = math.MaxUint64
)

// ErrIndex says that a vec has no such index. Nothing was written.
var ErrIndex = errors.New("mosaik: index out of range")

func indexError(index, length uint64) error {
	return fmt.Errorf("%w: %d, the length is %d", ErrIndex, index, length)
}

// VecDef defines a vec, a sequence of values by position: its name, the type of
// its values and how they are encoded. It is a plain value, usually in a package
// variable that writers and readers share.
type VecDef[V any] struct {
	Name   string   // see identity.ValidateName
	Values Codec[V] // nil means CBOR[V]()
}

// Key returns the key of the vec's log.
func (d VecDef[V]) Key() identity.ID { return identity.NewID(d.Name) }

// Reader returns a reader of the vec as s holds it. It reads nothing yet; a vec
// that nobody has opened is empty. It fails on an invalid name, with
// identity.ErrName.
func (d VecDef[V]) Reader(s Store) (*VecReader[V], error) {
	if d.Values == nil {
		d.Values = CBOR[V]()
	}
	c, err := newCollection(s, d.Name, vecMachine{}, d.Values.Name())
	if err != nil {
		return nil, fmt.Errorf("vec: %w", err)
	}
	return &VecReader[V]{CollectionReader: c, def: d}, nil
}

// Open returns the vec for reading and writing. The first Open anywhere registers
// it; each later one compares and fails with ErrCodec if the definitions differ.
func (d VecDef[V]) Open(ctx context.Context, s Store) (*Vec[V], error) {
	r, err := d.Reader(s)
	if err != nil {
		return nil, err
	}
	if err := r.open(ctx); err != nil {
		return nil, err
	}
	return &Vec[V]{VecReader: r}, nil
}

// VecReader reads a vec. It is safe for concurrent use.
type VecReader[V any] struct {
	*CollectionReader
	def VecDef[V]
}

// View returns the vec as of one commit. It stays what it is.
func (r *VecReader[V]) View(ctx context.Context, at Consistency) (*VecView[V], error) {
	v, err := r.view(ctx, at)
	if err != nil {
		return nil, err
	}
	tree, err := openVec(v)
	if err != nil {
		return nil, r.wrap(err)
	}
	return &VecView[V]{view: v, tree: tree, of: r}, nil
}

// VecChange says that a commit has changed a vec.
type VecChange struct {
	Pointer Pointer // at the commit
	Len     uint64  // afterwards
}

// Watch yields a change for each commit after the given one that touched the
// vec, in order, and with follow then waits for more until ctx ends. Commit 0 is
// before all.
// Positions shift, so a change does not say which elements are new: read
// View(ctx, AsOf(change.Pointer.Commit)).
func (r *VecReader[V]) Watch(ctx context.Context, after uint64, follow bool) iter.Seq2[VecChange, error] {
	return func(yield func(VecChange, error) bool) {
		for changes, err := range r.changes(ctx, after, follow) {
			var view *VecView[V]
			if err == nil {
				view, err = r.View(ctx, AsOf(changes.Pointer.Commit))
			}
			c := VecChange{Pointer: changes.Pointer}
			if err == nil {
				c.Len, err = view.Len()
			}
			if err != nil {
				yield(VecChange{}, err)
				return
			}
			if !yield(c, nil) {
				return
			}
		}
	}
}

// VecView is a vec as of one commit.
type VecView[V any] struct {
	view View
	tree *vecTree
	of   *VecReader[V]
}

// Commit returns the number of the commit that the view reflects.
func (v *VecView[V]) Commit() uint64 { return v.view.Commit() }

// Len returns the number of elements.
func (v *VecView[V]) Len() (uint64, error) { return readCount(v.view) }

// Get returns the element at an index, and whether there is one.
func (v *VecView[V]) Get(index uint64) (element V, ok bool, err error) {
	n, err := v.Len()
	if err != nil || index >= n {
		return element, false, err
	}
	item, err := v.tree.item(index)
	if err == nil {
		element, err = v.element(item)
	}
	return element, err == nil, err
}

func (v *VecView[V]) element(item uint64) (element V, err error) {
	value, err := v.tree.value(item)
	if err == nil {
		element, err = v.of.def.Values.Decode(value)
	}
	if err != nil {
		err = v.of.wrap(err)
	}
	return element, err
}

// Front returns the first element, and whether there is one.
func (v *VecView[V]) Front() (V, bool, error) { return v.Get(0) }

// Back returns the last element, and whether there is one.
func (v *VecView[V]) Back() (V, bool, error) {
	n, err := v.Len()
	if err != nil || n == 0 {
		var none V
		return none, false, err
	}
	return v.Get(n - 1)
}

// IndexOf returns the index of the first element that is encoded like element,
// and whether there is one. It looks at one element after the other.
func (v *VecView[V]) IndexOf(element V) (index uint64, ok bool, err error) {
	want, err := encodeValue(v.of.def.Values, element)
	if err != nil {
		return 0, false, v.of.wrap(err)
	}
	n, err := v.Len()
	if err != nil {
		return 0, false, err
	}
	for item, err := range v.tree.items(0, n, false) {
		var value []byte
		if err == nil {
			value, err = v.tree.value(item)
		}
		if err != nil {
			return 0, false, v.of.wrap(err)
		}
		if bytes.Equal(value, want) {
			return index, true, nil
		}
		index++
	}
	return 0, false, nil
}

// Contains reports whether an element is encoded like element. It looks at one
// element after the other.
func (v *VecView[V]) Contains(element V) (bool, error) {
	_, ok, err := v.IndexOf(element)
	return ok, err
}

// All yields all elements in order.
func (v *VecView[V]) All() iter.Seq2[V, error] { return v.Range(0, vecEnd, false) }

// Range yields the elements from index from, included, to index to, excluded, in
// order or, with reverse, against it. What lies behind the end is left out.
func (v *VecView[V]) Range(from, to uint64, reverse bool) iter.Seq2[V, error] {
	return func(yield func(V, error) bool) {
		n, err := v.Len()
		if err != nil {
			var none V
			yield(none, err)
			return
		}
		for item, err := range v.tree.items(from, min(to, n), reverse) {
			var element V
			if err == nil {
				element, err = v.element(item)
			}
			if !yield(element, err) || err != nil {
				return
			}
		}
	}
}

// Vec is a VecReader that can also write. It is safe for concurrent use. Each
// write is one command, atomic, and returns the pointer at it. What an error
// leaves open is as Writer.Append says; ErrCodec, ErrOversize and ErrIndex mean
// that nothing was changed.
type Vec[V any] struct{ *VecReader[V] }

// PushBack adds an element behind the last and returns its index.
func (v *Vec[V]) PushBack(ctx context.Context, element V) (Pointer, uint64, error) {
	return v.insert(ctx, vecEnd, element)
}

// PushFront adds an element in front of the first.
func (v *Vec[V]) PushFront(ctx context.Context, element V) (Pointer, error) {
	p, _, err := v.insert(ctx, 0, element)
	return p, err
}

// Insert adds an element at an index, at most the length; those from there on
// move up.
func (v *Vec[V]) Insert(ctx context.Context, index uint64, element V) (Pointer, error) {
	p, _, err := v.insert(ctx, index, element)
	return p, err
}

func (v *Vec[V]) insert(ctx context.Context, index uint64, element V) (p Pointer, at uint64, err error) {
	command, err := v.def.appendValue(binary.AppendUvarint([]byte{vecInsert}, index), element)
	if err != nil {
		return p, 0, v.wrap(err)
	}
	p, result, err := v.submitAt(ctx, command, index)
	if err != nil {
		return p, 0, err
	}
	if at, err = decodeNumber(result); err != nil {
		err = v.wrap(err)
	}
	return p, at, err
}

func (d *VecDef[V]) appendValue(command []byte, element V) ([]byte, error) {
	value, err := encodeValue(d.Values, element)
	return appendBytes(command, value), err
}

// submitAt submits a command about an index; the error is ErrIndex if there is
// none.
func (v *Vec[V]) submitAt(ctx context.Context, command []byte, index uint64) (Pointer, []byte, error) {
	p, result, err := v.submit(ctx, command)
	if err != nil || result[0] == resultPresent {
		return p, result, err
	}
	length, err := decodeNumber(result)
	if err == nil {
		err = indexError(index, length)
	}
	return p, nil, v.wrap(err)
}

// elementAt submits a command whose result is an element.
func (v *Vec[V]) elementAt(ctx context.Context, command []byte, index uint64) (p Pointer, element V, err error) {
	p, result, err := v.submitAt(ctx, command, index)
	if err != nil {
		return p, element, err
	}
	if element, _, err = decodeOptional(v.def.Values, result); err != nil {
		err = v.wrap(err)
	}
	return p, element, err
}

// Extend adds elements behind the last in one command and returns the index of
// the first. Together they must fit into a record.
func (v *Vec[V]) Extend(ctx context.Context, elements iter.Seq[V]) (p Pointer, first uint64, err error) {
	var list []byte
	count := uint64(0)
	for element := range elements {
		if list, err = v.def.appendValue(list, element); err != nil {
			return p, 0, v.wrap(err)
		}
		if count++; len(list) > MaxPayload {
			return p, 0, v.wrap(tooMany(count))
		}
	}
	return v.count(ctx, append(binary.AppendUvarint([]byte{vecExtend}, count), list...))
}

// PopBack removes the last element and returns it, and whether there was one.
func (v *Vec[V]) PopBack(ctx context.Context) (Pointer, V, bool, error) { return v.pop(ctx, vecEnd) }

// PopFront removes the first element and returns it, and whether there was one.
func (v *Vec[V]) PopFront(ctx context.Context) (Pointer, V, bool, error) { return v.pop(ctx, 0) }

func (v *Vec[V]) pop(ctx context.Context, index uint64) (Pointer, V, bool, error) {
	p, element, err := v.Remove(ctx, index)
	if errors.Is(err, ErrIndex) {
		return p, element, false, nil
	}
	return p, element, err == nil, err
}

// Remove removes the element at an index and returns it; those behind it move
// down.
func (v *Vec[V]) Remove(ctx context.Context, index uint64) (Pointer, V, error) {
	return v.elementAt(ctx, binary.AppendUvarint([]byte{vecRemove}, index), index)
}

// Set replaces the element at an index and returns the one before.
func (v *Vec[V]) Set(ctx context.Context, index uint64, element V) (p Pointer, old V, err error) {
	command, err := v.def.appendValue(binary.AppendUvarint([]byte{vecSet}, index), element)
	if err != nil {
		return p, old, v.wrap(err)
	}
	return v.elementAt(ctx, command, index)
}

// Swap exchanges the elements at two indexes.
func (v *Vec[V]) Swap(ctx context.Context, i, j uint64) (Pointer, error) {
	p, _, err := v.submitAt(ctx, binary.AppendUvarint(binary.AppendUvarint([]byte{vecSwap}, i), j), max(i, j))
	return p, err
}

// Truncate removes the elements from index length on and returns how many. The
// cost does not depend on their number.
func (v *Vec[V]) Truncate(ctx context.Context, length uint64) (p Pointer, removed uint64, err error) {
	return v.count(ctx, binary.AppendUvarint([]byte{vecTruncate}, length))
}

// Clear removes all elements, at the same cost however many there are, and
// returns their number.
func (v *Vec[V]) Clear(ctx context.Context) (p Pointer, removed uint64, err error) {
	return v.count(ctx, []byte{vecClear})
}

// vecMachine folds vecs.
type vecMachine struct{}

func (vecMachine) Signature() string { return "mosaik.vec.v1" }

func (vecMachine) Apply(tx *Tx, c Command) ([]byte, error) {
	if len(c.Payload) == 0 {
		return nil, nil
	}
	length, err := readCount(tx)
	if err != nil {
		return nil, err
	}
	in := wire{rest: c.Payload[1:]}
	e := vecEdit{tx: tx, length: length}
	switch c.Payload[0] {
	case vecInsert:
		if index, value := in.uvarint(), in.value(); in.end() {
			return e.insert(index, value)
		}
	case vecExtend:
		return e.extend(in)
	case vecRemove:
		if index := in.uvarint(); in.end() {
			return e.remove(index)
		}
	case vecSet:
		if index, value := in.uvarint(), in.value(); in.end() {
			return e.set(index, value)
		}
	case vecSwap:
		if i, j := in.uvarint(), in.uvarint(); in.end() {
			return e.swap(i, j)
		}
	case vecTruncate:
		if n := in.uvarint(); in.end() {
			return e.truncate(n)
		}
	case vecClear:
		if in.end() {
			return clearCounted(tx)
		}
	}
	return nil, nil
}

// vecEdit is one command's work on a vec.
type vecEdit struct {
	tx     *Tx
	length uint64
}

// edit opens the tree, frees a little of what was cut off, makes the change and
// keeps the count by delta.
func (e *vecEdit) edit(delta int, change func(t *vecTree) error) error {
	t, err := openVec(e.tx)
	if err != nil {
		return err
	}
	t.tx = e.tx
	if err := t.sweep(); err != nil {
		return err
	}
	if err := change(t); err != nil {
		return err
	}
	return errors.Join(t.close(), addCount(e.tx, delta))
}

// outside is the result of a command about an index that is not there.
func (e *vecEdit) outside() []byte { return binary.AppendUvarint(absent(), e.length) }

// last replaces the index that stands for the end by that of the last element.
func (e *vecEdit) last(index uint64) uint64 {
	if index == vecEnd {
		return e.length - 1 // of an empty vec vecEnd again, which is outside
	}
	return index
}

func (e *vecEdit) insert(index uint64, value []byte) ([]byte, error) {
	if index == vecEnd {
		index = e.length
	}
	if index > e.length {
		return e.outside(), nil
	}
	return number(index), e.edit(1, func(t *vecTree) error { return t.add(index, value) })
}

// add inserts a value.
func (t *vecTree) add(index uint64, value []byte) error {
	item := t.newID()
	if err := t.tx.Set(vecKey(vecItem, item), value); err != nil {
		return err
	}
	return t.insert(index, item)
}

// extend adds values at the end, all or none of which are well-formed.
func (e *vecEdit) extend(in wire) ([]byte, error) {
	count := in.count(MaxPayload)
	values := in
	for range count {
		in.value()
	}
	if !in.end() {
		return nil, nil
	}
	return number(e.length), e.edit(count, func(t *vecTree) error {
		for i := range count {
			if err := t.add(e.length+uint64(i), values.value()); err != nil {
				return err
			}
		}
		return nil
	})
}

func (e *vecEdit) remove(index uint64) (result []byte, err error) {
	if index = e.last(index); index >= e.length {
		return e.outside(), nil
	}
	err = e.edit(-1, func(t *vecTree) error {
		item, err := t.remove(index)
		if err != nil {
			return err
		}
		value, err := t.value(item)
		if err != nil {
			return err
		}
		result = present(value)
		return t.tx.Delete(vecKey(vecItem, item))
	})
	return result, err
}

func (e *vecEdit) set(index uint64, value []byte) (result []byte, err error) {
	if index = e.last(index); index >= e.length {
		return e.outside(), nil
	}
	err = e.edit(0, func(t *vecTree) error {
		item, err := t.item(index)
		if err != nil {
			return err
		}
		old, err := t.value(item)
		if err != nil {
			return err
		}
		result = present(old)
		return t.tx.Set(vecKey(vecItem, item), value)
	})
	return result, err
}

func (e *vecEdit) swap(i, j uint64) ([]byte, error) {
	if i, j = e.last(i), e.last(j); max(i, j) >= e.length {
		return e.outside(), nil
	}
	return taken(true), e.edit(0, func(t *vecTree) error {
		a, err := t.item(i)
		if err != nil {
			return err
		}
		b, err := t.item(j)
		if err != nil {
			return err
		}
		if err := t.put(i, b); err != nil {
			return err
		}
		return t.put(j, a)
	})
}

func (e *vecEdit) truncate(n uint64) ([]byte, error) {
	switch {
	case n >= e.length:
		return number(0), nil
	case n == 0:
		return clearCounted(e.tx)
	}
	removed := e.length - n
	return number(removed), e.edit(-int(removed), func(t *vecTree) error { return t.truncate(n) })
}

// VecTxn is a vec inside a transaction.
type VecTxn[V any] struct {
	part txnPart
	def  VecDef[V]
}

// In gives the vec inside a transaction, in whose group it is.
func (d VecDef[V]) In(t *Txn) *VecTxn[V] {
	r, err := d.Reader(t.group)
	if err != nil {
		return &VecTxn[V]{part: t.part(nil, err), def: d}
	}
	return &VecTxn[V]{part: t.part(r.CollectionReader, nil), def: r.def}
}

// ExpectLen demands that the vec has so many elements.
func (v *VecTxn[V]) ExpectLen(n uint64) {
	c := Condition{Kind: RowAbsent, Row: countRow}
	if n > 0 {
		c = Condition{Kind: RowEquals, Row: countRow, Value: binary.AppendUvarint(nil, n)}
	}
	v.part.expect(c, nil)
}

// PushBack adds an element behind the last; its result is the index.
func (v *VecTxn[V]) PushBack(element V) *Pending[uint64] {
	if v.part.failed() {
		return new(Pending[uint64])
	}
	command, err := v.def.appendValue(binary.AppendUvarint([]byte{vecInsert}, vecEnd), element)
	return v.part.doNumber(command, err)
}

// Set replaces the element at an index; its result is the one before, nil if
// there is no such index.
func (v *VecTxn[V]) Set(index uint64, element V) *Pending[*V] {
	if v.part.failed() {
		return new(Pending[*V])
	}
	command, err := v.def.appendValue(binary.AppendUvarint([]byte{vecSet}, index), element)
	return doOptional(&v.part, v.def.Values, command, err)
}

// Remove removes the element at an index; its result is the element, nil if there
// is no such index.
func (v *VecTxn[V]) Remove(index uint64) *Pending[*V] {
	return doOptional(&v.part, v.def.Values, binary.AppendUvarint([]byte{vecRemove}, index), nil)
}
