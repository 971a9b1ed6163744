package network

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
)

// TestRefusals: who is refused what, with the same word on both sides, counted on
// both, and nothing handed up on either.
func TestRefusals(t *testing.T) {
	deny := func(r Reason) func(*Options) {
		return func(o *Options) {
			o.Authorize = func(context.Context, Request) (time.Time, error) { return time.Time{}, fmt.Errorf("test: %w", r) }
		}
	}
	expired := func(o *Options) {
		o.Authorize = func(context.Context, Request) (time.Time, error) { return time.Now().Add(-time.Second), nil }
	}
	group, other := testGroup("g", 2), testGroup("other", 2)
	wrongKey := group
	wrongKey.Key = identity.NewID("another key")
	for _, test := range []struct {
		name               string
		dialler, acceptor  func(*Options)
		mine, theirs       []Group // of the dialler, of the acceptor
		protocol           string
		reason             Reason
		byDialler          bool
		elsewhere          bool // the dialler is sent to somebody else
		unlikeOnOtherSides Reason
	}{
		{name: "network", dialler: func(o *Options) { o.Network = identity.NewID("elsewhere") }, protocol: echoProtocol, reason: WrongNetwork},
		{name: "network, with groups", dialler: func(o *Options) { o.Network = identity.NewID("elsewhere") },
			mine: []Group{wrongKey}, theirs: []Group{group}, protocol: groupProtocol, reason: WrongNetwork},
		{name: "peer", protocol: echoProtocol, reason: WrongPeer, byDialler: true, elsewhere: true},
		{name: "protocol", protocol: "mosaik/unheard-of/1", reason: UnknownProtocol},
		{name: "group key", mine: []Group{wrongKey}, theirs: []Group{group}, protocol: groupProtocol, reason: WrongGroupKey},
		{name: "one group key of two", mine: []Group{other, wrongKey}, theirs: []Group{group, other}, protocol: groupProtocol, reason: WrongGroupKey},
		{name: "no common group", mine: []Group{other}, theirs: []Group{group}, protocol: groupProtocol, reason: NoCommonGroup},
		{name: "acceptor without groups", mine: []Group{other}, protocol: groupProtocol, reason: NoCommonGroup},
		{name: "not allowed", acceptor: deny(NotAllowed), protocol: echoProtocol, reason: NotAllowed},
		{name: "not allowed by the dialler", dialler: deny(NotAllowed), protocol: echoProtocol, reason: NotAllowed, byDialler: true},
		{name: "no ticket for the group", acceptor: deny("some-word"), mine: []Group{group}, theirs: []Group{group}, protocol: groupProtocol,
			reason: "some-word", unlikeOnOtherSides: Other},
		{name: "expired", acceptor: expired, protocol: echoProtocol, reason: TicketExpired},
		{name: "expired, says the dialler", dialler: expired, mine: []Group{group}, theirs: []Group{group}, protocol: groupProtocol, reason: TicketExpired, byDialler: true},
		{name: "too many of a peer", acceptor: func(o *Options) { o.Limits.ConnsPerPeer = -1 }, protocol: echoProtocol, reason: TooManyConnections},
		{name: "too many", acceptor: func(o *Options) { o.Limits.Conns = -1 }, protocol: echoProtocol, reason: TooManyConnections},
	} {
		t.Run(test.name, func(t *testing.T) {
			book := new(phonebook)
			var handedUp atomic.Int32
			dialler := openNode(t, book, 1, test.dialler)
			acceptor := openNode(t, book, 2, func(o *Options) {
				if test.acceptor != nil {
					test.acceptor(o)
				}
				if o.Limits.Conns < 0 || o.Limits.ConnsPerPeer < 0 {
					o.Limits.Conns, o.Limits.ConnsPerPeer = max(0, o.Limits.Conns), max(0, o.Limits.ConnsPerPeer)
				}
			})
			if test.reason == TooManyConnections {
				acceptor.mu.Lock() // as if there were so many
				acceptor.mu.count, acceptor.mu.perPeer[dialler.Peer()] = acceptor.limits.Conns-1, acceptor.limits.ConnsPerPeer
				if test.name == "too many" {
					acceptor.mu.count, acceptor.mu.perPeer[dialler.Peer()] = acceptor.limits.Conns, 0
				}
				acceptor.mu.Unlock()
			}
			serve := func(c *Conn) {
				handedUp.Add(1)
				echo(c)
			}
			for _, n := range []*node{dialler, acceptor} {
				for _, p := range []Protocol{{Name: echoProtocol, MaxMessage: 1, Serve: serve}, {Name: groupProtocol, Groups: true, MaxMessage: 1, Serve: serve}} {
					if _, err := n.Handle(p); err != nil {
						t.Fatal(err)
					}
				}
			}
			if _, err := dialler.Handle(Protocol{Name: "mosaik/unheard-of/1", MaxMessage: 1}); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(dialler.SetGroups(test.mine), acceptor.SetGroups(test.theirs)); err != nil {
				t.Fatal(err)
			}
			target := acceptor.Peer()
			if test.elsewhere {
				target = keyOf(3).PeerID()
				book.set(target, acceptor.Addr().String())
			}
			c, err := dialler.Dial(testContext(t), target, test.protocol)
			if test.byDialler && err == nil || !test.byDialler && !errors.Is(err, test.reason) && test.unlikeOnOtherSides == "" {
				t.Fatalf("dialled: %v, %v", c, err)
			}
			told := test.reason
			if test.unlikeOnOtherSides != "" {
				told = test.unlikeOnOtherSides
			}
			refuser, refused := acceptor, dialler
			if test.byDialler {
				refuser, refused = dialler, acceptor
			}
			if err := next(t, refuser.refused); err.Reason != test.reason || err.Remote {
				t.Errorf("who refuses: %v", err)
			}
			if err := next(t, refused.refused); err.Reason != told || !err.Remote {
				t.Errorf("who is refused: %v", err)
			}
			if m := refuser.Metrics(); m.Refused[test.reason] == 0 || m.Accepted+m.Dialled > 0 {
				t.Errorf("who refuses counts %+v", m)
			}
			if m := refused.Metrics(); m.RefusedBy[told] == 0 || m.Accepted+m.Dialled > 0 || m.MessagesIn+m.MessagesOut+m.BytesIn > 0 {
				t.Errorf("who is refused counts %+v", m)
			}
			if handedUp.Load() > 0 {
				t.Error("a connection was handed up")
			}
		})
	}
}

