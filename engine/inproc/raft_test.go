package inproc_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/lni/dragonboat/v4"
	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/logger"
	"github.com/lni/dragonboat/v4/raftio"
	"github.com/lni/dragonboat/v4/statemachine"

	"github.com/mosaik-engine/mosaik/engine/inproc"
)

const shard = 1

// TestRaftOverNetwork runs three Raft hosts, whole, over a Network that loses,
// delays, repeats and reorders: 100 proposals, in the middle of which the leader
// is cut off for a while, and another host is closed and catches up by snapshot.
//
// The hosts live in a bubble of simulated time. It passes only while all of them
// wait, so that a slow machine causes no elections and a long delay costs nothing.
func TestRaftOverNetwork(t *testing.T) {
	for _, name := range []string{"config", "dragonboat", "logdb", "pebblekv", "raft", "registry", "rsm", "server", "transport", "utils"} {
		logger.GetLogger(name).SetLevel(logger.CRITICAL)
	}
	for seed := range int64(3) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			inBubble(t, func(t *testing.T) { runRaft(t, seed) })
		})
	}
}

func runRaft(t *testing.T, seed int64) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	c := newCluster(t, inproc.Options{Seed: seed})
	c.net.SetFault(inproc.Fault{
		Drop: 0.02, Duplicate: 0.03, Reorder: 0.03, DelayMax: 2 * time.Millisecond,
	})

	first := c.leader(ctx, 0)
	c.propose(ctx, first, 0, 25)

	// The others elect one of themselves. The leader that is cut off goes on
	// believing in itself, and learns from them once it is back.
	c.net.Isolate(c.addresses[first])
	second := c.leader(ctx, 1<<first)
	c.propose(ctx, second, 25, 50)
	c.net.Heal()
	c.wantEverywhere(ctx, 50)

	// A host that is closed and comes back under its address.
	third := 3 - first - second
	c.hosts[third].Close()
	c.propose(ctx, c.leader(ctx, 1<<third), 50, 75)
	// Compact the log, so that the one that was away has to get a snapshot.
	for i, host := range c.hosts {
		if i == third {
			continue
		}
		c.retry(ctx, func(ctx context.Context) error {
			_, err := host.SyncRequestSnapshot(ctx, shard, dragonboat.SnapshotOption{OverrideCompactionOverhead: true, CompactionOverhead: 1})
			return err
		})
	}
	chunks := c.net.Stats().Chunks
	c.start(third)
	c.propose(ctx, c.leader(ctx, 0), 75, 100)
	c.wantEverywhere(ctx, 100)
	if c.net.Stats().Chunks == chunks {
		t.Fatal("the restarted host got no snapshot")
	}
	if s := c.net.Stats(); s.Cut == 0 || s.Dropped == 0 || s.Duplicated == 0 || s.Reordered == 0 {
		t.Fatalf("the faults did not happen: %+v", s)
	}
}

// cluster is three hosts, each a replica of one shard whose state is a set.
type cluster struct {
	t         *testing.T
	net       *inproc.Network
	addresses []string
	dirs      []string
	hosts     []*dragonboat.NodeHost

	// What each host last heard about the leader, and a token when that changes.
	// GetLeaderID would not do: it learns later than LeaderUpdated is called.
	mu      sync.Mutex
	views   []raftio.LeaderInfo
	changed chan struct{}
}

func newCluster(t *testing.T, opts inproc.Options) *cluster {
	c := &cluster{
		t:         t,
		net:       inproc.New(opts),
		addresses: []string{"ant", "bee", "cat"},
		hosts:     make([]*dragonboat.NodeHost, 3),
		views:     make([]raftio.LeaderInfo, 3),
		changed:   make(chan struct{}, 1),
	}
	for i := range c.hosts {
		c.dirs = append(c.dirs, t.TempDir())
		c.start(i)
	}
	t.Cleanup(func() {
		for _, host := range c.hosts {
			host.Close()
		}
	})
	return c
}

// start opens host i on what its directory holds.
func (c *cluster) start(i int) {
	c.t.Helper()
	nodeConfig := config.NodeHostConfig{
		NodeHostDir:       c.dirs[i],
		RTTMillisecond:    5,
		RaftAddress:       c.addresses[i],
		RaftEventListener: c,
	}
	nodeConfig.Expert.LogDB = config.GetTinyMemLogDBConfig()
	nodeConfig.Expert.TransportFactory = c.net.Transport(c.addresses[i])
	host, err := dragonboat.NewNodeHost(nodeConfig)
	if err != nil {
		c.t.Fatal(err)
	}
	c.hosts[i] = host
	members := make(map[uint64]string)
	for j, address := range c.addresses {
		members[uint64(j+1)] = address
	}
	err = host.StartReplica(members, false,
		func(uint64, uint64) statemachine.IStateMachine { return &setMachine{} },
		config.Config{
			ShardID: shard, ReplicaID: uint64(i + 1), ElectionRTT: 20, HeartbeatRTT: 2,
			CheckQuorum: true, PreVote: true,
		})
	if err != nil {
		c.t.Fatal(err)
	}
}

