package ticks

import (
	"math/rand/v2"
	"strconv"
)

// Market makes ticks up: a few pairs whose prices wander, each at its own pace,
// with spreads and sizes of the right order. It computes with integers only and
// draws nothing but the raw output of a PCG, so a seed gives the same ticks on
// every machine, and with every version of Go: a golden test holds it to that.
type Market struct {
	random  *rand.PCG
	now     int64
	pairs   []instrument
	mids    []int64 // where the price of each pair is now, as instrument.mid
	tickets uint64  // the sum of the pairs' weights
}

// instrument describes one pair. Prices are integers in units of the last of
// digits decimals.
type instrument struct {
	pair   string
	venues []string
	weight uint64 // tickets of the pair in the draw for each tick
	digits int
	mid    int64  // where the price starts, and is drawn back to
	step   uint64 // the most that one tick moves it
	spread uint64 // the least distance from bid to ask; the most is twice that
	lot    uint64 // sizes are multiples of it, in units of the last of lotDigits decimals
	lots   uint64 // the most lots in one tick

	lotDigits int
}

// instruments returns the market's pairs.
func instruments() []instrument {
	fx, metal := []string{"ebs", "lmax", "cboe"}, []string{"lmax", "comex"}
	coins := []string{"coinbase", "kraken", "bitstamp", "gemini"}
	return []instrument{
		{pair: "BTC-USD", venues: coins, weight: 25, digits: 2, mid: 10_431_250, step: 450, spread: 60, lot: 1, lots: 25_000, lotDigits: 4},
		{pair: "ETH-USD", venues: coins, weight: 20, digits: 2, mid: 331_244, step: 22, spread: 5, lot: 1, lots: 60_000, lotDigits: 3},
		{pair: "SOL-USD", venues: coins[:3], weight: 10, digits: 3, mid: 187_415, step: 30, spread: 8, lot: 5, lots: 9_000, lotDigits: 2},
		{pair: "EUR-USD", venues: fx, weight: 18, digits: 5, mid: 108_412, step: 2, spread: 3, lot: 100_000, lots: 80},
		{pair: "USD-JPY", venues: fx, weight: 12, digits: 3, mid: 151_237, step: 3, spread: 4, lot: 100_000, lots: 60},
		{pair: "GBP-USD", venues: fx[:2], weight: 8, digits: 5, mid: 126_544, step: 3, spread: 6, lot: 100_000, lots: 40},
		{pair: "XAU-USD", venues: metal, weight: 5, digits: 2, mid: 265_530, step: 8, spread: 18, lot: 1, lots: 400},
		{pair: "USD-CHF", venues: fx[:1], weight: 2, digits: 5, mid: 88_315, step: 2, spread: 7, lot: 100_000, lots: 20},
	}
}

// marketOpens is the time of the first tick, about: 2025-01-02 14:30 UTC.
const marketOpens = 1_735_828_200_000_000_000

// NewMarket returns the market of that seed.
func NewMarket(seed uint64) *Market {
	m := &Market{random: rand.NewPCG(seed, 0x6d6f7361696b), now: marketOpens, pairs: instruments()}
	for _, in := range m.pairs {
		m.mids = append(m.mids, in.mid)
		m.tickets += in.weight
	}
	return m
}

// Next returns the next tick. Times grow; some 700 ticks make a second.
func (m *Market) Next() Tick {
	// Ticks come in bursts: three gaps of four are a twentieth of the fourth.
	gap := uint64(10_000_000)
	if m.below(4) > 0 {
		gap /= 20
	}
	m.now += int64(1 + m.below(gap))

	i := m.draw()
	in := &m.pairs[i]
	// A step is the sum of two draws, so small ones are more likely. What pulls back
	// grows with the distance: the price wanders, but not away.
	m.mids[i] += int64(m.below(in.step+1)) + int64(m.below(in.step+1)) - int64(in.step)
	m.mids[i] += (in.mid - m.mids[i]) / 4096
	spread := in.spread + m.below(in.spread+1)
	bid := uint64(m.mids[i]) - spread/2
	size := in.lot * (1 + m.below(1+m.below(in.lots)))

	var buf [64]byte
	numbers := appendDecimal(buf[:0], bid, in.digits)
	toAsk := len(numbers)
	numbers = appendDecimal(numbers, bid+spread, in.digits)
	toSize := len(numbers)
	text := string(appendDecimal(numbers, size, in.lotDigits))
	return Tick{
		Time:  m.now,
		Pair:  in.pair,
		Venue: in.venues[m.below(uint64(len(in.venues)))],
		Bid:   Decimal(text[:toAsk]),
		Ask:   Decimal(text[toAsk:toSize]),
		Size:  Decimal(text[toSize:]),
	}
}

// draw returns which pair the next tick is of.
func (m *Market) draw() int {
	ticket := m.below(m.tickets)
	for i := range m.pairs {
		if ticket < m.pairs[i].weight {
			return i
		}
		ticket -= m.pairs[i].weight
	}
	return 0 // not reached: the weights sum up to m.tickets
}

// below draws a number below n, which is not 0. That small numbers are a little
// likelier, by n in 2^64, is nothing to a market.
func (m *Market) below(n uint64) uint64 { return m.random.Uint64() % n }

// appendDecimal appends units as a Decimal with that many decimals.
func appendDecimal(dst []byte, units uint64, decimals int) []byte {
	start := len(dst)
	dst = strconv.AppendUint(dst, units, 10)
	if decimals == 0 {
		return dst
	}
	// A digit at least stands before the point.
	for len(dst)-start <= decimals {
		dst = append(dst, 0)
		copy(dst[start+1:], dst[start:])
		dst[start] = '0'
	}
	dst = append(dst, 0)
	point := len(dst) - 1 - decimals
	copy(dst[point+1:], dst[point:])
	dst[point] = '.'
	return dst
}
