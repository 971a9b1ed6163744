package organisms

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/organisms/wire"
)

// Machine is what an organism does with its commits. It folds the commits of one
// primitive into a view, by the rules of log.Machine: deterministic, no state but the view,
// no panic whatever the bytes are.
type Machine interface {
	// Signature names the machine and its version, such as "mosaik.oracle.v1".
	Signature() string
	// Apply folds one commit into the view and returns its result. A commit that the
	// machine does not take must leave the view as it was, and say so in its result. Keys
	// of rows must not begin with 0x00: those are the frame's. Errors are those of tx.
	Apply(tx *log.Tx, c *Commit) (result []byte, err error)
}

// Commit is a commit of an organism, as its machine and its readers get it.
type Commit struct {
	// Parameters are those of the revision it was made under. Machines get them; readers
	// do not.
	Parameters []byte
	// Evidence is what it was made from.
	Evidence []Evidence
	// Body is the commit itself, in the encoding of the organism. It must not be changed
	// or kept.
	Body []byte

	// Seq is its number in its primitive, where revisions and what was refused have numbers
	// as well; Commit that of the commit of the group; Time is that of it, Unix nanoseconds.
	Seq    uint64
	Commit uint64
	Time   int64
}

// Primitive is a stream or a store of an organism: a key's log, folded by a machine.
type Primitive struct {
	// Name is what it is called, such as "ticks".
	Name string
	// Key derives the key of its log from the organism's stable id. Nil:
	// StableID.Derive(Name) (Config.StreamID).
	Key func(stableID identity.ID) identity.ID
	// Machine folds it. Nil: its commits are a stream, and nothing is folded.
	Machine Machine
}

func (p *Primitive) key(stableID identity.ID) identity.ID {
	if p.Key == nil {
		return stableID.Derive(p.Name)
	}
	return p.Key(stableID)
}

func (p *Primitive) machine() Machine {
	if p.Machine == nil {
		return streamMachine{}
	}
	return p.Machine
}

// streamMachine folds nothing: every commit is taken.
type streamMachine struct{}

func (streamMachine) Signature() string                      { return "mosaik.stream.v1" }
func (streamMachine) Apply(*log.Tx, *Commit) ([]byte, error) { return nil, nil }

// Definition is what organisms of a role are made of.
type Definition struct {
	// Role is the Config.Role of organisms of this kind.
	Role string
	// Surface are the primitives that can be reached from outside, one or more.
	Surface []Primitive
	// Inner are those that cannot.
	Inner []Primitive
}

// Machines returns what the nodes of the organism's group need (engine.Options.Machines).
// Several organisms of one node may share machines; engines want each once.
func (d *Definition) Machines() []log.Machine {
	var machines []log.Machine
	for _, p := range d.primitives() {
		m := frame{p.machine()}
		if !slices.ContainsFunc(machines, func(other log.Machine) bool { return other.Signature() == m.Signature() }) {
			machines = append(machines, m)
		}
	}
	return machines
}

func (d *Definition) primitives() []Primitive { return append(slices.Clone(d.Surface), d.Inner...) }

// PublicKeys returns the keys of what can be reached from outside: what a node lets guests
// read of an organism (remote.Rule.Allow), and nothing else. The slice is the caller's.
func (d *Definition) PublicKeys(stableID identity.ID) []identity.ID {
	keys := make([]identity.ID, len(d.Surface))
	for i := range d.Surface {
		keys[i] = d.Surface[i].key(stableID)
	}
	return keys
}

// ErrOffSurface says that somebody wants of an organism what is not on its surface.
var ErrOffSurface = errors.New("mosaik: not on the organism's surface")

// primitive returns the primitive of a name; nil: there is none.
func (d *Definition) primitive(name string) *Primitive {
	for _, p := range d.primitives() {
		if p.Name == name {
			return &p
		}
	}
	return nil
}

// surface returns the primitive of a name, if it can be reached from outside.
func (d *Definition) surface(name string) (*Primitive, error) {
	names := make([]string, len(d.Surface))
	for i := range d.Surface {
		if d.Surface[i].Name == name {
			return &d.Surface[i], nil
		}
		names[i] = d.Surface[i].Name
	}
	return nil, fmt.Errorf("%w: %q; there is %s", ErrOffSurface, name, strings.Join(names, ", "))
}

