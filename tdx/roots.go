package tdx

import (
	"crypto/sha256"
	"crypto/x509"
	_ "embed" // Intel's root certificate
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/mosaik-engine/mosaik/identity"
)

// intelRoot is the Intel SGX Root CA certificate, as in
// https://certificates.trustedservices.intel.com/Intel_SGX_Provisioning_Certification_RootCA.pem
//
//go:embed intel_root.pem
var intelRoot []byte

// Root is a root of trust: Intel's, or that of a simulation. The zero Root trusts
// nothing. There is no third kind: whoever wants another root calls it simulated.
type Root struct {
	certificate *x509.Certificate
	simulated   bool
	fingerprint identity.ID
}

// IntelRoot returns the root of every real quote.
func IntelRoot() Root {
	block, _ := pem.Decode(intelRoot)
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		panic(err) // invariant: the embedded certificate is the one that the tests parse
	}
	return Root{certificate: certificate, fingerprint: sha256.Sum256(certificate.Raw)}
}

// SimulatedRoot returns a root under which no hardware stands. Everything that is
// verified with it says so, and its fingerprint is in the id of every policy for it.
// It is for code to call, never for a configuration to name.
func SimulatedRoot(certificate *x509.Certificate) Root {
	name := identity.ID(sha256.Sum256(certificate.Raw)).Derive("simulated")
	return Root{certificate: certificate, simulated: true, fingerprint: name}
}

var errNoRoot = errors.New("tdx: no root of trust is set; use IntelRoot")

// Simulated reports whether quotes under r come from a simulation.
func (r Root) Simulated() bool { return r.simulated }

// Fingerprint names the root: the SHA-256 of its certificate in DER. A simulated
// root's is derived once more, so that calling Intel's own certificate simulated
// gives another name.
func (r Root) Fingerprint() identity.ID { return r.fingerprint }

// String tells the kind of root and the start of its fingerprint.
func (r Root) String() string {
	switch {
	case r.certificate == nil:
		return "no root"
	case r.simulated:
		return fmt.Sprintf("SIMULATED root %s", r.Fingerprint().Short())
	}
	return fmt.Sprintf("Intel root %s", r.Fingerprint().Short())
}

func (r Root) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(r.certificate)
	return pool
}
