package join

import (
	"encoding/hex"
	"os"
	"strings"
	"testing"
)

// TestDocumented: docs/format/agent.md shows what the code writes.
func TestDocumented(t *testing.T) {
	b, err := os.ReadFile("../../docs/format/agent.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"\n" + hex.EncodeToString(Due(7)) + "\n", "At most 256 members, 1024 events", "1 stall, 2 partial", "1 open, 2 complete, 3 missing, 4 stalled, 5 refused",
	} {
		if !strings.Contains(string(b), want) {
			t.Errorf("the document lacks %q", want)
		}
	}
	if [...]int{MaxMembers, MaxEvents, int(Stall), int(Partial), int(Open), int(Complete), int(Missing), int(Stalled), int(Refused)} != [...]int{256, 1024, 1, 2, 1, 2, 3, 4, 5} {
		t.Error("the code has other numbers than the document")
	}
}
