package tdx

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
)

// Limits of an [Admit] record.
const (
	// MaxRecordSize is the largest record, in bytes.
	MaxRecordSize = 16 << 10

	// MaxAdvisories is the largest number of advisories in a record.
	MaxAdvisories = 256
)

// ErrRecord reports bytes or fields that are no admission record.
var ErrRecord = errors.New("tdx: malformed admission record")

// Admit is the verdict of a member, the verifier, on a peer's evidence: what a group
// commits. Applying it compares fields and reads no clock; the evidence is verified
// once, by the verifier. docs/format/tdx.md draws the encoding.
type Admit struct {
	Subject      identity.PeerID
	EntryVersion [2]uint64 // of the peer entry that carried the ticket: started, updated, Unix milliseconds
	Group        identity.ID
	Epoch        uint64      // of the group's membership when the challenge was put
	Challenge    identity.ID // zero for v1 tickets

	Class    identity.ID // of the ticket
	Evidence identity.ID // Quote.Digest: no other subject may be admitted on it
	Raw      identity.ID // BLAKE3 of the quote's bytes, to find them for an audit; malleable

	Claims    Claims   // what the policy judged, and later ones will
	TEETCBSVN [16]byte // versions, for people
	PCKSerial string   // hexadecimal, as a CRL would list it

	// What it was verified with.
	TCBInfo, QEIdentity         identity.ID
	PCKCRLNumber, RootCRLNumber uint64

	// VerifiedAt is by the verifier's clock. NotAfter is when the admission ends. Both
	// in whole milliseconds.
	VerifiedAt, NotAfter time.Time

	Policy        identity.ID // Policy.ID
	PolicyVersion uint64      // of the group's committed policy

	Verifier  identity.PeerID
	Signature [64]byte // the verifier's, Ed25519, over all of the above
}

// NewAdmit makes the record of an admission by a policy; it is not signed yet, and
// the fields about entry, epoch and versions are the caller's to set.
func NewAdmit(a *Admission, group identity.ID, policy *Policy) *Admit {
	e := a.Evidence
	return &Admit{
		Subject: a.Ticket.Peer, Group: group, Challenge: a.Ticket.Challenge,
		Class: a.Ticket.Class(), Evidence: e.Quote.Digest(), Raw: identity.FromParts(a.Ticket.Quote),
		Claims: e.Claims(), TEETCBSVN: e.Quote.TEETCBSVN, PCKSerial: e.PCKSerial,
		TCBInfo: e.Collateral.TCBInfo, QEIdentity: e.Collateral.QEIdentity,
		PCKCRLNumber: e.Collateral.PCKCRLNumber, RootCRLNumber: e.Collateral.RootCRLNumber,
		VerifiedAt: e.VerifiedAt.Truncate(time.Millisecond), NotAfter: a.Expires.Truncate(time.Millisecond),
		Policy: policy.ID(),
	}
}

// Sign makes key's peer the verifier. The error wraps [ErrRecord] if a field is beyond
// its limit.
func (a *Admit) Sign(key identity.Key) error {
	a.Verifier = key.PeerID()
	message, err := a.message()
	if err != nil {
		return err
	}
	a.Signature = [64]byte(key.Sign(message))
	return nil
}

// Signed reports whether the verifier has signed the record.
func (a *Admit) Signed() bool {
	message, err := a.message()
	return err == nil && a.Verifier.Verify(message, a.Signature[:])
}

// recordMagic opens a record and separates its signature from every other.
const recordMagic = "mosaik/tdx/admit"

// recordVersion is the version that follows the magic.
const recordVersion = 1

// Encode returns the record's one encoding.
func (a *Admit) Encode() ([]byte, error) {
	b, err := a.message()
	if err != nil {
		return nil, err
	}
	return append(b, a.Signature[:]...), nil
}

