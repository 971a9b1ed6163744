package oracle_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/organisms/oracle"
)

// TestAggregation: prices by hand.
func TestAggregation(t *testing.T) {
	for name, test := range map[string]struct {
		weights                []uint32
		prices                 []oracle.Price
		price, confidence      oracle.Price
		count                  uint8
		stale, disagrees, skip bool
	}{
		"odd":                         {[]uint32{1, 1, 1}, []oracle.Price{10003, 10001, 10002}, 10002, 1, 3, false, false, false},
		"even: the middle":            {[]uint32{1, 1, 1, 1}, []oracle.Price{10000, 10002, 10010, 10008}, 10005, 5, 4, false, false, false},
		"even: rounded down":          {[]uint32{1, 1, 1, 1}, []oracle.Price{10000, 10001, 10002, 10003}, 10001, 2, 4, false, false, false},
		"a tie of equal prices":       {[]uint32{1, 1, 1, 1}, []oracle.Price{10000, 10000, 10000, 10000}, 10000, 0, 4, false, false, false},
		"weight decides":              {[]uint32{5, 1, 1}, []oracle.Price{10010, 10000, 10001}, 10010, 10, 3, false, false, false},
		"exact half of the weight":    {[]uint32{2, 1, 1}, []oracle.Price{10010, 10000, 10004}, 10007, 7, 3, false, false, false},
		"one wild":                    {[]uint32{1, 1, 1}, []oracle.Price{10000, 10001, 5}, 10000, 9995, 3, false, false, false},
		"two wild":                    {[]uint32{1, 1, 1, 1, 1}, []oracle.Price{10000, 10001, 10002, 5, 50000}, 10001, 39999, 5, false, true, false},
		"at the tolerance":            {[]uint32{1, 1, 1}, []oracle.Price{10000, 10050, 9950}, 10000, 50, 3, false, false, false},
		"beyond it":                   {[]uint32{1, 1, 1}, []oracle.Price{10000, 10051, 9949}, 10000, 51, 3, false, true, false},
		"below the minimum":           {[]uint32{1, 1, 1}, []oracle.Price{10000, 0, 10002}, 10001, 1, 2, true, false, false},
		"below the quorum":            {[]uint32{1, 1, 1}, []oracle.Price{0, 0, 10002}, 0, 0, 0, false, false, true},
		"nothing":                     {[]uint32{1, 1, 1}, []oracle.Price{0, 0, 0}, 0, 0, 0, false, false, true},
		"the largest":                 {[]uint32{1, 1, 1}, []oracle.Price{oracle.MaxPrice, oracle.MaxPrice, 1}, oracle.MaxPrice, oracle.MaxPrice - 1, 3, false, false, false},
		"the largest, halfway":        {[]uint32{1, 1, 1}, []oracle.Price{oracle.MaxPrice, oracle.MaxPrice - 2, 0}, oracle.MaxPrice - 1, 1, 2, true, false, false},
		"the weight of who is silent": {[]uint32{1000, 1, 2}, []oracle.Price{0, 10000, 10002}, 10002, 2, 2, true, false, false},
	} {
		p, _ := setUp(test.weights...)
		tick, err := oracle.Recompute(p, roundOf(p, 7, began, test.prices...))
		if test.skip {
			if !errors.Is(err, oracle.ErrSkipped) || tick != (oracle.PriceTick{}) {
				t.Errorf("%s: %+v, %v", name, tick, err)
			}
			continue
		}
		if err != nil || tick.Price != test.price || tick.Confidence != test.confidence || tick.SourceCount != test.count || tick.Stale != test.stale || tick.Disagreement != test.disagrees {
			t.Errorf("%s: %+v, %v", name, tick, err)
		}
		if tick.Seq != 7 || tick.TimestampMs != uint64(began.UnixMilli()) || tick.Pair != ethUSDC || tick.Decimals != 2 || tick.Parameters != p.Digest() {
			t.Errorf("%s: %+v", name, tick)
		}
	}
}

// TestSourceSet: the digest is of the ids that contribute, in the parameters' order.
func TestSourceSet(t *testing.T) {
	p, _ := setUp(1, 1, 1, 1)
	ids := p.Feeds[0].Sources
	tick, err := oracle.Recompute(p, roundOf(p, 1, began, 10003, 0, 10002, 10001))
	if err != nil || tick.SourceSet != identity.FromParts(ids[0].Source[:], ids[2].Source[:], ids[3].Source[:]) {
		t.Errorf("%s, %v", tick.SourceSet, err)
	}
	other, err := oracle.Recompute(p, roundOf(p, 1, began, 10003, 10002, 0, 10001))
	if err != nil || other.SourceSet == tick.SourceSet {
		t.Errorf("%s, %v", other.SourceSet, err)
	}
}

