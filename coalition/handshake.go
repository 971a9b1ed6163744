package coalition

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/organisms"
)

// Handshake is what the operator of a coalition publishes for integrators: the config
// itself, and what cannot be computed from it.
type Handshake struct {
	Config *Config
	// Pages are where the operators of members and modules have published theirs, by stable
	// id.
	Pages map[identity.ID]string
	// Measurements says which images the parts run that the coalition's operator runs itself
	// and that are attested; "none" if there are none.
	Measurements string
	// Peers are where to begin in the universe, PEER@HOST:PORT.
	Peers []string
	// Channel is where changes are announced.
	Channel string
}

// Lines of a page by which it is read again.
const (
	lineID           = "Coalition id: "
	lineMeasurements = "Measurements: "
	linePeer         = "Peer: "
	lineChannel      = "Changes: "
	lineNotShipped   = "not shipped"
	lineUnpinned     = "(unpinned)"
)

// Render returns the page, in Markdown. It says of each of the five modules whether it is
// shipped: of what a page is silent about nobody knows whether it was forgotten.
func (h *Handshake) Render() ([]byte, error) {
	c := h.Config
	text, err := c.AppendTOML(nil)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "# %s\n\n%s`%s`\n\n```toml\n%s```\n\n", c.Name, lineID, c.ID(), text)
	fmt.Fprintf(&b, "| part | stable id | content | published at |\n|---|---|---|---|\n")
	row := func(r *organisms.Ref) {
		content := lineUnpinned
		if r.ContentHash != nil {
			content = "`" + r.ContentHash.String() + "`"
		}
		fmt.Fprintf(&b, "| %s | `%s` | %s | %s |\n", r.Role, r.StableID, content, h.Pages[r.StableID])
	}
	for i := range c.Lattices {
		row(&c.Lattices[i])
	}
	for i := range c.Organisms {
		row(&c.Organisms[i])
	}
	for _, kind := range ModuleKinds() {
		m, err := c.Module(kind)
		if err != nil {
			fmt.Fprintf(&b, "| %s | %s | | |\n", kind, lineNotShipped)
			continue
		}
		row(&m)
	}
	tickets := lineNotShipped
	if root, err := c.TicketsRoot(); err == nil {
		tickets = "`" + root.String() + "`"
	}
	fmt.Fprintf(&b, "| tickets | %s | | |\n\n", tickets)
	if h.Measurements != "" {
		fmt.Fprintf(&b, "%s%s\n\n", lineMeasurements, h.Measurements)
	}
	for _, p := range h.Peers {
		fmt.Fprintf(&b, "%s%s\n\n", linePeer, p)
	}
	if h.Channel != "" {
		fmt.Fprintf(&b, "%s%s\n\n", lineChannel, h.Channel)
	}
	return bytes.TrimRight(b.Bytes(), "\n"), nil
}

// CheckResult is how a check of a handshake has ended.
type CheckResult int

// The results.
const (
	CheckOK      CheckResult = iota // it holds
	CheckMissing                    // the page is silent about it
	CheckWrong                      // the page contradicts itself, or the integrator's config
)

// String returns "ok", "missing" or "wrong".
func (r CheckResult) String() string { return [...]string{"ok", "missing", "wrong"}[r] }

// Check is one thing that an integrator owes itself to look at before it compiles a
// coalition in.
type Check struct {
	Item   string // what was looked at
	Result CheckResult
	Detail string // what was found, or what to do
}

