package remote

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/network"
)

// This file is what the side that serves does for each request.
//
// While a consumer makes an answer wait, nothing is held for it, neither of the store nor
// in memory: a loop over records, rows or changes ends at the first that the credit does
// not cover, and begins again with that one when it does.

// resultTimeout is how long who has written may take for each of the results, which are
// held for it.
const resultTimeout = 10 * time.Second

// begin finds the group and asks the policy.
func (c *channel) begin() error {
	if c.source = c.sv.s.opts.Groups(c.r.group); c.source == nil {
		return fmt.Errorf("%w: this node has no group %s", network.UnknownGroup, c.r.group.Short())
	}
	rule, err := c.admit(time.Now())
	if err != nil {
		return err
	}
	return c.sv.link.within(c.ctx, rule.MaxRTT)
}

// answer answers a request to read.
func (c *channel) answer() error {
	if err := c.begin(); err != nil {
		return err
	}
	if c.r.follows() {
		if err := c.sv.s.follow(c); err != nil {
			return err
		}
		defer c.sv.s.unfollow(c)
	}
	if err := c.reflect(); err != nil {
		return err
	}
	switch c.r.op {
	case opScan:
		return c.scan()
	case opRows:
		return c.rows()
	case opChanges:
		return c.changes()
	case opConsumers:
		c.out = appendPeers(c.out, c.sv.s.consumers(place{c.r.group, c.r.key}, c.r.tags))
		return c.send()
	case opSync:
		if _, err := c.source.Sync(c.ctx); err != nil {
			return err
		}
	case opWait:
		if err := c.source.WaitFor(c.ctx, c.r.pointer); err != nil {
			return err
		}
	}
	return c.start(start{})
}

// reflect waits until the floor is here, and checks that it is the same commit.
func (c *channel) reflect() error {
	if c.r.floor.Commit == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(c.ctx, floorTimeout)
	defer cancel()
	err := c.source.WaitFor(ctx, c.r.floor)
	if ctx.Err() != nil && c.ctx.Err() == nil {
		return fmt.Errorf("%w: commit %d is not here yet", Behind, c.r.floor.Commit)
	}
	return err
}

// start sends the first item of an answer.
func (c *channel) start(s start) error {
	s.head = c.source.Head()
	c.out = s.appendTo(c.out)
	return c.send()
}

// scan sends the records that a query asks for.
func (c *channel) scan() error {
	q := c.r.query
	info, _ := c.source.Key(q.Key)
	s := start{}
	switch latest := q.From.Kind() == log.AtLatest; {
	case q.Follow && latest:
		s.from = info.Records + 1
		q.From = log.Seq(s.from)
		c.reached(info.Records)
	case !q.Follow && (latest || info.Records == 0):
		return c.start(s)
	case !q.Follow:
		if q.Until == 0 || q.Until > info.Records {
			q.Until = info.Records
		}
		s.until = q.Until
	}
	if err := c.start(s); err != nil {
		return err
	}
	filter := q.Filter
	q.Filter = log.Filter{} // applied here, to know how far the scan has come
	for {
		need, err := c.scanOn(&q, &filter)
		if err != nil || need == 0 {
			return err
		}
		if err := c.await(need); err != nil {
			return err
		}
	}
}

// scanOn sends records and moves the query behind them, until the consumer makes it
// wait: then it returns how many bytes the next record needs. 0 is the end.
func (c *channel) scanOn(q *log.Query, filter *log.Filter) (need int, err error) {
	for run, err := range c.source.Scan(c.ctx, *q) {
		if err != nil {
			return 0, err
		}
		if filter.Ends(&run) {
			return 0, nil
		}
		if !filter.Skips(&run) {
			part := run
			c.out = appendRun(c.out[:0], &part)
			if credit := c.covered(); len(c.out) > credit {
				if part, need = firstOf(&run, credit); part.Count == 0 {
					c.out = c.out[:0]
					return need, nil
				}
				c.out = appendRun(c.out[:0], &part)
			}
			if err := c.send(); err != nil {
				return 0, err
			}
			c.records.Add(uint64(part.Count))
			run = part
		}
		c.reached(run.LastSeq())
		q.From = log.Seq(run.LastSeq() + 1)
		if need > 0 {
			return need, nil
		}
	}
	return 0, nil
}

// runOverhead is what a run's item has beside its records.
const runOverhead = itemHeader + runPrefix + log.RunHeaderSize

// firstOf returns the records of a run that fit into so many bytes, as a run whose Count
// is 0 if none does, and how many the next record needs.
func firstOf(run *log.Run, bytes int) (part log.Run, need int) {
	size, last := runOverhead, uint64(0)
	for seq, payload := range run.Records() {
		record := len(binary.AppendUvarint(nil, uint64(len(payload)))) + len(payload)
		if size += record; size > bytes {
			need = runOverhead + record
			break
		}
		last = seq
	}
	if last == 0 {
		return log.Run{}, need
	}
	upTo := log.Query{Until: last}
	part, _ = upTo.Clip(*run, run.FirstSeq) // it holds last, so something is left
	return part, need
}

