package remote

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/network"
)

// GroupOptions say how a group of other nodes is used. The zero value of every field but
// the first two means its default.
type GroupOptions struct {
	// Replicas are nodes that have the group. Find, if not nil, returns more of them, such
	// as those whose entries name it; it is asked again each second in which the group is
	// used, and must not block.
	Replicas []identity.PeerID
	Find     func() []identity.PeerID
	// Allow, if not nil, says whether a replica may be asked; its entry is what it says of
	// itself, and is empty if it says nothing. It must not block.
	Allow func(*identity.PeerEntry) bool
	// Clause is what the entry of a replica has to fulfil. Nil: nothing.
	Clause identity.Clause
	// MaxRTT is how long a message to a replica and its answer may take. Default: any time.
	MaxRTT time.Duration
	// Window is how many bytes of an answer a replica may send before they are taken:
	// MinWindow to MaxWindow, by default DefaultWindow. As much waits here, at most, for
	// each answer that is being read.
	Window int
	// BackoffMin and BackoffMax bound the pause of a tail before the replicas are tried
	// again, when none has anything (defaults 50 ms and 2 s). It doubles each time, and each
	// is drawn from half to one and a half of that.
	BackoffMin, BackoffMax time.Duration
}

func (o GroupOptions) withDefaults() (GroupOptions, error) {
	o.Window = cmp.Or(o.Window, DefaultWindow)
	o.BackoffMin, o.BackoffMax = cmp.Or(o.BackoffMin, 50*time.Millisecond), cmp.Or(o.BackoffMax, 2*time.Second)
	switch {
	case o.Window < MinWindow || o.Window > MaxWindow:
		return o, fmt.Errorf("mosaik: remote: GroupOptions.Window is %d bytes, it must be %d to %d", o.Window, MinWindow, MaxWindow)
	case o.BackoffMin < 0 || o.BackoffMax < o.BackoffMin || o.MaxRTT < 0:
		return o, fmt.Errorf("mosaik: remote: GroupOptions: BackoffMin %v, BackoffMax %v, MaxRTT %v: none may be negative, nor BackoffMax below BackoffMin", o.BackoffMin, o.BackoffMax, o.MaxRTT)
	}
	o.Replicas = slices.Clone(o.Replicas)
	return o, nil
}

// Group is a group that this node is no member of: a log.GroupStore over its replicas.
// What package log has over stores works on it as on an engine's group. It holds no
// resource, so there is nothing to close.
//
// Reads and writes keep to one replica for as long as it answers. Whichever it is, a read
// reflects every commit that this handle has seen before: that it was told of as
// the pointer of a write, as the head of an answer, or as a record. A replica that has not
// got so far waits for a moment, and then another is asked. Log reads, and Stale ones of
// views, need no more than that; Sync, and Linearizable ones, need a majority of the group.
//
// A read is tried at each replica once. One that follows a log goes on trying for as long
// as its context lasts, exactly behind what it has yielded: no record is left out or
// comes twice. It ends when every replica refuses, and with network.TooSlow when it falls
// behind farther than the replica allows.
//
// A write is sent once. If no answer comes its outcome is unknown, and the error says so:
// ErrUnknown. It is sent to another replica only after one has said that it has not
// written anything.
type Group struct {
	s    *Service
	id   identity.ID
	opts GroupOptions

	writing atomic.Int64  // writes under way
	turn    chan struct{} // one token, for who sends a write: they leave in the order of the calls
	writer  *dialled      // of who has the token: where writes go; nil: nowhere yet

	mu struct {
		sync.Mutex
		order []identity.PeerID // replicas, the one to ask first
		found []identity.PeerID // by GroupOptions.Find
		asked time.Time         // when it was
		floor log.Pointer       // the newest commit that was seen
	}
}

var _ log.GroupStore = (*Group)(nil)

