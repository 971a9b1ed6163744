package oracle

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/BurntSushi/toml"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/organisms"
)

// MaxFile bounds the file of an oracle, in bytes.
const MaxFile = 8 << 20

// ErrNewerSchema says that a file is of a later schema than this program knows.
var ErrNewerSchema = errors.New("mosaik: oracle config of a newer schema")

// file is parameters and catalog as TOML and JSON have them.
type file struct {
	Schema      int          `toml:"schema" json:"schema"`
	Pairs       []string     `toml:"pairs" json:"pairs"`
	Aggregation string       `toml:"aggregation" json:"aggregation"`
	Cadence     string       `toml:"cadence" json:"cadence"`
	Deadline    string       `toml:"deadline" json:"deadline"`
	MaxAge      string       `toml:"max-age" json:"max-age"`
	MaxAhead    string       `toml:"max-ahead" json:"max-ahead"`
	Minimum     uint8        `toml:"minimum" json:"minimum"`
	Quorum      uint8        `toml:"quorum" json:"quorum"`
	Outliers    uint8        `toml:"outliers" json:"outliers"`
	Decimals    uint8        `toml:"decimals" json:"decimals"`
	Tolerance   uint32       `toml:"tolerance" json:"tolerance"`
	Sources     []fileSource `toml:"source" json:"source"`
}

// fileSource is a source of any kind.
type fileSource struct {
	Pair   string `toml:"pair" json:"pair"`
	Weight uint32 `toml:"weight" json:"weight"`
	Kind   string `toml:"kind" json:"kind"`

	Exchange  string `toml:"exchange" json:"exchange"`
	Symbol    string `toml:"symbol" json:"symbol"`
	Endpoint  string `toml:"endpoint" json:"endpoint"`
	TLS       string `toml:"tls-spki" json:"tls-spki"`
	PricePath string `toml:"price-path" json:"price-path"`
	TimePath  string `toml:"time-path" json:"time-path"`

	File       string `toml:"file" json:"file"`
	Instrument string `toml:"instrument" json:"instrument"`
	Venue      string `toml:"venue" json:"venue"`
	Column     string `toml:"column" json:"column"`

	Organism     string `toml:"organism" json:"organism"`
	Pin          string `toml:"pin" json:"pin"`
	UpstreamPair string `toml:"upstream-pair" json:"upstream-pair"`
}

// ParseTOML reads the parameters and the catalog of an oracle from one file
// (docs/format/oracle.md); the digest of the catalog stands in the parameters. The error is a
// *FieldError, with the line if the field is there, or wraps ErrNewerSchema, or is of r. A field that is
// not known is an error: what an oracle does not do is not to be believed in.
func ParseTOML(r io.Reader) (*Parameters, *Catalog, error) {
	text, err := readFile(r)
	if err != nil {
		return nil, nil, err
	}
	var f file
	meta, err := toml.Decode(text, &f)
	if at := (toml.ParseError{}); errors.As(err, &at) {
		return nil, nil, &FieldError{Field: at.LastKey, Line: at.Position.Line, Err: errors.New(at.Message)}
	}
	if err != nil {
		return nil, nil, &FieldError{Field: "file", Err: err}
	}
	if unknown := meta.Undecoded(); len(unknown) > 0 {
		field := unknown[0].String()
		return nil, nil, &FieldError{Field: field, Line: lineOf(text, field), Err: errors.New("it is not known")}
	}
	p, c, err := f.parsed()
	if bad := (*FieldError)(nil); errors.As(err, &bad) {
		bad.Line = lineOf(text, bad.Field)
	}
	return p, c, err
}

// ParseJSON reads what ParseTOML reads, as JSON with the same names. The line is that of
// JSON that cannot be read; other errors have the field alone.
func ParseJSON(r io.Reader) (*Parameters, *Catalog, error) {
	text, err := readFile(r)
	if err != nil {
		return nil, nil, err
	}
	var f file
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil {
		bad := &FieldError{Field: "file", Line: lineAt(text, d.InputOffset()), Err: err}
		if wrong := (*json.UnmarshalTypeError)(nil); errors.As(err, &wrong) {
			bad.Field, bad.Line = wrong.Field, lineAt(text, wrong.Offset)
			bad.Err = fmt.Errorf("a %s, not a %v", wrong.Value, wrong.Type)
		}
		if wrong := (*json.SyntaxError)(nil); errors.As(err, &wrong) {
			bad.Line = lineAt(text, wrong.Offset)
		}
		return nil, nil, bad
	}
	// The decoder stops behind the first value, and takes a name that occurs twice or in
	// other letters (ſource).
	if err := (&walk{plain: true}).document([]byte(text)); err != nil {
		return nil, nil, &FieldError{Field: "file", Err: err}
	}
	return f.parsed()
}

