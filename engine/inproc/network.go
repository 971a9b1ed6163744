package inproc

import (
	"errors"
	"hash/fnv"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"

	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/raftio"
)

// Errors of this package; use errors.Is.
var (
	// ErrRefused: nobody listens at the target address.
	ErrRefused = errors.New("mosaik: connection refused")
	// ErrClosed: one end of the connection has been closed.
	ErrClosed = errors.New("mosaik: connection closed")
	// ErrBusy: the target did not make room within Options.SendTimeout.
	ErrBusy = errors.New("mosaik: target is too slow")
	// ErrLost: a fault or a partition took a snapshot chunk.
	ErrLost = errors.New("mosaik: snapshot chunk lost")
	// ErrRejected: the target refused a snapshot chunk.
	ErrRejected = errors.New("mosaik: snapshot chunk rejected")
	// ErrAddress: a host cannot listen at its address, because the address is
	// malformed, taken, or not the one the factory was made for.
	ErrAddress = errors.New("mosaik: unusable address")
)

// Options are the parameters of a Network. The zero value is ready to use.
type Options struct {
	// Seed fixes the decisions of Fault.
	Seed int64
	// QueueBatches bounds the batches under way on one connection (default 1024).
	// With faults every message counts as a batch.
	QueueBatches int
	// QueueBytes bounds the bytes under way on one connection (default 64 MiB).
	// A batch larger than that passes when it is alone.
	QueueBytes int
	// SendTimeout bounds how long a send waits for room in a full queue before
	// it fails with ErrBusy (default 5 s, that of the Raft library's own TCP).
	SendTimeout time.Duration
}

// Fault is what the wire does to each message. Probabilities are in [0, 1]. The
// zero value is a wire without faults.
type Fault struct {
	// Drop is the probability that a message is lost.
	Drop float64
	// DelayMin and DelayMax bound the delay of a message, uniform between them.
	// Delay alone keeps the order of a connection.
	DelayMin, DelayMax time.Duration
	// Reorder is the probability that a message is held back, by a second delay
	// or by 5 ms where that is longer. Later messages overtake it.
	Reorder float64
	// Duplicate is the probability that a message arrives twice. A forwarded
	// proposal does not: no transport of the Raft library repeats one, and a
	// repeated one is a second proposal, not a repeated message.
	Duplicate float64
}

// Stats counts what a Network has done since New. With faults it lets a test
// make sure that they happened.
type Stats struct {
	Batches    uint64 // handed to a handler
	Messages   uint64 // handed to a handler
	Chunks     uint64 // snapshot chunks accepted by a handler
	Dropped    uint64 // messages lost by Fault.Drop
	Cut        uint64 // messages lost to a partition
	Duplicated uint64
	Reordered  uint64
}

// Network connects the hosts of one process. Its methods may be called from
// anywhere at any time.
type Network struct {
	opts Options

	// rules is what the wire does now, nil when it is perfect. A *rules is never
	// changed after it was stored.
	rules atomic.Pointer[rules]

	mu struct {
		sync.Mutex
		listening map[string]*transport
		opened    map[link]uint64 // connections a link has had
	}

	stats struct {
		batches, messages, chunks, dropped, cut, duplicated, reordered atomic.Uint64
	}
}

// link is one direction between two addresses.
type link struct{ from, to string }

// rules is one state of the wire. Two addresses reach each other when neither is
// isolated and both are in the same group of the partition.
type rules struct {
	fault    Fault
	group    map[string]int // nil without a partition; unlisted addresses are in group 0
	isolated map[string]bool
}

// New returns a network without hosts and without faults.
func New(opts Options) *Network {
	if opts.QueueBatches <= 0 {
		opts.QueueBatches = 1024
	}
	if opts.QueueBytes <= 0 {
		opts.QueueBytes = 64 << 20
	}
	if opts.SendTimeout <= 0 {
		opts.SendTimeout = 5 * time.Second
	}
	n := &Network{opts: opts}
	n.mu.listening = make(map[string]*transport)
	n.mu.opened = make(map[link]uint64)
	return n
}

