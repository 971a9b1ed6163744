package main

import (
	"context"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/mosaik-engine/mosaik/bench/peers/measure"
)

// The whole program once, tiny: every row is there, every number that belongs to it is positive,
// and nothing is left on the disk.
func TestEveryRowIsMeasured(t *testing.T) {
	dir := t.TempDir()
	var out, progress strings.Builder
	code := run(t.Context(), []string{"--dir", dir, "--records", "600", "--seconds", "0.3", "--runs", "1", "--json"}, &out, &progress)
	if code != exitOK {
		t.Fatalf("exit code %d\n%s", code, progress.String())
	}
	var report measure.Report
	decoder := json.NewDecoder(strings.NewReader(out.String()))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&report); err != nil {
		t.Fatalf("%v in\n%s", err, out.String())
	}
	if report.Format != measure.FormatVersion || report.Options.Records != 600 || report.Options.Size != 128 {
		t.Errorf("head of the report: %+v", report)
	}

	type key struct{ peer, config, workload string }
	rows := make(map[key]measure.Row)
	for _, row := range report.Rows {
		k := key{row.Peer, row.Config, row.Workload}
		if _, twice := rows[k]; twice {
			t.Errorf("%v appears twice", k)
		}
		rows[k] = row
	}
	for _, s := range []subject{jetstreamSubject("default"), jetstreamSubject("always"), etcdSubject(), pebbleSubject()} {
		for _, w := range s.workloads {
			k := key{s.peer, s.config, w.Name}
			row, ok := rows[k]
			if !ok {
				t.Errorf("no row %v", k)
				continue
			}
			delete(rows, k)
			if row.Value <= 0 || row.Min <= 0 || row.Max < row.Min || row.Samples != 1 || row.Records <= 0 {
				t.Errorf("%v: %+v", k, row)
			}
			if row.Unit != w.Unit || row.Axis != w.Axis || row.Replicas != w.Replicas || row.Durable && !s.durable {
				t.Errorf("%v does not say what it is: %+v", k, row)
			}
			onDisk := w.Unit == measure.BytesPerRecord
			if onDisk != (row.BytesPerRecord > 128) || onDisk == (row.RecordsPerSecond > 0) {
				t.Errorf("%v: %+v", k, row)
			}
			timed := !onDisk && !strings.HasPrefix(w.Name, "replay")
			if timed != (row.P50Micros > 0) || row.P99Micros < row.P50Micros {
				t.Errorf("%v: %+v", k, row)
			}
			if (w.Baseline != "") != (row.Ratio > 0) {
				t.Errorf("%v: ratio %v", k, row.Ratio)
			}
		}
	}
	for k := range rows {
		t.Errorf("unexpected row %v", k)
	}
	left, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestTableOfOneWorkload(t *testing.T) {
	var out, progress strings.Builder
	code := run(t.Context(), []string{
		"--dir", t.TempDir(), "--records", "2000", "--seconds", "0.2", "--runs", "2", "--peers", "pebble", "--workloads", "batch1024,pebble/disk",
	}, &out, &progress)
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if code != exitOK || len(lines) != 3 || !strings.Contains(lines[1], "(batch1024)") || !strings.Contains(lines[2], "(disk)") {
		t.Fatalf("exit code %d\n%s%s", code, out.String(), progress.String())
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{
		{"--records", "0"},
		{"--seconds", "0"},
		{"--runs", "0"},
		{"--size", "15"},
		{"--size", "129"},
		{"--sync", "never"},
		{"--peers", "kafka"},
		{"--workloads", "batch1025"},
		{"--peers", "pebble", "--workloads", "pipelined"},
		{"extra"},
		{"--unknown"},
	} {
		var out, progress strings.Builder
		if code := run(t.Context(), args, &out, &progress); code != exitUsage || out.Len() > 0 || progress.Len() == 0 {
			t.Errorf("%v: exit code %d, stdout %q, stderr %q", args, code, out.String(), progress.String())
		}
	}
}

func TestInterruptedLeavesNothing(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dir := t.TempDir()
	var out, progress strings.Builder
	if code := run(ctx, []string{"--dir", dir, "--records", "100"}, &out, &progress); code != exitInterrupted || out.Len() > 0 {
		t.Errorf("exit code %d, stdout %q", code, out.String())
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// The JSON names rows by peer, configuration and workload, so those must tell them apart.
func TestWorkloadNames(t *testing.T) {
	for _, s := range []subject{jetstreamSubject("always"), etcdSubject(), pebbleSubject()} {
		var names []string
		for _, w := range s.workloads {
			names = append(names, w.Name)
			if w.Baseline != "" && !slices.Contains(names, w.Baseline) {
				t.Errorf("%s/%s is divided by %q, which does not come before it", s.peer, w.Name, w.Baseline)
			}
		}
		slices.Sort(names)
		if len(slices.Compact(names)) != len(s.workloads) {
			t.Errorf("%s has two workloads of one name", s.peer)
		}
	}
}
