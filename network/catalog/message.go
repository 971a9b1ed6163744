package catalog

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/mosaik-engine/mosaik/identity"
)

// What a message is. The numbers are on the wire and never given anew.
const (
	kindSummary  = 1
	kindBuckets  = 2
	kindDigest   = 3
	kindAnnounce = 4
	kindWant     = 5
	kindEntries  = 6
	kindPing     = 7
	kindPong     = 8
)

// Limits of messages.
const (
	// buckets is into how many parts a catalog is divided, by the first byte of the peer.
	buckets = 256
	// maxVersions bounds the versions of a digest or an announcement, maxWanted the peers
	// that are asked for at once.
	maxVersions = 4096
	maxWanted   = 64
	// maxEntries bounds a message of entries, in bytes. One entry always fits.
	maxEntries = 256 << 10
	// maxMessage bounds every message: a digest is the largest after the entries.
	maxMessage = maxEntries

	bitmapSize  = buckets / 8
	sumSize     = 16
	versionSize = identity.Size + 16
	nonceSize   = 8
)

var errMessage = errors.New("mosaik: catalog: malformed message")

// version says which entry of a peer somebody has.
type version struct {
	peer identity.PeerID
	at   identity.EntryVersion
}

// message is any message; which fields count is up to its kind.
type message struct {
	kind     byte
	sum      identity.ID       // summary
	sums     [buckets]sum      // buckets
	which    [bitmapSize]byte  // digest: the buckets it is of
	versions []version         // digest, announce
	peers    []identity.PeerID // want
	entries  [][]byte          // entries: as of identity.SignedEntry.Bytes; they alias the message
	nonce    [nonceSize]byte   // ping, pong
}

func (m *message) appendTo(dst []byte) []byte {
	dst = append(dst, m.kind)
	switch m.kind {
	case kindSummary:
		dst = append(dst, m.sum[:]...)
	case kindBuckets:
		for i := range m.sums {
			dst = m.sums[i].appendTo(dst)
		}
	case kindDigest:
		dst = appendVersions(append(dst, m.which[:]...), m.versions)
	case kindAnnounce:
		dst = appendVersions(dst, m.versions)
	case kindWant:
		dst = binary.LittleEndian.AppendUint16(dst, uint16(len(m.peers)))
		for i := range m.peers {
			dst = append(dst, m.peers[i][:]...)
		}
	case kindEntries:
		dst = binary.LittleEndian.AppendUint16(dst, uint16(len(m.entries)))
		for _, e := range m.entries {
			dst = binary.LittleEndian.AppendUint16(dst, uint16(len(e)))
			dst = append(dst, e...)
		}
	case kindPing, kindPong:
		dst = append(dst, m.nonce[:]...)
	}
	return dst
}

func appendVersions(dst []byte, versions []version) []byte {
	dst = binary.LittleEndian.AppendUint16(dst, uint16(len(versions)))
	for i := range versions {
		v := &versions[i]
		dst = append(dst, v.peer[:]...)
		dst = binary.LittleEndian.AppendUint64(dst, v.at.Started)
		dst = binary.LittleEndian.AppendUint64(dst, v.at.Updated)
	}
	return dst
}

// decodeMessage decodes what appendTo wrote, to the last byte.
func decodeMessage(b []byte) (*message, error) {
	short := false
	take := func(n int) []byte {
		if len(b) < n {
			short = true
			return make([]byte, n)
		}
		part := b[:n:n]
		b = b[n:]
		return part
	}
	count := func(limit int) int {
		n := int(binary.LittleEndian.Uint16(take(2)))
		if n > limit {
			short = true
			return 0
		}
		return n
	}
	versions := func() (all []version) {
		for n := count(maxVersions); n > 0 && !short; n-- {
			all = append(all, version{identity.PeerID(take(identity.Size)), identity.EntryVersion{
				Started: binary.LittleEndian.Uint64(take(8)), Updated: binary.LittleEndian.Uint64(take(8)),
			}})
		}
		return all
	}
	m := &message{kind: take(1)[0]}
	switch m.kind {
	case kindSummary:
		m.sum = identity.ID(take(identity.Size))
	case kindBuckets:
		for i := range m.sums {
			m.sums[i] = decodeSum(take(sumSize))
		}
	case kindDigest:
		m.which = [bitmapSize]byte(take(bitmapSize))
		m.versions = versions()
	case kindAnnounce:
		m.versions = versions()
	case kindWant:
		for n := count(maxWanted); n > 0 && !short; n-- {
			m.peers = append(m.peers, identity.PeerID(take(identity.Size)))
		}
	case kindEntries:
		for n := count(maxWanted); n > 0 && !short; n-- {
			size := int(binary.LittleEndian.Uint16(take(2)))
			m.entries = append(m.entries, take(min(size, identity.MaxEntry+1)))
		}
	case kindPing, kindPong:
		m.nonce = [nonceSize]byte(take(nonceSize))
	default:
		return nil, fmt.Errorf("%w: kind %d", errMessage, m.kind)
	}
	if short || len(b) > 0 {
		return nil, fmt.Errorf("%w of kind %d", errMessage, m.kind)
	}
	return m, nil
}
