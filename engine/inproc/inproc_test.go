package inproc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/raftio"
	pb "github.com/lni/dragonboat/v4/raftpb"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// peer is a host that writes down what arrives.
type peer struct {
	raftio.ITransport
	address string
	gate    chan struct{} // when set, the message handler takes a token per batch
	refuse  uint64        // chunk the peer rejects, plus one

	mu     sync.Mutex
	got    []uint64 // LogIndex of each message
	chunks []pb.Chunk
}

func startPeer(t *testing.T, n *Network, address string) *peer {
	t.Helper()
	p := newPeer(n, address)
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func newPeer(n *Network, address string) *peer {
	p := &peer{address: address}
	p.ITransport = n.Transport(address).Create(config.NodeHostConfig{RaftAddress: address}, p.handle, p.handleChunk)
	return p
}

func (p *peer) handle(b pb.MessageBatch) {
	if p.gate != nil {
		<-p.gate
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range b.Requests {
		p.got = append(p.got, b.Requests[i].LogIndex)
	}
}

func (p *peer) handleChunk(c pb.Chunk) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.refuse == c.ChunkId+1 {
		return false
	}
	p.chunks = append(p.chunks, c)
	return true
}

// received returns the numbers of the messages that have arrived.
func (p *peer) received() []uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.got)
}

func (p *peer) connect(t *testing.T, to string) raftio.IConnection {
	t.Helper()
	c, err := p.GetConnection(t.Context(), to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func (p *peer) connectSnapshot(t *testing.T, to string) raftio.ISnapshotConnection {
	t.Helper()
	c, err := p.GetSnapshotConnection(t.Context(), to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// batch returns messages numbered from..to.
func batch(from, to uint64) pb.MessageBatch {
	var b pb.MessageBatch
	for i := from; i <= to; i++ {
		b.Requests = append(b.Requests, pb.Message{
			Type: pb.Replicate, LogIndex: i, Entries: []pb.Entry{{Index: i, Cmd: fmt.Append(nil, "entry ", i)}},
		})
	}
	return b
}

func sequence(from, to uint64) []uint64 {
	var s []uint64
	for i := from; i <= to; i++ {
		s = append(s, i)
	}
	return s
}

func wantError(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got error %v, want %v", err, want)
	}
}

func noError(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantReceived(t *testing.T, p *peer, want []uint64) {
	t.Helper()
	if got := p.received(); !slices.Equal(got, want) {
		t.Fatalf("%s received %d, want %d", p.address, got, want)
	}
}

// Every test below runs in a bubble: synctest.Wait returns when nothing moves any
// more, and delays pass at once.

func TestOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(Options{})
		a, b := startPeer(t, n, "a"), startPeer(t, n, "b")
		ab, ba := a.connect(t, "b"), b.connect(t, "a")
		for i := uint64(1); i <= 500; i += 5 {
			noError(t, ab.SendMessageBatch(batch(i, i+4)))
			noError(t, ba.SendMessageBatch(batch(1000+i, 1000+i+4)))
		}
		synctest.Wait()
		wantReceived(t, b, sequence(1, 500))
		wantReceived(t, a, sequence(1001, 1500))
		if s := n.Stats(); s != (Stats{Batches: 200, Messages: 1000}) {
			t.Fatalf("stats %+v", s)
		}
	})
}

// The sender's memory is its own again when SendMessageBatch returns.
func TestSenderReusesItsMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(Options{})
		a := startPeer(t, n, "a")
		var arrived []pb.Entry
		b := n.Transport("b").Create(config.NodeHostConfig{RaftAddress: "b"},
			func(b pb.MessageBatch) { arrived = b.Requests[0].Entries }, nil)
		noError(t, b.Start())
		t.Cleanup(func() { b.Close() })
		c := a.connect(t, "b")
		sent := batch(1, 1)
		noError(t, c.SendMessageBatch(sent))
		copy(sent.Requests[0].Entries[0].Cmd, "XXXXXXXX")
		sent.Requests[0].Entries[0] = pb.Entry{}
		sent.Requests[0] = pb.Message{}
		synctest.Wait()
		if len(arrived) != 1 || arrived[0].Index != 1 || string(arrived[0].Cmd) != "entry 1" {
			t.Fatalf("arrived %+v", arrived)
		}
	})
}

func TestConnectRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(Options{})
		a, b := startPeer(t, n, "a"), newPeer(n, "b")
		_, err := a.GetConnection(t.Context(), "b")
		wantError(t, err, ErrRefused)
		_, err = a.GetSnapshotConnection(t.Context(), "b")
		wantError(t, err, ErrRefused)
		_, err = b.GetConnection(t.Context(), "a")
		wantError(t, err, ErrClosed) // not started itself
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err = a.GetConnection(ctx, "a")
		wantError(t, err, context.Canceled)
		noError(t, b.Close()) // closing what never started
		wantError(t, b.Start(), ErrClosed)
	})
}

func TestAddresses(t *testing.T) {
	n := New(Options{})
	f := n.Transport("a")
	for address, want := range map[string]bool{
		"": false, " ": false, "a b": false, "a\t": false, "a\x00": false, "a\n": false,
		"a": true, "127.0.0.1:80": true, "9f86d081": true, "ключ": true,
	} {
		if got := f.Validate(address); got != want {
			t.Errorf("Validate(%q) = %v", address, got)
		}
	}
	start := func(factory, host string) error {
		return n.Transport(factory).Create(config.NodeHostConfig{RaftAddress: host}, nil, nil).Start()
	}
	wantError(t, start("a", "b"), ErrAddress)
	wantError(t, start("", ""), ErrAddress)
	startPeer(t, n, "a")
	wantError(t, start("a", "a"), ErrAddress)
}

func TestRestartOfAnAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(Options{})
		a, b := startPeer(t, n, "a"), startPeer(t, n, "b")
		old := a.connect(t, "b")
		oldSnapshot := a.connectSnapshot(t, "b")
		noError(t, old.SendMessageBatch(batch(1, 3)))
		synctest.Wait()
		noError(t, b.Close())
		wantError(t, old.SendMessageBatch(batch(4, 4)), ErrClosed)
		wantError(t, oldSnapshot.SendChunk(pb.Chunk{}), ErrClosed)
		_, err := a.GetConnection(t.Context(), "b")
		wantError(t, err, ErrRefused)
		noError(t, b.Close())

		again := startPeer(t, n, "b")
		// A connection to the first incarnation does not reach the second.
		wantError(t, old.SendMessageBatch(batch(5, 5)), ErrClosed)
		noError(t, a.connect(t, "b").SendMessageBatch(batch(6, 7)))
		synctest.Wait()
		wantReceived(t, b, sequence(1, 3))
		wantReceived(t, again, sequence(6, 7))
		// Closing the first incarnation once more does not unlist the second.
		noError(t, b.Close())
		noError(t, a.connect(t, "b").SendMessageBatch(batch(8, 8)))
	})
}

func TestSenderCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(Options{})
		n.SetFault(Fault{DelayMin: time.Second, DelayMax: time.Second})
		a, b := startPeer(t, n, "a"), startPeer(t, n, "b")
		closed, left := a.connect(t, "b"), a.connect(t, "b")
		noError(t, closed.SendMessageBatch(batch(1, 2)))
		closed.Close()
		wantError(t, closed.SendMessageBatch(batch(9, 9)), ErrClosed)
		time.Sleep(time.Millisecond)
		noError(t, left.SendMessageBatch(batch(3, 4)))
		noError(t, a.Close())
		wantError(t, left.SendMessageBatch(batch(9, 9)), ErrClosed)
		// What was under way arrives although its sender is gone.
		time.Sleep(2 * time.Second)
		synctest.Wait()
		wantReceived(t, b, sequence(1, 4))
	})
}

// A target that handles nothing holds up the connection to it until SendTimeout,
// and no other connection.
func TestSlowTarget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(Options{QueueBatches: 4, SendTimeout: 3 * time.Second})
		a, b, c := startPeer(t, n, "a"), newPeer(n, "b"), startPeer(t, n, "c")
		b.gate = make(chan struct{})
		noError(t, b.Start())
		t.Cleanup(func() { b.Close() })
		ab := a.connect(t, "b")
		for i := uint64(1); i <= 4; i++ {
			noError(t, ab.SendMessageBatch(batch(i, i)))
		}
		start := time.Now()
		wantError(t, ab.SendMessageBatch(batch(5, 5)), ErrBusy)
		if waited := time.Since(start); waited != 3*time.Second {
			t.Fatalf("gave up after %v", waited)
		}
		start = time.Now()
		noError(t, a.connect(t, "c").SendMessageBatch(batch(1, 2)))
		noError(t, c.connect(t, "b").SendMessageBatch(batch(101, 101)))
		synctest.Wait()
		wantReceived(t, c, sequence(1, 2))
		if time.Since(start) != 0 {
			t.Fatal("another connection had to wait")
		}

		sent := make(chan error)
		go func() { sent <- ab.SendMessageBatch(batch(6, 6)) }()
		synctest.Wait()
		b.gate <- struct{}{}
		noError(t, <-sent)
		close(b.gate)
		synctest.Wait()
		got := b.received()
		slices.Sort(got)
		if !slices.Equal(got, []uint64{1, 2, 3, 4, 6, 101}) {
			t.Fatalf("b received %d", got)
		}
	})
}

