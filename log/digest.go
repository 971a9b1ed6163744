package log

import (
	"encoding/hex"
	"fmt"

	"lukechampine.com/blake3"
	"lukechampine.com/blake3/guts"
)

// Digest is a BLAKE3-256 hash: of a commit's header (which names the commit
// and everything before it), of a commit's body, or of a group's views. It is
// a type of its own so that a digest is never mistaken for an identity.ID.
type Digest [32]byte

// String returns the digest as 64 lower-case hex digits.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// IsZero reports whether d is all zero, which stands for "none": the previous
// digest of a group's first commit, and the state digest of a group without
// views.
func (d Digest) IsZero() bool { return d == Digest{} }

// MarshalText gives the form of String.
func (d Digest) MarshalText() ([]byte, error) {
	return hex.AppendEncode(nil, d[:]), nil
}

// UnmarshalText accepts what String prints: exactly 64 lower-case hex digits.
func (d *Digest) UnmarshalText(text []byte) error {
	if len(text) != 2*len(d) {
		return fmt.Errorf("mosaik: digest: want 64 lower-case hex digits, have %d characters", len(text))
	}
	var out Digest
	if _, err := hex.Decode(out[:], text); err != nil || out.String() != string(text) {
		return fmt.Errorf("mosaik: digest: %q is not 64 lower-case hex digits", text)
	}
	*d = out
	return nil
}

const (
	groupChunks = guts.MaxSIMD                 // chunks one vector call compresses
	groupBytes  = groupChunks * guts.ChunkSize // 16 KiB
)

// Sum returns the BLAKE3-256 hash of b.
//
// It equals blake3.Sum256, which for inputs above one chunk starts goroutines
// and gives the vector unit one subtree each; bodies are hashed on the apply
// path of every replica, where one goroutine walking the input in whole vector
// groups is two to four times faster at 4 to 64 KiB (BenchmarkSum) and
// allocates nothing. The tree is the one of the BLAKE3 paper, section 2.1: a
// left subtree is always the largest complete one.
func Sum(b []byte) Digest {
	if len(b) <= guts.ChunkSize {
		return blake3.Sum256(b)
	}
	// stack[i] is the chaining value of a complete subtree of 16<<i chunks, as in
	// a binary counter: bit i of groups tells whether it is occupied.
	var stack [48][8]uint32
	var groups, chunk uint64
	for len(b) > groupBytes {
		n := guts.CompressBuffer((*[groupBytes]byte)(b), groupBytes, &guts.IV, chunk, 0)
		cv := guts.ChainingValue(n)
		level := 0
		for ; groups>>level&1 == 1; level++ {
			cv = guts.ChainingValue(guts.ParentNode(stack[level], cv, &guts.IV, 0))
		}
		stack[level] = cv
		groups++
		chunk += groupChunks
		b = b[groupBytes:]
	}
	// The last group, full or not, stays out of the counter: it is the right edge
	// of the tree, merged upwards over whatever complete subtrees stand left of it.
	var last [groupBytes]byte
	copy(last[:], b)
	node := guts.CompressBuffer(&last, len(b), &guts.IV, chunk, 0)
	for level := 0; groups>>level != 0; level++ {
		if groups>>level&1 == 1 {
			node = guts.ParentNode(stack[level], guts.ChainingValue(node), &guts.IV, 0)
		}
	}
	node.Flags |= guts.FlagRoot
	words := guts.CompressNode(node)
	full := guts.WordsToBytes(words)
	return Digest(full[:32])
}
