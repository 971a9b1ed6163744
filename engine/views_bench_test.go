package engine_test

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/mosaik-engine/mosaik/engine"
	"github.com/mosaik-engine/mosaik/engine/cluster"
	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

// What collections cost beside the stream of the same bytes, and beside a lookup
// of the store they are on.

const (
	benchKeys   = 1_000_000
	benchBatch  = 100
	benchValue  = 64
	benchWindow = 64
)

var benchMap = log.MapDef[uint64, []byte]{Name: "bench", Values: log.Raw()}

// atOnce runs do from benchWindow goroutines until n elements are done.
func atOnce(b *testing.B, do func(rng *rand.Rand)) {
	var done atomic.Int64
	var wg sync.WaitGroup
	b.ResetTimer()
	for w := range benchWindow {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(w), 1))
			for done.Add(benchBatch) <= int64(b.N) {
				do(rng)
			}
		})
	}
	wg.Wait()
	report(b, b.N)
}

// BenchmarkMapExtend3 sets random entries of a million, 100 in a command, 64 commands under way, on
// three nodes.
func BenchmarkMapExtend3(b *testing.B) {
	ctx := context.Background()
	m, err := benchMap.Open(ctx, benchCluster(b, 3, nil))
	if err != nil {
		b.Fatal(err)
	}
	atOnce(b, func(rng *rand.Rand) {
		value := make([]byte, benchValue)
		_, _, err := m.Extend(ctx, func(yield func(uint64, []byte) bool) {
			for range benchBatch {
				binary.LittleEndian.PutUint64(value, rng.Uint64())
				if !yield(rng.Uint64N(benchKeys), value) {
					return
				}
			}
		})
		if err != nil {
			b.Error(err)
		}
	})
}

// BenchmarkStreamSameBytes3 appends as many bytes to a stream.
func BenchmarkStreamSameBytes3(b *testing.B) {
	ctx := context.Background()
	e := benchCluster(b, 3, nil)
	atOnce(b, func(*rand.Rand) {
		payloads := make([][]byte, benchBatch)
		for i := range payloads {
			payloads[i] = make([]byte, 8+benchValue)
		}
		if _, err := e.Append(ctx, identity.NewID("stream"), payloads...); err != nil {
			b.Error(err)
		}
	})
}

// filledMap is a map of a million entries on one node.
func filledMap(b *testing.B) (*engine.Engine, *log.Map[uint64, []byte]) {
	ctx := context.Background()
	e := benchCluster(b, 1, nil)
	m, err := benchMap.Open(ctx, e)
	if err != nil {
		b.Fatal(err)
	}
	fillMap(b, m, benchKeys)
	return e, m
}

// fillMap inserts the keys below n, in order.
func fillMap(b *testing.B, m *log.Map[uint64, []byte], n uint64) {
	ctx := context.Background()
	value := make([]byte, benchValue)
	for k := uint64(0); k < n; {
		_, _, err := m.Extend(ctx, func(yield func(uint64, []byte) bool) {
			for range 5000 {
				if !yield(k, value) {
					return
				}
				k++
			}
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkMapGetStale reads entries as the node has them, and for comparison the
// rows by lookups of the store alone.
func BenchmarkMapGetStale(b *testing.B) {
	ctx := context.Background()
	e, m := filledMap(b)
	rng := rand.New(rand.NewPCG(1, 1))
	b.Run("map", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, ok, err := m.GetStale(ctx, rng.Uint64N(benchKeys)); !ok || err != nil {
				b.Fatal(ok, err)
			}
		}
	})
	b.Run("store", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			row := binary.BigEndian.AppendUint64([]byte{1}, rng.Uint64N(benchKeys))
			if err := e.Groups()[0].RawRow(benchMap.Key(), row); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("absent", func(b *testing.B) {
		for b.Loop() {
			if _, ok, err := m.GetStale(ctx, benchKeys+rng.Uint64N(benchKeys)); ok || err != nil {
				b.Fatal(ok, err)
			}
		}
	})
}

// openEntries is how large the map of BenchmarkMapOpen is.
const openEntries = 10_000_000

// BenchmarkMapOpen opens a node with a map of ten million entries and reads one of
// them. Filling it takes about a minute: run it with -benchtime 3x.
func BenchmarkMapOpen(b *testing.B) {
	ctx := context.Background()
	c, err := cluster.Open(cluster.Options{Nodes: 1, Dir: benchDir(b)})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	if err := c.Ready(ctx); err != nil {
		b.Fatal(err)
	}
	m, err := benchMap.Open(ctx, c.Node(0))
	if err != nil {
		b.Fatal(err)
	}
	fillMap(b, m, openEntries)
	var before, after runtime.MemStats
	for b.Loop() {
		b.StopTimer()
		if err := c.Stop(0); err != nil {
			b.Fatal(err)
		}
		runtime.GC()
		runtime.ReadMemStats(&before)
		b.StartTimer()
		if err := c.Start(0); err != nil {
			b.Fatal(err)
		}
		m, err := benchMap.Reader(c.Node(0))
		if err != nil {
			b.Fatal(err)
		}
		if _, ok, err := m.GetStale(ctx, openEntries/2); !ok || err != nil {
			b.Fatal(ok, err)
		}
		b.StopTimer()
		runtime.ReadMemStats(&after)
		b.StartTimer()
	}
	b.ReportMetric(float64(after.TotalAlloc-before.TotalAlloc)/(1<<20), "MiB-allocated")
}
