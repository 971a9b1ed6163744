package log

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"

	"github.com/mosaik-engine/mosaik/identity"
)

// A priority queue's view has two rows for each entry, and the number of entries
// in the count row:
//
//	0x01 | key                     -> priority | value
//	0x02 | priority, ordered | key -> nothing
//
// Here and below, key and priority are a uvarint size and the bytes, and a value
// is what is left; a priority is "ordered" as AppendOrdered writes it. Entries of
// equal priority are in the order of their keys. Commands:
//
//	insert   1 | capacity | key | priority | size, value
//	             -> entry before, entry evicted
//	extend   2 | capacity | count | (key | priority | size, value) ...
//	             -> present, number of new entries, number of evicted ones
//	remove   3 | key                         -> entry before
//	pop min  4                               -> entry
//	pop max  5                               -> entry
//	priority 6 | key | priority              -> absent | present, the priority before
//	value    7 | key | size, value           -> absent | present, the value before
//	swap     8 | key | before | after        -> present (taken) | absent, and what is there
//	range    9 | from | to                   -> present, number removed, 1 if more are left
//	clear   10                               -> how many entries there were
//
// capacity, count and numbers are uvarints; a capacity of 0 is none. In results
// an entry is 0, or 1 and key, priority and size, value. from and to are 0 or 1
// and a priority; before and after are as in swap.go.
const (
	queueInsert   = 1
	queueExtend   = 2
	queueRemove   = 3
	queuePopMin   = 4
	queuePopMax   = 5
	queuePriority = 6
	queueValue    = 7
	queueSwap     = 8
	queueRange    = 9
	queueClear    = 10

	queueByKey   = 1 // first byte of the row with priority and value
	queueByOrder = 2 // first byte of the row in the order of priorities
)

// MaxRangeRemoved is how many entries one RemoveRange removes at most.
const MaxRangeRemoved = 8192

// QueueDef defines a double-ended priority queue with unique keys: its name, the
// types of keys, priorities and values, and how they are encoded. It is a plain
// value, usually in a package variable that writers and readers share.
type QueueDef[K, P, V any] struct {
	Name       string      // see identity.ValidateName
	Keys       KeyCodec[K] // nil means DefaultKey
	Priorities KeyCodec[P] // ordered; nil means DefaultKey
	Values     Codec[V]    // nil means CBOR[V]()
	// Capacity, if not 0, is how many entries the queue holds: an insert into a full
	// one evicts the entry of the lowest priority, which may be the new one.
	Capacity uint64
}

// Key returns the key of the queue's log.
func (d QueueDef[K, P, V]) Key() identity.ID { return identity.NewID(d.Name) }

// Reader returns a reader of the queue as s holds it. It reads nothing yet; a
// queue that nobody has opened is empty. It fails on an invalid name with
// identity.ErrName and on a codec that does not keep the order of priorities with
// ErrCodec.
func (d QueueDef[K, P, V]) Reader(s Store) (*QueueReader[K, P, V], error) {
	if d.Keys == nil {
		d.Keys = DefaultKey[K]()
	}
	if d.Priorities == nil {
		d.Priorities = DefaultKey[P]()
	}
	if d.Values == nil {
		d.Values = CBOR[V]()
	}
	if err := errors.Join(checkKeys(d.Keys, Canonical), checkKeys(d.Priorities, Ordered)); err != nil {
		return nil, fmt.Errorf("queue %q: %w", d.Name, err)
	}
	// The capacity is agreed as the codecs are.
	c, err := newCollection(s, d.Name, queueMachine{}, d.Keys.Name(), d.Priorities.Name(), d.Values.Name(), fmt.Sprintf("capacity=%d", d.Capacity))
	if err != nil {
		return nil, fmt.Errorf("queue: %w", err)
	}
	return &QueueReader[K, P, V]{CollectionReader: c, def: d}, nil
}

