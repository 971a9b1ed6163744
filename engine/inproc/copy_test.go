package inproc

import (
	"reflect"
	"testing"

	pb "github.com/lni/dragonboat/v4/raftpb"
	"pgregory.net/rapid"
)

// The wire format is the reference: a copy equals what encoding and decoding
// would have delivered, and shares no memory with the original.

func TestCopyBatchEqualsWire(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sent := pb.MessageBatch{
			DeploymentId:  rapid.Uint64().Draw(t, "deployment"),
			SourceAddress: rapid.String().Draw(t, "source"),
			BinVer:        rapid.Uint32().Draw(t, "version"),
			Requests:      rapid.SliceOfN(rapid.Custom(drawMessage), 0, 4).Draw(t, "requests"),
		}
		encoded, err := sent.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		var want pb.MessageBatch
		if err := want.Unmarshal(encoded); err != nil {
			t.Fatal(err)
		}
		got := copyBatch(sent)
		scrub(reflect.ValueOf(&sent))
		if got, want := normal(got), normal(want); !reflect.DeepEqual(got, want) {
			t.Fatalf("copied\n%+v\nwant\n%+v", got, want)
		}
	})
}

func TestCopyChunkEqualsWire(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sent := pb.Chunk{
			ShardID: rapid.Uint64().Draw(t, "shard"), ReplicaID: rapid.Uint64().Draw(t, "replica"),
			From: rapid.Uint64().Draw(t, "from"), ChunkId: rapid.Uint64().Draw(t, "id"),
			ChunkSize: rapid.Uint64().Draw(t, "size"), ChunkCount: rapid.Uint64().Draw(t, "count"),
			Data:  rapid.SliceOf(rapid.Byte()).Draw(t, "data"),
			Index: rapid.Uint64().Draw(t, "index"), Term: rapid.Uint64().Draw(t, "term"),
			Membership: drawMembership(t), Filepath: rapid.String().Draw(t, "path"),
			FileSize: rapid.Uint64().Draw(t, "file size"), DeploymentId: rapid.Uint64().Draw(t, "deployment"),
			FileChunkId: rapid.Uint64().Draw(t, "file chunk"), FileChunkCount: rapid.Uint64().Draw(t, "file chunks"),
			HasFileInfo: rapid.Bool().Draw(t, "has file"), FileInfo: drawFile(t),
			BinVer: rapid.Uint32().Draw(t, "version"), OnDiskIndex: rapid.Uint64().Draw(t, "on disk"),
			Witness: rapid.Bool().Draw(t, "witness"),
		}
		encoded, err := sent.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		var want pb.Chunk
		if err := want.Unmarshal(encoded); err != nil {
			t.Fatal(err)
		}
		got := copyChunk(sent)
		scrub(reflect.ValueOf(&sent))
		if got, want := normal(got), normal(want); !reflect.DeepEqual(got, want) {
			t.Fatalf("copied\n%+v\nwant\n%+v", got, want)
		}
	})
}

func drawMessage(t *rapid.T) pb.Message {
	return pb.Message{
		Type: pb.MessageType(rapid.IntRange(0, 26).Draw(t, "type")),
		To:   rapid.Uint64().Draw(t, "to"), From: rapid.Uint64().Draw(t, "from"),
		ShardID: rapid.Uint64().Draw(t, "shard"), Term: rapid.Uint64().Draw(t, "term"),
		LogTerm: rapid.Uint64().Draw(t, "log term"), LogIndex: rapid.Uint64().Draw(t, "log index"),
		Commit: rapid.Uint64().Draw(t, "commit"), Reject: rapid.Bool().Draw(t, "reject"),
		Hint: rapid.Uint64().Draw(t, "hint"), HintHigh: rapid.Uint64().Draw(t, "hint high"),
		Entries: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) pb.Entry {
			return pb.Entry{
				Term: rapid.Uint64().Draw(t, "term"), Index: rapid.Uint64().Draw(t, "index"),
				Type: pb.EntryType(rapid.IntRange(0, 3).Draw(t, "type")), Key: rapid.Uint64().Draw(t, "key"),
				ClientID: rapid.Uint64().Draw(t, "client"), SeriesID: rapid.Uint64().Draw(t, "series"),
				RespondedTo: rapid.Uint64().Draw(t, "responded"), Cmd: rapid.SliceOf(rapid.Byte()).Draw(t, "cmd"),
			}
		}), 0, 5).Draw(t, "entries"),
		Snapshot: pb.Snapshot{
			Filepath: rapid.String().Draw(t, "path"), FileSize: rapid.Uint64().Draw(t, "size"),
			Index: rapid.Uint64().Draw(t, "index"), Term: rapid.Uint64().Draw(t, "term"),
			Membership: drawMembership(t),
			Files: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) *pb.SnapshotFile {
				f := drawFile(t)
				return &f
			}), 0, 3).Draw(t, "files"),
			Checksum: rapid.SliceOf(rapid.Byte()).Draw(t, "sum"), Dummy: rapid.Bool().Draw(t, "dummy"),
			ShardID: rapid.Uint64().Draw(t, "shard"), Type: pb.StateMachineType(rapid.IntRange(0, 3).Draw(t, "machine")),
			Imported: rapid.Bool().Draw(t, "imported"), OnDiskIndex: rapid.Uint64().Draw(t, "on disk"),
			Witness: rapid.Bool().Draw(t, "witness"),
		},
	}
}

func drawMembership(t *rapid.T) pb.Membership {
	names := rapid.MapOfN(rapid.Uint64(), rapid.String(), 0, 3)
	return pb.Membership{
		ConfigChangeId: rapid.Uint64().Draw(t, "change"),
		Addresses:      names.Draw(t, "addresses"),
		Removed:        rapid.MapOfN(rapid.Uint64(), rapid.Bool(), 0, 3).Draw(t, "removed"),
		NonVotings:     names.Draw(t, "non-votings"),
		Witnesses:      names.Draw(t, "witnesses"),
	}
}

func drawFile(t *rapid.T) pb.SnapshotFile {
	return pb.SnapshotFile{
		Filepath: rapid.String().Draw(t, "file path"), FileSize: rapid.Uint64().Draw(t, "file size"),
		FileId: rapid.Uint64().Draw(t, "file id"), Metadata: rapid.SliceOf(rapid.Byte()).Draw(t, "metadata"),
	}
}

// scrub overwrites everything reachable from v, which shows in whatever shares
// memory with it.
func scrub(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			scrub(v.Elem())
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Field(i).CanSet() {
				scrub(v.Field(i))
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			scrub(v.Index(i))
		}
	case reflect.Map:
		v.Clear()
	default:
		v.SetZero()
	}
}

// normal makes nothing of the difference between nil and empty, which the wire
// format does not keep.
func normal[T any](v T) T {
	dropEmpty(reflect.ValueOf(&v))
	return v
}

func dropEmpty(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			dropEmpty(v.Elem())
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Field(i).CanSet() {
				dropEmpty(v.Field(i))
			}
		}
	case reflect.Slice, reflect.Map:
		if v.Len() == 0 {
			v.SetZero()
		} else if v.Kind() == reflect.Slice {
			for i := range v.Len() {
				dropEmpty(v.Index(i))
			}
		}
	}
}
