package bench

import "time"

// counters are what a target counts by itself, summed over its nodes. What it
// does not count is 0.
type counters struct {
	nodes int // that the sums are over

	commits, records, retries uint64 // of one node: they are the same on all
	updates                   uint64 // batches of the store
	syncs                     uint64 // of the Raft log, or of the write-ahead log
	syncTime                  time.Duration
	logBytes, movedBytes      uint64 // written to the Raft log; of them, for a second time
	recycled                  uint64 // files of the Raft log that were used again
	flushes, flushedBytes     uint64 // from the store's memory to tables
	compactions               uint64
	compactedBytes            uint64 // written by compactions
}

// since returns how much c has grown from before.
func (c counters) since(before counters) counters {
	c.commits -= before.commits
	c.records -= before.records
	c.retries -= before.retries
	c.updates -= before.updates
	c.syncs -= before.syncs
	c.syncTime -= before.syncTime
	c.logBytes -= before.logBytes
	c.movedBytes -= before.movedBytes
	c.recycled -= before.recycled
	c.flushes -= before.flushes
	c.flushedBytes -= before.flushedBytes
	c.compactions -= before.compactions
	c.compactedBytes -= before.compactedBytes
	return c
}

// rates turns growth into the counters of a Sample. Bytes are per record and
// node, syncs and commits per second.
func (c counters) rates(elapsed time.Duration, records int) map[string]float64 {
	out := make(map[string]float64)
	set := func(name string, value, of float64) {
		if of > 0 && value > 0 {
			out[name] = value / of
		}
	}
	seconds, copies := elapsed.Seconds(), float64(records*c.nodes)
	set("commits_per_s", float64(c.commits), seconds)
	set("records_per_commit", float64(c.records), float64(c.commits))
	set("commits_per_store_batch", float64(c.commits*uint64(max(c.nodes, 1))), float64(c.updates))
	set("retries", float64(c.retries), 1)
	set("syncs_per_s", float64(c.syncs), seconds)
	set("sync_us", float64(c.syncTime.Microseconds()), float64(c.syncs))
	set("log_bytes_per_sync", float64(c.logBytes), float64(c.syncs))
	set("log_bytes_per_record", float64(c.logBytes), copies)
	set("log_moved_bytes_per_record", float64(c.movedBytes), copies)
	set("log_files_recycled", float64(c.recycled), 1)
	set("flushes", float64(c.flushes), 1)
	set("flushed_bytes_per_record", float64(c.flushedBytes), copies)
	set("compactions", float64(c.compactions), 1)
	set("compacted_bytes_per_record", float64(c.compactedBytes), copies)
	return out
}
