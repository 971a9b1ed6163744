package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/lni/dragonboat/v4"
	"github.com/lni/dragonboat/v4/client"
	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/logger"
	"github.com/lni/dragonboat/v4/raftio"
	"github.com/lni/dragonboat/v4/raftpb"
	sm "github.com/lni/dragonboat/v4/statemachine"

	"github.com/mosaik-engine/mosaik/engine/inproc"
	"github.com/mosaik-engine/mosaik/engine/raftlog"
	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

// This file, with raftmembers.go, is the wall around dragonboat: nothing outside
// it sees one of the library's types, its untyped Lookup, its contexts that must
// have deadlines or its panics. What it gives: start and stop groups, propose, read index,
// compact, who leads.

// Raft's clock. A node alone elects itself and may do so at once; members of a
// group need patience with each other on a busy machine.
const (
	aloneTick       = 10 * time.Millisecond
	aloneElection   = 5 // ticks
	memberTick      = 20 * time.Millisecond
	memberHeartbeat = 5  // ticks
	memberElection  = 50 // ticks
	// What Reluctant and Observer members wait before they stand for election, in
	// those of a Normal one.
	reluctantFactor = 2
	observerFactor  = 4
	// stepWorkers persist Raft entries. Each worker's round is one write and one
	// shared fdatasync for all its groups; more workers than disks only compete.
	stepWorkers = 2
	// compactTimeout bounds one flush of the store, however slow the disk.
	compactTimeout = time.Minute
	applyWorkers   = 4
)

// raftHost is a node's running Raft library.
type raftHost struct {
	nh          *dragonboat.NodeHost
	founders    map[uint64]string // number -> address
	address     func(identity.PeerID) string
	self        uint64 // own number
	incarnation uint64 // storeFile.incarnation
	tick        time.Duration

	mu struct {
		sync.RWMutex // held for reading during calls: the library does not bear them while it closes
		closed       bool
	}
	closed chan struct{} // closed with mu.closed: the library forgets requests it gets while it closes
}

// enter begins a call of the library; every true needs a leave.
func (h *raftHost) enter() bool {
	h.mu.RLock()
	if h.mu.closed {
		h.mu.RUnlock()
		return false
	}
	return true
}

func (h *raftHost) leave() { h.mu.RUnlock() }

// startRaftHost starts the library on dir/host, with entries on rlog. The host
// owns rlog from here on; when starting fails, rlog has been closed.
func startRaftHost(dir string, o *Options, rlog *raftlog.Log, leader func(shard uint64, replica uint64, term uint64)) (_ *raftHost, err error) {
	h := &raftHost{founders: make(map[uint64]string), self: o.number, incarnation: o.incarnation, tick: memberTick, closed: make(chan struct{})}
	h.address = func(p identity.PeerID) string {
		if address, ok := o.Addresses[p]; ok {
			return address
		}
		return p.String()
	}
	for i, m := range o.Members {
		h.founders[uint64(i+1)] = h.address(m)
	}
	if len(o.Members) == 1 {
		h.tick = aloneTick
	}
	transport := o.Transport
	if transport == nil && o.Addresses == nil {
		transport = inproc.New(inproc.Options{}).Transport(h.address(o.Peer)) // a network of one
	}
	quietRaftLogger()
	cfg := config.NodeHostConfig{
		NodeHostDir:       o.FS.PathJoin(dir, hostDirName),
		RTTMillisecond:    uint64(h.tick / time.Millisecond),
		RaftAddress:       h.address(o.Peer),
		RaftEventListener: leaderListener(leader),
		// What waits for a member that does not take it, and what one sends that is not
		// taken here. Raft sends again what is dropped.
		MaxSendQueueSize: maxQueueBytes, MaxReceiveQueueSize: maxQueueBytes,
		Expert: config.ExpertConfig{
			LogDBFactory:     rlog.Factory(),
			TransportFactory: transport,
			FS:               newHostFS(o.FS),
			Engine: config.EngineConfig{
				ExecShards: stepWorkers, CommitShards: 1, ApplyShards: applyWorkers, SnapshotShards: 2, CloseShards: 1,
			},
		},
	}
	defer func() {
		if p := recover(); p != nil { // the library panics on what it finds wrong on disk
			err = fmt.Errorf("mosaik: start raft: %v", p)
		}
		if err != nil {
			err = errors.Join(err, rlog.Close()) // a second Close does no harm
		}
	}()
	h.nh, err = dragonboat.NewNodeHost(cfg)
	if err == nil && h.nh == nil {
		err = errors.New("the library gave up without a reason")
	}
	if err != nil {
		return nil, fmt.Errorf("mosaik: start raft: %w", err)
	}
	return h, nil
}

