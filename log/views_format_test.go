package log

import (
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"testing"

	"lukechampine.com/blake3"

	"github.com/mosaik-engine/mosaik/identity"
)

// viewsDocument returns docs/format/views.md.
func viewsDocument(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("../docs/format/views.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// fenced returns the lines of the code block of the given kind.
func fenced(t *testing.T, kind string) []string {
	t.Helper()
	_, rest, ok := strings.Cut(viewsDocument(t), "```"+kind+"\n")
	if !ok {
		t.Fatalf("the document has no block %q", kind)
	}
	block, _, _ := strings.Cut(rest, "\n```")
	return strings.Split(block, "\n")
}

// cellsOf returns the rows of the table whose first column is headed so.
func cellsOf(t *testing.T, head string) [][]string {
	t.Helper()
	_, rest, ok := strings.Cut(viewsDocument(t), "\n| "+head+" |")
	if !ok {
		t.Fatalf("the document has no table headed %q", head)
	}
	var rows [][]string
	for i, line := range strings.Split(rest, "\n") {
		if i < 2 {
			continue // the heading and the line below it
		}
		if !strings.HasPrefix(line, "|") {
			break
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for j := range cells {
			cells[j] = strings.TrimSpace(cells[j])
		}
		rows = append(rows, cells)
	}
	return rows
}

func TestDocumentedCommands(t *testing.T) {
	code := map[string]int{
		"map insert": mapInsert, "map extend": mapExtend, "map remove": mapRemove, "map clear": mapClear, "map swap": mapSwap,
		"set insert": setInsert, "set extend": setExtend, "set remove": setRemove, "set clear": setClear,
		"cell write": cellWrite, "cell clear": cellClear, "cell swap": cellSwap, "once write": onceWrite,
		"vec insert": vecInsert, "vec extend": vecExtend, "vec remove": vecRemove, "vec set": vecSet, "vec swap": vecSwap,
		"vec truncate": vecTruncate, "vec clear": vecClear,
		"queue insert": queueInsert, "queue extend": queueExtend, "queue remove": queueRemove, "queue pop min": queuePopMin,
		"queue pop max": queuePopMax, "queue priority": queuePriority, "queue value": queueValue, "queue swap": queueSwap,
		"queue range": queueRange, "queue clear": queueClear,
		"members found": membersFound, "members admit": membersAdmit, "members seat": membersSeat, "members evict": membersEvict,
		"members policy": membersPolicy,
	}
	signatures := map[string]bool{}
	for _, m := range builtins() {
		signatures[m.Signature()] = true
	}
	for _, cells := range cellsOf(t, "machine") {
		signature := strings.Trim(cells[0], "`")
		if !signatures[signature] {
			t.Errorf("there is no machine %s", signature)
		}
		name := strings.TrimSuffix(strings.TrimPrefix(signature, "mosaik."), ".v1") + " " + cells[1]
		if number, ok := code[name]; !ok || fmt.Sprint(number) != cells[2] {
			t.Errorf("%s is number %s in the document, %d in the code", name, cells[2], number)
		}
		delete(code, name)
	}
	if len(code) != 0 {
		t.Errorf("the document lacks %v", code)
	}
}

func TestDocumentedViewLimits(t *testing.T) {
	want := []int{MaxRowKey, MaxRowValue, MaxKey, MaxPriority, MaxValue, MaxSeats, MaxReaders, MaxMemberNumber, MaxVerdictRecord}
	rows := cellsOf(t, "what")
	if len(rows) != len(want) {
		t.Fatalf("%d limits, the code has %d", len(rows), len(want))
	}
	for i, cells := range rows {
		if cells[1] != fmt.Sprint(want[i]) {
			t.Errorf("%s is %s in the document, %d in the code", cells[0], cells[1], want[i])
		}
	}
}

func TestDocumentedState(t *testing.T) {
	var h StateHash
	h.Add(AppendRowElement(nil, 7, 1, []byte("k"), 9, []byte("v")))
	if got, want := h.Digest().String(), fenced(t, "digest")[0]; got != want {
		t.Errorf("the digest is %s, the document says %s", got, want)
	}
}

func TestDocumentedMapRows(t *testing.T) {
	m := NewMemory(identity.NewID("group"))
	numbers, err := MapDef[string, int]{Name: "numbers"}.Open(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	for i, k := range []string{"a", "b"} {
		if _, _, _, err := numbers.Insert(t.Context(), k, i+1); err != nil {
			t.Fatal(err)
		}
	}
	v, err := m.View(t.Context(), numbers.Key(), Stale())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for row, err := range v.Scan(Range{}) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, hex.EncodeToString(row.Key)+" "+hex.EncodeToString(row.Value))
	}
	if want := fenced(t, "rows"); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("the rows are %q, the document says %q", got, want)
	}
}

func TestDocumentedGuard(t *testing.T) {
	key := identity.NewID("k")
	transaction := Transaction{
		Conditions: []Condition{{Key: key, Kind: RowAbsent, Row: []byte("a")}},
		Commands:   []KeyedCommand{{Key: key, Payload: []byte{1}}},
	}
	encoded := transaction.AppendGuard(nil)
	if want := fenced(t, "guard")[0]; hex.EncodeToString(encoded) != want {
		t.Errorf("the guard is %x, the document says %s", encoded, want)
	}
	g, err := decodeGuard(encoded)
	if err != nil || g.runs != 1 || fmt.Sprint(g.conditions) != fmt.Sprint(transaction.Conditions) {
		t.Errorf("it decodes as %+v, %v", g, err)
	}
	kinds := map[string]ConditionKind{"absent": RowAbsent, "present": RowPresent, "equals": RowEquals, "version": RowVersion}
	for _, cells := range cellsOf(t, "kind") {
		if fmt.Sprint(kinds[cells[0]]) != cells[1] {
			t.Errorf("%s is %s in the document, %d in the code", cells[0], cells[1], kinds[cells[0]])
		}
	}
}

// referenceAdd is StateHash.Add as the paper has it, lane by lane.
func referenceAdd(lanes *[1024]uint16, element []byte, sign uint16) {
	var out [StateHashSize]byte
	x := blake3.New(32, nil)
	x.Write(element)
	x.XOF().Read(out[:])
	for i := range lanes {
		lanes[i] += sign * (uint16(out[2*i]) | uint16(out[2*i+1])<<8)
	}
}

// TestStateHash holds the lanes that are added four at a time against lanes
// added one by one, and the order against another.
func TestStateHash(t *testing.T) {
	var h, backwards StateHash
	var lanes [1024]uint16
	elements := make([][]byte, 40)
	for i := range elements {
		elements[i] = []byte(strings.Repeat(fmt.Sprint(i), 1+40*i)) // some beyond one chunk of BLAKE3
	}
	for i := range elements {
		h.Add(elements[i])
		referenceAdd(&lanes, elements[i], 1)
		backwards.Add(elements[len(elements)-1-i])
	}
	if h != backwards {
		t.Error("the order matters")
	}
	for _, e := range elements[:20] {
		h.Remove(e)
		referenceAdd(&lanes, e, 0xffff)
	}
	encoded := h.AppendTo(nil)
	for i, lane := range lanes {
		if got := uint16(encoded[2*i]) | uint16(encoded[2*i+1])<<8; got != lane {
			t.Fatalf("lane %d is %d, want %d", i, got, lane)
		}
	}
	if again, ok := DecodeStateHash(encoded); !ok || again != h {
		t.Error("it does not decode to itself")
	}
	for _, e := range elements[20:] {
		h.Remove(e)
	}
	if !h.Digest().IsZero() {
		t.Error("the hash of nothing is not zero")
	}
}

// FuzzGuard decodes what is or is not a guard; one that decodes is the only
// encoding of what it says.
func FuzzGuard(f *testing.F) {
	f.Add([]byte{1, 1, 0})
	f.Add((&Transaction{Conditions: []Condition{{Kind: RowVersion, Commit: 300}, {Kind: RowEquals, Row: []byte("r"), Value: []byte("v")}},
		Commands: []KeyedCommand{{}}}).AppendGuard(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		g, err := decodeGuard(b)
		if err != nil {
			return
		}
		again := Transaction{Conditions: g.conditions}
		for i := range g.runs {
			again.Commands = append(again.Commands, KeyedCommand{Key: identity.ID{byte(i % 2)}})
		}
		if encoded := again.AppendGuard(nil); string(encoded) != string(b) {
			t.Errorf("%x decodes and encodes to %x", b, encoded)
		}
	})
}
