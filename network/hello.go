package network

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"

	"github.com/mosaik-engine/mosaik/identity"
)

// hello is the first message of each side.
type hello struct {
	network identity.ID
	proven  []groupProof
	refused []groupRefusal
	entry   []byte // as of identity.SignedEntry.Bytes; empty: none
}

// groupProof is a group and the sender's proof of its key.
type groupProof struct{ group, proof identity.ID }

// groupRefusal is a group that the sender will not carry on this connection.
type groupRefusal struct {
	group  identity.ID
	reason Reason
}

const (
	// maxWord bounds a reason on the wire.
	maxWord     = 32
	maxHello    = 32 + 2 + identity.MaxEntry + 2 + MaxGroups*64 + maxRefused
	maxRefused  = 2 + MaxGroups*(32+1+maxWord)
	maxClose    = maxWord
	proofSize   = 64
	networkSize = identity.Size
)

func (h *hello) appendTo(dst []byte) []byte {
	dst = append(dst, h.network[:]...)
	dst = binary.LittleEndian.AppendUint16(dst, uint16(len(h.proven)))
	for _, p := range h.proven {
		dst = append(dst, p.group[:]...)
		dst = append(dst, p.proof[:]...)
	}
	dst = appendRefused(dst, h.refused)
	dst = binary.LittleEndian.AppendUint16(dst, uint16(len(h.entry)))
	return append(dst, h.entry...)
}

func appendRefused(dst []byte, refused []groupRefusal) []byte {
	dst = binary.LittleEndian.AppendUint16(dst, uint16(len(refused)))
	for _, r := range refused {
		dst = append(dst, r.group[:]...)
		dst = append(dst, byte(len(r.reason)))
		dst = append(dst, r.reason...)
	}
	return dst
}

var errHello = errors.New("malformed hello")

// networkOf returns the network a hello is for: it is looked at before anything
// else is.
func networkOf(b []byte) (identity.ID, error) {
	if len(b) < networkSize {
		return identity.ID{}, errHello
	}
	return identity.ID(b[:networkSize]), nil
}

// decodeHello decodes what appendTo wrote. Groups must ascend, so that none is
// there twice. The entry aliases b; nothing of it is looked at.
func decodeHello(b []byte) (h hello, err error) {
	if h.network, err = networkOf(b); err != nil {
		return h, err
	}
	b = b[networkSize:]
	if len(b) < 2 {
		return h, errHello
	}
	n := int(binary.LittleEndian.Uint16(b))
	if b = b[2:]; n > MaxGroups || len(b) < n*proofSize {
		return h, errHello
	}
	for range n {
		p := groupProof{identity.ID(b[:32]), identity.ID(b[32:64])}
		if k := len(h.proven); k > 0 && bytes.Compare(h.proven[k-1].group[:], p.group[:]) >= 0 {
			return h, errHello
		}
		h.proven = append(h.proven, p)
		b = b[proofSize:]
	}
	if h.refused, b, err = cutRefused(b); err != nil {
		return h, err
	}
	if len(b) < 2 || len(b) > 2+identity.MaxEntry || len(b) != 2+int(binary.LittleEndian.Uint16(b)) {
		return h, errHello
	}
	h.entry = b[2:]
	return h, nil
}

// decodeRefused decodes what appendRefused wrote, to the last byte.
func decodeRefused(b []byte) ([]groupRefusal, error) {
	refused, rest, err := cutRefused(b)
	if err == nil && len(rest) > 0 {
		err = errHello
	}
	return refused, err
}

// cutRefused decodes what appendRefused wrote and returns what follows it.
func cutRefused(b []byte) (refused []groupRefusal, rest []byte, err error) {
	if len(b) < 2 {
		return nil, nil, errHello
	}
	n := int(binary.LittleEndian.Uint16(b))
	if b = b[2:]; n > MaxGroups {
		return nil, nil, errHello
	}
	for range n {
		if len(b) < 33 || b[32] == 0 || b[32] > maxWord || len(b) < 33+int(b[32]) {
			return nil, nil, errHello
		}
		size := int(b[32])
		r := groupRefusal{identity.ID(b[:32]), reasonFrom(b[33 : 33+size])}
		if k := len(refused); k > 0 && refused[k-1].group.Compare(r.group) >= 0 {
			return nil, nil, errHello
		}
		refused = append(refused, r)
		b = b[33+size:]
	}
	return refused, b, nil
}

// sortRefused puts refusals into the order of the wire.
func sortRefused(refused []groupRefusal) {
	slices.SortFunc(refused, func(a, b groupRefusal) int { return a.group.Compare(b.group) })
}
