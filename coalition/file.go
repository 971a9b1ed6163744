package coalition

import (
	"bytes"
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
	"github.com/mosaik-engine/mosaik/organisms"
)

// MaxFile bounds a config as a file, in bytes.
const MaxFile = 32 << 20

// ErrNewerSchema says that a config is of a later schema than this program knows, whose
// ids it cannot compute.
var ErrNewerSchema = errors.New("mosaik: coalition config of a newer schema")

// file is a Config as TOML and JSON have it.
type file struct {
	Schema     int         `toml:"schema" json:"schema"`
	Name       string      `toml:"name" json:"name"`
	Lattices   []fileRef   `toml:"lattice,omitempty" json:"lattice,omitempty"`
	Organisms  []fileRef   `toml:"organism,omitempty" json:"organism,omitempty"`
	Atlas      *fileModule `toml:"atlas,omitempty" json:"atlas,omitempty"`
	Almanac    *fileModule `toml:"almanac,omitempty" json:"almanac,omitempty"`
	Chronicle  *fileModule `toml:"chronicle,omitempty" json:"chronicle,omitempty"`
	Compute    *fileModule `toml:"compute,omitempty" json:"compute,omitempty"`
	Randomness *fileModule `toml:"randomness,omitempty" json:"randomness,omitempty"`
	Issuer     *fileIssuer `toml:"ticket-issuer,omitempty" json:"ticket-issuer,omitempty"`
	Retirement *filePolicy `toml:"retirement,omitempty" json:"retirement,omitempty"`
}

type fileRef struct {
	Role     string `toml:"role,omitempty" json:"role,omitempty"`
	StableID string `toml:"stable-id" json:"stable-id"`
	Pin      string `toml:"pin,omitempty" json:"pin,omitempty"`
}

type fileModule struct {
	Parameters   string   `toml:"parameters,omitempty" json:"parameters,omitempty"` // hex
	Measurements string   `toml:"measurements,omitempty" json:"measurements,omitempty"`
	ACL          []string `toml:"acl,omitempty" json:"acl,omitempty"`
}

type fileIssuer struct {
	Name string   `toml:"name" json:"name"`
	ACL  []string `toml:"acl,omitempty" json:"acl,omitempty"`
}

type filePolicy struct {
	Notice string `toml:"notice" json:"notice"`
	Grace  string `toml:"grace" json:"grace"`
}

// fileOf returns the canonical file of a config.
func fileOf(c *Config) *file {
	f := &file{Schema: organisms.SchemaVersion, Name: c.Name, Lattices: refsOf(c.Lattices), Organisms: refsOf(c.Organisms)}
	for i := range f.Lattices {
		f.Lattices[i].Role = "" // there is but one
	}
	f.Atlas, f.Almanac, f.Chronicle = moduleOf(c.Atlas), moduleOf(c.Almanac), moduleOf(c.Chronicle)
	f.Compute, f.Randomness = moduleOf(c.Compute), moduleOf(c.Randomness)
	if t := c.TicketIssuer; t != nil {
		f.Issuer = &fileIssuer{t.Name, idsOf(t.ACL)}
	}
	if p := c.retirement(); p != DefaultRetirement() {
		f.Retirement = &filePolicy{p.Notice.String(), p.Grace.String()}
	}
	return f
}

func refsOf(refs []organisms.Ref) (all []fileRef) {
	for i := range refs {
		r := fileRef{Role: refs[i].Role, StableID: refs[i].StableID.String()}
		if refs[i].ContentHash != nil {
			r.Pin = refs[i].ContentHash.String()
		}
		all = append(all, r)
	}
	return all
}

func moduleOf(m *Content) *fileModule {
	if m == nil {
		return nil
	}
	f := &fileModule{Parameters: hex.EncodeToString(m.Parameters), ACL: idsOf(m.ACL)}
	if m.Measurements != nil {
		f.Measurements = m.Measurements.String()
	}
	return f
}

func idsOf(acl organisms.ACL) (all []string) {
	for _, id := range acl {
		all = append(all, id.String())
	}
	return all
}

// config returns the Config that the file says. Errors are *FieldError.
func (f *file) config() (*Config, error) {
	c := &Config{Name: f.Name}
	var err error
	if c.Lattices, err = parseRefs("lattice", f.Lattices, LatticeRole); err != nil {
		return nil, err
	}
	if c.Organisms, err = parseRefs("organism", f.Organisms, ""); err != nil {
		return nil, err
	}
	for i, m := range []*fileModule{f.Atlas, f.Almanac, f.Chronicle, f.Compute, f.Randomness} {
		if m == nil {
			continue
		}
		kind := ModuleKinds()[i]
		if *c.slot(kind), err = m.content(string(kind)); err != nil {
			return nil, err
		}
	}
	if f.Issuer != nil {
		c.TicketIssuer = &TicketIssuerConfig{Name: f.Issuer.Name}
		if c.TicketIssuer.ACL, err = parseIDs("ticket-issuer.acl", f.Issuer.ACL); err != nil {
			return nil, err
		}
	}
	if f.Retirement != nil {
		if c.Retirement.Notice, err = time.ParseDuration(f.Retirement.Notice); err != nil {
			return nil, fieldError("retirement.notice", "%q is no duration such as 24h", f.Retirement.Notice)
		}
		if c.Retirement.Grace, err = time.ParseDuration(f.Retirement.Grace); err != nil {
			return nil, fieldError("retirement.grace", "%q is no duration such as 168h", f.Retirement.Grace)
		}
		if c.Retirement == (RetirementPolicy{}) {
			return nil, fieldError("retirement.notice", "notice and grace are both nothing; leave the table out for the default")
		}
	}
	return c, c.Validate()
}

