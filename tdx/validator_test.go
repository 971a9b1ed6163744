package tdx_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/tdx"
	"github.com/mosaik-engine/mosaik/tdx/simulated"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a simulated Intel with a checker whose collateral is imported. Its time is
// the current one: most tests run it on synctest's clock.
type rig struct {
	authority *simulated.Authority
	cache     *tdx.Cache
	checker   *tdx.Checker
	subject   tdx.Subject
	group     identity.ID
}

func newRig(t testing.TB, opts tdx.CheckerOptions) *rig {
	t.Helper()
	a, err := simulated.New([32]byte{1}, simulated.DefaultPlatform(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	cache, err := tdx.OpenCache(tdx.CacheOptions{Root: a.Root()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cache.Close() })
	if err := cache.Import(collateral(t, a, fine())); err != nil {
		t.Fatal(err)
	}
	group := identity.NewID("a group")
	return &rig{authority: a, cache: cache, checker: tdx.NewChecker(cache, opts), group: group, subject: tdx.Subject{
		Peer: identity.PeerID(identity.NewID("a peer")), Network: identity.NewID("a network"),
		Challenge: tdx.Challenge(group, 3, [32]byte{1}), Keys: identity.NewID("keys"),
	}}
}

// ticket is one that fits the rig's subject, with changes.
func (r *rig) ticket(t testing.TB, td simulated.TD, v2 bool, change func(*tdx.Ticket)) []byte {
	t.Helper()
	at := time.Now().Truncate(time.Second)
	ticket := tdx.Ticket{Peer: r.subject.Peer, Network: r.subject.Network, StartedAt: at, QuotedAt: at, Expires: at.Add(time.Hour), V2: v2}
	if v2 {
		ticket.Group, ticket.Challenge, ticket.Keys = r.group, r.subject.Challenge, r.subject.Keys
	}
	if change != nil {
		change(&ticket)
	}
	_, data := ticketOf(t, r.authority.Quoter(td), ticket)
	return data
}

func (r *rig) validator(t testing.TB, p tdx.Policy) *tdx.Validator {
	t.Helper()
	if p.Root == (tdx.Root{}) {
		p.Root = r.authority.Root()
	}
	v, err := tdx.NewValidator(p, r.checker)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestValidate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, tdx.CheckerOptions{})
		td := sample()
		v := r.validator(t, tdx.Policy{Baseline: tdx.Exactly(td.Measurements), MaxAge: time.Minute, MaxLifetime: time.Hour})
		for _, validator := range []*tdx.Validator{v, v.V2(r.group)} {
			got, err := validator.Admit(t.Context(), r.ticket(t, td, validator != v, nil), r.subject, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			if want := time.Now().Add(time.Hour); !got.Expires.Equal(want) || !got.Evidence.Simulated {
				t.Errorf("admitted until %v, want %v; simulated %v", got.Expires, want, got.Evidence.Simulated)
			}
		}
		open := r.validator(t, tdx.Policy{})
		never := r.ticket(t, td, false, func(t *tdx.Ticket) { t.Expires = time.Time{} })
		got, err := open.Admit(t.Context(), never, r.subject, time.Now())
		if err != nil || !got.Expires.Equal(time.Now().Add(30*24*time.Hour)) {
			t.Errorf("a ticket for ever lasts as long as the collateral: got %+v, %v", got, err)
		}
		if open.Class() != tdx.TicketClass() || v.V2(r.group).Class() != tdx.TicketClassV2() || v.Signature() == v.V2(r.group).Signature() {
			t.Error("the classes of validators are mixed up")
		}
		if _, err := tdx.NewValidator(tdx.Policy{Root: tdx.IntelRoot()}, r.checker); !errors.Is(err, tdx.ErrPolicy) {
			t.Errorf("a policy with Intel's root on a simulated checker: %v", err)
		}
	})
}

