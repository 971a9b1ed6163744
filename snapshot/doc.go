// Package snapshot makes history cheap to keep and safe to fetch from anybody. It
// defines sealed segments, states, how both are cut into shards, and the manifest
// that says what every part of them hashes to. It is bytes in, bytes out: what
// is sealed when, who keeps which shard, and what is fetched from whom is the
// engine's business.
//
// # Reading the source
//
//	coding.go    Geometry, Coding, Encoder: an object of bytes becomes K+M shards
//	object.go    Object: an object read from any K shards, each cell checked
//	segment.go   Boundary, SegmentWriter, Segment: a run of commits
//	state.go     StateWriter, ReadState: the rows of all views as of a commit
//	manifest.go  Manifest: what is committed of a sealed segment
//	peers.go     Request, Peers: shards that other members have
//	fetch.go     Fetcher: an object from several members at once
//	export.go    ExportWriter, ReadExport: a group's history in one file
//
// # Who is believed
//
// Nobody but the manifest, which the group has committed. A cell is compared with
// the hash that its shard's list has for it, the list with the shard's root in
// the manifest, the object with its hash there. A commit of a segment is compared
// with itself, and where it is the last one with the manifest's digest, so with
// the chain of the group; the rows of a state with the state in the header of the
// commit they are as of.
//
// The bytes are drawn in docs/format/segment.md, which a test compares with the
// code.
//
// # Goroutines
//
//	runPeer      one per member that a Fetcher asks, until the object is complete
package snapshot
