// Package reputation is the organism that folds what others did into a score for each:
// reputation feedback. Its utility, which says what counts for how much and for how long, is
// its config, so another utility is another revision and a floor that names the old one
// admits nobody by the new one.
//
// # Parameters
//
//	window 8 | decay 4 | n 2 | kind 2, weight 4 of each
//
// Integers are little-endian; the window is in nanoseconds, the decay in millionths, weights
// are signed.
//
// # Events
//
// A commit of the one primitive, [Cards], is an event: something a subject did, how often.
// It needs evidence, one piece or more.
//
//	subject 32 | kind 2 | count 4
//
// It counts in the window of its commit's time: number floor(time / window). So no event is
// too late, and no replica asks a clock. The result is 1, or 0 if the event was not taken: it is
// malformed, without evidence, of a kind without a weight, or of one subject more than there can be.
//
// # Score
//
// In thousandths, integers all the way. An event adds 1000 x weight x count. From one window
// to the next a score is multiplied by decay / 10^6; over n windows by the factor that
// squaring gives in steps of 10^-9, rounded towards zero at each step. Sums stop at ±2^62.
//
// # Rows
//
//	0x01, subject 32 -> window 8 | score 8 | events in the window 4 | events ever 8 | evidence 32
//	0x02             -> number of subjects 8
//
// score is as of the window. evidence folds the events of the window in their order: it begins
// as zeros, and each makes it H(evidence || subject || kind || count || commit's evidence in
// its encoding).
//
// The package starts no goroutine and takes no lock.
package reputation

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/organisms"
)

// Role is the role of the organism.
const Role = "reputation"

// Cards is the name of its surface.
const Cards = "cards"

// Limits.
const (
	MaxKinds    = 64        // of events
	MaxWeight   = 1_000_000 // of a kind, and -MaxWeight
	MaxCount    = 1_000_000 // of an event
	MaxSubjects = 1 << 20   // with a card
	// MinWindow is the shortest window.
	MinWindow = time.Second
	// Whole is the decay that forgets nothing.
	Whole = 1_000_000
)

// Weight is what a kind of event counts for.
type Weight struct {
	Kind   uint16 // what it is called in events
	Weight int32  // ±MaxWeight, not 0
}

// Parameters are the utility.
type Parameters struct {
	// Window is how long a window is, at least MinWindow.
	Window time.Duration
	// Decay is what is left of a score from one window to the next, in millionths: at most
	// Whole.
	Decay uint32
	// Weights are the kinds that count, each once, 1 to MaxKinds.
	Weights []Weight
}

// Validate reports parameters beyond their limits. The error wraps organisms.ErrConfig and
// names the field.
func (p *Parameters) Validate() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: "+format, append([]any{organisms.ErrConfig}, args...)...)
	}
	switch {
	case p.Window < MinWindow:
		return bad("window: %v, at least %v is possible", p.Window, MinWindow)
	case p.Decay > Whole:
		return bad("decay: %d, at most %d is possible", p.Decay, Whole)
	case len(p.Weights) == 0 || len(p.Weights) > MaxKinds:
		return bad("weights: %d, 1 to %d are possible", len(p.Weights), MaxKinds)
	}
	seen := make(map[uint16]bool)
	for i, w := range p.Weights {
		if w.Weight == 0 || w.Weight > MaxWeight || w.Weight < -MaxWeight || seen[w.Kind] {
			return bad("weights[%d]: %d for kind %d: it is 0, beyond %d, or there twice", i, w.Weight, w.Kind, MaxWeight)
		}
		seen[w.Kind] = true
	}
	return nil
}

// Config returns the config of a reputation organism. The error wraps organisms.ErrConfig.
func Config(instanceName string, p Parameters) (organisms.Config, error) {
	c := organisms.Config{Role: Role, InstanceName: instanceName}
	if err := p.Validate(); err != nil {
		return c, err
	}
	b := binary.LittleEndian.AppendUint64(nil, uint64(p.Window))
	b = binary.LittleEndian.AppendUint32(b, p.Decay)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(p.Weights)))
	for _, w := range p.Weights {
		b = binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint16(b, w.Kind), uint32(w.Weight))
	}
	c.Parameters = b
	return c, c.Validate()
}

