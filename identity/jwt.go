package identity

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"math/big"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/golang-jwt/jwt/v5"
)

// JWTClass is the class of tickets that are JSON Web Tokens (RFC 7519) in their
// compact form. It is that of the Rust runtime.
func JWTClass() ID { return NewID("mosaik.tickets.jwt.v1") }

// JWTKey verifies tokens of one algorithm.
type JWTKey struct {
	alg         string
	key         any // as the JWT library wants it
	fingerprint ID
}

// ErrJWTKey says that a key is not one of its algorithm.
var ErrJWTKey = errors.New("mosaik: bad JWT key")

// jwtAlgorithm is what is known of an algorithm: the name in fingerprints, the size of
// keys in bytes, and the curve of those that have one.
type jwtAlgorithm struct {
	name  string
	size  int
	curve elliptic.Curve
}

func jwtAlgorithms() map[string]jwtAlgorithm {
	return map[string]jwtAlgorithm{
		"HS256": {"hs256", 32, nil},
		"HS384": {"hs384", 48, nil},
		"HS512": {"hs512", 64, nil},
		"ES256": {"es256", 33, elliptic.P256()},
		"ES384": {"es384", 49, elliptic.P384()},
		"ES512": {"es512", 67, elliptic.P521()},
		"EdDSA": {"EdDsa", ed25519.PublicKeySize, nil},
	}
}

// NewJWTKey returns the key of an algorithm of RFC 7518 or 8037: HS256, HS384 or HS512
// with a secret of just 32, 48 or 64 bytes; ES256, ES384 or ES512 with a compressed
// point (SEC 1, 2.3.3) of 33, 49 or 67; EdDSA with an Ed25519 public key. The key is
// copied.
func NewJWTKey(alg string, key []byte) (JWTKey, error) {
	a, known := jwtAlgorithms()[alg]
	switch {
	case !known:
		return JWTKey{}, fmt.Errorf("%w: algorithm %q is none of HS256, HS384, HS512, ES256, ES384, ES512 and EdDSA", ErrJWTKey, alg)
	case len(key) != a.size:
		return JWTKey{}, fmt.Errorf("%w: %d bytes for %s, %d are wanted", ErrJWTKey, len(key), alg, a.size)
	}
	k := JWTKey{alg: alg, fingerprint: NewID(a.name).Derive(string(key))}
	switch {
	case a.curve != nil:
		x, y := elliptic.UnmarshalCompressed(a.curve, key)
		if x == nil {
			return JWTKey{}, fmt.Errorf("%w: it is no compressed point of %s", ErrJWTKey, a.curve.Params().Name)
		}
		public, err := ecdsa.ParseUncompressedPublicKey(a.curve, uncompressed(a.curve, x, y))
		if err != nil {
			return JWTKey{}, fmt.Errorf("%w: %w", ErrJWTKey, err)
		}
		k.key = public
	case alg == "EdDSA":
		k.key = ed25519.PublicKey(bytes.Clone(key))
	default:
		k.key = bytes.Clone(key)
	}
	return k, nil
}

func uncompressed(c elliptic.Curve, x, y *big.Int) []byte {
	size := (c.Params().BitSize + 7) / 8
	b := make([]byte, 1+2*size)
	b[0] = 4
	x.FillBytes(b[1 : 1+size])
	y.FillBytes(b[1+size:])
	return b
}