func readFile(r io.Reader) (string, error) {
	b, err := io.ReadAll(io.LimitReader(r, MaxFile+1))
	if err != nil {
		return "", err
	}
	if len(b) > MaxFile {
		return "", fieldError("file", "it has more than %d bytes", MaxFile)
	}
	return string(b), nil
}

// lineAt returns the line of an offset in a text, from 1.
func lineAt(text string, offset int64) int {
	return 1 + strings.Count(text[:min(max(int(offset), 0), len(text))], "\n")
}

// parsed returns the parameters and the catalog that the file says.
func (f *file) parsed() (*Parameters, *Catalog, error) {
	switch {
	case f.Schema == 0:
		return nil, nil, fieldError("schema", "it is missing; this program knows %d", organisms.SchemaVersion)
	case f.Schema > organisms.SchemaVersion:
		return nil, nil, fmt.Errorf("%w: schema %d, this program knows %d", ErrNewerSchema, f.Schema, organisms.SchemaVersion)
	case f.Schema < 0:
		return nil, nil, fieldError("schema", "%d is none", f.Schema)
	}
	p := &Parameters{Minimum: f.Minimum, Quorum: f.Quorum, Outliers: f.Outliers, Decimals: f.Decimals, Tolerance: f.Tolerance}
	if f.Aggregation != WeightedMedian.String() {
		return nil, nil, fieldError("aggregation", "%q is not known; this program knows %v", f.Aggregation, WeightedMedian)
	}
	p.Policy = WeightedMedian
	for _, d := range [...]struct {
		field, text string
		to          *time.Duration
	}{{"cadence", f.Cadence, &p.Cadence}, {"deadline", f.Deadline, &p.Deadline}, {"max-age", f.MaxAge, &p.MaxAge}, {"max-ahead", f.MaxAhead, &p.MaxAhead}} {
		var err error
		if *d.to, err = time.ParseDuration(d.text); err != nil {
			return nil, nil, fieldError(d.field, "%q is no duration such as 500ms", d.text)
		}
	}
	c := new(Catalog)
	if err := f.pairs(p, c); err != nil {
		return nil, nil, err
	}
	if err := f.sources(p, c); err != nil {
		return nil, nil, err
	}
	if err := c.Validate(); err != nil {
		return nil, nil, err
	}
	p.Catalog = c.Digest()
	if err := p.Validate(); err != nil {
		return nil, nil, err
	}
	return p, c, nil
}

func (f *file) pairs(p *Parameters, c *Catalog) error {
	if n := len(f.Pairs); n > MaxPairs {
		return fieldError("pairs", "%d, there are 1 to %d", n, MaxPairs)
	}
	for i, text := range f.Pairs {
		pair, err := ParsePair(text)
		if err != nil {
			return fieldError(fmt.Sprintf("pairs[%d]", i), "%w", err)
		}
		p.Feeds = append(p.Feeds, Feed{Pair: pair})
		c.Pairs = append(c.Pairs, Listing{Pair: pair})
	}
	return nil
}

func (f *file) sources(p *Parameters, c *Catalog) error {
	for i := range f.Sources {
		s := &f.Sources[i]
		at := func(field string) string { return fmt.Sprintf("source[%d].%s", i, field) }
		n := slices.IndexFunc(c.Pairs, func(l Listing) bool { return l.Pair.String() == s.Pair })
		if n < 0 {
			return fieldError(at("pair"), "%q is none of the pairs, in their direction", s.Pair)
		}
		if s.Weight < 1 || s.Weight > MaxWeight {
			return fieldError(at("weight"), "%d is not from 1 to %d", s.Weight, MaxWeight)
		}
		config, err := s.config()
		if bad := (*FieldError)(nil); errors.As(err, &bad) {
			return fieldError(at(bad.Field), "%w", bad.Err)
		}
		// Here and not in Catalog.Validate alone, which counts the sources pair by pair.
		if err := validateSource(i, config); err != nil {
			return err
		}
		c.Pairs[n].Sources = append(c.Pairs[n].Sources, config)
		p.Feeds[n].Sources = append(p.Feeds[n].Sources, Weighted{SourceID(c.Pairs[n].Pair, config), s.Weight})
	}
	return nil
}

