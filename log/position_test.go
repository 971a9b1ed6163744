package log_test

import (
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

func drawPointer(t *rapid.T) log.Pointer {
	p := log.Pointer{
		Group:  drawID(t, "group"),
		Commit: rapid.Uint64Min(1).Draw(t, "commit"),
		Digest: log.Digest(drawID(t, "digest")),
	}
	if rapid.Bool().Draw(t, "record") {
		p.Key, p.Seq = drawID(t, "key"), rapid.Uint64Min(1).Draw(t, "seq")
	}
	return p
}

func drawPosition(t *rapid.T) log.Position {
	switch log.PositionKind(rapid.IntRange(0, 5).Draw(t, "kind")) {
	case log.AtLatest:
		return log.Latest()
	case log.AtSeq:
		return log.Seq(rapid.Uint64Min(1).Draw(t, "seq"))
	case log.AtCommit:
		return log.CommitNumber(rapid.Uint64Min(1).Draw(t, "number"))
	case log.AtTime:
		return log.Since(time.Unix(0, rapid.Int64().Draw(t, "nanos")))
	case log.AtPointer:
		return log.At(drawPointer(t))
	default:
		return log.Earliest()
	}
}

func TestPositionTextRoundTrips(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := drawPosition(t)
		back, err := log.ParsePosition(p.String())
		if err != nil || back != p {
			t.Fatalf("ParsePosition(%q) = %v, %v", p, back, err)
		}
		if err := p.Validate(); err != nil {
			t.Fatal(err)
		}
		encoded, err := json.Marshal(p)
		if err != nil || string(encoded) != `"`+p.String()+`"` {
			t.Fatalf("JSON of %v = %s, %v", p, encoded, err)
		}
		if err := json.Unmarshal(encoded, &back); err != nil || back != p {
			t.Fatalf("JSON round trip of %v = %v, %v", p, back, err)
		}
	})
}

func TestPositionTellsWhatItIs(t *testing.T) {
	group, key := identity.NewID("group"), identity.NewID("key")
	pointer := log.Pointer{Group: group, Commit: 7, Digest: log.Sum([]byte("x")), Key: key, Seq: 9}
	at := time.Date(2024, 5, 6, 7, 8, 9, 10, time.FixedZone("", 3600))
	for _, tc := range []struct {
		position    log.Position
		kind        log.PositionKind
		text        string
		seq, commit uint64
		time        int64
	}{
		{log.Position{}, log.AtEarliest, "earliest", 0, 0, 0},
		{log.Earliest(), log.AtEarliest, "earliest", 0, 0, 0},
		{log.Latest(), log.AtLatest, "latest", 0, 0, 0},
		{log.Seq(9), log.AtSeq, "seq:9", 9, 0, 0},
		{log.CommitNumber(math.MaxUint64), log.AtCommit, "commit:18446744073709551615", 0, math.MaxUint64, 0},
		{log.Since(at), log.AtTime, "time:2024-05-06T06:08:09.00000001Z", 0, 0, at.UnixNano()},
		{log.Since(time.Unix(0, -1)), log.AtTime, "time:1969-12-31T23:59:59.999999999Z", 0, 0, -1},
		{log.Since(time.Time{}), log.AtTime, "time:1677-09-21T00:12:43.145224192Z", 0, 0, math.MinInt64},
		{log.Since(time.Date(3000, 1, 1, 0, 0, 0, 0, time.UTC)), log.AtTime, "time:2262-04-11T23:47:16.854775807Z", 0, 0, math.MaxInt64},
		{log.At(pointer), log.AtPointer, pointer.String(), 9, 7, 0},
	} {
		p := tc.position
		if p.Kind() != tc.kind || p.String() != tc.text || p.Seq() != tc.seq || p.Commit() != tc.commit || p.Time() != tc.time {
			t.Errorf("%s: kind %d, seq %d, commit %d, time %d; want %+v", p, p.Kind(), p.Seq(), p.Commit(), p.Time(), tc)
		}
		if want := (log.Pointer{}); tc.kind == log.AtPointer && p.Pointer() != pointer || tc.kind != log.AtPointer && p.Pointer() != want {
			t.Errorf("%s: pointer %v", p, p.Pointer())
		}
		if back, err := log.ParsePosition(tc.text); err != nil || back != p {
			t.Errorf("ParsePosition(%q) = %v, %v", tc.text, back, err)
		}
	}
}