// Group returns a handle on a group of other nodes. It asks nobody yet.
func (s *Service) Group(id identity.ID, o GroupOptions) (*Group, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Group{s: s, id: id, opts: o, turn: make(chan struct{}, 1)}, nil
}

// ID returns the group's id.
func (g *Group) ID() identity.ID { return g.id }

// Home implements log.Store.
func (g *Group) Home(identity.ID) log.GroupStore { return g }

// findPause is how often GroupOptions.Find is asked while any replica is known.
const findPause = time.Second

// replicas returns the replicas in the order in which they are to be asked.
func (g *Group) replicas() []identity.PeerID {
	g.mu.Lock()
	defer g.mu.Unlock()
	if now := time.Now(); g.opts.Find != nil && (len(g.mu.order) == 0 || now.Sub(g.mu.asked) >= findPause) {
		g.mu.found, g.mu.asked = g.opts.Find(), now
	}
	known := append(slices.Clone(g.opts.Replicas), g.mu.found...)
	g.mu.order = slices.DeleteFunc(g.mu.order, func(p identity.PeerID) bool { return !slices.Contains(known, p) })
	for _, p := range known {
		if !slices.Contains(g.mu.order, p) && p != g.s.e.Peer() {
			g.mu.order = slices.Insert(g.mu.order, rand.IntN(len(g.mu.order)+1), p)
		}
	}
	return slices.Clone(g.mu.order)
}

// avoid has a replica asked after the others.
func (g *Group) avoid(p identity.PeerID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if i := slices.Index(g.mu.order, p); i >= 0 {
		g.mu.order = append(slices.Delete(g.mu.order, i, i+1), p)
	}
}

// seen notes a commit that reads have to reflect from now on.
func (g *Group) seen(commit uint64, digest log.Digest) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if commit > g.mu.floor.Commit {
		g.mu.floor = log.Pointer{Group: g.id, Commit: commit, Digest: digest}
	}
}

// request returns a request with the floor as it is.
func (g *Group) request(o op, key identity.ID) *request {
	g.mu.Lock()
	defer g.mu.Unlock()
	return &request{op: o, group: g.id, key: key, floor: g.mu.floor}
}

// reach returns a connection with a replica that may be asked.
func (g *Group) reach(ctx context.Context, p identity.PeerID) (*dialled, error) {
	d, err := g.s.connect(ctx, p)
	if err != nil {
		return nil, err
	}
	e := entryOf(p, d.link.conn.Entry())
	if g.opts.Allow != nil && !g.opts.Allow(e) {
		return nil, fmt.Errorf("%w: replica %s is not eligible here", network.NotAllowed, p.Short())
	}
	if g.opts.Clause != nil {
		if _, err := g.opts.Clause.Admit(e, time.Now()); err != nil {
			return nil, fmt.Errorf("replica %s: %w", p.Short(), err)
		}
	}
	if err := d.link.within(ctx, g.opts.MaxRTT); err != nil {
		return nil, fmt.Errorf("replica %s: %w", p.Short(), err)
	}
	return d, nil
}

// errStop has read end without an error.
var errStop = errors.New("stop")

// read asks one replica after the other until one has answered to the end. take takes each
// item; it reports whether another replica would have to go on from a later place than
// before, and errStop has read end. forever: who asks waits for as long as it takes, but
// not for replicas that refuse.
func (g *Group) read(ctx context.Context, forever bool, request func() *request, take func(itemKind, []byte) (progress bool, err error)) error {
	pause := g.opts.BackoffMin
	for {
		var errs []error
		progressed, refusals := false, 0
		for _, p := range g.replicas() {
			progress, err := g.readFrom(ctx, p, request(), take)
			switch {
			case err == nil || err == errStop:
				return nil
			case ctx.Err() != nil:
				return ctx.Err()
			case errors.Is(err, network.ErrClosed):
				return err
			case errors.Is(err, ErrAnswer) || final(err):
				return err
			}
			g.avoid(p)
			if progressed = progress; progressed {
				break
			}
			errs = append(errs, err)
			if refused(err) {
				refusals++
			}
		}
		switch {
		case progressed:
			pause = g.opts.BackoffMin
			continue
		case len(errs) == 0:
			errs = append(errs, fmt.Errorf("%w: group %s", ErrNoReplica, g.id.Short()))
		}
		if !forever || refusals == len(errs) {
			return errors.Join(errs...)
		}
		t := time.NewTimer(pause/2 + rand.N(pause+1))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		case <-g.s.ctx.Done():
			t.Stop()
			return network.ErrClosed
		}
		pause = min(2*pause, g.opts.BackoffMax)
	}
}

