package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mosaik-engine/mosaik/cmd/mosaik-node/internal/api"
	"github.com/mosaik-engine/mosaik/cmd/mosaik-node/internal/conf"
	"github.com/mosaik-engine/mosaik/engine"
	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/snapshot"
	"github.com/mosaik-engine/mosaik/tdx"
)

// Exit codes (docs/operating.md). A script takes any other for a failure.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitPartial     = 3
	exitNoStore     = 10
	exitLocked      = 11
	exitCorrupt     = 12
	exitNotAccepted = 13
	exitNoQuorum    = 14
	exitInterrupted = 130
)

// usageError says that the command line, the environment or a configuration
// file is wrong. Nothing was done.
type usageError struct {
	path string // of the command, as it is typed
	err  error
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// usage marks err as wrong usage of cmd.
func usage(cmd *cobra.Command, err error) error {
	return &usageError{path: cmd.CommandPath(), err: err}
}

// partialError says that a part was done, and its text which part was not.
type partialError struct{ err error }

func (e *partialError) Error() string { return e.err.Error() }
func (e *partialError) Unwrap() error { return e.err }

// exitCode maps what a verb returned to the process's exit code. The order
// matters where errors wrap each other: what is more specific comes first.
func exitCode(ctx context.Context, err error) int {
	var (
		bad     *usageError
		partial *partialError
		corrupt *log.CorruptionError
		refused *identity.TicketError
	)
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &bad):
		return exitUsage
	case errors.As(err, &corrupt), errors.Is(err, snapshot.ErrExport):
		return exitCorrupt
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		return exitInterrupted
	case errors.As(err, &partial):
		return exitPartial
	case errors.Is(err, engine.ErrNoStore):
		return exitNoStore
	case errors.Is(err, engine.ErrLocked):
		return exitLocked
	case errors.As(err, &refused), notAttested(err), errors.Is(err, errHandshake), errors.Is(err, errPrices):
		return exitNotAccepted
	case errors.Is(err, engine.ErrNoQuorum), errors.Is(err, api.ErrUnreachable):
		return exitNoQuorum
	case errors.Is(err, log.ErrPosition), errors.Is(err, log.ErrQuery), errors.Is(err, identity.ErrName),
		errors.Is(err, conf.ErrConfig), errors.Is(err, api.ErrRequest):
		return exitUsage
	}
	return exitFailed
}

// notAttested reports whether a quote, or what it was to be verified with, was not
// accepted.
func notAttested(err error) bool {
	return slices.ContainsFunc([]error{
		tdx.ErrRejected, tdx.ErrForged, tdx.ErrTCB, tdx.ErrCollateral, tdx.ErrQuote, tdx.ErrExpired, tdx.ErrRevoked, tdx.ErrDebug,
	}, func(reason error) bool { return errors.Is(err, reason) })
}

// plain is the error's text on one line, without the marks that tell a Go program
// whose error it is.
func plain(err error) string {
	text := strings.ReplaceAll(err.Error(), "mosaik: ", "")
	return strings.ReplaceAll(strings.TrimSpace(text), "\n", "; ")
}

// hintFor says what to do next about an error, or nothing.
func hintFor(err error) string {
	var (
		bad     *usageError
		corrupt *log.CorruptionError
	)
	switch {
	case errors.As(err, &bad):
		return fmt.Sprintf("try: %s --help", bad.path)
	case errors.As(err, &corrupt):
		return "keep the directory as it is, and run: mosaik-node check --dir DIR"
	case errors.Is(err, engine.ErrNoStore):
		return "a store is made by: mosaik-node serve --dir DIR, or by stream append --dir DIR"
	case errors.Is(err, engine.ErrLocked):
		return "another process has the store open; talk to it with --node URL, or stop it first"
	case errors.Is(err, log.ErrNewerFormat):
		return "open the store with the version of mosaik that wrote it, or a later one"
	case errors.Is(err, api.ErrUnreachable):
		return "is the node up? it is started by: mosaik-node serve --dir DIR"
	case errors.Is(err, engine.ErrNoQuorum):
		return "a majority of the group's members must be up and reachable; reads do not need one"
	case errors.Is(err, log.ErrCodec):
		return "the streams and their codecs are shown by: mosaik-node stream list"
	case errors.Is(err, conf.ErrConfig):
		return "a configuration is checked by: mosaik-node config check FILE"
	}
	return ""
}
