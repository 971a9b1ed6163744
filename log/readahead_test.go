package log

import (
	"bytes"
	"encoding/binary"
	"iter"
	"slices"
	"testing"

	"github.com/mosaik-engine/mosaik/identity"
)

// readRecorder is an empty base that notes which rows are read, in order.
type readRecorder struct{ rows [][]byte }

func (r *readRecorder) Rows(uint32, uint32) View { return r }

func (r *readRecorder) Commit() uint64 { return 0 }

func (r *readRecorder) Get(key []byte) (Row, bool, error) {
	if len(key) > 1 { // not the generation nor the count
		r.rows = append(r.rows, bytes.Clone(key))
	}
	return Row{}, false, nil
}

func (r *readRecorder) Scan(Range) iter.Seq2[Row, error] { return noRows{}.Scan(Range{}) }

// TestReadAhead: all rows that the commands of a run set are read once, in the
// order of their keys, also across commands, and those that are not well-formed
// change nothing.
func TestReadAhead(t *testing.T) {
	key := func(k string) []byte { return appendBytes(nil, []byte(k)) }
	pair := func(k string) []byte { return appendBytes(key(k), []byte("value")) }
	two := binary.AppendUvarint(nil, 2)
	join := func(command byte, parts ...[]byte) []byte { return append([]byte{command}, slices.Concat(parts...)...) }
	for _, test := range []struct {
		machine  Machine
		commands [][]byte
	}{
		{mapMachine{}, [][]byte{
			join(mapInsert, pair("d")), join(mapExtend, two, pair("c"), pair("a")), {}, {mapExtend}, {mapInsert, 9},
			join(mapExtend, two, pair("a"), pair("b")),
		}},
		{setMachine{}, [][]byte{
			join(setInsert, key("d")), join(setExtend, two, key("c"), key("a")), {}, {setExtend}, {setInsert, 9},
			join(setExtend, two, key("a"), key("b")),
		}},
	} {
		var records []byte
		for _, c := range test.commands {
			records = AppendRecord(records, c)
		}
		run, _, err := NextRun(AppendRun(nil, identity.NewID("rows"), 1, len(test.commands), records), 0)
		if err != nil {
			t.Fatal(err)
		}
		base := new(readRecorder)
		f, err := NewFold(base)
		if err != nil {
			t.Fatal(err)
		}
		f.Begin(1, 0)
		if _, err := f.Run(&ViewInfo{Number: 1, Machine: test.machine}, &run); err != nil {
			t.Fatal(err)
		}
		var read, written []string
		for _, row := range base.rows {
			read = append(read, string(row[1:]))
		}
		for e := range f.End() {
			if len(e.Key) > 1 {
				written = append(written, string(e.Key[1:]))
			}
		}
		want := []string{"a", "b", "c", "d"}
		if !slices.Equal(read, want) || !slices.Equal(written, want) {
			t.Errorf("%s: read %q, written %q, want %q", test.machine.Signature(), read, written, want)
		}
	}
}
