package log

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync/atomic"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
)

// StreamDef defines a stream: its name, the type of its values and how they are
// encoded. It is a plain value, usually in a package variable that writers and
// readers share:
//
//	var Ticks = log.StreamDef[Tick]{Name: "oracle.price"}
type StreamDef[T any] struct {
	Name  string   // see identity.ValidateName
	Codec Codec[T] // nil means CBOR[T]()
}

// Key returns the key of the stream's log.
func (d StreamDef[T]) Key() identity.ID { return identity.NewID(d.Name) }

// codec returns the codec to use.
func (d StreamDef[T]) codec() Codec[T] {
	if d.Codec == nil {
		return CBOR[T]()
	}
	return d.Codec
}

// Reader returns a reader of the stream as s holds it. It reads nothing yet: it
// fails only on an invalid name, with identity.ErrName. A stream nobody has
// written to is empty.
func (d StreamDef[T]) Reader(s Scanner) (*StreamReader[T], error) {
	codec := d.codec()
	entry := DirectoryEntry{Name: d.Name, Kind: KindStream, Codec: codec.Name()}
	if err := entry.Validate(); err != nil {
		return nil, fmt.Errorf("stream: %w", err)
	}
	return &StreamReader[T]{s: s, key: d.Key(), codec: codec, entry: entry}, nil
}

// Open returns the stream for reading and writing. The first Open of a stream
// anywhere writes its name, kind and codec to the directory; each later one
// compares and fails with ErrCodec if they differ.
func (d StreamDef[T]) Open(ctx context.Context, w Writer) (*Stream[T], error) {
	r, err := d.Reader(w)
	if err != nil {
		return nil, err
	}
	if err := Register(ctx, w, r.entry); err != nil {
		return nil, fmt.Errorf("open stream %q: %w", d.Name, err)
	}
	r.agreed.Store(true)
	return &Stream[T]{StreamReader: r, w: w}, nil
}

// Record is one value of a stream with its place.
type Record[T any] struct {
	Seq    uint64    // dense per stream, from 1
	Commit uint64    // number of the group's commit that holds the record
	Time   time.Time // of that commit, in UTC
	Value  T         // shares no memory with the log

	// run points at the first record of the run, for all records of the run.
	run *Pointer
}

// Pointer returns the evidence pointer at the record. The zero Record has the
// zero Pointer.
func (r Record[T]) Pointer() Pointer {
	if r.run == nil {
		return Pointer{}
	}
	p := *r.run
	p.Seq = r.Seq
	return p
}

// StreamReader reads a stream. It is safe for concurrent use.
//
// All its iterators yield pairs of a record and an error. An error is the last
// pair and comes with the zero Record; a loop over them must look at both
// values. Breaking out of the loop stops the reading and leaves nothing behind.
// An iterator may be ranged over several times and starts anew each time.
//
// Where the directory says that the stream has another codec, reading fails
// with ErrCodec before the first record. A record that does not decode ends the
// reading with ErrCodec and its seq; reading on is From Seq(seq+1).
type StreamReader[T any] struct {
	s      Scanner
	key    identity.ID
	codec  Codec[T]
	entry  DirectoryEntry // what the definition says the stream is
	agreed atomic.Bool    // the directory has said the same; it cannot change its mind
}

// Key returns the key of the stream's log.
func (r *StreamReader[T]) Key() identity.ID { return r.key }

// Name returns the name of the stream.
func (r *StreamReader[T]) Name() string { return r.entry.Name }

// All yields the records from the position to the end of the stream as it is
// when the loop starts.
func (r *StreamReader[T]) All(ctx context.Context, from Position) iter.Seq2[Record[T], error] {
	return r.Query(ctx, from, Filter{}, false)
}

// Tail yields the records from the position on and then waits for new ones,
// until the loop breaks or ctx ends. Then its last error wraps ctx.Err().
func (r *StreamReader[T]) Tail(ctx context.Context, from Position) iter.Seq2[Record[T], error] {
	return r.Query(ctx, from, Filter{}, true)
}

