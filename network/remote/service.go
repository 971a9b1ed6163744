package remote

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/mosaik-engine/mosaik/engine"
	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/network"
)

// Limits of windows: how many bytes of an answer may be on their way, or wait for who asked.
const (
	// MinWindow is the smallest GroupOptions.Window: everything that cannot be cut fits
	// into it, of which a changed row, with two values, is the largest.
	MinWindow = 2 << 20
	// MaxWindow is the largest, and what a replica has ever to keep count of.
	MaxWindow = 64 << 20
	// DefaultWindow is the one of GroupOptions without.
	DefaultWindow = 4 << 20
)

// Limits of what one connection costs who serves.
const (
	// maxChannels bounds the channels of a connection.
	maxChannels = 1024
	// maxWriting bounds the bytes of writes that have not been taken by their group yet.
	maxWriting = 16 << 20
	// idle ends a connection without channels.
	idle = time.Minute
	// floorTimeout is how long a replica waits for a commit that an answer has to
	// reflect; then another may be asked.
	floorTimeout = 2 * time.Second
)

// Source is a group that is served. An engine's group is one.
type Source interface {
	log.GroupStore

	// Head returns the newest commit here.
	Head() log.Head
	// Sync returns the newest commit, once everything is here that was acknowledged
	// anywhere before the call.
	Sync(ctx context.Context) (log.Head, error)
	// Key describes a log as it is here, and says whether it has records.
	Key(key identity.ID) (engine.KeyInfo, bool)
}

var _ Source = (*engine.Group)(nil)

// Options say how a node takes part.
type Options struct {
	// Policy says who may do what with the groups of this node. Nil: nothing is served.
	Policy *Policy
	// Groups returns a group of this node, nil if it has none of that id; it may be called
	// from several goroutines at once. It is required with a Policy.
	Groups func(identity.ID) Source
	// Pulse is how often the distance of a peer is measured, and whether its channels may
	// go on is looked at. Default 1 s.
	Pulse time.Duration
}

// Service is a node's part in this protocol: it serves the groups that it has, if a policy
// says to whom, and gives handles on those it has not. Its methods may be called from any
// goroutine.
type Service struct {
	e       *network.Endpoint
	opts    Options
	stop    func()
	running sync.WaitGroup // but for what runs on the endpoint's goroutines
	ctx     context.Context
	cancel  context.CancelFunc
	served  tally
	asked   tally

	mu struct {
		sync.Mutex
		closed  bool
		clients map[identity.PeerID]*client
		serving map[*serving]struct{}
		tails   map[place]map[*channel]struct{} // consumers by what they follow
		changed chan struct{}                   // closed when tails changes; nil if nobody waits
	}
}

// place is a key in a group.
type place struct{ group, key identity.ID }

// Open begins to take part on an endpoint, whose Options.Authorize has to let connections
// of this Protocol pass (Policy.Authorize).
func Open(e *network.Endpoint, o Options) (*Service, error) {
	o.Pulse = cmp.Or(o.Pulse, time.Second)
	switch {
	case o.Pulse < 0:
		return nil, fmt.Errorf("mosaik: remote: Options.Pulse is %v, it must not be negative", o.Pulse)
	case o.Policy != nil && o.Groups == nil:
		return nil, fmt.Errorf("mosaik: remote: Options.Groups is required with a Policy")
	case o.Policy != nil && o.Policy.MaxConsumers < 0:
		return nil, fmt.Errorf("mosaik: remote: Policy.MaxConsumers is %d, it must not be negative", o.Policy.MaxConsumers)
	}
	s := &Service{e: e, opts: o}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.mu.clients = make(map[identity.PeerID]*client)
	s.mu.serving = make(map[*serving]struct{})
	s.mu.tails = make(map[place]map[*channel]struct{})
	p := network.Protocol{Name: Protocol, MaxMessage: maxMessage, Idle: idle}
	if o.Policy != nil {
		p.Serve = s.serveConn
	}
	var err error
	s.stop, err = e.Handle(p)
	return s, err
}

// Close ends every channel, with network.GoingAway for the other sides, and returns when
// nothing runs any more.
func (s *Service) Close() error {
	s.mu.Lock()
	s.mu.closed = true
	s.mu.Unlock()
	s.cancel()
	s.stop()
	s.running.Wait()
	return nil
}

// Metrics are what a service counts.
type Metrics struct {
	// Served counts how channels ended that others opened, Asked how those ended that
	// this node opened: by their reason, of which network.Done is the good one.
	Served, Asked map[network.Reason]uint64
}

// Metrics returns the counters since Open.
func (s *Service) Metrics() Metrics { return Metrics{Served: s.served.read(), Asked: s.asked.read()} }

// Channel describes an open channel at one of its sides.
type Channel struct {
	Peer    identity.PeerID // at the other side
	Serving bool            // the other side has opened it
	Op      string          // what for: "scan", "rows", "changes", "append", ...
	Follows bool            // it has no end: the side that has opened it is a consumer
	Group   identity.ID
	Key     identity.ID
	Since   time.Time // it was opened
	Records uint64    // of scans: that were sent, or came
	Bytes   uint64    // of the answer: that were sent, or came
	Credit  int       // bytes that may be sent before the consumer takes some
	// Lag is how many records the key has here that were not sent yet; of the side that
	// has opened it, 0.
	Lag uint64
	// RTT is how long a message and its answer take, the least of the last few; 0: it has
	// not been measured yet.
	RTT time.Duration
}

// Channels describes the channels that are open, the oldest first.
func (s *Service) Channels() []Channel {
	s.mu.Lock()
	var serving []*serving
	for c := range s.mu.serving {
		serving = append(serving, c)
	}
	var clients []*client
	for _, c := range s.mu.clients {
		clients = append(clients, c)
	}
	s.mu.Unlock()
	var all []Channel
	for _, c := range serving {
		all = append(all, c.describe()...)
	}
	for _, c := range clients {
		all = append(all, c.describe()...)
	}
	slices.SortFunc(all, func(a, b Channel) int { return a.Since.Compare(b.Since) })
	return all
}

// follow takes a place among the consumers of a key, which unfollow gives back.
func (s *Service) follow(c *channel) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := place{c.r.group, c.r.key}
	if limit := s.opts.Policy.MaxConsumers; limit > 0 && len(s.mu.tails[at]) >= limit {
		return fmt.Errorf("%w: %d consumers follow the key here, the limit is %d", NoCapacity, len(s.mu.tails[at]), limit)
	}
	if s.mu.tails[at] == nil {
		s.mu.tails[at] = make(map[*channel]struct{})
	}
	s.mu.tails[at][c] = struct{}{}
	s.changedLocked()
	return nil
}

func (s *Service) unfollow(c *channel) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := place{c.r.group, c.r.key}
	delete(s.mu.tails[at], c)
	if len(s.mu.tails[at]) == 0 {
		delete(s.mu.tails, at)
	}
	s.changedLocked()
}

// consumersChanged wakes who waits for consumers.
func (s *Service) consumersChanged() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changedLocked()
}

// changedLocked wakes who waits for consumers. REQUIRES: mu.
func (s *Service) changedLocked() {
	if s.mu.changed != nil {
		close(s.mu.changed)
		s.mu.changed = nil
	}
}

// start has a goroutine begin that Close waits for.
func (s *Service) start(begin func()) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.closed {
		return network.ErrClosed
	}
	s.running.Add(1)
	begin()
	return nil
}
