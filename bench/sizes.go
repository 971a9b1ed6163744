package bench

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// Rows about what records and keys cost at rest.
const (
	rowDisk   = "disk"
	rowApply  = "apply"
	rowMemory = "memory"

	workDiskBatch     = "disk/batch"
	workDiskPipelined = "disk/pipelined"
	workDiskKeys      = "disk/keys"
	workDiskWriter    = "disk/writer"
	workDiskPebble    = "disk/pebble"
	workDiskLog       = "disk/log"
	withRaftLog       = "+log" // suffix of the workloads that count the Raft log as well
)

// diskTrials weigh what one record takes on each replica, written in four ways,
// since what a commit costs is shared by its records.
func (s *session) diskTrials() []trial {
	var trials []trial
	for _, w := range []struct{ work, row string }{
		{workDiskBatch, rowBatch}, {workDiskPipelined, rowPipelined}, {workDiskKeys, rowKeys}, {workDiskWriter, rowWriter},
	} {
		trials = append(trials, trial{label: w.work, once: true, run: func(ctx context.Context) ([]outcome, error) {
			l := s.loadOf(w.row)
			l.time, l.records = 5*s.Time, s.Records
			return s.weigh(ctx, w.work, l)
		}})
	}
	return append(trials, trial{label: subjectPebble, once: true, run: s.weighPebble})
}

// weigh writes, closes, opens again so that what is obsolete goes, closes and
// adds up the files.
func (s *session) weigh(ctx context.Context, work string, l load) (_ []outcome, err error) {
	o := nodeOptions{dir: s.newDir("disk"), replicas: s.Replicas, groups: 1, keys: l.keys, transport: InProcess}
	defer func() { err = errors.Join(err, os.RemoveAll(o.dir)) }()
	l.records = max(l.records, l.batch)
	written, err := s.filledWith(ctx, o, l)
	if err != nil {
		return nil, err
	}
	if _, err := s.filledWith(ctx, o, load{}); err != nil {
		return nil, err
	}
	var store, raft, laidOut int64
	err = filepath.WalkDir(o.dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		switch filepath.Base(filepath.Dir(path)) {
		case "raft":
			raft += info.Size()
			laidOut += allocated(info)
		default:
			store += info.Size()
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	copies := float64(written.Records * o.replicas)
	sample := Sample{Value: float64(store) / copies, Records: written.Records, Counters: map[string]float64{
		"records_per_commit":        written.Counters["records_per_commit"],
		"raft_log_bytes":            float64(raft) / float64(o.replicas),
		"raft_log_allocated_bytes":  float64(laidOut) / float64(o.replicas),
		"raft_log_bytes_per_record": float64(raft) / copies,
	}}
	both := Sample{Value: float64(store+raft) / copies, Records: written.Records}
	found := []outcome{
		{work, subjectMosaik, BytesPerRecord, sample},
		{work + withRaftLog, subjectMosaik, BytesPerRecord, both},
	}
	if work == workDiskBatch {
		found = append(found, outcome{workDiskLog, subjectMosaik, Bytes, Sample{Value: float64(raft) / float64(o.replicas), Records: written.Records}})
	}
	return found, nil
}

// filledWith opens nodes, puts a load on them, and closes them.
func (s *session) filledWith(ctx context.Context, o nodeOptions, l load) (Sample, error) {
	n, err := openNodes(ctx, o)
	if err != nil {
		return Sample{}, err
	}
	var sample Sample
	if l.records > 0 {
		sample, err = n.fill(ctx, l)
	}
	return sample, errors.Join(err, n.Close())
}

// weighPebble weighs the store that pebble alone has filled.
func (s *session) weighPebble(ctx context.Context) ([]outcome, error) {
	if _, err := s.withPebble(ctx, func(*barePebble) ([]outcome, error) { return nil, nil }); err != nil {
		return nil, err
	}
	size, err := treeSize(s.filled.pebble)
	sample := Sample{Value: float64(size) / float64(s.readable()), Records: int(s.readable())}
	return []outcome{{workDiskPebble, subjectPebble, BytesPerRecord, sample}}, err
}

// treeSize adds up the files below dir, except pebble's write-ahead logs: those
// are used again and say nothing about what is kept.
func treeSize(dir string) (size int64, err error) {
	err = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(path) == ".log" {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		size += info.Size()
		return nil
	})
	return size, err
}

// Appends of the row "apply": so many of each size, or fewer if few records are
// asked for, and one commit each.
const (
	applyAppends = 400
	applyFew     = 64
	applyMany    = 1024
)

// applyAllocations finds what a record more costs the process in allocations,
// from its proposal to its application on all replicas: appends of many records
// allocate so much more than as many appends of few. What each append and each
// commit allocates falls out of the difference.
func (s *session) applyAllocations(ctx context.Context) (_ []outcome, err error) {
	o := nodeOptions{dir: s.newDir("apply"), replicas: s.Replicas, groups: 1, keys: 1, transport: InProcess}
	defer func() { err = errors.Join(err, os.RemoveAll(o.dir)) }()
	n, err := openNodes(ctx, o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, n.Close()) }()

	many := max(min(applyMany, s.Records/applyAppends), 2*applyFew)
	appends := max(min(applyAppends, s.Records/applyFew), 4)
	l := load{callers: 1, window: 1, batch: many, keys: 1, size: s.Size, time: maxTime, records: appends / 4 * many}
	if _, err := n.fill(ctx, l); err != nil { // buffers grow to what they will be
		return nil, err
	}
	var mallocs, bytes [2]uint64
	var records [2]int
	for i, batch := range []int{applyFew, many} {
		l.batch, l.records = batch, appends*batch
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		var sample Sample
		err := s.profiled(rowApply+"-"+subjectMosaik, func() error {
			sample, err = n.fill(ctx, l)
			return err
		})
		if err != nil {
			return nil, err
		}
		runtime.ReadMemStats(&after)
		mallocs[i], bytes[i], records[i] = after.Mallocs-before.Mallocs, after.TotalAlloc-before.TotalAlloc, sample.Records
	}
	more := float64(records[1] - records[0])
	sample := Sample{
		Value: max(float64(mallocs[1])-float64(mallocs[0]), 0) / more, Records: records[1],
		Counters: map[string]float64{
			"allocs_per_append_of_64":    float64(mallocs[0]) / float64(appends),
			"allocs_per_append_of_many":  float64(mallocs[1]) / float64(appends),
			"allocated_bytes_per_record": max(float64(bytes[1])-float64(bytes[0]), 0) / more,
		},
	}
	return []outcome{{rowApply, subjectMosaik, AllocsPerRec, sample}}, nil
}

