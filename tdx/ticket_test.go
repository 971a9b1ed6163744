package tdx_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/tdx"
)

// ticketOf makes a ticket's quote and its data.
func ticketOf(t testing.TB, q quoter, ticket tdx.Ticket) (*tdx.Ticket, []byte) {
	t.Helper()
	var err error
	if ticket.Quote, err = q.Quote(ticket.ReportData()); err != nil {
		t.Fatal(err)
	}
	data, err := ticket.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return &ticket, data
}

type quoter interface {
	Quote([64]byte) ([]byte, error)
}

func sampleTicket(v2 bool) tdx.Ticket {
	ticket := tdx.Ticket{
		Peer: identity.PeerID(identity.NewID("a peer")), Network: identity.NewID("a network"),
		StartedAt: now.Add(-time.Hour), QuotedAt: now.Add(-time.Minute), Expires: now.Add(time.Hour), V2: v2,
	}
	if v2 {
		ticket.Group = identity.NewID("a group")
		ticket.Challenge = tdx.Challenge(ticket.Group, 3, [32]byte{1})
		ticket.Keys = identity.NewID("keys")
	}
	return ticket
}

func TestTicketRoundTrip(t *testing.T) {
	q := authority(t, 1).Quoter(sample())
	for _, v2 := range []bool{false, true} {
		for _, fraction := range []time.Duration{0, time.Millisecond, time.Microsecond, time.Nanosecond} {
			ticket := sampleTicket(v2)
			if !v2 || fraction >= time.Millisecond {
				ticket.QuotedAt = ticket.QuotedAt.Add(fraction)
			}
			want, data := ticketOf(t, q, ticket)
			got, err := tdx.DecodeTicket(ticket.Class(), data)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got.Quote, want.Quote) {
				t.Error("the quote has changed")
			}
			if got.ReportData() != want.ReportData() || !got.QuotedAt.Equal(want.QuotedAt) || !got.Expires.Equal(want.Expires) ||
				!got.StartedAt.Equal(want.StartedAt) || got.Peer != want.Peer || got.Group != want.Group || got.Challenge != want.Challenge {
				t.Errorf("v2 %v: got %+v, want %+v", v2, got, want)
			}
		}
	}
	never := sampleTicket(false)
	never.Expires = time.Time{}
	_, data := ticketOf(t, q, never)
	if got, err := tdx.DecodeTicket(tdx.TicketClass(), data); err != nil || !got.Expires.IsZero() {
		t.Errorf("a v1 ticket without expiry reads as %+v, %v", got, err)
	}
}

// TestReportDataV1 computes the report data of attested fields from its formula.
func TestReportDataV1(t *testing.T) {
	ticket := sampleTicket(false)
	want := identity.NewID("1f0ee1d95b5040b047ee0baa0f8d8d4954d10eef92fa8d3f94b31f48d04dd51c") // the Rust runtime's constant
	for _, part := range [][]byte{ticket.Peer[:], ticket.Network[:],
		le64(ticket.StartedAt.Unix()), le64(ticket.QuotedAt.Unix()), le64(ticket.Expires.Unix())} {
		want = identity.FromParts(want[:], part)
	}
	if got := ticket.ReportData(); !bytes.Equal(got[:32], want[:]) || got[32:][0] != 0 {
		t.Errorf("got %x, want %x and zeros", got, want)
	}
	ticket.Expires = time.Time{}
	never := ticket.ReportData()
	ticket.Expires = time.Unix(0, 0)
	if ticket.ReportData() != never {
		t.Error("never is not folded as the Rust runtime does, like 1970")
	}
}

func le64(n int64) []byte { return binary.LittleEndian.AppendUint64(nil, uint64(n)) }

func TestTicketRefusals(t *testing.T) {
	q := authority(t, 1).Quoter(sample())
	_, v1 := ticketOf(t, q, sampleTicket(false))
	_, v2 := ticketOf(t, q, sampleTicket(true))
	content := decompress(t, v1)
	long := bytes.Repeat([]byte{0}, tdx.MaxTicketContent+1)
	odd := bytes.Replace(content, []byte("2026-11-01T11:00:00Z"), []byte("2026-11-01t11:00:00Z"), 1)
	offset := bytes.Replace(content, []byte("\x142026-11-01T11:00:00Z"), []byte("\x192026-11-01T11:00:00+00:00"), 1)
	badOption := append(bytes.Clone(content[:len(content)-22]), 2)
	for _, test := range []struct {
		name  string
		class identity.ID
		data  []byte
	}{
		{"empty v1", tdx.TicketClass(), nil},
		{"empty v2", tdx.TicketClassV2(), nil},
		{"v2 without a quote", tdx.TicketClassV2(), v2[:184]},
		{"another class", identity.NewID("x"), v2},
		{"too long", tdx.TicketClassV2(), make([]byte, tdx.MaxTicketSize+1)},
		{"a bomb", tdx.TicketClass(), compress(t, long)},
		{"not zstd", tdx.TicketClass(), content},
		{"bytes after the end", tdx.TicketClass(), compress(t, append(bytes.Clone(content), 0))},
		{"truncated", tdx.TicketClass(), compress(t, content[:len(content)-1])},
		{"another spelling of a time", tdx.TicketClass(), compress(t, odd)},
		{"a time with an offset", tdx.TicketClass(), compress(t, offset)},
		{"an unknown option", tdx.TicketClass(), compress(t, badOption)},
		{"a long varint", tdx.TicketClass(), compress(t, append([]byte{0x80, 0x80, 0}, content...))},
		{"a huge quote", tdx.TicketClass(), compress(t, binary.AppendUvarint(nil, 1<<63))},
	} {
		if ticket, err := tdx.DecodeTicket(test.class, test.data); !errors.Is(err, tdx.ErrTicket) {
			t.Errorf("%s: got %+v, %v", test.name, ticket, err)
		}
	}
	for name, change := range map[string]func(*tdx.Ticket){
		"no quote":     func(t *tdx.Ticket) { t.Quote = nil },
		"long quote":   func(t *tdx.Ticket) { t.Quote = make([]byte, tdx.MaxQuoteSize+1) },
		"year 10000":   func(t *tdx.Ticket) { t.Expires = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) },
		"no start":     func(t *tdx.Ticket) { t.StartedAt = time.Time{} },
		"v2 for ever":  func(t *tdx.Ticket) { t.V2, t.Expires = true, time.Time{} },
		"before epoch": func(t *tdx.Ticket) { t.QuotedAt = time.Unix(-1, 0) },
	} {
		ticket := sampleTicket(false)
		ticket.Quote = []byte{1}
		change(&ticket)
		if _, err := ticket.Encode(); !errors.Is(err, tdx.ErrTicket) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func compress(t testing.TB, content []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.Close() }()
	return w.EncodeAll(content, nil)
}

func decompress(t testing.TB, data []byte) []byte {
	t.Helper()
	r, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	content, err := r.DecodeAll(data, nil)
	if err != nil {
		t.Fatal(err)
	}
	return content
}
