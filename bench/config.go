package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/mosaik-engine/mosaik/engine"
	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/replay"
)

// ErrConfig says that a Config asks for something that cannot be measured.
var ErrConfig = errors.New("mosaik: bench: bad configuration")

// Transports of Raft messages between the nodes of a measurement.
const (
	InProcess = "inproc" // engine/inproc: copied, never on a socket
	TCP       = "tcp"    // the Raft library's own, over loopback
)

// Config says what to measure. The zero value of a field means its default.
type Config struct {
	// Dir is an existing directory on the disk to measure. A new one is made below it
	// and removed at the end. Default: the system's temporary directory.
	Dir string
	// Rows names what to measure, of Rows(). Default: all.
	Rows []string

	Size     int // bytes of a payload, a multiple of 8; default 128
	Batch    int // records of an append in the rows about batches; default 100
	Keys     int // keys that appends go to in turn; default 1
	Groups   int // Raft groups that keys are spread over; default 1
	Replicas int // of every group; default 3
	// Transport is InProcess, the default, or TCP. Groups of one replica have nobody
	// to talk to and ignore it.
	Transport string

	// Time bounds each timed run. Default 3 s.
	Time time.Duration
	// Runs is how often everything is measured; medians are reported. Default 5.
	Runs int
	// Records is how many are written before reads are timed, and bounds a timed run
	// to ten times as many. Default 2,000,000.
	Records int
	// KeyCount is the number of keys in the row "key". Default 10,000.
	KeyCount int
	// OpenKeys and OpenRecords are the size of the store in the row "open". Default
	// 10,000 and as many records as Records says; FullOpenKeys and FullOpenRecords
	// if Rows names "open".
	OpenKeys, OpenRecords int
	// OpenEntries is the size of the map in the row "map-open". Default as many as
	// Records says; FullOpenEntries if Rows names "map-open".
	OpenEntries int

	// ProfileDir, if not empty, is an existing directory that gets a CPU profile of
	// each timed run, named after row, subject and run.
	ProfileDir string
	// Progress receives one line for each timed run. Default: nothing is reported.
	Progress io.Writer

	// Remote makes e readable over loopback HTTP. Without it the row "remote" is left
	// out: this package knows no HTTP.
	Remote func(ctx context.Context, e *engine.Engine) (RemoteNode, error)
	// OpenStore calls this package's OpenStore in a process of its own, whose memory
	// is not that of the process that wrote the store. Default: in this one.
	OpenStore func(ctx context.Context, dir string) (OpenStats, error)
}

// RemoteNode is an engine as it is seen from the other end of a connection.
type RemoteNode struct {
	Scanner log.Scanner
	Source  replay.Source // of the engine's first group
	Close   func() error  // ends the connection and what serves it
}

// Sizes of what is opened in the rows "open" and "map-open" that the budget is
// about.
const (
	FullOpenKeys    = 100_000
	FullOpenRecords = 100_000_000
	FullOpenEntries = 10_000_000
)

// Rows returns the names of all rows, in the order in which they are measured.
func Rows() []string {
	return []string{
		rowMachine, rowBatch, rowPipelined, rowKeys, rowWriters, rowWriter, rowBeside,
		rowEmbeddedBatch, rowEmbeddedWriters, rowReplay, rowRemote, rowSeek,
		rowDisk, rowKey, rowApply, rowMemory, rowOpen,
		rowMap, rowMapInsert, rowMapGet, rowState, rowMapOpen,
	}
}

