package tdx

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"

	"github.com/google/go-tdx-guest/abi"
	"lukechampine.com/blake3"

	"github.com/mosaik-engine/mosaik/identity"
)

// MaxQuoteSize is the largest quote that is looked at, in bytes. A real one has
// about 5000, nearly all of it certificates.
const MaxQuoteSize = 16 << 10

// ErrQuote reports bytes that are not a quote of version 4 or 5 for a TD.
var ErrQuote = errors.New("tdx: malformed quote")

// Sizes and values of Intel's TDX DCAP Quoting Library API, appendix A.3 (quote
// version 4) and A.4 (version 5).
const (
	headerSize      = 48
	bodySize10      = 584 // a TD report of TDX 1.0, the only body of version 4
	bodySize15      = 648 // of TDX 1.5
	descriptorSize  = 6   // version 5: type u16, size u32, then the body
	bodyType10      = 2
	bodyType15      = 3
	keySize         = 64 // x || y on P-256
	signatureSize   = 64 // r || s
	qeReportSize    = 384
	attestationP256 = 2    // ECDSA on P-256
	teeTDX          = 0x81 // TEE type of a TD
	certQEReport    = 6    // certification data: QE report, signature, auth, certificates
	certPCKChain    = 5    // certification data: PEM chain
)

// Quote is what a quote says: nothing in it is proven before [Verify] has passed.
// Integers are decoded from little-endian. The values are copies; a Quote may be
// shared once it is made.
type Quote struct {
	Version        uint16 // 4 or 5
	QEVendor       [16]byte
	UserData       [20]byte
	TEETCBSVN      [16]byte    // versions of the TDX module (0, 1) and of the platform's parts
	MRSEAM         Measurement // the TDX module
	MRSignerSEAM   Measurement // zero: Intel
	SEAMAttributes uint64
	TDAttributes   uint64
	XFAM           uint64
	Measurements
	ReportData [64]byte // what the TD bound into the quote

	// TDX15 tells a body of TDX 1.5. Only such a body has TEETCBSVN2, the versions
	// after an update below the running TD, and MRServiceTD.
	TDX15       bool
	TEETCBSVN2  [16]byte
	MRServiceTD Measurement

	QE QEReport // the quoting enclave that signed

	// Trailing counts bytes after the quote's end. Some drivers pad quotes; nothing
	// signs these bytes and nothing reads them.
	Trailing int

	digest identity.ID
}

// QEReport is what the quoting enclave's report says that is held against Intel's
// QE identity.
type QEReport struct {
	// The fields by their names in Intel's SGX REPORTBODY.
	MiscSelect uint32
	Attributes [16]byte
	MRSigner   [32]byte
	ISVProdID  uint16
	ISVSVN     uint16
}

// The bits of [Quote.TDAttributes], from Intel's TDX module specification.
const (
	// attributeTUD is the group "TD under debug": if any of its bits is set, of
	// which bit 0 is DEBUG, the host may read the TD's memory.
	attributeTUD = 0xff
)

// Debug reports whether the host may look into the TD.
func (q *Quote) Debug() bool { return q.TDAttributes&attributeTUD != 0 }

// Digest identifies the evidence:
//
//	BLAKE3(header || body || attestation key || SHA-256(PCK certificate, DER))
//
// with the descriptor between header and body in version 5. It covers what is
// signed and by whom, and never the raw bytes, because those are malleable: each
// ECDSA signature has a twin (s and n-s), PEM may be spelled in several ways, and
// bytes may follow the end.
func (q *Quote) Digest() identity.ID { return q.digest }

// ParseQuote decodes a quote of version 4 or 5. It copies what it keeps of raw. The
// error wraps [ErrQuote]. ParseQuote proves nothing; see [Verify].
//
// The lengths are checked here before go-tdx-guest sees a byte: its parser trusts
// several of them and panics on a quote that lies (at 91f9a52f36c7).
func ParseQuote(raw []byte) (*Quote, error) {
	q, _, err := decode(raw)
	if err != nil {
		return nil, err
	}
	if _, err := message(raw); err != nil {
		return nil, err
	}
	return q, nil
}

// decode is ParseQuote without go-tdx-guest's opinion, for who asks for that later.
// The parts are slices of raw.
func decode(raw []byte) (*Quote, parts, error) {
	parts, err := split(raw)
	if err != nil {
		return nil, parts, err
	}
	leaf, _ := pem.Decode(parts.chain)
	if leaf == nil {
		return nil, parts, fmt.Errorf("%w: the certification data holds no PEM certificate", ErrQuote)
	}
	q := &Quote{
		Version:  binary.LittleEndian.Uint16(raw),
		Trailing: parts.trailing,
		TDX15:    len(parts.body) == bodySize15,
	}
	copy(q.QEVendor[:], raw[12:28])
	copy(q.UserData[:], raw[28:48])
	q.decodeBody(parts.body)
	q.QE = decodeQEReport(parts.qeReport)
	pck := sha256.Sum256(leaf.Bytes)
	q.digest = blake3.Sum256(slices.Concat(parts.signed, parts.key, pck[:]))
	return q, parts, nil
}

