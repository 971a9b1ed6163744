package identity_test

import (
	"bytes"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/mosaik-engine/mosaik/identity"
)

var (
	_ encoding.TextAppender      = identity.ID{}
	_ encoding.TextMarshaler     = identity.ID{}
	_ encoding.TextUnmarshaler   = (*identity.ID)(nil)
	_ encoding.BinaryMarshaler   = identity.ID{}
	_ encoding.BinaryUnmarshaler = (*identity.ID)(nil)
	_ encoding.TextMarshaler     = identity.PeerID{}
	_ encoding.TextUnmarshaler   = (*identity.PeerID)(nil)
	_ encoding.BinaryMarshaler   = identity.PeerID{}
	_ encoding.BinaryUnmarshaler = (*identity.PeerID)(nil)
)

// vector is one golden fact: op applied to In gives Out.
type vector struct {
	Op  string          `json:"op"`
	In  json.RawMessage `json:"in"`
	Out string          `json:"out"`
}

// compute applies the vector's operation with this package.
func (v vector) compute() (identity.ID, error) {
	var (
		s      string
		list   []string
		fields map[string]string
	)
	switch v.Op {
	case "new", "hashed":
		if err := json.Unmarshal(v.In, &s); err != nil {
			return identity.ID{}, err
		}
	case "derive", "derive2", "from_parts":
		if err := json.Unmarshal(v.In, &list); err != nil {
			return identity.ID{}, err
		}
	case "stable_id", "ticket_id":
		if err := json.Unmarshal(v.In, &fields); err != nil {
			return identity.ID{}, err
		}
	}
	switch v.Op {
	case "new":
		return identity.NewID(s), nil
	case "hashed":
		return identity.NewID(s).Hashed(), nil
	case "derive":
		return identity.NewID(list[0]).Derive(list[1]), nil
	case "derive2":
		return identity.NewID(list[0]).Derive(list[1]).Derive(list[2]), nil
	case "from_parts":
		var parts [][]byte
		for _, p := range list {
			parts = append(parts, []byte(p))
		}
		return identity.FromParts(parts...), nil
	case "stable_id":
		universe := identity.NewID(fields["universe"])
		return identity.FromParts([]byte("instance|"), []byte(fields["instance"]), []byte("|"), universe[:]), nil
	case "jwt_class":
		return identity.NewID("mosaik.tickets.jwt.v1"), nil
	case "ticket_id":
		return identity.NewID(fields["class"]).Derive(fields["data"]), nil
	}
	return identity.ID{}, fmt.Errorf("unknown op %q", v.Op)
}

func readVectors(t *testing.T, path string) []vector {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var vs []vector
	if err := json.Unmarshal(b, &vs); err != nil {
		t.Fatal(err)
	}
	for i := range vs {
		var compact bytes.Buffer
		if err := json.Compact(&compact, vs[i].In); err != nil {
			t.Fatal(err)
		}
		vs[i].In = compact.Bytes()
	}
	return vs
}

func TestGoldenVectors(t *testing.T) {
	ops := map[string]int{}
	for _, v := range readVectors(t, "testdata/vectors.json") {
		ops[v.Op]++
		got, err := v.compute()
		if err != nil {
			t.Errorf("%s %s: %v", v.Op, v.In, err)
		} else if got.String() != v.Out {
			t.Errorf("%s %s = %s, want %s", v.Op, v.In, got, v.Out)
		}
	}
	for _, op := range []string{"new", "derive", "derive2", "hashed", "from_parts", "stable_id", "jwt_class", "ticket_id"} {
		if ops[op] == 0 {
			t.Errorf("no vector for %s", op)
		}
	}
}

// The testdata is a copy of the facts shared with the other rooms. Where the
// original is at hand, every fact this package answers for is in the copy.
func TestGoldenVectorsAgreeWithShared(t *testing.T) {
	const shared = "../../shared/vectors/identity.json"
	if _, err := os.Stat(shared); err != nil {
		t.Logf("%s is not beside this checkout; the copy in testdata stands alone", shared)
		return
	}
	copied := readVectors(t, "testdata/vectors.json")
	for _, v := range readVectors(t, shared) {
		if _, err := v.compute(); err != nil {
			continue // a fact of another package
		}
		if !slices.ContainsFunc(copied, func(c vector) bool {
			return c.Op == v.Op && bytes.Equal(c.In, v.In) && c.Out == v.Out
		}) {
			t.Errorf("testdata/vectors.json lacks %s %s = %s", v.Op, v.In, v.Out)
		}
	}
}