// Open returns the queue for reading and writing. The first Open anywhere
// registers it; each later one compares and fails with ErrCodec if the
// definitions, the capacity included, differ.
func (d QueueDef[K, P, V]) Open(ctx context.Context, s Store) (*Queue[K, P, V], error) {
	r, err := d.Reader(s)
	if err != nil {
		return nil, err
	}
	if err := r.open(ctx); err != nil {
		return nil, err
	}
	return &Queue[K, P, V]{QueueReader: r}, nil
}

// QueueEntry is one entry of a priority queue.
type QueueEntry[K, P, V any] struct {
	Key      K // unique
	Priority P // decides the order, equal ones the key
	Value    V // shares no memory with the log
}

// QueueReader reads a priority queue. It is safe for concurrent use.
type QueueReader[K, P, V any] struct {
	*CollectionReader
	def QueueDef[K, P, V]
}

// View returns the queue as of one commit. It stays what it is.
func (r *QueueReader[K, P, V]) View(ctx context.Context, at Consistency) (*QueueView[K, P, V], error) {
	v, err := r.view(ctx, at)
	if err != nil {
		return nil, err
	}
	return &QueueView[K, P, V]{view: v, of: r}, nil
}

// QueueChange is what a commit did to one entry.
type QueueChange[K, P, V any] struct {
	Pointer         Pointer // at the commit
	Cleared         bool    // alone in its change: the queue was emptied
	Key             K
	Old, New        QueueEntry[K, P, V]
	Existed, Exists bool // whether there was an entry before and is one afterwards
}

// Watch yields the changes of all commits after the given one, in order, and with
// follow then waits for more until ctx ends. Commit 0 is before all. Who goes on after
// the commit of the last change misses nothing; a commit's changes come together,
// in the order of the keys.
func (r *QueueReader[K, P, V]) Watch(ctx context.Context, after uint64, follow bool) iter.Seq2[QueueChange[K, P, V], error] {
	return watch(ctx, r.CollectionReader, after, follow, queueByKey,
		func(p Pointer) QueueChange[K, P, V] { return QueueChange[K, P, V]{Pointer: p, Cleared: true} },
		func(p Pointer, row *Change) (c QueueChange[K, P, V], some bool, err error) {
			c = QueueChange[K, P, V]{Pointer: p, Existed: row.Existed, Exists: row.Exists}
			if c.Key, err = r.def.Keys.Decode(row.Key[1:]); err != nil {
				return c, true, err
			}
			if row.Existed {
				if c.Old, err = r.def.entry(row.Key[1:], row.Old); err != nil {
					return c, true, err
				}
			}
			if row.Exists {
				c.New, err = r.def.entry(row.Key[1:], row.New)
			}
			return c, true, err
		})
}

// entry decodes an entry from its key and its row's value.
func (d *QueueDef[K, P, V]) entry(key, row []byte) (e QueueEntry[K, P, V], err error) {
	priority, value, err := cutQueueRow(row)
	if err != nil {
		return e, err
	}
	return d.decode(key, priority, value)
}

func (d *QueueDef[K, P, V]) decode(key, priority, value []byte) (e QueueEntry[K, P, V], err error) {
	if e.Key, err = d.Keys.Decode(key); err != nil {
		return e, err
	}
	if e.Priority, err = d.Priorities.Decode(priority); err != nil {
		return e, err
	}
	e.Value, err = d.Values.Decode(value)
	return e, err
}

var errQueueRow = errors.New("mosaik: a row of a priority queue is malformed")

// cutQueueRow splits the value of an entry's row by key.
func cutQueueRow(row []byte) (priority, value []byte, err error) {
	in := wire{rest: row}
	if priority = in.bytes(); in.bad {
		return nil, nil, errQueueRow
	}
	return priority, in.rest, nil
}

// QueueView is a priority queue as of one commit.
type QueueView[K, P, V any] struct {
	view View
	of   *QueueReader[K, P, V]
}

// Commit returns the number of the commit that the view reflects.
func (q *QueueView[K, P, V]) Commit() uint64 { return q.view.Commit() }

