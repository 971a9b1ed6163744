package api_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"

	"github.com/mosaik-engine/mosaik/cmd/mosaik-node/internal/api"
	"github.com/mosaik-engine/mosaik/engine"
	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/replay"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// node is an engine in memory with its API, and a client of it.
type node struct {
	testing.TB
	ctx    context.Context
	engine *engine.Engine
	server *api.Server
	http   *httptest.Server
	client *api.Client
}

func start(t testing.TB, options engine.Options, limits api.Options) *node {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	options.FS = vfs.NewMem()
	e, err := engine.Open("node", &options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil && !errors.Is(err, log.ErrClosed) {
			t.Error(err)
		}
	})
	if err := e.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	n := &node{TB: t, ctx: ctx, engine: e, server: api.NewServer(e, limits)}
	n.http = httptest.NewServer(n.server)
	t.Cleanup(func() {
		n.server.Drain()
		n.http.Close()
	})
	if n.client, err = api.NewClient(n.http.URL); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.client.Close() })
	return n
}

// do sends a request and returns status and body of the answer.
func (n *node) do(method, path, contentType string, body io.Reader, header ...string) (int, string) {
	n.Helper()
	resp := n.open(method, path, contentType, body, header...)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		n.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

func (n *node) open(method, path, contentType string, body io.Reader, header ...string) *http.Response {
	n.Helper()
	r, err := http.NewRequestWithContext(n.ctx, method, n.http.URL+path, body)
	if err != nil {
		n.Fatal(err)
	}
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := n.http.Client().Do(r)
	if err != nil {
		n.Fatal(err)
	}
	return resp
}

// want sends a request and fails unless the answer has the status; it returns
// the answer's lines.
func (n *node) want(status int, method, path, contentType, body string, header ...string) []string {
	n.Helper()
	have, text := n.do(method, path, contentType, strings.NewReader(body), header...)
	if have != status {
		n.Fatalf("%s %s: status %d, want %d: %s", method, path, have, status, text)
	}
	return strings.Split(strings.TrimSuffix(text, "\n"), "\n")
}

// code returns the code of a failure.
func code(t *testing.T, line string) string {
	t.Helper()
	var f struct{ Error, Code string }
	if err := json.Unmarshal([]byte(line), &f); err != nil || f.Error == "" {
		t.Fatalf("%q is no failure: %v", line, err)
	}
	return f.Code
}

// list gives the texts as payloads.
func list(texts ...string) api.Payloads {
	return func(context.Context) iter.Seq2[[]byte, error] {
		return func(yield func([]byte, error) bool) {
			for _, s := range texts {
				if !yield([]byte(s), nil) {
					return
				}
			}
		}
	}
}

// appendAll appends the texts and returns their pointers.
func (n *node) appendAll(r api.Ref, codec string, texts ...string) []log.Pointer {
	n.Helper()
	var out []log.Pointer
	for o := range n.client.Append(n.ctx, r, codec, list(texts...)) {
		if o.Err != nil {
			n.Fatal(o.Err)
		}
		out = append(out, o.Pointer)
	}
	if len(out) != len(texts) {
		n.Fatalf("%d outcomes of %d records", len(out), len(texts))
	}
	return out
}

const escaped = "/api/v1/streams/oracle.price%2FEUR-USD"

func TestAppendAndRead(t *testing.T) {
	n := start(t, engine.Options{}, api.Options{})
	lines := n.want(200, "POST", escaped+"/records", "application/x-ndjson", "{\"bid\": 1}\n\n  {\"bid\":2}  \n{\"bid\":3}")
	if len(lines) != 3 {
		t.Fatalf("answers %q", lines)
	}
	for i, line := range lines {
		var a api.Answer
		if err := json.Unmarshal([]byte(line), &a); err != nil {
			t.Fatal(err)
		}
		if a.Seq != uint64(i+1) || a.Pointer == nil || a.Pointer.Seq != a.Seq || a.Pointer.Commit != a.Commit {
			t.Errorf("answer %d: %s", i, line)
		}
	}
	lines = n.want(200, "GET", escaped+"/records?from=seq:2&pointer=true", "", "")
	if len(lines) != 2 {
		t.Fatalf("records %q", lines)
	}
	var record struct {
		Seq, Commit uint64
		Time        time.Time
		Value       struct{ Bid int }
		Pointer     log.Pointer
	}
	if err := json.Unmarshal([]byte(lines[0]), &record); err != nil {
		t.Fatal(err)
	}
	if record.Seq != 2 || record.Value.Bid != 2 || record.Time.IsZero() || record.Pointer.Seq != 2 {
		t.Errorf("record %s", lines[0])
	}
	if got := n.want(200, "GET", escaped+"/records?limit=1&contains=3", "", ""); len(got) != 1 || !strings.Contains(got[0], `"value":{"bid":3}`) {
		t.Errorf("contains: %q", got)
	}
	if got := n.want(200, "GET", escaped+"/records?every=2", "", ""); len(got) != 1 || !strings.HasPrefix(got[0], `{"seq":2,`) {
		t.Errorf("every: %q", got)
	}
	if got := n.want(200, "GET", escaped+"/records?through=2&linearizable=true", "", ""); len(got) != 2 {
		t.Errorf("through: %q", got)
	}
	for _, window := range []string{"until=2001-01-01T00:00:00Z", "since=2200-01-01T00:00:00Z", "from=latest", "from=commit:1000"} {
		if got := n.want(200, "GET", escaped+"/records?"+window, "", ""); got[0] != "" {
			t.Errorf("%s: %q", window, got)
		}
	}
	var s api.Stream
	if err := json.Unmarshal([]byte(n.want(200, "GET", escaped, "", "")[0]), &s); err != nil {
		t.Fatal(err)
	}
	if s.Name != "oracle.price/EUR-USD" || s.Codec != "json" || s.Kind != "stream" || s.Records != 3 || s.Group != "g0" || s.Key != identity.NewID(s.Name) {
		t.Errorf("stream %+v", s)
	}
}

// What is text and what is not shows in the name of the field.
func TestPayloadFields(t *testing.T) {
	n := start(t, engine.Options{}, api.Options{})
	n.want(200, "POST", "/api/v1/streams/notes/records", "text/plain; charset=utf-8", "one <&> two\n\n\x00\xff\n")
	lines := n.want(200, "GET", "/api/v1/streams/notes/records", "", "")
	for i, want := range []string{`"text":"one <&> two"}`, `"text":""}`, `"base64":"AP8="}`} {
		if i >= len(lines) || !strings.HasSuffix(lines[i], want) {
			t.Errorf("line %d of %q, want %s", i, lines, want)
		}
	}
	type tick struct {
		Bid float64
		At  time.Time
		Raw []byte
	}
	ticks, err := log.StreamDef[tick]{Name: "ticks"}.Open(n.ctx, n.engine)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ticks.Append(n.ctx, tick{Bid: 1.5, At: time.Unix(1, 5).UTC(), Raw: []byte{1}}); err != nil {
		t.Fatal(err)
	}
	lines = n.want(200, "GET", "/api/v1/streams/ticks/records", "", "")
	if want := `"value":{"At":"1970-01-01T00:00:01.000000005Z","Bid":1.5,"Raw":"AQ=="}}`; !strings.HasSuffix(lines[0], want) {
		t.Errorf("have %s, want ...%s", lines[0], want)
	}
	// Not every CBOR value has a JSON form.
	odd, err := log.StreamDef[map[int]string]{Name: "odd"}.Open(n.ctx, n.engine)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := odd.Append(n.ctx, map[int]string{1: "a"}); err != nil {
		t.Fatal(err)
	}
	if lines = n.want(200, "GET", "/api/v1/streams/odd/records", "", ""); !strings.HasSuffix(lines[0], `"base64":"oQFhYQ=="}`) {
		t.Errorf("have %s", lines[0])
	}
}

func TestRefused(t *testing.T) {
	n := start(t, engine.Options{}, api.Options{MaxBody: 2 << 20})
	n.appendAll(api.Ref{Name: "notes"}, "raw", "one", "two")
	pointer := n.appendAll(api.Ref{Name: "notes"}, "raw", "three")[0]
	foreign := pointer
	foreign.Digest[0] ^= 1
	before := n.engine.Groups()[0].Head()
	big := strings.Repeat("x", log.MaxPayload+1)
	for _, c := range []struct {
		method, path, contentType, body string
		status                          int
		code                            string
	}{
		{"GET", "/api/v2/streams", "", "", 404, "no_route"},
		{"GET", "/", "", "", 404, "no_route"},
		{"DELETE", "/api/v1/streams", "", "", 405, "method"},
		{"PUT", "/api/v1/streams/notes/records", "text/plain", "x", 405, "method"},
		{"GET", "/api/v1/streams?limit=3", "", "", 400, "bad_request"},
		{"GET", "/api/v1/streams/nobody", "", "", 404, "not_found"},
		{"GET", "/api/v1/streams/nobody/records", "", "", 404, "not_found"},
		{"GET", "/api/v1/streams/notes/records?group=nobody", "", "", 404, "not_found"},
		{"GET", "/api/v1/streams/notes/records?from=yesterday", "", "", 400, "bad_position"},
		{"GET", "/api/v1/streams/notes/records?from=seq:0", "", "", 400, "bad_position"},
		{"GET", "/api/v1/streams/notes/records?from=mosaik:x", "", "", 400, "bad_position"},
		{"GET", "/api/v1/streams/notes/records?from=" + foreign.String(), "", "", 409, "bad_pointer"},
		{"GET", "/api/v1/streams/notes/records?follow=true&from=" + foreign.String(), "", "", 409, "bad_pointer"},
		{"GET", "/api/v1/streams/notes/records?since=2026-01-02T00:00:00Z&until=2026-01-01T00:00:00Z", "", "", 400, "bad_query"},
		{"GET", "/api/v1/streams/notes/records?since=monday", "", "", 400, "bad_request"},
		{"GET", "/api/v1/streams/notes/records?limit=-1", "", "", 400, "bad_request"},
		{"GET", "/api/v1/streams/notes/records?follow=yes", "", "", 400, "bad_request"},
		{"GET", "/api/v1/streams/notes/records?fron=latest", "", "", 400, "bad_request"},
		{"GET", "/api/v1/streams/notes/records?limit=1&limit=2", "", "", 400, "bad_request"},
		{"GET", "/api/v1/streams/notes/records?format=xml", "", "", 400, "bad_request"},
		{"GET", "/api/v1/streams/notes/records?format=raw&contains=x", "", "", 400, "bad_request"},
		{"GET", "/api/v1/groups/g7", "", "", 404, "not_found"},
		{"GET", "/api/v1/groups/g0/commits/one", "", "", 400, "bad_request"},
		{"GET", "/api/v1/groups/g0/commits/1000", "", "", 404, "not_found"},
		{"GET", "/api/v1/groups/g0/commits/1000/raw", "", "", 404, "not_found"},
		{"GET", "/api/v1/groups/g0/commits?from=1000", "", "", 200, ""},
		{"GET", "/api/v1/groups/g0/commits?from=1&to=1000", "", "", 404, "not_found"},
		{"POST", "/api/v1/streams/notes/records", "", "x", 415, "media_type"},
		{"POST", "/api/v1/streams/notes/records", "application/x-www-form-urlencoded", "x", 415, "media_type"},
		{"POST", "/api/v1/streams/notes/records?codec=proto", "text/plain", "x", 400, "bad_request"},
		{"POST", "/api/v1/streams/notes/records?codec=raw", "application/x-ndjson", "1", 400, "bad_request"},
		{"POST", "/api/v1/streams/notes/records", "application/x-ndjson", "1", 409, "codec"},
		{"POST", "/api/v1/streams/mosaik.directory/records", "text/plain", "1", 400, "bad_request"},
		{"POST", "/api/v1/streams/" + log.DirectoryKey().String() + "/records", "text/plain", "1", 400, "bad_request"},
		{"POST", "/api/v1/streams/e%CC%81/records", "text/plain", "1", 400, "bad_name"}, // not in NFC
		{"POST", "/api/v1/streams/notes/records", "text/plain", big, 413, "oversize"},
		{"POST", "/api/v1/streams/notes/records", "application/octet-stream", "\xff\xff\xff\xff\x7f", 413, "oversize"},
		{"POST", "/api/v1/streams/notes/records", "application/octet-stream", "\x05abc", 400, "bad_request"},
		// A new name is not even made a name.
		{"POST", "/api/v1/streams/new/records", "text/plain", big, 413, "oversize"},
		{"POST", "/api/v1/streams/new/records", "application/x-ndjson", "{", 400, "bad_value"},
		{"POST", "/api/v1/streams/new/records", "application/x-ndjson", "", 200, ""},
	} {
		t.Run(c.method+c.path, func(t *testing.T) {
			status, text := n.do(c.method, c.path, c.contentType, strings.NewReader(c.body))
			if status != c.status {
				t.Fatalf("status %d, want %d: %s", status, c.status, text)
			}
			if c.code != "" && code(t, text) != c.code {
				t.Errorf("have %s, want code %s", text, c.code)
			}
		})
	}
	if now := n.engine.Groups()[0].Head(); now != before {
		t.Errorf("the head moved from %v to %v", before, now)
	}
	status, text := n.do("POST", "/api/v1/streams/notes/records", "text/plain", strings.NewReader("x"), "Sec-Fetch-Site", "cross-site")
	if status != 403 || code(t, text) != "cross_origin" {
		t.Errorf("cross-site: %d %s", status, text)
	}
}

// A request that goes wrong in the middle says which records are in.
func TestPartialAppend(t *testing.T) {
	n := start(t, engine.Options{}, api.Options{MaxBody: 2 << 20})
	for _, c := range []struct{ kind, bad, code string }{
		{"application/x-ndjson", "{\"a\":", "bad_value"},
		{"application/x-ndjson", "\"\xff\"", "bad_value"},
		{"text/plain", strings.Repeat("x", log.MaxPayload+1), "oversize"},
	} {
		path := "/api/v1/streams/" + url.PathEscape(c.kind) + "/records"
		first := n.want(200, "POST", path, c.kind, "1\n")
		var a api.Answer
		if err := json.Unmarshal([]byte(first[0]), &a); err != nil {
			t.Fatal(err)
		}
		lines := n.want(200, "POST", path, c.kind, "1\n2\n"+c.bad+"\n4\n")
		if len(lines) != 3 || code(t, lines[2]) != c.code {
			t.Fatalf("%s: %q", c.kind, lines)
		}
		var failed api.Answer
		if err := json.Unmarshal([]byte(lines[2]), &failed); err != nil || failed.Record != 3 {
			t.Errorf("%s: %v, %s", c.kind, err, lines[2])
		}
		if got := n.want(200, "GET", path, "", ""); uint64(len(got)) != a.Seq+2 {
			t.Errorf("%s: %d records after %d and 2", c.kind, len(got), a.Seq)
		}
	}
	// The body's limit, in the middle.
	line := strings.Repeat("y", 100<<10) + "\n"
	lines := n.want(200, "POST", "/api/v1/streams/long/records", "text/plain", strings.Repeat(line, 30))
	if len(lines) < 2 || code(t, lines[len(lines)-1]) != "oversize" {
		t.Errorf("%d lines, the last %.200s", len(lines), lines[len(lines)-1])
	}
}

// Answers come while the request is still being sent, and a lone record waits
// for no other.
func TestAppendIsInteractive(t *testing.T) {
	n := start(t, engine.Options{}, api.Options{})
	in, out := io.Pipe()
	next := make(chan api.Outcome)
	done := make(chan struct{})
	go func() {
		defer close(done)
		payloads := func(context.Context) iter.Seq2[[]byte, error] { return api.Lines(in) }
		for o := range n.client.Append(n.ctx, api.Ref{Name: "chat"}, "", payloads) {
			next <- o
		}
	}()
	for i := range 3 {
		if _, err := fmt.Fprintf(out, "message %d\n", i); err != nil {
			t.Fatal(err)
		}
		if o := <-next; o.Err != nil || o.Pointer.Seq != uint64(i+1) {
			t.Fatalf("message %d: %+v", i, o)
		}
	}
	out.Close()
	<-done
}

// A refusal comes at once, also to a client that would go on sending for ever.
func TestAppendIsRefusedAtOnce(t *testing.T) {
	n := start(t, engine.Options{}, api.Options{})
	if _, err := (log.StreamDef[int]{Name: "numbers"}).Open(n.ctx, n.engine); err != nil {
		t.Fatal(err)
	}
	payloads := func(ctx context.Context) iter.Seq2[[]byte, error] {
		return func(yield func([]byte, error) bool) {
			if yield([]byte("1"), nil) {
				<-ctx.Done() // a client that waits for its answer
			}
		}
	}
	var got []error
	for o := range n.client.Append(n.ctx, api.Ref{Name: "numbers"}, "", payloads) {
		got = append(got, o.Err)
	}
	if len(got) != 1 || !errors.Is(got[0], log.ErrCodec) {
		t.Errorf("outcomes %v, want one of ErrCodec", got)
	}
}

// sse reads one event: its id and its data.
func sse(t *testing.T, r *bufio.Reader) (event, id, data string) {
	t.Helper()
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatalf("the events end: %v", err)
		}
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch name {
		case "event":
			event = value
		case "id":
			id = value
		case "data":
			data = value
		case "":
			if data != "" {
				return event, id, data
			}
		}
	}
}

