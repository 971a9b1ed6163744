package engine_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/mosaik-engine/mosaik/engine"
	"github.com/mosaik-engine/mosaik/engine/cluster"
	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/replay"
)

// TestMetamorphic runs the same random operations on the model (log.Memory), on
// a node alone, on a node that is reopened now and then, and on three nodes of
// which one is stopped and started now and then. Every operation must come to
// the same result on all of them.
//
// How records are grouped into commits differs between the model and an engine
// under load, and so do commit numbers and digests. What does not differ is that
// an append that was waited for is one commit of its own, so such commits are
// the marks by which operations name commits, times and pointers.
//
// MOSAIK_META_SEEDS gives the number of seeds, 3 unless set.
func TestMetamorphic(t *testing.T) {
	seeds := 3
	if s := os.Getenv("MOSAIK_META_SEEDS"); s != "" {
		var err error
		if seeds, err = strconv.Atoi(s); err != nil {
			t.Fatalf("MOSAIK_META_SEEDS: %v", err)
		}
	}
	for seed := range uint64(seeds) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { compareSubjects(t, seed) })
		})
	}
}

func compareSubjects(t *testing.T, seed uint64) {
	script := newScript(rand.New(rand.NewPCG(seed, 0)))
	model := script.run(t, modelSubject())
	for _, open := range []func(*testing.T) subject{aloneSubject, reopenedSubject, threeSubject} {
		s := open(t)
		results := script.run(t, s)
		for i, want := range model {
			if results[i] != want {
				t.Fatalf("%s: operation %d, %s\n  came to  %s\n  must be  %s", s.name, i, script.ops[i].text, results[i], want)
			}
		}
	}
}

// ledger is a group's log as operations see it.
type ledger interface {
	log.Writer
	replay.Source
}

// subject is something to run operations on. The functions take the number of
// the operation, by which they choose among nodes.
type subject struct {
	name string
	// write gives the log on a node that is running.
	write func(i int) ledger
	// read gives the log on a node that reflects everything acknowledged.
	read func(ctx context.Context, i int) (ledger, error)
	// disturb stops, starts or reopens a node while nothing is under way.
	disturb func(ctx context.Context, i int) error
	// meanwhile calls work, and while it runs may stop and start a node that the
	// ledgers work gets are not on. The g-th caller of nodes always gets the same.
	meanwhile func(ctx context.Context, i int, work func(nodes func(g int) ledger)) error
	// finish checks what only this subject has, and closes it.
	finish func(ctx context.Context, script *script) error
	// closed gives the log after finish.
	closed func() ledger
}

func modelSubject() subject {
	m := log.NewMemory(identity.NewID("model"))
	return subject{
		name:    "model",
		write:   func(int) ledger { return m },
		read:    func(context.Context, int) (ledger, error) { return m, nil },
		disturb: func(context.Context, int) error { return nil },
		meanwhile: func(_ context.Context, _ int, work func(func(int) ledger)) error {
			work(func(int) ledger { return m })
			return nil
		},
		finish: func(context.Context, *script) error { return m.Close() },
		closed: func() ledger { return m },
	}
}

func aloneSubject(t *testing.T) subject {
	e := mustOpen(t, "node", &engine.Options{FS: vfs.NewMem(), MemTableBytes: 8 << 20, RaftLogBytes: 8 << 20, CacheBytes: 1 << 20})
	t.Cleanup(func() { e.Close() })
	s := nodeSubject("alone", func() *engine.Engine { return e })
	s.disturb = func(context.Context, int) error { return nil }
	return s
}

func reopenedSubject(t *testing.T) subject {
	o := smallBuffers(vfs.NewMem())
	e := mustOpen(t, "node", o)
	t.Cleanup(func() { e.Close() })
	s := nodeSubject("reopened", func() *engine.Engine { return e })
	s.disturb = func(context.Context, int) error {
		err := e.Close()
		if err == nil {
			var again *engine.Engine
			if again, err = engine.Open("node", o); err == nil {
				e = again
			}
		}
		return err
	}
	return s
}

// nodeSubject is a node alone, which at() is at the moment.
func nodeSubject(name string, at func() *engine.Engine) subject {
	only := func() ledger { return at().Groups()[0] }
	return subject{
		name:  name,
		write: func(int) ledger { return only() },
		read: func(ctx context.Context, _ int) (ledger, error) {
			return only(), at().Ready(ctx)
		},
		meanwhile: func(_ context.Context, _ int, work func(func(int) ledger)) error {
			work(func(int) ledger { return only() })
			return nil
		},
		finish: func(ctx context.Context, script *script) error {
			return errors.Join(script.checkNode(ctx, at()), at().Close())
		},
		closed: only,
	}
}