// What a record of an organism is.
const (
	recordCommit   = 1
	recordRetire   = 2
	recordRevision = 3
)

// Why the frame refuses a record: the second byte of its result, whose first is 0. A
// result that begins with 1 is the machine's own.
const (
	refused = 0
	taken   = 1

	refusedMalformed = 1
	refusedRetired   = 2
	refusedUnopened  = 3
	refusedOther     = 4
)

// Rows of the frame.
var (
	revisionRow = []byte{0, 1} // the preimage of the content hash in force
	markerRow   = []byte{0, 2} // the retirement marker
)

// appendCommit appends the record of a commit.
func appendCommit(dst []byte, body []byte, evidence []Evidence) ([]byte, error) {
	if len(evidence) > MaxEvidence {
		return nil, fmt.Errorf("%w: %d pieces, the limit is %d", ErrEvidence, len(evidence), MaxEvidence)
	}
	dst = binary.AppendUvarint(append(dst, recordCommit), uint64(len(evidence)))
	for i := range evidence {
		if err := evidence[i].Validate(); err != nil {
			return nil, err
		}
		dst = evidence[i].appendTo(dst)
	}
	return append(dst, body...), nil
}

var errRecord = errors.New("mosaik: malformed record of an organism")

// decodeCommit decodes what follows the kind of a commit's record.
func decodeCommit(b []byte) (c Commit, err error) {
	n, size := binary.Uvarint(b)
	if size <= 0 || size > 1 && n>>(7*(size-1)) == 0 || n > MaxEvidence {
		return c, errRecord
	}
	fields := wire.NewCutter(b[size:], errRecord)
	c.Evidence = CutEvidence(&fields, int(n))
	c.Body = fields.Rest()
	return c, fields.End()
}

// appendMarker appends the record of a retirement; its instant is that of its commit.
func appendMarker(dst []byte, m *RetirementMarker) []byte {
	dst = append(append(dst, recordRetire), m.Component[:]...)
	dst = append(append(dst, byte(len(m.Reason))), m.Reason...)
	if m.Replacement == nil {
		return append(dst, 0)
	}
	dst = append(append(dst, 1), m.Replacement.StableID[:]...)
	dst = AppendPin(dst, m.Replacement.ContentHash)
	return append(dst, m.Replacement.Role...)
}

// decodeMarker decodes what follows the kind of a retirement's record.
func decodeMarker(b []byte) (m RetirementMarker, err error) {
	take := func(n int) []byte {
		if n > len(b) {
			err = errRecord
			return make([]byte, n)
		}
		piece := b[:n]
		b = b[n:]
		return piece
	}
	m.Component = identity.ID(take(identity.Size))
	m.Reason = RetirementReason(take(int(take(1)[0])))
	switch take(1)[0] {
	case 0:
	case 1:
		m.Replacement = &Ref{StableID: identity.ID(take(identity.Size))}
		switch take(1)[0] {
		case 0:
		case 1:
			hash := identity.ID(take(identity.Size))
			m.Replacement.ContentHash = &hash
		default:
			err = errRecord
		}
		m.Replacement.Role = string(take(len(b)))
	default:
		err = errRecord
	}
	if err == nil && len(b) > 0 {
		err = errRecord
	}
	if err != nil {
		return RetirementMarker{}, err
	}
	return m, m.Validate()
}

// revision is the part of a content hash's preimage that is needed without the config.
type revision struct {
	role, name string
	parameters []byte
}

