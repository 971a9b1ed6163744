package engine_test

import (
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/mosaik-engine/mosaik/engine"
	"github.com/mosaik-engine/mosaik/engine/cluster"
	"github.com/mosaik-engine/mosaik/identity"
)

// What the archive saves and costs, and how fast a member that lags gets its
// history, on files of the operating system.

const (
	archiveBenchBytes = 256 << 20
	archiveBenchBatch = 256 << 10
)

// archiveCluster is three nodes with so much history; node 2 takes part from the
// start or is stopped after its first commits.
func archiveCluster(b *testing.B, away bool, configure func(i int, o *engine.Options)) (*cluster.Cluster, string) {
	b.Helper()
	ctx := context.Background()
	dir := b.TempDir()
	c, err := cluster.Open(cluster.Options{Nodes: 3, Dir: dir, Configure: func(i int, o *engine.Options) {
		o.RaftLogBytes = 8 << 20
		configure(i, o)
	}})
	if err == nil {
		err = c.Ready(ctx)
	}
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	key := identity.NewID("stream")
	if _, err := c.Node(2).Append(ctx, key, []byte("first")); err != nil {
		b.Fatal(err)
	}
	if away {
		if err := c.Stop(2); err != nil {
			b.Fatal(err)
		}
	}
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(w), 1))
			payloads := make([][]byte, archiveBenchBatch/1024)
			for range archiveBenchBytes / archiveBenchBatch / 4 {
				for i := range payloads {
					payloads[i] = make([]byte, 1024)
					for j := 0; j < 1024; j += 8 {
						payloads[i][j] = byte(rng.Uint32())
					}
				}
				if _, err := c.Node(0).Append(ctx, key, payloads...); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	return c, dir
}

// bytesIn returns the bytes of the files below some directories of all nodes.
func bytesIn(b *testing.B, dir string, parts ...string) (total int64) {
	b.Helper()
	for _, part := range parts {
		roots, err := filepath.Glob(filepath.Join(dir, "node*", part))
		if err != nil {
			b.Fatal(err)
		}
		for _, root := range roots {
			err := filepath.WalkDir(root, func(_ string, d fs.DirEntry, err error) error {
				if err != nil || d.IsDir() {
					return nil // a table may go meanwhile
				}
				if info, err := d.Info(); err == nil {
					total += info.Size()
				}
				return nil
			})
			if err != nil {
				b.Fatal(err)
			}
		}
	}
	return total
}

// BenchmarkArchive reports the copies of history on disk, in the store and in the
// archive, and the rates at which it is replayed from either.
func BenchmarkArchive(b *testing.B) {
	ctx := context.Background()
	keep := engine.Retention{}
	c, dir := archiveCluster(b, false, func(_ int, o *engine.Options) { o.Retention = keep })
	read := func() float64 {
		began, bytes := time.Now(), 0
		for c, err := range c.Node(1).Groups()[0].Commits(ctx, 1, 700) {
			if err != nil {
				b.Fatal(err)
			}
			if err := c.Verify(); err != nil {
				b.Fatal(err)
			}
			bytes += len(c.Body)
		}
		return float64(bytes) / time.Since(began).Seconds() / 1e6
	}
	held(b, ctx, c, 14)
	fromStore := read()
	b.ReportMetric(float64(bytesIn(b, dir, "store"))/archiveBenchBytes, "copies-stored")
	keep = engine.Retention{Segments: 1}
	for i := range 3 {
		if err := errors.Join(c.Stop(i), c.Start(i), c.Node(i).Ready(ctx)); err != nil {
			b.Fatal(err)
		}
	}
	archivedBytes := func() (n uint64) {
		s := c.Node(1).Groups()[0].Segments()
		for _, m := range s.Manifests[:s.Archived] {
			n += m.Commits.Size
		}
		return n
	}
	eventually(b, ctx, "12 segments are archived", func() bool {
		for _, n := range c.Running() {
			if n.Groups()[0].Segments().Archived < 12 {
				return false
			}
		}
		return true
	})
	fromArchive := read()
	<-time.After(20 * time.Second) // until the store has let go of the tables
	b.ReportMetric(fromStore, "MB/s-store")
	b.ReportMetric(fromArchive, "MB/s-archive")
	b.ReportMetric(fromArchive/fromStore, "ratio")
	b.ReportMetric(float64(bytesIn(b, dir, "archive"))/archiveBenchBytes, "copies-archive")
	b.ReportMetric(float64(bytesIn(b, dir, "store"))/archiveBenchBytes, "copies-left-in-store")
	b.ReportMetric(float64(archivedBytes())/archiveBenchBytes, "archived-share")
}