// readFrom asks one replica.
func (g *Group) readFrom(ctx context.Context, p identity.PeerID, r *request, take func(itemKind, []byte) (bool, error)) (progress bool, err error) {
	d, err := g.reach(ctx, p)
	if err != nil {
		return false, err
	}
	c, _, err := d.ask(ctx, r, g.opts.Window)
	if err != nil {
		return false, err
	}
	reason := network.Done
	defer func() { c.close(reason) }()
	entry := d.link.conn.Entry()
	for {
		kind, content, err := c.next(ctx)
		if err == io.EOF {
			return progress, nil
		}
		if err != nil {
			return progress, err
		}
		if now := d.link.conn.Entry(); now != entry { // it may have laid a ticket down
			if _, err := g.reach(ctx, p); err != nil {
				reason = network.NotAllowed
				return progress, err
			}
			entry = now
		}
		more, err := take(kind, content)
		if progress = progress || more; more && kind == itemRun {
			if run, _, err := log.NextRun(content[runPrefix:], 0); err == nil { // take has looked at it
				c.records.Add(uint64(run.Count))
			}
		}
		if errors.Is(err, errItem) {
			reason = Failed
			return progress, fmt.Errorf("%w: %w", ErrAnswer, err)
		}
		if err != nil {
			return progress, err
		}
	}
}

// started takes the first item of an answer.
func (g *Group) started(kind itemKind, content []byte) (start, error) {
	s, err := decodeStart(content)
	if err != nil || kind != itemStart {
		return s, errItem
	}
	g.seen(s.head.Number, s.head.Digest)
	return s, nil
}

// Sync returns the newest commit of the group, once a replica has everything that was
// acknowledged anywhere before the call. Reads of this handle reflect it from then on.
func (g *Group) Sync(ctx context.Context) (head log.Head, err error) {
	err = g.read(ctx, false, func() *request { return g.request(opSync, identity.ID{}) }, func(kind itemKind, content []byte) (bool, error) {
		s, err := g.started(kind, content)
		head = s.head
		return false, err
	})
	if err != nil {
		return log.Head{}, fmt.Errorf("sync group %s: %w", g.id.Short(), err)
	}
	return head, nil
}

// WaitFor implements log.Store.
func (g *Group) WaitFor(ctx context.Context, p log.Pointer) error {
	if p.Group != g.id {
		return fmt.Errorf("%w: group: it points into %s, this is %s", log.ErrPointer, p.Group.Short(), g.id.Short())
	}
	request := func() *request {
		r := g.request(opWait, identity.ID{})
		r.pointer = p
		return r
	}
	err := g.read(ctx, true, request, func(kind itemKind, content []byte) (bool, error) {
		_, err := g.started(kind, content)
		return false, err
	})
	if err == nil {
		g.seen(p.Commit, p.Digest)
	}
	return err
}

// Scan implements log.Scanner.
func (g *Group) Scan(ctx context.Context, q log.Query) iter.Seq2[log.Run, error] {
	return func(yield func(log.Run, error) bool) {
		if err := q.Validate(); err != nil {
			yield(log.Run{}, err)
			return
		}
		s := scan{g: g, q: q, yield: yield}
		if err := g.read(ctx, q.Follow, s.request, s.take); err != nil {
			yield(log.Run{}, err)
		}
	}
}