// decodeBody decodes a TD report body of one of the two sizes.
func (q *Quote) decodeBody(b []byte) {
	next := func(dst []byte) { b = b[copy(dst, b):] }
	word := func() (n uint64) {
		n, b = binary.LittleEndian.Uint64(b), b[8:]
		return n
	}
	next(q.TEETCBSVN[:])
	next(q.MRSEAM[:])
	next(q.MRSignerSEAM[:])
	q.SEAMAttributes = word()
	q.TDAttributes = word()
	q.XFAM = word()
	next(q.MRTD[:])
	next(q.MRConfigID[:])
	next(q.MROwner[:])
	next(q.MROwnerConfig[:])
	for i := range q.RTMR {
		next(q.RTMR[i][:])
	}
	next(q.ReportData[:])
	if q.TDX15 {
		next(q.TEETCBSVN2[:])
		next(q.MRServiceTD[:])
	}
}

// decodeQEReport picks from an SGX REPORTBODY of 384 bytes.
func decodeQEReport(b []byte) QEReport {
	return QEReport{
		MiscSelect: binary.LittleEndian.Uint32(b[16:]),
		Attributes: [16]byte(b[48:]),
		MRSigner:   [32]byte(b[128:]),
		ISVProdID:  binary.LittleEndian.Uint16(b[256:]),
		ISVSVN:     binary.LittleEndian.Uint16(b[258:]),
	}
}

// parts are the pieces of a quote, as slices of it.
type parts struct {
	signed   []byte // header, descriptor of version 5, body
	body     []byte
	key      []byte // attestation key
	qeReport []byte
	chain    []byte // PEM
	trailing int
}

// split cuts a quote into its parts and holds every length against what is left.
func split(raw []byte) (parts, error) {
	var p parts
	if len(raw) > MaxQuoteSize {
		return p, fmt.Errorf("%w: %d bytes, the limit is %d", ErrQuote, len(raw), MaxQuoteSize)
	}
	r := cutter{rest: raw}
	header := r.take("header", headerSize)
	if r.err != nil {
		return p, r.err
	}
	version := binary.LittleEndian.Uint16(header)
	if kind := binary.LittleEndian.Uint16(header[2:]); kind != attestationP256 {
		return p, fmt.Errorf("%w: attestation key type %d, want %d (ECDSA on P-256)", ErrQuote, kind, attestationP256)
	}
	if tee := binary.LittleEndian.Uint32(header[4:]); tee != teeTDX {
		return p, fmt.Errorf("%w: TEE type %#x, want %#x (TDX)", ErrQuote, tee, teeTDX)
	}
	switch version {
	case 4:
		p.body = r.take("body", bodySize10)
	case 5:
		kind, size := r.short("body type"), r.long("body size")
		if want := map[int]int{bodyType10: bodySize10, bodyType15: bodySize15}[kind]; r.err == nil && (want == 0 || size != want) {
			return p, fmt.Errorf("%w: body of type %d with %d bytes, want type %d with %d or type %d with %d",
				ErrQuote, kind, size, bodyType10, bodySize10, bodyType15, bodySize15)
		}
		p.body = r.take("body", size)
	default:
		return p, fmt.Errorf("%w: version %d, want 4 or 5", ErrQuote, version)
	}
	p.signed = raw[:len(raw)-len(r.rest)]

	signature := cutter{rest: r.take("signature data", r.long("size of the signature data")), err: r.err}
	p.trailing = len(r.rest)
	signature.take("quote signature", signatureSize)
	p.key = signature.take("attestation key", keySize)
	signature.kind("certification data", certQEReport)
	certification := cutter{rest: signature.all("certification data"), err: signature.err}
	p.qeReport = certification.take("QE report", qeReportSize)
	certification.take("QE report signature", signatureSize)
	certification.take("QE authentication data", certification.short("size of the QE authentication data"))
	certification.kind("certificates", certPCKChain)
	p.chain = certification.all("certificates")
	return p, certification.err
}

// cutter takes fields off the front of rest until one does not fit; then err is set
// and every further field is nil.
type cutter struct {
	rest []byte
	err  error
}

func (c *cutter) take(what string, n int) []byte {
	if c.err == nil && (n < 0 || n > len(c.rest)) {
		c.err = fmt.Errorf("%w: %s wants %d bytes, %d are left", ErrQuote, what, n, len(c.rest))
	}
	if c.err != nil {
		return nil
	}
	field := c.rest[:n:n]
	c.rest = c.rest[n:]
	return field
}

func (c *cutter) short(what string) int {
	if b := c.take(what, 2); b != nil {
		return int(binary.LittleEndian.Uint16(b))
	}
	return 0
}

func (c *cutter) long(what string) int {
	if b := c.take(what, 4); b != nil {
		return int(binary.LittleEndian.Uint32(b))
	}
	return 0
}

// kind takes a u16 that must be want.
func (c *cutter) kind(what string, want int) {
	if got := c.short("type of the " + what); c.err == nil && got != want {
		c.err = fmt.Errorf("%w: %s of type %d, want %d", ErrQuote, what, got, want)
	}
}

// all takes a u32 size and that many bytes, which must be the rest.
func (c *cutter) all(what string) []byte {
	size := c.long("size of the " + what)
	if c.err == nil && size != len(c.rest) {
		c.err = fmt.Errorf("%w: %s wants %d bytes, %d are left", ErrQuote, what, size, len(c.rest))
	}
	return c.take(what, len(c.rest))
}

// message parses raw for go-tdx-guest's verifier. The result must be used for one
// verification only, which appends to slices inside it. Its parser has panicked
// before, on lengths that split now refuses; one that still does is an error here.
func message(raw []byte) (quote any, err error) {
	defer func() {
		if broken := recover(); broken != nil {
			quote, err = nil, fmt.Errorf("%w: the parser of go-tdx-guest panicked: %v", ErrQuote, broken)
		}
	}()
	if quote, err = abi.QuoteToProto(raw); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrQuote, err)
	}
	return quote, nil
}
