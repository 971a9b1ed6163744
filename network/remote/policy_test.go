package remote

import (
	"errors"
	"iter"
	"testing"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/network"
)

// tagged asks for a tag, as a clause that needs no tickets.
type tagged struct{ tag identity.ID }

func (c tagged) Signature() identity.ID { return c.tag }

func (c tagged) Admit(e *identity.PeerEntry, _ time.Time) (identity.Expiration, error) {
	if !hasTags(e, []identity.ID{c.tag}) {
		return identity.Expiration{}, identity.ReasonAbsent
	}
	return identity.Never(), nil
}

// TestPolicy: who may do what, and how it is refused.
func TestPolicy(t *testing.T) {
	badge := identity.NewID("badge")
	has := func(e *identity.PeerEntry) { e.Tags = []identity.ID{badge} }
	plain := func(*identity.PeerEntry) {}
	other := identity.NewID("other")
	onlyKey := &Rule{Allow: func(a Access) bool { return a.Key == testKey }}
	readOne := func(g *Group, key identity.ID) (err error) {
		for _, e := range g.Scan(testContext(t), log.Query{Key: key}) {
			err = e
		}
		return err
	}
	read := func(g *Group) error { return readOne(g, testKey) }
	write := func(g *Group) error { _, err := g.Append(testContext(t), testKey, nil); return err }
	open := func(g *Group) error {
		_, err := log.MapDef[string, string]{Name: "map"}.Open(testContext(t), g)
		return err
	}
	submit := func(g *Group) error {
		_, err := g.Submit(testContext(t), &log.Transaction{Conditions: []log.Condition{{Key: other, Kind: log.RowAbsent}}, Commands: []log.KeyedCommand{{Key: testKey}}})
		return err
	}
	for name, test := range map[string]struct {
		policy *Policy
		entry  func(*identity.PeerEntry)
		do     func(*Group) error
		want   error
	}{
		"no service":               {nil, plain, read, network.UnknownProtocol},
		"nobody reads":             {&Policy{Produce: new(Rule)}, plain, read, network.NotAllowed},
		"nobody writes":            {&Policy{Consume: new(Rule)}, plain, write, network.NotAllowed},
		"nobody at all":            {&Policy{}, plain, write, network.NotAllowed},
		"without a ticket":         {&Policy{Consume: &Rule{Clause: tagged{badge}}}, plain, read, network.TicketReason(identity.ReasonAbsent)},
		"with a ticket":            {&Policy{Consume: &Rule{Clause: tagged{badge}}}, has, read, nil},
		"a ticket for the other":   {&Policy{Consume: new(Rule), Produce: &Rule{Clause: tagged{badge}}}, plain, write, network.TicketReason(identity.ReasonAbsent)},
		"the key":                  {&Policy{Consume: onlyKey}, plain, read, nil},
		"another key":              {&Policy{Consume: onlyKey}, plain, func(g *Group) error { return readOne(g, other) }, network.NotAllowed},
		"write the key":            {&Policy{Produce: onlyKey}, plain, write, nil},
		"register":                 {&Policy{Produce: &Rule{Allow: func(a Access) bool { return a.Key == identity.NewID("map") }}}, plain, open, nil},
		"register another":         {&Policy{Produce: onlyKey}, plain, open, network.NotAllowed},
		"a condition on another":   {&Policy{Produce: onlyKey}, plain, submit, network.NotAllowed},
		"too far":                  {&Policy{Consume: &Rule{MaxRTT: 1}}, plain, read, TooFar},
		"too far to write":         {&Policy{Produce: &Rule{MaxRTT: 1}}, plain, write, TooFar},
		"near enough":              {&Policy{Consume: &Rule{MaxRTT: time.Minute}}, plain, read, nil},
		"a producer asks who does": {&Policy{Produce: onlyKey}, plain, func(g *Group) error { return g.Online(testContext(t), testKey, OnlineWhen{}) }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			w := newTown(t)
			m := newMemory(t)
			o := serve(test.policy, m)
			a, guest := w.open(1, o, plain), w.open(2, Options{}, test.entry)
			if err := test.do(guest.guest(t, GroupOptions{}, a)); !errors.Is(err, test.want) {
				t.Errorf("%v, want %v", err, test.want)
			}
			if test.want != nil && m.Head().Number > 0 {
				t.Errorf("%d commits", m.Head().Number)
			}
		})
	}
}