// JWTOptions say which tokens are accepted.
type JWTOptions struct {
	// Keys are those that may have signed it; any one is enough, so a new one can be
	// added before the old one is retired. Required.
	Keys []JWTKey
	// Issuers are those that may have issued it ("iss"), Audiences those it may be for
	// ("aud"). None: not looked at.
	Issuers, Audiences []string
	// Subject is who it has to be for ("sub"). Empty: the peer whose entry it stands in, as
	// 64 lower-case hex digits.
	Subject string
	// Claims are further claims it must have, with just these values.
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
// 4.1.11), names that occur twice in an object, lists of audiences, and times that are
// no whole numbers are refused. There is no leeway: a token has expired at the second
// of its "exp".
type JWT struct {
	o         JWTOptions
	claims    map[string]string // canonical JSON of each, by name
	signature ID
}

// NewJWT returns the validator.
func NewJWT(o JWTOptions) (*JWT, error) {
	bad := func(field string, err error) error { return fmt.Errorf("mosaik: JWT options: %s: %w", field, err) }
	switch {
	case len(o.Keys) == 0:
		return nil, bad("Keys", errors.New("one or more are wanted"))
	case slices.ContainsFunc(o.Keys, func(k JWTKey) bool { return k.key == nil }):
		return nil, bad("Keys", errors.New("the zero key verifies nothing"))
	case o.MaxLifetime < 0 || o.MaxAge < 0 || o.MaxLifetime%time.Second != 0 || o.MaxAge%time.Second != 0:
		return nil, bad("MaxLifetime and MaxAge", errors.New("whole seconds, not negative, are wanted"))
	}
	j := &JWT{o: o, claims: make(map[string]string)}
	j.o.Keys, j.o.Issuers, j.o.Audiences = slices.Clone(o.Keys), slices.Clone(o.Issuers), slices.Clone(o.Audiences)
	for name, value := range o.Claims {
		if registered(name) {
			return nil, bad("Claims", fmt.Errorf("%q has an option of its own", name))
		}
		b, err := json.Marshal(value)
		if err != nil {
			return nil, bad("Claims", fmt.Errorf("%q: %w", name, err))
		}
		j.claims[name] = string(b)
	}
	j.signature = j.sign()
	return j, nil
}

func registered(name string) bool {
	return slices.Contains([]string{"iss", "sub", "aud", "exp", "nbf", "iat", "jti"}, name)
}

// Class implements Validator.
func (j *JWT) Class() ID { return JWTClass() }

// Signature implements Validator:
//
//	class, for each key .Derive(algorithm).DeriveID(fingerprint), .Derive(1 or 0: non-expiring),
//	.Derive(issuers joined by ","), .Derive(audiences likewise), .Derive(subject), .Derive(le64 of
//	MaxLifetime in seconds), .Derive(le64 of MaxAge), for each claim by name .Derive(name).Derive(JSON)
//
// A fingerprint is NewID(name of the algorithm).Derive(key).
func (j *JWT) Signature() ID { return j.signature }

func (j *JWT) sign() ID {
	id := j.Class()
	for _, k := range j.o.Keys {
		id = id.Derive(k.alg).DeriveID(k.fingerprint)
	}
	id = id.Derive(string([]byte{byte(truth(j.o.AllowNonExpiring))}))
	id = id.Derive(strings.Join(j.o.Issuers, ",")).Derive(strings.Join(j.o.Audiences, ",")).Derive(j.o.Subject)
	for _, d := range []time.Duration{j.o.MaxLifetime, j.o.MaxAge} {
		id = id.Derive(string(binary.LittleEndian.AppendUint64(nil, uint64(d/time.Second))))
	}
	for _, name := range slices.Sorted(maps.Keys(j.claims)) {
		id = id.Derive(name).Derive(j.claims[name])
	}
	return id
}

// Validate implements Validator.
func (j *JWT) Validate(data []byte, e *PeerEntry, now time.Time) (Expiration, error) {
	if len(data) > MaxTicket || !utf8.Valid(data) {
		return Expiration{}, reject(ReasonMalformed, "it is no text of up to %d bytes", MaxTicket)
	}
	claims, err := j.verified(string(data))
	if err != nil {
		return Expiration{}, err
	}
	return j.judge(claims, e, now)
}

// verified returns the claims of a token that one of the keys has signed.
func (j *JWT) verified(token string) (map[string]json.RawMessage, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil, reject(ReasonMalformed, "%d parts, a token has three", len(parts))
	}
	header, err := jwtObject(parts[0])
	if err != nil {
		return nil, reject(ReasonMalformed, "header: %w", err)
	}
	var alg string
	if err := json.Unmarshal(header["alg"], &alg); err != nil {
		return nil, reject(ReasonAlgorithm, "it names none")
	}
	if _, critical := header["crit"]; critical {
		return nil, reject(ReasonMalformed, "it has critical extensions, of which none is known here")
	}
	method := jwt.GetSigningMethod(alg)
	tried := false
	signature, err := base64.RawURLEncoding.Strict().DecodeString(parts[2])
	if err != nil {
		return nil, reject(ReasonMalformed, "signature: %w", err)
	}
	for _, k := range j.o.Keys {
		if k.alg != alg || method == nil {
			continue
		}
		tried = true
		if method.Verify(parts[0]+"."+parts[1], signature, k.key) != nil {
			continue
		}
		claims, err := jwtObject(parts[1])
		if err != nil {
			return nil, reject(ReasonMalformed, "claims: %w", err)
		}
		return claims, nil
	}
	if !tried {
		return nil, reject(ReasonAlgorithm, "there is no key of %q", alg)
	}
	return nil, reject(ReasonSignature, "no key of %s verifies it", alg)
}

