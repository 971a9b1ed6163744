package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

// WriteJSON writes the report as one indented document.
func (r *Report) WriteJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(r)
}

// WriteTable writes the report for people: the table, and below it what the
// engine counted by itself.
func (r *Report) WriteTable(w io.Writer) error {
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "row\taxis\tours\tp50/p99\ttheirs\tp50/p99\twhose\tratio\tmust\tverdict")
	for i := range r.Rows {
		row := &r.Rows[i]
		theirs, latencies, whose, ratio, must := "-", "-", "-", "-", "-"
		if row.Theirs != nil {
			theirs, latencies, whose = figure(row.Theirs.Median, row.Theirs.Unit), row.Theirs.latencies(), row.Theirs.whose()
		}
		if row.Ratio > 0 {
			ratio = fmt.Sprintf("%.2f", row.Ratio)
			if row.Ratio < 0.1 {
				ratio = short(row.Ratio)
			}
		}
		if row.Must != "" {
			must = row.Must
		}
		verdict := row.Verdict
		if row.Close {
			verdict += ", close"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", row.Row, row.Axis,
			figure(row.Ours.Median, row.Ours.Unit), row.Ours.latencies(), theirs, latencies, whose, ratio, must, verdict)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for line := range strings.Lines(b.String()) {
		if _, err := fmt.Fprintln(w, strings.TrimRight(line, " \n")); err != nil {
			return err
		}
	}
	return r.writeRest(w)
}

// writeRest writes what does not fit into the table.
func (r *Report) writeRest(w io.Writer) error {
	var b strings.Builder
	b.WriteString("\nMedians of the runs; ratio is ours divided by theirs; \"close\" is within the noise of the runs.\n")
	if !r.judged {
		b.WriteString("No verdicts: the budget is about 128-byte records, batches of 100, 1 key, 1 group, 3 replicas and at least 1 s a run.\n")
	}
	o, m := &r.Options, &r.Machine
	fmt.Fprintf(&b, "%d processors, %s, %s/%s, %s; load average before %.1f; Raft messages: %s; %g s a run.\n",
		m.CPUs, m.Filesystem, m.OS, m.Arch, m.Go, m.Load, o.Transport, o.Seconds)
	b.WriteString("\nEach measurement, with its range over the runs and what was counted meanwhile:\n")
	for _, m := range r.Measurements {
		sorted := m.of(value)
		fmt.Fprintf(&b, "  %-20s %-20s %s (%s .. %s)", m.Name, m.Subject,
			figure(median(sorted), m.Unit), figure(sorted[0], m.Unit), figure(sorted[len(sorted)-1], m.Unit))
		counters := m.figure(byValue).Counters
		for _, name := range slices.Sorted(maps.Keys(counters)) {
			fmt.Fprintf(&b, " %s=%s", name, short(counters[name]))
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// latencies is p50/p99, where there are any.
func (f *Figure) latencies() string {
	if f.P50 == 0 {
		return "-"
	}
	return figure(f.P50, Micros) + "/" + figure(f.P99, Micros)
}

// whose names the other side, with its workload where that is one of several.
func (f *Figure) whose() string {
	if strings.HasPrefix(f.Subject, jetStream) || strings.HasPrefix(f.Subject, etcd) {
		return f.Subject + " " + f.Workload
	}
	if f.Subject == subjectMosaik {
		return f.Workload
	}
	return f.Subject
}

// figure is a value as people read it.
func figure(v float64, u Unit) string {
	switch u {
	case Micros:
		if v >= 10_000 {
			return fmt.Sprintf("%.1f ms", v/1000)
		}
		if v >= 1000 {
			return fmt.Sprintf("%.2f ms", v/1000)
		}
		return fmt.Sprintf("%.0f us", v)
	case Bytes:
		return grouped(v/(1<<20)) + " MiB"
	case Seconds, Cores:
		return fmt.Sprintf("%.3f %s", v, u)
	case AllocsPerRec:
		return fmt.Sprintf("%.4f", v)
	case BytesPerRecord, BytesPerKey:
		return fmt.Sprintf("%.1f B", v)
	case Share:
		return fmt.Sprintf("%.1f %%", 100*v)
	case PerSecond, CreatedPerSec:
		return grouped(v) + "/s"
	}
	return short(v)
}

// short is a number with few digits.
func short(v float64) string {
	if v >= 1000 {
		return grouped(v)
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}

// grouped is a whole number with commas.
func grouped(v float64) string {
	digits := strconv.FormatFloat(v, 'f', 0, 64)
	for i := len(digits) - 3; i > 0 && digits[i-1] != '-'; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}
