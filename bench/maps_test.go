package bench

import (
	"bytes"
	"runtime/pprof"
	"strings"
	"testing"
	"time"

	"github.com/mosaik-engine/mosaik/log"
)

func TestMapKeys(t *testing.T) {
	for number, want := range map[uint64]string{0: "entry/0000000000", 1234567: "entry/0001234567", 9_999_999_999: "entry/9999999999"} {
		if got := string(appendMapKey(nil, number)); got != want || len(got) != mapKeySize {
			t.Errorf("key %d: %q, want %q", number, got, want)
		}
	}
}

// TestPlacements: a filled map has each key once, and draws are spread over the
// whole key space.
func TestPlacements(t *testing.T) {
	for _, count := range []int{1, 2, 1000, 65536, 99_991} {
		place, seen := scattered(count), make([]bool, count)
		for payload := range uint64(count) {
			key := place(payload)
			if seen[key] {
				t.Fatalf("of %d keys, %d was given twice", count, key)
			}
			seen[key] = true
		}
	}
	var tenths [10]int
	for payload := range uint64(10_000) {
		tenths[drawn(payload)*10/mapKeySpace]++
	}
	for i, n := range tenths {
		if n < 850 || n > 1150 {
			t.Errorf("tenth %d of the keys was drawn %d times of 10,000", i, n)
		}
	}
}

func TestEntriesOf(t *testing.T) {
	for n, want := range map[int]int{1: 1, 999: 999, 1000: 1000, 1500: 1000, 2000: 2000} {
		if got := entriesOf(n); got != want {
			t.Errorf("a map filled with %d has %d entries, want %d", n, got, want)
		}
	}
}

// TestProfileFindsDigest profiles a program that does nothing but hash: the
// functions that the row "state" looks for are found by their names.
func TestProfileFindsDigest(t *testing.T) {
	var h log.StateHash
	for range 200 {
		var profile bytes.Buffer
		if err := pprof.StartCPUProfile(&profile); err != nil {
			t.Fatal(err)
		}
		for start := time.Now(); time.Since(start) < 30*time.Millisecond; {
			h.Add([]byte("row"))
		}
		pprof.StopCPUProfile()
		p, err := readCPUProfile(bytes.NewReader(profile.Bytes()))
		if err != nil {
			t.Fatal(err)
		}
		for i := range p.samples {
			if s := &p.samples[i]; s.count > 0 && p.within(s, isDigest) {
				total, err := countApply(&profile)
				if err != nil || total.apply != 0 {
					t.Errorf("samples of a program that applies nothing: %+v, %v", total, err)
				}
				return
			}
		}
	}
	t.Fatal("no sample in the state digest")
}

func TestProfileThatIsNone(t *testing.T) {
	var whole bytes.Buffer
	if err := pprof.StartCPUProfile(&whole); err != nil {
		t.Fatal(err)
	}
	pprof.StopCPUProfile()
	if _, err := readCPUProfile(bytes.NewReader(whole.Bytes())); err != nil {
		t.Errorf("a profile without samples: %v", err)
	}
	for name, in := range map[string]string{"nothing": "", "text": "cpu", "half": whole.String()[:whole.Len()/2]} {
		if _, err := readCPUProfile(strings.NewReader(in)); err == nil {
			t.Errorf("%s was read as a profile", name)
		}
	}
}
