package tdx_test

import (
	"testing"
	"time"

	"github.com/mosaik-engine/mosaik/tdx"
)

// BenchmarkVerify sets the library alone beside Verify, with the same collateral and
// revocation lists at hand.
func BenchmarkVerify(b *testing.B) {
	a := authority(b, 1)
	raw, c := quote(b, a, sample(), [64]byte{}), collateral(b, a, fine())
	b.Run("library", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := libraryAlone(b, raw, a, c); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("ours", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := tdx.Verify(raw, a.Root(), c, tdx.At(now)); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkValidateKnown validates a ticket whose verdict is remembered, as happens
// with every change of a catalog.
func BenchmarkValidateKnown(b *testing.B) {
	r := newRig(b, tdx.CheckerOptions{})
	td := sample()
	v := r.validator(b, tdx.Policy{Baseline: tdx.Exactly(td.Measurements), MaxLifetime: 24 * time.Hour})
	for _, v := range []*tdx.Validator{v, v.V2(r.group)} {
		data := r.ticket(b, td, v.Class() == tdx.TicketClassV2(), nil)
		b.Run(map[bool]string{false: "v1", true: "v2"}[v.Class() == tdx.TicketClassV2()], func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := v.Admit(b.Context(), data, r.subject, time.Now()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkParseQuote(b *testing.B) {
	raw := quote(b, authority(b, 1), sample(), [64]byte{})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := tdx.ParseQuote(raw); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMint(b *testing.B) {
	q := authority(b, 1).Quoter(sample())
	for b.Loop() {
		if _, err := q.Quote([64]byte{}); err != nil {
			b.Fatal(err)
		}
	}
}
