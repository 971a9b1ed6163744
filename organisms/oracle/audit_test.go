package oracle_test

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/organisms/oracle"
)

// TestAuditNamesWhatDiffers changes one field of a tick after the other, and signs it again
// as a lying enclave would: the audit names that field and no other.
func TestAuditNamesWhatDiffers(t *testing.T) {
	planted := changes[oracle.PriceTick]{
		"TimestampMs":  func(x *oracle.PriceTick) { x.TimestampMs++ },
		"Pair":         func(x *oracle.PriceTick) { x.Pair.Quote = "USD" },
		"Price":        func(x *oracle.PriceTick) { x.Price++ },
		"Confidence":   func(x *oracle.PriceTick) { x.Confidence++ },
		"SourceSet":    func(x *oracle.PriceTick) { x.SourceSet[0]++ },
		"SourceCount":  func(x *oracle.PriceTick) { x.SourceCount++ },
		"Stale":        func(x *oracle.PriceTick) { x.Stale = !x.Stale },
		"Seq":          func(x *oracle.PriceTick) { x.Seq++ },
		"Disagreement": func(x *oracle.PriceTick) { x.Disagreement = !x.Disagreement },
		"Decimals":     func(x *oracle.PriceTick) { x.Decimals++ },
		"Parameters":   func(x *oracle.PriceTick) { x.Parameters[0]++ },
		"Round":        func(x *oracle.PriceTick) { x.Round[0]++ },
		"Signer":       nil, // below
		"Signature":    nil,
	}
	names := map[string][]string{
		"TimestampMs": {"timestamp"}, "Pair": {"pair"}, "Price": {"price"}, "Confidence": {"confidence"}, "SourceSet": {"source set"},
		"SourceCount": {"source count"}, "Stale": {"stale"}, "Seq": {"seq"}, "Disagreement": {"disagreement"},
		"Decimals": {"price", "confidence", "decimals"}, "Parameters": {"parameters"}, "Round": {"round"},
		"Signer": {"signer"}, "Signature": {"signature"},
	}
	for f := range reflect.TypeFor[oracle.PriceTick]().Fields() {
		p, round, tick := example(t)
		if change := planted[f.Name]; change != nil {
			change(tick)
			tick.Sign(stableID, key("enclave"))
		} else if f.Name == "Signer" {
			tick.Sign(stableID, key("somebody"))
		} else {
			tick.Signature[63] ^= 1
		}
		err := newAuditor(t, p).AuditTick(round, tick)
		var audit *oracle.AuditError
		if !errors.As(err, &audit) {
			t.Errorf("%s: %v", f.Name, err)
			continue
		}
		var got []string
		for _, d := range audit.Differences {
			got = append(got, d.Field)
			if d.Have == d.Want || !strings.Contains(err.Error(), d.Field+" is "+d.Have) {
				t.Errorf("%s: %+v in %q", f.Name, d, err)
			}
		}
		if !reflect.DeepEqual(got, names[f.Name]) || audit.Seq != 42 || audit.Pair != ethUSDC {
			t.Errorf("%s: the audit names %q: %v", f.Name, got, err)
		}
	}
	p, round, tick := example(t)
	if err := newAuditor(t, p).AuditTick(round, tick); err != nil {
		t.Error(err)
	}
}

