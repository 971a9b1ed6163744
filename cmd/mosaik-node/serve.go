package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/mosaik-engine/mosaik/cmd/mosaik-node/internal/admin"
	"github.com/mosaik-engine/mosaik/cmd/mosaik-node/internal/api"
	"github.com/mosaik-engine/mosaik/engine"
)

// newServeCmd returns the verb that runs a node.
func newServeCmd(g *globals) *cobra.Command {
	var s settings
	cmd := &cobra.Command{
		Use:   "serve --dir DIR",
		Short: "Run one durable node in the foreground",
		Long: `Runs a node until it is told to stop, with an HTTP API for streams on one address
(docs/api.md) and health, metrics and profiles on another.

SIGTERM or SIGINT ends it in good order: requests come to their end, followers are
told, the store is closed. A second signal ends it at once, which is as safe as a
power cut: what was acknowledged is on the disk.

Every setting is a flag, a variable MOSAIK_... or a key of the TOML file given by
--config, all under one name; the first of the three decides. "config check" shows
what is in effect.`,
		Example: `  mosaik-node serve --dir data
  mosaik-node serve --config node.toml --log-format json
  MOSAIK_DIR=data mosaik-node serve --listen 127.0.0.1:8080`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, err := s.load(); err != nil {
				return usage(cmd, err)
			}
			return serve(cmd.Context(), &s, g.err)
		},
	}
	s.addTo(cmd)
	return cmd
}

// logger writes to w what an operator should know, from the level on.
func (s *settings) logger(w io.Writer, level slog.Level) *slog.Logger {
	options := &slog.HandlerOptions{Level: level, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		// Some libraries' errors print a stack when they are not asked for their text.
		if err, ok := a.Value.Any().(error); ok {
			return slog.String(a.Key, plain(err))
		}
		return a
	}}
	if s.logFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// serve runs a node until ctx ends, and then takes it down: first the API, so
// that nothing new comes, then the engine, last the admin listener, on which one
// can see it go.
func serve(ctx context.Context, s *settings, errOut io.Writer) (err error) {
	level, err := s.level()
	if err != nil {
		return err
	}
	logger := s.logger(errOut, level)
	// The Raft library finds a lot worth telling: it has to shout to be heard.
	engine.SetRaftLogger(s.logger(errOut, level+slog.LevelWarn-slog.LevelInfo))
	node, err := s.open(logger)
	if err != nil {
		return err
	}
	defer func() {
		if node != nil {
			err = errors.Join(err, node.Close())
		}
	}()
	e := node.Node
	if n := members(e); n > 1 && node.peer == nil {
		logger.Warn("the store is one of several members and here it is alone: reads only", "members", n)
	}
	var private *listener
	adminAddress := ""
	if s.admin != "" {
		if private, err = listen(ctx, "admin", s.admin, admin.Handler(e, node.endpoint(), version), logger); err != nil {
			return err
		}
		defer private.close()
		adminAddress = private.url()
	}
	// Nobody shall read from a node that has been acknowledged more than it shows.
	if err := node.settle(ctx); err != nil {
		if ctx.Err() != nil {
			return nil // told to stop before it has started
		}
		return err
	}
	handler := api.NewServer(e, api.Options{Logger: logger, MaxBody: int64(s.maxBodyBytes), Network: node.network(s.network), Peers: node.peers(), Ping: node.ping()})
	public, err := listen(ctx, "api", s.listen, handler, logger)
	if err != nil {
		return err
	}
	defer public.close()
	logger.Info("serving", "dir", s.dir, "api", public.url(), "admin", adminAddress, "version", version)
	if err := notify("READY=1"); err != nil {
		logger.Warn("the service manager does not listen", "err", err)
	}

	var failed error
	select {
	case <-ctx.Done():
	case failed = <-public.failed:
	case failed = <-private.failure():
	}
	if failed != nil {
		logger.Error("a listener failed", "err", failed)
	}
	logger.Info("stopping")
	if err := notify("STOPPING=1"); err != nil {
		logger.Warn("the service manager does not listen", "err", err)
	}
	handler.Drain()
	if err := public.drain(s.drainTimeout); err != nil {
		logger.Warn("requests were broken off", "err", err)
	}
	closing := node
	node = nil
	if err := closing.Close(); err != nil {
		return errors.Join(failed, err)
	}
	logger.Info("stopped")
	return failed
}

// listener is a HTTP server on an address.
//
// Goroutines: runServe, one per listener, which ends with close.
type listener struct {
	name   string
	net    net.Listener
	http   *http.Server
	failed chan error // has at most one
	done   chan struct{}
}

// Limits of every connection. What a request may take in its middle is up to its
// handler.
const (
	headerTimeout = 10 * time.Second
	idleTimeout   = 2 * time.Minute
	maxHeader     = 64 << 10
)

// listen starts to serve on an address.
func listen(ctx context.Context, name, address string, h http.Handler, logger *slog.Logger) (*listener, error) {
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if host, ok := ln.Addr().(*net.TCPAddr); ok && !host.IP.IsLoopback() {
		logger.Warn("everybody who reaches the address may use it: there is no authentication", "listener", name, "address", ln.Addr().String())
	}
	l := &listener{
		name: name, net: ln, failed: make(chan error, 1), done: make(chan struct{}),
		http: &http.Server{
			Handler: h, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
			ErrorLog: slog.NewLogLogger(logger.With("component", "http."+name).Handler(), slog.LevelDebug),
		},
	}
	go l.runServe()
	return l, nil
}

// runServe answers requests until the listener is closed.
func (l *listener) runServe() {
	defer close(l.done)
	if err := l.http.Serve(l.net); !errors.Is(err, http.ErrServerClosed) {
		l.failed <- fmt.Errorf("%s: %w", l.name, err)
	}
}

// failure receives what ended the listener. That of no listener receives nothing.
func (l *listener) failure() <-chan error {
	if l == nil {
		return nil
	}
	return l.failed
}

func (l *listener) url() string { return "http://" + l.net.Addr().String() }

// drain takes no more requests and waits for those under way. What has not ended
// in time is broken off, which is an error.
func (l *listener) drain(timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	err := l.http.Shutdown(ctx)
	if err != nil {
		_ = l.http.Close() // ends the contexts of the handlers
	}
	return err
}

// close breaks off what is under way.
func (l *listener) close() {
	_ = l.http.Close() // of its listener, which is closed one way or the other
	<-l.done
}
