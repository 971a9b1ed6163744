package agent_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/organisms"
	"github.com/mosaik-engine/mosaik/organisms/agent"
	"github.com/mosaik-engine/mosaik/organisms/conformance"
)

// feeds is an organism to observe: a stream, and nothing else.
var feeds = organisms.Definition{Role: "feed", Surface: []organisms.Primitive{{Name: "news"}}}

// world is two feeds and an agent that observes them, in memory.
type world struct {
	t     *testing.T
	group *log.Memory
	feeds [2]*organisms.Organism
	agent *organisms.Organism
}

func open(t *testing.T) *world {
	t.Helper()
	definition := agent.Definition()
	w := &world{t: t, group: log.NewMemory(identity.NewID("group"), append(feeds.Machines(), definition.Machines()...)...)}
	p := agent.Parameters{Decider: identity.NewID("a test")}
	var err error
	for i := range w.feeds {
		c := organisms.Config{Role: "feed", InstanceName: fmt.Sprint("feed.", i)}
		if w.feeds[i], err = organisms.Open(t.Context(), w.group, c, feeds); err != nil {
			t.Fatal(err)
		}
		key, err := w.feeds[i].Key("news")
		if err != nil {
			t.Fatal(err)
		}
		p.Sources = append(p.Sources, key)
	}
	config, err := agent.Config("test.agent", p)
	if err != nil {
		t.Fatal(err)
	}
	if w.agent, err = organisms.Open(t.Context(), w.group, config, definition); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) say(feed int, text string) {
	w.t.Helper()
	if _, _, err := w.feeds[feed].Commit(w.t.Context(), "news", []byte(text)); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) retire() {
	w.t.Helper()
	for _, f := range w.feeds {
		if _, err := f.Retire(w.t.Context(), organisms.OperatorExit, nil); err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *world) sources() []agent.Source {
	return []agent.Source{{Surface: w.feeds[0].Surface, Primitive: "news"}, {Surface: w.feeds[1].Surface, Primitive: "news"}}
}

// read reads what a step points at.
func (w *world) read(ctx context.Context, p log.Pointer) (organisms.Entry, error) {
	if e, err := w.feeds[0].At(ctx, p); !errors.Is(err, organisms.ErrOffSurface) {
		return e, err
	}
	return w.feeds[1].At(ctx, p)
}

// shout answers in capitals, and has nothing to say to what is quiet.
func shout(_ context.Context, s agent.Step) ([]byte, error) {
	if string(s.Observed) == "quiet" {
		return nil, nil
	}
	return bytes.ToUpper(s.Observed), nil
}

func TestConformance(t *testing.T) {
	p := agent.Parameters{Sources: []identity.ID{identity.NewID("a"), identity.NewID("b")}, Decider: identity.NewID("d")}
	config := func(change func(*agent.Parameters)) organisms.Config {
		q := p
		q.Sources = append([]identity.ID(nil), p.Sources...)
		change(&q)
		c, err := agent.Config("test.agent", q)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	body := append([]byte{0, 0, 3, 0, 0, 0}, "hey, HEY"...)
	conformance.Test(t, conformance.Suite{
		Definition: agent.Definition(), Config: config(func(*agent.Parameters) {}),
		Others: []organisms.Config{
			config(func(p *agent.Parameters) { p.Decider = identity.NewID("another") }),
			config(func(p *agent.Parameters) { p.Sources[1] = identity.NewID("c") }),
			config(func(p *agent.Parameters) { p.Sources = p.Sources[:1] }),
		},
		Commits: []conformance.Step{{Primitive: agent.Journal, Body: body}},
		MaxRows: 2,
	})
}

// TestRun: every commit of both sources is answered once and in its source's order, over
// crashes at every step; the journal is enough to audit it.
func TestRun(t *testing.T) {
	w := open(t)
	var want [2][]string
	for i := range 10 {
		for feed := range w.feeds {
			text := fmt.Sprintf("news %d of %d", i, feed)
			if i == 4 {
				text = "quiet"
			}
			w.say(feed, text)
			want[feed] = append(want[feed], text)
		}
	}
	w.retire()
	crash := errors.New("the machine stops")
	runs, asked := 0, 0
	for done := false; !done; runs++ {
		n := 0
		err := agent.Run(t.Context(), w.agent, w.sources(), func(ctx context.Context, s agent.Step) ([]byte, error) {
			asked++
			if n++; n == 3 {
				return nil, crash // after it was asked, before the step is committed
			}
			return shout(ctx, s)
		}, nil)
		if err != nil && !errors.Is(err, crash) {
			t.Fatal(err)
		}
		done = err == nil
	}
	if runs < 10 || asked != 20+runs-1 {
		t.Errorf("%d runs, the decider was asked %d times", runs, asked)
	}
	var got [2][]string
	for e, err := range w.agent.Commits(t.Context(), agent.Journal, log.Earliest(), false) {
		if err != nil {
			t.Fatal(err)
		}
		s, err := agent.DecodeStep(&e.Commit)
		if err != nil {
			t.Fatal(err)
		}
		got[s.Source] = append(got[s.Source], string(s.Observed))
		answer, _ := shout(t.Context(), s)
		if string(answer) != string(s.Answer) {
			t.Errorf("%q is answered by %q", s.Observed, s.Answer)
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("it has seen %v, want %v", got, want)
	}
	r, err := agent.Audit(t.Context(), w.agent.Surface, w.read, shout)
	if err != nil || r != (agent.AuditReport{Steps: 20, Answered: 18}) {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := agent.Audit(t.Context(), w.agent.Surface, w.read, func(context.Context, agent.Step) ([]byte, error) { return []byte("no"), nil }); !errors.Is(err, agent.ErrStep) {
		t.Errorf("another decider: %v", err)
	}
}

// TestLies: a step that says it has seen what is not there is found, and named.
func TestLies(t *testing.T) {
	w := open(t)
	w.say(0, "one")
	var at log.Pointer
	for e, err := range w.feeds[0].Commits(t.Context(), "news", log.Earliest(), false) {
		if err != nil {
			t.Fatal(err)
		}
		at = e.Pointer
	}
	step := func(observed string, p log.Pointer) []byte {
		t.Helper()
		_, result, err := w.agent.Commit(t.Context(), agent.Journal, append([]byte{0, 0, byte(len(observed)), 0, 0, 0}, observed+"answer"...), organisms.At(p))
		if err != nil {
			t.Fatal(err)
		}
		return result
	}
	elsewhere := at
	elsewhere.Key = identity.NewID("not a source")
	if r := step("one", elsewhere); r[0] != 0 {
		t.Error("a step about no source is taken")
	}
	if r := step("two", at); r[0] != 1 {
		t.Error("a step is not taken: the machine cannot know what is there")
	}
	if r := step("one", at); r[0] != 0 {
		t.Error("a record is answered twice")
	}
	_, err := agent.Audit(t.Context(), w.agent.Surface, w.read, nil)
	if !errors.Is(err, agent.ErrStep) || !strings.Contains(err.Error(), at.String()) {
		t.Errorf("the audit says %v", err)
	}
	if err := agent.Run(t.Context(), w.agent, w.sources()[:1], shout, nil); !errors.Is(err, organisms.ErrConfig) {
		t.Errorf("with one source: %v", err)
	}
	swapped := w.sources()
	swapped[0], swapped[1] = swapped[1], swapped[0]
	if err := agent.Run(t.Context(), w.agent, swapped, shout, nil); !errors.Is(err, organisms.ErrConfig) {
		t.Errorf("with the sources swapped: %v", err)
	}
}

// TestTwoRunners: of two that run the same agent, one is told.
func TestTwoRunners(t *testing.T) {
	w := open(t)
	w.say(0, "one")
	w.retire()
	err := agent.Run(t.Context(), w.agent, w.sources(), func(ctx context.Context, s agent.Step) ([]byte, error) {
		if err := agent.Run(ctx, w.agent, w.sources(), shout, nil); err != nil { // the other one, meanwhile
			return nil, err
		}
		return shout(ctx, s)
	}, nil)
	if !errors.Is(err, organisms.ErrRefused) {
		t.Errorf("%v", err)
	}
}

func TestDeciders(t *testing.T) {
	step := agent.Step{Observed: []byte("a price")}
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var q struct {
			Model    string
			Messages []struct{ Role, Content string }
		}
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil || r.URL.Path != "/v1/chat/completions" || len(q.Messages) != 2 {
			http.Error(w, "what?", http.StatusBadRequest)
			return
		}
		switch q.Model {
		case "good":
			fmt.Fprintf(w, `{"choices":[{"message":{"role":"assistant","content":%q}}]}`, q.Messages[0].Content+" "+q.Messages[1].Content+" "+r.Header.Get("Authorization"))
		case "silent":
			fmt.Fprint(w, `{"choices":[]}`)
		case "large":
			io.WriteString(w, strings.Repeat(" ", 2<<20))
		case "long":
			fmt.Fprintf(w, `{"choices":[{"message":{"content":%q}}]}`, strings.Repeat("x", agent.MaxAnswer+1))
		default:
			http.Error(w, "no such model", http.StatusNotFound)
		}
	}))
	defer api.Close()
	model := func(name string) agent.Decider {
		return agent.Model{BaseURL: api.URL + "/v1", Name: name, Prompt: "decide", Token: "t", Client: api.Client()}.Decider()
	}
	for name, test := range map[string]struct {
		decide agent.Decider
		answer string
		wrong  string
	}{
		"process":             {decide: agent.Process(time.Minute, "cat"), answer: "a price"},
		"process that fails":  {decide: agent.Process(time.Minute, "sh", "-c", "echo broken >&2; exit 3"), wrong: "broken"},
		"process that stays":  {decide: agent.Process(50*time.Millisecond, "sleep", "60"), wrong: "deadline"},
		"process that talks":  {decide: agent.Process(time.Minute, "head", "-c", "70000", "/dev/zero"), wrong: "more than 65536 bytes"},
		"no process":          {decide: agent.Process(time.Minute, "there-is-no-such-program"), wrong: "there-is-no-such-program"},
		"model":               {decide: model("good"), answer: "decide a price Bearer t"},
		"no model":            {decide: model("none"), wrong: "404"},
		"model without words": {decide: model("silent"), wrong: "without a choice"},
		"model that sends":    {decide: model("large"), wrong: "more than 1048576 bytes"},
		"model that talks":    {decide: model("long"), wrong: "the limit is 65536"},
	} {
		answer, err := test.decide(t.Context(), step)
		switch {
		case test.wrong == "" && (err != nil || string(answer) != test.answer):
			t.Errorf("%s: %q, %v", name, answer, err)
		case test.wrong != "" && (!errors.Is(err, agent.ErrAnswer) || !strings.Contains(err.Error(), test.wrong)):
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzStep: whatever stands in a journal, decoding it neither panics nor goes beyond the
// limits.
func FuzzStep(f *testing.F) {
	f.Add([]byte{0, 0, 1, 0, 0, 0, 'a', 'b'})
	at := organisms.At(log.Pointer{Group: identity.NewID("g"), Commit: 1, Key: identity.NewID("k"), Seq: 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := agent.DecodeStep(&organisms.Commit{Body: b, Evidence: []organisms.Evidence{at}})
		if err == nil && (len(s.Observed) > agent.MaxObserved || len(s.Answer) > agent.MaxAnswer || len(s.Observed)+len(s.Answer)+6 != len(b)) {
			t.Errorf("%d and %d bytes of %d", len(s.Observed), len(s.Answer), len(b))
		}
		if p, err := agent.DecodeParameters(b); err == nil {
			if c, err := agent.Config("x", p); err != nil || !bytes.Equal(c.Parameters, b) {
				t.Errorf("%x becomes %x, %v", b, c.Parameters, err)
			}
		}
	})
}
