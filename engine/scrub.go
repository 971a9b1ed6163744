package engine

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/time/rate"

	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/snapshot"
)

// Disks lose bits, and nobody reads a shard until another member needs it. So each
// node reads its own now and then, at a pace that leaves its work alone, and makes
// anew what is missing or rotten: from its store while the commits are there, else
// from K shards of other members. What it writes is held against the manifest like
// everything else.

const (
	// scrubGlance is how often a node looks whether its shards are there.
	scrubGlance = time.Minute
	// scrubRate is how many bytes a second of shards are read.
	scrubRate = 8 << 20
	// mendTemp is what the name of a shard ends with while it is made anew.
	mendTemp = ".mend"
)

// runScrub looks after this node's shards.
func (e *Engine) runScrub(ctx context.Context) {
	defer e.wg.Done()
	pace := rate.NewLimiter(scrubRate, snapshot.CellBytes)
	glance := time.NewTicker(min(scrubGlance, e.opts.ScrubInterval))
	defer glance.Stop()
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-glance.C:
		}
		read := time.Since(last) >= e.opts.ScrubInterval
		if read {
			last = time.Now()
		}
		for _, g := range e.groups {
			if _, err := g.replica.steady(); err != nil {
				continue
			}
			if _, err := g.scrub(ctx, read, pace); err != nil && ctx.Err() == nil {
				e.opts.Logger.Warn("scrub failed and will be tried again", "group", g.name, "err", err)
				e.opts.Events.BackgroundError(err)
			}
		}
	}
}

// ScrubReport says what a scrub has done.
type ScrubReport struct {
	Shards uint64 // that this node has to have
	Bytes  uint64 // read of them
	Mended uint64 // that were missing or rotten and are made anew
}

// Scrub reads all shards that this node keeps of the group's segments, as it does
// by itself every Options.ScrubInterval, and mends those that are missing or
// rotten. The error joins what could not be mended: snapshot.ErrShards when too few
// members have theirs.
func (g *Group) Scrub(ctx context.Context) (ScrubReport, error) {
	if err := g.engine.checkOpen(); err != nil {
		return ScrubReport{}, err
	}
	defer g.engine.release()
	if _, err := g.replica.steady(); err != nil {
		return ScrubReport{}, err
	}
	return g.scrub(ctx, true, rate.NewLimiter(rate.Inf, 1))
}

// scrub looks at every shard this node has to have: at all its bytes, or only
// whether it is there.
func (g *Group) scrub(ctx context.Context, read bool, pace *rate.Limiter) (ScrubReport, error) {
	var report ScrubReport
	var errs []error
	for _, s := range g.ownShards() {
		if err := ctx.Err(); err != nil {
			return report, err
		}
		report.Shards++
		var found error
		if read {
			found = g.checkShard(ctx, s, pace, &report.Bytes)
		} else if !g.hasShard(s.m, s.state) {
			found = os.ErrNotExist
		}
		switch {
		case found == nil:
			continue
		case ctx.Err() != nil:
			return report, ctx.Err()
		}
		if err := g.mend(ctx, s); err != nil {
			errs = append(errs, fmt.Errorf("group %s: shard of segment %d: %w; it cannot be made anew: %w", g.name, s.m.Number, found, err))
			continue
		}
		report.Mended++
		g.engine.opts.Logger.Warn("shard mended", "group", g.name, "segment", s.m.Number, "state", s.state, "found", found)
		g.engine.opts.Events.ShardMended(g.name, s.m.Number, found)
	}
	return report, errors.Join(errs...)
}

// ownShard is a shard that this node has to have.
type ownShard struct {
	m     *snapshot.Manifest
	index int // of the shard
	state bool
}

func (s ownShard) coding() *snapshot.Coding {
	if s.state {
		return &s.m.State
	}
	return &s.m.Commits
}

