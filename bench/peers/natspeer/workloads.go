package natspeer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/mosaik-engine/mosaik/bench/peers/measure"
)

const (
	defaultOutstanding = 2  // of the client library: 200 records unacknowledged
	wideOutstanding    = 40 // 4,000 records unacknowledged, as many as the pipelined workload
	grace              = 2 * time.Minute
)

// Workloads lists what Run knows, in the order in which they must be run: the disk workload stops
// the servers, so nothing can follow it.
func Workloads() []measure.Workload {
	return []measure.Workload{
		{Name: "batch100", Axis: "append, fast publish, acknowledged every 100", Unit: measure.PerSecond, Replicas: replicas},
		{Name: "batch100-wide", Axis: "append, fast publish, 4,000 in flight", Unit: measure.PerSecond, Replicas: replicas},
		{Name: "batch100-atomic", Axis: "append, atomic batches of 100, one at a time", Unit: measure.PerSecond, Replicas: replicas},
		{Name: "batch100-atomic16", Axis: "append, atomic batches of 100, 16 at a time", Unit: measure.PerSecond, Replicas: replicas},
		{Name: "pipelined", Axis: "append, single records, 4,096 in flight", Unit: measure.PerSecond, Replicas: replicas},
		{Name: "subjects1000", Axis: "the same over 1,000 subjects in turn", Unit: measure.PerSecond, Replicas: replicas, Baseline: "pipelined"},
		{Name: "writers64", Axis: "64 synchronous writers", Unit: measure.PerSecond, Replicas: replicas},
		{Name: "writer1", Axis: "one synchronous writer", Unit: measure.Micros, Replicas: replicas},
		{Name: "replay", Axis: "replay from the beginning", Unit: measure.PerSecond, Replicas: replicas},
		{Name: "replay-r1", Axis: "replay from the beginning, one replica", Unit: measure.PerSecond, Replicas: 1},
		{Name: "seek", Axis: "seek, first record from a consumer", Unit: measure.Micros, Replicas: replicas},
		{Name: "seek-get", Axis: "seek, direct get of one record", Unit: measure.Micros, Replicas: replicas},
		{Name: "disk", Axis: "bytes on disk", Unit: measure.BytesPerRecord, Replicas: replicas},
	}
}

// work measures something on a stream it may use as it likes.
type work func(context.Context, jetstream.JetStream, stream, measure.Limits) (measure.Sample, error)

// Run implements measure.Session.
func (c *Cluster) Run(ctx context.Context, workload string, limits measure.Limits) (measure.Sample, error) {
	// The limits bound the measuring; this bounds a peer that stopped answering.
	ctx, cancel := context.WithTimeout(ctx, 2*limits.Time+grace)
	defer cancel()
	sample, err := c.run(ctx, workload, limits)
	if err != nil {
		return measure.Sample{}, fmt.Errorf("mosaik: jetstream %s: %w", workload, err)
	}
	return sample, nil
}

func (c *Cluster) run(ctx context.Context, workload string, limits measure.Limits) (measure.Sample, error) {
	fast := func(outstanding uint16) work {
		return func(ctx context.Context, js jetstream.JetStream, st stream, limits measure.Limits) (measure.Sample, error) {
			return publishFast(ctx, js, st, limits, outstanding)
		}
	}
	counted := func(publish func(context.Context, jetstream.JetStream, stream, measure.Limits, int) (measure.Sample, error), n int) work {
		return func(ctx context.Context, js jetstream.JetStream, st stream, limits measure.Limits) (measure.Sample, error) {
			return publish(ctx, js, st, limits, n)
		}
	}
	switch workload {
	case "batch100":
		return c.onEmpty(ctx, workload, limits, fast(defaultOutstanding))
	case "batch100-wide":
		return c.onEmpty(ctx, workload, limits, fast(wideOutstanding))
	case "batch100-atomic":
		return c.onEmpty(ctx, workload, limits, counted(publishAtomic, 1))
	case "batch100-atomic16":
		return c.onEmpty(ctx, workload, limits, counted(publishAtomic, atomicCount))
	case "pipelined":
		return c.onEmpty(ctx, workload, limits, counted(publishPipelined, 1))
	case "subjects1000":
		return c.onEmpty(ctx, workload, limits, counted(publishPipelined, subjectCount))
	case "writers64":
		return c.onEmpty(ctx, workload, limits, counted(publishSingly, callerCount))
	case "writer1":
		return c.onEmpty(ctx, workload, limits, counted(publishSingly, 1))
	case "replay":
		return c.onFilled(ctx, replicas, limits, replay)
	case "replay-r1":
		return c.onFilled(ctx, 1, limits, replay)
	case "seek":
		return c.onFilled(ctx, replicas, limits, seek)
	case "seek-get":
		return c.onFilled(ctx, replicas, limits, get)
	case "disk":
		return c.disk(ctx, limits)
	}
	return measure.Sample{}, fmt.Errorf("mosaik: no workload %q", workload)
}

