package natspeer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"

	"github.com/mosaik-engine/mosaik/bench/peers/measure"
	"github.com/mosaik-engine/mosaik/bench/peers/payload"
)

const (
	batchRecords = 100
	inFlight     = 4096 // asynchronous single publishes
	callerCount  = 64   // synchronous publishers
	atomicCount  = 16   // publishers of atomic batches in the wide variant; the server allows 50
	subjectCount = 1000
	ackTimeout   = 30 * time.Second
	clockEvery   = 64 // records between two looks at the clock where an operation has no timing of its own
)

// publishFast uses the fast-ingest batch publish of server 2.14 and ADR-50: one open batch, the
// server acknowledges every 100 records, and the client stops when `outstanding` such
// acknowledgements are missing. The latency sampled is from handing over the last record of a
// hundred to seeing an acknowledgement that covers it.
func publishFast(ctx context.Context, js jetstream.JetStream, st stream, limits measure.Limits, outstanding uint16) (measure.Sample, error) {
	var sample measure.Sample
	var async firstError
	publisher, err := jetstreamext.NewFastPublisher(js,
		jetstreamext.FastPublishFlowControl{Flow: batchRecords, MaxOutstandingAcks: outstanding, AckTimeout: ackTimeout},
		jetstreamext.WithFastPublisherErrorHandler(async.set))
	if err != nil {
		return sample, err
	}
	type mark struct {
		last uint64 // batch sequence of the last record of a hundred
		sent time.Time
	}
	var marks []mark // not acknowledged yet, oldest first
	settled := func(upTo uint64) {
		if len(marks) == 0 || marks[0].last > upTo {
			return
		}
		now := time.Now()
		for len(marks) > 0 && marks[0].last <= upTo {
			sample.Latencies = append(sample.Latencies, now.Sub(marks[0].sent))
			marks = marks[1:]
		}
	}
	subject, value := st.subject(0), make([]byte, limits.Size)
	start := time.Now()
	for sample.Records < limits.Records && ctx.Err() == nil {
		payload.Fill(value, uint64(sample.Records))
		ack, err := publisher.Add(subject, value)
		if err != nil {
			return sample, errors.Join(err, async.get())
		}
		sample.Records++
		settled(ack.AckSequence)
		if sample.Records%batchRecords == 0 {
			now := time.Now()
			marks = append(marks, mark{last: ack.BatchSequence, sent: now})
			if now.Sub(start) > limits.Time {
				break
			}
		}
	}
	if err := ctx.Err(); err != nil {
		return sample, err
	}
	if _, err := publisher.Close(ctx); err != nil {
		return sample, errors.Join(fmt.Errorf("mosaik: end of batch: %w", err), async.get())
	}
	sample.Elapsed = time.Since(start)
	settled(uint64(sample.Records))
	return sample, async.get()
}

// firstError keeps the first error given to it; callbacks of the client library report here.
type firstError struct {
	mu  sync.Mutex
	err error
}

func (f *firstError) set(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.err = err
	}
}

func (f *firstError) get() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// shared is what concurrent writers of one workload have in common.
type shared struct {
	js     jetstream.JetStream
	stream stream
	limits measure.Limits
	start  time.Time
	taken  atomic.Int64 // records given out to writers

	done sync.WaitGroup
	err  firstError
	mu   struct {
		sync.Mutex
		records   int
		latencies []time.Duration
	}
}

// take reserves up to n records and returns how many, and the sequence number of the first.
func (s *shared) take(n int) (first, count int) {
	first = int(s.taken.Add(int64(n))) - n
	return first, max(0, min(n, s.limits.Records-first))
}

func (s *shared) add(records int, latencies []time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.records += records
	s.mu.latencies = append(s.mu.latencies, latencies...)
}

func (s *shared) sample() (measure.Sample, error) {
	elapsed := time.Since(s.start)
	return measure.Sample{Records: s.mu.records, Elapsed: elapsed, Latencies: s.mu.latencies}, s.err.get()
}

// callers publish one record at a time and wait for its acknowledgement. They share a connection,
// as the goroutines of one service do, which lets the client write several records at once.
type callers struct{ shared }

func publishSingly(ctx context.Context, js jetstream.JetStream, st stream, limits measure.Limits, count int) (measure.Sample, error) {
	c := &callers{shared{js: js, stream: st, limits: limits, start: time.Now()}}
	c.done.Add(count)
	for range count {
		go c.runWriter(ctx)
	}
	c.done.Wait()
	return c.sample()
}

