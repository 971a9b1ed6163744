package admin_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/mosaik-engine/mosaik/cmd/mosaik-node/internal/admin"
	"github.com/mosaik-engine/mosaik/engine"
	"github.com/mosaik-engine/mosaik/identity"
)

func get(t *testing.T, h http.Handler, path string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
	body, err := io.ReadAll(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	return w.Code, string(body)
}

func open(t *testing.T, options engine.Options) *engine.Engine {
	t.Helper()
	options.FS = vfs.NewMem()
	e, err := engine.Open("node", &options)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestAlone(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	e := open(t, engine.Options{Named: []string{"audit"}})
	h := admin.Handler(e, nil, "v1.2.3")
	if err := e.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := e.Append(ctx, identity.NewID("x"), []byte("record")); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{"/healthz", "/readyz"} {
		if status, body := get(t, h, path); status != 200 || body != "ok\n" {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	if status, _ := get(t, h, "/debug/pprof/"); status != 200 {
		t.Errorf("pprof: %d", status)
	}
	if status, _ := get(t, h, "/"); status != 404 {
		t.Errorf("/: %d", status)
	}
	status, text := get(t, h, "/metrics")
	if status != 200 {
		t.Fatalf("metrics: %d", status)
	}
	for _, want := range []string{
		`mosaik_build_info{version="v1.2.3"} 1`,
		`mosaik_appends_total{group="g0"} 3`,
		`mosaik_group_records{group="g0"} 3`,
		`mosaik_group_records{group="audit"} 0`,
		`mosaik_group_leader{group="g0"} 1`,
		`mosaik_disk_full 0`,
		`go_goroutines`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%s is not among\n%s", want, text)
		}
	}
	// Counters, and they alone, are named for it.
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (mosaik_\S+) (\w+)$`).FindAllStringSubmatch(text, -1) {
		if strings.HasSuffix(m[1], "_total") != (m[2] == "counter") {
			t.Errorf("%s is a %s", m[1], m[2])
		}
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if status, body := get(t, h, "/readyz"); status != 503 || !strings.Contains(body, "group g0: ") || !strings.Contains(body, "group audit: ") {
		t.Errorf("closed: %d %s", status, body)
	}
	if status, text := get(t, h, "/metrics"); status != 200 || strings.Contains(text, "mosaik_appends_total") {
		t.Errorf("closed: %d %s", status, text)
	}
}

// One of three members without the others is alive, but not ready.
func TestWithoutQuorum(t *testing.T) {
	members := []identity.PeerID{{1}, {2}, {3}}
	e := open(t, engine.Options{Peer: members[1], Members: members})
	defer e.Close()
	h := admin.Handler(e, nil, "test")
	if status, body := get(t, h, "/readyz"); status != 503 || !strings.HasPrefix(body, "group g0: ") || !strings.Contains(body, "no quorum") {
		t.Errorf("ready: %d %s", status, body)
	}
	if status, _ := get(t, h, "/healthz"); status != 200 {
		t.Errorf("healthy: %d", status)
	}
}
