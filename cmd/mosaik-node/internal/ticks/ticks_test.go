package ticks_test

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"math/big"
	"os"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/mosaik-engine/mosaik/cmd/mosaik-node/internal/ticks"
	"github.com/mosaik-engine/mosaik/log"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

// read returns the ticks of a file and how reading it ended; nil is its end.
func read(t testing.TB, r io.Reader) ([]ticks.Tick, error) {
	t.Helper()
	reader, err := ticks.NewReader("t.csv", r)
	if err != nil {
		return nil, err
	}
	var all []ticks.Tick
	for {
		tick, err := reader.Next()
		if err != nil {
			if _, again := reader.Next(); again != err {
				t.Errorf("the error %v did not stick: then came %v", err, again)
			}
			if err == io.EOF {
				err = nil
			}
			return all, err
		}
		all = append(all, tick)
	}
}

// write is the inverse of read.
func write(all []ticks.Tick) []byte {
	out := []byte(ticks.Header + "\n")
	for i := range all {
		out = all[i].AppendTo(out)
	}
	return out
}

// everyForm has every form a field may take.
const everyForm = ticks.Header + `
0,EUR-USD,histdata,1.121200,1.121720,
1640991660000000000,BTC-PERP,ftx,46377.0,46377.0,2300413.7295
1762795433971744000,BTC/USDT:x_1.2+3,k,105433.60000,105433.60000,0.00027625
9223372036854775807,CL,nymex,-37.63,-0.10,7
1,A,b,0,0.0,0
1,A,b,1234567890123456789012345678901234567890,0.00000000000000000000000000000000000001,1
`

func TestReaderKeepsEveryByte(t *testing.T) {
	all, err := read(t, strings.NewReader(everyForm))
	if err != nil || len(all) != 6 {
		t.Fatalf("%d ticks, %v", len(all), err)
	}
	if got := string(write(all)); got != everyForm {
		t.Errorf("read and written:\n%s\nwant:\n%s", got, everyForm)
	}
	want := ticks.Tick{Time: 1640991660000000000, Pair: "BTC-PERP", Venue: "ftx", Bid: "46377.0", Ask: "46377.0", Size: "2300413.7295"}
	if all[1] != want {
		t.Errorf("%+v, want %+v", all[1], want)
	}
}

func TestReaderTakesAnyEndOfLine(t *testing.T) {
	for name, text := range map[string]string{
		"CRLF":           strings.ReplaceAll(everyForm, "\n", "\r\n"),
		"no last one":    strings.TrimSuffix(everyForm, "\n"),
		"CRLF and no LF": strings.TrimSuffix(strings.ReplaceAll(everyForm, "\n", "\r\n"), "\r\n"),
	} {
		all, err := read(t, iotest.OneByteReader(strings.NewReader(text)))
		if err != nil || string(write(all)) != everyForm {
			t.Errorf("%s: %d ticks, %v", name, len(all), err)
		}
	}
}

