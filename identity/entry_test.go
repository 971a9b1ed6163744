package identity

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

func testEntry(key Key) PeerEntry {
	return PeerEntry{
		Protocol: [3]uint16{0, 4, 1}, Network: NewID("network"), Peer: key.PeerID(), Version: EntryVersion{1000, 2000},
		Addresses: []string{"a.example:7072", "[::1]:7072"},
		Tags:      []ID{NewID("tag"), NewID("another"), NewID("tag")},
		Streams:   []ID{NewID("oracle.price")},
		Groups:    []ID{NewID("g1"), NewID("g2")},
		Tickets:   []Ticket{{NewID("class"), []byte("data")}, {JWTClass(), []byte("a.b.c")}, {NewID("class"), []byte("data")}},
	}
}

func testKey(n byte) Key { return KeyFromSeed([Size]byte{n}) }

func TestEntry(t *testing.T) {
	key := testKey(1)
	s, err := SignEntry(testEntry(key), key)
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Entry.Tags) != 2 || len(s.Entry.Tickets) != 2 {
		t.Errorf("repetitions are kept: %+v", s.Entry)
	}
	got, err := DecodeSignedEntry(s.Bytes())
	if err != nil || !reflect.DeepEqual(got.Entry, s.Entry) || got.Digest() != s.Digest() {
		t.Fatalf("%+v\nwant %+v, %v", got, s, err)
	}
	again, err := SignEntry(got.Entry, key)
	if err != nil || !bytes.Equal(again.Bytes(), s.Bytes()) {
		t.Errorf("it is not canonical: %v", err)
	}
	later := s.Entry
	later.Version.Updated++
	l, err := SignEntry(later, key)
	if err != nil || !l.Newer(s) || s.Newer(l) || s.Newer(s) || !s.Newer(nil) {
		t.Errorf("versions: %v", err)
	}
	restarted := s.Entry
	restarted.Version = EntryVersion{1001, 1001}
	if r, err := SignEntry(restarted, key); err != nil || !r.Newer(l) {
		t.Errorf("a restart: %v", err)
	}
}

// TestEntryFlips: no bit of a signed entry can be changed, and none can be left out.
func TestEntryFlips(t *testing.T) {
	key := testKey(1)
	s, err := SignEntry(testEntry(key), key)
	if err != nil {
		t.Fatal(err)
	}
	for i := range s.Bytes() {
		for bit := range 8 {
			b := bytes.Clone(s.Bytes())
			b[i] ^= 1 << bit
			if _, err := DecodeSignedEntry(b); !errors.Is(err, ErrEntry) {
				t.Fatalf("bit %d of byte %d: %v", bit, i, err)
			}
		}
		if _, err := DecodeSignedEntry(s.Bytes()[:i]); !errors.Is(err, ErrEntry) {
			t.Fatalf("%d bytes: %v", i, err)
		}
	}
	if _, err := DecodeSignedEntry(append(bytes.Clone(s.Bytes()), 0)); !errors.Is(err, ErrEntry) {
		t.Errorf("a byte more: %v", err)
	}
}

