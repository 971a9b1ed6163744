package log

import (
	"bytes"
	"errors"
	"reflect"
	"testing"
)

// The decoders of this package see bytes from disks and from strangers. None
// panics, none takes two spellings for one value, and what one takes encodes to
// the same bytes again. The seeds stand in testdata/fuzz.

func FuzzParsePosition(f *testing.F) {
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParsePosition(text)
		if err != nil {
			if !errors.Is(err, ErrPosition) && !errors.Is(err, ErrPointer) {
				t.Errorf("ParsePosition(%q): %v has no mark", text, err)
			}
			return
		}
		if p.String() != text {
			t.Errorf("ParsePosition(%q) prints as %q", text, p)
		}
		if err := p.Validate(); err != nil {
			t.Errorf("ParsePosition(%q) is not valid: %v", text, err)
		}
	})
}

func FuzzParsePointer(f *testing.F) {
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParsePointer(text)
		if err != nil {
			if !errors.Is(err, ErrPointer) {
				t.Errorf("ParsePointer(%q): %v has no mark", text, err)
			}
			return
		}
		if p.String() != text {
			t.Errorf("ParsePointer(%q) prints as %q", text, p)
		}
		if back, err := ParsePosition(text); err != nil || back != At(p) {
			t.Errorf("as a position, %q is %v, %v", text, back, err)
		}
	})
}

// hasMark reports whether err is one that a decoder of stored bytes may give.
func hasMark(err error) bool {
	var corrupt *CorruptionError
	return errors.As(err, &corrupt) || errors.Is(err, ErrNewerFormat)
}

func FuzzDecodeCommit(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := DecodeCommit(b)
		if err != nil {
			if !hasMark(err) {
				t.Errorf("DecodeCommit: %v has no mark", err)
			}
			return
		}
		if again := c.AppendTo(nil); !bytes.Equal(again, b) {
			t.Errorf("%x decodes and encodes to %x", b, again)
		}
		if err := c.Verify(); err != nil && !hasMark(err) {
			t.Errorf("Verify: %v has no mark", err)
		}
	})
}

// FuzzDecodeBody puts the bytes into a commit that is right about their hash, so
// that the structure is all that can be wrong. The number of records is the
// bytes' own claim or, if they have no structure, nothing.
func FuzzDecodeBody(f *testing.F) {
	f.Fuzz(func(t *testing.T, body []byte) {
		if len(body) > MaxBody {
			return
		}
		c := Commit{Body: body, Header: Header{Version: HeaderVersion, Number: 1, Body: Sum(body)}}
		c.Digest = c.Header.Digest()
		var rebuilt []byte
		for run, err := range c.Runs() {
			if err != nil {
				if !hasMark(err) {
					t.Errorf("Runs: %v has no mark", err)
				}
				if c.Verify() == nil {
					t.Error("a body without structure verifies")
				}
				return
			}
			at, err := c.RunAt(run.Offset())
			if err != nil || !reflect.DeepEqual(at, run) {
				t.Errorf("RunAt(%d) = %v, %v, Runs yields %v", run.Offset(), at, err, run)
			}
			c.Header.Records += uint32(run.Count)
			var records []byte
			count, middle := 0, run.FirstSeq+uint64(run.Count)/2
			for seq, payload := range run.Records() {
				if seq != run.FirstSeq+uint64(count) {
					t.Fatalf("record %d has seq %d, the first %d", count, seq, run.FirstSeq)
				}
				count++
				records = AppendRecord(records, payload)
			}
			rebuilt = AppendRun(rebuilt, run.Key, run.FirstSeq, run.Count, records)
			if run.FirstSeq == 0 || run.LastSeq() < run.FirstSeq || run.Check() != nil {
				_, _ = run.From(middle), run.through(middle) // must not panic; there is nothing to compare
				continue
			}
			if count != run.Count {
				t.Errorf("a good run of %d records yields %d", run.Count, count)
			}
			checkCuts(t, run, middle)
		}
		c.Digest = c.Header.Digest()
		if c.Verify() == nil && !bytes.Equal(rebuilt, body) {
			t.Errorf("%x verifies and encodes to %x", body, rebuilt)
		}
	})
}

// checkCuts cuts a good run at seq and compares the two parts with the whole.
func checkCuts(t *testing.T, run Run, seq uint64) {
	t.Helper()
	head, tail := run.through(seq), run.From(seq)
	for name, part := range map[string]*Run{"through": &head, "From": &tail} {
		if err := part.Check(); err != nil {
			t.Errorf("%s(%d) of a good run: %v", name, seq, err)
		}
	}
	if head.FirstSeq != run.FirstSeq || head.LastSeq() != seq || tail.FirstSeq != seq || tail.LastSeq() != run.LastSeq() {
		t.Errorf("run %d-%d cut at %d gives %d-%d and %d-%d", run.FirstSeq, run.LastSeq(), seq,
			head.FirstSeq, head.LastSeq(), tail.FirstSeq, tail.LastSeq())
	}
	if whole := (&run).through(run.LastSeq() + 1); !reflect.DeepEqual(whole, run) {
		t.Errorf("cut behind its end, the run changed: %v, was %v", whole, run)
	}
	if !bytes.HasPrefix(run.records, head.records) || !bytes.HasSuffix(run.records, tail.records) {
		t.Errorf("the parts of a run hold other bytes than the run")
	}
}

// FuzzCBOR: whatever decodes can be encoded, and from there on is stable.
func FuzzCBOR(f *testing.F) {
	codec := CBOR[any]()
	f.Fuzz(func(t *testing.T, b []byte) {
		if rest, err := checkCBOR(b, 0); err == nil && len(rest) > len(b) {
			t.Fatalf("%d bytes are left of %d", len(rest), len(b))
		}
		v, err := codec.Decode(b)
		if err != nil {
			if !errors.Is(err, ErrCodec) {
				t.Errorf("Decode: %v has no mark", err)
			}
			return
		}
		first, err := codec.Append(nil, v)
		if err != nil {
			// Two keys that differ only in form, 1 and 1 with a leading zero byte, are one
			// for the encoder.
			if !errors.Is(err, ErrCodec) {
				t.Errorf("Append: %v has no mark", err)
			}
			return
		}
		back, err := codec.Decode(first)
		if err != nil {
			t.Fatalf("%x decodes, encodes to %x, and that does not decode: %v", b, first, err)
		}
		second, err := codec.Append(nil, back)
		if err != nil || !bytes.Equal(first, second) {
			t.Errorf("%x encodes to %x and then to %x, %v", b, first, second, err)
		}
	})
}
