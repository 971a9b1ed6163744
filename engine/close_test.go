package engine_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"

	"github.com/mosaik-engine/mosaik/engine"
	"github.com/mosaik-engine/mosaik/engine/cluster"
	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

// openFiles returns what the process has open, by name; nothing where the
// operating system does not tell.
func openFiles(t *testing.T) []string {
	t.Helper()
	const dir = "/proc/self/fd"
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		// The directory itself is open only while it is read.
		if name, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil && !strings.HasSuffix(name, "/fd") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// leavesNothing runs f and wants as many goroutines and open files afterwards
// as before.
func leavesNothing(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	before, running := openFiles(t), goleak.IgnoreCurrent()
	f(t)
	goleak.VerifyNone(t, running)
	if after := openFiles(t); !slices.Equal(before, after) {
		t.Errorf("open files before:\n%s\nafter:\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
	}
}

// writeSome makes a store with a few records and closes it.
func writeSome(t *testing.T, dir string, o *engine.Options) {
	t.Helper()
	ctx := testContext(t)
	e := mustOpen(t, dir, o)
	for i := range 20 {
		if _, err := e.Append(ctx, identity.NewID("k"), fmt.Append(nil, i)); err != nil {
			t.Fatal(err)
		}
	}
	mustClose(t, e)
}

// hasSome wants to find what writeSome wrote.
func hasSome(t *testing.T, dir string, o *engine.Options) {
	t.Helper()
	e := mustOpen(t, dir, o)
	defer mustClose(t, e)
	ctx := testContext(t)
	if err := e.Recovered(ctx); err != nil {
		t.Fatal(err)
	}
	var y yielded
	s := session{t: t}
	if got := y.scan(ctx, &s, e.GroupFor(identity.NewID("k")), log.Query{Key: identity.NewID("k")}, -1); y.records != 20 {
		t.Fatalf("%s: %s", dir, got)
	}
}

func TestCloseLeavesNothing(t *testing.T) {
	small := func() *engine.Options { return smallBuffers(vfs.Default) }
	writeSome(t, t.TempDir(), small()) // what starts once in a process has started

	t.Run("alone", func(t *testing.T) {
		leavesNothing(t, func(t *testing.T) {
			dir := t.TempDir()
			writeSome(t, dir, small())
			hasSome(t, dir, small())
		})
	})
	t.Run("groups", func(t *testing.T) {
		leavesNothing(t, func(t *testing.T) {
			o := small()
			o.Spread, o.Named = 3, []string{"prices"}
			writeSome(t, t.TempDir(), o)
		})
	})
	t.Run("unused", func(t *testing.T) {
		leavesNothing(t, func(t *testing.T) { mustClose(t, mustOpen(t, t.TempDir(), small())) })
	})
	t.Run("three", func(t *testing.T) {
		leavesNothing(t, func(t *testing.T) {
			ctx := testContext(t)
			c, err := cluster.Open(cluster.Options{Nodes: 3, Dir: t.TempDir(), Engine: small()})
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Ready(ctx); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Node(1).Append(ctx, identity.NewID("k"), []byte("a")); err != nil {
				t.Fatal(err)
			}
			if err := c.Stop(0); err != nil {
				t.Fatal(err)
			}
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
		})
	})
}

// TestFailedOpenLeavesNothing: an Open that fails says why by name, leaves no
// goroutine, file or lock behind, and the store as it was.
func TestFailedOpenLeavesNothing(t *testing.T) {
	small := func() *engine.Options { return smallBuffers(vfs.Default) }
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	peer := identity.PeerID{7}

	var corrupt *log.CorruptionError
	for _, tc := range []struct {
		name string
		// spoil damages the store and returns what makes it whole again.
		spoil func(t *testing.T, dir string) (mend func())
		open  engine.Options
		want  func(err error) bool
	}{
		{
			name:  "newer format",
			spoil: rewriting("MOSAIK", func(b []byte) []byte { return newerStoreFile(string(b)) }),
			want:  func(err error) bool { return errors.Is(err, log.ErrNewerFormat) },
		},
		{
			name:  "damaged store file",
			spoil: rewriting("MOSAIK", func(b []byte) []byte { b[len(b)/2] ^= 1; return b }),
			want:  func(err error) bool { return errors.As(err, &corrupt) && strings.HasSuffix(corrupt.File, "MOSAIK") },
		},
		{
			name:  "damaged manifest",
			spoil: rewriting("store/MANIFEST-*", func(b []byte) []byte { b[len(b)-3] ^= 1; return b }),
			want:  func(err error) bool { return errors.As(err, &corrupt) },
		},
		{
			name:  "damaged Raft log",
			spoil: rewriting("raft/*.rlog", func(b []byte) []byte { b[20] ^= 1; return b }),
			want:  func(err error) bool { return errors.As(err, &corrupt) && strings.HasSuffix(corrupt.File, ".rlog") },
		},
		{
			name: "mismatch",
			open: engine.Options{Spread: 2},
			want: func(err error) bool { return errors.Is(err, engine.ErrMismatch) },
		},
		{
			name: "malformed options",
			open: engine.Options{Named: []string{"g1"}},
			want: func(err error) bool { return err != nil },
		},
		{
			name: "no address of its own",
			open: engine.Options{Addresses: map[identity.PeerID]string{{9}: "127.0.0.1:1"}},
			want: func(err error) bool { return err != nil },
		},
		{
			name: "address taken",
			open: engine.Options{Addresses: map[identity.PeerID]string{peer: listener.Addr().String()}},
			want: func(err error) bool { return err != nil },
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			made := small()
			made.Peer, made.Members = peer, []identity.PeerID{peer}
			writeSome(t, dir, made)
			mend := func() {}
			if tc.spoil != nil {
				mend = tc.spoil(t, dir)
			}
			o := small()
			o.Spread, o.Named, o.Addresses = tc.open.Spread, tc.open.Named, tc.open.Addresses
			leavesNothing(t, func(t *testing.T) {
				e, err := engine.Open(dir, o)
				if err == nil {
					mustClose(t, e)
				}
				if !tc.want(err) {
					t.Errorf("%v", err)
				}
			})
			mend()
			hasSome(t, dir, small())
		})
	}
	t.Run("locked", func(t *testing.T) {
		dir := t.TempDir()
		writeSome(t, dir, small())
		e := mustOpen(t, dir, small())
		leavesNothing(t, func(t *testing.T) {
			if _, err := engine.Open(dir, small()); !errors.Is(err, engine.ErrLocked) {
				t.Errorf("%v", err)
			}
		})
		mustClose(t, e)
		hasSome(t, dir, small())
	})
	t.Run("no store", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "none")
		leavesNothing(t, func(t *testing.T) {
			if _, err := engine.Open(dir, &engine.Options{MustExist: true}); !errors.Is(err, engine.ErrNoStore) {
				t.Errorf("%v", err)
			}
		})
		if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the directory was made: %v", err)
		}
	})
}

