package identity

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"
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

// Compare orders versions.
func (v EntryVersion) Compare(other EntryVersion) int {
	if v.Started != other.Started {
		return compare(v.Started, other.Started)
	}
	return compare(v.Updated, other.Updated)
}

func compare(a, b uint64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// PeerEntry is what a peer says of itself: where it is, what it offers, and which
// tickets it holds. Only the peer can sign it ([SignEntry]); everybody can pass it on.
type PeerEntry struct {
	// Protocol is the version of the protocols the peer speaks: major, minor, patch.
	Protocol [3]uint16
	Network  ID
	Peer     PeerID
	Version  EntryVersion
	// Addresses are where it can be reached, host:port, the best first.
	Addresses []string
	// Tags, Streams and Groups are what it offers, each ascending, without repetition.
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
// the limits.
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

// Validate checks the limits and the order.
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
		return bad("it was updated at %d, before it started at %d", e.Version.Updated, e.Version.Started)
	case len(e.Addresses) > MaxAddresses:
		return bad("%d addresses, at most %d are allowed", len(e.Addresses), MaxAddresses)
	case len(e.Tickets) > MaxTickets:
		return bad("%d tickets, at most %d are allowed", len(e.Tickets), MaxTickets)
	}
	for _, a := range e.Addresses {
		if a == "" || len(a) > MaxAddress || !utf8.ValidString(a) {
			return bad("address %q: 1 to %d bytes of UTF-8 are wanted", a, MaxAddress)
		}
	}
	for name, ids := range map[string][]ID{"tags": e.Tags, "streams": e.Streams, "groups": e.Groups} {
		if len(ids) > MaxEntryIDs {
			return bad("%d %s, at most %d are allowed", len(ids), name, MaxEntryIDs)
		}
		for i := 1; i < len(ids); i++ {
			if ids[i-1].Compare(ids[i]) >= 0 {
				return bad("its %s are not in ascending order", name)
			}
		}
	}
	for i := range e.Tickets {
		if n := len(e.Tickets[i].Data); n > MaxTicket {
			return bad("a ticket of %d bytes, at most %d are allowed", n, MaxTicket)
		}
		if i > 0 && e.Tickets[i-1].ID().Compare(e.Tickets[i].ID()) >= 0 {
			return bad("its tickets are not in ascending order of their ids")
		}
	}
	return nil
}

// SignedEntry is an entry with its peer's signature: what is passed on.
type SignedEntry struct {
	Entry PeerEntry
	bytes []byte // encoding and signature
}

// Bytes returns the signed entry as it is passed on. It must not be changed.
func (s *SignedEntry) Bytes() []byte { return s.bytes }

// Digest returns BLAKE3 of Bytes, by which entries are told apart.
func (s *SignedEntry) Digest() ID { return FromParts(s.bytes) }

// Newer reports whether s is to take the place of other, an entry of the same peer; of
// nil it is.
func (s *SignedEntry) Newer(other *SignedEntry) bool {
	return other == nil || s.Entry.Version.Compare(other.Entry.Version) > 0
}

// SignEntry normalizes a copy of the entry, checks it, and signs it with the peer's
// key. The entry must name that peer.
func SignEntry(e PeerEntry, key Key) (*SignedEntry, error) {
	if key.IsZero() || key.PeerID() != e.Peer {
		return nil, fmt.Errorf("%w: it is of peer %s, which the key is not of", ErrEntry, e.Peer.Short())
	}
	e.Addresses = slices.Clone(e.Addresses)
	e.Tags, e.Streams, e.Groups = slices.Clone(e.Tags), slices.Clone(e.Streams), slices.Clone(e.Groups)
	e.Tickets = slices.Clone(e.Tickets)
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
// recent, is for the caller to see to. The bytes are copied.
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