// LeaderUpdated implements raftio.IRaftEventListener.
func (c *cluster) LeaderUpdated(info raftio.LeaderInfo) {
	c.mu.Lock()
	c.views[info.ReplicaID-1] = info
	c.mu.Unlock()
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

// leader waits until a host outside the set except, given as bits, leads in the
// eyes of two such hosts, and returns its number.
func (c *cluster) leader(ctx context.Context, except int) int {
	c.t.Helper()
	for {
		votes := make(map[raftio.LeaderInfo]int)
		c.mu.Lock()
		for i, view := range c.views {
			if except&(1<<i) == 0 && view.LeaderID != raftio.NoLeader && except&(1<<(view.LeaderID-1)) == 0 {
				view.ReplicaID = 0 // count by term and leader
				votes[view]++
			}
		}
		c.mu.Unlock()
		for view, count := range votes {
			if count >= 2 {
				return int(view.LeaderID - 1)
			}
		}
		select {
		case <-c.changed:
		case <-ctx.Done():
			c.t.Fatal("no leader")
		}
	}
}

// propose adds from..to-1 to the set through host i, each until it is there.
func (c *cluster) propose(ctx context.Context, i int, from, to uint64) {
	c.t.Helper()
	session := c.hosts[i].GetNoOPSession(shard)
	for n := from; n < to; n++ {
		cmd := binary.LittleEndian.AppendUint64(nil, n)
		c.retry(ctx, func(ctx context.Context) error {
			_, err := c.hosts[i].SyncPropose(ctx, session, cmd)
			return err
		})
	}
}

// retry calls again as long as the shard says that it may: the faults take
// messages, so any call may run into its deadline, and a host without a leader
// turns every call down at once, which is why there is a pause.
func (c *cluster) retry(ctx context.Context, call func(context.Context) error) {
	c.t.Helper()
	for {
		attempt, cancel := context.WithTimeout(ctx, time.Second)
		err := call(attempt)
		cancel()
		if err == nil {
			return
		}
		if ctx.Err() != nil || !dragonboat.IsTempError(err) && err != context.DeadlineExceeded {
			c.t.Fatal(err)
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// wantEverywhere reads the set at every host and wants 0..count-1.
func (c *cluster) wantEverywhere(ctx context.Context, count uint64) {
	c.t.Helper()
	for i, host := range c.hosts {
		c.retry(ctx, func(ctx context.Context) error {
			got, err := host.SyncRead(ctx, shard, nil)
			if err != nil {
				return err
			}
			if got := got.([]uint64); uint64(len(got)) != count || got[count-1] != count-1 {
				c.t.Fatalf("%s holds %d", c.addresses[i], got)
			}
			return nil
		})
	}
}

// setMachine is the sorted set of the numbers proposed, so that a proposal made
// twice because its answer was lost does no harm.
type setMachine struct{ numbers []uint64 }

func (m *setMachine) Update(e statemachine.Entry) (statemachine.Result, error) {
	n := binary.LittleEndian.Uint64(e.Cmd)
	if at, found := slices.BinarySearch(m.numbers, n); !found {
		m.numbers = slices.Insert(m.numbers, at, n)
	}
	return statemachine.Result{Value: n}, nil
}

func (m *setMachine) Lookup(any) (any, error) { return slices.Clone(m.numbers), nil }

func (m *setMachine) SaveSnapshot(w io.Writer, _ statemachine.ISnapshotFileCollection, _ <-chan struct{}) error {
	return binary.Write(w, binary.LittleEndian, m.numbers)
}

func (m *setMachine) RecoverFromSnapshot(r io.Reader, _ []statemachine.SnapshotFile, _ <-chan struct{}) error {
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	m.numbers = make([]uint64, len(b)/8)
	if _, err := binary.Decode(b, binary.LittleEndian, m.numbers); err != nil {
		return fmt.Errorf("snapshot of %d bytes: %w", len(b), err)
	}
	return nil
}

func (m *setMachine) Close() error { return nil }
