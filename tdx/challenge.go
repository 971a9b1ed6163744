package tdx

import (
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
)

// MaxChallenges is the largest number of challenges that are open at once.
const MaxChallenges = 1024

// ErrChallenge reports a challenge that was not put, not to this peer, too long ago,
// or that was redeemed before.
var ErrChallenge = errors.New("tdx: challenge is not open")

// Challenges are the questions of one member to those who want to be admitted to a
// group: each is answered by one peer, once, in time. So a ticket of class v2 proves
// that its quote was made after the question and for it.
type Challenges struct {
	group    identity.ID
	lifetime time.Duration

	mu   sync.Mutex
	open map[identity.ID]question
}

type question struct {
	peer  identity.PeerID
	until time.Time
}

// NewChallenges returns the challenges of a group, each open for a lifetime; 0 means
// one minute.
func NewChallenges(group identity.ID, lifetime time.Duration) *Challenges {
	if lifetime <= 0 {
		lifetime = time.Minute
	}
	return &Challenges{group: group, lifetime: lifetime, open: map[identity.ID]question{}}
}

// Put returns a new challenge for a peer as of an epoch of the group's membership. A
// peer has one open challenge; a new one takes its place. The error wraps [ErrBusy].
func (c *Challenges) Put(peer identity.PeerID, epoch uint64) (identity.ID, error) {
	var nonce [32]byte
	if _, err := rand.Read(nonce[:]); err != nil {
		return identity.ID{}, fmt.Errorf("tdx: challenge: %w", err)
	}
	id, now := Challenge(c.group, epoch, nonce), time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	for old, q := range c.open {
		if q.peer == peer || now.After(q.until) {
			delete(c.open, old)
		}
	}
	if len(c.open) >= MaxChallenges {
		return identity.ID{}, fmt.Errorf("%w: %d challenges are open", ErrBusy, MaxChallenges)
	}
	c.open[id] = question{peer: peer, until: now.Add(c.lifetime)}
	return id, nil
}

// Redeem closes a challenge that a peer has answered. Redeem it after the ticket is
// validated with it as its subject's challenge, and admit only if it succeeds: a second
// ticket with the challenge then finds it closed. The error wraps [ErrChallenge].
func (c *Challenges) Redeem(peer identity.PeerID, id identity.ID) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	q, open := c.open[id]
	if !open || q.peer != peer || time.Now().After(q.until) {
		return fmt.Errorf("%w: %s of peer %s", ErrChallenge, id.Short(), peer.Short())
	}
	delete(c.open, id)
	return nil
}
