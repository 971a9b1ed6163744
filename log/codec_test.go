package log_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"maps"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

type nested struct {
	Label string `json:"label"`
	Next  *nested
}

type sample struct {
	Text   string
	Bytes  []byte
	Int    int64
	Uint   uint64
	Float  float64
	Flag   bool
	At     time.Time
	ID     identity.ID
	Digest log.Digest
	List   []string
	Map    map[string]int64
	Nested nested
}

// clone returns an equal sample whose map was filled in another order.
func (s sample) clone() sample {
	if s.Map != nil {
		s.Map = maps.Clone(s.Map)
	}
	return s
}

func drawID(t *rapid.T, label string) identity.ID {
	return identity.ID(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, label))
}

func drawSample(t *rapid.T) sample {
	s := sample{
		Text:   rapid.String().Draw(t, "text"),
		Bytes:  rapid.SliceOf(rapid.Byte()).Draw(t, "bytes"),
		Int:    rapid.Int64().Draw(t, "int"),
		Uint:   rapid.Uint64().Draw(t, "uint"),
		Float:  rapid.Float64().Filter(func(f float64) bool { return !math.IsInf(f, 0) && !math.IsNaN(f) }).Draw(t, "float"),
		Flag:   rapid.Bool().Draw(t, "flag"),
		At:     time.Unix(0, rapid.Int64().Draw(t, "nanos")).UTC(),
		ID:     drawID(t, "id"),
		Digest: log.Digest(drawID(t, "digest")),
		List:   rapid.SliceOf(rapid.String()).Draw(t, "list"),
		Map:    rapid.MapOf(rapid.String(), rapid.Int64()).Draw(t, "map"),
	}
	for range rapid.IntRange(0, 5).Draw(t, "depth") {
		inner := s.Nested
		s.Nested = nested{Label: rapid.String().Draw(t, "label"), Next: &inner}
	}
	return s
}

// checkLaws checks what every codec promises for one value.
func checkLaws[T any](t *rapid.T, codec log.Codec[T], v, same T, equal func(a, b T) bool) {
	t.Helper()
	prefix := rapid.SliceOfN(rapid.Byte(), 0, 8).Draw(t, "prefix")
	encoded, err := codec.Append(bytes.Clone(prefix), v)
	if err != nil {
		t.Fatalf("%s: encode %v: %v", codec.Name(), v, err)
	}
	payload, isAppended := bytes.CutPrefix(encoded, prefix)
	if !isAppended {
		t.Fatalf("%s: Append changed what was there: %x, had %x", codec.Name(), encoded, prefix)
	}
	again, err := codec.Append(nil, same)
	if err != nil || !bytes.Equal(payload, again) {
		t.Fatalf("%s: encoded twice: %x, %x, %v", codec.Name(), payload, again, err)
	}
	decoded, err := codec.Decode(payload)
	if err != nil {
		t.Fatalf("%s: decode its own %x: %v", codec.Name(), payload, err)
	}
	if !equal(decoded, v) {
		t.Fatalf("%s: decode(encode(v)) = %+v, want %+v", codec.Name(), decoded, v)
	}
	if !bytes.Equal(payload, again) {
		t.Fatalf("%s: Decode changed its input", codec.Name())
	}
	// The value must not look into the payload: the log takes that back.
	for i := range payload {
		payload[i] ^= 0xff
	}
	if !equal(decoded, v) {
		t.Fatalf("%s: the value shares memory with the payload", codec.Name())
	}
}

func deepEqual[T any](a, b T) bool { return reflect.DeepEqual(a, b) }

func TestCodecLaws(t *testing.T) {
	t.Run("struct", rapid.MakeCheck(func(t *rapid.T) {
		s := drawSample(t)
		checkLaws(t, log.CBOR[sample](), s, s.clone(), deepEqual)
		checkLaws(t, log.JSON[sample](), s, s.clone(), deepEqual)
		checkLaws(t, log.CBOR[*sample](), &s, &s, deepEqual)
	}))
	t.Run("map with ids for keys", rapid.MakeCheck(func(t *rapid.T) {
		v := map[identity.ID]uint32{}
		for range rapid.IntRange(0, 5).Draw(t, "size") {
			v[drawID(t, "key")] = rapid.Uint32().Draw(t, "value")
		}
		checkLaws(t, log.CBOR[map[identity.ID]uint32](), v, maps.Clone(v), deepEqual)
		checkLaws(t, log.JSON[map[identity.ID]uint32](), v, maps.Clone(v), deepEqual)
	}))
	t.Run("any", rapid.MakeCheck(func(t *rapid.T) {
		v := drawAny(t, 4)
		checkLaws(t, log.CBOR[any](), v, v, deepEqual)
	}))
	t.Run("scalars", rapid.MakeCheck(func(t *rapid.T) {
		f := rapid.Float64().Draw(t, "f64")
		checkLaws(t, log.CBOR[float64](), f, f, func(a, b float64) bool { return a == b || a != a && b != b })
		n := rapid.Int16().Draw(t, "i16")
		checkLaws(t, log.CBOR[int16](), n, n, deepEqual)
		checkLaws(t, log.JSON[int16](), n, n, deepEqual)
	}))
	t.Run("raw", rapid.MakeCheck(func(t *rapid.T) {
		b := rapid.SliceOf(rapid.Byte()).Draw(t, "bytes")
		checkLaws(t, log.Raw(), b, bytes.Clone(b), bytes.Equal)
	}))
	t.Run("proto", rapid.MakeCheck(func(t *rapid.T) {
		fields := map[string]any{}
		for _, name := range rapid.SliceOf(rapid.String()).Draw(t, "names") {
			fields[name] = rapid.Float64().Draw(t, "number")
		}
		v, err := structpb.NewStruct(fields)
		if err != nil {
			t.Fatal(err)
		}
		checkLaws(t, log.Proto[*structpb.Struct](), v, proto.CloneOf(v), func(a, b *structpb.Struct) bool { return proto.Equal(a, b) })
	}))
}

