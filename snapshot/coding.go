package snapshot

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/reedsolomon"
	"lukechampine.com/blake3"

	"github.com/mosaik-engine/mosaik/log"
)

// CellBytes is the size of a cell: what a shard holds of one stripe. It is large
// enough for BLAKE3 to run at full speed, and small enough to read one commit
// without much else.
const CellBytes = 256 << 10

// MaxShards is the largest number of shards an object is coded to.
const MaxShards = 64

// Geometry says how many shards an object is coded to: any K of the K+M restore it.
type Geometry struct {
	K int // data shards
	M int // parity shards
}

// GeometryFor returns the geometry of a group of so many members, one shard for
// each. A group goes on without ⌊(n-1)/2⌋ of its members, so as many shards may
// be lost; of two members either has everything.
//
//	members   1    2    3    4    5    6    7
//	K+M      1+0  1+1  2+1  3+1  3+2  4+2  4+3
func GeometryFor(members int) Geometry {
	if members <= 1 {
		return Geometry{K: 1}
	}
	m := max((members-1)/2, 1)
	return Geometry{K: members - m, M: m}
}

// Shards returns K+M.
func (g Geometry) Shards() int { return g.K + g.M }

func (g Geometry) validate() error {
	if g.K < 1 || g.M < 0 || g.Shards() > MaxShards {
		return fmt.Errorf("mosaik: %d+%d shards, 1+0 to %d in all are possible", g.K, g.M, MaxShards)
	}
	return nil
}

// Coding says how an object of bytes, a sealed segment or a state, is cut up and
// what its parts hash to. With it each cell of each shard can be checked by
// itself, before it is used.
type Coding struct {
	Size     uint64     // of the object, in bytes
	Hash     log.Digest // BLAKE3 of the object
	Geometry            //
	Shards   []log.Digest
	// Shards are the roots of the shards: BLAKE3 of the hashes of their cells, one
	// after the other.
}

// Stripes returns how many stripes the object has.
func (c *Coding) Stripes() int {
	stripe := uint64(c.K) * CellBytes
	return int((c.Size + stripe - 1) / stripe)
}

// CellSize returns the size of the cells of a stripe. The last stripe has
// smaller ones if the object does not fill it: its rest divided among the data
// shards, rounded up to 64 bytes and filled up with zeros.
func (c *Coding) CellSize(stripe int) int {
	return cellSize(c.Size-uint64(stripe)*uint64(c.K)*CellBytes, c.K)
}

// cellSize returns the size of a cell of a stripe that has so much of the object
// left.
func cellSize(rest uint64, k int) int {
	if rest >= uint64(k)*CellBytes {
		return CellBytes
	}
	const align = 64
	each := (rest + uint64(k) - 1) / uint64(k)
	return int((each + align - 1) / align * align)
}

// StripeSize returns how many bytes of the object a stripe holds.
func (c *Coding) StripeSize(stripe int) int {
	whole := uint64(c.K) * CellBytes
	return int(min(whole, c.Size-uint64(stripe)*whole))
}

// ShardSize returns the size of a shard in bytes: its cells, then their hashes.
func (c *Coding) ShardSize() int64 {
	n := c.Stripes()
	if n == 0 {
		return 0
	}
	return int64(n-1)*CellBytes + int64(c.CellSize(n-1)) + int64(n)*hashSize
}

// hashesOffset returns where in a shard the hashes of its cells begin.
func (c *Coding) hashesOffset() int64 { return c.ShardSize() - int64(c.Stripes())*hashSize }

const hashSize = 32

// appendTo appends the coding's encoding (docs/format/segment.md).
func (c *Coding) appendTo(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, c.Size)
	dst = append(dst, c.Hash[:]...)
	dst = append(dst, byte(c.K), byte(c.M))
	for i := range c.Shards {
		dst = append(dst, c.Shards[i][:]...)
	}
	return dst
}

var errCoding = errors.New("malformed coding")

