package network

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
)

// The handshake, after TLS has agreed on a protocol and shown each side the other's
// key:
//
//	dialler                                     acceptor
//	hello {network, proofs, entry}         -->
//	                                            network? proofs? entry? allowed?
//	                                       <--  hello {network, proofs, refused groups, entry}
//	network? proofs? entry? allowed?
//	welcome {refused groups}               -->
//
// Instead of any of these a side may send a close frame with its reason.

// dialHandshake is the dialler's side, from TLS on. On an error the connection has
// to be given up.
func (e *Endpoint) dialHandshake(ctx context.Context, raw net.Conn, p *protocol, peer identity.PeerID) (*Conn, error) {
	config := tlsConfig(e.certificate, []string{p.Name}, func(got identity.PeerID) error {
		if got != peer {
			return refusal(WrongPeer, "peer %s answered", got.Short())
		}
		return nil
	})
	secure := tls.Client(raw, config)
	c := e.newConn(raw, secure, p, true)
	err := secure.HandshakeContext(ctx)
	if err == nil && secure.ConnectionState().NegotiatedProtocol != p.Name {
		err = refusal(UnknownProtocol, "TLS agreed on %q", secure.ConnectionState().NegotiatedProtocol)
	}
	if err == nil {
		c.peer = peer
		err = c.greetFirst(ctx)
	}
	return c, err
}

// acceptHandshake is the acceptor's side, from TLS on. On an error the connection
// has to be given up.
func (e *Endpoint) acceptHandshake(ctx context.Context, raw net.Conn) (*Conn, error) {
	var offered []string
	var peer identity.PeerID
	names := e.protocolNames()
	config := tlsConfig(e.certificate, names, func(got identity.PeerID) error {
		peer = got
		return nil
	})
	config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		offered = hello.SupportedProtos
		return nil, nil
	}
	secure := tls.Server(raw, config)
	c := e.newConn(raw, secure, &protocol{}, false)
	err := secure.HandshakeContext(ctx)
	if err != nil && offered != nil && !slices.ContainsFunc(offered, func(o string) bool { return slices.Contains(names, o) }) {
		err = refusal(UnknownProtocol, "%.100q is offered", offered[:min(len(offered), 4)])
	}
	if err != nil && err.Error() == textNoCertificate {
		err = &CloseError{Reason: BadCertificate, Cause: err}
	}
	if err == nil {
		c.peer = peer
		switch p := e.protocol(secure.ConnectionState().NegotiatedProtocol); {
		case p == nil || p.Serve == nil:
			err = refusal(UnknownProtocol, "no protocol is offered, or one that is gone by now")
		case peer == e.peer:
			err = refusal(OwnIdentity, "the other side has this node's key")
		default:
			c.protocol = p
			err = c.greetSecond(ctx)
		}
	}
	return c, err
}

// giveUp ends a handshake that came to nothing: it tells the other side and returns
// why.
func (e *Endpoint) giveUp(c *Conn, err error) *CloseError {
	if c.reserved {
		e.release(c.peer)
	}
	failure := handshakeFailure(err, c.dialled)
	failure.Peer, failure.Protocol = c.peer, c.protocol.Name
	if tellable(failure) {
		_ = c.raw.SetDeadline(time.Now().Add(e.limits.Farewell))
		if c.tls.ConnectionState().HandshakeComplete {
			_, _ = c.tls.Write(appendClose(nil, failure.Reason))
		}
	}
	finish(c.raw, e.limits.Farewell, failure)
	return failure
}

// handshakeFailure finds the reason in an error of a handshake. It makes a
// CloseError of its own that the caller may change.
func handshakeFailure(err error, dialled bool) *CloseError {
	otherwise := HandshakeFailed
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) {
		otherwise = HandshakeTimeout
	} else if errors.Is(err, ErrClosed) {
		otherwise = GoingAway
	} else if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) {
		otherwise = Lost
	}
	failure := *closeErrorOf(tlsRefusal(err, dialled, otherwise), otherwise)
	return &failure
}

// textNoCertificate is how crypto/tls says that no certificate came, for which it has
// no error of its own.
const textNoCertificate = "tls: client didn't provide a certificate"

// TLS alerts (RFC 8446, 6.2) that stand for a word.
const (
	alertBadCertificate      tls.AlertError = 42
	alertCertificateRequired tls.AlertError = 116
	alertNoProtocol          tls.AlertError = 120
)