// rewriting returns a function that changes the first file of the pattern.
func rewriting(pattern string, change func([]byte) []byte) func(*testing.T, string) func() {
	return func(t *testing.T, dir string) (mend func()) {
		t.Helper()
		names, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil || len(names) == 0 {
			t.Fatal(names, err)
		}
		before, err := os.ReadFile(names[0])
		if err != nil {
			t.Fatal(err)
		}
		write := func(b []byte) {
			t.Helper()
			if err := os.WriteFile(names[0], b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		write(change(slices.Clone(before)))
		return func() { write(before) }
	}
}

// newerStoreFile returns a store file as a later program may have written it.
func newerStoreFile(text string) []byte {
	body, _, _ := strings.Cut(strings.Replace(text, "\nformat 5\n", "\nformat 6\n", 1), "\nsum ")
	body += "\n"
	return []byte(body + fmt.Sprintf("sum %s\n", log.Sum([]byte(body))))
}

// busyNode is a node on which every kind of call is under way.
type busyNode struct {
	wg    sync.WaitGroup
	begun chan struct{} // one for each call that is known to be under way
	calls int
}

// run calls f until it returns an error, which must be one of want.
func (b *busyNode) run(t *testing.T, what string, f func() error, want ...error) {
	b.calls++
	b.wg.Go(func() {
		for n := 0; ; n++ {
			if n == 1 {
				b.begun <- struct{}{}
			}
			err := f()
			if err == nil {
				continue
			}
			if !slices.ContainsFunc(want, func(w error) bool { return errors.Is(err, w) }) {
				t.Errorf("%s: %v", what, err)
			}
			if n == 0 {
				b.begun <- struct{}{}
			}
			return
		}
	})
}

// TestCloseUnderLoad closes a node while appends, scans, follows and waits of
// all kinds are under way. All of them return, and say that the node is closed.
// The bubble's clock would stand still, and fail the test, if one did not.
func TestCloseUnderLoad(t *testing.T) {
	for _, nodes := range []int{1, 3} {
		t.Run(fmt.Sprint("nodes=", nodes), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { closeUnderLoad(t, nodes) })
		})
	}
}

