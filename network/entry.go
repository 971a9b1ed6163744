package network

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
)

// This file is how peers show each other their entries: with the hello, and again
// whenever they change. An entry counts only on connections with the peer whose it
// is: the one that has proved to have the key.

// SetEntry replaces what this node says of itself, such as its tickets. Every
// connection is shown it at once, and peers may end those that it no longer allows.
// It must be signed by this node, for this network, and be newer than the one before:
// others keep the newest they know of. The error wraps identity.ErrEntry.
func (e *Endpoint) SetEntry(s *identity.SignedEntry) error {
	if s == nil {
		return fmt.Errorf("%w: there is none", identity.ErrEntry)
	}
	if err := checkEntry(s, e.peer, e.network); err != nil {
		return err
	}
	for {
		before := e.entry.Load()
		if !s.Newer(before) {
			return fmt.Errorf("%w: it is not newer than the one before", identity.ErrEntry)
		}
		if e.entry.CompareAndSwap(before, s) {
			break
		}
	}
	for _, c := range e.connsOf(func(*Conn) bool { return true }) {
		c.wakeLife()
	}
	return nil
}

// ChangeEntry changes a copy of what this node says of itself, an empty entry at first,
// signs it as the next version and shows it (SetEntry). Lists that change replaces must
// not be changed in place. The error wraps identity.ErrEntry; nothing has changed then.
func (e *Endpoint) ChangeEntry(change func(*identity.PeerEntry)) error {
	e.changing.Lock()
	defer e.changing.Unlock()
	now := uint64(time.Now().UnixMilli())
	next := identity.PeerEntry{Protocol: [3]uint16{0, 1, 0}, Network: e.network, Peer: e.peer, Version: identity.EntryVersion{Started: now}}
	if before := e.entry.Load(); before != nil {
		next = before.Entry
	}
	next.Version.Updated = max(next.Version.Updated+1, now)
	change(&next)
	s, err := identity.SignEntry(next, e.opts.Key)
	if err != nil {
		return err
	}
	return e.SetEntry(s)
}

// Entry returns what this node says of itself, nil if nothing.
func (e *Endpoint) Entry() *identity.SignedEntry { return e.entry.Load() }

// Entries returns the newest entries that connected peers have shown, by peer.
func (e *Endpoint) Entries() []*identity.SignedEntry {
	newest := make(map[identity.PeerID]*identity.SignedEntry)
	for _, c := range e.connsOf(func(*Conn) bool { return true }) {
		if s := c.Entry(); s != nil && s.Newer(newest[c.peer]) {
			newest[c.peer] = s
		}
	}
	return slices.SortedFunc(maps.Values(newest), func(a, b *identity.SignedEntry) int { return a.Entry.Peer.Compare(b.Entry.Peer) })
}

// Learn tells the endpoint of a peer's entry that came another way than over a
// connection with it. Where it is newer than what the peer has shown itself,
// Authorize is asked about it. It does not wait for that.
func (e *Endpoint) Learn(s *identity.SignedEntry) {
	if checkEntry(s, s.Entry.Peer, e.network) != nil {
		return // of another network, so of no connection
	}
	e.forgetBackoff(s.Entry.Peer) // it may be elsewhere now
	for _, c := range e.connsOf(func(c *Conn) bool { return c.peer == s.Entry.Peer }) {
		c.learn(s)
	}
}

// Entry returns the newest entry that the peer has shown on this connection, or that
// Learn was given since; nil if it has shown none.
func (c *Conn) Entry() *identity.SignedEntry {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.entry
}

// checkEntry reports why an entry, which may be nil, is not what this peer may say of
// itself in this network.
func checkEntry(s *identity.SignedEntry, peer identity.PeerID, network identity.ID) error {
	switch {
	case s == nil:
		return nil
	case s.Entry.Peer != peer:
		return fmt.Errorf("%w: it is of peer %s, not of %s", identity.ErrEntry, s.Entry.Peer.Short(), peer.Short())
	case s.Entry.Network != network:
		return fmt.Errorf("%w: it is of network %s, not of %s", identity.ErrEntry, s.Entry.Network.Short(), network.Short())
	}
	return nil
}

// present returns this node's entry for a hello.
func (c *Conn) present() []byte {
	if c.shown = c.e.entry.Load(); c.shown == nil {
		return nil
	}
	return c.shown.Bytes()
}

// readEntry takes the entry of the other side's hello.
func (c *Conn) readEntry(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	s, err := c.decodeEntry(b)
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.mu.entry = s
	c.mu.Unlock()
	c.e.opts.Events.Entry(s)
	return nil
}

func (c *Conn) decodeEntry(b []byte) (*identity.SignedEntry, error) {
	s, err := identity.DecodeSignedEntry(b)
	if err == nil {
		err = checkEntry(s, c.peer, c.e.network)
	}
	if err != nil {
		return nil, &CloseError{Reason: BadEntry, Cause: err}
	}
	return s, nil
}

// learn takes a newer entry of the peer and has runLife ask Authorize about it.
func (c *Conn) learn(s *identity.SignedEntry) (newer bool) {
	c.mu.Lock()
	if newer = s.Newer(c.mu.entry); newer {
		c.mu.entry = s
	}
	c.mu.Unlock()
	if newer {
		c.unchecked.Store(true)
		c.wakeLife()
	}
	return newer
}

// showPause is when it is tried again to show an entry while somebody is writing.
const showPause = 20 * time.Millisecond

// showEntry shows the other side this node's entry if it has changed.
func (c *Conn) showEntry() {
	now := c.e.entry.Load()
	if now == c.shown || !c.write.TryLock() {
		return
	}
	defer c.write.Unlock()
	c.shown = now
	b := now.Bytes()
	frame := append(appendHeader(make([]byte, 0, headerSize+len(b)), kindEntry, len(b)), b...)
	_ = c.writePieces(frame) // an error has ended the connection
}

const (
	// entryPause is how often a peer may show an entry, entryBurst how many may come at
	// once: each costs a signature to verify.
	entryPause = 50 * time.Millisecond
	entryBurst = 20
)

// nextEntry reads the content of a frame with an entry, which is there to the last byte
// if it is not too long (readHeader). REQUIRES: read.
func (c *Conn) nextEntry(n int) error {
	if n > identity.MaxEntry {
		return c.failed(refusal(Oversize, "an entry of %d bytes, the limit is %d", n, identity.MaxEntry), Lost)
	}
	if !c.read.entries.take(time.Now()) {
		return c.failed(refusal(TooManyEntries, "more than %d at once or one in %v", entryBurst, entryPause), Lost)
	}
	b, err := c.read.in.Peek(n)
	if err != nil {
		return c.readFailed(err)
	}
	s, err := c.decodeEntry(b)
	_, _ = c.read.in.Discard(n) // they have been peeked at
	if err != nil {
		return c.failed(err, Lost)
	}
	if c.learn(s) {
		c.e.opts.Events.Entry(s)
	}
	return nil
}

// allowance is a token bucket of entryBurst tokens that gets one more each entryPause.
// The zero value is full.
type allowance struct {
	// empty is when the bucket, filling at its pace ever since, was last empty.
	empty time.Time
}

// take takes a token if there is one.
func (a *allowance) take(now time.Time) bool {
	if full := now.Add(-entryBurst * entryPause); a.empty.Before(full) {
		a.empty = full
	}
	if now.Sub(a.empty) < entryPause {
		return false
	}
	a.empty = a.empty.Add(entryPause)
	return true
}
