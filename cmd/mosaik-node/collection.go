package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mosaik-engine/mosaik/cmd/mosaik-node/internal/api"
	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

// What the verbs of all collections have in common. On the command line keys and
// values are text; a collection's codecs turn them into the bytes it holds. Of one
// that is there the directory knows the codecs, a new one gets those of the flags.

// collectionFlags are the flags of the verbs of a collection.
type collectionFlags struct {
	storeFlags
	group string
	kinds []*string // of keys and values, in the order of the directory's entry
	key   string
	prio  string
	value string

	at     uint64
	stale  bool
	limit  uint64
	after  uint64
	follow bool
}

// writing adds the flags of a verb that writes.
func (f *collectionFlags) writing(cmd *cobra.Command) {
	f.make = true
	f.reading(cmd, false)
}

// reading adds the flags that all verbs have, and those of reads.
func (f *collectionFlags) reading(cmd *cobra.Command, reads bool) {
	f.addTo(cmd)
	fs := cmd.Flags()
	fs.StringVar(&f.group, "group", "", "group that the collection was put in (default the one its key belongs to)")
	for _, kind := range f.kinds {
		switch kind {
		case &f.key:
			fs.StringVar(&f.key, "key-type", "string", "type of the keys of a new collection: string, bytes (hex), uint64, int64, float64, id, time")
		case &f.prio:
			fs.StringVar(&f.prio, "priority-type", "int64", "type of the priorities of a new queue, as for keys")
		case &f.value:
			fs.StringVar(&f.value, "codec", "json", "codec of the values of a new collection: json, cbor (given as JSON) or raw (text)")
		}
	}
	if reads {
		fs.Uint64Var(&f.at, "at", 0, "show what was there as of this commit")
		fs.BoolVar(&f.stale, "stale", false, "show what this node has, without asking the others")
	}
}

// watching adds the flags of a watch.
func (f *collectionFlags) watching(cmd *cobra.Command) {
	f.reading(cmd, false)
	cmd.Flags().Uint64Var(&f.after, "after", 0, "start with the changes after this commit")
	cmd.Flags().BoolVar(&f.follow, "follow", false, "wait for more at the end")
}

// consistency says which commit a read is to reflect.
func (f *collectionFlags) consistency(cmd *cobra.Command) (log.Consistency, error) {
	switch {
	case f.at != 0 && f.stale:
		return log.Consistency{}, usage(cmd, errors.New("--at and --stale do not go together"))
	case f.at != 0:
		return log.AsOf(f.at), nil
	case f.stale:
		return log.Stale(), nil
	}
	return log.Linearizable(), nil
}

// on opens the store, finds out the collection's codecs and lets do work.
func (f *collectionFlags) on(cmd *cobra.Command, g *globals, name string, do func(ctx context.Context, s log.Store) error) error {
	return f.with(cmd, g, func(ctx context.Context, st store) error {
		s, err := st.Store(f.group)
		if err != nil {
			return err
		}
		e, err := log.LookUp(ctx, s, identity.NewID(name))
		switch {
		case errors.Is(err, log.ErrNotFound) && !f.make:
			return fmt.Errorf("%w: there is no collection %q here", log.ErrNotFound, name)
		case errors.Is(err, log.ErrNotFound):
		case err != nil:
			return err
		default:
			codecs := strings.Split(e.Codec, ",")
			for i, kind := range f.kinds {
				if i < len(codecs) {
					*kind = codecs[i]
				}
			}
		}
		return do(ctx, s)
	})
}

// textKey is the key codec of one type, for keys given and shown as text.
type textKey struct {
	name   string
	encode func(text string) ([]byte, error)
	decode func(b []byte) (string, error)
}

func (k textKey) Name() string        { return k.name }
func (k textKey) Order() log.KeyOrder { return log.Ordered }

func (k textKey) Append(dst []byte, text string) ([]byte, error) {
	b, err := k.encode(text)
	if err != nil {
		return dst, fmt.Errorf("%w %s: %q: %w", log.ErrCodec, k.name, text, err)
	}
	return append(dst, b...), nil
}

func (k textKey) Decode(b []byte) (string, error) { return k.decode(b) }

