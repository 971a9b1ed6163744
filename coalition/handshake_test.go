package coalition

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/mosaik-engine/mosaik/identity"
)

// handshake is a complete page of the example.
func handshake(t *testing.T) (*Handshake, string) {
	t.Helper()
	h := &Handshake{Config: example(), Pages: make(map[identity.ID]string), Measurements: "none", Peers: []string{"PEER@a.example:7072"}, Channel: "https://changes.example"}
	for _, r := range slices.Concat(h.Config.Lattices, h.Config.Organisms) {
		h.Pages[r.StableID] = "https://" + r.StableID.Short() + ".example"
	}
	for _, kind := range ModuleKinds() {
		if m, err := h.Config.Module(kind); err == nil {
			h.Pages[m.StableID] = "https://" + string(kind) + ".example"
		}
	}
	page, err := h.Render()
	if err != nil {
		t.Fatal(err)
	}
	return h, string(page)
}

// TestHandshake: a complete page passes; what is left out is told as missing, also where
// the config alone would say it; what is wrong as wrong.
func TestHandshake(t *testing.T) {
	h, page := handshake(t)
	results := func(page string, own *Config) map[CheckResult][]Check {
		t.Helper()
		checks, err := VerifyHandshake([]byte(page), own)
		if err != nil {
			t.Fatal(err)
		}
		by := make(map[CheckResult][]Check)
		for _, c := range checks {
			by[c.Result] = append(by[c.Result], c)
		}
		return by
	}
	if r := results(page, example()); len(r[CheckMissing])+len(r[CheckWrong]) > 0 || len(r[CheckOK]) != 14 {
		t.Errorf("a complete page: %+v", r)
	}
	replace := func(old, new string) string {
		if !strings.Contains(page, old) {
			t.Fatalf("no %q in\n%s", old, page)
		}
		return strings.Replace(page, old, new, 1)
	}
	another := example()
	another.Name = "signals.euro-fy"
	other := identity.NewID("other").String()
	for name, test := range map[string]struct {
		page   string
		own    *Config
		result CheckResult
		item   string
		detail string
	}{
		"no own config":     {page, nil, CheckMissing, "own config", "none was given"},
		"another config":    {page, another, CheckWrong, "own config", another.ID().String()},
		"no id":             {replace(lineID, "Id: "), example(), CheckMissing, "1 config", h.Config.ID().String()},
		"another id":        {replace(h.Config.ID().String(), other), example(), CheckWrong, "1 config", other},
		"no statement":      {replace("| chronicle | not shipped | | |\n", ""), example(), CheckMissing, "4 modules", "silence is ambiguous"},
		"a false statement": {replace("| chronicle | not shipped", "| chronicle | `"+other+"`"), example(), CheckWrong, "4 modules", "chronicle"},
		"no page":           {replace("https://"+h.Config.Organisms[0].StableID.Short()+".example", ""), example(), CheckMissing, "3 organisms", "oracle"},
		"another pin":       {replace("`"+id("content of the market").String()+"`", "`"+other+"`"), example(), CheckWrong, "3 organisms", "market"},
		"no measurements":   {replace(lineMeasurements+"none", ""), example(), CheckMissing, "5 measurements", "silence"},
		"no peer":           {replace(linePeer, "Seed: "), example(), CheckMissing, "6 peers", ""},
		"no channel":        {replace(lineChannel, "News: "), example(), CheckMissing, "7 changes", ""},
	} {
		r := results(test.page, test.own)
		if got := r[test.result]; len(got) != 1 || got[0].Item != test.item || !strings.Contains(got[0].Detail, test.detail) || len(r[CheckMissing])+len(r[CheckWrong]) != 1 {
			t.Errorf("%s: %+v", name, r)
		}
	}
	for _, bad := range []string{"", "# nothing", "\n```toml\nschema = 1\n", "\n```toml\nname = 1\n```\n"} {
		var field *FieldError
		if checks, err := VerifyHandshake([]byte(bad), nil); !errors.As(err, &field) {
			t.Errorf("%q: %v, %v", bad, checks, err)
		}
	}
}
