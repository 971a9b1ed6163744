package network

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
)

// tickets is an Authorizer whose answers a test changes.
type tickets struct {
	mu    sync.Mutex
	until time.Time
	err   error
	asked int
}

func (k *tickets) authorize(context.Context, Request) (time.Time, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.asked++
	return k.until, k.err
}

func (k *tickets) set(until time.Time, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.until, k.err = until, err
}

// bonded opens two nodes, of which the second asks the tickets, and connects them.
func bonded(t *testing.T, k *tickets) (a, b *node, c *Conn) {
	t.Helper()
	book := new(phonebook)
	a = openNode(t, book, 1, nil)
	b = openNode(t, book, 2, func(o *Options) { o.Authorize = k.authorize })
	a.echoes(t)
	b.echoes(t)
	c, err := a.Dial(testContext(t), b.Peer(), echoProtocol)
	if err != nil {
		t.Fatal(err)
	}
	said(t, c, "hello")
	return a, b, c
}

// TestExpiry: a connection is cut when its authorization ends, not before, and both
// sides know why; with a new ticket it is made anew.
func TestExpiry(t *testing.T) {
	until := time.Now().Add(400 * time.Millisecond)
	k := &tickets{until: until}
	a, b, c := bonded(t, k)
	if got := b.Conns(); len(got) != 1 || !got[0].Until.Equal(until) {
		t.Fatalf("%+v", got)
	}
	if _, err := c.ReadMessage(); !errors.Is(err, TicketExpired) {
		t.Fatal(err)
	}
	if time.Now().Before(until) {
		t.Error("cut too early")
	}
	if err := next(t, b.closed); err.Reason != TicketExpired || err.Remote {
		t.Error(err)
	}
	if err := next(t, a.closed); err.Reason != TicketExpired || !err.Remote {
		t.Error(err)
	}
	if a.Metrics().Closed[TicketExpired] != 1 || b.Metrics().Closed[TicketExpired] != 1 {
		t.Errorf("%+v", b.Metrics())
	}
	if _, err := a.Dial(testContext(t), b.Peer(), echoProtocol); !errors.Is(err, TicketExpired) {
		t.Fatal(err)
	}
	k.set(time.Now().Add(time.Hour), nil)
	c, err := a.Dial(testContext(t), b.Peer(), echoProtocol)
	if err != nil {
		t.Fatal(err)
	}
	said(t, c, "fresh ticket")
}

// TestRenewed: when the time comes and there is a fresh ticket, nothing is cut.
func TestRenewed(t *testing.T) {
	first := time.Now().Add(200 * time.Millisecond)
	k := &tickets{until: first}
	_, b, c := bonded(t, k)
	later := time.Now().Add(time.Hour)
	k.set(later, nil)
	eventually(t, "the connection is good for an hour", func() bool { return b.Conns()[0].Until.Equal(later) })
	if time.Now().Before(first) {
		t.Error("asked too early")
	}
	said(t, c, "still here")
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.asked != 2 {
		t.Errorf("asked %d times", k.asked)
	}
}

// TestRecheck: a change of what is known about a peer takes effect at once, in both
// directions: cut, prolonged, shortened.
func TestRecheck(t *testing.T) {
	k := new(tickets)
	a, b, c := bonded(t, k)
	b.Recheck(keyOf(7).PeerID()) // somebody else
	said(t, c, "not me")
	k.set(time.Now().Add(time.Hour), nil)
	b.Recheck(a.Peer())
	if b.Conns()[0].Until.IsZero() {
		t.Error("not shortened")
	}
	said(t, c, "one more hour")
	k.set(time.Time{}, errors.New("the entry has no such ticket any more"))
	b.Recheck(a.Peer())
	if len(b.Conns()) != 0 {
		t.Error("Recheck returned before the connection had ended")
	}
	if _, err := c.ReadMessage(); !errors.Is(err, NotAllowed) {
		t.Fatal(err)
	}
	if err := next(t, b.closed); err.Reason != NotAllowed || err.Remote {
		t.Error(err)
	}
}

// TestPause: an authorization that ends in a year does not make a timer of a year.
func TestPause(t *testing.T) {
	now := time.Now()
	c := &Conn{e: &Endpoint{limits: quick}}
	for _, test := range []struct {
		until time.Time
		want  time.Duration
	}{
		{time.Time{}, quick.Heartbeat}, {now.AddDate(300, 0, 0), quick.Heartbeat}, {now.Add(time.Millisecond), time.Millisecond}, {now.Add(-time.Hour), 0},
	} {
		c.mu.until = test.until
		if got := c.pause(now); got != test.want {
			t.Errorf("until %v: a pause of %v, want %v", test.until, got, test.want)
		}
	}
}