func TestFollow(t *testing.T) {
	n := start(t, engine.Options{}, api.Options{Alive: 10 * time.Millisecond})
	// The stream does not exist yet, and signs of life come meanwhile.
	resp := n.open("GET", "/api/v1/streams/news/records?follow=true", "", nil)
	defer resp.Body.Close()
	if got := resp.Header.Get("Content-Type"); got != "text/event-stream" {
		t.Fatalf("type %s", got)
	}
	events := bufio.NewReader(resp.Body)
	if line, err := events.ReadString('\n'); err != nil || line != ":\n" {
		t.Fatalf("have %q, %v", line, err)
	}
	for i := range 3 {
		n.appendAll(api.Ref{Name: "news"}, "json", strconv.Itoa(i))
		if _, id, data := sse(t, events); id != strconv.Itoa(i+1) || !strings.HasSuffix(data, fmt.Sprintf(`"value":%d}`, i)) {
			t.Fatalf("event %s %s", id, data)
		}
	}
	// Cut off after 2, come back with the id of the last event seen.
	again := n.open("GET", "/api/v1/streams/news/records", "", nil, "Accept", "text/event-stream", "Last-Event-ID", "2")
	defer again.Body.Close()
	if _, id, _ := sse(t, bufio.NewReader(again.Body)); id != "3" {
		t.Errorf("resumed at %s", id)
	}
	// Lines instead of events, and a limit that ends it.
	lines := n.want(200, "GET", "/api/v1/streams/news/records?follow=true&format=ndjson&limit=2", "", "")
	if lines = slices.DeleteFunc(lines, func(s string) bool { return s == "" }); len(lines) != 2 {
		t.Errorf("%q", lines)
	}
	// Draining says so and ends it.
	n.server.Drain()
	event, _, data := sse(t, events)
	if event != "error" || code(t, data) != "closed" {
		t.Errorf("after Drain: %s %s", event, data)
	}
	if rest, err := io.ReadAll(events); err != nil || len(rest) != 0 {
		t.Errorf("behind it: %q, %v", rest, err)
	}
}

