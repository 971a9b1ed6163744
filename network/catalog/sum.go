package catalog

import (
	"encoding/binary"

	"github.com/mosaik-engine/mosaik/identity"
)

// sum is that of the versions in a bucket: two words of 64 bits, added up over the
// versions, so that one can be put in and taken out. Who makes versions that add up to
// nothing hides from the comparison only what is its own.
type sum [2]uint64

// hashOf returns what a version adds to its bucket: the first 16 bytes of
// BLAKE3(peer || started || updated).
func hashOf(v version) sum {
	b := appendVersions(make([]byte, 0, 2+versionSize), []version{v})
	id := identity.FromParts(b[2:])
	return decodeSum(id[:sumSize])
}

func (s *sum) add(o sum) { s[0], s[1] = s[0]+o[0], s[1]+o[1] }

func (s *sum) remove(o sum) { s[0], s[1] = s[0]-o[0], s[1]-o[1] }

func (s *sum) appendTo(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, s[0])
	return binary.LittleEndian.AppendUint64(dst, s[1])
}

func decodeSum(b []byte) sum {
	return sum{binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])}
}

// sumOf returns the sum of all buckets: BLAKE3 of theirs in order.
func sumOf(sums *[buckets]sum) identity.ID {
	b := make([]byte, 0, buckets*sumSize)
	for i := range sums {
		b = sums[i].appendTo(b)
	}
	return identity.FromParts(b)
}
