package network

import (
	"bytes"
	"context"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

// TestReadmit: a member that asks is told what the other's engine says, and only of
// groups whose keys both have.
func TestReadmit(t *testing.T) {
	g, other := testGroup("g", 2), testGroup("other", 2)
	var book phonebook
	book.addresses = make(map[identity.PeerID][]string)
	open := func(i int, groups ...Group) *Endpoint {
		e, err := Open(Options{Key: keyOf(i), Network: testNetwork, Addresses: book.of})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { e.Close() })
		if err := e.SetGroups(groups); err != nil {
			t.Fatal(err)
		}
		book.Lock()
		book.addresses[e.Peer()] = []string{e.Addr().String()}
		book.Unlock()
		return e
	}
	a, b := open(1, g), open(2, g, other)
	var asked []identity.ID
	fail := errors.New("no quorum today")
	told := &Readmitted{Number: 7, Incarnation: 2, Committee: []log.Member{{Seat: 1, Number: 1, Peer: a.Peer()}, {Seat: 3, Number: 9, Peer: b.Peer()}}}
	for _, e := range []*Endpoint{a, b} {
		stop, err := HandleReadmit(e, func(_ context.Context, r ReadmitRequest) (*Readmitted, error) {
			asked = r.Groups
			if len(r.Groups) > 1 {
				return nil, fail
			}
			return told, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(stop)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	members := []identity.PeerID{a.Peer(), b.Peer()}
	if n, err := b.AskReadmit(ctx, members, []identity.ID{g.ID}); err != nil || !reflect.DeepEqual(n, told) || !slices.Equal(asked, []identity.ID{g.ID}) {
		t.Fatalf("%+v, %v; asked for %v", n, err, asked)
	}
	if _, err := b.AskReadmit(ctx, members, []identity.ID{g.ID, g.ID}); err == nil || !strings.Contains(err.Error(), fail.Error()) {
		t.Errorf("the reason is lost: %v", err)
	}
	asked = nil
	if _, err := b.AskReadmit(ctx, members, []identity.ID{other.ID}); err == nil || !strings.Contains(err.Error(), "is not proven") || asked != nil {
		t.Errorf("a group that only one has: %v", err)
	}
}

func FuzzReadmit(f *testing.F) {
	f.Add(appendReadmit(nil, []identity.ID{identity.NewID("a"), identity.NewID("b")}))
	f.Add([]byte{0, 1, 0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte("\x01why not"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if groups, err := decodeReadmit(b); err == nil && !bytes.Equal(appendReadmit(nil, groups), b) {
			t.Errorf("%x decodes as %v", b, groups)
		}
		if r, err := decodeReadmitted(b); err == nil && !bytes.Equal(r.appendTo([]byte{readmitDone}), b) {
			t.Fatalf("%x decodes and encodes to something else", b)
		} else if err != nil && len(err.Error()) > 8*maxReadmitReason {
			t.Errorf("an error of %d bytes", len(err.Error()))
		}
	})
}
