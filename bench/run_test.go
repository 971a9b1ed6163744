package bench

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/mosaik-engine/mosaik/engine"
)

// tiny is a session that takes a moment.
func tiny(t *testing.T) Config {
	return Config{
		Dir: t.TempDir(), Replicas: 1, Runs: 1, Time: 20 * time.Millisecond,
		Records: 2000, KeyCount: 50, OpenKeys: 20, OpenRecords: 1000, OpenEntries: 1500,
	}
}

// inPlace is an engine that is read where it is.
func inPlace(_ context.Context, e *engine.Engine) (RemoteNode, error) {
	return RemoteNode{Scanner: e, Source: e.Groups()[0], Close: func() error { return nil }}, nil
}

// TestRunMeasuresEveryRow runs everything once, on one replica, and wants a
// figure of every row, a plausible table and nothing left behind.
func TestRunMeasuresEveryRow(t *testing.T) {
	before := goleak.IgnoreCurrent()
	c := tiny(t)
	var progress bytes.Buffer
	c.Progress, c.ProfileDir, c.Remote = &progress, t.TempDir(), inPlace
	r, err := Run(t.Context(), c)
	if err != nil {
		t.Fatalf("%v\n%s", err, progress.String())
	}
	goleak.VerifyNone(t, before)
	if left, err := os.ReadDir(c.Dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	for _, row := range Rows() {
		if !slices.ContainsFunc(r.Rows, func(line Row) bool { return line.Row == row }) {
			t.Errorf("the table has no line of row %q", row)
		}
	}
	for _, m := range r.Measurements {
		for _, s := range m.Runs {
			if s.Value < 0 || s.Value == 0 && m.Unit.lowerIsBetter() == false {
				t.Errorf("%s of %s: %v", m.Name, m.Subject, s.Value)
			}
		}
	}
	for _, row := range r.Rows {
		if row.Verdict != "" {
			t.Errorf("%s was judged on a run of %v", row.Axis, c.Time)
		}
	}
	profiles, err := filepath.Glob(filepath.Join(c.ProfileDir, "*.pprof"))
	if err != nil || len(profiles) < len(Rows()) {
		t.Errorf("%d profiles, %v", len(profiles), err)
	}
}

// TestRunReplicated puts a load on three replicas, over both transports, ours
// and the Raft library's. One after the other: the library's log levels are those of
// the process.
func TestRunReplicated(t *testing.T) {
	for _, transport := range []string{InProcess, TCP} {
		t.Run(transport, func(t *testing.T) {
			c := tiny(t)
			c.Replicas, c.Groups, c.Keys, c.Transport, c.Rows = 3, 2, 4, transport, []string{rowWriter}
			r, err := Run(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			for _, subject := range []string{subjectMosaik, subjectRaftTan, subjectRaftPebble, subjectRaftOurs, subjectDisk} {
				if m := find(r.Measurements, rowWriter, subject); m == nil || m.Runs[0].Records == 0 {
					t.Errorf("%s was not measured", subject)
				}
			}
		})
	}
}

func TestRunInterrupted(t *testing.T) {
	before := goleak.IgnoreCurrent()
	c := tiny(t)
	c.Time = time.Hour
	c.Records = maxRecords
	c.Rows = []string{rowEmbeddedWriters}
	ctx, cancel := context.WithCancel(t.Context())
	timer := time.AfterFunc(300*time.Millisecond, cancel) // in the middle, or earlier on a slow machine
	defer timer.Stop()
	if _, err := Run(ctx, c); !errors.Is(err, context.Canceled) {
		t.Fatalf("an interrupted run ended with %v", err)
	}
	goleak.VerifyNone(t, before)
	if left, err := os.ReadDir(c.Dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestRunGoesOn: what cannot be measured is said, and the rest is measured.
func TestRunGoesOn(t *testing.T) {
	c := tiny(t)
	c.Rows = []string{rowMachine, rowOpen}
	c.OpenStore = func(context.Context, string) (OpenStats, error) { return OpenStats{}, errors.ErrUnsupported }
	r, err := Run(t.Context(), c)
	if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), rowOpen) {
		t.Errorf("the failed row came out as %v", err)
	}
	if len(r.Rows) == 0 || r.Rows[0].Row != rowMachine {
		t.Errorf("the other row is missing: %+v", r.Rows)
	}
}

func TestConfigIsChecked(t *testing.T) {
	if err := (Config{}).Validate(); err != nil {
		t.Errorf("the zero Config: %v", err)
	}
	for name, change := range map[string]func(*Config){
		"row":       func(c *Config) { c.Rows = []string{"speed"} },
		"size":      func(c *Config) { c.Size = 129 },
		"tiny size": func(c *Config) { c.Size = 8 },
		"batch":     func(c *Config) { c.Batch = 100_000 },
		"bytes":     func(c *Config) { c.Size, c.Batch = 1<<16, 100 },
		"keys":      func(c *Config) { c.Keys = -1 },
		"groups":    func(c *Config) { c.Groups = engine.MaxGroups + 1 },
		"replicas":  func(c *Config) { c.Replicas = engine.MaxMembers + 1 },
		"transport": func(c *Config) { c.Transport = "pigeon" },
		"time":      func(c *Config) { c.Time = -time.Second },
		"runs":      func(c *Config) { c.Runs = maxRuns + 1 },
		"records":   func(c *Config) { c.Records = maxRecords + 1 },
		"open":      func(c *Config) { c.OpenKeys = maxKeys + 1 },
		"map-open":  func(c *Config) { c.OpenEntries = -1 },
	} {
		var c Config
		change(&c)
		if err := c.Validate(); !errors.Is(err, ErrConfig) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := Run(t.Context(), c); !errors.Is(err, ErrConfig) {
			t.Errorf("Run with bad %s: %v", name, err)
		}
	}
	full := Config{Rows: []string{rowOpen, rowMapOpen}}.withDefaults()
	small := Config{}.withDefaults()
	if full.OpenKeys != FullOpenKeys || full.OpenRecords != FullOpenRecords || small.OpenKeys >= FullOpenKeys {
		t.Errorf("the row open has %d keys if it is named and %d if not", full.OpenKeys, small.OpenKeys)
	}
	if full.OpenEntries != FullOpenEntries || small.OpenEntries >= FullOpenEntries {
		t.Errorf("the row map-open has %d entries if it is named and %d if not", full.OpenEntries, small.OpenEntries)
	}
}