// maxQueueBytes bounds the messages to one member that wait to be sent, and of one group
// that wait to be handled: several times what a group can have under way.
const maxQueueBytes = 256 << 20

// leaderListener adapts a func to the library's listener.
type leaderListener func(shard, replica, term uint64)

// LeaderUpdated is called by the library on a goroutine of its own.
func (l leaderListener) LeaderUpdated(info raftio.LeaderInfo) {
	l(info.ShardID, info.LeaderID, info.Term)
}

// start starts this node's replica of a group.
func (h *raftHost) start(g *Group) (err error) {
	cfg := config.Config{
		ShardID:             g.shard,
		ReplicaID:           h.replica(),
		CheckQuorum:         true,
		PreVote:             true,
		ElectionRTT:         memberElection,
		HeartbeatRTT:        memberHeartbeat,
		OrderedConfigChange: true,
		MaxInMemLogSize:     256 << 20,
	}
	switch {
	case len(h.founders) == 1:
		cfg.ElectionRTT, cfg.HeartbeatRTT = aloneElection, 1
	case g.engine.opts.Preference == Reluctant:
		cfg.ElectionRTT *= reluctantFactor
	case g.engine.opts.Preference == Observer:
		cfg.ElectionRTT *= observerFactor
	}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("mosaik: start group %s: %v", g.name, p)
		}
	}()
	founders, join := h.founders, false
	if h.incarnation > 0 { // it is not one of the replicas that founded the group
		founders, join, cfg.IsNonVoting = nil, true, !g.votes.Load()
	}
	create := func(uint64, uint64) sm.IOnDiskStateMachine { return &machine{replica: g.replica, group: g} }
	if err := h.nh.StartOnDiskReplica(founders, join, create, cfg); err != nil {
		return fmt.Errorf("mosaik: start group %s: %w", g.name, err)
	}
	return nil
}

// close stops every group and the library, and closes the Raft log.
func (h *raftHost) close() (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("mosaik: stop raft: %v", p)
		}
	}()
	h.mu.Lock()
	h.mu.closed = true
	close(h.closed)
	h.mu.Unlock()
	h.nh.Close()
	return nil
}

// verdict is what became of a proposal, as far as this node knows.
type verdict int

const (
	verdictApplied verdict = iota // in the log; outcome and receipt say as what
	verdictDropped                // not in the log: there was no leader to take it
	verdictUnknown                // may or may not come to be in the log, or another leader took over
	verdictClosed                 // the node is closing; outcome unknown
)

// pendingProposal is a proposal under way.
type pendingProposal struct {
	rs      *dragonboat.RequestState
	verdict verdict // when rs is nil
	err     error

	newLeader <-chan struct{} // closed when another leader took over since it was proposed
}

// propose hands cmd to Raft and returns at once; proposals of one group are
// ordered by the order of calls. The library copies cmd.
func (h *raftHost) propose(session *client.Session, cmd []byte, timeout time.Duration) pendingProposal {
	if !h.enter() {
		return pendingProposal{verdict: verdictClosed, err: log.ErrClosed}
	}
	defer h.leave()
	rs, err := h.nh.Propose(session, cmd, timeout)
	switch {
	case err == nil:
		return pendingProposal{rs: rs}
	case errors.Is(err, dragonboat.ErrClosed), errors.Is(err, dragonboat.ErrShardClosed):
		return pendingProposal{verdict: verdictClosed, err: err}
	default: // busy, not ready, not found yet: never entered the queue
		return pendingProposal{verdict: verdictDropped, err: err}
	}
}

