package reputation_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math/big"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/organisms"
	"github.com/mosaik-engine/mosaik/organisms/conformance"
	"github.com/mosaik-engine/mosaik/organisms/reputation"
)

const (
	kept   = 1
	broken = 2
)

func utility() reputation.Parameters {
	return reputation.Parameters{Window: time.Hour, Decay: 900_000, Weights: []reputation.Weight{{Kind: kept, Weight: 2}, {Kind: broken, Weight: -5}}}
}

func config(t *testing.T, p reputation.Parameters) organisms.Config {
	t.Helper()
	c, err := reputation.Config("test.reputation", p)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

var (
	anna, bert = identity.NewID("anna"), identity.NewID("bert")
	outcome    = organisms.At(log.Pointer{Group: identity.NewID("g"), Commit: 3, Digest: log.Digest{1}})
)

// changes are all the ways in which a utility can be another one.
var changes = map[string]func(*reputation.Parameters){
	"window":       func(p *reputation.Parameters) { p.Window = 2 * time.Hour },
	"decay":        func(p *reputation.Parameters) { p.Decay-- },
	"a weight":     func(p *reputation.Parameters) { p.Weights[1].Weight-- },
	"a kind":       func(p *reputation.Parameters) { p.Weights[1].Kind = 9 },
	"one kind":     func(p *reputation.Parameters) { p.Weights = p.Weights[:1] },
	"their order":  func(p *reputation.Parameters) { p.Weights[0], p.Weights[1] = p.Weights[1], p.Weights[0] },
	"another kind": func(p *reputation.Parameters) { p.Weights = append(p.Weights, reputation.Weight{Kind: 7, Weight: 1}) },
}

func TestConformance(t *testing.T) {
	var others []organisms.Config
	for _, change := range changes {
		p := utility()
		change(&p)
		others = append(others, config(t, p))
	}
	conformance.Test(t, conformance.Suite{
		Definition: reputation.Definition(), Config: config(t, utility()), Others: others,
		Commits: []conformance.Step{
			{Primitive: reputation.Cards, Body: reputation.Event(anna, kept, 1)}, {Primitive: reputation.Cards, Body: reputation.Event(bert, broken, 2)},
		},
		MaxRows: 3,
	})
}

// desk is a reputation organism in memory, with a clock of its own.
type desk struct {
	t     *testing.T
	group *log.Memory
	o     *organisms.Organism
	now   time.Time
}

func open(t *testing.T) *desk {
	t.Helper()
	definition := reputation.Definition()
	d := &desk{t: t, group: log.NewMemory(identity.NewID("group"), definition.Machines()...), now: time.Unix(1_800_000_000, 0)}
	d.group.SetClock(func() time.Time { return d.now })
	var err error
	if d.o, err = organisms.Open(t.Context(), d.group, config(t, utility()), definition); err != nil {
		t.Fatal(err)
	}
	return d
}

func (d *desk) event(subject identity.ID, kind uint16, count uint32, evidence ...organisms.Evidence) (taken bool) {
	d.t.Helper()
	_, result, err := d.o.Commit(d.t.Context(), reputation.Cards, reputation.Event(subject, kind, count), evidence...)
	if err != nil || len(result) != 1 {
		d.t.Fatalf("%x, %v", result, err)
	}
	return result[0] == 1
}

func (d *desk) score(subject identity.ID) int64 {
	d.t.Helper()
	card, _, err := reputation.Read(d.t.Context(), d.o.Surface, subject, d.now, log.Stale())
	if err != nil {
		d.t.Fatal(err)
	}
	return card.Score
}

// TestScores: what events come to, window by window.
func TestScores(t *testing.T) {
	d := open(t)
	if d.event(anna, kept, 1) || d.event(anna, 3, 1, outcome) || d.event(anna, kept, 0, outcome) || d.event(anna, kept, reputation.MaxCount+1, outcome) {
		t.Error("an event without evidence, of no kind, or of no number is taken")
	}
	if d.score(anna) != 0 {
		t.Error("and counts")
	}
	if !d.event(anna, kept, 5, outcome) || !d.event(anna, broken, 1, outcome) || !d.event(bert, broken, 1, outcome) {
		t.Fatal("an event is not taken")
	}
	if a, b := d.score(anna), d.score(bert); a != 5000 || b != -5000 {
		t.Errorf("%d and %d", a, b)
	}
	d.now = d.now.Add(time.Hour)
	if a, b := d.score(anna), d.score(bert); a != 4500 || b != -4500 {
		t.Errorf("an hour later %d and %d", a, b)
	}
	d.event(anna, kept, 1, outcome)
	if a := d.score(anna); a != 6500 {
		t.Errorf("and one more: %d", a)
	}
	d.now = d.now.Add(1000 * time.Hour)
	if a := d.score(anna); a != 0 {
		t.Errorf("long after: %d", a)
	}
	if n, err := reputation.Audit(t.Context(), d.o.Surface); n != 2 || err != nil {
		t.Errorf("the audit: %d cards, %v", n, err)
	}
}

// TestDecay: scores over n windows are those of exact arithmetic, but for the rounding.
func TestDecay(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		p := utility()
		p.Decay = uint32(rng.IntN(reputation.Whole + 1))
		n := rng.Uint64N(200)
		score := rng.Int64N(1<<62) - 1<<61
		if rng.IntN(4) == 0 {
			score = rng.Int64N(2000) - 1000
		}
		have := reputation.Card{Score: score}.In(n, &p).Score
		exact := new(big.Rat).SetInt64(score)
		factor := big.NewRat(int64(p.Decay), reputation.Whole)
		for range n {
			exact.Mul(exact, factor)
		}
		want, _ := exact.Float64()
		if diff := float64(have) - want; diff > abs(float64(score))*1e-7+1 || diff < -abs(float64(score))*1e-7-1 {
			t.Fatalf("%d over %d windows with %d: %d, exactly %f", score, n, p.Decay, have, want)
		}
		if whole := (reputation.Parameters{Decay: reputation.Whole}); (reputation.Card{Score: score}).In(n, &whole).Score != score {
			t.Fatal("what forgets nothing forgets")
		}
	}
}