// TestPerPeer: one peer has so many connections and no more, and another is served.
func TestPerPeer(t *testing.T) {
	ctx := testContext(t)
	book := new(phonebook)
	a, other := openNode(t, book, 1, nil), openNode(t, book, 3, nil)
	b := openNode(t, book, 2, func(o *Options) { o.Limits.ConnsPerPeer, o.Limits.Conns = 3, 4 })
	for _, n := range []*node{a, b, other} {
		n.echoes(t)
	}
	var conns []*Conn
	for range 3 {
		c, err := a.Dial(ctx, b.Peer(), echoProtocol)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	if _, err := a.Dial(ctx, b.Peer(), echoProtocol); !errors.Is(err, TooManyConnections) {
		t.Fatal(err)
	}
	c, err := other.Dial(ctx, b.Peer(), echoProtocol)
	if err != nil {
		t.Fatal(err)
	}
	said(t, c, "honest")
	if _, err := other.Dial(ctx, b.Peer(), echoProtocol); !errors.Is(err, TooManyConnections) {
		t.Fatal(err)
	}
	if _, err := b.Dial(ctx, other.Peer(), echoProtocol); !errors.Is(err, TooManyConnections) {
		t.Fatal(err)
	}
	conns[0].Close() // makes room
	eventually(t, "there is room again", func() bool { return b.Metrics().Conns < 4 })
	if c, err = a.Dial(ctx, b.Peer(), echoProtocol); err != nil {
		t.Fatal(err)
	}
	said(t, c, "again")
}

// TestFlood: whoever connects and says nothing, in any number, takes no place from
// whoever speaks, and no memory beyond the limit.
func TestFlood(t *testing.T) {
	ctx := testContext(t)
	book := new(phonebook)
	a := openNode(t, book, 1, nil)
	b := openNode(t, book, 2, func(o *Options) { o.Limits.Handshakes, o.Limits.HandshakeTimeout = 16, time.Minute })
	a.echoes(t)
	b.echoes(t)
	for i := range 300 {
		raw, err := net.Dial("tcp", b.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer raw.Close()
		if i%3 == 1 {
			if _, err := raw.Write([]byte{22, 3, 1, 2, 0, 1}); err != nil { // the beginning of a ClientHello
				t.Log(err)
			}
		}
		if i%10 == 0 {
			if b.Metrics().Handshakes > 16 {
				t.Fatal("more handshakes at once than the limit")
			}
			c, err := a.Dial(ctx, b.Peer(), echoProtocol)
			if err != nil {
				t.Fatal(err)
			}
			said(t, c, "honest")
			c.Close()
		}
	}
	eventually(t, "all but the latest were put out", func() bool { return b.Metrics().Refused[TooManyHandshakes] >= 300-16 })
	if got := b.Metrics().Handshakes; got > 16 {
		t.Errorf("%d handshakes", got)
	}
}

// TestCrowd: the host with the most handshakes loses its oldest.
func TestCrowd(t *testing.T) {
	hs := handshakes{{host: "a"}, {host: "b"}, {host: "c"}, {host: "b"}}
	if i := hs.crowd(); i != 1 {
		t.Errorf("%d", i)
	}
	if i := hs[:3].crowd(); i != 0 {
		t.Errorf("%d", i)
	}
}

func TestHostOf(t *testing.T) {
	for address, want := range map[string]string{
		"10.1.2.3": "10.1.2.3", "::ffff:10.1.2.3": "10.1.2.3", "2001:db8:1:2:3:4:5:6": "2001:db8:1:2::/64", "::1": "::/64",
	} {
		if got := hostOf(&net.TCPAddr{IP: net.ParseIP(address), Port: 7}); got != want {
			t.Errorf("%s counts as %s, want %s", address, got, want)
		}
	}
}

// mute makes a connection whose other side does not read, until the buffers between
// them are full.
func mute(t *testing.T, book *phonebook, l Limits) (a *node, c *Conn) {
	t.Helper()
	a = openNode(t, book, 1, func(o *Options) { o.Limits = l })
	b := openNode(t, book, 2, nil)
	for _, n := range []*node{a, b} {
		if _, err := n.Handle(Protocol{Name: echoProtocol, MaxMessage: 64 << 20, Serve: func(c *Conn) { <-c.Done() }}); err != nil {
			t.Fatal(err)
		}
	}
	c, err := a.Dial(testContext(t), b.Peer(), echoProtocol)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Disconnect(a.Peer(), Done, nil) }) // it does not notice by itself
	return a, c
}

