package log_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

type tick struct {
	Pair  string
	Price float64
}

var ticks = log.StreamDef[tick]{Name: "oracle.price"}

// openTicks opens the stream over a fresh memory with a clock that stands at
// sec 1000 plus the number of the commit.
func openTicks(t *testing.T) (*log.Memory, *log.Stream[tick]) {
	t.Helper()
	m := log.NewMemory(testGroup)
	clock := &ticking{sec: 1000}
	m.SetClock(func() time.Time { clock.sec++; return clock.now() })
	s, err := ticks.Open(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	return m, s
}

// seqs reads a stream to its end.
func seqs[T any](records iter.Seq2[log.Record[T], error]) (list []uint64, err error) {
	for r, err := range records {
		if err != nil {
			if r.Seq != 0 || r.Commit != 0 || !r.Time.IsZero() || !r.Pointer().IsZero() {
				err = fmt.Errorf("the error %w comes with record %d", err, r.Seq)
			}
			return list, err
		}
		list = append(list, r.Seq)
	}
	return list, nil
}

func TestStreamRoundTrip(t *testing.T) {
	m, s := openTicks(t)
	if s.Name() != "oracle.price" || s.Key() != identity.NewID("oracle.price") || s.Key() != ticks.Key() {
		t.Errorf("the stream is %q, key %v", s.Name(), s.Key())
	}
	values := []tick{{"eur/usd", 1.0842}, {"eur/chf", 0.9771}, {"", 0}, {"gbp/usd", 1.25}}
	first, err := s.Append(t.Context(), values[0])
	if err != nil {
		t.Fatal(err)
	}
	batch, err := s.AppendBatch(t.Context(), values[1:3]...)
	if err != nil {
		t.Fatal(err)
	}
	last, err := s.AppendAsync(t.Context(), values[3]).Wait(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	second := batch
	second.Seq++
	pointers := []log.Pointer{first, batch, second, last}
	commits := []uint64{2, 3, 3, 4} // commit 1 is the directory's

	reader, err := ticks.Reader(m)
	if err != nil {
		t.Fatal(err)
	}
	i := 0
	for r, err := range reader.All(t.Context(), log.Earliest()) {
		if err != nil {
			t.Fatal(err)
		}
		if r.Value != values[i] || r.Seq != uint64(i)+1 || r.Pointer() != pointers[i] || r.Commit != commits[i] ||
			!r.Time.Equal(time.Unix(1000+int64(commits[i]), 0)) || r.Time.Location() != time.UTC {
			t.Errorf("record %d is %+v at %v, want %v at %v", i, r, r.Pointer(), values[i], pointers[i])
		}
		i++
	}
	if i != len(values) {
		t.Errorf("%d records, want %d", i, len(values))
	}
	checkChain(t, m)
}

func TestStreamPositions(t *testing.T) {
	m, s := openTicks(t)
	var pointers []log.Pointer
	for range 3 { // commits 2, 4, 6; seqs 1-2, 3-4, 5-6
		p, err := s.AppendBatch(t.Context(), tick{}, tick{})
		if err != nil {
			t.Fatal(err)
		}
		pointers = append(pointers, p)
		appendTexts(t, m, keyB, "between")
	}
	inner, whole := pointers[1], pointers[1]
	inner.Seq = 4
	whole.Key, whole.Seq = identity.ID{}, 0
	other, err := m.Commit(5)
	if err != nil {
		t.Fatal(err)
	}
	between := other.Pointer()
	for _, tc := range []struct {
		from log.Position
		want []uint64
	}{
		{log.Earliest(), []uint64{1, 2, 3, 4, 5, 6}},
		{log.Latest(), nil},
		{log.Seq(4), []uint64{4, 5, 6}},
		{log.Seq(7), nil},
		{log.Seq(100), nil},
		{log.CommitNumber(1), []uint64{1, 2, 3, 4, 5, 6}},
		{log.CommitNumber(4), []uint64{3, 4, 5, 6}},
		{log.CommitNumber(5), []uint64{5, 6}},
		{log.CommitNumber(100), nil},
		{log.Since(time.Unix(1004, 0)), []uint64{3, 4, 5, 6}},
		{log.Since(time.Unix(1004, 1)), []uint64{5, 6}},
		{log.Since(time.Unix(2000, 0)), nil},
		{log.At(pointers[2]), []uint64{5, 6}},
		{log.At(inner), []uint64{4, 5, 6}},
		{log.At(whole), []uint64{3, 4, 5, 6}},
		{log.At(between), []uint64{5, 6}},
	} {
		if got, err := seqs(s.All(t.Context(), tc.from)); err != nil || !slices.Equal(got, tc.want) {
			t.Errorf("from %s: %v, %v, want %v", tc.from, got, err, tc.want)
		}
	}
	bad := pointers[0]
	bad.Digest[0]++
	for from, want := range map[log.Position]error{
		log.Seq(0): log.ErrPosition, log.CommitNumber(0): log.ErrPosition, log.At(bad): log.ErrPointer,
	} {
		if got, err := seqs(s.All(t.Context(), from)); !errors.Is(err, want) || got != nil || !strings.Contains(err.Error(), `stream "oracle.price"`) {
			t.Errorf("from %s: %v, %v, want %v", from, got, err, want)
		}
	}
}

func TestStreamFilter(t *testing.T) {
	_, s := openTicks(t)
	for i := range 4 { // commits 2 to 5 at 1002 to 1005; seqs 1-3, 4-6, 7-9, 10-12
		if _, err := s.AppendBatch(t.Context(), tick{"a", float64(i)}, tick{"b", float64(i)}, tick{"a", float64(i)}); err != nil {
			t.Fatal(err)
		}
	}
	isB := func(payload []byte) bool {
		v, err := log.CBOR[tick]().Decode(payload)
		return err == nil && v.Pair == "b"
	}
	for _, tc := range []struct {
		name   string
		from   log.Position
		filter log.Filter
		want   []uint64
	}{
		{"none", log.Earliest(), log.Filter{}, []uint64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}},
		{"since", log.Earliest(), log.Filter{Since: time.Unix(1004, 0)}, []uint64{7, 8, 9, 10, 11, 12}},
		{"until", log.Earliest(), log.Filter{Until: time.Unix(1004, 0)}, []uint64{1, 2, 3, 4, 5, 6}},
		{"every 5", log.Earliest(), log.Filter{Every: 5}, []uint64{5, 10}},
		{"every 5 wherever it starts", log.Seq(4), log.Filter{Every: 5}, []uint64{5, 10}},
		{"match", log.Seq(3), log.Filter{Match: isB}, []uint64{5, 8, 11}},
		{"all together", log.Seq(2), log.Filter{Since: time.Unix(1003, 0), Until: time.Unix(1005, 0), Every: 2, Match: isB}, []uint64{8}},
	} {
		got, err := seqs(s.Query(t.Context(), tc.from, tc.filter, false))
		if err != nil || !slices.Equal(got, tc.want) {
			t.Errorf("%s: %v, %v, want %v", tc.name, got, err, tc.want)
		}
	}
	if _, err := seqs(s.Query(t.Context(), log.Earliest(), log.Filter{Since: time.Unix(2, 0), Until: time.Unix(1, 0)}, false)); !errors.Is(err, log.ErrQuery) {
		t.Errorf("an empty window: %v", err)
	}
	// With a window that has an end even a following query ends.
	if got, err := seqs(s.Query(t.Context(), log.Seq(10), log.Filter{Until: time.Unix(1005, 0)}, true)); err != nil || got != nil {
		t.Errorf("following past the end of the window: %v, %v", got, err)
	}
}

func TestStreamTail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, s := openTicks(t)
		if _, err := s.Append(t.Context(), tick{"old", 1}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		got := make(chan tick)
		end := make(chan error)
		go func() {
			for r, err := range s.Tail(ctx, log.Latest()) {
				if err != nil {
					end <- err
					return
				}
				got <- r.Value
			}
			end <- errors.New("the tail ended by itself")
		}()
		for i := range 3 {
			synctest.Wait() // the tail waits, and has yielded nothing that was there before
			want := tick{"new", float64(i)}
			if _, err := s.Append(t.Context(), want); err != nil {
				t.Fatal(err)
			}
			if v := <-got; v != want {
				t.Errorf("the tail yields %v, want %v", v, want)
			}
		}
		cancel()
		if err := <-end; !errors.Is(err, context.Canceled) {
			t.Errorf("the tail ended with %v", err)
		}
	})
}

