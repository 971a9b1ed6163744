package fuzz

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
)

// What the simulations take from the environment.
const (
	seedsVar = "MOSAIK_SIM_SEEDS" // how many seeds it plays
	firstVar = "MOSAIK_SIM_FIRST" // the first of them, 1 if it is not set
	stepsVar = "MOSAIK_SIM_STEPS" // how much happens in each
)

func setting(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	s, ok := os.LookupEnv(name)
	if !ok || s == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// TestSimulation plays a few seeds, each in a bubble of simulated time.
func TestSimulation(t *testing.T) {
	seeds, first, steps := setting(t, seedsVar, 4), setting(t, firstVar, 1), setting(t, stepsVar, 20)
	all := play(t, seeds, first, Simulation{Steps: int(steps)})
	if seeds >= 4 && (all.Acked == 0 || all.Unknown == 0 || all.Reads == 0 || all.Stops == 0 || all.Cuts == 0 || all.Splits == 0 || all.Trimmed == 0) {
		t.Error("too little happened to tell anything")
	}
}

// play plays a simulation with several seeds and returns what happened in all.
func play(t *testing.T, seeds, first uint64, s Simulation) (all Outcome) {
	for s.Seed = first; s.Seed < first+seeds; s.Seed++ {
		t.Run(fmt.Sprint("seed=", s.Seed), func(t *testing.T) {
			name, _, _ := strings.Cut(t.Name(), "/")
			synctest.Test(t, func(t *testing.T) {
				o, err := s.Run(t.Context())
				if err != nil {
					for _, line := range o.Story {
						t.Log(line)
					}
					t.Error(err)
					t.Logf("to play it again, some times, as threads race:\n\t%s=%d %s=1 %s=%d go test -count=10 -v -run '^%s$' ./fuzz",
						firstVar, s.Seed, seedsVar, stepsVar, s.Steps, name)
				}
				t.Log(o)
				all.Add(o)
			})
		})
	}
	t.Logf("%d seeds in %v", seeds, all)
	return all
}

// TestSimulationFindsLazyReads plays with clients that read without asking the
// group first, which is not linearizable, until the judge says so.
func TestSimulationFindsLazyReads(t *testing.T) {
	for seed := uint64(1); seed <= 30; seed++ {
		var err error
		synctest.Test(t, func(t *testing.T) {
			_, err = Simulation{Seed: seed, Steps: 10, lazyReads: true}.Run(t.Context())
		})
		if err != nil {
			t.Log(err)
			return
		}
	}
	t.Error("30 seeds, and no read was out of date")
}
