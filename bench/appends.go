package bench

import (
	"context"
	"errors"
	"os"
)

// Rows about appending. Their names are those of their workloads, too.
const (
	rowBatch           = "batch"
	rowPipelined       = "pipelined"
	rowKeys            = "keys"
	rowWriters         = "writers"
	rowWriter          = "writer"
	rowEmbeddedBatch   = "embedded-batch"
	rowEmbeddedWriters = "embedded-writers"
)

// Workloads that share a row with the one that bears its name.
const (
	workOneKey            = "keys/one"
	workEmbeddedBatchFour = "embedded-batch/4"
)

// Loads, as the budget has them.
const (
	batchWindow    = 64   // batches under way
	pipelineWindow = 4096 // single records under way
	manyKeys       = 1000
	manyWriters    = 64
	embeddedBatch  = 1024
)

// loadOf returns the load of a workload.
func (s *session) loadOf(workload string) load {
	l := load{callers: 1, window: 1, batch: 1, keys: s.Keys, size: s.Size, time: s.Time, records: 10 * s.Records}
	switch workload {
	case rowBatch:
		l.window, l.batch = batchWindow, s.Batch
	case rowPipelined, workOneKey:
		l.window = pipelineWindow
	case rowKeys:
		l.window, l.keys = pipelineWindow, manyKeys
	case rowWriters, rowEmbeddedWriters:
		l.callers = manyWriters
	case rowEmbeddedBatch:
		l.batch = embeddedBatch
	case workEmbeddedBatchFour:
		l.callers, l.batch = 4, embeddedBatch
	case rowMap:
		l.callers, l.batch, l.keys, l.size = manyWriters, mapBatch, 1, mapValueSize
	case workMapStream:
		l.callers, l.batch, l.keys, l.size = manyWriters, mapBatch, 1, mapKeySize+mapValueSize
	case rowMapInsert:
		l.callers, l.keys, l.size = mapInserts, 1, mapValueSize
	}
	return l
}

// appendTrials returns the trials of one of the rows about appending.
func (s *session) appendTrials(row string) []trial {
	replicated := []string{subjectMosaik, subjectRaftTan, subjectRaftPebble, subjectRaftOurs}
	switch row {
	case rowKeys:
		return []trial{s.appendTrial(rowKeys, subjectMosaik, s.Replicas), s.appendTrial(workOneKey, subjectMosaik, s.Replicas)}
	case rowEmbeddedBatch:
		return []trial{
			s.appendTrial(rowEmbeddedBatch, subjectMosaik, 1), s.appendTrial(rowEmbeddedBatch, subjectPebble, 1),
			s.appendTrial(rowEmbeddedBatch, subjectRaftTan, 1), s.writeTrial(rowEmbeddedBatch, subjectDisk, 1, embeddedBatch*s.Size),
			s.appendTrial(workEmbeddedBatchFour, subjectMosaik, 1), s.appendTrial(workEmbeddedBatchFour, subjectPebble, 1),
		}
	case rowEmbeddedWriters:
		return []trial{
			s.appendTrial(rowEmbeddedWriters, subjectMosaik, 1), s.appendTrial(rowEmbeddedWriters, subjectPebble, 1),
			s.appendTrial(rowEmbeddedWriters, subjectRaftTan, 1),
		}
	}
	var trials []trial
	for _, subject := range replicated {
		trials = append(trials, s.appendTrial(row, subject, s.Replicas))
	}
	if row == rowBatch {
		trials = append(trials,
			s.writeTrial(row, subjectDisk, s.Replicas, s.Batch*s.Size),
			s.writeTrial(row, subjectDiskGrouped, s.Replicas, 0))
	}
	if row == rowWriter {
		trials = append(trials, s.writeTrial(row, subjectDisk, s.Replicas, syncedWrite))
	}
	return trials
}

// appendTrial puts a workload's load on a subject that is new and empty.
func (s *session) appendTrial(workload, subject string, replicas int) trial {
	label := subject
	if workload != rowBatch {
		label = workload + "/" + subject
	}
	return s.loadTrial(label, workload, subject, func(ctx context.Context, dir string) (target, error) {
		return s.openTarget(ctx, subject, dir, replicas, s.loadOf(workload).keys)
	})
}

// loadTrial puts a workload's load on a target that is new and empty.
func (s *session) loadTrial(label, workload, subject string, open func(ctx context.Context, dir string) (target, error)) trial {
	return trial{label: label, run: func(ctx context.Context) (_ []outcome, err error) {
		l := s.loadOf(workload)
		dir := s.newDir(subject)
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
		t, err := open(ctx, dir)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, t.Close()) }()
		if _, err := l.warm().run(ctx, t, 1<<56); err != nil {
			return nil, err
		}
		var sample Sample
		err = s.profiled(workload+"-"+subject, func() error {
			sample, err = put(ctx, t, l)
			return err
		})
		return []outcome{{workload, subject, PerSecond, sample}}, err
	}}
}

// put runs the load. What is ours checks that it has what was acknowledged.
func put(ctx context.Context, t target, l load) (Sample, error) {
	switch t := t.(type) {
	case *nodes:
		return t.fill(ctx, l)
	case *mapNodes:
		return t.fill(ctx, l)
	}
	return l.run(ctx, t, 0)
}

// openTarget opens a subject in an empty directory.
func (s *session) openTarget(ctx context.Context, subject, dir string, replicas, keys int) (target, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	o := nodeOptions{dir: dir, replicas: replicas, groups: s.Groups, keys: keys, transport: s.Transport}
	switch subject {
	case subjectMosaik:
		return openNodes(ctx, o)
	case subjectPebble:
		return openPebble(dir, true)
	}
	return openRaft(ctx, subject, o)
}
