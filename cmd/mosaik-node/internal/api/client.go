package api

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/replay"
)

// Client reads and writes the logs of a node over its HTTP API. Its methods give
// what those of Local do, and may be called from any goroutine.
//
// An error is what the node met, so that errors.Is and errors.As find it,
// ErrUnreachable, or ErrAnswer.
type Client struct {
	base string // without a slash at the end
	http *http.Client
}

// NewClient returns a client of the node at the address, such as
// http://127.0.0.1:7070. It does not connect yet.
func NewClient(address string) (*Client, error) {
	u, err := url.Parse(address)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("%w: %q is not the address of a node, such as http://127.0.0.1:7070", ErrRequest, address)
	}
	dialer := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}
	return &Client{
		base: strings.TrimRight(u.String(), "/"),
		http: &http.Client{Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, DialContext: dialer.DialContext, ForceAttemptHTTP2: true,
			TLSHandshakeTimeout: 10 * time.Second, ResponseHeaderTimeout: 5 * time.Minute, IdleConnTimeout: 90 * time.Second,
			DisableCompression: true, ReadBufferSize: 64 << 10, WriteBufferSize: 64 << 10,
		}},
	}, nil
}

// Close gives up idle connections.
func (c *Client) Close() error {
	c.http.CloseIdleConnections()
	return nil
}

// maxDocument bounds what is read of an answer that is one JSON document.
const maxDocument = 256 << 20

// do sends a request and returns its answer, if that is a good one.
func (c *Client) do(ctx context.Context, method, path string, query url.Values, contentType string, body io.Reader) (*http.Response, error) {
	address := c.base + "/api/v1" + path
	if len(query) > 0 {
		address += "?" + query.Encode()
	}
	r, err := http.NewRequestWithContext(ctx, method, address, body)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	resp, err := c.http.Do(r)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10)) // what there is of it
		_ = resp.Body.Close()
		return nil, decodeFailure(text, resp.StatusCode)
	}
	return resp, nil
}

// get reads a JSON document into v.
func (c *Client) get(ctx context.Context, path string, query url.Values, v any) error {
	b, err := c.bytes(ctx, path, query, maxDocument)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrAnswer, path, err)
	}
	return nil
}

// bytes reads an answer of at most limit bytes.
func (c *Client) bytes(ctx context.Context, path string, query url.Values, limit int64) ([]byte, error) {
	resp, err := c.do(ctx, http.MethodGet, path, query, "", nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return nil, broken(ctx, err)
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%w: %s: more than %d bytes", ErrAnswer, path, limit)
	}
	return b, nil
}

// broken says of an error in the middle of an answer what it means.
func broken(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("%w: the answer was cut off: %w", ErrUnreachable, err)
}

// groupQuery returns the query that names the group, if there is one to name.
func groupQuery(group string) url.Values {
	q := url.Values{}
	if group != "" {
		q.Set("group", group)
	}
	return q
}

// segment escapes a name for a path, of which it becomes one segment. Dots alone
// would be taken for a way up.
func segment(name string) string {
	if strings.Trim(name, ".") == "" {
		return strings.ReplaceAll(name, ".", "%2E")
	}
	return url.PathEscape(name)
}

// Streams lists the logs.
func (c *Client) Streams(ctx context.Context) ([]Stream, error) {
	var list streamList
	err := c.get(ctx, "/streams", nil, &list)
	return list.Streams, err
}

// Stream describes one log.
func (c *Client) Stream(ctx context.Context, r Ref) (Stream, error) {
	var s Stream
	err := c.get(ctx, "/streams/"+segment(r.Name), groupQuery(r.Group), &s)
	return s, err
}

// Groups lists the groups.
func (c *Client) Groups(ctx context.Context) ([]Group, error) {
	var list groupList
	err := c.get(ctx, "/groups", nil, &list)
	return list.Groups, err
}

// Scan reads runs of the log as log.Scanner does. Query.Key is r's. The filter's
// Match, which cannot be sent, is left to the caller as always.
func (c *Client) Scan(ctx context.Context, r Ref, q log.Query) iter.Seq2[log.Run, error] {
	return func(yield func(log.Run, error) bool) {
		q.Key = r.Key()
		if err := q.Validate(); err != nil {
			yield(log.Run{}, err)
			return
		}
		// A broken-off loop gives the connection up.
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		resp, err := c.do(ctx, http.MethodGet, "/streams/"+q.Key.String()+"/records", scanQuery(r, &q), "", nil)
		if err != nil {
			yield(log.Run{}, err)
			return
		}
		defer resp.Body.Close()
		frames, err := newFrameReader(resp.Body)
		last := uint64(0) // seq of the last record
		for err == nil {
			var content []byte
			var kind byte
			if kind, content, err = frames.next(); err != nil {
				break
			}
			var run log.Run
			if run, err = frames.decodeRun(content); err != nil {
				break
			}
			if kind != frameRun || run.Key != q.Key || run.FirstSeq <= last {
				err = fmt.Errorf("%w: a run that was not asked for", ErrAnswer)
				break
			}
			last = run.LastSeq()
			if !yield(run, nil) {
				return
			}
		}
		if !errors.Is(err, io.EOF) {
			yield(log.Run{}, cmp.Or(ctx.Err(), err))
		}
	}
}

