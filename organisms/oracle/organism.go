package oracle

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/organisms"
)

// Config returns the config of an oracle with these parameters, which Validate accepts.
// Measurements and ACL are the operator's to set.
func Config(instanceName string, p *Parameters) organisms.Config {
	return organisms.Config{Role: Role, InstanceName: instanceName, Parameters: p.Append(nil)}
}

// Definition returns what an oracle of these pairs is made of: of each pair a stream of
// ticks and one of the rounds they were computed from, both public, so that anybody can
// compute the ticks again.
func Definition(pairs ...Pair) organisms.Definition {
	d := organisms.Definition{Role: Role}
	for _, pair := range pairs {
		d.Surface = append(d.Surface,
			organisms.Primitive{Name: ticksOf(pair), Machine: seqMachine{"mosaik.oracle.ticks.v1", seqOfTick, true},
				Key: func(stableID identity.ID) identity.ID { return StreamID(stableID, pair) }},
			organisms.Primitive{Name: roundsOf(pair), Machine: seqMachine{"mosaik.oracle.rounds.v1", seqOfRound, false},
				Key: func(stableID identity.ID) identity.ID { return RoundsID(stableID, pair) }},
		)
	}
	return d
}

// Pairs returns the pairs of the parameters, for Definition.
func (p *Parameters) Pairs() []Pair {
	pairs := make([]Pair, len(p.Feeds))
	for i := range p.Feeds {
		pairs[i] = p.Feeds[i].Pair
	}
	return pairs
}

// The names of a pair's primitives; a pair and its inverse have the same.
func ticksOf(pair Pair) string  { return "ticks " + pair.sorted().String() }
func roundsOf(pair Pair) string { return "rounds " + pair.sorted().String() }

// seqMachine keeps the last of what has a seq, and takes only what comes after it. Its one
// row, under 0x01, is what was taken last. Whether a tick follows from its round, and who has
// signed it, is not for the machine: Audit and Reader say.
type seqMachine struct {
	signature string
	seqOf     func([]byte) (uint64, error)
	gaps      bool // a later seq than the next is taken as well
}

// Signature implements organisms.Machine.
func (m seqMachine) Signature() string { return m.signature }

// lastRow is the key of the row.
var lastRow = []byte{1}

// Results of the machine.
const (
	resultTaken   = 1
	resultRefused = 0 // it is malformed, or its seq is not next
)

// Apply implements organisms.Machine.
func (m seqMachine) Apply(tx *log.Tx, c *organisms.Commit) ([]byte, error) {
	seq, err := m.seqOf(c.Body)
	if err != nil {
		return []byte{resultRefused}, nil
	}
	row, known, err := tx.Get(lastRow)
	if err != nil {
		return nil, err
	}
	last := uint64(0)
	if known {
		if last, err = m.seqOf(row.Value); err != nil {
			return nil, err
		}
	}
	if seq <= last || !m.gaps && seq != last+1 {
		return []byte{resultRefused}, nil
	}
	return []byte{resultTaken}, tx.Set(lastRow, c.Body)
}

func seqOfTick(b []byte) (uint64, error) {
	t, err := DecodeTick(b)
	return t.Seq, err
}

func seqOfRound(b []byte) (uint64, error) {
	r, err := DecodeRound(b)
	return r.Seq, err
}

// Published is a tick with its place.
type Published struct {
	PriceTick
	// Pointer is evidence of it.
	Pointer log.Pointer
}

// Reader reads the ticks of one pair, wherever its surface is from. It believes no tick
// that is not signed by somebody who is admitted.
type Reader struct {
	surface  *organisms.Surface
	pair     Pair
	admitted func(identity.PeerID) bool
}

// NewReader returns a reader of a pair, or of its inverse: ticks are of the pair as the oracle
// declares it. admitted says whose signatures count, such as those whose quotes fulfil the
// oracle's measurements.
func NewReader(s *organisms.Surface, pair Pair, admitted func(identity.PeerID) bool) *Reader {
	return &Reader{surface: s, pair: pair, admitted: admitted}
}

// Bind returns a reader of a pair of the oracle that a reference names, from a store that
// has it (organisms.Bind).
func Bind(ctx context.Context, s log.Store, ref organisms.Ref, pair Pair, admitted func(identity.PeerID) bool) (*Reader, error) {
	surface, err := organisms.Bind(ctx, s, ref, Definition(pair))
	if err != nil {
		return nil, err
	}
	return NewReader(surface, pair, admitted), nil
}

// Surface returns the oracle's surface, as far as it is of the pair.
func (r *Reader) Surface() *organisms.Surface { return r.surface }

