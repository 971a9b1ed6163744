package remote

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/network"
)

// Policy says what peers that are no members may do with the groups of a node. The zero
// Policy lets nobody do anything.
type Policy struct {
	// Consume is asked about reads and tails, Produce about writes. Nil: nobody may. Who
	// may do one of them may read the group's directory, and a producer write to it what
	// opening a stream or a collection writes.
	Consume, Produce *Rule
	// MaxConsumers bounds the tails of one key at this node: a further one ends with
	// NoCapacity. 0: no bound but those of the protocol.
	MaxConsumers int
	// MaxLag is how many records a consumer that has once come to the end of the log may
	// fall behind, at this node. One that has fallen farther is disconnected: its tail ends
	// with network.TooSlow. 0: it may take its time.
	MaxLag uint64
}

// Rule says who may do something.
type Rule struct {
	// Clause is what the entry of the peer has to fulfil, as a rule that it holds a
	// ticket (identity.Require), for as long as a channel lasts. Nil: nothing.
	Clause identity.Clause
	// Allow, if not nil, decides as well. It is asked when a channel is opened and each
	// time the peer shows another entry, from several goroutines, and must not block.
	Allow func(Access) bool
	// MaxRTT is how long a message to the peer and the answer may take, the least of the
	// last few. 0: any time.
	MaxRTT time.Duration
}

// Access is what a Rule decides about.
type Access struct {
	Peer  identity.PeerID
	Entry *identity.PeerEntry // what the peer says of itself; never nil, shared
	Group identity.ID
	// Key is the log that is read or written; zero for what is about the group alone. A
	// transaction is asked about once for each of its keys.
	Key    identity.ID
	Writes bool
}

// Authorize decides about a connection of this protocol, for network.Options.Authorize: it
// is allowed while the clause of Consume or of Produce is fulfilled, and always if this
// node has dialled. Who may do what on it is decided channel by channel.
func (p *Policy) Authorize(_ context.Context, r network.Request) (time.Time, error) {
	if r.Dialled {
		return time.Time{}, nil
	}
	if p == nil {
		return time.Time{}, fmt.Errorf("%w: this node serves its members only", network.NotAllowed)
	}
	until, err := p.Consume.holds(entryOf(r.Peer, r.Entry), time.Now())
	other, otherErr := p.Produce.holds(entryOf(r.Peer, r.Entry), time.Now())
	switch {
	case otherErr == nil:
	case p.Consume == nil:
		return time.Time{}, otherErr // says more, if there is a rule
	case err != nil:
		return time.Time{}, err
	}
	if other.Compare(until) > 0 {
		until = other // that of a rule that is not fulfilled is the earliest there is
	}
	at, _ := until.Time()
	return at, nil
}

// entryOf returns what a peer says of itself, which may be nothing.
func entryOf(peer identity.PeerID, s *identity.SignedEntry) *identity.PeerEntry {
	if s == nil {
		return &identity.PeerEntry{Peer: peer}
	}
	return &s.Entry
}

// holds returns until when the clause of a rule is fulfilled.
func (r *Rule) holds(e *identity.PeerEntry, now time.Time) (identity.Expiration, error) {
	switch {
	case r == nil:
		return identity.Expiration{}, network.NotAllowed
	case r.Clause == nil:
		return identity.Never(), nil
	}
	return r.Clause.Admit(e, now)
}

// admits returns until when a peer may do something on the key.
func (r *Rule) admits(a Access, now time.Time) (identity.Expiration, error) {
	until, err := r.holds(a.Entry, now)
	if err == nil && r.Allow != nil && !r.Allow(a) {
		err = network.NotAllowed
	}
	return until, err
}

// admit returns until when a peer may have what it requests, and by which rule.
func (p *Policy) admit(peer identity.PeerID, s *identity.SignedEntry, r *request, now time.Time) (identity.Expiration, *Rule, error) {
	a := Access{Peer: peer, Entry: entryOf(peer, s), Group: r.group, Key: r.key, Writes: r.op.writes()}
	if a.Writes {
		until := identity.Never()
		for _, a.Key = range r.writtenTo() {
			u, err := p.Produce.admits(a, now)
			if err != nil {
				return identity.Expiration{}, nil, err
			}
			until = until.Earliest(u)
		}
		return until, p.Produce, nil
	}
	ask := (*Rule).admits
	if r.key == log.DirectoryKey() {
		ask = func(rule *Rule, a Access, now time.Time) (identity.Expiration, error) {
			return rule.holds(a.Entry, now)
		}
	}
	until, err := ask(p.Consume, a, now)
	if err == nil {
		return until, p.Consume, nil
	}
	if r.op == opWait || r.op == opSync || r.op == opConsumers || r.key == log.DirectoryKey() { // a producer needs it
		if until, other := ask(p.Produce, a, now); other == nil {
			return until, p.Produce, nil
		}
	}
	return identity.Expiration{}, nil, err
}

// writtenTo returns the keys that a request to write is about, at least one: of a
// transaction also those of its conditions, and of a record of the directory the key
// that it registers.
func (r *request) writtenTo() []identity.ID {
	if r.op == opAppend && r.key != log.DirectoryKey() {
		return []identity.ID{r.key}
	}
	keys := make(map[identity.ID]struct{})
	for _, payload := range r.payloads {
		key := r.key // of what is no entry, which the log refuses
		if e, err := log.CBOR[log.DirectoryEntry]().Decode(payload); err == nil {
			key = e.Key()
		}
		keys[key] = struct{}{}
	}
	for i := range r.transaction.Conditions {
		keys[r.transaction.Conditions[i].Key] = struct{}{}
	}
	for i := range r.transaction.Commands {
		keys[r.transaction.Commands[i].Key] = struct{}{}
	}
	if len(keys) == 0 {
		keys[r.key] = struct{}{}
	}
	return slices.SortedFunc(maps.Keys(keys), identity.ID.Compare)
}
