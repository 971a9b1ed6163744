package coalition

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/organisms"
)

func id(s string) identity.ID { return identity.NewID(s) }

func idp(s string) *identity.ID { i := id(s); return &i }

func lattice(name string) organisms.Ref {
	l := LatticeConfig{Name: name, ChainID: 1}
	return l.Ref(false)
}

func organism(role, name string) organisms.Ref {
	return organisms.Ref{Role: role, StableID: organisms.StableID(name)}
}

// example has everything.
func example() *Config {
	pinned := organism("market", "bridge-β.market")
	pinned.ContentHash = idp("content of the market")
	return &Config{
		Name:         "signals.euro-fx",
		Lattices:     []organisms.Ref{lattice("ethereum.mainnet"), lattice("ethereum.sepolia")},
		Organisms:    []organisms.Ref{organism("oracle", "oracle-γ.oracle"), pinned},
		Atlas:        &Content{Parameters: []byte("who is catalogued"), ACL: organisms.ACL{id("clause")}},
		Almanac:      &Content{Parameters: []byte{1}},
		Compute:      &Content{Measurements: idp("measurements"), ACL: organisms.ACL{id("clause"), id("another")}},
		TicketIssuer: &TicketIssuerConfig{Name: "desk", ACL: organisms.ACL{id("clause")}},
		Retirement:   RetirementPolicy{Notice: time.Hour, Grace: 48 * time.Hour},
	}
}

// vectors are fixed ids: those of the sources, and our own since they were first
// published.
type vectors struct {
	Sources []struct {
		In  json.RawMessage `json:"in"`
		Op  string          `json:"op"`
		Out identity.ID     `json:"out"`
	} `json:"sources"`
	Own map[string]identity.ID `json:"own"`
}

