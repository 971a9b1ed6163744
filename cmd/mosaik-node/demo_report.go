package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/mosaik-engine/mosaik/log"
)

// demoReport is what came out of a demo: the document of --json. Fields are
// added, never renamed or removed.
type demoReport struct {
	Agreed  bool          `json:"agreed"` // everything below that must be equal is
	Ticks   ticksReport   `json:"ticks"`
	Feed    feedReport    `json:"feed"`
	Outage  *outageReport `json:"outage,omitempty"` // absent: no node was stopped
	Commits uint64        `json:"commits"`          // in each node's log
	Bytes   uint64        `json:"bytes"`            // of them, headers and bodies
	Last    log.Pointer   `json:"last"`             // at the last tick
	Replay  replayReport  `json:"replay"`
	Nodes   []nodeReport  `json:"nodes"`
	Dir     string        `json:"dir,omitempty"` // with the nodes' directories; absent: removed
}

type ticksReport struct {
	Source       string       `json:"source"`
	Fed          uint64       `json:"fed"`
	Acknowledged uint64       `json:"acknowledged"`
	Pairs        []pairReport `json:"pairs"`
}

type pairReport struct {
	Pair   string   `json:"pair"`
	Stream string   `json:"stream"`
	Ticks  uint64   `json:"ticks"` // fed
	Nodes  []uint64 `json:"nodes"` // read back from each node

	sum []byte // of what was fed
}

type feedReport struct {
	Seconds   float64       `json:"seconds"`
	Rate      uint64        `json:"rate"` // asked for, ticks a second; 0: no limit
	PerSecond uint64        `json:"per_second"`
	Latency   latencyReport `json:"latency_us"` // from the append to the acknowledgement
}

type latencyReport struct {
	P50 int64 `json:"p50"`
	P99 int64 `json:"p99"`
	Max int64 `json:"max"`
}

type outageReport struct {
	Node        string  `json:"node"`
	Led         bool    `json:"led"` // it was the leader
	LostDisk    bool    `json:"lost_disk,omitempty"`
	StoppedAt   uint64  `json:"stopped_at_tick"` // fed until then
	NewLeader   string  `json:"new_leader,omitempty"`
	LedAfter    float64 `json:"new_leader_seconds,omitempty"` // from the stop, the closing included
	RestartedAt uint64  `json:"restarted_at_tick"`            // fed until then
	Behind      uint64  `json:"commits_behind"`               // when it was open again
	CaughtUp    float64 `json:"caught_up_seconds"`            // from then, its opening included
	// Of a state sync, if the node was behind the Raft log.
	Segments uint64     `json:"segments_fetched,omitempty"`
	Sent     []sentInfo `json:"sent,omitempty"`
}

// sentInfo is what a node has sent to the one that was away.
type sentInfo struct {
	Node  string `json:"node"`
	Bytes uint64 `json:"bytes"`
}

type replayReport struct {
	Seed   uint64 `json:"seed"`
	From   uint64 `json:"from"`
	To     uint64 `json:"to"`
	Digest string `json:"digest"` // the first node's
}

// nodeReport says of each check "ok" or what is wrong.
type nodeReport struct {
	Name     string   `json:"name"`
	Head     headHere `json:"head"`
	Ticks    uint64   `json:"ticks"`
	Audit    string   `json:"audit"`
	ReadBack string   `json:"read_back"`
	Replay   string   `json:"replay"` // digest

	corrupt error // what the audit found
}

type headHere struct {
	Commit uint64     `json:"commit"`
	Digest log.Digest `json:"digest"`
}

// fed takes over what the feed has counted.
func (r *demoReport) fed(d *demo, f *feeder, took time.Duration) {
	s := &f.stats
	r.Ticks = ticksReport{Source: d.source.name, Fed: s.fed, Acknowledged: s.acked}
	for _, p := range f.pairs {
		r.Ticks.Pairs = append(r.Ticks.Pairs, pairReport{Pair: p.pair, Stream: p.stream.Name(), Ticks: p.fed, sum: p.sum.Sum(nil)})
	}
	slices.SortFunc(r.Ticks.Pairs, func(a, b pairReport) int { return strings.Compare(a.Pair, b.Pair) })
	r.Feed = feedReport{
		Seconds: took.Seconds(), Rate: d.opts.rate, PerSecond: uint64(float64(s.acked) / took.Seconds()),
		Latency: latencyReport{P50: s.quantile(50).Microseconds(), P99: s.quantile(99).Microseconds(), Max: s.max.Microseconds()},
	}
	r.Last = s.last
	for i := range d.opts.nodes {
		r.Nodes = append(r.Nodes, nodeReport{Name: nodeName(i)})
	}
}