// Get returns the entry of a key, and whether there is one.
func (q *QueueView[K, P, V]) Get(k K) (e QueueEntry[K, P, V], ok bool, err error) {
	key, err := encodeKey(queueByKey, q.of.def.Keys, k, MaxKey)
	if err != nil {
		return e, false, q.of.wrap(err)
	}
	row, ok, err := q.view.Get(key)
	if err == nil && ok {
		e, err = q.of.def.entry(key[1:], row.Value)
	}
	if err != nil {
		return e, false, q.of.wrap(err)
	}
	return e, ok, nil
}

// Priority returns the priority of a key, and whether there is an entry.
func (q *QueueView[K, P, V]) Priority(k K) (P, bool, error) {
	e, ok, err := q.Get(k)
	return e.Priority, ok, err
}

// Contains reports whether there is an entry with the key.
func (q *QueueView[K, P, V]) Contains(k K) (bool, error) {
	_, ok, err := q.Get(k)
	return ok, err
}

// Len returns the number of entries.
func (q *QueueView[K, P, V]) Len() (uint64, error) { return readCount(q.view) }

// Min returns the entry of the lowest priority, and whether there is one.
func (q *QueueView[K, P, V]) Min() (QueueEntry[K, P, V], bool, error) { return first(q.All()) }

// Max returns the entry of the highest priority, and whether there is one.
func (q *QueueView[K, P, V]) Max() (QueueEntry[K, P, V], bool, error) {
	return first(q.Range(Span[P]{Reverse: true}))
}

// first returns the first element of an iteration, and whether there is one. It
// must not be borrowed from the iteration, as rows are: see firstKey.
func first[T any](seq iter.Seq2[T, error]) (T, bool, error) {
	for v, err := range seq {
		return v, err == nil, err
	}
	var none T
	return none, false, nil
}

// All yields all entries from the lowest priority to the highest.
func (q *QueueView[K, P, V]) All() iter.Seq2[QueueEntry[K, P, V], error] { return q.Range(Span[P]{}) }

// Range yields the entries whose priorities lie in a span.
func (q *QueueView[K, P, V]) Range(s Span[P]) iter.Seq2[QueueEntry[K, P, V], error] {
	return func(yield func(QueueEntry[K, P, V], error) bool) {
		r, err := q.of.def.span(s)
		if err != nil {
			yield(QueueEntry[K, P, V]{}, q.of.wrap(err))
			return
		}
		for row, err := range q.view.Scan(r) {
			var e QueueEntry[K, P, V]
			if err == nil {
				e, err = q.at(row.Key)
			}
			if err != nil {
				yield(QueueEntry[K, P, V]{}, q.of.wrap(err))
				return
			}
			if !yield(e, nil) {
				return
			}
		}
	}
}

// at returns the entry that a row in the order of priorities is about.
func (q *QueueView[K, P, V]) at(orderKey []byte) (e QueueEntry[K, P, V], err error) {
	_, key, ok := CutOrdered(orderKey[1:])
	if !ok {
		return e, errQueueRow
	}
	row, ok, err := q.view.Get(append([]byte{queueByKey}, key...))
	if err != nil {
		return e, err
	}
	if !ok {
		return e, errQueueRow
	}
	return q.of.def.entry(key, row.Value)
}

// span returns the rows of a span of priorities.
func (d *QueueDef[K, P, V]) span(s Span[P]) (r Range, err error) {
	r = Range{From: []byte{queueByOrder}, To: []byte{queueByOrder + 1}, Reverse: s.Reverse}
	bound := func(p P) ([]byte, error) {
		encoded, err := d.encodePriority(p)
		return AppendOrdered([]byte{queueByOrder}, encoded), err
	}
	if s.From != nil {
		if r.From, err = bound(*s.From); err != nil {
			return r, err
		}
	}
	if s.To != nil {
		r.To, err = bound(*s.To)
	}
	return r, err
}

func (d *QueueDef[K, P, V]) encodePriority(p P) ([]byte, error) {
	b, err := encodeKey(queueByOrder, d.Priorities, p, MaxPriority)
	if err != nil {
		return nil, fmt.Errorf("priority: %w", err)
	}
	return b[1:], nil
}

