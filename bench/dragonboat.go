package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/lni/dragonboat/v4"
	"github.com/lni/dragonboat/v4/client"
	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/logger"
	"github.com/lni/dragonboat/v4/plugin/tan"
	sm "github.com/lni/dragonboat/v4/statemachine"

	"github.com/mosaik-engine/mosaik/engine/inproc"
	"github.com/mosaik-engine/mosaik/engine/raftlog"
)

// The Raft library alone, with a state machine that does nothing, on each of
// the stores its log can be kept in. The first two are the library's own.
const (
	subjectRaftPebble = "dragonboat-pebble" // its default, with one or two instances instead of sixteen
	subjectRaftTan    = "dragonboat-tan"    // its file log
	subjectRaftOurs   = "dragonboat-raftlog"
)

// The Raft library's clock, as the engine sets it (engine/raft.go), so that
// heartbeats cost both sides the same.
const (
	aloneTick       = 10 * time.Millisecond
	aloneElection   = 5
	memberTick      = 20 * time.Millisecond
	memberHeartbeat = 5
	memberElection  = 50
)

// proposeTimeout is how long the library may take over one proposal.
const proposeTimeout = 30 * time.Second

// bareRaft is the Raft library as a target. A proposal is the payloads of one
// append behind each other. It is made at the host that leads the group.
type bareRaft struct {
	hosts    []*dragonboat.NodeHost
	logs     []*raftlog.Log // with subjectRaftOurs; the hosts close them
	sessions []*client.Session
	leaders  []*dragonboat.NodeHost // by group
	cmd      chan []byte            // buffers for commands, of which the library makes a copy
}

var _ target = (*bareRaft)(nil)