// wait blocks until the library says what became of the proposal, or until
// another leader takes over: what was on its way to the old one is lost without
// a word.
func (p pendingProposal) wait() (verdict, outcome, []byte) {
	if p.rs == nil {
		return p.verdict, 0, nil
	}
	var r dragonboat.RequestResult
	select {
	case r = <-p.rs.ResultC():
		defer p.rs.Release()
	case <-p.newLeader:
		return verdictUnknown, 0, nil // the library still holds p.rs
	}
	switch {
	case r.Completed():
		result := r.GetResult()
		return verdictApplied, outcome(result.Value), result.Data
	case r.Dropped():
		return verdictDropped, 0, nil
	case r.Terminated():
		return verdictClosed, 0, nil
	default:
		return verdictUnknown, 0, nil
	}
}

// attempt is how long one proposal or read waits for its outcome before it is
// made again: a request on its way to a leader that goes down is lost without a
// word. It is longer than an election and than a busy group takes to answer.
func (h *raftHost) attempt() time.Duration {
	return 2 * memberElection * memberTick
}

// readIndex returns when this replica has applied everything that was committed
// in the group when it was called.
func (h *raftHost) readIndex(ctx context.Context, shard uint64, timeout time.Duration) error {
	deadline := time.Now().Add(timeout)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	for {
		wait := min(h.attempt()/2, time.Until(deadline))
		if !h.enter() {
			return log.ErrClosed
		}
		// The library counts in ticks and refuses less than one.
		rs, err := h.nh.ReadIndex(shard, max(wait, h.tick))
		h.leave()
		if errors.Is(err, dragonboat.ErrClosed) || errors.Is(err, dragonboat.ErrShardClosed) {
			return log.ErrClosed
		}
		if err == nil {
			select {
			case r := <-rs.ResultC():
				rs.Release()
				if r.Completed() {
					return nil
				}
				if r.Terminated() {
					return log.ErrClosed
				}
			case <-h.closed:
				return log.ErrClosed
			case <-ctx.Done():
				return fmt.Errorf("%w: read not confirmed: %w", ErrNoQuorum, ctx.Err())
			}
		}
		// No leader at the moment, or it went away with the request.
		if time.Now().After(deadline) {
			return fmt.Errorf("%w: read not confirmed within %v", ErrNoQuorum, timeout)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: read not confirmed: %w", ErrNoQuorum, ctx.Err())
		case <-time.After(h.tick):
		}
	}
}

// handOver asks the library to make another member lead the group, the n-th of
// the others; to them a leader that leaves like this costs a round trip instead
// of an election. It does not wait for the outcome, and reports false when this
// member does not lead.
func (h *raftHost) handOver(shard uint64, n int) bool {
	if leader, _ := h.leader(shard); leader != h.self || !h.enter() {
		return false
	}
	defer h.leave()
	others := slices.DeleteFunc(h.votersLocked(shard), func(replica uint64) bool { return replica == h.replica() })
	return len(others) > 0 && h.nh.RequestLeaderTransfer(shard, others[n%len(others)]) == nil
}

// transfer asks the library to make a member lead the group. It does not wait for
// the outcome.
func (h *raftHost) transfer(shard, number uint64) error {
	if !h.enter() {
		return log.ErrClosed
	}
	defer h.leave()
	for _, replica := range h.votersLocked(shard) {
		if numberOf(replica, len(h.founders)) == number {
			return h.nh.RequestLeaderTransfer(shard, replica)
		}
	}
	return fmt.Errorf("%w: the member has no vote", ErrMismatch)
}

// votersLocked returns the replicas that have a vote as far as this node knows, in
// their order. REQUIRES: within a call of the library.
func (h *raftHost) votersLocked(shard uint64) []uint64 {
	for _, info := range h.nh.GetNodeHostInfo(dragonboat.NodeHostInfoOption{SkipLogInfo: true}).ShardInfoList {
		if info.ShardID == shard {
			return slices.Sorted(maps.Keys(info.Replicas))
		}
	}
	return nil
}

// leader returns the number of the group's leader, or 0, and the term.
func (h *raftHost) leader(shard uint64) (number, term uint64) {
	if !h.enter() {
		return 0, 0
	}
	defer h.leave()
	replica, term, valid, err := h.nh.GetLeaderID(shard)
	if err != nil || !valid {
		return 0, term
	}
	return numberOf(replica, len(h.founders)), term
}

