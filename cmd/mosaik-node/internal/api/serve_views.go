package api

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/mosaik-engine/mosaik/engine"
	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

// The routes of views serve rows and take commands as bytes: a client that has
// the typed collections of package log on top of them (Client.Store) does not
// need the node to know their codecs.

// maxCommandBytes bounds the body of a request with commands.
const maxCommandBytes = log.MaxPayload + log.MaxRecords*binary.MaxVarintLen32

// Row is one row of a view, or the first line of the answer, which has the commit
// only, or the last, which has the end only.
type Row struct {
	Commit  uint64 `json:"commit,omitempty"`  // that the answer reflects
	Key     string `json:"key,omitempty"`     // in hex
	Value   []byte `json:"value,omitempty"`   // in base64
	Version uint64 `json:"version,omitempty"` // commit that wrote the row
	End     bool   `json:"end,omitempty"`     // nothing follows

	Error string     `json:"error,omitempty"` // what went wrong; the last line
	Code  string     `json:"code,omitempty"`  // its code
	At    *ErrorSite `json:"at,omitempty"`    // where, for damage
}

// Change is what a commit did to the rows of a view, or a line with an error, or
// the last one.
type Change struct {
	End     bool         `json:"end,omitempty"`     // nothing follows
	Pointer *log.Pointer `json:"pointer,omitempty"` // at the commit
	TimeNS  int64        `json:"time_ns,omitempty"` // of the commit, Unix nanoseconds
	Cleared bool         `json:"cleared,omitempty"` // the view was emptied first
	Rows    []RowChange  `json:"rows,omitempty"`    // in the order of their keys

	Error string     `json:"error,omitempty"` // what went wrong; the last line
	Code  string     `json:"code,omitempty"`  // its code
	At    *ErrorSite `json:"at,omitempty"`    // where, for damage
}

// RowChange is what a commit did to one row. Absent values: there was, or is, no
// row.
type RowChange struct {
	Key    string  `json:"key"`           // in hex
	Old    *[]byte `json:"old,omitempty"` // in base64
	New    *[]byte `json:"new,omitempty"`
	Before uint64  `json:"before,omitempty"` // commit that wrote the old row
}

// Applied is what became of commands.
type Applied struct {
	Pointer log.Pointer `json:"pointer"`           // at the first
	Results [][]byte    `json:"results,omitempty"` // one for each, in base64
}

// Transaction is a log.Transaction as JSON. Keys are 64 hex digits, rows hex,
// values and payloads base64.
type Transaction struct {
	Conditions []TransactionCondition `json:"conditions,omitempty"` // as in log.Transaction
	Commands   []TransactionCommand   `json:"commands"`             // likewise
}

// TransactionCondition is a log.Condition.
type TransactionCondition struct {
	Key    identity.ID `json:"key"`              // of the log
	Kind   uint8       `json:"kind"`             // log.ConditionKind
	Row    string      `json:"row"`              // in hex
	Value  []byte      `json:"value,omitempty"`  // in base64, for log.RowEquals
	Commit uint64      `json:"commit,omitempty"` // for log.RowVersion
}

// TransactionCommand is a log.KeyedCommand.
type TransactionCommand struct {
	Key     identity.ID `json:"key"`     // of the log
	Payload []byte      `json:"payload"` // in base64
}

// TransactionOutcome is a log.Outcome.
type TransactionOutcome struct {
	Pointer log.Pointer `json:"pointer"`           // at the record of the transaction
	Held    bool        `json:"held"`              // all conditions held
	Failed  int         `json:"failed,omitempty"`  // index of the first that did not
	Results [][]byte    `json:"results,omitempty"` // one for each command, in base64
}

// viewGroup returns the group that a request about a view means: the one it
// names, that of the key it names as home, or that of the view's own key.
func (s *Server) viewGroup(p *params, of Ref) (*engine.Group, error) {
	home := p.text("home")
	if home == "" || of.Group != "" {
		return s.local.place(of)
	}
	key, err := identity.ParseID(home)
	if err != nil {
		return nil, fmt.Errorf("%w: home: %q is not a key of 64 hex digits", ErrRequest, home)
	}
	return s.engine.GroupFor(key), nil
}

// consistency reads which commit a request wants to see.
func (p *params) consistency() log.Consistency {
	at, stale := p.number("at"), p.flag("stale")
	switch {
	case at != 0 && stale:
		p.fail("stale", errors.New("does not go with at"))
	case at != 0:
		return log.AsOf(at)
	case stale:
		return log.Stale()
	}
	return log.Linearizable()
}

