package snapshot

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

// A state is the rows of all views of a group as of a commit, every generation,
// in the order of view, generation and key: the canonical bytes of what the
// state digest of that commit's header is the hash of (docs/format/segment.md).

const (
	stateMagic      = "mosaik.state.v01"
	stateHeaderSize = len(stateMagic) + 32 + 8
)

// StateRow is one row of a view.
type StateRow struct {
	View, Generation uint32
	Key              []byte
	Commit           uint64 // that wrote it
	Value            []byte
}

// before reports whether r sorts before other.
func (r *StateRow) before(other *StateRow) bool {
	switch {
	case r.View != other.View:
		return r.View < other.View
	case r.Generation != other.Generation:
		return r.Generation < other.Generation
	}
	return bytes.Compare(r.Key, other.Key) < 0
}

// StateWriter writes a state.
type StateWriter struct {
	w      io.Writer
	commit uint64
	rows   uint64
	last   StateRow
	buf    []byte
}

// NewStateWriter begins the state of a group as of a commit.
func NewStateWriter(w io.Writer, group identity.ID, commit uint64) (*StateWriter, error) {
	s := &StateWriter{w: w, commit: commit}
	s.buf = append(s.buf, stateMagic...)
	s.buf = append(s.buf, group[:]...)
	s.buf = binary.LittleEndian.AppendUint64(s.buf, commit)
	return s, s.flush()
}

func (s *StateWriter) flush() error {
	if _, err := s.w.Write(s.buf); err != nil {
		return fmt.Errorf("mosaik: write state: %w", err)
	}
	s.buf = s.buf[:0]
	return nil
}

var (
	errRowOrder = errors.New("rows are not in order")
	errStateRow = errors.New("malformed row")
	errNoState  = errors.New("it is no state")
)

// Add writes the next row.
func (s *StateWriter) Add(r StateRow) error {
	if s.rows > 0 && !s.last.before(&r) {
		return fmt.Errorf("mosaik: write state: %w", errRowOrder)
	}
	s.last.View, s.last.Generation, s.last.Key = r.View, r.Generation, append(s.last.Key[:0], r.Key...)
	s.rows++
	s.buf = append(s.buf, 1)
	s.buf = binary.BigEndian.AppendUint32(s.buf, r.View)
	s.buf = binary.BigEndian.AppendUint32(s.buf, r.Generation)
	s.buf = binary.AppendUvarint(s.buf, uint64(len(r.Key)))
	s.buf = append(s.buf, r.Key...)
	s.buf = binary.AppendUvarint(s.buf, r.Commit)
	s.buf = binary.AppendUvarint(s.buf, uint64(len(r.Value)))
	s.buf = append(s.buf, r.Value...)
	return s.flush()
}

// Close ends the state.
func (s *StateWriter) Close() error {
	s.buf = binary.LittleEndian.AppendUint64(append(s.buf, 0), s.rows)
	return s.flush()
}

// ReadState reads a state of the group as of a commit, hands each row to add,
// whose bytes are good until it returns, and returns the hash of all of them. The
// caller compares its digest with the state in the commit's header: only then
// are the rows what the group agreed on.
func ReadState(r io.Reader, group identity.ID, commit uint64, add func(StateRow) error) (log.StateHash, error) {
	in := bufio.NewReaderSize(r, 1<<16)
	var hash log.StateHash
	bad := func(err error) (log.StateHash, error) {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return hash, fmt.Errorf("read the state as of commit %d of group %s: %w", commit, group.Short(), err)
	}
	header := make([]byte, stateHeaderSize)
	if _, err := io.ReadFull(in, header); err != nil {
		return bad(err)
	}
	at := len(stateMagic)
	if string(header[:at]) != stateMagic || identity.ID(header[at:]) != group || binary.LittleEndian.Uint64(header[at+32:]) != commit {
		return bad(errNoState)
	}
	var rows uint64
	var last StateRow
	var element []byte
	for {
		more, err := in.ReadByte()
		if err != nil {
			return bad(err)
		}
		if more == 0 {
			break
		}
		row, err := readStateRow(in)
		if err != nil || more != 1 {
			return bad(errors.Join(err, errStateRow))
		}
		if rows > 0 && !last.before(&row) {
			return bad(errRowOrder)
		}
		if row.Commit == 0 || row.Commit > commit {
			return bad(fmt.Errorf("%w: commit %d wrote it", errStateRow, row.Commit))
		}
		last = row
		rows++
		element = log.AppendRowElement(element[:0], row.View, row.Generation, row.Key, row.Commit, row.Value)
		hash.Add(element)
		if err := add(row); err != nil {
			return hash, err
		}
	}
	var count [8]byte
	if _, err := io.ReadFull(in, count[:]); err != nil {
		return bad(err)
	}
	if n := binary.LittleEndian.Uint64(count[:]); n != rows {
		return bad(fmt.Errorf("it has %d rows of %d", rows, n))
	}
	if _, err := in.ReadByte(); err != io.EOF {
		return bad(errors.New("something follows its end"))
	}
	return hash, nil
}

func readStateRow(in *bufio.Reader) (StateRow, error) {
	var fixed [8]byte
	if _, err := io.ReadFull(in, fixed[:]); err != nil {
		return StateRow{}, err
	}
	r := StateRow{View: binary.BigEndian.Uint32(fixed[:]), Generation: binary.BigEndian.Uint32(fixed[4:])}
	var err error
	if r.Key, err = readSized(in, log.MaxRowKey); err != nil {
		return r, err
	}
	if r.Commit, err = binary.ReadUvarint(in); err != nil {
		return r, err
	}
	r.Value, err = readSized(in, log.MaxRowValue)
	return r, err
}

func readSized(in *bufio.Reader, limit uint64) ([]byte, error) {
	n, err := binary.ReadUvarint(in)
	if err != nil {
		return nil, err
	}
	if n > limit {
		return nil, fmt.Errorf("%w: %d bytes, at most %d are allowed", errStateRow, n, limit)
	}
	b := make([]byte, n)
	_, err = io.ReadFull(in, b)
	return b, err
}
