package engine_test

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/mosaik-engine/mosaik/engine"
	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

// documentedGroup is the rule of docs/format/store.md in arithmetic without
// tricks: floor(f*n), f the key's first 8 bytes as a fraction of 2^64.
func documentedGroup(key identity.ID, n int) string {
	f := new(big.Int).SetBytes(key[:8])
	f.Mul(f, big.NewInt(int64(n)))
	return "g" + f.Rsh(f, 64).String()
}

// edgeKeys lie right below and right at the borders between n groups.
func edgeKeys(n int) []identity.ID {
	var keys []identity.ID
	for i := range n {
		border := new(big.Int).Lsh(big.NewInt(int64(i)), 64)
		border.Div(border, big.NewInt(int64(n)))
		for _, d := range []int64{-1, 0, 1} {
			at := new(big.Int).Add(border, big.NewInt(d))
			if at.Sign() < 0 || at.BitLen() > 64 {
				continue
			}
			var key identity.ID
			at.FillBytes(key[:8])
			key[31] = 1 // not the zero key
			keys = append(keys, key)
		}
	}
	var last identity.ID
	for i := range last {
		last[i] = 0xff
	}
	return append(keys, last)
}

// TestKeysAreSpread: a key's records are in the documented group and in no
// other, also after the store was opened again without saying how many groups
// there are.
func TestKeysAreSpread(t *testing.T) {
	ctx := testContext(t)
	for _, n := range []int{1, 2, 3, 7} {
		t.Run(fmt.Sprint("groups=", n), func(t *testing.T) {
			o := smallBuffers(vfs.NewMem())
			o.Spread = n
			e := mustOpen(t, "node", o)
			keys := edgeKeys(n)
			for i := range 30 {
				keys = append(keys, identity.NewID(fmt.Sprint(i)))
			}
			used := map[string]int{}
			for i, key := range keys {
				p, err := e.Append(ctx, key, fmt.Append(nil, i))
				if err != nil {
					t.Fatal(err)
				}
				g := e.GroupFor(key)
				if want := documentedGroup(key, n); g.Name() != want || p.Group != g.ID() {
					t.Errorf("key %s went to %s and group %s, the document says %s", key, p.Group, g.Name(), want)
				}
				used[g.Name()]++
			}
			if len(used) != n {
				t.Errorf("the keys are in the groups %v", used)
			}
			mustClose(t, e)
			o.Spread = 0
			e = mustOpen(t, "node", o)
			defer mustClose(t, e)
			if err := e.Recovered(ctx); err != nil {
				t.Fatal(err)
			}
			for i, key := range keys {
				for _, g := range e.Groups() {
					info, there := g.Key(key)
					if there != (g.Name() == documentedGroup(key, n)) || there && info.Records != 1 {
						t.Errorf("key %s in group %s: %v, %+v", key, g.Name(), there, info)
					}
				}
				var y yielded
				if y.scan(ctx, &session{t: t}, e.GroupFor(key), log.Query{Key: key}, -1); y.records != 1 {
					t.Errorf("key %d has %s", i, &y)
				}
				n := 0
				for run, err := range e.Scan(ctx, log.Query{Key: key}) {
					if err != nil {
						t.Fatal(err)
					}
					n += run.Count
				}
				if n != 1 {
					t.Errorf("through the engine key %d has %d records", i, n)
				}
			}
		})
	}
}

