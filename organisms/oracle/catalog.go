package oracle

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/organisms"
	"github.com/mosaik-engine/mosaik/organisms/wire"
)

// Limits of a catalog.
const (
	MaxEndpoint = 512     // bytes of an endpoint, and of a path into its answer
	MaxCatalog  = 4 << 20 // bytes of a catalog's encoding
)

// SPKI pins a server: the SHA-256 digest of the SubjectPublicKeyInfo of its certificate
// (RFC 7469, section 2.4, which writes it in base64). A certificate that is renewed for the
// same key keeps it.
type SPKI [sha256.Size]byte

// SPKIOf returns the pin of a certificate.
func SPKIOf(c *x509.Certificate) SPKI { return sha256.Sum256(c.RawSubjectPublicKeyInfo) }

// String returns the pin as 64 lower-case hex digits.
func (s SPKI) String() string { return hex.EncodeToString(s[:]) }

// Column is which number of a line of a replayed file is the price.
type Column uint8

// The columns.
const (
	Bid Column = 1
	Ask Column = 2
	Mid Column = 3 // halfway between bid and ask, rounded down to a unit
)

// String returns the name that files have.
func (c Column) String() string {
	switch c {
	case Bid:
		return "bid"
	case Ask:
		return "ask"
	case Mid:
		return "mid"
	}
	return fmt.Sprintf("column %d", uint8(c))
}

// SourceConfig says where one price of a pair comes from. It is a *CexSpot, a *Replay or an
// *Organism.
type SourceConfig interface {
	// kind is the first byte of the encoding.
	kind() uint8
	// append appends the encoding without its kind.
	append(dst []byte) []byte
	// validate checks it; errors are *FieldError of the field alone.
	validate() error
}

// CexSpot is the spot price that an exchange answers over HTTPS, as JSON.
type CexSpot struct {
	// Exchange and Symbol are what it is called, for people; names.
	Exchange, Symbol string
	// Endpoint is what is got, an https URL of at most MaxEndpoint bytes. Nothing is added
	// to it.
	Endpoint string
	// TLS pins the server's key.
	TLS SPKI
	// PricePath is a JSON pointer (RFC 6901) at the price, which is a number or a string.
	PricePath string
	// TimePath is one at the time of the price: milliseconds since 1970 as a number, or a
	// string of RFC 3339. Empty: the time of the answer is taken.
	TimePath string
}

// Replay is a file of prices in the form of package comment, "Replayed files".
type Replay struct {
	// File is the BLAKE3-256 digest of the file.
	File log.Digest
	// Instrument and Venue say which lines of the file are meant; names.
	Instrument, Venue string
	// Column is which number of them.
	Column Column
}

// Organism is the price of another oracle.
type Organism struct {
	// Ref is that oracle. Pinned: only ticks under the parameters of that revision count.
	Ref organisms.Ref
	// Pair is the pair as that oracle declares it. Its symbols may be spelled otherwise
	// there, but its direction is that of the pair it is a source of.
	Pair Pair
}

// Listing is a pair with its sources.
type Listing struct {
	Pair    Pair           // in the direction of its prices
	Sources []SourceConfig // in order
}

// Catalog lists the sources of an oracle. It is a value: its digest is part of the
// parameters, and is to be folded into the measurements of the image (MR_CONFIG_ID).
type Catalog struct {
	// Pairs are its pairs, in the order of the parameters.
	Pairs []Listing
}

// Kinds of sources, in their encoding.
const (
	kindCexSpot  = 1
	kindReplay   = 2
	kindOrganism = 3
)

func (*CexSpot) kind() uint8  { return kindCexSpot }
func (*Replay) kind() uint8   { return kindReplay }
func (*Organism) kind() uint8 { return kindOrganism }

func (s *CexSpot) append(dst []byte) []byte {
	for _, text := range [...]string{s.Exchange, s.Symbol, s.Endpoint, s.PricePath, s.TimePath} {
		dst = wire.AppendText(dst, text)
	}
	return append(dst, s.TLS[:]...)
}

