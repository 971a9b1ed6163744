package network

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
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// keyOf returns the key of node i of the tests.
func keyOf(i int) identity.Key { return identity.KeyFromSeed([identity.Size]byte{byte(i), 0xbd}) }

var testNetwork = identity.NewID("mosaik.network.test")

// testGroup returns a group of the nodes 1 to n.
func testGroup(name string, n int) Group {
	g := Group{ID: identity.NewID(name), Key: identity.NewID("key of " + name)}
	for i := range n {
		g.Members = append(g.Members, keyOf(i+1).PeerID())
	}
	return g
}

// phonebook is where the nodes of a test are.
type phonebook struct {
	sync.Mutex
	addresses map[identity.PeerID][]string
}

func (b *phonebook) of(p identity.PeerID) []string {
	b.Lock()
	defer b.Unlock()
	return b.addresses[p]
}

func (b *phonebook) set(p identity.PeerID, addresses ...string) {
	b.Lock()
	defer b.Unlock()
	if b.addresses == nil {
		b.addresses = make(map[identity.PeerID][]string)
	}
	b.addresses[p] = addresses
}

// node is an endpoint of a test with what happened to it.
type node struct {
	*Endpoint
	refused chan *CloseError
	closed  chan *CloseError
}

// quick are limits under which nothing takes long.
var quick = Limits{Heartbeat: 50 * time.Millisecond, Silence: 5 * time.Second, Farewell: 300 * time.Millisecond}

// openNode opens node i and puts its address into the book.
func openNode(t testing.TB, book *phonebook, i int, change func(*Options)) *node {
	t.Helper()
	n := &node{refused: make(chan *CloseError, 1024), closed: make(chan *CloseError, 1024)}
	o := Options{Key: keyOf(i), Network: testNetwork, Addresses: book.of, Limits: quick, Events: Events{
		Refused:      func(_ string, err *CloseError) { n.refused <- err },
		GroupRefused: func(_ Info, _ identity.ID, err *CloseError) { n.refused <- err },
		Closed:       func(_ Info, err *CloseError) { n.closed <- err },
	}}
	if change != nil {
		change(&o)
	}
	e, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	n.Endpoint = e
	t.Cleanup(func() { e.Close() })
	book.set(e.Peer(), e.Addr().String())
	return n
}

// echo sends every message back.
func echo(c *Conn) {
	for {
		b, err := c.ReadMessage()
		if err != nil {
			return
		}
		if err := c.WriteMessage(b); err != nil {
			return
		}
	}
}

const (
	echoProtocol  = "mosaik/echo/1"
	groupProtocol = "mosaik/group-echo/1"
)

// echoes registers the protocols of the tests. handled counts what is handed up.
func (n *node) echoes(t testing.TB) {
	t.Helper()
	for _, p := range []Protocol{
		{Name: echoProtocol, MaxMessage: 1 << 20, Serve: echo},
		{Name: groupProtocol, Groups: true, MaxMessage: 1 << 20, Serve: echo},
	} {
		if _, err := n.Handle(p); err != nil {
			t.Fatal(err)
		}
	}
}

// said sends a message over c and checks that it comes back.
func said(t testing.TB, c *Conn, text string) {
	t.Helper()
	if err := c.WriteMessage([]byte(text)); err != nil {
		t.Fatal(err)
	}
	b, err := c.ReadMessage()
	if err != nil || string(b) != text {
		t.Fatalf("%q came back as %q, %v", text, b, err)
	}
}

func next(t testing.TB, ch <-chan *CloseError) *CloseError {
	t.Helper()
	select {
	case err := <-ch:
		return err
	case <-time.After(30 * time.Second):
		t.Fatal("nothing happened")
		return nil
	}
}

// eventually waits until a condition holds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for ctx := testContext(t); !holds(); {
		select {
		case <-time.After(2 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("not so: %s", what)
		}
	}
}