// replica returns the id of this node's replicas.
func (h *raftHost) replica() uint64 { return replicaID(h.self, h.incarnation, len(h.founders)) }

// admittedReplica begins the ids of replicas of members that are no founders.
const admittedReplica = 1 << 41

// Every member has a number, the founders from 1 on. The replica id under which the
// library knows a founder is its number as long as it keeps its disk; a member that has
// lost it comes back as another replica of the same number, with the next incarnation
// (rejoin.go). Members that came later have ids of their own, and begin with incarnation 1.
func replicaID(number, incarnation uint64, founders int) uint64 {
	if number > uint64(founders) {
		return admittedReplica | incarnation<<20 | number
	}
	return number + incarnation*uint64(founders)
}

func numberOf(replica uint64, founders int) uint64 {
	switch {
	case replica == 0:
		return 0
	case replica >= admittedReplica:
		return replica & (1<<20 - 1)
	}
	return (replica-1)%uint64(founders) + 1
}

// incarnationOf returns the incarnation of a replica of a number.
func incarnationOf(replica, number uint64, founders int) uint64 {
	if number > uint64(founders) {
		return replica &^ uint64(admittedReplica) >> 20
	}
	return (replica - number) / uint64(founders)
}

// compact records that the state up to the applied index is on disk and lets
// the Raft log forget what is below keep. Nothing is copied: the snapshot of a
// machine that keeps its state on disk is a note of its index.
func (h *raftHost) compact(ctx context.Context, shard, keep uint64) error {
	ctx, cancel := context.WithTimeout(ctx, compactTimeout) // the library insists on a deadline
	defer cancel()
	_, err := h.nh.SyncRequestSnapshot(ctx, shard, dragonboat.SnapshotOption{OverrideCompactionOverhead: true, CompactionIndex: keep})
	if errors.Is(err, dragonboat.ErrRejected) || errors.Is(err, dragonboat.ErrCanceled) {
		return nil // nothing new since the last one
	}
	return err
}

// machine is the replica as the library wants it.
type machine struct {
	replica *replica
	group   *Group
	entries []entry // reused
}

// Open returns the Raft index up to which the store is complete and durable. The
// library calls it some time after the group was started: a refold may be under way.
func (m *machine) Open(<-chan struct{}) (uint64, error) {
	m.replica.applying.Lock()
	defer m.replica.applying.Unlock()
	return m.replica.state.applied, nil
}

// Update applies agreed entries. An error stops the process: the library knows
// no other way, and a replica that cannot write its store must not go on.
func (m *machine) Update(in []sm.Entry) ([]sm.Entry, error) {
	m.entries = m.entries[:0]
	for i := range in {
		m.entries = append(m.entries, entry{index: in[i].Index, cmd: in[i].Cmd})
	}
	if err := m.replica.update(m.entries); err != nil {
		return nil, err
	}
	for i := range m.entries {
		in[i].Result = sm.Result{Value: uint64(m.entries[i].outcome), Data: m.entries[i].receipt}
		m.entries[i] = entry{}
	}
	return in, nil
}

// Lookup is not used: reads go to the store, after readIndex where they have to.
func (m *machine) Lookup(any) (any, error) {
	return nil, errors.New("mosaik: lookup is not supported")
}

// Sync makes everything applied durable, which the library asks for before it
// trims the log.
func (m *machine) Sync() error { return m.replica.flush() }

// PrepareSnapshot pins the state that SaveSnapshot will send.
func (m *machine) PrepareSnapshot() (any, error) { return m.replica.db.NewSnapshot(), nil }

// SaveSnapshot sends an offer of the group's state to a member that lags behind the Raft log.
func (m *machine) SaveSnapshot(pinned any, w io.Writer, stop <-chan struct{}) error {
	return m.group.send(pinned, w, stop)
}

// RecoverFromSnapshot brings the group to where an offer stands.
func (m *machine) RecoverFromSnapshot(r io.Reader, stop <-chan struct{}) error {
	return m.group.receive(r, stop)
}

// Close has nothing to do: the engine closes the store when all groups stopped.
func (m *machine) Close() error { return nil }

// errStopped is what the library wants back from a transfer it has stopped.
func errStopped() error { return sm.ErrSnapshotStopped }

