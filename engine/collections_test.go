package engine_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
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
	"github.com/mosaik-engine/mosaik/engine/inproc"
	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

// The same operations on the in-memory model, on one node that is reopened and
// refolded in between, and on three nodes of which one after the other is
// stopped while the lead moves: results, contents as of every commit and the
// digests of the views in the headers must be the same. Each operation is made
// alone, so that everywhere each is one commit.

var (
	accounts = log.MapDef[string, int]{Name: "accounts"}
	tags     = log.SetDef[string]{Name: "tags"}
	owner    = log.CellDef[string]{Name: "owner"}
	genesis  = log.OnceDef[int]{Name: "genesis"}
	steps    = log.VecDef[int]{Name: "steps"}
	orders   = log.QueueDef[string, int, int]{Name: "orders", Capacity: 12}
)

// collections are all of them, open on one store.
type collections struct {
	store    log.GroupStore
	accounts *log.Map[string, int]
	tags     *log.Set[string]
	owner    *log.Cell[string]
	genesis  *log.Once[int]
	steps    *log.Vec[int]
	orders   *log.Queue[string, int, int]
}

func openCollections(t testing.TB, ctx context.Context, s log.Store) *collections {
	t.Helper()
	c := &collections{store: s.Home(accounts.Key())}
	var errs [6]error
	c.accounts, errs[0] = accounts.Open(ctx, s)
	c.tags, errs[1] = tags.Open(ctx, s)
	c.owner, errs[2] = owner.Open(ctx, s)
	c.genesis, errs[3] = genesis.Open(ctx, s)
	c.steps, errs[4] = steps.Open(ctx, s)
	c.orders, errs[5] = orders.Open(ctx, s)
	if err := errors.Join(errs[:]...); err != nil {
		t.Fatal(err)
	}
	return c
}

// operate makes one operation, chosen by rng, and returns what came of it.
func (c *collections) operate(ctx context.Context, rng *rand.Rand, i int) string {
	key := strings.Repeat("k", rng.IntN(3)) + string(rune(rng.IntN(4)))
	n := rng.IntN(10)
	say := func(results ...any) string { return fmt.Sprintln(results...) }
	deref := func(e *log.QueueEntry[string, int, int]) any {
		if e == nil {
			return nil
		}
		return *e
	}
	switch rng.IntN(18) {
	case 0, 1:
		_, old, ok, err := c.accounts.Insert(ctx, key, i)
		return say("map insert", old, ok, err)
	case 2:
		_, old, ok, err := c.accounts.Remove(ctx, key)
		return say("map remove", old, ok, err)
	case 3:
		_, added, err := c.accounts.Extend(ctx, maps.All(map[string]int{key: i}))
		return say("map extend", added, err)
	case 4:
		if n > 2 {
			_, ok, _, err := c.accounts.CompareExchange(ctx, key, nil, &i)
			return say("map swap", ok, err)
		}
		_, removed, err := c.accounts.Clear(ctx)
		return say("map clear", removed, err)
	case 5:
		_, added, err := c.tags.Insert(ctx, key)
		return say("set insert", added, err)
	case 6:
		_, removed, err := c.tags.Remove(ctx, key)
		return say("set remove", removed, err)
	case 7:
		_, old, ok, err := c.owner.Write(ctx, key)
		return say("cell write", old, ok, err)
	case 8:
		_, first, v, err := c.genesis.Write(ctx, i)
		return say("once write", first, v, err)
	case 9:
		_, at, err := c.steps.PushBack(ctx, i)
		return say("vec push back", at, err)
	case 10:
		_, err := c.steps.PushFront(ctx, i)
		return say("vec push front", err)
	case 11:
		_, _, err := c.steps.Extend(ctx, slices.Values(slices.Repeat([]int{i}, 30)))
		return say("vec extend", err)
	case 12:
		_, v, err := c.steps.Remove(ctx, uint64(n))
		return say("vec remove", v, errors.Is(err, log.ErrIndex))
	case 13:
		_, removed, err := c.steps.Truncate(ctx, uint64(rng.IntN(200)))
		return say("vec truncate", removed, err)
	case 14:
		_, old, evicted, err := c.orders.Insert(ctx, key+strconv.Itoa(n), n, i)
		return say("queue insert", deref(old), deref(evicted), err)
	case 15:
		_, e, err := c.orders.PopMin(ctx)
		return say("queue pop", deref(e), err)
	case 16:
		_, old, ok, err := c.orders.UpdatePriority(ctx, key+strconv.Itoa(n), -n)
		return say("queue priority", old, ok, err)
	default:
		txn := log.NewTxn(c.store)
		in := accounts.In(txn)
		if n < 5 {
			in.ExpectAbsent(key)
		} else {
			in.ExpectPresent(key)
		}
		old := in.Insert(key, i)
		index := steps.In(txn).PushBack(i)
		_, err := txn.Commit(ctx)
		was, _ := old.Value()
		at, done := index.Value()
		return say("transaction", was != nil, at, done, errors.Is(err, log.ErrConflict))
	}
}

