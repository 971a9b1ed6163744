package fuzz

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"

	"github.com/anishathalye/porcupine"

	"github.com/mosaik-engine/mosaik/engine"
	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

// The collections that viewers use.
var (
	simulatedMap  = log.MapDef[string, uint64]{Name: "mosaik.simulation.map"}
	simulatedCell = log.CellDef[uint64]{Name: "mosaik.simulation.cell"}
)

// The objects of the viewers are numbered: the entries of the map, then the
// cell. Calls meet each other only if there are few.
const (
	mapEntries = 3
	objects    = mapEntries + 1
)

// foldedKeys are the keys whose logs are folded into views when there are
// viewers.
func foldedKeys() []identity.ID {
	return []identity.ID{log.DirectoryKey(), simulatedMap.Key(), simulatedCell.Key()}
}

// content is what an object holds. Value 0, which nobody writes, is nothing.
type content struct {
	value   uint64
	version uint64
}

// object holds a value or nothing. An entry of a map and a cell are both just
// that, so that one client and one model serve both.
type object interface {
	write(ctx context.Context, v uint64) (p log.Pointer, found uint64, err error)
	remove(ctx context.Context) (p log.Pointer, found uint64, err error)
	exchange(ctx context.Context, before, after uint64) (p log.Pointer, swapped bool, found uint64, err error)
	read(ctx context.Context, at log.Consistency) (c content, commit uint64, err error)
	key() identity.ID
}

// maybe returns how the collections write a value or nothing.
func maybe(v uint64) *uint64 {
	if v == 0 {
		return nil
	}
	return &v
}

// entry is one entry of the map.
type entry struct {
	in   *log.Map[string, uint64]
	name string
}

func (e entry) key() identity.ID { return e.in.Key() }

func (e entry) write(ctx context.Context, v uint64) (log.Pointer, uint64, error) {
	return previous(e.in.Insert(ctx, e.name, v))
}

func (e entry) remove(ctx context.Context) (log.Pointer, uint64, error) {
	return previous(e.in.Remove(ctx, e.name))
}

func (e entry) exchange(ctx context.Context, before, after uint64) (log.Pointer, bool, uint64, error) {
	return current(e.in.CompareExchange(ctx, e.name, maybe(before), maybe(after)))
}

func (e entry) read(ctx context.Context, at log.Consistency) (c content, commit uint64, err error) {
	view, err := e.in.View(ctx, at)
	if err != nil {
		return c, 0, err
	}
	have, ok, err := view.Entry(e.name)
	if err == nil && ok {
		c = content{value: have.Value, version: have.Version}
	}
	return c, view.Commit(), err
}

// cell is the cell.
type cell struct{ *log.Cell[uint64] }

func (c cell) key() identity.ID { return c.Key() }

func (c cell) write(ctx context.Context, v uint64) (log.Pointer, uint64, error) {
	return previous(c.Write(ctx, v))
}

func (c cell) remove(ctx context.Context) (log.Pointer, uint64, error) { return previous(c.Clear(ctx)) }

func (c cell) exchange(ctx context.Context, before, after uint64) (log.Pointer, bool, uint64, error) {
	return current(c.CompareExchange(ctx, maybe(before), maybe(after)))
}

func (c cell) read(ctx context.Context, at log.Consistency) (content, uint64, error) {
	have, err := c.ReadAt(ctx, at)
	return content{value: have.Value, version: have.Version}, have.Commit, err
}

// errExistence: the collections say of a value that is never written that it
// exists, or of another one that it does not.
var errExistence = errors.New("a value and whether there is one contradict each other")

// previous takes the result of a write.
func previous(p log.Pointer, old uint64, existed bool, err error) (log.Pointer, uint64, error) {
	if err == nil && existed != (old != 0) {
		err = errExistence
	}
	return p, old, err
}

// current takes the result of a compare-exchange.
func current(p log.Pointer, swapped bool, now *uint64, err error) (log.Pointer, bool, uint64, error) {
	if now == nil {
		return p, swapped, 0, err
	}
	if err == nil && (swapped || *now == 0) {
		err = errExistence
	}
	return p, swapped, *now, err
}

// openObjects opens the collections at a node and returns the objects in them.
func openObjects(ctx context.Context, g *engine.Group) (open [objects]object, err error) {
	m, err := simulatedMap.Open(ctx, g)
	if err != nil {
		return open, err
	}
	c, err := simulatedCell.Open(ctx, g)
	if err != nil {
		return open, err
	}
	for i := range mapEntries {
		open[i] = entry{in: m, name: strings.Repeat("k", i)} // one is a prefix of the next, the first is empty
	}
	open[mapEntries] = cell{c}
	return open, nil
}

// verb is what a use does to its object.
type verb uint8

