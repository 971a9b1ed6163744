package snapshot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"slices"
	"sync"
	"time"

	"github.com/klauspost/reedsolomon"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

// Fetcher brings coded objects from several members at once. Each member is asked for
// cells for itself, the next as soon as the last ones have come, so a fast one
// does more of the work and a slow one holds nobody up; when nothing is left to
// ask for, what is still on its way is asked for a second time, of whoever is
// free. A stripe is decoded when any K of its cells are there.
//
// Every cell is checked before it is used. A member that sends a wrong one is
// asked no more (Bad).
type Fetcher struct {
	// Peers carries the requests.
	Peers Peers
	// Members are those that can be asked, by the number of the shard they keep.
	// Zero ones are not asked: oneself.
	Members []identity.PeerID
	// Last is the member that is asked only for what others do not have: the leader,
	// which has more to do. Zero: none.
	Last identity.PeerID
	// Bad is told of a member that has sent something wrong, or does not answer. It
	// may be nil, and is called by one goroutine at a time.
	Bad func(member identity.PeerID, err error)

	mu      sync.Mutex
	sent    map[identity.PeerID]uint64        // bytes that came and were used or not
	out     map[identity.PeerID]error         // members that have lied
	latency map[identity.PeerID]time.Duration // of the requests so far, smoothed
}

// Sent returns how many bytes each member has sent so far.
func (f *Fetcher) Sent() map[identity.PeerID]uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	sent := make(map[identity.PeerID]uint64, len(f.sent))
	for m, n := range f.sent {
		sent[m] = n
	}
	return sent
}

const (
	// fetchWindow is how many stripes may be under way ahead of the one that is
	// written next. It bounds the memory of a Fetch.
	fetchWindow = 32
	// fetchCells is how many cells are asked for in one request.
	fetchCells = 4
	// retryPause is how long a member that did not answer is left alone.
	retryPause = 200 * time.Millisecond
	// minHedge is how long what is on its way is waited for at least before it is asked
	// for a second time; a member that is slower than hedgeFactor of the one that is
	// free is not waited for any longer.
	minHedge    = 10 * time.Millisecond
	hedgeFactor = 3
	// maxFailures is how often in a row a member may fail to answer before it is given
	// up for this object.
	maxFailures = 5
)

