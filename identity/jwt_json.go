package identity

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxJWTDepth bounds how deep the JSON of a token, and of a claim, is nested.
const maxJWTDepth = 32

var errJWTDepth = fmt.Errorf("nested more than %d deep", maxJWTDepth)

// decodeJWTPart decodes a part of a token (RFC 7515, 3.1): base64url of a JSON object.
// Where parsers differ in what they make of a text, it is refused: names that occur
// twice in an object, bytes that are no UTF-8, values that follow.
func decodeJWTPart(part string) (map[string]any, error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(part)
	if err != nil {
		return nil, err
	}
	v, err := decodeJSON(b)
	if err != nil {
		return nil, err
	}
	object, is := v.(map[string]any)
	if !is {
		return nil, errors.New("it is no JSON object")
	}
	return object, nil
}

// decodeJSON decodes one value. Numbers stay as they are written (json.Number).
func decodeJSON(b []byte) (any, error) {
	if !utf8.Valid(b) {
		return nil, errors.New("it is no UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	v, err := decodeValue(d, 0)
	if err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the JSON value")
	}
	return v, nil
}

// decodeValue decodes the next value; depth is how many it lies in.
func decodeValue(d *json.Decoder, depth int) (any, error) {
	t, err := d.Token()
	if err != nil {
		return nil, err
	}
	delim, nested := t.(json.Delim)
	if !nested {
		return t, nil
	}
	if depth == maxJWTDepth {
		return nil, errJWTDepth
	}
	if delim == '[' {
		list := []any{}
		for d.More() {
			v, err := decodeValue(d, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err := d.Token() // the bracket that ends it
		return list, err
	}
	object := make(map[string]any)
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, err
		}
		name, _ := t.(string) // the decoder lets nothing else stand here
		if _, twice := object[name]; twice {
			return nil, fmt.Errorf("the name %.64q occurs twice", name)
		}
		if object[name], err = decodeValue(d, depth+1); err != nil {
			return nil, err
		}
	}
	_, err = d.Token() // the brace that ends it
	return object, err
}

// appendJSON appends the one text of a JSON value by which claims are compared and
// folded into signatures. It is what the Rust runtime's library (serde_json) writes:
// no spaces, names in the order of their bytes, nothing escaped that need not be, and
// integers told apart from other numbers, 1 from 1.0. That library's versions differ
// in how they write numbers with an exponent, so there is no text for those.
func appendJSON(dst []byte, v any, depth int) ([]byte, error) {
	if depth > maxJWTDepth {
		return nil, errJWTDepth
	}
	switch v := v.(type) {
	case nil:
		return append(dst, "null"...), nil
	case bool:
		return strconv.AppendBool(dst, v), nil
	case string:
		return appendJSONString(dst, v)
	case int:
		return strconv.AppendInt(dst, int64(v), 10), nil
	case int64:
		return strconv.AppendInt(dst, v, 10), nil
	case uint64:
		return strconv.AppendUint(dst, v, 10), nil
	case float64:
		return appendJSONFloat(dst, v)
	case json.Number:
		return appendJSONNumber(dst, v.String())
	case json.RawMessage:
		decoded, err := decodeJSON(v)
		if err != nil {
			return nil, err
		}
		return appendJSON(dst, decoded, depth)
	case []string:
		list := make([]any, len(v))
		for i := range v {
			list[i] = v[i]
		}
		return appendJSON(dst, list, depth)
	case []any:
		dst = append(dst, '[')
		for i, element := range v {
			if i > 0 {
				dst = append(dst, ',')
			}
			var err error
			if dst, err = appendJSON(dst, element, depth+1); err != nil {
				return nil, err
			}
		}
		return append(dst, ']'), nil
	case map[string]any:
		return appendJSONObject(dst, v, depth)
	}
	return nil, fmt.Errorf("a %T has no one JSON text; give it as json.RawMessage", v)
}

func appendJSONObject(dst []byte, object map[string]any, depth int) ([]byte, error) {
	dst = append(dst, '{')
	for i, name := range slices.Sorted(maps.Keys(object)) {
		if i > 0 {
			dst = append(dst, ',')
		}
		var err error
		if dst, err = appendJSONString(dst, name); err != nil {
			return nil, err
		}
		if dst, err = appendJSON(append(dst, ':'), object[name], depth+1); err != nil {
			return nil, err
		}
	}
	return append(dst, '}'), nil
}

// appendJSONString escapes what RFC 8259, section 7, wants escaped and nothing else.
func appendJSONString(dst []byte, s string) ([]byte, error) {
	if !utf8.ValidString(s) {
		return nil, fmt.Errorf("%.64q is no UTF-8", s)
	}
	const short = "\b\t\n\f\r\"\\"
	dst = append(dst, '"')
	for i := range len(s) {
		c := s[i]
		switch at := strings.IndexByte(short, c); {
		case at >= 0:
			dst = append(dst, '\\', `btnfr"\`[at])
		case c < ' ':
			dst = fmt.Appendf(dst, `\u%04x`, c)
		default:
			dst = append(dst, c)
		}
	}
	return append(dst, '"'), nil
}

// appendJSONNumber appends a number as it is read: an integer of 64 bits as that, all
// others as float64.
func appendJSONNumber(dst []byte, text string) ([]byte, error) {
	if n, err := strconv.ParseInt(text, 10, 64); err == nil && text != "-0" {
		return strconv.AppendInt(dst, n, 10), nil
	}
	if n, err := strconv.ParseUint(text, 10, 64); err == nil {
		return strconv.AppendUint(dst, n, 10), nil
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return nil, fmt.Errorf("%.64q is no number: %w", text, err)
	}
	return appendJSONFloat(dst, f)
}

func appendJSONFloat(dst []byte, f float64) ([]byte, error) {
	if size := math.Abs(f); f != 0 && !(size >= 1e-5 && size < 1e16) { // a NaN, too
		return nil, fmt.Errorf("the number %v is not between 0.00001 and 1e16; claim it as text", f)
	}
	start := len(dst)
	dst = strconv.AppendFloat(dst, f, 'f', -1, 64)
	if !bytes.ContainsRune(dst[start:], '.') {
		dst = append(dst, ".0"...)
	}
	return dst, nil
}
