package log

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"
	"unicode/utf8"

	"github.com/mosaik-engine/mosaik/identity"
)

// Limits of what the collections hold. They are part of the format.
const (
	// MaxKey is the largest encoded key of a Map, Set or PriorityQueue in bytes.
	MaxKey = 512
	// MaxPriority is the largest encoded priority of a PriorityQueue in bytes.
	MaxPriority = 128
	// MaxValue is the largest encoded value of any collection in bytes: a command
	// with it and a key fits into one record.
	MaxValue = MaxPayload - 4<<10
)

// KeyOrder says what the encoding of a KeyCodec promises.
type KeyOrder uint8

const (
	// Canonical: equal values have equal bytes. The bytes are in no useful order.
	Canonical KeyOrder = 1
	// Ordered: canonical, and the bytes compare as the values do.
	Ordered KeyOrder = 2
)

// KeyCodec is a Codec whose encodings can be keys: equal values have equal
// bytes. Decode must refuse bytes that Append never writes. JSON and protobuf
// are none: they may write one value in two ways.
type KeyCodec[K any] interface {
	Codec[K]
	// Order says whether the encodings are in the order of the values as well.
	// Collections that promise an order refuse codecs that do not keep it.
	Order() KeyOrder
}

// checkKeys reports a codec that does not do for keys: none, or one without the
// order that the collection promises.
func checkKeys[K any](codec KeyCodec[K], order KeyOrder) error {
	if codec == nil {
		var k K
		return fmt.Errorf("%w: there is no default key codec for %T: set one", ErrCodec, k)
	}
	if codec.Order() < order {
		return fmt.Errorf("%w: %s does not keep the order of keys, which this collection promises", ErrCodec, codec.Name())
	}
	return nil
}

// encodeKey encodes a key with a prefix in front. The error wraps ErrCodec or
// ErrOversize.
func encodeKey[K any](prefix byte, codec KeyCodec[K], k K, limit int) ([]byte, error) {
	b, err := codec.Append([]byte{prefix}, k)
	if err != nil {
		return nil, err
	}
	if len(b)-1 > limit {
		return nil, fmt.Errorf("%w: an encoded key of %d bytes, at most %d are allowed", ErrOversize, len(b)-1, limit)
	}
	return b, nil
}

// encodeValue encodes a value of a collection. The error wraps ErrCodec or
// ErrOversize.
func encodeValue[V any](codec Codec[V], v V) ([]byte, error) {
	b, err := codec.Append(nil, v)
	if err != nil {
		return nil, err
	}
	if len(b) > MaxValue {
		return nil, fmt.Errorf("%w: an encoded value of %d bytes, at most %d are allowed", ErrOversize, len(b), MaxValue)
	}
	return b, nil
}

// keyFunc is a KeyCodec made of two functions.
type keyFunc[K any] struct {
	name   string
	order  KeyOrder
	append func(dst []byte, k K) ([]byte, error)
	decode func(b []byte) (K, error)
}

func (c keyFunc[K]) Name() string    { return c.name }
func (c keyFunc[K]) Order() KeyOrder { return c.order }

func (c keyFunc[K]) Append(dst []byte, k K) ([]byte, error) {
	out, err := c.append(dst, k)
	if err != nil {
		return dst, codecError(c.name, err)
	}
	return out, nil
}

func (c keyFunc[K]) Decode(b []byte) (K, error) {
	k, err := c.decode(b)
	if err != nil {
		var zero K
		return zero, codecError(c.name, err)
	}
	return k, nil
}

var errKeySize = errors.New("a key of another size")

// StringKey returns the key codec of strings, in the order of their bytes, which
// for UTF-8 is that of their code points. Strings must be UTF-8.
func StringKey() KeyCodec[string] {
	utf8Only := func(ok bool) error {
		if !ok {
			return errors.New("a key is not UTF-8; use BytesKey")
		}
		return nil
	}
	return keyFunc[string]{"string", Ordered,
		func(dst []byte, k string) ([]byte, error) { return append(dst, k...), utf8Only(utf8.ValidString(k)) },
		func(b []byte) (string, error) { return string(b), utf8Only(utf8.Valid(b)) }}
}

