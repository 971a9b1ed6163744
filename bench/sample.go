package bench

import (
	"math/bits"
	"slices"
	"time"
)

// Unit says what a value counts, and by that whether more or less is better.
type Unit string

// Units of values.
const (
	PerSecond      Unit = "records/s"
	CreatedPerSec  Unit = "keys/s"
	Micros         Unit = "us"
	BytesPerRecord Unit = "bytes/record"
	BytesPerKey    Unit = "bytes/key"
	Cores          Unit = "cores"
	Seconds        Unit = "s"
	Bytes          Unit = "bytes"
	AllocsPerRec   Unit = "allocs/record"
	Share          Unit = "share" // of a whole that is 1
)

// lowerIsBetter reports whether less of the unit is better.
func (u Unit) lowerIsBetter() bool { return u != PerSecond && u != CreatedPerSec }

// Sample is the outcome of one timed run.
type Sample struct {
	Value   float64 `json:"value"`
	P50     float64 `json:"p50_us,omitempty"` // latency of one append or seek, microseconds
	P99     float64 `json:"p99_us,omitempty"`
	Records int     `json:"records,omitempty"`
	// Counters are what the subject itself counted while it was timed, such as
	// syncs a second; their names say their units. docs/bench explains them.
	Counters map[string]float64 `json:"counters,omitempty"`
}

// Measurement is one subject under one workload, over all runs.
type Measurement struct {
	Row     string   `json:"row"`     // as Config.Rows names it
	Name    string   `json:"name"`    // of the workload, unique over all rows
	Subject string   `json:"subject"` // who was measured
	Unit    Unit     `json:"unit"`
	Runs    []Sample `json:"runs"`
}

// of returns one number of every run, sorted.
func (m *Measurement) of(pick func(*Sample) float64) []float64 {
	all := make([]float64, len(m.Runs))
	for i := range m.Runs {
		all[i] = pick(&m.Runs[i])
	}
	slices.Sort(all)
	return all
}

func value(s *Sample) float64 { return s.Value }
func p50(s *Sample) float64   { return s.P50 }
func p99(s *Sample) float64   { return s.P99 }

// median is the middle of sorted values, or the mean of the middle two.
func median(sorted []float64) float64 {
	n := len(sorted)
	if n == 0 {
		return 0
	}
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// counter returns the median of a counter over the runs, 0 if it has none.
func (m *Measurement) counter(name string) float64 {
	return median(m.of(func(s *Sample) float64 { return s.Counters[name] }))
}

// histogram counts durations in buckets at most 1/128 apart, so percentiles are
// exact to 0.8 per cent and counting allocates nothing. The zero value is empty.
type histogram struct {
	buckets [histogramBuckets]uint32
	count   uint64
}

const (
	histogramBits    = 7 // of a duration's nanoseconds that tell buckets apart
	histogramBuckets = (64 - histogramBits + 1) << histogramBits
)

func (h *histogram) add(d time.Duration) {
	h.buckets[bucketOf(uint64(max(d, 0)))]++
	h.count++
}

// bucketOf maps small numbers to themselves and larger ones to their leading
// bits and the number of those that were cut off.
func bucketOf(n uint64) int {
	shift := max(bits.Len64(n)-histogramBits-1, 0)
	return shift<<histogramBits + int(n>>shift)
}

// floorOf is the smallest number in a bucket.
func floorOf(bucket int) uint64 {
	if bucket < 2<<histogramBits {
		return uint64(bucket)
	}
	shift := bucket>>histogramBits - 1
	return uint64(bucket-shift<<histogramBits) << shift
}

func (h *histogram) merge(other *histogram) {
	for i, n := range other.buckets {
		h.buckets[i] += n
	}
	h.count += other.count
}

// micros is the smallest duration that at least p per cent of all do not
// exceed, in microseconds; 0 if nothing was counted.
func (h *histogram) micros(p uint64) float64 {
	rank := max((h.count*p+99)/100, 1)
	for i, n := range h.buckets {
		if uint64(n) >= rank {
			return float64(floorOf(i)+floorOf(i+1)-1) / 2 / float64(time.Microsecond)
		}
		rank -= uint64(n)
	}
	return 0
}
