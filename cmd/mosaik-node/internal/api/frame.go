package api

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

// The binary framing, for whole runs and whole commits (docs/api.md, "Frames").
// Integers are little-endian.
//
//	stream   := "MOSAIKF1" group[32] frame* last
//	frame    := kind[1] size[4] content[size]
//
//	kind 1   run: commit[8] time[8] digest[32] run, as in a commit's body
//	kind 2   commit: header and body, as in the store
//	kind 3   nothing: a sign of life
//	kind 4   failure: the JSON of an error; the last frame
//	kind 5   the end, as asked for; the last frame
//	kind 6   bytes of something larger, the next ones
//
// A stream without a last frame has been cut off.
const (
	frameMagic   = "MOSAIKF1"
	preambleSize = len(frameMagic) + len(identity.ID{})
	frameHeader  = 1 + 4
	runPrefix    = 8 + 8 + 32

	// maxFrame bounds what a reader takes: the largest commit, or run, and less
	// than a page around it.
	maxFrame = log.MaxBody + 4096
)

// Kinds of frames.
const (
	frameRun     = 1
	frameCommit  = 2
	frameIdle    = 3
	frameFailure = 4
	frameEnd     = 5
	frameBytes   = 6
)

// frameType is the media type of the framing.
const frameType = "application/octet-stream"

// ErrAnswer says that what a node sent is malformed or cut off.
var ErrAnswer = errors.New("mosaik: bad answer of the node")

func appendPreamble(dst []byte, group identity.ID) []byte {
	return append(append(dst, frameMagic...), group[:]...)
}

// appendFrame appends a frame with the content.
func appendFrame(dst []byte, kind byte, content []byte) []byte {
	dst = append(dst, kind)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(content)))
	return append(dst, content...)
}

// appendRunFrame appends a frame with the run.
func appendRunFrame(dst []byte, r *log.Run) []byte {
	start := len(dst)
	dst = append(dst, frameRun, 0, 0, 0, 0)
	dst = binary.LittleEndian.AppendUint64(dst, r.Commit)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(r.Time))
	dst = append(dst, r.Digest[:]...)
	dst = r.AppendTo(dst)
	binary.LittleEndian.PutUint32(dst[start+1:], uint32(len(dst)-start-frameHeader))
	return dst
}

// appendCommitFrame appends a frame with the commit.
func appendCommitFrame(dst []byte, c *log.Commit) []byte {
	start := len(dst)
	dst = append(dst, frameCommit, 0, 0, 0, 0)
	dst = c.AppendTo(dst)
	binary.LittleEndian.PutUint32(dst[start+1:], uint32(len(dst)-start-frameHeader))
	return dst
}

// appendFailureFrame appends the last frame of a stream that failed.
func appendFailureFrame(dst []byte, f failure) []byte {
	content, err := json.Marshal(f)
	if err != nil {
		content = []byte(`{"error":"unknown","code":"internal"}`) // texts and numbers always encode
	}
	return appendFrame(dst, frameFailure, content)
}

// frameReader reads a framed stream.
type frameReader struct {
	r     *bufio.Reader
	group identity.ID
	buf   []byte // content of the current frame
	ended bool   // the last frame was read
}

// newFrameReader reads the preamble.
func newFrameReader(r io.Reader) (*frameReader, error) {
	f := &frameReader{r: bufio.NewReaderSize(r, 256<<10)}
	var preamble [preambleSize]byte
	if _, err := io.ReadFull(f.r, preamble[:]); err != nil {
		return nil, cutOff(err)
	}
	if string(preamble[:len(frameMagic)]) != frameMagic {
		return nil, fmt.Errorf("%w: it does not start with %s", ErrAnswer, frameMagic)
	}
	f.group = identity.ID(preamble[len(frameMagic):])
	return f, nil
}

// next returns the next frame that carries something; its content is good until
// the next call. io.EOF is the end as asked for. The error of a failure frame is
// what the node met.
func (f *frameReader) next() (kind byte, content []byte, err error) {
	for !f.ended {
		var header [frameHeader]byte
		if _, err := io.ReadFull(f.r, header[:]); err != nil {
			return 0, nil, cutOff(err)
		}
		size := binary.LittleEndian.Uint32(header[1:])
		if size > maxFrame {
			return 0, nil, fmt.Errorf("%w: a frame of %d bytes, the limit is %d", ErrAnswer, size, maxFrame)
		}
		if cap(f.buf) < int(size) {
			f.buf = make([]byte, size)
		}
		f.buf = f.buf[:size]
		if _, err := io.ReadFull(f.r, f.buf); err != nil {
			return 0, nil, cutOff(err)
		}
		switch header[0] {
		case frameRun, frameCommit, frameBytes:
			return header[0], f.buf, nil
		case frameIdle:
		case frameFailure:
			f.ended = true
			return 0, nil, decodeFailure(f.buf, 0)
		case frameEnd:
			f.ended = true
		default:
			return 0, nil, fmt.Errorf("%w: a frame of kind %d", ErrAnswer, header[0])
		}
	}
	return 0, nil, io.EOF
}

// cutOff says of a read error in the middle of a stream what it means.
func cutOff(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: it was cut off", ErrAnswer)
	}
	return fmt.Errorf("%w: %w", ErrUnreachable, err)
}

// decodeRun decodes the content of a run frame. The run shares its bytes.
func (f *frameReader) decodeRun(content []byte) (log.Run, error) {
	bad := func(err error) (log.Run, error) { return log.Run{}, fmt.Errorf("%w: %w", ErrAnswer, err) }
	if len(content) < runPrefix {
		return bad(errors.New("a run that is cut short"))
	}
	run, end, err := log.NextRun(content[runPrefix:], 0)
	if err != nil {
		return bad(err)
	}
	if end != len(content)-runPrefix {
		return bad(errors.New("bytes behind a run"))
	}
	run.Group = f.group
	run.Commit = binary.LittleEndian.Uint64(content)
	run.Time = int64(binary.LittleEndian.Uint64(content[8:]))
	run.Digest = log.Digest(content[16:runPrefix])
	if err := run.Check(); err != nil {
		return bad(err)
	}
	return run, nil
}