func threeSubject(t *testing.T) subject {
	o := smallBuffers(vfs.NewMem())
	o.ProposeTimeout = 30 * time.Second
	c, err := cluster.Open(cluster.Options{Nodes: 3, Dir: "cluster", Engine: o})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	down := -1 // the node that is stopped
	running := func(i int) *engine.Group {
		nodes := c.Running()
		return nodes[i%len(nodes)].Groups()[0]
	}
	var last *engine.Group
	start := func(ctx context.Context, i int) error {
		if err := c.Start(i); err != nil {
			return err
		}
		return c.Ready(ctx)
	}
	return subject{
		name:  "three",
		write: func(i int) ledger { return running(i) },
		read: func(ctx context.Context, i int) (ledger, error) {
			g := running(i + 1)
			_, err := g.Sync(ctx)
			return g, err
		},
		disturb: func(ctx context.Context, i int) (err error) {
			if down >= 0 {
				err = start(ctx, down)
				down = -1
				return err
			}
			down = i % 3
			return c.Stop(down)
		},
		meanwhile: func(ctx context.Context, i int, work func(func(int) ledger)) error {
			if down >= 0 {
				work(func(g int) ledger { return running(g) })
				return nil
			}
			victim := i % 3
			stays := []ledger{c.Node((victim + 1) % 3).Groups()[0], c.Node((victim + 2) % 3).Groups()[0]}
			restarted := make(chan error, 1)
			go func() {
				err := c.Stop(victim)
				if err == nil {
					err = c.Start(victim)
				}
				restarted <- err
			}()
			work(func(g int) ledger { return stays[g%2] })
			return errors.Join(<-restarted, c.Ready(ctx))
		},
		finish: func(ctx context.Context, script *script) error {
			if down >= 0 {
				if err := start(ctx, down); err != nil {
					return err
				}
			}
			last = c.Node(0).Groups()[0]
			var first log.Digest
			for i := range 3 {
				g := c.Node(i).Groups()[0]
				if _, err := g.Sync(ctx); err != nil {
					return err
				}
				if err := script.checkNode(ctx, c.Node(i)); err != nil {
					return fmt.Errorf("node %d: %w", i+1, err)
				}
				replayed, err := replay.Digest(ctx, g, 1, 0)
				if err != nil {
					return fmt.Errorf("node %d: %w", i+1, err)
				}
				if i == 0 {
					first = replayed
				} else if replayed != first {
					return fmt.Errorf("node %d replays to %s, node 1 to %s", i+1, replayed, first)
				}
			}
			return c.Close()
		},
		closed: func() ledger { return last },
	}
}

// script is a list of operations, the same for every subject.
type script struct {
	rng    *rand.Rand
	ops    []operation
	keys   []identity.ID // written by one goroutine at a time
	crowd  identity.ID   // written by many
	counts map[identity.ID]uint64
	marks  []mark
	newest map[identity.ID]int // per key: number of marks when it was last written
}

// mark is an append that was waited for, and so a commit of its own.
type mark struct {
	key   identity.ID
	first uint64
	count int
}

// operation does something to a session's subject and says what came of it.
type operation struct {
	text string
	do   func(ctx context.Context, s *session) string
}

// session is a script's run on one subject.
type session struct {
	subject
	t        *testing.T
	i        int           // number of the operation
	pointers []log.Pointer // of the marks
}

const scriptLength = 260

func newScript(rng *rand.Rand) *script {
	c := &script{rng: rng, crowd: identity.NewID("crowd"), counts: map[identity.ID]uint64{}, newest: map[identity.ID]int{}}
	for i := range 8 {
		c.keys = append(c.keys, identity.NewID("key").Derive(fmt.Sprint(i)))
	}
	c.addAppend([][]byte{[]byte("the first")}) // from here on there is a mark
	kinds := []struct {
		weight int
		add    func()
	}{
		{100, c.addAppendOne}, {25, c.addAppendMany}, {6, c.addAppendLarge}, {12, c.addRefusedAppend},
		{10, c.addPipeline}, {4, c.addCrowd},
		{45, c.addScan}, {16, c.addRefusedScan}, {12, c.addFollowToEnd}, {8, c.addFollowLive},
		{16, c.addCommit}, {12, c.addCommits}, {6, c.addRefusedCommits},
		{5, c.addDisturb},
	}
	sum := 0
	for _, k := range kinds {
		sum += k.weight
	}
	for len(c.ops) < scriptLength {
		n := rng.IntN(sum)
		for _, k := range kinds {
			if n -= k.weight; n < 0 {
				k.add()
				break
			}
		}
	}
	return c
}

