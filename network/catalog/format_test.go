package catalog

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/mosaik-engine/mosaik/identity"
)

// document returns the rows of the n-th table of the format's page, and all of it.
func document(t *testing.T, n int) (rows [][]string, text string) {
	t.Helper()
	b, err := os.ReadFile("../../docs/format/catalog.md")
	if err != nil {
		t.Fatal(err)
	}
	tables := 0
	within := false
	for line := range strings.Lines(string(b)) {
		if !strings.HasPrefix(line, "|") {
			within = false
			continue
		}
		if !within {
			tables, within = tables+1, true
		}
		if tables == n+1 {
			var cells []string
			for cell := range strings.SplitSeq(strings.Trim(strings.TrimSpace(line), "|"), "|") {
				cells = append(cells, strings.Trim(strings.TrimSpace(cell), "`"))
			}
			rows = append(rows, cells)
		}
	}
	return rows[2:], string(b)
}

// TestDocumentedMessages holds the table of messages and its limits against the code.
func TestDocumentedMessages(t *testing.T) {
	rows, text := document(t, 0)
	names := []string{"summary", "buckets", "digest", "announce", "want", "entries", "ping", "pong"}
	if len(rows) != len(names) {
		t.Fatalf("%d kinds in the document", len(rows))
	}
	for i, row := range rows {
		if row[0] != fmt.Sprint(i+1) || row[1] != names[i] {
			t.Errorf("%v, the code has %d %s", row, i+1, names[i])
		}
	}
	for what, n := range map[string]int{
		"summary": 1 + 32, "buckets": 1 + 256*16, "digest": 1 + 32 + 2, "announce": 1 + 2, "want": 1 + 2, "entries": 1 + 2, "ping": 1 + 8, "pong": 1 + 8,
	} {
		kind := byte(1)
		for names[kind-1] != what {
			kind++
		}
		if got := len((&message{kind: kind}).appendTo(nil)); got != n {
			t.Errorf("%s has %d bytes, the document says %d", what, got, n)
		}
	}
	if one := (&message{kind: kindAnnounce, versions: make([]version, 1)}).appendTo(nil); len(one) != 3+32+8+8 {
		t.Errorf("a version has %d bytes", len(one)-3)
	}
	for _, limit := range []string{
		Protocol, fmt.Sprint("at most ", maxMessage, " bytes"), fmt.Sprint("at most ", maxVersions, ";"), fmt.Sprint("count 2, at most ", maxWanted, ";"),
		"mosaik.departed", "every 5 minutes", "for 15 minutes", "after 10 s",
	} {
		if !strings.Contains(text, limit) {
			t.Errorf("the document does not say %q", limit)
		}
	}
	o, err := Options{}.withDefaults()
	if err != nil || o.Refresh.Minutes() != 5 || o.Silence.Minutes() != 15 || answerTimeout.Seconds() != 10 {
		t.Errorf("%+v, %v", o, err)
	}
	if Departed() != identity.NewID("mosaik.departed") {
		t.Error(Departed())
	}
}

// TestDocumentedSums holds the example of sums against the code.
func TestDocumentedSums(t *testing.T) {
	rows, _ := document(t, 1)
	example := make(map[string][]byte)
	for _, row := range rows {
		b, err := hex.DecodeString(row[1])
		if err != nil {
			t.Errorf("%v: %v", row, err)
		}
		example[row[0]] = b
	}
	var v version
	v.peer = identity.PeerID(example["peer"])
	b := append(append(append([]byte{kindAnnounce, 1, 0}, example["peer"]...), example["started"]...), example["updated"]...)
	m, err := decodeMessage(b)
	if err != nil {
		t.Fatal(err)
	}
	v = m.versions[0]
	var sums [buckets]sum
	sums[v.peer[0]].add(hashOf(v))
	if got := sums[v.peer[0]].appendTo(nil); !bytes.Equal(got, example["sum of its bucket"]) {
		t.Errorf("the sum of its bucket is %x", got)
	}
	if got := sumOf(&sums); !bytes.Equal(got[:], example["sum of the catalog"]) {
		t.Errorf("the sum of the catalog is %s", got)
	}
	sums[v.peer[0]].remove(hashOf(v))
	if sums != ([buckets]sum{}) {
		t.Error("what was added is not taken out")
	}
}

