package engine

import (
	"encoding/binary"
	"errors"

	"github.com/mosaik-engine/mosaik/log"
)

// A receipt is what the applier tells the proposer, besides the commit's
// number: digest, time, and the first seq of each run in the order of the
// proposal's body. Then, for each run that machines have folded, what they
// returned for its records.
//
//	digest 32 | time 8 | first seq 8 ... | run uvarint, (size uvarint, result) ... | ...
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
	// results are those of the records, per run; nil for runs that no machine folded.
	results [][][]byte
}

var errReceipt = errors.New("mosaik: receipt does not fit its proposal")

// decodeReceipt decodes the receipt of a proposal whose runs have counts records.
// The results alias b.
func decodeReceipt(number uint64, b []byte, counts []int) (receipt, error) {
	runs := len(counts)
	if len(b) < receiptSize(runs) {
		return receipt{}, errReceipt
	}
	r := receipt{number: number, digest: log.Digest(b[:32]), time: int64(binary.LittleEndian.Uint64(b[32:])), seqs: make([]uint64, runs)}
	for i := range r.seqs {
		r.seqs[i] = binary.LittleEndian.Uint64(b[receiptHeaderSize+8*i:])
	}
	b = b[receiptSize(runs):]
	if len(b) > 0 {
		r.results = make([][][]byte, runs)
	}
	for next := uint64(0); len(b) > 0; {
		run, n := shortUvarint(b)
		if n <= 0 || run < next || run >= uint64(runs) {
			return receipt{}, errReceipt
		}
		b, next = b[n:], run+1
		r.results[run] = make([][]byte, counts[run])
		for i := range r.results[run] {
			size, n := shortUvarint(b)
			if n <= 0 || size > uint64(len(b)-n) {
				return receipt{}, errReceipt
			}
			end := n + int(size)
			r.results[run][i], b = b[n:end:end], b[end:]
		}
	}
	return r, nil
}

// shortUvarint decodes a uvarint in its shortest form; n <= 0: there is none.
func shortUvarint(b []byte) (x uint64, n int) {
	x, n = binary.Uvarint(b)
	if n > 1 && x>>(7*(n-1)) == 0 {
		return 0, 0
	}
	return x, n
}

// appendResults appends the results of the runs to a receipt.
func appendResults(dst []byte, runs [][][]byte) []byte {
	for i, results := range runs {
		if results == nil {
			continue
		}
		dst = binary.AppendUvarint(dst, uint64(i))
		for _, result := range results {
			dst = append(binary.AppendUvarint(dst, uint64(len(result))), result...)
		}
	}
	return dst
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
