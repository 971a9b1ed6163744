package tdx

import (
	"bytes"

	"github.com/mosaik-engine/mosaik/identity"
)

// Criteria say what the registers of a TD must hold. A nil field asks for nothing,
// so the zero Criteria fit every TD.
type Criteria struct {
	// The registers of [Measurements].
	MRTD          *Measurement    `json:"mrtd,omitempty"`
	RTMR          [4]*Measurement `json:"rtmr,omitzero"`
	MRConfigID    *Measurement    `json:"mr_config_id,omitempty"`
	MROwner       *Measurement    `json:"mr_owner,omitempty"`
	MROwnerConfig *Measurement    `json:"mr_owner_config,omitempty"`
}

// Exactly returns criteria for the MRTD and RTMRs of m: what the Rust runtime makes
// of measurements. The values that an owner chooses at launch are left open.
func Exactly(m Measurements) Criteria {
	c := Criteria{MRTD: &m.MRTD}
	for i := range m.RTMR {
		c.RTMR[i] = &m.RTMR[i]
	}
	return c
}

// register is one field of criteria beside the value that a TD has in it.
type register struct {
	name string
	want *Measurement
	got  *Measurement
}

func (c *Criteria) registers(m *Measurements) [8]register {
	return [8]register{
		{"mrtd", c.MRTD, &m.MRTD},
		{"rtmr0", c.RTMR[0], &m.RTMR[0]},
		{"rtmr1", c.RTMR[1], &m.RTMR[1]},
		{"rtmr2", c.RTMR[2], &m.RTMR[2]},
		{"rtmr3", c.RTMR[3], &m.RTMR[3]},
		{"mr_config_id", c.MRConfigID, &m.MRConfigID},
		{"mr_owner", c.MROwner, &m.MROwner},
		{"mr_owner_config", c.MROwnerConfig, &m.MROwnerConfig},
	}
}

// Match returns a reason for every register that does not hold what is asked, in
// the order of [Measurements]; none: m fits.
func (c *Criteria) Match(m *Measurements) []Reason {
	var reasons []Reason
	for _, r := range c.registers(m) {
		if r.want != nil && *r.want != *r.got {
			reasons = append(reasons, Reason{Field: r.name, Got: r.got.String(), Want: r.want.String()})
		}
	}
	return reasons
}

// criteriaClass is the Rust runtime's name for what Signature computes.
const criteriaClass = "mosaik.tee.tdx.measurements-criteria.v1"

// Signature identifies the criteria. It is the Rust runtime's: an unset register is
// folded as 48 times a byte of its own. The three values that the Rust runtime does
// not know follow only if one of them is set.
func (c *Criteria) Signature() identity.ID {
	id := identity.NewID(criteriaClass)
	registers := c.registers(new(Measurements))
	for i, unset := range []byte{9, 1, 2, 3, 4, 5, 6, 7} {
		if i == 5 && c.MRConfigID == nil && c.MROwner == nil && c.MROwnerConfig == nil {
			break
		}
		value := bytes.Repeat([]byte{unset}, MeasurementSize)
		if want := registers[i].want; want != nil {
			value = want[:]
		}
		id = id.Derive(string(value))
	}
	return id
}
