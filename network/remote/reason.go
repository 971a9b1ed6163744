package remote

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/mosaik-engine/mosaik/engine"
	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/network"
)

// Why channels end, beside the words of connections (network.Reason), of which NotAllowed,
// TooSlow, GoingAway, Done, UnknownGroup and those of tickets are used as well.
const (
	// NoCapacity: Policy.MaxConsumers, or a limit on what one peer may have under way, is
	// reached.
	NoCapacity network.Reason = "no-capacity"
	// TooFar: a message and its answer take longer than the policy, or who asks, allows.
	TooFar network.Reason = "too-far"
	// Behind: the replica does not have what the answer has to reflect, and did not get it
	// in time.
	Behind network.Reason = "behind"
	// Failed: an error that has no word of its own.
	Failed network.Reason = "failed"
	// Corrupt: the replica has found damage (log.CorruptionError).
	Corrupt network.Reason = "corrupt"
)

// ErrUnknown says of a write that its outcome is unknown: the request was sent and no
// answer came. It may be in the log, once, or may still come, and it is not sent again.
var ErrUnknown = errors.New("mosaik: the outcome of the write is unknown")

// ErrAnswer says that a replica has answered what no replica may. It is not asked
// again in the same call.
var ErrAnswer = errors.New("mosaik: bad answer of a replica")

// ErrNoReplica says that nobody is known who could be asked.
var ErrNoReplica = errors.New("mosaik: no replica of the group is known")

// named are the errors that have a word on the wire, the more specific before the more
// general: of an error the first counts that it is.
var named = [...]struct {
	word network.Reason
	err  error
}{
	{"unknown", ErrUnknown},
	{"disk-full", engine.ErrDiskFull},
	{"busy", engine.ErrBusy},
	{"no-quorum", engine.ErrNoQuorum},
	{"closed", log.ErrClosed},
	{"too-large", log.ErrOversize},
	{"empty", log.ErrEmpty},
	{"bad-name", identity.ErrName},
	{"bad-position", log.ErrPosition},
	{"bad-pointer", log.ErrPointer},
	{"bad-codec", log.ErrCodec},
	{"bad-query", log.ErrQuery},
	{"not-found", log.ErrNotFound},
	{"bad-transaction", log.ErrTransaction},
	{"bad-kind", log.ErrKind},
	{"mismatch", engine.ErrMismatch},
	{"diverged", log.ErrDiverged},
	{"fetching", engine.ErrFetching},
	{"newer-format", log.ErrNewerFormat},
}

// reasonOf returns the word for how an answer ended.
func reasonOf(err error) network.Reason {
	var (
		r       network.Reason
		corrupt *log.CorruptionError
		ticket  identity.Reason
	)
	switch {
	case err == nil:
		return network.Done
	case errors.As(err, &r):
		return r
	case errors.As(err, &corrupt):
		return Corrupt
	case errors.As(err, &ticket):
		return network.TicketReason(ticket)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return Behind
	}
	for _, n := range named {
		if errors.Is(err, n.err) {
			return n.word
		}
	}
	return Failed
}

// Error is what a replica answered instead of what it was asked for. errors.Is finds
// its Reason in it, and the error that the replica met, if that has a word.
type Error struct {
	Peer   identity.PeerID // the replica
	Reason network.Reason  // how it ended the channel
	Text   string          // what it says about it
}

// Error tells who said what.
func (e *Error) Error() string {
	s := fmt.Sprintf("mosaik: replica %s: %.*q", e.Peer.Short(), maxWord, string(e.Reason))
	if e.Text != "" {
		s += fmt.Sprintf(": %.*q", maxText, e.Text)
	}
	return s
}

// Unwrap returns the reason and the error that it stands for.
func (e *Error) Unwrap() []error {
	for _, n := range named {
		if n.word == e.Reason {
			return []error{e.Reason, n.err}
		}
	}
	return []error{e.Reason}
}

// refused reports whether err says that a replica does not want to answer this peer, or
// that this node does not want its answers.
func refused(err error) bool {
	r := reasonOf(err)
	return strings.HasPrefix(string(r), "ticket-") ||
		slices.Contains([]network.Reason{network.NotAllowed, network.UnknownProtocol, network.UnknownGroup, NoCapacity, TooFar}, r)
}

// final reports whether another replica would answer the same.
func final(err error) bool {
	for _, target := range []error{
		network.TooSlow, log.ErrOversize, log.ErrEmpty, identity.ErrName, log.ErrPosition, log.ErrPointer, log.ErrCodec,
		log.ErrQuery, log.ErrTransaction, log.ErrKind, log.ErrNewerFormat,
	} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

// unwritten reports whether an error of a write says that nothing was written and that
// another replica may write it.
func unwritten(err error) bool {
	return errors.Is(err, log.ErrClosed) || refused(err)
}

// tally counts how channels ended.
type tally struct {
	mu sync.Mutex
	n  map[network.Reason]uint64
}

// maxWords bounds the words that are told apart: those of others come from outside.
const maxWords = 256

func (t *tally) add(r network.Reason) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.n == nil {
		t.n = make(map[network.Reason]uint64)
	}
	if _, known := t.n[r]; !known && len(t.n) >= maxWords {
		r = network.Other
	}
	t.n[r]++
}

func (t *tally) read() map[network.Reason]uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.n)
}