// reached notes how far a scan has come.
func (c *channel) reached(seq uint64) {
	c.seq.Store(seq)
	if info, _ := c.source.Key(c.r.key); info.Records <= seq {
		c.caught.Store(true)
	}
}

// rows sends the rows of a range of a view.
func (c *channel) rows() error {
	view, err := c.source.View(c.ctx, c.r.key, c.r.consistency)
	if err != nil {
		return err
	}
	if err := c.start(start{commit: view.Commit()}); err != nil {
		return err
	}
	rows := c.r.rows
	for {
		need, err := c.rowsOn(view, &rows)
		if err != nil {
			return err
		}
		if err := c.send(); err != nil || need == 0 {
			return err
		}
		if err := c.await(need); err != nil {
			return err
		}
	}
}

// rowsOn sends rows and cuts the range to what follows them, until the consumer makes it
// wait: then it returns how many bytes the next row needs. Some may be left to be sent.
// 0 is the end.
func (c *channel) rowsOn(view log.View, rows *log.Range) (need int, err error) {
	for row, err := range view.Scan(*rows) {
		if err == nil {
			err = c.ctx.Err()
		}
		if err != nil {
			return 0, err
		}
		before := len(c.out)
		c.out = appendRow(c.out, &row)
		if len(c.out) > c.covered() {
			need = len(c.out) - before
			c.out = c.out[:before]
			return need, nil
		}
		if rows.Reverse {
			if rows.To = slices.Clone(row.Key); len(rows.To) == 0 {
				return 0, nil // there is no key before the empty one
			}
		} else {
			rows.From = append(slices.Clone(row.Key), 0)
		}
		if len(c.out) >= maxData {
			if err := c.send(); err != nil {
				return 0, err
			}
		}
	}
	return 0, nil
}

// changes sends what commits did to a view.
func (c *channel) changes() error {
	if err := c.start(start{}); err != nil {
		return err
	}
	next := changesFrom{after: c.r.after}
	for {
		need, err := c.changesOn(&next)
		if err != nil || need == 0 {
			return err
		}
		if err := c.await(need); err != nil {
			return err
		}
	}
}

// changesFrom is how far changes were sent: those of commit after, and of the next one
// that changed the view its first so many items.
type changesFrom struct {
	after uint64
	items int
}

// changesOn sends changes until the consumer makes it wait: then it returns how many
// bytes the next item needs. 0 is the end.
func (c *channel) changesOn(next *changesFrom) (need int, err error) {
	for change, err := range c.source.Changes(c.ctx, c.r.key, next.after, c.r.follow) {
		if err != nil {
			return 0, err
		}
		for ; next.items <= len(change.Rows); next.items++ {
			if next.items == 0 {
				c.out = appendChange(c.out[:0], &change)
			} else {
				c.out = appendRowWas(c.out[:0], &change.Rows[next.items-1])
			}
			if need = len(c.out); need > c.covered() {
				c.out = c.out[:0]
				return need, nil
			}
			if err := c.send(); err != nil {
				return 0, err
			}
		}
		*next = changesFrom{after: change.Pointer.Commit}
	}
	return 0, nil
}

// join hands a request to write to its group, which takes appends in the order of the
// calls. It returns a nil future for a transaction, which written submits.
func (c *channel) join() (*log.Future, error) {
	if err := c.begin(); err != nil {
		return nil, err
	}
	if err := c.ctx.Err(); err != nil {
		return nil, err
	}
	if c.r.op == opSubmit {
		return nil, nil
	}
	return c.source.AppendAsync(c.ctx, c.r.key, c.r.payloads...), nil
}

// written waits for the outcome of a write and sends it.
func (c *channel) written(f *log.Future) error {
	var w written
	var results [][]byte
	if f == nil {
		o, err := c.source.Submit(c.ctx, &c.r.transaction)
		if err != nil {
			return err
		}
		w, results = written{pointer: o.Pointer, held: o.Held, failed: o.Failed}, o.Results
	} else {
		p, err := f.Wait(c.ctx)
		if err != nil {
			return err
		}
		if results, err = f.Results(); err != nil {
			return err
		}
		w = written{pointer: p, held: true}
	}
	w.results = len(results)
	c.out = w.appendTo(c.out)
	for _, result := range results {
		if err := c.makeRoom(itemHeader + len(result)); err != nil {
			return err
		}
		c.out = appendResult(c.out, result)
	}
	return c.send()
}

// makeRoom sends results that have been put together if an item of so many bytes does
// not go with them.
func (c *channel) makeRoom(size int) error {
	if all := len(c.out) + size; all <= maxData && all <= c.covered() {
		return nil
	}
	if err := c.send(); err != nil || size <= c.covered() {
		return err
	}
	late := time.AfterFunc(resultTimeout, func() {
		c.cancel(fmt.Errorf("%w: it was written, but its results were not taken", ErrUnknown))
	})
	defer late.Stop()
	return c.await(size)
}