// withDefaults returns a copy with every default filled in.
func (c Config) withDefaults() Config {
	if c.Dir == "" {
		c.Dir = os.TempDir()
	}
	open, mapOpen := slices.Contains(c.Rows, rowOpen), slices.Contains(c.Rows, rowMapOpen)
	if len(c.Rows) == 0 {
		c.Rows = Rows()
	}
	orDefault := func(n *int, value int) {
		if *n == 0 {
			*n = value
		}
	}
	orDefault(&c.Size, 128)
	orDefault(&c.Batch, 100)
	orDefault(&c.Keys, 1)
	orDefault(&c.Groups, 1)
	orDefault(&c.Replicas, 3)
	orDefault(&c.Runs, 5)
	orDefault(&c.Records, 2_000_000)
	orDefault(&c.KeyCount, 10_000)
	if open {
		orDefault(&c.OpenKeys, FullOpenKeys)
		orDefault(&c.OpenRecords, FullOpenRecords)
	}
	if mapOpen {
		orDefault(&c.OpenEntries, FullOpenEntries)
	}
	orDefault(&c.OpenKeys, 10_000)
	orDefault(&c.OpenRecords, c.Records)
	orDefault(&c.OpenEntries, c.Records)
	if c.Time == 0 {
		c.Time = 3 * time.Second
	}
	if c.Transport == "" {
		c.Transport = InProcess
	}
	if c.Progress == nil {
		c.Progress = io.Discard
	}
	if c.OpenStore == nil {
		c.OpenStore = OpenStore
	}
	return c
}

// Limits of a Config, so that a slip of the finger does not fill a disk.
const (
	maxRecords = 1_000_000_000
	maxKeys    = 1_000_000
	maxRuns    = 1000
	maxTime    = time.Hour
)

// Validate reports what cannot be measured. The error wraps ErrConfig.
func (c Config) Validate() error {
	c = c.withDefaults()
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: "+format, append([]any{ErrConfig}, args...)...)
	}
	between := func(name string, n, low, high int) error {
		if n < low || n > high {
			return bad("%s is %d, possible are %d to %d", name, n, low, high)
		}
		return nil
	}
	for _, row := range c.Rows {
		if !slices.Contains(Rows(), row) {
			return bad("there is no row %q; there are %s", row, strings.Join(Rows(), ", "))
		}
	}
	if !validSize(c.Size) {
		return bad("size %d: payloads have at least %d bytes and a multiple of %d", c.Size, minPayload, wordSize)
	}
	if most := log.MaxPayload / c.Size; c.Batch < 1 || c.Batch > min(most, log.MaxRecords) {
		return bad("batch %d of %d bytes each: one append holds 1 to %d of them", c.Batch, c.Size, min(most, log.MaxRecords))
	}
	if c.Transport != InProcess && c.Transport != TCP {
		return bad("transport %q: there are %s and %s", c.Transport, InProcess, TCP)
	}
	if c.Time < 0 || c.Time > maxTime {
		return bad("time %v: possible is up to %v", c.Time, maxTime)
	}
	return errors.Join(
		between("size", c.Size, minPayload, log.MaxPayload),
		between("keys", c.Keys, 1, maxKeys),
		between("groups", c.Groups, 1, engine.MaxGroups),
		between("replicas", c.Replicas, 1, engine.MaxMembers),
		between("runs", c.Runs, 1, maxRuns),
		between("records", c.Records, 1, maxRecords),
		between("keys of the row key", c.KeyCount, 1, maxKeys),
		between("keys of the row open", c.OpenKeys, 1, maxKeys),
		between("records of the row open", c.OpenRecords, 1, maxRecords),
		between("entries of the row map-open", c.OpenEntries, 1, maxRecords),
	)
}

// ofBudget reports whether the budget's figures are about this configuration.
func (c *Config) ofBudget() bool {
	return c.Size == 128 && c.Batch == 100 && c.Keys == 1 && c.Groups == 1 && c.Replicas == 3 && c.Time >= time.Second
}

// session is one Run under way.
type session struct {
	Config
	root    string // of all directories of this session
	made    int    // directories so far
	run     int    // from 0
	results []*Measurement
	filled  filledStores
}

// newDir returns the path of a directory that nobody has used. It does not make it.
func (s *session) newDir(name string) string {
	s.made++
	return filepath.Join(s.root, fmt.Sprintf("%03d-%s", s.made, name))
}
