package oracle_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/mosaik-engine/mosaik/engine"
	"github.com/mosaik-engine/mosaik/engine/cluster"
	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/organisms"
	"github.com/mosaik-engine/mosaik/organisms/oracle"
)

// benchGroup is the group of an oracle with three replicas in this process.
func benchGroup(b *testing.B, ctx context.Context, p *oracle.Parameters) (*engine.Group, *engine.Group, *organisms.Organism) {
	b.Helper()
	config, definition := oracle.Config("oracle-γ.oracle", p), oracle.Definition(p.Pairs()...)
	c, err := cluster.Open(cluster.Options{Nodes: 3, Dir: b.TempDir(), Engine: &engine.Options{Named: []string{config.GroupName()}, Machines: definition.Machines()}})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	if err := c.Ready(ctx); err != nil {
		b.Fatal(err)
	}
	group, _ := c.Node(0).Group(config.GroupName())
	if err := group.TransferLeadership(ctx, c.Node(0).Peer()); err != nil {
		b.Fatal(err)
	}
	other, _ := c.Node(2).Group(config.GroupName())
	o, err := organisms.Open(ctx, group, config, definition)
	if err != nil {
		b.Fatal(err)
	}
	return group, other, o
}

func newBenchPublisher(b *testing.B, ctx context.Context, p *oracle.Parameters, o *organisms.Organism) *oracle.Publisher {
	b.Helper()
	var sources []oracle.Source
	for _, s := range p.Feeds[0].Sources {
		sources = append(sources, &fixed{id: s.Source, observe: saying(1000)})
	}
	u, err := oracle.NewPublisher(ctx, o, p, ethUSDC, sources, key("enclave"))
	if err != nil {
		b.Fatal(err)
	}
	return u
}

// ahead is how many rounds, or records, are under way at once.
const ahead = 1024

// BenchmarkTicks compares an oracle, from observations to ticks that a subscriber at another
// replica has verified, with a stream of the same bytes. x-of-stream is the ratio of the rates.
func BenchmarkTicks(b *testing.B) {
	ctx := context.Background()
	p, _ := setUp(1, 1, 1)
	group, other, o := benchGroup(b, ctx, p)
	u := newBenchPublisher(b, ctx, p, o)
	reader, err := oracle.Bind(ctx, group, organisms.Ref{Role: oracle.Role, StableID: stableID}, ethUSDC, admitted)
	if err != nil {
		b.Fatal(err)
	}
	reader = oracle.NewReader(bound(b, ctx, other), ethUSDC, admitted)
	rounds, round := 0, 0
	rate := func(n int, begin func(i int) (wait func() error), read func(n int) error) float64 {
		start := time.Now()
		done := make(chan error, 1)
		go func() { done <- read(n) }()
		var waits []func() error
		for i := range n {
			waits = append(waits, begin(i))
			if len(waits) == ahead {
				if err := waits[0](); err != nil {
					b.Fatal(err)
				}
				waits = waits[1:]
			}
		}
		for _, wait := range waits {
			if err := wait(); err != nil {
				b.Fatal(err)
			}
		}
		if err := <-done; err != nil {
			b.Fatal(err)
		}
		return float64(n) / time.Since(start).Seconds()
	}
	payload := make([]byte, 261+4*(8+32+8+32)) // a tick and its round, about
	raw := identity.NewID("raw")
	var ratios []float64
	const n = 20_000
	for b.Loop() {
		ticks := rate(n, func(int) func() error {
			round++
			pending, err := u.Begin(ctx, began.Add(time.Duration(round)*time.Millisecond))
			if err != nil {
				b.Fatal(err)
			}
			return func() error { _, err := pending.Wait(ctx); return err }
		}, func(n int) error {
			seen := 0
			// The first record is the revision.
			for _, err := range reader.Ticks(ctx, log.Seq(uint64(rounds)+2), true) {
				if err != nil {
					return err
				}
				if seen++; seen == n {
					break
				}
			}
			rounds += n
			return nil
		})
		from := uint64(1)
		for run, err := range other.Scan(ctx, log.Query{Key: raw}) {
			if err != nil {
				b.Fatal(err)
			}
			from = run.LastSeq() + 1
		}
		stream := rate(n, func(int) func() error {
			f := group.AppendAsync(ctx, raw, payload)
			return func() error { _, err := f.Wait(ctx); return err }
		}, func(n int) error {
			for _, err := range other.Scan(ctx, log.Query{Key: raw, From: log.Seq(from), Until: from + uint64(n) - 1, Follow: true}) {
				if err != nil {
					return err
				}
			}
			return nil
		})
		b.Logf("%.0f ticks/s, %.0f records/s of a stream", ticks, stream)
		ratios = append(ratios, ticks/stream)
	}
	slices.Sort(ratios)
	b.ReportMetric(ratios[len(ratios)/2], "x-of-stream")
	b.ReportMetric(0, "ns/op")
}

func bound(b *testing.B, ctx context.Context, g *engine.Group) *organisms.Surface {
	b.Helper()
	if _, err := g.Sync(ctx); err != nil {
		b.Fatal(err)
	}
	s, err := organisms.Bind(ctx, g, organisms.Ref{Role: oracle.Role, StableID: stableID}, oracle.Definition(ethUSDC))
	if err != nil {
		b.Fatal(err)
	}
	return s
}

// BenchmarkTick compares the time of one tick, from its observations to the acknowledgement,
// with that of one append: p99 of both, and of signing.
func BenchmarkTick(b *testing.B) {
	ctx := context.Background()
	p, _ := setUp(1, 1, 1)
	group, _, o := benchGroup(b, ctx, p)
	u := newBenchPublisher(b, ctx, p, o)
	var ticks, appends, signs []time.Duration
	payload := make([]byte, 600)
	timed := func(list *[]time.Duration, do func()) {
		start := time.Now()
		do()
		*list = append(*list, time.Since(start))
	}
	round := 0
	for b.Loop() {
		round++
		timed(&ticks, func() {
			if _, err := u.Publish(ctx, began.Add(time.Duration(round)*time.Millisecond)); err != nil {
				b.Fatal(err)
			}
		})
		timed(&appends, func() {
			if _, err := group.Append(ctx, identity.NewID("raw"), payload); err != nil {
				b.Fatal(err)
			}
		})
		timed(&signs, func() { key("enclave").Sign(payload) })
	}
	p99 := func(list []time.Duration) float64 {
		slices.Sort(list)
		return float64(list[len(list)*99/100].Microseconds())
	}
	tick, append, sign := p99(ticks), p99(appends), p99(signs)
	b.ReportMetric(tick, "p99-tick-us")
	b.ReportMetric(append, "p99-append-us")
	b.ReportMetric(sign, "p99-sign-us")
	b.ReportMetric((tick-sign)/append, "x-of-append")
}
