package oracle_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/organisms/oracle"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

// example is a round with an observation of most kinds, and its tick.
func example(t testing.TB) (*oracle.Parameters, *oracle.Round, *oracle.PriceTick) {
	t.Helper()
	p, _ := setUp(2, 1, 1, 1)
	r := roundOf(p, 42, began, 331244, 331250, 0, 331100)
	r.Observations[3].Reason, r.Observations[3].ObservedAt = oracle.TooOld, began.UnixNano()-11e9
	return p, r, signedTick(t, p, r)
}

// TestVectors holds ids and encodings against what they were when they were first published.
func TestVectors(t *testing.T) {
	p, c := everything()
	small, round, tick := example(t)
	got := map[string]string{
		"price tick schema":                      oracle.PriceTickSchemaV1().String(),
		"stream id of ETH/USDC, oracle-γ.oracle": oracle.StreamID(stableID, ethUSDC).String(),
		"rounds id of ETH/USDC, oracle-γ.oracle": oracle.RoundsID(stableID, ethUSDC).String(),
		"parameters":                          hex.EncodeToString(p.Append(nil)),
		"parameters digest":                   p.Digest().String(),
		"catalog":                             hex.EncodeToString(c.Append(nil)),
		"catalog digest":                      c.Digest().String(),
		"source id, the first of the catalog": oracle.SourceID(c.Pairs[0].Pair, c.Pairs[0].Sources[0]).String(),
		"small parameters digest":             small.Digest().String(),
		"round":                               hex.EncodeToString(round.Append(nil)),
		"round digest":                        round.Digest().String(),
		"tick":                                hex.EncodeToString(tick.Append(nil)),
		"tick preimage":                       hex.EncodeToString(tick.SigningPreimage(stableID)),
	}
	const file = "testdata/vectors.json"
	if *rewrite {
		b, err := json.MarshalIndent(got, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, append(b, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var want map[string]string
	if err := json.Unmarshal(b, &want); err != nil {
		t.Fatal(err)
	}
	if len(want) != len(got) {
		t.Errorf("%d vectors, want %d", len(want), len(got))
	}
	for name := range got {
		if got[name] != want[name] {
			t.Errorf("%s: %s, want %s", name, got[name], want[name])
		}
	}
}

// TestOneEncoding: what is encoded decodes to itself, no other length does, and of every
// single bit that is flipped, either the form is broken or the signature.
func TestOneEncoding(t *testing.T) {
	_, round, tick := example(t)
	b := tick.Append(nil)
	if len(b) != oracle.TickSize {
		t.Fatalf("%d bytes", len(b))
	}
	if again, err := oracle.DecodeTick(b); err != nil || again != *tick {
		t.Errorf("%+v, %v", again, err)
	}
	if err := tick.Verify(stableID, admitted); err != nil {
		t.Error(err)
	}
	refused := 0
	for i := range 8 * len(b) {
		flipped := bytes.Clone(b)
		flipped[i/8] ^= 1 << (i % 8)
		again, err := oracle.DecodeTick(flipped)
		if err != nil {
			if !errors.Is(err, oracle.ErrEncoding) {
				t.Errorf("bit %d: %v", i, err)
			}
			refused++
			continue
		}
		if !bytes.Equal(again.Append(nil), flipped) {
			t.Errorf("bit %d: it encodes to other bytes", i)
		}
		if err := again.Verify(stableID, admitted); !errors.Is(err, oracle.ErrSignature) && !errors.Is(err, oracle.ErrSigner) {
			t.Errorf("bit %d: %v", i, err)
		}
	}
	if refused == 0 || refused == 8*len(b) {
		t.Errorf("the form refuses %d of %d", refused, 8*len(b))
	}
	for n := range len(b) {
		if _, err := oracle.DecodeTick(b[:n]); !errors.Is(err, oracle.ErrEncoding) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	if _, err := oracle.DecodeTick(append(b, 0)); !errors.Is(err, oracle.ErrEncoding) {
		t.Error(err)
	}
	b = round.Append(nil)
	if again, err := oracle.DecodeRound(b); err != nil || !reflect.DeepEqual(&again, round) {
		t.Errorf("%+v, %v", again, err)
	}
	for n := range len(b) {
		if _, err := oracle.DecodeRound(b[:n]); !errors.Is(err, oracle.ErrEncoding) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	if _, err := oracle.DecodeRound(append(b, 0)); !errors.Is(err, oracle.ErrEncoding) {
		t.Error(err)
	}
}

// TestVerify: a tick is good in its stream and under its key, and nowhere else.
func TestVerify(t *testing.T) {
	_, _, tick := example(t)
	for name, test := range map[string]struct {
		stableID identity.ID
		admitted func(identity.PeerID) bool
		want     error
	}{
		"good":               {stableID, admitted, nil},
		"another oracle":     {identity.NewID("another"), admitted, oracle.ErrSignature},
		"nobody admitted":    {stableID, nil, oracle.ErrSigner},
		"others admitted":    {stableID, func(p identity.PeerID) bool { return p == key("other").PeerID() }, oracle.ErrSigner},
		"everybody admitted": {stableID, func(identity.PeerID) bool { return true }, nil},
	} {
		if err := tick.Verify(test.stableID, test.admitted); !errors.Is(err, test.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	stolen := *tick
	stolen.Signer = key("other").PeerID()
	if err := stolen.Verify(stableID, func(identity.PeerID) bool { return true }); !errors.Is(err, oracle.ErrSignature) {
		t.Error(err)
	}
	// Another domain: the same bytes signed for something else.
	bare := *tick
	copy(bare.Signature[:], key("enclave").Sign(tick.Append(nil)[:oracle.TickSize-64]))
	if err := bare.Verify(stableID, admitted); !errors.Is(err, oracle.ErrSignature) {
		t.Error(err)
	}
}

func TestBadTicksAndRounds(t *testing.T) {
	for want, change := range map[string]func(*oracle.PriceTick){
		"pair":         func(x *oracle.PriceTick) { x.Pair.Base = "" },
		"timestamp":    func(x *oracle.PriceTick) { x.TimestampMs = 1 << 63 },
		"price":        func(x *oracle.PriceTick) { x.Price = 0 },
		"confidence":   func(x *oracle.PriceTick) { x.Confidence = oracle.MaxPrice + 1 },
		"source count": func(x *oracle.PriceTick) { x.SourceCount = oracle.MaxSources + 1 },
		"seq":          func(x *oracle.PriceTick) { x.Seq = 0 },
		"decimals":     func(x *oracle.PriceTick) { x.Decimals = 19 },
	} {
		_, _, tick := example(t)
		change(tick)
		if _, err := oracle.DecodeTick(tick.Append(nil)); !errors.Is(err, oracle.ErrEncoding) || !strings.Contains(err.Error(), "tick: "+want+": ") {
			t.Errorf("%s: %v", want, err)
		}
	}
	for want, change := range map[string]func(*oracle.Round){
		"pair":                    func(r *oracle.Round) { r.Pair.Quote = "ETH" },
		"timestamp":               func(r *oracle.Round) { r.TimestampMs = 1 << 63 },
		"seq":                     func(r *oracle.Round) { r.Seq = 0 },
		"observations: 0":         func(r *oracle.Round) { r.Observations = nil },
		"observations: 65":        func(r *oracle.Round) { r.Observations = make([]oracle.Observation, 65) },
		"observation 0: its reas": func(r *oracle.Round) { r.Observations[0].Reason = 0 },
		"observation 1: its reas": func(r *oracle.Round) { r.Observations[1].Reason = 20 },
		"observation 2: its pric": func(r *oracle.Round) { r.Observations[2].ObservedAt = 1 },
		"observation 0: its pric": func(r *oracle.Round) { r.Observations[0].ObservedAt = -1 },
		"is not UTF-8":            func(r *oracle.Round) { r.Observations[0].Detail = "\xff" },
		"201 bytes":               func(r *oracle.Round) { r.Observations[0].Detail = strings.Repeat("x", 201) },
	} {
		_, round, _ := example(t)
		change(round)
		if err := round.Validate(); !errors.Is(err, oracle.ErrEncoding) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}
