package fuzz

import (
	"strings"
	"testing"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

// scene is a small run that went well: three appends to key 0, one to key 1,
// one that was given up and landed, one that was given up and did not, one that
// was refused, and two reads.
func scene() (*history, *agreement) {
	v := func(n uint64) value { return value{number: n, size: valueSize} }
	digest := func(n uint64) log.Digest { return log.Sum([]byte{byte(n)}) }
	keys := keysNamed(2)
	pointer := func(key int, seq, commit uint64) log.Pointer {
		return log.Pointer{Group: identity.NewID("g"), Commit: commit, Digest: digest(commit), Key: keys[key], Seq: seq}
	}
	h := newHistory()
	for _, k := range []call{
		{client: 0, life: 1, key: 0, order: 1, start: 1, end: 4, values: []value{v(1)}, outcome: acked, pointer: pointer(0, 1, 1)},
		{client: 1, life: 2, key: 0, order: 1, start: 5, end: 8, values: []value{v(2), v(3)}, outcome: acked, pointer: pointer(0, 2, 2)},
		{client: 2, key: 0, start: 9, end: 10, length: 3, last: v(3)},
		{client: 0, life: 1, key: 0, order: 2, start: 11, end: 12, values: []value{v(4)}, outcome: unknown},
		{client: 0, life: 1, key: 0, order: 3, start: 13, end: 14, values: []value{v(5), v(6)}, outcome: unknown},
		{client: 1, life: 2, key: 0, order: 2, start: 15, end: 16, values: []value{v(7)}, outcome: refused},
		{client: 1, life: 2, key: 0, order: 3, start: 17, end: 18, values: []value{v(8)}, outcome: acked, pointer: pointer(0, 5, 4)},
		{client: 1, life: 2, key: 1, order: 4, start: 19, end: 20, values: []value{v(9)}, outcome: acked, pointer: pointer(1, 1, 4)},
		{client: 2, key: 0, start: 21, end: 22, length: 5, last: v(8)},
	} {
		h.done(k)
	}
	a := &agreement{
		commits: []log.Digest{digest(1), digest(2), digest(3), digest(4)},
		records: map[place]found{
			{0, 1}: {v(1), 1}, {0, 2}: {v(2), 2}, {0, 3}: {v(3), 2},
			{0, 4}: {v(4), 3}, {0, 5}: {v(8), 4}, {1, 1}: {v(9), 4},
		},
		length: []uint64{5, 1},
	}
	h.sawRecord(0, place{0, 2}, v(2))
	h.sawCommit(1, 3, digest(3))
	return h, a
}

// TestJudge shows the judge one thing that must not be at a time.
func TestJudge(t *testing.T) {
	h, a := scene()
	if err := h.judge(a); err != nil {
		t.Fatalf("of a run that went well: %v", err)
	}
	for _, c := range []struct {
		name, want string
		wrong      func(h *history, a *agreement)
	}{
		{"an acknowledged record is lost", "acknowledged, but not in the log", func(h *history, a *agreement) {
			delete(a.records, place{1, 1})
		}},
		{"a record stands twice", "in the log twice", func(h *history, a *agreement) {
			a.records[place{1, 2}] = found{value{1, valueSize}, 4}
		}},
		{"a record that nobody appended", "were appended", func(h *history, a *agreement) {
			a.records[place{1, 2}] = found{value{99, valueSize}, 4}
		}},
		{"half of an append", "some of its records", func(h *history, a *agreement) {
			a.records[place{1, 2}] = found{value{5, valueSize}, 4}
		}},
		{"an append in two commits", "is not the record 1", func(h *history, a *agreement) {
			r := a.records[place{0, 3}]
			r.commit = 3
			a.records[place{0, 3}] = r
		}},
		{"a refused append is there", "refused, but in the log", func(h *history, a *agreement) {
			a.records[place{0, 6}] = found{value{7, valueSize}, 4}
		}},
		{"an append under another key", "under its key", func(h *history, a *agreement) {
			delete(a.records, place{0, 4})
			a.records[place{1, 2}] = found{value{4, valueSize}, 3}
		}},
		{"another seq was acknowledged", "acknowledged as", func(h *history, a *agreement) { h.mu.calls[0].pointer.Seq = 2 }},
		{"another commit was acknowledged", "acknowledged as", func(h *history, a *agreement) { h.mu.calls[0].pointer.Commit = 2 }},
		{"another digest was acknowledged", "acknowledged as", func(h *history, a *agreement) { h.mu.calls[0].pointer.Digest[0] ^= 1 }},
		{"a shown record is taken back", "was shown as", func(h *history, a *agreement) {
			h.sawRecord(0, place{0, 6}, value{4, valueSize})
		}},
		{"a shown record is another", "was shown as", func(h *history, a *agreement) {
			h.sawRecord(0, place{0, 3}, value{4, valueSize})
		}},
		{"two records were shown in one place", "then by node", func(h *history, a *agreement) {
			h.sawRecord(0, place{0, 2}, value{1, valueSize})
		}},
		{"a shown commit is another", "is not in the log", func(h *history, a *agreement) { h.sawCommit(0, 2, log.Digest{1}) }},
		{"a shown commit is taken back", "is not in the log", func(h *history, a *agreement) { h.sawCommit(0, 5, log.Digest{1}) }},
		{"two commits were shown as one", "then by node", func(h *history, a *agreement) { h.sawCommit(0, 3, log.Digest{1}) }},
		{"a client overtakes itself", "which joined before", func(h *history, a *agreement) {
			h.mu.calls[1].order, h.mu.calls[6].order = 3, 1
		}},
		{"a read misses what was acknowledged", "not linearizable", func(h *history, a *agreement) {
			h.mu.calls[2].length, h.mu.calls[2].last = 1, value{1, valueSize}
		}},
		{"a read sees the future", "not linearizable", func(h *history, a *agreement) {
			h.mu.calls[2].length, h.mu.calls[2].last = 4, value{4, valueSize}
		}},
		{"a read sees another last record", "not linearizable", func(h *history, a *agreement) { h.mu.calls[8].last.number = 7 }},
		{"an append takes effect before it is called", "not linearizable", func(h *history, a *agreement) {
			h.mu.calls[6].start, h.mu.calls[6].end = 23, 24
			h.mu.calls[8].length, h.mu.calls[8].last = 5, value{8, valueSize}
		}},
		{"acknowledged in another order than called", "not linearizable", func(h *history, a *agreement) {
			h.mu.calls[1].start, h.mu.calls[1].end = -5, -4
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, a := scene()
			c.wrong(h, a)
			if err := h.judge(a); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("the judge says: %v", err)
			}
		})
	}
}

// TestValue: a payload tells its value, and nothing else does.
func TestValue(t *testing.T) {
	for size := valueSize; size < 300; size += 7 {
		v := value{number: uint64(size) << 30, size: size}
		payload := v.payload()
		if back, err := valueOf(payload); err != nil || back != v || len(payload) != size {
			t.Fatalf("%v comes back as %v, %v", v, back, err)
		}
		for i := valueSize; i < size; i++ {
			payload[i]++
			if _, err := valueOf(payload); err == nil {
				t.Fatalf("%v: byte %d changed", v, i)
			}
			payload[i]--
		}
	}
	if _, err := valueOf(make([]byte, valueSize-1)); err == nil {
		t.Error("a short payload passes")
	}
}
