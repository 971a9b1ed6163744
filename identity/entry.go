package identity

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
)

// Limits of an entry.
const (
	// MaxEntry is the largest signed entry, in bytes.
	MaxEntry = 16 << 10
	// MaxTickets is the largest number of tickets in one.
	MaxTickets = 8
	// MaxAddresses is the largest number of addresses, MaxAddress the size of one.
	MaxAddresses = 16
	MaxAddress   = 255
	// MaxEntryIDs is the largest number of tags, of streams and of groups.
	MaxEntryIDs = 128
)

// ErrEntry says that an entry is not one, or breaks a limit.
var ErrEntry = errors.New("mosaik: bad peer entry")

// EntryVersion orders the entries of one peer: by when it started, then by when it last
// changed its entry, both in Unix milliseconds of its own clock.
type EntryVersion struct {
	Started uint64 // when the peer started
	Updated uint64 // when it last changed its entry
}

// Compare orders versions, -1, 0 or +1: by the start, then by the change.
func (v EntryVersion) Compare(other EntryVersion) int {
	return cmp.Or(cmp.Compare(v.Started, other.Started), cmp.Compare(v.Updated, other.Updated))
}

// PeerEntry is what a peer says of itself: where it is, what it offers, and which
// tickets it holds. Only the peer can sign it ([SignEntry]); everybody can pass it on.
type PeerEntry struct {
	// Protocol is the version of the protocols the peer speaks: major, minor, patch.
	Protocol [3]uint16
	Network  ID           // the network it is of
	Peer     PeerID       // who it is
	Version  EntryVersion // which of its entries this is
	// Addresses are where it can be reached, each a host:port (CheckAddress), the best
	// first, without repetition.
	Addresses []string
	// Tags, Streams and Groups are what it offers, each ascending, without repetition. A
	// tag that has a name is NewID of the name, which ValidateName has accepted.
	Tags, Streams, Groups []ID
	// Tickets are in the order of their ids, without repetition.
	Tickets []Ticket
}

// Normalize brings what has no order of its own into the one order of an encoding and
// removes repetitions.
func (e *PeerEntry) Normalize() {
	for _, ids := range []*[]ID{&e.Tags, &e.Streams, &e.Groups} {
		slices.SortFunc(*ids, ID.Compare)
		*ids = slices.Compact(*ids)
	}
	slices.SortFunc(e.Tickets, func(a, b Ticket) int { return a.ID().Compare(b.ID()) })
	e.Tickets = slices.CompactFunc(e.Tickets, func(a, b Ticket) bool { return a.ID() == b.ID() })
}

// entryFormat is the first byte of an entry.
const entryFormat = 1

// entryDomain is what a signature of an entry begins with, so that it is one of nothing
// else.
const entryDomain = "mosaik/entry/1\x00"

// AppendTo appends the encoding of the entry (docs/format/entry.md). It does not check
// the limits, and what breaks them has no encoding.
func (e *PeerEntry) AppendTo(dst []byte) []byte {
	dst = append(dst, entryFormat)
	for _, n := range e.Protocol {
		dst = binary.LittleEndian.AppendUint16(dst, n)
	}
	dst = append(dst, e.Network[:]...)
	dst = append(dst, e.Peer[:]...)
	dst = binary.LittleEndian.AppendUint64(dst, e.Version.Started)
	dst = binary.LittleEndian.AppendUint64(dst, e.Version.Updated)
	dst = append(dst, byte(len(e.Addresses)))
	for _, a := range e.Addresses {
		dst = append(dst, byte(len(a)))
		dst = append(dst, a...)
	}
	for _, ids := range [][]ID{e.Tags, e.Streams, e.Groups} {
		dst = append(dst, byte(len(ids)))
		for i := range ids {
			dst = append(dst, ids[i][:]...)
		}
	}
	dst = append(dst, byte(len(e.Tickets)))
	for i := range e.Tickets {
		t := &e.Tickets[i]
		dst = append(dst, t.Class[:]...)
		dst = binary.LittleEndian.AppendUint16(dst, uint16(len(t.Data)))
		dst = append(dst, t.Data...)
	}
	return dst
}

