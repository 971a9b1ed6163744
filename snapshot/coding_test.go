package snapshot

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"math/rand/v2"
	"testing"

	"github.com/mosaik-engine/mosaik/log"
)

// coded is an object with all its shards.
type coded struct {
	data   []byte
	c      Coding
	shards [][]byte
}

func code(t testing.TB, g Geometry, data []byte) coded {
	t.Helper()
	e, err := NewEncoder(g)
	if err != nil {
		t.Fatal(err)
	}
	buffers := make([]bytes.Buffer, g.Shards())
	writers := make([]io.Writer, g.Shards())
	for i := range buffers {
		writers[i] = &buffers[i]
	}
	c, err := e.Encode(bytes.NewReader(data), writers)
	if err != nil {
		t.Fatal(err)
	}
	o := coded{data: data, c: c}
	for i := range buffers {
		if int64(buffers[i].Len()) != c.ShardSize() {
			t.Fatalf("shard %d has %d bytes, not %d", i, buffers[i].Len(), c.ShardSize())
		}
		o.shards = append(o.shards, buffers[i].Bytes())
	}
	return o
}

// without returns readers of the shards that are not in the set lost.
func (o *coded) without(lost uint) []io.ReaderAt {
	readers := make([]io.ReaderAt, len(o.shards))
	for i, s := range o.shards {
		if lost>>i&1 == 0 {
			readers[i] = bytes.NewReader(s)
		}
	}
	return readers
}

