package catalog

import (
	"fmt"
	"slices"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/network"
)

// gossip is what the catalog knows and how it spreads, without a clock, a connection
// or a random choice of its own: messages and the time go in, messages and events
// come out. So a simulation of a thousand of them runs the very code that nodes run.
type gossip struct {
	self   identity.PeerID
	limits limits
	decode func([]byte) (*identity.SignedEntry, error)

	peers map[identity.PeerID]*known
	sums  [buckets]sum
	bytes int // of the entries in peers
	links map[int]*talk

	out    []outgoing
	events []Event

	refused uint64 // entries that found no room
}

type limits struct {
	network identity.ID
	peers   int
	bytes   int
	silence time.Duration
}

// known is what is known of a peer.
type known struct {
	entry *identity.SignedEntry // nil: it is gone, and at is the last version it had
	at    identity.EntryVersion
	// farewell is the entry by which it said that it leaves; nil with entry nil: it was
	// silent, or its farewell has been around for long enough.
	farewell *identity.SignedEntry
	heard    time.Time // when it came to be so
	sum      sum       // what it adds to its bucket, if told
}

// told reports whether others are told of the version. One that is only remembered
// keeps it from coming back.
func (k *known) told() bool { return k.entry != nil || k.farewell != nil }

// talk is the state of a link.
type talk struct {
	peer   identity.PeerID
	wanted map[identity.PeerID]identity.EntryVersion // asked for, and not answered yet
	since  time.Time                                 // when they were asked for
	queue  []version                                 // to be asked for next
}

const (
	// patience is how long another link is not asked for what one is being asked for.
	patience = 2 * time.Second
	// answerTimeout is how long a link may take to answer.
	answerTimeout = 10 * time.Second
)

// outgoing is a message for a link.
type outgoing struct {
	link    int
	message *message
}

// maxFuture is how far ahead of this node's clock a version may be. A peer whose clock
// is further ahead would not be heard again after it was set right.
const maxFuture = time.Hour

func newGossip(self identity.PeerID, l limits) *gossip {
	return &gossip{
		self: self, limits: l, decode: identity.DecodeSignedEntry,
		peers: make(map[identity.PeerID]*known), links: make(map[int]*talk),
	}
}

func (g *gossip) send(link int, m *message) { g.out = append(g.out, outgoing{link, m}) }

// take returns what has come out since it was called last.
func (g *gossip) take() ([]outgoing, []Event) {
	out, events := g.out, g.events
	g.out, g.events = nil, nil
	return out, events
}

// connected begins a link. One side begins to compare.
func (g *gossip) connected(link int, peer identity.PeerID, dialled bool) {
	g.links[link] = &talk{peer: peer, wanted: make(map[identity.PeerID]identity.EntryVersion)}
	if dialled {
		g.compare(link)
	}
}

// compare begins a comparison on a link.
func (g *gossip) compare(link int) {
	g.send(link, &message{kind: kindSummary, sum: sumOf(&g.sums)})
}

// disconnected ends a link. What it was asked for will be found by a comparison.
func (g *gossip) disconnected(link int) { delete(g.links, link) }

// hear takes an entry that has come by, from a link, from a bond (link -1) or from this
// node itself. It reports whether it was news.
func (g *gossip) hear(now time.Time, link int, s *identity.SignedEntry) bool {
	e := &s.Entry
	before := g.peers[e.Peer]
	switch {
	case e.Network != g.limits.network:
		return false
	case before != nil && e.Version.Compare(before.at) <= 0:
		return false
	case e.Version.Updated > uint64(now.Add(maxFuture).UnixMilli()):
		return false
	}
	departed := slices.Contains(e.Tags, Departed())
	size := len(s.Bytes())
	if e.Peer != g.self && (before == nil && len(g.peers) >= g.limits.peers || g.bytes+size-before.size() > g.limits.bytes) {
		g.refused++
		return false
	}
	k := &known{entry: s, at: e.Version, heard: now}
	if departed {
		k.entry, k.farewell = nil, s
	}
	if before != nil {
		g.untell(e.Peer, before)
	}
	v := version{e.Peer, e.Version}
	k.sum = hashOf(v)
	g.bucketOf(e.Peer).add(k.sum)
	g.bytes += size
	g.peers[e.Peer] = k
	switch {
	case departed && before.present():
		g.events = append(g.events, Event{Kind: PeerDeparted, Entry: before.entry})
	case departed:
	case before.present():
		g.events = append(g.events, Event{Kind: PeerUpdated, Entry: s})
	default:
		g.events = append(g.events, Event{Kind: PeerDiscovered, Entry: s})
	}
	for id := range g.links {
		if id != link {
			g.send(id, &message{kind: kindAnnounce, versions: []version{v}})
		}
	}
	return true
}

