package oracle_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/organisms"
	"github.com/mosaik-engine/mosaik/organisms/oracle"
)

// The oracle of most tests.
var (
	ethUSDC  = oracle.Pair{Base: "ETH", Quote: "USDC"}
	stableID = organisms.StableID("oracle-γ.oracle")
	began    = time.UnixMilli(1_767_225_600_000)
)

// key is an enclave's.
func key(name string) identity.Key { return identity.KeyFromSeed([32]byte(identity.NewID(name))) }

func admitted(p identity.PeerID) bool { return p == key("enclave").PeerID() }

// exchange returns a source of some exchange.
func exchange(name string) *oracle.CexSpot {
	return &oracle.CexSpot{Exchange: name, Symbol: "ETHUSDC", Endpoint: "https://" + name + ".example/ticker", TLS: oracle.SPKI{1}, PricePath: "/price"}
}

// setUp returns the parameters of ETH/USDC with sources of these weights.
func setUp(weights ...uint32) (*oracle.Parameters, *oracle.Catalog) {
	listing, feed := oracle.Listing{Pair: ethUSDC}, oracle.Feed{Pair: ethUSDC}
	for i, weight := range weights {
		s := exchange(fmt.Sprint("exchange-", i))
		listing.Sources = append(listing.Sources, s)
		feed.Sources = append(feed.Sources, oracle.Weighted{Source: oracle.SourceID(ethUSDC, s), Weight: weight})
	}
	c := &oracle.Catalog{Pairs: []oracle.Listing{listing}}
	return &oracle.Parameters{
		Feeds: []oracle.Feed{feed}, Catalog: c.Digest(), Policy: oracle.WeightedMedian,
		Cadence: time.Second, Deadline: 500 * time.Millisecond, MaxAge: 10 * time.Second, MaxAhead: time.Second,
		Minimum: 3, Quorum: 2, Outliers: 1, Decimals: 2, Tolerance: 5000,
	}, c
}

// everything returns a catalog with a source of every kind, and its parameters.
func everything() (*oracle.Parameters, *oracle.Catalog) {
	pin := identity.NewID("a revision")
	jpy := oracle.Pair{Base: "USD", Quote: "JPY"}
	c := &oracle.Catalog{Pairs: []oracle.Listing{
		{Pair: ethUSDC, Sources: []oracle.SourceConfig{
			&oracle.CexSpot{
				Exchange: "kraken", Symbol: "ETHUSDC", Endpoint: "https://exchange.example/ticker?pair=ETHUSDC",
				TLS: oracle.SPKI{1, 2}, PricePath: "/result/ETHUSDC/c/0", TimePath: "/time",
			},
			exchange("other"),
			&oracle.Organism{Ref: organisms.Ref{Role: "oracle", StableID: stableID, ContentHash: &pin}, Pair: ethUSDC},
		}},
		{Pair: jpy, Sources: []oracle.SourceConfig{
			&oracle.Replay{File: log.Sum([]byte("a file")), Instrument: "USD-JPY", Venue: "truefx", Column: oracle.Mid},
			&oracle.Organism{Ref: organisms.Ref{Role: "oracle", StableID: stableID}, Pair: jpy},
			exchange("third"),
		}},
	}}
	p, _ := setUp()
	p.Feeds = nil
	for _, l := range c.Pairs {
		f := oracle.Feed{Pair: l.Pair}
		for i, s := range l.Sources {
			f.Sources = append(f.Sources, oracle.Weighted{Source: oracle.SourceID(l.Pair, s), Weight: uint32(i + 1)})
		}
		p.Feeds = append(p.Feeds, f)
	}
	p.Catalog = c.Digest()
	return p, c
}

// roundOf returns a round of ETH/USDC with a price of each source; 0 is one that has none.
func roundOf(p *oracle.Parameters, seq uint64, at time.Time, prices ...oracle.Price) *oracle.Round {
	r := &oracle.Round{TimestampMs: uint64(at.UnixMilli()), Pair: ethUSDC, Seq: seq, Parameters: p.Digest()}
	for i, price := range prices {
		o := oracle.Observation{Source: p.Feeds[0].Sources[i].Source, Reason: oracle.Available, Price: price, ObservedAt: at.UnixNano(), Response: log.Sum([]byte{byte(i)})}
		if price == 0 {
			o = oracle.Observation{Source: o.Source, Reason: oracle.Timeout, Detail: "no answer"}
		}
		r.Observations = append(r.Observations, o)
	}
	return r
}

// signedTick returns the tick of a round.
func signedTick(t testing.TB, p *oracle.Parameters, r *oracle.Round) *oracle.PriceTick {
	t.Helper()
	tick, err := oracle.Recompute(p, r)
	if err != nil {
		t.Fatal(err)
	}
	tick.Sign(stableID, key("enclave"))
	return &tick
}

func newAuditor(t testing.TB, p *oracle.Parameters) *oracle.Auditor {
	t.Helper()
	a, err := oracle.NewAuditor(p, stableID, ethUSDC, admitted)
	if err != nil {
		t.Fatal(err)
	}
	return a
}
