package mosaik_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mosaik-engine/mosaik"
	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/network"
	"github.com/mosaik-engine/mosaik/tdx"
	"github.com/mosaik-engine/mosaik/tdx/simulated"
)

// attested is a trio whose members run in simulated trust domains and ask each other for
// quotes of an image, the old or the new one.
type attested struct {
	*trio
	authority *simulated.Authority
	clause    identity.Clause
	holders   [3]*tdx.Holder
}

// image is a trust domain that runs the n-th image.
func image(n byte) simulated.TD {
	return simulated.TD{Measurements: tdx.Measurements{MRTD: tdx.Measurement{n}}}
}

func newAttested(t *testing.T) *attested {
	t.Helper()
	a := &attested{trio: newTrio(t)}
	var err error
	a.authority, err = simulated.New([32]byte{1}, simulated.DefaultPlatform(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	cache, err := tdx.OpenCache(tdx.CacheOptions{Root: a.authority.Root(), Fetch: a.authority.Fetch(func() simulated.Statement { return simulated.Statement{} })})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cache.Close() })
	checker := tdx.NewChecker(cache, tdx.CheckerOptions{})
	validator, err := tdx.NewValidator(tdx.Policy{
		Root: a.authority.Root(), MaxLifetime: 24 * time.Hour,
		Variants: []tdx.Criteria{tdx.Exactly(image(1).Measurements), tdx.Exactly(image(2).Measurements)},
	}, checker)
	if err != nil {
		t.Fatal(err)
	}
	a.clause = identity.Require(validator)
	t.Cleanup(func() {
		for _, h := range a.holders {
			if h != nil {
				h.Close()
			}
		}
	})
	return a
}

// start opens node i in a trust domain that runs the n-th image.
func (a *attested) start(i int, n byte) {
	a.t.Helper()
	var mu sync.Mutex
	var peer *mosaik.Peer // once it is open
	var tickets []identity.Ticket
	holder, err := tdx.OpenHolder(a.authority.Quoter(image(n)), tdx.HolderOptions{
		Peer: a.keys[i].PeerID(), Network: identity.NewID("trio"), Lifetime: time.Hour,
		Install: func(class identity.ID, data []byte) {
			mu.Lock()
			defer mu.Unlock()
			tickets = []identity.Ticket{{Class: class, Data: data}}
			if peer != nil {
				if err := peer.SetTickets(tickets); err != nil {
					a.t.Error(err)
				}
			}
		},
	})
	if err != nil {
		a.t.Fatal(err)
	}
	a.holders[i] = holder
	o := a.options(i)
	mu.Lock()
	o.Clauses, o.Tickets = []identity.Clause{a.clause}, tickets
	a.open(i, o)
	peer = a.nodes[i]
	mu.Unlock()
}

// stop closes node i and its trust domain.
func (a *attested) stop(i int) {
	a.t.Helper()
	a.close(i)
	if err := a.holders[i].Close(); err != nil {
		a.t.Fatal(err)
	}
	a.holders[i] = nil
}

// TestPeerTDX: three nodes in simulated trust domains found a group that asks for quotes.
// Each is replaced by one with the new image while appends go on, of which none is
// refused. One with an image that nobody admits gets no part, and both sides say why.
func TestPeerTDX(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	a := newAttested(t)
	for i := range 3 {
		a.start(i, 1)
	}
	a.ready(ctx)
	key := identity.NewID("key")

	var sent atomic.Int64
	for i := range 3 {
		writer := a.nodes[(i+1)%3]
		done := make(chan struct{})
		var writing sync.WaitGroup
		writing.Go(func() {
			for {
				if _, err := writer.Append(ctx, key, fmt.Appendf(nil, "record %d", sent.Load())); err != nil {
					t.Errorf("append %d, while node %d is replaced: %v", sent.Load(), i, err)
					return
				}
				sent.Add(1)
				select {
				case <-done:
					return
				default:
				}
			}
		})
		a.stop(i)
		a.start(i, 2)
		if err := a.nodes[i].Ready(ctx); err != nil {
			t.Fatal(err)
		}
		close(done)
		writing.Wait()
	}
	next := 0
	g := a.nodes[0].Groups()[0]
	if _, err := g.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	for run, err := range g.Scan(ctx, log.Query{Key: key}) {
		if err != nil {
			t.Fatal(err)
		}
		for _, payload := range run.Records() {
			if want := fmt.Sprintf("record %d", next); string(payload) != want {
				t.Fatalf("%q, want %q", payload, want)
			}
			next++
		}
	}
	if next != int(sent.Load()) || next < 3 {
		t.Errorf("%d records, %d were sent", next, sent.Load())
	}

	a.stop(2)
	a.start(2, 3)
	const reason network.Reason = "ticket-measurements"
	deadline, tick := time.After(30*time.Second), time.NewTicker(10*time.Millisecond)
	defer tick.Stop()
	for {
		var refused, told uint64
		for i, n := range a.nodes[:3] {
			switch m := n.Endpoint.Metrics(); i {
			case 2:
				told += m.RefusedBy[reason]
			default:
				refused += m.Refused[reason]
			}
		}
		if refused > 0 && told > 0 {
			break
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("refused %d times, told %d times", refused, told)
		}
	}
	if m := a.nodes[2].Endpoint.Metrics(); m.Accepted+m.Dialled > 0 || m.MessagesIn > 0 {
		t.Errorf("it takes part: %+v", m)
	}
	if _, err := a.nodes[0].Append(ctx, key, []byte("the others go on")); err != nil {
		t.Error(err)
	}
}
