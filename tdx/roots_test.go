package tdx_test

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"strings"
	"testing"

	"github.com/mosaik-engine/mosaik/tdx"
)

// TestRoots: Intel's root is the one that Intel publishes, and calling it simulated
// makes another.
func TestRoots(t *testing.T) {
	// SHA-256 of https://certificates.trustedservices.intel.com/Intel_SGX_Provisioning_Certification_RootCA.pem in DER
	const intel = "44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3"
	if got := tdx.IntelRoot().Fingerprint().String(); got != intel || tdx.IntelRoot().Simulated() {
		t.Errorf("the fingerprint is %s, want %s", got, intel)
	}
	text, err := os.ReadFile("intel_root.pem")
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	posing := tdx.SimulatedRoot(certificate)
	if posing.Fingerprint() == tdx.IntelRoot().Fingerprint() || !posing.Simulated() || !strings.Contains(posing.String(), "SIMULATED") {
		t.Errorf("Intel's root called simulated is %v", posing)
	}
	if !(tdx.Root{}).Fingerprint().IsZero() {
		t.Error("no root has a fingerprint")
	}
}

// TestPolicyVectors hold the formulas of ids where they are: a change makes every group
// that has them another.
func TestPolicyVectors(t *testing.T) {
	td := sample()
	full := tdx.Exactly(td.Measurements)
	owned := full
	owned.MROwner = &td.MROwner
	for name, pair := range map[string][2]string{
		"policy":         {(&tdx.Policy{Root: tdx.IntelRoot()}).ID().String(), "007f1a5a795f1823515604744b840c8f356181c850d2ec58aeeefa2ebb39b213"},
		"full criteria":  {full.Signature().String(), "08ede693fa1c4978538000f62803fcee16924f05decbc3cad122bd651a31c41f"},
		"owned criteria": {owned.Signature().String(), "dfc5df4a8e77a667ea3c526253cae6107ffcdf3ec97b0be542b2644a6f8e5784"},
		"full signature": {(&tdx.Policy{Root: tdx.IntelRoot(), Baseline: full, Variants: []tdx.Criteria{owned}, MaxAge: 60e9, NotBefore: now}).Signature().String(), "04d46dc7252d5765b26c31f6b4be81f62ea6fb382c79f969a865828ae99680fc"},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s: got %s, want %s", name, pair[0], pair[1])
		}
	}
}
