package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// The machine's own limit: what its disk does when nothing stands above it.
const (
	rowMachine = "machine"

	subjectDisk        = "disk"         // one write and one fdatasync for each append
	subjectDiskGrouped = "disk-grouped" // the same for each sync our Raft log made

	workSync      = "machine/sync"       // one file
	workSyncThree = "machine/sync-files" // as many as there are replicas
)

const (
	syncedWrite   = 4 << 10  // bytes of the writes that measure latency
	laidOut       = 64 << 20 // bytes of a file that is written to
	groupedUnless = 64 << 10 // bytes of a grouped write, if ours were not measured
)

// machineTrials measure the latency of a small durable write.
func (s *session) machineTrials() []trial {
	one := s.writeTrial(workSync, subjectDisk, 1, syncedWrite)
	three := s.writeTrial(workSyncThree, subjectDisk, s.Replicas, syncedWrite)
	one.label, three.label = "one file", "a file a replica"
	return []trial{one, three}
}

// writeTrial writes to as many files at once as there are replicas: bytes at a
// time, and an fdatasync after each. With bytes 0 it takes what the syncs of our
// own Raft log held, on average, in the same row. A record counts once.
func (s *session) writeTrial(workload, subject string, files, bytes int) trial {
	return trial{label: subject, run: func(ctx context.Context) (_ []outcome, err error) {
		size := bytes
		if size == 0 {
			size = groupedUnless
			if ours := find(s.results, workload, subjectMosaik); ours != nil {
				size = max(int(ours.counter("log_bytes_per_sync")), s.Size)
			}
		}
		dir := s.newDir(subject)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
		w := &writes{bytes: size, time: s.Time}
		began := time.Now()
		if err := w.run(ctx, dir, files); err != nil {
			return nil, err
		}
		each := max(size/s.Size, 1)
		if size == syncedWrite {
			each = 1
		}
		records := w.mu.writes / files * each // each of the files has a copy of every record
		sample := Sample{
			Value: float64(records) / (time.Since(began) - w.setUp).Seconds(), Records: records,
			P50: w.mu.latencies.micros(50), P99: w.mu.latencies.micros(99),
			Counters: map[string]float64{"bytes_per_sync": float64(size)},
		}
		unit := PerSecond
		if workload == workSync || workload == workSyncThree {
			sample.Value, unit = sample.P50, Micros
		}
		return []outcome{{workload, subject, unit, sample}}, nil
	}}
}

// writes are durable writes to several files side by side.
type writes struct {
	bytes int
	time  time.Duration
	setUp time.Duration // of it, before the first write
	start time.Time
	done  sync.WaitGroup

	mu struct {
		sync.Mutex
		writes    int
		latencies histogram
		err       error
	}
}

func (w *writes) run(ctx context.Context, dir string, files int) error {
	began := time.Now()
	var open []*os.File
	defer func() {
		for _, f := range open {
			f.Close() // read by nobody
		}
	}()
	for i := range files {
		f, err := layOut(filepath.Join(dir, fmt.Sprintf("file%d", i)), max(laidOut, 4*int64(w.bytes)))
		if err != nil {
			return err
		}
		open = append(open, f)
	}
	w.start = time.Now()
	w.setUp = w.start.Sub(began)
	w.done.Add(files)
	for _, f := range open {
		go w.runWriter(ctx, f)
	}
	w.done.Wait()
	return errors.Join(w.mu.err, ctx.Err())
}

// layOut makes a file of zeros that are on the disk: writing over them changes
// nothing that the file system would have to write down.
func layOut(name string, size int64) (*os.File, error) {
	f, err := os.Create(name)
	if err != nil {
		return nil, err
	}
	zeros := make([]byte, 1<<20)
	for off := int64(0); off < size; off += int64(len(zeros)) {
		if _, err := f.WriteAt(zeros, off); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	if err := f.Sync(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// runWriter writes round and round in one file until the time is up, though at
// least once.
func (w *writes) runWriter(ctx context.Context, f *os.File) {
	defer w.done.Done()
	block := make([]byte, w.bytes)
	for off := 0; off+wordSize <= len(block); off += wordSize {
		block[off] = byte(off>>3) ^ byte(off>>11)
	}
	var latencies histogram
	var err error
	count := 0
	ahead := max(laidOut, 4*w.bytes) - w.bytes
	for off, now := 0, time.Now(); (count == 0 || now.Sub(w.start) < w.time) && ctx.Err() == nil; {
		if _, err = f.WriteAt(block, int64(off)); err != nil {
			break
		}
		if err = fdatasync(f); err != nil {
			break
		}
		done := time.Now()
		latencies.add(done.Sub(now))
		now = done
		count++
		if off += w.bytes; off > ahead {
			off = 0
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.writes += count
	w.mu.latencies.merge(&latencies)
	w.mu.err = errors.Join(w.mu.err, err)
}
