package log_test

import (
	"errors"
	"fmt"
	"maps"
	"testing"

	"github.com/mosaik-engine/mosaik/log"
)

var prices = log.MapDef[string, int]{Name: "prices"}

func TestMap(t *testing.T) {
	m := log.NewMemory(testGroup)
	p, err := prices.Open(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, existed, err := p.Insert(t.Context(), "a", 1); err != nil || existed {
		t.Fatalf("first insert: %v, %v", existed, err)
	}
	at := m.Head().Number
	if _, old, existed, err := p.Insert(t.Context(), "a", 2); err != nil || !existed || old != 1 {
		t.Fatalf("second insert: %v, %v, %v", old, existed, err)
	}
	if _, n, err := p.Extend(t.Context(), maps.All(map[string]int{"b": 3, "c": 4, "a": 5})); err != nil || n != 2 {
		t.Fatalf("extend: %v, %v", n, err)
	}
	one, two := 1, 2
	if _, ok, current, err := p.CompareExchange(t.Context(), "b", &one, &two); err != nil || ok || current == nil || *current != 3 {
		t.Fatalf("compare-exchange: %v, %v, %v", ok, current, err)
	}
	if _, old, existed, err := p.Remove(t.Context(), "c"); err != nil || !existed || old != 4 {
		t.Fatalf("remove: %v, %v, %v", old, existed, err)
	}
	view, err := p.View(t.Context(), log.Linearizable())
	if err != nil {
		t.Fatal(err)
	}
	if _, n, err := p.Clear(t.Context()); err != nil || n != 2 {
		t.Fatalf("clear: %v, %v", n, err)
	}
	show := func(v *log.MapView[string, int]) (s string) {
		for e, err := range v.All() {
			if err != nil {
				t.Fatal(err)
			}
			s += fmt.Sprintf("%s=%d@%d ", e.Key, e.Value, e.Version)
		}
		n, err := v.Len()
		return fmt.Sprint(s, n, err)
	}
	if got := show(view); got != "a=5@4 b=3@4 2 <nil>" {
		t.Error(got)
	}
	past, err := p.View(t.Context(), log.AsOf(at))
	if err != nil || show(past) != "a=1@2 1 <nil>" {
		t.Error(show(past), err)
	}
	now, err := p.View(t.Context(), log.Stale())
	if err != nil || show(now) != "0 <nil>" {
		t.Error(show(now), err)
	}

	txn := log.NewTxn(m)
	in := prices.In(txn)
	in.ExpectAbsent("a")
	old := in.Insert("a", 7)
	if _, err := txn.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if v, done := old.Value(); v != nil || !done {
		t.Error(v, done)
	}
	txn = log.NewTxn(m)
	in = prices.In(txn)
	in.ExpectPresent("a")
	in.ExpectValue("a", 8)
	in.Remove("a")
	var conflict *log.ConflictError
	if _, err := txn.Commit(t.Context()); !errors.As(err, &conflict) || conflict.Index != 1 {
		t.Error(err)
	}
	if v, ok, err := p.Get(t.Context(), "a"); v != 7 || !ok || err != nil {
		t.Error(v, ok, err)
	}
}
