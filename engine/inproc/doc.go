// Package inproc carries Raft messages between hosts of one process. It is a
// complete transport, not a stub: the embedded demo runs on it, and so do the
// tests and the seeded simulation, which lose, delay, repeat and reorder what
// passes through.
//
// A Network is the wire. Each host gets a factory from Network.Transport, under
// the address its peers know it by. Networks do not see one another.
//
// # The life of a message batch
//
//  1. SendMessageBatch deep-copies the batch (copy.go): the sender reuses its
//     slices, and the entries' payloads belong to its log.
//  2. Without faults the copy joins the connection's queue. With faults each
//     message of the batch travels alone: it may be dropped, delayed, repeated,
//     or held back so that later ones overtake it (conn.go).
//  3. The connection's goroutine hands what arrives to the target's handler.
//
// Every connection has its own queue, bounded in batches and in bytes, and its
// own goroutine, as a TCP connection has. A target that is slow on one
// connection therefore holds up the sender of that connection only, and even
// that sender for no longer than Options.SendTimeout.
//
// Snapshot chunks take no queue. SendChunk calls the target's handler and
// returns its verdict, so chunks arrive in order or the sender learns at once
// that they do not.
//
// # Faults
//
// SetFault, Partition, Isolate and Heal act on the network at any time. Each
// connection draws its fate from its own generator, seeded by Options.Seed, the
// two addresses and how many connections the link has had before. The same
// messages sent over it in the same order meet the same fate in every run.
//
// A partition looks as it does on a real wire: nothing fails, messages vanish.
// A host that is closed looks like a host whose process is gone: connecting and
// sending fail at once.
//
// Time is the time package's, and whatever waits here waits on channels. A network
// with its hosts can therefore run in a testing/synctest bubble, where delays and
// elections take no real time. (Not with whole Raft hosts under the race detector:
// golang.org/issue/78156.)
//
// # Goroutines
//
//	conn.runDelivery   one per message connection; started by GetConnection, ends
//	                   when the target closes, or when the sender has closed the
//	                   connection and the queue is empty. The target's Close
//	                   waits for it.
//
// # Locks
//
// Network.mu, then transport.mu, then conn.mu. No handler is called under any of
// them.
package inproc