// DecodeParameters decodes those of a config. The error wraps organisms.ErrConfig.
func DecodeParameters(b []byte) (p Parameters, err error) {
	if len(b) < 14 || len(b) != 14+6*int(binary.LittleEndian.Uint16(b[12:])) {
		return p, fmt.Errorf("%w: parameters: malformed", organisms.ErrConfig)
	}
	p.Window, p.Decay = time.Duration(binary.LittleEndian.Uint64(b)), binary.LittleEndian.Uint32(b[8:])
	for rest := b[14:]; len(rest) > 0; rest = rest[6:] {
		p.Weights = append(p.Weights, Weight{binary.LittleEndian.Uint16(rest), int32(binary.LittleEndian.Uint32(rest[2:]))})
	}
	return p, p.Validate()
}

// Definition returns what a reputation organism is made of.
func Definition() organisms.Definition {
	return organisms.Definition{Role: Role, Surface: []organisms.Primitive{{Name: Cards, Machine: machine{}}}}
}

// Event returns the commit that a subject has done something of a kind, so many times.
func Event(subject identity.ID, kind uint16, count uint32) []byte {
	b := binary.LittleEndian.AppendUint16(subject[:], kind)
	return binary.LittleEndian.AppendUint32(b, count)
}

// Card is what is known of a subject.
type Card struct {
	// Window is the window that the card is of.
	Window uint64
	// Score is as of that window, in thousandths.
	Score int64
	// Events are how many there were in the window, and Ever in all.
	Events uint32
	Ever   uint64
	// Evidence folds those of the window (package comment).
	Evidence identity.ID
}

const cardSize = 8 + 8 + 4 + 8 + identity.Size

func (c *Card) append() []byte {
	b := binary.LittleEndian.AppendUint64(nil, c.Window)
	b = binary.LittleEndian.AppendUint64(b, uint64(c.Score))
	b = binary.LittleEndian.AppendUint32(b, c.Events)
	b = binary.LittleEndian.AppendUint64(b, c.Ever)
	return append(b, c.Evidence[:]...)
}

var errRow = errors.New("mosaik: a row of a reputation organism is malformed")

func decodeCard(b []byte) (c Card, err error) {
	if len(b) != cardSize {
		return c, errRow
	}
	c.Window, c.Score = binary.LittleEndian.Uint64(b), int64(binary.LittleEndian.Uint64(b[8:]))
	c.Events, c.Ever = binary.LittleEndian.Uint32(b[16:]), binary.LittleEndian.Uint64(b[20:])
	c.Evidence = identity.ID(b[28:])
	return c, nil
}

// In returns the card as it is in a later window, if nothing more happens.
func (c Card) In(window uint64, p *Parameters) Card {
	if window <= c.Window {
		return c
	}
	return Card{Window: window, Score: scale(c.Score, power(p.Decay, window-c.Window)), Ever: c.Ever}
}

// giga is what factors are in units of.
const giga = 1_000_000_000

// power returns decay^n, in units of 10^-9.
func power(decay uint32, n uint64) uint64 {
	result, base := uint64(giga), uint64(decay)*(giga/Whole)
	for ; n > 0; n >>= 1 {
		if n&1 == 1 {
			result = result * base / giga // below 10^18
		}
		base = base * base / giga
	}
	return result
}

// scale returns a score times a factor, rounded towards zero.
func scale(score int64, factor uint64) int64 {
	magnitude := uint64(max(score, -score)) // at most 2^62
	hi, lo := bits.Mul64(magnitude, factor)
	q, _ := bits.Div64(hi, lo, giga) // hi is below giga, since factor is at most that
	if score < 0 {
		return -int64(q)
	}
	return int64(q)
}

// limit is where scores stop.
const limit = 1 << 62

// add adds an event to the card, whose window has come.
func (c *Card) add(subject identity.ID, kind uint16, weight int32, count uint32, evidence []byte) {
	c.Score = min(max(c.Score+1000*int64(weight)*int64(count), -limit), limit)
	c.Events++
	c.Ever++
	c.Evidence = identity.FromParts(c.Evidence[:], Event(subject, kind, count), evidence)
}

