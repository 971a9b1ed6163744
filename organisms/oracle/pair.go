package oracle

import (
	"errors"
	"fmt"
	"strings"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/organisms/wire"
)

// MaxSymbol bounds a symbol, in bytes of UTF-8.
const MaxSymbol = 16

// ErrPair says that a pair cannot be. The error that wraps it names the symbol.
var ErrPair = errors.New("mosaik: bad pair")

// Pair is what a price is of: so much of the quote for one of the base.
type Pair struct {
	Base  string // such as "ETH"
	Quote string // such as "USDC"
}

// ParsePair parses the text form, base/quote. The error wraps ErrPair.
func ParsePair(text string) (Pair, error) {
	base, quote, ok := strings.Cut(text, "/")
	if !ok {
		return Pair{}, fmt.Errorf("%w: %.64q is no base/quote", ErrPair, text)
	}
	p := Pair{base, quote}
	if err := p.Validate(); err != nil {
		return Pair{}, err
	}
	return p, nil
}

// Validate checks a pair: two different names of at most MaxSymbol bytes without a slash.
// The error wraps ErrPair.
func (p Pair) Validate() error {
	for _, s := range [...]struct{ name, symbol string }{{"base", p.Base}, {"quote", p.Quote}} {
		if err := identity.ValidateName(s.symbol); err != nil {
			return fmt.Errorf("%w: %s: %w", ErrPair, s.name, err)
		}
		if len(s.symbol) > MaxSymbol {
			return fmt.Errorf("%w: %s: %q has %d bytes, the limit is %d", ErrPair, s.name, s.symbol, len(s.symbol), MaxSymbol)
		}
		if strings.Contains(s.symbol, "/") {
			return fmt.Errorf("%w: %s: %q has a slash", ErrPair, s.name, s.symbol)
		}
	}
	if p.Base == p.Quote {
		return fmt.Errorf("%w: base and quote are both %q", ErrPair, p.Base)
	}
	return nil
}

// String returns the text form.
func (p Pair) String() string { return p.Base + "/" + p.Quote }

// preimage is what ids fold of a pair. The symbols are sorted, so a pair and its inverse
// have one.
func (p Pair) preimage() string {
	return string(wire.AppendText(wire.AppendText(nil, min(p.Base, p.Quote)), max(p.Base, p.Quote)))
}

// sorted returns the pair or its inverse, whichever has the lesser base: the key under
// which both are the same.
func (p Pair) sorted() Pair { return Pair{min(p.Base, p.Quote), max(p.Base, p.Quote)} }

// The schemas fold the order, the width, the signedness and the byte order of all fields
// (docs/format/oracle.md). A change of one is another schema, so other ids of all streams.
const (
	priceTickSchemaV1 = "mosaik.oracle.price-tick.v1" +
		"|version:u8|timestamp_ms:u64le|base:utf8[16]|quote:utf8[16]|price:u64le|confidence:u64le" +
		"|source_set_digest:bytes[32]|source_count:u8|stale:bool|seq:u64le|disagreement:bool|decimals:u8" +
		"|parameters:bytes[32]|round:bytes[32]|signer:bytes[32]|signature:bytes[64]"
	roundSchemaV1 = "mosaik.oracle.round.v1" +
		"|version:u8|timestamp_ms:u64le|base:utf8[16]|quote:utf8[16]|seq:u64le|parameters:bytes[32]|observations:u8" +
		"|each(source:bytes[32]|reason:u8|price:u64le|observed_at_ns:u64le|response:bytes[32]|detail:utf8<u8>)"
)

// PriceTickSchemaV1 returns the id of the form that a PriceTick has.
func PriceTickSchemaV1() identity.ID { return identity.NewID(priceTickSchemaV1) }

// StreamID returns the id of the stream of an oracle's ticks of a pair, which is the key
// of its log: stableID.Derive(preimage of the pair).Derive(PriceTickSchemaV1). A pair and
// its inverse have one stream. In it are ticks of the pair as the oracle declares it, and
// that is what PriceTick.Pair says: whoever wants the inverse computes it.
func StreamID(stableID identity.ID, pair Pair) identity.ID {
	return stableID.Derive(pair.preimage()).DeriveID(PriceTickSchemaV1())
}

// RoundsID returns the id of the stream of the rounds that the ticks were computed from.
func RoundsID(stableID identity.ID, pair Pair) identity.ID {
	return stableID.Derive(pair.preimage()).DeriveID(identity.NewID(roundSchemaV1))
}
