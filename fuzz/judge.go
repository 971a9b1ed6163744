package fuzz

import (
	"context"

	"fmt"
	"slices"

	"github.com/anishathalye/porcupine"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/replay"
	"github.com/mosaik-engine/mosaik/snapshot"
)

// agreement is the log that came of a run.
type agreement struct {
	commits []log.Digest    // of commits 1, 2, ...
	records map[place]found // everything in it
	length  []uint64        // per key
}

// found is a record and where it was committed.
type found struct {
	value
	commit uint64
}

// readLog reads the whole log of the keys. Beside them there may be the folded
// keys, whose records are commands of the engine's.
func readLog(ctx context.Context, src replay.Source, keys, folded []identity.ID) (*agreement, error) {
	a := &agreement{records: make(map[place]found), length: make([]uint64, len(keys))}
	// The directory has the log of members alone, if there are no folded keys.
	own := []identity.ID{snapshot.SegmentsKey(), log.MembersKey(), log.DirectoryKey()}
	return replay.Fold(ctx, src, 0, 0, a, func(a *agreement, c log.Commit) (*agreement, error) {
		a.commits = append(a.commits, c.Digest)
		for run, err := range c.Runs() {
			if err != nil {
				return a, err
			}
			if slices.Contains(folded, run.Key) || slices.Contains(own, run.Key) {
				continue
			}
			key := slices.Index(keys, run.Key)
			if key < 0 {
				return a, fmt.Errorf("commit %d has records of key %s, which nobody wrote", c.Header.Number, run.Key)
			}
			for seq, payload := range run.Records() {
				v, err := valueOf(payload)
				if err != nil {
					return a, fmt.Errorf("key %d, seq %d: %w", key, seq, err)
				}
				a.records[place{key, seq}] = found{v, c.Header.Number}
				a.length[key] = max(a.length[key], seq)
			}
		}
		return a, nil
	})
}

// judge holds everything that was done and seen against the log that came of it.
func (h *history) judge(a *agreement) error {
	if err := h.wrong(); err != nil {
		return err
	}
	if err := h.judgeSeen(a); err != nil {
		return err
	}
	calls := h.calls()
	landed, err := judgeAppends(calls, a)
	if err != nil {
		return err
	}
	if err := judgeOrder(calls, landed); err != nil {
		return err
	}
	return judgeLinear(calls, landed, len(a.length))
}

// judgeSeen: what was shown is there.
func (h *history) judgeSeen(a *agreement) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for at, v := range h.mu.records {
		if have, ok := a.records[at]; !ok || have.value != v {
			return fmt.Errorf("key %d, seq %d was shown as %v, in the log there is %v", at.key, at.seq, v, have.value)
		}
	}
	for n, digest := range h.mu.commits {
		if n > uint64(len(a.commits)) || a.commits[n-1] != digest {
			return fmt.Errorf("commit %d was shown as %s and is not in the log", n, digest)
		}
	}
	return nil
}

// judgeAppends finds each call's records in the log: seqs[i] is the first seq of
// call i, 0 if it left nothing.
func judgeAppends(calls []call, a *agreement) (seqs []uint64, err error) {
	where := make(map[uint64]place)
	for at, r := range a.records {
		if other, twice := where[r.number]; twice {
			return nil, fmt.Errorf("value %v is in the log twice: at %+v and at %+v", r.value, other, at)
		}
		where[r.number] = at
	}
	seqs = make([]uint64, len(calls))
	accounted := 0
	for i := range calls {
		k := &calls[i]
		if k.values == nil {
			continue
		}
		at, ok := where[k.values[0].number]
		for _, v := range k.values[1:] {
			if _, also := where[v.number]; also != ok {
				return nil, fmt.Errorf("%v: some of its records are in the log, and some are not", k)
			}
		}
		switch {
		case !ok && k.outcome == acked:
			return nil, fmt.Errorf("%v: acknowledged, but not in the log", k)
		case !ok:
			continue
		case k.outcome == refused:
			return nil, fmt.Errorf("%v: refused, but in the log at %+v", k, at)
		}
		seqs[i] = at.seq
		accounted += len(k.values)
		commit := a.records[at].commit
		for j, v := range k.values {
			have := a.records[place{k.key, at.seq + uint64(j)}]
			if have.value != v || have.commit != commit {
				return nil, fmt.Errorf("%v: record %d is not the record %d of commit %d under its key: there is %v of commit %d", k, j, j, commit, have.value, have.commit)
			}
		}
		if k.outcome == acked && (k.pointer.Seq != at.seq || k.pointer.Commit != commit || k.pointer.Digest != a.commits[commit-1]) {
			return nil, fmt.Errorf("%v: acknowledged as %s, but it is seq %d in commit %d", k, k.pointer, at.seq, commit)
		}
	}
	if accounted != len(a.records) {
		return nil, fmt.Errorf("the log has %d records, %d were appended", len(a.records), accounted)
	}
	return seqs, nil
}