func TestParsePositionRefuses(t *testing.T) {
	for _, tc := range []struct{ text, why string }{
		{"", "want earliest"},
		{"Earliest", "want earliest"},
		{"earliest ", "want earliest"},
		{"latest:", `"latest" is no kind`},
		{"offset:3", `"offset" is no kind`},
		{"seq:", `"" is not a number from 1`},
		{"seq:0", `"0" is not a number from 1`},
		{"seq:007", `"007" is not a number from 1`},
		{"seq:+7", `"+7" is not a number from 1`},
		{"seq:-1", `"-1" is not a number from 1`},
		{"seq:18446744073709551616", "is not a number from 1"},
		{"commit:1e3", `commit: "1e3" is not a number from 1`},
		{"time:yesterday", `"yesterday" is not like 2006-01-02T15:04:05.999999999Z`},
		{"time:2024-05-06T07:08:09+02:00", "must be written as time:2024-05-06T05:08:09Z"},
		{"time:2024-05-06T07:08:09.50Z", "must be written as time:2024-05-06T07:08:09.5Z"},
		{"time:2024-05-06T07:08:09,5Z", "must be written as time:2024-05-06T07:08:09.5Z"},
		{"time:2024-05-06T07:08:09.1234567891Z", "must be written as time:2024-05-06T07:08:09.123456789Z"},
		{"time:1500-05-06T07:08:09Z", "outside the years 1678 to 2262"},
		{"time:2262-04-11T23:47:16.854775808Z", "outside the years 1678 to 2262"},
	} {
		if p, err := log.ParsePosition(tc.text); !errors.Is(err, log.ErrPosition) || !strings.Contains(err.Error(), tc.why) {
			t.Errorf("ParsePosition(%q) = %v, %v, want ErrPosition with %q", tc.text, p, err, tc.why)
		}
	}
	if _, err := log.ParsePosition("mosaik:beef"); !errors.Is(err, log.ErrPointer) {
		t.Errorf("a malformed pointer gives %v", err)
	}
	kept := log.Seq(3)
	if err := kept.UnmarshalText([]byte("seq:x")); err == nil || kept != log.Seq(3) {
		t.Errorf("a failed UnmarshalText left %v, %v", kept, err)
	}
}

func TestPositionValidate(t *testing.T) {
	for _, tc := range []struct {
		position log.Position
		want     error
	}{
		{log.Seq(0), log.ErrPosition},
		{log.CommitNumber(0), log.ErrPosition},
		{log.At(log.Pointer{}), log.ErrPointer},
		{log.At(log.Pointer{Commit: 1, Key: identity.NewID("k")}), log.ErrPointer},
	} {
		if err := tc.position.Validate(); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", tc.position, err, tc.want)
		}
	}
}

func TestFilter(t *testing.T) {
	at := func(sec int64) time.Time { return time.Unix(sec, 0) }
	run := func(sec int64, first uint64, count int) *log.Run {
		return &log.Run{Time: at(sec).UnixNano(), FirstSeq: first, Count: count}
	}
	for _, tc := range []struct {
		name        string
		filter      log.Filter
		run         *log.Run
		skips, ends bool
	}{
		{"all", log.Filter{}, run(5, 1, 1), false, false},
		{"since is inclusive", log.Filter{Since: at(5)}, run(5, 1, 1), false, false},
		{"before since", log.Filter{Since: at(6)}, run(5, 1, 1), true, false},
		{"until is exclusive", log.Filter{Until: at(5)}, run(5, 1, 1), true, true},
		{"before until", log.Filter{Until: at(6)}, run(5, 1, 1), false, false},
		{"far bounds", log.Filter{Since: at(-1 << 40), Until: at(1 << 40)}, run(5, 1, 1), false, false},
		{"a multiple is first", log.Filter{Every: 4}, run(5, 8, 1), false, false},
		{"a multiple is last", log.Filter{Every: 4}, run(5, 5, 4), false, false},
		{"no multiple", log.Filter{Every: 4}, run(5, 5, 3), true, false},
		{"every 1", log.Filter{Every: 1}, run(5, 5, 1), false, false},
		{"huge every", log.Filter{Every: math.MaxUint64}, run(5, math.MaxUint64-3, 3), true, false},
	} {
		if err := tc.filter.Validate(); err != nil {
			t.Errorf("%s: %v", tc.name, err)
		}
		if skips, ends := tc.filter.Skips(tc.run), tc.filter.Ends(tc.run); skips != tc.skips || ends != tc.ends {
			t.Errorf("%s: skips %t, ends %t", tc.name, skips, ends)
		}
	}
	for _, f := range []log.Filter{{Since: at(5), Until: at(5)}, {Since: at(6), Until: at(5)}} {
		if err := f.Validate(); !errors.Is(err, log.ErrQuery) {
			t.Errorf("an empty window gives %v", err)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		f := log.Filter{Every: rapid.Uint64Range(0, 9).Draw(t, "every")}
		r := run(5, rapid.Uint64Range(1, 30).Draw(t, "first"), rapid.IntRange(1, 12).Draw(t, "count"))
		kept := false
		for seq := r.FirstSeq; seq <= r.LastSeq(); seq++ {
			kept = kept || f.Keeps(seq, nil)
		}
		if f.Skips(r) == kept {
			t.Fatalf("every %d of seqs %d to %d: skips the run %t, keeps a record %t", f.Every, r.FirstSeq, r.LastSeq(), f.Skips(r), kept)
		}
	})
}