// run runs the script and returns the result of every operation, and as the
// last ones those of a closed log.
func (c *script) run(t *testing.T, s subject) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour) // of the bubble's time
	defer cancel()
	run := &session{subject: s, t: t}
	results := make([]string, len(c.ops))
	for i, op := range c.ops {
		run.i = i
		results[i] = op.do(ctx, run)
		if ctx.Err() != nil {
			t.Fatalf("%s: operation %d, %s: out of time: %s", s.name, i, op.text, results[i])
		}
	}
	if err := s.finish(ctx, c); err != nil {
		t.Fatalf("%s: at the end: %v", s.name, err)
	}
	l := s.closed()
	if _, err := l.Append(ctx, c.keys[0], []byte("late")); !errors.Is(err, log.ErrClosed) {
		t.Errorf("%s: append after Close: %v", s.name, err)
	}
	if _, err := l.Commit(1); !errors.Is(err, log.ErrClosed) {
		t.Errorf("%s: commit after Close: %v", s.name, err)
	}
	return results
}

func (c *script) add(do func(ctx context.Context, s *session) string, text string, args ...any) {
	c.ops = append(c.ops, operation{fmt.Sprintf(text, args...), do})
}

func (c *script) key() identity.ID { return c.keys[c.rng.IntN(len(c.keys))] }

func (c *script) mark() int { return c.rng.IntN(len(c.marks)) }

// payloads makes n payloads that differ, of sizes up to limit.
func (c *script) payloads(n, limit int) [][]byte {
	list := make([][]byte, n)
	for i := range list {
		list[i] = make([]byte, c.rng.IntN(limit+1))
		for at := 0; at < len(list[i]); at += 8 {
			var word [8]byte
			binary.LittleEndian.PutUint64(word[:], c.rng.Uint64())
			copy(list[i][at:], word[:])
		}
	}
	return list
}

func (c *script) sizeLimit() int {
	return []int{0, 1, 20, 127, 128, 300, 300, 4000, 20000}[c.rng.IntN(9)]
}

// addAppend appends and waits: the result is the seq, and a new mark.
func (c *script) addAppend(payloads [][]byte) {
	key := c.key()
	c.marks = append(c.marks, mark{key, c.counts[key] + 1, len(payloads)})
	c.counts[key] += uint64(len(payloads))
	c.newest[key] = len(c.marks)
	total := 0
	for _, p := range payloads {
		total += len(p)
	}
	c.add(func(ctx context.Context, s *session) string {
		time.Sleep(time.Microsecond) // no mark has the time of another
		l := s.write(s.i)
		p, err := l.Append(ctx, key, payloads...)
		if err != nil {
			return classOf(err)
		}
		if p.Group != l.ID() || p.Key != key {
			s.t.Errorf("%s: the pointer of an append to %s is %v", s.name, key, p)
		}
		if n := len(s.pointers); n > 0 && p.Commit <= s.pointers[n-1].Commit {
			s.t.Errorf("%s: an append is in commit %d, an earlier one in %d", s.name, p.Commit, s.pointers[n-1].Commit)
		}
		s.pointers = append(s.pointers, p)
		return fmt.Sprintf("seq %d", p.Seq)
	}, "append %d payloads of %d bytes to %s", len(payloads), total, key.Short())
}

func (c *script) addAppendOne()  { c.addAppend(c.payloads(1, c.sizeLimit())) }
func (c *script) addAppendMany() { c.addAppend(c.payloads(2+c.rng.IntN(60), c.sizeLimit()/10)) }

// addAppendLarge appends what the format just allows.
func (c *script) addAppendLarge() {
	switch c.rng.IntN(3) {
	case 0:
		c.addAppend([][]byte{bytes.Repeat([]byte{byte(len(c.ops))}, log.MaxPayload)})
	case 1:
		c.addAppend(make([][]byte, log.MaxRecords)) // empty ones
	default:
		c.addAppend([][]byte{nil, make([]byte, log.MaxPayload/2), bytes.Repeat([]byte("x"), log.MaxPayload-log.MaxPayload/2), {}})
	}
}

func (c *script) addRefusedAppend() {
	key, payloads, text := c.key(), [][]byte{{1}}, ""
	cancelled := false
	switch c.rng.IntN(6) {
	case 0:
		payloads, text = nil, "nothing"
	case 1:
		payloads, text = [][]byte{make([]byte, log.MaxPayload+1)}, "a byte too much"
	case 2:
		payloads, text = [][]byte{make([]byte, log.MaxPayload), {1}}, "a byte too much in two payloads"
	case 3:
		payloads, text = make([][]byte, log.MaxRecords+1), "a record too many"
	case 4:
		key, text = identity.ID{}, "to the zero key"
	default:
		cancelled, text = true, "without time"
	}
	async := c.rng.IntN(2) == 0
	c.add(func(ctx context.Context, s *session) string {
		if cancelled {
			over, cancel := context.WithCancel(ctx)
			cancel()
			ctx = over
		}
		var err error
		if async {
			_, err = s.write(s.i).AppendAsync(ctx, key, payloads...).Result()
		} else {
			_, err = s.write(s.i).Append(ctx, key, payloads...)
		}
		return classOf(err)
	}, "append %s", text)
}