// config returns the source, of which the form of each field is checked. Errors are
// *FieldError of the field alone. A field that belongs to another kind is one.
func (s *fileSource) config() (SourceConfig, error) {
	rest := *s
	rest.Pair, rest.Weight, rest.Kind = "", 0, ""
	var config SourceConfig
	var err error
	switch s.Kind {
	case "cex-spot":
		config, err = s.cexSpot()
		rest.Exchange, rest.Symbol, rest.Endpoint, rest.TLS, rest.PricePath, rest.TimePath = "", "", "", "", "", ""
	case "replay":
		config, err = s.replay()
		rest.File, rest.Instrument, rest.Venue, rest.Column = "", "", "", ""
	case "organism":
		config, err = s.organism()
		rest.Organism, rest.Pin, rest.UpstreamPair = "", "", ""
	default:
		return nil, fieldError("kind", "%q is none of cex-spot, replay and organism", s.Kind)
	}
	if err == nil && rest != (fileSource{}) {
		return nil, fieldError("kind", "a field is there that a source of kind %q does not have: %s", s.Kind, rest.firstField())
	}
	return config, err
}

// firstField names a field that is there.
func (s *fileSource) firstField() string {
	for _, f := range [...]struct{ name, value string }{
		{"exchange", s.Exchange}, {"symbol", s.Symbol}, {"endpoint", s.Endpoint}, {"tls-spki", s.TLS},
		{"price-path", s.PricePath}, {"time-path", s.TimePath},
		{"file", s.File}, {"instrument", s.Instrument}, {"venue", s.Venue}, {"column", s.Column},
		{"organism", s.Organism}, {"pin", s.Pin}, {"upstream-pair", s.UpstreamPair},
	} {
		if f.value != "" {
			return f.name
		}
	}
	return ""
}

func (s *fileSource) cexSpot() (*CexSpot, error) {
	c := &CexSpot{Exchange: s.Exchange, Symbol: s.Symbol, Endpoint: s.Endpoint, PricePath: s.PricePath, TimePath: s.TimePath}
	pin, err := parseDigest("tls-spki", s.TLS)
	c.TLS = SPKI(pin)
	return c, err
}

func (s *fileSource) replay() (*Replay, error) {
	r := &Replay{Instrument: s.Instrument, Venue: s.Venue}
	digest, err := parseDigest("file", s.File)
	if err != nil {
		return nil, err
	}
	r.File = log.Digest(digest)
	for _, c := range [...]Column{Bid, Ask, Mid} {
		if s.Column == c.String() {
			r.Column = c
			return r, nil
		}
	}
	return nil, fieldError("column", "%q is none of %v, %v and %v", s.Column, Bid, Ask, Mid)
}

func (s *fileSource) organism() (*Organism, error) {
	id, err := parseDigest("organism", s.Organism)
	if err != nil {
		return nil, err
	}
	o := &Organism{Ref: organisms.Ref{Role: Role, StableID: id}}
	if s.Pin != "" {
		pin, err := parseDigest("pin", s.Pin)
		if err != nil {
			return nil, err
		}
		o.Ref.ContentHash = &pin
	}
	if o.Pair, err = ParsePair(s.UpstreamPair); err != nil {
		return nil, fieldError("upstream-pair", "%w", err)
	}
	return o, nil
}

func parseDigest(field, text string) (identity.ID, error) {
	id, err := identity.ParseID(text)
	if err != nil {
		return id, fieldError(field, "%q is not %d lower-case hex digits: it has %d characters", text, hex.EncodedLen(identity.Size), len(text))
	}
	return id, nil
}

// lineOf finds the line of a field such as "cadence" or "source[2].pair" in a file that has
// been decoded: that of the key, or else of its table, or 0. Fields in tables that are
// written inline are not found.
func lineOf(text, field string) int {
	table, key, inTable := strings.Cut(field, ".")
	if !inTable {
		table, key = "", field
	}
	key, _, _ = strings.Cut(key, "[") // an element of a list has the line of the list
	name, rest, listed := strings.Cut(table, "[")
	index := 0 // of the table among those of its name; not listed: any
	if listed {
		index, _ = strconv.Atoi(strings.TrimSuffix(rest, "]")) // written by this package
	}
	at, number, seen, within := 0, 0, -1, table == ""
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			header := strings.Trim(strings.SplitN(line, "#", 2)[0], "[] \t")
			if header == name {
				seen++
			}
			if within = header == name && (seen == index || !listed); within {
				at = number
			}
			continue
		}
		if word, _, ok := strings.Cut(line, "="); ok && within && strings.Trim(word, " \t\"'") == key {
			return number
		}
	}
	return at
}
