package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/mosaik-engine/mosaik/engine"
	"github.com/mosaik-engine/mosaik/engine/cluster"
	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

// TestMain makes this test binary the program itself when it is called by that
// name, as scripts and startNode do.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"mosaik-node": main})
}

// TestScript runs testdata/script: one script a verb, and some for what concerns
// several. Besides the usual commands there are:
//
//	exits CODE PROGRAM ARG...    run, and want the exit code
//	norm FILE                    write to FILE the last standard output, with what differs from run to run replaced
//	store DIR NAME:CODEC:V,V...  make a store with these streams, the records of each in one commit
//	node DIR ARG...              start mosaik-node serve; $NODE and $ADMIN are its addresses
//	stop                         tell it to stop, and want exit code 0
//	damage FILE PATTERN          flip one bit in the middle of the first match in FILE
//	cluster DIR N                make the stores of N members, with five records in the stream "notes"
func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			for _, name := range []string{"MOSAIK_DIR", "MOSAIK_NODE", "MOSAIK_CONFIG", "NOTIFY_SOCKET"} {
				env.Setenv(name, "")
			}
			env.Values[nodeKey{}] = new(*node)
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exits":   scriptExits,
			"norm":    scriptNorm,
			"store":   scriptStore,
			"node":    scriptNode,
			"stop":    scriptStop,
			"damage":  scriptDamage,
			"cluster": scriptCluster,
		},
	})
}

func scriptExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM ARG...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	code := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		code = exit.ExitCode()
	}
	if code != want {
		ts.Fatalf("exit code %d, want %d", code, want)
	}
}

