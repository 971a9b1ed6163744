package api

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"
	"sync"

	"github.com/mosaik-engine/mosaik/engine"
	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/replay"
)

// Codecs the API knows more of than the name.
const (
	codecRaw  = "raw"
	codecJSON = "json"
	codecCBOR = "cbor"
)

// Ref says which log is meant.
type Ref struct {
	// Name is a stream's name, or a key: 64 hex digits, which need no name.
	Name string
	// Group is the group that holds the log. Empty means the one the key belongs
	// to by the node's rule.
	Group string
}

// Key returns the log's key.
func (r Ref) Key() identity.ID { return identity.NewID(r.Name) }

// isKey reports whether the name is a key in hex, so that the log may have no
// name at all.
func (r Ref) isKey() bool {
	_, err := identity.ParseID(r.Name)
	return err == nil
}

// String says in messages what r is.
func (r Ref) String() string {
	if r.Group != "" {
		return fmt.Sprintf("%q in group %s", r.Name, r.Group)
	}
	return fmt.Sprintf("%q", r.Name)
}

// Local gives the logs of an engine by name, with what the directory says of
// them. Its methods may be called from any goroutine. It holds nothing that has
// to be closed; the engine stays its owner's.
type Local struct {
	engine *engine.Engine
	whole  *directory            // of the engine: logs in the groups they belong to
	groups map[string]*directory // of each group: logs that were put there
}

// NewLocal returns the logs of e.
func NewLocal(e *engine.Engine) *Local {
	l := &Local{engine: e, whole: newDirectory(e), groups: make(map[string]*directory)}
	home := e.GroupFor(log.DirectoryKey())
	for _, g := range e.Groups() {
		l.groups[g.Name()] = newDirectory(g)
		if g == home {
			l.groups[g.Name()] = l.whole // the same log
		}
	}
	return l
}

// place returns the group that holds the log.
func (l *Local) place(r Ref) (*engine.Group, error) {
	if r.Group == "" {
		return l.engine.GroupFor(r.Key()), nil
	}
	return l.group(r.Group)
}

// group returns the group with the name, or the ID in hex.
func (l *Local) group(name string) (*engine.Group, error) {
	if g, ok := l.engine.Group(name); ok {
		return g, nil
	}
	if id, err := identity.ParseID(name); err == nil {
		for _, g := range l.engine.Groups() {
			if g.ID() == id {
				return g, nil
			}
		}
	}
	return nil, fmt.Errorf("%w: there is no group %q here", log.ErrNotFound, name)
}

// directory returns what knows the names of the logs addressed like r.
func (l *Local) directory(r Ref) *directory {
	if r.Group == "" {
		return l.whole
	}
	if g, err := l.group(r.Group); err == nil {
		return l.groups[g.Name()]
	}
	return l.whole
}

// Groups describes the node's groups.
func (l *Local) Groups(context.Context) ([]Group, error) {
	var list []Group
	for _, g := range l.engine.Groups() {
		list = append(list, groupOf(g.Status()))
	}
	return list, nil
}

// Source returns the commits of a group, by its name or ID.
func (l *Local) Source(_ context.Context, group string) (replay.Source, error) {
	g, err := l.group(group)
	if err != nil {
		return nil, err
	}
	return g, nil
}

// Streams lists the logs: first the named ones in the order in which they were
// opened, then those without a name in the order of their keys. The directory
// itself is not among them.
func (l *Local) Streams(ctx context.Context) ([]Stream, error) {
	keys := make(map[string]map[identity.ID]engine.KeyInfo)
	for _, g := range l.engine.Groups() {
		of := make(map[identity.ID]engine.KeyInfo)
		for _, k := range g.Keys() {
			of[k.Key] = k
		}
		delete(of, log.DirectoryKey())
		keys[g.Name()] = of
	}
	var list []Stream
	add := func(group string, e log.DirectoryEntry) {
		k := keys[group][e.Key()]
		delete(keys[group], e.Key())
		list = append(list, Stream{Name: e.Name, Kind: e.Kind, Codec: e.Codec, Key: e.Key(), Group: group, Records: k.Records, Commit: k.Commit})
	}
	whole, err := l.whole.list(ctx)
	if err != nil {
		return nil, err
	}
	for _, e := range whole {
		add(l.engine.GroupFor(e.Key()).Name(), e)
	}
	for _, g := range l.engine.Groups() {
		if l.groups[g.Name()] == l.whole {
			continue
		}
		placed, err := l.groups[g.Name()].list(ctx)
		if err != nil {
			return nil, err
		}
		for _, e := range placed {
			add(g.Name(), e)
		}
	}
	named := len(list)
	for group, of := range keys {
		for _, k := range of {
			list = append(list, Stream{Key: k.Key, Group: group, Records: k.Records, Commit: k.Commit})
		}
	}
	slices.SortFunc(list[named:], func(a, b Stream) int {
		return cmp.Or(a.Key.Compare(b.Key), cmp.Compare(a.Group, b.Group))
	})
	return list, nil
}

