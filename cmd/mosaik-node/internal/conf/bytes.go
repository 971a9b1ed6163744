package conf

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Bytes is a flag value for a size: a number of bytes, or a number with one of
// the units KiB, MiB, GiB, TiB.
type Bytes int64

// units from the largest to the smallest, as String tries them.
var units = [...]struct {
	name  string
	shift int
}{{"TiB", 40}, {"GiB", 30}, {"MiB", 20}, {"KiB", 10}}

// String gives the size in the largest unit that it is a whole multiple of.
func (b *Bytes) String() string {
	for _, u := range units {
		if *b != 0 && *b%(1<<u.shift) == 0 {
			return strconv.FormatInt(int64(*b>>u.shift), 10) + u.name
		}
	}
	return strconv.FormatInt(int64(*b), 10)
}

// Set parses a size.
func (b *Bytes) Set(s string) error {
	number, shift := s, 0
	for _, u := range units {
		if rest, ok := strings.CutSuffix(s, u.name); ok {
			number, shift = strings.TrimSpace(rest), u.shift
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64>>shift {
		return fmt.Errorf("%q is not a size, such as 1048576, 512KiB or 64MiB", s)
	}
	*b = Bytes(n << shift)
	return nil
}

// Type is what the help calls a value.
func (b *Bytes) Type() string { return "bytes" }
