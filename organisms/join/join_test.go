package join

import (
	"errors"
	"testing"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/organisms"
	"github.com/mosaik-engine/mosaik/organisms/conformance"
)

func refs(names ...string) (list []organisms.Ref) {
	for _, n := range names {
		list = append(list, organisms.Ref{Role: "oracle", StableID: organisms.StableID(n)})
	}
	return list
}

func config(t *testing.T, members []organisms.Ref, modes ...Mode) organisms.Config {
	t.Helper()
	c, err := Config("test.join", members, modes)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestConformance(t *testing.T) {
	two := refs("a", "b")
	conformance.Test(t, conformance.Suite{
		Definition: Definition(),
		Config:     config(t, two, Stall, Partial),
		Others:     []organisms.Config{config(t, two, Partial, Partial), config(t, refs("b", "a"), Stall, Partial), config(t, refs("a", "b", "c"), Stall, Partial, Stall)},
		Commits:    []conformance.Step{{Primitive: Primitive, Body: Due(1)}, {Primitive: Primitive, Body: Due(2)}},
		MaxRows:    MaxEvents + 1,
	})
}

// open opens a join in memory.
func open(t *testing.T, c organisms.Config) (offer func(member int, event uint64) Status, due func(event uint64) Status, read func(event uint64) (Event, bool)) {
	t.Helper()
	d := Definition()
	o, err := organisms.Open(t.Context(), log.NewMemory(identity.NewID("group"), d.Machines()...), c, d)
	if err != nil {
		t.Fatal(err)
	}
	commit := func(body []byte, evidence ...organisms.Evidence) Status {
		t.Helper()
		_, result, err := o.Commit(t.Context(), Primitive, body, evidence...)
		if err != nil || len(result) != 1 {
			t.Fatalf("%x, %v", result, err)
		}
		return Status(result[0])
	}
	at := organisms.At(log.Pointer{Group: identity.NewID("member"), Commit: 7, Digest: log.Digest{1}})
	offer = func(member int, event uint64) Status {
		return commit(Offer(member, event, identity.NewID("what")), at)
	}
	due = func(event uint64) Status { return commit(Due(event)) }
	read = func(event uint64) (Event, bool) {
		t.Helper()
		v, err := o.View(t.Context(), Primitive, log.Stale())
		if err != nil {
			t.Fatal(err)
		}
		e, ok, err := Read(v, event)
		if err != nil {
			t.Fatal(err)
		}
		return e, ok
	}
	if s := commit(Offer(0, 9, identity.NewID("what"))); s != Refused {
		t.Errorf("an offer without evidence: %d", s)
	}
	return offer, due, read
}

// TestInvariant31: an event with a member missing does what was said of that member.
func TestInvariant31(t *testing.T) {
	offer, due, read := open(t, config(t, refs("a", "b", "c"), Stall, Partial, Partial))
	step := func(what string, have, want Status) {
		t.Helper()
		if have != want {
			t.Errorf("%s: %d, want %d", what, have, want)
		}
	}
	step("one of three", offer(0, 1), Open)
	step("twice", offer(0, 1), Refused)
	step("two", offer(1, 1), Open)
	step("all", offer(2, 1), Complete)
	step("joined is joined", due(1), Refused)

	step("one of three", offer(0, 2), Open)
	step("the others can be missing", due(2), Missing)
	step("it is too late then", offer(1, 2), Refused)

	step("two of three", offer(1, 3), Open)
	step("the first must not be missing", due(3), Stalled)
	step("another one does not help", offer(2, 3), Stalled)
	step("the first comes", offer(0, 3), Complete)

	step("due at once", due(4), Stalled)
	step("the first comes", offer(0, 4), Missing)

	step("no such member", offer(3, 5), Refused)
	if _, ok := read(5); ok {
		t.Error("a commit that is refused has begun an event")
	}
	if e, ok := read(2); !ok || e.Digests[0].IsZero() || !e.Digests[1].IsZero() || !e.Due {
		t.Errorf("%+v", e)
	}
}

// TestBound: the oldest event makes room, and does not come back.
func TestBound(t *testing.T) {
	offer, _, read := open(t, config(t, refs("a", "b"), Stall, Stall))
	for event := uint64(10); event < 10+MaxEvents; event++ {
		if s := offer(0, event); s != Open {
			t.Fatalf("event %d: %d", event, s)
		}
	}
	if s := offer(0, 5000); s != Open {
		t.Errorf("one more: %d", s)
	}
	if _, ok := read(10); ok {
		t.Error("the oldest is still there")
	}
	if s := offer(0, 10); s != Refused {
		t.Errorf("the oldest comes back: %d", s)
	}
	if s := offer(1, 11); s != Complete {
		t.Errorf("the next oldest is gone: %d", s)
	}
}

func TestConfig(t *testing.T) {
	for name, modes := range map[string][]Mode{"too few": {Stall}, "no mode": {Stall, 0}, "another": {Stall, 3}} {
		if _, err := Config("x", refs("a", "b"), modes); !errors.Is(err, organisms.ErrConfig) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
