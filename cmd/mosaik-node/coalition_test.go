package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestCoalitionPage runs the commands that the page about coalitions shows, over the file
// it shows, and compares what they print.
func TestCoalitionPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/coalition.md")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	t.Chdir(dir)
	ran := 0
	for i, block := range strings.Split(string(page), "```") {
		if i%2 == 0 {
			continue // beside the blocks
		}
		kind, text, _ := strings.Cut(block, "\n")
		if kind == "toml" {
			if err := os.WriteFile(filepath.Join(dir, "coalition.toml"), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			continue
		}
		for _, part := range strings.Split(text, "$ ")[1:] {
			line, want, _ := strings.Cut(part, "\n")
			var out, errOut bytes.Buffer
			if code := run(t.Context(), strings.Fields(line)[1:], nil, &out, &errOut); code != exitOK || out.String() != want {
				t.Errorf("%s: exit code %d, %sit prints\n%sthe page has\n%s", line, code, &errOut, &out, want)
			}
			ran++
		}
	}
	if ran != 4 {
		t.Errorf("the page shows %d commands", ran)
	}
}
