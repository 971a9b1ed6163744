package oracle_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/organisms"
	"github.com/mosaik-engine/mosaik/organisms/oracle"
)

// replayed returns a source that replays a file, of BTC-USDT on kraken unless changed.
func replayed(t testing.TB, file string, change func(*oracle.Replay)) (*oracle.Replayer, error) {
	t.Helper()
	c := &oracle.Replay{File: log.Sum([]byte(file)), Instrument: "BTC-USDT", Venue: "kraken", Column: oracle.Bid}
	if change != nil {
		change(c)
	}
	return oracle.NewReplayer(oracle.Pair{Base: "BTC", Quote: "USDT"}, c, 5, strings.NewReader(file))
}

const replayHeader = "time_ns,pair,venue,bid,ask,size\n"

// TestReplayRealTrades: real trades, of which several have one time and not one price. The
// last of a time is what counts.
func TestReplayRealTrades(t *testing.T) {
	file, err := os.ReadFile("testdata/ticks.csv")
	if err != nil {
		t.Fatal(err)
	}
	r, err := replayed(t, string(file), nil)
	if err != nil {
		t.Fatal(err)
	}
	answered := 0
	for line := range strings.Lines(string(file)) {
		fields := strings.Split(line, ",")
		if fields[1] != "BTC-USDT" {
			continue
		}
		var at int64
		if _, err := fmt.Sscan(fields[0], &at); err != nil {
			t.Fatal(err)
		}
		o := r.Observe(t.Context(), time.Unix(0, at))
		if o.Reason != oracle.Available || o.ObservedAt != at {
			t.Fatalf("at %d: %+v", at, o)
		}
		if o.Response == log.Sum([]byte(strings.TrimSuffix(line, "\n"))) {
			answered++ // it is the last of its time
			if want, err := oracle.ParsePrice(fields[3], 5); err != nil || o.Price != want {
				t.Errorf("at %d: %d, want %d, %v", at, o.Price, want, err)
			}
		}
	}
	if answered < 2 || answered == strings.Count(string(file), "BTC-USDT") {
		t.Errorf("%d lines answered", answered)
	}
}

func TestReplayer(t *testing.T) {
	file := replayHeader + "100,BTC-USDT,kraken,10.5,10.7,1\r\n" + "200,BTC-USDT,other,1,1,\n" + "200,BTC-USDT,kraken,-37.63,11,\n" +
		"300,BTC-USDT,kraken,12,12.00001,\n" + "250,BTC-USDT,kraken,13,13,\n" + "350,BTC-USDT,kraken,14,14,"
	r, err := replayed(t, file, func(c *oracle.Replay) { c.Column = oracle.Mid })
	if err != nil {
		t.Fatal(err)
	}
	for at, want := range map[int64]oracle.Observation{
		99:  {Reason: oracle.NoData},
		100: {Reason: oracle.Available, Price: 1060000, ObservedAt: 100},
		199: {Reason: oracle.Available, Price: 1060000, ObservedAt: 100},
		200: {Reason: oracle.BadPrice},
		299: {Reason: oracle.BadPrice},
		300: {Reason: oracle.Unordered}, // the line of 250 stands before the next that is later
		349: {Reason: oracle.Unordered},
		350: {Reason: oracle.Available, Price: 1400000, ObservedAt: 350},
		1e9: {Reason: oracle.Available, Price: 1400000, ObservedAt: 350},
	} {
		o := r.Observe(t.Context(), time.Unix(0, at))
		if o.Reason != want.Reason || o.Price != want.Price || o.ObservedAt != want.ObservedAt {
			t.Errorf("at %d: %v %+v", at, o.Reason, o)
		}
	}
	for column, want := range map[oracle.Column]oracle.Price{oracle.Bid: 1050000, oracle.Ask: 1070000} {
		r, err := replayed(t, file, func(c *oracle.Replay) { c.Column = column })
		if err != nil {
			t.Fatal(err)
		}
		if o := r.Observe(t.Context(), time.Unix(0, 100)); o.Price != want {
			t.Errorf("%v: %+v", column, o)
		}
	}
}

