package log

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"lukechampine.com/blake3"
	"pgregory.net/rapid"

	"github.com/mosaik-engine/mosaik/identity"
)

func TestSumIsBLAKE3(t *testing.T) {
	input := make([]byte, 300<<10)
	for i := range input {
		input[i] = byte(i * i >> 3)
	}
	check := func(n int) {
		if got, want := Sum(input[:n]), Digest(blake3.Sum256(input[:n])); got != want {
			t.Errorf("Sum of %d bytes = %v, want %v", n, got, want)
		}
	}
	// The edges of blocks, chunks, vector groups and of the subtrees above them.
	for _, edge := range []int{0, 64, 1 << 10, 2 << 10, 3 << 10, groupBytes, 2 * groupBytes, 3 * groupBytes, 4 * groupBytes, 7 * groupBytes, 8 * groupBytes, 16 * groupBytes} {
		for n := max(0, edge-1); n <= edge+1; n++ {
			check(n)
		}
	}
	rapid.Check(t, func(t *rapid.T) { check(rapid.IntRange(0, len(input)).Draw(t, "n")) })
}

// Every bit of a commit is guarded: by its digest if it is in the header, by
// Verify if it is in the body.
func TestCommitGuardsEveryBit(t *testing.T) {
	golden := readGolden(t)
	whole, err := DecodeCommit(golden)
	if err != nil {
		t.Fatal(err)
	}
	for bit := range len(golden) * 8 {
		changed := bytes.Clone(golden)
		changed[bit/8] ^= 1 << (bit % 8)
		c, err := DecodeCommit(changed)
		switch {
		case bit/8 == 0:
			if err == nil {
				t.Errorf("bit %d: version %d decodes", bit, changed[0])
			}
		case err != nil:
			t.Errorf("bit %d: %v", bit, err)
		case bit/8 < HeaderSize:
			if c.Digest == whole.Digest || whole.Pointer().Check(&c) == nil {
				t.Errorf("bit %d of the header is not in the digest", bit)
			}
		default:
			var corrupt *CorruptionError
			if err := c.Verify(); !errors.As(err, &corrupt) || corrupt.Commit != 2 || corrupt.Group != whole.Header.Group {
				t.Errorf("bit %d of the body: Verify says %v", bit, err)
			}
		}
	}
	for n := range len(golden) {
		c, err := DecodeCommit(golden[:n])
		if err == nil {
			err = c.Verify()
		}
		if !hasMark(err) {
			t.Errorf("cut to %d bytes: %v", n, err)
		}
	}
}

// A body whose hash is right can still be wrong. Verify names each case.
func TestVerifyNamesTheStructure(t *testing.T) {
	key := identity.NewID("k")
	good := AppendRun(nil, key, 1, 1, AppendRecord(nil, []byte("x")))
	for _, tc := range []struct {
		name    string
		body    []byte
		records uint32
		why     string
	}{
		{"good", good, 1, ""},
		{"empty", nil, 0, ""},
		{"count too high", good, 2, "record count"},
		{"count too low", good, 0, "record count"},
		{"cut in the run's header", good[:RunHeaderSize-1], 1, "cut short"},
		{"cut in the records", good[:len(good)-1], 1, "cut short"},
		{"no record", AppendRun(nil, key, 1, 0, nil), 0, "run of 0 records"},
		{"more records than bytes", AppendRun(nil, key, 1, 3, []byte{0, 0}), 3, "run of 3 records in 2 bytes"},
		{"seq 0", AppendRun(nil, key, 0, 1, []byte{0}), 1, "seq 0"},
		{"length past the end", AppendRun(nil, key, 1, 1, []byte{2, 'x'}), 1, "record 0"},
		{"length in a longer form", AppendRun(nil, key, 1, 1, []byte{0x80, 0}), 1, "record 0"},
		{"bytes left over", AppendRun(nil, key, 1, 1, []byte{0, 0}), 1, "1 bytes follow"},
		{"payload too long", AppendRun(nil, key, 1, 1, AppendRecord(nil, make([]byte, MaxPayload+1))), 1, "the limit is"},
	} {
		c := Commit{Body: tc.body, Header: Header{Version: HeaderVersion, Number: 9, Body: Sum(tc.body), Records: tc.records}}
		c.Digest = c.Header.Digest()
		err := c.Verify()
		var corrupt *CorruptionError
		switch {
		case tc.why == "" && err != nil:
			t.Errorf("%s: %v", tc.name, err)
		case tc.why != "" && (!errors.As(err, &corrupt) || corrupt.Commit != 9 || !strings.Contains(err.Error(), tc.why)):
			t.Errorf("%s: %v, want a CorruptionError of commit 9 with %q", tc.name, err, tc.why)
		}
	}
	forged := exampleCommit()
	forged.Digest[0]++
	if err := forged.Verify(); !hasMark(err) {
		t.Errorf("a digest that is not the header's: %v", err)
	}
}

func TestDecodeHeaderVersions(t *testing.T) {
	golden := readGolden(t)
	for version, want := range map[byte]bool{0: false, 2: true, 255: true} {
		changed := append([]byte{version}, golden[1:]...)
		if _, err := DecodeHeader(changed); err == nil || errors.Is(err, ErrNewerFormat) != want {
			t.Errorf("version %d: %v", version, err)
		}
	}
	long := append(readGolden(t)[:HeaderSize:HeaderSize], make([]byte, MaxBody+1)...)
	if _, err := DecodeCommit(long); !hasMark(err) {
		t.Errorf("a body above the limit: %v", err)
	}
}