// Stream describes one log. It is log.ErrNotFound if the log has neither a name
// nor records.
func (l *Local) Stream(ctx context.Context, r Ref) (Stream, error) {
	g, err := l.place(r)
	if err != nil {
		return Stream{}, err
	}
	s := Stream{Key: r.Key(), Group: g.Name()}
	if k, ok := g.Key(s.Key); ok {
		s.Records, s.Commit = k.Records, k.Commit
	}
	e, known, err := l.directory(r).lookUp(ctx, s.Key)
	switch {
	case err != nil:
		return Stream{}, err
	case known:
		s.Name, s.Kind, s.Codec = e.Name, e.Kind, e.Codec
	case s.Records == 0:
		return Stream{}, fmt.Errorf("%w: there is no stream %s here", log.ErrNotFound, r)
	}
	return s, nil
}

// codec returns the codec that the directory has for the log, or "".
func (l *Local) codec(ctx context.Context, r Ref) (string, error) {
	e, _, err := l.directory(r).lookUp(ctx, r.Key())
	return e.Codec, err
}

// Scan reads runs of the log as log.Scanner does. Query.Key is r's.
func (l *Local) Scan(ctx context.Context, r Ref, q log.Query) iter.Seq2[log.Run, error] {
	g, err := l.place(r)
	if err != nil {
		return func(yield func(log.Run, error) bool) { yield(log.Run{}, err) }
	}
	q.Key = r.Key()
	return g.Scan(ctx, q)
}

// Check reads everything that the node has on disk and holds it against itself.
func (l *Local) Check(ctx context.Context, progress func(done, total uint64)) (CheckReport, error) {
	r, err := l.engine.Check(ctx, progress)
	return CheckReport{
		Groups: r.Groups, Commits: r.Commits, Records: r.Records, Keys: r.Keys,
		Postings: r.Postings, Bytes: r.Bytes, RaftLogBytes: r.RaftLog,
	}, err
}

// directory is a copy of a directory log that is brought up to date when
// something is asked for that it does not have. Entries never change.
type directory struct {
	scanner log.Scanner
	codec   log.Codec[log.DirectoryEntry]

	// mu is held while the log is read, so that it is read once.
	mu struct {
		sync.Mutex
		next    uint64 // first seq not read yet
		entries []log.DirectoryEntry
		index   map[identity.ID]int // key -> position in entries
	}
}

func newDirectory(s log.Scanner) *directory {
	d := &directory{scanner: s, codec: log.CBOR[log.DirectoryEntry]()}
	d.mu.next = 1
	d.mu.index = make(map[identity.ID]int)
	return d
}

// lookUp returns the entry of a key and whether there is one.
func (d *directory) lookUp(ctx context.Context, key identity.ID) (log.DirectoryEntry, bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	i, ok := d.mu.index[key]
	if !ok {
		if err := d.readLocked(ctx); err != nil {
			return log.DirectoryEntry{}, false, err
		}
		if i, ok = d.mu.index[key]; !ok {
			return log.DirectoryEntry{}, false, nil
		}
	}
	return d.mu.entries[i], true, nil
}

// list returns all entries in the order of the log.
func (d *directory) list(ctx context.Context) ([]log.DirectoryEntry, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.readLocked(ctx); err != nil {
		return nil, err
	}
	return slices.Clip(d.mu.entries), nil
}

// readLocked reads what has been added to the log. REQUIRES: d.mu.
func (d *directory) readLocked(ctx context.Context) error {
	for run, err := range d.scanner.Scan(ctx, log.Query{Key: log.DirectoryKey(), From: log.Seq(d.mu.next)}) {
		if err != nil {
			return fmt.Errorf("read the directory: %w", err)
		}
		for seq, payload := range run.Records() {
			e, err := d.codec.Decode(payload)
			if err == nil {
				err = e.Validate()
			}
			if err != nil {
				return fmt.Errorf("record %d of the directory: %w", seq, err)
			}
			if _, known := d.mu.index[e.Key()]; !known {
				d.mu.index[e.Key()] = len(d.mu.entries)
				d.mu.entries = append(d.mu.entries, e)
			}
			d.mu.next = seq + 1
		}
	}
	return nil
}