// Latest returns the last tick, as the store has it by now; log.ErrNotFound: there is none
// yet. The error wraps ErrSigner or ErrSignature for one that is not to be believed.
func (r *Reader) Latest(ctx context.Context) (PriceTick, error) {
	var t PriceTick
	v, err := r.surface.View(ctx, ticksOf(r.pair), log.Stale())
	if err != nil {
		return t, err
	}
	row, ok, err := v.Get(lastRow)
	if err != nil {
		return t, err
	}
	if !ok {
		return t, fmt.Errorf("%w: there is no tick of %v yet", log.ErrNotFound, r.pair)
	}
	if t, err = DecodeTick(row.Value); err != nil {
		return t, err
	}
	return t, t.Verify(r.surface.Ref().StableID, r.admitted)
}

// Ticks yields the ticks from a position on, and with follow waits for more. What the
// oracle's machine has refused is left out. A tick that is not to be believed ends the
// reading with ErrSigner or ErrSignature and its pointer; the end of the oracle and of a pinned
// revision are errors of organisms.Surface.Commits.
func (r *Reader) Ticks(ctx context.Context, from log.Position, follow bool) iter.Seq2[Published, error] {
	return func(yield func(Published, error) bool) {
		last := uint64(0)
		for e, err := range r.surface.Commits(ctx, ticksOf(r.pair), from, follow) {
			if err != nil {
				yield(Published{}, err)
				return
			}
			t, err := DecodeTick(e.Body)
			if err != nil || t.Seq <= last {
				continue // refused
			}
			if err := t.Verify(r.surface.Ref().StableID, r.admitted); err != nil {
				yield(Published{}, fmt.Errorf("tick %s: %w", e.Pointer, err))
				return
			}
			last = t.Seq
			if !yield(Published{t, e.Pointer}, nil) {
				return
			}
		}
	}
}

// AuditReport says what an audit has looked at.
type AuditReport struct {
	Rounds  uint64
	Ticks   uint64
	Skipped uint64 // rounds below the quorum, which have no tick
}

// Audit computes every tick of the pair again from its round, and compares: the price and
// all else that is in it, its signature, the order of rounds and what each source said in
// it before. It stops at the first tick or round that does not hold, with an *AuditError or
// another error that names its pointer. Rounds of a later revision are judged by the
// parameters of that.
func (r *Reader) Audit(ctx context.Context) (AuditReport, error) {
	var report AuditReport
	ticks, stop := iter.Pull2(r.surface.Commits(ctx, ticksOf(r.pair), log.Earliest(), false))
	defer stop()
	lastTick := uint64(0)
	next := func() (t *PriceTick, at log.Pointer, err error) {
		for {
			e, err, ok := ticks()
			if !ok || errors.Is(err, organisms.ErrRetired) {
				return nil, at, nil
			}
			if err != nil {
				return nil, at, err
			}
			if t, err := DecodeTick(e.Body); err == nil && t.Seq > lastTick { // else it was refused
				lastTick = t.Seq
				return &t, e.Pointer, nil
			}
		}
	}
	tick, at, err := next()
	if err != nil {
		return report, err
	}
	var auditor *Auditor
	var under identity.ID
	last := uint64(0)
	for e, err := range r.surface.Commits(ctx, roundsOf(r.pair), log.Earliest(), false) {
		if errors.Is(err, organisms.ErrRetired) {
			break
		}
		if err != nil {
			return report, err
		}
		round, err := DecodeRound(e.Body)
		if err != nil || round.Seq != last+1 {
			continue // refused
		}
		last = round.Seq
		if auditor == nil || under != round.Parameters {
			if auditor, err = r.auditor(ctx, e.Pointer.Commit, round.Parameters); err != nil {
				return report, fmt.Errorf("round %s: %w", e.Pointer, err)
			}
			under = round.Parameters
		}
		var of *PriceTick
		if tick != nil && tick.Seq <= round.Seq {
			of = tick
		}
		if err := auditor.Next(&round, of); err != nil {
			where := e.Pointer
			if of != nil {
				where = at
			}
			return report, fmt.Errorf("%s: %w", where, err)
		}
		report.Rounds++
		if of == nil {
			report.Skipped++
			continue
		}
		report.Ticks++
		if tick, at, err = next(); err != nil {
			return report, err
		}
	}
	if tick != nil {
		return report, fmt.Errorf("%s: %w: the tick of seq %d has no round", at, ErrRound, tick.Seq)
	}
	return report, nil
}

// auditor returns one for the revision that was in force at a commit.
func (r *Reader) auditor(ctx context.Context, commit uint64, digest identity.ID) (*Auditor, error) {
	b, err := r.surface.Parameters(ctx, log.AsOf(commit))
	if err != nil {
		return nil, err
	}
	p, err := DecodeParameters(b)
	if err != nil {
		return nil, err
	}
	if have := p.Digest(); have != digest {
		return nil, fmt.Errorf("%w: parameters: it is of %s, in force were %s", ErrRound, digest.Short(), have.Short())
	}
	pair := r.pair
	for _, f := range p.Feeds {
		if f.Pair.sorted() == pair.sorted() {
			pair = f.Pair
		}
	}
	return NewAuditor(p, r.surface.Ref().StableID, pair, r.admitted)
}
