package log

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
)

// The members of a group are what the log of members folds to. Whoever decides that a
// peer may take part looks at its evidence once, outside, and commits the verdict; what
// follows from verdicts, policies and the time of commits is folded here, the same on
// all replicas and for every auditor.
//
// The founders have the seats of the committee. A seat can lose its member and be given
// to another; whoever has none keeps everything and has no vote: a reader. A member's
// number is never given again, so that nobody is taken for who left.
//
//	found   1 | seats 1 | peer 32 each           the founders, in order; the first command
//	admit   2 | number 4 | peer 32 | verdict     lets a peer in, or renews its verdict
//	seat    3 | number 4 | seat 1                gives a vacant seat to a reader
//	evict   4 | number 4 | reason 1              takes a member out
//	policy  5 | policy                           replaces the policy
//
//	verdict  by 32 | evidence 32 | at 8 | expires 8 | record, a string
//	policy   flags 1 (1 open, 2 promote) | readers 2 | grace 8 | since 8
//
// Rows:
//
//	0x00            -> seats 1 | next number 4 | policy
//	0x01, number 4  -> seat 1 | peer 32 | by 32 | evidence 32 | at 8 | expires 8
//
// The number in a row's key is big-endian, other integers are little-endian, times in
// Unix nanoseconds, durations in nanoseconds.
const (
	membersFound  = 1
	membersAdmit  = 2
	membersSeat   = 3
	membersEvict  = 4
	membersPolicy = 5
)

// Limits of the membership of a group.
const (
	// MaxSeats is the largest committee.
	MaxSeats = 15
	// MaxReaders is how many members without a seat a group can have.
	MaxReaders = 32
	// MaxMemberNumber bounds how many peers can ever be let in.
	MaxMemberNumber = 1<<20 - 1
	// MaxVerdictRecord is the size of the record in a Verdict.
	MaxVerdictRecord = 16 << 10
)

// MembersName is the name of the log of members. Only the engine writes to it.
const MembersName = "mosaik.members"

// KindMembers is the kind of the log of members: its machine's signature.
const KindMembers = "mosaik.members.v1"

// MembersKey returns the key of the log of members.
func MembersKey() identity.ID { return membersKey }

// membersKey is never changed; see guardKey.
var membersKey = identity.NewID(MembersName)

// MembersEntry is what the directory says of the log of members.
func MembersEntry() DirectoryEntry {
	return DirectoryEntry{Name: MembersName, Kind: KindMembers, Codec: "mosaik.members.v1"}
}

// ErrMembership says why a change of the membership was not taken.
var ErrMembership = errors.New("mosaik: membership")

// Verdict says why a peer may take part. The zero Verdict is that of a founder.
type Verdict struct {
	// By is the member that judged, or through which an operator did.
	By identity.PeerID
	// Evidence is the digest of what was judged; zero: an operator's word.
	Evidence identity.ID
	// At is when it was judged, and Expires when the admission ends; the zero time:
	// not by itself. By the clock of who judged.
	At, Expires time.Time
	// Record is the evidence in the form that can be audited, such as an encoded
	// tdx.Admit, at most MaxVerdictRecord bytes. It stands in the log and not in the
	// view. The slice is the caller's.
	Record []byte
}

// EvictReason says why a member was taken out. Numbers are part of the format.
type EvictReason uint8

// The reasons.
const (
	Evicted  EvictReason = 1 // an operator wanted it
	Expired  EvictReason = 2 // its verdict had ended
	Departed EvictReason = 3 // it was away for longer than the grace of the policy
	Revoked  EvictReason = 4 // the policy does not accept its verdict any more
)

// String returns the word for the reason.
func (r EvictReason) String() string {
	switch r {
	case Evicted:
		return "evicted"
	case Expired:
		return "expired"
	case Departed:
		return "departed"
	case Revoked:
		return "revoked"
	}
	return fmt.Sprintf("EvictReason(%d)", uint8(r))
}

