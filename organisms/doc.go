// Package organisms is the frame that every organism has: a deterministic machine with
// one Config and a narrow public surface.
//
// # Two identities
//
// A [Config] says what an organism is: its role, its name, whom it is composed of, its
// parameters, what its members' machines must run, and who may write to it. Two ids
// follow from it:
//
//   - [Config.StableID] names the organism. It follows from the name and the universe
//     alone, so it survives what is routine: another committee, other measurements, another
//     list of who may write. It changes only when the organism is retired and published again
//     under another name.
//   - [Config.ContentHash] is the policy. It folds every field, so whoever has it knows
//     what exactly was agreed on; one weight, one source, one register more or less gives
//     another.
//
// Whoever refers to an organism ([Ref]) names it by its stable id, and pins the content
// hash only if it wants to be bound to that one revision.
//
// # Preimages
//
// H is BLAKE3-256, || is concatenation, lp(x) is the length of x as 4 bytes and x, integers
// are little-endian. A pin is 0x00, or 0x01 and 32 bytes. (docs/format/organism.md)
//
//	stable id    = H("instance|" || name || "|" || universe)
//	content hash = H("organism|" || version 1 || "|" || lp(role) || lp(name)
//	               || members 4 || stable id, pin of each || lp(parameters)
//	               || measurements, as a pin || acl)
//	acl          = NewID("mosaik.acl.v1"), .DeriveID of each clause's signature in order
//
// The sources state the formula of the content hash up to "name || spanned members ||
// content || acl"; role and measurements are folded as they say, in the order above.
//
// # Ids of what it has
//
// A stream or a collection of an organism is StableID.Derive(its name); nothing else of
// it can be reached from outside. Its group is named by the stable id in hex, so it stays the
// same group under a new content hash, and members that disagree on the validators of
// its ACL are of different groups (engine.Options.Validators).
//
// # What it is made of
//
// A [Definition] names its primitives: streams and stores, each a key's log folded by a
// [Machine]. One or two of them are its surface; nothing else of it can be reached from
// outside ([Surface]). Around each machine is the frame, itself a log.Machine, which knows the
// revision in force and that nothing comes after a retirement. Whoever may write opens
// an [Organism]; everybody else binds a [Surface] by a [Ref].
//
// A record of a primitive is one of
//
//	commit    1 | n uvarint | evidence of each | body
//	retire    2 | component 32 | reason, 1 byte of size | 0, or 1 | stable id 32 | pin | role
//	revision  3 | preimage of the content hash
//
//	evidence  1 | group 32 | commit 8 | digest 32 | key 32 | seq 8      a log.Pointer
//	          2 | class 32 | digest 32                                  something outside
//
// and its result 1 and that of the machine, or 0 and why the frame has refused it: 1
// malformed, 2 retired, 3 not opened, 4 about another organism. In the view the frame has
// two rows,
//
//	0x00 0x01 -> preimage of the content hash in force
//	0x00 0x02 -> commit 8 | Unix milliseconds 8 | the retirement, without its kind
//
// and the machine all that do not begin with 0x00. (docs/format/organism.md)
//
// # Retirement
//
// An organism ends with a [RetirementMarker] in all of its primitives, in one commit; the
// machines take nothing after it, so who commits at the same moment is before it or is
// told. It may name a successor. Nobody is
// taken along: [Resolve] follows the markers when it is asked to, tells each hop, and
// refuses to be led in a circle, to a choice, or to another role.
//
// The package starts no goroutine and takes no lock.
package organisms
