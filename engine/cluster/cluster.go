// Package cluster runs several nodes of one group set in one process, over an
// in-process network: for the demo, for benchmarks, and for tests and
// simulations that stop, restart and cut off nodes.
//
// Nodes are numbered from 0. A stopped node keeps its directory and can be
// started again; the others do not notice more than they would of a real one.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"

	"github.com/mosaik-engine/mosaik/engine"
	"github.com/mosaik-engine/mosaik/engine/inproc"
	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/snapshot"
)

// Options say what cluster to open.
type Options struct {
	// Nodes is the number of nodes, at least 1.
	Nodes int
	// Dir is the parent of the nodes' directories node1, node2, ...
	Dir string
	// Engine is the template of every node's options; nil means defaults. Peer,
	// Members and Transport are filled in.
	Engine *engine.Options
	// Configure, if not nil, may change the options of node i before each start,
	// for example to give it a file system of its own.
	Configure func(i int, o *engine.Options)
	// Network carries the messages. Default: a new one without faults.
	Network *inproc.Network
}

// Cluster is a set of nodes. Its methods may be called from any goroutine.
type Cluster struct {
	opts Options

	founders []identity.PeerID

	mu    sync.Mutex
	peers []identity.PeerID // of the nodes: the founders at first, and who has joined
	nodes []*engine.Engine  // nil where stopped
}

// Open starts all nodes. It returns when they are open; elections follow.
func Open(opts Options) (*Cluster, error) {
	if opts.Nodes < 1 || opts.Nodes > engine.MaxMembers {
		return nil, fmt.Errorf("mosaik: cluster of %d nodes, 1 to %d are possible", opts.Nodes, engine.MaxMembers)
	}
	if opts.Network == nil {
		opts.Network = inproc.New(inproc.Options{})
	}
	c := &Cluster{opts: opts}
	for range opts.Nodes {
		c.founders = append(c.founders, c.Peer(c.name()))
	}
	for i := range opts.Nodes {
		if err := c.Start(i); err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	return c, nil
}

// name names another node, which is stopped, and returns its number.
func (c *Cluster) name() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	// Nodes of one process need no secret: their names only have to differ.
	c.peers = append(c.peers, identity.PeerID(identity.NewID(fmt.Sprintf("mosaik.cluster.node.%d", len(c.peers)+1))))
	c.nodes = append(c.nodes, nil)
	return len(c.nodes) - 1
}

// Peer returns the name of node i.
func (c *Cluster) Peer(i int) identity.PeerID {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.peers[i]
}

// Dir returns the directory of node i.
func (c *Cluster) Dir(i int) string {
	return filepath.Join(c.opts.Dir, fmt.Sprintf("node%d", i+1))
}

// Nodes returns the number of nodes, running or not.
func (c *Cluster) Nodes() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.nodes)
}

// Network returns the network between the nodes.
func (c *Cluster) Network() *inproc.Network { return c.opts.Network }

// Address returns the network address of node i, as Network.Partition wants it.
func (c *Cluster) Address(i int) string { return c.Peer(i).String() }

// Node returns node i, or nil while it is stopped.
func (c *Cluster) Node(i int) *engine.Engine {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.nodes[i]
}

// Running returns the nodes that are not stopped.
func (c *Cluster) Running() []*engine.Engine {
	c.mu.Lock()
	defer c.mu.Unlock()
	var running []*engine.Engine
	for _, n := range c.nodes {
		if n != nil {
			running = append(running, n)
		}
	}
	return running
}

// Start starts node i, which must be stopped.
func (c *Cluster) Start(i int) error { return c.start(i, nil) }

// Rejoin starts node i, which must be stopped, as one that has lost its disk
// (engine.Options.Rejoin): its directory must be gone.
func (c *Cluster) Rejoin(i int) error {
	return c.start(i, func(ctx context.Context, groups []identity.ID) (*engine.Readmission, error) {
		err := engine.ErrNoQuorum
		for j := range c.Nodes() {
			n := c.Node(j)
			if n == nil || !c.opts.Network.Reaches(c.Address(i), c.Address(j)) {
				continue
			}
			var r *engine.Readmission
			if r, err = n.Readmit(ctx, c.Peer(i), groups); err == nil {
				return r, nil
			}
		}
		return nil, err
	})
}

