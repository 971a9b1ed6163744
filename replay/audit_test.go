package replay_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/replay"
)

func audit(src replay.Source, from, to uint64) (replay.Report, error) {
	return replay.Audit(context.Background(), src, replay.AuditOptions{From: from, To: to})
}

func TestAuditClean(t *testing.T) {
	ctx := context.Background()
	m := history(t, 300, 1)
	var calls []uint64
	whole, err := replay.Audit(ctx, m, replay.AuditOptions{Progress: func(done, total uint64) {
		if total != 300 {
			t.Errorf("progress of %d", total)
		}
		calls = append(calls, done)
	}})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.IsSorted(calls) || len(calls) < 2 || calls[len(calls)-1] != 300 {
		t.Errorf("progress %v", calls)
	}
	want := replay.Report{Group: group, From: 1, To: 300, Commits: 300, Keys: 3, Head: m.Head()}
	for c, err := range m.Commits(ctx, 1, 0) {
		if err != nil {
			t.Fatal(err)
		}
		want.Records += uint64(c.Header.Records)
		want.Bytes += uint64(log.HeaderSize + len(c.Body))
		if c.Header.Number == 1 {
			want.First = time.Unix(0, c.Header.Time).UTC()
		}
		want.Last = time.Unix(0, c.Header.Time).UTC()
	}
	if want.Digest, err = replay.Digest(ctx, m, 1, 300); err != nil {
		t.Fatal(err)
	}
	want.States = true
	if whole != want {
		t.Errorf("report\n%+v, want\n%+v", whole, want)
	}
	for _, r := range [][2]uint64{{1, 0}, {2, 0}, {150, 200}, {300, 300}, {1, 299}, {7, 7}} {
		report, err := audit(m, r[0], r[1])
		if err != nil {
			t.Errorf("%v: %v", r, err)
		}
		if d, err := replay.Digest(ctx, m, r[0], r[1]); err != nil || d != report.Digest {
			t.Errorf("%v: digest %s, %v, the audit says %s", r, d, err, report.Digest)
		}
		if report.Commits != report.To-report.From+1 {
			t.Errorf("%v: %d commits of %d..%d", r, report.Commits, report.From, report.To)
		}
	}
}

