package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

// Who is a member of a group stands in its log of members (log/members.go): a change is
// a commit like every other, and every replica reads from it who has which seat. The Raft
// library has a membership of its own, which follows:
//
//   - A peer that was let in asks to be taken in (rejoin.go) as a reader without a vote.
//   - One with a seat asks for its vote when it has caught up.
//   - The leader takes out the replicas of whom the log has evicted. It also commits what
//     follows from time: that a verdict has expired, that a member was away for too long,
//     that a reader gets a vacant seat.
//
// A group whose log of members is empty has its founders.

// membersInterval is how often a group looks whether its members have changed, and its
// leader whether something follows.
const membersInterval = 200 * time.Millisecond

// memberWatch is what this node knows of a group's members.
type memberWatch struct {
	mu struct {
		sync.Mutex
		m       log.Membership
		next    uint64        // seq after the last record that is in m
		changed chan struct{} // closed at the next change; nil if nobody waits
	}
}

// known returns the membership. It is not to be changed.
func (w *memberWatch) known() *log.Membership {
	w.mu.Lock()
	defer w.mu.Unlock()
	m := w.mu.m
	return &m
}

// evicted reports whether the number was that of a member, and is not any more.
func (w *memberWatch) evicted(number uint64) bool {
	m := w.known()
	_, stays := m.Numbered(number)
	return !stays && number < m.Next
}

// watch returns the membership and a channel that is closed at the next change.
func (w *memberWatch) watch() (*log.Membership, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mu.changed == nil {
		w.mu.changed = make(chan struct{})
	}
	m := w.mu.m
	return &m, w.mu.changed
}

func (w *memberWatch) set(m log.Membership, next uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if next < w.mu.next {
		return // another reading was faster
	}
	w.mu.m, w.mu.next = m, next
	if w.mu.changed != nil {
		close(w.mu.changed)
		w.mu.changed = nil
	}
}

// orFounders is m, or what is known of a group that has not told its members yet.
func (g *Group) orFounders(m log.Membership) log.Membership {
	if m.Seats > 0 {
		return m
	}
	o := g.engine.opts
	m = log.Founded(o.Members)
	if o.committee != nil {
		m.Members = o.committee
	}
	return m
}

// loadMembers reads what the store knows of the members, before anything is applied.
func (g *Group) loadMembers() error {
	r := g.replica
	var m log.Membership
	if l := r.mu.logs[log.MembersKey()]; l != nil && l.view != nil {
		var err error
		if m, err = log.ReadMembership(storedRows{r}.Rows(l.view.Number, l.viewGeneration)); err != nil {
			return fmt.Errorf("mosaik: open group %s: %w", g.name, err)
		}
	}
	g.members.set(g.orFounders(m), r.nextSeq(log.MembersKey()))
	return nil
}

// readMembers takes in what the log of members has that is new.
func (g *Group) readMembers(ctx context.Context) error {
	next := g.replica.nextSeq(log.MembersKey())
	g.members.mu.Lock()
	same := next == g.members.mu.next
	g.members.mu.Unlock()
	if same {
		return nil
	}
	v, err := g.View(ctx, log.MembersKey(), log.Stale())
	if err != nil {
		return err
	}
	m, err := log.ReadMembership(v)
	if err != nil {
		return fmt.Errorf("mosaik: group %s: %w", g.name, err)
	}
	m = g.orFounders(m)
	g.members.set(m, next)
	g.engine.opts.Logger.Info("members changed", "group", g.name, "members", len(m.Members), "readers", m.Readers())
	g.engine.opts.Events.MembersChanged(g.name, m)
	return nil
}

// seat returns this node's seat; 0: it has none.
func (g *Group) seat() uint64 {
	x, _ := g.members.known().Numbered(g.number)
	return x.Seat
}