func closeUnderLoad(t *testing.T, nodes int) {
	ctx := t.Context()
	c, err := cluster.Open(cluster.Options{Nodes: nodes, Dir: "cluster", Engine: smallBuffers(vfs.NewMem())})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	e := c.Node(0)
	g := e.Groups()[0]
	key := identity.NewID("k")
	first, err := e.Append(ctx, key, []byte("first"))
	if err != nil {
		t.Fatal(err)
	}
	future := first
	future.Commit = 1 << 40

	b := busyNode{begun: make(chan struct{}, 100)}
	drain := func(q log.Query) func() error {
		return func() error {
			for _, err := range g.Scan(ctx, q) {
				if err != nil {
					return err
				}
			}
			return nil
		}
	}
	for range 4 {
		b.run(t, "append", func() error { _, err := e.Append(ctx, key, make([]byte, 1000)); return err }, log.ErrClosed)
		b.run(t, "async appends", func() error {
			var futures []*log.Future
			for range 50 {
				futures = append(futures, e.AppendAsync(ctx, key, make([]byte, 100)))
			}
			for _, f := range futures {
				if _, err := f.Result(); err != nil {
					return err
				}
			}
			return nil
		}, log.ErrClosed)
	}
	b.run(t, "scan", drain(log.Query{Key: key}), log.ErrClosed)
	b.run(t, "commit", func() error { _, err := g.Commit(1); return err }, log.ErrClosed)
	b.run(t, "commits", func() error {
		for _, err := range g.Commits(ctx, 1, 0) {
			if err != nil {
				return err
			}
		}
		return nil
	}, log.ErrClosed)
	b.run(t, "wait for the past", func() error { return g.WaitFor(ctx, first) }, log.ErrClosed)
	b.run(t, "sync", func() error { _, err := g.Sync(ctx); return err }, log.ErrClosed)
	b.run(t, "ready", func() error { return e.Ready(ctx) }, log.ErrClosed)
	b.run(t, "check", func() error { _, err := e.Check(ctx, nil); return err }, log.ErrClosed)
	b.run(t, "status", func() error { e.Metrics(); g.Keys(); g.Status(); g.Head(); return g.WaitFor(ctx, first) }, log.ErrClosed)
	for range b.calls {
		<-b.begun
	}
	// These wait from the start, for what does not come.
	for range 3 {
		b.run(t, "follow", drain(log.Query{Key: key, Follow: true}), log.ErrClosed)
		b.run(t, "follow a key nobody writes", drain(log.Query{Key: identity.NewID("x"), Follow: true}), log.ErrClosed)
		b.run(t, "wait for the future", func() error { return g.WaitFor(ctx, future) }, log.ErrClosed)
	}
	if err := c.Stop(0); err != nil {
		t.Error(err)
	}
	b.wg.Wait()
	if err := e.Close(); !errors.Is(err, log.ErrClosed) {
		t.Errorf("second Close: %v", err)
	}
	usedAfterClose(t, e, first)
}

