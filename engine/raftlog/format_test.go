package raftlog

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	pb "github.com/lni/dragonboat/v4/raftpb"
)

// TestFormatDocument keeps docs/format/raftlog.md and the constants together.
func TestFormatDocument(t *testing.T) {
	b, err := os.ReadFile("../../docs/format/raftlog.md")
	if err != nil {
		t.Fatal(err)
	}
	doc := string(b)
	for name, value := range map[string]any{
		"format version": formatVersion, "magic": magic, "record header bytes": headerBytes,
		"item header bytes": itemHeaderBytes, "open meta bytes": openMetaBytes, "largest meta": maxMetaBytes,
		"largest record": maxRecordBytes, "largest FileBytes": maxFileBytes, "smallest FileBytes": minFileBytes,
		"type open": uint8(recordOpen), "type update": uint8(recordUpdate), "type closed": uint8(recordClosed),
		"flag state": flagState, "flag bootstrap": flagBootstrap, "flag snapshot": flagSnapshot, "flag reset": flagReset,
		"flag clear": flagClear, "flag first": flagFirst, "flag moved": flagMoved,
		"seed multiplier": fmt.Sprintf("%#x", uint64(0x9E3779B97F4A7C15)), "mask multiplier": fmt.Sprintf("%#x", uint64(0xD6E8FEB86659FD93)),
	} {
		if row := fmt.Sprintf("| %s | %v |", name, value); !strings.Contains(doc, row) {
			t.Errorf("docs/format/raftlog.md lacks the row %q", row)
		}
	}
}

// TestGoldenRecord pins the bytes of one record.
func TestGoldenRecord(t *testing.T) {
	var e encoder
	e.update(change{
		flags: flagState | flagFirst, shardID: 300, replicaID: 2, state: pb.State{Term: 5, Vote: 1, Commit: 6}, first: 3, index: 7,
	}, []pb.Entry{{Term: 5, Index: 7, Type: pb.EncodedEntry, Key: 129, SeriesID: 1, Cmd: []byte("cmd")}}, nil)
	place(e.buf, fileSeed(9, 0x1122334455667788), 4096, 4000)
	const want = "1c000000" + "02" + "21" + "0900" + "a00f0000" + "5360d451" + // header
		"ac02" + "02" + "050106" + "03" + "01" + "07" + // meta
		"0b000000" + "8e86e31c" + "05" + "07" + "02" + "8101" + "00" + "01" + "00" + "636d64" // entry
	if got := fmt.Sprintf("%x", e.buf); got != want {
		t.Errorf("record\n got %s\nwant %s", got, want)
	}
}

func TestEntryRoundTrip(t *testing.T) {
	for _, e := range []pb.Entry{
		{}, {Cmd: []byte{0}},
		{Term: math.MaxUint64, Index: math.MaxUint64, Type: math.MaxInt32, Key: math.MaxUint64, ClientID: math.MaxUint64,
			SeriesID: math.MaxUint64, RespondedTo: math.MaxUint64, Cmd: bytes.Repeat([]byte{7}, 1000)},
		{Type: -1},
	} {
		got, err := decodeEntry(appendEntry(nil, &e))
		if err != nil || !reflect.DeepEqual(got, e) {
			t.Errorf("%+v became %+v, %v", e, got, err)
		}
	}
}

// FuzzRecord feeds bytes to the decoders of a record. Whatever they are, decoding ends with a value or errInvalid, and
// a record that is accepted lies within the bytes.
func FuzzRecord(f *testing.F) {
	const seed = 42
	var e encoder
	e.update(change{flags: flagState | flagBootstrap | flagSnapshot, shardID: 1, replicaID: 1, index: 1,
		snapshot: []byte{}, bootstrap: []byte{1}}, []pb.Entry{{Term: 1, Index: 1, Cmd: []byte("x")}}, nil)
	e.closed()
	for _, r := range e.recs {
		rec := append([]byte(nil), e.buf[r.start:r.end]...)
		f.Add(rec)
	}
	e.reset()
	start := e.open(openInfo{version: 1, number: 1, salt: 2, replicas: 1})
	at := e.beginItem()
	e.buf = appendReplicaState(e.buf, replicaState{shardID: 1, count: 3, snapshot: []byte{1}})
	e.endItem(at)
	e.endRecord(start)
	f.Add(e.buf)
	f.Fuzz(func(t *testing.T, b []byte) {
		// Checksums are made right where the structure lets us, so that the code behind them is reached.
		fixed := fixSums(append([]byte(nil), b...), seed)
		for _, data := range [][]byte{b, fixed} {
			w := &window{h: vfs.NewMemFile(data), size: int64(len(data))}
			var rec record
			if err := w.readRecord(&rec, seed, 0, w.size); err == nil {
				if rec.end() > w.size {
					t.Fatalf("record ends at %d of %d", rec.end(), w.size)
				}
				c, err := w.readChange(&rec)
				if err == nil {
					for _, s := range c.entries {
						if _, err := decodeEntry(data[s.off+itemHeaderBytes:][:s.length]); err != nil && !errors.Is(err, errInvalid) {
							t.Fatal(err)
						}
					}
				} else if !errors.Is(err, errInvalid) {
					t.Fatal(err)
				}
			} else if !errors.Is(err, errInvalid) {
				t.Fatal(err)
			}
			if _, _, err := w.readOpen(&rec, 1); err != nil && !errors.Is(err, errInvalid) && !errors.Is(err, ErrNewerFormat) {
				t.Fatal(err)
			}
			if _, _, err := w.provenAfter(seed, 0); err != nil {
				t.Fatal(err)
			}
			if _, err := decodeReplicaState(data); err != nil && !errors.Is(err, errInvalid) {
				t.Fatal(err)
			}
		}
	})
}

// fixSums gives the record in b, if it has the form of one, right checksums.
func fixSums(b []byte, seed uint64) []byte {
	if len(b) < headerBytes {
		return b
	}
	h, ok := decodeHeader(b)
	end := headerBytes + h.length
	if !ok || end > len(b) {
		return b
	}
	for at := headerBytes + h.meta; at < end; {
		if end-at < itemHeaderBytes {
			return b
		}
		n := itemHeaderBytes + int(uint32(b[at])|uint32(b[at+1])<<8|uint32(b[at+2])<<16|uint32(b[at+3])<<24)
		if n > end-at {
			return b
		}
		sum := itemSum(b[at : at+n])
		b[at+4], b[at+5], b[at+6], b[at+7] = byte(sum), byte(sum>>8), byte(sum>>16), byte(sum>>24)
		at += n
	}
	place(b[:end], seed, 0, 0)
	return b
}
