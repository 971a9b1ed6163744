package log_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

var _ log.Writer = (*log.Memory)(nil)

var (
	testGroup = identity.NewID("test.group")
	keyA      = identity.NewID("a")
	keyB      = identity.NewID("b")
)

// flat is a record with all that is known of its place.
type flat struct {
	Seq, Commit uint64
	Time        int64
	Payload     string
}

// collect scans to the end and returns the records.
func collect(ctx context.Context, s log.Scanner, q log.Query) ([]flat, error) {
	var list []flat
	for run, err := range s.Scan(ctx, q) {
		if err != nil {
			if !reflect.DeepEqual(run, log.Run{}) {
				err = fmt.Errorf("the error %w comes with the run %v", err, run)
			}
			return list, err
		}
		for seq, payload := range run.Records() {
			list = append(list, flat{seq, run.Commit, run.Time, string(payload)})
		}
	}
	return list, nil
}

func appendTexts(t testing.TB, w log.Writer, key identity.ID, texts ...string) log.Pointer {
	t.Helper()
	var payloads [][]byte
	for _, s := range texts {
		payloads = append(payloads, []byte(s))
	}
	p, err := w.Append(t.Context(), key, payloads...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// ticking is a clock that the test moves.
type ticking struct{ sec int64 }

func (c *ticking) now() time.Time { return time.Unix(c.sec, 0) }

// checkChain reads all commits of m and checks them as an auditor would.
func checkChain(t testing.TB, m *log.Memory) {
	t.Helper()
	var last log.Head
	seqs := map[identity.ID]uint64{}
	for c, err := range m.Commits(t.Context(), 1, 0) {
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Verify(); err != nil {
			t.Fatal(err)
		}
		h := c.Header
		if h.Group != m.ID() || h.Number != last.Number+1 || h.Prev != last.Digest || h.Time < last.Time && last.Number > 0 {
			t.Fatalf("commit %+v does not follow %+v", h, last)
		}
		last = log.Head{Number: h.Number, Digest: c.Digest, Time: h.Time}
		for run, err := range c.Runs() {
			if err != nil {
				t.Fatal(err)
			}
			if run.FirstSeq != seqs[run.Key]+1 {
				t.Fatalf("commit %d: run of %s starts at %d after %d", h.Number, run.Key.Short(), run.FirstSeq, seqs[run.Key])
			}
			seqs[run.Key] = run.LastSeq()
		}
		again, err := m.Commit(h.Number)
		if err != nil || again.Digest != c.Digest || !bytes.Equal(again.Body, c.Body) {
			t.Fatalf("Commit(%d) = %v, %v", h.Number, again.Header, err)
		}
	}
	if last != m.Head() {
		t.Fatalf("the head is %+v, the last commit %+v", m.Head(), last)
	}
}

// The memory is compared with the words of the documentation, spelled out over
// a plain list of records.
func TestMemoryScansWhatTheWordsSay(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := log.NewMemory(testGroup)
		clock := &ticking{sec: 1000}
		m.SetClock(clock.now)
		records := map[identity.ID][]flat{}
		pointers := []log.Pointer{}
		latest := int64(0)
		for commit := range uint64(rapid.IntRange(0, 12).Draw(rt, "commits")) {
			clock.sec += int64(rapid.IntRange(-2, 4).Draw(rt, "step"))
			latest = max(latest, clock.now().UnixNano())
			key := rapid.SampledFrom([]identity.ID{keyA, keyB}).Draw(rt, "key")
			var payloads [][]byte
			for range rapid.IntRange(1, 5).Draw(rt, "count") {
				payloads = append(payloads, rapid.SliceOfN(rapid.Byte(), 0, 3).Draw(rt, "payload"))
			}
			p, err := m.Append(t.Context(), key, payloads...)
			if err != nil {
				rt.Fatal(err)
			}
			first := uint64(len(records[key])) + 1
			c, err := m.Commit(commit + 1)
			if want := (log.Pointer{Group: testGroup, Commit: commit + 1, Digest: c.Digest, Key: key, Seq: first}); err != nil || p != want {
				rt.Fatalf("Append returned %v, want %v, %v", p, want, err)
			}
			pointers = append(pointers, p, c.Pointer())
			for i, payload := range payloads {
				records[key] = append(records[key], flat{first + uint64(i), commit + 1, latest, string(payload)})
				payload = append(payload, "spoilt"...)
				for j := range payload { // the payloads were the caller's all the time
					payload[j]++
				}
			}
		}
		checkChain(t, m)

		all := records[keyA]
		head := m.Head().Number
		for range 8 {
			q := log.Query{Key: keyA}
			var from func(flat) bool
			switch rapid.IntRange(0, 5).Draw(rt, "from") {
			case 0:
				from = func(flat) bool { return true }
			case 1:
				q.From, from = log.Latest(), func(flat) bool { return false }
			case 2:
				n := rapid.Uint64Range(1, uint64(len(all))+3).Draw(rt, "seq")
				q.From, from = log.Seq(n), func(r flat) bool { return r.Seq >= n }
			case 3:
				n := rapid.Uint64Range(1, head+3).Draw(rt, "commit")
				q.From, from = log.CommitNumber(n), func(r flat) bool { return r.Commit >= n }
			case 4:
				at := time.Unix(rapid.Int64Range(990, 1060).Draw(rt, "sec"), 0)
				q.From, from = log.Since(at), func(r flat) bool { return r.Time >= at.UnixNano() }
			case 5:
				if len(pointers) == 0 {
					continue
				}
				p := rapid.SampledFrom(pointers).Draw(rt, "pointer")
				switch {
				case p.Seq == 0:
					from = func(r flat) bool { return r.Commit >= p.Commit }
				case p.Key == keyA:
					from = func(r flat) bool { return r.Seq >= p.Seq }
				default:
					continue // tested below
				}
				q.From = log.At(p)
			}
			if rapid.Bool().Draw(rt, "limited") {
				q.Until = rapid.Uint64Range(1, uint64(len(all))+3).Draw(rt, "until")
			}
			if rapid.Bool().Draw(rt, "window") {
				q.Filter.Since = time.Unix(rapid.Int64Range(990, 1020).Draw(rt, "since"), 0)
				q.Filter.Until = q.Filter.Since.Add(time.Duration(rapid.IntRange(1, 20).Draw(rt, "width")) * time.Second)
			}
			var want []flat
			for _, r := range all {
				f := q.Filter
				if from(r) && (q.Until == 0 || r.Seq <= q.Until) &&
					(f.Since.IsZero() || r.Time >= f.Since.UnixNano() && r.Time < f.Until.UnixNano()) {
					want = append(want, r)
				}
			}
			got, err := collect(t.Context(), m, q)
			if err != nil || !slices.Equal(got, want) {
				rt.Fatalf("%+v from %s gives\n%v, %v, want\n%v\nof\n%v", q, q.From, got, err, want, all)
			}

			// A following scan yields the same first, and then waits.
			if len(want) == 0 {
				continue
			}
			q.Follow = true
			got = nil
		follow:
			for run, err := range m.Scan(t.Context(), q) {
				if err != nil {
					rt.Fatal(err)
				}
				for seq, payload := range run.Records() {
					got = append(got, flat{seq, run.Commit, run.Time, string(payload)})
				}
				if len(got) >= len(want) {
					break follow
				}
			}
			if !slices.Equal(got, want) {
				rt.Fatalf("following, %+v gives\n%v, want\n%v", q, got, want)
			}
		}
	})
}

