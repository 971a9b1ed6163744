package replay_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"lukechampine.com/blake3"
	"pgregory.net/rapid"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/replay"
)

// TestDigestIsWhatTheDocumentSays computes a range digest from the package
// comment alone.
func TestDigestIsWhatTheDocumentSays(t *testing.T) {
	ctx := context.Background()
	m := history(t, 40, 5)
	for _, r := range [][2]uint64{{1, 40}, {0, 0}, {7, 7}, {12, 30}, {41, 0}} {
		var cat []byte
		from, to := max(r[0], 1), r[1]
		if to == 0 {
			to = 40
		}
		for n := from; n <= to; n++ {
			c, err := m.Commit(n)
			if err != nil {
				t.Fatal(err)
			}
			cat = append(cat, c.Digest[:]...)
		}
		want := log.Digest(blake3.Sum256(cat))
		for range 2 { // replaying twice gives the same
			got, err := replay.Digest(ctx, m, r[0], r[1])
			if err != nil || got != want {
				t.Errorf("%v: %s, %v, want %s", r, got, err, want)
			}
		}
	}
}

// TestDigestChecks: a digest of damaged bytes is refused, not computed.
func TestDigestChecks(t *testing.T) {
	p := of(t, history(t, 20, 5))
	body := p.commits[9][log.HeaderSize:]
	body[len(body)-1] ^= 1
	_, err := replay.Digest(context.Background(), p, 0, 0)
	wantCorrupt(t, err, 10)
	if _, err := replay.Digest(context.Background(), p, 11, 0); err != nil {
		t.Errorf("behind the damage: %v", err)
	}
}

// TestCommitsKeepsNothing breaks out of loops everywhere and reads on.
func TestCommitsStops(t *testing.T) {
	m := history(t, 30, 5)
	for stop := uint64(1); stop <= 30; stop++ {
		var last uint64
		for c, err := range replay.Commits(context.Background(), m, 1, 0) {
			if err != nil {
				t.Fatal(err)
			}
			last = c.Header.Number
			if last == stop {
				break
			}
		}
		if last != stop {
			t.Fatalf("stopped at %d, want %d", last, stop)
		}
	}
}

func TestFold(t *testing.T) {
	ctx := context.Background()
	m := history(t, 30, 5)
	records, err := replay.Fold(ctx, m, 4, 20, uint64(100), func(n uint64, c log.Commit) (uint64, error) {
		return n + uint64(c.Header.Records), nil
	})
	report, auditErr := audit(m, 4, 20)
	if err != nil || auditErr != nil || records != 100+report.Records {
		t.Errorf("%d records, %v; the audit says %d, %v", records, err, report.Records, auditErr)
	}
	refusal := errors.New("enough")
	at, err := replay.Fold(ctx, m, 1, 0, uint64(0), func(_ uint64, c log.Commit) (uint64, error) {
		if c.Header.Number == 7 {
			return 1000, refusal
		}
		return c.Header.Number, nil
	})
	if at != 6 || err != refusal {
		t.Errorf("state %d, %v, want that before the refusal", at, err)
	}
}

