// Package log is the format of mosaik's logs and the typed views over them.
//
// # Words
//
// A group is a set of peers that agree on one chain of commits. A key is a
// 32-byte ID that names one log in a group. A log is made of records, payloads
// numbered by a dense seq from 1. A commit is what one agreement adds: records
// under one or more keys, numbered densely per group from 1 and chained by
// digest. A run is consecutive records of one key inside one commit, and the
// unit of reading. A pointer is evidence: it names a commit, or one record in it, by
// number and digest. A position says where in a log reading starts.
//
// # Reading the source
//
//	errors.go     limits and errors
//	digest.go     Digest and Sum, the hash of everything here
//	commit.go     Header and Commit: what is chained
//	body.go       Run: what is in a commit
//	pointer.go    Pointer, its text form
//	position.go   Position, its text form, and what it takes for a pointer to hold
//	filter.go     Filter: which records a scan lets pass
//	query.go      Query, and the seam: Scanner, Writer, Head
//	future.go     Future: the outcome of an append that was not waited for
//	memory.go     Memory: the whole in one file, as a model and for tests
//	codec.go      Codec: values to payloads and back
//	directory.go  the log that names the other logs
//	stream.go     Stream: a log of typed values
//	view.go       View, and the seam of collections: Store, GroupStore
//	machine.go    Machine, and Tx: what it works on
//	fold.go       Fold: from commits to rows, the same wherever a log is folded
//	guard.go      transactions
//	statehash.go  StateHash: the digest of all rows
//	keycodec.go   KeyCodec: keys to bytes in their order
//	collection.go what the collections share; map.go, set.go, vec.go, cell.go,
//	              once.go, queue.go: one each; txn.go: several at once
//
// The typed views know logs only through [Scanner] and [Writer], so the same
// StreamReader reads a live group, a replayed range, an archive and a remote
// peer.
//
// # Format
//
// All integers are little-endian, but a record's length, which is a uvarint
// (LEB128) in its shortest form. H is BLAKE3-256. docs/format/log.md says the
// same with a sentence for each field, and a test holds it to the code.
//
//	commit   +--------------------------------------+------------------------+
//	         | header, 149 bytes                    | body                   |
//	         +--------------------------------------+------------------------+
//
//	header   +---------+-------+--------+------+------+------+-------+---------+
//	         | version | group | number | time | prev | body | state | records |
//	         |    1    |  32   |   8    |  8   |  32  |  32  |  32   |    4    |
//	         +---------+-------+--------+------+------+------+-------+---------+
//
//	         digest = H(header)    body = H(body bytes)
//	         prev   = the digest of commit number-1, zeros for the first
//
//	body     +-----+-----+--
//	         | run | run | ...   records = the sum of their counts
//	         +-----+-----+--
//
//	run      +-----+-----------+-------+------+--------+--------+--
//	         | key | first seq | count | size | record | record | ...
//	         | 32  |     8     |   4   |  4   |      size bytes
//	         +-----+-----------+-------+------+--------+--------+--
//
//	record   +---------+---------+
//	         | length  | payload |
//	         | uvarint | length  |
//	         +---------+---------+
//
//	pointer  mosaik:<group hex>/<commit>@<digest hex>[/<key hex>/<seq>]
//
// The digest of a header names the commit and, through prev, all commits before
// it: two replicas that agree on one digest agree on the whole history. The body
// hash is a tree, so one record of a large body can be proven by itself.
//
// How commits and the index from keys to runs lie in the store is not part of
// this format: docs/format/store.md draws the pebble keys, engine/layout.go
// makes them.
//
// # Concurrency
//
// The package starts no goroutine. It takes no lock but the one inside [Memory],
// which is held for no longer than one append or one look at the log, and never
// while a caller's loop body runs.
package log
