package engine

import (
	"context"
	"fmt"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

// Leading. Any member may lead a group. Who does is Raft's to decide; a node can
// say how much it wants to (Options.Preference), and an operator can ask for a
// member (TransferLeadership). Both are wishes: a member that is down or behind
// does not get the lead.

// transferTurn is how long a request to hand over the lead may take before it is
// made again: the library drops it without a word when the target is behind.
const transferTurn = 300 * time.Millisecond

// TransferLeadership makes another member lead the group and returns when it
// does. It may be called on any member. The error wraps ErrMismatch for a peer
// that is no member, and ErrNoQuorum when the member has not taken the lead by
// the end of ctx.
func (g *Group) TransferLeadership(ctx context.Context, to identity.PeerID) error {
	target, member := g.members.known().Of(to)
	if !member {
		return fmt.Errorf("%w: peer %s is not a member of group %s", ErrMismatch, to.Short(), g.name)
	}
	for {
		changed := g.leaders.changed()
		if err := g.engine.checkClosed(); err != nil {
			return err
		}
		leader, _ := g.host.leader(g.shard)
		if leader == target.Number {
			return nil
		}
		// An error says that there is no leader at the moment or that another request
		// is under way.
		asked := g.host.transfer(g.shard, target.Number)
		t := time.NewTimer(transferTurn)
		select {
		case <-changed:
		case <-t.C:
		case <-g.engine.stop:
			t.Stop()
			return log.ErrClosed
		case <-ctx.Done():
			t.Stop()
			if asked == nil {
				asked = ctx.Err()
			}
			return fmt.Errorf("%w: %s does not lead group %s yet, ask again: %w", ErrNoQuorum, to.Short(), g.name, asked)
		}
		t.Stop()
	}
}

// yieldInterval is the pause between two attempts of a node to give away a lead
// that it does not want.
const yieldInterval = time.Second

// runYield gives the lead of the node's groups away, as its preference demands:
// once per lead for Reluctant, for as long as it leads for Observer.
func (e *Engine) runYield(ctx context.Context) {
	defer e.wg.Done()
	tick := time.NewTicker(yieldInterval)
	defer tick.Stop()
	led := make([]uint64, len(e.groups)) // term of the lead that was offered last
	for turn := 0; ; turn++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for i, g := range e.groups {
			leader, term := g.host.leader(g.shard)
			if leader != g.number || e.opts.Preference == Reluctant && led[i] == term {
				continue
			}
			if g.host.handOver(g.shard, turn) {
				led[i] = term
			}
		}
	}
}
