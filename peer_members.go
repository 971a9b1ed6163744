package mosaik

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/mosaik-engine/mosaik/engine"
	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/network"
	"github.com/mosaik-engine/mosaik/network/catalog"
	"github.com/mosaik-engine/mosaik/network/remote"
)

// The members of a Peer's groups change while it runs (engine.Engine.Admit). What the
// network has to know of that is here: whose connections are let in, which peer is
// behind a replica, and which verdicts to renew.

// roster is who takes part in the groups of a Peer. Its methods may be called from any
// goroutine.
type roster struct {
	founders []identity.PeerID
	clause   identity.Clause // what the entry of a member has to fulfil
	guests   *remote.Policy  // PeerOptions.Remote

	mu     sync.Mutex
	keys   []engine.GroupKey // of the groups
	groups map[string]log.Membership
	seen   map[identity.PeerID]time.Time // when members that are no founders were last connected
	at     map[identity.PeerID][]string  // where members, and who asked to be one, say they are
	news   chan struct{}                 // has a place: something has changed
}

func newRoster(founders []identity.PeerID, clause identity.Clause, guests *remote.Policy) *roster {
	return &roster{
		founders: founders, clause: clause, guests: guests,
		groups: make(map[string]log.Membership), seen: make(map[identity.PeerID]time.Time), at: make(map[identity.PeerID][]string), news: make(chan struct{}, 1),
	}
}

// announce has runMembers look.
func (r *roster) announce() {
	select {
	case r.news <- struct{}{}:
	default:
	}
}

// set replaces what is known of a group.
func (r *roster) set(group string, m log.Membership) {
	r.mu.Lock()
	r.groups[group] = m
	r.mu.Unlock()
	r.announce()
}

// begin is set for a group of which nothing has changed meanwhile.
func (r *roster) begin(group string, m log.Membership) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, known := r.groups[group]; !known {
		r.groups[group] = m
	}
}

// of returns what is known of a group: its founders, if it is nothing.
func (r *roster) of(group identity.ID) log.Membership {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, k := range r.keys {
		if m, ok := r.groups[k.Name]; ok && k.ID == group {
			return m
		}
	}
	return log.Founded(r.founders)
}

// know sets which groups there are.
func (r *roster) know(keys []engine.GroupKey) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.keys = keys
}

// authorize lets in members for as long as their entries fulfil the clause. Everybody may
// take part in the catalog, if there is one, and use the groups from outside as the policy
// for guests says. Where that of the membership is open, who fulfils the clause may ask to
// be taken in.
func (r *roster) authorize(ctx context.Context, q network.Request) (time.Time, error) {
	if q.Protocol == catalog.Protocol || q.Protocol == remote.Protocol {
		return guestsOnly(r.guests)(ctx, q)
	}
	m := r.of(q.Group)
	asks := m.Policy.Open && q.Protocol == network.ReadmitProtocol && !q.Dialled
	if _, member := m.Of(q.Peer); !member && !asks {
		return time.Time{}, fmt.Errorf("%w: %s is not among the members", network.NotAllowed, q.Peer.Short())
	}
	return r.admit(q.Peer, q.Entry)
}

// admit judges the entry of a peer; nil: it has shown none.
func (r *roster) admit(peer identity.PeerID, entry *identity.SignedEntry) (until time.Time, err error) {
	shown := identity.PeerEntry{Peer: peer}
	if entry != nil {
		shown = entry.Entry
	}
	expires, err := r.clause.Admit(&shown, time.Now())
	if err != nil {
		return time.Time{}, err
	}
	until, _ = expires.Time() // the zero time if there is none, as Authorizer and Verdict have it
	return until, nil
}

// verdict is that on an entry, for the log.
func (r *roster) verdict(peer identity.PeerID, entry *identity.SignedEntry) (v log.Verdict, err error) {
	if v.Expires, err = r.admit(peer, entry); err != nil || entry == nil {
		return v, err
	}
	v.Evidence, v.Record = entry.Digest(), entry.Bytes()
	return v, nil
}

// readmit takes a member in that asks, and lets it in first where the policy is open.
func (r *roster) readmit(ctx context.Context, n *Node, q network.ReadmitRequest) (*network.Readmitted, error) {
	member := true
	open := len(q.Groups) > 0
	for _, g := range q.Groups {
		m := r.of(g)
		_, in := m.Of(q.Peer)
		member, open = member && in, open && m.Policy.Open
	}
	if !member && open {
		v, err := r.verdict(q.Peer, q.Entry)
		if err == nil {
			_, err = n.Admit(ctx, q.Peer, v)
		}
		if err != nil {
			return nil, err
		}
	}
	a, err := n.Readmit(ctx, q.Peer, q.Groups)
	if err != nil {
		return nil, err
	}
	if q.Entry != nil {
		r.learn(q.Entry, true)
	}
	return &network.Readmitted{Number: uint32(a.Number), Incarnation: uint32(a.Incarnation), Committee: a.Committee}, nil
}

// rejoin asks the founders to be taken back, or in.
func (r *roster) rejoin(e *network.Endpoint) func(context.Context, []identity.ID) (*engine.Readmission, error) {
	return func(ctx context.Context, groups []identity.ID) (*engine.Readmission, error) {
		a, err := e.AskReadmit(ctx, r.founders, groups)
		if err != nil && !slices.Contains(r.founders, e.Peer()) {
			err = fmt.Errorf("mosaik: peer %s is not among the members, and has to be let in by one of them (group admit): %w", e.Peer(), err)
		}
		if err != nil {
			return nil, err
		}
		return &engine.Readmission{Number: uint64(a.Number), Incarnation: uint64(a.Incarnation), Committee: a.Committee}, nil
	}
}

