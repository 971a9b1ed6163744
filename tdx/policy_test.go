package tdx_test

import (
	"errors"
	"testing"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/tdx"
	"github.com/mosaik-engine/mosaik/tdx/simulated"
)

// TestSignatures are the vectors that were computed from the Rust runtime's source.
func TestSignatures(t *testing.T) {
	real := tdx.Policy{Root: tdx.IntelRoot()}
	for what, pair := range map[string][2]string{
		"class":    {tdx.TicketClass().String(), "0df6ed8500424a32854ef0a1b86ea7d41ef1a929b55e26023b045c91a38c44d0"},
		"criteria": {new(tdx.Criteria).Signature().String(), "3b000e646edb8d04184a929f13bb44c343bfbfb74fde13aa0dd1e058cca552b2"},
		"policy":   {real.Signature().String(), "4c641def73856ee5236fe4d9883e509622c47f5aaf6b2e5fc6fdcf1d2b067c30"},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s: got %s, want %s", what, pair[0], pair[1])
		}
	}
}

// policies is one policy for each field that differs from the first.
func policies(a *simulated.Authority) map[string]tdx.Policy {
	td := sample()
	all := map[string]tdx.Policy{}
	vary := func(name string, change func(*tdx.Policy)) {
		p := tdx.Policy{Root: a.Root()}
		change(&p)
		all[name] = p
	}
	vary("nothing", func(*tdx.Policy) {})
	vary("root", func(p *tdx.Policy) { p.Root = tdx.IntelRoot() })
	vary("mrtd", func(p *tdx.Policy) { p.Baseline.MRTD = &td.MRTD })
	vary("rtmr0", func(p *tdx.Policy) { p.Baseline.RTMR[0] = &td.MRTD })
	vary("rtmr1", func(p *tdx.Policy) { p.Baseline.RTMR[1] = &td.MRTD })
	vary("rtmr2", func(p *tdx.Policy) { p.Baseline.RTMR[2] = &td.MRTD })
	vary("rtmr3", func(p *tdx.Policy) { p.Baseline.RTMR[3] = &td.MRTD })
	vary("mr_config_id", func(p *tdx.Policy) { p.Baseline.MRConfigID = &td.MRTD })
	vary("mr_owner", func(p *tdx.Policy) { p.Baseline.MROwner = &td.MRTD })
	vary("mr_owner_config", func(p *tdx.Policy) { p.Baseline.MROwnerConfig = &td.MRTD })
	vary("variant", func(p *tdx.Policy) { p.Variants = []tdx.Criteria{{MRTD: &td.MRTD}} })
	vary("two variants", func(p *tdx.Policy) { p.Variants = []tdx.Criteria{{MRTD: &td.MRTD}, {}} })
	vary("mrseam", func(p *tdx.Policy) { p.MRSEAM = []tdx.Measurement{td.MRSEAM} })
	vary("attributes set", func(p *tdx.Policy) { p.Attributes.Set = 1 << 28 })
	vary("attributes clear", func(p *tdx.Policy) { p.Attributes.Clear = 1 << 28 })
	vary("xfam set", func(p *tdx.Policy) { p.XFAM.Set = 1 << 28 })
	vary("xfam clear", func(p *tdx.Policy) { p.XFAM.Clear = 1 << 28 })
	vary("worst TCB", func(p *tdx.Policy) { p.WorstTCB = tdx.SWHardeningNeeded })
	vary("evaluation", func(p *tdx.Policy) { p.MinEvaluation = 17 })
	vary("fmspc", func(p *tdx.Policy) { p.BannedFMSPC = []string{"514d55000001"} })
	vary("pck", func(p *tdx.Policy) { p.BannedPCK = []identity.ID{{1}} })
	vary("age", func(p *tdx.Policy) { p.MaxAge = time.Second })
	vary("not before", func(p *tdx.Policy) { p.NotBefore = now })
	vary("lifetime", func(p *tdx.Policy) { p.MaxLifetime = time.Second })
	return all
}

