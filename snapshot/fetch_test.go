package snapshot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

// neighbours are the members of a group that have one object. Each answers as
// its own func says.
type neighbours struct {
	o       coded
	members []identity.PeerID
	answer  []func(ctx context.Context, r Request) ([]byte, error) // nil: honest, and makes every shard

	mu   sync.Mutex
	sent []int
}

func newNeighbours(t testing.TB, g Geometry, size int) *neighbours {
	n := &neighbours{o: code(t, g, random(size)), answer: make([]func(context.Context, Request) ([]byte, error), g.Shards()), sent: make([]int, g.Shards())}
	for i := range g.Shards() {
		n.members = append(n.members, identity.PeerID{byte(i + 1)})
	}
	return n
}

func (n *neighbours) honest(r Request) ([]byte, error) {
	return r.Answer(&n.o.c, bytes.NewReader(n.o.shards[r.Shard]))
}

func (n *neighbours) Fetch(ctx context.Context, peer identity.PeerID, r Request) ([]byte, error) {
	i := int(peer[0]) - 1
	answer := n.answer[i]
	if answer == nil {
		answer = func(_ context.Context, r Request) ([]byte, error) { return n.honest(r) }
	}
	select {
	case <-time.After(time.Millisecond): // on a fake clock, so that all are asked
	case <-ctx.Done():
	}
	b, err := answer(ctx, r)
	n.mu.Lock()
	n.sent[i] += len(b)
	n.mu.Unlock()
	return b, err
}

// without returns the members but some.
func (n *neighbours) without(gone ...int) []identity.PeerID {
	members := append([]identity.PeerID(nil), n.members...)
	for _, i := range gone {
		members[i] = identity.PeerID{}
	}
	return members
}

// onlyOwn answers for the shard a member keeps and for no other.
func (n *neighbours) onlyOwn(i int) func(context.Context, Request) ([]byte, error) {
	return func(_ context.Context, r Request) ([]byte, error) {
		if r.Shard != i {
			return nil, log.ErrNotFound
		}
		return n.honest(r)
	}
}

func TestFetch(t *testing.T) {
	g := Geometry{K: 2, M: 1}
	size := 40*g.K*CellBytes + 777
	var lie = func(n *neighbours) func(context.Context, Request) ([]byte, error) {
		return func(_ context.Context, r Request) ([]byte, error) {
			b, err := n.honest(r)
			if r.Count > 0 && r.First > 7 {
				b[len(b)/2] ^= 1
			}
			return b, err
		}
	}
	silent := func(ctx context.Context, _ Request) ([]byte, error) { <-ctx.Done(); return nil, ctx.Err() }
	for _, c := range []struct {
		name    string
		prepare func(n *neighbours)
		gone    []int
		blamed  []int // certainly
		err     error
	}{
		{name: "all"},
		{name: "one is oneself", gone: []int{1}},
		{name: "archived", prepare: func(n *neighbours) {
			for i := range n.answer {
				n.answer[i] = n.onlyOwn(i)
			}
		}},
		{name: "archived, one gone", gone: []int{0}, prepare: func(n *neighbours) { n.answer[1], n.answer[2] = n.onlyOwn(1), n.onlyOwn(2) }},
		{name: "archived, two gone", gone: []int{0, 1}, prepare: func(n *neighbours) { n.answer[2] = n.onlyOwn(2) }, err: ErrShards},
		{name: "one lies", prepare: func(n *neighbours) { n.answer[2] = lie(n) }, blamed: []int{2}},
		{name: "two lie", prepare: func(n *neighbours) { n.answer[0], n.answer[1] = lie(n), lie(n) }, blamed: []int{0, 1}},
		{name: "all lie", prepare: func(n *neighbours) { n.answer[0], n.answer[1], n.answer[2] = lie(n), lie(n), lie(n) }, blamed: []int{0, 1, 2}, err: ErrShards},
		{name: "one sends another shard", prepare: func(n *neighbours) {
			n.answer[1] = func(_ context.Context, r Request) ([]byte, error) { r.Shard = (r.Shard + 1) % 3; return n.honest(r) }
		}, blamed: []int{1}},
		{name: "one sends too little", prepare: func(n *neighbours) {
			n.answer[1] = func(_ context.Context, r Request) ([]byte, error) {
				b, err := n.honest(r)
				return b[:len(b)-1], err
			}
		}, blamed: []int{1}},
		{name: "one does not know", prepare: func(n *neighbours) {
			n.answer[1] = func(context.Context, Request) ([]byte, error) { return nil, io.ErrClosedPipe }
		}},
		{name: "one stalls", prepare: func(n *neighbours) { n.answer[1] = silent }},
		{name: "one stalls in the middle", prepare: func(n *neighbours) {
			n.answer[0] = func(ctx context.Context, r Request) ([]byte, error) {
				if r.First > 20 {
					return silent(ctx, r)
				}
				return n.honest(r)
			}
		}},
		{name: "nobody", gone: []int{0, 1, 2}, err: ErrShards},
	} {
		n := newNeighbours(t, g, size)
		t.Run(c.name, inBubble(func(t *testing.T) {
			if c.prepare != nil {
				c.prepare(n)
			}
			blamed := map[identity.PeerID]bool{}
			f := &Fetcher{Peers: n, Members: n.without(c.gone...), Bad: func(m identity.PeerID, _ error) { blamed[m] = true }}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			got, err := f.Bytes(ctx, &n.o.c, Request{})
			if c.err != nil {
				if !errors.Is(err, c.err) || !bytes.HasPrefix(n.o.data, got) {
					t.Fatalf("%v, want %v", err, c.err)
				}
			} else if err != nil || !bytes.Equal(got, n.o.data) {
				t.Fatalf("%d bytes, %v", len(got), err)
			}
			for _, i := range c.blamed {
				if !blamed[n.members[i]] {
					t.Errorf("member %d is not blamed", i)
				}
			}
			for i, m := range n.members {
				if blamed[m] && n.answer[i] == nil {
					t.Errorf("member %d is honest and blamed", i)
				}
			}
			if c.name == "one lies" { // it is asked no more
				before := n.sent[2]
				if _, err := f.Bytes(ctx, &n.o.c, Request{}); err != nil || n.sent[2] != before {
					t.Errorf("the liar was asked again: %v", err)
				}
			}
		}))
	}
}