// MembershipPolicy says how the membership changes by itself. The zero policy is that of
// a group without one: only an operator changes it.
type MembershipPolicy struct {
	// Open lets in, as a reader, every peer that asks and whose entry fulfils the group's
	// clauses.
	Open bool
	// Promote gives a vacant seat to the reader that has been one for longest.
	Promote bool
	// Readers is how many members may be without a seat, at most MaxReaders.
	Readers int
	// Grace is how long a member that was let in may be away before it is taken out; 0:
	// for ever. Founders are not.
	Grace time.Duration
	// Since is the time from which on verdicts are accepted. Members with an older one are
	// taken out when the policy is committed, but for founders. The zero time: all are.
	Since time.Time
}

// Validate reports a policy beyond its limits, as ErrMembership.
func (p *MembershipPolicy) Validate() error {
	switch {
	case p.Readers < 0 || p.Readers > MaxReaders:
		return fmt.Errorf("%w: policy: readers: %d, 0 to %d are possible", ErrMembership, p.Readers, MaxReaders)
	case p.Grace < 0:
		return fmt.Errorf("%w: policy: grace: it is negative", ErrMembership)
	}
	return nil
}

// Member is a member of a group.
type Member struct {
	// Number is its own for ever; founders have 1, 2, and so on.
	Number uint64
	// Peer is who it is.
	Peer identity.PeerID
	// Seat is its place in the committee, from 1; 0: it is a reader.
	Seat uint64
	// Verdict is why it may take part; its Record is nil.
	Verdict Verdict
}

// Membership is what a log of members folds to.
type Membership struct {
	// Seats is the size of the committee; 0: nothing was committed yet, and the founders
	// have their seats.
	Seats int
	// Next is the lowest number that was never given.
	Next uint64
	// Policy is the one in force.
	Policy MembershipPolicy
	// Members are in the order of their numbers.
	Members []Member
}

// Founded returns the membership of a group whose log of members is empty.
func Founded(founders []identity.PeerID) Membership {
	m := Membership{Seats: len(founders), Next: uint64(len(founders)) + 1}
	for i, peer := range founders {
		m.Members = append(m.Members, Member{Number: uint64(i + 1), Peer: peer, Seat: uint64(i + 1)})
	}
	return m
}

// Of returns the member that a peer is.
func (m *Membership) Of(peer identity.PeerID) (Member, bool) {
	return m.find(func(x *Member) bool { return x.Peer == peer })
}

// Holder returns the member in a seat.
func (m *Membership) Holder(seat uint64) (Member, bool) {
	return m.find(func(x *Member) bool { return x.Seat == seat && seat != 0 })
}

// Numbered returns the member of a number.
func (m *Membership) Numbered(number uint64) (Member, bool) {
	return m.find(func(x *Member) bool { return x.Number == number })
}

func (m *Membership) find(is func(*Member) bool) (Member, bool) {
	for i := range m.Members {
		if is(&m.Members[i]) {
			return m.Members[i], true
		}
	}
	return Member{}, false
}

// Vacant returns the first seat without a member; 0: there is none.
func (m *Membership) Vacant() uint64 {
	for seat := uint64(1); seat <= uint64(m.Seats); seat++ {
		if _, taken := m.Holder(seat); !taken {
			return seat
		}
	}
	return 0
}

// Readers returns how many members have no seat.
func (m *Membership) Readers() int {
	n := 0
	for i := range m.Members {
		if m.Members[i].Seat == 0 {
			n++
		}
	}
	return n
}

// FoundCommand returns the command that names the founders.
func FoundCommand(founders []identity.PeerID) []byte {
	b := []byte{membersFound, byte(len(founders))}
	for _, p := range founders {
		b = append(b, p[:]...)
	}
	return b
}

