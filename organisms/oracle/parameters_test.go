package oracle_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/organisms"
	"github.com/mosaik-engine/mosaik/organisms/oracle"
)

// TestPairs: names that pairs cannot have, and that order does not matter for ids.
func TestPairs(t *testing.T) {
	for text, why := range map[string]string{
		"ETH": "no base/quote", "/USD": "base: mosaik: invalid name: it is empty", "ETH/": "quote: mosaik: invalid name: it is empty",
		"ETH/ETH": "both", "A/B/C": "slash", "e\u0301/USD": "normalisation form C", "A\x00/B": "control character", "A/\xff": "UTF-8",
		strings.Repeat("x", oracle.MaxSymbol+1) + "/USD": "17 bytes", "USD/" + strings.Repeat("é", 9): "18 bytes",
	} {
		if p, err := oracle.ParsePair(text); !errors.Is(err, oracle.ErrPair) || !strings.Contains(err.Error(), why) || p != (oracle.Pair{}) {
			t.Errorf("%q: %v, %v, want %q", text, p, err, why)
		}
	}
	p, err := oracle.ParsePair("₿/USD")
	if err != nil || p.String() != "₿/USD" {
		t.Fatal(p, err)
	}
	inverse := oracle.Pair{Base: p.Quote, Quote: p.Base}
	ids := map[identity.ID]string{}
	for name, id := range map[string]identity.ID{
		"stream": oracle.StreamID(stableID, p), "rounds": oracle.RoundsID(stableID, p),
		"of another oracle": oracle.StreamID(identity.NewID("x"), p), "of another pair": oracle.StreamID(stableID, ethUSDC),
		"a letter moved": oracle.StreamID(stableID, oracle.Pair{Base: "₿U", Quote: "SD"}),
	} {
		if before, twice := ids[id]; twice {
			t.Errorf("%s has the id of %s", name, before)
		}
		ids[id] = name
	}
	if oracle.StreamID(stableID, p) != oracle.StreamID(stableID, inverse) || oracle.RoundsID(stableID, p) != oracle.RoundsID(stableID, inverse) {
		t.Error("a pair and its inverse have different streams")
	}
}

// changes are one change of each field of what T is made of: reflection says whether one
// has been left out.
type changes[T any] map[string]func(*T)

func (c changes[T]) complete(t *testing.T) {
	t.Helper()
	for f := range reflect.TypeFor[T]().Fields() {
		if c[f.Name] == nil {
			t.Errorf("%v: no change of %s", reflect.TypeFor[T](), f.Name)
		}
	}
}

// TestEveryParameterCounts changes one field after the other, of the parameters and of each
// kind of source: each gives another digest, and encodes to other bytes that decode again.
func TestEveryParameterCounts(t *testing.T) {
	parameters := changes[oracle.Parameters]{
		"Feeds":     func(p *oracle.Parameters) { slices.Reverse(p.Feeds) },
		"Catalog":   func(p *oracle.Parameters) { p.Catalog[31]++ },
		"Policy":    func(p *oracle.Parameters) { p.Policy++ },
		"Cadence":   func(p *oracle.Parameters) { p.Cadence += time.Millisecond },
		"Deadline":  func(p *oracle.Parameters) { p.Deadline += time.Millisecond },
		"MaxAge":    func(p *oracle.Parameters) { p.MaxAge += time.Millisecond },
		"MaxAhead":  func(p *oracle.Parameters) { p.MaxAhead += time.Millisecond },
		"Minimum":   func(p *oracle.Parameters) { p.Minimum++ },
		"Quorum":    func(p *oracle.Parameters) { p.Quorum-- },
		"Outliers":  func(p *oracle.Parameters) { p.Outliers-- },
		"Decimals":  func(p *oracle.Parameters) { p.Decimals++ },
		"Tolerance": func(p *oracle.Parameters) { p.Tolerance++ },
	}
	parameters.complete(t)
	feed := changes[oracle.Feed]{
		"Pair": func(f *oracle.Feed) { f.Pair.Base = "WETH" },
		"Sources": func(f *oracle.Feed) {
			f.Sources = append(f.Sources, oracle.Weighted{Source: identity.NewID("x"), Weight: 1})
		},
	}
	feed.complete(t)
	for name, change := range feed {
		parameters["Feed."+name] = func(p *oracle.Parameters) { change(&p.Feeds[0]) }
	}
	weighted := changes[oracle.Weighted]{
		"Source": func(w *oracle.Weighted) { w.Source[0]++ },
		"Weight": func(w *oracle.Weighted) { w.Weight++ },
	}
	weighted.complete(t)
	for name, change := range weighted {
		parameters["Weighted."+name] = func(p *oracle.Parameters) { change(&p.Feeds[1].Sources[2]) }
	}
	parameters["inverse"] = func(p *oracle.Parameters) { f := &p.Feeds[0].Pair; f.Base, f.Quote = f.Quote, f.Base }
	parameters["sources swapped"] = func(p *oracle.Parameters) { slices.Reverse(p.Feeds[0].Sources) }
	parameters["weights swapped"] = func(p *oracle.Parameters) {
		s := p.Feeds[0].Sources
		s[0].Weight, s[1].Weight = s[1].Weight, s[0].Weight
	}
	base, _ := everything()
	digests := map[identity.ID]string{base.Digest(): "the original"}
	for name, change := range parameters {
		p, _ := everything()
		change(p)
		digest := p.Digest()
		if before, taken := digests[digest]; taken {
			t.Errorf("%s has the digest of %s", name, before)
		}
		digests[digest] = name
		again, err := oracle.DecodeParameters(p.Append(nil))
		if name == "Policy" || name == "Minimum" {
			continue // there is but one, and more than there are sources: refused, see TestBadParameters
		}
		if err != nil || !reflect.DeepEqual(again, p) {
			t.Errorf("%s: decoded as %+v, %v", name, again, err)
		}
	}
}