// seated returns when this node has a seat.
func (g *Group) seated(ctx context.Context) error {
	for {
		m, changed := g.members.watch()
		if x, _ := m.Numbered(g.number); x.Seat != 0 {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Members returns the group's members, of whom all are known that were committed when it
// was called. The error wraps ErrNoQuorum if that cannot be confirmed.
func (g *Group) Members(ctx context.Context) (log.Membership, error) {
	v, err := g.View(ctx, log.MembersKey(), log.Linearizable())
	if err != nil {
		return log.Membership{}, err
	}
	m, err := log.ReadMembership(v)
	return g.orFounders(m), err
}

// Number returns this node's number among the members of its groups (log.Member).
func (e *Engine) Number() uint64 { return e.opts.number }

// KnownMembers returns the group's members as far as this node knows, without asking
// anybody. The caller does not change it.
func (g *Group) KnownMembers() log.Membership { return *g.members.known() }

// runMembers follows the log of members, and does what the leader has to.
func (g *Group) runMembers(ctx context.Context, done func()) {
	defer done()
	tick := time.NewTicker(membersInterval)
	defer tick.Stop()
	settled := uint64(0) // seq up to which the Raft library's membership follows
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if _, err := g.replica.steady(); err != nil {
			continue
		}
		err := g.readMembers(ctx)
		if leader, _ := g.host.leader(g.shard); err == nil && leader == g.number {
			err = g.lead(ctx, &settled)
		}
		if err != nil && ctx.Err() == nil && !errors.Is(err, log.ErrClosed) && !errors.Is(err, ErrNoQuorum) && !errors.Is(err, ErrDiskFull) && !errors.Is(err, ErrBusy) {
			g.engine.opts.Logger.Warn("following the members failed and will be tried again", "group", g.name, "err", err)
		}
	}
}

// lead does the next thing that a leader has to do about the members.
func (g *Group) lead(ctx context.Context, settled *uint64) error {
	m := g.members.known()
	next := g.replica.nextSeq(log.MembersKey())
	if next == 1 {
		return nil // the founders, and nothing that could follow
	}
	if command := g.due(m, time.Now()); command != nil {
		return g.changeMembers(ctx, command)
	}
	if *settled == next {
		return nil
	}
	if g.members.evicted(g.number) { // it has evicted itself: another has to take its replica out
		g.host.handOver(g.shard, int(next))
		return nil
	}
	removed, err := g.host.remove(ctx, g.shard, g.members.evicted)
	if err == nil && !removed {
		*settled = next
	}
	return err
}

// due returns the change that follows from the time, from who was heard of, or from the
// policy; nil: there is none.
func (g *Group) due(m *log.Membership, now time.Time) []byte {
	for i := range m.Members {
		x := &m.Members[i]
		if x.Number <= uint64(m.Seats) || x.Peer == g.engine.opts.Peer {
			continue // a founder, or this one: another leader would have to say so
		}
		if !x.Verdict.Expires.IsZero() && now.After(x.Verdict.Expires) {
			return log.EvictCommand(x.Number, log.Expired)
		}
		if seen := g.engine.opts.LastSeen; seen != nil && m.Policy.Grace > 0 {
			if at := seen(x.Peer); !at.IsZero() && now.Sub(at) > m.Policy.Grace {
				return log.EvictCommand(x.Number, log.Departed)
			}
		}
	}
	if seat := m.Vacant(); seat != 0 && m.Policy.Promote {
		for _, x := range m.Members {
			if x.Seat == 0 {
				return log.SeatCommand(x.Number, seat)
			}
		}
	}
	return nil
}

// changeMembers commits a command to the log of members.
func (g *Group) changeMembers(ctx context.Context, command []byte) error {
	ctx, cancel := context.WithTimeout(ctx, systemTimeout)
	defer cancel()
	if g.replica.nextSeq(log.MembersKey()) == 1 {
		entry, err := log.CBOR[log.DirectoryEntry]().Append(nil, log.MembersEntry())
		if err != nil {
			return err
		}
		if err := g.appendSystem(ctx, log.DirectoryKey(), entry); err != nil {
			return err
		}
		if err := g.commandMembers(ctx, log.FoundCommand(g.engine.opts.Members)); err != nil {
			return err
		}
	}
	if err := g.commandMembers(ctx, command); err != nil {
		return err
	}
	return g.readMembers(ctx)
}

func (g *Group) commandMembers(ctx context.Context, command []byte) error {
	payloads := [][]byte{command}
	f, err := g.writer.join(ctx, 1, bound(payloads), func(b *batch, f *log.Future) { b.add(f, log.MembersKey(), payloads) })
	if err == nil {
		_, err = await(ctx, f)
	}
	var results [][]byte
	if err == nil {
		results, err = f.Results()
	}
	if err == nil && len(results) == 1 {
		err = log.MembershipResult(results[0])
	}
	if err != nil {
		return fmt.Errorf("members of group %s: %w", g.name, err)
	}
	return nil
}

// Admit lets a peer into all groups of this node, with a verdict that says why, and
// returns the number it has there. It gets a vacant seat, or is a reader if the policy
// allows another one. It has to ask to be taken in then (Options.Rejoin). Of a peer that
// is a member, the verdict is renewed.
//
// The error wraps log.ErrMembership if the group refuses it, and ErrMismatch for a node
// alone. After an error it may be called again.
func (e *Engine) Admit(ctx context.Context, peer identity.PeerID, v log.Verdict) (number uint64, err error) {
	if len(e.opts.Members) == 1 {
		return 0, fmt.Errorf("%w: a node alone has no committee that others could join: found a group of several", ErrMismatch)
	}
	if v.By.IsZero() {
		v.By = e.opts.Peer
	}
	if v.At.IsZero() {
		v.At = time.Now()
	}
	err = e.eachGroup(ctx, func(_ *Group, m *log.Membership) error {
		if x, ok := m.Of(peer); ok {
			number = max(number, x.Number)
		}
		return nil
	})
	if err == nil && number == 0 {
		err = e.eachGroup(ctx, func(_ *Group, m *log.Membership) error {
			number = max(number, m.Next)
			return nil
		})
	}
	if err != nil {
		return 0, err
	}
	command, err := log.AdmitCommand(number, peer, v)
	if err != nil {
		return 0, err
	}
	return number, e.eachGroup(ctx, func(g *Group, _ *log.Membership) error { return g.changeMembers(ctx, command) })
}

// Evict takes a member out of all groups of this node. Its replicas leave, its seat
// becomes vacant. The error wraps log.ErrMembership if the group refuses it: it is no
// member, or the last one of the committee.
func (e *Engine) Evict(ctx context.Context, peer identity.PeerID) error {
	found := false
	err := e.eachGroup(ctx, func(g *Group, m *log.Membership) error {
		x, ok := m.Of(peer)
		if !ok {
			return nil
		}
		found = true
		return g.changeMembers(ctx, log.EvictCommand(x.Number, log.Evicted))
	})
	if err == nil && !found {
		err = fmt.Errorf("%w: %s is no member", log.ErrMembership, peer.Short())
	}
	return err
}

// SetMembershipPolicy replaces the policy by which the membership of all groups of this
// node changes by itself. The error wraps log.ErrMembership for a policy beyond its
// limits.
func (e *Engine) SetMembershipPolicy(ctx context.Context, p log.MembershipPolicy) error {
	if err := p.Validate(); err != nil {
		return err
	}
	return e.eachGroup(ctx, func(g *Group, _ *log.Membership) error { return g.changeMembers(ctx, log.PolicyCommand(p)) })
}

// eachGroup calls do for every group with its members of now.
func (e *Engine) eachGroup(ctx context.Context, do func(*Group, *log.Membership) error) error {
	for _, g := range e.groups {
		m, err := g.Members(ctx)
		if err == nil {
			err = do(g, &m)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
