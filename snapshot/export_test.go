package snapshot

import (
	"bytes"
	"testing"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

// exported returns the export of a log whose first commits are sealed in two
// segments.
func exported(t testing.TB) ([]byte, *log.Memory) {
	t.Helper()
	mem := history(t, 12)
	var b bytes.Buffer
	w, err := NewExportWriter(&b, testGroup)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range [][2]uint64{{1, 4}, {5, 8}} {
		m, shards := seal(t, mem, Geometry{K: 1}, uint64(i+1), r[0], r[1])
		if err := w.Segment(m, shards[0][:m.Commits.Size]); err != nil {
			t.Fatal(err)
		}
	}
	for n := uint64(9); n <= 12; n++ {
		c, err := mem.Commit(n)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Commit(&c); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), mem
}

func TestExport(t *testing.T) {
	b, mem := exported(t)
	next := uint64(1)
	out, err := ReadExport(bytes.NewReader(b), nil, nil, func(c *log.Commit) error {
		want, err := mem.Commit(next)
		if err != nil || c.Digest != want.Digest || !bytes.Equal(c.Body, want.Body) {
			t.Fatalf("commit %d differs, %v", next, err)
		}
		next++
		return nil
	})
	if err != nil || out.Head != mem.Head() || out.Segments != 2 || out.Bytes != uint64(len(b)) || out.Group != testGroup {
		t.Fatalf("%+v, %v", out, err)
	}
	step := max(len(b)/5000, 1)
	for i := 0; i < len(b); i++ {
		if i > 300 && i < len(b)-300 && i%step != 0 {
			continue
		}
		if _, err := ReadExport(bytes.NewReader(b[:i]), nil, nil, nil); err == nil {
			t.Fatalf("%d bytes of %d are an export", i, len(b))
		}
		changed := bytes.Clone(b)
		changed[i] ^= 1 << (i % 8)
		if _, err := ReadExport(bytes.NewReader(changed), nil, nil, nil); err == nil {
			t.Fatalf("byte %d changed: it is an export", i)
		}
	}
	if _, err := ReadExport(bytes.NewReader(append(bytes.Clone(b), 0)), nil, nil, nil); err == nil {
		t.Error("a byte more is an export")
	}
	refused := false
	_, err = ReadExport(bytes.NewReader(b), func(id identity.ID) error { refused = id == testGroup; return ErrExport }, nil, nil)
	if err == nil || !refused {
		t.Errorf("a refused group: %v", err)
	}
}

func FuzzExport(f *testing.F) {
	b, _ := exported(f)
	f.Add(b[:200])
	f.Add(append([]byte(exportMagic), make([]byte, 40)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		var records uint64
		out, err := ReadExport(bytes.NewReader(b), nil, nil, func(c *log.Commit) error { records += uint64(c.Header.Records); return nil })
		if err == nil && (out.Records != records || out.Bytes != uint64(len(b))) {
			t.Fatalf("%+v of %d bytes", out, len(b))
		}
	})
}