// TestGuestRefuses: who asks has conditions, too.
func TestGuestRefuses(t *testing.T) {
	badge := identity.NewID("badge")
	m, w := newMemory(t), newTown(t)
	fill(t, m, 0, 3)
	plain := w.open(1, serve(everybody(), m))
	good := w.open(2, serve(everybody(), m), func(e *identity.PeerEntry) { e.Tags = []identity.ID{badge} })
	guest := w.open(3, Options{})
	for name, test := range map[string]struct {
		o    GroupOptions
		want error
		only *house // who may answer
	}{
		"clause":    {GroupOptions{Clause: tagged{badge}}, identity.ReasonAbsent, good},
		"predicate": {GroupOptions{Allow: func(e *identity.PeerEntry) bool { return e.Peer == good.e.Peer() }}, network.NotAllowed, good},
		"distance":  {GroupOptions{MaxRTT: 1}, TooFar, nil},
	} {
		t.Run(name, func(t *testing.T) {
			for _, follow := range []bool{false, true} {
				var err error
				for _, err = range guest.guest(t, test.o, plain).Scan(testContext(t), log.Query{Key: testKey, Follow: follow}) {
				}
				if !errors.Is(err, test.want) {
					t.Errorf("%v, want %v", err, test.want)
				}
			}
			if _, err := guest.guest(t, test.o, plain).Append(testContext(t), testKey, nil); !errors.Is(err, test.want) {
				t.Errorf("%v, want %v", err, test.want)
			}
			if test.only == nil {
				return
			}
			for run, err := range guest.guest(t, test.o, plain, test.only).Scan(testContext(t), log.Query{Key: testKey, Follow: true}) {
				if err != nil {
					t.Fatal(err)
				}
				if run.LastSeq() == 3 {
					break
				}
			}
		})
	}
}

// TestTicketLaidDown: a tail ends when the entry of its consumer no longer fulfils the
// clause, although the connection may stay for what else the peer is allowed.
func TestTicketLaidDown(t *testing.T) {
	badge := identity.NewID("badge")
	m, w := newMemory(t), newTown(t)
	fill(t, m, 0, 1)
	a := w.open(1, serve(&Policy{Consume: &Rule{Clause: tagged{badge}}, Produce: new(Rule)}, m))
	guest := w.open(2, Options{}, func(e *identity.PeerEntry) { e.Tags = []identity.ID{badge} })
	g := guest.guest(t, GroupOptions{}, a)
	next, stop := iter.Pull2(g.Scan(testContext(t), log.Query{Key: testKey, Follow: true}))
	defer stop()
	if _, err, _ := next(); err != nil {
		t.Fatal(err)
	}
	if err := guest.e.ChangeEntry(func(e *identity.PeerEntry) { e.Tags = nil }); err != nil {
		t.Fatal(err)
	}
	if _, err, _ := next(); !errors.Is(err, network.TicketReason(identity.ReasonAbsent)) {
		t.Errorf("%v", err)
	}
	if _, err := g.Append(testContext(t), testKey, nil); err != nil {
		t.Error(err)
	}
	if got := a.Metrics().Served[network.TicketReason(identity.ReasonAbsent)]; got == 0 {
		t.Errorf("%v", a.Metrics())
	}
}

// TestOptions: what cannot be is refused, by the name of the field.
func TestOptions(t *testing.T) {
	w := newTown(t)
	h := w.open(1, Options{})
	for _, o := range []GroupOptions{
		{Window: MinWindow - 1}, {Window: MaxWindow + 1}, {BackoffMin: -1}, {BackoffMin: time.Second, BackoffMax: time.Millisecond}, {MaxRTT: -1},
	} {
		if _, err := h.Group(testGroup, o); err == nil {
			t.Errorf("%+v", o)
		}
	}
	for _, o := range []Options{{Pulse: -1}, {Policy: new(Policy)}, {Policy: &Policy{MaxConsumers: -1}, Groups: func(identity.ID) Source { return nil }}} {
		if _, err := Open(h.e, o); err == nil {
			t.Errorf("%+v", o)
		}
	}
	if _, err := Open(h.e, Options{}); !errors.Is(err, network.ErrProtocol) {
		t.Errorf("twice on one endpoint: %v", err)
	}
}