// Query yields the records from the position on that the filter lets pass.
// With follow it then waits for new ones, as Tail does. Values that the filter
// drops are not decoded.
func (r *StreamReader[T]) Query(ctx context.Context, from Position, filter Filter, follow bool) iter.Seq2[Record[T], error] {
	return func(yield func(Record[T], error) bool) {
		fail := func(err error) { yield(Record[T]{}, fmt.Errorf("stream %q: %w", r.entry.Name, err)) }
		if err := r.agree(ctx); err != nil {
			fail(err)
			return
		}
		for run, err := range r.s.Scan(ctx, Query{Key: r.key, From: from, Follow: follow, Filter: filter}) {
			if err != nil {
				fail(err)
				return
			}
			first, at := run.Pointer(run.FirstSeq), time.Unix(0, run.Time).UTC()
			for seq, payload := range run.Records() {
				if !filter.Keeps(seq, payload) {
					continue
				}
				value, err := r.codec.Decode(payload)
				if err != nil {
					fail(fmt.Errorf("record %d: %w", seq, err))
					return
				}
				if !yield(Record[T]{Seq: seq, Commit: run.Commit, Time: at, Value: value, run: &first}, nil) {
					return
				}
			}
		}
	}
}

// agree compares the definition with the directory, once. A scanner without an
// entry, such as an archive of this one log or a group where nobody has opened
// the stream yet, has nothing to compare with.
func (r *StreamReader[T]) agree(ctx context.Context) error {
	if r.agreed.Load() {
		return nil
	}
	e, err := LookUp(ctx, r.s, r.key)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err == nil {
		err = e.agrees(r.entry)
	}
	if err != nil {
		return err
	}
	r.agreed.Store(true)
	return nil
}

// Stream is a StreamReader that can also append. It is safe for concurrent use.
type Stream[T any] struct {
	*StreamReader[T]
	w Writer
}

// Append adds a value at the end of the stream and returns the pointer at its
// record. See Writer.Append for what an error leaves open; ErrCodec, for a value
// that does not encode, means that nothing was written.
func (s *Stream[T]) Append(ctx context.Context, v T) (Pointer, error) {
	return s.AppendBatch(ctx, v)
}

// AppendBatch adds the values as consecutive records in one commit, all or
// none, and returns the pointer at the first. Together they must not exceed
// MaxPayload and MaxRecords.
func (s *Stream[T]) AppendBatch(ctx context.Context, vs ...T) (Pointer, error) {
	payloads, err := s.encode(vs)
	if err != nil {
		return Pointer{}, err
	}
	p, err := s.w.Append(ctx, s.key, payloads...)
	if err != nil {
		return Pointer{}, fmt.Errorf("stream %q: %w", s.entry.Name, err)
	}
	return p, nil
}

// AppendAsync is AppendBatch that does not wait: the values are encoded at once
// and not kept, the outcome comes through the Future.
func (s *Stream[T]) AppendAsync(ctx context.Context, vs ...T) *Future {
	payloads, err := s.encode(vs)
	if err != nil {
		f := NewFuture()
		f.Complete(Pointer{}, err)
		return f
	}
	return s.w.AppendAsync(ctx, s.key, payloads...)
}

// encode encodes the values behind each other in one buffer. It stops at the
// limit of one append, so that no value, however large, is encoded in vain
// behind others that are too much already.
func (s *Stream[T]) encode(vs []T) ([][]byte, error) {
	if len(vs) > MaxRecords {
		return nil, fmt.Errorf("stream %q: %w: %d values in one append, at most %d are allowed", s.entry.Name, ErrOversize, len(vs), MaxRecords)
	}
	var buf []byte
	ends := make([]int, 0, len(vs))
	for i, v := range vs {
		var err error
		if buf, err = s.codec.Append(buf, v); err != nil {
			return nil, fmt.Errorf("stream %q: value %d: %w", s.entry.Name, i, err)
		}
		if len(buf) > MaxPayload {
			return nil, fmt.Errorf("stream %q: %w: values 0 to %d are %d bytes, at most %d are allowed in one append", s.entry.Name, ErrOversize, i, len(buf), MaxPayload)
		}
		ends = append(ends, len(buf))
	}
	payloads := make([][]byte, len(vs))
	start := 0
	for i, end := range ends {
		payloads[i] = buf[start:end:end]
		start = end
	}
	return payloads, nil
}
