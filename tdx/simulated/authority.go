package simulated

import (
	"context"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/google/go-tdx-guest/pcs"

	"github.com/mosaik-engine/mosaik/tdx"
)

// Platform is the machine that is simulated.
type Platform struct {
	FMSPC      [6]byte // kind of platform
	PCEID      [2]byte
	PPID       [16]byte // the machine itself
	CPUSVN     [16]byte // versions of its parts, as SGX counts them
	PCESVN     uint16
	TEETCBSVN  [16]byte // versions as TDX counts them; [0] of module TDX_<[1]>
	QEISVSVN   uint16
	QEProdID   uint16
	QEMRSigner [32]byte
}

// DefaultPlatform is an up-to-date platform of TDX 1.5.
func DefaultPlatform() Platform {
	return Platform{
		FMSPC:      [6]byte{0x51, 0x4d, 0x55, 0x00, 0x00, 0x00},
		PPID:       [16]byte{'s', 'i', 'm', 'u', 'l', 'a', 't', 'e', 'd'},
		CPUSVN:     [16]byte{5, 5, 2, 2, 3, 1, 0, 3},
		PCESVN:     11,
		TEETCBSVN:  [16]byte{3, 1, 5},
		QEISVSVN:   4,
		QEProdID:   2,
		QEMRSigner: [32]byte{0xdc, 0x9e, 0x2a, 0x7c},
	}
}

// Statement is what the simulated Intel says about its platform. The zero value of
// each field means: nothing is wrong.
type Statement struct {
	Platform, Module, QE tdx.Status // of the platform's level; StatusUnknown: UpToDate
	Advisories           []string   // that the platform's level names
	EvaluationNumber     uint32     // 0: 17
	CRLNumber            int64      // 0: 1

	// RevokePCK, RevokeIntermediate and RevokeSigner put the certificate of the
	// platform, of the PCK authority and of the signer of TCB info and QE identity
	// on their revocation lists.
	RevokePCK, RevokeIntermediate, RevokeSigner bool

	Issued time.Time     // zero: the authority's time
	Valid  time.Duration // until the next update; 0: 30 days, as Intel's
}

// Authority is a simulated Intel with one platform.
type Authority struct {
	platform                        Platform
	now                             time.Time
	root, intermediate, pck, signer *issuer
	seed                            [32]byte
}

// New makes the authority that a seed determines: processes that share seed,
// platform and now share the root. The certificates are valid from an hour before
// now, for 20 years, that of the platform for 7.
func New(seed [32]byte, platform Platform, now time.Time) (*Authority, error) {
	a := &Authority{platform: platform, now: now.UTC().Truncate(time.Second), seed: seed}
	from := a.now.Add(-time.Hour)
	extension, err := sgxExtension(&platform)
	if err != nil {
		return nil, err
	}
	if a.root, err = issue(seed, rootName, nil, from, from.AddDate(20, 0, 0), true); err != nil {
		return nil, err
	}
	if a.intermediate, err = issue(seed, intermediateName, a.root, from, from.AddDate(15, 0, 0), true); err != nil {
		return nil, err
	}
	if a.pck, err = issue(seed, pckName, a.intermediate, from, from.AddDate(7, 0, 0), false, extension); err != nil {
		return nil, err
	}
	if a.signer, err = issue(seed, signerName, a.root, from, from.AddDate(7, 0, 0), false); err != nil {
		return nil, err
	}
	return a, nil
}

// Root is the root to verify the authority's quotes with.
func (a *Authority) Root() tdx.Root { return tdx.SimulatedRoot(a.root.certificate) }

// Collateral returns what the authority states, signed.
func (a *Authority) Collateral(s Statement) (*tdx.Collateral, error) {
	if s.Issued.IsZero() {
		s.Issued = a.now
	}
	s.Issued = s.Issued.UTC().Truncate(time.Second)
	if s.Valid == 0 {
		s.Valid = 30 * 24 * time.Hour
	}
	if s.EvaluationNumber == 0 {
		s.EvaluationNumber = 17
	}
	if s.CRLNumber == 0 {
		s.CRLNumber = 1
	}
	for _, status := range []*tdx.Status{&s.Platform, &s.Module, &s.QE} {
		*status = max(*status, tdx.UpToDate)
	}
	info, err := a.signed("tcbInfo", a.tcbInfo(s))
	if err != nil {
		return nil, err
	}
	qe, err := a.signed("enclaveIdentity", a.qeIdentity(s))
	if err != nil {
		return nil, err
	}
	var pcks, authorities []*x509.Certificate
	if s.RevokePCK {
		pcks = append(pcks, a.pck.certificate)
	}
	if s.RevokeIntermediate {
		authorities = append(authorities, a.intermediate.certificate)
	}
	if s.RevokeSigner {
		authorities = append(authorities, a.signer.certificate)
	}
	until := s.Issued.Add(s.Valid)
	pckCRL, err := crl(a.intermediate, s.CRLNumber, s.Issued, until, pcks)
	if err != nil {
		return nil, err
	}
	rootCRL, err := crl(a.root, s.CRLNumber, s.Issued, until, authorities)
	if err != nil {
		return nil, err
	}
	return tdx.NewCollateral(
		tdx.Item{URL: pcs.TcbInfoURL(hex.EncodeToString(a.platform.FMSPC[:])), IssuerChain: chain(a.signer, a.root), Body: info},
		tdx.Item{URL: pcs.QeIdentityURL(), IssuerChain: chain(a.signer, a.root), Body: qe},
		tdx.Item{URL: pcs.PckCrlURL("platform"), IssuerChain: chain(a.intermediate, a.root), Body: pckCRL},
		tdx.Item{URL: rootCRLURL, Body: rootCRL},
	)
}

