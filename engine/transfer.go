package engine

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/cockroachdb/pebble/v2"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

// A member that lags by more than the Raft log holds takes over the group's
// state from another one: all rows of the group, in key order, as
//
//	key size uvarint | value size uvarint | key without shard | value
//
// ended by a key of size 0 and the number of rows as 8 bytes. Package snapshot
// will replace it by sealed segments fetched from several members at once.
const (
	maxRowKey   = 4 << 10 // above what a history row of the largest log.MaxRowKey takes
	maxRowValue = 1 << 20
	// receiveBatch bounds the memory of a receiving replica.
	receiveBatch = 4 << 20
)

// send writes the group's rows as of the pinned snapshot.
func (r *replica) send(pinned any, w io.Writer, stop <-chan struct{}) error {
	snapshot, ok := pinned.(*pebble.Snapshot)
	if !ok {
		return fmt.Errorf("mosaik: send state: pinned is a %T", pinned)
	}
	defer snapshot.Close()
	it, err := snapshot.NewIter(&pebble.IterOptions{
		LowerBound: appendSpace(nil, r.shard, 0),
		UpperBound: appendSpace(nil, r.shard, spaceEnd),
	})
	if err != nil {
		return r.corrupt(0, err)
	}
	defer it.Close()
	out := bufio.NewWriterSize(w, 1<<20)
	var frame []byte
	var rows uint64
	for it.First(); it.Valid(); it.Next() {
		select {
		case <-stop:
			return errStopped()
		default:
		}
		value, err := it.ValueAndErr()
		if err != nil {
			return r.corrupt(0, err)
		}
		key := it.Key()[8:]
		frame = binary.AppendUvarint(frame[:0], uint64(len(key)))
		frame = binary.AppendUvarint(frame, uint64(len(value)))
		frame = append(frame, key...)
		if _, err := out.Write(frame); err != nil {
			return err
		}
		if _, err := out.Write(value); err != nil {
			return err
		}
		rows++
	}
	if err := it.Error(); err != nil {
		return r.corrupt(0, err)
	}
	if _, err := out.Write(binary.LittleEndian.AppendUint64([]byte{0}, rows)); err != nil {
		return err
	}
	return out.Flush()
}

// receive replaces the group's rows by sent ones. The state row sorts first and
// is held back to the end, so that a receive cut short by a crash leaves a group
// without state, which Raft then lets receive again. The commits are checked
// one by one, and the last must be the state row's head.
func (r *replica) receive(in io.Reader, stop <-chan struct{}) error {
	r.applying.Lock()
	defer r.applying.Unlock()
	r.withhold() // until load has published the new state
	lower, upper := appendSpace(nil, r.shard, 0), appendSpace(nil, r.shard, spaceEnd)
	if err := r.db.DeleteRange(lower, upper, pebble.NoSync); err != nil {
		return err
	}
	rd := bufio.NewReaderSize(in, 1<<20)
	batch := r.db.NewBatch()
	defer func() { batch.Close() }()
	var stateRow []byte
	var rows uint64
	chain := receivedChain{group: r.group}
	for {
		select {
		case <-stop:
			return errStopped()
		default:
		}
		key, value, err := readRow(rd)
		if err != nil {
			return fmt.Errorf("mosaik: receive state: row %d: %w", rows, err)
		}
		if key == nil {
			break
		}
		rows++
		switch key[0] {
		case spaceMeta:
			if len(key) == 1 {
				stateRow = value
				continue
			}
		case spaceCommit:
			if err := chain.add(key, value); err != nil {
				return fmt.Errorf("mosaik: receive state: %w", err)
			}
		}
		row := append(binary.BigEndian.AppendUint64(nil, r.shard), key...)
		if err := batch.Set(row, value, nil); err != nil {
			return err
		}
		if batch.Len() >= receiveBatch {
			if err := batch.Commit(pebble.NoSync); err != nil {
				return err
			}
			batch.Reset()
		}
	}
	var count [8]byte
	if _, err := io.ReadFull(rd, count[:]); err != nil {
		return fmt.Errorf("mosaik: receive state: %w", err)
	}
	if n := binary.LittleEndian.Uint64(count[:]); n != rows {
		return fmt.Errorf("mosaik: receive state: %d rows of %d", rows, n)
	}
	s, err := decodeState(stateRow)
	if err != nil {
		return fmt.Errorf("mosaik: receive state: %w", err)
	}
	if err := chain.close(); err != nil {
		return fmt.Errorf("mosaik: receive state: %w", err)
	}
	if s.number != chain.number || s.digest != chain.digest {
		return fmt.Errorf("mosaik: receive state: ends with commit %d, its head is %d", chain.number, s.number)
	}
	if err := batch.Set(appendSpace(nil, r.shard, spaceMeta), stateRow, nil); err != nil {
		return err
	}
	r.unflushed.Store(true)
	if err := batch.Commit(pebble.NoSync); err != nil {
		return err
	}
	// Raft takes the state for durable when this returns.
	if err := r.flush(); err != nil {
		return err
	}
	if err := r.load(); err != nil {
		return err
	}
	r.offer()
	return nil
}

// receivedChain checks the commits of a received state, which come in pieces.
type receivedChain struct {
	group  identity.ID
	number uint64     // last complete commit
	digest log.Digest // of it
	buf    []byte     // pieces of commit number+1
}

// add takes the next commit row; key is without the shard.
func (c *receivedChain) add(key, value []byte) error {
	if len(key) != commitKeySize-8 {
		return fmt.Errorf("commit row with a key of %d bytes", len(key))
	}
	if piece := binary.BigEndian.Uint16(key[9:]); piece == 0 {
		if err := c.close(); err != nil {
			return err
		}
	}
	c.buf = append(c.buf, value...)
	return nil
}

// close checks the commit whose pieces have come.
func (c *receivedChain) close() error {
	if len(c.buf) == 0 {
		return nil
	}
	commit, err := log.DecodeCommit(c.buf)
	if err != nil {
		return err
	}
	if err := commit.Verify(); err != nil {
		return err
	}
	if commit.Header.Group != c.group || commit.Header.Number != c.number+1 || commit.Header.Prev != c.digest {
		return fmt.Errorf("commit %d does not follow commit %d", commit.Header.Number, c.number)
	}
	c.number, c.digest, c.buf = commit.Header.Number, commit.Digest, c.buf[:0]
	return nil
}

// readRow returns a nil key at the end mark.
func readRow(r *bufio.Reader) (key, value []byte, err error) {
	keySize, err := binary.ReadUvarint(r)
	if err != nil || keySize == 0 {
		return nil, nil, err
	}
	valueSize, err := binary.ReadUvarint(r)
	if err != nil {
		return nil, nil, err
	}
	if keySize > maxRowKey || valueSize > maxRowValue {
		return nil, nil, errors.New("row exceeds its limit")
	}
	row := make([]byte, keySize+valueSize)
	if _, err := io.ReadFull(r, row); err != nil {
		return nil, nil, err
	}
	return row[:keySize], row[keySize:], nil
}

// flush makes everything applied so far durable.
func (r *replica) flush() error {
	if !r.unflushed.Swap(false) {
		return nil
	}
	if err := r.db.Flush(); err != nil {
		r.unflushed.Store(true)
		return fmt.Errorf("mosaik: flush: %w", err)
	}
	return nil
}