// scanQuery writes a query as parameters.
func scanQuery(r Ref, q *log.Query) url.Values {
	v := groupQuery(r.Group)
	v.Set("format", formatRaw)
	v.Set("from", q.From.String())
	if q.Until != 0 {
		v.Set("through", strconv.FormatUint(q.Until, 10))
	}
	if q.Follow {
		v.Set("follow", "true")
	}
	if !q.Filter.Since.IsZero() {
		v.Set("since", q.Filter.Since.UTC().Format(time.RFC3339Nano))
	}
	if !q.Filter.Until.IsZero() {
		v.Set("until", q.Filter.Until.UTC().Format(time.RFC3339Nano))
	}
	if q.Filter.Every > 1 {
		v.Set("every", strconv.FormatUint(q.Filter.Every, 10))
	}
	return v
}

// Append appends each payload as one record, and yields an outcome for each, as
// Local.Append does. When the connection breaks, what was sent and not answered
// may or may not have been written.
func (c *Client) Append(ctx context.Context, r Ref, codec string, payloads Payloads) iter.Seq[Outcome] {
	return func(yield func(Outcome) bool) {
		query := groupQuery(r.Group)
		if codec != "" {
			query.Set("codec", codec)
		}
		sending, stop := context.WithCancel(ctx)
		defer stop()
		body := newSendBuffer(payloads)
		ended := make(chan struct{})
		go body.runFill(sending, ended)
		defer func() {
			stop()
			body.Close()
			<-ended
		}()
		// The request goes on when ctx ends: no more is sent, but what was sent has an
		// outcome that is worth waiting for.
		resp, err := c.do(context.WithoutCancel(ctx), http.MethodPost, "/streams/"+segment(r.Name)+"/records", query, frameType, body)
		if err != nil {
			yield(Outcome{Err: cmp.Or(body.failure(), err)})
			return
		}
		defer resp.Body.Close()
		lines := bufio.NewScanner(resp.Body)
		lines.Buffer(nil, 1<<20)
		failed := false
		for lines.Scan() {
			if len(bytes.TrimSpace(lines.Bytes())) == 0 {
				continue
			}
			o := decodeAnswer(lines.Bytes())
			failed = failed || o.Err != nil
			if !yield(o) {
				return
			}
		}
		switch err := lines.Err(); {
		case failed:
		case body.failure() != nil:
			yield(Outcome{Err: body.failure()})
		case err != nil:
			yield(Outcome{Err: broken(ctx, err)})
		case ctx.Err() != nil:
			yield(Outcome{Err: ctx.Err()})
		}
	}
}

// decodeAnswer reads one line of an append's answer.
func decodeAnswer(line []byte) Outcome {
	var a Answer
	if err := json.Unmarshal(line, &a); err != nil {
		return Outcome{Err: fmt.Errorf("%w: %w", ErrAnswer, err)}
	}
	switch {
	case a.Error != "":
		return Outcome{Err: failure{Message: a.Error, Code: a.Code, At: a.At}.remote()}
	case a.Pointer == nil:
		return Outcome{Err: fmt.Errorf("%w: neither a pointer nor an error in %.100q", ErrAnswer, line)}
	}
	return Outcome{Pointer: *a.Pointer}
}

// sendBuffer is the body of an append's request. Records are encoded while the
// connection takes them: it is given what is there, so that one record does not
// wait for the next and many travel together.
type sendBuffer struct {
	payloads Payloads

	mu struct {
		sync.Mutex
		changed *sync.Cond
		buf     []byte // encoded, not yet taken
		err     error  // of the payloads
		ended   bool   // there will be no more
		closed  bool   // nobody takes any more
	}
}

// sendBytes is how much waits for a slow connection.
const sendBytes = 256 << 10

func newSendBuffer(payloads Payloads) *sendBuffer {
	b := &sendBuffer{payloads: payloads}
	b.mu.changed = sync.NewCond(&b.mu.Mutex)
	return b
}

