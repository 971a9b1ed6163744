package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

// Store returns the collections of the node, or of its group with the name if one
// is given. The typed collections of package log work on it as on an engine.
func (c *Client) Store(group string) (log.Store, error) {
	if group != "" {
		return &groupStore{client: c, group: group}, nil
	}
	return &nodeStore{client: c}, nil
}

// nodeStore is all groups of a node: it sends each key to the one it belongs to.
type nodeStore struct{ client *Client }

var _ log.Store = (*nodeStore)(nil)

func (s *nodeStore) Home(key identity.ID) log.GroupStore {
	return &groupStore{client: s.client, home: key}
}

func (s *nodeStore) Scan(ctx context.Context, q log.Query) iter.Seq2[log.Run, error] {
	return s.Home(q.Key).Scan(ctx, q)
}

func (s *nodeStore) Append(ctx context.Context, key identity.ID, payloads ...[]byte) (log.Pointer, error) {
	return s.Home(key).Append(ctx, key, payloads...)
}

func (s *nodeStore) AppendAsync(ctx context.Context, key identity.ID, payloads ...[]byte) *log.Future {
	return s.Home(key).AppendAsync(ctx, key, payloads...)
}

func (s *nodeStore) View(ctx context.Context, key identity.ID, at log.Consistency) (log.View, error) {
	return s.Home(key).View(ctx, key, at)
}

func (s *nodeStore) Changes(ctx context.Context, key identity.ID, after uint64, follow bool) iter.Seq2[log.Changes, error] {
	return s.Home(key).Changes(ctx, key, after, follow)
}

func (s *nodeStore) WaitFor(ctx context.Context, p log.Pointer) error {
	return (&groupStore{client: s.client}).WaitFor(ctx, p)
}

// groupStore is one group of a node: the one with the name, or the one that
// holds the key home.
type groupStore struct {
	client *Client
	group  string
	home   identity.ID
}

var _ log.GroupStore = (*groupStore)(nil)

// query names the group.
func (g *groupStore) query() url.Values {
	q := groupQuery(g.group)
	if g.group == "" {
		q.Set("home", g.home.String())
	}
	return q
}

func (g *groupStore) path(key identity.ID, what string) string {
	return "/views/" + key.String() + "/" + what
}

// Home implements log.Store.
func (g *groupStore) Home(identity.ID) log.GroupStore { return g }

// Scan implements log.Scanner.
func (g *groupStore) Scan(ctx context.Context, q log.Query) iter.Seq2[log.Run, error] {
	return g.client.Scan(ctx, Ref{Name: q.Key.String(), Group: g.group}, q)
}

// Append implements log.Writer.
func (g *groupStore) Append(ctx context.Context, key identity.ID, payloads ...[]byte) (log.Pointer, error) {
	return g.AppendAsync(ctx, key, payloads...).Result()
}

// AppendAsync implements log.Writer. It waits for the answer, which is all there
// is to do for one request.
func (g *groupStore) AppendAsync(ctx context.Context, key identity.ID, payloads ...[]byte) *log.Future {
	f := log.NewFuture()
	err := log.CheckAppend(key, payloads)
	var applied Applied
	if err == nil {
		var body []byte
		for _, p := range payloads {
			body = append(binary.AppendUvarint(body, uint64(len(p))), p...)
		}
		err = g.client.post(ctx, g.path(key, "commands"), g.query(), "application/octet-stream", body, &applied)
	}
	f.CompleteWith(applied.Pointer, applied.Results, err)
	return f
}

// post sends a body and reads the JSON document that answers it.
func (c *Client) post(ctx context.Context, path string, query url.Values, contentType string, body []byte, v any) error {
	resp, err := c.do(ctx, http.MethodPost, path, query, contentType, bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxDocument))
	if err != nil {
		return broken(ctx, err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrAnswer, path, err)
	}
	return nil
}

// Submit implements log.GroupStore.
func (g *groupStore) Submit(ctx context.Context, t *log.Transaction) (log.Outcome, error) {
	if err := t.Validate(); err != nil {
		return log.Outcome{}, err
	}
	var in Transaction
	for _, c := range t.Conditions {
		in.Conditions = append(in.Conditions, TransactionCondition{Key: c.Key, Kind: uint8(c.Kind), Row: hex.EncodeToString(c.Row), Value: c.Value, Commit: c.Commit})
	}
	for _, c := range t.Commands {
		in.Commands = append(in.Commands, TransactionCommand{Key: c.Key, Payload: c.Payload})
	}
	body, err := json.Marshal(in)
	if err != nil {
		return log.Outcome{}, err
	}
	var o TransactionOutcome
	if err := g.client.post(ctx, "/transactions", g.query(), "application/json", body, &o); err != nil {
		return log.Outcome{}, err
	}
	return log.Outcome{Pointer: o.Pointer, Held: o.Held, Failed: o.Failed, Results: o.Results}, nil
}

// View implements log.Store. The node is asked once for the commit, and then for
// rows as of it.
func (g *groupStore) View(ctx context.Context, key identity.ID, at log.Consistency) (log.View, error) {
	q := g.query()
	if n, exact := at.Commit(); exact {
		q.Set("at", strconv.FormatUint(n, 10))
	} else if at.IsStale() {
		q.Set("stale", "true")
	}
	v := &remoteView{ctx: ctx, group: g, key: key}
	for _, err := range v.rows(q, log.Range{From: []byte{0}, To: []byte{0}}, 1) {
		if err != nil {
			return nil, err
		}
	}
	return v, nil
}

// remoteView is a view as of one commit, read over the API row by row.
type remoteView struct {
	ctx    context.Context
	group  *groupStore
	key    identity.ID
	commit uint64
}

