package log

import (
	"encoding/binary"
	"testing"
)

// BenchmarkStateHash adds and removes a row of the size of a small map entry.
func BenchmarkStateHash(b *testing.B) {
	var h StateHash
	var lanes stretched
	element := make([]byte, 100)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		binary.LittleEndian.PutUint64(element, uint64(i))
		h.add(&lanes, element)
	}
}