// TestTalk: messages and streams both ways, of every size around the borders.
func TestTalk(t *testing.T) {
	ctx := testContext(t)
	book := new(phonebook)
	a, b := openNode(t, book, 1, nil), openNode(t, book, 2, nil)
	a.echoes(t)
	b.echoes(t)
	c, err := a.Dial(ctx, b.Peer(), echoProtocol)
	if err != nil {
		t.Fatal(err)
	}
	if c.Remote() != b.Peer() || !c.Dialled() || c.Protocol() != echoProtocol || c.Carries(identity.NewID("g")) {
		t.Fatalf("%+v", c.Info())
	}
	for _, n := range []int{0, 1, recordBytes - headerSize, recordBytes - headerSize + 1, readBuffer, pieceBytes + 1, 1 << 20} {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(i * 7)
		}
		said(t, c, string(b))
	}
	if err := c.WriteMessage(make([]byte, 1<<20+1)); !errors.Is(err, Oversize) {
		t.Fatalf("%v", err)
	}
	said(t, c, "still there")

	// As a net.Conn: what was written comes back as a stream.
	if n, err := c.Write(make([]byte, 100_000)); n != 100_000 || err != nil {
		t.Fatal(n, err)
	}
	got := 0
	for buf := make([]byte, 999); got < 100_000; {
		n, err := c.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		got += n
	}
	// A deadline interrupts a read, which may be repeated.
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	var timeout net.Error
	if _, err := c.ReadMessage(); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Fatalf("%v", err)
	}
	if err := c.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	said(t, c, "after the deadline")
	key, err := c.Export("EXPERIMENTAL test", nil, 32)
	if err != nil || len(key) != 32 {
		t.Fatal(err)
	}
	if m := a.Metrics(); m.Conns != 1 || m.Dialled != 1 || m.MessagesOut < 9 || m.BytesIn < 1<<20 {
		t.Fatalf("%+v", m)
	}
	c.Close()
	if err := next(t, b.closed); err.Reason != Done || !err.Remote || err.Peer != a.Peer() {
		t.Fatal(err)
	}
	if _, err := c.ReadMessage(); !errors.Is(err, Done) {
		t.Fatal(err)
	}
	if err := c.WriteMessage(nil); !errors.Is(err, Done) {
		t.Fatal(err)
	}
}

// TestMoved: a peer is found where the book says on that dial, and a stale address
// where somebody else lives by now does no harm.
func TestMoved(t *testing.T) {
	ctx := testContext(t)
	book := new(phonebook)
	a, b, other := openNode(t, book, 1, nil), openNode(t, book, 2, nil), openNode(t, book, 3, nil)
	for _, n := range []*node{a, b, other} {
		n.echoes(t)
	}
	at := b.Addr().String()
	book.set(b.Peer(), other.Addr().String(), at)
	c, err := a.Dial(ctx, b.Peer(), echoProtocol)
	if err != nil {
		t.Fatal(err)
	}
	said(t, c, "found")
	if err := next(t, other.refused); err.Reason != WrongPeer || !err.Remote {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := c.ReadMessage()
		ended <- err
	}()
	b.Close()
	if err := <-ended; !errors.Is(err, GoingAway) {
		t.Fatal(err)
	}
	again := openNode(t, book, 2, nil)
	again.echoes(t)
	if c, err = a.Dial(ctx, b.Peer(), echoProtocol); err != nil {
		t.Fatal(err)
	}
	said(t, c, "moved")
}

// TestGroupsOfAConnection: a connection carries the groups that both have and neither
// refuses, and ends when that changes.
func TestGroupsOfAConnection(t *testing.T) {
	ctx := testContext(t)
	book := new(phonebook)
	var mu sync.Mutex
	forbidden := map[identity.ID]bool{identity.NewID("c"): true}
	a := openNode(t, book, 1, nil)
	b := openNode(t, book, 2, func(o *Options) {
		o.Authorize = func(_ context.Context, r Request) (time.Time, error) {
			mu.Lock()
			defer mu.Unlock()
			if forbidden[r.Group] {
				return time.Time{}, fmt.Errorf("no ticket for it: %w", NotAllowed)
			}
			return time.Time{}, nil
		}
	})
	a.echoes(t)
	b.echoes(t)
	groups := func(n *node, names ...string) {
		var gs []Group
		for _, name := range names {
			gs = append(gs, testGroup(name, 2))
		}
		if err := n.SetGroups(gs); err != nil {
			t.Fatal(err)
		}
	}
	groups(a, "a", "b", "c")
	groups(b, "b", "c", "d")
	c, err := a.Dial(ctx, b.Peer(), groupProtocol)
	if err != nil {
		t.Fatal(err)
	}
	said(t, c, "hello")
	if g := c.Groups(); len(g) != 1 || g[0] != identity.NewID("b") {
		t.Fatalf("%v", g)
	}
	for _, n := range []*node{a, b} { // both know what was refused, and who has
		if err := next(t, n.refused); err.Reason != NotAllowed || err.Remote != (n == a) {
			t.Fatal(err)
		}
	}
	// What is granted now and was not then is worth a new connection.
	mu.Lock()
	forbidden = nil
	mu.Unlock()
	b.Recheck(a.Peer())
	if _, err := c.ReadMessage(); !errors.Is(err, Renew) {
		t.Fatal(err)
	}
	if c, err = a.Dial(ctx, b.Peer(), groupProtocol); err != nil {
		t.Fatal(err)
	}
	if g := c.Groups(); len(g) != 2 {
		t.Fatalf("%v", g)
	}
	// Other members are no reason to end it, other groups are.
	same := []Group{testGroup("b", 1), testGroup("c", 1), testGroup("d", 1)}
	if err := b.SetGroups(same); err != nil {
		t.Fatal(err)
	}
	said(t, c, "same groups")
	groups(b, "b")
	if _, err := c.ReadMessage(); !errors.Is(err, GroupsChanged) {
		t.Fatal(err)
	}
}

