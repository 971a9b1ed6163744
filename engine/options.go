package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/lni/dragonboat/v4/config"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/snapshot"
)

// Errors of the engine; test with errors.Is. Those of package log (ErrClosed,
// ErrNotFound, ErrOversize, ErrPosition, ErrPointer, ErrNewerFormat) are
// returned too.
var (
	// ErrNoQuorum says that a majority of the group's members did not answer in
	// time. For an append the outcome is unknown: it may still be committed.
	ErrNoQuorum = errors.New("mosaik: no quorum")
	// ErrBusy says that the write path was full for as long as the caller was
	// willing to wait. Nothing was written; try again later or slower.
	ErrBusy = errors.New("mosaik: busy")
	// ErrFetching says that this node is taking over the group's state from another
	// member and cannot be read until it has it. Scans wait for that by themselves.
	ErrFetching = errors.New("mosaik: state is being fetched from another member")
	// ErrDiskFull says that the store's file system has too little room left to
	// accept writes. Nothing was written; reads go on, and writes are accepted
	// again as soon as there is room.
	ErrDiskFull = errors.New("mosaik: disk full")
	// ErrLocked says that another process, or another Engine of this one, has the
	// directory open.
	ErrLocked = errors.New("mosaik: store is locked")
	// ErrNoStore says that the directory holds no store and Options.MustExist asks
	// for one.
	ErrNoStore = errors.New("mosaik: no store here")
	// ErrMismatch says that the options contradict what the store was made with.
	ErrMismatch = errors.New("mosaik: options do not fit the store")
)

// Limits of a node.
const (
	MaxMembers    = 15   // founders of a group
	MaxGroups     = 1024 // spread and named together
	MaxValidators = 16   // of a group

	// Options.SegmentBytes.
	MinSegmentBytes = 64 << 10
	MaxSegmentBytes = 256 << 20
)

// Preference is how much a node wants to lead the groups it is a member of.
type Preference int

const (
	// Normal nodes stand for election like any other.
	Normal Preference = iota
	// Reluctant nodes wait longer before they do, and give the lead away when they
	// have got it and another member can take it.
	Reluctant
	// Observer nodes vote and keep everything, but lead only while no other member
	// can: they wait several times as long, and go on giving the lead away.
	Observer
)

// String returns "normal", "reluctant" or "observer".
func (p Preference) String() string {
	switch p {
	case Normal:
		return "normal"
	case Reluctant:
		return "reluctant"
	case Observer:
		return "observer"
	}
	return fmt.Sprintf("Preference(%d)", int(p))
}

