// Package measure holds what one timed run produces and how several runs become one row of the
// report: a median with its range, and the report's JSON form, which `mosaik-node bench --peers`
// reads.
package measure

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Limits bounds one workload. Whichever of the two is reached first ends it, so a slow peer is
// measured for the time and a fast one for the count.
type Limits struct {
	Records int           // most records written or read
	Time    time.Duration // longest time spent measuring, without set-up
	Size    int           // bytes of a record's payload
}

// Unit says what a row's Value counts, and by that whether more or less is better.
type Unit string

const (
	// PerSecond counts records a second; more is better.
	PerSecond Unit = "records/s"
	// Micros is the median latency of one operation in microseconds; less is better.
	Micros Unit = "us"
	// BytesPerRecord counts file bytes a record occupies on one replica; less is better.
	BytesPerRecord Unit = "bytes/record"
)

// Workload names one thing that is measured.
type Workload struct {
	Name     string // stable: readers of the JSON look rows up by it
	Axis     string // one line for people
	Unit     Unit   // what Row.Value is
	Replicas int    // copies of every record
	Baseline string // workload of the same peer and configuration that Row.Ratio divides by, or ""
}

// Session is one freshly started peer with empty storage.
type Session interface {
	// Run performs one workload by name and returns its measurement. Data a workload wrote may be
	// used by later ones of the same session (replay reads what an earlier one filled).
	Run(ctx context.Context, workload string, limits Limits) (Sample, error)
	// Close stops the peer. Its storage directory is left for the caller to remove.
	Close() error
}

// Sample is the outcome of one run of one workload.
type Sample struct {
	Records   int             // records acknowledged or read
	Elapsed   time.Duration   // from the first call to the last acknowledgement or delivery
	Latencies []time.Duration // one for each operation; empty where an operation has no latency of its own
	Bytes     int64           // bytes of record storage on all replicas (disk workload only)
	LogBytes  int64           // bytes of consensus or write-ahead log on all replicas (disk workload only)
}

// Row is one line of the report: the median over several runs of one workload.
type Row struct {
	Peer     string  `json:"peer"`
	Config   string  `json:"config"`
	Workload string  `json:"workload"`
	Axis     string  `json:"axis"`
	Replicas int     `json:"replicas"`
	Durable  bool    `json:"durable"` // fsync returned before the acknowledgement, on a majority of the replicas
	Unit     Unit    `json:"unit"`
	Value    float64 `json:"value"` // median over the runs, in Unit
	Min      float64 `json:"min"`   // over the runs, in Unit
	Max      float64 `json:"max"`   // over the runs, in Unit
	Samples  int     `json:"samples"`
	Records  int     `json:"records"` // of the median run

	// What a workload does not measure is left out.
	RecordsPerSecond float64 `json:"records_per_s,omitempty"`
	P50Micros        float64 `json:"p50_us,omitempty"`
	P99Micros        float64 `json:"p99_us,omitempty"`
	BytesPerRecord   float64 `json:"bytes_per_record,omitempty"`
	LogPerRecord     float64 `json:"log_bytes_per_record,omitempty"`

	Baseline string  `json:"baseline,omitempty"`
	Ratio    float64 `json:"ratio,omitempty"` // Value divided by the baseline's
}

// Summarize turns the samples of one workload into a row. Samples without records are left out; it
// reports false when none is left.
func Summarize(peer, config string, durable bool, w Workload, samples []Sample) (Row, bool) {
	type point struct {
		value, rate, p50, p99, bytes, log float64
		records                           int
	}
	var points []point
	for _, s := range samples {
		if s.Records <= 0 {
			continue
		}
		p := point{records: s.Records}
		if s.Elapsed > 0 {
			p.rate = float64(s.Records) / s.Elapsed.Seconds()
		}
		if len(s.Latencies) > 0 {
			sorted := slices.Sorted(slices.Values(s.Latencies))
			p.p50, p.p99 = micros(percentile(sorted, 50)), micros(percentile(sorted, 99))
		}
		copies := float64(s.Records * w.Replicas)
		p.bytes, p.log = float64(s.Bytes)/copies, float64(s.LogBytes)/copies
		switch w.Unit {
		case Micros:
			p.value = p.p50
		case BytesPerRecord:
			p.value = p.bytes
		default:
			p.value = p.rate
		}
		points = append(points, p)
	}
	if len(points) == 0 {
		return Row{}, false
	}
	slices.SortFunc(points, func(a, b point) int { return cmp.Compare(a.value, b.value) })
	middle := func(of func(point) float64) float64 {
		all := make([]float64, len(points))
		for i, p := range points {
			all[i] = of(p)
		}
		return median(all)
	}
	return Row{
		Peer: peer, Config: config, Workload: w.Name, Axis: w.Axis, Replicas: w.Replicas, Durable: durable,
		Unit:             w.Unit,
		Value:            middle(func(p point) float64 { return p.value }),
		Min:              points[0].value,
		Max:              points[len(points)-1].value,
		Samples:          len(points),
		Records:          points[len(points)/2].records,
		RecordsPerSecond: middle(func(p point) float64 { return p.rate }),
		P50Micros:        middle(func(p point) float64 { return p.p50 }),
		P99Micros:        middle(func(p point) float64 { return p.p99 }),
		BytesPerRecord:   middle(func(p point) float64 { return p.bytes }),
		LogPerRecord:     middle(func(p point) float64 { return p.log }),
		Baseline:         w.Baseline,
	}, true
}