// Validate checks the limits and the order, but not the size of the whole, which is of
// the encoding. The error wraps [ErrEntry] and names the field.
func (e *PeerEntry) Validate() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w of peer %s: "+format, append([]any{ErrEntry, e.Peer.Short()}, args...)...)
	}
	switch {
	case e.Peer.IsZero():
		return bad("peer is nobody")
	case e.Network.IsZero():
		return bad("network is none")
	case e.Version.Updated < e.Version.Started:
		return bad("version: it was updated at %d, before it started at %d", e.Version.Updated, e.Version.Started)
	case len(e.Addresses) > MaxAddresses:
		return bad("%d addresses, at most %d are allowed", len(e.Addresses), MaxAddresses)
	case len(e.Tickets) > MaxTickets:
		return bad("%d tickets, at most %d are allowed", len(e.Tickets), MaxTickets)
	}
	for i, a := range e.Addresses {
		if err := CheckAddress(a); err != nil {
			return bad("address %d: %w", i, err)
		}
		if slices.Contains(e.Addresses[:i], a) {
			return bad("address %d: %q is there twice", i, a)
		}
	}
	for _, list := range []struct {
		name string
		ids  []ID
	}{{"tags", e.Tags}, {"streams", e.Streams}, {"groups", e.Groups}} {
		if len(list.ids) > MaxEntryIDs {
			return bad("%d %s, at most %d are allowed", len(list.ids), list.name, MaxEntryIDs)
		}
		if !ascending(list.ids) {
			return bad("its %s are not in ascending order", list.name)
		}
	}
	ids := make([]ID, len(e.Tickets))
	for i := range e.Tickets {
		if n := len(e.Tickets[i].Data); n > MaxTicket {
			return bad("ticket %d: %d bytes, at most %d are allowed", i, n, MaxTicket)
		}
		ids[i] = e.Tickets[i].ID()
	}
	if !ascending(ids) {
		return bad("its tickets are not in ascending order of their ids")
	}
	return nil
}

// ascending reports whether ids are in order and each is there once.
func ascending(ids []ID) bool {
	for i := 1; i < len(ids); i++ {
		if ids[i-1].Compare(ids[i]) >= 0 {
			return false
		}
	}
	return true
}

