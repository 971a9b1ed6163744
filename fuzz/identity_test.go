package fuzz

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/mosaik-engine/mosaik/identity"
)

// FuzzID parses IDs: 64 hex digits of either case and nothing else, and a name
// that looks like an ID is one.
func FuzzID(f *testing.F) {
	f.Add("")
	f.Add("oracle.price")
	f.Add(identity.NewID("oracle.price").String())
	f.Add(strings.ToUpper(identity.NewID("oracle.price").String()))
	f.Add(identity.NewID("oracle.price").String() + "0")
	f.Fuzz(func(t *testing.T, text string) {
		id, err := identity.ParseID(text)
		peer, peerErr := identity.ParsePeerID(text)
		if (err == nil) != (peerErr == nil) || identity.PeerID(id) != peer {
			t.Errorf("%q is ID %s (%v) and peer %s (%v)", text, id, err, peer, peerErr)
		}
		if err != nil {
			return
		}
		if id.String() != strings.ToLower(text) {
			t.Errorf("%q prints as %s", text, id)
		}
		if identity.NewID(text) != id {
			t.Errorf("%q names %s, and parses as %s", text, identity.NewID(text), id)
		}
	})
}

// FuzzName holds the rule of names against what it says.
func FuzzName(f *testing.F) {
	for _, name := range []string{"", "oracle.price/ETH-USD", "caf\u00e9", "cafe\u0301", "a\x00b", "\xff", "\u0085", strings.Repeat("n", 256)} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		good := name != "" && len(name) <= 255 && utf8.ValidString(name) && norm.NFC.IsNormalString(name) &&
			!strings.ContainsFunc(name, unicode.IsControl)
		if err := identity.ValidateName(name); (err == nil) != good {
			t.Errorf("%q: %v", name, err)
		}
	})
}