func TestMemoryRunsCarryTheirPointer(t *testing.T) {
	m := log.NewMemory(testGroup)
	appendTexts(t, m, keyB, "other")
	p := appendTexts(t, m, keyA, "x", "y", "z")
	for run, err := range m.Scan(t.Context(), log.Query{Key: keyA, From: log.Seq(2), Until: 2}) {
		if err != nil {
			t.Fatal(err)
		}
		p.Seq = 2
		if run.FirstSeq != 2 || run.Count != 1 || run.Pointer(2) != p {
			t.Errorf("the clipped run is %+v, its pointer %v, want %v", run, run.Pointer(2), p)
		}
		c, err := m.Commit(2)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Check(&c); err != nil {
			t.Error(err)
		}
	}
}

func TestMemoryRefuses(t *testing.T) {
	m := log.NewMemory(testGroup)
	ended, end := context.WithCancel(t.Context())
	end()
	half := make([]byte, log.MaxPayload/2)
	for _, tc := range []struct {
		name     string
		ctx      context.Context
		key      identity.ID
		payloads [][]byte
		want     error
	}{
		{"no record", t.Context(), keyA, nil, log.ErrEmpty},
		{"too many", t.Context(), keyA, make([][]byte, log.MaxRecords+1), log.ErrOversize},
		{"too long", t.Context(), keyA, [][]byte{make([]byte, log.MaxPayload+1)}, log.ErrOversize},
		{"too long together", t.Context(), keyA, [][]byte{half, half, {1}}, log.ErrOversize},
		{"zero key", t.Context(), identity.ID{}, [][]byte{{1}}, log.ErrQuery},
		{"ended ctx", ended, keyA, [][]byte{{1}}, context.Canceled},
	} {
		if p, err := m.Append(tc.ctx, tc.key, tc.payloads...); !errors.Is(err, tc.want) || !p.IsZero() {
			t.Errorf("%s: %v, %v, want %v", tc.name, p, err, tc.want)
		}
		if p, err := m.AppendAsync(tc.ctx, tc.key, tc.payloads...).Result(); !errors.Is(err, tc.want) || !p.IsZero() {
			t.Errorf("%s, async: %v, %v, want %v", tc.name, p, err, tc.want)
		}
	}
	if m.Head() != (log.Head{}) {
		t.Errorf("refused appends left %+v", m.Head())
	}
	// The largest of each.
	if _, err := m.Append(t.Context(), keyA, half, half); err != nil {
		t.Error(err)
	}
	if _, err := m.Append(t.Context(), keyA, make([][]byte, log.MaxRecords)...); err != nil {
		t.Error(err)
	}
	checkChain(t, m)
}