// judge sets Agreed, and returns what is wrong: errDisagree, with what an audit
// found.
func (r *demoReport) judge() error {
	var wrong []error
	first := &r.Nodes[0]
	for i := range r.Nodes {
		n := &r.Nodes[i]
		switch {
		case n.Audit != okay:
			wrong = append(wrong, fmt.Errorf("audit of %s: %w", n.Name, n.corrupt))
		case n.ReadBack != okay:
			wrong = append(wrong, fmt.Errorf("%s has %s", n.Name, n.ReadBack))
		case n.Head != first.Head:
			wrong = append(wrong, fmt.Errorf("%s ends with commit %d, %s, but %s with %d, %s",
				n.Name, n.Head.Commit, n.Head.Digest, first.Name, first.Head.Commit, first.Head.Digest))
		case n.Replay != first.Replay || len(n.Replay) != 2*len(log.Digest{}):
			wrong = append(wrong, fmt.Errorf("replay of %s gives %s, of %s %s", n.Name, n.Replay, first.Name, first.Replay))
		}
	}
	r.Agreed = len(wrong) == 0
	if r.Agreed {
		return nil
	}
	return fmt.Errorf("%w: %w", errDisagree, errors.Join(wrong...))
}

// print writes the report for a person.
func (r *demoReport) print(w io.Writer) error {
	s := styleOf(w)
	var b strings.Builder
	b.WriteString("\n")
	r.printPairs(&b, s)
	r.printNodes(&b, s)
	r.printNumbers(&b)
	b.WriteString("\n" + r.verdict(s) + "\n")
	r.printNext(&b, s)
	_, err := io.WriteString(w, b.String())
	return err
}

// maxPairLines is how many pairs the table has lines for.
const maxPairLines = 12

// printPairs says how many ticks of each pair were fed and are on each node.
func (r *demoReport) printPairs(b *strings.Builder, s style) {
	t := table{{"ticks", "fed"}}
	for _, n := range r.Nodes {
		t[0] = append(t[0], n.Name)
	}
	shown := r.Ticks.Pairs
	if len(shown) > maxPairLines {
		shown = shown[:maxPairLines-1]
	}
	line := func(name string, fed uint64, nodes []uint64) {
		cells := []string{name, grouped(fed)}
		for _, n := range nodes {
			cells = append(cells, grouped(n))
		}
		t = append(t, cells)
	}
	for _, p := range shown {
		line(p.Pair, p.Ticks, p.Nodes)
	}
	if rest := r.Ticks.Pairs[len(shown):]; len(rest) > 0 {
		var fed uint64
		nodes := make([]uint64, len(r.Nodes))
		for _, p := range rest {
			fed += p.Ticks
			for i, n := range p.Nodes {
				nodes[i] += n
			}
		}
		line(fmt.Sprintf("%d more pairs", len(rest)), fed, nodes)
	}
	if len(r.Ticks.Pairs) > 1 {
		nodes := make([]uint64, len(r.Nodes))
		for i, n := range r.Nodes {
			nodes[i] = n.Ticks
		}
		line("all", r.Ticks.Fed, nodes)
	}
	t.print(b, s)
}

// printNodes says what became of the checks of each node.
func (r *demoReport) printNodes(b *strings.Builder, s style) {
	t := table{{"node", "commits", "audit", "read back", "head", fmt.Sprintf("replay of %s..%s", grouped(r.Replay.From), grouped(r.Replay.To))}}
	for _, n := range r.Nodes {
		t = append(t, []string{n.Name, grouped(n.Head.Commit), short(n.Audit), short(n.ReadBack), n.Head.Digest.String()[:16], short(n.Replay)})
	}
	b.WriteString("\n")
	t.print(b, s)
}

// short cuts a digest, and what a check has to say, to the width of its column.
// The whole is in the error, and in --json.
func short(text string) string {
	if len(text) <= 16 {
		return text
	}
	if strings.Contains(text, " ") {
		return "FAILED"
	}
	return text[:16]
}

