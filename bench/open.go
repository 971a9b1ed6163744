package bench

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/mosaik-engine/mosaik/engine"
)

// The row about opening a large store.
const (
	rowOpen = "open"

	workOpenTime   = "open/time"
	workOpenMemory = "open/memory"
)

// OpenStats is what opening a store took.
type OpenStats struct {
	Open     float64 `json:"open_s"`         // seconds until engine.Open returned
	Ready    float64 `json:"ready_s"`        // until the node would answer everything
	Counted  float64 `json:"counted_s"`      // seconds until the number of entries had been read
	Resident int64   `json:"resident_bytes"` // of the process by then
	Peak     int64   `json:"peak_bytes"`     // at the most until then
	Keys     int     `json:"keys"`
	Records  uint64  `json:"records"`
	Entries  uint64  `json:"entries"` // of the map that this package has written, if it has
}

// OpenStore opens the store of one replica in dir and closes it again. What it
// says about memory is about the whole process.
func OpenStore(ctx context.Context, dir string) (o OpenStats, err error) {
	start := time.Now()
	e, err := engine.Open(dir, &engine.Options{MustExist: true})
	if err != nil {
		return o, err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	o.Open = time.Since(start).Seconds()
	if err := e.Ready(ctx); err != nil {
		return o, err
	}
	o.Ready = time.Since(start).Seconds()
	if o.Entries, err = countEntries(ctx, e); err != nil {
		return o, err
	}
	o.Counted = time.Since(start).Seconds()
	o.Resident, o.Peak = resident()
	for _, g := range e.Groups() {
		s := g.Status()
		o.Keys += s.Keys
		o.Records += s.Records
	}
	return o, nil
}

// openTrials write a large store once and open it in every run.
func (s *session) openTrials() []trial {
	return []trial{{label: fmt.Sprintf("%d keys", s.OpenKeys), run: func(ctx context.Context) ([]outcome, error) {
		if s.filled.large == "" {
			dir := s.newDir("large")
			if err := s.fillLarge(ctx, dir); err != nil {
				return nil, errors.Join(err, os.RemoveAll(dir))
			}
			s.filled.large = dir
		}
		if err := forgetTree(s.filled.large); err != nil {
			return nil, err
		}
		o, err := s.OpenStore(ctx, s.filled.large)
		if err != nil {
			return nil, err
		}
		if want := uint64(s.OpenRecords / s.Batch * s.Batch); o.Records != want {
			return nil, fmt.Errorf("mosaik: bench: the store was opened with %d records, %d were written", o.Records, want)
		}
		return []outcome{
			{workOpenTime, subjectMosaik, Seconds, Sample{Value: o.Ready, Records: int(o.Records),
				Counters: map[string]float64{"open_s": o.Open, "keys": float64(o.Keys)}}},
			{workOpenMemory, subjectMosaik, Bytes, Sample{Value: float64(o.Peak), Records: int(o.Records),
				Counters: map[string]float64{"resident_bytes": float64(o.Resident)}}},
		}, nil
	}}}
}

// fillLarge writes the store that will be opened.
func (s *session) fillLarge(ctx context.Context, dir string) error {
	l := s.loadOf(rowBatch)
	l.keys, l.records, l.time = s.OpenKeys, s.OpenRecords, maxTime
	if err := s.needRoom(s.OpenRecords, s.Size+32, "records"); err != nil { // twenty bytes besides the payload, and a reserve
		return err
	}
	if s.OpenRecords < s.Batch {
		return fmt.Errorf("%w: the row open has fewer records than one batch", ErrConfig)
	}
	_, err := s.filledWith(ctx, nodeOptions{dir: dir, replicas: 1, groups: 1, keys: s.OpenKeys}, l)
	return err
}

// needRoom reports a disk without room for so many records or entries of some
// bytes each, with 4 GiB for the Raft log and for others: a disk that is nearly full
// is of no use to anybody.
func (s *session) needRoom(count, bytes int, what string) error {
	if free, need := freeBytes(s.root), int64(count)*int64(bytes)+4<<30; free >= 0 && free < need {
		return fmt.Errorf("mosaik: bench: %d %s need %d MiB of disk, %d are free", count, what, need>>20, free>>20)
	}
	return nil
}

// forgetTree drops the files below dir from memory, so that what is opened next
// is read from the disk.
func forgetTree(dir string) error {
	flushDisks()
	return filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		return errors.Join(forget(f), f.Close())
	})
}
