package ticks

import (
	"errors"
	"strconv"
)

// Tick is what one venue said about one pair at one moment. It is stored with
// the names of the CSV columns.
type Tick struct {
	Time  int64   `cbor:"time_ns" json:"time_ns"` // Unix nanoseconds, not negative
	Pair  string  `cbor:"pair" json:"pair"`
	Venue string  `cbor:"venue" json:"venue"`
	Bid   Decimal `cbor:"bid" json:"bid"`                       // equal to Ask for trades and bar closes
	Ask   Decimal `cbor:"ask" json:"ask"`                       // not checked against Bid: crossed markets exist
	Size  Decimal `cbor:"size,omitempty" json:"size,omitempty"` // empty where the venue gave none
}

// AppendTo appends the tick as a line of CSV, with its newline.
func (t *Tick) AppendTo(dst []byte) []byte {
	dst = strconv.AppendInt(dst, t.Time, 10)
	for _, field := range [...]string{t.Pair, t.Venue, string(t.Bid), string(t.Ask), string(t.Size)} {
		dst = append(dst, ',')
		dst = append(dst, field...)
	}
	return append(dst, '\n')
}

// Decimal is an exact decimal number as text: an optional minus, digits without
// needless zeros in front, and optionally a point and more digits. Trailing zeros
// stay, because they say how precise the venue is.
type Decimal string

// Limits of a tick's fields in bytes.
const (
	MaxName    = 32 // of a pair or a venue
	MaxDecimal = 40
)

var (
	errTime    = errors.New("is not a whole number of nanoseconds since 1970")
	errName    = errors.New("is not a name of 1 to 32 letters, digits and -._/:+")
	errDecimal = errors.New("is not a decimal number such as 104312.50")
	errLong    = errors.New("has more than 40 characters")
	errSign    = errors.New("is negative")
)

// parseTime parses the one way to write a time that AppendTo writes too.
func parseTime(b []byte) (int64, error) {
	if !wholeDigits(b) {
		return 0, errTime
	}
	n, err := strconv.ParseInt(string(b), 10, 64)
	if err != nil {
		return 0, errTime
	}
	return n, nil
}

func checkName(b []byte) error {
	if len(b) == 0 || len(b) > MaxName {
		return errName
	}
	for _, c := range b {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case c == '-', c == '.', c == '_', c == '/', c == ':', c == '+':
		default:
			return errName
		}
	}
	return nil
}

// checkPrice accepts any Decimal. Prices below zero are real: oil in 2020.
func checkPrice(b []byte) error {
	if len(b) > MaxDecimal {
		return errLong
	}
	if len(b) > 0 && b[0] == '-' {
		b = b[1:]
	}
	whole := b
	for i, c := range b {
		if c != '.' {
			continue
		}
		whole = b[:i]
		if !digits(b[i+1:]) {
			return errDecimal
		}
		break
	}
	if !wholeDigits(whole) {
		return errDecimal
	}
	return nil
}

// checkSize accepts a Decimal that is not negative, or nothing.
func checkSize(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	if err := checkPrice(b); err != nil {
		return err
	}
	if b[0] == '-' {
		return errSign
	}
	return nil
}

// digits reports whether b is one digit or more.
func digits(b []byte) bool {
	for _, c := range b {
		if c < '0' || c > '9' {
			return false
		}
	}
	return len(b) > 0
}

// wholeDigits reports whether b is a whole number without needless zeros.
func wholeDigits(b []byte) bool {
	return digits(b) && (b[0] != '0' || len(b) == 1)
}
