package bench

import "fmt"

// The table: which figure of ours stands against which of theirs, and what the
// budget demands.

// metric is the figure of a measurement that a comparison is about.
type metric int

const (
	byValue metric = iota
	byP50
	byP99
)

func (m metric) pick() func(*Sample) float64 { return [...]func(*Sample) float64{value, p50, p99}[m] }

// unit is what the figure counts in a measurement of unit u.
func (m metric) unit(u Unit) Unit {
	if m == byValue {
		return u
	}
	return Micros
}

// yardstick finds what ours is compared with. It returns nil if that was not
// measured.
type yardstick func(r *Report, peers []PeerReport, by metric) *Measurement

// comparison is one line of the table.
type comparison struct {
	row, axis string
	ours      string // workload
	by        metric
	theirs    yardstick // nil: the figure stands alone
	must      float64   // at least this ratio, or at most where less is better; 0: nothing is demanded
}

// Verdicts of a comparison of which the budget demands something.
const (
	Held   = "held"
	Missed = "MISSED"
)

// measured is another measurement of the same session.
func measured(workload, subject string) yardstick {
	return func(r *Report, _ []PeerReport, _ metric) *Measurement { return find(r.Measurements, workload, subject) }
}

// bareRaftBest is the better of the Raft library's own log stores.
func bareRaftBest(workload string) yardstick {
	return func(r *Report, _ []PeerReport, by metric) *Measurement {
		return better(by, find(r.Measurements, workload, subjectRaftTan), find(r.Measurements, workload, subjectRaftPebble))
	}
}

// peer is the best of several workloads of a peer.
func peer(name, config string, workloads ...string) yardstick {
	return func(_ *Report, peers []PeerReport, by metric) *Measurement {
		var best *Measurement
		for _, w := range workloads {
			best = better(by, best, peerMeasurement(peers, name, config, w))
		}
		return best
	}
}

// subjectBudget is who stands against ours where the budget states a figure.
const subjectBudget = "budget"

// limit is such a figure.
func limit(figure float64, unit Unit) yardstick {
	return func(_ *Report, _ []PeerReport, by metric) *Measurement {
		return &Measurement{Subject: subjectBudget, Unit: unit, Runs: []Sample{{Value: figure, P50: figure, P99: figure}}}
	}
}

func better(by metric, a, b *Measurement) *Measurement {
	if a == nil {
		return b
	}
	if b == nil {
		return a
	}
	x, y := median(a.of(by.pick())), median(b.of(by.pick()))
	if by.unit(a.Unit).lowerIsBetter() == (y < x) {
		return b
	}
	return a
}

const (
	jetStream = "jetstream"
	always    = "always"  // sync_interval: always; durable
	lazily    = "default" // two minutes; not durable
)

const (
	etcd       = "etcd"
	etcdConfig = "default"
)

func jetStreamBatches(config string) yardstick {
	return peer(jetStream, config, "batch100", "batch100-wide", "batch100-atomic", "batch100-atomic16")
}

