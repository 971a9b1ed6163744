package tdx_test

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/tdx"
	"github.com/mosaik-engine/mosaik/tdx/simulated"
)

// admission is a signed record of a fresh v2 ticket, with the policy that admitted it
// and the state it is to be applied to.
func admission(t testing.TB) (*tdx.Admit, tdx.Policy, tdx.Membership) {
	t.Helper()
	r := newRig(t, tdx.CheckerOptions{})
	if err := r.cache.Import(collateral(t, r.authority, simulated.Statement{Platform: tdx.SWHardeningNeeded, Advisories: []string{"INTEL-SA-1", "INTEL-SA-2"}, EvaluationNumber: 18, CRLNumber: 4})); err != nil {
		t.Fatal(err)
	}
	td := sample()
	policy := tdx.Policy{Root: r.authority.Root(), Baseline: tdx.Exactly(td.Measurements), WorstTCB: tdx.SWHardeningNeeded}
	v := r.validator(t, policy).V2(r.group)
	got, err := v.Admit(t.Context(), r.ticket(t, td, true, nil), r.subject, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	a := tdx.NewAdmit(got, r.group, &policy)
	a.EntryVersion, a.Epoch, a.PolicyVersion = [2]uint64{5, 6}, 7, 8
	if err := a.Sign(identity.KeyFromSeed([32]byte{1})); err != nil {
		t.Fatal(err)
	}
	return a, policy, tdx.Membership{Group: r.group, Epoch: 7, PolicyVersion: 8, Time: time.Now()}
}

func TestRecordRoundTrip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, policy, m := admission(t)
		if reasons := a.Admissible(&policy, m); len(reasons) > 0 {
			t.Error(reasons)
		}
		data, err := a.Encode()
		if err != nil {
			t.Fatal(err)
		}
		b, err := tdx.DecodeAdmit(data)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(a, b) {
			t.Errorf("got %+v, want %+v", b, a)
		}
		for n := range data {
			if _, err := tdx.DecodeAdmit(data[:n]); !errors.Is(err, tdx.ErrRecord) {
				t.Fatalf("a record of %d bytes: %v", n, err)
			}
		}
		if _, err := tdx.DecodeAdmit(append(bytes.Clone(data), 0)); !errors.Is(err, tdx.ErrRecord) {
			t.Errorf("a byte too many: %v", err)
		}
		if _, err := tdx.DecodeAdmit(make([]byte, tdx.MaxRecordSize+1)); !errors.Is(err, tdx.ErrRecord) {
			t.Errorf("too long: %v", err)
		}
		// Every bit is signed.
		for i := range data {
			flipped := bytes.Clone(data)
			flipped[i] ^= 1 << (i % 8)
			if c, err := tdx.DecodeAdmit(flipped); err == nil && c.Signed() {
				t.Errorf("byte %d can be changed", i)
			}
		}
		a.Claims.TCB.Advisories = make([]string, tdx.MaxAdvisories+1)
		if _, err := a.Encode(); !errors.Is(err, tdx.ErrRecord) {
			t.Errorf("too many advisories: %v", err)
		}
		a.Claims.TCB.Advisories = []string{strings.Repeat("x", 256)}
		if err := a.Sign(identity.KeyFromSeed([32]byte{1})); !errors.Is(err, tdx.ErrRecord) {
			t.Errorf("a long advisory: %v", err)
		}
	})
}

func TestRecordRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		good, policy, m := admission(t)
		for field, change := range map[string]func(*tdx.Admit, *tdx.Policy, *tdx.Membership){
			"signature": func(a *tdx.Admit, _ *tdx.Policy, _ *tdx.Membership) { a.Raw[0] ^= 1 },
			"group":     func(_ *tdx.Admit, _ *tdx.Policy, m *tdx.Membership) { m.Group[0] ^= 1 },
			"epoch":     func(_ *tdx.Admit, _ *tdx.Policy, m *tdx.Membership) { m.Epoch++ },
			"policy":    func(_ *tdx.Admit, _ *tdx.Policy, m *tdx.Membership) { m.PolicyVersion++ },
			"not_after": func(a *tdx.Admit, _ *tdx.Policy, m *tdx.Membership) { m.Time = a.NotAfter },
		} {
			a, p, m := *good, policy, m
			change(&a, &p, &m)
			if reasons := a.Admissible(&p, m); len(reasons) != 1 || reasons[0].Field != field {
				t.Errorf("%s: %v", field, reasons)
			}
		}
		other := policy
		other.MinEvaluation = 1
		if reasons := good.Admissible(&other, m); len(reasons) != 1 || reasons[0].Field != "policy" {
			t.Errorf("another policy that would admit it too: %v", reasons)
		}
		// What a policy that is committed later makes of a member.
		for field, change := range map[string]func(*tdx.Policy){
			"mrtd":           func(p *tdx.Policy) { p.Baseline.MRTD = new(tdx.Measurement) },
			"tcb_platform":   func(p *tdx.Policy) { p.WorstTCB = tdx.UpToDate },
			"tcb_evaluation": func(p *tdx.Policy) { p.MinEvaluation = 19 },
			"fmspc":          func(p *tdx.Policy) { p.BannedFMSPC = []string{fmspc} },
			"pck":            func(p *tdx.Policy) { p.BannedPCK = []identity.ID{good.Claims.PCK} },
		} {
			p := policy
			change(&p)
			if reasons := good.Standing(&p, m.Time); len(reasons) != 1 || reasons[0].Field != field {
				t.Errorf("%s: %v", field, reasons)
			}
		}
	})
}

func TestAgreed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, _, _ := admission(t)
		second, third := *first, *first
		if err := second.Sign(identity.KeyFromSeed([32]byte{2})); err != nil {
			t.Fatal(err)
		}
		if err := tdx.Agreed([]*tdx.Admit{first, &second, first}, 2); err != nil {
			t.Error(err)
		}
		third.Evidence[0] ^= 1
		if err := third.Sign(identity.KeyFromSeed([32]byte{3})); err != nil {
			t.Fatal(err)
		}
		unsigned := second
		unsigned.Verifier[0] ^= 1
		for name, records := range map[string][]*tdx.Admit{
			"none": nil, "one member twice": {first, first}, "other evidence": {first, &third}, "unsigned": {first, &unsigned},
		} {
			if err := tdx.Agreed(records, 2); !errors.Is(err, tdx.ErrRecord) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

func FuzzAdmit(f *testing.F) {
	a, _, _ := admission(f)
	data, err := a.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := tdx.DecodeAdmit(data)
		if err != nil {
			if !errors.Is(err, tdx.ErrRecord) {
				t.Errorf("not a refusal of the record: %v", err)
			}
			return
		}
		if again, err := a.Encode(); err != nil || !bytes.Equal(again, data) {
			t.Errorf("%x comes back as %x, %v", data, again, err)
		}
	})
}
