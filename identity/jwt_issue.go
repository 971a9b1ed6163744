package identity

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// JWTSigner signs tokens with one key. It holds a secret.
type JWTSigner struct {
	method jwt.SigningMethod
	key    any
}

// NewJWTSecretSigner returns the signer of HS256, HS384 or HS512 with a secret of just
// 32, 48 or 64 bytes, which is copied.
func NewJWTSecretSigner(alg string, secret []byte) (*JWTSigner, error) {
	if _, err := NewJWTKey(alg, secret); err != nil {
		return nil, err
	}
	if jwtAlgorithms()[alg].curve != nil || alg == "EdDSA" {
		return nil, fmt.Errorf("%w: %s does not sign with a secret", ErrJWTKey, alg)
	}
	return &JWTSigner{jwt.GetSigningMethod(alg), bytes.Clone(secret)}, nil
}

// NewJWTKeySigner returns the signer of EdDSA with a peer's key.
func NewJWTKeySigner(key Key) (*JWTSigner, error) {
	if key.IsZero() {
		return nil, fmt.Errorf("%w: the zero key is nobody's", ErrJWTKey)
	}
	return &JWTSigner{jwt.SigningMethodEdDSA, ed25519.PrivateKey(*key.private)}, nil
}

// NewJWTCurveSigner returns the signer of ES256, ES384 or ES512, by the key's curve.
func NewJWTCurveSigner(key *ecdsa.PrivateKey) (*JWTSigner, error) {
	for alg, a := range jwtAlgorithms() {
		if a.curve != nil && key != nil && key.Curve == a.curve {
			return &JWTSigner{jwt.GetSigningMethod(alg), key}, nil
		}
	}
	return nil, fmt.Errorf("%w: its curve is none of P-256, P-384 and P-521", ErrJWTKey)
}

// Algorithm returns the name of what it signs with.
func (s *JWTSigner) Algorithm() string { return s.method.Alg() }

// JWTClaims are what a token says. Times are cut to whole seconds; the zero time and
// the empty string leave a claim out.
type JWTClaims struct {
	Issuer, Subject, Audience, TokenID string
	// IssuedAt is required: without it nobody can tell how old the token is.
	IssuedAt, NotBefore, Expires time.Time
	// Private are further claims.
	Private map[string]any
}

// Issue returns a signed token as a ticket.
func (s *JWTSigner) Issue(c JWTClaims) (Ticket, error) {
	bad := func(err error) (Ticket, error) { return Ticket{}, fmt.Errorf("mosaik: issue token: %w", err) }
	claims := jwt.MapClaims(maps.Clone(c.Private))
	if claims == nil {
		claims = jwt.MapClaims{}
	}
	for name := range c.Private {
		if registered(name) {
			return bad(fmt.Errorf("claim %q has a field of its own", name))
		}
	}
	if c.IssuedAt.IsZero() {
		return bad(errors.New("it does not say when: IssuedAt is missing"))
	}
	if !c.Expires.IsZero() && !c.Expires.After(c.IssuedAt) {
		return bad(errors.New("it would expire before it is issued"))
	}
	for name, text := range map[string]string{"iss": c.Issuer, "sub": c.Subject, "aud": c.Audience, "jti": c.TokenID} {
		if text != "" {
			claims[name] = text
		}
	}
	for name, at := range map[string]time.Time{"iat": c.IssuedAt, "nbf": c.NotBefore, "exp": c.Expires} {
		if at.IsZero() {
			continue
		}
		if at.Unix() < 0 || at.Unix() > maxClaimTime {
			return bad(fmt.Errorf("%s: %v cannot be told", name, at))
		}
		claims[name] = at.Unix()
	}
	text, err := jwt.NewWithClaims(s.method, claims).SignedString(s.key)
	if err != nil {
		return bad(err)
	}
	if len(text) > MaxTicket {
		return bad(fmt.Errorf("%d bytes, at most %d are allowed", len(text), MaxTicket))
	}
	return Ticket{Class: JWTClass(), Data: []byte(text)}, nil
}
