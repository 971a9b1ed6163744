package network

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/snapshot"
)

// tables returns the tables below a heading of the document, each as rows of cells
// without the heading's.
func tables(t *testing.T, heading string) (all [][][]string) {
	t.Helper()
	b, err := os.ReadFile("../docs/format/bond.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, ok := strings.Cut(string(b), "\n"+heading+"\n")
	if !ok {
		t.Fatalf("the document has no %q", heading)
	}
	text, _, _ = strings.Cut(text, "\n## ")
	var rows [][]string
	for line := range strings.Lines(text + "\n\n") {
		if strings.HasPrefix(line, "|") {
			var cells []string
			for cell := range strings.SplitSeq(strings.Trim(strings.TrimSpace(line), "|"), "|") {
				cells = append(cells, strings.Trim(strings.TrimSpace(cell), "`"))
			}
			rows = append(rows, cells)
		} else if rows != nil {
			all = append(all, rows[2:])
			rows = nil
		}
	}
	return all
}

// fields compares a table of fields with encoded bytes, in which they must lie
// without a gap, and returns the rest.
func fields(t *testing.T, rows [][]string, encoded []byte, want map[string][]byte) []byte {
	t.Helper()
	end := 0
	for _, row := range rows {
		offset, err1 := strconv.Atoi(row[0])
		size, err2 := strconv.Atoi(row[1])
		if err1 != nil || err2 != nil || offset != end {
			t.Fatalf("field %s is at %s, want %d", row[2], row[0], end)
		}
		end += size
		if value, known := want[row[2]]; !known || !bytes.Equal(encoded[offset:end], value) {
			t.Errorf("field %s is %x, want %x (known: %v)", row[2], encoded[offset:end], value, known)
		}
		delete(want, row[2])
	}
	if len(want) > 0 {
		t.Errorf("the document lacks %v", want)
	}
	return encoded[end:]
}

// TestDocumentedProtocols holds the table of protocols against what is registered.
func TestDocumentedProtocols(t *testing.T) {
	n := openNode(t, new(phonebook), 1, nil)
	new(received).listen(t, n)
	s, err := OpenShards(n.Endpoint, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	rows := tables(t, "## TLS")[0]
	for _, row := range rows {
		p := n.protocol(row[0])
		if p == nil || p.Groups != (row[1] == "yes") || fmt.Sprint(p.MaxMessage) != row[2] {
			t.Errorf("%v: the code has %+v", row, p)
		}
	}
	if got := len(n.protocolNames()); got != len(rows) {
		t.Errorf("%d protocols are registered, the document has %d", got, len(rows))
	}
	for alert, want := range map[string]fmt.Stringer{"42": stringer(alertBadCertificate), "116": stringer(alertCertificateRequired), "120": stringer(alertNoProtocol)} {
		if want.String() != alert {
			t.Errorf("alert %s is %s in the code", alert, want)
		}
	}
}

type stringer uint8

func (s stringer) String() string { return strconv.Itoa(int(s)) }

// TestDocumentedFrames holds the tables of frames and their sizes against the code.
func TestDocumentedFrames(t *testing.T) {
	all := tables(t, "## Frames")
	header := appendHeader(nil, kindMessage, 0x01020304)
	if rest := fields(t, all[0], header, map[string][]byte{"length": {4, 3, 2, 1}, "kind": {kindMessage}}); len(rest) > 0 || len(header) != headerSize {
		t.Errorf("a header of %d bytes", len(header))
	}
	if kind, n := decodeHeader(header); kind != kindMessage || n != 0x01020304 {
		t.Errorf("%d, %d", kind, n)
	}
	want := [][]string{
		{fmt.Sprint(kindHello), "hello", fmt.Sprint(maxHello)}, {fmt.Sprint(kindWelcome), "welcome", fmt.Sprint(maxRefused)},
		{fmt.Sprint(kindClose), "close", fmt.Sprint(maxClose)}, {fmt.Sprint(kindHeartbeat), "heartbeat", "0"},
		{fmt.Sprint(kindEntry), "entry", fmt.Sprint(identity.MaxEntry)},
		{fmt.Sprint(kindMessage), "message", "of the protocol"},
	}
	for i, row := range all[1] {
		if strings.Join(row[:3], "|") != strings.Join(want[i], "|") {
			t.Errorf("%v, the code has %v", row, want[i])
		}
	}
	if len(all[1]) != len(want) {
		t.Errorf("%d kinds", len(all[1]))
	}
}

// TestDocumentedHello holds the tables of a hello against one.
func TestDocumentedHello(t *testing.T) {
	h := seedHello()
	all := tables(t, "## Handshake")
	rest := fields(t, all[0], h.appendTo(nil), map[string][]byte{"network": testNetwork[:], "proven": {2, 0}})
	for _, p := range h.proven {
		rest = fields(t, all[1], rest[:proofSize:proofSize], map[string][]byte{"group": p.group[:], "proof": p.proof[:]})
		if len(rest) > 0 {
			t.Fatal("a proof is longer than the document says")
		}
		rest = h.appendTo(nil)[networkSize+2+proofSize:]
	}
	rest = h.appendTo(nil)[networkSize+2+2*proofSize:]
	want := []byte{2, 0}
	for _, r := range h.refused {
		want = append(append(append(want, r.group[:]...), byte(len(r.reason))), r.reason...)
	}
	want = append(append(want, byte(len(h.entry)), 0), h.entry...)
	if !bytes.Equal(rest, want) {
		t.Errorf("refused groups and the entry are %x, the document says %x", rest, want)
	}
	if !strings.Contains(fmt.Sprint(all[0]), strconv.Itoa(MaxGroups)) {
		t.Errorf("the document does not say %d", MaxGroups)
	}
}

// TestDocumentedProof holds the example of a proof against the code.
func TestDocumentedProof(t *testing.T) {
	example := map[string]identity.ID{}
	for _, row := range tables(t, "## Proofs")[0] {
		id, err := identity.ParseID(row[1])
		if err != nil {
			t.Fatalf("%v: %v", row, err)
		}
		example[row[0]] = id
	}
	group := identity.NewID("a group")
	material := example["exporter"]
	export := func(label string, context []byte, length int) ([]byte, error) {
		if label != string(group[:]) || string(context) != RaftProtocol || length != 32 {
			t.Errorf("exported with label %x, context %q, %d bytes", label, context, length)
		}
		return material[:], nil
	}
	got, err := proofOf(export, RaftProtocol, group, example["key of the group"], identity.PeerID(example["PeerID"]))
	if err != nil || got != example["proof"] {
		t.Errorf("the proof is %s, %v, the document says %s", hex.EncodeToString(got[:]), err, example["proof"])
	}
}

// TestDocumentedReasons holds the table of words against the code, in order.
func TestDocumentedReasons(t *testing.T) {
	rows := tables(t, "## Reasons")[0]
	for i, row := range rows {
		if i >= len(reasons) || string(reasons[i]) != row[0] {
			t.Errorf("word %d is %q in the document", i, row[0])
		}
	}
	if len(rows) != len(reasons) {
		t.Errorf("the document has %d words, the code %d", len(rows), len(reasons))
	}
	for _, r := range reasons {
		if len(r) > maxWord {
			t.Errorf("%q is longer than %d bytes", r, maxWord)
		}
	}
}

// TestDocumentedShards holds the tables of requests and answers against the code.
func TestDocumentedShards(t *testing.T) {
	all := tables(t, "## Shards")
	group := identity.NewID("g")
	b, err := appendShardRequest(nil, 0x04030201, snapshot.Request{Group: group, Segment: 7, State: true, Shard: 0x0102, First: 9, Count: snapshot.MaxCells})
	if err != nil {
		t.Fatal(err)
	}
	rest := fields(t, all[0], b, map[string][]byte{
		"id": {1, 2, 3, 4}, "group": group[:], "segment": {7, 0, 0, 0, 0, 0, 0, 0}, "state": {1}, "shard": {2, 1}, "first": {9, 0, 0, 0}, "count": {16, 0},
	})
	if len(rest) > 0 {
		t.Errorf("%x after a request", rest)
	}
	answer := shardAnswer{id: 1, status: shardFailed, content: bytes.Repeat([]byte("x"), 1000)}
	rest = fields(t, all[1], answer.appendTo(nil), map[string][]byte{"id": {1, 0, 0, 0}, "status": {2}})
	if len(rest) != maxShardError {
		t.Errorf("an error of %d bytes", len(rest))
	}
	text, err := os.ReadFile("../docs/format/bond.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, phrase := range []string{fmt.Sprintf("at most %d bytes", maxShardError), fmt.Sprintf("at most %d requests", shardsInFlight), fmt.Sprintf("of at most %d bytes, with an Ed25519", maxCertificate)} {
		if !strings.Contains(string(text), phrase) {
			t.Errorf("the document does not say %q", phrase)
		}
	}
}
