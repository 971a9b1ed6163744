package payload_test

import (
	"bytes"
	"compress/flate"
	"errors"
	"testing"

	"github.com/mosaik-engine/mosaik/bench/peers/payload"
)

func TestFillIsAFunctionOfTheSequence(t *testing.T) {
	for _, size := range []int{16, 24, 128, 1024} {
		a, b := make([]byte, size), bytes.Repeat([]byte{0xff}, size)
		for seq := range uint64(500) {
			payload.Fill(a, seq)
			payload.Fill(b, seq)
			if !bytes.Equal(a, b) {
				t.Fatalf("size %d: sequence %d gave two different records", size, seq)
			}
			got, err := payload.Check(a)
			if err != nil || got != seq {
				t.Fatalf("size %d: Check = %d, %v, want %d", size, got, err, seq)
			}
		}
	}
}

func TestCheckSeesEveryBit(t *testing.T) {
	b := make([]byte, 128)
	for bit := range len(b) * 8 {
		payload.Fill(b, 7)
		b[bit/8] ^= 1 << (bit % 8)
		if _, err := payload.Check(b); !errors.Is(err, payload.ErrCorrupt) {
			t.Fatalf("bit %d flipped: error %v", bit, err)
		}
	}
	payload.Fill(b, 7)
	for _, size := range []int{0, 8, 15, 127} {
		if _, err := payload.Check(b[:size]); !errors.Is(err, payload.ErrCorrupt) {
			t.Fatalf("cut to %d bytes: error %v", size, err)
		}
	}
}

// A compressor may find the sequence counter and nothing more.
func TestRecordsDoNotCompress(t *testing.T) {
	const size, count = 128, 4096
	var packed bytes.Buffer
	w, err := flate.NewWriter(&packed, flate.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, size)
	for seq := range uint64(count) {
		payload.Fill(b, seq)
		if _, err := w.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if least := size * count * 93 / 100; packed.Len() < least {
		t.Fatalf("%d bytes packed into %d, expected at least %d", size*count, packed.Len(), least)
	}
}
