package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync/atomic"

	"github.com/mosaik-engine/mosaik/engine"
	"github.com/mosaik-engine/mosaik/log"
)

// Rows about writing to a map.
const (
	rowMap       = "map"
	rowMapInsert = "map-insert"

	workMapStream = "map/stream" // the same bytes, appended to a stream
)

// The map that is measured. bench/peers has the same keys and values for etcd.
const (
	mapKeySize   = 16
	mapValueSize = 64
	mapKeySpace  = 1_000_000 // keys that are drawn from
	mapBatch     = 100       // entries of an Extend
	mapInserts   = 4096      // callers of Insert
)

func mapDef() log.MapDef[[]byte, []byte] {
	return log.MapDef[[]byte, []byte]{Name: "bench/map", Keys: log.BytesKey(), Values: log.Raw()}
}

// appendMapKey appends the key with a number: mapKeySize bytes for numbers below
// 10^10.
func appendMapKey(dst []byte, number uint64) []byte {
	const prefix, digits = "entry/", mapKeySize - len("entry/")
	dst = append(dst, prefix...)
	var buf [20]byte
	text := strconv.AppendUint(buf[:0], number, 10)
	for range digits - len(text) {
		dst = append(dst, '0')
	}
	return append(dst, text...)
}

// A placement says which key a value is put under, by the numbers of both, so that
// whoever reads the key can check its value.
type placement func(payload uint64) (key uint64)

// drawn is the placement that draws keys uniformly from mapKeySpace, by the
// finalizer of the SplitMix64 generator.
func drawn(payload uint64) uint64 {
	z := payload + 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return (z ^ z>>31) % mapKeySpace
}

// scattered is the placement that puts the first count values under a key each,
// in an order that jumps about.
func scattered(count int) placement {
	const stride = 2654435761 // a prime, so no count below it has a common divisor with it
	return func(payload uint64) uint64 { return payload * stride % uint64(count) }
}

// mapNodes is a map on nodes as a target: an append is one Extend, or one Insert
// if it has a single payload. Both wait for their acknowledgement, so what is under
// way comes from many callers.
type mapNodes struct {
	*nodes
	entries *log.Map[[]byte, []byte]
	place   placement
	added   atomic.Uint64 // entries that were new
}

var _ target = (*mapNodes)(nil)

// openMap opens the map, which is empty, at the node that leads its group.
func openMap(ctx context.Context, n *nodes, place placement) (*mapNodes, error) {
	home := n.engines[0].GroupFor(mapDef().Key()).ID()
	i := slices.IndexFunc(n.group, func(g *engine.Group) bool { return g.ID() == home })
	entries, err := mapDef().Open(ctx, n.group[i])
	if err != nil {
		return nil, err
	}
	return &mapNodes{nodes: n, entries: entries, place: place}, nil
}

// openMapNodes opens new nodes with an empty map.
func openMapNodes(ctx context.Context, o nodeOptions, place placement) (*mapNodes, error) {
	n, err := openNodes(ctx, o)
	if err != nil {
		return nil, err
	}
	m, err := openMap(ctx, n, place)
	if err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return m, nil
}

func (m *mapNodes) append(ctx context.Context, _ int, payloads payloads) ticket {
	var key [mapKeySize]byte
	keyOf := func(payload []byte) []byte {
		return appendMapKey(key[:0], m.place(binary.LittleEndian.Uint64(payload)))
	}
	if len(payloads) == 1 {
		_, _, existed, err := m.entries.Insert(ctx, keyOf(payloads[0]), payloads[0])
		if err == nil && !existed {
			m.added.Add(1)
		}
		return ticket{err: err}
	}
	_, added, err := m.entries.Extend(ctx, func(yield func(key, value []byte) bool) {
		for _, p := range payloads {
			if !yield(keyOf(p), p) {
				return
			}
		}
	})
	m.added.Add(added)
	return ticket{err: err}
}

// fill puts a load on the map and checks that its log has grown by one command
// for each append, and that the map has every entry that was said to be new.
func (m *mapNodes) fill(ctx context.Context, l load) (Sample, error) {
	commands, added := m.records(), m.added.Load()
	s, err := l.run(ctx, m, 0)
	if err != nil {
		return s, err
	}
	if got := m.records() - commands; got != s.Records/l.batch {
		return s, fmt.Errorf("mosaik: bench: %d commands were acknowledged, the log has %d", s.Records/l.batch, got)
	}
	view, err := m.entries.View(ctx, log.Linearizable())
	if err != nil {
		return s, err
	}
	n, err := view.Len()
	if err != nil {
		return s, err
	}
	if n != m.added.Load() {
		return s, fmt.Errorf("mosaik: bench: the map has %d entries, %d were new", n, m.added.Load())
	}
	s.Counters["entries"] = float64(n)
	s.Counters["new_share"] = float64(m.added.Load()-added) / float64(max(s.Records, 1))
	return s, nil
}

// mapTrials write to a map, and for comparison the same bytes to a stream, by the
// same callers.
func (s *session) mapTrials() []trial {
	return []trial{s.mapTrial(rowMap), s.appendTrial(workMapStream, subjectMosaik, s.Replicas)}
}

func (s *session) mapTrial(workload string) trial {
	return s.loadTrial(workload, workload, subjectMosaik, func(ctx context.Context, dir string) (target, error) {
		return openMapNodes(ctx, nodeOptions{dir: dir, replicas: s.Replicas, groups: s.Groups, keys: 1, transport: s.Transport}, drawn)
	})
}
