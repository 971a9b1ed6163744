package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"

	"github.com/cockroachdb/pebble/v2"

	"github.com/mosaik-engine/mosaik/log"
)

// Rows about reading a map, all on one replica.
const (
	rowMapGet  = "map-get"
	rowMapOpen = "map-open"

	workMapGetAbsent       = "map-get/absent"
	workMapGetLinearizable = "map-get/linearizable"
	workMapOpenTime        = "map-open/time"
	workMapOpenMemory      = "map-open/memory"
)

// fillBatch is how many entries a command has that fills a map.
const fillBatch = 1000

// entriesOf is how many entries a map gets that is filled with n: whole commands.
func entriesOf(n int) int { return n / min(fillBatch, n) * min(fillBatch, n) }

// mapEntries is the size of the map that gets read from.
func (s *session) mapEntries() int { return entriesOf(min(s.Records, mapKeySpace)) }

// fillMap writes a map of count entries into a new store of one replica.
func fillMap(ctx context.Context, dir string, count int) error {
	m, err := openMapNodes(ctx, nodeOptions{dir: dir, replicas: 1, groups: 1, keys: 1}, scattered(count))
	if err != nil {
		return err
	}
	_, err = m.fill(ctx, load{callers: 1, window: 1, batch: min(fillBatch, count), keys: 1, size: mapValueSize, time: maxTime, records: count})
	return errors.Join(err, m.Close())
}

// filledMap returns the directory of a map of mapEntries, which it writes first
// if need be.
func (s *session) filledMap(ctx context.Context) (string, error) {
	if s.filled.entries == "" {
		dir := s.newDir("filled-map")
		if err := fillMap(ctx, dir, s.mapEntries()); err != nil {
			return "", errors.Join(err, os.RemoveAll(dir))
		}
		s.filled.entries = dir
	}
	return s.filled.entries, nil
}

// presentKey is a random key of the map that was filled, and its number.
func (s *session) presentKey(rng *rand.Rand) (key []byte, number uint64) {
	number = rng.Uint64N(uint64(s.mapEntries()))
	return appendMapKey(make([]byte, 0, mapKeySize), number), number
}

// absentKey is a random key that lies between those of the map.
func (s *session) absentKey(rng *rand.Rand) []byte {
	key, _ := s.presentKey(rng)
	key[len(key)-1] = 'x'
	return key
}

// checkEntry compares a value with the key it was found under.
func (s *session) checkEntry(value []byte, number uint64) error {
	payload, err := checkPayload(value)
	if err != nil {
		return err
	}
	if got := scattered(s.mapEntries())(payload); got != number {
		return fmt.Errorf("%w: key %d has the value of key %d", errPayload, number, got)
	}
	return nil
}

var errMapEntry = errors.New("mosaik: bench: a key of the map is missing, or there is one too many")

// mapGetTrials read single keys of a map, and of the same store with pebble alone.
func (s *session) mapGetTrials() []trial {
	return []trial{{label: subjectMosaik, run: s.mapGets}, {label: subjectPebble, run: s.rawGets}}
}

// gets times one get after the other, after as many that are not timed as fit
// into a tenth of the time.
func (s *session) gets(ctx context.Context, workload, subject string, get func(*rand.Rand) error) (outcome, error) {
	if _, err := s.repeat(ctx, s.Time/10, get); err != nil {
		return outcome{}, err
	}
	var sample Sample
	err := s.profiled(workload+"-"+subject, func() (err error) {
		sample, err = s.repeat(ctx, s.Time, get)
		return err
	})
	return outcome{workload, subject, PerSecond, sample}, err
}

// mapGets read through the engine, stale reads first.
func (s *session) mapGets(ctx context.Context) (found []outcome, err error) {
	dir, err := s.filledMap(ctx)
	if err != nil {
		return nil, err
	}
	n, err := openNodes(ctx, nodeOptions{dir: dir, replicas: 1, groups: 1, keys: 1})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	m, err := mapDef().Reader(n.group[0])
	if err != nil {
		return nil, err
	}
	present := func(get func(context.Context, []byte) ([]byte, bool, error)) func(*rand.Rand) error {
		return func(rng *rand.Rand) error {
			key, number := s.presentKey(rng)
			value, ok, err := get(ctx, key)
			if err != nil {
				return err
			}
			if !ok {
				return fmt.Errorf("%w: %s", errMapEntry, key)
			}
			return s.checkEntry(value, number)
		}
	}
	absent := func(rng *rand.Rand) error {
		key := s.absentKey(rng)
		_, ok, err := m.GetStale(ctx, key)
		if err == nil && ok {
			err = fmt.Errorf("%w: %s", errMapEntry, key)
		}
		return err
	}
	for _, w := range []struct {
		work string
		get  func(*rand.Rand) error
	}{{rowMapGet, present(m.GetStale)}, {workMapGetAbsent, absent}, {workMapGetLinearizable, present(m.Get)}} {
		o, err := s.gets(ctx, w.work, subjectMosaik, w.get)
		if err != nil {
			return nil, err
		}
		found = append(found, o)
	}
	return found, nil
}