func TestMemoryRefusesQueries(t *testing.T) {
	m := log.NewMemory(testGroup)
	ended, end := context.WithCancel(t.Context())
	end()
	appendTexts(t, m, keyB, "one")
	p := appendTexts(t, m, keyA, "x", "y")
	change := func(f func(p *log.Pointer)) log.Position {
		q := p
		f(&q)
		return log.At(q)
	}
	for _, tc := range []struct {
		name string
		ctx  context.Context
		q    log.Query
		want error
		why  string
	}{
		{"zero key", t.Context(), log.Query{}, log.ErrQuery, "zero key"},
		{"seq 0", t.Context(), log.Query{Key: keyA, From: log.Seq(0)}, log.ErrPosition, "seq 0"},
		{"commit 0", t.Context(), log.Query{Key: keyA, From: log.CommitNumber(0)}, log.ErrPosition, "commit 0"},
		{"no window", t.Context(), log.Query{Key: keyA, Filter: log.Filter{Since: time.Unix(2, 0), Until: time.Unix(1, 0)}}, log.ErrQuery, "not after"},
		{"ended ctx", ended, log.Query{Key: keyA}, context.Canceled, ""},
		{"ended ctx, following", ended, log.Query{Key: keyA, Follow: true}, context.Canceled, ""},
		{"pointer of another group", t.Context(), log.Query{Key: keyA, From: change(func(p *log.Pointer) { p.Group = keyB })}, log.ErrPointer, "group: "},
		{"pointer with another digest", t.Context(), log.Query{Key: keyA, From: change(func(p *log.Pointer) { p.Digest[5]++ })}, log.ErrPointer, "digest: "},
		{"pointer at a commit with another digest", t.Context(), log.Query{Key: keyA, From: change(func(p *log.Pointer) { p.Digest[5]++; p.Key, p.Seq = identity.ID{}, 0 })}, log.ErrPointer, "digest: "},
		{"pointer at another key", t.Context(), log.Query{Key: keyB, From: log.At(p)}, log.ErrPointer, "key: "},
		{"pointer past the records", t.Context(), log.Query{Key: keyA, From: change(func(p *log.Pointer) { p.Seq = 3 })}, log.ErrPointer, "seq: "},
		{"pointer into the future", t.Context(), log.Query{Key: keyA, From: change(func(p *log.Pointer) { p.Commit = 3 })}, log.ErrNotFound, "commit 3"},
		{"pointer nowhere", t.Context(), log.Query{Key: keyA, From: log.At(log.Pointer{})}, log.ErrPointer, "commit 0"},
	} {
		got, err := collect(tc.ctx, m, tc.q)
		if !errors.Is(err, tc.want) || !strings.Contains(fmt.Sprint(err), tc.why) || len(got) != 0 {
			t.Errorf("%s: %v, %v, want %v with %q", tc.name, got, err, tc.want, tc.why)
		}
	}
}

