package engine

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"math/bits"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/snapshot"
)

// Group is one Raft group as this node sees it: a log of commits, agreed on by
// the group's members, with any number of keys in it. Its methods may be called
// from any goroutine. It is a log.Writer and a replay.Source.
type Group struct {
	engine *Engine
	name   string
	id     identity.ID
	shard  uint64 // first 8 bytes of id: the Raft library's name for it
	number uint64 // this node's own among the members (log.Member)

	leaders   leaderWatch
	members   memberWatch
	votes     atomic.Bool // false: it has no seat, or has come back without its disk and has not caught up
	recoverTo uint64      // Raft index this node's own Raft log knew as committed at Open
	host      *raftHost
	replica   *replica
	writer    *writer
	served    served
}

var _ log.GroupStore = (*Group)(nil)

// Name returns the group's name: "g0", "g1", ... for the groups keys are spread
// over, or one of Options.Named.
func (g *Group) Name() string { return g.name }

// ID returns the group's id, which stands in every commit header and pointer.
func (g *Group) ID() identity.ID { return g.id }

// Signatures of what all members of a group must run alike; they are part of
// its id (spec: group id).
const (
	consensusSignature = "mosaik.consensus.raft.v1"
	machineSignature   = "mosaik.machine.log.v2"
	syncSignature      = "mosaik.sync.segments.v1"
)

// groupID folds everything the members must agree on into the group's id:
//
//	key       = NewID("mosaik.group.v1").Derive(name), and .Derive(secret) if there is one
//	consensus = H(signature || u32 n || each founder's 32 bytes)
//	id        = key.Hashed().Derive(consensus).Derive(machine).Derive(state sync)
//
// State sync is the hash of its signature, and of the size of segments if that is
// not the default one. Founders are folded in their order, so two halves of a split network can never
// found the same group twice.
func (o *Options) groupID(name string) identity.ID {
	members, segmentBytes := o.Members, o.SegmentBytes
	parts := [][]byte{[]byte(consensusSignature), binary.LittleEndian.AppendUint32(nil, uint32(len(members)))}
	for i := range members {
		parts = append(parts, members[i][:])
	}
	sync := identity.NewID(syncSignature)
	if segmentBytes != snapshot.SegmentBytes {
		sync = identity.FromParts([]byte(syncSignature), binary.LittleEndian.AppendUint64(nil, uint64(segmentBytes)))
	}
	id := o.groupKey(name).Hashed().
		DeriveID(identity.FromParts(parts...)).
		DeriveID(identity.NewID(machineSignature)).
		DeriveID(sync)
	for _, v := range o.Validators {
		id = id.DeriveID(v)
	}
	return id
}

// groupKey returns a group's key, of which its id tells only the hash.
func (o *Options) groupKey(name string) identity.ID {
	key := identity.NewID("mosaik.group.v1").Derive(name)
	if !o.Secret.IsZero() {
		key = key.DeriveID(o.Secret)
	}
	return key
}

// GroupKey is a group as members know it before there is a store.
type GroupKey struct {
	Name string
	ID   identity.ID
	Key  identity.ID // Group.BondKey
}

// FoundingGroups returns the groups that a new store with these options has, as Open
// would make them: what has to be known of a group before it is opened, to make
// connections for it.
func (o *Options) FoundingGroups() []GroupKey {
	c := *o
	c.Spread, c.SegmentBytes = cmp.Or(o.Spread, defaultSpread), cmp.Or(o.SegmentBytes, snapshot.SegmentBytes)
	var groups []GroupKey
	for _, name := range c.groupNames() {
		groups = append(groups, GroupKey{name, c.groupID(name), c.groupKey(name)})
	}
	return groups
}

// groupNames returns the names of the groups: first those keys are spread over.
func (o *Options) groupNames() []string {
	var names []string
	for i := range o.Spread {
		names = append(names, spreadName(i))
	}
	return append(names, o.Named...)
}

// defaultSpread is Options.Spread of a new store.
const defaultSpread = 1

// BondKey returns the group's key, which members prove to each other that they have.
// It is as secret as Options.Secret; without that it follows from the name.
func (g *Group) BondKey() identity.ID { return g.engine.opts.groupKey(g.name) }

// spreadName returns the name of the i-th of the groups keys are spread over.
func spreadName(i int) string { return "g" + strconv.Itoa(i) }

// isSpreadName reports whether name has the form of spreadName.
func isSpreadName(name string) bool {
	digits, ok := strings.CutPrefix(name, "g")
	if !ok {
		return false
	}
	_, err := strconv.ParseUint(digits, 10, 32)
	return err == nil
}

// spreadIndex says which of n groups holds a key: the key's first 8 bytes, read
// as a big-endian fraction of 2^64, times n. Keys are hashes, so they spread
// evenly; ranges of keys stay together.
func spreadIndex(key identity.ID, n int) int {
	hi, _ := bits.Mul64(binary.BigEndian.Uint64(key[:8]), uint64(n))
	return int(hi)
}