// usedAfterClose calls everything on a closed node.
func usedAfterClose(t *testing.T, e *engine.Engine, p log.Pointer) {
	t.Helper()
	ctx := t.Context()
	g := e.Groups()[0]
	key := p.Key
	follow := func(s log.Scanner, q log.Query) (last error) {
		for _, err := range s.Scan(ctx, q) {
			last = err
		}
		return last
	}
	late := p
	late.Commit++
	for name, err := range map[string]error{
		"Engine.Append":      second(e.Append(ctx, key, nil)),
		"Engine.AppendAsync": second(e.AppendAsync(ctx, key, nil).Result()),
		"Group.Append":       second(g.Append(ctx, key, nil)),
		"Engine.Scan":        follow(e, log.Query{Key: key}),
		"Group.Scan":         follow(g, log.Query{Key: key, From: log.Seq(1 << 40)}),
		"Scan following":     follow(g, log.Query{Key: key, Follow: true}),
		"Scan from commit":   follow(g, log.Query{Key: key, From: log.CommitNumber(1)}),
		"Scan from time":     follow(g, log.Query{Key: key, From: log.Since(time.Unix(1, 0))}),
		"Scan from pointer":  follow(g, log.Query{Key: key, From: log.At(p)}),
		"Scan from latest":   follow(g, log.Query{Key: key, From: log.Latest()}),
		"Scan from the end":  follow(g, log.Query{Key: key, From: log.Latest(), Follow: true}),
		"Commit":             second(g.Commit(1)),
		"WaitFor":            g.WaitFor(ctx, p),
		"WaitFor the future": g.WaitFor(ctx, late),
		"Sync":               second(g.Sync(ctx)),
		"Group.Ready":        g.Ready(ctx),
		"Engine.Ready":       e.Ready(ctx),
		"Group.Recovered":    g.Recovered(ctx),
		"Engine.Recovered":   e.Recovered(ctx),
		"Check":              second(e.Check(ctx, nil)),
		"Close":              e.Close(),
	} {
		if !errors.Is(err, log.ErrClosed) {
			t.Errorf("%s after Close: %v", name, err)
		}
	}
	for _, err := range g.Commits(ctx, 1, 0) {
		if !errors.Is(err, log.ErrClosed) {
			t.Errorf("Commits after Close: %v", err)
		}
	}
	// These have no error to return; they tell what the node knew, or nothing.
	if head, status := g.Head(), g.Status(); head.Number == 0 || status.Head != head || !status.Leader.IsZero() {
		t.Errorf("after Close the head is %+v, the status %+v", head, status)
	}
	if info, ok := g.Key(key); !ok || info.Records == 0 || len(g.Keys()) == 0 {
		t.Errorf("after Close the key is %+v %v of %v", info, ok, g.Keys())
	}
	if m := e.Metrics(); len(m.Groups) != 0 {
		t.Errorf("after Close the metrics are %+v", m)
	}
	if found, ok := e.Group(g.Name()); !ok || found != g || e.GroupFor(key) != g || e.Peer().IsZero() || e.Dir() == "" {
		t.Error("a closed node has forgotten who it is")
	}
}

func second[A any](_ A, err error) error { return err }