// Compare fills Ratio of every row that names a baseline measured in the same report.
func Compare(rows []Row) {
	for i, r := range rows {
		for _, base := range rows {
			if r.Baseline != "" && base.Workload == r.Baseline && base.Peer == r.Peer && base.Config == r.Config && base.Value > 0 {
				rows[i].Ratio = r.Value / base.Value
			}
		}
	}
}

// median is the middle value, or the mean of the middle two. It reorders values.
func median(values []float64) float64 {
	slices.Sort(values)
	half := len(values) / 2
	if len(values)%2 == 1 {
		return values[half]
	}
	return (values[half-1] + values[half]) / 2
}

// percentile is the smallest value that at least p percent of the sorted values do not exceed.
func percentile(sorted []time.Duration, p int) time.Duration {
	rank := (len(sorted)*p + 99) / 100
	return sorted[max(rank, 1)-1]
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// Report is the JSON document. Fields are only ever added.
type Report struct {
	Format  int               `json:"format"` // FormatVersion
	Time    time.Time         `json:"time"`
	Machine Machine           `json:"machine"`
	Options Options           `json:"options"`
	Modules map[string]string `json:"modules"` // module path to version, of the peers measured
	Rows    []Row             `json:"runs"`
}

// FormatVersion is the number in Report.Format.
const FormatVersion = 1

// Machine tells two reports of different machines apart; ratios between those mean nothing.
type Machine struct {
	Go         string `json:"go"`
	OS         string `json:"os"`
	Arch       string `json:"arch"`
	CPUs       int    `json:"cpus"`
	Filesystem string `json:"filesystem"` // type that holds the data, or "unknown"
}

// Options repeats what the report was asked for.
type Options struct {
	// As the flags of the same names.
	Records int     `json:"records"`
	Size    int     `json:"size"`
	Seconds float64 `json:"seconds"`
	Runs    int     `json:"runs"`
}

// WriteJSON writes the report as one indented document with a final newline.
func (r Report) WriteJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	if err := enc.Encode(r); err != nil {
		return fmt.Errorf("mosaik: write report: %w", err)
	}
	return nil
}

// WriteTable writes the rows for people.
func (r Report) WriteTable(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "axis\tpeer\tconfig\tdurable\tmedian\tunit\tp50 us\tp99 us\tmin..max\truns\tnote")
	for _, row := range r.Rows {
		durable := "no"
		if row.Durable {
			durable = "yes"
		}
		var notes []string
		if row.Ratio > 0 {
			notes = append(notes, fmt.Sprintf("%.2f of %s", row.Ratio, row.Baseline))
		}
		if row.LogPerRecord > 0 {
			notes = append(notes, fmt.Sprintf("and %.1f of log", row.LogPerRecord))
		}
		fmt.Fprintf(t, "%s (%s)\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s..%s\t%d\t%s\n",
			row.Axis, row.Workload, row.Peer, row.Config, durable, number(row.Value), row.Unit,
			number(row.P50Micros), number(row.P99Micros), number(row.Min), number(row.Max), row.Samples, strings.Join(notes, ", "))
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("mosaik: write table: %w", err)
	}
	return nil
}

// number prints whole numbers from 1,000 on and one decimal below; "-" for nothing measured.
func number(v float64) string {
	if v == 0 {
		return "-"
	}
	if v < 1000 {
		return fmt.Sprintf("%.1f", v)
	}
	digits := fmt.Sprintf("%.0f", v)
	var grouped strings.Builder
	for i, c := range digits {
		if i > 0 && (len(digits)-i)%3 == 0 {
			grouped.WriteByte(',')
		}
		grouped.WriteRune(c)
	}
	return grouped.String()
}

// Spread returns the i-th of a fixed walk over [0, n) that jumps about, so that seeks do not profit
// from neighbours read just before. n must be positive.
func Spread(i, n int) uint64 {
	const golden = 0x9e3779b97f4a7c15 // 2^64 divided by the golden ratio: successive multiples stay far apart
	return (uint64(i+1) * golden >> 11) % uint64(n)
}
