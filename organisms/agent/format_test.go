package agent

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
	_, rest, _ := strings.Cut(string(b), "```step\n")
	block, _, _ := strings.Cut(rest, "```")
	s := Step{Source: 1, Observed: []byte("hi"), Answer: []byte("HI")}
	if have, want := hex.EncodeToString(s.body()), strings.ReplaceAll(block, "\n", ""); have != want {
		t.Errorf("a step is %s, the document says %s", have, want)
	}
	if !strings.Contains(string(b), "At most 64 sources, 262144 bytes observed, 65536 bytes") || MaxSources != 64 || MaxObserved != 262144 || MaxAnswer != 65536 {
		t.Error("the document has other limits than the code")
	}
}