// AdmitCommand returns the command that lets a peer in under a number, or renews the
// verdict of the member of that number.
func AdmitCommand(number uint64, peer identity.PeerID, v Verdict) ([]byte, error) {
	if len(v.Record) > MaxVerdictRecord {
		return nil, fmt.Errorf("%w: verdict: record: %d bytes, at most %d are allowed", ErrMembership, len(v.Record), MaxVerdictRecord)
	}
	b := binary.LittleEndian.AppendUint32([]byte{membersAdmit}, uint32(number))
	b = append(b, peer[:]...)
	return appendBytes(v.appendTo(b), v.Record), nil
}

// SeatCommand returns the command that gives a vacant seat to a reader.
func SeatCommand(number, seat uint64) []byte {
	return append(binary.LittleEndian.AppendUint32([]byte{membersSeat}, uint32(number)), byte(seat))
}

// EvictCommand returns the command that takes a member out.
func EvictCommand(number uint64, reason EvictReason) []byte {
	return append(binary.LittleEndian.AppendUint32([]byte{membersEvict}, uint32(number)), byte(reason))
}

// PolicyCommand returns the command that replaces the policy, which must be valid.
func PolicyCommand(p MembershipPolicy) []byte { return p.appendTo([]byte{membersPolicy}) }

func (v *Verdict) appendTo(b []byte) []byte {
	b = append(b, v.By[:]...)
	b = append(b, v.Evidence[:]...)
	b = binary.LittleEndian.AppendUint64(b, verdictTime(v.At))
	return binary.LittleEndian.AppendUint64(b, verdictTime(v.Expires))
}

func (p *MembershipPolicy) appendTo(b []byte) []byte {
	var flags byte
	if p.Open {
		flags |= 1
	}
	if p.Promote {
		flags |= 2
	}
	b = binary.LittleEndian.AppendUint16(append(b, flags), uint16(p.Readers))
	b = binary.LittleEndian.AppendUint64(b, uint64(p.Grace))
	return binary.LittleEndian.AppendUint64(b, verdictTime(p.Since))
}

// verdictTime is how a time is written; 0: the zero time.
func verdictTime(t time.Time) uint64 {
	if t.IsZero() {
		return 0
	}
	return uint64(t.UnixNano())
}

func fromVerdictTime(n uint64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, int64(n)).UTC()
}

func (w *wire) u32() uint64 {
	if b := w.take(4); b != nil {
		return uint64(binary.LittleEndian.Uint32(b))
	}
	return 0
}