// inBubble is f on a clock of its own.
func inBubble(f func(t *testing.T)) func(t *testing.T) {
	return func(t *testing.T) { synctest.Test(t, f) }
}

// TestFairShare: of two members that are equally fast each sends about half, and
// little is sent twice; one that is slow sends less.
func TestFairShare(t *testing.T) {
	g := Geometry{K: 2, M: 1}
	for _, slow := range []time.Duration{1, 10} {
		t.Run(fmt.Sprint(slow), func(t *testing.T) {
			n := newNeighbours(t, g, 100*g.K*CellBytes)
			synctest.Test(t, func(t *testing.T) { fairShare(t, n, slow) })
		})
	}
}

// fairShare runs on a clock of its own, so that only the pauses take time.
func fairShare(t *testing.T, n *neighbours, slow time.Duration) {
	paced := func(d time.Duration) func(context.Context, Request) ([]byte, error) {
		return func(_ context.Context, r Request) ([]byte, error) {
			<-time.After(d)
			return n.honest(r)
		}
	}
	n.answer[0], n.answer[1] = paced(2*time.Millisecond), paced(slow*2*time.Millisecond)
	bring := func(members []identity.PeerID) (map[identity.PeerID]uint64, time.Duration) {
		f := &Fetcher{Peers: n, Members: members}
		began := time.Now()
		if got, err := f.Bytes(t.Context(), &n.o.c, Request{}); err != nil || !bytes.Equal(got, n.o.data) {
			t.Fatal(err)
		}
		return f.Sent(), time.Since(began)
	}
	sent, took := bring(n.without(2))
	if _, alone := bring(n.without(1, 2)); took > alone*13/10 {
		t.Errorf("it took %v, without the second one %v", took, alone)
	}
	a, b := float64(sent[n.members[0]]), float64(sent[n.members[1]])
	whole := float64(len(n.o.data))
	if a+b > 1.2*whole {
		t.Errorf("%.2f of the object were sent", (a+b)/whole)
	}
	if slow > 1 && b > 0.4*whole {
		t.Errorf("the slow one sent %.2f of the object", b/whole)
	}
	if slow == 1 && (a > 0.55*whole || b > 0.55*whole) {
		t.Errorf("they sent %.2f and %.2f of the object", a/whole, b/whole)
	}
}
