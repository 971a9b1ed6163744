package log

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/fxamacker/cbor/v2"
	"google.golang.org/protobuf/proto"
)

// Codec turns values into payloads and back. Its law: what Append encodes,
// Decode gives back as an equal value. Whoever writes encodes once, and those
// bytes are what is agreed upon and stored; nobody encodes a value again.
//
// A Codec has no state that changes and is safe for concurrent use.
type Codec[T any] interface {
	// Name names the encoding in the directory of logs. A log written with one name
	// is never read with another, so a changed encoding needs a new name.
	Name() string
	// Append appends the encoding of v to dst and returns the extended slice. On
	// an error, which wraps ErrCodec, it returns dst as it was; the bytes behind
	// len(dst) may have been used.
	Append(dst []byte, v T) ([]byte, error)
	// Decode decodes the whole of b. It neither changes b nor keeps it: the value
	// shares no memory with b. The error wraps ErrCodec and comes with the zero T.
	Decode(b []byte) (T, error)
}

// codecError gives what an encoder or decoder complains of the mark and the
// name of the codec.
func codecError(name string, err error) error {
	return fmt.Errorf("%w %s: %w", ErrCodec, name, err)
}

// MaxDepth is how deep the arrays, maps and tags of a CBOR value may nest.
const MaxDepth = 64

// CBOR returns the default codec, named "cbor": CBOR in the core deterministic
// encoding of RFC 8949, section 4.2.1. Equal values have equal bytes: lengths
// and numbers are in their shortest form, map keys are sorted. A time.Time is
// written in UTC with nanoseconds (tag 0); a type with MarshalBinary, such as
// identity.ID, as a byte string. Struct fields are named by a `cbor` tag, else a
// `json` tag, else the Go name.
//
// Append refuses what Decode would not take: strings that are not UTF-8, equal
// keys in one map, nesting beyond [MaxDepth]. Decode refuses these as well,
// payloads above [MaxPayload], indefinite lengths and bytes after the value. It
// ignores struct fields it does not know, so a struct may grow.
func CBOR[T any]() Codec[T] {
	encoding := cbor.CoreDetEncOptions()
	encoding.Time = cbor.TimeRFC3339NanoUTC
	encoding.TimeTag = cbor.EncTagRequired
	enc, encErr := encoding.UserBufferEncMode()
	// Every element has at least one byte, so the payload's limit is the limit of
	// elements too.
	dec, decErr := cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		MaxNestedLevels:   MaxDepth,
		MaxArrayElements:  MaxPayload,
		MaxMapPairs:       MaxPayload,
		IndefLength:       cbor.IndefLengthForbidden,
		MapKeyByteString:  cbor.MapKeyByteStringAllowed,
		FieldNameMatching: cbor.FieldNameMatchingCaseSensitive,
	}.DecMode()
	if err := errors.Join(encErr, decErr); err != nil {
		// invariant: the options are constant, and accepted.
		panic(fmt.Sprintf("log: CBOR options: %v", err))
	}
	return cborCodec[T]{enc, dec}
}

type cborCodec[T any] struct {
	enc cbor.UserBufferEncMode
	dec cbor.DecMode
}

func (cborCodec[T]) Name() string { return "cbor" }

func (c cborCodec[T]) Append(dst []byte, v T) ([]byte, error) {
	buf := bytes.NewBuffer(dst)
	if err := c.enc.MarshalToBuffer(v, buf); err != nil {
		return dst, codecError(c.Name(), err)
	}
	out := buf.Bytes()
	rest, err := checkCBOR(out[len(dst):], 0)
	if err == nil && len(rest) != 0 {
		err = errCBORForm
	}
	if err != nil {
		return dst, codecError(c.Name(), err)
	}
	return out, nil
}

func (c cborCodec[T]) Decode(b []byte) (T, error) {
	var v, zero T
	if len(b) > MaxPayload {
		return zero, codecError(c.Name(), fmt.Errorf("%d bytes, at most %d are allowed", len(b), MaxPayload))
	}
	if err := c.dec.Unmarshal(b, &v); err != nil {
		return zero, codecError(c.Name(), err)
	}
	return v, nil
}

var (
	errCBORForm  = errors.New("a marshaler of the value gave malformed or indefinite-length CBOR")
	errCBORText  = errors.New("a string is not UTF-8; use a byte slice")
	errCBORKeys  = errors.New("a map has equal or unsorted keys")
	errCBORDepth = fmt.Errorf("nested deeper than %d", MaxDepth)
)