// tlsRefusal finds out whether err is an alert by which the other side has refused
// this one. Before TLS is done, alerts are the only way to tell.
func tlsRefusal(err error, dialled bool, otherwise Reason) error {
	var op *net.OpError
	if errors.As(err, new(*CloseError)) || !errors.As(err, &op) || op.Op != "remote error" || op.Err == nil {
		return err
	}
	reason := otherwise
	switch text := op.Err.Error(); {
	case text == alertNoProtocol.Error():
		reason = UnknownProtocol
	case text == alertCertificateRequired.Error(), text == alertBadCertificate.Error() && dialled:
		reason = BadCertificate
	case text == alertBadCertificate.Error():
		reason = WrongPeer // who dials refuses a certificate because it wanted another peer
	case !strings.HasPrefix(text, "tls: "):
		return err
	}
	return &CloseError{Reason: reason, Remote: true, Cause: err}
}

// greetFirst is the dialler's side of the handshake.
func (c *Conn) greetFirst(ctx context.Context) error {
	mine := hello{network: c.e.network, entry: c.present()}
	if c.protocol.Groups {
		c.table = c.e.groups.Load()
		var err error
		if mine.proven, err = c.proofs(c.table.ids); err != nil {
			return err
		}
		if len(mine.proven) == 0 {
			return refusal(NoCommonGroup, "this node has no groups")
		}
	}
	if err := c.writeControl(kindHello, mine.appendTo(nil)); err != nil {
		return err
	}
	theirs, err := c.readHello()
	if err != nil {
		return err
	}
	groups, bad, err := c.checkProofs(theirs.proven)
	if err != nil {
		return err
	}
	if len(bad) > 0 {
		return refusal(Malformed, "a proof for a group that was not offered")
	}
	if err := c.readEntry(theirs.entry); err != nil {
		return err
	}
	for _, r := range theirs.refused {
		if r.reason != UnknownGroup { // peers need not have the same groups
			c.e.groupRefused(c, r, true)
		}
	}
	refused, err := c.admit(ctx, groups)
	if err != nil {
		return err
	}
	return c.writeControl(kindWelcome, appendRefused(nil, refused))
}

// greetSecond is the acceptor's side of the handshake.
func (c *Conn) greetSecond(ctx context.Context) error {
	theirs, err := c.readHello()
	if err != nil {
		return err
	}
	if c.protocol.Groups {
		c.table = c.e.groups.Load()
	}
	groups, unknown, err := c.checkProofs(theirs.proven)
	if err != nil {
		return err
	}
	if c.protocol.Groups && len(groups) == 0 {
		return refusal(NoCommonGroup, "none of the %d groups offered is here", len(unknown))
	}
	if err := c.readEntry(theirs.entry); err != nil {
		return err
	}
	refused, err := c.admit(ctx, groups)
	if err != nil {
		return err
	}
	if err := c.e.reserve(c.peer); err != nil {
		return err
	}
	c.reserved = true
	mine := hello{network: c.e.network, entry: c.present(), refused: append(refused, unknown...)}
	sortRefused(mine.refused)
	if mine.proven, err = c.proofs(c.groups); err != nil {
		return err
	}
	if err := c.writeControl(kindHello, mine.appendTo(nil)); err != nil {
		return err
	}
	kind, b, err := c.readControl(maxRefused)
	if err != nil {
		return err
	}
	if kind != kindWelcome {
		return refusal(Malformed, "a frame of kind %d instead of a welcome", kind)
	}
	without, err := decodeRefused(b)
	if err != nil {
		return &CloseError{Reason: Malformed, Cause: err}
	}
	for _, r := range without {
		if i, ok := slices.BinarySearchFunc(c.groups, r.group, identity.ID.Compare); ok {
			c.groups = slices.Delete(c.groups, i, i+1)
			c.e.groupRefused(c, r, true)
		}
	}
	if c.protocol.Groups && len(c.groups) == 0 {
		return refusal(NoCommonGroup, "the other side wants none of the groups")
	}
	return nil
}

// readHello reads the other side's hello and compares the network.
func (c *Conn) readHello() (h hello, err error) {
	kind, b, err := c.readControl(maxHello)
	if err != nil {
		return h, err
	}
	if kind != kindHello {
		return h, refusal(Malformed, "a frame of kind %d instead of a hello", kind)
	}
	network, err := networkOf(b)
	if err == nil && network != c.e.network {
		return h, refusal(WrongNetwork, "the other side is of network %s, this one of %s", network.Short(), c.e.network.Short())
	}
	if err == nil {
		h, err = decodeHello(b)
	}
	if err == nil && !c.protocol.Groups && len(h.proven) > 0 {
		err = errors.New("proofs for a protocol without groups")
	}
	if err != nil {
		return h, &CloseError{Reason: Malformed, Cause: err}
	}
	return h, nil
}

