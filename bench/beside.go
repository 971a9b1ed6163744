package bench

import (
	"context"
	"errors"
	"os"
	"sync"
	"sync/atomic"
)

// The row about what an auditor costs a writer.
const (
	rowBeside = "beside"

	workBesideAlone = "beside/alone"
	workBesideAudit = "beside/audit"
)

// besideTrials time a lone writer on a log that nobody reads, and then while
// somebody verifies it from beginning to end, over and over, on the node that
// leads.
func (s *session) besideTrials() []trial {
	return []trial{{label: subjectMosaik, run: func(ctx context.Context) (_ []outcome, err error) {
		o := nodeOptions{dir: s.newDir("beside"), replicas: s.Replicas, groups: 1, keys: 1, transport: s.Transport}
		defer func() { err = errors.Join(err, os.RemoveAll(o.dir)) }()
		n, err := openNodes(ctx, o)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, n.Close()) }()

		past := s.loadOf(rowBatch)
		past.keys, past.time, past.records = 1, s.Time, max(s.Records/4, past.batch)
		if _, err := n.fill(ctx, past); err != nil {
			return nil, err
		}
		flushDisks()
		l := s.loadOf(rowWriter)
		l.keys = 1
		alone, err := n.fill(ctx, l)
		if err != nil {
			return nil, err
		}
		a := &auditor{nodes: n}
		a.done.Add(1)
		go a.runAudits(ctx)
		var audited Sample
		err = s.profiled(workBesideAudit, func() error {
			audited, err = n.fill(ctx, l)
			return err
		})
		a.stop.Store(true)
		a.done.Wait()
		if err := errors.Join(err, a.err); err != nil {
			return nil, err
		}
		alone.Value, audited.Value = alone.P99, audited.P99
		audited.Counters["audited_records"] = float64(a.records)
		return []outcome{{workBesideAlone, subjectMosaik, Micros, alone}, {workBesideAudit, subjectMosaik, Micros, audited}}, nil
	}}}
}

// auditor verifies a log again and again until it is stopped.
type auditor struct {
	nodes   *nodes
	stop    atomic.Bool
	done    sync.WaitGroup
	records int   // verified; read after done
	err     error // likewise
}

func (a *auditor) runAudits(ctx context.Context) {
	defer a.done.Done()
	for a.err == nil && ctx.Err() == nil && !a.stop.Load() {
		for c, err := range a.nodes.group[0].Commits(ctx, 1, 0) {
			if err == nil {
				err = c.Verify()
			}
			if err != nil || a.stop.Load() {
				a.err = err
				break
			}
			a.records += int(c.Header.Records)
		}
	}
}