const (
	look     verb = iota // reads it, linearizably
	write                // puts after in it
	remove               // puts nothing in it
	exchange             // puts after in it if before is there
)

// use is one call on an object as its caller saw it.
type use struct {
	client, node int
	object       int
	start, end   int64

	verb          verb
	before, after uint64

	outcome outcome
	pointer log.Pointer // of an acknowledged write
	err     error       // if it was not
	swapped bool        // an exchange took place
	found   uint64      // what was there, but for an exchange that took place
}

// sight is a look at an object as of a commit.
type sight struct {
	object int
	commit uint64
}

// used adds a call on an object that has ended.
func (h *history) used(k use) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mu.uses = append(h.mu.uses, k)
}

// uses returns the calls on objects that have ended.
func (h *history) uses() []use {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.mu.uses)
}

// sawContent notes what a living node has shown an object to hold as of a commit.
func (h *history) sawContent(node int, at sight, c content) {
	h.mu.Lock()
	before, seen := h.mu.sights[at]
	h.mu.sights[at] = c
	h.mu.Unlock()
	if seen && before != c {
		h.fail("object %d as of commit %d was shown as %v, then by node %d as %v", at.object, at.commit, before, node+1, c)
	}
}

// viewer is a client of the map and the cell: it makes one call after the other.
type viewer struct {
	w    *world
	id   int
	rng  *rand.Rand
	next uint64          // value number
	last [objects]uint64 // what this viewer believes to be there
	wg   *sync.WaitGroup
	lazy bool
	open [nodes]struct {
		life    int
		objects [objects]object
	}
}

// runViewer makes calls until stop is closed.
func (v *viewer) runViewer(stop <-chan struct{}) {
	defer v.wg.Done()
	v.w.visit(v.rng, stop, v.call)
}

// objectsAt returns the objects at a node. They are opened once per life of the
// node: that asks the group, or tells it, and so may fail.
func (v *viewer) objectsAt(ctx context.Context, i int, l *life) *[objects]object {
	at := &v.open[i]
	if at.life == l.number {
		return &at.objects
	}
	open, err := openObjects(ctx, l.group)
	if err != nil {
		if _, expected := outcomeOf(ctx, err); !expected && !mayFail(ctx, err) && !l.dead.Load() {
			v.w.history.fail("client %d: node %d did not open the collections: %w", v.id, i+1, err)
		}
		return nil
	}
	at.life, at.objects = l.number, open
	return &at.objects
}

// call makes one call at a node.
func (v *viewer) call(ctx context.Context, i int, l *life) {
	open := v.objectsAt(ctx, i, l)
	if open == nil {
		return
	}
	k := use{client: v.id, node: i, object: v.rng.IntN(objects)}
	at := open[k.object]
	switch v.rng.IntN(20) {
	case 0, 1, 2, 3, 4, 5:
		k.verb, k.after = write, v.value()
	case 6, 7:
		k.verb = remove
	case 8, 9, 10:
		k.verb, k.before, k.after = exchange, v.last[k.object], v.value()
	case 11:
		k.verb, k.before = exchange, v.last[k.object]
	case 12:
		k.verb, k.after = exchange, v.value()
	case 13:
		v.peek(ctx, l, k, at)
		return
	default:
		v.look(ctx, l, k, at)
		return
	}
	v.change(ctx, l, k, at)
}

// value returns one that no other write has.
func (v *viewer) value() uint64 {
	v.next++
	return uint64(v.id+1)<<32 | v.next
}

// change makes a write. What a node says that has lost its power nobody hears.
func (v *viewer) change(ctx context.Context, l *life, k use, at object) {
	k.start = v.w.history.tick()
	switch k.verb {
	case write:
		k.pointer, k.found, k.err = at.write(ctx, k.after)
	case remove:
		k.pointer, k.found, k.err = at.remove(ctx)
	case exchange:
		k.pointer, k.swapped, k.found, k.err = at.exchange(ctx, k.before, k.after)
	}
	outcome, expected := outcomeOf(ctx, k.err)
	switch {
	case l.dead.Load():
		k.pointer, k.swapped, k.found = log.Pointer{}, false, 0
	case !expected:
		v.w.history.fail("%v: refused: %w", &k, k.err)
	case outcome == acked:
		k.outcome = acked
		if k.pointer.Group != l.group.ID() || k.pointer.Key != at.key() || k.pointer.Seq == 0 {
			v.w.history.fail("%v: answered with %s", &k, k.pointer)
		}
		v.w.history.sawCommit(k.node, k.pointer.Commit, k.pointer.Digest)
		if v.last[k.object] = k.after; k.verb == exchange && !k.swapped {
			v.last[k.object] = k.found
		}
	default:
		k.outcome = outcome
	}
	k.end = v.w.history.tick()
	v.w.history.used(k)
}

