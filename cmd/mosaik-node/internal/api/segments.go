package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/snapshot"
)

// Segments is what a node knows of a group's sealed segments.
type Segments struct {
	Group    identity.ID `json:"group"`
	Name     string      `json:"name"`
	Segments []Segment   `json:"segments"` // in order
	Archived uint64      `json:"archived"` // of them, the first so many are not in this node's store any more
	Pins     []uint64    `json:"pins"`     // commits that stay in its store
	Head     uint64      `json:"head"`     // last commit, sealed or not
	Missing  uint64      `json:"missing"`  // shards that this node should have and has not
}

// Segment is one sealed segment.
type Segment struct {
	Segment  uint64            `json:"segment"`
	First    uint64            `json:"first"`
	Last     uint64            `json:"last"`
	Time     time.Time         `json:"time"` // of the last commit
	Records  uint64            `json:"records"`
	Bytes    uint64            `json:"bytes"`
	Hash     log.Digest        `json:"hash"`
	K        int               `json:"k"`
	M        int               `json:"m"`
	State    uint64            `json:"state,omitempty"` // bytes of the state captured with it
	Held     int               `json:"held"`            // members that have their shard
	Archived bool              `json:"archived"`        // its commits are not in this node's store any more
	Digest   log.Digest        `json:"digest"`          // of the last commit
	Prev     log.Digest        `json:"prev"`            // of the commit before the first
	Shards   []log.Digest      `json:"shards"`          // roots
	HeldBy   []identity.PeerID `json:"held_by"`
	// Of the captured state.
	StateHash   *log.Digest  `json:"state_hash,omitempty"`
	StateShards []log.Digest `json:"state_shards,omitempty"`
	StateHere   bool         `json:"state_here,omitempty"` // this node has its shard of it
}

// ScrubReport says what a scrub has done (engine.ScrubReport).
type ScrubReport struct {
	Shards uint64 `json:"shards"` // that the node has to have
	Bytes  uint64 `json:"bytes"`  // read
	Mended uint64 `json:"mended"` // that were missing or rotten and are made anew
}

// Segments describes the sealed segments of a group.
func (l *Local) Segments(_ context.Context, group string) (Segments, error) {
	g, err := l.group(group)
	if err != nil {
		return Segments{}, err
	}
	known, status := g.Segments(), g.Status()
	s := Segments{Group: g.ID(), Name: g.Name(), Segments: []Segment{}, Archived: known.Archived, Pins: append([]uint64{}, known.Pins...), Head: status.Head.Number, Missing: known.Missing}
	for i, m := range known.Manifests {
		one := Segment{
			Segment: m.Number, First: m.First, Last: m.Last, Time: time.Unix(0, m.Time).UTC(), Records: m.Records, Bytes: m.Commits.Size,
			Hash: m.Commits.Hash, K: m.Commits.K, M: m.Commits.M, State: m.State.Size, Archived: m.Number <= known.Archived,
			Digest: m.Digest, Prev: m.Prev, Shards: m.Commits.Shards, HeldBy: []identity.PeerID{}, StateHere: known.StatesHere[i],
		}
		if m.State.Size > 0 {
			one.StateHash, one.StateShards = &m.State.Hash, m.State.Shards
		}
		for n, held := range known.Held {
			if held >= m.Number {
				one.HeldBy = append(one.HeldBy, status.Members[n])
			}
		}
		one.Held = len(one.HeldBy)
		s.Segments = append(s.Segments, one)
	}
	return s, nil
}

// Pin keeps a commit and all after it in the node's store, or with off lets it go
// again, and returns the commits that are pinned.
func (l *Local) Pin(_ context.Context, group string, commit uint64, off bool) ([]uint64, error) {
	g, err := l.group(group)
	if err != nil {
		return nil, err
	}
	change := g.Pin
	if off {
		change = g.Unpin
	}
	if err := change(commit); err != nil {
		return nil, err
	}
	return append([]uint64{}, g.Segments().Pins...), nil
}

// Scrub reads the node's shards of a group and makes anew what is missing or rotten.
func (l *Local) Scrub(ctx context.Context, group string) (ScrubReport, error) {
	g, err := l.group(group)
	if err != nil {
		return ScrubReport{}, err
	}
	r, err := g.Scrub(ctx)
	return ScrubReport(r), err
}

// WriteSegment writes the canonical bytes of a segment (docs/format/segment.md), which
// have been checked against its manifest when it returns without an error.
func (l *Local) WriteSegment(ctx context.Context, group string, segment uint64, w io.Writer) error {
	g, err := l.group(group)
	if err != nil {
		return err
	}
	return g.WriteSegment(ctx, segment, w)
}

// Export writes a group's whole history (snapshot.ReadExport) and returns its end.
func (l *Local) Export(ctx context.Context, group string, w io.Writer, progress func(done, total uint64)) (log.Head, error) {
	g, err := l.group(group)
	if err != nil {
		return log.Head{}, err
	}
	return g.Export(ctx, w, progress)
}

func (s *Server) serveSegments(w http.ResponseWriter, r *http.Request) error {
	if err := newParams(r).done(); err != nil {
		return err
	}
	list, err := s.local.Segments(r.Context(), r.PathValue("group"))
	if err != nil {
		return err
	}
	return sendJSON(w, list)
}

type pinList struct {
	Pins []uint64 `json:"pins"`
}

func (s *Server) servePin(w http.ResponseWriter, r *http.Request) error {
	p := newParams(r)
	commit, off := p.number("commit"), p.flag("off")
	if err := p.done(); err != nil {
		return err
	}
	pins, err := s.local.Pin(r.Context(), r.PathValue("group"), commit, off)
	if err != nil {
		return err
	}
	return sendJSON(w, pinList{pins})
}