// addPipeline appends from several goroutines without waiting in between, each
// to keys of its own. Per goroutine the appends are committed in their order.
func (c *script) addPipeline() {
	type call struct {
		key      identity.ID
		payloads [][]byte
	}
	const goroutines = 4
	calls := make([][]call, goroutines)
	for g := range calls {
		for range 5 + c.rng.IntN(30) {
			key := c.keys[g+goroutines*c.rng.IntN(len(c.keys)/goroutines)]
			n := 1
			if c.rng.IntN(4) == 0 {
				n += c.rng.IntN(10)
			}
			calls[g] = append(calls[g], call{key, c.payloads(n, c.sizeLimit()/4)})
			c.counts[key] += uint64(n)
			c.newest[key] = len(c.marks)
		}
	}
	c.add(func(ctx context.Context, s *session) string {
		results := make([]string, goroutines)
		err := s.meanwhile(ctx, s.i, func(nodes func(int) ledger) {
			var wg sync.WaitGroup
			for g := range goroutines {
				wg.Go(func() {
					l := nodes(g)
					futures := make([]*log.Future, len(calls[g]))
					for i, call := range calls[g] {
						futures[i] = l.AppendAsync(ctx, call.key, call.payloads...)
					}
					var commit uint64
					for _, f := range futures {
						p, err := f.Wait(ctx)
						if err != nil {
							results[g] += classOf(err) + " "
							continue
						}
						if p.Commit < commit {
							s.t.Errorf("%s: goroutine %d: commit %d after %d", s.name, g, p.Commit, commit)
						}
						commit = p.Commit
						results[g] += fmt.Sprint(p.Seq, " ")
					}
				})
			}
			wg.Wait()
		})
		if err != nil {
			return err.Error()
		}
		return strings.Join(results, "| ")
	}, "pipeline of %d goroutines", goroutines)
}

// addCrowd appends from several goroutines to one key. Which stands where is
// open, but each goroutine's are all there, once, in its order.
func (c *script) addCrowd() {
	const goroutines, each = 5, 40
	before := c.counts[c.crowd]
	after := before + goroutines*each
	c.counts[c.crowd] = after
	c.newest[c.crowd] = len(c.marks)
	number := len(c.ops)
	c.add(func(ctx context.Context, s *session) string {
		seqs := make([][]uint64, goroutines)
		err := s.meanwhile(ctx, s.i, func(nodes func(int) ledger) {
			var wg sync.WaitGroup
			for g := range goroutines {
				wg.Go(func() {
					l := nodes(g)
					var futures []*log.Future
					for i := range each {
						futures = append(futures, l.AppendAsync(ctx, c.crowd, fmt.Appendf(nil, "%d/%d/%d", number, g, i)))
					}
					for i, f := range futures {
						p, err := f.Wait(ctx)
						if err != nil {
							s.t.Errorf("%s: goroutine %d, append %d: %v", s.name, g, i, err)
							return
						}
						seqs[g] = append(seqs[g], p.Seq)
					}
				})
			}
			wg.Wait()
		})
		if err != nil {
			return err.Error()
		}
		l, err := s.read(ctx, s.i)
		if err != nil {
			return classOf(err)
		}
		next := make([]int, goroutines)
		n := before
		for run, err := range l.Scan(ctx, log.Query{Key: c.crowd, From: log.Seq(before + 1)}) {
			if err != nil {
				return classOf(err)
			}
			for seq, payload := range run.Records() {
				n++
				var op, g, i int
				if _, err := fmt.Sscanf(string(payload), "%d/%d/%d", &op, &g, &i); err != nil || seq != n || op != number || i != next[g] || seqs[g][i] != seq {
					return fmt.Sprintf("seq %d is %q, expected are seq %d and the goroutines' %d: %v", seq, payload, n, next, err)
				}
				next[g]++
			}
		}
		return fmt.Sprintf("seqs to %d", n)
	}, "crowd of %d goroutines", goroutines)
}

// place is where a scan starts.
type place struct {
	text string
	of   func(ctx context.Context, s *session, l ledger) (log.Position, error)
}

