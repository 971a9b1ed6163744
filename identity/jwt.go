package identity

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// JWTClass is the class of tickets that are JSON Web Tokens (RFC 7519) in their
// compact form. It is that of the Rust runtime.
func JWTClass() ID { return NewID("mosaik.tickets.jwt.v1") }

// Limits of what a JWT validator is told.
const (
	// MaxJWTKeys is the largest number of keys: every one of an algorithm may have to be
	// tried on a token.
	MaxJWTKeys = 16
	// MaxJWTNames is the largest number of issuers, of audiences and of claims.
	MaxJWTNames = 64
)

// JWTOptions say which tokens are accepted.
type JWTOptions struct {
	// Keys are those that may have signed it; any one is enough, so a new one can be
	// added before the old one is retired. Required.
	Keys []JWTKey
	// Issuers are those that may have issued it ("iss"), Audiences those it may be for
	// ("aud"). None: not looked at. Neither may be empty or hold a comma: the signature
	// joins them with commas.
	Issuers, Audiences []string
	// Subject is who it has to be for ("sub"). Empty: the peer whose entry it stands in, as
	// 64 lower-case hex digits.
	Subject string
	// Claims are further claims it must have, with exactly these values: nil, bool, string,
	// int, int64, uint64, float64, json.Number, json.RawMessage, and []string, []any and
	// map[string]any of them. 1 and 1.0 are two values, as they are for the Rust runtime.
	Claims map[string]any
	// AllowNonExpiring accepts tokens without "exp".
	AllowNonExpiring bool
	// MaxLifetime is how long it may be valid yet; MaxAge how long ago it may have been
	// issued ("iat"). Whole seconds; zero: not looked at.
	MaxLifetime, MaxAge time.Duration
}

// JWT accepts JSON Web Tokens as tickets, by the rules of the Rust runtime and some
// that are stricter: the algorithm decides which keys are tried, keys of others
// never see the token; "none" and unknown algorithms, critical extensions (RFC 7515,
// 4.1.11), names that occur twice in an object, lists of audiences, registered claims of
// a wrong type, and times that are no whole numbers are refused. There is no leeway: a
// token has expired at the second of its "exp".
type JWT struct {
	o         JWTOptions
	claims    map[string]string // JSON text of each (appendJSON), by name
	signature ID
}

// NewJWT returns the validator. It copies what it needs of the options. An error names
// the option.
func NewJWT(o JWTOptions) (*JWT, error) {
	bad := func(field, format string, args ...any) (*JWT, error) {
		return nil, fmt.Errorf("mosaik: JWT options: "+field+": "+format, args...)
	}
	switch {
	case len(o.Keys) == 0 || len(o.Keys) > MaxJWTKeys:
		return bad("Keys", "one or more are wanted, at most %d; there are %d", MaxJWTKeys, len(o.Keys))
	case slices.ContainsFunc(o.Keys, JWTKey.IsZero):
		return bad("Keys", "the zero key verifies nothing")
	case !wholeSeconds(o.MaxLifetime):
		return bad("MaxLifetime", "%v, whole seconds that are not negative are wanted", o.MaxLifetime)
	case !wholeSeconds(o.MaxAge):
		return bad("MaxAge", "%v, whole seconds that are not negative are wanted", o.MaxAge)
	case len(o.Claims) > MaxJWTNames:
		return bad("Claims", "there are %d, at most %d are allowed", len(o.Claims), MaxJWTNames)
	}
	if err := checkJWTNames(o.Issuers); err != nil {
		return bad("Issuers", "%w", err)
	}
	if err := checkJWTNames(o.Audiences); err != nil {
		return bad("Audiences", "%w", err)
	}
	j := &JWT{o: o, claims: make(map[string]string, len(o.Claims))}
	j.o.Keys, j.o.Issuers, j.o.Audiences = slices.Clone(o.Keys), slices.Clone(o.Issuers), slices.Clone(o.Audiences)
	for _, name := range slices.Sorted(maps.Keys(o.Claims)) {
		if registered(name) {
			return bad("Claims", "%q has an option of its own", name)
		}
		text, err := appendJSON(nil, o.Claims[name], 0)
		if err != nil {
			return bad("Claims", "%q: %w", name, err)
		}
		j.claims[name] = string(text)
	}
	j.o.Claims = nil
	j.signature = j.fold()
	return j, nil
}

func wholeSeconds(d time.Duration) bool { return d >= 0 && d%time.Second == 0 }

