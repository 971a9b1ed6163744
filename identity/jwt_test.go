package identity

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

var jwtSecret = []byte("0123456789abcdef0123456789abcdef")

func mustKey(t testing.TB, alg string, key []byte) JWTKey {
	t.Helper()
	k, err := NewJWTKey(alg, key)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// token makes a token of HS256 from the text of its header and claims.
func token(header, claims string) []byte {
	b64 := base64.RawURLEncoding
	text := b64.EncodeToString([]byte(header)) + "." + b64.EncodeToString([]byte(claims))
	mac := hmac.New(sha256.New, jwtSecret)
	mac.Write([]byte(text))
	return []byte(text + "." + b64.EncodeToString(mac.Sum(nil)))
}

const hs256 = `{"alg":"HS256","typ":"JWT"}`

// TestJWT goes through every rule, by tokens that are right but for one thing.
func TestJWT(t *testing.T) {
	e := &PeerEntry{Peer: testKey(1).PeerID()}
	me := e.Peer.String()
	now := time.Unix(1_000_000, 999_999_999)
	base := JWTOptions{Keys: []JWTKey{mustKey(t, "HS256", jwtSecret)}}
	with := func(change func(o *JWTOptions)) JWTOptions {
		o := base
		change(&o)
		return o
	}
	good := `{"sub":"` + me + `","exp":1000060}`
	for _, c := range []struct {
		name    string
		o       JWTOptions
		token   []byte
		want    Reason // empty: accepted
		expires int64  // 0: never
	}{
		{"good", base, token(hs256, good), "", 1000060},
		{"text that is none", base, []byte{0xff, 0xfe}, ReasonMalformed, 0},
		{"two parts", base, []byte("a.b"), ReasonMalformed, 0},
		{"four parts", base, []byte("a.b.c.d"), ReasonMalformed, 0},
		{"padded", base, append(token(hs256, good), '='), ReasonMalformed, 0},
		{"none", base, token(`{"alg":"none"}`, good), ReasonAlgorithm, 0},
		{"no algorithm", base, token(`{}`, good), ReasonAlgorithm, 0},
		{"another algorithm", base, token(`{"alg":"HS384"}`, good), ReasonAlgorithm, 0},
		{"an unknown algorithm", base, token(`{"alg":"HS1"}`, good), ReasonAlgorithm, 0},
		{"a public key as a secret", with(func(o *JWTOptions) { o.Keys = []JWTKey{mustKey(t, "EdDSA", jwtSecret)} }), token(hs256, good), ReasonAlgorithm, 0},
		{"critical", base, token(`{"alg":"HS256","crit":["exp"],"exp":1}`, good), ReasonMalformed, 0},
		{"algorithm twice", base, token(`{"alg":"none","alg":"HS256"}`, good), ReasonMalformed, 0},
		{"claim twice", base, token(hs256, `{"sub":"`+me+`","exp":1,"exp":1000060}`), ReasonMalformed, 0},
		{"inner name twice", base, token(hs256, `{"sub":"`+me+`","exp":1000060,"x":[{"a":1,"a":2}]}`), ReasonMalformed, 0},
		{"deep", base, token(hs256, `{"x":`+strings.Repeat("[", 40)+strings.Repeat("]", 40)+`}`), ReasonMalformed, 0},
		{"no object", base, token(hs256, `[1]`), ReasonMalformed, 0},
		{"null", base, token(hs256, `null`), ReasonMalformed, 0},
		{"more after it", base, token(hs256, good+`{}`), ReasonMalformed, 0},
		{"another secret", with(func(o *JWTOptions) { o.Keys = []JWTKey{mustKey(t, "HS256", make([]byte, 32))} }), token(hs256, good), ReasonSignature, 0},
		{"one of two secrets", with(func(o *JWTOptions) {
			o.Keys = []JWTKey{mustKey(t, "HS256", make([]byte, 32)), mustKey(t, "HS256", jwtSecret)}
		}), token(hs256, good), "", 1000060},
		{"issuer", with(func(o *JWTOptions) { o.Issuers = []string{"x", "y"} }), token(hs256, `{"iss":"y",`+good[1:]), "", 1000060},
		{"another issuer", with(func(o *JWTOptions) { o.Issuers = []string{"x", "y"} }), token(hs256, `{"iss":"z",`+good[1:]), ReasonIssuer, 0},
		{"no issuer", with(func(o *JWTOptions) { o.Issuers = []string{"x"} }), token(hs256, good), ReasonIssuer, 0},
		{"an issuer that is no text", base, token(hs256, `{"iss":1,`+good[1:]), ReasonMalformed, 0},
		{"another subject", base, token(hs256, `{"sub":"`+testKey(2).PeerID().String()+`","exp":1000060}`), ReasonSubject, 0},
		{"no subject", base, token(hs256, `{"exp":1000060}`), ReasonSubject, 0},
		{"subject of the options", with(func(o *JWTOptions) { o.Subject = "anybody" }), token(hs256, `{"sub":"anybody","exp":1000060}`), "", 1000060},
		{"not before now", base, token(hs256, `{"nbf":1000000,`+good[1:]), "", 1000060},
		{"not before later", base, token(hs256, `{"nbf":1000001,`+good[1:]), ReasonNotYetValid, 0},
		{"expires now", base, token(hs256, `{"sub":"`+me+`","exp":1000000}`), ReasonExpired, 0},
		{"expires next", base, token(hs256, `{"sub":"`+me+`","exp":1000001}`), "", 1000001},
		{"does not expire", base, token(hs256, `{"sub":"`+me+`"}`), ReasonNonExpiring, 0},
		{"may not expire", with(func(o *JWTOptions) { o.AllowNonExpiring = true }), token(hs256, `{"sub":"`+me+`"}`), "", 0},
		{"issued at a fraction, though nobody asks", base, token(hs256, `{"iat":1.5,`+good[1:]), ReasonMalformed, 0},
		{"an id that is no text", base, token(hs256, `{"jti":7,`+good[1:]), ReasonMalformed, 0},
		{"a subject that is no text", base, token(hs256, `{"sub":null,"exp":1000060}`), ReasonMalformed, 0},
		{"no audience", with(func(o *JWTOptions) { o.Audiences = []string{"a"} }), token(hs256, good), ReasonAudience, 0},
		{"not UTF-8", base, token(hs256, "{\"x\":\"\xff\","+good[1:]), ReasonMalformed, 0},
		{"a name escaped and not", base, token(hs256, `{"\u0073ub":"x",`+good[1:]), ReasonMalformed, 0},
		{"no signature", base, bytes.TrimRight(token(hs256, good), "-_abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"), ReasonSignature, 0},
		{"a line end at its end", base, append(token(hs256, good), '\n'), ReasonMalformed, 0},
		{"an unknown header", base, token(`{"alg":"HS256","kid":"1","jwk":{}}`, good), "", 1000060},
		{"an algorithm in lower case", base, token(`{"alg":"hs256"}`, good), ReasonAlgorithm, 0},
		{"an algorithm that is no text", base, token(`{"alg":256}`, good), ReasonAlgorithm, 0},
		{"exp is text", base, token(hs256, `{"sub":"`+me+`","exp":"1000060"}`), ReasonMalformed, 0},
		{"exp is a fraction", base, token(hs256, `{"sub":"`+me+`","exp":1000060.5}`), ReasonMalformed, 0},
		{"exp is null", base, token(hs256, `{"sub":"`+me+`","exp":null}`), ReasonMalformed, 0},
		{"exp is negative", base, token(hs256, `{"sub":"`+me+`","exp":-1}`), ReasonMalformed, 0},
		{"exp is huge", base, token(hs256, `{"sub":"`+me+`","exp":99999999999999999999}`), ReasonMalformed, 0},
		{"exp is beyond dates", base, token(hs256, `{"sub":"`+me+`","exp":253402300800}`), ReasonMalformed, 0},
		{"lifetime", with(func(o *JWTOptions) { o.MaxLifetime = time.Minute }), token(hs256, good), "", 1000060},
		{"longer lifetime", with(func(o *JWTOptions) { o.MaxLifetime = 59 * time.Second }), token(hs256, good), ReasonLifetime, 0},
		{"age", with(func(o *JWTOptions) { o.MaxAge = time.Minute }), token(hs256, `{"iat":999940,`+good[1:]), "", 1000060},
		{"greater age", with(func(o *JWTOptions) { o.MaxAge = time.Minute }), token(hs256, `{"iat":999939,`+good[1:]), ReasonAge, 0},
		{"no age", with(func(o *JWTOptions) { o.MaxAge = time.Minute }), token(hs256, good), ReasonAge, 0},
		{"issued in the future", with(func(o *JWTOptions) { o.MaxAge = time.Minute }), token(hs256, `{"iat":1000500,`+good[1:]), "", 1000060},
		{"audience", with(func(o *JWTOptions) { o.Audiences = []string{"a", "b"} }), token(hs256, `{"aud":"b",`+good[1:]), "", 1000060},
		{"another audience", with(func(o *JWTOptions) { o.Audiences = []string{"a", "b"} }), token(hs256, `{"aud":"c",`+good[1:]), ReasonAudience, 0},
		{"a list of audiences", with(func(o *JWTOptions) { o.Audiences = []string{"a"} }), token(hs256, `{"aud":["a"],`+good[1:]), ReasonMalformed, 0},
		{"claim", with(func(o *JWTOptions) { o.Claims = map[string]any{"role": map[string]any{"a": 1, "b": []string{"x"}}} }), token(hs256, `{"role":{"b":["x"],"a":1},`+good[1:]), "", 1000060},
		{"a claim that is another number", with(func(o *JWTOptions) { o.Claims = map[string]any{"n": 1} }), token(hs256, `{"n":1.0,`+good[1:]), ReasonClaim, 0},
		{"a fraction written otherwise", with(func(o *JWTOptions) { o.Claims = map[string]any{"n": 0.25} }), token(hs256, `{"n":25e-2,`+good[1:]), "", 1000060},
		{"a number too large to compare", with(func(o *JWTOptions) { o.Claims = map[string]any{"n": 1} }), token(hs256, `{"n":1e99,`+good[1:]), ReasonClaim, 0},
		{"a claim that is null", with(func(o *JWTOptions) { o.Claims = map[string]any{"n": nil} }), token(hs256, `{"n":null,`+good[1:]), "", 1000060},
		{"a claim that is absent, not null", with(func(o *JWTOptions) { o.Claims = map[string]any{"n": nil} }), token(hs256, good), ReasonClaim, 0},
		{"another order of a list", with(func(o *JWTOptions) { o.Claims = map[string]any{"l": []string{"a", "b"}} }), token(hs256, `{"l":["b","a"],`+good[1:]), ReasonClaim, 0},
		{"another claim", with(func(o *JWTOptions) { o.Claims = map[string]any{"role": "writer"} }), token(hs256, `{"role":"reader",`+good[1:]), ReasonClaim, 0},
		{"no claim", with(func(o *JWTOptions) { o.Claims = map[string]any{"role": "writer"} }), token(hs256, good), ReasonClaim, 0},
		{"a large number as a claim", with(func(o *JWTOptions) { o.Claims = map[string]any{"n": int64(1) << 53} }), token(hs256, `{"n":9007199254740993,`+good[1:]), ReasonClaim, 0},
		{"oversize", base, append(token(hs256, good), make([]byte, MaxTicket)...), ReasonOversize, 0},
	} {
		j, err := NewJWT(c.o)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		got, err := j.Validate(c.token, e, now)
		if c.want != "" {
			if !errors.Is(err, c.want) {
				t.Errorf("%s: %v, %v; want %s", c.name, got, err, c.want)
			}
			continue
		}
		want := Never()
		if c.expires != 0 {
			want = ExpiresAt(time.Unix(c.expires, 0))
		}
		if err != nil || got != want {
			t.Errorf("%s: %v, %v; want %v", c.name, got, err, want)
		}
	}
}

// TestJWTFlips: no bit of a token can be changed.
func TestJWTFlips(t *testing.T) {
	e := &PeerEntry{Peer: testKey(1).PeerID()}
	j, err := NewJWT(JWTOptions{Keys: []JWTKey{mustKey(t, "HS256", jwtSecret)}})
	if err != nil {
		t.Fatal(err)
	}
	good := token(hs256, `{"sub":"`+e.Peer.String()+`","exp":1000060}`)
	for i := range good {
		for bit := range 8 {
			b := append([]byte(nil), good...)
			b[i] ^= 1 << bit
			if _, err := j.Validate(b, e, time.Unix(1_000_000, 0)); err == nil {
				t.Fatalf("bit %d of byte %d changes nothing: %s", bit, i, b)
			}
		}
	}
}

// TestJWTIssue: what every kind of signer issues is accepted with its key, as a
// ticket of an entry.
func TestJWTIssue(t *testing.T) {
	peer := testKey(1)
	now := testNow
	claims := JWTClaims{
		Issuer: "issuer", Subject: peer.PeerID().String(), Audience: "prices", TokenID: "7",
		IssuedAt: now, NotBefore: now.Add(-time.Second), Expires: now.Add(time.Hour), Private: map[string]any{"role": "writer"},
	}
	signers := map[string]func() (*JWTSigner, []byte, error){
		"EdDSA": func() (*JWTSigner, []byte, error) {
			s, err := NewJWTKeySigner(testKey(7))
			id := testKey(7).PeerID()
			return s, id[:], err
		},
	}
	for alg, size := range map[string]int{"HS256": 32, "HS384": 48, "HS512": 64} {
		signers[alg] = func() (*JWTSigner, []byte, error) {
			secret := make([]byte, size)
			s, err := NewJWTSecretSigner(alg, secret)
			return s, secret, err
		}
	}
	for alg, curve := range map[string]elliptic.Curve{"ES256": elliptic.P256(), "ES384": elliptic.P384(), "ES512": elliptic.P521()} {
		signers[alg] = func() (*JWTSigner, []byte, error) {
			key, err := ecdsa.GenerateKey(curve, rand.Reader)
			if err != nil {
				return nil, nil, err
			}
			point, err := key.PublicKey.Bytes()
			if err != nil {
				return nil, nil, err
			}
			n := (len(point) - 1) / 2
			s, err := NewJWTCurveSigner(key)
			return s, append([]byte{2 + point[len(point)-1]&1}, point[1:1+n]...), err
		}
	}
	for alg, make := range signers {
		s, key, err := make()
		if err != nil || s.Key().Algorithm() != alg {
			t.Fatalf("%s: %v", alg, err)
		}
		if !bytes.Equal(s.Key().Bytes(), key) || s.Key().Fingerprint() != mustKey(t, alg, key).Fingerprint() {
			t.Errorf("%s: its key is %v", alg, s.Key())
		}
		ticket, err := s.Issue(claims)
		if err != nil {
			t.Fatalf("%s: %v", alg, err)
		}
		j, err := NewJWT(JWTOptions{
			Keys: []JWTKey{mustKey(t, alg, key)}, Issuers: []string{"issuer"}, Audiences: []string{"prices"}, Claims: map[string]any{"role": "writer"},
			MaxAge: time.Minute, MaxLifetime: time.Hour,
		})
		if err != nil {
			t.Fatal(err)
		}
		e := &PeerEntry{Peer: peer.PeerID(), Tickets: []Ticket{ticket}}
		until, err := Require(j).Admit(e, now)
		if at, _ := until.Time(); err != nil || at.Unix() != claims.Expires.Unix() {
			t.Errorf("%s: %v, %v", alg, until, err)
		}
		// NotBefore is rounded up, and not to before it.
		if until, err = Require(j).Admit(e, now.Add(-time.Second)); !errors.Is(err, ReasonNotYetValid) {
			t.Errorf("%s, a second before: %v, %v", alg, until, err)
		}
	}
	s, err := NewJWTKeySigner(testKey(7))
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]JWTClaims{
		"no IssuedAt":                {Subject: "x"},
		"no Subject":                 {IssuedAt: now},
		"is not after its IssuedAt":  {Subject: "x", IssuedAt: now, Expires: now},
		"is not after its NotBefore": {Subject: "x", IssuedAt: now, NotBefore: now.Add(2), Expires: now.Add(1)},
		"a field of its own":         {Subject: "x", IssuedAt: now, Private: map[string]any{"sub": "x"}},
		"no one JSON text":           {Subject: "x", IssuedAt: now, Private: map[string]any{"f": func() {}}},
		"at most 8192":               {Subject: "x", IssuedAt: now, Private: map[string]any{"f": strings.Repeat("x", MaxTicket)}},
		"between 1970":               {Subject: "x", IssuedAt: time.Unix(-1, 0)},
	} {
		if _, err := s.Issue(c); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestJWTKeys(t *testing.T) {
	for _, a := range jwtAlgorithms() {
		for _, size := range []int{0, a.size - 1, a.size + 1} {
			if _, err := NewJWTKey(a.alg, make([]byte, size)); !errors.Is(err, ErrJWTKey) {
				t.Errorf("%s of %d bytes: %v", a.alg, size, err)
			}
		}
		if _, err := NewJWTKey(a.alg, make([]byte, a.size)); a.curve != nil && !errors.Is(err, ErrJWTKey) {
			t.Errorf("%s: zeros are a point: %v", a.alg, err)
		}
		if a.curve == nil {
			continue
		}
		if _, err := NewJWTSecretSigner(a.alg, make([]byte, a.size)); !errors.Is(err, ErrJWTKey) {
			t.Errorf("%s signs with a secret: %v", a.alg, err)
		}
	}
	for _, alg := range []string{"", "none", "RS256", "hs256", "ES256K"} {
		if _, err := NewJWTKey(alg, make([]byte, 32)); !errors.Is(err, ErrJWTKey) {
			t.Errorf("algorithm %q: %v", alg, err)
		}
	}
	if _, err := NewJWTSecretSigner("EdDSA", make([]byte, 32)); !errors.Is(err, ErrJWTKey) {
		t.Errorf("a public key signs: %v", err)
	}
	if _, err := NewJWTKeySigner(Key{}); !errors.Is(err, ErrJWTKey) {
		t.Errorf("the zero key signs: %v", err)
	}
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []*ecdsa.PrivateKey{nil, {}, p224} {
		if _, err := NewJWTCurveSigner(key); !errors.Is(err, ErrJWTKey) {
			t.Errorf("a key of no curve signs: %v", err)
		}
	}
}

func TestJWTOptionsRefused(t *testing.T) {
	key := mustKey(t, "HS256", jwtSecret)
	many := make([]string, MaxJWTNames+1)
	claims := map[string]any{}
	for i := range many {
		many[i] = fmt.Sprint(i)
		claims[many[i]] = i
	}
	for what, o := range map[string]JWTOptions{
		"one or more are wanted, at most 16; there are 0":        {},
		"Keys: one or more are wanted, at most 16; there are 17": {Keys: make([]JWTKey, MaxJWTKeys+1)},
		"Keys: the zero key":                  {Keys: []JWTKey{key, {}}},
		"MaxAge: 1ms":                         {Keys: []JWTKey{key}, MaxAge: time.Millisecond},
		"MaxLifetime: -1s":                    {Keys: []JWTKey{key}, MaxLifetime: -time.Second},
		"Issuers: there are 65":               {Keys: []JWTKey{key}, Issuers: many},
		"Audiences: there are 65":             {Keys: []JWTKey{key}, Audiences: many},
		"Claims: there are 65":                {Keys: []JWTKey{key}, Claims: claims},
		`Issuers: "a,b" holds a comma`:        {Keys: []JWTKey{key}, Issuers: []string{"a,b"}},
		"Audiences: one is empty":             {Keys: []JWTKey{key}, Audiences: []string{""}},
		`Claims: "exp" has an option`:         {Keys: []JWTKey{key}, Claims: map[string]any{"exp": 1}},
		`Claims: "c": a chan int has no`:      {Keys: []JWTKey{key}, Claims: map[string]any{"c": make(chan int)}},
		`Claims: "c": the number 1e+16`:       {Keys: []JWTKey{key}, Claims: map[string]any{"c": 1e16}},
		`Claims: "c": the name "a" occurs tw`: {Keys: []JWTKey{key}, Claims: map[string]any{"c": json.RawMessage(`{"a":1,"a":2}`)}},
	} {
		if _, err := NewJWT(o); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestJWTKeyPrintsNoSecret: whatever holds a key can be printed.
func TestJWTKeyPrintsNoSecret(t *testing.T) {
	key := mustKey(t, "HS256", jwtSecret)
	signer, err := NewJWTSecretSigner("HS256", jwtSecret)
	if err != nil {
		t.Fatal(err)
	}
	j, err := NewJWT(JWTOptions{Keys: []JWTKey{key}})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []any{key, &key, []JWTKey{key}, struct{ k JWTKey }{key}, JWTOptions{Keys: []JWTKey{key}}, signer, *signer, j, *j} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%d", "%x"} {
			text := fmt.Sprintf(verb, v)
			for _, secret := range []string{"48 49 50 51", "0x30, 0x31", "30313233", "0123456789abcdef"} {
				if strings.Contains(text, secret) {
					t.Errorf("%T by %s: %s", v, verb, text)
				}
			}
		}
	}
}

// TestJWTSignature: each option moves the signature. The class is that of the Rust
// runtime.
func TestJWTSignature(t *testing.T) {
	if got, want := JWTClass().String(), "4586eafab50d29f2ad5212e08f84d0a789cd6a565ce8d344652b1b7b60973d8c"; got != want {
		t.Errorf("class %s, want %s", got, want)
	}
	k1, k2 := mustKey(t, "HS256", jwtSecret), mustKey(t, "EdDSA", jwtSecret)
	seen := map[ID]int{}
	for i, o := range []JWTOptions{
		{Keys: []JWTKey{k1}}, {Keys: []JWTKey{k2}}, {Keys: []JWTKey{k1, k2}}, {Keys: []JWTKey{k2, k1}},
		{Keys: []JWTKey{k1}, Issuers: []string{"a"}}, {Keys: []JWTKey{k1}, Audiences: []string{"a"}}, {Keys: []JWTKey{k1}, Subject: "a"},
		{Keys: []JWTKey{k1}, AllowNonExpiring: true}, {Keys: []JWTKey{k1}, MaxAge: time.Second}, {Keys: []JWTKey{k1}, MaxLifetime: time.Second},
		{Keys: []JWTKey{k1}, Claims: map[string]any{"a": 1}}, {Keys: []JWTKey{k1}, Claims: map[string]any{"a": "1"}},
	} {
		j, err := NewJWT(o)
		if err != nil {
			t.Fatal(err)
		}
		if other, twice := seen[j.Signature()]; twice {
			t.Errorf("options %d and %d have one signature", i, other)
		}
		seen[j.Signature()] = i
	}
}

func FuzzJWT(f *testing.F) {
	e := &PeerEntry{Peer: testKey(1).PeerID()}
	j, err := NewJWT(JWTOptions{Keys: []JWTKey{mustKey(f, "HS256", jwtSecret)}, AllowNonExpiring: true})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(hs256, `{"sub":"`+e.Peer.String()+`","exp":1000060}`)
	f.Add(`{"alg":"none"}`, `{}`)
	f.Add(hs256, `{"a":[{"b":{}}]}`)
	for _, seed := range []string{`{"a":1,"a":2}`, `[1 2]`, `{"a":1]`, `"\ud800"`, "\xff", `1e999`, ` {} `, `1}`} {
		f.Add(hs256, seed)
	}
	f.Fuzz(func(t *testing.T, header, claims string) {
		checkJSON(t, header)
		checkJSON(t, claims)
		until, err := j.Validate(token(header, claims), e, time.Unix(1_000_000, 0))
		if err == nil && (until.Expired(time.Unix(1_000_000, 0)) || !strings.Contains(claims, e.Peer.String()) && !strings.Contains(claims, `\u`)) {
			t.Errorf("%s %s is accepted until %v", header, claims, until)
		}
		_, _ = j.Validate([]byte(header+"."+claims), e, time.Unix(1_000_000, 0))
	})
}
