// Command peers measures the systems that mosaik is compared with, on this machine and with the same
// records: NATS JetStream and etcd with three replicas each in one process, and pebble as an embedded
// store.
//
//	peers --dir /data/tmp --sync both --runs 3 --json > peers.json
//	mosaik-node bench --peers peers.json
//
// A table goes to stdout, or with --json one JSON document (measure.Report); progress goes to
// stderr. Each run starts every peer afresh on an empty directory below --dir, which is removed at
// the end. The exit code is 0 when every workload was measured, 1 when nothing was, 2 for wrong
// usage, 3 when some workloads failed (the rest is still reported) and 130 when interrupted.
//
// The program starts no goroutines of its own; the packages it calls list theirs.
package main
