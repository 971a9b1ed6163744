package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

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

// Local gives the logs of an engine by name, with what the directories of its
// groups say of them. Its methods may be called from any goroutine. It holds
// nothing that has to be closed; the engine stays its owner's.
type Local struct {
	engine *engine.Engine
}

// NewLocal returns the logs of e.
func NewLocal(e *engine.Engine) *Local { return &Local{engine: e} }

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

// Streams lists the logs: first the named ones in the order of their names, then
// those without a name in the order of their keys. The engine's own logs are not
// among them.
func (l *Local) Streams(ctx context.Context) ([]Stream, error) {
	var named, nameless []Stream
	for _, g := range l.engine.Groups() {
		directory, err := g.View(ctx, log.DirectoryKey(), log.Stale())
		if err != nil {
			return nil, err
		}
		of := make(map[identity.ID]engine.KeyInfo)
		for _, k := range g.Keys() {
			if engine.SystemName(k.Key) == "" {
				of[k.Key] = k
			}
		}
		for e, err := range log.Entries(directory) {
			if err != nil {
				return nil, err
			}
			k := of[e.Key()]
			delete(of, e.Key())
			named = append(named, Stream{Name: e.Name, Kind: e.Kind, Codec: e.Codec, Key: e.Key(), Group: g.Name(), Records: k.Records, Commit: k.Commit})
		}
		for _, k := range of {
			nameless = append(nameless, Stream{Key: k.Key, Group: g.Name(), Records: k.Records, Commit: k.Commit})
		}
	}
	slices.SortFunc(named, func(a, b Stream) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Group, b.Group)) })
	slices.SortFunc(nameless, func(a, b Stream) int { return cmp.Or(a.Key.Compare(b.Key), cmp.Compare(a.Group, b.Group)) })
	return append(named, nameless...), nil
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
	e, known, err := l.lookUp(ctx, r)
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
	e, _, err := l.lookUp(ctx, r)
	return e.Codec, err
}

// lookUp returns the directory's entry of the log and whether there is one.
func (l *Local) lookUp(ctx context.Context, r Ref) (log.DirectoryEntry, bool, error) {
	g, err := l.place(r)
	if err != nil {
		return log.DirectoryEntry{}, false, err
	}
	e, err := log.LookUp(ctx, g, r.Key())
	if errors.Is(err, log.ErrNotFound) {
		return e, false, nil
	}
	return e, err == nil, err
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
		Postings: r.Postings, Bytes: r.Bytes, Shards: r.Shards, Missing: r.Missing, Archived: r.Archived, RaftLogBytes: r.RaftLog,
	}, err
}
