package fuzz

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/mosaik-engine/mosaik/engine"
	"github.com/mosaik-engine/mosaik/identity"
)

// TestClockSetBack starts a node again at an earlier time than it has stopped,
// and at the very same time as it has started before: every bubble's clock
// starts at one and the same time. What the node appends is appended, and
// commit times do not run backwards.
func TestClockSetBack(t *testing.T) {
	d := newDisk(vfs.NewCrashableMem())
	key := identity.NewID("key")
	var last int64
	for life := range uint64(4) {
		synctest.Test(t, func(t *testing.T) {
			e, err := engine.Open("/node", &engine.Options{FS: d})
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := e.Close(); err != nil {
					t.Error(err)
				}
			}()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if err := e.Ready(ctx); err != nil {
				t.Fatal(err)
			}
			for n := range uint64(3) {
				p, err := e.Append(ctx, key, []byte{byte(life), byte(n)})
				if err != nil {
					t.Fatalf("life %d, append %d: %v", life, n, err)
				}
				c, err := e.Groups()[0].Commit(p.Commit)
				if err != nil {
					t.Fatal(err)
				}
				run, err := c.RunAt(0)
				if err != nil {
					t.Fatal(err)
				}
				for seq, payload := range run.Records() {
					if seq != life*3+n+1 || payload[0] != byte(life) || payload[1] != byte(n) {
						t.Fatalf("life %d, append %d was acknowledged as seq %d, %v", life, n, seq, payload)
					}
				}
				if c.Header.Time < last {
					t.Fatalf("life %d, append %d: time %d after %d", life, n, c.Header.Time, last)
				}
				last = c.Header.Time
			}
			if life == 0 {
				pause(time.Minute, nil)
			}
		})
	}
}