func parseRefs(name string, list []fileRef, role string) (refs []organisms.Ref, err error) {
	for i, f := range list {
		at := fmt.Sprintf("%s[%d]", name, i)
		r := organisms.Ref{Role: f.Role}
		if r.Role == "" {
			r.Role = role
		}
		if r.StableID, err = parseID(at+".stable-id", f.StableID); err != nil {
			return nil, err
		}
		if f.Pin != "" {
			pin, err := parseID(at+".pin", f.Pin)
			if err != nil {
				return nil, err
			}
			r.ContentHash = &pin
		}
		refs = append(refs, r)
	}
	return refs, nil
}

func parseID(field, text string) (identity.ID, error) {
	id, err := identity.ParseID(text)
	if err != nil {
		return id, fieldError(field, "%q is not 64 lower-case hex digits: it has %d characters", text, len(text))
	}
	return id, nil
}

func parseIDs(field string, texts []string) (acl organisms.ACL, err error) {
	for _, text := range texts {
		id, err := parseID(field, text)
		if err != nil {
			return nil, err
		}
		acl = append(acl, id)
	}
	return acl, nil
}

func (f *fileModule) content(where string) (*Content, error) {
	c := new(Content)
	var err error
	if c.Parameters, err = hex.DecodeString(f.Parameters); err != nil {
		return nil, fieldError(where+".parameters", "they are not hex")
	}
	if len(c.Parameters) == 0 {
		c.Parameters = nil
	}
	if f.Measurements != "" {
		id, err := parseID(where+".measurements", f.Measurements)
		if err != nil {
			return nil, err
		}
		c.Measurements = &id
	}
	c.ACL, err = parseIDs(where+".acl", f.ACL)
	return c, err
}

// AppendTOML appends the canonical TOML of a config that Validate accepts: equal configs
// give equal text.
func (c *Config) AppendTOML(dst []byte) ([]byte, error) {
	b := bytes.NewBuffer(dst)
	e := toml.NewEncoder(b)
	e.Indent = ""
	if err := e.Encode(fileOf(c)); err != nil {
		return dst, fmt.Errorf("mosaik: coalition: %w", err)
	}
	return b.Bytes(), nil
}

// MarshalJSON returns the canonical JSON of a config, with the names of the TOML.
func (c *Config) MarshalJSON() ([]byte, error) { return json.Marshal(fileOf(c)) }

// Parsed is a config that was read from a file.
type Parsed struct {
	Config *Config
	// Unknown are fields of the file that this program does not know, such as
	// "organism.motto". They are part of no id.
	Unknown []string
}

// ParseTOML reads a config. The error is a *FieldError, with the line, or wraps
// ErrNewerSchema.
func ParseTOML(r io.Reader) (*Parsed, error) {
	text, err := readFile(r)
	if err != nil {
		return nil, err
	}
	var f file
	meta, err := toml.Decode(text, &f)
	if at := (toml.ParseError{}); errors.As(err, &at) {
		return nil, &FieldError{Field: at.LastKey, Line: at.Position.Line, Err: errors.New(at.Message)}
	}
	if err != nil {
		return nil, &FieldError{Field: "file", Err: err}
	}
	p := new(Parsed)
	for _, key := range meta.Undecoded() {
		if name := key.String(); !slices.Contains(p.Unknown, name) {
			p.Unknown = append(p.Unknown, name)
		}
	}
	if p.Config, err = f.parsed(); err != nil {
		return nil, withLine(err, text)
	}
	return p, nil
}

// ParseJSON reads a config. The error is a *FieldError or wraps ErrNewerSchema.
func ParseJSON(r io.Reader) (*Parsed, error) {
	text, err := readFile(r)
	if err != nil {
		return nil, err
	}
	var f file
	if err := json.Unmarshal([]byte(text), &f); err != nil {
		return nil, &FieldError{Field: "file", Err: err}
	}
	p := new(Parsed)
	p.Config, err = f.parsed()
	if err != nil {
		return nil, err
	}
	return p, nil
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

func (f *file) parsed() (*Config, error) {
	switch {
	case f.Schema == 0:
		return nil, fieldError("schema", "it is missing; this program knows %d", organisms.SchemaVersion)
	case f.Schema > organisms.SchemaVersion:
		return nil, fmt.Errorf("%w: schema %d, this program knows %d", ErrNewerSchema, f.Schema, organisms.SchemaVersion)
	case f.Schema < 0:
		return nil, fieldError("schema", "%d is none", f.Schema)
	}
	return f.config()
}

// withLine adds to a FieldError the line of its field.
func withLine(err error, text string) error {
	var bad *FieldError
	if errors.As(err, &bad) {
		bad.Line = lineOf(text, bad.Field)
	}
	return err
}

// lineOf finds the line of a field such as "organism[2].pin" in a file that has been
// decoded: that of the key, or else of its table, or 0.
func lineOf(text, field string) int {
	table, key, inTable := strings.Cut(field, ".")
	index := 0
	if name, rest, listed := strings.Cut(table, "["); listed {
		table = name
		index, _ = strconv.Atoi(strings.TrimSuffix(rest, "]")) // written by this package
	} else if !inTable {
		table, key = "", field
	}
	at, within, seen := 0, table == "", -1
	number := 0
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			header := strings.Trim(strings.SplitN(line, "#", 2)[0], "[] \t")
			if within = header == table; within {
				if seen++; seen != index {
					within = false
				}
			}
			if within {
				at = number
			}
			continue
		}
		if name, _, ok := strings.Cut(line, "="); ok && within && strings.Trim(name, " \t\"'") == key {
			return number
		}
	}
	return at
}
