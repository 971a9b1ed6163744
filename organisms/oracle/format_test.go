package oracle

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/organisms"
	"github.com/mosaik-engine/mosaik/organisms/wire"
)

// page returns a section of docs/format/oracle.md.
func page(t *testing.T, heading string) string {
	t.Helper()
	b, err := os.ReadFile("../../docs/format/oracle.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(b), "\n## "+heading+"\n")
	if !found {
		t.Fatalf("there is no section %q", heading)
	}
	rest, _, _ = strings.Cut(rest, "\n## ")
	return rest
}

// tables returns the tables of a text: rows of cells, without the head.
func tables(text string) (all [][][]string) {
	var table [][]string
	for line := range strings.Lines(text + "\n\n") {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "|") {
			cells := strings.Split(strings.Trim(line, "|"), " | ")
			for i := range cells {
				cells[i] = strings.TrimSpace(cells[i])
			}
			table = append(table, cells)
			continue
		}
		if len(table) > 2 {
			all = append(all, table[2:])
		}
		table = nil
	}
	return all
}

// field is one of those that a table of fields should have.
type field struct {
	name  string
	bytes []byte
}

// checkFields reads b by the offsets and sizes of a table.
func checkFields(t *testing.T, table [][]string, b []byte, fields []field) {
	t.Helper()
	if len(table) != len(fields) {
		t.Fatalf("%d fields in the document, %d are known", len(table), len(fields))
	}
	end := 0
	for i, row := range table {
		offset, err := strconv.Atoi(row[0])
		if err != nil {
			t.Fatal(err)
		}
		size, err := strconv.Atoi(row[1])
		if err != nil {
			t.Fatal(err)
		}
		if row[2] != fields[i].name || offset != end || size != len(fields[i].bytes) || !bytes.Equal(b[offset:offset+size], fields[i].bytes) {
			t.Errorf("%v in the document; %s is %x, at %d of %x", row, fields[i].name, fields[i].bytes, end, b)
		}
		end = offset + size
	}
	if end != len(b) {
		t.Errorf("the document ends at %d, the encoding at %d", end, len(b))
	}
}

func u64(v uint64) []byte { return binary.LittleEndian.AppendUint64(nil, v) }
func u32(v uint32) []byte { return binary.LittleEndian.AppendUint32(nil, v) }

// bytes32 returns 32 bytes that are nowhere else.
func bytes32(b byte) [32]byte { return [32]byte(bytes.Repeat([]byte{b}, 32)) }