// checkCBOR walks the first item of b, which an encoder wrote, and returns what
// follows it. It finds what the encoder lets through and a decoder refuses: a
// record that can be written and never read again.
func checkCBOR(b []byte, depth int) (rest []byte, err error) {
	if len(b) == 0 {
		return nil, errCBORForm
	}
	const (
		bytesMajor, textMajor, arrayMajor, mapMajor, tagMajor = 2, 3, 4, 5, 6
	)
	major, n, b := b[0]>>5, uint64(b[0]&0x1f), b[1:]
	if n >= 24 { // the argument follows in 1, 2, 4 or 8 bytes; above 27 it has no length
		var arg [8]byte
		size := 1 << (n - 24)
		if n > 27 || size > len(b) {
			return nil, errCBORForm
		}
		copy(arg[8-size:], b)
		n, b = binary.BigEndian.Uint64(arg[:]), b[size:]
	}
	switch major {
	case bytesMajor, textMajor:
		if n > uint64(len(b)) {
			return nil, errCBORForm
		}
		if major == textMajor && !utf8.Valid(b[:n]) {
			return nil, errCBORText
		}
		return b[n:], nil
	case arrayMajor, mapMajor, tagMajor:
		if depth++; depth > MaxDepth {
			return nil, errCBORDepth
		}
	}
	switch major {
	case tagMajor:
		return checkCBOR(b, depth)
	case arrayMajor:
		for ; n > 0 && err == nil; n-- {
			b, err = checkCBOR(b, depth)
		}
		return b, err
	case mapMajor:
		var last []byte
		for ; n > 0 && err == nil; n-- {
			var value []byte
			if value, err = checkCBOR(b, depth); err != nil {
				break
			}
			key := b[:len(b)-len(value)]
			if last != nil && bytes.Compare(last, key) >= 0 {
				return nil, errCBORKeys
			}
			last = key
			b, err = checkCBOR(value, depth)
		}
		return b, err
	}
	return b, nil
}

// JSON returns the codec named "json": encoding/json, compact, without HTML
// escapes. Decode refuses bytes after the value and ignores unknown fields.
// Strings must be UTF-8: encoding/json replaces what is not. It fits values that
// other programs read from the log; equal values need not have equal bytes.
func JSON[T any]() Codec[T] { return jsonCodec[T]{} }

type jsonCodec[T any] struct{}

func (jsonCodec[T]) Name() string { return "json" }

func (c jsonCodec[T]) Append(dst []byte, v T) ([]byte, error) {
	buf := bytes.NewBuffer(dst)
	enc := json.NewEncoder(buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return dst, codecError(c.Name(), err)
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), nil
}

func (c jsonCodec[T]) Decode(b []byte) (T, error) {
	var v, zero T
	if err := json.Unmarshal(b, &v); err != nil {
		return zero, codecError(c.Name(), err)
	}
	return v, nil
}

// Proto returns the codec of one protobuf message type, named "proto:" and the
// full name of the message. T is the generated pointer type, *pb.Tick. Fields
// are written in a fixed order by one version of the library, which is not
// canonical across versions. A nil message is refused.
func Proto[T proto.Message]() Codec[T] {
	var zero T
	if any(zero) == nil {
		// invariant: T is a message type. Which type it is, is settled at compile time.
		panic("log: Proto needs a message type, not an interface")
	}
	return protoCodec[T]{name: "proto:" + string(zero.ProtoReflect().Descriptor().FullName())}
}

type protoCodec[T proto.Message] struct{ name string }

func (c protoCodec[T]) Name() string { return c.name }

func (c protoCodec[T]) Append(dst []byte, v T) ([]byte, error) {
	if any(v) == nil || !v.ProtoReflect().IsValid() {
		return dst, codecError(c.name, errors.New("the message is nil"))
	}
	out, err := proto.MarshalOptions{Deterministic: true}.MarshalAppend(dst, v)
	if err != nil {
		return dst, codecError(c.name, err)
	}
	return out, nil
}

func (c protoCodec[T]) Decode(b []byte) (T, error) {
	var zero T
	v := zero.ProtoReflect().New().Interface().(T)
	if err := proto.Unmarshal(b, v); err != nil {
		return zero, codecError(c.name, err)
	}
	return v, nil
}

// Raw returns the codec named "raw", which writes bytes as they are. Decode
// returns a copy, never nil: an empty and a nil slice are the same record.
func Raw() Codec[[]byte] { return rawCodec{} }

type rawCodec struct{}

func (rawCodec) Name() string { return "raw" }

func (rawCodec) Append(dst []byte, v []byte) ([]byte, error) { return append(dst, v...), nil }

func (rawCodec) Decode(b []byte) ([]byte, error) { return append([]byte{}, b...), nil }
