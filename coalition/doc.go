// Package coalition gives a name to organisms and lattices that somebody wants to speak of
// together, and nothing else: a coalition is never an authority. Who is named in one has not
// been asked, gets nothing by it and owes nothing for it; all that its members are and do
// stays as it was, and so do their ids.
//
// A [Config] is compiled into the programs that use it. It is not looked up: what a
// program reads from a network is not what it has agreed to.
//
// # Fingerprints
//
// H is BLAKE3-256, || is concatenation, lp(x) is the length of x as 4 bytes and x; integers
// are little-endian. A pin, or a part that may be absent, is 0x00, or 0x01 and 32 bytes.
// (docs/format/coalition.md)
//
//	COALITION      = H("coalition|" || version 1 || "|" || name)
//	COALITION_ROOT = H(COALITION || stable id of each lattice || of each organism
//	                 || fingerprint of the ticket issuer, if there is one)
//	module root    = COALITION_ROOT.Derive("module").Derive(name of the module)
//	TICKETS_ROOT   = COALITION_ROOT.Derive("tickets")
//	coalition id   = H("coalition-id|" || version 1 || COALITION_ROOT
//	                 || lattices 4 || stable id, pin of each
//	                 || organisms 4 || lp(role), stable id, pin of each
//	                 || fingerprint of atlas, almanac, chronicle, compute, randomness, as pins
//	                 || fingerprint of the ticket issuer, as a pin || of the retirement policy, as a pin)
//	ticket issuer  = H("ticket-issuer|" || version 1 || "|" || lp(name) || acl)
//	retirement     = H("retirement-policy|" || version 1 || notice 8 || grace 8), milliseconds
//
// COALITION_ROOT is what ids are derived from: it does not move when a module changes, and
// folds no pins. It is a run of ids without counts, as the sources have it, so an id that
// moves from the end of the lattices to the beginning of the organisms leaves it as it is.
// The coalition id, which integrators compare, folds everything, with counts.
//
//	LATTICE        = H("builder|" || name || "|chain=" || chain id in decimal)
//	organism root  = LATTICE.Derive("zipnet"), "unseal", "offer", "atelier", "relay", "tally"
//	stable id      = organisms.StableID(name)
//	lattice id     = H("lattice-id|" || version 1 || LATTICE || content hash of each organism, in that order)
//
// A module's and a lattice's organism's content hash is that of an organism
// (organisms.Config.Fingerprint) with its root in the place of the name.
package coalition