func (s *Replay) append(dst []byte) []byte {
	dst = append(dst, s.File[:]...)
	return append(wire.AppendText(wire.AppendText(dst, s.Instrument), s.Venue), uint8(s.Column))
}

func (s *Organism) append(dst []byte) []byte {
	dst = append(wire.AppendText(dst, s.Ref.Role), s.Ref.StableID[:]...)
	dst = organisms.AppendPin(dst, s.Ref.ContentHash)
	return wire.AppendText(wire.AppendText(dst, s.Pair.Base), s.Pair.Quote)
}

func (s *CexSpot) validate() error {
	if err := validateNames("exchange", s.Exchange, "symbol", s.Symbol); err != nil {
		return err
	}
	if len(s.Endpoint) > MaxEndpoint {
		return fieldError("endpoint", "%d bytes, the limit is %d", len(s.Endpoint), MaxEndpoint)
	}
	u, err := url.Parse(s.Endpoint)
	switch {
	case err != nil:
		return fieldError("endpoint", "%w", err)
	case u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.Fragment != "" || u.Opaque != "":
		return fieldError("endpoint", "%q is not an https URL of a host, without a user and a fragment", s.Endpoint)
	case s.TLS == SPKI{}:
		return fieldError("tls-spki", "it is zero")
	}
	if _, err := parsePointer(s.PricePath); err != nil {
		return fieldError("price-path", "%w", err)
	}
	if s.TimePath == "" {
		return nil
	}
	if _, err := parsePointer(s.TimePath); err != nil {
		return fieldError("time-path", "%w", err)
	}
	return nil
}

func (s *Replay) validate() error {
	if err := validateNames("instrument", s.Instrument, "venue", s.Venue); err != nil {
		return err
	}
	switch {
	case strings.Contains(s.Instrument, ","):
		return fieldError("instrument", "%q has a comma, so no line can have it", s.Instrument)
	case strings.Contains(s.Venue, ","):
		return fieldError("venue", "%q has a comma, so no line can have it", s.Venue)
	case s.File.IsZero():
		return fieldError("file", "its digest is zero")
	case s.Column < Bid || s.Column > Mid:
		return fieldError("column", "%v is none of %v, %v and %v", s.Column, Bid, Ask, Mid)
	}
	return nil
}

func (s *Organism) validate() error {
	if err := s.Ref.Validate(); err != nil {
		return fieldError("organism", "%w", err)
	}
	if s.Ref.Role != Role {
		return fieldError("organism", "its role is %q, not %q", s.Ref.Role, Role)
	}
	if err := s.Pair.Validate(); err != nil {
		return fieldError("upstream-pair", "%w", err)
	}
	return nil
}

// validateNames checks pairs of a field and the name in it.
func validateNames(fields ...string) error {
	for i := 0; i < len(fields); i += 2 {
		if err := identity.ValidateName(fields[i+1]); err != nil {
			return fieldError(fields[i], "%w", err)
		}
	}
	return nil
}

// SourceID returns the id of a source of a pair:
// H("oracle-source|" || version || "|" || base || quote || kind || fields).
func SourceID(pair Pair, s SourceConfig) identity.ID {
	b := append([]byte("oracle-source|"), version, '|')
	b = append(wire.AppendText(wire.AppendText(b, pair.Base), pair.Quote), s.kind())
	return identity.FromParts(s.append(b))
}

// Validate checks the catalog. The error is a *FieldError; the sources are counted through
// all pairs.
func (c *Catalog) Validate() error {
	if n := len(c.Pairs); n == 0 || n > MaxPairs {
		return fieldError("pairs", "%d, there are 1 to %d", n, MaxPairs)
	}
	number := 0
	for i := range c.Pairs {
		l := &c.Pairs[i]
		at := fmt.Sprintf("pairs[%d]", i)
		if err := l.Pair.Validate(); err != nil {
			return fieldError(at, "%w", err)
		}
		if slices.ContainsFunc(c.Pairs[:i], func(o Listing) bool { return o.Pair.sorted() == l.Pair.sorted() }) {
			return fieldError(at, "%v is there already, in this or the other direction", l.Pair)
		}
		if n := len(l.Sources); n == 0 || n > MaxSources {
			return fieldError(at, "%v has %d sources, there are 1 to %d", l.Pair, n, MaxSources)
		}
		for _, s := range l.Sources {
			if err := validateSource(number, s); err != nil {
				return err
			}
			number++
		}
	}
	if n := len(c.Append(nil)); n > MaxCatalog {
		return fieldError("source", "the catalog has %d bytes, the limit is %d", n, MaxCatalog)
	}
	return nil
}

