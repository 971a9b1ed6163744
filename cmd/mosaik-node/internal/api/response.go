package api

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"time"
)

// Buffering of a response.
const (
	flushBytes = 128 << 10            // sent at once from this size on
	flushDelay = 2 * time.Millisecond // what a follower may wait for company
)

// response is the body of a response that goes on for long. What is written is
// buffered and sent in large pieces; a follower's also when it has lain for
// flushDelay. Every piece has to be taken by the client within the server's
// Stall, else the response is broken off: whoever reads slowly must not hold on
// to the store for ever.
//
// Until the first piece is sent, fail still answers with a status of its own.
type response struct {
	w     http.ResponseWriter
	rc    *http.ResponseController
	stall time.Duration
	fault func(dst []byte, f failure) []byte // appends an error in the format of the response

	// Of a follower, else nil.
	dirty  chan struct{} // there is something to send
	broken func()        // ends the handler's context when sending has failed

	mu struct {
		sync.Mutex
		buf  []byte
		sent time.Time // of the last piece
		any  bool      // a piece was sent
		err  error     // of sending; ends the response
	}
}

func (s *Server) newResponse(w http.ResponseWriter, contentType string, fault func([]byte, failure) []byte) *response {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Cache-Control", "no-store")
	return &response{w: w, rc: http.NewResponseController(w), stall: s.opts.Stall, fault: fault}
}

// follow makes the response that of a follower until the returned func is
// called: what is buffered is sent soon, and alive now and then when there is
// nothing. With an alive that is empty nothing is sent, not even the header,
// before something is written. ctx is ended by cancel when the client no longer
// takes anything.
func (r *response) follow(ctx context.Context, cancel context.CancelFunc, alive []byte, every time.Duration) (end func()) {
	r.dirty = make(chan struct{}, 1)
	r.broken = cancel
	if len(alive) > 0 {
		r.dirty <- struct{}{} // the header goes out although there may be no record for hours
	}
	ctx, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go r.runFlush(ctx, alive, every, done)
	return func() {
		stop()
		<-done
	}
}

// runFlush sends what is buffered and signs of life, until ctx ends.
func (r *response) runFlush(ctx context.Context, alive []byte, every time.Duration, done chan<- struct{}) {
	defer close(done)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.dirty:
			delay := time.NewTimer(flushDelay)
			select {
			case <-ctx.Done():
				delay.Stop()
				return
			case <-delay.C:
			}
			r.mu.Lock()
			r.flushLocked()
			r.mu.Unlock()
		case <-tick.C:
			r.mu.Lock()
			if len(alive) > 0 && time.Since(r.mu.sent) >= every {
				r.mu.buf = append(r.mu.buf, alive...)
				r.flushLocked()
			}
			r.mu.Unlock()
		}
	}
}

// write lets add append to the buffer. The error is one of sending: nothing more
// can be sent.
func (r *response) write(add func(dst []byte) []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.err != nil {
		return r.mu.err
	}
	r.mu.buf = add(r.mu.buf)
	switch {
	case len(r.mu.buf) >= flushBytes:
		r.flushLocked()
	case r.dirty == nil:
	case r.mu.any && time.Since(r.mu.sent) > flushDelay:
		r.flushLocked() // the first after a pause need not wait for company
	default:
		select {
		case r.dirty <- struct{}{}:
		default:
		}
	}
	return r.mu.err
}

// flushLocked sends what is buffered. REQUIRES: r.mu, which is held meanwhile:
// whoever writes then waits for the client, which is meant.
func (r *response) flushLocked() {
	if r.mu.err != nil {
		return
	}
	// Not every ResponseWriter has deadlines or can flush; those of a server do.
	_ = r.rc.SetWriteDeadline(time.Now().Add(r.stall))
	r.mu.any = true
	if _, r.mu.err = r.w.Write(r.mu.buf); r.mu.err == nil {
		r.mu.err = r.rc.Flush()
	}
	r.mu.buf = r.mu.buf[:0]
	r.mu.sent = time.Now()
	if r.mu.err != nil && r.broken != nil {
		r.broken()
	}
}

// finish sends what is left, after last has added to it, and leaves the
// connection as it was. A response that nothing was written to is sent, too.
func (r *response) finish(last func(dst []byte) []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.err != nil {
		return
	}
	if last != nil {
		r.mu.buf = last(r.mu.buf)
	}
	r.flushLocked()
	_ = r.rc.SetWriteDeadline(time.Time{}) // the next response on the connection is another's
}

// fail ends the response with an error: with its status if nothing was sent yet,
// else in the format of the response.
func (r *response) fail(err error) {
	f := failureOf(err)
	r.mu.Lock()
	any := r.mu.any
	if !any {
		r.mu.buf = r.mu.buf[:0]
	}
	r.mu.Unlock()
	if !any {
		f.send(r.w)
		return
	}
	r.finish(func(dst []byte) []byte { return r.fault(dst, f) })
}

// send answers with the failure and nothing else.
func (f failure) send(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	if f.status == http.StatusTooManyRequests || f.status == http.StatusServiceUnavailable {
		h.Set("Retry-After", "1")
	}
	w.WriteHeader(f.status)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(f) // the client is gone
}

// appendLine appends v as one line of JSON.
func appendLine(dst []byte, v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		b = []byte(`{"error":"an answer does not encode","code":"internal"}`) // they all do
	}
	return append(append(dst, b...), '\n')
}

// lineFault is an error in a response of JSON lines.
func lineFault(dst []byte, f failure) []byte { return appendLine(dst, f) }
