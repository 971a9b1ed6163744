// Package identity names things and peers.
//
// An [ID] is a 32-byte BLAKE3 digest. It is intent-addressed: whoever knows
// the name "oracle.price" computes the same ID without asking anybody, and
// derives further IDs from it in the same way:
//
//	feed := identity.NewID("oracle.price")
//	eur := feed.Derive("eur/usd")
//
// The four rules, in which H is BLAKE3-256 and || is plain concatenation:
//
//	NewID(s)          64 hex digits are decoded, anything else is H(s)
//	id.Derive(info)   H(id || info)
//	id.Hashed()       H(id)
//	FromParts(p...)   H(p1 || p2 || ...)
//
// They equal the rules of the Rust runtime byte for byte; the golden vectors in
// testdata/vectors.json hold both sides to it. The concatenation in Derive and
// FromParts carries no lengths, so two variable-length things that meet in one
// preimage must be framed by the caller.
//
// A [PeerID] is the Ed25519 public key of a node, a [Key] the private half. A
// name that people type is checked by [ValidateName] before it is hashed: two
// spellings that look alike must not become two IDs silently.
//
// # Forms
//
// The text form of an ID and of a PeerID is 64 lower-case hex digits, and there
// is no other: [ParseID] and UnmarshalText refuse upper case, so one value has
// one text and texts can be compared. JSON uses the text form, as values and as
// map keys. The binary form, which CBOR uses, is the 32 raw bytes.
//
// # Key file
//
// A key file is one line of ASCII:
//
//	mosaik-key-v1 <seed, 64 lower-case hex digits>\n
//
// The seed is the 32-byte Ed25519 private key of RFC 8032; everything else is
// computed from it. The file belongs to its owner alone (mode 0600 or
// stricter): [LoadKey] refuses a file that group or others may touch, because a
// peer's key that was readable once is no longer that peer's key.
//
// # Tickets
//
// A [Ticket] is a credential that a peer carries in its [PeerEntry], for everybody to
// see. A [Validator] knows one class of them and says until when a ticket admits the
// peer, or for which [Reason] it does not; [JWT] is the one for JSON Web Tokens. A
// [Clause] is what a group asks of an entry: Require(validator), All and Any of
// others. Both are pure functions of the entry and an instant, and have a
// signature that is part of the group's id.
//
// The package starts no goroutine and takes no lock; its types are plain values
// and safe to share.
package identity
