package log

import (
	"context"
	"encoding/binary"
	"fmt"
	"iter"

	"github.com/mosaik-engine/mosaik/identity"
)

// A map's view has one row for each entry, under 0x01 and the encoded key, and
// the number of entries in the count row. Commands:
//
//	insert  1 | key | value                -> absent | present, the value before
//	extend  2 | count | (key | value) ...  -> how many keys are new
//	remove  3 | key                        -> absent | present, the value before
//	clear   4                              -> how many entries there were
//	swap    5 | key | before | after       -> present (taken) | absent, and what is there
//
// key and value are a uvarint size and the bytes; before is 0 for absent or 1
// and the BLAKE3 digest of the value; after is 0 or 1 and a value.
const (
	mapInsert = 1
	mapExtend = 2
	mapRemove = 3
	mapClear  = 4
	mapSwap   = 5

	mapEntry = 1 // first byte of an entry's row
)

// MapDef defines a map: its name, the types of its keys and values and how they
// are encoded. It is a plain value, usually in a package variable that writers
// and readers share.
type MapDef[K, V any] struct {
	Name   string      // see identity.ValidateName
	Keys   KeyCodec[K] // ordered; nil means DefaultKey
	Values Codec[V]    // nil means CBOR[V]()
}

// withDefaults fills in the codecs.
func (d MapDef[K, V]) withDefaults() (MapDef[K, V], error) {
	if d.Keys == nil {
		d.Keys = DefaultKey[K]()
	}
	if d.Values == nil {
		d.Values = CBOR[V]()
	}
	return d, checkKeys(d.Keys, Ordered)
}

// Key returns the key of the map's log.
func (d MapDef[K, V]) Key() identity.ID { return identity.NewID(d.Name) }

// Reader returns a reader of the map as s holds it. It reads nothing yet; a map
// that nobody has opened is empty. It fails on an invalid name with
// identity.ErrName and on a codec that does not keep the order of keys with
// ErrCodec.
func (d MapDef[K, V]) Reader(s Store) (*MapReader[K, V], error) {
	d, err := d.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("map %q: %w", d.Name, err)
	}
	c, err := newCollection(s, d.Name, mapMachine{}, d.Keys.Name(), d.Values.Name())
	if err != nil {
		return nil, fmt.Errorf("map: %w", err)
	}
	return &MapReader[K, V]{CollectionReader: c, def: d}, nil
}

// Open returns the map for reading and writing. The first Open anywhere
// registers it; each later one compares and fails with ErrCodec if the
// definitions differ.
func (d MapDef[K, V]) Open(ctx context.Context, s Store) (*Map[K, V], error) {
	r, err := d.Reader(s)
	if err != nil {
		return nil, err
	}
	if err := r.open(ctx); err != nil {
		return nil, err
	}
	return &Map[K, V]{MapReader: r}, nil
}

// Entry is one entry of a map.
type Entry[K, V any] struct {
	Key     K
	Value   V
	Version uint64 // number of the commit that wrote it
}

// MapReader reads a map. It is safe for concurrent use.
type MapReader[K, V any] struct {
	*CollectionReader
	def MapDef[K, V]
}

// Get returns the value of a key and whether there is one. The read is
// linearizable.
func (r *MapReader[K, V]) Get(ctx context.Context, k K) (V, bool, error) {
	return r.get(ctx, k, Linearizable())
}

// GetStale is Get without asking another node: it reflects what this one has,
// and View(ctx, Stale()) tells which commit that is.
func (r *MapReader[K, V]) GetStale(ctx context.Context, k K) (V, bool, error) {
	return r.get(ctx, k, Stale())
}

func (r *MapReader[K, V]) get(ctx context.Context, k K, at Consistency) (v V, ok bool, err error) {
	view, err := r.View(ctx, at)
	if err != nil {
		return v, false, err
	}
	return view.Get(k)
}

// View returns the map as of one commit. It stays what it is.
func (r *MapReader[K, V]) View(ctx context.Context, at Consistency) (*MapView[K, V], error) {
	v, err := r.view(ctx, at)
	if err != nil {
		return nil, err
	}
	return &MapView[K, V]{view: v, of: r}, nil
}

