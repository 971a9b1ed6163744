package network

import (
	"crypto/tls"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
)

// TestImpostors: who is dialled has to prove as much as who dials. An impostor has a
// key of its own, under which it is dialled, and answers a hello as the test says.
func TestImpostors(t *testing.T) {
	group := testGroup("g", 2)
	impostor := keyOf(9)
	honest := func(c *Conn) hello {
		proof, err := proofOf(exporterOf(c.tls), groupProtocol, group.ID, group.Key, impostor.PeerID())
		if err != nil {
			t.Error(err)
		}
		return hello{network: testNetwork, proven: []groupProof{{group.ID, proof}}}
	}
	for name, test := range map[string]struct {
		answer func(c *Conn, theirs hello) []byte // a whole frame
		reason Reason
	}{
		"none": {func(c *Conn, _ hello) []byte { h := honest(c); return control(kindHello, h.appendTo(nil)) }, ""},
		"without the key": {func(c *Conn, _ hello) []byte {
			h := honest(c)
			h.proven[0].proof = identity.NewID("a guess")
			return control(kindHello, h.appendTo(nil))
		}, WrongGroupKey},
		"the dialler's own proof": {func(c *Conn, theirs hello) []byte {
			return control(kindHello, theirs.appendTo(nil))
		}, WrongGroupKey},
		"of another network": {func(c *Conn, _ hello) []byte {
			h := honest(c)
			h.network = identity.NewID("elsewhere")
			return control(kindHello, h.appendTo(nil))
		}, WrongNetwork},
		"a group that was not offered": {func(c *Conn, _ hello) []byte {
			h := honest(c)
			h.proven[0].group = identity.NewID("another")
			return control(kindHello, h.appendTo(nil))
		}, Malformed},
		"no group": {func(*Conn, hello) []byte {
			return control(kindHello, (&hello{network: testNetwork}).appendTo(nil))
		}, NoCommonGroup},
		"no hello":       {func(*Conn, hello) []byte { return control(kindMessage, []byte("traffic")) }, Malformed},
		"oversize":       {func(*Conn, hello) []byte { return appendHeader(nil, kindHello, 1<<30) }, Oversize},
		"half a welcome": {func(*Conn, hello) []byte { return control(kindHello, testNetwork[:20]) }, Malformed},
	} {
		t.Run(name, func(t *testing.T) {
			book := new(phonebook)
			a := openNode(t, book, 1, nil)
			a.echoes(t)
			if err := a.SetGroups([]Group{group}); err != nil {
				t.Fatal(err)
			}
			told := make(chan error, 1)
			book.set(impostor.PeerID(), impersonate(t, impostor, test.answer, told))
			c, err := a.Dial(testContext(t), impostor.PeerID(), groupProtocol)
			if test.reason == "" { // an impostor that is none
				if err != nil || <-told != nil || !c.Carries(group.ID) {
					t.Fatal(err)
				}
				return
			}
			if !errors.Is(err, test.reason) {
				t.Errorf("dialled: %v, want %s", err, test.reason)
			}
			if err := <-told; !errors.Is(err, test.reason) {
				t.Errorf("the impostor is told %v, want %s", err, test.reason)
			}
			if err := next(t, a.refused); err.Reason != test.reason || err.Remote {
				t.Errorf("noted: %v", err)
			}
			if m := a.Metrics(); m.Refused[test.reason] == 0 || m.Dialled > 0 || m.MessagesOut+m.MessagesIn > 0 {
				t.Errorf("%+v", m)
			}
		})
	}
}

func control(kind byte, b []byte) []byte { return append(appendHeader(nil, kind, len(b)), b...) }

// impersonate accepts one connection, answers its hello, and reports what it is told
// then. It returns where it listens.
func impersonate(t *testing.T, key identity.Key, answer func(*Conn, hello) []byte, told chan<- error) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := certificateFor(key)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { listener.Close(); <-done })
	go func() {
		defer close(done)
		raw, err := listener.Accept()
		if err != nil {
			told <- err
			return
		}
		defer raw.Close()
		_ = raw.SetDeadline(time.Now().Add(30 * time.Second))
		secure := tls.Server(raw, tlsConfig(certificate, []string{groupProtocol}, func(identity.PeerID) error { return nil }))
		e := &Endpoint{limits: quick.withDefaults(), network: testNetwork, peer: key.PeerID(), counters: newCounters()}
		c := e.newConn(raw, secure, &protocolOfTests, false)
		if err := secure.Handshake(); err != nil {
			told <- err
			return
		}
		theirs, err := c.readHello()
		if err == nil {
			_, err = secure.Write(answer(c, theirs))
		}
		if err == nil {
			_, _, err = c.readControl(maxRefused)
		}
		told <- err
	}()
	return listener.Addr().String()
}
