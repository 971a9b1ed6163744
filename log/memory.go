package log

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
)

// Memory is a group's log kept in memory by one process: the model of what an
// engine does. It writes the real format, chains real digests and refuses what
// an engine refuses; it lacks the replicas, the disk, and the batching, so each
// Append is a commit of its own. Tests of everything that reads or writes logs
// run on it, and an engine is tested by comparing itself with it.
//
// It is safe for concurrent use.
type Memory struct {
	group identity.ID

	mu struct {
		sync.Mutex
		views   *Views
		closed  bool
		now     func() time.Time
		head    Head
		commits [][]byte                     // encoded; commits[i] is commit i+1; never changed once here
		keys    map[identity.ID][]memoryPart // per key, by seq; nothing is ever removed
		changed chan struct{}                // closed, and replaced, by every commit and by Close
	}
}

// memoryPart is where one run of a key stands.
type memoryPart struct {
	first  uint64 // seq of its first record
	count  int
	commit uint64
	time   int64
	offset int // in the commit's body
}

func (p memoryPart) last() uint64 { return p.first + uint64(p.count) - 1 }

// NewMemory returns the empty log of the group, with the built-in machines and
// those given. Its commits carry the time of the system's clock. Two machines of
// one signature are a bug, and panic.
func NewMemory(group identity.ID, machines ...Machine) *Memory {
	m := &Memory{group: group}
	views, err := NewViews(machines...)
	if err != nil {
		panic(err) // invariant: signatures are the program's own, and distinct
	}
	m.mu.views = views
	m.mu.now = time.Now
	m.mu.keys = map[identity.ID][]memoryPart{}
	m.mu.changed = make(chan struct{})
	return m
}

// SetClock replaces the clock that commits take their time from. Should it run
// backwards, the commits keep the time of the last one.
func (m *Memory) SetClock(now func() time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.now = now
}

// ID returns the group.
func (m *Memory) ID() identity.ID { return m.group }

// Head returns the newest commit; the zero Head if there is none. It works on a
// closed Memory too.
func (m *Memory) Head() Head {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.head
}

// Close ends all following scans with ErrClosed, which every later call returns
// too.
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.closed {
		return ErrClosed
	}
	m.mu.closed = true
	close(m.mu.changed)
	return nil
}

// Append implements Writer.
func (m *Memory) Append(ctx context.Context, key identity.ID, payloads ...[]byte) (Pointer, error) {
	return m.AppendAsync(ctx, key, payloads...).Result()
}

// AppendAsync implements Writer. The Future it returns has its outcome already.
func (m *Memory) AppendAsync(ctx context.Context, key identity.ID, payloads ...[]byte) *Future {
	f := NewFuture()
	err := CheckAppend(key, payloads)
	if err == nil {
		err = ctx.Err()
	}
	if err == nil && key == DirectoryKey() {
		for _, p := range payloads {
			_, bad := m.mu.views.fold.CheckRegistration(p) // no lock: it reads what never changes
			err = errors.Join(err, bad)
		}
	}
	if err != nil {
		f.Complete(Pointer{}, err)
		return f
	}
	pointers, results, err := m.commitRuns([]memoryRun{{key, payloads}})
	if err != nil {
		f.Complete(Pointer{}, err)
		return f
	}
	f.CompleteWith(pointers[0], results[0], nil)
	return f
}

// Submit implements GroupStore.
func (m *Memory) Submit(ctx context.Context, t *Transaction) (Outcome, error) {
	if err := t.Validate(); err != nil {
		return Outcome{}, err
	}
	if err := ctx.Err(); err != nil {
		return Outcome{}, err
	}
	runs := []memoryRun{{GuardKey(), [][]byte{t.AppendGuard(nil)}}}
	for i, c := range t.Commands {
		if i > 0 && t.Commands[i-1].Key == c.Key {
			last := &runs[len(runs)-1]
			last.payloads = append(last.payloads, c.Payload)
			continue
		}
		runs = append(runs, memoryRun{c.Key, [][]byte{c.Payload}})
	}
	pointers, results, err := m.commitRuns(runs)
	if err != nil {
		return Outcome{}, err
	}
	return OutcomeOf(pointers[0], slices.Concat(results...))
}

// memoryRun is a run that is to be committed.
type memoryRun struct {
	key      identity.ID
	payloads [][]byte
}

// commitRuns makes one commit of the runs and returns, for each, the pointer at
// its first record and the results of its commands.
func (m *Memory) commitRuns(runs []memoryRun) (pointers []Pointer, results [][][]byte, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.closed {
		return nil, nil, ErrClosed
	}
	header := Header{
		Version: HeaderVersion,
		Group:   m.group,
		Number:  m.mu.head.Number + 1,
		Time:    max(unixNano(m.mu.now()), m.mu.head.Time),
		Prev:    m.mu.head.Digest,
	}
	var body []byte
	for _, r := range runs {
		part := memoryPart{first: m.lastSeq(r.key) + 1, count: len(r.payloads), commit: header.Number, time: header.Time, offset: len(body)}
		var records []byte
		for _, p := range r.payloads {
			records = AppendRecord(records, p)
		}
		body = AppendRun(body, r.key, part.first, part.count, records)
		m.mu.keys[r.key] = append(m.mu.keys[r.key], part)
		pointers = append(pointers, Pointer{Group: m.group, Commit: header.Number, Key: r.key, Seq: part.first})
		header.Records += uint32(part.count)
	}
	header.Body = Sum(body)
	if results, err = m.mu.views.foldBody(header.Number, header.Time, body, m.mu.views.rows.add); err != nil {
		return nil, nil, err
	}
	header.State = m.mu.views.State()
	commit := Commit{Header: header, Body: body, Digest: header.Digest()}
	for i := range pointers {
		pointers[i].Digest = commit.Digest
	}
	m.mu.head = Head{Number: header.Number, Digest: commit.Digest, Time: header.Time}
	m.mu.commits = append(m.mu.commits, commit.AppendTo(nil))
	close(m.mu.changed)
	m.mu.changed = make(chan struct{})
	return pointers, results, nil
}

