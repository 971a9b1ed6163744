package network

import (
	"errors"
	"io"
	"os"
	"slices"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
)

// This file is how messages are written and read, in the order of their way.

const (
	readBuffer  = 64 << 10
	recordBytes = 16 << 10  // of a TLS record
	pieceBytes  = 256 << 10 // written under one deadline, and grown at once when read
	keepMessage = 4 << 20   // larger buffers are not kept for the next message
)

// armWrite sets the deadline of the next piece.
func (c *Conn) armWrite() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.cause != nil {
		return c.mu.cause
	}
	t := time.Now().Add(c.e.limits.WriteTimeout)
	if d := c.mu.writeDeadline; !d.IsZero() && d.Before(t) {
		t = d
	}
	return c.raw.SetWriteDeadline(t)
}

// WriteMessage writes p as one message. It fails with Oversize, and the connection
// stays, if p is larger than the protocol allows.
func (c *Conn) WriteMessage(p []byte) error {
	if len(p) > c.protocol.MaxMessage {
		return refusal(Oversize, "a message of %d bytes, the limit of %s is %d", len(p), c.protocol.Name, c.protocol.MaxMessage)
	}
	c.write.Lock()
	defer c.write.Unlock()
	// The header and the beginning go out together, as one TLS record.
	n := min(len(p), recordBytes-headerSize)
	c.write.first = append(appendHeader(c.write.first[:0], kindMessage, len(p)), p[:n]...)
	err := c.writePieces(c.write.first)
	if err == nil && n < len(p) {
		err = c.writePieces(p[n:])
	}
	if err == nil {
		c.wrote(len(p))
	}
	return err
}

// writeFramed writes a message whose header is still to be filled in: its first
// headerSize bytes.
func (c *Conn) writeFramed(frame []byte) error {
	n := len(frame) - headerSize
	if n > c.protocol.MaxMessage {
		return refusal(Oversize, "a message of %d bytes, the limit of %s is %d", n, c.protocol.Name, c.protocol.MaxMessage)
	}
	appendHeader(frame[:0], kindMessage, n)
	c.write.Lock()
	defer c.write.Unlock()
	err := c.writePieces(frame)
	if err == nil {
		c.wrote(n)
	}
	return err
}

func (c *Conn) wrote(n int) {
	c.messages.Add(1)
	c.e.counters.messagesOut.Add(1)
	c.e.counters.bytesOut.Add(uint64(n))
}

// writePieces writes b. REQUIRES: write.
func (c *Conn) writePieces(b []byte) error {
	for len(b) > 0 {
		if err := c.armWrite(); err != nil {
			return c.failed(err, TooSlow)
		}
		n := min(len(b), pieceBytes)
		if _, err := c.tls.Write(b[:n]); err != nil {
			return c.failed(err, TooSlow)
		}
		b = b[n:]
	}
	c.framesOut.Add(1)
	return nil
}

// Write writes p, in messages of up to 64 KiB.
func (c *Conn) Write(p []byte) (n int, err error) {
	for first := true; first || n < len(p); first = false {
		step := min(len(p)-n, readBuffer, c.protocol.MaxMessage)
		if err := c.WriteMessage(p[n : n+step]); err != nil {
			return n, err
		}
		n += step
	}
	return n, nil
}

// Read reads from the present message, or from the next one that is not empty.
func (c *Conn) Read(p []byte) (int, error) {
	c.read.Lock()
	defer c.read.Unlock()
	for c.read.left == 0 && len(p) > 0 {
		if err := c.nextMessage(); err != nil {
			return 0, err
		}
	}
	if len(p) == 0 {
		return 0, nil
	}
	return c.fill(p[:min(len(p), c.read.left)])
}

