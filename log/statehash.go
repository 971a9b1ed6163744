package log

import (
	"encoding/binary"

	"lukechampine.com/blake3"
	"lukechampine.com/blake3/guts"
)

// StateHashSize is the encoded size of a StateHash in bytes.
const StateHashSize = 2048

// StateHash is the homomorphic hash of a multiset of byte strings, here of the
// rows of all views of a group. Adding and removing an element costs the same
// whatever the set holds, and the order does not matter, so it can be kept up to
// date commit by commit and still be computed anew from the rows alone.
//
// It is LtHash16 with 1,024 lanes over BLAKE3 (Lewi, Kim, Maykov and Weis,
// "Securing Update Propagation with Homomorphic Hashing", 2019): an element is
// stretched to 2,048 bytes by BLAKE3's extendable output, read as 1,024 numbers
// of 16 bits, and added lane by lane modulo 2^16. Finding two sets with one sum
// means solving a lattice problem at above 200 bits of security.
//
// The zero value is the hash of the empty set.
type StateHash [StateHashSize / 8]uint64 // four lanes in a word, little-endian

// Add adds an element.
func (h *StateHash) Add(element []byte) { h.add(new(stretched), element) }

// Remove removes an element that is in the set.
func (h *StateHash) Remove(element []byte) { h.remove(new(stretched), element) }

// stretched is an element as BLAKE3 has stretched it. Who adds many keeps one.
type stretched [StateHashSize]byte

func (h *StateHash) add(lanes *stretched, element []byte) {
	stretch(lanes, element)
	for i := range h {
		h[i] = addLanes(h[i], binary.LittleEndian.Uint64(lanes[8*i:]))
	}
}

func (h *StateHash) remove(lanes *stretched, element []byte) {
	stretch(lanes, element)
	for i := range h {
		h[i] = subLanes(h[i], binary.LittleEndian.Uint64(lanes[8*i:]))
	}
}

// topBits are the highest bits of the four lanes: carries must not leave a lane.
const topBits = 0x8000_8000_8000_8000

func addLanes(a, b uint64) uint64 { return (a&^topBits + b&^topBits) ^ (a^b)&topBits }

func subLanes(a, b uint64) uint64 { return ((a | topBits) - b&^topBits) ^ (a^^b)&topBits }

// Digest returns what a commit's header holds of the set: zero for the empty
// set, else BLAKE3 of the lanes in order, 2,048 bytes.
func (h *StateHash) Digest() Digest {
	if *h == (StateHash{}) {
		return Digest{}
	}
	return Sum(h.AppendTo(make([]byte, 0, StateHashSize)))
}

// AppendTo appends the lanes, StateHashSize bytes, to dst.
func (h *StateHash) AppendTo(dst []byte) []byte {
	for _, w := range h {
		dst = binary.LittleEndian.AppendUint64(dst, w)
	}
	return dst
}

// DecodeStateHash decodes what AppendTo wrote; false: b has another size.
func DecodeStateHash(b []byte) (h StateHash, ok bool) {
	if len(b) != StateHashSize {
		return h, false
	}
	for i := range h {
		h[i] = binary.LittleEndian.Uint64(b[8*i:])
	}
	return h, true
}

// stretch fills lanes with BLAKE3's extendable output for b. Rows are short: for
// one chunk the blocks of the output are computed side by side, without a
// Hasher, which would cost more than all the rest.
func stretch(lanes *stretched, b []byte) {
	if len(b) > guts.ChunkSize {
		h := blake3.New(32, nil)
		h.Write(b)             // cannot fail
		h.XOF().Read(lanes[:]) // likewise, and reads all
		return
	}
	node := guts.CompressChunk(b, &guts.IV, 0, 0)
	node.Flags |= guts.FlagRoot
	const step = guts.MaxSIMD * guts.BlockSize
	for i := 0; i < StateHashSize; i += step {
		node.Counter = uint64(i / guts.BlockSize)
		guts.CompressBlocks((*[step]byte)(lanes[i:i+step]), node)
	}
}
