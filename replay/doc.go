// Package replay reads a group's log again from its commits: to fold it into
// something, to check it, to compare it with another replica's, and to hold a
// pointer against the bytes it names.
//
// It knows logs only as a [Source], so that a live group, the in-memory model,
// an archive and a remote peer are replayed by the same code.
//
// # Reading the source
//
//	source.go   Source, and the ranges asked of one
//	chain.go    the rules one commit after the other must keep
//	commits.go  Commits: a range, checked while it is read; Digest of a range
//	audit.go    Audit: everything that can be checked, and the first bad commit
//	fold.go     Fold and FoldKey
//	views.go    Views: the collections, folded anew from the log alone
//	compare.go  Diverge and Compare: two sources of one group
//	pointer.go  VerifyPointer and Extract: evidence, offline
//
// # Ranges
//
// Every range is from..to, both included. A from of 0 means commit 1, a to of 0
// the head at the time of the call. A range may be empty only by ending at a
// head right before its from; one that asks for what the log does not have is
// log.ErrNotFound, one that ends before it starts is log.ErrPosition.
//
// # What is checked
//
// [Commits], and with it [Digest], [Fold] and [FoldKey], believe nothing of what
// they read but the first commit's Prev:
//
//	group      the commit is one of the source's group
//	number     it is the one asked for, so numbers are dense
//	chain      Prev is the digest of the commit before
//	itself     its header hashes to its digest, its body to the header's body
//	           digest; the body decodes to its last byte and holds as many
//	           records as the header says
//	clock      its time is not before that of the commit before
//
// [Audit] adds what ties the range to the rest of the log:
//
//	start      the first commit's Prev is the digest of the commit before the
//	           range; zero for commit 1
//	seqs       each key's seqs are dense: from 1, or in a range that starts
//	           later from the first one seen
//	end        the commit after the range names the last one's digest, or the
//	           last one is the head the source serves, by number, digest and time
//
// Of a source that has the views as well ([Folded]), and from the first commit on:
//
//	state      folding the commit over the views as they were before it comes to
//	           the state in its header
//
// # Range digest
//
// The digest of a range is BLAKE3-256 over the digests of its commits in order,
// 32 bytes each and nothing between or around them. Since the bodies were hashed
// on the way, equal range digests mean equal bytes of every commit in the range.
//
// # Goroutines
//
// None: everything happens on the caller's.
package replay
