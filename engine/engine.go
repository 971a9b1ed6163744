package engine

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/time/rate"

	"github.com/mosaik-engine/mosaik/engine/raftlog"
	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/snapshot"
)

// Engine is one node's open store with its groups. Its methods may be called
// from any goroutine. It is a log.Writer that routes every key to its group.
type Engine struct {
	dir    string
	opts   *Options // complete; never changed after Open
	unlock func() error
	cache  *pebble.Cache
	db     *store
	rlog   *raftlog.Log
	host   *raftHost
	groups []*Group // spread groups first, then the named ones
	byName map[string]*Group
	space  *spaceWatch

	stop    chan struct{} // closed when Close begins
	expired chan struct{} // closed when Close has waited long enough for appends
	done    chan struct{} // closed when readers must let go
	wg      sync.WaitGroup
	cancel  context.CancelFunc
	// background ends with the engine; what is done for no caller runs under it.
	background context.Context
	serving    *rate.Limiter // of what is sent to members that ask for shards

	mu struct {
		sync.Mutex
		closed  bool
		readers int           // views of the store in use
		idle    chan struct{} // closed when readers is 0 and closed is set
	}
}

var _ log.Store = (*Engine)(nil)

// Open opens the store in dir, making it if there is none, and starts its
// groups. dir is best absolute on other file systems than the operating system's.
// opts may be nil. Groups elect their leaders after Open returns: call
// Ready to wait for that.
//
// Errors: ErrLocked, ErrNoStore, ErrMismatch, log.ErrNewerFormat and
// *log.CorruptionError say what they say; nothing has been changed then.
func Open(dir string, opts *Options) (*Engine, error) {
	e, err := openStopped(dir, opts)
	if err != nil {
		return nil, err
	}
	if err := e.start(); err != nil {
		return nil, errors.Join(err, e.shutdown())
	}
	return e, nil
}

// openStopped opens the store and its groups, without Raft.
func openStopped(dir string, opts *Options) (*Engine, error) {
	o := opts.withDefaults()
	if err := o.validate(); err != nil {
		return nil, err
	}
	if o.FS == vfs.Default {
		// The Raft library does the same with its part of the directory.
		abs, err := filepath.Abs(dir)
		if err != nil {
			return nil, err
		}
		dir = abs
	}
	e := &Engine{dir: dir, opts: o, stop: make(chan struct{}), expired: make(chan struct{}), done: make(chan struct{}), byName: make(map[string]*Group)}
	e.mu.idle = make(chan struct{})
	e.background, e.cancel = context.WithCancel(context.Background())
	e.serving = rate.NewLimiter(rate.Limit(o.ServeBytesPerSecond), max(int(o.ServeBytesPerSecond), snapshot.MaxCells*snapshot.CellBytes))
	if err := e.open(); err != nil {
		return nil, errors.Join(err, e.shutdown())
	}
	return e, nil
}

// open brings the parts up in order; shutdown takes down what is there.
func (e *Engine) open() error {
	o := e.opts
	if o.MustExist {
		if _, err := readStoreFile(o.FS, e.dir); err != nil {
			return err
		}
	}
	if err := makeDir(o.FS, e.dir); err != nil {
		return err
	}
	unlock, err := lockDir(o.FS, e.dir)
	if err != nil {
		return err
	}
	e.unlock = unlock
	if err := e.openStoreFile(); err != nil {
		return err
	}
	if err := makeDir(o.FS, o.FS.PathJoin(e.dir, archiveDirName)); err != nil {
		return err
	}
	sizes := sizesFor(o, e.dir)
	e.space = &spaceWatch{fs: o.FS, dir: e.dir, reserve: sizes.reserve, events: &o.Events}
	// Pebble takes its write buffers out of the cache. Two are in use most of the time:
	// without room for them there would be no cache left.
	e.cache = pebble.NewCache(o.CacheBytes + 2*sizes.memTable)
	if e.db, err = openStore(e.dir, o, sizes, e.cache); err != nil {
		return err
	}
	e.rlog, err = raftlog.Open(o.FS.PathJoin(e.dir, raftDirName), raftlog.Options{
		FS: o.FS, FileBytes: sizes.raftFile, Logger: o.Logger, OnFull: e.space.raftLogFull,
	})
	if err != nil {
		return raftLogError(err)
	}
	for _, name := range o.groupNames() {
		if err := e.addGroup(name); err != nil {
			return err
		}
	}
	return nil
}

// raftLogError maps the Raft log's own errors to those of the engine.
func raftLogError(err error) error {
	var c *raftlog.CorruptionError
	if errors.As(err, &c) {
		return &log.CorruptionError{File: c.File, Offset: c.Offset, Err: c.Err}
	}
	for _, same := range []struct{ theirs, ours error }{
		{raftlog.ErrClosed, log.ErrClosed},
		{raftlog.ErrNewerFormat, log.ErrNewerFormat},
		{raftlog.ErrLocked, ErrLocked},
	} {
		if errors.Is(err, same.theirs) {
			return fmt.Errorf("%w: %w", same.ours, err)
		}
	}
	return fmt.Errorf("mosaik: Raft log: %w", err)
}

