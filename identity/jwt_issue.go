package identity

import (
	"crypto/ecdsa"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// JWTSigner signs tokens with one key. It may be used from any goroutine.
type JWTSigner struct {
	key JWTKey
	// sign has the secret, which fmt would print if it were a field.
	sign func(jwt.Claims) (string, error)
}

// NewJWTSecretSigner returns the signer of HS256, HS384 or HS512 with a secret of
// exactly 32, 48 or 64 bytes, which is copied.
func NewJWTSecretSigner(alg string, secret []byte) (*JWTSigner, error) {
	key, err := NewJWTKey(alg, secret)
	if err != nil {
		return nil, err
	}
	if _, hmac := key.k.method.(*jwt.SigningMethodHMAC); !hmac {
		return nil, fmt.Errorf("%w: %s does not sign with a secret that it is verified with", ErrJWTKey, alg)
	}
	return newJWTSigner(key, key.Bytes()), nil
}

// NewJWTKeySigner returns the signer of EdDSA with a peer's key.
func NewJWTKeySigner(key Key) (*JWTSigner, error) {
	if key.IsZero() {
		return nil, fmt.Errorf("%w: the zero key is nobody's", ErrJWTKey)
	}
	id := key.PeerID()
	public, err := NewJWTKey("EdDSA", id[:])
	if err != nil {
		return nil, err
	}
	return newJWTSigner(public, key.private()), nil
}

// NewJWTCurveSigner returns the signer of ES256, ES384 or ES512, by the key's curve.
// The key is shared and must not be changed.
func NewJWTCurveSigner(key *ecdsa.PrivateKey) (*JWTSigner, error) {
	if key == nil {
		return nil, fmt.Errorf("%w: there is none", ErrJWTKey)
	}
	for _, a := range jwtAlgorithms() {
		if a.curve == nil || key.Curve != a.curve {
			continue
		}
		point, err := compressed(&key.PublicKey)
		if err != nil {
			return nil, err
		}
		public, err := NewJWTKey(a.alg, point)
		if err != nil {
			return nil, err
		}
		return newJWTSigner(public, key), nil
	}
	return nil, fmt.Errorf("%w: its curve is none of P-256, P-384 and P-521", ErrJWTKey)
}

func newJWTSigner(key JWTKey, private any) *JWTSigner {
	return &JWTSigner{key: key, sign: func(c jwt.Claims) (string, error) {
		return jwt.NewWithClaims(key.k.method, c).SignedString(private)
	}}
}

// Key returns the key that verifies what s signs: public, or the secret itself for
// HS256, HS384 and HS512.
func (s *JWTSigner) Key() JWTKey { return s.key }

// JWTClaims are what a token says. Times count in whole seconds: the token is never
// valid earlier or later than they say. The zero time and the empty string leave a
// claim out.
type JWTClaims struct {
	// Subject is who the token is for, required since every validator asks for it: a
	// PeerID's text form, or what JWTOptions.Subject says there.
	Subject                   string
	Issuer, Audience, TokenID string
	// IssuedAt is required: without it nobody can tell how old the token is.
	IssuedAt, NotBefore, Expires time.Time
	// Private are further claims, of the kinds that JWTOptions.Claims can be.
	Private map[string]any
}

// Issue returns a signed token as a ticket. An error names the claim that cannot be
// issued.
func (s *JWTSigner) Issue(c JWTClaims) (Ticket, error) {
	claims, err := c.build()
	if err != nil {
		return Ticket{}, fmt.Errorf("mosaik: issue token: %w", err)
	}
	text, err := s.sign(claims)
	if err != nil {
		return Ticket{}, fmt.Errorf("mosaik: issue token: %w", err)
	}
	if len(text) > MaxTicket {
		return Ticket{}, fmt.Errorf("mosaik: issue token: %d bytes, at most %d are allowed", len(text), MaxTicket)
	}
	return Ticket{Class: JWTClass(), Data: []byte(text)}, nil
}

func (c *JWTClaims) build() (jwt.MapClaims, error) {
	switch {
	case c.Subject == "":
		return nil, errors.New("no Subject: the token does not say who it is for")
	case c.IssuedAt.IsZero():
		return nil, errors.New("no IssuedAt: the token does not say when it is made")
	case !c.Expires.IsZero() && !c.Expires.After(c.IssuedAt):
		return nil, fmt.Errorf("its Expires, %v, is not after its IssuedAt, %v", c.Expires, c.IssuedAt)
	case !c.Expires.IsZero() && !c.Expires.After(c.NotBefore):
		return nil, fmt.Errorf("its Expires, %v, is not after its NotBefore, %v", c.Expires, c.NotBefore)
	}
	claims := make(jwt.MapClaims)
	for name, value := range c.Private {
		if registered(name) {
			return nil, fmt.Errorf("claim %q has a field of its own", name)
		}
		text, err := appendJSON(nil, value, 1)
		if err != nil {
			return nil, fmt.Errorf("claim %.64q: %w", name, err)
		}
		claims[name] = json.RawMessage(text)
	}
	for name, text := range map[string]string{"iss": c.Issuer, "sub": c.Subject, "aud": c.Audience, "jti": c.TokenID} {
		if text != "" {
			claims[name] = text
		}
	}
	// A token must not be valid before it was asked to be: its start is rounded up.
	notBefore := c.NotBefore
	if !notBefore.IsZero() && notBefore.Nanosecond() > 0 {
		notBefore = notBefore.Add(time.Second)
	}
	for name, at := range map[string]time.Time{"iat": c.IssuedAt, "nbf": notBefore, "exp": c.Expires} {
		if at.IsZero() {
			continue
		}
		if at.Unix() < 0 || at.Unix() > maxClaimTime {
			return nil, fmt.Errorf("%s: %v is not between 1970 and the year 9999", name, at)
		}
		claims[name] = at.Unix()
	}
	return claims, nil
}
