package network

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
)

// Dial makes a connection with a peer for a registered protocol. It asks for the
// peer's addresses and tries them one by one, until one answers that is the peer. A
// peer that could not be reached a moment ago is not dialled before its pause is over
// (Limits.BackoffMin); Dial waits for that within ctx. The error is a *CloseError if
// either side has refused, and says for each address why.
func (e *Endpoint) Dial(ctx context.Context, peer identity.PeerID, name string) (*Conn, error) {
	if err := e.waitBackoff(ctx, peer); err != nil {
		return nil, err
	}
	c, err := e.dial(ctx, peer, name)
	if err != nil && ctx.Err() == nil {
		e.backOff(peer)
	}
	return c, err
}

// dial is Dial without the pause.
func (e *Endpoint) dial(ctx context.Context, peer identity.PeerID, name string) (_ *Conn, err error) {
	p := e.protocol(name)
	switch {
	case p == nil:
		return nil, fmt.Errorf("%w: %q is not registered", ErrProtocol, name)
	case peer == e.peer:
		return nil, &CloseError{Peer: peer, Protocol: name, Reason: OwnIdentity}
	}
	if err := e.reserve(peer); err != nil {
		if c := (*CloseError)(nil); errors.As(err, &c) {
			c.Peer, c.Protocol = peer, name
			e.refusedConn("", c)
		}
		return nil, err
	}
	started := false
	defer func() {
		if !started {
			e.release(peer)
		}
	}()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(e.ctx, cancel)()
	addresses := e.opts.Addresses(peer)
	if len(addresses) == 0 {
		return nil, fmt.Errorf("%w: %s", ErrNoAddress, peer.Short())
	}
	var failures []error
	for _, address := range addresses {
		c, err := e.dialAddress(ctx, p, peer, address)
		if err == nil {
			started = true
			return c, nil
		}
		failures = append(failures, fmt.Errorf("%s: %w", address, err))
		if ctx.Err() != nil || !elsewhere(err) {
			break
		}
	}
	if e.ctx.Err() != nil {
		failures = append(failures, ErrClosed)
	}
	return nil, fmt.Errorf("mosaik: dial peer %s: %w", peer.Short(), errors.Join(failures...))
}

func (e *Endpoint) dialAddress(ctx context.Context, p *protocol, peer identity.PeerID, address string) (*Conn, error) {
	dialer := net.Dialer{Timeout: e.limits.DialTimeout}
	raw, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		e.counters.dialErrors.Add(1)
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, e.limits.HandshakeTimeout)
	defer cancel()
	_ = raw.SetDeadline(time.Now().Add(e.limits.HandshakeTimeout)) // if it is broken, reading finds out
	interrupt := context.AfterFunc(ctx, func() { _ = raw.Close() })
	c, err := e.dialHandshake(ctx, raw, p, peer)
	if !interrupt() && err == nil {
		err = ctx.Err()
	}
	if err == nil {
		err = e.start(c)
	}
	if err != nil {
		failure := e.giveUp(c, err)
		failure.Peer = peer
		e.refusedConn(address, failure)
		return nil, failure
	}
	return c, nil
}

// elsewhere reports whether a peer may be found at another address after err.
func elsewhere(err error) bool {
	var c *CloseError
	return !errors.As(err, &c) || slices.Contains([]Reason{WrongPeer, BadCertificate, UnknownProtocol, HandshakeTimeout, HandshakeFailed, Lost}, c.Reason)
}

// backoff is when a peer may be dialled again.
type backoff struct {
	next  time.Time
	pause time.Duration // doubles
}

// maxBackoffs bounds the peers that are remembered as unreachable.
const maxBackoffs = 1 << 16

// backOff notes that a peer could not be reached.
func (e *Endpoint) backOff(peer identity.PeerID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	b := e.mu.backoffs[peer]
	if b == nil {
		if len(e.mu.backoffs) >= maxBackoffs {
			return
		}
		b = &backoff{pause: e.limits.BackoffMin / 2}
		e.mu.backoffs[peer] = b
	}
	b.pause = min(2*b.pause, e.limits.BackoffMax)
	b.next = time.Now().Add(b.pause/2 + rand.N(b.pause+1))
}

func (e *Endpoint) forgetBackoff(peer identity.PeerID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.mu.backoffs, peer)
}

// waitBackoff waits until a peer may be dialled.
func (e *Endpoint) waitBackoff(ctx context.Context, peer identity.PeerID) error {
	for {
		var wait time.Duration
		e.mu.Lock()
		if b := e.mu.backoffs[peer]; b != nil {
			wait = time.Until(b.next)
		}
		e.mu.Unlock()
		if wait <= 0 {
			return nil
		}
		select {
		// Short, because the peer may show up by itself meanwhile.
		case <-time.After(min(wait, e.limits.BackoffMin)):
		case <-ctx.Done():
			return ctx.Err()
		case <-e.ctx.Done():
			return ErrClosed
		}
	}
}
