package log

import (
	"encoding/binary"
	"errors"
	"iter"
	"slices"
)

// A vec's view is a counted B+-tree, so that any position is found, inserted and
// removed with as many rows as the tree is high. Values are not in the tree: a
// leaf names items, and each item's value has a row of its own.
//
//	0x00            -> number of elements (the count row)
//	0x01            -> root | next | free
//	0x02 | node 8   -> 0, item ...             a leaf: at most vecFanout items
//	                   1, (node | count) ...   an inner node, with what each child holds
//	0x03 | item 8   -> value
//	0x04 | node 8   -> nothing                 a subtree that was cut off
//
// Nodes and items are numbered from 1 by next, never twice; in keys numbers are
// big-endian, elsewhere uvarints. root is 0 for an empty vec, free counts the
// rows under 0x04.
//
// A node that grows above vecFanout is split in two; one that shrinks below
// vecMinimum is merged with a neighbour or takes from it. A truncation may leave
// smaller ones along the cut, which are merged when they are next removed from.
// It does not visit what it cuts off: each later command takes one node apart,
// which costs at most vecFanout+1 rows.
const (
	vecFanout  = 64
	vecMinimum = vecFanout / 4

	vecNode = 2 // first byte of rows
	vecItem = 3
	vecFree = 4
)

// vecMeta is the key of the row with root, next and free.
var vecMeta = []byte{1}

var errVecRow = errors.New("mosaik: a row of a vec is malformed")

// vecTree is the tree of a view.
type vecTree struct {
	view View
	tx   *Tx // view, when it may be written
	root uint64
	next uint64
	free uint64
}

func openVec(view View) (*vecTree, error) {
	t := &vecTree{view: view, next: 1}
	row, ok, err := view.Get(vecMeta)
	if err != nil || !ok {
		return t, err
	}
	in := wire{rest: row.Value}
	t.root, t.next, t.free = in.uvarint(), in.uvarint(), in.uvarint()
	if !in.end() {
		return nil, errVecRow
	}
	return t, nil
}

// close writes the row with root, next and free.
func (t *vecTree) close() error {
	row := binary.AppendUvarint(nil, t.root)
	row = binary.AppendUvarint(row, t.next)
	return t.tx.Set(vecMeta, binary.AppendUvarint(row, t.free))
}

func vecKey(kind byte, id uint64) []byte { return binary.BigEndian.AppendUint64([]byte{kind}, id) }

// vecNodeRow is a decoded node.
type vecNodeRow struct {
	leaf   bool
	ids    []uint64 // of items in a leaf, of children in an inner node
	counts []uint64 // of the elements below each child
}

func (n *vecNodeRow) size() int { return len(n.ids) }

// count returns the elements below the node.
func (n *vecNodeRow) count() uint64 {
	if n.leaf {
		return uint64(len(n.ids))
	}
	var sum uint64
	for _, c := range n.counts {
		sum += c
	}
	return sum
}

// child returns which child holds element i, and i within it. Behind the last
// element it is the last child.
func (n *vecNodeRow) child(i uint64) (c int, within uint64) {
	for c = range n.counts {
		if i < n.counts[c] || c == len(n.counts)-1 {
			return c, i
		}
		i -= n.counts[c]
	}
	return 0, i
}

// cut splits off what lies from position at on.
func (n *vecNodeRow) cut(at int) *vecNodeRow {
	right := &vecNodeRow{leaf: n.leaf, ids: slices.Clone(n.ids[at:])}
	n.ids = n.ids[:at]
	if !n.leaf {
		right.counts = slices.Clone(n.counts[at:])
		n.counts = n.counts[:at]
	}
	return right
}

// join appends what is in right.
func (n *vecNodeRow) join(right *vecNodeRow) {
	n.ids = append(n.ids, right.ids...)
	n.counts = append(n.counts, right.counts...)
}

func (t *vecTree) read(id uint64) (*vecNodeRow, error) {
	row, ok, err := t.view.Get(vecKey(vecNode, id))
	if err != nil {
		return nil, err
	}
	if !ok || len(row.Value) == 0 || row.Value[0] > 1 {
		return nil, errVecRow
	}
	n := &vecNodeRow{leaf: row.Value[0] == 0}
	for in := (wire{rest: row.Value[1:]}); len(in.rest) > 0; {
		n.ids = append(n.ids, in.uvarint())
		if !n.leaf {
			n.counts = append(n.counts, in.uvarint())
		}
		if in.bad {
			return nil, errVecRow
		}
	}
	if n.size() == 0 {
		return nil, errVecRow
	}
	return n, nil
}

