package api

import (
	"context"
	"fmt"
	"net/http"
	"strconv"

	"github.com/mosaik-engine/mosaik/engine"
	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

type groupList struct {
	Groups []Group `json:"groups"`
}

// serveGroups lists the groups.
func (s *Server) serveGroups(w http.ResponseWriter, r *http.Request) error {
	if err := newParams(r).done(); err != nil {
		return err
	}
	list, err := s.local.Groups(r.Context())
	if err != nil {
		return err
	}
	return sendJSON(w, groupList{Groups: list})
}

// requestGroup returns the group of a request's path, synced if it asks for that.
func (s *Server) requestGroup(w http.ResponseWriter, r *http.Request, p *params) (*engine.Group, error) {
	linearizable := p.flag("linearizable")
	if err := p.done(); err != nil {
		return nil, err
	}
	g, err := s.local.group(r.PathValue("group"))
	if err != nil {
		return nil, err
	}
	return g, s.sync(r.Context(), w, g, linearizable)
}

// serveGroup describes one group.
func (s *Server) serveGroup(w http.ResponseWriter, r *http.Request) error {
	g, err := s.requestGroup(w, r, newParams(r))
	if err != nil {
		return err
	}
	return sendJSON(w, groupOf(g.Status()))
}

// requestCommit returns the commit of a request's path.
func (s *Server) requestCommit(w http.ResponseWriter, r *http.Request) (log.Commit, error) {
	n, err := strconv.ParseUint(r.PathValue("number"), 10, 64)
	if err != nil {
		return log.Commit{}, fmt.Errorf("%w: %q is not the number of a commit", ErrRequest, r.PathValue("number"))
	}
	g, err := s.requestGroup(w, r, newParams(r))
	if err != nil {
		return log.Commit{}, err
	}
	return g.Commit(n)
}

// serveCommit describes a commit.
func (s *Server) serveCommit(w http.ResponseWriter, r *http.Request) error {
	c, err := s.requestCommit(w, r)
	if err != nil {
		return err
	}
	description, err := CommitOf(&c, s.local.names(r.Context(), r.PathValue("group")))
	if err != nil {
		return err
	}
	return sendJSON(w, description)
}

// names returns a look-up of the names of a group's keys.
func (l *Local) names(ctx context.Context, group string) func(identity.ID) string {
	return func(key identity.ID) string {
		if name := engine.SystemName(key); name != "" {
			return name
		}
		g, err := l.group(group)
		if err != nil {
			return ""
		}
		// A name is a courtesy: without it, the key is still there.
		e, err := log.LookUp(ctx, g, key)
		if err != nil {
			return ""
		}
		return e.Name
	}
}

// serveCommitBytes sends a commit as it is stored: header and body.
func (s *Server) serveCommitBytes(w http.ResponseWriter, r *http.Request) error {
	c, err := s.requestCommit(w, r)
	if err != nil {
		return err
	}
	b := c.AppendTo(make([]byte, 0, log.HeaderSize+len(c.Body)))
	w.Header().Set("Content-Type", frameType)
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	_, _ = w.Write(b) // the client is gone
	return nil
}

// serveCommits sends a range of commits, framed.
func (s *Server) serveCommits(w http.ResponseWriter, r *http.Request) error {
	ctx, _, leave, err := s.enter(r, false)
	if err != nil {
		return err
	}
	defer leave()
	p := newParams(r)
	from, to := p.number("from"), p.number("to")
	g, err := s.requestGroup(w, r, p)
	if err != nil {
		return err
	}
	from = max(from, 1)
	if to == 0 {
		to = g.Head().Number
	}
	out := s.newResponse(w, frameType, appendFailureFrame)
	if err := out.write(func(dst []byte) []byte { return appendPreamble(dst, g.ID()) }); err != nil {
		return nil
	}
	for c, err := range g.Commits(ctx, from, to) {
		if err != nil {
			out.fail(s.why(err))
			return nil
		}
		if err := out.write(func(dst []byte) []byte { return appendCommitFrame(dst, &c) }); err != nil {
			return nil // the client is gone
		}
	}
	out.finish(func(dst []byte) []byte { return appendFrame(dst, frameEnd, nil) })
	return nil
}

// serveCheck checks what the node has on disk.
func (s *Server) serveCheck(w http.ResponseWriter, r *http.Request) error {
	ctx, cancel, leave, err := s.enter(r, false)
	if err != nil {
		return err
	}
	defer leave()
	if err := newParams(r).done(); err != nil {
		return err
	}
	select {
	case s.checks <- struct{}{}:
		defer func() { <-s.checks }()
	default:
		return fmt.Errorf("%w: a check is under way", engine.ErrBusy)
	}
	out := s.newResponse(w, "application/x-ndjson", lineFault)
	end := out.follow(ctx, cancel, []byte("\n"), s.opts.Alive)
	report, err := s.local.Check(ctx, func(done, total uint64) {
		// Sending fails only when the client is gone, which ends ctx.
		_ = out.write(func(dst []byte) []byte { return appendLine(dst, Check{Done: done, Total: total}) })
	})
	end()
	if err != nil {
		out.fail(s.why(err))
		return nil
	}
	out.finish(func(dst []byte) []byte { return appendLine(dst, Check{Report: &report}) })
	return nil
}