// TestReplayerGoesThroughTheFile: against a reader that goes through the file line by line,
// whatever the order of the times in it.
func TestReplayerGoesThroughTheFile(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		times := rapid.SliceOfN(rapid.Int64Range(0, 30), 1, 20).Draw(rt, "times")
		file := replayHeader
		for i, at := range times {
			file += fmt.Sprintf("%d,BTC-USDT,kraken,%d,%d,\n", at, i+1, i+1)
		}
		r, err := replayed(t, file, nil)
		if err != nil {
			rt.Fatal(err)
		}
		for at := range int64(31) {
			want, latest := oracle.Observation{Reason: oracle.NoData}, int64(0)
			for i, row := range times {
				if row > at {
					break
				}
				latest = max(latest, row)
				want = oracle.Observation{Reason: oracle.Available, Price: oracle.Price(i+1) * 1e5, ObservedAt: row}
				if row < latest {
					want = oracle.Observation{Reason: oracle.Unordered}
				}
			}
			if o := r.Observe(t.Context(), time.Unix(0, at)); o.Reason != want.Reason || o.Price != want.Price || o.ObservedAt != want.ObservedAt {
				rt.Fatalf("%v at %d: %+v, want %+v", times, at, o, want)
			}
		}
	})
}

func TestReplayerRefuses(t *testing.T) {
	for file, want := range map[string]string{
		"": "it is empty", "time,price\n1,2\n": "line 1: ", replayHeader + "1,BTC-USDT,kraken,1\n": "line 2: 4 fields",
		replayHeader + "1,BTC-USDT,kraken,1,1,1,1\n": "line 2: 7 fields", replayHeader + "\n": "line 2: 1 fields",
		replayHeader + "x,BTC-USDT,kraken,1,1,\n": "line 2: time_ns", replayHeader + "-1,BTC-USDT,kraken,1,1,\n": "line 2: time_ns",
		replayHeader + strings.Repeat("x", 300): "line 2: 300 bytes",
	} {
		if r, err := replayed(t, file, nil); r != nil || !errors.Is(err, oracle.ErrReplay) || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v, want %s", file, err, want)
		}
	}
	if _, err := replayed(t, replayHeader, func(c *oracle.Replay) { c.File[0]++ }); !errors.Is(err, oracle.ErrReplay) || !strings.Contains(err.Error(), "its digest is") {
		t.Error(err)
	}
}