func abs(x float64) float64 { return max(x, -x) }

// TestAuditFindsLies: cards of another fold of the same log do not hold.
func TestAuditFindsLies(t *testing.T) {
	d := open(t)
	d.event(anna, kept, 1, outcome)
	// A copy of the log whose view says something else: the event is of another subject there.
	definition := reputation.Definition()
	other := log.NewMemory(identity.NewID("group"), definition.Machines()...)
	o, err := organisms.Open(t.Context(), other, config(t, utility()), definition)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := o.Commit(t.Context(), reputation.Cards, reputation.Event(bert, kept, 1), outcome); err != nil {
		t.Fatal(err)
	}
	c := config(t, utility())
	mixed, err := organisms.Bind(t.Context(), lying{d.group, other}, c.Ref(true), definition)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := reputation.Audit(t.Context(), mixed); !errors.Is(err, reputation.ErrCard) || !strings.Contains(err.Error(), bert.String()) {
		t.Errorf("%v", err)
	}
}

// TestInvariant29: a floor admits who is above it, until the end of the window, and nobody
// once the utility is another one.
func TestInvariant29(t *testing.T) {
	d := open(t)
	d.event(anna, kept, 5, outcome)
	c := config(t, utility())
	floor := reputation.Floor{Reputation: c.Ref(true), Score: 9000, Surface: d.o.Surface}
	entry := func(subject identity.ID) *identity.PeerEntry {
		return &identity.PeerEntry{Peer: identity.PeerID(subject)}
	}
	until, err := floor.Admit(entry(anna), d.now)
	if err != nil {
		t.Fatal(err)
	}
	if at, _ := until.Time(); at.Sub(d.now) <= 0 || at.Sub(d.now) > time.Hour || at.Unix()%3600 != 0 {
		t.Errorf("until %v, it is %v", at, d.now)
	}
	if _, err := floor.Admit(entry(bert), d.now); !errors.Is(err, identity.ReasonClaim) {
		t.Errorf("bert: %v", err)
	}
	if _, err := floor.Admit(entry(anna), d.now.Add(2*time.Hour)); !errors.Is(err, identity.ReasonClaim) {
		t.Errorf("two hours later: %v", err)
	}
	unpinned := floor
	unpinned.Reputation = c.Ref(false)
	if _, err := unpinned.Admit(entry(anna), d.now); !errors.Is(err, organisms.ErrRevision) {
		t.Errorf("not pinned: %v", err)
	}
	seen := map[identity.ID]string{floor.Signature(): "the floor", unpinned.Signature(): "not pinned"}
	lower := floor
	lower.Score--
	for name, change := range changes {
		p := utility()
		change(&p)
		next := config(t, p)
		other := floor
		other.Reputation = next.Ref(true)
		if before, twice := seen[other.Signature()]; twice {
			t.Errorf("the floor by another %s has the signature of %s", name, before)
		}
		seen[other.Signature()] = name
	}
	if _, twice := seen[lower.Signature()]; twice {
		t.Error("a lower floor has the same signature")
	}
	p := utility()
	p.Weights[0].Weight = 100 // everybody is far above the floor
	if _, err := organisms.Revise(t.Context(), d.group, config(t, p), reputation.Definition()); err != nil {
		t.Fatal(err)
	}
	if _, err := floor.Admit(entry(anna), d.now); !errors.Is(err, organisms.ErrRevision) {
		t.Errorf("under another utility: %v", err)
	}
}

