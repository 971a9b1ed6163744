package tdx

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/go-tdx-guest/pcs"
	"github.com/google/go-tdx-guest/verify"
	"lukechampine.com/blake3"

	"github.com/mosaik-engine/mosaik/identity"
)

// What [Verify] finds wrong beyond [ErrQuote], [ErrTCB] and [ErrCollateral].
var (
	// ErrForged reports a quote that no chain of signatures ties to the root.
	ErrForged = errors.New("tdx: quote is not genuine")

	// ErrExpired reports a quote whose certificates are not valid at the time.
	ErrExpired = errors.New("tdx: certificate is not valid at this time")

	// ErrRevoked reports a certificate or a platform that Intel has revoked.
	ErrRevoked = errors.New("tdx: revoked")

	// ErrDebug reports a TD that its host may look into.
	ErrDebug = errors.New("tdx: the TD runs in debug mode")
)

// Times are the moments at which the parts of a verification are judged. Only
// re-evaluations of the past need different ones; see [At].
type Times struct {
	// The PCK certificate chain, and the items of the collateral with their chains.
	PCKChain, TCBInfo, QEIdentity, PCKCRL, RootCRL time.Time
}

// At returns t for every part.
func At(t time.Time) Times { return Times{t, t, t, t, t} }

// Evidence is a quote that is genuine: what [Verify] has proven.
type Evidence struct {
	Quote *Quote // what the TD and its quoting enclave signed
	TCB   TCB    // how well patched they are

	// Simulated says that no hardware stands behind any of this.
	Simulated bool
	Root      identity.ID // fingerprint of the root, see [Root.Fingerprint]

	FMSPC     string      // kind of platform, 12 hex digits
	PCK       identity.ID // BLAKE3 of the PCK certificate in DER: which platform
	PCKSerial string      // its serial number, hexadecimal, as a CRL would list it

	Collateral Summary // what it was verified with

	// VerifiedAt is the time the PCK chain was judged at, NotAfter when the first of
	// the collateral and the certificates expires: the evidence says nothing beyond.
	VerifiedAt, NotAfter time.Time
}

// Verify tells whether a quote is genuine: signed by a quoting enclave that a
// platform's key vouches for, which root's chain vouches for; nothing of it revoked;
// not in debug mode; and how well patched everything is according to the collateral,
// which is verified as well. Whether the TD is one that may be admitted, and whether
// its patches suffice, is a [Policy]'s question; a revoked platform never passes.
//
// Verify is a function of its arguments and does no I/O. It takes about 2 ms, so
// bound how many run at once ([Checker]). The error wraps one of [ErrQuote],
// [ErrForged], [ErrExpired], [ErrRevoked], [ErrDebug], [ErrTCB] and [ErrCollateral].
//
// go-tdx-guest itself refuses a TDX module or quoting enclave that is not up to
// date, and on a platform of TDX 1.0 any status but UpToDate: those errors are
// ErrTCB here, and no policy can be more tolerant.
func Verify(raw []byte, root Root, c *Collateral, at Times) (*Evidence, error) {
	if root.certificate == nil {
		return nil, errNoRoot
	}
	if c == nil {
		return nil, fmt.Errorf("%w: there is none", ErrCollateral)
	}
	q, parts, err := decode(raw)
	if err != nil {
		return nil, err
	}
	if q.Debug() {
		return nil, fmt.Errorf("%w: TD attributes %#016x", ErrDebug, q.TDAttributes)
	}
	pck, err := readPCK(parts.chain, c.authority)
	if err != nil {
		return nil, err
	}
	if err := c.checkDates(&at); err != nil {
		return nil, err
	}
	if err := verifySignatures(raw, root, c, at); err != nil {
		return nil, classify(err, raw, root, pck, q, c, at)
	}
	tcb, err := evaluateTCB(q, pck.extensions, &c.info, &c.qe)
	if err != nil {
		return nil, err
	}
	if tcb.Worst() == Revoked {
		return nil, fmt.Errorf("%w: TCB level: platform %s, module %s, quoting enclave %s", ErrRevoked, tcb.Platform, tcb.Module, tcb.QE)
	}
	e := &Evidence{
		Quote: q, TCB: tcb, Simulated: root.simulated, Root: root.Fingerprint(),
		FMSPC:      strings.ToLower(pck.extensions.FMSPC),
		PCK:        blake3.Sum256(pck.leaf.Raw),
		PCKSerial:  pck.leaf.SerialNumber.Text(16),
		Collateral: c.summary,
		VerifiedAt: at.PCKChain.UTC(),
		NotAfter:   c.summary.NextUpdate,
	}
	for _, certificate := range []*x509.Certificate{pck.leaf, pck.intermediate, root.certificate, c.signers[0], c.signers[1]} {
		if certificate.NotAfter.Before(e.NotAfter) {
			e.NotAfter = certificate.NotAfter.UTC()
		}
	}
	return e, nil
}

