package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"slices"
	"strings"
	"time"
)

// Run measures what c says and returns the report. One run visits every row
// before the next begins, and in a row every subject before the next row, in
// an order that changes from run to run, so that a slow minute of the machine
// falls on all of them.
//
// When something could not be measured, the report has the rest and the error
// says what is missing. An end of ctx ends the measuring soon; the report then
// has what was measured until there. In any case all that Run has made below
// c.Dir is gone when it returns.
func Run(ctx context.Context, c Config) (_ Report, err error) {
	if err := c.Validate(); err != nil {
		return Report{}, err
	}
	s := &session{Config: c.withDefaults()}
	s.root, err = os.MkdirTemp(s.Dir, "mosaik-bench-")
	if err != nil {
		return Report{}, fmt.Errorf("mosaik: bench: make a directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(s.root)) }()
	report := s.newReport()
	s.warn(&report.Machine)
	var errs error
	for s.run = range s.Runs {
		for _, row := range Rows() {
			if !slices.Contains(s.Rows, row) {
				continue
			}
			errs = errors.Join(errs, s.measureRow(ctx, row))
			if ctx.Err() != nil {
				report.fill(s.results)
				return report, ctx.Err()
			}
		}
	}
	report.fill(s.results)
	return report, errs
}

// warn tells what would spoil the figures.
func (s *session) warn(m *Machine) {
	if m.Filesystem == "tmpfs" {
		fmt.Fprintf(s.Progress, "%s is in memory: syncs cost nothing there, and nothing is durable\n", s.Dir)
	}
	if m.Load > 0.5 {
		fmt.Fprintf(s.Progress, "other programs are running (load average %.1f on %d processors): the figures will not be worth much\n", m.Load, m.CPUs)
	}
}

// trial measures one subject in one row, once.
type trial struct {
	label string // for progress and profiles
	once  bool   // what it measures does not differ from run to run
	run   func(ctx context.Context) ([]outcome, error)
}

// outcome is one thing a trial has found.
type outcome struct {
	name    string // of the workload
	subject string
	unit    Unit
	sample  Sample
}

// measureRow runs the trials of one row. One that fails does not keep the
// others from being tried.
func (s *session) measureRow(ctx context.Context, row string) (errs error) {
	trials := s.trials(row)
	for i := range trials {
		t := &trials[(i+s.run)%len(trials)]
		if t.once && s.run > 0 {
			continue
		}
		if s.Time >= time.Second { // otherwise nobody looks at the figures
			flushDisks()
		}
		runtime.GC()
		began := time.Now()
		found, err := t.run(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		label := fmt.Sprintf("run %d/%d  %-16s %-36s", s.run+1, s.Runs, row, t.label)
		if err != nil {
			fmt.Fprintf(s.Progress, "%s failed: %v\n", label, err)
			errs = errors.Join(errs, fmt.Errorf("%s, %s: %w", row, t.label, err))
			continue
		}
		for _, o := range found {
			s.add(row, o)
		}
		fmt.Fprintf(s.Progress, "%s %s  (%.1f s)\n", label, summary(found), time.Since(began).Seconds())
	}
	return errs
}

// summary is what a progress line says about the outcomes of a trial.
func summary(found []outcome) string {
	parts := make([]string, len(found))
	for i, o := range found {
		parts[i] = figure(o.sample.Value, o.unit)
		if len(found) > 1 {
			parts[i] = o.name + " " + parts[i]
		}
	}
	return strings.Join(parts, ", ")
}

// add files an outcome with those of earlier runs.
func (s *session) add(row string, o outcome) {
	m := find(s.results, o.name, o.subject)
	if m == nil {
		m = &Measurement{Row: row, Name: o.name, Subject: o.subject, Unit: o.unit}
		s.results = append(s.results, m)
	}
	m.Runs = append(m.Runs, o.sample)
}

func find(all []*Measurement, name, subject string) *Measurement {
	i := slices.IndexFunc(all, func(m *Measurement) bool { return m.Name == name && m.Subject == subject })
	if i < 0 {
		return nil
	}
	return all[i]
}

// trials returns what there is to measure in a row.
func (s *session) trials(row string) []trial {
	switch row {
	case rowMachine:
		return s.machineTrials()
	case rowBatch, rowPipelined, rowKeys, rowWriters, rowWriter, rowEmbeddedBatch, rowEmbeddedWriters:
		return s.appendTrials(row)
	case rowBeside:
		return s.besideTrials()
	case rowReplay:
		return s.replayTrials()
	case rowRemote:
		return s.remoteTrials()
	case rowSeek:
		return s.seekTrials()
	case rowDisk:
		return s.diskTrials()
	case rowKey:
		return s.keyTrials()
	case rowApply:
		return []trial{{label: subjectMosaik, run: s.applyAllocations}}
	case rowMemory:
		return []trial{{label: subjectMosaik, once: true, run: s.memoryGrowth}}
	case rowOpen:
		return s.openTrials()
	case rowMap:
		return s.mapTrials()
	case rowMapInsert:
		return []trial{s.mapTrial(rowMapInsert)}
	case rowMapGet:
		return s.mapGetTrials()
	case rowState:
		return []trial{{label: subjectMosaik, run: s.stateShare}}
	case rowMapOpen:
		return s.mapOpenTrials()
	}
	return nil
}

// profiled calls timed, with a CPU profile if one is asked for.
func (s *session) profiled(label string, timed func() error) (err error) {
	if s.ProfileDir == "" {
		return timed()
	}
	name := fmt.Sprintf("%s-%d.pprof", strings.ReplaceAll(label, "/", "-"), s.run+1)
	f, err := os.Create(filepath.Join(s.ProfileDir, name))
	if err != nil {
		return fmt.Errorf("mosaik: bench: profile: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := pprof.StartCPUProfile(f); err != nil {
		return fmt.Errorf("mosaik: bench: profile: %w", err)
	}
	defer pprof.StopCPUProfile()
	return timed()
}

// newReport returns a report without measurements.
func (s *session) newReport() Report {
	return Report{
		Format: ReportFormat,
		Time:   time.Now().UTC().Truncate(time.Second),
		Machine: Machine{
			Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH, CPUs: runtime.NumCPU(),
			Filesystem: filesystemOf(s.root), Load: loadAverage(),
		},
		Options: Options{
			Size: s.Size, Batch: s.Batch, Keys: s.Keys, Groups: s.Groups, Replicas: s.Replicas, Transport: s.Transport,
			Seconds: s.Time.Seconds(), Records: s.Records, KeyCount: s.KeyCount, OpenKeys: s.OpenKeys, OpenRecords: s.OpenRecords,
			OpenEntries: s.OpenEntries,
		},
		Modules: moduleVersions(),
		judged:  s.ofBudget(),
	}
}

// moduleVersions tells which versions of others' code were measured.
func moduleVersions() map[string]string {
	versions := make(map[string]string)
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return versions
	}
	for _, dep := range info.Deps {
		if dep.Path == "github.com/lni/dragonboat/v4" || dep.Path == "github.com/cockroachdb/pebble/v2" {
			versions[dep.Path] = dep.Version
		}
	}
	return versions
}