func TestEntryRefused(t *testing.T) {
	key := testKey(1)
	var many []ID
	for i := range MaxEntryIDs + 1 {
		many = append(many, NewID(fmt.Sprint(i)))
	}
	for what, change := range map[string]func(e *PeerEntry){
		"of another peer":        func(e *PeerEntry) { e.Peer = testKey(2).PeerID() },
		"of no network":          func(e *PeerEntry) { e.Network = ID{} },
		"updated before started": func(e *PeerEntry) { e.Version = EntryVersion{5, 4} },
		"many addresses":         func(e *PeerEntry) { e.Addresses = make([]string, MaxAddresses+1) },
		"an empty address":       func(e *PeerEntry) { e.Addresses = []string{""} },
		"a long address":         func(e *PeerEntry) { e.Addresses = []string{strings.Repeat("a", MaxAddress+1)} },
		"many tags":              func(e *PeerEntry) { e.Tags = many },
		"many streams":           func(e *PeerEntry) { e.Streams = many },
		"many groups":            func(e *PeerEntry) { e.Groups = many },
		"a large ticket":         func(e *PeerEntry) { e.Tickets = []Ticket{{Data: make([]byte, MaxTicket+1)}} },
		"too large": func(e *PeerEntry) {
			e.Tickets = []Ticket{{Data: make([]byte, MaxTicket)}, {Data: make([]byte, MaxTicket-1)}}
		},
		"many tickets": func(e *PeerEntry) {
			e.Tickets = nil
			for i := range MaxTickets + 1 {
				e.Tickets = append(e.Tickets, Ticket{Data: []byte{byte(i)}})
			}
		},
	} {
		e := testEntry(key)
		change(&e)
		if _, err := SignEntry(e, key); !errors.Is(err, ErrEntry) {
			t.Errorf("%s: %v", what, err)
		}
	}
	// A signature of something else is none of an entry.
	s, err := SignEntry(testEntry(key), key)
	if err != nil {
		t.Fatal(err)
	}
	encoded := s.Bytes()[:len(s.Bytes())-signatureSize]
	if _, err := DecodeSignedEntry(append(bytes.Clone(encoded), key.Sign(encoded)...)); !errors.Is(err, ErrEntry) {
		t.Errorf("another domain: %v", err)
	}
}

// TestDocumentedEntry holds docs/format/entry.md against the code.
func TestDocumentedEntry(t *testing.T) {
	b, err := os.ReadFile("../docs/format/entry.md")
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]int{}
	for _, m := range regexp.MustCompile(`(?m)^\| ([a-z, ]+) \| (\d+)(?: bytes)? \|$`).FindAllStringSubmatch(string(b), -1) {
		have[m[1]], _ = strconv.Atoi(m[2])
	}
	want := map[string]int{
		"signed entry": MaxEntry, "tickets": MaxTickets, "data of a ticket": MaxTicket, "addresses": MaxAddresses, "address": MaxAddress,
		"tags, streams, groups, each": MaxEntryIDs,
	}
	if !reflect.DeepEqual(have, want) {
		t.Errorf("the document has the limits %v, the code %v", have, want)
	}
	// The offsets, in an entry whose fields are all different.
	key := testKey(1)
	e := testEntry(key)
	encoded := e.AppendTo(nil)
	field := map[int][]byte{0: {1}, 1: {0, 0, 4, 0, 1, 0}, 7: e.Network[:], 39: e.Peer[:], 71: {0xe8, 3, 0, 0, 0, 0, 0, 0}, 79: {0xd0, 7, 0, 0, 0, 0, 0, 0}, 87: append([]byte{2, 14}, "a.example:7072"...)}
	rows := regexp.MustCompile(`(?m)^\| (\d+) \| ?(\d*) ?\|`).FindAllStringSubmatch(string(b), -1)
	if len(rows) != len(field) {
		t.Errorf("the document has %d fixed offsets", len(rows))
	}
	for _, row := range rows {
		at, _ := strconv.Atoi(row[1])
		if want := field[at]; want == nil || !bytes.HasPrefix(encoded[at:], want) || row[2] != "" && row[2] != strconv.Itoa(len(want)) {
			t.Errorf("offset %d has %x, want %x", at, encoded[at:at+8], want)
		}
	}
	if !strings.Contains(string(b), "`"+strings.TrimSuffix(entryDomain, "\x00")+"` and a zero byte") {
		t.Error("the document has another domain")
	}
}

func FuzzSignedEntry(f *testing.F) {
	key := testKey(1)
	s, err := SignEntry(testEntry(key), key)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(s.Bytes())
	f.Add(s.Bytes()[:100])
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := DecodeSignedEntry(b)
		if err == nil && (!bytes.Equal(got.Bytes(), b) || got.Entry.Validate() != nil) {
			t.Errorf("%x is taken for %+v", b, got.Entry)
		}
		var e PeerEntry
		if e.decode(b) == nil && e.Validate() == nil && !bytes.Equal(e.AppendTo(nil), b) {
			t.Errorf("%x decodes as %+v, which is encoded otherwise", b, e)
		}
	})
}