// The client is a Scanner and a Source: what it reads is what is there.
func TestClientReadsTheSame(t *testing.T) {
	n := start(t, engine.Options{Spread: 2, Named: []string{"audit/2026"}}, api.Options{})
	refs := []api.Ref{{Name: "a"}, {Name: "b/c d"}, {Name: "..", Group: "audit/2026"}, {Name: strings.Repeat("ab", 32)}, {Name: "é?#%&"}}
	for _, r := range refs {
		var texts []string
		for i := range 500 {
			texts = append(texts, fmt.Sprintf("%s %d %s", r.Name, i, strings.Repeat("\n", i)))
		}
		n.appendAll(r, "raw", texts...)
	}
	local := api.NewLocal(n.engine)
	for _, r := range refs {
		for _, q := range []log.Query{
			{}, {From: log.Seq(250)}, {Until: 100}, {From: log.CommitNumber(3)}, {From: log.Latest()},
			{Filter: log.Filter{Every: 100}}, {Filter: log.Filter{Since: time.Now().Add(-time.Hour), Until: time.Now().Add(time.Hour)}},
			{From: log.Seq(10), Until: 20, Follow: true},
		} {
			want, wantErr := flat(local.Scan(n.ctx, r, q))
			have, err := flat(n.client.Scan(n.ctx, r, q))
			if wantErr != nil || err != nil || !slices.Equal(have, want) {
				t.Errorf("%v from %v: %d runs, %v; want %d, %v", r, q.From, len(have), err, len(want), wantErr)
			}
		}
	}
	// A typed reader over the client.
	a := scanner{n.client, api.Ref{Name: "a"}}
	reader, err := log.StreamDef[[]byte]{Name: "a", Codec: log.Raw()}.Reader(a)
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for r, err := range reader.All(n.ctx, log.Earliest()) {
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(string(r.Value), fmt.Sprintf("a %d ", r.Seq-1)) {
			t.Fatalf("record %d is %q", r.Seq, r.Value)
		}
		count++
	}
	if count != 500 {
		t.Errorf("%d records", count)
	}

	wantStreams, err := local.Streams(n.ctx)
	if err != nil {
		t.Fatal(err)
	}
	streams, err := n.client.Streams(n.ctx)
	if err != nil || !slices.Equal(streams, wantStreams) || len(streams) != len(refs) {
		t.Errorf("streams %v %+v, want %+v", err, streams, wantStreams)
	}
	for _, r := range refs {
		want, wantErr := local.Stream(n.ctx, r)
		if s, err := n.client.Stream(n.ctx, r); err != nil || wantErr != nil || s != want || s.Records != 500 {
			t.Errorf("%v: %+v %v, want %+v %v", r, s, err, want, wantErr)
		}
	}

	groups, err := n.client.Groups(n.ctx)
	if err != nil || len(groups) != 3 {
		t.Fatalf("groups %v %v", groups, err)
	}
	for _, g := range groups {
		source, err := n.client.Source(n.ctx, g.Name)
		if err != nil {
			t.Fatal(err)
		}
		original, _ := n.engine.Group(g.Name)
		want, err := replay.Audit(n.ctx, original, replay.AuditOptions{})
		if err != nil {
			t.Fatal(err)
		}
		// A remote source serves commits and not the rows behind them.
		want.States = false
		if have, err := replay.Audit(n.ctx, source, replay.AuditOptions{}); err != nil || have != want {
			t.Errorf("group %s: %+v %v, want %+v", g.Name, have, err, want)
		}
		if g.Head.Commit == 0 {
			continue
		}
		c, err := source.Commit(g.Head.Commit)
		if err != nil || c.Verify() != nil || c.Digest != g.Head.Digest {
			t.Errorf("group %s: commit %d: %v %v", g.Name, g.Head.Commit, c.Digest, err)
		}
		byID, err := n.client.Source(n.ctx, g.ID.String())
		if err != nil || byID.Head() != source.Head() {
			t.Errorf("by id: %v", err)
		}
		var described api.Commit
		path := fmt.Sprintf("/api/v1/groups/%s/commits/%d", url.PathEscape(g.Name), g.Head.Commit)
		if err := json.Unmarshal([]byte(n.want(200, "GET", path+"?linearizable=true", "", "")[0]), &described); err != nil {
			t.Fatal(err)
		}
		if described.Digest != c.Digest || described.Prev != c.Header.Prev || described.Pointer != c.Pointer() || len(described.Runs) == 0 {
			t.Errorf("commit %+v", described)
		}
	}
	report, err := n.client.Check(n.ctx, nil)
	if err != nil || report.Records < 2500 || report.Groups != 3 {
		t.Errorf("check: %+v, %v", report, err)
	}
}

