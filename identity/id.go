package identity

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"

	"lukechampine.com/blake3"
)

// Size is the number of bytes in an [ID] and in a [PeerID].
const Size = 32

// textSize is the number of hex digits in the text form.
const textSize = 2 * Size

// ErrID reports a text or binary form that is not an ID or a PeerID. The error
// that wraps it says what is wrong with the form.
var ErrID = errors.New("mosaik: invalid id")

// ID names one thing: a group, a key, an organism, a class. It is a BLAKE3-256
// digest, or any 32 bytes that were decoded as such. The zero ID names nothing.
type ID [Size]byte

// NewID returns the ID that s names. If s is exactly 64 hex digits, of either
// case, they are decoded; otherwise the ID is BLAKE3(s). NewID does not look at
// the spelling of s: a name typed by people goes through [ValidateName] first.
func NewID(s string) ID {
	var id ID
	if len(s) == textSize {
		if _, err := hex.Decode(id[:], []byte(s)); err == nil {
			return id
		}
	}
	return blake3.Sum256([]byte(s))
}

// ParseID decodes the text form: 64 lower-case hex digits. Any other text is an
// error that wraps [ErrID].
func ParseID(text string) (ID, error) {
	var id ID
	if err := decodeText((*[Size]byte)(&id), text); err != nil {
		return ID{}, err
	}
	return id, nil
}

// FromParts returns the BLAKE3 digest of the concatenation of parts. The
// boundaries between the parts are not hashed: {"ab", "c"} and {"a", "bc"} give
// the same ID.
func FromParts(parts ...[]byte) ID {
	h := blake3.New(Size, nil)
	for _, p := range parts {
		_, _ = h.Write(p) // a hash never fails to write
	}
	var id ID
	h.Sum(id[:0])
	return id
}

// Derive returns H(id || info). The string may hold any bytes.
func (id ID) Derive(info string) ID {
	// Nearly every info is a short name: with the array the preimage is put
	// together without a second allocation.
	var buf [4 * Size]byte
	return blake3.Sum256(append(append(buf[:0], id[:]...), info...))
}

// DeriveID returns H(id || x).
func (id ID) DeriveID(x ID) ID {
	var buf [2 * Size]byte
	copy(buf[:Size], id[:])
	copy(buf[Size:], x[:])
	return blake3.Sum256(buf[:])
}

// Hashed returns H(id), which is also id.Derive("").
func (id ID) Hashed() ID { return blake3.Sum256(id[:]) }

// IsZero reports whether id is the zero ID, which names nothing.
func (id ID) IsZero() bool { return id == ID{} }

// Compare orders IDs by their bytes: -1, 0 or +1.
func (id ID) Compare(other ID) int { return bytes.Compare(id[:], other[:]) }

// String returns the text form.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// Short returns the first 8 hex digits of the text form, for people to tell IDs
// apart in a log line. It does not identify anything.
func (id ID) Short() string { return hex.EncodeToString(id[:4]) }

// AppendText appends the text form to dst. The error is always nil.
func (id ID) AppendText(dst []byte) ([]byte, error) { return hex.AppendEncode(dst, id[:]), nil }

// MarshalText returns the text form. The error is always nil.
func (id ID) MarshalText() ([]byte, error) { return id.AppendText(nil) }

// UnmarshalText sets id from the text form, as [ParseID] does; on an error id
// keeps its value.
func (id *ID) UnmarshalText(text []byte) error {
	return decodeText((*[Size]byte)(id), string(text))
}

// AppendBinary appends the 32 bytes of id to dst. The error is always nil.
func (id ID) AppendBinary(dst []byte) ([]byte, error) { return append(dst, id[:]...), nil }

// MarshalBinary returns the 32 bytes of id in a fresh slice. The error is
// always nil.
func (id ID) MarshalBinary() ([]byte, error) { return id.AppendBinary(nil) }

// UnmarshalBinary sets id from exactly 32 bytes, which it copies; any other
// length is an error that wraps [ErrID] and leaves id as it was.
func (id *ID) UnmarshalBinary(data []byte) error {
	return decodeBinary((*[Size]byte)(id), data)
}

// decodeText decodes the one text form into dst, which stays untouched unless
// the whole text is good.
func decodeText(dst *[Size]byte, text string) error {
	if len(text) != textSize {
		return fmt.Errorf("%w: %d characters, want %d hex digits", ErrID, len(text), textSize)
	}
	for i := range len(text) {
		switch c := text[i]; {
		case '0' <= c && c <= '9', 'a' <= c && c <= 'f':
		case 'A' <= c && c <= 'F':
			return fmt.Errorf("%w: upper-case digit %q at offset %d, the text form is lower case", ErrID, c, i)
		default:
			return fmt.Errorf("%w: %q at offset %d is not a hex digit", ErrID, c, i)
		}
	}
	if _, err := hex.Decode(dst[:], []byte(text)); err != nil {
		return fmt.Errorf("%w: %w", ErrID, err)
	}
	return nil
}

func decodeBinary(dst *[Size]byte, data []byte) error {
	if len(data) != Size {
		return fmt.Errorf("%w: %d bytes, want %d", ErrID, len(data), Size)
	}
	copy(dst[:], data)
	return nil
}