// TestSlow: a peer that does not read is given up after a while, and other
// connections do not notice.
func TestSlow(t *testing.T) {
	l := quick
	l.WriteTimeout = 300 * time.Millisecond
	book := new(phonebook)
	a, c := mute(t, book, l)
	failed := make(chan error, 1)
	go func() { failed <- writeOn(c) }()
	other := openNode(t, book, 3, nil)
	other.echoes(t)
	honest, err := a.Dial(testContext(t), other.Peer(), echoProtocol)
	if err != nil {
		t.Fatal(err)
	}
	for done := false; !done; {
		said(t, honest, "not held up")
		select {
		case err := <-failed:
			if !errors.Is(err, TooSlow) {
				t.Fatal(err)
			}
			done = true
		default:
		}
	}
}

// writeOn writes until that fails.
func writeOn(c *Conn) error {
	b := make([]byte, 64<<20)
	for {
		if err := c.WriteMessage(b); err != nil {
			return err
		}
	}
}

// TestCloseOfTheSlow: closing takes no longer than a farewell, even while a write to a
// peer that does not read is under way.
func TestCloseOfTheSlow(t *testing.T) {
	l := quick
	l.WriteTimeout = time.Hour
	a, c := mute(t, new(phonebook), l)
	failed := make(chan error, 1)
	go func() { failed <- writeOn(c) }()
	eventually(t, "something is on its way", func() bool { return !c.write.TryLock() || unlock(c) })
	closed := make(chan error, 1)
	go func() { closed <- a.Close() }()
	select {
	case err := <-closed:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second): // far beyond a farewell
		t.Fatal("Close waits for a peer that does not read")
	}
	if err := <-failed; !errors.Is(err, GoingAway) {
		t.Error(err)
	}
}

func unlock(c *Conn) bool {
	c.write.Unlock()
	return false
}

// TestHeartbeats: a connection on which nothing is said stays, longer than the silence
// that is borne; one whose other side has stopped dead does not.
func TestHeartbeats(t *testing.T) {
	book := new(phonebook)
	l := quick
	l.Heartbeat, l.Silence = 20*time.Millisecond, 400*time.Millisecond
	a := openNode(t, book, 1, func(o *Options) { o.Limits = l })
	b := openNode(t, book, 2, func(o *Options) { o.Limits = l })
	a.echoes(t)
	b.echoes(t)
	c, err := a.Dial(testContext(t), b.Peer(), echoProtocol)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.SetReadDeadline(time.Now().Add(3 * l.Silence)); err != nil {
		t.Fatal(err)
	}
	var timeout net.Error
	if _, err := c.ReadMessage(); !errors.As(err, &timeout) || errors.As(err, new(*CloseError)) {
		t.Fatalf("a quiet connection: %v", err)
	}
	if err := c.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	said(t, c, "still here")

	s, err := approach(t, a, keyOf(9), nil, echoProtocol) // sends no heartbeats
	if err != nil {
		t.Fatal(err)
	}
	s.protocol = &protocol{Protocol: Protocol{Name: echoProtocol, MaxMessage: 1}}
	if err := s.greetFirst(testContext(t)); err != nil {
		t.Fatal(err)
	}
	for {
		kind, _, err := s.readControl(maxHello)
		if err != nil {
			if !errors.Is(err, Silent) {
				t.Fatal(err)
			}
			break
		}
		if kind != kindHeartbeat {
			t.Fatalf("a frame of kind %d", kind)
		}
	}
}

// TestIdle: a protocol may bound how long its connections are of no use.
func TestIdle(t *testing.T) {
	book := new(phonebook)
	a, b := openNode(t, book, 1, nil), openNode(t, book, 2, nil)
	for _, n := range []*node{a, b} {
		if _, err := n.Handle(Protocol{Name: echoProtocol, MaxMessage: 10, Idle: 200 * time.Millisecond, Serve: echo}); err != nil {
			t.Fatal(err)
		}
	}
	c, err := a.Dial(testContext(t), b.Peer(), echoProtocol)
	if err != nil {
		t.Fatal(err)
	}
	said(t, c, "hello")
	if _, err := c.ReadMessage(); !errors.Is(err, Idle) {
		t.Fatal(err)
	}
}

