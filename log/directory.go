package log

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"

	"github.com/mosaik-engine/mosaik/identity"
)

// directoryName is the name of the log of named logs. No other log has it.
const directoryName = "mosaik.directory"

// DirectoryKey returns the key of the directory: the log whose records say
// which named logs there are, and how their values are encoded.
func DirectoryKey() identity.ID { return directoryKey }

// directoryKey is never changed; see guardKey.
var directoryKey = identity.NewID(directoryName)

// KindStream is the kind of a log whose records are values on their own.
const KindStream = "stream"

// DirectoryEntry is one record of the directory, encoded as deterministic CBOR.
// The first record for a key counts for ever; later ones, which two openers at
// the same moment can leave, say nothing.
type DirectoryEntry struct {
	Name  string `cbor:"name"`  // valid for identity.ValidateName
	Kind  string `cbor:"kind"`  // what is folded from the log, such as KindStream
	Codec string `cbor:"codec"` // the Name of the codec of its values
}

// Key returns the key that the name stands for.
func (e DirectoryEntry) Key() identity.ID { return identity.NewID(e.Name) }

// Validate reports an entry that names no log. The error wraps identity.ErrName
// for the name; the kind and the codec obey the rules of a name as well.
func (e DirectoryEntry) Validate() error {
	if err := identity.ValidateName(e.Name); err != nil {
		return err
	}
	if e.Name == directoryName || e.Key() == DirectoryKey() {
		return fmt.Errorf("%w: %q is the directory itself", identity.ErrName, e.Name)
	}
	if err := identity.ValidateName(e.Kind); err != nil {
		return fmt.Errorf("kind of the log %q: %w", e.Name, err)
	}
	if err := identity.ValidateName(e.Codec); err != nil {
		return fmt.Errorf("codec of the log %q: %w", e.Name, err)
	}
	return nil
}

// agrees reports, as ErrCodec, a definition that differs from the entry that
// counts.
func (e DirectoryEntry) agrees(definition DirectoryEntry) error {
	switch {
	case e.Kind != definition.Kind:
		return fmt.Errorf("%w: the log %q is a %s, not a %s", ErrCodec, e.Name, e.Kind, definition.Kind)
	case e.Codec != definition.Codec:
		return fmt.Errorf("%w: the values of the log %q are written as %s, not as %s", ErrCodec, e.Name, e.Codec, definition.Codec)
	}
	return nil
}

// Directory returns the named logs of a group in the order in which they were
// first opened. It reads what the Scanner holds: a replica that is behind knows
// fewer. A store of several groups has a directory in each: ask those, one by one.
func Directory(ctx context.Context, s Scanner) ([]DirectoryEntry, error) {
	if _, several := s.(Store); several {
		if _, one := s.(GroupStore); !one {
			return nil, fmt.Errorf("%w: each group has a directory of its own", ErrQuery)
		}
	}
	var list []DirectoryEntry
	seen := map[identity.ID]bool{}
	for e, err := range scanDirectory(ctx, s) {
		if err != nil {
			return nil, err
		}
		if key := e.Key(); !seen[key] {
			seen[key] = true
			list = append(list, e)
		}
	}
	return list, nil
}

// scanDirectory yields all records of the directory, also those that say
// nothing any more.
func scanDirectory(ctx context.Context, s Scanner) iter.Seq2[DirectoryEntry, error] {
	return func(yield func(DirectoryEntry, error) bool) {
		codec := CBOR[DirectoryEntry]()
		for run, err := range s.Scan(ctx, Query{Key: DirectoryKey()}) {
			if err != nil {
				yield(DirectoryEntry{}, fmt.Errorf("read the directory: %w", err))
				return
			}
			for seq, payload := range run.Records() {
				e, err := codec.Decode(payload)
				if err == nil {
					err = e.Validate()
				}
				if err != nil {
					yield(DirectoryEntry{}, fmt.Errorf("record %d of the directory: %w", seq, err))
					return
				}
				if !yield(e, nil) {
					return
				}
			}
		}
	}
}