// Queue is a QueueReader that can also write. It is safe for concurrent use. Each
// write is one command, atomic, and returns the pointer at it. What an error
// leaves open is as Writer.Append says; ErrCodec and ErrOversize mean that
// nothing was written.
type Queue[K, P, V any] struct{ *QueueReader[K, P, V] }

// Insert sets the entry of a key. It returns what was there, and what a full
// queue has evicted for it; nil stands for nothing.
func (q *Queue[K, P, V]) Insert(ctx context.Context, k K, priority P, v V) (p Pointer, old, evicted *QueueEntry[K, P, V], err error) {
	command, err := q.def.appendEntry(binary.AppendUvarint([]byte{queueInsert}, q.def.Capacity), k, priority, v)
	if err != nil {
		return p, nil, nil, q.wrap(err)
	}
	p, result, err := q.submit(ctx, command)
	if err != nil {
		return p, nil, nil, err
	}
	in := wire{rest: result}
	if old, err = q.def.result(&in); err == nil {
		evicted, err = q.def.result(&in)
	}
	if err == nil && !in.end() {
		err = ErrCommand
	}
	if err != nil {
		err = q.wrap(err)
	}
	return p, old, evicted, err
}

// result decodes an entry of a result; nil: none.
func (d *QueueDef[K, P, V]) result(in *wire) (*QueueEntry[K, P, V], error) {
	if !in.flag() {
		if in.bad {
			return nil, ErrCommand
		}
		return nil, nil
	}
	key, priority, value := in.bytes(), in.bytes(), in.bytes()
	if in.bad {
		return nil, ErrCommand
	}
	e, err := d.decode(key, priority, value)
	return &e, err
}

func (d *QueueDef[K, P, V]) appendKey(command []byte, k K) ([]byte, error) {
	key, err := encodeKey(queueByKey, d.Keys, k, MaxKey)
	if err != nil {
		return nil, err
	}
	return appendBytes(command, key[1:]), nil
}

func (d *QueueDef[K, P, V]) appendPriority(command []byte, p P) ([]byte, error) {
	priority, err := d.encodePriority(p)
	return appendBytes(command, priority), err
}

func (d *QueueDef[K, P, V]) appendEntry(command []byte, k K, p P, v V) ([]byte, error) {
	command, err := d.appendKey(command, k)
	if err != nil {
		return nil, err
	}
	if command, err = d.appendPriority(command, p); err != nil {
		return nil, err
	}
	value, err := encodeValue(d.Values, v)
	return appendBytes(command, value), err
}

// Extend sets the entries in one command and returns how many keys are new and
// how many entries a full queue has evicted. Together they must fit into a record.
func (q *Queue[K, P, V]) Extend(ctx context.Context, entries iter.Seq[QueueEntry[K, P, V]]) (p Pointer, added, evicted uint64, err error) {
	var list []byte
	count := uint64(0)
	for e := range entries {
		if list, err = q.def.appendEntry(list, e.Key, e.Priority, e.Value); err != nil {
			return p, 0, 0, q.wrap(err)
		}
		if count++; len(list) > MaxPayload {
			return p, 0, 0, q.wrap(tooMany(count))
		}
	}
	command := binary.AppendUvarint(binary.AppendUvarint([]byte{queueExtend}, q.def.Capacity), count)
	return q.two(ctx, append(command, list...))
}

// two submits a command whose result is two numbers.
func (q *Queue[K, P, V]) two(ctx context.Context, command []byte) (p Pointer, a, b uint64, err error) {
	p, result, err := q.submit(ctx, command)
	if err != nil {
		return p, 0, 0, err
	}
	in := wire{rest: result[1:]}
	a, b = in.uvarint(), in.uvarint()
	if !in.end() {
		return p, 0, 0, q.wrap(ErrCommand)
	}
	return p, a, b, nil
}

// one submits a command whose result is an entry or none.
func (q *Queue[K, P, V]) one(ctx context.Context, command []byte, err error) (Pointer, *QueueEntry[K, P, V], error) {
	if err != nil {
		return Pointer{}, nil, q.wrap(err)
	}
	p, result, err := q.submit(ctx, command)
	if err != nil {
		return p, nil, err
	}
	in := wire{rest: result}
	e, err := q.def.result(&in)
	if err == nil && !in.end() {
		err = ErrCommand
	}
	if err != nil {
		return p, nil, q.wrap(err)
	}
	return p, e, nil
}