// Join has a node let a new one in, and starts that. It returns the new one's number,
// also with an error: Rejoin tries again then.
func (c *Cluster) Join(ctx context.Context, by int, v log.Verdict) (i int, err error) {
	i = c.name()
	if _, err := c.Node(by).Admit(ctx, c.Peer(i), v); err != nil {
		return i, err
	}
	return i, c.Rejoin(i)
}

// Replace has a node take another one out for good, which must be stopped, and let a new one in
// that has its number here from then on and is started: the directory must be gone. When it
// fails it may be called again, unless Peer says that the new one has the number: then it
// is Rejoin that is tried again.
func (c *Cluster) Replace(ctx context.Context, i, by int) error {
	n, old := c.Node(by), c.Peer(i)
	if err := n.Evict(ctx, old); err != nil && !errors.Is(err, log.ErrMembership) { // it may be out already
		return err
	}
	next := identity.PeerID(identity.ID(old).Derive("the next one")) // the same each time
	if _, err := n.Admit(ctx, next, log.Verdict{}); err != nil {
		return err
	}
	c.mu.Lock()
	c.peers[i] = next
	c.mu.Unlock()
	return c.Rejoin(i)
}

func (c *Cluster) start(i int, rejoin func(context.Context, []identity.ID) (*engine.Readmission, error)) error {
	if c.Node(i) != nil {
		return fmt.Errorf("mosaik: node %d is running", i+1)
	}
	var o engine.Options
	if c.opts.Engine != nil {
		o = *c.opts.Engine
	}
	o.Peer, o.Members = c.Peer(i), c.founders
	o.Transport = c.opts.Network.Transport(o.Peer.String())
	o.Peers = peers{c, i}
	o.Rejoin = rejoin
	if c.opts.Configure != nil {
		c.opts.Configure(i, &o)
	}
	n, err := engine.Open(c.Dir(i), &o)
	if err != nil {
		return fmt.Errorf("node %d: %w", i+1, err)
	}
	c.mu.Lock() // not before: the others are asked for what the node lacks
	defer c.mu.Unlock()
	c.nodes[i] = n
	return nil
}

// Stop closes node i, which must be running.
func (c *Cluster) Stop(i int) error {
	c.mu.Lock()
	n := c.nodes[i]
	c.nodes[i] = nil
	c.mu.Unlock()
	if n == nil {
		return fmt.Errorf("mosaik: node %d is not running", i+1)
	}
	return n.Close()
}

// Ready waits until every running node is ready (engine.Engine.Ready).
func (c *Cluster) Ready(ctx context.Context) error {
	for _, n := range c.Running() {
		if err := n.Ready(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Close closes the running nodes, all at once: each one that is left behind
// would wait for a quorum that is going away.
func (c *Cluster) Close() error {
	running := c.Running()
	c.mu.Lock()
	clear(c.nodes)
	c.mu.Unlock()
	errs := make([]error, len(running))
	var wg sync.WaitGroup
	for i, n := range running {
		wg.Add(1)
		go runClose(n, &errs[i], &wg)
	}
	wg.Wait()
	return errors.Join(errs...)
}

// peers carries requests for shards from one node to the others, where the
// network lets them.
type peers struct {
	c    *Cluster
	from int
}

// Fetch implements snapshot.Peers.
func (p peers) Fetch(ctx context.Context, peer identity.PeerID, r snapshot.Request) ([]byte, error) {
	for i := range p.c.Nodes() {
		if p.c.Peer(i) != peer {
			continue
		}
		n := p.c.Node(i)
		if n == nil || !p.c.opts.Network.Reaches(p.c.Address(p.from), p.c.Address(i)) {
			return nil, fmt.Errorf("node %d does not answer", i+1)
		}
		return n.ServeShard(ctx, r)
	}
	return nil, fmt.Errorf("%s is no node", peer.Short())
}

func runClose(n *engine.Engine, err *error, wg *sync.WaitGroup) {
	defer wg.Done()
	*err = n.Close()
}
