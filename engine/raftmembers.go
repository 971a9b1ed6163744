package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/lni/dragonboat/v4"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

// This file belongs to the wall that raft.go is: who is a member of a group.

// changePause is how long a change of membership is left alone that was refused,
// because another came first or there is no leader.
const changePause = 100 * time.Millisecond

// change asks for a change of membership until want finds it unnecessary.
func (h *raftHost) change(ctx context.Context, shard uint64, want func(context.Context, *dragonboat.Membership) (done bool, err error)) error {
	for {
		attempt, cancel := context.WithTimeout(ctx, h.attempt()) // the library insists on a deadline
		m, err := h.membership(attempt, shard)
		done := false
		if err == nil {
			done, err = want(attempt, m)
		}
		cancel()
		if done || errors.Is(err, log.ErrClosed) {
			return err
		}
		t := time.NewTimer(changePause)
		select {
		case <-t.C:
		case <-h.closed:
			t.Stop()
			return log.ErrClosed
		case <-ctx.Done():
			t.Stop()
			return fmt.Errorf("%w: the membership could not be changed: %w", ErrNoQuorum, errors.Join(ctx.Err(), err))
		}
	}
}

// membership returns the group's members as a quorum has agreed on them.
func (h *raftHost) membership(ctx context.Context, shard uint64) (*dragonboat.Membership, error) {
	if !h.enter() {
		return nil, log.ErrClosed
	}
	defer h.leave()
	return h.nh.SyncGetShardMembership(ctx, shard)
}

// lastIncarnation returns the highest incarnation of a member that the group has seen.
func (h *raftHost) lastIncarnation(ctx context.Context, shard, number uint64) (last uint64, err error) {
	founders := len(h.founders)
	err = h.change(ctx, shard, func(_ context.Context, m *dragonboat.Membership) (bool, error) {
		for _, known := range [][]uint64{slices.Collect(maps.Keys(m.Nodes)), slices.Collect(maps.Keys(m.NonVotings)), slices.Collect(maps.Keys(m.Removed))} {
			for _, replica := range known {
				if numberOf(replica, founders) == number {
					last = max(last, incarnationOf(replica, number, founders))
				}
			}
		}
		return true, nil
	})
	return last, err
}

// replace takes the replicas of a member out of a group and another one in.
func (h *raftHost) replace(ctx context.Context, shard, number, incarnation uint64, peer identity.PeerID) error {
	founders := len(h.founders)
	replica := replicaID(number, incarnation, founders)
	return h.change(ctx, shard, func(ctx context.Context, m *dragonboat.Membership) (bool, error) {
		if !h.enter() {
			return false, log.ErrClosed
		}
		defer h.leave()
		for _, known := range []map[uint64]string{m.Nodes, m.NonVotings} {
			for old := range known {
				if numberOf(old, founders) == number && old != replica { // the next turn goes on
					return false, h.nh.SyncRequestDeleteReplica(ctx, shard, old, m.ConfigChangeID)
				}
			}
		}
		if _, in := m.NonVotings[replica]; in {
			return true, nil
		}
		return false, h.nh.SyncRequestAddNonVoting(ctx, shard, replica, h.address(peer), m.ConfigChangeID)
	})
}

// remove takes the replicas out of a group whose members have left, and returns
// whether there was one. It gives way to other changes: who calls it does so again.
func (h *raftHost) remove(ctx context.Context, shard uint64, left func(number uint64) bool) (removed bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, h.attempt())
	defer cancel()
	m, err := h.membership(ctx, shard)
	if err != nil {
		return false, err
	}
	for _, known := range []map[uint64]string{m.Nodes, m.NonVotings} {
		for replica := range known {
			if !left(numberOf(replica, len(h.founders))) {
				continue
			}
			if !h.enter() {
				return false, log.ErrClosed
			}
			err := h.nh.SyncRequestDeleteReplica(ctx, shard, replica, m.ConfigChangeID)
			h.leave()
			return true, err
		}
	}
	return false, nil
}

// promote gives this node's replica of a group its vote. It waits until those that have
// left have none any more: else there could be more votes than seats, and a majority of
// the seats would be none.
func (h *raftHost) promote(ctx context.Context, shard uint64, self identity.PeerID, left func(number uint64) bool) error {
	replica := h.replica()
	return h.change(ctx, shard, func(ctx context.Context, m *dragonboat.Membership) (bool, error) {
		if _, in := m.Nodes[replica]; in {
			return true, nil
		}
		if _, gone := m.Removed[replica]; gone {
			return true, fmt.Errorf("%w: this replica was taken out of the group, another one of the same member took its place; move the directory away and rejoin", ErrMismatch)
		}
		for other := range m.Nodes {
			if left(numberOf(other, len(h.founders))) {
				return false, nil // the leader takes it out
			}
		}
		if !h.enter() {
			return false, log.ErrClosed
		}
		defer h.leave()
		return false, h.nh.SyncRequestAddReplica(ctx, shard, replica, h.address(self), m.ConfigChangeID)
	})
}
