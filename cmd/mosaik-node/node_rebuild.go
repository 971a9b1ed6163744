package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mosaik-engine/mosaik"
	"github.com/mosaik-engine/mosaik/engine"
)

// newNodeRebuildCmd returns the verb that fills a lost disk from the other members.
func newNodeRebuildCmd(g *globals) *cobra.Command {
	var s settings
	cmd := &cobra.Command{
		Use:   "rebuild --config FILE",
		Short: "Bring back a member whose disk is gone, from the others",
		Long: `For a member of a network that has lost its store, but has its key: it asks the other
members to be taken back, brings the whole history from their shards, checks it, and
gets its vote in every group. Then it ends; serve goes on from there.

The member is a new replica to the others, since what the old one had promised is
forgotten: never start a member that has lost its store with serve. A majority of the
members has to be up without it, so there must be three or more.

The settings are those of serve. A directory that has a store is refused.`,
		Example: `  mosaik-node node rebuild --config data/node.toml`,
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, err := s.load(); err != nil {
				return usage(cmd, err)
			}
			if s.network == "" {
				return usage(cmd, errors.New("network is missing: a node alone has nobody to be rebuilt from; see snapshot import"))
			}
			if len(s.members) == 0 {
				return usage(cmd, errors.New("members are missing: there is no store that knows them"))
			}
			return rebuild(cmd.Context(), &s, g)
		},
	}
	s.addTo(cmd)
	return cmd
}

// rebuiltInfo is what came of it, one for each group.
type rebuiltInfo struct {
	Group    string            `json:"group"`
	Commit   uint64            `json:"commit"`
	Segments uint64            `json:"segments"`
	Sent     map[string]uint64 `json:"sent"` // bytes, by member; absent: the Raft log was enough
	Seconds  float64           `json:"seconds"`
}

// rebuild opens the node without a store and waits until it has a vote everywhere.
func rebuild(ctx context.Context, s *settings, g *globals) (err error) {
	if _, err := engine.MembersOf(nil, s.dir); err == nil {
		return fmt.Errorf("%s has a store; it is started by serve, and if it is damaged it has to be moved away first", s.dir)
	} else if !errors.Is(err, engine.ErrNoStore) {
		return err
	}
	level, err := s.level()
	if err != nil {
		return err
	}
	logger := s.logger(g.err, max(level, slog.LevelWarn))
	o, err := s.peerOptions(logger)
	if err != nil {
		return err
	}
	o.Rejoin = true
	synced := make(chan rebuiltInfo, engine.MaxGroups)
	o.Store.Events.StateFetched = func(group string, r engine.SyncReport) {
		info := rebuiltInfo{Group: group, Segments: r.Segments, Sent: make(map[string]uint64)}
		for m, n := range r.Sent {
			info.Sent[m.String()] = n
		}
		select {
		case synced <- info:
		default: // a later sync of the same group
		}
	}
	began := time.Now()
	screen := newScreen(g.err)
	screen.note("asking the other members")
	p, err := mosaik.OpenPeer(s.dir, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	infos := make(map[string]rebuiltInfo)
	for _, group := range p.Groups() {
		for group.Status().Reader {
			screen.note(fmt.Sprintf("group %s: %d commits are here", group.Name(), group.Head().Number))
			select {
			case info := <-synced:
				infos[info.Group] = info
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	screen.clear()
	for range len(synced) {
		info := <-synced
		infos[info.Group] = info
	}
	for _, group := range p.Groups() {
		info := infos[group.Name()]
		info.Group, info.Commit, info.Seconds = group.Name(), group.Head().Number, time.Since(began).Seconds()
		if g.json {
			if err := printLine(g.out, info); err != nil {
				return err
			}
			continue
		}
		fmt.Fprintf(g.out, "group %s: %d commits%s, and it votes again\n", info.Group, info.Commit, info.from())
	}
	return nil
}

// from says what the commits came by.
func (i *rebuiltInfo) from() string {
	var from []string
	for member, n := range i.Sent {
		from = append(from, fmt.Sprintf("%s from %s", kilobytes(n), member[:8]))
	}
	if len(from) == 0 {
		return ", by the Raft log"
	}
	return fmt.Sprintf(", %s in shards: %s", plural(i.Segments, "sealed segment"), strings.Join(from, ", "))
}
