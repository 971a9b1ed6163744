package tdx

import (
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/mosaik-engine/mosaik/identity"
)

const (
	// MaxTicketSize is the largest ticket, in bytes as it travels: what fits a peer entry.
	// A ticket with a real quote has about 2800 bytes in v1 and 5200 in v2.
	MaxTicketSize = identity.MaxTicket

	// MaxTicketContent is the largest content of a v1 ticket, decompressed, in bytes.
	MaxTicketContent = 64 << 10
)

// ErrTicket reports bytes that are not a ticket of either class.
var ErrTicket = errors.New("tdx: malformed ticket")

// TicketClass is the class of the Rust runtime's TDX tickets, v1.
func TicketClass() identity.ID { return identity.NewID("mosaik.tee.tdx.ticket.v1") }

// TicketClassV2 is the class of tickets that bind a group and a challenge too.
func TicketClassV2() identity.ID { return identity.NewID("mosaik.tee.tdx.ticket.v2") }

// Ticket ties a quote to a peer: the quote's report data is a digest of the fields.
// docs/format/tdx.md describes both encodings.
type Ticket struct {
	Quote   []byte // as the quoter made it
	Peer    identity.PeerID
	Network identity.ID

	StartedAt time.Time // when the peer started
	QuotedAt  time.Time // when the quote was made, by the peer's clock
	Expires   time.Time // zero: never, which only v1 can say

	// V2 selects the class. Only it has the fields below.
	V2        bool
	Group     identity.ID
	Challenge identity.ID // what a member asked to be bound in, see [Challenge]
	Keys      identity.ID // digest of further public keys of the peer; zero: none
}

// v2Head is the size of what precedes the quote in a v2 ticket, in bytes.
const v2Head = 5*identity.Size + 3*8

// Class is the ticket's class.
func (t *Ticket) Class() identity.ID {
	if t.V2 {
		return TicketClassV2()
	}
	return TicketClass()
}

// ReportData is what the ticket's quote must carry.
//
// For v1, in the lower half with zeros above, as in the Rust runtime:
//
//	NewID("mosaik.tdx.ticket.extra") .Derive(peer) .Derive(network)
//	  .Derive(started at) .Derive(quoted at) .Derive(expires)
//
// with times as le64 of Unix seconds, and 0 for never. For v2, all 64 bytes:
//
//	SHA-512("mosaik tdx v2" || the ticket without its quote)
func (t *Ticket) ReportData() [64]byte {
	if t.V2 {
		return sha512.Sum512(append([]byte("mosaik tdx v2"), t.head()...))
	}
	expires := int64(0)
	if !t.Expires.IsZero() {
		expires = t.Expires.Unix()
	}
	id := identity.NewID("mosaik.tdx.ticket.extra").Derive(string(t.Peer[:])).DeriveID(t.Network)
	for _, seconds := range []int64{t.StartedAt.Unix(), t.QuotedAt.Unix(), expires} {
		id = id.Derive(string(binary.LittleEndian.AppendUint64(nil, uint64(seconds))))
	}
	var data [64]byte
	copy(data[:], id[:])
	return data
}

// head is a v2 ticket without its quote.
func (t *Ticket) head() []byte {
	b := make([]byte, 0, v2Head)
	b = append(b, t.Peer[:]...)
	b = append(b, t.Network[:]...)
	b = append(b, t.Group[:]...)
	for _, at := range []time.Time{t.StartedAt, t.QuotedAt, t.Expires} {
		b = binary.LittleEndian.AppendUint64(b, uint64(at.UnixMilli()))
	}
	b = append(b, t.Challenge[:]...)
	return append(b, t.Keys[:]...)
}

// Encode returns the ticket's data. The error wraps [ErrTicket] and names the field:
// a quote or a time outside what the format can hold, or a v2 ticket without expiry.
func (t *Ticket) Encode() ([]byte, error) {
	if len(t.Quote) == 0 || len(t.Quote) > MaxQuoteSize {
		return nil, fmt.Errorf("%w: quote of %d bytes, want 1 to %d", ErrTicket, len(t.Quote), MaxQuoteSize)
	}
	if t.V2 {
		if t.Expires.IsZero() {
			return nil, fmt.Errorf("%w: v2 without expiry", ErrTicket)
		}
		return fitting(append(t.head(), t.Quote...))
	}
	content, err := t.appendPostcard(nil)
	if err != nil {
		return nil, err
	}
	// Level 3 in the C library's counting, as the Rust runtime compresses. Its bytes
	// are not reproduced: a ticket is identified by what it was made with.
	w, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, fmt.Errorf("tdx: compress a ticket: %w", err)
	}
	data := w.EncodeAll(content, nil)
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("tdx: compress a ticket: %w", err)
	}
	return fitting(data)
}

func fitting(data []byte) ([]byte, error) {
	if len(data) > MaxTicketSize {
		return nil, fmt.Errorf("%w: %d bytes, the limit is %d", ErrTicket, len(data), MaxTicketSize)
	}
	return data, nil
}

// DecodeTicket decodes the data of a ticket of one of the two classes. It proves
// nothing. The error wraps [ErrTicket].
func DecodeTicket(class identity.ID, data []byte) (*Ticket, error) {
	if len(data) > MaxTicketSize {
		return nil, fmt.Errorf("%w: %d bytes, the limit is %d", ErrTicket, len(data), MaxTicketSize)
	}
	switch class {
	case TicketClass():
		return decodeV1(data)
	case TicketClassV2():
		return decodeV2(data)
	}
	return nil, fmt.Errorf("%w: class %s is none of TDX", ErrTicket, class.Short())
}

func decodeV1(data []byte) (*Ticket, error) {
	r, err := zstd.NewReader(nil, zstd.WithDecoderMaxMemory(MaxTicketContent), zstd.WithDecoderMaxWindow(8<<20),
		zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true))
	if err != nil {
		return nil, fmt.Errorf("tdx: decompress a ticket: %w", err)
	}
	defer r.Close()
	content, err := r.DecodeAll(data, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: zstd, at most %d bytes: %w", ErrTicket, MaxTicketContent, err)
	}
	return decodePostcard(content)
}

func decodeV2(data []byte) (*Ticket, error) {
	if len(data) <= v2Head {
		return nil, fmt.Errorf("%w: %d bytes, v2 has more than %d", ErrTicket, len(data), v2Head)
	}
	t := &Ticket{V2: true}
	b := data
	next := func(dst []byte) { b = b[copy(dst, b):] }
	next(t.Peer[:])
	next(t.Network[:])
	next(t.Group[:])
	for _, at := range []*time.Time{&t.StartedAt, &t.QuotedAt, &t.Expires} {
		*at = time.UnixMilli(int64(binary.LittleEndian.Uint64(b))).UTC()
		b = b[8:]
	}
	next(t.Challenge[:])
	next(t.Keys[:])
	t.Quote = append([]byte(nil), b...)
	return t, nil
}

// Challenge is what a member asks a joiner to bind into its quote, so that the quote
// is younger than the question:
//
//	BLAKE3("mosaik/admit/1" || group || epoch 8, little-endian || nonce)
//
// The epoch is the group's membership as of the question; the nonce is random.
func Challenge(group identity.ID, epoch uint64, nonce [32]byte) identity.ID {
	return identity.FromParts([]byte("mosaik/admit/1"), group[:], binary.LittleEndian.AppendUint64(nil, epoch), nonce[:])
}