// BytesKey returns the key codec of byte strings, in their order.
func BytesKey() KeyCodec[[]byte] {
	return keyFunc[[]byte]{"bytes", Ordered,
		func(dst []byte, k []byte) ([]byte, error) { return append(dst, k...), nil },
		func(b []byte) ([]byte, error) { return append([]byte{}, b...), nil }}
}

// Uint64Key returns the key codec of unsigned numbers: 8 bytes, big-endian.
func Uint64Key() KeyCodec[uint64] {
	return keyFunc[uint64]{"uint64", Ordered,
		func(dst []byte, k uint64) ([]byte, error) { return binary.BigEndian.AppendUint64(dst, k), nil },
		func(b []byte) (uint64, error) {
			if len(b) != 8 {
				return 0, errKeySize
			}
			return binary.BigEndian.Uint64(b), nil
		}}
}

// signBit moves negative numbers below positive ones.
const signBit = 1 << 63

// Int64Key returns the key codec of signed numbers: 8 bytes, big-endian, with
// the sign bit turned over.
func Int64Key() KeyCodec[int64] {
	u := Uint64Key()
	return keyFunc[int64]{"int64", Ordered,
		func(dst []byte, k int64) ([]byte, error) { return u.Append(dst, uint64(k)^signBit) },
		func(b []byte) (int64, error) {
			k, err := u.Decode(b)
			return int64(k ^ signBit), err
		}}
}

// IntKey is Int64Key for int.
func IntKey() KeyCodec[int] {
	i := Int64Key()
	return keyFunc[int]{"int64", Ordered,
		func(dst []byte, k int) ([]byte, error) { return i.Append(dst, int64(k)) },
		func(b []byte) (int, error) {
			k, err := i.Decode(b)
			if err == nil && int64(int(k)) != k {
				err = fmt.Errorf("%d does not fit an int", k)
			}
			return int(k), err
		}}
}

// Float64Key returns the key codec of floating-point numbers in their order.
// NaN is refused, and -0 is written as 0.
func Float64Key() KeyCodec[float64] {
	u := Uint64Key()
	return keyFunc[float64]{"float64", Ordered,
		func(dst []byte, k float64) ([]byte, error) {
			if k == 0 {
				k = 0 // -0 is equal to 0, so it has its bytes
			}
			bits := math.Float64bits(k)
			if bits&signBit != 0 {
				bits = ^bits
			} else {
				bits |= signBit
			}
			if math.IsNaN(k) {
				return dst, errors.New("NaN is no key")
			}
			return u.Append(dst, bits)
		},
		func(b []byte) (float64, error) {
			bits, err := u.Decode(b)
			if bits&signBit != 0 {
				bits &^= signBit
			} else {
				bits = ^bits
			}
			k := math.Float64frombits(bits)
			if err == nil && (math.IsNaN(k) || bits == signBit) {
				err = errors.New("NaN and -0 are no keys")
			}
			return k, err
		}}
}

// IDKey returns the key codec of IDs: their 32 bytes.
func IDKey() KeyCodec[identity.ID] {
	return keyFunc[identity.ID]{"id", Ordered,
		func(dst []byte, k identity.ID) ([]byte, error) { return append(dst, k[:]...), nil },
		func(b []byte) (identity.ID, error) {
			if len(b) != identity.Size {
				return identity.ID{}, errKeySize
			}
			return identity.ID(b), nil
		}}
}

// TimeKey returns the key codec of moments: their Unix nanoseconds as Int64Key
// writes them. Moments outside the years 1678 to 2262 are refused, and time
// zones are not kept.
func TimeKey() KeyCodec[time.Time] {
	i := Int64Key()
	return keyFunc[time.Time]{"time", Ordered,
		func(dst []byte, k time.Time) ([]byte, error) {
			n := k.UnixNano()
			if !time.Unix(0, n).Equal(k) {
				return dst, fmt.Errorf("%v is outside the years 1678 to 2262", k)
			}
			return i.Append(dst, n)
		},
		func(b []byte) (time.Time, error) {
			n, err := i.Decode(b)
			return time.Unix(0, n).UTC(), err
		}}
}