// hex reads a parameter that is bytes in hex.
func (p *params) hex(name string) []byte {
	b, err := hex.DecodeString(p.text(name))
	if err != nil {
		p.fail(name, errors.New("it is not hex"))
	}
	return b
}

// serveRows sends the rows of a range of a view, and first the commit it is as of.
func (s *Server) serveRows(w http.ResponseWriter, r *http.Request) error {
	ctx, _, leave, err := s.enter(r, false)
	if err != nil {
		return err
	}
	defer leave()
	p := newParams(r)
	of := ref(r, p)
	at := p.consistency()
	rows := log.Range{From: p.hex("from"), To: p.hex("to"), Reverse: p.flag("reverse")}
	limit := p.number("limit")
	g, err := s.viewGroup(p, of)
	if err := errors.Join(err, p.done()); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, s.opts.SyncTimeout)
	view, err := g.View(ctx, of.Key(), at)
	cancel()
	if err != nil {
		return err
	}
	out := s.newResponse(w, typeNDJSON, lineFault)
	w.Header().Set("Mosaik-Group", g.ID().String())
	if err := out.write(func(dst []byte) []byte { return appendLine(dst, Row{Commit: view.Commit()}) }); err != nil {
		return nil
	}
	sent := uint64(0)
	for row, err := range view.Scan(rows) {
		if err != nil {
			out.fail(s.why(err))
			return nil
		}
		if err := out.write(func(dst []byte) []byte {
			return appendLine(dst, Row{Key: hex.EncodeToString(row.Key), Value: row.Value, Version: row.Commit})
		}); err != nil {
			return nil // the client is gone
		}
		if sent++; sent == limit {
			break
		}
	}
	out.finish(func(dst []byte) []byte { return appendLine(dst, Row{End: true}) })
	return nil
}

// serveCommands commits the commands of the body, all in one commit.
func (s *Server) serveCommands(w http.ResponseWriter, r *http.Request) error {
	ctx, _, leave, err := s.enter(r, false)
	if err != nil {
		return err
	}
	defer leave()
	p := newParams(r)
	of := ref(r, p)
	g, err := s.viewGroup(p, of)
	if err := errors.Join(err, p.done()); err != nil {
		return err
	}
	if of.Group == "" && p.values.Get("home") == "" && of.Key() == log.DirectoryKey() {
		return fmt.Errorf("%w: home: it is missing; each group has a directory", ErrRequest)
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxCommandBytes))
	if err != nil {
		return fmt.Errorf("%w: the body is above %d bytes: %w", log.ErrOversize, maxCommandBytes, err)
	}
	var payloads [][]byte
	for len(body) > 0 {
		size, n := binary.Uvarint(body)
		if n <= 0 || size > uint64(len(body)-n) {
			return fmt.Errorf("%w: command %d of the body is cut short", ErrRequest, len(payloads))
		}
		payloads = append(payloads, body[n:n+int(size)])
		body = body[n+int(size):]
	}
	f := g.AppendAsync(ctx, of.Key(), payloads...)
	pointer, err := f.Wait(ctx)
	if err != nil {
		return s.why(err)
	}
	results, err := f.Results()
	if err != nil {
		return err
	}
	return sendJSON(w, Applied{Pointer: pointer, Results: results})
}

// serveTransaction commits a transaction.
func (s *Server) serveTransaction(w http.ResponseWriter, r *http.Request) error {
	ctx, _, leave, err := s.enter(r, false)
	if err != nil {
		return err
	}
	defer leave()
	p := newParams(r)
	group, home := p.text("group"), p.text("home")
	if group == "" && home == "" {
		p.fail("group", errors.New("group or home is missing"))
	}
	g, err := s.viewGroup(p, Ref{Name: home, Group: group})
	if err := errors.Join(err, p.done()); err != nil {
		return err
	}
	var t Transaction
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, 4*log.MaxPayload))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&t); err != nil {
		return fmt.Errorf("%w: the body is no transaction: %w", ErrRequest, err)
	}
	var out log.Transaction
	for i, c := range t.Conditions {
		row, err := hex.DecodeString(c.Row)
		if err != nil {
			return fmt.Errorf("%w: conditions[%d].row: it is not hex", ErrRequest, i)
		}
		out.Conditions = append(out.Conditions, log.Condition{Key: c.Key, Kind: log.ConditionKind(c.Kind), Row: row, Value: c.Value, Commit: c.Commit})
	}
	for _, c := range t.Commands {
		out.Commands = append(out.Commands, log.KeyedCommand{Key: c.Key, Payload: c.Payload})
	}
	o, err := g.Submit(ctx, &out)
	if err != nil {
		return s.why(err)
	}
	return sendJSON(w, TransactionOutcome{Pointer: o.Pointer, Held: o.Held, Failed: o.Failed, Results: o.Results})
}

