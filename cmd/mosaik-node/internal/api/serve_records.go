package api

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"math"
	"net/http"
	"strconv"
	"strings"

	"github.com/mosaik-engine/mosaik/log"
)

// Formats of records on their way out.
const (
	formatNDJSON = "ndjson"
	formatSSE    = "sse"
	formatRaw    = "raw"
)

// recordsRequest is a request for records, understood.
type recordsRequest struct {
	ref          Ref
	query        log.Query
	contains     []byte
	left         uint64 // records still to send
	format       string
	pointers     bool
	linearizable bool
}

func parseRecordsRequest(r *http.Request) (recordsRequest, error) {
	p := newParams(r)
	req := recordsRequest{
		ref: ref(r, p), left: p.number("limit"), format: p.text("format"), pointers: p.flag("pointer"),
		linearizable: p.flag("linearizable"), contains: []byte(p.text("contains")),
		query: log.Query{
			Until: p.number("through"), Follow: p.flag("follow"),
			Filter: log.Filter{Since: p.time("since"), Until: p.time("until"), Every: p.number("every")},
		},
	}
	req.query.Key = req.ref.Key()
	from := p.text("from")
	if err := p.done(); err != nil {
		return req, err
	}
	if id := r.Header.Get("Last-Event-ID"); id != "" {
		// A follower that was cut off comes back: it has seen this seq.
		n, err := strconv.ParseUint(id, 10, 64)
		if err != nil {
			return req, fmt.Errorf("%w: Last-Event-ID: %q is not a seq", ErrRequest, id)
		}
		from = log.Seq(n + 1).String()
	}
	if from != "" {
		var err error
		if req.query.From, err = log.ParsePosition(from); err != nil {
			return req, &statusError{http.StatusBadRequest, "bad_position", failureOf(err).Message}
		}
	}
	if req.left == 0 {
		req.left = math.MaxUint64 // no limit
	}
	if len(req.contains) > 0 {
		req.query.Filter.Match = func(payload []byte) bool { return bytes.Contains(payload, req.contains) }
	}
	if err := req.query.Validate(); err != nil {
		return req, err
	}
	return req, req.chooseFormat(r.Header.Get("Accept"))
}

// chooseFormat settles the format: the parameter, else what the client accepts,
// else what fits the request.
func (req *recordsRequest) chooseFormat(accept string) error {
	if req.format == "" {
		switch {
		case strings.Contains(accept, frameType):
			req.format = formatRaw
		case strings.Contains(accept, "text/event-stream"):
			req.format = formatSSE
		case strings.Contains(accept, typeNDJSON), !req.query.Follow:
			req.format = formatNDJSON
		default:
			req.format = formatSSE
		}
	}
	switch {
	case req.format == formatSSE:
		req.query.Follow = true
	case req.format != formatNDJSON && req.format != formatRaw:
		return fmt.Errorf("%w: format: %q is none of %s, %s and %s", ErrRequest, req.format, formatNDJSON, formatSSE, formatRaw)
	}
	if req.format == formatRaw && (len(req.contains) > 0 || req.pointers) {
		return fmt.Errorf("%w: contains and pointer do not go with the format raw, which carries whole runs", ErrRequest)
	}
	return nil
}