func (t *vecTree) write(id uint64, n *vecNodeRow) error {
	row := make([]byte, 1, 1+4*len(n.ids))
	if !n.leaf {
		row[0] = 1
	}
	for i, child := range n.ids {
		row = binary.AppendUvarint(row, child)
		if !n.leaf {
			row = binary.AppendUvarint(row, n.counts[i])
		}
	}
	return t.tx.Set(vecKey(vecNode, id), row)
}

func (t *vecTree) newID() uint64 {
	t.next++
	return t.next - 1
}

// item returns the item at position i, which must be there.
func (t *vecTree) item(i uint64) (uint64, error) {
	for id := t.root; ; {
		n, err := t.read(id)
		if err != nil {
			return 0, err
		}
		if n.leaf {
			if i >= uint64(len(n.ids)) {
				return 0, errVecRow
			}
			return n.ids[i], nil
		}
		c, within := n.child(i)
		id, i = n.ids[c], within
	}
}

func (t *vecTree) value(item uint64) ([]byte, error) {
	row, ok, err := t.view.Get(vecKey(vecItem, item))
	if err == nil && !ok {
		err = errVecRow
	}
	return row.Value, err
}

// put makes the item at position i another one.
func (t *vecTree) put(i, item uint64) error {
	for id := t.root; ; {
		n, err := t.read(id)
		if err != nil {
			return err
		}
		if n.leaf {
			n.ids[i] = item
			return t.write(id, n)
		}
		c, within := n.child(i)
		id, i = n.ids[c], within
	}
}

// insert puts an item at position i, which may be the end.
func (t *vecTree) insert(i uint64, item uint64) error {
	if t.root == 0 {
		t.root = t.newID()
		return t.write(t.root, &vecNodeRow{leaf: true, ids: []uint64{item}})
	}
	left, right, err := t.insertBelow(t.root, i, item)
	if err != nil || right.id == 0 {
		return err
	}
	root := &vecNodeRow{ids: []uint64{t.root, right.id}, counts: []uint64{left, right.count}}
	t.root = t.newID()
	return t.write(t.root, root)
}

// vecPart is a node and how many elements are below it.
type vecPart struct{ id, count uint64 }

// insertBelow inserts below a node. It returns what the node holds afterwards,
// and the node it had to split off to its right, if any.
func (t *vecTree) insertBelow(id, i, item uint64) (left uint64, right vecPart, err error) {
	n, err := t.read(id)
	if err != nil {
		return 0, right, err
	}
	if n.leaf {
		n.ids = slices.Insert(n.ids, int(i), item)
	} else {
		c, within := n.child(i)
		count, split, err := t.insertBelow(n.ids[c], within, item)
		if err != nil {
			return 0, right, err
		}
		n.counts[c] = count
		if split.id != 0 {
			n.ids = slices.Insert(n.ids, c+1, split.id)
			n.counts = slices.Insert(n.counts, c+1, split.count)
		}
	}
	if n.size() > vecFanout {
		// Elements are mostly pushed at an end: a split there leaves full nodes behind.
		at := n.size() / 2
		switch {
		case i >= n.count()-1:
			at = n.size() - vecMinimum
		case i == 0:
			at = vecMinimum
		}
		half := n.cut(at)
		right = vecPart{t.newID(), half.count()}
		if err := t.write(right.id, half); err != nil {
			return 0, right, err
		}
	}
	return n.count(), right, t.write(id, n)
}

// remove takes the item at position i, which must be there, out of the tree.
func (t *vecTree) remove(i uint64) (item uint64, err error) {
	item, size, err := t.removeBelow(t.root, i)
	if err != nil {
		return 0, err
	}
	if size == 0 {
		err = t.tx.Delete(vecKey(vecNode, t.root))
		t.root = 0
		return item, err
	}
	return item, t.lower()
}

// lower takes roots with one child away.
func (t *vecTree) lower() error {
	for t.root != 0 {
		n, err := t.read(t.root)
		if err != nil {
			return err
		}
		if n.leaf || n.size() > 1 {
			return nil
		}
		if err := t.tx.Delete(vecKey(vecNode, t.root)); err != nil {
			return err
		}
		t.root = n.ids[0]
	}
	return nil
}

// removeBelow removes below a node and returns the node's size afterwards. At 0
// the node's row is still what it was, and the caller's to delete.
func (t *vecTree) removeBelow(id, i uint64) (item uint64, size int, err error) {
	n, err := t.read(id)
	if err != nil {
		return 0, 0, err
	}
	if n.leaf {
		item = n.ids[i]
		n.ids = slices.Delete(n.ids, int(i), int(i)+1)
	} else {
		c, within := n.child(i)
		var below int
		if item, below, err = t.removeBelow(n.ids[c], within); err != nil {
			return 0, 0, err
		}
		n.counts[c]--
		switch {
		case below == 0:
			if err := t.tx.Delete(vecKey(vecNode, n.ids[c])); err != nil {
				return 0, 0, err
			}
			n.ids, n.counts = slices.Delete(n.ids, c, c+1), slices.Delete(n.counts, c, c+1)
		case below < vecMinimum && n.size() > 1:
			if err := t.fill(n, max(c, 1)-1); err != nil {
				return 0, 0, err
			}
		}
	}
	if n.size() == 0 {
		return item, 0, nil
	}
	return item, n.size(), t.write(id, n)
}

