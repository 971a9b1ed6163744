package oracle

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/mosaik-engine/mosaik/identity"
)

// version is the first byte of a tick and of a round, and stands in every preimage.
const version = 1

// ErrEncoding says that bytes are not the one encoding of a tick, of a round, of
// parameters or of a catalog. The error that wraps it names the field.
var ErrEncoding = errors.New("mosaik: bad oracle encoding")

// appendText appends the length of s, 4 bytes little-endian, and s.
func appendText(dst []byte, s string) []byte {
	return append(binary.LittleEndian.AppendUint32(dst, uint32(len(s))), s...)
}

// appendSymbol appends s, which has at most MaxSymbol bytes, filled up with zeros. No
// symbol has a zero byte of its own: it would be a control character.
func appendSymbol(dst []byte, s string) []byte {
	var b [MaxSymbol]byte
	copy(b[:], s)
	return append(dst, b[:]...)
}

func appendBool(dst []byte, v bool) []byte {
	if v {
		return append(dst, 1)
	}
	return append(dst, 0)
}

// cutter takes fields off the front of bytes. After the first that is not there, or cannot
// be, all are zero, and err says which that was.
type cutter struct {
	rest []byte
	err  error
}

func (c *cutter) fail(field, format string, args ...any) {
	if c.err == nil {
		c.err = fmt.Errorf("%w: %s: "+format, append([]any{ErrEncoding, field}, args...)...)
		c.rest = nil
	}
}

// take returns the next n bytes, which are still the caller's, or zeros.
func (c *cutter) take(field string, n int) []byte {
	if c.err == nil && len(c.rest) < n {
		c.fail(field, "%d bytes are left, it has %d", len(c.rest), n)
	}
	if c.err != nil {
		return make([]byte, n)
	}
	b := c.rest[:n]
	c.rest = c.rest[n:]
	return b
}

func (c *cutter) u8(field string) uint8   { return c.take(field, 1)[0] }
func (c *cutter) u16(field string) uint16 { return binary.LittleEndian.Uint16(c.take(field, 2)) }
func (c *cutter) u32(field string) uint32 { return binary.LittleEndian.Uint32(c.take(field, 4)) }
func (c *cutter) u64(field string) uint64 { return binary.LittleEndian.Uint64(c.take(field, 8)) }

func (c *cutter) id(field string) identity.ID { return identity.ID(c.take(field, identity.Size)) }

// literal takes bytes that cannot be others.
func (c *cutter) literal(field, want string) {
	if got := c.take(field, len(want)); c.err == nil && string(got) != want {
		c.fail(field, "%q, not %q", got, want)
	}
}

func (c *cutter) bool(field string) bool {
	b := c.u8(field)
	if b > 1 {
		c.fail(field, "%d is neither 0 nor 1", b)
	}
	return b == 1
}

// text takes what appendText appended, of at most limit bytes.
func (c *cutter) text(field string, limit int) string {
	n := c.u32(field)
	if uint64(n) > uint64(limit) {
		c.fail(field, "%d bytes, the limit is %d", n, limit)
		return ""
	}
	return string(c.take(field, int(n)))
}

// symbol takes what appendSymbol appended. That it is the one encoding of a symbol follows
// from Pair.Validate, which lets no zero byte through.
func (c *cutter) symbol(field string) string {
	b := c.take(field, MaxSymbol)
	n := len(b)
	for n > 0 && b[n-1] == 0 {
		n--
	}
	return string(b[:n])
}

// end returns the error, or one if bytes are left over.
func (c *cutter) end() error {
	if len(c.rest) > 0 {
		c.fail("end", "%d bytes are left over", len(c.rest))
	}
	return c.err
}

// maxTimestamp is the last millisecond whose nanoseconds since 1970 fit 63 bits, in 2262.
const maxTimestamp = math.MaxInt64 / 1_000_000