func TestReaderCountsLinesAndBytes(t *testing.T) {
	reader, err := ticks.NewReader("t.csv", strings.NewReader(everyForm))
	if err != nil {
		t.Fatal(err)
	}
	for n := 2; ; n++ {
		if _, err := reader.Next(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if reader.Line() != n {
			t.Errorf("line %d, want %d", reader.Line(), n)
		}
	}
	if reader.Offset() != int64(len(everyForm)) {
		t.Errorf("offset %d at the end of %d bytes", reader.Offset(), len(everyForm))
	}
}

func TestReaderNamesThePlace(t *testing.T) {
	const good = "1,EUR-USD,ebs,1.10,1.11,5\n"
	long := strings.Repeat("9", 41)
	for _, c := range []struct{ file, want string }{
		{"", `t.csv:1:1: the file is empty`},
		{"time,pair\n", `t.csv:1:1: the first line must be "time_ns,pair,venue,bid,ask,size", not "time,pair"`},
		{"\ufeff" + ticks.Header + "\n", `t.csv:1:1: the first line must be "time_ns,pair,venue,bid,ask,size", not "\ufefftime_ns,pair,venue,bid,ask,size"`},
		{ticks.Header + " \n", `t.csv:1:1: the first line must be "time_ns,pair,venue,bid,ask,size", not "time_ns,pair,venue,bid,ask,size "`},
		{good + "\n" + good, `t.csv:3:1: 1 fields of 6: pair is missing`},
		{good + "1,EUR-USD,ebs,1.10,1.11\n", `t.csv:3:24: 5 fields of 6: size is missing`},
		{good + "1,EUR-USD,ebs,1.10,1.11,5,x\n", `t.csv:3:27: more than 6 fields`},
		{good + "x" + good, `t.csv:3:1: time_ns: "x1" is not a whole number of nanoseconds since 1970`},
		{good + "-" + good, `t.csv:3:1: time_ns: "-1" is not a whole number`},
		{good + "0" + good, `t.csv:3:1: time_ns: "01" is not a whole number`},
		{good + "9223372036854775808" + good[1:], `t.csv:3:1: time_ns: "9223372036854775808" is not a whole number`},
		{good + "," + good, `t.csv:3:26: more than 6 fields`},
		{good + "1,,ebs,1.10,1.11,5\n", `t.csv:3:3: pair: "" is not a name of 1 to 32 letters, digits and -._/:+`},
		{good + "1,EUR USD,ebs,1.10,1.11,5\n", `t.csv:3:3: pair: "EUR USD" is not a name`},
		{good + "1,€,ebs,1.10,1.11,5\n", `t.csv:3:3: pair: "€" is not a name`},
		{good + "1," + long + ",ebs,1.10,1.11,5\n", `t.csv:3:3: pair: "` + long + `" is not a name`},
		{good + `1,"EUR-USD",ebs,1.10,1.11,5`, `t.csv:3:3: pair: "\"EUR-USD\"" is not a name`},
		{good + "1,EUR-USD,,1.10,1.11,5\n", `t.csv:3:11: venue: "" is not a name`},
		{good + "1,EUR-USD,ebs,,1.11,5\n", `t.csv:3:15: bid: "" is not a decimal number such as 104312.50`},
		{good + "1,EUR-USD,ebs,1.,1.11,5\n", `t.csv:3:15: bid: "1." is not a decimal number`},
		{good + "1,EUR-USD,ebs,.5,1.11,5\n", `t.csv:3:15: bid: ".5" is not a decimal number`},
		{good + "1,EUR-USD,ebs,01.5,1.11,5\n", `t.csv:3:15: bid: "01.5" is not a decimal number`},
		{good + "1,EUR-USD,ebs,1.5.0,1.11,5\n", `t.csv:3:15: bid: "1.5.0" is not a decimal number`},
		{good + "1,EUR-USD,ebs,+1.5,1.11,5\n", `t.csv:3:15: bid: "+1.5" is not a decimal number`},
		{good + "1,EUR-USD,ebs,-,1.11,5\n", `t.csv:3:15: bid: "-" is not a decimal number`},
		{good + "1,EUR-USD,ebs,1e5,1.11,5\n", `t.csv:3:15: bid: "1e5" is not a decimal number`},
		{good + "1,EUR-USD,ebs,NaN,1.11,5\n", `t.csv:3:15: bid: "NaN" is not a decimal number`},
		{good + "1,EUR-USD,ebs," + long + ",1.11,5\n", `t.csv:3:15: bid: "` + long + `" has more than 40 characters`},
		{good + "1,EUR-USD,ebs,1.10, 1.11,5\n", `t.csv:3:20: ask: " 1.11" is not a decimal number`},
		{good + "1,EUR-USD,ebs,1.10,1.11,five\n", `t.csv:3:25: size: "five" is not a decimal number`},
		{good + "1,EUR-USD,ebs,1.10,1.11,-5\n", `t.csv:3:25: size: "-5" is negative`},
		{good + "1,EUR-USD,ebs,1.10,1.11,5\r\r\n", `t.csv:3:25: size: "5\r" is not a decimal number`},
		{good + "1,EUR-USD,ebs,1.10,1.11,5\r", `t.csv:3:25: size: "5\r" is not a decimal number`},
		{good + "1,EUR-USD,ebs,1.10,1.11,5\x00\n", `t.csv:3:25: size: "5\x00" is not a decimal number`},
		{good + strings.Repeat("1", 257) + "\n", `t.csv:3:257: the line is longer than 256 bytes`},
		{good + strings.Repeat("1", 1<<17) + "\n", `t.csv:3:257: the line is longer than 256 bytes`},
	} {
		file := c.file
		if strings.Contains(file, good[1:]) || strings.HasPrefix(file, good) {
			file = ticks.Header + "\n" + file
		}
		_, err := read(t, strings.NewReader(file))
		var place *ticks.Error
		if !errors.As(err, &place) || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%.60q: %v\nwant %s", c.file, err, c.want)
		}
	}
}