// content returns everything that the collections hold as of a commit.
func (c *collections) content(t testing.TB, ctx context.Context, at log.Consistency) string {
	t.Helper()
	var b strings.Builder
	check := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	m, err := c.accounts.View(ctx, at)
	check(err)
	fmt.Fprintln(&b, list(t, m.All()))
	back := ""
	fmt.Fprintln(&b, list(t, m.Range(log.Span[string]{From: &back, Reverse: true})))
	s, err := c.tags.View(ctx, at)
	check(err)
	fmt.Fprintln(&b, list(t, s.All()))
	cell, err := c.owner.ReadAt(ctx, at)
	check(err)
	once, err := c.genesis.ReadAt(ctx, at)
	check(err)
	fmt.Fprintln(&b, cell.Value, cell.Found, cell.Version, once.Value, once.Found)
	v, err := c.steps.View(ctx, at)
	check(err)
	fmt.Fprintln(&b, list(t, v.All()))
	q, err := c.orders.View(ctx, at)
	check(err)
	fmt.Fprintln(&b, list(t, q.All()))
	return b.String()
}

func list[T any](t testing.TB, seq iter.Seq2[T, error]) []T {
	t.Helper()
	var all []T
	for v, err := range seq {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, v)
	}
	return all
}

// folded is a subject: a store whose collections go through the operations.
type folded struct {
	name    string
	open    func() log.Store // the store to use next; it may be another node each time
	disturb func(i int)      // between two operations
	engines func() []*engine.Engine
	source  func() interface {
		Commit(uint64) (log.Commit, error)
		Head() log.Head
	}
}

// collectionSeeds is how many sequences of operations are played.
func collectionSeeds(t *testing.T) int {
	n, err := strconv.Atoi(os.Getenv("MOSAIK_COLLECTION_SEEDS"))
	if err != nil {
		return 1
	}
	t.Logf("%d seeds", n)
	return n
}

func TestCollectionsAgree(t *testing.T) {
	for seed := range collectionSeeds(t) {
		t.Run(strconv.Itoa(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { collectionsAgree(t, uint64(seed)) })
		})
	}
}

// TestCollectionReady: a collection is ready with a quorum, and again when it is
// back; without one Ready ends with its context.
func TestCollectionReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := testContext(t)
		c := openCluster(t, &engine.Options{ProposeTimeout: time.Second})
		m, err := accounts.Open(ctx, c.Node(0))
		if err != nil || m.Ready(ctx) != nil {
			t.Fatal(err)
		}
		if err := errors.Join(c.Stop(1), c.Stop(2)); err != nil {
			t.Fatal(err)
		}
		short, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		if err := m.Ready(short); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("without a quorum: %v", err)
		}
		back := make(chan error)
		go func() { back <- m.Ready(ctx) }()
		if err := errors.Join(c.Start(1), <-back); err != nil {
			t.Fatal(err)
		}
		wrong, err := log.MapDef[string, string]{Name: "accounts", Values: log.JSON[string]()}.Reader(c.Node(0))
		if err != nil {
			t.Fatal(err)
		}
		if err := wrong.Ready(ctx); !errors.Is(err, log.ErrCodec) {
			t.Fatalf("another codec: %v", err)
		}
	})
}

