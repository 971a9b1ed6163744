//go:build race

package inproc_test

import "testing"

// inBubble runs f in real time: the race detector itself breaks down when as many
// timers as a Raft host has run in a bubble (golang.org/issue/78156).
func inBubble(t *testing.T, f func(*testing.T)) { f(t) }
