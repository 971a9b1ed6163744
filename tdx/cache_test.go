package tdx_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mosaik-engine/mosaik/tdx"
	"github.com/mosaik-engine/mosaik/tdx/simulated"
)

const fmspc = "514d55000000" // of the default platform

// service is an Intel that can be told what to say, and fail, and counts.
type service struct {
	authority *simulated.Authority

	mu    sync.Mutex
	says  simulated.Statement
	err   error
	asked int
}

func (s *service) say(says simulated.Statement, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.says, s.err = says, err
}

func (s *service) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

func (s *service) fetch(ctx context.Context, url string) (tdx.Item, error) {
	s.mu.Lock()
	says, err := s.says, s.err
	s.asked++
	s.mu.Unlock()
	if err != nil {
		return tdx.Item{}, err
	}
	if says.Issued.IsZero() {
		says.Issued = time.Now()
	}
	return s.authority.Fetch(func() simulated.Statement { return says })(ctx, url)
}

func open(t testing.TB, opts tdx.CacheOptions) *tdx.Cache {
	t.Helper()
	cache, err := tdx.OpenCache(opts)
	if err != nil {
		t.Fatal(err)
	}
	return cache
}

func newService(t testing.TB) *service {
	t.Helper()
	a, err := simulated.New([32]byte{1}, simulated.DefaultPlatform(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return &service{authority: a}
}

// TestCacheFetchesOnce: many who ask at once, one fetch of four items; later ones none.
func TestCacheFetchesOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService(t)
		gate := make(chan struct{})
		cache := open(t, tdx.CacheOptions{Root: s.authority.Root(), Fetch: func(ctx context.Context, url string) (tdx.Item, error) {
			<-gate
			return s.fetch(ctx, url)
		}})
		defer func() { _ = cache.Close() }()
		var asking sync.WaitGroup
		for range 8 {
			asking.Go(func() {
				if c, err := cache.Collateral(t.Context(), fmspc); err != nil || c.FMSPC() != fmspc {
					t.Error(err)
				}
			})
		}
		impatient, cancel := context.WithCancel(t.Context())
		asking.Go(func() {
			if _, err := cache.Collateral(impatient, fmspc); !errors.Is(err, context.Canceled) {
				t.Errorf("one who gives up: %v", err)
			}
		})
		synctest.Wait()
		cancel()
		synctest.Wait()
		close(gate)
		asking.Wait()
		if _, err := cache.Collateral(t.Context(), fmspc); err != nil || s.count() != 4 {
			t.Errorf("%d items were fetched, want 4 (%v)", s.count(), err)
		}
		if _, err := cache.Collateral(t.Context(), "999999999999"); !errors.Is(err, tdx.ErrCollateral) {
			t.Errorf("a platform that Intel does not know: %v", err)
		}
	})
}

// TestCacheRefreshes: anew after a day; old collateral serves through an outage until it
// expires, and not a second longer.
func TestCacheRefreshes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService(t)
		cache := open(t, tdx.CacheOptions{Root: s.authority.Root(), Fetch: s.fetch})
		defer func() { _ = cache.Close() }()
		first, err := cache.Collateral(t.Context(), fmspc)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(23 * time.Hour)
		if again := cache.Cached(fmspc, time.Now()); again != first {
			t.Error("refreshed before it was due")
		}
		s.say(simulated.Statement{EvaluationNumber: 18}, nil)
		time.Sleep(2 * time.Hour)
		second := cache.Cached(fmspc, time.Now())
		if second == first || second.Summary().EvaluationNumber != 18 {
			t.Error("not refreshed when due")
		}
		s.say(fine(), errors.New("no network"))
		time.Sleep(time.Until(second.Summary().NextUpdate))
		if cache.Cached(fmspc, time.Now()) != second {
			t.Error("given up before it expired")
		}
		time.Sleep(time.Second)
		if cache.Cached(fmspc, time.Now()) != nil {
			t.Error("in use after it expired")
		}
		if _, err := cache.Collateral(t.Context(), fmspc); !errors.Is(err, tdx.ErrCollateral) {
			t.Errorf("without network and valid collateral: %v", err)
		}
		s.say(simulated.Statement{EvaluationNumber: 18}, nil)
		if _, err := cache.Collateral(t.Context(), fmspc); err != nil {
			t.Errorf("after the outage: %v", err)
		}
	})
}

