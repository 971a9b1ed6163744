package replay_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/replay"
)

var (
	group = identity.NewID("mosaik.test.group")
	keys  = []identity.ID{identity.NewID("k0"), identity.NewID("k1"), identity.NewID("k2")}
)

// planted is a Source over encoded commits of which a test can alter anything:
// the bytes, the head, the digests handed out, and where reading fails.
type planted struct {
	id      identity.ID
	commits [][]byte // of commits 1, 2, ...
	head    log.Head
	digest  map[uint64]log.Digest // handed out instead of the commit's own
	fail    map[uint64]error      // met in the commit's place
	ends    uint64                // Commits ends without an error before this one; 0: nowhere
}

func (p *planted) ID() identity.ID { return p.id }
func (p *planted) Head() log.Head  { return p.head }

func (p *planted) Commit(n uint64) (log.Commit, error) {
	if err := p.fail[n]; err != nil {
		return log.Commit{}, err
	}
	if n == 0 || n > uint64(len(p.commits)) {
		return log.Commit{}, fmt.Errorf("%w: commit %d", log.ErrNotFound, n)
	}
	c, err := log.DecodeCommit(p.commits[n-1])
	if d, ok := p.digest[n]; ok {
		c.Digest = d
	}
	return c, err
}

// Commits hands out bodies in one buffer, so that a reader that keeps one past
// its step reads garbage.
func (p *planted) Commits(ctx context.Context, from, to uint64) iter.Seq2[log.Commit, error] {
	return func(yield func(log.Commit, error) bool) {
		var body []byte
		for n := from; n <= to; n++ {
			if n == p.ends {
				return
			}
			c, err := p.Commit(n)
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				yield(log.Commit{}, err)
				return
			}
			body = append(body[:0], c.Body...)
			c.Body = body
			if !yield(c, nil) {
				return
			}
			clear(body)
		}
	}
}

// of returns everything m has as a planted source.
func of(t testing.TB, m *log.Memory) *planted {
	t.Helper()
	p := &planted{id: m.ID(), head: m.Head(), digest: map[uint64]log.Digest{}, fail: map[uint64]error{}}
	for c, err := range m.Commits(context.Background(), 1, 0) {
		if err != nil {
			t.Fatal(err)
		}
		p.commits = append(p.commits, c.AppendTo(nil))
	}
	return p
}

// change rewrites commit n by f and makes its own digests fit again. With
// relink the commits behind it and the head are chained to it again, as a forger
// of the whole rest of the log would.
func (p *planted) change(t testing.TB, n uint64, relink bool, f func(*log.Commit)) {
	t.Helper()
	for i := n; i <= uint64(len(p.commits)); i++ {
		c, err := log.DecodeCommit(p.commits[i-1])
		if err != nil {
			t.Fatal(err)
		}
		if i == n {
			f(&c)
			c.Header.Body = log.Sum(c.Body)
		} else if i > 1 {
			before, err := log.DecodeCommit(p.commits[i-2])
			if err != nil {
				t.Fatal(err)
			}
			c.Header.Prev = before.Digest
		}
		p.commits[i-1] = c.AppendTo(nil)
		if i == uint64(len(p.commits)) && relink {
			p.head = log.Head{Number: c.Header.Number, Digest: c.Header.Digest(), Time: c.Header.Time}
		}
		if !relink {
			return
		}
	}
}

// history returns a log of n commits: 1 to 40 records each, under keys[0] to
// keys[2], of 0 to 200 bytes.
func history(t testing.TB, n int, seed uint64) *log.Memory {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 7))
	m := log.NewMemory(group)
	now := time.Unix(1_700_000_000, 0)
	m.SetClock(func() time.Time { return now })
	for range n {
		payloads := make([][]byte, 1+rng.IntN(40))
		for i := range payloads {
			payloads[i] = make([]byte, rng.IntN(200))
			for j := range payloads[i] {
				payloads[i][j] = byte(rng.Uint32())
			}
		}
		now = now.Add(time.Duration(rng.IntN(3)) * time.Millisecond) // equal times happen
		if _, err := m.Append(context.Background(), keys[rng.IntN(len(keys))], payloads...); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

// wantCorrupt checks that err blames commit n.
func wantCorrupt(t testing.TB, err error, n uint64) *log.CorruptionError {
	t.Helper()
	var c *log.CorruptionError
	if !errors.As(err, &c) {
		t.Fatalf("got %v, want a *log.CorruptionError for commit %d", err, n)
	}
	if c.Commit != n || c.Group != group {
		t.Fatalf("blames commit %d of group %s, want commit %d of %s: %v", c.Commit, c.Group.Short(), n, group.Short(), err)
	}
	return c
}

var _ replay.Source = (*log.Memory)(nil)
