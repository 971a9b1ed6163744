package engine

import (
	"fmt"
	"testing"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

// applied is a replica with entries prepared for it, so that what is measured is
// the apply path and nothing before it.
type applied struct {
	r       *replica
	cmds    [][]byte
	next    int
	entries [1]entry
}

// prepare makes n entries of as many records each, one run per key in turns.
func prepare(tb testing.TB, n, records, keys int) *applied {
	tb.Helper()
	a := &applied{r: newTestReplica(tb, 1)}
	payload := make([]byte, 100)
	ids := make([]identity.ID, keys)
	for i := range ids {
		ids[i] = identity.NewID("key").Derive(fmt.Sprint(i))
	}
	runs := make([][]byte, keys)
	for i := range records {
		runs[i%keys] = log.AppendRecord(runs[i%keys], payload)
	}
	var body []byte
	for i, encoded := range runs {
		body = log.AppendRun(body, ids[i], 0, (records-i+keys-1)/keys, encoded)
	}
	for i := range n {
		p := proposal{time: int64(i), proposer: 1, epoch: 1, seq: uint64(i + 1)}
		a.cmds = append(a.cmds, append(p.appendHeader(make([]byte, 0, proposalHeaderSize+len(body))), body...))
	}
	return a
}

// apply applies the next entry in an update of its own.
func (a *applied) apply(tb testing.TB) {
	a.entries[0] = entry{index: uint64(a.next + 1), cmd: a.cmds[a.next]}
	a.next++
	if err := a.r.update(a.entries[:]); err != nil || a.entries[0].outcome.refused() {
		tb.Fatal(a.entries[0].outcome, err)
	}
}

// perEntry returns the allocations of applying one entry in steady state.
func perEntry(t *testing.T, records, keys int) float64 {
	t.Helper()
	const warm, measured = 20, 100
	a := prepare(t, warm+measured+1, records, keys)
	for range warm {
		a.apply(t)
	}
	return testing.AllocsPerRun(measured, func() { a.apply(t) })
}

// TestApplyAllocations: what applying an entry allocates does not depend on how
// many records are in it.
func TestApplyAllocations(t *testing.T) {
	one := perEntry(t, 1, 1)
	t.Logf("%v allocations for an entry of one record", one)
	if one > 10 {
		t.Errorf("an entry of one record costs %v allocations", one)
	}
	for _, records := range []int{10, 100, 1000, 5000} {
		if n := perEntry(t, records, 1); n > one+2 {
			t.Errorf("an entry of %d records costs %v allocations, one of 1 record %v", records, n, one)
		}
	}
	// Runs of many keys: a posting each, which gather in memory in chunks.
	few, many := perEntry(t, 1000, 10), perEntry(t, 1000, 100)
	t.Logf("1000 records: %v allocations with 10 keys, %v with 100", few, many)
	if many > 1000/10 {
		t.Errorf("an entry of 1000 records of 100 keys costs %v allocations, one of 10 keys %v", many, few)
	}
}

// BenchmarkApply applies entries of 100 records of 100 bytes. An op is a record:
// allocs/op is what the apply path allocates for one, less than one per entry
// and record being shown as 0.
func BenchmarkApply(b *testing.B) {
	for _, keys := range []int{1, 10} {
		b.Run(fmt.Sprint("keys=", keys), func(b *testing.B) {
			const records, window = 100, 512
			a := prepare(b, window, records, keys)
			b.SetBytes(100)
			b.ReportAllocs()
			b.ResetTimer()
			for i := 0; i < b.N; i += records {
				if a.next == window {
					// The same proposals as of another epoch.
					b.StopTimer()
					for n, cmd := range a.cmds {
						p, err := decodeProposal(cmd)
						if err != nil {
							b.Fatal(err)
						}
						p.epoch++
						p.seq = uint64(n + 1)
						p.appendHeader(cmd[:0])
					}
					a.next = 0
					b.StartTimer()
				}
				a.apply(b)
			}
		})
	}
}
