// Package ticks is market data for the demo: the tick, its one-line text form, a
// strict reader of files of them, and a market that makes them up.
//
//	tick.go    Tick and Decimal
//	csv.go     Reader: a file of ticks, line by line
//	market.go  Market: ticks without end, the same on every machine
//
// Numbers are kept as the decimal text they came in. Nothing here computes with
// what a file says, so nothing is rounded: a tick that was read, stored as CBOR,
// replicated and read back is the line it came from, byte for byte, and that
// is what the demo checks.
//
// The package starts no goroutine and takes no lock.
package ticks
