package bench

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
)

// subjectPebble is pebble alone, as an embedded program would use it: a key for
// every record, its own write-ahead log, pebble.Sync.
const subjectPebble = "pebble"

// bareKey is the size of a key of pebble alone: the record's number, big-endian.
const bareKey = 8

// barePebble is pebble as a target. An append is one batch.
type barePebble struct {
	db       *pebble.DB
	cache    *pebble.Cache
	next     atomic.Uint64 // number of the next record
	writeOpt *pebble.WriteOptions
}

var _ target = (*barePebble)(nil)

// openPebble opens a database with the buffers the engine has, and otherwise
// pebble's defaults. durable says whether appends are synced.
func openPebble(dir string, durable bool) (*barePebble, error) {
	p := &barePebble{cache: pebble.NewCache(64 << 20), writeOpt: pebble.NoSync}
	if durable {
		p.writeOpt = pebble.Sync
	}
	db, err := pebble.Open(dir, &pebble.Options{
		Cache: p.cache, MemTableSize: 64 << 20, FormatMajorVersion: pebble.FormatNewest, Logger: quietPebble{pebble.DefaultLogger},
	})
	if err != nil {
		p.cache.Unref()
		return nil, fmt.Errorf("mosaik: bench: open pebble: %w", err)
	}
	p.db = db
	return p, nil
}

// quietPebble drops what pebble tells about its progress.
type quietPebble struct{ pebble.Logger }

func (quietPebble) Infof(string, ...any) {}

func (p *barePebble) append(_ context.Context, _ int, payloads payloads) ticket {
	number := p.next.Add(uint64(len(payloads))) - uint64(len(payloads))
	var key [bareKey]byte
	if len(payloads) == 1 {
		binary.BigEndian.PutUint64(key[:], number)
		return ticket{err: p.db.Set(key[:], payloads[0], p.writeOpt)}
	}
	b := p.db.NewBatch()
	for i, value := range payloads {
		binary.BigEndian.PutUint64(key[:], number+uint64(i))
		if err := b.Set(key[:], value, nil); err != nil {
			return ticket{err: err}
		}
	}
	err := b.Commit(p.writeOpt)
	if err == nil {
		err = b.Close()
	}
	return ticket{err: err}
}

func (p *barePebble) counters() counters {
	m := p.db.Metrics()
	c := counters{
		nodes:        1,
		logBytes:     m.WAL.BytesWritten,
		flushes:      uint64(m.Flush.Count),
		flushedBytes: uint64(m.Flush.WriteThroughput.Bytes),
		compactions:  uint64(m.Compact.Count),
	}
	for i := range m.Levels {
		// Bytes flushed to blob files are counted as compacted, too.
		c.compactedBytes += m.Levels[i].TableBytesCompacted + m.Levels[i].BlobBytesCompacted - m.Levels[i].BlobBytesFlushed
	}
	return c
}

// flush writes what is in memory to tables.
func (p *barePebble) flush() error { return p.db.Flush() }

// Close implements target.
func (p *barePebble) Close() error {
	err := p.db.Close()
	p.cache.Unref()
	return err
}
