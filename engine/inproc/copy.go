package inproc

import (
	"bytes"
	"maps"

	pb "github.com/lni/dragonboat/v4/raftpb"
)

// The functions of this file copy what arrives down to the last byte, as going
// through the wire format would, at the price of the bytes alone. Like the wire
// format they leave out the private fields of a snapshot, which count references
// on the sender's side. copy_test.go holds them to the wire format.

// Estimates of what a message and an entry cost beside their payload, in bytes.
// They keep a queue of empty messages from counting as nothing.
const (
	messageSize = 256
	entrySize   = 96
)

// batchSize returns about how many bytes b occupies.
func batchSize(b *pb.MessageBatch) int {
	size := len(b.Requests) * messageSize
	for i := range b.Requests {
		entries := b.Requests[i].Entries
		size += len(entries) * entrySize
		for j := range entries {
			size += len(entries[j].Cmd)
		}
	}
	return size
}

func copyBatch(b pb.MessageBatch) pb.MessageBatch {
	requests := make([]pb.Message, len(b.Requests))
	for i := range b.Requests {
		requests[i] = b.Requests[i]
		requests[i].Entries = copyEntries(b.Requests[i].Entries)
		requests[i].Snapshot = copySnapshot(&b.Requests[i].Snapshot)
	}
	b.Requests = requests
	return b
}

// copyEntries puts the payloads of a message, which live and die together in the
// receiver's log, into one piece of memory.
func copyEntries(entries []pb.Entry) []pb.Entry {
	if len(entries) == 0 {
		return nil
	}
	size := 0
	for i := range entries {
		size += len(entries[i].Cmd)
	}
	payloads := make([]byte, 0, size)
	copied := make([]pb.Entry, len(entries))
	for i := range entries {
		copied[i] = entries[i]
		if len(entries[i].Cmd) == 0 {
			copied[i].Cmd = nil
			continue
		}
		start := len(payloads)
		payloads = append(payloads, entries[i].Cmd...)
		copied[i].Cmd = payloads[start:len(payloads):len(payloads)]
	}
	return copied
}

func copySnapshot(s *pb.Snapshot) pb.Snapshot {
	return pb.Snapshot{
		Filepath:    s.Filepath,
		FileSize:    s.FileSize,
		Index:       s.Index,
		Term:        s.Term,
		Membership:  copyMembership(&s.Membership),
		Files:       copySnapshotFiles(s.Files),
		Checksum:    bytes.Clone(s.Checksum),
		Dummy:       s.Dummy,
		ShardID:     s.ShardID,
		Type:        s.Type,
		Imported:    s.Imported,
		OnDiskIndex: s.OnDiskIndex,
		Witness:     s.Witness,
	}
}

func copyMembership(m *pb.Membership) pb.Membership {
	return pb.Membership{
		ConfigChangeId: m.ConfigChangeId,
		Addresses:      maps.Clone(m.Addresses),
		Removed:        maps.Clone(m.Removed),
		NonVotings:     maps.Clone(m.NonVotings),
		Witnesses:      maps.Clone(m.Witnesses),
	}
}

func copySnapshotFiles(files []*pb.SnapshotFile) []*pb.SnapshotFile {
	if len(files) == 0 {
		return nil
	}
	copied := make([]*pb.SnapshotFile, len(files))
	for i, file := range files {
		f := copySnapshotFile(file)
		copied[i] = &f
	}
	return copied
}

func copySnapshotFile(f *pb.SnapshotFile) pb.SnapshotFile {
	copied := *f
	copied.Metadata = bytes.Clone(f.Metadata)
	return copied
}

func copyChunk(c pb.Chunk) pb.Chunk {
	c.Data = bytes.Clone(c.Data)
	c.Membership = copyMembership(&c.Membership)
	c.FileInfo = copySnapshotFile(&c.FileInfo)
	return c
}