// memoryGrowth writes a log, and then three times as much again, and reports
// how the heap in use has grown for each of the records written in between.
func (s *session) memoryGrowth(ctx context.Context) (_ []outcome, err error) {
	o := nodeOptions{dir: s.newDir("memory"), replicas: 1, groups: 1, keys: s.Keys}
	defer func() { err = errors.Join(err, os.RemoveAll(o.dir)) }()
	n, err := openNodes(ctx, o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, n.Close()) }()

	l := s.fillLoad()
	l.keys = s.Keys
	first, err := n.fill(ctx, l)
	if err != nil {
		return nil, err
	}
	before, _ := heapInUse()
	l.records *= 3
	second, err := n.fill(ctx, l)
	if err != nil {
		return nil, err
	}
	after, resident := heapInUse()
	sample := Sample{
		Value: max(float64(after)-float64(before), 0) / float64(second.Records), Records: first.Records + second.Records,
		Counters: map[string]float64{"heap_bytes_before": float64(before), "heap_bytes_after": float64(after), "resident_bytes": float64(resident)},
	}
	return []outcome{{rowMemory, subjectMosaik, BytesPerRecord, sample}}, nil
}

// heapInUse collects what nobody needs and returns what is left, and the
// process's resident memory.
func heapInUse() (heap uint64, residentBytes int64) {
	runtime.GC()
	runtime.GC() // what finalizers and pools let go of in the first
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	now, _ := resident()
	return m.HeapAlloc, now
}
