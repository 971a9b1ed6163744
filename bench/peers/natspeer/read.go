package natspeer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/mosaik-engine/mosaik/bench/peers/measure"
	"github.com/mosaik-engine/mosaik/bench/peers/payload"
)

const (
	pullRecords = 10000 // records asked for at once when replaying; the client's default is 500
	mostSeeks   = 200
	seekExpiry  = time.Second     // shortest the client allows
	patience    = 5 * time.Second // without any record before a consumer is given up and made anew
	attempts    = 5
)

// errSilent means that a consumer was created and delivered nothing at all.
//
// The server puts an ordered consumer on any of the stream's replicas. When the client's first
// request overtakes the news of the consumer between two servers it is refused or lost; usually the
// client asks again once it has missed two heartbeats, but in some runs it never did.
var errSilent = errors.New("mosaik: consumer delivers nothing")

// replay reads a filled stream from its beginning with an ordered consumer and checks the order and
// every byte. The time runs from before the consumer's creation; a silent consumer is replaced and
// the time starts anew, since it says nothing about the rate.
func replay(ctx context.Context, js jetstream.JetStream, st stream, limits measure.Limits) (measure.Sample, error) {
	for range attempts {
		sample, err := replayOnce(ctx, js, st, limits)
		if !errors.Is(err, errSilent) {
			return sample, err
		}
	}
	return measure.Sample{}, errSilent
}

// reader counts and checks what a consumer delivers.
type reader struct {
	start    time.Time
	stream   stream
	limit    time.Duration
	finished chan struct{} // closed at the end of the measurement

	mu struct {
		sync.Mutex
		records int
		ended   bool
		elapsed time.Duration
		err     error
	}
}

func (r *reader) handle(msg jetstream.Msg) {
	seq, err := payload.Check(msg.Data())
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.ended {
		return
	}
	if err == nil && seq != uint64(r.mu.records) {
		err = fmt.Errorf("%w: record %d came as number %d", payload.ErrCorrupt, seq, r.mu.records)
	}
	if err != nil {
		r.endLocked(err)
		return
	}
	r.mu.records++
	look := r.mu.records == 1 || r.mu.records%clockEvery == 0
	if r.mu.records == r.stream.records || look && time.Since(r.start) > r.limit {
		r.endLocked(nil)
	}
}

// endLocked stops the clock. REQUIRES: r.mu.
func (r *reader) endLocked(err error) {
	if r.mu.ended {
		return
	}
	r.mu.ended, r.mu.elapsed, r.mu.err = true, time.Since(r.start), err
	close(r.finished)
}

// endIf stops the clock if whether some record has arrived equals some.
func (r *reader) endIf(some bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.records > 0 == some {
		r.endLocked(err)
	}
}

func replayOnce(ctx context.Context, js jetstream.JetStream, st stream, limits measure.Limits) (measure.Sample, error) {
	r := &reader{start: time.Now(), stream: st, limit: limits.Time, finished: make(chan struct{})}
	consumer, err := js.OrderedConsumer(ctx, st.name, jetstream.OrderedConsumerConfig{DeliverPolicy: jetstream.DeliverAllPolicy})
	if err != nil {
		return measure.Sample{}, err
	}
	consuming, err := consumer.Consume(r.handle, jetstream.PullMaxMessages(pullRecords))
	if err != nil {
		return measure.Sample{}, err
	}
	defer consuming.Stop()
	limit, silence := time.NewTimer(limits.Time), time.NewTimer(patience)
	defer limit.Stop()
	defer silence.Stop()
	for {
		select {
		case <-limit.C:
			r.endIf(true, nil) // a delivery that stopped half-way counts for the whole time
		case <-silence.C:
			r.endIf(false, errSilent)
		case <-ctx.Done():
			return measure.Sample{}, fmt.Errorf("mosaik: replay: %w", ctx.Err())
		case <-r.finished:
			r.mu.Lock()
			defer r.mu.Unlock()
			return measure.Sample{Records: r.mu.records, Elapsed: r.mu.elapsed}, r.mu.err
		}
	}
}

// seek times a new ordered consumer that starts at an old record, until that record is there. A
// consumer that loses its first request stays in the samples, since users wait for it too; the short
// expiry makes the client ask again after one second instead of ten.
func seek(ctx context.Context, js jetstream.JetStream, st stream, limits measure.Limits) (measure.Sample, error) {
	return seekRepeatedly(ctx, st, limits, func(seq uint64) ([]byte, func() error, error) {
		for range attempts {
			data, tidy, err := seekOnce(ctx, js, st, seq)
			if ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
				return data, tidy, err
			}
		}
		return nil, nil, errSilent
	})
}

func seekOnce(ctx context.Context, js jetstream.JetStream, st stream, seq uint64) ([]byte, func() error, error) {
	consumer, err := js.OrderedConsumer(ctx, st.name, jetstream.OrderedConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:   seq,
	})
	if err != nil {
		return nil, nil, err
	}
	messages, err := consumer.Messages(jetstream.PullMaxMessages(2), jetstream.PullExpiry(seekExpiry))
	if err != nil {
		return nil, nil, err
	}
	patient, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	msg, err := messages.Next(jetstream.NextContext(patient))
	if err != nil {
		messages.Stop()
		return nil, nil, err
	}
	tidy := func() error {
		messages.Stop()
		err := js.DeleteConsumer(ctx, st.name, consumer.CachedInfo().Name)
		if errors.Is(err, jetstream.ErrConsumerNotFound) {
			return nil // replaced meanwhile, and removed by the client
		}
		return err
	}
	return msg.Data(), tidy, nil
}

// get times the direct read of one old record by its sequence, which needs no consumer.
func get(ctx context.Context, js jetstream.JetStream, st stream, limits measure.Limits) (measure.Sample, error) {
	handle, err := js.Stream(ctx, st.name)
	if err != nil {
		return measure.Sample{}, err
	}
	return seekRepeatedly(ctx, st, limits, func(seq uint64) ([]byte, func() error, error) {
		msg, err := handle.GetMsg(ctx, seq)
		if err != nil {
			return nil, nil, err
		}
		return msg.Data, nil, nil
	})
}

// seekRepeatedly calls read with stream sequences spread over the stream. The function read
// returns, nil if none, is called outside the time measured.
func seekRepeatedly(ctx context.Context, st stream, limits measure.Limits, read func(seq uint64) ([]byte, func() error, error)) (measure.Sample, error) {
	var sample measure.Sample
	start := time.Now()
	for i := range min(mostSeeks, st.records) {
		if time.Since(start) > limits.Time {
			break
		}
		record := measure.Spread(i, st.records)
		began := time.Now()
		data, tidy, err := read(record + 1) // stream sequences start at 1
		if err != nil {
			return sample, err
		}
		took := time.Since(began)
		sample.Latencies = append(sample.Latencies, took)
		sample.Elapsed += took
		sample.Records++
		got, err := payload.Check(data)
		if err == nil && got != record {
			err = fmt.Errorf("%w: asked for record %d, got %d", payload.ErrCorrupt, record, got)
		}
		if tidy != nil {
			err = errors.Join(err, tidy())
		}
		if err != nil {
			return sample, err
		}
	}
	return sample, ctx.Err()
}
