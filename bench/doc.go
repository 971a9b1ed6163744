// Package bench measures mosaik against the machine it runs on and against the
// systems it could be replaced by, in one session, so that the ratios mean
// something. It is a library without global state; mosaik-node bench is its
// command line, and docs/bench/README.md says how to repeat the figures and what
// each row is about.
//
// # Where to read
//
//	config.go      what can be asked for
//	run.go         one session: runs, rows, trials, in which order
//	load.go        the workload of an append row, the same for every subject
//	mosaik.go      our nodes as a subject
//	dragonboat.go  the Raft library alone, with a machine that does nothing
//	pebble.go      pebble alone
//	machine.go     the disk alone
//	appends.go, beside.go, reads.go, sizes.go, keys.go, open.go: the rows about logs
//	maps.go, mapreads.go, state.go: the rows about maps
//	budget.go      the table: whom each figure stands against, and what is demanded
//	report.go      the JSON document, merging several, and that of bench/peers
//	table.go       the same for people
//
// # Words
//
// A row is what is measured, a workload one way of measuring it, a subject who is
// measured. A trial is one subject under one workload, once; it starts from an
// empty directory, or a filled one that is opened again.
//
// # Goroutines
//
//	loadRun.runCaller     one for each caller of a load; load.run waits for them
//	writes.runWriter      one for each file of the disk alone; writes.run waits
//	creation.runCreator   the callers of the row "key"; namedStreams waits
//	auditor.runAudits     one in the row "beside"; besideTrials waits
//
// Whatever is opened for a trial is closed before the trial ends.
package bench
