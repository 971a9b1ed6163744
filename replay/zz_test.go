package replay_test

import (
	"context"
	"syscall"
	"testing"
	"time"

	"github.com/mosaik-engine/mosaik/engine"
	"github.com/mosaik-engine/mosaik/replay"
)

func cpu() time.Duration {
	var r syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &r)
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

func TestZZ(t *testing.T) {
	ctx := context.Background()
	for _, per := range []int{100, 1024, 4000} {
		payloads := make([][]byte, per)
		for i := range payloads {
			payloads[i] = make([]byte, 128)
		}
		dir := t.TempDir()
		e, err := engine.Open(dir, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Ready(ctx); err != nil {
			t.Fatal(err)
		}
		total := 0
		for i := 0; total < 1_000_000; i++ {
			if _, err := e.Append(ctx, keys[i%3], payloads...); err != nil {
				t.Fatal(err)
			}
			total += per
		}
		e.Close()
		e, err = engine.Open(dir, nil)
		if err != nil {
			t.Fatal(err)
		}
		g := e.Groups()[0]
		if err := g.Ready(ctx); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			for _, w := range []struct {
				name string
				f    func()
			}{
				{"read", func() {
					for _, err := range g.Commits(ctx, 1, 0) {
						if err != nil {
							t.Fatal(err)
						}
					}
				}},
				{"commits", func() {
					for _, err := range replay.Commits(ctx, g, 1, 0) {
						if err != nil {
							t.Fatal(err)
						}
					}
				}},
				{"audit", func() {
					if _, err := replay.Audit(ctx, g, replay.AuditOptions{}); err != nil {
						t.Fatal(err)
					}
				}},
			} {
				c, s := cpu(), time.Now()
				w.f()
				t.Logf("%d %s: cpu %.1f ns/record, wall %.1f", per, w.name, float64(cpu()-c)/float64(total), float64(time.Since(s))/float64(total))
			}
		}
		e.Close()
	}
}
