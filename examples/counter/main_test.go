package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/mosaik-engine/mosaik"
	"github.com/mosaik-engine/mosaik/log"
)

func TestCounter(t *testing.T) {
	dir := t.TempDir()
	for i, step := range []struct {
		args string
		want string
	}{{"5", "5 mosaik:"}, {"-- -3", "2 mosaik:"}, {"-- -3", ""}, {"1", "3 mosaik:"}} {
		var out bytes.Buffer
		err := run(t.Context(), append([]string{dir}, strings.Fields(step.args)...), &out)
		if step.want == "" {
			if !errors.Is(err, ErrRefused) || out.Len() != 0 {
				t.Fatalf("step %d: %q, %v", i, out.String(), err)
			}
			continue
		}
		if err != nil || !strings.HasPrefix(out.String(), step.want) {
			t.Fatalf("step %d: %q, %v", i, out.String(), err)
		}
	}
	// A program without the machine must not open the store: it could not go on.
	if _, err := mosaik.Open(dir, nil); !errors.Is(err, log.ErrKind) || !strings.Contains(err.Error(), "example.counter.v1") {
		t.Errorf("without the machine: %v", err)
	}
	node, err := mosaik.Open(dir, &mosaik.Options{Machines: []log.Machine{counterMachine{}}})
	if err != nil {
		t.Fatal(err)
	}
	defer node.Close()
	c, err := Open(t.Context(), node, "visits")
	if err != nil {
		t.Fatal(err)
	}
	for commit, want := range map[uint64]int64{1: 0, 2: 5, 3: 2, 4: 2, 5: 3} {
		if sum, err := c.Sum(t.Context(), log.AsOf(commit)); err != nil || sum != want {
			t.Errorf("as of commit %d: %d, %v, want %d", commit, sum, err, want)
		}
	}
}
