package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mosaik-engine/mosaik"
	"github.com/mosaik-engine/mosaik/cmd/mosaik-node/internal/api"
	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/replay"
)

// processes is a cluster of processes of this machine.
type processes struct {
	t       *testing.T
	program string
	dirs    []string
	args    [][]string // of serve, per node
	nodes   []*node    // nil: not running
}

func newProcesses(t *testing.T, n int) *processes {
	program, err := exec.LookPath("mosaik-node")
	if err != nil {
		t.Fatal(err)
	}
	p := &processes{t: t, program: program, nodes: make([]*node, n)}
	root := t.TempDir()
	var members, ports []string
	for i := range n {
		dir := filepath.Join(root, fmt.Sprint("node", i+1))
		out := p.run("init", "--dir", dir, "--network", "test", "--secret", "--json")
		var made initInfo
		if err := json.Unmarshal([]byte(out), &made); err != nil {
			t.Fatal(err)
		}
		port := freePort(t)
		p.dirs, ports = append(p.dirs, dir), append(ports, port)
		members = append(members, made.Peer.String()+"@"+port)
	}
	for i := range n {
		p.args = append(p.args, []string{
			"--network", "test", "--members", strings.Join(members, ","), "--peer-listen", ports[i],
			"--key", filepath.Join(p.dirs[i], keyFile), "--secret-file", filepath.Join(p.dirs[0], secretFile),
		})
	}
	t.Cleanup(func() {
		for _, n := range p.nodes {
			if n != nil {
				n.kill()
			}
		}
	})
	return p
}

// freePort returns an address that nobody listens at. It is below those that the system
// gives to whoever asks for any, so that nobody is given it before it is used.
func freePort(t *testing.T) string {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", 12000+rand.IntN(18000)))
		if err != nil {
			continue
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		return l.Addr().String()
	}
	t.Fatal("no port is free")
	return ""
}

// run runs a verb in this process, which must succeed, and returns what it prints.
func (p *processes) run(args ...string) string {
	p.t.Helper()
	var out, errOut bytes.Buffer
	if code := run(p.t.Context(), args, nil, &out, &errOut); code != exitOK {
		p.t.Fatalf("%v: exit code %d\n%s%s", args, code, &out, &errOut)
	}
	return out.String()
}

