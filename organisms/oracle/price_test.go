package oracle_test

import (
	"errors"
	"fmt"
	"math/big"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/mosaik-engine/mosaik/organisms/oracle"
)

func TestParsePrice(t *testing.T) {
	for _, test := range []struct {
		text     string
		decimals uint8
		want     oracle.Price
	}{
		{"1", 0, 1}, {"1", 8, 1e8}, {"104312.50", 2, 10431250}, {"104312.50", 8, 1043125000000 * 10},
		{"105433.60000", 1, 1054336}, // zeros below the last decimal say nothing
		{"0.00000001", 8, 1}, {"1e-8", 8, 1}, {"1E+2", 0, 100}, {"1.05e5", 0, 105000}, {"100e-2", 0, 1}, {"0.1e1", 0, 1},
		{"9223372036854775807", 0, oracle.MaxPrice}, {"9.223372036854775807", 18, oracle.MaxPrice},
		{"1." + strings.Repeat("0", 62), 0, 1},
	} {
		if got, err := oracle.ParsePrice(test.text, test.decimals); err != nil || got != test.want {
			t.Errorf("%q, %d decimals: %d, %v, want %d", test.text, test.decimals, got, err, test.want)
		}
	}
}

func TestParsePriceRefuses(t *testing.T) {
	for text, why := range map[string]string{
		"": "no decimal number", " 1": "no decimal number", "1 ": "no decimal number", "1\n": "no decimal number", "one": "no decimal number",
		"NaN": "no decimal number", "nan": "no decimal number", "Inf": "no decimal number", "Infinity": "no decimal number", "-Inf": "no decimal number",
		"null": "no decimal number", "true": "no decimal number",
		"+1": "no decimal number", "-1": "no decimal number", "-0": "no decimal number", "01": "no decimal number", "00": "no decimal number", "00.5": "no decimal number",
		".5": "no decimal number", "5.": "no digits after its point", "1..2": "no digits after its point", "1.2.3": "no decimal number",
		"1,000": "no decimal number", "1_000": "no decimal number", "0x10": "no decimal number", "1e": "exponent", "1e+": "exponent", "1e1.5": "exponent",
		"1e--1": "exponent", "1e+-1": "exponent", "1e-+1": "exponent", "1e31": "beyond 30", "1e-31": "beyond 30", "1e999999999999999999999": "beyond 30",
		"e5": "no decimal number", "0": "is zero", "0.00": "is zero", "0e5": "is zero", "0.001": "below the last of 2", "1.234": "below the last of 2", "1e-3": "below the last of 2",
		"92233720368547758.08": "is more than", "92233720368547759": "is more than", "1e30": "is more than", "18446744073709551616": "is more than",
		strings.Repeat("1", oracle.MaxPriceText+1): "65 characters", "１": "no decimal number", "1\x00": "no decimal number",
	} {
		if got, err := oracle.ParsePrice(text, 2); !errors.Is(err, oracle.ErrPrice) || !strings.Contains(err.Error(), why) || got != 0 {
			t.Errorf("%q: %d, %v, want %q", text, got, err, why)
		}
	}
	if _, err := oracle.ParsePrice("1", oracle.MaxDecimals+1); !errors.Is(err, oracle.ErrPrice) {
		t.Error(err)
	}
}

// TestPriceIsExact: against rational numbers, a text is either its number exactly or refused.
func TestPriceIsExact(t *testing.T) {
	digits := rapid.StringMatching(`(0|[1-9][0-9]{0,19})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,2})?`)
	rapid.Check(t, func(t *rapid.T) {
		text, decimals := digits.Draw(t, "text"), rapid.Uint8Range(0, oracle.MaxDecimals).Draw(t, "decimals")
		got, err := oracle.ParsePrice(text, decimals)
		exact, ok := new(big.Rat).SetString(text)
		if !ok {
			t.Fatalf("the model does not read %q", text)
		}
		scale := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(decimals)), nil)
		units := new(big.Rat).Mul(exact, new(big.Rat).SetInt(scale))
		fits := units.IsInt() && units.Sign() > 0 && units.Num().Cmp(new(big.Int).SetUint64(uint64(oracle.MaxPrice))) <= 0
		switch {
		case err == nil && (!fits || units.Num().Uint64() != uint64(got)):
			t.Fatalf("%q, %d decimals: %d, but it is %v units", text, decimals, got, units)
		case err != nil && fits && !strings.Contains(err.Error(), "exponent beyond"):
			t.Fatalf("%q, %d decimals: %v, but it is %v units", text, decimals, err, units)
		case err == nil:
			again, err := oracle.ParsePrice(got.Format(decimals), decimals)
			if err != nil || again != got {
				t.Fatalf("%q is formatted as %s, which is %d, %v", text, got.Format(decimals), again, err)
			}
		}
	})
}

func TestFormatAndRescale(t *testing.T) {
	for _, test := range []struct {
		p        oracle.Price
		decimals uint8
		want     string
	}{{0, 0, "0"}, {0, 2, "0.00"}, {5, 2, "0.05"}, {123, 2, "1.23"}, {123, 0, "123"}, {oracle.MaxPrice, 18, "9.223372036854775807"}} {
		if got := test.p.Format(test.decimals); got != test.want {
			t.Errorf("%d: %s, want %s", test.p, got, test.want)
		}
	}
	for _, test := range []struct {
		p        oracle.Price
		from, to uint8
		want     oracle.Price // 0: refused
	}{{12, 1, 3, 1200}, {1200, 3, 1, 12}, {1201, 3, 1, 0}, {oracle.MaxPrice, 0, 1, 0}, {7, 4, 4, 7}, {oracle.MaxPrice / 10, 17, 18, oracle.MaxPrice / 10 * 10}} {
		got, err := test.p.Rescale(test.from, test.to)
		if (err != nil) != (test.want == 0) || err == nil && got != test.want || err != nil && !errors.Is(err, oracle.ErrPrice) {
			t.Errorf("%s from %d to %d decimals: %d, %v", fmt.Sprint(test.p), test.from, test.to, got, err)
		}
	}
}