// learn takes in where a member says it is, from an entry that it has shown.
func (r *roster) learn(s *identity.SignedEntry, asks bool) {
	if asks || r.peers()[s.Entry.Peer] {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.at[s.Entry.Peer] = s.Entry.Addresses
	}
}

// addresses returns where a member said it is.
func (r *roster) addresses(peer identity.PeerID) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.at[peer]
}

// lastSeen returns when a peer was last connected, or when that was first asked.
func (r *roster) lastSeen(e *network.Endpoint, peer identity.PeerID) time.Time {
	connected := slices.ContainsFunc(e.Conns(), func(c network.Info) bool { return c.Peer == peer })
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, known := r.seen[peer]; connected || !known {
		r.seen[peer] = time.Now()
	}
	return r.seen[peer]
}

// peers returns everybody who takes part in one of the groups.
func (r *roster) peers() map[identity.PeerID]bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make(map[identity.PeerID]bool)
	for _, m := range r.groups {
		for _, x := range m.Members {
			all[x.Peer] = true
		}
	}
	return all
}

// runMembers has the endpoint go by the members there are, until the Peer is closed.
func (p *Peer) runMembers(done func()) {
	defer done()
	before := make(map[identity.PeerID]bool)
	greet := time.NewTicker(greetInterval)
	defer greet.Stop()
	p.greet()
	for {
		select {
		case <-p.roster.news:
		case <-greet.C:
			p.greet()
			continue
		case <-p.background.Done():
			return
		}
		if err := p.carry(); err != nil && !errors.Is(err, log.ErrClosed) {
			p.logger.Warn("the network cannot follow the members", "err", err)
		}
		now := p.roster.peers()
		for peer := range before {
			if !now[peer] {
				p.Endpoint.Recheck(peer)
			}
		}
		for peer := range now {
			if !before[peer] {
				p.Endpoint.Recheck(peer)
			}
		}
		before = now
		p.renew()
	}
}

// greetInterval is how often a member that is no founder sees to it that the others know
// where it is.
const greetInterval = 3 * time.Second

// greet connects for a moment with the members that this node has no connection with. The
// founders' addresses are in everybody's settings; where another one is, its entry says,
// and whoever has not seen that cannot send it anything.
func (p *Peer) greet() {
	if slices.Contains(p.roster.founders, p.Node.Peer()) {
		return
	}
	connected := make(map[identity.PeerID]bool)
	for _, c := range p.Endpoint.Conns() {
		connected[c.Peer] = true
	}
	for peer := range p.roster.peers() {
		if peer == p.Node.Peer() || connected[peer] {
			continue
		}
		ctx, cancel := context.WithTimeout(p.background, greetInterval)
		if c, err := p.Endpoint.Dial(ctx, peer, network.RaftProtocol); err == nil { // else the next time
			c.Close()
		}
		cancel()
	}
}

// renew commits later verdicts on members whose entries hold for longer now. Of the
// members it is the leader who does.
func (p *Peer) renew() {
	ctx, cancel := context.WithTimeout(p.background, renewTimeout)
	defer cancel()
	entries := p.Endpoint.Entries()
	for _, g := range p.groups {
		if s := g.Status(); s.Leader != s.Self {
			continue
		}
		m := p.roster.of(g.ID())
		for _, x := range m.Members {
			if x.Verdict.Evidence.IsZero() || x.Verdict.Expires.IsZero() {
				continue // a founder, or on an operator's word
			}
			i := slices.IndexFunc(entries, func(s *identity.SignedEntry) bool { return s.Entry.Peer == x.Peer })
			if i < 0 || entries[i].Digest() == x.Verdict.Evidence {
				continue
			}
			v, err := p.roster.verdict(x.Peer, entries[i])
			if err != nil || !v.Expires.IsZero() && !v.Expires.After(x.Verdict.Expires) {
				continue
			}
			if _, err := p.Node.Admit(ctx, x.Peer, v); err != nil {
				p.logger.Warn("a verdict could not be renewed", "member", x.Peer.Short(), "err", err)
			}
		}
	}
}

// renewTimeout bounds the renewal of verdicts.
const renewTimeout = 10 * time.Second

// carry has the endpoint carry the traffic of the groups between the members there are.
func (p *Peer) carry() error {
	var carried []network.Group
	p.roster.mu.Lock()
	keys := p.roster.keys
	p.roster.mu.Unlock()
	for _, g := range keys {
		admitted := make(map[uint64]identity.PeerID)
		if p.Node != nil && p.Node.Number() > uint64(len(p.roster.founders)) {
			admitted[p.Node.Number()] = p.Node.Peer() // it has to hear from the others first that it is one
		}
		m := p.roster.of(g.ID)
		for _, x := range m.Members {
			if x.Number > uint64(len(p.roster.founders)) {
				admitted[x.Number] = x.Peer
			}
		}
		carried = append(carried, network.Group{ID: g.ID, Key: g.Key, Members: p.roster.founders, Admitted: admitted})
	}
	return p.Endpoint.SetGroups(carried)
}
