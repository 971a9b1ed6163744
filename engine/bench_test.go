package engine_test

import (
	"context"
	"crypto/rand"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/mosaik-engine/mosaik/engine"
	"github.com/mosaik-engine/mosaik/engine/cluster"
	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

func benchDir(b *testing.B) string {
	dir, err := os.MkdirTemp("", "mosaik-bench")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func benchCluster(b *testing.B, nodes int, o *engine.Options) *engine.Engine {
	c, err := cluster.Open(cluster.Options{Nodes: nodes, Dir: benchDir(b), Engine: o})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	if err := c.Ready(context.Background()); err != nil {
		b.Fatal(err)
	}
	for _, n := range c.Running() {
		if s := n.Groups()[0].Status(); s.Leader == s.Self {
			return n
		}
	}
	b.Fatal("no leader")
	return nil
}

func report(b *testing.B, records int) {
	b.ReportMetric(float64(records)/b.Elapsed().Seconds(), "rec/s")
}

// pipelined appends single-record or batch appends with a window in flight.
func pipelined(b *testing.B, e *engine.Engine, window, batch, keys int) {
	ctx := context.Background()
	ids := make([]identity.ID, keys)
	for i := range ids {
		ids[i] = identity.NewID("key").Derive(string(rune(i)))
	}
	payloads := make([][]byte, batch)
	for i := range payloads {
		payloads[i] = make([]byte, 128)
		rand.Read(payloads[i])
	}
	ring := make([]*log.Future, window)
	b.ResetTimer()
	n := 0
	for i := 0; i < b.N; i += batch {
		if f := ring[n%window]; f != nil {
			if _, err := f.Result(); err != nil {
				b.Fatal(err)
			}
		}
		ring[n%window] = e.AppendAsync(ctx, ids[n%keys], payloads...)
		n++
	}
	for _, f := range ring {
		if f != nil {
			if _, err := f.Result(); err != nil {
				b.Fatal(err)
			}
		}
	}
	report(b, b.N)
}

func writers(b *testing.B, e *engine.Engine, callers int) {
	ctx := context.Background()
	payload := make([]byte, 128)
	rand.Read(payload)
	var left atomic.Int64
	left.Store(int64(b.N))
	var wg sync.WaitGroup
	b.ResetTimer()
	for range callers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for left.Add(-1) >= 0 {
				if _, err := e.Append(ctx, identity.NewID("k"), payload); err != nil {
					b.Error(err)
					return
				}
			}
		}()
	}
	wg.Wait()
	report(b, b.N)
}

func BenchmarkR1Batch1024(b *testing.B) { pipelined(b, benchCluster(b, 1, nil), 1, 1024, 1) }
func BenchmarkR1Writers64(b *testing.B) { writers(b, benchCluster(b, 1, nil), 64) }
func BenchmarkR1Writers1(b *testing.B)  { writers(b, benchCluster(b, 1, nil), 1) }
func BenchmarkR3Batch100(b *testing.B)  { pipelined(b, benchCluster(b, 3, nil), 64, 100, 1) }
func BenchmarkR3Pipeline(b *testing.B)  { pipelined(b, benchCluster(b, 3, nil), 4096, 1, 1) }
func BenchmarkR3Keys1000(b *testing.B)  { pipelined(b, benchCluster(b, 3, nil), 4096, 1, 1000) }
func BenchmarkR3Writers64(b *testing.B) { writers(b, benchCluster(b, 3, nil), 64) }
func BenchmarkR3Writers1(b *testing.B)  { writers(b, benchCluster(b, 3, nil), 1) }
