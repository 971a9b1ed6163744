package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/lni/dragonboat/v4"

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

// lastIncarnation returns the highest incarnation of a seat that the group has seen.
func (h *raftHost) lastIncarnation(ctx context.Context, shard, seat uint64) (last uint64, err error) {
	seats := len(h.members)
	err = h.change(ctx, shard, func(_ context.Context, m *dragonboat.Membership) (bool, error) {
		for _, known := range [][]uint64{slices.Collect(maps.Keys(m.Nodes)), slices.Collect(maps.Keys(m.NonVotings)), slices.Collect(maps.Keys(m.Removed))} {
			for _, replica := range known {
				if seatOf(replica, seats) == seat {
					last = max(last, (replica-seat)/uint64(seats))
				}
			}
		}
		return true, nil
	})
	return last, err
}

// replace takes the replicas of a seat out of a group and another one in.
func (h *raftHost) replace(ctx context.Context, shard, seat, incarnation uint64) error {
	seats := len(h.members)
	replica := replicaID(seat, incarnation, seats)
	return h.change(ctx, shard, func(ctx context.Context, m *dragonboat.Membership) (bool, error) {
		if !h.enter() {
			return false, log.ErrClosed
		}
		defer h.leave()
		for _, known := range []map[uint64]string{m.Nodes, m.NonVotings} {
			for old := range known {
				if seatOf(old, seats) == seat && old != replica { // the next turn goes on
					return false, h.nh.SyncRequestDeleteReplica(ctx, shard, old, m.ConfigChangeID)
				}
			}
		}
		if _, in := m.NonVotings[replica]; in {
			return true, nil
		}
		return false, h.nh.SyncRequestAddNonVoting(ctx, shard, replica, h.members[seat], m.ConfigChangeID)
	})
}

// promote gives this node's replica of a group its vote.
func (h *raftHost) promote(ctx context.Context, shard uint64) error {
	replica := replicaID(h.self, h.incarnation, len(h.members))
	return h.change(ctx, shard, func(ctx context.Context, m *dragonboat.Membership) (bool, error) {
		if _, in := m.Nodes[replica]; in {
			return true, nil
		}
		if _, gone := m.Removed[replica]; gone {
			return true, fmt.Errorf("%w: this replica was taken out of the group, another one of the same member took its place; move the directory away and rejoin", ErrMismatch)
		}
		if !h.enter() {
			return false, log.ErrClosed
		}
		defer h.leave()
		return false, h.nh.SyncRequestAddReplica(ctx, shard, replica, h.members[h.self], m.ConfigChangeID)
	})
}
