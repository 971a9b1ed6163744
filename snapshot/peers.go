package snapshot

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
)

// Request asks a member of a group for a part of one of its shards.
type Request struct {
	Group   identity.ID
	Segment uint64
	State   bool // of the segment's state instead of its commits
	Shard   int
	First   int // first stripe
	Count   int // cells, at most MaxCells; 0: the hashes of all cells
}

// MaxCells is the largest number of cells that are asked for at once.
const MaxCells = 16

// Peers carries requests to other members. What comes back is checked by who
// asked, so Peers need not be believed; but they must end with ctx.
type Peers interface {
	// Fetch returns the bytes a request asks for.
	Fetch(ctx context.Context, peer identity.PeerID, r Request) ([]byte, error)
}

// Answer returns what a request asks for from a shard of the object it names.
func (r Request) Answer(c *Coding, shard io.ReaderAt) ([]byte, error) {
	n := c.Stripes()
	switch {
	case r.Shard < 0 || r.Shard >= c.Geometry.Shards(), r.First < 0, r.Count < 0, r.Count > MaxCells, r.First+r.Count > n:
		return nil, fmt.Errorf("mosaik: shard request: shard %d, stripes %d to %d of %d", r.Shard, r.First, r.First+r.Count, n)
	}
	off, size := c.hashesOffset(), n*hashSize
	if r.Count > 0 {
		off, size = int64(r.First)*CellBytes, (r.Count-1)*CellBytes+c.CellSize(r.First+r.Count-1)
	}
	b := make([]byte, size)
	return b, readFull(shard, b, off)
}

// remoteShard reads a shard that another member has, some cells at a time.
type remoteShard struct {
	ctx   context.Context
	peers Peers
	peer  identity.PeerID
	c     *Coding
	r     Request
	first int // stripe of the first cell in cells
	cells []byte
}

// fetchTimeout bounds one request.
const fetchTimeout = 10 * time.Second

// RemoteShard returns a shard of an object as another member has it. Reads end
// with ctx.
func RemoteShard(ctx context.Context, peers Peers, peer identity.PeerID, c *Coding, r Request) io.ReaderAt {
	return &remoteShard{ctx: ctx, peers: peers, peer: peer, c: c, r: r}
}

// ReadAt reads one cell or part of it, or the hashes.
func (s *remoteShard) ReadAt(b []byte, off int64) (int, error) {
	if off >= s.c.hashesOffset() {
		hashes, err := s.fetch(0, 0)
		return copy(b, hashes), err
	}
	stripe := int(off / CellBytes)
	if s.cells == nil || stripe < s.first || off+int64(len(b)) > int64(s.first)*CellBytes+int64(len(s.cells)) {
		cells, err := s.fetch(stripe, min(MaxCells, s.c.Stripes()-stripe))
		if err != nil {
			return 0, err
		}
		s.first, s.cells = stripe, cells
	}
	n := copy(b, s.cells[off-int64(s.first)*CellBytes:])
	if n < len(b) {
		return n, io.ErrUnexpectedEOF
	}
	return n, nil
}

func (s *remoteShard) fetch(first, count int) ([]byte, error) {
	ctx, cancel := context.WithTimeout(s.ctx, fetchTimeout)
	defer cancel()
	r := s.r
	r.First, r.Count = first, count
	b, err := s.peers.Fetch(ctx, s.peer, r)
	if err != nil {
		return nil, fmt.Errorf("member %s: %w", s.peer.Short(), err)
	}
	return b, nil
}