func cardRow(subject identity.ID) []byte { return append([]byte{1}, subject[:]...) }

var countRow = []byte{2}

const (
	resultRefused = 0
	resultTaken   = 1
)

// machine folds events.
type machine struct{}

// Signature implements organisms.Machine.
func (machine) Signature() string { return "mosaik.reputation.v1" }

// Apply implements organisms.Machine.
func (machine) Apply(tx *log.Tx, c *organisms.Commit) ([]byte, error) {
	refused := []byte{resultRefused}
	p, err := DecodeParameters(c.Parameters)
	if err != nil || len(c.Body) != identity.Size+6 || len(c.Evidence) == 0 || c.Time < 0 {
		return refused, nil
	}
	subject, kind, count := identity.ID(c.Body[:identity.Size]), binary.LittleEndian.Uint16(c.Body[identity.Size:]), binary.LittleEndian.Uint32(c.Body[identity.Size+2:])
	weight := p.weight(kind)
	if weight == 0 || count == 0 || count > MaxCount {
		return refused, nil
	}
	row, known, err := tx.Get(cardRow(subject))
	if err != nil {
		return nil, err
	}
	var card Card
	if known {
		if card, err = decodeCard(row.Value); err != nil {
			return nil, err
		}
	} else if ok, err := countSubject(tx); err != nil || !ok {
		return refused, err
	}
	card = card.In(p.window(c.Time), &p)
	card.add(subject, kind, weight, count, organisms.AppendEvidence(nil, c.Evidence))
	return []byte{resultTaken}, tx.Set(cardRow(subject), card.append())
}

func (p *Parameters) weight(kind uint16) int32 {
	for _, w := range p.Weights {
		if w.Kind == kind {
			return w.Weight
		}
	}
	return 0
}

// window returns the window of a time in Unix nanoseconds.
func (p *Parameters) window(time int64) uint64 { return uint64(time) / uint64(p.Window) }

// countSubject counts one subject more; false: there can be no more.
func countSubject(tx *log.Tx) (bool, error) {
	row, _, err := tx.Get(countRow)
	if err != nil {
		return false, err
	}
	n := uint64(0)
	if len(row.Value) == 8 {
		n = binary.LittleEndian.Uint64(row.Value)
	}
	if n >= MaxSubjects {
		return false, nil
	}
	return true, tx.Set(countRow, binary.LittleEndian.AppendUint64(nil, n+1))
}

// Read returns the card of a subject as of a time, by the store of a surface; false: nothing
// is known of it.
func Read(ctx context.Context, s *organisms.Surface, subject identity.ID, at time.Time, c log.Consistency) (Card, bool, error) {
	b, err := s.Parameters(ctx, c)
	if err != nil {
		return Card{}, false, err
	}
	p, err := DecodeParameters(b)
	if err != nil {
		return Card{}, false, err
	}
	v, err := s.View(ctx, Cards, c)
	if err != nil {
		return Card{}, false, err
	}
	row, ok, err := v.Get(cardRow(subject))
	if err != nil || !ok {
		return Card{}, false, err
	}
	card, err := decodeCard(row.Value)
	return card.In(p.window(at.UnixNano()), &p), err == nil, err
}

// Floor is the clause that a peer's score is at least so much. It names the utility as well:
// under another revision it admits nobody. It implements identity.Clause.
type Floor struct {
	// Reputation is the organism, pinned.
	Reputation organisms.Ref
	// Score is the floor, in thousandths.
	Score int64
	// Surface is where scores are looked up: the organism's, bound by Reputation.
	Surface *organisms.Surface
	// Timeout bounds a look-up, which is one of the store that the surface has. 0: a second.
	Timeout time.Duration
}

// Signature implements identity.Clause: NewID("mosaik.clause.reputation-floor.v1"), derived by
// the stable id, the content hash or zeros, and the score, 8 bytes.
func (f Floor) Signature() identity.ID {
	var pin identity.ID
	if f.Reputation.ContentHash != nil {
		pin = *f.Reputation.ContentHash
	}
	score := binary.LittleEndian.AppendUint64(nil, uint64(f.Score))
	return identity.NewID("mosaik.clause.reputation-floor.v1").DeriveID(f.Reputation.StableID).DeriveID(pin).Derive(string(score))
}

