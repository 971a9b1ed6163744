package oracle

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

// Limits of an answer over HTTPS.
const (
	MaxBody   = 64 << 10 // bytes of its body
	maxHeader = 16 << 10 // bytes of its header
)

// HTTPS is the source that a CexSpot says. What it connects to must have the pinned key.
// Nothing else makes a server the right one: no authority, no name, no date in its
// certificate, since no list of authorities is measured. So whoever is in between, or a
// server whose key was changed, is BadPin and never a price. Redirects are not followed, no
// proxy is used, and no compression is asked for.
type HTTPS struct {
	config      CexSpot
	id          identity.ID
	decimals    uint8
	price, time []string // pointers; time may be nil
	now         func() time.Time
	transport   *http.Transport
}

// errPin is what fails the handshake with a server of another key.
var errPin = errors.New("mosaik: the server's key is not the one that is pinned")

// NewHTTPS returns the source of a pair. Prices get that many decimals. The error is a
// *FieldError. It connects when it is asked, and keeps the connection until Close.
func NewHTTPS(pair Pair, config *CexSpot, decimals uint8) (*HTTPS, error) {
	if err := config.validate(); err != nil {
		return nil, err
	}
	h := &HTTPS{config: *config, id: SourceID(pair, config), decimals: decimals, now: time.Now}
	h.price, _ = parsePointer(config.PricePath) // validated
	if config.TimePath != "" {
		h.time, _ = parsePointer(config.TimePath) // validated
	}
	h.transport = &http.Transport{
		Proxy:                  nil, // whatever the environment says
		TLSClientConfig:        pinned(config.TLS),
		DisableCompression:     true,
		MaxIdleConns:           1,
		MaxConnsPerHost:        1,
		MaxResponseHeaderBytes: maxHeader,
	}
	return h, nil
}

// pinned returns the configuration that lets a server with that key in its certificate pass
// and no other. TLS itself proves that the server has the private half.
func pinned(pin SPKI) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: true, // there is no authority: VerifyConnection pins the key instead
		VerifyConnection: func(state tls.ConnectionState) error {
			if len(state.PeerCertificates) == 0 {
				return fmt.Errorf("%w: it shows no certificate", errPin)
			}
			if got := SPKIOf(state.PeerCertificates[0]); got != pin {
				return fmt.Errorf("%w: it has %s, not %s", errPin, got, pin)
			}
			return nil
		},
	}
}

// ID implements Source.
func (h *HTTPS) ID() identity.ID { return h.id }

// Close implements Source.
func (h *HTTPS) Close() error {
	h.transport.CloseIdleConnections()
	return nil
}

// Observe implements Source. Without a TimePath the price is observed when the answer is
// there, whatever at says.
func (h *HTTPS) Observe(ctx context.Context, _ time.Time) Observation {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, h.config.Endpoint, nil)
	if err != nil {
		return unavailable(Malformed, log.Digest{}, "%v", err)
	}
	request.Header.Set("Accept", "application/json")
	// Not through http.Client: it follows redirects, and keeps cookies of others.
	response, err := h.transport.RoundTrip(request)
	if err != nil {
		return unavailable(failure(ctx, err), log.Digest{}, "%v", err)
	}
	defer response.Body.Close()
	switch status := response.StatusCode; {
	case status >= 300 && status < 400:
		return unavailable(Redirected, log.Digest{}, "status %d to %.100q", status, response.Header.Get("Location"))
	case status != http.StatusOK:
		return unavailable(BadStatus, log.Digest{}, "status %d", status)
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, MaxBody+1))
	switch {
	case err != nil:
		return unavailable(failure(ctx, err), log.Digest{}, "%v", err)
	case len(body) > MaxBody:
		return unavailable(TooLarge, log.Digest{}, "more than %d bytes", MaxBody)
	}
	return h.parse(body)
}

// failure says what kind of failure of the network it was.
func failure(ctx context.Context, err error) Reason {
	switch {
	case errors.Is(err, errPin):
		return BadPin
	case ctx.Err() != nil:
		return Timeout
	}
	return Unreachable
}

// parse makes an observation of an answer.
func (h *HTTPS) parse(body []byte) Observation {
	digest := log.Sum(body)
	pointers := [][]string{h.price}
	if h.time != nil {
		pointers = append(pointers, h.time)
	}
	found, err := lookUp(body, pointers...)
	if err != nil {
		return unavailable(Malformed, digest, "%v", err)
	}
	o := Observation{Reason: Available, Response: digest, ObservedAt: h.now().UnixNano()}
	if h.time != nil {
		if o.ObservedAt, err = parseTime(found[1]); err != nil {
			return unavailable(Malformed, digest, "time: %v", err)
		}
	}
	if o.Price, err = ParsePrice(fmt.Sprint(found[0]), h.decimals); err != nil {
		return unavailable(BadPrice, digest, "%v", err)
	}
	return o
}

// parseTime returns the nanoseconds since 1970 of a time in an answer: a number of
// milliseconds, as a number or a string, or a string of RFC 3339.
func parseTime(v any) (int64, error) {
	text := fmt.Sprint(v)
	if ms, err := strconv.ParseUint(text, 10, 64); err == nil && ms <= maxTimestamp {
		return int64(ms) * int64(time.Millisecond), nil
	}
	if _, number := v.(json.Number); !number {
		// The years 1970 to 2261 fit.
		if t, err := time.Parse(time.RFC3339Nano, text); err == nil && t.UnixMilli() >= 0 && t.UnixMilli() < maxTimestamp {
			return t.UnixNano(), nil
		}
	}
	return 0, fmt.Errorf("%.64q is no number of milliseconds since 1970 and no time of RFC 3339", text)
}
