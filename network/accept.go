package network

import (
	"context"
	"errors"
	"net"
	"slices"
	"time"
)

// acceptPause is how long accepting waits after an error, such as too many open
// files: what is open has to close first.
const acceptPause = 50 * time.Millisecond

// runAccept accepts connections until the endpoint closes.
func (e *Endpoint) runAccept() {
	defer e.running.Done()
	for {
		raw, err := e.listener.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			e.logger.Warn("cannot accept connections", "error", err)
			select {
			case <-time.After(acceptPause):
			case <-e.ctx.Done():
				return
			}
			continue
		}
		h := &handshake{raw: raw, host: hostOf(raw.RemoteAddr())}
		if !e.beginHandshake(h) {
			_ = raw.Close() // the endpoint closes
			return
		}
		e.running.Add(1)
		go e.runAccepted(h)
	}
}

// handshake is an accepted connection on its way.
type handshake struct {
	raw     net.Conn
	host    string
	evicted bool // under the endpoint's mu
}

// handshakes are in the order in which they began.
type handshakes []*handshake

// crowd chooses the handshake that makes room for another: the oldest of the host
// that has the most. A host that floods is in its own way first; and where all come
// from one, those that stall are the oldest.
func (hs handshakes) crowd() int {
	count := make(map[string]int)
	most := 0
	for _, h := range hs {
		count[h.host]++
		most = max(most, count[h.host])
	}
	return slices.IndexFunc(hs, func(h *handshake) bool { return count[h.host] == most })
}

// hostOf returns what counts as one host: an IPv4 address, or an IPv6 network of 64
// bits, of which whoever has one address has them all.
func hostOf(a net.Addr) string {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return a.String()
	}
	ip := tcp.AddrPort().Addr().Unmap()
	if ip.Is4() {
		return ip.String()
	}
	network, err := ip.WithZone("").Prefix(64)
	if err != nil {
		return ip.String()
	}
	return network.String()
}

// beginHandshake makes room for h if there is none.
func (e *Endpoint) beginHandshake(h *handshake) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.mu.closed {
		return false
	}
	if len(e.mu.handshakes) >= e.limits.Handshakes {
		i := e.mu.handshakes.crowd()
		old := e.mu.handshakes[i]
		old.evicted = true
		_ = old.raw.Close() // its goroutine finds out
		e.mu.handshakes = slices.Delete(e.mu.handshakes, i, i+1)
	}
	e.mu.handshakes = append(e.mu.handshakes, h)
	return true
}

// endHandshake takes h out, if it has not been, and reports whether it has had to
// make room.
func (e *Endpoint) endHandshake(h *handshake) (evicted bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if i := slices.Index(e.mu.handshakes, h); i >= 0 {
		e.mu.handshakes = slices.Delete(e.mu.handshakes, i, i+1)
	}
	return h.evicted
}

// runAccepted makes an accepted connection a Conn and serves it.
func (e *Endpoint) runAccepted(h *handshake) {
	defer e.running.Done()
	ctx, cancel := context.WithTimeout(e.ctx, e.limits.HandshakeTimeout)
	defer cancel()
	_ = h.raw.SetDeadline(time.Now().Add(e.limits.HandshakeTimeout)) // if it is broken, reading finds out
	c, err := e.acceptHandshake(ctx, h.raw)
	if err == nil && e.endHandshake(h) {
		err = net.ErrClosed
	}
	if err == nil {
		err = e.start(c)
	}
	if err != nil {
		failure := e.giveUp(c, err) // still counts as a handshake, since it may take its time
		if e.endHandshake(h) {
			failure = &CloseError{Peer: failure.Peer, Protocol: failure.Protocol, Reason: TooManyHandshakes, Cause: failure}
		}
		e.refusedConn(h.raw.RemoteAddr().String(), failure)
		return
	}
	c.protocol.Serve(c)
	c.CloseFor(Done, nil)
	c.protocol.serving.Done()
}
