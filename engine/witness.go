package engine

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/snapshot"
)

// Replicas that apply the same entries come to the same bytes, or one of them is
// broken: a damaged disk, a machine that is not deterministic, a bug. Two things
// make sure that this is never silent.
//
// Every proposal carries the digest of the commit its proposer stood at. A
// replica that has another digest for that commit knows that one of the two is
// wrong, but not which. It then asks for witnesses: it commits its own digest to
// the group's log of witnesses, and so does every replica that reads a digest
// there which is not its own. All replicas count the same records. One whose
// digest is not the majority's has diverged: it stops serving the group, keeps
// that over restarts, and waits for Refold. If all have spoken and there is no
// majority, nobody can be believed, and all stop.
//
// A commit's digest covers the digest of the views (log.Header.State), so this
// finds a difference in a view with the commit after the one that made it.

// witnessKey is the key of the log of witnesses. It is never changed; every run is
// compared with it, so it is computed once. A record is
//
//	commit 8 | digest 32
//
// and its voter the proposer of the entry that carries it. Integers are
// little-endian.
var witnessKey = identity.NewID("mosaik.witness")

// SystemName returns what a log that is the engine's own is called: the
// directory, the conditions of transactions, the votes of witnesses, the members. It is empty
// for all others.
func SystemName(key identity.ID) string {
	switch key {
	case log.DirectoryKey():
		return "mosaik.directory"
	case log.GuardKey():
		return "mosaik.guard"
	case witnessKey:
		return "mosaik.witness"
	case snapshot.SegmentsKey():
		return "mosaik.segments"
	case log.MembersKey():
		return log.MembersName
	}
	return ""
}

const voteSize = 8 + 32

// maxBallots bounds the commits that are voted on at a time. Votes on further
// ones are dropped: one is enough.
const maxBallots = 16

// witness is a group's count of votes. It belongs to the applier, but for ask.
type witness struct {
	voters  int
	ballots map[uint64]*ballot // by commit
	ask     chan uint64        // commits this replica has to vote on, for runWitness
}

type ballot struct {
	votes   map[uint64]log.Digest // by replica
	asked   bool
	decided bool // further votes change nothing
}

func newWitness(voters int) witness {
	return witness{voters: voters, ballots: make(map[uint64]*ballot), ask: make(chan uint64, maxBallots)}
}

// on returns the ballot about a commit; nil: there are too many.
func (w *witness) on(number uint64) *ballot {
	b := w.ballots[number]
	if b != nil {
		return b
	}
	if len(w.ballots) == maxBallots && !w.forget() {
		return nil
	}
	b = &ballot{votes: make(map[uint64]log.Digest)}
	w.ballots[number] = b
	return b
}

// forget drops the oldest decided ballot; false: there is none.
func (w *witness) forget() bool {
	oldest := uint64(0)
	for number, b := range w.ballots {
		if b.decided && (oldest == 0 || number < oldest) {
			oldest = number
		}
	}
	delete(w.ballots, oldest)
	return oldest != 0
}

// suspect has this replica vote on a commit, once.
func (w *witness) suspect(number uint64) {
	b := w.on(number)
	if b == nil || b.asked {
		return
	}
	b.asked = true
	select {
	case w.ask <- number:
	default: // as many votes are under way already
	}
}

// verdict returns what the votes on a commit say: a digest that a majority has,
// or that there can be none.
func (w *witness) verdict(b *ballot) (winner log.Digest, decided bool) {
	count := make(map[log.Digest]int)
	for _, d := range b.votes {
		count[d]++
		if count[d] > w.voters/2 {
			return d, true
		}
	}
	return log.Digest{}, len(b.votes) == w.voters
}

// compareHead compares the proposer's head with the commit of that number here.
func (r *replica) compareHead(p *proposal) error {
	if p.head.Number == 0 || p.head.Number > r.state.number || r.diverged.Load() != nil {
		return nil
	}
	own, known, err := r.digestOf(p.head.Number)
	if err == nil && known && own != p.head.Digest {
		r.witness.suspect(p.head.Number)
	}
	return err
}

// recentDigests is how many commits' digests the applier keeps at hand.
const recentDigests = 64

// digestOf returns the digest of a commit that is not above the head. It is not
// known if the commit is in the batch under way, far back in it.
// REQUIRES: called by the applier.
func (r *replica) digestOf(number uint64) (digest log.Digest, known bool, err error) {
	switch d := &r.recent[number%recentDigests]; {
	case d.number == number:
		return d.digest, true, nil
	case number == r.state.number:
		return r.state.digest, true, nil
	case number > r.stored:
		return log.Digest{}, false, nil
	}
	h, err := r.header(number)
	return h.Digest(), err == nil, err
}

// recentDigest is the digest of one of the latest commits.
type recentDigest struct {
	number uint64
	digest log.Digest
}

