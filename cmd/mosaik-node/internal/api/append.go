package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"unicode/utf8"

	"github.com/mosaik-engine/mosaik/log"
)

// Outcome is what became of one record of an append: Pointer if Err is nil.
type Outcome struct {
	Pointer log.Pointer
	Err     error
}

// Payloads gives the records of an append one by one; a payload is good until
// the next one. An error is the last pair, and the end of the append. The
// iteration must come to its end soon after ctx ends.
type Payloads func(ctx context.Context) iter.Seq2[[]byte, error]

// Window is how many records of one append are under way at once by default.
const Window = 4096

// recordError marks an error with the record it belongs to, counted from 1.
type recordError struct {
	record uint64
	err    error
}

func (e *recordError) Error() string { return fmt.Sprintf("record %d: %v", e.record, e.err) }
func (e *recordError) Unwrap() error { return e.err }

// Append appends each payload as one record of its own, many of them under way
// at once, and yields an outcome for each in their order.
//
// The stream is opened first: a name that is new is given the codec, "raw" or
// "json"; one that has another codec is log.ErrCodec, and nothing is written. An
// empty codec means the stream's own, or raw. A log that is addressed by its key
// is not given a name. Payloads of the codec json are checked and compacted, and
// ErrValue if they are not JSON.
//
// No payload is taken after the first error. Those before it that were under way
// still have their outcomes, some of which may come after the error's. ctx ends
// the taking, not what is under way; then the last outcome has ctx's error.
func (l *Local) Append(ctx context.Context, r Ref, codec string, payloads Payloads) iter.Seq[Outcome] {
	return func(yield func(Outcome) bool) {
		w, codec, err := l.open(ctx, r, codec)
		if err != nil {
			yield(Outcome{Err: err})
			return
		}
		submitting, stop := context.WithCancel(ctx)
		defer stop()
		p := &pipeline{w: w, ref: r, payloads: payloads, futures: make(chan *log.Future, Window), json: codec == codecJSON}
		go p.runSubmit(submitting)
		wanted, failed := true, false
		record := uint64(0)
		for f := range p.futures { // to its end, also when nobody listens any more
			record++
			pointer, err := f.Result()
			if err != nil {
				err = &recordError{record, err}
				failed = true
				stop()
			}
			if wanted && !yield(Outcome{Pointer: pointer, Err: err}) {
				wanted = false
				stop()
			}
		}
		if err := ctx.Err(); err != nil && wanted && !failed {
			yield(Outcome{Err: err})
		}
	}
}

// open returns where to append, and the codec to use, after making sure that the
// directory agrees.
func (l *Local) open(ctx context.Context, r Ref, codec string) (log.Writer, string, error) {
	if codec != "" && codec != codecRaw && codec != codecJSON {
		return nil, "", fmt.Errorf("%w: codec %q: this API writes %s and %s", ErrRequest, codec, codecRaw, codecJSON)
	}
	if r.Key() == log.DirectoryKey() {
		return nil, "", fmt.Errorf("%w: the directory is written by opening streams", ErrRequest)
	}
	g, err := l.place(r)
	if err != nil {
		return nil, "", err
	}
	e, known, err := l.directory(r).lookUp(ctx, r.Key())
	switch {
	case err != nil:
		return nil, "", err
	case known && codec == "":
		if e.Codec != codecRaw && e.Codec != codecJSON {
			return nil, "", fmt.Errorf("%w: the values of the log %s are written as %s; this API writes %s and %s", log.ErrCodec, r, e.Codec, codecRaw, codecJSON)
		}
		return g, e.Codec, nil
	case known && (e.Kind != log.KindStream || e.Codec != codec):
		return nil, "", fmt.Errorf("%w: the log %s is a %s of %s, not a %s of %s", log.ErrCodec, r, e.Kind, e.Codec, log.KindStream, codec)
	case known:
		return g, codec, nil
	}
	if codec == "" {
		codec = codecRaw
	}
	if r.isKey() {
		return g, codec, nil
	}
	var registrar log.Writer = l.engine // routes the directory's key to its own group
	if r.Group != "" {
		registrar = g
	}
	if codec == codecJSON {
		_, err = log.StreamDef[json.RawMessage]{Name: r.Name, Codec: log.JSON[json.RawMessage]()}.Open(ctx, registrar)
	} else {
		_, err = log.StreamDef[[]byte]{Name: r.Name, Codec: log.Raw()}.Open(ctx, registrar)
	}
	return g, codec, err
}

// pipeline is one append under way.
type pipeline struct {
	w        log.Writer
	ref      Ref
	json     bool
	payloads Payloads
	futures  chan *log.Future // in the order of the records
}

// runSubmit submits the records and closes futures. It never waits for an
// outcome; the room in futures bounds what is under way.
func (p *pipeline) runSubmit(ctx context.Context) {
	defer close(p.futures)
	key := p.ref.Key()
	var line bytes.Buffer
	for payload, err := range p.payloads(ctx) {
		if ctx.Err() != nil {
			return
		}
		if err == nil && p.json {
			line.Reset()
			if !utf8.Valid(payload) {
				err = errors.New("it is not UTF-8")
			} else {
				err = json.Compact(&line, payload)
			}
			if err != nil {
				err = fmt.Errorf("%w: it is not JSON: %w", ErrValue, err)
			}
			payload = line.Bytes()
		}
		if err != nil {
			f := log.NewFuture()
			f.Complete(log.Pointer{}, err)
			p.futures <- f
			return
		}
		f := p.w.AppendAsync(ctx, key, payload)
		p.futures <- f
		select {
		case <-f.Done(): // refused without a wait: go no further
			if _, err := f.Result(); err != nil {
				return
			}
		default:
		}
	}
}
