package snapshot

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"lukechampine.com/blake3"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

// An export is the whole history of a group in one file, or one stream: its
// sealed segments with their manifests, then the commits that are not sealed yet
// (docs/format/segment.md). It can be checked without anything else, and a group
// can be restored from it.

const (
	exportMagic = "mosaik.export.01"

	frameEnd     = 0 // hash 32 of all bytes before this frame
	frameSegment = 1 // size of the manifest, manifest, segment
	frameCommit  = 2 // header and body
)

// maxFrame bounds a frame: the largest segment the engine seals, and its manifest.
const maxFrame = 512 << 20

// ExportWriter writes an export.
type ExportWriter struct {
	w    io.Writer
	hash *blake3.Hasher
	buf  []byte
}

// NewExportWriter begins the export of a group.
func NewExportWriter(w io.Writer, group identity.ID) (*ExportWriter, error) {
	e := &ExportWriter{w: w, hash: blake3.New(hashSize, nil)}
	return e, e.write(append([]byte(exportMagic), group[:]...))
}

func (e *ExportWriter) write(parts ...[]byte) error {
	for _, p := range parts {
		e.hash.Write(p) // cannot fail
		if _, err := e.w.Write(p); err != nil {
			return fmt.Errorf("mosaik: export: %w", err)
		}
	}
	return nil
}

func (e *ExportWriter) head(kind byte, size int) []byte {
	return binary.AppendUvarint([]byte{kind}, uint64(size))
}

// Segment writes the next segment. object is its bytes, which the manifest
// describes.
func (e *ExportWriter) Segment(m *Manifest, object []byte) error {
	manifest := m.AppendTo(nil)
	size := binary.AppendUvarint(nil, uint64(len(manifest)))
	return e.write(e.head(frameSegment, len(size)+len(manifest)+len(object)), size, manifest, object)
}

// Commit writes the next commit that is in no segment.
func (e *ExportWriter) Commit(c *log.Commit) error {
	e.buf = c.AppendTo(e.buf[:0])
	return e.write(e.head(frameCommit, len(e.buf)), e.buf)
}

// Close ends the export.
func (e *ExportWriter) Close() error {
	sum := e.hash.Sum(nil)
	return e.write(e.head(frameEnd, hashSize), sum)
}

// ErrExport says that what is read is no export, or not all of one.
var ErrExport = errors.New("mosaik: not an export, or damaged")

// Exported is what ReadExport has found.
type Exported struct {
	Group    identity.ID
	Segments uint64
	Head     log.Head // of the last commit
	Records  uint64
	Bytes    uint64 // of the export
}

