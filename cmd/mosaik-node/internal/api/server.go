package api

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mosaik-engine/mosaik/engine"
	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

// Options of a Server. The zero value of a field means its default.
type Options struct {
	// Logger receives what went wrong inside. Default: nothing is logged.
	Logger *slog.Logger
	// MaxBody bounds the body of one append, in bytes. Default 1 GiB; one that is
	// larger is to be sent as several.
	MaxBody int64
	// MaxRequests bounds the requests under way at once that read, follow or append;
	// more are answered "busy". Default 1024.
	MaxRequests int
	// Stall is how long a client may send or take nothing in the middle of a
	// request. Default 30 s.
	Stall time.Duration
	// Alive is how often a follower without news hears that the connection stands.
	// Default 15 s.
	Alive time.Duration
	// SyncTimeout bounds how long a linearizable read waits for its quorum.
	// Default 10 s.
	SyncTimeout time.Duration
	// Network describes the network that the node is one of. Nil: it is alone.
	Network func() Network
	// Peers describes the peers that the node knows of. Nil: it is alone.
	Peers func() []Peer
	// Ping measures how long a message to a peer and back takes. Nil: the node keeps no
	// catalog of its network.
	Ping func(context.Context, identity.PeerID) (time.Duration, error)
}

// Server answers the HTTP API for one engine.
type Server struct {
	local    *Local
	engine   *engine.Engine
	opts     Options
	mux      *http.ServeMux
	requests chan struct{} // holds one token per long request under way
	checks   chan struct{} // the same, for the one check there may be
	origins  *http.CrossOriginProtection

	draining context.Context // ended by Drain
	drain    context.CancelFunc
}

// route is one thing the API can do.
type route struct {
	method, path string
	handle       func(*Server, http.ResponseWriter, *http.Request) error
}

// routes lists all there are; docs/api.md describes each, and a test compares.
func routes() []route {
	return []route{
		{"GET", "/api/v1/streams", (*Server).serveStreams},
		{"GET", "/api/v1/streams/{name}", (*Server).serveStream},
		{"POST", "/api/v1/streams/{name}/records", (*Server).serveAppend},
		{"GET", "/api/v1/streams/{name}/records", (*Server).serveRecords},
		{"GET", "/api/v1/views/{name}/rows", (*Server).serveRows},
		{"POST", "/api/v1/views/{name}/commands", (*Server).serveCommands},
		{"GET", "/api/v1/views/{name}/changes", (*Server).serveChanges},
		{"POST", "/api/v1/transactions", (*Server).serveTransaction},
		{"GET", "/api/v1/groups", (*Server).serveGroups},
		{"GET", "/api/v1/groups/{group}", (*Server).serveGroup},
		{"GET", "/api/v1/groups/{group}/commits", (*Server).serveCommits},
		{"GET", "/api/v1/groups/{group}/commits/{number}", (*Server).serveCommit},
		{"GET", "/api/v1/groups/{group}/commits/{number}/raw", (*Server).serveCommitBytes},
		{"POST", "/api/v1/groups/{group}/transfer", (*Server).serveTransfer},
		{"POST", "/api/v1/groups/{group}/refold", (*Server).serveRefold},
		{"GET", "/api/v1/groups/{group}/members", (*Server).serveMembers},
		{"POST", "/api/v1/members/{peer}/admit", (*Server).serveAdmit},
		{"POST", "/api/v1/members/{peer}/evict", (*Server).serveEvict},
		{"POST", "/api/v1/policy", (*Server).servePolicy},
		{"GET", "/api/v1/groups/{group}/segments", (*Server).serveSegments},
		{"GET", "/api/v1/groups/{group}/segments/{number}", (*Server).serveSegmentBytes},
		{"POST", "/api/v1/groups/{group}/pins", (*Server).servePin},
		{"POST", "/api/v1/groups/{group}/scrub", (*Server).serveScrub},
		{"GET", "/api/v1/groups/{group}/export", (*Server).serveExport},
		{"GET", "/api/v1/network", (*Server).serveNetwork},
		{"GET", "/api/v1/peers", (*Server).servePeers},
		{"POST", "/api/v1/peers/{peer}/ping", (*Server).servePing},
		{"POST", "/api/v1/check", (*Server).serveCheck},
	}
}

// NewServer returns a server for e, which stays the caller's to close after the
// server has been drained.
func NewServer(e *engine.Engine, opts Options) *Server {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	opts.MaxBody = cmp.Or(opts.MaxBody, 1<<30)
	opts.MaxRequests = cmp.Or(opts.MaxRequests, 1024)
	opts.Stall = cmp.Or(opts.Stall, 30*time.Second)
	opts.Alive = cmp.Or(opts.Alive, 15*time.Second)
	opts.SyncTimeout = cmp.Or(opts.SyncTimeout, 10*time.Second)
	s := &Server{
		local: NewLocal(e), engine: e, opts: opts, mux: http.NewServeMux(),
		requests: make(chan struct{}, opts.MaxRequests), checks: make(chan struct{}, 1),
		origins: http.NewCrossOriginProtection(),
	}
	s.draining, s.drain = context.WithCancel(context.Background())
	for _, r := range routes() {
		s.mux.HandleFunc(r.method+" "+r.path, func(w http.ResponseWriter, req *http.Request) { s.answer(w, req, r) })
	}
	return s
}