// Fetch returns a function that serves the collateral of whatever state returns
// when it is asked, in the place of Intel's service.
func (a *Authority) Fetch(state func() Statement) func(ctx context.Context, url string) (tdx.Item, error) {
	return func(ctx context.Context, url string) (tdx.Item, error) {
		if err := ctx.Err(); err != nil {
			return tdx.Item{}, err
		}
		c, err := a.Collateral(state())
		if err != nil {
			return tdx.Item{}, err
		}
		for _, item := range c.Items() {
			if item.URL == url {
				return item, nil
			}
		}
		return tdx.Item{}, fmt.Errorf("simulated: nothing at %s", url)
	}
}

// signed wraps a JSON object, signed, under its name. The signature is over the
// exact bytes of the object.
func (a *Authority) signed(name string, object map[string]any) ([]byte, error) {
	body, err := json.Marshal(object) // sorts the keys, so the bytes are determined
	if err != nil {
		return nil, fmt.Errorf("simulated: %s: %w", name, err)
	}
	signature, err := sign(a.signer.key, body)
	if err != nil {
		return nil, fmt.Errorf("simulated: %s: %w", name, err)
	}
	return fmt.Appendf(nil, `{"%s":%s,"signature":"%x"}`, name, body, signature), nil
}

type object = map[string]any

func dates(s Statement, into object) object {
	into["issueDate"] = s.Issued.Format(time.RFC3339)
	into["nextUpdate"] = s.Issued.Add(s.Valid).Format(time.RFC3339)
	into["tcbEvaluationDataNumber"] = s.EvaluationNumber
	return into
}

func (a *Authority) tcbInfo(s Statement) object {
	components := func(svns [16]byte) (list []object) {
		for _, svn := range svns {
			list = append(list, object{"svn": svn})
		}
		return list
	}
	level := object{
		"tcb": object{"sgxtcbcomponents": components(a.platform.CPUSVN), "pcesvn": a.platform.PCESVN,
			"tdxtcbcomponents": components(a.platform.TEETCBSVN)},
		"tcbDate": "2026-01-01T00:00:00Z", "tcbStatus": s.Platform,
	}
	if len(s.Advisories) > 0 {
		level["advisoryIDs"] = s.Advisories
	}
	zeros := strings.Repeat("0", 2*tdx.MeasurementSize)
	module := object{"mrsigner": zeros, "attributes": "0000000000000000", "attributesMask": "FFFFFFFFFFFFFFFF"}
	return dates(s, object{
		"id": "TDX", "version": 3, "fmspc": hex.EncodeToString(a.platform.FMSPC[:]), "pceId": hex.EncodeToString(a.platform.PCEID[:]),
		"tcbType": 0, "tdxModule": module,
		"tdxModuleIdentities": []object{{
			"id": fmt.Sprintf("TDX_%02x", a.platform.TEETCBSVN[1]), "mrsigner": zeros,
			"attributes": "0000000000000000", "attributesMask": "FFFFFFFFFFFFFFFF",
			"tcbLevels": []object{{"tcb": object{"isvsvn": a.platform.TEETCBSVN[0]}, "tcbDate": "2026-01-01T00:00:00Z", "tcbStatus": s.Module}},
		}},
		"tcbLevels": []object{level},
	})
}

func (a *Authority) qeIdentity(s Statement) object {
	return dates(s, object{
		"id": "TD_QE", "version": 2,
		"miscselect": "00000000", "miscselectMask": "FFFFFFFF",
		"attributes": "11000000000000000000000000000000", "attributesMask": "FBFFFFFFFFFFFFFF0000000000000000",
		"mrsigner": hex.EncodeToString(a.platform.QEMRSigner[:]), "isvprodid": a.platform.QEProdID,
		"tcbLevels": []object{{"tcb": object{"isvsvn": a.platform.QEISVSVN}, "tcbDate": "2026-01-01T00:00:00Z", "tcbStatus": s.QE}},
	})
}