// comparisons returns the table's lines. Their demands are the column "must now"
// of the budget in docs/bench.
func comparisons(o Options) []comparison {
	replicas := fmt.Sprintf("%d replicas", o.Replicas)
	batch := fmt.Sprintf("append, batches of %d, %s", o.Batch, replicas)
	pipelined := "append, single records, 4,096 in flight, " + replicas
	writers := "64 synchronous writers, " + replicas
	writer := "one synchronous writer, " + replicas
	rows := []comparison{
		{rowMachine, "the disk: 4 KiB written and synced", workSync, byP50, nil, 0},
		{rowMachine, "the disk: the same, a file a replica", workSyncThree, byP50, nil, 0},

		{rowBatch, batch, rowBatch, byValue, bareRaftBest(rowBatch), 0.75},
		{rowBatch, batch, rowBatch, byValue, measured(rowBatch, subjectRaftOurs), 0},
		{rowBatch, batch, rowBatch, byValue, measured(rowBatch, subjectDisk), 0},
		{rowBatch, batch, rowBatch, byValue, measured(rowBatch, subjectDiskGrouped), 0},
		{rowBatch, batch, rowBatch, byValue, jetStreamBatches(always), 4.5},
		{rowBatch, batch, rowBatch, byValue, jetStreamBatches(lazily), 2.5},

		{rowPipelined, pipelined, rowPipelined, byValue, bareRaftBest(rowPipelined), 0},
		{rowPipelined, pipelined, rowPipelined, byValue, measured(rowPipelined, subjectRaftOurs), 0},
		{rowPipelined, pipelined, rowPipelined, byValue, peer(jetStream, always, "pipelined"), 4},
		{rowPipelined, pipelined, rowPipelined, byValue, peer(jetStream, lazily, "pipelined"), 0},

		{rowKeys, "1,000 keys in turn, against one key", rowKeys, byValue, measured(workOneKey, subjectMosaik), 0.8},
		{rowKeys, "1,000 keys in turn", rowKeys, byValue, peer(jetStream, always, "subjects1000"), 0},

		{rowWriters, writers, rowWriters, byValue, bareRaftBest(rowWriters), 0},
		{rowWriters, writers, rowWriters, byValue, measured(rowWriters, subjectRaftOurs), 0},
		{rowWriters, writers, rowWriters, byValue, peer(jetStream, always, "writers64"), 1.5},
		{rowWriters, writers, rowWriters, byValue, peer(jetStream, lazily, "writers64"), 0},

		{rowWriter, writer + ", p50", rowWriter, byP50, bareRaftBest(rowWriter), 1.25},
		{rowWriter, writer + ", p99", rowWriter, byP99, bareRaftBest(rowWriter), 1.25},
		{rowWriter, writer + ", p50", rowWriter, byP50, measured(rowWriter, subjectRaftOurs), 0},
		{rowWriter, writer + ", p50", rowWriter, byP50, measured(rowWriter, subjectDisk), 0},
		{rowWriter, writer + ", p50", rowWriter, byP50, peer(jetStream, always, "writer1"), 1},
		{rowWriter, writer + ", p99", rowWriter, byP99, peer(jetStream, always, "writer1"), 1},
		{rowWriter, writer + ", p50", rowWriter, byP50, peer(jetStream, lazily, "writer1"), 0},

		{rowBeside, "one writer beside an audit, p99, against alone", workBesideAudit, byP99, measured(workBesideAlone, subjectMosaik), 1.5},
	}
	return append(rows, embeddedComparisons(o)...)
}

