package tdx

import (
	"encoding/binary"
	"fmt"
	"time"
)

// The content of a v1 ticket is the Rust runtime's struct in postcard
// (https://postcard.jamesmunns.com/wire-format): lengths are LEB128 varints, arrays
// are raw, an option is 0 or 1 and the value. Times are chrono's text.

// appendPostcard appends the content of a v1 ticket.
func (t *Ticket) appendPostcard(b []byte) ([]byte, error) {
	b = binary.AppendUvarint(b, uint64(len(t.Quote)))
	b = append(b, t.Quote...)
	b = append(b, t.Peer[:]...)
	b = append(b, t.Network[:]...)
	var err error
	for _, at := range []time.Time{t.StartedAt, t.QuotedAt} {
		if b, err = appendTime(b, at); err != nil {
			return nil, err
		}
	}
	if t.Expires.IsZero() {
		return append(b, 0), nil
	}
	return appendTime(append(b, 1), t.Expires)
}

func appendTime(b []byte, at time.Time) ([]byte, error) {
	text, err := chronoTime(at)
	if err != nil {
		return nil, err
	}
	return append(append(b, byte(len(text))), text...), nil
}

// decodePostcard decodes the content of a v1 ticket. It takes the one encoding that
// appendPostcard writes, and nothing after it.
func decodePostcard(content []byte) (*Ticket, error) {
	t, r := new(Ticket), postcard{rest: content}
	quote := r.bytes("quote", MaxQuoteSize)
	copy(t.Peer[:], r.take("peer", len(t.Peer)))
	copy(t.Network[:], r.take("network", len(t.Network)))
	t.StartedAt = r.time("started_at")
	t.QuotedAt = r.time("quoted_at")
	switch option := r.take("expiration", 1); {
	case option == nil || option[0] == 0:
	case option[0] == 1:
		t.Expires = r.time("expiration")
	default:
		return nil, fmt.Errorf("%w: expiration of kind %d, want 0 or 1", ErrTicket, option[0])
	}
	if r.err != nil {
		return nil, r.err
	}
	if len(r.rest) > 0 {
		return nil, fmt.Errorf("%w: %d bytes after its end", ErrTicket, len(r.rest))
	}
	t.Quote = append([]byte(nil), quote...)
	return t, nil
}

// postcard takes values off the front of rest until one does not fit; then err is
// set and every further value is zero.
type postcard struct {
	rest []byte
	err  error
}

func (r *postcard) take(field string, n int) []byte {
	if r.err == nil && n > len(r.rest) {
		r.err = fmt.Errorf("%w: %s wants %d bytes, %d are left", ErrTicket, field, n, len(r.rest))
	}
	if r.err != nil {
		return nil
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

func (r *postcard) bytes(field string, limit int) []byte {
	size, n := binary.Uvarint(r.rest)
	if r.err == nil && (n <= 0 || n > 1 && r.rest[n-1] == 0 || size > uint64(limit)) {
		r.err = fmt.Errorf("%w: size of %s, want a shortest varint of at most %d", ErrTicket, field, limit)
	}
	if r.err != nil {
		return nil
	}
	r.rest = r.rest[n:]
	return r.take(field, int(size))
}

func (r *postcard) time(field string) time.Time {
	text := string(r.bytes(field, len("2006-01-02T15:04:05.000000000Z")))
	if r.err != nil {
		return time.Time{}
	}
	at, err := time.Parse(time.RFC3339Nano, text)
	if err == nil {
		var again string
		if again, err = chronoTime(at); err == nil && again != text {
			err = fmt.Errorf("it is spelled %s", again)
		}
	}
	if err != nil {
		r.err = fmt.Errorf("%w: %s is %q: %w", ErrTicket, field, text, err)
		return time.Time{}
	}
	return at.UTC()
}

// chronoTime spells a time as chrono does in UTC: RFC 3339 with 0, 3, 6 or 9 digits
// after the second, as few as hold it.
func chronoTime(t time.Time) (string, error) {
	t = t.UTC()
	if y := t.Year(); y < 1970 || y > 9999 {
		return "", fmt.Errorf("%w: the year %d is not from 1970 to 9999", ErrTicket, y)
	}
	layout := "2006-01-02T15:04:05Z"
	switch ns := t.Nanosecond(); {
	case ns%1e6 != 0 && ns%1e3 != 0:
		layout = "2006-01-02T15:04:05.000000000Z"
	case ns%1e6 != 0:
		layout = "2006-01-02T15:04:05.000000Z"
	case ns != 0:
		layout = "2006-01-02T15:04:05.000Z"
	}
	return t.Format(layout), nil
}
