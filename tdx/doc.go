// Package tdx admits peers by Intel TDX attestation.
//
// A trust domain (TD) is a virtual machine whose memory its host cannot read. It
// proves itself by a quote: measurements of its image and 64 bytes of its own
// choice, signed by a key that a chain of certificates ties to Intel. The package
// keeps two questions apart:
//
//   - Is the quote genuine? [Verify] answers it with Intel's collateral (patch
//     levels, revocation lists), as a function of bytes and time, without I/O.
//   - Is this TD acceptable? A [Policy] compares the proven fields.
//
// Verification depends on a clock and on a library's version, so it never runs
// inside a replicated state machine: what gets committed is the verdict.
//
// Verification rests on github.com/google/go-tdx-guest, of which only abi, pcs and
// verify are imported: its client package registers a flag on the global flag set
// of whoever imports it. Where the library is known to be too lenient (patch levels
// of the platform, dates of the collateral, debug mode) or to panic (lengths in a
// quote), this package checks for itself; each such place says so.
//
// # Tickets
//
// A [Ticket] ties a quote to a peer and a network by the quote's report data, in the
// Rust runtime's class v1 or in class v2, which binds a group and a [Challenge] too;
// docs/format/tdx.md draws both. A [Validator] validates them by a policy through a
// [Checker], which bounds how many quotes are verified at once and remembers verdicts;
// the checker takes collateral from a [Cache]. A [Holder] keeps a peer's own ticket
// fresh, with quotes of a [Guest]; package simulated has them without hardware. An
// [Admit] record is the verdict that a group commits.
//
// # Goroutines and locks
//
//	Cache.runRefresh   one per open cache that fetches; until Close
//	Cache.runFetch     one per kind of platform being fetched; until the fetch's timeout or Close
//	Holder.runRenewal  one per open holder; until Close
//
// Each Close waits for its own. Cache, Checker and Challenges have one lock each, and
// none is held while another is taken, except Cache's while a file is written.
package tdx
