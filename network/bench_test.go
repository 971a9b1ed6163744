package network

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/mosaik-engine/mosaik/engine"
	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

// The benchmarks of this file compare three engines over bonds with three over the
// Raft library's own TCP, which are open at the same time and take turns, so that
// what else goes on on the machine meets both. The library's TCP runs in plain: the
// engine does not pass its TLS on, and a bond has to bear the comparison with nothing.
//
//	go test -run '^$' -bench Against -benchtime 20000x ./network

func benchDir(b *testing.B) string {
	dir, err := os.MkdirTemp("", "mosaik-bench")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// overTCP opens three engines over the Raft library's TCP and returns the leader.
func overTCP(b *testing.B) *engine.Engine {
	addresses := make(map[identity.PeerID]string)
	for _, m := range members() {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		addresses[m] = l.Addr().String()
		if err := l.Close(); err != nil {
			b.Fatal(err)
		}
	}
	dir := benchDir(b)
	var nodes []*engine.Engine
	for i, m := range members() {
		n, err := engine.Open(fmt.Sprintf("%s/node%d", dir, i), &engine.Options{Peer: m, Members: members(), Addresses: addresses})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { n.Close() })
		nodes = append(nodes, n)
	}
	for _, n := range nodes {
		if err := n.Ready(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
	for _, n := range nodes {
		if s := n.Groups()[0].Status(); s.Leader == s.Self {
			return n
		}
	}
	b.Fatal("no leader")
	return nil
}

// overBonds opens three engines over bonds and returns the leader.
func overBonds(b *testing.B) *engine.Engine {
	h := openHosts(b, benchDir(b), func(_ int, o *engine.Options) { o.Peers = nil }) // as over TCP
	i := h.leader()
	if i < 0 {
		b.Fatal("no leader")
	}
	return h.at[i].engine
}

// side is what was measured of one kind.
type side struct {
	leader *engine.Engine
	took   time.Duration
	each   []time.Duration
}

func (s *side) p50() time.Duration {
	slices.Sort(s.each)
	return s.each[len(s.each)/2]
}

// against lets both kinds take turns of n appends, until each has made b.N, and reports
// both and their ratios; above 1 the bonds are better.
func against(b *testing.B, turn int, run func(s *side, n int) error) {
	bonds, tcp := &side{leader: overBonds(b)}, &side{leader: overTCP(b)}
	for _, s := range []*side{bonds, tcp} { // warm up
		if err := run(s, turn); err != nil {
			b.Fatal(err)
		}
		s.took, s.each = 0, nil
	}
	b.ResetTimer()
	order := []*side{bonds, tcp}
	for done := 0; done < b.N; done += turn {
		n := min(turn, b.N-done)
		slices.Reverse(order) // what one leaves to the disk and to the collector meets both
		for _, s := range order {
			began := time.Now()
			if err := run(s, n); err != nil {
				b.Fatal(err)
			}
			s.took += time.Since(began)
		}
	}
	b.StopTimer()
	for name, s := range map[string]*side{"bonds": bonds, "tcp": tcp} {
		b.ReportMetric(float64(b.N)/s.took.Seconds(), name+"-appends/s")
		b.ReportMetric(float64(s.p50().Microseconds()), name+"-p50-us")
	}
	b.ReportMetric(tcp.took.Seconds()/bonds.took.Seconds(), "throughput-ratio")
	b.ReportMetric(float64(tcp.p50())/float64(bonds.p50()), "p50-ratio")
	b.ReportMetric(0, "ns/op")
}

func randomPayload() []byte {
	p := make([]byte, 128)
	_, _ = rand.Read(p) // never fails
	return p
}

// appending runs n appends of batch records by some callers at once.
func appending(callers, batch int) func(*side, int) error {
	payloads := make([][]byte, batch)
	for i := range payloads {
		payloads[i] = randomPayload()
	}
	return func(s *side, n int) error {
		each := make([]time.Duration, n)
		errs := make([]error, callers)
		var wg sync.WaitGroup
		for c := range callers {
			wg.Add(1)
			go func() {
				defer wg.Done()
				for i := c; i < n && errs[c] == nil; i += callers {
					began := time.Now()
					_, errs[c] = s.leader.Append(context.Background(), identity.NewID("k"), payloads...)
					each[i] = time.Since(began)
				}
			}()
		}
		wg.Wait()
		s.each = append(s.each, each...)
		return errors.Join(errs...)
	}
}

// pipelined runs n appends of one record, a window of them under way.
func pipelined(window int) func(*side, int) error {
	payload := randomPayload()
	return func(s *side, n int) error {
		type pending struct {
			f     *log.Future
			began time.Time
		}
		ring := make([]pending, window)
		for i := range n + window {
			if p := ring[i%window]; p.f != nil {
				if _, err := p.f.Result(); err != nil {
					return err
				}
				s.each = append(s.each, time.Since(p.began))
			}
			ring[i%window] = pending{}
			if i < n {
				ring[i%window] = pending{s.leader.AppendAsync(context.Background(), identity.NewID("k"), payload), time.Now()}
			}
		}
		return nil
	}
}

func BenchmarkAgainstWriters1(b *testing.B)  { against(b, 500, appending(1, 1)) }
func BenchmarkAgainstWriters64(b *testing.B) { against(b, 5000, appending(64, 1)) }
func BenchmarkAgainstBatch100(b *testing.B)  { against(b, 1000, appending(32, 100)) }
func BenchmarkAgainstPipeline(b *testing.B)  { against(b, 20000, pipelined(4096)) }