// place chooses one of the kinds of position, for the key.
func (c *script) place(key identity.ID) place {
	fixed := func(p log.Position) place {
		return place{p.String(), func(context.Context, *session, ledger) (log.Position, error) { return p, nil }}
	}
	switch c.rng.IntN(12) {
	case 0, 1:
		return fixed(log.Earliest())
	case 2:
		return fixed(log.Latest())
	case 3, 4, 5:
		return fixed(log.Seq(1 + c.rng.Uint64N(c.counts[key]+3)))
	case 6:
		return fixed([]log.Position{log.Seq(math.MaxUint64), log.CommitNumber(math.MaxUint64), log.CommitNumber(1),
			log.Since(time.Unix(1, 0)), log.Since(time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC))}[c.rng.IntN(5)])
	case 7, 8:
		m := c.mark()
		return place{fmt.Sprintf("commit of mark %d", m), func(_ context.Context, s *session, _ ledger) (log.Position, error) {
			return log.CommitNumber(s.pointers[m].Commit), nil
		}}
	case 9:
		m := c.mark()
		return place{fmt.Sprintf("time of mark %d", m), func(_ context.Context, s *session, l ledger) (log.Position, error) {
			t, err := s.timeOf(l, m)
			return log.Since(t), err
		}}
	case 10: // at a record of the key, if it has been marked
		for range 20 {
			if m := c.mark(); c.marks[m].key == key {
				ahead := c.rng.Uint64N(uint64(c.marks[m].count))
				return place{fmt.Sprintf("record %d of mark %d", ahead, m), func(_ context.Context, s *session, _ ledger) (log.Position, error) {
					p := s.pointers[m]
					p.Seq += ahead
					return log.At(p), nil
				}}
			}
		}
	}
	m := c.mark()
	return place{fmt.Sprintf("pointer at the commit of mark %d", m), func(_ context.Context, s *session, _ ledger) (log.Position, error) {
		p := s.pointers[m]
		p.Key, p.Seq = identity.ID{}, 0
		return log.At(p), nil
	}}
}

// timeOf returns the time of a mark's commit, which no earlier commit has.
func (s *session) timeOf(l ledger, m int) (time.Time, error) {
	n := s.pointers[m].Commit
	c, err := l.Commit(n)
	if err != nil {
		return time.Time{}, err
	}
	if n > 1 {
		before, err := l.Commit(n - 1)
		if err != nil {
			return time.Time{}, err
		}
		if before.Header.Time >= c.Header.Time {
			return time.Time{}, fmt.Errorf("commits %d and %d have the times %d and %d: the clock was set back meanwhile, run again", n-1, n, before.Header.Time, c.Header.Time)
		}
	}
	return time.Unix(0, c.Header.Time), nil
}

func (c *script) addScan() {
	key := c.key()
	switch c.rng.IntN(10) {
	case 0:
		key = identity.NewID("nobody writes here")
	case 1:
		key = c.keys[0]
	}
	from := c.place(key)
	q := log.Query{Key: key}
	var window [2]int // marks, -1 for none
	window[0], window[1] = -1, -1
	switch c.rng.IntN(6) {
	case 0:
		q.Until = 1 + c.rng.Uint64N(c.counts[key]+5)
	case 1:
		q.Until = max(1, c.counts[key]-c.rng.Uint64N(c.counts[key]/4+1))
	case 2:
		q.Until = math.MaxUint64
	}
	switch c.rng.IntN(7) {
	case 0:
		q.Filter.Every = 1 + c.rng.Uint64N(9)
	case 1:
		q.Filter.Match = func(p []byte) bool { return len(p)%2 == 0 }
	case 2:
		window[0] = c.mark()
		if c.rng.IntN(2) == 0 {
			window[0], window[1] = -1, window[0]
		}
	case 3:
		if a, b := c.mark(), c.mark(); a != b {
			window[0], window[1] = min(a, b), max(a, b)
		}
	}
	stop := -1
	if c.rng.IntN(5) == 0 {
		stop = c.rng.IntN(20)
	}
	c.add(func(ctx context.Context, s *session) string {
		return s.scan(ctx, q, from, window, stop)
	}, "scan %s from %s until %d every %d window %v stop %d", key.Short(), from.text, q.Until, q.Filter.Every, window, stop)
}

// scan resolves the place and the filter's window and says what the scan
// yields. A stop of n breaks out of the loop after n records.
func (s *session) scan(ctx context.Context, q log.Query, from place, window [2]int, stop int) string {
	l, err := s.read(ctx, s.i)
	if err != nil {
		return classOf(err)
	}
	if q.From, err = from.of(ctx, s, l); err != nil {
		return err.Error()
	}
	for i, bound := range []*time.Time{&q.Filter.Since, &q.Filter.Until} {
		if window[i] >= 0 {
			if *bound, err = s.timeOf(l, window[i]); err != nil {
				return err.Error()
			}
		}
	}
	var y yielded
	return y.scan(ctx, s, l, q, stop)
}

// yielded is what a scan has yielded, in a form that can be compared: ranges of
// seqs, and a sum of seqs and payloads.
type yielded struct {
	text        string
	first, last uint64
	records     int
	sum         uint32
	reached     func(records int) // called after each record, if not nil
}