func TestStreamBreakStops(t *testing.T) {
	m, s := openTicks(t)
	if _, err := s.AppendBatch(t.Context(), make([]tick, 5)...); err != nil {
		t.Fatal(err)
	}
	for name, records := range map[string]iter.Seq2[log.Record[tick], error]{
		"all": s.All(t.Context(), log.Earliest()), "tail": s.Tail(t.Context(), log.Earliest()),
	} {
		seen := 0
		for r, err := range records {
			if err != nil {
				t.Fatal(err)
			}
			if seen++; r.Seq == 3 {
				break
			}
		}
		if seen != 3 {
			t.Errorf("%s: saw %d records before the break", name, seen)
		}
	}
	if err := m.Close(); err != nil { // nobody holds it
		t.Error(err)
	}
}

func TestStreamContext(t *testing.T) {
	_, s := openTicks(t)
	if _, err := s.AppendBatch(t.Context(), make([]tick, 3)...); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Append(t.Context(), tick{}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var got []uint64
	var end error
	for r, err := range s.All(ctx, log.Earliest()) {
		if end = err; err != nil {
			break
		}
		got = append(got, r.Seq)
		cancel() // seen between runs
	}
	if !errors.Is(end, context.Canceled) || !slices.Equal(got, []uint64{1, 2, 3}) {
		t.Errorf("cancelled in the first of two runs: %v, %v", got, end)
	}
	deadline, stop := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer stop()
	if _, err := seqs(s.Tail(deadline, log.Latest())); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("past its deadline the tail ends with %v", err)
	}
	if _, err := s.Append(ctx, tick{}); !errors.Is(err, context.Canceled) {
		t.Errorf("Append with an ended ctx: %v", err)
	}
	if _, err := ticks.Open(ctx, log.NewMemory(testGroup)); !errors.Is(err, context.Canceled) {
		t.Errorf("Open with an ended ctx: %v", err)
	}
}

