package ticks

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
)

// Header is the first line of a file of ticks.
const Header = "time_ns,pair,venue,bid,ask,size"

// Limits of a file.
const (
	MaxLine  = 256  // bytes, without the end of the line
	MaxNames = 1024 // pairs, and as many venues
)

// column numbers.
const (
	colTime = iota
	colPair
	colVenue
	colBid
	colAsk
	colSize
	columns
)

var columnNames = [columns]string{"time_ns", "pair", "venue", "bid", "ask", "size"}

// Error says where a file of ticks is wrong.
type Error struct {
	File   string
	Line   int // from 1
	Column int // from 1, in bytes: where the field in question starts or is missing
	Err    error
}

// Error returns file:line:column: what is wrong.
func (e *Error) Error() string {
	return fmt.Sprintf("%s:%d:%d: %v", e.File, e.Line, e.Column, e.Err)
}

// Unwrap returns what is wrong.
func (e *Error) Unwrap() error { return e.Err }

// Reader reads a file of ticks without holding it in memory. It is strict: the
// header, six fields a line, no quotes, no spaces, no empty lines, every field in
// the one form that AppendTo writes. Lines may end in LF or CRLF, and the last one
// in neither. The order is that of the file; whether times go backwards is not
// checked, because a log keeps what arrived in the order of its arrival.
type Reader struct {
	name   string
	in     *bufio.Reader
	line   int
	offset int64
	names  [2]map[string]string // pairs and venues seen, so that each is in memory once
	err    error                // sticky
}

// NewReader reads the header of r. The name is for errors, which are *Error
// where the file is wrong and otherwise what reading met.
func NewReader(name string, r io.Reader) (*Reader, error) {
	reader := &Reader{name: name, in: bufio.NewReaderSize(r, 64<<10)}
	reader.names[0], reader.names[1] = make(map[string]string), make(map[string]string)
	line, err := reader.readLine()
	switch {
	case errors.Is(err, io.EOF):
		return nil, reader.fail(0, errors.New("the file is empty"))
	case err != nil:
		return nil, err
	case string(line) != Header:
		return nil, reader.fail(0, fmt.Errorf("the first line must be %q, not %q", Header, line))
	}
	return reader, nil
}

// Line returns the number of the line that was read last, counting the header.
func (r *Reader) Line() int { return r.line }

// Offset returns how many bytes of the file have been read as lines.
func (r *Reader) Offset() int64 { return r.offset }

// Next returns the next tick, and io.EOF after the last one. After an error it
// returns that error again: what follows a wrong line is not read.
func (r *Reader) Next() (Tick, error) {
	if r.err != nil {
		return Tick{}, r.err
	}
	var t Tick
	line, err := r.readLine()
	if err == nil {
		t, err = r.parse(line)
	}
	if err != nil {
		r.err = err
		return Tick{}, err
	}
	return t, nil
}

// readLine returns the next line without its end. It is valid until the next
// call.
func (r *Reader) readLine() ([]byte, error) {
	line, err := r.in.ReadSlice('\n')
	if len(line) == 0 && errors.Is(err, io.EOF) {
		return nil, io.EOF
	}
	r.line++
	r.offset += int64(len(line))
	if err == nil {
		line = bytes.TrimSuffix(line[:len(line)-1], []byte{'\r'})
	}
	switch {
	case len(line) > MaxLine:
		return nil, r.fail(MaxLine, fmt.Errorf("the line is longer than %d bytes", MaxLine))
	case err != nil && !errors.Is(err, io.EOF):
		return nil, fmt.Errorf("%s:%d: %w", r.name, r.line, err)
	}
	return line, nil
}

// parse parses a line that is not the header.
func (r *Reader) parse(line []byte) (Tick, error) {
	var (
		t     Tick
		start [columns + 1]int // where the fields start in line
		n     int
	)
	for i, c := range line {
		if c == ',' {
			if n++; n == columns {
				return t, r.fail(i+1, fmt.Errorf("more than %d fields", columns))
			}
			start[n] = i + 1
		}
	}
	if n < columns-1 {
		return t, r.fail(len(line), fmt.Errorf("%d fields of %d: %s is missing", n+1, columns, columnNames[n+1]))
	}
	start[columns] = len(line) + 1
	field := func(col int) []byte { return line[start[col] : start[col+1]-1] }
	wrong := func(col int, err error) error {
		return r.fail(start[col], fmt.Errorf("%s: %q %w", columnNames[col], field(col), err))
	}
	var err error
	if t.Time, err = parseTime(field(colTime)); err != nil {
		return t, wrong(colTime, err)
	}
	if t.Pair, err = r.intern(0, field(colPair)); err != nil {
		return t, wrong(colPair, err)
	}
	if t.Venue, err = r.intern(1, field(colVenue)); err != nil {
		return t, wrong(colVenue, err)
	}
	for _, c := range [...]struct {
		col   int
		check func([]byte) error
	}{{colBid, checkPrice}, {colAsk, checkPrice}, {colSize, checkSize}} {
		if err := c.check(field(c.col)); err != nil {
			return t, wrong(c.col, err)
		}
	}
	// One allocation a line: the three numbers stand next to each other.
	numbers, base := string(line[start[colBid]:]), start[colBid]
	t.Bid = Decimal(numbers[:start[colAsk]-1-base])
	t.Ask = Decimal(numbers[start[colAsk]-base : start[colSize]-1-base])
	t.Size = Decimal(numbers[start[colSize]-base:])
	return t, nil
}

// intern checks a pair (0) or venue (1) and returns the one copy of its name.
func (r *Reader) intern(kind int, b []byte) (string, error) {
	names := r.names[kind]
	if name, ok := names[string(b)]; ok {
		return name, nil
	}
	if err := checkName(b); err != nil {
		return "", err
	}
	if len(names) == MaxNames {
		return "", fmt.Errorf("is one more than the %d that are allowed", MaxNames)
	}
	name := string(b)
	names[name] = name
	return name, nil
}

// fail places an error in the line that was read last.
func (r *Reader) fail(index int, err error) error {
	return &Error{File: r.name, Line: max(r.line, 1), Column: index + 1, Err: err}
}