// verifySignatures has go-tdx-guest check the signatures of quote, chain and
// collateral, and revocation. Without collateral it proves the quote's origin alone.
func verifySignatures(raw []byte, root Root, c *Collateral, at Times) (err error) {
	defer func() {
		if broken := recover(); broken != nil {
			err = fmt.Errorf("go-tdx-guest panicked: %v", broken)
		}
	}()
	quote, err := message(raw) // a fresh one: the verifier appends to slices in it
	if err != nil {
		return err
	}
	options := &verify.Options{
		TrustedRoots: root.pool(),
		Now: &verify.TimeSet{
			PckCertChain: at.PCKChain, TcbInfo: at.TCBInfo, QeIdentity: at.QEIdentity, PckCrl: at.PCKCRL, RootCaCrl: at.RootCRL,
		},
	}
	if c != nil {
		options.GetCollateral, options.CheckRevocations, options.Getter = true, true, c
	}
	return verify.TdxQuote(quote, options)
}

// pckOf is what a quote's certificates say, unproven.
type pckOf struct {
	leaf, intermediate *x509.Certificate
	extensions         *pcs.PckExtensions
}

// readPCK decodes the first two certificates of a quote's chain. The second is
// Intel's and nearly always the authority whose revocation list is at hand.
func readPCK(chain []byte, authority *x509.Certificate) (p pckOf, err error) {
	defer func() {
		if broken := recover(); broken != nil {
			err = fmt.Errorf("%w: reading the PCK certificate panicked: %v", ErrQuote, broken)
		}
	}()
	for _, to := range []**x509.Certificate{&p.leaf, &p.intermediate} {
		var block *pem.Block
		if block, chain = pem.Decode(chain); block == nil {
			return pckOf{}, fmt.Errorf("%w: fewer than 3 certificates in PEM", ErrQuote)
		}
		if authority != nil && bytes.Equal(block.Bytes, authority.Raw) {
			*to = authority
			continue
		}
		if *to, err = x509.ParseCertificate(block.Bytes); err != nil {
			return pckOf{}, fmt.Errorf("%w: certificate: %w", ErrQuote, err)
		}
	}
	if p.extensions, err = pcs.PckCertificateExtensions(p.leaf); err != nil {
		return pckOf{}, fmt.Errorf("%w: PCK certificate: %w", ErrQuote, err)
	}
	return p, nil
}

// classify gives an error of go-tdx-guest, which has more than fifty and no kinds,
// one of ours. It looks at the evidence again and never at the error's text.
func classify(err error, raw []byte, root Root, pck pckOf, q *Quote, c *Collateral, at Times) error {
	if errors.Is(err, ErrQuote) {
		return err
	}
	for _, certificate := range []*x509.Certificate{pck.leaf, pck.intermediate} {
		if at.PCKChain.After(certificate.NotAfter) || at.PCKChain.Before(certificate.NotBefore) {
			return fmt.Errorf("%w: %s is valid from %s to %s: %w", ErrExpired, certificate.Subject.CommonName,
				certificate.NotBefore.UTC().Format(time.RFC3339), certificate.NotAfter.UTC().Format(time.RFC3339), err)
		}
	}
	if forged := verifySignatures(raw, root, nil, at); forged != nil {
		return fmt.Errorf("%w: %w", ErrForged, forged)
	}
	lists := func(list *x509.RevocationList, certificate *x509.Certificate) bool {
		return slices.ContainsFunc(list.RevokedCertificateEntries, func(e x509.RevocationListEntry) bool {
			return e.SerialNumber.Cmp(certificate.SerialNumber) == 0
		})
	}
	switch {
	case lists(c.pckCRL, pck.leaf):
		return fmt.Errorf("%w: PCK certificate: %w", ErrRevoked, err)
	case lists(c.rootCRL, pck.intermediate):
		return fmt.Errorf("%w: PCK certificate authority: %w", ErrRevoked, err)
	case lists(c.rootCRL, c.signers[0]), lists(c.rootCRL, c.signers[1]):
		return fmt.Errorf("%w: signer of TCB info or QE identity: %w", ErrRevoked, err)
	case !strings.EqualFold(c.info.Fmspc, pck.extensions.FMSPC):
		return fmt.Errorf("%w: the TCB info is for platform %s, the quote is from %s", ErrCollateral, c.info.Fmspc, pck.extensions.FMSPC)
	}
	if tcb, bad := evaluateTCB(q, pck.extensions, &c.info, &c.qe); bad != nil {
		return bad
	} else if tcb.Worst() != UpToDate {
		return fmt.Errorf("%w: platform %s, module %s, quoting enclave %s: %w", ErrTCB, tcb.Platform, tcb.Module, tcb.QE, err)
	}
	return fmt.Errorf("%w: %w", ErrCollateral, err)
}
