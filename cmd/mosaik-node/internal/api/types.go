package api

import (
	"time"

	"github.com/mosaik-engine/mosaik/engine"
	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

// The JSON documents of the API, which are also what the command line prints
// with --json. Fields are added, never renamed or removed.

// Stream describes one log.
type Stream struct {
	Name    string      `json:"name,omitempty"`  // absent: nobody has given the key a name
	Kind    string      `json:"kind,omitempty"`  // as the directory says, such as "stream"
	Codec   string      `json:"codec,omitempty"` // as the directory says, such as "json"
	Key     identity.ID `json:"key"`
	Group   string      `json:"group"`
	Records uint64      `json:"records"` // seqs 1 to Records
	Commit  uint64      `json:"commit"`  // holds the last record; 0 without records
}

// Head is the end of a group's log.
type Head struct {
	Commit uint64     `json:"commit"`
	Digest log.Digest `json:"digest"`
	Time   time.Time  `json:"time,omitzero"`
	TimeNS int64      `json:"time_ns"` // the same, exactly, as Unix nanoseconds
}

func headOf(h log.Head) Head {
	out := Head{Commit: h.Number, Digest: h.Digest, TimeNS: h.Time}
	if h.Number > 0 {
		out.Time = time.Unix(0, h.Time).UTC()
	}
	return out
}

// Group describes a group as the node sees it.
type Group struct {
	Name    string            `json:"name"`
	ID      identity.ID       `json:"id"`
	Members []identity.PeerID `json:"members"` // by seat; zeros: it is vacant
	Self    identity.PeerID   `json:"self"`
	Reader  bool              `json:"reader,omitempty"`  // the node has no vote
	Evicted bool              `json:"evicted,omitempty"` // it is no member any more
	Leader  *identity.PeerID  `json:"leader,omitempty"`  // absent: none is known
	Term    uint64            `json:"term"`
	Head    Head              `json:"head"`
	Keys    int               `json:"keys"`
	Records uint64            `json:"records"`
	Bytes   uint64            `json:"bytes"`   // of all commit bodies
	Applied uint64            `json:"applied"` // Raft index
	State   log.Digest        `json:"state"`   // of the views at the head
	// Diverged says why the node serves nothing of the group; absent: it does.
	Diverged string `json:"diverged,omitempty"`
}

func groupOf(s engine.Status) Group {
	g := Group{
		Name: s.Name, ID: s.ID, Members: s.Members, Self: s.Self, Term: s.Term, Head: headOf(s.Head),
		Reader: s.Reader, Evicted: s.Evicted, Keys: s.Keys, Records: s.Records, Bytes: s.Bytes, Applied: s.Applied, State: s.State,
	}
	if s.Diverged != nil {
		g.Diverged = s.Diverged.Error()
	}
	if !s.Leader.IsZero() {
		g.Leader = &s.Leader
	}
	return g
}

// Commit describes a commit without its records.
type Commit struct {
	Group   identity.ID `json:"group"`
	Commit  uint64      `json:"commit"`
	Digest  log.Digest  `json:"digest"` // of the header
	Version uint8       `json:"version"`
	Time    time.Time   `json:"time"`
	TimeNS  int64       `json:"time_ns"`
	Prev    log.Digest  `json:"prev"`
	Body    log.Digest  `json:"body"`
	State   log.Digest  `json:"state"`
	Records uint32      `json:"records"`
	Bytes   int         `json:"bytes"` // header and body
	Pointer log.Pointer `json:"pointer"`
	Runs    []Run       `json:"runs"`
}

// Run describes the consecutive records of one key in a commit.
type Run struct {
	Key      identity.ID `json:"key"`
	Name     string      `json:"name,omitempty"` // absent: the directory has none for the key
	FirstSeq uint64      `json:"first_seq"`
	Count    int         `json:"count"`
}

// CommitOf describes c. name gives the name of a key, or "".
func CommitOf(c *log.Commit, name func(identity.ID) string) (Commit, error) {
	out := Commit{
		Group: c.Header.Group, Commit: c.Header.Number, Digest: c.Digest, Version: c.Header.Version,
		Time: time.Unix(0, c.Header.Time).UTC(), TimeNS: c.Header.Time,
		Prev: c.Header.Prev, Body: c.Header.Body, State: c.Header.State,
		Records: c.Header.Records, Bytes: log.HeaderSize + len(c.Body), Pointer: c.Pointer(), Runs: []Run{},
	}
	for run, err := range c.Runs() {
		if err != nil {
			return Commit{}, err
		}
		out.Runs = append(out.Runs, Run{Key: run.Key, Name: name(run.Key), FirstSeq: run.FirstSeq, Count: run.Count})
	}
	return out, nil
}

// Answer is what became of one record of an append: where it is, or why it is
// not there.
type Answer struct {
	Seq     uint64       `json:"seq,omitempty"`
	Commit  uint64       `json:"commit,omitempty"`
	Pointer *log.Pointer `json:"pointer,omitempty"` // absent with an error, as are the two above

	Record uint64     `json:"record,omitempty"` // with an error: which record of the request, from 1
	Error  string     `json:"error,omitempty"`
	Code   string     `json:"code,omitempty"`
	At     *ErrorSite `json:"at,omitempty"`
}

// Check is one line of a check's answer: how far it is, or its result.
type Check struct {
	Done   uint64       `json:"done,omitempty"` // commits read
	Total  uint64       `json:"total,omitempty"`
	Report *CheckReport `json:"report,omitempty"` // in the last line, if all is well

	Error string     `json:"error,omitempty"` // in the last line, if not
	Code  string     `json:"code,omitempty"`
	At    *ErrorSite `json:"at,omitempty"`
}

// CheckReport says what a check has read.
type CheckReport struct {
	Groups       int    `json:"groups"`
	Commits      uint64 `json:"commits"`
	Records      uint64 `json:"records"`
	Keys         int    `json:"keys"`
	Postings     uint64 `json:"postings"`
	Bytes        uint64 `json:"bytes"`          // of commits
	Shards       uint64 `json:"shards"`         // of sealed segments, that this node keeps
	Missing      uint64 `json:"missing"`        // shards that it should have and has not
	Archived     uint64 `json:"archived"`       // commits that would take other members' shards to read
	RaftLogBytes int64  `json:"raft_log_bytes"` // of entries in the Raft log
}