// MapChange is what a commit did to one entry.
type MapChange[K, V any] struct {
	Pointer Pointer // at the commit
	// Cleared, alone in its change, says that the map was emptied.
	Cleared         bool
	Key             K
	Old, New        V
	Existed, Exists bool // whether there was an entry before and is one afterwards
}

// Watch yields the changes of all commits after the given one, in order, and with
// follow then waits for more until ctx ends. Commit 0 is before all. Who goes on after
// the commit of the last change misses nothing; a commit's changes come together.
func (r *MapReader[K, V]) Watch(ctx context.Context, after uint64, follow bool) iter.Seq2[MapChange[K, V], error] {
	return watch(ctx, r.CollectionReader, after, follow, mapEntry,
		func(p Pointer) MapChange[K, V] { return MapChange[K, V]{Pointer: p, Cleared: true} },
		func(p Pointer, row *Change) (MapChange[K, V], bool, error) {
			c := MapChange[K, V]{Pointer: p, Existed: row.Existed, Exists: row.Exists}
			var err error
			if c.Key, err = r.def.Keys.Decode(row.Key[1:]); err == nil {
				err = decodeChange(r.def.Values, row, &c.Old, &c.New)
			}
			return c, true, err
		})
}

// MapView is a map as of one commit.
type MapView[K, V any] struct {
	view View
	of   *MapReader[K, V]
}

// Commit returns the number of the commit that the view reflects.
func (m *MapView[K, V]) Commit() uint64 { return m.view.Commit() }

// Entry returns the entry of a key, and whether there is one.
func (m *MapView[K, V]) Entry(k K) (e Entry[K, V], ok bool, err error) {
	key, err := encodeKey(mapEntry, m.of.def.Keys, k, MaxKey)
	if err != nil {
		return e, false, m.of.wrap(err)
	}
	row, ok, err := m.view.Get(key)
	if err == nil && ok {
		e, err = m.entry(row)
	}
	if err != nil {
		return Entry[K, V]{}, false, m.of.wrap(err)
	}
	return e, ok, nil
}

func (m *MapView[K, V]) entry(row Row) (e Entry[K, V], err error) {
	e.Version = row.Commit
	if e.Key, err = m.of.def.Keys.Decode(row.Key[1:]); err == nil {
		e.Value, err = m.of.def.Values.Decode(row.Value)
	}
	return e, err
}

// Get returns the value of a key, and whether there is one.
func (m *MapView[K, V]) Get(k K) (V, bool, error) {
	e, ok, err := m.Entry(k)
	return e.Value, ok, err
}

// Contains reports whether there is an entry with the key.
func (m *MapView[K, V]) Contains(k K) (bool, error) {
	key, err := encodeKey(mapEntry, m.of.def.Keys, k, MaxKey)
	if err != nil {
		return false, m.of.wrap(err)
	}
	_, ok, err := m.view.Get(key)
	return ok, err
}

// Len returns the number of entries.
func (m *MapView[K, V]) Len() (uint64, error) { return readCount(m.view) }

// Span selects entries by their keys: from From, included, to To, excluded; nil
// is no bound. Entries come in the order of their keys, or with Reverse against
// it.
type Span[K any] struct {
	From, To *K
	Reverse  bool
}

// All yields all entries in the order of their keys.
func (m *MapView[K, V]) All() iter.Seq2[Entry[K, V], error] { return m.Range(Span[K]{}) }

// Range yields the entries of a span.
func (m *MapView[K, V]) Range(s Span[K]) iter.Seq2[Entry[K, V], error] {
	r, err := encodeSpan(mapEntry, m.of.def.Keys, s, MaxKey)
	return m.scan(r, err)
}

// Prefix yields the entries whose encoded keys begin with that of k, which for
// strings and bytes is what one expects.
func (m *MapView[K, V]) Prefix(k K) iter.Seq2[Entry[K, V], error] {
	from, err := encodeKey(mapEntry, m.of.def.Keys, k, MaxKey)
	return m.scan(Range{From: from, To: prefixEnd(from)}, err)
}

