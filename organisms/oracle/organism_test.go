package oracle_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/organisms"
	"github.com/mosaik-engine/mosaik/organisms/conformance"
	"github.com/mosaik-engine/mosaik/organisms/oracle"
)

func TestConformance(t *testing.T) {
	p, _ := setUp(1, 1, 1)
	c := oracle.Config("oracle-γ.oracle", p)
	var others []organisms.Config
	for _, change := range []func(*oracle.Parameters){
		func(p *oracle.Parameters) { p.Quorum = 1 },
		func(p *oracle.Parameters) { p.Feeds[0].Sources[1].Weight = 2 },
		func(p *oracle.Parameters) { p.Catalog[3] ^= 1 },
		func(p *oracle.Parameters) { p.MaxAge += time.Second },
	} {
		q, _ := setUp(1, 1, 1)
		change(q)
		others = append(others, oracle.Config("oracle-γ.oracle", q))
	}
	measured := c
	m := identity.NewID("measurements")
	measured.Measurements = &m
	others = append(others, measured)
	var steps []conformance.Step
	for seq := uint64(1); seq <= 3; seq++ {
		r := roundOf(p, seq, began.Add(time.Duration(seq)*time.Second), 1000, 1001, 1002)
		steps = append(steps,
			conformance.Step{Primitive: "rounds ETH/USDC", Body: r.Append(nil)},
			conformance.Step{Primitive: "ticks ETH/USDC", Body: signedTick(t, p, r).Append(nil)})
	}
	conformance.Test(t, conformance.Suite{Definition: oracle.Definition(ethUSDC), Config: c, Others: others, Commits: steps, MaxRows: 2})
}

// desk is an oracle in memory whose sources say what the test wants.
type desk struct {
	t       *testing.T
	group   *log.Memory
	config  organisms.Config
	p       *oracle.Parameters
	sources []*fixed
	o       *organisms.Organism
	u       *oracle.Publisher
}

func openDesk(t *testing.T, change ...func(*oracle.Parameters)) *desk {
	p, _ := setUp(1, 1, 1)
	for _, c := range change {
		c(p)
	}
	d := &desk{t: t, config: oracle.Config("oracle-γ.oracle", p), p: p}
	definition := oracle.Definition(p.Pairs()...)
	d.group = log.NewMemory(identity.NewID("group"), definition.Machines()...)
	var err error
	if d.o, err = organisms.Open(t.Context(), d.group, d.config, definition); err != nil {
		t.Fatal(err)
	}
	d.start()
	return d
}

// start starts a publisher, as after a crash of the one before.
func (d *desk) start() {
	d.t.Helper()
	d.sources = nil
	var sources []oracle.Source
	for _, s := range d.p.Feeds[0].Sources {
		f := &fixed{id: s.Source, observe: saying(1000)}
		d.sources, sources = append(d.sources, f), append(sources, f)
	}
	u, err := oracle.NewPublisher(d.t.Context(), d.o, d.p, ethUSDC, sources, key("enclave"))
	if err != nil {
		d.t.Fatal(err)
	}
	d.u = u
}

func (d *desk) publish(second int) oracle.Outcome {
	d.t.Helper()
	out, err := d.u.Publish(d.t.Context(), began.Add(time.Duration(second)*time.Second))
	if err != nil {
		d.t.Fatal(err)
	}
	return out
}

func (d *desk) reader(pinned bool) *oracle.Reader {
	d.t.Helper()
	r, err := oracle.Bind(d.t.Context(), d.group, d.config.Ref(pinned), ethUSDC, admitted)
	if err != nil {
		d.t.Fatal(err)
	}
	return r
}

// TestPublish: rounds go on after a crash, a round without a quorum leaves a gap in the
// ticks, readers get what was signed, and an audit computes all of it again.
func TestPublish(t *testing.T) {
	d := openDesk(t)
	d.publish(1)
	d.sources[0].observe = silent
	if out := d.publish(2); out.Tick == nil || !out.Tick.Stale || out.Tick.Seq != 2 {
		t.Errorf("two of three: %+v", out.Tick)
	}
	d.sources[1].observe = silent
	if out := d.publish(3); out.Tick != nil || out.Pointer.IsZero() {
		t.Errorf("one of three: %+v", out)
	}
	d.start()
	if out := d.publish(4); out.Tick == nil || out.Tick.Seq != 4 {
		t.Errorf("after a crash: %+v", out.Tick)
	}
	var seqs []uint64
	for tick, err := range d.reader(true).Ticks(t.Context(), log.Earliest(), false) {
		if err != nil {
			t.Fatal(err)
		}
		if tick.Price != 1000 || tick.Pointer.IsZero() {
			t.Errorf("%+v", tick)
		}
		seqs = append(seqs, tick.Seq)
	}
	if len(seqs) != 3 || seqs[1] != 2 || seqs[2] != 4 {
		t.Errorf("ticks %v", seqs)
	}
	if last, err := d.reader(false).Latest(t.Context()); err != nil || last.Seq != 4 {
		t.Errorf("%+v, %v", last, err)
	}
	if report, err := d.reader(false).Audit(t.Context()); err != nil || report != (oracle.AuditReport{Rounds: 4, Ticks: 3, Skipped: 1}) {
		t.Errorf("%+v, %v", report, err)
	}
	// The inverse is the same stream.
	inverse, err := oracle.Bind(t.Context(), d.group, d.config.Ref(false), oracle.Pair{Base: "USDC", Quote: "ETH"}, admitted)
	if err != nil {
		t.Fatal(err)
	}
	if last, err := inverse.Latest(t.Context()); err != nil || last.Pair != ethUSDC {
		t.Errorf("%+v, %v", last, err)
	}
	if report, err := inverse.Audit(t.Context()); err != nil || report.Ticks != 3 {
		t.Errorf("%+v, %v", report, err)
	}
}

