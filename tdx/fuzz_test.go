package tdx_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/google/go-tdx-guest/testing/testdata"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/tdx"
	"github.com/mosaik-engine/mosaik/tdx/simulated"
)

// hostile are quotes on which go-tdx-guest's parser panics, or has.
func hostile(t testing.TB) [][]byte {
	raw := quote(t, authority(t, 1), sample(), [64]byte{})
	v5 := sample()
	v5.Version5 = true
	raw5 := quote(t, authority(t, 1), v5, [64]byte{})
	auth := 48 + 584 + 4 + 64 + 64 + 6 + 384 + 64 // of the size of the QE authentication data
	change := func(raw []byte, at int, to ...byte) []byte {
		raw = bytes.Clone(raw)
		copy(raw[at:], to)
		return raw
	}
	return [][]byte{
		raw, raw5,
		change(raw, auth, 0xff, 0xff),
		change(raw, 48+584, 0, 0, 0, 0),
		change(raw, 48+584, 0xff, 0xff, 0xff, 0xff),
		change(raw5, 48+6+648, 0xff, 0xff, 0xff, 0xff),
		change(raw5, 48+6+648, 0, 0, 0, 0),
		change(raw5, 50, 0xff, 0xff, 0xff, 0xff),
		raw[:48], raw[:632], raw[:636], raw[:700], raw5[:48], raw5[:54], raw5[:702],
	}
}

// TestHostileQuotes: an error each, no panic.
func TestHostileQuotes(t *testing.T) {
	for i, raw := range hostile(t)[2:] {
		if q, err := tdx.ParseQuote(raw); !errors.Is(err, tdx.ErrQuote) {
			t.Errorf("quote %d reads as %+v, %v", i, q, err)
		}
	}
	first := hostile(t)[0]
	for n := range quote(t, authority(t, 1), sample(), [64]byte{}) {
		if _, err := tdx.ParseQuote(first[:n]); err == nil {
			t.Fatalf("a quote of %d bytes is one", n)
		}
		if n > 1200 {
			break // from here on it is the certificates that are cut, by one size in front of them
		}
	}
}

func FuzzQuote(f *testing.F) {
	for _, raw := range hostile(f) {
		f.Add(raw)
	}
	f.Add(testdata.RawQuote)
	f.Add(testdata.RawQuoteV5)
	a := authority(f, 1)
	c := collateral(f, a, fine())
	good := quote(f, a, sample(), [64]byte{})
	v5 := sample()
	v5.Version5 = true
	good5 := quote(f, a, v5, [64]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		q, err := tdx.ParseQuote(raw)
		if err != nil {
			if !errors.Is(err, tdx.ErrQuote) {
				t.Errorf("not a refusal of the quote: %v", err)
			}
			return
		}
		if q.Digest().IsZero() {
			t.Error("a quote without digest")
		}
		e, err := tdx.Verify(raw, a.Root(), c, tdx.At(now))
		if err != nil {
			return
		}
		// What passes was signed by the simulation.
		for _, known := range [][]byte{good, good5} {
			if k, err := tdx.ParseQuote(known); err == nil && k.Digest() == e.Quote.Digest() {
				return
			}
		}
		t.Error("a forgery is genuine")
	})
}

func FuzzTicket(f *testing.F) {
	q := authority(f, 1).Quoter(sample())
	for _, v2 := range []bool{false, true} {
		_, data := ticketOf(f, q, sampleTicket(v2))
		f.Add(v2, false, data)
		if !v2 {
			f.Add(false, true, decompress(f, data))
		}
	}
	f.Fuzz(func(t *testing.T, v2, plain bool, data []byte) {
		class := tdx.TicketClass()
		if v2 {
			class = tdx.TicketClassV2()
		} else if plain && len(data) <= tdx.MaxTicketContent {
			data = compress(t, data) // the fuzzer finds its way in the content more easily
		}
		ticket, err := tdx.DecodeTicket(class, data)
		if err != nil {
			if !errors.Is(err, tdx.ErrTicket) {
				t.Errorf("not a refusal of the ticket: %v", err)
			}
			return
		}
		if len(ticket.Quote) > tdx.MaxQuoteSize {
			return // v2 is longer than the parser of quotes takes
		}
		again, err := ticket.Encode()
		if err != nil {
			if !v2 && len(ticket.Quote) == 0 || v2 {
				return
			}
			t.Fatalf("%+v was decoded and cannot be encoded: %v", ticket, err)
		}
		same, err := tdx.DecodeTicket(class, again)
		if err != nil || same.ReportData() != ticket.ReportData() || !bytes.Equal(same.Quote, ticket.Quote) {
			t.Errorf("%+v comes back as %+v, %v", ticket, same, err)
		}
		if v2 && !bytes.Equal(again, data) {
			t.Error("a v2 ticket has two spellings")
		}
	})
}

func FuzzCollateral(f *testing.F) {
	a, err := simulated.New([32]byte{1}, simulated.DefaultPlatform(), now)
	if err != nil {
		f.Fatal(err)
	}
	c := collateral(f, a, fine())
	bundle, err := c.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(bundle)
	raw := quote(f, a, sample(), [64]byte{})
	f.Fuzz(func(t *testing.T, bundle []byte) {
		got, err := tdx.DecodeCollateral(bundle)
		if err != nil {
			if !errors.Is(err, tdx.ErrCollateral) {
				t.Errorf("not a refusal of the collateral: %v", err)
			}
			return
		}
		if err := got.Authentic(a.Root(), now); err == nil && got.Summary().Digest() == (identity.ID{}) {
			t.Error("collateral without digest")
		}
		_, _ = tdx.Verify(raw, a.Root(), got, tdx.At(now)) // must not panic
	})
}
