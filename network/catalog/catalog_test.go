package catalog

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/network"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// peer is a node of a test: an endpoint and a catalog on it.
type peer struct {
	*network.Endpoint
	*Catalog
}

// quick are options under which nothing takes long.
func quick() Options {
	return Options{Round: 50 * time.Millisecond, Redraw: 500 * time.Millisecond, Refresh: 2 * time.Second, Silence: 6 * time.Second}
}

// openPeer opens peer i, which begins with the given ones.
func openPeer(t testing.TB, i int, o Options, seeds ...*peer) *peer {
	t.Helper()
	var known []Seed
	for _, s := range seeds {
		known = append(known, Seed{s.Endpoint.Peer(), []string{s.Addr().String()}})
	}
	if o.Bootstrap == nil {
		o.Bootstrap = func(context.Context) []Seed { return known }
	}
	p := new(peer)
	var mu sync.Mutex // the endpoint may ask before the catalog is there
	at := func() *Catalog { mu.Lock(); defer mu.Unlock(); return p.Catalog }
	var err error
	p.Endpoint, err = network.Open(network.Options{
		Key: keyOf(i), Network: testNetwork,
		Addresses: func(id identity.PeerID) []string {
			if c := at(); c != nil {
				return c.Addresses(id)
			}
			return nil
		},
		Events: network.Events{Entry: func(s *identity.SignedEntry) {
			if c := at(); c != nil {
				c.Hear(s)
			}
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Endpoint.Close() })
	if err := p.ChangeEntry(func(e *identity.PeerEntry) { e.Addresses = []string{p.Addr().String()} }); err != nil {
		t.Fatal(err)
	}
	c, err := Open(p.Endpoint, o)
	if err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	p.Catalog = c
	mu.Unlock()
	t.Cleanup(func() { c.Close() })
	return p
}

func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(30 * time.Second)
	for !holds() {
		select {
		case <-tick.C:
		case <-timeout:
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}

// knows reports whether everybody knows exactly so many.
func knows(peers []*peer, n int) bool {
	for _, p := range peers {
		if p.Stats().Peers != n {
			return false
		}
	}
	return true
}

// TestCatalog: nodes that know one of them find all; a change, a farewell and a death
// are everywhere, and are told to who watches.
func TestCatalog(t *testing.T) {
	first := openPeer(t, 0, quick())
	peers := []*peer{first}
	for i := 1; i < 8; i++ {
		peers = append(peers, openPeer(t, i, quick(), first))
	}
	eventually(t, "everybody knows everybody", func() bool { return knows(peers, 8) })

	var mu sync.Mutex
	told := make(map[string]int)
	ctx, cancel := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	watching.Go(func() {
		for ev := range peers[3].Watch(ctx) {
			mu.Lock()
			told[ev.Kind.String()+" "+ev.Entry.Entry.Peer.Short()+fmt.Sprint(" ", ev.Silent)]++
			mu.Unlock()
		}
	})
	defer watching.Wait()
	defer cancel()
	got := func(kind EventKind, i int, silent bool) bool {
		mu.Lock()
		defer mu.Unlock()
		return told[kind.String()+" "+keyOf(i).PeerID().Short()+fmt.Sprint(" ", silent)] > 0
	}
	for i := range 8 {
		eventually(t, "the watcher is told of who is there", func() bool { return got(PeerDiscovered, i, false) })
	}

	tag := identity.NewID("a tag")
	if err := peers[5].Change(func(e *identity.PeerEntry) { e.Tags = []identity.ID{tag} }); err != nil {
		t.Fatal(err)
	}
	for _, p := range peers {
		eventually(t, "the change is everywhere", func() bool {
			s := p.Catalog.Entry(keyOf(5).PeerID())
			return s != nil && len(s.Entry.Tags) == 1 && s.Entry.Tags[0] == tag
		})
	}
	eventually(t, "the watcher is told of it", func() bool { return got(PeerUpdated, 5, false) })

	if d, err := peers[2].Ping(t.Context(), keyOf(6).PeerID()); err != nil || d <= 0 {
		t.Errorf("%v, %v", d, err)
	}

	if err := errors.Join(peers[7].Catalog.Close(), peers[7].Endpoint.Close()); err != nil {
		t.Fatal(err)
	}
	peers = peers[:7]
	eventually(t, "who has left is gone", func() bool { return knows(peers, 7) })
	eventually(t, "the watcher is told of that", func() bool { return got(PeerDeparted, 7, false) })

	if err := peers[6].Endpoint.Close(); err != nil { // its catalog cannot say farewell
		t.Fatal(err)
	}
	peers = peers[:6]
	eventually(t, "who is dead is gone", func() bool { return knows(peers, 6) })
	eventually(t, "the watcher is told of that, too", func() bool { return got(PeerDeparted, 6, true) })
	if err := peers[3].Catalog.Close(); err != nil {
		t.Fatal(err)
	}
	watching.Wait() // ends with the catalog
}

// TestMoved: a node that comes back at another port is found there.
func TestMoved(t *testing.T) {
	first := openPeer(t, 0, quick())
	second := openPeer(t, 1, quick(), first)
	eventually(t, "both know both", func() bool { return knows([]*peer{first, second}, 2) })
	before := second.Addr().String()
	if err := errors.Join(second.Catalog.Close(), second.Endpoint.Close()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the second is gone", func() bool { return first.Stats().Peers == 1 })
	taken, err := net.Listen("tcp", before) // or it might get the same port again
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	second = openPeer(t, 1, quick(), first)
	eventually(t, "it is back, elsewhere", func() bool {
		at := first.Addresses(second.Endpoint.Peer())
		return len(at) > 0 && at[0] == second.Addr().String()
	})
}

// TestHealed: two networks that begin to know of each other by a seed become one.
func TestHealed(t *testing.T) {
	a := openPeer(t, 0, quick())
	b := openPeer(t, 1, quick(), a)
	var mu sync.Mutex
	var bridge []Seed
	o := quick()
	o.Bootstrap = func(context.Context) []Seed { mu.Lock(); defer mu.Unlock(); return bridge }
	c := openPeer(t, 2, o)
	d := openPeer(t, 3, quick(), c)
	eventually(t, "two networks of two", func() bool { return knows([]*peer{a, b, c, d}, 2) })
	mu.Lock()
	bridge = []Seed{{a.Endpoint.Peer(), []string{a.Addr().String()}}}
	mu.Unlock()
	eventually(t, "one of four", func() bool { return knows([]*peer{a, b, c, d}, 4) })
}

// TestLiar: who sends forged entries is cut off by name, and the others do not notice.
func TestLiar(t *testing.T) {
	honest := openPeer(t, 0, quick())
	other := openPeer(t, 1, quick(), honest)
	eventually(t, "both know both", func() bool { return knows([]*peer{honest, other}, 2) })
	liar, err := network.Open(network.Options{Key: keyOf(9), Network: testNetwork, Addresses: func(identity.PeerID) []string { return []string{honest.Addr().String()} }})
	if err != nil {
		t.Fatal(err)
	}
	defer liar.Close()
	if _, err := liar.Handle(network.Protocol{Name: Protocol, MaxMessage: maxMessage}); err != nil {
		t.Fatal(err)
	}
	conn, err := liar.Dial(t.Context(), honest.Endpoint.Peer(), Protocol)
	if err != nil {
		t.Fatal(err)
	}
	var versions []version
	for i := range 1000 {
		versions = append(versions, version{keyOf(1000 + i).PeerID(), identity.EntryVersion{Started: 1, Updated: 2}})
	}
	if err := conn.WriteMessage((&message{kind: kindAnnounce, versions: versions}).appendTo(nil)); err != nil {
		t.Fatal(err)
	}
	for {
		b, err := conn.ReadMessage()
		if err != nil {
			if !errors.Is(err, network.BadEntry) {
				t.Errorf("cut off by %v", err)
			}
			break
		}
		m, err := decodeMessage(b)
		if err != nil {
			t.Fatal(err)
		}
		if m.kind != kindWant {
			continue
		}
		answer := &message{kind: kindEntries}
		for range m.peers {
			forged := append([]byte(nil), entryOf(t, 1000, 2).Bytes()...)
			forged[len(forged)-1] ^= 1
			answer.entries = append(answer.entries, forged)
		}
		_ = conn.WriteMessage(answer.appendTo(nil)) // it may have been cut off
	}
	if !knows([]*peer{honest, other}, 2) {
		t.Error("a forged entry is known")
	}
	if honest.Metrics().Closed[network.BadEntry] != 1 {
		t.Errorf("%+v", honest.Metrics().Closed)
	}
}

// TestCrowd: a node has so many links and no more; the oldest of others give way.
func TestCrowd(t *testing.T) {
	o := quick()
	o.Links, o.MaxLinks = 1, 3
	first := openPeer(t, 0, o)
	peers := []*peer{first}
	for i := 1; i < 7; i++ {
		peers = append(peers, openPeer(t, i, quick(), first))
	}
	eventually(t, "everybody knows everybody", func() bool { return knows(peers, 7) })
	// Those on their way out count until they are gone.
	eventually(t, "there are no more links than it has room for", func() bool { return first.Stats().Links <= 3 })
}

// TestOptions: what cannot be is refused.
func TestOptions(t *testing.T) {
	e, err := network.Open(network.Options{Key: keyOf(0), Network: testNetwork})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if _, err := Open(e, Options{}); !errors.Is(err, identity.ErrEntry) {
		t.Errorf("without an entry: %v", err)
	}
	if err := e.ChangeEntry(func(*identity.PeerEntry) {}); err != nil {
		t.Fatal(err)
	}
	for _, o := range []Options{{Links: -1}, {Links: 9, MaxLinks: 8}, {MaxPeers: -1}, {MaxBytes: -1}, {Round: -1}, {Redraw: -1}, {Refresh: time.Hour, Silence: time.Hour}} {
		if c, err := Open(e, o); err == nil {
			t.Errorf("%+v: opened", o)
			c.Close()
		}
	}
}

// BenchmarkNodes prints how long 64 nodes of one process take to know each other, a
// change to be everywhere, and what a node costs when nothing happens.
func BenchmarkNodes(b *testing.B) {
	for range b.N {
		first := openPeer(b, 0, Options{})
		peers := []*peer{first}
		for i := 1; i < 64; i++ {
			peers = append(peers, openPeer(b, i, Options{}, first))
		}
		begun := time.Now()
		eventually(b, "everybody knows everybody", func() bool { return knows(peers, 64) })
		b.ReportMetric(time.Since(begun).Seconds(), "s-full")
		begun = time.Now()
		if err := peers[9].Change(func(e *identity.PeerEntry) { e.Tags = []identity.ID{identity.NewID("a tag")} }); err != nil {
			b.Fatal(err)
		}
		eventually(b, "the change is everywhere", func() bool {
			for _, p := range peers {
				if s := p.Catalog.Entry(keyOf(9).PeerID()); s == nil || len(s.Entry.Tags) != 1 {
					return false
				}
			}
			return true
		})
		b.ReportMetric(time.Since(begun).Seconds(), "s-change")
		idle(b, peers)
		for _, p := range peers {
			if err := errors.Join(p.Catalog.Close(), p.Endpoint.Close()); err != nil {
				b.Error(err)
			}
		}
	}
}

// idle reports what the nodes cost for ten seconds of nothing.
func idle(b *testing.B, peers []*peer) {
	sent := func() (n uint64) {
		for _, p := range peers {
			n += p.Metrics().BytesOut
		}
		return n
	}
	bytes, cpu, begun := sent(), cpuTime(b), time.Now()
	<-time.After(10 * time.Second)
	passed := time.Since(begun).Seconds()
	b.ReportMetric(float64(sent()-bytes)/passed/float64(len(peers)), "B/s-idle-each")
	b.ReportMetric(100*(cpuTime(b)-cpu).Seconds()/passed/float64(len(peers)), "%core-idle-each")
}