var anyID = rapid.Map(rapid.SliceOfN(rapid.Byte(), 32, 32), func(b []byte) identity.ID { return identity.ID(b) })

func TestFormsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := anyID.Draw(t, "id")
		peer := identity.PeerID(id)

		if got, err := identity.ParseID(id.String()); err != nil || got != id {
			t.Fatalf("ParseID(String) = %v, %v", got, err)
		}
		if got, err := identity.ParsePeerID(peer.String()); err != nil || got != peer {
			t.Fatalf("ParsePeerID(String) = %v, %v", got, err)
		}
		if got := identity.NewID(strings.ToUpper(id.String())); got != id {
			t.Fatalf("NewID(upper-case hex) = %v, want %v", got, id)
		}
		if !strings.HasPrefix(id.String(), id.Short()) || len(id.Short()) != 8 {
			t.Fatalf("Short() = %q of %q", id.Short(), id)
		}

		type holder struct {
			ID   identity.ID
			Peer identity.PeerID
			Map  map[identity.ID]identity.PeerID
		}
		in := holder{id, peer, map[identity.ID]identity.PeerID{id: peer}}
		encoded, err := json.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf(`{"ID":"%[1]s","Peer":"%[1]s","Map":{"%[1]s":"%[1]s"}}`, id)
		if string(encoded) != want {
			t.Fatalf("JSON = %s, want %s", encoded, want)
		}
		var out holder
		if err := json.Unmarshal(encoded, &out); err != nil || out.ID != id || out.Peer != peer || out.Map[id] != peer {
			t.Fatalf("JSON round trip = %v, %v", out, err)
		}

		raw, err := id.MarshalBinary()
		if err != nil || !bytes.Equal(raw, id[:]) {
			t.Fatalf("MarshalBinary = %x, %v", raw, err)
		}
		var id2 identity.ID
		var peer2 identity.PeerID
		if err := errors.Join(id2.UnmarshalBinary(raw), peer2.UnmarshalBinary(raw)); err != nil || id2 != id || peer2 != peer {
			t.Fatalf("UnmarshalBinary = %v, %v, %v", id2, peer2, err)
		}
	})
}

func TestCompareAgreesWithText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := anyID.Draw(t, "a"), anyID.Draw(t, "b")
		want := strings.Compare(a.String(), b.String())
		if got := a.Compare(b); got != want || identity.PeerID(a).Compare(identity.PeerID(b)) != want {
			t.Fatalf("Compare(%v, %v) = %d, want %d", a, b, got, want)
		}
	})
}

func TestDerivationsAreOneHash(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id, x := anyID.Draw(t, "id"), anyID.Draw(t, "x")
		info := string(rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "info"))
		if got, want := id.Derive(info), identity.FromParts(id[:], []byte(info)); got != want {
			t.Fatalf("Derive(%q) = %v, want %v", info, got, want)
		}
		if got, want := id.DeriveID(x), id.Derive(string(x[:])); got != want {
			t.Fatalf("DeriveID = %v, Derive of its bytes = %v", got, want)
		}
		if id.Hashed() != id.Derive("") {
			t.Fatalf("Hashed differs from Derive of nothing")
		}
	})
}

