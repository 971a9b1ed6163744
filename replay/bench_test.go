package replay_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/mosaik-engine/mosaik/engine"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/replay"
)

// BenchmarkReplay reads a log of 128-byte records in several ways, from memory
// and from an engine's store, for two sizes of commit.
func BenchmarkReplay(b *testing.B) {
	const records = 1 << 18
	for _, perCommit := range []int{100, 1024} {
		payloads := make([][]byte, perCommit)
		for i := range payloads {
			payloads[i] = make([]byte, 128)
			payloads[i][0] = byte(i)
		}
		for _, kind := range []string{"memory", "engine"} {
			var w interface {
				log.Writer
				replay.Source
			}
			if kind == "memory" {
				w = log.NewMemory(group)
			} else {
				e, err := engine.Open(b.TempDir(), nil)
				if err != nil {
					b.Fatal(err)
				}
				b.Cleanup(func() { e.Close() })
				if err := e.Ready(context.Background()); err != nil {
					b.Fatal(err)
				}
				w = e.Groups()[0]
			}
			for i := range records / perCommit {
				if _, err := w.Append(context.Background(), keys[i%len(keys)], payloads...); err != nil {
					b.Fatal(err)
				}
			}
			name := fmt.Sprintf("%s/%d", kind, perCommit)
			run := func(what string, f func(context.Context) error) {
				b.Run(name+"/"+what, func(b *testing.B) {
					b.ReportAllocs()
					for b.Loop() {
						if err := f(context.Background()); err != nil {
							b.Fatal(err)
						}
					}
					total := float64(records / perCommit * perCommit)
					b.ReportMetric(total*float64(b.N)/b.Elapsed().Seconds()/1e6, "Mrecords/s")
					b.ReportMetric(0, "ns/op")
				})
			}
			run("read", func(ctx context.Context) error {
				for _, err := range w.Commits(ctx, 1, 0) {
					if err != nil {
						return err
					}
				}
				return nil
			})
			run("read every record", func(ctx context.Context) error {
				for c, err := range w.Commits(ctx, 1, 0) {
					if err != nil {
						return err
					}
					for run, err := range c.Runs() {
						if err != nil {
							return err
						}
						for range run.Records() {
						}
					}
				}
				return nil
			})
			run("commits", func(ctx context.Context) error {
				for _, err := range replay.Commits(ctx, w, 1, 0) {
					if err != nil {
						return err
					}
				}
				return nil
			})
			run("audit", func(ctx context.Context) error {
				_, err := replay.Audit(ctx, w, replay.AuditOptions{})
				return err
			})
			run("fold one key", func(ctx context.Context) error {
				_, err := replay.FoldKey(ctx, w, keys[0], 1, 0, 0, func(n int, r replay.Record) (int, error) { return n + len(r.Payload), nil })
				return err
			})
		}
	}
}