// asText makes a codec of text from one of K and K's text form.
func asText[K any](codec log.KeyCodec[K], parse func(string) (K, error), format func(K) string) textKey {
	return textKey{codec.Name(), func(text string) ([]byte, error) {
		k, err := parse(text)
		if err != nil {
			return nil, err
		}
		return codec.Append(nil, k)
	}, func(b []byte) (string, error) {
		k, err := codec.Decode(b)
		if err != nil {
			return "", err
		}
		return format(k), nil
	}}
}

// keyCodec returns the codec of a type of keys.
func keyCodec(cmd *cobra.Command, kind string) (log.KeyCodec[string], error) {
	same := func(s string) (string, error) { return s, nil }
	switch kind {
	case "string":
		return asText(log.StringKey(), same, func(s string) string { return s }), nil
	case "bytes":
		return asText(log.BytesKey(), hex.DecodeString, hex.EncodeToString), nil
	case "uint64":
		return asText(log.Uint64Key(), func(s string) (uint64, error) { return strconv.ParseUint(s, 10, 64) },
			func(n uint64) string { return strconv.FormatUint(n, 10) }), nil
	case "int64":
		return asText(log.Int64Key(), func(s string) (int64, error) { return strconv.ParseInt(s, 10, 64) },
			func(n int64) string { return strconv.FormatInt(n, 10) }), nil
	case "float64":
		return asText(log.Float64Key(), func(s string) (float64, error) { return strconv.ParseFloat(s, 64) },
			func(n float64) string { return strconv.FormatFloat(n, 'g', -1, 64) }), nil
	case "id":
		return asText(log.IDKey(), func(s string) (identity.ID, error) { return identity.NewID(s), nil }, identity.ID.String), nil
	case "time":
		return asText(log.TimeKey(), func(s string) (time.Time, error) { return time.Parse(time.RFC3339Nano, s) },
			func(t time.Time) string { return t.Format(time.RFC3339Nano) }), nil
	}
	return nil, usage(cmd, fmt.Errorf("--key-type: %q is none: string, bytes, uint64, int64, float64, id or time", kind))
}

// textValue is a codec of values that are given and shown as text: JSON, or for
// raw the text itself.
type textValue struct {
	name string
	cbor log.Codec[any]
}

// valueCodec returns the codec of a name.
func valueCodec(cmd *cobra.Command, name string) (log.Codec[string], error) {
	switch name {
	case "json", "cbor", "raw":
		return textValue{name, log.CBOR[any]()}, nil
	}
	return nil, usage(cmd, fmt.Errorf("--codec: %q is none that the command line knows: json, cbor or raw", name))
}

func (c textValue) Name() string { return c.name }

func (c textValue) Append(dst []byte, text string) ([]byte, error) {
	if c.name == "raw" {
		return append(dst, text...), nil
	}
	var line bytes.Buffer
	if err := json.Compact(&line, []byte(text)); err != nil {
		return dst, fmt.Errorf("%w: %q is not JSON (text needs quotes, or --codec raw): %w", api.ErrValue, text, err)
	}
	if c.name == "json" {
		return append(dst, line.Bytes()...), nil
	}
	dec := json.NewDecoder(&line)
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return dst, fmt.Errorf("%w: %w", api.ErrValue, err)
	}
	v, err := plainNumbers(v)
	if err != nil {
		return dst, err
	}
	return c.cbor.Append(dst, v)
}

// plainNumbers replaces the numbers of a decoded JSON value by integers where
// they are, else by floats.
func plainNumbers(v any) (any, error) {
	var err error
	switch v := v.(type) {
	case json.Number:
		if n, err := strconv.ParseInt(v.String(), 10, 64); err == nil {
			return n, nil
		}
		return v.Float64()
	case []any:
		for i := range v {
			if v[i], err = plainNumbers(v[i]); err != nil {
				return nil, err
			}
		}
	case map[string]any:
		for k := range v {
			if v[k], err = plainNumbers(v[k]); err != nil {
				return nil, err
			}
		}
	}
	return v, nil
}

func (c textValue) Decode(b []byte) (string, error) {
	return api.NewRenderer(c.name, false).Text(b), nil
}