func TestParseIDRefuses(t *testing.T) {
	good := strings.Repeat("0a", 32)
	for _, tc := range []struct{ text, why string }{
		{"", "0 characters"},
		{good[1:], "63 characters"},
		{good + "0", "65 characters"},
		{"0x" + good[2:], `'x' at offset 1`},
		{strings.ToUpper(good), `upper-case digit 'A' at offset 1`},
		{good[:63] + " ", `' ' at offset 63`},
	} {
		for name, parse := range map[string]func() error{
			"ParseID":       func() error { _, err := identity.ParseID(tc.text); return err },
			"ParsePeerID":   func() error { _, err := identity.ParsePeerID(tc.text); return err },
			"UnmarshalText": func() error { return new(identity.ID).UnmarshalText([]byte(tc.text)) },
		} {
			if err := parse(); !errors.Is(err, identity.ErrID) || !strings.Contains(err.Error(), tc.why) {
				t.Errorf("%s(%q) = %v, want ErrID with %q", name, tc.text, err, tc.why)
			}
		}
	}
	id := identity.NewID("kept")
	if err := id.UnmarshalText([]byte(good[:62] + "zz")); err == nil || id != identity.NewID("kept") {
		t.Errorf("a failed UnmarshalText left %v, %v", id, err)
	}
	if err := id.UnmarshalBinary(make([]byte, 31)); !errors.Is(err, identity.ErrID) {
		t.Errorf("UnmarshalBinary of 31 bytes = %v", err)
	}
}

func TestZero(t *testing.T) {
	if !(identity.ID{}).IsZero() || identity.NewID("").IsZero() || !(identity.PeerID{}).IsZero() {
		t.Error("only the all-zero value is zero")
	}
	if !(identity.Key{}).IsZero() || !(identity.Key{}).PeerID().IsZero() {
		t.Error("the zero key belongs to somebody")
	}
}

func TestValidateName(t *testing.T) {
	for _, name := range []string{"a", "oracle.price", "searcher-α", "caf\u00e9", "名前", strings.Repeat("x", 255)} {
		if err := identity.ValidateName(name); err != nil {
			t.Errorf("ValidateName(%q) = %v", name, err)
		}
	}
	for _, tc := range []struct{ name, why string }{
		{"", "empty"},
		{strings.Repeat("x", 256), "256 bytes"},
		{"a\xffb", "not UTF-8"},
		{"tab\tinside", "U+0009 at byte 3"},
		{"null\x00", "U+0000"},
		{"del\u007f", "U+007F"},
		{"c1\u0085", "U+0085"},
		{"cafe\u0301", `its normal form is "caf\u00e9"`},
		{"\u212bngstrom", "normalisation form C"}, // the Ångström sign
	} {
		if err := identity.ValidateName(tc.name); !errors.Is(err, identity.ErrName) || !strings.Contains(err.Error(), tc.why) {
			t.Errorf("ValidateName(%q) = %v, want ErrName with %q", tc.name, err, tc.why)
		}
	}
}

func TestKeyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "node.key")
	key, err := identity.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	if err := key.Save(path); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode = %04o, want 0600", info.Mode().Perm())
	}
	if names, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "*")); len(names) != 1 {
		t.Errorf("Save left %v", names)
	}
	loaded, err := identity.LoadKey(path)
	if err != nil {
		t.Fatal(err)
	}
	if loaded.PeerID() != key.PeerID() || loaded.IsZero() {
		t.Errorf("loaded the key of %v, saved the one of %v", loaded.PeerID(), key.PeerID())
	}
	message := []byte("attested")
	if !key.PeerID().Verify(message, loaded.Sign(message)) {
		t.Error("the loaded key signs for somebody else")
	}

	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	other := identity.KeyFromSeed([32]byte{1})
	if err := other.Save(path); !errors.Is(err, os.ErrExist) {
		t.Errorf("Save over a key = %v, want fs.ErrExist", err)
	}
	after, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("a refused Save changed the file: %q -> %q, %v", before, after, err)
	}
	if err := (identity.Key{}).Save(path + "2"); err == nil {
		t.Error("the zero key was saved")
	}
	if _, err := os.Stat(path + "2"); !errors.Is(err, os.ErrNotExist) {
		t.Error("a refused Save left a file")
	}
}

// The form is fixed: a key written by an older build must load for ever.
func TestKeyFileGolden(t *testing.T) {
	// RFC 8032, section 7.1, test 1.
	const seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"
	const public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, []byte("mosaik-key-v1 "+seed+"\n"), 0o400); err != nil {
		t.Fatal(err)
	}
	key, err := identity.LoadKey(path)
	if err != nil {
		t.Fatal(err)
	}
	if key.PeerID().String() != public {
		t.Errorf("peer = %v, want %s", key.PeerID(), public)
	}
	const signature = "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
	if got := fmt.Sprintf("%x", key.Sign(nil)); got != signature {
		t.Errorf("signature of nothing = %s", got)
	}
	copied := filepath.Join(t.TempDir(), "copy")
	if err := key.Save(copied); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(copied); string(got) != "mosaik-key-v1 "+seed+"\n" {
		t.Errorf("Save wrote %q", got)
	}
}