// CheckAddress says what is wrong with an address of a peer. It is a host, which is a
// name or an IP address (IPv6 in brackets), a colon and a port from 1 to 65535, in at
// most [MaxAddress] bytes of printable ASCII: other peers show it and dial it.
func CheckAddress(a string) error {
	if len(a) > MaxAddress {
		return fmt.Errorf("%d bytes, at most %d are allowed", len(a), MaxAddress)
	}
	if strings.ContainsFunc(a, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return fmt.Errorf("%q holds something else than printable ASCII", a)
	}
	host, port, err := net.SplitHostPort(a)
	if err != nil {
		return fmt.Errorf("%q is no host:port: %w", a, err)
	}
	if host == "" {
		return fmt.Errorf("%q names no host", a)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || port[0] == '0' {
		return fmt.Errorf("%q: the port is no number from 1 to 65535", a)
	}
	return nil
}

// SignedEntry is an entry with its peer's signature: what is passed on. There is none
// but from [SignEntry] and [DecodeSignedEntry], so its peer has said what stands in it.
type SignedEntry struct {
	// Entry is what was signed. It is shared by all who hold the SignedEntry, and must not
	// be changed: a copy is changed, and signed anew.
	Entry PeerEntry
	bytes []byte // encoding and signature
}

// Bytes returns the signed entry as it is passed on. It must not be changed.
func (s *SignedEntry) Bytes() []byte { return s.bytes }

// Digest returns BLAKE3 of Bytes, by which entries are told apart.
func (s *SignedEntry) Digest() ID { return FromParts(s.bytes) }

// Newer reports whether s is to take the place of other: it is of the same peer, and its
// version is the greater one. It takes the place of nil.
func (s *SignedEntry) Newer(other *SignedEntry) bool {
	return other == nil || s.Entry.Peer == other.Entry.Peer && s.Entry.Version.Compare(other.Entry.Version) > 0
}

// SignEntry normalizes a copy of the entry, checks it, and signs it with the peer's
// key. The entry must name that peer. Equal entries give equal bytes. An error wraps
// [ErrEntry].
func SignEntry(e PeerEntry, key Key) (*SignedEntry, error) {
	if key.IsZero() || key.PeerID() != e.Peer {
		return nil, fmt.Errorf("%w: it is of peer %s, which the key is not of", ErrEntry, e.Peer.Short())
	}
	e.Addresses = slices.Clone(e.Addresses)
	e.Tags, e.Streams, e.Groups = slices.Clone(e.Tags), slices.Clone(e.Streams), slices.Clone(e.Groups)
	e.Tickets = slices.Clone(e.Tickets)
	for i := range e.Tickets {
		e.Tickets[i].Data = bytes.Clone(e.Tickets[i].Data)
	}
	e.Normalize()
	if err := e.Validate(); err != nil {
		return nil, err
	}
	b := e.AppendTo(nil)
	if n := len(b) + signatureSize; n > MaxEntry {
		return nil, fmt.Errorf("%w of peer %s: %d bytes, at most %d are allowed", ErrEntry, e.Peer.Short(), n, MaxEntry)
	}
	return &SignedEntry{Entry: e, bytes: append(b, key.Sign(entryMessage(b))...)}, nil
}

// entryMessage is what is signed of an encoded entry.
func entryMessage(encoded []byte) []byte {
	digest := FromParts(encoded)
	return append([]byte(entryDomain), digest[:]...)
}

const signatureSize = 64

// DecodeSignedEntry decodes an entry and verifies its signature: what it returns was
// said by the peer that it names. Whether that peer has sent it, and whether it is
// recent, is for the caller to see to. The bytes are copied. An error wraps [ErrEntry].
func DecodeSignedEntry(b []byte) (*SignedEntry, error) {
	if len(b) > MaxEntry || len(b) < signatureSize {
		return nil, fmt.Errorf("%w: %d bytes, %d to %d are possible", ErrEntry, len(b), signatureSize, MaxEntry)
	}
	b = bytes.Clone(b)
	encoded, signature := b[:len(b)-signatureSize], b[len(b)-signatureSize:]
	s := &SignedEntry{bytes: b}
	if err := s.Entry.decode(encoded); err != nil {
		return nil, err
	}
	if err := s.Entry.Validate(); err != nil {
		return nil, err
	}
	if !s.Entry.Peer.Verify(entryMessage(encoded), signature) {
		return nil, fmt.Errorf("%w of peer %s: the signature is not its own", ErrEntry, s.Entry.Peer.Short())
	}
	return s, nil
}

// decode is the reverse of AppendTo. Tickets alias b.
func (e *PeerEntry) decode(b []byte) error {
	short := false
	take := func(n int) []byte {
		if len(b) < n {
			short = true
			return make([]byte, n)
		}
		part := b[:n:n]
		b = b[n:]
		return part
	}
	if format := take(1)[0]; format != entryFormat && !short {
		return fmt.Errorf("%w: format %d, this program knows %d", ErrEntry, format, entryFormat)
	}
	for i := range e.Protocol {
		e.Protocol[i] = binary.LittleEndian.Uint16(take(2))
	}
	e.Network, e.Peer = ID(take(Size)), PeerID(take(Size))
	e.Version.Started, e.Version.Updated = binary.LittleEndian.Uint64(take(8)), binary.LittleEndian.Uint64(take(8))
	for n := take(1)[0]; n > 0 && !short; n-- {
		e.Addresses = append(e.Addresses, string(take(int(take(1)[0]))))
	}
	for _, ids := range []*[]ID{&e.Tags, &e.Streams, &e.Groups} {
		for n := take(1)[0]; n > 0 && !short; n-- {
			*ids = append(*ids, ID(take(Size)))
		}
	}
	for n := take(1)[0]; n > 0 && !short; n-- {
		t := Ticket{Class: ID(take(Size))}
		t.Data = take(int(binary.LittleEndian.Uint16(take(2))))
		e.Tickets = append(e.Tickets, t)
	}
	switch {
	case short:
		return fmt.Errorf("%w: it ends in the middle", ErrEntry)
	case len(b) > 0:
		return fmt.Errorf("%w: %d bytes follow it", ErrEntry, len(b))
	}
	return nil
}
