package api

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/mosaik-engine/mosaik/log"
)

// Media types of records on their way in.
const (
	typeNDJSON = "application/x-ndjson"
	typeText   = "text/plain"
)

// serveAppend appends the records of the body, one by one, and answers each with
// its pointer while it is still reading.
func (s *Server) serveAppend(w http.ResponseWriter, r *http.Request) error {
	ctx, cancel, leave, err := s.enter(r, true)
	if err != nil {
		return err
	}
	defer leave()
	p := newParams(r)
	to, codec := ref(r, p), p.text("codec")
	if err := p.done(); err != nil {
		return err
	}
	read, codec, err := bodyFormat(r.Header.Get("Content-Type"), codec)
	if err != nil {
		return err
	}
	rc := http.NewResponseController(w)
	if err := rc.EnableFullDuplex(); err != nil {
		return err
	}
	// Without this a body of which something is left, if only its end, makes the
	// server panic in full duplex: https://go.dev/issue/68560.
	defer r.Body.Close()
	// Without w, which it would write to from the goroutine that reads, while another
	// one sends answers.
	body := &requestReader{body: http.MaxBytesReader(nil, r.Body, s.opts.MaxBody), rc: rc, stall: s.opts.Stall}
	out := s.newResponse(w, typeNDJSON, nil)
	// The submitter may sit in a read of the body: the end of its context must end
	// that, too.
	payloads := func(ctx context.Context) iter.Seq2[[]byte, error] {
		return func(yield func([]byte, error) bool) {
			unlink := context.AfterFunc(ctx, body.stop)
			defer unlink()
			read(body)(yield)
		}
	}
	end := out.follow(ctx, cancel, nil, s.opts.Alive)
	answered := false
	var first error // the append failed before anything was written or answered
	for o := range s.local.Append(ctx, to, codec, payloads) {
		o.Err = s.why(o.Err)
		if o.Err != nil && !answered {
			first = o.Err
			break
		}
		answered = true
		if out.write(func(dst []byte) []byte { return appendAnswer(dst, o) }) != nil {
			break // the client is gone; what is under way still comes to its end
		}
	}
	end()
	switch {
	case first != nil:
		// The rest of the body is not wanted, and the connection is of no further use.
		w.Header().Set("Connection", "close")
		out.fail(first)
		// A client that goes on sending must not wait for its own end: the answer goes out.
		// One that is just about to end must be let: if the connection were closed under what
		// it sends, it would hear of that instead of the answer.
		_ = rc.Flush()
		_ = rc.SetReadDeadline(time.Now().Add(linger))
		_, _ = io.CopyN(io.Discard, r.Body, lingerBytes)
		body.stop()
	default:
		out.finish(nil)
	}
	return nil
}

// What is still taken, and thrown away, of a body that is not wanted.
const (
	linger      = 500 * time.Millisecond
	lingerBytes = 1 << 20
)

// appendAnswer appends an outcome as a line.
func appendAnswer(dst []byte, o Outcome) []byte {
	if o.Err == nil { // by hand, for there may be very many
		dst = strconv.AppendUint(append(dst, `{"seq":`...), o.Pointer.Seq, 10)
		dst = strconv.AppendUint(append(dst, `,"commit":`...), o.Pointer.Commit, 10)
		dst = append(append(dst, `,"pointer":"`...), o.Pointer.String()...)
		return append(dst, "\"}\n"...)
	}
	f := failureOf(o.Err)
	a := Answer{Error: f.Message, Code: f.Code, At: f.At}
	var record *recordError
	if errors.As(o.Err, &record) {
		a.Record = record.record
	}
	return appendLine(dst, a)
}