func TestLoadKeyRefuses(t *testing.T) {
	seed := strings.Repeat("5e", 32)
	good := "mosaik-key-v1 " + seed + "\n"
	for _, tc := range []struct {
		name, content string
		mode          os.FileMode
		why           string
	}{
		{"group", good, 0o640, "mode 0640"},
		{"others", good, 0o604, "mode 0604"},
		{"writable by group", good, 0o620, "mode 0620"},
		{"empty", "", 0o600, "does not start with"},
		{"version", "mosaik-key-v2 " + seed + "\n", 0o600, "does not start with"},
		{"short", good[:50], 0o600, "64 lower-case hex digits"},
		{"long", good + "\n", 0o600, "64 lower-case hex digits"},
		{"upper case", strings.ToUpper(good), 0o600, "does not start with"},
		{"not hex", "mosaik-key-v1 " + strings.Repeat("5g", 32), 0o600, "64 lower-case hex digits"},
		{"huge", good + strings.Repeat("x", 1<<16), 0o600, "64 lower-case hex digits"},
	} {
		path := filepath.Join(t.TempDir(), "key")
		if err := os.WriteFile(path, []byte(tc.content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, tc.mode); err != nil {
			t.Fatal(err)
		}
		key, err := identity.LoadKey(path)
		if !errors.Is(err, identity.ErrKeyFile) || !strings.Contains(err.Error(), tc.why) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: LoadKey = %v, want ErrKeyFile with the path and %q", tc.name, err, tc.why)
		}
		if !key.IsZero() || (err != nil && strings.Contains(err.Error(), "5e5e")) {
			t.Errorf("%s: a refused file gave something away: %v, %v", tc.name, key, err)
		}
	}
	if _, err := identity.LoadKey(t.TempDir()); !errors.Is(err, identity.ErrKeyFile) {
		t.Errorf("LoadKey of a directory = %v", err)
	}
	if _, err := identity.LoadKey(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("LoadKey of nothing = %v", err)
	}
}

func TestSignatures(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := identity.KeyFromSeed(anyID.Draw(t, "seed"))
		message := rapid.SliceOf(rapid.Byte()).Draw(t, "message")
		signature := key.Sign(message)
		if !key.Verify(message, signature) {
			t.Fatal("a key does not verify its own signature")
		}
		if key.Verify(append(slices.Clone(message), 0), signature) {
			t.Fatal("another message passes")
		}
		bit := rapid.IntRange(0, len(signature)*8-1).Draw(t, "bit")
		signature[bit/8] ^= 1 << (bit % 8)
		if key.Verify(message, signature) {
			t.Fatalf("the signature passes with bit %d turned", bit)
		}
		if key.Verify(message, signature[:63]) || key.Verify(message, nil) {
			t.Fatal("a short signature passes")
		}
	})
}

func TestKeyKeepsItsSecret(t *testing.T) {
	var seed [32]byte
	copy(seed[:], bytes.Repeat([]byte{0x5e}, 32))
	key := identity.KeyFromSeed(seed)
	held := struct {
		K identity.Key
		k identity.Key
	}{key, key}
	encoded, err := json.Marshal(held)
	if err != nil {
		t.Fatal(err)
	}
	texts := []string{string(encoded)}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x"} {
		for _, v := range []any{key, &key, held, &held, []identity.Key{key}} {
			texts = append(texts, fmt.Sprintf(verb, v))
		}
	}
	for _, text := range texts {
		if strings.Contains(text, "5e5e") || strings.Contains(text, "94 94") || strings.Contains(text, "0x5e, 0x5e") {
			t.Errorf("printed the secret: %s", text)
		}
	}
}

func BenchmarkDerive(b *testing.B) {
	id := identity.NewID("oracle.price")
	b.ReportAllocs()
	for b.Loop() {
		id = id.Derive("eur/usd")
	}
}
