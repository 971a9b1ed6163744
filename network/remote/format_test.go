package remote

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/network"
)

// document returns the rows of the n-th table of the format's page, and all of it.
func document(t *testing.T, n int) (rows [][]string, text string) {
	t.Helper()
	b, err := os.ReadFile("../../docs/format/remote.md")
	if err != nil {
		t.Fatal(err)
	}
	tables, within := 0, false
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

var (
	aside  = regexp.MustCompile(`\([^)]*\)`)
	number = regexp.MustCompile(`\b[0-9]+\b`)
)

// fixed adds up the sizes in a cell of the document: the numbers in it, but for those in
// parentheses, of limits, and of what is there more than once.
func fixed(cell string) (sum int) {
	cell, _, _ = strings.Cut(aside.ReplaceAllString(cell, ""), "at most")
	cell, _, _ = strings.Cut(cell, "of each")
	for _, n := range number.FindAllString(cell, -1) {
		var size int
		fmt.Sscan(n, &size)
		sum += size
	}
	return sum
}

// TestDocumentedMessages holds the messages and the limits against the code.
func TestDocumentedMessages(t *testing.T) {
	rows, text := document(t, 0)
	for i, m := range []message{
		{kind: kindOpen, credit: MinWindow}, {kind: kindCredit, credit: 1}, {kind: kindCancel, reason: "w"}, {kind: kindData, content: []byte{1}}, {kind: kindEnd, reason: "w"}, {kind: kindPing}, {kind: kindPong},
	} {
		row := rows[i]
		if row[0] != fmt.Sprint(int(m.kind)) {
			t.Errorf("%v, the code has kind %d", row, m.kind)
		}
		want := 1 + fixed(row[3]) + len(m.reason) + len(m.content)
		if b := m.appendTo(nil); len(b) != want {
			t.Errorf("%s has %d bytes, the document says %d", row[1], len(b), want)
		}
	}
	if len(rows) != int(kindPong) {
		t.Errorf("%d kinds in the document", len(rows))
	}
	for _, phrase := range []string{
		Protocol + "`", fmt.Sprint("at most ", maxMessage, " bytes"), fmt.Sprint("at most ", maxRequest, " bytes"), fmt.Sprint("at most ", maxData, " bytes"), fmt.Sprint("of at most ", maxText, " bytes"),
		fmt.Sprint("of 1 to ", maxWord, " bytes"), fmt.Sprintf("from %d to %d bytes", MinWindow, MaxWindow), fmt.Sprintf("up to %d channels", maxChannels), fmt.Sprintf("and %d bytes of writes", maxWriting),
		fmt.Sprint("at most ", maxItem, " bytes"), fmt.Sprint("at most ", maxPeers), fmt.Sprintf("Flags: %d follow, %d the filter has a since, %d it has an until, %d reversed", flagFollow, flagSince, flagUntil, flagReverse),
		fmt.Sprintf("(%d linearizable, %d stale, %d as of)", readLinearizable, readStale, readAsOf), fmt.Sprintf("(%d it existed, %d it exists)", rowExisted, rowExists),
	} {
		if !strings.Contains(text, phrase) {
			t.Errorf("the document does not say %q", phrase)
		}
	}
}

// TestDocumentedRequests holds the requests against the code.
func TestDocumentedRequests(t *testing.T) {
	rows, _ := document(t, 1)
	header := 0
	for _, row := range rows {
		if row[0] != fmt.Sprint(header) {
			t.Errorf("%v is at %d", row, header)
		}
		var n int
		fmt.Sscan(row[1], &n)
		header += n
	}
	rows, _ = document(t, 2)
	for i, row := range rows {
		o := op(i + 1)
		r := request{op: o, group: testGroup, pointer: log.Pointer{Commit: 1}}
		variable := map[op]int{opScan: len("earliest"), opRows: 2, opAppend: 1, opSubmit: 2, opWait: len(r.pointer.String()), opConsumers: 1}[o]
		if row[0] != fmt.Sprint(int(o)) || row[1] != o.String() || len(r.appendTo(nil)) != header+fixed(row[2])+variable {
			t.Errorf("%v: the code has %d %s of %d bytes", row, o, o, len(r.appendTo(nil)))
		}
	}
	if len(rows) != int(opConsumers) {
		t.Errorf("%d ops in the document", len(rows))
	}
}

// TestDocumentedItems holds the items against the code: their sizes follow from the
// document's numbers.
func TestDocumentedItems(t *testing.T) {
	rows, _ := document(t, 3)
	items := [][]byte{
		(&start{}).appendTo(nil), nil, appendRow(nil, &log.Row{}), appendChange(nil, &log.Changes{}), appendRowWas(nil, &log.Change{}), (&written{}).appendTo(nil), appendResult(nil, nil), appendPeers(nil, nil),
	}
	run, _, err := log.NextRun(log.AppendRun(nil, testKey, 1, 1, []byte{0}), 0)
	if err != nil {
		t.Fatal(err)
	}
	items[1] = appendRun(nil, &run)
	extra := map[int]int{1: log.RunHeaderSize + 1, 2: 1, 4: 2} // of what has no fixed size
	for i, row := range rows {
		got := len(items[i]) - itemHeader - extra[i]
		want := fixed(row[2])
		if row[1] == "peers" {
			want, got = identity.Size, len(appendPeers(nil, make([]identity.PeerID, 1)))-itemHeader
		}
		if row[0] != fmt.Sprint(int(items[i][0])) || got != want {
			t.Errorf("%v: kind %d with %d bytes, want %d", row, items[i][0], got, want)
		}
	}
	if len(rows) != len(items) {
		t.Errorf("%d items in the document", len(rows))
	}
}

// TestDocumentedWords holds the words against the code, and what they stand for.
func TestDocumentedWords(t *testing.T) {
	rows, _ := document(t, 4)
	words := []network.Reason{NoCapacity, TooFar, Behind, Failed, Corrupt}
	for _, n := range named {
		words = append(words, n.word)
		if got := reasonOf(fmt.Errorf("somewhere: %w", n.err)); got != n.word {
			t.Errorf("%v becomes %s", n.err, got)
		}
	}
	for i, row := range rows {
		if i >= len(words) || row[0] != string(words[i]) || len(row[0]) > maxWord {
			t.Errorf("word %d is %q in the document", i, row[0])
		}
	}
	if len(rows) != len(words) {
		t.Errorf("the document has %d words, the code %d", len(rows), len(words))
	}
}

// seedRequests are requests of each kind.
func seedRequests() []request {
	at := log.Pointer{Group: testGroup, Commit: 3, Digest: log.Digest{1}, Key: testKey, Seq: 2}
	floor := log.Pointer{Group: testGroup, Commit: 7, Digest: log.Digest{9}}
	return []request{
		{op: opScan, group: testGroup, key: testKey, floor: floor, query: log.Query{Key: testKey, From: log.At(at), Until: 9, Follow: true, Filter: log.Filter{Since: time.Unix(0, 0), Until: time.Unix(5, 6), Every: 3}}},
		{op: opScan, group: testGroup, key: testKey, query: log.Query{Key: testKey, From: log.Since(time.Unix(1, 2))}},
		{op: opRows, group: testGroup, key: testKey, consistency: log.AsOf(3), rows: log.Range{From: []byte("a"), To: []byte("b"), Reverse: true}},
		{op: opRows, group: testGroup, key: testKey, consistency: log.Stale()},
		{op: opChanges, group: testGroup, key: testKey, after: 5, follow: true},
		{op: opAppend, group: testGroup, key: testKey, payloads: [][]byte{[]byte("one"), {}}},
		{op: opSubmit, group: testGroup, transaction: log.Transaction{Conditions: []log.Condition{{Key: testKey, Kind: log.RowEquals, Row: []byte("r"), Value: []byte("v"), Commit: 1}}, Commands: []log.KeyedCommand{{Key: testKey, Payload: []byte("p")}}}},
		{op: opWait, group: testGroup, pointer: at},
		{op: opSync, group: testGroup},
		{op: opConsumers, group: testGroup, key: testKey, tags: []identity.ID{testKey}},
	}
}

// FuzzMessage: what decodes encodes to the same bytes.
func FuzzMessage(f *testing.F) {
	for _, m := range []message{
		{kind: kindOpen, channel: 1, credit: MinWindow, content: []byte("request")}, {kind: kindCredit, channel: 1, credit: 5}, {kind: kindCancel, channel: 1, reason: network.Done},
		{kind: kindData, channel: 1, content: []byte("data")}, {kind: kindEnd, channel: 1, reason: NoCapacity, text: "why"}, {kind: kindPing, nonce: [8]byte{1}}, {kind: kindPong},
	} {
		f.Add(m.appendTo(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeMessage(b)
		if err != nil {
			return
		}
		if again := m.appendTo(nil); !bytes.Equal(again, b) {
			t.Fatalf("%x decodes, and encodes to %x", b, again)
		}
		if len(b) > maxMessage || len(m.text) > maxText || len(m.reason) > maxWord {
			t.Fatal("above a limit")
		}
	})
}

// FuzzRequest: what decodes encodes to the same bytes.
func FuzzRequest(f *testing.F) {
	for _, r := range seedRequests() {
		f.Add(r.appendTo(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeRequest(b)
		if err != nil {
			return
		}
		if again := r.appendTo(nil); !bytes.Equal(again, b) {
			t.Fatalf("%x decodes, and encodes to %x", b, again)
		}
		if len(r.payloads) > log.MaxRecords || len(r.tags) > maxTags || len(r.transaction.Commands) > log.MaxCommands {
			t.Fatal("above a limit")
		}
	})
}

// FuzzItem: what decodes encodes to the same bytes, and runs have all of their records.
func FuzzItem(f *testing.F) {
	run, _, err := log.NextRun(log.AppendRun(nil, testKey, 1, 2, log.AppendRecord(log.AppendRecord(nil, []byte("a")), nil)), 0)
	if err != nil {
		f.Fatal(err)
	}
	for _, item := range [][]byte{
		(&start{head: log.Head{Number: 5, Time: 1}, commit: 4, from: 3, until: 2}).appendTo(nil), appendRun(nil, &run), appendRow(nil, &log.Row{Key: []byte("k"), Value: []byte("v"), Commit: 1}),
		appendChange(nil, &log.Changes{Pointer: log.Pointer{Commit: 1}, Cleared: true, Rows: make([]log.Change, 2)}),
		appendRowWas(nil, &log.Change{Key: []byte("k"), Old: []byte("o"), New: []byte("n"), Existed: true, Exists: true, Before: 3}),
		(&written{pointer: log.Pointer{Commit: 1, Seq: 2}, held: true, results: 3}).appendTo(nil), appendPeers(nil, []identity.PeerID{{1}, {2}}),
	} {
		f.Add(item[0], item[itemHeader:])
	}
	f.Fuzz(func(t *testing.T, kind byte, content []byte) {
		var again []byte
		var err error
		switch itemKind(kind) {
		case itemStart:
			var s start
			if s, err = decodeStart(content); err == nil {
				again = s.appendTo(nil)
			}
		case itemRun:
			var r log.Run
			if r, err = decodeRun(testGroup, content); err == nil {
				again = appendRun(nil, &r)
				n := 0
				for range r.Records() {
					n++
				}
				if n != r.Count {
					t.Fatalf("%d records of %d", n, r.Count)
				}
			}
		case itemRow:
			var r log.Row
			if r, err = decodeRow(content); err == nil {
				again = appendRow(nil, &r)
			}
		case itemChange:
			var c log.Changes
			var rows int
			if c, rows, err = decodeChange(testGroup, content); err == nil {
				if rows > 1000 {
					return // they are not made before they come
				}
				c.Rows = make([]log.Change, rows)
				again = appendChange(nil, &c)
			}
		case itemRowWas:
			var c log.Change
			if c, err = decodeRowWas(content); err == nil {
				again = appendRowWas(nil, &c)
			}
		case itemWritten:
			var w written
			if w, err = decodeWritten(content); err == nil {
				again = w.appendTo(nil)
			}
		case itemPeers:
			var peers []identity.PeerID
			if peers, err = decodePeers(content); err == nil {
				again = appendPeers(nil, peers)
			}
		default:
			return
		}
		if err == nil && !bytes.Equal(again[itemHeader:], content) {
			t.Fatalf("%x decodes, and encodes to %x", content, again)
		}
	})
}