// Drain makes requests that would go on for ever come to their end: followers are
// told that the node closes, appends take no further records. Others go on to
// their end, and new ones are still answered.
func (s *Server) Drain() { s.drain() }

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// A page in somebody's browser must not write to a node on the same machine.
	if err := s.origins.Check(r); err != nil {
		failureOf(&statusError{http.StatusForbidden, "cross_origin", "requests from pages of other origins are refused"}).send(w)
		return
	}
	if _, pattern := s.mux.Handler(r); pattern == "" || r.Method == http.MethodHead {
		s.refuse(w, r)
		return
	}
	s.mux.ServeHTTP(w, r)
}

// refuse answers a request that no route takes.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request) {
	var methods []string
	for _, method := range []string{"GET", "POST"} {
		try := *r
		try.Method = method
		if _, pattern := s.mux.Handler(&try); pattern != "" {
			methods = append(methods, method)
		}
	}
	if methods == nil {
		failureOf(&statusError{http.StatusNotFound, "no_route", fmt.Sprintf("there is no %s; docs/api.md lists what there is", r.URL.Path)}).send(w)
		return
	}
	w.Header().Set("Allow", strings.Join(methods, ", "))
	failureOf(&statusError{http.StatusMethodNotAllowed, "method", fmt.Sprintf("%s takes %s only", r.URL.Path, strings.Join(methods, " and "))}).send(w)
}

// answer runs a route's handler. An error of the handler means that it has sent
// nothing.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, to route) {
	err := to.handle(s, w, r)
	if err == nil {
		return
	}
	f := failureOf(err)
	if f.status == http.StatusInternalServerError {
		s.opts.Logger.Error("request failed", "method", to.method, "path", r.URL.Path, "err", err)
	}
	f.send(w)
}

// enter counts a request that may go on for long, and gives it a context; that of
// one that has no end of its own ends when the server drains. leave must be
// called.
func (s *Server) enter(r *http.Request, endless bool) (ctx context.Context, cancel context.CancelFunc, leave func(), err error) {
	select {
	case s.requests <- struct{}{}:
	default:
		return nil, nil, nil, fmt.Errorf("%w: %d requests are under way", engine.ErrBusy, cap(s.requests))
	}
	ctx, cancel = context.WithCancel(r.Context())
	unlink := func() bool { return true }
	if endless {
		unlink = context.AfterFunc(s.draining, cancel)
	}
	return ctx, cancel, func() {
		unlink()
		cancel()
		<-s.requests
	}, nil
}

// why replaces the error of a context that Drain has ended by one that says so.
func (s *Server) why(err error) error {
	if errors.Is(err, context.Canceled) && s.draining.Err() != nil {
		return fmt.Errorf("%w: the node is shutting down", log.ErrClosed)
	}
	return err
}

// sync makes what is read afterwards linearizable, if the request asks for it,
// and tells the client how far the node's copy of the group goes.
func (s *Server) sync(ctx context.Context, w http.ResponseWriter, g *engine.Group, linearizable bool) error {
	head := g.Head()
	if linearizable {
		ctx, cancel := context.WithTimeout(ctx, s.opts.SyncTimeout)
		defer cancel()
		var err error
		if head, err = g.Sync(ctx); err != nil {
			return err
		}
	}
	w.Header().Set("Mosaik-Group", g.ID().String())
	w.Header().Set("Mosaik-Head", strconv.FormatUint(head.Number, 10))
	return nil
}

// ref returns the log a request is about.
func ref(r *http.Request, p *params) Ref {
	return Ref{Name: r.PathValue("name"), Group: p.text("group")}
}

// sendJSON answers with one document.
func sendJSON(w http.ResponseWriter, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(append(b, '\n')) // the client is gone
	return nil
}

// params reads the query of a request. The first mistake stays in err; done
// reports it, and parameters that nobody has asked for.
type params struct {
	values url.Values
	asked  []string
	err    error
}

func newParams(r *http.Request) *params {
	values, err := url.ParseQuery(r.URL.RawQuery)
	p := &params{values: values}
	if err != nil {
		p.err = fmt.Errorf("%w: the query does not parse: %w", ErrRequest, err)
	}
	return p
}

func (p *params) fail(name string, err error) {
	if p.err == nil {
		p.err = fmt.Errorf("%w: %s: %w", ErrRequest, name, err)
	}
}

// text returns a parameter, or "".
func (p *params) text(name string) string {
	p.asked = append(p.asked, name)
	if len(p.values[name]) > 1 {
		p.fail(name, errors.New("given twice"))
	}
	return p.values.Get(name)
}

// flag returns a parameter that is true or false, the latter if it is absent.
func (p *params) flag(name string) bool {
	switch v := p.text(name); v {
	case "", "false":
		return false
	case "true":
		return true
	default:
		p.fail(name, fmt.Errorf("%q is neither true nor false", v))
		return false
	}
}

// number returns a parameter that is a number from 0, which it is if absent.
func (p *params) number(name string) uint64 {
	v := p.text(name)
	if v == "" {
		return 0
	}
	n, err := strconv.ParseUint(v, 10, 64)
	if err != nil {
		p.fail(name, fmt.Errorf("%q is not a number", v))
	}
	return n
}

// time returns a parameter that is a time, the zero time if absent.
func (p *params) time(name string) time.Time {
	v := p.text(name)
	if v == "" {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339Nano, v)
	if err != nil {
		p.fail(name, fmt.Errorf("%q is not a time like 2006-01-02T15:04:05.999Z", v))
	}
	return t
}

// done returns the first mistake.
func (p *params) done() error {
	for name := range p.values {
		if !slices.Contains(p.asked, name) {
			p.fail(name, errors.New("there is no such parameter"))
		}
	}
	return p.err
}