// FuzzMessage: what decodes encodes to the same bytes.
func FuzzMessage(f *testing.F) {
	for _, m := range []message{
		{kind: kindSummary}, {kind: kindBuckets, sums: [buckets]sum{{1, 2}}}, {kind: kindPing, nonce: [8]byte{1}}, {kind: kindPong},
		{kind: kindDigest, which: [bitmapSize]byte{1}, versions: []version{{peer: identity.PeerID{1}}}},
		{kind: kindAnnounce, versions: []version{{peer: identity.PeerID{1}}, {peer: identity.PeerID{2}}}},
		{kind: kindWant, peers: []identity.PeerID{{1}, {2}}}, {kind: kindEntries, entries: [][]byte{[]byte("one"), {}}},
	} {
		f.Add(m.appendTo(nil))
	}
	f.Add([]byte{kindWant, 255, 255})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeMessage(b)
		if err != nil {
			return
		}
		if again := m.appendTo(nil); !bytes.Equal(again, b) {
			t.Fatalf("%x decodes, and encodes to %x", b, again)
		}
		if len(m.versions) > maxVersions || len(m.peers) > maxWanted || len(m.entries) > maxWanted {
			t.Fatal("above a limit")
		}
	})
}

// FuzzGossip: no sequence of messages makes a catalog know what no peer has signed, or
// lose count of what it knows.
func FuzzGossip(f *testing.F) {
	known := make(map[string]*identity.SignedEntry)
	for i := range 4 {
		for updated := range uint64(3) {
			s := entryOf(f, i, updated+2)
			known[string(s.Bytes())] = s
		}
	}
	announce := func(i int, updated uint64) []byte {
		return (&message{kind: kindAnnounce, versions: []version{{keyOf(i).PeerID(), identity.EntryVersion{Started: 1, Updated: updated}}}}).appendTo(nil)
	}
	entries := func(i int, updated uint64) []byte {
		return (&message{kind: kindEntries, entries: [][]byte{entryOf(f, i, updated).Bytes()}}).appendTo(nil)
	}
	f.Add(announce(2, 3), entries(2, 3), announce(3, 2))
	f.Add(announce(1, 3), entries(2, 3), []byte{kindPing})
	f.Add((&message{kind: kindSummary}).appendTo(nil), (&message{kind: kindBuckets, sums: [buckets]sum{{1, 1}}}).appendTo(nil), entries(1, 4))
	f.Fuzz(func(t *testing.T, a, b, c []byte) {
		now := testStart
		g := newGossip(keyOf(0).PeerID(), limits{network: testNetwork, peers: 3, bytes: 1 << 20, silence: testSilence})
		g.hear(now, noLink, known[string(entryOf(t, 0, 2).Bytes())])
		g.connected(1, keyOf(1).PeerID(), true)
		for _, m := range [][]byte{a, b, c} {
			if g.receive(now, 1, m) != nil {
				break
			}
		}
		out, _ := g.take()
		for _, o := range out {
			if n := len(o.message.appendTo(nil)); n > maxMessage {
				t.Fatalf("a message of %d bytes", n)
			}
		}
		bytes := 0
		var sums [buckets]sum
		for p, k := range g.peers {
			if known[string(k.bytes())] == nil || k.entry.Entry.Peer != p {
				t.Fatalf("peer %s was never heard of", p)
			}
			bytes += k.size()
			sums[p[0]].add(k.sum)
		}
		if bytes != g.bytes || sums != g.sums || len(g.peers) > 3 {
			t.Fatalf("%d peers, %d bytes, %d counted", len(g.peers), bytes, g.bytes)
		}
	})
}
