package network

import (
	"errors"
	"fmt"
	"slices"

	"github.com/mosaik-engine/mosaik/identity"
)

// Reason is why a connection was refused or has ended: a stable word, the same on
// both sides, in metrics and on the wire (docs/format/bond.md). A Reason is an
// error, so that errors.Is(err, network.WrongNetwork) asks for one.
type Reason string

// What ends a connection before it carries anything.
const (
	// WrongNetwork: the sides belong to different networks.
	WrongNetwork Reason = "wrong-network"
	// WrongPeer: another peer answered than the one that was dialled.
	WrongPeer Reason = "wrong-peer"
	// BadCertificate: not exactly one self-signed Ed25519 certificate.
	BadCertificate Reason = "bad-certificate"
	// OwnIdentity: both sides have the same key.
	OwnIdentity Reason = "own-identity"
	// UnknownProtocol: the side that was dialled does not speak what was asked for.
	UnknownProtocol Reason = "unknown-protocol"
	// NoCommonGroup: the protocol carries groups' traffic, and no group is left that
	// both sides have.
	NoCommonGroup Reason = "no-common-group"
	// WrongGroupKey: a proof is not that of the group's key, of this peer, in this session.
	WrongGroupKey Reason = "wrong-group-key"
	// NotAllowed: Options.Authorize says no, without a reason of its own.
	NotAllowed Reason = "not-allowed"
	// BadEntry: the peer's entry is forged, of somebody else, or of another network.
	BadEntry Reason = "bad-entry"
	// TicketExpired: what Options.Authorize granted has expired, or the ticket had.
	TicketExpired = ticketPrefix + Reason(identity.ReasonExpired)
	// TooManyConnections: Limits.Conns or Limits.ConnsPerPeer is reached.
	TooManyConnections Reason = "too-many-connections"
	// TooManyHandshakes: a handshake had to make room for newer ones (Limits.Handshakes).
	TooManyHandshakes Reason = "too-many-handshakes"
	// HandshakeTimeout: the handshake was not done within Limits.HandshakeTimeout.
	HandshakeTimeout Reason = "handshake-timeout"
	// HandshakeFailed: TLS failed for a reason that has no word of its own here.
	HandshakeFailed Reason = "handshake-failed"
)

// What ends a connection later, beside those of before that can.
const (
	// UnknownGroup: a single group was refused, because the other side does not have it.
	UnknownGroup Reason = "unknown-group"
	// Malformed: a frame or a message is not what the protocol says.
	Malformed Reason = "malformed"
	// Oversize: a frame or a message is larger than the protocol allows.
	Oversize Reason = "oversize"
	// TooManyEntries: entries came faster than anybody changes them.
	TooManyEntries Reason = "too-many-entries"
	// Silent: not even a heartbeat came for Limits.Silence.
	Silent Reason = "silent"
	// TooSlow: the other side did not take a piece of a message within Limits.WriteTimeout.
	TooSlow Reason = "too-slow"
	// Idle: nothing but heartbeats passed for as long as the protocol allows.
	Idle Reason = "idle"
	// GroupsChanged: the groups of a side have changed; the connection may be made anew.
	GroupsChanged Reason = "groups-changed"
	// Renew: a side grants more than when the connection was made; it may be made anew.
	Renew Reason = "renew"
	// GoingAway: a side stops, or stops to speak the protocol.
	GoingAway Reason = "going-away"
	// Done: a side has no more use for the connection.
	Done Reason = "done"
	// Lost: the connection broke without a word.
	Lost Reason = "lost"
	// Other: the other side gave a word that this program does not know.
	Other Reason = "other"
)

// reasons are all words, in the order of the document.
var reasons = [...]Reason{
	WrongNetwork, WrongPeer, BadCertificate, OwnIdentity, UnknownProtocol, NoCommonGroup, WrongGroupKey, NotAllowed, BadEntry,
	TooManyConnections, TooManyHandshakes, HandshakeTimeout, HandshakeFailed,
	UnknownGroup, Malformed, Oversize, TooManyEntries, Silent, TooSlow, Idle, GroupsChanged, Renew, GoingAway, Done, Lost, Other,
	// Why a ticket was not accepted.
	TicketReason(identity.ReasonAbsent), TicketReason(identity.ReasonMalformed), TicketReason(identity.ReasonOversize),
	TicketReason(identity.ReasonAlgorithm), TicketReason(identity.ReasonSignature), TicketReason(identity.ReasonIssuer),
	TicketReason(identity.ReasonSubject), TicketReason(identity.ReasonAudience), TicketReason(identity.ReasonClaim),
	TicketReason(identity.ReasonNotYetValid), TicketExpired, TicketReason(identity.ReasonNonExpiring),
	TicketReason(identity.ReasonLifetime), TicketReason(identity.ReasonAge),
	TicketReason(identity.ReasonMeasurements), TicketReason(identity.ReasonUntrusted),
}

// ticketPrefix is what the words of tickets begin with.
const ticketPrefix Reason = "ticket-"

// TicketReason returns the word by which a connection tells why a ticket was not
// accepted: that of the ticket after "ticket-".
func TicketReason(r identity.Reason) Reason { return ticketPrefix + Reason(r) }

// Error returns the word with the project's prefix.
func (r Reason) Error() string { return "mosaik: connection: " + string(r) }

// reasonFrom maps a word from the wire to one that is known.
func reasonFrom(word []byte) Reason {
	if r := Reason(word); slices.Contains(reasons[:], r) {
		return r
	}
	return Other
}

// CloseError says how a connection ended, or why there is none. errors.Is finds
// its Reason and its Cause.
type CloseError struct {
	Peer     identity.PeerID // zero while nobody has proved who it is
	Protocol string          // empty while none is agreed on
	Reason   Reason
	Remote   bool  // the other side has decided and told
	Cause    error // what this side knows beyond the word; may be nil, is never told
}

// Error tells who ended what, and why.
func (e *CloseError) Error() string {
	who, side := "an unknown peer", "refused or closed here"
	if !e.Peer.IsZero() {
		who = "peer " + e.Peer.Short()
	}
	if e.Remote {
		side = "refused or closed by the other side"
	}
	s := fmt.Sprintf("%s: %s, %s", e.Reason.Error(), who, side)
	if e.Cause != nil {
		s += ": " + e.Cause.Error()
	}
	return s
}

// Unwrap returns the reason and the cause.
func (e *CloseError) Unwrap() []error {
	if e.Cause == nil {
		return []error{e.Reason}
	}
	return []error{e.Reason, e.Cause}
}

// refusal is a CloseError whose peer and protocol are filled in by who knows them.
func refusal(r Reason, format string, args ...any) *CloseError {
	return &CloseError{Reason: r, Cause: fmt.Errorf(format, args...)}
}

// closeErrorOf finds the CloseError in err, or makes one of the reason in it, or
// of the given reason.
func closeErrorOf(err error, otherwise Reason) *CloseError {
	var c *CloseError
	if errors.As(err, &c) {
		return c
	}
	var r Reason
	var ticket identity.Reason
	if errors.As(err, &r) {
		return &CloseError{Reason: r, Cause: err}
	}
	if errors.As(err, &ticket) {
		return &CloseError{Reason: reasonFrom([]byte(TicketReason(ticket))), Cause: err}
	}
	return &CloseError{Reason: otherwise, Cause: err}
}
