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
	config := organisms.Config{Role: oracle.Role, InstanceName: "oracle-γ.oracle", Parameters: parameters.Append(nil)}
	if err := errors.Join(catalog.Validate(), parameters.Validate(), parameters.Matches(&catalog), config.Validate()); err != nil {
		return err
	}
	feeder, err := oracle.NewFeeder(parameters, pair, sources)
	if err != nil {
		return err
	}
	defer feeder.Close()

	// Where it commits: a group, here a log in memory.
	group, enclave := log.NewMemory(identity.NewID("group")), identity.KeyFromSeed([32]byte{1})
	rounds, err := oracle.Rounds(config.StableID(), pair).Open(ctx, group)
	if err != nil {
		return err
	}
	ticks, err := oracle.Ticks(config.StableID(), pair).Open(ctx, group)
	if err != nil {
		return err
	}
	at := time.Unix(1762795640, 0)
	for range 3 {
		round, err := feeder.Collect(ctx, at)
		if err != nil {
			return err
		}
		at = at.Add(parameters.Cadence)
		if _, err := rounds.Append(ctx, *round); err != nil {
			return err
		}
		tick, err := oracle.Recompute(parameters, round)
		if errors.Is(err, oracle.ErrSkipped) {
			fmt.Printf("seq %d: skipped\n", round.Seq)
			continue
		}
		if err != nil {
			return err
		}
		tick.Sign(config.StableID(), enclave)
		if _, err := ticks.Append(ctx, tick); err != nil {
			return err
		}
		fmt.Printf("seq %d: %s ± %s, %d sources, stale %t\n", tick.Seq, tick.Price.Format(decimals), tick.Confidence.Format(decimals), tick.SourceCount, tick.Stale)
	}
	return audit(ctx, &config, pair, rounds.StreamReader, ticks.StreamReader, enclave.PeerID())
}

// audit holds every round against its tick.
func audit(ctx context.Context, config *organisms.Config, pair oracle.Pair, rounds *log.StreamReader[oracle.Round], ticks *log.StreamReader[oracle.PriceTick], enclave identity.PeerID) error {
	parameters, err := oracle.DecodeParameters(config.Parameters)
	if err != nil {
		return err
	}
	auditor, err := oracle.NewAuditor(parameters, config.StableID(), pair, func(p identity.PeerID) bool { return p == enclave })
	if err != nil {
		return err
	}
	published := make(map[uint64]*oracle.PriceTick)
	for record, err := range ticks.All(ctx, log.Earliest()) {
		if err != nil {
			return err
		}
		published[record.Value.Seq] = &record.Value
	}
	n := 0
	for record, err := range rounds.All(ctx, log.Earliest()) {
		if err != nil {
			return err
		}
		if err := auditor.Next(&record.Value, published[record.Value.Seq]); err != nil {
			return err
		}
		n++
	}
	fmt.Printf("audited %d rounds, %d ticks\n", n, len(published))
	return nil
}