// TestUpstream: another oracle's ticks, one thing wrong with the last of them at a time.
func TestUpstream(t *testing.T) {
	theirs, _, _ := example(t)
	config := organisms.Config{Role: oracle.Role, InstanceName: "oracle-γ.oracle", Parameters: theirs.Append(nil)}
	ref := config.Ref(true)
	ours, _ := setUp(1, 1, 1)
	ours.Decimals = 4
	for name, test := range map[string]struct {
		change func(*oracle.PriceTick) // before it is signed
		spoil  func(*oracle.PriceTick) // after that
		ref    organisms.Ref
		want   oracle.Reason
	}{
		"good":                 {want: oracle.Available},
		"good, not pinned":     {ref: config.Ref(false), want: oracle.Available},
		"rotated, not pinned":  {ref: config.Ref(false), change: func(x *oracle.PriceTick) { x.Parameters[0]++ }, want: oracle.Available},
		"of another revision":  {change: func(x *oracle.PriceTick) { x.Parameters[0]++ }, want: oracle.OtherPolicy},
		"stale":                {change: func(x *oracle.PriceTick) { x.Stale = true }, want: oracle.Doubtful},
		"disputed":             {change: func(x *oracle.PriceTick) { x.Disagreement = true }, want: oracle.Doubtful},
		"the other way round":  {change: func(x *oracle.PriceTick) { x.Pair = oracle.Pair{Base: "USDC", Quote: "ETH"} }, want: oracle.Malformed},
		"more exact than ours": {change: func(x *oracle.PriceTick) { x.Decimals, x.Price = 6, 123456789 }, want: oracle.BadPrice},
		"signed by another":    {spoil: func(x *oracle.PriceTick) { x.Sign(stableID, key("somebody")) }, want: oracle.NotAdmitted},
		"signed elsewhere":     {spoil: func(x *oracle.PriceTick) { x.Sign(identity.NewID("another"), key("enclave")) }, want: oracle.BadSignature},
		"altered":              {spoil: func(x *oracle.PriceTick) { x.Price++ }, want: oracle.BadSignature},
	} {
		if test.ref.Role == "" {
			test.ref = ref
		}
		memory := theirGroup()
		memory.SetClock(func() time.Time { return began })
		append := openTheirs(t, memory, config)
		u, err := oracle.NewUpstream(ethUSDC, &oracle.Organism{Ref: test.ref, Pair: ethUSDC}, ours, bindTheirs(t, memory, test.ref, ethUSDC), &config)
		if err != nil {
			t.Fatal(err)
		}
		if o := u.Observe(t.Context(), began); o.Reason != oracle.NoData {
			t.Errorf("%s: before the first tick: %+v", name, o)
		}
		_, _, tick := example(t)
		tick.Stale = false
		tick.Sign(stableID, key("enclave"))
		if test.change != nil {
			// The one before the last is good: only the last counts.
			append(tick)
			test.change(tick)
			tick.Seq++
			tick.Sign(stableID, key("enclave"))
		}
		if test.spoil != nil {
			test.spoil(tick)
		}
		append(tick)
		o := u.Observe(t.Context(), began)
		if o.Reason != test.want || o.Response != log.Sum(tick.Append(nil)) {
			t.Errorf("%s: %v %+v", name, o.Reason, o)
		}
		if test.want == oracle.Available && (o.Price != tick.Price*100 || o.ObservedAt != began.UnixNano()) {
			t.Errorf("%s: %+v", name, o)
		}
		if o := u.Observe(t.Context(), began.Add(11*time.Second)); o.Reason != oracle.NoData {
			t.Errorf("%s: after MaxAge: %+v", name, o)
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if o := u.Observe(ended, began); o.Reason != oracle.Timeout {
			t.Errorf("%s: without time: %+v", name, o)
		}
	}
}

// theirGroup is the group of another oracle.
func theirGroup() *log.Memory {
	d := oracle.Definition(ethUSDC)
	return log.NewMemory(identity.NewID("their group"), d.Machines()...)
}

// openTheirs opens the other oracle, and returns what commits a tick of it.
func openTheirs(t *testing.T, memory *log.Memory, config organisms.Config) func(*oracle.PriceTick) {
	t.Helper()
	o, err := organisms.Open(t.Context(), memory, config, oracle.Definition(ethUSDC))
	if err != nil {
		t.Fatal(err)
	}
	return func(tick *oracle.PriceTick) {
		t.Helper()
		if _, _, err := o.Commit(t.Context(), "ticks ETH/USDC", tick.Append(nil)); err != nil {
			t.Fatal(err)
		}
	}
}

func bindTheirs(t *testing.T, memory *log.Memory, ref organisms.Ref, pair oracle.Pair) *oracle.Reader {
	t.Helper()
	r, err := oracle.Bind(t.Context(), memory, ref, pair, admitted)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestUpstreamBacklog: more ticks than can be one oracle's are not read through.
func TestUpstreamBacklog(t *testing.T) {
	memory := theirGroup()
	theirs, _, tick := example(t)
	config := oracle.Config("oracle-γ.oracle", theirs)
	add := openTheirs(t, memory, config)
	for n := range uint64(oracle.MaxBacklog + 1) {
		tick.Seq = n + 1
		add(tick)
	}
	ours, _ := setUp(1, 1, 1)
	u, err := oracle.NewUpstream(ethUSDC, &oracle.Organism{Ref: config.Ref(false), Pair: ethUSDC}, ours, bindTheirs(t, memory, config.Ref(false), ethUSDC), nil)
	if err != nil {
		t.Fatal(err)
	}
	if o := u.Observe(t.Context(), began); o.Reason != oracle.TooLarge {
		t.Errorf("%+v", o)
	}
}

func TestUpstreamOfSomethingElse(t *testing.T) {
	theirs, _, _ := example(t)
	config := oracle.Config("oracle-γ.oracle", theirs)
	other, elsewhere := config, config
	other.Parameters = append([]byte{1}, config.Parameters...)
	elsewhere.InstanceName = "another"
	ours, _ := setUp(1, 1, 1)
	memory := theirGroup()
	openTheirs(t, memory, config)
	openTheirs(t, memory, elsewhere)
	right, wrong := bindTheirs(t, memory, config.Ref(true), ethUSDC), bindTheirs(t, memory, elsewhere.Ref(true), ethUSDC)
	organism := &oracle.Organism{Ref: config.Ref(true), Pair: ethUSDC}
	for name, test := range map[string]struct {
		reader *oracle.Reader
		config *organisms.Config
	}{"another oracle": {wrong, &config}, "another revision": {right, &other}, "no config": {right, nil}} {
		var bad *oracle.FieldError
		if _, err := oracle.NewUpstream(ethUSDC, organism, ours, test.reader, test.config); !errors.As(err, &bad) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Somebody has written what is no tick where ticks are to be: it is as if it were not there.
	if _, err := memory.Append(t.Context(), oracle.StreamID(stableID, ethUSDC), []byte("no tick")); err != nil {
		t.Fatal(err)
	}
	u, err := oracle.NewUpstream(ethUSDC, organism, ours, right, &config)
	if err != nil {
		t.Fatal(err)
	}
	if o := u.Observe(t.Context(), time.Now()); o.Reason != oracle.NoData {
		t.Errorf("%+v", o)
	}
	// The other one is revised: the pin does not hold any more.
	if _, err := organisms.Revise(t.Context(), memory, other, oracle.Definition(ethUSDC)); err != nil {
		t.Fatal(err)
	}
	if o := u.Observe(t.Context(), time.Now()); o.Reason != oracle.OtherPolicy {
		t.Errorf("%+v", o)
	}
}

// fixed is a source that does what it is told.
type fixed struct {
	id      identity.ID
	observe func(ctx context.Context, at time.Time) oracle.Observation
	closed  error // what Close returns
}

func (f *fixed) ID() identity.ID { return f.id }

func (f *fixed) Observe(ctx context.Context, at time.Time) oracle.Observation {
	return f.observe(ctx, at)
}

func (f *fixed) Close() error { return f.closed }

// saying returns an answer.
func saying(price oracle.Price) func(context.Context, time.Time) oracle.Observation {
	return func(_ context.Context, at time.Time) oracle.Observation {
		return oracle.Observation{Reason: oracle.Available, Price: price, ObservedAt: at.UnixNano()}
	}
}

// silent waits for the deadline.
func silent(ctx context.Context, _ time.Time) oracle.Observation {
	<-ctx.Done()
	return oracle.Observation{Reason: oracle.Timeout, Detail: ctx.Err().Error()}
}

// newFeeder returns a feeder of three sources of equal weight, whose answers can be changed.
func newFeeder(t testing.TB) (*oracle.Parameters, *oracle.Feeder, []*fixed) {
	t.Helper()
	p, _ := setUp(1, 1, 1)
	var sources []oracle.Source
	var all []*fixed
	for i, s := range p.Feeds[0].Sources {
		f := &fixed{id: s.Source, observe: saying(oracle.Price(10000 + i))}
		all, sources = append(all, f), append(sources, f)
	}
	f, err := oracle.NewFeeder(p, ethUSDC, sources)
	if err != nil {
		t.Fatal(err)
	}
	return p, f, all
}

// TestInvariant26: one source less is stale, two are a skip, and the seq of what was skipped
// is a gap; and an auditor that has only what was committed finds all of it right. (That a
// wrong key makes a source unavailable is TestT13, that the order of a pair does not matter
// TestPairs.)
func TestInvariant26(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, f, sources := newFeeder(t)
		a := newAuditor(t, p)
		var seqs []uint64
		for step, test := range []struct {
			silent int
			count  uint8 // 0: skipped
			stale  bool
		}{{0, 3, false}, {1, 2, true}, {2, 0, false}, {3, 0, false}, {0, 3, false}} {
			for i := range sources {
				sources[i].observe = saying(oracle.Price(10000 + i))
				if i < test.silent {
					sources[i].observe = silent
				}
			}
			start := time.Now()
			r, err := f.Collect(t.Context(), start)
			if err != nil {
				t.Fatal(err)
			}
			if waited := time.Since(start); test.silent > 0 != (waited == p.Deadline) || test.silent == 0 && waited != 0 {
				t.Errorf("step %d: it took %v", step, waited)
			}
			if r.Seq != uint64(step+1) {
				t.Errorf("step %d: seq %d", step, r.Seq)
			}
			tick, err := oracle.Recompute(p, r)
			if test.count == 0 {
				if !errors.Is(err, oracle.ErrSkipped) {
					t.Errorf("step %d: %+v, %v", step, tick, err)
				}
				err = a.Next(r, nil)
			} else {
				if err != nil || tick.SourceCount != test.count || tick.Stale != test.stale {
					t.Errorf("step %d: %+v, %v", step, tick, err)
				}
				seqs = append(seqs, tick.Seq)
				tick.Sign(stableID, key("enclave"))
				err = a.Next(r, &tick)
			}
			if err != nil {
				t.Errorf("step %d: %v", step, err)
			}
			time.Sleep(p.Cadence)
		}
		if !reflect.DeepEqual(seqs, []uint64{1, 2, 5}) {
			t.Errorf("the ticks have the seqs %v", seqs)
		}
	})
}

// TestFeederJudgesTime: what a source says twice, of the past or of the future. What the
// feeder says, the auditor agrees with.
func TestFeederJudgesTime(t *testing.T) {
	p, f, sources := newFeeder(t)
	a := newAuditor(t, p)
	for i, test := range []struct {
		observed time.Duration // after began
		price    oracle.Price
		want     oracle.Reason
	}{
		{0, 100, oracle.Available},
		{0, 100, oracle.Available},     // the same again
		{0, 101, oracle.Contradiction}, // another price for that time
		{-1, 100, oracle.Backwards},    // before what it has said
		{4*time.Second + 1, 100, oracle.Available},
		{4 * time.Second, 100, oracle.Backwards},
		{8 * time.Second, 100, oracle.TooNew}, // the round is at 6s, MaxAhead 1s
		{8 * time.Second, 100, oracle.Available},
		{-3 * time.Second, 100, oracle.TooOld}, // the round is at 8s, MaxAge 10s
		{8 * time.Second, 100, oracle.Available},
	} {
		sources[0].observe = func(context.Context, time.Time) oracle.Observation {
			return oracle.Observation{Reason: oracle.Available, Price: test.price, ObservedAt: began.Add(test.observed).UnixNano()}
		}
		r, err := f.Collect(t.Context(), began.Add(time.Duration(i)*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		if o := r.Observations[0]; o.Reason != test.want || o.Price != test.price {
			t.Errorf("%d: %v, want %v: %+v", i, o.Reason, test.want, o)
		}
		if err := a.Next(r, signedTick(t, p, r)); err != nil {
			t.Errorf("%d: %v", i, err)
		}
	}
}

// TestFeederTrustsNoSource: answers that are no observations are unavailable, and do not spoil
// the round.
func TestFeederTrustsNoSource(t *testing.T) {
	p, f, sources := newFeeder(t)
	for i, test := range []struct{ said, want oracle.Observation }{
		{oracle.Observation{}, oracle.Observation{Reason: oracle.Malformed}},
		{oracle.Observation{Reason: oracle.Available}, oracle.Observation{Reason: oracle.Malformed}},
		{oracle.Observation{Reason: oracle.Available, Price: oracle.MaxPrice + 1, ObservedAt: 1}, oracle.Observation{Reason: oracle.Malformed}},
		{oracle.Observation{Reason: oracle.Available, Price: 1, ObservedAt: -1}, oracle.Observation{Reason: oracle.Malformed}},
		{oracle.Observation{Reason: oracle.TooOld, Price: 1, ObservedAt: 1}, oracle.Observation{Reason: oracle.Malformed}},
		{oracle.Observation{Reason: oracle.BadStatus, Price: 1}, oracle.Observation{Reason: oracle.Malformed}},
		{oracle.Observation{Reason: oracle.BadStatus, Source: identity.NewID("another"), Detail: strings.Repeat("é", 101) + "\xff"}, oracle.Observation{Reason: oracle.BadStatus}},
	} {
		sources[1].observe = func(context.Context, time.Time) oracle.Observation { return test.said }
		r, err := f.Collect(t.Context(), began.Add(time.Duration(i)*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		if o := r.Observations[1]; o.Reason != test.want.Reason || o.Price != 0 || o.Source != p.Feeds[0].Sources[1].Source || len(o.Detail) > oracle.MaxDetail {
			t.Errorf("%d: %+v", i, o)
		}
		if _, err := oracle.DecodeRound(r.Append(nil)); err != nil {
			t.Errorf("%d: %v", i, err)
		}
	}
}

// TestFeederAsksAtOnce: each source answers only when all have been asked.
func TestFeederAsksAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, f, sources := newFeeder(t)
		asked, all := make(chan bool, len(sources)), make(chan bool)
		for i, s := range sources {
			answer := saying(oracle.Price(10000 + i))
			s.observe = func(ctx context.Context, at time.Time) oracle.Observation {
				asked <- true
				select {
				case <-all:
					return answer(ctx, at)
				case <-ctx.Done():
					return oracle.Observation{Reason: oracle.Timeout}
				}
			}
		}
		go func() {
			for range sources {
				<-asked
			}
			close(all)
		}()
		r, err := f.Collect(t.Context(), began)
		if err != nil {
			t.Fatal(err)
		}
		for i, o := range r.Observations {
			if o.Reason != oracle.Available || o.Price != oracle.Price(10000+i) {
				t.Errorf("%d: %+v", i, o)
			}
		}
	})
}

// TestFeederErrors: without a round, the seq is not used up.
func TestFeederErrors(t *testing.T) {
	p, f, sources := newFeeder(t)
	if _, err := f.Collect(t.Context(), began); err != nil {
		t.Fatal(err)
	}
	for _, at := range []time.Time{began, began.Add(-time.Hour), time.Unix(-1, 0), began.AddDate(300, 0, 0)} {
		if r, err := f.Collect(t.Context(), at); r != nil || !errors.Is(err, oracle.ErrClock) {
			t.Errorf("%v: %+v, %v", at, r, err)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if r, err := f.Collect(ended, began.Add(time.Second)); r != nil || !errors.Is(err, context.Canceled) {
		t.Errorf("%+v, %v", r, err)
	}
	if r, err := f.Collect(t.Context(), began.Add(time.Second)); err != nil || r.Seq != 2 {
		t.Errorf("%+v, %v", r, err)
	}
	sources[1].closed = errors.New("cannot be closed")
	if err := f.Close(); !errors.Is(err, sources[1].closed) {
		t.Error(err)
	}
	for name, list := range map[string][]oracle.Source{
		"one less": {sources[0], sources[1]}, "in another order": {sources[1], sources[0], sources[2]},
	} {
		if _, err := oracle.NewFeeder(p, ethUSDC, list); !errors.Is(err, oracle.ErrRound) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestResume: a feeder that is told what was committed goes on as the one before it would have.
func TestResume(t *testing.T) {
	p, f, _ := newFeeder(t)
	_, resumed, sources := newFeeder(t)
	var rounds []*oracle.Round
	for i := range 3 {
		r, err := f.Collect(t.Context(), began.Add(time.Duration(i)*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		rounds = append(rounds, r)
	}
	if err := resumed.Resume(rounds[1]); err != nil {
		t.Fatal(err)
	}
	if err := resumed.Resume(rounds[0]); !errors.Is(err, oracle.ErrRound) {
		t.Errorf("a round of before: %v", err)
	}
	if err := resumed.Resume(rounds[2]); err != nil {
		t.Fatal(err)
	}
	if _, err := resumed.Collect(t.Context(), began.Add(2*time.Second)); !errors.Is(err, oracle.ErrClock) {
		t.Error(err)
	}
	sources[0].observe = func(_ context.Context, at time.Time) oracle.Observation {
		return oracle.Observation{Reason: oracle.Available, Price: 10000, ObservedAt: began.Add(time.Second).UnixNano()}
	}
	r, err := resumed.Collect(t.Context(), began.Add(3*time.Second))
	if err != nil || r.Seq != 4 || r.Observations[0].Reason != oracle.Backwards {
		t.Errorf("%+v, %v", r, err)
	}
	// After a rotation the seq goes on, and what was said is of other sources.
	rotated := *p
	rotated.Tolerance++
	var list []oracle.Source
	for _, s := range sources {
		list = append(list, s)
	}
	next, err := oracle.NewFeeder(&rotated, ethUSDC, list)
	if err != nil {
		t.Fatal(err)
	}
	if err := next.Resume(rounds[2]); err != nil {
		t.Fatal(err)
	}
	if r, err = next.Collect(t.Context(), began.Add(3*time.Second)); err != nil || r.Seq != 4 || r.Observations[0].Reason != oracle.Available {
		t.Errorf("%+v, %v", r, err)
	}
	// And after a rotation back, what was said before it is forgotten: an auditor begins anew, too.
	_, back, sources := newFeeder(t)
	for _, committed := range []*oracle.Round{rounds[1], rounds[2], r} {
		if err := back.Resume(committed); err != nil {
			t.Fatal(err)
		}
	}
	sources[1].observe = func(context.Context, time.Time) oracle.Observation {
		return oracle.Observation{Reason: oracle.Available, Price: 10001, ObservedAt: began.UnixNano()}
	}
	if r, err = back.Collect(t.Context(), began.Add(4*time.Second)); err != nil || r.Seq != 5 || r.Observations[1].Reason != oracle.Available {
		t.Errorf("%+v, %v", r, err)
	}
}
