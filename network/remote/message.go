package remote

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/network"
)

// Protocol is the ALPN name; its number is the version of everything here.
const Protocol = "mosaik/remote/1"

// Limits of messages.
const (
	// maxData is the most that one data message carries, so that no channel holds up
	// the others of its connection for longer than that takes.
	maxData = 64 << 10
	// maxRequest bounds a request: an append or a transaction, and what is around it.
	maxRequest = log.MaxPayload + 512<<10
	maxMessage = 1 + 4 + 4 + maxRequest
	maxWord    = 32  // bytes of a reason
	maxText    = 512 // bytes of what is told beyond it
	nonceSize  = 8
)

// kind is what a message is. The numbers are on the wire.
type kind byte

const (
	kindOpen   kind = 1 // of who asks: a channel with a request
	kindCredit kind = 2 // of who asks: it takes more
	kindCancel kind = 3 // of who asks: it wants no more, and why
	kindData   kind = 4 // of who serves: the next bytes
	kindEnd    kind = 5 // of who serves: nothing more comes, and why
	kindPing   kind = 6
	kindPong   kind = 7
)

// message is one message, decoded.
type message struct {
	kind    kind
	channel uint32
	credit  uint32          // of open and credit: bytes
	reason  network.Reason  // of cancel and end
	text    string          // of end: more about it
	nonce   [nonceSize]byte // of ping and pong
	content []byte          // of open, the request, and of data; not copied
}

var errMessage = errors.New("malformed message of a remote")

func (m *message) appendTo(dst []byte) []byte {
	dst = append(dst, byte(m.kind))
	if m.kind == kindPing || m.kind == kindPong {
		return append(dst, m.nonce[:]...)
	}
	dst = binary.LittleEndian.AppendUint32(dst, m.channel)
	switch m.kind {
	case kindOpen, kindCredit:
		dst = binary.LittleEndian.AppendUint32(dst, m.credit)
	case kindCancel:
		return append(dst, m.reason...)
	case kindEnd:
		dst = append(dst, byte(len(m.reason)))
		dst = append(dst, m.reason...)
		return append(dst, m.text[:min(len(m.text), maxText)]...)
	}
	return append(dst, m.content...)
}

// decodeMessage decodes what appendTo wrote. The content aliases b.
func decodeMessage(b []byte) (m message, err error) {
	if len(b) == 0 {
		return m, errMessage
	}
	m.kind = kind(b[0])
	b = b[1:]
	if m.kind == kindPing || m.kind == kindPong {
		if len(b) != nonceSize {
			return m, errMessage
		}
		m.nonce = [nonceSize]byte(b)
		return m, nil
	}
	if len(b) < 4 {
		return m, errMessage
	}
	m.channel = binary.LittleEndian.Uint32(b)
	b = b[4:]
	switch m.kind {
	case kindOpen, kindCredit:
		if len(b) < 4 {
			return m, errMessage
		}
		m.credit, m.content = binary.LittleEndian.Uint32(b), b[4:]
		if m.credit == 0 || m.credit > MaxWindow || len(m.content) > maxRequest ||
			m.kind == kindOpen && m.credit < MinWindow || m.kind == kindCredit && len(m.content) > 0 {
			return m, errMessage
		}
	case kindCancel:
		if len(b) == 0 || len(b) > maxWord {
			return m, errMessage
		}
		m.reason = network.Reason(b)
	case kindData:
		if len(b) == 0 || len(b) > maxData {
			return m, errMessage
		}
		m.content = b
	case kindEnd:
		if len(b) == 0 || b[0] == 0 || b[0] > maxWord || len(b) < 1+int(b[0]) || len(b) > 1+int(b[0])+maxText {
			return m, errMessage
		}
		m.reason, m.text = network.Reason(b[1:1+b[0]]), string(b[1+b[0]:])
	default:
		return m, fmt.Errorf("%w: of kind %d", errMessage, m.kind)
	}
	return m, nil
}
