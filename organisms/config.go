package organisms

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/mosaik-engine/mosaik/identity"
)

// SchemaVersion is the version of all preimages, their first byte after the domain. A
// breaking change of a schema changes every id.
const SchemaVersion = 1

// Universe is the network that every organism, lattice and coalition lives on.
func Universe() identity.ID { return identity.NewID("mosaik.universe") }

// Limits of a Config.
const (
	// MaxMembers bounds the members of a composite.
	MaxMembers = 10_000
	// MaxParameters bounds the parameters, in bytes.
	MaxParameters = 1 << 20
	// MaxClauses bounds the clauses of an ACL.
	MaxClauses = 16
)

// ErrConfig says that a config cannot be. The error names the field and the limit.
var ErrConfig = errors.New("mosaik: bad organism config")

// Ref refers to an organism, or to a lattice, without its knowledge and without any
// claim on it.
type Ref struct {
	Role     string      // what it is to who refers to it, such as "oracle"
	StableID identity.ID // as its operator has published it; never computed by others
	// ContentHash pins one revision. Nil: the reference follows its rotations.
	ContentHash *identity.ID
}

// MemberIDSize is the size of a MemberID.
const MemberIDSize = 20

// MemberID is the key of a member in commits that are about several: the first 20 bytes
// of its stable id.
type MemberID [MemberIDSize]byte

// MemberID returns the key under which commits name the member.
func (r *Ref) MemberID() MemberID { return MemberID(r.StableID[:MemberIDSize]) }

// Validate checks a reference. The error wraps ErrConfig.
func (r *Ref) Validate() error {
	if err := identity.ValidateName(r.Role); err != nil {
		return fmt.Errorf("%w: role: %w", ErrConfig, err)
	}
	if r.StableID.IsZero() {
		return fmt.Errorf("%w: stable id: it is zero", ErrConfig)
	}
	if r.ContentHash != nil && r.ContentHash.IsZero() {
		return fmt.Errorf("%w: content hash: it is zero; leave it out for a reference that follows rotations", ErrConfig)
	}
	return nil
}

// ACL says who may write to an organism: whose entry fulfils all of its clauses. Only
// their signatures stand here; they are computed from the same clauses everywhere.
type ACL []identity.ID

// ACLOf returns the ACL of clauses, in their order.
func ACLOf(clauses ...identity.Clause) ACL {
	var acl ACL
	for _, c := range clauses {
		acl = append(acl, c.Signature())
	}
	return acl
}

// Hash returns what of the ACL is folded into ids.
func (a ACL) Hash() identity.ID {
	id := identity.NewID("mosaik.acl.v1")
	for _, signature := range a {
		id = id.DeriveID(signature)
	}
	return id
}

// Config is what an organism is. It is a value: whoever changes one has another.
type Config struct {
	// Role is what kind of organism it is, such as "oracle".
	Role string
	// InstanceName names it, such as "oracle-γ.oracle".
	InstanceName string
	// Members are what it is composed of, in order; a composite has two or more.
	Members []Ref
	// Parameters are what its machine depends on, in the canonical encoding of its role.
	Parameters []byte
	// Measurements is the signature of what its members' machines must run
	// (tdx.Criteria.Signature). Nil: nothing is asked.
	Measurements *identity.ID
	// ACL says who may write to it.
	ACL ACL
}

// Validate checks the config. The error wraps ErrConfig and names the field.
func (c *Config) Validate() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: "+format, append([]any{ErrConfig}, args...)...)
	}
	if err := identity.ValidateName(c.Role); err != nil {
		return bad("role: %w", err)
	}
	if err := identity.ValidateName(c.InstanceName); err != nil {
		return bad("instance name: %w", err)
	}
	switch {
	case len(c.Members) == 1:
		return bad("members: 1; a composite has two or more, a simple organism none")
	case len(c.Members) > MaxMembers:
		return bad("members: %d, the limit is %d", len(c.Members), MaxMembers)
	case len(c.Parameters) > MaxParameters:
		return bad("parameters: %d bytes, the limit is %d", len(c.Parameters), MaxParameters)
	case len(c.ACL) > MaxClauses:
		return bad("acl: %d clauses, the limit is %d", len(c.ACL), MaxClauses)
	case c.Measurements != nil && c.Measurements.IsZero():
		return bad("measurements: the signature is zero; leave it out if nothing is asked")
	}
	seen := make(map[identity.ID]int, len(c.Members))
	for i := range c.Members {
		if err := c.Members[i].Validate(); err != nil {
			return fmt.Errorf("member %d: %w", i, err)
		}
		if before, twice := seen[c.Members[i].StableID]; twice {
			return bad("members: %d and %d have the same stable id", before, i)
		}
		seen[c.Members[i].StableID] = i
	}
	return nil
}

