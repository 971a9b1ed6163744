package replay_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/replay"
)

// FuzzVerifyPointer holds a stranger's pointer against a stranger's bytes. What
// passes is what it says: the digest is that of the bytes' header, and the
// record, if it names one, is in them.
func FuzzVerifyPointer(f *testing.F) {
	m := history(f, 2, 1)
	for n := uint64(1); n <= 2; n++ {
		c, err := m.Commit(n)
		if err != nil {
			f.Fatal(err)
		}
		run, err := c.RunAt(0)
		if err != nil {
			f.Fatal(err)
		}
		p := run.Pointer(run.LastSeq())
		f.Add(p.String(), c.AppendTo(nil))
		p.Seq++
		f.Add(p.String(), c.AppendTo(nil))
		f.Add(c.Pointer().String(), c.AppendTo(nil)[:log.HeaderSize])
	}
	f.Fuzz(func(t *testing.T, text string, encoded []byte) {
		p, err := log.ParsePointer(text)
		if err != nil {
			return
		}
		// A pointer that fits the header, so that what stands behind is reached.
		if h, err := log.DecodeHeader(encoded); err == nil {
			p.Group, p.Commit, p.Digest = h.Group, h.Number, h.Digest()
		}
		err = replay.VerifyPointer(p, encoded)
		r, extractErr := replay.Extract(p, encoded)
		var corrupt *log.CorruptionError
		if err != nil && !errors.As(err, &corrupt) && !errors.Is(err, log.ErrPointer) && !errors.Is(err, log.ErrNewerFormat) {
			t.Errorf("%v has no mark", err)
		}
		if (err == nil && p.Seq != 0) != (extractErr == nil) {
			t.Errorf("%s: verified: %v, extracted: %v", p, err, extractErr)
		}
		if err != nil {
			return
		}
		if log.Sum(encoded[:log.HeaderSize]) != p.Digest {
			t.Errorf("%s holds against a header with another digest", p)
		}
		if extractErr == nil && !bytes.Contains(encoded, log.AppendRecord(nil, r.Payload)) {
			t.Errorf("%s: the record %x is not in the bytes", p, r.Payload)
		}
	})
}
