package snapshot

import (
	"bytes"
	"fmt"
	"io"
	"testing"

	"github.com/klauspost/reedsolomon"
	"lukechampine.com/blake3"

	"github.com/mosaik-engine/mosaik/log"
)

// What sealing costs beside the same coding and hashing by the libraries alone:
// the object whole, and each shard, in cells of the same size, on one core.

const benchBytes = 63 << 20 // whole stripes

var benchGeometries = []Geometry{{K: 2, M: 1}, {K: 3, M: 2}}

func BenchmarkEncode(b *testing.B) {
	data := random(benchBytes)
	for _, g := range benchGeometries {
		b.Run(fmt.Sprintf("%d+%d", g.K, g.M), func(b *testing.B) {
			b.SetBytes(benchBytes)
			e, err := NewEncoder(g)
			if err != nil {
				b.Fatal(err)
			}
			for range b.N {
				if _, err := e.Encode(bytes.NewReader(data), make([]io.Writer, g.Shards())); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("%d+%d/alone", g.K, g.M), func(b *testing.B) {
			b.SetBytes(benchBytes)
			alone(b, g, data, 0)
		})
	}
}

// alone codes, or decodes with so many shards lost, and hashes with the libraries
// and nothing else.
func alone(b *testing.B, g Geometry, data []byte, lost int) {
	code, err := reedsolomon.New(g.K, g.M, codeOptions...)
	if err != nil {
		b.Fatal(err)
	}
	cells := make([][]byte, g.Shards())
	for i := range cells {
		cells[i] = make([]byte, CellBytes)
	}
	for range b.N {
		whole := blake3.New(hashSize, nil)
		for rest := data; len(rest) > 0; rest = rest[min(len(rest), g.K*CellBytes):] {
			part := rest[:min(len(rest), g.K*CellBytes)]
			for i := range g.K {
				cells[i] = part[i*CellBytes : (i+1)*CellBytes]
			}
			if lost == 0 {
				err = code.Encode(cells)
			} else {
				given := append([][]byte(nil), cells...)
				for i := range lost {
					given[i] = nil
				}
				err = code.ReconstructData(given)
			}
			if err != nil {
				b.Fatal(err)
			}
			hashed := cells
			if lost > 0 {
				hashed = cells[lost:][:g.K]
			}
			for _, c := range hashed {
				log.Sum(c)
			}
			whole.Write(part)
		}
		whole.Sum(nil)
	}
}

func BenchmarkDecode(b *testing.B) {
	data := random(benchBytes)
	for _, g := range benchGeometries {
		o := code(b, g, data)
		b.Run(fmt.Sprintf("%d+%d", g.K, g.M), func(b *testing.B) {
			b.SetBytes(benchBytes)
			for range b.N {
				r, err := OpenObject(o.c, o.without(1<<g.M-1), nil)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := r.WriteTo(io.Discard); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("%d+%d/alone", g.K, g.M), func(b *testing.B) {
			b.SetBytes(benchBytes)
			alone(b, g, data, g.M)
		})
	}
}
