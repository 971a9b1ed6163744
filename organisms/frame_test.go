package organisms_test

import (
	"encoding/binary"
	"errors"
	"testing"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/organisms"
	"github.com/mosaik-engine/mosaik/organisms/conformance"
)

// ballot counts votes: a commit is the name voted for, of at most as many bytes as the
// parameter says. It is a small organism, but a whole one.
type ballot struct{}

func (ballot) Signature() string { return "test.ballot.v1" }

func (ballot) Apply(tx *log.Tx, c *organisms.Commit) ([]byte, error) {
	if len(c.Parameters) != 1 || len(c.Body) == 0 || len(c.Body) > int(c.Parameters[0]) {
		return []byte("no name"), nil
	}
	key := append([]byte{1}, c.Body...)
	row, _, err := tx.Get(key)
	if err != nil {
		return nil, err
	}
	n, _ := binary.Uvarint(row.Value)
	value := binary.AppendUvarint(nil, n+1)
	return value, tx.Set(key, value)
}

var ballots = organisms.Definition{
	Role:    "ballot",
	Surface: []organisms.Primitive{{Name: "votes", Machine: ballot{}}},
	Inner:   []organisms.Primitive{{Name: "notes"}},
}

func TestConformance(t *testing.T) {
	c := organisms.Config{Role: "ballot", InstanceName: "test.ballot", Parameters: []byte{5}}
	longer, members, acl := c, c, c
	longer.Parameters = []byte{6}
	members.Members = []organisms.Ref{{Role: "x", StableID: identity.NewID("x")}, {Role: "y", StableID: identity.NewID("y")}}
	acl.ACL = organisms.ACL{identity.NewID("a clause")}
	conformance.Test(t, conformance.Suite{
		Definition: ballots, Config: c, Others: []organisms.Config{longer, members, acl},
		Commits: []conformance.Step{
			{Primitive: "votes", Body: []byte("anna")}, {Primitive: "votes", Body: []byte("bert")},
			{Primitive: "notes", Body: []byte("two have voted")}, {Primitive: "votes", Body: []byte("anna")},
		},
		MaxRows: 2,
	})
}

// TestInvariant17: there is no commit in two groups at once. Of two that belong together,
// each is there or not by itself, and everybody can see which.
func TestInvariant17(t *testing.T) {
	open := func(name string) *organisms.Organism {
		t.Helper()
		c := organisms.Config{Role: "ballot", InstanceName: name, Parameters: []byte{5}}
		o, err := organisms.Open(t.Context(), log.NewMemory(identity.NewID(c.GroupName()), ballots.Machines()...), c, ballots)
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	a, b := open("test.a"), open("test.b")
	if _, err := b.Retire(t.Context(), organisms.OperatorExit, nil); err != nil {
		t.Fatal(err)
	}
	first, _, err := a.Commit(t.Context(), "votes", []byte("anna"))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.Commit(t.Context(), "votes", []byte("anna"), organisms.At(first)); !errors.Is(err, organisms.ErrRetired) {
		t.Fatalf("%v", err)
	}
	count := func(o *organisms.Organism) (n int) {
		for _, err := range o.Commits(t.Context(), "votes", log.Earliest(), false) {
			if err == nil {
				n++
			}
		}
		return n
	}
	if count(a) != 1 || count(b) != 0 {
		t.Errorf("%d and %d commits", count(a), count(b))
	}
}
