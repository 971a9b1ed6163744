package remote

import (
	"context"
	"crypto/rand"
	"sync"
	"time"

	"github.com/mosaik-engine/mosaik/network"
)

// link is a connection as both sides see it: it measures how far away the other is.
type link struct {
	conn  *network.Conn
	pulse time.Duration
	busy  func(now time.Time) bool // called each pulse; reports whether there are channels
	pong  chan [nonceSize]byte     // one place: the ping that is to be answered
	first chan struct{}            // closed with the first measurement

	mu struct {
		sync.Mutex
		nonce   [nonceSize]byte // of the ping under way
		sent    time.Time       // zero: none is under way
		samples [8]time.Duration
		count   int
	}
}

func newLink(c *network.Conn, pulse time.Duration, busy func(time.Time) bool) *link {
	return &link{conn: c, pulse: pulse, busy: busy, pong: make(chan [nonceSize]byte, 1), first: make(chan struct{})}
}

// runPulse sends pings and pongs until the connection ends. It is a goroutine of its own,
// so that who reads from the connection never waits for who writes.
func (l *link) runPulse(done func()) {
	defer done()
	ticker := time.NewTicker(l.pulse)
	defer ticker.Stop()
	l.ping()
	for {
		select {
		case nonce := <-l.pong:
			_ = l.write(&message{kind: kindPong, nonce: nonce}) // who reads finds out
		case now := <-ticker.C:
			if l.busy(now) {
				l.ping()
			}
		case <-l.conn.Done():
			return
		}
	}
}

func (l *link) write(m *message) error { return l.conn.WriteMessage(m.appendTo(nil)) }

// ping sends a ping, unless the one before has not been answered.
func (l *link) ping() {
	l.mu.Lock()
	waiting := !l.mu.sent.IsZero()
	if !waiting {
		_, _ = rand.Read(l.mu.nonce[:]) // never fails
		l.mu.sent = time.Now()
	}
	m := message{kind: kindPing, nonce: l.mu.nonce}
	l.mu.Unlock()
	if !waiting {
		_ = l.write(&m) // who reads finds out
	}
}

// pinged has a ping answered. Of several the last counts: the others were not waited for.
func (l *link) pinged(nonce [nonceSize]byte) {
	select {
	case <-l.pong:
	default:
	}
	select {
	case l.pong <- nonce:
	default:
	}
}

// ponged takes a measurement.
func (l *link) ponged(nonce [nonceSize]byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.sent.IsZero() || nonce != l.mu.nonce {
		return
	}
	l.mu.samples[l.mu.count%len(l.mu.samples)] = max(time.Since(l.mu.sent), 1)
	l.mu.sent = time.Time{}
	if l.mu.count++; l.mu.count == 1 {
		close(l.first)
	}
}

// rtt returns the least of the last measurements, so that what waits behind much data
// does not look far away; 0 before the first.
func (l *link) rtt() (least time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, d := range l.mu.samples[:min(l.mu.count, len(l.mu.samples))] {
		if least == 0 || d < least {
			least = d
		}
	}
	return least
}

// within returns TooFar if the other side is farther away than limit, 0 for any. It waits
// for the first measurement.
func (l *link) within(ctx context.Context, limit time.Duration) error {
	if limit == 0 {
		return nil
	}
	select {
	case <-l.first:
	case <-l.conn.Done():
		return l.conn.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
	if l.rtt() > limit {
		return TooFar
	}
	return nil
}