// TestCloseEndsScan: Close does not wait for a scan to come to its end, however
// much there is left to read; the scan ends with ErrClosed.
func TestCloseEndsScan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		e := mustOpen(t, "node", smallBuffers(vfs.NewMem()))
		g := e.Groups()[0]
		key := identity.NewID("k")
		const records = 100
		for range records {
			if _, err := g.Append(ctx, key, []byte("x")); err != nil {
				t.Fatal(err)
			}
		}
		type loop struct {
			name string
			run  func(step func()) error
		}
		var wg sync.WaitGroup
		closed := make(chan struct{})
		for _, l := range []loop{
			{"scan", func(step func()) error {
				for _, err := range g.Scan(ctx, log.Query{Key: key}) {
					if err != nil {
						return err
					}
					step()
				}
				return nil
			}},
			{"commits", func(step func()) error {
				for _, err := range g.Commits(ctx, 1, 0) {
					if err != nil {
						return err
					}
					step()
				}
				return nil
			}},
			{"check", func(step func()) error {
				_, err := e.Check(ctx, func(uint64, uint64) { step() })
				return err
			}},
		} {
			wg.Go(func() {
				steps := 0
				err := l.run(func() {
					if steps++; steps == 1 {
						<-closed
					}
				})
				if !errors.Is(err, log.ErrClosed) || steps > 2 {
					t.Errorf("%s ended with %v after %d steps of %d", l.name, err, steps, records)
				}
			})
		}
		synctest.Wait() // all stand in their first step
		wg.Go(func() {
			if err := e.Close(); err != nil {
				t.Error(err)
			}
		})
		time.Sleep(time.Minute) // Close has come as far as it can without the loops
		close(closed)
		wg.Wait()
	})
}

// TestCloseWithoutQuorum: appends that cannot be committed do not keep Close
// from coming to its end, and end themselves.
func TestCloseWithoutQuorum(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		o := smallBuffers(vfs.NewMem())
		o.ProposeTimeout = time.Hour
		c, err := cluster.Open(cluster.Options{Nodes: 3, Dir: "cluster", Engine: o})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.Ready(ctx); err != nil {
			t.Fatal(err)
		}
		for _, i := range []int{1, 2} {
			if err := c.Stop(i); err != nil {
				t.Fatal(err)
			}
		}
		var futures []*log.Future
		for range 10 {
			futures = append(futures, c.Node(0).AppendAsync(ctx, identity.NewID("k"), []byte("x")))
			time.Sleep(10 * time.Millisecond)
		}
		start := time.Now()
		if err := c.Stop(0); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took > time.Minute { // of the bubble's time
			t.Errorf("Close took %v", took)
		}
		for i, f := range futures {
			select {
			case <-f.Done():
				if _, err := f.Result(); !errors.Is(err, log.ErrClosed) && !errors.Is(err, engine.ErrNoQuorum) {
					t.Errorf("append %d: %v", i, err)
				}
			default:
				t.Errorf("append %d is still under way after Close", i)
			}
		}
	})
}

// TestCloseAtOnce closes nodes that have not elected a leader yet.
func TestCloseAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, nodes := range []int{1, 3} {
			c, err := cluster.Open(cluster.Options{Nodes: nodes, Dir: "cluster", Engine: smallBuffers(vfs.NewMem())})
			if err != nil {
				t.Fatal(err)
			}
			over, cancel := context.WithCancel(t.Context())
			cancel()
			f := c.Node(0).AppendAsync(t.Context(), identity.NewID("k"), []byte("x"))
			if err := c.Node(0).Ready(over); err == nil {
				t.Error("ready without time")
			}
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			if _, err := f.Result(); err != nil && !errors.Is(err, log.ErrClosed) && !errors.Is(err, engine.ErrNoQuorum) {
				t.Errorf("append: %v", err)
			}
		}
	})
}

// TestCloseEndsCheck closes a node on which Check has only the Raft log left to
// read.
func TestCloseEndsCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := mustOpen(t, "node", smallBuffers(vfs.NewMem()))
		if err := e.Ready(t.Context()); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		_, err := e.Check(t.Context(), func(uint64, uint64) {
			wg.Go(func() {
				if err := e.Close(); err != nil {
					t.Error(err)
				}
			})
			time.Sleep(time.Minute) // Raft has stopped and closed its log
		})
		if !errors.Is(err, log.ErrClosed) {
			t.Errorf("Check ended with %v", err)
		}
		wg.Wait()
	})
}
