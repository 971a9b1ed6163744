package engine

import (
	"fmt"
	"strings"

	"github.com/mosaik-engine/mosaik/engine/raftlog"
)

// Metrics are an engine's counters and sizes at one moment. Counters grow from
// 0 at Open.
type Metrics struct {
	Groups  []GroupMetrics
	Store   StoreMetrics
	RaftLog raftlog.Metrics
	Full    bool // writes are refused because the disk is full
}

// GroupMetrics are those of one group on this node.
type GroupMetrics struct {
	Name    string
	Head    uint64 // last commit
	Keys    uint64 // logs that have records
	Records uint64 // in the whole log
	Bytes   uint64 // of all commit bodies
	Applied uint64 // Raft index
	Leader  bool   // this node leads the group

	Appends uint64 // accepted here
	Batches uint64 // proposals made here
	Retries uint64 // proposals made again after they were dropped or their outcome was unknown
	Failed  uint64 // appends that failed after they were accepted

	Updates        uint64 // batches of the store written by the apply path
	AppliedCommits uint64
	AppliedRecords uint64
	AppliedBytes   uint64
	Refused        uint64 // proposals the apply path refused
}

// StoreMetrics are those of the store of all groups.
type StoreMetrics struct {
	DiskBytes      uint64 // of live tables and values
	MemTableBytes  uint64
	CacheBytes     uint64
	CacheHits      uint64
	CacheMisses    uint64
	Flushes        uint64
	FlushedBytes   uint64
	Compactions    uint64
	CompactedRead  uint64 // bytes read by compactions
	CompactedBytes uint64 // bytes written by compactions
	Tables         uint64
	FreeBytes      uint64 // of the file system; 0 if it does not tell
}

// Metrics returns the engine's metrics. After Close it is zero.
func (e *Engine) Metrics() Metrics {
	var m Metrics
	if e.checkOpen() != nil {
		return m
	}
	defer e.release()
	for _, g := range e.groups {
		s := g.Status()
		w, r := &g.writer.metrics, &g.replica.metrics
		m.Groups = append(m.Groups, GroupMetrics{
			Name: g.name, Head: s.Head.Number, Keys: uint64(s.Keys), Records: s.Records, Bytes: s.Bytes, Applied: s.Applied,
			Leader:  s.Leader == s.Self && !s.Leader.IsZero(),
			Appends: w.appends.Load(), Batches: w.batches.Load(), Retries: w.retries.Load(), Failed: w.failed.Load(),
			Updates: r.updates.Load(), AppliedCommits: r.commits.Load(), AppliedRecords: r.records.Load(),
			AppliedBytes: r.bytes.Load(), Refused: r.refused.Load(),
		})
	}
	p := e.db.Metrics()
	m.Store = StoreMetrics{
		DiskBytes:     p.DiskSpaceUsage(),
		MemTableBytes: p.MemTable.Size,
		CacheBytes:    uint64(p.BlockCache.Size),
		CacheHits:     uint64(p.BlockCache.Hits),
		CacheMisses:   uint64(p.BlockCache.Misses),
		Flushes:       uint64(p.Flush.Count),
		FlushedBytes:  uint64(p.Flush.WriteThroughput.Bytes),
		Compactions:   uint64(p.Compact.Count),
	}
	for i := range p.Levels {
		l := &p.Levels[i]
		m.Store.CompactedRead += uint64(l.TableBytesRead)
		m.Store.CompactedBytes += uint64(l.TableBytesCompacted) + uint64(l.BlobBytesCompacted)
		m.Store.Tables += uint64(l.TablesCount)
	}
	if usage, err := e.opts.FS.GetDiskUsage(e.dir); err == nil {
		m.Store.FreeBytes = usage.AvailBytes
	}
	m.RaftLog = e.rlog.Metrics()
	m.Full = e.space.full() != nil
	return m
}

// String returns the metrics as lines for a person to read.
func (m Metrics) String() string {
	var b strings.Builder
	for _, g := range m.Groups {
		fmt.Fprintf(&b, "group %s: commit %d, %d records in %d keys, %d bytes; %d appends in %d batches, %d retries, %d failed\n",
			g.Name, g.Head, g.Records, g.Keys, g.Bytes, g.Appends, g.Batches, g.Retries, g.Failed)
	}
	fmt.Fprintf(&b, "store: %d bytes on disk in %d tables, %d flushes of %d bytes, %d compactions wrote %d bytes\n",
		m.Store.DiskBytes, m.Store.Tables, m.Store.Flushes, m.Store.FlushedBytes, m.Store.Compactions, m.Store.CompactedBytes)
	return b.String()
}
