package oracle

import (
	"errors"
	"math"

	"github.com/mosaik-engine/mosaik/organisms/wire"
)

// version is the first byte of a tick and of a round, and stands in every preimage.
const version = 1

// ErrEncoding says that bytes are not the one encoding of a tick, of a round, of
// parameters or of a catalog. The error that wraps it names the field.
var ErrEncoding = errors.New("mosaik: bad oracle encoding")

// appendSymbol appends s, which has at most MaxSymbol bytes, filled up with zeros. No
// symbol has a zero byte of its own: it would be a control character.
func appendSymbol(dst []byte, s string) []byte {
	var b [MaxSymbol]byte
	copy(b[:], s)
	return append(dst, b[:]...)
}

// cutter takes fields off the front of bytes.
type cutter struct{ wire.Cutter }

func newCutter(b []byte) *cutter { return &cutter{wire.NewCutter(b, ErrEncoding)} }

// symbol takes what appendSymbol appended. That it is the one encoding of a symbol follows
// from Pair.Validate, which lets no zero byte through.
func (c *cutter) symbol(field string) string {
	b := c.Take(field, MaxSymbol)
	n := len(b)
	for n > 0 && b[n-1] == 0 {
		n--
	}
	return string(b[:n])
}

// maxTimestamp is the last millisecond whose nanoseconds since 1970 fit 63 bits, in 2262.
const maxTimestamp = math.MaxInt64 / 1_000_000
