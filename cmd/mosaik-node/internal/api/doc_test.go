package api

import (
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/mosaik-engine/mosaik/log"
)

// TestDocument holds docs/api.md against the code: its routes, its codes with
// their statuses, its kinds of frames, its limits.
func TestDocument(t *testing.T) {
	b, err := os.ReadFile("../../../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)

	var have, want []string
	for _, m := range regexp.MustCompile("(?m)^### `(.+)`$").FindAllStringSubmatch(text, -1) {
		have = append(have, m[1])
	}
	for _, r := range routes() {
		want = append(want, r.method+" "+r.path)
	}
	if !slices.Equal(have, want) {
		t.Errorf("the document has the routes\n%s\nthe server\n%s", strings.Join(have, "\n"), strings.Join(want, "\n"))
	}

	documented := map[string]int{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(\\w+)` \\| (\\d+) \\|").FindAllStringSubmatch(text, -1) {
		documented[m[1]], _ = strconv.Atoi(m[2])
	}
	codes := map[string]int{
		codeCorrupt: 500, codeInternal: 500,
		// statusError, wherever it is made
		"cross_origin": 403, "no_route": 404, "method": 405, "media_type": 415,
	}
	for _, c := range conditions {
		codes[c.code] = c.status
	}
	for code, status := range codes {
		if documented[code] != status {
			t.Errorf("code %s is %d, the document has %d", code, status, documented[code])
		}
		delete(documented, code)
	}
	for code := range documented {
		t.Errorf("the document has a code %s", code)
	}

	frames := map[int]string{frameRun: "a run", frameCommit: "a commit", frameIdle: "a sign of life", frameFailure: "an error", frameEnd: "the end", frameBytes: "bytes"}
	kinds := regexp.MustCompile(`(?m)^\| (\d) \| (.*) \|$`).FindAllStringSubmatch(text, -1)
	if len(kinds) != len(frames) {
		t.Errorf("%d kinds of frames are documented, there are %d", len(kinds), len(frames))
	}
	for _, m := range kinds {
		n, _ := strconv.Atoi(m[1])
		if frames[n] == "" || !strings.Contains(m[2], strings.TrimPrefix(frames[n], "the ")) {
			t.Errorf("kind %s is documented as %q, and is %q", m[1], m[2], frames[n])
		}
	}
	for _, s := range []string{`"` + frameMagic + `"`, strconv.Itoa(log.MaxPayload) + " bytes", strconv.Itoa(Window) + " records under way"} {
		if !strings.Contains(text, s) {
			t.Errorf("the document does not say %s", s)
		}
	}
}
