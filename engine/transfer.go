package engine

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/cockroachdb/pebble/v2"

	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/snapshot"
)

// A member that lags by more than the Raft log holds gets an offer from another
// one, through the Raft library's snapshot: where the group stands, which segments
// are sealed, and the commits after those. The segments it fetches itself, from
// several members at once (sync.go).
//
//	version 1 | state row | row of segments | manifests | commits
//
// A row is its size, a uvarint, and its bytes; there are as many manifests, each
// such a row, as a uvarint before them says; a commit is a row of header and body.
// A row of size 0 and the number of commits, 8 bytes little-endian, end it.
// Where there are no Peers to fetch from there are no manifests, and all commits.
const offerVersion = 1

// offer is the beginning of an offer, up to the commits.
type offer struct {
	state     state
	segments  []byte // the row of segments
	manifests []*snapshot.Manifest
	commits   *bufio.Reader
}

// maxOfferRow bounds the rows of an offer.
const maxOfferRow = log.HeaderSize + log.MaxBody

// send writes an offer as of the pinned snapshot of the store.
func (g *Group) send(pinned any, w io.Writer, stop <-chan struct{}) error {
	store, ok := pinned.(*pebble.Snapshot)
	if !ok {
		return fmt.Errorf("mosaik: send state: pinned is a %T", pinned)
	}
	defer store.Close()
	r := g.replica
	out := bufio.NewWriterSize(w, 1<<20)
	row := func(b []byte) error {
		_, err1 := out.Write(binary.AppendUvarint(nil, uint64(len(b))))
		_, err2 := out.Write(b)
		return errors.Join(err1, err2)
	}
	get := func(key []byte) ([]byte, error) {
		v, closer, err := store.Get(key)
		if errors.Is(err, pebble.ErrNotFound) {
			return nil, nil
		}
		if err != nil {
			return nil, r.corrupt(0, err)
		}
		v = append([]byte(nil), v...)
		return v, closer.Close()
	}
	stateRow, err := get(appendSpace(nil, r.shard, spaceMeta))
	if err != nil {
		return err
	}
	s, err := decodeState(stateRow)
	if err != nil {
		return err
	}
	var segments []byte
	var manifests [][]byte
	next := uint64(1)
	if g.engine.opts.Peers != nil {
		if segments, err = get(appendMetaKey(nil, r.shard, metaSegments)); err != nil {
			return err
		}
		it, err := store.NewIter(&pebble.IterOptions{LowerBound: appendSpace(nil, r.shard, spaceSegment), UpperBound: appendSpace(nil, r.shard, spaceSegment+1)})
		if err != nil {
			return r.corrupt(0, err)
		}
		for it.First(); it.Valid(); it.Next() {
			manifests = append(manifests, append([]byte(nil), it.Value()...))
		}
		if err := errors.Join(it.Error(), it.Close()); err != nil {
			return r.corrupt(0, err)
		}
		if n := len(manifests); n > 0 {
			m, err := snapshot.DecodeManifest(manifests[n-1])
			if err != nil {
				return err
			}
			next = m.Last + 1
		}
	}
	err = errors.Join(out.WriteByte(offerVersion), row(stateRow), row(segments))
	_, countErr := out.Write(binary.AppendUvarint(nil, uint64(len(manifests))))
	if err = errors.Join(err, countErr); err != nil {
		return err
	}
	for _, m := range manifests {
		if err := row(m); err != nil {
			return err
		}
	}
	commits := uint64(0)
	cur, err := r.newCursorOn(store, next)
	if err != nil {
		return err
	}
	defer cur.close()
	for ; next <= s.number; next++ {
		select {
		case <-stop:
			return errStopped()
		default:
		}
		c, err := cur.commit(next)
		if err == nil {
			err = row(c.AppendTo(nil))
		}
		if err != nil {
			return err
		}
		commits++
	}
	if _, err := out.Write(binary.LittleEndian.AppendUint64([]byte{0}, commits)); err != nil {
		return err
	}
	return out.Flush()
}

var errOffer = errors.New("malformed offer of state")

// readOffer reads an offer up to its commits.
func readOffer(in io.Reader) (*offer, error) {
	o := &offer{commits: bufio.NewReaderSize(in, 1<<20)}
	version, err := o.commits.ReadByte()
	switch {
	case err != nil:
		return nil, err
	case version > offerVersion:
		return nil, fmt.Errorf("%w: offer of state of version %d, this program knows %d", log.ErrNewerFormat, version, offerVersion)
	case version < offerVersion:
		return nil, errOffer
	}
	stateRow, err := o.row()
	if err != nil {
		return nil, err
	}
	if o.state, err = decodeState(stateRow); err != nil {
		return nil, err
	}
	if o.segments, err = o.row(); err != nil {
		return nil, err
	}
	n, err := binary.ReadUvarint(o.commits)
	if err != nil {
		return nil, err
	}
	for range n {
		b, err := o.row()
		if err != nil {
			return nil, err
		}
		m, err := snapshot.DecodeManifest(b)
		if err != nil {
			return nil, err
		}
		o.manifests = append(o.manifests, m)
	}
	return o, nil
}

// row reads a row; it is empty at the end of the commits.
func (o *offer) row() ([]byte, error) {
	n, err := binary.ReadUvarint(o.commits)
	if err != nil {
		return nil, err
	}
	if n > maxOfferRow {
		return nil, errOffer
	}
	b := make([]byte, n)
	_, err = io.ReadFull(o.commits, b)
	return b, err
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
