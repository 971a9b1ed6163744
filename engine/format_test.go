package engine

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/mosaik-engine/mosaik/engine/raftlog"
	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/snapshot"
)

// This file holds docs/format/store.md and the code together, and tries what
// the format promises: that a later one is refused by its name, that damage is
// found, and that a renamed machine keeps its data.

const formatDocument = "../docs/format/store.md"

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

// rows returns the cells of a section's table without its head and code quotes.
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
	return strings.Join(lines[:slices.Index(lines, "```")], "\n") + "\n"
}

// column returns one cell of every row.
func column(table [][]string, i int) []string {
	var cells []string
	for _, row := range table {
		cells = append(cells, row[i])
	}
	return cells
}

// wantNumbers holds a table of names and numbers against the code's.
func wantNumbers(t *testing.T, heading string, code map[string]uint64) {
	t.Helper()
	for _, cells := range rows(t, heading) {
		want, known := code[cells[0]]
		if !known {
			t.Errorf("%s: the code has no %q", heading, cells[0])
		} else if cells[1] != strconv.FormatUint(want, 10) {
			t.Errorf("%s: %s is %s, in the code it is %d", heading, cells[0], cells[1], want)
		}
		delete(code, cells[0])
	}
	for name := range code {
		t.Errorf("%s lacks %s", heading, name)
	}
}

// wantFields reads encoded as a table of offsets and sizes says, and compares
// each field with the value it was given.
func wantFields(t *testing.T, heading string, order binary.ByteOrder, encoded []byte, given map[string]any) {
	t.Helper()
	end := 0
	for _, cells := range rows(t, heading) {
		offset, err1 := strconv.Atoi(cells[0])
		size, err2 := strconv.Atoi(cells[1])
		if err := errors.Join(err1, err2); err != nil {
			t.Fatalf("%s: %v", heading, err)
		}
		if offset != end {
			t.Errorf("%s: %s starts at %d, the field before ends at %d", heading, cells[2], offset, end)
		}
		end = offset + size
		if end > len(encoded) {
			t.Fatalf("%s: %s ends at %d of %d bytes", heading, cells[2], end, len(encoded))
		}
		field := encoded[offset:end]
		want, known := given[cells[2]]
		if !known {
			t.Errorf("%s: the code has no field %s", heading, cells[2])
			continue
		}
		delete(given, cells[2])
		switch want := want.(type) {
		case []byte:
			if !bytes.Equal(field, want) {
				t.Errorf("%s: at %s stands %x, want %x", heading, cells[2], field, want)
			}
		case uint64:
			var got uint64
			switch size {
			case 1:
				got = uint64(field[0])
			case 2:
				got = uint64(order.Uint16(field))
			case 4:
				got = uint64(order.Uint32(field))
			case 8:
				got = order.Uint64(field)
			}
			if got != want {
				t.Errorf("%s: at %s stands %d, want %d", heading, cells[2], got, want)
			}
		}
	}
	if end != len(encoded) {
		t.Errorf("%s: the fields end at %d of %d bytes", heading, end, len(encoded))
	}
	for name := range given {
		t.Errorf("%s lacks the field %s", heading, name)
	}
}

func TestDocumentedDirectory(t *testing.T) {
	fs := vfs.NewMem()
	closeNode(t, openNode(t, fs))
	have, err := fs.List(nodeDir)
	if err != nil {
		t.Fatal(err)
	}
	documented := column(rows(t, "## Directory"), 0)
	for i, name := range documented {
		documented[i] = strings.TrimSuffix(name, "/")
		info, err := fs.Stat(nodeDir + "/" + documented[i])
		if err != nil || info.IsDir() != strings.HasSuffix(name, "/") {
			t.Errorf("the document has %s, the store: %v", name, err)
		}
	}
	slices.Sort(have)
	slices.Sort(documented)
	if !slices.Equal(have, documented) {
		t.Errorf("a store has %v, the document %v", have, documented)
	}
	code := []string{storeFileName, lockFileName, sealFileName, storeDirName, raftDirName, hostDirName, archiveDirName}
	slices.Sort(code)
	if !slices.Equal(code, documented) {
		t.Errorf("the code has %v, the document %v", code, documented)
	}
}