// TestTickets: three processes ask each other for tickets. One whose file runs out
// of them is cut off, with the reason in its metrics and in those of the others, and
// takes part again when the file has a fresh one, without being started anew.
func TestTickets(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	p := newProcesses(t, 3)
	desk := filepath.Join(t.TempDir(), "desk")
	issuer := strings.TrimSpace(p.run("init", "--dir", desk))
	files := make([]string, 3)
	give := func(i int, life time.Duration) {
		t.Helper()
		member, _, _ := strings.Cut(strings.Split(p.args[i][3], ",")[i], "@")
		token := p.run("ticket", "issue", "--key", filepath.Join(desk, keyFile), "--subject", member, "--issuer", "desk", "--expires", life.String())
		if err := errors.Join(os.WriteFile(files[i]+".new", []byte(token), 0o600), os.Rename(files[i]+".new", files[i])); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 3 {
		files[i] = filepath.Join(p.dirs[i], "tickets")
		give(i, time.Hour)
		p.args[i] = append(p.args[i], "--ticket-key", "EdDSA:"+issuer, "--ticket-issuer", "desk", "--ticket-file", files[i])
		p.start(i)
	}
	leader := p.leads(ctx, 0)
	third := (leader + 1) % 3
	sent := 0
	key := identity.NewID("prices")
	stores := make([]log.Store, 3)
	for i := range stores {
		var err error
		if stores[i], err = p.client(i).Store(""); err != nil {
			t.Fatal(err)
		}
	}
	send := func(i int) {
		t.Helper()
		if _, err := stores[i].Append(ctx, key, fmt.Appendf(nil, "%d", sent)); err != nil {
			t.Fatal(err)
		}
		sent++
	}
	send(third)
	give(third, 3*time.Second)
	for !p.counts(third, "ticket-expired") || !p.counts(leader, "ticket-expired") {
		send(leader)
	}
	for range 20 {
		send(leader)
	}
	give(third, time.Hour)
	send(third)
	count := 0
	for run, err := range stores[third].Scan(ctx, log.Query{Key: key}) {
		if err != nil {
			t.Fatal(err)
		}
		for _, payload := range run.Records() {
			if string(payload) != fmt.Sprint(count) {
				t.Fatalf("record %d is %q", count, payload)
			}
			count++
		}
	}
	if count != sent {
		t.Errorf("%d records, %d were sent", count, sent)
	}
}

// TestDiscovery: three processes of which each knows but the first one's address found a
// group, because they find each other, and tell of all; a fourth, who is no member, is
// known to all and gets nothing of the group; one that stops is gone.
func TestDiscovery(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	p := newProcesses(t, 3)
	members := strings.Split(p.args[0][3], ",")
	for i := range members {
		list := append([]string(nil), members...)
		for j := range list {
			if j != 0 && j != i {
				list[j], _, _ = strings.Cut(list[j], "@")
			}
		}
		p.args[i] = append(slices.Clone(p.args[i]), "--members", strings.Join(list, ","), "--discover")
		p.args[i][3] = members[0] // of --members, which the later one replaces
		p.args[i] = slices.Delete(p.args[i], 2, 4)
		p.start(i)
	}
	leader := p.leads(ctx, 2)
	store, err := p.client(2).Store("")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.Append(ctx, identity.NewID("notes"), []byte("hello")); err != nil {
		t.Fatal(err)
	}
	peers := func(node string) (ids []string) {
		t.Helper()
		for line := range strings.Lines(p.run("peer", "list", "--node", node, "--json")) {
			var one api.Peer
			if err := json.Unmarshal([]byte(line), &one); err != nil {
				t.Fatal(err)
			}
			if len(one.Addresses) > 0 && len(one.Groups) == 1 {
				ids = append(ids, one.Peer.String())
			}
		}
		return ids
	}
	until := func(what string, holds func() bool) {
		t.Helper()
		for !holds() {
			select {
			case <-time.After(50 * time.Millisecond):
			case <-ctx.Done():
				t.Fatal("not in time: ", what)
			}
		}
	}
	for i := range 3 {
		until("all are known", func() bool { return len(peers(p.nodes[i].api)) == 3 })
	}

	// A node of the network that is no member of theirs.
	dir := filepath.Join(t.TempDir(), "guest")
	guest := strings.TrimSpace(p.run("init", "--dir", dir))
	n, err := startNode(p.program, dir, "--network", "test", "--key", filepath.Join(dir, keyFile), "--members", guest, "--peer-listen", "127.0.0.1:0",
		"--discover", "--bootstrap", members[0])
	if err != nil {
		t.Fatal(err)
	}
	p.nodes = append(p.nodes, n)
	until("the guest is known", func() bool { return slices.Contains(peers(p.nodes[1].api), guest) })
	until("the guest knows all", func() bool { return len(peers(n.api)) == 4 })
	if text := p.run("peer", "show", guest[:12], "--node", p.nodes[1].api); !strings.Contains(text, " 127.0.0.1:") || strings.Contains(text, "mosaik/raft") {
		t.Error(text)
	}
	if text := p.run("peer", "ping", guest[:12], "--node", p.nodes[leader].api, "--count", "2"); strings.Count(text, " answered after ") != 2 {
		t.Error(text)
	}
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	p.nodes = p.nodes[:3]
	until("the guest is gone", func() bool { return !slices.Contains(peers(p.nodes[1].api), guest) })
	var out, errOut bytes.Buffer
	if code := run(ctx, []string{"peer", "show", guest, "--node", p.nodes[1].api}, nil, &out, &errOut); code != exitFailed || !strings.Contains(errOut.String(), "the node knows no peer") {
		t.Errorf("exit code %d, %s", code, &errOut)
	}
}

// TestMembers: a machine is lost for good and evicted; another one, with a key of its own,
// is admitted, started with the settings of the others, gets the seat and everything that
// was written, and its vote counts, also after a restart.
func TestMembers(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	p := newProcesses(t, 4)
	members := strings.Split(p.args[0][3], ",")
	names := make([]string, 4)
	for i := range names {
		names[i], _, _ = strings.Cut(members[i], "@")
		p.args[i][3] = strings.Join(members[:3], ",")
	}
	p.args[3][5] = "127.0.0.1:0" // the others learn from its entry where it is, each time
	for i := range 3 {
		p.start(i)
	}
	p.leads(ctx, 0)
	key := identity.NewID("notes")
	sent := 0
	send := func(i int) {
		t.Helper()
		store, err := p.client(i).Store("")
		if err == nil {
			_, err = store.Append(ctx, key, fmt.Appendf(nil, "%d", sent))
		}
		if err != nil {
			t.Fatal(err)
		}
		sent++
	}
	until := func(what string, holds func() bool) {
		t.Helper()
		for !holds() {
			select {
			case <-time.After(50 * time.Millisecond):
			case <-ctx.Done():
				t.Fatal("not in time: ", what)
			}
		}
	}
	fails := func(want string, args ...string) {
		t.Helper()
		var out, errOut bytes.Buffer
		if code := run(ctx, args, nil, &out, &errOut); code != exitFailed || !strings.Contains(errOut.String(), want) {
			t.Fatalf("%v: exit code %d, %s%s", args, code, &out, &errOut)
		}
	}
	send(0)
	fails("no seat is vacant", "group", "admit", names[3], "--node", p.nodes[0].api)
	if n, err := startNode(p.program, p.dirs[3], p.args[3]...); err == nil {
		n.kill()
		t.Fatal("it serves without having been let in")
	}
	p.nodes[2].kill()
	p.nodes[2] = nil
	p.run("group", "evict", names[2], "--node", p.nodes[1].api)
	until("the seat is vacant", func() bool {
		return strings.Contains(p.run("group", "status", "g0", "--node", p.nodes[0].api), "the seat is vacant")
	})
	if out := p.run("group", "admit", names[3], "--lifetime", "24h", "--node", p.nodes[0].api); out != names[3]+" is member 4\n" {
		t.Error(out)
	}
	p.start(3)
	group := func(i int) api.Group {
		t.Helper()
		groups, err := p.client(i).Groups(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return groups[0]
	}
	until("the new one has a vote", func() bool { return !group(3).Reader })
	send(3)
	// One founder is away: nothing goes without the new one's vote.
	p.nodes[0].kill()
	send(3)
	if err := p.nodes[3].stop(); err != nil {
		t.Fatal(err)
	}
	p.start(0)
	send(1)
	p.start(3)
	send(3)
	store, err := p.client(3).Store("")
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for run, err := range store.Scan(ctx, log.Query{Key: key}) {
		if err != nil {
			t.Fatal(err)
		}
		for _, payload := range run.Records() {
			if string(payload) != fmt.Sprint(count) {
				t.Fatalf("record %d is %q", count, payload)
			}
			count++
		}
	}
	if count != sent {
		t.Errorf("%d records, %d were sent", count, sent)
	}
	var m api.Membership
	if err := json.Unmarshal([]byte(p.run("group", "members", "g0", "--node", p.nodes[3].api, "--json")), &m); err != nil {
		t.Fatal(err)
	}
	if last := m.Members[len(m.Members)-1]; len(m.Members) != 3 || last.Peer.String() != names[3] || last.Seat != 3 || last.By == nil || last.Expires.IsZero() {
		t.Errorf("%+v", m)
	}
	if text := p.run("group", "policy", "g0", "--readers", "2", "--promote", "--node", p.nodes[1].api); text != "open     false\npromote  true\nreaders  2\ngrace    0s\nsince    any time\n" {
		t.Error(text)
	}
	fails("0 to 32 are possible", "group", "policy", "g0", "--readers", "33", "--node", p.nodes[1].api)
	if text := p.run("group", "policy", "g0", "--node", p.nodes[3].api); !strings.Contains(text, "readers  2\n") {
		t.Error(text)
	}
}

// counts reports whether a node's metrics have counted the reason.
func (p *processes) counts(i int, reason string) bool {
	p.t.Helper()
	resp, err := http.Get(p.nodes[i].admin + "/metrics")
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, `reason="`+reason+`"`) && !strings.HasSuffix(line, " 0\n") {
			return true
		}
	}
	return false
}