// Ready returns when the group has a leader and this node reflects everything
// the group had committed when Ready was called.
func (g *Group) Ready(ctx context.Context) error {
	for {
		_, err := g.Sync(ctx)
		if err == nil || ctx.Err() != nil || g.engine.checkClosed() != nil {
			return err
		}
	}
}

// Recovered returns when this node has applied everything that its own Raft log
// knew as committed when it was opened. It needs no quorum: a member opened
// alone, after a crash, then shows all it can show by itself.
func (g *Group) Recovered(ctx context.Context) error {
	for {
		changed := g.replica.watch()
		if err := g.engine.checkClosed(); err != nil {
			return err
		}
		if g.Status().Applied >= g.recoverTo {
			return nil
		}
		select {
		case <-changed:
		case <-g.engine.done:
			return log.ErrClosed
		case <-ctx.Done():
			return fmt.Errorf("recover group %s: %w", g.name, ctx.Err())
		}
	}
}

// Status is what a node knows of one of its groups.
type Status struct {
	Name string
	ID   identity.ID
	// Members are those that have the seats of the committee, in the order of these; a
	// zero peer: the seat is vacant.
	Members []identity.PeerID
	Self    identity.PeerID
	Leader  identity.PeerID // zero: none is known
	Term    uint64
	// Reader says that this node keeps everything but has no vote: it has no seat, or it
	// has come back without its disk (Options.Rejoin) and has not caught up.
	Reader bool
	// Evicted says that this node is no member any more.
	Evicted bool
	Head    log.Head
	Keys    int    // logs that have records
	Records uint64 // in the whole log
	Bytes   uint64 // of all commit bodies
	Applied uint64 // Raft index
	// State is the digest of the views at Head; zero without views.
	State log.Digest
	// ViewsFrom is the first commit that this node knows the views as of, if it came by
	// them through a state sync; 0: all of them.
	ViewsFrom uint64
	// Diverged is why this node serves nothing of the group (log.ErrDiverged); nil:
	// it does.
	Diverged error
}

// Status returns the group's status, without asking anybody.
func (g *Group) Status() Status {
	members := g.members.known()
	s := Status{Name: g.name, ID: g.id, Self: g.engine.opts.Peer, Reader: !g.votes.Load(), Evicted: g.members.evicted(g.number)}
	for seat := range uint64(members.Seats) {
		holder, _ := members.Holder(seat + 1)
		s.Members = append(s.Members, holder.Peer)
	}
	if g.engine.checkOpen() == nil {
		number, term := g.host.leader(g.shard)
		g.engine.release()
		leader, _ := members.Numbered(number)
		s.Leader, s.Term = leader.Peer, term
	}
	r := g.replica
	r.mu.RLock()
	defer r.mu.RUnlock()
	s.Head, s.Keys, s.State = r.mu.head, len(r.mu.logs), r.mu.state
	s.Diverged = r.divergence()
	s.ViewsFrom = r.viewsFrom.Load()
	s.Records, s.Bytes, s.Applied = r.mu.total.records, r.mu.total.bytes, r.mu.total.applied
	return s
}

// pause waits for d, or less if the engine is closing.
func (g *Group) pause(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-g.engine.expired:
	}
}

// leaderWatch tells those who wait that a group follows another leader.
type leaderWatch struct {
	mu sync.Mutex
	ch chan struct{} // closed at the next change; nil if nobody waits
}

// changed returns a channel that is closed when the next leader takes over.
func (w *leaderWatch) changed() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ch == nil {
		w.ch = make(chan struct{})
	}
	return w.ch
}

func (w *leaderWatch) announce() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ch != nil {
		close(w.ch)
		w.ch = nil
	}
}

// trim lets the Raft log forget what this replica has durably applied, keeping
// about Options.RaftLogBytes for members that lag.
func (g *Group) trim(ctx context.Context, t *trimmer) error {
	r := g.replica
	r.mu.RLock()
	now := r.mu.total
	r.mu.RUnlock()
	if now.bytes-t.last.bytes < uint64(g.engine.opts.RaftLogBytes)/2 && now.applied-t.last.applied < trimEntries {
		return nil
	}
	if g.engine.space.room() != nil {
		return nil // a flush would fail, and the library dies of a snapshot it cannot write
	}
	keep := t.last.applied
	if len(g.engine.opts.Members) == 1 {
		// Nobody lags behind a node alone. The library compacts only what lies below
		// the index of its snapshot, which is the applied one.
		keep = max(now.applied, 1) - 1
	}
	if keep != 0 {
		if err := g.host.compact(ctx, g.shard, keep); err != nil {
			return fmt.Errorf("mosaik: trim the Raft log of group %s: %w", g.name, err)
		}
	}
	t.last = now
	if keep == 0 {
		return nil
	}
	g.engine.opts.Events.Trimmed(g.name, keep)
	return nil
}

// trimmer remembers where a group stood when its Raft log was last trimmed: up
// to there the next trim forgets, so between one and two windows are kept.
type trimmer struct{ last totals }

// trimEntries trims by number what does not come to RaftLogBytes: every entry
// costs a place in memory.
const trimEntries = 200_000
