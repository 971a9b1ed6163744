package snapshot

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/reedsolomon"
	"lukechampine.com/blake3"

	"github.com/mosaik-engine/mosaik/log"
)

// ErrShards says that too few shards of an object could be read to restore it.
var ErrShards = errors.New("mosaik: not enough shards")

// ShardError is what is wrong with one shard of an object.
type ShardError struct {
	Shard  int
	Stripe int // -1: the shard as a whole
	Err    error
}

// Error implements error.
func (e *ShardError) Error() string {
	if e.Stripe < 0 {
		return fmt.Sprintf("shard %d: %v", e.Shard, e.Err)
	}
	return fmt.Sprintf("shard %d, stripe %d: %v", e.Shard, e.Stripe, e.Err)
}

// Unwrap returns the cause.
func (e *ShardError) Unwrap() error { return e.Err }

// What a shard is found to be.
var (
	errAbsent = errors.New("it is not here")
	errHashes = errors.New("the hashes of its cells do not hash to its root")
	errCell   = errors.New("the cell does not hash to what the shard says")
)

// Object reads a coded object from whatever shards there are. Every cell is
// checked before it is used, so what it returns is the object's bytes or an
// error, never anything else. It is for one goroutine.
type Object struct {
	c      Coding
	shards []io.ReaderAt
	hashes [][]byte // of each shard's cells, once they have been checked
	out    []error  // why a shard is of no use at all
	code   reedsolomon.Encoder
	cells  [][]byte // of the stripe that was read last
	buf    []byte
	onBad  func(*ShardError)
}

// OpenObject returns the object of a coding over its shards, nil where there is
// none. onBad, if not nil, is told of each shard that could not be read or was
// found wrong; absent ones are not told. Nothing is read yet.
func OpenObject(c Coding, shards []io.ReaderAt, onBad func(*ShardError)) (*Object, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	n := c.Geometry.Shards()
	if len(shards) != n || len(c.Shards) != n {
		return nil, fmt.Errorf("mosaik: open object: %d shards and %d roots of %d+%d", len(shards), len(c.Shards), c.K, c.M)
	}
	o := &Object{c: c, shards: shards, hashes: make([][]byte, n), out: make([]error, n), cells: make([][]byte, n), onBad: onBad}
	if c.M > 0 {
		code, err := reedsolomon.New(c.K, c.M, codeOptions...)
		if err != nil {
			return nil, fmt.Errorf("mosaik: open object: %w", err)
		}
		o.code = code
	}
	return o, nil
}

// Coding returns how the object is coded.
func (o *Object) Coding() *Coding { return &o.c }

// bad notes what is wrong with a shard and tells it.
func (o *Object) bad(shard, stripe int, err error) error {
	e := &ShardError{Shard: shard, Stripe: stripe, Err: err}
	if stripe < 0 {
		o.out[shard] = e
	}
	if o.onBad != nil {
		o.onBad(e)
	}
	return e
}

// hashesOf returns the checked hashes of a shard's cells.
func (o *Object) hashesOf(shard int) ([]byte, error) {
	switch {
	case o.shards[shard] == nil:
		return nil, &ShardError{Shard: shard, Stripe: -1, Err: errAbsent}
	case o.out[shard] != nil:
		return nil, o.out[shard]
	case o.hashes[shard] != nil:
		return o.hashes[shard], nil
	}
	hashes := make([]byte, o.c.Stripes()*hashSize)
	if err := readFull(o.shards[shard], hashes, o.c.hashesOffset()); err != nil {
		return nil, o.bad(shard, -1, err)
	}
	if log.Sum(hashes) != o.c.Shards[shard] {
		return nil, o.bad(shard, -1, errHashes)
	}
	o.hashes[shard] = hashes
	return hashes, nil
}