// decodeCoding decodes what appendTo wrote and returns what follows it.
func decodeCoding(b []byte) (c Coding, rest []byte, err error) {
	const fixed = 8 + 32 + 2
	if len(b) < fixed {
		return c, nil, errCoding
	}
	c.Size = binary.LittleEndian.Uint64(b)
	c.Hash = log.Digest(b[8:])
	c.Geometry = Geometry{K: int(b[40]), M: int(b[41])}
	b = b[fixed:]
	if c.Geometry.validate() != nil || c.Size > maxObject || len(b) < hashSize*c.Geometry.Shards() {
		return c, nil, errCoding
	}
	for range c.Geometry.Shards() {
		c.Shards = append(c.Shards, log.Digest(b))
		b = b[hashSize:]
	}
	return c, b, nil
}

// maxObject bounds an object, and with it every number that is derived from its
// size.
const maxObject = 1 << 40

// Encoder codes objects of one geometry. It is for one goroutine.
type Encoder struct {
	g      Geometry
	code   reedsolomon.Encoder // nil without parity
	buf    []byte              // the cells of a stripe, one behind the other
	cells  [][]byte
	hashes [][]byte // per shard, of its cells so far
}

// NewEncoder returns an encoder. It holds one stripe in memory, (K+M) cells.
func NewEncoder(g Geometry) (*Encoder, error) {
	if err := g.validate(); err != nil {
		return nil, err
	}
	e := &Encoder{g: g, buf: make([]byte, g.Shards()*CellBytes), cells: make([][]byte, g.Shards()), hashes: make([][]byte, g.Shards())}
	if g.M > 0 {
		code, err := reedsolomon.New(g.K, g.M, codeOptions...)
		if err != nil {
			return nil, fmt.Errorf("mosaik: encode: %w", err)
		}
		e.code = code
	}
	return e, nil
}

// codeOptions fix what the library would else choose by the machine; one
// goroutine of its own is enough, since sealing runs beside the write path.
var codeOptions = []reedsolomon.Option{reedsolomon.WithMaxGoroutines(1), reedsolomon.WithAutoGoroutines(0), reedsolomon.WithInversionCache(true)}

// Encode reads an object to its end and writes its shards; where shards has nil
// the shard is only hashed. It returns the object's coding, and wraps errors of
// r and of the writers.
func (e *Encoder) Encode(r io.Reader, shards []io.Writer) (Coding, error) {
	c := Coding{Geometry: e.g}
	if len(shards) != e.g.Shards() {
		return c, fmt.Errorf("mosaik: encode: %d writers for %d shards", len(shards), e.g.Shards())
	}
	for i := range e.hashes {
		e.hashes[i] = e.hashes[i][:0]
	}
	whole := blake3.New(hashSize, nil)
	for {
		n, err := io.ReadFull(r, e.buf[:e.g.K*CellBytes])
		if err == io.EOF {
			break
		}
		if err != nil && err != io.ErrUnexpectedEOF {
			return c, fmt.Errorf("mosaik: encode: %w", err)
		}
		c.Size += uint64(n)
		whole.Write(e.buf[:n]) // cannot fail
		if err := e.stripe(n, shards); err != nil {
			return c, fmt.Errorf("mosaik: encode: %w", err)
		}
		if n < e.g.K*CellBytes {
			break
		}
	}
	c.Hash = log.Digest(whole.Sum(nil))
	for i := range e.hashes {
		c.Shards = append(c.Shards, log.Sum(e.hashes[i]))
		if shards[i] == nil {
			continue
		}
		if _, err := shards[i].Write(e.hashes[i]); err != nil {
			return c, fmt.Errorf("mosaik: encode: %w", err)
		}
	}
	return c, nil
}

// stripe codes a stripe, of which the first n bytes of buf are the object's.
func (e *Encoder) stripe(n int, shards []io.Writer) error {
	size := cellSize(uint64(n), e.g.K)
	clear(e.buf[n : e.g.K*size])
	for i := range e.cells {
		e.cells[i] = e.buf[i*size : (i+1)*size]
	}
	if e.code != nil {
		if err := e.code.Encode(e.cells); err != nil {
			return err
		}
	}
	for i, cell := range e.cells {
		h := log.Sum(cell)
		e.hashes[i] = append(e.hashes[i], h[:]...)
		if shards[i] == nil {
			continue
		}
		if _, err := shards[i].Write(cell); err != nil {
			return err
		}
	}
	return nil
}