// runFill encodes the records until there are no more, ctx ends or the body is
// closed.
func (b *sendBuffer) runFill(ctx context.Context, ended chan<- struct{}) {
	defer close(ended)
	for payload, err := range b.payloads(ctx) {
		b.mu.Lock()
		for len(b.mu.buf) >= sendBytes && !b.mu.closed {
			b.mu.changed.Wait()
		}
		closed := b.mu.closed
		switch {
		case closed:
		case err != nil:
			b.mu.err = err
		default:
			b.mu.buf = binary.AppendUvarint(b.mu.buf, uint64(len(payload)))
			b.mu.buf = append(b.mu.buf, payload...)
		}
		b.mu.changed.Broadcast()
		b.mu.Unlock()
		if closed || err != nil || ctx.Err() != nil {
			break
		}
	}
	b.mu.Lock()
	b.mu.ended = true
	b.mu.changed.Broadcast()
	b.mu.Unlock()
}

// Read gives what is there, and waits only while there is nothing. After an
// error of the payloads the body ends: what came before it is whole.
func (b *sendBuffer) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.mu.buf) == 0 {
		if b.mu.ended || b.mu.closed {
			return 0, io.EOF
		}
		b.mu.changed.Wait()
	}
	n := copy(p, b.mu.buf)
	b.mu.buf = b.mu.buf[:copy(b.mu.buf, b.mu.buf[n:])]
	b.mu.changed.Broadcast()
	return n, nil
}

// Close makes runFill end at its next record.
func (b *sendBuffer) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.closed = true
	b.mu.changed.Broadcast()
	return nil
}

// failure returns the error of the payloads, if that is what ended them.
func (b *sendBuffer) failure() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mu.err
}

// Check checks what the node has on disk.
func (c *Client) Check(ctx context.Context, progress func(done, total uint64)) (CheckReport, error) {
	resp, err := c.do(ctx, http.MethodPost, "/check", nil, "", nil)
	if err != nil {
		return CheckReport{}, err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		var line Check
		switch err := json.Unmarshal(lines.Bytes(), &line); {
		case len(bytes.TrimSpace(lines.Bytes())) == 0:
		case err != nil:
			return CheckReport{}, fmt.Errorf("%w: %w", ErrAnswer, err)
		case line.Error != "":
			return CheckReport{}, failure{Message: line.Error, Code: line.Code, At: line.At}.remote()
		case line.Report != nil:
			return *line.Report, nil
		case progress != nil:
			progress(line.Done, line.Total)
		}
	}
	return CheckReport{}, broken(ctx, cmp.Or(lines.Err(), io.ErrUnexpectedEOF))
}

// Source returns the commits of a group, by its name or ID, with the head it has
// now.
func (c *Client) Source(ctx context.Context, group string) (replay.Source, error) {
	var g Group
	if err := c.get(ctx, "/groups/"+segment(group), nil, &g); err != nil {
		return nil, err
	}
	return &remoteGroup{c: c, id: g.ID, head: log.Head{Number: g.Head.Commit, Digest: g.Head.Digest, Time: g.Head.TimeNS}}, nil
}

// remoteGroup is a group of a node as a replay.Source. Its head is the one the
// node had when it was made.
type remoteGroup struct {
	c    *Client
	id   identity.ID
	head log.Head
}

// ID returns the group.
func (g *remoteGroup) ID() identity.ID { return g.id }

// Head returns the newest commit, as of when g was made.
func (g *remoteGroup) Head() log.Head { return g.head }

// commitTimeout bounds the fetch of a single commit, which has no context.
const commitTimeout = time.Minute

// Commit fetches one commit. The body is the caller's.
func (g *remoteGroup) Commit(n uint64) (log.Commit, error) {
	ctx, cancel := context.WithTimeout(context.Background(), commitTimeout)
	defer cancel()
	b, err := g.c.bytes(ctx, fmt.Sprintf("/groups/%s/commits/%d/raw", g.id, n), nil, maxFrame)
	if err != nil {
		return log.Commit{}, err
	}
	return log.DecodeCommit(b)
}

// Commits fetches a range of commits. A body is good until the next step.
func (g *remoteGroup) Commits(ctx context.Context, from, to uint64) iter.Seq2[log.Commit, error] {
	return func(yield func(log.Commit, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		query := url.Values{"from": {strconv.FormatUint(from, 10)}, "to": {strconv.FormatUint(cmp.Or(to, g.head.Number), 10)}}
		resp, err := g.c.do(ctx, http.MethodGet, "/groups/"+g.id.String()+"/commits", query, "", nil)
		if err != nil {
			yield(log.Commit{}, err)
			return
		}
		defer resp.Body.Close()
		frames, err := newFrameReader(resp.Body)
		for err == nil {
			var content []byte
			var kind byte
			if kind, content, err = frames.next(); err != nil {
				break
			}
			var commit log.Commit
			if commit, err = log.DecodeCommit(content); err != nil {
				break
			}
			if kind != frameCommit {
				err = fmt.Errorf("%w: a frame of kind %d among commits", ErrAnswer, kind)
				break
			}
			if !yield(commit, nil) {
				return
			}
		}
		if !errors.Is(err, io.EOF) {
			yield(log.Commit{}, cmp.Or(ctx.Err(), err))
		}
	}
}
