package oracle

import (
	"errors"
	"fmt"
	"math/bits"
	"strconv"
	"strings"
)

// Limits of a price.
const (
	// MaxDecimals bounds the decimals of an oracle's prices.
	MaxDecimals = 18
	// MaxPrice is the largest price, 2^63-1 units: programs whose integers are signed can
	// read it, and the sum of two does not overflow.
	MaxPrice Price = 1<<63 - 1
	// MaxPriceText bounds a price as text, in bytes.
	MaxPriceText = 64
	// MaxExponent bounds the exponent of a price as text, in either direction.
	MaxExponent = 30
)

// ErrPrice says that a text is no price, or none that fits. The error that wraps it says
// why.
var ErrPrice = errors.New("mosaik: bad price")

// Price is how much of the quote one of the base costs, or the distance of two such
// prices, as a whole number of units of 10^-decimals. The decimals are declared once for
// an oracle (Parameters.Decimals) and stand in every tick. There is no rounding on the way
// in: a text that is no whole number of units is refused.
type Price uint64

// ParsePrice parses a decimal number as JSON writes one that is not negative: digits
// without a needless zero in front, a point with digits on both sides, an exponent. All
// else is refused with ErrPrice: signs, spaces, separators, NaN, Inf, hexadecimal digits,
// exponents beyond MaxExponent, digits below the last decimal that are not zero, numbers
// above MaxPrice, and zero, which is what a feed says that has no price.
func ParsePrice(text string, decimals uint8) (Price, error) {
	bad := func(format string, args ...any) (Price, error) {
		return 0, fmt.Errorf("%w: %.64q "+format, append([]any{ErrPrice, text}, args...)...)
	}
	switch {
	case decimals > MaxDecimals:
		return 0, fmt.Errorf("%w: %d decimals, the limit is %d", ErrPrice, decimals, MaxDecimals)
	case len(text) > MaxPriceText:
		return bad("has %d characters, the limit is %d", len(text), MaxPriceText)
	}
	whole, rest := cutDigits(text)
	fraction, exponent := "", 0
	if after, ok := strings.CutPrefix(rest, "."); ok {
		if fraction, rest = cutDigits(after); fraction == "" {
			return bad("has no digits after its point")
		}
	}
	if rest != "" && (rest[0] == 'e' || rest[0] == 'E') {
		var err error
		if exponent, err = parseExponent(rest[1:]); err != nil {
			return bad("%w", err)
		}
		rest = ""
	}
	if whole == "" || rest != "" || len(whole) > 1 && whole[0] == '0' {
		return bad("is no decimal number such as 1234.50")
	}
	// The number is digits * 10^shift units.
	digits := whole + fraction
	shift := int(decimals) + exponent - len(fraction)
	significant := strings.TrimRight(digits, "0")
	shift += len(digits) - len(significant)
	switch {
	case significant == "":
		return bad("is zero; a price is not")
	case shift < 0:
		return bad("has digits below the last of %d decimals", decimals)
	}
	var p uint64
	for i := range len(significant) + shift {
		digit := uint64(0)
		if i < len(significant) {
			digit = uint64(significant[i] - '0')
		}
		if p > (uint64(MaxPrice)-digit)/10 {
			return bad("is more than %s", MaxPrice.Format(decimals))
		}
		p = p*10 + digit
	}
	return Price(p), nil
}

// cutDigits cuts text behind its leading digits.
func cutDigits(text string) (digits, rest string) {
	i := 0
	for i < len(text) && '0' <= text[i] && text[i] <= '9' {
		i++
	}
	return text[:i], text[i:]
}

// parseExponent parses what follows the letter.
func parseExponent(text string) (int, error) {
	negative := strings.HasPrefix(text, "-")
	digits, rest := cutDigits(strings.TrimPrefix(strings.TrimPrefix(text, "-"), "+"))
	if signs := len(text) - len(digits) - len(rest); digits == "" || rest != "" || signs > 1 {
		return 0, errors.New("has no whole number as its exponent")
	}
	n, err := strconv.Atoi(digits)
	if err != nil || n > MaxExponent {
		return 0, fmt.Errorf("has an exponent beyond %d", MaxExponent)
	}
	if negative {
		n = -n
	}
	return n, nil
}

// Format returns the price as text with all of its decimals, of which there are at most
// MaxDecimals. ParsePrice gives the price back, unless it is zero.
func (p Price) Format(decimals uint8) string {
	digits := strconv.FormatUint(uint64(p), 10)
	if decimals == 0 {
		return digits
	}
	if missing := int(decimals) + 1 - len(digits); missing > 0 {
		digits = strings.Repeat("0", missing) + digits
	}
	point := len(digits) - int(decimals)
	return digits[:point] + "." + digits[point:]
}

// Distance returns |p-q|.
func (p Price) Distance(q Price) Price { return max(p, q) - min(p, q) }

// Rescale returns a price of from decimals as one of to decimals. It is refused with
// ErrPrice if it would have to be rounded or is more than MaxPrice.
func (p Price) Rescale(from, to uint8) (Price, error) {
	for ; from < to; from++ {
		if p > MaxPrice/10 {
			return 0, fmt.Errorf("%w: with %d decimals it is more than %s", ErrPrice, to, MaxPrice.Format(to))
		}
		p *= 10
	}
	for ; from > to; from-- {
		if p%10 != 0 {
			return 0, fmt.Errorf("%w: it has digits below the last of %d decimals", ErrPrice, to)
		}
		p /= 10
	}
	return p, nil
}

// millionths is what Parameters.Tolerance counts in.
const millionths = 1_000_000

// deviates reports whether q is farther from p than tolerance millionths of p. The
// products have 128 bits, so neither overflows.
func (p Price) deviates(q Price, tolerance uint32) bool {
	distHi, distLo := bits.Mul64(uint64(p.Distance(q)), millionths)
	boundHi, boundLo := bits.Mul64(uint64(p), uint64(tolerance))
	return distHi > boundHi || distHi == boundHi && distLo > boundLo
}
