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
// the group for good, and the member comes back in the same seat as another one,
// that has promised nothing:
//
//  1. readmit   another member takes the old replica out of every group and a new one
//     in, as a reader without a vote; each is a change of membership that a quorum of
//     the others agrees on
//  2. catch up  the new replica gets an offer and syncs (sync.go): the segments, of the
//     archived ones also, from any K shards of the others, its own shards of them,
//     the views
//  3. promote   when it has everything that was committed it asks for its vote back
//
// Everything else goes by the seat: who made a proposal, who keeps which shard, who
// is a witness of which digest.

// rejoinTimeout bounds how long Open waits for the others to take this member back.
const rejoinTimeout = time.Minute

// rejoin has the others take this member back, and returns its new number.
func (e *Engine) rejoin() (uint64, error) {
	o := e.opts
	var groups []identity.ID
	for _, name := range o.groupNames() {
		groups = append(groups, o.groupID(name))
	}
	ctx, cancel := context.WithTimeout(e.background, rejoinTimeout)
	defer cancel()
	incarnation, err := o.Rejoin(ctx, groups)
	if err != nil {
		return 0, fmt.Errorf("mosaik: rejoin: %w", err)
	}
	if incarnation == 0 || incarnation > maxIncarnation {
		return 0, fmt.Errorf("mosaik: rejoin: the other member answered with incarnation %d, 1 to %d are possible", incarnation, maxIncarnation)
	}
	return incarnation, nil
}

// maxIncarnation bounds how often a member can come back without its disk.
const maxIncarnation = 1 << 20

// Readmit takes a member that has lost its disk back into the groups, on its
// behalf: its replicas leave for good, new ones join as readers and are promoted
// when they have caught up. What it returns is for that member's Options.Rejoin.
// Whoever calls it must know that it is the member itself that asks, or its
// operator: a member that has not lost its disk is out of the groups afterwards.
//
// It needs a quorum without that member: ErrNoQuorum if there is none by the end of
// ctx, and always in groups of fewer than three. ErrMismatch: the peer is no member,
// or this one; log.ErrNotFound: a group is not one of this node. After an error it
// may be called again.
func (e *Engine) Readmit(ctx context.Context, peer identity.PeerID, groups []identity.ID) (incarnation uint64, err error) {
	if err := e.checkOpen(); err != nil {
		return 0, err
	}
	defer e.release()
	seat := uint64(slices.Index(e.opts.Members, peer) + 1)
	switch {
	case seat == 0 || peer == e.opts.Peer:
		return 0, fmt.Errorf("%w: %s is not another member", ErrMismatch, peer.Short())
	case len(e.opts.Members) < 3:
		return 0, fmt.Errorf("%w: of %d members the other alone cannot take one back; restore both from an export", ErrNoQuorum, len(e.opts.Members))
	}
	shards := make([]uint64, len(groups))
	for i, id := range groups {
		n := slices.IndexFunc(e.groups, func(g *Group) bool { return g.id == id })
		if n < 0 {
			return 0, fmt.Errorf("%w: group %s", log.ErrNotFound, id.Short())
		}
		shards[i] = e.groups[n].shard
		last, err := e.host.lastIncarnation(ctx, shards[i], seat)
		if err != nil {
			return 0, err
		}
		incarnation = max(incarnation, last+1)
	}
	for _, shard := range shards {
		if err := e.host.replace(ctx, shard, seat, incarnation); err != nil {
			return 0, err
		}
	}
	e.opts.Logger.Info("a member that has lost its disk is taken back", "member", peer.Short(), "incarnation", incarnation)
	return incarnation, nil
}

// runPromote gets this node its vote in every group, once it has caught up there.
func (e *Engine) runPromote(ctx context.Context) {
	defer e.wg.Done()
	for _, g := range e.groups {
		if err := g.promote(ctx); err != nil && ctx.Err() == nil && e.checkClosed() == nil {
			e.opts.Logger.Warn("this node gets no vote", "group", g.name, "err", err)
			e.opts.Events.BackgroundError(fmt.Errorf("mosaik: group %s: %w", g.name, err))
		}
	}
}

func (g *Group) promote(ctx context.Context) error {
	if err := g.Ready(ctx); err != nil {
		return err
	}
	if err := g.host.promote(ctx, g.shard); err != nil {
		return err
	}
	g.votes.Store(true)
	return nil
}
