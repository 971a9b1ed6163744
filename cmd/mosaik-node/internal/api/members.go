package api

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

// Membership is who the members of a group are.
type Membership struct {
	Group   string           `json:"group"`
	Seats   int              `json:"seats"` // of the committee
	Policy  MembershipPolicy `json:"policy"`
	Members []Member         `json:"members"` // by number
}

// MembershipPolicy is how the membership of a group changes by itself
// (log.MembershipPolicy).
type MembershipPolicy struct {
	Open    bool      `json:"open"`
	Promote bool      `json:"promote"`
	Readers int       `json:"readers"`
	Grace   string    `json:"grace"`          // a duration such as 10m0s; 0s: for ever
	Since   time.Time `json:"since,omitzero"` // verdicts before it are not accepted
}

// Member is one of them.
type Member struct {
	Peer     identity.PeerID  `json:"peer"`
	Number   uint64           `json:"number"`             // its own for ever
	Seat     uint64           `json:"seat"`               // 0: it is a reader
	By       *identity.PeerID `json:"by,omitempty"`       // who let it in; absent for founders
	Evidence *identity.ID     `json:"evidence,omitempty"` // what on; absent: an operator's word
	At       time.Time        `json:"at,omitzero"`        // when
	Expires  time.Time        `json:"expires,omitzero"`   // until when; absent: not by itself
}

func membershipOf(group string, m *log.Membership) Membership {
	out := Membership{Group: group, Seats: m.Seats, Policy: policyOf(m.Policy), Members: []Member{}}
	for _, x := range m.Members {
		member := Member{Peer: x.Peer, Number: x.Number, Seat: x.Seat, At: x.Verdict.At, Expires: x.Verdict.Expires}
		if !x.Verdict.By.IsZero() {
			member.By = &x.Verdict.By
		}
		if !x.Verdict.Evidence.IsZero() {
			member.Evidence = &x.Verdict.Evidence
		}
		out.Members = append(out.Members, member)
	}
	return out
}

func policyOf(p log.MembershipPolicy) MembershipPolicy {
	return MembershipPolicy{Open: p.Open, Promote: p.Promote, Readers: p.Readers, Grace: p.Grace.String(), Since: p.Since}
}

// serveMembers describes the members of a group.
func (s *Server) serveMembers(w http.ResponseWriter, r *http.Request) error {
	if err := newParams(r).done(); err != nil {
		return err
	}
	g, err := s.local.group(r.PathValue("group"))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), s.opts.SyncTimeout)
	defer cancel()
	m, err := g.Members(ctx)
	if err != nil {
		return err
	}
	return sendJSON(w, membershipOf(g.Name(), &m))
}

// admitted is what an admission comes to.
type admitted struct {
	Number uint64 `json:"number"`
}

// serveAdmit lets a peer into the groups.
func (s *Server) serveAdmit(w http.ResponseWriter, r *http.Request) error {
	p := newParams(r)
	v := log.Verdict{Expires: p.time("expires")}
	return s.serveMember(w, r, p, func(ctx context.Context, peer identity.PeerID) (a admitted, err error) {
		a.Number, err = s.engine.Admit(ctx, peer, v)
		return a, err
	})
}

// serveEvict takes a peer out of the groups.
func (s *Server) serveEvict(w http.ResponseWriter, r *http.Request) error {
	return s.serveMember(w, r, newParams(r), func(ctx context.Context, peer identity.PeerID) (a admitted, err error) {
		return a, s.engine.Evict(ctx, peer)
	})
}

// serveMember changes the membership of the peer of a request's path.
func (s *Server) serveMember(w http.ResponseWriter, r *http.Request, p *params, change func(context.Context, identity.PeerID) (admitted, error)) error {
	ctx, _, leave, err := s.enter(r, false)
	if err != nil {
		return err
	}
	defer leave()
	if err := p.done(); err != nil {
		return err
	}
	peer, err := identity.ParsePeerID(r.PathValue("peer"))
	if err != nil {
		return fmt.Errorf("%w: peer: %w", ErrRequest, err)
	}
	ctx, cancel := context.WithTimeout(ctx, s.opts.SyncTimeout)
	defer cancel()
	a, err := change(ctx, peer)
	if err != nil {
		return err
	}
	return sendJSON(w, a)
}

// servePolicy replaces the policy of the groups' membership.
func (s *Server) servePolicy(w http.ResponseWriter, r *http.Request) error {
	ctx, _, leave, err := s.enter(r, false)
	if err != nil {
		return err
	}
	defer leave()
	p := newParams(r)
	policy := log.MembershipPolicy{Open: p.flag("open"), Promote: p.flag("promote"), Since: p.time("since")}
	readers := p.number("readers")
	if grace := p.text("grace"); grace != "" {
		if policy.Grace, err = time.ParseDuration(grace); err != nil {
			p.fail("grace", err)
		}
	}
	if err := p.done(); err != nil {
		return err
	}
	policy.Readers = int(min(readers, log.MaxReaders+1)) // Validate refuses what is above
	ctx, cancel := context.WithTimeout(ctx, s.opts.SyncTimeout)
	defer cancel()
	if err := s.engine.SetMembershipPolicy(ctx, policy); err != nil {
		return err
	}
	return sendJSON(w, policyOf(policy))
}

// Members describes the members of a group.
func (c *Client) Members(ctx context.Context, group string) (Membership, error) {
	var m Membership
	err := c.get(ctx, "/groups/"+segment(group)+"/members", nil, &m)
	return m, err
}

// Admit lets a peer into the groups of the node, until a moment if that is not zero, and
// returns its number.
func (c *Client) Admit(ctx context.Context, peer identity.PeerID, expires time.Time) (number uint64, err error) {
	query := url.Values{}
	if !expires.IsZero() {
		query.Set("expires", expires.UTC().Format(time.RFC3339Nano))
	}
	var a admitted
	err = c.post(ctx, "/members/"+peer.String()+"/admit", query, "", nil, &a)
	return a.Number, err
}

// Evict takes a peer out of the groups of the node.
func (c *Client) Evict(ctx context.Context, peer identity.PeerID) error {
	return c.post(ctx, "/members/"+peer.String()+"/evict", nil, "", nil, &admitted{})
}

// SetMembershipPolicy replaces the policy of the membership of the node's groups.
func (c *Client) SetMembershipPolicy(ctx context.Context, p MembershipPolicy) error {
	query := url.Values{"open": {strconv.FormatBool(p.Open)}, "promote": {strconv.FormatBool(p.Promote)}, "readers": {strconv.Itoa(p.Readers)}, "grace": {p.Grace}}
	if !p.Since.IsZero() {
		query.Set("since", p.Since.UTC().Format(time.RFC3339Nano))
	}
	return c.post(ctx, "/policy", query, "", nil, &MembershipPolicy{})
}
