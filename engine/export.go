package engine

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/cockroachdb/pebble/v2"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/snapshot"
)

// Export writes the group's whole history, as this node has it now, to w
// (snapshot.ExportWriter): the sealed segments, also those that are archived, then
// the commits after them. progress, if not nil, is told now and then of the commits
// done and to do.
func (g *Group) Export(ctx context.Context, w io.Writer, progress func(done, total uint64)) (log.Head, error) {
	fail := func(err error) (log.Head, error) {
		return log.Head{}, fmt.Errorf("export group %s: %w", g.name, err)
	}
	head := g.Head()
	out, err := snapshot.NewExportWriter(w, g.id)
	if err != nil {
		return fail(err)
	}
	next := uint64(1)
	for _, m := range g.Segments().Manifests {
		if m.Last > head.Number {
			break
		}
		object := make(sliceWriter, 0, m.Commits.Size)
		if _, err := g.writeSegment(ctx, &object, m.Range, true); err != nil {
			return fail(err)
		}
		if err := out.Segment(m, object); err != nil {
			return fail(err)
		}
		next = m.Last + 1
		if progress != nil {
			progress(m.Last, head.Number)
		}
	}
	for c, err := range g.Commits(ctx, next, head.Number) {
		if err == nil {
			err = c.Verify()
		}
		if err == nil {
			err = out.Commit(&c)
		}
		if err != nil {
			return fail(err)
		}
	}
	if err := out.Close(); err != nil {
		return fail(err)
	}
	if progress != nil {
		progress(head.Number, head.Number)
	}
	return head, nil
}

// ErrForeign says that an export is of another group than it is to be imported
// into: of another name, or with other members.
var ErrForeign = errors.New("mosaik: an export of another group")

// Import restores a group of the store in dir, which must have no commits yet, from
// an export: all its commits, each checked, and the views folded from them. opts
// must name the members the group was founded with, since they are part of its id;
// ErrForeign if the export is of another one. Of several members each one has to
// be restored, from the same export, before any of them is started.
//
// The node must not be running. After an error the store has nothing of the group.
func Import(ctx context.Context, dir string, opts *Options, group string, in io.Reader) (log.Head, error) {
	fail := func(err error) (log.Head, error) {
		return log.Head{}, fmt.Errorf("import into group %s: %w", group, err)
	}
	e, err := openStopped(dir, opts)
	if err != nil {
		return log.Head{}, err
	}
	head, err := e.restore(ctx, group, in)
	if err = errors.Join(err, e.shutdown()); err != nil {
		return fail(err)
	}
	return head, nil
}

// restore is Import on a store that is open without Raft.
func (e *Engine) restore(ctx context.Context, group string, in io.Reader) (log.Head, error) {
	g := e.byName[group]
	if g == nil {
		return log.Head{}, fmt.Errorf("%w: the store has no such group", log.ErrNotFound)
	}
	r := g.replica
	if r.state.number > 0 || r.state.applied > 0 {
		return log.Head{}, fmt.Errorf("%w: the group has %d commits here", ErrMismatch, r.state.number)
	}
	s := &syncing{g: g, r: r, o: &offer{}}
	s.report.Anew = true
	if err := s.start(); err != nil {
		return log.Head{}, err
	}
	var manifests []*snapshot.Manifest
	out, err := snapshot.ReadExport(in, func(id identity.ID) error {
		if id != g.id {
			return fmt.Errorf("%w: %s, this one is %s", ErrForeign, id.Short(), g.id.Short())
		}
		return nil
	}, func(m *snapshot.Manifest, object []byte) error {
		manifests = append(manifests, m)
		return s.keepShard(m, object, false) // the log says that this member has it
	}, func(c *log.Commit) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return s.commit(c, false)
	})
	if err == nil {
		err = s.write()
	}
	if err != nil {
		// Nothing may stay that looks like a group.
		return log.Head{}, errors.Join(err, r.db.DeleteRange(appendSpace(nil, r.shard, 0), appendSpace(nil, r.shard, spaceEnd), pebble.NoSync), r.db.Flush())
	}
	s.o.state = r.state
	s.o.manifests = manifests
	return out.Head, s.end()
}
