package oracle_test

import (
	"bytes"
	"errors"
	"math/big"
	"net/http"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/organisms/oracle"
)

// FuzzPrice: what is accepted is exactly that number.
func FuzzPrice(f *testing.F) {
	for _, text := range []string{"1", "104312.50", "1e-8", "NaN", "-1", "0.1E+3", "9223372036854775807", "00", "1e31"} {
		f.Add(text, uint8(8))
	}
	f.Fuzz(func(t *testing.T, text string, decimals uint8) {
		p, err := oracle.ParsePrice(text, decimals)
		if err != nil {
			if !errors.Is(err, oracle.ErrPrice) || p != 0 {
				t.Fatalf("%d, %v", p, err)
			}
			return
		}
		exact, ok := new(big.Rat).SetString(text)
		again, okAgain := new(big.Rat).SetString(p.Format(decimals))
		if !ok || !okAgain || exact.Cmp(again) != 0 || p == 0 || p > oracle.MaxPrice {
			t.Fatalf("%q is %s", text, p.Format(decimals))
		}
	})
}

// FuzzTick: what decodes is the one encoding of it.
func FuzzTick(f *testing.F) {
	_, _, tick := example(f)
	f.Add(tick.Append(nil))
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, b []byte) {
		tick, err := oracle.DecodeTick(b)
		if err != nil {
			if !errors.Is(err, oracle.ErrEncoding) || tick != (oracle.PriceTick{}) {
				t.Fatalf("%+v, %v", tick, err)
			}
			return
		}
		if !bytes.Equal(tick.Append(nil), b) || tick.Validate() != nil {
			t.Fatalf("%x encodes to %x", b, tick.Append(nil))
		}
	})
}

// FuzzRound: what decodes is the one encoding of it; and whatever of the oracle's rounds it
// is, its tick is in its form and the audit agrees with it.
func FuzzRound(f *testing.F) {
	p, round, _ := example(f)
	f.Add(round.Append(nil))
	f.Add(roundOf(p, 1, began, 0, 0, 0, 0).Append(nil))
	a := newAuditor(f, p)
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := oracle.DecodeRound(b)
		if err != nil {
			if !errors.Is(err, oracle.ErrEncoding) || r.Observations != nil {
				t.Fatalf("%+v, %v", r, err)
			}
			return
		}
		if !bytes.Equal(r.Append(nil), b) {
			t.Fatalf("%x encodes to %x", b, r.Append(nil))
		}
		r.Parameters = p.Digest()
		for i := range r.Observations {
			r.Observations[i].Source = p.Feeds[0].Sources[i%len(p.Feeds[0].Sources)].Source
		}
		tick, err := oracle.Recompute(p, &r)
		if err != nil {
			if !errors.Is(err, oracle.ErrRound) && !errors.Is(err, oracle.ErrSkipped) {
				t.Fatal(err)
			}
			return
		}
		tick.Sign(stableID, key("enclave"))
		if err := tick.Validate(); err != nil {
			t.Fatal(err)
		}
		if err := a.AuditTick(&r, &tick); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzParameters: what decodes is the one encoding of it.
func FuzzParameters(f *testing.F) {
	p, _ := everything()
	f.Add(p.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := oracle.DecodeParameters(b)
		if err != nil {
			wantDecodeError(t, p, err)
			return
		}
		if !bytes.Equal(p.Append(nil), b) {
			t.Fatalf("%x encodes to %x", b, p.Append(nil))
		}
	})
}

// FuzzCatalog: what decodes is the one encoding of it.
func FuzzCatalog(f *testing.F) {
	_, c := everything()
	f.Add(c.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := oracle.DecodeCatalog(b)
		if err != nil {
			wantDecodeError(t, c, err)
			return
		}
		if !bytes.Equal(c.Append(nil), b) {
			t.Fatalf("%x encodes to %x", b, c.Append(nil))
		}
	})
}

func wantDecodeError[T any](t *testing.T, v *T, err error) {
	t.Helper()
	var bad *oracle.FieldError
	if v != nil || !errors.Is(err, oracle.ErrEncoding) && !errors.As(err, &bad) {
		t.Fatalf("%+v, %v", v, err)
	}
}

// FuzzFile: what is read encodes to what decodes again.
func FuzzFile(f *testing.F) {
	for name := range parsers() {
		b, err := os.ReadFile("testdata/oracle." + name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(b))
	}
	f.Fuzz(func(t *testing.T, text string) {
		for name, parse := range parsers() {
			p, c, err := parse(strings.NewReader(text))
			if err != nil {
				var bad *oracle.FieldError
				if p != nil || c != nil || !errors.As(err, &bad) && !errors.Is(err, oracle.ErrNewerSchema) {
					t.Fatalf("%s: %v", name, err)
				}
				continue
			}
			if err := p.Matches(c); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			againP, errP := oracle.DecodeParameters(p.Append(nil))
			againC, errC := oracle.DecodeCatalog(c.Append(nil))
			if errP != nil || errC != nil || !reflect.DeepEqual(againP, p) || !reflect.DeepEqual(againC, c) {
				t.Fatalf("%s: %v, %v", name, errP, errC)
			}
		}
	})
}

// FuzzAnswer: whatever an exchange answers, it is an observation that a round may have.
func FuzzAnswer(f *testing.F) {
	for _, body := range []string{`{"price": "3312.44", "t": 1767225600000}`, `{"price":1,"price":2}`, `{"price":NaN}`, `[`, `{"price":{"x":[1]},"t":"2026-01-01T00:00:00Z"}`} {
		f.Add([]byte(body))
	}
	body := make(chan []byte, 1)
	s := newServer(f, func(w http.ResponseWriter, _ *http.Request) { w.Write(<-body) })
	h := s.source(f, func(c *oracle.CexSpot) { c.TimePath = "/t" })
	f.Fuzz(func(t *testing.T, b []byte) {
		body <- b
		o := h.Observe(t.Context(), began)
		p, _ := setUp(1, 1, 1)
		r := roundOf(p, 1, began, 1, 1, 1)
		r.Observations[0] = o
		if err := r.Validate(); err != nil {
			t.Fatalf("%+v: %v", o, err)
		}
		if o.Reason == oracle.Available && (len(b) > oracle.MaxBody || o.Response != log.Sum(b)) {
			t.Fatalf("%+v", o)
		}
	})
}

// FuzzReplay: what is read answers at any time with an observation of that time or before.
func FuzzReplay(f *testing.F) {
	b, err := os.ReadFile("testdata/ticks.csv")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(b), int64(1762795696868818000))
	f.Add(replayHeader+"5,BTC-USDT,kraken,1,1,\n4,BTC-USDT,kraken,-1,1,\n", int64(5))
	f.Fuzz(func(t *testing.T, file string, at int64) {
		r, err := replayed(t, file, nil)
		if err != nil {
			if !errors.Is(err, oracle.ErrReplay) {
				t.Fatal(err)
			}
			return
		}
		o := r.Observe(t.Context(), time.Unix(0, at))
		if o.Reason == oracle.Available != (o.Price != 0) || o.ObservedAt > max(at, 0) || o.Price > oracle.MaxPrice {
			t.Fatalf("at %d: %+v", at, o)
		}
	})
}