func TestAuditRanges(t *testing.T) {
	empty := log.NewMemory(group)
	if r, err := audit(empty, 0, 0); err != nil || r.Commits != 0 || r.From != 1 || r.To != 0 || !r.Last.IsZero() {
		t.Errorf("empty log: %+v, %v", r, err)
	}
	m := history(t, 5, 1)
	if r, err := audit(m, 6, 0); err != nil || r.Commits != 0 {
		t.Errorf("nothing after the head: %+v, %v", r, err)
	}
	for _, c := range []struct {
		src      replay.Source
		from, to uint64
		want     error
	}{
		{empty, 1, 1, log.ErrNotFound},
		{empty, 2, 0, log.ErrNotFound},
		{m, 1, 6, log.ErrNotFound},
		{m, 7, 0, log.ErrNotFound},
		{m, 7, 9, log.ErrNotFound},
		{m, 3, 2, log.ErrPosition},
	} {
		if _, err := audit(c.src, c.from, c.to); !errors.Is(err, c.want) {
			t.Errorf("%d..%d: %v, want %v", c.from, c.to, err, c.want)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := replay.Audit(ctx, m, replay.AuditOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	var corrupt *log.CorruptionError
	if _, err := audit(m, 0, 0); !errors.Is(err, log.ErrClosed) || errors.As(err, &corrupt) {
		t.Errorf("closed: %v", err)
	}
}

// TestAuditRules plants one fault for each thing that an audit checks, with all
// other things as they must be, and wants it found at its commit.
func TestAuditRules(t *testing.T) {
	const n = 20 // commits
	rebuild := func(c *log.Commit, edit func(key *identity.ID, first *uint64, count *int, records *[]byte)) {
		var body []byte
		for run, err := range c.Runs() {
			if err != nil {
				t.Fatal(err)
			}
			var records []byte
			for _, p := range run.Records() {
				records = log.AppendRecord(records, p)
			}
			edit(&run.Key, &run.FirstSeq, &run.Count, &records)
			body = log.AppendRun(body, run.Key, run.FirstSeq, run.Count, records)
		}
		c.Body = body
	}
	for _, tc := range []struct {
		name   string
		plant  func(p *planted, at uint64)
		offset int64  // -1: any
		says   string // part of the error
		middle bool   // only where there is a commit before and one after
	}{
		{name: "group", offset: 1, says: "it is one of group", plant: func(p *planted, at uint64) {
			p.change(t, at, true, func(c *log.Commit) { c.Header.Group = identity.NewID("another") })
		}},
		{name: "number", offset: 33, says: "has number", plant: func(p *planted, at uint64) {
			p.change(t, at, true, func(c *log.Commit) { c.Header.Number++ })
		}},
		{name: "prev", offset: 49, says: "follows", plant: func(p *planted, at uint64) {
			p.change(t, at, false, func(c *log.Commit) { c.Header.Prev[31] ^= 1 })
		}},
		{name: "body digest", offset: 81, says: "body does not hash", plant: func(p *planted, at uint64) {
			c := p.commits[at-1]
			c[len(c)-1] ^= 1
		}},
		{name: "commit digest", offset: 0, says: "header does not hash", plant: func(p *planted, at uint64) {
			p.digest[at] = log.Digest{1}
		}},
		{name: "run cut short", offset: -1, says: "cut short", plant: func(p *planted, at uint64) {
			p.change(t, at, true, func(c *log.Commit) { c.Body = c.Body[:len(c.Body)-1] })
		}},
		{name: "record cut short", offset: log.HeaderSize, says: "cut short", plant: func(p *planted, at uint64) {
			p.change(t, at, true, func(c *log.Commit) {
				rebuild(c, func(_ *identity.ID, _ *uint64, count *int, records *[]byte) { *count, *records = 1, []byte{9, 1, 2} })
			})
		}},
		{name: "bytes after the records", offset: log.HeaderSize, says: "follow the records", plant: func(p *planted, at uint64) {
			p.change(t, at, true, func(c *log.Commit) {
				rebuild(c, func(_ *identity.ID, _ *uint64, _ *int, records *[]byte) { *records = append(*records, 0) })
			})
		}},
		{name: "record count", offset: 145, says: "record count", plant: func(p *planted, at uint64) {
			p.change(t, at, true, func(c *log.Commit) { c.Header.Records++ })
		}},
		{name: "a seq skipped", offset: log.HeaderSize + 32, says: "is due", plant: func(p *planted, at uint64) {
			p.change(t, at, true, func(c *log.Commit) {
				rebuild(c, func(_ *identity.ID, first *uint64, _ *int, _ *[]byte) { *first++ })
			})
		}},
		{name: "a seq given twice", offset: -1, says: "is due", plant: func(p *planted, at uint64) {
			// The second run of the body repeats the first one's seqs.
			p.change(t, at, true, func(c *log.Commit) {
				var again []byte
				rebuild(c, func(key *identity.ID, first *uint64, count *int, records *[]byte) {
					again = log.AppendRun(nil, *key, *first, *count, *records)
				})
				c.Body = append(again, c.Body...)
				c.Header.Records *= 2
			})
		}},
		{name: "a new key that starts late", offset: log.HeaderSize + 32, says: "where 1 is due", plant: func(p *planted, at uint64) {
			p.change(t, at, true, func(c *log.Commit) {
				rebuild(c, func(key *identity.ID, first *uint64, _ *int, _ *[]byte) { *key, *first = identity.NewID("new"), 2 })
			})
		}},
		{name: "clock", offset: 41, says: "clock runs backwards", middle: true, plant: func(p *planted, at uint64) {
			p.change(t, at, true, func(c *log.Commit) { c.Header.Time -= int64(time.Hour) })
		}},
		{name: "rewritten in place", offset: -1, says: "chain is broken", middle: true, plant: func(p *planted, at uint64) {
			p.change(t, at, false, func(c *log.Commit) { c.Header.State[0] ^= 1 })
		}},
		{name: "missing", offset: 0, says: "missing", plant: func(p *planted, at uint64) {
			p.fail[at] = fmt.Errorf("%w: not there", log.ErrNotFound)
		}},
		{name: "ends early", offset: 0, says: "missing", plant: func(p *planted, at uint64) { p.ends = at }},
		{name: "does not decode", offset: -1, says: "header", plant: func(p *planted, at uint64) {
			p.commits[at-1] = p.commits[at-1][:100]
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for at := uint64(1); at <= n; at++ {
				if tc.middle && (at == 1 || at == n) {
					continue
				}
				p := of(t, history(t, n, 3))
				tc.plant(p, at)
				report, err := audit(p, 0, 0)
				c := wantCorrupt(t, err, at)
				if !strings.Contains(err.Error(), tc.says) || tc.offset >= 0 && c.Offset != tc.offset {
					t.Errorf("commit %d: offset %d: %v; want offset %d: ...%s", at, c.Offset, err, tc.offset, tc.says)
				}
				if report.Commits >= at {
					t.Errorf("commit %d: %d commits reported as good", at, report.Commits)
				}
			}
		})
	}
}

// TestAuditRangeRules is about what only a range inside the log has: its base
// and what lies behind it.
func TestAuditRangeRules(t *testing.T) {
	const n = 20
	t.Run("another commit before", func(t *testing.T) {
		p := of(t, history(t, n, 3))
		p.change(t, 9, false, func(c *log.Commit) { c.Header.State[3]++ })
		_, err := audit(p, 10, 0)
		wantCorrupt(t, err, 9)
	})
	t.Run("damaged commit before", func(t *testing.T) {
		p := of(t, history(t, n, 3))
		p.commits[8][len(p.commits[8])-1] ^= 1
		_, err := audit(p, 10, 0)
		wantCorrupt(t, err, 9)
	})
	t.Run("no commit before", func(t *testing.T) {
		p := of(t, history(t, n, 3))
		p.fail[9] = log.ErrNotFound
		_, err := audit(p, 10, 0)
		wantCorrupt(t, err, 9)
	})
	t.Run("last one rewritten", func(t *testing.T) {
		p := of(t, history(t, n, 3))
		p.change(t, 12, false, func(c *log.Commit) { c.Header.State[3]++ })
		_, err := audit(p, 10, 12)
		wantCorrupt(t, err, 12)
	})
	t.Run("commit behind rewritten", func(t *testing.T) {
		p := of(t, history(t, n, 3))
		p.change(t, 13, false, func(c *log.Commit) { c.Header.Prev[3]++ })
		_, err := audit(p, 10, 12)
		wantCorrupt(t, err, 13)
	})
	t.Run("commit behind missing", func(t *testing.T) {
		p := of(t, history(t, n, 3))
		p.fail[13] = log.ErrNotFound
		_, err := audit(p, 10, 12)
		wantCorrupt(t, err, 13)
	})
	t.Run("seq skipped after the first sighting", func(t *testing.T) {
		p := of(t, history(t, n, 3))
		p.change(t, 15, true, func(c *log.Commit) {
			first := c.Body[32]
			log.SetFirstSeq(c.Body, 0, uint64(first)+1000)
		})
		_, err := audit(p, 10, 0)
		wantCorrupt(t, err, 15)
		if _, err := audit(p, 15, 15); err != nil {
			t.Errorf("the first sighting of a key fixes its base: %v", err)
		}
	})
	t.Run("seqs past the last", func(t *testing.T) {
		p := of(t, history(t, n, 3))
		p.change(t, 15, true, func(c *log.Commit) {
			body := log.AppendRun(nil, keys[0], ^uint64(0), 2, []byte{0, 0})
			c.Body, c.Header.Records = body, 2
		})
		_, err := audit(p, 15, 0)
		wantCorrupt(t, err, 15)
	})
}

func TestAuditHead(t *testing.T) {
	for name, alter := range map[string]func(*log.Head){
		"digest": func(h *log.Head) { h.Digest[0] ^= 1 },
		"time":   func(h *log.Head) { h.Time++ },
	} {
		p := of(t, history(t, 20, 3))
		alter(&p.head)
		_, err := audit(p, 0, 0)
		wantCorrupt(t, err, 20)
		if _, err := audit(p, 1, 19); err != nil {
			t.Errorf("%s: a range that does not reach the head: %v", name, err)
		}
	}
	p := of(t, history(t, 20, 3))
	p.head.Number++
	_, err := audit(p, 0, 0)
	wantCorrupt(t, err, 21)

	p = of(t, log.NewMemory(group))
	p.head.Digest[0] = 1
	_, err = audit(p, 0, 0)
	wantCorrupt(t, err, 1)
}

// TestAuditSourceErrors: what the source says of a place is kept, and what is no
// corruption is not made one.
func TestAuditSourceErrors(t *testing.T) {
	p := of(t, history(t, 20, 3))
	cause := errors.New("checksum mismatch")
	p.fail[7] = fmt.Errorf("read: %w", &log.CorruptionError{File: "000012.sst", Offset: 4096, Err: cause})
	_, err := audit(p, 0, 0)
	if c := wantCorrupt(t, err, 7); c.File != "000012.sst" || c.Offset != 4096 || !errors.Is(err, cause) {
		t.Errorf("got %v", err)
	}
	p.fail[7] = errors.New("cable")
	var c *log.CorruptionError
	if _, err := audit(p, 0, 0); !errors.Is(err, p.fail[7]) || errors.As(err, &c) {
		t.Errorf("got %v", err)
	}
	delete(p.fail, 7)
	p.commits[6][0] = log.HeaderVersion + 1
	if _, err := audit(p, 0, 0); !errors.Is(err, log.ErrNewerFormat) || errors.As(err, &c) {
		t.Errorf("got %v", err)
	}
}

// TestAuditEveryByte flips one byte of one commit, each in turn, and wants it
// found: at that commit, except that a changed number, group or version says
// what it says.
func TestAuditEveryByte(t *testing.T) {
	m := log.NewMemory(group)
	m.SetClock(func() time.Time { return time.Unix(1_700_000_000, 0) })
	for i := range 6 {
		if _, err := m.Append(context.Background(), keys[i%2], []byte("a payload"), nil, []byte{byte(i)}); err != nil {
			t.Fatal(err)
		}
	}
	rng := rand.New(rand.NewPCG(1, 2))
	clean := of(t, m)
	for n := range clean.commits {
		for i := range clean.commits[n] {
			p := of(t, m)
			flip := byte(1 + rng.IntN(255))
			p.commits[n][i] ^= flip
			_, err := audit(p, 0, 0)
			if errors.Is(err, log.ErrNewerFormat) && i == 0 {
				continue
			}
			if err == nil {
				t.Fatalf("commit %d, byte %d ^ %#x: not found", n+1, i, flip)
			}
			wantCorrupt(t, err, uint64(n+1))
			// The same inside a range whose neighbours are sound.
			if _, err := audit(p, uint64(n+1), uint64(n+1)); err == nil {
				t.Fatalf("commit %d alone, byte %d ^ %#x: not found", n+1, i, flip)
			}
		}
	}
}

// TestAuditStates folds as it goes: a header whose state is not what the log
// folds to is found although the chain around it is sound.
func TestAuditStates(t *testing.T) {
	m := log.NewMemory(identity.NewID("group"))
	numbers, err := log.MapDef[string, int]{Name: "numbers"}.Open(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		if i == 11 {
			_, _, err = numbers.Clear(t.Context())
		} else {
			_, _, _, err = numbers.Insert(t.Context(), string(rune('a'+i%3)), i)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if report, err := replay.Audit(t.Context(), m, replay.AuditOptions{}); err != nil || !report.States {
		t.Fatalf("a sound log: %+v, %v", report, err)
	}
	if report, err := replay.Audit(t.Context(), m, replay.AuditOptions{From: 3}); err != nil || report.States {
		t.Fatalf("from the middle: %+v, %v", report, err)
	}
	const bad = 9
	for n := uint64(1); n <= m.Head().Number; n++ { // anew, from the log alone, up to each commit
		views, err := replay.Views(t.Context(), m, n, nil)
		if err != nil {
			t.Fatal(err)
		}
		c, err := m.Commit(n)
		if err != nil || views.State() != c.Header.State || views.Commit() != n {
			t.Fatalf("folded up to %d: %s at %d, %v", n, views.State(), views.Commit(), err)
		}
		folded, err := views.View(numbers.Key())
		if err != nil {
			t.Fatal(err)
		}
		stored, err := m.View(t.Context(), numbers.Key(), log.AsOf(n))
		if err != nil {
			t.Fatal(err)
		}
		if got, want := rowsOf(t, folded), rowsOf(t, stored); !slices.Equal(got, want) {
			t.Fatalf("folded up to %d: %v, want %v", n, got, want)
		}
	}
	forged := &forgedState{Memory: m}
	var prev log.Digest
	for c, err := range m.Commits(t.Context(), 1, 0) {
		if err != nil {
			t.Fatal(err)
		}
		if c.Header.Number == bad {
			c.Header.State[0] ^= 1
		}
		c.Header.Prev = prev
		prev = c.Header.Digest()
		c.Digest = prev
		forged.commits = append(forged.commits, c)
	}
	var damaged *log.CorruptionError
	if _, err := replay.Audit(t.Context(), forged, replay.AuditOptions{}); !errors.As(err, &damaged) || damaged.Commit != bad || !strings.Contains(err.Error(), "state of the views") {
		t.Errorf("a forged state in commit %d: %v", bad, err)
	}
	damaged = nil
	if _, err := replay.Views(t.Context(), forged, 0, nil); !errors.As(err, &damaged) || damaged.Commit != bad {
		t.Errorf("a forged state in commit %d, folded anew: %v", bad, err)
	}
	if _, err := replay.Views(t.Context(), forged, bad-1, nil); err != nil {
		t.Errorf("up to the commit before: %v", err)
	}
}

func rowsOf(t *testing.T, v log.View) (rows []string) {
	t.Helper()
	for row, err := range v.Scan(log.Range{}) {
		if err != nil {
			t.Fatal(err)
		}
		rows = append(rows, fmt.Sprintf("%x=%x by %d", row.Key, row.Value, row.Commit))
	}
	return rows
}

// forgedState is a log with other headers, chained again.
type forgedState struct {
	*log.Memory
	commits []log.Commit
}

func (f *forgedState) Head() log.Head {
	last := f.commits[len(f.commits)-1]
	return log.Head{Number: last.Header.Number, Digest: last.Digest, Time: last.Header.Time}
}

func (f *forgedState) Commit(n uint64) (log.Commit, error) { return f.commits[n-1], nil }

func (f *forgedState) Commits(_ context.Context, from, to uint64) iter.Seq2[log.Commit, error] {
	return func(yield func(log.Commit, error) bool) {
		for _, c := range f.commits[from-1 : to] {
			if !yield(c, nil) {
				return
			}
		}
	}
}
