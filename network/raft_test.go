package network

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/raftio"
	pb "github.com/lni/dragonboat/v4/raftpb"

	"github.com/mosaik-engine/mosaik/engine"
	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/snapshot"
)

// host is a node with an engine over bonds.
type host struct {
	*node
	shards *Shards
	engine *engine.Engine
}

// hosts are three of them, in one process, on loopback.
type hosts struct {
	t         testing.TB
	book      phonebook
	dir       string
	change    func(i int, o *engine.Options)
	authorize Authorizer
	at        [3]*host // nil where stopped
}

func members() []identity.PeerID {
	return []identity.PeerID{keyOf(1).PeerID(), keyOf(2).PeerID(), keyOf(3).PeerID()}
}

func openHosts(t testing.TB, dir string, change func(i int, o *engine.Options)) *hosts {
	t.Helper()
	h := &hosts{t: t, dir: dir, change: change}
	h.open()
	return h
}

func (h *hosts) open() {
	h.t.Helper()
	h.t.Cleanup(func() {
		// All at once: each one that is left behind would wait for a quorum that is
		// going away.
		var wg sync.WaitGroup
		for i := range h.at {
			wg.Add(1)
			go func() {
				defer wg.Done()
				h.stop(i)
			}()
		}
		wg.Wait()
	})
	for i := range h.at {
		h.start(i)
	}
	h.ready()
}

// start starts host i at a free port.
func (h *hosts) start(i int) {
	h.t.Helper()
	n := &host{node: openNode(h.t, &h.book, i+1, func(o *Options) {
		o.Limits, o.Authorize = Limits{Farewell: 300 * time.Millisecond}, h.authorize
	})}
	var serving atomic.Pointer[engine.Engine]
	var err error
	n.shards, err = OpenShards(n.Endpoint, func(ctx context.Context, r snapshot.Request) ([]byte, error) {
		if e := serving.Load(); e != nil {
			return e.ServeShard(ctx, r)
		}
		return nil, log.ErrClosed
	})
	if err != nil {
		h.t.Fatal(err)
	}
	o := &engine.Options{Peer: n.Peer(), Members: members(), Transport: Raft(n.Endpoint), Peers: n.shards}
	if h.change != nil {
		h.change(i, o)
	}
	if n.engine, err = engine.Open(filepath.Join(h.dir, fmt.Sprintf("node%d", i+1)), o); err != nil {
		h.t.Fatal(err)
	}
	serving.Store(n.engine)
	var groups []Group
	for _, g := range n.engine.Groups() {
		groups = append(groups, Group{ID: g.ID(), Key: g.ID().Derive("a secret"), Members: members()})
	}
	if err := n.SetGroups(groups); err != nil {
		h.t.Fatal(err)
	}
	h.at[i] = n
}

// stop closes host i, if it runs: the engine, then what it stands on.
func (h *hosts) stop(i int) {
	n := h.at[i]
	if n == nil {
		return
	}
	h.at[i] = nil
	if err := errors.Join(n.engine.Close(), n.shards.Close(), n.Endpoint.Close()); err != nil {
		h.t.Error(err)
	}
}

func (h *hosts) ready() {
	h.t.Helper()
	for _, n := range h.at {
		if n != nil {
			if err := n.engine.Ready(testContext(h.t)); err != nil {
				h.t.Fatal(err)
			}
		}
	}
}

func (h *hosts) leader() int {
	for i, n := range h.at {
		if n != nil {
			if s := n.engine.Groups()[0].Status(); s.Leader == s.Self {
				return i
			}
		}
	}
	return -1
}

// same checks that all hosts have the same log, to the last byte.
func (h *hosts) same() log.Head {
	h.t.Helper()
	var head log.Head
	eventually(h.t, "all stand at the same commit", func() bool {
		heads := make(map[log.Head]bool)
		for _, n := range h.at {
			if n == nil {
				continue
			}
			var err error
			if head, err = n.engine.Groups()[0].Sync(testContext(h.t)); err != nil {
				h.t.Fatal(err)
			}
			heads[head] = true
		}
		return len(heads) == 1
	})
	return head
}

