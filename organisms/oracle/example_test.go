package oracle_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/organisms"
	"github.com/mosaik-engine/mosaik/organisms/oracle"
)

// An oracle of one pair, over a file of trades: three rounds into a log, and their audit by
// somebody who has the parameters and the log, and nothing else.
func Example() {
	if err := run(context.Background()); err != nil {
		fmt.Println(err)
	}
	// Output:
	// seq 1: 105413.60000 ± 0.00000, 3 sources, stale false
	// seq 2: skipped
	// seq 3: 105485.10000 ± 0.00000, 3 sources, stale false
	// audited 3 rounds, 2 ticks
}

func run(ctx context.Context) error {
	file, err := os.ReadFile("testdata/ticks.csv")
	if err != nil {
		return err
	}
	// What the oracle is: its sources, its parameters, and the config that folds both.
	pair := oracle.Pair{Base: "BTC", Quote: "USDT"}
	listing, feed := oracle.Listing{Pair: pair}, oracle.Feed{Pair: pair}
	var sources []oracle.Source
	const decimals = 5
	for _, column := range []oracle.Column{oracle.Bid, oracle.Ask, oracle.Mid} {
		config := &oracle.Replay{File: log.Sum(file), Instrument: "BTC-USDT", Venue: "kraken", Column: column}
		source, err := oracle.NewReplayer(pair, config, decimals, bytes.NewReader(file))
		if err != nil {
			return err
		}
		listing.Sources = append(listing.Sources, config)
		feed.Sources = append(feed.Sources, oracle.Weighted{Source: source.ID(), Weight: 1})
		sources = append(sources, source)
	}
	catalog := oracle.Catalog{Pairs: []oracle.Listing{listing}}
	parameters := &oracle.Parameters{
		Feeds: []oracle.Feed{feed}, Catalog: catalog.Digest(), Policy: oracle.WeightedMedian,
		Cadence: 30 * time.Second, Deadline: time.Second, MaxAge: 30 * time.Second, MaxAhead: time.Second,
		Minimum: 3, Quorum: 2, Outliers: 1, Decimals: decimals, Tolerance: 5000,
	}
	config := oracle.Config("oracle-γ.oracle", parameters)
	if err := errors.Join(catalog.Validate(), parameters.Validate(), parameters.Matches(&catalog), config.Validate()); err != nil {
		return err
	}

	// Where it commits: a group, here a log in memory.
	definition, enclave := oracle.Definition(pair), identity.KeyFromSeed([32]byte{1})
	group := log.NewMemory(identity.NewID("group"), definition.Machines()...)
	organism, err := organisms.Open(ctx, group, config, definition)
	if err != nil {
		return err
	}
	publisher, err := oracle.NewPublisher(ctx, organism, parameters, pair, sources, enclave)
	if err != nil {
		return err
	}
	defer publisher.Close()
	at := time.Unix(1762795640, 0)
	for range 3 {
		out, err := publisher.Publish(ctx, at)
		if err != nil {
			return err
		}
		at = at.Add(parameters.Cadence)
		if tick := out.Tick; tick == nil {
			fmt.Printf("seq %d: skipped\n", out.Round.Seq)
		} else {
			fmt.Printf("seq %d: %s ± %s, %d sources, stale %t\n", tick.Seq, tick.Price.Format(decimals), tick.Confidence.Format(decimals), tick.SourceCount, tick.Stale)
		}
	}

	// Somebody who has the log, and the oracle's reference.
	reader, err := oracle.Bind(ctx, group, config.Ref(true), pair, func(p identity.PeerID) bool { return p == enclave.PeerID() })
	if err != nil {
		return err
	}
	report, err := reader.Audit(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("audited %d rounds, %d ticks\n", report.Rounds, report.Ticks)
	return nil
}