func TestDocumentedStoreFile(t *testing.T) {
	members := []identity.PeerID{{1}, {2}}
	s := storeFile{host: "alpha", peer: members[1], members: members, number: 2, validators: []identity.ID{identity.NewID("7f38d4b1c4bfa1cbd4ecf59ef7e8d4ed1a3e9c0af5bbb9a0e3e5b7c9d1f2a3b4")}, spread: 2, segment: snapshot.SegmentBytes, named: []string{"prices", "two words"}}
	example := fence(t, "## Store file", "text")
	if got := string(s.encode()); got != example {
		t.Errorf("the document's store file is\n%sthe code's\n%s", example, got)
	}
	decoded, err := decodeStoreFile(example)
	if err != nil || fmt.Sprint(*decoded) != fmt.Sprint(s) {
		t.Errorf("the document's store file decodes as %+v, %v", decoded, err)
	}
	lines := strings.Split(strings.TrimSpace(example), "\n")
	for i, cells := range rows(t, "## Store file") {
		if name, _, _ := strings.Cut(lines[i], " "); cells[0] != name {
			t.Errorf("line %d of the document's table is %s, of its example %s", i+1, cells[0], name)
		}
	}
	if n := len(rows(t, "## Store file")); n != len(lines) {
		t.Errorf("the document tells of %d lines, the example has %d", n, len(lines))
	}
}

func TestDocumentedSeal(t *testing.T) {
	fs := vfs.NewMem()
	closeNode(t, openNode(t, fs))
	seal, err := readFile(fs, nodeDir+"/"+sealFileName)
	if err != nil {
		t.Fatal(err)
	}
	shape := func(text string) string {
		text = regexp.MustCompile(`[0-9a-f]{64}`).ReplaceAllString(text, "<digest>")
		return regexp.MustCompile(`[0-9]+`).ReplaceAllString(text, "<n>")
	}
	if got, documented := shape(string(seal)), shape(fence(t, "## Seal", "text")); got != documented {
		t.Errorf("a seal is\n%sthe document's\n%s", got, documented)
	}
}

func TestDocumentedKeys(t *testing.T) {
	const shard = 0x0102030405060708
	key := identity.NewID("k")
	samples := map[string]struct {
		space byte
		key   []byte
		rest  []byte
	}{
		"meta":   {spaceMeta, appendSpace(nil, shard, spaceMeta), nil},
		"key":    {spaceKey, appendLogKey(nil, shard, key), key[:]},
		"index":  {spaceIndex, appendIndexKey(nil, shard, 0x11121314, 0x2122232425262728), unhex(t, "11121314 2122232425262728")},
		"commit": {spaceCommit, appendCommitKey(nil, shard, 0x3132333435363738, 0x4142), unhex(t, "3132333435363738 4142")},
		// Of the rows whose keys differ in size, those of the empty row key.
		"view":    {spaceView, appendViewKey(nil, shard, 0x51525354, 0x55565758, nil), unhex(t, "51525354 55565758")},
		"history": {spaceHistory, binary.BigEndian.AppendUint64(appendHistoryPrefix(nil, shard, 0x51525354, 0x55565758, nil), 0x6162636465666768), unhex(t, "51525354 55565758 0001 6162636465666768")},
		"segment": {spaceSegment, appendSegmentKey(nil, shard, 0x7172737475767778), unhex(t, "7172737475767778")},
	}
	sizes := map[string]int{"meta": spaceSize, "key": spaceSize + identity.Size, "index": indexKeySize, "commit": commitKeySize,
		"view": viewPrefixSize, "history": viewPrefixSize + 2 + 8, "segment": spaceSize + 8}
	for _, cells := range rows(t, "## Keys") {
		name := cells[1]
		s, known := samples[name]
		if !known {
			t.Errorf("the code has no space %s", name)
			continue
		}
		want := append(unhex(t, "0102030405060708"), s.space)
		if want = append(want, s.rest...); !bytes.Equal(s.key, want) {
			t.Errorf("%s: the key is %x, want %x", name, s.key, want)
		}
		if cells[0] != fmt.Sprint(s.space) || cells[3] != fmt.Sprint(len(s.key)) || len(s.key) != sizes[name] {
			t.Errorf("%s: the document says space %s, %s bytes; the code %d, %d, %d", name, cells[0], cells[3], s.space, len(s.key), sizes[name])
		}
		delete(samples, name)
	}
	if len(samples) != 0 {
		t.Errorf("the document lacks %v", samples)
	}
	if spaceEnd != spaceSegment+1 {
		t.Errorf("there is a space that the document does not tell of: %d", spaceEnd)
	}
	if number, piece := decodeCommitKey(appendCommitKey(nil, shard, 7, 9)); number != 7 || piece != 9 {
		t.Errorf("a commit's key decodes as %d, %d", number, piece)
	}
}

