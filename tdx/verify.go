package tdx

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/go-tdx-guest/pcs"
	"github.com/google/go-tdx-guest/verify"

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
	q, err := ParseQuote(raw)
	if err != nil {
		return nil, err
	}
	if q.Debug() {
		return nil, fmt.Errorf("%w: TD attributes %#016x", ErrDebug, q.TDAttributes)
	}
	pck, err := readPCK(raw)
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
		PCK:        identity.FromParts(pck.chain.PCKCertificate.Raw),
		PCKSerial:  pck.chain.PCKCertificate.SerialNumber.Text(16),
		Collateral: c.summary,
		VerifiedAt: at.PCKChain.UTC(),
		NotAfter:   c.summary.NextUpdate,
	}
	certificates := append([]*x509.Certificate{pck.chain.PCKCertificate, pck.chain.IntermediateCertificate, root.certificate}, c.signers...)
	for _, certificate := range certificates {
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
	chain      *verify.PCKCertificateChain
	extensions *pcs.PckExtensions
}

func readPCK(raw []byte) (p pckOf, err error) {
	defer func() {
		if broken := recover(); broken != nil {
			err = fmt.Errorf("%w: reading the PCK certificate panicked: %v", ErrQuote, broken)
		}
	}()
	quote, err := message(raw)
	if err != nil {
		return pckOf{}, err
	}
	if p.chain, err = verify.ExtractChainFromQuote(quote); err != nil {
		return pckOf{}, fmt.Errorf("%w: %w", ErrQuote, err)
	}
	if p.extensions, err = pcs.PckCertificateExtensions(p.chain.PCKCertificate); err != nil {
		return pckOf{}, fmt.Errorf("%w: %w", ErrQuote, err)
	}
	return p, nil
}

// classify gives an error of go-tdx-guest, which has more than fifty and no kinds,
// one of ours. It looks at the evidence again and never at the error's text.
func classify(err error, raw []byte, root Root, pck pckOf, q *Quote, c *Collateral, at Times) error {
	for _, certificate := range []*x509.Certificate{pck.chain.PCKCertificate, pck.chain.IntermediateCertificate} {
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
	case lists(c.pckCRL, pck.chain.PCKCertificate):
		return fmt.Errorf("%w: PCK certificate: %w", ErrRevoked, err)
	case lists(c.rootCRL, pck.chain.IntermediateCertificate):
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