// shownValue is a value as --json prints it: JSON as it is, text as a string.
func shownValue(codec, text string) json.RawMessage {
	if codec != "raw" && json.Valid([]byte(text)) {
		return json.RawMessage(text)
	}
	b, err := json.Marshal(text)
	if err != nil {
		return json.RawMessage(strconv.Quote(base64.StdEncoding.EncodeToString([]byte(text)))) // text that is not UTF-8
	}
	return b
}

// written is what a write prints: where it is, and what it found.
type written struct {
	Pointer log.Pointer `json:"pointer"`
	// Taken says whether a conditional write took place; absent: it has no condition.
	Taken *bool `json:"taken,omitempty"`
	// Old is the value before; for a conditional write that was not taken, the value
	// that is there. Absent: there was none.
	Old     json.RawMessage `json:"old,omitempty"`
	Count   *uint64         `json:"count,omitempty"` // of what was removed
	Index   *uint64         `json:"index,omitempty"`
	Key     *string         `json:"key,omitempty"`
	Prio    *string         `json:"priority,omitempty"`
	Evicted *string         `json:"evicted,omitempty"` // key of the entry a full queue gave up
}

// print prints what a write came to. A conditional write that was not taken is a
// failure.
func (w written) print(g *globals) error {
	var err error
	if g.json {
		err = printLine(g.out, w)
	} else {
		_, err = fmt.Fprintln(g.out, w.Pointer)
		switch {
		case err != nil:
		case w.Taken != nil && !*w.Taken:
		case w.Key != nil:
			_, err = fmt.Fprintf(g.out, "%s\t%s\t%s\n", *w.Key, cmp.Or(deref(w.Prio), "-"), w.Old)
		case w.Old != nil:
			_, err = fmt.Fprintf(g.out, "before: %s\n", w.Old)
		case w.Count != nil:
			_, err = fmt.Fprintf(g.out, "removed: %d\n", *w.Count)
		case w.Index != nil:
			_, err = fmt.Fprintf(g.out, "index: %d\n", *w.Index)
		}
	}
	if err == nil && w.Taken != nil && !*w.Taken {
		return fmt.Errorf("not taken: there is %s", cmp.Or(string(w.Old), "nothing"))
	}
	return err
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// shown is one element of a collection as a read prints it.
type shown struct {
	Commit   uint64          `json:"commit,omitempty"` // that the read reflects
	Index    *uint64         `json:"index,omitempty"`
	Key      *string         `json:"key,omitempty"`
	Priority *string         `json:"priority,omitempty"`
	Value    json.RawMessage `json:"value,omitempty"`
	Version  uint64          `json:"version,omitempty"` // commit that wrote it
}

// print prints an element: its parts between tabs.
func (s shown) print(g *globals) error {
	if g.json {
		return printLine(g.out, s)
	}
	var parts []string
	if s.Index != nil {
		parts = append(parts, strconv.FormatUint(*s.Index, 10))
	}
	for _, p := range []*string{s.Key, s.Priority} {
		if p != nil {
			parts = append(parts, *p)
		}
	}
	if s.Value != nil {
		parts = append(parts, string(s.Value))
	}
	_, err := fmt.Fprintln(g.out, strings.Join(parts, "\t"))
	return err
}

// changed is one change as a watch prints it.
type changed struct {
	Commit  uint64          `json:"commit"`
	Pointer log.Pointer     `json:"pointer"`
	Cleared bool            `json:"cleared,omitempty"`
	Key     *string         `json:"key,omitempty"`
	Old     json.RawMessage `json:"old,omitempty"`
	New     json.RawMessage `json:"new,omitempty"`
	Len     *uint64         `json:"len,omitempty"`
}

// print prints a change: the commit, and what became of what.
func (c changed) print(g *globals) error {
	if g.json {
		return printLine(g.out, c)
	}
	what := "cleared"
	switch {
	case c.Len != nil:
		what = fmt.Sprintf("length %d", *c.Len)
	case !c.Cleared:
		what = cmp.Or(deref(c.Key), ".") + "\t" + cmp.Or(string(c.Old), "-") + "\t" + cmp.Or(string(c.New), "-")
	}
	_, err := fmt.Fprintf(g.out, "%d\t%s\n", c.Commit, what)
	return err
}

// absentError says that a read has found nothing.
func absentError(what string) error { return fmt.Errorf("%w: %s", log.ErrNotFound, what) }
