package admin

import (
	"context"
	"fmt"
	"net/http"
	"net/http/pprof"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/mosaik-engine/mosaik/engine"
	"github.com/mosaik-engine/mosaik/network"
)

// readyTimeout bounds the question whether the node is ready. Probes have their
// own, of a few seconds as a rule.
const readyTimeout = 2 * time.Second

// Handler answers for e, and for the node's place in its network if it has one: nil is
// a node alone. version is that of the program.
func Handler(e *engine.Engine, endpoint *network.Endpoint, version string) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		&collector{engine: e, endpoint: endpoint, version: version},
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if missing := unready(r.Context(), e); missing != nil {
			answer(w, http.StatusServiceUnavailable, missing...)
			return
		}
		answer(w, http.StatusOK, "ok")
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4}))
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return mux
}

func answer(w http.ResponseWriter, status int, lines ...string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	fmt.Fprintln(w, strings.Join(lines, "\n"))
}

// unready says of each group that has no leader, or is behind it, what is wrong.
func unready(ctx context.Context, e *engine.Engine) []string {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	var missing []string
	for _, g := range e.Groups() {
		if _, err := g.Sync(ctx); err != nil {
			missing = append(missing, fmt.Sprintf("group %s: %s", g.Name(), strings.ReplaceAll(err.Error(), "mosaik: ", "")))
		}
	}
	return missing
}