// TestAlteredRoundFails changes each field of a round, and of its observations, below a
// tick that was right: none goes unnoticed, not even what the price does not depend on.
func TestAlteredRoundFails(t *testing.T) {
	all := map[string]func(*oracle.Round){
		"TimestampMs":  func(r *oracle.Round) { r.TimestampMs++ },
		"Pair":         func(r *oracle.Round) { r.Pair.Base = "WETH" },
		"Seq":          func(r *oracle.Round) { r.Seq++ },
		"Parameters":   func(r *oracle.Round) { r.Parameters[0]++ },
		"Source":       func(r *oracle.Round) { r.Observations[1].Source[0]++ },
		"Reason":       func(r *oracle.Round) { r.Observations[2].Reason = oracle.BadPin },
		"Price":        func(r *oracle.Round) { r.Observations[1].Price++ },
		"ObservedAt":   func(r *oracle.Round) { r.Observations[1].ObservedAt++ },
		"Response":     func(r *oracle.Round) { r.Observations[1].Response[0]++ },
		"Detail":       func(r *oracle.Round) { r.Observations[2].Detail = "another" },
		"Observations": func(r *oracle.Round) { r.Observations = r.Observations[:3] },
	}
	changes[oracle.Round](all).complete(t)
	for f := range reflect.TypeFor[oracle.Observation]().Fields() {
		if all[f.Name] == nil {
			t.Errorf("no change of %s", f.Name)
		}
	}
	for name, change := range all {
		p, round, tick := example(t)
		change(round)
		err := newAuditor(t, p).AuditTick(round, tick)
		var audit *oracle.AuditError
		if !errors.As(err, &audit) && !errors.Is(err, oracle.ErrRound) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// step is one round of a sequence, and whether it has its tick.
type step struct {
	round *oracle.Round
	tick  bool
}

// TestSequence: what is wrong between rounds, each of which is right by itself.
func TestSequence(t *testing.T) {
	p, _ := setUp(1, 1, 1)
	at := func(seconds int) time.Time { return began.Add(time.Duration(seconds) * time.Second) }
	// said makes source 0 say that price, observed at that second, for that reason.
	said := func(r *oracle.Round, second int, price oracle.Price, reason oracle.Reason) *oracle.Round {
		r.Observations[0].ObservedAt, r.Observations[0].Price, r.Observations[0].Reason = at(second).UnixNano(), price, reason
		return r
	}
	good := func(seq uint64, second int) *oracle.Round { return roundOf(p, seq, at(second), 100, 101, 102) }
	skipped := func(seq uint64, second int) *oracle.Round { return roundOf(p, seq, at(second), 100, 0, 0) }
	for name, test := range map[string]struct {
		steps []step
		want  string // of the error of the last step; the others have none
	}{
		"good":                          {[]step{{good(1, 0), true}, {skipped(2, 1), false}, {good(3, 2), true}}, ""},
		"from the middle":               {[]step{{good(7, 0), true}, {good(8, 1), true}}, ""},
		"a round is missing":            {[]step{{good(1, 0), true}, {good(3, 2), true}}, "seq: the round before has 1"},
		"a round twice":                 {[]step{{good(1, 0), true}, {good(1, 0), true}}, "seq: the round before has 1"},
		"no time has passed":            {[]step{{good(1, 0), true}, {good(2, 0), true}}, "timestamp: "},
		"time goes back":                {[]step{{good(1, 5), true}, {good(2, 4), true}}, "timestamp: "},
		"a tick is missing":             {[]step{{good(1, 0), false}}, "tick is missing"},
		"a source says the same again":  {[]step{{good(1, 0), true}, {said(good(2, 1), 0, 100, oracle.Available), true}}, ""},
		"a source goes back":            {[]step{{good(1, 0), true}, {said(good(2, 1), -1, 100, oracle.Available), true}}, "it is available, after what the source said before it is backwards"},
		"and that is told":              {[]step{{good(1, 0), true}, {said(good(2, 1), -1, 100, oracle.Backwards), true}}, ""},
		"two prices for a time":         {[]step{{good(1, 0), true}, {said(good(2, 1), 0, 99, oracle.Available), true}}, "it is contradiction"},
		"and this is told":              {[]step{{good(1, 0), true}, {said(good(2, 1), 0, 99, oracle.Contradiction), true}}, ""},
		"told without reason":           {[]step{{good(1, 0), true}, {said(good(2, 1), 1, 99, oracle.Contradiction), true}}, "it is contradiction, after what the source said before it is available"},
		"what did not count is no past": {[]step{{said(good(1, 0), 1, 100, oracle.Available), true}, {said(good(2, 1), 3, 50, oracle.TooNew), true}, {said(good(3, 2), 2, 100, oracle.Available), true}}, ""},
		"unknown past is believed":      {[]step{{said(good(7, 0), -1, 100, oracle.Backwards), true}, {said(good(8, 11), 2, 100, oracle.Backwards), true}}, ""},
		"for MaxAge and MaxAhead":       {[]step{{good(7, 0), true}, {said(good(8, 12), 3, 100, oracle.Backwards), true}}, "it is backwards, after what the source said before it is available"},
		"but not what is known":         {[]step{{good(7, 0), true}, {said(good(8, 1), -1, 100, oracle.Available), true}}, "it is backwards"},
		"the first has no past":         {[]step{{said(good(1, 0), -1, 100, oracle.Backwards), true}}, "it is backwards, after what the source said before it is available"},
	} {
		a := newAuditor(t, p)
		for i, s := range test.steps {
			var tick *oracle.PriceTick
			if s.tick {
				tick = signedTick(t, p, s.round)
			}
			err := a.Next(s.round, tick)
			if last := i == len(test.steps)-1; last && test.want != "" {
				if err == nil || !strings.Contains(err.Error(), test.want) {
					t.Errorf("%s: %v, want %s", name, err, test.want)
				}
			} else if err != nil {
				t.Errorf("%s: step %d: %v", name, i, err)
			}
		}
	}
	// A tick of a round that should have none.
	a, planted := newAuditor(t, p), signedTick(t, p, good(1, 0))
	var audit *oracle.AuditError
	if err := a.Next(skipped(1, 0), planted); !errors.As(err, &audit) || errors.Is(err, oracle.ErrSkipped) || !strings.Contains(err.Error(), "below its quorum") {
		t.Error(err)
	}
	if err := a.Next(good(2, 1), signedTick(t, p, good(2, 1))); err != nil {
		t.Errorf("after a wrong tick: %v", err)
	}
}

func TestNewAuditorRefuses(t *testing.T) {
	p, _ := setUp(1, 1, 1)
	if _, err := oracle.NewAuditor(p, stableID, oracle.Pair{Base: "USDC", Quote: "ETH"}, admitted); !errors.Is(err, oracle.ErrRound) {
		t.Error(err)
	}
	p.Quorum = 0
	var bad *oracle.FieldError
	if _, err := oracle.NewAuditor(p, stableID, ethUSDC, admitted); !errors.As(err, &bad) {
		t.Error(err)
	}
}

// BenchmarkAudit is the audit of one tick of twelve sources, with its round and its tick
// decoded from their bytes.
func BenchmarkAudit(b *testing.B) {
	p, _ := setUp(1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3)
	prices := make([]oracle.Price, 12)
	for i := range prices {
		prices[i] = oracle.Price(331244 + i)
	}
	const rounds = 1000
	var encoded [rounds][2][]byte
	for i := range encoded {
		r := roundOf(p, uint64(i+1), began.Add(time.Duration(i)*time.Second), prices...)
		encoded[i] = [2][]byte{r.Append(nil), signedTick(b, p, r).Append(nil)}
	}
	enclave := key("enclave").PeerID()
	only := func(p identity.PeerID) bool { return p == enclave }
	var a *oracle.Auditor
	n := 0
	for b.Loop() {
		if n%rounds == 0 {
			var err error
			if a, err = oracle.NewAuditor(p, stableID, ethUSDC, only); err != nil {
				b.Fatal(err)
			}
		}
		r, err := oracle.DecodeRound(encoded[n%rounds][0])
		if err != nil {
			b.Fatal(err)
		}
		tick, err := oracle.DecodeTick(encoded[n%rounds][1])
		if err != nil {
			b.Fatal(err)
		}
		if err := a.Next(&r, &tick); err != nil {
			b.Fatal(err)
		}
		n++
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "ticks/s")
}
