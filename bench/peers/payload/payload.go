// Package payload makes the records every peer is measured with.
//
// A record is a function of its sequence number alone, so writer and reader need not share memory:
//
//	offset 0        the sequence number, 8 bytes little-endian
//	offset 8        words of the SplitMix64 generator seeded with the sequence number
//	last 8 bytes    the XOR of all the words before, so that Check can touch every byte cheaply
//
// SplitMix64 output has no repetition a block compressor of the snappy class can find, so a store
// that compresses gains nothing over one that does not: an 8-byte counter in 128 bytes is all there
// is to squeeze. Filling 128 bytes takes tens of nanoseconds and stays inside the timed loops of all
// peers alike.
package payload

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// MinSize is the smallest record, in bytes: the sequence number and the check word.
const MinSize = 16

// ErrCorrupt is returned by Check for a record that Fill did not write.
var ErrCorrupt = errors.New("mosaik: record differs from what was written")

const word = 8

// Fill overwrites all of dst with the record of the given sequence number. The length of dst must
// be at least MinSize and a multiple of 8.
func Fill(dst []byte, seq uint64) {
	last := len(dst) - word
	binary.LittleEndian.PutUint64(dst, seq)
	fold, state := seq, seq
	for at := word; at < last; at += word {
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

// Check reads every byte of b and returns its sequence number. A record that is too short, of an odd
// length, or whose check word does not match yields ErrCorrupt.
func Check(b []byte) (uint64, error) {
	if len(b) < MinSize || len(b)%word != 0 {
		return 0, fmt.Errorf("%w: length %d", ErrCorrupt, len(b))
	}
	seq := binary.LittleEndian.Uint64(b)
	var fold uint64
	for ; len(b) > 0; b = b[word:] {
		fold ^= binary.LittleEndian.Uint64(b)
	}
	if fold != 0 {
		return 0, fmt.Errorf("%w: sequence %d", ErrCorrupt, seq)
	}
	return seq, nil
}

// ValidSize reports whether records of the given number of bytes can be made.
func ValidSize(size int) bool { return size >= MinSize && size%word == 0 }