func TestCloseFreesWaitingSender(t *testing.T) {
	for _, end := range []string{"target", "sender", "connection"} {
		t.Run(end, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := New(Options{QueueBatches: 1})
				a, b := startPeer(t, n, "a"), newPeer(n, "b")
				b.gate = make(chan struct{})
				noError(t, b.Start())
				ab := a.connect(t, "b")
				noError(t, ab.SendMessageBatch(batch(1, 1)))
				sent := make(chan error)
				go func() { sent <- ab.SendMessageBatch(batch(2, 2)) }()
				synctest.Wait()
				closed := make(chan struct{})
				go func() {
					defer close(closed)
					switch end {
					case "target":
						b.Close()
					case "sender":
						a.Close()
					case "connection":
						ab.Close()
					}
				}()
				wantError(t, <-sent, ErrClosed)
				synctest.Wait()
				if end == "target" {
					select {
					case <-closed:
						t.Error("Close returned while a handler was running")
					default:
					}
				}
				close(b.gate)
				<-closed
				noError(t, b.Close())
			})
		})
	}
}

func TestQueueBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(Options{QueueBytes: 10_000, SendTimeout: time.Second})
		a, b := startPeer(t, n, "a"), newPeer(n, "b")
		b.gate = make(chan struct{})
		noError(t, b.Start())
		t.Cleanup(func() { b.Close() })
		large := func(size int) pb.MessageBatch {
			return pb.MessageBatch{Requests: []pb.Message{{Entries: []pb.Entry{{Cmd: make([]byte, size)}}}}}
		}
		ab := a.connect(t, "b")
		noError(t, ab.SendMessageBatch(large(50_000))) // alone, it may be too large
		wantError(t, ab.SendMessageBatch(large(1)), ErrBusy)
		b.gate <- struct{}{}
		synctest.Wait()
		noError(t, ab.SendMessageBatch(large(6000)))
		wantError(t, ab.SendMessageBatch(large(6000)), ErrBusy)
		noError(t, ab.SendMessageBatch(large(1000)))
		close(b.gate)
	})
}

func TestPartition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(Options{})
		peers := make(map[string]*peer)
		conns := make(map[link]raftio.IConnection)
		names := []string{"a", "b", "c", "d"}
		for _, name := range names {
			peers[name] = startPeer(t, n, name)
		}
		for _, from := range names {
			for _, to := range names {
				conns[link{from, to}] = peers[from].connect(t, to)
			}
		}
		round := uint64(0)
		// check sends over every link and wants what is in reach, as "ab", to arrive.
		check := func(state string, reach ...string) {
			t.Helper()
			round++
			before := make(map[string]int)
			for _, name := range names {
				before[name] = len(peers[name].received())
			}
			for i, from := range names {
				for j, to := range names {
					number := round*100 + uint64(i*10+j)
					noError(t, conns[link{from, to}].SendMessageBatch(batch(number, number)))
				}
			}
			synctest.Wait()
			var got []string
			for _, to := range names {
				for _, number := range peers[to].received()[before[to]:] {
					if number/100 != round {
						t.Fatalf("%s: message of an earlier round", state)
					}
					if from := names[number/10%10]; from != to {
						got = append(got, from+to)
					}
				}
			}
			slices.Sort(got)
			slices.Sort(reach)
			if !slices.Equal(got, reach) {
				t.Fatalf("%s: messages passed over %q, want %q", state, got, reach)
			}
		}
		all := []string{"ab", "ac", "ad", "ba", "bc", "bd", "ca", "cb", "cd", "da", "db", "dc"}
		check("whole", all...)
		n.Partition([]string{"a", "b"}, []string{"c"})
		check("ab|c|d", "ab", "ba")
		n.Partition([]string{"a"})
		check("a|bcd", "bc", "bd", "cb", "cd", "db", "dc")
		n.Isolate("b")
		check("a|cd, without b", "cd", "dc")
		n.Isolate("c")
		check("nobody")
		n.Heal()
		check("healed", all...)
		n.Isolate("d")
		check("without d", "ab", "ac", "ba", "bc", "ca", "cb")
		n.Heal()
		check("healed again", all...)
		if n.rules.Load() != nil {
			t.Fatal("a healed network without faults is not on its fast path")
		}
		if cut := n.Stats().Cut; cut == 0 {
			t.Fatal("no message was counted as cut")
		}
	})
}