// readFull is ReadAt for all of b.
func readFull(r io.ReaderAt, b []byte, off int64) error {
	if n, err := r.ReadAt(b, off); n < len(b) {
		if err == io.EOF || err == nil {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	return nil
}

// cell reads and checks one cell.
func (o *Object) cell(shard, stripe int, dst []byte) error {
	hashes, err := o.hashesOf(shard)
	if err != nil {
		return err
	}
	if err := readFull(o.shards[shard], dst, int64(stripe)*CellBytes); err != nil {
		return o.bad(shard, stripe, err)
	}
	if log.Sum(dst) != log.Digest(hashes[stripe*hashSize:]) {
		return o.bad(shard, stripe, errCell)
	}
	return nil
}

// load brings K cells of a stripe into o.cells, the data cells if they are to
// be had; the others are empty.
func (o *Object) load(stripe int) error {
	size := o.c.CellSize(stripe)
	n := o.c.Geometry.Shards()
	if len(o.buf) < n*size {
		o.buf = make([]byte, n*size)
	}
	have := 0
	var errs []string
	for i := range n {
		o.cells[i] = o.buf[i*size : i*size : (i+1)*size]
		if have == o.c.K {
			continue
		}
		cell := o.buf[i*size : (i+1)*size]
		if err := o.cell(i, stripe, cell); err != nil {
			errs = append(errs, err.Error())
			continue
		}
		o.cells[i] = cell
		have++
	}
	if have < o.c.K {
		return fmt.Errorf("%w: %d of %d+%d, %d are needed: %s", ErrShards, have, o.c.K, o.c.M, o.c.K, strings.Join(errs, "; "))
	}
	return nil
}

// Stripe returns what a stripe holds of the object. It is good until the next
// call.
func (o *Object) Stripe(stripe int) ([]byte, error) {
	if err := o.load(stripe); err != nil {
		return nil, err
	}
	if o.code != nil {
		if err := o.code.ReconstructData(o.cells); err != nil {
			return nil, fmt.Errorf("mosaik: decode: %w", err)
		}
	}
	// The data cells lie one behind the other.
	return o.buf[:o.c.StripeSize(stripe)], nil
}

// WriteTo writes the object to w and compares it, as a whole, with its hash.
func (o *Object) WriteTo(w io.Writer) (int64, error) {
	var n int64
	whole := blake3.New(hashSize, nil)
	for stripe := range o.c.Stripes() {
		b, err := o.Stripe(stripe)
		if err != nil {
			return n, err
		}
		whole.Write(b) // cannot fail
		k, err := w.Write(b)
		n += int64(k)
		if err != nil {
			return n, err
		}
	}
	if log.Digest(whole.Sum(nil)) != o.c.Hash {
		// The cells are what their roots say, so it was coded like this.
		return n, &log.CorruptionError{Err: errors.New("the object does not hash to what its coding says: it was coded wrong")}
	}
	return n, nil
}

// Rebuild writes a shard anew from K others.
func (o *Object) Rebuild(shard int, w io.Writer) error {
	kept := o.shards[shard]
	o.shards[shard] = nil
	defer func() { o.shards[shard] = kept }()
	var hashes []byte
	for stripe := range o.c.Stripes() {
		if err := o.load(stripe); err != nil {
			return err
		}
		required := make([]bool, len(o.cells))
		required[shard] = true
		if o.code == nil {
			return fmt.Errorf("%w: there is no parity", ErrShards)
		}
		if err := o.code.ReconstructSome(o.cells, required); err != nil {
			return fmt.Errorf("mosaik: rebuild: %w", err)
		}
		cell := o.cells[shard]
		h := log.Sum(cell)
		hashes = append(hashes, h[:]...)
		if _, err := w.Write(cell); err != nil {
			return err
		}
	}
	if log.Sum(hashes) != o.c.Shards[shard] {
		return &log.CorruptionError{Err: fmt.Errorf("shard %d, built anew, does not hash to its root: it was coded wrong", shard)}
	}
	_, err := w.Write(hashes)
	return err
}

// Check reads all of a shard and reports the first thing that is wrong with it.
func (o *Object) Check(shard int) error {
	if _, err := o.hashesOf(shard); err != nil {
		return err
	}
	buf := make([]byte, CellBytes)
	for stripe := range o.c.Stripes() {
		if err := o.cell(shard, stripe, buf[:o.c.CellSize(stripe)]); err != nil {
			return err
		}
	}
	return nil
}