// TestValidateRefuses: every cause by its field, alone.
func TestValidateRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, tdx.CheckerOptions{})
		td := sample()
		policy := tdx.Policy{Baseline: tdx.Exactly(td.Measurements), MaxAge: time.Hour, MaxLifetime: 2 * time.Hour,
			NotBefore: time.Now().Add(-2 * time.Hour).Truncate(time.Second)}
		v := r.validator(t, policy)
		wrongMRTD, wrongRTMR := td, td
		wrongMRTD.MRTD[0] ^= 1
		wrongRTMR.RTMR[2][5] ^= 1
		other := identity.NewID("other")
		for _, test := range []struct {
			field  string
			td     simulated.TD
			v2     bool
			change func(*tdx.Ticket)
		}{
			{"mrtd", wrongMRTD, false, nil},
			{"rtmr2", wrongRTMR, true, nil},
			{"peer", td, false, func(t *tdx.Ticket) { t.Peer[0] ^= 1 }},
			{"network", td, false, func(t *tdx.Ticket) { t.Network = other }},
			{"peer", td, true, func(t *tdx.Ticket) { t.Peer[0] ^= 1 }},
			{"network", td, true, func(t *tdx.Ticket) { t.Network = other }},
			{"group", td, true, func(t *tdx.Ticket) { t.Group = other }},
			{"challenge", td, true, func(t *tdx.Ticket) { t.Challenge = other }},
			{"keys", td, true, func(t *tdx.Ticket) { t.Keys = other }},
			{"max_age", td, false, func(t *tdx.Ticket) {
				t.QuotedAt, t.Expires = t.QuotedAt.Add(-time.Hour-time.Second), t.QuotedAt.Add(time.Minute)
			}},
			{"max_age", td, false, func(t *tdx.Ticket) { t.QuotedAt = t.QuotedAt.Add(time.Second) }},
			{"max_lifetime", td, false, func(t *tdx.Ticket) { t.Expires = t.QuotedAt.Add(2*time.Hour + time.Second) }},
			{"max_lifetime", td, false, func(t *tdx.Ticket) { t.Expires = time.Time{} }},
			{"expires", td, false, func(t *tdx.Ticket) {
				t.QuotedAt, t.Expires = t.QuotedAt.Add(-time.Minute), t.QuotedAt.Add(-time.Second)
			}},
		} {
			validator := v
			if test.v2 {
				validator = v.V2(r.group)
			}
			_, err := validator.Admit(t.Context(), r.ticket(t, test.td, test.v2, test.change), r.subject, time.Now())
			var rejected *tdx.Rejection
			if !errors.As(err, &rejected) || !errors.Is(err, tdx.ErrRejected) || len(rejected.Reasons) != 1 || rejected.Reasons[0].Field != test.field {
				t.Errorf("%s: %v", test.field, err)
			}
		}

		old := r.validator(t, tdx.Policy{NotBefore: time.Now().Add(time.Second)})
		var rejected *tdx.Rejection
		if _, err := old.Admit(t.Context(), r.ticket(t, td, false, nil), r.subject, time.Now()); !errors.As(err, &rejected) || rejected.Reasons[0].Field != "not_before" {
			t.Errorf("not before: %v", err)
		}

		// A ticket whose fields were changed after the quote was made.
		ticket, err := tdx.DecodeTicket(tdx.TicketClass(), r.ticket(t, td, false, nil))
		if err != nil {
			t.Fatal(err)
		}
		ticket.Expires = ticket.Expires.Add(time.Second)
		data, err := ticket.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := v.Admit(t.Context(), data, r.subject, time.Now()); !errors.As(err, &rejected) || rejected.Reasons[0].Field != "report_data" {
			t.Errorf("changed after the quote: %v", err)
		}

		// A class for the other's validator.
		if _, err := v.Admit(t.Context(), r.ticket(t, td, true, nil), r.subject, time.Now()); !errors.Is(err, tdx.ErrTicket) {
			t.Errorf("a v2 ticket as v1: %v", err)
		}
		debug := td
		debug.TDAttributes = 1
		if _, err := v.Admit(t.Context(), r.ticket(t, debug, false, nil), r.subject, time.Now()); !errors.Is(err, tdx.ErrDebug) {
			t.Errorf("debug: %v", err)
		}
	})
}

