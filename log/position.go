package log

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
)

// PositionKind tells the six ways to say where a scan starts.
type PositionKind uint8

// The kinds of a [Position]. The numbers live in memory only.
const (
	AtEarliest PositionKind = iota // the first record
	AtLatest                       // what is appended from now on
	AtSeq                          // a seq
	AtCommit                       // a commit number
	AtTime                         // a commit time
	AtPointer                      // a pointer
)

// Position says where in a key's log a scan starts. It is a plain comparable
// value that names no log: the scan it is given to resolves it, when its
// iteration starts. The zero Position is Earliest.
//
//	Earliest()       seq 1
//	Latest()         after the key's last record: an ended scan yields nothing, a
//	                 following one what comes next
//	Seq(n)           seq n, which may not exist yet
//	CommitNumber(n)  the first record in a commit numbered n or higher
//	Since(t)         the first record in a commit whose time is t or later
//	At(p)            the record p points to, or for a pointer at a whole commit the
//	                 first record in that commit or a later one
//
// At also checks the evidence: if the commit has another digest here, or does
// not hold that record, the scan fails with ErrPointer; if the commit is not
// here yet, with ErrNotFound.
type Position struct {
	kind PositionKind
	n    uint64 // AtSeq, AtCommit: the number; AtTime: the bits of Unix nanoseconds
	p    Pointer
}

// Earliest starts at the first record of the log.
func Earliest() Position { return Position{} }

// Latest starts after the last record that is in the log when the iteration
// starts.
func Latest() Position { return Position{kind: AtLatest} }

// Seq starts at the record numbered n. Seqs count from 1.
func Seq(n uint64) Position { return Position{kind: AtSeq, n: n} }

// CommitNumber starts at the first record that stands in commit n of the group
// or a later one. Commits count from 1.
func CommitNumber(n uint64) Position { return Position{kind: AtCommit, n: n} }

// Since starts at the first record in a commit with a time of t or later. Times
// outside the years 1678 to 2262, which no commit can have, are moved to the
// nearest one inside.
func Since(t time.Time) Position { return Position{kind: AtTime, n: uint64(unixNano(t))} }

// At starts at the record, or the commit, that p points to.
func At(p Pointer) Position { return Position{kind: AtPointer, p: p} }

// Kind tells which of the six p is.
func (p Position) Kind() PositionKind { return p.kind }

// Seq returns n of Seq(n), the seq of At(pointer), and else 0.
func (p Position) Seq() uint64 {
	switch p.kind {
	case AtSeq:
		return p.n
	case AtPointer:
		return p.p.Seq
	}
	return 0
}

// Commit returns n of CommitNumber(n), the commit of At(pointer), and else 0.
func (p Position) Commit() uint64 {
	switch p.kind {
	case AtCommit:
		return p.n
	case AtPointer:
		return p.p.Commit
	}
	return 0
}

// Time returns the Unix nanoseconds of Since(t), and else 0.
func (p Position) Time() int64 {
	if p.kind == AtTime {
		return int64(p.n)
	}
	return 0
}

// Pointer returns the pointer of At(pointer), and else the zero Pointer.
func (p Position) Pointer() Pointer { return p.p }

// Admits reports whether a run that lies after the start of the log may be part
// of a scan from p, as far as the run's commit tells. It is false only for
// CommitNumber and Since, and matters when those lie in the future: a following
// scan must then let runs pass by until the position is reached.
func (p Position) Admits(r *Run) bool {
	switch p.kind {
	case AtCommit:
		return r.Commit >= p.n
	case AtTime:
		return r.Time >= int64(p.n)
	}
	return true
}

// Validate reports a position that no log has: the seq or the commit number 0,
// or a pointer that points nowhere. The error wraps ErrPosition, or ErrPointer.
func (p Position) Validate() error {
	switch p.kind {
	case AtSeq:
		if p.n == 0 {
			return fmt.Errorf("%w: seq 0, records are numbered from 1", ErrPosition)
		}
	case AtCommit:
		if p.n == 0 {
			return fmt.Errorf("%w: commit 0, commits are numbered from 1", ErrPosition)
		}
	case AtPointer:
		if p.p.Commit == 0 {
			return fmt.Errorf("%w: commit 0, commits are numbered from 1", ErrPointer)
		}
		if p.p.Seq == 0 && !p.p.Key.IsZero() {
			return fmt.Errorf("%w: it has key %s but no seq", ErrPointer, p.p.Key.Short())
		}
	}
	return nil
}

