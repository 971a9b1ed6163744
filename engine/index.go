package engine

import (
	"encoding/binary"
	"errors"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

// The index answers: where is seq s of key k? One posting per run says in which
// commit and where in its body it stands. A row of the store per posting would
// cost a quarter of the write rate when every record of a commit has another
// key, so postings gather in memory per key and are written as one row when
// there are chunkPostings of them, or when the oldest has waited for
// indexLagBytes of bodies or indexLagCommits. What is not written yet is found again after a
// restart by reading the run headers of the commits from state.horizon on; that
// lag is all that Open has to read, however long the log is.
const (
	chunkPostings   = 128
	indexLagBytes   = 32 << 20
	indexLagCommits = 32768
)

// posting locates one run.
type posting struct {
	commit   uint64
	firstSeq uint64
	count    int
	offset   int // of the run in the commit's body
}

// keyLog is a key's log as the index knows it. The applier alone writes it.
// Fields in the first block belong to the applier; the others are read by
// scanners and guarded by replica.mu.
type keyLog struct {
	key       identity.ID
	number    uint32 // 0 until the first chunk is written
	nextApply uint64 // seq the applier gives out next
	closing   bool   // the open chunk is in the batch of the update in progress
	resolved  bool   // view is known

	view           *log.ViewInfo // how the log is folded, once resolved; nil: it is not
	viewGeneration uint32        // the view is in
	viewSince      uint64        // commit that began it
	next           uint64        // next seq as published: records are 1..next-1
	commit         uint64        // commit that holds next-1
	chunkFirst     uint64        // first seq of the open chunk, when postings is not empty
	chunkBase      uint64        // commit of the open chunk's first posting
	chunkLen       int           // postings in the open chunk
	postings       []byte        // the open chunk, encoded
}

// add appends a posting to the open chunk. REQUIRES: replica.mu.
func (k *keyLog) add(p posting) {
	if k.chunkLen == 0 {
		k.chunkFirst, k.chunkBase = p.firstSeq, p.commit
		k.commit = p.commit
		k.postings = binary.AppendUvarint(k.postings[:0], p.commit)
	} else {
		k.postings = binary.AppendUvarint(k.postings, p.commit-k.commit)
	}
	k.postings = binary.AppendUvarint(k.postings, uint64(p.offset))
	k.postings = binary.AppendUvarint(k.postings, uint64(p.count))
	k.chunkLen++
	k.commit = p.commit
	k.next = p.firstSeq + uint64(p.count)
}

// closeChunk forgets the open chunk, which is on its way to the store.
// REQUIRES: replica.mu.
func (k *keyLog) closeChunk() {
	k.chunkLen = 0
	k.closing = false
	k.postings = nil // an idle key keeps no buffer
}

var (
	errNoPostings = errors.New("chunk without postings")
	errPostings   = errors.New("postings are cut short")
	errPosting    = errors.New("posting exceeds a commit")
)

// decodePostings appends the postings of a chunk that starts at firstSeq to dst.
// A chunk is, per run: commit (the first in full, then the difference), offset,
// count, all uvarints. There is at least one.
func decodePostings(dst []posting, firstSeq uint64, chunk []byte) ([]posting, error) {
	if len(chunk) == 0 {
		return dst, errNoPostings
	}
	var commit uint64
	for len(chunk) > 0 {
		var v [3]uint64
		for i := range v {
			x, n := binary.Uvarint(chunk)
			if n <= 0 {
				return dst, errPostings
			}
			v[i], chunk = x, chunk[n:]
		}
		if v[1] > log.MaxBody || v[2] == 0 || v[2] > log.MaxBody {
			return dst, errPosting
		}
		commit += v[0]
		dst = append(dst, posting{commit: commit, firstSeq: firstSeq, count: int(v[2]), offset: int(v[1])})
		firstSeq += v[2]
	}
	return dst, nil
}

// dirtyLog is an entry of the applier's queue of open chunks, oldest first.
type dirtyLog struct {
	log   *keyLog
	base  uint64 // log.chunkBase when it was queued; differs once the chunk was closed
	bytes uint64 // state.bytes when it was queued
}

// open reports whether the chunk that was queued is still the log's open one
// and not about to be written.
func (d *dirtyLog) open() bool {
	return d.log.chunkLen > 0 && !d.log.closing && d.log.chunkBase == d.base
}
