package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/mosaik-engine/mosaik/cmd/mosaik-node/internal/api"
	"github.com/mosaik-engine/mosaik/engine"
	"github.com/mosaik-engine/mosaik/engine/cluster"
	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/replay"
)

// demoGroup is the group of a demo as one of its nodes has it.
type demoGroup interface {
	replay.Source
	log.Scanner
	WaitFor(ctx context.Context, p log.Pointer) error
}

// demoNodes are the nodes of a demo, counted from 0: in this process (inProcess), or
// processes of their own (children).
type demoNodes interface {
	// Group returns the group of a node that runs.
	Group(i int) (demoGroup, error)
	// Writer returns what appends through a node.
	Writer(i int) log.Writer
	// Lead returns which node leads, as node i sees it, -1 if none, and the term.
	Lead(i int) (leader int, term uint64)
	// Stop stops a node; Start starts it again, and Rejoin without its directory.
	Stop(i int) error
	Start(ctx context.Context, i int) error
	Rejoin(ctx context.Context, i int) error
	// Synced returns what a node has fetched since it was started.
	Synced(i int) (segments uint64, sent []sentInfo)
	Dir(i int) string
	Ready(ctx context.Context) error
	Close() error
}

// leaderIn returns which of the members leads.
func leaderIn(members []identity.PeerID, leader identity.PeerID) int {
	return slices.Index(members, leader)
}

// inProcess is several nodes of this process.
type inProcess struct {
	*cluster.Cluster
	synced chan engine.SyncReport
}

func (p *inProcess) Group(i int) (demoGroup, error) { return p.Node(i).Groups()[0], nil }
func (p *inProcess) Writer(i int) log.Writer        { return p.Node(i) }
func (p *inProcess) Start(_ context.Context, i int) error {
	return p.Cluster.Start(i)
}
func (p *inProcess) Rejoin(_ context.Context, i int) error { return p.Cluster.Rejoin(i) }

func (p *inProcess) Lead(i int) (int, uint64) {
	s := p.Node(i).Groups()[0].Status()
	return leaderIn(s.Members, s.Leader), s.Term
}

func (p *inProcess) Synced(i int) (segments uint64, sent []sentInfo) {
	select {
	case r := <-p.synced:
		for n, m := range p.Node(i).Groups()[0].Status().Members {
			if bytes := r.Sent[m]; bytes > 0 {
				sent = append(sent, sentInfo{nodeName(n), bytes})
			}
		}
		return r.Fetched, sent
	default: // the Raft log was enough
		return 0, nil
	}
}

// children are nodes that are processes of their own, with keys and ports of their
// own, as they would be on machines of their own.
type children struct {
	program string
	dirs    []string
	args    [][]string // of serve and rebuild
	peers   []identity.PeerID
	running []*child // nil where stopped
	rebuilt []rebuiltInfo
}

// child is one process.
type child struct {
	cmd    *exec.Cmd
	client *api.Client
	writer *pipedWriter
	ended  chan struct{}
	said   lastLines
}

// lastLines keeps the last of what a process says, for when it fails.
type lastLines struct {
	mu    sync.Mutex
	lines []string
}

const keptLines = 20

func (l *lastLines) add(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, line)
	if len(l.lines) > keptLines {
		l.lines = l.lines[1:]
	}
}

func (l *lastLines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines, "\n")
}

