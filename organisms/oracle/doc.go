// Package oracle is the price oracle: what it asks, how a price follows from the answers,
// how anybody can compute it again, and the organism that does it.
//
// # Reading the source
//
//	price.go       Price: fixed point, exact
//	pair.go        Pair; the ids of streams
//	parameters.go  Parameters: all that a price depends on
//	catalog.go     Catalog: the sources, and their ids
//	file.go        both from TOML or JSON
//	round.go       Round: what was asked and answered
//	aggregate.go   Recompute: from a round to its tick
//	tick.go        PriceTick: its bytes, its signature
//	audit.go       Auditor: do the ticks follow from the rounds?
//	source.go      Source, and Feeder: from sources to a round
//	https.go       HTTPS: an exchange's answer; jsonprice.go: a number in it
//	replay.go      Replayer: a file of past prices
//	upstream.go    Upstream: another oracle's ticks
//	organism.go    Definition; Reader: ticks, and their audit, from any store
//	publish.go     Publisher: one pair, round by round; Run: all, at their cadence
//	wire.go        bytes
//
// # From sources to a tick
//
//	Feeder.Collect   asks all sources of a pair at once, as of one time   -> Round
//	Recompute        a function of parameters and round, nothing else     -> PriceTick, or skipped
//	PriceTick.Sign   by the enclave's key
//
// Publisher does this, and commits the round, and the tick if there is one: to the pair's
// primitives "rounds BASE/QUOTE" and "ticks BASE/QUOTE", the symbols in their order. Their
// machines take what comes next in seq and nothing twice; the row 0x01 of each has the last.
// The round is the evidence: Auditor computes the tick from it again and names the field
// that differs. A round has an observation of every source, also of those that have no
// price; the tick's signature covers the digest of the round. Of rounds without a tick,
// nothing is signed.
//
// # Aggregation
//
// The price of WeightedMedian is the price that half of the weight of the contributing
// sources is not above and half of it not below; if the weight splits into two exact
// halves, the middle of the two prices at the split, rounded down to a unit. A source
// contributes if it is Available.
//
//	confidence    max |source - price|
//	stale         fewer sources than Parameters.Minimum
//	skipped       fewer sources than Parameters.Quorum: no tick, but the seq is used up
//	disagreement  more sources than Parameters.Outliers are farther from the price than Parameters.Tolerance
//
// Sources that hold less than half of the contributing weight cannot move the price out of
// the range of the prices of the others, whatever they say. Beyond that they can, and the
// tick says so: as long as honest sources agree within the tolerance and liars are farther
// away than twice the tolerance, either all honest ones deviate from the price or all liars do, so
// disagreement is set if both are more than Outliers. The weight is that of the sources which
// contribute: whoever can silence honest sources gains in weight, which Quorum bounds.
//
// # Time
//
// A price counts if it was observed no more than MaxAge before its round and MaxAhead after.
// A source may say again what it has said, until that is too old. It is Backwards if the
// time is before what counted last, and a Contradiction if it is another price for the same
// time. The price then stands in the round all the same, so that the judgement can be
// audited.
//
// # Streams
//
// The id of the stream of a pair is derived from the oracle's stable id, the pair and the
// schema of a tick ([StreamID]). Streams live through rotations: [PriceTick.Parameters] says
// which parameters hold, and decimals stand in each tick.
//
// # Formats
//
// Integers are little-endian. lp(x) is the length of x as 4 bytes and x. A symbol is UTF-8 in
// 16 bytes, filled up with zeros. (docs/format/oracle.md)
//
//	tick   version 1 | timestamp 8 | base 16 | quote 16 | price 8 | confidence 8 | source set 32
//	       | source count 1 | stale 1 | seq 8 | disagreement 1 | decimals 1 | parameters 32
//	       | round 32 | signer 32 | signature 64
//	signed "mosaik.oracle.price-tick.v1|" || stream id 32 || tick without its signature
//	round  version 1 | timestamp 8 | base 16 | quote 16 | seq 8 | parameters 32 | n 1 | observation...
//	       observation: source 32 | reason 1 | price 8 | observed at 8 | response 32 | n 1 | detail n
//
// # Replayed files
//
// A replayed file is CSV with the first line time_ns,pair,venue,bid,ask,size: nanoseconds
// since 1970, names, decimal numbers. There are no quotes and no spaces. The catalog has the
// digest of the file, so it cannot change.
//
// # Goroutines and locks
//
//	Feeder.runSource  one per source of a round; until it answers, soon after Deadline at the latest
//	Publisher.runPair one per pair of Run, until that returns
//
// Collect waits for them. net/http has goroutines of its own for each connection of an
// HTTPS, until its Close. The package takes no lock.
package oracle
