package snapshot

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

// Manifest describes a sealed segment. Each replica computes it for itself; one
// copy is committed to the group's log of segments (SegmentsKey), against which
// the others compare their own.
type Manifest struct {
	Summary
	Commits Coding // of the segment's canonical bytes
	// State is the coding of the rows of all views after commit Last (StateWriter),
	// and State.Size is 0 where none was captured with this segment.
	State Coding
}

// SegmentsKey is the key of the log of a group whose records are the manifests
// of its sealed segments. The engine writes it.
func SegmentsKey() identity.ID { return segmentsKey }

// segmentsKey is never changed.
var segmentsKey = identity.NewID("mosaik.segments")

const (
	manifestVersion = 1
	summarySize     = rangeSize + 32 + 8 + 8
)

// AppendTo appends the manifest's encoding (docs/format/segment.md).
func (m *Manifest) AppendTo(dst []byte) []byte {
	dst = append(dst, manifestVersion)
	dst = m.Range.appendTo(dst)
	dst = append(dst, m.Digest[:]...)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(m.Time))
	dst = binary.LittleEndian.AppendUint64(dst, m.Records)
	dst = m.Commits.appendTo(dst)
	if m.State.Size == 0 {
		return dst
	}
	return m.State.appendTo(dst)
}

var errManifest = errors.New("malformed manifest")

// DecodeManifest decodes what AppendTo wrote. The error is log.ErrNewerFormat for
// a later version, else a *log.CorruptionError.
func DecodeManifest(b []byte) (*Manifest, error) {
	bad := func(err error) (*Manifest, error) {
		return nil, &log.CorruptionError{Err: fmt.Errorf("manifest: %w", err)}
	}
	if len(b) == 0 {
		return bad(errManifest)
	}
	switch v := b[0]; {
	case v > manifestVersion:
		return nil, fmt.Errorf("%w: manifest version %d, this program knows %d", log.ErrNewerFormat, v, manifestVersion)
	case v < manifestVersion:
		return bad(errManifest)
	}
	m := new(Manifest)
	r, rest, err := decodeRange(b[1:])
	if err != nil {
		return bad(err)
	}
	if len(rest) < summarySize-rangeSize {
		return bad(errManifest)
	}
	m.Range = r
	m.Digest = log.Digest(rest)
	m.Time = int64(binary.LittleEndian.Uint64(rest[32:]))
	m.Records = binary.LittleEndian.Uint64(rest[40:])
	if m.Commits, rest, err = decodeCoding(rest[48:]); err != nil {
		return bad(err)
	}
	if len(rest) > 0 {
		if m.State, rest, err = decodeCoding(rest); err != nil {
			return bad(err)
		}
		if m.State.Size == 0 || m.State.Geometry != m.Commits.Geometry {
			return bad(errManifest)
		}
	}
	if len(rest) > 0 || m.Commits.Size == 0 {
		return bad(errManifest)
	}
	return m, nil
}

// Follows reports, as a *log.CorruptionError, a manifest that is not of the
// segment after before, nil for the first.
func (m *Manifest) Follows(group identity.ID, before *Manifest) error {
	number, first, prev := uint64(1), uint64(1), log.Digest{}
	if before != nil {
		number, first, prev = before.Number+1, before.Last+1, before.Digest
	}
	if m.Group != group || m.Number != number || m.First != first || m.Prev != prev {
		return &log.CorruptionError{Group: m.Group, Commit: m.First,
			Err: fmt.Errorf("the manifest of segment %d does not follow segment %d of group %s", m.Number, number-1, group.Short())}
	}
	return nil
}

// Differs says in what two manifests of the same segment differ; nil: in nothing.
func (m *Manifest) Differs(other *Manifest) error {
	switch {
	case m.Range != other.Range:
		return fmt.Errorf("it is commits %d to %d here, %d to %d there", m.First, m.Last, other.First, other.Last)
	case m.Summary != other.Summary:
		return fmt.Errorf("its last commit is %s here, %s there", m.Digest, other.Digest)
	case m.Commits.Hash != other.Commits.Hash:
		return fmt.Errorf("it hashes to %s here, to %s there", m.Commits.Hash, other.Commits.Hash)
	case m.State.Hash != other.State.Hash:
		return fmt.Errorf("its state hashes to %s here, to %s there", m.State.Hash, other.State.Hash)
	case !slices.Equal(m.Commits.Shards, other.Commits.Shards) || !slices.Equal(m.State.Shards, other.State.Shards):
		return errors.New("its shards hash to other roots")
	}
	return nil
}
