package oracle

import (
	"errors"
	"fmt"
	"strings"

	"github.com/mosaik-engine/mosaik/identity"
)

// Difference is a field of a tick that is not what its round gives.
type Difference struct {
	Field string // such as "price"
	Have  string // what the tick says
	Want  string // what follows from the round
}

// AuditError says in what a tick is not the one that follows from its round, field by field.
type AuditError struct {
	Seq         uint64       // of the round
	Pair        Pair         // of the round
	Differences []Difference // at least one
}

// Error lists the differences.
func (e *AuditError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "mosaik: the tick of %v, seq %d, does not follow from its round", e.Pair, e.Seq)
	for i, d := range e.Differences {
		b.WriteString([...]string{": ", "; "}[min(i, 1)])
		fmt.Fprintf(&b, "%s is %s, not %s", d.Field, d.Have, d.Want)
	}
	return b.String()
}

// seen is what a source has said last that counted.
type seen struct {
	at    int64 // in nanoseconds since 1970
	price Price // 0: nothing yet
}

// history is what is known of the rounds before, to judge the next one.
type history struct {
	seq         uint64 // of the last round; 0: there was none
	timestampMs uint64 // of it
	sources     []seen // in the parameters' order
	// wholeMs is the timestamp after which nothing that is not known can matter: what was
	// observed before the first round that is known is too old then.
	wholeMs uint64
}

// judge says whether a price counts, by its time: its age, and what its source has said
// before. A source may say again what it has said, until that is too old.
func (h *history) judge(u *rules, timestampMs uint64, i int, o *Observation) Reason {
	if reason := u.age(timestampMs, o.ObservedAt); reason != Available {
		return reason
	}
	switch last := h.sources[i]; {
	case last.price == 0 || o.ObservedAt > last.at:
		return Available
	case o.ObservedAt < last.at:
		return Backwards
	case o.Price != last.price:
		return Contradiction
	}
	return Available
}

// begin makes the round the first one that is known of, without what it says.
func (h *history) begin(u *rules, r *Round) {
	h.seq, h.timestampMs, h.wholeMs = r.Seq, r.TimestampMs, 0
	if r.Seq != 1 {
		h.wholeMs = r.TimestampMs + uint64((u.p.MaxAge + u.p.MaxAhead).Milliseconds())
	}
	clear(h.sources)
}

// add makes the round the last one.
func (h *history) add(u *rules, r *Round) {
	if h.seq == 0 {
		h.begin(u, r)
	}
	h.seq, h.timestampMs = r.Seq, r.TimestampMs
	for i := range r.Observations {
		if o := &r.Observations[i]; o.Reason == Available {
			h.sources[i] = seen{o.ObservedAt, o.Price}
		}
	}
}

// check holds a round against those before it.
func (h *history) check(u *rules, r *Round) error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: seq %d: "+format, append([]any{ErrRound, r.Seq}, args...)...)
	}
	if h.seq != 0 {
		switch {
		case r.Seq != h.seq+1:
			return bad("seq: the round before has %d", h.seq)
		case r.TimestampMs <= h.timestampMs:
			return bad("timestamp: %d, the round before has %d", r.TimestampMs, h.timestampMs)
		}
	}
	for i := range r.Observations {
		o := &r.Observations[i]
		if o.Price == 0 {
			continue
		}
		want := h.judge(u, r.TimestampMs, i, o)
		// That a price does not count for what was said before what is known, may be so.
		unknown := (h.seq == 0 && r.Seq != 1 || r.TimestampMs <= h.wholeMs) && (o.Reason == Backwards || o.Reason == Contradiction)
		if o.Reason != want && !unknown {
			return bad("observation %d: it is %v, after what the source said before it is %v", i, o.Reason, want)
		}
	}
	return nil
}

// Auditor recomputes the ticks of one pair from their rounds. It is for one goroutine.
//
// One that does not begin with the first round knows nothing of what sources said before.
// Until MaxAge and MaxAhead after its first round it believes a round that says of a price
// that it does not count for that; from then on it knows all that matters.
type Auditor struct {
	rules    *rules
	stableID identity.ID
	admitted func(identity.PeerID) bool
	history  history
}