// parseRevision reads a preimage. It accepts only what Config.preimage can have written.
func parseRevision(b []byte) (r revision, err error) {
	all := b
	take := func(n int) []byte {
		if err != nil || n > len(b) {
			err = errRecord
			return nil
		}
		piece := b[:n]
		b = b[n:]
		return piece
	}
	sized := func(limit int) []byte {
		n := take(4)
		if n == nil || binary.LittleEndian.Uint32(n) > uint32(limit) {
			err = errRecord
			return nil
		}
		return take(int(binary.LittleEndian.Uint32(n)))
	}
	pin := func() {
		if flag := take(1); flag != nil && flag[0] == 1 {
			take(identity.Size)
		} else if flag != nil && flag[0] != 0 {
			err = errRecord
		}
	}
	prefix := append([]byte("organism|"), SchemaVersion, '|')
	if string(take(len(prefix))) != string(prefix) {
		return r, errRecord
	}
	r.role, r.name = string(sized(identity.MaxName)), string(sized(identity.MaxName))
	members := take(4)
	if members == nil || binary.LittleEndian.Uint32(members) > MaxMembers {
		return r, errRecord
	}
	for range binary.LittleEndian.Uint32(members) {
		take(identity.Size)
		pin()
	}
	r.parameters = sized(MaxParameters)
	pin()
	take(identity.Size)
	if err == nil && len(b) > 0 || len(all) > log.MaxRowValue {
		err = errRecord
	}
	return r, err
}

// frame is the machine around that of a primitive: it knows which revision is in force,
// and that nothing comes after a retirement.
type frame struct{ inner Machine }

// framePrefix begins the signature of a framed machine.
const framePrefix = "mosaik.organism.v1/"

// Signature implements log.Machine.
func (f frame) Signature() string { return framePrefix + f.inner.Signature() }

// Apply implements log.Machine.
func (f frame) Apply(tx *log.Tx, c log.Command) ([]byte, error) {
	refuse := func(why byte) ([]byte, error) { return []byte{refused, why}, nil }
	if len(c.Payload) == 0 {
		return refuse(refusedMalformed)
	}
	if _, retired, err := tx.Get(markerRow); err != nil {
		return nil, err
	} else if retired {
		return refuse(refusedRetired)
	}
	row, opened, err := tx.Get(revisionRow)
	if err != nil {
		return nil, err
	}
	var now revision
	if opened {
		if now, err = parseRevision(row.Value); err != nil {
			return nil, err // written by nobody but this machine
		}
	}
	rest := c.Payload[1:]
	switch kind := c.Payload[0]; {
	case kind == recordRevision:
		next, err := parseRevision(rest)
		switch {
		case err != nil:
			return refuse(refusedMalformed)
		case opened && (next.name != now.name || next.role != now.role):
			return refuse(refusedOther)
		}
		return []byte{taken}, tx.Set(revisionRow, rest)
	case !opened:
		return refuse(refusedUnopened)
	case kind == recordRetire:
		m, err := decodeMarker(rest)
		switch {
		case err != nil:
			return refuse(refusedMalformed)
		case m.Component != StableID(now.name):
			return refuse(refusedOther)
		}
		m.Instant = RetirementInstant{Commit: c.Commit, UnixMs: uint64(c.Time / 1e6)}
		return []byte{taken}, tx.Set(markerRow, appendStoredMarker(nil, &m))
	case kind == recordCommit:
		commit, err := decodeCommit(rest)
		if err != nil {
			return refuse(refusedMalformed)
		}
		commit.Parameters, commit.Seq, commit.Commit, commit.Time = now.parameters, c.Seq, c.Commit, c.Time
		result, err := f.inner.Apply(tx, &commit)
		return append([]byte{taken}, result...), err
	}
	return refuse(refusedMalformed)
}

// appendStoredMarker appends a marker as it stands in a row: its instant, and the record
// without its kind.
func appendStoredMarker(dst []byte, m *RetirementMarker) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, m.Instant.Commit)
	dst = binary.LittleEndian.AppendUint64(dst, m.Instant.UnixMs)
	return append(dst, appendMarker(nil, m)[1:]...)
}

func decodeStoredMarker(b []byte) (RetirementMarker, error) {
	if len(b) < 16 {
		return RetirementMarker{}, errRecord
	}
	m, err := decodeMarker(b[16:])
	m.Instant = RetirementInstant{Commit: binary.LittleEndian.Uint64(b), UnixMs: binary.LittleEndian.Uint64(b[8:])}
	return m, err
}
