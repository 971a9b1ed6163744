package engine_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/mosaik-engine/mosaik/engine/cluster"
	"github.com/mosaik-engine/mosaik/identity"
)

// TestRaftLogIsBounded writes many times what the Raft log is to keep. Its
// directory stays as large as it became at first, its files are used again, and
// so is the memory of its index. What is in the store stays.
func TestRaftLogIsBounded(t *testing.T) {
	for _, nodes := range []int{1, 3} {
		t.Run(fmt.Sprint("nodes=", nodes), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { raftLogIsBounded(t, nodes) })
		})
	}
}

func raftLogIsBounded(t *testing.T, nodes int) {
	const (
		keep    = 1 << 20
		size    = 10_000
		appends = keep / size // of a round
	)
	rounds := rounds(20)
	ctx := t.Context()
	fs := vfs.NewMem()
	o := smallBuffers(fs)
	o.RaftLogBytes = keep
	o.Spread = 2
	o.Events.BackgroundError = func(err error) { t.Error(err) }
	c, err := cluster.Open(cluster.Options{Nodes: nodes, Dir: "cluster", Engine: o})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	var low, high identity.ID // a key in each group
	low[31], high[0] = 1, 0xff
	idle, busy := c.Node(0).GroupFor(low), c.Node(0).GroupFor(high)
	if idle == busy {
		t.Fatal("both keys are in one group")
	}
	if _, err := idle.Append(ctx, low, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	var total int64
	for round := range rounds {
		for i := range appends {
			if _, err := c.Node(i%nodes).Append(ctx, high, make([]byte, size)); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(2 * time.Second) // trimmed meanwhile, if there is something to trim
		for i := range nodes {
			m := c.Node(i).Metrics().RaftLog
			// One to two windows stay for members that lag, a window being a round.
			if m.Entries > 3*appends || m.LiveBytes > 3*keep {
				t.Fatalf("round %d, node %d: %d entries of %d bytes are kept", round, i+1, m.Entries, m.LiveBytes)
			}
			files := map[string]int64{}
			listFiles(t, fs, c.Dir(i)+"/raft", files)
			var bytes int64
			for _, n := range files {
				bytes += n
			}
			// Up to twice what is kept, with what cannot be given back yet.
			if bytes > 8*keep {
				t.Fatalf("round %d, node %d: the directory has %d bytes", round, i+1, bytes)
			}
			if round == rounds-1 {
				total += m.BytesWritten
				if m.FilesRecycled == 0 {
					t.Errorf("node %d: no file was used again", i+1)
				}
			}
		}
	}
	if total < int64(nodes*rounds)*keep*9/10 {
		t.Errorf("only %d bytes were written", total)
	}
	for i := range nodes {
		if _, err := c.Node(i).Groups()[1].Sync(ctx); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Node(i).Check(ctx, nil); err != nil {
			t.Error(err)
		}
		if info, _ := c.Node(i).GroupFor(high).Key(high); info.Records != uint64(rounds*appends) {
			t.Errorf("node %d: %d records of %d", i+1, info.Records, rounds*appends)
		}
	}
}
