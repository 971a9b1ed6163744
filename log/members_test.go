package log_test

import (
	"errors"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

// openMembership returns what commits commands to a log of members and what they come to.
func openMembership(t *testing.T) (do func(command []byte) error, read func() log.Membership) {
	t.Helper()
	mem := log.NewMemory(testGroup)
	if err := log.Register(t.Context(), mem, log.MembersEntry()); err != nil {
		t.Fatal(err)
	}
	do = func(command []byte) error {
		f := mem.AppendAsync(t.Context(), log.MembersKey(), command)
		results, err := f.Results()
		if err != nil {
			t.Fatal(err)
		}
		return log.MembershipResult(results[0])
	}
	read = func() log.Membership {
		v, err := mem.View(t.Context(), log.MembersKey(), log.Stale())
		if err != nil {
			t.Fatal(err)
		}
		m, err := log.ReadMembership(v)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	return do, read
}

func admit(t *testing.T, number uint64, peer identity.PeerID, v log.Verdict) []byte {
	t.Helper()
	command, err := log.AdmitCommand(number, peer, v)
	if err != nil {
		t.Fatal(err)
	}
	return command
}

// TestMembership walks through the changes one after the other: what is taken, what is
// not, and what there is afterwards.
func TestMembership(t *testing.T) {
	do, read := openMembership(t)
	a, b, c, d, e := identity.PeerID{1}, identity.PeerID{2}, identity.PeerID{3}, identity.PeerID{4}, identity.PeerID{5}
	founders := []identity.PeerID{a, b, c}
	past, future := time.Unix(1, 0).UTC(), time.Now().Add(time.Hour).UTC()
	judged := log.Verdict{By: a, Evidence: identity.NewID("e"), At: time.Unix(100, 0).UTC(), Expires: future}
	brief := judged
	brief.Expires = time.Time{}
	for i, step := range []struct {
		what    string
		command []byte
		taken   bool
	}{
		{"nothing before the founders", log.EvictCommand(1, log.Evicted), false},
		{"no policy before them", log.PolicyCommand(log.MembershipPolicy{}), false},
		{"nobody is let in before them", admit(t, 4, d, judged), false},
		{"two founders that are one", log.FoundCommand([]identity.PeerID{a, a}), false},
		{"no founders", log.FoundCommand(nil), false},
		{"the founders", log.FoundCommand(founders), true},
		{"the founders again", log.FoundCommand(founders), true},
		{"others", log.FoundCommand([]identity.PeerID{a, b, d}), false},
		{"fewer", log.FoundCommand(founders[:2]), false},
		{"no seat, no room", admit(t, 4, d, judged), false},
		{"room for one", log.PolicyCommand(log.MembershipPolicy{Readers: 1}), true},
		{"a number of a founder", admit(t, 3, d, judged), false},
		{"a founder under another number", admit(t, 4, a, judged), false},
		{"a verdict that has ended", admit(t, 4, d, log.Verdict{At: past, Expires: past}), false},
		{"a reader", admit(t, 4, d, judged), true},
		{"no room for another", admit(t, 5, e, judged), false},
		{"no seat for it", log.SeatCommand(4, 3), false},
		{"no such seat", log.SeatCommand(4, 4), false},
		{"seat 0", log.SeatCommand(4, 0), false},
		{"its verdict holds", log.EvictCommand(4, log.Expired), false},
		{"no such member", log.EvictCommand(9, log.Evicted), false},
		{"no such reason", log.EvictCommand(3, 9), false},
		{"a founder goes", log.EvictCommand(3, log.Evicted), true},
		{"not twice", log.EvictCommand(3, log.Evicted), false},
		{"the reader gets the seat", log.SeatCommand(4, 3), true},
		{"and no other", log.SeatCommand(4, 3), false},
		{"the founder is let in again under its old number", admit(t, 3, c, brief), false},
		{"under a new one it is a reader", admit(t, 7, c, brief), true},
		{"the numbers in between are gone", admit(t, 5, e, judged), false},
		{"the verdict is renewed", admit(t, 4, d, brief), true},
		{"verdicts from a moment on", log.PolicyCommand(log.MembershipPolicy{Since: time.Unix(101, 0), Readers: 1}), true},
		{"an older one does not count", admit(t, 8, e, judged), false},
		{"a founder goes", log.EvictCommand(2, log.Departed), true},
		{"the last stays", log.EvictCommand(1, log.Evicted), false},
	} {
		before := read()
		err := do(step.command)
		if taken := err == nil; taken != step.taken {
			t.Fatalf("step %d, %s: taken %t (%v)", i, step.what, taken, err)
		}
		if err != nil && !errors.Is(err, log.ErrMembership) {
			t.Errorf("step %d, %s: %v is no ErrMembership", i, step.what, err)
		}
		if err != nil && !reflect.DeepEqual(before, read()) {
			t.Fatalf("step %d, %s: refused, and yet something has changed", i, step.what)
		}
	}
	want := log.Membership{Seats: 3, Next: 8, Policy: log.MembershipPolicy{Since: time.Unix(101, 0).UTC(), Readers: 1},
		Members: []log.Member{{Number: 1, Peer: a, Seat: 1}}}
	if m := read(); !reflect.DeepEqual(m, want) {
		t.Errorf("%+v, want %+v", m, want)
	}
}

// TestMembershipInvariants: whatever is commanded, a seat has one member, a peer one
// number, the committee somebody, and no number comes twice.
func TestMembershipInvariants(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 1))
		do, read := openMembership(t)
		if err := do(log.FoundCommand([]identity.PeerID{{1}, {2}, {3}})); err != nil {
			t.Fatal(err)
		}
		given := map[uint64]identity.PeerID{1: {1}, 2: {2}, 3: {3}}
		taken := 0
		for range 300 {
			var command []byte
			number, peer := 1+rng.Uint64N(40), identity.PeerID{byte(1 + rng.IntN(12))}
			switch rng.IntN(5) {
			case 0:
				command = log.EvictCommand(number, log.Evicted)
			case 1:
				command = log.SeatCommand(number, rng.Uint64N(5))
			case 2:
				command = log.PolicyCommand(log.MembershipPolicy{Readers: rng.IntN(4), Since: time.Unix(rng.Int64N(20), 0)})
			default:
				command = admit(t, number, peer, log.Verdict{At: time.Unix(rng.Int64N(40), 0)})
			}
			if do(command) == nil {
				taken++
			}
			m := read()
			seats, peers := map[uint64]bool{}, map[identity.PeerID]bool{}
			for _, x := range m.Members {
				if x.Seat > 3 || x.Seat != 0 && seats[x.Seat] || peers[x.Peer] || x.Number >= m.Next {
					t.Fatalf("seed %d: %+v", seed, m)
				}
				seats[x.Seat], peers[x.Peer] = true, true
				if was, ok := given[x.Number]; ok && was != x.Peer {
					t.Fatalf("seed %d: number %d was another's", seed, x.Number)
				}
				given[x.Number] = x.Peer
			}
			delete(seats, 0)
			if len(seats) == 0 {
				t.Fatalf("seed %d: nobody is left: %+v", seed, m)
			}
		}
		if taken < 20 {
			t.Fatalf("seed %d: only %d commands were taken: nothing was tried", seed, taken)
		}
	}
}

// TestVerdictLimit: what is beyond the limit is refused before it is proposed.
func TestVerdictLimit(t *testing.T) {
	if _, err := log.AdmitCommand(4, identity.PeerID{4}, log.Verdict{Record: make([]byte, log.MaxVerdictRecord+1)}); !errors.Is(err, log.ErrMembership) {
		t.Errorf("%v", err)
	}
	admit(t, 4, identity.PeerID{4}, log.Verdict{Record: make([]byte, log.MaxVerdictRecord)})
}
