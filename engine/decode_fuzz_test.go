package engine

import (
	"bytes"
	"encoding/binary"
	"reflect"
	"strings"
	"testing"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

// The decoders of this package see bytes from the store, from the Raft log and
// from other members. None panics, and what one takes means one thing. The seeds
// stand in testdata/fuzz.

// FuzzProposal decodes the command of a Raft entry and does with it what the
// apply path does: whatever passes becomes a commit that verifies.
func FuzzProposal(f *testing.F) {
	f.Fuzz(func(t *testing.T, cmd []byte) {
		p, err := decodeProposal(cmd)
		if err != nil {
			return
		}
		if again := append(p.appendHeader(nil), p.body...); !bytes.Equal(again, cmd) {
			t.Errorf("%x decodes and encodes to %x", cmd, again)
		}
		records, runs, err := checkBody(p.body)
		if err != nil {
			return
		}
		body := bytes.Clone(p.body)
		next := map[identity.ID]uint64{}
		for offset := 0; offset < len(body); {
			run, after, err := log.NextRun(body, offset)
			if err != nil {
				t.Fatalf("a checked body: %v", err)
			}
			log.SetFirstSeq(body, offset, next[run.Key]+1)
			next[run.Key] += uint64(run.Count)
			offset = after
			runs--
		}
		if runs != 0 {
			t.Errorf("checkBody counts %d runs too many", runs)
		}
		c := log.Commit{Body: body, Header: log.Header{Version: log.HeaderVersion, Number: 1, Body: log.Sum(body), Records: uint32(records)}}
		c.Digest = c.Header.Digest()
		if err := c.Verify(); err != nil {
			t.Errorf("a checked body does not verify: %v", err)
		}
	})
}

// FuzzState decodes a group's meta row.
func FuzzState(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := decodeState(b)
		if err != nil {
			return
		}
		if again := s.appendTo(nil); !bytes.Equal(again, b) {
			t.Errorf("%x decodes and encodes to %x", b, again)
		}
	})
}

// FuzzPostings decodes a chunk of the index, and builds it again as the index
// is built.
func FuzzPostings(f *testing.F) {
	f.Fuzz(func(t *testing.T, first uint64, chunk []byte) {
		postings, err := decodePostings(nil, first, chunk)
		if err != nil {
			return
		}
		var k keyLog
		for _, p := range postings {
			k.add(p)
		}
		again, err := decodePostings(nil, first, k.postings)
		if err != nil || !reflect.DeepEqual(again, postings) {
			t.Errorf("%v becomes %v, %v", postings, again, err)
		}
	})
}

// FuzzStoreFile decodes a store file, with its sum made right, so that what
// stands behind the sum is reached.
func FuzzStoreFile(f *testing.F) {
	f.Fuzz(func(t *testing.T, text string) {
		if _, err := decodeStoreFile(text); err != nil {
			body, _, _ := strings.Cut(text, "\nsum ")
			body += "\n"
			text = body + "sum " + log.Sum([]byte(body)).String() + "\n"
		}
		s, err := decodeStoreFile(text)
		if err != nil {
			return
		}
		again, err := decodeStoreFile(string(s.encode()))
		if err != nil || !reflect.DeepEqual(again, s) {
			t.Errorf("%q is %+v, which encodes to %+v, %v", text, s, again, err)
		}
	})
}

// FuzzReceipt decodes what the applier tells a proposer.
func FuzzReceipt(f *testing.F) {
	f.Fuzz(func(t *testing.T, b, runs []byte) {
		counts := make([]int, len(runs))
		for i, n := range runs {
			counts[i] = int(n)
		}
		r, err := decodeReceipt(1, b, counts)
		if err != nil {
			return
		}
		again := make([]byte, receiptHeaderSize)
		putReceiptHeader(again, r.digest, r.time)
		for _, seq := range r.seqs {
			again = binary.LittleEndian.AppendUint64(again, seq)
		}
		again = appendResults(again, r.results)
		if !bytes.Equal(again, b) {
			t.Errorf("%x decodes and encodes to %x", b, again)
		}
	})
}

// FuzzOffer reads an offer of state until its end or an error.
func FuzzOffer(f *testing.F) {
	row := (&state{}).appendTo(nil)
	f.Add(append(append([]byte{offerVersion, byte(len(row))}, row...), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0))
	f.Fuzz(func(t *testing.T, sent []byte) {
		o, err := readOffer(bytes.NewReader(sent))
		if err != nil {
			return
		}
		size := len(o.segments)
		for {
			row, err := o.row()
			if err != nil || len(row) == 0 {
				return
			}
			if size += len(row); size > len(sent) {
				t.Fatalf("%d bytes hold rows of %d", len(sent), size)
			}
		}
	})
}