func collectionsAgree(t *testing.T, seed uint64) {
	ctx := testContext(t)
	const operations = 200
	mem := log.NewMemory(identity.NewID("model"))
	type result struct{ results, states, contents []string }
	play := func(s folded) (r result) {
		rng := rand.New(rand.NewPCG(seed, 42))
		past := make(map[uint64]string)
		for i := range operations {
			c := openCollections(t, ctx, s.open())
			r.results = append(r.results, c.operate(ctx, rng, i))
			if i%10 == 0 {
				now := c.content(t, ctx, log.Linearizable())
				r.contents = append(r.contents, now)
				past[s.source().Head().Number] = now
			}
			s.disturb(i)
		}
		for _, e := range s.engines() {
			if report, err := e.Check(ctx, nil); err != nil || report.Rows == 0 || report.Versions == 0 {
				t.Fatalf("%s: check: %+v, %v", s.name, report, err)
			}
		}
		c := openCollections(t, ctx, s.open())
		for commit, content := range past {
			if now := c.content(t, ctx, log.AsOf(commit)); now != content {
				t.Fatalf("%s, as of commit %d: %s when it was new, now %s", s.name, commit, content, now)
			}
		}
		for n := uint64(1); n <= s.source().Head().Number; n++ {
			commit, err := s.source().Commit(n)
			if err != nil {
				t.Fatal(err)
			}
			r.states = append(r.states, commit.Header.State.String())
		}
		return r
	}
	subjects := []folded{{
		name: "memory", open: func() log.Store { return mem }, disturb: func(int) {}, engines: func() []*engine.Engine { return nil },
		source: func() interface {
			Commit(uint64) (log.Commit, error)
			Head() log.Head
		} {
			return mem
		},
	}, oneNode(t, ctx), threeNodes(t, ctx)}
	var want result
	for i, s := range subjects {
		got := play(s)
		if i == 0 {
			want = got
			continue
		}
		same(t, s.name+": results", got.results, want.results)
		same(t, s.name+": contents", got.contents, want.contents)
		same(t, s.name+": state digests", got.states, want.states)
	}
}

func same(t *testing.T, what string, got, want []string) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d, the model has %d", what, len(got), len(want))
	}
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("%s %d: %s, the model says %s", what, i, got[i], want[i])
		}
	}
}

// oneNode is closed and opened again, and its views dropped and folded anew.
func oneNode(t *testing.T, ctx context.Context) folded {
	o := &engine.Options{FS: vfs.NewMem()}
	e := mustOpen(t, "collections", o)
	t.Cleanup(func() { e.Close() })
	return folded{
		name: "one node", open: func() log.Store { return e }, engines: func() []*engine.Engine { return []*engine.Engine{e} },
		disturb: func(i int) {
			switch i % 60 {
			case 20:
				mustClose(t, e)
				e = mustOpen(t, "collections", o)
				if err := e.Ready(ctx); err != nil {
					t.Fatal(err)
				}
			case 40:
				if report, err := e.Groups()[0].Refold(ctx, nil); err != nil || report.Differs != 0 {
					t.Fatalf("refold: %+v, %v", report, err)
				}
			}
		},
		source: func() interface {
			Commit(uint64) (log.Commit, error)
			Head() log.Head
		} {
			return e.Groups()[0]
		},
	}
}