// NewAuditor returns an auditor of a pair of the oracle with that stable id. It keeps p,
// which must not be changed. admitted says whose ticks count (PriceTick.Verify). The error is
// a *FieldError or wraps ErrRound.
func NewAuditor(p *Parameters, stableID identity.ID, pair Pair, admitted func(identity.PeerID) bool) (*Auditor, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	u, err := newRules(p, pair)
	if err != nil {
		return nil, err
	}
	return &Auditor{rules: u, stableID: stableID, admitted: admitted, history: history{sources: make([]seen, len(u.feed.Sources))}}, nil
}

// AuditTick holds a tick against its round alone. The error is an *AuditError if the tick is
// not the one that follows, or if none does; it wraps ErrRound if the round cannot be.
func (a *Auditor) AuditTick(r *Round, t *PriceTick) error {
	if err := a.rules.check(r); err != nil {
		return err
	}
	return a.auditTick(r, t)
}

// auditTick is AuditTick of a round that has been checked.
func (a *Auditor) auditTick(r *Round, t *PriceTick) error {
	want, err := a.rules.compute(r)
	if err != nil {
		return &AuditError{r.Seq, r.Pair, []Difference{{"tick", "there", "expected: the round is below its quorum"}}}
	}
	want.Signer, want.Signature = t.Signer, t.Signature
	verified := t.Verify(a.stableID, a.admitted)
	if *t == want && verified == nil {
		return nil
	}
	e := &AuditError{Seq: r.Seq, Pair: r.Pair, Differences: differences(t, &want)}
	switch {
	case errors.Is(verified, ErrSigner):
		e.Differences = append(e.Differences, Difference{"signer", t.Signer.String(), "one that is admitted"})
	case verified != nil:
		e.Differences = append(e.Differences, Difference{"signature", fmt.Sprintf("%x", t.Signature[:8]), "the signer's for this stream"})
	}
	return e
}

// Next audits the rounds of the pair one after the other: each must have the next seq, a
// later time and the observations that count after those before it. t is its tick, nil if
// there is none. The errors are those of AuditTick; a tick that is missing is an *AuditError
// too. The next round is judged after this one, unless the error wraps ErrRound.
func (a *Auditor) Next(r *Round, t *PriceTick) error {
	if err := a.rules.check(r); err != nil {
		return err
	}
	if err := a.history.check(a.rules, r); err != nil {
		return err
	}
	a.history.add(a.rules, r)
	if t != nil {
		return a.auditTick(r, t)
	}
	if _, err := a.rules.compute(r); err == nil {
		return &AuditError{r.Seq, r.Pair, []Difference{{"tick", "missing", "skipped: the round is not below its quorum"}}}
	}
	return nil
}

// differences lists the fields in which t is not want, but signer and signature.
func differences(t, want *PriceTick) (all []Difference) {
	for _, f := range [...]struct {
		name       string
		have, want any
	}{
		{"timestamp", t.TimestampMs, want.TimestampMs},
		{"pair", t.Pair, want.Pair},
		{"price", t.Price.Format(min(t.Decimals, MaxDecimals)), want.Price.Format(want.Decimals)},
		{"confidence", t.Confidence.Format(min(t.Decimals, MaxDecimals)), want.Confidence.Format(want.Decimals)},
		{"source set", t.SourceSet, want.SourceSet},
		{"source count", t.SourceCount, want.SourceCount},
		{"stale", t.Stale, want.Stale},
		{"seq", t.Seq, want.Seq},
		{"disagreement", t.Disagreement, want.Disagreement},
		{"decimals", t.Decimals, want.Decimals},
		{"parameters", t.Parameters, want.Parameters},
		{"round", t.Round, want.Round},
	} {
		if have, want := fmt.Sprint(f.have), fmt.Sprint(f.want); have != want {
			all = append(all, Difference{f.name, have, want})
		}
	}
	return all
}