// Remove removes the entry of a key and returns it; nil: there was none.
func (q *Queue[K, P, V]) Remove(ctx context.Context, k K) (Pointer, *QueueEntry[K, P, V], error) {
	command, err := q.def.appendKey([]byte{queueRemove}, k)
	return q.one(ctx, command, err)
}

// PopMin removes the entry of the lowest priority and returns it; nil: the queue
// is empty.
func (q *Queue[K, P, V]) PopMin(ctx context.Context) (Pointer, *QueueEntry[K, P, V], error) {
	return q.one(ctx, []byte{queuePopMin}, nil)
}

// PopMax removes the entry of the highest priority and returns it; nil: the queue
// is empty.
func (q *Queue[K, P, V]) PopMax(ctx context.Context) (Pointer, *QueueEntry[K, P, V], error) {
	return q.one(ctx, []byte{queuePopMax}, nil)
}

// UpdatePriority gives the entry of a key another priority and returns the one
// before, and whether there is such an entry.
func (q *Queue[K, P, V]) UpdatePriority(ctx context.Context, k K, priority P) (p Pointer, old P, existed bool, err error) {
	command, err := q.def.appendKey([]byte{queuePriority}, k)
	if err == nil {
		command, err = q.def.appendPriority(command, priority)
	}
	if err != nil {
		return p, old, false, q.wrap(err)
	}
	return submitOptional[P](ctx, q.CollectionReader, q.def.Priorities, command)
}

// UpdateValue gives the entry of a key another value and returns the one before,
// and whether there is such an entry.
func (q *Queue[K, P, V]) UpdateValue(ctx context.Context, k K, v V) (p Pointer, old V, existed bool, err error) {
	command, err := q.def.appendKey([]byte{queueValue}, k)
	var value []byte
	if err == nil {
		value, err = encodeValue(q.def.Values, v)
	}
	if err != nil {
		return p, old, false, q.wrap(err)
	}
	return submitOptional(ctx, q.CollectionReader, q.def.Values, appendBytes(command, value))
}

// CompareExchange gives the entry of a key the value after if it has before; nil
// for after removes it. It returns whether that took place, and if not the value
// that is there, nil for no entry. Values are equal if their encodings are.
func (q *Queue[K, P, V]) CompareExchange(ctx context.Context, k K, before V, after *V) (p Pointer, swapped bool, current *V, err error) {
	command, err := q.def.appendKey([]byte{queueSwap}, k)
	if err == nil {
		command, err = appendSwap(command, q.def.Values, &before, after)
	}
	if err != nil {
		return p, false, nil, q.wrap(err)
	}
	return submitSwap(ctx, q.CollectionReader, q.def.Values, command)
}

// RemoveRange removes the entries whose priorities lie in the span, at most
// MaxRangeRemoved of them, from the lowest up. It returns how many it has removed
// and whether there are more; Reverse means nothing. The cost is that of the
// entries it removes.
func (q *Queue[K, P, V]) RemoveRange(ctx context.Context, s Span[P]) (p Pointer, removed uint64, more bool, err error) {
	command := []byte{queueRange}
	for _, bound := range []*P{s.From, s.To} {
		if bound == nil {
			command = append(command, 0)
			continue
		}
		if command, err = q.def.appendPriority(append(command, 1), *bound); err != nil {
			return p, 0, false, q.wrap(err)
		}
	}
	p, removed, left, err := q.two(ctx, command)
	return p, removed, left != 0, err
}

// Clear removes all entries, at the same cost however many there are, and returns
// their number.
func (q *Queue[K, P, V]) Clear(ctx context.Context) (p Pointer, removed uint64, err error) {
	return q.count(ctx, []byte{queueClear})
}

// queueMachine folds priority queues.
type queueMachine struct{}

func (queueMachine) Signature() string { return "mosaik.queue.v1" }

// queueItem is an entry as its encoded parts.
type queueItem struct{ key, priority, value []byte }

