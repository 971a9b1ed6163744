package network

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/raftio"
	pb "github.com/lni/dragonboat/v4/raftpb"

	"github.com/mosaik-engine/mosaik/identity"
)

// Names of the protocols of Raft.
const (
	RaftProtocol     = "mosaik/raft/1"
	SnapshotProtocol = "mosaik/raft-snapshot/1"
)

// Limits of Raft messages.
const (
	// maxBatch is the Raft library's own limit of a batch, 64 MiB, and room for what the
	// last message goes beyond it.
	maxBatch = 64<<20 + 1<<20
	// maxChunk is the library's piece of a snapshot, 2 MiB, and room for its fields.
	maxChunk = 2<<20 + 64<<10
	// chunkTimeout bounds how long the other side may take over a piece of a snapshot.
	chunkTimeout = 30 * time.Second
)

// errRejected says that the other side has refused a piece of a snapshot.
var errRejected = errors.New("mosaik: snapshot chunk rejected")

// Raft returns the transport of the Raft library over connections of e. The address
// of a host is the text form of its PeerID, so that a node may move; the engine uses
// such addresses unless it is told others.
//
// One factory serves all incarnations of a host. It carries messages and snapshots of
// the groups that SetGroups has named: set them before the engine is opened, or right
// after. Close the engine before e, so that it can hand over what it leads.
func Raft(e *Endpoint) config.TransportFactory { return raftFactory{e} }

type raftFactory struct{ e *Endpoint }

// Create returns a transport that is not started yet.
func (f raftFactory) Create(host config.NodeHostConfig, messages raftio.MessageHandler, chunks raftio.ChunkHandler) raftio.ITransport {
	return &raftTransport{e: f.e, address: host.RaftAddress, messages: messages, chunks: chunks}
}

// Validate accepts the text form of a PeerID. The library gives up, with the whole
// process, when another host names an address that is not valid.
func (raftFactory) Validate(address string) bool {
	_, err := identity.ParsePeerID(address)
	return err == nil
}

// raftTransport is one incarnation of a host. It starts once and closes once.
type raftTransport struct {
	e        *Endpoint
	address  string
	messages raftio.MessageHandler
	chunks   raftio.ChunkHandler

	stops   []func()
	watches sync.WaitGroup
}

// Name returns what the host logs.
func (t *raftTransport) Name() string { return "mosaik-bonds" }

// Start begins to accept messages and snapshots.
func (t *raftTransport) Start() error {
	if t.address != t.e.peer.String() {
		return fmt.Errorf("mosaik: network: the Raft host's address is %q, on the endpoint of peer %s", t.address, t.e.peer)
	}
	for _, p := range []Protocol{
		{Name: RaftProtocol, Groups: true, MaxMessage: maxBatch, Serve: t.serveMessages},
		{Name: SnapshotProtocol, Groups: true, MaxMessage: maxChunk, Serve: t.serveChunks},
	} {
		stop, err := t.e.Handle(p)
		if err != nil {
			return errors.Join(err, t.Close())
		}
		t.stops = append(t.stops, stop)
	}
	return nil
}

// Close ends every connection and returns when no handler runs any more.
func (t *raftTransport) Close() error {
	for _, stop := range t.stops {
		stop()
	}
	t.stops = nil
	t.watches.Wait()
	return nil
}

// GetConnection connects for messages. It does not wait for a peer that could not be
// reached a moment ago: the library has a pause of its own, of 0.5 to 1 s, drawn.
func (t *raftTransport) GetConnection(ctx context.Context, target string) (raftio.IConnection, error) {
	c, err := t.dial(ctx, target, RaftProtocol)
	if err != nil {
		return nil, err
	}
	t.watches.Add(1)
	go t.runWatch(c)
	return &raftConn{c: c}, nil
}

// GetSnapshotConnection connects for one snapshot.
func (t *raftTransport) GetSnapshotConnection(ctx context.Context, target string) (raftio.ISnapshotConnection, error) {
	c, err := t.dial(ctx, target, SnapshotProtocol)
	if err != nil {
		return nil, err
	}
	return &snapshotConn{c}, nil
}

func (t *raftTransport) dial(ctx context.Context, target, protocol string) (*Conn, error) {
	peer, err := identity.ParsePeerID(target)
	if err != nil {
		return nil, err
	}
	return t.e.dial(ctx, peer, protocol)
}

// runWatch reads a connection for messages, on which the other side says nothing
// but why it ends it.
func (t *raftTransport) runWatch(c *Conn) {
	defer t.watches.Done()
	if _, err := c.ReadMessage(); err == nil {
		c.CloseFor(Malformed, errors.New("a message against the direction of the connection"))
	}
}

