package bench

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// ReportFormat is the number in Report.Format. Fields are only ever added to a
// format; a reader refuses a number it does not know.
const ReportFormat = 1

// ErrReport says that a file is not a report this program can read, or that
// reports do not belong together.
var ErrReport = errors.New("mosaik: bench: bad report")

// Report is what Run has found. Its JSON form is stable.
type Report struct {
	Format       int               `json:"format"` // ReportFormat
	Time         time.Time         `json:"time"`   // when the measuring began
	Machine      Machine           `json:"machine"`
	Options      Options           `json:"options"`
	Modules      map[string]string `json:"modules"`      // versions of the others that were measured
	Measurements []*Measurement    `json:"measurements"` // in the order in which they were first taken
	Rows         []Row             `json:"rows"`         // the table

	judged bool // the options are those the budget is about
}

// Machine tells reports of different machines apart; ratios between those mean
// nothing.
type Machine struct {
	Go         string  `json:"go"`
	OS         string  `json:"os"`
	Arch       string  `json:"arch"`
	CPUs       int     `json:"cpus"`
	Filesystem string  `json:"filesystem"`
	Load       float64 `json:"load"` // average over the minute before the measuring began
}

// Options repeats what was asked for.
type Options struct {
	// As the flags of the same names.
	Size        int     `json:"size"`
	Batch       int     `json:"batch"`
	Keys        int     `json:"keys"`
	Groups      int     `json:"groups"`
	Replicas    int     `json:"replicas"`
	Transport   string  `json:"transport"`
	Seconds     float64 `json:"seconds"`
	Records     int     `json:"records"`
	KeyCount    int     `json:"key_count"`
	OpenKeys    int     `json:"open_keys"`
	OpenRecords int     `json:"open_records"`
	OpenEntries int     `json:"open_entries"`
}

// config is the Config that the options came from, as far as it matters here.
func (o Options) config() *Config {
	return &Config{
		Size: o.Size, Batch: o.Batch, Keys: o.Keys, Groups: o.Groups, Replicas: o.Replicas,
		Time: time.Duration(o.Seconds * float64(time.Second)),
	}
}

// fill puts measurements into the report and draws its table.
func (r *Report) fill(all []*Measurement) {
	r.Measurements = all
	r.Rows = r.table(nil)
}

// Compare draws the report's table again, with the rows that need the figures of
// other systems. Reports of peers are those of bench/peers; several of them
// count as several runs.
func (r *Report) Compare(peers ...PeerReport) error {
	for _, p := range peers {
		if p.Options.Size != r.Options.Size {
			return fmt.Errorf("%w: the peers' records have %d bytes, ours %d", ErrReport, p.Options.Size, r.Options.Size)
		}
		if p.Machine != (Machine{}) && (p.Machine.CPUs != r.Machine.CPUs || p.Machine.OS != r.Machine.OS || p.Machine.Arch != r.Machine.Arch) {
			return fmt.Errorf("%w: the peers were measured on another machine", ErrReport)
		}
	}
	r.Rows = r.table(peers)
	return nil
}

// Merge adds the runs of another report to r. Both must have measured the same
// on the same machine.
func (r *Report) Merge(other Report) error {
	if other.Options != r.Options {
		return fmt.Errorf("%w: measured with different options", ErrReport)
	}
	if other.Machine.CPUs != r.Machine.CPUs || other.Machine.Filesystem != r.Machine.Filesystem {
		return fmt.Errorf("%w: measured on different machines", ErrReport)
	}
	for _, m := range other.Measurements {
		if ours := find(r.Measurements, m.Name, m.Subject); ours != nil {
			ours.Runs = append(ours.Runs, m.Runs...)
		} else {
			r.Measurements = append(r.Measurements, m)
		}
	}
	r.sort()
	r.Rows = r.table(nil)
	return nil
}

// ReadReport reads a report that was written as JSON.
func ReadReport(in io.Reader) (Report, error) {
	var r Report
	if err := readFormat(in, &r, &r.Format, ReportFormat); err != nil {
		return Report{}, err
	}
	if len(r.Measurements) == 0 {
		return Report{}, fmt.Errorf("%w: nothing was measured", ErrReport)
	}
	for _, m := range r.Measurements {
		if m == nil || len(m.Runs) == 0 {
			return Report{}, fmt.Errorf("%w: a measurement without a run", ErrReport)
		}
	}
	r.judged = r.Options.config().ofBudget()
	r.sort()
	return r, nil
}

// sort brings the measurements into the order of their rows.
func (r *Report) sort() {
	slices.SortStableFunc(r.Measurements, func(a, b *Measurement) int {
		return slices.Index(Rows(), a.Row) - slices.Index(Rows(), b.Row)
	})
}

// readFormat decodes one JSON document and checks its format number.
func readFormat(in io.Reader, into any, format *int, want int) error {
	if err := json.NewDecoder(in).Decode(into); err != nil {
		return fmt.Errorf("%w: %w", ErrReport, err)
	}
	if *format != want {
		return fmt.Errorf("%w: format %d, this program knows %d", ErrReport, *format, want)
	}
	return nil
}

// PeerReport is the document that bench/peers writes, as far as it is read here.
type PeerReport struct {
	// As bench/peers/README.md says.
	Format  int       `json:"format"`
	Machine Machine   `json:"machine"`
	Options Options   `json:"options"`
	Runs    []PeerRun `json:"runs"`
}

// PeerRun is one workload of one peer.
type PeerRun struct {
	Peer     string  `json:"peer"`
	Config   string  `json:"config"`
	Workload string  `json:"workload"`
	Unit     Unit    `json:"unit"`
	Value    float64 `json:"value"` // median of its own runs, as are the others
	Min      float64 `json:"min"`
	Max      float64 `json:"max"`
	P50      float64 `json:"p50_us"`
	P99      float64 `json:"p99_us"`
}

const peerFormat = 1

// ReadPeers reads what bench/peers has written with --json.
func ReadPeers(in io.Reader) (PeerReport, error) {
	var p PeerReport
	if err := readFormat(in, &p, &p.Format, peerFormat); err != nil {
		return PeerReport{}, err
	}
	return p, nil
}

// peerMeasurement gathers a workload of a peer over several reports.
func peerMeasurement(reports []PeerReport, peer, config, workload string) *Measurement {
	m := &Measurement{Name: workload, Subject: peer + " " + config}
	for _, report := range reports {
		for _, run := range report.Runs {
			if run.Peer == peer && run.Config == config && run.Workload == workload {
				m.Unit = run.Unit
				sample := Sample{Value: run.Value, P50: run.P50, P99: run.P99}
				m.Runs = append(m.Runs, sample)
				if len(reports) == 1 { // the ends of its range count, since its runs are not to be had
					for _, end := range []float64{run.Min, run.Max} {
						sample.Value = end
						if run.Unit == Micros {
							sample.P50 = end
						}
						m.Runs = append(m.Runs, sample)
					}
				}
			}
		}
	}
	if len(m.Runs) == 0 {
		return nil
	}
	return m
}
