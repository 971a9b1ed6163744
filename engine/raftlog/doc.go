// Package raftlog keeps the Raft logs of all replicas of a node in one append-only log. It implements dragonboat's
// raftio.ILogDB and is the only thing a node syncs before it acknowledges a write.
//
// # Promise
//
// When SaveRaftState, SaveSnapshots, SaveBootstrapInfo, ImportSnapshot or RemoveNodeData return nil, what they were given
// survives a crash at any moment, torn writes included. Each update takes effect as a whole or not at all. Two things are
// written late, with the next record of their replica, the next file or Close:
//
//   - A State of which only Commit changed. The commit index is volatile in Raft: a replica that comes back with an older
//     one learns the newer from its leader, or as leader by committing an entry of its term. Entries are applied only after
//     they were saved, and a commit index is never written before the entries it covers, so it cannot point past the log.
//   - RemoveEntriesTo. A crash may bring dropped entries back; Raft never looks at them. Their space is not given away
//     before the drop is durable.
//
// After a failed write or sync nothing is acknowledged any more: the kernel may have dropped the pages it could not
// write, so a later sync that succeeds proves nothing.
//
// # Files
//
// A log is a sequence of files NNNNNNNN.rlog, numbered without a gap. Each is prepared in advance as a .spare: FileBytes
// of zeros, synced, so that a write into it changes no metadata and needs no space. A file starts with an open record and
// becomes full of update records; a log closed in order ends with a closed record.
//
//	00000007.rlog  [open: all replicas][update][update] ... [update]
//	00000008.rlog  [open: all replicas][update] ...          | zeros or bytes of an earlier life
//	00000003.spare  waits to become 00000009.rlog
//
//	record  = header meta item*
//
//	header    0        4    5     6       8        12      16
//	          | length |type|flags|metaLen| synced | sum   |      little-endian
//
//	item      0        4        8
//	          | length | sum    | data ...
//
//	update    meta  = shard replica [term vote commit] [first] entries [index]       uvarints
//	          items = [bootstrap] [snapshot] entry*
//	entry     data  = term index type key clientID seriesID respondedTo cmd          uvarints, then bytes
//
//	open      meta  = "mosaikrl" version:4 number:4 salt:8 prevEnd:8 replicas:4
//	          items = one per replica: ids, state, first, count, bootstrap, snapshot
//
// A sum is the CRC-32C of the header without it and the meta, or of an item's length and data, XORed with a value made of
// the file's number and random salt and of the offset. Bytes from a file's earlier life, or from another place, therefore
// never pass. Every entry has its own sum, so it is verified whenever it is read, and nothing is summed twice.
// docs/format/raftlog.md has every field.
//
// # Life of a file
//
// A file switch syncs the old file, writes the open record into a spare, syncs it, renames it to its number and syncs the
// directory; only then is anything written to it. The open record says what every replica is, so an older file is needed
// only for the live entries in it. Files are freed oldest first, once no live entry is left and the records that made its
// entries superfluous are durable; each is renamed to a spare (or deleted) and the directory synced before the next one.
// When more files are held than twice what the live entries need plus Options.MaxDeadFiles, the live entries of the oldest
// file are appended again and it is freed: an idle replica does not hold the files of busy ones.
//
// Open never continues a file. It reads, and the first write begins a new one; so nothing that follows a torn tail can
// come to life again behind records written over it.
//
// # Damage or crash
//
// Every record carries "synced", the offset below which its file was durable when it was written, and every file says in
// "prevEnd" how far its predecessor goes, which was durable then. Invalid bytes below a proven offset are damage: Open
// returns a *CorruptionError. Invalid bytes above it can only be a write that was never acknowledged: they are cut. In
// the newest file Open therefore looks through everything behind the first invalid record for a record that proves it
// durable. A log that was closed in order ends with a record that proves all before it. An open record is durable before
// its file has its name, so a file without one is always damaged. What cannot be told from a crash is damage to the last
// synced write of a log that was not closed, and the loss of its newest file.
//
// # Full disk
//
// No method returns ENOSPC. Options.OnFull is called when no spare can be made, while the current file still takes writes;
// a writer that fills it too waits. Entries that are dropped meanwhile free a file without any new space: their drop is
// written into a reserve kept at the end of each file.
//
// # Locks and goroutines
//
// Lock order: Log.life, Log.wmu, replica.mu, then one of fileTable.mu, replicaTable.mu, syncState.mu, sparePool.mu,
// spaceState.mu. No file is touched under any but life and wmu. Writers hold wmu while they write, not while they sync;
// wmu is held while a writer waits for space, so runSpares, which makes the space, never takes it.
//
//	goroutine   started by   does                                             ends
//	runSpares   Open         frees files, keeps a spare ready, calls OnFull   Close
//	runMover    Open         appends the live entries of old files again      Close
package raftlog
