//go:build !race

package engine_test

// rounds is how often a test does something that is the same each time.
func rounds(n int) int { return n }