// TestRaft: three engines over bonds form a group; it goes on when the leader is
// stopped, and takes it back at another port.
func TestRaft(t *testing.T) {
	ctx := testContext(t)
	disks := []vfs.FS{vfs.NewMem(), vfs.NewMem(), vfs.NewMem()}
	h := openHosts(t, "raft", func(i int, o *engine.Options) { o.FS, o.Spread = disks[i], 2 })
	key := identity.NewID("k")
	appendTo := func(i int, text string) {
		t.Helper()
		if _, err := h.at[i].engine.Append(ctx, key, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range h.at {
		for k := range 20 {
			appendTo(i, fmt.Sprintf("from %d: %d", i, k))
		}
	}
	h.same()
	leader := h.leader()
	before := h.at[leader].Addr().String()
	h.stop(leader)
	for i, n := range h.at {
		if n != nil {
			appendTo(i, "without the leader")
		}
	}
	h.start(leader)
	if h.at[leader].Addr().String() == before {
		t.Log("the system gave the same port again")
	}
	h.ready()
	appendTo(leader, "back")
	head := h.same()
	records := 0
	for run, err := range h.at[leader].engine.Scan(ctx, log.Query{Key: key, From: log.Earliest()}) {
		if err != nil {
			t.Fatal(err)
		}
		records += run.Count
	}
	if records != 63 || head.Number == 0 {
		t.Errorf("%d records, want 63", records)
	}
	for i, n := range h.at {
		if m := n.Metrics(); m.Raft != (RaftDrops{}) || m.MessagesIn == 0 {
			t.Errorf("host %d: %+v", i, m)
		}
	}
}

// TestCutOff: when the leader's connections are gone, without a word of its engine, the
// others go on under another leader, and it acknowledges nothing any more.
func TestCutOff(t *testing.T) {
	ctx := testContext(t)
	disks := []vfs.FS{vfs.NewMem(), vfs.NewMem(), vfs.NewMem()}
	h := openHosts(t, "cut", func(i int, o *engine.Options) { o.FS, o.ProposeTimeout = disks[i], 3*time.Second })
	key := identity.NewID("k")
	leader := h.leader()
	old := h.at[leader]
	if _, err := old.engine.Append(ctx, key, []byte("before")); err != nil {
		t.Fatal(err)
	}
	if err := old.Endpoint.Close(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for i, n := range h.at {
		if i != leader {
			if _, err := n.engine.Append(ctx, key, []byte("after")); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Logf("the others went on after %v", time.Since(began))
	if _, err := old.engine.Append(ctx, key, []byte("alone")); !errors.Is(err, engine.ErrNoQuorum) {
		t.Errorf("the one that is cut off: %v", err)
	}
	h.stop(leader)
	h.start(leader)
	h.ready()
	h.same()
	if info, _ := h.at[leader].engine.Groups()[0].Key(key); info.Records != 3 && info.Records != 4 {
		t.Errorf("%+v, want 3 records, or 4 if what failed came to be all the same", info)
	}
}

// TestStateSync: a member that was away for long gets the offer as a snapshot and the
// segments as shards, all over bonds.
func TestStateSync(t *testing.T) {
	ctx := testContext(t)
	disks := []vfs.FS{vfs.NewMem(), vfs.NewMem(), vfs.NewMem()}
	var trimmed atomic.Int32
	reports := make(chan engine.SyncReport, 16)
	h := openHosts(t, "sync", func(i int, o *engine.Options) {
		o.FS, o.SegmentBytes, o.RaftLogBytes = disks[i], engine.MinSegmentBytes, 256<<10
		o.MemTableBytes = 1 << 20
		o.Events.Trimmed = func(string, uint64) { trimmed.Add(1) }
		if i == 2 {
			o.Events.StateFetched = func(_ string, r engine.SyncReport) { reports <- r }
		}
	})
	payload := make([]byte, 8<<10)
	fill := func(n int) {
		t.Helper()
		for i := range n {
			payload[0] = byte(i)
			if _, err := h.at[0].engine.Append(ctx, identity.NewID("k"), payload); err != nil {
				t.Fatal(err)
			}
		}
	}
	fill(10)
	h.same()
	h.stop(2)
	for before := trimmed.Load(); trimmed.Load() < before+6; {
		fill(50)
	}
	h.start(2)
	h.ready()
	r := <-reports
	if r.Fetched == 0 || len(r.Sent) != 2 {
		t.Errorf("%+v", r)
	}
	h.same()
	if _, err := h.at[2].engine.Check(ctx, nil); err != nil {
		t.Fatal(err)
	}
}

// received is a Raft host that only listens.
type received struct {
	batches chan pb.MessageBatch
	chunks  chan pb.Chunk
	accept  atomic.Bool
}

// listen starts a transport of n for r.
func (r *received) listen(t *testing.T, n *node) raftio.ITransport {
	t.Helper()
	r.batches, r.chunks = make(chan pb.MessageBatch, 100), make(chan pb.Chunk, 100)
	r.accept.Store(true)
	transport := Raft(n.Endpoint).Create(config.NodeHostConfig{RaftAddress: n.Peer().String()},
		func(b pb.MessageBatch) { r.batches <- b },
		func(c pb.Chunk) bool { r.chunks <- c; return r.accept.Load() })
	if err := transport.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { transport.Close() })
	return transport
}

// TestRaftMessages: what is sent arrives as it was, but for what the connection must
// not carry and for what would make the library give up.
func TestRaftMessages(t *testing.T) {
	ctx := testContext(t)
	book := new(phonebook)
	a, b := openNode(t, book, 1, nil), openNode(t, book, 2, nil)
	var fromA, fromB received
	ta := fromB.listen(t, a)
	fromA.listen(t, b)
	shared, onlyMine := testGroup("shared", 3), testGroup("mine", 3)
	if err := errors.Join(a.SetGroups([]Group{shared, onlyMine}), b.SetGroups([]Group{shared})); err != nil {
		t.Fatal(err)
	}
	c, err := ta.GetConnection(ctx, b.Peer().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	message := func(g Group, from, to uint64, kind pb.MessageType) pb.Message {
		return pb.Message{ShardID: shardOf(g.ID), From: from, To: to, Type: kind, Term: 7, LogIndex: 1 << 40,
			Entries: []pb.Entry{{Index: 1 << 40, Term: 7, Cmd: []byte("command")}, {Index: 3, Term: 1}}}
	}
	good := message(shared, 1, 2, pb.Replicate)
	batch := pb.MessageBatch{SourceAddress: "somebody else", BinVer: raftio.TransportBinVersion, Requests: []pb.Message{
		good,
		message(onlyMine, 1, 2, pb.Replicate),     // a group that the other side has not
		message(shared, 3, 2, pb.Replicate),       // from somebody else
		message(shared, 0, 2, pb.Replicate),       // from nobody
		message(shared, 1, 0, pb.Replicate),       // to nobody: the library would give up
		message(shared, 1, 3, pb.Replicate),       // to somebody else
		message(shared, 1, 2, pb.InstallSnapshot), // comes in pieces only
		message(shared, 1, 2, pb.LocalTick),       // the library would give up
		message(shared, 1, 2, pb.MessageType(99)),
		good,
	}}
	if err := c.SendMessageBatch(batch); err != nil {
		t.Fatal(err)
	}
	got := <-fromA.batches
	if got.SourceAddress != a.Peer().String() || len(got.Requests) != 2 || batch.Requests[1].ShardID != shardOf(onlyMine.ID) {
		t.Fatalf("%+v", got)
	}
	for _, m := range got.Requests {
		if m.Type != pb.Replicate || m.LogIndex != 1<<40 || len(m.Entries) != 2 || string(m.Entries[0].Cmd) != "command" {
			t.Errorf("%+v", m)
		}
	}
	if d := a.Metrics().Raft; d != (RaftDrops{UnprovenOut: 1}) {
		t.Errorf("the sender left out %+v", d)
	}
	if d := b.Metrics().Raft; d != (RaftDrops{Foreign: 4, Local: 3}) {
		t.Errorf("the receiver left out %+v", d)
	}
	// A sender that does not look itself.
	a.groups.Store(mustTable(t, shared))
	raw := c.(*raftConn).c
	bad := pb.MessageBatch{BinVer: raftio.TransportBinVersion, Requests: []pb.Message{message(onlyMine, 1, 2, pb.Replicate), good}}
	encoded := make([]byte, bad.SizeUpperLimit())
	if err := raw.WriteMessage(pb.MustMarshalTo(&bad, encoded)); err != nil {
		t.Fatal(err)
	}
	if got := <-fromA.batches; len(got.Requests) != 1 || b.Metrics().Raft.UnprovenIn != 1 {
		t.Errorf("%+v", got)
	}
	if err := raw.WriteMessage([]byte("nonsense")); err != nil {
		t.Fatal(err)
	}
	if err := next(t, b.closed); err.Reason != Malformed {
		t.Error(err)
	}
	eventually(t, "the sender knows", func() bool { return errors.Is(c.SendMessageBatch(batch), Malformed) })
	if _, err := ta.GetConnection(ctx, "10.0.0.1:80"); err == nil {
		t.Error("an address that is no peer was dialled")
	}
	if f := Raft(a.Endpoint); !f.(raftFactory).Validate(b.Peer().String()) || f.(raftFactory).Validate("127.0.0.1:80") {
		t.Error("Validate")
	}
}

func mustTable(t *testing.T, groups ...Group) *groupTable {
	t.Helper()
	table, err := newGroupTable(groups)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// TestSnapshotChunks: each piece is acknowledged, and those that would make the library
// give up are refused.
func TestSnapshotChunks(t *testing.T) {
	ctx := testContext(t)
	book := new(phonebook)
	a, b := openNode(t, book, 1, nil), openNode(t, book, 2, nil)
	var fromA, fromB received
	ta := fromB.listen(t, a)
	fromA.listen(t, b)
	g := testGroup("g", 3)
	if err := errors.Join(a.SetGroups([]Group{g}), b.SetGroups([]Group{g})); err != nil {
		t.Fatal(err)
	}
	good := pb.Chunk{ShardID: shardOf(g.ID), From: 1, ReplicaID: 2, Index: 77, Filepath: "/x/snapshot-000000000000004D.gbsnap", Data: make([]byte, 2<<20)}
	send := func(change func(*pb.Chunk)) error {
		c, err := ta.GetSnapshotConnection(ctx, b.Peer().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		chunk := good
		if change != nil {
			change(&chunk)
		}
		return c.SendChunk(chunk)
	}
	if err := send(nil); err != nil {
		t.Fatal(err)
	}
	if got := <-fromA.chunks; got.Index != 77 || len(got.Data) != 2<<20 {
		t.Errorf("%+v", got)
	}
	for name, change := range map[string]func(*pb.Chunk){
		"from somebody else": func(c *pb.Chunk) { c.From = 3 },
		"to somebody else":   func(c *pb.Chunk) { c.ReplicaID = 3 },
		"no name":            func(c *pb.Chunk) { c.Filepath = ".." },
		"another name":       func(c *pb.Chunk) { c.Filepath = "/etc/passwd" },
		"another file":       func(c *pb.Chunk) { c.HasFileInfo = true },
		"in the middle":      func(c *pb.Chunk) { c.FileChunkId = 3 },
	} {
		if err := send(change); !errors.Is(err, errRejected) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := send(func(c *pb.Chunk) { c.ShardID++ }); !errors.Is(err, NoCommonGroup) {
		t.Error(err)
	}
	if len(fromA.chunks) != 0 {
		t.Error("something was handed up")
	}
	fromA.accept.Store(false)
	if err := send(nil); !errors.Is(err, errRejected) {
		t.Error(err)
	}
	if d := b.Metrics().Raft; d != (RaftDrops{Foreign: 2, Local: 4}) {
		t.Errorf("%+v", d)
	}
}

// TestRaftAddress: a host whose address is not the endpoint's peer does not start.
func TestRaftAddress(t *testing.T) {
	n := openNode(t, new(phonebook), 1, nil)
	if err := Raft(n.Endpoint).Create(config.NodeHostConfig{RaftAddress: "elsewhere"}, nil, nil).Start(); err == nil {
		t.Error("started")
	}
}

// TestTicketsOfMembers: the tickets of a group's members expire and are published
// anew, over and over, while all of them write. Connections are cut and made anew, and
// nothing is lost or doubled.
func TestTicketsOfMembers(t *testing.T) {
	ctx := testContext(t)
	var k tickets
	k.set(time.Now().Add(time.Hour), nil)
	disks := []vfs.FS{vfs.NewMem(), vfs.NewMem(), vfs.NewMem()}
	h := &hosts{t: t, dir: "tickets", authorize: k.authorize, change: func(i int, o *engine.Options) { o.FS = disks[i] }}
	h.open()
	key := identity.NewID("k")
	var wg sync.WaitGroup
	var acknowledged atomic.Int32
	done := make(chan struct{})
	for i, n := range h.at {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for k := 0; ; k++ {
				select {
				case <-done:
					return
				default:
				}
				if _, err := n.engine.Append(ctx, key, fmt.Appendf(nil, "%d/%d", i, k)); err != nil {
					t.Error(err)
					return
				}
				acknowledged.Add(1)
			}
		}()
	}
	cut := func() (n uint64) {
		for _, n2 := range h.at {
			n += n2.Metrics().Closed[TicketExpired]
		}
		return n
	}
	for range 5 {
		before := cut()
		k.set(time.Now().Add(50*time.Millisecond), nil)
		for _, n := range h.at {
			for _, m := range members() {
				n.Recheck(m)
			}
		}
		eventually(t, "connections are cut", func() bool { return cut() > before })
		k.set(time.Now().Add(time.Hour), nil)
		for _, n := range h.at {
			for _, m := range members() {
				n.Recheck(m) // the entries with the new tickets have arrived
			}
		}
		began := acknowledged.Load()
		eventually(t, "writes go on", func() bool { return acknowledged.Load() > began+10 })
	}
	close(done)
	wg.Wait()
	h.same()
	next, records := [3]int{}, int32(0)
	for run, err := range h.at[0].engine.Scan(ctx, log.Query{Key: key, From: log.Earliest()}) {
		if err != nil {
			t.Fatal(err)
		}
		for _, payload := range run.Records() {
			var i, k int
			if _, err := fmt.Sscanf(string(payload), "%d/%d", &i, &k); err != nil {
				t.Fatal(err)
			}
			if k != next[i] {
				t.Fatalf("record %d of host %d where %d is due", k, i, next[i])
			}
			next[i]++
			records++
		}
	}
	if records != acknowledged.Load() {
		t.Errorf("%d records, %d were acknowledged", records, acknowledged.Load())
	}
}
