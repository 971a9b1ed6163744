//go:build race

package engine_test

import (
	"os"
	"runtime"
	"testing"
)

// rounds is how often a test does something that is the same each time: less often
// under the race detector, which makes it ten times as slow.
func rounds(n int) int { return (n + 3) / 4 }

// TestMain keeps the tests to one processor under the race detector, which breaks
// down when timers of one synctest bubble run on two at a time
// (golang.org/issue/78156). It needs no second one: it finds races by what is not
// ordered, not by what happens at once.
func TestMain(m *testing.M) {
	runtime.GOMAXPROCS(1)
	os.Exit(m.Run())
}
