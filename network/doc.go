// Package network connects the nodes of a network with each other: bonds, and what
// the engine sends over them.
//
// An [Endpoint] is a node's one TCP port. Over it peers make connections, each for
// one protocol, and nobody gets further than proving who they are, that they are of
// this network, that they have the keys of the groups they ask for, and that they are
// allowed. A [Conn] that has come so far is a bond. On bonds run the Raft library's
// messages and snapshots ([Raft]) and requests for shards ([Shards]); packages of their
// own are the catalog of peers (network/catalog) and the use of groups by nodes that are
// no members (network/remote).
//
// # How a connection is made
//
//  1. TLS 1.3, with self-signed Ed25519 certificates on both sides. Each side checks
//     that the other's is exactly one, and signed by its own key, which is the PeerID;
//     who dials checks that it is the peer that was dialled (certificate.go). Sessions
//     are not resumed. ALPN chooses the protocol.
//  2. Both sides say which network they are of. This is compared before anything else
//     that they say is looked at.
//  3. For protocols that carry groups' traffic: both sides prove, for each group they
//     share, that they have its key, bound to this session (proof.go).
//  4. Both sides show their entries, with their tickets. An entry is looked at only if it
//     is signed by the peer whose key the other side has, for this network (entry.go).
//  5. Each side asks its Options.Authorize, which looks at tickets.
//
// A node that changes its entry shows it on every connection it has, and Authorize is
// asked again: who lays a ticket down is cut off, and who gets a fresh one in time is
// not.
//
// Who refuses says why, in a word (Reason) that both sides count and report. The
// bytes are in docs/format/bond.md.
//
// A connection that has ended is made again by whoever needs it: the Raft library
// when it has a message, after a pause it draws; Shards with the next request; others
// by [Endpoint.Dial], which draws a pause after a failure and drops it when the peer
// shows up by itself.
//
// # Groups on one connection
//
// The Raft library sends what it has for a host in batches, whatever groups it is of,
// and dozens of groups between two hosts are ordinary. So there is not one connection
// for each group: one carries all, and its handshake proves the key of every group
// that both sides have. What was not proven is not carried: the sender leaves such
// messages out, and the receiver drops them; both count them. A group without a
// ticket is left out alone. But a proof that is wrong ends the connection, since nodes
// with different keys have different group ids: it is no mistake. The authorization
// of a connection ends with the first of its groups'; it is then made anew, with those
// that still are allowed. When a node's groups change, its connections are made anew.
//
// # What Raft messages are protected by
//
// TLS authenticates every record, so there is no checksum of our own on top: the Raft
// library leaves it out over its own TLS too. What a member may still do, by malice or
// by mistake, that would end a process which believes it is filtered (raftcheck.go).
// Beyond that a member is trusted as Raft trusts it.
//
// # What nobody can make a node do
//
// Everything that others cause is bounded: handshakes at once and their time,
// connections in all and per peer, the sizes of frames, which are not allocated before
// they come, requests under way, silence, and the time to take what is sent (Limits,
// Protocol). Each connection is written and read by goroutines of its own, so a peer
// that is slow or dead holds up nobody else. The queues of outgoing Raft messages are
// the library's, one for each peer, of 2048 messages and 256 MiB.
//
// # Goroutines
//
//	Endpoint.runAccept    one; ends with Close
//	Endpoint.runAccepted  one for each accepted connection: handshake, then Protocol.Serve
//	Conn.runLife          one for each connection: heartbeats, authorization, farewell
//	raftTransport.runWatch one for each dialled connection of Raft messages: reads its end
//	Shards.runAnswers     one for each dialled connection of shards
//	Shards.runRequest     one for each request that is being answered
//	runCancel             one for each accepted connection of shards: ends its requests
//
// Endpoint.Close waits for the first three, closing a transport or Shards for the others.
//
// # Locks
//
// Conn.read and Conn.write, then Conn.mu, then Endpoint.mu. Shards.mu and
// shardClient.mu are taken alone. No callback is called under any of them but
// Conn.read and Conn.write.
package network