// fill evens out the children c and c+1 of a node, or makes one of them.
func (t *vecTree) fill(n *vecNodeRow, c int) error {
	left, err := t.read(n.ids[c])
	if err != nil {
		return err
	}
	right, err := t.read(n.ids[c+1])
	if err != nil {
		return err
	}
	left.join(right)
	if left.size() <= vecFanout {
		if err := t.tx.Delete(vecKey(vecNode, n.ids[c+1])); err != nil {
			return err
		}
		n.counts[c] = left.count()
		n.ids, n.counts = slices.Delete(n.ids, c+1, c+2), slices.Delete(n.counts, c+1, c+2)
		return t.write(n.ids[c], left)
	}
	right = left.cut(left.size() / 2)
	n.counts[c], n.counts[c+1] = left.count(), right.count()
	return errors.Join(t.write(n.ids[c], left), t.write(n.ids[c+1], right))
}

// truncate cuts everything off from position n on, which is above 0 and inside.
func (t *vecTree) truncate(n uint64) error {
	for id := t.root; ; {
		node, err := t.read(id)
		if err != nil {
			return err
		}
		if node.leaf {
			for _, item := range node.ids[n:] {
				if err := t.tx.Delete(vecKey(vecItem, item)); err != nil {
					return err
				}
			}
			node.ids = node.ids[:n]
			if err := t.write(id, node); err != nil {
				return err
			}
			return t.lower()
		}
		// The child with the last element that stays is cut, those behind it go whole.
		c, within := node.child(n - 1)
		for _, child := range node.ids[c+1:] {
			if err := t.tx.Set(vecKey(vecFree, child), nil); err != nil {
				return err
			}
			t.free++
		}
		node.ids, node.counts = node.ids[:c+1], node.counts[:c+1]
		node.counts[c] = within + 1
		if err := t.write(id, node); err != nil {
			return err
		}
		id, n = node.ids[c], within+1
	}
}

// sweep takes one node apart that was cut off, if there is one.
func (t *vecTree) sweep() error {
	if t.free == 0 {
		return nil
	}
	key, ok, err := firstKey(t.tx, Range{From: []byte{vecFree}, To: []byte{vecFree + 1}})
	if err != nil {
		return err
	}
	if !ok || len(key) != 9 {
		return errVecRow
	}
	id := binary.BigEndian.Uint64(key[1:])
	n, err := t.read(id)
	if err != nil {
		return err
	}
	t.free--
	err = errors.Join(t.tx.Delete(vecKey(vecFree, id)), t.tx.Delete(vecKey(vecNode, id)))
	for _, below := range n.ids {
		if err != nil {
			return err
		}
		if n.leaf {
			err = t.tx.Delete(vecKey(vecItem, below))
			continue
		}
		t.free++
		err = t.tx.Set(vecKey(vecFree, below), nil)
	}
	return err
}

// items yields the items from position from up to to, excluded.
func (t *vecTree) items(from, to uint64, reverse bool) iter.Seq2[uint64, error] {
	return func(yield func(uint64, error) bool) {
		if from < to {
			t.walk(t.root, from, to, reverse, yield)
		}
	}
}

// walk yields the items below a node in a range of its positions; false: the
// consumer wants no more.
func (t *vecTree) walk(id, from, to uint64, reverse bool, yield func(uint64, error) bool) bool {
	n, err := t.read(id)
	if err != nil {
		yield(0, err)
		return false
	}
	size := uint64(n.size())
	starts := make([]uint64, size+1) // position of each part
	for i := range size {
		count := uint64(1)
		if !n.leaf {
			count = n.counts[i]
		}
		starts[i+1] = starts[i] + count
	}
	for k := range size {
		i := k
		if reverse {
			i = size - 1 - k
		}
		if starts[i+1] <= from || starts[i] >= to {
			continue
		}
		if n.leaf {
			if !yield(n.ids[i], nil) {
				return false
			}
			continue
		}
		within := max(from, starts[i]) - starts[i]
		if !t.walk(n.ids[i], within, min(to, starts[i+1])-starts[i], reverse, yield) {
			return false
		}
	}
	return true
}