// item reads an entry of a command.
func (w *wire) item() queueItem { return queueItem{w.key(), w.priority(), w.value()} }

// key reads an encoded key.
func (w *wire) key() []byte {
	key := w.bytes()
	if len(key) > MaxKey {
		w.bad = true
	}
	return key
}

// priority reads an encoded priority.
func (w *wire) priority() []byte {
	priority := w.bytes()
	if len(priority) > MaxPriority {
		w.bad = true
	}
	return priority
}

func (queueMachine) Apply(tx *Tx, c Command) ([]byte, error) {
	if len(c.Payload) == 0 {
		return nil, nil
	}
	in := wire{rest: c.Payload[1:]}
	switch c.Payload[0] {
	case queueInsert:
		if capacity, item := in.uvarint(), in.item(); in.end() {
			return insertItem(tx, item, capacity)
		}
	case queueExtend:
		return extendQueue(tx, in)
	case queueRemove:
		if key := in.key(); in.end() {
			item, ok, err := getItem(tx, key)
			return dropped(tx, item, ok, err)
		}
	case queuePopMin, queuePopMax:
		if in.end() {
			item, ok, err := endItem(tx, c.Payload[0] == queuePopMax)
			return dropped(tx, item, ok, err)
		}
	case queuePriority, queueValue:
		return updateItem(tx, in, c.Payload[0] == queuePriority)
	case queueSwap:
		if key, s := in.key(), in.swap(); in.end() && s.existing {
			return swapItem(tx, key, s)
		}
	case queueRange:
		return removeRange(tx, in)
	case queueClear:
		if in.end() {
			return clearCounted(tx)
		}
	}
	return nil, nil
}

func itemRow(key []byte) []byte { return append([]byte{queueByKey}, key...) }

func orderRow(i *queueItem) []byte {
	return append(AppendOrdered([]byte{queueByOrder}, i.priority), i.key...)
}

// getItem reads the entry of a key.
func getItem(tx *Tx, key []byte) (i queueItem, ok bool, err error) {
	row, ok, err := tx.Get(itemRow(key))
	if err != nil || !ok {
		return i, false, err
	}
	i.key = key
	i.priority, i.value, err = cutQueueRow(row.Value)
	return i, true, err
}

// queueEnds is what the queue's machine knows of the order of the rows in a Tx:
// there are none below low and none from high on. Without it each of many pops in
// one commit would walk over the rows that those before it have removed.
type queueEnds struct{ low, high []byte }

// endItem reads the entry at one end of the queue.
func endItem(tx *Tx, highest bool) (queueItem, bool, error) {
	r := Range{From: []byte{queueByOrder}, To: []byte{queueByOrder + 1}, Reverse: highest}
	if tx.ends.low != nil {
		r.From = tx.ends.low
	}
	if tx.ends.high != nil {
		r.To = tx.ends.high
	}
	end, ok, err := firstKey(tx, r)
	if err != nil || !ok {
		return queueItem{}, false, err
	}
	if highest {
		tx.ends.high = append(bytes.Clone(end), 0) // the next key there can be
	} else {
		tx.ends.low = end
	}
	_, key, ok := CutOrdered(end[1:])
	if !ok {
		return queueItem{}, false, errQueueRow
	}
	return getItem(tx, key)
}

// putItem writes an entry that is not there.
func putItem(tx *Tx, i *queueItem) error {
	row := append(appendBytes(make([]byte, 0, len(i.priority)+len(i.value)+2), i.priority), i.value...)
	if err := tx.Set(itemRow(i.key), row); err != nil {
		return err
	}
	order := orderRow(i)
	if tx.ends.low != nil && bytes.Compare(order, tx.ends.low) < 0 {
		tx.ends.low = order
	}
	if tx.ends.high != nil && bytes.Compare(order, tx.ends.high) >= 0 {
		tx.ends.high = nil
	}
	return tx.Set(order, nil)
}

// dropItem removes an entry that is there.
func dropItem(tx *Tx, i *queueItem) error {
	if err := tx.Delete(itemRow(i.key)); err != nil {
		return err
	}
	return tx.Delete(orderRow(i))
}

