// Package catalog is how the nodes of a network find each other: each keeps the newest
// signed entry of every peer, and passes on what it learns.
//
// A [Catalog] holds connections, links, with a few peers that it draws. What it says
// there is small: that there is a newer entry, and how its catalog differs from the
// other's. Whole entries only go to who asks for them.
//
//   - A change spreads at once: who learns of a newer entry announces its version on all
//     other links, who lacks it asks for it. With links drawn at random it takes a number
//     of hops that grows with the logarithm of the network.
//   - What was missed is found: each round, one link compares. Both sides have divided
//     their catalogs into 256 buckets by the first byte of the peer, with a sum for each. If
//     the sum of all is equal, that was it: 33 bytes. If not, they go down to the buckets,
//     and to the versions in those that differ.
//   - A network that was cut in two grows together: links are drawn anew from time to
//     time, and the peers that a node was told to begin with are tried again and again.
//
// # What an entry is worth
//
// An entry is what its peer says of itself, signed by it (identity.SignedEntry); so it
// does not matter over whom it came, and nobody can change or make up another's. The
// newest version counts. A peer signs a newer one every Options.Refresh, as a sign of
// life, and is forgotten when none came for Options.Silence. Who leaves says so: its
// last entry has the tag [Departed]. Versions of peers that are gone are remembered for as
// long again, so that nobody brings them back who has not heard yet.
//
// # Messages
//
// The first byte is the kind; integers are little-endian; a version is started 8 |
// updated 8 (docs/format/catalog.md):
//
//	1 summary   sum 32
//	2 buckets   256 sums, 16 each
//	3 digest    buckets 32, a bit for each | versions, as of announce
//	4 announce  count 2, then peer 32 | version 16 of each
//	5 want      count 2, then peer 32 of each
//	6 entries   count 2, then size 2 | entry of each
//	7 ping      8 bytes
//	8 pong      the 8 bytes of the ping
//
// A summary is answered by buckets if the sums differ, buckets by the digests of those
// that differ, a digest by a want for what is newer there and an announce of what is
// newer here. Entries nobody has asked for end the link, but for the sender's own, which is
// its farewell.
//
// # What others can cost
//
// Peers, bytes and links are bounded (Options), as are messages. Only what was asked for
// is verified, and nothing is asked for twice at a time; an entry that is forged ends
// the link of who sent it, with network.BadEntry. Who makes many keys can fill the
// catalog: then newcomers are left out, and counted, until others are gone.
//
// # Goroutines
//
//	Catalog.runRounds  one: rounds, expiry, drawing of links; ends with Close
//	Catalog.runDial    one for each link that is being made
//	Catalog.runWrite   one for each link
//	Catalog.serve      on the endpoint's goroutine of an accepted link; one of its own for a dialled one
//
// Close waits for all.
//
// # Locks
//
// Catalog.mu, then that of a link or a watcher. A link that takes nothing is closed under
// Catalog.mu, so it comes before the endpoint's, but for Conn.read, under which entries of
// bonds are heard. What the endpoint has to learn is told after it is released.
package catalog
