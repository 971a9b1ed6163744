package tdx_test

import (
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tdx-guest/pcs"
	tdxtesting "github.com/google/go-tdx-guest/testing"
	"github.com/google/go-tdx-guest/testing/testdata"

	"github.com/mosaik-engine/mosaik/tdx"
)

// realCollateral is Intel's collateral in go-tdx-guest's test data.
func realCollateral(t testing.TB, fmspc string) *tdx.Collateral {
	t.Helper()
	var items [4]tdx.Item
	for i, url := range []string{pcs.TcbInfoURL(fmspc), pcs.QeIdentityURL(), pcs.PckCrlURL("platform"),
		"https://certificates.trustedservices.intel.com/IntelSGXRootCA.der"} {
		header, body, err := tdxtesting.TestGetter.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		items[i] = tdx.Item{URL: url, Body: body}
		for _, chain := range header {
			items[i].IssuerChain = chain[0]
		}
	}
	c, err := tdx.NewCollateral(items[0], items[1], items[2], items[3])
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func day(year int, month time.Month) time.Time {
	return time.Date(year, month, 1, 0, 0, 0, 0, time.UTC)
}

// TestRealQuotes: the two quotes from hardware that go-tdx-guest ships.
func TestRealQuotes(t *testing.T) {
	for _, test := range []struct {
		name     string
		raw      []byte
		version  uint16
		tdx15    bool
		trailing int
		svn      string
	}{
		{"version 4", testdata.RawQuote, 4, false, 39, "03000400000000000000000000000000"},
		{"version 5", testdata.RawQuoteV5, 5, true, 0, ""},
	} {
		q, err := tdx.ParseQuote(test.raw)
		if err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		if q.Version != test.version || q.TDX15 != test.tdx15 || q.Trailing != test.trailing || q.Debug() || q.MRTD.IsZero() {
			t.Errorf("%s reads as %+v", test.name, q)
		}
		if svn := hex.EncodeToString(q.TEETCBSVN[:]); test.svn != "" && svn != test.svn {
			t.Errorf("%s: TEE_TCB_SVN %s, want %s", test.name, svn, test.svn)
		}
		if err := tdx.VerifySignatures(test.raw, tdx.IntelRoot(), nil, tdx.At(day(2023, 7))); test.version == 4 && err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
		if err := tdx.VerifySignatures(test.raw, tdx.IntelRoot(), nil, tdx.At(day(2026, 3))); err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
		if err := tdx.VerifySignatures(test.raw, tdx.IntelRoot(), nil, tdx.At(day(2053, 1))); err == nil {
			t.Errorf("%s is good after its certificates", test.name)
		}
		if err := tdx.VerifySignatures(test.raw, authority(t, 1).Root(), nil, tdx.At(day(2026, 3))); err == nil {
			t.Errorf("%s is good under a simulated root", test.name)
		}
	}
}

// TestRealCollateral: the collateral shipped with them. Its parts are from different
// years, so the times of the judgement have to be; and the shipped TCB info of the
// second quote is younger than the certificate that is said to have signed it, so
// that no time at all suits a verifier that looks at issue dates.
func TestRealCollateral(t *testing.T) {
	v5 := realCollateral(t, "90c06f000000")
	at := tdx.At(day(2023, 7))
	at.PCKChain, at.TCBInfo = day(2026, 2), day(2025, 1)
	if err := tdx.VerifySignatures(testdata.RawQuoteV5, tdx.IntelRoot(), v5, at); err != nil {
		t.Error(err)
	}
	tcb, err := tdx.EvaluateTCB(testdata.RawQuoteV5, v5)
	if err != nil || tcb.Platform != tdx.UpToDate || tcb.Module != tdx.UpToDate || tcb.QE != tdx.UpToDate {
		t.Errorf("TCB is %+v, %v; want up to date thrice", tcb, err)
	}
	_, err = tdx.Verify(testdata.RawQuoteV5, tdx.IntelRoot(), v5, at)
	if !errors.Is(err, tdx.ErrCollateral) || !strings.Contains(err.Error(), "future") {
		t.Errorf("with a TCB info that is not yet issued: %v", err)
	}
	if _, err := tdx.Verify(testdata.RawQuoteV5, tdx.IntelRoot(), v5, tdx.At(now)); !errors.Is(err, tdx.ErrCollateral) {
		t.Errorf("with collateral that has expired: %v", err)
	}

	v4 := realCollateral(t, "50806f000000")
	at.TCBInfo = v4.Summary().Issued.Add(time.Hour)
	_, err = tdx.Verify(testdata.RawQuote, tdx.IntelRoot(), v4, at)
	if !errors.Is(err, tdx.ErrTCB) || !strings.Contains(err.Error(), "no level of the TCB info fits") {
		t.Errorf("a platform below every level: %v", err)
	}

	// A simulation's collateral says nothing about a real quote, nor Intel's about a
	// simulated one.
	a := authority(t, 1)
	if _, err := tdx.Verify(testdata.RawQuoteV5, a.Root(), collateral(t, a, fine()), tdx.At(now)); !errors.Is(err, tdx.ErrForged) {
		t.Errorf("a real quote under a simulated root: %v", err)
	}
	if _, err := tdx.Verify(quote(t, a, sample(), [64]byte{}), tdx.IntelRoot(), v5, at); err == nil {
		t.Error("a simulated quote is good under Intel's root")
	}
}

// TestDigestIsOfWhatIsSigned: the raw bytes are malleable, the digest is not.
func TestDigestIsOfWhatIsSigned(t *testing.T) {
	a := authority(t, 1)
	raw := quote(t, a, sample(), [64]byte{1})
	want, err := tdx.ParseQuote(raw)
	if err != nil {
		t.Fatal(err)
	}
	twin := slices.Clone(raw)
	negateS(twin[48+584+4+32 : 48+584+4+64])
	for name, same := range map[string][]byte{"the twin of the signature": twin, "trailing bytes": append(slices.Clone(raw), 1, 2, 3)} {
		e, err := tdx.Verify(same, a.Root(), collateral(t, a, fine()), tdx.At(now))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if e.Quote.Digest() != want.Digest() {
			t.Errorf("%s changes the digest", name)
		}
	}
	other, err := tdx.ParseQuote(quote(t, a, sample(), [64]byte{2}))
	if err != nil || other.Digest() == want.Digest() {
		t.Errorf("quotes over different data have one digest (%v)", err)
	}
}
