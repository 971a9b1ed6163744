package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/mosaik-engine/mosaik/cmd/mosaik-node/internal/api"
	"github.com/mosaik-engine/mosaik/cmd/mosaik-node/internal/conf"
	"github.com/mosaik-engine/mosaik/engine"
	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

func TestExitCode(t *testing.T) {
	running, ended := context.Background(), func() context.Context {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		return ctx
	}()
	corrupt := &log.CorruptionError{Commit: 7, Err: errors.New("x")}
	for _, c := range []struct {
		ctx  context.Context
		err  error
		want int
	}{
		{running, nil, 0},
		{running, errors.New("x"), 1},
		{running, usage(&cobra.Command{}, errors.New("x")), 2},
		{running, log.ErrPosition, 2},
		{running, log.ErrQuery, 2},
		{running, identity.ErrName, 2},
		{running, conf.ErrConfig, 2},
		{running, api.ErrRequest, 2},
		{running, &partialError{errors.New("x")}, 3},
		{running, &partialError{engine.ErrNoQuorum}, 3},
		{running, &partialError{corrupt}, 12},
		{running, engine.ErrNoStore, 10},
		{running, engine.ErrLocked, 11},
		{running, corrupt, 12},
		{running, fmt.Errorf("audit: %w", corrupt), 12},
		{running, errors.Join(errors.New("x"), corrupt), 12},
		{running, log.ErrPointer, 1},
		{running, log.ErrNotFound, 1},
		{running, log.ErrOversize, 1},
		{running, log.ErrNewerFormat, 1},
		{running, engine.ErrDiskFull, 1},
		{running, engine.ErrNoQuorum, 14},
		{running, api.ErrUnreachable, 14},
		{running, context.Canceled, 1},
		{ended, context.Canceled, 130},
		{ended, fmt.Errorf("%w: %w", engine.ErrNoQuorum, context.Canceled), 130},
		{ended, &partialError{context.Canceled}, 130},
		{ended, errors.New("x"), 1},
	} {
		if have := exitCode(c.ctx, fmt.Errorf("verb: %w", c.err)); c.err != nil && have != c.want {
			t.Errorf("%v: exit code %d, want %d", c.err, have, c.want)
		}
	}
	if have := exitCode(running, nil); have != exitOK {
		t.Errorf("no error: %d", have)
	}
}

// writes is a writer that tells of each write.
type writes chan string

func (w writes) Write(b []byte) (int, error) {
	w <- string(b)
	return len(b), nil
}

// A verb that waits, for records or for its input, ends when it is told to.
func TestInterrupted(t *testing.T) {
	dir := t.TempDir()
	const code = "interrupted"
	type result struct {
		code int
		err  string
	}
	start := func(args ...string) (ctxCancel context.CancelFunc, out writes, in *io.PipeWriter, done chan result) {
		ctx, cancel := context.WithCancel(t.Context())
		r, w := io.Pipe()
		out, done = make(writes, 10), make(chan result, 1)
		go func() {
			var errOut bytes.Buffer
			code := run(ctx, append(args, "--dir", dir), r, out, &errOut)
			done <- result{code, errOut.String()}
		}()
		return cancel, out, w, done
	}
	want := func(done chan result, code int, message string) {
		t.Helper()
		select {
		case r := <-done:
			if r.code != code || !strings.Contains(r.err, message) {
				t.Errorf("exit code %d, want %d: %s", r.code, code, r.err)
			}
		case <-time.After(time.Minute):
			t.Fatal("it goes on")
		}
	}

	cancel, out, in, done := start("stream", "append", "notes")
	fmt.Fprintln(in, code)
	if line := <-out; !strings.HasPrefix(line, "mosaik:") {
		t.Errorf("it prints %q", line)
	}
	cancel() // while it waits for a line
	want(done, exitInterrupted, `appended 1 records to "notes", then: context canceled`)
	in.Close()

	cancel, out, in, done = start("stream", "tail", "notes", "--follow", "--raw")
	if line := <-out; line != code+"\n" {
		t.Errorf("it prints %q", line)
	}
	cancel() // while it waits for a record
	want(done, exitInterrupted, "")
	in.Close()
}