// Options say how to open a store. The zero value of every field means its
// default, and nil *Options is one node alone with one group: the embedded
// default. Fields marked "kept" are written to the store when it is made; they
// may be left zero afterwards, and contradicting them is ErrMismatch.
type Options struct {
	// Peer names this node. It is among Members, or is let in by them (Engine.Admit, Rejoin).
	// Kept. Default: a random name.
	Peer identity.PeerID
	// Members are the founders of every group of the node, in the one order all of
	// them agree on. Kept. Default: Peer alone.
	Members []identity.PeerID
	// Secret is what only the members know. It is part of the groups' keys, which they
	// prove to each other on every connection (Group.BondKey), and so of the groups' ids. Kept,
	// in the clear. Default zero: there is none, and the keys follow from the names.
	Secret identity.ID
	// Validators are the signatures of what the groups ask of the entries of their peers
	// (identity.Clause), in order. They are part of the groups' ids, so that peers which
	// would answer differently are of different groups; the asking is for whoever makes the
	// connections. Kept. Default: nothing is asked.
	Validators []identity.ID
	// Spread is the number of groups that keys are spread over (GroupFor).
	// Kept. Default 1: batches are made per group, and the rate lives from them. More
	// groups than processors only divide the same work.
	Spread int
	// Named lists further groups, by name, that hold only what is put in them by
	// name. Kept, and may grow at a later Open on all members.
	Named []string

	// Machines fold logs into views, besides the built-in ones of package log. All
	// members must have the same: a node that meets a registered key whose machine
	// it lacks stops with log.ErrKind. More may be added at a later Open.
	Machines []log.Machine

	// Preference is how much this node wants to lead its groups. Not kept; members may
	// differ. Default Normal.
	Preference Preference

	// MustExist refuses to make a new store: ErrNoStore.
	MustExist bool
	// Transport carries Raft messages between members (inproc.Network for nodes of
	// one process). Default: dragonboat's TCP when Addresses is set, else none,
	// which is what a node alone needs.
	Transport config.TransportFactory
	// Addresses gives the host:port of every member for the default TCP transport.
	Addresses map[identity.PeerID]string

	// FS is the file system of the store. Default: the operating system's.
	FS vfs.FS
	// Logger receives what an operator should know. Default: nothing is logged.
	Logger *slog.Logger
	// Events are called on what happens inside; see EventListener.
	Events EventListener

	// ProposeTimeout is how long the engine tries to get a batch committed before
	// its appends fail with ErrNoQuorum. Default 10 s.
	ProposeTimeout time.Duration
	// InFlight is the number of batches a group has under way at once, 1 to 8.
	// Default 2 for a node alone and 4 for more members, as measured.
	InFlight int
	// MemTableBytes is the size of the store's write buffer, of which up to four
	// exist. Default 64 MiB, less on file systems below 4 GiB.
	MemTableBytes int64
	// CacheBytes is the size of the store's block cache. Default 64 MiB.
	CacheBytes int64
	// SegmentBytes is the size at which the sealed segments of a group end. It is part
	// of the groups' ids: all members must have the same. Kept. Default 16 MiB.
	SegmentBytes int64
	// Retention says how much sealed history stays in the store; by default, all of
	// it. Not kept; members may differ.
	Retention Retention
	// GroupRetention is for single groups, by name, instead of Retention.
	GroupRetention map[string]Retention
	// Peers carries requests for shards between members. Without it history that is
	// archived cannot be read by a member of several.
	Peers snapshot.Peers
	// ScrubInterval is how often this node reads its shards of sealed segments, and mends
	// those that are rotten. Missing ones it mends within a minute. Default 24 h.
	ScrubInterval time.Duration
	// Rejoin is for a member that has lost its disk, and for a peer that is no founder. Open
	// of a directory without a store calls it, and it has to have a member call Readmit for
	// this one and return what that returns (or its error, which Open returns). Where there
	// is a store, it is not called. Without it a member without its disk would vote anew on
	// what it has voted on and forgotten, and what was acknowledged could be lost.
	Rejoin func(ctx context.Context, groups []identity.ID) (*Readmission, error)
	// LastSeen returns when a peer was last heard of; the zero time: it is not known. The
	// leader takes out who was away for longer than the grace of the group's policy
	// (log.MembershipPolicy). Nil: nobody is.
	LastSeen func(identity.PeerID) time.Time
	// ServeBytesPerSecond bounds what this node sends to others that ask for shards, so
	// that its own writes do not suffer. Default 256 MiB/s.
	ServeBytesPerSecond int64

	// RaftLogBytes is how much of its Raft log a group keeps for members that lag;
	// one that lags by more fetches the state instead. Default 128 MiB.
	RaftLogBytes int64

	number      uint64       // storeFile.number
	incarnation uint64       // storeFile.incarnation
	committee   []log.Member // storeFile.committee
}

// EventListener is called on what happens inside an engine. Every field may be
// nil. The functions are called on the engine's goroutines and must not block
// or call back into the engine.
type EventListener struct {
	// LeaderChanged: the group follows another leader. A zero peer: none is known.
	LeaderChanged func(group string, leader identity.PeerID, term uint64)
	// DiskFull: writes are refused (true) or accepted again (false).
	DiskFull func(full bool, cause error)
	// Trimmed: the group's Raft log was cut to what may still be needed.
	Trimmed func(group string, index uint64)
	// StateFetched: the group was too far behind for the Raft log and has brought
	// itself up to date by a state sync.
	StateFetched func(group string, r SyncReport)
	// Diverged: this node's replica of the group has come to other bytes than the
	// majority and serves nothing of it until it is refolded (Group.Refold).
	Diverged func(group string, err error)
	// MembersChanged: the group has other members now, or another policy of them.
	MembersChanged func(group string, m log.Membership)
	// Sealed: this node has sealed a segment, agrees with the group on it and keeps its
	// shard.
	Sealed func(group string, m *snapshot.Manifest)
	// Archived: the commits of a segment have left this node's store.
	Archived func(group string, m *snapshot.Manifest)
	// BadShard: a member's shard of a segment could not be had or is not what the
	// manifest says; err tells which stripe.
	BadShard func(group string, segment uint64, member identity.PeerID, err error)
	// ShardMended: this node's shard of a segment was missing or rotten, as found says,
	// and has been made anew.
	ShardMended func(group string, segment uint64, found error)
	// BackgroundError: something failed that no caller waits for. The engine goes
	// on, and retries what can be retried.
	BackgroundError func(err error)
}