// BenchmarkSync reports how long a member that lags takes to catch up: by segments
// from two others, and by everything inside the Raft library's own stream from one.
func BenchmarkSync(b *testing.B) {
	for _, how := range []string{"segments", "stream"} {
		b.Run(how, func(b *testing.B) {
			ctx := context.Background()
			reports := make(chan engine.SyncReport, 8)
			c, _ := archiveCluster(b, true, func(i int, o *engine.Options) {
				if how == "stream" {
					o.Peers = nil
				}
				o.ServeBytesPerSecond = 8 << 30
				if i == 2 {
					o.Events.StateFetched = func(_ string, r engine.SyncReport) { reports <- r }
				}
			})
			eventually(b, ctx, "segments are sealed", func() bool {
				return len(c.Node(0).Groups()[0].Segments().Manifests) >= 14 && len(c.Node(1).Groups()[0].Segments().Manifests) >= 14
			})
			began := time.Now()
			if err := errors.Join(c.Start(2), c.Node(2).Ready(ctx)); err != nil {
				b.Fatal(err)
			}
			took := time.Since(began)
			r := <-reports
			b.ReportMetric(took.Seconds(), "s-to-ready")
			b.ReportMetric(r.Took.Seconds(), "s-in-sync")
			for i, m := range c.Node(2).Groups()[0].Status().Members[:2] {
				b.ReportMetric(float64(r.Sent[m])/archiveBenchBytes, []string{"share-node1", "share-node2"}[i])
			}
		})
	}
}

// load appends from eight writers, each waiting for its receipt, until stop is
// closed, and returns how long the appends took, in order.
func load(b *testing.B, e *engine.Engine, stop <-chan struct{}) []time.Duration {
	b.Helper()
	var mu sync.Mutex
	var all []time.Duration
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			payload := make([]byte, 1024)
			for {
				select {
				case <-stop:
					return
				case <-time.After(time.Millisecond): // so that the disk is not the limit
				}
				began := time.Now()
				if _, err := e.Append(context.Background(), identity.NewID(string(rune('a'+w))), payload); err != nil {
					b.Error(err)
					return
				}
				took := time.Since(began)
				mu.Lock()
				all = append(all, took)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	slices.Sort(all)
	return all
}

func quantile(sorted []time.Duration, q float64) float64 {
	return float64(sorted[min(int(q*float64(len(sorted))), len(sorted)-1)].Microseconds())
}

// during runs the load while do runs, or for d.
func during(b *testing.B, e *engine.Engine, d time.Duration, do func()) []time.Duration {
	b.Helper()
	stop := make(chan struct{})
	go func() {
		defer close(stop)
		if do == nil {
			<-time.After(d)
			return
		}
		do()
	}()
	return load(b, e, stop)
}

// BenchmarkAppendDuringSeal reports what sealing does to those who append: the same
// load with segments that never end and with segments of 256 KiB, of which several
// are sealed a second, turn by turn.
func BenchmarkAppendDuringSeal(b *testing.B) {
	open := func(segment int64) *cluster.Cluster {
		c, err := cluster.Open(cluster.Options{Nodes: 3, Dir: b.TempDir(), Engine: &engine.Options{SegmentBytes: segment}})
		if err == nil {
			err = c.Ready(context.Background())
		}
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { c.Close() })
		return c
	}
	quiet, busy := open(engine.MaxSegmentBytes), open(256<<10)
	var without, with []float64
	for range 5 {
		without = append(without, quantile(during(b, quiet.Node(0), 3*time.Second, nil), 0.99))
		with = append(with, quantile(during(b, busy.Node(0), 3*time.Second, nil), 0.99))
	}
	sealed := len(busy.Node(0).Groups()[0].Segments().Manifests)
	if len(quiet.Node(0).Groups()[0].Segments().Manifests) != 0 || sealed == 0 {
		b.Fatalf("%d segments were sealed", sealed)
	}
	slices.Sort(without)
	slices.Sort(with)
	b.ReportMetric(without[2], "µs-p99-quiet")
	b.ReportMetric(with[2], "µs-p99-sealing")
	b.ReportMetric(with[2]/without[2], "ratio")
	b.ReportMetric(float64(sealed)/15, "seals/s")
}

// BenchmarkAppendDuringSync reports what the sync of a member does to those who
// append to the group.
func BenchmarkAppendDuringSync(b *testing.B) {
	ctx := context.Background()
	c, _ := archiveCluster(b, true, func(_ int, o *engine.Options) { o.ServeBytesPerSecond = 48 << 20 })
	eventually(b, ctx, "segments are sealed", func() bool {
		return len(c.Node(0).Groups()[0].Segments().Manifests) >= 14 && len(c.Node(1).Groups()[0].Segments().Manifests) >= 14
	})
	before := during(b, c.Node(0), 5*time.Second, nil)
	began := time.Now()
	syncing := during(b, c.Node(0), 0, func() {
		if err := errors.Join(c.Start(2), c.Node(2).Ready(ctx)); err != nil {
			b.Error(err)
		}
	})
	b.ReportMetric(time.Since(began).Seconds(), "s-to-ready")
	b.ReportMetric(quantile(before, 0.99), "µs-p99-before")
	b.ReportMetric(quantile(syncing, 0.99), "µs-p99-during")
	b.ReportMetric(quantile(syncing, 0.99)/quantile(before, 0.99), "ratio")
}
