package simulated

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/mosaik-engine/mosaik/tdx"
)

// TD is the trust domain that is simulated. The zero TD is valid.
type TD struct {
	tdx.Measurements
	MRSEAM         tdx.Measurement
	MRSignerSEAM   tdx.Measurement // Intel's is zero; another is refused by the collateral
	SEAMAttributes uint64
	TDAttributes   uint64 // bit 0: debug
	XFAM           uint64
	Version5       bool     // quotes of version 5 with a body of TDX 1.5
	TEETCBSVN2     [16]byte // with Version5; zero: as the platform's
}

// Quoter makes the quotes of one TD on the authority's platform. It may be used from
// many goroutines.
type Quoter struct {
	authority *Authority
	td        TD
}

// Quoter returns a quoter for a TD.
func (a *Authority) Quoter(td TD) *Quoter { return &Quoter{authority: a, td: td} }

// qeAuth is what the quoting enclave adds to the attestation key; Intel's adds 32
// bytes as well.
var qeAuth = [32]byte{0: 'q', 1: 'e'}

// Quote returns a fresh quote over 64 bytes of report data.
func (q *Quoter) Quote(reportData [64]byte) ([]byte, error) {
	a := q.authority
	key := deriveKey(a.seed, "attestation key")
	public, err := key.PublicKey.Bytes()
	if err != nil {
		return nil, fmt.Errorf("simulated: attestation key: %w", err)
	}
	public = public[1:] // x || y without the form byte

	body := q.body(reportData)
	header := q.header()
	if q.td.Version5 {
		header = join(header, le16(3), le32(uint32(len(body))))
	}
	signed := join(header, body)
	signature, err := sign(key, signed)
	if err != nil {
		return nil, fmt.Errorf("simulated: quote: %w", err)
	}
	report := q.qeReport(public)
	reportSignature, err := sign(a.pck.key, report)
	if err != nil {
		return nil, fmt.Errorf("simulated: QE report: %w", err)
	}
	certificates := join(a.pck.pem(), a.intermediate.pem(), a.root.pem())
	certification := join(report, reportSignature, le16(uint16(len(qeAuth))), qeAuth[:],
		le16(5), le32(uint32(len(certificates))), certificates)
	tail := join(signature, public, le16(6), le32(uint32(len(certification))), certification)
	return join(signed, le32(uint32(len(tail))), tail), nil
}

func (q *Quoter) header() []byte {
	version := uint16(4)
	if q.td.Version5 {
		version = 5
	}
	vendor := [16]byte{0x93, 0x9a, 0x72, 0x33, 0xf7, 0x9c, 0x4c, 0xa9, 0x94, 0x0a, 0x0d, 0xb3, 0x95, 0x7f, 0x06, 0x07} // Intel's
	user := [20]byte{}
	copy(user[:], "SIMULATED")
	return join(le16(version), le16(2), le32(0x81), le16(0), le16(0), vendor[:], user[:])
}

func (q *Quoter) body(reportData [64]byte) []byte {
	t, svn := &q.td, q.authority.platform.TEETCBSVN
	le64 := func(n uint64) []byte { return binary.LittleEndian.AppendUint64(nil, n) }
	body := join(svn[:], t.MRSEAM[:], t.MRSignerSEAM[:], le64(t.SEAMAttributes), le64(t.TDAttributes), le64(t.XFAM),
		t.MRTD[:], t.MRConfigID[:], t.MROwner[:], t.MROwnerConfig[:],
		t.RTMR[0][:], t.RTMR[1][:], t.RTMR[2][:], t.RTMR[3][:], reportData[:])
	if !t.Version5 {
		return body
	}
	second := t.TEETCBSVN2
	if second == [16]byte{} {
		second = svn
	}
	var service tdx.Measurement
	return join(body, second[:], service[:])
}

// qeReport is the quoting enclave's SGX report, which binds the attestation key.
func (q *Quoter) qeReport(public []byte) []byte {
	p := &q.authority.platform
	bound := sha256.Sum256(join(public, qeAuth[:]))
	report := make([]byte, 384)
	copy(report, p.CPUSVN[:])
	report[48] = 0x11 // attributes: INIT and PROVISION_KEY
	copy(report[128:], p.QEMRSigner[:])
	binary.LittleEndian.PutUint16(report[256:], p.QEProdID)
	binary.LittleEndian.PutUint16(report[258:], p.QEISVSVN)
	copy(report[320:], bound[:])
	return report
}