func TestEveryFieldOfASourceCounts(t *testing.T) {
	pin := identity.NewID("another revision")
	cex := changes[oracle.CexSpot]{
		"Exchange": func(s *oracle.CexSpot) { s.Exchange += "2" }, "Symbol": func(s *oracle.CexSpot) { s.Symbol += "2" },
		"Endpoint": func(s *oracle.CexSpot) { s.Endpoint += "2" }, "TLS": func(s *oracle.CexSpot) { s.TLS[31]++ },
		"PricePath": func(s *oracle.CexSpot) { s.PricePath += "2" }, "TimePath": func(s *oracle.CexSpot) { s.TimePath += "2" },
	}
	replay := changes[oracle.Replay]{
		"File": func(s *oracle.Replay) { s.File[0]++ }, "Instrument": func(s *oracle.Replay) { s.Instrument += "2" },
		"Venue": func(s *oracle.Replay) { s.Venue += "2" }, "Column": func(s *oracle.Replay) { s.Column = oracle.Bid },
	}
	organism := changes[oracle.Organism]{
		"Ref":  func(s *oracle.Organism) { s.Ref.StableID[0]++ },
		"Pair": func(s *oracle.Organism) { s.Pair.Base += "2" },
	}
	cex.complete(t)
	replay.complete(t)
	organism.complete(t)
	organism["pin"] = func(s *oracle.Organism) { s.Ref.ContentHash = &pin }
	organism["no pin"] = func(s *oracle.Organism) { s.Ref.ContentHash = nil }
	all := map[string]func(*oracle.Catalog){
		"pairs swapped":   func(c *oracle.Catalog) { slices.Reverse(c.Pairs) },
		"sources swapped": func(c *oracle.Catalog) { slices.Reverse(c.Pairs[0].Sources) },
		"a source less":   func(c *oracle.Catalog) { c.Pairs[0].Sources = c.Pairs[0].Sources[:2] },
		"pair":            func(c *oracle.Catalog) { c.Pairs[0].Pair.Quote = "USD" },
		"a letter moved": func(c *oracle.Catalog) {
			s := c.Pairs[0].Sources[0].(*oracle.CexSpot)
			s.Exchange, s.Symbol = "krakenE", "THUSDC"
		},
	}
	for name, change := range cex {
		all["cex "+name] = func(c *oracle.Catalog) { change(c.Pairs[0].Sources[0].(*oracle.CexSpot)) }
	}
	for name, change := range replay {
		all["replay "+name] = func(c *oracle.Catalog) { change(c.Pairs[1].Sources[0].(*oracle.Replay)) }
	}
	for name, change := range organism {
		all["organism "+name] = func(c *oracle.Catalog) { change(c.Pairs[0].Sources[2].(*oracle.Organism)) }
	}
	p, base := everything()
	digests := map[identity.ID]string{base.Digest(): "the original"}
	for name, change := range all {
		_, c := everything()
		change(c)
		if err := c.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if before, taken := digests[c.Digest()]; taken {
			t.Errorf("%s has the digest of %s", name, before)
		}
		digests[c.Digest()] = name
		if err := p.Matches(c); err == nil {
			t.Errorf("%s: the parameters match", name)
		}
		if again, err := oracle.DecodeCatalog(c.Append(nil)); err != nil || !reflect.DeepEqual(again, c) {
			t.Errorf("%s: decoded as %+v, %v", name, again, err)
		}
	}
	if err := p.Matches(base); err != nil {
		t.Error(err)
	}
	p.Feeds[0].Sources[1].Source = identity.NewID("none of the catalog")
	if err := p.Matches(base); err == nil {
		t.Error("parameters with a source that is not in the catalog match it")
	}
}

