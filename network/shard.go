package network

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/snapshot"
)

// ShardProtocol is the name of the protocol that carries requests for shards.
const ShardProtocol = "mosaik/shard/1"

// Limits of requests for shards.
const (
	maxShardMessage = snapshot.MaxCells*snapshot.CellBytes + 4<<10
	// shardsInFlight bounds the requests under way on one connection: who asks waits
	// before it sends more, and who serves reads no more.
	shardsInFlight = 8
	// shardIdle ends a connection that is not used.
	shardIdle = time.Minute
	// serveTimeout bounds the answer to one request.
	serveTimeout = 10 * time.Second
)

// ServeShard answers a request for a part of a shard (engine.Engine.ServeShard).
type ServeShard func(ctx context.Context, r snapshot.Request) ([]byte, error)

// Shards carries requests for shards to other nodes, as snapshot.Peers, and answers
// theirs. Only members of a group, as far as their connection has proven its key and is
// allowed, get something of it.
type Shards struct {
	e     *Endpoint
	serve ServeShard
	stop  func()

	running sync.WaitGroup
	mu      struct {
		sync.Mutex
		closed bool
		peers  map[identity.PeerID]*shardPeer
	}
}

var _ snapshot.Peers = (*Shards)(nil)

// shardPeer is the way to one peer.
type shardPeer struct {
	slots chan struct{} // a token for each request under way
	// turn holds one token while somebody looks at client, or makes it. It is no mutex
	// because who waits for it must be able to give up.
	turn   chan struct{}
	client *shardClient // the present connection, maybe ended; nil before the first
}

// shardClient is a connection on which this node asks.
type shardClient struct {
	c *Conn

	mu      sync.Mutex
	next    uint32
	pending map[uint32]chan shardAnswer // with room for one; closed when the connection ends
}

// OpenShards begins to carry requests for shards over e. serve answers those of
// others; it may be called from several goroutines at once.
func OpenShards(e *Endpoint, serve ServeShard) (*Shards, error) {
	s := &Shards{e: e, serve: serve}
	s.mu.peers = make(map[identity.PeerID]*shardPeer)
	stop, err := e.Handle(Protocol{Name: ShardProtocol, Groups: true, MaxMessage: maxShardMessage, Idle: shardIdle, Serve: s.serveConn})
	if err != nil {
		return nil, err
	}
	s.stop = stop
	return s, nil
}

// Close ends the connections and returns when no request is under way any more.
func (s *Shards) Close() error {
	s.mu.Lock()
	s.mu.closed = true
	s.mu.Unlock()
	s.stop()
	s.running.Wait()
	return nil
}

// Fetch asks a peer. The error is log.ErrNotFound if the peer says that it has not
// what is asked for.
func (s *Shards) Fetch(ctx context.Context, peer identity.PeerID, r snapshot.Request) ([]byte, error) {
	request, err := appendShardRequest(nil, 0, r)
	if err != nil {
		return nil, err
	}
	p, err := s.peer(peer)
	if err != nil {
		return nil, err
	}
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	client, err := s.client(ctx, p, peer)
	if err != nil {
		return nil, err
	}
	if !client.c.Carries(r.Group) {
		return nil, fmt.Errorf("shards of group %s: %w", r.Group.Short(), &CloseError{Peer: peer, Protocol: ShardProtocol, Reason: NoCommonGroup})
	}
	answer, err := client.ask(ctx, request)
	if err != nil {
		return nil, err
	}
	switch answer.status {
	case shardFound:
		return answer.content, nil
	case shardNotFound:
		return nil, fmt.Errorf("%w: peer %s says: %.200q", log.ErrNotFound, peer.Short(), answer.content)
	default:
		return nil, fmt.Errorf("mosaik: peer %s says: %.200q", peer.Short(), answer.content)
	}
}

func (s *Shards) peer(peer identity.PeerID) (*shardPeer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.closed {
		return nil, ErrClosed
	}
	p := s.mu.peers[peer]
	if p == nil {
		p = &shardPeer{slots: make(chan struct{}, shardsInFlight), turn: make(chan struct{}, 1)}
		s.mu.peers[peer] = p
	}
	return p, nil
}