// TestFoldKey reads each key by folding, and by scanning.
func TestFoldKey(t *testing.T) {
	ctx := context.Background()
	m := history(t, 60, 6)
	for _, key := range keys {
		for _, r := range [][2]uint64{{1, 0}, {1, 30}, {25, 60}} {
			var want []string
			for run, err := range m.Scan(ctx, log.Query{Key: key}) {
				if err != nil {
					t.Fatal(err)
				}
				for seq, payload := range run.Records() {
					if run.Commit >= r[0] && (r[1] == 0 || run.Commit <= r[1]) {
						want = append(want, fmt.Sprint(run.Pointer(seq), run.Time, payload))
					}
				}
			}
			got, err := replay.FoldKey(ctx, m, key, r[0], r[1], []string(nil), func(s []string, r replay.Record) ([]string, error) {
				return append(s, fmt.Sprint(r.Pointer, r.Time, r.Payload)), nil
			})
			if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%s %v: %d records, %v, want %d", key.Short(), r, len(got), err, len(want))
			}
		}
	}
	refusal := errors.New("enough")
	n, err := replay.FoldKey(ctx, m, keys[0], 0, 0, 0, func(n int, r replay.Record) (int, error) {
		if n == 5 {
			return 0, refusal
		}
		return n + 1, nil
	})
	if n != 5 || err != refusal {
		t.Errorf("state %d, %v", n, err)
	}
	p := of(t, m)
	var second uint64 // the second commit with keys[0] in it
	for i := uint64(1); ; i++ {
		c, err := p.Commit(i)
		if err != nil {
			t.Fatal(err)
		}
		if run, err := c.RunAt(0); err != nil || run.Key != keys[0] {
			continue
		} else if run.FirstSeq > 1 {
			second = i
			break
		}
	}
	p.change(t, second, true, func(c *log.Commit) { log.SetFirstSeq(c.Body, 0, 5000) })
	count := func(n int, _ replay.Record) (int, error) { return n + 1, nil }
	_, err = replay.FoldKey(ctx, p, keys[0], 0, 0, 0, count)
	wantCorrupt(t, err, second)
	if _, err := replay.FoldKey(ctx, p, keys[1], 0, 0, 0, count); err != nil {
		t.Errorf("another key: %v", err)
	}
}

func TestCompare(t *testing.T) {
	ctx := context.Background()
	const n = 40
	m := history(t, n, 8)
	want := func(name string, a, b replay.Source, from, to uint64, kind replay.DifferenceKind, commit uint64) {
		t.Helper()
		d, err := replay.Compare(ctx, a, b, from, to)
		if err != nil || d.Kind != kind || d.Commit != commit {
			t.Errorf("%s: %+v, %v; want %v at %d", name, d, err, kind, commit)
		}
		switch {
		case kind == replay.OtherDigest && (d.First == d.Second || d.First.IsZero() || d.Second.IsZero()),
			kind == replay.OtherBody && (d.First != d.Second || d.First.IsZero()),
			kind == replay.MissingFirst && (!d.First.IsZero() || d.Second.IsZero()),
			kind == replay.MissingSecond && (d.First.IsZero() || !d.Second.IsZero()):
			t.Errorf("%s: digests %+v", name, d)
		}
	}
	want("equal", m, of(t, m), 0, 0, replay.Same, 0)
	want("both empty", log.NewMemory(group), log.NewMemory(group), 0, 0, replay.Same, 0)
	want("one empty", log.NewMemory(group), m, 0, 0, replay.MissingFirst, 1)
	for at := uint64(1); at <= n; at++ {
		forked := of(t, m)
		forked.change(t, at, true, func(c *log.Commit) { c.Header.Time++ })
		want("forked", m, forked, 0, 0, replay.OtherDigest, at)
		want("forked, seen from behind", forked, m, n, n, replay.OtherDigest, n)

		if at > 1 {
			want("before the fork", m, forked, 1, at-1, replay.Same, 0)
			short := of(t, history(t, int(at)-1, 8))
			want("shorter", m, short, 0, 0, replay.MissingSecond, at)
			want("shorter, the other way", short, m, 0, 0, replay.MissingFirst, at)
		}

		rotten := of(t, m)
		rotten.commits[at-1][len(rotten.commits[at-1])-1] ^= 1
		want("body", m, rotten, 0, 0, replay.OtherBody, at)
		if at < n {
			d, err := replay.Diverge(ctx, m, rotten, 0, 0)
			if err != nil || d.Kind != replay.Same {
				t.Errorf("digests alone: %+v, %v", d, err)
			}
			// The damaged body is before the fork: it comes first.
			both := of(t, m)
			both.change(t, at+1, true, func(c *log.Commit) { c.Header.Time++ })
			both.commits[at-1][len(both.commits[at-1])-1] ^= 1
			want("body, then forked", m, both, 0, 0, replay.OtherBody, at)

			// A header rewritten in place: the chain behind it does not know.
			patched := of(t, m)
			patched.change(t, at, false, func(c *log.Commit) { c.Header.State[0]++ })
			want("header", m, patched, 0, 0, replay.OtherDigest, at)
		}
	}
	other := of(t, m)
	other.id = identity.NewID("another")
	if _, err := replay.Compare(ctx, m, other, 0, 0); !errors.Is(err, log.ErrQuery) {
		t.Errorf("another group: %v", err)
	}
	if _, err := replay.Compare(ctx, m, m, 1, n+1); !errors.Is(err, log.ErrNotFound) {
		t.Errorf("past both heads: %v", err)
	}
	broken := of(t, m)
	broken.fail[9] = &log.CorruptionError{File: "f", Err: errors.New("rot")}
	_, err := replay.Compare(ctx, m, broken, 0, 0)
	wantCorrupt(t, err, 9)
	_, err = replay.Compare(ctx, broken, m, 0, 0)
	wantCorrupt(t, err, 9)
}

