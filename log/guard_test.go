package log_test

import (
	"errors"
	"math"
	"testing"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

// TestGuardFits: whatever transaction is valid, its guard is a record that a log takes.
func TestGuardFits(t *testing.T) {
	key := identity.NewID("k")
	taken := 0
	for size := log.MaxPayload/log.MaxConditions - 100; size <= log.MaxPayload/log.MaxConditions; size++ {
		for _, kind := range []log.ConditionKind{log.RowEquals, log.RowVersion} {
			tx := log.Transaction{Commands: []log.KeyedCommand{{Key: key}}}
			for range log.MaxConditions {
				c := log.Condition{Key: key, Kind: kind, Row: make([]byte, 100), Value: make([]byte, size-100), Commit: math.MaxUint64}
				tx.Conditions = append(tx.Conditions, c)
			}
			switch err := tx.Validate(); {
			case err == nil:
				taken++
				if n := len(tx.AppendGuard(nil)); n > log.MaxPayload {
					t.Fatalf("a valid transaction has a guard of %d bytes", n)
				}
			case !errors.Is(err, log.ErrOversize):
				t.Fatal(err)
			}
		}
	}
	if taken == 0 {
		t.Fatal("no transaction was valid")
	}
}