// drawAny draws a value of the types that CBOR decodes into an empty interface.
func drawAny(t *rapid.T, depth int) any {
	kinds := 8
	if depth == 0 {
		kinds = 6
	}
	switch rapid.IntRange(0, kinds-1).Draw(t, "kind") {
	case 0:
		return rapid.String().Draw(t, "text")
	case 1:
		return rapid.Uint64().Draw(t, "uint")
	case 2:
		return rapid.Int64Max(-1).Draw(t, "negative")
	case 3:
		return rapid.SliceOf(rapid.Byte()).Draw(t, "bytes")
	case 4:
		return rapid.Bool().Draw(t, "bool")
	case 5:
		return nil
	case 6:
		list := []any{}
		for range rapid.IntRange(0, 4).Draw(t, "length") {
			list = append(list, drawAny(t, depth-1))
		}
		return list
	default:
		m := map[any]any{}
		for range rapid.IntRange(0, 4).Draw(t, "size") {
			m[rapid.String().Draw(t, "key")] = drawAny(t, depth-1)
		}
		return m
	}
}

func TestCBORIsDeterministic(t *testing.T) {
	// RFC 8949, 4.2.1: shortest forms, keys in the order of their bytes; times as
	// tag 0 in UTC.
	type tick struct {
		Price float64           `cbor:"p"`
		At    time.Time         `cbor:"at"`
		Who   identity.ID       `cbor:"w"`
		Tags  map[string]uint64 `cbor:"t"`
	}
	v := tick{
		Price: 1.5,
		At:    time.Date(2024, 5, 6, 9, 8, 9, 500_000_000, time.FixedZone("", 2*3600)),
		Who:   identity.NewID("oracle.price"),
		Tags:  map[string]uint64{"bb": 1, "a": 256, "": 23},
	}
	const want = "a4" +
		"6170" + "f93e00" +
		"6174" + "a3" + "60" + "17" + "6161" + "190100" + "626262" + "01" +
		"6177" + "5820" + "12de13e6d3ad14e1ba8d0ddcfb40dfb9de864e44e7badebe2c02a6d6ccc4a10a" +
		"626174" + "c0" + "76" // a time of 22 characters
	got, err := log.CBOR[tick]().Append(nil, v)
	if err != nil {
		t.Fatal(err)
	}
	if text := hex.EncodeToString(got); text != want+hex.EncodeToString([]byte("2024-05-06T07:08:09.5Z")) {
		t.Errorf("encoded as %s", text)
	}
	back, err := log.CBOR[tick]().Decode(got)
	if err != nil || !back.At.Equal(v.At) || back.At.Location() != time.UTC {
		t.Errorf("the time came back as %v, %v", back.At, err)
	}
}

// nest returns depth lists inside each other.
func nest(depth int) any {
	var v any = uint64(7)
	for range depth {
		v = []any{v}
	}
	return v
}

// What Append refuses is what would be written and never be read again.
func TestCBORRefusesToWrite(t *testing.T) {
	codec := log.CBOR[any]()
	for _, tc := range []struct {
		value any
		why   string
	}{
		{"a\xffb", "not UTF-8"},
		{map[string]int{"\xff": 1}, "not UTF-8"},
		{[]any{map[any]any{int8(1): "a", int64(1): "b"}}, "equal or unsorted keys"},
		{nest(log.MaxDepth + 1), "nested deeper than 64"},
		{func() {}, "unsupported type"},
	} {
		dst := []byte("kept")
		out, err := codec.Append(dst, tc.value)
		if !errors.Is(err, log.ErrCodec) || !strings.Contains(err.Error(), tc.why) {
			t.Errorf("encode %v: %v, want ErrCodec with %q", tc.value, err, tc.why)
		}
		if string(out) != "kept" {
			t.Errorf("encode %v left %q", tc.value, out)
		}
	}
	deepest := nest(log.MaxDepth)
	encoded, err := codec.Append(nil, deepest)
	if err != nil {
		t.Fatal(err)
	}
	if decoded, err := codec.Decode(encoded); err != nil || !reflect.DeepEqual(decoded, deepest) {
		t.Errorf("the deepest value came back as %v, %v", decoded, err)
	}
}

