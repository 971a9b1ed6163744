package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/mosaik-engine/mosaik/engine"
	"github.com/mosaik-engine/mosaik/engine/cluster"
	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

// subjectMosaik is who all the others are compared with.
const subjectMosaik = "mosaik"

// patience bounds what should take seconds: elections, closing, catching up.
const patience = 2 * time.Minute

// nodes is mosaik as a target: one node, or several in this process. Appends
// are made at the node that leads the key's group, as a client would that wants
// to spare itself a hop.
type nodes struct {
	engines []*engine.Engine
	keys    []identity.ID
	home    []*engine.Engine // by key: the leader's node
	group   []*engine.Group  // the groups, on their leaders' nodes
	close   func() error
}

var _ target = (*nodes)(nil)

// nodeOptions say what nodes to open.
type nodeOptions struct {
	dir       string
	replicas  int
	groups    int
	keys      int
	transport string
}

// keyName names the log of the key with the given number.
func keyName(i int) string { return "bench/" + strconv.Itoa(i) }

// openNodes opens a new or an existing set of nodes and waits for its leaders.
func openNodes(ctx context.Context, o nodeOptions) (*nodes, error) {
	n := &nodes{}
	options := &engine.Options{Spread: o.groups}
	if o.replicas == 1 {
		e, err := engine.Open(o.dir, options)
		if err != nil {
			return nil, err
		}
		n.engines, n.close = []*engine.Engine{e}, e.Close
	} else {
		c, err := openCluster(o, options)
		if err != nil {
			return nil, err
		}
		n.engines, n.close = c.Running(), c.Close
	}
	if err := n.settle(ctx, o.keys); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

// openCluster opens several nodes.
func openCluster(o nodeOptions, options *engine.Options) (*cluster.Cluster, error) {
	co := cluster.Options{Nodes: o.replicas, Dir: o.dir, Engine: options}
	if o.transport == TCP {
		ports, err := freePorts(o.replicas)
		if err != nil {
			return nil, err
		}
		co.Configure = func(_ int, eo *engine.Options) {
			eo.Transport = nil
			eo.Addresses = make(map[identity.PeerID]string)
			for j, m := range eo.Members {
				eo.Addresses[m] = ports[j]
			}
		}
	}
	return cluster.Open(co)
}

// freePorts returns addresses on loopback at which nobody listens. Somebody may
// begin to before the caller does; opening fails then.
func freePorts(n int) ([]string, error) {
	var listeners []net.Listener
	var ports []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		listeners = append(listeners, l)
		ports = append(ports, l.Addr().String())
	}
	var err error
	for _, l := range listeners {
		err = errors.Join(err, l.Close())
	}
	return ports, err
}

// settle waits until every group has a leader that all nodes know, and finds
// out where each key's is.
func (n *nodes) settle(ctx context.Context, keys int) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for _, e := range n.engines {
		if err := e.Ready(ctx); err != nil {
			return fmt.Errorf("mosaik: bench: wait for the nodes: %w", err)
		}
	}
	leaders := make(map[identity.ID]*engine.Engine)
	for i := range n.engines[0].Groups() {
		for leaders[n.engines[0].Groups()[i].ID()] == nil {
			for _, e := range n.engines {
				g := e.Groups()[i]
				if s := g.Status(); s.Leader == s.Self && !s.Leader.IsZero() {
					leaders[g.ID()] = e
					n.group = append(n.group, g)
					break
				}
			}
			if err := pause(ctx, time.Millisecond); err != nil {
				return fmt.Errorf("mosaik: bench: wait for leaders: %w", err)
			}
		}
	}
	n.keys, n.home = make([]identity.ID, keys), make([]*engine.Engine, keys)
	for i := range n.keys {
		n.keys[i] = identity.NewID(keyName(i))
		n.home[i] = leaders[n.engines[0].GroupFor(n.keys[i]).ID()]
	}
	return nil
}

func (n *nodes) append(ctx context.Context, key int, payloads payloads) ticket {
	return ticket{future: n.home[key].AppendAsync(ctx, n.keys[key], payloads...)}
}

// records returns how many records the logs have, those of the engine's own left out:
// it seals segments while others append.
func (n *nodes) records() int {
	total := 0
	for _, g := range n.group {
		for _, k := range g.Keys() {
			if engine.SystemName(k.Key) == "" {
				total += int(k.Records)
			}
		}
	}
	return total
}

func (n *nodes) counters() counters {
	c := counters{nodes: len(n.engines)}
	for i, e := range n.engines {
		m := e.Metrics()
		for _, g := range m.Groups {
			if i == 0 {
				c.commits += g.AppliedCommits
				c.records += g.AppliedRecords
			}
			c.retries += g.Retries
			c.updates += g.Updates
		}
		c.syncs += uint64(m.RaftLog.Syncs)
		c.syncTime += m.RaftLog.SyncTime
		c.logBytes += uint64(m.RaftLog.BytesWritten)
		c.movedBytes += uint64(m.RaftLog.BytesMoved)
		c.recycled += uint64(m.RaftLog.FilesRecycled)
		c.flushes += m.Store.Flushes
		c.flushedBytes += m.Store.FlushedBytes
		c.compactions += m.Store.Compactions
		c.compactedBytes += m.Store.CompactedBytes
	}
	return c
}

// Close implements target.
func (n *nodes) Close() error { return n.close() }

// pause waits for d, or for the end of ctx, whose error it returns.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// fill puts a load on the nodes and checks that their log has grown by exactly
// what was acknowledged.
func (n *nodes) fill(ctx context.Context, l load) (Sample, error) {
	before := n.records()
	s, err := l.run(ctx, n, 0)
	if err != nil {
		return s, err
	}
	if got := n.records() - before; got != s.Records {
		return s, fmt.Errorf("mosaik: bench: %d records were acknowledged, the log has %d", s.Records, got)
	}
	return s, nil
}

// reader returns a typed reader of the key's log, without a codec's cost: the
// value is a copy of the payload.
func reader(s log.Scanner, key int) (*log.StreamReader[[]byte], error) {
	return log.StreamDef[[]byte]{Name: keyName(key), Codec: log.Raw()}.Reader(s)
}