// Commit implements log.View.
func (v *remoteView) Commit() uint64 { return v.commit }

// Get implements log.View.
func (v *remoteView) Get(key []byte) (row log.Row, ok bool, err error) {
	next := append(append([]byte{}, key...), 0) // the next key there can be
	for row, err := range v.Scan(log.Range{From: key, To: next}) {
		return row, err == nil, err
	}
	return log.Row{}, false, nil
}

// Scan implements log.View.
func (v *remoteView) Scan(r log.Range) iter.Seq2[log.Row, error] {
	if v.commit == 0 {
		return func(func(log.Row, error) bool) {} // before the first commit there is nothing
	}
	q := v.group.query()
	q.Set("at", strconv.FormatUint(v.commit, 10))
	return v.rows(q, r, 0)
}

// rows asks for a range of rows, and learns the commit the answer is as of.
func (v *remoteView) rows(q url.Values, r log.Range, limit int) iter.Seq2[log.Row, error] {
	return func(yield func(log.Row, error) bool) {
		q.Set("from", hex.EncodeToString(r.From))
		q.Set("to", hex.EncodeToString(r.To))
		if r.Reverse {
			q.Set("reverse", "true")
		}
		if limit > 0 {
			q.Set("limit", strconv.Itoa(limit))
		}
		ctx, cancel := context.WithCancel(v.ctx)
		defer cancel()
		err := readLines(ctx, v.group.client, v.group.path(v.key, "rows"), q, func(line Row) (more bool, err error) {
			switch {
			case line.Error != "":
				return false, failure{Message: line.Error, Code: line.Code, At: line.At}.remote()
			case line.End:
				return false, nil
			case line.Version == 0:
				v.commit = line.Commit
				return true, nil
			}
			key, err := hex.DecodeString(line.Key)
			if err != nil {
				return false, fmt.Errorf("%w: a row whose key is not hex", ErrAnswer)
			}
			return yield(log.Row{Key: key, Value: line.Value, Commit: line.Version}, nil), nil
		})
		if err != nil {
			yield(log.Row{}, err)
		}
	}
}

// readLines reads an answer of JSON lines until take wants no more.
func readLines[T any](ctx context.Context, c *Client, path string, q url.Values, take func(T) (more bool, err error)) error {
	resp, err := c.do(ctx, http.MethodGet, path, q, "", nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	lines := bufio.NewReaderSize(resp.Body, 64<<10)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return broken(ctx, err)
		}
		if len(bytes.TrimSpace(line)) == 0 {
			continue // a sign of life
		}
		var v T
		if err := json.Unmarshal(line, &v); err != nil {
			return fmt.Errorf("%w: %s: %w", ErrAnswer, path, err)
		}
		if more, err := take(v); err != nil || !more {
			return err
		}
	}
}

// Changes implements log.Store.
func (g *groupStore) Changes(ctx context.Context, key identity.ID, after uint64, follow bool) iter.Seq2[log.Changes, error] {
	return func(yield func(log.Changes, error) bool) {
		q := g.query()
		q.Set("after", strconv.FormatUint(after, 10))
		if follow {
			q.Set("follow", "true")
		}
		inner, cancel := context.WithCancel(ctx)
		defer cancel()
		err := readLines(inner, g.client, g.path(key, "changes"), q, func(line Change) (more bool, err error) {
			switch {
			case line.Error != "":
				return false, failure{Message: line.Error, Code: line.Code, At: line.At}.remote()
			case line.End:
				return false, nil
			case line.Pointer == nil:
				return false, fmt.Errorf("%w: a change without a pointer", ErrAnswer)
			}
			changes, err := line.changes()
			return err == nil && yield(changes, nil), err
		})
		if err != nil {
			yield(log.Changes{}, err)
		}
	}
}

func (c *Change) changes() (log.Changes, error) {
	out := log.Changes{Pointer: *c.Pointer, Time: c.TimeNS, Cleared: c.Cleared}
	for _, r := range c.Rows {
		key, err := hex.DecodeString(r.Key)
		if err != nil || len(key) == 0 {
			return out, fmt.Errorf("%w: a change whose key is not hex", ErrAnswer)
		}
		change := log.Change{Key: key, Before: r.Before, Existed: r.Old != nil, Exists: r.New != nil}
		if r.Old != nil {
			change.Old = *r.Old
		}
		if r.New != nil {
			change.New = *r.New
		}
		out.Rows = append(out.Rows, change)
	}
	return out, nil
}

// waitInterval is the pause between two looks at a node whether it has a commit.
const waitInterval = 50 * time.Millisecond

// WaitFor implements log.Store.
func (g *groupStore) WaitFor(ctx context.Context, p log.Pointer) error {
	source, err := g.client.Source(ctx, p.Group.String())
	if err != nil {
		return err
	}
	for {
		for c, err := range source.Commits(ctx, p.Commit, p.Commit) {
			if err == nil {
				return p.Check(&c)
			}
			if !errors.Is(err, log.ErrNotFound) {
				return err
			}
		}
		t := time.NewTimer(waitInterval)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		}
	}
}

// Refold drops the views of a group on the node and builds them anew.
func (c *Client) Refold(ctx context.Context, group string) (RefoldReport, error) {
	var report RefoldReport
	err := c.post(ctx, "/groups/"+segment(group)+"/refold", nil, "", nil, &report)
	return report, err
}

// Transfer makes another member lead the group.
func (c *Client) Transfer(ctx context.Context, group string, to identity.PeerID) error {
	var g Group
	return c.post(ctx, "/groups/"+segment(group)+"/transfer", url.Values{"to": {to.String()}}, "", nil, &g)
}
