package network

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/snapshot"
)

// openShards opens shards on two nodes that share a group; the second answers by serve.
func openShards(t *testing.T, serve ServeShard) (a, b *node, shards *Shards, group identity.ID) {
	t.Helper()
	book := new(phonebook)
	a, b = openNode(t, book, 1, nil), openNode(t, book, 2, nil)
	g := testGroup("g", 2)
	mine, other := testGroup("mine", 2), testGroup("theirs", 2)
	if err := errors.Join(a.SetGroups([]Group{g, mine}), b.SetGroups([]Group{g, other})); err != nil {
		t.Fatal(err)
	}
	var opened [2]*Shards
	for i, n := range []*node{a, b} {
		s, err := OpenShards(n.Endpoint, serve)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		opened[i] = s
	}
	return a, b, opened[0], g.ID
}

// TestShards: many requests at once over one connection, each with its own answer.
func TestShards(t *testing.T) {
	ctx := testContext(t)
	var mu sync.Mutex
	serving, most := 0, 0
	together := make(chan struct{})
	a, b, shards, group := openShards(t, func(ctx context.Context, r snapshot.Request) ([]byte, error) {
		mu.Lock()
		serving++
		if most = max(most, serving); most == shardsInFlight {
			select {
			case <-together:
			default:
				close(together)
			}
		}
		mu.Unlock()
		select {
		case <-together: // the first wait for each other
		case <-ctx.Done():
		}
		mu.Lock()
		serving--
		mu.Unlock()
		return bytes.Repeat([]byte{byte(r.First)}, r.Count*snapshot.CellBytes), nil
	})
	var wg sync.WaitGroup
	for i := range 3 * shardsInFlight {
		wg.Add(1)
		go func() {
			defer wg.Done()
			r := snapshot.Request{Group: group, Segment: 1 << 60, State: true, Shard: 63, First: i, Count: i%snapshot.MaxCells + 1}
			got, err := shards.Fetch(ctx, b.Peer(), r)
			if err != nil || !bytes.Equal(got, bytes.Repeat([]byte{byte(i)}, r.Count*snapshot.CellBytes)) {
				t.Errorf("request %d: %d bytes, %v", i, len(got), err)
			}
		}()
	}
	wg.Wait()
	if most != shardsInFlight || a.Metrics().Dialled != 1 {
		t.Errorf("%d at once, %+v", most, a.Metrics())
	}
}

// TestShardRefusals: every answer that is not bytes.
func TestShardRefusals(t *testing.T) {
	ctx := testContext(t)
	a, b, shards, group := openShards(t, func(ctx context.Context, r snapshot.Request) ([]byte, error) {
		switch r.First {
		case 1:
			return nil, fmt.Errorf("%w: archived", log.ErrNotFound)
		case 2:
			return nil, errors.New(string(bytes.Repeat([]byte("x"), 100_000)))
		case 3:
			return make([]byte, maxShardMessage), nil
		case 4:
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return []byte("fine"), nil
	})
	fetch := func(ctx context.Context, peer identity.PeerID, r snapshot.Request) error {
		_, err := shards.Fetch(ctx, peer, r)
		return err
	}
	if err := fetch(ctx, b.Peer(), snapshot.Request{Group: group, First: 1}); !errors.Is(err, log.ErrNotFound) {
		t.Error(err)
	}
	if err := fetch(ctx, b.Peer(), snapshot.Request{Group: group, First: 2}); err == nil || len(err.Error()) > 400 {
		t.Errorf("%.500v", err)
	}
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if err := fetch(short, b.Peer(), snapshot.Request{Group: group, First: 4}); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	for _, name := range []string{"mine", "theirs"} {
		if err := fetch(ctx, b.Peer(), snapshot.Request{Group: identity.NewID(name)}); !errors.Is(err, NoCommonGroup) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := fetch(ctx, keyOf(9).PeerID(), snapshot.Request{Group: group}); !errors.Is(err, ErrNoAddress) {
		t.Error(err)
	}
	for _, r := range []snapshot.Request{{Shard: -1}, {Shard: 1 << 20}, {First: -1}, {Count: -1}, {Count: snapshot.MaxCells + 1}} {
		if fetch(ctx, b.Peer(), r) == nil {
			t.Errorf("%+v: sent", r)
		}
	}
	// An asker that does not look itself: the server does.
	c, err := a.Dial(ctx, b.Peer(), ShardProtocol)
	if err != nil {
		t.Fatal(err)
	}
	request, err := appendShardRequest(nil, 5, snapshot.Request{Group: identity.NewID("theirs")})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.WriteMessage(request); err != nil {
		t.Fatal(err)
	}
	answer, err := c.ReadMessage()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := decodeShardAnswer(answer); err != nil || got.id != 5 || got.status != shardFailed {
		t.Errorf("%+v, %v", got, err)
	}
	if err := c.WriteMessage([]byte("nonsense")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.ReadMessage(); !errors.Is(err, Malformed) {
		t.Error(err)
	}
	// An answer that is too large ends the connection, and the next request makes another.
	if err := fetch(ctx, b.Peer(), snapshot.Request{Group: group, First: 3}); !errors.Is(err, Oversize) {
		t.Error(err)
	}
	if err := fetch(ctx, b.Peer(), snapshot.Request{Group: group}); err != nil {
		t.Error(err)
	}
	if err := shards.Close(); err != nil {
		t.Fatal(err)
	}
	if err := fetch(ctx, b.Peer(), snapshot.Request{Group: group}); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}