// scan is a Scan while it is ranged over.
type scan struct {
	g       *Group
	q       log.Query // of what is still to come
	yield   func(log.Run, error) bool
	started bool // the present answer has begun
}

func (s *scan) request() *request {
	s.started = false
	r := s.g.request(opScan, s.q.Key)
	r.query = s.q
	return r
}

// take takes an item. What it yields lies where it must: behind what was yielded, and
// without a gap if nothing is filtered out.
func (s *scan) take(kind itemKind, content []byte) (progress bool, err error) {
	if !s.started {
		s.started = true
		begun, err := s.g.started(kind, content)
		if err != nil {
			return false, err
		}
		if begun.from != 0 {
			s.q.From = log.Seq(begun.from)
		}
		if !s.q.Follow {
			if begun.until == 0 {
				return false, errStop
			}
			s.q.Until = begun.until
		}
		return false, nil
	}
	run, err := decodeRun(s.g.id, content)
	if err != nil || kind != itemRun || run.Key != s.q.Key || s.q.Until != 0 && run.LastSeq() > s.q.Until {
		return false, errItem
	}
	if s.q.From.Kind() == log.AtSeq {
		from := s.q.From.Seq()
		thinned := s.q.Filter.Every > 1 || !s.q.Filter.Since.IsZero()
		if run.FirstSeq < from || run.FirstSeq > from && !thinned {
			return false, fmt.Errorf("%w: it goes on at seq %d, not at %d", ErrAnswer, run.FirstSeq, from)
		}
	}
	s.g.seen(run.Commit, run.Digest)
	s.q.From = log.Seq(run.LastSeq() + 1)
	if !s.yield(run, nil) || s.q.Until != 0 && run.LastSeq() == s.q.Until {
		return true, errStop
	}
	return true, nil
}

// View implements log.Store. A replica is asked once for the commit, and then for rows as
// of it.
func (g *Group) View(ctx context.Context, key identity.ID, c log.Consistency) (log.View, error) {
	v := &view{ctx: ctx, g: g, key: key}
	err := v.rows(c, log.Range{From: []byte{0}, To: []byte{0}}, func(log.Row, error) bool { return false })
	if err != nil {
		return nil, err
	}
	return v, nil
}

// view is a view as of one commit, of which every row is asked for when it is read.
type view struct {
	ctx    context.Context
	g      *Group
	key    identity.ID
	commit uint64
}

// Commit implements log.View.
func (v *view) Commit() uint64 { return v.commit }

// Get implements log.View.
func (v *view) Get(key []byte) (log.Row, bool, error) {
	next := append(slices.Clone(key), 0) // the next key there can be
	for row, err := range v.Scan(log.Range{From: key, To: next}) {
		return row, err == nil, err
	}
	return log.Row{}, false, nil
}

// Scan implements log.View.
func (v *view) Scan(r log.Range) iter.Seq2[log.Row, error] {
	return func(yield func(log.Row, error) bool) {
		if v.commit == 0 {
			return // before the first commit there is nothing
		}
		if err := v.rows(log.AsOf(v.commit), r, yield); err != nil {
			yield(log.Row{}, err)
		}
	}
}

// rows yields the rows of a range, and learns the commit that they are as of.
func (v *view) rows(c log.Consistency, rows log.Range, yield func(log.Row, error) bool) error {
	if len(rows.From) > maxBound || len(rows.To) > maxBound {
		return fmt.Errorf("%w: a range of rows with a bound above %d bytes, the largest key has %d", log.ErrQuery, maxBound, log.MaxRowKey)
	}
	started := false
	request := func() *request {
		started = false
		r := v.g.request(opRows, v.key)
		r.consistency, r.rows = c, rows
		return r
	}
	return v.g.read(v.ctx, false, request, func(kind itemKind, content []byte) (bool, error) {
		if !started {
			started = true
			s, err := v.g.started(kind, content)
			if err != nil {
				return false, err
			}
			v.commit = s.commit
			c = log.AsOf(s.commit)
			return false, nil
		}
		row, err := decodeRow(slices.Clone(content)) // it may be kept
		if err != nil || kind != itemRow {
			return false, errItem
		}
		if rows.Reverse {
			rows.To = row.Key
		} else {
			rows.From = append(slices.Clone(row.Key), 0)
		}
		if !yield(row, nil) || rows.Reverse && len(row.Key) == 0 {
			return true, errStop
		}
		return true, nil
	})
}