// What is under way when the link is cut does not arrive afterwards.
func TestPartitionTakesMessagesUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(Options{})
		n.SetFault(Fault{DelayMin: time.Second, DelayMax: time.Second})
		a, b := startPeer(t, n, "a"), startPeer(t, n, "b")
		c := a.connect(t, "b")
		noError(t, c.SendMessageBatch(batch(1, 3)))
		n.Isolate("a")
		time.Sleep(2 * time.Second)
		n.Heal()
		noError(t, c.SendMessageBatch(batch(4, 4)))
		time.Sleep(2 * time.Second)
		synctest.Wait()
		wantReceived(t, b, sequence(4, 4))
	})
}

func TestDelayKeepsOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(Options{Seed: 3})
		fault := Fault{DelayMin: 10 * time.Millisecond, DelayMax: 90 * time.Millisecond}
		n.SetFault(fault)
		a, b := startPeer(t, n, "a"), startPeer(t, n, "b")
		c := a.connect(t, "b")
		for i := uint64(1); i <= 300; i += 3 {
			noError(t, c.SendMessageBatch(batch(i, i+2)))
			if i == 151 {
				// Without faults the rest queues up behind what is delayed.
				n.SetFault(Fault{})
			}
		}
		time.Sleep(fault.DelayMin - 1)
		synctest.Wait()
		wantReceived(t, b, nil)
		time.Sleep(fault.DelayMax)
		synctest.Wait()
		wantReceived(t, b, sequence(1, 300))
	})
}

