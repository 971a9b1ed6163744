package catalog

import (
	"container/heap"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/network"
)

var testNetwork = identity.NewID("catalog test")

func keyOf(i int) identity.Key {
	return identity.KeyFromSeed([identity.Size]byte{byte(i), byte(i >> 8), byte(i >> 16), 0xca})
}

// entryOf signs an entry of peer i.
func entryOf(t testing.TB, i int, updated uint64, tags ...identity.ID) *identity.SignedEntry {
	t.Helper()
	s, err := identity.SignEntry(identity.PeerEntry{
		Network: testNetwork, Peer: keyOf(i).PeerID(), Addresses: []string{fmt.Sprintf("10.%d.%d.1:7072", i>>8, i&255)},
		Version: identity.EntryVersion{Started: 1, Updated: updated}, Tags: tags,
	}, keyOf(i))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// world is many gossips in virtual time. A message takes a millisecond to 40 from one to
// another; links are drawn at random, as nodes draw them.
type world struct {
	t      testing.TB
	rand   *rand.Rand
	now    time.Time
	nodes  []*gossip
	link   map[[2]int][2]int // node and link to node and link
	next   int
	events deliveries
	order  uint64
	sent   []int                            // bytes by node
	seen   map[string]*identity.SignedEntry // decoded once for all
}

type delivery struct {
	at    time.Time
	order uint64
	do    func()
}

type deliveries []delivery

func (d deliveries) Len() int { return len(d) }
func (d deliveries) Less(i, j int) bool {
	return d[i].at.Before(d[j].at) || d[i].at.Equal(d[j].at) && d[i].order < d[j].order
}
func (d deliveries) Swap(i, j int) { d[i], d[j] = d[j], d[i] }
func (d *deliveries) Push(x any)   { *d = append(*d, x.(delivery)) }
func (d *deliveries) Pop() any {
	old := *d
	x := old[len(old)-1]
	*d = old[:len(old)-1]
	return x
}

const testSilence = 15 * time.Minute

var testStart = time.Unix(1_700_000_000, 0)

func newWorld(t testing.TB, n int, seed uint64) *world {
	w := &world{t: t, rand: rand.New(rand.NewPCG(seed, 1)), now: testStart, link: make(map[[2]int][2]int),
		sent: make([]int, n), seen: make(map[string]*identity.SignedEntry)}
	for i := range n {
		g := newGossip(keyOf(i).PeerID(), limits{network: testNetwork, peers: 1 << 20, bytes: 1 << 30, silence: testSilence})
		g.decode = func(b []byte) (*identity.SignedEntry, error) {
			if s := w.seen[string(b)]; s != nil {
				return s, nil
			}
			s, err := identity.DecodeSignedEntry(b)
			if err == nil {
				w.seen[string(b)] = s
			}
			return s, err
		}
		w.nodes = append(w.nodes, g)
	}
	return w
}

func (w *world) in(d time.Duration, do func()) {
	w.order++
	heap.Push(&w.events, delivery{w.now.Add(d), w.order, do})
}

// connect links two nodes.
func (w *world) connect(a, b int) {
	w.next++
	la, lb := 2*w.next, 2*w.next+1
	w.link[[2]int{a, la}], w.link[[2]int{b, lb}] = [2]int{b, lb}, [2]int{a, la}
	w.nodes[a].connected(la, keyOf(b).PeerID(), true)
	w.nodes[b].connected(lb, keyOf(a).PeerID(), false)
	w.flush(a)
	w.flush(b)
}

// cut ends every link that is chosen.
func (w *world) cut(chosen func(a, b int) bool) {
	for from, to := range w.link {
		if chosen(from[0], to[0]) {
			delete(w.link, from)
			delete(w.link, to)
			w.nodes[from[0]].disconnected(from[1])
			w.nodes[to[0]].disconnected(to[1])
		}
	}
}

// flush sends what a node has to say.
func (w *world) flush(i int) {
	out, _ := w.nodes[i].take()
	for _, o := range out {
		to, ok := w.link[[2]int{i, o.link}]
		if !ok {
			continue
		}
		b := o.message.appendTo(nil)
		if len(b) > maxMessage {
			w.t.Fatalf("a message of %d bytes", len(b))
		}
		w.sent[i] += len(b)
		w.in(time.Duration(1+w.rand.IntN(40))*time.Millisecond, func() {
			if _, ok := w.link[to]; !ok {
				return // it was cut
			}
			if err := w.nodes[to[0]].receive(w.now, to[1], b); err != nil {
				w.t.Fatal(err)
			}
			w.flush(to[0])
		})
	}
}

// mesh gives every node its links with others, the first with node 0.
func (w *world) mesh(links int) {
	for i := range w.nodes {
		for range links {
			if j := w.rand.IntN(len(w.nodes)); j != i {
				w.connect(i, j)
			}
		}
	}
}

// rounds has every node compare with one of its links again and again.
func (w *world) rounds(every time.Duration) {
	for i, g := range w.nodes {
		var round func()
		round = func() {
			g.expire(w.now)
			var ids []int
			for id := range g.links {
				ids = append(ids, id)
			}
			slices.Sort(ids)
			if len(ids) > 0 {
				g.compare(ids[w.rand.IntN(len(ids))])
			}
			w.flush(i)
			w.in(every, round)
		}
		w.in(time.Duration(w.rand.Int64N(int64(every))), round)
	}
}

// run runs until a condition holds, and returns how long that took, at most limit.
func (w *world) run(limit time.Duration, done func() bool) time.Duration {
	begun := w.now
	for check := w.now; len(w.events) > 0; {
		d := heap.Pop(&w.events).(delivery)
		if d.at.Sub(begun) > limit {
			heap.Push(&w.events, d)
			break
		}
		w.now = d.at
		d.do()
		if w.now.After(check) {
			if done() {
				break
			}
			check = w.now.Add(10 * time.Millisecond)
		}
	}
	return w.now.Sub(begun)
}

// everywhere reports whether everybody has the version of peer i, or, with 0, does not have it.
func (w *world) everywhere(i int, updated uint64) bool {
	p := keyOf(i).PeerID()
	for n, g := range w.nodes {
		k := g.peers[p]
		if n != i && (updated > 0 && (k == nil || k.at.Updated != updated) || updated == 0 && k.present()) {
			return false
		}
	}
	return true
}

// full reports whether everybody knows everybody.
func (w *world) full() bool {
	for _, g := range w.nodes {
		if len(g.peers) < len(w.nodes) {
			return false
		}
	}
	return true
}

func (w *world) total() (bytes int) {
	for _, n := range w.sent {
		bytes += n
	}
	return bytes
}

// begin starts nodes that all know each other's links but nobody's entry.
func (w *world) begin(links int, every time.Duration) {
	for i, g := range w.nodes {
		g.hear(w.now, noLink, entryOf(w.t, i, 2))
		g.take()
	}
	w.mesh(links)
	w.rounds(every)
}

// TestConvergence: everybody comes to know everybody, a change reaches all at once, and
// when there is nothing to tell, next to nothing is said.
func TestConvergence(t *testing.T) {
	w := newWorld(t, nodes(64), 1)
	w.begin(6, time.Second)
	if d := w.run(time.Minute, w.full); !w.full() {
		t.Fatalf("not everybody knows everybody after %v", d)
	}
	begun := w.total()
	w.run(10*time.Second, func() bool { return false })
	if each := (w.total() - begun) / len(w.nodes) / 10; each > 100 {
		t.Errorf("%d bytes a second of each while nothing happens", each)
	}
	w.nodes[7].hear(w.now, noLink, entryOf(t, 7, 3))
	w.flush(7)
	if d := w.run(time.Second, func() bool { return w.everywhere(7, 3) }); !w.everywhere(7, 3) {
		t.Errorf("the change is not everywhere after %v", d)
	}
	for i, g := range w.nodes {
		if g.sums != w.nodes[0].sums {
			t.Fatalf("node %d has other sums", i)
		}
	}
}

// TestMissed: what announcements have not brought, because links were cut, comparisons
// find.
func TestMissed(t *testing.T) {
	w := newWorld(t, 40, 2)
	w.begin(4, time.Second)
	w.run(time.Minute, w.full)
	half := func(i int) bool { return i < 20 }
	w.cut(func(a, b int) bool { return half(a) != half(b) })
	for i := range w.nodes {
		w.nodes[i].hear(w.now, noLink, entryOf(t, i, 9))
		w.flush(i)
	}
	w.run(5*time.Second, func() bool { return false })
	if w.everywhere(0, 9) {
		t.Fatal("the halves were not cut")
	}
	w.connect(3, 33)
	d := w.run(time.Minute, func() bool {
		for i := range w.nodes {
			if !w.everywhere(i, 9) {
				return false
			}
		}
		return true
	})
	if d >= time.Minute {
		t.Fatal("not every change is everywhere")
	}
}

// TestGone: who says farewell is gone everywhere at once, who is silent after a while,
// and neither comes back by those who have not heard; until it really does.
func TestGone(t *testing.T) {
	w := newWorld(t, nodes(30), 3)
	others := nodes(30) - 2 // than the two that go
	w.begin(5, 20*time.Second)
	w.run(5*time.Minute, w.full)
	w.nodes[4].hear(w.now, noLink, entryOf(t, 4, 5, Departed()))
	w.flush(4)
	w.run(time.Second, func() bool { return w.everywhere(4, 0) })
	if !w.everywhere(4, 0) {
		t.Fatal("the farewell is not everywhere")
	}
	w.cut(func(a, b int) bool { return a == 4 || b == 4 || a == 5 || b == 5 })
	refresh := func(updated uint64) {
		for i := range w.nodes {
			if i != 4 && i != 5 { // that is silent
				w.nodes[i].hear(w.now, noLink, entryOf(t, i, updated))
				w.flush(i)
			}
		}
	}
	present := func(i int) (n int) {
		for j, g := range w.nodes {
			if j != 4 && j != 5 && g.peers[keyOf(i).PeerID()].present() {
				n++
			}
		}
		return n
	}
	for minute := range 40 {
		refresh(uint64(100 + minute))
		w.run(time.Minute, func() bool { return false })
		if n := present(4); n > 0 {
			t.Fatalf("minute %d: who has left is back at %d", minute, n)
		}
		if n := present(5); minute < 14 && n != others || minute > 16 && n != 0 {
			t.Fatalf("minute %d: who is silent is known to %d", minute, n)
		}
		if n := present(6); n != others {
			t.Fatalf("minute %d: who is there is known to %d", minute, n)
		}
	}
	for i, g := range w.nodes {
		if i != 4 && i != 5 && len(g.peers) != others {
			t.Fatalf("node %d remembers %d peers after 40 minutes", i, len(g.peers))
		}
	}
	w.nodes[5].hear(w.now, noLink, entryOf(t, 5, 200))
	w.connect(5, 1)
	w.run(10*time.Second, func() bool { return present(5) == others })
	if n := present(5); n != others {
		t.Errorf("who is back is known to %d", n)
	}
}

// TestGrowth shows how time and bytes grow with the network.
func TestGrowth(t *testing.T) {
	sizes := []int{40, 80, 160}
	if n := os.Getenv("MOSAIK_GROWTH"); n != "" {
		sizes = append(sizes, 500, 1000, 2000)
	}
	for _, n := range sizes {
		n = nodes(n)
		w := newWorld(t, n, 4)
		w.begin(6, time.Second)
		known := w.run(time.Minute, w.full)
		if !w.full() {
			t.Fatalf("%d nodes do not know each other after %v", n, known)
		}
		w.run(3*time.Second, func() bool { return false }) // what is under way comes in
		learned, idle := w.total(), 0
		w.run(10*time.Second, func() bool { return false })
		idle = w.total() - learned
		w.nodes[1].hear(w.now, noLink, entryOf(t, 1, 3))
		w.flush(1)
		before := w.total()
		changed := w.run(time.Minute, func() bool { return w.everywhere(1, 3) })
		t.Logf("%5d nodes: all known after %v, %d kB each; a change everywhere after %v, %d bytes each; idle %d B/s each", n,
			known.Round(time.Millisecond), learned/n/1000, changed.Round(time.Millisecond), (w.total()-before)/n, idle/n/10)
		if changed > 2*time.Second {
			t.Errorf("%d nodes: a change takes %v", n, changed)
		}
	}
}

// TestLies: forged entries, entries of another network, and such as nobody has asked for
// end the link by name; announcements of what cannot be had, and versions from the
// future, change nothing.
func TestLies(t *testing.T) {
	now := testStart
	open := func() *gossip {
		g := newGossip(keyOf(0).PeerID(), limits{network: testNetwork, peers: 8, bytes: 1 << 20, silence: testSilence})
		g.connected(1, keyOf(1).PeerID(), false)
		return g
	}
	tampered := slices.Clone(entryOf(t, 2, 2).Bytes())
	tampered[len(tampered)-1] ^= 1
	foreign := entryOf(t, 2, 2).Entry
	foreign.Network = identity.NewID("elsewhere")
	elsewhere, err := identity.SignEntry(foreign, keyOf(2))
	if err != nil {
		t.Fatal(err)
	}
	announce := (&message{kind: kindAnnounce, versions: []version{{keyOf(2).PeerID(), identity.EntryVersion{Started: 1, Updated: 2}}}}).appendTo(nil)
	for name, test := range map[string]struct {
		entry  []byte
		reason network.Reason
	}{
		"forged":             {tampered, network.BadEntry},
		"of another network": {elsewhere.Bytes(), network.BadEntry},
		"not asked for":      {entryOf(t, 3, 2).Bytes(), network.Malformed},
		"rubbish":            {[]byte("rubbish"), network.BadEntry},
		"good":               {entryOf(t, 2, 2).Bytes(), ""},
	} {
		g := open()
		if err := g.receive(now, 1, announce); err != nil {
			t.Fatal(err)
		}
		if out, _ := g.take(); len(out) != 1 || out[0].message.kind != kindWant {
			t.Fatalf("%v", out)
		}
		err := g.receive(now, 1, (&message{kind: kindEntries, entries: [][]byte{test.entry}}).appendTo(nil))
		if test.reason == "" && err != nil || test.reason != "" && !errors.Is(err, test.reason) {
			t.Errorf("%s: %v", name, err)
		}
		if k := g.peers[keyOf(2).PeerID()]; k.present() != (test.reason == "") {
			t.Errorf("%s: known as %+v", name, k)
		}
	}
	g := open()
	if err := g.receive(now, 1, []byte("?")); !errors.Is(err, network.Malformed) {
		t.Error(err)
	}
	if g.hear(now, noLink, entryOf(t, 2, uint64(now.Add(2*time.Hour).UnixMilli()))) {
		t.Error("an entry from the future was taken")
	}
	// Whoever stalls keeps others from being asked only for a moment, and is told apart.
	g.connected(2, keyOf(3).PeerID(), false)
	if err := errors.Join(g.receive(now, 1, announce), g.receive(now, 2, announce)); err != nil {
		t.Fatal(err)
	}
	if out, _ := g.take(); len(out) != 1 {
		t.Errorf("asked %d times", len(out))
	}
	if err := g.receive(now.Add(patience), 2, announce); err != nil {
		t.Fatal(err)
	}
	if out, _ := g.take(); len(out) != 1 || out[0].link != 2 {
		t.Errorf("asked %v", out)
	}
	if links := g.stalled(now.Add(answerTimeout + time.Second)); !slices.Contains(links, 1) {
		t.Errorf("stalled are %v", links)
	}
}

// TestRoom: the catalog takes so many peers and bytes and no more; a known peer may
// change its entry even then.
func TestRoom(t *testing.T) {
	now := testStart
	g := newGossip(keyOf(0).PeerID(), limits{network: testNetwork, peers: 5, bytes: 1 << 20, silence: testSilence})
	for i := range 10 {
		if got := g.hear(now, noLink, entryOf(t, i, 2)); got != (i < 5) {
			t.Errorf("peer %d: %t", i, got)
		}
	}
	if g.refused != 5 || len(g.peers) != 5 {
		t.Errorf("%d refused, %d known", g.refused, len(g.peers))
	}
	if !g.hear(now, noLink, entryOf(t, 3, 3)) {
		t.Error("a change was refused")
	}
	size := len(entryOf(t, 1, 2).Bytes())
	g = newGossip(keyOf(0).PeerID(), limits{network: testNetwork, peers: 100, bytes: 3*size + 1, silence: testSilence})
	for i := range 10 {
		g.hear(now, noLink, entryOf(t, i, 2))
	}
	if len(g.peers) != 3 || g.bytes > 3*size+1 {
		t.Errorf("%d peers, %d bytes", len(g.peers), g.bytes)
	}
	g.expire(now.Add(testSilence))
	if g.bytes != size { // its own
		t.Errorf("%d bytes of nobody", g.bytes-size)
	}
}
