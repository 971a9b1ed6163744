package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/replay"
)

// errDisagree says that the nodes do not hold what they all must hold.
var errDisagree = errors.New("the nodes do not agree")

// verify looks at every node by itself, as somebody would who trusts none of
// them: is its log sound, is what comes out of it what was fed, and does its
// history, replayed from a commit that nobody could foresee, have the digest that
// the others' have. What is wrong with a node goes into the report; the error is
// about what kept verify from looking.
func (d *demo) verify(ctx context.Context) error {
	// All are looked at up to one commit: nodes that tell each other which segments
	// they hold go on committing.
	first, err := d.cluster.Group(0)
	if err != nil {
		return err
	}
	last, err := first.Commit(first.Head().Number)
	if err != nil {
		return err
	}
	for i := range d.opts.nodes {
		n := &d.report.Nodes[i]
		g, err := d.cluster.Group(i)
		if err != nil {
			return err
		}
		if err := g.WaitFor(ctx, last.Pointer()); ctx.Err() != nil {
			return err
		}
		if g, err = d.cluster.Group(i); err != nil { // as it is now
			return err
		}
		d.groups = append(d.groups, g)
		head := g.Head()
		n.Head.Commit, n.Head.Digest = head.Number, head.Digest
		if c, err := g.Commit(last.Header.Number); err == nil {
			n.Head.Commit, n.Head.Digest = c.Header.Number, c.Digest
		}
	}
	if err := d.audit(ctx); err != nil {
		return err
	}
	if err := d.readBack(ctx); err != nil {
		return err
	}
	return d.replay(ctx)
}

// audit checks every commit of every node.
func (d *demo) audit(ctx context.Context) error {
	began := time.Now()
	for i := range d.opts.nodes {
		n := &d.report.Nodes[i]
		report, err := replay.Audit(ctx, d.groups[i], replay.AuditOptions{To: n.Head.Commit, Progress: func(done, total uint64) {
			d.screen.live(float64(done)/float64(total), "auditing "+n.Name)
		}})
		if ctx.Err() != nil {
			return ctx.Err()
		}
		n.Audit = said(err)
		n.corrupt = err
		d.report.Commits, d.report.Bytes = report.Commits, report.Bytes
	}
	d.tell("audit", func(n *nodeReport) string { return n.Audit },
		"%s in each: chain, bodies, seqs, clock, head (%s)", plural(d.report.Commits, "commit"), seconds(time.Since(began)))
	return nil
}

// readBack reads every tick from every node and holds it against what was fed.
func (d *demo) readBack(ctx context.Context) error {
	began := time.Now()
	for i := range d.opts.nodes {
		n := &d.report.Nodes[i]
		n.ReadBack = okay
		for k := range d.report.Ticks.Pairs {
			p := &d.report.Ticks.Pairs[k]
			sum, count, err := d.readPair(ctx, n.Name, d.groups[i], p)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			n.Ticks += count
			p.Nodes = append(p.Nodes, count)
			switch {
			case n.ReadBack != okay:
			case err != nil:
				n.ReadBack = said(err)
			case count != p.Ticks:
				n.ReadBack = fmt.Sprintf("%d ticks of %s instead of %d", count, p.Pair, p.Ticks)
			case !bytes.Equal(sum, p.sum):
				n.ReadBack = "other ticks of " + p.Pair + " than were fed"
			}
		}
	}
	d.tell("read", func(n *nodeReport) string { return n.ReadBack },
		"%s in each: just what was fed, in order (%s)", plural(d.report.Ticks.Fed, "tick"), seconds(time.Since(began)))
	return nil
}

// readPair reads a pair's stream as any program would, and returns the SHA-256 of
// its ticks as lines of CSV.
func (d *demo) readPair(ctx context.Context, node string, g demoGroup, p *pairReport) (sum []byte, count uint64, err error) {
	reader, err := d.pairStream(p.Pair).Reader(g)
	if err != nil {
		return nil, 0, err
	}
	h := sha256.New()
	var line []byte
	for r, err := range reader.All(ctx, log.Earliest()) {
		if err != nil {
			return nil, count, err
		}
		line = r.Value.AppendTo(line[:0])
		h.Write(line)
		if count++; count%8192 == 0 {
			d.screen.live(float64(count)/float64(p.Ticks), fmt.Sprintf("reading %s from %s", p.Pair, node))
		}
	}
	return h.Sum(nil), count, nil
}

// replay replays every node from one commit in the middle of the log to its end.
func (d *demo) replay(ctx context.Context) error {
	r := &d.report.Replay
	r.Seed, r.To = d.opts.seed, d.report.Nodes[0].Head.Commit
	r.From = middle(r.Seed, r.To)
	began := time.Now()
	for i := range d.opts.nodes {
		n := &d.report.Nodes[i]
		d.screen.note("replaying " + n.Name)
		digest, err := replay.Digest(ctx, d.groups[i], r.From, n.Head.Commit)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if n.Replay = digest.String(); err != nil {
			n.Replay = said(err)
		}
		if i == 0 {
			r.Digest = n.Replay
		}
	}
	d.tell("replay", func(n *nodeReport) string {
		if n.Replay == r.Digest {
			return okay
		}
		return n.Replay
	}, "from commit %s (--seed %d) to the head: %s (%s)", grouped(r.From), r.Seed, r.Digest[:min(16, len(r.Digest))], seconds(time.Since(began)))
	return nil
}

// middle draws a commit from the middle half of a log.
func middle(seed, head uint64) uint64 {
	return max(1, head/4+rand.New(rand.NewPCG(seed, 0)).Uint64N(head/2+1))
}

// tell says how many nodes passed a check, and what it was, and of each that did
// not what it had to say.
func (d *demo) tell(verb string, result func(*nodeReport) string, format string, args ...any) {
	passed := 0
	for i := range d.report.Nodes {
		n := &d.report.Nodes[i]
		if text := result(n); text != okay {
			d.screen.step(verb, "%s %s: %s", n.Name, d.screen.style.red("FAILED"), text)
			continue
		}
		passed++
	}
	if passed > 0 {
		d.screen.step(verb, "%d of %s, %s", passed, plural(d.opts.nodes, "node"), fmt.Sprintf(format, args...))
	}
}

// okay is what a check says that found nothing.
const okay = "ok"

// said returns okay or the error as text.
func said(err error) string {
	if err == nil {
		return okay
	}
	return strings.ReplaceAll(err.Error(), "\n", "; ")
}