func TestMemoryCommits(t *testing.T) {
	m := log.NewMemory(testGroup)
	numbers := func(ctx context.Context, from, to uint64) (list []uint64, last error) {
		for c, err := range m.Commits(ctx, from, to) {
			if err != nil {
				return list, err
			}
			list = append(list, c.Header.Number)
			if c.Header.Number == 2 && to == 0 {
				appendTexts(t, m, keyA, "while reading")
			}
		}
		return list, nil
	}
	if list, err := numbers(t.Context(), 1, 0); err != nil || list != nil {
		t.Errorf("the commits of an empty log: %v, %v", list, err)
	}
	for range 3 {
		appendTexts(t, m, keyA, "x")
	}
	for _, tc := range []struct {
		from, to uint64
		want     []uint64
		err      error
	}{
		{1, 0, []uint64{1, 2, 3}, nil}, // now there are 4
		{2, 3, []uint64{2, 3}, nil},
		{4, 0, []uint64{4}, nil},
		{5, 0, nil, nil},
		{3, 2, nil, nil},
		{3, 6, []uint64{3, 4}, log.ErrNotFound},
		{0, 2, nil, log.ErrNotFound},
	} {
		if list, err := numbers(t.Context(), tc.from, tc.to); !errors.Is(err, tc.err) || !slices.Equal(list, tc.want) {
			t.Errorf("commits %d to %d: %v, %v", tc.from, tc.to, list, err)
		}
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if _, err := numbers(ended, 1, 2); !errors.Is(err, context.Canceled) {
		t.Errorf("an ended ctx gives %v", err)
	}
	for _, n := range []uint64{0, 5} {
		if _, err := m.Commit(n); !errors.Is(err, log.ErrNotFound) {
			t.Errorf("Commit(%d): %v", n, err)
		}
	}
}

func TestMemoryClockNeverRunsBackwards(t *testing.T) {
	m := log.NewMemory(testGroup)
	clock := &ticking{}
	m.SetClock(clock.now)
	var got []int64
	for _, clock.sec = range []int64{5, 3, 5, 9, 1} {
		appendTexts(t, m, keyA, "x")
		got = append(got, m.Head().Time/int64(time.Second))
	}
	if want := []int64{5, 5, 5, 9, 9}; !slices.Equal(got, want) {
		t.Errorf("times %v, want %v", got, want)
	}
	checkChain(t, m)
}

func TestMemoryFollows(t *testing.T) {
	for _, tc := range []struct {
		name string
		q    log.Query
		want []string
	}{
		{"earliest", log.Query{Key: keyA}, []string{"a1", "a2", "a3", "a4", "a5", "a6"}},
		{"latest", log.Query{Key: keyA, From: log.Latest()}, []string{"a3", "a4", "a5", "a6"}},
		{"seq to come", log.Query{Key: keyA, From: log.Seq(5)}, []string{"a5", "a6"}},
		{"until", log.Query{Key: keyA, From: log.Seq(2), Until: 4}, []string{"a2", "a3", "a4"}},
		// Commits 1 to 5 are at 1001 to 1005.
		{"commit to come", log.Query{Key: keyA, From: log.CommitNumber(5)}, []string{"a5", "a6"}},
		{"time to come", log.Query{Key: keyA, From: log.Since(time.Unix(1005, 0))}, []string{"a5", "a6"}},
		{"end of the window", log.Query{Key: keyA, Filter: log.Filter{Until: time.Unix(1005, 0)}}, []string{"a1", "a2", "a3", "a4"}},
		{"empty log", log.Query{Key: identity.NewID("empty")}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := log.NewMemory(testGroup)
				clock := &ticking{sec: 1000}
				m.SetClock(func() time.Time { clock.sec++; return clock.now() })
				appendTexts(t, m, keyA, "a1", "a2")
				appendTexts(t, m, keyB, "b1")

				ctx, cancel := context.WithCancel(t.Context())
				tc.q.Follow = true
				var mu sync.Mutex
				var got []string
				var end error
				isDone := false
				go func() {
					for run, err := range m.Scan(ctx, tc.q) {
						mu.Lock()
						if err != nil {
							end = err
						}
						for _, payload := range run.Records() {
							got = append(got, string(payload))
						}
						mu.Unlock()
					}
					mu.Lock()
					isDone = true
					mu.Unlock()
				}()
				synctest.Wait()
				appendTexts(t, m, keyA, "a3", "a4")
				appendTexts(t, m, keyB, "b2")
				synctest.Wait()
				appendTexts(t, m, keyA, "a5", "a6")
				synctest.Wait()

				mu.Lock()
				endsItself := tc.q.Until != 0 || !tc.q.Filter.Until.IsZero()
				if isDone != endsItself || !slices.Equal(got, tc.want) {
					t.Errorf("got %v, ended %t, want %v, %t", got, isDone, tc.want, endsItself)
				}
				mu.Unlock()
				cancel()
				synctest.Wait()
				mu.Lock()
				defer mu.Unlock()
				if !isDone || endsItself && end != nil || !endsItself && !errors.Is(end, context.Canceled) {
					t.Errorf("after the end of ctx: ended %t with %v", isDone, end)
				}
			})
		})
	}
}

func TestMemoryClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := log.NewMemory(testGroup)
		p := appendTexts(t, m, keyA, "x")
		head := m.Head()
		ends := make(chan error, 1)
		go func() {
			_, err := collect(t.Context(), m, log.Query{Key: keyA, Follow: true})
			ends <- err
		}()
		synctest.Wait()
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
		if err := <-ends; !errors.Is(err, log.ErrClosed) {
			t.Errorf("the following scan ended with %v", err)
		}
		_, appendErr := m.Append(t.Context(), keyA, nil)
		_, asyncErr := m.AppendAsync(t.Context(), keyA, nil).Result()
		_, commitErr := m.Commit(p.Commit)
		_, scanErr := collect(t.Context(), m, log.Query{Key: keyA})
		var commitsErr error
		for _, err := range m.Commits(t.Context(), 1, 0) {
			commitsErr = err
		}
		for name, err := range map[string]error{
			"Append": appendErr, "AppendAsync": asyncErr, "Commit": commitErr, "Scan": scanErr, "Commits": commitsErr, "Close": m.Close(),
		} {
			if !errors.Is(err, log.ErrClosed) {
				t.Errorf("%s on a closed memory: %v", name, err)
			}
		}
		if m.Head() != head || m.ID() != testGroup {
			t.Errorf("the head of a closed memory is %+v, was %+v", m.Head(), head)
		}
	})
}

// A scan of what is there ends, however fast others append.
func TestScanEndsWhereItStarted(t *testing.T) {
	m := log.NewMemory(testGroup)
	for range 3 {
		appendTexts(t, m, keyA, "x", "y")
	}
	scan := m.Scan(t.Context(), log.Query{Key: keyA})
	appendTexts(t, m, keyA, "before the loop")
	seen := 0
	for run, err := range scan {
		if err != nil {
			t.Fatal(err)
		}
		seen += run.Count
		appendTexts(t, m, keyA, "in the loop") // no lock is held meanwhile
	}
	if seen != 7 {
		t.Errorf("saw %d records, 7 were there", seen)
	}
	again := 0
	for run, err := range scan {
		if err != nil {
			t.Fatal(err)
		}
		again += run.Count
	}
	if again != 11 {
		t.Errorf("ranged over again, the scan saw %d records, 11 were there", again)
	}
}

func TestMemoryConcurrently(t *testing.T) {
	const writers, each = 4, 50
	m := log.NewMemory(testGroup)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				if _, err := m.Append(t.Context(), keyA, fmt.Appendf(nil, "%d %d", w, i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 2 {
		wg.Go(func() {
			next := make([]int, writers)
			got, err := collect(t.Context(), m, log.Query{Key: keyA, Until: writers * each, Follow: true})
			if err != nil || len(got) != writers*each {
				t.Errorf("%d records, %v", len(got), err)
			}
			for i, r := range got {
				var w, n int
				if _, err := fmt.Sscan(r.Payload, &w, &n); err != nil || n != next[w] || r.Seq != uint64(i)+1 {
					t.Errorf("record %d is %v, %v", i, r, err)
					return
				}
				next[w]++
			}
		})
	}
	wg.Wait()
	checkChain(t, m)
}

func TestFuture(t *testing.T) {
	f := log.NewFuture()
	ended, end := context.WithCancel(t.Context())
	end()
	if _, err := f.Wait(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("Wait with an ended ctx: %v", err)
	}
	select {
	case <-f.Done():
		t.Error("done before the outcome")
	default:
	}
	want := log.Pointer{Commit: 3}
	go f.Complete(want, log.ErrClosed)
	if p, err := f.Result(); p != want || err != log.ErrClosed {
		t.Errorf("Result() = %v, %v", p, err)
	}
	<-f.Done()
	for _, ctx := range []context.Context{t.Context(), ended} {
		if p, err := f.Wait(ctx); p != want || err != log.ErrClosed {
			t.Errorf("Wait() = %v, %v", p, err)
		}
	}
}