func TestDocumentedStateRow(t *testing.T) {
	digest := log.Sum([]byte("a digest"))
	p := proposer{id: 21, epoch: 22, seq: 23}
	for i := range p.commits {
		p.commits[i] = uint64(30 + i)
	}
	s := state{
		applied: 11, number: 12, time: 13, digest: digest, records: 14, bytes: 15, horizon: 16, logs: 17,
		proposers: []proposer{{id: 20}, p},
	}
	encoded := s.appendTo(nil)
	wantFields(t, "### State row", binary.LittleEndian, encoded[:stateFixedSize], map[string]any{
		"version": uint64(stateVersion), "applied": uint64(11), "number": uint64(12), "time": uint64(13), "digest": digest[:],
		"records": uint64(14), "bytes": uint64(15), "horizon": uint64(16), "logs": uint64(17), "proposers": uint64(2),
	})
	var commits []byte
	for _, c := range p.commits {
		commits = binary.LittleEndian.AppendUint64(commits, c)
	}
	if len(encoded) != stateFixedSize+2*proposerSize {
		t.Fatalf("a state row of two proposers has %d bytes", len(encoded))
	}
	wantFields(t, "#### Proposer", binary.LittleEndian, encoded[stateFixedSize+proposerSize:], map[string]any{
		"id": uint64(21), "epoch": uint64(22), "seq": uint64(23), "commits": commits,
	})
	if decoded, err := decodeState(encoded); err != nil || fmt.Sprint(decoded) != fmt.Sprint(s) {
		t.Errorf("the state decodes as %+v, %v", decoded, err)
	}
}

func TestDocumentedKeyRow(t *testing.T) {
	r := logRow{number: 1, next: 2, commit: 3}
	wantFields(t, "### Key row", binary.LittleEndian, r.appendTo(nil), map[string]any{
		"number": uint64(1), "next": uint64(2), "commit": uint64(3),
	})
	if got, err := decodeLogRow(r.appendTo(nil)); got != r || err != nil {
		t.Errorf("the row decodes as %+v, %v", got, err)
	}
}

func TestDocumentedPostings(t *testing.T) {
	k := keyLog{next: 10}
	given := []posting{{commit: 300, firstSeq: 10, count: 2, offset: 0}, {commit: 301, firstSeq: 12, count: 1, offset: 150}, {commit: 777, firstSeq: 13, count: 200, offset: 48}}
	for _, p := range given {
		k.add(p)
	}
	// The example is a line for each posting, uvarints in hex, then what it says.
	var example []byte
	for line := range strings.Lines(fence(t, "### Index row", "hex")) {
		code, _, _ := strings.Cut(line, "#")
		example = append(example, unhex(t, code)...)
	}
	if !bytes.Equal(k.postings, example) {
		t.Errorf("the document's postings are %x, the code's %x", example, k.postings)
	}
	if got, err := decodePostings(nil, 10, example); err != nil || !slices.Equal(got, given) {
		t.Errorf("the document's postings decode as %v, %v", got, err)
	}
}

func TestDocumentedProposal(t *testing.T) {
	digest := log.Sum([]byte("a head"))
	p := proposal{time: 1, proposer: 2, epoch: 3, seq: 4, head: log.Head{Number: 5, Digest: digest}}
	wantFields(t, "## Proposal", binary.LittleEndian, p.appendHeader(nil), map[string]any{
		"version": uint64(proposalVersion), "time": uint64(1), "proposer": uint64(2), "epoch": uint64(3), "seq": uint64(4),
		"head": uint64(5), "head_digest": digest[:],
	})
	if len(p.appendHeader(nil)) != proposalHeaderSize {
		t.Errorf("a header of %d bytes, not %d", len(p.appendHeader(nil)), proposalHeaderSize)
	}
}

func TestDocumentedReceipt(t *testing.T) {
	digest := log.Sum([]byte("a digest"))
	receipt := make([]byte, receiptHeaderSize)
	putReceiptHeader(receipt, digest, 5)
	receipt = binary.LittleEndian.AppendUint64(receipt, 6)
	wantFields(t, "## Receipt", binary.LittleEndian, receipt, map[string]any{
		"digest": digest[:], "time": uint64(5), "first_seq": uint64(6),
	})
	if len(receipt) != receiptSize(1) {
		t.Errorf("a receipt of one run has %d bytes, not %d", len(receipt), receiptSize(1))
	}
	wantNumbers(t, "### Refusals", map[string]uint64{
		"malformed": uint64(refusedMalformed), "order": uint64(refusedOrder), "epoch": uint64(refusedEpoch), "forgotten": uint64(refusedForgotten),
	})
}

func TestDocumentedLimits(t *testing.T) {
	wantNumbers(t, "## Numbers", map[string]uint64{
		"store format":             storeFormat,
		"state row version":        stateVersion,
		"proposal version":         proposalVersion,
		"pebble format":            uint64(storeFormatVersion),
		"piece bytes":              pieceBytes,
		"postings of a full chunk": chunkPostings,
		"index lag bytes":          indexLagBytes,
		"index lag commits":        indexLagCommits,
		"proposer window":          proposerWindow,
		"proposers of a group":     maxProposers,
		"offer version":            offerVersion,
	})
}