// embeddedComparisons are those of rows that have one replica, or none.
func embeddedComparisons(o Options) []comparison {
	const (
		batch   = "one replica, one caller, batches of 1,024"
		writers = "one replica, 64 synchronous callers"
		replay  = "replay in process, verified"
		remote  = "replay over loopback HTTP"
		seek    = "seek to a commit, first record"
		disk    = "bytes on disk a record and replica, "
	)
	rows := []comparison{
		{rowEmbeddedBatch, batch, rowEmbeddedBatch, byValue, measured(rowEmbeddedBatch, subjectPebble), 1},
		{rowEmbeddedBatch, batch, rowEmbeddedBatch, byValue, measured(rowEmbeddedBatch, subjectRaftTan), 0},
		{rowEmbeddedBatch, batch, rowEmbeddedBatch, byValue, measured(rowEmbeddedBatch, subjectDisk), 0},
		{rowEmbeddedBatch, "one replica, 4 callers, batches of 1,024", workEmbeddedBatchFour, byValue, measured(workEmbeddedBatchFour, subjectPebble), 0},
		{rowEmbeddedWriters, writers, rowEmbeddedWriters, byValue, measured(rowEmbeddedWriters, subjectPebble), 0.9},
		{rowEmbeddedWriters, writers, rowEmbeddedWriters, byValue, measured(rowEmbeddedWriters, subjectRaftTan), 0},

		{rowReplay, replay, rowReplay, byValue, measured(rowReplay, subjectPebble), 1},
		{rowReplay, "replay in process, typed stream", workReplayStream, byValue, measured(rowReplay, subjectPebble), 0},
		{rowReplay, replay, rowReplay, byValue, peer(jetStream, always, "replay"), 0},
		{rowRemote, remote, rowRemote, byValue, limit(1.2e6, PerSecond), 1},
		{rowRemote, remote, rowRemote, byValue, peer(jetStream, always, "replay-r1"), 2.4},
		{rowRemote, remote + ", commits verified", workRemoteCommits, byValue, limit(1.2e6, PerSecond), 0},
		{rowSeek, seek + ", p50", rowSeek, byP50, limit(1000, Micros), 1},
		{rowSeek, seek + ", p50", rowSeek, byP50, measured(rowSeek, subjectPebble), 0},
		{rowSeek, seek + ", p99", rowSeek, byP99, measured(rowSeek, subjectPebble), 0},
		{rowSeek, seek + ", p50", rowSeek, byP50, peer(jetStream, always, "seek"), 0},

		{rowDisk, disk + "batches", workDiskBatch, byValue, limit(150, BytesPerRecord), 1},
		{rowDisk, disk + "pipelined", workDiskPipelined, byValue, limit(150, BytesPerRecord), 1},
		{rowDisk, disk + "1,000 keys", workDiskKeys, byValue, nil, 0},
		{rowDisk, disk + "one writer", workDiskWriter, byValue, nil, 0},
		{rowDisk, disk + "batches, with the Raft log", workDiskBatch + withRaftLog, byValue, nil, 0},
		{rowDisk, "the Raft log on disk, a replica", workDiskLog, byValue, nil, 0},
		{rowDisk, disk + "batches", workDiskBatch, byValue, measured(workDiskPebble, subjectPebble), 0},
		{rowDisk, disk + "batches", workDiskBatch, byValue, peer(jetStream, always, "disk"), 0},

		{rowKey, "one more key: on disk", workKeyDisk, byValue, limit(8<<10, BytesPerKey), 1},
		{rowKey, "one more key: in memory", workKeyMemory, byValue, limit(8<<10, BytesPerKey), 1},
		{rowKey, "named streams created, 64 callers", workKeyCreate, byValue, limit(1000, CreatedPerSec), 1},
		{rowKey, "keys written for the first time", workKeyFirst, byValue, limit(1000, CreatedPerSec), 1},
		{rowKey, "a named stream opened again", workKeyReopen, byP50, nil, 0},
		{rowKey, fmt.Sprintf("%s keys idle, above one key", grouped(float64(o.KeyCount))), workKeyIdle, byValue, limit(0.01, Cores), 1},

		{rowApply, "allocations a record, all replicas together", rowApply, byValue, limit(0.05, AllocsPerRec), 1},
		{rowMemory, "heap growth a record of log", rowMemory, byValue, limit(1, BytesPerRecord), 1},
	}
	open := []comparison{
		{rowOpen, fmt.Sprintf("open %s keys, %s records", grouped(float64(o.OpenKeys)), grouped(float64(o.OpenRecords))),
			workOpenTime, byValue, limit(2, Seconds), 1},
		{rowOpen, "the same, memory at the most", workOpenMemory, byValue, limit(1<<30, Bytes), 1},
	}
	if o.OpenKeys < FullOpenKeys || o.OpenRecords < FullOpenRecords {
		open[0].must, open[1].must = 0, 0 // the budget is about more
	}
	return append(append(rows, open...), mapComparisons(o)...)
}

// mapComparisons are those of rows about maps.
func mapComparisons(o Options) []comparison {
	replicas := fmt.Sprintf("%d replicas", o.Replicas)
	batch := "map: inserts in batches of 100, " + replicas
	insert := "map: single inserts, 4,096 in flight, " + replicas
	const (
		get    = "map: stale get of one key"
		absent = "map: stale get of an absent key"
		fresh  = "map: linearizable get, one replica, p50"
		digest = "map: the state digest's part of applying"
	)
	rows := []comparison{
		{rowMap, batch + ", against a stream", rowMap, byValue, measured(workMapStream, subjectMosaik), 0.5},
		{rowMap, batch, rowMap, byValue, peer(etcd, etcdConfig, "txn100-16", "txn100-64"), 10},
		{rowMapInsert, insert, rowMapInsert, byValue, nil, 0},
		{rowMapInsert, insert, rowMapInsert, byValue, peer(etcd, etcdConfig, "puts64"), 0},
		{rowMapGet, get, rowMapGet, byValue, measured(rowMapGet, subjectPebble), 0.7},
		{rowMapGet, absent, workMapGetAbsent, byValue, measured(workMapGetAbsent, subjectPebble), 0},
		{rowMapGet, get + ", p50", rowMapGet, byP50, peer(etcd, etcdConfig, "get"), 0},
		{rowMapGet, fresh, workMapGetLinearizable, byP50, nil, 0},
		{rowState, digest, rowState, byValue, limit(0.25, Share), 1},
	}
	open := []comparison{
		{rowMapOpen, fmt.Sprintf("open a map of %s entries", grouped(float64(o.OpenEntries))), workMapOpenTime, byValue, limit(1, Seconds), 1},
		{rowMapOpen, "the same, memory at the most", workMapOpenMemory, byValue, limit(1<<30, Bytes), 1},
	}
	if o.OpenEntries < FullOpenEntries {
		open[0].must, open[1].must = 0, 0 // the budget is about more
	}
	return append(rows, open...)
}

