package tdx

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/google/go-tdx-guest/pcs"
	"lukechampine.com/blake3"

	"github.com/mosaik-engine/mosaik/identity"
)

// MaxItemSize is the largest body or issuer chain of an [Item], in bytes. Intel's
// have 300 to 5000.
const MaxItemSize = 256 << 10

// ErrCollateral reports collateral that is missing, malformed, not signed by the
// root, expired, from the future, or older than what was seen before. Without good
// collateral nothing is verified.
var ErrCollateral = errors.New("tdx: collateral is not usable")

// Item is one answer of Intel's provisioning certification service (PCS).
type Item struct {
	URL         string `json:"url"`          // at Intel, wherever it was fetched from
	IssuerChain string `json:"issuer_chain"` // the header of that purpose: two PEM certificates, URL-escaped; empty for the root CRL
	Body        []byte `json:"body"`
}

// Collateral is all that Intel has to say about a platform: four signed items, of
// which the same bytes give everybody the same verdict. It is immutable.
type Collateral struct {
	items   [4]Item // TCB info, QE identity, PCK CRL, root CRL
	info    pcs.TcbInfo
	qe      pcs.EnclaveIdentity
	pckCRL  *x509.RevocationList
	rootCRL *x509.RevocationList
	signers [2]*x509.Certificate // of TCB info and of QE identity
	summary Summary
	digest  identity.ID // of the summary

	authority *x509.Certificate // of the PCK CRL
}

// Summary names collateral without its bytes.
type Summary struct {
	TCBInfo    identity.ID // BLAKE3 of the body
	QEIdentity identity.ID
	PCKCRL     identity.ID
	RootCRL    identity.ID

	EvaluationNumber uint32 // the lower one of TCB info and QE identity
	PCKCRLNumber     uint64
	RootCRLNumber    uint64

	Issued     time.Time // the latest issue date of the four
	NextUpdate time.Time // the earliest of the four; the collateral expires after it
}

// Digest identifies the bytes of all four bodies.
func (s Summary) Digest() identity.ID {
	return identity.FromParts(s.TCBInfo[:], s.QEIdentity[:], s.PCKCRL[:], s.RootCRL[:])
}

// onlyMembers checks that a JSON object has just these members, each once and spelled
// like that. Intel signs the value of one member. Who decodes into a struct, as the
// library does, takes "TCBINFO" for the same member, and the last of several for all: an
// unsigned one beside the signed one would be what is believed.
func onlyMembers(body []byte, names ...string) error {
	d := json.NewDecoder(bytes.NewReader(body))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return errors.New("it is no JSON object")
	}
	seen := make(map[string]bool)
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return err
		}
		name, _ := t.(string)
		if !slices.Contains(names, name) || seen[name] {
			return fmt.Errorf("member %.40q is there twice, or beside those that are signed (%s)", name, strings.Join(names, ", "))
		}
		seen[name] = true
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return err
		}
	}
	if _, err := d.Token(); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the JSON object")
	}
	if len(seen) < len(names) {
		return fmt.Errorf("it lacks one of its members (%s)", strings.Join(names, ", "))
	}
	return nil
}