// counted counts the commits read one by one.
type counted struct {
	replay.Source
	reads int
}

func (c *counted) Commit(n uint64) (log.Commit, error) {
	c.reads++
	return c.Source.Commit(n)
}

// TestDivergeReadsLittle: a digest stands for what is before it.
func TestDivergeReadsLittle(t *testing.T) {
	m := history(t, 1000, 8)
	forked := of(t, m)
	forked.change(t, 333, true, func(c *log.Commit) { c.Header.Time++ })
	for _, c := range []struct {
		b     replay.Source
		want  uint64
		reads int
	}{{of(t, m), 0, 1}, {forked, 333, 12}} {
		a := &counted{Source: m}
		d, err := replay.Diverge(context.Background(), a, c.b, 0, 0)
		if err != nil || d.Commit != c.want || a.reads > c.reads {
			t.Errorf("%+v, %v after %d reads, want commit %d after %d", d, err, a.reads, c.want, c.reads)
		}
	}
}

func TestVerifyPointer(t *testing.T) {
	m := history(t, 20, 9)
	other := history(t, 20, 10)
	for n := uint64(1); n <= 20; n++ {
		c, err := m.Commit(n)
		if err != nil {
			t.Fatal(err)
		}
		encoded := c.AppendTo(nil)
		run, err := c.RunAt(0)
		if err != nil {
			t.Fatal(err)
		}
		if err := replay.VerifyPointer(c.Pointer(), encoded); err != nil {
			t.Error(err)
		}
		if _, err := replay.Extract(c.Pointer(), encoded); !errors.Is(err, log.ErrPointer) {
			t.Errorf("a record of a whole commit: %v", err)
		}
		for seq, payload := range run.Records() {
			p := run.Pointer(seq)
			if err := replay.VerifyPointer(p, encoded); err != nil {
				t.Error(err)
			}
			r, err := replay.Extract(p, encoded)
			if err != nil || !bytes.Equal(r.Payload, payload) || r.Pointer != p || r.Time != c.Header.Time {
				t.Errorf("record %s: %+v, %v", p, r, err)
			}
		}
		// One altered field.
		for name, alter := range map[string]func(*log.Pointer){
			"group":  func(p *log.Pointer) { p.Group[31] ^= 1 },
			"commit": func(p *log.Pointer) { p.Commit++ },
			"zero":   func(p *log.Pointer) { p.Commit = 0 },
			"digest": func(p *log.Pointer) { p.Digest[0] ^= 0x80 },
			"key":    func(p *log.Pointer) { p.Key[7] ^= 1 },
			"before": func(p *log.Pointer) { p.Seq = run.FirstSeq - 1 },
			"after":  func(p *log.Pointer) { p.Seq = run.LastSeq() + 1 },
		} {
			p := run.Pointer(run.FirstSeq)
			alter(&p)
			if err := replay.VerifyPointer(p, encoded); !errors.Is(err, log.ErrPointer) {
				t.Errorf("altered %s: %v", name, err)
			}
			if _, err := replay.Extract(p, encoded); !errors.Is(err, log.ErrPointer) {
				t.Errorf("altered %s: %v", name, err)
			}
		}
		// Another commit's bytes.
		wrong, err := other.Commit(n)
		if err != nil {
			t.Fatal(err)
		}
		if err := replay.VerifyPointer(c.Pointer(), wrong.AppendTo(nil)); !errors.Is(err, log.ErrPointer) {
			t.Errorf("bytes of another commit: %v", err)
		}
	}
}

