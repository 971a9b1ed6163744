package coalition

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/organisms"
)

// MaxMembers bounds the lattices and organisms of a coalition, together.
const MaxMembers = 100_000

// ModuleKind is one of the five basic services.
type ModuleKind string

// The basic services. A coalition may have any of them or none.
const (
	Atlas      ModuleKind = "atlas"
	Almanac    ModuleKind = "almanac"
	Chronicle  ModuleKind = "chronicle"
	Compute    ModuleKind = "compute"
	Randomness ModuleKind = "randomness"
)

// ModuleKinds returns the five, in the order of the coalition id.
func ModuleKinds() []ModuleKind {
	return []ModuleKind{Atlas, Almanac, Chronicle, Compute, Randomness}
}

// Config is a coalition. It is a value: whoever changes one has another coalition.
type Config struct {
	// Name is what it is called: short, namespaced, such as "signals.euro-fx". It is folded
	// into every id, so a typo is another coalition.
	Name string
	// Lattices and Organisms are its members, in an order that counts. Nobody has asked
	// them. Lattices are referred to under LatticeRole.
	Lattices, Organisms []organisms.Ref
	// The basic services it runs; nil: it has none of the kind.
	Atlas, Almanac, Chronicle, Compute, Randomness *Content
	// TicketIssuer issues tickets in its name; nil: nobody does.
	TicketIssuer *TicketIssuerConfig
	// Retirement is what it promises about the end of its parts. The zero value means
	// DefaultRetirement.
	Retirement RetirementPolicy
}

// TicketIssuerConfig is who issues tickets in a coalition's name.
type TicketIssuerConfig struct {
	Name string        // its role or name
	ACL  organisms.ACL // who may issue
}

// Fingerprint returns what of it is folded into the coalition.
func (t *TicketIssuerConfig) Fingerprint() identity.ID {
	size := binary.LittleEndian.AppendUint32(nil, uint32(len(t.Name)))
	acl := t.ACL.Hash()
	return identity.FromParts([]byte("ticket-issuer|"), []byte{organisms.SchemaVersion, '|'}, size, []byte(t.Name), acl[:])
}

// RetirementPolicy is how the end of a part is announced. Both are whole milliseconds.
type RetirementPolicy struct {
	Notice time.Duration // from the announcement to the marker
	Grace  time.Duration // for which a retired part is still to be read
}

// DefaultRetirement is 24 hours of notice and 7 days of grace.
func DefaultRetirement() RetirementPolicy {
	return RetirementPolicy{Notice: 24 * time.Hour, Grace: 7 * 24 * time.Hour}
}

// Fingerprint returns what of it is folded into the coalition id.
func (p RetirementPolicy) Fingerprint() identity.ID {
	b := append([]byte("retirement-policy|"), organisms.SchemaVersion)
	b = binary.LittleEndian.AppendUint64(b, uint64(p.Notice.Milliseconds()))
	return identity.FromParts(binary.LittleEndian.AppendUint64(b, uint64(p.Grace.Milliseconds())))
}

// retirement returns the policy in effect.
func (c *Config) retirement() RetirementPolicy {
	if c.Retirement == (RetirementPolicy{}) {
		return DefaultRetirement()
	}
	return c.Retirement
}

// Validate checks the config. The error is a *FieldError.
func (c *Config) Validate() error {
	if err := identity.ValidateName(c.Name); err != nil {
		return fieldError("name", "%w", err)
	}
	if n := len(c.Lattices) + len(c.Organisms); n > MaxMembers {
		return fieldError("organism", "%d members, the limit is %d", n, MaxMembers)
	}
	seen := make(map[identity.ID]string, len(c.Lattices)+len(c.Organisms))
	for _, list := range []struct {
		name string
		refs []organisms.Ref
	}{{"lattice", c.Lattices}, {"organism", c.Organisms}} {
		for i := range list.refs {
			r := &list.refs[i]
			at := fmt.Sprintf("%s[%d]", list.name, i)
			if err := identity.ValidateName(r.Role); err != nil {
				return fieldError(at+".role", "%w", err)
			}
			if lattice := list.name == "lattice"; lattice != (r.Role == LatticeRole) {
				return fieldError(at+".role", "it is %q; lattices, and only they, have the role %q", r.Role, LatticeRole)
			}
			if r.StableID.IsZero() {
				return fieldError(at+".stable-id", "it is missing; its operator publishes it")
			}
			if r.ContentHash != nil && r.ContentHash.IsZero() {
				return fieldError(at+".pin", "it is zero; leave it out to follow the member's rotations")
			}
			if before, twice := seen[r.StableID]; twice {
				return fieldError(at+".stable-id", "it is that of %s already", before)
			}
			seen[r.StableID] = at
		}
	}
	for _, kind := range ModuleKinds() {
		if m := c.module(kind); m != nil {
			if err := m.validate(string(kind)); err != nil {
				return err
			}
		}
	}
	if t := c.TicketIssuer; t != nil {
		if err := identity.ValidateName(t.Name); err != nil {
			return fieldError("ticket-issuer.name", "%w", err)
		}
		if len(t.ACL) > organisms.MaxClauses {
			return fieldError("ticket-issuer.acl", "%d clauses, the limit is %d", len(t.ACL), organisms.MaxClauses)
		}
	}
	for name, d := range map[string]time.Duration{"retirement.notice": c.Retirement.Notice, "retirement.grace": c.Retirement.Grace} {
		if d < 0 || d%time.Millisecond != 0 {
			return fieldError(name, "%v is no whole number of milliseconds from 0", d)
		}
	}
	return nil
}

