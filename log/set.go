package log

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"iter"

	"github.com/mosaik-engine/mosaik/identity"
)

// A set's view has one empty row for each member, under 0x01 and its encoding,
// and the number of members in the count row. Commands:
//
//	insert  1 | member              -> present (it is new) | absent (it was there)
//	extend  2 | count | member ...  -> how many are new
//	remove  3 | member              -> present (it was there) | absent
//	clear   4                       -> how many members there were
//
// member is a uvarint size and the bytes.
const (
	setInsert = 1
	setExtend = 2
	setRemove = 3
	setClear  = 4

	setMember = 1 // first byte of a member's row
)

// SetDef defines a set: its name, the type of its members and how they are
// encoded. It is a plain value, usually in a package variable that writers and
// readers share.
type SetDef[K any] struct {
	Name    string      // see identity.ValidateName
	Members KeyCodec[K] // ordered; nil means DefaultKey
}

// Key returns the key of the set's log.
func (d SetDef[K]) Key() identity.ID { return identity.NewID(d.Name) }

// Reader returns a reader of the set as s holds it. It reads nothing yet; a set
// that nobody has opened is empty. It fails on an invalid name with
// identity.ErrName and on a codec that does not keep the order of members with
// ErrCodec.
func (d SetDef[K]) Reader(s Store) (*SetReader[K], error) {
	if d.Members == nil {
		d.Members = DefaultKey[K]()
	}
	if err := checkKeys(d.Members, Ordered); err != nil {
		return nil, fmt.Errorf("set %q: %w", d.Name, err)
	}
	c, err := newCollection(s, d.Name, setMachine{}, d.Members.Name())
	if err != nil {
		return nil, fmt.Errorf("set: %w", err)
	}
	return &SetReader[K]{CollectionReader: c, def: d}, nil
}

// Open returns the set for reading and writing. The first Open anywhere registers
// it; each later one compares and fails with ErrCodec if the definitions differ.
func (d SetDef[K]) Open(ctx context.Context, s Store) (*Set[K], error) {
	r, err := d.Reader(s)
	if err != nil {
		return nil, err
	}
	if err := r.open(ctx); err != nil {
		return nil, err
	}
	return &Set[K]{SetReader: r}, nil
}

// SetReader reads a set. It is safe for concurrent use.
type SetReader[K any] struct {
	*CollectionReader
	def SetDef[K]
}

// Contains reports whether k is a member. The read is linearizable.
func (r *SetReader[K]) Contains(ctx context.Context, k K) (bool, error) {
	v, err := r.View(ctx, Linearizable())
	if err != nil {
		return false, err
	}
	return v.Contains(k)
}

// View returns the set as of one commit. It stays what it is.
func (r *SetReader[K]) View(ctx context.Context, at Consistency) (*SetView[K], error) {
	v, err := r.view(ctx, at)
	if err != nil {
		return nil, err
	}
	return &SetView[K]{view: v, of: r}, nil
}

// SetChange is what a commit did to one member.
type SetChange[K any] struct {
	Pointer Pointer // at the commit
	Cleared bool    // alone in its change: the set was emptied
	Member  K
	Added   bool // else it was removed
}

// Watch yields the changes of all commits after the given one, in order, and with
// follow then waits for more until ctx ends. Commit 0 is before all. Who goes on after
// the commit of the last change misses nothing; a commit's changes come together.
func (r *SetReader[K]) Watch(ctx context.Context, after uint64, follow bool) iter.Seq2[SetChange[K], error] {
	return watch(ctx, r.CollectionReader, after, follow, setMember,
		func(p Pointer) SetChange[K] { return SetChange[K]{Pointer: p, Cleared: true} },
		func(p Pointer, row *Change) (SetChange[K], bool, error) {
			k, err := r.def.Members.Decode(row.Key[1:])
			return SetChange[K]{Pointer: p, Member: k, Added: row.Exists}, row.Exists != row.Existed, err
		})
}

// SetView is a set as of one commit.
type SetView[K any] struct {
	view View
	of   *SetReader[K]
}