// threeNodes takes operations on one node after the other, stops one at a time
// and moves the lead.
func threeNodes(t *testing.T, ctx context.Context) folded {
	c := openCluster(t, &engine.Options{})
	next, down := 0, -1
	up := func() *engine.Engine {
		for {
			next = (next + 1) % c.Nodes()
			if next != down {
				return c.Node(next)
			}
		}
	}
	check := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	return folded{
		name: "three nodes", engines: c.Running,
		open: func() log.Store {
			e := up()
			_, err := e.Groups()[0].Sync(ctx) // the model is asked one operation after the other, too
			check(err)
			return e
		},
		disturb: func(i int) {
			switch i % 50 {
			case 10:
				down = i / 50 % c.Nodes()
				check(c.Stop(down))
			case 25:
				check(c.Start(down))
				down = -1
				check(c.Ready(ctx))
			case 40:
				check(c.Node(0).Groups()[0].TransferLeadership(ctx, c.Node(i/50%c.Nodes()).Peer()))
			case 49:
				sameHeads(t, ctx, c)
			}
		},
		source: func() interface {
			Commit(uint64) (log.Commit, error)
			Head() log.Head
		} {
			e := up()
			_, err := e.Groups()[0].Sync(ctx)
			check(err)
			return e.Groups()[0]
		},
	}
}