// WriteShard writes one shard of an object that is in memory, and compares it with
// its root in the coding: a *log.CorruptionError if it is another.
func WriteShard(w io.Writer, c *Coding, object []byte, shard int) error {
	if shard < 0 || shard >= len(c.Shards) || uint64(len(object)) != c.Size {
		return fmt.Errorf("mosaik: shard %d of %d of an object of %d bytes, %d are here", shard, len(c.Shards), c.Size, len(object))
	}
	s, err := newShardOf(c, object, shard)
	if err != nil {
		return err
	}
	var hashes []byte
	for stripe := range c.Stripes() {
		cell, err := s.cell(stripe)
		if err != nil {
			return err
		}
		h := log.Sum(cell)
		hashes = append(hashes, h[:]...)
		if _, err := w.Write(cell); err != nil {
			return err
		}
	}
	if log.Sum(hashes) != c.Shards[shard] {
		return &log.CorruptionError{Err: fmt.Errorf("shard %d does not hash to its root", shard)}
	}
	_, err = w.Write(hashes)
	return err
}

// shardOf makes the cells of one shard of an object that is in memory.
type shardOf struct {
	c      *Coding
	object []byte
	shard  int
	code   reedsolomon.Encoder // nil for a data shard
	buf    []byte
}

func newShardOf(c *Coding, object []byte, shard int) (*shardOf, error) {
	s := &shardOf{c: c, object: object, shard: shard}
	if shard < c.K {
		return s, nil
	}
	var err error
	s.code, err = reedsolomon.New(c.K, c.M, codeOptions...)
	return s, err
}

// cell returns a cell, good until the next call.
func (s *shardOf) cell(stripe int) ([]byte, error) {
	size := s.c.CellSize(stripe)
	whole := s.object[stripe*s.c.K*CellBytes:][:s.c.StripeSize(stripe)]
	data := func(i int) []byte { return whole[min(i*size, len(whole)):min((i+1)*size, len(whole))] }
	if s.code == nil {
		if cell := data(s.shard); len(cell) == size {
			return cell, nil
		}
		s.buf = append(append(s.buf[:0], data(s.shard)...), make([]byte, size-len(data(s.shard)))...)
		return s.buf, nil
	}
	cells := make([][]byte, s.c.Geometry.Shards())
	for i := range cells {
		cells[i] = make([]byte, size)
		if i < s.c.K {
			copy(cells[i], data(i))
		}
	}
	if err := s.code.Encode(cells); err != nil {
		return nil, fmt.Errorf("mosaik: encode: %w", err)
	}
	return cells[s.shard], nil
}

// AnswerFrom returns what a request asks for from an object that is in memory.
func (r Request) AnswerFrom(c *Coding, object []byte) ([]byte, error) {
	n := c.Stripes()
	if r.Shard < 0 || r.Shard >= len(c.Shards) || r.First < 0 || r.Count < 0 || r.Count > MaxCells || r.First+r.Count > n || uint64(len(object)) != c.Size {
		return nil, fmt.Errorf("mosaik: shard request: shard %d, stripes %d to %d of %d", r.Shard, r.First, r.First+r.Count, n)
	}
	s, err := newShardOf(c, object, r.Shard)
	if err != nil {
		return nil, err
	}
	first, count := r.First, r.Count
	if r.Count == 0 {
		first, count = 0, n
	}
	var b []byte
	for stripe := first; stripe < first+count; stripe++ {
		cell, err := s.cell(stripe)
		if err != nil {
			return nil, err
		}
		if r.Count > 0 {
			b = append(b, cell...)
			continue
		}
		h := log.Sum(cell)
		b = append(b, h[:]...)
	}
	return b, nil
}