func TestPointerForms(t *testing.T) {
	c := exampleCommit()
	whole, record := c.Pointer(), c.Pointer()
	record.Key, record.Seq = identity.NewID("oracle.price"), math.MaxUint64
	for _, p := range []Pointer{whole, record} {
		if back, err := ParsePointer(p.String()); err != nil || back != p {
			t.Errorf("ParsePointer(%q) = %v, %v", p, back, err)
		}
		encoded, err := json.Marshal(p)
		if err != nil || string(encoded) != `"`+p.String()+`"` {
			t.Errorf("JSON of %v = %s, %v", p, encoded, err)
		}
		var back Pointer
		if err := json.Unmarshal(encoded, &back); err != nil || back != p {
			t.Errorf("JSON round trip of %v = %v, %v", p, back, err)
		}
		payload, err := CBOR[Pointer]().Append(nil, p)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := CBOR[Pointer]().Decode(payload); err != nil || back != p {
			t.Errorf("CBOR round trip of %v = %v, %v", p, back, err)
		}
	}
	text := record.String()
	kept := whole
	for _, tc := range []struct{ text, part string }{
		{"", "scheme"},
		{"Mosaik" + text[6:], "scheme"},
		{"mosaik:" + strings.ToUpper(text[7:71]) + text[71:], "group"},
		{text[:71], "commit"},
		{strings.Replace(text, "/2@", "/02@", 1), "commit"},
		{strings.Replace(text, "/2@", "/0@", 1), "commit"},
		{strings.Replace(text, "/2@", "/2", 1), "digest"},
		{text[:len(whole.String())-1], "digest"},
		{whole.String() + "/", "seq"},
		{strings.Replace(text, record.Key.String(), "beef", 1), "key"},
		{strings.TrimSuffix(text, "18446744073709551615") + "18446744073709551616", "seq"},
		{text + "/1", "seq"},
	} {
		err := kept.UnmarshalText([]byte(tc.text))
		if !errors.Is(err, ErrPointer) || !strings.Contains(err.Error(), ": "+tc.part+": ") || kept != whole {
			t.Errorf("%q: %v, want ErrPointer about the %s", tc.text, err, tc.part)
		}
	}
}

func TestPointerCheck(t *testing.T) {
	c := exampleCommit()
	at := func(change func(p *Pointer)) Pointer {
		p := c.Pointer()
		change(&p)
		return p
	}
	price := identity.NewID("oracle.price")
	for _, tc := range []struct {
		pointer Pointer
		part    string
	}{
		{c.Pointer(), ""},
		{at(func(p *Pointer) { p.Key, p.Seq = price, 3 }), ""},
		{at(func(p *Pointer) { p.Key, p.Seq = price, 4 }), ""},
		{at(func(p *Pointer) { p.Key, p.Seq = identity.NewID("notes"), 1 }), ""},
		{at(func(p *Pointer) { p.Group[0]++ }), "group: "},
		{at(func(p *Pointer) { p.Commit++ }), "commit: "},
		{at(func(p *Pointer) { p.Digest[31]++ }), "digest: "},
		{at(func(p *Pointer) { p.Key, p.Seq = price, 2 }), "seq: "},
		{at(func(p *Pointer) { p.Key, p.Seq = price, 5 }), "seq: "},
		{at(func(p *Pointer) { p.Key, p.Seq = identity.NewID("notes"), 3 }), "seq: "},
	} {
		err := tc.pointer.Check(&c)
		if tc.part == "" && err != nil || tc.part != "" && (!errors.Is(err, ErrPointer) || !strings.Contains(err.Error(), tc.part)) {
			t.Errorf("%v: %v, want %q", tc.pointer, err, tc.part)
		}
	}
	damaged := exampleCommit()
	damaged.Body = damaged.Body[:len(damaged.Body)-2]
	if err := at(func(p *Pointer) { p.Key, p.Seq = identity.NewID("notes"), 1 }).Check(&damaged); !hasMark(err) {
		t.Errorf("in a damaged commit: %v", err)
	}
}

// Cutting a run keeps exactly the records on one side, whatever it is cut by.
func TestClip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		first := rapid.Uint64Range(1, 1000).Draw(t, "first")
		payloads := rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 0, 200), 1, 9).Draw(t, "payloads")
		var records []byte
		for _, p := range payloads {
			records = AppendRecord(records, p)
		}
		key := identity.NewID("k")
		c := Commit{Header: Header{Number: 4, Time: 5}, Body: AppendRun(nil, key, first, len(payloads), records)}
		run, err := c.RunAt(0)
		if err != nil {
			t.Fatal(err)
		}
		near := rapid.Uint64Range(max(1, first-min(first, 3)), first+uint64(len(payloads))+3)
		from := near.Draw(t, "from")
		q := Query{Key: key}
		if rapid.Bool().Draw(t, "limited") {
			q.Until = near.Draw(t, "until")
		}
		clipped, some := q.Clip(run, from)
		var got, want [][]byte
		if some {
			if err := clipped.Check(); err != nil {
				t.Fatal(err)
			}
			for seq, p := range clipped.Records() {
				if seq != clipped.FirstSeq+uint64(len(got)) {
					t.Fatalf("record %d of a run from %d has seq %d", len(got), clipped.FirstSeq, seq)
				}
				got = append(got, p)
			}
		}
		for i, p := range payloads {
			if seq := first + uint64(i); seq >= from && (q.Until == 0 || seq <= q.Until) {
				want = append(want, p)
			}
		}
		if some != (len(want) > 0) || !slices.EqualFunc(got, want, bytes.Equal) {
			t.Fatalf("seqs %d to %d of a run %d to %d: %t, %d records, want %d", from, q.Until, run.FirstSeq, run.LastSeq(), some, len(got), len(want))
		}
	})
}