// Admit implements identity.Clause: until the end of the window of now. The subject of a peer
// is its 32 bytes.
func (f Floor) Admit(e *identity.PeerEntry, now time.Time) (identity.Expiration, error) {
	refuse := func(err error) (identity.Expiration, error) {
		return identity.Expiration{}, &identity.TicketError{Reason: identity.ReasonClaim, Err: err}
	}
	timeout := f.Timeout
	if timeout == 0 {
		timeout = time.Second
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	hash, err := f.Surface.ContentHash(ctx)
	if err != nil {
		return refuse(err)
	}
	if pin := f.Reputation.ContentHash; f.Surface.Ref().StableID != f.Reputation.StableID || pin == nil || *pin != hash {
		return refuse(fmt.Errorf("%w: the floor is by another one", organisms.ErrRevision))
	}
	b, err := f.Surface.Parameters(ctx, log.Stale())
	if err != nil {
		return refuse(err)
	}
	p, err := DecodeParameters(b)
	if err != nil {
		return refuse(err)
	}
	card, _, err := Read(ctx, f.Surface, identity.ID(e.Peer), now, log.Stale())
	if err != nil {
		return refuse(err)
	}
	if card.Score < f.Score {
		return refuse(fmt.Errorf("mosaik: its score is %d thousandths, the floor is %d", card.Score, f.Score))
	}
	end := int64((p.window(now.UnixNano()) + 1) * uint64(p.Window))
	return identity.ExpiresAt(time.Unix(0, end)), nil
}

// ErrCard says that a card is not what follows from the events.
var ErrCard = errors.New("mosaik: a card does not follow from the events")

// Audit folds all events again, from the commits alone, and compares the cards of the view.
// The error wraps ErrCard and names the subject. It returns how many cards hold.
func Audit(ctx context.Context, s *organisms.Surface) (cards int, err error) {
	folded := make(map[identity.ID]Card)
	var p Parameters
	var inForce []byte
	at := uint64(0)
	for e, err := range s.Commits(ctx, Cards, log.Earliest(), false) {
		if errors.Is(err, organisms.ErrRetired) {
			break
		}
		if err != nil {
			return 0, err
		}
		b, err := s.Parameters(ctx, log.AsOf(e.Pointer.Commit))
		if err != nil {
			return 0, err
		}
		if string(b) != string(inForce) {
			if p, err = DecodeParameters(b); err != nil {
				return 0, err
			}
			inForce = b
		}
		at = e.Pointer.Commit
		if len(e.Body) != identity.Size+6 || len(e.Evidence) == 0 {
			continue
		}
		subject, kind, count := identity.ID(e.Body[:identity.Size]), binary.LittleEndian.Uint16(e.Body[identity.Size:]), binary.LittleEndian.Uint32(e.Body[identity.Size+2:])
		card, known := folded[subject]
		weight := p.weight(kind)
		if weight == 0 || count == 0 || count > MaxCount || !known && len(folded) >= MaxSubjects {
			continue
		}
		card = card.In(p.window(e.Time), &p)
		card.add(subject, kind, weight, count, organisms.AppendEvidence(nil, e.Evidence))
		folded[subject] = card
	}
	if at == 0 {
		return 0, nil
	}
	v, err := s.View(ctx, Cards, log.AsOf(at))
	if err != nil {
		return 0, err
	}
	for row, err := range v.Scan(log.Range{From: []byte{1}, To: []byte{2}}) {
		if err != nil {
			return cards, err
		}
		if len(row.Key) != 1+identity.Size {
			return cards, errRow
		}
		subject := identity.ID(row.Key[1:])
		card, err := decodeCard(row.Value)
		if err != nil {
			return cards, err
		}
		if want, ok := folded[subject]; !ok || card != want {
			return cards, fmt.Errorf("%w: of %s: it is %+v, not %+v", ErrCard, subject, card, want)
		}
		cards++
	}
	if cards != len(folded) {
		return cards, fmt.Errorf("%w: there are %d, not %d", ErrCard, cards, len(folded))
	}
	return cards, nil
}