// Commit returns the number of the commit that the view reflects.
func (s *SetView[K]) Commit() uint64 { return s.view.Commit() }

// Contains reports whether k is a member.
func (s *SetView[K]) Contains(k K) (bool, error) {
	key, err := encodeKey(setMember, s.of.def.Members, k, MaxKey)
	if err != nil {
		return false, s.of.wrap(err)
	}
	_, ok, err := s.view.Get(key)
	return ok, err
}

// Len returns the number of members.
func (s *SetView[K]) Len() (uint64, error) { return readCount(s.view) }

// All yields all members in their order.
func (s *SetView[K]) All() iter.Seq2[K, error] { return s.Range(Span[K]{}) }

// Range yields the members of a span.
func (s *SetView[K]) Range(span Span[K]) iter.Seq2[K, error] {
	r, err := encodeSpan(setMember, s.of.def.Members, span, MaxKey)
	return s.scan(r, err)
}

// Prefix yields the members whose encodings begin with that of k.
func (s *SetView[K]) Prefix(k K) iter.Seq2[K, error] {
	from, err := encodeKey(setMember, s.of.def.Members, k, MaxKey)
	return s.scan(Range{From: from, To: prefixEnd(from)}, err)
}

func (s *SetView[K]) scan(r Range, err error) iter.Seq2[K, error] {
	return func(yield func(K, error) bool) {
		var zero K
		if err != nil {
			yield(zero, s.of.wrap(err))
			return
		}
		for row, err := range s.view.Scan(r) {
			k := zero
			if err == nil {
				k, err = s.of.def.Members.Decode(row.Key[1:])
			}
			if err != nil {
				yield(zero, s.of.wrap(err))
				return
			}
			if !yield(k, nil) {
				return
			}
		}
	}
}

// SubsetOf reports whether every member is one of other, too. Each of the views
// is as of its own commit; they may be of different groups.
func (s *SetView[K]) SubsetOf(other *SetView[K]) (bool, error) {
	members := Range{From: []byte{setMember}, To: []byte{setMember + 1}}
	next, stop := iter.Pull2(other.view.Scan(members))
	defer stop()
	for row, err := range s.view.Scan(members) {
		if err != nil {
			return false, s.of.wrap(err)
		}
		// Both are sorted: what other has below the member is passed over.
		for {
			o, err, ok := next()
			if err != nil {
				return false, other.of.wrap(err)
			}
			order := bytes.Compare(o.Key, row.Key)
			if !ok || order > 0 {
				return false, nil
			}
			if order == 0 {
				break
			}
		}
	}
	return true, nil
}

// Set is a SetReader that can also write. It is safe for concurrent use. Each
// write is one command, atomic, and returns the pointer at it. What an error
// leaves open is as Writer.Append says; ErrCodec and ErrOversize mean that
// nothing was written.
type Set[K any] struct{ *SetReader[K] }

// Insert adds a member and reports whether it is new.
func (s *Set[K]) Insert(ctx context.Context, k K) (p Pointer, added bool, err error) {
	return s.take(ctx, setInsert, k)
}

// Remove removes a member and reports whether it was there.
func (s *Set[K]) Remove(ctx context.Context, k K) (p Pointer, removed bool, err error) {
	return s.take(ctx, setRemove, k)
}

// take submits a command about one member.
func (s *Set[K]) take(ctx context.Context, command byte, k K) (p Pointer, taken bool, err error) {
	encoded, err := s.def.appendMember([]byte{command}, k)
	if err != nil {
		return p, false, s.wrap(err)
	}
	p, result, err := s.submit(ctx, encoded)
	return p, err == nil && result[0] == resultPresent, err
}

func (d *SetDef[K]) appendMember(command []byte, k K) ([]byte, error) {
	key, err := encodeKey(setMember, d.Members, k, MaxKey)
	if err != nil {
		return nil, err
	}
	return appendBytes(command, key[1:]), nil
}

