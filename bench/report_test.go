package bench

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files")

// golden compares with a file in testdata.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs; look at the difference and accept it with -update:\n%s", path, got)
	}
}

func readGolden(t *testing.T, name string) Report {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := ReadReport(f)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func readPeersGolden(t *testing.T) PeerReport {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", "peers.json"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p, err := ReadPeers(f)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestReportGolden: two reports of one run each and one of the peers become the
// table and the document in testdata. testdata/ours.json has made-up figures.
func TestReportGolden(t *testing.T) {
	r := readGolden(t, "ours.json")
	if err := r.Merge(readGolden(t, "ours2.json")); err != nil {
		t.Fatal(err)
	}
	if err := r.Compare(readPeersGolden(t)); err != nil {
		t.Fatal(err)
	}
	var table, document bytes.Buffer
	if err := r.WriteTable(&table); err != nil {
		t.Fatal(err)
	}
	golden(t, "table.txt", table.Bytes())
	if err := r.WriteJSON(&document); err != nil {
		t.Fatal(err)
	}
	golden(t, "merged.json", document.Bytes())

	again, err := ReadReport(&document)
	if err != nil {
		t.Fatal(err)
	}
	var second bytes.Buffer
	if err := again.WriteTable(&second); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(second.Bytes(), table.Bytes()) {
		t.Errorf("a report that was written and read prints another table:\n%s", second.Bytes())
	}
}

func TestReportsThatDoNotBelongTogether(t *testing.T) {
	base := readGolden(t, "ours.json")
	for name, change := range map[string]func(*Report){
		"sizes":      func(r *Report) { r.Options.Size = 256 },
		"transports": func(r *Report) { r.Options.Transport = TCP },
		"machines":   func(r *Report) { r.Machine.CPUs++ },
	} {
		other := readGolden(t, "ours2.json")
		change(&other)
		if err := base.Merge(other); !errors.Is(err, ErrReport) {
			t.Errorf("%s differ: %v", name, err)
		}
	}
	peers := readPeersGolden(t)
	peers.Options.Size = 1024
	if err := base.Compare(peers); !errors.Is(err, ErrReport) {
		t.Errorf("peers with larger records: %v", err)
	}
	for _, text := range []string{`{"format": 1}`, `{"format": 1, "measurements": [null]}`, `{"format": 1, "measurements": [{"name": "batch"}]}`} {
		if _, err := ReadReport(strings.NewReader(text)); !errors.Is(err, ErrReport) {
			t.Errorf("report %q: %v", text, err)
		}
	}
	for _, text := range []string{"", "{", `{"format": 2}`, `[]`} {
		if _, err := ReadReport(strings.NewReader(text)); !errors.Is(err, ErrReport) {
			t.Errorf("report %q: %v", text, err)
		}
		if _, err := ReadPeers(strings.NewReader(text)); !errors.Is(err, ErrReport) {
			t.Errorf("report of peers %q: %v", text, err)
		}
	}
}

// TestVerdicts: which way a ratio has to go depends on the unit, and nothing is
// judged that the budget is not about.
func TestVerdicts(t *testing.T) {
	figureOf := func(u Unit, values ...float64) Figure {
		m := Measurement{Unit: u}
		for _, v := range values {
			m.Runs = append(m.Runs, Sample{Value: v})
		}
		return m.figure(byValue)
	}
	for _, c := range []struct {
		name         string
		ours, theirs Figure
		must         float64
		judged       bool
		verdict      string
		close        bool
	}{
		{"more is better, enough", figureOf(PerSecond, 90, 100, 110), figureOf(PerSecond, 50), 1.5, true, Held, false},
		{"more is better, too little", figureOf(PerSecond, 60), figureOf(PerSecond, 50, 50, 51), 1.5, true, Missed, false},
		{"less is better, enough", figureOf(Micros, 10), figureOf(Micros, 20), 1, true, Held, false},
		{"less is better, too much", figureOf(Micros, 30), figureOf(Micros, 20), 1, true, Missed, false},
		{"held by the median only", figureOf(PerSecond, 70, 100, 110), figureOf(PerSecond, 50), 1.5, true, Held, true},
		{"nothing demanded", figureOf(PerSecond, 1), figureOf(PerSecond, 50), 0, true, "", false},
		{"not what the budget is about", figureOf(PerSecond, 1), figureOf(PerSecond, 50), 1.5, false, "", false},
		{"less than nothing", figureOf(Cores, 0), figureOf(Cores, 0), 1, true, Held, false},
	} {
		row := Row{Ours: c.ours, Theirs: &c.theirs}
		row.judge(c.must, c.judged)
		if row.Verdict != c.verdict || row.Close != c.close {
			t.Errorf("%s: %q, close %v; want %q, %v (ratio %v)", c.name, row.Verdict, row.Close, c.verdict, c.close, row.Ratio)
		}
	}
}

func TestFigures(t *testing.T) {
	for _, c := range []struct {
		value float64
		unit  Unit
		want  string
	}{
		{1234567.8, PerSecond, "1,234,568/s"},
		{999, CreatedPerSec, "999/s"},
		{412.4, Micros, "412 us"},
		{1950, Micros, "1.95 ms"},
		{46123, Micros, "46.1 ms"},
		{1 << 30, Bytes, "1,024 MiB"},
		{130.21, BytesPerRecord, "130.2 B"},
		{0.0004, AllocsPerRec, "0.0004"},
		{1.5, Seconds, "1.500 s"},
		{0.125, Share, "12.5 %"},
	} {
		if got := figure(c.value, c.unit); got != c.want {
			t.Errorf("%v %s: %q, want %q", c.value, c.unit, got, c.want)
		}
	}
}