// untell takes a version out of what others are told.
func (g *gossip) untell(p identity.PeerID, k *known) {
	if k.told() {
		g.bucketOf(p).remove(k.sum)
		g.bytes -= k.size()
	}
}

func (k *known) present() bool { return k != nil && k.entry != nil }

func (k *known) size() int { return len(k.bytes()) }

// bytes returns what others who ask for the peer are given; nil: nothing.
func (k *known) bytes() []byte {
	switch {
	case k == nil:
		return nil
	case k.entry != nil:
		return k.entry.Bytes()
	case k.farewell != nil:
		return k.farewell.Bytes()
	}
	return nil
}

func (g *gossip) bucketOf(p identity.PeerID) *sum { return &g.sums[p[0]] }

// receive takes a message from a link. An error ends the link, by the reason in it.
func (g *gossip) receive(now time.Time, link int, b []byte) error {
	t := g.links[link]
	m, err := decodeMessage(b)
	if err != nil {
		return fmt.Errorf("%w: %w", network.Malformed, err)
	}
	switch m.kind {
	case kindSummary:
		if m.sum != sumOf(&g.sums) {
			g.send(link, &message{kind: kindBuckets, sums: g.sums})
		}
	case kindBuckets:
		g.digest(link, &m.sums)
	case kindDigest:
		g.differences(link, m)
	case kindAnnounce:
		for _, v := range m.versions {
			g.ask(t, v)
		}
	case kindWant:
		g.answer(link, m.peers)
	case kindEntries:
		if err := g.entries(now, link, m.entries); err != nil {
			return err
		}
	case kindPing:
		g.send(link, &message{kind: kindPong, nonce: m.nonce})
	}
	g.askNext(now, link, t)
	return nil
}

// digest sends the versions in the buckets that differ.
func (g *gossip) digest(link int, theirs *[buckets]sum) {
	var which [bitmapSize]byte
	size := 0
	counts := g.counts()
	for i := range theirs {
		// What does not fit into one message is left for the next comparison.
		if theirs[i] != g.sums[i] && (size == 0 || size+counts[i] <= maxVersions) {
			which[i/8] |= 1 << (i % 8)
			size += counts[i]
		}
	}
	if which == ([bitmapSize]byte{}) {
		return
	}
	versions := g.all(which)
	g.send(link, &message{kind: kindDigest, which: which, versions: versions[:min(len(versions), maxVersions)]})
}

func (g *gossip) counts() (counts [buckets]int) {
	for p, k := range g.peers {
		if k.told() {
			counts[p[0]]++
		}
	}
	return counts
}

// all returns the versions in the buckets, by peer.
func (g *gossip) all(which [bitmapSize]byte) (versions []version) {
	for p, k := range g.peers {
		if k.told() && which[p[0]/8]&(1<<(p[0]%8)) != 0 {
			versions = append(versions, version{p, k.at})
		}
	}
	slices.SortFunc(versions, func(a, b version) int { return a.peer.Compare(b.peer) })
	return versions
}

// differences asks for what is newer in a digest and announces what is newer here.
func (g *gossip) differences(link int, m *message) {
	theirs := make(map[identity.PeerID]identity.EntryVersion, len(m.versions))
	for _, v := range m.versions {
		theirs[v.peer] = v.at
		g.ask(g.links[link], v)
	}
	var newer []version
	for _, v := range g.all(m.which) {
		if at, there := theirs[v.peer]; !there || v.at.Compare(at) > 0 {
			newer = append(newer, v)
		}
	}
	for part := range slices.Chunk(newer, maxVersions) {
		g.send(link, &message{kind: kindAnnounce, versions: part})
	}
}