// flat copies runs to something that can be compared.
func flat(runs iter.Seq2[log.Run, error]) ([]string, error) {
	var out []string
	for run, err := range runs {
		if err != nil {
			return out, err
		}
		line := fmt.Sprintf("%s %d %d %s %s %d:", run.Group, run.Commit, run.Time, run.Digest, run.Key, run.FirstSeq)
		for seq, payload := range run.Records() {
			line += fmt.Sprintf(" %d=%q", seq, payload)
		}
		out = append(out, line)
	}
	return out, nil
}

// scanner is a log.Scanner of a node: of one stream, and of the directory.
type scanner struct {
	client *api.Client
	ref    api.Ref
}

func (s scanner) Scan(ctx context.Context, q log.Query) iter.Seq2[log.Run, error] {
	return s.client.Scan(ctx, api.Ref{Name: q.Key.String(), Group: s.ref.Group}, q)
}

// What a node refuses has the same name at the other end.
func TestClientErrors(t *testing.T) {
	n := start(t, engine.Options{}, api.Options{})
	pointer := n.appendAll(api.Ref{Name: "notes"}, "raw", "one")[0]
	if _, err := n.client.Stream(n.ctx, api.Ref{Name: "nobody"}); !errors.Is(err, log.ErrNotFound) {
		t.Errorf("Stream: %v", err)
	}
	if _, err := n.client.Source(n.ctx, "nobody"); !errors.Is(err, log.ErrNotFound) {
		t.Errorf("Source: %v", err)
	}
	source, err := n.client.Source(n.ctx, "g0")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := source.Commit(99); !errors.Is(err, log.ErrNotFound) {
		t.Errorf("Commit: %v", err)
	}
	foreign := pointer
	foreign.Digest[0] ^= 1
	if _, err := flat(n.client.Scan(n.ctx, api.Ref{Name: "notes"}, log.Query{From: log.At(foreign)})); !errors.Is(err, log.ErrPointer) {
		t.Errorf("Scan: %v", err)
	}
	last := func(codec string, payloads api.Payloads) (acknowledged int, err error) {
		for o := range n.client.Append(n.ctx, api.Ref{Name: "notes"}, codec, payloads) {
			if err = o.Err; err == nil {
				acknowledged++
			}
		}
		return acknowledged, err
	}
	if k, err := last("json", list("1")); !errors.Is(err, log.ErrCodec) || k != 0 {
		t.Errorf("Append: %d, %v", k, err)
	}
	if k, err := last("raw", list("two", strings.Repeat("x", log.MaxPayload+1), "three")); !errors.Is(err, log.ErrOversize) || k != 1 {
		t.Errorf("Append: %d, %v", k, err)
	}
	mine := errors.New("the pen broke")
	if k, err := last("raw", func(context.Context) iter.Seq2[[]byte, error] {
		return func(yield func([]byte, error) bool) {
			if yield([]byte("four"), nil) {
				yield(nil, mine)
			}
		}
	}); !errors.Is(err, mine) || k != 1 {
		t.Errorf("Append: %d, %v", k, err)
	}
	// A full node.
	full := start(t, engine.Options{}, api.Options{MaxRequests: 1})
	follower := full.open("GET", "/api/v1/streams/x/records?follow=true", "", nil)
	defer follower.Body.Close()
	if _, err := flat(full.client.Scan(n.ctx, api.Ref{Name: "x"}, log.Query{})); !errors.Is(err, engine.ErrBusy) {
		t.Errorf("busy: %v", err)
	}
	// A closed one, and none.
	full.server.Drain()
	if err := full.engine.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := flat(n.client.Scan(n.ctx, api.Ref{Name: "notes"}, log.Query{})); err != nil {
		t.Errorf("the other node: %v", err)
	}
	if _, err := full.client.Streams(n.ctx); !errors.Is(err, log.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	full.http.Close()
	if _, err := full.client.Groups(n.ctx); !errors.Is(err, api.ErrUnreachable) {
		t.Errorf("unreachable: %v", err)
	}
	for _, address := range []string{"", "127.0.0.1:7070", "ftp://x", "http://", "http://x?y"} {
		if _, err := api.NewClient(address); !errors.Is(err, api.ErrRequest) {
			t.Errorf("address %q: %v", address, err)
		}
	}
}

// Whatever a node sends, the client says what is wrong with it and stops.
func TestBadAnswers(t *testing.T) {
	n := start(t, engine.Options{}, api.Options{})
	n.appendAll(api.Ref{Name: "notes"}, "raw", "one", "two", "three")
	resp := n.open("GET", "/api/v1/streams/notes/records?format=raw", "", nil)
	good, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil {
		t.Fatal(err)
	}
	var answer []byte
	liar := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write(answer) }))
	defer liar.Close()
	client, err := api.NewClient(liar.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	scan := func(b []byte) error {
		answer = b
		_, err := flat(client.Scan(n.ctx, api.Ref{Name: "notes"}, log.Query{}))
		return err
	}
	if err := scan(good); err != nil {
		t.Fatalf("the good answer: %v", err)
	}
	for i := range good {
		if err := scan(good[:i]); !errors.Is(err, api.ErrAnswer) {
			t.Fatalf("cut off at %d of %d: %v", i, len(good), err)
		}
	}
	if err := scan(append(bytes.Clone(good[:40]), 9, 0, 0, 0, 0)); !errors.Is(err, api.ErrAnswer) {
		t.Errorf("kind 9: %v", err)
	}
	if err := scan(append(bytes.Clone(good[:40]), 1, 0xff, 0xff, 0xff, 0xff)); !errors.Is(err, api.ErrAnswer) {
		t.Errorf("4 GiB: %v", err)
	}
}