// countVotes counts the votes of a run of the log of witnesses.
func (r *replica) countVotes(voter uint64, run *log.Run) error {
	if r.diverged.Load() != nil {
		return nil
	}
	for _, payload := range run.Records() {
		if len(payload) != voteSize {
			continue // never written by this program
		}
		number, digest := binary.LittleEndian.Uint64(payload), log.Digest(payload[8:])
		if number == 0 || number > r.state.number {
			continue
		}
		own, known, err := r.digestOf(number)
		if err != nil {
			return err
		}
		b := r.witness.on(number)
		if b == nil || b.decided || !known {
			continue
		}
		b.votes[voter] = digest
		if own != digest {
			r.witness.suspect(number)
		}
		winner, decided := r.witness.verdict(b)
		b.decided = decided
		if decided && own != winner {
			if err := r.diverge(number, own, winner); err != nil {
				return err
			}
		}
	}
	return nil
}

// diverge stops the replica from serving the group. A zero winner: no majority
// has the same digest.
func (r *replica) diverge(number uint64, own, winner log.Digest) error {
	if r.diverged.Load() != nil {
		return nil
	}
	mark := binary.LittleEndian.AppendUint64(nil, number)
	mark = append(mark, winner[:]...)
	if err := r.batch.Set(appendMetaKey(nil, r.shard, metaDiverged), mark, nil); err != nil {
		return err
	}
	err := r.divergedAt(number, own, winner)
	r.diverged.Store(&err)
	if r.onDiverged != nil {
		r.onDiverged(err)
	}
	return nil
}

// divergedAt describes the divergence for a person, with the keys whose views
// the commit changed.
func (r *replica) divergedAt(number uint64, own, winner log.Digest) error {
	var keys string
	if number <= r.archivedTo.Load() {
		keys = " unknown"
	} else if c, err := r.storedCommit(number); err == nil {
		for run, err := range c.Runs() {
			if err != nil {
				break // the digest is wrong anyway
			}
			keys += " " + run.Key.Short()
		}
	}
	if winner.IsZero() {
		return fmt.Errorf("%w: group %s, commit %d (keys%s): no two members have the same digest, here it is %s", log.ErrDiverged, r.group.Short(), number, keys, own)
	}
	return fmt.Errorf("%w: group %s, commit %d (keys%s): digest %s, the majority has %s: group refold builds the views anew",
		log.ErrDiverged, r.group.Short(), number, keys, own, winner)
}

// divergence returns an error that wraps log.ErrDiverged if the replica has
// diverged.
func (r *replica) divergence() error {
	if err := r.diverged.Load(); err != nil {
		return *err
	}
	return nil
}

// loadDivergence restores what diverge has written.
func (r *replica) loadDivergence() error {
	r.diverged.Store(nil)
	mark, ok, err := r.loadMark()
	if err != nil || !ok {
		return err
	}
	var own log.Digest // unknown, if the commit is archived: other members would have to be asked
	if mark.number > r.archivedTo.Load() {
		if own, _, err = r.digestOf(mark.number); err != nil {
			return err
		}
	}
	cause := r.divergedAt(mark.number, own, mark.digest)
	r.diverged.Store(&cause)
	return nil
}

// loadMark reads what the majority has for the commit where this replica
// diverged.
func (r *replica) loadMark() (mark recentDigest, ok bool, err error) {
	v, closer, err := r.db.Get(appendMetaKey(nil, r.shard, metaDiverged))
	if errors.Is(err, pebble.ErrNotFound) {
		return mark, false, nil
	}
	if err != nil {
		return mark, false, r.corrupt(0, err)
	}
	defer closer.Close()
	if len(v) != voteSize {
		return mark, false, &log.CorruptionError{Group: r.group, Err: errors.New("the mark of a divergence has another size")}
	}
	return recentDigest{binary.LittleEndian.Uint64(v), log.Digest(v[8:])}, true, nil
}

// runWitness commits this replica's votes.
func (g *Group) runWitness(ctx context.Context, done func()) {
	defer done()
	for {
		select {
		case <-ctx.Done():
			return
		case number := <-g.replica.witness.ask:
			for !g.engine.closing() && g.seat() != 0 { // a reader is no witness
				err := g.vote(ctx, number)
				if err == nil {
					break
				}
				g.engine.opts.Logger.Warn("vote on a commit's digest failed and will be tried again", "group", g.name, "commit", number, "err", err)
				g.pause(systemTimeout / 10)
			}
		}
	}
}

// vote commits this replica's digest of a commit to the log of witnesses.
func (g *Group) vote(ctx context.Context, number uint64) error {
	h, err := g.replica.header(number)
	if err != nil {
		return err
	}
	digest := h.Digest()
	ctx, cancel := context.WithTimeout(ctx, systemTimeout)
	defer cancel()
	return g.appendSystem(ctx, witnessKey, append(binary.LittleEndian.AppendUint64(nil, number), digest[:]...))
}
