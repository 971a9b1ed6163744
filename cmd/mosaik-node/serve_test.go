package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/mosaik-engine/mosaik/cmd/mosaik-node/internal/api"
	"github.com/mosaik-engine/mosaik/log"
)

// TestServeTellsTheServiceManager runs serve in this process, from the start to
// the end, under a service manager's eyes. It leaves no goroutine and no open
// file.
func TestServeTellsTheServiceManager(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	t.Setenv("NOTIFY_SOCKET", socket)
	goroutines, files := goleak.IgnoreCurrent(), openFiles(t)

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var errOut bytes.Buffer
	code := make(chan int)
	go func() {
		code <- run(ctx, []string{"serve", "--dir", t.TempDir(), "--listen", "127.0.0.1:0", "--admin", "", "--log-format", "json"}, nil, io.Discard, &errOut)
	}()
	for _, want := range []string{"READY=1", "STOPPING=1"} {
		b := make([]byte, 100)
		if err := manager.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		n, err := manager.Read(b)
		if err != nil || string(b[:n]) != want {
			t.Fatalf("have %q, %v; want %s", b[:n], err, want)
		}
		cancel()
	}
	if c := <-code; c != exitOK {
		t.Errorf("exit code %d\n%s", c, &errOut)
	}
	for line := range strings.Lines(errOut.String()) {
		if !strings.HasPrefix(line, `{"time":`) {
			t.Errorf("not JSON: %s", line)
		}
	}
	goleak.VerifyNone(t, goroutines)
	if now := openFiles(t); now > files {
		t.Errorf("%d files are open, before there were %d", now, files)
	}
}

// openFiles counts the process's file descriptors, of which reading them is one.
func openFiles(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/dev/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

func startTestNode(t *testing.T, args ...string) *node {
	t.Helper()
	program, err := exec.LookPath("mosaik-node")
	if err != nil {
		t.Fatal(err)
	}
	n, err := startNode(program, t.TempDir(), args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.kill)
	return n
}

func testClient(t *testing.T, n *node) *api.Client {
	t.Helper()
	client, err := api.NewClient(n.api)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

// TestServeDrains tells a node to stop while it is followed and appended to. The
// follower hears of it, the append ends with its outcomes, the exit code is 0.
func TestServeDrains(t *testing.T) {
	n := startTestNode(t)
	client := testClient(t, n)
	notes := api.Ref{Name: "notes"}
	followed := make(chan error, 1)
	seen := make(chan uint64, 100)
	go func() {
		for run, err := range client.Scan(t.Context(), notes, log.Query{Follow: true}) {
			if err != nil {
				followed <- err
				return
			}
			seen <- run.LastSeq()
		}
		followed <- nil
	}()
	in, feed := io.Pipe()
	defer feed.Close()
	appended := make(chan api.Outcome)
	go func() {
		defer close(appended)
		for o := range client.Append(t.Context(), notes, "raw", func(ctx context.Context) iter.Seq2[[]byte, error] { return linesOf(ctx, in, false) }) {
			appended <- o
		}
	}()
	fmt.Fprintln(feed, "one")
	if o := <-appended; o.Err != nil || o.Pointer.Seq != 1 {
		t.Fatalf("%+v", o)
	}
	if s := <-seen; s != 1 {
		t.Fatalf("seq %d", s)
	}
	if err := n.stop(); err != nil {
		t.Errorf("%v\n%s", err, n.log())
	}
	if err := <-followed; !errors.Is(err, log.ErrClosed) {
		t.Errorf("the follower is told %v", err)
	}
	feed.Close()
	for o := range appended {
		if o.Err == nil || o.Pointer.Seq > 1 {
			t.Errorf("nothing was sent any more: %+v", o)
		}
	}
}

// TestServeSecondSignal: the first signal waits for a request that does not come
// to its end, the second does not.
func TestServeSecondSignal(t *testing.T) {
	n := startTestNode(t, "--drain-timeout", "10m")
	client := testClient(t, n)
	wide := strings.Repeat("w", 512<<10)
	for o := range client.Append(t.Context(), api.Ref{Name: "wide"}, "raw", func(context.Context) iter.Seq2[[]byte, error] { return given(repeat(wide, 64)) }) {
		if o.Err != nil {
			t.Fatal(o.Err)
		}
	}
	conn, err := net.Dial("tcp", strings.TrimPrefix(n.api, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET /api/v1/streams/wide/records HTTP/1.1\r\nHost: x\r\n\r\n")
	if _, err := io.ReadFull(conn, make([]byte, 100)); err != nil { // and no more
		t.Fatal(err)
	}
	if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	// The listener closes in the course of draining, when the first signal has been
	// taken.
	for {
		again, err := net.Dial("tcp", strings.TrimPrefix(n.api, "http://"))
		if err != nil {
			break
		}
		again.Close()
	}
	for ended := false; !ended; {
		_ = n.cmd.Process.Signal(syscall.SIGTERM) // perhaps it has ended
		select {
		case <-n.exited:
			ended = true
		case <-time.After(10 * time.Millisecond):
		}
	}
	var exit *exec.ExitError
	if !errors.As(n.err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGTERM {
		t.Errorf("it ends with %v\n%s", n.err, n.log())
	}
}

func repeat(s string, n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = s
	}
	return list
}

// TestServeAdmin asks a running node how it is.
func TestServeAdmin(t *testing.T) {
	n := startTestNode(t)
	for path, want := range map[string]string{
		"/healthz":       "ok\n",
		"/readyz":        "ok\n",
		"/metrics":       "mosaik_group_leader{group=\"g0\"} 1\n",
		"/debug/pprof/":  "goroutine",
		"/api/v1/groups": "404",
	} {
		resp, err := http.Get(n.admin + path)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || !strings.Contains(string(b), want) || (resp.StatusCode == 200) == (want == "404") {
			t.Errorf("%s: %d %v %s", path, resp.StatusCode, err, b)
		}
	}
}
