package log

import (
	"errors"
	"fmt"

	"github.com/mosaik-engine/mosaik/identity"
)

// Limits of the format. They are part of it: a decoder refuses what exceeds
// them, so they may be raised only together with the header version.
const (
	// MaxPayload is the largest record in bytes, and also the largest sum of
	// payloads of one Append: a proposal must stay below 1 MiB for Raft, and the
	// difference is room for its framing.
	MaxPayload = 1<<20 - 64<<10
	// MaxRecords is the largest number of records of one Append.
	MaxRecords = 8192
	// MaxBody is the largest body of a commit in bytes.
	MaxBody = 2 << 20
)

// Errors of the log. Test for them with errors.Is; what is returned wraps them
// with the operation, the key and the limit.
var (
	// ErrClosed is returned by every method of something that has been closed.
	ErrClosed = errors.New("mosaik: closed")
	// ErrNotFound says that the asked-for commit, record or log does not exist
	// here (yet).
	ErrNotFound = errors.New("mosaik: not found")
	// ErrOversize says that a record, or the records of one Append together,
	// exceed MaxPayload or MaxRecords. Nothing was written.
	ErrOversize = errors.New("mosaik: oversize")
	// ErrEmpty says that an Append had no record. An empty record is legal, no
	// record is not.
	ErrEmpty = errors.New("mosaik: nothing to append")
	// ErrCodec says that a log's values are written in another codec than the
	// definition that opened it names, or that a value does not decode.
	ErrCodec = errors.New("mosaik: codec")
	// ErrPosition says that a position is malformed or not one of this log.
	ErrPosition = errors.New("mosaik: bad position")
	// ErrPointer says that a pointer is malformed, or does not hold: the commit it
	// names has another digest here.
	ErrPointer = errors.New("mosaik: bad pointer")
	// ErrNewerFormat says that the bytes were written by a later version of the
	// format than this program knows.
	ErrNewerFormat = errors.New("mosaik: newer format")
	// ErrOlderFormat says that the bytes were written in an earlier version of the
	// format that this program does not read any more.
	ErrOlderFormat = errors.New("mosaik: older format")
)

// CorruptionError marks bytes that are not what was written. Everything that
// reads stored bytes returns it (wrapped) instead of serving them; find it with
// errors.As. Fields that are not known at the place of detection are zero.
type CorruptionError struct {
	File   string      // path of the file, when one file is to blame
	Offset int64       // byte offset in File, or in the commit's bytes when File is ""
	Group  identity.ID // group whose log is damaged
	Commit uint64      // commit number
	Err    error       // what is wrong
}

// Error names what is known of the place.
func (e *CorruptionError) Error() string {
	where := ""
	if e.File != "" {
		where += fmt.Sprintf(" file %s", e.File)
	}
	if !e.Group.IsZero() {
		where += fmt.Sprintf(" group %s", e.Group.Short())
	}
	if e.Commit != 0 {
		where += fmt.Sprintf(" commit %d", e.Commit)
	}
	if e.File != "" || e.Commit != 0 {
		where += fmt.Sprintf(" offset %d", e.Offset)
	}
	return fmt.Sprintf("mosaik: corrupt:%s: %v", where, e.Err)
}

// Unwrap returns the cause.
func (e *CorruptionError) Unwrap() error { return e.Err }