// TestTwoPublishers: of two that publish the same pair, the one that comes second with a
// seq is refused, and nothing is in the log twice.
func TestTwoPublishers(t *testing.T) {
	d := openDesk(t)
	d.publish(1)
	first := d.u
	d.start()
	d.publish(2)
	if _, err := first.Publish(t.Context(), began.Add(2500*time.Millisecond)); !errors.Is(err, organisms.ErrRefused) {
		t.Fatalf("the other one publishes too: %v", err)
	}
	if report, err := d.reader(true).Audit(t.Context()); err != nil || report.Rounds != 2 || report.Ticks != 2 {
		t.Errorf("%+v, %v", report, err)
	}
}

// TestAuditFindsLies: one thing altered, and the audit names it and where it is; readers
// believe no other signature.
func TestAuditFindsLies(t *testing.T) {
	for name, test := range map[string]struct {
		lie   func(*oracle.Round, *oracle.PriceTick)
		signs bool // the lie is signed
		names string
	}{
		"price":          {func(_ *oracle.Round, k *oracle.PriceTick) { k.Price++ }, true, "price is"},
		"confidence":     {func(_ *oracle.Round, k *oracle.PriceTick) { k.Confidence = 7 }, true, "confidence is"},
		"sources":        {func(_ *oracle.Round, k *oracle.PriceTick) { k.SourceSet[1] ^= 1 }, true, "source"},
		"stale":          {func(_ *oracle.Round, k *oracle.PriceTick) { k.Stale = true }, true, "stale"},
		"no signature":   {func(_ *oracle.Round, k *oracle.PriceTick) { k.Signature[9] ^= 1 }, false, "signature"},
		"an observation": {func(r *oracle.Round, _ *oracle.PriceTick) { r.Observations[1].Price = 1003 }, true, "is"},
	} {
		t.Run(name, func(t *testing.T) {
			d := openDesk(t)
			d.publish(1)
			r := roundOf(d.p, 2, began.Add(2*time.Second), 1000, 1000, 1000)
			k := *signedTick(t, d.p, r)
			test.lie(r, &k)
			if test.signs {
				k.Sign(stableID, key("enclave"))
			}
			if _, _, err := d.o.Commit(t.Context(), "rounds ETH/USDC", r.Append(nil)); err != nil {
				t.Fatal(err)
			}
			p, _, err := d.o.Commit(t.Context(), "ticks ETH/USDC", k.Append(nil))
			if err != nil {
				t.Fatal(err)
			}
			_, err = d.reader(true).Audit(t.Context())
			if err == nil || !strings.Contains(err.Error(), test.names) || !strings.Contains(err.Error(), p.String()) {
				t.Errorf("the audit says %v", err)
			}
			_, err = d.reader(true).Latest(t.Context())
			if refused := errors.Is(err, oracle.ErrSignature); refused == test.signs {
				t.Errorf("the reader says %v", err)
			}
		})
	}
}

// TestRotation: another revision is published; a reader that pins the old one is told, one
// that does not goes on, and the audit judges each round by the parameters it was made
// under.
func TestRotation(t *testing.T) {
	d := openDesk(t)
	d.publish(1)
	pinned, following := d.reader(true), d.reader(false)
	next, _ := setUp(1, 1, 1)
	next.Quorum = 1
	o, err := organisms.Revise(t.Context(), d.group, oracle.Config("oracle-γ.oracle", next), oracle.Definition(next.Pairs()...))
	if err != nil {
		t.Fatal(err)
	}
	d.o, d.p = o, next
	d.start()
	d.sources[0].observe, d.sources[1].observe = silent, silent
	if out := d.publish(2); out.Tick == nil || out.Tick.Seq != 2 {
		t.Fatalf("one source is a quorum now: %+v", out)
	}
	last := func(r *oracle.Reader) (seq uint64, end error) {
		for tick, err := range r.Ticks(t.Context(), log.Earliest(), false) {
			if end = err; err == nil {
				seq = tick.Seq
			}
		}
		return seq, end
	}
	if seq, err := last(pinned); seq != 1 || !errors.Is(err, organisms.ErrRevision) {
		t.Errorf("pinned: up to %d, %v", seq, err)
	}
	if seq, err := last(following); seq != 2 || err != nil {
		t.Errorf("following: up to %d, %v", seq, err)
	}
	if report, err := following.Audit(t.Context()); err != nil || report.Ticks != 2 {
		t.Errorf("%+v, %v", report, err)
	}
	if _, err := d.o.Retire(t.Context(), organisms.Rotation, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := d.u.Publish(t.Context(), began.Add(3*time.Second)); !errors.Is(err, organisms.ErrRetired) {
		t.Errorf("after the end: %v", err)
	}
	if report, err := following.Audit(t.Context()); err != nil || report.Ticks != 2 {
		t.Errorf("after the end: %+v, %v", report, err)
	}
}

// TestRun: pairs are published at their cadence until the oracle retires.
func TestRun(t *testing.T) {
	d := openDesk(t, func(p *oracle.Parameters) { p.Cadence, p.Deadline = 2*time.Millisecond, time.Millisecond })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	outcomes := 0
	err := oracle.Run(ctx, []*oracle.Publisher{d.u}, func(oracle.Outcome) {
		if outcomes++; outcomes == 5 {
			if _, err := d.o.Retire(ctx, organisms.OperatorExit, nil); err != nil {
				t.Error(err)
			}
		}
	})
	if !errors.Is(err, organisms.ErrRetired) || outcomes != 5 {
		t.Errorf("%d outcomes, %v", outcomes, err)
	}
}
