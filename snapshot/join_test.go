package snapshot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

// TestJoin is the protocol by which a member that joins comes by history, as text:
// testdata/join has groups, what each of their members does, and what comes out.
//
//	group members=3 segments=3
//	    seals a log; prints what every manifest has to say
//	join [tamper=FIELD of=SEGMENT] [shares]
//	    one line a member that is asked, then what comes of taking over every segment: its
//	    commits or the error, who was blamed for what, how many seconds it took, and with
//	    shares who sent how much
//
// A member's line is its shard, and
//
//	delay=D          before every answer
//	own              it has archived: only its own shard is left
//	lost             it does not know the segments
//	flip|short|long|swap|repeat|hashes  what it does to its answers
//	stall|die        it does not answer, or is gone
//	from=N           the fault begins with its N-th answer
//
// A join runs on a clock of its own. Shares are rounded, and only printed where they do
// not depend on which of two answers comes first at one instant.
func TestJoin(t *testing.T) {
	datadriven.Walk(t, "testdata/join", func(t *testing.T, path string) {
		var j *joining
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			switch d.Cmd {
			case "group":
				j = newJoining(t, d)
				return j.describe()
			case "join":
				out := ""
				synctest.Test(t, func(t *testing.T) { out = j.join(t, d) })
				return out
			}
			d.Fatalf(t, "there is no command %q", d.Cmd)
			return ""
		})
	})
}

// joining is a group whose history is to be taken over.
type joining struct {
	members   int
	manifests []*Manifest
	shards    [][][]byte // by segment
}

func newJoining(t *testing.T, d *datadriven.TestData) *joining {
	j := &joining{}
	segments, commits := 0, 60
	d.ScanArgs(t, "members", &j.members)
	d.ScanArgs(t, "segments", &segments)
	d.MaybeScanArgs(t, "commits", &commits)
	mem := history(t, segments*commits)
	for i := range segments {
		m, shards := seal(t, mem, GeometryFor(j.members), uint64(i+1), uint64(i*commits+1), uint64((i+1)*commits))
		j.manifests = append(j.manifests, m)
		j.shards = append(j.shards, shards)
	}
	return j
}

func (j *joining) describe() string {
	var b strings.Builder
	for _, m := range j.manifests {
		fmt.Fprintf(&b, "segment %d: commits %d to %d, %d+%d shards of %d stripes\n", m.Number, m.First, m.Last, m.Commits.K, m.Commits.M, m.Commits.Stripes())
	}
	return b.String()
}

// joinMember is a member that is asked.
type joinMember struct {
	delay   time.Duration
	own     bool
	fault   string
	from    int
	answers int
	last    []byte
}

// joinPeers are those that are asked.
type joinPeers struct {
	j       *joining
	members map[identity.PeerID]*joinMember
}

