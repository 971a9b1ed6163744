package fuzz

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/mosaik-engine/mosaik/engine"
	"github.com/mosaik-engine/mosaik/identity"
)

// TestFirstPowerCut cuts the power right after the first append to a new store
// was acknowledged. Its directory and all directories above it are as new as the
// record.
func TestFirstPowerCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk(vfs.NewCrashableMem())
		key := identity.NewID("key")
		for records := range uint64(3) {
			e, err := engine.Open("/some/where/new", &engine.Options{FS: d})
			if err != nil {
				t.Fatal(err)
			}
			if err := e.Ready(t.Context()); err != nil {
				t.Error(err)
			}
			if head := e.Groups()[0].Head(); head.Number != records {
				t.Errorf("%d of %d acknowledged records are there", head.Number, records)
			}
			if _, err := e.Append(t.Context(), key, []byte("record")); err != nil {
				t.Error(err)
			}
			left := d.after(nil, 0)
			if err := e.Close(); err != nil || t.Failed() {
				t.Fatal(err)
			}
			d = left
			time.Sleep(time.Second) // of the bubble's: machines do not reboot in no time
		}
	})
}
