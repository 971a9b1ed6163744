package engine

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

// A member that has lost its disk has forgotten which entries it has said to have,
// and whom it has voted for. If it went on as the replica it was, it could vote a
// leader in that lacks what was acknowledged with its help. So that replica leaves
// the group for good, and the member comes back under the same number as another one,
// that has promised nothing. A peer that was let in (members.go) comes in the same way,
// with no replica to take out:
//
//  1. readmit   another member takes the old replica out of every group and a new one
//     in, as a reader without a vote; each is a change of membership that a quorum of
//     the others agrees on
//  2. catch up  the new replica gets an offer and syncs (sync.go): the segments, of the
//     archived ones also, from any K shards of the others, its own shards of them,
//     the views
//  3. promote   when it has everything that was committed, and has a seat, it asks for its
//     vote
//
// Everything else goes by the number or the seat: who made a proposal, who is a witness
// of which digest; who keeps which shard.

// Readmission is what a member needs to know to come back, or to come in.
type Readmission struct {
	// Number is the member's (log.Member).
	Number uint64
	// Incarnation tells its replicas apart.
	Incarnation uint64
	// Committee is who has the seats. Until the member has the log of members itself, these
	// are who it gets everything from. Their verdicts are not told.
	Committee []log.Member
}

// Validate reports what no member can have answered.
func (r *Readmission) Validate() error {
	switch {
	case r.Number == 0 || r.Number > log.MaxMemberNumber:
		return fmt.Errorf("mosaik: rejoin: number %d, 1 to %d are possible", r.Number, log.MaxMemberNumber)
	case r.Incarnation == 0 || r.Incarnation > maxIncarnation:
		return fmt.Errorf("mosaik: rejoin: incarnation %d, 1 to %d are possible", r.Incarnation, maxIncarnation)
	case len(r.Committee) > MaxMembers:
		return fmt.Errorf("mosaik: rejoin: a committee of %d, at most %d are possible", len(r.Committee), MaxMembers)
	}
	for _, x := range r.Committee {
		if x.Seat == 0 || x.Seat > MaxMembers || x.Number == 0 || x.Number > log.MaxMemberNumber {
			return fmt.Errorf("mosaik: rejoin: a member of number %d in seat %d", x.Number, x.Seat)
		}
	}
	return nil
}

// rejoinTimeout bounds how long Open waits for the others to take this member back.
const rejoinTimeout = time.Minute

// rejoin has the others take this member back, or in.
func (e *Engine) rejoin() error {
	o := e.opts
	var groups []identity.ID
	for _, name := range o.groupNames() {
		groups = append(groups, o.groupID(name))
	}
	ctx, cancel := context.WithTimeout(e.background, rejoinTimeout)
	defer cancel()
	r, err := o.Rejoin(ctx, groups)
	if err != nil {
		return fmt.Errorf("mosaik: rejoin: %w", err)
	}
	if err := r.Validate(); err != nil {
		return err
	}
	if o.number != 0 && o.number != r.Number && r.Number <= uint64(len(o.Members)) {
		return fmt.Errorf("%w: rejoin: this founder has number %d, the other member says %d", ErrMismatch, o.number, r.Number)
	}
	o.number, o.incarnation, o.committee = r.Number, r.Incarnation, r.Committee
	return nil
}

// maxIncarnation bounds how often a member can come back without its disk.
const maxIncarnation = 1<<20 - 1

// Readmit takes a member that has lost its disk back into the groups, on its
// behalf, or one in that has just been let in (Admit): its replicas leave for good, new
// ones join as readers and are promoted when they have caught up. What it returns is for
// that member's Options.Rejoin. Whoever calls it must know that it is the member itself
// that asks, or its operator: a member that has not lost its disk is out of the groups
// afterwards.
//
// It needs a quorum without that member: ErrNoQuorum if there is none by the end of
// ctx, and always for founders of groups of fewer than three. ErrMismatch: the peer is no
// member, or this one; log.ErrNotFound: a group is not one of this node. After an error it
// may be called again.
func (e *Engine) Readmit(ctx context.Context, peer identity.PeerID, groups []identity.ID) (*Readmission, error) {
	if err := e.checkOpen(); err != nil {
		return nil, err
	}
	defer e.release()
	if peer == e.opts.Peer {
		return nil, fmt.Errorf("%w: %s is this member", ErrMismatch, peer.Short())
	}
	var asked []*Group
	var r Readmission
	for _, id := range groups {
		n := slices.IndexFunc(e.groups, func(g *Group) bool { return g.id == id })
		if n < 0 {
			return nil, fmt.Errorf("%w: group %s", log.ErrNotFound, id.Short())
		}
		g := e.groups[n]
		m, err := g.Members(ctx)
		if err != nil {
			return nil, err
		}
		member, ok := m.Of(peer)
		switch {
		case !ok:
			return nil, fmt.Errorf("%w: %s is not another member of group %s: a member has to let it in first (group admit)", ErrMismatch, peer.Short(), g.name)
		case r.Number != 0 && r.Number != member.Number:
			return nil, fmt.Errorf("%w: %s has different numbers in the groups, since a change was broken off: evict it and admit it again", ErrMismatch, peer.Short())
		case len(e.opts.Members) < 3 && member.Number <= uint64(len(e.opts.Members)):
			return nil, fmt.Errorf("%w: of %d members the other alone cannot take one back; restore both from an export", ErrNoQuorum, len(e.opts.Members))
		}
		r.Number, r.Committee = member.Number, nil
		for _, x := range m.Members {
			if x.Seat != 0 {
				r.Committee = append(r.Committee, log.Member{Number: x.Number, Peer: x.Peer, Seat: x.Seat})
			}
		}
		last, err := e.host.lastIncarnation(ctx, g.shard, r.Number)
		if err != nil {
			return nil, err
		}
		r.Incarnation = max(r.Incarnation, last+1)
		asked = append(asked, g)
	}
	for _, g := range asked {
		if err := e.host.replace(ctx, g.shard, r.Number, r.Incarnation, peer); err != nil {
			return nil, err
		}
	}
	e.opts.Logger.Info("a member is taken in", "member", peer.Short(), "number", r.Number, "incarnation", r.Incarnation)
	return &r, nil
}

// runPromote gets this node its vote in the group, once it has a seat and has caught up.
func (g *Group) runPromote(ctx context.Context, done func()) {
	defer done()
	e := g.engine
	if err := g.promote(ctx); err != nil && ctx.Err() == nil && e.checkClosed() == nil {
		e.opts.Logger.Warn("this node gets no vote", "group", g.name, "err", err)
		e.opts.Events.BackgroundError(fmt.Errorf("mosaik: group %s: %w", g.name, err))
	}
}

func (g *Group) promote(ctx context.Context) error {
	if err := g.seated(ctx); err != nil {
		return err
	}
	if err := g.Ready(ctx); err != nil {
		return err
	}
	if err := g.host.promote(ctx, g.shard, g.engine.opts.Peer, g.members.evicted); err != nil {
		return err
	}
	g.votes.Store(true)
	return nil
}
