package remote

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/network"
)

// TestTailResumes: a tail from every kind of position goes on, without a gap and without
// a record twice, while its connections break and its replicas come and go.
func TestTailResumes(t *testing.T) {
	const before, total = 50, 1500
	for name, test := range map[string]struct {
		from  func(log.Pointer) log.Position // of the record in the middle
		first int
	}{
		"earliest":     {func(log.Pointer) log.Position { return log.Earliest() }, 1},
		"latest":       {func(log.Pointer) log.Position { return log.Latest() }, before + 1},
		"seq":          {func(log.Pointer) log.Position { return log.Seq(10) }, 10},
		"later seq":    {func(log.Pointer) log.Position { return log.Seq(before + 20) }, before + 20},
		"commit":       {func(p log.Pointer) log.Position { return log.CommitNumber(p.Commit) }, before / 2},
		"later commit": {func(log.Pointer) log.Position { return log.CommitNumber(before + 30) }, before + 30},
		"time":         {func(log.Pointer) log.Position { return log.Since(time.Unix(0, 0)) }, 1},
		"pointer":      {func(p log.Pointer) log.Position { return log.At(p) }, before / 2},
	} {
		t.Run(name, func(t *testing.T) {
			m, w := newMemory(t), newTown(t)
			fill(t, m, 0, before)
			middle, err := m.Commit(before / 2)
			if err != nil {
				t.Fatal(err)
			}
			replicas := []*house{w.open(1, serve(everybody(), m)), w.open(2, serve(everybody(), m))}
			guest := w.open(3, Options{})
			g := guest.guest(t, GroupOptions{}, replicas...)
			ctx, cancel := context.WithCancel(testContext(t))
			var running sync.WaitGroup
			defer running.Wait()
			defer cancel()
			running.Go(func() {
				for len(guest.Channels()) == 0 || guest.Channels()[0].Bytes == 0 {
					select {
					case <-time.After(time.Millisecond):
					case <-ctx.Done():
						return
					}
				}
				for i := before; i < total && ctx.Err() == nil; i++ {
					if _, err := m.Append(context.Background(), testKey, fmt.Appendf(nil, "%d", i)); err != nil {
						t.Error(err)
						return
					}
				}
			})
			next, cuts := test.first, 0
			for run, err := range g.Scan(ctx, log.Query{Key: testKey, From: test.from(middle.Pointer()), Follow: true}) {
				if err != nil {
					t.Fatalf("at %d: %v", next, err)
				}
				for seq, payload := range run.Records() {
					if int(seq) != next || string(payload) != fmt.Sprint(next-1) {
						t.Fatalf("seq %d has %q, want %d", seq, payload, next)
					}
					next++
				}
				if next == total+1 {
					break
				}
				if next%100 != 0 {
					continue
				}
				cuts++
				for i, r := range replicas {
					switch {
					case cuts%3 == 0:
						r.e.Disconnect(guest.e.Peer(), network.Lost, errors.New("a test"))
					case cuts%3 == 1+i:
						r.close()
						replicas[i] = w.open(1+i, serve(everybody(), m))
					}
				}
			}
			if next != total+1 {
				t.Errorf("it ends at %d", next)
			}
			asked := guest.Metrics().Asked
			if asked[network.GoingAway]+asked[network.Lost] == 0 {
				t.Errorf("nothing was cut: %v", asked)
			}
		})
	}
}
