package identity

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// part returns the lines of docs/format/entry.md from the heading to the next one.
func part(t *testing.T, heading string) string {
	t.Helper()
	b, err := os.ReadFile("../docs/format/entry.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(b), "\n"+heading+"\n")
	if !found {
		t.Fatalf("docs/format/entry.md has no %q", heading)
	}
	rest, _, _ = strings.Cut(rest, "\n## ")
	return rest
}

// cells returns the rows of the tables in a text whose first cell fits the pattern.
func cells(text, first string) [][]string {
	var rows [][]string
	for _, line := range strings.Split(text, "\n") {
		row := strings.Split(strings.Trim(line, "|"), "|")
		for i := range row {
			row[i] = strings.Trim(strings.TrimSpace(row[i]), "`")
		}
		if strings.HasPrefix(line, "|") && regexp.MustCompile("^(?:"+first+")$").MatchString(row[0]) {
			rows = append(rows, row)
		}
	}
	return rows
}

// TestDocumentedEntryFields reads an entry by the offsets and the lists of the document.
func TestDocumentedEntryFields(t *testing.T) {
	key := testKey(1)
	e := testEntry(key)
	e.Normalize()
	b := e.AppendTo(nil)
	want := map[string][]byte{
		"format": {entryFormat}, "protocol": {0, 0, 4, 0, 1, 0}, "network": e.Network[:], "peer": e.Peer[:],
		"started": binary.LittleEndian.AppendUint64(nil, e.Version.Started), "updated": binary.LittleEndian.AppendUint64(nil, e.Version.Updated),
	}
	text := part(t, "## Entry")
	end := 0
	for _, row := range cells(text, `\d+`) {
		offset, err1 := strconv.Atoi(row[0])
		size, err2 := strconv.Atoi(row[1])
		if err1 != nil || err2 != nil || offset != end || size != len(want[row[2]]) {
			t.Fatalf("%v: it does not follow at %d, or has another size", row, end)
		}
		if end = offset + size; !bytes.Equal(b[offset:end], want[row[2]]) {
			t.Errorf("%s is %x, want %x", row[2], b[offset:end], want[row[2]])
		}
		delete(want, row[2])
	}
	if len(want) > 0 {
		t.Errorf("the document lacks %v", want)
	}
	rest := b[end:]
	take := func(n int) []byte {
		head := rest[:n]
		rest = rest[n:]
		return head
	}
	var names []string
	for _, row := range cells(text, "`?(addresses|tags|streams|groups|tickets)`?") {
		names = append(names, row[0])
		for i := range int(take(1)[0]) {
			switch row[1] {
			case "size 1, text `host:port": // cells has cut the last quote
				if got := string(take(int(take(1)[0]))); got != e.Addresses[i] {
					t.Errorf("address %q, want %q", got, e.Addresses[i])
				}
			case "an id":
				list := map[string][]ID{"tags": e.Tags, "streams": e.Streams, "groups": e.Groups}[row[0]]
				if got := ID(take(Size)); got != list[i] {
					t.Errorf("%s: %s, want %s", row[0], got, list[i])
				}
			case "class, an id; size 2; data":
				class := ID(take(Size))
				data := take(int(binary.LittleEndian.Uint16(take(2))))
				if class != e.Tickets[i].Class || !bytes.Equal(data, e.Tickets[i].Data) {
					t.Errorf("ticket %s %q, want %s %q", class, data, e.Tickets[i].Class, e.Tickets[i].Data)
				}
			default:
				t.Fatalf("a list of %q is unknown to this test", row[1])
			}
		}
	}
	if len(rest) > 0 || !slices.Equal(names, []string{"addresses", "tags", "streams", "groups", "tickets"}) {
		t.Errorf("lists %v, and %d bytes after them", names, len(rest))
	}
}

func TestDocumentedEntryLimits(t *testing.T) {
	have := map[string]string{}
	for _, row := range cells(part(t, "## Limits"), "[a-z ]+") {
		have[row[0]] = row[1]
	}
	delete(have, "limit") // the heading
	want := map[string]string{
		"entry and signature": fmt.Sprint(MaxEntry, " bytes"), "tickets": fmt.Sprint(MaxTickets), "data of a ticket": fmt.Sprint(MaxTicket, " bytes"),
		"addresses": fmt.Sprint(MaxAddresses), "address": fmt.Sprint(MaxAddress, " bytes"),
		"tags": fmt.Sprint(MaxEntryIDs), "streams": fmt.Sprint(MaxEntryIDs), "groups": fmt.Sprint(MaxEntryIDs),
	}
	if fmt.Sprint(have) != fmt.Sprint(want) {
		t.Errorf("the document has the limits %v, the code %v", have, want)
	}
}

// TestDocumentedEntryExample: the example is what the code makes of the same entry, and
// its signature is over what the document says.
func TestDocumentedEntryExample(t *testing.T) {
	text := part(t, "## Example")
	_, fence, _ := strings.Cut(text, "```hex\n")
	fence, after, _ := strings.Cut(fence, "```")
	var example []byte
	for _, line := range strings.Split(strings.TrimSpace(fence), "\n") {
		digits, _, _ := strings.Cut(line, "  ")
		b, err := hex.DecodeString(strings.ReplaceAll(digits, " ", ""))
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		example = append(example, b...)
	}
	key := testKey(1)
	s, err := SignEntry(PeerEntry{
		Protocol: [3]uint16{0, 4, 1}, Network: NewID("network"), Peer: key.PeerID(), Version: EntryVersion{1000, 2000},
		Addresses: []string{"a.example:7072", "[::1]:7072"}, Tags: []ID{NewID("tag")}, Streams: []ID{NewID("oracle.price")},
		Tickets: []Ticket{{NewID("class"), []byte("data")}},
	}, key)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(s.Bytes(), example) {
		t.Errorf("the example is %x, the code makes %x", example, s.Bytes())
	}
	if _, err := DecodeSignedEntry(example); err != nil {
		t.Error(err)
	}
	if !strings.Contains(after, "`"+s.Digest().String()+"`") {
		t.Errorf("the digest of the example is %s", s.Digest())
	}
	m := regexp.MustCompile("over the (\\d+) bytes `([^`]+)` and zero").FindStringSubmatch(strings.ReplaceAll(part(t, "## Signature"), "\n", " "))
	if m == nil {
		t.Fatal("the document does not say what is signed")
	}
	signed := append([]byte(m[2]), 0)
	if m[1] != strconv.Itoa(len(signed)) {
		t.Errorf("%s bytes are %d", m[1], len(signed))
	}
	entry, signature := example[:len(example)-64], example[len(example)-64:]
	digest := FromParts(entry)
	if !key.Verify(append(signed, digest[:]...), signature) {
		t.Error("the signature is not over what the document says")
	}
}