// A client that takes nothing is cut off, and writers do not notice it.
func TestStalledReader(t *testing.T) {
	n := start(t, engine.Options{}, api.Options{Stall: 50 * time.Millisecond})
	write := func() {
		for range 64 {
			if _, err := n.engine.Append(n.ctx, identity.NewID("wide"), make([]byte, 256<<10)); err != nil {
				t.Fatal(err)
			}
		}
	}
	write()
	conn, err := net.Dial("tcp", strings.TrimPrefix(n.http.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "GET /api/v1/streams/wide/records?follow=true&format=raw HTTP/1.1\r\nHost: x\r\n\r\n")
	write()
	// The node closes, which waits for every view of the store, while the reader
	// still has not taken a byte.
	n.server.Drain()
	n.http.Close()
	if err := n.engine.Close(); err != nil {
		t.Error(err)
	}
}

// Two appends to one stream at once: each keeps its order, no seq is lost.
func TestConcurrentAppends(t *testing.T) {
	n := start(t, engine.Options{}, api.Options{})
	const writers, each = 4, 2000
	errs := make(chan error, writers)
	for w := range writers {
		go func() {
			texts := make([]string, each)
			for i := range texts {
				texts[i] = fmt.Sprintf("%d %d", w, i)
			}
			last := uint64(0)
			for o := range n.client.Append(n.ctx, api.Ref{Name: "shared"}, "raw", list(texts...)) {
				if o.Err != nil || o.Pointer.Seq <= last {
					errs <- fmt.Errorf("writer %d after seq %d: %+v", w, last, o)
					return
				}
				last = o.Pointer.Seq
			}
			errs <- nil
		}()
	}
	for range writers {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	next := make([]int, writers)
	total := uint64(0)
	for run, err := range n.client.Scan(n.ctx, api.Ref{Name: "shared"}, log.Query{}) {
		if err != nil {
			t.Fatal(err)
		}
		for seq, payload := range run.Records() {
			total++
			var w, i int
			if _, err := fmt.Sscan(string(payload), &w, &i); err != nil || seq != total || i != next[w] {
				t.Fatalf("seq %d at %d: %q, %v", seq, total, payload, err)
			}
			next[w]++
		}
	}
	if total != writers*each {
		t.Errorf("%d records", total)
	}
}
