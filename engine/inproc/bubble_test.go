//go:build !race

package inproc_test

import (
	"testing"
	"testing/synctest"
)

// inBubble runs f in simulated time.
func inBubble(t *testing.T, f func(*testing.T)) { synctest.Test(t, f) }