func TestDocumentedGroupID(t *testing.T) {
	table := map[string]string{}
	for _, cells := range rows(t, "## Group") {
		table[cells[0]] = cells[1]
	}
	want := map[string]string{"consensus": consensusSignature, "machine": machineSignature, "state sync": syncSignature}
	for name, signature := range want {
		if table[name] != signature {
			t.Errorf("the document has the %s signature %q, the code %q", name, table[name], signature)
		}
	}
	if len(table) != len(want) {
		t.Errorf("the document has the signatures %v", table)
	}
	members := []identity.PeerID{{1}, {2}}
	id := (&Options{Members: members, SegmentBytes: snapshot.SegmentBytes}).groupID("prices")
	if got, want := strings.TrimSpace(fence(t, "## Group", "id")), fmt.Sprintf("%s %016x", id, shardOf(id)); got != want {
		t.Errorf("the document's group is %s, want %s", got, want)
	}
	for what, o := range map[string]Options{
		"other members":    {Members: []identity.PeerID{{2}, {1}}, SegmentBytes: snapshot.SegmentBytes},
		"fewer members":    {Members: members[:1], SegmentBytes: snapshot.SegmentBytes},
		"smaller segments": {Members: members, SegmentBytes: MinSegmentBytes},
		"a secret":         {Members: members, SegmentBytes: snapshot.SegmentBytes, Secret: identity.ID{1}},
	} {
		if id == o.groupID("prices") {
			t.Errorf("groups with %s have one id", what)
		}
	}
	if o := (&Options{Members: members, SegmentBytes: snapshot.SegmentBytes}); id == o.groupID("price") {
		t.Error("groups with different names have one id")
	}
	if shardOf(identity.ID{}) != 1 {
		t.Error("a shard number may be 0, which the Raft library refuses")
	}
}

// TestDocumentedRows applies two proposals to an empty store and compares all
// that is in it then with the document's example.
func TestDocumentedRows(t *testing.T) {
	r := newTestReplica(t, 1)
	r.group = (&Options{Members: []identity.PeerID{{1}, {2}}, SegmentBytes: snapshot.SegmentBytes}).groupID("prices")
	r.shard = shardOf(r.group)
	price, note := identity.NewID("oracle.price"), identity.NewID("notes")
	apply := func(index uint64, p proposal, body []byte) {
		t.Helper()
		e := []entry{{index: index, cmd: append(p.appendHeader(nil), body...)}}
		if err := r.update(e); err != nil || e[0].outcome.refused() {
			t.Fatal(e[0].outcome, err)
		}
	}
	body := log.AppendRun(nil, price, 0, 2, log.AppendRecord(log.AppendRecord(nil, []byte("1.0842")), []byte("1.0843")))
	body = log.AppendRun(body, note, 0, 1, log.AppendRecord(nil, nil))
	apply(5, proposal{time: 1714979289500000000, proposer: 2, epoch: 7, seq: 1}, body)
	r.full = append(r.full, r.mu.logs[price]) // as if its chunk were full
	apply(6, proposal{time: 1714979289500000000 - 1, proposer: 2, epoch: 7, seq: 2},
		log.AppendRun(nil, price, 0, 1, log.AppendRecord(nil, []byte("1.0844"))))

	var dump strings.Builder
	it, err := r.db.NewIter(&pebble.IterOptions{LowerBound: appendSpace(nil, r.shard, 0), UpperBound: appendSpace(nil, r.shard, spaceEnd)})
	if err != nil {
		t.Fatal(err)
	}
	defer it.Close()
	for it.First(); it.Valid(); it.Next() {
		value, err := it.ValueAndErr()
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&dump, "key %x\n", it.Key())
		for piece := range slices.Chunk(value, 48) {
			fmt.Fprintf(&dump, "    %x\n", piece)
		}
	}
	if documented := fence(t, "## Example", "rows"); dump.String() != documented {
		t.Errorf("the rows are\n%sthe document has\n%s", dump.String(), documented)
	}
}

func unhex(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(text), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// newTestReplica returns a replica on a store of its own, without Raft.
func newTestReplica(t testing.TB, self uint64) *replica {
	t.Helper()
	db, err := pebble.Open("store", &pebble.Options{FS: vfs.NewMem(), DisableWAL: true, FormatMajorVersion: storeFormatVersion, MemTableSize: 64 << 20,
		Logger: storeLogger{slog.New(slog.DiscardHandler)}})
	if err != nil {
		t.Fatal(err)
	}
	id := identity.NewID("a group")
	r, err := newReplica(db, shardOf(id), id, self, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(r.batch.Close(), db.Close()); err != nil {
			t.Error(err)
		}
	})
	return r
}

// nodeDir is absolute because the Raft library makes its path so.
const nodeDir = "/node"

