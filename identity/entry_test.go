package identity

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
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
	another := testEntry(testKey(2))
	another.Version = EntryVersion{9000, 9000}
	if a, err := SignEntry(another, testKey(2)); err != nil || a.Newer(s) {
		t.Errorf("the entry of another peer takes its place: %v", err)
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
		"an address twice":       func(e *PeerEntry) { e.Addresses = []string{"a:1", "b:1", "a:1"} },
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
	// Nor does a decoder take, with a good signature, what SignEntry would not have made.
	sign := func(e PeerEntry) []byte {
		b := e.AppendTo(nil)
		return append(b, key.Sign(entryMessage(b))...)
	}
	for what, change := range map[string]func(e *PeerEntry){
		"tags out of order":    func(e *PeerEntry) { slices.Reverse(e.Tags) },
		"a stream twice":       func(e *PeerEntry) { e.Streams = append(e.Streams, e.Streams[0]) },
		"groups out of order":  func(e *PeerEntry) { slices.Reverse(e.Groups) },
		"tickets out of order": func(e *PeerEntry) { slices.Reverse(e.Tickets) },
		"a ticket twice":       func(e *PeerEntry) { e.Tickets = append(e.Tickets, e.Tickets[1]) },
		"another's name":       func(e *PeerEntry) { e.Peer = testKey(2).PeerID() },
		"a terminal's escape":  func(e *PeerEntry) { e.Addresses = []string{"a\x1b[2J:1"} },
	} {
		e := testEntry(key)
		e.Normalize()
		if _, err := DecodeSignedEntry(sign(e)); err != nil {
			t.Fatalf("the same without a change: %v", err)
		}
		change(&e)
		if _, err := DecodeSignedEntry(sign(e)); !errors.Is(err, ErrEntry) {
			t.Errorf("%s is decoded: %v", what, err)
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

func TestCheckAddress(t *testing.T) {
	for _, a := range []string{"a:1", "node-1.example.org:65535", "10.0.0.1:7072", "[::1]:7072", "[fe80::1%eth0]:1", strings.Repeat("a", MaxAddress-2) + ":1"} {
		if err := CheckAddress(a); err != nil {
			t.Errorf("%q: %v", a, err)
		}
	}
	for _, a := range []string{
		"", ":", "a", ":1", "a:", "a:0", "a:01", "a:+1", "a:65536", "a:http", "::1:1", "[::1]", "a b:1", "a:1\n", "\x00:1", "é:1", "[]:1", strings.Repeat("a", MaxAddress-1) + ":1",
	} {
		if err := CheckAddress(a); err == nil {
			t.Errorf("%q is an address", a)
		}
	}
}

// TestSignEntryCopies: what the caller does with its slices afterwards changes nothing.
func TestSignEntryCopies(t *testing.T) {
	key := testKey(1)
	e := testEntry(key)
	s, err := SignEntry(e, key)
	if err != nil {
		t.Fatal(err)
	}
	e.Addresses[0], e.Tags[0], e.Tickets[0].Data[0] = "x:1", ID{}, 'x'
	got, err := DecodeSignedEntry(s.Bytes())
	if err != nil || !reflect.DeepEqual(got.Entry, s.Entry) {
		t.Errorf("%+v, want %+v, %v", s.Entry, got, err)
	}
	b := bytes.Clone(s.Bytes())
	if got, err = DecodeSignedEntry(b); err != nil {
		t.Fatal(err)
	}
	clear(b)
	if !reflect.DeepEqual(got.Entry, s.Entry) || !bytes.Equal(got.Bytes(), s.Bytes()) {
		t.Errorf("it shares the caller's bytes: %+v", got.Entry)
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
