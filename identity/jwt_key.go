package identity

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	_ "crypto/sha256" // the hashes that the JWT library asks package crypto for
	_ "crypto/sha512"
	"errors"
	"fmt"
	"math/big"

	"github.com/golang-jwt/jwt/v5"
)

// ErrJWTKey says that a key is not one of its algorithm.
var ErrJWTKey = errors.New("mosaik: bad JWT key")

// JWTKey verifies tokens of one algorithm. The zero JWTKey verifies nothing, and
// [NewJWT] refuses it. A key prints as its fingerprint: that of an HMAC is a secret.
type JWTKey struct {
	k *jwtKey
}

type jwtKey struct {
	jwtAlgorithm
	fingerprint ID
	// secret returns the key as it was given and as the library wants it. It is a function
	// because fmt, when it prints a struct that has a JWTKey in an unexported field, cannot
	// call String and would print the bytes.
	secret func() (raw []byte, verifier any)
}

// jwtAlgorithm is what is known of an algorithm.
type jwtAlgorithm struct {
	alg    string // in headers
	name   string // in fingerprints
	size   int    // of a key in bytes
	method jwt.SigningMethod
	curve  elliptic.Curve // nil for those that have none to choose
}

// jwtAlgorithms lists what is supported. The methods stand here, and are not looked up
// by name in the library, because there any package of a program may replace them.
func jwtAlgorithms() []jwtAlgorithm {
	return []jwtAlgorithm{
		{"HS256", "hs256", 32, jwt.SigningMethodHS256, nil},
		{"HS384", "hs384", 48, jwt.SigningMethodHS384, nil},
		{"HS512", "hs512", 64, jwt.SigningMethodHS512, nil},
		{"ES256", "es256", 33, jwt.SigningMethodES256, elliptic.P256()},
		{"ES384", "es384", 49, jwt.SigningMethodES384, elliptic.P384()},
		{"ES512", "es512", 67, jwt.SigningMethodES512, elliptic.P521()},
		{"EdDSA", "EdDsa", ed25519.PublicKeySize, jwt.SigningMethodEdDSA, nil},
	}
}

// NewJWTKey returns the key of an algorithm of RFC 7518 or 8037: HS256, HS384 or HS512
// with a secret of exactly 32, 48 or 64 bytes; ES256, ES384 or ES512 with a compressed
// point (SEC 1, 2.3.3) of 33, 49 or 67; EdDSA with an Ed25519 public key of 32. The key
// is copied. An error wraps [ErrJWTKey].
func NewJWTKey(alg string, key []byte) (JWTKey, error) {
	for _, a := range jwtAlgorithms() {
		if a.alg != alg {
			continue
		}
		if len(key) != a.size {
			return JWTKey{}, fmt.Errorf("%w: %d bytes for %s, %d are wanted", ErrJWTKey, len(key), alg, a.size)
		}
		raw := bytes.Clone(key)
		var verifier any = raw
		switch {
		case a.curve != nil:
			public, err := decompress(a.curve, key)
			if err != nil {
				return JWTKey{}, err
			}
			verifier = public
		case alg == "EdDSA":
			verifier = ed25519.PublicKey(raw)
		}
		secret := func() ([]byte, any) { return raw, verifier }
		return JWTKey{&jwtKey{a, NewID(a.name).Derive(string(key)), secret}}, nil
	}
	return JWTKey{}, fmt.Errorf("%w: algorithm %.64q is none of HS256, HS384, HS512, ES256, ES384, ES512 and EdDSA", ErrJWTKey, alg)
}

func decompress(c elliptic.Curve, point []byte) (*ecdsa.PublicKey, error) {
	x, y := elliptic.UnmarshalCompressed(c, point)
	if x == nil {
		return nil, fmt.Errorf("%w: it is no compressed point of %s", ErrJWTKey, c.Params().Name)
	}
	public, err := ecdsa.ParseUncompressedPublicKey(c, uncompressed(len(point)-1, x, y))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrJWTKey, err)
	}
	return public, nil
}

// uncompressed encodes a point (SEC 1, 2.3.3) whose coordinates have size bytes.
func uncompressed(size int, x, y *big.Int) []byte {
	b := make([]byte, 1+2*size)
	b[0] = 4
	x.FillBytes(b[1 : 1+size])
	y.FillBytes(b[1+size:])
	return b
}

// compressed is the reverse: 2 or 3, by whether y is odd, and x.
func compressed(key *ecdsa.PublicKey) ([]byte, error) {
	b, err := key.Bytes()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrJWTKey, err)
	}
	return append([]byte{2 + b[len(b)-1]&1}, b[1:1+(len(b)-1)/2]...), nil
}

// IsZero reports whether k is the zero JWTKey.
func (k JWTKey) IsZero() bool { return k.k == nil }

// Algorithm returns the name of k's algorithm; of the zero key, the empty string.
func (k JWTKey) Algorithm() string {
	if k.k == nil {
		return ""
	}
	return k.k.alg
}

// Bytes returns a copy of what [NewJWTKey] was given. For HS256, HS384 and HS512 that
// is the secret.
func (k JWTKey) Bytes() []byte {
	if k.k == nil {
		return nil
	}
	raw, _ := k.k.secret()
	return bytes.Clone(raw)
}

// Fingerprint returns NewID(name).Derive(key), in which the name is the algorithm's in
// lower case, but "EdDsa" for EdDSA: the rule of the Rust runtime. It tells keys apart
// and, of a secret that was chosen at random, does not give it away.
func (k JWTKey) Fingerprint() ID {
	if k.k == nil {
		return ID{}
	}
	return k.k.fingerprint
}

// String names the algorithm and the fingerprint, and keeps a secret out.
func (k JWTKey) String() string { return k.Algorithm() + " key " + k.Fingerprint().Short() }

// GoString is String: without it, %#v would tell less.
func (k JWTKey) GoString() string { return k.String() }

// verify reports whether the signature is the key's of the text.
func (k JWTKey) verify(text string, signature []byte) bool {
	_, verifier := k.k.secret()
	return k.k.method.Verify(text, signature, verifier) == nil
}
