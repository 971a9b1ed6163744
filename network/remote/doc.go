// Package remote is how a node reads and writes groups that it is no member of.
//
// A [Service] is a node's part in it. It serves the groups that the node has to whom a
// [Policy] lets in, and it gives a [Group] for one that the node has not: a log.GroupStore
// over the group's replicas, on which streams, collections and transactions of package log
// work as on an engine's group. A producer is who appends to one, a consumer who follows
// it.
//
//   - An append goes to any replica, whose engine hands it to the group's leader. It is
//     sent once: when no answer comes the outcome is unknown, and the error is [ErrUnknown].
//   - A read goes to any replica, and reflects at least what the handle has seen before.
//   - A tail survives the loss of its connection and of its replica: it goes on at another,
//     exactly behind the last record that it has yielded. Where "the latest record" was is
//     settled when it begins, so nothing that comes while it is away is left out.
//   - Each answer is sent as far as who reads it has granted: its window. While it waits
//     nothing is held open or kept for it, so a consumer that is slow or dead holds up
//     nobody: no other consumer, no append, and no replica that applies.
//   - Whoever ends something says why in a word that both sides count
//     ([Service.Metrics]): that of a connection (network.Reason), one of this package, such
//     as [NoCapacity], or that of an error of the log.
//
// # Messages
//
// A connection of the protocol "mosaik/remote/1" carries channels, each a request of the
// side that has dialled and its answer. A message begins with its kind, 1 byte; integers
// are little-endian (docs/format/remote.md):
//
//	1 open    channel 4 | credit 4 | request          of who asks; channels ascend
//	2 credit  channel 4 | bytes 4                     of who asks: it has taken so many
//	3 cancel  channel 4 | word                        of who asks: it wants no more
//	4 data    channel 4 | 1 to 64 KiB of the answer
//	5 end     channel 4 | size 1 | word | text        "done" is the end of an answer
//	6 ping    8 bytes                                 of both sides
//	7 pong    the 8 bytes of the ping
//
// A request:
//
//	op 1 | group 32 | floor: commit 8, digest 32 | what the op needs
//
//	1 scan       key 32 | flags 1 | until 8 | filter: since 8, until 8, every 8 | position, text
//	2 rows       key 32 | consistency 1 | commit 8 | flags 1 | from | to
//	3 changes    key 32 | flags 1 | after 8
//	4 append     key 32 | count | payload of each
//	5 submit     conditions and commands (appendTransaction)
//	6 wait       pointer, text
//	7 sync
//	8 consumers  key 32 | count | tag 32 of each
//
// Sizes and counts in front of byte strings are uvarints in their shortest form. Flags:
// 1 it follows, 2 the filter has a since, 4 it has an until, 8 the range is reversed.
//
// The data of a channel are a stream of items, kind 1 | size 4 | content:
//
//	1 start    head: commit 8, digest 32, time 8 | commit 8 | from 8 | until 8
//	2 run      commit 8 | time 8 | digest 32 | run, as in a commit's body
//	3 row      version 8 | key | value
//	4 change   commit 8 | digest 32 | time 8 | cleared 1 | rows 4
//	5 row was  flags 1 | before 8 | key | old | new          flags: 1 it existed, 2 it exists
//	6 written  commit 8 | digest 32 | seq 8 | held 1 | failed 4 | results 4
//	7 result   bytes
//	8 peers    32 bytes of each
//
// An item lies within the credit that there is when it begins. What would not fit is
// cut: a run between records, a range between rows, a change between rows. What cannot be
// cut fits into the smallest window (MinWindow), so an answer always goes on once
// everything was taken.
//
// # What others can cost
//
// Of one connection who serves keeps the requests of 1024 channels, those of writes for
// 16 MiB, and for each channel what is being sent to it at the moment. Connections are
// bounded by the endpoint. Of one answer who asks keeps its window and one item. What is no
// message ends the connection as network.Malformed.
//
// # Goroutines
//
//	link.runPulse       one for each connection, at both sides: pings, pongs, and who may go on
//	dialled.runRead     one for each connection that this node has made
//	Group.runAppend     one for each append that is not waited for
//	Service.serveConn   on the endpoint's goroutine of an accepted connection
//	serving.runWrites   one for each accepted connection: hands on writes in their order
//	channel.runAnswer   one for each channel that reads
//	channel.runWritten  one for each channel that writes, from when its group has taken it
//	channel.runRefusal  one for each channel that is not opened
//
// Service.Close waits for all.
//
// # Locks
//
// dialled.sending, then Service.mu, then serving.mu or dialled.mu, then that of a channel
// or call, which are before those of a connection. Group.mu is taken alone, but GroupOptions.Find is
// called under it; link.mu is taken alone.
package remote