// slot returns the place of a module; nil: there is no such kind.
func (c *Config) slot(kind ModuleKind) **Content {
	switch kind {
	case Atlas:
		return &c.Atlas
	case Almanac:
		return &c.Almanac
	case Chronicle:
		return &c.Chronicle
	case Compute:
		return &c.Compute
	case Randomness:
		return &c.Randomness
	}
	return nil
}

// module returns a module; nil: there is none of the kind.
func (c *Config) module(kind ModuleKind) *Content {
	if slot := c.slot(kind); slot != nil {
		return *slot
	}
	return nil
}

// Seed returns COALITION, the hash of the name.
func (c *Config) Seed() identity.ID {
	return identity.FromParts([]byte("coalition|"), []byte{organisms.SchemaVersion, '|'}, []byte(c.Name))
}

// Root returns COALITION_ROOT, from which the ids of modules and tickets are derived.
func (c *Config) Root() identity.ID {
	seed := c.Seed()
	b := append(make([]byte, 0, (2+len(c.Lattices)+len(c.Organisms))*identity.Size), seed[:]...)
	for i := range c.Lattices {
		b = append(b, c.Lattices[i].StableID[:]...)
	}
	for i := range c.Organisms {
		b = append(b, c.Organisms[i].StableID[:]...)
	}
	if c.TicketIssuer != nil {
		fingerprint := c.TicketIssuer.Fingerprint()
		b = append(b, fingerprint[:]...)
	}
	return identity.FromParts(b)
}

// ID returns the coalition id: the fingerprint of everything, which integrators
// compare.
func (c *Config) ID() identity.ID {
	root := c.Root()
	b := append([]byte("coalition-id|"), organisms.SchemaVersion)
	b = append(b, root[:]...)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(c.Lattices)))
	for i := range c.Lattices {
		b = append(b, c.Lattices[i].StableID[:]...)
		b = organisms.AppendPin(b, c.Lattices[i].ContentHash)
	}
	b = binary.LittleEndian.AppendUint32(b, uint32(len(c.Organisms)))
	for i := range c.Organisms {
		r := &c.Organisms[i]
		b = append(binary.LittleEndian.AppendUint32(b, uint32(len(r.Role))), r.Role...)
		b = append(b, r.StableID[:]...)
		b = organisms.AppendPin(b, r.ContentHash)
	}
	for _, kind := range ModuleKinds() {
		b = organisms.AppendPin(b, c.moduleHash(root, kind))
	}
	var issuer *identity.ID
	if c.TicketIssuer != nil {
		fingerprint := c.TicketIssuer.Fingerprint()
		issuer = &fingerprint
	}
	policy := c.retirement().Fingerprint()
	return identity.FromParts(organisms.AppendPin(organisms.AppendPin(b, issuer), &policy))
}

// moduleHash returns a module's content hash; nil: there is none.
func (c *Config) moduleHash(root identity.ID, kind ModuleKind) *identity.ID {
	m := c.module(kind)
	if m == nil {
		return nil
	}
	hash := m.hash(string(kind), moduleRoot(root, kind))
	return &hash
}

func moduleRoot(root identity.ID, kind ModuleKind) identity.ID {
	return root.Derive("module").Derive(string(kind))
}

// Errors of a coalition's parts.
var (
	// ErrNoModule says that a coalition does not have a module of the kind. That is no
	// fault: no module is a condition of anything.
	ErrNoModule = errors.New("mosaik: the coalition has no such module")
	// ErrNoIssuer says that a coalition issues no tickets.
	ErrNoIssuer = errors.New("mosaik: the coalition has no ticket issuer")
)

// Module returns a reference to one of the coalition's modules, by its root-derived
// stable id and pinned to its content. ErrNoModule: there is none of the kind.
func (c *Config) Module(kind ModuleKind) (organisms.Ref, error) {
	root := c.Root()
	hash := c.moduleHash(root, kind)
	if hash == nil {
		return organisms.Ref{}, fmt.Errorf("%w: %s has no %s", ErrNoModule, c.Name, kind)
	}
	return organisms.Ref{Role: string(kind), StableID: moduleRoot(root, kind), ContentHash: hash}, nil
}

// TicketsRoot returns TICKETS_ROOT, by which tickets in the coalition's name are told
// (identity.RecogniseIssuer). ErrNoIssuer: it issues none.
func (c *Config) TicketsRoot() (identity.ID, error) {
	if c.TicketIssuer == nil {
		return identity.ID{}, fmt.Errorf("%w: %s", ErrNoIssuer, c.Name)
	}
	return c.Root().Derive("tickets"), nil
}