// onEmpty measures a publishing workload on a new stream, checks that the stream holds what was
// acknowledged, and deletes it.
func (c *Cluster) onEmpty(ctx context.Context, name string, limits measure.Limits, do work) (measure.Sample, error) {
	st, err := c.create(ctx, name, replicas, false)
	if err != nil {
		return measure.Sample{}, err
	}
	sample, err := c.on(ctx, st, limits, do)
	if err == nil {
		err = c.settle(ctx, st, sample.Records)
	}
	return sample, errors.Join(err, c.remove(ctx, st))
}

// on connects to the stream's leader and calls do.
func (c *Cluster) on(ctx context.Context, st stream, limits measure.Limits, do work) (measure.Sample, error) {
	nc, js, err := c.client(ctx, st,
		jetstream.WithPublishAsyncMaxPending(2*inFlight), // the workload keeps its own, exact window
		jetstream.WithPublishAsyncTimeout(ackTimeout),
		jetstream.WithDefaultTimeout(ackTimeout))
	if err != nil {
		return measure.Sample{}, err
	}
	defer nc.Close()
	return do(ctx, js, st, limits)
}

// onFilled measures a reading workload on a stream that all reading workloads of this number of
// replicas share.
func (c *Cluster) onFilled(ctx context.Context, copies int, limits measure.Limits, do work) (measure.Sample, error) {
	st, err := c.fill(ctx, copies, limits)
	if err != nil {
		return measure.Sample{}, err
	}
	return c.on(ctx, st, limits, do)
}

// fill writes the stream that is read, once. It is bounded like a measured workload, so that a
// durable configuration is not asked for more records than it can write.
func (c *Cluster) fill(ctx context.Context, copies int, limits measure.Limits) (stream, error) {
	if st, ok := c.filled[copies]; ok {
		return st, nil
	}
	// One replica with sync_interval: always calls fsync for every record; how it was written makes
	// no difference to the reader.
	st, err := c.create(ctx, fmt.Sprintf("filled-r%d", copies), copies, copies == 1)
	if err != nil {
		return stream{}, err
	}
	sample, err := c.on(ctx, st, limits, func(ctx context.Context, js jetstream.JetStream, st stream, limits measure.Limits) (measure.Sample, error) {
		return publishPipelined(ctx, js, st, limits, 1)
	})
	if err != nil {
		return stream{}, err
	}
	if err := c.settle(ctx, st, sample.Records); err != nil {
		return stream{}, err
	}
	st.records = sample.Records
	c.filled[copies] = st
	return st, nil
}

// disk weighs the filled R3 stream: its Raft logs as they stand now, and its record files after the
// servers have stopped. The filled R1 stream has no Raft group, and every other stream has been
// deleted with its own.
func (c *Cluster) disk(ctx context.Context, limits measure.Limits) (measure.Sample, error) {
	st, err := c.fill(ctx, replicas, limits)
	if err != nil {
		return measure.Sample{}, err
	}
	sample := measure.Sample{Records: st.records}
	if sample.LogBytes, err = c.logBytes(); err != nil {
		return measure.Sample{}, err
	}
	if err := c.Close(); err != nil {
		return measure.Sample{}, err
	}
	sample.Bytes, err = c.recordBytes(st)
	return sample, err
}