// volatile is what differs from run to run.
var volatile = []struct {
	pattern *regexp.Regexp
	name    string
}{
	{regexp.MustCompile(`\b[0-9a-f]{64}\b`), "HEX"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`), "TIME"},
	{regexp.MustCompile(`"time_ns": ?\d+`), `"time_ns":NS`},
	{regexp.MustCompile(`"applied":\d+`), `"applied":N`},
	{regexp.MustCompile(`"term":\d+`), `"term":N`},
	{regexp.MustCompile(`"raft_log_bytes":\d+`), `"raft_log_bytes":N`},
	{regexp.MustCompile(`\d+ bytes in the Raft log`), "N bytes in the Raft log"},
	{regexp.MustCompile(`group [0-9a-f]{8}\b`), "group SHORT"},
}

func scriptNorm(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: norm FILE")
	}
	text := ts.ReadFile("stdout")
	for _, v := range volatile {
		text = v.pattern.ReplaceAllString(text, v.name)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o600))
}

// scriptStore appends in process: which records share a commit is then no matter
// of speed.
func scriptStore(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: store DIR NAME:CODEC:VALUE,VALUE...")
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	e, err := engine.Open(ts.MkAbs(args[0]), nil)
	ts.Check(err)
	for _, arg := range args[1:] {
		part := strings.SplitN(arg, ":", 3)
		if len(part) != 3 {
			ts.Fatalf("%q is not NAME:CODEC:VALUE,VALUE", arg)
		}
		var payloads [][]byte
		for value := range strings.SplitSeq(part[2], ",") {
			payloads = append(payloads, []byte(value))
		}
		switch part[1] {
		case "raw":
			_, err = log.StreamDef[[]byte]{Name: part[0], Codec: log.Raw()}.Open(ctx, e)
		case "json":
			_, err = log.StreamDef[json.RawMessage]{Name: part[0], Codec: log.JSON[json.RawMessage]()}.Open(ctx, e)
		default: // a key, which needs no name
			err = nil
		}
		ts.Check(err)
		_, err = e.Append(ctx, identity.NewID(part[0]), payloads...)
		ts.Check(err)
	}
	ts.Check(e.Close())
}

// nodeKey is where a script has its node, a *node.
type nodeKey struct{}

func scriptNode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: node DIR ARG...")
	}
	program, err := exec.LookPath("mosaik-node")
	ts.Check(err)
	n, err := startNode(program, ts.MkAbs(args[0]), args[1:]...)
	ts.Check(err)
	ts.Defer(n.kill)
	ts.Setenv("NODE", n.api)
	ts.Setenv("ADMIN", n.admin)
	*ts.Value(nodeKey{}).(**node) = n
}

func scriptStop(ts *testscript.TestScript, neg bool, args []string) {
	n := *ts.Value(nodeKey{}).(**node)
	if neg || len(args) != 0 || n == nil {
		ts.Fatalf("usage: stop, after node")
	}
	if err := n.stop(); err != nil {
		ts.Fatalf("%v\n%s", err, n.log())
	}
}

func scriptDamage(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: damage FILE PATTERN")
	}
	files, err := filepath.Glob(ts.MkAbs(args[0]))
	ts.Check(err)
	pattern := regexp.MustCompile(args[1])
	for _, file := range files {
		b, err := os.ReadFile(file)
		ts.Check(err)
		if at := pattern.FindIndex(b); at != nil {
			b[(at[0]+at[1])/2] ^= 1
			ts.Check(os.WriteFile(file, b, 0o600))
			return
		}
	}
	ts.Fatalf("%s is not in %v", pattern, files)
}

func scriptCluster(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: cluster DIR N")
	}
	nodes, err := strconv.Atoi(args[1])
	ts.Check(err)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := cluster.Open(cluster.Options{Nodes: nodes, Dir: ts.MkAbs(args[0])})
	ts.Check(err)
	ts.Check(c.Ready(ctx))
	for i := range 5 {
		_, err := c.Node(0).Append(ctx, identity.NewID("notes"), fmt.Appendf(nil, "note %d", i))
		ts.Check(err)
	}
	for i := range nodes {
		_, err := c.Node(i).Groups()[0].Sync(ctx)
		ts.Check(err)
	}
	ts.Check(c.Close())
}

// node is a mosaik-node serve in a process of its own.
type node struct {
	cmd        *exec.Cmd
	api, admin string
	exited     chan struct{} // closed when the process has ended
	err        error         // how, after exited

	mu   sync.Mutex
	text strings.Builder // what it has said
}

var servingLine = regexp.MustCompile(`msg=serving .*api=(\S+) admin=(\S*)`)

// startNode starts a node on free ports and returns when it serves.
func startNode(program, dir string, args ...string) (*node, error) {
	cmd := exec.Command(program, append([]string{"serve", "--dir", dir, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"}, args...)...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	n := &node{cmd: cmd, exited: make(chan struct{})}
	serving := make(chan struct{})
	go n.watch(stderr, serving)
	select {
	case <-serving:
		return n, nil
	case <-n.exited:
		return nil, fmt.Errorf("serve ends: %v\n%s", n.err, n.log())
	case <-time.After(time.Minute):
		n.kill()
		return nil, fmt.Errorf("serve does not serve\n%s", n.log())
	}
}

// watch reads what the node says until it ends.
func (n *node) watch(stderr io.Reader, serving chan<- struct{}) {
	lines := bufio.NewScanner(stderr)
	for lines.Scan() {
		n.mu.Lock()
		fmt.Fprintln(&n.text, lines.Text())
		n.mu.Unlock()
		if m := servingLine.FindStringSubmatch(lines.Text()); m != nil {
			n.api, n.admin = m[1], m[2]
			close(serving)
		}
	}
	n.err = n.cmd.Wait()
	close(n.exited)
}

// log returns what the node has said.
func (n *node) log() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.text.String()
}

// stop tells the node to stop and waits until it has. The error is that of its
// exit code.
func (n *node) stop() error {
	if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	<-n.exited
	return n.err
}

// kill ends the node as a power cut would end its process.
func (n *node) kill() {
	_ = n.cmd.Process.Kill() // perhaps it has ended
	<-n.exited
}
