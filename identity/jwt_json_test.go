package identity

import (
	"encoding/base64"
	"encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func unbase64(t testing.TB, s string) []byte {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestJSONText: the texts are those of serde_json 1.0.
func TestJSONText(t *testing.T) {
	raw := func(s string) json.RawMessage { return json.RawMessage(s) }
	for _, c := range []struct {
		v    any
		want string // empty: refused
	}{
		{nil, "null"}, {true, "true"}, {false, "false"},
		{0, "0"}, {-7, "-7"}, {int64(math.MinInt64), "-9223372036854775808"}, {uint64(math.MaxUint64), "18446744073709551615"},
		{0.0, "0.0"}, {math.Copysign(0, -1), "-0.0"}, {1.0, "1.0"}, {-0.25, "-0.25"}, {1e15, "1000000000000000.0"}, {0.00001, "0.00001"}, {1234.5, "1234.5"},
		{1e16, ""}, {-1e16, ""}, {0.0000099, ""}, {5e-324, ""}, {math.Inf(1), ""}, {math.NaN(), ""},
		{json.Number("1"), "1"}, {json.Number("1.0"), "1.0"}, {json.Number("1e2"), "100.0"}, {json.Number("-0"), "-0.0"}, {json.Number("18446744073709551616"), ""}, {json.Number("x"), ""},
		{json.Number("1e999"), ""}, {json.Number(""), ""},
		{"", `""`}, {"<&>\u2028é\x7f", "\"<&>\u2028é\x7f\""}, {"\b\t\n\f\r\"\\/\x00\x1f", `"\b\t\n\f\r\"\\/\u0000\u001f"`}, {"\xff", ""},
		{[]any{}, "[]"}, {[]string{"a", "b"}, `["a","b"]`}, {[]any{1, []any{"x"}, nil}, `[1,["x"],null]`}, {[]string{"\xff"}, ""},
		{map[string]any{}, "{}"}, {map[string]any{"b": 1, "a": 2, "B": 3, "é": 4, "": 5}, `{"":5,"B":3,"a":2,"b":1,"é":4}`}, {map[string]any{"\xff": 1}, ""},
		{raw(` { "b" : [ 1 , 1.50 ] , "a" : "\u0041\u00e9" } `), `{"a":"Aé","b":[1,1.5]}`},
		{raw(`{"a":1,"a":1}`), ""}, {raw(`1 2`), ""}, {raw(``), ""}, {raw(`[1,]`), ""}, {raw(`[1}`), ""}, {raw(`{"a" 1}`), ""}, {raw(`{1:1}`), ""}, {raw("\"\xff\""), ""},
		{raw(strings.Repeat("[", maxJWTDepth) + strings.Repeat("]", maxJWTDepth)), strings.Repeat("[", maxJWTDepth) + strings.Repeat("]", maxJWTDepth)},
		{raw(strings.Repeat("[", maxJWTDepth+1) + strings.Repeat("]", maxJWTDepth+1)), ""},
		{float32(1), ""}, {struct{}{}, ""},
	} {
		got, err := appendJSON(nil, c.v, 0)
		if string(got) != c.want || (err != nil) != (c.want == "") {
			t.Errorf("%#v: %s, %v; want %s", c.v, got, err, c.want)
		}
	}
	var endless []any
	endless = append(endless, nil)
	endless[0] = endless
	if _, err := appendJSON(nil, endless, 0); err == nil {
		t.Error("a list that holds itself has a text")
	}
}

// TestJSONTextIsJSON: what is appended reads as the same value, by the standard library
// and by our own decoder, and has the same text again.
func TestJSONTextIsJSON(t *testing.T) {
	number := rapid.Float64Range(-9e15, 9e15).Filter(func(f float64) bool { return f == 0 || math.Abs(f) >= 1e-5 })
	leaf := rapid.OneOf(
		rapid.Just[any](nil), rapid.Map(rapid.Bool(), toAny), rapid.Map(rapid.Int64(), toAny), rapid.Map(rapid.Uint64(), toAny),
		rapid.Map(rapid.String(), toAny), rapid.Map(number, toAny),
	)
	value := rapid.OneOf(leaf,
		rapid.Map(rapid.SliceOfN(leaf, 0, 4), func(l []any) any { return l }),
		rapid.Map(rapid.MapOfN(rapid.String(), leaf, 0, 4), func(m map[string]any) any { return m }),
	)
	rapid.Check(t, func(t *rapid.T) {
		v := value.Draw(t, "value")
		text, err := appendJSON(nil, v, 0)
		if err != nil {
			t.Fatalf("%v: %v", v, err)
		}
		var standard any
		if err := json.Unmarshal(text, &standard); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		marshalled, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		var want any
		if err := json.Unmarshal(marshalled, &want); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(standard, want) {
			t.Fatalf("%q reads as %v, want %v", text, standard, want)
		}
		decoded, err := decodeJSON(text)
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if again, err := appendJSON(nil, decoded, 0); err != nil || string(again) != string(text) {
			t.Fatalf("%q becomes %q, %v", text, again, err)
		}
	})
}

func toAny[T any](v T) any { return v }

// checkJSON holds our decoder against the standard library's, for FuzzJWT: it takes
// nothing else, and the text of what it takes is one.
func checkJSON(t *testing.T, text string) {
	v, err := decodeJSON([]byte(text))
	if err != nil {
		return
	}
	if !json.Valid([]byte(text)) {
		t.Fatalf("%q is no JSON and is taken for %v", text, v)
	}
	once, err := appendJSON(nil, v, 0)
	if err != nil {
		return
	}
	again, err := decodeJSON(once)
	if err != nil {
		t.Fatalf("%q becomes %q: %v", text, once, err)
	}
	if twice, err := appendJSON(nil, again, 0); err != nil || string(twice) != string(once) {
		t.Fatalf("%q becomes %q, then %q, %v", text, once, twice, err)
	}
}