// serveChanges sends what commits did to a view, one line each.
func (s *Server) serveChanges(w http.ResponseWriter, r *http.Request) error {
	p := newParams(r)
	of := ref(r, p)
	after, follow := p.number("after"), p.flag("follow")
	g, err := s.viewGroup(p, of)
	if err := errors.Join(err, p.done()); err != nil {
		return err
	}
	ctx, cancel, leave, err := s.enter(r, follow)
	if err != nil {
		return err
	}
	defer leave()
	out := s.newResponse(w, typeNDJSON, lineFault)
	end := func() {}
	if follow {
		end = out.follow(ctx, cancel, []byte("\n"), s.opts.Alive)
	}
	for c, err := range g.Changes(ctx, of.Key(), after, follow) {
		if err != nil {
			end()
			out.fail(s.why(err))
			return nil
		}
		if out.write(func(dst []byte) []byte { return appendLine(dst, changeOf(&c)) }) != nil {
			break // the client is gone
		}
	}
	end()
	out.finish(func(dst []byte) []byte { return appendLine(dst, Change{End: true}) })
	return nil
}

func changeOf(c *log.Changes) Change {
	out := Change{Pointer: &c.Pointer, TimeNS: c.Time, Cleared: c.Cleared}
	for i := range c.Rows {
		row := &c.Rows[i]
		change := RowChange{Key: hex.EncodeToString(row.Key), Before: row.Before}
		if row.Existed {
			change.Old = present(row.Old)
		}
		if row.Exists {
			change.New = present(row.New)
		}
		out.Rows = append(out.Rows, change)
	}
	return out
}

// present makes an empty value one in JSON, too.
func present(b []byte) *[]byte {
	b = append([]byte{}, b...)
	return &b
}

// serveTransfer makes another member lead the group.
func (s *Server) serveTransfer(w http.ResponseWriter, r *http.Request) error {
	ctx, _, leave, err := s.enter(r, false)
	if err != nil {
		return err
	}
	defer leave()
	p := newParams(r)
	to := p.text("to")
	if err := p.done(); err != nil {
		return err
	}
	peer, err := identity.ParsePeerID(to)
	if err != nil {
		return fmt.Errorf("%w: to: %w", ErrRequest, err)
	}
	g, err := s.local.group(r.PathValue("group"))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, s.opts.SyncTimeout)
	defer cancel()
	if err := g.TransferLeadership(ctx, peer); err != nil {
		return err
	}
	return sendJSON(w, groupOf(g.Status()))
}

// serveRefold builds the views of a group anew.
func (s *Server) serveRefold(w http.ResponseWriter, r *http.Request) error {
	ctx, _, leave, err := s.enter(r, false)
	if err != nil {
		return err
	}
	defer leave()
	if err := newParams(r).done(); err != nil {
		return err
	}
	report, err := s.local.Refold(ctx, r.PathValue("group"))
	if err != nil {
		return s.why(err)
	}
	return sendJSON(w, report)
}

// RefoldReport says what a refold has found (engine.RefoldReport).
type RefoldReport struct {
	Commits   uint64 `json:"commits"`             // folded
	Rows      uint64 `json:"rows"`                // written
	Differs   uint64 `json:"differs,omitempty"`   // first commit whose header has another state
	Rewritten uint64 `json:"rewritten,omitempty"` // headers that were mended
}

// Refold drops the views of a group and builds them anew from its log.
func (l *Local) Refold(ctx context.Context, group string) (RefoldReport, error) {
	g, err := l.group(group)
	if err != nil {
		return RefoldReport{}, err
	}
	report, err := g.Refold(ctx, nil)
	return RefoldReport{Commits: report.Commits, Rows: report.Rows, Differs: report.Differs, Rewritten: report.Rewritten}, err
}

// Store returns the collections of the engine, or of the group with the name if
// one is given.
func (l *Local) Store(group string) (log.Store, error) {
	if group == "" {
		return l.engine, nil
	}
	return l.group(group)
}

// Transfer makes another member lead the group.
func (l *Local) Transfer(ctx context.Context, group string, to identity.PeerID) error {
	g, err := l.group(group)
	if err != nil {
		return err
	}
	return g.TransferLeadership(ctx, to)
}