// openStoreFile reads what the store was made with, or makes it.
func (e *Engine) openStoreFile() error {
	o := e.opts
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	s, err := readStoreFile(o.FS, e.dir)
	if errors.Is(err, ErrNoStore) {
		if o.Peer.IsZero() {
			if _, err := rand.Read(o.Peer[:]); err != nil {
				return err
			}
		}
		if o.Members == nil {
			o.Members = []identity.PeerID{o.Peer}
		}
		for _, name := range []string{storeDirName, raftDirName} {
			if _, err := o.FS.Stat(o.FS.PathJoin(e.dir, name)); err == nil {
				return &log.CorruptionError{File: o.FS.PathJoin(e.dir, storeFileName),
					Err: fmt.Errorf("it is missing, but there is %s: restore it, or move the directory away", name)}
			}
		}
		o.Spread = cmp.Or(o.Spread, defaultSpread)
		o.SegmentBytes = cmp.Or(o.SegmentBytes, snapshot.SegmentBytes)
		o.number = uint64(slices.Index(o.Members, o.Peer) + 1)
		switch {
		case o.Rejoin != nil:
			if err := e.rejoin(); err != nil {
				return err
			}
		case o.number == 0:
			return fmt.Errorf("%w: Peer: %s is not among Members: it has to be let in by one of them, and to ask for it (Rejoin)", ErrMismatch, o.Peer.Short())
		}
		s = &storeFile{host: host, peer: o.Peer, members: o.Members, number: o.number, incarnation: o.incarnation, committee: o.committee, secret: o.Secret, validators: o.Validators, spread: o.Spread, segment: o.SegmentBytes, named: o.Named}
		return writeStoreFile(o.FS, e.dir, s)
	}
	if err != nil {
		return err
	}
	grown, err := s.reconcile(o)
	if err != nil {
		return err
	}
	if s.host != host {
		// The Raft library files everything under the machine's name and refuses a
		// store whose machine was renamed. What it guards by that, our store file does.
		if err := renameHost(o, e.dir, s.host, host); err != nil {
			return err
		}
		s.host = host
		grown = true
	}
	if grown {
		return writeStoreFile(o.FS, e.dir, s)
	}
	return nil
}

