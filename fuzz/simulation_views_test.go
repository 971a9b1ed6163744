package fuzz

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
)

// firstViews is the first seed that TestSimulationViews plays if nobody says
// another: it and the next have every kind of fault in their plans.
const firstViews = 5

// TestSimulationViews plays a few seeds with clients of a map and a cell beside
// those of the streams, whose records share commits with the commands.
func TestSimulationViews(t *testing.T) {
	seeds, first, steps := setting(t, seedsVar, 2), setting(t, firstVar, firstViews), setting(t, stepsVar, 20)
	all := play(t, seeds, first, Simulation{Steps: int(steps), Clients: 2, Viewers: 4})
	if seeds < 2 || first != firstViews || steps < 20 {
		return
	}
	if all.Writes == all.Open || all.Open == 0 || all.Swaps == 0 || all.Looks == 0 {
		t.Error("too little was called to tell anything")
	}
	if all.Stops == 0 || all.Cuts == 0 || all.Splits == 0 || all.Network.Dropped == 0 || all.Network.Reordered == 0 {
		t.Error("too little happened to tell anything")
	}
}

// TestSimulationFindsLazyViews plays with clients that take stale reads of the
// map and the cell for linearizable ones, until the judge says so.
func TestSimulationFindsLazyViews(t *testing.T) {
	for seed := uint64(1); seed <= 30; seed++ {
		var err error
		synctest.Test(t, func(t *testing.T) {
			_, err = Simulation{Seed: seed, Steps: 10, Clients: 1, Viewers: 4, lazyViews: true}.Run(t.Context())
		})
		if err == nil {
			continue
		}
		if t.Log(err); !strings.Contains(err.Error(), "not linearizable") {
			t.Error("that is another mistake than reads that are out of date")
		}
		return
	}
	t.Error("30 seeds, and no read was out of date")
}

// TestJudgeUses shows the judge small histories of map operations, made up by
// hand, of which it must refuse those that no map could have brought about.
func TestJudgeUses(t *testing.T) {
	at := func(start, end int64, k use) use {
		k.start, k.end = start, end
		return k
	}
	insert := func(v, found uint64) use { return use{verb: write, after: v, found: found, outcome: acked} }
	get := func(found uint64) use { return use{verb: look, found: found, outcome: acked} }
	swap := func(before, after uint64) use {
		return use{verb: exchange, before: before, after: after, swapped: true, outcome: acked}
	}
	refusedSwap := func(before, after, found uint64) use {
		return use{verb: exchange, before: before, after: after, found: found, outcome: acked}
	}
	drop := func(found uint64) use { return use{verb: remove, found: found, outcome: acked} }
	lost := func(k use) use { k.outcome = unknown; return k }
	none := func(k use) use { k.outcome = refused; return k }
	elsewhere := func(k use) use { k.object = mapEntries; return k }
	for _, c := range []struct {
		name   string
		linear bool
		uses   []use
	}{
		{"one after the other", true, []use{
			at(1, 2, insert(1, 0)), at(3, 4, get(1)), at(5, 6, swap(1, 2)), at(7, 8, refusedSwap(1, 3, 2)),
			at(9, 10, drop(2)), at(11, 12, get(0)), at(13, 14, drop(0)), at(15, 16, swap(0, 4)), at(17, 18, swap(4, 0)), at(19, 20, get(0))}},
		{"a read beside a write sees it or not", true, []use{at(1, 10, insert(1, 0)), at(2, 3, get(0)), at(4, 5, get(1))}},
		{"a read beside a write sees it, and the next does not", false, []use{at(1, 10, insert(1, 0)), at(2, 3, get(1)), at(4, 5, get(0))}},
		{"a read misses what was acknowledged", false, []use{at(1, 2, insert(1, 0)), at(3, 4, get(0))}},
		{"a read sees what was removed", false, []use{at(1, 2, insert(1, 0)), at(3, 4, drop(1)), at(5, 6, get(1))}},
		{"a read sees the future", false, []use{at(1, 2, get(1)), at(3, 4, insert(1, 0))}},
		{"an insert did not find what was there", false, []use{at(1, 2, insert(1, 0)), at(3, 4, insert(2, 0))}},
		{"two exchanges of the same value", false, []use{at(1, 2, insert(1, 0)), at(3, 9, swap(1, 2)), at(4, 8, swap(1, 3))}},
		{"an exchange was refused for what it wants", false, []use{at(1, 2, insert(1, 0)), at(3, 4, refusedSwap(1, 2, 1))}},
		{"two removals of one value", false, []use{at(1, 2, insert(1, 0)), at(3, 9, drop(1)), at(4, 8, drop(1))}},
		{"objects have nothing to do with each other", true, []use{at(1, 2, insert(1, 0)), at(3, 4, elsewhere(get(0)))}},

		{"nobody knows of an insert, and nobody sees it", true, []use{at(1, 2, lost(insert(1, 0))), at(3, 4, get(0))}},
		{"nobody knows of an insert, and it comes late", true, []use{at(1, 2, lost(insert(1, 0))), at(3, 4, get(0)), at(5, 6, get(1))}},
		{"nobody knows of an insert, and it comes twice", false, []use{
			at(1, 2, lost(insert(1, 0))), at(3, 4, get(1)), at(5, 6, drop(1)), at(7, 8, get(1))}},
		{"nobody knows of an insert, and it comes and goes", false, []use{at(1, 2, lost(insert(1, 0))), at(3, 4, get(1)), at(5, 6, get(0))}},
		{"nobody knows of an insert, and it comes before its call", false, []use{at(1, 2, get(1)), at(3, 4, lost(insert(1, 0)))}},
		{"nobody knows of a removal, and it comes late", true, []use{
			at(1, 2, insert(1, 0)), at(3, 4, lost(drop(0))), at(5, 6, get(1)), at(7, 8, insert(2, 1)), at(9, 10, get(0))}},
		{"nobody knows of a removal, and two things are gone", false, []use{
			at(1, 2, insert(1, 0)), at(3, 4, lost(drop(0))), at(5, 6, get(0)), at(7, 8, insert(2, 0)), at(9, 10, get(0))}},
		{"nobody knows of an exchange, and it comes late", true, []use{
			at(1, 2, lost(swap(1, 2))), at(3, 4, insert(1, 0)), at(5, 6, get(2))}},
		{"nobody knows of an exchange, and it takes place of another value", false, []use{
			at(1, 2, lost(swap(1, 2))), at(3, 4, insert(3, 0)), at(5, 6, get(2))}},
		{"an unseen insert before an unseen removal", true, []use{
			at(1, 2, insert(1, 0)), at(3, 4, lost(insert(2, 0))), at(5, 6, lost(drop(0))), at(7, 8, get(0))}},
		{"a refused insert is seen", false, []use{at(1, 2, none(insert(1, 0))), at(3, 4, get(1))}},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := judgeUses(c.uses)
			if (err == nil) != c.linear {
				t.Fatalf("the judge says: %v", err)
			}
			if err != nil && !strings.Contains(err.Error(), fmt.Sprint("object ", c.uses[0].object)) {
				t.Errorf("the judge blames something else: %v", err)
			}
		})
	}
}