// TestVerdictsFollowTheCollateral: a ticket that is known is judged again once Intel
// has said something new, and not once the collateral is gone.
func TestVerdictsFollowTheCollateral(t *testing.T) {
	for name, test := range map[string]struct {
		says simulated.Statement
		want error
	}{
		"PCK revoked":          {simulated.Statement{RevokePCK: true, CRLNumber: 2}, tdx.ErrRevoked},
		"platform revoked":     {simulated.Statement{Platform: tdx.Revoked, EvaluationNumber: 18}, tdx.ErrRevoked},
		"platform out of date": {simulated.Statement{Platform: tdx.OutOfDate, EvaluationNumber: 18}, tdx.ErrRejected},
		"module out of date":   {simulated.Statement{Module: tdx.OutOfDate, EvaluationNumber: 18}, tdx.ErrTCB},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, tdx.CheckerOptions{})
			v, data := r.validator(t, tdx.Policy{}), r.ticket(t, sample(), false, func(t *tdx.Ticket) { t.Expires = t.Expires.AddDate(1, 0, 0) })
			for range 2 {
				if _, err := v.Admit(t.Context(), data, r.subject, time.Now()); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(time.Minute)
			test.says.Issued = time.Now()
			if err := r.cache.Import(collateral(t, r.authority, test.says)); err != nil {
				t.Fatal(err)
			}
			if _, err := v.Admit(t.Context(), data, r.subject, time.Now()); !errors.Is(err, test.want) {
				t.Errorf("%s: %v, want %v", name, err, test.want)
			}
			time.Sleep(31 * 24 * time.Hour)
			if _, err := v.Admit(t.Context(), data, r.subject, time.Now()); !errors.Is(err, tdx.ErrCollateral) {
				t.Errorf("%s, after the collateral: %v", name, err)
			}
		})
	}
}

// TestFloodIsBounded: with every worker taken, a known ticket still passes, and beyond
// the waiting room a new one is told so at once.
func TestFloodIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, tdx.CheckerOptions{Workers: 1, Waiting: 1, Verdicts: 2})
		v, known := r.validator(t, tdx.Policy{}), r.ticket(t, sample(), false, nil)
		if _, err := v.Admit(t.Context(), known, r.subject, time.Now()); err != nil {
			t.Fatal(err)
		}
		release := r.checker.Occupy(1)
		fresh := r.ticket(t, sample(), false, func(t *tdx.Ticket) { t.Expires = t.Expires.Add(time.Second) })
		var waiting sync.WaitGroup
		waiting.Go(func() {
			if _, err := v.Admit(t.Context(), fresh, r.subject, time.Now()); err != nil {
				t.Errorf("the one that waits: %v", err)
			}
		})
		synctest.Wait()
		if _, err := v.Admit(t.Context(), fresh, r.subject, time.Now()); !errors.Is(err, tdx.ErrBusy) {
			t.Errorf("one too many: %v", err)
		}
		if _, err := v.Admit(t.Context(), known, r.subject, time.Now()); err != nil {
			t.Errorf("a known ticket during the flood: %v", err)
		}
		release()
		waiting.Wait()

		ctx, cancel := context.WithCancel(t.Context())
		release = r.checker.Occupy(1)
		cancel()
		third := r.ticket(t, sample(), false, func(t *tdx.Ticket) { t.Expires = t.Expires.Add(time.Minute) })
		if _, err := v.Admit(ctx, third, r.subject, time.Now()); !errors.Is(err, context.Canceled) {
			t.Errorf("one who gives up: %v", err)
		}
		release()
		if _, err := v.Admit(t.Context(), third, r.subject, time.Now()); err != nil {
			t.Error(err)
		}
		if n := r.checker.Verdicts(); n != 2 {
			t.Errorf("%d verdicts are kept, want 2", n)
		}
	})
}

