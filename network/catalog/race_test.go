//go:build race

package catalog

// nodes scales a simulation: the race detector makes it ten times slower, and one
// goroutine has nothing to race.
func nodes(n int) int { return n / 2 }
