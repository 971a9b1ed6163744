package etcdpeer

import (
	"slices"
	"testing"
)

func TestKeysHaveSixteenBytes(t *testing.T) {
	for _, number := range []uint64{0, keySpace - 1} {
		if k := key("txn16/", number); len(k) != 16 {
			t.Errorf("key %q has %d bytes", k, len(k))
		}
	}
}

// A transaction that puts one key twice would be refused.
func TestUnusedIsUnused(t *testing.T) {
	used := []uint64{keySpace - 1, 1, 0, 7}
	for number, want := range map[uint64]uint64{3: 3, 7: 8, 0: 2, keySpace - 1: 2} {
		if got := unused(number, used); got != want || slices.Contains(used, got) {
			t.Errorf("unused(%d) = %d, want %d", number, got, want)
		}
	}
}

// The draws are spread over the whole key space: a tenth of it gets about a tenth of them.
func TestDrawnIsUniform(t *testing.T) {
	var tenths [10]int
	for seq := range uint64(10_000) {
		tenths[drawn(seq)*10/keySpace]++
	}
	for i, n := range tenths {
		if n < 850 || n > 1150 {
			t.Errorf("tenth %d of the keys was drawn %d times of 10,000", i, n)
		}
	}
}
