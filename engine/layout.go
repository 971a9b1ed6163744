package engine

import (
	"encoding/binary"
	"fmt"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

// The store's keys. Every key starts with the group's 8-byte shard number and a
// one-byte space, so a group is one contiguous range of the store; numbers are
// big-endian, so that they sort. docs/format/store.md draws them.
//
//	shard 8 | space 1 | rest
//	          1 meta    -                       -> state row (meta.go)
//	          2 key     key 32                  -> log row: number, next seq
//	          3 index   number 4, first seq 8   -> postings (index.go)
//	          4 commit  commit number 8, piece 2 -> part of header || body (package log)
//	          5 view    view 4, generation 4, row -> newest version of a row (views.go)
//	          6 history view 4, generation 4, row, commit 8 -> an older one
//	          7 segment number 8                -> manifest of a sealed segment (segments.go)
//
// A commit is stored in pieces of pieceBytes, the last one shorter: who wants one
// record of a large commit reads the first piece, for the header, and the one
// with the record.
const (
	spaceMeta    = 1
	spaceKey     = 2
	spaceIndex   = 3
	spaceCommit  = 4
	spaceView    = 5
	spaceHistory = 6
	spaceSegment = 7
	spaceEnd     = 8 // first space not in use
)

const (
	spaceSize     = 8 + 1
	commitKeySize = spaceSize + 8 + 2
	indexKeySize  = spaceSize + 4 + 8
)

// Rows of the meta space besides the state row, which has no more of a key.
const (
	metaStateHash = 1 // log.StateHash of the group's views
	metaDiverged  = 2 // commit 8 | digest 32: what the majority has, while this replica has not
	metaRefolding = 3 // empty: the views are being built anew
	metaSegments  = 4 // how far the log of segments is taken in (segments.go)
	metaPins      = 5 // commits that are not to be archived
	metaSyncing   = 6 // a state sync is under way (sync.go)
	metaViewsFrom = 7 // commit 8: the views are not known as of earlier ones
)

func appendMetaKey(dst []byte, shard uint64, row byte) []byte {
	return append(appendSpace(dst, shard, spaceMeta), row)
}

func appendSpace(dst []byte, shard uint64, space byte) []byte {
	return append(binary.BigEndian.AppendUint64(dst, shard), space)
}

// pieceBytes is the size of a commit's pieces but the last. It is also the size
// of the store's blocks, so a piece is read with little else.
const pieceBytes = 32 << 10

func appendCommitKey(dst []byte, shard, number uint64, piece int) []byte {
	dst = binary.BigEndian.AppendUint64(appendSpace(dst, shard, spaceCommit), number)
	return binary.BigEndian.AppendUint16(dst, uint16(piece))
}

// decodeCommitKey returns number and piece of a commit row's key.
func decodeCommitKey(key []byte) (number uint64, piece int) {
	return binary.BigEndian.Uint64(key[spaceSize:]), int(binary.BigEndian.Uint16(key[spaceSize+8:]))
}

func appendIndexKey(dst []byte, shard uint64, logNumber uint32, firstSeq uint64) []byte {
	dst = binary.BigEndian.AppendUint32(appendSpace(dst, shard, spaceIndex), logNumber)
	return binary.BigEndian.AppendUint64(dst, firstSeq)
}

func appendLogKey(dst []byte, shard uint64, key identity.ID) []byte {
	return append(appendSpace(dst, shard, spaceKey), key[:]...)
}

// logRow is the value of a key row: the log's number in this store and, as of
// the last time its postings were written, its next seq.
type logRow struct {
	number uint32
	next   uint64
	commit uint64 // commit that holds seq next-1
}

const logRowSize = 4 + 8 + 8

func (r logRow) appendTo(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, r.number)
	dst = binary.LittleEndian.AppendUint64(dst, r.next)
	return binary.LittleEndian.AppendUint64(dst, r.commit)
}

func decodeLogRow(b []byte) (logRow, error) {
	if len(b) != logRowSize {
		return logRow{}, fmt.Errorf("key row has %d bytes of %d", len(b), logRowSize)
	}
	return logRow{
		number: binary.LittleEndian.Uint32(b),
		next:   binary.LittleEndian.Uint64(b[4:]),
		commit: binary.LittleEndian.Uint64(b[12:]),
	}, nil
}

// proposerWindow is how many of a proposer's latest commits a group remembers.
// It bounds the proposals one proposer may have in flight (Options.InFlight).
const proposerWindow = 8

