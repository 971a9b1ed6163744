package catalog

import (
	"context"
	"iter"
	"sync"
)

// maxEvents bounds the events that wait for one who watches.
const maxEvents = 4096

// watcher is somebody who watches.
type watcher struct {
	mu     sync.Mutex
	events []Event
	lost   bool // more came than maxEvents
	ended  bool
	wake   chan struct{} // one token
}

// Watch yields what happens to peers, beginning with one PeerDiscovered for each that is
// there, until ctx ends or the catalog is closed. A watcher that lets more than 4,096
// events wait misses some: then it gets one PeerDiscovered for each that is there anew,
// after an Event of kind 0.
func (c *Catalog) Watch(ctx context.Context) iter.Seq[Event] {
	return func(yield func(Event) bool) {
		w := &watcher{wake: make(chan struct{}, 1)}
		c.mu.Lock()
		closed := c.mu.closed
		if !closed {
			c.mu.watchers[w] = struct{}{}
			w.add(c.presentLocked())
		}
		c.mu.Unlock()
		if closed {
			return
		}
		defer func() {
			c.mu.Lock()
			delete(c.mu.watchers, w)
			c.mu.Unlock()
		}()
		for {
			w.mu.Lock()
			events, lost, ended := w.events, w.lost, w.ended
			w.events, w.lost = nil, false
			w.mu.Unlock()
			if lost {
				c.mu.Lock()
				events = append([]Event{{}}, c.presentLocked()...)
				w.mu.Lock()
				w.events = nil // they are in what is present
				w.mu.Unlock()
				c.mu.Unlock()
			}
			for _, ev := range events {
				if !yield(ev) {
					return
				}
			}
			if ended {
				return
			}
			if len(events) > 0 {
				continue
			}
			select {
			case <-w.wake:
			case <-ctx.Done():
				return
			}
		}
	}
}

// presentLocked returns an event for each peer that is there. REQUIRES: mu.
func (c *Catalog) presentLocked() (events []Event) {
	for _, k := range c.mu.gossip.peers {
		if k.present() {
			events = append(events, Event{Kind: PeerDiscovered, Entry: k.entry})
		}
	}
	return events
}

// add hands events to the watcher. It does not wait.
func (w *watcher) add(events []Event) {
	if len(events) == 0 {
		return
	}
	w.mu.Lock()
	if w.lost || len(w.events) > maxEvents {
		w.events, w.lost = nil, true
	} else {
		w.events = append(w.events, events...)
	}
	w.mu.Unlock()
	w.signal()
}

func (w *watcher) end() {
	w.mu.Lock()
	w.ended = true
	w.mu.Unlock()
	w.signal()
}

func (w *watcher) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}
