package wire_test

import (
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/organisms/wire"
)

var errBad = errors.New("bad encoding")

// TestCutter: fields come back as they were put together, and of bytes that are cut short at
// any place the first field that is not there is named.
func TestCutter(t *testing.T) {
	id := identity.NewID("x")
	b := append([]byte("domain|"), 7)
	b = binary.LittleEndian.AppendUint16(b, 0x1234)
	b = binary.LittleEndian.AppendUint64(b, 1<<60)
	b = wire.AppendText(append(b, id[:]...), "hé")
	b = wire.AppendBool(wire.AppendBool(b, true), false)
	b = binary.LittleEndian.AppendUint32(b, 3)
	cut := func(b []byte) (got [8]any, err error) {
		c := wire.NewCutter(b, errBad)
		c.Literal("domain", "domain|")
		got = [...]any{c.U8("one"), c.U16("two"), c.U64("eight"), c.ID("id"), c.Text("text", 3), c.Bool("yes"), c.Bool("no"), c.Count("list", 3)}
		return got, c.End()
	}
	if got, err := cut(b); err != nil || got != [...]any{uint8(7), uint16(0x1234), uint64(1 << 60), id, "hé", true, false, 3} {
		t.Errorf("%v, %v", got, err)
	}
	names := []string{"domain", "one", "two", "eight", "id", "text", "yes", "no", "list"}
	next := 0
	for n := range b {
		_, err := cut(b[:n])
		for !strings.Contains(err.Error(), names[next]+": ") && next+1 < len(names) {
			next++
		}
		if !errors.Is(err, errBad) || !strings.Contains(err.Error(), names[next]+": ") {
			t.Errorf("cut at %d: %v", n, err)
		}
	}
	if next != len(names)-1 {
		t.Errorf("the last field that was missing is %s", names[next])
	}
	for want, change := range map[string]func([]byte) []byte{
		"domain: ":          func(b []byte) []byte { b[0] = 'x'; return b },
		"text: 4 bytes":     func(b []byte) []byte { b[50] = 4; return b },
		"no: 2":             func(b []byte) []byte { b[58] = 2; return b },
		"list: 4":           func(b []byte) []byte { b[59] = 4; return b },
		"end: 1 bytes":      func(b []byte) []byte { return append(b, 0) },
		"list: 4, the limi": func(b []byte) []byte { b[59] = 4; return append(b, 0) }, // the first error counts
	} {
		if _, err := cut(change(append([]byte(nil), b...))); !errors.Is(err, errBad) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	whole := wire.NewCutter([]byte("\x01rest"), errBad)
	if whole.U8("one"); string(whole.Rest()) != "rest" || whole.End() != nil {
		t.Error("the rest")
	}
	c := wire.NewCutter(nil, errBad)
	if c.U32("x") != 0 || !c.Failed() || c.ID("y") != (identity.ID{}) {
		t.Error("what is not there is not zero")
	}
}