// TestFlips flips every bit of a ticket of each class. What is still admitted must be
// the same evidence: bits that nothing signs and nothing reads, which are the armour
// and line breaks around the certificates in PEM, and what the zstd format leaves open.
func TestFlips(t *testing.T) {
	r := newRig(t, tdx.CheckerOptions{Workers: runtime.GOMAXPROCS(0), Verdicts: 1})
	v1 := r.validator(t, tdx.Policy{})
	for name, v := range map[string]*tdx.Validator{"v1": v1, "v2": v1.V2(r.group)} {
		data := r.ticket(t, sample(), v != v1, nil)
		want, err := v.Admit(t.Context(), data, r.subject, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		step := 7                                   // coprime to 8: every bit position is met, and nearly every byte
		if os.Getenv("MOSAIK_TDX_FLIPS") == "all" { // for make soak: some minutes
			step = 1
		}
		var harmless, spellings atomic.Int64
		var workers sync.WaitGroup
		n := runtime.GOMAXPROCS(0)
		for worker := range n {
			workers.Go(func() {
				for i := worker * step; i < len(data)*8; i += n * step {
					flipped := bytes.Clone(data)
					flipped[i/8] ^= 1 << (i % 8)
					got, err := v.Admit(t.Context(), flipped, r.subject, time.Now())
					if err != nil {
						continue
					}
					harmless.Add(1)
					same := *got.Ticket
					if slices.Equal(same.Quote, want.Ticket.Quote) {
						spellings.Add(1) // another compressed form of the same content
					} else if !tdx.SameButPEM(same.Quote, want.Ticket.Quote) {
						t.Errorf("%s: bit %d of byte %d is admitted with another quote", name, i%8, i/8)
					}
					same.Quote = want.Ticket.Quote
					if got.Evidence.Quote.Digest() != want.Evidence.Quote.Digest() || got.Evidence.PCK != want.Evidence.PCK ||
						!got.Expires.Equal(want.Expires) || same.ReportData() != want.Ticket.ReportData() {
						t.Errorf("%s: bit %d of byte %d is admitted with other evidence", name, i%8, i/8)
					}
				}
			})
		}
		workers.Wait()
		t.Logf("%s: of %d bits %d are harmless, %d of them in the compression", name, 8*len(data)/step, harmless.Load(), spellings.Load())
		if v != v1 && spellings.Load() > 0 {
			t.Errorf("a ticket of class v2 has %d spellings", spellings.Load())
		}
	}
}

func TestChallenges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, tdx.CheckerOptions{})
		v := r.validator(t, tdx.Policy{}).V2(r.group)
		questions := tdx.NewChallenges(r.group, time.Minute)
		put := func() {
			t.Helper()
			id, err := questions.Put(r.subject.Peer, 7)
			if err != nil {
				t.Fatal(err)
			}
			r.subject.Challenge = id
		}
		put()
		if _, err := v.Admit(t.Context(), r.ticket(t, sample(), true, nil), r.subject, time.Now()); err != nil {
			t.Fatal(err)
		}
		if err := questions.Redeem(identity.PeerID{1}, r.subject.Challenge); !errors.Is(err, tdx.ErrChallenge) {
			t.Errorf("another peer's: %v", err)
		}
		if err := questions.Redeem(r.subject.Peer, r.subject.Challenge); err != nil {
			t.Error(err)
		}
		if err := questions.Redeem(r.subject.Peer, r.subject.Challenge); !errors.Is(err, tdx.ErrChallenge) {
			t.Errorf("replayed: %v", err)
		}
		put()
		first := r.subject.Challenge
		put()
		if err := questions.Redeem(r.subject.Peer, first); !errors.Is(err, tdx.ErrChallenge) {
			t.Errorf("one that was put anew: %v", err)
		}
		time.Sleep(time.Minute + time.Second)
		if err := questions.Redeem(r.subject.Peer, r.subject.Challenge); !errors.Is(err, tdx.ErrChallenge) {
			t.Errorf("too late: %v", err)
		}
		for i := range tdx.MaxChallenges {
			if _, err := questions.Put(identity.PeerID{byte(i), byte(i >> 8), 1}, 7); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := questions.Put(r.subject.Peer, 7); !errors.Is(err, tdx.ErrBusy) {
			t.Errorf("one too many: %v", err)
		}
	})
}