// TestPolicyIDs: what differs in a field has another id, and another signature.
func TestPolicyIDs(t *testing.T) {
	a := authority(t, 1)
	ids, signatures := map[identity.ID]string{}, map[identity.ID]string{}
	for name, p := range policies(a) {
		if err := p.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if other, taken := ids[p.ID()]; taken {
			t.Errorf("%s and %s have one id", name, other)
		}
		if other, taken := signatures[p.Signature()]; taken {
			t.Errorf("%s and %s have one signature", name, other)
		}
		ids[p.ID()], signatures[p.Signature()] = name, name
	}
	up := tdx.Policy{Root: a.Root(), WorstTCB: tdx.UpToDate}
	if ids[up.ID()] != "nothing" {
		t.Error("naming the default of the worst TCB makes another policy")
	}
	if got, want := (&tdx.Policy{Root: authority(t, 1).Root()}).ID(), up.ID(); got != want {
		t.Error("the id is not stable")
	}
}

func TestPolicyRefusesNonsense(t *testing.T) {
	for name, p := range map[string]tdx.Policy{
		"no root":          {},
		"revoked":          {Root: tdx.IntelRoot(), WorstTCB: tdx.Revoked},
		"attributes":       {Root: tdx.IntelRoot(), Attributes: tdx.Bits{Set: 1, Clear: 1}},
		"xfam":             {Root: tdx.IntelRoot(), XFAM: tdx.Bits{Set: 3, Clear: 6}},
		"negative age":     {Root: tdx.IntelRoot(), MaxAge: -time.Second},
		"half a second":    {Root: tdx.IntelRoot(), MaxLifetime: time.Second / 2},
		"many variants":    {Root: tdx.IntelRoot(), Variants: make([]tdx.Criteria, tdx.MaxPolicyEntries+1)},
		"many modules":     {Root: tdx.IntelRoot(), MRSEAM: make([]tdx.Measurement, tdx.MaxPolicyEntries+1)},
		"many PCKs":        {Root: tdx.IntelRoot(), BannedPCK: make([]identity.ID, tdx.MaxPolicyEntries+1)},
		"upper-case FMSPC": {Root: tdx.IntelRoot(), BannedFMSPC: []string{"514D55000000"}},
		"short FMSPC":      {Root: tdx.IntelRoot(), BannedFMSPC: []string{"51"}},
	} {
		if err := p.Validate(); !errors.Is(err, tdx.ErrPolicy) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// claims are those of a sample TD, verified.
func claims(t testing.TB, a *simulated.Authority) tdx.Claims {
	t.Helper()
	e, err := tdx.Verify(quote(t, a, sample(), [64]byte{}), a.Root(), collateral(t, a, fine()), tdx.At(now))
	if err != nil {
		t.Fatal(err)
	}
	return e.Claims()
}

// strict pins everything that a policy can.
func strict(a *simulated.Authority, c tdx.Claims) tdx.Policy {
	p := tdx.Policy{Root: a.Root(), Baseline: tdx.Exactly(c.Measurements), MRSEAM: []tdx.Measurement{c.MRSEAM},
		XFAM: tdx.Bits{Set: 3, Clear: ^uint64(0xe7)}, Attributes: tdx.Bits{Clear: 1 << 28}, MinEvaluation: 17,
		BannedFMSPC: []string{"999999999999"}, BannedPCK: []identity.ID{{9}}}
	p.Baseline.MRConfigID, p.Baseline.MROwner, p.Baseline.MROwnerConfig = &c.Measurements.MRConfigID, &c.Measurements.MROwner, &c.Measurements.MROwnerConfig
	return p
}

// TestPolicyReasons tampers with each claim, and each gives its own reason alone.
func TestPolicyReasons(t *testing.T) {
	a := authority(t, 1)
	good := claims(t, a)
	p := strict(a, good)
	if reasons := p.Check(&good); len(reasons) > 0 {
		t.Fatal(reasons)
	}
	for field, change := range map[string]func(*tdx.Claims){
		"root":            func(c *tdx.Claims) { c.Root[0] ^= 1 },
		"mrtd":            func(c *tdx.Claims) { c.Measurements.MRTD[0] ^= 1 },
		"rtmr0":           func(c *tdx.Claims) { c.Measurements.RTMR[0][1] ^= 1 },
		"rtmr1":           func(c *tdx.Claims) { c.Measurements.RTMR[1][47] ^= 1 },
		"rtmr2":           func(c *tdx.Claims) { c.Measurements.RTMR[2][1] ^= 1 },
		"rtmr3":           func(c *tdx.Claims) { c.Measurements.RTMR[3][1] ^= 1 },
		"mr_config_id":    func(c *tdx.Claims) { c.Measurements.MRConfigID[1] ^= 1 },
		"mr_owner":        func(c *tdx.Claims) { c.Measurements.MROwner[1] ^= 1 },
		"mr_owner_config": func(c *tdx.Claims) { c.Measurements.MROwnerConfig[1] ^= 1 },
		"mrseam":          func(c *tdx.Claims) { c.MRSEAM[1] ^= 1 },
		"debug":           func(c *tdx.Claims) { c.Attributes ^= 1 },
		"attributes":      func(c *tdx.Claims) { c.Attributes ^= 1 << 28 },
		"xfam":            func(c *tdx.Claims) { c.XFAM ^= 1 },
		"tcb_platform":    func(c *tdx.Claims) { c.TCB.Platform = tdx.SWHardeningNeeded },
		"tcb_module":      func(c *tdx.Claims) { c.TCB.Module = tdx.OutOfDate },
		"tcb_qe":          func(c *tdx.Claims) { c.TCB.QE = tdx.StatusUnknown },
		"tcb_evaluation":  func(c *tdx.Claims) { c.TCB.EvaluationNumber-- },
		"fmspc":           func(c *tdx.Claims) { c.FMSPC = "999999999999" },
		"pck":             func(c *tdx.Claims) { c.PCK = identity.ID{9} },
	} {
		c := good
		change(&c)
		reasons := p.Check(&c)
		if len(reasons) != 1 || reasons[0].Field != field || reasons[0].Got == "" || reasons[0].Want == "" {
			t.Errorf("%s: %v", field, reasons)
		}
	}
	simulation := good
	simulation.Simulated = false
	if reasons := p.Check(&simulation); len(reasons) != 1 || reasons[0].Field != "root" {
		t.Errorf("claims that hide the simulation: %v", reasons)
	}
	if reasons := (&tdx.Policy{Root: tdx.IntelRoot()}).Check(&good); len(reasons) != 1 || reasons[0].Field != "root" {
		t.Errorf("a simulation under Intel's root: %v", reasons)
	}
	if reasons := (&tdx.Policy{}).Check(&tdx.Claims{TCB: good.TCB}); len(reasons) != 1 || reasons[0].Field != "root" {
		t.Errorf("no root at all: %v", reasons)
	}
}

// TestVariants: baseline AND (one variant OR another).
func TestVariants(t *testing.T) {
	a := authority(t, 1)
	old := claims(t, a)
	next, third := old, old
	next.Measurements.MRTD[0] ^= 1
	third.Measurements.MRTD[0] ^= 2
	p := tdx.Policy{Root: a.Root(), Baseline: tdx.Criteria{MROwner: &old.Measurements.MROwner},
		Variants: []tdx.Criteria{{MRTD: &old.Measurements.MRTD}, {MRTD: &next.Measurements.MRTD, RTMR: [4]*tdx.Measurement{3: &old.Measurements.RTMR[3]}}}}
	for _, c := range []tdx.Claims{old, next} {
		if reasons := p.Check(&c); len(reasons) > 0 {
			t.Error(reasons)
		}
	}
	if reasons := p.Check(&third); len(reasons) != 1 || reasons[0].Field != "mrtd" {
		t.Errorf("a third image: %v", reasons)
	}
	other := old
	other.Measurements.MROwner[0] ^= 1
	if reasons := p.Check(&other); len(reasons) != 1 || reasons[0].Field != "mr_owner" {
		t.Errorf("a variant without the baseline: %v", reasons)
	}
}

// TestPlatformTolerance: what TCB statuses a policy can be tolerant about.
func TestPlatformTolerance(t *testing.T) {
	a := authority(t, 1)
	e, err := tdx.Verify(quote(t, a, sample(), [64]byte{}), a.Root(), collateral(t, a, simulated.Statement{Platform: tdx.OutOfDate}), tdx.At(now))
	if err != nil {
		t.Fatal(err)
	}
	c := e.Claims()
	if reasons := (&tdx.Policy{Root: a.Root()}).Check(&c); len(reasons) != 1 || reasons[0].Field != "tcb_platform" {
		t.Errorf("an out-of-date platform under the default: %v", reasons)
	}
	if reasons := (&tdx.Policy{Root: a.Root(), WorstTCB: tdx.OutOfDate}).Check(&c); len(reasons) > 0 {
		t.Errorf("an out-of-date platform where it may be: %v", reasons)
	}
}