// ownShards returns what this member has said to hold: its shards of all segments,
// and of the states that were captured last.
func (g *Group) ownShards() []ownShard {
	known := g.knownSegments()
	return known.ownShards(g.seat())
}

func (known *Segments) ownShards(seat uint64) []ownShard {
	if seat == 0 {
		return nil // a reader has none
	}
	var own []ownShard
	states := 0
	for n := known.Held[seat-1]; n > 0; n-- {
		m := known.Manifests[n-1]
		own = append(own, ownShard{m, int(seat - 1), false})
		if m.State.Size > 0 && states < keptStates {
			states++
			own = append(own, ownShard{m, int(seat - 1), true})
		}
	}
	return own
}

// checkShard reads one shard and holds it against the manifest.
func (g *Group) checkShard(ctx context.Context, s ownShard, pace *rate.Limiter, read *uint64) error {
	c := s.coding()
	path := g.shardPath(s.m.Number, s.state)
	bad := func(err error) error {
		return &log.CorruptionError{File: path, Group: g.id, Commit: s.m.First, Err: err}
	}
	f, err := g.engine.opts.FS.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return bad(errors.New("this member's shard is not there"))
	}
	if err != nil {
		return err
	}
	shards := make([]io.ReaderAt, c.Geometry.Shards())
	shards[s.index] = &paced{ctx: ctx, r: f, pace: pace, read: read}
	o, err := snapshot.OpenObject(*c, shards, nil)
	if err == nil {
		err = o.Check(s.index)
	}
	if err = errors.Join(err, f.Close()); err != nil && ctx.Err() == nil {
		return bad(err)
	}
	return err
}

// paced reads no faster than its limiter lets it.
type paced struct {
	ctx  context.Context
	r    io.ReaderAt
	pace *rate.Limiter
	read *uint64
}

// ReadAt implements io.ReaderAt.
func (p *paced) ReadAt(b []byte, off int64) (int, error) {
	if err := p.pace.WaitN(p.ctx, min(len(b), snapshot.CellBytes)); err != nil {
		return 0, err
	}
	n, err := p.r.ReadAt(b, off)
	*p.read += uint64(n)
	return n, err
}

// mend makes a shard anew.
func (g *Group) mend(ctx context.Context, s ownShard) error {
	e := g.engine
	if err := makeDir(e.opts.FS, g.shardDir()); err != nil {
		return err
	}
	path := g.shardPath(s.m.Number, s.state)
	f, err := e.opts.FS.Create(path+mendTemp, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	w := &shardFile{bufio.NewWriterSize(f, 1<<20), f}
	if err := errors.Join(g.remake(ctx, s, w), w.finish()); err != nil {
		return errors.Join(err, e.opts.FS.Remove(path+mendTemp))
	}
	return errors.Join(e.opts.FS.Rename(path+mendTemp, path), syncDir(e.opts.FS, g.shardDir()))
}

// remake writes a shard from what this node has, or from those of other members.
func (g *Group) remake(ctx context.Context, s ownShard, w io.Writer) error {
	here := s.m.First > g.replica.archivedTo.Load()
	if s.state {
		here = s.m.Last >= g.replica.viewsFrom.Load()
	}
	if here {
		object := make(sliceWriter, 0, s.coding().Size)
		var err error
		if s.state {
			err = g.writeState(ctx, &object, s.m.Last)
		} else {
			_, err = g.writeSegment(ctx, &object, s.m.Range, true)
		}
		if err != nil {
			return err
		}
		return snapshot.WriteShard(w, s.coding(), object, s.index)
	}
	shards, own, err := g.openShards(s.m, s.state)
	if err != nil {
		return err
	}
	if own != nil { // what is rotten is of no use here
		if err := own.Close(); err != nil {
			return err
		}
	}
	shards[s.index] = nil
	o, err := snapshot.OpenObject(*s.coding(), shards, g.badShard(s.m))
	if err != nil {
		return err
	}
	return o.Rebuild(s.index, w)
}