// TestCacheNeverGoesBack: numbers do not fall, whoever brings the collateral, over a
// restart too; and a forgery neither gets in nor raises a number.
func TestCacheNeverGoesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService(t)
		forger, err := simulated.New([32]byte{2}, simulated.DefaultPlatform(), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		opts := tdx.CacheOptions{Root: s.authority.Root(), Dir: t.TempDir()}
		cache := open(t, opts)
		give := func(a *simulated.Authority, says simulated.Statement) error {
			t.Helper()
			return cache.Import(collateral(t, a, says))
		}
		if _, err := cache.Collateral(t.Context(), fmspc); !errors.Is(err, tdx.ErrCollateral) {
			t.Errorf("an empty cache that fetches nothing: %v", err)
		}
		if err := give(forger, simulated.Statement{EvaluationNumber: 1000, CRLNumber: 1000}); !errors.Is(err, tdx.ErrCollateral) {
			t.Errorf("a forgery: %v", err)
		}
		time.Sleep(time.Hour)
		current := simulated.Statement{EvaluationNumber: 18, CRLNumber: 5, Issued: time.Now()}
		if err := give(s.authority, current); err != nil {
			t.Fatal(err)
		}
		check := func() {
			t.Helper()
			for name, says := range map[string]simulated.Statement{
				"older evaluation": {EvaluationNumber: 17, CRLNumber: 5, Issued: time.Now()},
				"older CRL":        {EvaluationNumber: 18, CRLNumber: 4, Issued: time.Now()},
				"issued before":    {EvaluationNumber: 18, CRLNumber: 5, Issued: time.Now().Add(-2 * time.Hour)},
				"expired":          {EvaluationNumber: 19, CRLNumber: 6, Issued: time.Now().Add(-time.Hour), Valid: time.Minute},
				"from the future":  {EvaluationNumber: 19, CRLNumber: 6, Issued: time.Now().Add(time.Hour)},
				"signer revoked":   {EvaluationNumber: 19, CRLNumber: 6, Issued: time.Now(), RevokeSigner: true},
			} {
				if err := give(s.authority, says); !errors.Is(err, tdx.ErrCollateral) {
					t.Errorf("%s: %v", name, err)
				}
			}
			if c := cache.Cached(fmspc, time.Now()); c == nil || c.Summary() != collateral(t, s.authority, current).Summary() {
				t.Errorf("the cache holds %+v", c)
			}
		}
		check()
		if err := cache.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := cache.Collateral(t.Context(), fmspc); !errors.Is(err, tdx.ErrCacheClosed) {
			t.Errorf("after Close: %v", err)
		}
		if err := give(s.authority, current); !errors.Is(err, tdx.ErrCacheClosed) {
			t.Errorf("import after Close: %v", err)
		}
		cache = open(t, opts)
		check()
		if err := cache.Close(); err != nil {
			t.Fatal(err)
		}

		// Another root's directory, and a file that was written into.
		if _, err := tdx.OpenCache(tdx.CacheOptions{Root: forger.Root(), Dir: opts.Dir}); !errors.Is(err, tdx.ErrCollateral) {
			t.Errorf("another root's directory: %v", err)
		}
		path := filepath.Join(opts.Dir, fmspc+".collateral.json")
		bundle, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, bytes.Replace(bundle, []byte(`"body": "e`), []byte(`"body": "f`), 1), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := tdx.OpenCache(opts); !errors.Is(err, tdx.ErrCollateral) || !strings.Contains(err.Error(), path) {
			t.Errorf("a file that was written into: %v", err)
		}
		if left, err := filepath.Glob(filepath.Join(opts.Dir, ".collateral-*")); err != nil || len(left) > 0 {
			t.Errorf("left over: %v, %v", left, err)
		}
	})
}

