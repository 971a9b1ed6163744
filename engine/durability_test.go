package engine_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/mosaik-engine/mosaik/engine"
	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

// smallBuffers make everything that happens rarely happen often: write buffer
// flushes, Raft log file switches, trims.
func smallBuffers(fs vfs.FS) *engine.Options {
	return &engine.Options{FS: fs, MemTableBytes: 1 << 20, RaftLogBytes: 512 << 10, CacheBytes: 1 << 20}
}

func mustOpen(t testing.TB, dir string, o *engine.Options) *engine.Engine {
	t.Helper()
	e, err := engine.Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func mustClose(t testing.TB, e *engine.Engine) {
	t.Helper()
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
}

// acked is an append that was acknowledged.
type acked struct {
	key     identity.ID
	pointer log.Pointer
	payload []byte
}

// verifyAcked checks that every acknowledged record is where its pointer says.
func verifyAcked(t *testing.T, ctx context.Context, e *engine.Engine, all []acked) {
	t.Helper()
	g := e.Groups()[0]
	due := map[identity.ID]map[uint64]acked{}
	for _, a := range all {
		if due[a.key] == nil {
			due[a.key] = map[uint64]acked{}
		}
		if other, taken := due[a.key][a.pointer.Seq]; taken {
			t.Fatalf("%v and %v were acknowledged for the same record", a.pointer, other.pointer)
		}
		due[a.key][a.pointer.Seq] = a
	}
	for key, records := range due {
		for run, err := range g.Scan(ctx, log.Query{Key: key}) {
			if err != nil {
				t.Fatalf("key %s: %v", key, err)
			}
			for seq, p := range run.Records() {
				a, wanted := records[seq]
				if !wanted {
					continue
				}
				if run.Pointer(seq) != a.pointer || string(p) != string(a.payload) {
					t.Fatalf("acknowledged %v, found %v, %d bytes", a.pointer, run.Pointer(seq), len(p))
				}
				delete(records, seq)
			}
		}
		for _, a := range records {
			t.Fatalf("acknowledged %v is not there", a.pointer)
		}
	}
	if len(all) > 0 { // the pointer by itself finds its record as well
		a := all[len(all)-1]
		for run, err := range g.Scan(ctx, log.Query{Key: a.key, From: log.At(a.pointer), Until: a.pointer.Seq}) {
			if err != nil || run.FirstSeq != a.pointer.Seq || run.Count != 1 {
				t.Fatalf("from %v the scan yields %d records from %d, %v", a.pointer, run.Count, run.FirstSeq, err)
			}
		}
	}
}

// TestCrash cuts the power of a busy node at random moments, many times over:
// what was not synced is lost, in part, at random. Everything acknowledged must
// be there afterwards, and the store must be whole.
func TestCrash(t *testing.T) {
	ctx := testContext(t)
	rng := rand.New(rand.NewPCG(1, 2))
	fs := vfs.NewCrashableMem()
	var all []acked
	for round := range rounds(12) {
		e := mustOpen(t, "node", smallBuffers(fs))
		if err := e.Ready(ctx); err != nil {
			t.Fatal(err)
		}
		if round > 0 {
			if _, err := e.Check(ctx, nil); err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
			verifyAcked(t, ctx, e, all)
		}
		var mu sync.Mutex
		var wg sync.WaitGroup
		stop := make(chan struct{})
		acknowledged := make(chan error, 1<<16) // one for each append that was; room for all there can be
		for w := range 4 {
			wg.Go(func() {
				rng := rand.New(rand.NewPCG(uint64(round), uint64(w)))
				for i := 0; ; i++ {
					select {
					case <-stop:
						return
					default:
					}
					key := identity.NewID(fmt.Sprintf("key %d", rng.IntN(40)))
					payload := binary.BigEndian.AppendUint64(nil, uint64(round)<<48|uint64(w)<<32|uint64(i))
					payload = append(payload, make([]byte, rng.IntN(4000))...)
					p, err := e.Append(ctx, key, payload)
					if err == nil {
						mu.Lock()
						all = append(all, acked{key, p, payload})
						mu.Unlock()
					}
					acknowledged <- err
					if err != nil {
						return
					}
				}
			})
		}
		for range 50 + rng.IntN(700) {
			if err := <-acknowledged; err != nil {
				t.Fatal(err)
			}
		}
		mu.Lock()
		before := len(all)
		mu.Unlock()
		clone := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
		close(stop)
		wg.Wait()
		mustClose(t, e)
		all = all[:before] // what was acknowledged later is lost with the old machine
		fs = clone
	}
	e := mustOpen(t, "node", smallBuffers(fs))
	defer mustClose(t, e)
	if err := e.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	verifyAcked(t, ctx, e, all)
	t.Logf("%d acknowledged records survived the power cuts; head %d", len(all), e.Groups()[0].Head().Number)
}

func TestErrorsOfOpen(t *testing.T) {
	dir := t.TempDir()
	if _, err := engine.Open(dir+"/none", &engine.Options{MustExist: true}); !errors.Is(err, engine.ErrNoStore) {
		t.Fatalf("no store: %v", err)
	}
	founding := &engine.Options{Named: []string{"prices"}, Spread: 2, Secret: identity.NewID("a secret"), Peer: identity.PeerID{7}, Members: []identity.PeerID{{7}}}
	e := mustOpen(t, dir, founding)
	for i, g := range founding.FoundingGroups() {
		if have := e.Groups()[i]; have.ID() != g.ID || have.BondKey() != g.Key || have.Name() != g.Name {
			t.Fatalf("group %d is %s, %s; before it was opened %+v", i, have.Name(), have.ID(), g)
		}
	}
	if _, err := engine.Open(dir, nil); !errors.Is(err, engine.ErrLocked) {
		t.Fatalf("second open: %v", err)
	}
	peer := e.Peer()
	mustClose(t, e)
	if err := e.Close(); !errors.Is(err, log.ErrClosed) {
		t.Fatalf("second close: %v", err)
	}
	for _, o := range []*engine.Options{
		{Spread: 3},
		{SegmentBytes: 1 << 20},
		{Secret: identity.NewID("another")},
		{Peer: identity.PeerID{1}},
		{Peer: peer, Members: []identity.PeerID{peer, {1}}},
	} {
		if _, err := engine.Open(dir, o); !errors.Is(err, engine.ErrMismatch) {
			t.Fatalf("%+v: %v", o, err)
		}
	}
	id := founding.FoundingGroups()[0].ID
	e = mustOpen(t, dir, &engine.Options{Named: []string{"more"}})
	if e.Groups()[0].ID() != id {
		t.Fatal("the secret was not kept")
	}
	for _, name := range []string{"g0", "g1", "prices", "more"} {
		if _, ok := e.Group(name); !ok {
			t.Fatalf("group %s is missing", name)
		}
	}
	mustClose(t, e)
}