// TestClose: nothing can be done with a closed endpoint, and closing twice is fine.
func TestClose(t *testing.T) {
	ctx := testContext(t)
	book := new(phonebook)
	a, b := openNode(t, book, 1, nil), openNode(t, book, 2, nil)
	a.echoes(t)
	stop, err := b.Handle(Protocol{Name: echoProtocol, MaxMessage: 10, Serve: echo})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Handle(Protocol{Name: echoProtocol, MaxMessage: 10, Serve: echo}); !errors.Is(err, ErrProtocol) {
		t.Fatal(err)
	}
	c, err := a.Dial(ctx, b.Peer(), echoProtocol)
	if err != nil {
		t.Fatal(err)
	}
	said(t, c, "hello")
	stop() // the protocol alone
	stop()
	if _, err := c.ReadMessage(); !errors.Is(err, GoingAway) {
		t.Fatal(err)
	}
	if _, err := a.Dial(ctx, b.Peer(), echoProtocol); !errors.Is(err, UnknownProtocol) {
		t.Fatal(err)
	}
	if err := errors.Join(b.Close(), b.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Handle(Protocol{Name: "x", MaxMessage: 1}); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
	b.mu.Lock()
	b.mu.protocols[echoProtocol] = &protocol{Protocol: Protocol{Name: echoProtocol, MaxMessage: 1}}
	b.mu.Unlock()
	if _, err := b.Dial(ctx, a.Peer(), echoProtocol); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
}

// TestOptions: what cannot be opened says why.
func TestOptions(t *testing.T) {
	for name, o := range map[string]Options{
		"no key":     {Network: testNetwork},
		"no network": {Key: keyOf(1)},
		"listen":     {Key: keyOf(1), Network: testNetwork, Listen: "nowhere"},
		"negative":   {Key: keyOf(1), Network: testNetwork, Limits: Limits{Conns: -1}},
		"silence":    {Key: keyOf(1), Network: testNetwork, Limits: Limits{Heartbeat: time.Second, Silence: time.Second}},
		"backoff":    {Key: keyOf(1), Network: testNetwork, Limits: Limits{BackoffMin: time.Second, BackoffMax: time.Millisecond}},
		"time":       {Key: keyOf(1), Network: testNetwork, Limits: Limits{Farewell: -1}},
	} {
		if e, err := Open(o); err == nil {
			e.Close()
			t.Errorf("%s: opened", name)
		}
	}
	e, err := Open(Options{Key: keyOf(1), Network: testNetwork})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	g := testGroup("g", 1)
	for name, groups := range map[string][]Group{
		"twice": {g, g}, "no key": {{ID: g.ID}}, "no id": {{Key: g.Key}}, "too many": make([]Group, MaxGroups+1),
	} {
		if e.SetGroups(groups) == nil {
			t.Errorf("groups: %s: accepted", name)
		}
	}
	if _, err := e.Dial(testContext(t), keyOf(2).PeerID(), "x"); !errors.Is(err, ErrProtocol) {
		t.Error(err)
	}
	for _, p := range []Protocol{{}, {Name: "x"}, {Name: "x", MaxMessage: -1}, {Name: "x", MaxMessage: 1, Idle: -1}} {
		if _, err := e.Handle(p); !errors.Is(err, ErrProtocol) {
			t.Errorf("%+v: %v", p, err)
		}
	}
	if _, err := e.Handle(Protocol{Name: "x", MaxMessage: 1}); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Dial(testContext(t), keyOf(2).PeerID(), "x"); !errors.Is(err, ErrNoAddress) {
		t.Error(err)
	}
	if _, err := e.Dial(testContext(t), e.Peer(), "x"); !errors.Is(err, OwnIdentity) {
		t.Error(err)
	}
}
