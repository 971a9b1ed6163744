package oracle_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/mosaik-engine/mosaik/log"
	"github.com/mosaik-engine/mosaik/organisms/oracle"
)

// newCertificate returns a certificate of a new key, which ends at that time.
func newCertificate(t testing.TB, until time.Time) tls.Certificate {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return certify(t, private, until)
}

// certify returns a certificate of a key.
func certify(t testing.TB, private *ecdsa.PrivateKey, until time.Time) tls.Certificate {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(until.UnixNano()), Subject: pkix.Name{CommonName: "exchange.example"}, NotAfter: until}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private, Leaf: leaf}
}

// server is an exchange whose certificate and whose answers can be changed.
type server struct {
	*httptest.Server
	certificate atomic.Pointer[tls.Certificate]
	requests    atomic.Int64 // that got through its handshake
}

func newServer(t testing.TB, handler http.HandlerFunc) *server {
	t.Helper()
	s := new(server)
	first := newCertificate(t, time.Now().Add(time.Hour))
	s.certificate.Store(&first)
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.requests.Add(1)
		handler(w, r)
	}))
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.TLS = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		return &tls.Config{Certificates: []tls.Certificate{*s.certificate.Load()}, NextProtos: []string{"h2", "http/1.1"}}, nil
	}}
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

