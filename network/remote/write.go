package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/network"
)

// Append implements log.Writer. The replica that is asked hands the records to the group's
// leader.
func (g *Group) Append(ctx context.Context, key identity.ID, payloads ...[]byte) (log.Pointer, error) {
	if err := log.CheckAppend(key, payloads); err != nil {
		return log.Pointer{}, err
	}
	r := g.request(opAppend, key)
	r.payloads = payloads
	w, _, err := g.write(ctx, r)
	if err != nil {
		return log.Pointer{}, fmt.Errorf("append to group %s: %w", g.id.Short(), err)
	}
	return w.pointer, nil
}

// AppendAsync implements log.Writer. It returns when the request has left, so it may
// wait for a connection, and for appends before it.
func (g *Group) AppendAsync(ctx context.Context, key identity.ID, payloads ...[]byte) *log.Future {
	f := log.NewFuture()
	err := log.CheckAppend(key, payloads)
	var c *call
	if err == nil {
		r := g.request(opAppend, key)
		r.payloads = payloads
		if c, err = g.send(ctx, r); err == nil {
			err = g.s.start(func() { go g.runAppend(ctx, c, f) })
			if err != nil {
				g.writing.Add(-1)
				c.close(network.GoingAway)
				err = fmt.Errorf("%w: %w", ErrUnknown, err)
			}
		}
	}
	if err != nil {
		f.Complete(log.Pointer{}, fmt.Errorf("append to group %s: %w", g.id.Short(), err))
	}
	return f
}

// runAppend completes an append that has been sent.
func (g *Group) runAppend(ctx context.Context, c *call, f *log.Future) {
	defer g.s.running.Done()
	w, results, err := g.outcome(ctx, c)
	if err != nil {
		err = fmt.Errorf("append to group %s: %w", g.id.Short(), err)
	}
	f.CompleteWith(w.pointer, results, err)
}

// Submit implements log.GroupStore.
func (g *Group) Submit(ctx context.Context, t *log.Transaction) (log.Outcome, error) {
	if err := t.Validate(); err != nil {
		return log.Outcome{}, err
	}
	r := g.request(opSubmit, identity.ID{})
	r.transaction = *t
	w, results, err := g.write(ctx, r)
	if err != nil {
		return log.Outcome{}, fmt.Errorf("transaction in group %s: %w", g.id.Short(), err)
	}
	return log.Outcome{Pointer: w.pointer, Held: w.held, Failed: w.failed, Results: results}, nil
}

// write sends a request to write and waits for the outcome. When a replica says that it
// has not written anything another is tried, unless other writes of this handle are
// under way, which that one might overtake.
func (g *Group) write(ctx context.Context, r *request) (written, [][]byte, error) {
	for tries := len(g.replicas()); ; tries-- {
		c, err := g.send(ctx, r)
		if err != nil {
			return written{}, nil, err
		}
		alone := g.writing.Load() == 1
		w, results, err := g.outcome(ctx, c)
		if !unwritten(err) || !alone || tries <= 1 || ctx.Err() != nil {
			return w, results, err
		}
		if err := g.moveWriter(ctx, c.d); err != nil {
			return written{}, nil, err
		}
	}
}

// moveWriter has further writes go elsewhere.
func (g *Group) moveWriter(ctx context.Context, from *dialled) error {
	g.avoid(from.link.conn.Remote())
	select {
	case g.turn <- struct{}{}:
		defer func() { <-g.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if g.writer == from {
		g.writer = nil
	}
	return nil
}

// send sends a request to write. If its error does not wrap ErrUnknown, nothing was
// sent. Else outcome is to be called.
func (g *Group) send(ctx context.Context, r *request) (*call, error) {
	select {
	case g.turn <- struct{}{}:
		defer func() { <-g.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	var errs []error
	for _, p := range g.replicas() {
		d := g.writer
		if d == nil || d.link.conn.Err() != nil || !slices.Contains(g.replicas(), d.link.conn.Remote()) {
			var err error
			if d, err = g.reach(ctx, p); err != nil {
				g.avoid(p)
				errs = append(errs, err)
				continue
			}
			g.writer = d
		}
		c, lost, err := d.ask(ctx, r, g.opts.Window)
		switch {
		case err == nil:
			g.writing.Add(1)
			return c, nil
		case lost:
			return nil, fmt.Errorf("%w: %w", ErrUnknown, err)
		case errors.Is(err, network.Oversize):
			return nil, err
		}
		errs = append(errs, err)
	}
	if len(errs) == 0 {
		errs = append(errs, ErrNoReplica)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return nil, errors.Join(errs...)
}

// outcome waits for what becomes of a write and closes its call. An error that does not
// come from the replica leaves the outcome unknown.
func (g *Group) outcome(ctx context.Context, c *call) (w written, results [][]byte, err error) {
	defer g.writing.Add(-1)
	reason := network.Done
	defer func() { c.close(reason) }()
	kind, content, err := c.next(ctx)
	if err == nil {
		if w, err = decodeWritten(content); kind != itemWritten {
			err = errItem
		}
	}
	for err == nil {
		if kind, content, err = c.next(ctx); err != nil {
			break
		}
		if results = append(results, slices.Clone(content)); kind != itemResult || len(results) > w.results {
			err = errItem
		}
	}
	answered := (*Error)(nil)
	switch {
	case errors.As(err, &answered):
		return written{}, nil, err
	case err != io.EOF || w.pointer.Commit == 0 || len(results) != w.results:
		reason = Failed
		return written{}, nil, fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	w.pointer.Group, w.pointer.Key = g.id, c.r.key
	if c.r.op == opSubmit {
		w.pointer.Key = log.GuardKey()
	}
	g.seen(w.pointer.Commit, w.pointer.Digest)
	return w, results, nil
}