func TestParametersRefused(t *testing.T) {
	for want, change := range map[string]func(*reputation.Parameters){
		"window":     func(p *reputation.Parameters) { p.Window = time.Millisecond },
		"decay":      func(p *reputation.Parameters) { p.Decay = reputation.Whole + 1 },
		"weights: 0": func(p *reputation.Parameters) { p.Weights = nil },
		"weights[1]": func(p *reputation.Parameters) { p.Weights[1].Kind = kept },
		"weights[0]": func(p *reputation.Parameters) { p.Weights[0].Weight = reputation.MaxWeight + 1 },
	} {
		p := utility()
		change(&p)
		if _, err := reputation.Config("x", p); !errors.Is(err, organisms.ErrConfig) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

// TestDocumented: docs/format/reputation.md shows what the code writes.
func TestDocumented(t *testing.T) {
	b, err := os.ReadFile("../../docs/format/reputation.md")
	if err != nil {
		t.Fatal(err)
	}
	c := config(t, utility())
	for _, want := range []string{hex.EncodeToString(c.Parameters), hex.EncodeToString(reputation.Event(anna, kept, 1))} {
		if !strings.Contains(string(b), "\n"+want+"\n") {
			t.Errorf("the document lacks %s", want)
		}
	}
}

// FuzzParameters: what decodes is what Config writes, and can be folded by.
func FuzzParameters(f *testing.F) {
	c, err := reputation.Config("x", utility())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(c.Parameters, uint64(3), int64(1000))
	f.Fuzz(func(t *testing.T, b []byte, windows uint64, score int64) {
		p, err := reputation.DecodeParameters(b)
		if err != nil {
			return
		}
		c, err := reputation.Config("x", p)
		if err != nil || !bytes.Equal(c.Parameters, b) {
			t.Fatalf("%x becomes %x, %v", b, c.Parameters, err)
		}
		score /= 2 // scores stop at ±2^62
		after := reputation.Card{Score: score}.In(windows, &p).Score
		if score >= 0 && (after < 0 || after > score) || score < 0 && (after > 0 || after < score) {
			t.Errorf("%d is %d after %d windows of decay %d", score, after, windows, p.Decay)
		}
	})
}
