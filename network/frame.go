package network

import (
	"encoding/binary"
	"math"
)

// What a frame is. The numbers are on the wire and never given anew.
const (
	kindHello     = 1
	kindWelcome   = 2
	kindClose     = 3
	kindHeartbeat = 4
	kindEntry     = 5
	kindMessage   = 16
)

// headerSize is the size of what is before each frame's content: its length, 4
// bytes little-endian, and its kind.
const headerSize = 5

func appendHeader(dst []byte, kind byte, n int) []byte {
	return append(binary.LittleEndian.AppendUint32(dst, uint32(n)), kind)
}

// decodeHeader decodes the headerSize bytes of a header. Whoever calls it holds the
// length against the limit of the kind.
func decodeHeader(b []byte) (kind byte, n int) {
	return b[4], int(min(binary.LittleEndian.Uint32(b), math.MaxInt32))
}