func readVectors(t *testing.T) (v vectors) {
	t.Helper()
	b, err := os.ReadFile("testdata/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// TestInvariant01: fixed configs give fixed ids.
func TestInvariant01(t *testing.T) {
	v := readVectors(t)
	if len(v.Sources) < 16 {
		t.Fatalf("%d vectors of the sources", len(v.Sources))
	}
	for _, s := range v.Sources {
		var in struct {
			Name      string        `json:"name"`
			Lattices  []identity.ID `json:"lattices"`
			Organisms []identity.ID `json:"organisms"`
			Root      identity.ID   `json:"root"`
			Module    ModuleKind    `json:"module"`
			ChainID   uint64        `json:"chain_id"`
			Lattice   identity.ID   `json:"lattice"`
			Organism  string        `json:"organism"`
		}
		if err := json.Unmarshal(s.In, &in); err != nil {
			t.Fatal(err)
		}
		var got identity.ID
		c := Config{Name: in.Name}
		switch s.Op {
		case "coalition":
			got = c.Seed()
		case "coalition_root":
			for _, l := range in.Lattices {
				c.Lattices = append(c.Lattices, organisms.Ref{Role: LatticeRole, StableID: l})
			}
			for _, o := range in.Organisms {
				c.Organisms = append(c.Organisms, organisms.Ref{Role: "x", StableID: o})
			}
			got = c.Root()
		case "module_root":
			got = moduleRoot(in.Root, in.Module)
		case "tickets_root":
			got = in.Root.Derive("tickets")
		case "lattice":
			got = (&LatticeConfig{Name: in.Name, ChainID: in.ChainID}).Root()
		case "lattice_organism_root":
			got = in.Lattice.Derive(in.Organism)
		default:
			t.Errorf("no operation %q", s.Op)
		}
		if got != s.Out {
			t.Errorf("%s %s: %s, want %s", s.Op, s.In, got, s.Out)
		}
	}
	for name, got := range ownIDs(t) {
		if got != v.Own[name] {
			t.Errorf("own %s: %q, want %q", name, got, v.Own[name])
		}
	}
	if len(v.Own) != len(ownIDs(t)) {
		t.Errorf("%d own vectors", len(v.Own))
	}
}

// ownIDs are the ids that the own vectors hold.
func ownIDs(t *testing.T) map[string]identity.ID {
	c := example()
	module := func(kind ModuleKind) identity.ID {
		m, err := c.Module(kind)
		if err != nil {
			t.Fatal(err)
		}
		return *m.ContentHash
	}
	tickets, err := c.TicketsRoot()
	if err != nil {
		t.Fatal(err)
	}
	l := LatticeConfig{Name: "ethereum.mainnet", ChainID: 1, Offer: Content{Parameters: []byte("offer")}, Tally: Content{Measurements: idp("m")}}
	empty := Config{Name: "empty"}
	return map[string]identity.ID{
		"root": c.Root(), "id": c.ID(), "atlas": module(Atlas), "almanac": module(Almanac), "compute": module(Compute), "tickets": tickets,
		"issuer": c.TicketIssuer.Fingerprint(), "retirement": c.Retirement.Fingerprint(), "default retirement": DefaultRetirement().Fingerprint(),
		"lattice stable id": l.StableID(), "lattice id": l.ID(), "empty root": empty.Root(), "empty id": empty.ID(),
	}
}

// TestInvariant02and09: a member's ids do not know of coalitions; the same service in two
// coalitions has two.
func TestInvariant02and09(t *testing.T) {
	o := organisms.Config{Role: "oracle", InstanceName: "oracle-γ.oracle"}
	stable, hash := o.StableID(), o.ContentHash()
	a, b := Config{Name: "a", Organisms: []organisms.Ref{o.Ref(true)}, Atlas: new(Content)}, Config{Name: "b", Organisms: []organisms.Ref{o.Ref(false)}, Atlas: new(Content)}
	if a.ID() == b.ID() || a.Organisms[0].StableID != b.Organisms[0].StableID || o.StableID() != stable || o.ContentHash() != hash || *a.Organisms[0].ContentHash != hash {
		t.Error("a member has changed by being named")
	}
	x, err := a.Module(Atlas)
	y, err2 := b.Module(Atlas)
	if err != nil || err2 != nil || x.StableID == y.StableID || *x.ContentHash == *y.ContentHash {
		t.Errorf("%v and %v, %v, %v", x, y, err, err2)
	}
}

// TestInvariant03: all mixes of lattices and organisms derive, each to another id.
func TestInvariant03(t *testing.T) {
	seen := make(map[identity.ID]string)
	for lattices := range 3 {
		for others := range 3 {
			c := Config{Name: "mix"}
			for i := range lattices {
				c.Lattices = append(c.Lattices, lattice(fmt.Sprint("l", i)))
			}
			for i := range others {
				c.Organisms = append(c.Organisms, organism("o", fmt.Sprint("o", i)))
			}
			name := fmt.Sprint(lattices, " lattices, ", others, " organisms")
			if err := c.Validate(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			for _, got := range []identity.ID{c.ID(), c.Root()} {
				if before, taken := seen[got]; taken {
					t.Errorf("%s has an id of %s", name, before)
				}
				seen[got] = name
			}
		}
	}
}

// TestInvariant04: a module that is there is returned, one that is not is an error of its
// own, not a zero id; the same for the issuer.
func TestInvariant04(t *testing.T) {
	c := example()
	for _, kind := range ModuleKinds() {
		m, err := c.Module(kind)
		switch there := c.module(kind) != nil; {
		case there && (err != nil || m.StableID != moduleRoot(c.Root(), kind) || m.Role != string(kind)):
			t.Errorf("%s: %+v, %v", kind, m, err)
		case !there && !errors.Is(err, ErrNoModule):
			t.Errorf("%s: %+v, %v", kind, m, err)
		}
	}
	if _, err := c.Module("archive"); !errors.Is(err, ErrNoModule) {
		t.Error(err)
	}
	if _, err := (&Config{Name: "x"}).TicketsRoot(); !errors.Is(err, ErrNoIssuer) {
		t.Error(err)
	}
}

// TestInvariant05: the version stands in every preimage, so another one changes every id.
func TestInvariant05(t *testing.T) {
	if organisms.SchemaVersion != 1 {
		t.Fatal("the vectors are those of version 1")
	}
	c := Config{Name: "signals.euro-fx"}
	v2 := identity.FromParts([]byte("coalition|"), []byte{2, '|'}, []byte(c.Name))
	if c.Seed() == v2 || c.Seed() != identity.FromParts([]byte("coalition|\x01|signals.euro-fx")) {
		t.Error(c.Seed())
	}
	_, err := ParseTOML(strings.NewReader("schema = 2\nname = \"x\"\n"))
	if !errors.Is(err, ErrNewerSchema) {
		t.Error(err)
	}
}

// changes are what makes another coalition id, and whether the root moves with it.
func changes() map[string]struct {
	root    bool
	trigger Trigger
	change  func(*Config)
} {
	type m = struct {
		root    bool
		trigger Trigger
		change  func(*Config)
	}
	other := organism("oracle", "another.oracle")
	return map[string]m{
		"name":                  {true, NameChanged, func(c *Config) { c.Name = "signals.euro-fy" }},
		"lattice retired":       {true, LatticeRetired, func(c *Config) { c.Lattices[0] = lattice("ethereum.mainnet-2") }},
		"organism retired":      {true, OrganismRetired, func(c *Config) { c.Organisms[0] = other }},
		"lattices swapped":      {true, LatticeSetChanged, func(c *Config) { slices.Reverse(c.Lattices) }},
		"organisms swapped":     {true, OrganismSetChanged, func(c *Config) { slices.Reverse(c.Organisms) }},
		"lattice gone":          {true, LatticeSetChanged, func(c *Config) { c.Lattices = c.Lattices[:1] }},
		"organism come":         {true, OrganismSetChanged, func(c *Config) { c.Organisms = append(c.Organisms, other) }},
		"pin":                   {false, PinChanged, func(c *Config) { c.Organisms[1].ContentHash = idp("new content") }},
		"pinned no longer":      {false, PinChanged, func(c *Config) { c.Organisms[1].ContentHash = nil }},
		"pinned now":            {false, PinChanged, func(c *Config) { c.Organisms[0].ContentHash = idp("content") }},
		"lattice pinned":        {false, PinChanged, func(c *Config) { c.Lattices[1].ContentHash = idp("content") }},
		"module's parameters":   {false, ModuleChanged, func(c *Config) { c.Atlas.Parameters = nil }},
		"module's ACL":          {false, ModuleChanged, func(c *Config) { c.Compute.ACL = c.Compute.ACL[:1] }},
		"module's measurements": {false, ModuleChanged, func(c *Config) { c.Almanac.Measurements = idp("m") }},
		"module gone":           {false, ModuleSetChanged, func(c *Config) { c.Almanac = nil }},
		"module come":           {false, ModuleSetChanged, func(c *Config) { c.Randomness = new(Content) }},
		"issuer gone":           {true, IssuerChanged, func(c *Config) { c.TicketIssuer = nil }},
		"issuer rotated":        {true, IssuerChanged, func(c *Config) { c.TicketIssuer.ACL = organisms.ACL{id("others")} }},
		"issuer renamed":        {true, IssuerChanged, func(c *Config) { c.TicketIssuer.Name = "counter" }},
		"retirement":            {false, RetirementChanged, func(c *Config) { c.Retirement.Notice++; c.Retirement.Notice += time.Millisecond - 1 }},
		"role":                  {false, PinChanged, func(c *Config) { c.Organisms[0].Role = "orakel" }},
	}
}

// TestInvariant06and10and11: order, set, issuer and name are part of the root and so of
// the modules' and tickets' ids; everything is part of the coalition id.
func TestInvariant06and10and11(t *testing.T) {
	base := example()
	ids := map[identity.ID]string{base.ID(): "the original"}
	for name, m := range changes() {
		c := example()
		m.change(c)
		if err := c.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if before, taken := ids[c.ID()]; taken {
			t.Errorf("%s has the id of %s", name, before)
		}
		ids[c.ID()] = name
		if moved := c.Root() != base.Root(); moved != m.root {
			t.Errorf("%s: the root has moved: %t", name, moved)
		}
		was, _ := base.Module(Compute)
		is, err := c.Module(Compute)
		if err != nil || (is.StableID != was.StableID) != m.root {
			t.Errorf("%s: compute is %s, before %s, %v", name, is.StableID, was.StableID, err)
		}
	}
}

// TestInvariant07: the boundary between lattices and organisms is part of the coalition
// id; the root, a run of ids as the sources have it, does not know it.
func TestInvariant07(t *testing.T) {
	x, y := lattice("x"), lattice("y")
	moved := organisms.Ref{Role: "x", StableID: y.StableID}
	a := Config{Name: "n", Lattices: []organisms.Ref{x, y}}
	b := Config{Name: "n", Lattices: []organisms.Ref{x}, Organisms: []organisms.Ref{moved}}
	if a.ID() == b.ID() {
		t.Error("one id")
	}
	if a.Root() != b.Root() {
		t.Error("the literal formula has changed")
	}
}

// TestInvariant08: what is routine in a member changes its content hash, not its stable
// id, and so not the coalition unless it is pinned.
func TestInvariant08(t *testing.T) {
	o := organisms.Config{Role: "oracle", InstanceName: "o", Measurements: idp("old"), ACL: organisms.ACL{id("a")}}
	rotated := o
	rotated.Measurements, rotated.ACL = idp("new"), organisms.ACL{id("b")}
	if o.StableID() != rotated.StableID() || o.ContentHash() == rotated.ContentHash() {
		t.Error("ids")
	}
	for _, pinned := range []bool{false, true} {
		before, after := Config{Name: "c", Organisms: []organisms.Ref{o.Ref(pinned)}}, Config{Name: "c", Organisms: []organisms.Ref{rotated.Ref(pinned)}}
		if changed := before.ID() != after.ID(); changed != pinned {
			t.Errorf("pinned %t: the id has changed: %t", pinned, changed)
		}
		if before.Root() != after.Root() {
			t.Error("the root has moved")
		}
	}
	l := LatticeConfig{Name: "l", ChainID: 1}
	other := l
	other.Relay.Parameters = []byte("x")
	chain := l
	chain.ChainID = 2
	if l.StableID() != other.StableID() || l.ID() == other.ID() || l.ID() == chain.ID() || l.StableID() != chain.StableID() {
		t.Error("a lattice's ids")
	}
}

// TestInvariant14and15: what cannot be is refused, with the line and the field; what a
// later program may have added is tolerated, told, and part of no id.
func TestInvariant14and15(t *testing.T) {
	text, err := example().AppendTOML(nil)
	if err != nil {
		t.Fatal(err)
	}
	good := string(text)
	replace := func(old, new string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("the example has no %q:\n%s", old, good)
		}
		return strings.Replace(good, old, new, 1)
	}
	second := organisms.StableID("bridge-β.market").String()
	lineOf := func(text, part string) int { return 1 + strings.Count(text[:strings.Index(text, part)], "\n") }
	for _, test := range []struct{ text, at, field, why string }{
		{replace(second, organisms.StableID("oracle-γ.oracle").String()), "role = \"market\"", "organism[1].stable-id", "that of organism[0] already"},
		{replace(second, second[1:]), second[1:], "organism[1].stable-id", "63 characters"},
		{replace(id("content of the market").String(), strings.Repeat("0", 64)), "pin = ", "organism[1].pin", "leave it out"},
		{replace("pin = \"", "pin = \"0"), "pin = ", "organism[1].pin", "65 characters"},
		{replace("role = \"oracle\"", "role = \"lattice\""), "role = \"lattice\"", "organism[0].role", "lattices, and only they"},
		{replace("role = \"oracle\"", "role = \"\""), "role = \"\"", "organism[0].role", ""},
		{replace("signals.euro-fx", "e\u0301cole"), "name = ", "name", "normalisation form C"},
		{replace("name = \"desk\"", "name = \"\""), "name = \"\"", "ticket-issuer.name", ""},
		{replace("notice = \"1h0m0s\"", "notice = \"soon\""), "notice = ", "retirement.notice", "soon"},
		{replace("notice = \"1h0m0s\"", "notice = \"1us\""), "notice = ", "retirement.notice", "milliseconds"},
		{replace("parameters = \"01\"", "parameters = \"0\""), "parameters = \"0\"", "almanac.parameters", "not hex"},
		{replace("schema = 1", "schema = = 1"), "schema = = 1", "schema", ""},
		{replace("schema = 1\n", ""), "", "schema", "missing"},
	} {
		p, err := ParseTOML(strings.NewReader(test.text))
		var bad *FieldError
		if !errors.As(err, &bad) || test.field != "" && bad.Field != test.field || !strings.Contains(err.Error(), test.why) {
			t.Errorf("%s: %+v, %v", test.field, p, err)
			continue
		}
		// The line of a field whose key stands beside another in its table is near it.
		if test.at != "" && (bad.Line < lineOf(test.text, test.at)-1 || bad.Line > lineOf(test.text, test.at)+2 || bad.Line == 0) {
			t.Errorf("%s: line %d, it is near %d", test.field, bad.Line, lineOf(test.text, test.at))
		}
	}
	p, err := ParseTOML(strings.NewReader(replace("role = \"oracle\"", "role = \"oracle\"\nmotto = \"in dubio\"") + "\n[outlook]\nweather = \"fair\"\n"))
	if err != nil || !slices.Equal(p.Unknown, []string{"organism.motto", "outlook", "outlook.weather"}) || p.Config.ID() != example().ID() {
		t.Errorf("%+v, %v", p, err)
	}
	if _, err := ParseTOML(strings.NewReader(strings.Repeat("#", MaxFile+1))); err == nil {
		t.Error("too large a file was read")
	}
}

// TestRoundTrip: TOML and JSON say all of a config, and equal configs give equal text.
func TestRoundTrip(t *testing.T) {
	for name, c := range map[string]*Config{"full": example(), "empty": {Name: "empty"}} {
		first, err := c.AppendTOML(nil)
		if err != nil {
			t.Fatal(err)
		}
		p, err := ParseTOML(bytes.NewReader(first))
		if err != nil || len(p.Unknown) > 0 {
			t.Fatalf("%s: %v, %v\n%s", name, p, err, first)
		}
		again, err := p.Config.AppendTOML(nil)
		if err != nil || !bytes.Equal(first, again) || p.Config.ID() != c.ID() || !reflect.DeepEqual(p.Config, c) {
			t.Errorf("%s: %v\n%s\n%s", name, err, first, again)
		}
		j, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		p, err = ParseJSON(bytes.NewReader(j))
		if err != nil || !reflect.DeepEqual(p.Config, c) {
			t.Errorf("%s: %+v, %v\n%s", name, p, err, j)
		}
	}
}

// TestDiff: each change is told by its trigger, and by no other; no change by none.
func TestDiff(t *testing.T) {
	for name, m := range changes() {
		c := example()
		m.change(c)
		d := Diff(example(), c)
		if len(d) == 0 || slices.ContainsFunc(d, func(d Difference) bool {
			return d.Trigger != m.trigger || d.Do == "" || d.Field == "" || d.Change == ""
		}) {
			t.Errorf("%s: %+v, want trigger %d", name, d, m.trigger)
		}
		if back := Diff(c, example()); len(back) == 0 {
			t.Errorf("%s: nothing on the way back", name)
		}
	}
	if d := Diff(example(), example()); d != nil {
		t.Errorf("%+v", d)
	}
	spelled := example()
	spelled.Retirement = RetirementPolicy{}
	same := example()
	same.Retirement = DefaultRetirement()
	if d := Diff(spelled, same); d != nil || spelled.ID() != same.ID() {
		t.Errorf("the default, spelled out: %+v", d)
	}
}

// BenchmarkLarge derives, compares, reads and verifies a coalition of 10,000 members.
func BenchmarkLarge(b *testing.B) {
	c, after := &Config{Name: "large"}, &Config{Name: "large"}
	for i := range 10_000 {
		c.Organisms = append(c.Organisms, organism("x", fmt.Sprint("o", i)))
	}
	after.Organisms = slices.Clone(c.Organisms)
	after.Organisms[5000] = organism("x", "successor")
	text, err := c.AppendTOML(nil)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		p, err := ParseTOML(bytes.NewReader(text))
		if err != nil || p.Config.ID() != c.ID() {
			b.Fatal(err)
		}
		if d := Diff(c, after); len(d) != 1 {
			b.Fatalf("%d differences", len(d))
		}
		page, err := (&Handshake{Config: c}).Render()
		if err != nil {
			b.Fatal(err)
		}
		if checks, err := VerifyHandshake(page, c); err != nil || len(checks) < 10_000 {
			b.Fatalf("%d checks, %v", len(checks), err)
		}
	}
}

// FuzzParse: what is read says the same when it is written and read again, and never
// has ids of its own that it loses on the way.
func FuzzParse(f *testing.F) {
	text, err := example().AppendTOML(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(text))
	f.Add("schema = 1\nname = \"x\"\n[[organism]]\nrole = \"y\"\nstable-id = \"\"\n")
	f.Add("schema = 1\nname = \"x\"\n[retirement]\nnotice = \"1ms\"\ngrace = \"0s\"\n")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParseTOML(strings.NewReader(text))
		if err != nil {
			return
		}
		again, err := p.Config.AppendTOML(nil)
		if err != nil {
			t.Fatal(err)
		}
		q, err := ParseTOML(bytes.NewReader(again))
		if err != nil || q.Config.ID() != p.Config.ID() || len(Diff(p.Config, q.Config)) > 0 {
			t.Fatalf("%q becomes %q: %v", text, again, err)
		}
	})
}
