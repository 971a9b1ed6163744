// Package engine keeps replicated logs: groups of nodes agree on commits by Raft
// and each keeps them on its own store, from where they are read, followed and
// replayed.
//
// # Where to read
//
//	engine.go    Open and Close: what a node consists of, in the order it is started
//	write.go     the life of a write on the node that makes it: batch, proposal, receipt
//	apply.go     the life of a write on every node: from agreed entry to commit
//	read.go      commits by number, records by key and position, waiting for more
//	index.go     how a record is found: postings, and how little of them is written
//	layout.go    every key and row of the store
//	views.go     what machines have folded: rows as of any commit
//	witness.go   how a replica that has come to other bytes is found and stopped
//	refold.go    views built anew from the log
//	lead.go      who leads: preference and transfer
//	load.go      what Open finds again
//	raft.go      the wall around the Raft library, with raftmembers.go
//	segments.go  what is known of sealed segments; seal.go: how they come to be
//	archive.go   commits that are not in the store any more, and who has what of them;
//	             scrub.go: lost and rotten shards are found and built anew
//	rejoin.go    a member comes back without its disk
//	transfer.go  what a member that lags behind the Raft log is offered; sync.go: how
//	             it catches up with that
//	export.go    a group's history out of a store, and into one
//	store.go     pebble; storefile.go: what the directory is; space.go: full disks
//
// raftlog is the log Raft keeps its entries in, inproc a network inside one
// process, cluster several nodes on it.
//
// # What is promised
//
// An acknowledged append is durable on a majority: written to the Raft log and
// fsynced there. The store itself is written without a log and without fsync; it
// is a cache of the Raft log's prefix that becomes durable when pebble flushes
// it, and the Raft log forgets nothing before that. After a crash the store is
// some earlier state, complete and consistent, and Raft plays the rest again.
//
// Every replica builds the same commits, byte for byte: apply.go is a function
// of the state and the entries alone.
//
// # Goroutines
//
//	writer.runSlot       Options.InFlight per group: one batch each through Raft
//	Group.runWitness     one per group: commits this replica's votes on digests
//	Group.runSeal        one per group: seals segments, keeps their shards, archives
//	Engine.runScrub      one: reads this node's shards and mends them
//	Group.runMembers     one per group: follows the log of members; the leader's does what
//	                     follows from it
//	Group.runPromote     one per group, on a node that has joined, or come back without its
//	                     disk: gets its vote
//	runWrite             one while a segment is coded: its bytes, into a pipe
//	runStop              one during a state sync: ends it when the Raft library wants
//	syncing.runBring     one during a state sync: brings the next segment
//	Engine.runTrim       one: lets the Raft log forget what the store has
//	Engine.runYield      one, on a node that does not want to lead: hands the lead over
//	Engine.runDrain      one, during Close: waits for the writers
//	store.runClose       one, during Close: flushes and closes pebble
//	spaceWatch.runSpaceWatch  one: free space of the file system
//
// Close waits for all of them, and for the libraries' own. The applier is one of
// the Raft library's goroutines, never two at a time for a group.
//
// # Locks, in the order in which they may be taken
//
//	writer.submit     proposals leave in order; held while waiting for a batch
//	writer.mu         the open batch; never held during IO
//	replica.applying  held while entries are applied, and while views are built anew
//	served.mu         held while an object is coded for members that ask
//	sealed.mu         what is known of segments
//	replica.mu        what scanners see; never held during IO
//	raftHost.mu       held for reading during the library's short calls
//	leaderWatch.mu    who waits for another leader
//	memberWatch.mu    who the members are
//	Engine.mu         open views of the store, and whether it is closing
package engine