// checkJWTNames refuses lists that would have the signature of another list.
func checkJWTNames(names []string) error {
	if len(names) > MaxJWTNames {
		return fmt.Errorf("there are %d, at most %d are allowed", len(names), MaxJWTNames)
	}
	for _, name := range names {
		switch {
		case name == "":
			return errors.New("one is empty")
		case strings.Contains(name, ","):
			return fmt.Errorf("%.64q holds a comma", name)
		}
	}
	return nil
}

// registered reports whether a claim is of RFC 7519, 4.1.
func registered(name string) bool {
	return slices.Contains([]string{"iss", "sub", "aud", "exp", "nbf", "iat", "jti"}, name)
}

// Class implements Validator.
func (j *JWT) Class() ID { return JWTClass() }

// Signature implements Validator. It equals the Rust runtime's of the same options:
//
//	class, for each key .Derive(algorithm).DeriveID(fingerprint), .Derive(1 or 0: non-expiring),
//	.Derive(issuers joined by ","), .Derive(audiences likewise), .Derive(subject), .Derive(le64 of
//	MaxLifetime in seconds), .Derive(le64 of MaxAge), for each claim by name .Derive(name).Derive(JSON)
//
// The JSON has no spaces, names in the order of their bytes, and escapes only where RFC
// 8259 demands it.
func (j *JWT) Signature() ID { return j.signature }

func (j *JWT) fold() ID {
	id := j.Class()
	for _, k := range j.o.Keys {
		id = id.Derive(k.Algorithm()).DeriveID(k.Fingerprint())
	}
	nonExpiring := "\x00"
	if j.o.AllowNonExpiring {
		nonExpiring = "\x01"
	}
	id = id.Derive(nonExpiring)
	id = id.Derive(strings.Join(j.o.Issuers, ",")).Derive(strings.Join(j.o.Audiences, ",")).Derive(j.o.Subject)
	for _, d := range []time.Duration{j.o.MaxLifetime, j.o.MaxAge} {
		id = id.Derive(string(binary.LittleEndian.AppendUint64(nil, uint64(d/time.Second))))
	}
	for _, name := range slices.Sorted(maps.Keys(j.claims)) {
		id = id.Derive(name).Derive(j.claims[name])
	}
	return id
}

// Validate implements Validator: is it a token, has one of the keys signed it, and does
// it say what is asked? Nothing of the claims is looked at before the second is known.
func (j *JWT) Validate(data []byte, e *PeerEntry, now time.Time) (Expiration, error) {
	if len(data) > MaxTicket {
		return Expiration{}, reject(ReasonOversize, "%d bytes, at most %d are allowed", len(data), MaxTicket)
	}
	text, err := j.verified(string(data))
	if err != nil {
		return Expiration{}, err
	}
	c, err := decodeClaims(text)
	if err != nil {
		return Expiration{}, reject(ReasonMalformed, "claims: %w", err)
	}
	return j.judge(c, e, now.Unix())
}

// verified returns the claims, still encoded, of a token that one of the keys has signed.
func (j *JWT) verified(token string) (claims string, err error) {
	// Decoders of base64 pass over line ends, so a token could be changed and stay valid.
	if i := strings.IndexFunc(token, notInToken); i >= 0 {
		return "", reject(ReasonMalformed, "byte %d belongs into no token", i)
	}
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return "", reject(ReasonMalformed, "%d parts, a token has three", len(parts))
	}
	header, err := decodeJWTPart(parts[0])
	if err != nil {
		return "", reject(ReasonMalformed, "header: %w", err)
	}
	if _, critical := header["crit"]; critical {
		return "", reject(ReasonMalformed, "header: it has critical extensions, of which none is known here")
	}
	alg, is := header["alg"].(string)
	if !is {
		return "", reject(ReasonAlgorithm, "the header names none")
	}
	signature, err := base64.RawURLEncoding.Strict().DecodeString(parts[2])
	if err != nil {
		return "", reject(ReasonMalformed, "signature: %w", err)
	}
	tried := 0
	for _, k := range j.o.Keys {
		if k.Algorithm() != alg {
			continue
		}
		if k.verify(parts[0]+"."+parts[1], signature) {
			return parts[1], nil
		}
		tried++
	}
	if tried == 0 {
		return "", reject(ReasonAlgorithm, "there is no key of %.64q", alg)
	}
	return "", reject(ReasonSignature, "none of %d keys of %s verifies it", tried, alg)
}

