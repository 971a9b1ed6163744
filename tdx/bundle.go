package tdx

import (
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/go-tdx-guest/abi"
	"github.com/google/go-tdx-guest/pcs"
)

// MaxBundleSize is the largest encoded collateral, in bytes.
const MaxBundleSize = 4 * MaxItemSize

// RootCRLURL is where Intel's root certificate says that its revocation list is.
const RootCRLURL = "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der"

// collateralURLs are Intel's addresses of the four items for a kind of platform.
func collateralURLs(fmspc string) [4]string {
	return [4]string{pcs.TcbInfoURL(fmspc), pcs.QeIdentityURL(), pcs.PckCrlURL("platform"), RootCRLURL}
}

// Encode returns the collateral as a bundle: JSON of its four items, for a file or
// for peers in a closed network. [DecodeCollateral] reads it.
func (c *Collateral) Encode() ([]byte, error) {
	b, err := json.MarshalIndent(c.items, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("tdx: encode collateral: %w", err)
	}
	return append(b, '\n'), nil
}

// DecodeCollateral reads a bundle. Like [NewCollateral] it checks the form only; the
// error wraps [ErrCollateral].
func DecodeCollateral(bundle []byte) (*Collateral, error) {
	if len(bundle) > MaxBundleSize {
		return nil, fmt.Errorf("%w: bundle of %d bytes, the limit is %d", ErrCollateral, len(bundle), MaxBundleSize)
	}
	var items []Item
	if err := json.Unmarshal(bundle, &items); err != nil {
		return nil, fmt.Errorf("%w: bundle: %w", ErrCollateral, err)
	}
	if len(items) != 4 {
		return nil, fmt.Errorf("%w: bundle of %d items, want TCB info, QE identity, PCK CRL, root CRL", ErrCollateral, len(items))
	}
	return NewCollateral(items[0], items[1], items[2], items[3])
}

// Authentic checks that every item is signed under root and valid at a time. [Verify]
// has go-tdx-guest check the same with each quote; whoever stores collateral checks
// it before, because its numbers bar everything older: a forged one would lock the
// real one out. The error wraps [ErrCollateral].
func (c *Collateral) Authentic(root Root, at time.Time) error {
	if root.certificate == nil {
		return errNoRoot
	}
	times := At(at)
	if err := c.checkDates(&times); err != nil {
		return err
	}
	for i, member := range []string{"tcbInfo", "enclaveIdentity"} {
		if err := chained(c.signers[i], root, at); err != nil {
			return fmt.Errorf("%w: signer of %s: %w", ErrCollateral, member, err)
		}
		if err := signedMember(c.items[i].Body, member, c.signers[i]); err != nil {
			return fmt.Errorf("%w: %s: %w", ErrCollateral, member, err)
		}
	}
	err := chained(c.authority, root, at)
	if err == nil {
		err = c.pckCRL.CheckSignatureFrom(c.authority)
	}
	if err != nil {
		return fmt.Errorf("%w: PCK CRL: %w", ErrCollateral, err)
	}
	if err := c.rootCRL.CheckSignatureFrom(root.certificate); err != nil {
		return fmt.Errorf("%w: root CRL: %w", ErrCollateral, err)
	}
	for _, revoked := range c.rootCRL.RevokedCertificateEntries {
		for _, signer := range append(c.signers[:], c.authority) {
			if revoked.SerialNumber.Cmp(signer.SerialNumber) == 0 {
				return fmt.Errorf("%w: %w: certificate of %s", ErrCollateral, ErrRevoked, signer.Subject.CommonName)
			}
		}
	}
	return nil
}

func chained(certificate *x509.Certificate, root Root, at time.Time) error {
	_, err := certificate.Verify(x509.VerifyOptions{Roots: root.pool(), CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	return err
}

// signedMember checks the signature of one member of a JSON object, which is over
// the exact bytes of its value.
func signedMember(body []byte, member string, signer *x509.Certificate) error {
	var object map[string]json.RawMessage
	if err := json.Unmarshal(body, &object); err != nil {
		return err
	}
	var text string
	if err := json.Unmarshal(object["signature"], &text); err != nil {
		return fmt.Errorf("signature: %w", err)
	}
	signature, err := hex.DecodeString(text)
	if err != nil {
		return fmt.Errorf("signature: %w", err)
	}
	der, err := abi.SignatureToDER(signature)
	if err != nil {
		return fmt.Errorf("signature: %w", err)
	}
	return signer.CheckSignature(x509.ECDSAWithSHA256, object[member], der)
}
