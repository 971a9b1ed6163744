package main

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/mosaik-engine/mosaik/cmd/mosaik-node/internal/api"
	"github.com/mosaik-engine/mosaik/log"
)

// TestKilledInMidAppend kills a node with SIGKILL while writers append to it, and
// starts it again, some times over. Whatever was acknowledged has to be there,
// under the pointer that was given for it; seqs have to be dense, and no record
// may be there twice. MOSAIK_KILL_ROUNDS sets how many times.
func TestKilledInMidAppend(t *testing.T) {
	rounds := 4
	if s := os.Getenv("MOSAIK_KILL_ROUNDS"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		rounds = n
	}
	program, err := exec.LookPath("mosaik-node")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	rng := rand.New(rand.NewPCG(1, 2))
	k := &killed{acknowledged: make(map[string]log.Pointer), sent: make(map[string]bool)}
	for round := range rounds {
		n, err := startNode(program, dir)
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		k.verify(t, n.api)
		k.append(t, n, round, 1+rng.IntN(3000))
		if t.Failed() {
			t.Fatalf("round %d\n%s", round, n.log())
		}
	}
	n, err := startNode(program, dir)
	if err != nil {
		t.Fatal(err)
	}
	k.verify(t, n.api)
	if err := n.stop(); err != nil {
		t.Errorf("stop: %v\n%s", err, n.log())
	}
	for _, verb := range [][]string{{"replay", "audit"}, {"check"}} {
		var out, errOut bytes.Buffer
		if code := run(context.Background(), append(verb, "--dir", dir), nil, &out, &errOut); code != exitOK {
			t.Errorf("%v: exit code %d\n%s%s", verb, code, &out, &errOut)
		}
	}
	t.Logf("%d records acknowledged in %d rounds", len(k.acknowledged), rounds)
}

// killed is what writers know of a node that is killed again and again.
type killed struct {
	mu           sync.Mutex
	sent         map[string]bool        // payloads handed to the node
	acknowledged map[string]log.Pointer // payload -> where it is said to be
}

const killWriters = 3

func killStream(w int) api.Ref { return api.Ref{Name: fmt.Sprintf("writer/%d", w)} }

// append lets writers append until so many records have been acknowledged, and
// then kills the node under them.
func (k *killed) append(t *testing.T, n *node, round, until int) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	enough := make(chan struct{})
	count := 0
	var writers sync.WaitGroup
	for w := range killWriters {
		client, err := api.NewClient(n.api)
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		writers.Go(func() {
			var order []string // sent in this round, by the order of sending
			payloads := func(ctx context.Context) iter.Seq2[[]byte, error] {
				return func(yield func([]byte, error) bool) {
					for i := 0; ctx.Err() == nil; i++ {
						payload := fmt.Sprintf("writer %d round %d record %d", w, round, i)
						k.mu.Lock()
						k.sent[payload] = true
						order = append(order, payload)
						k.mu.Unlock()
						if !yield([]byte(payload), nil) {
							return
						}
					}
				}
			}
			answered := 0
			for o := range client.Append(ctx, killStream(w), "raw", payloads) {
				if o.Err != nil {
					return // the node is gone
				}
				k.mu.Lock()
				k.acknowledged[order[answered]] = o.Pointer
				answered++
				if count++; count == until {
					close(enough)
				}
				k.mu.Unlock()
			}
		})
	}
	select {
	case <-enough:
	case <-n.exited:
		t.Errorf("the node ended by itself: %v", n.err)
	case <-time.After(time.Minute):
		t.Error("too little is acknowledged")
	}
	n.kill()
	cancel()
	writers.Wait()
}

// verify reads everything and holds it against what the writers know.
func (k *killed) verify(t *testing.T, address string) {
	client, err := api.NewClient(address)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	found := make(map[string]log.Pointer)
	for w := range killWriters {
		due := uint64(1)
		for run, err := range client.Scan(t.Context(), killStream(w), log.Query{}) {
			if err != nil {
				t.Fatal(err)
			}
			for seq, payload := range run.Records() {
				if seq != due {
					t.Fatalf("writer %d: seq %d where %d is due", w, seq, due)
				}
				due++
				if at, twice := found[string(payload)]; twice {
					t.Fatalf("%q is at %v and at %v", payload, at, run.Pointer(seq))
				}
				if !k.sent[string(payload)] {
					t.Fatalf("%q was never sent", payload)
				}
				found[string(payload)] = run.Pointer(seq)
			}
		}
	}
	for payload, pointer := range k.acknowledged {
		if found[payload] != pointer {
			t.Fatalf("%q was acknowledged at %v and is at %v", payload, pointer, found[payload])
		}
	}
}