// ask notes that a link has a version, if it is news. It is asked for by askNext.
func (g *gossip) ask(t *talk, v version) {
	if k := g.peers[v.peer]; k != nil && v.at.Compare(k.at) <= 0 || v.peer == g.self {
		return
	}
	if at, asked := t.wanted[v.peer]; asked && v.at.Compare(at) <= 0 || len(t.queue) >= 2*maxVersions {
		return
	}
	t.queue = append(t.queue, v)
}

// askNext asks a link for what it has, if it is not answering already. Of a version that
// came another way meanwhile, nothing is asked.
func (g *gossip) askNext(now time.Time, link int, t *talk) {
	if len(t.wanted) > 0 || len(t.queue) == 0 {
		return
	}
	var peers []identity.PeerID
	for len(t.queue) > 0 && len(peers) < maxWanted {
		v := t.queue[0]
		t.queue = t.queue[1:]
		if k := g.peers[v.peer]; k != nil && v.at.Compare(k.at) <= 0 || g.askedElsewhere(now, link, v) {
			continue
		}
		if _, twice := t.wanted[v.peer]; twice {
			continue
		}
		t.wanted[v.peer] = v.at
		peers = append(peers, v.peer)
	}
	if len(peers) > 0 {
		t.since = now
		g.send(link, &message{kind: kindWant, peers: peers})
	}
}

// askedElsewhere reports whether another link is just being asked for that very
// version. If it does not answer, a comparison finds what is missing.
func (g *gossip) askedElsewhere(now time.Time, link int, v version) bool {
	for id, t := range g.links {
		if at, asked := t.wanted[v.peer]; id != link && asked && at == v.at && now.Sub(t.since) < patience {
			return true
		}
	}
	return false
}

// answer sends the entries of peers, in messages of a size. Every want has an answer,
// if an empty one, so that who asked knows that it is over.
func (g *gossip) answer(link int, peers []identity.PeerID) {
	m := &message{kind: kindEntries}
	size := 0
	for _, p := range peers {
		s := g.peers[p].bytes()
		if len(s) == 0 || size+len(s)+2 > maxEntries-3 {
			continue // what is left out is found by the next comparison
		}
		size += len(s) + 2
		m.entries = append(m.entries, s)
	}
	g.send(link, m)
}

// entries takes entries that were asked for, or the peer's own: its farewell comes
// unasked, since it does not stay to be asked.
func (g *gossip) entries(now time.Time, link int, all [][]byte) error {
	t := g.links[link]
	own := false
	for _, b := range all {
		s, err := g.decode(b)
		if err == nil && s.Entry.Network != g.limits.network {
			err = fmt.Errorf("%w: it is of another network", identity.ErrEntry)
		}
		if err != nil {
			return fmt.Errorf("%w: %w", network.BadEntry, err)
		}
		_, asked := t.wanted[s.Entry.Peer]
		if own = !asked && s.Entry.Peer == t.peer; !asked && !own {
			return fmt.Errorf("%w: the entry of peer %s, which nobody has asked for", network.Malformed, s.Entry.Peer.Short())
		}
		delete(t.wanted, s.Entry.Peer)
		if s.Entry.Peer != g.self {
			g.hear(now, link, s)
		}
	}
	if !own { // what was asked for and is not there, is not to be had
		clear(t.wanted)
	}
	return nil
}

// expire forgets peers that were silent for too long. Their last versions are
// remembered for as long again, and so are those of farewells: by then everybody else has
// forgotten them too, and nobody is left to bring them back.
func (g *gossip) expire(now time.Time) {
	for p, k := range g.peers {
		if p == g.self || now.Sub(k.heard) < g.limits.silence {
			continue
		}
		if !k.told() {
			delete(g.peers, p)
			continue
		}
		if k.entry != nil {
			g.events = append(g.events, Event{Kind: PeerDeparted, Entry: k.entry, Silent: true})
		}
		g.untell(p, k)
		k.entry, k.farewell, k.heard = nil, nil, now
	}
}

// stalled returns the links that have not answered for too long.
func (g *gossip) stalled(now time.Time) (links []int) {
	for id, t := range g.links {
		if len(t.wanted) > 0 && now.Sub(t.since) > answerTimeout {
			links = append(links, id)
		}
	}
	return links
}