func (w *wire) u64() uint64 {
	if b := w.take(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

func (w *wire) u8() byte {
	if b := w.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (w *wire) peer() (p identity.PeerID) {
	copy(p[:], w.take(len(p)))
	return p
}

func (w *wire) verdict() (v Verdict) {
	v.By = w.peer()
	copy(v.Evidence[:], w.take(identity.Size))
	v.At, v.Expires = fromVerdictTime(w.u64()), fromVerdictTime(w.u64())
	return v
}

func (w *wire) policy() (p MembershipPolicy) {
	flags := w.u8()
	p.Open, p.Promote = flags&1 != 0, flags&2 != 0
	if b := w.take(2); b != nil {
		p.Readers = int(binary.LittleEndian.Uint16(b))
	}
	p.Grace, p.Since = time.Duration(w.u64()), fromVerdictTime(w.u64())
	if flags > 3 || p.Validate() != nil {
		w.bad = true
	}
	return p
}

// Why a change was not taken: the second byte of the result.
const (
	refusedFounding = iota + 1
	refusedUnfounded
	refusedNumber
	refusedTaken
	refusedExpired
	refusedReaders
	refusedUnknown
	refusedSeat
	refusedLast
	refusedEarly
	refusedVerdict
)

// refusals are the words for them.
var refusals = [...]string{
	refusedFounding:  "the founders are named already, and are others",
	refusedUnfounded: "nothing can change before the founders are named",
	refusedNumber:    "the number was given before, or is beyond the limit",
	refusedTaken:     "the peer is a member, under another number",
	refusedExpired:   "the verdict has expired",
	refusedReaders:   "no seat is vacant, and the policy allows no further reader",
	refusedUnknown:   "there is no such member",
	refusedSeat:      "the seat is not vacant, there is no such seat, or the member has one",
	refusedLast:      "it is the last member of the committee",
	refusedEarly:     "its verdict has not expired",
	refusedVerdict:   "the policy accepts later verdicts only",
}

// MembershipResult returns what a command to the log of members came to: nil if it was
// taken, else an error that wraps ErrMembership and says why not.
func MembershipResult(result []byte) error {
	switch {
	case len(result) == 1 && result[0] == resultPresent:
		return nil
	case len(result) == 2 && result[0] == resultAbsent && result[1] > 0 && int(result[1]) < len(refusals):
		return fmt.Errorf("%w: %s", ErrMembership, refusals[result[1]])
	}
	return fmt.Errorf("%w: %w", ErrMembership, ErrCommand)
}

// membersMachine folds logs of members.
type membersMachine struct{}

func (membersMachine) Signature() string { return KindMembers }

func (membersMachine) Apply(tx *Tx, c Command) ([]byte, error) {
	if len(c.Payload) == 0 {
		return nil, nil
	}
	m, err := ReadMembership(tx)
	if err != nil {
		return nil, err
	}
	before := slices.Clone(m.Members)
	in := wire{rest: c.Payload[1:]}
	var refused byte
	switch c.Payload[0] {
	case membersFound:
		founders := make([]identity.PeerID, min(int(in.u8()), MaxSeats))
		for i := range founders {
			founders[i] = in.peer()
		}
		refused = m.found(founders)
	case membersAdmit:
		number, peer := in.u32(), in.peer()
		v := in.verdict()
		if len(in.bytes()) > MaxVerdictRecord {
			in.bad = true
		}
		refused = m.admit(number, peer, v, c.Time)
	case membersSeat:
		refused = m.seat(in.u32(), uint64(in.u8()))
	case membersEvict:
		number, reason := in.u32(), EvictReason(in.u8())
		if reason < Evicted || reason > Revoked {
			in.bad = true
		}
		refused = m.evict(number, reason, c.Time)
	case membersPolicy:
		refused = m.judge(in.policy())
	default:
		return nil, nil
	}
	switch {
	case !in.end():
		return nil, nil
	case refused != 0:
		return append(absent(), refused), nil
	}
	return taken(true), m.write(tx, before)
}

func (m *Membership) found(founders []identity.PeerID) (refused byte) {
	again := len(founders) > 0 && m.Seats == len(founders)
	for i, p := range founders {
		if p.IsZero() || slices.Index(founders, p) != i {
			return refusedFounding
		}
		first, ok := m.Numbered(uint64(i + 1))
		again = again && (!ok || first.Peer == p) // one that has left cannot be compared
	}
	switch {
	case m.Seats == 0 && len(founders) > 0:
		*m = Founded(founders)
	case !again:
		return refusedFounding
	}
	return 0
}

func (m *Membership) admit(number uint64, peer identity.PeerID, v Verdict, now int64) (refused byte) {
	known, member := m.Of(peer)
	switch {
	case m.Seats == 0:
		return refusedUnfounded
	case !v.Expires.IsZero() && v.Expires.UnixNano() <= now:
		return refusedExpired
	case v.At.Before(m.Policy.Since):
		return refusedVerdict
	case member && known.Number != number:
		return refusedTaken
	case member:
		i := slices.IndexFunc(m.Members, func(x Member) bool { return x.Number == number })
		m.Members[i].Verdict = v
		return 0
	case number < m.Next || number > MaxMemberNumber || peer.IsZero():
		return refusedNumber
	}
	seat := m.Vacant()
	if seat == 0 && m.Readers() >= m.Policy.Readers {
		return refusedReaders
	}
	m.Members = append(m.Members, Member{Number: number, Peer: peer, Seat: seat, Verdict: v})
	m.Next = number + 1
	return 0
}

func (m *Membership) seat(number, seat uint64) (refused byte) {
	i := slices.IndexFunc(m.Members, func(x Member) bool { return x.Number == number })
	if i < 0 {
		return refusedUnknown
	}
	if _, taken := m.Holder(seat); taken || seat == 0 || seat > uint64(m.Seats) || m.Members[i].Seat != 0 {
		return refusedSeat
	}
	m.Members[i].Seat = seat
	return 0
}

func (m *Membership) evict(number uint64, reason EvictReason, now int64) (refused byte) {
	x, ok := m.Numbered(number)
	switch {
	case !ok:
		return refusedUnknown
	case reason == Expired && (x.Verdict.Expires.IsZero() || x.Verdict.Expires.UnixNano() > now):
		return refusedEarly
	case x.Seat != 0 && len(m.Members)-m.Readers() == 1:
		return refusedLast
	}
	m.Members = slices.DeleteFunc(m.Members, func(y Member) bool { return y.Number == number })
	return 0
}

// judge makes a policy the one in force. Those whose verdicts it does not accept go,
// except for the last member of the committee.
func (m *Membership) judge(p MembershipPolicy) (refused byte) {
	if m.Seats == 0 {
		return refusedUnfounded
	}
	m.Policy = p
	for _, x := range slices.Clone(m.Members) {
		if x.Number > uint64(m.Seats) && x.Verdict.At.Before(p.Since) {
			m.evict(x.Number, Revoked, 0)
		}
	}
	return 0
}

var errMembersRow = errors.New("mosaik: a row of the log of members is malformed")

var (
	membersRow   = []byte{0}
	memberPrefix = []byte{1}
)

func memberRow(number uint64) []byte {
	return binary.BigEndian.AppendUint32([]byte{1}, uint32(number))
}

// ReadMembership reads the view of a log of members. Its Seats are 0 if nothing was
// committed to it.
func ReadMembership(v View) (Membership, error) {
	var m Membership
	row, ok, err := v.Get(membersRow)
	if err != nil || !ok {
		return m, err
	}
	in := wire{rest: row.Value}
	m.Seats, m.Next, m.Policy = int(in.u8()), in.u32(), in.policy()
	if !in.end() {
		return m, errMembersRow
	}
	for row, err := range v.Scan(Range{From: memberPrefix, To: []byte{2}}) {
		if err != nil {
			return m, err
		}
		if len(row.Key) != 5 {
			return m, errMembersRow
		}
		in := wire{rest: row.Value}
		x := Member{Number: uint64(binary.BigEndian.Uint32(row.Key[1:])), Seat: uint64(in.u8()), Peer: in.peer()}
		x.Verdict = in.verdict()
		if !in.end() {
			return m, errMembersRow
		}
		m.Members = append(m.Members, x)
	}
	return m, nil
}

// write writes the rows that differ from those of before.
func (m *Membership) write(tx *Tx, before []Member) error {
	for _, x := range before {
		if _, stays := m.Numbered(x.Number); !stays {
			if err := tx.Delete(memberRow(x.Number)); err != nil {
				return err
			}
		}
	}
	for i := range m.Members {
		x := &m.Members[i]
		value := append([]byte{byte(x.Seat)}, x.Peer[:]...)
		if err := setChanged(tx, memberRow(x.Number), x.Verdict.appendTo(value)); err != nil {
			return err
		}
	}
	row := binary.LittleEndian.AppendUint32([]byte{byte(m.Seats)}, uint32(m.Next))
	return setChanged(tx, membersRow, m.Policy.appendTo(row))
}

// setChanged writes a row whose value is another one now.
func setChanged(tx *Tx, key, value []byte) error {
	row, ok, err := tx.Get(key)
	if err != nil || ok && bytes.Equal(row.Value, value) {
		return err
	}
	return tx.Set(key, value)
}
