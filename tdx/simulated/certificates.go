package simulated

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/url"
	"time"
)

// The subject names that verifiers insist on; the organisation is free and says
// what this is.
const (
	rootName         = "Intel SGX Root CA"
	intermediateName = "Intel SGX PCK Platform CA"
	pckName          = "Intel SGX PCK Certificate"
	signerName       = "Intel SGX TCB Signing"
	organisation     = "SIMULATED TDX - NOT INTEL"
)

// rootCRLURL is where the root certificate says that its revocation list is, as
// Intel's does; the simulation never goes there.
const rootCRLURL = "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der"

// deriveKey makes the P-256 key of a purpose. A digest that is no scalar (about one
// in 2^32) is hashed on.
func deriveKey(seed [32]byte, purpose string) *ecdsa.PrivateKey {
	digest := sha256.Sum256(append([]byte("simulated tdx|"+purpose+"|"), seed[:]...))
	for {
		if key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), digest[:]); err == nil {
			return key
		}
		digest = sha256.Sum256(digest[:])
	}
}

// issuer is a key with its certificate.
type issuer struct {
	key         *ecdsa.PrivateKey
	certificate *x509.Certificate
}

func (i *issuer) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: i.certificate.Raw})
}

// chain is an issuer chain as Intel's service puts it into a header.
func chain(first, root *issuer) string {
	return url.QueryEscape(string(append(first.pem(), root.pem()...)))
}

// issue makes a certificate. With a nil parent it signs itself. Signatures are
// deterministic (RFC 6979, which crypto/ecdsa does without a source of randomness),
// so that processes with one seed have one root.
func issue(seed [32]byte, name string, parent *issuer, from, to time.Time, authority bool, extra ...pkix.Extension) (*issuer, error) {
	made := &issuer{key: deriveKey(seed, name)}
	public, err := made.key.PublicKey.Bytes()
	if err != nil {
		return nil, fmt.Errorf("simulated: key of %s: %w", name, err)
	}
	keyID := sha256.Sum256(public)
	serial := new(big.Int).SetBytes(keyID[:16])
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject: pkix.Name{CommonName: name, Organization: []string{organisation}, Locality: []string{"Nowhere"},
			Province: []string{"NO"}, Country: []string{"US"}},
		NotBefore: from, NotAfter: to,
		SignatureAlgorithm:    x509.ECDSAWithSHA256,
		BasicConstraintsValid: true,
		IsCA:                  authority,
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment,
		SubjectKeyId:          keyID[:20],
		CRLDistributionPoints: []string{rootCRLURL},
		ExtraExtensions:       extra,
	}
	if authority {
		template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	}
	signer := made
	if parent == nil {
		template.AuthorityKeyId = template.SubjectKeyId
		made.certificate = template
	} else {
		signer = parent
	}
	der, err := x509.CreateCertificate(nil, template, signer.certificate, made.key.Public(), signer.key)
	if err != nil {
		return nil, fmt.Errorf("simulated: certificate of %s: %w", name, err)
	}
	if made.certificate, err = x509.ParseCertificate(der); err != nil {
		return nil, fmt.Errorf("simulated: certificate of %s: %w", name, err)
	}
	return made, nil
}

// crl makes the revocation list of an authority.
func crl(by *issuer, number int64, from, to time.Time, revoked []*x509.Certificate) ([]byte, error) {
	template := &x509.RevocationList{Number: big.NewInt(number), ThisUpdate: from, NextUpdate: to, SignatureAlgorithm: x509.ECDSAWithSHA256}
	for _, certificate := range revoked {
		template.RevokedCertificateEntries = append(template.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: certificate.SerialNumber, RevocationTime: from})
	}
	der, err := x509.CreateRevocationList(nil, template, by.certificate, by.key)
	if err != nil {
		return nil, fmt.Errorf("simulated: revocation list of %s: %w", by.certificate.Subject.CommonName, err)
	}
	return der, nil
}

// sgxExtension says which platform a PCK certificate belongs to, in the form of
// Intel's "SGX PCK Certificate and CRL profile specification".
func sgxExtension(p *Platform) (pkix.Extension, error) {
	oid := asn1.ObjectIdentifier{1, 2, 840, 113741, 1, 13, 1}
	under := func(path ...int) asn1.ObjectIdentifier {
		return append(append(asn1.ObjectIdentifier{}, oid...), path...)
	}
	type field struct {
		ID    asn1.ObjectIdentifier
		Value any
	}
	var parts []field
	for i, svn := range p.CPUSVN {
		parts = append(parts, field{under(2, i+1), int(svn)})
	}
	parts = append(parts, field{under(2, 17), int(p.PCESVN)}, field{under(2, 18), p.CPUSVN[:]})
	value, err := asn1.Marshal([]field{
		{under(1), p.PPID[:]},
		{under(2), parts},
		{under(3), p.PCEID[:]},
		{under(4), p.FMSPC[:]},
		{under(5), asn1.Enumerated(1)}, // scalable platform
	})
	if err != nil {
		return pkix.Extension{}, fmt.Errorf("simulated: SGX extension: %w", err)
	}
	return pkix.Extension{Id: oid, Value: value}, nil
}

// sign returns key's signature of message as 64 bytes r || s.
func sign(key *ecdsa.PrivateKey, message []byte) ([]byte, error) {
	digest := sha256.Sum256(message)
	der, err := key.Sign(nil, digest[:], crypto.SHA256)
	if err != nil {
		return nil, err
	}
	var rs struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &rs); err != nil {
		return nil, err
	}
	out := make([]byte, 64)
	rs.R.FillBytes(out[:32])
	rs.S.FillBytes(out[32:])
	return out, nil
}

func le16(n uint16) []byte { return binary.LittleEndian.AppendUint16(nil, n) }
func le32(n uint32) []byte { return binary.LittleEndian.AppendUint32(nil, n) }

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
