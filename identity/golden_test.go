package identity

import (
	"encoding/binary"
	"errors"
	"strings"
	"testing"
	"time"

	"lukechampine.com/blake3"
)

// TestRustIDs: ids and signatures of the Rust runtime 0.3, of its classes and of its
// criteria for measurements when nothing is set.
func TestRustIDs(t *testing.T) {
	criteria := NewID("mosaik.tee.tdx.measurements-criteria.v1").Derive(strings.Repeat("\x09", 48))
	for rtmr := range 4 {
		criteria = criteria.Derive(strings.Repeat(string(rune(1+rtmr)), 48))
	}
	zero := strings.Repeat("\x00", 8)
	for _, c := range []struct {
		name string
		got  ID
		want string
	}{
		{"class of TDX", NewID("mosaik.tee.tdx.ticket.v1"), "0df6ed8500424a32854ef0a1b86ea7d41ef1a929b55e26023b045c91a38c44d0"},
		{"class of JWT", JWTClass(), "4586eafab50d29f2ad5212e08f84d0a789cd6a565ce8d344652b1b7b60973d8c"},
		{"extra data", NewID("mosaik.tdx.ticket.extra"), "1f0ee1d95b5040b047ee0baa0f8d8d4954d10eef92fa8d3f94b31f48d04dd51c"},
		{"class of criteria", NewID("mosaik.tee.tdx.measurements-criteria.v1"), "21056e3d2376955d3663dfb23035afd55b98bbfa2ff7e436284a93b3b2627ac1"},
		{"criteria", criteria, "3b000e646edb8d04184a929f13bb44c343bfbfb74fde13aa0dd1e058cca552b2"},
		{"TDX", NewID("mosaik.tee.tdx.ticket.v1").DeriveID(criteria).Derive(zero).Derive(zero).Derive(zero), "4c641def73856ee5236fe4d9883e509622c47f5aaf6b2e5fc6fdcf1d2b067c30"},
	} {
		if c.got.String() != c.want {
			t.Errorf("%s: %s, want %s", c.name, c.got, c.want)
		}
	}
}

// TestTicketID: BLAKE3 of the class and the data.
func TestTicketID(t *testing.T) {
	class := JWTClass()
	ticket := Ticket{class, []byte("a.b.c")}
	if want := ID(blake3.Sum256(append(class[:], "a.b.c"...))); ticket.ID() != want {
		t.Errorf("%s, want %s", ticket.ID(), want)
	}
}

// TestJWTSignatureGolden holds the signature of a validator against the rule of the Rust
// runtime, spelled out as one hash after the other, and against what it was, since
// the ids of groups follow from it.
func TestJWTSignatureGolden(t *testing.T) {
	derive := func(id [32]byte, info string) [32]byte { return blake3.Sum256(append(id[:], info...)) }
	named := func(name, key string) string {
		id := derive(blake3.Sum256([]byte(name)), key)
		return string(id[:])
	}
	le64 := func(n uint64) string { return string(binary.LittleEndian.AppendUint64(nil, n)) }
	secret48, peer := strings.Repeat("s", 48), testKey(1).PeerID()
	// The generator of P-256 (SEC 2, 2.4.2), as a key.
	point := "\x03\x6b\x17\xd1\xf2\xe1\x2c\x42\x47\xf8\xbc\xe6\xe5\x63\xa4\x40\xf2\x77\x03\x7d\x81\x2d\xeb\x33\xa0\xf4\xa1\x39\x45\xd8\x98\xc2\x96"
	for _, c := range []struct {
		name  string
		o     JWTOptions
		chain []string
		want  string
	}{
		{
			"one key", JWTOptions{Keys: []JWTKey{mustKey(t, "HS256", jwtSecret)}},
			[]string{"HS256", named("hs256", string(jwtSecret)), "\x00", "", "", "", le64(0), le64(0)},
			"723dc70cd397bba366d6b1794be9c33bd08866baf09c3cb77478c8663129ffb4",
		},
		{
			"everything", JWTOptions{
				Keys:    []JWTKey{mustKey(t, "EdDSA", peer[:]), mustKey(t, "HS384", []byte(secret48)), mustKey(t, "ES256", []byte(point))},
				Issuers: []string{"b", "a"}, Audiences: []string{"prices", "quotes"}, Subject: "sübject", AllowNonExpiring: true,
				MaxLifetime: time.Hour, MaxAge: 90 * time.Second,
				Claims: map[string]any{
					"tier": 3, "role": "<writer> & \"reader\"", "Z": []any{true, nil, 1.0, -2}, "limits": map[string]any{"b": 0.5, "a": []string{"x"}},
				},
			},
			[]string{
				"EdDSA", named("EdDsa", string(peer[:])), "HS384", named("hs384", secret48), "ES256", named("es256", point), "\x01", "b,a", "prices,quotes", "sübject",
				le64(3600), le64(90), "Z", "[true,null,1.0,-2]", "limits", `{"a":["x"],"b":0.5}`, "role", `"<writer> & \"reader\""`, "tier", "3",
			},
			"2b62098529032690a2c734ffa64df214f142b2306a02c5748c4d31a5124d4a38",
		},
	} {
		j, err := NewJWT(c.o)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		want := blake3.Sum256([]byte("mosaik.tickets.jwt.v1"))
		for _, info := range c.chain {
			want = derive(want, info)
		}
		if got := j.Signature(); got != want || got.String() != c.want {
			t.Errorf("%s: %s, by the rule %s, formerly %s", c.name, got, ID(want), c.want)
		}
	}
}

// TestJWTOfOthers verifies tokens that others have made: those of RFC 7515, A.3, and of
// RFC 8037, A.4. Neither is one for a peer, so what counts is how far each comes.
func TestJWTOfOthers(t *testing.T) {
	const (
		es256 = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ." +
			"DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
		eddsa = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc." +
			"hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
	)
	ecKey := append([]byte{3}, unbase64(t, "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU")...) // its y is odd
	edKey := unbase64(t, "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo")
	otherEC := append([]byte{2}, ecKey[1:]...) // the other point with this x
	for _, c := range []struct {
		name, token string
		key         JWTKey
		want        Reason
	}{
		{"RFC 7515, A.3", es256, mustKey(t, "ES256", ecKey), ReasonSubject}, // no "sub" is in it
		{"RFC 7515, A.3, another key", es256, mustKey(t, "ES256", otherEC), ReasonSignature},
		{"RFC 8037, A.4", eddsa, mustKey(t, "EdDSA", edKey), ReasonMalformed}, // it is no JSON
		{"RFC 8037, A.4, another key", eddsa, mustKey(t, "EdDSA", jwtSecret), ReasonSignature},
		{"RFC 8037, A.4, another algorithm", eddsa, mustKey(t, "HS256", edKey), ReasonAlgorithm},
	} {
		j, err := NewJWT(JWTOptions{Keys: []JWTKey{c.key}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := j.Validate([]byte(c.token), &PeerEntry{}, testNow); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %s", c.name, err, c.want)
		}
	}
}
