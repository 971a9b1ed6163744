package engine

import (
	"encoding/binary"
	"errors"

	"github.com/mosaik-engine/mosaik/log"
)

// A receipt is what the applier tells the proposer, besides the commit's
// number: digest, time, and the first seq of each run in the order of the
// proposal's body.
//
//	digest 32 | time 8 | first seq 8 ...
const receiptHeaderSize = 32 + 8

func receiptSize(runs int) int { return receiptHeaderSize + 8*runs }

func putReceiptHeader(b []byte, digest log.Digest, time int64) {
	copy(b, digest[:])
	binary.LittleEndian.PutUint64(b[32:], uint64(time))
}

// receipt is a decoded receipt with its commit's number.
type receipt struct {
	number uint64
	digest log.Digest
	time   int64
	seqs   []uint64 // first seq per run
}

var errReceipt = errors.New("mosaik: receipt does not fit its proposal")

func decodeReceipt(number uint64, b []byte, runs int) (receipt, error) {
	if len(b) != receiptSize(runs) {
		return receipt{}, errReceipt
	}
	r := receipt{number: number, digest: log.Digest(b[:32]), time: int64(binary.LittleEndian.Uint64(b[32:])), seqs: make([]uint64, runs)}
	for i := range r.seqs {
		r.seqs[i] = binary.LittleEndian.Uint64(b[receiptHeaderSize+8*i:])
	}
	return r, nil
}

// receiptOf rebuilds the receipt of a proposal that was applied at an earlier
// attempt, from its commit: the runs stand in it in the order of the proposal.
func receiptOf(c *log.Commit) (receipt, error) {
	r := receipt{number: c.Header.Number, digest: c.Digest, time: c.Header.Time}
	for run, err := range c.Runs() {
		if err != nil {
			return receipt{}, err
		}
		r.seqs = append(r.seqs, run.FirstSeq)
	}
	return r, nil
}