// ensureDefaults fills in the callbacks that are nil.
func (l *EventListener) ensureDefaults() {
	if l.LeaderChanged == nil {
		l.LeaderChanged = func(string, identity.PeerID, uint64) {}
	}
	if l.DiskFull == nil {
		l.DiskFull = func(bool, error) {}
	}
	if l.Trimmed == nil {
		l.Trimmed = func(string, uint64) {}
	}
	if l.StateFetched == nil {
		l.StateFetched = func(string, SyncReport) {}
	}
	if l.Diverged == nil {
		l.Diverged = func(string, error) {}
	}
	if l.MembersChanged == nil {
		l.MembersChanged = func(string, log.Membership) {}
	}
	if l.Sealed == nil {
		l.Sealed = func(string, *snapshot.Manifest) {}
	}
	if l.Archived == nil {
		l.Archived = func(string, *snapshot.Manifest) {}
	}
	if l.BadShard == nil {
		l.BadShard = func(string, uint64, identity.PeerID, error) {}
	}
	if l.ShardMended == nil {
		l.ShardMended = func(string, uint64, error) {}
	}
	if l.BackgroundError == nil {
		l.BackgroundError = func(error) {}
	}
}

// withDefaults returns a copy of o, which may be nil, with every default filled
// in that does not depend on the store.
func (o *Options) withDefaults() *Options {
	var out Options
	if o != nil {
		out = *o
	}
	out.Members = slices.Clone(out.Members)
	out.Named = slices.Clone(out.Named)
	out.Validators = slices.Clone(out.Validators)
	if out.FS == nil {
		out.FS = vfs.Default
	}
	if out.Logger == nil {
		out.Logger = slog.New(slog.DiscardHandler)
	}
	out.Events.ensureDefaults()
	if out.ProposeTimeout == 0 {
		out.ProposeTimeout = 10 * time.Second
	}
	if out.CacheBytes == 0 {
		out.CacheBytes = 64 << 20
	}
	if out.ServeBytesPerSecond == 0 {
		out.ServeBytesPerSecond = 256 << 20
	}
	if out.ScrubInterval == 0 {
		out.ScrubInterval = 24 * time.Hour
	}
	if out.RaftLogBytes == 0 {
		out.RaftLogBytes = 128 << 20
	}
	return &out
}

// validate checks what can be checked without the store.
func (o *Options) validate() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("mosaik: options: "+format, args...)
	}
	switch {
	case len(o.Members) > MaxMembers:
		return bad("Members: %d, the limit is %d", len(o.Members), MaxMembers)
	case len(o.Validators) > MaxValidators:
		return bad("Validators: %d, the limit is %d", len(o.Validators), MaxValidators)
	case o.Spread < 0 || o.Spread+len(o.Named) > MaxGroups:
		return bad("Spread and Named: %d and %d groups, the limit is %d together", o.Spread, len(o.Named), MaxGroups)
	case o.Preference < Normal || o.Preference > Observer:
		return bad("Preference: %v is none", o.Preference)
	case o.InFlight < 0 || o.InFlight > proposerWindow:
		return bad("InFlight: %d, the limit is %d", o.InFlight, proposerWindow)
	case o.SegmentBytes != 0 && o.SegmentBytes < MinSegmentBytes || o.SegmentBytes > MaxSegmentBytes:
		return bad("SegmentBytes: %d, %d to %d are possible", o.SegmentBytes, MinSegmentBytes, MaxSegmentBytes)
	case o.ServeBytesPerSecond < 0, o.Retention.Segments < 0, o.Retention.Bytes < 0, o.Retention.Age < 0:
		return bad("ServeBytesPerSecond and Retention must not be negative")
	case o.ProposeTimeout < 0, o.CacheBytes < 0, o.MemTableBytes < 0, o.RaftLogBytes < 0, o.ScrubInterval < 0:
		return bad("ProposeTimeout, CacheBytes, MemTableBytes, RaftLogBytes and ScrubInterval must not be negative")
	}
	for i, m := range o.Members {
		if m.IsZero() || slices.Index(o.Members, m) != i {
			return bad("Members[%d]: %s is zero or listed twice", i, m.Short())
		}
	}
	for _, m := range o.Members {
		if o.Addresses != nil && o.Addresses[m] == "" {
			return bad("Addresses: none for member %s", m.Short())
		}
	}
	for i, name := range o.Named {
		if err := identity.ValidateName(name); err != nil {
			return bad("Named[%d]: %w", i, err)
		}
		if slices.Index(o.Named, name) != i || isSpreadName(name) {
			return bad("Named[%d]: %q is taken", i, name)
		}
	}
	return nil
}
