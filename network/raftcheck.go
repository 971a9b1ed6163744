package network

import (
	"errors"
	"fmt"
	"path"

	pb "github.com/lni/dragonboat/v4/raftpb"
	"google.golang.org/protobuf/encoding/protowire"
)

// The Raft library trusts its peers: a message of a kind that hosts only send to
// themselves, without a receiver, or from a replica that another address has, ends
// the whole process. Bonds make sure that it is a member who speaks, not that the
// member is sane. So what comes in is looked at here before the library sees it.

var (
	errBatch = errors.New("malformed batch of Raft messages")
	errChunk = errors.New("malformed piece of a snapshot")
)

// Fields of the library's messages, and the smallest sizes it encodes them in: a
// message has all its fields, zero or not, and an entry is a term, a command or more.
const (
	batchRequests  = 1  // MessageBatch.requests
	messageEntries = 11 // Message.entries
	minMessage     = 20
	minEntry       = 3
)

// checkBatch walks over the encoding of a batch, because the library's decoder
// believes every length, and because a message that is empty has 2 bytes on the wire
// and hundreds in memory. What passes takes less than 20 times its size.
func checkBatch(b []byte) error {
	return eachField(b, batchRequests, func(message []byte) error {
		if len(message) < minMessage {
			return fmt.Errorf("%w: a message of %d bytes", errBatch, len(message))
		}
		return eachField(message, messageEntries, func(entry []byte) error {
			if len(entry) < minEntry {
				return fmt.Errorf("%w: an entry of %d bytes", errBatch, len(entry))
			}
			return nil
		})
	})
}

// eachField calls f with every occurrence of a field that holds bytes.
func eachField(b []byte, field protowire.Number, f func([]byte) error) error {
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return fmt.Errorf("%w: %w", errBatch, protowire.ParseError(n))
		}
		b = b[n:]
		if n = protowire.ConsumeFieldValue(number, kind, b); n < 0 {
			return fmt.Errorf("%w: %w", errBatch, protowire.ParseError(n))
		}
		if number == field && kind == protowire.BytesType {
			value, _ := protowire.ConsumeBytes(b)
			if err := f(value); err != nil {
				return err
			}
		}
		b = b[n:]
	}
	return nil
}

// decodeBatch decodes a batch of messages, which shares no memory with b.
func decodeBatch(b []byte) (batch pb.MessageBatch, err error) {
	if err := checkBatch(b); err != nil {
		return batch, err
	}
	defer recovered(&err, errBatch)
	if err := batch.Unmarshal(b); err != nil {
		return batch, fmt.Errorf("%w: %w", errBatch, err)
	}
	return batch, nil
}

// decodeChunk decodes a piece of a snapshot, which shares no memory with b.
func decodeChunk(b []byte) (chunk pb.Chunk, err error) {
	defer recovered(&err, errChunk)
	if err := chunk.Unmarshal(b); err != nil {
		return chunk, fmt.Errorf("%w: %w", errChunk, err)
	}
	return chunk, nil
}

// recovered makes a panic of the library's decoders, which are generated for peers
// that are trusted, an error.
func recovered(err *error, of error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("%w: %v", of, p)
	}
}

// betweenHosts reports whether hosts send messages of a kind to each other.
// Snapshots are not among them: they come in pieces, over their own connection.
func betweenHosts(t pb.MessageType) bool {
	switch t {
	case pb.NoOP, pb.Propose, pb.Replicate, pb.ReplicateResp, pb.RequestVote, pb.RequestVoteResp,
		pb.RequestPreVote, pb.RequestPreVoteResp, pb.Heartbeat, pb.HeartbeatResp, pb.ReadIndex, pb.ReadIndexResp,
		pb.Quiesce, pb.SnapshotReceived, pb.LeaderTransfer, pb.TimeoutNow, pb.RateLimit:
		return true
	}
	return false
}

// admissible keeps the messages that the remote peer may send to this one, in place.
func (c *Conn) admissible(messages []pb.Message) []pb.Message {
	table := c.e.groups.Load()
	counters := c.e.counters
	kept := messages[:0]
	for i := range messages {
		m := &messages[i]
		switch g := table.byShard[m.ShardID]; {
		case g == nil || !c.Carries(g.ID):
			counters.raftUnprovenIn.Add(1)
		case !betweenHosts(m.Type):
			counters.raftLocal.Add(1)
		case !c.between(g, m.From, m.To):
			counters.raftForeign.Add(1)
		default:
			kept = append(kept, *m)
		}
	}
	return kept
}

// between reports whether a message goes from the remote peer's replica to this
// node's.
func (c *Conn) between(g *Group, from, to uint64) bool {
	return g.member(from) == c.peer && g.member(to) == c.e.peer
}

// admissibleChunk reports whether the remote peer may send a piece to this one. The
// library gives up, with the whole process, on a name that it cannot make a file of, and
// on a piece that continues a file that does not exist. This engine's snapshots are one
// file of a known name, without further ones.
func (c *Conn) admissibleChunk(chunk *pb.Chunk) bool {
	g := c.e.groups.Load().byShard[chunk.ShardID]
	switch {
	case g == nil || !c.Carries(g.ID):
		c.e.counters.raftUnprovenIn.Add(1)
	case !c.between(g, chunk.From, chunk.ReplicaID):
		c.e.counters.raftForeign.Add(1)
	case path.Base(chunk.Filepath) != fmt.Sprintf("snapshot-%016X.gbsnap", chunk.Index), chunk.HasFileInfo, chunk.Witness,
		chunk.FileChunkId != chunk.ChunkId:
		c.e.counters.raftLocal.Add(1)
	default:
		return true
	}
	return false
}