func notInToken(r rune) bool {
	return !('A' <= r && r <= 'Z' || 'a' <= r && r <= 'z' || '0' <= r && r <= '9' || r == '-' || r == '_' || r == '.')
}

// jwtClaims are the claims of a token; a nil pointer is one that is absent.
type jwtClaims struct {
	issuer, subject, audience *string
	notBefore, expires        *int64
	issuedAt                  *int64
	all                       map[string]any
}

func decodeClaims(part string) (*jwtClaims, error) {
	all, err := decodeJWTPart(part)
	if err != nil {
		return nil, err
	}
	c := &jwtClaims{all: all}
	var id *string // "jti", which is for others to look at
	for _, text := range []struct {
		name string
		into **string
	}{{"iss", &c.issuer}, {"sub", &c.subject}, {"aud", &c.audience}, {"jti", &id}} {
		v, given := all[text.name]
		if !given {
			continue
		}
		s, is := v.(string)
		if !is {
			return nil, fmt.Errorf("%s is no string", text.name)
		}
		*text.into = &s
	}
	for _, at := range []struct {
		name string
		into **int64
	}{{"nbf", &c.notBefore}, {"exp", &c.expires}, {"iat", &c.issuedAt}} {
		v, given := all[at.name]
		if !given {
			continue
		}
		number, _ := v.(json.Number)
		second, err := strconv.ParseInt(number.String(), 10, 64)
		if err != nil || second < 0 || second > maxClaimTime {
			return nil, fmt.Errorf("%s is no whole number of seconds from 1970 until the year 9999", at.name)
		}
		*at.into = &second
	}
	return c, nil
}

// maxClaimTime is the last second that can be told in RFC 3339.
const maxClaimTime = 253402300799

// judge looks at the claims of a token that is genuine, in the order of the Rust runtime.
func (j *JWT) judge(c *jwtClaims, e *PeerEntry, now int64) (Expiration, error) {
	no := func(r Reason, format string, args ...any) (Expiration, error) {
		return Expiration{}, reject(r, format, args...)
	}
	subject := j.o.Subject
	if subject == "" {
		subject = e.Peer.String()
	}
	switch maxLifetime, maxAge := int64(j.o.MaxLifetime/time.Second), int64(j.o.MaxAge/time.Second); {
	case len(j.o.Issuers) > 0 && (c.issuer == nil || !slices.Contains(j.o.Issuers, *c.issuer)):
		return no(ReasonIssuer, "it is by %s", told(c.issuer))
	case c.subject == nil || *c.subject != subject:
		return no(ReasonSubject, "it is for %s, not for %q", told(c.subject), subject)
	case c.notBefore != nil && *c.notBefore > now:
		return no(ReasonNotYetValid, "it is valid from %s on", instant(*c.notBefore))
	case c.expires == nil && !j.o.AllowNonExpiring:
		return no(ReasonNonExpiring, "it has no exp")
	case c.expires != nil && *c.expires <= now:
		return no(ReasonExpired, "at %s", instant(*c.expires))
	case c.expires != nil && maxLifetime > 0 && *c.expires-now > maxLifetime:
		return no(ReasonLifetime, "it is valid until %s, at most %v from now are allowed", instant(*c.expires), j.o.MaxLifetime)
	case maxAge > 0 && c.issuedAt == nil:
		return no(ReasonAge, "it does not say when it was issued")
	case maxAge > 0 && now-*c.issuedAt > maxAge:
		return no(ReasonAge, "it was issued at %s, at most %v ago are allowed", instant(*c.issuedAt), j.o.MaxAge)
	case len(j.o.Audiences) > 0 && (c.audience == nil || !slices.Contains(j.o.Audiences, *c.audience)):
		return no(ReasonAudience, "it is for use by %s", told(c.audience))
	}
	for _, name := range slices.Sorted(maps.Keys(j.claims)) {
		value, given := c.all[name]
		if !given {
			return no(ReasonClaim, "it has no %q", name)
		}
		if text, err := appendJSON(nil, value, 1); err != nil || string(text) != j.claims[name] {
			return no(ReasonClaim, "its %q is not %.64s", name, j.claims[name])
		}
	}
	if c.expires == nil {
		return Never(), nil
	}
	return ExpiresAt(time.Unix(*c.expires, 0)), nil
}

// told quotes a claim that an error tells of, the start of it if it is long.
func told(claim *string) string {
	if claim == nil {
		return "nobody"
	}
	return fmt.Sprintf("%.80q", *claim)
}

func instant(second int64) string { return time.Unix(second, 0).UTC().Format(time.RFC3339) }