// client returns the connection to a peer, and makes it if there is none.
func (s *Shards) client(ctx context.Context, p *shardPeer, peer identity.PeerID) (*shardClient, error) {
	select {
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if p.client != nil && p.client.c.Err() == nil {
		return p.client, nil
	}
	c, err := s.e.Dial(ctx, peer, ShardProtocol)
	if err != nil {
		return nil, err
	}
	client := &shardClient{c: c, pending: make(map[uint32]chan shardAnswer)}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.closed {
		c.CloseFor(GoingAway, nil)
		return nil, ErrClosed
	}
	s.running.Add(1)
	go s.runAnswers(client)
	p.client = client
	return client, nil
}

// ask sends a request, whose id it fills in, and waits for the answer.
func (client *shardClient) ask(ctx context.Context, request []byte) (shardAnswer, error) {
	ch := make(chan shardAnswer, 1)
	client.mu.Lock()
	if client.pending == nil {
		client.mu.Unlock()
		return shardAnswer{}, client.c.Err()
	}
	client.next++
	id := client.next
	client.pending[id] = ch
	client.mu.Unlock()
	defer func() {
		client.mu.Lock()
		delete(client.pending, id)
		client.mu.Unlock()
	}()
	if err := client.c.WriteMessage(setShardID(request, id)); err != nil {
		return shardAnswer{}, err
	}
	select {
	case answer, ok := <-ch:
		if !ok {
			return shardAnswer{}, client.c.Err()
		}
		return answer, nil
	case <-ctx.Done():
		return shardAnswer{}, ctx.Err()
	}
}

// runAnswers hands out the answers of a connection until it ends.
func (s *Shards) runAnswers(client *shardClient) {
	defer s.running.Done()
	for {
		b, err := client.c.ReadMessage()
		if err != nil {
			break
		}
		answer, err := decodeShardAnswer(b)
		if err != nil {
			client.c.CloseFor(Malformed, err)
			break
		}
		client.mu.Lock()
		ch := client.pending[answer.id] // nil: nobody waits any more
		delete(client.pending, answer.id)
		client.mu.Unlock()
		if ch != nil {
			answer.content = append([]byte(nil), answer.content...)
			ch <- answer
		}
	}
	client.mu.Lock()
	for _, ch := range client.pending {
		close(ch)
	}
	client.pending = nil
	client.mu.Unlock()
}

// serveConn answers the requests of a peer, some at a time.
func (s *Shards) serveConn(c *Conn) {
	ctx, cancel := contextOf(c)
	defer cancel()
	slots := make(chan struct{}, shardsInFlight)
	var running sync.WaitGroup
	defer running.Wait()
	for {
		select {
		case slots <- struct{}{}:
		case <-c.Done():
			return
		}
		b, err := c.ReadMessage()
		if err != nil {
			return
		}
		id, r, err := decodeShardRequest(b)
		if err != nil {
			c.CloseFor(Malformed, err)
			return
		}
		running.Add(1)
		go s.runRequest(ctx, c, id, r, slots, &running)
	}
}

// runRequest answers one request.
func (s *Shards) runRequest(ctx context.Context, c *Conn, id uint32, r snapshot.Request, slots <-chan struct{}, running *sync.WaitGroup) {
	defer running.Done()
	defer func() { <-slots }()
	ctx, cancel := context.WithTimeout(ctx, serveTimeout)
	defer cancel()
	answer := shardAnswer{id: id, status: shardFound}
	err := error(NoCommonGroup)
	if c.Carries(r.Group) {
		answer.content, err = s.serve(ctx, r)
	}
	switch {
	case errors.Is(err, log.ErrNotFound):
		answer.status, answer.content = shardNotFound, []byte(err.Error())
	case err != nil:
		answer.status, answer.content = shardFailed, []byte(err.Error())
	}
	if err := c.WriteMessage(answer.appendTo(nil)); errors.Is(err, Oversize) {
		c.CloseFor(Oversize, err) // the requester would wait for nothing
	}
}