// ReadMessage returns the next message, which is the caller's until the next call;
// after Read has returned a part of one, the rest of it.
func (c *Conn) ReadMessage() ([]byte, error) {
	c.read.Lock()
	defer c.read.Unlock()
	r := &c.read
	if !r.partial {
		if cap(r.message) > keepMessage {
			r.message = nil
		}
		r.message = r.message[:0]
		if r.left == 0 {
			if err := c.nextMessage(); err != nil {
				return nil, err
			}
		}
		r.partial = true
	}
	for r.left > 0 {
		// The buffer grows with what has come, not with what was announced.
		end := len(r.message)
		r.message = slices.Grow(r.message, min(r.left, pieceBytes))
		n, err := c.fill(r.message[end:min(cap(r.message), end+r.left)])
		r.message = r.message[:end+n]
		if err != nil {
			return nil, err
		}
	}
	r.partial = false
	return r.message, nil
}

// fill reads some bytes of the present message. REQUIRES: read.
func (c *Conn) fill(p []byte) (int, error) {
	c.waiting.Store(true)
	n, err := c.read.in.Read(p)
	c.waiting.Store(false)
	if cause := c.cause(); cause != nil {
		return 0, cause // nothing is handed up after the end
	}
	if c.read.left -= n; n > 0 {
		c.framesIn.Add(1) // a long message under way is a sign of life
		c.e.counters.bytesIn.Add(uint64(n))
		return n, nil
	}
	return 0, c.readFailed(err)
}

// readFailed sorts the errors of reading. REQUIRES: read.
func (c *Conn) readFailed(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) && c.cause() == nil {
		return err // of the caller
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF // nobody ends without a word
	}
	return c.failed(tlsRefusal(err, c.dialled, Lost), Lost)
}

// nextMessage reads to the beginning of the next message and sets left. It deals
// with everything else that comes. REQUIRES: read.
func (c *Conn) nextMessage() error {
	for {
		kind, n, err := c.readHeader()
		if err != nil {
			return err
		}
		switch kind {
		case kindMessage:
			if n > c.protocol.MaxMessage {
				return c.failed(refusal(Oversize, "a message of %d bytes, the limit of %s is %d", n, c.protocol.Name, c.protocol.MaxMessage), Lost)
			}
			c.messages.Add(1)
			c.e.counters.messagesIn.Add(1)
			c.read.left = n
			return nil
		case kindEntry:
			if err := c.nextEntry(n); err != nil {
				return err
			}
		case kindHeartbeat:
			if n != 0 {
				return c.failed(refusal(Malformed, "a heartbeat of %d bytes", n), Lost)
			}
		case kindClose:
			return c.failed(c.readClose(n), Lost)
		default:
			return c.failed(refusal(Malformed, "a frame of kind %d after the handshake", kind), Lost)
		}
	}
}

// readHeader reads the header of a frame; of one with an entry it waits for the whole
// frame. After a deadline it can be called again. REQUIRES: read.
func (c *Conn) readHeader() (byte, int, error) {
	c.waiting.Store(true)
	b, err := c.read.in.Peek(headerSize)
	c.waiting.Store(false)
	if cause := c.cause(); cause != nil {
		return 0, 0, cause
	}
	if err != nil {
		return 0, 0, c.readFailed(err)
	}
	kind, n := decodeHeader(b)
	if kind == kindEntry && n <= identity.MaxEntry {
		c.waiting.Store(true)
		_, err := c.read.in.Peek(headerSize + n) // fits into the buffer
		c.waiting.Store(false)
		if err != nil {
			return 0, 0, c.readFailed(err)
		}
	}
	_, _ = c.read.in.Discard(headerSize) // they have been peeked at
	c.framesIn.Add(1)
	return kind, n, nil
}

// readClose reads the rest of a close frame. REQUIRES: read.
func (c *Conn) readClose(n int) *CloseError {
	if n > maxClose {
		return refusal(Malformed, "a close frame of %d bytes, the limit is %d", n, maxClose)
	}
	b, err := c.read.in.Peek(n)
	if err != nil {
		return &CloseError{Reason: Lost, Cause: err}
	}
	return &CloseError{Reason: reasonFrom(b), Remote: true}
}