// bodyFormat returns how to read records from a body of the type, and the codec
// that they are in unless the request names one.
func bodyFormat(contentType, codec string) (func(io.Reader) iter.Seq2[[]byte, error], string, error) {
	kind, _, err := mime.ParseMediaType(contentType)
	if err != nil && contentType != "" {
		return nil, "", fmt.Errorf("%w: Content-Type: %w", ErrRequest, err)
	}
	switch {
	case kind == typeNDJSON && (codec == "" || codec == codecJSON):
		return JSONLines, codecJSON, nil
	case kind == typeNDJSON:
		return nil, "", fmt.Errorf("%w: codec %s does not go with %s", ErrRequest, codec, kind)
	case kind == typeText && codec == codecJSON:
		return JSONLines, codecJSON, nil
	case kind == typeText:
		return Lines, codec, nil
	case kind == frameType:
		return prefixed, codec, nil
	}
	return nil, "", &statusError{http.StatusUnsupportedMediaType, "media_type", fmt.Sprintf("Content-Type %q: want %s, %s or %s", contentType, typeNDJSON, typeText, frameType)}
}

// requestReader reads a request's body, of which something must arrive within
// every stall.
type requestReader struct {
	body    io.Reader
	rc      *http.ResponseController
	stall   time.Duration
	stopped atomic.Bool
}

// Read is that of io.Reader. Deadlines always can be set on a server's
// connections.
func (b *requestReader) Read(p []byte) (int, error) {
	_ = b.rc.SetReadDeadline(time.Now().Add(b.stall))
	if b.stopped.Load() { // perhaps between the two: then the deadline has undone stop's
		_ = b.rc.SetReadDeadline(time.Unix(1, 0))
	}
	n, err := b.body.Read(p)
	if err == nil {
		return n, nil
	}
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		err = &statusError{http.StatusRequestEntityTooLarge, "oversize", fmt.Sprintf("the body is larger than %d bytes; send it in parts", tooLarge.Limit)}
	case err == io.EOF:
		// From here on the server itself waits for the next request, or the end.
		_ = b.rc.SetReadDeadline(time.Time{})
	default:
		err = fmt.Errorf("%w: the body was cut off: %w", ErrRequest, err)
	}
	return n, err
}

// stop ends a Read under way, and every later one.
func (b *requestReader) stop() {
	b.stopped.Store(true)
	_ = b.rc.SetReadDeadline(time.Unix(1, 0))
}

// Lines reads one record a line. The newline is not part of the record; every
// other byte is, and an empty line is an empty record. A line longer than a
// record may be is log.ErrOversize.
func Lines(r io.Reader) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		scanner := bufio.NewScanner(r)
		scanner.Buffer(make([]byte, 0, 64<<10), log.MaxPayload+2)
		scanner.Split(splitLines)
		for scanner.Scan() {
			if !yield(scanner.Bytes(), nil) {
				return
			}
		}
		switch err := scanner.Err(); {
		case errors.Is(err, bufio.ErrTooLong):
			yield(nil, fmt.Errorf("%w: the line has more than %d bytes", log.ErrOversize, log.MaxPayload))
		case err != nil:
			yield(nil, err)
		}
	}
}

// splitLines is bufio.ScanLines without its indulgence towards carriage returns.
func splitLines(data []byte, atEOF bool) (advance int, token []byte, err error) {
	for i, c := range data {
		if c == '\n' {
			return i + 1, data[:i], nil
		}
	}
	if atEOF && len(data) > 0 {
		return len(data), data, nil
	}
	return 0, nil, nil
}

// JSONLines is Lines without those that hold nothing but white space.
func JSONLines(r io.Reader) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for line, err := range Lines(r) {
			if err == nil && strings.TrimSpace(string(line)) == "" {
				continue
			}
			if !yield(line, err) {
				return
			}
		}
	}
}

// prefixed reads records that each come behind their length, a uvarint, as in a
// commit's body.
func prefixed(r io.Reader) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		in := bufio.NewReaderSize(r, 64<<10)
		var buf []byte
		for {
			size, err := binary.ReadUvarint(in)
			if err == io.EOF {
				return
			}
			if err == nil && size > log.MaxPayload {
				err = fmt.Errorf("%w: a record of %d bytes, at most %d are allowed", log.ErrOversize, size, log.MaxPayload)
			}
			if err == nil {
				if uint64(cap(buf)) < size {
					buf = make([]byte, size)
				}
				buf = buf[:size]
				_, err = io.ReadFull(in, buf)
			}
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				err = fmt.Errorf("%w: the body ends inside of a record", ErrRequest)
			}
			if !yield(buf, err) || err != nil {
				return
			}
		}
	}
}
