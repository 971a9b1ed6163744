package tdx

import (
	"encoding/hex"
	"errors"
	"fmt"
)

// MeasurementSize is the number of bytes in a [Measurement]: one SHA-384.
const MeasurementSize = 48

// ErrMeasurement reports a text that is not a measurement.
var ErrMeasurement = errors.New("tdx: invalid measurement")

// Measurement is the value of one measurement register: a SHA-384 digest.
type Measurement [MeasurementSize]byte

// ParseMeasurement decodes 96 hex digits of either case, as the Rust runtime
// does. Any other text is an error that wraps [ErrMeasurement].
func ParseMeasurement(text string) (Measurement, error) {
	var m Measurement
	if len(text) != 2*MeasurementSize {
		return m, fmt.Errorf("%w: %d characters, want %d hex digits", ErrMeasurement, len(text), 2*MeasurementSize)
	}
	if _, err := hex.Decode(m[:], []byte(text)); err != nil {
		return Measurement{}, fmt.Errorf("%w: %w", ErrMeasurement, err)
	}
	return m, nil
}

// String returns 96 lower-case hex digits.
func (m Measurement) String() string { return hex.EncodeToString(m[:]) }

// MarshalText returns the text form. The error is always nil.
func (m Measurement) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, m[:]), nil }

// UnmarshalText sets m as [ParseMeasurement] does; on an error m keeps its value.
func (m *Measurement) UnmarshalText(text []byte) error {
	parsed, err := ParseMeasurement(string(text))
	if err == nil {
		*m = parsed
	}
	return err
}

// IsZero reports whether all bytes are zero, which is what a register holds that
// nothing was measured into.
func (m Measurement) IsZero() bool { return m == Measurement{} }

// Measurements are the registers of a TD that a policy may name: MRTD (its image
// at start), RTMR (what it measured into the four run-time registers), and the
// three values that its owner chose at launch.
type Measurements struct {
	// The registers by their names in Intel's TDX module specification.
	MRTD          Measurement
	RTMR          [4]Measurement
	MRConfigID    Measurement
	MROwner       Measurement
	MROwnerConfig Measurement
}