// VerifyHandshake reads a page and goes through the seven items of an integrator's
// checklist, and two checks of sanity: that the id on the page is that of the config on
// it, and that the config is the one that the integrator has, if it has one (own, else
// nil). It believes nothing else that the page says: ids of members have to be compared
// with what their own operators have published, which only the integrator can do.
func VerifyHandshake(page []byte, own *Config) ([]Check, error) {
	text := string(page)
	_, rest, ok := strings.Cut(text, "\n```toml\n")
	source, _, closed := strings.Cut(rest, "\n```")
	if !ok || !closed {
		return nil, &FieldError{Field: "page", Err: fmt.Errorf("it has no config, which is a block that begins with ```toml")}
	}
	parsed, err := ParseTOML(strings.NewReader(source + "\n"))
	if err != nil {
		return nil, err
	}
	c, rows := parsed.Config, rowsOf(text)
	var checks checklist
	id := c.ID()
	switch said, found := lineOfPage(text, lineID); {
	case !found:
		checks.add("1 config", CheckMissing, "the page has a config, whose id is %s, but does not say it", id)
	case strings.Trim(said, "` ") != id.String():
		checks.add("1 config", CheckWrong, "the page says the id is %s; that of its config is %s", said, id)
	default:
		checks.add("1 config", CheckOK, "%s", id)
	}
	switch {
	case own == nil:
		checks.add("own config", CheckMissing, "none was given to compare with")
	case own.ID() != id:
		checks.add("own config", CheckWrong, "it is another coalition: %s; see: mosaik-node coalition diff", own.ID())
	default:
		checks.add("own config", CheckOK, "it is this one")
	}
	for _, list := range []struct {
		item string
		refs []organisms.Ref
	}{{"2 lattices", c.Lattices}, {"3 organisms", c.Organisms}} {
		for i := range list.refs {
			checks.part(list.item, rows, &list.refs[i])
		}
	}
	for _, kind := range ModuleKinds() {
		m, err := c.Module(kind)
		if err == nil {
			checks.part("4 modules", rows, &m)
			continue
		}
		switch row, found := rows[string(kind)]; {
		case !found:
			checks.add("4 modules", CheckMissing, "%s: the config has none; the page does not say that it is not shipped, and silence is ambiguous", kind)
		case !strings.Contains(row, lineNotShipped):
			checks.add("4 modules", CheckWrong, "%s: the config has none, the page says it has", kind)
		default:
			checks.add("4 modules", CheckOK, "%s: not shipped", kind)
		}
	}
	for _, line := range []struct{ item, begin, why string }{
		{"5 measurements", lineMeasurements, "what the operator's own attested parts run; \"none\" is an answer, silence is ambiguous"},
		{"6 peers", linePeer, "without one there is nowhere to begin"},
		{"7 changes", lineChannel, "without a channel nobody tells you that the id has changed"},
	} {
		if said, found := lineOfPage(text, line.begin); found && said != "" {
			checks.add(line.item, CheckOK, "%s", said)
		} else {
			checks.add(line.item, CheckMissing, "%s", line.why)
		}
	}
	return checks, nil
}

type checklist []Check

func (l *checklist) add(item string, r CheckResult, format string, args ...any) {
	*l = append(*l, Check{item, r, fmt.Sprintf(format, args...)})
}

// part checks what the page says of a member or a module.
func (l *checklist) part(item string, rows map[string]string, r *organisms.Ref) {
	name := r.Role + " " + r.StableID.Short()
	row, found := rows[r.StableID.String()]
	if !found {
		l.add(item, CheckMissing, "%s: the page has it in the config and says nothing else of it", name)
		return
	}
	cells := strings.Split(strings.Trim(row, "|"), "|")
	pinned := r.ContentHash != nil && strings.Contains(row, r.ContentHash.String())
	switch {
	case len(cells) != 4:
		l.add(item, CheckWrong, "%s: its row has %d cells, 4 are wanted", name, len(cells))
	case r.ContentHash != nil && !pinned, r.ContentHash == nil && !strings.Contains(row, lineUnpinned):
		l.add(item, CheckWrong, "%s: the page says another revision than the config", name)
	case strings.TrimSpace(cells[3]) == "":
		l.add(item, CheckMissing, "%s: no page of its own operator; get its stable id from there, and compare", name)
	default:
		l.add(item, CheckOK, "%s: compare its stable id with %s", name, strings.TrimSpace(cells[3]))
	}
}

// lineOfPage returns what follows the beginning of a line.
func lineOfPage(text, begin string) (string, bool) {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, begin); ok {
			return strings.TrimSpace(rest), true
		}
	}
	return "", false
}

// rowsOf returns the rows of the page's tables by what they name: the part in the first
// cell, and the stable id in the second. Of several the first counts.
func rowsOf(text string) map[string]string {
	rows := make(map[string]string)
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		cells := strings.Split(strings.Trim(line, "|"), "|")
		if !strings.HasPrefix(line, "|") || len(cells) < 2 {
			continue
		}
		for _, part := range []string{strings.TrimSpace(cells[0]), strings.Trim(cells[1], "` ")} {
			if _, known := rows[part]; !known {
				rows[part] = line
			}
		}
	}
	return rows
}
