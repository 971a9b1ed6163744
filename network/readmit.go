package network

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

// ReadmitProtocol is the name of the protocol by which a member that has lost its
// disk asks the others to be taken back, and one that was let in to be taken in
// (engine.Options.Rejoin).
//
//	request   groups 2 | id 32 of each
//	answer    0 | number 4 | incarnation 4 | committee 1 | seat 1, number 4, peer 32 of each
//	          1 | why not, text
//
// Integers are little-endian. It is the member itself that asks, since the connection
// is bound to its key, and only of groups whose keys it has proven.
const ReadmitProtocol = "mosaik/readmit/2"

const (
	readmitDone    = 0
	readmitRefused = 1

	maxReadmitMessage = max(2+MaxGroups*identity.Size, 10+maxCommittee*committeeSize)
	maxReadmitReason  = 1 << 10
	// maxCommittee is how many members an answer names.
	maxCommittee  = 255
	committeeSize = 1 + 4 + identity.Size
)

// Readmitted is what a member that comes back, or comes in, is told
// (engine.Readmission).
type Readmitted struct {
	// Number and Incarnation tell it and its replicas apart.
	Number, Incarnation uint32
	// Committee is who has the seats, at most 255. Only number, peer and seat are told.
	Committee []log.Member
}

// ReadmitRequest is what a member asks that comes back, or comes in.
type ReadmitRequest struct {
	// Peer is who asks.
	Peer identity.PeerID
	// Entry is what it has shown last on the connection; nil: nothing.
	Entry *identity.SignedEntry
	// Groups are those it wants to be taken into. It has proven their keys.
	Groups []identity.ID
}

// ServeReadmit takes a member back, or in (engine.Engine.Readmit).
type ServeReadmit func(ctx context.Context, r ReadmitRequest) (*Readmitted, error)

// HandleReadmit begins to answer members that have lost their disks. stop ends that.
func HandleReadmit(e *Endpoint, serve ServeReadmit) (stop func(), err error) {
	return e.Handle(Protocol{Name: ReadmitProtocol, Groups: true, MaxMessage: maxReadmitMessage, Serve: func(c *Conn) {
		ctx, cancel := contextOf(c)
		defer cancel()
		b, err := c.ReadMessage()
		if err != nil {
			return
		}
		_ = c.WriteMessage(answerReadmit(ctx, c, b, serve)) // the other side sees that it has ended
	}})
}

func answerReadmit(ctx context.Context, c *Conn, request []byte, serve ServeReadmit) []byte {
	groups, err := decodeReadmit(request)
	for _, g := range groups {
		if err == nil && !c.Carries(g) {
			err = fmt.Errorf("the key of group %s is not proven", g.Short())
		}
	}
	var r *Readmitted
	if err == nil {
		r, err = serve(ctx, ReadmitRequest{Peer: c.Remote(), Entry: c.Entry(), Groups: groups})
	}
	if err != nil {
		text := err.Error()
		return append([]byte{readmitRefused}, text[:min(len(text), maxReadmitReason)]...)
	}
	return r.appendTo([]byte{readmitDone})
}

func (r *Readmitted) appendTo(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, r.Number)
	b = binary.LittleEndian.AppendUint32(b, r.Incarnation)
	b = append(b, byte(len(r.Committee)))
	for _, x := range r.Committee {
		b = binary.LittleEndian.AppendUint32(append(b, byte(x.Seat)), uint32(x.Number))
		b = append(b, x.Peer[:]...)
	}
	return b
}

var errReadmit = errors.New("mosaik: malformed message of readmission")

func appendReadmit(dst []byte, groups []identity.ID) []byte {
	dst = binary.LittleEndian.AppendUint16(dst, uint16(len(groups)))
	for i := range groups {
		dst = append(dst, groups[i][:]...)
	}
	return dst
}

func decodeReadmit(b []byte) ([]identity.ID, error) {
	if len(b) < 2 {
		return nil, errReadmit
	}
	n := int(binary.LittleEndian.Uint16(b))
	if n == 0 || n > MaxGroups || len(b) != 2+n*identity.Size {
		return nil, errReadmit
	}
	groups := make([]identity.ID, n)
	for i := range groups {
		groups[i] = identity.ID(b[2+i*identity.Size:])
	}
	return groups, nil
}

func decodeReadmitted(b []byte) (*Readmitted, error) {
	switch {
	case len(b) >= 10 && b[0] == readmitDone && len(b) == 10+committeeSize*int(b[9]):
		r := &Readmitted{Number: binary.LittleEndian.Uint32(b[1:]), Incarnation: binary.LittleEndian.Uint32(b[5:])}
		for rest := b[10:]; len(rest) > 0; rest = rest[committeeSize:] {
			r.Committee = append(r.Committee, log.Member{Seat: uint64(rest[0]), Number: uint64(binary.LittleEndian.Uint32(rest[1:])), Peer: identity.PeerID(rest[5:committeeSize])})
		}
		return r, nil
	case len(b) > 0 && len(b) <= 1+maxReadmitReason && b[0] == readmitRefused:
		return nil, fmt.Errorf("mosaik: it refuses: %q", b[1:])
	}
	return nil, errReadmit
}

// AskReadmit asks the members in turn until one takes this node back into the
// groups, whose keys the endpoint must know (SetGroups). It is for
// engine.Options.Rejoin.
func (e *Endpoint) AskReadmit(ctx context.Context, members []identity.PeerID, groups []identity.ID) (*Readmitted, error) {
	var errs []error
	for _, m := range members {
		if m == e.peer {
			continue
		}
		r, err := e.askReadmit(ctx, m, groups)
		if err == nil {
			return r, nil
		}
		errs = append(errs, fmt.Errorf("member %s: %w", m.Short(), err))
	}
	return nil, fmt.Errorf("mosaik: no member takes this one back: %w", errors.Join(errs...))
}

func (e *Endpoint) askReadmit(ctx context.Context, member identity.PeerID, groups []identity.ID) (*Readmitted, error) {
	c, err := e.Dial(ctx, member, ReadmitProtocol)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := c.SetDeadline(deadline); err != nil {
			return nil, err
		}
	}
	if err := c.WriteMessage(appendReadmit(nil, groups)); err != nil {
		return nil, err
	}
	b, err := c.ReadMessage()
	if err != nil {
		return nil, err
	}
	return decodeReadmitted(b)
}