// source returns a source that pins the server's certificate of now.
func (s *server) source(t testing.TB, change func(*oracle.CexSpot)) *oracle.HTTPS {
	t.Helper()
	c := exchange("local")
	c.Endpoint, c.TLS = s.URL+"/ticker", oracle.SPKIOf(s.certificate.Load().Leaf)
	if change != nil {
		change(c)
	}
	h, err := oracle.NewHTTPS(ethUSDC, c, 2)
	if err != nil {
		t.Fatal(err)
	}
	if h.ID() != oracle.SourceID(ethUSDC, c) {
		t.Errorf("its id is %s", h.ID())
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

// TestT13 (claim T13, test 26): with a key other than the pinned one the source is
// unavailable for that reason, whatever the server would say; and with another certificate
// of the same key, even an expired one, it is not.
func TestT13(t *testing.T) {
	s := newServer(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"price": "3312.44"}`) })
	h := s.source(t, nil)
	before := time.Now()
	good := h.Observe(t.Context(), began)
	if good.Reason != oracle.Available || good.Price != 331244 || good.Response != log.Sum([]byte(`{"price": "3312.44"}`)) {
		t.Fatalf("%+v", good)
	}
	if at := time.Unix(0, good.ObservedAt); at.Before(before.Add(-time.Millisecond)) || at.After(time.Now()) {
		t.Errorf("observed at %v", at)
	}
	requests := s.requests.Load()
	pinned := *s.certificate.Load()
	other := newCertificate(t, time.Now().Add(time.Hour))
	s.certificate.Store(&other)
	h.Close()
	bad := h.Observe(t.Context(), began)
	if bad.Reason != oracle.BadPin || bad.Price != 0 || bad.ObservedAt != 0 || !bad.Response.IsZero() || !strings.Contains(bad.Detail, oracle.SPKIOf(other.Leaf).String()) {
		t.Errorf("%+v", bad)
	}
	if got := s.requests.Load(); got != requests {
		t.Errorf("the request was sent to a server of another key, %d times", got-requests)
	}
	renewed := certify(t, pinned.PrivateKey.(*ecdsa.PrivateKey), time.Now().Add(-time.Hour))
	s.certificate.Store(&renewed)
	if o := h.Observe(t.Context(), began); o.Reason != oracle.Available || o.Price != 331244 {
		t.Errorf("renewed: %+v", o)
	}
	// The pinned certificate behind another leaf does not help: the leaf is pinned.
	chain := other
	chain.Certificate = append(chain.Certificate, pinned.Certificate...)
	s.certificate.Store(&chain)
	h.Close()
	if o := h.Observe(t.Context(), began); o.Reason != oracle.BadPin {
		t.Errorf("behind another leaf: %+v", o)
	}
}

// TestAnswers: what answers are worth.
func TestAnswers(t *testing.T) {
	deep := strings.Repeat(`{"a":`, 40) + "1" + strings.Repeat("}", 40)
	for name, test := range map[string]struct {
		body, pricePath, timePath string
		reason                    oracle.Reason
		price                     oracle.Price
		detail                    string
	}{
		"a number":              {body: `{"price": 3312.44}`, reason: oracle.Available, price: 331244},
		"a string":              {body: `{"price": "3312.44000"}`, reason: oracle.Available, price: 331244},
		"an exponent":           {body: `{"price": 3.31244E3}`, reason: oracle.Available, price: 331244},
		"within":                {body: `{"result":[{"p":1},{"a/b":{"~":["x","2.5"]}}]}`, pricePath: "/result/1/a~1b/~0/1", reason: oracle.Available, price: 250},
		"a list":                {body: `[["1.5"]]`, pricePath: "/0/0", reason: oracle.Available, price: 150},
		"an empty name":         {body: `{"":"1.5"}`, pricePath: "/", reason: oracle.Available, price: 150},
		"with a time":           {body: `{"price":1,"t":1767225600000}`, timePath: "/t", reason: oracle.Available, price: 100},
		"with a time as text":   {body: `{"price":1,"t":"1767225600000"}`, timePath: "/t", reason: oracle.Available, price: 100},
		"with a date":           {body: `{"price":1,"t":"2026-01-01T01:00:00+01:00"}`, timePath: "/t", reason: oracle.Available, price: 100},
		"a time is missing":     {body: `{"price":1}`, timePath: "/t", reason: oracle.Malformed, detail: "at the path"},
		"a time is none":        {body: `{"price":1,"t":1e3}`, timePath: "/t", reason: oracle.Malformed, detail: "time: "},
		"a time before 1970":    {body: `{"price":1,"t":"1969-12-31T23:59:59Z"}`, timePath: "/t", reason: oracle.Malformed, detail: "time: "},
		"a time far away":       {body: `{"price":1,"t":"9999-01-01T00:00:00Z"}`, timePath: "/t", reason: oracle.Malformed, detail: "time: "},
		"a time too large":      {body: `{"price":1,"t":99999999999999}`, timePath: "/t", reason: oracle.Malformed, detail: "time: "},
		"NaN":                   {body: `{"price": NaN}`, reason: oracle.Malformed, detail: "not one JSON value"},
		"NaN as text":           {body: `{"price": "NaN"}`, reason: oracle.BadPrice, detail: `"NaN" is no decimal`},
		"Infinity":              {body: `{"price": "Infinity"}`, reason: oracle.BadPrice},
		"negative":              {body: `{"price": -1}`, reason: oracle.BadPrice},
		"zero":                  {body: `{"price": 0}`, reason: oracle.BadPrice},
		"too exact":             {body: `{"price": 3312.441}`, reason: oracle.BadPrice, detail: "below the last of 2"},
		"too large":             {body: `{"price": 1e29}`, reason: oracle.BadPrice},
		"a huge exponent":       {body: `{"price": 1e999999999}`, reason: oracle.BadPrice},
		"null":                  {body: `{"price": null}`, reason: oracle.Malformed, detail: "at the path"},
		"a boolean":             {body: `{"price": true}`, reason: oracle.Malformed},
		"an object":             {body: `{"price": {"x":1}}`, reason: oracle.Malformed},
		"not there":             {body: `{"prices": 1}`, reason: oracle.Malformed},
		"only in another case":  {body: `{"Price": 1}`, reason: oracle.Malformed},
		"twice":                 {body: `{"price": 1, "price": 2}`, reason: oracle.Malformed, detail: `"price" occurs twice`},
		"twice, escaped":        {body: `{"price": 1, "pric\u0065": 2}`, reason: oracle.Malformed, detail: "twice"},
		"another name twice":    {body: `{"price": 1, "x":{"a":1,"a":1}}`, reason: oracle.Malformed, detail: "twice"},
		"something follows":     {body: `{"price": 1} {"price": 2}`, reason: oracle.Malformed},
		"cut off":               {body: `{"price": 1`, reason: oracle.Malformed},
		"a page":                {body: `<html>down for maintenance</html>`, reason: oracle.Malformed},
		"nothing":               {body: ``, reason: oracle.Malformed},
		"no UTF-8":              {body: "{\"price\": 1, \"\xff\": 1}", reason: oracle.Malformed, detail: "UTF-8"},
		"too deep":              {body: `{"price": 1, "x":` + deep + `}`, reason: oracle.Malformed, detail: "deep"},
		"huge":                  {body: `{"price": 1, "x":"` + strings.Repeat("x", oracle.MaxBody) + `"}`, reason: oracle.TooLarge},
		"as large as it may be": {body: `{"price": 1, "x":"` + strings.Repeat("x", oracle.MaxBody-20) + `"}`, reason: oracle.Available, price: 100},
	} {
		s := newServer(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, test.body) })
		h := s.source(t, func(c *oracle.CexSpot) {
			c.TimePath = test.timePath
			if test.pricePath != "" {
				c.PricePath = test.pricePath
			}
		})
		o := h.Observe(t.Context(), began)
		if o.Reason != test.reason || o.Price != test.price || !strings.Contains(o.Detail, test.detail) {
			t.Errorf("%s: %v %+v", name, o.Reason, o)
		}
		if o.Price != 0 && test.timePath != "" && o.ObservedAt != began.UnixNano() {
			t.Errorf("%s: observed at %d", name, o.ObservedAt)
		}
		if wantDigest := test.reason != oracle.TooLarge; wantDigest != (o.Response == log.Sum([]byte(test.body))) {
			t.Errorf("%s: the digest of the answer is %v", name, o.Response)
		}
	}
}

// TestResponses: what else a server may do.
func TestResponses(t *testing.T) {
	elsewhere := newServer(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"price": 1}`) })
	for name, test := range map[string]struct {
		handler http.HandlerFunc
		reason  oracle.Reason
	}{
		"a redirect to itself": {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/other", http.StatusFound) }, oracle.Redirected},
		"a redirect elsewhere": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL, http.StatusMovedPermanently)
		}, oracle.Redirected},
		"an error with a price": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500); io.WriteString(w, `{"price": 1}`) }, oracle.BadStatus},
		"too many requests":     {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(429) }, oracle.BadStatus},
		"another success":       {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(203); io.WriteString(w, `{"price": 1}`) }, oracle.BadStatus},
		"fewer bytes than it says": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			io.WriteString(w, `{"price": 1}`)
		}, oracle.Unreachable},
		"a header that is too long": {func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X", strings.Repeat("x", 1<<20)) }, oracle.Unreachable},
		"a body without an end": {func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := io.WriteString(w, strings.Repeat("1", 4096)); err != nil {
					return
				}
			}
		}, oracle.TooLarge},
	} {
		s := newServer(t, test.handler)
		if o := s.source(t, nil).Observe(t.Context(), began); o.Reason != test.reason || o.Price != 0 {
			t.Errorf("%s: %v %+v", name, o.Reason, o)
		}
	}
	if n := elsewhere.requests.Load(); n != 0 {
		t.Errorf("a redirect was followed %d times", n)
	}
}

// TestNoAnswer: a server that waits, one that is gone, and one that speaks no TLS.
func TestNoAnswer(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	ctx, cancel := context.WithCancel(t.Context())
	s := newServer(t, func(w http.ResponseWriter, r *http.Request) {
		cancel() // the deadline, as soon as the server has the request
		<-r.Context().Done()
	})
	h := s.source(t, nil)
	if o := h.Observe(ctx, began); o.Reason != oracle.Timeout || o.Price != 0 {
		t.Errorf("%+v", o)
	}
	h.Close()
	s.Close()
	if o := h.Observe(t.Context(), began); o.Reason != oracle.Unreachable {
		t.Errorf("%+v", o)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			_, err = fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n{\"price\": 1}")
			c.Close()
		}
		done <- err
	}()
	plain := s.source(t, func(c *oracle.CexSpot) { c.Endpoint = "https://" + l.Addr().String() })
	if o := plain.Observe(t.Context(), began); o.Reason != oracle.Unreachable || o.Price != 0 {
		t.Errorf("%+v", o)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	l.Close()
}
