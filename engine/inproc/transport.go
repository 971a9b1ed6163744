package inproc

import (
	"context"
	"fmt"
	"sync"

	"github.com/lni/dragonboat/v4/raftio"
)

// transportName is what the host logs and reports.
const transportName = "mosaik-inproc"

// transport is one incarnation of a host on the network. It starts once and
// closes once; a restarted host gets a new one from the same factory.
type transport struct {
	net         *Network
	address     string
	hostAddress string // the RaftAddress of the host's config
	messages    raftio.MessageHandler
	chunks      raftio.ChunkHandler

	done chan struct{} // closed by Close

	mu struct {
		sync.Mutex
		started, closed bool
	}
	// calls counts what may be inside a handler: delivery goroutines and senders
	// of chunks. It grows only under mu while the transport is open, so that
	// Close, which has set closed before it waits, misses nobody.
	calls sync.WaitGroup
}

// Name returns the name of this kind of transport.
func (t *transport) Name() string { return transportName }

// Start listens at the address. It fails with ErrAddress when another host does
// already, and with ErrClosed after Close.
func (t *transport) Start() error {
	if !validAddress(t.address) || t.hostAddress != t.address {
		return fmt.Errorf("%w: host %q on the transport of %q", ErrAddress, t.hostAddress, t.address)
	}
	t.net.mu.Lock()
	defer t.net.mu.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mu.closed {
		return ErrClosed
	}
	if _, taken := t.net.mu.listening[t.address]; taken {
		return fmt.Errorf("%w: %q is taken", ErrAddress, t.address)
	}
	t.mu.started = true
	t.net.mu.listening[t.address] = t
	return nil
}

// Close stops listening, breaks every connection to and from this transport and
// returns when no handler of it runs any more. What is queued for it is lost, as
// with a process that ends. Closing twice is allowed.
func (t *transport) Close() error {
	t.net.mu.Lock()
	t.mu.Lock()
	if !t.mu.closed {
		t.mu.closed = true
		close(t.done)
	}
	if t.net.mu.listening[t.address] == t {
		delete(t.net.mu.listening, t.address)
	}
	t.mu.Unlock()
	t.net.mu.Unlock()
	t.calls.Wait()
	return nil
}

// GetConnection connects to the host at target for messages. It fails with
// ErrRefused when none listens there.
func (t *transport) GetConnection(ctx context.Context, target string) (raftio.IConnection, error) {
	to, err := t.dial(ctx, target)
	if err != nil {
		return nil, err
	}
	c := newConn(t, to)
	if !to.enter() {
		return nil, ErrRefused
	}
	go c.runDelivery()
	return c, nil
}

// GetSnapshotConnection connects to the host at target for snapshot chunks. It
// fails with ErrRefused when none listens there.
func (t *transport) GetSnapshotConnection(ctx context.Context, target string) (raftio.ISnapshotConnection, error) {
	to, err := t.dial(ctx, target)
	if err != nil {
		return nil, err
	}
	return newSnapshotConn(t, to), nil
}

// dial finds the transport at target, provided that this one is running.
func (t *transport) dial(ctx context.Context, target string) (*transport, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	t.mu.Lock()
	running := t.mu.started && !t.mu.closed
	t.mu.Unlock()
	if !running {
		return nil, ErrClosed
	}
	return t.net.listener(target)
}

// enter registers a caller of handlers, unless the transport is closed. The
// caller ends with t.calls.Done.
func (t *transport) enter() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mu.closed {
		return false
	}
	t.calls.Add(1)
	return true
}
