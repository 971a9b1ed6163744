//go:build canary

package fuzz

import (
	"encoding/binary"
	"errors"
	"testing"

	"github.com/mosaik-engine/mosaik/log"
)

var errCanary = errors.New("cut short")

// canaryRecord decodes the record at the start of b, like the decoder of package
// log but for one mistake: it takes a length of several bytes at its word.
func canaryRecord(b []byte) (payload, rest []byte, err error) {
	size, n := binary.Uvarint(b)
	switch {
	case n <= 0:
		return nil, nil, errCanary
	case n == 1 && size > uint64(len(b)-n): // the mistake: it holds for every n
		return nil, nil, errCanary
	}
	return b[n : n+int(size)], b[n+int(size):], nil
}

// FuzzCanary must fail: a fuzzer that does not find this finds nothing. Its seeds
// are good records, so the length that is wrong has to be made up.
func FuzzCanary(f *testing.F) {
	f.Add(log.AppendRecord(nil, []byte("6.0842")))
	f.Add(log.AppendRecord(log.AppendRecord(nil, nil), make([]byte, 200)))
	f.Fuzz(func(t *testing.T, b []byte) {
		for len(b) > 0 {
			_, rest, err := canaryRecord(b)
			if err != nil {
				return
			}
			b = rest
		}
	})
}
