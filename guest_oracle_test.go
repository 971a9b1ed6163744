package mosaik_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/network/remote"
	"github.com/mosaik-engine/mosaik/organisms"
	"github.com/mosaik-engine/mosaik/organisms/oracle"
)

// constant is a source of one price.
type constant struct {
	id    identity.ID
	price oracle.Price
}

func (c constant) ID() identity.ID { return c.id }

func (c constant) Observe(_ context.Context, at time.Time) oracle.Observation {
	return oracle.Observation{Reason: oracle.Available, Price: c.price, ObservedAt: at.UnixNano()}
}

func (c constant) Close() error { return nil }

// TestGuestOfOracle: an oracle in a group of three, and a subscriber on a fourth node that is
// no member: it sees every tick once and in order, while the node it hears them from stops, and
// what is not on the oracle's surface it cannot read. It audits the oracle from there, and
// comes to the end when that retires.
func TestGuestOfOracle(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	pair := oracle.Pair{Base: "ETH", Quote: "USDC"}
	var sources []oracle.Source
	feed, listing := oracle.Feed{Pair: pair}, oracle.Listing{Pair: pair}
	for _, exchange := range []string{"one", "two", "three"} {
		s := &oracle.CexSpot{Exchange: exchange, Symbol: "ETHUSDC", Endpoint: "https://" + exchange + ".example/", TLS: oracle.SPKI{1}, PricePath: "/price"}
		id := oracle.SourceID(pair, s)
		listing.Sources, feed.Sources = append(listing.Sources, s), append(feed.Sources, oracle.Weighted{Source: id, Weight: 1})
		sources = append(sources, constant{id, 4000_00})
	}
	catalogue := oracle.Catalog{Pairs: []oracle.Listing{listing}}
	p := &oracle.Parameters{
		Feeds: []oracle.Feed{feed}, Catalog: catalogue.Digest(), Policy: oracle.WeightedMedian, Cadence: time.Second, Deadline: time.Second,
		MaxAge: 10 * time.Second, MaxAhead: time.Second, Minimum: 3, Quorum: 2, Outliers: 1, Decimals: 2, Tolerance: 5000,
	}
	config, definition := oracle.Config("oracle-γ.oracle", p), oracle.Definition(pair)
	public := definition.PublicKeys(config.StableID())

	c := newTrio(t)
	for i := range 3 {
		o := c.options(i)
		o.Store.Named, o.Store.Machines = []string{config.GroupName()}, definition.Machines()
		o.Remote = &remote.Policy{Consume: &remote.Rule{Allow: func(a remote.Access) bool { return a.Key.IsZero() || slices.Contains(public, a.Key) }}}
		c.open(i, o)
	}
	c.ready(ctx)
	group, _ := c.nodes[0].Group(config.GroupName())
	if _, err := group.Append(ctx, identity.NewID("private"), []byte("not on the surface")); err != nil {
		t.Fatal(err)
	}
	o, err := organisms.Open(ctx, group, config, definition)
	if err != nil {
		t.Fatal(err)
	}
	enclave := identity.KeyFromSeed([identity.Size]byte{42})
	publisher, err := oracle.NewPublisher(ctx, o, p, pair, sources, enclave)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Now()
	publish := func() {
		t.Helper()
		at = at.Add(time.Second)
		if _, err := publisher.Publish(ctx, at); err != nil {
			t.Fatal(err)
		}
	}
	publish()

	members := c.options(0).Store.Members
	far, err := c.openGuest(9, nil).Remote(group.ID(), members[2], members[1]) // not the one that publishes
	if err != nil {
		t.Fatal(err)
	}
	if _, err := far.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	reader, err := oracle.Bind(ctx, far, config.Ref(true), pair, func(p identity.PeerID) bool { return p == enclave.PeerID() })
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range far.Scan(ctx, log.Query{Key: identity.NewID("private")}) {
		if err == nil {
			t.Error("a guest reads what is not on the surface")
		}
	}
	if _, err := far.Append(ctx, public[0], []byte("x")); err == nil {
		t.Error("a guest writes")
	}

	const ticks = 30
	seen := make(chan error, 1)
	got := make(chan uint64, ticks)
	go followTicks(ctx, reader, got, seen)
	for i := range ticks - 1 {
		publish()
		if i == ticks/2 {
			c.close(2) // from which the guest hears
		}
	}
	if _, err := o.Retire(ctx, organisms.OperatorExit, nil); err != nil {
		t.Fatal(err)
	}
	if err := <-seen; !errors.Is(err, organisms.ErrRetired) {
		t.Errorf("the subscriber ends with %v", err)
	}
	close(got)
	want := uint64(1)
	for seq := range got {
		if seq != want {
			t.Fatalf("tick %d, want %d", seq, want)
		}
		want++
	}
	if want != ticks+1 {
		t.Errorf("%d ticks of %d", want-1, ticks)
	}
	if report, err := reader.Audit(ctx); err != nil || report.Ticks != ticks {
		t.Errorf("%+v, %v", report, err)
	}
}

// followTicks sends the seqs of all ticks, and then why there are no more.
func followTicks(ctx context.Context, r *oracle.Reader, got chan<- uint64, end chan<- error) {
	for t, err := range r.Ticks(ctx, log.Earliest(), true) {
		if err != nil {
			end <- err
			return
		}
		got <- t.Seq
	}
	end <- nil
}
