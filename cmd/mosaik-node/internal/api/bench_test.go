package api_test

import (
	"fmt"
	"testing"

	"github.com/mosaik-engine/mosaik/cmd/mosaik-node/internal/api"
	"github.com/mosaik-engine/mosaik/engine"
	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

// BenchmarkReplay reads a stream of 128-byte records through the client, all of
// it per operation.
func BenchmarkReplay(b *testing.B) {
	const batches, batch = 400, 1000
	n := start(b, engine.Options{}, api.Options{})
	payloads := make([][]byte, batch)
	for i := range payloads {
		payloads[i] = fmt.Appendf(nil, "%0128d", i)
	}
	for range batches {
		if _, err := n.engine.Append(n.ctx, identity.NewID("wide"), payloads...); err != nil {
			b.Fatal(err)
		}
	}
	b.SetBytes(batches * batch * 128)
	b.ReportAllocs()
	for b.Loop() {
		records := 0
		for run, err := range n.client.Scan(n.ctx, api.Ref{Name: "wide"}, log.Query{}) {
			if err != nil {
				b.Fatal(err)
			}
			for range run.Records() {
				records++
			}
		}
		if records != batches*batch {
			b.Fatal(records)
		}
	}
	b.ReportMetric(float64(b.N*batches*batch)/b.Elapsed().Seconds(), "records/s")
}

// BenchmarkAppend appends records of 128 bytes one by one in one request, as many
// as there are operations.
func BenchmarkAppend(b *testing.B) {
	n := start(b, engine.Options{}, api.Options{})
	texts := make([]string, b.N)
	for i := range texts {
		texts[i] = fmt.Sprintf("%0128d", i)
	}
	b.SetBytes(128)
	b.ReportAllocs()
	b.ResetTimer()
	for o := range n.client.Append(n.ctx, api.Ref{Name: "wide"}, "raw", list(texts...)) {
		if o.Err != nil {
			b.Fatal(o.Err)
		}
	}
}
