package coalition

import (
	"os"
	"strings"
	"testing"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/organisms"
)

// TestDocumentedExamples recomputes every id of the format's page.
func TestDocumentedExamples(t *testing.T) {
	b, err := os.ReadFile("../docs/format/coalition.md")
	if err != nil {
		t.Fatal(err)
	}
	o := organisms.Config{Role: "oracle", InstanceName: "oracle-γ.oracle"}
	l := LatticeConfig{Name: "ethereum.mainnet", ChainID: 1}
	c := Config{Name: "signals.euro-fx"}
	want := map[string]identity.ID{
		"stable id": o.StableID(), "content hash, of role `oracle`, without anything else": o.ContentHash(), "stream id of `ticks`": o.StreamID("ticks"),
		"LATTICE": l.Root(), "lattice id, all organisms without anything": l.ID(),
		"COALITION": c.Seed(), "COALITION_ROOT": c.Root(), "coalition id": c.ID(), "retirement policy, the default of 24 h and 7 d": DefaultRetirement().Fingerprint(),
	}
	found := 0
	for line := range strings.Lines(string(b)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), " | ")
		if len(cells) != 2 {
			continue
		}
		if id, ok := want[strings.TrimSpace(cells[0])]; ok {
			found++
			if got := strings.Trim(cells[1], "` "); got != id.String() {
				t.Errorf("%s: %s in the document, %s in the code", cells[0], got, id)
			}
		}
	}
	if found != len(want) {
		t.Errorf("%d examples in the document, %d are known", found, len(want))
	}
}