func openNode(t testing.TB, fs vfs.FS) *Engine {
	t.Helper()
	e, err := tryOpen(fs)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func tryOpen(fs vfs.FS) (*Engine, error) {
	return Open(nodeDir, &Options{FS: fs, MemTableBytes: 1 << 20, RaftLogBytes: 512 << 10, CacheBytes: 1 << 20})
}

func closeNode(t testing.TB, e *Engine) {
	t.Helper()
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
}

// nodeWith makes a store with n commits of one record, and closes it.
func nodeWith(t testing.TB, fs vfs.FS, n int) {
	t.Helper()
	e := openNode(t, fs)
	appendSome(t, e, n)
	closeNode(t, e)
}

func appendSome(t testing.TB, e *Engine, n int) {
	t.Helper()
	for i := range n {
		if _, err := e.Append(context.Background(), identity.NewID("k"), fmt.Append(nil, i)); err != nil {
			t.Fatal(err)
		}
	}
}

// wantRecords opens the node and wants nodeWith's records.
func wantRecords(t *testing.T, fs vfs.FS, n int) {
	t.Helper()
	e := openNode(t, fs)
	defer closeNode(t, e)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := e.Recovered(ctx); err != nil {
		t.Fatal(err)
	}
	have := 0
	for run, err := range e.Scan(ctx, log.Query{Key: identity.NewID("k")}) {
		if err != nil {
			t.Fatal(err)
		}
		for seq, p := range run.Records() {
			if have++; seq != uint64(have) || string(p) != fmt.Sprint(have-1) {
				t.Fatalf("seq %d is %q", seq, p)
			}
		}
	}
	if have != n {
		t.Fatalf("%d records of %d", have, n)
	}
}

// contentsOf reads all files, to see whether something has changed.
func contentsOf(t *testing.T, fs vfs.FS, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	names, err := fs.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		path := fs.PathJoin(dir, name)
		info, err := fs.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.IsDir() {
			for name, content := range contentsOf(t, fs, path) {
				all[name] = content
			}
			continue
		}
		content, err := readFile(fs, path)
		if err != nil {
			t.Fatal(err)
		}
		all[path] = string(content)
	}
	return all
}