// rawGets read the same rows of the same store with pebble alone.
func (s *session) rawGets(ctx context.Context) (found []outcome, err error) {
	dir, err := s.filledMap(ctx)
	if err != nil {
		return nil, err
	}
	p, err := openRawRows(filepath.Join(dir, "store"))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	present := func(rng *rand.Rand) error {
		key, number := s.presentKey(rng)
		row, closer, err := p.get(key)
		if err != nil {
			return err
		}
		if len(row) < mapValueSize {
			return errors.Join(fmt.Errorf("%w: %d bytes in the row of %s", errPayload, len(row), key), closer.Close())
		}
		return errors.Join(s.checkEntry(row[len(row)-mapValueSize:], number), closer.Close())
	}
	absent := func(rng *rand.Rand) error {
		key := s.absentKey(rng)
		_, closer, err := p.get(key)
		if errors.Is(err, pebble.ErrNotFound) {
			return nil
		}
		if err == nil {
			err = errors.Join(fmt.Errorf("%w: %s", errMapEntry, key), closer.Close())
		}
		return err
	}
	for _, w := range []struct {
		work string
		get  func(*rand.Rand) error
	}{{rowMapGet, present}, {workMapGetAbsent, absent}} {
		o, err := s.gets(ctx, w.work, subjectPebble, w.get)
		if err != nil {
			return nil, err
		}
		found = append(found, o)
	}
	return found, nil
}

// rawRows is a store of ours whose map is read with pebble alone.
type rawRows struct {
	db     *pebble.DB
	cache  *pebble.Cache
	prefix []byte // of a row's key: the map's key follows
	key    []byte // reused
}

// openRawRows opens a store that has been closed, with a cache as large as the
// engine's, and finds the map's rows.
func openRawRows(dir string) (*rawRows, error) {
	p := &rawRows{cache: pebble.NewCache(64 << 20)}
	var err error
	p.db, err = pebble.Open(dir, &pebble.Options{Cache: p.cache, ReadOnly: true, Logger: quietPebble{pebble.DefaultLogger}})
	if err != nil {
		p.cache.Unref()
		return nil, fmt.Errorf("mosaik: bench: open the store with pebble: %w", err)
	}
	if err := p.findPrefix(); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// findPrefix looks for the row of the map's first key. docs/format/store.md says
// what is in front of it.
func (p *rawRows) findPrefix() (err error) {
	it, err := p.db.NewIter(nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	first := appendMapKey(nil, 0)
	for ok := it.First(); ok; ok = it.Next() {
		if prefix, found := bytes.CutSuffix(it.Key(), first); found {
			p.prefix = bytes.Clone(prefix)
			return nil
		}
	}
	return errors.Join(errMapEntry, it.Error())
}

// get returns the row of a key of the map; it may be read until closer is
// closed.
func (p *rawRows) get(key []byte) (row []byte, closer io.Closer, err error) {
	p.key = append(append(p.key[:0], p.prefix...), key...)
	return p.db.Get(p.key)
}

// Close ends all reading.
func (p *rawRows) Close() error {
	err := p.db.Close()
	p.cache.Unref()
	return err
}

// mapOpenTrials write a large map once and open it in every run.
func (s *session) mapOpenTrials() []trial {
	count := entriesOf(s.OpenEntries)
	return []trial{{label: fmt.Sprintf("%d entries", count), run: func(ctx context.Context) ([]outcome, error) {
		if s.filled.largeMap == "" {
			dir := s.newDir("large-map")
			// An entry lies in its commit and in the view, and for a while twice in the
			// view while tables are merged; the Raft log needs its own room.
			if err := s.needRoom(count, 4*(mapKeySize+mapValueSize), "entries"); err != nil {
				return nil, err
			}
			if err := fillMap(ctx, dir, count); err != nil {
				return nil, errors.Join(err, os.RemoveAll(dir))
			}
			s.filled.largeMap = dir
		}
		if err := forgetTree(s.filled.largeMap); err != nil {
			return nil, err
		}
		o, err := s.OpenStore(ctx, s.filled.largeMap)
		if err != nil {
			return nil, err
		}
		if o.Entries != uint64(count) {
			return nil, fmt.Errorf("mosaik: bench: the map was opened with %d entries, %d were written", o.Entries, count)
		}
		return []outcome{
			{workMapOpenTime, subjectMosaik, Seconds, Sample{Value: o.Counted, Records: count,
				Counters: map[string]float64{"open_s": o.Open, "ready_s": o.Ready}}},
			{workMapOpenMemory, subjectMosaik, Bytes, Sample{Value: float64(o.Peak), Records: count,
				Counters: map[string]float64{"resident_bytes": float64(o.Resident)}}},
		}, nil
	}}}
}

// countEntries returns how many entries the map has in a store that is open; 0
// in one without the map.
func countEntries(ctx context.Context, s log.Store) (uint64, error) {
	m, err := mapDef().Reader(s)
	if err != nil {
		return 0, err
	}
	view, err := m.View(ctx, log.Stale())
	if err != nil {
		return 0, err
	}
	return view.Len()
}
