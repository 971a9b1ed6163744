// Package admin is what operators and their machines ask of a running node, on a
// listener of its own that is meant for loopback:
//
//	/healthz      200: the process is alive
//	/readyz       200: every group has a leader and this node has caught up; else
//	              503 with a line for each group that is not there yet
//	/metrics      Prometheus: mosaik_*, and the Go runtime's go_* and process_*
//	/debug/pprof  profiles
//
// Nothing is registered with the process: no default registry, no default mux.
//
// The package starts no goroutines.
package admin
