package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/replay"
)

// Rows about reading.
const (
	rowReplay = "replay"
	rowRemote = "remote"
	rowSeek   = "seek"

	workReplayStream  = "replay/stream"
	workRemoteCommits = "remote/commits"
)

// filledStores are what is read: the same records in a store of ours and in
// pebble, each written once, closed, and opened again for every trial.
type filledStores struct {
	mosaik, pebble string // directories, empty until they are written
	large          string // of the row "open", of ours alone
	entries        string // a map, of ours alone; pebble reads its rows as well
	largeMap       string // of the row "map-open"
}

// withMosaik opens the filled store of ours, one replica, which it writes first
// if need be.
func (s *session) withMosaik(ctx context.Context, read func(*nodes) ([]outcome, error)) (_ []outcome, err error) {
	o := nodeOptions{dir: s.filled.mosaik, replicas: 1, groups: 1, keys: 1}
	if s.filled.mosaik == "" {
		o.dir = s.newDir("filled-mosaik")
		if err := s.fillMosaik(ctx, o); err != nil {
			return nil, errors.Join(err, os.RemoveAll(o.dir))
		}
		s.filled.mosaik = o.dir
	}
	n, err := openNodes(ctx, o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	return read(n)
}

// fillLoad writes all records, in the batches that the row "batch" has.
func (s *session) fillLoad() load {
	l := s.loadOf(rowBatch)
	l.keys, l.records, l.time = 1, max(s.Records, s.Batch), maxTime
	return l
}

func (s *session) fillMosaik(ctx context.Context, o nodeOptions) error {
	n, err := openNodes(ctx, o)
	if err != nil {
		return err
	}
	_, err = n.fill(ctx, s.fillLoad())
	return errors.Join(err, n.Close())
}

// withPebble does the same with pebble alone.
func (s *session) withPebble(ctx context.Context, read func(*barePebble) ([]outcome, error)) (_ []outcome, err error) {
	dir := s.filled.pebble
	if dir == "" {
		dir = s.newDir("filled-pebble")
		if err := s.fillPebble(ctx, dir); err != nil {
			return nil, errors.Join(err, os.RemoveAll(dir))
		}
		s.filled.pebble = dir
	}
	p, err := openPebble(dir, true)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	return read(p)
}

func (s *session) fillPebble(ctx context.Context, dir string) error {
	p, err := openPebble(dir, false)
	if err != nil {
		return err
	}
	l := s.fillLoad()
	l.window = 1
	_, err = l.run(ctx, p, 0)
	return errors.Join(err, p.flush(), p.Close())
}

// replayTrials read everything there is, in process.
func (s *session) replayTrials() []trial {
	return []trial{
		{label: subjectMosaik, run: func(ctx context.Context) ([]outcome, error) {
			return s.withMosaik(ctx, func(n *nodes) ([]outcome, error) {
				return s.passes(ctx, rowReplay, subjectMosaik, func() (int, error) { return replayCommits(ctx, n.group[0], n.records()) })
			})
		}},
		{label: workReplayStream, run: func(ctx context.Context) ([]outcome, error) {
			return s.withMosaik(ctx, func(n *nodes) ([]outcome, error) {
				return s.passes(ctx, workReplayStream, subjectMosaik, func() (int, error) { return replayStream(ctx, n.engines[0]) })
			})
		}},
		{label: subjectPebble, run: func(ctx context.Context) ([]outcome, error) {
			return s.withPebble(ctx, func(p *barePebble) ([]outcome, error) {
				return s.passes(ctx, rowReplay, subjectPebble, p.replay)
			})
		}},
	}
}

// remoteTrials read everything over HTTP.
func (s *session) remoteTrials() []trial {
	if s.Remote == nil {
		return nil
	}
	over := func(workload string, read func(context.Context, RemoteNode, int) (int, error)) trial {
		return trial{label: workload, run: func(ctx context.Context) ([]outcome, error) {
			return s.withMosaik(ctx, func(n *nodes) (_ []outcome, err error) {
				remote, err := s.Remote(ctx, n.engines[0])
				if err != nil {
					return nil, err
				}
				defer func() { err = errors.Join(err, remote.Close()) }()
				return s.passes(ctx, workload, subjectMosaik, func() (int, error) { return read(ctx, remote, n.records()) })
			})
		}}
	}
	return []trial{
		over(rowRemote, func(ctx context.Context, r RemoteNode, _ int) (int, error) { return replayStream(ctx, r.Scanner) }),
		over(workRemoteCommits, func(ctx context.Context, r RemoteNode, want int) (int, error) {
			return replayCommits(ctx, r.Source, want)
		}),
	}
}

// passes calls read, which reads everything, again and again until the time is
// up, and reports the records per second over all passes. The first is not
// counted: it brings the files into memory.
func (s *session) passes(ctx context.Context, workload, subject string, read func() (int, error)) (_ []outcome, err error) {
	if _, err := read(); err != nil {
		return nil, err
	}
	var sample Sample
	err = s.profiled(workload+"-"+subject, func() error {
		used, start := usage(), time.Now()
		for sample.Records == 0 || time.Since(start) < s.Time {
			records, err := read()
			if err != nil {
				return err
			}
			sample.Records += records
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		sample.Value = float64(sample.Records) / time.Since(start).Seconds()
		sample.Counters = map[string]float64{"cpu_us_per_record": float64(usage()-used) / 1e3 / float64(sample.Records)}
		return nil
	})
	return []outcome{{workload, subject, PerSecond, sample}}, err
}

// checkNumber compares the number in a payload with the seq it was read under.
func checkNumber(payload []byte, seq uint64) error {
	if number := binary.LittleEndian.Uint64(payload); number != seq-1 {
		return fmt.Errorf("%w: seq %d has number %d", errPayload, seq, number)
	}
	return nil
}

// replayCommits reads all commits: each is verified, body digest and structure,
// and each of its records looked at.
func replayCommits(ctx context.Context, source replay.Source, want int) (records int, err error) {
	for c, err := range source.Commits(ctx, 1, 0) {
		if err != nil {
			return records, err
		}
		if err := c.Verify(); err != nil {
			return records, err
		}
		for run, err := range c.Runs() {
			if err != nil {
				return records, err
			}
			for seq, payload := range run.Records() {
				if err := checkNumber(payload, seq); err != nil {
					return records, err
				}
				records++
			}
		}
	}
	if records != want {
		return records, fmt.Errorf("mosaik: bench: replay gave %d records of %d", records, want)
	}
	return records, nil
}

// replayStream reads a typed stream from its beginning; every value is a copy
// whose every byte is looked at.
func replayStream(ctx context.Context, s log.Scanner) (records int, err error) {
	r, err := reader(s, 0)
	if err != nil {
		return 0, err
	}
	for rec, err := range r.All(ctx, log.Earliest()) {
		if err != nil {
			return records, err
		}
		number, err := checkPayload(rec.Value)
		if err != nil {
			return records, err
		}
		if number != rec.Seq-1 || rec.Seq != uint64(records+1) {
			return records, fmt.Errorf("%w: seq %d has number %d", errPayload, rec.Seq, number)
		}
		records++
	}
	return records, nil
}

// replay reads all records in order; every byte is looked at.
func (p *barePebble) replay() (records int, err error) {
	it, err := p.db.NewIter(nil)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for ok := it.First(); ok; ok = it.Next() {
		if err := p.check(it, uint64(records)); err != nil {
			return records, err
		}
		records++
	}
	return records, it.Error()
}

// check compares what the iterator stands on with the record of that number.
func (p *barePebble) check(it *pebble.Iterator, number uint64) error {
	v, err := it.ValueAndErr()
	if err != nil {
		return err
	}
	got, err := checkPayload(v)
	if err != nil {
		return err
	}
	if key := binary.BigEndian.Uint64(it.Key()); key != number || got != number {
		return fmt.Errorf("%w: key %d has number %d, not %d", errPayload, key, got, number)
	}
	return nil
}

// seekTrials open a reader somewhere in the log and take its first record.
func (s *session) seekTrials() []trial {
	return []trial{
		{label: subjectMosaik, run: func(ctx context.Context) ([]outcome, error) {
			return s.withMosaik(ctx, func(n *nodes) ([]outcome, error) {
				head := n.group[0].Head().Number
				r, err := reader(n.engines[0], 0)
				if err != nil {
					return nil, err
				}
				return s.seeks(ctx, subjectMosaik, func(rng *rand.Rand) error { return seekStream(ctx, r, 1+rng.Uint64N(head)) })
			})
		}},
		{label: subjectPebble, run: func(ctx context.Context) ([]outcome, error) {
			return s.withPebble(ctx, func(p *barePebble) ([]outcome, error) {
				return s.seeks(ctx, subjectPebble, func(rng *rand.Rand) error { return p.seek(rng.Uint64N(s.readable())) })
			})
		}},
	}
}

// readable is how many records the filled stores have: whole batches.
func (s *session) readable() uint64 { return uint64(max(s.Records, s.Batch) / s.Batch * s.Batch) }

// seeks times one seek after the other, each to another place.
func (s *session) seeks(ctx context.Context, subject string, seek func(*rand.Rand) error) ([]outcome, error) {
	var sample Sample
	err := s.profiled(rowSeek+"-"+subject, func() (err error) {
		sample, err = s.repeat(ctx, s.Time, seek)
		return err
	})
	sample.Value = sample.P50
	return []outcome{{rowSeek, subject, Micros, sample}}, err
}

// repeat calls op again and again until the time is up, though at least once, and
// reports how many of them a second has and how long one takes.
func (s *session) repeat(ctx context.Context, d time.Duration, op func(*rand.Rand) error) (Sample, error) {
	var latencies histogram
	rng := rand.New(rand.NewPCG(1, uint64(s.run)))
	start := time.Now()
	now := start
	for now.Sub(start) < d || latencies.count == 0 {
		if err := errors.Join(op(rng), ctx.Err()); err != nil {
			return Sample{}, err
		}
		done := time.Now()
		latencies.add(done.Sub(now))
		now = done
	}
	return Sample{
		Value: float64(latencies.count) / now.Sub(start).Seconds(), Records: int(latencies.count),
		P50: latencies.micros(50), P99: latencies.micros(99),
	}, nil
}

// seekStream reads the first record of the stream in commit n.
func seekStream(ctx context.Context, r *log.StreamReader[[]byte], n uint64) error {
	for rec, err := range r.All(ctx, log.CommitNumber(n)) {
		if err != nil {
			return err
		}
		if rec.Commit != n {
			return fmt.Errorf("%w: commit %d was asked for, the record is of commit %d", errPayload, n, rec.Commit)
		}
		_, err := checkPayload(rec.Value)
		return err
	}
	return fmt.Errorf("mosaik: bench: commit %d has no record", n)
}

func (p *barePebble) seek(number uint64) (err error) {
	it, err := p.db.NewIter(nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	if !it.SeekGE(binary.BigEndian.AppendUint64(nil, number)) {
		return errors.Join(fmt.Errorf("mosaik: bench: no record %d", number), it.Error())
	}
	return p.check(it, number)
}