// jwtObject decodes a part of a token: a JSON object in which no name occurs twice, at
// any depth.
func jwtObject(part string) (map[string]json.RawMessage, error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(part)
	if err != nil {
		return nil, err
	}
	if err := uniqueNames(json.NewDecoder(bytes.NewReader(b))); err != nil {
		return nil, err
	}
	var object map[string]json.RawMessage
	if err := json.Unmarshal(b, &object); err != nil {
		return nil, err
	}
	if object == nil {
		return nil, errors.New("it is no object")
	}
	return object, nil
}

// maxJWTDepth bounds how deep the JSON of a token is nested.
const maxJWTDepth = 32

// uniqueNames reads one JSON value and refuses names that occur twice in an object:
// parsers differ in which of them counts.
func uniqueNames(d *json.Decoder) error {
	type level struct {
		names map[string]bool // nil: an array
		value bool            // a value comes next, not a name
	}
	var stack []level
	for {
		t, err := d.Token()
		if err != nil {
			if errors.Is(err, io.EOF) && len(stack) == 0 {
				return nil
			}
			return err
		}
		var top *level
		if n := len(stack); n > 0 {
			top = &stack[n-1]
		}
		switch delim, _ := t.(json.Delim); {
		case delim == '{' || delim == '[':
			if len(stack) == maxJWTDepth {
				return fmt.Errorf("nested more than %d deep", maxJWTDepth)
			}
			if top != nil {
				top.value = false
			}
			l := level{}
			if delim == '{' {
				l.names = make(map[string]bool)
			}
			stack = append(stack, l)
		case delim == '}' || delim == ']':
			stack = stack[:len(stack)-1]
		case top != nil && top.names != nil && !top.value:
			name, _ := t.(string)
			if top.names[name] {
				return fmt.Errorf("%q occurs twice", name)
			}
			top.names[name] = true
			top.value = true
		case top != nil:
			top.value = false
		}
	}
}