func (c *callers) runWriter(ctx context.Context) {
	defer c.done.Done()
	subject, value := c.stream.subject(0), make([]byte, c.limits.Size)
	var latencies []time.Duration
	for now := time.Now(); now.Sub(c.start) < c.limits.Time; {
		first, count := c.take(1)
		if count == 0 {
			break
		}
		payload.Fill(value, uint64(first))
		if _, err := c.js.Publish(ctx, subject, value); err != nil {
			c.err.set(err)
			break
		}
		done := time.Now()
		latencies = append(latencies, done.Sub(now))
		now = done
	}
	c.add(len(latencies), latencies)
}

// atomicBatches publishes atomic batches of a hundred, one open batch a writer. The acknowledgement
// of a batch's first record, which the client asks for unless told not to, is left out: it costs a
// second round trip.
type atomicBatches struct{ shared }

func publishAtomic(ctx context.Context, js jetstream.JetStream, st stream, limits measure.Limits, count int) (measure.Sample, error) {
	a := &atomicBatches{shared{js: js, stream: st, limits: limits, start: time.Now()}}
	a.done.Add(count)
	for range count {
		go a.runWriter(ctx)
	}
	a.done.Wait()
	return a.sample()
}

func (a *atomicBatches) runWriter(ctx context.Context) {
	defer a.done.Done()
	var latencies []time.Duration
	records := 0
	for now := time.Now(); now.Sub(a.start) < a.limits.Time; {
		first, count := a.take(batchRecords)
		if count == 0 {
			break
		}
		if err := a.publish(ctx, first, count); err != nil {
			a.err.set(err)
			break
		}
		records += count
		done := time.Now()
		latencies = append(latencies, done.Sub(now))
		now = done
	}
	a.add(records, latencies)
}

func (a *atomicBatches) publish(ctx context.Context, first, count int) error {
	batch, err := jetstreamext.NewBatchPublisher(a.js, jetstreamext.BatchFlowControl{AckFirst: false, AckTimeout: ackTimeout})
	if err != nil {
		return err
	}
	subject, value := a.stream.subject(0), make([]byte, a.limits.Size)
	for i := range count - 1 {
		payload.Fill(value, uint64(first+i))
		if err := batch.Add(subject, value); err != nil {
			return err
		}
	}
	payload.Fill(value, uint64(first+count-1))
	if _, err := batch.Commit(ctx, subject, value); err != nil {
		return fmt.Errorf("mosaik: commit of an atomic batch: %w", err)
	}
	return nil
}

// pipeline publishes single records without waiting and keeps at most inFlight of them
// unacknowledged.
type pipeline struct {
	// sent carries the publishes in order. Its capacity is the window: with one record being waited
	// for and one about to enter, inFlight records are unacknowledged at most.
	sent chan pending
	done chan struct{} // closed when the collector has seen the last acknowledgement

	failed    atomic.Bool
	err       error           // read after done
	latencies []time.Duration // read after done
}

type pending struct {
	future jetstream.PubAckFuture
	at     time.Time
}

// publishPipelined spreads the records over the first `subjects` subjects in turn.
func publishPipelined(ctx context.Context, js jetstream.JetStream, st stream, limits measure.Limits, subjects int) (measure.Sample, error) {
	names := make([]string, subjects)
	for i := range names {
		names[i] = st.subject(i)
	}
	// The client keeps a record until it is acknowledged, so a buffer is used again only after the
	// window has moved past it.
	const ring = inFlight + 2
	buffers := make([]byte, ring*limits.Size)

	p := &pipeline{sent: make(chan pending, inFlight-2), done: make(chan struct{})}
	go p.runCollector()
	var sample measure.Sample
	var err error
	start := time.Now()
	for now := start; sample.Records < limits.Records && !p.failed.Load() && ctx.Err() == nil; {
		at := sample.Records % ring * limits.Size
		value := buffers[at : at+limits.Size : at+limits.Size]
		payload.Fill(value, uint64(sample.Records))
		now = time.Now()
		if sample.Records%clockEvery == 0 && now.Sub(start) > limits.Time {
			break
		}
		var future jetstream.PubAckFuture
		if future, err = js.PublishMsgAsync(&nats.Msg{Subject: names[sample.Records%subjects], Data: value}); err != nil {
			break
		}
		p.sent <- pending{future, now}
		sample.Records++
	}
	close(p.sent)
	<-p.done
	sample.Elapsed = time.Since(start)
	sample.Latencies = p.latencies
	return sample, errors.Join(err, p.err, ctx.Err())
}

// runCollector never stops before sent is closed, so the publisher cannot block for ever: every
// future is resolved, at the latest by the client's own timeout.
func (p *pipeline) runCollector() {
	defer close(p.done)
	for next := range p.sent {
		select {
		case <-next.future.Ok():
			p.latencies = append(p.latencies, time.Since(next.at))
		case err := <-next.future.Err():
			if p.err == nil {
				p.err = err
			}
			p.failed.Store(true)
		}
	}
}