// Commit returns commit n, or ErrNotFound. Its body must not be changed and
// stays good for ever.
func (m *Memory) Commit(n uint64) (Commit, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.closed {
		return Commit{}, ErrClosed
	}
	return m.commit(n)
}

// Commits yields the commits numbered from to to, both included; to 0 means the
// head at the moment the loop starts. Where the range leaves the log it ends
// with ErrNotFound. Bodies are as good as those of Commit.
func (m *Memory) Commits(ctx context.Context, from, to uint64) iter.Seq2[Commit, error] {
	return func(yield func(Commit, error) bool) {
		m.mu.Lock()
		closed, last := m.mu.closed, m.mu.head.Number
		m.mu.Unlock()
		if closed {
			yield(Commit{}, ErrClosed)
			return
		}
		if to != 0 {
			last = to
		}
		for n := from; n <= last; n++ {
			c, err := m.Commit(n)
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				yield(Commit{}, err)
				return
			}
			if !yield(c, nil) {
				return
			}
		}
	}
}

// Scan implements Scanner.
func (m *Memory) Scan(ctx context.Context, q Query) iter.Seq2[Run, error] {
	return func(yield func(Run, error) bool) {
		q := q // start narrows it, and every range starts anew
		next, err := m.start(&q)
		for err == nil {
			if err = ctx.Err(); err != nil {
				break
			}
			if q.Until != 0 && next > q.Until {
				return
			}
			var run Run
			var changed chan struct{}
			run, changed, err = m.runFrom(q.Key, next)
			if err != nil {
				break
			}
			if changed != nil {
				if !q.Follow {
					return
				}
				select {
				case <-changed:
				case <-ctx.Done():
				}
				continue
			}
			if q.Filter.Ends(&run) {
				return
			}
			wanted, some := q.Clip(run, next)
			next = run.LastSeq() + 1
			if some && !yield(wanted, nil) {
				return
			}
		}
		yield(Run{}, err)
	}
}

// start validates the query, resolves its position to the seq to start from,
// and for a scan that does not follow sets q.Until to the end of the log.
func (m *Memory) start(q *Query) (next uint64, err error) {
	if err := q.Validate(); err != nil {
		return 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.closed {
		return 0, ErrClosed
	}
	last := m.lastSeq(q.Key)
	if next, err = m.resolve(q.Key, q.From, last); err != nil {
		return 0, err
	}
	if !q.Follow {
		switch {
		case last == 0:
			next, q.Until = 2, 1 // nothing: 0 would mean no limit
		case q.Until == 0 || q.Until > last:
			q.Until = last
		}
	}
	return next, nil
}

// resolve returns the seq that the position stands for. REQUIRES: mu.
func (m *Memory) resolve(key identity.ID, from Position, last uint64) (uint64, error) {
	parts := m.mu.keys[key]
	first := func(i int) uint64 {
		if i == len(parts) {
			return last + 1
		}
		return parts[i].first
	}
	switch from.Kind() {
	case AtLatest:
		return last + 1, nil
	case AtSeq:
		return from.Seq(), nil
	case AtTime:
		return first(sort.Search(len(parts), func(i int) bool { return parts[i].time >= from.Time() })), nil
	case AtPointer:
		p := from.Pointer()
		if p.Group != m.group {
			return 0, p.Check(&Commit{Header: Header{Group: m.group}})
		}
		c, err := m.commit(p.Commit)
		if err != nil {
			return 0, err
		}
		if err := p.Check(&c); err != nil {
			return 0, err
		}
		if p.Seq != 0 {
			return p.Seq, nil
		}
		fallthrough
	case AtCommit:
		return first(sort.Search(len(parts), func(i int) bool { return parts[i].commit >= from.Commit() })), nil
	}
	return 1, nil
}

// runFrom returns the run of the key that holds seq, or the first behind it. If
// there is none yet it returns the channel that closes when that may change.
func (m *Memory) runFrom(key identity.ID, seq uint64) (Run, chan struct{}, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.closed {
		return Run{}, nil, ErrClosed
	}
	parts := m.mu.keys[key]
	i, _ := slices.BinarySearchFunc(parts, seq, func(p memoryPart, seq uint64) int {
		if p.last() < seq {
			return -1
		}
		return 1
	})
	if i == len(parts) {
		return Run{}, m.mu.changed, nil
	}
	c, err := m.commit(parts[i].commit)
	if err != nil {
		return Run{}, nil, err
	}
	run, err := c.RunAt(parts[i].offset)
	return run, nil, err
}

// commit decodes commit n. REQUIRES: mu.
func (m *Memory) commit(n uint64) (Commit, error) {
	if n == 0 || n > m.mu.head.Number {
		return Commit{}, fmt.Errorf("%w: commit %d of group %s, which has %d", ErrNotFound, n, m.group.Short(), m.mu.head.Number)
	}
	return DecodeCommit(m.mu.commits[n-1])
}

// lastSeq returns the seq of the key's newest record, 0 if it has none.
// REQUIRES: mu.
func (m *Memory) lastSeq(key identity.ID) uint64 {
	parts := m.mu.keys[key]
	if len(parts) == 0 {
		return 0
	}
	return parts[len(parts)-1].last()
}
