package api

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/mosaik-engine/mosaik/log"
)

// Renderer writes records as JSON objects on one line:
//
//	{"seq":7,"commit":3,"time":"2026-01-02T03:04:05.6Z","value":{"bid":"1.09"}}
//
// The payload is in one of three fields, so that it is never mistaken for
// something else: "value" if the stream's codec is json, or cbor and the value
// has a JSON form; else "text" if the payload is UTF-8 and the codec is raw or
// unknown; else "base64".
type Renderer struct {
	Codec    string // the stream's, as the directory has it; "" if it is not there
	Pointers bool   // add the field "pointer"
	Stream   string // if not empty, the value of a field "stream"
	cbor     log.Codec[any]
}

// NewRenderer returns a Renderer for a stream with the codec.
func NewRenderer(codec string, pointers bool) *Renderer {
	return &Renderer{Codec: codec, Pointers: pointers, cbor: log.CBOR[any]()}
}

// Append appends the record's JSON, without a newline, to dst.
func (r *Renderer) Append(dst []byte, run *log.Run, seq uint64, payload []byte) []byte {
	dst = append(dst, '{')
	if r.Stream != "" {
		dst = append(dst, `"stream":`...)
		dst = append(appendString(dst, r.Stream), ',')
	}
	dst = append(dst, `"seq":`...)
	dst = strconv.AppendUint(dst, seq, 10)
	dst = append(dst, `,"commit":`...)
	dst = strconv.AppendUint(dst, run.Commit, 10)
	dst = append(dst, `,"time":"`...)
	dst = time.Unix(0, run.Time).UTC().AppendFormat(dst, time.RFC3339Nano)
	dst = append(dst, `",`...)
	dst = r.appendPayload(dst, payload)
	if r.Pointers {
		dst = append(dst, `,"pointer":"`...)
		dst = append(dst, run.Pointer(seq).String()...)
		dst = append(dst, '"')
	}
	return append(dst, '}')
}

// appendPayload appends the field with the payload.
func (r *Renderer) appendPayload(dst, payload []byte) []byte {
	const value, text = `"value":`, `"text":`
	before := len(dst)
	switch r.Codec {
	case codecJSON:
		if json.Valid(payload) {
			if bytes.IndexByte(payload, '\n') < 0 {
				return append(append(dst, value...), payload...)
			}
			var line bytes.Buffer
			if json.Compact(&line, payload) == nil {
				return append(append(dst, value...), line.Bytes()...)
			}
		}
	case codecCBOR:
		if v, err := r.cbor.Decode(payload); err == nil {
			if out, ok := appendJSON(append(dst, value...), v); ok {
				return out
			}
			dst = dst[:before]
		}
	case codecRaw, "":
		if utf8.Valid(payload) {
			return appendString(append(dst, text...), string(payload))
		}
	}
	dst = append(dst, `"base64":"`...)
	dst = base64.StdEncoding.AppendEncode(dst, payload)
	return append(dst, '"')
}

// Text returns the payload as a person wants to see it on a terminal: the value
// as JSON, the text as it is, or base64.
func (r *Renderer) Text(payload []byte) string {
	field := r.appendPayload(nil, payload)
	name, rest, _ := bytes.Cut(field, []byte(":"))
	switch string(name) {
	case `"text"`:
		return printable(string(payload))
	case `"base64"`:
		return "base64:" + string(rest[1:len(rest)-1])
	}
	return string(rest)
}

// printable quotes what a terminal would act upon.
func printable(s string) string {
	for _, c := range s {
		if !strconv.IsPrint(c) {
			return strconv.Quote(s)
		}
	}
	return s
}

// appendJSON appends a value decoded from CBOR as JSON. It reports false for
// what JSON has no form for: keys that are not strings, infinities, nesting of
// unknown things. Byte strings become base64, times RFC 3339.
func appendJSON(dst []byte, v any) ([]byte, bool) {
	switch v := v.(type) {
	case nil:
		return append(dst, "null"...), true
	case bool:
		return strconv.AppendBool(dst, v), true
	case uint64:
		return strconv.AppendUint(dst, v, 10), true
	case int64:
		return strconv.AppendInt(dst, v, 10), true
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return dst, false
		}
		out, err := json.Marshal(v)
		return append(dst, out...), err == nil
	case string:
		return appendString(dst, v), true
	case []byte:
		dst = append(dst, '"')
		dst = base64.StdEncoding.AppendEncode(dst, v)
		return append(dst, '"'), true
	case time.Time:
		return appendString(dst, v.Format(time.RFC3339Nano)), true
	case big.Int:
		return v.Append(dst, 10), true
	case []any:
		dst = append(dst, '[')
		for i, e := range v {
			if i > 0 {
				dst = append(dst, ',')
			}
			var ok bool
			if dst, ok = appendJSON(dst, e); !ok {
				return dst, false
			}
		}
		return append(dst, ']'), true
	case map[any]any:
		keys := make([]string, 0, len(v))
		for k := range v {
			s, ok := k.(string)
			if !ok {
				return dst, false
			}
			keys = append(keys, s)
		}
		slices.Sort(keys)
		dst = append(dst, '{')
		for i, k := range keys {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = append(appendString(dst, k), ':')
			var ok bool
			if dst, ok = appendJSON(dst, v[k]); !ok {
				return dst, false
			}
		}
		return append(dst, '}'), true
	}
	return dst, false
}

// appendString appends s as a JSON string. Unlike encoding/json by default it
// does not escape what is special in HTML.
func appendString(dst []byte, s string) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil {
		return fmt.Appendf(dst, "%q", s) // a string always encodes
	}
	return append(dst, bytes.TrimSuffix(b.Bytes(), []byte("\n"))...)
}
