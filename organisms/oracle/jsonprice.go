package oracle

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxJSONDepth bounds how deep an answer is nested, and how long a path into it is.
const maxJSONDepth = 32

// parsePointer parses a JSON pointer (RFC 6901) at something inside a document.
func parsePointer(text string) ([]string, error) {
	rest, ok := strings.CutPrefix(text, "/")
	if !ok || len(text) > MaxEndpoint {
		return nil, fmt.Errorf("%.64q is no JSON pointer of at most %d bytes, such as /result/0/price", text, MaxEndpoint)
	}
	steps := strings.Split(rest, "/")
	if len(steps) > maxJSONDepth {
		return nil, fmt.Errorf("%d steps, the limit is %d", len(steps), maxJSONDepth)
	}
	for i, step := range steps {
		if strings.Contains(strings.NewReplacer("~0", "", "~1", "").Replace(step), "~") {
			return nil, fmt.Errorf("step %q: a ~ is written ~0, and a / ~1", step)
		}
		steps[i] = strings.ReplaceAll(strings.ReplaceAll(step, "~1", "/"), "~0", "~")
	}
	return steps, nil
}

// errNotThere says that an answer has nothing at a pointer.
var errNotThere = errors.New("it has no number or string at the path")

// lookUp returns the texts of the scalars at the pointers, as they are written: json.Number
// or string. What parsers read differently is refused wherever it stands in the document:
// names that occur twice in an object, bytes that are not UTF-8, what follows the value.
func lookUp(document []byte, pointers ...[]string) ([]any, error) {
	w := walk{pointers: pointers, found: make([]any, len(pointers))}
	if err := w.document(document); err != nil {
		return nil, err
	}
	if slices.Contains(w.found, nil) {
		return nil, errNotThere
	}
	return w.found, nil
}

// walk goes through a document.
type walk struct {
	d        *json.Decoder
	pointers [][]string
	found    []any
	path     []string // to the value that comes next
	plain    bool     // names of lower-case letters and - only
}

// document goes through a whole document.
func (w *walk) document(document []byte) error {
	switch {
	case !utf8.Valid(document):
		return errors.New("it is not UTF-8")
	case !json.Valid(document):
		return errors.New("it is not one JSON value")
	}
	w.d = json.NewDecoder(bytes.NewReader(document))
	w.d.UseNumber()
	return w.value()
}

// value goes through the next value.
func (w *walk) value() error {
	t, err := w.d.Token()
	if err != nil {
		return err
	}
	delim, nested := t.(json.Delim)
	switch {
	case !nested:
		w.scalar(t)
		return nil
	case len(w.path) == maxJSONDepth:
		return fmt.Errorf("it is nested more than %d deep", maxJSONDepth)
	}
	names := make(map[string]bool)
	for i := 0; w.d.More(); i++ {
		step := strconv.Itoa(i)
		if delim == '{' {
			t, err := w.d.Token()
			if err != nil {
				return err
			}
			step, _ = t.(string) // the decoder lets nothing else stand here
			if names[step] {
				return fmt.Errorf("the name %.64q occurs twice", step)
			}
			if w.plain && strings.Trim(step, "abcdefghijklmnopqrstuvwxyz-") != "" {
				return fmt.Errorf("the name %.64q is not known", step)
			}
			names[step] = true
		}
		w.path = append(w.path, step)
		if err := w.value(); err != nil {
			return err
		}
		w.path = w.path[:len(w.path)-1]
	}
	_, err = w.d.Token() // the bracket or brace that ends it
	return err
}

// scalar keeps the value if it is one of those that are looked for.
func (w *walk) scalar(t json.Token) {
	for i, pointer := range w.pointers {
		if !slices.Equal(pointer, w.path) {
			continue
		}
		switch t.(type) {
		case json.Number, string:
			w.found[i] = t
		}
	}
}