// raftConn sends batches of messages. The library calls it from one goroutine, which
// serves one peer alone: a peer that is slow holds up nobody else, and that goroutine
// for no longer than Limits.WriteTimeout. The library's queue in front of it is bounded.
type raftConn struct {
	c   *Conn
	buf []byte // reused
}

// Close ends the connection; what was sent before still arrives.
func (r *raftConn) Close() { _ = r.c.Close() }

// SendMessageBatch sends what the connection may carry of a batch. Messages of other
// groups are left out, which Raft takes for lost. Nil says nothing about arrival.
func (r *raftConn) SendMessageBatch(batch pb.MessageBatch) error {
	table := r.c.e.groups.Load()
	if batch.Requests = r.c.carried(table, batch.Requests); len(batch.Requests) == 0 {
		return r.c.Err()
	}
	size := headerSize + batch.SizeUpperLimit()
	if cap(r.buf) < size {
		r.buf = make([]byte, size)
	}
	n, err := batch.MarshalTo(r.buf[headerSize:size])
	if err != nil {
		return fmt.Errorf("mosaik: encode a batch of Raft messages: %w", err)
	}
	err = r.c.writeFramed(r.buf[:headerSize+n])
	if cap(r.buf) > keepMessage {
		r.buf = nil
	}
	return err
}

// carried returns the messages of groups that the connection carries: messages
// itself if those are all.
func (c *Conn) carried(table *groupTable, messages []pb.Message) []pb.Message {
	carries := func(m *pb.Message) bool {
		g := table.byShard[m.ShardID]
		return g != nil && c.Carries(g.ID)
	}
	for i := range messages {
		if carries(&messages[i]) {
			continue
		}
		kept := append([]pb.Message(nil), messages[:i]...) // the library goes on using its own
		for j := i; j < len(messages); j++ {
			if carries(&messages[j]) {
				kept = append(kept, messages[j])
			}
		}
		c.e.counters.raftUnprovenOut.Add(uint64(len(messages) - len(kept)))
		return kept
	}
	return messages
}

// serveMessages hands up the messages of a peer.
func (t *raftTransport) serveMessages(c *Conn) {
	source := c.Remote().String()
	for {
		b, err := c.ReadMessage()
		if err != nil {
			return
		}
		batch, err := decodeBatch(b)
		if err != nil {
			c.CloseFor(Malformed, err)
			return
		}
		batch.SourceAddress = source // whatever it says
		batch.Requests = c.admissible(batch.Requests)
		if len(batch.Requests) > 0 {
			t.messages(batch)
		}
	}
}

// snapshotConn sends the pieces of one snapshot. Each is acknowledged with one byte
// when the other side's host has taken it, so the sender knows at once when it has
// not.
type snapshotConn struct{ c *Conn }

// Close ends the connection. Every piece sent before has been handled.
func (s *snapshotConn) Close() { _ = s.c.Close() }

// SendChunk sends a piece and waits until it is handled.
func (s *snapshotConn) SendChunk(chunk pb.Chunk) error {
	g := s.c.e.groups.Load().byShard[chunk.ShardID]
	if g == nil || !s.c.Carries(g.ID) {
		s.c.e.counters.raftUnprovenOut.Add(1)
		return &CloseError{Peer: s.c.peer, Protocol: SnapshotProtocol, Reason: NoCommonGroup}
	}
	frame := make([]byte, headerSize+chunk.Size())
	n, err := chunk.MarshalTo(frame[headerSize:])
	if err != nil {
		return fmt.Errorf("mosaik: encode a piece of a snapshot: %w", err)
	}
	if err := s.c.writeFramed(frame[:headerSize+n]); err != nil {
		return err
	}
	if err := s.c.SetReadDeadline(time.Now().Add(chunkTimeout)); err != nil {
		return err
	}
	answer, err := s.c.ReadMessage()
	switch {
	case err != nil:
		return err
	case len(answer) != 1 || answer[0] > 1:
		s.c.CloseFor(Malformed, errors.New("an acknowledgement of a piece of a snapshot"))
		return s.c.Err()
	case answer[0] == 0:
		return errRejected
	}
	return nil
}

// serveChunks hands up the pieces of a snapshot.
func (t *raftTransport) serveChunks(c *Conn) {
	for {
		b, err := c.ReadMessage()
		if err != nil {
			return
		}
		chunk, err := decodeChunk(b)
		if err != nil {
			c.CloseFor(Malformed, err)
			return
		}
		taken := c.admissibleChunk(&chunk) && t.chunks(chunk)
		answer := []byte{0}
		if taken {
			answer[0] = 1
		}
		if err := c.WriteMessage(answer); err != nil || !taken {
			return
		}
	}
}