// renameHost moves the Raft library's files to the machine's present name.
func renameHost(o *Options, dir, from, to string) error {
	base := o.FS.PathJoin(dir, hostDirName)
	if _, err := o.FS.Stat(o.FS.PathJoin(base, from)); err == nil {
		if err := o.FS.Rename(o.FS.PathJoin(base, from), o.FS.PathJoin(base, to)); err != nil {
			return err
		}
	}
	if err := o.FS.Remove(o.FS.PathJoin(base, "dragonboat.ds")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := syncDir(o.FS, base); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// addGroup loads what the store has of a group.
func (e *Engine) addGroup(name string) error {
	id := e.opts.groupID(name)
	g := &Group{engine: e, name: name, id: id, shard: shardOf(id), number: e.opts.number}
	for _, other := range e.groups {
		if other.shard == g.shard {
			return fmt.Errorf("mosaik: options: groups %q and %q share the shard number %x: rename one", other.name, name, g.shard)
		}
	}
	r, err := newReplica(e.db.DB, g.shard, id, g.number, len(e.opts.Members), e.opts.Machines)
	if err != nil {
		return err
	}
	g.replica = r
	r.onDiverged, r.openArchived = g.divergedNow, g.openArchived
	r.indexLag = min(indexLagBytes, 2*uint64(e.opts.SegmentBytes)) // or little could be archived
	if err := r.finishRefold(); err != nil {
		return err
	}
	if err := g.loadMembers(); err != nil {
		return err
	}
	e.groups = append(e.groups, g)
	e.byName[name] = g
	replica := replicaID(g.number, e.opts.incarnation, len(e.opts.Members))
	voter, err := isVoter(e.rlog, g.shard, replica)
	if err != nil {
		return raftLogError(err)
	}
	g.votes.Store(voter || e.opts.incarnation == 0)
	if g.recoverTo, err = committedIndex(e.rlog, g.shard, replica, r.state.applied); err != nil {
		return raftLogError(err)
	}
	if err := checkRaftLog(e.rlog, g.shard, replica, r.state.applied); err != nil {
		return &log.CorruptionError{File: e.opts.FS.PathJoin(e.dir, storeDirName), Group: id, Commit: r.state.number, Err: err}
	}
	return nil
}

// shardOf returns the number under which the Raft library and the store's keys
// know a group. Zero is not a legal one.
func shardOf(id identity.ID) uint64 {
	var n uint64
	for _, b := range id[:8] {
		n = n<<8 | uint64(b)
	}
	return max(n, 1)
}

// start starts Raft and the engine's own goroutines.
func (e *Engine) start() error {
	rlog := e.rlog
	e.rlog = nil // the host owns and closes it
	host, err := startRaftHost(e.dir, e.opts, rlog, e.leaderChanged)
	if err != nil {
		return err
	}
	e.host = host
	e.rlog = rlog
	slots := e.opts.InFlight
	if slots == 0 {
		slots = 4
		if len(e.opts.Members) == 1 {
			slots = 2
		}
	}
	for _, g := range e.groups {
		g.host = host
		g.writer = newWriter(g, slots, e.opts.ProposeTimeout, host.nh.GetNoOPSession(g.shard), g.newEpoch(0))
	}
	for _, g := range e.groups {
		if err := host.start(g); err != nil {
			return err
		}
		g.writer.start()
	}
	ctx := e.background
	e.wg.Add(3 + 3*len(e.groups))
	go e.space.runSpaceWatch(ctx, e.wg.Done)
	go e.runTrim(ctx)
	go e.runScrub(ctx)
	for _, g := range e.groups {
		go g.runWitness(ctx, e.wg.Done)
		go g.runSeal(ctx, e.wg.Done)
		go g.runMembers(ctx, e.wg.Done)
		if e.opts.incarnation > 0 {
			e.wg.Add(1)
			go g.runPromote(ctx, e.wg.Done)
		}
	}
	if e.opts.Preference != Normal && len(e.opts.Members) > 1 {
		e.wg.Add(1)
		go e.runYield(ctx)
	}
	return nil
}

func (e *Engine) leaderChanged(shard, replica, term uint64) {
	for _, g := range e.groups {
		if g.shard == shard {
			member, _ := g.members.known().Numbered(numberOf(replica, len(e.opts.Members)))
			leader := member.Peer
			if replica != 0 {
				g.leaders.announce()
			}
			e.opts.Logger.Info("leader changed", "group", g.name, "leader", leader.Short(), "term", term)
			e.opts.Events.LeaderChanged(g.name, leader, term)
		}
	}
}

// trimInterval is how often the Raft logs are looked at.
const trimInterval = 500 * time.Millisecond

// runTrim keeps the Raft logs short.
func (e *Engine) runTrim(ctx context.Context) {
	defer e.wg.Done()
	trimmers := make([]trimmer, len(e.groups))
	tick := time.NewTicker(trimInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for i, g := range e.groups {
			if err := g.trim(ctx, &trimmers[i]); err != nil && ctx.Err() == nil {
				e.opts.Logger.Warn("trim failed and will be tried again", "err", err)
				e.opts.Events.BackgroundError(err)
			}
		}
	}
}

// drainTimeout bounds how long Close waits for appends under way.
const drainTimeout = 5 * time.Second

// Close refuses new appends, waits for those under way, ends scans, stops Raft,
// writes what is in memory to the store and releases the directory. It waits
// for every goroutine of the engine. Appends that cannot be committed within 5 s
// fail with log.ErrClosed. A second Close returns log.ErrClosed.
func (e *Engine) Close() error {
	e.mu.Lock()
	if e.mu.closed {
		e.mu.Unlock()
		return log.ErrClosed
	}
	e.mu.closed = true
	if e.mu.readers == 0 {
		close(e.mu.idle)
	}
	e.mu.Unlock()
	return e.shutdown()
}

// shutdown takes down what open brought up, in reverse: writers first, while
// Raft can still commit; then scans; then Raft, which applies to the store; then
// the store.
func (e *Engine) shutdown() error {
	var err error
	close(e.stop)
	for _, g := range e.groups {
		if g.writer != nil {
			g.writer.refuse()
		}
	}
	drained := e.drain()
	close(e.expired)
	e.handOver()
	close(e.done)
	if e.cancel != nil {
		e.cancel()
	}
	e.wg.Wait()
	if e.host != nil {
		e.rlog.Drain()
		err = errors.Join(err, e.host.close())
	} else if e.rlog != nil {
		err = errors.Join(err, e.rlog.Close())
	}
	<-drained
	e.waitForReaders()
	for _, g := range e.groups {
		err = errors.Join(err, g.replica.batch.Close())
	}
	if e.db != nil {
		err = errors.Join(err, e.db.close(e.unflushed()))
	} else if e.cache != nil {
		e.cache.Unref()
	}
	if e.unlock != nil {
		err = errors.Join(err, e.unlock())
	}
	return err
}

// drain waits until the writers have brought what has joined to its end, or for
// drainTimeout: what is left then ends when Raft stops.
func (e *Engine) drain() (drained <-chan struct{}) {
	ended := make(chan struct{})
	go e.runDrain(ended)
	t := time.NewTimer(drainTimeout)
	defer t.Stop()
	select {
	case <-ended:
	case <-t.C:
	}
	return ended
}

// runDrain closes ended when every writer's slots have ended.
func (e *Engine) runDrain(ended chan<- struct{}) {
	for _, g := range e.groups {
		if g.writer != nil {
			g.writer.wg.Wait()
		}
	}
	close(ended)
}

// handOverTimeout bounds how long Close waits for others to take the lead.
const (
	handOverTimeout = time.Second
	handOverTurn    = 150 * time.Millisecond
)

// handOver makes other members lead the groups this node leads.
func (e *Engine) handOver() {
	if e.host == nil {
		return
	}
	deadline := time.Now().Add(handOverTimeout)
	for _, g := range e.groups {
		// One that is not reachable or too far behind does not take the lead: then
		// the next is asked.
		for n := 0; time.Now().Before(deadline); n++ {
			changed := g.leaders.changed()
			if !e.host.handOver(g.shard, n) {
				break
			}
			t := time.NewTimer(handOverTurn)
			select {
			case <-changed:
			case <-t.C:
			}
			t.Stop()
		}
	}
}

// closing reports whether Close has begun.
func (e *Engine) closing() bool {
	select {
	case <-e.stop:
		return true
	default:
		return false
	}
}

// drainExpired reports whether Close has stopped waiting for appends.
func (e *Engine) drainExpired() bool {
	select {
	case <-e.expired:
		return true
	default:
		return false
	}
}

// checkDone returns log.ErrClosed when Close wants readers to let go.
func (e *Engine) checkDone() error {
	select {
	case <-e.done:
		return log.ErrClosed
	default:
		return nil
	}
}

func (e *Engine) checkClosed() error {
	if e.closing() {
		return log.ErrClosed
	}
	return nil
}

// checkOpen registers a reader of the store, which Close waits for; call
// release when done.
func (e *Engine) checkOpen() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.mu.closed {
		return log.ErrClosed
	}
	e.mu.readers++
	return nil
}

func (e *Engine) release() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.mu.readers--
	if e.mu.closed && e.mu.readers == 0 {
		close(e.mu.idle)
	}
}

