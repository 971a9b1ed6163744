package network

import (
	"bytes"
	"encoding/binary"
	"log/slog"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/lni/dragonboat/v4/raftio"
	pb "github.com/lni/dragonboat/v4/raftpb"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/snapshot"
)

func seedHello() hello {
	a, b := identity.NewID("a"), identity.NewID("b")
	h := hello{network: testNetwork, proven: []groupProof{{a, b}, {b, a}}, refused: []groupRefusal{{a, NotAllowed}, {b, TicketExpired}}, entry: []byte("an entry")}
	slices.SortFunc(h.proven, func(x, y groupProof) int { return x.group.Compare(y.group) })
	sortRefused(h.refused)
	return h
}

// FuzzHello: what decodes encodes to the same bytes, unknown words apart.
func FuzzHello(f *testing.F) {
	h := seedHello()
	f.Add(h.appendTo(nil))
	f.Add((&hello{}).appendTo(nil))
	f.Add(h.appendTo(nil)[:40])
	h.entry = make([]byte, identity.MaxEntry+1) // too long
	f.Add(h.appendTo(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := decodeHello(b)
		if err != nil {
			return
		}
		again := h.appendTo(nil)
		unknown := slices.ContainsFunc(h.refused, func(r groupRefusal) bool { return r.reason == Other })
		if !unknown && !bytes.Equal(again, b) {
			t.Fatalf("%x decodes, and encodes to %x", b, again)
		}
		if len(b) > maxHello {
			t.Fatalf("a hello of %d bytes decodes, the limit is %d", len(b), maxHello)
		}
		if _, err := decodeHello(again); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzRefused is FuzzHello for a welcome.
func FuzzRefused(f *testing.F) {
	f.Add(appendRefused(nil, seedHello().refused))
	f.Add([]byte{0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		refused, err := decodeRefused(b)
		if err == nil && !slices.ContainsFunc(refused, func(r groupRefusal) bool { return r.reason == Other }) && !bytes.Equal(appendRefused(nil, refused), b) {
			t.Fatalf("%x", b)
		}
	})
}

// FuzzShardMessages: requests and answers that decode encode to the same bytes.
func FuzzShardMessages(f *testing.F) {
	request, err := appendShardRequest(nil, 7, snapshot.Request{Group: testNetwork, Segment: 3, State: true, Shard: 2, First: 100, Count: 16})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(request)
	f.Add((&shardAnswer{id: 7, status: shardNotFound, content: []byte("no")}).appendTo(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if id, r, err := decodeShardRequest(b); err == nil {
			if again, err := appendShardRequest(nil, id, r); err != nil || !bytes.Equal(again, b) {
				t.Fatalf("%x decodes, and encodes to %x, %v", b, again, err)
			}
		}
		if a, err := decodeShardAnswer(b); err == nil && !bytes.Equal(a.appendTo(nil), b) {
			t.Fatalf("%x", b)
		}
	})
}

func seedBatch() []byte {
	b := pb.MessageBatch{BinVer: raftio.TransportBinVersion, SourceAddress: "x", Requests: []pb.Message{
		{Type: pb.Replicate, ShardID: 1 << 60, From: 1, To: 2, Entries: []pb.Entry{{Index: 1, Term: 1, Cmd: []byte("cmd")}, {Term: 1}}},
		{Type: pb.Heartbeat},
	}}
	return pb.MustMarshalTo(&b, make([]byte, b.SizeUpperLimit()))
}

// FuzzBatch: whatever comes, decoding ends, with an error or with something whose
// size is in proportion.
func FuzzBatch(f *testing.F) {
	f.Add(seedBatch())
	f.Add([]byte{0x0a, 0})
	f.Add(bytes.Repeat([]byte{0x0a, 0}, 1000))
	f.Fuzz(func(t *testing.T, b []byte) {
		batch, err := decodeBatch(b)
		if err != nil {
			return
		}
		entries := 0
		for i := range batch.Requests {
			entries += len(batch.Requests[i].Entries)
		}
		if len(batch.Requests)*minMessage > len(b) || entries*minEntry > len(b) {
			t.Fatalf("%d messages and %d entries from %d bytes", len(batch.Requests), entries, len(b))
		}
	})
}

// FuzzChunk: whatever comes, decoding ends.
func FuzzChunk(f *testing.F) {
	c := pb.Chunk{ShardID: 1 << 60, From: 1, ReplicaID: 2, Data: []byte("data"), Filepath: "snapshot", Membership: pb.Membership{Addresses: map[uint64]string{1: "a"}}}
	f.Add(pb.MustMarshalTo(&c, make([]byte, c.Size())))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := decodeChunk(b)
		if err == nil && len(c.Data) > len(b) {
			t.Fatal("data from nowhere")
		}
	})
}

// wire is a net.Conn that hands out bytes, and takes everything.
type wire struct {
	net.Conn
	in *bytes.Reader
}

func (w wire) Read(p []byte) (int, error)       { return w.in.Read(p) }
func (w wire) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (w wire) Write(p []byte) (int, error)      { return len(p), nil }
func (w wire) SetReadDeadline(time.Time) error  { return nil }
func (w wire) SetWriteDeadline(time.Time) error { return nil }

// FuzzFrames: whatever comes on an open connection, reading ends, and every message
// that is handed up was in it, whole.
func FuzzFrames(f *testing.F) {
	message := append(appendHeader(nil, kindMessage, 5), "hello"...)
	f.Add(append(append(message, appendHeader(nil, kindHeartbeat, 0)...), appendClose(nil, GoingAway)...))
	f.Add(appendHeader(nil, kindMessage, 1<<31))
	f.Add(append(appendHeader(nil, kindMessage, 0), appendHeader(nil, kindClose, 0)...))
	e := &Endpoint{limits: Limits{}.withDefaults(), counters: newCounters(), logger: slog.New(slog.DiscardHandler)}
	e.opts.Events.ensureDefaults()
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, asStream := range []bool{false, true} {
			c := newFuzzConn(e, b)
			var got []byte
			for {
				if asStream {
					p := make([]byte, 3)
					n, err := c.Read(p)
					got = append(got, p[:n]...)
					if err != nil {
						break
					}
					continue
				}
				m, err := c.ReadMessage()
				if err != nil {
					break
				}
				if len(m) > c.protocol.MaxMessage {
					t.Fatalf("a message of %d bytes", len(m))
				}
				got = append(got, m...)
			}
			if want := messagesIn(b, c.protocol.MaxMessage, asStream); !bytes.Equal(got, want) {
				t.Fatalf("read %x, want %x", got, want)
			}
			if c.Err() == nil {
				t.Fatal("reading ended, but the connection did not")
			}
		}
	})
}

// messagesIn is what a reader has to get out of frames, told in another way.
func messagesIn(b []byte, limit int, asStream bool) (messages []byte) {
	for len(b) >= headerSize {
		n, kind := uint64(binary.LittleEndian.Uint32(b)), b[4]
		b = b[headerSize:]
		switch {
		case kind == kindHeartbeat && n == 0:
		case kind == kindMessage && n <= uint64(limit) && (n <= uint64(len(b)) || asStream):
			n = min(n, uint64(len(b)))
			messages = append(messages, b[:n]...)
			b = b[n:]
		default:
			return messages
		}
	}
	return messages
}

func newFuzzConn(e *Endpoint, b []byte) *Conn {
	w := wire{in: bytes.NewReader(b)}
	c := e.newConn(w, nil, &protocol{Protocol: Protocol{Name: echoProtocol, MaxMessage: 64}}, false)
	c.read.in.Reset(w)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.mu.conns == nil {
		e.mu.conns, e.mu.perPeer = make(map[*Conn]struct{}), make(map[identity.PeerID]int)
	}
	e.mu.conns[c] = struct{}{}
	e.mu.count++
	e.mu.perPeer[c.peer]++
	return c
}