func storeFileOf(t *testing.T, fs vfs.FS) string {
	t.Helper()
	text, err := readFile(fs, nodeDir+"/"+storeFileName)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func setStoreFile(t *testing.T, fs vfs.FS, text string) {
	t.Helper()
	if err := writeFile(fs, nodeDir, storeFileName, []byte(text)); err != nil {
		t.Fatal(err)
	}
}

// summed gives a store file its proper sum.
func summed(text string) string {
	body, _, _ := strings.Cut(text, "\nsum ")
	return body + "\nsum " + log.Sum([]byte(body+"\n")).String() + "\n"
}

// TestOlderStoreFile: a store of format 4, which has no lines for number and committee, and
// one of format 3, which has none for validators either, open as those of founders.
func TestOlderStoreFile(t *testing.T) {
	for format, without := range map[int][]string{4: {"number 1", "committee"}, 3: {"number 1", "committee", "validators"}} {
		fs := vfs.NewMem()
		nodeWith(t, fs, 5)
		older := strings.Replace(storeFileOf(t, fs), "\nformat 5\n", fmt.Sprintf("\nformat %d\n", format), 1)
		for _, line := range without {
			if !strings.Contains(older, "\n"+line+"\n") {
				t.Fatalf("there is no line %q", line)
			}
			older = strings.Replace(older, "\n"+line+"\n", "\n", 1)
		}
		setStoreFile(t, fs, summed(older))
		e, err := tryOpen(fs)
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		if err := e.Ready(t.Context()); err != nil {
			t.Fatal(err)
		}
		if s := e.Groups()[0].Status(); s.Head.Number == 0 {
			t.Errorf("format %d: %+v", format, s)
		}
	}
}

// TestValidators: what groups ask of their peers is part of their ids and kept; a
// store does not open with anything else.
func TestValidators(t *testing.T) {
	fs := vfs.NewMem()
	a, b := identity.NewID("a ticket"), identity.NewID("another")
	open := func(v ...identity.ID) (identity.ID, error) {
		e, err := Open(nodeDir, &Options{FS: fs, Validators: v})
		if err != nil {
			return identity.ID{}, err
		}
		id := e.Groups()[0].ID()
		return id, e.Close()
	}
	id, err := open(a, b)
	if err != nil {
		t.Fatal(err)
	}
	o := &Options{Validators: []identity.ID{a, b}}
	o.Members = []identity.PeerID{{1}}
	two := o.FoundingGroups()[0].ID
	o.Validators = []identity.ID{b, a}
	swapped := o.FoundingGroups()[0].ID
	o.Validators = nil
	none := o.FoundingGroups()[0].ID
	if want := none.DeriveID(a).DeriveID(b); two != want || swapped == two {
		t.Errorf("%s with two, want %s; %s with them swapped", two, want, swapped)
	}
	if again, err := open(); err != nil || again != id {
		t.Errorf("the store remembers %s, %v; it was %s", again, err, id)
	}
	for _, other := range [][]identity.ID{{a}, {b, a}, {a, b, a}} {
		if _, err := open(other...); !errors.Is(err, ErrMismatch) {
			t.Errorf("%d others: %v", len(other), err)
		}
	}
	if _, err := open(make([]identity.ID, MaxValidators+1)...); err == nil || !strings.Contains(err.Error(), "Validators: 17, the limit is 16") {
		t.Error(err)
	}
}

// TestNewerStoreFormat: a store of a later format is refused by that name,
// whatever else the later store file says, and nothing in it is touched.
func TestNewerStoreFormat(t *testing.T) {
	fs := vfs.NewMem()
	nodeWith(t, fs, 5)
	good := storeFileOf(t, fs)
	later := strings.Replace(good, "\nformat 5\n", "\nformat 6\n", 1)
	for name, text := range map[string]string{
		"with its sum":                     summed(later),
		"with another kind of sum":         later,
		"with lines of its own":            "mosaik store\nformat 6\ncompressed yes\n",
		"much later, as far as we can see": strings.Replace(good, "\nformat 5\n", "\nformat 100000\n", 1),
	} {
		setStoreFile(t, fs, text)
		before := contentsOf(t, fs, nodeDir)
		_, err := tryOpen(fs)
		if !errors.Is(err, log.ErrNewerFormat) || !strings.Contains(err.Error(), storeFileName) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := Open(nodeDir, &Options{FS: fs, MustExist: true}); !errors.Is(err, log.ErrNewerFormat) {
			t.Errorf("%s, with MustExist: %v", name, err)
		}
		after := contentsOf(t, fs, nodeDir)
		delete(before, nodeDir+"/LOCK")
		delete(after, nodeDir+"/LOCK")
		if fmt.Sprint(before) != fmt.Sprint(after) {
			t.Errorf("%s: the store was changed", name)
		}
	}
	setStoreFile(t, fs, good)
	wantRecords(t, fs, 5)
}

// TestDamagedStoreFile: no byte of the store file can be changed or lost without
// notice.
func TestDamagedStoreFile(t *testing.T) {
	fs := vfs.NewMem()
	nodeWith(t, fs, 1)
	good := storeFileOf(t, fs)
	refused := func(text string) {
		t.Helper()
		if _, err := decodeStoreFile(text); err == nil {
			t.Errorf("accepted: %q", text)
		}
	}
	for i := range len(good) {
		refused(good[:i])
		refused(good + good[i:])
		for _, flip := range []byte{1, 0x10, 0x40, 0xff} {
			b := []byte(good)
			b[i] ^= flip
			refused(string(b))
		}
	}
	// With a proper sum it is the lines that must make sense.
	for _, change := range [][2]string{
		{"\npeer ", "\nPeer "}, {"\nspread 1", "\nspread x"}, {"\nspread 1", "\nspread"}, {"\nformat 5", "\nformat 1"}, {"\nformat 5", "\nformat 0"},
		{"\nformat 5", "\nformat one"}, {"\nhost \"", "\nhost "}, {"\nmembers ", "\nmembers 12 "}, {"\nnumber 1", "\nnumber 0"}, {"\nnumber 1", "\nnumber x"}, {"\ncommittee", "\ncommittee 12"}, {"\nnamed", "\nnamed prices"},
		{"mosaik store", "mosaic store"},
	} {
		text := strings.Replace(good, change[0], change[1], 1)
		if text == good {
			t.Fatalf("%q is not in %q", change[0], good)
		}
		refused(summed(text))
	}
	setStoreFile(t, fs, good[:len(good)-10])
	var corrupt *log.CorruptionError
	if _, err := tryOpen(fs); !errors.As(err, &corrupt) || !strings.HasSuffix(corrupt.File, storeFileName) {
		t.Errorf("%v", err)
	}
	setStoreFile(t, fs, good)
	wantRecords(t, fs, 1)
}

// TestMissingStoreFile: a store without its store file is damaged, not new.
func TestMissingStoreFile(t *testing.T) {
	fs := vfs.NewMem()
	nodeWith(t, fs, 3)
	good := storeFileOf(t, fs)
	if err := fs.Remove(nodeDir + "/" + storeFileName); err != nil {
		t.Fatal(err)
	}
	var corrupt *log.CorruptionError
	if _, err := tryOpen(fs); !errors.As(err, &corrupt) || !strings.HasSuffix(corrupt.File, storeFileName) {
		t.Errorf("%v", err)
	}
	setStoreFile(t, fs, good)
	wantRecords(t, fs, 3)
}

// rewriteRow changes one row of an open node's store, behind its back.
func rewriteRow(t *testing.T, e *Engine, key []byte, change func(value []byte)) {
	t.Helper()
	r := e.groups[0].replica
	v, closer, err := r.db.Get(key)
	if err != nil {
		t.Fatal(err)
	}
	value := slices.Clone(v)
	change(value)
	if err := errors.Join(closer.Close(), r.db.Set(key, value, pebble.NoSync), r.db.Flush()); err != nil {
		t.Fatal(err)
	}
}

// TestNewerRows: rows that a later program has written are refused by name, when
// the store is opened as well as when they are read.
func TestNewerRows(t *testing.T) {
	later := func(value []byte) { value[0]++ }
	for _, tc := range []struct {
		name string
		key  func(shard uint64) []byte
	}{
		{"state", func(shard uint64) []byte { return appendSpace(nil, shard, spaceMeta) }},
		{"commit", func(shard uint64) []byte { return appendCommitKey(nil, shard, 3, 0) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			fs := vfs.NewMem()
			e := openNode(t, fs)
			appendSome(t, e, 5)
			g := e.groups[0]
			rewriteRow(t, e, tc.key(g.shard), later)
			if tc.name == "commit" {
				if _, err := g.Commit(2); err != nil {
					t.Errorf("commit 2: %v", err)
				}
				if _, err := g.Commit(3); !errors.Is(err, log.ErrNewerFormat) {
					t.Errorf("commit 3: %v", err)
				}
				seqs := 0
				var last error
				for run, err := range g.Scan(t.Context(), log.Query{Key: identity.NewID("k")}) {
					seqs += run.Count
					last = err
				}
				if seqs != 2 || !errors.Is(last, log.ErrNewerFormat) {
					t.Errorf("the scan yields %d records and ends with %v", seqs, last)
				}
				if _, err := e.Check(t.Context(), nil); !errors.Is(err, log.ErrNewerFormat) {
					t.Errorf("check: %v", err)
				}
			}
			closeNode(t, e)
			if _, err := tryOpen(fs); !errors.Is(err, log.ErrNewerFormat) {
				t.Errorf("open: %v", err)
			}
		})
	}
	for _, inner := range []error{raftlog.ErrNewerFormat, raftlog.ErrLocked, raftlog.ErrClosed} {
		err := raftLogError(fmt.Errorf("open: %w", inner))
		want := map[error]error{raftlog.ErrNewerFormat: log.ErrNewerFormat, raftlog.ErrLocked: ErrLocked, raftlog.ErrClosed: log.ErrClosed}[inner]
		if !errors.Is(err, want) {
			t.Errorf("the Raft log's %q becomes %v", inner, err)
		}
	}
}

// TestDamagedRows: rows that do not decode are corruption, and say of which
// group.
func TestDamagedRows(t *testing.T) {
	for name, key := range map[string]func(shard uint64) []byte{
		"state":  func(shard uint64) []byte { return appendSpace(nil, shard, spaceMeta) },
		"commit": func(shard uint64) []byte { return appendCommitKey(nil, shard, 4, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			fs := vfs.NewMem()
			e := openNode(t, fs)
			appendSome(t, e, 5)
			g := e.groups[0]
			if err := g.replica.db.Set(key(g.shard), []byte{1, 2, 3}, pebble.NoSync); err != nil {
				t.Fatal(err)
			}
			closeNode(t, e)
			var corrupt *log.CorruptionError
			if _, err := tryOpen(fs); !errors.As(err, &corrupt) || corrupt.Group != g.id {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestRenamedMachine opens a store under another host name than it was made: all
// of it is there, and from then on it goes by the new name.
func TestRenamedMachine(t *testing.T) {
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		old  func(fs vfs.FS) error // leaves the host directory as it was under the old name
	}{
		{"renamed", func(fs vfs.FS) error { return fs.Rename(nodeDir+"/host/"+host, nodeDir+"/host/formerly") }},
		{"renamed, and then the power failed", func(vfs.FS) error { return nil }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			fs := vfs.NewMem()
			nodeWith(t, fs, 30)
			if err := tc.old(fs); err != nil {
				t.Fatal(err)
			}
			s, err := readStoreFile(fs, nodeDir)
			if err != nil || s.host != host {
				t.Fatal(s, err)
			}
			s.host = "formerly"
			setStoreFile(t, fs, string(s.encode()))

			e := openNode(t, fs)
			appendSome(t, e, 1) // it is "0" again
			closeNode(t, e)
			if s, err = readStoreFile(fs, nodeDir); err != nil || s.host != host {
				t.Errorf("the store file says %v, %v", s, err)
			}
			if _, err := fs.Stat(nodeDir + "/host/formerly"); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the old directory: %v", err)
			}
			e = openNode(t, fs)
			defer closeNode(t, e)
			if info, ok := e.GroupFor(identity.NewID("k")).Key(identity.NewID("k")); !ok || info.Records != 31 {
				t.Errorf("%+v", info)
			}
			if _, err := e.Check(t.Context(), nil); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestMalformedProposals: what does not decode, or does not fit, is refused
// alike everywhere and changes nothing but the applied index.
func TestMalformedProposals(t *testing.T) {
	r := newTestReplica(t, 1)
	run := func(count int, records ...string) []byte {
		var encoded []byte
		for _, p := range records {
			encoded = log.AppendRecord(encoded, []byte(p))
		}
		return log.AppendRun(nil, identity.NewID("k"), 0, count, encoded)
	}
	header := func(epoch, seq uint64) []byte {
		p := proposal{time: 1, proposer: 1, epoch: epoch, seq: seq}
		return p.appendHeader(nil)
	}
	good := run(2, "a", "b")
	index := uint64(0)
	apply := func(cmd []byte) outcome {
		t.Helper()
		index++
		e := []entry{{index: index, cmd: cmd}}
		if err := r.update(e); err != nil {
			t.Fatal(err)
		}
		return e[0].outcome
	}
	if got := apply(append(header(5, 1), good...)); got != 1 {
		t.Fatalf("a proposal in order: %d", got)
	}
	oversize := log.AppendRun(nil, identity.NewID("k"), 0, 1, log.AppendRecord(nil, make([]byte, log.MaxPayload+1)))
	for _, tc := range []struct {
		name string
		cmd  []byte
		want outcome
	}{
		{"nothing", nil, refusedMalformed},
		{"a version alone", []byte{proposalVersion}, refusedMalformed},
		{"an earlier version", append([]byte{0}, append(header(5, 2), good...)[1:]...), refusedMalformed},
		{"a header alone", header(5, 2), refusedMalformed},
		{"a cut header", header(5, 2)[:proposalHeaderSize-1], refusedMalformed},
		{"a cut run", append(header(5, 2), good[:len(good)-1]...), refusedMalformed},
		{"bytes behind the run", append(append(header(5, 2), good...), 0), refusedMalformed},
		{"a run of no records", append(header(5, 2), run(0)...), refusedMalformed},
		{"more records than it says", append(header(5, 2), run(1, "a", "b")...), refusedMalformed},
		{"fewer records than it says", append(header(5, 2), run(3, "a", "bbbbbbbbbbb")...), refusedMalformed},
		{"a payload too large", append(header(5, 2), oversize...), refusedMalformed},
		{"a body too large", append(header(5, 2), make([]byte, log.MaxBody+1)...), refusedMalformed},
		{"a gap in the order", append(header(5, 3), good...), refusedOrder},
		{"an epoch that does not begin with its first", append(header(6, 2), good...), refusedOrder},
		{"an epoch that is over", append(header(4, 2), good...), refusedEpoch},
	} {
		before := r.state
		before.proposers = slices.Clone(before.proposers)
		if got := apply(tc.cmd); got != tc.want {
			t.Errorf("%s: outcome %x, want %x", tc.name, got, tc.want)
		}
		before.applied = index
		if fmt.Sprint(before) != fmt.Sprint(r.state) {
			t.Errorf("%s: the state went from %+v to %+v", tc.name, before, r.state)
		}
	}
	// What was applied before is recognised; what is in order goes on.
	if got := apply(append(header(5, 1), good...)); got != 1 {
		t.Errorf("a proposal sent again: %d", got)
	}
	for seq := uint64(2); seq <= proposerWindow+2; seq++ {
		if got := apply(append(header(5, seq), good...)); got != outcome(seq) {
			t.Errorf("proposal %d: %d", seq, got)
		}
	}
	if got := apply(append(header(5, 2), good...)); got != refusedForgotten {
		t.Errorf("a proposal whose commit is no longer remembered: %x", got)
	}
	if got := apply(append(header(5, 3), good...)); got != 3 {
		t.Errorf("a proposal whose commit is just remembered: %d", got)
	}
}

// TestNewerProposal: a replica that does not know a proposal's version must not
// refuse it, because later programs will have applied it: it stops.
func TestNewerProposal(t *testing.T) {
	r := newTestReplica(t, 1)
	p := proposal{time: 1, proposer: 1, epoch: 1, seq: 1}
	cmd := p.appendHeader(nil)
	cmd[0]++
	err := r.update([]entry{{index: 1, cmd: append(cmd, 1, 2, 3)}})
	if !errors.Is(err, log.ErrNewerFormat) {
		t.Errorf("%v", err)
	}
}