// Object fetches an object and writes it to w. Its cells are what the coding says;
// whether the object as a whole is, which only a wrong coding could make untrue, is
// left to whoever reads it (Commits, ReadState). r names it; its Shard, First and
// Count mean nothing. The error is ErrShards if the members that are left cannot
// give enough.
func (f *Fetcher) Object(ctx context.Context, c *Coding, r Request, w io.Writer) error {
	if err := c.validate(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	o := &fetching{f: f, c: c, r: r, stripes: make([]fetchedStripe, c.Stripes()), hashes: make([][]byte, c.Geometry.Shards()), changed: make(chan struct{})}
	var asked []int // by their shards
	for shard, m := range f.Members {
		if !m.IsZero() && shard < c.Geometry.Shards() {
			asked = append(asked, shard)
		}
	}
	o.running = len(asked) // before any of them runs
	var wg sync.WaitGroup
	wg.Add(len(asked))
	for _, shard := range asked {
		go o.runPeer(ctx, &wg, f.Members[shard], shard)
	}
	err := o.write(ctx, w)
	cancel()
	wg.Wait()
	return err
}

// fetching is one object on its way.
type fetching struct {
	f *Fetcher
	c *Coding
	r Request

	mu      sync.Mutex
	stripes []fetchedStripe
	hashes  [][]byte      // checked, by shard
	written int           // stripes that are written
	running int           // members that are still asked
	idle    int           // of those, since the last change, have nothing to ask for
	paused  int           // of those are left alone, since they did not answer
	all     bool          // the others are not enough: Fetcher.Last and slow members are asked too
	stuck   bool          // nobody has anything that is wanted
	reasons []error       // of those that are not
	changed chan struct{} // closed at the next change
}

// fetchedStripe is what there is of a stripe.
type fetchedStripe struct {
	cells map[int][]byte // checked
	asked uint64         // shards that are on their way, as a set
	since time.Time      // when the last of them was asked for
	twice bool           // one more than is needed was asked for
}

// announce wakes whoever waits for a change. REQUIRES: mu.
func (o *fetching) announce() {
	close(o.changed)
	o.changed = make(chan struct{})
	o.idle = 0
}

// look sees to it that the rest does not wait for nothing. When nobody has anything
// on its way, those that were spared have to help; if there is nothing to ask them
// for either, it cannot be had at all. REQUIRES: mu, idle or paused has grown.
func (o *fetching) look() {
	switch {
	case !o.all && o.idle+o.paused >= o.running:
		o.all = true
	case o.all && !o.stuck && o.idle >= o.running:
		o.stuck = true
	default:
		return
	}
	o.announce()
}

// write writes the stripes in order, as they become complete.
func (o *fetching) write(ctx context.Context, w io.Writer) error {
	var code reedsolomon.Encoder
	if o.c.M > 0 {
		var err error
		if code, err = reedsolomon.New(o.c.K, o.c.M, codeOptions...); err != nil {
			return err
		}
	}
	for stripe := range o.stripes {
		cells, err := o.wait(ctx, stripe)
		if err != nil {
			return err
		}
		if code != nil {
			if err := code.ReconstructData(cells); err != nil {
				return fmt.Errorf("mosaik: decode: %w", err)
			}
		}
		left := o.c.StripeSize(stripe)
		for _, cell := range cells[:o.c.K] {
			cell = cell[:min(left, len(cell))]
			if _, err := w.Write(cell); err != nil {
				return err
			}
			left -= len(cell)
		}
	}
	return nil
}

// wait returns the cells of a stripe when K of them are there.
func (o *fetching) wait(ctx context.Context, stripe int) ([][]byte, error) {
	for {
		o.mu.Lock()
		s := &o.stripes[stripe]
		if len(s.cells) >= o.c.K {
			cells := make([][]byte, o.c.Geometry.Shards())
			for i, cell := range s.cells {
				cells[i] = cell
			}
			s.cells = nil
			o.written = stripe + 1
			o.announce()
			o.mu.Unlock()
			return cells, nil
		}
		here, none, reasons, changed := len(s.cells), o.running == 0 || o.stuck, errors.Join(o.reasons...), o.changed
		o.mu.Unlock()
		if none {
			return nil, fmt.Errorf("%w: %d of %d+%d of stripe %d, %d are needed: %w", ErrShards, here, o.c.K, o.c.M, stripe, o.c.K, errors.Join(reasons, ctx.Err()))
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// task is what a member is asked for: cells of one shard.
type task struct {
	shard, first, count int
	hedge               bool // others are asked for it too, and are late
}

// next chooses what to ask a member for; false: there is nothing at present. The
// member keeps shard own; any says that it makes others too; late is how long it
// waits for what others were asked for. REQUIRES: mu.
func (o *fetching) next(own int, any bool, late time.Duration) (task, bool) {
	now := time.Now()
	end := min(len(o.stripes), o.written+fetchWindow)
	for hedge := range 2 {
		for i := o.written; i < end; i++ {
			if hedge == 1 && now.Sub(o.stripes[i].since) < late {
				continue
			}
			shard, ok := o.wanted(i, own, any, hedge == 1)
			if !ok {
				continue
			}
			t := task{shard: shard, first: i, count: 1, hedge: hedge == 1}
			for hedge == 0 && t.first+t.count < end && t.count < fetchCells {
				again, ok := o.wanted(t.first+t.count, own, any, false)
				if !ok || again != shard {
					break
				}
				t.count++
			}
			for j := range t.count {
				s := &o.stripes[t.first+j]
				s.asked |= 1 << shard
				s.since = now
				s.twice = s.twice || hedge == 1
			}
			return t, true
		}
	}
	return task{}, false
}

// wanted returns the shard of which a member should send the cell of a stripe.
// With hedge it is one more than is needed, because the others are slow.
func (o *fetching) wanted(stripe, own int, any, hedge bool) (shard int, ok bool) {
	s := &o.stripes[stripe]
	here := len(s.cells)
	if stripe < o.written || here >= o.c.K {
		return 0, false
	}
	if enough := here+bits.OnesCount64(s.asked) >= o.c.K; enough != hedge || hedge && s.twice {
		return 0, false
	}
	free := func(i int) bool { return s.cells[i] == nil && s.asked>>i&1 == 0 }
	if free(own) {
		return own, true
	}
	if any {
		for i := range o.c.Geometry.Shards() {
			if free(i) {
				return i, true
			}
		}
		if hedge { // every shard is on its way: the same from somebody else
			for i := range o.c.Geometry.Shards() {
				if s.cells[i] == nil {
					return i, true
				}
			}
		}
	}
	return 0, false
}

// runPeer asks one member for cells until the object is complete or the member
// is of no more use.
func (o *fetching) runPeer(ctx context.Context, wg *sync.WaitGroup, m identity.PeerID, own int) {
	defer wg.Done()
	err := o.peer(ctx, m, own)
	o.mu.Lock()
	o.running--
	if err != nil {
		o.reasons = append(o.reasons, fmt.Errorf("member %s: %w", m.Short(), err))
	}
	o.announce()
	o.mu.Unlock()
	if err != nil && ctx.Err() == nil {
		o.f.blame(m, err)
	}
}

// blame tells of a member that is asked no more.
func (f *Fetcher) blame(m identity.PeerID, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if errors.Is(err, errHashes) || errors.Is(err, errCell) {
		if f.out == nil {
			f.out = make(map[identity.PeerID]error)
		}
		f.out[m] = err
	}
	if f.Bad != nil {
		f.Bad(m, err)
	}
}

// lied returns why a member is asked no more, nil if it is.
func (f *Fetcher) lied(m identity.PeerID) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.out[m]
}

func (o *fetching) peer(ctx context.Context, m identity.PeerID, own int) error {
	if err := o.f.lied(m); err != nil {
		return err
	}
	any, failures := true, 0
	var rested <-chan struct{} // the change after which there was nothing to ask for
	for {
		latency, fastest := o.f.latencies(m)
		late := max(minHedge, hedgeFactor*latency)
		o.mu.Lock()
		if o.written == len(o.stripes) {
			o.mu.Unlock()
			return nil
		}
		enough := fastest * time.Duration(1+o.left())
		t, ok := o.next(own, any, late)
		if ok && !o.all && !t.hedge && (m == o.f.Last && o.running > o.c.K || latency > enough) {
			o.release(t) // the others may be enough, or are sooner
			ok = false
		}
		if !ok && rested != o.changed {
			rested = o.changed
			o.idle++
			o.look()
		}
		changed := o.changed
		o.mu.Unlock()
		if !ok {
			select {
			case <-changed:
			case <-time.After(late): // something may be late by then
			case <-ctx.Done():
				return nil
			}
			continue
		}
		began := time.Now()
		err := o.fetch(ctx, m, t)
		if err == nil {
			o.f.took(m, time.Since(began))
		}
		o.mu.Lock()
		o.release(t)
		o.announce()
		o.mu.Unlock()
		switch {
		case err == nil:
			failures = 0
			continue
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, errHashes) || errors.Is(err, errCell):
			return err // it sends what is not so
		case errors.Is(err, log.ErrNotFound) && t.shard != own:
			any = false // it has only its own
			continue
		}
		if failures++; failures == maxFailures {
			return err
		}
		o.mu.Lock()
		o.paused++
		o.look()
		o.mu.Unlock()
		select {
		case <-time.After(retryPause * time.Duration(failures)):
		case <-ctx.Done():
			return nil
		}
		o.mu.Lock()
		o.paused--
		o.mu.Unlock()
	}
}

// left returns how many requests it takes to bring what nobody is asked for yet.
// REQUIRES: mu.
func (o *fetching) left() int {
	cells := 0
	for i := o.written; i < len(o.stripes); i++ {
		s := &o.stripes[i]
		cells += max(0, o.c.K-len(s.cells)-bits.OnesCount64(s.asked))
	}
	return (cells + fetchCells - 1) / fetchCells
}

// took notes how long a member took to answer.
func (f *Fetcher) took(m identity.PeerID, d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.latency == nil {
		f.latency = make(map[identity.PeerID]time.Duration)
	}
	if known, ok := f.latency[m]; ok {
		d = known + (d-known)/4
	}
	f.latency[m] = d
}

// latencies returns how long a member takes to answer, and the fastest one; 0: not
// known.
func (f *Fetcher) latencies(m identity.PeerID) (own, fastest time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	own = f.latency[m]
	fastest = own
	for other, d := range f.latency {
		if f.out[other] == nil {
			fastest = min(fastest, d)
		}
	}
	return own, fastest
}

// release takes back what a member was asked for. REQUIRES: mu.
func (o *fetching) release(t task) {
	for j := range t.count {
		o.stripes[t.first+j].asked &^= 1 << t.shard
	}
}

// fetch brings the cells of a task and checks them.
func (o *fetching) fetch(ctx context.Context, m identity.PeerID, t task) error {
	hashes, err := o.hashesOf(ctx, m, t.shard)
	if err != nil {
		return err
	}
	b, err := o.ask(ctx, m, t)
	if err != nil {
		return err
	}
	for j := range t.count {
		size := o.c.CellSize(t.first + j)
		if len(b) < size {
			return fmt.Errorf("shard %d, stripe %d: %w", t.shard, t.first+j, errCell)
		}
		cell := b[:size:size]
		b = b[size:]
		if log.Sum(cell) != log.Digest(hashes[(t.first+j)*hashSize:]) {
			return fmt.Errorf("shard %d, stripe %d: %w", t.shard, t.first+j, errCell)
		}
		o.mu.Lock()
		if s := &o.stripes[t.first+j]; t.first+j >= o.written && s.cells[t.shard] == nil {
			if s.cells == nil {
				s.cells = make(map[int][]byte, o.c.K)
			}
			s.cells[t.shard] = cell
		}
		o.mu.Unlock()
	}
	return nil
}

// hashesOf returns the checked hashes of a shard, from the first member that is
// asked for cells of it.
func (o *fetching) hashesOf(ctx context.Context, m identity.PeerID, shard int) ([]byte, error) {
	o.mu.Lock()
	hashes := o.hashes[shard]
	o.mu.Unlock()
	if hashes != nil {
		return hashes, nil
	}
	hashes, err := o.ask(ctx, m, task{shard: shard})
	if err != nil {
		return nil, err
	}
	if len(hashes) != hashSize*len(o.stripes) || log.Sum(hashes) != o.c.Shards[shard] {
		return nil, fmt.Errorf("shard %d: %w", shard, errHashes)
	}
	o.mu.Lock()
	o.hashes[shard] = hashes
	o.mu.Unlock()
	return hashes, nil
}

func (o *fetching) ask(ctx context.Context, m identity.PeerID, t task) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	r := o.r
	r.Shard, r.First, r.Count = t.shard, t.first, t.count
	b, err := o.f.Peers.Fetch(ctx, m, r)
	o.f.mu.Lock()
	if o.f.sent == nil {
		o.f.sent = make(map[identity.PeerID]uint64)
	}
	o.f.sent[m] += uint64(len(b))
	o.f.mu.Unlock()
	return b, err
}

// Bytes is Object into memory.
func (f *Fetcher) Bytes(ctx context.Context, c *Coding, r Request) ([]byte, error) {
	var b bytes.Buffer
	b.Grow(int(c.Size))
	err := f.Object(ctx, c, r, &b)
	return slices.Clip(b.Bytes()), err
}
