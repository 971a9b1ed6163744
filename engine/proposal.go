package engine

import (
	"encoding/binary"
	"fmt"

	"github.com/mosaik-engine/mosaik/log"
)

// A proposal is the command of one Raft entry: a fixed header, then the body of
// the commit it will become, complete but for the first seqs, which are zero.
//
//	version 1 | time 8 | proposer 8 | epoch 8 | seq 8 | head number 8 | head digest 32 | body
//
// The head is the proposer's own when it made the proposal: by it the others see
// whether it has come to the same bytes as they (witness.go).
const (
	proposalVersion    = 2
	proposalHeaderSize = 1 + 5*8 + 32
)

type proposal struct {
	time     int64 // proposer's clock, Unix nanoseconds
	proposer uint64
	epoch    uint64
	seq      uint64
	head     log.Head // without its time
	body     []byte
}

func (p *proposal) appendHeader(dst []byte) []byte {
	le := binary.LittleEndian
	dst = append(dst, proposalVersion)
	dst = le.AppendUint64(dst, uint64(p.time))
	dst = le.AppendUint64(dst, p.proposer)
	dst = le.AppendUint64(dst, p.epoch)
	dst = le.AppendUint64(dst, p.seq)
	dst = le.AppendUint64(dst, p.head.Number)
	return append(dst, p.head.Digest[:]...)
}

// decodeProposal decodes the command of an entry; the body aliases it.
func decodeProposal(cmd []byte) (proposal, error) {
	if len(cmd) > 0 && cmd[0] > proposalVersion {
		return proposal{}, fmt.Errorf("%w: proposal version %d, this program knows %d", log.ErrNewerFormat, cmd[0], proposalVersion)
	}
	if len(cmd) <= proposalHeaderSize || cmd[0] != proposalVersion {
		return proposal{}, fmt.Errorf("proposal of %d bytes", len(cmd))
	}
	if len(cmd)-proposalHeaderSize > log.MaxBody {
		return proposal{}, fmt.Errorf("proposal body of %d bytes exceeds %d", len(cmd)-proposalHeaderSize, log.MaxBody)
	}
	le := binary.LittleEndian
	return proposal{
		time:     int64(le.Uint64(cmd[1:])),
		proposer: le.Uint64(cmd[9:]),
		epoch:    le.Uint64(cmd[17:]),
		seq:      le.Uint64(cmd[25:]),
		head:     log.Head{Number: le.Uint64(cmd[33:]), Digest: log.Digest(cmd[41:73])},
		body:     cmd[proposalHeaderSize:],
	}, nil
}

// outcome is what applying a proposal came to. It crosses Raft as the entry's
// result value: a commit number, or one of the refusals below, which are the
// same on every replica and change nothing but the applied index.
type outcome uint64

const (
	refusedMalformed outcome = 1<<63 + iota // does not decode; never proposed by this program
	refusedOrder                            // an earlier proposal of the proposer is missing
	refusedEpoch                            // the proposer has opened the group again since
	refusedForgotten                        // applied, but so long ago that its commit is not remembered
)

func (o outcome) refused() bool { return o >= 1<<63 }