func TestReaderLimitsPairs(t *testing.T) {
	file := []byte(ticks.Header + "\n")
	for i := range ticks.MaxNames + 1 {
		tick := ticks.Tick{Pair: "P" + big.NewInt(int64(i)).String(), Venue: "v", Bid: "1", Ask: "1"}
		file = tick.AppendTo(file)
	}
	all, err := read(t, bytes.NewReader(file))
	if want := `t.csv:1026:3: pair: "P1024" is one more than the 1024 that are allowed`; len(all) != ticks.MaxNames || err == nil || err.Error() != want {
		t.Errorf("%d ticks and %v, want %s", len(all), err, want)
	}
}

func TestReaderReportsWhatReadingMet(t *testing.T) {
	broken := errors.New("the cable is out")
	_, err := read(t, io.MultiReader(strings.NewReader(ticks.Header+"\n1,EUR"), iotest.ErrReader(broken)))
	if !errors.Is(err, broken) || !strings.HasPrefix(err.Error(), "t.csv:2: ") {
		t.Errorf("%v", err)
	}
}

func TestTickThroughCBOR(t *testing.T) {
	all, err := read(t, strings.NewReader(everyForm))
	if err != nil {
		t.Fatal(err)
	}
	market := ticks.NewMarket(7)
	for range 1000 {
		all = append(all, market.Next())
	}
	codec := log.CBOR[ticks.Tick]()
	for _, tick := range all {
		payload, err := codec.Append(nil, tick)
		if err != nil {
			t.Fatalf("%+v: %v", tick, err)
		}
		if back, err := codec.Decode(payload); err != nil || back != tick {
			t.Errorf("%+v came back as %+v, %v", tick, back, err)
		}
	}
}

// TestMarketGolden fails when a seed no longer gives the ticks it used to.
func TestMarketGolden(t *testing.T) {
	const file = "testdata/market.csv"
	market := ticks.NewMarket(1)
	var all []ticks.Tick
	for range 100 {
		all = append(all, market.Next())
	}
	got := write(all)
	if *rewrite {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("the first ticks of seed 1 differ from %s:\n%s", file, got)
	}
}

func TestMarketIsPlausible(t *testing.T) {
	const n = 100_000
	market := ticks.NewMarket(2)
	all := make([]ticks.Tick, n)
	type seen struct {
		n           int
		first, last float64
	}
	pairs := map[string]*seen{}
	for i := range all {
		all[i] = market.Next()
		if i > 0 && all[i].Time <= all[i-1].Time {
			t.Fatalf("tick %d is of %d, the one before of %d", i, all[i].Time, all[i-1].Time)
		}
		bid, ask := ratio(t, all[i].Bid), ratio(t, all[i].Ask)
		if spread := (ask - bid) / bid; spread <= 0 || spread > 0.001 {
			t.Fatalf("tick %d: the spread is %v of the price: %+v", i, spread, all[i])
		}
		p := pairs[all[i].Pair]
		if p == nil {
			p = &seen{first: bid}
			pairs[all[i].Pair] = p
		}
		p.n, p.last = p.n+1, bid
	}
	if len(pairs) != 8 {
		t.Errorf("%d pairs", len(pairs))
	}
	for pair, p := range pairs {
		if p.n < n/100 || p.last == p.first || p.last/p.first > 1.1 || p.last/p.first < 0.9 {
			t.Errorf("%s: %d ticks, from %v to %v", pair, p.n, p.first, p.last)
		}
	}
	back, err := read(t, bytes.NewReader(write(all)))
	if err != nil || !bytes.Equal(write(back), write(all)) {
		t.Errorf("what the market writes, the reader does not read: %v", err)
	}
	if other := ticks.NewMarket(3).Next(); other == all[0] {
		t.Error("another seed begins with the same tick")
	}
}