// checkRaftLog holds the store against the Raft log's own record of it. The log
// forgets entries only after the store has them durably; a store that is behind
// that has lost something.
func checkRaftLog(rlog raftio.ILogDB, shard, self uint64, applied uint64) error {
	ss, err := rlog.GetSnapshot(shard, self)
	if err != nil {
		return err
	}
	if raftpb.IsEmptySnapshot(ss) || !ss.Dummy || ss.OnDiskIndex <= applied {
		return nil
	}
	return fmt.Errorf("the store reflects Raft index %d, but had durably reached %d when the Raft log was trimmed", applied, ss.OnDiskIndex)
}

// committedIndex returns the index of the last entry for the state machine that
// the Raft log knows to be committed, or applied if there is none above it.
func committedIndex(rlog raftio.ILogDB, shard, self, applied uint64) (uint64, error) {
	state, err := rlog.ReadRaftState(shard, self, 0)
	if errors.Is(err, raftio.ErrNoSavedLog) {
		return applied, nil
	}
	if err != nil {
		return 0, err
	}
	first := max(applied+1, state.FirstIndex)
	for i := state.State.Commit; i >= first && i > 0; i-- {
		entries, _, err := rlog.IterateEntries(nil, 0, shard, self, i, i+1, 1)
		if err != nil {
			return 0, err
		}
		if len(entries) == 0 {
			return applied, nil // not here: another member has to send it
		}
		if (entries[0].Type == raftpb.ApplicationEntry || entries[0].Type == raftpb.EncodedEntry) && len(entries[0].Cmd) > 0 {
			return i, nil
		}
	}
	return applied, nil
}

// raftPackages are the names under which the library logs.
var raftPackages = [...]string{"raft", "rsm", "transport", "dragonboat", "logdb", "raftpb", "config", "settings", "server", "utils", "vfs", "registry", "id", "fileutil", "order", "tan", "grpc", "feed"}

// quietRaftLogger keeps the library's chatter to errors unless SetRaftLogger has
// chosen otherwise. Levels are the library's package state; setting them twice
// does no harm.
func quietRaftLogger() {
	raftLoggerOnce.Do(func() {
		for _, name := range raftPackages {
			logger.GetLogger(name).SetLevel(logger.CRITICAL)
		}
	})
}

// raftLoggerOnce guards the library's logger, which is one per process and
// panics when it is chosen twice.
var raftLoggerOnce sync.Once

// SetRaftLogger sends what the Raft library logs to l, at l's level. The
// library has one logger for the whole process, so a main program may call this
// once, before the first Open; later calls do nothing. Without it only what
// makes the library give up is printed, to standard error.
func SetRaftLogger(l *slog.Logger) {
	raftLoggerOnce.Do(func() {
		logger.SetLoggerFactory(func(name string) logger.ILogger {
			return raftLogger{l.With("component", "raft."+name)}
		})
	})
}

// raftLogger is a slog.Logger as the library wants it.
type raftLogger struct{ l *slog.Logger }

func (r raftLogger) SetLevel(logger.LogLevel) {}
func (r raftLogger) Debugf(format string, args ...any) {
	if r.l.Enabled(context.Background(), slog.LevelDebug) {
		r.l.Debug(fmt.Sprintf(format, args...))
	}
}
func (r raftLogger) Infof(format string, args ...any) {
	if r.l.Enabled(context.Background(), slog.LevelDebug) {
		r.l.Debug(fmt.Sprintf(format, args...)) // its info is our debug
	}
}
func (r raftLogger) Warningf(format string, args ...any) { r.l.Info(fmt.Sprintf(format, args...)) }
func (r raftLogger) Errorf(format string, args ...any)   { r.l.Warn(fmt.Sprintf(format, args...)) }
func (r raftLogger) Panicf(format string, args ...any) {
	r.l.Error(fmt.Sprintf(format, args...))
	panic(fmt.Sprintf(format, args...)) // invariant: the library does not expect this call to return
}

// isVoter reports whether the Raft log knows a replica to have a vote.
func isVoter(rlog raftio.ILogDB, shard, replica uint64) (bool, error) {
	ss, err := rlog.GetSnapshot(shard, replica)
	_, voter := ss.Membership.Addresses[replica]
	return voter, err
}
