package measure_test

import (
	"strings"
	"testing"
	"time"

	"github.com/mosaik-engine/mosaik/bench/peers/measure"
)

func TestSummarizeTakesTheMedianRun(t *testing.T) {
	w := measure.Workload{Name: "w", Axis: "a", Unit: measure.PerSecond, Replicas: 3}
	samples := []measure.Sample{
		{Records: 100, Elapsed: time.Second, Latencies: []time.Duration{time.Millisecond}},
		{},
		{Records: 900, Elapsed: time.Second, Latencies: []time.Duration{3 * time.Millisecond}},
		{Records: 400, Elapsed: 2 * time.Second, Latencies: []time.Duration{2 * time.Millisecond}},
	}
	row, ok := measure.Summarize("p", "c", true, w, samples)
	if !ok {
		t.Fatal("no row")
	}
	if row.Value != 200 || row.Min != 100 || row.Max != 900 || row.Samples != 3 || row.Records != 400 || row.P50Micros != 2000 {
		t.Fatalf("row %+v", row)
	}
	if _, ok := measure.Summarize("p", "c", true, w, []measure.Sample{{}}); ok {
		t.Fatal("a row from nothing measured")
	}
}

func TestSummarizeUnits(t *testing.T) {
	latencies := make([]time.Duration, 100)
	for i := range latencies {
		latencies[i] = time.Duration(100-i) * time.Microsecond
	}
	sample := measure.Sample{Records: 100, Elapsed: time.Second, Latencies: latencies, Bytes: 45000, LogBytes: 3000}
	for unit, want := range map[measure.Unit]float64{measure.PerSecond: 100, measure.Micros: 50, measure.BytesPerRecord: 150} {
		row, _ := measure.Summarize("p", "c", true, measure.Workload{Unit: unit, Replicas: 3}, []measure.Sample{sample})
		if row.Value != want || row.P50Micros != 50 || row.P99Micros != 99 || row.LogPerRecord != 10 {
			t.Errorf("%s: %+v", unit, row)
		}
	}
}

func TestCompareStaysInsideOneConfig(t *testing.T) {
	rows := []measure.Row{
		{Peer: "p", Config: "a", Workload: "one", Value: 100},
		{Peer: "p", Config: "a", Workload: "many", Value: 80, Baseline: "one"},
		{Peer: "p", Config: "b", Workload: "many", Value: 80, Baseline: "one"},
	}
	measure.Compare(rows)
	if rows[0].Ratio != 0 || rows[1].Ratio != 0.8 || rows[2].Ratio != 0 {
		t.Fatalf("%+v", rows)
	}
}

func TestTable(t *testing.T) {
	var out strings.Builder
	report := measure.Report{Rows: []measure.Row{{
		Axis: "append", Workload: "w", Peer: "p", Config: "c", Durable: true, Unit: measure.PerSecond,
		Value: 1234567.4, Min: 999.94, Max: 2000000, Samples: 3, P50Micros: 12.34, Baseline: "one", Ratio: 0.75,
	}}}
	if err := report.WriteTable(&out); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	got := strings.Join(strings.Fields(lines[1]), " ")
	if want := "append (w) p c yes 1,234,567 records/s 12.3 - 999.9..2,000,000 3 0.75 of one"; got != want {
		t.Fatalf("got  %s\nwant %s", got, want)
	}
}