func TestCBORTakesAsManyElementsAsFit(t *testing.T) {
	v := make([]bool, log.MaxPayload-5)
	encoded, err := log.CBOR[[]bool]().Append(nil, v)
	if err != nil || len(encoded) != log.MaxPayload {
		t.Fatalf("%d bytes, %v", len(encoded), err)
	}
	if back, err := log.CBOR[[]bool]().Decode(encoded); err != nil || len(back) != len(v) {
		t.Errorf("came back with %d elements, %v", len(back), err)
	}
}

func TestDecodersRefuse(t *testing.T) {
	decodeCBOR := func(b []byte) error {
		v, err := log.CBOR[map[string]int]().Decode(b)
		if v != nil {
			t.Errorf("cbor %x: an error with the value %v", b, v)
		}
		return err
	}
	decodeJSON := func(b []byte) error { _, err := log.JSON[map[string]int]().Decode(b); return err }
	decodeProto := func(b []byte) error {
		v, err := log.Proto[*timestamppb.Timestamp]().Decode(b)
		if v != nil {
			t.Errorf("proto %x: an error with the value %v", b, v)
		}
		return err
	}
	for _, tc := range []struct {
		name, hex string
		decode    func([]byte) error
	}{
		{"cbor empty", "", decodeCBOR},
		{"cbor truncated", "a16161", decodeCBOR},
		{"cbor trailing", "a000", decodeCBOR},
		{"cbor equal keys", "a2616101616102", decodeCBOR},
		{"cbor indefinite length", "bf616101ff", decodeCBOR},
		{"cbor key not UTF-8", "a161ff01", decodeCBOR},
		{"cbor other type", "8101", decodeCBOR},
		{"cbor huge count", "bbffffffffffffffff", decodeCBOR},
		{"cbor too deep", strings.Repeat("81", log.MaxDepth+1) + "00", decodeCBOR},
		{"cbor too long", "59" + strings.Repeat("00", log.MaxPayload+1), decodeCBOR},
		{"json empty", "", decodeJSON},
		{"json trailing", hex.EncodeToString([]byte(`{} {}`)), decodeJSON},
		{"json other type", hex.EncodeToString([]byte(`[1]`)), decodeJSON},
		{"proto truncated", "0a", decodeProto},
	} {
		if err := tc.decode(unhex(t, tc.hex)); !errors.Is(err, log.ErrCodec) {
			t.Errorf("%s: %v, want ErrCodec", tc.name, err)
		}
	}
}

func unhex(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestProtoRefusesNil(t *testing.T) {
	codec := log.Proto[*timestamppb.Timestamp]()
	if codec.Name() != "proto:google.protobuf.Timestamp" {
		t.Errorf("name = %q", codec.Name())
	}
	if out, err := codec.Append([]byte("kept"), nil); !errors.Is(err, log.ErrCodec) || string(out) != "kept" {
		t.Errorf("a nil message encodes as %q, %v", out, err)
	}
}

func TestJSONIsReadable(t *testing.T) {
	got, err := log.JSON[map[string]string]().Append(nil, map[string]string{"b": "<&>", "a": "\u00e9"})
	if want := `{"a":"é","b":"<&>"}`; err != nil || string(got) != want {
		t.Errorf("encoded as %s, %v, want %s", got, err, want)
	}
}

// A struct may lose and gain fields while old records stay readable.
func TestCodecsIgnoreUnknownFields(t *testing.T) {
	type grown struct{ A, B int }
	type first struct{ A int }
	for _, codecs := range []struct {
		from log.Codec[grown]
		to   log.Codec[first]
	}{{log.CBOR[grown](), log.CBOR[first]()}, {log.JSON[grown](), log.JSON[first]()}} {
		b, err := codecs.from.Append(nil, grown{1, 2})
		if err != nil {
			t.Fatal(err)
		}
		if v, err := codecs.to.Decode(b); err != nil || v.A != 1 {
			t.Errorf("%s: %v, %v", codecs.to.Name(), v, err)
		}
	}
}

func BenchmarkCBOR(b *testing.B) {
	type tick struct {
		Pair  string  `cbor:"pair"`
		Price float64 `cbor:"price"`
		At    int64   `cbor:"at"`
	}
	codec, v, buf := log.CBOR[tick](), tick{"eur/usd", 1.0842, 1714979289500000000}, []byte(nil)
	b.Run("append", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			buf, _ = codec.Append(buf[:0], v)
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = codec.Decode(buf)
		}
	})
}