func (y *yielded) add(seq uint64, payload []byte) {
	if y.records == 0 || seq != y.last+1 {
		y.flush()
		y.first = seq
	}
	y.last = seq
	y.records++
	y.sum = crc32.Update(y.sum, crc32.IEEETable, binary.LittleEndian.AppendUint64(nil, seq))
	y.sum = crc32.Update(y.sum, crc32.IEEETable, payload)
	if y.reached != nil {
		y.reached(y.records)
	}
}

func (y *yielded) flush() {
	if y.records > 0 {
		y.text += fmt.Sprintf("%d-%d ", y.first, y.last)
	}
}

func (y *yielded) String() string {
	y.flush()
	return fmt.Sprintf("%s%d records, sum %08x", y.text, y.records, y.sum)
}

// scan runs a query, checks what a Scanner promises about its runs, and returns
// what passes the filter.
func (y *yielded) scan(ctx context.Context, s *session, l ledger, q log.Query, stop int) string {
	var before log.Run
	for run, err := range l.Scan(ctx, q) {
		if err != nil {
			if run.Count != 0 {
				s.t.Errorf("%s: %v came with a run of %d records", s.name, err, run.Count)
			}
			return y.String() + ", then " + classOf(err)
		}
		if run.Key != q.Key || run.Group != l.ID() || run.Count < 1 || run.FirstSeq <= before.LastSeq() && before.Count > 0 ||
			run.Commit < before.Commit || run.Time < before.Time {
			s.t.Errorf("%s: run %+v of key %s follows %+v", s.name, run, q.Key, before)
		}
		n := run.FirstSeq
		for seq, payload := range run.Records() {
			if seq != n {
				s.t.Errorf("%s: seq %d where %d is due", s.name, seq, n)
			}
			n++
			if !q.Filter.Keeps(seq, payload) {
				continue
			}
			if y.records == stop {
				return y.String() + ", then stopped"
			}
			y.add(seq, payload)
		}
		if int(n-run.FirstSeq) != run.Count {
			s.t.Errorf("%s: a run of %d records has %d", s.name, run.Count, n-run.FirstSeq)
		}
		before = run
	}
	return y.String()
}

func (c *script) addRefusedScan() {
	key := c.key()
	m := c.mark()
	q := log.Query{Key: key}
	var change func(p *log.Pointer)
	cancelled, text := false, ""
	switch c.rng.IntN(11) {
	case 0:
		q.Key, text = identity.ID{}, "the zero key"
	case 1:
		q.From, text = log.Seq(0), "seq 0"
	case 2:
		q.From, text = log.CommitNumber(0), "commit 0"
	case 3:
		q.Filter.Since, q.Filter.Until = time.Unix(2, 0), time.Unix(2, 0)
		text = "an empty window"
	case 4:
		cancelled, text = true, "without time"
	case 5:
		change, text = func(p *log.Pointer) { p.Digest[7] ^= 1; p.Key = key }, "a pointer with another digest"
	case 6:
		change, text = func(p *log.Pointer) { p.Group[0] ^= 1; p.Key = key }, "a pointer into another group"
	case 7:
		change, text = func(p *log.Pointer) { p.Commit += 1 << 40; p.Key = key }, "a pointer beyond the head"
	case 8:
		change, text = func(p *log.Pointer) { p.Key = c.crowd }, "a pointer at another key"
	case 9:
		change, text = func(p *log.Pointer) { p.Seq += 1 << 20; p.Key = key }, "a pointer at a record its commit does not have"
	default:
		change, text = func(p *log.Pointer) { p.Seq = 0 }, "a pointer with a key and no seq"
	}
	q.Follow = c.rng.IntN(3) == 0
	c.add(func(ctx context.Context, s *session) string {
		l, err := s.read(ctx, s.i)
		if err != nil {
			return classOf(err)
		}
		if cancelled {
			over, cancel := context.WithCancel(ctx)
			cancel()
			ctx = over
		}
		q := q
		if change != nil {
			p := s.pointers[m]
			change(&p)
			q.From = log.At(p)
		}
		var y yielded
		return y.scan(ctx, s, l, q, -1)
	}, "scan %s from %s, follow %v", key.Short(), text, q.Follow)
}

