package identity

import (
	"errors"
	"fmt"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// MaxName is the largest number of bytes in a name.
const MaxName = 255

// ErrName reports a name that [ValidateName] refuses.
var ErrName = errors.New("mosaik: invalid name")

// ValidateName reports whether s may name something: it is not empty, at most
// [MaxName] bytes, valid UTF-8 in normalisation form C, and free of control
// characters. A name that fails is refused and never repaired: repairing it
// would give the name an ID that its author did not compute. The error wraps
// [ErrName] and says what to change.
func ValidateName(s string) error {
	switch {
	case s == "":
		return fmt.Errorf("%w: it is empty", ErrName)
	case len(s) > MaxName:
		return fmt.Errorf("%w: %d bytes, at most %d are allowed", ErrName, len(s), MaxName)
	case !utf8.ValidString(s):
		return fmt.Errorf("%w: %q is not UTF-8", ErrName, s)
	}
	for i, r := range s {
		if unicode.IsControl(r) {
			return fmt.Errorf("%w: %q holds the control character %U at byte %d", ErrName, s, r, i)
		}
	}
	if !norm.NFC.IsNormalString(s) {
		return fmt.Errorf("%w: %+q is not in normalisation form C; its normal form is %+q", ErrName, s, norm.NFC.String(s))
	}
	return nil
}