// TestNamedGroups: a named group holds what is put in it by name; what goes
// through the engine never gets there. More can be added later.
func TestNamedGroups(t *testing.T) {
	ctx := testContext(t)
	o := smallBuffers(vfs.NewMem())
	o.Spread, o.Named = 2, []string{"prices", "audit"}
	e := mustOpen(t, "node", o)
	names := func() (list []string) {
		for _, g := range e.Groups() {
			list = append(list, g.Name())
		}
		return list
	}
	if got := names(); !slices.Equal(got, []string{"g0", "g1", "prices", "audit"}) {
		t.Fatalf("groups %v", got)
	}
	ids := map[string]identity.ID{}
	for _, g := range e.Groups() {
		ids[g.Name()] = g.ID()
	}
	key := identity.NewID("k")
	prices, _ := e.Group("prices")
	for i := range 3 { // the same key in two groups is two logs
		if p, err := prices.Append(ctx, key, []byte("by name")); err != nil || p.Seq != uint64(i+1) || p.Group != prices.ID() {
			t.Fatal(p, err)
		}
	}
	if p, err := e.Append(ctx, key, []byte("by key")); err != nil || p.Seq != 1 || p.Group != e.GroupFor(key).ID() {
		t.Fatal(p, err)
	}
	mustClose(t, e)

	o.Spread, o.Named = 0, []string{"later"}
	e = mustOpen(t, "node", o)
	if got := names(); !slices.Equal(got, []string{"g0", "g1", "prices", "audit", "later"}) {
		t.Fatalf("groups %v", got)
	}
	for name, id := range ids {
		if g, ok := e.Group(name); !ok || g.ID() != id {
			t.Errorf("group %s was %s, is %v", name, id, g)
		}
	}
	if _, ok := e.Group("nobody"); ok {
		t.Error("there is a group that nobody asked for")
	}
	later, _ := e.Group("later")
	if _, err := later.Append(ctx, key, []byte("x")); err != nil {
		t.Error(err)
	}
	prices, _ = e.Group("prices")
	if err := e.Recovered(ctx); err != nil {
		t.Fatal(err)
	}
	for g, want := range map[*engine.Group]uint64{prices: 3, e.GroupFor(key): 1, later: 1} {
		if info, _ := g.Key(key); info.Records != want {
			t.Errorf("group %s has %d records, want %d", g.Name(), info.Records, want)
		}
	}
	mustClose(t, e)
	o.Named = nil // what was added stays
	e = mustOpen(t, "node", o)
	defer mustClose(t, e)
	if _, ok := e.Group("later"); !ok {
		t.Error("a group added at the second open is missing at the third")
	}
}

type tick struct {
	Bid, Ask int64
}

// TestStreamsOnGroups opens typed streams through the engine and through one
// group: the directory goes where the stream's Writer puts it, and refuses
// another codec there.
func TestStreamsOnGroups(t *testing.T) {
	ctx := testContext(t)
	o := smallBuffers(vfs.NewMem())
	o.Spread, o.Named = 3, []string{"prices"}
	e := mustOpen(t, "node", o)
	prices, _ := e.Group("prices")
	ticks := log.StreamDef[tick]{Name: "oracle.price"}
	other := log.StreamDef[tick]{Name: "oracle.price", Codec: log.JSON[tick]()}

	for _, w := range []log.Writer{e, prices} {
		s, err := ticks.Open(ctx, w)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.AppendBatch(ctx, tick{1, 2}, tick{3, 4}); err != nil {
			t.Fatal(err)
		}
		if _, err := ticks.Open(ctx, w); err != nil {
			t.Errorf("opened again: %v", err)
		}
		if _, err := other.Open(ctx, w); !errors.Is(err, log.ErrCodec) {
			t.Errorf("with another codec: %v", err)
		}
	}
	// In a group that the rule does not put it into, nobody would find it.
	taken := []*engine.Group{e.GroupFor(log.DirectoryKey()), e.GroupFor(ticks.Key())}
	free := slices.IndexFunc(e.Groups(), func(g *engine.Group) bool { return !slices.Contains(taken, g) })
	if _, err := other.Open(ctx, e.Groups()[free]); !errors.Is(err, engine.ErrMismatch) {
		t.Errorf("in another group: %v", err)
	}
	mustClose(t, e)

	e = mustOpen(t, "node", o)
	defer mustClose(t, e)
	if err := e.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	prices, _ = e.Group("prices")
	wantDirectory := func(s log.Scanner, names ...string) {
		t.Helper()
		list, err := log.Directory(ctx, s)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, entry := range list {
			got = append(got, entry.Name+" "+entry.Kind+" "+entry.Codec)
		}
		if !slices.Equal(got, names) {
			t.Errorf("the directory has %v, want %v", got, names)
		}
	}
	if _, err := log.Directory(ctx, e); !errors.Is(err, log.ErrQuery) {
		t.Errorf("the directory of several groups: %v", err)
	}
	wantDirectory(e.GroupFor(ticks.Key()), "oracle.price stream cbor")
	wantDirectory(prices, "oracle.price stream cbor")
	for _, s := range []log.Scanner{e, prices, e.GroupFor(ticks.Key())} {
		reader, err := ticks.Reader(s)
		if err != nil {
			t.Fatal(err)
		}
		var got []tick
		for record, err := range reader.All(ctx, log.Earliest()) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, record.Value)
			p := record.Pointer()
			g := slices.IndexFunc(e.Groups(), func(g *engine.Group) bool { return g.ID() == p.Group })
			if g < 0 || e.Groups()[g].WaitFor(context.WithoutCancel(ctx), p) != nil {
				t.Errorf("the pointer %v of record %d does not hold", p, record.Seq)
			}
		}
		if !slices.Equal(got, []tick{{1, 2}, {3, 4}}) {
			t.Errorf("the stream holds %v", got)
		}
	}
}