// Pair is a key of two parts, which PairKey encodes.
type Pair[A, B any] struct {
	First  A // decides the order
	Second B // decides it between equal First
}

// PairKey returns the key codec of pairs, ordered by the first part and then by
// the second. It keeps the order that both parts keep.
func PairKey[A, B any](first KeyCodec[A], second KeyCodec[B]) KeyCodec[Pair[A, B]] {
	return keyFunc[Pair[A, B]]{"pair:" + first.Name() + "+" + second.Name(), min(first.Order(), second.Order()),
		func(dst []byte, k Pair[A, B]) ([]byte, error) {
			part, err := first.Append(nil, k.First)
			if err != nil {
				return dst, err
			}
			out, err := second.Append(AppendOrdered(dst, part), k.Second)
			if err != nil {
				return dst, err
			}
			return out, nil
		},
		func(b []byte) (k Pair[A, B], err error) {
			part, rest, ok := CutOrdered(b)
			if !ok {
				return k, errors.New("the first part of a pair has no end")
			}
			if k.First, err = first.Decode(part); err != nil {
				return k, err
			}
			k.Second, err = second.Decode(rest)
			return k, err
		}}
}

// CBORKey returns the key codec of any type that CBOR encodes. It is canonical
// and keeps no order.
func CBORKey[K any]() KeyCodec[K] { return cborKey[K]{CBOR[K]()} }

type cborKey[K any] struct{ Codec[K] }

func (cborKey[K]) Order() KeyOrder { return Canonical }

// Decode refuses what Append would have written in another way.
func (c cborKey[K]) Decode(b []byte) (K, error) {
	var zero K
	k, err := c.Codec.Decode(b)
	if err != nil {
		return zero, err
	}
	again, err := c.Append(nil, k)
	if err != nil {
		return zero, err
	}
	if !bytes.Equal(again, b) {
		return zero, codecError(c.Name(), errors.New("a key is not in its canonical form"))
	}
	return k, nil
}

// DefaultKey returns the key codec that a definition without one gets, by the
// type of the key: string, []byte, uint64, int64, int, float64, identity.ID,
// time.Time; nil for others.
func DefaultKey[K any]() KeyCodec[K] {
	var k K
	var codec any
	switch any(k).(type) {
	case string:
		codec = StringKey()
	case []byte:
		codec = BytesKey()
	case uint64:
		codec = Uint64Key()
	case int64:
		codec = Int64Key()
	case int:
		codec = IntKey()
	case float64:
		codec = Float64Key()
	case identity.ID:
		codec = IDKey()
	case time.Time:
		codec = TimeKey()
	}
	c, _ := codec.(KeyCodec[K])
	return c
}

// AppendOrdered appends b so that it can stand in front of other bytes: with
// 0x00 as 0x00 0xff, ended by 0x00 0x01. Byte strings sort as they did, and none
// is a prefix of another.
func AppendOrdered(dst, b []byte) []byte { return append(AppendEscaped(dst, b), 0x00, 0x01) }

// AppendEscaped is AppendOrdered without the end.
func AppendEscaped(dst, b []byte) []byte {
	for {
		i := bytes.IndexByte(b, 0x00)
		if i < 0 {
			return append(dst, b...)
		}
		dst = append(append(dst, b[:i]...), 0x00, 0xff)
		b = b[i+1:]
	}
}

// CutOrdered splits what AppendOrdered wrote off the front of b; false: there is
// no such thing. first is a copy.
func CutOrdered(b []byte) (first, rest []byte, ok bool) {
	for {
		i := bytes.IndexByte(b, 0x00)
		if i < 0 || i+1 >= len(b) {
			return nil, nil, false
		}
		first = append(first, b[:i]...)
		switch b[i+1] {
		case 0xff:
			first, b = append(first, 0x00), b[i+2:]
		case 0x01:
			return first, b[i+2:], true
		default:
			return nil, nil, false
		}
	}
}
