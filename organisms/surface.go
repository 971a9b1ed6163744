package organisms

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

// Surface is an organism as everybody else sees it: what it has committed to its public
// primitives, and nothing else. It is safe for concurrent use.
type Surface struct {
	store      log.Store
	ref        Ref
	definition Definition
}

// Bind returns the surface of the organism that a reference names, as a store has it: the
// group of the organism, a copy of its log, a node elsewhere.
//
// Errors: log.ErrNotFound if the store has no such organism; ErrRevision if the reference
// pins another revision than the one in force; ErrConfig for a definition of another role.
// An organism that has retired can be read.
func Bind(ctx context.Context, s log.Store, ref Ref, d Definition) (*Surface, error) {
	if err := ref.Validate(); err != nil {
		return nil, err
	}
	if ref.Role != d.Role || len(d.Surface) == 0 {
		return nil, fmt.Errorf("%w: role: %q, the definition is of %q", ErrConfig, ref.Role, d.Role)
	}
	f := &Surface{store: s, ref: ref, definition: d}
	now, err := f.revision(ctx, log.Stale())
	if err != nil {
		return nil, err
	}
	return f, f.pinned(now)
}

// Ref returns the reference.
func (f *Surface) Ref() Ref { return f.ref }

// Key returns the key of the log of a primitive. The error wraps ErrOffSurface for what is
// not public.
func (f *Surface) Key(primitive string) (identity.ID, error) {
	p, err := f.definition.surface(primitive)
	if err != nil {
		return identity.ID{}, err
	}
	return p.key(f.ref.StableID), nil
}

// pinned compares a revision with the one that the reference pins.
func (f *Surface) pinned(now identity.ID) error {
	if want := f.ref.ContentHash; want != nil && *want != now {
		return &RevisionError{Organism: f.ref.StableID, Want: *want, InForce: now}
	}
	return nil
}

// entry is what the directory says of a primitive: its name is its key in hex, which is
// what the key of that name is (identity.NewID).
func (f *Surface) entry(p *Primitive) log.DirectoryEntry {
	m := frame{p.machine()}
	return log.DirectoryEntry{Name: p.key(f.ref.StableID).String(), Kind: m.Signature(), Codec: framePrefix + "record"}
}

// view returns the view of a primitive.
func (f *Surface) view(ctx context.Context, p *Primitive, c log.Consistency) (log.View, error) {
	key := p.key(f.ref.StableID)
	return f.store.Home(key).View(ctx, key, c)
}

// revision returns the content hash in force.
func (f *Surface) revision(ctx context.Context, c log.Consistency) (identity.ID, error) {
	v, err := f.view(ctx, &f.definition.Surface[0], c)
	if err != nil {
		return identity.ID{}, err
	}
	row, ok, err := v.Get(revisionRow)
	if err == nil && !ok {
		err = fmt.Errorf("%w: the organism %s is not published here", log.ErrNotFound, f.ref.StableID.Short())
	}
	return identity.FromParts(row.Value), err
}

// ContentHash returns the revision in force, as the store has it.
func (f *Surface) ContentHash(ctx context.Context) (identity.ID, error) {
	return f.revision(ctx, log.Stale())
}

// Parameters returns those of the revision in force at a commit of the organism's group,
// so that an auditor judges each commit by the policy it was made under. The slice is the
// caller's.
func (f *Surface) Parameters(ctx context.Context, c log.Consistency) ([]byte, error) {
	v, err := f.view(ctx, &f.definition.Surface[0], c)
	if err != nil {
		return nil, err
	}
	row, ok, err := v.Get(revisionRow)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, fmt.Errorf("%w: the organism %s is not published here", log.ErrNotFound, f.ref.StableID.Short())
	}
	r, err := parseRevision(row.Value)
	return r.parameters, err
}

// Marker returns the organism's last commit, if it has retired.
func (f *Surface) Marker(ctx context.Context) (RetirementMarker, bool, error) {
	v, err := f.view(ctx, &f.definition.Surface[0], log.Linearizable())
	if err != nil {
		return RetirementMarker{}, false, err
	}
	row, ok, err := v.Get(markerRow)
	if err != nil || !ok {
		return RetirementMarker{}, false, err
	}
	m, err := decodeStoredMarker(row.Value)
	return m, true, err
}

// ended returns a *RetiredError if the organism has retired.
func (f *Surface) ended(ctx context.Context) error {
	m, retired, err := f.Marker(ctx)
	if err == nil && retired {
		err = &RetiredError{Marker: m}
	}
	return err
}

// Markers is what Resolve asks, answered by the surfaces of the organisms there are: bind
// returns that of a stable id, or an error that wraps log.ErrNotFound, which says that
// there is nothing to follow.
func Markers(bind func(context.Context, identity.ID) (*Surface, error)) func(context.Context, identity.ID) ([]RetirementMarker, error) {
	return func(ctx context.Context, id identity.ID) ([]RetirementMarker, error) {
		f, err := bind(ctx, id)
		if err != nil {
			if errors.Is(err, log.ErrNotFound) {
				return nil, nil
			}
			return nil, err
		}
		m, retired, err := f.Marker(ctx)
		if err != nil || !retired {
			return nil, err
		}
		return []RetirementMarker{m}, nil
	}
}

