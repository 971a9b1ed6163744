package tdx_test

import (
	"crypto/elliptic"
	"errors"
	"math/big"
	"slices"
	"testing"
	"time"

	"github.com/google/go-tdx-guest/abi"
	"github.com/google/go-tdx-guest/verify"

	"github.com/mosaik-engine/mosaik/tdx"
	"github.com/mosaik-engine/mosaik/tdx/simulated"
)

// now is when the tests of the simulation play.
var now = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

func authority(t testing.TB, seed byte) *simulated.Authority {
	t.Helper()
	a, err := simulated.New([32]byte{seed}, simulated.DefaultPlatform(), now)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func collateral(t testing.TB, a *simulated.Authority, s simulated.Statement) *tdx.Collateral {
	t.Helper()
	c, err := a.Collateral(s)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func quote(t testing.TB, a *simulated.Authority, td simulated.TD, reportData [64]byte) []byte {
	t.Helper()
	raw, err := a.Quoter(td).Quote(reportData)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// sample is a TD whose every register differs.
func sample() simulated.TD {
	td := simulated.TD{XFAM: 0xe7}
	for i, m := range []*tdx.Measurement{&td.MRTD, &td.RTMR[0], &td.RTMR[1], &td.RTMR[2], &td.RTMR[3],
		&td.MRConfigID, &td.MROwner, &td.MROwnerConfig, &td.MRSEAM} {
		for j := range m {
			m[j] = byte(16*i + j + 1)
		}
	}
	return td
}

func TestVerifySimulated(t *testing.T) {
	a := authority(t, 1)
	for _, version5 := range []bool{false, true} {
		td := sample()
		td.Version5 = version5
		data := [64]byte{7, 63: 9}
		at := now.Add(time.Hour)
		e, err := tdx.Verify(quote(t, a, td, data), a.Root(), collateral(t, a, simulated.Statement{}), tdx.At(at))
		if err != nil {
			t.Fatal(err)
		}
		q := e.Quote
		if q.Measurements != td.Measurements || q.MRSEAM != td.MRSEAM || q.XFAM != td.XFAM || q.ReportData != data || q.TDX15 != version5 {
			t.Errorf("version 5 %v: the quote reads as %+v", version5, q)
		}
		if !e.Simulated || e.Root != a.Root().Fingerprint() || e.FMSPC != "514d55000000" || !e.VerifiedAt.Equal(at) {
			t.Errorf("evidence is %+v", e)
		}
		if e.TCB.Worst() != tdx.UpToDate || e.TCB.EvaluationNumber != 17 || len(e.TCB.Advisories) != 0 {
			t.Errorf("TCB is %+v", e.TCB)
		}
		if want := now.Add(30 * 24 * time.Hour); !e.NotAfter.Equal(want) {
			t.Errorf("the evidence ends at %v, want %v, when the collateral expires", e.NotAfter, want)
		}
	}
}

// TestSimulationIsDetermined: two processes with a seed are one authority.
func TestSimulationIsDetermined(t *testing.T) {
	a, b, c := authority(t, 1), authority(t, 1), authority(t, 2)
	if a.Root().Fingerprint() != b.Root().Fingerprint() || a.Root().Fingerprint() == c.Root().Fingerprint() {
		t.Error("the root's fingerprint is not a function of the seed")
	}
	if !slices.Equal(quote(t, a, sample(), [64]byte{}), quote(t, b, sample(), [64]byte{})) {
		t.Error("one TD made two quotes over the same data")
	}
	if _, err := tdx.Verify(quote(t, a, sample(), [64]byte{}), b.Root(), collateral(t, b, simulated.Statement{}), tdx.At(now)); err != nil {
		t.Error(err)
	}
}

// TestVerifyRefuses: each cause by its name.
func TestVerifyRefuses(t *testing.T) {
	a, other := authority(t, 1), authority(t, 2)
	good := quote(t, a, sample(), [64]byte{})
	intact := collateral(t, a, fine())
	debug, wrongSigner := sample(), sample()
	debug.TDAttributes = 1
	wrongSigner.MRSignerSEAM[0] = 1
	underDebug := sample()
	underDebug.TDAttributes = 0x80
	foreign := simulated.DefaultPlatform()
	foreign.FMSPC[0] = 0x99
	elsewhere, err := simulated.New([32]byte{1}, foreign, now)
	if err != nil {
		t.Fatal(err)
	}
	older := simulated.DefaultPlatform()
	older.TEETCBSVN[2] = 4
	old, err := simulated.New([32]byte{1}, older, now)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name       string
		quote      []byte
		root       tdx.Root
		collateral *tdx.Collateral
		at         time.Time
		want       error
	}{
		{"under Intel's root", good, tdx.IntelRoot(), intact, now, tdx.ErrForged},
		{"under another simulation's root", good, other.Root(), intact, now, tdx.ErrForged},
		{"under another simulation's root and collateral", good, other.Root(), collateral(t, other, simulated.Statement{}), now, tdx.ErrForged},
		{"another simulation's collateral", good, a.Root(), collateral(t, other, simulated.Statement{}), now, tdx.ErrCollateral},
		{"no collateral", good, a.Root(), nil, now, tdx.ErrCollateral},
		{"another platform's collateral", good, a.Root(), collateral(t, elsewhere, simulated.Statement{}), now, tdx.ErrCollateral},
		{"collateral expired", good, a.Root(), intact, now.Add(31 * 24 * time.Hour), tdx.ErrCollateral},
		{"collateral from the future", good, a.Root(), collateral(t, a, simulated.Statement{Issued: now.Add(time.Hour)}), now, tdx.ErrCollateral},
		{"before the certificates", good, a.Root(), collateral(t, a, simulated.Statement{Issued: now.Add(-9 * time.Hour)}), now.Add(-8 * time.Hour), tdx.ErrExpired},
		{"after the PCK certificate", good, a.Root(), collateral(t, a, simulated.Statement{Issued: now.AddDate(8, 0, 0)}), now.AddDate(8, 0, 1), tdx.ErrExpired},
		{"PCK revoked", good, a.Root(), collateral(t, a, simulated.Statement{RevokePCK: true}), now, tdx.ErrRevoked},
		{"PCK authority revoked", good, a.Root(), collateral(t, a, simulated.Statement{RevokeIntermediate: true}), now, tdx.ErrRevoked},
		{"signer revoked", good, a.Root(), collateral(t, a, simulated.Statement{RevokeSigner: true}), now, tdx.ErrRevoked},
		{"platform revoked", good, a.Root(), collateral(t, a, simulated.Statement{Platform: tdx.Revoked}), now, tdx.ErrRevoked},
		{"module out of date", good, a.Root(), collateral(t, a, simulated.Statement{Module: tdx.OutOfDate}), now, tdx.ErrTCB},
		{"quoting enclave out of date", good, a.Root(), collateral(t, a, simulated.Statement{QE: tdx.OutOfDate}), now, tdx.ErrTCB},
		{"older than every level", quote(t, old, sample(), [64]byte{}), a.Root(), intact, now, tdx.ErrTCB},
		{"another module's signer", quote(t, a, wrongSigner, [64]byte{}), a.Root(), intact, now, tdx.ErrTCB},
		{"debug", quote(t, a, debug, [64]byte{}), a.Root(), intact, now, tdx.ErrDebug},
		{"another bit of the debug group", quote(t, a, underDebug, [64]byte{}), a.Root(), intact, now, tdx.ErrDebug},
		{"nothing", nil, a.Root(), intact, now, tdx.ErrQuote},
		{"too long", append(slices.Clone(good), make([]byte, tdx.MaxQuoteSize)...), a.Root(), intact, now, tdx.ErrQuote},
	} {
		t.Run(test.name, func(t *testing.T) {
			if e, err := tdx.Verify(test.quote, test.root, test.collateral, tdx.At(test.at)); !errors.Is(err, test.want) {
				t.Errorf("got %v, %v; want %v", e, err, test.want)
			}
		})
	}
	if _, err := tdx.Verify(good, tdx.Root{}, intact, tdx.At(now)); err == nil {
		t.Error("the zero root trusts something")
	}
}

// TestTCBTable holds our evaluation of patch levels and go-tdx-guest's against the
// table of what that library does at this version, so that an upgrade which moves
// either shows.
func TestTCBTable(t *testing.T) {
	tdx10 := simulated.DefaultPlatform()
	tdx10.TEETCBSVN[1] = 0
	for _, test := range []struct {
		name           string
		platform       simulated.Platform
		says           simulated.Statement
		libraryAccepts bool
		want           error // of Verify
		worst          tdx.Status
	}{
		{"up to date", simulated.DefaultPlatform(), simulated.Statement{}, true, nil, tdx.UpToDate},
		{"platform hardening", simulated.DefaultPlatform(), simulated.Statement{Platform: tdx.SWHardeningNeeded}, true, nil, tdx.SWHardeningNeeded},
		{"platform out of date", simulated.DefaultPlatform(), simulated.Statement{Platform: tdx.OutOfDate}, true, nil, tdx.OutOfDate},
		{"platform revoked", simulated.DefaultPlatform(), simulated.Statement{Platform: tdx.Revoked}, true, tdx.ErrRevoked, 0},
		{"module out of date", simulated.DefaultPlatform(), simulated.Statement{Module: tdx.OutOfDate}, false, tdx.ErrTCB, 0},
		{"module revoked", simulated.DefaultPlatform(), simulated.Statement{Module: tdx.Revoked}, false, tdx.ErrTCB, 0},
		{"QE out of date", simulated.DefaultPlatform(), simulated.Statement{QE: tdx.OutOfDate}, false, tdx.ErrTCB, 0},
		{"TDX 1.0 up to date", tdx10, simulated.Statement{}, true, nil, tdx.UpToDate},
		{"TDX 1.0 platform out of date", tdx10, simulated.Statement{Platform: tdx.OutOfDate}, false, tdx.ErrTCB, 0},
		{"TDX 1.0 platform revoked", tdx10, simulated.Statement{Platform: tdx.Revoked}, false, tdx.ErrTCB, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			a, err := simulated.New([32]byte{1}, test.platform, now)
			if err != nil {
				t.Fatal(err)
			}
			test.says.Advisories = []string{"INTEL-SA-2", "INTEL-SA-1"}
			raw, c := quote(t, a, sample(), [64]byte{}), collateral(t, a, test.says)
			if err := libraryAlone(t, raw, a, c); (err == nil) != test.libraryAccepts {
				t.Errorf("go-tdx-guest says %v, the table says it accepts: %v", err, test.libraryAccepts)
			}
			e, err := tdx.Verify(raw, a.Root(), c, tdx.At(now))
			if !errors.Is(err, test.want) {
				t.Fatalf("got %v, want %v", err, test.want)
			}
			if err == nil && (e.TCB.Worst() != test.worst || e.TCB.Platform != test.worst || e.TCB.QE != tdx.UpToDate ||
				!slices.Equal(e.TCB.Advisories, []string{"INTEL-SA-1", "INTEL-SA-2"})) {
				t.Errorf("got %+v, want the platform %v", e.TCB, test.worst)
			}
		})
	}
}

// TestSecondTCB: a module that was updated under the running TD counts with the
// worse of its two versions.
func TestSecondTCB(t *testing.T) {
	a := authority(t, 1)
	td := sample()
	td.Version5 = true
	td.TEETCBSVN2 = simulated.DefaultPlatform().TEETCBSVN
	td.TEETCBSVN2[0]--
	_, err := tdx.Verify(quote(t, a, td, [64]byte{}), a.Root(), collateral(t, a, simulated.Statement{}), tdx.At(now))
	if !errors.Is(err, tdx.ErrTCB) {
		t.Errorf("got %v, want %v", err, tdx.ErrTCB)
	}
}

// libraryAlone verifies as one would with go-tdx-guest and nothing else.
func libraryAlone(t testing.TB, raw []byte, a *simulated.Authority, c *tdx.Collateral) error {
	t.Helper()
	message, err := abi.QuoteToProto(raw)
	if err != nil {
		t.Fatal(err)
	}
	return verify.TdxQuote(message, &verify.Options{
		GetCollateral: true, CheckRevocations: true, Getter: c, TrustedRoots: a.Root().Pool(),
		Now: &verify.TimeSet{PckCertChain: now, TcbInfo: now, QeIdentity: now, PckCrl: now, RootCaCrl: now},
	})
}

// fine is the statement of an Intel that has nothing to object to.
func fine() simulated.Statement { return simulated.Statement{} }

// negateS replaces the s of an ECDSA signature on P-256 by n-s, which verifies too.
func negateS(s []byte) {
	n := elliptic.P256().Params().N
	new(big.Int).Sub(n, new(big.Int).SetBytes(s)).FillBytes(s)
}
