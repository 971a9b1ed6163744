// Package fuzz looks for what nobody thought of: it has the list of the fuzz
// targets of all packages, and a simulation of one group of three nodes under
// everything that nodes, disks and networks do to them.
//
// # Reading the source
//
//	targets.go   Targets: every decoder that has a fuzz target, and where it is
//	sim.go       Simulation: one run from start to verdict
//	disk.go      a node's disk, which can lose its power at any one change
//	nemesis.go   what happens to the nodes, the disks and the network
//	client.go    what the clients do, and the history of what they saw
//	judge.go     what must be true of a history and the log that came of it
//	views.go     clients of a map and a cell, and what must be true of those
//
// # The simulation
//
// Three nodes of package engine/cluster share an inproc.Network; each has a
// file system in memory that knows what was synced. Clients append and read at
// whatever node they like. Meanwhile the nemesis stops and starts nodes, cuts
// the power of one or all of them at a certain change of a file, takes the
// network apart, loses, delays, repeats and reorders messages. What a node said
// after its power was cut was never said: nobody can have heard it.
//
// Then everything heals, and the judge, which has the history of all calls and
// the log that came of them, wants that
//
//   - appends and reads of each key are linearizable (checked by porcupine); a
//     read is Group.Sync, then a scan of the key's log to its end;
//   - every acknowledged record is in the log, on every node, under its pointer,
//     and every record is there at most once; a call that was refused left
//     nothing behind, and one with an unknown outcome all of its records or none;
//   - what anybody ever read at a seq, or saw as the digest of a commit, is there
//     in the end: nothing that was shown is taken back;
//   - seqs are dense, and the appends that one caller made one after the other
//     stand in that order;
//   - all nodes have the same head, their audits (replay.Audit) and their own
//     checks (Engine.Check) are clean, their logs equal byte for byte, and so do
//     the digests of replays of random ranges;
//   - all of that once more after one more power cut of all nodes.
//
// With Simulation.Viewers some more clients write, remove, exchange and read the
// entries of a map and a cell, through the typed collections. Of these the judge
// wants that
//
//   - the calls on each entry, and those on the cell, are linearizable. Nothing
//     but what the callers saw is asked about them, not the log: a call with an
//     unknown outcome may have taken effect at any later time, or never;
//   - what anybody ever read as of a commit is what every node has as of that
//     commit in the end, and a value has one version: the commit it was
//     acknowledged with;
//   - all nodes have the same contents, as of the head and as of earlier commits.
//
// A seed fixes the plan: the calls, the faults and the randomness of disks and
// wire. It does not fix how the goroutines interleave, so a seed that failed may
// pass; run it again some times.
//
// A run may take place in a testing/synctest bubble, where waiting takes no
// time; it waits on channels and timers only.
//
// # Goroutines
//
// All end before Simulation.Run returns.
//
//	client.runClient     one per client: calls, one after the other
//	viewer.runViewer     one per client of the map and the cell: likewise
//	world.runFollower    one per life of a node: follows one key
package fuzz