// printNumbers says how fast it was and how much it takes.
func (r *demoReport) printNumbers(b *strings.Builder) {
	t := &r.Ticks
	fmt.Fprintf(b, "\n  %s in %s, %s a second; %s, %.1f ticks in each\n",
		plural(t.Acknowledged, "tick"), secondsOf(r.Feed.Seconds), grouped(r.Feed.PerSecond),
		plural(r.Commits, "commit"), float64(t.Acknowledged)/float64(max(r.Commits, 1)))
	us := func(n int64) string { return millis(time.Duration(n) * time.Microsecond) }
	fmt.Fprintf(b, "  acknowledged after %s (p50), %s (p99), %s at most\n",
		us(r.Feed.Latency.P50), us(r.Feed.Latency.P99), us(r.Feed.Latency.Max))
	if o := r.Outage; o != nil {
		name, next := o.Node, ""
		if o.Led {
			name += ", the leader,"
		}
		if o.NewLeader != "" {
			next = fmt.Sprintf("; %s led %s later", o.NewLeader, secondsOf(o.LedAfter))
		}
		was := "was away"
		if o.LostDisk {
			was = "was away, and lost its disk,"
		}
		fmt.Fprintf(b, "  %s %s from tick %s to %s%s\n", name, was, grouped(o.StoppedAt), grouped(o.RestartedAt), next)
		fmt.Fprintf(b, "  back again, %s caught up on %s in %s\n", o.Node, plural(o.Behind, "commit"), secondsOf(o.CaughtUp))
		if o.Segments > 0 {
			var from []string
			for _, s := range o.Sent {
				from = append(from, fmt.Sprintf("%s from %s", kilobytes(s.Bytes), s.Node))
			}
			fmt.Fprintf(b, "  it took over %s in shards: %s\n", plural(o.Segments, "sealed segment"), strings.Join(from, ", "))
		}
	}
	fmt.Fprintf(b, "  %s of commits on each node, %d bytes a tick\n", kilobytes(r.Bytes), r.Bytes/max(t.Acknowledged, 1))
}

// verdict is the line that the demo is for.
func (r *demoReport) verdict(s style) string {
	switch {
	case !r.Agreed:
		return "  " + s.red("The nodes do not agree.") + " Standard error says where they differ."
	case len(r.Nodes) == 1:
		return "  " + s.green("The log is sound.") + " Every tick is there once, in order, and replay can start at any commit."
	}
	return fmt.Sprintf("  %s The %d nodes hold the same history, byte for byte, and anyone can check it again:",
		s.green("All digests agree."), len(r.Nodes))
}

// printNext names the commands to try next.
func (r *demoReport) printNext(b *strings.Builder, s style) {
	program := os.Args[0]
	dir := r.Dir
	if dir == "" {
		dir = "trial"
		fmt.Fprintf(b, "\n  %s demo --dir %s   %s\n", program, dir, s.dim("# the same, and keep what it leaves"))
	} else {
		b.WriteString("\n")
	}
	last := r.Nodes[len(r.Nodes)-1].Name
	at := func(node string) string { return shellQuote(filepath.Join(dir, node)) }
	from := fmt.Sprint(r.Replay.From)
	if r.Dir == "" {
		from = "N"
	}
	stream := shellQuote(r.Ticks.Pairs[0].Stream)
	fmt.Fprintf(b, "  %s stream list --dir %s\n", program, at(r.Nodes[0].Name))
	fmt.Fprintf(b, "  %s stream tail %s --from commit:%s --limit 3 --dir %s\n", program, stream, from, at(last))
	fmt.Fprintf(b, "  %s replay audit --dir %s\n", program, at(last))
	fmt.Fprintf(b, "  %s replay run --from %s --digest --dir %s\n", program, from, at(r.Nodes[0].Name))
	if r.Dir != "" {
		fmt.Fprintf(b, "  %s pointer verify %s --dir %s\n", program, r.Last, at(last))
	}
	fmt.Fprintf(b, "  %s serve --dir data   %s\n", program, s.dim("# a durable node with an HTTP API"))
}

// shellQuote quotes what a shell would not take as one word.
func shellQuote(word string) string {
	for _, c := range word {
		if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._/:+@%=,", c) {
			return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
		}
	}
	return word
}