// stranger is somebody who speaks TLS and the frames of bonds, but not as an endpoint
// does.
type stranger struct {
	*Conn
	key identity.Key
}

// approach dials a node as key, with a certificate that may be another than key's.
func approach(t *testing.T, n *node, key identity.Key, certificates *tls.Certificate, protocol string) (*stranger, error) {
	t.Helper()
	raw, err := net.Dial("tcp", n.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { raw.Close() })
	if err := raw.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	certificate, err := certificateFor(key)
	if err != nil {
		t.Fatal(err)
	}
	if certificates != nil {
		certificate = *certificates
	}
	config := tlsConfig(certificate, []string{protocol}, func(identity.PeerID) error { return nil })
	if protocol == "" {
		config.NextProtos = nil
	}
	secure := tls.Client(raw, config)
	if err := secure.Handshake(); err != nil {
		return nil, err
	}
	e := &Endpoint{limits: quick.withDefaults(), network: testNetwork, peer: key.PeerID(), counters: newCounters()}
	c := e.newConn(raw, secure, &protocolOfTests, true)
	return &stranger{c, key}, nil
}

var protocolOfTests = protocol{Protocol: Protocol{Name: groupProtocol, Groups: true, MaxMessage: 1 << 20}}

// refusedWith reads what the node says to the stranger, and what it noted itself.
func (s *stranger) refusedWith(t *testing.T, n *node, want Reason) {
	t.Helper()
	_, _, err := s.readControl(maxHello)
	if err = tlsRefusal(err, true, Lost); !errors.Is(err, want) {
		t.Errorf("the stranger is told %v, want %s", err, want)
	}
	if err := next(t, n.refused); err.Reason != want || err.Remote {
		t.Errorf("the node notes %v, want %s", err, want)
	}
	if n.Metrics().Refused[want] == 0 {
		t.Errorf("%s is not counted", want)
	}
}

// greet sends a hello with the given proof for the group "g".
func (s *stranger) greet(t *testing.T, proof identity.ID) {
	t.Helper()
	h := hello{network: testNetwork, proven: []groupProof{{identity.NewID("g"), proof}}}
	if err := s.writeControl(kindHello, h.appendTo(nil)); err != nil {
		t.Fatal(err)
	}
}

