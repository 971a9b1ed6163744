package admin

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/mosaik-engine/mosaik/engine"
	"github.com/mosaik-engine/mosaik/network"
)

// collector gives an engine's metrics to Prometheus, as of the moment it asks.
type collector struct {
	engine   *engine.Engine
	endpoint *network.Endpoint // nil: the node is alone
	version  string
}

// groupMetric is one of the metrics that every group has.
type groupMetric struct {
	name, help string
	kind       prometheus.ValueType
	value      func(*engine.GroupMetrics) float64
}

// groupMetrics lists them; each has the label "group".
func groupMetrics() []groupMetric {
	const gauge, counter = prometheus.GaugeValue, prometheus.CounterValue
	type m = engine.GroupMetrics
	return []groupMetric{
		{"group_head_commit", "Number of the group's last commit on this node.", gauge, func(g *m) float64 { return float64(g.Head) }},
		{"group_streams", "Logs of the group that have records.", gauge, func(g *m) float64 { return float64(g.Keys) }},
		{"group_records", "Records in the group's whole log.", gauge, func(g *m) float64 { return float64(g.Records) }},
		{"group_body_bytes", "Bytes of all commit bodies of the group.", gauge, func(g *m) float64 { return float64(g.Bytes) }},
		{"group_applied_index", "Raft index that this node has applied.", gauge, func(g *m) float64 { return float64(g.Applied) }},
		{"group_leader", "Whether this node leads the group.", gauge, func(g *m) float64 { return truth(g.Leader) }},
		{"appends_total", "Appends accepted by this node.", counter, func(g *m) float64 { return float64(g.Appends) }},
		{"append_failures_total", "Appends that failed after they had been accepted.", counter, func(g *m) float64 { return float64(g.Failed) }},
		{"proposals_total", "Batches of appends proposed by this node.", counter, func(g *m) float64 { return float64(g.Batches) }},
		{"proposal_retries_total", "Proposals made again because they were dropped or their outcome was unknown.", counter, func(g *m) float64 { return float64(g.Retries) }},
		{"applied_commits_total", "Commits applied by this process.", counter, func(g *m) float64 { return float64(g.AppliedCommits) }},
		{"applied_records_total", "Records applied by this process.", counter, func(g *m) float64 { return float64(g.AppliedRecords) }},
		{"applied_bytes_total", "Bytes of commit bodies applied by this process.", counter, func(g *m) float64 { return float64(g.AppliedBytes) }},
		{"applied_batches_total", "Batches written to the store by the apply path.", counter, func(g *m) float64 { return float64(g.Updates) }},
		{"refused_proposals_total", "Proposals that the apply path refused.", counter, func(g *m) float64 { return float64(g.Refused) }},
	}
}

// nodeMetric is one of the metrics of a node as a whole.
type nodeMetric struct {
	name, help string
	kind       prometheus.ValueType
	value      func(*engine.Metrics) float64
}

