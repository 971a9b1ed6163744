package organisms

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/mosaik-engine/mosaik/identity"
)

func example() Config {
	pin, measurements := identity.NewID("pin"), identity.NewID("measurements")
	return Config{
		Role: "oracle", InstanceName: "oracle-γ.oracle",
		Members:    []Ref{{"venue", identity.NewID("a"), nil}, {"venue", identity.NewID("b"), &pin}},
		Parameters: []byte("parameters"), Measurements: &measurements,
		ACL: ACL{identity.NewID("clause 1"), identity.NewID("clause 2")},
	}
}

// TestVectors holds stable ids against those of the Rust runtime, and our own content
// hashes against what they have been since they were first published.
func TestVectors(t *testing.T) {
	var vectors struct {
		StableIDs []struct {
			Instance string      `json:"instance"`
			StableID identity.ID `json:"stable_id"`
		} `json:"stable_ids"`
		ContentHashes []struct {
			Name string      `json:"name"`
			Hash identity.ID `json:"hash"`
		} `json:"content_hashes"`
	}
	b, err := os.ReadFile("testdata/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &vectors); err != nil {
		t.Fatal(err)
	}
	for _, v := range vectors.StableIDs {
		if got := StableID(v.Instance); got != v.StableID {
			t.Errorf("%s: %s, want %s", v.Instance, got, v.StableID)
		}
	}
	configs := map[string]Config{"full": example(), "simple": {Role: "beacon", InstanceName: "signals.euro-fx.beacon"}}
	if len(vectors.ContentHashes) != len(configs) || len(vectors.StableIDs) < 2 {
		t.Fatalf("%d content hashes, %d stable ids", len(vectors.ContentHashes), len(vectors.StableIDs))
	}
	for _, v := range vectors.ContentHashes {
		c := configs[v.Name]
		if err := c.Validate(); err != nil {
			t.Error(err)
		}
		if got := c.ContentHash(); got != v.Hash {
			t.Errorf("%s: %s, want %s", v.Name, got, v.Hash)
		}
	}
}

// TestPolicyIsIdentity changes one thing after the other: each gives another content
// hash, and none but the name another stable id.
func TestPolicyIsIdentity(t *testing.T) {
	base := example()
	hashes := map[identity.ID]string{base.ContentHash(): "the original"}
	pin, other := identity.NewID("another pin"), identity.NewID("other measurements")
	for name, change := range map[string]func(*Config){
		"role":                  func(c *Config) { c.Role = "orakel" },
		"name":                  func(c *Config) { c.InstanceName += "2" },
		"a character moved":     func(c *Config) { c.Role, c.InstanceName = c.Role+"o", c.InstanceName[1:] },
		"member more":           func(c *Config) { c.Members = append(c.Members, Ref{"venue", identity.NewID("c"), nil}) },
		"member less":           func(c *Config) { c.Members = c.Members[:1] },
		"members swapped":       func(c *Config) { c.Members = []Ref{c.Members[1], c.Members[0]} },
		"member pinned":         func(c *Config) { c.Members = []Ref{{"venue", c.Members[0].StableID, &pin}, c.Members[1]} },
		"member unpinned":       func(c *Config) { c.Members = []Ref{c.Members[0], {"venue", c.Members[1].StableID, nil}} },
		"pin changed":           func(c *Config) { c.Members = []Ref{c.Members[0], {"venue", c.Members[1].StableID, &pin}} },
		"parameters":            func(c *Config) { c.Parameters = []byte("parameterS") },
		"no parameters":         func(c *Config) { c.Parameters = nil },
		"measurements":          func(c *Config) { c.Measurements = &other },
		"no measurements":       func(c *Config) { c.Measurements = nil },
		"clause more":           func(c *Config) { c.ACL = append(c.ACL[:2:2], identity.NewID("clause 3")) },
		"clauses swapped":       func(c *Config) { c.ACL = ACL{c.ACL[1], c.ACL[0]} },
		"no clauses":            func(c *Config) { c.ACL = nil },
		"measurements as a pin": func(c *Config) { c.Parameters, c.Measurements = append(c.Parameters, c.Measurements[:]...), nil },
	} {
		c := example()
		change(&c)
		hash := c.ContentHash()
		if before, taken := hashes[hash]; taken {
			t.Errorf("%s has the content hash of %s", name, before)
		}
		hashes[hash] = name
		if moved := c.InstanceName != base.InstanceName; moved == (c.StableID() == base.StableID()) {
			t.Errorf("%s: the stable id is %s", name, c.StableID())
		}
	}
	same := example()
	same.Members[0].Role = "exchange" // what it is to whom is no part of the formula
	if same.ContentHash() != base.ContentHash() || same.GroupName() != base.GroupName() || same.StreamID("ticks") != base.StreamID("ticks") {
		t.Error("equal configs have different ids")
	}
	if base.StreamID("ticks") != base.StableID().Derive("ticks") || base.StreamID("ticks") == base.StreamID("tick") {
		t.Error("streams")
	}
}