func (m *MapView[K, V]) scan(r Range, err error) iter.Seq2[Entry[K, V], error] {
	return func(yield func(Entry[K, V], error) bool) {
		if err != nil {
			yield(Entry[K, V]{}, m.of.wrap(err))
			return
		}
		for row, err := range m.view.Scan(r) {
			var e Entry[K, V]
			if err == nil {
				e, err = m.entry(row)
			}
			if err != nil {
				yield(Entry[K, V]{}, m.of.wrap(err))
				return
			}
			if !yield(e, nil) {
				return
			}
		}
	}
}

// encodeSpan returns the rows of a span, whose keys begin with prefix.
func encodeSpan[K any](prefix byte, codec KeyCodec[K], s Span[K], limit int) (r Range, err error) {
	r = Range{From: []byte{prefix}, To: []byte{prefix + 1}, Reverse: s.Reverse}
	if s.From != nil {
		if r.From, err = encodeKey(prefix, codec, *s.From, limit); err != nil {
			return r, err
		}
	}
	if s.To != nil {
		r.To, err = encodeKey(prefix, codec, *s.To, limit)
	}
	return r, err
}

// prefixEnd returns the first key behind all that begin with prefix.
func prefixEnd(prefix []byte) []byte {
	end := append([]byte{}, prefix...)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil
}

// Map is a MapReader that can also write. It is safe for concurrent use. Each
// write is one command, atomic, and returns the pointer at it. What an error
// leaves open is as Writer.Append says; ErrCodec and ErrOversize mean that
// nothing was written.
type Map[K, V any] struct{ *MapReader[K, V] }

// Insert sets the value of a key and returns what was there.
func (m *Map[K, V]) Insert(ctx context.Context, k K, v V) (p Pointer, old V, existed bool, err error) {
	command, err := m.def.insert(k, v)
	if err != nil {
		return p, old, false, m.wrap(err)
	}
	return submitOptional(ctx, m.CollectionReader, m.def.Values, command)
}

func (d *MapDef[K, V]) insert(k K, v V) ([]byte, error) {
	return d.appendPair([]byte{mapInsert}, k, v)
}

// appendPair appends a key and a value to a command.
func (d *MapDef[K, V]) appendPair(command []byte, k K, v V) ([]byte, error) {
	command, err := d.appendKey(command, k)
	if err != nil {
		return nil, err
	}
	value, err := encodeValue(d.Values, v)
	return appendBytes(command, value), err
}

func (d *MapDef[K, V]) appendKey(command []byte, k K) ([]byte, error) {
	key, err := encodeKey(mapEntry, d.Keys, k, MaxKey)
	if err != nil {
		return nil, err
	}
	return appendBytes(command, key[1:]), nil
}

// Extend sets the values of all entries, of which a later one counts, in one
// command, and returns how many keys are new. Together they must fit into a
// record.
func (m *Map[K, V]) Extend(ctx context.Context, entries iter.Seq2[K, V]) (p Pointer, added uint64, err error) {
	var pairs []byte
	count := uint64(0)
	for k, v := range entries {
		if pairs, err = m.def.appendPair(pairs, k, v); err != nil {
			return p, 0, m.wrap(err)
		}
		if count++; len(pairs) > MaxPayload {
			return p, 0, m.wrap(tooMany(count))
		}
	}
	return m.count(ctx, append(binary.AppendUvarint([]byte{mapExtend}, count), pairs...))
}

// Remove removes the entry of a key and returns what was there.
func (m *Map[K, V]) Remove(ctx context.Context, k K) (p Pointer, old V, existed bool, err error) {
	command, err := m.def.appendKey([]byte{mapRemove}, k)
	if err != nil {
		return p, old, false, m.wrap(err)
	}
	return submitOptional(ctx, m.CollectionReader, m.def.Values, command)
}

// Clear removes all entries, at the same cost however many there are, and
// returns their number.
func (m *Map[K, V]) Clear(ctx context.Context) (p Pointer, removed uint64, err error) {
	return m.count(ctx, []byte{mapClear})
}

// CompareExchange sets the entry of a key to after if it is before; nil stands
// for no entry, on both sides. It returns whether that took place, and if not
// what is there instead, nil for nothing. Values are equal if their encodings
// are.
func (m *Map[K, V]) CompareExchange(ctx context.Context, k K, before, after *V) (p Pointer, swapped bool, current *V, err error) {
	command, err := m.def.swap(k, before, after)
	if err != nil {
		return p, false, nil, m.wrap(err)
	}
	return submitSwap(ctx, m.CollectionReader, m.def.Values, command)
}

