package organisms

import (
	"bytes"
	"encoding/hex"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

// TestDocumentedRecords: docs/format/organism.md shows what the code writes.
func TestDocumentedRecords(t *testing.T) {
	b, err := os.ReadFile("../docs/format/organism.md")
	if err != nil {
		t.Fatal(err)
	}
	document := string(b)
	block := func(kind string) string {
		_, rest, _ := strings.Cut(document, "```"+kind+"\n")
		text, _, _ := strings.Cut(rest, "\n```")
		return strings.ReplaceAll(text, "\n", "")
	}
	record, err := appendCommit(nil, []byte("hi"), []Evidence{Outside(identity.NewID("http"), identity.NewID("body"))})
	if err != nil {
		t.Fatal(err)
	}
	if have, want := hex.EncodeToString(record), block("commit"); have != want {
		t.Errorf("a commit is %s, the document says %s", have, want)
	}
	m := RetirementMarker{Component: StableID("test.a"), Reason: Rotation, Replacement: &Ref{Role: "oracle", StableID: StableID("test.b")}}
	if have, want := hex.EncodeToString(appendMarker(nil, &m)), block("retire"); have != want {
		t.Errorf("a retirement is %s, the document says %s", have, want)
	}
	for _, row := range []string{
		"| commit | 1 |", "| retire | 2 |", "| revision | 3 |", "| inside | 1 |", "| outside | 2 |", "at most 1024;",
		"| it is malformed | 1 |", "| the organism has retired | 2 |", "| no revision was published before it | 3 |",
	} {
		if !strings.Contains(document, row) {
			t.Errorf("the document lacks %q", row)
		}
	}
	if [...]int{recordCommit, recordRetire, recordRevision, evidenceInside, evidenceOutside, MaxEvidence, refusedMalformed, refusedRetired, refusedUnopened, refusedOther} !=
		[...]int{1, 2, 3, 1, 2, 1024, 1, 2, 3, 4} {
		t.Error("the code has other numbers than the document")
	}
}

// FuzzRecord: whatever stands in the log of an organism, decoding it neither panics nor
// accepts what it would not write.
func FuzzRecord(f *testing.F) {
	commit, err := appendCommit(nil, []byte("b"), []Evidence{
		At(log.Pointer{Group: identity.NewID("g"), Commit: 1, Digest: log.Digest{1}, Key: identity.NewID("k"), Seq: 3}),
		Outside(identity.NewID("c"), identity.NewID("d")),
	})
	if err != nil {
		f.Fatal(err)
	}
	hash := identity.NewID("hash")
	m := RetirementMarker{Component: StableID("a"), Reason: Superseded, Replacement: &Ref{Role: "r", StableID: StableID("b"), ContentHash: &hash}}
	c := Config{Role: "r", InstanceName: "a", Parameters: []byte{1}, Members: []Ref{{Role: "x", StableID: hash, ContentHash: &hash}, {Role: "y", StableID: StableID("y")}}}
	f.Add(commit)
	f.Add(appendMarker(nil, &m))
	f.Add(append([]byte{recordRevision}, c.preimage([]byte("a"))...))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == 0 {
			return
		}
		switch rest := b[1:]; b[0] {
		case recordCommit:
			c, err := decodeCommit(rest)
			if err != nil {
				return
			}
			again, err := appendCommit(nil, c.Body, c.Evidence)
			if err != nil || !bytes.Equal(again, b) {
				t.Errorf("%x becomes %x, %v", b, again, err)
			}
		case recordRetire:
			m, err := decodeMarker(rest)
			if err != nil {
				return
			}
			if again := appendMarker(nil, &m); !bytes.Equal(again, b) {
				t.Errorf("%x becomes %x", b, again)
			}
			stored, err := decodeStoredMarker(appendStoredMarker(nil, &m))
			if err != nil || !reflect.DeepEqual(stored, m) {
				t.Errorf("stored as %+v, %v; it was %+v", stored, err, m)
			}
		case recordRevision:
			r, err := parseRevision(rest)
			if err == nil && len(r.parameters) > len(rest) {
				t.Errorf("%d bytes of parameters in %d", len(r.parameters), len(rest))
			}
		}
	})
}