// TestVerifyPointerEveryByte: a pointer holds against the commit's bytes and
// nothing else.
func TestVerifyPointerEveryByte(t *testing.T) {
	m := history(t, 3, 11)
	rng := rand.New(rand.NewPCG(3, 4))
	for n := uint64(1); n <= 3; n++ {
		c, err := m.Commit(n)
		if err != nil {
			t.Fatal(err)
		}
		run, err := c.RunAt(0)
		if err != nil {
			t.Fatal(err)
		}
		p := run.Pointer(run.LastSeq())
		encoded := c.AppendTo(nil)
		for i := range encoded {
			flip := byte(1 + rng.IntN(255))
			encoded[i] ^= flip
			if replay.VerifyPointer(p, encoded) == nil {
				t.Fatalf("commit %d: holds with byte %d ^ %#x", n, i, flip)
			}
			encoded[i] ^= flip
		}
		for cut := range encoded {
			if replay.VerifyPointer(p, encoded[:cut]) == nil {
				t.Fatalf("commit %d: holds with %d bytes of it", n, cut)
			}
		}
		if replay.VerifyPointer(p, append(encoded, 0)) == nil {
			t.Fatalf("commit %d: holds with a byte more", n)
		}
	}
}

// TestReplayIsTheOriginal appends whatever the generator says and reads it back
// by every way there is.
func TestReplayIsTheOriginal(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ctx := context.Background()
		m := log.NewMemory(group)
		var all []string
		for range rapid.IntRange(0, 20).Draw(t, "commits") {
			key := rapid.SampledFrom(keys).Draw(t, "key")
			payloads := rapid.SliceOfN(rapid.SliceOf(rapid.Byte()), 1, 5).Draw(t, "payloads")
			p, err := m.Append(ctx, key, payloads...)
			if err != nil {
				t.Fatal(err)
			}
			for i, b := range payloads {
				r := p
				r.Seq += uint64(i)
				all = append(all, fmt.Sprint(r, b))
			}
		}
		got, err := replay.Fold(ctx, m, 0, 0, []string(nil), func(s []string, c log.Commit) ([]string, error) {
			for run, err := range c.Runs() {
				if err != nil {
					return s, err
				}
				for seq, b := range run.Records() {
					s = append(s, fmt.Sprint(run.Pointer(seq), b))
				}
			}
			return s, nil
		})
		if err != nil || fmt.Sprint(got) != fmt.Sprint(all) {
			t.Fatalf("folded %v, %v; appended %v", got, err, all)
		}
		report, err := replay.Audit(ctx, m, replay.AuditOptions{})
		if err != nil || report.Records != uint64(len(all)) {
			t.Fatalf("%+v, %v", report, err)
		}
		// Any two parts of it are the whole.
		if n := m.Head().Number; n > 1 {
			cut := rapid.Uint64Range(2, n).Draw(t, "cut")
			for _, r := range [][2]uint64{{1, cut - 1}, {cut, n}} {
				if _, err := replay.Audit(ctx, m, replay.AuditOptions{From: r[0], To: r[1]}); err != nil {
					t.Fatalf("%v: %v", r, err)
				}
			}
		}
	})
}