// serveRecords reads a log from a position, to its end or on and on.
func (s *Server) serveRecords(w http.ResponseWriter, r *http.Request) error {
	req, err := parseRecordsRequest(r)
	if err != nil {
		return err
	}
	ctx, cancel, leave, err := s.enter(r, req.query.Follow)
	if err != nil {
		return err
	}
	defer leave()
	g, err := s.local.place(req.ref)
	if err != nil {
		return err
	}
	if err := s.sync(ctx, w, g, req.linearizable); err != nil {
		return s.why(err)
	}
	codec, err := s.local.codec(ctx, req.ref)
	if err != nil {
		return err
	}
	if codec == "" && !req.ref.isKey() && !req.query.Follow {
		// Most likely a name that is not quite right. A key may well be empty.
		if _, err := s.local.Stream(ctx, req.ref); err != nil {
			return err
		}
	}
	if req.query.Follow {
		// A position that does not hold is found out while there is still a status to
		// say so with.
		probe := req.query
		probe.Follow = false
		for _, err := range s.local.Scan(ctx, req.ref, probe) {
			if err != nil {
				return s.why(err)
			}
			break
		}
	}
	w.Header().Set("Mosaik-Codec", codec)
	var (
		out   *response
		add   func(dst []byte, run *log.Run) []byte
		alive []byte
		last  func(dst []byte) []byte
	)
	switch req.format {
	case formatRaw:
		out, add, alive = s.newResponse(w, frameType, appendFailureFrame), req.appendRun, appendFrame(nil, frameIdle, nil)
		last = func(dst []byte) []byte { return appendFrame(dst, frameEnd, nil) }
		// It is too little to be sent yet, so it cannot fail.
		_ = out.write(func(dst []byte) []byte { return appendPreamble(dst, g.ID()) })
	case formatSSE:
		out, alive = s.newResponse(w, "text/event-stream", eventFault), []byte(":\n\n")
		add = req.lines(ctx, s.local, codec, func(dst []byte, seq uint64) []byte {
			return append(strconv.AppendUint(append(dst, "id: "...), seq, 10), "\ndata: "...)
		}, "\n\n")
	default:
		out, alive = s.newResponse(w, typeNDJSON, lineFault), []byte("\n")
		add = req.lines(ctx, s.local, codec, func(dst []byte, _ uint64) []byte { return dst }, "\n")
	}
	end := func() {}
	if req.query.Follow {
		end = out.follow(ctx, cancel, alive, s.opts.Alive)
	}
	err = req.copy(s.local.Scan(ctx, req.ref, req.query), out, add)
	end()
	if err != nil {
		out.fail(s.why(err))
	} else {
		out.finish(last)
	}
	return nil
}

// copy writes the runs, up to the limit. An error is one of reading.
func (req *recordsRequest) copy(runs iter.Seq2[log.Run, error], out *response, add func([]byte, *log.Run) []byte) error {
	for run, err := range runs {
		if err != nil {
			return err
		}
		if out.write(func(dst []byte) []byte { return add(dst, &run) }) != nil || req.left == 0 {
			return nil // the client is gone, or has what it wants
		}
	}
	return nil
}

// appendRun appends the frame of the run, cut to what is left of the limit.
func (req *recordsRequest) appendRun(dst []byte, run *log.Run) []byte {
	part := *run
	if uint64(run.Count) > req.left {
		first := log.Query{Key: run.Key, Until: run.FirstSeq + req.left - 1}
		part, _ = first.Clip(part, run.FirstSeq)
	}
	req.left -= uint64(part.Count)
	return appendRunFrame(dst, &part)
}

// lines returns what appends the records of a run that the filter keeps, each as
// JSON between before and after.
func (req *recordsRequest) lines(ctx context.Context, l *Local, codec string, before func([]byte, uint64) []byte, after string) func([]byte, *log.Run) []byte {
	render := NewRenderer(codec, req.pointers)
	return func(dst []byte, run *log.Run) []byte {
		if render.Codec == "" {
			// A stream that was followed before it was opened has a codec by now. If the
			// directory cannot be read, the payload is still the payload.
			render.Codec, _ = l.codec(ctx, req.ref)
		}
		for seq, payload := range run.Records() {
			if req.left == 0 {
				break
			}
			if req.query.Filter.Keeps(seq, payload) {
				req.left--
				dst = append(render.Append(before(dst, seq), run, seq, payload), after...)
			}
		}
		return dst
	}
}

// eventFault is an error in a response of server-sent events.
func eventFault(dst []byte, f failure) []byte {
	return append(appendLine(append(dst, "event: error\ndata: "...), f), '\n')
}