// ratio is for judging prices only.
func ratio(t *testing.T, d ticks.Decimal) float64 {
	t.Helper()
	r, ok := new(big.Rat).SetString(string(d))
	if !ok {
		t.Fatalf("%q is not a number", d)
	}
	f, _ := r.Float64()
	return f
}

// FuzzCSV: whatever the file, what is read of it is what it says, line by line
// and byte for byte, and what is wrong has a place in it.
func FuzzCSV(f *testing.F) {
	market := ticks.NewMarket(1)
	var all []ticks.Tick
	for range 3 {
		all = append(all, market.Next())
	}
	f.Add(write(all))
	f.Add([]byte(everyForm))
	f.Add([]byte(strings.ReplaceAll(everyForm, "\n", "\r\n")))
	f.Add([]byte(ticks.Header))
	f.Add([]byte(ticks.Header + "\n1,A,b,1.,1,\n"))
	f.Add([]byte(ticks.Header + "\n1,A,b,1,1\n"))
	f.Add([]byte(ticks.Header + "\n1,A,b,1,1,1,1\n"))
	f.Add([]byte(ticks.Header + "\n\"1\",A,b,1,1,1\n"))
	f.Add([]byte("time,pair\n"))
	codec := log.CBOR[ticks.Tick]()
	f.Fuzz(func(t *testing.T, file []byte) {
		all, err := read(t, bytes.NewReader(file))
		lines := strings.Split(string(file), "\n")
		if last := len(lines) - 1; lines[last] == "" {
			lines = lines[:last]
		}
		var place *ticks.Error
		switch {
		case err == nil && len(all) != len(lines)-1:
			t.Fatalf("%d ticks in %d lines", len(all), len(lines))
		case err != nil && !errors.As(err, &place):
			t.Fatalf("an error without a place: %v", err)
		case err != nil && len(all) > 0 && place.Line != len(all)+2:
			t.Fatalf("%d ticks and then an error in line %d", len(all), place.Line)
		case err != nil && (place.Line > max(len(lines), 1) || place.Column < 1 || place.Line <= len(lines) && place.Column > len(lines[place.Line-1])+1):
			t.Fatalf("the file has no such place: %v", err)
		}
		for i, tick := range all {
			line := strings.TrimSuffix(lines[i+1], "\r")
			if got := string(tick.AppendTo(nil)); got != line+"\n" {
				t.Fatalf("line %d is %q and was read as %q", i+2, line, got)
			}
			payload, err := codec.Append(nil, tick)
			if err != nil {
				t.Fatal(err)
			}
			if back, err := codec.Decode(payload); err != nil || back != tick {
				t.Fatalf("%+v came back as %+v, %v", tick, back, err)
			}
		}
	})
}

func BenchmarkReader(b *testing.B) {
	market := ticks.NewMarket(1)
	file := []byte(ticks.Header + "\n")
	for range b.N {
		tick := market.Next()
		file = tick.AppendTo(file)
	}
	reader, err := ticks.NewReader("t.csv", bytes.NewReader(file))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.SetBytes(int64(len(file) / b.N))
	b.ResetTimer()
	for range b.N {
		if _, err := reader.Next(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMarket(b *testing.B) {
	market := ticks.NewMarket(1)
	b.ReportAllocs()
	for b.Loop() {
		market.Next()
	}
}