func (s *Server) serveScrub(w http.ResponseWriter, r *http.Request) error {
	ctx, _, leave, err := s.enter(r, false)
	if err != nil {
		return err
	}
	defer leave()
	if err := newParams(r).done(); err != nil {
		return err
	}
	report, err := s.local.Scrub(ctx, r.PathValue("group"))
	if err != nil {
		return s.why(err)
	}
	return sendJSON(w, report)
}

func (s *Server) serveSegmentBytes(w http.ResponseWriter, r *http.Request) error {
	n, err := strconv.ParseUint(r.PathValue("number"), 10, 64)
	if err != nil {
		return fmt.Errorf("%w: %q is not the number of a segment", ErrRequest, r.PathValue("number"))
	}
	return s.sendBytes(w, r, func(ctx context.Context, w io.Writer) error {
		return s.local.WriteSegment(ctx, r.PathValue("group"), n, w)
	})
}

func (s *Server) serveExport(w http.ResponseWriter, r *http.Request) error {
	return s.sendBytes(w, r, func(ctx context.Context, w io.Writer) error {
		_, err := s.local.Export(ctx, r.PathValue("group"), w, nil)
		return err
	})
}

// sendBytes sends what write writes, framed, so that the client sees whether it is
// whole.
func (s *Server) sendBytes(w http.ResponseWriter, r *http.Request, write func(context.Context, io.Writer) error) error {
	ctx, _, leave, err := s.enter(r, false)
	if err != nil {
		return err
	}
	defer leave()
	g, err := s.requestGroup(w, r, newParams(r))
	if err != nil {
		return err
	}
	out := s.newResponse(w, frameType, appendFailureFrame)
	if err := out.write(func(dst []byte) []byte { return appendPreamble(dst, g.ID()) }); err != nil {
		return nil // the client is gone
	}
	if err := write(ctx, frameWriter{out}); err != nil {
		if !errors.Is(err, errClientGone) {
			out.fail(s.why(err))
		}
		return nil
	}
	out.finish(func(dst []byte) []byte { return appendFrame(dst, frameEnd, nil) })
	return nil
}

// maxBytesFrame bounds a frame of bytes.
const maxBytesFrame = 256 << 10

var errClientGone = errors.New("the client is gone")

// frameWriter sends what is written to it in frames.
type frameWriter struct{ out *response }

// Write implements io.Writer.
func (f frameWriter) Write(b []byte) (n int, err error) {
	for len(b) > 0 {
		part := b[:min(len(b), maxBytesFrame)]
		if err := f.out.write(func(dst []byte) []byte { return appendFrame(dst, frameBytes, part) }); err != nil {
			return n, errClientGone
		}
		b = b[len(part):]
		n += len(part)
	}
	return n, nil
}

// Segments is Local.Segments of the node.
func (c *Client) Segments(ctx context.Context, group string) (Segments, error) {
	var s Segments
	err := c.get(ctx, "/groups/"+segment(group)+"/segments", nil, &s)
	return s, err
}

// Pin is Local.Pin of the node.
func (c *Client) Pin(ctx context.Context, group string, commit uint64, off bool) ([]uint64, error) {
	var list pinList
	q := url.Values{"commit": {strconv.FormatUint(commit, 10)}}
	if off {
		q.Set("off", "true")
	}
	err := c.post(ctx, "/groups/"+segment(group)+"/pins", q, "", nil, &list)
	return list.Pins, err
}

// Scrub is Local.Scrub of the node.
func (c *Client) Scrub(ctx context.Context, group string) (ScrubReport, error) {
	var r ScrubReport
	err := c.post(ctx, "/groups/"+segment(group)+"/scrub", nil, "", nil, &r)
	return r, err
}

// WriteSegment is Local.WriteSegment of the node. The node has compared the bytes with
// the manifest; who does not believe it compares them with Segments.
func (c *Client) WriteSegment(ctx context.Context, group string, n uint64, w io.Writer) error {
	return c.receive(ctx, fmt.Sprintf("/groups/%s/segments/%d", segment(group), n), w)
}

// Export is Local.Export of the node. What comes is checked while it is written
// (snapshot.ReadExport): without an error it is whole, and what it says it is.
func (c *Client) Export(ctx context.Context, group string, w io.Writer, progress func(done, total uint64)) (log.Head, error) {
	list, err := c.Segments(ctx, group)
	if err != nil {
		return log.Head{}, err
	}
	in, out := io.Pipe()
	go c.runReceive(ctx, "/groups/"+segment(group)+"/export", out)
	report, err := snapshot.ReadExport(io.TeeReader(in, w), nil, nil, func(commit *log.Commit) error {
		if progress != nil && commit.Header.Number%4096 == 0 {
			progress(commit.Header.Number, max(list.Head, commit.Header.Number))
		}
		return nil
	})
	in.CloseWithError(err) // ends runReceive
	return report.Head, err
}

// runReceive receives bytes into a pipe.
func (c *Client) runReceive(ctx context.Context, path string, out *io.PipeWriter) {
	out.CloseWithError(c.receive(ctx, path, out))
}

// receive writes the bytes of a framed answer.
func (c *Client) receive(ctx context.Context, path string, w io.Writer) error {
	resp, err := c.do(ctx, http.MethodGet, path, nil, "", nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	frames, err := newFrameReader(resp.Body)
	for err == nil {
		var kind byte
		var content []byte
		if kind, content, err = frames.next(); err != nil {
			break
		}
		if kind != frameBytes {
			return fmt.Errorf("%w: a frame of kind %d among bytes", ErrAnswer, kind)
		}
		if _, err := w.Write(content); err != nil {
			return err
		}
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}
