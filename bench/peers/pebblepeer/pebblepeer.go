// Package pebblepeer measures github.com/cockroachdb/pebble/v2 as an embedded append store: one
// process, one replica, keys in ascending order, every commit with pebble.Sync. It is what the
// engine with a single replica is compared with.
//
// Store.Run starts one goroutine a writer for the writers64 workload (runWriter); all of them end
// before Run returns.
package pebblepeer

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/mosaik-engine/mosaik/bench/peers/measure"
	"github.com/mosaik-engine/mosaik/bench/peers/payload"
)

// Name is the peer's name in the report; Config names its only configuration.
const (
	Name   = "pebble"
	Config = "sync"
)

const (
	batchRecords = 1024
	writers      = 64
	keySize      = 8
	memTable     = 64 << 20 // bytes; the default of 4 MiB flushes too often for a stream of appends
	mostSeeks    = 2000
)

// Workloads lists what Run knows, in the order in which they are best run.
func Workloads() []measure.Workload {
	return []measure.Workload{
		{Name: "batch1024", Axis: "one writer, batches of 1,024", Unit: measure.PerSecond, Replicas: 1},
		{Name: "writers64", Axis: "64 callers x 1 record", Unit: measure.PerSecond, Replicas: 1},
		{Name: "writer1", Axis: "one writer x 1 record", Unit: measure.Micros, Replicas: 1},
		{Name: "replay", Axis: "replay in process, decoded and checked", Unit: measure.PerSecond, Replicas: 1},
		{Name: "seek", Axis: "seek to an old record", Unit: measure.Micros, Replicas: 1},
		{Name: "disk", Axis: "bytes on disk", Unit: measure.BytesPerRecord, Replicas: 1},
	}
}

// Store runs workloads in a directory of its own.
type Store struct {
	dir    string
	filled int // records in the fill database, 0 until it is written
}

// Open returns a session that keeps its databases below dir.
func Open(dir string) (*Store, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("mosaik: pebble directory: %w", err)
	}
	return &Store{dir: dir}, nil
}

// Close implements measure.Session. No database stays open between workloads.
func (s *Store) Close() error { return nil }

// Run implements measure.Session.
func (s *Store) Run(ctx context.Context, workload string, limits measure.Limits) (measure.Sample, error) {
	var sample measure.Sample
	var err error
	switch workload {
	case "batch1024":
		sample, err = s.withEmpty(workload, func(db *pebble.DB) (measure.Sample, error) {
			return appendBatches(ctx, db, limits, pebble.Sync)
		})
	case "writers64":
		sample, err = s.withEmpty(workload, func(db *pebble.DB) (measure.Sample, error) {
			return appendSingly(ctx, db, limits, writers)
		})
	case "writer1":
		sample, err = s.withEmpty(workload, func(db *pebble.DB) (measure.Sample, error) {
			return appendSingly(ctx, db, limits, 1)
		})
	case "replay":
		sample, err = s.withFilled(ctx, limits, scan)
	case "seek":
		sample, err = s.withFilled(ctx, limits, s.seek)
	case "disk":
		sample, err = s.disk(ctx, limits)
	default:
		err = fmt.Errorf("mosaik: no workload %q", workload)
	}
	if err != nil {
		return measure.Sample{}, fmt.Errorf("mosaik: pebble %s: %w", workload, err)
	}
	return sample, nil
}

// quiet drops pebble's progress messages; its errors still reach stderr.
type quiet struct{ pebble.Logger }

func (quiet) Infof(string, ...any) {}

func open(dir string) (*pebble.DB, error) {
	return pebble.Open(dir, &pebble.Options{MemTableSize: memTable, Logger: quiet{pebble.DefaultLogger}})
}

// withEmpty runs measured on a new database and removes it.
func (s *Store) withEmpty(name string, measured func(*pebble.DB) (measure.Sample, error)) (sample measure.Sample, err error) {
	dir := filepath.Join(s.dir, name)
	db, err := open(dir)
	if err != nil {
		return measure.Sample{}, err
	}
	defer func() { err = errors.Join(err, db.Close(), os.RemoveAll(dir)) }()
	return measured(db)
}