// Transport returns the factory for the host at address, which must also be the
// host's RaftAddress. One factory serves all incarnations of the host: after one
// has been closed the next may start at the same address.
func (n *Network) Transport(address string) config.TransportFactory {
	return &factory{net: n, address: address}
}

// SetFault replaces the faults of the whole network. Partitions stay.
func (n *Network) SetFault(f Fault) {
	n.changeRules(func(r *rules) { r.fault = f })
}

// Partition splits the network: addresses of different groups no longer reach
// each other. Addresses in no group form one more group. A second call replaces
// the first; isolated addresses stay isolated. After Partition has returned no
// message of before crosses either, apart from one being handled right now.
func (n *Network) Partition(groups ...[]string) {
	group := make(map[string]int)
	for i, addresses := range groups {
		for _, address := range addresses {
			group[address] = i + 1
		}
	}
	n.changeRules(func(r *rules) { r.group = group })
}

// Isolate cuts address off from all others, in both directions.
func (n *Network) Isolate(address string) {
	n.changeRules(func(r *rules) {
		isolated := map[string]bool{address: true}
		for a := range r.isolated {
			isolated[a] = true
		}
		r.isolated = isolated
	})
}

// Reaches reports whether what is sent from one address to the other arrives, as
// far as partitions and isolations go.
func (n *Network) Reaches(from, to string) bool { return !n.rules.Load().cut(from, to) }

// Heal ends the partition and every isolation. Faults stay.
func (n *Network) Heal() {
	n.changeRules(func(r *rules) { r.group, r.isolated = nil, nil })
}

// Stats returns the counters. They are read one by one, not as one instant.
func (n *Network) Stats() Stats {
	return Stats{
		Batches:    n.stats.batches.Load(),
		Messages:   n.stats.messages.Load(),
		Chunks:     n.stats.chunks.Load(),
		Dropped:    n.stats.dropped.Load(),
		Cut:        n.stats.cut.Load(),
		Duplicated: n.stats.duplicated.Load(),
		Reordered:  n.stats.reordered.Load(),
	}
}

// changeRules stores a changed copy of the rules, or nil when the copy says
// nothing, which puts every connection back on the fast path.
func (n *Network) changeRules(change func(*rules)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	var next rules
	if now := n.rules.Load(); now != nil {
		next = *now
	}
	change(&next)
	if next.fault == (Fault{}) && next.group == nil && next.isolated == nil {
		n.rules.Store(nil)
		return
	}
	n.rules.Store(&next)
}

// cut reports whether nothing passes from one address to the other.
func (r *rules) cut(from, to string) bool {
	if r == nil || from == to {
		return false
	}
	return r.isolated[from] || r.isolated[to] || r.group[from] != r.group[to]
}

// generator returns the random numbers of the next connection from -> to.
func (n *Network) generator(from, to string) *rand.Rand {
	l := link{from, to}
	n.mu.Lock()
	ordinal := n.mu.opened[l]
	n.mu.opened[l]++
	n.mu.Unlock()
	h := fnv.New64a()
	h.Write([]byte(from))
	h.Write([]byte{0}) // no address holds a zero byte, so the pair is unambiguous
	h.Write([]byte(to))
	return rand.New(rand.NewPCG(uint64(n.opts.Seed)^h.Sum64(), ordinal))
}

// listener returns the transport that listens at address.
func (n *Network) listener(address string) (*transport, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	t, ok := n.mu.listening[address]
	if !ok {
		return nil, ErrRefused
	}
	return t, nil
}

// factory makes the transports of one address.
type factory struct {
	net     *Network
	address string
}

// Create returns a transport that is not listening yet.
func (f *factory) Create(host config.NodeHostConfig,
	messages raftio.MessageHandler, chunks raftio.ChunkHandler) raftio.ITransport {
	return &transport{
		net:         f.net,
		address:     f.address,
		hostAddress: host.RaftAddress,
		messages:    messages,
		chunks:      chunks,
		done:        make(chan struct{}),
	}
}

// Validate accepts every address that is not empty and has no spaces or control
// characters in it.
func (f *factory) Validate(address string) bool { return validAddress(address) }

func validAddress(address string) bool {
	return address != "" && !strings.ContainsFunc(address, func(r rune) bool {
		return unicode.IsSpace(r) || unicode.IsControl(r)
	})
}