// startChildren makes the keys and the configuration of n nodes and starts them.
func startChildren(ctx context.Context, dir string, n int) (*children, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &children{program: program, running: make([]*child, n), rebuilt: make([]rebuiltInfo, n)}
	var members, ports []string
	for i := range n {
		made, err := initNode(filepath.Join(dir, nodeName(i)), "demo", i == 0)
		if err != nil {
			return nil, err
		}
		// A port is free until it is taken; somebody else may be quicker, once in a long while.
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		ports = append(ports, l.Addr().String())
		c.dirs, c.peers = append(c.dirs, filepath.Join(dir, nodeName(i))), append(c.peers, made.Peer)
		members = append(members, made.Peer.String()+"@"+l.Addr().String())
		if err := l.Close(); err != nil {
			return nil, err
		}
	}
	// Keys and the secret lie beside the directories, so that these can be lost.
	secret := filepath.Join(dir, secretFile)
	if err := os.Rename(filepath.Join(c.dirs[0], secretFile), secret); err != nil {
		return nil, err
	}
	for i := range n {
		key := filepath.Join(dir, nodeName(i)+".key")
		if err := os.Rename(filepath.Join(c.dirs[i], keyFile), key); err != nil {
			return nil, err
		}
		c.args = append(c.args, []string{
			"--dir", c.dirs[i], "--network", "demo", "--key", key, "--secret-file", secret, "--members", strings.Join(members, ","), "--peer-listen", ports[i],
			"--segment-bytes", fmt.Sprint(demoSegmentBytes), "--raft-log-bytes", fmt.Sprint(demoRaftLogBytes),
		})
	}
	for i := range n {
		if err := c.Start(ctx, i); err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	return c, nil
}

// Start starts the process of a node and returns when it serves.
func (c *children) Start(ctx context.Context, i int) error {
	args := append([]string{"serve", "--listen", "127.0.0.1:0", "--admin", "", "--log-format", "json", "--propose-timeout", patience.String()}, c.args[i]...)
	p := &child{cmd: exec.Command(c.program, args...), ended: make(chan struct{})}
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := p.cmd.Start(); err != nil {
		return err
	}
	serving := make(chan string, 1)
	go p.runWatch(stderr, serving)
	select {
	case address := <-serving:
		if p.client, err = api.NewClient(address); err != nil {
			return err
		}
		store, err := p.client.Store("")
		if err != nil {
			return err
		}
		p.writer = newPipedWriter(store, p.client)
		c.running[i] = p
		return nil
	case <-p.ended:
		return fmt.Errorf("%s does not start:\n%s", nodeName(i), &p.said)
	case <-ctx.Done():
		p.kill()
		return ctx.Err()
	}
}

// runWatch reads what the process says until it ends.
func (p *child) runWatch(stderr io.Reader, serving chan<- string) {
	lines := bufio.NewScanner(stderr)
	for lines.Scan() {
		var line struct{ Msg, API string }
		if json.Unmarshal(lines.Bytes(), &line) == nil && line.Msg == "serving" {
			serving <- line.API
		}
		p.said.add(lines.Text())
	}
	_ = p.cmd.Wait() // it is killed, or has said why it ends
	close(p.ended)
}

// kill ends the process as a power cut would.
func (p *child) kill() {
	_ = p.cmd.Process.Kill() // perhaps it has ended
	<-p.ended
}

// Stop kills the process of a node.
func (c *children) Stop(i int) error {
	p := c.running[i]
	c.running[i] = nil
	p.kill()
	return p.client.Close()
}

// Rejoin has another process bring the node back from the others, and starts it.
func (c *children) Rejoin(ctx context.Context, i int) error {
	cmd := exec.CommandContext(ctx, c.program, append([]string{"node", "rebuild", "--json"}, c.args[i]...)...)
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err == nil {
		err = json.Unmarshal(out, &c.rebuilt[i])
	}
	if err != nil {
		return fmt.Errorf("rebuild %s: %w\n%s", nodeName(i), err, said.String())
	}
	return c.Start(ctx, i)
}

// Synced tells of a rebuild; what a process syncs by itself it does not tell.
func (c *children) Synced(i int) (segments uint64, sent []sentInfo) {
	for n, m := range c.peers {
		if bytes := c.rebuilt[i].Sent[m.String()]; bytes > 0 {
			sent = append(sent, sentInfo{nodeName(n), bytes})
		}
	}
	return c.rebuilt[i].Segments, sent
}

// remoteDemoGroup is the group of another process.
type remoteDemoGroup struct {
	replay.Source
	log.Store
}

func (c *children) Group(i int) (demoGroup, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	source, err := c.running[i].client.Source(ctx, defaultGroup)
	if err != nil {
		return nil, err
	}
	return remoteDemoGroup{source, c.running[i].writer.Store}, nil
}

func (c *children) Writer(i int) log.Writer { return c.running[i].writer }

func (c *children) Lead(i int) (int, uint64) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	groups, err := c.running[i].client.Groups(ctx)
	if err != nil || len(groups) == 0 || groups[0].Leader == nil {
		return -1, 0
	}
	return leaderIn(groups[0].Members, *groups[0].Leader), groups[0].Term
}