func (p *processes) start(i int) {
	p.t.Helper()
	n, err := startNode(p.program, p.dirs[i], p.args[i]...)
	if err != nil {
		p.t.Fatalf("node %d: %v", i+1, err)
	}
	p.nodes[i] = n
}

func (p *processes) client(i int) *api.Client {
	p.t.Helper()
	c, err := api.NewClient(p.nodes[i].api)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { c.Close() })
	return c
}

// leads returns which node leads the group, as node i sees it.
func (p *processes) leads(ctx context.Context, i int) int {
	p.t.Helper()
	for {
		groups, err := p.client(i).Groups(ctx)
		if err != nil {
			p.t.Fatal(err)
		}
		for n, m := range groups[0].Members {
			if l := groups[0].Leader; l != nil && m == *l {
				return n
			}
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			p.t.Fatal("there is no leader")
		}
	}
}

// tellNetwork looks at what the first node tells of its network.
func (p *processes) tellNetwork() {
	p.t.Helper()
	var n api.Network
	if err := json.Unmarshal([]byte(p.run("network", "status", "--node", p.nodes[0].api, "--json")), &n); err != nil {
		p.t.Fatal(err)
	}
	peers := make(map[identity.PeerID]bool)
	for _, c := range n.Conns {
		peers[c.Peer] = true
	}
	if n.Name != "test" || len(peers) == 0 || n.BytesOut == 0 { // followers need not talk to each other
		p.t.Errorf("%+v", n)
	}
	if text := p.run("network", "status", "--node", p.nodes[0].api); !strings.Contains(text, "connected  ") {
		p.t.Error(text)
	}
	for peer := range peers {
		if text := p.run("peer", "list", "--node", p.nodes[0].api); !strings.Contains(text, "\n"+peer.String()+"  127.0.0.1:") {
			p.t.Error(text)
		}
		if text := p.run("peer", "show", peer.String(), "--node", p.nodes[0].api); !strings.Contains(text, "mosaik/raft/1") {
			p.t.Error(text)
		}
	}
	resp, err := http.Get(p.nodes[0].admin + "/metrics")
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || !bytes.Contains(text, []byte("\nmosaik_network_connections ")) {
		p.t.Errorf("%v\n%s", err, text)
	}
}

