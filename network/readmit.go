package network

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/mosaik-engine/mosaik/identity"
)

// ReadmitProtocol is the name of the protocol by which a member that has lost its
// disk asks the others to be taken back (engine.Options.Rejoin).
//
//	request   groups 2 | id 32 of each
//	answer    0 | incarnation 8
//	          1 | why not, text
//
// Integers are little-endian. It is the member itself that asks, since the connection
// is bound to its key, and only of groups whose keys it has proven.
const ReadmitProtocol = "mosaik/readmit/1"

const (
	readmitDone    = 0
	readmitRefused = 1

	maxReadmitMessage = 2 + MaxGroups*identity.Size
	maxReadmitReason  = 1 << 10
)

// ServeReadmit takes a member back (engine.Engine.Readmit).
type ServeReadmit func(ctx context.Context, peer identity.PeerID, groups []identity.ID) (incarnation uint64, err error)

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
	var incarnation uint64
	if err == nil {
		incarnation, err = serve(ctx, c.Remote(), groups)
	}
	if err != nil {
		text := err.Error()
		return append([]byte{readmitRefused}, text[:min(len(text), maxReadmitReason)]...)
	}
	return binary.LittleEndian.AppendUint64([]byte{readmitDone}, incarnation)
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

func decodeReadmitted(b []byte) (uint64, error) {
	switch {
	case len(b) == 9 && b[0] == readmitDone:
		return binary.LittleEndian.Uint64(b[1:]), nil
	case len(b) > 0 && len(b) <= 1+maxReadmitReason && b[0] == readmitRefused:
		return 0, fmt.Errorf("mosaik: it refuses: %q", b[1:])
	}
	return 0, errReadmit
}

// AskReadmit asks the members in turn until one takes this node back into the
// groups, whose keys the endpoint must know (SetGroups). It is for
// engine.Options.Rejoin.
func (e *Endpoint) AskReadmit(ctx context.Context, members []identity.PeerID, groups []identity.ID) (uint64, error) {
	var errs []error
	for _, m := range members {
		if m == e.peer {
			continue
		}
		incarnation, err := e.askReadmit(ctx, m, groups)
		if err == nil {
			return incarnation, nil
		}
		errs = append(errs, fmt.Errorf("member %s: %w", m.Short(), err))
	}
	return 0, fmt.Errorf("mosaik: no member takes this one back: %w", errors.Join(errs...))
}

func (e *Endpoint) askReadmit(ctx context.Context, member identity.PeerID, groups []identity.ID) (uint64, error) {
	c, err := e.Dial(ctx, member, ReadmitProtocol)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := c.SetDeadline(deadline); err != nil {
			return 0, err
		}
	}
	if err := c.WriteMessage(appendReadmit(nil, groups)); err != nil {
		return 0, err
	}
	b, err := c.ReadMessage()
	if err != nil {
		return 0, err
	}
	return decodeReadmitted(b)
}
