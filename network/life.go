package network

import (
	"context"
	"io"
	"net"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
)

// This file is what happens to a connection beside reading and writing: its
// heartbeats, the end of its authorization, and its farewell.

// watch is what runLife remembers from one beat to the next.
type watch struct {
	framesIn, framesOut, messages uint64
	heard, used                   time.Time // when those have last changed
}

// runLife is the goroutine of a connection from its first message to its last byte.
func (c *Conn) runLife() {
	defer c.e.running.Done()
	now := time.Now()
	w := watch{heard: now, used: now}
	timer := time.NewTimer(c.pause(now))
	defer timer.Stop()
	for {
		select {
		case <-c.ended:
			c.farewell()
			return
		case <-c.rearm:
		case <-timer.C:
		}
		now = time.Now()
		c.expire(now)
		c.showEntry()
		c.beat(&w, now)
		timer.Reset(c.pause(now))
	}
}

// pause is how long runLife may sleep: never longer than a heartbeat, whatever the
// authorization says and whatever the clock does.
func (c *Conn) pause(now time.Time) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := c.e.limits.Heartbeat
	if !c.mu.until.IsZero() {
		d = max(0, min(d, c.mu.until.Sub(now)))
	}
	if c.shown != c.e.entry.Load() {
		d = min(d, showPause)
	}
	return d
}

// beat sends a heartbeat if nothing else was sent, and ends a connection that is
// dead or of no use.
func (c *Conn) beat(w *watch, now time.Time) {
	if n := c.framesIn.Load(); n != w.framesIn || !c.waiting.Load() {
		w.framesIn, w.heard = n, now // who does not wait cannot say that nothing came
	} else if now.Sub(w.heard) >= c.e.limits.Silence {
		c.end(refusal(Silent, "nothing came for %v", now.Sub(w.heard).Round(time.Millisecond)))
		return
	}
	if n := c.messages.Load(); n != w.messages {
		w.messages, w.used = n, now
	} else if idle := c.protocol.Idle; idle > 0 && now.Sub(w.used) >= idle {
		c.end(refusal(Idle, "no message for %v", idle))
		return
	}
	if n := c.framesOut.Load(); n != w.framesOut {
		w.framesOut = n
		return
	}
	if c.write.TryLock() { // else somebody is writing
		_ = c.writePieces(appendHeader(nil, kindHeartbeat, 0)) // an error has ended the connection
		c.write.Unlock()
	}
	w.framesOut = c.framesOut.Load()
}

// expire asks for the authorization anew when it ends, or when the peer has shown
// another entry.
func (c *Conn) expire(now time.Time) {
	c.mu.Lock()
	due := !c.mu.until.IsZero() && !now.Before(c.mu.until)
	c.mu.Unlock()
	if c.unchecked.Swap(false) || due {
		c.recheck()
	}
}

// recheck asks for the authorization of every group, and ends the connection if one
// is refused, or if one that was refused no longer is.
func (c *Conn) recheck() {
	ctx, cancel := context.WithTimeout(context.Background(), c.e.limits.HandshakeTimeout)
	defer cancel()
	entry := c.Entry()
	var until time.Time
	asked := c.groups
	if !c.protocol.Groups {
		asked = []identity.ID{{}}
	}
	for _, g := range asked {
		t, err := c.e.authorize(ctx, c, g)
		if err != nil {
			c.end(err)
			return
		}
		until = earlier(until, t)
	}
	for _, g := range c.refused {
		if _, err := c.e.authorize(ctx, c, g); err == nil {
			c.end(refusal(Renew, "group %s is allowed now", g.Short()))
			return
		}
	}
	c.setUntil(until, entry)
}

// setUntil changes when the authorization by an entry ends. If the peer has shown a
// newer one meanwhile, whoever learned of that asks anew.
func (c *Conn) setUntil(until time.Time, entry *identity.SignedEntry) {
	c.mu.Lock()
	if c.mu.entry == entry {
		c.mu.until = until
	}
	c.mu.Unlock()
	c.wakeLife()
}

// wakeLife has runLife look at what has changed.
func (c *Conn) wakeLife() {
	select {
	case c.rearm <- struct{}{}:
	default:
	}
}

// earlier returns the earlier of two times of which zero is the latest.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// farewell tells the other side why the connection ends and closes it.
func (c *Conn) farewell() {
	cause := c.cause()
	c.write.Lock()
	if tellable(cause) {
		// A writer that the end has interrupted in the middle leaves a TLS session that
		// takes nothing more: then the other side sees the connection break.
		_, _ = c.tls.Write(appendClose(nil, cause.Reason))
	}
	c.write.Unlock()
	c.read.Lock() // whoever read has been woken
	defer c.read.Unlock()
	finish(c.raw, c.e.limits.Farewell, cause)
}

// tellable reports whether the other side can and need be told.
func tellable(cause *CloseError) bool { return !cause.Remote && cause.Reason != Lost }

func appendClose(dst []byte, r Reason) []byte {
	return append(appendHeader(dst, kindClose, len(r)), r...)
}

// maxDrain bounds what finish reads to no purpose.
const maxDrain = 1 << 20

// finish closes a TCP connection so that what was written last arrives: closing at
// once, with bytes of the other side still unread, would make the system throw it
// away. So this side stops to send, reads until the other one does too, and gives
// up after the time of a farewell.
func finish(raw net.Conn, farewell time.Duration, cause *CloseError) {
	if tellable(cause) {
		if half, ok := raw.(*net.TCPConn); ok && half.CloseWrite() == nil {
			_ = raw.SetReadDeadline(time.Now().Add(farewell))
			_, _ = io.CopyN(io.Discard, raw, maxDrain)
		}
	}
	_ = raw.Close() // nothing is left to lose
}
