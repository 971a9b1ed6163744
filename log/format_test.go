package log

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"lukechampine.com/blake3"

	"github.com/mosaik-engine/mosaik/identity"
)

const formatDocument = "../docs/format/log.md"

// section returns the lines of the document from the heading to the next one.
func section(t *testing.T, heading string) []string {
	t.Helper()
	b, err := os.ReadFile(formatDocument)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(b), "\n")
	start := slices.Index(lines, heading)
	if start < 0 {
		t.Fatalf("%s has no section %q", formatDocument, heading)
	}
	lines = lines[start+1:]
	if end := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, "#") }); end >= 0 {
		lines = lines[:end]
	}
	return lines
}

// rows returns the cells of the table rows in a section, without the table's
// heading and without code quotes.
func rows(t *testing.T, heading string) [][]string {
	t.Helper()
	var table [][]string
	for _, line := range section(t, heading) {
		if !strings.HasPrefix(line, "|") {
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.Trim(strings.TrimSpace(cells[i]), "`")
		}
		table = append(table, cells)
	}
	if len(table) < 3 {
		t.Fatalf("section %q has no table", heading)
	}
	return table[2:]
}

// fence returns the content of the section's code block with the given tag.
func fence(t *testing.T, heading, tag string) string {
	t.Helper()
	lines := section(t, heading)
	start := slices.Index(lines, "```"+tag)
	if start < 0 {
		t.Fatalf("section %q has no %s block", heading, tag)
	}
	lines = lines[start+1:]
	return strings.Join(lines[:slices.Index(lines, "```")], "\n")
}

// field is a row of a table of fields.
type field struct {
	name         string
	offset, size int
}

func (f field) of(b []byte) []byte { return b[f.offset : f.offset+f.size] }

func fields(t *testing.T, heading string) []field {
	t.Helper()
	var list []field
	for _, cells := range rows(t, heading) {
		offset, err1 := strconv.Atoi(cells[0])
		size, err2 := strconv.Atoi(cells[1])
		if err := errors.Join(err1, err2); err != nil {
			t.Fatalf("section %q: %v", heading, err)
		}
		list = append(list, field{cells[2], offset, size})
	}
	return list
}

func TestDocumentedFieldsAreTheConstants(t *testing.T) {
	for _, tc := range []struct {
		heading string
		total   int
		want    []field
	}{
		{"## Commit header", HeaderSize, []field{
			{"version", offVersion, offGroup - offVersion},
			{"group", offGroup, offNumber - offGroup},
			{"number", offNumber, offTime - offNumber},
			{"time", offTime, offPrev - offTime},
			{"prev", offPrev, offBody - offPrev},
			{"body", offBody, offState - offBody},
			{"state", offState, offRecords - offState},
			{"records", offRecords, HeaderSize - offRecords},
		}},
		{"### Run", RunHeaderSize, []field{
			{"key", runKey, runFirst - runKey},
			{"first_seq", runFirst, runCount - runFirst},
			{"count", runCount, runSize - runCount},
			{"size", runSize, RunHeaderSize - runSize},
		}},
	} {
		if got := fields(t, tc.heading); !slices.Equal(got, tc.want) {
			t.Errorf("%s says %v, the code has %v", tc.heading, got, tc.want)
		}
		sentence := regexp.MustCompile(`header has (\d+) bytes`).FindStringSubmatch(strings.Join(section(t, tc.heading), "\n"))
		if sentence == nil || sentence[1] != strconv.Itoa(tc.total) {
			t.Errorf("%s says %q, the code has %d bytes", tc.heading, sentence, tc.total)
		}
	}
}

func TestDocumentedLimits(t *testing.T) {
	limits := map[string]int{"MaxPayload": MaxPayload, "MaxRecords": MaxRecords, "MaxBody": MaxBody}
	for _, cells := range rows(t, "## Limits") {
		if want, ok := limits[cells[0]]; !ok || cells[1] != strconv.Itoa(want) {
			t.Errorf("the document says %s is %s, the code has %d", cells[0], cells[1], want)
		}
		delete(limits, cells[0])
	}
	for name := range limits {
		t.Errorf("the document does not mention %s", name)
	}
}

func TestDocumentedTexts(t *testing.T) {
	forms := 0
	for _, cells := range rows(t, "## Position") {
		if cells[0] == "mosaik:..." {
			continue // the example below has a whole one
		}
		forms++
		if p, err := ParsePosition(cells[0]); err != nil || p.String() != cells[0] {
			t.Errorf("the document's position %q = %v, %v", cells[0], p, err)
		}
	}
	if forms != 5 {
		t.Errorf("the document has %d forms of position, the code 5 and the pointer", forms)
	}
	var parts []string
	for _, cells := range rows(t, "## Pointer") {
		parts = append(parts, "<"+cells[0]+">")
	}
	if got := "mosaik:" + parts[0] + "/" + parts[1] + "@" + parts[2] + "/" + parts[3] + "/" + parts[4]; !slices.Contains(section(t, "## Pointer"), got) {
		t.Errorf("the parts of a pointer do not make up its form: %s", got)
	}
}