// TestLiarsCannotMoveThePrice: sources with less than half of the weight, whatever they say,
// do not move the price out of the range of the others; and the price does not depend on
// which of equal sources says what.
func TestLiarsCannotMoveThePrice(t *testing.T) {
	anyPrice := rapid.Uint64Range(1, uint64(oracle.MaxPrice))
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(3, 12).Draw(t, "sources")
		weights := rapid.SliceOfN(rapid.Uint32Range(1, 20), n, n).Draw(t, "weights")
		p, _ := setUp(weights...)
		p.Quorum, p.Minimum = 1, 3
		total, lying := uint64(0), uint64(0)
		for _, w := range weights {
			total += uint64(w)
		}
		low, high := oracle.MaxPrice, oracle.Price(0)
		prices := make([]oracle.Price, n)
		for i, w := range weights {
			prices[i] = oracle.Price(rapid.Uint64Range(1_000_000, 1_010_000).Draw(t, "honest"))
			if rapid.Bool().Draw(t, "lies") && 2*(lying+uint64(w)) < total {
				lying += uint64(w)
				prices[i] = oracle.Price(anyPrice.Draw(t, "lie"))
				continue
			}
			low, high = min(low, prices[i]), max(high, prices[i])
		}
		tick, err := oracle.Recompute(p, roundOf(p, 1, began, prices...))
		if err != nil || tick.Price < low || tick.Price > high {
			t.Fatalf("%d of %v, honest are %d to %d, %v", tick.Price, prices, low, high, err)
		}
		for i, price := range prices {
			if d := max(price, tick.Price) - min(price, tick.Price); d > tick.Confidence {
				t.Fatalf("source %d is %d away, the confidence is %d", i, d, tick.Confidence)
			}
		}
		slices.Reverse(prices)
		slices.Reverse(p.Feeds[0].Sources)
		if again, err := oracle.Recompute(p, roundOf(p, 1, began, prices...)); err != nil || again.Price != tick.Price || again.Confidence != tick.Confidence {
			t.Fatalf("reversed: %d, not %d, %v", again.Price, tick.Price, err)
		}
	})
}

// TestMoreLiarsAreTold: beyond what is tolerated liars can move the price, but not
// without the tick telling that sources disagree, as long as enough honest ones are there.
func TestMoreLiarsAreTold(t *testing.T) {
	moved := 0
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(4, 12).Draw(t, "sources")
		weights := rapid.SliceOfN(rapid.Uint32Range(1, 20), n, n).Draw(t, "weights")
		p, _ := setUp(weights...)
		liars := rapid.IntRange(int(p.Outliers)+1, n-int(p.Outliers)-1).Draw(t, "liars")
		prices := make([]oracle.Price, n)
		for i := range prices {
			// The tolerance is 0.5%: the honest are within it of each other, liars farther than twice it.
			prices[i] = oracle.Price(rapid.Uint64Range(1_000_000, 1_004_000).Draw(t, "honest"))
			if i < liars {
				prices[i] = oracle.Price(rapid.OneOf(rapid.Uint64Range(1, 980_000), rapid.Uint64Range(1_024_000, uint64(oracle.MaxPrice))).Draw(t, "lie"))
			}
		}
		tick, err := oracle.Recompute(p, roundOf(p, 1, began, prices...))
		if err != nil || !tick.Disagreement {
			t.Fatalf("%d of %v, %d of them lies: disagreement %t, %v", tick.Price, prices, liars, tick.Disagreement, err)
		}
		if tick.Price < 1_000_000 || tick.Price > 1_004_000 {
			moved++
		}
	})
	if moved == 0 {
		t.Error("no case in which the price was moved")
	}
}

// TestRecomputeRefuses: rounds that cannot be rounds of the oracle.
func TestRecomputeRefuses(t *testing.T) {
	for want, change := range map[string]func(*oracle.Round){
		"not in the parameters":            func(r *oracle.Round) { r.Pair = oracle.Pair{Base: "USDC", Quote: "ETH"} },
		"parameters: ":                     func(r *oracle.Round) { r.Parameters[0]++ },
		"observations: 2 of 3":             func(r *oracle.Round) { r.Observations = r.Observations[:2] },
		"observations: 4 of 3":             func(r *oracle.Round) { r.Observations = append(r.Observations, r.Observations[0]) },
		"observation 0: of source":         func(r *oracle.Round) { slices.Reverse(r.Observations) },
		"observation 1: of source":         func(r *oracle.Round) { r.Observations[1] = r.Observations[0] },
		"seq: it is 0":                     func(r *oracle.Round) { r.Seq = 0 },
		"its price is 9223372036854775808": func(r *oracle.Round) { r.Observations[1].Price = oracle.MaxPrice + 1 },
		"it is available, and its price":   func(r *oracle.Round) { r.Observations[1].Price = 0 },
		"it is timeout, and its price":     func(r *oracle.Round) { r.Observations[1].Reason = oracle.Timeout },
		"by its time it is too old":        func(r *oracle.Round) { r.Observations[1].ObservedAt -= int64(10*time.Second) + 1 },
		"by its time it is too new":        func(r *oracle.Round) { r.Observations[1].ObservedAt += int64(time.Second) + 1 },
		"by its time it is available":      func(r *oracle.Round) { r.Observations[1].Reason = oracle.TooOld },
	} {
		p, _ := setUp(1, 1, 1)
		r := roundOf(p, 1, began, 10000, 10001, 10002)
		change(r)
		if tick, err := oracle.Recompute(p, r); !errors.Is(err, oracle.ErrRound) || !strings.Contains(err.Error(), want) || tick != (oracle.PriceTick{}) {
			t.Errorf("%s: %+v, %v", want, tick, err)
		}
	}
	// The very limits count.
	p, _ := setUp(1, 1, 1)
	r := roundOf(p, 1, began, 10000, 10001, 10002)
	r.Observations[0].ObservedAt -= int64(10 * time.Second)
	r.Observations[1].ObservedAt += int64(time.Second)
	if tick, err := oracle.Recompute(p, r); err != nil || tick.SourceCount != 3 {
		t.Errorf("%+v, %v", tick, err)
	}
}
