package catalog

import (
	"context"
	"net"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/mosaik-engine/mosaik/identity"
)

// nameServer answers questions for SRV records over UDP, on a port of its own.
func nameServer(t *testing.T, records map[string][]dnsmessage.SRVResource) *net.Resolver {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { conn.Close(); <-done })
	go func() {
		defer close(done)
		buf := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(buf[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			q := m.Questions[0]
			m.Header = dnsmessage.Header{ID: m.ID, Response: true, Authoritative: true}
			m.Additionals = nil
			found := records[q.Name.String()]
			if len(found) == 0 {
				m.RCode = dnsmessage.RCodeNameError
			}
			for _, r := range found {
				m.Answers = append(m.Answers, dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: q.Name, Type: dnsmessage.TypeSRV, Class: dnsmessage.ClassINET, TTL: 1}, Body: &r})
			}
			if b, err := m.Pack(); err == nil {
				_, _ = conn.WriteTo(b, from) // the question is asked again
			}
		}
	}()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
}

// TestDNS: seeds come from SRV records whose targets name peers; others are left out,
// and a name without records is told.
func TestDNS(t *testing.T) {
	a, b := keyOf(1).PeerID(), keyOf(2).PeerID()
	name := func(s string) dnsmessage.Name { return dnsmessage.MustNewName(s) }
	r := nameServer(t, map[string][]dnsmessage.SRVResource{"_mosaik._tcp.prices.example.": {
		{Port: 7072, Target: name(PeerLabel(a) + ".prices.example.")},
		{Port: 7073, Target: name(PeerLabel(b) + ".elsewhere.example.")},
		{Port: 7072, Target: name("www.prices.example.")},
	}})
	var failures []error
	failed := func(err error) { failures = append(failures, err) }
	seeds := Together(Static(Seed{keyOf(3).PeerID(), nil}), DNS(r, "prices.example", failed))(t.Context())
	slices.SortFunc(seeds, func(x, y Seed) int {
		return strings.Compare(strings.Join(x.Addresses, ""), strings.Join(y.Addresses, ""))
	})
	var got []string
	for _, s := range seeds {
		got = append(got, s.Peer.Short()+" "+strings.Join(s.Addresses, ","))
	}
	want := []string{keyOf(3).PeerID().Short() + " ", a.Short() + " " + PeerLabel(a) + ".prices.example:7072", b.Short() + " " + PeerLabel(b) + ".elsewhere.example:7073"}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) || failures != nil {
		t.Errorf("%q, %v, want %q", got, failures, want)
	}
	if seeds := DNS(r, "nowhere.example", failed)(t.Context()); len(seeds) > 0 || len(failures) != 1 || !strings.Contains(failures[0].Error(), "nowhere.example") {
		t.Errorf("%v, %v", seeds, failures)
	}
}

// TestPeerLabel: a label names a peer, fits into a domain name, and nothing else is one.
func TestPeerLabel(t *testing.T) {
	p := identity.PeerID(keyOf(1).PeerID())
	label := PeerLabel(p)
	if len(label) != 52 || label != strings.ToLower(label) {
		t.Errorf("%q", label)
	}
	for _, text := range []string{label, strings.ToUpper(label)} {
		if got, err := parsePeerLabel(text); err != nil || got != p {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "www", label[1:], label + "a", "1" + label[1:]} {
		if got, err := parsePeerLabel(text); err == nil {
			t.Errorf("%q: %v", text, got)
		}
	}
}
