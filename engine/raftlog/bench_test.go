package raftlog

import (
	"fmt"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	pb "github.com/lni/dragonboat/v4/raftpb"
)

// BenchmarkSave measures SaveRaftState of one entry with compaction behind it, on the disk under the temporary directory
// and in memory, from 1 and from 4 goroutines (one shard each).
func BenchmarkSave(b *testing.B) {
	for _, place := range []string{"disk", "mem"} {
		for _, size := range []int{128, 64 << 10} {
			for _, savers := range []int{1, 4} {
				b.Run(fmt.Sprintf("%s/%d/savers=%d", place, size, savers), func(b *testing.B) {
					var fs vfs.FS = vfs.NewMem()
					dir := "/bench"
					if place == "disk" {
						fs, dir = vfs.Default, b.TempDir()
					}
					l, err := Open(dir, Options{FS: fs})
					if err != nil {
						b.Fatal(err)
					}
					for s := range savers { // the first file is prepared meanwhile
						if err := l.SaveBootstrapInfo(uint64(s), 1, pb.Bootstrap{}); err != nil {
							b.Fatal(err)
						}
					}
					b.SetBytes(int64(size))
					b.ReportAllocs()
					b.ResetTimer()
					before := l.Metrics()
					var wg sync.WaitGroup
					for s := range savers {
						wg.Go(func() { benchSaver(b, l, uint64(s), b.N/savers+1, size) })
					}
					wg.Wait()
					b.StopTimer()
					m := l.Metrics()
					b.ReportMetric(float64(m.Syncs-before.Syncs)/float64(b.N), "syncs/op")
					b.ReportMetric(float64((m.SyncTime-before.SyncTime).Microseconds())/float64(max(1, m.Syncs-before.Syncs)), "us/sync")
					if err := l.Close(); err != nil {
						b.Fatal(err)
					}
				})
			}
		}
	}
}

func benchSaver(b *testing.B, l *Log, shard uint64, n, size int) {
	cmd := make([]byte, size)
	ents := make([]pb.Entry, 1)
	us := make([]pb.Update, 1)
	for i := uint64(1); i <= uint64(n); i++ {
		ents[0] = pb.Entry{Term: 1, Index: i, Key: i << 40, Cmd: cmd}
		us[0] = pb.Update{ShardID: shard, ReplicaID: 1, State: pb.State{Term: 1, Vote: 1, Commit: i - 1}, EntriesToSave: ents}
		if err := l.SaveRaftState(us, 1); err != nil {
			b.Error(err)
			return
		}
		if i%1000 == 0 {
			if err := l.RemoveEntriesTo(shard, 1, i-500); err != nil {
				b.Error(err)
				return
			}
		}
	}
}
