package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/mosaik-engine/mosaik/cmd/mosaik-node/internal/api"
	"github.com/mosaik-engine/mosaik/engine"
	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/replay"
)

// store is the logs of one node, as the verbs see them: a directory that this
// process has opened (dirStore) or a running node (*api.Client). Package api says
// what the methods do.
type store interface {
	Groups(ctx context.Context) ([]api.Group, error)
	Source(ctx context.Context, group string) (replay.Source, error)
	Streams(ctx context.Context) ([]api.Stream, error)
	Stream(ctx context.Context, r api.Ref) (api.Stream, error)
	Scan(ctx context.Context, r api.Ref, q log.Query) iter.Seq2[log.Run, error]
	Append(ctx context.Context, r api.Ref, codec string, payloads api.Payloads) iter.Seq[api.Outcome]
	Store(group string) (log.Store, error)
	Refold(ctx context.Context, group string) (api.RefoldReport, error)
	Transfer(ctx context.Context, group string, to identity.PeerID) error
	Segments(ctx context.Context, group string) (api.Segments, error)
	Pin(ctx context.Context, group string, commit uint64, off bool) ([]uint64, error)
	Scrub(ctx context.Context, group string) (api.ScrubReport, error)
	WriteSegment(ctx context.Context, group string, segment uint64, w io.Writer) error
	Export(ctx context.Context, group string, w io.Writer, progress func(done, total uint64)) (log.Head, error)
	Check(ctx context.Context, progress func(done, total uint64)) (api.CheckReport, error)
	Close() error
}

var (
	_ store = (*dirStore)(nil)
	_ store = (*api.Client)(nil)
)

// dirStore is a store's directory, open in this process.
type dirStore struct {
	*api.Local
	engine *engine.Engine
}

// Close closes the directory.
func (s *dirStore) Close() error { return s.engine.Close() }

// storeFlags say which store a verb works on.
type storeFlags struct {
	dir, node string
	make      bool // the verb may make the store
}

// addTo adds the flags to a verb.
func (f *storeFlags) addTo(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.dir, "dir", "", "directory of the store, which this process opens (MOSAIK_DIR)")
	cmd.Flags().StringVar(&f.node, "node", "", "address of a running node, such as http://127.0.0.1:7070 (MOSAIK_NODE)")
}

// with opens the store, lets do work on it and closes it.
func (f *storeFlags) with(cmd *cobra.Command, g *globals, do func(ctx context.Context, s store) error) (err error) {
	dir, node := f.dir, f.node
	if dir == "" && node == "" {
		dir, node = os.Getenv("MOSAIK_DIR"), os.Getenv("MOSAIK_NODE")
	}
	var s store
	switch {
	case dir != "" && node != "":
		return usage(cmd, errors.New("--dir and --node are two stores; one is wanted"))
	case dir != "":
		s, err = openDir(cmd.Context(), dir, !f.make, g.err)
	case node != "":
		s, err = api.NewClient(node)
	default:
		return usage(cmd, errors.New("--dir DIR or --node URL is missing"))
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	return do(cmd.Context(), s)
}

// members returns how many nodes the store is one of.
func members(e *engine.Engine) int { return len(e.Groups()[0].Status().Members) }

// settle waits until the node shows everything that was acknowledged before it
// was opened. What its Raft log has and its store has not, after a crash, is
// applied in the background. A node alone then also leads its groups; one of
// several has nobody to lead, and needs nobody to show what was agreed upon.
func settle(ctx context.Context, e *engine.Engine) error {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	alone := members(e) == 1
	for _, g := range e.Groups() {
		wait := g.Recovered
		if alone {
			wait = g.Ready
		}
		if err := wait(ctx); err != nil {
			return err
		}
	}
	return nil
}

// openTimeout bounds how long a store of one's own takes until it has applied
// what its Raft log holds.
const openTimeout = time.Minute

// openDir opens a store's directory.
func openDir(ctx context.Context, dir string, mustExist bool, errOut io.Writer) (store, error) {
	// Without a logger: what goes wrong comes back as an error.
	e, err := engine.Open(dir, &engine.Options{MustExist: mustExist, Machines: organismMachines()})
	if err != nil {
		return nil, err
	}
	if n := members(e); n > 1 {
		fmt.Fprintf(errOut, "mosaik-node: %s is one of %d members; here it is alone: it shows what it has, and takes no appends\n", dir, n)
	}
	if err := settle(ctx, e); err != nil {
		return nil, errors.Join(err, e.Close())
	}
	return &dirStore{api.NewLocal(e), e}, nil
}