func TestDocumentedDirectory(t *testing.T) {
	payload, err := CBOR[DirectoryEntry]().Append(nil, DirectoryEntry{"a", KindStream, "cbor"})
	if err != nil {
		t.Fatal(err)
	}
	decoded, err := CBOR[map[string]string]().Decode(payload)
	if err != nil {
		t.Fatal(err)
	}
	for _, cells := range rows(t, "## Directory") {
		if _, ok := decoded[cells[0]]; !ok {
			t.Errorf("the document's field %s is not in a record of the directory, %v", cells[0], decoded)
		}
		delete(decoded, cells[0])
	}
	if len(decoded) != 0 {
		t.Errorf("the document lacks %v", decoded)
	}
	if text := strings.Join(section(t, "## Directory"), "\n"); !strings.Contains(text, `H("`+directoryName+`")`) || !strings.Contains(text, "`"+KindStream+"`") {
		t.Error("the document has another name for the directory or for the kind of a stream")
	}
}

// exampleCommit builds the commit of the document's example.
func exampleCommit() Commit {
	var price, note []byte
	price = AppendRecord(price, []byte("1.0842"))
	price = AppendRecord(price, bytes.Repeat([]byte("="), 128)) // a length of two bytes
	note = AppendRecord(note, nil)
	body := AppendRun(nil, identity.NewID("oracle.price"), 3, 2, price)
	body = AppendRun(body, identity.NewID("notes"), 1, 1, note)
	c := Commit{Body: body, Header: Header{
		Version: HeaderVersion,
		Group:   identity.NewID("mosaik.example"),
		Number:  2,
		Time:    time.Date(2024, 5, 6, 7, 8, 9, 500_000_000, time.UTC).UnixNano(),
		Prev:    Sum([]byte("commit 1")),
		Body:    Sum(body),
		State:   Sum([]byte("views")),
		Records: 3,
	}}
	c.Digest = c.Header.Digest()
	return c
}

func unhex(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(text), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func readGolden(t testing.TB) []byte {
	t.Helper()
	text, err := os.ReadFile("testdata/commit.hex")
	if err != nil {
		t.Fatal(err)
	}
	return unhex(t, string(text))
}

func TestGoldenCommit(t *testing.T) {
	golden := readGolden(t)
	want := exampleCommit()
	if got := want.AppendTo(nil); !bytes.Equal(got, golden) {
		t.Fatalf("the example encodes as\n%x\nand not as testdata/commit.hex\n%x", got, golden)
	}
	got, err := DecodeCommit(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got.Header != want.Header || got.Digest != want.Digest || !bytes.Equal(got.Body, want.Body) {
		t.Errorf("decoded %+v, want %+v", got, want)
	}
	if err := got.Verify(); err != nil {
		t.Error(err)
	}
	if documented := unhex(t, fence(t, "## Example", "hex")); !bytes.Equal(documented, golden) {
		t.Error("the document's example is not testdata/commit.hex")
	}
}

// The golden bytes are read here with the document's offsets and the hash
// library alone: what another implementation would do.
func TestGoldenCommitByTheDocument(t *testing.T) {
	golden, want := readGolden(t), exampleCommit()
	header, body := golden[:HeaderSize], golden[HeaderSize:]
	got := map[string][]byte{}
	for _, f := range fields(t, "## Commit header") {
		got[f.name] = f.of(header)
	}
	number := func(b []byte) uint64 {
		return binary.LittleEndian.Uint64(append(slices.Clone(b), make([]byte, 8-len(b))...))
	}
	bodyHash := blake3.Sum256(body)
	group := blake3.Sum256([]byte("mosaik.example"))
	for name, want := range map[string][]byte{"group": group[:], "body": bodyHash[:], "prev": want.Header.Prev[:], "state": want.Header.State[:]} {
		if !bytes.Equal(got[name], want) {
			t.Errorf("%s = %x, want %x", name, got[name], want)
		}
	}
	for name, want := range map[string]uint64{"version": 1, "number": 2, "time": 1714979289500000000, "records": 3} {
		if number(got[name]) != want {
			t.Errorf("%s = %d, want %d", name, number(got[name]), want)
		}
	}

	type run struct {
		Key            string
		First, Records uint64
		Bytes          string
	}
	var runs []run
	for len(body) > 0 {
		values := map[string][]byte{}
		end := 0
		for _, f := range fields(t, "### Run") {
			values[f.name] = f.of(body)
			end = f.offset + f.size
		}
		size := int(number(values["size"]))
		runs = append(runs, run{hex.EncodeToString(values["key"]), number(values["first_seq"]), number(values["count"]), string(body[end : end+size])})
		body = body[end+size:]
	}
	price, notes := blake3.Sum256([]byte("oracle.price")), blake3.Sum256([]byte("notes"))
	wantRuns := []run{
		{hex.EncodeToString(price[:]), 3, 2, "\x061.0842\x80\x01" + strings.Repeat("=", 128)},
		{hex.EncodeToString(notes[:]), 1, 1, "\x00"},
	}
	if !slices.Equal(runs, wantRuns) {
		t.Errorf("runs = %+v, want %+v", runs, wantRuns)
	}

	digest := blake3.Sum256(header)
	pointer := Pointer{Group: group, Commit: 2, Digest: digest, Key: price, Seq: 4}
	if documented := strings.TrimSpace(fence(t, "## Example", "pointer")); documented != pointer.String() {
		t.Errorf("the document's pointer is %s, want %s", documented, pointer)
	}
}