func (c *children) Dir(i int) string { return c.dirs[i] }

// Ready waits until the group has a leader, as all nodes see it.
func (c *children) Ready(ctx context.Context) error {
	for i := range c.running {
		for {
			if leader, _ := c.Lead(i); leader >= 0 {
				break
			}
			select {
			case <-time.After(20 * time.Millisecond):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return nil
}

// Close tells all processes to stop and waits until they have.
func (c *children) Close() (err error) {
	for i, p := range c.running {
		if p == nil {
			continue
		}
		p.writer.close()
		err = errors.Join(err, p.client.Close(), p.cmd.Process.Signal(os.Interrupt))
		select {
		case <-p.ended:
		case <-time.After(patience):
			p.kill()
			err = errors.Join(err, fmt.Errorf("%s did not stop:\n%s", nodeName(i), &p.said))
		}
	}
	return err
}

// pipedWriter appends to a node over one request for each key, so that appends need
// not wait for each other.
type pipedWriter struct {
	log.Store
	client *api.Client
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	mu     sync.Mutex
	pipes  map[identity.ID]chan pipedAppend
}

type pipedAppend struct {
	payload []byte
	future  *log.Future
}

func newPipedWriter(store log.Store, client *api.Client) *pipedWriter {
	w := &pipedWriter{Store: store, client: client, pipes: make(map[identity.ID]chan pipedAppend)}
	w.ctx, w.cancel = context.WithCancel(context.Background())
	return w
}

// AppendAsync implements log.Writer for one payload at a time.
func (w *pipedWriter) AppendAsync(ctx context.Context, key identity.ID, payloads ...[]byte) *log.Future {
	if len(payloads) != 1 || key == log.DirectoryKey() {
		return w.Store.AppendAsync(ctx, key, payloads...)
	}
	w.mu.Lock()
	pipe := w.pipes[key]
	if pipe == nil {
		pipe = make(chan pipedAppend, api.Window)
		w.pipes[key] = pipe
		w.wg.Add(1)
		go w.runPipe(key, pipe)
	}
	w.mu.Unlock()
	a := pipedAppend{slices.Clone(payloads[0]), log.NewFuture()}
	select {
	case pipe <- a:
	case <-ctx.Done():
		a.future.Complete(log.Pointer{}, ctx.Err())
	case <-w.ctx.Done():
		a.future.Complete(log.Pointer{}, log.ErrClosed)
	}
	return a.future
}

// runPipe sends the appends of one key and completes their futures in order.
func (w *pipedWriter) runPipe(key identity.ID, pipe <-chan pipedAppend) {
	defer w.wg.Done()
	sent := make(chan *log.Future, 2*api.Window)
	payloads := func(ctx context.Context) iter.Seq2[[]byte, error] {
		return func(yield func([]byte, error) bool) {
			for {
				select {
				case a := <-pipe:
					sent <- a.future
					if !yield(a.payload, nil) {
						return
					}
				case <-ctx.Done():
					return
				}
			}
		}
	}
	err := log.ErrClosed
	for o := range w.client.Append(w.ctx, api.Ref{Name: key.String()}, "", payloads) {
		if o.Err != nil {
			err = o.Err
			break
		}
		(<-sent).Complete(o.Pointer, nil)
	}
	for {
		select {
		case f := <-sent:
			f.Complete(log.Pointer{}, err)
		case a := <-pipe:
			a.future.Complete(log.Pointer{}, err)
		case <-w.ctx.Done():
			return
		}
	}
}

func (w *pipedWriter) close() {
	w.cancel()
	w.wg.Wait()
}