// unflushed reports whether the store should be flushed before it is closed:
// something was applied, and the disk has room for it.
func (e *Engine) unflushed() bool {
	if e.host == nil || e.space.room() != nil {
		return false
	}
	for _, g := range e.groups {
		if g.replica.unflushed.Load() {
			return true
		}
	}
	return false
}

func (e *Engine) waitForReaders() {
	e.mu.Lock()
	closed := e.mu.closed
	e.mu.Unlock()
	if closed {
		<-e.mu.idle
	}
}

// Peer returns the node's name among its groups' members.
func (e *Engine) Peer() identity.PeerID { return e.opts.Peer }

// Dir returns the store's directory.
func (e *Engine) Dir() string { return e.dir }

// Groups returns the node's groups: first those keys are spread over, in order,
// then the named ones. The slice is the caller's.
func (e *Engine) Groups() []*Group { return slices.Clone(e.groups) }

// Group returns the group of that name.
func (e *Engine) Group(name string) (*Group, bool) {
	g, ok := e.byName[name]
	return g, ok
}

// GroupFor returns the group that holds a key unless it was put in a named one:
// with n groups to spread over, number floor(f*n), where f is the key's first 8
// bytes read as a big-endian fraction. Members must agree on n, which is why it
// is kept in the store.
func (e *Engine) GroupFor(key identity.ID) *Group {
	return e.groups[spreadIndex(key, e.opts.Spread)]
}

// Append is Group.Append on the key's group.
func (e *Engine) Append(ctx context.Context, key identity.ID, payloads ...[]byte) (log.Pointer, error) {
	return e.GroupFor(key).Append(ctx, key, payloads...)
}

// AppendAsync is Group.AppendAsync on the key's group.
func (e *Engine) AppendAsync(ctx context.Context, key identity.ID, payloads ...[]byte) *log.Future {
	return e.GroupFor(key).AppendAsync(ctx, key, payloads...)
}

// Scan is Group.Scan on the key's group.
func (e *Engine) Scan(ctx context.Context, q log.Query) iter.Seq2[log.Run, error] {
	return e.GroupFor(q.Key).Scan(ctx, q)
}

// Recovered is Group.Recovered for every group of the node.
func (e *Engine) Recovered(ctx context.Context) error {
	for _, g := range e.groups {
		if err := g.Recovered(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Ready returns when every group of the node is ready (Group.Ready).
func (e *Engine) Ready(ctx context.Context) error {
	for _, g := range e.groups {
		if err := g.Ready(ctx); err != nil {
			return err
		}
	}
	return nil
}