// openRaft starts hosts with one replica of each group.
func openRaft(ctx context.Context, subject string, o nodeOptions) (*bareRaft, error) {
	for _, name := range []string{"raft", "rsm", "transport", "dragonboat", "logdb", "raftpb", "config", "settings",
		"server", "utils", "vfs", "registry", "id", "fileutil", "order", "tan", "pebblekv", "grpc", "feed"} {
		logger.GetLogger(name).SetLevel(logger.CRITICAL)
	}
	b := &bareRaft{cmd: make(chan []byte, 64)}
	if err := b.start(subject, o); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	if err := b.findLeaders(ctx); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

func (b *bareRaft) start(subject string, o nodeOptions) (err error) {
	defer func() {
		if p := recover(); p != nil { // the library's way of saying that something is wrong on disk
			err = fmt.Errorf("mosaik: bench: start %s: %v", subject, p)
		}
	}()
	addresses := make([]string, o.replicas)
	for i := range addresses {
		addresses[i] = fmt.Sprintf("bare%d", i+1)
	}
	network := inproc.New(inproc.Options{})
	if o.transport == TCP && o.replicas > 1 {
		network = nil
		if addresses, err = freePorts(o.replicas); err != nil {
			return err
		}
	}
	for i := range o.replicas {
		cfg, err := b.hostConfig(subject, o, filepath.Join(o.dir, fmt.Sprintf("node%d", i+1)))
		if err != nil {
			return err
		}
		cfg.RaftAddress = addresses[i]
		if network != nil {
			cfg.Expert.TransportFactory = network.Transport(addresses[i])
		}
		host, err := dragonboat.NewNodeHost(cfg)
		if err != nil {
			return fmt.Errorf("mosaik: bench: start %s: %w", subject, err)
		}
		b.hosts = append(b.hosts, host)
		if err := startGroups(host, o, addresses, uint64(i+1)); err != nil {
			return fmt.Errorf("mosaik: bench: start %s: %w", subject, err)
		}
	}
	for g := range o.groups {
		b.sessions = append(b.sessions, b.hosts[0].GetNoOPSession(uint64(g+1)))
	}
	return nil
}

// hostConfig is the engine's own configuration of the library, but for the log
// store.
func (b *bareRaft) hostConfig(subject string, o nodeOptions, dir string) (config.NodeHostConfig, error) {
	tick := memberTick
	if o.replicas == 1 {
		tick = aloneTick
	}
	// The library's default is sixteen of each. More than there are groups, or than a
	// disk takes side by side, only compete.
	workers := uint64(min(o.groups, 2))
	cfg := config.NodeHostConfig{
		NodeHostDir:    dir,
		RTTMillisecond: uint64(tick / time.Millisecond),
		Expert: config.ExpertConfig{
			Engine: config.EngineConfig{ExecShards: workers, CommitShards: 1, ApplyShards: 4, SnapshotShards: 2, CloseShards: 1},
			LogDB:  config.GetDefaultLogDBConfig(),
		},
	}
	cfg.Expert.LogDB.Shards = workers
	switch subject {
	case subjectRaftTan:
		cfg.Expert.LogDBFactory = tan.Factory
	case subjectRaftOurs:
		l, err := raftlog.Open(filepath.Join(dir, "raftlog"), raftlog.Options{})
		if err != nil {
			return cfg, err
		}
		b.logs = append(b.logs, l)
		cfg.Expert.LogDBFactory = l.Factory()
	}
	return cfg, nil
}

func startGroups(host *dragonboat.NodeHost, o nodeOptions, addresses []string, replica uint64) error {
	members := make(map[uint64]string)
	for i, a := range addresses {
		members[uint64(i+1)] = a
	}
	create := func(uint64, uint64) sm.IOnDiskStateMachine { return idleMachine{} }
	for g := range o.groups {
		cfg := config.Config{
			ShardID: uint64(g + 1), ReplicaID: replica,
			CheckQuorum: true, PreVote: true, OrderedConfigChange: true,
			ElectionRTT: memberElection, HeartbeatRTT: memberHeartbeat,
			MaxInMemLogSize: 256 << 20,
		}
		if o.replicas == 1 {
			cfg.ElectionRTT, cfg.HeartbeatRTT = aloneElection, 1
		}
		if err := host.StartOnDiskReplica(members, false, create, cfg); err != nil {
			return err
		}
	}
	return nil
}

// findLeaders waits until every group has a leader.
func (b *bareRaft) findLeaders(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for g := range b.sessions {
		for {
			if leader, _, valid, err := b.hosts[0].GetLeaderID(uint64(g + 1)); err == nil && valid {
				b.leaders = append(b.leaders, b.hosts[leader-1])
				break
			}
			if err := pause(ctx, time.Millisecond); err != nil {
				return fmt.Errorf("mosaik: bench: wait for leaders: %w", err)
			}
		}
	}
	return nil
}

func (b *bareRaft) append(_ context.Context, key int, payloads payloads) ticket {
	var cmd []byte
	select {
	case cmd = <-b.cmd:
	default:
	}
	cmd = cmd[:0]
	for _, p := range payloads {
		cmd = append(cmd, p...)
	}
	g := key % len(b.leaders)
	request, err := b.leaders[g].Propose(b.sessions[g], cmd, proposeTimeout)
	select {
	case b.cmd <- cmd:
	default:
	}
	if errors.Is(err, dragonboat.ErrSystemBusy) {
		return ticket{err: errBusy}
	}
	return ticket{request: request, err: err}
}

// waitRequest waits for the outcome of a proposal.
func waitRequest(request *dragonboat.RequestState) error {
	r := <-request.ResultC()
	request.Release()
	if !r.Completed() {
		return fmt.Errorf("mosaik: bench: a proposal was not committed (timeout %v, dropped %v, terminated %v, rejected %v)",
			r.Timeout(), r.Dropped(), r.Terminated(), r.Rejected())
	}
	return nil
}

// counters are those of our log store; the library's own do not count.
func (b *bareRaft) counters() counters {
	c := counters{nodes: len(b.hosts)}
	for _, l := range b.logs {
		m := l.Metrics()
		c.syncs += uint64(m.Syncs)
		c.syncTime += m.SyncTime
		c.logBytes += uint64(m.BytesWritten)
		c.movedBytes += uint64(m.BytesMoved)
		c.recycled += uint64(m.FilesRecycled)
	}
	return c
}

// Close implements target.
func (b *bareRaft) Close() error {
	for _, host := range b.hosts {
		host.Close()
	}
	// The log of a host that did not start has nobody else to close it.
	var err error
	for _, l := range b.logs[min(len(b.hosts), len(b.logs)):] {
		err = errors.Join(err, l.Close())
	}
	return err
}

// idleMachine is the state machine that does nothing.
type idleMachine struct{}

func (idleMachine) Open(<-chan struct{}) (uint64, error)                 { return 0, nil }
func (idleMachine) Update(entries []sm.Entry) ([]sm.Entry, error)        { return entries, nil }
func (idleMachine) Lookup(any) (any, error)                              { return nil, nil }
func (idleMachine) Sync() error                                          { return nil }
func (idleMachine) PrepareSnapshot() (any, error)                        { return nil, nil }
func (idleMachine) SaveSnapshot(any, io.Writer, <-chan struct{}) error   { return nil }
func (idleMachine) RecoverFromSnapshot(io.Reader, <-chan struct{}) error { return nil }
func (idleMachine) Close() error                                         { return nil }
