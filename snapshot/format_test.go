package snapshot

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"lukechampine.com/blake3"
)

// table returns the rows of the first table below a heading of the document.
func table(t *testing.T, heading string) [][]string {
	t.Helper()
	b, err := os.ReadFile("../docs/format/segment.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, ok := strings.Cut(string(b), "\n"+heading+"\n")
	if !ok {
		t.Fatalf("the document has no %q", heading)
	}
	text, _, _ = strings.Cut(text, "\n## ")
	var rows [][]string
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "|") {
			if rows != nil {
				break
			}
			continue
		}
		var cells []string
		for cell := range strings.SplitSeq(strings.Trim(strings.TrimSpace(line), "|"), "|") {
			cells = append(cells, strings.Trim(strings.TrimSpace(cell), "`"))
		}
		rows = append(rows, cells)
	}
	if len(rows) < 3 {
		t.Fatalf("%s has no table", heading)
	}
	return rows[2:]
}

// fields compares a table of fields with encoded bytes, whose fields must lie
// without a gap.
func fields(t *testing.T, heading string, encoded []byte, want map[string][]byte) {
	t.Helper()
	end := 0
	for _, row := range table(t, heading) {
		offset, err1 := strconv.Atoi(row[0])
		size, err2 := strconv.Atoi(row[1])
		if err1 != nil || err2 != nil || offset != end {
			t.Fatalf("%s: field %s is at %s, want %d", heading, row[2], row[0], end)
		}
		end += size
		value, known := want[row[2]]
		if !known || !bytes.Equal(encoded[offset:end], value) {
			t.Errorf("%s: field %s is %x, want %x (known: %v)", heading, row[2], encoded[offset:end], value, known)
		}
		delete(want, row[2])
	}
	if len(want) > 0 {
		t.Errorf("%s: the document lacks %v", heading, want)
	}
}

func le(n uint64) []byte {
	b := make([]byte, 8)
	for i := range b {
		b[i] = byte(n >> (8 * i))
	}
	return b
}

func TestDocumentedFormats(t *testing.T) {
	numbers := map[string]int{
		"segment bytes": SegmentBytes, "segment commits": SegmentCommits, "cell bytes": CellBytes,
		"largest number of shards": MaxShards, "cells in a request": MaxCells,
	}
	for _, row := range table(t, "## Boundaries") {
		if fmt.Sprint(numbers[row[0]]) != row[1] {
			t.Errorf("%s is %s, in the code it is %d", row[0], row[1], numbers[row[0]])
		}
		delete(numbers, row[0])
	}
	if len(numbers) > 0 {
		t.Errorf("the document lacks %v", numbers)
	}
	for _, row := range table(t, "## Shards") {
		n, err := strconv.Atoi(row[0])
		g := GeometryFor(n)
		if err != nil || row[1] != fmt.Sprint(g.K) || row[2] != fmt.Sprint(g.M) || row[3] != fmt.Sprintf("%.2f", float64(n)/float64(g.K)) {
			t.Errorf("%v: the code has %+v", row, g)
		}
	}

	mem := history(t, 10)
	m, shards := seal(t, mem, GeometryFor(3), 2, 4, 9)
	segment := append(bytes.Clone(shards[0][:m.Commits.CellSize(0)]), shards[1][:m.Commits.CellSize(0)]...)[:m.Commits.Size]
	fields(t, "## Segment", segment, map[string][]byte{
		"magic": []byte(segmentMagic), "group": testGroup[:], "number": le(2), "first": le(4), "last": le(9), "prev": m.Prev[:],
	})
	at := segmentHeaderSize
	for n := uint64(4); n <= 9; n++ {
		c, err := mem.Commit(n)
		if err != nil {
			t.Fatal(err)
		}
		encoded := c.AppendTo(nil)
		if !bytes.Equal(segment[at:at+len(encoded)], encoded) || !bytes.Equal(segment[m.Commits.Size-8*(10-n):][:8], le(uint64(at))) {
			t.Fatalf("commit %d does not lie where the document says", n)
		}
		at += len(encoded)
	}
	fields(t, "## Manifest", m.AppendTo(nil), map[string][]byte{
		"version": {1}, "group": testGroup[:], "number": le(2), "first": le(4), "last": le(9), "prev": m.Prev[:], "digest": m.Digest[:],
		"time": le(uint64(m.Time)), "records": le(m.Records), "size": le(m.Commits.Size), "hash": m.Commits.Hash[:],
		"K": {2}, "M": {1}, "root": m.Commits.Shards[0][:],
	})
	state, head, _ := stateOf(t, mem)
	fields(t, "## State", state, map[string][]byte{"magic": []byte(stateMagic), "group": testGroup[:], "commit": le(head)})
	// An export: the first frame is a segment, the last the hash of all before it.
	export, _ := exported(t)
	kinds := map[string]byte{}
	for _, row := range table(t, "## Export") {
		k, err := strconv.Atoi(row[0])
		if err != nil {
			t.Fatal(err)
		}
		what, _, _ := strings.Cut(row[1], ":")
		kinds[what] = byte(k)
	}
	if kinds["the next segment"] != frameSegment || kinds["the next commit that is in no segment, header and body"] != frameCommit || kinds["the end"] != frameEnd {
		t.Errorf("the document has the frames %v", kinds)
	}
	end := len(export) - 2 - hashSize
	sum := blake3.Sum256(export[:end])
	if !bytes.HasPrefix(export, append([]byte("mosaik.export.01"), testGroup[:]...)) || export[48] != frameSegment || !bytes.Equal(export[end:], append([]byte{frameEnd, hashSize}, sum[:]...)) {
		t.Error("an export is not what the document says")
	}
}