// NewCollateral decodes four items and keeps them; the caller must not change their
// bodies afterwards. It checks their form only: signatures and dates are checked
// with each quote, by [Verify]. The error wraps [ErrCollateral] and names the item.
func NewCollateral(tcbInfo, qeIdentity, pckCRL, rootCRL Item) (*Collateral, error) {
	c := &Collateral{items: [4]Item{tcbInfo, qeIdentity, pckCRL, rootCRL}}
	for _, item := range c.items {
		if n := max(len(item.Body), len(item.IssuerChain)); n > MaxItemSize {
			return nil, fmt.Errorf("%w: %s has %d bytes, the limit is %d", ErrCollateral, item.URL, n, MaxItemSize)
		}
	}
	if err := onlyMembers(tcbInfo.Body, "tcbInfo", "signature"); err != nil {
		return nil, fmt.Errorf("%w: TCB info: %w", ErrCollateral, err)
	}
	if err := onlyMembers(qeIdentity.Body, "enclaveIdentity", "signature"); err != nil {
		return nil, fmt.Errorf("%w: QE identity: %w", ErrCollateral, err)
	}
	var info pcs.TdxTcbInfo
	var qe pcs.QeIdentity
	if err := json.Unmarshal(tcbInfo.Body, &info); err != nil {
		return nil, fmt.Errorf("%w: TCB info: %w", ErrCollateral, err)
	}
	if err := json.Unmarshal(qeIdentity.Body, &qe); err != nil {
		return nil, fmt.Errorf("%w: QE identity: %w", ErrCollateral, err)
	}
	if fmspc := strings.ToLower(info.TcbInfo.Fmspc); len(fmspc) != 12 || strings.Trim(fmspc, "0123456789abcdef") != "" {
		return nil, fmt.Errorf("%w: TCB info: fmspc %q, want 12 hex digits", ErrCollateral, fmspc)
	}
	var err error
	if c.pckCRL, err = x509.ParseRevocationList(pckCRL.Body); err != nil {
		return nil, fmt.Errorf("%w: PCK CRL: %w", ErrCollateral, err)
	}
	if c.rootCRL, err = x509.ParseRevocationList(rootCRL.Body); err != nil {
		return nil, fmt.Errorf("%w: root CRL: %w", ErrCollateral, err)
	}
	for i, item := range c.items[:2] {
		signer, err := firstCertificate(item.IssuerChain)
		if err != nil {
			return nil, fmt.Errorf("%w: issuer chain of %s: %w", ErrCollateral, item.URL, err)
		}
		c.signers[i] = signer
	}
	if c.authority, err = firstCertificate(pckCRL.IssuerChain); err != nil {
		return nil, fmt.Errorf("%w: issuer chain of the PCK CRL: %w", ErrCollateral, err)
	}
	c.info, c.qe = info.TcbInfo, qe.EnclaveIdentity
	c.summary = Summary{
		TCBInfo: blake3.Sum256(tcbInfo.Body), QEIdentity: blake3.Sum256(qeIdentity.Body),
		PCKCRL: blake3.Sum256(pckCRL.Body), RootCRL: blake3.Sum256(rootCRL.Body),
		EvaluationNumber: uint32(max(0, min(c.info.TcbEvaluationDataNumber, c.qe.TcbEvaluationDataNumber))),
	}
	for _, crl := range []struct {
		name string
		list *x509.RevocationList
		to   *uint64
	}{{"PCK CRL", c.pckCRL, &c.summary.PCKCRLNumber}, {"root CRL", c.rootCRL, &c.summary.RootCRLNumber}} {
		if crl.list.Number != nil && !crl.list.Number.IsUint64() || crl.list.NextUpdate.IsZero() {
			return nil, fmt.Errorf("%w: %s: its number is beyond 64 bits or its next update is missing", ErrCollateral, crl.name)
		}
		if crl.list.Number != nil {
			*crl.to = crl.list.Number.Uint64()
		}
	}
	for i, d := range c.dates() {
		if i == 0 || d.issued.After(c.summary.Issued) {
			c.summary.Issued = d.issued.UTC()
		}
		if i == 0 || d.nextUpdate.Before(c.summary.NextUpdate) {
			c.summary.NextUpdate = d.nextUpdate.UTC()
		}
	}
	c.digest = c.summary.Digest()
	return c, nil
}

// Items returns the four items: TCB info, QE identity, PCK CRL, root CRL. The bodies
// are the collateral's own and must not be changed.
func (c *Collateral) Items() [4]Item { return c.items }

// Summary describes the collateral.
func (c *Collateral) Summary() Summary { return c.summary }

// FMSPC is the kind of platform that the TCB info is for: 12 hex digits.
func (c *Collateral) FMSPC() string { return strings.ToLower(c.info.Fmspc) }

type itemDates struct {
	name               string
	issued, nextUpdate time.Time
	at                 func(*Times) time.Time
}

func (c *Collateral) dates() [4]itemDates {
	return [4]itemDates{
		{"TCB info", c.info.IssueDate, c.info.NextUpdate, func(t *Times) time.Time { return t.TCBInfo }},
		{"QE identity", c.qe.IssueDate, c.qe.NextUpdate, func(t *Times) time.Time { return t.QEIdentity }},
		{"PCK CRL", c.pckCRL.ThisUpdate, c.pckCRL.NextUpdate, func(t *Times) time.Time { return t.PCKCRL }},
		{"root CRL", c.rootCRL.ThisUpdate, c.rootCRL.NextUpdate, func(t *Times) time.Time { return t.RootCRL }},
	}
}

// checkDates refuses items that are expired or were issued after their time.
// go-tdx-guest checks the expiry alone.
func (c *Collateral) checkDates(at *Times) error {
	for _, d := range c.dates() {
		now := d.at(at)
		if now.After(d.nextUpdate) {
			return fmt.Errorf("%w: the %s has expired at %s", ErrCollateral, d.name, d.nextUpdate.UTC().Format(time.RFC3339))
		}
		if now.Before(d.issued) {
			return fmt.Errorf("%w: the %s is from the future: it was issued at %s", ErrCollateral, d.name, d.issued.UTC().Format(time.RFC3339))
		}
	}
	return nil
}

// Get serves the items to go-tdx-guest, as its trust.HTTPSGetter. It asks by Intel's
// URLs; what does not fit the quote, such as another platform's TCB info, it finds
// out itself.
func (c *Collateral) Get(address string) (map[string][]string, []byte, error) {
	i, header := 3, ""
	switch {
	case strings.HasPrefix(address, pcs.TdxBaseURL+"/tcb?"):
		i, header = 0, pcs.TcbInfoIssuerChainPhrase
	case strings.HasPrefix(address, pcs.QeIdentityURL()):
		i, header = 1, pcs.SgxQeIdentityIssuerChainPhrase
	case strings.HasPrefix(address, pcs.SgxBaseURL+"/pckcrl?"):
		i, header = 2, pcs.SgxPckCrlIssuerChainPhrase
	}
	item := c.items[i]
	return map[string][]string{header: {item.IssuerChain}}, item.Body, nil
}

// firstCertificate decodes the first certificate of an issuer chain as a header
// carries it.
func firstCertificate(chain string) (*x509.Certificate, error) {
	text, err := url.QueryUnescape(chain)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, errors.New("no PEM certificate")
	}
	return x509.ParseCertificate(block.Bytes)
}