// validateSource puts the number of the source into the field of what it complains of.
func validateSource(number int, s SourceConfig) error {
	err := s.validate()
	var bad *FieldError
	if errors.As(err, &bad) {
		return &FieldError{Field: fmt.Sprintf("source[%d].%s", number, bad.Field), Err: bad.Err}
	}
	return err
}

// catalogDomain opens the encoding of a catalog.
const catalogDomain = "oracle-catalog|\x01|"

// Append appends the one encoding of a catalog that Validate accepts
// (docs/format/oracle.md).
func (c *Catalog) Append(dst []byte) []byte {
	dst = append(dst, catalogDomain...)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(c.Pairs)))
	for i := range c.Pairs {
		l := &c.Pairs[i]
		dst = wire.AppendText(wire.AppendText(dst, l.Pair.Base), l.Pair.Quote)
		dst = append(dst, uint8(len(l.Sources)))
		for _, s := range l.Sources {
			dst = s.append(append(dst, s.kind()))
		}
	}
	return dst
}

// DecodeCatalog decodes what Append appended and nothing else. The error wraps ErrEncoding
// or is a *FieldError.
func DecodeCatalog(b []byte) (*Catalog, error) {
	c := newCutter(b)
	c.Literal("domain and version", catalogDomain)
	n := c.U32("pairs")
	if n > MaxPairs {
		c.Fail("pairs", "%d, the limit is %d", n, MaxPairs)
	}
	catalog := new(Catalog)
	for i := uint32(0); i < n && !c.Failed(); i++ {
		l := Listing{Pair: Pair{c.Text("base", MaxSymbol), c.Text("quote", MaxSymbol)}}
		for range c.U8("sources") {
			l.Sources = append(l.Sources, c.source())
		}
		catalog.Pairs = append(catalog.Pairs, l)
	}
	if err := c.End(); err != nil {
		return nil, fmt.Errorf("catalog: %w", err)
	}
	if err := catalog.Validate(); err != nil {
		return nil, err
	}
	return catalog, nil
}

// source takes a source. It is never nil.
func (c *cutter) source() SourceConfig {
	switch kind := c.U8("kind"); kind {
	case kindReplay:
		s := &Replay{File: log.Digest(c.ID("file"))}
		s.Instrument, s.Venue = c.Text("instrument", identity.MaxName), c.Text("venue", identity.MaxName)
		s.Column = Column(c.U8("column"))
		return s
	case kindOrganism:
		s := &Organism{Ref: organisms.Ref{Role: c.Text("role", identity.MaxName), StableID: c.ID("stable id")}}
		if c.Bool("pinned") {
			pin := c.ID("content hash")
			s.Ref.ContentHash = &pin
		}
		s.Pair = Pair{c.Text("base", MaxSymbol), c.Text("quote", MaxSymbol)}
		return s
	default:
		if kind != kindCexSpot {
			c.Fail("kind", "%d is none", kind)
		}
		s := new(CexSpot)
		for _, text := range [...]*string{&s.Exchange, &s.Symbol, &s.Endpoint, &s.PricePath, &s.TimePath} {
			*text = c.Text("text", MaxEndpoint)
		}
		s.TLS = SPKI(c.ID("tls spki"))
		return s
	}
}

// Digest returns the hash of the encoding. It is defined for catalogs that Validate accepts.
func (c *Catalog) Digest() identity.ID { return identity.FromParts(c.Append(nil)) }
