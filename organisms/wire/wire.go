// Package wire takes the encodings of organisms apart, field by field: integers are
// little-endian, and a text or a list has its length before it.
//
//	u8 u16 u32 u64   1, 2, 4, 8 bytes
//	id               32 bytes
//	bool             0 or 1
//	text             length 4 | bytes
//
// What is put together needs no package: binary.LittleEndian.AppendUint32 and append.
package wire

import (
	"encoding/binary"
	"fmt"

	"github.com/mosaik-engine/mosaik/identity"
)

// Cutter takes fields off the front of bytes. After the first that is not there, or cannot
// be, all are zero, and End says which that was.
type Cutter struct {
	rest     []byte
	sentinel error
	err      error
}

// NewCutter returns a cutter of b, which it does not change. Its errors wrap the sentinel.
func NewCutter(b []byte, sentinel error) Cutter { return Cutter{rest: b, sentinel: sentinel} }

// Fail says that a field cannot be. The first call counts.
func (c *Cutter) Fail(field, format string, args ...any) {
	if c.err == nil {
		c.err = fmt.Errorf("%w: %s: "+format, append([]any{c.sentinel, field}, args...)...)
		c.rest = nil
	}
}

// Failed reports whether a field was not there or could not be: a loop over a count that was
// read ends then.
func (c *Cutter) Failed() bool { return c.err != nil }

// Take returns the next n bytes, which are still the caller's, or zeros.
func (c *Cutter) Take(field string, n int) []byte {
	if c.err == nil && len(c.rest) < n {
		c.Fail(field, "%d bytes are left, it has %d", len(c.rest), n)
	}
	if c.err != nil {
		return make([]byte, n)
	}
	b := c.rest[:n]
	c.rest = c.rest[n:]
	return b
}

// U8 takes one byte.
func (c *Cutter) U8(field string) uint8 { return c.Take(field, 1)[0] }

// U16 takes two bytes.
func (c *Cutter) U16(field string) uint16 { return binary.LittleEndian.Uint16(c.Take(field, 2)) }

// U32 takes four bytes.
func (c *Cutter) U32(field string) uint32 { return binary.LittleEndian.Uint32(c.Take(field, 4)) }

// U64 takes eight bytes.
func (c *Cutter) U64(field string) uint64 { return binary.LittleEndian.Uint64(c.Take(field, 8)) }

// ID takes an ID.
func (c *Cutter) ID(field string) identity.ID { return identity.ID(c.Take(field, identity.Size)) }

// Literal takes bytes that cannot be others.
func (c *Cutter) Literal(field, want string) {
	if got := c.Take(field, len(want)); c.err == nil && string(got) != want {
		c.Fail(field, "%q, not %q", got, want)
	}
}

// Bool takes a byte that is 0 or 1.
func (c *Cutter) Bool(field string) bool {
	b := c.U8(field)
	if b > 1 {
		c.Fail(field, "%d is neither 0 nor 1", b)
	}
	return b == 1
}

// Count takes the length of a list, in four bytes, of at most limit elements.
func (c *Cutter) Count(field string, limit int) int {
	n := c.U32(field)
	if uint64(n) > uint64(limit) {
		c.Fail(field, "%d, the limit is %d", n, limit)
		return 0
	}
	return int(n)
}

// Text takes what AppendText appended, of at most limit bytes.
func (c *Cutter) Text(field string, limit int) string {
	n := c.U32(field)
	if uint64(n) > uint64(limit) {
		c.Fail(field, "%d bytes, the limit is %d", n, limit)
		return ""
	}
	return string(c.Take(field, int(n)))
}

// Rest takes all that is left, which is still the caller's.
func (c *Cutter) Rest() []byte {
	b := c.rest
	c.rest = nil
	return b
}

// End returns the error, or one if bytes are left over.
func (c *Cutter) End() error {
	if len(c.rest) > 0 {
		c.Fail("end", "%d bytes are left over", len(c.rest))
	}
	return c.err
}

// AppendText appends the length of s, 4 bytes, and s.
func AppendText(dst []byte, s string) []byte {
	return append(binary.LittleEndian.AppendUint32(dst, uint32(len(s))), s...)
}

// AppendBool appends 0 or 1.
func AppendBool(dst []byte, v bool) []byte {
	if v {
		return append(dst, 1)
	}
	return append(dst, 0)
}
