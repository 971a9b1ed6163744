package log

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/mosaik-engine/mosaik/identity"
)

// Pointer is evidence: it names one commit of one group by number and digest,
// and optionally one record in it. Whoever holds the commit's bytes can check
// it without asking anybody (replay.VerifyPointer).
type Pointer struct {
	Group  identity.ID
	Commit uint64
	Digest Digest      // of the commit's header
	Key    identity.ID // with Seq; zero for a pointer at the commit as a whole
	Seq    uint64      // 0: the commit as a whole
}

const pointerScheme = "mosaik:"

// String returns the text form
//
//	mosaik:<group hex>/<commit>@<digest hex>[/<key hex>/<seq>]
func (p Pointer) String() string {
	b := make([]byte, 0, 240)
	b = append(b, pointerScheme...)
	b = append(b, p.Group.String()...)
	b = append(b, '/')
	b = strconv.AppendUint(b, p.Commit, 10)
	b = append(b, '@')
	b = append(b, p.Digest.String()...)
	if p.Seq != 0 {
		b = append(b, '/')
		b = append(b, p.Key.String()...)
		b = append(b, '/')
		b = strconv.AppendUint(b, p.Seq, 10)
	}
	return string(b)
}

// IsZero reports whether p is the zero Pointer, which points nowhere.
func (p Pointer) IsZero() bool { return p == Pointer{} }

// ParsePointer parses the text form. It accepts only what String prints, so
// equal pointers have equal texts. The error wraps ErrPointer and names the
// part that is wrong.
func ParsePointer(s string) (Pointer, error) {
	var p Pointer
	bad := func(part, what string) (Pointer, error) {
		return Pointer{}, fmt.Errorf("%w: %s: %s (want mosaik:GROUP/COMMIT@DIGEST[/KEY/SEQ])", ErrPointer, part, what)
	}
	rest, ok := strings.CutPrefix(s, pointerScheme)
	if !ok {
		return bad("scheme", "does not start with mosaik:")
	}
	group, rest, ok := strings.Cut(rest, "/")
	if !ok {
		return bad("commit", "missing")
	}
	if err := p.Group.UnmarshalText([]byte(group)); err != nil || p.Group.String() != group {
		return bad("group", "not 64 lower-case hex digits")
	}
	number, rest, ok := strings.Cut(rest, "@")
	if !ok {
		return bad("digest", "missing")
	}
	var err error
	if p.Commit, err = parseCount(number); err != nil {
		return bad("commit", err.Error())
	}
	digest, rest, hasRecord := strings.Cut(rest, "/")
	if err := p.Digest.UnmarshalText([]byte(digest)); err != nil {
		return bad("digest", "not 64 lower-case hex digits")
	}
	if !hasRecord {
		return p, nil
	}
	key, seq, ok := strings.Cut(rest, "/")
	if !ok {
		return bad("seq", "missing")
	}
	if err := p.Key.UnmarshalText([]byte(key)); err != nil || p.Key.String() != key {
		return bad("key", "not 64 lower-case hex digits")
	}
	if p.Seq, err = parseCount(seq); err != nil {
		return bad("seq", err.Error())
	}
	return p, nil
}

// MarshalText gives the form of String.
func (p Pointer) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText parses as ParsePointer does.
func (p *Pointer) UnmarshalText(text []byte) error {
	out, err := ParsePointer(string(text))
	if err != nil {
		return err
	}
	*p = out
	return nil
}

// parseCount parses a number from 1 in its one canonical decimal form.
func parseCount(s string) (uint64, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n == 0 || strconv.FormatUint(n, 10) != s {
		return 0, fmt.Errorf("%q is not a number from 1", s)
	}
	return n, nil
}