// Row is one line of the table.
type Row struct {
	Row    string  `json:"row"`
	Axis   string  `json:"axis"`
	Ours   Figure  `json:"ours"`
	Theirs *Figure `json:"theirs,omitempty"`
	// Ratio is ours divided by theirs; 0 where there is none.
	Ratio float64 `json:"ratio,omitempty"`
	// Must is what the budget demands of the ratio, such as "≥ 0.75"; empty if it
	// demands nothing.
	Must string `json:"must,omitempty"`
	// Verdict is Held or Missed, or empty where nothing is demanded, or the options
	// are not those the demand is about.
	Verdict string `json:"verdict,omitempty"`
	// Close says that the verdict would be another one with the worst or the best of
	// the runs instead of the median.
	Close bool `json:"close,omitempty"`
}

// Figure is a median with its range and what belongs to it.
type Figure struct {
	Subject  string             `json:"subject"`
	Workload string             `json:"workload,omitempty"`
	Unit     Unit               `json:"unit"`
	Median   float64            `json:"median"`
	Min      float64            `json:"min"`
	Max      float64            `json:"max"`
	Runs     int                `json:"runs"`
	P50      float64            `json:"p50_us,omitempty"`
	P99      float64            `json:"p99_us,omitempty"`
	Counters map[string]float64 `json:"counters,omitempty"` // medians
}

func (m *Measurement) figure(by metric) Figure {
	sorted := m.of(by.pick())
	f := Figure{
		Subject: m.Subject, Workload: m.Name, Unit: by.unit(m.Unit),
		Median: median(sorted), Min: sorted[0], Max: sorted[len(sorted)-1], Runs: len(sorted),
		P50: median(m.of(p50)), P99: median(m.of(p99)),
	}
	if m.Subject == subjectBudget {
		f.P50, f.P99 = 0, 0 // there to be picked only
	}
	for i := range m.Runs {
		for name := range m.Runs[i].Counters {
			if f.Counters == nil {
				f.Counters = make(map[string]float64)
			}
			f.Counters[name] = m.counter(name)
		}
	}
	return f
}

// table draws the lines of what was measured.
func (r *Report) table(peers []PeerReport) []Row {
	var rows []Row
	for _, c := range comparisons(r.Options) {
		subject := subjectMosaik
		if c.row == rowMachine {
			subject = subjectDisk
		}
		ours := find(r.Measurements, c.ours, subject)
		if ours == nil {
			continue
		}
		row := Row{Row: c.row, Axis: c.axis, Ours: ours.figure(c.by)}
		if c.theirs != nil {
			theirs := c.theirs(r, peers, c.by)
			if theirs == nil {
				continue
			}
			f := theirs.figure(c.by)
			row.Theirs = &f
			row.judge(c.must, r.judged)
		}
		rows = append(rows, row)
	}
	return rows
}

// judge fills in the ratio and, if something is demanded, the verdict.
func (row *Row) judge(must float64, judged bool) {
	ours, theirs := &row.Ours, row.Theirs
	if theirs.Median > 0 {
		row.Ratio = ours.Median / theirs.Median
	}
	if must == 0 {
		return
	}
	sign, lower := "≥", ours.Unit.lowerIsBetter()
	if lower {
		sign = "≤"
	}
	row.Must = fmt.Sprintf("%s %.3g", sign, must)
	if theirs.Subject == subjectBudget {
		row.Must = sign + " " + figure(must*theirs.Median, ours.Unit)
	}
	if !judged {
		return
	}
	holds := func(ours, theirs float64) bool {
		if lower {
			return ours <= must*theirs
		}
		return ours >= must*theirs
	}
	row.Verdict = Missed
	if holds(ours.Median, theirs.Median) {
		row.Verdict = Held
	}
	row.Close = holds(ours.Min, theirs.Max) != holds(ours.Max, theirs.Min)
}