func TestStreamRefusesToWrite(t *testing.T) {
	m := log.NewMemory(testGroup)
	blobs, err := log.StreamDef[[]byte]{Name: "blobs", Codec: log.Raw()}.Open(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	head := m.Head()
	half := make([]byte, log.MaxPayload/2+1)
	_, one := blobs.Append(t.Context(), make([]byte, log.MaxPayload+1))
	_, async := blobs.AppendAsync(t.Context(), make([]byte, log.MaxPayload+1)).Result()
	_, together := blobs.AppendBatch(t.Context(), half, half)
	_, many := blobs.AppendBatch(t.Context(), make([][]byte, log.MaxRecords+1)...)
	for name, err := range map[string]error{"one": one, "async": async, "together": together, "many": many} {
		if !errors.Is(err, log.ErrOversize) || !strings.Contains(err.Error(), `stream "blobs"`) {
			t.Errorf("%s: %v, want ErrOversize", name, err)
		}
	}
	if _, err := blobs.AppendBatch(t.Context()); !errors.Is(err, log.ErrEmpty) {
		t.Errorf("no value: %v", err)
	}
	texts, err := log.StreamDef[string]{Name: "texts"}.Open(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	head.Number++ // the directory's record
	_, batch := texts.AppendBatch(t.Context(), "good", "b\xffd")
	_, async = texts.AppendAsync(t.Context(), "b\xffd").Result()
	for _, err := range []error{batch, async} {
		if !errors.Is(err, log.ErrCodec) {
			t.Errorf("a string that is not UTF-8: %v", err)
		}
	}
	if m.Head().Number != head.Number {
		t.Errorf("refused values left %d commits", m.Head().Number-head.Number)
	}
	if _, err := blobs.Append(t.Context(), make([]byte, log.MaxPayload)); err != nil {
		t.Errorf("the largest value: %v", err)
	}
}

func TestStreamRecordThatDoesNotDecode(t *testing.T) {
	m, s := openTicks(t)
	appendTexts(t, m, s.Key(), "\xa0", "not CBOR", "\xa0")
	got, err := seqs(s.All(t.Context(), log.Earliest()))
	if !errors.Is(err, log.ErrCodec) || !strings.Contains(err.Error(), "record 2") || !slices.Equal(got, []uint64{1}) {
		t.Errorf("%v, %v, want ErrCodec with the seq after record 1", got, err)
	}
	if got, err := seqs(s.All(t.Context(), log.Seq(3))); err != nil || !slices.Equal(got, []uint64{3}) {
		t.Errorf("behind it: %v, %v", got, err)
	}
}

func TestStreamWrongCodec(t *testing.T) {
	m, s := openTicks(t)
	if _, err := s.Append(t.Context(), tick{}); err != nil {
		t.Fatal(err)
	}
	other := log.StreamDef[tick]{Name: ticks.Name, Codec: log.JSON[tick]()}
	head := m.Head()
	if w, err := other.Open(t.Context(), m); !errors.Is(err, log.ErrCodec) || w != nil || !strings.Contains(err.Error(), "written as cbor, not as json") {
		t.Errorf("Open with another codec: %v, %v", w, err)
	}
	if m.Head() != head {
		t.Error("a refused Open wrote something")
	}
	r, err := other.Reader(m)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if got, err := seqs(r.All(t.Context(), log.Earliest())); !errors.Is(err, log.ErrCodec) || got != nil {
			t.Errorf("reading with another codec: %v, %v", got, err)
		}
	}
	again, err := ticks.Open(t.Context(), m)
	if err != nil || m.Head() != head {
		t.Errorf("the second Open: %v, head %+v, was %+v", err, m.Head(), head)
	}
	if got, err := seqs(again.All(t.Context(), log.Earliest())); err != nil || len(got) != 1 {
		t.Errorf("the second Open reads %v, %v", got, err)
	}
}

// A reader may be there before anybody has opened the stream.
func TestStreamReaderBeforeTheStream(t *testing.T) {
	m := log.NewMemory(testGroup)
	early, err := ticks.Reader(m)
	if err != nil {
		t.Fatal(err)
	}
	wrong, err := log.StreamDef[tick]{Name: ticks.Name, Codec: log.JSON[tick]()}.Reader(m)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []*log.StreamReader[tick]{early, wrong} {
		if got, err := seqs(r.All(t.Context(), log.Earliest())); err != nil || got != nil {
			t.Errorf("an unknown stream: %v, %v", got, err)
		}
	}
	s, err := ticks.Open(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Append(t.Context(), tick{}); err != nil {
		t.Fatal(err)
	}
	if got, err := seqs(early.All(t.Context(), log.Earliest())); err != nil || len(got) != 1 {
		t.Errorf("once it is open: %v, %v", got, err)
	}
	if _, err := seqs(wrong.All(t.Context(), log.Earliest())); !errors.Is(err, log.ErrCodec) {
		t.Errorf("once it is open, with another codec: %v", err)
	}
}

func TestStreamClosed(t *testing.T) {
	m, s := openTicks(t)
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	_, appendErr := s.Append(t.Context(), tick{})
	_, asyncErr := s.AppendAsync(t.Context(), tick{}).Result()
	_, allErr := seqs(s.All(t.Context(), log.Earliest()))
	_, tailErr := seqs(s.Tail(t.Context(), log.Latest()))
	_, openErr := ticks.Open(t.Context(), m)
	_, directoryErr := log.Directory(t.Context(), m)
	for name, err := range map[string]error{
		"Append": appendErr, "AppendAsync": asyncErr, "All": allErr, "Tail": tailErr, "Open": openErr, "Directory": directoryErr,
	} {
		if !errors.Is(err, log.ErrClosed) {
			t.Errorf("%s over a closed log: %v", name, err)
		}
	}
}

func TestStreamNames(t *testing.T) {
	m := log.NewMemory(testGroup)
	for _, name := range []string{"", "cafe\u0301", "a\nb", strings.Repeat("x", 256), "mosaik.directory", log.DirectoryKey().String()} {
		d := log.StreamDef[tick]{Name: name}
		if _, err := d.Reader(m); !errors.Is(err, identity.ErrName) {
			t.Errorf("a reader of %q: %v", name, err)
		}
		if _, err := d.Open(t.Context(), m); !errors.Is(err, identity.ErrName) {
			t.Errorf("opening %q: %v", name, err)
		}
	}
	if m.Head().Number != 0 {
		t.Error("a refused name left a record")
	}
}

func TestDirectory(t *testing.T) {
	m := log.NewMemory(testGroup)
	if list, err := log.Directory(t.Context(), m); err != nil || len(list) != 0 {
		t.Errorf("the directory of nothing: %v, %v", list, err)
	}
	want := []log.DirectoryEntry{
		{Name: "b", Kind: log.KindStream, Codec: "cbor"},
		{Name: "a", Kind: log.KindStream, Codec: "json"},
		{Name: identity.NewID("c").String(), Kind: log.KindStream, Codec: "raw"},
	}
	for range 2 {
		_, err1 := log.StreamDef[int]{Name: "b"}.Open(t.Context(), m)
		_, err2 := log.StreamDef[int]{Name: "a", Codec: log.JSON[int]()}.Open(t.Context(), m)
		_, err3 := log.StreamDef[[]byte]{Name: want[2].Name, Codec: log.Raw()}.Open(t.Context(), m)
		if err := errors.Join(err1, err2, err3); err != nil {
			t.Fatal(err)
		}
	}
	if m.Head().Number != 3 {
		t.Errorf("opening three streams twice left %d commits", m.Head().Number)
	}
	// Late records for a key, under whatever spelling, say nothing.
	for _, late := range []log.DirectoryEntry{
		{Name: "b", Kind: log.KindStream, Codec: "json"},
		{Name: strings.ToUpper(want[2].Name), Kind: log.KindStream, Codec: "cbor"},
		{Name: "c", Kind: log.NoOp().Signature(), Codec: "cbor"},
	} {
		payload, err := log.CBOR[log.DirectoryEntry]().Append(nil, late)
		if err != nil {
			t.Fatal(err)
		}
		appendTexts(t, m, log.DirectoryKey(), string(payload))
	}
	if list, err := log.Directory(t.Context(), m); err != nil || !slices.Equal(list, want) {
		t.Errorf("the directory is %v, %v, want %v", list, err, want)
	}

	// A log of another kind is not a stream.
	if _, err := (log.MapDef[string, int]{Name: "prices"}).Open(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if _, err := (log.StreamDef[int]{Name: "prices"}).Open(t.Context(), m); !errors.Is(err, log.ErrCodec) || !strings.Contains(err.Error(), "is a mosaik.map.v1, not a stream") {
		t.Errorf("opening a map as a stream: %v", err)
	}

	// What no replica could fold does not get into the directory.
	unknown, err := log.CBOR[log.DirectoryEntry]().Append(nil, log.DirectoryEntry{Name: "x", Kind: "somebody's", Codec: "cbor"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Append(t.Context(), log.DirectoryKey(), unknown); !errors.Is(err, log.ErrKind) {
		t.Errorf("registering an unknown kind: %v", err)
	}
	if _, err := m.Append(t.Context(), log.DirectoryKey(), []byte("junk")); !errors.Is(err, log.ErrCodec) {
		t.Errorf("registering junk: %v", err)
	}
}

// racing is a writer on which somebody else registers at the worst moment: after
// the look into the directory and before the append.
type racing struct {
	*log.Memory
	once func()
}

func (r *racing) Home(identity.ID) log.GroupStore { return r }

func (r *racing) Append(ctx context.Context, key identity.ID, payloads ...[]byte) (log.Pointer, error) {
	if once := r.once; once != nil {
		r.once = nil
		once()
	}
	return r.Memory.Append(ctx, key, payloads...)
}

func TestTwoOpenAtOnce(t *testing.T) {
	m := log.NewMemory(testGroup)
	json := log.StreamDef[int]{Name: "n", Codec: log.JSON[int]()}
	cbor := log.StreamDef[int]{Name: "n"}
	openFirst := func() {
		if _, err := json.Open(t.Context(), m); err != nil {
			t.Error(err)
		}
	}
	if _, err := cbor.Open(t.Context(), &racing{m, openFirst}); !errors.Is(err, log.ErrCodec) {
		t.Errorf("the one that came second: %v", err)
	}
	if _, err := json.Open(t.Context(), m); err != nil {
		t.Errorf("the one that came first, again: %v", err)
	}

	same := log.NewMemory(testGroup)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			s, err := cbor.Open(t.Context(), same)
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := s.Append(t.Context(), 1); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if list, err := log.Directory(t.Context(), same); err != nil || len(list) != 1 {
		t.Errorf("eight openers left %v, %v", list, err)
	}
}