func nodeMetrics() []nodeMetric {
	const gauge, counter = prometheus.GaugeValue, prometheus.CounterValue
	type m = engine.Metrics
	return []nodeMetric{
		{"disk_full", "Whether appends are refused because there is too little room on the disk.", gauge, func(e *m) float64 { return truth(e.Full) }},
		{"store_disk_bytes", "Bytes of the store's tables and values on the disk.", gauge, func(e *m) float64 { return float64(e.Store.DiskBytes) }},
		{"store_free_bytes", "Free bytes of the store's file system; 0 if it does not tell.", gauge, func(e *m) float64 { return float64(e.Store.FreeBytes) }},
		{"store_memtable_bytes", "Bytes of the store's write buffers.", gauge, func(e *m) float64 { return float64(e.Store.MemTableBytes) }},
		{"store_tables", "Tables of the store.", gauge, func(e *m) float64 { return float64(e.Store.Tables) }},
		{"store_cache_bytes", "Bytes in the store's block cache.", gauge, func(e *m) float64 { return float64(e.Store.CacheBytes) }},
		{"store_cache_hits_total", "Blocks found in the cache.", counter, func(e *m) float64 { return float64(e.Store.CacheHits) }},
		{"store_cache_misses_total", "Blocks read from the disk.", counter, func(e *m) float64 { return float64(e.Store.CacheMisses) }},
		{"store_flushes_total", "Write buffers written to tables.", counter, func(e *m) float64 { return float64(e.Store.Flushes) }},
		{"store_flushed_bytes_total", "Bytes written by flushes.", counter, func(e *m) float64 { return float64(e.Store.FlushedBytes) }},
		{"store_compactions_total", "Compactions of tables.", counter, func(e *m) float64 { return float64(e.Store.Compactions) }},
		{"store_compaction_read_bytes_total", "Bytes read by compactions.", counter, func(e *m) float64 { return float64(e.Store.CompactedRead) }},
		{"store_compaction_written_bytes_total", "Bytes written by compactions.", counter, func(e *m) float64 { return float64(e.Store.CompactedBytes) }},
		{"raft_log_syncs_total", "Syncs of the Raft log to the disk.", counter, func(e *m) float64 { return float64(e.RaftLog.Syncs) }},
		{"raft_log_sync_seconds_total", "Time spent in them.", counter, func(e *m) float64 { return e.RaftLog.SyncTime.Seconds() }},
		{"raft_log_sync_seconds_max", "The slowest of them.", gauge, func(e *m) float64 { return e.RaftLog.SyncTimeMax.Seconds() }},
		{"raft_log_written_bytes_total", "Bytes written to the Raft log.", counter, func(e *m) float64 { return float64(e.RaftLog.BytesWritten) }},
		{"raft_log_moved_bytes_total", "Bytes written again to free an old file.", counter, func(e *m) float64 { return float64(e.RaftLog.BytesMoved) }},
		{"raft_log_live_bytes", "Bytes of entries that may still be needed.", gauge, func(e *m) float64 { return float64(e.RaftLog.LiveBytes) }},
		{"raft_log_entries", "Entries that may still be needed.", gauge, func(e *m) float64 { return float64(e.RaftLog.Entries) }},
		{"raft_log_files", "Files of the Raft log.", gauge, func(e *m) float64 { return float64(e.RaftLog.Files) }},
		{"raft_log_file_bytes", "Their size on the disk.", gauge, func(e *m) float64 { return float64(e.RaftLog.FileBytes) }},
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// Describe announces nothing: which metrics there are is known when they are
// collected.
func (c *collector) Describe(chan<- *prometheus.Desc) {}

// Collect sends the metrics as they are now. Of a closed engine there are none.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	send := func(name, help string, kind prometheus.ValueType, value float64, labels prometheus.Labels) {
		out <- prometheus.MustNewConstMetric(prometheus.NewDesc("mosaik_"+name, help, nil, labels), kind, value)
	}
	send("build_info", "Constant 1, with the version of the program.", prometheus.GaugeValue, 1, prometheus.Labels{"version": c.version})
	m := c.engine.Metrics()
	if len(m.Groups) == 0 {
		return
	}
	for i := range m.Groups {
		labels := prometheus.Labels{"group": m.Groups[i].Name}
		for _, g := range groupMetrics() {
			send(g.name, g.help, g.kind, g.value(&m.Groups[i]), labels)
		}
	}
	for _, n := range nodeMetrics() {
		send(n.name, n.help, n.kind, n.value(&m), nil)
	}
	if c.endpoint == nil {
		return
	}
	n := c.endpoint.Metrics()
	const gauge, counter = prometheus.GaugeValue, prometheus.CounterValue
	send("network_connections", "Connections with other nodes.", gauge, float64(n.Conns), nil)
	send("network_handshakes", "Connections that are being accepted.", gauge, float64(n.Handshakes), nil)
	send("network_accepted_total", "Connections that others have made.", counter, float64(n.Accepted), nil)
	send("network_dialled_total", "Connections that this node has made.", counter, float64(n.Dialled), nil)
	send("network_dial_errors_total", "Addresses where nobody could be reached.", counter, float64(n.DialErrors), nil)
	send("network_received_bytes_total", "Payload received from other nodes.", counter, float64(n.BytesIn), nil)
	send("network_sent_bytes_total", "Payload sent to other nodes.", counter, float64(n.BytesOut), nil)
	for _, by := range []struct {
		name, help string
		counts     map[network.Reason]uint64
	}{
		{"network_refused_total", "Connections that this node has refused, by reason.", n.Refused},
		{"network_refused_by_others_total", "Connections that others have refused it, by reason.", n.RefusedBy},
		{"network_ended_total", "Connections that were made and have ended, by reason.", n.Closed},
	} {
		for reason, count := range by.counts {
			send(by.name, by.help, counter, float64(count), prometheus.Labels{"reason": string(reason)})
		}
	}
	d := n.Raft
	for reason, count := range map[string]uint64{"unproven_out": d.UnprovenOut, "unproven_in": d.UnprovenIn, "foreign": d.Foreign, "local": d.Local} {
		send("network_raft_dropped_total", "Raft messages that were not passed on, by reason.", counter, float64(count), prometheus.Labels{"reason": reason})
	}
}
