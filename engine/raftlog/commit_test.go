package raftlog

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	pb "github.com/lni/dragonboat/v4/raftpb"
)

// TestCommitReachesSnapshot: a snapshot is of committed entries, so after a power cut the commit index is not below it,
// even if it was the last thing to change and stayed in memory.
func TestCommitReachesSnapshot(t *testing.T) {
	fs := vfs.NewCrashableMem()
	l := mustOpen(t, fs, Options{})
	save(t, l, 1, 1, 1, 10, 100) // durable with commit index 9
	for _, u := range []pb.Update{
		{ShardID: 1, ReplicaID: testReplica, State: pb.State{Term: 1, Vote: 1, Commit: 10}},
	} {
		if err := l.SaveRaftState([]pb.Update{u}, 1); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.SaveSnapshots([]pb.Update{{ShardID: 1, ReplicaID: testReplica, Snapshot: testSnapshot(1, 10, 1)}}); err != nil {
		t.Fatal(err)
	}
	left := fs.CrashClone(vfs.CrashCloneCfg{})
	mustClose(t, l)
	l = mustOpen(t, left, Options{})
	defer mustClose(t, l)
	ss, err := l.GetSnapshot(1, testReplica)
	if err != nil {
		t.Fatal(err)
	}
	rs, err := l.ReadRaftState(1, testReplica, ss.Index)
	if err != nil || rs.State.Commit < ss.Index {
		t.Fatalf("commit index %d with a snapshot at %d, %v", rs.State.Commit, ss.Index, err)
	}
}
