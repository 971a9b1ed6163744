package coalition

import (
	"fmt"
	"strconv"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/organisms"
)

// LatticeRole is the role under which a lattice is referred to.
const LatticeRole = "lattice"

// LatticeOrganisms returns the names of the six organisms of a lattice, in the order of
// its id.
func LatticeOrganisms() []string {
	return []string{"zipnet", "unseal", "offer", "atelier", "relay", "tally"}
}

// Content is what an organism without a name of its own has beside its root.
type Content struct {
	Parameters   []byte        // in the canonical encoding of its kind
	Measurements *identity.ID  // as of organisms.Config
	ACL          organisms.ACL // likewise
}

// hash returns the content hash of the organism of a role that is derived from a root.
func (c *Content) hash(role string, root identity.ID) identity.ID {
	o := organisms.Config{Role: role, Parameters: c.Parameters, Measurements: c.Measurements, ACL: c.ACL}
	return o.Fingerprint(root[:])
}

func (c *Content) validate(where string) error {
	switch {
	case len(c.Parameters) > organisms.MaxParameters:
		return fieldError(where+".parameters", "%d bytes, the limit is %d", len(c.Parameters), organisms.MaxParameters)
	case len(c.ACL) > organisms.MaxClauses:
		return fieldError(where+".acl", "%d clauses, the limit is %d", len(c.ACL), organisms.MaxClauses)
	case c.Measurements != nil && c.Measurements.IsZero():
		return fieldError(where+".measurements", "the signature is zero; leave it out if nothing is asked")
	}
	return nil
}

// LatticeConfig is a lattice: six organisms that build the blocks of a chain together.
type LatticeConfig struct {
	Name    string // such as "ethereum.mainnet"
	ChainID uint64 // EIP-155
	// The organisms.
	Zipnet, Unseal, Offer, Atelier, Relay, Tally Content
}

// Validate checks the config. The error is a *FieldError.
func (l *LatticeConfig) Validate() error {
	if err := identity.ValidateName(l.Name); err != nil {
		return fieldError("name", "%w", err)
	}
	for i, c := range l.contents() {
		if err := c.validate(LatticeOrganisms()[i]); err != nil {
			return err
		}
	}
	return nil
}

func (l *LatticeConfig) contents() []*Content {
	return []*Content{&l.Zipnet, &l.Unseal, &l.Offer, &l.Atelier, &l.Relay, &l.Tally}
}

// StableID returns the id that names the lattice.
func (l *LatticeConfig) StableID() identity.ID { return organisms.StableID(l.Name) }

// Root returns LATTICE, from which the ids of its organisms are derived.
func (l *LatticeConfig) Root() identity.ID {
	return identity.FromParts([]byte("builder|"), []byte(l.Name), []byte("|chain="), strconv.AppendUint(nil, l.ChainID, 10))
}

// OrganismRoot returns the root of one of its organisms, by name.
func (l *LatticeConfig) OrganismRoot(name string) identity.ID { return l.Root().Derive(name) }

// ID returns the lattice id, which folds every field.
func (l *LatticeConfig) ID() identity.ID {
	root := l.Root()
	parts := [][]byte{[]byte("lattice-id|"), {organisms.SchemaVersion}, root[:]}
	for i, c := range l.contents() {
		name := LatticeOrganisms()[i]
		hash := c.hash(name, l.OrganismRoot(name))
		parts = append(parts, hash[:])
	}
	return identity.FromParts(parts...)
}

// Ref returns a reference to the lattice, pinned to this very config if pinned.
func (l *LatticeConfig) Ref(pinned bool) organisms.Ref {
	r := organisms.Ref{Role: LatticeRole, StableID: l.StableID()}
	if pinned {
		id := l.ID()
		r.ContentHash = &id
	}
	return r
}

// FieldError says which field of a config cannot be, and why.
type FieldError struct {
	Field string // such as "organism[2].stable-id"
	Line  int    // of the file it was read from; 0: it was not
	Err   error
}

// Error names the line and the field.
func (e *FieldError) Error() string {
	where := e.Field
	if e.Line > 0 {
		where = fmt.Sprintf("line %d: %s", e.Line, e.Field)
	}
	return fmt.Sprintf("mosaik: bad coalition config: %s: %v", where, e.Err)
}

// Unwrap returns the cause.
func (e *FieldError) Unwrap() error { return e.Err }

func fieldError(field, format string, args ...any) error {
	return &FieldError{Field: field, Err: fmt.Errorf(format, args...)}
}