// TestBadFrames: what is no frame of an open connection ends it, with the reason.
func TestBadFrames(t *testing.T) {
	for name, test := range map[string]struct {
		frame  []byte
		reason Reason
	}{
		"oversize":         {appendHeader(nil, kindMessage, 1<<20+1), Oversize},
		"gigantic":         {appendHeader(nil, kindMessage, 1<<32-1), Oversize},
		"unknown kind":     {appendHeader(nil, 77, 0), Malformed},
		"hello":            {appendHeader(nil, kindHello, 0), Malformed},
		"large heartbeat":  {appendHeader(nil, kindHeartbeat, 1), Malformed},
		"large entry":      {appendHeader(nil, kindEntry, identity.MaxEntry+1), Oversize},
		"no entry":         {append(appendHeader(nil, kindEntry, 4), "nope"...), BadEntry},
		"large close":      {appendHeader(nil, kindClose, maxClose+1), Malformed},
		"an unknown word":  {append(appendHeader(nil, kindClose, 4), "boom"...), Other},
		"nothing any more": {nil, Lost},
	} {
		t.Run(name, func(t *testing.T) {
			a := openNode(t, new(phonebook), 1, nil)
			a.echoes(t)
			s, err := approach(t, a, keyOf(9), nil, echoProtocol)
			if err != nil {
				t.Fatal(err)
			}
			s.protocol = &protocol{Protocol: Protocol{Name: echoProtocol, MaxMessage: 1}}
			if err := s.greetFirst(testContext(t)); err != nil {
				t.Fatal(err)
			}
			if _, err := s.tls.Write(test.frame); err != nil {
				t.Fatal(err)
			}
			if test.frame == nil {
				s.raw.Close()
			}
			if err := next(t, a.closed); err.Reason != test.reason || err.Remote != (test.reason == Other) {
				t.Errorf("%v, want %s", err, test.reason)
			}
		})
	}
}

// TestAnnounced: what a message claims to be large costs nothing until it comes.
func TestAnnounced(t *testing.T) {
	book := new(phonebook)
	a := openNode(t, book, 1, nil)
	reading := make(chan *Conn, 1)
	if _, err := a.Handle(Protocol{Name: echoProtocol, MaxMessage: 1 << 30, Serve: func(c *Conn) {
		reading <- c
		echo(c)
	}}); err != nil {
		t.Fatal(err)
	}
	s, err := approach(t, a, keyOf(9), nil, echoProtocol)
	if err != nil {
		t.Fatal(err)
	}
	s.protocol = &protocol{Protocol: Protocol{Name: echoProtocol, MaxMessage: 1}}
	if err := s.greetFirst(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.tls.Write(append(appendHeader(nil, kindMessage, 1<<30), make([]byte, 1000)...)); err != nil {
		t.Fatal(err)
	}
	c := <-reading
	eventually(t, "the beginning has come", func() bool { return a.Metrics().BytesIn >= 1000 })
	c.CloseFor(GoingAway, nil)
	c.read.Lock() // after whoever read
	defer c.read.Unlock()
	if cap(c.read.message) > 4*pieceBytes {
		t.Errorf("%d bytes are held for a message of which 1000 have come", cap(c.read.message))
	}
}

// TestBackoff: a peer that is not there is dialled again and again, each time after
// a longer pause, and at once when it has shown itself.
func TestBackoff(t *testing.T) {
	book := new(phonebook)
	a := openNode(t, book, 1, func(o *Options) { o.Limits.BackoffMin, o.Limits.BackoffMax = 10*time.Millisecond, time.Hour })
	a.echoes(t)
	peer := keyOf(2).PeerID()
	book.set(peer, "127.0.0.1:1")
	for range 4 {
		if _, err := a.Dial(testContext(t), peer, echoProtocol); err == nil {
			t.Fatal("dialled nobody")
		}
	}
	a.mu.Lock()
	b := *a.mu.backoffs[peer]
	b.next = time.Now().Add(time.Hour)
	a.mu.backoffs[peer] = &b
	a.mu.Unlock()
	if b.pause != 80*time.Millisecond {
		t.Errorf("a pause of %v after four times", b.pause)
	}
	if a.Metrics().DialErrors != 4 {
		t.Errorf("%+v", a.Metrics())
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := a.Dial(ctx, peer, echoProtocol); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	n := openNode(t, book, 2, nil)
	n.echoes(t)
	c, err := n.Dial(testContext(t), a.Peer(), echoProtocol)
	if err != nil {
		t.Fatal(err)
	}
	said(t, c, "here I am")
	if c, err = a.Dial(testContext(t), peer, echoProtocol); err != nil {
		t.Fatal(err)
	}
	said(t, c, "there you are")
}