// Fetch implements Peers. Calls of one member come one after the other.
func (p *joinPeers) Fetch(ctx context.Context, peer identity.PeerID, r Request) ([]byte, error) {
	m := p.members[peer]
	if m.delay > 0 {
		select {
		case <-time.After(m.delay):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	m.answers++
	fault := m.fault
	if m.answers < m.from {
		fault = ""
	}
	switch {
	case fault == "stall":
		<-ctx.Done()
		return nil, ctx.Err()
	case fault == "die":
		return nil, io.ErrUnexpectedEOF
	case fault == "lost", m.own && r.Shard != int(peer[0])-1:
		return nil, log.ErrNotFound
	case fault == "swap":
		r.Shard = (r.Shard + 1) % len(p.j.shards[0])
	}
	b, err := r.Answer(&p.j.manifests[r.Segment-1].Commits, bytes.NewReader(p.j.shards[r.Segment-1][r.Shard]))
	if err != nil {
		return nil, err
	}
	switch {
	case fault == "flip" && r.Count > 0, fault == "hashes" && r.Count == 0:
		b[len(b)/2] ^= 1
	case fault == "short":
		b = b[:len(b)-1]
	case fault == "long":
		b = append(b, 0)
	case fault == "repeat" && r.Count > 0:
		if len(m.last) == len(b) {
			return m.last, nil
		}
	}
	m.last = slices.Clone(b)
	return b, nil
}

// join takes over every segment and tells what came of it.
func (j *joining) join(t *testing.T, d *datadriven.TestData) string {
	p := &joinPeers{j: j, members: make(map[identity.PeerID]*joinMember)}
	asked := make([]identity.PeerID, j.members)
	for line := range strings.Lines(d.Input) {
		shard, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		var m joinMember
		for _, word := range strings.Fields(rest) {
			name, value, _ := strings.Cut(word, "=")
			var err error
			switch name {
			case "delay":
				m.delay, err = time.ParseDuration(value)
			case "own":
				m.own = true
			case "from":
				_, err = fmt.Sscan(value, &m.from)
			default:
				m.fault = name
			}
			if err != nil {
				d.Fatalf(t, "%s: %v", line, err)
			}
		}
		i := 0
		if _, err := fmt.Sscan(shard, &i); err != nil || i >= j.members {
			d.Fatalf(t, "%s: no member", line)
		}
		asked[i] = identity.PeerID{byte(i + 1)}
		p.members[asked[i]] = &m
	}
	var blamed []string
	f := &Fetcher{Peers: p, Members: asked, Bad: func(m identity.PeerID, err error) {
		what := "does not answer"
		if errors.Is(err, errCell) || errors.Is(err, errHashes) {
			what = "lies"
		}
		if line := fmt.Sprintf("member %d %s\n", m[0]-1, what); !slices.Contains(blamed, line) {
			blamed = append(blamed, line)
		}
	}}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	var out strings.Builder
	var before *Manifest
	began := time.Now()
	for _, m := range j.manifests {
		m, err := tampered(d, t, m)
		if err == nil {
			err = m.Follows(testGroup, before)
		}
		n := 0
		if err == nil {
			n, err = takeOver(ctx, f, m)
		}
		if err != nil {
			fmt.Fprintf(&out, "segment %d: %s\n", m.Number, reason(err))
			break
		}
		fmt.Fprintf(&out, "segment %d: %d commits\n", m.Number, n)
		before = m
	}
	slices.Sort(blamed)
	out.WriteString(strings.Join(blamed, ""))
	if d.HasArg("shares") {
		j.tellShares(&out, f.Sent())
	}
	if took := time.Since(began).Round(time.Second); took > 0 {
		fmt.Fprintf(&out, "after %v\n", took)
	}
	return out.String()
}

// takeOver brings one segment and reads its commits.
func takeOver(ctx context.Context, f *Fetcher, m *Manifest) (n int, err error) {
	object, err := f.Bytes(ctx, &m.Commits, Request{Group: m.Group, Segment: m.Number})
	if err != nil {
		return 0, err
	}
	for _, err := range Commits(m, object) {
		if err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// tampered returns the manifest as it was offered.
func tampered(d *datadriven.TestData, t *testing.T, m *Manifest) (*Manifest, error) {
	field, of := "", uint64(0)
	d.MaybeScanArgs(t, "tamper", &field)
	d.MaybeScanArgs(t, "of", &of)
	if field == "" || m.Number != of {
		return m, nil
	}
	lie := *m
	lie.Commits.Shards = slices.Clone(m.Commits.Shards)
	switch field {
	case "group":
		lie.Group = identity.NewID("another group")
	case "number":
		lie.Number++
	case "first":
		lie.First++
	case "last":
		lie.Last--
	case "prev":
		lie.Prev[0] ^= 1
	case "digest":
		lie.Digest[0] ^= 1
	case "hash":
		lie.Commits.Hash[0] ^= 1
	case "size":
		lie.Commits.Size--
	case "root":
		lie.Commits.Shards[0][0] ^= 1
	case "roots":
		for i := range lie.Commits.Shards {
			lie.Commits.Shards[i][0] ^= 1
		}
	default:
		d.Fatalf(t, "there is no field %q to tamper with", field)
	}
	return &lie, nil
}

// reason is what an error says without the parts that depend on timing.
func reason(err error) string {
	var corrupt *log.CorruptionError
	switch {
	case errors.Is(err, ErrShards):
		return "not enough shards"
	case errors.As(err, &corrupt):
		return "corrupt: " + corrupt.Err.Error()
	}
	return err.Error()
}

// tellShares prints how much of all segments each member has sent, in tenths.
func (j *joining) tellShares(out *strings.Builder, sent map[identity.PeerID]uint64) {
	var all uint64
	for _, m := range j.manifests {
		all += m.Commits.Size
	}
	for i := range j.members {
		if n := sent[identity.PeerID{byte(i + 1)}]; n > 0 {
			fmt.Fprintf(out, "member %d sent %.0f/10\n", i, 10*float64(n)/float64(all))
		}
	}
}