func (d *MapDef[K, V]) swap(k K, before, after *V) ([]byte, error) {
	command, err := d.appendKey([]byte{mapSwap}, k)
	if err != nil {
		return nil, err
	}
	return appendSwap(command, d.Values, before, after)
}

// mapMachine folds maps.
type mapMachine struct{}

func (mapMachine) Signature() string { return "mosaik.map.v1" }

func (mapMachine) Apply(tx *Tx, c Command) ([]byte, error) {
	if len(c.Payload) == 0 {
		return nil, nil
	}
	in := wire{rest: c.Payload[1:]}
	switch c.Payload[0] {
	case mapInsert:
		if key, value := in.rowKey(mapEntry), in.value(); in.end() {
			return setEntry(tx, key, value)
		}
	case mapExtend:
		return extendMap(tx, in)
	case mapRemove:
		if key := in.rowKey(mapEntry); in.end() {
			return removeEntry(tx, key)
		}
	case mapClear:
		if in.end() {
			return clearCounted(tx)
		}
	case mapSwap:
		if key, s := in.rowKey(mapEntry), in.swap(); in.end() {
			return swapRow(tx, key, s, true)
		}
	}
	return nil, nil
}

// appendRows implements rowNamer.
func (mapMachine) appendRows(keys [][]byte, command []byte) [][]byte {
	return appendRowsOf(keys, command, mapInsert, mapExtend, mapEntry, true)
}

// appendRowsOf appends the keys of the rows that a command sets which inserts one element
// or extends by several. The rows' keys begin with prefix; valued elements have a value
// after their key.
func appendRowsOf(keys [][]byte, command []byte, insert, extend, prefix byte, valued bool) [][]byte {
	if len(command) == 0 {
		return keys
	}
	in, count := wire{rest: command[1:]}, 1
	switch command[0] {
	case insert:
	case extend:
		count = in.count(MaxPayload)
	default:
		return keys
	}
	for range count {
		key := in.rowKey(prefix)
		if valued {
			in.value()
		}
		if in.bad {
			break
		}
		keys = append(keys, key)
	}
	return keys
}

// rowKey reads an encoded key and returns that of its row, which has prefix in
// front.
func (w *wire) rowKey(prefix byte) []byte {
	key := w.bytes()
	if len(key) > MaxKey {
		w.bad = true
	}
	return append([]byte{prefix}, key...)
}

// value reads an encoded value.
func (w *wire) value() []byte {
	value := w.bytes()
	if len(value) > MaxValue {
		w.bad = true
	}
	return value
}

// setEntry writes an entry and returns what was there.
func setEntry(tx *Tx, key, value []byte) ([]byte, error) {
	old, existed, err := tx.Get(key)
	if err != nil {
		return nil, err
	}
	if err := tx.Set(key, value); err != nil {
		return nil, err
	}
	if existed {
		return present(old.Value), nil
	}
	return absent(), addCount(tx, 1)
}

// removeEntry removes an entry and returns what was there.
func removeEntry(tx *Tx, key []byte) ([]byte, error) {
	old, existed, err := tx.Get(key)
	if err != nil || !existed {
		return absent(), err
	}
	if err := tx.Delete(key); err != nil {
		return nil, err
	}
	return present(old.Value), addCount(tx, -1)
}

// extendMap writes entries, all or none of which are well-formed.
func extendMap(tx *Tx, in wire) ([]byte, error) {
	count := in.count(MaxPayload)
	pairs := in
	for range count {
		in.key()
		in.value()
	}
	if !in.end() {
		return nil, nil
	}
	added := uint64(0)
	for range count {
		result, err := setEntry(tx, pairs.rowKey(mapEntry), pairs.value())
		if err != nil {
			return nil, err
		}
		if result[0] == resultAbsent {
			added++
		}
	}
	return number(added), nil
}

// clearCounted empties a view and returns how much was in it.
func clearCounted(tx *Tx) ([]byte, error) {
	n, err := readCount(tx)
	if err != nil {
		return nil, err
	}
	if n > 0 {
		tx.Clear()
	}
	return number(n), nil
}