// View returns the view of a primitive: what its machine has folded. Rows whose keys
// begin with 0x00 are the frame's. The error wraps ErrOffSurface for what is not public.
func (f *Surface) View(ctx context.Context, primitive string, c log.Consistency) (log.View, error) {
	p, err := f.definition.surface(primitive)
	if err != nil {
		return nil, err
	}
	return f.view(ctx, p, c)
}

// Entry is a commit of an organism, with its place.
type Entry struct {
	Commit
	// Pointer is evidence of it.
	Pointer log.Pointer
}

// Commits yields the commits of a primitive from a position on, and with follow waits for
// more. What its machine has refused is among them; who needs to know folds them, or reads
// the view.
//
// An error is the last pair, with the zero Entry: a *RetiredError after the last commit of
// an organism that has retired, a *RevisionError where a revision begins that is not the
// one the reference pins, ErrOffSurface for what is not public, or that of a scan.
func (f *Surface) Commits(ctx context.Context, primitive string, from log.Position, follow bool) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		p, err := f.definition.surface(primitive)
		if err != nil {
			yield(Entry{}, err)
			return
		}
		for run, err := range f.store.Scan(ctx, log.Query{Key: p.key(f.ref.StableID), From: from, Follow: follow}) {
			if err != nil {
				yield(Entry{}, err)
				return
			}
			for seq, payload := range run.Records() {
				entry, ok, err := f.read(&run, seq, payload)
				if err != nil {
					yield(Entry{}, err)
					return
				}
				if ok && !yield(entry, nil) {
					return
				}
			}
		}
	}
}

// At returns the commit that a pointer is at, which is a record of a public primitive. The
// error wraps log.ErrPointer if the store has another commit there, log.ErrNotFound if it has
// none, and ErrOffSurface for what is not public.
func (f *Surface) At(ctx context.Context, p log.Pointer) (Entry, error) {
	public := false
	for _, key := range f.definition.PublicKeys(f.ref.StableID) {
		public = public || key == p.Key
	}
	if !public {
		return Entry{}, fmt.Errorf("%w: %s", ErrOffSurface, p)
	}
	for run, err := range f.store.Scan(ctx, log.Query{Key: p.Key, From: log.At(p), Until: p.Seq}) {
		if err != nil {
			return Entry{}, err
		}
		for seq, payload := range run.Records() {
			if e, ok, err := f.read(&run, seq, payload); ok || err != nil {
				return e, err
			}
		}
	}
	return Entry{}, fmt.Errorf("%w: %s is no commit of %s", log.ErrNotFound, p, f.ref.StableID.Short())
}

// read decodes a record; false: it is no commit.
func (f *Surface) read(run *log.Run, seq uint64, payload []byte) (e Entry, ok bool, err error) {
	if len(payload) == 0 {
		return e, false, nil
	}
	switch rest := payload[1:]; payload[0] {
	case recordRevision:
		if _, err := parseRevision(rest); err != nil {
			return e, false, nil // the machine has refused it
		}
		return e, false, f.pinned(identity.FromParts(rest))
	case recordRetire:
		m, err := decodeMarker(rest)
		if err != nil || m.Component != f.ref.StableID {
			return e, false, nil
		}
		m.Instant = RetirementInstant{Commit: run.Commit, UnixMs: uint64(run.Time / 1e6)}
		return e, false, &RetiredError{Marker: m}
	case recordCommit:
		c, err := decodeCommit(rest)
		if err != nil {
			return e, false, nil
		}
		c.Seq, c.Commit, c.Time = seq, run.Commit, run.Time
		return Entry{Commit: c, Pointer: run.Pointer(seq)}, true, nil
	}
	return e, false, nil
}

// AuditReport says what an audit has looked at.
type AuditReport struct {
	Commits uint64 // of the organism
	Inside  uint64 // pieces of evidence that were followed
	Outside uint64 // pieces that are outside: their digests stand for themselves
}

// Audit follows every pointer of the commits of a primitive and returns at the first that
// does not hold, with an error that wraps ErrEvidence and names the commit and the pointer.
// resolve looks at where a pointer points: it returns an error unless the commit is there and
// is the one the pointer says, such as what replay.VerifyPointer returns for its bytes.
// check, if not nil, is called for every commit and judges it by its evidence.
func (f *Surface) Audit(ctx context.Context, primitive string, from log.Position, resolve func(context.Context, log.Pointer) error, check func(*Entry) error) (AuditReport, error) {
	var r AuditReport
	for e, err := range f.Commits(ctx, primitive, from, false) {
		if errors.Is(err, ErrRetired) {
			break
		}
		if err != nil {
			return r, err
		}
		r.Commits++
		for i := range e.Evidence {
			p := e.Evidence[i].Pointer
			if p.IsZero() {
				r.Outside++
				continue
			}
			if err := resolve(ctx, p); err != nil {
				return r, fmt.Errorf("%w: commit %s points at %s: %w", ErrEvidence, e.Pointer, p, err)
			}
			r.Inside++
		}
		if check == nil {
			continue
		}
		if err := check(&e); err != nil {
			return r, fmt.Errorf("commit %s: %w", e.Pointer, err)
		}
	}
	return r, nil
}