// TestBadConfigs: what cannot be is refused, and the error names the field.
func TestBadConfigs(t *testing.T) {
	zero := identity.ID{}
	for want, change := range map[string]func(*Config){
		"role":                         func(c *Config) { c.Role = "" },
		"instance name":                func(c *Config) { c.InstanceName = "e\u0301cole" }, // not NFC
		"members: 1;":                  func(c *Config) { c.Members = c.Members[:1] },
		"the same stable id":           func(c *Config) { c.Members[1].StableID = c.Members[0].StableID },
		"member 1: ":                   func(c *Config) { c.Members[1].StableID = zero },
		"content hash: it is zero":     func(c *Config) { c.Members[0].ContentHash = &zero },
		"members: 10001":               func(c *Config) { c.Members = make([]Ref, MaxMembers+1) },
		"parameters: 1048577":          func(c *Config) { c.Parameters = make([]byte, MaxParameters+1) },
		"acl: 17":                      func(c *Config) { c.ACL = make(ACL, MaxClauses+1) },
		"measurements: the signature ": func(c *Config) { c.Measurements = &zero },
	} {
		c := example()
		change(&c)
		if err := c.Validate(); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

// TestInvariant12: a member's id is exactly the first 20 bytes of its stable id.
func TestInvariant12(t *testing.T) {
	r := Ref{StableID: identity.NewID("x")}
	if id := r.MemberID(); len(id) != 20 || string(id[:]) != string(r.StableID[:20]) {
		t.Errorf("%x", id)
	}
}

// TestInvariant30: three or more are a society if one is composed of two of the others;
// the default threshold is ⌈(n+1)/2⌉.
func TestInvariant30(t *testing.T) {
	a, b := Config{Role: "x", InstanceName: "a"}, Config{Role: "x", InstanceName: "b"}
	both := Config{Role: "x", InstanceName: "both", Members: []Ref{a.Ref(false), b.Ref(false)}}
	stranger := Config{Role: "x", InstanceName: "c", Members: []Ref{a.Ref(false), {Role: "x", StableID: identity.NewID("elsewhere")}}}
	for name, test := range map[string]struct {
		members []Config
		want    bool
	}{
		"two": {[]Config{a, both}, false}, "no composite": {[]Config{a, b, {Role: "x", InstanceName: "c"}}, false},
		"society": {[]Config{a, b, both}, true}, "folds only one of them": {[]Config{a, b, stranger}, false},
	} {
		if got := Society(test.members); got != test.want {
			t.Errorf("%s: %t", name, got)
		}
	}
	for n, want := range map[int]int{1: 1, 2: 2, 3: 2, 4: 3, 5: 3, 7: 4} {
		if got := Threshold(n); got != want {
			t.Errorf("of %d: %d, want %d", n, got, want)
		}
	}
}

// chain is what organisms have committed, by stable id.
type chain map[identity.ID][]RetirementMarker

func (c chain) markers(_ context.Context, id identity.ID) ([]RetirementMarker, error) {
	if id == identity.NewID("unreachable") {
		return nil, errors.New("nobody answers")
	}
	return c[id], nil
}

func (c chain) retire(name string, next *Ref) {
	id := identity.NewID(name)
	c[id] = append(c[id], RetirementMarker{Component: id, Reason: Rotation, Instant: RetirementInstant{Commit: 7, UnixMs: 1}, Replacement: next})
}

func to(name string) *Ref { return &Ref{Role: "oracle", StableID: identity.NewID(name)} }

// TestInvariant20: chains resolve; cycles, forks and changes of the role are refused; an
// absent replacement ends the chain. (That the marker is the last commit is the
// group's to hold.)
func TestInvariant20(t *testing.T) {
	c := chain{}
	c.retire("v1", to("v2"))
	c.retire("v2", to("v3"))
	c.retire("ended", nil)
	c.retire("round", to("about"))
	c.retire("about", to("round"))
	c.retire("fork", to("v2"))
	c.retire("fork", to("v3"))
	c.retire("turned", &Ref{Role: "market", StableID: identity.NewID("v3")})
	c.retire("itself", to("itself"))
	c.retire("lost", to("unreachable"))
	for i := range MaxHops + 1 {
		c.retire(fmt.Sprint("long", i), to(fmt.Sprint("long", i+1)))
	}
	for _, test := range []struct {
		from, to string
		hops     int
		ended    bool
		problem  string
	}{
		{from: "v3", to: "v3"}, {from: "v1", to: "v3", hops: 2}, {from: "ended", to: "ended", hops: 1, ended: true},
		{from: "round", problem: "a cycle"}, {from: "fork", problem: "a fork"}, {from: "turned", problem: `the role "market"`},
		{from: "itself", problem: "the organism itself"}, {from: "long0", problem: "more than 64 hops"}, {from: "lost", problem: "nobody answers"},
		{from: "long1", to: "long65", hops: MaxHops},
	} {
		r, err := Resolve(t.Context(), *to(test.from), c.markers)
		if test.problem != "" {
			if err == nil || !strings.Contains(err.Error(), test.problem) || test.from != "lost" && !errors.Is(err, ErrRetirement) {
				t.Errorf("%s: %+v, %v", test.from, r, err)
			}
			continue
		}
		if err != nil || r.Ref.StableID != identity.NewID(test.to) || len(r.Hops) != test.hops || r.Ended != test.ended {
			t.Errorf("%s: %+v, %v", test.from, r, err)
		}
	}
	wrong := chain{identity.NewID("v1"): {{Component: identity.NewID("v2"), Reason: Rotation}}}
	if _, err := Resolve(t.Context(), *to("v1"), wrong.markers); !errors.Is(err, ErrRetirement) {
		t.Error(err)
	}
	bad := RetirementMarker{Component: identity.NewID("x"), Reason: "bored"}
	if err := bad.Validate(); !errors.Is(err, ErrRetirement) || !strings.Contains(err.Error(), "reason") {
		t.Error(err)
	}
}