func TestBadParameters(t *testing.T) {
	for want, change := range map[string]func(*oracle.Parameters){
		"cadence: 0s":            func(p *oracle.Parameters) { p.Cadence = 0 },
		"cadence: 24h0m0.001s":   func(p *oracle.Parameters) { p.Cadence = oracle.MaxDuration + time.Millisecond },
		"max-age: 1.5µs":         func(p *oracle.Parameters) { p.MaxAge = 1500 },
		"deadline: 2s":           func(p *oracle.Parameters) { p.Deadline = 2 * time.Second },
		"max-ahead: 499ms":       func(p *oracle.Parameters) { p.MaxAhead = 499 * time.Millisecond },
		"aggregation: policy 2":  func(p *oracle.Parameters) { p.Policy = 2 },
		"quorum: 0":              func(p *oracle.Parameters) { p.Quorum = 0 },
		"quorum: 4":              func(p *oracle.Parameters) { p.Quorum = 4 },
		"outliers: 2":            func(p *oracle.Parameters) { p.Outliers = 2 },
		"half of the minimum, 4": func(p *oracle.Parameters) { p.Minimum, p.Outliers = 4, 2 },
		"decimals: 19":           func(p *oracle.Parameters) { p.Decimals = 19 },
		"tolerance: 1000001":     func(p *oracle.Parameters) { p.Tolerance = 1_000_001 },
		"catalog: its digest":    func(p *oracle.Parameters) { p.Catalog = identity.ID{} },
		"pairs: 0":               func(p *oracle.Parameters) { p.Feeds = nil },
		"pairs: 257":             func(p *oracle.Parameters) { p.Feeds = make([]oracle.Feed, oracle.MaxPairs+1) },
		"pairs[1]: mosaik: bad":  func(p *oracle.Parameters) { p.Feeds[1].Pair.Base = "" },
		"also pairs[0], in":      func(p *oracle.Parameters) { p.Feeds[1].Pair = oracle.Pair{Base: "USDC", Quote: "ETH"} },
		"ETH/USDC is also pairs[0]": func(p *oracle.Parameters) {
			p.Feeds[0].Pair, p.Feeds[1].Pair = oracle.Pair{Base: "USDC", Quote: "ETH"}, ethUSDC
		},
		"has 2 sources":             func(p *oracle.Parameters) { p.Feeds[0].Sources = p.Feeds[0].Sources[:2] },
		"has 65 sources":            func(p *oracle.Parameters) { p.Feeds[0].Sources = make([]oracle.Weighted, oracle.MaxSources+1) },
		"source 1: its id is zero":  func(p *oracle.Parameters) { p.Feeds[0].Sources[1].Source = identity.ID{} },
		"also pairs[0], source 0":   func(p *oracle.Parameters) { p.Feeds[1].Sources[2].Source = p.Feeds[0].Sources[0].Source },
		"its weight is 0":           func(p *oracle.Parameters) { p.Feeds[1].Sources[0].Weight = 0 },
		"its weight is 1000001,":    func(p *oracle.Parameters) { p.Feeds[1].Sources[0].Weight = oracle.MaxWeight + 1 },
		"source 2: its weight is 0": func(p *oracle.Parameters) { p.Feeds[0].Sources[2].Weight = 0 },
	} {
		p, _ := everything()
		change(p)
		var bad *oracle.FieldError
		if err := p.Validate(); !errors.As(err, &bad) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func TestBadCatalogs(t *testing.T) {
	cex := func(c *oracle.Catalog) *oracle.CexSpot { return c.Pairs[0].Sources[0].(*oracle.CexSpot) }
	replay := func(c *oracle.Catalog) *oracle.Replay { return c.Pairs[1].Sources[0].(*oracle.Replay) }
	organism := func(c *oracle.Catalog) *oracle.Organism { return c.Pairs[0].Sources[2].(*oracle.Organism) }
	for want, change := range map[string]func(*oracle.Catalog){
		"pairs: 0":                  func(c *oracle.Catalog) { c.Pairs = nil },
		"pairs[0]: mosaik: bad":     func(c *oracle.Catalog) { c.Pairs[0].Pair.Base = "a/b" },
		"pairs[1]: USDC/ETH is":     func(c *oracle.Catalog) { c.Pairs[1].Pair = oracle.Pair{Base: "USDC", Quote: "ETH"} },
		"has 0 sources":             func(c *oracle.Catalog) { c.Pairs[1].Sources = nil },
		"source[0].exchange":        func(c *oracle.Catalog) { cex(c).Exchange = "" },
		"source[0].symbol":          func(c *oracle.Catalog) { cex(c).Symbol = "e\u0301" },
		"source[0].endpoint: \"htt": func(c *oracle.Catalog) { cex(c).Endpoint = "http://exchange.example/" },
		"source[0].endpoint: \"//e": func(c *oracle.Catalog) { cex(c).Endpoint = "//exchange.example/" },
		"\"https://u:p@e\"":         func(c *oracle.Catalog) { cex(c).Endpoint = "https://u:p@e" },
		"\"https://e/#x\"":          func(c *oracle.Catalog) { cex(c).Endpoint = "https://e/#x" },
		"\"https:///x\"":            func(c *oracle.Catalog) { cex(c).Endpoint = "https:///x" },
		"endpoint: parse":           func(c *oracle.Catalog) { cex(c).Endpoint = "https://%zz" },
		"endpoint: 5":               func(c *oracle.Catalog) { cex(c).Endpoint += strings.Repeat("x", oracle.MaxEndpoint) },
		"source[0].tls-spki":        func(c *oracle.Catalog) { cex(c).TLS = oracle.SPKI{} },
		"source[0].price-path":      func(c *oracle.Catalog) { cex(c).PricePath = "price" },
		"step \"~2\"":               func(c *oracle.Catalog) { cex(c).PricePath = "/~2" },
		"33 steps":                  func(c *oracle.Catalog) { cex(c).PricePath = strings.Repeat("/a", 33) },
		"source[0].time-path":       func(c *oracle.Catalog) { cex(c).TimePath = "time" },
		"source[3].file":            func(c *oracle.Catalog) { replay(c).File = log.Digest{} },
		"source[3].instrument":      func(c *oracle.Catalog) { replay(c).Instrument = "a,b" },
		"source[3].venue":           func(c *oracle.Catalog) { replay(c).Venue = "a,b" },
		"source[3].column":          func(c *oracle.Catalog) { replay(c).Column = 4 },
		"source[2].organism: its r": func(c *oracle.Catalog) { organism(c).Ref.Role = "market" },
		"source[2].organism: mosai": func(c *oracle.Catalog) { organism(c).Ref.StableID = identity.ID{} },
		"source[2].upstream-pair":   func(c *oracle.Catalog) { organism(c).Pair = oracle.Pair{} },
	} {
		_, c := everything()
		change(c)
		var bad *oracle.FieldError
		if err := c.Validate(); !errors.As(err, &bad) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func parsers() map[string]func(io.Reader) (*oracle.Parameters, *oracle.Catalog, error) {
	return map[string]func(io.Reader) (*oracle.Parameters, *oracle.Catalog, error){"toml": oracle.ParseTOML, "json": oracle.ParseJSON}
}

// TestFiles: one oracle as TOML, as JSON and as a literal.
func TestFiles(t *testing.T) {
	wantP, wantC := everything()
	for name, parse := range parsers() {
		f, err := os.Open("testdata/oracle." + name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		p, c, err := parse(f)
		if err != nil || !reflect.DeepEqual(p, wantP) || !reflect.DeepEqual(c, wantC) {
			t.Errorf("%s: %+v, %+v, %v", name, p, c, err)
		}
	}
}

// TestBadFiles: errors name the field, and the line where there is one.
func TestBadFiles(t *testing.T) {
	for _, test := range []struct{ kind, old, new, want string }{
		{"toml", `schema = 1`, ``, "schema: it is missing"},
		{"toml", `schema = 1`, `schema = -1`, "line 2: schema: -1"},
		{"toml", `schema = 1`, `schema = 2`, "newer schema: schema 2"},
		{"toml", `cadence = "1s"`, `cadence = "soon"`, `line 5: cadence: "soon"`},
		{"toml", `cadence = "1s"`, `cadence = 1`, `line 5 (last key "cadence")`},
		{"toml", `cadence = "1s"`, `cadence = "1s`, `line 5: cadence`},
		{"toml", `minimum = 3`, `minimum = 300`, "line 9: minimum"},
		{"toml", `minimum = 3`, `minimum = 3.5`, `line 9 (last key "minimum")`},
		{"toml", `minimum = 3`, "minimum = 3\nminimum = 4", "line 10: minimum"},
		{"toml", `quorum = 2`, `quorum = 4`, "line 10: quorum: 4"},
		{"toml", `"weighted-median"`, `"mean"`, `line 4: aggregation: "mean"`},
		{"toml", `"USD/JPY"]`, `"USD"]`, `line 3: pairs[1]`},
		{"toml", `"USD/JPY"]`, `"USDC/ETH"]`, `line 45: source[3].pair: "USD/JPY" is none of the pairs`},
		{"toml", `tolerance = 5000`, `tolerances = 5000`, "line 13: tolerances: it is not known"},
		{"toml", `kind = "replay"`, `kind = "guess"`, `line 47: source[3].kind: "guess"`},
		{"toml", `weight = 2`, `weight = 0`, `line 28: source[1].weight: 0`},
		{"toml", `column = "mid"`, `column = "last"`, `line 51: source[3].column: "last"`},
		{"toml", `column = "mid"`, "column = \"mid\"\nexchange = \"x\"", `does not have: exchange`},
		{"toml", `tls-spki = "0102`, `tls-spki = "02`, `line 22: source[0].tls-spki: "02`},
		{"toml", `price-path = "/result`, `price-path = "result`, `line 23: source[0].price-path`},
		{"toml", `endpoint = "https://other`, `endpoint = "http://other`, `line 32: source[1].endpoint`},
		{"toml", `upstream-pair = "USD/JPY"`, `upstream-pair = "USD"`, `line 58: source[4].upstream-pair`},
		{"toml", `venue = "truefx"`, `venu = "truefx"`, `line 50: source.venu: it is not known`},
		{"json", `"schema": 1`, `"schema": "1"`, "line 2: schema: a string, not a int"},
		{"json", `"cadence": "1s"`, `"cadence": "1s" "1s"`, "line 8: file"},
		{"json", `"minimum": 3`, `"minimum": 3, "minimum": 4`, `file: the name "minimum" occurs twice`},
		{"json", `"minimum": 3`, `"Minimum": 3`, `file: the name "Minimum" is not known`},
		{"json", `"minimum": 3`, `"maximum": 3`, `"maximum"`},
		{"json", `"minimum": 3`, `"minimum": 300`, `line 12: minimum`},
		{"json", "\n ]\n}", "\n ]\n} {}", `it is not one JSON value`},
		{"json", `"kind": "replay"`, `"kind": "guess"`, `source[3].kind: "guess"`},
	} {
		b, err := os.ReadFile("testdata/oracle." + test.kind)
		if err != nil {
			t.Fatal(err)
		}
		text := strings.Replace(string(b), test.old, test.new, 1)
		if text == string(b) {
			t.Fatalf("%s is not there", test.old)
		}
		p, c, err := parsers()[test.kind](strings.NewReader(text))
		var bad *oracle.FieldError
		if p != nil || c != nil || !errors.As(err, &bad) && !errors.Is(err, oracle.ErrNewerSchema) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %s", test.new, err, test.want)
		}
	}
	if _, _, err := oracle.ParseTOML(strings.NewReader(strings.Repeat("#", oracle.MaxFile+1))); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Error(err)
	}
}

// TestParametersAreTheConfig: the encoding is what an organism's config folds, and the
// largest one fits into it. A weight more is another content hash of the same organism.
func TestParametersAreTheConfig(t *testing.T) {
	p, _ := everything()
	before := organisms.Config{Role: oracle.Role, InstanceName: "oracle-γ.oracle", Parameters: p.Append(nil)}
	p.Feeds[1].Sources[0].Weight++
	after := before
	after.Parameters = p.Append(nil)
	if before.ContentHash() == after.ContentHash() || before.StableID() != after.StableID() {
		t.Error("another weight must be another content hash, and no other stable id")
	}
	p.Feeds = nil
	for i := range oracle.MaxPairs {
		f := oracle.Feed{Pair: oracle.Pair{Base: fmt.Sprintf("%016d", i), Quote: strings.Repeat("Q", oracle.MaxSymbol)}}
		for j := range oracle.MaxSources {
			f.Sources = append(f.Sources, oracle.Weighted{Source: identity.NewID(fmt.Sprint(i, j)), Weight: oracle.MaxWeight})
		}
		p.Feeds = append(p.Feeds, f)
	}
	after.Parameters = p.Append(nil)
	if err := errors.Join(p.Validate(), after.Validate()); err != nil {
		t.Error(err)
	}
	if again, err := oracle.DecodeParameters(after.Parameters); err != nil || !reflect.DeepEqual(again, p) {
		t.Error("the largest parameters do not decode", err)
	}
}
