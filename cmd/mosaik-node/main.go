// mosaik-node is the daemon and the command line of mosaik, a replicated and
// replayable log.
//
// Every verb is one file: id.go, serve.go, stream_append.go and so on. A verb is
// a function that makes its cobra command; nothing registers itself. Verbs that
// read or write a log do it through a store (store.go), which is either a
// directory this process opens or a daemon it talks to, so each of them exists
// once. The parts that are more than a verb have packages of their own:
// internal/api is the HTTP API with its client, internal/conf the configuration.
//
// What was asked for goes to standard output, everything else to standard error.
// Errors are printed in one place, run; exit.go says which error ends with
// which exit code.
//
// Goroutines, besides those of the packages below internal:
//
//	listener.runServe     serve: one per address it listens on; ends when the
//	                      listener is closed, which serve waits for
//	inbox.runRead         stream append: reads standard input; a read cannot be
//	                      interrupted, so it may last as long as the process
//	tickSource.runOpen    demo: opens and reads the head of its input, likewise
//	feeder.runFeed        demo: appends tick after tick
//	feeder.runCollect     demo: takes the acknowledgements
//	outage.runCatchUp     demo: waits until the restarted node has all
//	remoteBench.runServer bench: the HTTP API it measures; ends with its Close
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// version is what `mosaik-node version` prints. The linker sets it.
var version = "dev"

func main() {
	os.Exit(interruptible(os.Args[1:]))
}

// interruptible runs the command until it ends or the process is told to stop.
// The first SIGINT or SIGTERM ends the context, upon which a verb comes to its
// end in good order. After it the signals have their default effect again: a
// second one ends the process at once.
func interruptible(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	return run(ctx, args, os.Stdin, os.Stdout, os.Stderr)
}