// ReadExport reads an export to its end and checks all of it: its own hash, each
// segment against its manifest, each commit against itself and the one before. begin
// is told of the group, commit of each commit, and segment of each segment after its
// commits; they may be nil, and what they get is good until they return. An error of
// theirs ends it. Only when ReadExport returns without an error was the export whole.
func ReadExport(in io.Reader, begin func(identity.ID) error, segment func(m *Manifest, object []byte) error, commit func(*log.Commit) error) (Exported, error) {
	r := exportReader{in: bufio.NewReaderSize(in, 1<<20), hash: blake3.New(hashSize, nil), commit: commit}
	header := make([]byte, len(exportMagic)+identity.Size)
	if err := r.full(header); err != nil {
		return r.out, err
	}
	if string(header[:len(exportMagic)]) != exportMagic {
		return r.out, fmt.Errorf("%w: it begins with %q", ErrExport, header[:len(exportMagic)])
	}
	r.out.Group = identity.ID(header[len(exportMagic):])
	if begin != nil {
		if err := begin(r.out.Group); err != nil {
			return r.out, err
		}
	}
	var last *Manifest
	for {
		before := r.hash.Sum(nil)
		kind, body, err := r.frame()
		if err != nil {
			return r.out, err
		}
		switch kind {
		case frameEnd:
			if string(body) != string(before) {
				return r.out, fmt.Errorf("%w: its bytes do not hash to what it ends with", ErrExport)
			}
			if _, err := r.in.ReadByte(); err != io.EOF {
				return r.out, fmt.Errorf("%w: something follows its end", ErrExport)
			}
			return r.out, nil
		case frameSegment:
			n, size := binary.Uvarint(body)
			if size <= 0 || n > uint64(len(body)-size) {
				return r.out, fmt.Errorf("%w: malformed segment", ErrExport)
			}
			m, err := DecodeManifest(body[size : size+int(n)])
			if err == nil {
				err = m.Follows(r.out.Group, last)
			}
			if err == nil && r.out.Head.Number+1 != m.First {
				err = fmt.Errorf("%w: segment %d comes after commit %d", ErrExport, m.Number, r.out.Head.Number)
			}
			if err != nil {
				return r.out, err
			}
			for c, err := range Commits(m, body[size+int(n):]) {
				if err == nil {
					err = r.take(&c)
				}
				if err != nil {
					return r.out, err
				}
			}
			last = m
			r.out.Segments++
			if segment != nil {
				if err := segment(m, body[size+int(n):]); err != nil {
					return r.out, err
				}
			}
		case frameCommit:
			c, err := log.DecodeCommit(body)
			if err == nil {
				err = c.Verify()
			}
			if err == nil {
				err = r.take(&c)
			}
			if err != nil {
				return r.out, err
			}
		default:
			return r.out, fmt.Errorf("%w: a frame of kind %d", log.ErrNewerFormat, kind)
		}
	}
}

// exportReader is an export that is being read.
type exportReader struct {
	in     *bufio.Reader
	hash   *blake3.Hasher
	commit func(*log.Commit) error
	out    Exported
	buf    []byte
}

// full reads all of b.
func (r *exportReader) full(b []byte) error {
	n, err := io.ReadFull(r.in, b)
	r.out.Bytes += uint64(n)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return fmt.Errorf("%w: it ends after %d bytes, in the middle", ErrExport, r.out.Bytes)
	}
	r.hash.Write(b) // cannot fail
	return err
}

// frame reads a frame. Its bytes are good until the next one.
func (r *exportReader) frame() (kind byte, body []byte, err error) {
	var one [1]byte
	if err := r.full(one[:]); err != nil {
		return 0, nil, err
	}
	kind = one[0]
	size, shift := uint64(0), 0
	for {
		if err := r.full(one[:]); err != nil {
			return 0, nil, err
		}
		size |= uint64(one[0]&0x7f) << shift
		if shift += 7; one[0] < 0x80 {
			break
		}
		if shift > 35 {
			return 0, nil, fmt.Errorf("%w: a frame without a size", ErrExport)
		}
	}
	if size > maxFrame || kind == frameEnd && size != hashSize {
		return 0, nil, fmt.Errorf("%w: a frame of %d bytes", ErrExport, size)
	}
	// Memory grows with what is really there.
	for r.buf = r.buf[:0]; uint64(len(r.buf)) < size; {
		n := len(r.buf)
		r.buf = append(r.buf, make([]byte, min(size-uint64(n), 1<<20))...)
		if err := r.full(r.buf[n:]); err != nil {
			return 0, nil, err
		}
	}
	return kind, r.buf, nil
}

// take checks that a commit follows the one before and hands it on.
func (r *exportReader) take(c *log.Commit) error {
	h := &r.out.Head
	if c.Header.Group != r.out.Group || c.Header.Number != h.Number+1 || c.Header.Prev != h.Digest || c.Header.Time < h.Time {
		return &log.CorruptionError{Group: r.out.Group, Commit: c.Header.Number, Err: fmt.Errorf("it does not follow commit %d", h.Number)}
	}
	*h = log.Head{Number: c.Header.Number, Digest: c.Digest, Time: c.Header.Time}
	r.out.Records += uint64(c.Header.Records)
	if r.commit == nil {
		return nil
	}
	return r.commit(c)
}