func random(n int) []byte {
	b := make([]byte, n)
	rng := rand.New(rand.NewPCG(uint64(n), 7))
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

// TestEverySubset loses every set of shards: up to M of them nothing is lost, and
// each can be built anew; from M+1 on the error says so.
func TestEverySubset(t *testing.T) {
	for members := 1; members <= 7; members++ {
		g := GeometryFor(members)
		if g.Shards() != members {
			t.Fatalf("%d members: %+v", members, g)
		}
		stripe := g.K * CellBytes
		for _, size := range []int{0, 1, 63, 64*g.K + 1, stripe - 1, stripe, stripe + 1, 2*stripe + 12345} {
			o := code(t, g, random(size))
			for lost := range uint(1) << members {
				r, err := OpenObject(o.c, o.without(lost), func(e *ShardError) { t.Errorf("a good shard is bad: %v", e) })
				if err != nil {
					t.Fatal(err)
				}
				var got bytes.Buffer
				_, err = r.WriteTo(&got)
				if bits.OnesCount(lost) > g.M && size > 0 {
					if !errors.Is(err, ErrShards) {
						t.Fatalf("%+v, %d bytes, lost %b: %v", g, size, lost, err)
					}
					continue
				}
				if err != nil || !bytes.Equal(got.Bytes(), o.data) {
					t.Fatalf("%+v, %d bytes, lost %b: %d bytes, %v", g, size, lost, got.Len(), err)
				}
				for i := range members {
					if lost>>i&1 == 0 {
						continue
					}
					var anew bytes.Buffer
					if err := r.Rebuild(i, &anew); err != nil || !bytes.Equal(anew.Bytes(), o.shards[i]) {
						t.Fatalf("%+v, %d bytes, lost %b: shard %d built anew: %v", g, size, lost, i, err)
					}
				}
			}
		}
	}
}

// TestBadShards damages shards in every way: it is found, named, and made good
// from the others; never is a wrong byte returned.
func TestBadShards(t *testing.T) {
	g := Geometry{K: 2, M: 1}
	o := code(t, g, random(3*g.K*CellBytes+1000))
	other := code(t, g, random(3*g.K*CellBytes+1001))
	rng := rand.New(rand.NewPCG(1, 1))
	damages := []struct {
		name string
		do   func(shard []byte, i int) []byte
	}{
		{"a flipped bit", func(b []byte, _ int) []byte { b[rng.IntN(len(b))] ^= 1 << rng.IntN(8); return b }},
		{"truncated", func(b []byte, _ int) []byte { return b[:rng.IntN(len(b))] }},
		{"empty", func([]byte, int) []byte { return nil }},
		{"zeros", func(b []byte, _ int) []byte { clear(b); return b }},
		{"of another object", func(_ []byte, i int) []byte { return other.shards[i] }},
		{"another shard", func(_ []byte, i int) []byte { return o.shards[(i+1)%3] }},
		{"two cells swapped", func(b []byte, _ int) []byte {
			c := bytes.Clone(b[:CellBytes])
			copy(b, b[CellBytes:2*CellBytes])
			copy(b[CellBytes:], c)
			return b
		}},
		{"a cell repeated", func(b []byte, _ int) []byte { copy(b[CellBytes:], b[:CellBytes]); return b }},
	}
	for _, d := range damages {
		for round := range 20 {
			at := rng.IntN(3)
			shards := o.without(0)
			shards[at] = bytes.NewReader(d.do(bytes.Clone(o.shards[at]), at))
			blamed := map[int]bool{}
			r, err := OpenObject(o.c, shards, func(e *ShardError) { blamed[e.Shard] = true })
			if err != nil {
				t.Fatal(err)
			}
			var got bytes.Buffer
			if _, err := r.WriteTo(&got); err != nil || !bytes.Equal(got.Bytes(), o.data) {
				t.Fatalf("%s, shard %d: %v", d.name, at, err)
			}
			if blamed[(at+1)%3] || blamed[(at+2)%3] {
				t.Fatalf("%s, shard %d: blamed are %v", d.name, at, blamed)
			}
			if err := r.Check(at); err == nil {
				t.Fatalf("%s, shard %d, round %d: not found", d.name, at, round)
			}
			if !blamed[at] {
				t.Fatalf("%s: nobody is blamed", d.name)
			}
			var anew bytes.Buffer
			if err := r.Rebuild(at, &anew); err != nil || !bytes.Equal(anew.Bytes(), o.shards[at]) {
				t.Fatalf("%s: built anew: %v", d.name, err)
			}
			// With another one gone there is too little of some stripe, or what is
			// returned is right all the same.
			shards[(at+1)%3] = nil
			if r, err = OpenObject(o.c, shards, nil); err != nil {
				t.Fatal(err)
			}
			got.Reset()
			if _, err := r.WriteTo(&got); err == nil || !errors.Is(err, ErrShards) || !bytes.HasPrefix(o.data, got.Bytes()) {
				t.Fatalf("%s, and one gone: %v", d.name, err)
			}
		}
	}
}

// TestRotInDifferentStripes: shards that are damaged in different places restore
// the object together, although none of them is whole.
func TestRotInDifferentStripes(t *testing.T) {
	g := Geometry{K: 2, M: 1}
	o := code(t, g, random(3*g.K*CellBytes))
	for i := range o.shards {
		o.shards[i][i*CellBytes+5] ^= 1
	}
	r, err := OpenObject(o.c, o.without(0), nil)
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	if _, err := r.WriteTo(&got); err != nil || !bytes.Equal(got.Bytes(), o.data) {
		t.Fatal(err)
	}
}

// TestLyingCoding: a coding whose shards hash to their roots and whose object does
// not is found at the end.
func TestLyingCoding(t *testing.T) {
	o := code(t, Geometry{K: 2, M: 1}, random(1000))
	o.c.Hash[0] ^= 1
	r, err := OpenObject(o.c, o.without(0), nil)
	if err != nil {
		t.Fatal(err)
	}
	var corrupt *log.CorruptionError
	if _, err := r.WriteTo(io.Discard); !errors.As(err, &corrupt) {
		t.Fatalf("%v", err)
	}
}

func TestCodingDecode(t *testing.T) {
	for members := 1; members < 6; members++ {
		o := code(t, GeometryFor(members), random(1000*members))
		b := o.c.appendTo(nil)
		c, rest, err := decodeCoding(append(bytes.Clone(b), 7))
		if err != nil || fmt.Sprint(c) != fmt.Sprint(o.c) || len(rest) != 1 {
			t.Fatalf("%+v, %d left, %v", c, len(rest), err)
		}
		for i := range b {
			if _, _, err := decodeCoding(b[:i]); err == nil {
				t.Fatalf("%d bytes of %d are taken", i, len(b))
			}
		}
	}
}