// proposer is what a group remembers of one node that proposes to it, so that a
// proposal sent again after an unknown outcome is applied once, and proposals
// are applied in the order they were made or not at all.
type proposer struct {
	id      uint64                 // number of the member
	epoch   uint64                 // grows with each time the node opens the group
	seq     uint64                 // last applied proposal of the epoch
	commits [proposerWindow]uint64 // commit of proposal n at n % proposerWindow
}

// last returns the commit of the proposer's last proposal.
func (p *proposer) last() uint64 { return p.commits[p.seq%proposerWindow] }

const proposerSize = 3*8 + 8*proposerWindow

// state is a group's meta row: what the store holds of the group, written in
// the same batch as every change of it.
type state struct {
	applied   uint64 // Raft index of the last applied entry
	number    uint64 // last commit
	time      int64  // of that commit
	digest    log.Digest
	records   uint64     // in all commits
	bytes     uint64     // of all bodies
	horizon   uint64     // every posting of commits below it is in the index space
	logs      uint32     // next free log number
	proposers []proposer // sorted by id
}

const (
	stateVersion   = 1
	stateFixedSize = 1 + 8 + 8 + 8 + 32 + 8 + 8 + 8 + 4 + 2
	maxProposers   = 64
)

func (s *state) appendTo(dst []byte) []byte {
	le := binary.LittleEndian
	dst = append(dst, stateVersion)
	dst = le.AppendUint64(dst, s.applied)
	dst = le.AppendUint64(dst, s.number)
	dst = le.AppendUint64(dst, uint64(s.time))
	dst = append(dst, s.digest[:]...)
	dst = le.AppendUint64(dst, s.records)
	dst = le.AppendUint64(dst, s.bytes)
	dst = le.AppendUint64(dst, s.horizon)
	dst = le.AppendUint32(dst, s.logs)
	dst = le.AppendUint16(dst, uint16(len(s.proposers)))
	for i := range s.proposers {
		p := &s.proposers[i]
		dst = le.AppendUint64(dst, p.id)
		dst = le.AppendUint64(dst, p.epoch)
		dst = le.AppendUint64(dst, p.seq)
		for _, c := range p.commits {
			dst = le.AppendUint64(dst, c)
		}
	}
	return dst
}

func decodeState(b []byte) (state, error) {
	var s state
	if len(b) < stateFixedSize {
		return s, fmt.Errorf("state row has %d bytes of %d", len(b), stateFixedSize)
	}
	if b[0] != stateVersion {
		return s, fmt.Errorf("%w: state row version %d, this program knows %d", log.ErrNewerFormat, b[0], stateVersion)
	}
	le := binary.LittleEndian
	s.applied = le.Uint64(b[1:])
	s.number = le.Uint64(b[9:])
	s.time = int64(le.Uint64(b[17:]))
	s.digest = log.Digest(b[25:57])
	s.records = le.Uint64(b[57:])
	s.bytes = le.Uint64(b[65:])
	s.horizon = le.Uint64(b[73:])
	s.logs = le.Uint32(b[81:])
	n := int(le.Uint16(b[85:]))
	b = b[stateFixedSize:]
	if len(b) != n*proposerSize || n > maxProposers {
		return s, fmt.Errorf("state row has %d bytes for %d proposers", len(b), n)
	}
	s.proposers = make([]proposer, n)
	for i := range s.proposers {
		p := &s.proposers[i]
		p.id, p.epoch, p.seq = le.Uint64(b), le.Uint64(b[8:]), le.Uint64(b[16:])
		for j := range p.commits {
			p.commits[j] = le.Uint64(b[24+8*j:])
		}
		b = b[proposerSize:]
	}
	return s, nil
}

func (s *state) head() log.Head {
	return log.Head{Number: s.number, Digest: s.digest, Time: s.time}
}

// totals are the sums a group keeps over its whole log.
type totals struct {
	applied uint64 // Raft index
	records uint64
	bytes   uint64 // of commit bodies
}

func (s *state) total() totals {
	return totals{applied: s.applied, records: s.records, bytes: s.bytes}
}

// epochOf returns the epoch of a proposer's latest proposal; 0 if it has none.
func (s *state) epochOf(id uint64) uint64 {
	for i := range s.proposers {
		if s.proposers[i].id == id {
			return s.proposers[i].epoch
		}
	}
	return 0
}