// StableID returns the id that names the organism.
func (c *Config) StableID() identity.ID { return StableID(c.InstanceName) }

// StableID returns the stable id of the organism or lattice with an instance name:
// H("instance|" || name || "|" || universe).
func StableID(instanceName string) identity.ID {
	universe := Universe()
	return identity.FromParts([]byte("instance|"), []byte(instanceName), []byte("|"), universe[:])
}

// ContentHash returns the fingerprint of the whole policy (package comment). It is
// defined for configs that Validate accepts.
func (c *Config) ContentHash() identity.ID { return c.Fingerprint([]byte(c.InstanceName)) }

// Fingerprint is ContentHash with something else in the place of the name: a module of a
// coalition and an organism of a lattice have no name of their own, but the root that they
// are derived from.
func (c *Config) Fingerprint(name []byte) identity.ID {
	return identity.FromParts(c.preimage(name))
}

// preimage is what the content hash is the hash of.
func (c *Config) preimage(name []byte) []byte {
	b := append([]byte("organism|"), SchemaVersion, '|')
	b = appendSized(b, []byte(c.Role))
	b = appendSized(b, name)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(c.Members)))
	for i := range c.Members {
		b = append(b, c.Members[i].StableID[:]...)
		b = AppendPin(b, c.Members[i].ContentHash)
	}
	b = appendSized(b, c.Parameters)
	b = AppendPin(b, c.Measurements)
	acl := c.ACL.Hash()
	return append(b, acl[:]...)
}

// AppendPin appends an id that may be absent: 0x00, or 0x01 and the id.
func AppendPin(dst []byte, pin *identity.ID) []byte {
	if pin == nil {
		return append(dst, 0)
	}
	return append(append(dst, 1), pin[:]...)
}

// appendSized appends the length of b, 4 bytes little-endian, and b.
func appendSized(dst, b []byte) []byte {
	return append(binary.LittleEndian.AppendUint32(dst, uint32(len(b))), b...)
}

// Ref returns a reference to the organism, pinned to this very config if pinned.
func (c *Config) Ref(pinned bool) Ref {
	r := Ref{Role: c.Role, StableID: c.StableID()}
	if pinned {
		hash := c.ContentHash()
		r.ContentHash = &hash
	}
	return r
}

// StreamID returns the id of one of its streams or collections, which is the key of its
// log.
func (c *Config) StreamID(name string) identity.ID { return c.StableID().Derive(name) }

// GroupName returns the name of its group (engine.Options.Named): the stable id in hex.
func (c *Config) GroupName() string { return c.StableID().String() }

// Composite reports whether it is composed of others.
func (c *Config) Composite() bool { return len(c.Members) >= 2 }

// Threshold returns how many of n members make a quorum by default: ⌈(n+1)/2⌉.
func Threshold(n int) int { return (n + 2) / 2 }

// Society reports whether members make a society: three or more, of which at least one
// is composed of two or more of the others.
func Society(members []Config) bool {
	if len(members) < 3 {
		return false
	}
	ids := make([]identity.ID, len(members))
	for i := range members {
		ids[i] = members[i].StableID()
	}
	for i := range members {
		folded := 0
		for _, m := range members[i].Members {
			if m.StableID != ids[i] && slices.Contains(ids, m.StableID) {
				folded++
			}
		}
		if folded >= 2 {
			return true
		}
	}
	return false
}