// TestStrangersCauseNoFetch: the kind of platform is in a certificate that anybody can
// write; only a quote that is signed under the root has us ask for it.
func TestStrangersCauseNoFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService(t)
		cache := open(t, tdx.CacheOptions{Root: s.authority.Root(), Fetch: s.fetch})
		defer func() { _ = cache.Close() }()
		checker := tdx.NewChecker(cache, tdx.CheckerOptions{})
		stranger, err := simulated.New([32]byte{2}, simulated.DefaultPlatform(), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := checker.Verify(t.Context(), quote(t, stranger, sample(), [64]byte{}), time.Now()); !errors.Is(err, tdx.ErrForged) || s.count() != 0 {
			t.Errorf("%v after %d fetches", err, s.count())
		}
		if _, err := checker.Verify(t.Context(), quote(t, s.authority, sample(), [64]byte{}), time.Now()); err != nil || s.count() != 4 {
			t.Errorf("%v after %d fetches", err, s.count())
		}
	})
}

// TestHTTPFetch: a private service below a path, which answers the root CRL in hexadecimal
// as the PCCS does.
func TestHTTPFetch(t *testing.T) {
	s := newService(t)
	c := collateral(t, s.authority, fine())
	var misses atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		items := c.Items()
		switch r.URL.RequestURI() {
		case "/intel/tdx/certification/v4/tcb?fmspc=" + fmspc:
			w.Header().Set("TCB-Info-Issuer-Chain", items[0].IssuerChain)
			_, _ = w.Write(items[0].Body)
		case "/intel/tdx/certification/v4/qe/identity":
			w.Header().Set("SGX-Enclave-Identity-Issuer-Chain", items[1].IssuerChain)
			_, _ = w.Write(items[1].Body)
		case "/intel/sgx/certification/v4/pckcrl?ca=platform&encoding=der":
			w.Header().Set("SGX-PCK-CRL-Issuer-Chain", items[2].IssuerChain)
			_, _ = w.Write(items[2].Body)
		case "/intel/sgx/certification/v4/rootcacrl":
			_, _ = w.Write([]byte(hex.EncodeToString(items[3].Body)))
		case "/huge/tdx/certification/v4/tcb?fmspc=" + fmspc:
			_, _ = w.Write(make([]byte, tdx.MaxItemSize+1))
		default:
			misses.Add(1)
			http.NotFound(w, r)
		}
	}))
	defer server.Close()
	client := server.Client()
	defer client.CloseIdleConnections()
	get := func(base string) (*tdx.Collateral, error) {
		t.Helper()
		fetch, err := tdx.HTTPFetch(client, base)
		if err != nil {
			t.Fatal(err)
		}
		cache := open(t, tdx.CacheOptions{Root: s.authority.Root(), Fetch: fetch})
		defer func() { _ = cache.Close() }()
		return cache.Collateral(t.Context(), fmspc)
	}
	got, err := get(server.URL + "/intel/")
	if err != nil || misses.Load() != 0 {
		t.Fatalf("%v, %d unknown paths", err, misses.Load())
	}
	if got.Summary() != c.Summary() {
		t.Errorf("got %+v, want %+v", got.Summary(), c.Summary())
	}
	for _, base := range []string{server.URL, server.URL + "/huge"} {
		if _, err := get(base); !errors.Is(err, tdx.ErrCollateral) {
			t.Errorf("%s: %v", base, err)
		}
	}
	for _, base := range []string{"ftp://x", "https://", "host:1", "https://x?y"} {
		if _, err := tdx.HTTPFetch(client, base); err == nil {
			t.Errorf("base %q is taken", base)
		}
	}
}