// runFaulty sends 1..count one by one over a network with the fault and returns
// what arrives.
func runFaulty(t *testing.T, seed int64, fault Fault, kind pb.MessageType, count uint64) (got []uint64, stats Stats) {
	synctest.Test(t, func(t *testing.T) {
		n := New(Options{Seed: seed})
		n.SetFault(fault)
		a, b := startPeer(t, n, "a"), startPeer(t, n, "b")
		c := a.connect(t, "b")
		for i := uint64(1); i <= count; i++ {
			m := batch(i, i)
			m.Requests[0].Type = kind
			noError(t, c.SendMessageBatch(m))
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		got, stats = b.received(), n.Stats()
	})
	return got, stats
}

func TestDrop(t *testing.T) {
	got, stats := runFaulty(t, 1, Fault{Drop: 0.3}, pb.Heartbeat, 500)
	if !slices.IsSorted(got) || len(slices.Compact(slices.Clone(got))) != len(got) {
		t.Fatal("loss changed the order or repeated a message")
	}
	if len(got)+int(stats.Dropped) != 500 || stats.Dropped < 100 || stats.Dropped > 200 {
		t.Fatalf("%d of 500 arrived, %d dropped", len(got), stats.Dropped)
	}
	if got, _ := runFaulty(t, 1, Fault{Drop: 1}, pb.Heartbeat, 50); len(got) != 0 {
		t.Fatalf("%d messages got through total loss", len(got))
	}
}

func TestReorder(t *testing.T) {
	for _, fault := range []Fault{
		{Reorder: 0.2},
		{Reorder: 0.2, DelayMin: 2 * time.Millisecond, DelayMax: 40 * time.Millisecond},
	} {
		got, stats := runFaulty(t, 1, fault, pb.Heartbeat, 500)
		if slices.IsSorted(got) || stats.Reordered == 0 {
			t.Fatalf("nothing was reordered by %+v", fault)
		}
		slices.Sort(got)
		if !slices.Equal(got, sequence(1, 500)) {
			t.Fatal("reordering lost or repeated messages")
		}
	}
}

func TestDuplicate(t *testing.T) {
	got, stats := runFaulty(t, 1, Fault{Duplicate: 0.3}, pb.Heartbeat, 500)
	if len(got) != 500+int(stats.Duplicated) || stats.Duplicated < 100 {
		t.Fatalf("%d arrived, %d duplicated", len(got), stats.Duplicated)
	}
	if got = slices.Compact(got); !slices.Equal(got, sequence(1, 500)) {
		t.Fatal("duplication changed the order")
	}
	got, stats = runFaulty(t, 1, Fault{Duplicate: 1}, pb.Propose, 100)
	if !slices.Equal(got, sequence(1, 100)) || stats.Duplicated != 0 {
		t.Fatal("a forwarded proposal was repeated")
	}
}

func TestSeedFixesDecisions(t *testing.T) {
	fault := Fault{Drop: 0.1, Reorder: 0.1, Duplicate: 0.1, DelayMin: time.Millisecond, DelayMax: 20 * time.Millisecond}
	first, _ := runFaulty(t, 42, fault, pb.Heartbeat, 400)
	second, _ := runFaulty(t, 42, fault, pb.Heartbeat, 400)
	other, _ := runFaulty(t, 43, fault, pb.Heartbeat, 400)
	if !slices.Equal(first, second) {
		t.Fatal("one seed, two outcomes")
	}
	if slices.Equal(first, other) {
		t.Fatal("two seeds, one outcome")
	}
	// A change of one probability leaves the other decisions as they were.
	lost := func(f Fault) []uint64 {
		got, _ := runFaulty(t, 42, f, pb.Heartbeat, 400)
		return slices.DeleteFunc(sequence(1, 400), func(i uint64) bool { return slices.Contains(got, i) })
	}
	if !slices.Equal(lost(Fault{Drop: 0.1}), lost(Fault{Drop: 0.1, Duplicate: 0.5, Reorder: 0.5})) {
		t.Fatal("duplication changed what was dropped")
	}
}

func TestSnapshotChunks(t *testing.T) {
	chunk := func(id uint64, data []byte) pb.Chunk { return pb.Chunk{ChunkId: id, Data: data} }
	synctest.Test(t, func(t *testing.T) {
		n := New(Options{Seed: 5})
		a, b := startPeer(t, n, "a"), startPeer(t, n, "b")
		c := a.connectSnapshot(t, "b")
		data := []byte("0")
		for i := range uint64(10) {
			if i == 5 {
				n.SetFault(Fault{DelayMin: time.Millisecond, DelayMax: time.Second, Reorder: 1, Duplicate: 1})
			}
			data[0] = '0' + byte(i) // the sender reads all chunks into one buffer
			noError(t, c.SendChunk(chunk(i, data)))
		}
		for i, got := range b.chunks {
			if got.ChunkId != uint64(i) || got.Data[0] != '0'+byte(i) {
				t.Fatalf("chunk %d arrived as %d with data %q", i, got.ChunkId, got.Data)
			}
		}
		if len(b.chunks) != 10 || n.Stats().Chunks != 10 {
			t.Fatalf("%d chunks arrived", len(b.chunks))
		}

		n.SetFault(Fault{})
		b.refuse = 4
		noError(t, c.SendChunk(chunk(2, nil)))
		wantError(t, c.SendChunk(chunk(3, nil)), ErrRejected)
		wantError(t, c.SendChunk(chunk(4, nil)), ErrClosed) // no chunk after a missing one

		n.Isolate("b")
		c = a.connectSnapshot(t, "b")
		wantError(t, c.SendChunk(chunk(0, nil)), ErrLost)
		n.Heal()
		wantError(t, c.SendChunk(chunk(1, nil)), ErrClosed)

		n.SetFault(Fault{Drop: 1})
		wantError(t, a.connectSnapshot(t, "b").SendChunk(chunk(0, nil)), ErrLost)

		n.SetFault(Fault{DelayMin: time.Hour})
		c = a.connectSnapshot(t, "b")
		sent := make(chan error)
		go func() { sent <- c.SendChunk(chunk(0, nil)) }()
		synctest.Wait()
		noError(t, b.Close())
		wantError(t, <-sent, ErrClosed)
	})
}

// TestCloseUnderLoad closes and restarts hosts while all send to all. That no
// handler runs after Close is for the race detector and the flag to find, that
// no goroutine stays behind is for TestMain.
func TestCloseUnderLoad(t *testing.T) {
	n := New(Options{QueueBatches: 8})
	n.SetFault(Fault{Drop: 0.05, Duplicate: 0.05, Reorder: 0.05, DelayMax: time.Millisecond})
	names := []string{"a", "b", "c"}
	var wg sync.WaitGroup
	for _, name := range names {
		wg.Go(func() {
			for life := range 20 {
				open := true
				tr := n.Transport(name).Create(config.NodeHostConfig{RaftAddress: name},
					func(pb.MessageBatch) {
						if !open { // a race, too, if Close does not wait
							t.Error("handler ran after Close")
						}
					},
					func(pb.Chunk) bool { return open })
				if err := tr.Start(); err != nil {
					t.Error(err)
					return
				}
				for i := range uint64(20) {
					for _, to := range names {
						c, err := tr.GetConnection(t.Context(), to)
						if err != nil {
							continue
						}
						c.SendMessageBatch(batch(i, i+3))
						if life%2 == 0 { // others are left open
							c.Close()
						}
					}
				}
				tr.Close()
				open = false
			}
		})
	}
	wg.Wait()
}
