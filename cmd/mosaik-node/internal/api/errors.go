package api

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/mosaik-engine/mosaik/engine"
	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

var (
	// ErrUnreachable says that no node answers at the address, or that the
	// connection broke.
	ErrUnreachable = errors.New("mosaik: node unreachable")
	// ErrRequest says that a request is malformed, or the API has no such thing.
	ErrRequest = errors.New("mosaik: bad request")
	// ErrValue says that a record is not in the stream's codec. Nothing was
	// written of it.
	ErrValue = errors.New("mosaik: bad value")
)

// condition is one kind of error as the API names it.
type condition struct {
	err    error // errors.Is
	status int
	code   string
}

// conditions, the more specific before the more general: the first that an error
// is counts. docs/api.md has the same list.
var conditions = [...]condition{
	{engine.ErrDiskFull, http.StatusInsufficientStorage, "disk_full"},
	{engine.ErrBusy, http.StatusTooManyRequests, "busy"},
	{engine.ErrNoQuorum, http.StatusServiceUnavailable, "no_quorum"},
	{log.ErrClosed, http.StatusServiceUnavailable, "closed"},
	{log.ErrOversize, http.StatusRequestEntityTooLarge, "oversize"},
	{ErrValue, http.StatusBadRequest, "bad_value"},
	{identity.ErrName, http.StatusBadRequest, "bad_name"},
	{log.ErrPosition, http.StatusBadRequest, "bad_position"},
	{log.ErrQuery, http.StatusBadRequest, "bad_query"},
	{ErrRequest, http.StatusBadRequest, "bad_request"},
	{log.ErrPointer, http.StatusConflict, "bad_pointer"},
	{log.ErrCodec, http.StatusConflict, "codec"},
	{log.ErrNotFound, http.StatusNotFound, "not_found"},
	{log.ErrTransaction, http.StatusBadRequest, "bad_transaction"},
	{log.ErrKind, http.StatusConflict, "kind"},
	{log.ErrMembership, http.StatusConflict, "membership"},
	{engine.ErrMismatch, http.StatusConflict, "mismatch"},
	{log.ErrDiverged, http.StatusInternalServerError, "diverged"},
	{engine.ErrFetching, http.StatusServiceUnavailable, "fetching"},
	{log.ErrNewerFormat, http.StatusInternalServerError, "newer_format"},
}

// Codes that no error of the list stands for.
const (
	codeCorrupt  = "corrupt"
	codeInternal = "internal"
)

// ErrorSite is where a corruption was found. Absent fields are not known.
type ErrorSite struct {
	File   string       `json:"file,omitempty"`
	Offset int64        `json:"offset"` // in the file, or without one in the commit's bytes
	Group  *identity.ID `json:"group,omitempty"`
	Commit uint64       `json:"commit,omitempty"`
	Cause  string       `json:"cause"` // what is wrong there
}

// failure is an error as the API sends it.
type failure struct {
	status  int
	Message string     `json:"error"`
	Code    string     `json:"code"`
	At      *ErrorSite `json:"at,omitempty"`
}

// failureOf says how the API sends err.
func failureOf(err error) failure {
	f := failure{status: http.StatusInternalServerError, Message: strings.ReplaceAll(err.Error(), "mosaik: ", ""), Code: codeInternal}
	var (
		corrupt *log.CorruptionError
		status  *statusError
	)
	switch {
	case errors.As(err, &corrupt):
		f.Code = codeCorrupt
		f.At = &ErrorSite{File: corrupt.File, Offset: corrupt.Offset, Commit: corrupt.Commit, Cause: fmt.Sprint(corrupt.Err)}
		if !corrupt.Group.IsZero() {
			f.At.Group = &corrupt.Group
		}
		return f
	case errors.As(err, &status):
		f.status, f.Code = status.status, status.code
		return f
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		f.status, f.Code = http.StatusServiceUnavailable, "closed"
	}
	for _, c := range conditions {
		if errors.Is(err, c.err) {
			f.status, f.Code = c.status, c.code
			break
		}
	}
	return f
}

// statusError is a refusal that is HTTP's own and no error of the log.
type statusError struct {
	status     int
	code, text string
}

func (e *statusError) Error() string { return e.text }

// RemoteError is what a node answered instead of what was asked for. errors.Is
// finds in it the error that the node met.
type RemoteError struct {
	Code    string // one of the codes of docs/api.md
	Message string
	kind    error
}

// Error gives the node's words.
func (e *RemoteError) Error() string { return e.Message }

// Unwrap returns the named error that the code stands for, or nil.
func (e *RemoteError) Unwrap() error { return e.kind }

// remote turns a failure that a node sent back into an error.
func (f failure) remote() error {
	if f.Code == codeCorrupt {
		at := f.At
		if at == nil {
			at = &ErrorSite{Cause: f.Message}
		}
		c := &log.CorruptionError{File: at.File, Offset: at.Offset, Commit: at.Commit, Err: errors.New(at.Cause)}
		if at.Group != nil {
			c.Group = *at.Group
		}
		return c
	}
	for _, c := range conditions {
		if f.Code == c.code {
			return &RemoteError{Code: f.Code, Message: f.Message, kind: c.err}
		}
	}
	return &RemoteError{Code: f.Code, Message: f.Message}
}

// decodeFailure reads a failure from JSON, or makes one of text that is none,
// such as a proxy's page.
func decodeFailure(body []byte, status int) error {
	var f failure
	if err := json.Unmarshal(body, &f); err != nil || f.Message == "" {
		text := strings.TrimSpace(string(body[:min(len(body), 200)]))
		return fmt.Errorf("%w: it answers %d %s: %s", ErrUnreachable, status, http.StatusText(status), cmp.Or(text, "nothing"))
	}
	return f.remote()
}
