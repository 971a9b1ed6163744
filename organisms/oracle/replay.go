package oracle

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

// Limits of a replayed file.
const (
	MaxReplay     = 64 << 20 // bytes
	maxReplayLine = 256      // bytes of a line
)

// replayHeader is the first line of a replayed file.
const replayHeader = "time_ns,pair,venue,bid,ask,size"

// ErrReplay says that a file is not the one that is wanted, or not in its form.
var ErrReplay = errors.New("mosaik: bad file of prices")

// Replayer is the source that a Replay says: prices of the past, at the times of the past.
// Whoever replays asks for rounds at those times.
type Replayer struct {
	id   identity.ID
	rows []row // in the order of the file
}

// row is a line of the file for the instrument and venue.
type row struct {
	at       int64 // in nanoseconds since 1970
	latest   int64 // the largest at so far
	price    Price // 0: the line has none
	response log.Digest
	problem  string // why it has none
}

// NewReplayer reads the file and returns the source of a pair. A file with another digest or
// with a line that is not in its form is refused with ErrReplay, and the line. A price that
// is none (ErrPrice), such as a negative one, makes the source unavailable for as long as it
// is the last. The error may also be a *FieldError, or of r.
func NewReplayer(pair Pair, config *Replay, decimals uint8, r io.Reader) (*Replayer, error) {
	if err := config.validate(); err != nil {
		return nil, err
	}
	file, err := io.ReadAll(io.LimitReader(r, MaxReplay+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("mosaik: read the file of prices: %w", err)
	case len(file) > MaxReplay:
		return nil, fmt.Errorf("%w: more than %d bytes", ErrReplay, MaxReplay)
	}
	if digest := log.Sum(file); digest != config.File {
		return nil, fmt.Errorf("%w: its digest is %v, the catalog has %v", ErrReplay, digest, config.File)
	}
	out := &Replayer{id: SourceID(pair, config)}
	number := 0
	for line := range bytes.Lines(file) {
		number++
		line = bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r"))
		if err := out.add(number, string(line), config, decimals); err != nil {
			return nil, fmt.Errorf("%w: line %d: %w", ErrReplay, number, err)
		}
	}
	if number == 0 {
		return nil, fmt.Errorf("%w: it is empty", ErrReplay)
	}
	return out, nil
}

// add adds a line, if it is of the instrument and venue.
func (p *Replayer) add(number int, line string, config *Replay, decimals uint8) error {
	fields := strings.Split(line, ",")
	switch {
	case len(line) > maxReplayLine:
		return fmt.Errorf("%d bytes, the limit is %d", len(line), maxReplayLine)
	case number == 1 && line != replayHeader:
		return fmt.Errorf("%.64q is not %q", line, replayHeader)
	case number == 1:
		return nil
	case len(fields) != strings.Count(replayHeader, ",")+1:
		return fmt.Errorf("%d fields, not those of %q", len(fields), replayHeader)
	}
	at, err := strconv.ParseInt(fields[0], 10, 64)
	if err != nil || at < 0 {
		return fmt.Errorf("time_ns: %.64q is no number of nanoseconds since 1970", fields[0])
	}
	if fields[1] != config.Instrument || fields[2] != config.Venue {
		return nil
	}
	r := row{at: at, latest: at, response: log.Sum([]byte(line))}
	if n := len(p.rows); n > 0 {
		r.latest = max(at, p.rows[n-1].latest)
	}
	if r.price, err = config.Column.price(fields[3], fields[4], decimals); err != nil {
		r.problem = err.Error()
	}
	p.rows = append(p.rows, r)
	return nil
}

// price returns the price of a line.
func (c Column) price(bid, ask string, decimals uint8) (Price, error) {
	switch c {
	case Bid:
		return ParsePrice(bid, decimals)
	case Ask:
		return ParsePrice(ask, decimals)
	}
	b, err := ParsePrice(bid, decimals)
	if err != nil {
		return 0, err
	}
	a, err := ParsePrice(ask, decimals)
	if err != nil {
		return 0, err
	}
	return min(a, b) + a.Distance(b)/2, nil
}

// ID implements Source.
func (p *Replayer) ID() identity.ID { return p.id }

// Close implements Source.
func (p *Replayer) Close() error { return nil }

// Observe implements Source: the last line of the file before the first one that is later
// than at. Of several lines of one time that is the last. A line that is earlier than one
// before it is Unordered. It answers at once.
func (p *Replayer) Observe(_ context.Context, at time.Time) Observation {
	n := p.upTo(at.UnixNano())
	if n == 0 {
		return unavailable(NoData, log.Digest{}, "the file has nothing at %v or before", at.UTC())
	}
	r := &p.rows[n-1]
	switch {
	case r.at < r.latest:
		return unavailable(Unordered, r.response, "the time %d follows on %d", r.at, r.latest)
	case r.price == 0:
		return unavailable(BadPrice, r.response, "%s", r.problem)
	}
	return Observation{Reason: Available, Price: r.price, ObservedAt: r.at, Response: r.response}
}

// upTo returns how many rows come before the first that is later than at.
func (p *Replayer) upTo(at int64) int {
	// latest never falls, and the first row with latest > at is the first with a time > at.
	return sort.Search(len(p.rows), func(i int) bool { return p.rows[i].latest > at })
}
