package main

import (
	"strings"
	"testing"
)

// The second run finds what the first one wrote.
func TestRecord(t *testing.T) {
	dir := t.TempDir()
	for run, want := range []string{
		"1 104312.50 104313.00\n",
		"1 104312.50 104313.00\n2 104312.50 104313.00\n",
	} {
		var out strings.Builder
		if err := record(t.Context(), dir, &out); err != nil {
			t.Fatal(err)
		}
		evidence, records, _ := strings.Cut(out.String(), "\n")
		if !strings.HasPrefix(evidence, "evidence: mosaik:") || records != want {
			t.Errorf("run %d printed\n%swant records\n%s", run+1, out.String(), want)
		}
	}
}