// addFollowToEnd follows in the four ways that end without a further append.
func (c *script) addFollowToEnd() {
	key := c.key()
	if c.counts[key] == 0 {
		return
	}
	seq := 1 + c.rng.Uint64N(c.counts[key])
	left := int(c.counts[key] - seq + 1)
	q := log.Query{Key: key, Follow: true}
	from := place{fmt.Sprint("seq ", seq), func(context.Context, *session, ledger) (log.Position, error) { return log.Seq(seq), nil }}
	switch c.rng.IntN(4) {
	case 0: // Until may lie before the start
		q.Until = 1 + c.rng.Uint64N(c.counts[key])
		c.add(func(ctx context.Context, s *session) string {
			return s.scan(ctx, q, from, [2]int{-1, -1}, -1)
		}, "follow %s from %s until %d", key.Short(), from.text, q.Until)
	case 1:
		n := 1 + c.rng.IntN(left)
		c.add(func(ctx context.Context, s *session) string {
			l, err := s.read(ctx, s.i)
			if err != nil {
				return classOf(err)
			}
			q, left := q, n
			q.From = log.Seq(seq)
			for run, err := range l.Scan(ctx, q) {
				if err != nil {
					return classOf(err)
				}
				for range run.Records() {
					if left--; left == 0 {
						return "broken off"
					}
				}
			}
			return "ended by itself"
		}, "follow %s from seq %d for %d records", key.Short(), seq, n)
	case 2:
		m := c.newest[key] // marks from here on are younger than the key's last record
		if m == 0 {
			return
		}
		window := [2]int{-1, c.rng.IntN(m)}
		if c.marks[window[1]].key != key && c.newest[key] <= window[1] {
			return
		}
		c.add(func(ctx context.Context, s *session) string {
			return s.scan(ctx, q, from, window, -1)
		}, "follow %s from seq %d to the time of mark %d", key.Short(), seq, window[1])
	default:
		c.add(func(ctx context.Context, s *session) string {
			l, err := s.read(ctx, s.i)
			if err != nil {
				return classOf(err)
			}
			q := q
			q.From = log.Seq(seq)
			until, cancel := context.WithCancel(ctx)
			defer cancel()
			y := yielded{reached: func(n int) {
				if n == left {
					cancel()
				}
			}}
			return y.scan(until, s, l, q, -1)
		}, "follow %s from seq %d until it is cancelled", key.Short(), seq)
	}
}

// addFollowLive starts to follow, then appends; what is appended arrives.
func (c *script) addFollowLive() {
	key := c.key()
	n := 1 + c.rng.IntN(12)
	payloads := c.payloads(n, c.sizeLimit())
	start := c.counts[key]
	c.counts[key] += uint64(n)
	q := log.Query{Key: key, Follow: true, Until: c.counts[key]}
	kind := c.rng.IntN(3)
	skip := 0
	if kind == 2 {
		skip = c.rng.IntN(n)
	}
	for i := range n {
		c.marks = append(c.marks, mark{key, start + uint64(i) + 1, 1})
	}
	c.newest[key] = len(c.marks)
	c.add(func(ctx context.Context, s *session) string {
		l, err := s.read(ctx, s.i)
		if err != nil {
			return classOf(err)
		}
		q := q
		switch kind {
		case 0:
			q.From = log.Seq(start + 1)
		case 1:
			q.From = log.Seq(max(start, 3) - 2)
		default: // a commit that is not there yet
			q.From = log.CommitNumber(l.Head().Number + 1 + uint64(skip))
		}
		got := make(chan string, 1)
		go func() {
			var y yielded
			got <- y.scan(ctx, s, l, q, -1)
		}()
		for _, p := range payloads {
			time.Sleep(time.Microsecond)
			pointer, err := s.write(s.i).Append(ctx, key, p)
			if err != nil {
				return classOf(err)
			}
			s.pointers = append(s.pointers, pointer)
		}
		return <-got
	}, "follow %s, kind %d, while %d records are appended", key.Short(), kind, n)
}

// addCommit looks at the commit of a mark: it holds what was appended, alone.
func (c *script) addCommit() {
	m := c.mark()
	c.add(func(ctx context.Context, s *session) string {
		l, err := s.read(ctx, s.i)
		if err != nil {
			return classOf(err)
		}
		commit, err := l.Commit(s.pointers[m].Commit)
		if err == nil {
			err = commit.Verify()
		}
		if err == nil {
			err = s.pointers[m].Check(&commit)
		}
		if err != nil {
			return classOf(err)
		}
		var y yielded
		runs := 0
		for run, err := range commit.Runs() {
			if err != nil {
				return classOf(err)
			}
			runs++
			for seq, payload := range run.Records() {
				y.add(seq, payload)
			}
		}
		return fmt.Sprintf("%d records in %d runs: %s", commit.Header.Records, runs, &y)
	}, "commit of mark %d", m)
}

// addCommits walks from one mark to another and adds up what is in between.
func (c *script) addCommits() {
	a, b := c.mark(), c.mark()
	a, b = min(a, b), max(a, b)
	toHead := c.rng.IntN(4) == 0
	c.add(func(ctx context.Context, s *session) string {
		l, err := s.read(ctx, s.i)
		if err != nil {
			return classOf(err)
		}
		to := s.pointers[b].Commit
		if toHead {
			to = 0
		}
		per := map[identity.ID]*yielded{}
		w := walk{group: l.ID(), next: s.pointers[a].Commit}
		for commit, err := range l.Commits(ctx, s.pointers[a].Commit, to) {
			if err == nil {
				err = w.step(&commit)
			}
			if err != nil {
				return err.Error()
			}
			for run, err := range commit.Runs() {
				if err != nil {
					return classOf(err)
				}
				if per[run.Key] == nil {
					per[run.Key] = &yielded{}
				}
				for seq, payload := range run.Records() {
					if run.Key == c.crowd {
						payload = nil // in what order they stand is open
					}
					per[run.Key].add(seq, payload)
				}
			}
		}
		var lines []string
		for key, y := range per {
			lines = append(lines, key.Short()+": "+y.String())
		}
		slices.Sort(lines)
		return strings.Join(lines, "; ")
	}, "commits from mark %d to mark %d, to head %v", a, b, toHead)
}