// look reads an object linearizably.
func (v *viewer) look(ctx context.Context, l *life, k use, at object) {
	consistency := log.Linearizable()
	if v.lazy {
		consistency = log.Stale()
	}
	k.start = v.w.history.tick()
	c, ok := v.read(ctx, l, &k, at, consistency)
	if !ok {
		return
	}
	k.outcome, k.found = acked, c.value
	k.end = v.w.history.tick()
	v.last[k.object] = c.value
	v.w.history.used(k)
}

// peek reads without asking the group: old news, but never wrong ones.
func (v *viewer) peek(ctx context.Context, l *life, k use, at object) {
	if c, ok := v.read(ctx, l, &k, at, log.Stale()); ok {
		v.last[k.object] = c.value // which lets exchanges fail now and then
	}
}

func (v *viewer) read(ctx context.Context, l *life, k *use, at object, how log.Consistency) (c content, ok bool) {
	c, commit, err := at.read(ctx, how)
	switch {
	case l.dead.Load():
		return c, false
	case err == nil:
		v.w.history.sawContent(k.node, sight{k.object, commit}, c)
		return c, true
	case !mayFail(ctx, err):
		v.w.history.fail("client %d: node %d refused a read of object %d, %v: %w", k.client, k.node+1, k.object, how, err)
	}
	return c, false
}

// judgeViews holds the views of the nodes against each other, and what the
// viewers saw against them. The nodes have been settled, at the head.
func (w *world) judgeViews(ctx context.Context, head uint64) error {
	commits := []uint64{head}
	for range 8 {
		commits = append(commits, 1+w.rng.Uint64N(head))
	}
	var want []string
	for i, n := range w.nodes {
		if n.now.group.Status().ViewsFrom > 0 { // a sync has brought it here, without what was before
			if report, err := n.now.group.Refold(ctx, nil); err != nil || report.Differs != 0 {
				return fmt.Errorf("node %d builds its views anew: %+v, %w", i+1, report, err)
			}
		}
		open, err := openObjects(ctx, n.now.group)
		if err != nil {
			return fmt.Errorf("node %d does not open the collections: %w", i+1, err)
		}
		for j, commit := range commits {
			have, err := contents(ctx, n.now.group, commit)
			if err != nil {
				return fmt.Errorf("the collections of node %d as of commit %d: %w", i+1, commit, err)
			}
			if i == 0 {
				want = append(want, have)
			} else if have != want[j] {
				return fmt.Errorf("as of commit %d node 1 has %s, node %d %s", commit, want[j], i+1, have)
			}
		}
		if err := w.history.judgeSights(ctx, &open); err != nil {
			return fmt.Errorf("node %d: %w", i+1, err)
		}
		// What was acknowledged must be in what clients read from now on.
		v := &viewer{w: w, id: len(w.clients) + len(w.viewers) + i}
		for object, at := range open {
			v.look(ctx, n.now, use{client: v.id, node: i, object: object}, at)
		}
		for _, k := range w.history.uses() {
			if k.outcome != acked || k.verb == look {
				continue
			}
			if err := n.holds(k.pointer); err != nil {
				return fmt.Errorf("node %d: %v: the pointer does not hold: %w", i+1, &k, err)
			}
		}
	}
	if err := w.history.wrong(); err != nil {
		return err
	}
	uses := w.history.uses()
	if err := w.history.judgeVersions(uses); err != nil {
		return err
	}
	return judgeUses(uses)
}

// clearObjects removes what is in the objects. What was there before must still
// be what the nodes have as of earlier commits, though the rows are gone.
func (w *world) clearObjects(ctx context.Context) error {
	n := w.nodes[0]
	open, err := openObjects(ctx, n.now.group)
	if err != nil {
		return err
	}
	v := &viewer{w: w, id: len(w.clients) + len(w.viewers)}
	for object, at := range open {
		v.change(ctx, n.now, use{client: v.id, object: object, verb: remove}, at)
	}
	return w.history.wrong()
}

// contents returns all that the collections hold as of a commit.
func contents(ctx context.Context, g *engine.Group, commit uint64) (string, error) {
	m, err := simulatedMap.Reader(g)
	if err != nil {
		return "", err
	}
	c, err := simulatedCell.Reader(g)
	if err != nil {
		return "", err
	}
	view, err := m.View(ctx, log.AsOf(commit))
	if err != nil {
		return "", err
	}
	size, err := view.Len()
	if err != nil {
		return "", err
	}
	var entries []log.Entry[string, uint64]
	for e, err := range view.All() {
		if err != nil {
			return "", err
		}
		entries = append(entries, e)
	}
	if uint64(len(entries)) != size {
		return "", fmt.Errorf("the map has %d entries, but says %d", len(entries), size)
	}
	value, err := c.ReadAt(ctx, log.AsOf(commit))
	return fmt.Sprintf("%+v and %+v", entries, value), err
}