// Changes implements log.Store.
func (g *Group) Changes(ctx context.Context, key identity.ID, after uint64, follow bool) iter.Seq2[log.Changes, error] {
	return func(yield func(log.Changes, error) bool) {
		c := changes{g: g, key: key, after: after, follow: follow, yield: yield}
		if err := g.read(ctx, follow, c.request, c.take); err != nil {
			yield(log.Changes{}, fmt.Errorf("changes of key %s: %w", key.Short(), err))
		}
	}
}

// changes is a Changes while it is ranged over.
type changes struct {
	g       *Group
	key     identity.ID
	after   uint64 // what was yielded
	follow  bool
	yield   func(log.Changes, error) bool
	started bool        // the present answer has begun
	change  log.Changes // that is being put together
	rows    int         // of it that are still to come
}

func (c *changes) request() *request {
	c.started, c.rows = false, 0
	r := c.g.request(opChanges, c.key)
	r.after, r.follow = c.after, c.follow
	return r
}

func (c *changes) take(kind itemKind, content []byte) (progress bool, err error) {
	switch {
	case !c.started:
		c.started = true
		_, err := c.g.started(kind, content)
		return false, err
	case c.rows == 0:
		c.change, c.rows, err = decodeChange(c.g.id, content)
		if err != nil || kind != itemChange || c.change.Pointer.Commit <= c.after {
			return false, errItem
		}
	default:
		row, err := decodeRowWas(content)
		if err != nil || kind != itemRowWas {
			return false, errItem
		}
		c.change.Rows = append(c.change.Rows, row)
		c.rows--
	}
	if c.rows > 0 {
		return false, nil
	}
	c.after = c.change.Pointer.Commit
	c.g.seen(c.after, c.change.Pointer.Digest)
	if !c.yield(c.change, nil) {
		return true, errStop
	}
	return true, nil
}

// Online returns when the condition holds for the consumers that follow the key at all of
// the replicas that answer. Consumers may leave at any time, also before Online has
// returned.
func (g *Group) Online(ctx context.Context, key identity.ID, when OnlineWhen) error {
	if len(when.Tags) > maxTags {
		return fmt.Errorf("%w: %d tags, at most %d are possible", log.ErrQuery, len(when.Tags), maxTags)
	}
	for {
		online := make(map[identity.PeerID]struct{})
		var errs []error
		replicas := g.replicas()
		for _, p := range replicas {
			r := g.request(opConsumers, key)
			r.tags = when.Tags
			_, err := g.readFrom(ctx, p, r, func(kind itemKind, content []byte) (bool, error) {
				peers, err := decodePeers(content)
				if err != nil || kind != itemPeers {
					return false, errItem
				}
				for _, p := range peers {
					online[p] = struct{}{}
				}
				return false, nil
			})
			if err != nil {
				errs = append(errs, err)
			}
		}
		if len(online) >= when.Consumers {
			return nil
		}
		if len(errs) == len(replicas) && !slices.ContainsFunc(errs, func(err error) bool { return !refused(err) }) {
			return errors.Join(append(errs, fmt.Errorf("%w: %d of %d consumers", ErrNoReplica, len(online), when.Consumers))...)
		}
		t := time.NewTimer(onlinePause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		case <-g.s.ctx.Done():
			t.Stop()
			return network.ErrClosed
		}
	}
}

// onlinePause is how often replicas are asked about their consumers.
const onlinePause = 100 * time.Millisecond