func TestDocumentedTick(t *testing.T) {
	x := PriceTick{
		TimestampMs: 0x0102030405, Pair: Pair{"ETH", "USDC"}, Price: 0x1112131415, Confidence: 0x2122, SourceSet: bytes32(3), SourceCount: 4, Stale: true,
		Seq: 0x31323334, Decimals: 8, Parameters: bytes32(5), Round: bytes32(6), Signer: bytes32(7), Signature: [64]byte(bytes.Repeat([]byte{8}, 64)),
	}
	eth, usdc := []byte("ETH\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), []byte("USDC\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")
	b := x.Append(nil)
	checkFields(t, tables(page(t, "Tick"))[0], b, []field{
		{"version", []byte{1}}, {"timestamp", u64(x.TimestampMs)}, {"base", eth}, {"quote", usdc}, {"price", u64(uint64(x.Price))},
		{"confidence", u64(uint64(x.Confidence))}, {"source set", x.SourceSet[:]}, {"source count", []byte{4}}, {"stale", []byte{1}}, {"seq", u64(x.Seq)},
		{"disagreement", []byte{0}}, {"decimals", []byte{8}}, {"parameters", x.Parameters[:]}, {"round", x.Round[:]}, {"signer", x.Signer[:]}, {"signature", x.Signature[:]},
	})
	stable := identity.NewID("x")
	stream := StreamID(stable, x.Pair)
	if want := "mosaik.oracle.price-tick.v1|" + string(stream[:]) + string(b[:197]); string(x.SigningPreimage(stable)) != want {
		t.Error("what is signed is not what the document says")
	}
	o := Observation{Source: bytes32(3), Reason: Available, Price: 0x1112, ObservedAt: 0x2122232425, Response: bytes32(4)}
	r := Round{TimestampMs: x.TimestampMs, Pair: x.Pair, Seq: x.Seq, Parameters: x.Parameters, Observations: []Observation{o}}
	round := tables(page(t, "Round"))
	header := r.Append(nil)[:82]
	checkFields(t, round[0], header, []field{
		{"version", []byte{1}}, {"timestamp", u64(x.TimestampMs)}, {"base", eth}, {"quote", usdc}, {"seq", u64(x.Seq)}, {"parameters", x.Parameters[:]}, {"observations", []byte{1}},
	})
	checkFields(t, round[1], r.Append(nil)[len(header):], []field{
		{"source", o.Source[:]}, {"reason", []byte{1}}, {"price", u64(0x1112)}, {"observed at", u64(0x2122232425)}, {"response", o.Response[:]}, {"detail", []byte{0}},
	})
	r.Observations[0].Detail = "é!"
	if got := r.Append(nil)[len(header)+81:]; string(got) != "\x03é!" {
		t.Errorf("detail: %x", got)
	}
	reasons := round[2]
	if len(reasons) != int(Contradiction) {
		t.Fatalf("%d reasons", len(reasons))
	}
	for i, row := range reasons {
		reason := Reason(i + 1)
		price := map[bool]string{true: "yes", false: "no"}[reason == Available || reason.judged()]
		if row[0] != fmt.Sprint(i+1) || row[1] != reason.String() || row[2] != price {
			t.Errorf("%v in the document, %d %v %s in the code", row, reason, reason, price)
		}
	}
}

func TestDocumentedParameters(t *testing.T) {
	p := Parameters{
		Policy: WeightedMedian, Cadence: 0x010203 * time.Millisecond, Deadline: 0x0102 * time.Millisecond, MaxAge: 0x111213 * time.Millisecond, MaxAhead: 0x2122 * time.Millisecond,
		Minimum: 5, Quorum: 4, Outliers: 2, Decimals: 8, Tolerance: 0x3132, Catalog: bytes32(6), Feeds: []Feed{{Pair{"ETH", "USDC"}, []Weighted{{bytes32(7), 9}}}},
	}
	b := p.Append(nil)
	checkFields(t, tables(page(t, "Parameters"))[0], b[:82], []field{
		{"domain", []byte("oracle-parameters|\x01|")}, {"aggregation", []byte{1, 0}}, {"cadence", u32(0x010203)}, {"deadline", u32(0x0102)}, {"max-age", u32(0x111213)},
		{"max-ahead", u32(0x2122)}, {"minimum", []byte{5}}, {"quorum", []byte{4}}, {"outliers", []byte{2}}, {"decimals", []byte{8}}, {"tolerance", u32(0x3132)},
		{"catalog", p.Catalog[:]}, {"pairs", u32(1)},
	})
	source := bytes32(7)
	if got, want := string(b[82:]), "\x03\x00\x00\x00ETH\x04\x00\x00\x00USDC\x01"+string(source[:])+"\x09\x00\x00\x00"; got != want {
		t.Errorf("a pair: %x, want %x", got, want)
	}
}

func TestDocumentedCatalog(t *testing.T) {
	pin, lp := identity.ID(bytes32(5)), func(s string) string { return string(wire.AppendText(nil, s)) }
	three, four := bytes32(3), bytes32(4)
	c := Catalog{Pairs: []Listing{{Pair{"A", "B"}, []SourceConfig{
		&CexSpot{Exchange: "ex", Symbol: "sym", Endpoint: "https://e/", TLS: bytes32(3), PricePath: "/p", TimePath: "/t"},
		&Replay{File: bytes32(4), Instrument: "in", Venue: "ven", Column: Mid},
		&Organism{Ref: organisms.Ref{Role: "oracle", StableID: bytes32(3), ContentHash: &pin}, Pair: Pair{"C", "D"}},
		&Organism{Ref: organisms.Ref{Role: "oracle", StableID: bytes32(3)}, Pair: Pair{"C", "D"}},
	}}}}
	want := "oracle-catalog|\x01|" + "\x01\x00\x00\x00" + lp("A") + lp("B") + "\x04" +
		"\x01" + lp("ex") + lp("sym") + lp("https://e/") + lp("/p") + lp("/t") + string(three[:]) +
		"\x02" + string(four[:]) + lp("in") + lp("ven") + "\x03" +
		"\x03" + lp("oracle") + string(three[:]) + "\x01" + string(pin[:]) + lp("C") + lp("D") +
		"\x03" + lp("oracle") + string(three[:]) + "\x00" + lp("C") + lp("D")
	if got := string(c.Append(nil)); got != want {
		t.Errorf("%x, want %x", got, want)
	}
	replay := c.Pairs[0].Sources[1]
	id := identity.FromParts([]byte("oracle-source|\x01|" + lp("A") + lp("B") + "\x02" + string(replay.append(nil))))
	if SourceID(Pair{"A", "B"}, replay) != id {
		t.Error("the id of a source")
	}
}

// TestDocumentedExamples recomputes the ids of the page, from the file that stands there.
func TestDocumentedExamples(t *testing.T) {
	_, text, found := strings.Cut(page(t, "File"), "```toml\n")
	text, _, ended := strings.Cut(text, "```\n")
	file, err := os.ReadFile("testdata/oracle.toml")
	if err != nil {
		t.Fatal(err)
	}
	if !found || !ended || text != string(file) {
		t.Error("the file of the page is not testdata/oracle.toml")
	}
	p, c, err := ParseTOML(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	pair, stable := Pair{"ETH", "USDC"}, organisms.StableID("oracle-γ.oracle")
	inOrder := func(a, b string) identity.ID {
		return stable.Derive(string(wire.AppendText(wire.AppendText(nil, a), b)))
	}
	if StreamID(stable, Pair{"USDC", "ETH"}) != inOrder("ETH", "USDC").DeriveID(identity.NewID(priceTickSchemaV1)) {
		t.Error("the formula of a stream's id")
	}
	want := map[string]string{
		"tick": priceTickSchemaV1, "round": roundSchemaV1,
		"schema of a tick": PriceTickSchemaV1().String(), "stream id": StreamID(stable, pair).String(), "rounds id": RoundsID(stable, pair).String(),
		"parameters digest": p.Digest().String(), "catalog digest": c.Digest().String(), "id of the first source": SourceID(c.Pairs[0].Pair, c.Pairs[0].Sources[0]).String(),
	}
	seen := 0
	for _, table := range append(tables(page(t, "Ids")), tables(page(t, "Catalog"))...) {
		for _, row := range table {
			seen++
			if got := strings.Trim(row[1], "`"); got != want[row[0]] {
				t.Errorf("%s: %s in the document, %s in the code", row[0], got, want[row[0]])
			}
		}
	}
	if seen != len(want) {
		t.Errorf("%d examples in the document, %d are known", seen, len(want))
	}
}

// TestSchemaIsTheLayout: the widths that the schema of a tick folds are those of its bytes.
func TestSchemaIsTheLayout(t *testing.T) {
	total := 0
	for _, f := range strings.Split(priceTickSchemaV1, "|")[1:] {
		_, kind, _ := strings.Cut(f, ":")
		width := map[string]int{"u8": 1, "bool": 1, "u64le": 8, "utf8[16]": 16, "bytes[32]": 32, "bytes[64]": 64}[kind]
		if width == 0 {
			t.Errorf("%s has no width", f)
		}
		total += width
	}
	if total != TickSize {
		t.Errorf("the schema has %d bytes, a tick %d", total, TickSize)
	}
}