// LookUp returns the directory's entry of one log, or ErrNotFound. It asks the
// store that is home to the log. A Store answers from its view of the directory;
// of any other Scanner the directory's log is read up to the entry.
func LookUp(ctx context.Context, s Scanner, key identity.ID) (DirectoryEntry, error) {
	if store, ok := s.(Store); ok {
		view, err := store.Home(key).View(ctx, DirectoryKey(), Stale())
		if err != nil {
			return DirectoryEntry{}, fmt.Errorf("read the directory: %w", err)
		}
		return EntryIn(view, key)
	}
	for e, err := range scanDirectory(ctx, s) {
		if err != nil {
			return DirectoryEntry{}, err
		}
		if e.Key() == key {
			return e, nil
		}
	}
	return DirectoryEntry{}, notInDirectory(key)
}

func notInDirectory(key identity.ID) error {
	return fmt.Errorf("%w: key %s is not in the directory", ErrNotFound, key.Short())
}

// EntryIn returns the entry of one log in a view of the directory, or
// ErrNotFound.
func EntryIn(directory View, key identity.ID) (DirectoryEntry, error) {
	row, ok, err := directory.Get(key[:])
	if err != nil {
		return DirectoryEntry{}, fmt.Errorf("read the directory: %w", err)
	}
	if !ok {
		return DirectoryEntry{}, notInDirectory(key)
	}
	_, e, err := decodeDirectoryRow(row.Value)
	return e, err
}

// Entries yields the entries of a view of the directory in the order of their
// keys.
func Entries(directory View) iter.Seq2[DirectoryEntry, error] {
	return func(yield func(DirectoryEntry, error) bool) {
		for row, err := range directory.Scan(Range{}) {
			var e DirectoryEntry
			if err == nil {
				_, e, err = decodeDirectoryRow(row.Value)
			}
			if err != nil {
				yield(DirectoryEntry{}, fmt.Errorf("read the directory: %w", err))
				return
			}
			if !yield(e, nil) {
				return
			}
		}
	}
}

// Register makes sure that the directory says of the log what the definition
// says: ErrCodec if it says otherwise. The collections and streams of this package
// do it when they are opened; a program with a machine of its own does it itself.
// Two that register the same log at the same moment both append; both
// then read which record came first, so they agree on who is right.
func Register(ctx context.Context, w Writer, definition DirectoryEntry) error {
	if err := definition.Validate(); err != nil {
		return err
	}
	key := definition.Key()
	if store, ok := w.(Store); ok {
		w = store.Home(key)
	}
	e, err := LookUp(ctx, w, key)
	if errors.Is(err, ErrNotFound) {
		var payload []byte
		if payload, err = CBOR[DirectoryEntry]().Append(nil, definition); err != nil {
			return err
		}
		if _, err = w.Append(ctx, DirectoryKey(), payload); err != nil {
			return fmt.Errorf("register the log %q: %w", definition.Name, err)
		}
		e, err = LookUp(ctx, w, key)
	}
	if err != nil {
		return err
	}
	return e.agrees(definition)
}

// directoryMachine folds the directory: a row for each registered key, with the
// number of its view and the entry. Views are numbered by the seq of the record
// that registered them.
type directoryMachine struct{}

func (directoryMachine) Signature() string { return "mosaik.directory.v1" }

// Results of the directory's machine.
const (
	directoryKnown      = 0 // the key has an entry already, or the record is none
	directoryRegistered = 1
)

// registered reports whether a result says that the key is new.
func registered(result []byte) bool { return len(result) == 1 && result[0] == directoryRegistered }

func (directoryMachine) Apply(tx *Tx, c Command) ([]byte, error) {
	known := []byte{directoryKnown}
	e, err := CBOR[DirectoryEntry]().Decode(c.Payload)
	if err != nil || e.Validate() != nil || c.Seq > 1<<32-1 {
		return known, nil
	}
	key := e.Key()
	if _, ok, err := tx.Get(key[:]); err != nil || ok {
		return known, err
	}
	row := binary.AppendUvarint(nil, c.Seq)
	return []byte{directoryRegistered}, tx.Set(key[:], append(row, c.Payload...))
}

// decodeDirectoryRow decodes a row of the directory's view.
func decodeDirectoryRow(value []byte) (number uint32, e DirectoryEntry, err error) {
	n, size := binary.Uvarint(value)
	if size <= 0 || n == 0 || n > 1<<32-1 {
		return 0, e, errors.New("a row of the directory has no number")
	}
	e, err = CBOR[DirectoryEntry]().Decode(value[size:])
	return uint32(n), e, err
}