// Extend adds members in one command and returns how many are new. Together they
// must fit into a record.
func (s *Set[K]) Extend(ctx context.Context, members iter.Seq[K]) (p Pointer, added uint64, err error) {
	var list []byte
	count := uint64(0)
	for k := range members {
		if list, err = s.def.appendMember(list, k); err != nil {
			return p, 0, s.wrap(err)
		}
		if count++; len(list) > MaxPayload {
			return p, 0, s.wrap(tooMany(count))
		}
	}
	return s.count(ctx, append(binary.AppendUvarint([]byte{setExtend}, count), list...))
}

// Clear removes all members, at the same cost however many there are, and
// returns their number.
func (s *Set[K]) Clear(ctx context.Context) (p Pointer, removed uint64, err error) {
	return s.count(ctx, []byte{setClear})
}

// setMachine folds sets.
type setMachine struct{}

func (setMachine) Signature() string { return "mosaik.set.v1" }

func (setMachine) Apply(tx *Tx, c Command) ([]byte, error) {
	if len(c.Payload) == 0 {
		return nil, nil
	}
	in := wire{rest: c.Payload[1:]}
	switch c.Payload[0] {
	case setInsert:
		if key := in.rowKey(setMember); in.end() {
			return insertMember(tx, key)
		}
	case setExtend:
		return extendSet(tx, in)
	case setRemove:
		if key := in.rowKey(setMember); in.end() {
			result, err := removeEntry(tx, key)
			if err != nil {
				return nil, err
			}
			return result[:1], nil
		}
	case setClear:
		if in.end() {
			return clearCounted(tx)
		}
	}
	return nil, nil
}

// appendRows implements rowNamer.
func (setMachine) appendRows(keys [][]byte, command []byte) [][]byte {
	return appendRowsOf(keys, command, setInsert, setExtend, setMember, false)
}

// insertMember adds a member.
func insertMember(tx *Tx, key []byte) ([]byte, error) {
	_, existed, err := tx.Get(key)
	if err != nil || existed {
		return taken(false), err
	}
	if err := tx.Set(key, nil); err != nil {
		return nil, err
	}
	return taken(true), addCount(tx, 1)
}

// extendSet adds members, all or none of which are well-formed.
func extendSet(tx *Tx, in wire) ([]byte, error) {
	count := in.count(MaxPayload)
	members := in
	for range count {
		in.key()
	}
	if !in.end() {
		return nil, nil
	}
	added := uint64(0)
	for range count {
		result, err := insertMember(tx, members.rowKey(setMember))
		if err != nil {
			return nil, err
		}
		added += uint64(result[0])
	}
	return number(added), nil
}

// SetTxn is a set inside a transaction.
type SetTxn[K any] struct {
	part txnPart
	def  SetDef[K]
}

// In gives the set inside a transaction, in whose group it is.
func (d SetDef[K]) In(t *Txn) *SetTxn[K] {
	r, err := d.Reader(t.group)
	if err != nil {
		return &SetTxn[K]{part: t.part(nil, err), def: d}
	}
	return &SetTxn[K]{part: t.part(r.CollectionReader, nil), def: r.def}
}

// ExpectMember demands that k is a member.
func (s *SetTxn[K]) ExpectMember(k K) { s.expect(k, RowPresent) }

// ExpectAbsent demands that k is none.
func (s *SetTxn[K]) ExpectAbsent(k K) { s.expect(k, RowAbsent) }

func (s *SetTxn[K]) expect(k K, kind ConditionKind) {
	if !s.part.failed() {
		row, err := encodeKey(setMember, s.def.Members, k, MaxKey)
		s.part.expect(Condition{Kind: kind, Row: row}, err)
	}
}

// Insert adds a member; its result is whether it is new.
func (s *SetTxn[K]) Insert(k K) *Pending[bool] { return s.take(setInsert, k) }

// Remove removes a member; its result is whether it was there.
func (s *SetTxn[K]) Remove(k K) *Pending[bool] { return s.take(setRemove, k) }

func (s *SetTxn[K]) take(command byte, k K) *Pending[bool] {
	if s.part.failed() {
		return new(Pending[bool])
	}
	encoded, err := s.def.appendMember([]byte{command}, k)
	return s.part.doTaken(encoded, err)
}