// judge looks at the claims of a token that is genuine.
func (j *JWT) judge(claims map[string]json.RawMessage, e *PeerEntry, now time.Time) (Expiration, error) {
	second := now.Unix()
	issuer, err := claimText(claims, "iss")
	if err != nil {
		return Expiration{}, err
	}
	if len(j.o.Issuers) > 0 && !slices.Contains(j.o.Issuers, issuer) {
		return Expiration{}, reject(ReasonIssuer, "%q", issuer)
	}
	want := j.o.Subject
	if want == "" {
		want = e.Peer.String()
	}
	if subject, err := claimText(claims, "sub"); err != nil || subject != want {
		return Expiration{}, reject(ReasonSubject, "%q, not %q", subject, want)
	}
	if from, given, err := claimTime(claims, "nbf"); err != nil {
		return Expiration{}, err
	} else if given && from > second {
		return Expiration{}, reject(ReasonNotYetValid, "from %s on", instant(from))
	}
	until, expires, err := claimTime(claims, "exp")
	switch {
	case err != nil:
		return Expiration{}, err
	case !expires && !j.o.AllowNonExpiring:
		return Expiration{}, reject(ReasonNonExpiring, "it has no exp")
	case expires && until <= second:
		return Expiration{}, reject(ReasonExpired, "at %s", instant(until))
	case expires && j.o.MaxLifetime > 0 && until-second > int64(j.o.MaxLifetime/time.Second):
		return Expiration{}, reject(ReasonLifetime, "until %s, %v from now at most", instant(until), j.o.MaxLifetime)
	}
	if j.o.MaxAge > 0 {
		issued, given, err := claimTime(claims, "iat")
		switch {
		case err != nil:
			return Expiration{}, err
		case !given:
			return Expiration{}, reject(ReasonAge, "it does not say when it was issued")
		case second-issued > int64(j.o.MaxAge/time.Second):
			return Expiration{}, reject(ReasonAge, "issued at %s, %v ago at most", instant(issued), j.o.MaxAge)
		}
	}
	audience, err := claimText(claims, "aud")
	if err != nil {
		return Expiration{}, err
	}
	if len(j.o.Audiences) > 0 && !slices.Contains(j.o.Audiences, audience) {
		return Expiration{}, reject(ReasonAudience, "%q", audience)
	}
	for _, name := range slices.Sorted(maps.Keys(j.claims)) {
		if !sameJSON(claims[name], j.claims[name]) {
			return Expiration{}, reject(ReasonClaim, "%s is %s, not %s", name, orNothing(claims[name]), j.claims[name])
		}
	}
	if !expires {
		return Never(), nil
	}
	return ExpiresAt(time.Unix(until, 0).UTC()), nil
}

func orNothing(b json.RawMessage) string {
	if b == nil {
		return "absent"
	}
	return string(b)
}

// claimText returns a claim that is a string; empty if it is absent.
func claimText(claims map[string]json.RawMessage, name string) (text string, err error) {
	b, given := claims[name]
	if !given {
		return "", nil
	}
	if err := json.Unmarshal(b, &text); err != nil || bytes.Equal(b, []byte("null")) {
		return "", reject(ReasonMalformed, "%s is no string", name)
	}
	return text, nil
}

// maxClaimTime is the last second that can be told in RFC 3339.
const maxClaimTime = 253402300799

// claimTime returns a claim that is a time in whole seconds.
func claimTime(claims map[string]json.RawMessage, name string) (second int64, given bool, err error) {
	b, given := claims[name]
	if !given {
		return 0, false, nil
	}
	if err := json.Unmarshal(b, &second); err != nil || bytes.Equal(b, []byte("null")) || second < 0 || second > maxClaimTime {
		return 0, true, reject(ReasonMalformed, "%s is %s: no whole number of seconds since 1970 until the year 9999", name, b)
	}
	return second, true, nil
}

func instant(second int64) string { return time.Unix(second, 0).UTC().Format(time.RFC3339) }

// sameJSON compares JSON values; numbers by their value.
func sameJSON(a json.RawMessage, b string) bool {
	decode := func(text []byte) (v any, err error) {
		d := json.NewDecoder(bytes.NewReader(text))
		d.UseNumber()
		err = d.Decode(&v)
		return v, err
	}
	x, err1 := decode(a)
	y, err2 := decode([]byte(b))
	return err1 == nil && err2 == nil && sameValue(x, y)
}

func sameValue(x, y any) bool {
	switch x := x.(type) {
	case map[string]any:
		y, ok := y.(map[string]any)
		return ok && maps.EqualFunc(x, y, sameValue)
	case []any:
		y, ok := y.([]any)
		return ok && slices.EqualFunc(x, y, sameValue)
	case json.Number:
		y, ok := y.(json.Number)
		return ok && sameNumber(x, y)
	}
	return x == y
}

// sameNumber compares numbers exactly where both are whole.
func sameNumber(x, y json.Number) bool {
	if i, err := x.Int64(); err == nil {
		if j, err := y.Int64(); err == nil {
			return i == j
		}
	}
	f, err1 := x.Float64()
	g, err2 := y.Float64()
	return err1 == nil && err2 == nil && f == g && !math.IsInf(f, 0)
}
