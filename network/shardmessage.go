package network

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/snapshot"
)

// What an answer to a request for a shard is. The numbers are on the wire.
const (
	shardFound    = 0
	shardNotFound = 1
	shardFailed   = 2
)

const (
	shardRequestSize = 4 + 32 + 8 + 1 + 2 + 4 + 2
	shardAnswerSize  = 4 + 1
	maxShardError    = 512 // bytes of an error's text
)

var errShard = errors.New("malformed message about a shard")

// appendShardRequest appends a request's encoding. It fails if the request does not
// fit into it, which none of a sane one does.
func appendShardRequest(dst []byte, id uint32, r snapshot.Request) ([]byte, error) {
	if r.Shard < 0 || r.Shard > math.MaxUint16 || r.First < 0 || r.First > math.MaxInt32 || r.Count < 0 || r.Count > snapshot.MaxCells {
		return nil, fmt.Errorf("mosaik: shard request: shard %d, first stripe %d, %d cells of at most %d", r.Shard, r.First, r.Count, snapshot.MaxCells)
	}
	dst = binary.LittleEndian.AppendUint32(dst, id)
	dst = append(dst, r.Group[:]...)
	dst = binary.LittleEndian.AppendUint64(dst, r.Segment)
	state := byte(0)
	if r.State {
		state = 1
	}
	dst = append(dst, state)
	dst = binary.LittleEndian.AppendUint16(dst, uint16(r.Shard))
	dst = binary.LittleEndian.AppendUint32(dst, uint32(r.First))
	return binary.LittleEndian.AppendUint16(dst, uint16(r.Count)), nil
}

// setShardID fills in the id of an encoded request.
func setShardID(request []byte, id uint32) []byte {
	binary.LittleEndian.PutUint32(request, id)
	return request
}

// decodeShardRequest decodes what appendShardRequest wrote.
func decodeShardRequest(b []byte) (id uint32, r snapshot.Request, err error) {
	if len(b) != shardRequestSize || b[44] > 1 {
		return 0, r, errShard
	}
	first, count := binary.LittleEndian.Uint32(b[47:]), binary.LittleEndian.Uint16(b[51:])
	if first > math.MaxInt32 || count > snapshot.MaxCells {
		return 0, r, errShard
	}
	return binary.LittleEndian.Uint32(b), snapshot.Request{
		Group: identity.ID(b[4:36]), Segment: binary.LittleEndian.Uint64(b[36:]), State: b[44] == 1,
		Shard: int(binary.LittleEndian.Uint16(b[45:])), First: int(first), Count: int(count),
	}, nil
}

// shardAnswer is the answer to a request.
type shardAnswer struct {
	id      uint32
	status  byte
	content []byte // the bytes asked for, or the text of an error
}

func (a *shardAnswer) appendTo(dst []byte) []byte {
	content := a.content
	if a.status != shardFound {
		content = content[:min(len(content), maxShardError)]
	}
	dst = append(binary.LittleEndian.AppendUint32(dst, a.id), a.status)
	return append(dst, content...)
}

// decodeShardAnswer decodes what appendTo wrote; content is a part of b.
func decodeShardAnswer(b []byte) (a shardAnswer, err error) {
	if len(b) < shardAnswerSize || b[4] > shardFailed || b[4] != shardFound && len(b) > shardAnswerSize+maxShardError {
		return a, errShard
	}
	return shardAnswer{id: binary.LittleEndian.Uint32(b), status: b[4], content: b[shardAnswerSize:]}, nil
}