func (c *script) addRefusedCommits() {
	kind := c.rng.IntN(5)
	c.add(func(ctx context.Context, s *session) string {
		l, err := s.read(ctx, s.i)
		if err != nil {
			return classOf(err)
		}
		head := l.Head().Number
		from, to, want := uint64(0), uint64(0), uint64(0)
		switch kind {
		case 0: // from 0
		case 1: // beyond the head
			from, to = head+1, head+1
		case 2: // over the head
			from, to, want = head-1, head+2, 2
		case 3: // nothing
			from, to = head+1, 0
		default:
			_, err1 := l.Commit(0)
			_, err2 := l.Commit(head + 1)
			_, err3 := l.Commit(math.MaxUint64)
			return classOf(err1) + classOf(err2) + classOf(err3)
		}
		if head < 2 {
			want = head
		}
		n := uint64(0)
		for _, err := range l.Commits(ctx, from, to) {
			if err != nil {
				return fmt.Sprintf("%d of %d, then %s", n, want, classOf(err))
			}
			n++
		}
		return fmt.Sprintf("%d", n)
	}, "commits outside the log, kind %d", kind)
}

func (c *script) addDisturb() {
	c.add(func(ctx context.Context, s *session) string {
		if err := s.disturb(ctx, s.i); err != nil {
			return err.Error()
		}
		return ""
	}, "disturb")
}

// walk follows a chain of commits by the rules of docs/format/log.md.
type walk struct {
	group identity.ID
	next  uint64
	prev  log.Digest // of the commit before next, if known
	time  int64
	known bool
}

func (w *walk) step(c *log.Commit) error {
	h := &c.Header
	if h.Group != w.group || h.Number != w.next || h.Time < w.time || w.known && h.Prev != w.prev || h.Number == 1 && h.Prev != (log.Digest{}) {
		return fmt.Errorf("commit %+v does not follow %+v", *h, *w)
	}
	w.next, w.prev, w.time, w.known = h.Number+1, c.Digest, h.Time, true
	return c.Verify()
}

// checkNode checks a node as a whole: its chain, its index, and how much of each
// key it has.
func (c *script) checkNode(ctx context.Context, e *engine.Engine) error {
	if _, err := e.Check(ctx, nil); err != nil {
		return err
	}
	g := e.Groups()[0]
	w := walk{group: g.ID(), next: 1}
	for commit, err := range g.Commits(ctx, 1, 0) {
		if err == nil {
			err = w.step(&commit)
		}
		if err != nil {
			return err
		}
	}
	if head := g.Head(); head.Number+1 != w.next || head.Digest != w.prev || head.Time != w.time {
		return fmt.Errorf("the head is %+v, the chain ends with %+v", head, w)
	}
	keys := 0
	for _, k := range g.Keys() {
		if k.Records != c.counts[k.Key] {
			return fmt.Errorf("key %s has %d records, %d were written", k.Key, k.Records, c.counts[k.Key])
		}
		keys++
	}
	written := 0
	for _, n := range c.counts {
		if n > 0 {
			written++
		}
	}
	if keys != written {
		return fmt.Errorf("there are %d keys, %d were written", keys, written)
	}
	return nil
}

// classOf names what an error is, as far as callers may tell.
func classOf(err error) string {
	if err == nil {
		return "ok"
	}
	var names []string
	for _, class := range []struct {
		name string
		err  error
	}{
		{"closed", log.ErrClosed}, {"not found", log.ErrNotFound}, {"oversize", log.ErrOversize}, {"empty", log.ErrEmpty},
		{"query", log.ErrQuery}, {"position", log.ErrPosition}, {"pointer", log.ErrPointer}, {"codec", log.ErrCodec},
		{"newer", log.ErrNewerFormat}, {"cancelled", context.Canceled}, {"deadline", context.DeadlineExceeded},
		{"no quorum", engine.ErrNoQuorum}, {"busy", engine.ErrBusy}, {"disk full", engine.ErrDiskFull},
	} {
		if errors.Is(err, class.err) {
			names = append(names, class.name)
		}
	}
	if len(names) == 0 {
		return "unknown: " + err.Error()
	}
	return strings.Join(names, "+")
}