// appendItem appends an entry, or its absence, to a result.
func appendItem(dst []byte, i *queueItem, ok bool) []byte {
	if !ok {
		return append(dst, resultAbsent)
	}
	return appendBytes(appendBytes(appendBytes(append(dst, resultPresent), i.key), i.priority), i.value)
}

// dropped removes an entry, if it is there, and is the result that tells.
func dropped(tx *Tx, i queueItem, ok bool, err error) ([]byte, error) {
	if err != nil || !ok {
		return absent(), err
	}
	if err := dropItem(tx, &i); err != nil {
		return nil, err
	}
	return appendItem(nil, &i, true), addCount(tx, -1)
}

// setItem writes an entry in place of what was under its key, and evicts another
// if the queue has too many.
func setItem(tx *Tx, i *queueItem, capacity uint64) (old queueItem, existed bool, evicted queueItem, full bool, err error) {
	if old, existed, err = getItem(tx, i.key); err != nil {
		return
	}
	if existed {
		if err = dropItem(tx, &old); err == nil {
			err = putItem(tx, i)
		}
		return
	}
	if err = putItem(tx, i); err != nil {
		return
	}
	if err = addCount(tx, 1); err != nil || capacity == 0 {
		return
	}
	n, err := readCount(tx)
	if err != nil || n <= capacity {
		return
	}
	if evicted, full, err = endItem(tx, false); err != nil || !full {
		return
	}
	if err = dropItem(tx, &evicted); err == nil {
		err = addCount(tx, -1)
	}
	return
}

func insertItem(tx *Tx, i queueItem, capacity uint64) ([]byte, error) {
	old, existed, evicted, full, err := setItem(tx, &i, capacity)
	if err != nil {
		return nil, err
	}
	return appendItem(appendItem(nil, &old, existed), &evicted, full), nil
}

// extendQueue writes entries, all or none of which are well-formed.
func extendQueue(tx *Tx, in wire) ([]byte, error) {
	capacity, count := in.uvarint(), in.count(MaxPayload)
	items := in
	for range count {
		in.item()
	}
	if !in.end() {
		return nil, nil
	}
	var added, evictions uint64
	for range count {
		i := items.item()
		_, existed, _, full, err := setItem(tx, &i, capacity)
		if err != nil {
			return nil, err
		}
		if !existed {
			added++
		}
		if full {
			evictions++
		}
	}
	return binary.AppendUvarint(number(added), evictions), nil
}

// updateItem changes the priority or the value of an entry.
func updateItem(tx *Tx, in wire, priority bool) ([]byte, error) {
	key := in.key()
	var next queueItem
	if priority {
		next.priority = in.priority()
	} else {
		next.value = in.value()
	}
	if !in.end() {
		return nil, nil
	}
	old, ok, err := getItem(tx, key)
	if err != nil || !ok {
		return absent(), err
	}
	if err := dropItem(tx, &old); err != nil {
		return nil, err
	}
	next.key = key
	if priority {
		next.value = old.value
		return present(old.priority), putItem(tx, &next)
	}
	next.priority = old.priority
	return present(old.value), putItem(tx, &next)
}

// swapItem compares and exchanges the value of an entry.
func swapItem(tx *Tx, key []byte, s swap) ([]byte, error) {
	i, ok, err := getItem(tx, key)
	switch {
	case err != nil:
		return nil, err
	case !ok:
		return []byte{resultAbsent, resultAbsent}, nil
	case Sum(i.value) != s.digest:
		return append(absent(), present(i.value)...), nil
	}
	if err := dropItem(tx, &i); err != nil {
		return nil, err
	}
	if !s.exists {
		return taken(true), addCount(tx, -1)
	}
	i.value = s.value
	return taken(true), putItem(tx, &i)
}

