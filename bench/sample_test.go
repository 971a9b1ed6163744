package bench

import (
	"bytes"
	"compress/flate"
	"errors"
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestHistogramPercentiles holds the histogram against sorting.
func TestHistogramPercentiles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := rapid.SliceOfN(rapid.Int64Range(0, int64(time.Hour)), 1, 300).Draw(t, "durations")
		var h histogram
		for _, d := range all {
			h.add(time.Duration(d))
		}
		slices.Sort(all)
		for _, p := range []uint64{50, 99, 100} {
			rank := max((len(all)*int(p)+99)/100, 1)
			want := float64(all[rank-1]) / 1e3
			if got := h.micros(p); math.Abs(got-want) > want/128+0.001 {
				t.Fatalf("p%d of %d durations: %v, want %v", p, len(all), got, want)
			}
		}
	})
}

// TestBucketsAreOrdered: every number lies in its bucket and buckets follow each
// other without a gap.
func TestBucketsAreOrdered(t *testing.T) {
	for i := range histogramBuckets {
		if got := bucketOf(floorOf(i)); got != i {
			t.Fatalf("bucket %d begins with %d, which is filed under %d", i, floorOf(i), got)
		}
		if i > 0 && bucketOf(floorOf(i)-1) != i-1 {
			t.Fatalf("between bucket %d and %d there is a gap", i-1, i)
		}
	}
	if got := bucketOf(math.MaxUint64); got != histogramBuckets-1 {
		t.Fatalf("the largest number is filed under %d of %d", got, histogramBuckets)
	}
}

func TestHistogramMerge(t *testing.T) {
	var a, b, both histogram
	for i := range 1000 {
		d := time.Duration(i*i) * time.Microsecond
		both.add(d)
		if i%3 == 0 {
			a.add(d)
		} else {
			b.add(d)
		}
	}
	a.merge(&b)
	if a != both {
		t.Error("two halves merged are not the whole")
	}
	if (&histogram{}).micros(50) != 0 {
		t.Error("an empty histogram has a median")
	}
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		sorted []float64
		want   float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{1, 2}, 1.5}, {[]float64{1, 2, 9}, 2}} {
		if got := median(c.sorted); got != c.want {
			t.Errorf("median of %v is %v, want %v", c.sorted, got, c.want)
		}
	}
}

func TestPayload(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := newPayloads(1, wordSize*rapid.IntRange(minPayload/wordSize, 40).Draw(t, "words"))
		number := rapid.Uint64().Draw(t, "number")
		p.fill(number)
		if got, err := checkPayload(p[0]); err != nil || got != number {
			t.Fatalf("payload %d reads %d, %v", number, got, err)
		}
		p[0][rapid.IntRange(0, len(p[0])-1).Draw(t, "byte")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		if _, err := checkPayload(p[0]); !errors.Is(err, errPayload) {
			t.Fatalf("a flipped bit gave %v", err)
		}
	})
}

// TestPayloadsDoNotCompress: what is stored is what was given.
func TestPayloadsDoNotCompress(t *testing.T) {
	p := newPayloads(1000, 128)
	p.fill(1)
	var out bytes.Buffer
	w, err := flate.NewWriter(&out, flate.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range p {
		if _, err := w.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if out.Len() < 120*len(p) {
		t.Errorf("%d bytes compress to %d", 128*len(p), out.Len())
	}
}
