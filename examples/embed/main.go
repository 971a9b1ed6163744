// Command embed keeps a stream of prices in a directory, from inside a Go
// program: no daemon, no network, one durable replica.
//
//	go run ./examples/embed [DIR]
//
// Run it twice on one directory and the second run reads what the first wrote.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/mosaik-engine/mosaik"
	"github.com/mosaik-engine/mosaik/log"
)

// Price is what the stream holds. Bid and Ask are decimal strings: a float
// would round them.
type Price struct {
	Bid, Ask string
}

// The README shows the lines between the marks; a test keeps the two equal.

// readme: begin

var prices = log.StreamDef[Price]{Name: "oracle.price/BTC-USD"}

func record(ctx context.Context, dir string, out io.Writer) error {
	node, err := mosaik.Open(dir, nil)
	if err != nil {
		return err
	}
	defer node.Close()
	stream, err := prices.Open(ctx, node)
	if err != nil {
		return err
	}
	pointer, err := stream.Append(ctx, Price{Bid: "104312.50", Ask: "104313.00"}) // durable when it returns
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "evidence:", pointer)
	for r, err := range stream.All(ctx, log.Earliest()) {
		if err != nil {
			return err
		}
		fmt.Fprintln(out, r.Seq, r.Value.Bid, r.Value.Ask)
	}
	return nil
}

// readme: end

func main() {
	dir := "prices"
	if len(os.Args) > 1 {
		dir = os.Args[1]
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := record(ctx, dir, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "embed:", err)
		os.Exit(1)
	}
}