// TestTransfersConserve moves amounts between two maps from many goroutines: in
// no commit may anything have got lost or appeared.
func TestTransfersConserve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := testContext(t)
		c := openCluster(t, &engine.Options{})
		group := c.Node(0).Groups()[0]
		left, right := log.MapDef[string, int]{Name: "left"}, log.MapDef[string, int]{Name: "right"}
		const amount, keys = 100, 3
		for k := range keys {
			txn := log.NewTxn(group)
			left.In(txn).Insert(strconv.Itoa(k), amount)
			right.In(txn).Insert(strconv.Itoa(k), amount)
			if _, err := txn.Commit(ctx); err != nil {
				t.Fatal(err)
			}
		}
		start := group.Head().Number
		var wg sync.WaitGroup
		var mu sync.Mutex
		conflicts, moved := 0, 0
		for w := range 12 {
			wg.Go(func() {
				rng := rand.New(rand.NewPCG(uint64(w), 9))
				g := c.Node(w % c.Nodes()).Groups()[0]
				from, to := left, right
				if w%2 == 1 {
					from, to = right, left
				}
				for range 20 {
					_, err := move(ctx, g, from, to, strconv.Itoa(rng.IntN(keys)), strconv.Itoa(rng.IntN(keys)), 1+rng.IntN(5))
					mu.Lock()
					switch {
					case errors.Is(err, log.ErrConflict):
						conflicts++
					case err == nil:
						moved++
					default:
						t.Error(err)
					}
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		if conflicts == 0 || moved == 0 {
			t.Errorf("%d transfers, %d conflicts: nothing was tested", moved, conflicts)
		}
		head := sameHeads(t, ctx, c)
		for n := start; n <= head.Number; n++ {
			sum := 0
			for _, def := range []log.MapDef[string, int]{left, right} {
				r, err := def.Reader(group)
				if err != nil {
					t.Fatal(err)
				}
				view, err := r.View(ctx, log.AsOf(n))
				if err != nil {
					t.Fatal(err)
				}
				for _, e := range list(t, view.All()) {
					sum += e.Value
				}
			}
			if sum != 2*keys*amount {
				t.Fatalf("as of commit %d the sum is %d, want %d", n, sum, 2*keys*amount)
			}
		}
	})
}

// TestPowerCutsInTransactions cuts the power of three nodes while transactions
// move amounts between two maps: each of them must be in the views whole or not
// at all, on every replica, and what was acknowledged must be there.
func TestPowerCutsInTransactions(t *testing.T) {
	ctx := testContext(t)
	rng := rand.New(rand.NewPCG(5, 5))
	disks := make([]*vfs.MemFS, 3)
	for i := range disks {
		disks[i] = vfs.NewCrashableMem()
	}
	left, right := log.MapDef[string, int]{Name: "left"}, log.MapDef[string, int]{Name: "right"}
	const amount, keys = 100, 3
	sum := func(g *engine.Group, at log.Consistency) (sum int) {
		for _, def := range []log.MapDef[string, int]{left, right} {
			r, err := def.Reader(g)
			if err != nil {
				t.Fatal(err)
			}
			view, err := r.View(ctx, at)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range list(t, view.All()) {
				sum += e.Value
			}
		}
		return sum
	}
	var acknowledged []log.Pointer
	for round := range rounds(3) {
		network := inproc.New(inproc.Options{})
		c, err := cluster.Open(cluster.Options{Nodes: 3, Dir: "cluster", Network: network,
			Configure: func(i int, o *engine.Options) { *o = with(smallBuffers(disks[i]), o) }})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Ready(ctx); err != nil {
			t.Fatal(err)
		}
		sameHeads(t, ctx, c)
		for i := range 3 {
			g := c.Node(i).Groups()[0]
			if round > 0 {
				if now := sum(g, log.Stale()); now != 2*keys*amount {
					t.Fatalf("round %d, node %d: the sum is %d", round, i, now)
				}
				if _, err := c.Node(i).Check(ctx, nil); err != nil {
					t.Fatalf("round %d, node %d: %v", round, i, err)
				}
			}
			for _, p := range acknowledged {
				if err := g.WaitFor(ctx, p); err != nil {
					t.Fatalf("round %d, node %d: acknowledged %v: %v", round, i, p, err)
				}
			}
		}
		if round == 0 {
			txn := log.NewTxn(c.Node(0).Groups()[0])
			for k := range keys {
				left.In(txn).Insert(strconv.Itoa(k), amount)
				right.In(txn).Insert(strconv.Itoa(k), amount)
			}
			if _, err := txn.Commit(ctx); err != nil {
				t.Fatal(err)
			}
		}
		var wg sync.WaitGroup
		var mu sync.Mutex
		var moved []log.Pointer
		cut, stop := context.WithCancel(ctx)
		enough := make(chan struct{})
		until := 50 + rng.IntN(200)
		for w := range 6 {
			wg.Go(func() {
				rng := rand.New(rand.NewPCG(uint64(round), uint64(w)))
				from, to := left, right
				if w%2 == 1 {
					from, to = right, left
				}
				for cut.Err() == nil {
					p, err := move(cut, c.Node(w % 3).Groups()[0], from, to, strconv.Itoa(rng.IntN(keys)), strconv.Itoa(rng.IntN(keys)), 1+rng.IntN(5))
					if err != nil {
						continue
					}
					mu.Lock()
					if moved = append(moved, p); len(moved) == until {
						close(enough)
					}
					mu.Unlock()
				}
			})
		}
		select {
		case <-enough:
		case <-ctx.Done():
			t.Fatal("too little is acknowledged")
		}
		mu.Lock()
		acknowledged = append(acknowledged, moved...)
		mu.Unlock()
		for i := range 3 { // so that nothing is said after a disk is taken that it does not hold
			network.Isolate(c.Address(i))
		}
		clones := make([]*vfs.MemFS, 3)
		for i := range disks {
			clones[i] = disks[i].CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
		}
		stop()
		wg.Wait()
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		disks = clones
	}
	t.Logf("%d acknowledged transactions", len(acknowledged))
}

// with returns o with what a cluster fills in.
func with(o, filled *engine.Options) engine.Options {
	o.Peer, o.Members, o.Transport = filled.Peer, filled.Members, filled.Transport
	return *o
}

// move moves an amount if nobody else touches the two entries meanwhile.
func move(ctx context.Context, g *engine.Group, from, to log.MapDef[string, int], a, b string, amount int) (log.Pointer, error) {
	entry := func(def log.MapDef[string, int], k string) (log.Entry[string, int], error) {
		r, err := def.Reader(g)
		if err != nil {
			return log.Entry[string, int]{}, err
		}
		v, err := r.View(ctx, log.Stale())
		if err != nil {
			return log.Entry[string, int]{}, err
		}
		e, _, err := v.Entry(k)
		return e, err
	}
	source, err := entry(from, a)
	if err != nil {
		return log.Pointer{}, err
	}
	target, err := entry(to, b)
	if err != nil {
		return log.Pointer{}, err
	}
	txn := log.NewTxn(g)
	out, in := from.In(txn), to.In(txn)
	out.ExpectVersion(a, source.Version)
	in.ExpectValue(b, target.Value)
	out.Insert(a, source.Value-amount)
	in.Insert(b, target.Value+amount)
	return txn.Commit(ctx)
}

// TestTransactionsRefused: keys that no machine folds, and the engine's own, take
// part in no transaction.
func TestTransactionsRefused(t *testing.T) {
	ctx := testContext(t)
	e := mustOpen(t, "refused", &engine.Options{FS: vfs.NewMem()})
	defer mustClose(t, e)
	g := e.Groups()[0]
	if _, err := (log.StreamDef[int]{Name: "stream"}).Open(ctx, e); err != nil {
		t.Fatal(err)
	}
	before := g.Head()
	for _, key := range []identity.ID{identity.NewID("stream"), identity.NewID("nothing"), log.DirectoryKey(), log.GuardKey()} {
		_, err := g.Submit(ctx, &log.Transaction{Commands: []log.KeyedCommand{{Key: key, Payload: []byte{1}}}})
		if !errors.Is(err, log.ErrTransaction) {
			t.Errorf("a command to key %s: %v", key.Short(), err)
		}
	}
	if _, err := g.Append(ctx, log.GuardKey(), []byte{1}); !errors.Is(err, log.ErrQuery) {
		t.Errorf("an append to the log of guards: %v", err)
	}
	if g.Head() != before {
		t.Error("what was refused left a commit")
	}
}

// TestWatch follows a map across changes of the leader and resumes at every
// commit: no gap, nothing twice.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(testContext(t))
		defer cancel()
		c := openCluster(t, &engine.Options{})
		m, err := accounts.Open(ctx, c.Node(0))
		if err != nil {
			t.Fatal(err)
		}
		watched, err := accounts.Reader(c.Node(1))
		if err != nil {
			t.Fatal(err)
		}
		const writes = 30
		seen := make(chan log.MapChange[string, int], writes)
		go func() {
			for change, err := range watched.Watch(ctx, 0, true) {
				if err != nil {
					close(seen)
					return
				}
				seen <- change
			}
		}()
		for i := range writes {
			if i%10 == 5 {
				if err := c.Node(0).Groups()[0].TransferLeadership(ctx, c.Node(i/10).Peer()); err != nil {
					t.Fatal(err)
				}
			}
			if _, _, _, err := m.Insert(ctx, "k", i); err != nil {
				t.Fatal(err)
			}
		}
		var all []log.MapChange[string, int]
		for i := range writes {
			change := <-seen
			if change.New != i || change.Existed != (i > 0) || change.Existed && change.Old != i-1 {
				t.Fatalf("change %d is %+v", i, change)
			}
			all = append(all, change)
		}
		cancel()
		for range seen {
			t.Fatal("another change")
		}
		for i := range all {
			after := uint64(0)
			if i > 0 {
				after = all[i-1].Pointer.Commit
			}
			for change, err := range watched.Watch(testContext(t), after, true) {
				if err != nil || change != all[i] {
					t.Fatalf("resumed after commit %d: %+v, %v, want %+v", after, change, err, all[i])
				}
				break
			}
		}
	})
}
