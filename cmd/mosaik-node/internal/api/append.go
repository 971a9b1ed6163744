package api

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"unicode/utf8"

	"github.com/mosaik-engine/mosaik/engine"
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
// A name that is new is given the codec, "raw" or "json", with its first record;
// one that has another codec is log.ErrCodec, and nothing is written. An
// empty codec means the stream's own, or raw. A log that is addressed by its key
// is not given a name. Payloads of the codec json are checked and compacted, and
// ErrValue if they are not JSON.
//
// No payload is taken after the first error. Those before it that were under way
// still have their outcomes, some of which may come after the error's. ctx ends
// the taking, not what is under way; then the last outcome has ctx's error.
func (l *Local) Append(ctx context.Context, r Ref, codec string, payloads Payloads) iter.Seq[Outcome] {
	return func(yield func(Outcome) bool) {
		p := &pipeline{local: l, ref: r, payloads: payloads, futures: make(chan *log.Future, Window)}
		if err := p.open(ctx, codec); err != nil {
			yield(Outcome{Err: err})
			return
		}
		submitting, stop := context.WithCancel(ctx)
		defer stop()
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

// pipeline is one append under way.
type pipeline struct {
	local    *Local
	ref      Ref
	payloads Payloads
	futures  chan *log.Future // in the order of the records

	// Settled by open.
	group *engine.Group
	codec string
	fresh bool // the name has to be registered with the first record
}

// open settles where to append and in which codec, if the directory agrees.
func (p *pipeline) open(ctx context.Context, codec string) error {
	l, r := p.local, p.ref
	if codec != "" && codec != codecRaw && codec != codecJSON {
		return fmt.Errorf("%w: codec %q: this API writes %s and %s", ErrRequest, codec, codecRaw, codecJSON)
	}
	if r.Key() == log.DirectoryKey() {
		return fmt.Errorf("%w: the directory is written by opening streams", ErrRequest)
	}
	var err error
	if p.group, err = l.place(r); err != nil {
		return err
	}
	e, known, err := l.lookUp(ctx, r)
	if err != nil {
		return err
	}
	p.codec = cmp.Or(codec, e.Codec, codecRaw)
	switch {
	case !known:
		p.fresh = !r.isKey()
		return log.DirectoryEntry{Name: r.Name, Kind: log.KindStream, Codec: p.codec}.Validate()
	case e.Kind != log.KindStream || e.Codec != p.codec:
		return fmt.Errorf("%w: the log %s is a %s of %s, not a %s of %s", log.ErrCodec, r, e.Kind, e.Codec, log.KindStream, p.codec)
	case p.codec != codecRaw && p.codec != codecJSON:
		return fmt.Errorf("%w: the values of the log %s are written as %s; this API writes %s and %s", log.ErrCodec, r, e.Codec, codecRaw, codecJSON)
	}
	return nil
}

// register writes the new name to the directory, unless somebody has been
// faster, who may have another codec in mind.
func (p *pipeline) register(ctx context.Context) error {
	var err error
	if p.codec == codecJSON {
		_, err = log.StreamDef[json.RawMessage]{Name: p.ref.Name, Codec: log.JSON[json.RawMessage]()}.Open(ctx, p.group)
	} else {
		_, err = log.StreamDef[[]byte]{Name: p.ref.Name, Codec: log.Raw()}.Open(ctx, p.group)
	}
	return err
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
		if err == nil && p.codec == codecJSON {
			line.Reset()
			if err = compact(&line, payload); err == nil {
				payload = line.Bytes()
			}
		}
		if err == nil && p.fresh {
			// Not before there is a record that can be written: what is refused changes
			// nothing.
			if err = log.CheckAppend(key, [][]byte{payload}); err == nil {
				err = p.register(ctx)
			}
			p.fresh = false
		}
		if err != nil {
			f := log.NewFuture()
			f.Complete(log.Pointer{}, err)
			p.futures <- f
			return
		}
		f := p.group.AppendAsync(ctx, key, payload)
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

// compact checks that the payload is JSON and appends it to line without
// needless white space.
func compact(line *bytes.Buffer, payload []byte) error {
	if !utf8.Valid(payload) {
		return fmt.Errorf("%w: it is not UTF-8", ErrValue)
	}
	if err := json.Compact(line, payload); err != nil {
		return fmt.Errorf("%w: it is not JSON: %w", ErrValue, err)
	}
	return nil
}
