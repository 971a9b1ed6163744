package bench

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// A payload is a function of its number, so whoever reads it can check it
// without the original:
//
//	first 8 bytes   the number, little-endian
//	then            words of the SplitMix64 generator, seeded with the number
//	last 8 bytes    the XOR of all words before
//
// Nothing in it can be compressed. bench/peers makes its records by the same
// rule, so every subject of a comparison gets the same bytes.

// minPayload is the smallest payload in bytes: the number and the check word.
const minPayload = 16

const wordSize = 8

var errPayload = errors.New("mosaik: bench: record differs from what was written")

// fillPayload overwrites dst, whose length validSize has approved.
func fillPayload(dst []byte, number uint64) {
	last := len(dst) - wordSize
	binary.LittleEndian.PutUint64(dst, number)
	fold, state := number, number
	for at := wordSize; at < last; at += wordSize {
		state += 0x9e3779b97f4a7c15
		z := state
		z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		z ^= z >> 31
		fold ^= z
		binary.LittleEndian.PutUint64(dst[at:], z)
	}
	binary.LittleEndian.PutUint64(dst[last:], fold)
}

// checkPayload reads every byte of b and returns its number.
func checkPayload(b []byte) (uint64, error) {
	if !validSize(len(b)) {
		return 0, fmt.Errorf("%w: it has %d bytes", errPayload, len(b))
	}
	number := binary.LittleEndian.Uint64(b)
	var fold uint64
	for ; len(b) > 0; b = b[wordSize:] {
		fold ^= binary.LittleEndian.Uint64(b)
	}
	if fold != 0 {
		return 0, fmt.Errorf("%w: number %d", errPayload, number)
	}
	return number, nil
}

func validSize(size int) bool { return size >= minPayload && size%wordSize == 0 }

// payloads are the reused buffers of one append.
type payloads [][]byte

func newPayloads(count, size int) payloads {
	all := make([]byte, count*size)
	p := make(payloads, count)
	for i := range p {
		p[i] = all[i*size : (i+1)*size : (i+1)*size]
	}
	return p
}

// fill makes them the payloads numbered from first on.
func (p payloads) fill(first uint64) {
	for i := range p {
		fillPayload(p[i], first+uint64(i))
	}
}