// message is what the verifier signs: the encoding without the signature.
func (a *Admit) message() ([]byte, error) {
	c := &a.Claims
	if len(c.TCB.Advisories) > MaxAdvisories {
		return nil, fmt.Errorf("%w: %d advisories, the limit is %d", ErrRecord, len(c.TCB.Advisories), MaxAdvisories)
	}
	for _, text := range append([]string{c.FMSPC, a.PCKSerial}, c.TCB.Advisories...) {
		if len(text) > 255 {
			return nil, fmt.Errorf("%w: %q has %d bytes, the limit is 255", ErrRecord, text[:16], len(text))
		}
	}
	le := binary.LittleEndian
	b := append([]byte(recordMagic), recordVersion)
	id := func(ids ...identity.ID) {
		for i := range ids {
			b = append(b, ids[i][:]...)
		}
	}
	word := func(ns ...uint64) {
		for _, n := range ns {
			b = le.AppendUint64(b, n)
		}
	}
	text := func(s string) { b = append(append(b, byte(len(s))), s...) }

	id(identity.ID(a.Subject))
	word(a.EntryVersion[:]...)
	id(a.Group)
	word(a.Epoch)
	id(a.Challenge, a.Class, a.Evidence, a.Raw, c.Root)
	b = append(b, flag(c.Simulated))
	for _, m := range c.Measurements.all() {
		b = append(b, m[:]...)
	}
	b = append(b, c.MRSEAM[:]...)
	word(c.Attributes, c.XFAM)
	b = append(b, byte(c.TCB.Platform), byte(c.TCB.Module), byte(c.TCB.QE))
	b = le.AppendUint32(b, c.TCB.EvaluationNumber)
	b = le.AppendUint16(b, uint16(len(c.TCB.Advisories)))
	for _, advisory := range c.TCB.Advisories {
		text(advisory)
	}
	text(c.FMSPC)
	id(c.PCK)
	b = append(b, a.TEETCBSVN[:]...)
	text(a.PCKSerial)
	id(a.TCBInfo, a.QEIdentity)
	word(a.PCKCRLNumber, a.RootCRLNumber, uint64(a.VerifiedAt.UnixMilli()), uint64(a.NotAfter.UnixMilli()))
	id(a.Policy)
	word(a.PolicyVersion)
	id(identity.ID(a.Verifier))
	if len(b)+len(a.Signature) > MaxRecordSize {
		return nil, fmt.Errorf("%w: %d bytes, the limit is %d", ErrRecord, len(b)+len(a.Signature), MaxRecordSize)
	}
	return b, nil
}

func flag(b bool) byte {
	if b {
		return 1
	}
	return 0
}

// all are the registers in the order of their encoding, as pointers into m.
func (m *Measurements) all() [8]*Measurement {
	return [8]*Measurement{&m.MRTD, &m.RTMR[0], &m.RTMR[1], &m.RTMR[2], &m.RTMR[3], &m.MRConfigID, &m.MROwner, &m.MROwnerConfig}
}

// DecodeAdmit decodes what Encode returned. It does not check the signature. The
// error wraps [ErrRecord].
func DecodeAdmit(data []byte) (*Admit, error) {
	if len(data) > MaxRecordSize {
		return nil, fmt.Errorf("%w: %d bytes, the limit is %d", ErrRecord, len(data), MaxRecordSize)
	}
	a, r := new(Admit), record{rest: data}
	if magic := r.take(len(recordMagic)); string(magic) != recordMagic {
		return nil, fmt.Errorf("%w: it does not begin with %q", ErrRecord, recordMagic)
	}
	if version := r.octet(); r.err == nil && version != recordVersion {
		return nil, fmt.Errorf("%w: version %d, this program knows %d", ErrRecord, version, recordVersion)
	}
	c := &a.Claims
	r.copy(a.Subject[:])
	a.EntryVersion = [2]uint64{r.word(), r.word()}
	r.copy(a.Group[:])
	a.Epoch = r.word()
	for _, id := range []*identity.ID{&a.Challenge, &a.Class, &a.Evidence, &a.Raw, &c.Root} {
		r.copy(id[:])
	}
	c.Simulated = r.flag()
	for _, m := range c.Measurements.all() {
		r.copy(m[:])
	}
	r.copy(c.MRSEAM[:])
	c.Attributes, c.XFAM = r.word(), r.word()
	c.TCB.Platform, c.TCB.Module, c.TCB.QE = r.status(), r.status(), r.status()
	if b := r.take(4); b != nil {
		c.TCB.EvaluationNumber = binary.LittleEndian.Uint32(b)
	}
	advisories := 0
	if b := r.take(2); b != nil {
		advisories = int(binary.LittleEndian.Uint16(b))
	}
	if advisories > MaxAdvisories {
		return nil, fmt.Errorf("%w: %d advisories, the limit is %d", ErrRecord, advisories, MaxAdvisories)
	}
	for range advisories {
		c.TCB.Advisories = append(c.TCB.Advisories, r.text())
	}
	c.FMSPC = r.text()
	r.copy(c.PCK[:])
	r.copy(a.TEETCBSVN[:])
	a.PCKSerial = r.text()
	r.copy(a.TCBInfo[:])
	r.copy(a.QEIdentity[:])
	a.PCKCRLNumber, a.RootCRLNumber = r.word(), r.word()
	a.VerifiedAt, a.NotAfter = r.time(), r.time()
	r.copy(a.Policy[:])
	a.PolicyVersion = r.word()
	r.copy(a.Verifier[:])
	r.copy(a.Signature[:])
	if r.err == nil && len(r.rest) > 0 {
		r.err = fmt.Errorf("%w: %d bytes after its end", ErrRecord, len(r.rest))
	}
	if r.err != nil {
		return nil, r.err
	}
	return a, nil
}

