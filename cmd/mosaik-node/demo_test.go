package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/mosaik-engine/mosaik/log"
)

// cancelOn is a writer that ends a context when a text goes by.
type cancelOn struct {
	bytes.Buffer
	text   string
	cancel context.CancelFunc
}

func (w *cancelOn) Write(b []byte) (int, error) {
	if strings.Contains(string(b), w.text) {
		w.cancel()
	}
	return w.Buffer.Write(b)
}

// TestDemoInterrupted interrupts the demo at moments that differ in what is
// under way. It must end by itself, with the code for that, and leave nothing.
func TestDemoInterrupted(t *testing.T) {
	const head = "time_ns,pair,venue,bid,ask,size\n"
	for name, c := range map[string]struct {
		args  string
		input string // followed by silence
		at    string // what the demo says when it is interrupted; "": nothing yet
	}{
		"before the input says anything": {args: "--ticks -"},
		"while the input is silent":      {args: "--ticks - --nodes 1", input: head + "1,A,v,1,2,\n", at: "feed"},
		"while waiting for the next":     {args: "--rate 1 --nodes 1", at: "feed"},
		"with a node away":               {args: "--rate max --count 50000", at: "stop"},
		"during the audit":               {args: "--rate max --count 500 --nodes 1", at: "audit"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("TMPDIR", t.TempDir())
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			in, feed := io.Pipe()
			defer feed.Close()
			go feed.Write([]byte(c.input))
			interrupted, interrupt := context.WithCancel(ctx)
			told := &cancelOn{text: c.at, cancel: interrupt}
			if c.at == "" {
				interrupt()
			}
			var out bytes.Buffer
			code := run(interrupted, append([]string{"demo"}, strings.Fields(c.args)...), in, &out, told)
			if ctx.Err() != nil {
				t.Fatal("it did not end by itself")
			}
			if code != exitInterrupted || out.Len() > 0 {
				t.Errorf("exit code %d, output %q, told:\n%s", code, out.String(), told.String())
			}
			if left, err := os.ReadDir(os.Getenv("TMPDIR")); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}

// agreeing returns the report of three nodes that agree.
func agreeing() demoReport {
	r := demoReport{Commits: 1234, Bytes: 99_000}
	r.Ticks = ticksReport{Source: "generated", Fed: 1500, Acknowledged: 1500, Pairs: []pairReport{
		{Pair: "A-B", Stream: "oracle.price/A-B", Ticks: 1000, Nodes: []uint64{1000, 1000, 1000}},
		{Pair: "C-D", Stream: "oracle.price/C-D", Ticks: 500, Nodes: []uint64{500, 500, 500}},
	}}
	r.Feed = feedReport{Seconds: 2, PerSecond: 750, Latency: latencyReport{P50: 1500, P99: 20_000, Max: 1_200_000}}
	r.Outage = &outageReport{Node: "node2", Led: true, StoppedAt: 750, NewLeader: "node1", LedAfter: 1.1, RestartedAt: 1125, Behind: 1, CaughtUp: 0.25}
	r.Replay = replayReport{Seed: 7, From: 600, To: 1234, Digest: log.Digest{0xab}.String()}
	for i := range 3 {
		r.Nodes = append(r.Nodes, nodeReport{
			Name: nodeName(i), Head: headHere{1234, log.Digest{0xcd}}, Ticks: 1500, Audit: okay, ReadBack: okay, Replay: r.Replay.Digest,
		})
	}
	return r
}

func TestDemoReport(t *testing.T) {
	r := agreeing()
	if err := r.judge(); err != nil || !r.Agreed {
		t.Fatalf("agreed %v, %v", r.Agreed, err)
	}
	var b bytes.Buffer
	if err := r.print(&b); err != nil {
		t.Fatal(err)
	}
	program := os.Args[0]
	want := `
  ticks    fed  node1  node2  node3
  A-B    1,000  1,000  1,000  1,000
  C-D      500    500    500    500
  all    1,500  1,500  1,500  1,500

  node   commits  audit  read back  head              replay of 600..1,234
  node1    1,234  ok     ok         cd00000000000000  ab00000000000000
  node2    1,234  ok     ok         cd00000000000000  ab00000000000000
  node3    1,234  ok     ok         cd00000000000000  ab00000000000000

  1,500 ticks in 2.0 s, 750 a second; 1,234 commits, 1.2 ticks in each
  acknowledged after 1.50 ms (p50), 20.0 ms (p99), 1200 ms at most
  node2, the leader, was away from tick 750 to 1,125; node1 led 1.1 s later
  back again, node2 caught up on 1 commit in 0.25 s
  99.0 kB of commits on each node, 66 bytes a tick

  All digests agree. The 3 nodes hold the same history, byte for byte, and anyone can check it again:
`
	if got, _, _ := strings.Cut(b.String(), "\n  "+program); got != want {
		t.Errorf("got:%s\nwant:%s", got, want)
	}
}

// TestDemoReportTellsWhatDiffers plants every difference that the checks can
// find into one node of three.
func TestDemoReportTellsWhatDiffers(t *testing.T) {
	corrupt := &log.CorruptionError{Commit: 17, Err: errors.New("a bit fell over")}
	for name, c := range map[string]struct {
		plant func(n *nodeReport)
		want  string
	}{
		"audit":       {func(n *nodeReport) { n.Audit, n.corrupt = corrupt.Error(), corrupt }, "audit of node2: mosaik: corrupt: commit 17 offset 0: a bit fell over"},
		"read back":   {func(n *nodeReport) { n.ReadBack = "499 ticks of C-D instead of 500" }, "node2 has 499 ticks of C-D instead of 500"},
		"head number": {func(n *nodeReport) { n.Head.Commit-- }, "node2 ends with commit 1233"},
		"head digest": {func(n *nodeReport) { n.Head.Digest[1]++ }, "node2 ends with commit 1234"},
		"replay":      {func(n *nodeReport) { n.Replay = log.Digest{0xac}.String() }, "replay of node2 gives ac00"},
		"no replay":   {func(n *nodeReport) { n.Replay = "it broke" }, "replay of node2 gives it broke"},
	} {
		r := agreeing()
		c.plant(&r.Nodes[1])
		err := r.judge()
		if r.Agreed || !errors.Is(err, errDisagree) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "node3") {
			t.Errorf("%s: agreed %v, %v", name, r.Agreed, err)
		}
		if name == "audit" && exitCode(context.Background(), err) != exitCorrupt {
			t.Errorf("an audit that fails ends with exit code %d", exitCode(context.Background(), err))
		}
		var b bytes.Buffer
		if err := r.print(&b); err != nil || !strings.Contains(b.String(), "The nodes do not agree.") || strings.Contains(b.String(), "All digests agree") {
			t.Errorf("%s: %v\n%s", name, err, b.String())
		}
	}
	r := agreeing()
	for i := range r.Nodes {
		r.Nodes[i].Replay = "it broke"
	}
	if err := r.judge(); err == nil {
		t.Error("three equal failures count as agreement")
	}
}

func TestDemoReportSumsUpManyPairs(t *testing.T) {
	r := agreeing()
	r.Ticks.Pairs = nil
	for i := range 30 {
		r.Ticks.Pairs = append(r.Ticks.Pairs, pairReport{Pair: fmt.Sprintf("P%d", i), Ticks: 10, Nodes: []uint64{10, 10, 10}})
	}
	var b bytes.Buffer
	if err := r.print(&b); err != nil || !strings.Contains(b.String(), "\n  19 more pairs    190    190    190    190\n") {
		t.Errorf("%v\n%s", err, b.String())
	}
}

func TestDemoLiveLineFits(t *testing.T) {
	const text = "1,000 ticks  15,000/s"
	for _, c := range []struct {
		share float64
		width int
		want  string
	}{
		{0.5, 80, " ━━━━━━━━━━━━──────────── " + " 50%  " + text},
		{0, 80, " ──────────────────────── " + "  0%  " + text},
		{1, 80, " ━━━━━━━━━━━━━━━━━━━━━━━━ " + "100%  " + text},
		{0.25, 38, " ━━────── " + " 25%  " + text},
		{0.25, 37, " 25%  " + text},
		{0.25, 10, " 25%  1,00"},
		{0.25, 0, ""},
		{0.25, -1, ""},
		{-1, 80, text},
	} {
		if got := fit(c.share, text, c.width); got != c.want || len([]rune(got)) > max(c.width, 0) {
			t.Errorf("share %v in %d columns: %q, want %q", c.share, c.width, got, c.want)
		}
	}
}

func TestDemoNumbers(t *testing.T) {
	for got, want := range map[string]string{
		grouped(0): "0", grouped(999): "999", grouped(1000): "1,000", grouped(1234567): "1,234,567",
		plural(0, "tick"): "0 ticks", plural(1, "tick"): "1 tick", plural(uint64(2000), "tick"): "2,000 ticks",
		millis(1234 * time.Microsecond): "1.23 ms", millis(12345 * time.Microsecond): "12.3 ms", millis(2 * time.Second): "2000 ms",
		seconds(123 * time.Millisecond): "0.12 s", seconds(12345 * time.Millisecond): "12.3 s",
		kilobytes(900): "0.9 kB", kilobytes(18_800_000): "18.8 MB",
		shellQuote("a-b/c.d"): "a-b/c.d", shellQuote("a b"): "'a b'", shellQuote("it's"): `'it'\''s'`,
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// TestDemoMiddle: wherever replay starts, it is neither the whole log nor next
// to nothing, and always a commit that exists.
func TestDemoMiddle(t *testing.T) {
	seen := map[uint64]bool{}
	for seed := range uint64(1000) {
		m := middle(seed, 400)
		if m < 100 || m > 300 {
			t.Fatalf("seed %d gives commit %d of 400", seed, m)
		}
		seen[m] = true
		for head := uint64(1); head < 6; head++ {
			if m := middle(seed, head); m < 1 || m > head {
				t.Fatalf("seed %d gives commit %d of %d", seed, m, head)
			}
		}
	}
	if len(seen) < 150 {
		t.Errorf("1000 seeds give %d commits of 201", len(seen))
	}
}