// proofs returns this side's proofs for the groups.
func (c *Conn) proofs(groups []identity.ID) (proven []groupProof, err error) {
	export := exporterOf(c.tls)
	for _, id := range groups {
		proof, err := proofOf(export, c.protocol.Name, id, c.table.byID[id].Key, c.e.peer)
		if err != nil {
			return nil, err
		}
		proven = append(proven, groupProof{id, proof})
	}
	return proven, nil
}

// checkProofs checks the other side's proofs. It returns the groups that are here,
// and refusals of the others. One wrong proof is enough to refuse the connection:
// groups with other keys have other ids, so it is no mistake of configuration.
func (c *Conn) checkProofs(proven []groupProof) (groups []identity.ID, unknown []groupRefusal, err error) {
	export := exporterOf(c.tls)
	for _, p := range proven {
		g := c.table.byID[p.group]
		if g == nil {
			unknown = append(unknown, groupRefusal{p.group, UnknownGroup})
			continue
		}
		want, err := proofOf(export, c.protocol.Name, p.group, g.Key, c.peer)
		if err != nil {
			return nil, nil, err
		}
		if !sameProof(p.proof, want) {
			return nil, nil, refusal(WrongGroupKey, "group %s", p.group.Short())
		}
		groups = append(groups, p.group)
	}
	return groups, unknown, nil
}

// admit asks Authorize about the connection and sets its groups. It returns the
// groups that it refuses, and fails if nothing is left.
func (c *Conn) admit(ctx context.Context, groups []identity.ID) (refused []groupRefusal, err error) {
	if !c.protocol.Groups {
		until, err := c.e.authorize(ctx, c, identity.ID{})
		if err != nil {
			return nil, err
		}
		c.mu.until = until
		return nil, nil
	}
	first := refusal(NoCommonGroup, "the other side has none of the groups of this one")
	for _, g := range groups {
		until, err := c.e.authorize(ctx, c, g)
		if err != nil {
			if len(refused) == 0 {
				first = err
			}
			r := groupRefusal{g, err.Reason}
			refused, c.refused = append(refused, r), append(c.refused, g)
			c.e.groupRefused(c, r, false)
			continue
		}
		c.mu.until = earlier(c.mu.until, until)
		c.groups = append(c.groups, g)
	}
	if len(c.groups) == 0 {
		return nil, first
	}
	return refused, nil
}

// authorize asks Options.Authorize. What it grants lies in the future.
func (e *Endpoint) authorize(ctx context.Context, c *Conn, group identity.ID) (time.Time, *CloseError) {
	if e.opts.Authorize == nil {
		return time.Time{}, nil
	}
	until, err := e.opts.Authorize(ctx, Request{
		Peer: c.peer, Protocol: c.protocol.Name, Group: group, Dialled: c.dialled, Entry: c.Entry(),
	})
	if err != nil {
		return time.Time{}, closeErrorOf(err, NotAllowed)
	}
	if !until.IsZero() && !time.Now().Before(until) {
		return time.Time{}, refusal(TicketExpired, "at %v", until.UTC().Format(time.RFC3339))
	}
	return until, nil
}

// writeControl writes a frame of the handshake.
func (c *Conn) writeControl(kind byte, b []byte) error {
	if _, err := c.tls.Write(append(appendHeader(nil, kind, len(b)), b...)); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}

// readControl reads a frame of the handshake, of at most limit bytes. A close frame
// is an error.
func (c *Conn) readControl(limit int) (kind byte, b []byte, err error) {
	header, err := c.read.in.Peek(headerSize)
	if err != nil {
		return 0, nil, err
	}
	kind, n := decodeHeader(header)
	_, _ = c.read.in.Discard(headerSize) // they have been peeked at
	if kind == kindClose {
		return 0, nil, c.readClose(n)
	}
	if n > limit {
		return 0, nil, refusal(Oversize, "a frame of %d bytes in the handshake, the limit is %d", n, limit)
	}
	b = make([]byte, n)
	_, err = io.ReadFull(c.read.in, b)
	return kind, b, err
}