// withFilled runs measured on a reopened database, so that its memtable is empty and every record
// comes from a table file.
func (s *Store) withFilled(ctx context.Context, limits measure.Limits,
	measured func(context.Context, *pebble.DB, measure.Limits) (measure.Sample, error)) (sample measure.Sample, err error) {
	if err := s.fill(ctx, limits); err != nil {
		return measure.Sample{}, err
	}
	db, err := open(s.fillDir())
	if err != nil {
		return measure.Sample{}, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	return measured(ctx, db, limits)
}

func (s *Store) fillDir() string { return filepath.Join(s.dir, "filled") }

func (s *Store) fill(ctx context.Context, limits measure.Limits) (err error) {
	if s.filled > 0 {
		return nil
	}
	db, err := open(s.fillDir())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	sample, err := appendBatches(ctx, db, limits, pebble.NoSync)
	if err != nil {
		return err
	}
	if err := db.Flush(); err != nil {
		return err
	}
	s.filled = sample.Records
	return nil
}

func appendBatches(ctx context.Context, db *pebble.DB, limits measure.Limits, durability *pebble.WriteOptions) (measure.Sample, error) {
	var sample measure.Sample
	key, value := make([]byte, keySize), make([]byte, limits.Size)
	start := time.Now()
	for now := start; sample.Records < limits.Records && now.Sub(start) < limits.Time && ctx.Err() == nil; {
		batch := db.NewBatch()
		count := min(batchRecords, limits.Records-sample.Records)
		for i := range count {
			seq := uint64(sample.Records + i)
			binary.BigEndian.PutUint64(key, seq)
			payload.Fill(value, seq)
			if err := batch.Set(key, value, nil); err != nil {
				return sample, err
			}
		}
		if err := batch.Commit(durability); err != nil {
			return sample, err
		}
		if err := batch.Close(); err != nil {
			return sample, err
		}
		sample.Records += count
		done := time.Now()
		sample.Latencies = append(sample.Latencies, done.Sub(now))
		now = done
	}
	sample.Elapsed = time.Since(start)
	return sample, ctx.Err()
}

// single is the state the synchronous writers share.
type single struct {
	db     *pebble.DB
	limits measure.Limits
	start  time.Time
	next   atomic.Uint64 // sequence number of the next record

	done sync.WaitGroup
	mu   struct {
		sync.Mutex
		latencies []time.Duration
		err       error
	}
}

func appendSingly(ctx context.Context, db *pebble.DB, limits measure.Limits, count int) (measure.Sample, error) {
	s := &single{db: db, limits: limits, start: time.Now()}
	s.done.Add(count)
	for range count {
		go s.runWriter(ctx)
	}
	s.done.Wait()
	elapsed := time.Since(s.start)
	return measure.Sample{Records: len(s.mu.latencies), Elapsed: elapsed, Latencies: s.mu.latencies}, errors.Join(s.mu.err, ctx.Err())
}

// runWriter commits one record at a time until the limits are reached.
func (s *single) runWriter(ctx context.Context) {
	defer s.done.Done()
	key, value := make([]byte, keySize), make([]byte, s.limits.Size)
	var latencies []time.Duration
	var err error
	for now := time.Now(); now.Sub(s.start) < s.limits.Time && ctx.Err() == nil; {
		seq := s.next.Add(1) - 1
		if seq >= uint64(s.limits.Records) {
			break
		}
		binary.BigEndian.PutUint64(key, seq)
		payload.Fill(value, seq)
		if err = s.db.Set(key, value, pebble.Sync); err != nil {
			break
		}
		done := time.Now()
		latencies = append(latencies, done.Sub(now))
		now = done
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.latencies = append(s.mu.latencies, latencies...)
	s.mu.err = errors.Join(s.mu.err, err)
}

// scan reads all records in order, decodes the key and checks every byte of the payload.
func scan(ctx context.Context, db *pebble.DB, limits measure.Limits) (sample measure.Sample, err error) {
	start := time.Now()
	it, err := db.NewIterWithContext(ctx, nil)
	if err != nil {
		return measure.Sample{}, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for ok := it.First(); ok; ok = it.Next() {
		if err := check(it); err != nil {
			return sample, err
		}
		sample.Records++
		if sample.Records%4096 == 0 && time.Since(start) > limits.Time {
			break
		}
	}
	sample.Elapsed = time.Since(start)
	return sample, errors.Join(it.Error(), ctx.Err())
}

func check(it *pebble.Iterator) error {
	value, err := it.ValueAndErr()
	if err != nil {
		return err
	}
	seq, err := payload.Check(value)
	if err != nil {
		return err
	}
	if key := binary.BigEndian.Uint64(it.Key()); key != seq {
		return fmt.Errorf("%w: key %d holds record %d", payload.ErrCorrupt, key, seq)
	}
	return nil
}

// seek times a new iterator positioned on one of the filled records, spread over all of them.
func (s *Store) seek(ctx context.Context, db *pebble.DB, limits measure.Limits) (measure.Sample, error) {
	var sample measure.Sample
	key := make([]byte, keySize)
	count := min(mostSeeks, s.filled)
	start := time.Now()
	for i := range count {
		if time.Since(start) > limits.Time || ctx.Err() != nil {
			break
		}
		binary.BigEndian.PutUint64(key, measure.Spread(i, s.filled))
		began := time.Now()
		if err := seekOne(ctx, db, key); err != nil {
			return sample, err
		}
		sample.Latencies = append(sample.Latencies, time.Since(began))
		sample.Records++
	}
	sample.Elapsed = time.Since(start)
	return sample, ctx.Err()
}

func seekOne(ctx context.Context, db *pebble.DB, key []byte) (err error) {
	it, err := db.NewIterWithContext(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	if !it.SeekGE(key) {
		return errors.Join(fmt.Errorf("mosaik: key %x not found", key), it.Error())
	}
	return check(it)
}

// disk weighs the closed database: tables apart from write-ahead logs, whose files are recycled and
// say nothing about the records kept.
func (s *Store) disk(ctx context.Context, limits measure.Limits) (measure.Sample, error) {
	if err := s.fill(ctx, limits); err != nil {
		return measure.Sample{}, err
	}
	sample := measure.Sample{Records: s.filled}
	err := filepath.WalkDir(s.fillDir(), func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		switch filepath.Ext(entry.Name()) {
		case ".sst":
			sample.Bytes += info.Size()
		case ".log":
			sample.LogBytes += info.Size()
		}
		return nil
	})
	return sample, err
}