// judgeSights: what was shown as of a commit is what a node has as of that
// commit, however much has been written since.
func (h *history) judgeSights(ctx context.Context, open *[objects]object) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for at, c := range h.mu.sights {
		have, commit, err := open[at.object].read(ctx, log.AsOf(at.commit))
		if err != nil || commit != at.commit || have != c {
			return fmt.Errorf("object %d as of commit %d was shown as %v, now it is %v as of commit %d: %w", at.object, at.commit, c, have, commit, err)
		}
	}
	return nil
}

// judgeVersions: the version of a value is the commit that its write was
// acknowledged with, and whatever it is it does not change.
func (h *history) judgeVersions(uses []use) error {
	versions := make(map[uint64]uint64)
	for _, k := range uses {
		if k.outcome == acked && k.after != 0 && (k.verb == write || k.swapped) {
			versions[k.after] = k.pointer.Commit
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for at, c := range h.mu.sights {
		if c.value == 0 {
			continue
		}
		version, ok := versions[c.value]
		if ok && version != c.version || c.version > at.commit || c.version == 0 {
			return fmt.Errorf("object %d as of commit %d was shown as %d of version %d, it was written by commit %d", at.object, at.commit, c.value, c.version, version)
		}
		versions[c.value] = c.version
	}
	return nil
}

// answer is what a call on an object returned.
type answer struct {
	found   uint64
	swapped bool
}

// apply returns what a call leaves behind where now is, and its answer.
func (k *use) apply(now uint64) (after uint64, a answer) {
	switch k.verb {
	case write, remove:
		return k.after, answer{found: now}
	case exchange:
		if now == k.before {
			return k.after, answer{swapped: true}
		}
	}
	return now, answer{found: now}
}

// holding is the model of one object: what it holds, and whether everything that
// anybody has seen of it is over.
type holding struct {
	value uint64
	over  bool
}

// objectModel is that of porcupine. The input is a *use. The output is its
// answer, or nil if nobody has heard one: such a call takes effect whenever it
// changes something, or not before all is over, which stands for never. That it
// can wait is why it need not be tried where it would change nothing. A nil input
// is the end of all.
var objectModel = porcupine.Model{
	Init: func() any { return holding{} },
	Step: func(state, input, output any) (bool, any) {
		now := state.(holding)
		if input == nil {
			return true, holding{over: true}
		}
		heard, ok := output.(answer)
		if now.over {
			return !ok, now
		}
		after, a := input.(*use).apply(now.value)
		if ok {
			return a == heard, holding{value: after}
		}
		return after != now.value, holding{value: after}
	},
}

// linearUses checks the calls on one object, to which it adds the end of all.
func linearUses(h []porcupine.Operation) bool {
	return porcupine.CheckOperations(objectModel, append(slices.Clone(h), porcupine.Operation{Call: never - 1, Return: never}))
}

// judgeUses checks the calls on each object for linearizability.
func judgeUses(uses []use) error {
	for object := range objects {
		h := operations(uses, object)
		if linearUses(h) {
			continue
		}
		underWay := func(op *porcupine.Operation) bool {
			op.Output = nil
			return op.Input.(*use).verb != look
		}
		return fmt.Errorf("the %d calls on object %d are not linearizable: %s", len(h), object, shortest(h, linearUses, underWay))
	}
	return nil
}

// operations returns the history of one object. A write of unknown outcome whose
// value nobody came across is left out, as if it had never happened: anybody else
// who was told something while its value was there would have been told of it, so
// only writes of unknown outcome can have followed it, and those may as well have
// followed what was there before. The search would try all orders of them.
func operations(uses []use, object int) []porcupine.Operation {
	met := map[uint64]bool{0: true}
	for _, k := range uses {
		met[k.found], met[k.before] = true, true
	}
	var h []porcupine.Operation
	for i := range uses {
		k := &uses[i]
		if k.object != object || k.outcome == refused || k.outcome == unknown && !met[k.after] {
			continue
		}
		op := porcupine.Operation{ClientId: k.client, Input: k, Output: answer{k.found, k.swapped}, Call: k.start, Return: k.end}
		if k.outcome == unknown {
			op.Output, op.Return = nil, never
		}
		h = append(h, op)
	}
	return h
}

// String describes a call for a person to read.
func (k *use) String() string {
	what := [...]string{look: "look at", write: "write to", remove: "removal from", exchange: "exchange in"}[k.verb]
	return fmt.Sprintf("%s object %d by client %d at node %d [%d, %d], before %d, after %d: swapped %v, found %d, outcome %d, %v",
		what, k.object, k.client, k.node+1, k.start, k.end, k.before, k.after, k.swapped, k.found, k.outcome, k.err)
}