// judgeOrder: what a client appended to a key through one life of a node stands
// there in the order of the calls.
func judgeOrder(calls []call, landed []uint64) error {
	type stream struct{ client, life, key int }
	last := make(map[stream]int)
	order := make([]int, len(calls))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(x, y int) int { return int(calls[x].order) - int(calls[y].order) })
	for _, i := range order {
		k := &calls[i]
		if k.values == nil || landed[i] == 0 {
			continue
		}
		s := stream{k.client, k.life, k.key}
		if before, ok := last[s]; ok && landed[before] > landed[i] {
			return fmt.Errorf("%v is seq %d, but %v, which joined before, is seq %d", k, landed[i], &calls[before], landed[before])
		}
		last[s] = i
	}
	return nil
}

// end is the model of one key's log: how long it is and what its last record is.
type end struct {
	length uint64
	last   value
}

// judgeLinear checks each key's calls for linearizability. A call of unknown
// outcome that left nothing in the log never happened; of one that did, nobody
// knows when it ended.
func judgeLinear(calls []call, landed []uint64, keys int) error {
	model := porcupine.Model{
		Init: func() any { return end{} },
		Step: func(state, input, output any) (bool, any) {
			now, k := state.(end), input.(*call)
			if k.values == nil {
				return now == end{k.length, k.last}, now
			}
			if output.(uint64) != now.length+1 {
				return false, now
			}
			return true, end{now.length + uint64(len(k.values)), k.values[len(k.values)-1]}
		},
	}
	histories := make([][]porcupine.Operation, keys)
	for i := range calls {
		k := &calls[i]
		op := porcupine.Operation{ClientId: k.client, Input: k, Output: landed[i], Call: k.start, Return: k.end}
		if k.values != nil && k.outcome != acked {
			if landed[i] == 0 {
				continue
			}
			op.Return = never
		}
		histories[k.key] = append(histories[k.key], op)
	}
	linear := func(h []porcupine.Operation) bool { return porcupine.CheckOperations(model, h) }
	underWay := func(op *porcupine.Operation) bool { return op.Input.(*call).values != nil }
	for key, h := range histories {
		if !linear(h) {
			return fmt.Errorf("the %d calls on key %d are not linearizable: %s", len(h), key, shortest(h, linear, underWay))
		}
	}
	return nil
}

// shortest says where a history stops being linearizable: the calls under way
// at the end of its shortest beginning that is not. linear checks a history;
// underWay makes of an operation what is known of it before it has ended, and
// reports whether it may have taken effect by then.
func shortest(h []porcupine.Operation, linear func([]porcupine.Operation) bool, underWay func(*porcupine.Operation) bool) string {
	slices.SortFunc(h, func(a, b porcupine.Operation) int {
		if a.Return != b.Return {
			return int(min(max(a.Return-b.Return, -1), 1))
		}
		return int(min(max(a.Call-b.Call, -1), 1))
	})
	// Calls that end later may have taken effect already: they stay, open-ended.
	beginning := func(n int) []porcupine.Operation {
		out := slices.Clone(h[:n])
		for _, op := range h[n:] {
			if op.Call < h[n-1].Return && underWay(&op) {
				op.Return = never
				out = append(out, op)
			}
		}
		return out
	}
	lo, hi := 1, len(h)
	for lo < hi {
		mid := lo + (hi-lo)/2
		if linear(beginning(mid)) {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	last := h[lo-1]
	text := fmt.Sprintf("not with %v (%v)", last.Input, last.Output)
	for _, op := range h[max(0, lo-6) : lo-1] {
		text += fmt.Sprintf("; before it ended %v (%v)", op.Input, op.Output)
	}
	return text
}

// String describes a call for a person to read.
func (k *call) String() string {
	when := fmt.Sprintf("[%d, %d]", k.start, k.end)
	if k.values == nil {
		return fmt.Sprintf("read by client %d of key %d at node %d %s: length %d, last %v", k.client, k.key, k.node+1, when, k.length, k.last)
	}
	return fmt.Sprintf("append by client %d to key %d at node %d (life %d) %s of %v", k.client, k.key, k.node+1, k.life, when, k.values)
}

// wrong returns the first contradiction that was noted on the way.
func (h *history) wrong() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.mu.wrong != nil {
		return fmt.Errorf("during the run: %w", h.mu.wrong)
	}
	return nil
}

// calls returns the calls that have ended.
func (h *history) calls() []call {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.mu.calls)
}