// removeRange removes entries by priority.
func removeRange(tx *Tx, in wire) ([]byte, error) {
	r := Range{From: []byte{queueByOrder}, To: []byte{queueByOrder + 1}}
	if in.flag() {
		r.From = AppendOrdered([]byte{queueByOrder}, in.priority())
	}
	if in.flag() {
		r.To = AppendOrdered([]byte{queueByOrder}, in.priority())
	}
	if !in.end() {
		return nil, nil
	}
	var keys [][]byte
	more := uint64(0)
	for row, err := range tx.Scan(r) {
		if err != nil {
			return nil, err
		}
		if len(keys) == MaxRangeRemoved {
			more = 1
			break
		}
		_, key, ok := CutOrdered(row.Key[1:])
		if !ok {
			return nil, errQueueRow
		}
		keys = append(keys, append([]byte(nil), key...))
	}
	for _, key := range keys {
		i, ok, err := getItem(tx, key)
		if err == nil && ok {
			err = dropItem(tx, &i)
		}
		if err != nil {
			return nil, err
		}
	}
	return binary.AppendUvarint(number(uint64(len(keys))), more), addCount(tx, -len(keys))
}

// QueueTxn is a priority queue inside a transaction.
type QueueTxn[K, P, V any] struct {
	part txnPart
	def  QueueDef[K, P, V]
}

// In gives the queue inside a transaction, in whose group it is.
func (d QueueDef[K, P, V]) In(t *Txn) *QueueTxn[K, P, V] {
	r, err := d.Reader(t.group)
	if err != nil {
		return &QueueTxn[K, P, V]{part: t.part(nil, err), def: d}
	}
	return &QueueTxn[K, P, V]{part: t.part(r.CollectionReader, nil), def: r.def}
}

// ExpectAbsent demands that there is no entry with the key.
func (q *QueueTxn[K, P, V]) ExpectAbsent(k K) { q.expect(k, Condition{Kind: RowAbsent}) }

// ExpectPresent demands that there is one.
func (q *QueueTxn[K, P, V]) ExpectPresent(k K) { q.expect(k, Condition{Kind: RowPresent}) }

// ExpectVersion demands that commit version was the last to change the entry.
func (q *QueueTxn[K, P, V]) ExpectVersion(k K, version uint64) {
	q.expect(k, Condition{Kind: RowVersion, Commit: version})
}

func (q *QueueTxn[K, P, V]) expect(k K, c Condition) {
	if !q.part.failed() {
		var err error
		c.Row, err = encodeKey(queueByKey, q.def.Keys, k, MaxKey)
		q.part.expect(c, err)
	}
}

// Insert sets the entry of a key; its result is what was there.
func (q *QueueTxn[K, P, V]) Insert(k K, priority P, v V) *Pending[*QueueEntry[K, P, V]] {
	if q.part.failed() {
		return new(Pending[*QueueEntry[K, P, V]])
	}
	command, err := q.def.appendEntry(binary.AppendUvarint([]byte{queueInsert}, q.def.Capacity), k, priority, v)
	return q.entry(command, err)
}

// Remove removes the entry of a key; its result is what was there.
func (q *QueueTxn[K, P, V]) Remove(k K) *Pending[*QueueEntry[K, P, V]] {
	if q.part.failed() {
		return new(Pending[*QueueEntry[K, P, V]])
	}
	command, err := q.def.appendKey([]byte{queueRemove}, k)
	return q.entry(command, err)
}

// PopMin removes the entry of the lowest priority; its result is the entry.
func (q *QueueTxn[K, P, V]) PopMin() *Pending[*QueueEntry[K, P, V]] {
	return q.entry([]byte{queuePopMin}, nil)
}

// PopMax removes the entry of the highest priority; its result is the entry.
func (q *QueueTxn[K, P, V]) PopMax() *Pending[*QueueEntry[K, P, V]] {
	return q.entry([]byte{queuePopMax}, nil)
}

// entry adds a command whose result begins with an entry or none.
func (q *QueueTxn[K, P, V]) entry(command []byte, err error) *Pending[*QueueEntry[K, P, V]] {
	pending := new(Pending[*QueueEntry[K, P, V]])
	q.part.do(command, err, func(result []byte) (err error) {
		in := wire{rest: result}
		pending.value, err = q.def.result(&in)
		pending.done = err == nil
		return err
	})
	return pending
}