// TestProcesses: three processes with keys of their own found a group. It goes on
// when the leader is killed, takes it back, rebuilds it when its disk is gone, and all
// agree on everything that was acknowledged.
func TestProcesses(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	p := newProcesses(t, 3)
	for i := range 3 {
		p.start(i)
	}
	acknowledged := 0
	var last log.Pointer
	write := func(i int) {
		t.Helper()
		store, err := p.client(i).Store("")
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			var batch [][]byte
			for range 50 {
				batch = append(batch, fmt.Appendf(nil, "record %d", acknowledged+len(batch)))
			}
			if last, err = store.Append(ctx, identity.NewID("notes"), batch...); err != nil {
				t.Fatal(err)
			}
			acknowledged += len(batch)
		}
	}
	write(0)
	p.tellNetwork()
	for _, lose := range []bool{false, true} {
		victim := p.leads(ctx, 0)
		other := (victim + 1) % 3
		p.nodes[victim].kill()
		p.nodes[victim] = nil
		write(other)
		if lose {
			if err := os.Rename(filepath.Join(p.dirs[victim], keyFile), filepath.Join(p.dirs[other], "key of the other")); err != nil {
				t.Fatal(err)
			}
			secret, err := os.ReadFile(filepath.Join(p.dirs[0], secretFile))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.RemoveAll(p.dirs[victim]); err != nil {
				t.Fatal(err)
			}
			for j, arg := range p.args[victim] {
				if arg == "--key" {
					p.args[victim][j+1] = filepath.Join(p.dirs[other], "key of the other")
				}
			}
			if victim == 0 { // it kept the secret for all
				if err := os.MkdirAll(p.dirs[0], 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(p.dirs[0], secretFile), secret, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			rebuild := append([]string{"node", "rebuild", "--dir", p.dirs[victim], "--json"}, p.args[victim]...)
			var info rebuiltInfo
			if err := json.Unmarshal([]byte(p.run(rebuild...)), &info); err != nil || info.Commit < last.Commit {
				t.Fatalf("%+v, %v", info, err)
			}
			var out, errOut bytes.Buffer
			if code := run(ctx, rebuild, nil, &out, &errOut); code != exitFailed || !strings.Contains(errOut.String(), "has a store") {
				t.Errorf("rebuilt twice: exit code %d, %s", code, &errOut)
			}
		}
		p.start(victim)
		write(victim)
	}
	digests := make(map[string]bool)
	for i := range 3 {
		c := p.client(i)
		store, err := c.Store("")
		if err != nil {
			t.Fatal(err)
		}
		if err := store.WaitFor(ctx, last); err != nil {
			t.Fatal(err)
		}
		source, err := c.Source(ctx, "g0")
		if err != nil {
			t.Fatal(err)
		}
		r, err := replay.Audit(ctx, source, replay.AuditOptions{To: last.Commit})
		if err != nil {
			t.Fatalf("node %d: %v", i+1, err)
		}
		digests[r.Digest.String()] = true
		n := 0
		for run, err := range store.Scan(ctx, log.Query{Key: identity.NewID("notes")}) {
			if err != nil {
				t.Fatal(err)
			}
			for seq, payload := range run.Records() {
				if want := fmt.Sprintf("record %d", n); string(payload) != want || seq != uint64(n+1) {
					t.Fatalf("node %d: record %d is %q, want %q", i+1, seq, payload, want)
				}
				n++
			}
		}
		if n != acknowledged {
			t.Errorf("node %d has %d records of %d", i+1, n, acknowledged)
		}
	}
	if len(digests) != 1 {
		t.Errorf("they have %v", digests)
	}
	for i, n := range p.nodes {
		p.nodes[i] = nil
		if err := n.stop(); err != nil {
			t.Errorf("node %d: %v\n%s", i+1, err, n.log())
		}
	}
}

// TestGuests: a node that is no member reads and appends where serve lets it, and is told
// where not.
func TestGuests(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	p := newProcesses(t, 3)
	for i, guests := range []string{"write", "read", "none"} {
		p.args[i] = append(p.args[i], "--guests", guests)
		p.start(i)
	}
	p.leads(ctx, 0)
	groups, err := p.client(0).Groups(ctx)
	if err != nil {
		t.Fatal(err)
	}
	at := make(map[identity.PeerID][]string)
	var members []identity.PeerID
	for m := range strings.SplitSeq(p.args[0][3], ",") {
		name, address, _ := strings.Cut(m, "@")
		peer, err := identity.ParsePeerID(name)
		if err != nil {
			t.Fatal(err)
		}
		at[peer], members = []string{address}, append(members, peer)
	}
	guest, err := mosaik.OpenGuest(&mosaik.GuestOptions{
		Key: identity.KeyFromSeed([identity.Size]byte{7}), Network: "test", Addresses: func(p identity.PeerID) []string { return at[p] },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer guest.Close()
	key := identity.NewID("notes")
	append := func(member int) error {
		short, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		g, err := guest.Remote(groups[0].ID, members[member])
		if err == nil {
			_, err = g.Append(short, key, []byte("from outside"))
		}
		return err
	}
	if err := append(0); err != nil {
		t.Errorf("where guests may write: %v", err)
	}
	if err := append(1); err == nil {
		t.Error("a guest has written where guests may read")
	}
	read := func(member int) (n int, err error) {
		short, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		g, err := guest.Remote(groups[0].ID, members[member])
		if err != nil {
			return 0, err
		}
		if _, err := g.Sync(short); err != nil {
			return 0, err
		}
		for run, err := range g.Scan(short, log.Query{Key: key}) {
			if err != nil {
				return n, err
			}
			n += run.Count
		}
		return n, nil
	}
	if n, err := read(1); n != 1 || err != nil {
		t.Errorf("where guests may read there are %d records, %v", n, err)
	}
	if n, err := read(2); err == nil {
		t.Errorf("a guest has read %d records where there are no guests", n)
	}
}