// String returns the text form:
//
//	earliest
//	latest
//	seq:N
//	commit:N
//	time:T          RFC 3339 in UTC, with as many decimals as needed, up to 9
//	mosaik:...      the text form of the pointer
func (p Position) String() string {
	switch p.kind {
	case AtEarliest:
		return "earliest"
	case AtLatest:
		return "latest"
	case AtSeq:
		return "seq:" + strconv.FormatUint(p.n, 10)
	case AtCommit:
		return "commit:" + strconv.FormatUint(p.n, 10)
	case AtTime:
		return "time:" + time.Unix(0, int64(p.n)).UTC().Format(time.RFC3339Nano)
	default:
		return p.p.String()
	}
}

// ParsePosition parses the text form. It accepts only what String prints, so
// equal positions have equal texts: no leading zeros, no time zone but UTC. The
// error wraps ErrPosition, or ErrPointer for a malformed pointer, and says what
// to write instead.
func ParsePosition(s string) (Position, error) {
	kind, value, hasValue := strings.Cut(s, ":")
	switch {
	case s == "earliest":
		return Earliest(), nil
	case s == "latest":
		return Latest(), nil
	case !hasValue:
		return Position{}, fmt.Errorf("%w: %q (want earliest, latest, seq:N, commit:N, time:T or mosaik:...)", ErrPosition, s)
	}
	switch kind {
	case "seq", "commit":
		n, err := parseCount(value)
		if err != nil {
			return Position{}, fmt.Errorf("%w: %s: %w", ErrPosition, kind, err)
		}
		if kind == "seq" {
			return Seq(n), nil
		}
		return CommitNumber(n), nil
	case "time":
		return parseSince(value)
	case "mosaik":
		p, err := ParsePointer(s)
		if err != nil {
			return Position{}, err
		}
		return At(p), nil
	}
	return Position{}, fmt.Errorf("%w: %q is no kind of position (want earliest, latest, seq:N, commit:N, time:T or mosaik:...)", ErrPosition, kind)
}

func parseSince(value string) (Position, error) {
	t, err := time.Parse(time.RFC3339Nano, value)
	if err != nil {
		return Position{}, fmt.Errorf("%w: time: %q is not like 2006-01-02T15:04:05.999999999Z", ErrPosition, value)
	}
	p := Since(t)
	if !time.Unix(0, p.Time()).Equal(t) {
		return Position{}, fmt.Errorf("%w: time: %q lies outside the years 1678 to 2262", ErrPosition, value)
	}
	if p.String() != "time:"+value {
		return Position{}, fmt.Errorf("%w: time: %q must be written as %s", ErrPosition, value, p)
	}
	return p, nil
}

// MarshalText gives the form of String.
func (p Position) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText parses as ParsePosition does; on an error p keeps its value.
func (p *Position) UnmarshalText(text []byte) error {
	out, err := ParsePosition(string(text))
	if err != nil {
		return err
	}
	*p = out
	return nil
}

// Check reports whether p holds against c: the group, the number and the digest
// are c's, and the record, if p points at one, is in it. The error wraps
// ErrPointer and says which of them differs. Check believes c.Digest; bytes that
// come from somebody else go through Commit.Verify first.
func (p Pointer) Check(c *Commit) error {
	switch {
	case p.Group != c.Header.Group:
		return fmt.Errorf("%w: group: it points into %s, this is %s", ErrPointer, p.Group.Short(), c.Header.Group.Short())
	case p.Commit != c.Header.Number:
		return fmt.Errorf("%w: commit: it points at %d, this is %d", ErrPointer, p.Commit, c.Header.Number)
	case p.Digest != c.Digest:
		return fmt.Errorf("%w: digest: it says that commit %d is %s, here it is %s", ErrPointer, p.Commit, p.Digest, c.Digest)
	case p.Seq == 0:
		return nil
	}
	for run, err := range c.Runs() {
		if err != nil {
			return err
		}
		if run.Key == p.Key && run.FirstSeq <= p.Seq && p.Seq <= run.LastSeq() {
			return nil
		}
	}
	return fmt.Errorf("%w: seq: commit %d holds no record %d of key %s", ErrPointer, p.Commit, p.Seq, p.Key.Short())
}

// checkKey reports a pointer at a record of another key than the scanned one.
func (p Pointer) checkKey(key identity.ID) error {
	if p.Seq != 0 && p.Key != key {
		return fmt.Errorf("%w: key: it points into %s, the scan is of %s", ErrPointer, p.Key.Short(), key.Short())
	}
	return nil
}

// unixNano is t.UnixNano without its undefined results: a time that does not
// fit becomes the nearest that does.
func unixNano(t time.Time) int64 {
	switch {
	case t.Before(time.Unix(0, math.MinInt64)):
		return math.MinInt64
	case t.After(time.Unix(0, math.MaxInt64)):
		return math.MaxInt64
	}
	return t.UnixNano()
}