func (s *stranger) proof(t *testing.T, peer identity.PeerID, key identity.ID) identity.ID {
	t.Helper()
	p, err := proofOf(exporterOf(s.tls), groupProtocol, identity.NewID("g"), key, peer)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestStrangers: what an endpoint would not send is refused as well.
func TestStrangers(t *testing.T) {
	group := testGroup("g", 2)
	open := func(t *testing.T) *node {
		n := openNode(t, new(phonebook), 1, func(o *Options) { o.Limits.HandshakeTimeout = 2 * time.Second })
		n.echoes(t)
		if err := n.SetGroups([]Group{group}); err != nil {
			t.Fatal(err)
		}
		return n
	}
	key := keyOf(9)
	meet := func(t *testing.T, n *node) *stranger {
		s, err := approach(t, n, key, nil, groupProtocol)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	t.Run("the right proof", func(t *testing.T) {
		n := open(t)
		s := meet(t, n)
		s.greet(t, s.proof(t, key.PeerID(), group.Key))
		kind, b, err := s.readControl(maxHello)
		if err != nil || kind != kindHello {
			t.Fatal(kind, err)
		}
		if h, err := decodeHello(b); err != nil || len(h.proven) != 1 || h.proven[0].proof != s.proof(t, n.Peer(), group.Key) {
			t.Fatalf("%+v, %v", h, err)
		}
		// Without a welcome nothing is handed up: what else comes is refused.
		if err := s.writeControl(kindMessage, []byte("hello?")); err != nil {
			t.Fatal(err)
		}
		s.refusedWith(t, n, Malformed)
	})
	t.Run("a proof of another session", func(t *testing.T) {
		n := open(t)
		before := meet(t, n)
		recorded := before.proof(t, key.PeerID(), group.Key)
		s := meet(t, n)
		s.greet(t, recorded)
		s.refusedWith(t, n, WrongGroupKey)
	})
	t.Run("a proof of somebody else", func(t *testing.T) {
		n := open(t)
		s := meet(t, n)
		s.greet(t, s.proof(t, keyOf(2).PeerID(), group.Key))
		s.refusedWith(t, n, WrongGroupKey)
	})
	t.Run("the node's own proof, sent back", func(t *testing.T) {
		n := open(t)
		s := meet(t, n)
		s.greet(t, s.proof(t, n.Peer(), group.Key))
		s.refusedWith(t, n, WrongGroupKey)
	})
	for name, b := range map[string][]byte{
		"short": {1}, "no counts": testNetwork[:], "trailing": append((&hello{network: testNetwork}).appendTo(nil), 0),
		"twice":  (&hello{network: testNetwork, proven: []groupProof{{group.ID, group.ID}, {group.ID, group.ID}}}).appendTo(nil),
		"counts": append(append([]byte(nil), testNetwork[:]...), 0xff, 0xff, 0, 0),
	} {
		t.Run("malformed hello: "+name, func(t *testing.T) {
			n := open(t)
			s := meet(t, n)
			if err := s.writeControl(kindHello, b); err != nil {
				t.Fatal(err)
			}
			s.refusedWith(t, n, Malformed)
		})
	}
	t.Run("oversize hello", func(t *testing.T) {
		n := open(t)
		s := meet(t, n)
		if _, err := s.tls.Write(appendHeader(nil, kindHello, maxHello+1)); err != nil {
			t.Fatal(err)
		}
		s.refusedWith(t, n, Oversize)
	})
	t.Run("not a hello", func(t *testing.T) {
		n := open(t)
		s := meet(t, n)
		if err := s.writeControl(kindMessage, nil); err != nil {
			t.Fatal(err)
		}
		s.refusedWith(t, n, Malformed)
	})
	t.Run("silent", func(t *testing.T) {
		n := open(t)
		meet(t, n).refusedWith(t, n, HandshakeTimeout)
	})
	t.Run("no protocol", func(t *testing.T) {
		n := open(t)
		s, err := approach(t, n, key, nil, "")
		if err != nil {
			t.Fatal(err)
		}
		s.refusedWith(t, n, UnknownProtocol)
	})
	t.Run("the node's own key", func(t *testing.T) {
		n := open(t)
		s, err := approach(t, n, keyOf(1), nil, groupProtocol)
		if err != nil {
			t.Fatal(err)
		}
		s.refusedWith(t, n, OwnIdentity)
	})
	for name, certificate := range badCertificates(t, key) {
		t.Run("certificate: "+name, func(t *testing.T) {
			n := open(t)
			s, err := approach(t, n, key, &certificate, groupProtocol)
			if err != nil {
				t.Fatal(err)
			}
			s.refusedWith(t, n, BadCertificate)
		})
	}
}

func badCertificates(t *testing.T, key identity.Key) map[string]tls.Certificate {
	t.Helper()
	good, err := certificateFor(key)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	_, other, _ := ed25519.GenerateKey(rand.Reader)
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signedBy := func(parent *x509.Certificate, public, private any) []byte {
		der, err := x509.CreateCertificate(rand.Reader, template, parent, public, private)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	large := *template
	large.DNSNames = []string{string(make([]byte, maxCertificate))}
	largeDER, err := x509.CreateCertificate(rand.Reader, &large, &large, key.Signer().Public(), key.Signer())
	if err != nil {
		t.Fatal(err)
	}
	return map[string]tls.Certificate{
		"none":              {},
		"two":               {Certificate: [][]byte{good.Certificate[0], good.Certificate[0]}, PrivateKey: good.PrivateKey},
		"ECDSA":             {Certificate: [][]byte{signedBy(template, &curve.PublicKey, curve)}, PrivateKey: curve},
		"signed by another": {Certificate: [][]byte{signedBy(template, key.Signer().Public(), other)}, PrivateKey: good.PrivateKey},
		"too large":         {Certificate: [][]byte{largeDER}, PrivateKey: good.PrivateKey},
	}
}