func TestBundle(t *testing.T) {
	a := authority(t, 1)
	c := collateral(t, a, fine())
	bundle, err := c.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := tdx.DecodeCollateral(bundle)
	if err != nil || got.Summary() != c.Summary() {
		t.Fatalf("got %+v, %v", got, err)
	}
	if err := got.Authentic(a.Root(), now); err != nil {
		t.Error(err)
	}
	for name, bad := range map[string][]byte{
		"empty": nil, "no list": []byte("{}"), "three items": []byte(`[{},{},{}]`), "empty items": []byte(`[{},{},{},{}]`),
		"too long": make([]byte, tdx.MaxBundleSize+1),
	} {
		if _, err := tdx.DecodeCollateral(bad); !errors.Is(err, tdx.ErrCollateral) {
			t.Errorf("%s: %v", name, err)
		}
	}
	items := c.Items()
	for i := range items {
		broken := items
		broken[i].Body = make([]byte, tdx.MaxItemSize+1)
		if _, err := tdx.NewCollateral(broken[0], broken[1], broken[2], broken[3]); !errors.Is(err, tdx.ErrCollateral) {
			t.Errorf("item %d too long: %v", i, err)
		}
		broken[i].Body = bytes.Clone(items[i].Body)
		for at := range broken[i].Body {
			broken[i].Body[at] ^= 4
			if changed, err := tdx.NewCollateral(broken[0], broken[1], broken[2], broken[3]); err == nil {
				if err := changed.Authentic(a.Root(), now); err == nil {
					t.Errorf("item %d is authentic with byte %d changed", i, at)
				}
			}
			broken[i].Body[at] ^= 4
		}
	}
}

// TestUnsignedMembers: the signature is over the value of one member. Whatever stands
// beside it and could be taken for it, because decoders do not tell capitals apart or
// take the last of two, is refused before anybody decodes it.
func TestUnsignedMembers(t *testing.T) {
	items := collateral(t, authority(t, 1), fine()).Items()
	for i, signed := range []string{"tcbInfo", "enclaveIdentity"} {
		body := string(items[i].Body)
		value, rest, ok := strings.Cut(strings.TrimPrefix(body, `{"`+signed+`":`), `,"signature":`)
		if !ok {
			t.Fatalf("%.60s", body)
		}
		signature := strings.TrimSuffix(rest, "}")
		unsigned := strings.Replace(value, `"version":`, `"version":1`, 1)
		member := func(name, value string) string { return `"` + name + `":` + value }
		good, sign := member(signed, value), member("signature", signature)
		for name, parts := range map[string][]string{
			"as it is":               {good, sign},
			"another order":          {sign, good},
			"capitals after it":      {good, sign, member(strings.ToUpper(signed), unsigned)},
			"capitals before it":     {member(strings.ToUpper(signed), unsigned), good, sign},
			"twice":                  {good, sign, member(signed, unsigned)},
			"twice the same":         {good, good, sign},
			"escaped":                {good, sign, member(`\u`+fmt.Sprintf("%04x", signed[0])+signed[1:], unsigned)},
			"capitals only":          {member(strings.ToUpper(signed), value), sign},
			"another signature":      {good, sign, member("Signature", signature)},
			"two signatures":         {good, sign, sign},
			"something else":         {good, sign, member("note", `"hello"`)},
			"a Kelvin for a k":       {good, sign, member("\u212a", "1")},
			"no signature":           {good},
			"nothing that is signed": {sign},
		} {
			changed := items
			changed[i].Body = []byte("{" + strings.Join(parts, ",") + "}")
			_, err := tdx.NewCollateral(changed[0], changed[1], changed[2], changed[3])
			if fine := name == "as it is" || name == "another order"; fine != (err == nil) || err != nil && !errors.Is(err, tdx.ErrCollateral) {
				t.Errorf("%s, %s: %v", signed, name, err)
			}
		}
		for name, text := range map[string]string{"a list": "[" + body + "]", "two objects": body + body, "cut off": body[:len(body)-1], "a number": "1"} {
			changed := items
			changed[i].Body = []byte(text)
			if _, err := tdx.NewCollateral(changed[0], changed[1], changed[2], changed[3]); !errors.Is(err, tdx.ErrCollateral) {
				t.Errorf("%s, %s: %v", signed, name, err)
			}
		}
	}
}