// record takes fields off the front of rest until one does not fit; then err is set
// and every further field is zero.
type record struct {
	rest []byte
	err  error
}

func (r *record) take(n int) []byte {
	if r.err == nil && n > len(r.rest) {
		r.err = fmt.Errorf("%w: truncated", ErrRecord)
	}
	if r.err != nil {
		return nil
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

func (r *record) copy(dst []byte) { copy(dst, r.take(len(dst))) }

func (r *record) octet() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *record) word() uint64 {
	if b := r.take(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

func (r *record) text() string { return string(r.take(int(r.octet()))) }

func (r *record) time() time.Time { return time.UnixMilli(int64(r.word())).UTC() }

func (r *record) flag() bool {
	b := r.octet()
	if r.err == nil && b > 1 {
		r.err = fmt.Errorf("%w: a flag is %d, want 0 or 1", ErrRecord, b)
	}
	return b == 1
}

func (r *record) status() Status {
	s := Status(r.octet())
	if r.err == nil && int(s) >= len(statusNames) {
		r.err = fmt.Errorf("%w: TCB status %d", ErrRecord, s)
	}
	return s
}

// Membership is the committed state of a group that a record is applied to.
type Membership struct {
	Group         identity.ID
	Epoch         uint64
	PolicyVersion uint64
	Time          time.Time // the log's own time, never a replica's clock
}

// Standing tells whether the subject may be a member under a policy at a committed
// time: a policy that is committed later, or time that has passed, ends an admission
// without the quote being looked at again. It is pure; no reasons: it may.
func (a *Admit) Standing(policy *Policy, at time.Time) []Reason {
	reasons := policy.Check(&a.Claims)
	if !at.Before(a.NotAfter) {
		reasons = append(reasons, Reason{"not_after", a.NotAfter.Format(time.RFC3339), "after " + at.UTC().Format(time.RFC3339)})
	}
	return reasons
}

// Admissible tells whether the record may be applied now: signed, made for this group
// and its present policy, and Standing. Whether the verifier is a live member, and
// whether the evidence has served another subject, is for the state machine to look
// up. It is pure; no reasons: it may.
func (a *Admit) Admissible(policy *Policy, m Membership) []Reason {
	var reasons []Reason
	add := func(field string, got, want any) {
		reasons = append(reasons, Reason{field, fmt.Sprint(got), fmt.Sprint(want)})
	}
	if !a.Signed() {
		add("signature", "not the verifier's", "that of "+a.Verifier.Short())
	}
	if a.Group != m.Group {
		add("group", a.Group.Short(), m.Group.Short())
	}
	if a.Epoch != m.Epoch {
		add("epoch", a.Epoch, m.Epoch)
	}
	if id := policy.ID(); a.Policy != id || a.PolicyVersion != m.PolicyVersion {
		add("policy", fmt.Sprintf("%s version %d", a.Policy.Short(), a.PolicyVersion), fmt.Sprintf("%s version %d", id.Short(), m.PolicyVersion))
	}
	return append(reasons, a.Standing(policy, m.Time)...)
}

// Agreed tells whether k distinct members have signed verdicts on the same subject and
// the same evidence, for groups that do not trust one verifier. The error wraps
// [ErrRecord] and says what is missing.
func Agreed(records []*Admit, k int) error {
	if k < 1 || len(records) == 0 {
		return fmt.Errorf("%w: %d verdicts, want %d", ErrRecord, len(records), max(k, 1))
	}
	first := records[0]
	var verifiers []identity.PeerID
	for _, a := range records {
		if a.Subject != first.Subject || a.Evidence != first.Evidence || a.Group != first.Group || a.Policy != first.Policy ||
			a.PolicyVersion != first.PolicyVersion || a.Epoch != first.Epoch {
			return fmt.Errorf("%w: verdict of %s is on something else than that of %s", ErrRecord, a.Verifier.Short(), first.Verifier.Short())
		}
		if !a.Signed() {
			return fmt.Errorf("%w: verdict of %s is not signed by it", ErrRecord, a.Verifier.Short())
		}
		if !slices.Contains(verifiers, a.Verifier) {
			verifiers = append(verifiers, a.Verifier)
		}
	}
	if len(verifiers) < k {
		return fmt.Errorf("%w: verdicts of %d members, want %d", ErrRecord, len(verifiers), k)
	}
	return nil
}
